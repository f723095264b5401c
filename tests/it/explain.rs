//! `explain`: the rows, the timeline and the ways out of one backup. What it calls possible is possible, and nothing else is.

use std::fs;

use cinder_backup_repair::db::Engine;
use serde_json::Value;

use crate::database::Database;
use crate::program::{Answer, Program};
use crate::rows::{Cell, Row, backup};
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;
const POSIX: &str = "cinder.backup.drivers.posix.PosixBackupDriver";

/// The way to a status.
fn way<'d>(document: &'d Value, to: &str) -> &'d Value {
    document["ways"].as_array().unwrap().iter().find(|way| way["to"] == to).unwrap()
}

fn texts(document: &Value) -> Vec<&str> {
    document["timeline"].as_array().unwrap().iter().map(|moment| moment["text"].as_str().unwrap()).collect()
}

#[test]
fn the_rows_around_a_backup_and_their_times_are_told_in_order() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let volume = database.volume(|row| row.status("backing-up").previous_status("in-use"));
        database.attachment(&volume, |row| row);
        database.service("ctl1", |row| row.age(TWO_HOURS / 2));
        let parent = database.backup(|row| row.status("available").volume_id(&volume).age(9 * TWO_HOURS));
        let backup = database.backup(|row| {
            row.status("creating").host("ctl1").display_name("db \u{1b}[2J").volume_id(&volume).parent_id(&parent).age(TWO_HOURS)
        });
        let child = database.backup(|row| row.status("available").volume_id(&volume).parent_id(&backup).age(TWO_HOURS / 4));
        let before = database.dump();
        let program = Program::on(database.url());
        let document = program.json(0, &["explain", &backup, "--assume-dead", "ctl1"]);
        let ids: Vec<&str> = document["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids, [&backup, &volume, &parent], "{document:#}");
        assert_eq!(document["increments"], serde_json::json!([child]));
        assert_eq!(document["findings"][0]["verdict"], "stuck");
        assert_eq!(document["attachments"].as_array().unwrap().len(), 1);
        let told = texts(&document);
        let place = |words: &str| told.iter().position(|text| text.contains(words)).unwrap_or_else(|| panic!("{words}: {told:#?}"));
        let order = [&*parent, "the backup was requested", "last heartbeat of cinder-backup on ctl1", &child, "now, by the"].map(place);
        assert!(order.is_sorted(), "{told:#?}");
        assert!(way(&document, "error")["refusal"].is_null(), "{document:#}");
        assert!(way(&document, "available")["refusal"].as_str().unwrap().contains("not verified"), "{document:#}");
        let Answer { stdout, .. } = program.expect(0, &["explain", &backup, "--assume-dead", "ctl1", "--older-than", "10s"]);
        assert!(stdout.starts_with(&format!("Backup {backup} \"db \\u{{1b}}[2J\"\nRows\n")) && !stdout.contains('\u{1b}'), "{stdout}");
        // The commands of the page reach the same database and log.
        let of_page = stdout.lines().find(|line| line.ends_with("audit.jsonl")).unwrap_or_else(|| panic!("{stdout}"));
        assert!(of_page.contains(" --to error --assume-dead ctl1 --older-than 10s --database-url "), "{of_page}");
        assert_eq!(database.dump(), before);
        // A run and its undo are in the timeline.
        program.expect(0, &["repair", &backup, "--yes", "--ticket", "CHG-1", "--assume-dead", "ctl1"]);
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        let document = program.json(0, &["explain", &backup, "--assume-dead", "ctl1"]);
        let told = texts(&document);
        let runs: Vec<&&str> = told.iter().filter(|text| text.starts_with("applied by run")).collect();
        assert!(runs.len() == 2 && runs[0].contains("(repair, CHG-1)") && runs[1].contains("(undo)"), "{told:#?}");
    }
}

/// For each status and state of the service: a way without a refusal does what it says, and one with a refusal does not get there.
#[test]
fn a_way_is_possible_if_and_only_if_its_command_gets_there() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.service("busy", |row| row.age(0));
        let program = Program::on(database.url());
        let store = program.path("store");
        fs::create_dir(&store).unwrap();
        // A directory with something in it is mounted.
        fs::write(store.join("file"), "").unwrap();
        let store = store.display().to_string();
        let mut possible = 0;
        // Each change waits for a heartbeat.
        let cases = if engine == Engine::Sqlite { 3 } else { 1 };
        for status in
            [Some("creating"), Some("restoring"), Some("deleting"), Some("error"), Some("error_deleting"), Some("available"), None]
        {
            for case in [(status, "gone", true), (status, "gone", false), (status, "busy", true)].into_iter().take(cases) {
                possible += usize::from(try_ways(&database, &program, &store, case));
            }
        }
        assert!(possible > 4, "{possible}");
    }
}

/// Whether a way is possible for a backup with this status and host, whose driver has begun.
fn try_ways(database: &Database, program: &Program, store: &str, (status, host, begun): (Option<&str>, &str, bool)) -> bool {
    let mut is_possible = false;
    for to in ["available", "error", "deleted"] {
        let backup = database.backup(|row| {
            let row = row.host(host).status(status.map_or(Cell::Null, Cell::from)).age(TWO_HOURS);
            if begun { row.service(POSIX).container("ab/cd/missing").service_metadata("volume_x_20260101000000_backup_y") } else { row }
        });
        let document = program.json(0, &["explain", &backup, "--check", "quick", "--storage-path", store]);
        let way = way(&document, to);
        let words: Vec<&str> = way["command"].as_str().unwrap().split(' ').skip(1).collect();
        let answer = program.run(&[&words[..], &["--yes", "--storage-path", store]].concat());
        let now = database.cell("backups", &backup, "status");
        let is_there = now.as_deref() == Some(to) && now.as_deref() != status;
        let told = way["refusal"].is_null();
        let case = format!("{} {status:?} {host} {begun} -> {to}", database.engine().name());
        assert_eq!(is_there, told, "{case}: {way:#}\n{}\n{}", answer.stdout, answer.stderr);
        is_possible |= told;
    }
    is_possible
}

#[test]
fn every_unit_about_a_backup_is_in_the_timeline_and_so_is_damage_of_the_log() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    database.service("ctl2", |row| row);
    let parent = database.backup(|row| row.status("available").host("gone").num_dependent_backups(3));
    database.backup(|row| row.status("available").host("ctl2"));
    let program = Program::on(database.url());
    program.expect(0, &["repair", &parent, "--rehost", "ctl2", "--fix-counters", "--yes"]);
    let document = program.json(0, &["explain", &parent]);
    let runs = texts(&document).iter().filter(|text| text.starts_with("applied by run")).count();
    assert_eq!(runs, 2, "the counter and the host: {document:#}");
    let log = fs::read_to_string(program.path("audit.jsonl")).unwrap();
    fs::write(program.path("audit.jsonl"), log.replacen("ctl2", "ctl3", 1)).unwrap();
    let document = program.json(0, &["explain", &parent]);
    assert!(texts(&document).iter().any(|text| text.starts_with("the audit log is damaged from here")), "{document:#}");
}

#[test]
fn a_page_stays_short_however_many_backups_the_volume_has() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let volume = database.volume(|row| row.status("in-use"));
    let parent = database.backup(|row| row.status("available").volume_id(&volume).age(TWO_HOURS));
    // More than are read at once; the newest are those with the least age.
    let rows: Vec<Row> = (1..=2_030).map(|age| backup().volume_id(&volume).parent_id(&parent).age(age)).collect();
    database.insert(&rows);
    let program = Program::on(database.url());
    let document = program.json(0, &["explain", &parent]);
    assert_eq!(document["increments"].as_array().unwrap().len(), 2_030);
    let told = texts(&document);
    assert!(told.contains(&"2010 older backups of this volume, up to here"), "{told:#?}");
    for row in &rows[..20] {
        assert!(told.iter().any(|text| text.contains(&row.get_id())), "{told:#?}");
    }
    let Answer { stdout, .. } = program.expect(0, &["explain", &parent]);
    assert!(stdout.lines().count() < 80 && stdout.contains("2010 more increments based on it"), "{stdout}");
}

#[test]
fn what_is_not_a_live_backup_has_no_explanation() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let program = Program::on(database.url());
    database.backup(|row| row.status("available").display_name("twice"));
    database.backup(|row| row.status("available").display_name("twice"));
    for (args, says) in [
        (["explain", "nothing"], "no live backup has the id or name"),
        (["explain", "twice"], "twice"),
        (["explain", ""], "no live backup has the id or name"),
        (["explain", "--format=csv"], "explain"),
    ] {
        let answer = program.run(&args);
        assert!(answer.code == Some(2) && answer.stderr.contains(says), "{args:?} {answer:?}");
    }
    let answer = program.run(&["explain", "twice", "-f", "csv"]);
    assert!(answer.code == Some(2) && answer.stderr.contains("use --format json or yaml"), "{answer:?}");
}
