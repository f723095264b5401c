//! How often a scan reads a whole table does not depend on what it finds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cinder_backup_repair::db::schema::probe;
use cinder_backup_repair::db::{Engine, ID_BATCH, SessionSettings};
use cinder_backup_repair::domain::{Checks, Policy, Selection};
use cinder_backup_repair::scan::{KeptRows, ScanRequest, scan};

use crate::library::{hooked, session};
use crate::rows::{Row, backup, snapshot, volume};
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;

/// Rows of every kind that raises a question about other backups, `number` of each.
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
        rows.extend([left_snapshot, wrong, broken, child, orphan]);
    }
    rows
}

/// The number of statements by name, and the number of findings.
fn statements_of_a_scan(engine: Engine, number: usize) -> (BTreeMap<String, usize>, usize) {
    let database = fresh(engine, Columns::Full);
    database.insert(&rows(number));
    let names = Arc::new(Mutex::new(BTreeMap::new()));
    let mut counted = session(&database, &SessionSettings::default()).map(|session| {
        let names = Arc::clone(&names);
        hooked(session, move |statement, _| {
            *names.lock().unwrap().entry(statement.name.to_owned()).or_default() += 1;
            Ok(())
        })
    });
    let session = counted.as_mut().unwrap().as_mut();
    let schema = probe(session).unwrap();
    let (policy, selection, checks) = (Policy::default(), Selection::default(), Checks::new());
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
        // All others read by an index, in batches.
        let by_index = |name: &str| name.contains("_by_ids_") || ["snapshots_by_ids", "attachments_by_volumes"].contains(&name);
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
