//! A check that resumes an earlier one: what it carries over, and what it checks again.

use std::fs::{self, File};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Placed, Site, age, result};

fn document(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Whether a result is carried over from an earlier document.
#[track_caller]
fn is_carried(earlier: &str, later: &Value, placed: &Placed) -> bool {
    let earlier = document(earlier);
    let (then, now) = (result(&earlier, &placed.id), result(later, &placed.id));
    then["checked_at"] == now["checked_at"]
}

#[test]
fn changed_and_damaged_backups_are_checked_again() {
    let site = Site::new();
    let (parent, shaken) = (site.available(), site.available());
    let (whole, gone, damaged) = (site.creating(), site.creating(), site.creating());
    let (child, cut) = (site.backup("creating", Some(&parent)), site.backup("creating", Some(&shaken)));
    let kept = fs::read(damaged.object(2)).unwrap();
    fs::remove_file(damaged.object(2)).unwrap();
    let first = site.keep(9, "first.json", &["check", "--level", "deep"]);
    fs::remove_file(gone.object(5)).unwrap();
    fs::remove_file(shaken.object(5)).unwrap();
    fs::write(damaged.object(2), kept).unwrap();
    damaged.settle();
    let answer = site.program.expect(9, &["check", "--level", "deep", "--resume", &first, "-f", "json"]);
    let after = answer.json();
    for (placed, carried, verdict) in [
        (&whole, true, "intact"),
        (&child, true, "intact"),
        (&gone, false, "incomplete"),
        (&damaged, false, "intact"),
        (&cut, false, "corrupt"),
    ] {
        let found = (is_carried(&first, &after, placed), &result(&after, &placed.id)["verdict"]);
        assert_eq!(found, (carried, &json!(verdict)), "{after:#}");
    }
    assert_eq!(after["summary"]["carried"], 2, "{after:#}");
    assert!(answer.stderr.contains("2 of 5 carried over from the earlier check."), "{}", answer.stderr);
    assert!(answer.stderr.contains("3 backups checked again: not intact"), "{}", answer.stderr);
    // A carried-over result can be carried over again, and is valid evidence.
    let path = site.path("again.json");
    fs::write(&path, &answer.stdout).unwrap();
    let again = site.program.json(9, &["check", "--level", "deep", "--resume", &path]);
    assert_eq!(again["summary"]["carried"], 3, "{again:#}");
    site.program.json(0, &["repair", "--yes", &child.id, "--evidence", &path]);
    assert_eq!(site.status(&child), "available");
    assert!(document(&first)["summary"].get("carried").is_none());
}

#[test]
fn old_results_and_those_of_another_location_are_checked_again() {
    let site = Site::new();
    let placed = site.creating();
    let first = site.keep(0, "first.json", &["check", "--level", "deep"]);
    let nowhere = site.path("nowhere");
    fs::create_dir(&nowhere).unwrap();
    let answer = site.program.run(&["check", "--level", "deep", "--resume", &first, "--storage-path", &nowhere, "-f", "json"]);
    assert_ne!(answer.code, Some(0), "{}", answer.stdout);
    assert!(!is_carried(&first, &answer.json(), &placed));
    assert!(answer.stderr.contains("0 of 1 carried over from the earlier check."), "{}", answer.stderr);

    // A listing does not show that a disk lost data, so results are carried over only for a limited time.
    let written = fs::metadata(placed.object(1)).unwrap().modified().unwrap();
    let mut bytes = fs::read(placed.object(1)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(placed.object(1), bytes).unwrap();
    File::options().write(true).open(placed.object(1)).unwrap().set_modified(written).unwrap();
    let carried = site.program.json(0, &["check", "--level", "deep", "--resume", &first]);
    assert!(is_carried(&first, &carried, &placed), "the listing does not show the damage");
    sleep(Duration::from_millis(3_100));
    let document = site.program.json(9, &["check", "--level", "deep", "--resume", &first, "--resume-max-age", "2s"]);
    assert_eq!(result(&document, &placed.id)["verdict"], "corrupt", "{document:#}");
}

#[test]
fn results_with_a_shorter_settle_time_are_checked_again() {
    let site = Site::new();
    let placed = site.creating();
    age(&placed.object(1), 20);
    let first = site.keep(0, "first.json", &["check", "--settle", "0s"]);
    assert_eq!(result(&document(&first), &placed.id)["busy"], false);
    let after = site.program.json(0, &["check", "--resume", &first]);
    assert!(!is_carried(&first, &after, &placed), "{after:#}");
    assert_eq!(result(&after, &placed.id)["busy"], true, "{after:#}");
    let after = site.program.json(0, &["check", "--resume", &first, "--settle", "0s"]);
    assert!(is_carried(&first, &after, &placed), "{after:#}");
}

/// Without `--level` a check is quick, and does not find what a deep one found.
#[test]
fn damage_of_a_deep_check_is_kept_by_a_quick_one() {
    let site = Site::new();
    let (whole, damaged) = (site.creating(), site.creating());
    damaged.damage();
    let first = site.keep(9, "first.json", &["check", "--level", "deep"]);
    let after = site.program.json(9, &["check", "--resume", &first]);
    assert!(is_carried(&first, &after, &whole) && is_carried(&first, &after, &damaged), "{after:#}");
    assert_eq!(result(&after, &damaged.id)["verdict"], "corrupt", "{after:#}");
    // A sample does not revoke damage either.
    let sampled = site.keep(9, "sampled.json", &["check", "--level", "deep", "--read-data-subset", "1/1"]);
    let after = site.program.json(9, &["check", "--resume", &sampled]);
    assert_eq!(result(&after, &damaged.id)["verdict"], "corrupt", "{after:#}");
    // Objects that were written since prove nothing about the data that was read.
    age(&damaged.object(1), 60);
    let after = site.program.json(0, &["check", "--resume", &first]);
    assert_eq!(result(&after, &damaged.id)["verdict"], "intact", "{after:#}");
}

#[test]
fn results_are_kept_when_the_storage_is_unreachable_or_the_selection_differs() {
    let site = Site::new();
    let (one, other) = (site.creating(), site.creating());
    let out = site.path("survey.json");
    let partial = format!("{out}.partial");
    let deep = ["check", "--level", "deep", "--out", &out];
    let resumed = [&deep as &[&str], &["--resume", &partial]].concat();
    site.program.expect(0, &deep);
    fs::rename(&out, &partial).unwrap();
    let before = fs::read_to_string(&partial).unwrap();

    let answer = site.program.expect(2, &[&resumed as &[&str], &[&one.id]].concat());
    assert!(answer.stderr.contains("1 of its backups are not selected by this check"), "{}", answer.stderr);
    assert_eq!(fs::read_to_string(&partial).unwrap(), before);

    let nowhere = site.path("nowhere");
    fs::create_dir(&nowhere).unwrap();
    let answer = site.program.expect(4, &[&resumed as &[&str], &["--storage-path", &nowhere]].concat());
    assert!(answer.stderr.contains("keeps earlier results of 2 backups"), "{}", answer.stderr);
    assert_eq!(document(&out)["summary"]["unverifiable"], 2);
    fs::remove_file(&out).unwrap();
    site.program.expect(0, &resumed);
    let after = document(&out);
    assert_eq!((&after["summary"]["carried"], &after["summary"]["intact"]), (&json!(2), &json!(2)), "{after:#}");
    assert!(!std::path::Path::new(&partial).exists());
    assert_eq!(result(&after, &other.id)["level_reached"], "deep");
}
