//! `repair --to deleted`: a deletion is finished as Cinder would have finished it, and only once nothing of the backup is on the storage.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::round_trips::{self, Speaks};
use super::{Placed, Site};
use crate::cinder;
use crate::database::{Cells, Change, Database, RowKey, changes};
use crate::population::GONE;
use crate::program::Program;
use crate::rows::ago;
use crate::schemas::{Columns, engines, fresh};

/// Cinder considers neither age nor heartbeat, so the program must not either.
const LIKE_CINDER: [&str; 6] = ["--service-down-time", "2s", "--older-than", "0s", "--assume-dead", "all"];

/// Differences in what is not a time of a change.
fn differences(before: &BTreeMap<RowKey, Cells>, after: &BTreeMap<RowKey, Cells>) -> Vec<Change> {
    changes(before, after).into_iter().filter(|change| !matches!(change.column.as_str(), "updated_at" | "deleted_at")).collect()
}

fn quota(database: &Database, resource: &str) -> String {
    database.value(&format!("SELECT in_use FROM quota_usages WHERE resource = '{resource}'")).unwrap()
}

/// A full backup whose increment is being deleted, and two other backups that are; their quota is 12 backups of 100 GiB.
fn deleting(database: &Database) -> [String; 3] {
    database.quota_usage("backups", 12, |row| row);
    database.quota_usage("backup_gigabytes", 100, |row| row);
    let full = database.backup(|row| row.host(GONE).size(4).num_dependent_backups(1));
    let increment = database.backup(|row| row.host(GONE).status("deleting").size(3).parent_id(&full));
    let others = [2, 5].map(|size| database.backup(|row| row.host(GONE).status("deleting").size(size)));
    for (number, backup) in [&full, &increment, &increment, &others[0]].into_iter().enumerate() {
        let deleted = if database.engine() == cinder_backup_repair::db::Engine::Postgresql { "FALSE" } else { "0" };
        database.execute(&format!(
            "INSERT INTO backup_metadata (backup_id, {}, {}, deleted) VALUES ('{backup}', 'k{number}', 'v', {deleted})",
            database.identifier("key"),
            database.identifier("value"),
        ));
    }
    let [one, two] = others;
    [increment, one, two]
}

fn repair(program: &Program, code: i32, args: &[&str]) -> Value {
    program.json(code, &[&["repair", "--yes", "--to", "deleted"], &LIKE_CINDER as &[&str], args].concat())
}

#[test]
fn a_deletion_leaves_the_rows_as_cinders_own_does_and_undo_restores_them() {
    for engine in engines() {
        let origin = fresh(engine, Columns::Full);
        let backups = deleting(&origin);
        let (theirs, ours) = (origin.copy(), origin.copy());
        theirs.disconnect();
        let cleanup = cinder::clean_up(&theirs.url(), &[GONE]);
        assert_eq!(cleanup.problems, [] as [String; 0]);
        let program = Program::on(ours.url());
        let document = repair(&program, 0, &["--allow-unverified"]);
        assert_eq!(document["summary"]["applied"], 3, "{document:#}");

        let (before, after) = (origin.rows_by_id(), ours.rows_by_id());
        assert_eq!(differences(&theirs.rows_by_id(), &after), [], "{}", engine.name());
        let is_deleted = |key: &RowKey| after[key]["deleted"].as_deref() == Some("1") && after[key]["deleted_at"].is_some();
        for backup in &backups {
            let key = ("backups".to_owned(), backup.clone());
            assert!(is_deleted(&key), "{} {:?}", engine.name(), after[&key]);
            assert_eq!(after[&key]["updated_at"], before[&key]["updated_at"], "Cinder leaves it, too");
        }
        assert_eq!(after.keys().filter(|key| key.0 == "backup_metadata" && is_deleted(key)).count(), 3);
        assert_eq!((quota(&ours, "backups").as_str(), quota(&ours, "backup_gigabytes").as_str()), ("9", "90"));

        // Since then the project has made backups: what they use stays counted.
        ours.execute("UPDATE quota_usages SET in_use = in_use + 7");
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        assert_eq!((quota(&ours, "backups").as_str(), quota(&ours, "backup_gigabytes").as_str()), ("19", "107"));
        ours.execute("UPDATE quota_usages SET in_use = in_use - 7");
        assert_eq!(differences(&before, &ours.rows_by_id()), [], "{}", engine.name());
        let left = ours.rows_by_id().into_iter().filter(|(_, cells)| cells.get("deleted_at").is_some_and(Option::is_some)).count();
        assert_eq!(left, before.values().filter(|cells| cells.get("deleted_at").is_some_and(Option::is_some)).count());
    }
}

#[test]
fn the_quota_stays_if_it_is_to_or_if_a_reservation_is_open() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        deleting(&database);
        let now = crate::rows::ago(-600).sql(engine);
        let deleted = crate::rows::Cell::Boolean(false).sql(engine);
        database.execute(&format!(
            "INSERT INTO reservations (uuid, usage_id, project_id, resource, delta, expire, deleted) \
             SELECT 'r', id, project_id, resource, 1, {now}, {deleted} FROM quota_usages WHERE resource = 'backups'"
        ));
        let program = Program::on(database.url());
        let before = database.rows_by_id();
        let document = repair(&program, 6, &["--allow-unverified"]);
        assert!(document["refused"][0]["reason"].as_str().unwrap().contains("1 open reservation"), "{document:#}");
        assert_eq!(changes(&before, &database.rows_by_id()), []);
        let document = repair(&program, 0, &["--allow-unverified", "--no-quota"]);
        assert_eq!(document["summary"]["applied"], 3, "{document:#}");
        assert_eq!((quota(&database, "backups").as_str(), quota(&database, "backup_gigabytes").as_str()), ("12", "100"));
    }
}

fn reason(site: &Site, placed: &Placed, args: &[&str]) -> String {
    let before = site.database.rows_by_id();
    let document = site.program.json(6, &[&["repair", "--yes", "--to", "deleted", "--assume-dead", "all", &placed.id], args].concat());
    assert_eq!(changes(&before, &site.database.rows_by_id()), [], "{args:?}");
    document["refused"][0]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_backup_becomes_deleted_only_if_nothing_of_it_is_on_the_storage() {
    for engine in engines() {
        let site = Site::on(engine);
        site.silence();
        let placed = site.backup("deleting", None);
        assert!(reason(&site, &placed, &[]).contains("use --check quick"));
        let quick = ["--check", "quick"];
        assert!(reason(&site, &placed, &quick).contains("part of it is still on the storage"));
        // One object is left.
        for path in [placed.metadata(), placed.sha256file(), placed.object(1)] {
            fs::remove_file(path).unwrap();
        }
        assert!(reason(&site, &placed, &quick).contains("part of it is still on the storage"));
        placed.empty();
        // No other backup is in the database, or none that is available.
        assert!(reason(&site, &placed, &quick).contains("no available backup of its host is recorded in the same place"));
        let witness = site.backup("error", None);
        assert!(reason(&site, &placed, &quick).contains("no available backup of its host is recorded in the same place"));
        site.database.execute(&format!("UPDATE backups SET status = 'available' WHERE id = '{}'", witness.id));
        // It is of another host.
        site.database.execute(&format!("UPDATE backups SET host = 'ctl2' WHERE id = '{}'", witness.id));
        assert!(reason(&site, &placed, &quick).contains("no available backup of its host is recorded in the same place"));
        site.database.execute(&format!("UPDATE backups SET host = 'ctl1' WHERE id = '{}'", witness.id));
        // It is not found.
        let away = witness.dir.with_extension("away");
        fs::rename(&witness.dir, &away).unwrap();
        let why = reason(&site, &placed, &quick);
        assert!(why.contains(&format!("nothing of the available backup {} was found either", witness.id)), "{why}");
        fs::rename(&away, &witness.dir).unwrap();
        // It is the only one that is left, so it is enough that it is younger, unless the directory is gone.
        let two_days = ago(48 * 3_600).sql(engine);
        site.database.execute(&format!("UPDATE backups SET created_at = {two_days} WHERE id = '{}'", placed.id));
        fs::remove_dir(&placed.dir).unwrap();
        assert!(reason(&site, &placed, &quick).contains("no older available backup of its host is recorded in the same place"));
        fs::create_dir(&placed.dir).unwrap();
        finish(&site, &placed);
        assert!(site.log().contains(&format!("backup {} was found there", witness.id)), "{}", site.log());
        assert_eq!(site.status(&placed), "deleted");
        // An older one shows that the directory was removed.
        let removed = site.backup("deleting", None);
        fs::remove_dir_all(&removed.dir).unwrap();
        finish(&site, &removed);
        assert_eq!(site.status(&removed), "deleted");
    }
}

fn finish(site: &Site, placed: &Placed) {
    let document = site.program.json(0, &["repair", "--yes", "--to", "deleted", "--assume-dead", "all", &placed.id, "--check", "quick"]);
    assert_eq!(document["units"][0]["outcome"], "applied", "{document:#}");
}

#[test]
fn a_directory_that_is_not_mounted_deletes_nothing() {
    let site = Site::new();
    site.silence();
    let (placed, _) = (site.backup("deleting", None), site.available());
    let plan = site.path("plan.json");
    placed.empty();
    site.program.expect(0, &["plan", "--to", "deleted", "--check", "quick", "--out", &plan]);
    let mounted = site.store.root.with_extension("mounted");
    fs::rename(&site.store.root, &mounted).unwrap();
    fs::create_dir(&site.store.root).unwrap();
    let quick = ["--check", "quick"];
    assert!(reason(&site, &placed, &quick).contains("is empty; check that the file system is mounted"));
    // The mount point holds what was written while nothing was mounted.
    fs::create_dir_all(&placed.dir).unwrap();
    assert!(reason(&site, &placed, &quick).contains("may be another storage, or one that is not mounted"));
    // The plan was made while it was mounted.
    let document = site.program.json(4, &["apply", &plan, "--yes"]);
    let why = document["units"][0]["reason"].as_str().unwrap();
    assert!(why.contains("is no longer found in the same place"), "{document:#}");
    fs::remove_dir_all(&site.store.root).unwrap();
    fs::rename(&mounted, &site.store.root).unwrap();
    let document = site.program.json(0, &["apply", &plan, "--yes"]);
    assert_eq!(document["units"][0]["outcome"], "applied", "{document:#}");
}

#[test]
fn a_witness_that_is_deleted_meanwhile_does_not_count() {
    let site = Site::new();
    site.silence();
    let (placed, witness) = (site.backup("deleting", None), site.available());
    placed.empty();
    let plan = site.path("plan.json");
    site.program.expect(0, &["plan", "--to", "deleted", "--check", "quick", "--out", &plan]);
    site.database.execute(&format!("UPDATE backups SET deleted = 1, status = 'deleted' WHERE id = '{}'", witness.id));
    let document = site.program.json(4, &["apply", &plan, "--yes"]);
    assert!(document["units"][0]["reason"].as_str().unwrap().contains("is no longer live"), "{document:#}");
}

#[test]
fn another_account_with_a_container_of_the_same_name_deletes_nothing() {
    for (speaks, service) in [
        (Speaks::Swift, "cinder.backup.drivers.swift.SwiftBackupDriver"),
        (Speaks::S3, "cinder.backup.drivers.s3.S3BackupDriver"),
        (Speaks::Google, "cinder.backup.drivers.gcs.GoogleBackupDriver"),
    ] {
        let (site, server) = round_trips::site(speaks, service, 2);
        site.silence();
        let id = site.database.value("SELECT MIN(id) FROM backups").unwrap();
        site.database.execute(&format!("UPDATE backups SET status = 'deleting' WHERE id = '{id}'"));
        let objects = std::mem::take(&mut *server.objects.lock().unwrap());
        let args = ["repair", "--yes", "--to", "deleted", "--check", "quick", "--gcs-endpoint", &server.url];
        let before = site.database.rows_by_id();
        let document = site.program.json(6, &args);
        assert_eq!(changes(&before, &site.database.rows_by_id()), [], "{speaks:?}");
        let why = document["refused"].to_string();
        assert!(why.contains("may be another storage"), "{speaks:?} {document:#}");
        let others = objects.into_iter().filter(|(name, _)| !name.contains(&id));
        server.objects.lock().unwrap().extend(others);
        let document = site.program.json(0, &args);
        assert_eq!(document["units"][0]["outcome"], "applied", "{speaks:?} {document:#}");
        assert_eq!(site.database.cell("backups", &id, "status").as_deref(), Some("deleted"), "{speaks:?}");
    }
}

#[test]
fn evidence_from_another_host_is_checked_again() {
    let site = Site::new();
    site.silence();
    let (placed, _) = (site.backup("deleting", None), site.available());
    placed.empty();
    let evidence = site.keep(9, "evidence.json", &["check", &placed.id]);
    assert!(reason(&site, &placed, &["--evidence", &evidence]).contains("use --check quick"));
    let deep = site.keep(9, "deep.json", &["check", &placed.id, "--level", "deep"]);
    let args = ["repair", "--yes", "--to", "deleted", "--evidence", &deep, "--check", "quick"];
    assert_eq!(site.program.json(0, &args)["units"][0]["outcome"], "applied");
}

#[test]
fn a_backup_with_an_increment_is_never_deleted() {
    let site = Site::new();
    site.silence();
    let full = site.backup("deleting", None);
    site.backup("available", Some(&full));
    let why = reason(&site, &full, &["--allow-unverified"]);
    assert!(why.contains("other live backups are based on it"), "{why}");
}

#[test]
fn objects_that_appear_after_the_check_stop_it() {
    let site = Site::new();
    site.silence();
    let (placed, _) = (site.backup("deleting", None), site.available());
    let kept: Vec<_> = fs::read_dir(&placed.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let bytes = fs::read(&kept[0]).unwrap();
    kept.iter().for_each(|path| fs::remove_file(path).unwrap());
    let plan = site.path("plan.json");
    site.program.expect(0, &["plan", "--to", "deleted", "--check", "quick", "--out", &plan]);
    fs::write(&kept[0], bytes).unwrap();
    let document = site.program.json(4, &["apply", &plan, "--yes"]);
    assert_eq!(document["units"][0]["outcome"], "changed", "{document:#}");
    assert_eq!(site.status(&placed), "deleting");
}

#[test]
fn a_backup_that_was_deleted_since_its_repair_is_gone() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let backup = database.backup(|row| row.host(GONE).status("deleting"));
        let program = Program::on(database.url());
        program.expect(0, &[&["repair", "--yes"], &LIKE_CINDER as &[&str]].concat());
        let state = || program.json(0, &["history", "reconcile"])["units"][0]["state"].clone();
        assert_eq!(state(), "kept");
        let deleted = crate::rows::Cell::Boolean(true).sql(engine);
        database.execute(&format!("UPDATE backups SET deleted = {deleted}, status = 'deleted' WHERE id = '{backup}'"));
        assert_eq!(state(), "gone");
        let document = program.json(4, &["undo", &program.last_run(), "--yes"]);
        assert_eq!(document["units"][0]["outcome"], "changed", "{document:#}");
    }
}
