//! The facts of a scan and those of locked rows, from the same random database.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::{Connection, ToSql, params_from_iter};

use super::*;
use crate::apply::recheck::{decide_again, same_decision};
use crate::apply::reconcile::intended;
use crate::apply::simulate::{SimulatedOutcome, simulate};
use crate::db::schema::Schema;
use crate::db::{Access, SessionSettings, sqlite};
use crate::domain::{CheckResult, Checks, Finding, FindingKind, Policy, Selection, Verdict};
use crate::plan::{Basis, Plan, Proposed, Purpose};
use crate::scan::{
    KeptRows, ReferenceColumn, References, RelatedRows, Repaired, Scan, ScanFacts, ScanRequest, backup_case, scan, snapshot_case,
    volume_case,
};
use crate::spool::Spool;

/// The tables, with ids that are compared without regard to case, as MySQL does.
const TABLES: &str = "
CREATE TABLE backups (id TEXT COLLATE NOCASE, status, host, availability_zone, service, volume_id TEXT COLLATE NOCASE, display_name, project_id, size,
    object_count, container, service_metadata, fail_reason, created_at, updated_at, parent_id TEXT COLLATE NOCASE, temp_volume_id,
    temp_snapshot_id, num_dependent_backups, snapshot_id TEXT COLLATE NOCASE, restore_volume_id TEXT COLLATE NOCASE, deleted DEFAULT 0,
    deleted_at);
CREATE TABLE volumes (id TEXT COLLATE NOCASE, status, attach_status, size, display_name, project_id, created_at, updated_at,
    previous_status, deleted DEFAULT 0);
CREATE TABLE snapshots (id TEXT COLLATE NOCASE, status, volume_id, display_name, project_id, created_at, updated_at, deleted DEFAULT 0);
CREATE TABLE volume_attachment (id, volume_id TEXT COLLATE NOCASE, instance_uuid, attached_host, attach_status, deleted DEFAULT 0);
CREATE TABLE services (host, \"binary\", updated_at, created_at, report_count, availability_zone, disabled, deleted DEFAULT 0);
INSERT INTO services VALUES ('up', 'cinder-backup', strftime('%Y-%m-%d %H:%M:%S', 'now'), '2026-01-01 00:00:00', 9, 'nova', 0, 0),
    ('down', 'cinder-backup', '2026-01-02 00:00:00', '2026-01-01 00:00:00', 9, 'nova', 0, 0);";

type Cell = Option<String>;

fn one_of(values: &[&str]) -> impl Strategy<Value = Cell> + use<> {
    let values: Vec<Cell> = values.iter().map(|value| (*value != "NULL").then(|| (*value).to_owned())).collect();
    prop::sample::select(values)
}

fn times() -> impl Strategy<Value = Cell> {
    one_of(&["2026-01-03 00:00:00", "2026-01-03 00:00:02", "2026-01-03 01:00:00", "2026-01-04 00:00:00"])
}

/// A backup without its id: what can differ between two backups of the same rows.
fn a_backup() -> impl Strategy<Value = Vec<(&'static str, Cell)>> {
    let rows = (
        one_of(&["creating", "creating", "restoring", "deleting", "error", "available", "error_deleting", "NULL"]),
        one_of(&["down", "down", "gone", "up", "NULL"]),
        one_of(&["v0", "V0", "v1", "v2", "gone", "00000000-0000-0000-0000-000000000000", "NULL"]),
        one_of(&["NULL", "v0", "V1", "v2"]),
        one_of(&["NULL", "NULL", "s0", "S0", "s1"]),
        one_of(&["NULL", "b0", "b1", "b2", "gone"]),
        one_of(&["NULL", "NULL", "v2"]),
        one_of(&["0", "1", "2", "NULL"]),
        times(),
        times(),
    );
    rows.prop_map(|(status, host, volume, destination, snapshot, parent, temporary, counter, created, updated)| {
        vec![
            ("status", status),
            ("host", host),
            ("volume_id", volume),
            ("restore_volume_id", destination),
            ("snapshot_id", snapshot),
            ("parent_id", parent),
            ("temp_volume_id", temporary),
            ("num_dependent_backups", counter),
            ("created_at", created),
            ("updated_at", updated),
            ("service", Some("cinder.backup.drivers.posix.PosixBackupDriver".to_owned())),
        ]
    })
}

fn a_volume() -> impl Strategy<Value = Vec<(&'static str, Cell)>> {
    let status = one_of(&["backing-up", "backing-up", "restoring-backup", "available", "in-use", "NULL"]);
    let columns = (status, one_of(&["available", "in-use", "NULL"]), one_of(&["attached", "detached"]), times());
    columns.prop_map(|(status, previous, attached, updated)| {
        vec![("status", status), ("previous_status", previous), ("attach_status", attached), ("updated_at", updated)]
    })
}

fn a_snapshot() -> impl Strategy<Value = Vec<(&'static str, Cell)>> {
    (one_of(&["backing-up", "backing-up", "available"]), times())
        .prop_map(|(status, updated)| vec![("status", status), ("updated_at", updated)])
}

fn an_attachment() -> impl Strategy<Value = Vec<(&'static str, Cell)>> {
    let columns = (one_of(&["v0", "v1", "V2"]), one_of(&["NULL", "vm"]), one_of(&["down", "cmp"]), one_of(&["attached", "detached"]));
    columns.prop_map(|(volume, instance, host, status)| {
        vec![("volume_id", volume), ("instance_uuid", instance), ("attached_host", host), ("attach_status", status)]
    })
}

type Rows = Vec<Vec<(&'static str, Cell)>>;

fn insert(connection: &Connection, table: &str, prefix: &str, rows: &Rows) {
    for (number, row) in rows.iter().enumerate() {
        let columns: String = row.iter().map(|(column, _)| format!(", {column}")).collect();
        let marks = ", ?".repeat(row.len());
        let id = format!("{prefix}{number}");
        let counter = |(column, cell): &(&str, Cell)| -> Box<dyn ToSql> {
            if *column == "num_dependent_backups" {
                Box::new(cell.as_ref().and_then(|cell| cell.parse::<i64>().ok()))
            } else {
                Box::new(cell.clone())
            }
        };
        let cells = std::iter::once(Box::new(id) as Box<dyn ToSql>).chain(row.iter().map(counter));
        let sql = format!("INSERT INTO {table} (id{columns}) VALUES (?{marks})");
        connection.execute(&sql, params_from_iter(cells)).unwrap();
    }
}

/// A database with these rows.
fn database(path: &Path, [backups, volumes, snapshots, attachments]: [&Rows; 4]) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA synchronous = OFF; BEGIN;").unwrap();
    connection.execute_batch(TABLES).unwrap();
    for (table, prefix, rows) in
        [("backups", "b", backups), ("volumes", "v", volumes), ("snapshots", "s", snapshots), ("volume_attachment", "a", attachments)]
    {
        insert(&connection, table, prefix, rows);
    }
    connection.execute_batch("COMMIT;").unwrap();
}

fn a_check(rows: &[Image]) -> CheckResult {
    let amount = serde_json::json!({ "checked": 1, "expected": 1 });
    serde_json::from_value(serde_json::json!({
        "id": rows[0].id, "name": null, "driver": "posix", "service": null, "location": null, "level": "deep", "depth": "",
        "partial": false, "verdict": "intact", "busy": false, "begun": true, "objects": amount, "bytes": amount, "problems": [],
        "warnings": [], "chain": [], "object_count": 1, "service_metadata": null, "newest_object_at": null,
        "checked_at": "2026-01-05T00:00:00Z", "rows": rows,
    }))
    .unwrap()
}

fn a_unit(kind: FindingKind, before: Image, finding: Option<Finding>) -> Unit {
    Unit {
        number: 1,
        kind,
        id: before.id.clone(),
        name: None,
        status: None,
        host: None,
        counter: false,
        verdict: Verdict::Stuck,
        evidence: finding.map(|finding| finding.evidence).unwrap_or_default(),
        before: vec![before],
        changes: Vec::new(),
        follow_up: Vec::new(),
    }
}

fn basis(scan: &Scan, policy: &Policy, checks: &Checks) -> Basis {
    Basis {
        id: String::new(),
        taken_at: String::new(),
        database: scan.document.database.clone(),
        columns: scan.situation.columns,
        policy: policy.clone(),
        selection: Selection::default(),
        services: scan.situation.services.clone(),
        checks: checks.clone(),
    }
}

/// The case of every backup, volume and snapshot is the same from the census and from locked rows.
fn same_cases(reader: &mut Reader<'_>, scan: &Scan, policy: &Policy, with_check: &BTreeSet<usize>) {
    let (census, situation, columns) = (&scan.census, &scan.situation, scan.situation.columns);
    let backups: Vec<Backup> = census.selected().flat_map(|ids| reader.backups(&ids).unwrap()).collect();
    let mut wanted = References::default();
    for backup in &backups {
        backup.volume_id.iter().for_each(|id| wanted.want(ReferenceColumn::Volume, id));
        backup.restore_volume_id.iter().for_each(|id| wanted.want(ReferenceColumn::RestoreVolume, id));
        backup.snapshot_id.iter().for_each(|id| wanted.want(ReferenceColumn::Snapshot, id));
    }
    wanted.read(reader).unwrap();
    let references = wanted;
    let related = RelatedRows::of_backups(reader, &backups, &|_| true, &references).unwrap();
    let repaired = Repaired::default();
    let facts = ScanFacts { census, related: &related, repaired: &repaired, situation, policy };
    let written = Written::default();
    let locked = |reader: &mut Reader<'_>, unit: &Unit, plan: &Plan| rows_now(reader, &UnitRows::of(unit, plan, census, columns));
    for (number, backup) in backups.iter().enumerate() {
        let chain: Vec<Image> = std::iter::once(backup.clone())
            .chain(facts.ancestors(backup).iter().map(|row| (**row).clone()))
            .map(|row| row.image(columns))
            .collect();
        let check = with_check.contains(&number).then(|| a_check(&chain));
        let mut expected = backup_case(backup.clone(), check.as_ref(), &facts, policy);
        let finding = decide::backup(&expected, situation, policy);
        let unit = a_unit(FindingKind::Backup, backup.image(columns), Some(finding));
        let checks: Checks = check.into_iter().map(|check| (check.id.clone(), check.into())).collect();
        let plan = Plan::of_units(Purpose::Repair, None, basis(scan, policy, &checks), Spool::of([unit.clone()]).unwrap()).unwrap();
        let rows = locked(reader, &unit, &plan);
        let under_lock = LockedFacts { rows: &rows, unit: &unit, census, written: &written };
        let case = backup_case(under_lock.backup().unwrap(), plan.check_of(&unit), &under_lock, policy);
        // What other backups may still use is judged once: the plan has it on record.
        assert!(case.conflicts.iter().all(|conflict| expected.conflicts.contains(conflict)));
        expected.conflicts = decide::conflicts_in(&unit.evidence);
        assert_eq!(case, expected);
    }
    let mut volumes = Vec::new();
    reader.pending_volumes(&mut |volume| volumes.push(volume)).unwrap();
    let related = RelatedRows::of_volumes(reader, &volumes, &references).unwrap();
    let facts = ScanFacts { related: &related, ..facts };
    for volume in volumes {
        let unit = a_unit(FindingKind::Volume, volume.image(columns), None);
        let plan = Plan::of_units(Purpose::Repair, None, basis(scan, policy, &Checks::new()), Spool::of([unit.clone()]).unwrap()).unwrap();
        let rows = locked(reader, &unit, &plan);
        let under_lock = LockedFacts { rows: &rows, unit: &unit, census, written: &written };
        let case = volume_case(rows.volume(&unit.id).cloned().unwrap(), &under_lock, columns);
        assert_eq!(case, decide::VolumeCase { suspects: Vec::new(), ..volume_case(volume, &facts, columns) });
    }
    let mut snapshots = Vec::new();
    reader.pending_snapshots(&mut |snapshot| snapshots.push(snapshot)).unwrap();
    for snapshot in snapshots {
        let unit = a_unit(FindingKind::Snapshot, snapshot.image(), None);
        let plan = Plan::of_units(Purpose::Repair, None, basis(scan, policy, &Checks::new()), Spool::of([unit.clone()]).unwrap()).unwrap();
        let rows = locked(reader, &unit, &plan);
        let under_lock = LockedFacts { rows: &rows, unit: &unit, census, written: &written };
        let case = snapshot_case(rows.snapshot(&unit.id).cloned().unwrap(), &under_lock, columns);
        assert_eq!(case, decide::SnapshotCase { suspects: Vec::new(), ..snapshot_case(snapshot, &facts, columns) });
    }
}

fn rows_now(reader: &mut Reader<'_>, rows: &UnitRows) -> LockedRows {
    // The scan's transaction, or that of the unit before.
    reader.session.rollback().unwrap();
    LockedRows::begin(reader, rows, Access::ReadOnly, true).unwrap()
}

/// In a dry run, every unit is decided as the plan has it, with the rows as the units before it would have left them.
fn same_decisions(reader: &mut Reader<'_>, scan: &Scan, policy: &Policy) {
    let mut proposed = Proposed::default();
    for finding in scan.document.findings.iter().map(Result::unwrap).filter(Finding::is_actionable) {
        proposed.add(Unit::of_finding(finding)).unwrap();
    }
    let plan = Plan::propose(proposed, basis(scan, policy, &Checks::new())).unwrap();
    let mut written = Written::default();
    for simulated in simulate(&plan.units, &scan.census).unwrap() {
        let (simulated, unit) = &simulated.unwrap();
        let rows = UnitRows::of(unit, &plan, &scan.census, scan.situation.columns);
        let mut rows = rows_now(reader, &rows);
        rows.assume(&written.rows);
        let now = rows.compare(unit, &written.rows, scan.situation.columns).unwrap();
        let facts = LockedFacts { rows: &rows, unit, census: &scan.census, written: &written };
        let decided = same_decision(unit, decide_again(&facts, None, &scan.situation, policy), &written);
        match simulated.outcome {
            SimulatedOutcome::Runs => {
                let changes = decided.unwrap();
                assert_eq!(changes, simulated.changes);
                written.record(&now, &intended(&now, &changes));
            }
            SimulatedOutcome::Unneeded | SimulatedOutcome::Incomplete => assert!(decided.is_err(), "{decided:?}"),
        }
    }
}

fn with_database(rows: [&Rows; 4], columns: ColumnSet, policy: Policy, test: impl FnOnce(&mut Reader<'_>, &Scan, &Policy)) {
    let policy = Policy { evidence_max_age_seconds: i64::MAX, ..policy };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cinder.sqlite");
    database(&path, rows);
    let mut session = sqlite::open(&path, &SessionSettings::default()).unwrap();
    let schema = Schema {
        columns,
        has_attachments: true,
        has_quotas: false,
        has_reservations: false,
        has_backup_metadata: false,
        has_messages: false,
        has_keys: false,
        has_report_count: true,
        release: String::new(),
    };
    let (selection, checks) = (Selection::default(), Checks::new());
    let request = ScanRequest::new(&policy, &selection, KeptRows::Changes, &checks);
    let scan = scan(session.as_mut(), &schema, &request).unwrap();
    session.begin(Access::ReadOnly).unwrap();
    test(&mut Reader { session: session.as_mut(), schema: &schema }, &scan, &policy);
}

#[test]
fn an_ancestor_is_found_however_its_id_is_spelt() {
    let backup = |status: &str, parent: Option<&str>| {
        vec![("status", Some(status.to_owned())), ("host", Some("down".to_owned())), ("parent_id", parent.map(str::to_owned))]
    };
    let backups = vec![backup("available", None), backup("creating", Some("B0"))];
    let none = Rows::new();
    with_database([&backups, &none, &none, &none], ColumnSet::Mitaka, Policy::default(), |reader, scan, policy| {
        same_cases(reader, scan, policy, &BTreeSet::from([0]));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_and_a_run_make_the_same_cases_of_the_same_rows(
        backups in prop::collection::vec(a_backup(), 1..7),
        volumes in prop::collection::vec(a_volume(), 3),
        snapshots in prop::collection::vec(a_snapshot(), 2),
        attachments in prop::collection::vec(an_attachment(), 0..4),
        columns in prop::sample::select(vec![ColumnSet::Juno, ColumnSet::Liberty, ColumnSet::Mitaka]),
        to in one_of(&["NULL", "error", "available"]),
        flags in any::<(bool, bool)>(),
        with_check in prop::collection::btree_set(0_usize..7, 0..3),
    ) {
        let policy = Policy { to, allow_unverified: flags.0, fix_counters: flags.1, ..Policy::default() };
        with_database([&backups, &volumes, &snapshots, &attachments], columns, policy, |reader, scan, policy| {
            same_cases(reader, scan, policy, &with_check);
            same_decisions(reader, scan, policy);
        });
    }
}
