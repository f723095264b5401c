//! A run on several connections gives the same rows as on one, and a correct result when something fails.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use rustix::process::{Pid, Signal, kill_process};

use crate::database::Database;
use crate::program::Program;
use crate::rows;
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;
/// The number of families of backups that must be repaired one after the other.
const FAMILIES: usize = 40;

/// Engines that allow more than one writer.
fn servers() -> impl Iterator<Item = Engine> {
    engines().into_iter().filter(|engine| *engine != Engine::Sqlite)
}

/// Families of a full backup and three stuck increments, all of one volume, and as many stuck backups that share no row.
fn families(database: &Database) {
    let mut all = Vec::new();
    for family in 0..FAMILIES {
        let volume = rows::volume().status("backing-up").previous_status("in-use").set("display_name", format!("family-{family}"));
        let parent = rows::backup().status("available").host("gone").volume_id(volume.get_id()).set("num_dependent_backups", 0_i64);
        all.push(volume.clone());
        all.push(parent.clone());
        for child in 0..3 {
            let child = rows::backup()
                .status("creating")
                .host("gone")
                .volume_id(volume.get_id())
                .parent_id(parent.get_id())
                .set("display_name", format!("{family}-{child}"))
                .age(TWO_HOURS + child * 60);
            all.push(child);
        }
        let alone = rows::volume().status("backing-up").previous_status("available").set("display_name", format!("alone-{family}"));
        all.push(
            rows::backup()
                .status("creating")
                .host("gone")
                .volume_id(alone.get_id())
                .set("display_name", format!("alone-{family}"))
                .age(TWO_HOURS),
        );
        all.push(alone);
    }
    database.insert(&all);
}

/// The rows without `updated_at`.
fn state(database: &Database) -> BTreeMap<String, Vec<Option<String>>> {
    let backups = database.query("SELECT id, status, num_dependent_backups, fail_reason, volume_id, parent_id FROM backups");
    let volumes = database.query("SELECT id, status, previous_status, display_name FROM volumes");
    backups.into_iter().chain(volumes).map(|row| (row[0].clone().unwrap(), row)).collect()
}

#[test]
fn several_connections_give_the_same_rows_as_one() {
    for engine in servers() {
        let database = fresh(engine, Columns::Full);
        families(&database);
        let copy = database.copy();
        let before = state(&database);
        let all = ["repair", "--yes", "--to", "available", "--allow-unverified", "--max-changes", "1000", "--batch-size", "60"];
        let run = |database: &Database, sessions: &str| {
            let program = Program::on(database.url());
            let document = program.json(0, &[&all[..], &["--sessions", sessions]].concat());
            assert_eq!(document["summary"]["applied"], FAMILIES * 4, "{}", engine.name());
            let numbers: Vec<u64> = document["units"].as_array().unwrap().iter().map(|unit| unit["unit"].as_u64().unwrap()).collect();
            assert!(numbers.is_sorted(), "the results are in the plan's order");
            program.expect(0, &["history", "verify"]);
            program
        };
        run(&copy, "1");
        let program = run(&database, "4");
        assert_eq!(state(&database), state(&copy), "{}", engine.name());
        let counted = database.value("SELECT COUNT(*) FROM backups WHERE num_dependent_backups = 3");
        assert_eq!(counted, Some(FAMILIES.to_string()), "each of the three children is counted once");
        let held = database.value("SELECT COUNT(*) FROM volumes WHERE status = 'backing-up'");
        assert_eq!(held.as_deref(), Some("0"), "the last backup of each volume freed it");

        // The undo uses several connections, too.
        let repaired = program.last_run();
        program.expect(0, &["undo", &repaired, "--yes", "--max-changes", "1000", "--sessions", "4"]);
        assert_eq!(state(&database), before, "{}", engine.name());
        program.expect(0, &["history", "verify"]);
    }
}

#[test]
fn a_locked_row_fails_only_its_own_unit() {
    for engine in servers() {
        let database = fresh(engine, Columns::Full);
        families(&database);
        let held = database.value("SELECT id FROM volumes WHERE display_name = 'alone-7'").unwrap();
        let other = &database;
        other.execute("BEGIN");
        other.execute(&format!("UPDATE volumes SET display_name = 'held' WHERE id = '{held}'"));
        let program = Program::on(database.url());
        let document = program
            .json(11, &["repair", "--yes", "--max-changes", "1000", "--sessions", "4", "--batch-size", "60", "--lock-timeout", "1s"]);
        other.execute("ROLLBACK");
        assert_eq!(document["summary"]["applied"], FAMILIES * 4 - 1, "{}: {}", engine.name(), document["summary"]);
        assert_eq!(document["summary"]["failed"], 1);
        assert_eq!(database.cell("volumes", &held, "status").as_deref(), Some("backing-up"));
        program.expect(0, &["history", "verify"]);
        let list = program.json(0, &["history", "list"]);
        assert_eq!(list["runs"][0]["open"], serde_json::json!([]), "nothing is left open");
    }
}

#[test]
fn a_signal_stops_every_connection_between_two_units() {
    for engine in servers() {
        let database = fresh(engine, Columns::Full);
        let mut all = Vec::new();
        for _ in 0..2_000 {
            let volume = rows::volume().status("backing-up").previous_status("available");
            all.push(rows::backup().status("creating").host("gone").volume_id(volume.get_id()).age(TWO_HOURS));
            all.push(volume);
        }
        database.insert(&all);
        let program = Program::on(database.url());
        let child = program.start(&["repair", "--yes", "--max-changes", "5000", "--sessions", "4", "--batch-size", "100", "-f", "json"]);
        let begun = Instant::now();
        while std::fs::read_to_string(program.log()).map_or(0, |text| text.lines().count()) < 300 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the run makes no progress");
            thread::sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let errors = database.value("SELECT COUNT(*) FROM backups WHERE status = 'error'").unwrap();
        let freed = database.value("SELECT COUNT(*) FROM volumes WHERE status = 'available'").unwrap();
        assert_eq!(document["summary"]["applied"].to_string(), errors, "the result agrees with the rows");
        assert_eq!(errors, freed, "no half unit");
        assert_eq!(document["units"].as_array().unwrap().len(), 2_000);
        let list = program.json(0, &["history", "list"]);
        assert_eq!(list["runs"][0]["open"], serde_json::json!([]), "nothing is left open");
        program.expect(0, &["history", "reconcile"]);
    }
}

#[test]
fn a_run_continues_with_fewer_connections_if_the_server_limits_them() {
    let database = fresh(Engine::Mariadb, Columns::Full);
    families(&database);
    let limit = "GRANT ALL ON {database}.* TO {user}; GRANT USAGE ON *.* TO {user} WITH MAX_USER_CONNECTIONS 2";
    let program = Program::on(database.account(limit));
    let answer = program.expect(0, &["-v", "repair", "--yes", "--max-changes", "1000", "--sessions", "8"]);
    assert!(answer.stderr.contains("continuing with fewer connections"), "{}", answer.stderr);
    let left = database.value("SELECT COUNT(*) FROM backups WHERE status = 'creating'");
    assert_eq!(left.as_deref(), Some("0"));
}

#[test]
fn connections_that_the_server_cuts_are_replaced() {
    let database = fresh(Engine::Mariadb, Columns::Full);
    families(&database);
    let program = Program::on(database.account("GRANT ALL ON {database}.* TO {user}"));
    let child = program.start(&["repair", "--yes", "--max-changes", "1000", "--sessions", "4", "--batch-size", "60", "-f", "json"]);
    crate::faults::wait_for_lines(&program, 60);
    let mut cut = 0;
    let begun = Instant::now();
    while cut < 3 && begun.elapsed() < Duration::from_secs(30) {
        let of = format!("SELECT id FROM information_schema.processlist WHERE db = '{}' AND user LIKE 'u\\_%'", database.name());
        for row in database.query(&of) {
            if database.try_execute(&format!("KILL {}", row[0].clone().unwrap())).is_ok() {
                cut += 1;
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(cut >= 1, "{said}");
    // If the connections are cut before the first batch, the run may end at once. Its result agrees with the rows in any case.
    let errors = database.value("SELECT COUNT(*) FROM backups WHERE status = 'error'").unwrap();
    if let Ok(document) = serde_json::from_slice::<serde_json::Value>(&output.stdout) {
        assert_eq!(document["summary"]["applied"].to_string(), errors, "{said}");
        assert_eq!(document["summary"]["unknown"], 0, "{said}");
    }
    program.expect(0, &["history", "verify"]);
    program.expect(0, &["repair", "--yes", "--max-changes", "1000"]);
    let left = database.value("SELECT COUNT(*) FROM backups WHERE status = 'creating'");
    assert_eq!(left.as_deref(), Some("0"));
}
