//! Volumes and snapshots that another backup may still use: ids in capitals, services that go on working after a manual reset, late
//! clocks, and backups that a plan leaves out.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use cinder_backup_repair::db::Engine;
use serde_json::{Value, json};

use crate::database::{Database, changes};
use crate::program::{Program, answer, bare, codes, find, finding};
use crate::rows::{Row, ago};
use crate::scenarios::essence;
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;
/// A silent host proves nothing on a server that has just started. With a `service_down_time` of 2 s the test's server is old enough.
const OLD_SERVER: &[&str] = &["--service-down-time", "2s"];

fn args<'a>(args: &[&'a str]) -> Vec<&'a str> {
    args.iter().chain(OLD_SERVER).copied().collect()
}

fn up_and_down(database: &Database) {
    // In the future, so that it counts as alive however long the test takes.
    database.service("up", |row| row.updated_at(ago(-600)));
    database.service("down", |row| row.updated_at(ago(TWO_HOURS)));
}

/// Cinder stores the id of a volume as it was typed, and these databases ignore case.
#[test]
fn an_id_in_capitals_refers_to_the_same_volume() {
    for engine in engines().into_iter().filter(|engine| matches!(engine, Engine::Mariadb | Engine::Mysql)) {
        let database = fresh(engine, Columns::Full);
        up_and_down(&database);
        let pair = |host: &str| {
            let volume = database.volume(|row| row.status("backing-up").previous_status("in-use").age(TWO_HOURS));
            let backup = database.backup(|row| row.status("creating").host(host).volume_id(volume.to_uppercase()).age(TWO_HOURS));
            (backup, volume)
        };
        let snapshot_of = |host: &str| {
            let volume = database.volume(|row| row);
            let snapshot = database.snapshot(&volume, |row| row.status("backing-up").age(TWO_HOURS));
            let typed = snapshot.to_uppercase();
            let backup = database.backup(|row| row.status("creating").host(host).volume_id(&volume).snapshot_id(typed).age(TWO_HOURS));
            (backup, snapshot)
        };
        let ((at_work, held), (of_snapshot, held_snapshot)) = (pair("up"), snapshot_of("up"));
        let program = Program::on(database.url());
        let document = program.json(0, &args(&["scan"]));
        for id in [&at_work, &of_snapshot] {
            assert_eq!(finding(&document, id)["verdict"], "uncertain", "{document:#}");
        }
        assert!(find(&document, &held).is_none() && find(&document, &held_snapshot).is_none(), "{document:#}");
        let before = database.rows_by_id();
        program.expect(0, &args(&["repair", "--yes"]));
        assert_eq!(changes(&before, &database.rows_by_id()), []);
        // Stuck backups free the rows that they hold.
        let ((stuck, freed), (of_snapshot, freed_snapshot)) = (pair("down"), snapshot_of("down"));
        let before = database.rows_by_id();
        program.expect(0, &args(&["repair", "--yes"]));
        let mut expected = vec![
            format!("backups.{of_snapshot}.status: creating -> error"),
            format!("backups.{stuck}.status: creating -> error"),
            format!("snapshots.{freed_snapshot}.status: backing-up -> available"),
            format!("volumes.{freed}.status: backing-up -> in-use"),
        ];
        expected.sort();
        assert_eq!(essence(changes(&before, &database.rows_by_id())), expected);
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        assert_eq!(database.cell("volumes", &freed, "status").as_deref(), Some("backing-up"));
    }
}

/// `reset-state` changes the database, but does not stop the service.
#[test]
fn a_backup_that_was_reset_to_error_by_hand_keeps_its_volume() {
    for engine in engines() {
        for columns in [Columns::Full, Columns::Liberty, Columns::Juno] {
            let database = fresh(engine, columns);
            up_and_down(&database);
            let volume = |age: i64| database.volume(|row| row.status("backing-up").previous_status("in-use").age(age));
            // Renamed since, so `updated_at` is newer than the backup's.
            let held = volume(3_700);
            let by_hand =
                database.backup(|row| row.status("error").host("up").volume_id(&held).created_at(ago(TWO_HOURS)).updated_at(ago(4_000)));
            // A failure of last month and a backup of a silent service hold nothing.
            let left = volume(TWO_HOURS);
            database.backup(|row| row.status("error").host("up").volume_id(&left).age(30 * 86_400));
            database.backup(|row| row.status("error").host("down").volume_id(&left).age(TWO_HOURS));
            let program = Program::on(database.url());
            let document = program.json(0, &args(&["scan"]));
            let found = finding(&document, &held);
            assert_eq!((found["verdict"].as_str(), codes(found)), (Some("uncertain"), vec!["service-up"]), "{found:#}");
            assert!(found["evidence"].to_string().contains(&by_hand), "{found:#}");
            let before = database.rows_by_id();
            program.expect(0, &args(&["repair", "--yes"]));
            let freed = essence(changes(&before, &database.rows_by_id()));
            assert_eq!(freed.len(), 1, "{freed:?}");
            assert!(freed[0].starts_with(&format!("volumes.{left}.status: backing-up -> ")), "{freed:?}");
            program.expect(0, &args(&["repair", "--yes", "--assume-dead", "up"]));
            assert_ne!(database.cell("volumes", &held, "status").as_deref(), Some("backing-up"));
        }
    }
}

#[test]
fn a_backup_that_was_reset_by_hand_keeps_its_snapshot_and_restore_destination() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        up_and_down(&database);
        let destination = database.volume(|row| row.status("restoring-backup").age(TWO_HOURS));
        database.backup(|row| row.host("up").restore_volume_id(&destination).created_at(ago(86_400)).updated_at(ago(4_000)));
        let volume = database.volume(|row| row);
        let snapshot = database.snapshot(&volume, |row| row.status("backing-up").age(TWO_HOURS));
        database.backup(|row| row.status("error").host("up").volume_id(&volume).snapshot_id(&snapshot).age(TWO_HOURS));
        // An earlier restore to the same volume.
        let again = database.volume(|row| row.status("restoring-backup").age(TWO_HOURS));
        database.backup(|row| row.host("up").restore_volume_id(&again).age(86_400));
        let program = Program::on(database.url());
        let document = program.json(0, &args(&["scan"]));
        for id in [&destination, &snapshot] {
            assert_eq!(finding(&document, id)["verdict"], "uncertain", "{document:#}");
        }
        assert_eq!(finding(&document, &again)["verdict"], "stuck", "{document:#}");
        let before = database.rows_by_id();
        program.expect(0, &args(&["repair", "--yes"]));
        let done = essence(changes(&before, &database.rows_by_id()));
        assert_eq!(done, [format!("volumes.{again}.status: restoring-backup -> error_restoring")]);
    }
}

/// Its heartbeats always look old, but they keep arriving.
#[test]
fn a_service_with_a_late_clock_does_not_count_as_dead() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.service("late", |row| row.updated_at(ago(130)));
        database.service("down", |row| row.updated_at(ago(TWO_HOURS)));
        let volume = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
        let at_work = database.backup(|row| row.status("creating").host("late").volume_id(&volume).age(TWO_HOURS));
        let stuck = database.backup(|row| row.status("creating").host("down").age(TWO_HOURS));
        let left = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
        database.backup(|row| row.status("error").host("late").volume_id(&left).age(TWO_HOURS));
        let program = Program::on(database.url());
        assert_eq!(finding(&program.json(0, &args(&["scan"])), &at_work)["verdict"], "stuck", "one scan cannot tell");
        let beats = AtomicBool::new(true);
        let document = scope(|scope| {
            scope.spawn(|| {
                while beats.load(Ordering::Relaxed) {
                    let beat = format!("UPDATE services SET updated_at = {} WHERE host = 'late'", ago(130).sql(engine));
                    database.execute(&beat);
                    sleep(Duration::from_millis(400));
                }
            });
            let answer = program.run(&args(&["repair", "--yes", "-f", "json"]));
            beats.store(false, Ordering::Relaxed);
            assert!(answer.stderr.contains("Waiting 2 s for a heartbeat from cinder-backup on down, late"), "{}", answer.stderr);
            assert_eq!(answer.code, Some(4), "{}{}", answer.stdout, answer.stderr);
            answer.json()
        });
        for unit in document["units"].as_array().unwrap() {
            let expected = if unit["id"] == stuck.as_str() { "applied" } else { "refused" };
            assert_eq!(unit["outcome"], expected, "{document:#}");
        }
        assert_eq!(database.cell("backups", &at_work, "status").as_deref(), Some("creating"));
        assert_eq!(database.cell("volumes", &left, "status").as_deref(), Some("backing-up"));
        assert_eq!(database.cell("backups", &stuck, "status").as_deref(), Some("error"));
    }
}

/// Starts a repair, runs `meanwhile` during its heartbeat wait, and returns its result.
fn repaired_while(program: &Program, args: &[&str], code: i32, meanwhile: impl FnOnce()) -> Value {
    let mut child = program.start(args);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("Waiting ") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended without a heartbeat wait: {said}");
    }
    meanwhile();
    stderr.read_to_string(&mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `cinder-manage service remove` deletes the row of a service, but does not stop it: its next heartbeat creates the row again.
#[test]
fn a_repair_waits_for_missing_services_as_for_silent_ones() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        // `gone` has no row, `retired` has an old deleted row, and the clock of `late` is late.
        let hosts = ["gone", "retired", "late"];
        database.service("retired", |row| row.deleted(true).updated_at(ago(TWO_HOURS)));
        let units = hosts.map(|host| {
            let volume = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
            (database.backup(|row| row.status("creating").host(host).volume_id(&volume).age(TWO_HOURS)), volume)
        });
        let left = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
        database.backup(|row| row.status("error").host("retired").volume_id(&left).age(TWO_HOURS));
        let program = Program::on(database.url());
        let document = program.json(0, &args(&["scan"]));
        for (id, _) in &units {
            assert_eq!(codes(finding(&document, id))[0], "service-missing", "{document:#}");
        }
        assert_eq!((&finding(&document, &left)["verdict"], &finding(&document, &left)["host"]), (&json!("stuck"), &json!("retired")));
        let document = repaired_while(&program, &args(&["repair", "--yes", "-f", "json"]), 4, || {
            database.service("retired", |row| row.updated_at(ago(0)));
            database.service("late", |row| row.updated_at(ago(130)));
        });
        let of = |id: &str| document["units"].as_array().unwrap().iter().find(|unit| unit["id"] == id).unwrap();
        for id in [&units[1].0, &units[2].0, &left] {
            assert_eq!(of(id)["outcome"], "refused", "{document:#}");
            assert!(of(id)["reason"].as_str().unwrap().contains("has sent a heartbeat since the plan was made"), "{document:#}");
        }
        assert_eq!(of(&units[0].0)["outcome"], "applied", "{document:#}");
        for (table, id) in [("backups", &units[1].0), ("volumes", &units[1].1), ("backups", &units[2].0), ("volumes", &left)] {
            let wanted = if table == "backups" { "creating" } else { "backing-up" };
            assert_eq!(database.cell(table, id, "status").as_deref(), Some(wanted));
        }
        // No wait for a backup without a host, or for a host that is declared dead.
        database.backup(|row| row.status("creating").host(None::<&str>).age(TWO_HOURS));
        database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS));
        let answer =
            program.expect(0, &args(&["repair", "--yes", "--assume-dead", "gone", "--assume-dead", "late", "--assume-dead", "retired"]));
        assert!(!answer.stderr.contains("Waiting "), "{}", answer.stderr);
    }
}

#[test]
fn the_last_heartbeat_of_a_removed_service_row_counts() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        // In the future, so that it counts as alive however long the test takes, but not so far that the clock counts as ahead.
        database.service("ctl1", |row| row.deleted(true).updated_at(ago(-50)));
        let volume = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
        let at_work = database.backup(|row| row.status("creating").host("ctl1").volume_id(&volume).age(TWO_HOURS));
        let program = Program::on(database.url());
        let document = program.json(0, &["scan"]);
        let found = finding(&document, &at_work);
        assert_eq!((found["verdict"].as_str(), codes(found)[0]), (Some("uncertain"), "service-up"), "{found:#}");
        assert!(found["evidence"].to_string().contains("was removed, and last written"), "{found:#}");
        let before = database.rows_by_id();
        program.expect(0, &["repair", "--yes"]);
        assert_eq!(changes(&before, &database.rows_by_id()), []);
        program.expect(0, &["repair", "--yes", "--assume-dead", "ctl1"]);
        assert_eq!(database.cell("backups", &at_work, "status").as_deref(), Some("error"));
    }
}

/// Without a configured interval, the rows of `services` show how often a service sends heartbeats.
#[test]
fn a_service_with_rare_heartbeats_does_not_count_as_dead_between_two_of_them() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        // report_interval is 300 s. The last heartbeat was 120 s ago, which is more than the default of service_down_time.
        let seldom = |age: i64| move |row: Row| row.set("report_count", 100).created_at(ago(30_000 + age)).updated_at(ago(age));
        database.service("seldom", seldom(120));
        database.service("dead", seldom(2_000));
        let ids = ["seldom", "dead"].map(|host| database.backup(|row| row.status("creating").host(host).age(TWO_HOURS)));
        let alone = |args: &[&str]| {
            let folder = Program::on("");
            let mut command = bare(args);
            command.args(["--database-url", &database.url(), "-f", "json", "--audit-log"]).arg(folder.log());
            answer(&mut command)
        };
        let scanned = alone(&["scan"]);
        let found = scanned.json();
        assert_eq!(found["thresholds"]["down_time_is_assumed"], true, "{found:#}");
        let seldom = finding(&found, &ids[0]);
        assert_eq!((seldom["verdict"].as_str(), codes(seldom)[0]), (Some("uncertain"), "service-up"), "{seldom:#}");
        assert!(seldom["evidence"].to_string().contains("may send one only every 5 min"), "{seldom:#}");
        assert!(scanned.stderr.contains("the average interval of its heartbeats"), "{}", scanned.stderr);
        let before = database.rows_by_id();
        let repaired = alone(&["repair", &ids[0], "--yes"]);
        assert_eq!(repaired.code, Some(6), "{}", repaired.stderr);
        assert_eq!(changes(&before, &database.rows_by_id()), []);
        if engine == Engine::Sqlite {
            assert_eq!(finding(&found, &ids[1])["verdict"], "stuck", "after 2,000 s: {found:#}");
            // A configured time counts.
            let said = alone(&["scan", "--service-down-time", "60s"]).json();
            assert_eq!(finding(&said, &ids[0])["verdict"], "stuck", "{said:#}");
            assert_eq!(said["thresholds"].get("down_time_is_assumed"), None);
            let configured = Program::on(database.url()).json(0, &["scan"]);
            assert_eq!(finding(&configured, &ids[0])["verdict"], "stuck", "{configured:#}");
        }
    }
}

#[test]
fn a_backup_beyond_the_limit_keeps_its_volume() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let volume = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
        let of_volume = |age: i64| database.backup(|row| row.status("creating").host("gone").volume_id(&volume).age(age));
        // The backup with the greater id would free the volume after the other one. It is older, so it is repaired first.
        let mut ids = [of_volume(TWO_HOURS), of_volume(TWO_HOURS)];
        ids.sort();
        let [first, second] = ids;
        let older = format!("UPDATE backups SET created_at = {0}, updated_at = {0} WHERE id = '{second}'", ago(9_000).sql(engine));
        database.execute(&older);
        let program = Program::on(database.url());
        let before = database.rows_by_id();
        program.expect(0, &["repair", "--yes", "--limit", "1"]);
        assert_eq!(essence(changes(&before, &database.rows_by_id())), [format!("backups.{second}.status: creating -> error")]);
        program.expect(0, &["repair", "--yes"]);
        assert_eq!(database.cell("backups", &first, "status").as_deref(), Some("error"));
        assert_eq!(database.cell("volumes", &volume, "status").as_deref(), Some("available"));
    }
}

#[test]
fn a_backup_whose_repair_is_refused_keeps_its_volume() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let volume = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
    let of_volume = || database.backup(|row| row.status("creating").host("gone").volume_id(&volume).age(TWO_HOURS));
    let mut ids = [of_volume(), of_volume()];
    ids.sort();
    let [first, second] = ids;
    // A backup without a service was never begun and cannot become available.
    database.execute(&format!("UPDATE backups SET service = NULL WHERE id = '{first}'"));
    let program = Program::on(database.url());
    let before = database.rows_by_id();
    program.expect(4, &["plan", "--to", "available", "--allow-unverified", "--out", "plan.json", "--report", "change.sql"]);
    let script = std::fs::read_to_string(program.path("change.sql")).unwrap();
    assert!(script.contains("UPDATE backups") && !script.contains("UPDATE volumes"), "{script}");
    program.expect(0, &["apply", "plan.json", "--yes"]);
    assert_eq!(essence(changes(&before, &database.rows_by_id())), [format!("backups.{second}.status: creating -> available")]);
}

/// The stuck backup was almost finished when the other one took the volume. The other one was then reset by hand, but its service goes
/// on working.
#[test]
fn a_stuck_backup_does_not_free_a_volume_that_another_backup_took_later() {
    for engine in engines() {
        for columns in [Columns::Full, Columns::Liberty, Columns::Juno] {
            let database = fresh(engine, columns);
            up_and_down(&database);
            let taken = |age: i64| database.volume(|row| row.status("backing-up").previous_status("available").age(age));
            let (held, deleted, own) = (taken(4_000), taken(4_000), taken(4_000));
            let stuck = |volume: &str| database.backup(|row| row.status("creating").host("down").volume_id(volume).age(TWO_HOURS));
            let later =
                |volume: &str, status: &str, host: &str| database.backup(|row| row.status(status).host(host).volume_id(volume).age(4_000));
            let by_hand = later(&held, "error", "up");
            let mut errors = vec![stuck(&held), stuck(&deleted), stuck(&own)];
            later(&deleted, "deleting", "up");
            // A backup on the same silent host and one that began earlier hold nothing.
            later(&own, "error", "down");
            database.backup(|row| row.host("up").volume_id(&own).created_at(ago(9_000)).updated_at(ago(3_000)));
            let mut expected = vec![format!("volumes.{own}.status: backing-up -> available")];
            if columns == Columns::Full {
                // A backup of a snapshot that is free again does not hold the volume, whether it began earlier or later.
                let volume = taken(9_000);
                let snapshot = database.snapshot(&volume, |row| row.age(TWO_HOURS));
                let of_snapshot =
                    |row: crate::rows::Row| row.status("creating").host("down").volume_id(&volume).snapshot_id(&snapshot).age(TWO_HOURS);
                errors.push(database.backup(of_snapshot));
                database.backup(|row| row.status("error").host("up").volume_id(&volume).age(9_000));
                let again = database.snapshot(&volume, |row| row.status("backing-up").age(4_000));
                let first = |row: crate::rows::Row| row.status("creating").host("down").volume_id(&volume).snapshot_id(&again);
                errors.push(database.backup(|row| first(row).age(TWO_HOURS)));
                database.backup(|row| row.status("error").host("up").volume_id(&volume).snapshot_id(&again).age(4_000));
                let destination = database.volume(|row| row.status("restoring-backup").age(4_000));
                let restored = database.backup(|row| {
                    row.status("restoring").host("down").restore_volume_id(&destination).created_at(ago(86_400)).updated_at(ago(TWO_HOURS))
                });
                database.backup(|row| row.host("up").restore_volume_id(&destination).created_at(ago(86_400)).updated_at(ago(3_900)));
                expected.push(format!("backups.{restored}.status: restoring -> available"));
            }
            expected.extend(errors.iter().map(|id| format!("backups.{id}.status: creating -> error")));
            expected.sort();
            let program = Program::on(database.url());
            let document = program.json(0, &args(&["scan"]));
            let found = finding(&document, &errors[0]);
            assert!(codes(found).contains(&"volume-suspected") && found["evidence"].to_string().contains(&by_hand), "{found:#}");
            let before = database.rows_by_id();
            program.expect(0, &args(&["repair", "--yes"]));
            assert_eq!(essence(changes(&before, &database.rows_by_id())), expected, "{} {columns:?}", engine.name());
            // A later scan considers every backup that may hold the volume.
            assert_eq!(finding(&program.json(0, &args(&["scan", "--older-than", "0s"])), &held)["verdict"], "uncertain");
        }
    }
}

#[test]
fn a_later_backup_of_a_snapshot_does_not_hold_the_volume() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    up_and_down(&database);
    // Its export wrote the row of the volume when the backup began.
    let volume = database.volume(|row| row.status("backing-up").previous_status("in-use").age(7_100));
    let stuck = database.backup(|row| row.status("creating").host("down").volume_id(&volume).age(TWO_HOURS));
    let left = database.volume(|row| row.status("backing-up").previous_status("available").age(7_100));
    for volume in [&volume, &left] {
        let snapshot = database.snapshot(volume, |row| row.age(6_000));
        database.backup(|row| row.host("up").volume_id(volume).snapshot_id(&snapshot).age(5_000));
    }
    let program = Program::on(database.url());
    let before = database.rows_by_id();
    program.expect(0, &args(&["repair", "--yes"]));
    let mut expected = vec![
        format!("backups.{stuck}.status: creating -> error"),
        format!("volumes.{left}.status: backing-up -> available"),
        format!("volumes.{volume}.status: backing-up -> in-use"),
    ];
    expected.sort();
    assert_eq!(essence(changes(&before, &database.rows_by_id())), expected);
}

/// A heartbeat wait can prove that one host is silent. Of two hosts that may hold a volume, each may have a late clock.
#[test]
fn a_volume_that_backups_on_two_silent_hosts_may_use_stays_unchanged() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    database.service("late", |row| row.updated_at(ago(130)));
    database.service("down", |row| row.updated_at(ago(100)));
    let volume = database.volume(|row| row.status("backing-up").previous_status("available").age(4_000));
    let of_volume = |host: &str, age: i64| database.backup(|row| row.status("error").host(host).volume_id(&volume).age(age));
    let both = [of_volume("late", 3_990), of_volume("down", 3_980)];
    let program = Program::on(database.url());
    let document = program.json(0, &["scan"]);
    let found = finding(&document, &volume);
    assert_eq!((found["verdict"].as_str(), codes(found)), (Some("uncertain"), vec!["services-down"]), "{found:#}");
    assert!(both.iter().all(|id| found["evidence"].to_string().contains(id)), "{found:#}");
    let before = database.rows_by_id();
    program.expect(0, &["repair", "--yes"]);
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    // If one is declared dead, only the other one must be silent.
    let found = program.json(0, &["scan", "--assume-dead", "down"]);
    let found = finding(&found, &volume);
    assert_eq!((found["verdict"].as_str(), found["host"].as_str()), (Some("stuck"), Some("late")), "{found:#}");
}
