//! `rescue` in a directory: which backups are found, on every engine, what keeps one from being imported, and the script.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::{POSIX, Placed, Site, age, new_id};
use crate::schemas::{Columns, engines, fresh};

/// A site whose cinder.conf names the driver, so that its storage is known without a row.
fn site() -> Site {
    let site = Site::new();
    let conf = format!("[DEFAULT]\nreport_interval = 1\nbackup_driver = {POSIX}\nbackup_posix_path = {}\n", site.store.root.display());
    fs::write(site.program.path("cinder.conf"), conf).unwrap();
    site
}

/// A backup without a row.
fn lost(site: &Site, parent: Option<&Placed>) -> Placed {
    let volume = parent.map_or_else(new_id, |parent| parent.volume.clone());
    site.store.place(&volume, parent.map(|parent| parent.id.as_str()))
}

fn found<'d>(document: &'d Value, placed: &Placed) -> &'d Value {
    let all = document["backups"].as_array().expect("a list");
    all.iter().find(|one| one["id"] == placed.id.as_str()).unwrap_or_else(|| panic!("no {} in {document:#}", placed.id))
}

fn obstacles(document: &Value, placed: &Placed) -> String {
    let one = found(document, placed);
    assert_eq!(one["backup_url"], Value::Null, "{one:#}");
    one["obstacles"].as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect::<Vec<_>>().join("; ")
}

/// Marks the row of a backup as deleted two hours ago, with a status.
fn delete_row(site: &Site, placed: &Placed, status: &str) {
    let engine = site.database.engine();
    let (deleted, then) = (crate::rows::Cell::Boolean(true).sql(engine), crate::rows::ago(super::TWO_HOURS).sql(engine));
    site.database
        .execute(&format!("UPDATE backups SET deleted = {deleted}, status = '{status}', deleted_at = {then} WHERE id = '{}'", placed.id));
}

#[test]
fn only_whole_backups_without_a_row_are_importable_on_every_engine() {
    for engine in engines() {
        let site = Site::on(engine);
        // Never lost: live ones, whatever the status, and one whose row is deleted.
        let live = site.available();
        site.backup("error", None);
        let deleted = site.available();
        delete_row(&site, &deleted, "deleted");
        // Lost: a chain, an increment on a live one, the parent of a live one.
        let full = lost(&site, None);
        let increment = lost(&site, Some(&full));
        let on_live = lost(&site, Some(&live));
        let parent = lost(&site, None);
        site.backup("available", Some(&parent));
        // Lost, but not whole: half, young, damaged with an increment, without a parent, with objects that another row has.
        lost(&site, None).interrupt();
        age(&lost(&site, None).object(1), 60);
        let damaged = lost(&site, None);
        damaged.damage();
        let on_damaged = lost(&site, Some(&damaged));
        let alone = site.store.place(&new_id(), Some(&new_id()));
        let renamed = lost(&site, None);
        site.database.backup(|row| renamed.row(row).id(new_id()));

        let before = site.database.rows_by_id();
        let document = site.program.json(9, &["rescue"]);
        assert_eq!(crate::database::changes(&before, &site.database.rows_by_id()), []);
        assert_eq!(document["summary"], json!({"importable": 4, "damaged": 3, "refused": 1}), "{}: {document:#}", engine.name());
        for (placed, state, increments) in
            [(&full, None, 1), (&increment, Some("lost"), 0), (&on_live, Some("live"), 0), (&parent, None, 1)]
        {
            let one = found(&document, placed);
            assert_eq!(one["parent"].as_str(), state, "{one:#}");
            assert_eq!(
                (one["verdict"].as_str(), one["level_reached"].as_str(), one["size"].as_u64()),
                (Some("intact"), Some("deep"), Some(1))
            );
            assert_eq!(super::super::rescue::decoded(one["backup_url"].as_str().unwrap())["num_dependent_backups"], increments);
        }
        let place = |placed: &Placed| document["backups"].as_array().unwrap().iter().position(|one| one["id"] == placed.id.as_str());
        assert!(place(&full) < place(&increment));
        assert!(obstacles(&document, &damaged).contains("-00001"));
        assert!(obstacles(&document, &on_damaged).contains(&format!("backup {}, which it is based on, is corrupt", damaged.id)));
        assert!(obstacles(&document, &alone).contains("no longer exists"));
        assert!(obstacles(&document, &renamed).contains("was imported under another id"));
        assert_eq!(document["follow_up"], json!([format!("cinder-backup-repair repair --fix-counters {}", live.id)]));
    }
}

#[test]
fn a_deleted_row_is_imported_over_only_if_its_backup_is_named() {
    let site = site();
    let full = site.available();
    let increment = lost(&site, Some(&full));
    delete_row(&site, &full, "deleted");
    let hidden = site.available();
    delete_row(&site, &hidden, "available");

    let document = site.program.json(9, &["rescue"]);
    assert_eq!(document["backups"].as_array().unwrap().len(), 1);
    assert!(obstacles(&document, &increment).contains(&format!("name {}, too", full.id)));
    let document = site.program.json(0, &["rescue", &increment.id, &full.id]);
    assert_eq!(document["summary"]["importable"], 2, "{document:#}");
    let document = site.program.json(4, &["rescue", &hidden.id]);
    assert!(obstacles(&document, &hidden).contains("has the status available: Cinder imports only over the status deleted"));
    // What a named one is based on belongs to it.
    let (other, alone) = (lost(&site, None), lost(&site, None));
    let on_other = lost(&site, Some(&other));
    let document = site.program.json(0, &["rescue", &on_other.id.to_uppercase()]);
    assert_eq!(document["backups"].as_array().unwrap().iter().map(|one| &one["id"]).collect::<Vec<_>>(), [&other.id, &on_other.id]);
    let live = site.available();
    let answer = site.program.expect(2, &["rescue", &live.id, &alone.id]);
    assert!(answer.stderr.contains("its row is live"), "{}", answer.stderr);
}

#[test]
fn a_backup_that_is_stored_twice_is_refused() {
    let site = site();
    let twice = lost(&site, None);
    let copy = site.store.root.join("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&twice.dir).unwrap().flatten() {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        age(&copy.join(entry.file_name()), 7_200);
    }
    assert!(obstacles(&site.program.json(4, &["rescue"]), &twice).contains("is on the storage twice"));
}

/// Replaces `volume_meta` of a lost backup.
fn describe(placed: &Placed, volume: &Value) {
    let text = json!({"version": 2, "volume-base-metadata": volume}).to_string();
    placed.edit(&placed.metadata(), |file| file.replace("\"volume_meta\": null", &format!("\"volume_meta\": {}", json!(text))));
}

#[test]
fn the_script_imports_parents_first_for_each_project_and_nothing_that_is_uncertain() {
    let site = site();
    let full = lost(&site, None);
    describe(&full, &json!({"size": 1, "project_id": "p-1", "encryption_key_id": null, "volume_type_id": "t"}));
    let increment = lost(&site, Some(&full));
    describe(&increment, &json!({"size": 1, "project_id": "p-1", "encryption_key_id": null}));
    let encrypted = lost(&site, None);
    describe(&encrypted, &json!({"size": 1, "project_id": "p-2", "encryption_key_id": "k"}));
    let hostile = lost(&site, None);
    describe(&hostile, &json!({"size": 1, "project_id": "$(touch hacked)\n", "encryption_key_id": null}));
    hostile.edit(&hostile.metadata(), |file| file.replace("\"backup_name\": null", "\"backup_name\": \"\\ntouch hacked\\n\""));
    let unknown = lost(&site, None);
    let damaged = lost(&site, None);
    damaged.damage();

    let script = site.path("import.sh");
    let document = site.program.json(9, &["rescue", "--commands", &script]);
    assert_eq!(document["summary"], json!({"importable": 5, "damaged": 1, "refused": 0}), "{document:#}");
    let fields = |placed: &Placed| (found(&document, placed)["encrypted"].clone(), found(&document, placed)["derived"].clone());
    assert_eq!(fields(&full), (json!(false), json!(["data_timestamp"])));
    assert_eq!(fields(&encrypted), (json!(true), json!(["data_timestamp"])));
    assert_eq!(fields(&unknown), (Value::Null, json!(["size", "data_timestamp"])));
    let text = fs::read_to_string(&script).unwrap();
    assert!(text.contains("The volume was encrypted."), "{text}");
    // A client that notes its arguments.
    let (bin, notes) = (site.program.path("bin"), site.program.path("notes"));
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("cinder"), format!("#!/bin/sh\necho \"$@\" >> {}\n", notes.display())).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(bin.join("cinder")).status().unwrap().success());
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let run = || Command::new("sh").arg(&script).env("PATH", &path).current_dir(&bin).status().unwrap();
    assert!(run().success(), "{text}");
    assert!(!bin.join("hacked").exists());
    let command = |placed: &Placed| {
        let one = found(&document, placed);
        format!("--os-project-id p-1 backup-import {} {}\n", one["backup_service"].as_str().unwrap(), one["backup_url"].as_str().unwrap())
    };
    assert_eq!(fs::read_to_string(&notes).unwrap(), command(&full) + &command(&increment));
    // A client that fails is noticed, and an old script does nothing.
    fs::write(bin.join("cinder"), "#!/bin/sh\nexit 1\n").unwrap();
    assert_eq!(run().code(), Some(1));
    let old = text.replacen("age=$(($(date +%s) - ", "age=$(($(date +%s) - 86401 - ", 1);
    fs::write(&script, old).unwrap();
    fs::write(bin.join("cinder"), "#!/bin/sh\ntouch ran\n").unwrap();
    assert_eq!(run().code(), Some(1));
    assert!(!bin.join("ran").exists());
}

#[test]
fn the_stream_has_the_records_of_the_document() {
    let site = site();
    let full = lost(&site, None);
    lost(&site, Some(&full));
    let document = site.program.json(0, &["rescue", "--level", "quick"]);
    let answer = site.program.expect(0, &["rescue", "--level", "quick", "-f", "jsonl"]);
    let lines: Vec<Value> = answer.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["head"]["schema"], "cinder-backup-repair/rescue-records");
    assert_eq!(lines[0]["head"]["level"], "quick");
    let records: Vec<&Value> = lines.iter().filter_map(|line| line.get("backup")).collect();
    assert_eq!(records, document["backups"].as_array().unwrap().iter().collect::<Vec<_>>());
    assert_eq!(lines.last().unwrap()["end"]["summary"], document["summary"]);
}

#[test]
fn a_storage_that_cannot_be_read_and_an_old_release_are_reported() {
    let site = site();
    lost(&site, None);
    let document = site.program.json(4, &["rescue", "--storage-path", "/no/such/directory"]);
    assert_eq!((document["backups"].as_array().map(Vec::len), document["unread"].as_array().map(Vec::len)), (Some(0), Some(1)));
    let juno = fresh(site.database.engine(), Columns::Juno);
    let answer = crate::program::Program::on(juno.url()).expect(2, &["rescue"]);
    assert!(answer.stderr.contains("before Liberty"), "{}", answer.stderr);
}
