//! The number of times that a scan or a run reads a whole table does not depend on what it finds or changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cinder_backup_repair::apply::{Mode, Options};
use cinder_backup_repair::db::schema::probe;
use cinder_backup_repair::db::{Engine, ID_BATCH, Session, SessionSettings};
use cinder_backup_repair::domain::{Checks, Policy, Selection, Value};
use cinder_backup_repair::plan::Purpose;
use cinder_backup_repair::scan::{KeptRows, ScanRequest, scan};
use cinder_backup_repair::spool::Spool;

use crate::library::{self, carry_out, hooked, plan, session};
use crate::rows::{Row, backup, quota_usage, snapshot, volume};
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;

/// `number` rows of each kind for which a scan looks for other backups.
fn rows(number: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for _ in 0..number {
        // A stuck backup whose volume was marked after it began, and another backup of that volume.
        let shared = volume().status("backing-up").previous_status("available").updated_at(crate::rows::ago(TWO_HOURS / 2));
        let stuck = backup().status("creating").host("gone").volume_id(shared.get_id()).age(TWO_HOURS);
        let other = backup().volume_id(shared.get_id()).age(TWO_HOURS * 3);
        // The same for a restore, and for a snapshot.
        let target = volume().status("restoring-backup").updated_at(crate::rows::ago(TWO_HOURS / 2));
        let restoring = backup().status("restoring").host("gone").restore_volume_id(target.get_id()).age(TWO_HOURS);
        let source = volume();
        let held = snapshot(&source.get_id()).status("backing-up").updated_at(crate::rows::ago(TWO_HOURS / 2));
        let of_snapshot = backup().status("creating").host("gone").volume_id(source.get_id()).snapshot_id(held.get_id()).age(TWO_HOURS);
        // Volumes and snapshots that no active backup explains.
        let left_over = volume().status("backing-up").previous_status("available").age(TWO_HOURS);
        let of_left_over = backup().volume_id(left_over.get_id());
        let left_snapshot = snapshot(&source.get_id()).status("backing-up").age(TWO_HOURS);
        // A counter that is wrong, a parent in error, and a parent that is gone.
        let wrong = backup().num_dependent_backups(3);
        let broken = backup().status("error").num_dependent_backups(1);
        let child = backup().parent_id(broken.get_id());
        let orphan = backup().parent_id(backup().get_id());
        rows.extend([shared, stuck, other, target, restoring, source, held, of_snapshot, left_over, of_left_over]);
        // A project whose quota is wrong.
        let quota = quota_usage("backups", 9).project_id(wrong.get_id());
        rows.extend([left_snapshot, wrong, broken, child, orphan, quota]);
    }
    rows
}

/// A session that counts its statements by name.
fn counted(session: Box<dyn Session>, names: Arc<Mutex<BTreeMap<String, usize>>>) -> Box<dyn Session> {
    hooked(session, move |statement, _| {
        *names.lock().unwrap().entry(statement.name.to_owned()).or_default() += 1;
        Ok(())
    })
}

/// The number of statements by name of a scan of [`rows`], and the number of its findings.
fn statements_of_a_scan(engine: Engine, number: usize) -> (BTreeMap<String, usize>, usize) {
    let database = fresh(engine, Columns::Full);
    database.insert(&rows(number));
    let names = Arc::new(Mutex::new(BTreeMap::new()));
    let mut session = counted(session(&database, &SessionSettings::default()).unwrap(), Arc::clone(&names));
    let session = session.as_mut();
    let schema = probe(session).unwrap();
    let policy = Policy { fix_quotas: true, ..Policy::default() };
    let (selection, checks) = (Selection::default(), Checks::new());
    let scan = scan(session, &schema, &ScanRequest::new(&policy, &selection, KeptRows::Changes, &checks)).unwrap();
    let names = names.lock().unwrap().clone();
    (names, scan.document.findings.len())
}

#[test]
fn a_scan_reads_backups_twice_whatever_it_finds() {
    for engine in engines() {
        let (few, few_findings) = statements_of_a_scan(engine, 10);
        let (many, many_findings) = statements_of_a_scan(engine, 1_000);
        assert!(few_findings >= 80, "{few_findings}");
        assert_eq!(many_findings, few_findings * 100);
        // Statements that read by an index run in batches; every other one reads a whole table.
        let by_index = |name: &str| {
            name.contains("_by_ids_")
                || name.ends_with("_by_projects")
                || ["snapshots_by_ids", "attachments_by_volumes", "user_metadata_by_backups"].contains(&name)
        };
        for (name, count) in &many {
            let once = few.get(name).copied().unwrap_or_default();
            if by_index(name) {
                assert!(*count <= once + 15 * 1_000 / ID_BATCH, "{}: {name} ran {count} times", engine.name());
            } else {
                assert_eq!(*count, once, "{}: {name}", engine.name());
            }
        }
        let passes: Vec<(&str, usize)> = many
            .iter()
            .filter(|(name, _)| name.starts_with("backups_") && !by_index(name))
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        assert_eq!(passes, [("backups_live_liberty", 1), ("backups_references_mitaka", 1)], "{}", engine.name());
    }
}

/// The number of statements by name of an undo that takes `available` from `number` backups, each with an old increment.
fn statements_of_an_undo(engine: Engine, number: usize) -> BTreeMap<String, usize> {
    let database = fresh(engine, Columns::Full);
    let stuck: Vec<Row> = (0..number).map(|_| backup().status("creating").host("gone").age(TWO_HOURS)).collect();
    let increments = stuck.iter().map(|parent| backup().parent_id(parent.get_id()).status("error").age(TWO_HOURS * 2)).collect::<Vec<_>>();
    database.insert(&[stuck, increments].concat());
    let mut undo = plan(&database);
    database.execute("UPDATE backups SET status = 'available' WHERE status = 'creating'");
    undo.purpose = Purpose::Undo;
    let mut units = library::units(&undo);
    for unit in &mut units {
        unit.changes.retain(|change| change.column == "status");
        for change in &mut unit.changes {
            (change.from, change.to) = (Value::from("available"), Value::from("creating"));
        }
        for image in &mut unit.before {
            image.columns.insert("status".to_owned(), Value::from("available"));
        }
    }
    undo.units = Spool::of(units).unwrap();
    let names = Arc::new(Mutex::new(BTreeMap::new()));
    let count = |session| counted(session, Arc::clone(&names));
    let options = Options { mode: Mode::Write, heartbeat_wait: Duration::ZERO, ..Options::default() };
    let (run, _) = carry_out(&database, &undo, options, count, |_| false);
    assert_eq!(run.tally.applied, number, "{:?} {:?}", run.failure, run.results.get(0));
    names.lock().unwrap().clone()
}

#[test]
fn an_undo_reads_increments_with_the_heartbeats_and_not_for_each_unit() {
    for engine in engines() {
        for units in [5, 100] {
            let statements = statements_of_an_undo(engine, units);
            // A slow machine may read the heartbeats more than once.
            assert_eq!(statements["backups_references_mitaka"], statements["services_backup"], "{}", engine.name());
            assert!(statements["backups_references_mitaka"] < units, "{}: {statements:?}", engine.name());
        }
    }
}

#[test]
fn sqlite_reads_rows_of_a_list_of_ids_by_the_primary_key() {
    let database = rusqlite::Connection::open_in_memory().unwrap();
    database.execute_batch(&std::fs::read_to_string("tests/cinder/schema-sqlite.sql").unwrap()).unwrap();
    let mut read = 0;
    for file in std::fs::read_dir("sql/sqlite").unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        if !name.contains("_by_id") {
            continue;
        }
        let statement = format!("EXPLAIN QUERY PLAN {}", std::fs::read_to_string(&file).unwrap());
        let plan: String = database.query_row(&statement, ["[]"], |row| row.get(3)).unwrap();
        assert!(plan.ends_with("(id=?)") || plan.ends_with("(rowid=?)"), "{name}: {plan}");
        read += 1;
    }
    assert_eq!(read, 17);
}
