//! A check that resumes an earlier one: what it carries over, and what it checks again.

use std::fs::{self, File};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Placed, Site, age, result};
use crate::program::answer;

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

/// Flips one bit of an object as a disk does: the listing stays the same.
fn rot(placed: &Placed) {
    let written = fs::metadata(placed.object(1)).unwrap().modified().unwrap();
    let mut bytes = fs::read(placed.object(1)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(placed.object(1), bytes).unwrap();
    File::options().write(true).open(placed.object(1)).unwrap().set_modified(written).unwrap();
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
    rot(&placed);
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

    let answer = site.program.expect(0, &[&resumed as &[&str], &[&one.id]].concat());
    assert!(answer.stderr.contains("keeps earlier results of 1 backup that this check did not select"), "{}", answer.stderr);
    assert_eq!(document(&out)["results"].as_array().map(Vec::len), Some(1));
    fs::remove_file(&out).unwrap();

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

/// The records of a stream: its head, the ids and verdicts of its results, and its closing record.
#[track_caller]
fn stream(text: &str) -> (Value, Vec<(String, String)>, Value) {
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let results = lines.iter().filter_map(|line| line.get("result"));
    let results =
        results.map(|result| (result["id"].as_str().unwrap().to_owned(), result["verdict"].as_str().unwrap().to_owned())).collect();
    (lines[0]["head"].clone(), results, lines.last().unwrap()["end"].clone())
}

#[test]
fn a_stream_has_the_results_of_the_document_and_is_resumed_and_evidence() {
    let site = Site::new();
    let parent = site.available();
    let (child, gone) = (site.backup("creating", Some(&parent)), site.creating());
    fs::remove_file(gone.object(5)).unwrap();
    let deep = ["check", "--all", "--level", "deep"];
    let document = site.program.json(9, &deep);
    let text = site.program.expect(9, &[&deep[..], &["-f", "jsonl"]].concat()).stdout;
    let (head, mut results, end) = stream(&text);
    results.sort();
    let all = document["results"].as_array().unwrap().iter();
    let of = |field: &str, result: &Value| result[field].as_str().unwrap().to_owned();
    assert_eq!(results, all.map(|result| (of("id", result), of("verdict", result))).collect::<Vec<_>>());
    assert_eq!((&head["schema"], &head["level"]), (&json!("cinder-backup-repair/check-results"), &json!("deep")));
    assert_eq!((&end["summary"], &end["interrupted"]), (&document["summary"], &Value::Null));
    assert_eq!((&end["records"], &head["database"]), (&json!(4), &document["database"]), "a row and three results");

    // It is what the document is: for another check, in a file or through a pipe, and for a plan.
    let path = site.path("first.jsonl");
    fs::write(&path, &text).unwrap();
    let resume = |from: &str| site.program.command(&["check", "--all", "--level", "deep", "-f", "jsonl", "--resume", from]);
    let through_pipe = resume("/dev/stdin");
    let mut shell = Command::new("bash");
    shell.args(["-c", "cat first.jsonl | \"$0\" \"$@\""]).arg(through_pipe.get_program()).args(through_pipe.get_args());
    shell.envs(through_pipe.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(site.path("."));
    for mut resumed in [resume(&path), shell] {
        let answer = answer(&mut resumed);
        assert_eq!(answer.code, Some(9), "{}", answer.stderr);
        assert!(answer.stderr.contains("2 of 3 carried over"), "{}", answer.stderr);
        assert_eq!(stream(&answer.stdout).2["summary"]["carried"], 2);
    }
    let planned = site.program.json(0, &["plan", "--evidence", &path]);
    assert_eq!(planned["checks"][0]["id"], *child.id, "{planned:#}");
    let cut = site.path("cut.jsonl");
    fs::write(&cut, text.lines().take(3).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let answer = site.program.expect(9, &["check", "--all", "--level", "deep", "--resume", &cut, "-f", "jsonl"]);
    assert_eq!(stream(&answer.stdout).1.len(), 3);
    let edited = site.path("edited.jsonl");
    fs::write(&edited, text.replace("\"busy\":false", "\"busy\":true")).unwrap();
    let refused = site.program.expect(2, &["plan", "--evidence", &edited]);
    assert!(refused.stderr.contains("was edited after it was written"), "{}", refused.stderr);
    site.program.json(0, &["repair", "--yes", &child.id, "--evidence", &path]);
    assert_eq!(site.status(&child), "available");
}

#[test]
fn a_file_for_a_stream_is_written_as_one_and_can_be_continued() {
    let site = Site::new();
    let (whole, gone) = (site.creating(), site.creating());
    fs::remove_file(gone.object(5)).unwrap();
    let (out, partial) = (site.path("all.jsonl"), site.path("all.jsonl.partial"));
    let deep = ["check", "--all", "--level", "deep", "--out", &out];
    site.program.expect(9, &deep);
    let text = fs::read_to_string(&out).unwrap();
    assert_eq!(stream(&text).2["summary"]["intact"], 1);
    assert!(!std::path::Path::new(&partial).exists());
    // A check that was killed leaves all but the closing record.
    let cut: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    fs::write(&partial, cut).unwrap();
    fs::remove_file(&out).unwrap();
    let answer = site.program.expect(9, &[&deep[..], &["--resume", &partial]].concat());
    assert!(answer.stderr.contains("1 of 2 carried over"), "{}", answer.stderr);
    let (_, results, end) = stream(&fs::read_to_string(&out).unwrap());
    let of = |placed: &Placed| results.iter().rev().find(|(id, _)| *id == placed.id).map(|(_, verdict)| verdict.as_str());
    assert_eq!((of(&whole), of(&gone)), (Some("intact"), Some("incomplete")));
    assert_eq!((&end["summary"]["incomplete"], &end["summary"]["carried"]), (&json!(1), &json!(1)));
    // Nothing is known of the backups that cannot be reached now: the file is not completed.
    fs::rename(&out, &partial).unwrap();
    let nowhere = site.path("nowhere");
    fs::create_dir(&nowhere).unwrap();
    let answer = site.program.expect(4, &[&deep[..], &["--resume", &partial, "--storage-path", &nowhere]].concat());
    assert!(answer.stderr.contains("keeps earlier results of 2 backups"), "{}", answer.stderr);
    assert!(!std::path::Path::new(&out).exists() && std::path::Path::new(&partial).exists());
    site.program.expect(9, &[&deep[..], &["--resume", &partial]].concat());
}

#[test]
fn a_resumed_stream_has_one_result_of_each_selected_backup() {
    let site = Site::new();
    let (whole, gone) = (site.creating(), site.creating());
    fs::remove_file(gone.object(5)).unwrap();
    site.program.key("host");
    let (out, partial) = (site.path("all.jsonl"), site.path("all.jsonl.partial"));
    let deep = ["check", "--level", "deep", "--out", &out, "--sign-key", "host.pem"];
    site.program.expect(9, &deep);
    for selected in [&[&whole, &gone] as &[&Placed], &[&gone]] {
        fs::rename(&out, &partial).unwrap();
        let mut ids: Vec<&str> = selected.iter().map(|placed| &*placed.id).collect();
        let answer = site.program.expect(9, &[&deep[..], &["--resume", &partial], &ids].concat());
        let (head, mut results, end) = stream(&fs::read_to_string(&out).unwrap());
        ids.sort_unstable();
        results.sort_unstable();
        assert_eq!(results.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ids);
        assert_eq!((&end["records"], &end["summary"]["incomplete"]), (&json!(ids.len()), &json!(1)), "{end:#}");
        assert_eq!((&end["summary"]["intact"], &head["earlier"]), (&json!(ids.len() - 1), &Value::Null), "{end:#}");
        site.program.expect(0, &["plan", "--evidence", &out, "--verify-key", "host.pub"]);
        let keeps = answer.stderr.contains("keeps earlier results of 1 backup that this check did not select");
        assert_eq!((keeps, fs::exists(&partial).unwrap()), (ids.len() == 1, ids.len() == 1), "{}", answer.stderr);
    }
}

/// Every beginning of a signed file has a right signature. It may lack the result that replaced an earlier one.
#[test]
fn an_earlier_result_in_a_signed_file_that_was_cut_is_checked_again() {
    let site = Site::new();
    let (rotten, other) = (site.creating(), site.creating());
    site.program.key("host");
    let (out, partial) = (site.path("all.jsonl"), site.path("all.jsonl.partial"));
    let deep = ["check", "--level", "deep", "--out", &out, "--sign-key", "host.pem"];
    site.program.expect(0, &deep);
    fs::rename(&out, &partial).unwrap();
    rot(&rotten);
    sleep(Duration::from_millis(2_100));
    site.program.expect(9, &[&deep[..], &["--resume", &partial, "--resume-max-age", "1s", &rotten.id]].concat());
    fs::remove_file(&out).unwrap();
    // The file stays for the other backup. Its last lines are the new result and the closing record.
    let text = fs::read_to_string(&partial).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let cut = lines[..lines.len() - 2].concat();
    let (_, results, _) = stream(&cut);
    assert!(results.contains(&(rotten.id.clone(), "intact".to_owned())) && results.iter().any(|(id, _)| *id == other.id), "{results:?}");
    fs::write(&partial, cut).unwrap();
    site.program.expect(9, &[&deep[..], &["--resume", &partial]].concat());
    let (_, results, end) = stream(&fs::read_to_string(&out).unwrap());
    assert!(results.contains(&(rotten.id.clone(), "corrupt".to_owned())), "{results:?}");
    assert_eq!((results.len(), &end["summary"]["carried"]), (2, &Value::Null), "{end:#}");
}
