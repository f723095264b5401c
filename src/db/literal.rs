//! Puts values into a statement in place of its placeholders, for people to read and for the engine's own client to run.
//!
//! The program itself never runs this text; it binds values. The text is for a plan as SQL and for `-v`. A value may be hostile, so a
//! literal contains only printable ASCII, and on SQLite letters. It encodes everything that a client could take for its own
//! command (`.shell`, `\!`, `delimiter` at the start of a line), that a setting could reinterpret (a backslash under
//! `NO_BACKSLASH_ESCAPES`, a connection's character set) or that a reader cannot see. Pure; may use only the shared types of `db`.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Engine, ID_BATCH, Param};
use crate::domain::Value;

/// Why the values do not fit the statement.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LiteralError {
    /// A placeholder has no value.
    #[error("the statement has a placeholder for parameter {0}, which was not given")]
    Missing(usize),
    /// More values than placeholders.
    #[error("{given} parameters were given, but the statement uses only {used}")]
    Unused {
        /// The number of parameters.
        given: usize,
        /// The number of parameters with a placeholder.
        used: usize,
    },
    /// A list without ids.
    #[error("parameter {0} is a list without ids")]
    EmptyList(usize),
    /// The statement has fewer placeholders than a list needs on MySQL.
    #[error("parameter {number} is a list for {ID_BATCH} placeholders, but the statement has {found} in a row")]
    ListPlaces {
        /// The parameter's number, from 1.
        number: usize,
        /// The number of consecutive placeholders.
        found: usize,
    },
    /// PostgreSQL cannot store NUL.
    #[error("a text contains a NUL character, which PostgreSQL cannot store")]
    Nul,
    /// The statement ends inside a quoted part or a comment.
    #[error("the statement ends inside {0}")]
    Unterminated(&'static str),
}

/// Puts the values into a statement of `sql/` in place of `?1` and so on (SQLite), `?` (MySQL, MariaDB) or `$1` (PostgreSQL).
///
/// On MySQL a list of ids replaces [`ID_BATCH`] placeholders; each id is written once. Quoted text, quoted names and comments
/// are not changed. `compact` removes comments and reduces white space to single spaces.
pub fn inline(text: &str, engine: Engine, params: &[Param], compact: bool) -> Result<String, LiteralError> {
    inline_with(text, engine, params, &BTreeMap::new(), compact)
}

/// Like [`inline`], with expressions in the engine's SQL in place of some parameters, by their numbers from 1. They are not encoded.
pub fn inline_with(
    text: &str,
    engine: Engine,
    params: &[Param],
    expressions: &BTreeMap<usize, String>,
    compact: bool,
) -> Result<String, LiteralError> {
    let mut inliner =
        Inliner { rest: text, sql: String::with_capacity(text.len()), engine, params, expressions, compact, next: 0, used: 0 };
    while inliner.step()? {}
    let Inliner { mut sql, used, .. } = inliner;
    if used < params.len() {
        return Err(LiteralError::Unused { given: params.len(), used });
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

/// Replaces the placeholders of a statement, piece by piece.
struct Inliner<'a> {
    rest: &'a str,
    sql: String,
    engine: Engine,
    params: &'a [Param],
    expressions: &'a BTreeMap<usize, String>,
    compact: bool,
    /// The number of the last parameter that a placeholder used.
    next: usize,
    /// The largest number of a parameter with a placeholder.
    used: usize,
}

impl<'a> Inliner<'a> {
    /// Processes one piece; false at the end.
    fn step(&mut self) -> Result<bool, LiteralError> {
        let Some(c) = self.rest.chars().next() else { return Ok(false) };
        if c.is_whitespace() {
            let piece = self.cut(span(self.rest, char::is_whitespace));
            self.space(piece);
        } else if let Some(length) = self.comment()? {
            let piece = self.cut(length);
            self.space(piece);
        } else if let Some(length) = self.quoted()? {
            let piece = self.cut(length);
            self.sql.push_str(piece);
        } else if is_word(c) {
            // A whole word, so that the end of `a$1` is not a placeholder.
            let piece = self.cut(span(self.rest, |c| is_word(c) || c == '$'));
            self.sql.push_str(piece);
        } else if !self.placeholder()? {
            let piece = self.cut(c.len_utf8());
            self.sql.push_str(piece);
        }
        Ok(true)
    }

    fn cut(&mut self, length: usize) -> &'a str {
        let (piece, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        piece
    }

    /// Writes white space or a comment, or one space for it.
    fn space(&mut self, piece: &str) {
        if !self.compact {
            self.sql.push_str(piece);
        } else if !self.sql.is_empty() && !self.sql.ends_with(' ') {
            self.sql.push(' ');
        }
    }

    /// The length of the comment that begins here, if one does.
    fn comment(&self) -> Result<Option<usize>, LiteralError> {
        let mysql = matches!(self.engine, Engine::Mysql | Engine::Mariadb);
        let line = if let Some(after) = self.rest.strip_prefix("--") {
            // On MySQL `5--1` is arithmetic.
            !mysql || after.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control())
        } else {
            mysql && self.rest.starts_with('#')
        };
        if line {
            return Ok(Some(self.rest.find('\n').unwrap_or(self.rest.len())));
        }
        if !self.rest.starts_with("/*") {
            return Ok(None);
        }
        let nests = self.engine == Engine::Postgresql;
        let (mut depth, mut at) = (1_usize, 2);
        while depth > 0 {
            let tail = self.rest.get(at..).unwrap_or_default();
            if tail.starts_with("*/") {
                depth -= 1;
                at += 2;
            } else if nests && tail.starts_with("/*") {
                depth += 1;
                at += 2;
            } else {
                at += tail.chars().next().ok_or(LiteralError::Unterminated("a comment"))?.len_utf8();
            }
        }
        Ok(Some(at))
    }

    /// The length of the quoted text or name that begins here, if one does. A doubled quote ends it and begins another.
    fn quoted(&self) -> Result<Option<usize>, LiteralError> {
        let mysql = matches!(self.engine, Engine::Mysql | Engine::Mariadb);
        let (open, close, what) = match self.rest.chars().next() {
            Some('\'') => ("'", "'", "a text"),
            Some('"') => ("\"", "\"", "a quoted name"),
            Some('`') if self.engine != Engine::Postgresql => ("`", "`", "a quoted name"),
            Some('[') if self.engine == Engine::Sqlite => ("[", "]", "a quoted name"),
            Some('$') if self.engine == Engine::Postgresql => match dollar_tag(self.rest) {
                Some(tag) => (tag, tag, "a dollar-quoted text"),
                None => return Ok(None),
            },
            // PostgreSQL's E'' is a word followed by a text.
            _ => return Ok(None),
        };
        let escapes = open != "`" && (mysql || (open == "'" && self.sql.ends_with(['E', 'e']) && self.engine == Engine::Postgresql));
        let mut at = open.len();
        loop {
            let tail = self.rest.get(at..).unwrap_or_default();
            if tail.starts_with(close) {
                return Ok(Some(at + close.len()));
            }
            let mut chars = tail.chars();
            let c = chars.next().ok_or(LiteralError::Unterminated(what))?;
            at += c.len_utf8();
            if escapes && c == '\\' {
                at += chars.next().map_or(0, char::len_utf8);
            }
        }
    }

    /// Replaces the placeholder that begins here; false if none begins.
    fn placeholder(&mut self) -> Result<bool, LiteralError> {
        let sign = if self.engine == Engine::Postgresql { '$' } else { '?' };
        let Some(after) = self.rest.strip_prefix(sign) else { return Ok(false) };
        let digits = if matches!(self.engine, Engine::Mysql | Engine::Mariadb) { 0 } else { span(after, |c| c.is_ascii_digit()) };
        let number = match after.get(..digits).unwrap_or_default() {
            "" if self.engine == Engine::Postgresql => return Ok(false),
            "" => self.next + 1,
            digits => digits.parse().unwrap_or(usize::MAX),
        };
        self.cut(sign.len_utf8() + digits);
        self.next = self.next.max(number);
        self.used = self.used.max(number);
        let params = self.params;
        let param = number.checked_sub(1).and_then(|index| params.get(index)).ok_or(LiteralError::Missing(number))?;
        let literal = match param {
            _ if self.expressions.contains_key(&number) => self.expressions.get(&number).cloned().unwrap_or_default(),
            Param::One(value) => literal(value, self.engine)?,
            Param::Ids(ids) => self.list(ids, number)?,
        };
        // `a -?` with a negative number must not become a comment.
        if literal.starts_with('-') && self.sql.ends_with('-') {
            self.sql.push(' ');
        }
        self.sql.push_str(&literal);
        Ok(true)
    }

    /// A list as the engine's session binds it. On MySQL it also skips the remaining placeholders.
    fn list(&mut self, ids: &[String], number: usize) -> Result<String, LiteralError> {
        if ids.is_empty() {
            return Err(LiteralError::EmptyList(number));
        }
        let each = || -> Result<String, LiteralError> {
            let mut literals = Vec::with_capacity(ids.len());
            for id in ids {
                let literal = text_literal(id, self.engine)?;
                if !literals.contains(&literal) {
                    literals.push(literal);
                }
            }
            Ok(literals.join(", "))
        };
        match self.engine {
            Engine::Sqlite => text_literal(&serde_json::Value::from(ids).to_string(), self.engine),
            Engine::Postgresql => Ok(format!("ARRAY[{}]", each()?)),
            Engine::Mysql | Engine::Mariadb => {
                let list = each()?;
                for found in 1..ID_BATCH {
                    let next = self.rest.trim_start().strip_prefix(',').and_then(|rest| rest.trim_start().strip_prefix('?'));
                    self.rest = next.ok_or(LiteralError::ListPlaces { number, found })?;
                }
                Ok(list)
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the prefix whose characters fit.
fn span(text: &str, fits: impl Fn(char) -> bool) -> usize {
    text.find(|c| !fits(c)).unwrap_or(text.len())
}

/// PostgreSQL's `$$` or `$name$` at the beginning of a text.
fn dollar_tag(text: &str) -> Option<&str> {
    let after = text.strip_prefix('$')?;
    let name = after.get(..span(after, is_word))?;
    let is_name = !name.starts_with(|c: char| c.is_ascii_digit());
    (is_name && after.get(name.len()..)?.starts_with('$')).then(|| text.get(..name.len() + 2))?
}

#[cfg(test)]
#[path = "literal_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
