//! How a check of the storage changes the verdict and the proposal for a backup.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use cinder_backup_repair::plan::Plan;
use cinder_backup_repair::spool::Spool;
use serde_json::{Value, json};

use super::{CHANGED, OBJECTS, Placed, Site, TWO_HOURS, problems, result};
use crate::database::changes;
use crate::library::units;
use crate::program::{answer, codes, finding};
use crate::scenarios::essence;
use crate::schemas::engines;
use crate::servers::is_root;

/// The reason why a named backup is not changed.
#[track_caller]
fn refusal(site: &Site, args: &[&str], placed: &Placed) -> String {
    let before = site.database.rows_by_id();
    let document = site.program.json(6, &[&["repair", "--yes", &placed.id], args].concat());
    assert_eq!(changes(&before, &site.database.rows_by_id()), [], "{args:?}");
    document["refused"][0]["reason"].as_str().unwrap_or_else(|| panic!("{args:?} {document:#}")).to_owned()
}

/// Repairs everything that is stuck; returns the changes and the document.
#[track_caller]
fn repair(site: &Site, code: i32, args: &[&str]) -> (Vec<String>, Value) {
    let before = site.database.rows_by_id();
    let document = site.program.json(code, &[&["repair", "--yes"], args].concat());
    (essence(changes(&before, &site.database.rows_by_id())), document)
}

/// While a service sends heartbeats, storage alone does not prove that it stopped: an increment may read unchanged blocks for a long time
/// and write nothing.
#[test]
fn with_a_live_service_a_check_only_makes_backups_available() {
    for engine in engines() {
        let site = Site::on(engine);
        let whole = site.creating();
        let broken_off = site.creating();
        broken_off.interrupt();
        let without_metadata = site.creating();
        fs::remove_file(without_metadata.metadata()).unwrap();
        let damaged = site.creating();
        damaged.damage();
        let scanned = site.program.json(0, &["scan"]);
        for placed in [&whole, &broken_off, &without_metadata, &damaged] {
            assert_eq!(finding(&scanned, &placed.id)["verdict"], "uncertain", "{scanned:#}");
        }
        // Its newest object is 16 minutes old, one more than --settle.
        for number in [1, 2] {
            super::age(&broken_off.object(number), 16 * 60);
        }
        for flags in [&["--check", "quick"] as &[&str], &["--check", "deep"], &["--check", "quick", "--to", "error"]] {
            let reason = refusal(&site, flags, &broken_off);
            assert!(reason.starts_with("uncertain: cinder-backup on ctl1 is up"), "{flags:?} {reason}");
        }
        for flags in [&["--to", "available", "--allow-unverified"] as &[&str], &["--check", "deep", "--to", "error"]] {
            assert_eq!(repair(&site, 0, flags).0, [] as [String; 0], "{flags:?}");
        }
        let plan = site.path("plan.json");
        let planned = site.program.json(0, &["plan", "--check", "deep", "--out", &plan]);
        assert_eq!(codes(&planned["units"][0])[0], "storage-complete", "{planned:#}");
        let before = site.database.rows_by_id();
        let applied = site.program.expect(0, &["apply", &plan, "--yes"]);
        assert!(!applied.stderr.contains("Waiting "), "no heartbeat wait is needed: {}", applied.stderr);
        let done = essence(changes(&before, &site.database.rows_by_id()));
        let available = |placed: &Placed| {
            [
                format!("backups.{}.object_count: 0 -> {OBJECTS}", placed.id),
                format!("backups.{}.status: creating -> available", placed.id),
                format!("volumes.{}.status: backing-up -> available", placed.volume),
            ]
        };
        assert_eq!(done, available(&whole));

        // With --assume-dead the other backups are repaired, too.
        let (done, document) = repair(&site, 0, &["--check", "deep", "--assume-dead", "ctl1"]);
        let mut expected = Vec::new();
        for placed in [&broken_off, &without_metadata, &damaged] {
            expected.push(format!("backups.{}.status: creating -> error", placed.id));
            expected.push(format!("volumes.{}.status: backing-up -> available", placed.volume));
        }
        expected.sort();
        assert_eq!(done, expected, "{document:#}");
        for (placed, why) in [(&broken_off, "its data is incomplete"), (&without_metadata, "incomplete"), (&damaged, "its data is corrupt")]
        {
            let reason = site.database.cell("backups", &placed.id, "fail_reason").unwrap();
            assert!(reason.contains(why), "{reason}");
        }
        site.program.expect(0, &["history", "verify"]);
    }
}

/// An earlier version treated a service as down if its objects were old. Its plans are refused.
#[test]
fn a_plan_that_depends_on_quiet_storage_is_refused() {
    let site = Site::new();
    let broken_off = site.creating();
    broken_off.interrupt();
    let plan = site.path("plan.json");
    site.silence();
    site.program.json(0, &["plan", "--check", "quick", "--out", &plan]);
    site.database.execute("UPDATE services SET updated_at = '2099-01-01 00:00:00.000000'");
    let mut old = Plan::parse(&fs::read(&plan).unwrap()).unwrap();
    let mut units = units(&old);
    units[0].evidence[0] = serde_json::from_value(json!({ "code": "storage-quiet", "text": "it was begun and is quiet" })).unwrap();
    old.heartbeats.insert("ctl1".into(), Some("2099-01-01T00:00:00Z".into()));
    old.units = Spool::of(units).unwrap();
    old.seal();
    fs::write(&plan, serde_json::to_string(&old).unwrap()).unwrap();
    let before = site.database.rows_by_id();
    let applied = site.program.json(4, &["apply", &plan, "--yes"]);
    assert_eq!(applied["units"][0]["outcome"], "refused", "{applied:#}");
    assert!(applied["units"][0]["reason"].as_str().unwrap().contains("cinder-backup on ctl1 is up"), "{applied:#}");
    assert_eq!(changes(&before, &site.database.rows_by_id()), []);
}

#[test]
fn a_quick_check_is_enough_only_with_accept_quick() {
    let site = Site::new();
    let corrupt = site.creating();
    corrupt.damage();
    let broken_off = site.creating();
    broken_off.interrupt();
    for flags in [&["--check", "quick"] as &[&str], &["--check", "quick", "--to", "available"]] {
        let reason = refusal(&site, flags, &corrupt);
        assert!(reason.contains("--check deep") && reason.contains("--accept-quick"), "{reason}");
    }
    // The same with a silent service. There, a backup that a quick check finds damaged is set to `error`.
    site.silence();
    let (done, document) = repair(&site, 4, &["--check", "quick"]);
    assert_eq!(done.len(), 2, "{done:?}");
    assert!(done.contains(&format!("backups.{}.status: creating -> error", broken_off.id)), "{done:?}");
    assert!(document["refused"][0]["reason"].as_str().unwrap().contains("--accept-quick"), "{document:#}");
    let plan = site.path("plan.json");
    let args = ["plan", "--check", "quick", "--accept-quick", "--out", &plan, "-f", "json"];
    let answer = site.program.expect(0, &args);
    let warning = "warning: 1 backup becomes available on a quick check alone, which reads none of its data (--accept-quick)";
    assert!(answer.stderr.contains(warning), "{}", answer.stderr);
    let unit = &answer.json()["units"][0];
    assert!(codes(unit).contains(&"accepted-quick"), "{unit:#}");
    let kept: Value = serde_json::from_str(&fs::read_to_string(&plan).unwrap()).unwrap();
    assert_eq!(kept["policy"]["accept_quick"], true);
    let answer = site.program.expect(0, &["apply", &plan, "--yes"]);
    assert!(answer.stderr.contains("warning: the plan was made with --accept-quick"), "{}", answer.stderr);
    assert_eq!(site.status(&corrupt), "available");
    assert_eq!(site.database.cell("backups", &corrupt.id, "fail_reason"), None);
    assert!(site.log().contains("\"accept_quick\":true"), "the log names the flag: {}", site.log());
    // It does not apply to a backup in `error`.
    site.program.expect(0, &["undo", &site.program.last_run(), "--yes"]);
    site.database.execute("UPDATE backups SET status = 'error'");
    let reason = refusal(&site, &["--status", "error", "--check", "quick", "--accept-quick", "--older-than", "0s"], &corrupt);
    assert!(reason.contains("use --check deep to make it available"), "{reason}");
}

#[test]
fn a_quick_check_does_not_find_damaged_data() {
    let site = Site::new();
    let damaged = site.creating();
    damaged.damage();
    let check = |level: &str, code: i32| {
        let document = site.program.json(code, &["check", &damaged.id, "--level", level]);
        result(&document, &damaged.id).clone()
    };
    assert_eq!(check("quick", 0)["verdict"], "intact");
    for level in ["deep", "restore"] {
        let found = check(level, 9);
        assert_eq!(found["verdict"], "corrupt", "{found:#}");
        assert_eq!(found["problems"][0]["object"], format!("{}-00001", damaged.prefix()));
        assert_eq!(found["object_count"], Value::Null);
    }
}

#[test]
fn a_backup_that_is_being_written_is_never_changed() {
    let site = Site::new();
    let fresh = site.creating();
    File::options().write(true).open(fresh.object(7)).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let dead = site.creating();
    site.database.execute(&format!("UPDATE backups SET host = 'retired' WHERE id = '{}'", dead.id));
    fs::remove_file(dead.metadata()).unwrap();
    File::options().write(true).open(dead.object(16)).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let document = site.program.json(9, &["check"]);
    assert_eq!((&result(&document, &fresh.id)["busy"], &result(&document, &dead.id)["busy"]), (&json!(true), &json!(true)));
    assert_eq!(document["summary"]["busy"], 2, "{document:#}");
    let checked = site.keep(9, "checked.json", &["check"]);
    for look in [&["--check", "quick"] as &[&str], &["--evidence", &checked]] {
        for flags in [
            &[] as &[&str],
            &["--assume-dead", "all"],
            &["--assume-dead", "all", "--to", "error"],
            &["--assume-dead", "all", "--to", "available", "--allow-unverified"],
        ] {
            let args = [look, flags].concat();
            let (done, document) = repair(&site, 0, &args);
            assert_eq!((done, &document["units"]), (Vec::new(), &json!([])), "{args:?} {document:#}");
            for placed in [&fresh, &dead] {
                assert!(refusal(&site, &args, placed).starts_with("busy: it is being written"), "{args:?}");
            }
        }
    }
    // A shorter --settle accepts younger objects.
    fresh.settle();
    dead.settle();
    age_of(&fresh, 120);
    assert!(refusal(&site, &["--check", "quick"], &fresh).starts_with("busy"));
    let (done, _) = repair(&site, 0, &["--check", "quick", "--accept-quick", "--settle", "1m"]);
    assert!(done.contains(&format!("backups.{}.status: creating -> available", fresh.id)), "{done:?}");
    assert!(done.contains(&format!("backups.{}.status: creating -> error", dead.id)), "{done:?}");
}

fn age_of(placed: &Placed, seconds: u64) {
    super::age(&placed.object(2), seconds);
}

#[test]
fn a_backup_that_never_began_may_wait_in_a_queue() {
    let site = Site::new();
    let unborn = site.creating();
    fs::remove_dir_all(&unborn.dir).unwrap();
    let unnamed = site.creating();
    fs::remove_dir_all(&unnamed.dir).unwrap();
    site.database.execute(&format!("UPDATE backups SET container = NULL, service_metadata = NULL WHERE id = '{}'", unnamed.id));
    let undriven = site.database.backup(|row| row.status("creating").service(None::<&str>).host("ctl1").age(TWO_HOURS));
    // There must be another backup, because an empty root is treated as not mounted.
    site.available();
    let document = site.program.json(9, &["check", "--level", "quick"]);
    for id in [&unborn.id, &unnamed.id, &undriven] {
        let found = result(&document, id);
        assert_eq!((&found["verdict"], &found["begun"]), (&json!("missing"), &json!(false)), "{found:#}");
    }
    let (done, _) = repair(&site, 0, &["--check", "deep"]);
    assert_eq!(done, [] as [String; 0]);
    assert!(refusal(&site, &["--check", "deep"], &unborn).starts_with("uncertain: "), "it may be in the queue");
    let (done, _) = repair(&site, 0, &["--check", "deep", "--assume-dead", "ctl1"]);
    assert!(done.contains(&format!("backups.{}.status: creating -> error", unborn.id)), "{done:?}");
    assert!(done.contains(&format!("backups.{}.status: creating -> error", unnamed.id)), "{done:?}");
    assert!(done.contains(&format!("backups.{undriven}.status: creating -> error")), "{done:?}");
}

#[test]
fn an_unverifiable_backup_is_changed_only_by_explicit_options() {
    let site = Site::new();
    let vendor = site.creating();
    site.database.execute(&format!("UPDATE backups SET service = 'acme.backup.TapeDriver', host = 'retired' WHERE id = '{}'", vendor.id));
    let document = site.program.json(4, &["check"]);
    let found = result(&document, &vendor.id);
    assert_eq!((&found["verdict"], problems(found)), (&json!("unverifiable"), vec!["driver-unknown"]), "{found:#}");
    assert!(found["problems"][0]["text"].as_str().unwrap().contains("acme.backup.TapeDriver"));
    let reason = refusal(&site, &["--check", "quick"], &vendor);
    assert!(reason.contains("could not be finished") && reason.contains("acme.backup.TapeDriver"), "{reason}");
    let reason = refusal(&site, &["--check", "quick", "--to", "available"], &vendor);
    assert!(reason.contains("could not be finished"), "{reason}");
    let (done, _) = repair(&site, 0, &["--check", "quick", "--to", "error"]);
    assert!(done.contains(&format!("backups.{}.status: creating -> error", vendor.id)), "{done:?}");
    site.program.expect(0, &["undo", &site.program.last_run(), "--yes"]);
    let (done, _) = repair(&site, 0, &["--check", "quick", "--to", "available", "--allow-unverified", "--older-than", "0s"]);
    assert!(done.contains(&format!("backups.{}.status: creating -> available", vendor.id)), "{done:?}");
    assert!(site.log().contains("--allow-unverified"), "the log names the flag");
}

#[test]
fn a_root_that_is_not_mounted_is_not_damage() {
    let site = Site::new();
    let placed = site.creating();
    site.database.execute(&format!("UPDATE backups SET host = 'retired' WHERE id = '{}'", placed.id));
    let empty = site.path("empty");
    fs::create_dir(&empty).unwrap();
    let gone = site.path("gone");
    let file = site.path("cinder.conf");
    for root in [&empty, &gone, &file] {
        let args = ["--storage-path", root.as_str()];
        let document = site.program.json(4, &[&["check"], &args[..]].concat());
        let found = result(&document, &placed.id);
        assert_eq!((&found["verdict"], problems(found)), (&json!("unverifiable"), vec!["storage-configuration"]), "{found:#}");
        let reason = refusal(&site, &["--check", "deep", args[0], args[1]], &placed);
        assert!(reason.contains("--storage-path") && reason.contains("--to error"), "{reason}");
    }
    // The share of nfs and glusterfs is expected at its mount point.
    for (service, share, base) in [
        ("cinder.backup.drivers.nfs.NFSBackupDriver", "backup_share=filer:/export", "backup_mount_point_base"),
        ("cinder.backup.drivers.glusterfs.GlusterfsBackupDriver", "glusterfs_backup_share=filer:/volume", "glusterfs_backup_mount_point"),
    ] {
        site.database.execute(&format!("UPDATE backups SET service = '{service}' WHERE id = '{}'", placed.id));
        let base = format!("{base}={empty}");
        let args = ["check", "--storage-option", share, "--storage-option", &base];
        let document = site.program.json(4, &args);
        let found = result(&document, &placed.id);
        assert!(found["problems"][0]["text"].as_str().unwrap().contains("is not mounted on"), "{found:#}");
        let document = site.program.json(0, &["check", "--storage-path", &site.store.root.display().to_string()]);
        assert_eq!(result(&document, &placed.id)["verdict"], "intact");
    }
}

#[test]
fn a_directory_without_read_permission_is_not_damage() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let (unlisted, unread, whole) = (site.creating(), site.creating(), site.creating());
    fs::set_permissions(&unlisted.dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(unread.object(3), fs::Permissions::from_mode(0o600)).unwrap();
    for dir in site.store.root.ancestors().take(2).chain([site.program.path("").as_path()]) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let stuck = site.keep(0, "stuck.json", &["scan"]);
    let binary = site.path("program");
    fs::copy(crate::program::binary(), &binary).unwrap();
    let mut command = std::process::Command::new(&binary);
    command.env_clear().args(["check", "--from", &stuck, "--level", "deep", "-f", "json", "--storage-path"]).arg(&site.store.root);
    command.uid(65_534).gid(65_534).stdin(std::process::Stdio::null());
    let answer = answer(&mut command);
    assert_eq!(answer.code, Some(4), "{}", answer.stderr);
    let document = answer.json();
    for placed in [&unlisted, &unread] {
        let found = result(&document, &placed.id);
        assert_eq!((&found["verdict"], problems(found)), (&json!("unverifiable"), vec!["storage-permission"]), "{found:#}");
        assert!(found["problems"][0]["text"].as_str().unwrap().contains("run this as the user of cinder-backup or as root"));
    }
    assert_eq!(result(&document, &whole.id)["verdict"], "intact");
    let checked = site.path("checked.json");
    fs::write(&checked, &answer.stdout).unwrap();
    let (done, _) = repair(&site, 4, &["--evidence", &checked]);
    assert!(done.contains(&format!("backups.{}.status: creating -> available", whole.id)), "{done:?}");
    assert!(!done.iter().any(|change| change.contains(&unread.id) || change.contains(&unlisted.id)), "{done:?}");
}

#[test]
fn damage_never_becomes_available() {
    let site = Site::new();
    let placed = site.creating();
    fs::remove_file(placed.object(4)).unwrap();
    for flags in [
        &["--to", "available"] as &[&str],
        &["--to", "available", "--allow-unverified"],
        &["--to", "available", "--allow-unverified", "--assume-dead", "all"],
    ] {
        let reason = refusal(&site, &[&["--check", "quick"], flags].concat(), &placed);
        assert_eq!(reason, "it cannot become available: its data is incomplete");
    }
}

#[test]
fn an_intact_backup_in_error_becomes_available_on_request() {
    let site = Site::new();
    let parent = site.available();
    let intact = site.backup("error", Some(&parent));
    let damaged = site.backup("error", None);
    damaged.damage();
    let (done, _) = repair(&site, 0, &["--check", "deep"]);
    assert_eq!(done, [] as [String; 0], "--status was not given");
    let (done, _) = repair(&site, 0, &["--status", "error"]);
    assert_eq!(done, [] as [String; 0], "its data was not checked");
    let reason = refusal(&site, &["--status", "error", "--check", "quick"], &intact);
    assert_eq!(reason, "its status is error, and the quick check read none of its data; use --check deep to make it available");
    let (done, document) = repair(&site, 0, &["--status", "error", "--check", "deep"]);
    let mut expected = vec![
        format!("backups.{}.object_count: 0 -> {CHANGED}", intact.id),
        format!("backups.{}.status: error -> available", intact.id),
        format!("backups.{}.num_dependent_backups: 0 -> 1", parent.id),
    ];
    expected.sort();
    assert_eq!(done, expected, "{document:#}");
    assert_eq!(site.status(&damaged), "error");
}

#[test]
fn other_operations_do_not_depend_on_the_storage() {
    let site = Site::new();
    site.available();
    let rows = ["restoring", "deleting"].map(|status| {
        let placed = site.backup(status, None);
        site.database.execute(&format!("UPDATE backups SET host = 'retired' WHERE id = '{}'", placed.id));
        placed
    });
    rows[0].damage();
    fs::remove_dir_all(&rows[1].dir).unwrap();
    // They can be checked.
    let document = site.program.json(9, &["check", &rows[0].id, &rows[1].id, "--level", "deep"]);
    assert_eq!(result(&document, &rows[0].id)["verdict"], "corrupt");
    assert_eq!(result(&document, &rows[1].id)["verdict"], "missing");
    let checked = site.keep(9, "checked.json", &["check", &rows[0].id, &rows[1].id, "--level", "deep"]);
    // The result does not affect the decision.
    let unchecked = site.program.json(0, &["plan"])["units"].clone();
    for args in [&["plan", "--check", "deep"] as &[&str], &["plan", "--evidence", &checked]] {
        let planned = site.program.json(0, args);
        for (with, without) in planned["units"].as_array().unwrap().iter().zip(unchecked.as_array().unwrap()) {
            assert_eq!(with["changes"], without["changes"]);
        }
    }
    let (done, _) = repair(&site, 0, &["--evidence", &checked]);
    assert!(done.contains(&format!("backups.{}.status: restoring -> available", rows[0].id)), "{done:?}");
    assert!(done.contains(&format!("backups.{}.status: deleting -> error", rows[1].id)), "{done:?}");
}

#[test]
fn an_increment_is_damaged_with_its_parents() {
    let site = Site::new();
    let cases = ["whole", "damaged", "cut", "purged", "deleted"].map(|name| (name, site.available()));
    let children = cases.each_ref().map(|(_, parent)| site.backup("creating", Some(parent)));
    // Increments on the increments depend on the whole chain, too.
    let grandchildren = [0, 1].map(|index| site.backup("creating", Some(&children[index])));
    cases[1].1.damage();
    fs::remove_file(cases[2].1.object(8)).unwrap();
    site.database.execute(&format!("DELETE FROM backups WHERE id = '{}'", cases[3].1.id));
    site.database.execute(&format!("UPDATE backups SET deleted = 1, status = 'deleted' WHERE id = '{}'", cases[4].1.id));
    let document = site.program.json(9, &["check", "--level", "deep"]);
    let expected = ["intact", "corrupt", "corrupt", "incomplete", "incomplete"];
    for (((name, parent), child), verdict) in cases.iter().zip(&children).zip(expected) {
        let found = result(&document, &child.id);
        assert_eq!(found["verdict"], verdict, "{name} {found:#}");
        if verdict != "intact" {
            assert!(found["problems"].to_string().contains(&parent.id), "{name} {found:#}");
        }
    }
    assert_eq!(result(&document, &grandchildren[0].id)["verdict"], "intact");
    assert_eq!(result(&document, &grandchildren[1].id)["verdict"], "corrupt");
    let (done, _) = repair(&site, 0, &["--check", "deep", "--assume-dead", "ctl1"]);
    for (child, verdict) in children.iter().zip(expected) {
        let to = if verdict == "intact" { "available" } else { "error" };
        assert!(done.contains(&format!("backups.{}.status: creating -> {to}", child.id)), "{done:?}");
    }
}

#[test]
fn problems_name_their_object() {
    let site = Site::new();
    let other = site.available();
    type Harm<'a> = &'a dyn Fn(&Placed);
    let table: &[(&str, &str, &str, &str, Harm<'_>)] = &[
        ("an object is gone", "quick", "incomplete", "object-missing", &|placed| fs::remove_file(placed.object(16)).unwrap()),
        ("an object is one too many", "quick", "corrupt", "object-extra", &|placed| fs::write(placed.object(17), "x").unwrap()),
        ("an object is empty", "quick", "corrupt", "object-size", &|placed| fs::write(placed.object(2), "").unwrap()),
        ("an object is cut", "deep", "corrupt", "object-broken", &|placed| {
            let bytes = fs::read(placed.object(2)).unwrap();
            fs::write(placed.object(2), &bytes[..bytes.len() - 9]).unwrap();
        }),
        ("an object is longer", "deep", "corrupt", "object-broken", &|placed| {
            let mut bytes = fs::read(placed.object(2)).unwrap();
            bytes.extend(b"behind");
            fs::write(placed.object(2), bytes).unwrap();
        }),
        ("two objects are swapped", "deep", "corrupt", "block-differs", &|placed| {
            let spare = placed.dir.join("spare");
            fs::rename(placed.object(1), &spare).unwrap();
            fs::rename(placed.object(2), placed.object(1)).unwrap();
            fs::rename(spare, placed.object(2)).unwrap();
        }),
        ("the metadata is another's", "quick", "corrupt", "metadata-of-another", &|placed| {
            let text = fs::read_to_string(placed.metadata()).unwrap();
            fs::write(placed.metadata(), text.replace(&format!("\"backup_id\": \"{}\"", placed.id), "\"backup_id\": \"x\"")).unwrap();
        }),
        ("the sha256file is another's", "quick", "corrupt", "sha256file-of-another", &|placed| {
            fs::copy(other.sha256file(), placed.sha256file()).unwrap();
        }),
        ("the sha256file is gone", "quick", "incomplete", "sha256file-missing", &|placed| fs::remove_file(placed.sha256file()).unwrap()),
        ("the metadata is gone", "quick", "incomplete", "metadata-missing", &|placed| fs::remove_file(placed.metadata()).unwrap()),
        ("the directory is empty", "quick", "missing", "metadata-missing", &|placed| {
            for entry in fs::read_dir(&placed.dir).unwrap().flatten() {
                fs::remove_file(entry.path()).unwrap();
            }
        }),
        ("the directory is gone", "quick", "missing", "container-missing", &|placed| fs::remove_dir_all(&placed.dir).unwrap()),
        ("the sha256file is of another time", "deep", "corrupt", "sha256file-wrong", &|placed| {
            let zeros = "\"c35020473aed1b4642cd726cad727b63fff2824ad68cedd7ffb73c7cbd890479\"";
            placed.edit(&placed.sha256file(), |text| text.replacen(zeros, &format!("\"{}\"", "0".repeat(64)), 1));
        }),
        ("the sha256file has a digest too many", "restore", "corrupt", "sha256file-wrong", &|placed| {
            placed
                .edit(&placed.sha256file(), |text| text.replacen("\"sha256s\": [", &format!("\"sha256s\": [\"{}\", ", "0".repeat(64)), 1));
        }),
        ("the sha256file has other blocks", "deep", "corrupt", "sha256file-wrong", &|placed| {
            placed.edit(&placed.sha256file(), |text| text.replace("\"chunk_size\": 32768", "\"chunk_size\": 65536"));
        }),
        ("an object is not in the list", "quick", "incomplete", "gap", &|placed| {
            placed.edit(&placed.metadata(), |text| {
                let mut document: Value = serde_json::from_str(&text).unwrap();
                document["objects"].as_array_mut().unwrap().remove(3);
                document.to_string()
            });
        }),
    ];
    for (name, level, verdict, code, harm) in table {
        let placed = site.creating();
        harm(&placed);
        let document = site.program.json(9, &["check", &placed.id, "--level", level]);
        let found = result(&document, &placed.id);
        assert_eq!(found["verdict"], *verdict, "{name}: {found:#}");
        assert!(problems(found).contains(code), "{name}: {found:#}");
        assert_eq!(codes(finding(&site.program.json(0, &["scan", &placed.id]), &placed.id))[0], "service-up");
    }
}

#[test]
fn a_backup_and_its_parent_are_repaired_in_one_run_in_either_order() {
    // Units are ordered by id, so several pairs give both orders.
    let site = Site::new();
    let pairs: Vec<(Placed, Placed)> = (0..4)
        .map(|_| {
            let parent = site.creating();
            let child = site.backup("creating", Some(&parent));
            (parent, child)
        })
        .collect();
    let restored = site.backup("restoring", None);
    let child = site.backup("creating", Some(&restored));
    site.database.execute(&format!("UPDATE backups SET host = 'retired' WHERE id IN ('{}', '{}')", restored.id, child.id));
    let (done, document) = repair(&site, 0, &["--check", "quick", "--accept-quick"]);
    for (parent, child) in pairs.iter().chain([&(restored, child)]) {
        let counted = format!("backups.{}.num_dependent_backups: 0 -> 1", parent.id);
        assert!(done.contains(&counted), "{done:?} {document:#}");
        assert_eq!((site.status(parent), site.status(child)), ("available".to_owned(), "available".to_owned()), "{document:#}");
    }
    let before = site.database.rows_by_id();
    site.program.expect(0, &["undo", &site.program.last_run(), "--yes"]);
    assert_eq!(site.status(&pairs[0].0), "creating");
    assert_eq!(changes(&before, &site.database.rows_by_id()).iter().filter(|change| change.column == "num_dependent_backups").count(), 5);
}
