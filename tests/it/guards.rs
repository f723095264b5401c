//! What protects a database from the program: guards against changed rows, accounts with the least privileges, refused plans.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cinder_backup_repair::db::Engine;

use crate::database::{Cells, Change, Database, RowKey, changes};
use crate::program::Program;
use crate::rows::ago;
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;
const OLD: &str = "--service-down-time=2s";

/// Cells that differ, except `updated_at`.
fn differences(before: &BTreeMap<RowKey, Cells>, database: &Database) -> Vec<Change> {
    changes(before, &database.rows_by_id()).into_iter().filter(|change| change.column != "updated_at").collect()
}

/// The statements of a grants file, for the account and database of one test.
pub fn grants(engine: Engine, file: &str) -> String {
    let folder = if engine == Engine::Postgresql { "postgres" } else { "mysql" };
    let path = format!("{}/sql/grants/{folder}/{file}.sql", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let statements: String = text.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
    // What some options need beside is granted to the account that repairs.
    let name = if matches!(file, "delete" | "quotas" | "rehost") { "repair" } else { file };
    let account = if engine == Engine::Postgresql { format!("cinder_{name}") } else { format!("'cinder_{name}'@'localhost'") };
    statements.replace(&account, "{user}").replace("`cinder`", "{database}")
}

fn stuck_pair(database: &Database) -> (String, String) {
    let volume = database.volume(|row| row.status("backing-up").previous_status("available"));
    let backup = database.backup(|row| row.status("creating").host("gone").volume_id(&volume).age(TWO_HOURS));
    (backup, volume)
}

#[test]
fn a_row_that_changed_since_the_plan_is_not_changed() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let program = Program::on(database.url());
        let other = crate::population::unused_id();
        let text = |column: &str| (column.to_owned(), format!("'{other}'"));
        let of_backups: Vec<(String, String)> =
            ["status", "host", "availability_zone", "service", "volume_id", "container", "service_metadata", "fail_reason", "parent_id"]
                .into_iter()
                .chain(["temp_volume_id", "temp_snapshot_id", "snapshot_id", "restore_volume_id"])
                .map(text)
                .chain(["size", "object_count", "num_dependent_backups"].map(|column| (column.to_owned(), "42".to_owned())))
                .chain([("updated_at".to_owned(), "'2026-01-02 03:04:05'".to_owned()), ("status".to_owned(), "NULL".to_owned())])
                .chain([("deleted".to_owned(), if engine == Engine::Postgresql { "TRUE" } else { "1" }.to_owned())])
                .collect();
        let of_volumes: Vec<(String, String)> = [text("status"), text("previous_status"), text("attach_status")]
            .into_iter()
            .chain([("updated_at".to_owned(), "'2026-01-02 03:04:05'".to_owned())])
            .chain([("deleted".to_owned(), if engine == Engine::Postgresql { "TRUE" } else { "1" }.to_owned())])
            .collect();
        let tables = of_backups.iter().map(|change| ("backups", change)).chain(of_volumes.iter().map(|change| ("volumes", change)));
        for (number, (table, (column, value))) in tables.enumerate() {
            let (backup, volume) = stuck_pair(&database);
            let (untouched, _) = stuck_pair(&database);
            let plan = format!("plan-{number}.json");
            program.expect(0, &["plan", "--out", &plan, OLD, &backup, &untouched]);
            let id = if table == "backups" { &backup } else { &volume };
            database.execute(&format!("UPDATE {table} SET {column} = {value} WHERE id = '{id}'"));
            let before = database.rows_by_id();
            let document = program.json(4, &["apply", &plan, "--yes"]);
            let outcome = |id: &str| {
                let units = document["units"].as_array().unwrap();
                units.iter().find(|unit| unit["id"] == id).map(|unit| unit["outcome"].as_str().unwrap().to_owned())
            };
            assert_eq!(outcome(&backup).as_deref(), Some("changed"), "{} {table}.{column}: {document:#}", engine.name());
            assert_eq!(outcome(&untouched).as_deref(), Some("applied"), "the other unit is applied");
            let moved = document["units"].to_string();
            let expected = if column == "deleted" { "\"column\":\"id\"".to_owned() } else { format!("\"column\":\"{column}\"") };
            assert!(moved.contains(&expected), "{} {table}.{column} is not named in {document:#}", engine.name());
            let touched: Vec<Change> = differences(&before, &database).into_iter().filter(|change| change.id == *id).collect();
            assert_eq!(touched, [], "{} {table}.{column}", engine.name());
            for id in [&backup, &volume] {
                database.execute(&format!("DELETE FROM {} WHERE id = '{id}'", if id == &backup { "backups" } else { "volumes" }));
            }
        }
    }
}

#[test]
fn apply_repeats_the_decision_with_the_current_rows() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let program = Program::on(database.url());
        // A server attaches the volume, so `in-use` is now the right status.
        let (attached, volume) = stuck_pair(&database);
        program.expect(0, &["plan", "--out", "attached.json", &attached]);
        database.attachment(&volume, |row| row);
        let document = program.json(4, &["apply", "attached.json", "--yes"]);
        assert_eq!(document["units"][0]["outcome"], "changed", "{document:#}");
        // The host's cinder-backup sends heartbeats again.
        let (alive, _) = stuck_pair(&database);
        program.expect(0, &["plan", "--out", "alive.json", &alive]);
        database.service("gone", |row| row.updated_at(ago(0)));
        let document = program.json(4, &["apply", "alive.json", "--yes"]);
        assert_eq!(document["units"][0]["outcome"], "refused", "{document:#}");
        assert!(document["units"][0]["reason"].as_str().unwrap().contains("has sent a heartbeat"), "{document:#}");
        for id in [&attached, &alive] {
            assert_eq!(database.cell("backups", id, "status").as_deref(), Some("creating"));
        }
    }
}

#[test]
fn a_plan_is_applied_once_unedited_and_to_its_own_database() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let (backup, _) = stuck_pair(&database);
        let copy = database.copy();
        let program = Program::on(database.url());
        program.expect(0, &["plan", "--out", "plan.json"]);
        // Edited.
        let text = fs::read_to_string(program.path("plan.json")).unwrap();
        fs::write(program.path("edited.json"), text.replace("\"to\": \"error\"", "\"to\": \"available\"")).unwrap();
        let answer = program.expect(5, &["apply", "edited.json", "--yes"]);
        assert!(answer.stderr.contains("edited after it was written"), "{}", answer.stderr);
        // Another database with the same rows.
        let elsewhere = Program::on(copy.url());
        fs::copy(program.path("plan.json"), elsewhere.path("plan.json")).unwrap();
        let answer = elsewhere.expect(5, &["apply", "plan.json", "--yes"]);
        assert!(answer.stderr.contains("the plan was made for"), "{}", answer.stderr);
        assert_eq!(copy.cell("backups", &backup, "status").as_deref(), Some("creating"));
        // Applied, then applied again with the same log and with an empty log.
        program.expect(0, &["apply", "plan.json", "--yes"]);
        let before = database.dump();
        let answer = program.expect(5, &["apply", "plan.json", "--yes"]);
        assert!(answer.stderr.contains("applied already"), "{}", answer.stderr);
        let empty_log = Program::on(database.url());
        fs::copy(program.path("plan.json"), empty_log.path("plan.json")).unwrap();
        empty_log.expect(4, &["apply", "plan.json", "--yes"]);
        assert_eq!(database.dump(), before, "applying twice writes nothing");
    }
}

#[test]
fn apply_and_undo_give_the_same_rows() {
    for engine in engines() {
        for columns in Columns::ALL {
            let database = fresh(engine, columns);
            let population = crate::population::generate(7, 60);
            database.insert(&population.rows);
            let before = database.rows_by_id();
            let program = Program::on(database.url());
            let answer = program.run(&["repair", "--yes", "--max-changes=1000", "--fix-counters", OLD, "--assume-dead=all"]);
            assert_eq!(answer.code, Some(0), "{}{}", answer.stdout, answer.stderr);
            assert!(differences(&before, &database).len() > 10, "{} {columns:?}: the population has something to repair", engine.name());
            program.expect(0, &["undo", &program.last_run(), "--yes"]);
            assert_eq!(differences(&before, &database), [], "{} {columns:?}", engine.name());
            program.expect(0, &["history", "verify"]);
            // An undo is a run and can be undone.
            program.expect(0, &["undo", &program.last_run(), "--yes"]);
            assert!(differences(&before, &database).len() > 10);
        }
    }
}

#[test]
fn undo_does_not_change_units_whose_rows_changed_since() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let (one, _) = stuck_pair(&database);
        let (two, volume) = stuck_pair(&database);
        let program = Program::on(database.url());
        program.expect(0, &["repair", "--yes"]);
        database.execute(&format!("UPDATE volumes SET status = 'in-use' WHERE id = '{volume}'"));
        let document = program.json(4, &["undo", &program.last_run(), "--yes"]);
        assert_eq!(document["summary"]["applied"], 1, "{document:#}");
        assert_eq!(document["summary"]["changed"], 1, "{document:#}");
        assert_eq!(database.cell("backups", &one, "status").as_deref(), Some("creating"));
        assert_eq!(database.cell("backups", &two, "status").as_deref(), Some("error"), "a unit is undone completely or not at all");
        assert_eq!(database.cell("volumes", &volume, "status").as_deref(), Some("in-use"));
    }
}

#[test]
fn reading_needs_only_select_and_writing_only_update_of_its_columns() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        let (backup, volume) = stuck_pair(&database);
        let source = database.volume(|row| row.status("in-use"));
        let snapshot = database.snapshot(&source, |row| row.status("backing-up"));
        database.attachment(&source, |row| row);
        let before = database.dump();
        let reader = Program::on(database.account(&grants(engine, "scan")));
        reader.expect(0, &["scan", OLD]);
        reader.expect(0, &["plan", "--out", "plan.json", OLD]);
        reader.expect(0, &["apply", "plan.json", "--dry-run"]);
        reader.expect(0, &["repair", "--dry-run", OLD]);
        let answer = reader.expect(12, &["apply", "plan.json", "--yes"]);
        assert!(answer.stderr.contains("sql/grants"), "{}", answer.stderr);
        assert_eq!(database.dump(), before);
        // The same plan under the account that may write.
        let repairer = reader.with_url(database.account(&grants(engine, "repair")));
        repairer.expect(0, &["apply", "plan.json", "--yes"]);
        assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("error"));
        assert_eq!(database.cell("volumes", &volume, "status").as_deref(), Some("available"));
        assert_eq!(database.cell("snapshots", &snapshot, "status").as_deref(), Some("available"));
        repairer.expect(0, &["history", "reconcile"]);
        repairer.expect(0, &["undo", &repairer.last_run(), "--yes"]);
    }
}

#[test]
fn the_privileges_of_delete_sql_suffice_to_finish_a_delete_and_to_undo_it() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        database.quota_usage("backups", 5, |row| row);
        let backup = database.backup(|row| row.status("deleting").host("gone").age(TWO_HOURS));
        let args = ["repair", "--yes", "--to", "deleted", "--allow-unverified", "--assume-dead", "all"];
        let before = database.dump();
        let repairer = Program::on(database.account(&grants(engine, "repair")));
        let answer = repairer.run(&args);
        // MySQL and MariaDB do not show a table that the account may not read.
        let (code, says) = if engine == Engine::Postgresql { (12, "permission denied") } else { (14, "sql/grants/ has the statements") };
        assert!(answer.code == Some(code) && answer.stderr.contains(says), "{} {:?} {}", engine.name(), answer.code, answer.stderr);
        assert_eq!(database.dump(), before);
        let deleter = Program::on(database.account(&(grants(engine, "repair") + &grants(engine, "delete"))));
        deleter.expect(0, &args);
        assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("deleted"));
        assert_eq!(deleter.json(0, &["history", "reconcile"])["units"][0]["state"], "kept");
        deleter.expect(0, &["undo", &deleter.last_run(), "--yes"]);
        assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("deleting"));
    }
}

/// The operator learns this before waiting for heartbeats or reading a list of changes.
#[test]
fn missing_grants_are_reported_before_the_run_begins() {
    const WHOLE: &str = "status, size, object_count, service_metadata, fail_reason, num_dependent_backups, updated_at";
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        database.service("gone", |row| row.updated_at(ago(TWO_HOURS)));
        let (backup, _) = stuck_pair(&database);
        let table = |name: &str| if engine == Engine::Postgresql { name.to_owned() } else { format!("`{{database}}`.`{name}`") };
        let grant = |columns: &str, name: &str, to: &str| format!("GRANT UPDATE ({columns}) ON {} TO {to};\n", table(name));
        let role = format!("r_{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let by_role = [
            format!("CREATE ROLE {role};\n"),
            grant(WHOLE, "backups", &role),
            grant("status, updated_at", "volumes", &role),
            format!("GRANT {role} TO {{user}};\n"),
            match engine {
                Engine::Mariadb => format!("SET DEFAULT ROLE {role} FOR {{user}};\n"),
                Engine::Mysql => format!("SET DEFAULT ROLE {role} TO {{user}};\n"),
                _ => String::new(),
            },
        ]
        .concat();
        // What the account has besides SELECT, and the tables and columns that it lacks.
        let cases = [
            (String::new(), vec![("backups", WHOLE), ("snapshots", "status, updated_at"), ("volumes", "status, updated_at")]),
            (
                grant("status, size, updated_at", "backups", "{user}") + &grant("status", "volumes", "{user}"),
                vec![
                    ("backups", "object_count, service_metadata, fail_reason, num_dependent_backups"),
                    ("snapshots", "status, updated_at"),
                    ("volumes", "updated_at"),
                ],
            ),
            (by_role, vec![("snapshots", "status, updated_at")]),
        ];
        for (more, lacks) in cases {
            let before = database.dump();
            let program = Program::on(database.account(&(grants(engine, "scan") + &more)));
            let refused = program.expect(12, &["repair", "--yes", OLD]);
            assert!(!refused.stderr.contains("heartbeat"), "{}", refused.stderr);
            assert_eq!(database.dump(), before);
            assert!(!program.log().exists(), "{}: nothing was begun", engine.name());
            program.expect(12, &["repair", "--yes", "--check", "quick", OLD]);
            // A dry run works and reports the missing grants.
            let dry = program.expect(0, &["repair", "--dry-run", OLD, "-f", "json"]);
            let document = dry.json();
            assert_eq!(document["summary"]["planned"], 1, "{document:#}");
            let missing: Vec<&str> = document["missing_grants"].as_array().unwrap().iter().map(|grant| grant.as_str().unwrap()).collect();
            assert_eq!(missing.len(), lacks.len(), "{} {missing:?}", engine.name());
            for (grant, (name, columns)) in missing.iter().zip(&lacks) {
                let columns: BTreeSet<&str> = columns.split(", ").collect();
                let named = grant.split(['(', ')']).nth(1).unwrap();
                assert_eq!(named.split(", ").collect::<BTreeSet<_>>(), columns, "{} {grant}", engine.name());
                assert!(grant.contains(name) && dry.stderr.contains(grant) && refused.stderr.contains(grant), "{grant}: {}", dry.stderr);
            }
            program.expect(3, &["repair", "--dry-run", "--detailed-exitcode", OLD]);
            // The printed statements grant what is missing.
            missing.iter().for_each(|grant| database.execute(grant));
            let dry = program.expect(0, &["repair", "--dry-run", OLD, "-f", "json"]);
            assert_eq!(dry.json()["missing_grants"], serde_json::json!([]), "{}", dry.stderr);
            assert!(!dry.stderr.contains("GRANT"), "{}", dry.stderr);
            program.expect(0, &["repair", "--yes", OLD]);
            assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("error"), "{}", engine.name());
            program.expect(0, &["undo", &program.last_run(), "--yes"]);
            let time = if engine == Engine::Postgresql { "timezone('UTC', now())" } else { "UTC_TIMESTAMP()" };
            database.execute(&format!("UPDATE backups SET updated_at = {time} - INTERVAL '7200' SECOND"));
            database.execute(&format!("UPDATE volumes SET updated_at = {time} - INTERVAL '7200' SECOND"));
        }
    }
}

#[test]
fn a_dry_run_writes_nothing_anywhere() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&crate::population::generate(3, 40).rows);
        let program = Program::on(database.url());
        let before = database.dump();
        let document = program.json(0, &["repair", "--dry-run", OLD, "--assume-dead=all"]);
        assert!(document["summary"]["planned"].as_u64().unwrap() > 0, "{document:#}");
        assert_eq!(document["run"], serde_json::Value::Null);
        program.expect(3, &["repair", "--dry-run", OLD, "--assume-dead=all", "--detailed-exitcode"]);
        assert_eq!(database.dump(), before);
        assert!(!program.log().exists(), "a dry run leaves no record");
    }
}

/// The rows are read again after the last UPDATE, because a trigger on one table may change a row of another.
#[test]
fn a_unit_that_a_trigger_partly_reverts_fails() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (backup, volume) = stuck_pair(&database);
    let write = format!("UPDATE backups SET status = 'creating' WHERE id = '{backup}'");
    database.execute(&format!("CREATE TRIGGER back AFTER UPDATE ON volumes BEGIN {write}; END"));
    let before = database.dump();
    let program = Program::on(database.url());
    let document = program.json(4, &["repair", "--yes"]);
    assert_eq!(document["units"][0]["outcome"], "failed", "{document:#}");
    assert!(
        document["units"][0]["reason"].as_str().unwrap().contains(&format!("did not store the new values of backups {backup}")),
        "{document:#}"
    );
    assert_eq!(database.dump(), before);
    database.execute("DROP TRIGGER back");
    program.expect(0, &["repair", "--yes"]);
    assert_eq!(database.cell("volumes", &volume, "status").as_deref(), Some("available"));
}

/// A change in a table without transactions could not be rolled back if the next row of the unit has changed.
#[test]
fn nothing_is_written_to_tables_without_transactions() {
    for engine in engines().into_iter().filter(|engine| matches!(engine, Engine::Mariadb | Engine::Mysql)) {
        let mut database = fresh(engine, Columns::Full);
        let (backup, _) = stuck_pair(&database);
        database.execute("DROP TABLE backup_metadata");
        database.forget_columns();
        database.execute("ALTER TABLE backups ENGINE=MyISAM");
        let before = database.dump();
        let program = Program::on(database.url());
        program.expect(0, &["scan", OLD]);
        let answer = program.expect(14, &["repair", "--yes", OLD]);
        assert!(answer.stderr.contains("the engine of table backups is MyISAM"), "{}", answer.stderr);
        assert_eq!(database.dump(), before);
        database.execute("ALTER TABLE backups ENGINE=InnoDB");
        program.expect(0, &["repair", "--yes", OLD]);
        assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("error"));
    }
}

/// An invalid time is compared as the text that was read.
#[test]
fn a_row_with_invalid_times_is_guarded_and_repaired() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let times: &[&str] = match engine {
            Engine::Sqlite => &["'yesterday'", "''", "NULL"],
            Engine::Mysql | Engine::Mariadb => &["'0000-00-00 00:00:00'", "'2026-00-00 00:00:00'", "'2026-11-00 10:00:00'", "NULL"],
            Engine::Postgresql => &["'infinity'", "'-infinity'", "'0044-03-15 01:02:03 BC'", "'20000-01-01'", "NULL"],
        };
        if matches!(engine, Engine::Mysql | Engine::Mariadb) {
            database.execute("SET SESSION sql_mode = ''");
        }
        let program = Program::on(database.url());
        let set =
            |table: &str, id: &str, time: &str| database.execute(&format!("UPDATE {table} SET updated_at = {time} WHERE id = '{id}'"));
        for (number, time) in times.iter().enumerate() {
            for table in ["backups", "volumes"] {
                let (backup, volume) = stuck_pair(&database);
                let id = if table == "backups" { &backup } else { &volume };
                set(table, id, time);
                let case = format!("{} {table} {time}", engine.name());
                let plan = format!("{table}-{number}.json");
                program.expect(0, &["plan", "--out", &plan, "--assume-dead=all", "--older-than=0s", &backup]);
                let dry = program.json(0, &["apply", &plan, "--dry-run"]);
                assert_eq!(dry["summary"]["planned"], 1, "{case}: {dry:#}");
                // Another writer sets another invalid time meanwhile.
                set(table, id, times[(number + 1) % times.len()]);
                let document = program.json(4, &["apply", &plan, "--yes"]);
                assert_eq!(document["units"][0]["outcome"], "changed", "{case}: {document:#}");
                set(table, id, time);
                let again = format!("{table}-{number}-again.json");
                program.expect(0, &["plan", "--out", &again, "--assume-dead=all", "--older-than=0s", &backup]);
                let document = program.json(0, &["apply", &again, "--yes"]);
                assert_eq!(document["units"][0]["outcome"], "applied", "{case}: {document:#}");
                assert_eq!(database.cell("volumes", &volume, "status").as_deref(), Some("available"), "{case}");
            }
        }
    }
}

/// SQLite stores values of any type in any column. A guard could not compare them, and an undo could not restore them.
#[test]
fn a_row_with_a_value_of_the_wrong_type_is_not_changed() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let program = Program::on(database.url());
    for (table, column, value) in [
        ("backups", "size", "'abc'"),
        ("backups", "size", "1.5"),
        ("backups", "object_count", "x'00'"),
        ("backups", "num_dependent_backups", "9e999"),
        ("backups", "status", "CAST('creating' AS BLOB)"),
        ("backups", "host", "CAST(x'676fff' AS TEXT)"),
        ("backups", "fail_reason", "x'ff'"),
        ("backups", "updated_at", "1790000000"),
        ("volumes", "status", "CAST('backing-up' AS BLOB)"),
        ("volumes", "attach_status", "x''"),
    ] {
        let (backup, volume) = stuck_pair(&database);
        let id = if table == "backups" { &backup } else { &volume };
        database.execute(&format!("UPDATE {table} SET {column} = {value} WHERE id = '{id}'"));
        let before = database.dump();
        let mut sentences = BTreeSet::new();
        for (code, command) in [(6, "repair"), (6, "dry"), (4, "plan")] {
            let mut args =
                if command == "plan" { vec!["plan"] } else { vec!["repair", if command == "dry" { "--dry-run" } else { "--yes" }] };
            args.extend(["--assume-dead=all", &backup]);
            let answer = program.expect(code, &args);
            let said = answer.stderr.lines().collect::<Vec<_>>().join(" ");
            assert!(said.contains(&format!("{table}.{column} of {id} holds")), "{table}.{column} = {value}: {said}");
            sentences.insert(said.contains("correct that value by hand first"));
        }
        assert_eq!(sentences, BTreeSet::from([true]));
        assert_eq!(database.dump(), before);
        database.execute(&format!("DELETE FROM backups WHERE id = '{backup}'; DELETE FROM volumes WHERE id = '{volume}'"));
    }
}

/// A counter of 2^53 + 1 and a text with a NUL are restored exactly. A value that was written later is not overwritten.
#[test]
fn an_undo_restores_the_exact_values_or_nothing() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let program = Program::on(database.url());
    let parent = database.backup(|row| row.num_dependent_backups(0));
    let spelt = |id: &str| {
        let columns = ["status", "size", "object_count", "service_metadata", "fail_reason", "num_dependent_backups"];
        let quoted: Vec<String> = columns.iter().map(|column| format!("typeof({column}), quote({column})")).collect();
        database.query(&format!("SELECT {} FROM backups WHERE id = '{id}'", quoted.join(", ")))
    };
    for (column, value) in [
        ("object_count", "9007199254740993"),
        ("size", "-9223372036854775807"),
        ("service_metadata", "'1e3'"),
        ("fail_reason", "'a' || char(0) || '\u{1f642}\u{202e}'"),
        ("fail_reason", "'0012'"),
    ] {
        let backup = database.backup(|row| row.status("creating").host("gone").parent_id(&parent).age(TWO_HOURS));
        database.execute(&format!("UPDATE backups SET {column} = {value} WHERE id = '{backup}'"));
        let before = spelt(&backup);
        program.expect(0, &["repair", "--yes", &backup]);
        assert_ne!(spelt(&backup), before, "{column} = {value}");
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        assert_eq!(spelt(&backup), before, "{column} = {value}");
        database.execute(&format!("DELETE FROM backups WHERE id = '{backup}'"));
    }
    let backup = database.backup(|row| row.status("creating").host("gone").size(None::<i64>).age(TWO_HOURS));
    program.expect(0, &["repair", "--yes", &backup]);
    database.execute(&format!("UPDATE backups SET size = 'abc' WHERE id = '{backup}'"));
    let before = database.dump();
    for (last, reason) in [("--dry-run", "holds"), ("--yes", "holds")] {
        let document = program.json(4, &["undo", &program.last_run(), last]);
        assert_eq!(document["units"][0]["outcome"], "refused", "{document:#}");
        assert!(document["units"][0]["reason"].as_str().unwrap().contains(reason), "{document:#}");
        assert_eq!(database.dump(), before);
    }
}
