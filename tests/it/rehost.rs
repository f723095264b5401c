//! `--rehost`, with the real Cinder as the measure: the host that its API chooses, and `cinder-manage backup update_backup_host`.

use cinder_backup_repair::db::Engine;
use serde_json::{Value, json};

use crate::cinder;
use crate::database::{Change, Database, changes};
use crate::guards::grants;
use crate::program::Program;
use crate::rows::{Row, ago, backup};
use crate::schemas::{Columns, engines, fresh};

/// The driver of all backups that a test does not give another.
const SWIFT: &str = "cinder.backup.drivers.swift.SwiftBackupDriver";

/// Three backups on a host without a service, one of them without a zone; and one on `ctl2`, which sends heartbeats.
fn retired(database: &Database) -> Vec<String> {
    let rows = [backup().host("gone"), backup().host("gone").status("error"), backup().host("gone").availability_zone(None::<String>)];
    database.insert(&[rows.as_slice(), &[backup().host("ctl2"), backup().host("gone").gone()]].concat());
    database.service("ctl2", |row| row);
    rows.iter().map(Row::get_id).collect()
}

fn rehost(program: &Program, code: i32, args: &[&str]) -> Value {
    program.json(code, &[&["repair", "--rehost", "ctl2", "--yes"], args].concat())
}

/// The columns that changed, apart from the times.
fn moved(changes: Vec<Change>) -> Vec<Change> {
    changes.into_iter().filter(|change| change.column != "updated_at").collect()
}

#[test]
fn cinder_finds_the_host_afterwards_and_undo_restores_the_rows() {
    for engine in engines() {
        let origin = fresh(engine, Columns::Full);
        let ids = retired(&origin);
        let (theirs, database) = (origin.copy(), origin.copy());
        theirs.disconnect();
        let program = Program::on(database.url());
        let before = database.rows_by_id();
        let hosts = cinder::available_hosts(&database.url(), true);
        assert!(ids.iter().all(|id| hosts[id] == "ServiceNotFound"), "{} {hosts:?}", engine.name());
        let hosts = cinder::available_hosts(&database.url(), false);
        assert!(ids.iter().all(|id| hosts[id] == "ctl2"), "without the option Cinder copes: {hosts:?}");
        let notices = program.json(0, &["scan"])["notices"].to_string();
        assert!(notices.contains("hosts without a living cinder-backup (gone) still have 3 live backups"), "{notices}");
        assert!(notices.contains("repair --dry-run --rehost ctl2 --host gone"), "{notices}");

        assert_eq!(rehost(&program, 0, &["--dry-run"])["summary"]["planned"], 3);
        assert_eq!(changes(&before, &database.rows_by_id()), []);
        let document = rehost(&program, 0, &[]);
        assert_eq!(document["summary"]["applied"], 3, "{document:#}");
        let hosts = cinder::available_hosts(&database.url(), true);
        assert!(ids.iter().all(|id| hosts[id] == "ctl2"), "{} {hosts:?}", engine.name());

        // The rows are as after Cinder's own command, which writes no zone.
        cinder::update_backup_host(&theirs.url(), "gone", "ctl2");
        let zone =
            Change { table: "backups".into(), id: ids[2].clone(), column: "availability_zone".into(), from: None, to: Some("nova".into()) };
        assert_eq!(moved(changes(&theirs.rows_by_id(), &database.rows_by_id())), [zone], "{}", engine.name());

        assert_eq!(program.json(0, &["scan"])["notices"], json!([]));
        assert_eq!(rehost(&program, 0, &[])["units"], json!([]), "nothing is left to move");
        assert_eq!(program.json(0, &["history", "reconcile"])["units"][0]["state"], "kept");
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        assert_eq!(moved(changes(&before, &database.rows_by_id())), [], "{}", engine.name());
    }
}

#[test]
fn a_plan_moves_only_rows_that_are_as_planned_to_a_host_that_still_beats() {
    for (engine, columns) in
        engines().into_iter().flat_map(|engine| [Columns::Full, Columns::Liberty, Columns::Juno].map(|columns| (engine, columns)))
    {
        let database = fresh(engine, columns);
        let ids = retired(&database);
        let program = Program::on(database.url());
        program.expect(0, &["plan", "--rehost", "ctl2", "--out", "plan.json"]);
        database.execute(&format!("UPDATE backups SET availability_zone = 'az9' WHERE id = '{}'", ids[0]));
        database.execute(&format!("UPDATE backups SET host = 'ctl3' WHERE id = '{}'", ids[1]));
        let document = program.json(4, &["apply", "plan.json", "--yes"]);
        assert_eq!((&document["summary"]["changed"], &document["summary"]["applied"]), (&json!(2), &json!(1)), "{document:#}");
        let of = |id: &str| (database.cell("backups", id, "host").unwrap(), database.cell("backups", id, "availability_zone"));
        assert_eq!(of(&ids[0]), ("gone".to_owned(), Some("az9".to_owned())));
        assert_eq!(of(&ids[1]).0, "ctl3");
        assert_eq!(of(&ids[2]), ("ctl2".to_owned(), Some("nova".to_owned())));
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        assert_eq!(of(&ids[2]), ("gone".to_owned(), None), "{}", engine.name());

        program.expect(0, &["plan", "--rehost", "ctl2", "--out", "late.json", ids[2].as_str()]);
        database.execute(&format!("UPDATE services SET updated_at = {}", ago(900).sql(engine)));
        let document = program.json(4, &["apply", "late.json", "--yes"]);
        let reason = document["units"][0]["reason"].as_str().unwrap();
        assert_eq!(reason, "no backup can be moved to ctl2: its cinder-backup has no recent heartbeat; start it first");
        assert_eq!(of(&ids[2]).0, "gone");
    }
}

#[test]
fn a_host_that_cannot_take_backups_is_refused_with_one_sentence() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    retired(&database);
    database.service("silent", |row| row.updated_at(ago(900)));
    database.service("off", |row| row.disabled(true));
    database.service("empty", |row| row);
    let program = Program::on(database.url());
    let before = database.rows_by_id();
    for (code, args, says) in [
        (2, ["nowhere", "none"], "--rehost nowhere matches nothing: no cinder-backup has this host; there are ctl2, empty, off, silent"),
        (2, ["CTL2", "none"], "--rehost CTL2 matches nothing: no cinder-backup has this host; it is spelled ctl2"),
        (
            6,
            ["silent", "none"],
            "no backup can be moved to silent: its cinder-backup has no recent heartbeat; start it first; nothing was changed",
        ),
        (6, ["off", "none"], "no backup can be moved to off: its cinder-backup is disabled; enable it first; nothing was changed"),
        (6, ["ctl2", "ctl2"], "no backup can be moved to ctl2: --assume-dead declares its cinder-backup dead; nothing was changed"),
        (6, ["empty", "none"], "no backup can be moved to empty: its driver is not known"),
    ] {
        let answer = program.expect(code, &["repair", "--yes", "--rehost", args[0], "--assume-dead", args[1]]);
        assert!(answer.stderr.contains(&format!("error: {says}")), "{}", answer.stderr);
    }
    // The cinder.conf of a new host says what its driver is.
    std::fs::write(program.path("cinder.conf"), format!("[DEFAULT]\nreport_interval = 1\nbackup_driver = {SWIFT}\n")).unwrap();
    assert_eq!(program.json(0, &["repair", "--dry-run", "--rehost", "empty"])["summary"]["planned"], 3);
    assert_eq!(changes(&before, &database.rows_by_id()), []);
}

#[test]
fn a_backup_of_another_zone_or_driver_or_under_a_service_keeps_its_host() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.service("ctl2", |row| row);
        database.service("ctl1", |row| row);
        database.service("silent", |row| row.updated_at(ago(900)));
        let rows = [
            ("zone", backup().host("gone").availability_zone("az2"), "its zone is az2, and that of ctl2 is nova"),
            (
                "driver",
                backup().host("gone").service("cinder.backup.drivers.ceph.CephBackupDriver"),
                "its driver is cinder.backup.drivers.ceph",
            ),
            ("posix", backup().host("gone").service("cinder.backup.drivers.posix"), "its driver is cinder.backup.drivers.posix, and"),
            ("alive", backup().host("ctl1"), ""),
            ("never", backup().host(None::<String>), ""),
            ("pending", backup().host("gone").status("error_deleting"), ""),
            ("moved", backup().host("silent").service("cinder.backup.drivers.swift"), ""),
            ("new", backup().host("ctl2"), ""),
        ];
        database.insert(&rows.each_ref().map(|(name, row, _)| row.clone().display_name(*name)));
        let program = Program::on(database.url());
        // The server has just started, so silence proves nothing yet.
        let document = rehost(&program, 4, &["--assume-dead", "silent"]);
        assert_eq!(document["summary"]["applied"], 1, "{document:#}");
        let refused = document["refused"].as_array().unwrap();
        for (name, row, says) in &rows {
            let reason = refused.iter().find(|refused| refused["name"] == *name).map(|refused| refused["reason"].as_str().unwrap());
            assert_eq!(reason.is_some(), !says.is_empty(), "{name} {document:#}");
            assert!(reason.unwrap_or_default().contains(says), "{name} {reason:?}");
            let host = database.cell("backups", &row.get_id(), "host");
            let was = database_host(row);
            assert_eq!(host, if *name == "moved" { Some("ctl2".to_owned()) } else { was }, "{} {name}", engine.name());
        }
    }
}

/// The host of a row that was inserted.
fn database_host(row: &Row) -> Option<String> {
    match row.cells.get("host") {
        Some(crate::rows::Cell::Text(host)) => Some(host.clone()),
        _ => None,
    }
}

#[test]
fn the_privileges_of_rehost_sql_suffice_and_without_them_nothing_is_moved() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        retired(&database);
        let before = database.dump();
        let answer = Program::on(database.account(&grants(engine, "repair"))).expect(12, &["repair", "--yes", "--rehost", "ctl2"]);
        assert!(answer.stderr.contains("GRANT UPDATE (host, availability_zone) ON"), "{}", answer.stderr);
        assert_eq!(database.dump(), before);
        let program = Program::on(database.account(&(grants(engine, "repair") + &grants(engine, "rehost"))));
        assert_eq!(rehost(&program, 0, &[])["summary"]["applied"], 3);
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
    }
}
