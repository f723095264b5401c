//! Units that a dry run calls planned are applied by a repair of the same rows and restored by an undo, on every engine, for populations
//! with invalid values.

use std::collections::{BTreeMap, BTreeSet};

use cinder_backup_repair::db::Engine;
use serde_json::Value;

use crate::database::Database;
use crate::population::{self, Random};
use crate::program::Program;
use crate::rows::quote;
use crate::schemas::{Columns, engines, fresh};

/// The seeds of the populations.
const SEEDS: std::ops::Range<u64> = 10..14;
/// The number of backups of each.
const BACKUPS: usize = 120;
/// Makes every pending backup stuck.
const ALL: [&str; 7] = ["repair", "--service-down-time=2s", "--older-than=0s", "--assume-dead=all", "--max-changes=100000", "-f", "json"];
const EARNED: [&str; 3] = ["--to=available", "--allow-unverified", "--fix-counters"];

/// Columns with hostile values for every engine.
fn anywhere(engine: Engine) -> Vec<(&'static str, &'static str, String)> {
    let text = |text: &str| quote(engine, text);
    vec![
        ("backups", "host", text("Ctl-Down")),
        ("backups", "host", text("ctl-down ")),
        ("backups", "host", text("żółw")),
        ("backups", "host", text(&"h".repeat(255))),
        ("backups", "service", text("")),
        ("backups", "container", text("it's \\ \"odd\" ")),
        ("backups", "service_metadata", text(&"ß".repeat(255))),
        ("backups", "fail_reason", text(&"\\'".repeat(127))),
        ("backups", "fail_reason", text("\u{fffd}\n")),
        ("backups", "size", "-5".to_owned()),
        ("backups", "size", "2147483647".to_owned()),
        ("backups", "object_count", "-1".to_owned()),
        ("backups", "num_dependent_backups", "-3".to_owned()),
        ("backups", "num_dependent_backups", "2147483647".to_owned()),
        ("backups", "volume_id", "upper(volume_id)".to_owned()),
        ("backups", "parent_id", "upper(parent_id)".to_owned()),
        ("backups", "status", text("creating ")),
        ("backups", "status", text("Restoring")),
        ("backups", "created_at", "NULL".to_owned()),
        ("backups", "updated_at", "'9999-12-31 23:59:59'".to_owned()),
        ("volumes", "attach_status", text("Attached ")),
        ("volumes", "previous_status", text("In-Use")),
        ("volumes", "status", text("BACKING-UP")),
        ("volumes", "updated_at", "NULL".to_owned()),
        ("snapshots", "updated_at", "NULL".to_owned()),
    ]
}

/// Times that an engine stores but Cinder never writes, and values of the wrong type.
fn only_on(engine: Engine) -> Vec<(&'static str, &'static str, String)> {
    let mut found = Vec::new();
    let times: &[&str] = match engine {
        Engine::Sqlite => &["'yesterday'", "''", "1790000000", "2460000.5", "x'32303236'", "CAST('2026-11-22 10:00:00' AS BLOB)"],
        Engine::Mysql | Engine::Mariadb => {
            &["'0000-00-00 00:00:00'", "'2026-00-00 00:00:00'", "'2026-11-00 10:00:00'", "'2026-00-22 10:00:00.123456'", "UTC_TIMESTAMP(6)"]
        }
        Engine::Postgresql => {
            &["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'20000-01-01'", "'2026-01-02 03:04:05.000001'", "'0001-01-01'"]
        }
    };
    for table in ["backups", "volumes", "snapshots"] {
        for column in ["created_at", "updated_at"] {
            found.extend(times.iter().map(|time| (table, column, (*time).to_owned())));
        }
    }
    let foreign: &[(&str, &str, &str)] = match engine {
        Engine::Sqlite => &[
            ("backups", "size", "'abc'"),
            ("backups", "size", "1.5"),
            ("backups", "size", "9e999"),
            ("backups", "size", "9223372036854775807"),
            ("backups", "object_count", "x'00'"),
            ("backups", "object_count", "9007199254740993"),
            ("backups", "num_dependent_backups", "'many'"),
            ("backups", "num_dependent_backups", "-0.0"),
            ("backups", "num_dependent_backups", "1e300"),
            ("backups", "host", "CAST('ctl-down' AS BLOB)"),
            ("backups", "host", "CAST(x'63ff' AS TEXT)"),
            ("backups", "fail_reason", "x'00ff'"),
            ("backups", "fail_reason", "'a' || char(0) || 'b'"),
            ("backups", "service_metadata", "CAST('x' AS BLOB)"),
            ("backups", "container", "zeroblob(3)"),
            ("volumes", "status", "CAST('backing-up' AS BLOB)"),
            ("volumes", "previous_status", "CAST('available' AS BLOB)"),
            ("volumes", "attach_status", "x'ff'"),
            ("snapshots", "status", "CAST('backing-up' AS BLOB)"),
        ],
        Engine::Mysql | Engine::Mariadb => &[("backups", "container", "x'63ff'"), ("backups", "host", "x'f09f9982'")],
        Engine::Postgresql => &[],
    };
    found.extend(foreign.iter().map(|(table, column, value)| (*table, *column, (*value).to_owned())));
    found
}

/// A population in which every third row has a value that Cinder never writes.
fn populate(database: &Database, seed: u64) {
    let engine = database.engine();
    let population = population::generate(seed, BACKUPS);
    database.insert(&population.rows);
    if matches!(engine, Engine::Mysql | Engine::Mariadb) {
        database.execute("SET SESSION sql_mode = ''");
        if seed % 2 == 1 {
            for table in ["backups", "volumes", "snapshots"] {
                database.execute(&format!("ALTER TABLE {table} MODIFY created_at DATETIME(6), MODIFY updated_at DATETIME(6)"));
            }
            database.execute(
                "ALTER TABLE backups MODIFY container VARBINARY(255), MODIFY host VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            );
        }
    }
    let mut random = Random::new(seed);
    let values = [anywhere(engine), only_on(engine)].concat();
    for row in &population.rows {
        let fitting: Vec<_> =
            values.iter().filter(|(table, column, _)| *table == row.table && database.has_column(table, column)).cloned().collect();
        if random.percent(35) && !fitting.is_empty() {
            let (table, column, value) = random.pick(&fitting);
            // A character set may not have the value.
            let _ = database.try_execute(&format!("UPDATE {table} SET {column} = {value} WHERE id = '{}'", row.get_id()));
        }
    }
}

/// The ids of the units by outcome, with the reasons.
fn outcomes(document: &Value) -> BTreeMap<(String, bool), (String, String)> {
    let units = document["units"].as_array().unwrap().iter();
    let counter = |unit: &Value| unit["changes"].as_array().unwrap().iter().all(|change| change["column"] == "num_dependent_backups");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    units.map(|unit| ((text(&unit["id"]), counter(unit)), (text(&unit["outcome"]), text(&unit["reason"])))).collect()
}

/// Every row that a repair may change, by table and id, in a form that distinguishes types, without `updated_at`.
fn cells(database: &Database) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let columns = [
        ("backups", "id, status, size, object_count, service_metadata, fail_reason, num_dependent_backups, host, container"),
        ("volumes", "id, status, previous_status, attach_status"),
        ("snapshots", "id, status"),
    ];
    for (table, columns) in columns {
        let columns = columns.split(", ").filter(|column| database.has_column(table, column));
        let columns: Vec<String> = columns
            .map(|column| if database.engine() == Engine::Sqlite { format!("quote({column})") } else { column.to_owned() })
            .collect();
        for row in database.query(&format!("SELECT id, {} FROM {table}", columns.join(", "))) {
            found.insert(format!("{table} {}", row[0].as_deref().unwrap()), format!("{row:?}"));
        }
    }
    found
}

/// The differences between a dry run and the repair.
fn broken(promised: &Value, kept: &Value) -> Vec<String> {
    let (promised, kept) = (outcomes(promised), outcomes(kept));
    let nothing = ("absent".to_owned(), String::new());
    let mut broken = Vec::new();
    for (unit, (promise, why)) in &promised {
        let (outcome, reason) = kept.get(unit).unwrap_or(&nothing);
        let as_promised = if promise == "planned" { outcome == "applied" } else { outcome == promise };
        if !as_promised {
            broken.push(format!("{} was {promise} ({why}) and is {outcome}: {reason}", unit.0));
        }
    }
    broken
}

fn keeps(engine: Engine, columns: Columns, seed: u64, more: &[&str]) -> usize {
    let database = fresh(engine, columns);
    populate(&database, seed);
    let program = Program::on(database.url());
    let case = format!("{} {columns:?} seed {seed} {more:?}", engine.name());
    let run = |last: &str| {
        let answer = program.run(&[&ALL[..], more, &[last]].concat());
        assert!(matches!(answer.code, Some(0 | 4)), "{case}: {:?}\n{}", answer.code, answer.stderr);
        answer.json()
    };
    let before = cells(&database);
    let promised = run("--dry-run");
    assert_eq!(cells(&database), before, "{case}");
    let kept = run("--yes");
    let broken_promises = broken(&promised, &kept);
    assert!(broken_promises.is_empty(), "{case}: {}\n{}", broken_promises.len(), broken_promises.join("\n"));

    let undo = |last: &str| {
        let answer = program.run(&["undo", kept["run"].as_str().unwrap(), last, "-f", "json"]);
        assert!(matches!(answer.code, Some(0 | 4)), "{case}: {:?}\n{}", answer.code, answer.stderr);
        answer.json()
    };
    let promised = undo("--dry-run");
    let undone = undo("--yes");
    let broken_promises = broken(&promised, &undone);
    assert!(broken_promises.is_empty(), "{case}: undo: {}\n{}", broken_promises.len(), broken_promises.join("\n"));
    // A row that is not restored exactly was refused.
    let refused = |unit: &&Value| unit["outcome"] == "refused";
    let refused = undone["units"].as_array().unwrap().iter().filter(refused).flat_map(|unit| unit["changes"].as_array().unwrap());
    let refused: BTreeSet<String> =
        refused.map(|change| format!("{} {}", change["table"].as_str().unwrap(), change["id"].as_str().unwrap())).collect();
    for (row, is) in cells(&database).iter().filter(|(row, _)| !refused.contains(*row)) {
        assert_eq!(Some(is), before.get(row), "{case}: {row}");
    }
    usize::try_from(kept["summary"]["applied"].as_u64().unwrap()).unwrap()
}

fn every_promise_is_kept(engine: Engine) {
    for seed in SEEDS {
        let columns = Columns::ALL[usize::try_from(seed).unwrap() % Columns::ALL.len()];
        let applied = keeps(engine, columns, seed, &[]) + keeps(engine, columns, seed, &EARNED);
        assert!(applied > 60, "{} seed {seed}: only {applied} units", engine.name());
    }
}

#[test]
fn planned_units_are_applied_and_undone_on_sqlite() {
    every_promise_is_kept(Engine::Sqlite);
}

#[test]
fn planned_units_are_applied_and_undone_on_mariadb() {
    every_promise_is_kept(Engine::Mariadb);
}

#[test]
fn planned_units_are_applied_and_undone_on_mysql() {
    if engines().contains(&Engine::Mysql) {
        every_promise_is_kept(Engine::Mysql);
    }
}

#[test]
fn planned_units_are_applied_and_undone_on_postgresql() {
    every_promise_is_kept(Engine::Postgresql);
}

/// A counter that is one too high is right after the first of two increments and too low after the second: the second unit then has
/// more changes than planned.
#[test]
fn a_dry_run_sees_the_changes_of_earlier_units() {
    for (recorded, expected) in [(0, ["planned", "planned"]), (1, ["planned", "changed"]), (2, ["planned", "planned"])] {
        let database = fresh(Engine::Sqlite, Columns::Full);
        let parent = database.backup(|row| row.num_dependent_backups(recorded));
        for _ in 0..2 {
            database.backup(|row| row.status("creating").host("gone").parent_id(&parent).age(7_200));
        }
        let program = Program::on(database.url());
        let code = if expected[1] == "changed" { 4 } else { 0 };
        let found = |last: &str| -> Vec<String> {
            let document = program.json(code, &["repair", "--to=available", "--allow-unverified", last]);
            document["units"].as_array().unwrap().iter().map(|unit| unit["outcome"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(found("--dry-run"), expected, "{recorded}");
        assert_eq!(found("--yes"), expected.map(|outcome| outcome.replace("planned", "applied")), "{recorded}");
    }
}
