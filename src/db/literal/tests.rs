//! Tests of [`super`]: how a server reads a literal, by a reader for each engine and by SQLite itself.

use super::*;
use crate::db::statements;
use proptest::prelude::*;
use rusqlite::Connection;

const ENGINES: [Engine; 4] = [Engine::Sqlite, Engine::Mysql, Engine::Mariadb, Engine::Postgresql];

fn one(value: impl Into<Value>) -> Param {
    Param::One(value.into())
}

fn text(text: &str, engine: Engine) -> String {
    literal(&Value::from(text), engine).unwrap()
}

#[test]
fn plain_values_become_plain_literals() {
    for engine in ENGINES {
        assert_eq!(literal(&Value::Null, engine).unwrap(), "NULL");
        assert_eq!(literal(&Value::Integer(-5), engine).unwrap(), "-5");
        assert_eq!(text("it's", engine), "'it''s'");
        assert_eq!(text("", engine), "''");
    }
}

#[test]
fn text_with_another_meaning_to_a_setting_or_a_client_is_encoded() {
    assert_eq!(text("a\\", Engine::Sqlite), r"'a\'");
    assert_eq!(text("a\\'", Engine::Mysql), "_utf8mb4 x'615C27'");
    assert_eq!(text("a\\'\u{1f642}", Engine::Postgresql), r"E'a\\''\U0001F642'");
    assert_eq!(text("a\n.shell rm", Engine::Sqlite), "CAST(x'610A2E7368656C6C20726D' AS TEXT)");
    assert_eq!(text("a\n\\!", Engine::Postgresql), r"E'a\u000A\\!'");
    assert_eq!(text("é", Engine::Sqlite), "'é'");
    assert_eq!(text("é", Engine::Mariadb), "_utf8mb4 x'C3A9'");
    assert_eq!(text("é", Engine::Postgresql), r"E'\u00E9'");
    assert_eq!(text("\u{202e}", Engine::Sqlite), "CAST(x'E280AE' AS TEXT)");
    assert_eq!(text("\0", Engine::Mysql), "_utf8mb4 x'00'");
    assert_eq!(literal(&Value::from("a\0"), Engine::Postgresql), Err(LiteralError::Nul));
}

#[test]
fn only_placeholders_are_replaced() {
    let sqlite =
        inline("-- what?1\nSELECT '?1', \"?2\", `?1`, ?2, ?1 FROM t WHERE a='it''s ?1'", Engine::Sqlite, &[one(1), one("x")], None);
    assert_eq!(sqlite.unwrap(), "SELECT '?1', \"?2\", `?1`, 'x', 1 FROM t WHERE a='it''s ?1'");

    let mysql = inline("-- it's ?\nSELECT '?', \"?\", `?`, ? -- ?\n, ?", Engine::Mysql, &[one(1), one(2)], None);
    assert_eq!(mysql.unwrap(), "SELECT '?', \"?\", `?`, 1 , 2");

    let postgres = inline("SELECT '$1', \"$1\", $2, $1, b ? 'c' --$1", Engine::Postgresql, &[one(1), one("x")], None);
    assert_eq!(postgres.unwrap(), "SELECT '$1', \"$1\", 'x', 1, b ? 'c'");
}

#[test]
fn an_expression_replaces_a_parameter() {
    let since = Some((2, "now()".to_owned()));
    assert_eq!(inline("$1, $2, $1", Engine::Postgresql, &[one("a"), one("b")], since).unwrap(), "'a', now(), 'a'");
}

#[test]
fn a_placeholder_in_a_value_is_not_replaced() {
    assert_eq!(inline("?1 ?2", Engine::Sqlite, &[one("?2 --"), one("$1")], None).unwrap(), "'?2 --' '$1'");
    assert_eq!(inline("a -?", Engine::Mysql, &[one(-1)], None).unwrap(), "a - -1");
    assert_eq!(inline("$1$2", Engine::Postgresql, &[one("$2"), one(10)], None).unwrap(), "'$2'10");
    let eleven: Vec<Param> = (1..=11_i64).map(one).collect();
    assert_eq!(inline("$11,$1,$2,$3,$4,$5,$6,$7,$8,$9,$10", Engine::Postgresql, &eleven, None).unwrap(), "11,1,2,3,4,5,6,7,8,9,10");
}

#[test]
fn compact_has_no_comments_and_single_spaces() {
    let text = "-- why: it's so\nUPDATE t\n   SET a = ?1  -- new\n WHERE b = 'two  spaces'\n -- and\n AND c = ?2;\n";
    assert_eq!(
        inline(text, Engine::Sqlite, &[one("-- x\n"), one(2)], None).unwrap(),
        "UPDATE t SET a = CAST(x'2D2D20780A' AS TEXT) WHERE b = 'two  spaces' AND c = 2;"
    );
}

#[test]
fn every_statement_takes_its_values() {
    for statement in statements::ALL.iter().filter(|statement| statement.name.contains("_update")) {
        for engine in ENGINES {
            let text = statement.text(engine);
            // `inline` knows neither these comments nor these quotes.
            assert!(!["/*", "#", "\\", "[", "$$", "E'"].iter().any(|unknown| text.contains(unknown)), "{}", statement.name);
            let count = (1..40).find(|&count| inline(text, engine, &vec![one("v"); count], None).is_ok()).expect(statement.name);
            let sql = inline(text, engine, &vec![one("v"); count], None).unwrap();
            assert!(sql.starts_with("UPDATE ") && sql.ends_with(';') && !sql.contains(['?', '$', '\n']), "{sql}");
            assert_eq!(inline(text, engine, &vec![one("v"); count - 1], None), Err(LiteralError::Missing(count)));
            let unused = Err(LiteralError::Unused(count + 1, count));
            assert_eq!(inline(text, engine, &vec![one("v"); count + 1], None), unused);
        }
    }
}

#[test]
fn values_that_do_not_fit_are_an_error() {
    let none: &[Param] = &[];
    assert_eq!(inline("?0", Engine::Sqlite, none, None), Err(LiteralError::Missing(0)));
    assert_eq!(inline("$99999999999999999999", Engine::Postgresql, none, None), Err(LiteralError::Missing(usize::MAX)));
    assert_eq!(inline("?1", Engine::Sqlite, &[Param::Ids(vec!["a".to_owned()])], None), Err(LiteralError::List(1)));
    for unterminated in ["'a", "\"a", "'a''"] {
        for engine in ENGINES {
            assert_eq!(inline(unterminated, engine, none, None), Err(LiteralError::Unterminated), "{unterminated}");
        }
    }
}

/// The text that a server reads from a literal, for both settings of a backslash in plain text. `None` if it is not exactly one literal.
fn read(sql: &str, engine: Engine, backslash: bool) -> Option<String> {
    let bytes = |hex: &str| {
        let digits: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect();
        String::from_utf8(digits?).ok()
    };
    if let Some(hex) = sql.strip_prefix("_utf8mb4 x'").and_then(|rest| rest.strip_suffix('\'')) {
        return bytes(hex);
    }
    if let Some(hex) = sql.strip_prefix("CAST(x'").and_then(|rest| rest.strip_suffix("' AS TEXT)")) {
        return bytes(hex);
    }
    let (escapes, body) = match sql.strip_prefix("E'") {
        Some(body) if engine == Engine::Postgresql => (true, body),
        _ => (backslash && engine != Engine::Sqlite, sql.strip_prefix('\'')?),
    };
    let mut chars = body.chars();
    let mut read = String::new();
    loop {
        match chars.next()? {
            '\'' if chars.clone().next() == Some('\'') => {
                chars.next();
                read.push('\'');
            }
            '\'' => return chars.next().is_none().then_some(read),
            '\\' if escapes => match chars.next()? {
                '\\' => read.push('\\'),
                sign @ ('u' | 'U') => {
                    let digits: String = chars.by_ref().take(if sign == 'u' { 4 } else { 8 }).collect();
                    read.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                _ => return None,
            },
            c => read.push(c),
        }
    }
}

const HOSTILE: &str =
    r#"(?s)(.|['"\\`?$;:#\x00-\x1f\x7f-\x9f\u{202e}\u{2028}\u{1f642}]|--|/\*|\*/|\$1|\?1|\n\.shell |\n\\! |\ndelimiter ){0,16}"#;

proptest! {
    #[test]
    fn sqlite_returns_the_same_text(hostile in HOSTILE) {
        let sql = inline("SELECT ?1, length(?1), 'end' -- ?1", Engine::Sqlite, &[one(hostile.clone())], None).unwrap();
        let row = Connection::open_in_memory().unwrap().query_row(&sql, [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(2)?))
        }).unwrap();
        prop_assert_eq!(row, (hostile, "end".to_owned()));
    }

    #[test]
    fn a_literal_is_one_literal_on_every_engine(hostile in HOSTILE) {
        for engine in ENGINES {
            let Ok(sql) = literal(&Value::from(hostile.as_str()), engine) else {
                prop_assert!(engine == Engine::Postgresql && hostile.contains('\0'));
                continue;
            };
            prop_assert!(!sql.chars().any(|c| c.is_control() || (engine != Engine::Sqlite && !c.is_ascii())), "{sql:?}");
            for backslash in [false, true] {
                prop_assert_eq!(read(&sql, engine, backslash), Some(hostile.clone()), "{}", sql);
            }
        }
    }

    #[test]
    fn any_text_can_be_a_statement(text in HOSTILE) {
        for engine in ENGINES {
            let params = [one(1), one("x")];
            // It must not panic, and white space must not grow.
            if let Ok(sql) = inline(&text, engine, &params, None) {
                prop_assert!(!sql.starts_with(' '), "{sql:?}");
            }
        }
    }
}
