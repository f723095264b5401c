//! Rows that somebody may still hold although the rows themselves do not say so plainly: ids spelt in another way, services
//! that work on after a backup was put out of its status by hand, clocks that are late, and backups that a plan leaves out.

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
/// Servers of tests are young: so old is the oldest of them by now.
const OLD_SERVER: &[&str] = &["--service-down-time", "2s"];

fn args<'a>(args: &[&'a str]) -> Vec<&'a str> {
    args.iter().chain(OLD_SERVER).copied().collect()
}

fn up_and_down(database: &Database) {
    // A heartbeat that stays one however long a test takes.
    database.service("up", |row| row.updated_at(ago(-600)));
    database.service("down", |row| row.updated_at(ago(TWO_HOURS)));
}

/// Cinder keeps the id of a volume as it was typed, and these databases find the volume all the same.
#[test]
fn an_id_in_capitals_is_that_of_the_same_volume() {
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
        // Where they are stuck, the rows that they hold go with them.
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

/// `reset-state` tells the database, and nobody else.
#[test]
fn a_backup_that_was_put_into_error_by_hand_may_still_be_written() {
    for engine in engines() {
        for columns in [Columns::Full, Columns::Liberty, Columns::Juno] {
            let database = fresh(engine, columns);
            up_and_down(&database);
            let volume = |age: i64| database.volume(|row| row.status("backing-up").previous_status("in-use").age(age));
            // Somebody has renamed it since.
            let held = volume(3_700);
            let by_hand =
                database.backup(|row| row.status("error").host("up").volume_id(&held).created_at(ago(TWO_HOURS)).updated_at(ago(4_000)));
            // The failure of another year holds nothing, nor does a service that is silent.
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
fn a_restore_and_a_snapshot_may_be_worked_on_after_a_reset_too() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        up_and_down(&database);
        let destination = database.volume(|row| row.status("restoring-backup").age(TWO_HOURS));
        database.backup(|row| row.host("up").restore_volume_id(&destination).created_at(ago(86_400)).updated_at(ago(4_000)));
        let volume = database.volume(|row| row);
        let snapshot = database.snapshot(&volume, |row| row.status("backing-up").age(TWO_HOURS));
        database.backup(|row| row.status("error").host("up").volume_id(&volume).snapshot_id(&snapshot).age(TWO_HOURS));
        // It was restored there long before.
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

/// A service whose clock is late looks dead for ever, but for that it goes on to beat.
#[test]
fn a_clock_that_is_late_makes_no_working_service_look_dead() {
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
        assert_eq!(finding(&program.json(0, &args(&["scan"])), &at_work)["verdict"], "stuck", "as far as one look can tell");
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

/// Starts a repair, does `meanwhile` while it waits for heartbeats, and gives its result.
fn repaired_while(program: &Program, args: &[&str], code: i32, meanwhile: impl FnOnce()) -> Value {
    let mut child = program.start(args);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("Waiting ") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended without a wait: {said}");
    }
    meanwhile();
    stderr.read_to_string(&mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Removing the row of a service (`cinder-manage service remove`) does not stop it: it makes its row again at its next beat.
#[test]
fn a_missing_service_is_waited_for_as_a_silent_one_is() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        // One never had a row that is left, one has an old deleted row; the clock of the third is late.
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
        // What was never given to a host is waited for by nobody, nor is a host that is declared dead.
        database.backup(|row| row.status("creating").host(None::<&str>).age(TWO_HOURS));
        database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS));
        let answer =
            program.expect(0, &args(&["repair", "--yes", "--assume-dead", "gone", "--assume-dead", "late", "--assume-dead", "retired"]));
        assert!(!answer.stderr.contains("Waiting "), "{}", answer.stderr);
    }
}

#[test]
fn the_last_beat_of_a_removed_service_row_is_a_beat() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        // Beats that stay beats however long a test takes, and are not yet of a clock that is ahead.
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

/// Where nobody says how often services beat, the rows of the services do.
#[test]
fn a_service_that_beats_seldom_is_not_declared_dead_between_two_beats() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        // report_interval is 300; the last beat was 120 s ago, more than Cinder's default of service_down_time.
        let seldom = |beat: i64| move |row: Row| row.set("report_count", 100).created_at(ago(30_000 + beat)).updated_at(ago(beat));
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
            assert_eq!(finding(&found, &ids[1])["verdict"], "stuck", "not for ever: {found:#}");
            // What somebody says counts.
            let said = alone(&["scan", "--service-down-time", "60s"]).json();
            assert_eq!(finding(&said, &ids[0])["verdict"], "stuck", "{said:#}");
            assert_eq!(said["thresholds"].get("down_time_is_assumed"), None);
            let configured = Program::on(database.url()).json(0, &["scan"]);
            assert_eq!(finding(&configured, &ids[0])["verdict"], "stuck", "{configured:#}");
        }
    }
}

/// Nothing is set free because of a backup that is repaired another time.
#[test]
fn a_limit_leaves_what_the_left_out_hold() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let volume = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
        let of_volume = |age: i64| database.backup(|row| row.status("creating").host("gone").volume_id(&volume).age(age));
        // The one with the greater id frees the volume, if the other one is repaired before. It is the older one, and comes first.
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

/// Nor because of one whose repair is refused: here for want of data that was looked at.
#[test]
fn a_refusal_leaves_what_the_refused_hold() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let volume = database.volume(|row| row.status("backing-up").previous_status("available").age(TWO_HOURS));
    let of_volume = || database.backup(|row| row.status("creating").host("gone").volume_id(&volume).age(TWO_HOURS));
    let mut ids = [of_volume(), of_volume()];
    ids.sort();
    let [first, second] = ids;
    // What was never begun cannot become available.
    database.execute(&format!("UPDATE backups SET service = NULL WHERE id = '{first}'"));
    let program = Program::on(database.url());
    let before = database.rows_by_id();
    program.expect(4, &["plan", "--to", "available", "--allow-unverified", "--out", "plan.json", "--report", "change.sql"]);
    let script = std::fs::read_to_string(program.path("change.sql")).unwrap();
    assert!(script.contains("UPDATE backups") && !script.contains("UPDATE volumes"), "{script}");
    program.expect(0, &["apply", "plan.json", "--yes"]);
    assert_eq!(essence(changes(&before, &database.rows_by_id())), [format!("backups.{second}.status: creating -> available")]);
}

/// What a stuck backup held may be held by another one since, which was put into another status by hand under a service that works
/// on: the stuck one was all but finished when the other took the volume.
#[test]
fn a_stuck_backup_frees_nothing_that_another_may_have_taken_since() {
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
            // One whose service is as silent as that of the stuck one holds nothing, nor does what was begun before.
            later(&own, "error", "down");
            database.backup(|row| row.host("up").volume_id(&own).created_at(ago(9_000)).updated_at(ago(3_000)));
            let mut expected = vec![format!("volumes.{own}.status: backing-up -> available")];
            if columns == Columns::Full {
                // The backup of a snapshot that is free again does not hold the volume, whichever was begun first.
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
            // A later scan judges it by all that could explain it.
            assert_eq!(finding(&program.json(0, &args(&["scan", "--older-than", "0s"])), &held)["verdict"], "uncertain");
        }
    }
}

/// A backup of a snapshot leaves the volume as it is: one that was made when the volume had long been marked holds nothing of it.
#[test]
fn a_backup_of_a_snapshot_that_was_made_meanwhile_holds_no_volume() {
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

/// The silence of one host can be listened to, not that of two: of several that may hold a volume each may have a late clock.
#[test]
fn a_volume_that_two_silent_hosts_may_hold_is_left_alone() {
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
    // Whoever knows one to be dead leaves one to listen to.
    let found = program.json(0, &["scan", "--assume-dead", "down"]);
    let found = finding(&found, &volume);
    assert_eq!((found["verdict"].as_str(), found["host"].as_str()), (Some("stuck"), Some("late")), "{found:#}");
}
