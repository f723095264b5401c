//! Checks, rows and clocks that contradict each other: no backup becomes `available` or `error` because of the weaker evidence.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::{OBJECTS, Placed, Site, age, new_id, problems, result};
use crate::program::answer;

/// The status that a plan gives to a backup; `None` if it does not change it.
fn planned(document: &Value, placed: &Placed) -> Option<String> {
    let unit = document["units"].as_array()?.iter().find(|unit| unit["id"] == *placed.id)?;
    let changes = unit["changes"].as_array()?;
    let change = changes.iter().find(|change| change["id"] == *placed.id && change["column"] == "status")?;
    change["to"].as_str().map(str::to_owned)
}

/// Checks what `scan` finds on a host that sees only the storage; returns the path of the document.
#[track_caller]
fn check(site: &Site, name: &str, code: i32, args: &[&str]) -> String {
    let stuck = site.keep(0, "stuck.json", &["scan"]);
    let answer = answer(&mut site.elsewhere(&[&["--from", &stuck, "-f", "json"], args].concat()));
    assert_eq!(answer.code, Some(code), "{}", answer.stderr);
    let path = site.path(name);
    fs::write(&path, answer.stdout).unwrap();
    path
}

#[test]
fn a_quick_check_does_not_revoke_damage_of_a_deep_one() {
    let site = Site::new();
    site.silence();
    let damaged = site.creating();
    damaged.damage();
    let deep = check(&site, "deep.json", 9, &["--level", "deep"]);
    let quick = check(&site, "quick.json", 0, &["--level", "quick"]);
    for order in [[&deep, &quick], [&quick, &deep]] {
        for flags in [&[] as &[&str], &["--check", "quick"], &["--to", "available"], &["--to", "available", "--allow-unverified"]] {
            let document =
                site.program.run(&[&["plan", "-f", "json", "--evidence", order[0], "--evidence", order[1]], flags].concat()).json();
            let to = planned(&document, &damaged);
            assert_ne!(to.as_deref(), Some("available"), "{flags:?} {document:#}");
            if !flags.contains(&"--to") {
                assert_eq!(to.as_deref(), Some("error"), "{flags:?} {document:#}");
            }
        }
    }
    // A sample can prove damage, but not that a backup is intact.
    let sample = check(&site, "sample.json", 9, &["--level", "deep", "--read-data-subset", "1/16"]);
    let other = check(&site, "other.json", 0, &["--level", "deep", "--read-data-subset", "2/16"]);
    for args in [["--evidence", &sample, "--evidence", &other], ["--evidence", &other, "--evidence", &sample]] {
        let document = site.program.json(0, &[&["plan"], &args[..]].concat());
        assert_eq!(planned(&document, &damaged).as_deref(), Some("error"), "{document:#}");
    }
}

/// Three checks: other problems of a quick check do not hide damaged data.
#[test]
fn damage_of_a_quick_check_does_not_hide_damage_of_a_deep_one() {
    let site = Site::new();
    site.silence();
    let damaged = site.creating();
    damaged.damage();
    let deep = check(&site, "deep.json", 9, &["--level", "deep"]);
    let extra = damaged.object(OBJECTS + 1);
    fs::write(&extra, "x").unwrap();
    damaged.settle();
    let shallow = check(&site, "shallow.json", 9, &[]);
    fs::remove_file(extra).unwrap();
    let quick = check(&site, "quick.json", 0, &[]);
    for order in [[&deep, &shallow, &quick], [&quick, &deep, &shallow], [&shallow, &quick, &deep]] {
        let evidence = order.iter().flat_map(|path| ["--evidence", path]);
        let document = site.program.json(0, &["plan"].into_iter().chain(evidence).collect::<Vec<_>>());
        assert_eq!(planned(&document, &damaged).as_deref(), Some("error"), "{order:?} {document:#}");
    }
}

/// A changed counter or time in the row of a parent does not revoke damage of its increment.
#[test]
fn damage_is_kept_when_the_row_of_a_parent_changes() {
    let site = Site::new();
    site.silence();
    let parent = site.available();
    let child = site.backup("creating", Some(&parent));
    child.damage();
    let deep = check(&site, "deep.json", 9, &["--level", "deep"]);
    for moved in ["num_dependent_backups = 7", "status = 'restoring'", "updated_at = '2026-11-22 10:00:00'"] {
        site.database.execute(&format!("UPDATE backups SET {moved} WHERE id = '{}'", parent.id));
        let quick = check(&site, "quick.json", 0, &[]);
        for evidence in [["--evidence", &deep, "--evidence", &quick], ["--evidence", &quick, "--evidence", &deep]] {
            let document = site.program.json(0, &[&["plan", &child.id], &evidence[..]].concat());
            assert_eq!(planned(&document, &child).as_deref(), Some("error"), "{moved} {document:#}");
        }
    }
}

/// A restore reads the whole chain with the driver of the restored backup, whatever the rows of its parents say.
#[test]
fn a_chain_is_read_with_the_driver_of_its_tip() {
    let site = Site::new();
    let parent = site.available();
    let child = site.backup("creating", Some(&parent));
    let service = "cinder.backup.drivers.swift.SwiftBackupDriver";
    site.database.execute(&format!("UPDATE backups SET service = '{service}' WHERE id = '{}'", parent.id));
    let document = site.program.json(0, &["check", &child.id, "--level", "restore"]);
    assert_eq!(result(&document, &child.id)["verdict"], "intact", "{document:#}");
    let plan = site.path("plan.json");
    site.program.json(0, &["plan", &child.id, "--check", "deep", "--out", &plan]);
    // Alone, the parent is in the location of its own driver, which is not known here.
    let both = site.program.json(4, &["check", &parent.id, &child.id, "--level", "deep"]);
    let verdict = |backup: &Placed| result(&both, &backup.id)["verdict"].as_str().unwrap();
    assert_eq!((verdict(&parent), verdict(&child)), ("unverifiable", "intact"), "{both:#}");
    fs::remove_file(parent.object(3)).unwrap();
    let document = site.program.json(9, &["check", &child.id]);
    assert_eq!(problems(result(&document, &child.id)), ["parent-damaged"], "{document:#}");
    let document = site.program.json(4, &["apply", &plan, "--yes"]);
    assert_eq!(document["units"][0]["outcome"], "changed", "{document:#}");
}

#[test]
fn restored_data_is_accepted_after_an_equally_deep_check() {
    let site = Site::new();
    let placed = site.creating();
    let whole = fs::read(placed.object(1)).unwrap();
    placed.damage();
    let before = check(&site, "before.json", 9, &["--level", "deep"]);
    fs::write(placed.object(1), whole).unwrap();
    placed.settle();
    let after = check(&site, "after.json", 0, &["--level", "deep"]);
    let document = site.program.json(0, &["plan", "--evidence", &after, "--evidence", &before]);
    assert_eq!(planned(&document, &placed).as_deref(), Some("available"), "{document:#}");
}

#[test]
fn backups_without_a_final_result_are_checked_again_on_request() {
    let site = Site::new();
    let placed = site.creating();
    let sample = check(&site, "sample.json", 0, &["--level", "deep", "--sample", "5%"]);
    let nowhere = site.path("nowhere");
    fs::create_dir(&nowhere).unwrap();
    let unfinished = site.keep(4, "unfinished.json", &["check", "--level", "deep", "--storage-path", &nowhere]);
    for evidence in [&sample, &unfinished] {
        site.program.json(4, &["plan", "--evidence", evidence]);
        let document = site.program.json(0, &["plan", "--evidence", evidence, "--check", "deep"]);
        assert_eq!(planned(&document, &placed).as_deref(), Some("available"), "{document:#}");
    }
    // Too old, so it is checked again.
    let deep = check(&site, "deep.json", 0, &["--level", "deep"]);
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    let document = site.program.json(0, &["plan", "--evidence", &deep, "--check", "deep", "--evidence-max-age", "2s"]);
    assert_eq!(planned(&document, &placed).as_deref(), Some("available"), "{document:#}");
}

#[test]
fn an_increment_of_a_parent_that_is_being_deleted_does_not_become_available() {
    let site = Site::new();
    let parent = site.backup("deleting", None);
    let child = site.backup("creating", Some(&parent));
    let document = site.program.json(4, &["check", &child.id, "--level", "restore"]);
    assert_eq!(problems(result(&document, &child.id)), ["parent-deleting"], "{document:#}");
    assert_eq!(result(&document, &child.id)["verdict"], "unverifiable");
    for flags in [&["--check", "deep"] as &[&str], &["--to", "available", "--allow-unverified", "--assume-dead", "all"]] {
        let document = site.program.run(&[&["plan", &child.id, "-f", "json"], flags].concat()).json();
        assert_eq!(planned(&document, &child), None, "{document:#}");
    }
    // Its deletion was given up: the increment can be restored, and keeps it from being deleted.
    site.program.json(0, &["repair", "--yes", &parent.id, "--assume-dead", "all"]);
    assert_eq!(site.status(&parent), "error");
    site.program.json(0, &["repair", "--yes", &child.id, "--check", "deep"]);
    assert_eq!(site.status(&child), "available");
}

#[test]
fn evidence_must_meet_the_settle_time_of_the_decision() {
    let site = Site::new();
    let placed = site.creating();
    age(&placed.object(1), 20);
    let hasty = check(&site, "hasty.json", 0, &["--level", "deep", "--settle", "0s"]);
    assert_eq!(result(&serde_json::from_str(&fs::read_to_string(&hasty).unwrap()).unwrap(), &placed.id)["busy"], false);
    for flags in [&[] as &[&str], &["--to", "available"], &["--assume-dead", "all"]] {
        let document = site.program.run(&[&["plan", "-f", "json", "--evidence", &hasty], flags].concat()).json();
        assert_eq!(planned(&document, &placed), None, "{flags:?} {document:#}");
    }
    // The decision may use a shorter settle time, and a later check may meet a longer one.
    let document = site.program.json(0, &["plan", "--evidence", &hasty, "--settle", "5s"]);
    assert_eq!(planned(&document, &placed).as_deref(), Some("available"), "{document:#}");
    let document = site.program.json(0, &["plan", "--evidence", &hasty, "--check", "deep", "--settle", "10s"]);
    assert_eq!(planned(&document, &placed).as_deref(), Some("available"), "{document:#}");
}

#[test]
fn an_empty_backup_of_a_volume_without_a_size_is_not_intact() {
    let site = Site::new();
    let placed = site.creating();
    for (path, list) in [(placed.metadata(), "objects"), (placed.sha256file(), "sha256s")] {
        placed.edit(&path, |text| {
            let mut side: Value = serde_json::from_str(&text).unwrap();
            side[list] = json!([]);
            side.to_string()
        });
    }
    (1..=OBJECTS).for_each(|number| fs::remove_file(placed.object(number)).unwrap());
    site.database.execute(&format!("UPDATE backups SET size = 0 WHERE id = '{}'", placed.id));
    let document = site.program.json(4, &["check", &placed.id, "--level", "deep"]);
    let found = result(&document, &placed.id);
    assert_eq!((&found["verdict"], problems(found)), (&json!("unverifiable"), vec!["size-unknown"]), "{document:#}");
    let document = site.program.json(4, &["plan", &placed.id, "--check", "deep"]);
    assert_eq!(planned(&document, &placed), None, "{document:#}");
    // The named flag does not help either if the row itself rules it out.
    let document =
        site.program.json(6, &["repair", "--yes", &placed.id, "--to", "available", "--allow-unverified", "--assume-dead", "all"]);
    assert!(document["refused"][0]["reason"].as_str().unwrap().contains("backups.size is 0"), "{document:#}");
}

#[test]
fn data_of_an_unknown_driver_is_not_missing() {
    let site = Site::new();
    let placed = site.creating();
    for service in ["NULL", "''"] {
        site.database.execute(&format!("UPDATE backups SET service = {service} WHERE id = '{}'", placed.id));
        let document = site.program.json(4, &["check", &placed.id]);
        let found = result(&document, &placed.id);
        assert_eq!((&found["verdict"], problems(found)), (&json!("unverifiable"), vec!["driver-unknown"]), "{document:#}");
        let document = site.program.json(4, &["plan", &placed.id, "--check", "quick"]);
        assert_eq!(planned(&document, &placed), None, "{document:#}");
    }
    // The container alone may have been set by the request for the backup.
    site.database.execute(&format!("UPDATE backups SET service = NULL, service_metadata = NULL WHERE id = '{}'", placed.id));
    let document = site.program.json(9, &["check", &placed.id]);
    assert_eq!(problems(result(&document, &placed.id)), ["never-begun"], "{document:#}");
}

#[test]
fn an_increment_on_a_backup_of_another_volume_does_not_become_available() {
    let site = Site::new();
    site.silence();
    let parent = site.available();
    let child = site.backup("creating", Some(&Placed { volume: new_id(), ..parent.clone() }));
    for level in ["quick", "deep", "restore"] {
        let document = site.program.json(9, &["check", &child.id, "--level", level]);
        let found = result(&document, &child.id);
        assert_eq!((&found["verdict"], problems(found)), (&json!("corrupt"), vec!["parent-of-another-volume"]), "{document:#}");
    }
    let document = site.program.json(0, &["plan", &child.id, "--check", "deep"]);
    assert_eq!(planned(&document, &child).as_deref(), Some("error"), "{document:#}");
}

#[test]
fn a_backup_that_became_old_enough_during_a_check_is_not_set_to_error_unchecked() {
    let site = Site::new();
    site.database.execute("UPDATE services SET updated_at = '2026-01-01 00:00:00.000000'");
    // A cluster that does not answer at once.
    let tools = site.program.path("bin");
    fs::create_dir(&tools).unwrap();
    for tool in ["rbd", "rados"] {
        fs::write(tools.join(tool), "#!/bin/sh\nsleep 6\nexit 1\n").unwrap();
        fs::set_permissions(tools.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let slow = site.creating();
    site.database.execute(&format!(
        "UPDATE backups SET service = 'cinder.backup.drivers.ceph.CephBackupDriver', container = 'backups', service_metadata = NULL WHERE id = '{}'",
        slow.id
    ));
    let whole = site.store.place(&new_id(), None);
    site.database.backup(|row| whole.row(row).status("creating").age(3_600 - 4));
    let mut command = site.program.command(&["plan", "--check", "quick", "-f", "json"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", tools.display()));
    let answer = answer(&mut command);
    let document = answer.json();
    assert_eq!((planned(&document, &whole), answer.code), (None, Some(4)), "{document:#}");
    assert!(answer.stderr.contains("so its data was not checked"), "{}", answer.stderr);
    let document = site.program.run(&["plan", "--check", "quick", "--accept-quick", &whole.id, "-f", "json"]).json();
    assert_eq!(planned(&document, &whole).as_deref(), Some("available"), "{document:#}");
    assert_eq!(
        document["units"][0]["changes"].as_array().unwrap().iter().find(|change| change["column"] == "object_count").unwrap()["to"],
        json!(OBJECTS)
    );
}
