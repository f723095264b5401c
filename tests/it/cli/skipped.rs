//! Skipped backups, limits and unknown hosts must not look like "nothing is stuck".

use std::fs;

use cinder_backup_repair::db::Engine;

use super::{TWO_HOURS, stuck};
use crate::database::{Database, changes};
use crate::program::Program;
use crate::schemas::{Columns, fresh};

/// A database in which `ctl1` sends heartbeats and has a backup that has been `creating` for two hours.
fn uncertain_backup() -> (Database, String) {
    let database = fresh(Engine::Sqlite, Columns::Full);
    database.service("ctl1", |row| row);
    let backup = database.backup(|row| row.status("creating").host("ctl1").display_name("nightly").age(TWO_HOURS));
    (database, backup)
}

#[test]
fn skipped_backups_are_counted_and_explained() {
    let (database, uncertain) = uncertain_backup();
    let recent = database.backup(|row| row.status("restoring").host("ctl1").age(60));
    let program = Program::on(database.url());
    for args in [&["repair", "--yes"] as &[&str], &["repair", "--dry-run"], &["plan"]] {
        let answer = program.expect(0, args);
        let told = answer.stderr.lines().filter(|line| line.starts_with("Skipped: ")).collect::<Vec<_>>();
        assert_eq!(told.len(), 1, "{args:?}: {}", answer.stderr);
        for part in [
            "1 uncertain (a service may still work on it: --check deep makes",
            "--assume-dead HOST",
            "1 recent (younger than --older-than; wait)",
        ] {
            assert!(told[0].contains(part), "{part}: {}", told[0]);
        }
    }
    let document = program.json(0, &["repair", "--yes"]);
    let left = document["left_alone"].as_array().unwrap();
    let of = |id: &str| left.iter().find(|left| left["id"] == id).unwrap();
    assert_eq!(left.len(), 2, "{document:#}");
    assert_eq!((&of(&uncertain)["verdict"], &of(&recent)["verdict"]), (&"uncertain".into(), &"recent".into()), "{document:#}");
    assert_eq!(of(&uncertain)["name"], "nightly");
    assert!(of(&uncertain)["reason"].as_str().unwrap().contains("ctl1"), "{document:#}");
    // A named backup that must not be changed is refused, and not reported twice.
    let named = program.json(6, &["repair", "--yes", &uncertain]);
    assert_eq!((named["refused"][0]["id"].as_str(), &named["left_alone"]), (Some(uncertain.as_str()), &serde_json::json!([])), "{named:#}");
    // It is also reported beside repaired backups.
    stuck(&database, "weekly");
    let answer = program.expect(0, &["repair", "--yes"]);
    assert!(answer.stderr.contains("1 applied") && answer.stderr.contains("Skipped: 1 uncertain"), "{}", answer.stderr);
}

#[test]
fn a_named_backup_that_does_not_exist_is_an_error() {
    let (database, backup) = uncertain_backup();
    let whole = database.backup(|row| row.status("available").host("ctl1").display_name("weekly"));
    let program = Program::on(database.url());
    let left_out = format!("{backup}: its status is creating, but other options exclude it");
    let in_order = format!("{whole}: its status is available: nothing to repair");
    for (args, said) in [
        (&["nightly", "--host", "ctl2"] as &[&str], Some(&left_out)),
        (&["nightly", "--status", "restoring", "-f", "json"], Some(&left_out)),
        (&["weekly"], Some(&in_order)),
        (&["weekly", "--quiet"], None),
        (&["nightly"], None),
        (&[], None),
    ] {
        let answer = program.expect(0, &[&["scan"], args].concat());
        let line = answer.stderr.lines().find(|line| line.contains(": its status is "));
        assert_eq!(line, said.map(String::as_str), "{args:?}: {}", answer.stderr);
    }
}

#[test]
fn a_selection_with_nothing_stuck_is_not_reported_as_nothing_found() {
    let (database, _) = uncertain_backup();
    let program = Program::on(database.url());
    let all = "Nothing is stuck or inconsistent";
    let part = "Nothing selected is stuck or inconsistent";
    for args in [["--status", "deleting"], ["--project", "nobody"], ["--volume", "none"], ["--host", "ctl9"]] {
        for command in ["scan", "plan"] {
            let said = program.expect(0, &[&[command, "--allow-empty"], &args[..]].concat()).stderr;
            assert!(said.contains(part) && !said.contains(all), "{command} {args:?}: {said}");
        }
    }
    // A backup that exists and is not stuck is not an error.
    let volume = database.volume(|row| row.status("available").project_id("quiet"));
    database.backup(|row| row.status("deleting").host("ctl2").project_id("busy").age(0));
    for args in [["--status", "deleting"], ["--project", "busy"], ["--volume", &volume], ["--host", "ctl2"]] {
        for command in
            [&["scan"] as &[&str], &["plan"], &["check"], &["check", "--all", "--storage-path", "/nonexistent"], &["repair", "--yes"]]
        {
            let answer = program.run(&[command, &args[..]].concat());
            assert!(!answer.stderr.contains("matches nothing"), "{command:?} {args:?}: {}", answer.stderr);
        }
    }
    database.execute("UPDATE backups SET status = 'available'");
    assert!(program.expect(0, &["scan", "--limit", "3"]).stderr.contains(all));
}

/// A typo in a script must not end with exit code 0.
#[test]
fn a_filter_that_matches_nothing_is_an_error() {
    let (database, backup) = uncertain_backup();
    let program = Program::on(database.url());
    let before = database.rows_by_id();
    let commands: [&[&str]; 6] =
        [&["scan"], &["plan"], &["check"], &["check", "--all"], &["repair", "--yes"], &["repair", "--dry-run", "--check", "quick"]];
    for (option, value, problem) in [
        (
            "--host",
            "ctl9",
            "--host ctl9 matches nothing: no live backup and no cinder-backup has this host; there are ctl1; did you mean ctl1?",
        ),
        ("--project", "nobody", "--project nobody matches nothing: this project has no live backups"),
        ("--volume", "none", "--volume none matches nothing: this volume does not exist and has no live backups"),
        ("--status", "restoring", "--status restoring matches nothing: no live backup, volume or snapshot has that status"),
    ] {
        for command in commands {
            let args = [command, &[option, value]].concat();
            let answer = program.expect(2, &args);
            assert!(answer.stderr.contains(&format!("error: {problem}\n")), "{args:?}: {}", answer.stderr);
            assert!(answer.stderr.contains("--allow-empty"), "{args:?}: {}", answer.stderr);
            let allowed = program.expect(0, &[&args[..], &["--allow-empty"]].concat());
            assert!(allowed.stderr.contains(&format!("warning: {problem}\n")), "{args:?}: {}", allowed.stderr);
        }
    }
    // One unknown host of several is an error. Of several statuses one must exist.
    program.expect(2, &["repair", "--yes", "--host", "ctl1", "--host", "ctl9"]);
    program.expect(0, &["repair", "--yes", "--status", "restoring", "--status", "creating"]);
    // A named backup is reported with the filter that excludes it.
    program.expect(6, &["repair", &backup, "--status", "restoring", "--yes"]);
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    assert!(!program.log().exists(), "a selection that is refused leaves no run behind");
}

#[test]
fn an_unknown_host_in_assume_dead_is_a_warning() {
    let (database, _) = uncertain_backup();
    database.backup(|row| row.host("old@ceph"));
    let program = Program::on(database.url());
    for command in [&["scan"] as &[&str], &["scan", "-f", "json"], &["plan"], &["repair", "--yes"]] {
        for (option, host, warning) in [
            (
                "--host",
                "ctl9",
                Some(
                    "--host ctl9 matches nothing: no live backup and no cinder-backup has this host; there are ctl1, old@ceph; did you mean ctl1?",
                ),
            ),
            ("--assume-dead", "ctl11", Some("--assume-dead ctl11 matches nothing: ")),
            ("--host", "CTL1", Some("it is spelled ctl1")),
            ("--host", "old", Some("it is spelled old@ceph")),
            ("--assume-dead", "old", None),
            ("--assume-dead", "all", None),
            ("--host", "ctl1", None),
        ] {
            // The last two would repair the rows that the others need.
            if command[0] == "repair" && warning.is_none() {
                continue;
            }
            let mut args = command.to_vec();
            args.extend([option, host, "--allow-empty"]);
            let answer = program.expect(0, &args);
            let warned = answer.stderr.lines().find(|line| line.starts_with("warning: ") && line.contains("this host"));
            match warning {
                Some(warning) => assert!(warned.is_some_and(|line| line.contains(warning)), "{args:?}: {}", answer.stderr),
                None => assert_eq!(warned, None, "{args:?}"),
            }
        }
    }
}

#[test]
fn a_check_of_an_unknown_host_is_a_warning() {
    let (database, _) = uncertain_backup();
    database.backup(|row| row.host("old@ceph"));
    let program = Program::on(database.url());
    fs::write(program.path("stuck.json"), program.expect(0, &["scan", "-f", "json"]).stdout).unwrap();
    for command in [&["check"] as &[&str], &["check", "--all"], &["check", "--from", "stuck.json"]] {
        let from_file = command.contains(&"--from");
        for (host, warning) in [
            (
                "ctl9",
                Some(if from_file {
                    "no backup in stuck.json has this host; there are ctl1; did you mean ctl1?"
                } else {
                    "there are ctl1, old@ceph; did you mean ctl1?"
                }),
            ),
            ("CTL1", Some("it is spelled ctl1")),
            ("ctl1", None),
        ] {
            let mut args = command.to_vec();
            args.extend(["--host", host, "--allow-empty"]);
            let answer = program.run(&args);
            let warned: Vec<&str> =
                answer.stderr.lines().filter(|line| line.starts_with("warning: ") && line.contains("matches nothing")).collect();
            match warning {
                Some(warning) => {
                    assert!(warned.len() == 1 && warned[0].ends_with(warning), "{args:?}: {}", answer.stderr);
                    assert_eq!(answer.code, Some(0), "{args:?}: {}", answer.stderr);
                }
                None => assert_eq!(warned, [] as [&str; 0], "{args:?}"),
            }
        }
    }
}

#[test]
fn a_limit_says_how_many_findings_it_leaves_out() {
    let (database, _) = uncertain_backup();
    for age in [3, 4, 5] {
        database.backup(|row| row.status("creating").host("gone").age(age * TWO_HOURS));
    }
    let program = Program::on(database.url());
    let document = program.json(0, &["scan", "--limit", "1"]);
    assert_eq!(document["findings"].as_array().unwrap().len(), 1);
    assert_eq!((&document["summary"]["stuck"], &document["summary"]["uncertain"]), (&3.into(), &1.into()), "{document:#}");
    assert_eq!(document["left_out"], 3);
    let said = |args: &[&str]| program.expect(0, args).stderr;
    assert!(said(&["scan", "--limit", "1"]).contains("3 stuck, 1 uncertain; --limit keeps 1 (of 4 live backups in sqlite://"));
    assert!(said(&["plan", "--limit", "1"]).contains("3 stuck, 1 uncertain; --limit keeps 1; the plan changes 1 row"));
    assert!(!said(&["scan", "--limit", "4"]).contains("--limit"));
    assert_eq!(program.json(0, &["scan"])["left_out"], 0);
    let repaired = program.expect(0, &["repair", "--yes", "--limit", "2"]).stderr;
    assert!(repaired.contains("2 applied") && repaired.contains("Skipped: 2 more beyond --limit."), "{repaired}");
    assert_eq!(program.json(0, &["repair", "--yes", "--limit", "1", "--dry-run"])["left_out"], 1);
}
