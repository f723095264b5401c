//! Killed runs: which outcomes `history reconcile` settles, which stay unknown, and what can be undone then.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use cinder_backup_repair::audit::Event;
use cinder_backup_repair::db::Engine;
use serde_json::Value;

use crate::database::{Cells, Change, Database, RowKey, changes};
use crate::failover::{long_ago, rewrite};
use crate::guards::grants;
use crate::program::{Program, answer, bare};
use crate::rows::{self, ago};
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;
const UNVERIFIED: &[&str] = &["repair", "--yes", "--to", "available", "--allow-unverified"];

/// Removes the outcomes from the log, as if the run had been killed after it wrote the rows.
pub fn forget_outcomes(program: &Program) {
    let text = fs::read_to_string(program.log()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let kept = lines.iter().rposition(|line| line.contains("\"event\":\"intent\"")).unwrap() + 1;
    fs::write(program.log(), lines[..kept].iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// Cells that differ, except `updated_at`.
fn differences(before: &BTreeMap<RowKey, Cells>, database: &Database) -> Vec<Change> {
    changes(before, &database.rows_by_id()).into_iter().filter(|change| change.column != "updated_at").collect()
}

/// The outcomes of the units, by id.
fn found(document: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    document["units"].as_array().unwrap().iter().map(|unit| (text(&unit["id"]), text(&unit["outcome"]))).collect()
}

fn id(number: u8) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

fn stuck_pair(database: &Database) -> (String, String) {
    let volume = database.volume(|row| row.status("backing-up").previous_status("available"));
    let backup = database.backup(|row| row.status("creating").host("gone").volume_id(&volume).age(TWO_HOURS));
    (backup, volume)
}

/// A start of cinder-backup leaves the rows of a restore as a repair does, and a manual reset leaves a volume so. The run may have
/// been killed before it wrote anything.
#[test]
fn rows_that_another_writer_may_have_changed_are_not_reported_as_applied() {
    for engine in engines() {
        for logged in [false, true] {
            let database = fresh(engine, Columns::Full);
            let volume = database.volume(|row| row.status("restoring-backup"));
            let backup = database.backup(|row| row.status("restoring").host("ctl1").restore_volume_id(&volume).age(TWO_HOURS));
            let left_over = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
            database.service("ctl1", |row| row.updated_at(ago(TWO_HOURS)));
            let before = database.rows_by_id();
            let program = Program::on(database.url());
            // Otherwise a silent host proves nothing, because the test's server has just started.
            program.expect(0, &["repair", "--yes", "--service-down-time=2s"]);
            if !logged {
                forget_outcomes(&program);
            }
            let run = program.last_run();
            let document = program.json(if logged { 0 } else { 7 }, &["history", "reconcile"]);
            for id in [&backup, &left_over] {
                assert_eq!(found(&document)[id], if logged { "applied" } else { "unknown" }, "{} {document:#}", engine.name());
            }
            let said = program.expect(if logged { 0 } else { 7 }, &["undo", &run, "--yes"]);
            if logged {
                assert_eq!(differences(&before, &database), [], "{}", engine.name());
                continue;
            }
            assert!(said.stderr.contains("stays unknown"), "{}", said.stderr);
            assert!(document.to_string().contains("shows that this program wrote them"), "{document:#}");
            let status = |table: &str, id: &str| database.cell(table, id, "status").unwrap();
            assert_eq!((status("backups", &backup).as_str(), status("volumes", &volume).as_str()), ("available", "error_restoring"));
            assert_eq!(status("volumes", &left_over), "available");
        }
    }
}

/// Cinder's own delete leaves the same rows, but for the time: the run wrote the one that its log has.
#[test]
fn a_killed_run_is_known_by_the_time_of_its_deletions() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let backup = database.backup(|row| row.status("deleting").host("gone").age(TWO_HOURS));
        database.quota_usage("backups", 3, |row| row);
        let before = database.rows_by_id();
        let program = Program::on(database.url());
        program.expect(0, &["repair", "--yes", "--to", "deleted", "--allow-unverified", "--assume-dead", "all"]);
        let written = database.cell("backups", &backup, "deleted_at").unwrap();
        forget_outcomes(&program);
        let log = fs::read(program.log()).unwrap();
        database.execute(&format!("UPDATE backups SET deleted_at = {} WHERE id = '{backup}'", ago(-3).sql(engine)));
        let document = program.json(7, &["history", "reconcile"]);
        assert_eq!(found(&document)[&backup], "unknown", "{} {document:#}", engine.name());
        fs::write(program.log(), log).unwrap();
        database.execute(&format!("UPDATE backups SET deleted_at = '{written}' WHERE id = '{backup}'"));
        let document = program.json(0, &["history", "reconcile"]);
        assert_eq!(found(&document)[&backup], "applied", "{} {document:#}", engine.name());
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        let differences = differences(&before, &database);
        assert_eq!(differences.iter().filter(|change| change.column != "deleted_at").collect::<Vec<_>>(), [] as [&Change; 0]);
        assert_eq!(database.cell("backups", &backup, "deleted_at"), None, "{}", engine.name());
    }
}

/// Only the outcome of the unit that was being written may be missing.
#[test]
fn a_killed_run_leaves_the_outcomes_of_all_finished_units_in_the_log() {
    const UNITS: usize = 2_000;
    let database = fresh(Engine::Sqlite, Columns::Full);
    let restoring = (0..UNITS).map(|_| rows::backup().status("restoring").host("gone").age(TWO_HOURS));
    database.insert(&restoring.collect::<Vec<_>>());
    let program = Program::on(database.url());
    let mut run = program.start(&["repair", "--yes", "--max-changes", "5000", "--batch-size", "5000"]);
    // The run's begin, all intents, and some outcomes.
    crate::faults::wait_for_lines(&program, 1 + UNITS + 20);
    run.kill().unwrap();
    run.wait().unwrap();
    let count = |status: &str| database.query(&format!("SELECT id FROM backups WHERE status = '{status}'")).len();
    let written = count("available");
    assert!((20..UNITS).contains(&written), "{written}");
    let text = fs::read_to_string(program.log()).unwrap();
    let on_record = text.lines().filter(|line| line.contains("\"event\":\"outcome\"") && line.ends_with('}')).count();
    assert!(written - on_record <= 1, "{written} written, {on_record} on record");
    // Another writer may have changed that one.
    program.expect(if written == on_record { 0 } else { 7 }, &["history", "reconcile"]);
    program.expect(if written == on_record { 0 } else { 4 }, &["undo", &program.last_run(), "--yes", "--max-changes", "5000"]);
    assert_eq!(count("available"), written - on_record);
}

/// Both runs changed the same backup and were killed, the first one before it wrote.
#[test]
fn of_two_killed_runs_only_the_one_that_wrote_is_settled_as_applied() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck_pair(&database);
    let program = Program::on(database.url());
    let untouched = fs::read(database.path()).unwrap();
    program.expect(0, &["repair", "--yes"]);
    forget_outcomes(&program);
    fs::write(database.path(), &untouched).unwrap();
    let first = program.last_run();
    program.expect(0, &["repair", "--yes"]);
    forget_outcomes(&program);
    let second = program.last_run();
    // Reconciling only the first run must not claim a change that the second may have made.
    let alone = program.json(7, &["history", "reconcile", &first]);
    assert_eq!(alone["units"][0]["outcome"], "unknown", "{alone:#}");
    let document = program.json(0, &["history", "reconcile"]);
    let outcomes: Vec<(&str, &str)> = document["units"]
        .as_array()
        .unwrap()
        .iter()
        .map(|unit| (unit["run"].as_str().unwrap(), unit["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(outcomes, [(first.as_str(), "failed"), (second.as_str(), "applied")]);
    program.expect(5, &["undo", &first, "--yes"]);
    program.expect(0, &["undo", &second, "--yes"]);
}

/// Earlier versions trusted PostgreSQL's status of a transaction id, which may belong to another transaction after a fail-over.
#[test]
fn an_applied_outcome_of_an_older_version_is_compared_with_the_rows() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck_pair(&database);
    let program = Program::on(database.url());
    let untouched = fs::read(database.path()).unwrap();
    program.expect(0, &["repair", "--yes"]);
    fs::write(database.path(), &untouched).unwrap();
    rewrite(&program.log(), |event| match event {
        Event::Outcome(mut outcome) => {
            outcome.reason = Some("cannot commit: it broke; the server says that the transaction was committed".to_owned());
            Some(Event::Outcome(outcome))
        }
        other => Some(other),
    });
    assert_eq!(program.json(0, &["history", "list"])["runs"][0]["summary"]["applied"], 1);
    let document = program.json(0, &["history", "reconcile"]);
    assert_eq!((&document["units"][0]["state"], &document["units"][0]["outcome"]), (&"settled".into(), &"failed".into()), "{document:#}");
    let summary = &program.json(0, &["history", "list"])["runs"][0]["summary"];
    assert_eq!((&summary["applied"], &summary["failed"]), (&0.into(), &1.into()));
    program.expect(5, &["undo", &program.last_run(), "--yes"]);
}

/// An undo must not overwrite them either.
#[test]
fn rows_changed_by_another_writer_do_not_revise_a_settled_outcome() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (backup, _) = stuck_pair(&database);
    let program = Program::on(database.url());
    program.expect(0, &["repair", "--yes"]);
    forget_outcomes(&program);
    let run = program.last_run();
    let reconcile = || {
        let document = program.json(0, &["history", "reconcile"]);
        (document["units"][0]["state"].as_str().unwrap().to_owned(), document["units"][0]["outcome"].as_str().unwrap().to_owned())
    };
    assert_eq!(reconcile(), ("settled".to_owned(), "applied".to_owned()));
    let lines = || fs::read_to_string(program.log()).unwrap().lines().count();
    let before = lines();
    assert_eq!(reconcile(), ("kept".to_owned(), "applied".to_owned()));
    assert_eq!(lines(), before, "an outcome that is not final yet is not recorded twice");
    database.execute(&format!("UPDATE backups SET status = 'available', fail_reason = NULL WHERE id = '{backup}'"));
    rewrite(&program.log(), long_ago);
    for records in [1, 0] {
        let before = lines();
        assert_eq!(reconcile(), ("changed".to_owned(), "applied".to_owned()));
        assert_eq!(lines(), before + records, "an outcome is recorded as final once the unit's window is over");
    }
    let document = program.json(4, &["undo", &run, "--yes"]);
    assert_eq!(document["units"][0]["outcome"], "changed", "{document:#}");
    assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("available"));
}

/// An undo then begins with the increment, whose unit changes the counter in the parent's row before the parent's own unit. The outcome
/// of the parent's unit can be settled whether or not the run reached it.
#[test]
fn a_killed_undo_of_a_chain_whose_parent_was_repaired_first_is_settled_and_undone() {
    for reached in [1, 2] {
        let database = fresh(Engine::Sqlite, Columns::Full);
        let (parent, child) = (id(1), id(2));
        database.insert(&[
            rows::backup().id(&parent).status("creating").host("gone").age(TWO_HOURS),
            rows::backup().id(&child).parent_id(&parent).status("creating").host("gone").age(TWO_HOURS),
        ]);
        let program = Program::on(database.url());
        program.expect(0, UNVERIFIED);
        let before = database.rows_by_id();
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        forget_outcomes(&program);
        if reached == 1 {
            database.execute(&format!("UPDATE backups SET status = 'available' WHERE id = '{parent}'"));
        }
        let run = program.last_run();
        let document = program.json(0, &["history", "reconcile", &run]);
        let outcomes = found(&document);
        assert_eq!(outcomes[&child], "applied", "{document:#}");
        assert_eq!(outcomes[&parent], if reached == 1 { "failed" } else { "applied" }, "{document:#}");
        let document = program.json(0, &["undo", &run, "--yes"]);
        assert_eq!(document["summary"]["applied"], reached, "{document:#}");
        assert_eq!(differences(&before, &database), []);
    }
}

/// One parent has a unit of its own, and its child's unit changes its counter. Another parent has two children. A backup that is
/// `creating` again shows that the undo wrote it.
#[test]
fn a_killed_undo_of_several_chains_is_settled_and_undone() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let creating =
            |number: u8, parent: u8| rows::backup().id(id(number)).parent_id(id(parent)).status("creating").host("gone").age(TWO_HOURS);
        database.insert(&[
            rows::backup().id(id(1)).status("creating").host("gone").age(TWO_HOURS),
            creating(2, 1),
            rows::backup().id(id(3)).host("gone").num_dependent_backups(0),
            creating(4, 3),
            creating(5, 3),
        ]);
        let before = database.rows_by_id();
        let program = Program::on(database.url());
        program.expect(0, UNVERIFIED);
        let repaired = database.rows_by_id();
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        forget_outcomes(&program);
        assert_eq!(differences(&before, &database), [], "{}", engine.name());
        let run = program.last_run();
        let document = program.json(0, &["history", "reconcile", &run]);
        assert!(found(&document).values().all(|outcome| outcome == "applied"), "{} {document:#}", engine.name());
        assert_eq!(found(&document).len(), 4);
        let document = program.json(0, &["undo", &run, "--yes"]);
        assert_eq!(document["summary"]["applied"], 4, "{} {document:#}", engine.name());
        assert_eq!(differences(&repaired, &database), [], "{}", engine.name());
        for parent in [1, 3] {
            let counter = database.cell("backups", &id(parent), "num_dependent_backups");
            assert_eq!(counter.as_deref(), Some(if parent == 1 { "1" } else { "2" }), "{}", engine.name());
        }
        program.expect(0, &["history", "verify"]);
    }
}

/// A user has deleted one of the backups, so the outcome of its unit cannot be settled any more.
#[test]
fn units_with_an_unknown_outcome_do_not_block_the_undo_of_the_others() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let pairs: Vec<(String, String)> = (0..3).map(|_| stuck_pair(&database)).collect();
    let program = Program::on(database.url());
    program.expect(0, &["repair", "--yes"]);
    forget_outcomes(&program);
    let run = program.last_run();
    let (deleted, _) = &pairs[1];
    database.execute(&format!("UPDATE backups SET deleted = 1, status = 'deleted' WHERE id = '{deleted}'"));
    // Before the first reconcile.
    let said = program.expect(7, &["undo", &run, "--yes"]);
    assert!(said.stderr.contains("history reconcile"), "{}", said.stderr);
    let document = program.json(7, &["history", "reconcile"]);
    assert_eq!(found(&document)[deleted], "unknown", "{document:#}");
    assert_eq!(program.json(0, &["history", "list"])["runs"][0]["state"], "unknown");
    let said = program.expect(4, &["undo", &run, "--yes", "-f", "json"]);
    assert!(!said.stderr.contains("history reconcile"), "reconciled already: {}", said.stderr);
    let document = said.json();
    assert_eq!(document["summary"]["applied"], 2, "{document:#}");
    assert_eq!(document["refused"][0]["id"], deleted.as_str(), "{document:#}");
    for (backup, volume) in &pairs {
        let creating = database.cell("backups", backup, "status").as_deref() == Some("creating");
        assert_eq!(creating, backup != deleted);
        let backing_up = database.cell("volumes", volume, "status").as_deref() == Some("backing-up");
        assert_eq!(backing_up, backup != deleted, "a unit is undone completely or not at all");
    }
    program.expect(0, &["undo", &program.last_run(), "--yes"]);
}

/// The rows of a running run prove nothing yet, and an outcome read from them must not be recorded after its end.
#[test]
fn reconcile_is_refused_while_a_run_holds_the_log() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let (backup, volume) = stuck_pair(&database);
        let program = Program::on(database.url());
        database.execute(if engine == Engine::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" });
        database.execute(&format!("UPDATE volumes SET display_name = 'held' WHERE id = '{volume}'"));
        let run = program.start(&["repair", "--yes", "--lock-timeout", "30s"]);
        crate::faults::wait_for_lines(&program, 1);
        let said = program.expect(11, &["history", "reconcile", "--lock-timeout", "1s"]);
        database.execute("ROLLBACK");
        assert!(said.stderr.contains("is in use"), "{} {}", engine.name(), said.stderr);
        let output = run.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{} {}", engine.name(), String::from_utf8_lossy(&output.stderr));
        let document = program.json(0, &["history", "reconcile"]);
        assert_eq!((document["units"][0]["state"].as_str(), found(&document)[&backup].as_str()), (Some("kept"), "applied"));
    }
}

/// A row that is read without a lock may be about to change.
#[test]
fn an_outcome_is_settled_as_failed_only_after_reading_under_lock() {
    // On MariaDB an account that may read a row may also lock it.
    for engine in engines().into_iter().filter(|engine| *engine == Engine::Postgresql) {
        let database = fresh(engine, Columns::Full);
        let backup = database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS));
        let old = database.cell("backups", &backup, "updated_at").unwrap();
        let program = Program::on(database.url());
        program.expect(0, &["repair", "--yes"]);
        forget_outcomes(&program);
        database
            .execute(&format!("UPDATE backups SET status = 'creating', fail_reason = NULL, updated_at = '{old}' WHERE id = '{backup}'"));
        let reader = program.with_url(database.account(&grants(engine, "scan")));
        let document = reader.json(7, &["history", "reconcile"]);
        assert_eq!(found(&document)[&backup], "unknown", "{} {document:#}", engine.name());
        let program = reader.with_url(database.url());
        let document = program.json(0, &["history", "reconcile"]);
        assert_eq!(found(&document)[&backup], "failed", "{} {document:#}", engine.name());
    }
}

#[test]
fn a_row_that_two_units_of_a_run_wrote_does_not_count_as_changed_since() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let parent = database.backup(|row| row.num_dependent_backups(0));
    for _ in 0..2 {
        database.backup(|row| row.status("creating").host("gone").parent_id(&parent).age(TWO_HOURS));
    }
    let program = Program::on(database.url());
    program.expect(0, UNVERIFIED);
    let said = program.expect(0, &["history", "reconcile"]);
    assert!(said.stderr.contains("1 kept, 0 lost, 0 changed since, 1 changed again by this program"), "{}", said.stderr);
}

/// An increment changes its parent's row only when it is finished, so no guard detects one that has begun.
#[test]
fn undo_is_refused_if_an_increment_on_the_backup_began_after_the_run() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let (parent, older) = (id(1), id(2));
        database.insert(&[
            rows::backup().id(&parent).status("creating").host("gone").age(TWO_HOURS),
            rows::backup().id(&older).status("error").host("gone").parent_id(&parent).age(TWO_HOURS),
        ]);
        let program = Program::on(database.url());
        program.expect(0, &[UNVERIFIED, &[&parent]].concat());
        let run = program.last_run();
        let newer = database.backup(|row| row.status("creating").host("ctl2").parent_id(&parent).age(0));
        for (code, more) in [(4, "--dry-run"), (4, "--yes")] {
            let document = program.json(code, &["undo", &run, more]);
            assert_eq!(document["units"][0]["outcome"], "refused", "{} {document:#}", engine.name());
            assert!(document["units"][0]["reason"].as_str().unwrap().contains(&newer), "{document:#}");
        }
        assert_eq!(database.cell("backups", &parent, "status").as_deref(), Some("available"));
        database.execute(&format!("DELETE FROM backups WHERE id = '{newer}'"));
        program.expect(0, &["undo", &run, "--yes"]);
        assert_eq!(database.cell("backups", &parent, "status").as_deref(), Some("creating"), "{}", engine.name());
    }
}

/// Its time is from the clock of its API host, which may be late by more than `service_down_time`.
#[test]
fn an_increment_on_a_backup_that_was_creating_counts_as_newer_whatever_its_time() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let parent = database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS));
    let program = Program::on(database.url());
    program.expect(0, UNVERIFIED);
    let run = program.last_run();
    let increment = database.backup(|row| row.status("creating").host("ctl2").parent_id(&parent).age(600));
    let document = program.json(4, &["undo", &run, "--yes"]);
    assert_eq!(document["units"][0]["outcome"], "refused", "{document:#}");
    assert!(document["units"][0]["reason"].as_str().unwrap().contains(&increment), "{document:#}");
    assert_eq!(database.cell("backups", &parent, "status").as_deref(), Some("available"));
    database.execute(&format!("UPDATE backups SET deleted = 1, status = 'deleted' WHERE id = '{increment}'"));
    program.expect(0, &["undo", &run, "--yes"]);
    assert_eq!(database.cell("backups", &parent, "status").as_deref(), Some("creating"));
}

/// It does not depend on the run. An increment without a valid time may be newer.
#[test]
fn an_increment_older_than_the_run_does_not_block_its_undo() {
    for engine in engines() {
        for was in ["creating", "error"] {
            let database = fresh(engine, Columns::Full);
            let parent = database.backup(|row| row.status(was).host("gone").age(TWO_HOURS));
            let older = database.backup(|row| row.host("ctl2").parent_id(&parent).age(TWO_HOURS - 60));
            let program = Program::on(database.url());
            program.expect(0, &[UNVERIFIED, &["--status", was, &parent]].concat());
            let run = program.last_run();
            database.execute(&format!("UPDATE backups SET created_at = NULL WHERE id = '{older}'"));
            let document = program.json(4, &["undo", &run, "--yes"]);
            assert_eq!(document["units"][0]["outcome"], "refused", "{} {was} {document:#}", engine.name());
            assert!(document["units"][0]["reason"].as_str().unwrap().contains("created_at NULL"), "{document:#}");
            let time = crate::rows::ago(TWO_HOURS - 60).sql(engine);
            database.execute(&format!("UPDATE backups SET created_at = {time} WHERE id = '{older}'"));
            program.expect(0, &["undo", &run, "--yes"]);
            assert_eq!(database.cell("backups", &parent, "status").as_deref(), Some(was), "{}", engine.name());
        }
    }
}

#[test]
fn a_log_whose_path_is_not_utf8_can_be_used() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck_pair(&database);
    let folder = Program::on(database.url());
    let log = folder.path("").join(std::ffi::OsStr::from_bytes(b"audit-\xff.jsonl"));
    for args in [&["repair", "--yes"] as &[&str], &["history", "list"], &["history", "verify"], &["history", "reconcile"]] {
        let mut command = bare(&[args, &["-f", "json"]].concat());
        command.env("CINDER_DATABASE_URL", database.url()).arg("--audit-log").arg(&log);
        let said = answer(&mut command);
        assert_eq!(said.code, Some(0), "{args:?} {}", said.stderr);
        assert!(args[0] != "history" || said.json()["audit_log"].as_str().unwrap().contains("audit-"), "{}", said.stdout);
    }
}

/// Between two batches a running run cannot be distinguished from a killed one.
#[test]
fn a_run_without_an_end_record_counts_as_killed_once_another_run_holds_the_log() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck_pair(&database);
    let program = Program::on(database.url());
    program.expect(0, &["repair", "--yes"]);
    let text = fs::read_to_string(program.log()).unwrap();
    let without_end: String = text.lines().filter(|line| !line.contains("\"event\":\"end\"")).map(|line| format!("{line}\n")).collect();
    fs::write(program.log(), without_end).unwrap();
    let state = || program.json(0, &["history", "list"])["runs"][0]["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "killed or still running");
    stuck_pair(&database);
    program.expect(0, &["repair", "--yes"]);
    assert_eq!(state(), "killed, settled");
}

/// The disk of the database and of the log is full, so nothing was changed.
#[test]
fn a_log_that_cannot_grow_before_the_first_change_reports_no_change() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (backup, _) = stuck_pair(&database);
    // The length of the log when the unit begins: its intent is the last line that must fit.
    let copy = database.copy();
    let program = Program::on(copy.url());
    program.expect(0, &["repair", "--yes", "--reason", "x"]);
    forget_outcomes(&program);
    let length = usize::try_from(fs::metadata(program.log()).unwrap().len()).unwrap();
    // No outcome must fit behind it. Some numbers in it may have more digits in the second run.
    let limit = (length + 100).div_ceil(1_024);
    let reason = "x".repeat(limit * 1_024 - length - 60);
    let program = Program::on(database.url());
    let direct = program.command(&["repair", "--yes", "--reason", &reason]);
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &format!("ulimit -f {limit}; exec \"$0\" \"$@\"")]).arg(direct.get_program()).args(direct.get_args());
    command.env_clear().envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(program.path(""));
    let said = answer(&mut command);
    assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("creating"), "{}", said.stderr);
    assert!(said.stderr.contains("the audit log could not be completed"), "{}", said.stderr);
    assert!(said.stderr.contains("nothing was changed") && !said.stderr.contains("stand"), "{}", said.stderr);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let document = program.json(0, &["history", "reconcile"]);
    assert_eq!(found(&document)[&backup], "failed", "{document:#}");
}

/// No later record protects the last one, only its own digest.
#[test]
fn a_change_of_the_last_record_is_detected() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck_pair(&database);
    let program = Program::on(database.url());
    program.expect(0, &["repair", "--yes"]);
    let run = program.last_run();
    let whole = fs::read_to_string(program.log()).unwrap();
    let last = whole.lines().last().unwrap();
    let number = whole.lines().count();
    for changed in [last.replace("\"applied\":1", "\"applied\":0"), last.replace("\"interrupted\":null", "\"interrupted\":\"x\"")] {
        assert_ne!(changed, last);
        fs::write(program.log(), whole.replace(last, &changed)).unwrap();
        let document = program.json(9, &["history", "verify"]);
        let problem = (&document["problems"][0]["line"], &document["problems"][0]["code"], &document["problem_count"]);
        assert_eq!(problem, (&number.into(), &"wrong-digest".into(), &1.into()), "{document:#}");
        for args in [&["undo", &run, "--yes"] as &[&str], &["history", "show", &run]] {
            let said = program.run(args).stderr;
            assert!(said.contains(&format!("line {number} was changed after it was written")), "{args:?} {said}");
        }
    }
    fs::write(program.log(), whole).unwrap();
    assert_eq!(program.json(0, &["history", "verify"])["intact"], true);
}

/// Records of an older version have no digests of their own. Such a log can be read, undone and continued.
#[test]
fn new_records_have_digests_in_a_log_without_them() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (backup, _) = stuck_pair(&database);
    let program = Program::on(database.url());
    program.expect(0, &["repair", "--yes"]);
    let (mut old, mut previous) = (String::new(), "0".repeat(64));
    for line in fs::read_to_string(program.log()).unwrap().lines() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        assert!(record.as_object_mut().unwrap().remove("digest").is_some(), "{line}");
        record["previous"] = previous.into();
        let line = record.to_string();
        previous = cinder_backup_repair::audit::digest(line.as_bytes());
        old += &(line + "\n");
    }
    fs::write(program.log(), &old).unwrap();
    assert_eq!(program.json(0, &["history", "verify"])["intact"], true);
    program.expect(0, &["undo", &program.last_run(), "--yes"]);
    assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("creating"));
    assert_eq!(program.json(0, &["history", "verify"])["intact"], true);
    let both = fs::read_to_string(program.log()).unwrap();
    assert!(both.strip_prefix(&old).unwrap().lines().all(|line| line.contains(",\"digest\":\"sha256:")), "{both}");
    let lost = both.lines().last().unwrap().split(",\"digest\"").next().unwrap().to_owned() + "}";
    fs::write(program.log(), both.replace(both.lines().last().unwrap(), &lost)).unwrap();
    assert_eq!(program.json(9, &["history", "verify"])["problems"][0]["code"], "no-digest");
}

/// Records of an older version have no digests of their own.
#[test]
fn a_log_continued_by_an_older_version_is_read_and_undone() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (first, _) = stuck_pair(&database);
    let program = Program::on(database.url());
    program.expect(0, &["repair", "--yes"]);
    let new = fs::read_to_string(program.log()).unwrap();
    let (second, _) = stuck_pair(&database);
    program.expect(0, &["repair", "--yes"]);
    let both = fs::read_to_string(program.log()).unwrap();
    let (mut log, mut previous) = (new.clone(), cinder_backup_repair::audit::digest(new.lines().last().unwrap().as_bytes()));
    for line in both.strip_prefix(&new).unwrap().lines() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        assert!(record.as_object_mut().unwrap().remove("digest").is_some(), "{line}");
        record["previous"] = previous.into();
        let line = record.to_string();
        previous = cinder_backup_repair::audit::digest(line.as_bytes());
        log += &(line + "\n");
    }
    fs::write(program.log(), log).unwrap();
    // No later record protects the last one.
    assert_eq!(program.json(9, &["history", "verify"])["problems"][0]["code"], "no-digest");
    let list = program.json(0, &["history", "list"]);
    program.json(0, &["history", "reconcile"]);
    for run in list["runs"].as_array().unwrap().iter().rev() {
        program.expect(0, &["undo", run["run"].as_str().unwrap(), "--yes"]);
    }
    for backup in [first, second] {
        assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("creating"));
    }
    assert_eq!(program.json(0, &["history", "verify"])["intact"], true);
}

#[test]
fn undo_last_undoes_the_newest_run_and_names_it() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let program = Program::on(database.url());
    let ids = [1, 2].map(|_| database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS)));
    fs::write(program.log(), "").unwrap();
    fs::set_permissions(program.log(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(program.expect(2, &["undo", "last", "--yes"]).stderr.contains("has no run"));
    for id in &ids {
        program.expect(0, &["repair", "--yes", id]);
    }
    let newest = program.last_run();
    let said = program.expect(0, &["undo", "last", "--yes"]).stderr;
    assert!(said.starts_with(&format!("The last run is {newest}, by repair at ")), "{said}");
    let statuses = ids.each_ref().map(|id| database.cell("backups", id, "status").unwrap());
    assert_eq!(statuses, ["error", "creating"]);
}

/// The commands of a large run are summed up, and can be written as a script then and later.
#[test]
fn follow_up_commands_are_shown_in_part_and_written_whole() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let rows: Vec<_> = (0..40).map(|_| crate::rows::backup().status("creating").host("gone").age(7_200)).collect();
    database.insert(&rows);
    let program = Program::on(database.url());
    let path = |name: &str| program.path(name).display().to_string();
    let commands = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(path(name)).unwrap();
        assert!(text.starts_with("#!/bin/sh\n# "), "{text}");
        text.lines().skip(2).map(str::to_owned).collect()
    };
    program.expect(0, &["repair", "--dry-run", "--follow-up", &path("dry.sh")]);
    let refused = program.expect(2, &["repair", "--yes", "--max-changes", "50", "--follow-up", &path("dry.sh")]);
    assert!(refused.stderr.contains("exists already"), "{}", refused.stderr);
    assert_eq!(database.query("SELECT count(*) FROM backups WHERE status = 'error'"), [[Some("0".to_owned())]]);
    let done = program.expect(0, &["repair", "--yes", "--max-changes", "50"]);
    let shown = done.stderr.lines().skip_while(|line| *line != "Once the API is back:").skip(1).take_while(|line| line.starts_with("  "));
    let (shown, all) = (shown.count(), commands("dry.sh"));
    assert!(shown == 20 && all.len() == 80, "{shown} of {}: {}", all.len(), done.stderr);
    let run = program.last_run();
    assert!(done.stderr.contains(&format!("and 60 more commands: cinder-backup-repair history show {run} --follow-up FILE")));
    let show = program.expect(0, &["history", "show", &run, "--follow-up", &path("later.sh")]);
    assert!(!show.stderr.contains("undid"), "{}", show.stderr);
    // Those of the dry run name the database, too.
    let later = commands("later.sh");
    assert!(later.iter().zip(&all).all(|(later, all)| all.starts_with(later)), "{later:#?}\n{all:#?}");
    assert_eq!(later.len(), 80);
    program.expect(0, &["undo", &run, "--yes"]);
    let newest = program.json(0, &["history", "list", "--limit", "1"]);
    assert!(newest["runs"].as_array().unwrap().len() == 1 && newest["runs"][0]["begin"]["command"] == "undo", "{newest:#}");
    assert!(program.expect(0, &["history", "show", &run]).stderr.contains("undid at least a part of this one"));
}
