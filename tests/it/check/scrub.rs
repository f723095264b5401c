//! `scrub`: what is due, what failed, and what the ledger remembers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::slow::{SILENT, bucket, end, send, wait_until};
use super::{Site, TWO_HOURS};
use crate::schemas::{Columns, fresh};

const RUN: [&str; 4] = ["scrub", "run", "--ledger", "ledger.sqlite"];
const STATUS: [&str; 4] = ["scrub", "status", "--ledger", "ledger.sqlite"];

fn run(site: &Site, code: i32, args: &[&str]) -> Value {
    site.program.json(code, &[&RUN as &[&str], args].concat())
}

fn status(site: &Site) -> Value {
    site.program.json(0, &STATUS)
}

/// The coverage of everything.
fn all(status: &Value) -> &Value {
    &status["coverage"][0]
}

#[test]
fn a_backup_is_verified_once_and_again_after_the_maximum_age() {
    let site = Site::new();
    let full = site.available();
    let increment = site.backup("available", Some(&full));
    // Not a restore point.
    site.creating();
    let first = run(&site, 0, &[]);
    assert_eq!((&first["summary"]["due"], &first["summary"]["intact"], &first["left"]), (&2.into(), &2.into(), &0.into()));
    assert!(first["summary"]["bytes"].as_u64().unwrap() > 1 << 30);
    let covered = status(&site);
    assert_eq!((&all(&covered)["backups"], &all(&covered)["deep"], &all(&covered)["restore"]), (&2.into(), &2.into(), &0.into()));
    assert_eq!(covered["forecast"]["kind"], "complete");
    assert_eq!(run(&site, 0, &[])["summary"]["due"], 0);
    // A deep check also counts as a quick one, but not as a restore.
    assert_eq!(run(&site, 0, &["--level", "quick"])["summary"]["due"], 0);
    assert_eq!(run(&site, 0, &["--level", "restore"])["summary"]["intact"], 2);
    sleep(Duration::from_millis(2_100));
    assert_eq!(run(&site, 0, &["--max-age", "1s", "--level", "quick"])["summary"]["due"], 2);
    // What was deleted leaves the coverage.
    site.database.execute(&format!("UPDATE backups SET deleted = 1, status = 'deleted' WHERE id = '{}'", increment.id));
    run(&site, 0, &[]);
    assert_eq!(all(&status(&site))["backups"], 1);
    let mode = fs::metadata(site.program.path("ledger.sqlite")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!site.program.path("ledger.sqlite-wal").exists(), "a ledger at rest is one file");
}

#[test]
fn damage_of_a_backup_that_was_intact_is_reported_with_its_last_good_date() {
    let site = Site::new();
    let (good, bad) = (site.available(), site.available());
    // A quick check reads no data, so it does not show when damage of the data began.
    run(&site, 0, &["--level", "quick"]);
    bad.damage();
    let unread = run(&site, 9, &[]);
    assert_eq!((&unread["summary"]["failed"], &unread["summary"]["rotted"]), (&1.into(), &0.into()));
    assert!(unread["failures"][0]["last_good_at"].is_null());
    good.damage();
    sleep(Duration::from_millis(1_100));
    let answer = site.program.expect(9, &[&RUN as &[&str], &["--max-age", "1s"]].concat());
    assert!(answer.stderr.contains(&format!("warning: {} has rotted since 20", good.id)), "{}", answer.stderr);
    assert!(answer.stderr.contains("2 damaged or unreadable (1 rotted since the last good check) at level deep"), "{}", answer.stderr);
    let covered = status(&site);
    let failure = covered["failures"].as_array().unwrap().iter().find(|failure| failure["id"] == *good.id).unwrap();
    assert_eq!((&failure["rotted"], &failure["verdict"]), (&true.into(), &"corrupt".into()));
    assert!(failure["last_good_at"].as_str() < failure["failed_at"].as_str());
    assert_eq!(all(&covered)["failed"], 2);
    // A check at a lower level does not clear a failure, and a repaired backup is intact again.
    run(&site, 0, &["--failed", "--level", "quick"]);
    assert_eq!(all(&status(&site))["failed"], 2);
    good.damage();
    let again = run(&site, 9, &["--failed"]);
    assert_eq!((&again["summary"]["due"], &again["summary"]["intact"]), (&2.into(), &1.into()));
    assert_eq!((&all(&status(&site))["failed"], &all(&status(&site))["deep"]), (&1.into(), &1.into()));
}

#[test]
fn one_run_writes_at_a_time_and_a_killed_one_keeps_what_it_finished() {
    const BACKUPS: usize = 6;
    let (site, server, _) = bucket(BACKUPS);
    server.delay.store(40, Ordering::SeqCst);
    let mut child = site.program.start(&[&RUN as &[&str], &["--jobs", "1"]].concat());
    wait_until("two results", || {
        let covered = site.program.run(&[&STATUS as &[&str], &["-f", "json"]].concat());
        covered.code == Some(0) && all(&covered.json())["deep"].as_u64() >= Some(2)
    });
    server.delay.store(SILENT, Ordering::SeqCst);
    let refused = site.program.expect(11, &RUN);
    assert!(refused.stderr.contains(&format!("another scrub run (process {}) is writing to the ledger", child.id())), "{}", refused.stderr);
    child.kill().unwrap();
    child.wait().unwrap();
    server.delay.store(0, Ordering::SeqCst);
    let done = all(&status(&site))["deep"].as_u64().unwrap();
    let rest = run(&site, 0, &[]);
    assert!(done >= 2 && done < BACKUPS as u64, "{done}");
    assert_eq!(rest["summary"]["due"], BACKUPS as u64 - done, "a result is never lost");
    assert_eq!(all(&status(&site))["deep"], BACKUPS as u64);
}

#[test]
fn a_pause_stops_a_run_and_is_kept_until_it_is_ended() {
    let (site, server, _) = bucket(3);
    server.delay.store(SILENT, Ordering::SeqCst);
    let child = site.program.start(&[&RUN as &[&str], &["-f", "json"]].concat());
    wait_until("requests", || !server.requests.lock().unwrap().is_empty());
    let [pause, resume] = ["pause", "resume"].map(|word| ["scrub", word, "--ledger", "ledger.sqlite"]);
    let paused = site.program.expect(0, &[&pause as &[&str], &["--reason", "migration"]].concat());
    assert!(paused.stderr.contains("Scrubbing is paused since ") && paused.stderr.contains("(migration)"), "{}", paused.stderr);
    let answer = end(child);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert_eq!(answer.json()["interrupted"], "scrub pause");
    server.delay.store(0, Ordering::SeqCst);
    let refused = site.program.expect(0, &RUN);
    assert!(refused.stderr.contains("nothing was verified"), "{}", refused.stderr);
    assert_eq!(all(&status(&site))["quick"], 0);
    site.program.expect(0, &resume);
    assert_eq!(run(&site, 0, &[])["summary"]["intact"], 3);
}

#[test]
fn a_signal_or_the_end_of_the_time_leaves_the_rest_for_the_next_run() {
    let (site, server, _) = bucket(3);
    server.delay.store(SILENT, Ordering::SeqCst);
    let stopped = run(&site, 0, &["--max-runtime", "1s"]);
    assert_eq!((&stopped["interrupted"], &stopped["left"]), (&"--max-runtime".into(), &3.into()));
    server.requests.lock().unwrap().clear();
    let child = site.program.start(&RUN);
    wait_until("requests", || !server.requests.lock().unwrap().is_empty());
    send(&child, Signal::TERM);
    assert_eq!(end(child).code, Some(143));
    server.delay.store(0, Ordering::SeqCst);
    assert_eq!(run(&site, 0, &[])["summary"]["intact"], 3);
}

/// The database is locked until the time is over.
#[test]
fn a_run_that_ends_before_it_knows_what_is_due_says_so_and_leaves_all_to_the_next_one() {
    let site = Site::new();
    (0..200).for_each(|_| drop(site.database.backup(|row| row.status("available").age(TWO_HOURS))));
    let stopped = |format: &str| {
        site.database.execute("BEGIN EXCLUSIVE");
        let child = site.program.start(&[&RUN as &[&str], &["--max-runtime", "1s", "-f", format]].concat());
        sleep(Duration::from_millis(1_500));
        site.database.execute("COMMIT");
        let answer = end(child);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        answer
    };
    let said = stopped("table").stderr;
    assert!(said.contains("stopped by --max-runtime before the due backups were known: 0 backups read into the ledger"), "{said}");
    let document = stopped("json").json();
    assert_eq!((&document["interrupted"], &document["due_known"]), (&"--max-runtime".into(), &false.into()), "{document:#}");
    assert_eq!(status(&site)["last_run"]["interrupted"], "--max-runtime");
    let rest = site.program.run(&[&RUN as &[&str], &["-f", "json"]].concat()).json();
    assert_eq!((&rest["summary"]["due"], &rest["due_known"]), (&200.into(), &true.into()), "{rest:#}");
}

#[test]
fn a_run_of_limited_bytes_always_verifies_something_and_ends_with_0() {
    let site = Site::new();
    (0..3).for_each(|_| drop(site.available()));
    for done in 1..=3 {
        let answer = run(&site, 0, &["--max-bytes", "1M"]);
        assert_eq!(answer["summary"]["intact"], 1);
        assert_eq!(answer["interrupted"], if done < 3 { "--max-bytes".into() } else { Value::Null });
    }
    let answer = site.program.expect(2, &[&RUN as &[&str], &["--max-bytes", "1M", "--level", "quick"]].concat());
    assert!(answer.stderr.contains("--max-bytes limits data"), "{}", answer.stderr);
}

#[test]
fn an_unreachable_storage_is_not_a_failure_and_is_tried_again() {
    let site = Site::new();
    let placed = site.available();
    let (root, away) = (site.store.root.clone(), site.store.root.with_extension("away"));
    fs::rename(&root, &away).unwrap();
    let answer = run(&site, 4, &[]);
    assert_eq!((&answer["summary"]["unanswered"], &answer["summary"]["failed"]), (&1.into(), &0.into()), "{answer:#}");
    assert_eq!((&all(&status(&site))["quick"], &all(&status(&site))["failed"]), (&0.into(), &0.into()));
    fs::rename(&away, &root).unwrap();
    assert_eq!(run(&site, 0, &[])["summary"]["intact"], 1);
    drop(placed);
}

#[test]
fn a_ledger_is_of_one_database_and_no_other_file_is_taken_for_one() {
    let site = Site::new();
    site.available();
    run(&site, 0, &[]);
    let other = fresh(site.database.engine(), Columns::Full);
    let answer = site.program.command(&RUN).env("CINDER_DATABASE_URL", other.url()).output().unwrap();
    let stderr = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(answer.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("the ledger ledger.sqlite is about the database ") && stderr.contains("use one ledger for each"), "{stderr}");
    fs::write(site.program.path("notes.txt"), "not a ledger at all, and longer than a header").unwrap();
    let cinder = site.database.url().split("///").nth(1).unwrap().to_owned();
    for (path, why) in [("notes.txt", "not a SQLite file"), (cinder.as_str(), "a SQLite file of another program")] {
        for command in ["run", "status"] {
            let answer = site.program.expect(2, &["scrub", command, "--ledger", path]);
            assert!(answer.stderr.contains(&format!("{path} is not a ledger: {why}")), "{}", answer.stderr);
            assert!(answer.stderr.contains("hint: name a ledger or, for `scrub run`, a file that does not exist yet"), "{}", answer.stderr);
        }
    }
}

#[test]
fn a_ledger_that_is_missing_or_damaged_is_reported_with_what_to_do() {
    let site = Site::new();
    site.available();
    let missing = site.program.expect(2, &STATUS);
    assert!(missing.stderr.contains("the ledger ledger.sqlite does not exist"), "{}", missing.stderr);
    assert!(missing.stderr.contains("hint: correct the path, or make it with `scrub run --ledger ledger.sqlite`"), "{}", missing.stderr);
    run(&site, 0, &[]);
    let path = site.program.path("ledger.sqlite");
    let whole = fs::read(&path).unwrap();
    let mut overwritten = whole.clone();
    overwritten[4_096..].fill(b'x');
    for damaged in [&whole[..whole.len() / 2], &overwritten] {
        fs::write(&path, damaged).unwrap();
        for command in [STATUS, RUN] {
            let answer = site.program.expect(2, &command);
            assert!(answer.stderr.contains("the ledger ledger.sqlite is damaged: "), "{}", answer.stderr);
            assert!(answer.stderr.contains("hint: put a copy in its place, or remove it"), "{}", answer.stderr);
        }
    }
}

#[test]
fn a_plan_takes_the_results_about_pending_backups_from_a_ledger() {
    let site = Site::new();
    site.silence();
    let (good, bad) = (site.creating(), site.creating());
    bad.damage();
    assert_eq!(run(&site, 9, &["--status", "creating"])["summary"]["due"], 2);
    let plan = site.program.json(0, &["plan", "--evidence", "ledger.sqlite"]);
    let becomes = |placed: &super::Placed| {
        let units = plan["units"].as_array().unwrap();
        let unit = units.iter().find(|unit| unit["id"] == *placed.id).unwrap_or_else(|| panic!("{plan:#}"));
        unit["changes"][0]["to"].as_str().unwrap().to_owned()
    };
    assert_eq!((becomes(&good), becomes(&bad)), ("available".to_owned(), "error".to_owned()));
    // An old result is no evidence any more, and a ledger of another database never is.
    sleep(Duration::from_millis(2_100));
    let old = site.program.json(4, &["plan", "--evidence", "ledger.sqlite", "--evidence-max-age", "1s"]);
    assert_eq!(old["units"], serde_json::json!([]));
    let other = Site::new();
    let ledger = site.path("ledger.sqlite");
    other.program.expect(5, &["plan", "--evidence", &ledger]);
}

#[test]
fn something_else_than_a_ledger_gets_no_lock_file() {
    let site = Site::new();
    let folder = site.program.path("things");
    fs::create_dir_all(folder.join("directory")).unwrap();
    fs::write(folder.join("text"), "text").unwrap();
    fs::copy(site.database.path(), folder.join("other.sqlite")).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.join("device")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.join("broken")).unwrap();
    let before = fs::read_dir(&folder).unwrap().count();
    for name in ["directory", "text", "other.sqlite", "device", "broken"] {
        let refused = site.program.expect(2, &["scrub", "run", "--ledger", &format!("things/{name}")]);
        assert_eq!((fs::read_dir(&folder).unwrap().count(), fs::exists("/dev/full.lock").unwrap()), (before, false), "{}", refused.stderr);
    }
}
