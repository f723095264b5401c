//! Tests of [`super`]. SQLite runs the scripts here; the scenario tests run them with the clients of all three engines.

use super::*;
use crate::db::{Param, literal};
use crate::domain::{Checks, ColumnSet, DatabaseInfo, Policy, Selection, Services, Value};
use crate::plan::{Basis, Purpose};
use crate::spool::Spool;
use rusqlite::Connection;

const HOSTILE: &str = "x\n.shell rm\r\n\\! id\u{2028}; DROP TABLE backups; '\"`*/ $cbr$ $cbr1$";

fn plan() -> Plan {
    let database = DatabaseInfo {
        engine: "sqlite".into(),
        version: "3".into(),
        release: "Mitaka or later".into(),
        identity: HOSTILE.into(),
        location: None,
    };
    let basis = Basis {
        id: "11111111-1111-4111-8111-111111111111".into(),
        taken_at: "2026-11-22T18:46:33Z".into(),
        database,
        columns: ColumnSet::Mitaka,
        policy: Policy::default(),
        selection: Selection::default(),
        services: Services::default(),
        checks: Checks::new(),
    };
    Plan::of_units(Purpose::Repair, None, basis, Spool::default()).unwrap()
}

fn update(engine: Engine, to: &str, id: &str, from: &str) -> ScriptStatement {
    let text = match engine {
        Engine::Sqlite => "UPDATE backups SET status = ?1 WHERE id = ?2 AND status IS ?3;",
        Engine::Mysql | Engine::Mariadb => "UPDATE backups SET status = ? WHERE id = ? AND status <=> ?;",
        Engine::Postgresql => "UPDATE backups SET status = $1 WHERE id = $2 AND status IS NOT DISTINCT FROM $3;",
    };
    let params: Vec<Param> = [to, id, from].into_iter().map(|text| Param::One(Value::from(text))).collect();
    let sql = format!("-- it's guarded\n{}", literal::inline(text, engine, &params, None).unwrap());
    ScriptStatement { task: "update the 'backup%".into(), sql, keep: None }
}

fn unit(number: usize, statements: Vec<ScriptStatement>) -> ScriptUnit {
    ScriptUnit { number, title: format!("backup {HOSTILE}"), statements, evidence: vec![HOSTILE.to_owned()], left_out: None }
}

fn script(engine: Engine, units: Vec<ScriptUnit>) -> String {
    let mut out = Vec::new();
    let applied = units.iter().filter(|unit| unit.left_out.is_none()).count();
    sql_script(&mut out, engine, &plan(), applied, units.into_iter().map(Ok)).unwrap();
    String::from_utf8(out).unwrap()
}

/// Runs a script as far as it goes; gives the error, if any, and the statuses afterwards.
fn run(units: Vec<ScriptUnit>) -> (Option<String>, Vec<String>) {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE backups (id TEXT, status TEXT); INSERT INTO backups VALUES ('a','creating'),('b','creating'),('c','creating')",
        )
        .unwrap();
    // What begins with a point is for the command-line client.
    let sql: String = script(Engine::Sqlite, units).lines().filter(|line| !line.starts_with('.')).map(|line| format!("{line}\n")).collect();
    let error = connection.execute_batch(&sql).err().map(|error| error.to_string());
    assert!(connection.is_autocommit(), "a transaction was left open");
    let mut statement = connection.prepare("SELECT status FROM backups ORDER BY id").unwrap();
    let statuses = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    (error, statuses)
}

#[test]
fn units_that_match_are_committed() {
    let sqlite = |to, id| update(Engine::Sqlite, to, id, "creating");
    let (error, statuses) = run(vec![unit(1, vec![sqlite(HOSTILE, "a"), sqlite("error", "b")]), unit(2, vec![sqlite("error", "c")])]);
    assert_eq!(error, None);
    assert_eq!(statuses, [HOSTILE, "error", "error"]);
}

#[test]
fn a_unit_that_does_not_match_is_rolled_back_and_ends_the_script() {
    let sqlite = |to, id, from| update(Engine::Sqlite, to, id, from);
    let (error, statuses) = run(vec![
        unit(1, vec![sqlite("error", "a", "creating")]),
        unit(2, vec![sqlite("error", "b", "creating"), sqlite("error", "c", "deleting")]),
        unit(3, vec![sqlite("available", "c", "creating")]),
    ]);
    assert!(error.unwrap().contains("an UPDATE did not match exactly one row; its unit is rolled back"));
    assert_eq!(statuses, ["error", "creating", "creating"]);
}

#[test]
fn more_than_one_row_is_as_wrong_as_none() {
    let all = ScriptStatement { task: "all".into(), sql: "UPDATE backups SET status = 'error'".into(), keep: None };
    let (error, statuses) = run(vec![unit(1, vec![all])]);
    assert!(error.is_some());
    assert_eq!(statuses, ["creating", "creating", "creating"]);
}

#[test]
fn a_script_has_no_line_that_hostile_text_began() {
    for engine in [Engine::Sqlite, Engine::Mysql, Engine::Mariadb, Engine::Postgresql] {
        let text = script(engine, vec![unit(1, vec![update(engine, HOSTILE, HOSTILE, HOSTILE)])]);
        assert!(!text.chars().any(|c| c != '\n' && safe::is_hostile(c)), "{text:?}");
        for line in text.lines().filter(|line| line.contains("DROP TABLE")) {
            assert!(line.starts_with("-- ") || line.starts_with("UPDATE backups SET status = "), "{line}");
        }
        let commands: Vec<&str> = text.lines().filter(|line| line.starts_with(['.', '\\'])).collect();
        let expected: &[&str] = match engine {
            Engine::Sqlite => &[".bail on", ".timeout 30000"],
            Engine::Mysql | Engine::Mariadb => &[],
            Engine::Postgresql => &["\\set ON_ERROR_STOP on"],
        };
        assert_eq!(commands, expected);
    }
}

#[test]
fn a_dollar_quote_is_not_in_what_it_quotes() {
    assert_eq!(dollar_tag("UPDATE"), "$cbr$");
    assert_eq!(dollar_tag("'$cbr$ $cbr1$'"), "$cbr2$");
    let text = script(Engine::Postgresql, vec![unit(1, vec![update(Engine::Postgresql, "$cbr$", "a", "b")])]);
    assert!(text.contains("\nDO $cbr1$\n") && text.contains("\n$cbr1$;\n"), "{text}");
}

#[test]
fn mysql_commits_only_what_matched() {
    let text = script(Engine::Mysql, vec![unit(7, vec![update(Engine::Mysql, "error", "a", "creating")])]);
    let tail = text.split_once("-- Unit 7").unwrap().1.split_once("START").unwrap().1;
    insta::assert_snapshot!(tail, @r"
     TRANSACTION;
    -- it's guarded
    UPDATE backups SET status = 'error' WHERE id = 'a' AND status <=> 'creating';
    SET @cbr_ok = @cbr_ok AND ROW_COUNT() = 1;
    SET @cbr_step = IF(@cbr_ok, 'DO 0', 'unit 7, update the backup: not exactly one row matched; rolled back');
    PREPARE cbr_step FROM @cbr_step;
    EXECUTE cbr_step;
    SET @cbr_step = IF(@cbr_ok, 'COMMIT', 'unit 7: rolled back');
    PREPARE cbr_step FROM @cbr_step;
    EXECUTE cbr_step;
    -- No effect after the COMMIT; without one it rolls the unit back.
    ROLLBACK;
    SELECT IF(@cbr_ok, 'unit 7 is committed', 'unit 7 is NOT committed') AS outcome;

    -- End of the script: 1 unit. If no error was shown, all are committed.
    ");
}

#[test]
fn postgresql_raises_in_a_block() {
    let text = script(Engine::Postgresql, vec![unit(7, vec![update(Engine::Postgresql, "error", "a", "creating")])]);
    let tail = text.split_once("-- Unit 7").unwrap().1.split_once("BEGIN ").unwrap().1;
    insta::assert_snapshot!(tail, @r"
    ISOLATION LEVEL READ COMMITTED READ WRITE;
    DO $cbr$
    #variable_conflict use_column
    DECLARE
        cbr_matched bigint;
    BEGIN
    -- it's guarded
    UPDATE backups SET status = 'error' WHERE id = 'a' AND status IS NOT DISTINCT FROM 'creating';
    GET DIAGNOSTICS cbr_matched = ROW_COUNT;
    IF cbr_matched <> 1 THEN
        RAISE EXCEPTION 'unit 7, update the backup: % rows matched instead of one; the unit is rolled back', cbr_matched;
    END IF;
    END
    $cbr$;
    SET cbr.unit = '7';
    COMMIT;
    SELECT 'unit 7 is ' || CASE current_setting('cbr.unit', true) WHEN '7' THEN '' ELSE 'NOT ' END || 'committed';

    -- End of the script: 1 unit. If no error was shown, all are committed.
    ");
}
