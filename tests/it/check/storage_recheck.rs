//! The storage recheck: the storage may change between a check and the change that depends on it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use cinder_backup_repair::db::Engine;
use cinder_backup_repair::verify::CheckDocument;
use serde_json::{Value, json};

use super::round_trips::{Counting, Objects, Speaks};
use super::{OBJECTS, Placed, Site, age, result};
use crate::database::changes;
use crate::program::answer;

/// A site with a backup that a check found intact, and the plan that depends on this check.
fn planned(level: &str) -> (Site, Placed, String) {
    let site = Site::on(Engine::Sqlite);
    let placed = site.creating();
    let plan = site.path("plan.json");
    let document = site.program.json(0, &["plan", "--check", level, "--accept-quick", "--out", &plan]);
    assert_eq!(document["units"].as_array().unwrap().len(), 1, "{document:#}");
    (site, placed, plan)
}

/// Runs a plan whose only unit is not changed because the storage has changed; returns the reason.
#[track_caller]
fn refused(site: &Site, args: &[&str]) -> String {
    let before = site.database.rows_by_id();
    let document = site.program.json(4, args);
    assert_eq!(changes(&before, &site.database.rows_by_id()), []);
    assert_eq!(document["units"][0]["outcome"], "changed", "{document:#}");
    document["units"][0]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn writes_after_the_plan_are_detected() {
    let (site, placed, plan) = planned("deep");
    // A second backup, whose objects are unchanged, is repaired in the same run.
    let other = site.creating();
    let both = site.path("both.json");
    site.program.json(0, &["plan", "--check", "quick", "--accept-quick", "--out", &both]);
    let late = placed.object(OBJECTS + 1);
    fs::write(&late, b"more").unwrap();
    age(&late, 1);
    for args in [&["apply", &plan, "--dry-run"] as &[&str], &["apply", &plan, "--yes"]] {
        let reason = refused(&site, args);
        assert!(reason.contains("has changed since it was checked") && reason.contains("an object was written at"), "{reason}");
    }
    assert!(site.log().contains("storage-moved"), "{}", site.log());
    let document = site.program.json(4, &["apply", &both, "--yes"]);
    let unit = |id: &str| document["units"].as_array().unwrap().iter().find(|unit| unit["id"] == id).unwrap();
    let ended = |id: &str| (unit(id)["outcome"].clone(), unit(id)["last_look"]["code"].clone());
    assert_eq!(ended(&placed.id), (json!("changed"), json!("storage-moved")), "{document:#}");
    assert_eq!(ended(&other.id), (json!("applied"), json!("storage-unchanged")), "{document:#}");
    assert_eq!((site.status(&placed), site.status(&other)), ("creating".to_owned(), "available".to_owned()));
    site.program.expect(0, &["history", "verify"]);
    site.program.expect(0, &["history", "reconcile"]);
}

#[test]
fn objects_added_or_removed_without_a_newer_time_are_detected() {
    for number in 0..4 {
        let (site, placed, plan) = planned("quick");
        site.available();
        match number {
            0 => {
                fs::write(placed.object(OBJECTS + 1), b"more").unwrap();
                placed.settle();
                age(&placed.object(OBJECTS + 1), 9_000);
            }
            1 => fs::remove_file(placed.object(3)).unwrap(),
            2 => {
                File::options().write(true).open(placed.object(3)).unwrap().set_len(7).unwrap();
                placed.settle();
            }
            _ => fs::remove_dir_all(&placed.dir).unwrap(),
        }
        let reason = refused(&site, &["apply", &plan, "--yes"]);
        assert!(reason.contains("has changed since it was checked"), "{number} {reason}");
    }
}

#[test]
fn objects_removed_from_parents_are_detected() {
    for number in 0..4 {
        let site = Site::on(Engine::Sqlite);
        let parent = site.available();
        let (child, other) = (site.backup("creating", Some(&parent)), site.backup("creating", Some(&parent)));
        let plan = site.path("plan.json");
        let document = site.program.json(0, &["plan", "--check", "deep", "--out", &plan]);
        assert_eq!(document["units"].as_array().unwrap().len(), 2, "{document:#}");
        match number {
            0 => fs::remove_file(parent.object(3)).unwrap(),
            1 => fs::remove_dir_all(&parent.dir).unwrap(),
            2 => age(&parent.object(3), 60),
            // The parent is unchanged.
            _ => {}
        }
        if number == 3 {
            let document = site.program.json(0, &["apply", &plan, "--yes"]);
            for unit in document["units"].as_array().unwrap() {
                let ended = (&unit["outcome"], &unit["last_look"]["code"]);
                assert_eq!(ended, (&json!("applied"), &json!("storage-unchanged")), "{document:#}");
            }
            continue;
        }
        let reason = refused(&site, &["apply", &plan, "--yes"]);
        assert!(reason.contains("in the backups that it is based on: "), "{number} {reason}");
        assert_eq!((site.status(&child), site.status(&other)), ("creating".to_owned(), "creating".to_owned()));
    }
}

/// A check document as an earlier version sealed it, without later fields.
fn of_an_earlier_version(path: &str, forget: impl Fn(&mut serde_json::Map<String, Value>)) {
    let mut evidence: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    evidence["results"].as_array_mut().unwrap().iter_mut().for_each(|result| forget(result.as_object_mut().unwrap()));
    let mut evidence: CheckDocument = serde_json::from_value(evidence).unwrap();
    evidence.seal();
    fs::write(path, serde_json::to_vec(&evidence).unwrap()).unwrap();
}

#[test]
fn evidence_without_a_listing_never_counts_as_unchanged() {
    for field in ["below", "listing"] {
        let site = Site::new();
        let parent = site.available();
        let child = site.backup("creating", Some(&parent));
        let checked = site.keep(0, "checked.json", &["check", &child.id, "--level", "deep"]);
        of_an_earlier_version(&checked, |result| assert!(result.shift_remove(field).is_some()));
        let document = site.program.json(0, &["repair", "--yes", "--evidence", &checked]);
        let unit = &document["units"][0];
        assert_eq!((&unit["outcome"], &unit["last_look"]["code"]), (&json!("applied"), &json!("storage-not-seen-again")), "{document:#}");
        assert!(site.log().contains("its check has no listing"), "{}", site.log());
    }
}

/// A full backup and an increment on it that is being created, in the container `c` of a server.
fn on_a_server(speaks: Speaks, service: &str) -> (Site, [Placed; 2], Counting) {
    let site = Site::on(Engine::Sqlite);
    let parent = site.available();
    let child = site.backup("creating", Some(&parent));
    let files = [&parent, &child].into_iter().flat_map(|placed| fs::read_dir(&placed.dir).unwrap().flatten());
    let objects: Objects = files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect();
    site.database.execute(&format!("UPDATE backups SET service = '{service}', container = 'c'"));
    let server = Counting::new(speaks, objects);
    configure(&site, &server.url);
    (site, [parent, child], server)
}

fn configure(site: &Site, url: &str) {
    let conf = format!(
        "[DEFAULT]\nreport_interval = 1\nbackup_swift_auth = single_user\nbackup_swift_auth_url = {url}/auth/v1.0\n\
         backup_swift_user = test:tester\nbackup_swift_key = secret\nbackup_s3_endpoint_url = {url}\n\
         backup_s3_store_access_key = a\nbackup_s3_store_secret_key = s\n"
    );
    fs::write(site.path("cinder.conf"), conf).unwrap();
}

const SWIFT: &str = "cinder.backup.drivers.swift.SwiftBackupDriver";
const S3: &str = "cinder.backup.drivers.s3.S3BackupDriver";

#[test]
fn deletions_on_a_server_are_detected() {
    for (speaks, service) in [(Speaks::Swift, SWIFT), (Speaks::S3, S3)] {
        for number in 0..5 {
            let (site, [parent, child], server) = on_a_server(speaks, service);
            let plan = site.path("plan.json");
            let checked = site.keep(0, "checked.json", &["check", &child.id, "--level", "deep"]);
            site.program.json(0, &["plan", "--evidence", &checked, "--out", &plan]);
            let lose = |of: &str| server.objects.lock().unwrap().retain(|name, _| !name.contains(of));
            match number {
                0 => server.objects.lock().unwrap().clear(),
                1 => lose(&child.id),
                2 => lose(&parent.id),
                // With another address of the same server.
                3 => {
                    configure(&site, &server.url.replace("127.0.0.1", "localhost"));
                    lose(&child.id);
                }
                _ => {
                    configure(&site, &server.url.replace("127.0.0.1", "localhost"));
                    lose(&parent.id);
                }
            }
            let reason = refused(&site, &["apply", &plan, "--yes"]);
            assert!(reason.contains("has changed since it was checked"), "{speaks:?} {number} {reason}");
            assert_eq!(site.status(&child), "creating", "{speaks:?} {number}");
        }
        let (site, [_, child], _server) = on_a_server(speaks, service);
        let document = site.program.json(0, &["repair", "--check", "deep", "--yes", &child.id]);
        assert_eq!(document["units"][0]["last_look"]["code"], "storage-unchanged", "{speaks:?} {document:#}");
    }
}

#[test]
fn evidence_of_an_earlier_version_matches_its_container_by_url() {
    for is_gone in [false, true] {
        let (site, [parent, child], server) = on_a_server(Speaks::Swift, SWIFT);
        let checked = site.keep(0, "checked.json", &["check", "--all", "--level", "deep"]);
        let document: Value = serde_json::from_str(&fs::read_to_string(&checked).unwrap()).unwrap();
        for placed in [&parent, &child] {
            let location = format!("Swift container c, by {}/auth/v1.0", server.url);
            assert_eq!(result(&document, &placed.id)["location"], location.as_str(), "{document:#}");
        }
        let url = format!("{}/v1/AUTH_test/c", server.url);
        of_an_earlier_version(&checked, |result| assert!(result.insert("location".to_owned(), json!(url)).is_some()));
        let again = site.program.json(0, &["check", "--all", "--level", "deep", "--resume", &checked]);
        assert_eq!(again["summary"]["carried"], 2, "{again:#}");
        if is_gone {
            server.objects.lock().unwrap().clear();
            let reason = refused(&site, &["repair", "--yes", &child.id, "--evidence", &checked]);
            assert!(reason.contains("has changed since it was checked"), "{reason}");
        } else {
            let document = site.program.json(0, &["repair", "--yes", &child.id, "--evidence", &checked]);
            assert_eq!(document["units"][0]["last_look"]["code"], "storage-unchanged", "{document:#}");
        }
    }
}

/// Commands of a cluster with one complete full backup of an RBD volume, except for the parts that a file names.
const CLUSTER: &str = r#"#!/bin/sh
gone="$(cat "$(dirname "$0")/gone" 2>/dev/null)"
nothing() { echo "error opening $1: (2) No such file or directory" >&2; exit 2; }
case "$*" in
*backup.base*) nothing image;;
*" stat "*) echo 'backups/backup.ID.meta mtime 2026-11-22T10:00:01.000000+0000, size 40'; exit;;
*" get "*) echo '{"version": 2, "volume-base-metadata": {"id": "VOLUME"}}'; exit;;
esac
[ "$gone" = image ] && nothing image
case "$*" in
info*) echo '{"size":1073741824,"object_size":4194304,"block_name_prefix":"rbd_data.1","features":["fast-diff"],"flags":[]}';;
snap*) if [ "$gone" = snapshot ]; then echo '[]'; else
    echo '[{"id":4,"name":"backup.ID.snap.1.5","size":1073741824,"timestamp":"Sun Nov 22 10:00:00 2026"}]'; fi;;
status*) echo '{"watchers":[]}';;
lock*|diff*from-snap*) echo '[]';;
diff*whole-object*) echo '[{"offset":0,"length":4194304,"exists":"true"}]';;
diff*) if [ "$gone" = data ]; then echo '[]'; else echo '[{"offset":0,"length":5,"exists":"true"}]'; fi;;
esac
"#;

#[test]
fn parts_removed_in_ceph_are_detected_although_the_metadata_stays() {
    for gone in ["image", "snapshot", "data", ""] {
        let site = Site::on(Engine::Sqlite);
        site.database.execute("UPDATE services SET updated_at = '2026-01-01 00:00:00.000000'");
        let placed = site.creating();
        site.database.execute(&format!(
            "UPDATE backups SET service = 'cinder.backup.drivers.ceph.CephBackupDriver', container = 'backups', service_metadata = NULL \
             WHERE id = '{}'",
            placed.id
        ));
        let tools = site.program.path("bin");
        fs::create_dir(&tools).unwrap();
        for tool in ["rbd", "rados"] {
            fs::write(tools.join(tool), CLUSTER.replace("ID", &placed.id).replace("VOLUME", &placed.volume)).unwrap();
            fs::set_permissions(tools.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let run = |args: &[&str]| {
            let mut command = site.program.command(&[args, &["-f", "json"]].concat());
            answer(command.env("PATH", format!("{}:/usr/bin:/bin", tools.display())))
        };
        let plan = site.path("plan.json");
        let planned = run(&["plan", "--check", "quick", "--accept-quick", "--out", &plan]);
        assert_eq!(planned.code, Some(0), "{}", planned.stderr);
        fs::write(tools.join("gone"), gone).unwrap();
        let applied = run(&["apply", &plan, "--yes"]);
        let unit = &applied.json()["units"][0];
        let (outcome, code, status) =
            if gone.is_empty() { ("applied", "storage-unchanged", "available") } else { ("changed", "storage-moved", "creating") };
        assert_eq!((&unit["outcome"], &unit["last_look"]["code"]), (&json!(outcome), &json!(code)), "{gone}: {unit:#}");
        assert_eq!(site.status(&placed), status, "{gone}");
    }
}

#[test]
fn unchanged_backups_are_applied_and_recorded() {
    let (site, placed, plan) = planned("quick");
    let answer = site.program.expect(0, &["apply", &plan, "--yes"]);
    assert_eq!(site.status(&placed), "available");
    let warnings: Vec<&str> = answer.stderr.lines().filter(|line| line.starts_with("warning")).collect();
    assert_eq!(warnings, ["warning: the plan was made with --accept-quick"]);
    assert!(site.log().contains("\"storage-unchanged\""), "{}", site.log());
}

#[test]
fn a_run_that_ends_because_of_unusable_storage_options_is_recorded() {
    let (site, placed, plan) = planned("deep");
    site.program.expect(2, &["apply", &plan, "--yes", "--storage-option", "bad"]);
    let list = site.program.json(0, &["history", "list"]);
    let run = &list["runs"][0];
    assert_eq!((&run["summary"]["not_begun"], &run["intents"]), (&json!(1), &json!(0)), "{list:#}");
    assert!(run["state"].as_str().unwrap().starts_with("ended early: --storage-option"), "{list:#}");
    // Nothing was changed, so the plan can still be applied.
    site.program.json(0, &["apply", &plan, "--yes"]);
    assert_eq!(site.status(&placed), "available");
    // An applied plan is refused as applied, even with unusable options.
    site.program.expect(5, &["apply", &plan, "--yes", "--storage-option", "bad"]);
}

#[test]
fn an_unreachable_storage_is_reported_and_recorded() {
    // The plan was made on a host that sees the storage, or from evidence of such a host.
    let away = |site: &Site| fs::rename(&site.store.root, site.store.root.with_extension("away")).unwrap();
    let (site, placed, _) = planned("deep");
    let second = site.creating();
    let both = site.path("both.json");
    site.program.json(0, &["plan", "--check", "quick", "--accept-quick", "--out", &both]);
    away(&site);
    let answer = site.program.expect(0, &["apply", &both, "--yes"]);
    let warnings: Vec<&str> = answer.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(
        matches!(warnings[..], [_, one] if one.contains("the storage of 2 backups could not be checked again just before the change")),
        "{}",
        answer.stderr
    );
    assert_eq!((site.status(&placed), site.status(&second)), ("available".to_owned(), "available".to_owned()));
    let log = site.log();
    assert!(log.contains("\"storage-not-seen-again\"") && log.contains("check that the file system is mounted"), "{log}");

    let site = Site::new();
    let placed = site.creating();
    let stuck = site.keep(0, "stuck.json", &["scan"]);
    let looked = answer_of(&site, &["--from", &stuck, "--level", "deep", "-f", "json"]);
    assert!(looked["results"][0]["host"].is_string() && looked["results"][0]["listing"]["objects"] == json!(OBJECTS + 2), "{looked:#}");
    let checked = site.path("checked.json");
    fs::write(&checked, serde_json::to_vec(&looked).unwrap()).unwrap();
    away(&site);
    let document = site.program.json(0, &["repair", "--yes", "--evidence", &checked]);
    let unit = &document["units"][0];
    assert_eq!((&unit["outcome"], &unit["last_look"]["code"]), (&json!("applied"), &json!("storage-not-seen-again")), "{document:#}");
    assert_eq!(site.status(&placed), "available");
}

#[track_caller]
fn answer_of(site: &Site, args: &[&str]) -> Value {
    let answer = answer(&mut site.elsewhere(args));
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    answer.json()
}
