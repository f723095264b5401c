//! Puts values into an UPDATE in place of its placeholders, for people to read and for the engine's own client to run.
//!
//! The program itself never runs this text; it binds values. The text is for a plan as SQL and for `-v`. A value may be hostile, so a
//! literal contains only printable ASCII, and on SQLite letters. It encodes everything that a client could take for its own
//! command (`.shell`, `\!`, `delimiter` at the start of a line), that a setting could reinterpret (a backslash under
//! `NO_BACKSLASH_ESCAPES`, a connection's character set) or that a reader cannot see. Pure; may use only the shared types of `db`.

use std::iter::from_fn;

use thiserror::Error;

use super::{Engine, Param};
use crate::domain::Value;

/// Why the values do not fit the statement.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LiteralError {
    /// A placeholder has no value.
    #[error("the statement has a placeholder for parameter {0}, which was not given")]
    Missing(usize),
    /// More values than placeholders.
    #[error("{0} parameters were given, but the statement uses only {1}")]
    Unused(usize, usize),
    /// A list of ids, which no UPDATE takes.
    #[error("parameter {0} is a list")]
    List(usize),
    /// PostgreSQL cannot store NUL.
    #[error("a text contains a NUL character, which PostgreSQL cannot store")]
    Nul,
    /// The statement ends inside a quoted part.
    #[error("the statement ends inside a quoted part")]
    Unterminated,
}

/// Puts the values into an UPDATE of `sql/` in place of `?1` and so on (SQLite), `?` (MySQL, MariaDB) or `$1` (PostgreSQL).
///
/// Quoted text and quoted names are not changed. Line comments and white space become single spaces. `expression` replaces the
/// parameter with this number, from 1, by an expression in the engine's SQL, which is not encoded.
pub fn inline(text: &str, engine: Engine, params: &[Param], expression: Option<(usize, String)>) -> Result<String, LiteralError> {
    let sign = if engine == Engine::Postgresql { '$' } else { '?' };
    let mut sql = String::with_capacity(text.len());
    let mut used = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let comment = c == '-' && chars.peek() == Some(&'-');
        if comment {
            chars.by_ref().find(|c| *c == '\n');
        }
        if comment || c.is_whitespace() {
            if !sql.is_empty() && !sql.ends_with(' ') {
                sql.push(' ');
            }
        } else if matches!(c, '\'' | '"' | '`') {
            sql.push(c);
            // A doubled quote ends one part and begins another.
            loop {
                let next = chars.next().ok_or(LiteralError::Unterminated)?;
                sql.push(next);
                if next == c {
                    break;
                }
            }
        } else if c == sign {
            let digits: String = from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
            let number = if digits.is_empty() { used + 1 } else { digits.parse().unwrap_or(usize::MAX) };
            let param = number.checked_sub(1).and_then(|index| params.get(index)).ok_or(LiteralError::Missing(number))?;
            let value = match (&expression, param) {
                (Some((replaced, expression)), _) if *replaced == number => expression.clone(),
                (_, Param::One(value)) => literal(value, engine)?,
                (_, Param::Ids(_)) => return Err(LiteralError::List(number)),
            };
            // `a -?` with a negative number must not become a comment.
            if value.starts_with('-') && sql.ends_with('-') {
                sql.push(' ');
            }
            sql.push_str(&value);
            used = used.max(number);
        } else {
            sql.push(c);
        }
    }
    if used < params.len() {
        return Err(LiteralError::Unused(params.len(), used));
    }
    sql.truncate(sql.trim_end().len());
    Ok(sql)
}

/// A value as a literal with the same meaning under every setting of a session.
///
/// On SQLite the file's encoding must be UTF-8, as in Cinder's files.
pub fn literal(value: &Value, engine: Engine) -> Result<String, LiteralError> {
    Ok(match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) | Value::Unsupported(text) => text_literal(text, engine)?,
    })
}

fn text_literal(text: &str, engine: Engine) -> Result<String, LiteralError> {
    let quoted = || format!("'{}'", text.replace('\'', "''"));
    let visible = |c: char| c == ' ' || c.is_ascii_graphic();
    Ok(match engine {
        // SQLite reads SQL as UTF-8 and has no escapes.
        Engine::Sqlite if text.chars().all(|c| visible(c) || (!c.is_ascii() && c.is_alphanumeric())) => quoted(),
        Engine::Sqlite => format!("CAST(x'{}' AS TEXT)", hex(text)),
        // The meaning of a backslash depends on sql_mode, and that of non-ASCII bytes on the connection's character set.
        Engine::Mysql | Engine::Mariadb if text.chars().all(|c| visible(c) && c != '\\') => quoted(),
        Engine::Mysql | Engine::Mariadb => format!("_utf8mb4 x'{}'", hex(text)),
        Engine::Postgresql if text.contains('\0') => return Err(LiteralError::Nul),
        // The meaning of a backslash in a plain literal depends on standard_conforming_strings; in E'' it always escapes.
        Engine::Postgresql if text.chars().all(|c| visible(c) && c != '\\') => quoted(),
        Engine::Postgresql => escaped(text),
    })
}

fn hex(text: &str) -> String {
    crate::domain::hex::encode(text.as_bytes()).to_ascii_uppercase()
}

/// PostgreSQL's `E''`, which gives characters by code point and does not depend on an encoding.
fn escaped(text: &str) -> String {
    let mut literal = String::from("E'");
    for c in text.chars() {
        match c {
            '\'' => literal.push_str("''"),
            '\\' => literal.push_str("\\\\"),
            ' ' => literal.push(' '),
            _ if c.is_ascii_graphic() => literal.push(c),
            _ if c <= '\u{ffff}' => literal.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ => literal.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
