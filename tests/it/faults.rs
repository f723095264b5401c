//! What the program reports and leaves behind when something fails in the middle of a change.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use rustix::process::{Pid, Signal, kill_process};

use crate::database::Database;
use crate::program::Program;
use crate::rows;
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;

/// `number` stuck backups, each with a volume in `backing-up`.
fn stuck(database: &Database, number: usize) -> Vec<(String, String)> {
    let mut ids = Vec::new();
    let mut all = Vec::new();
    for _ in 0..number {
        let volume = rows::volume().status("backing-up").previous_status("available");
        let backup = rows::backup().status("creating").host("gone").volume_id(volume.get_id()).age(TWO_HOURS);
        ids.push((backup.get_id(), volume.get_id()));
        all.extend([volume, backup]);
    }
    database.insert(&all);
    ids
}

/// Checks that every unit is changed completely or not at all; returns the number of changed ones.
#[track_caller]
fn whole_units(database: &Database, ids: &[(String, String)]) -> usize {
    let statuses = |table: &str| -> std::collections::HashMap<String, String> {
        let rows = database.query(&format!("SELECT id, status FROM {table}"));
        rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect()
    };
    let (backups, volumes) = (statuses("backups"), statuses("volumes"));
    ids.iter()
        .filter(|(backup, volume)| match (backups[backup].as_str(), volumes[volume].as_str()) {
            ("error", "available") => true,
            ("creating", "backing-up") => false,
            other => panic!("half a unit: {other:?}"),
        })
        .count()
}

#[test]
fn a_unit_waits_for_a_lock_until_the_lock_time_out() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let ids = stuck(&database, 1);
        let program = Program::on(database.url());
        let hold = || {
            database.execute(if engine == Engine::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" });
            database.execute(&format!("UPDATE volumes SET display_name = 'held' WHERE id = '{}'", ids[0].1));
        };
        hold();
        let answer = program.run(&["repair", "--yes", "--lock-timeout", "1s"]);
        database.execute("ROLLBACK");
        assert_eq!(answer.code, Some(11), "{} {}{}", engine.name(), answer.stdout, answer.stderr);
        assert_eq!(whole_units(&database, &ids), 0);
        // The lock is released in time, so the unit is applied.
        hold();
        let child = program.start(&["repair", "--yes", "--lock-timeout", "2s"]);
        thread::sleep(Duration::from_secs(3));
        database.execute("ROLLBACK");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{} {}", engine.name(), String::from_utf8_lossy(&output.stderr));
        assert_eq!(whole_units(&database, &ids), 1);
        program.expect(0, &["history", "verify"]);
    }
}

/// If another session holds all rows, the run does not wait for each of its units.
#[test]
fn a_run_that_is_locked_out_stops_and_says_who_holds_the_lock() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let ids = stuck(&database, 40);
        let program = Program::on(database.url());
        database.execute(if engine == Engine::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" });
        if engine != Engine::Sqlite {
            database.execute("UPDATE volumes SET display_name = 'held'");
        }
        let begun = Instant::now();
        let answer = program.run(&["repair", "--yes", "--max-changes", "100", "--lock-timeout", "1s", "-f", "json"]);
        let took = begun.elapsed();
        database.execute("ROLLBACK");
        assert_eq!(answer.code, Some(11), "{} {}{}", engine.name(), answer.stdout, answer.stderr);
        // An earlier version waited six seconds for each of them.
        assert!(took < Duration::from_secs(60), "{}: {took:?}", engine.name());
        let document = answer.json();
        let (failed, not_begun) = (document["summary"]["failed"].as_u64().unwrap(), document["summary"]["not_begun"].as_u64().unwrap());
        assert_eq!(failed, if engine == Engine::Sqlite { 1 } else { 13 }, "{}", engine.name());
        assert_eq!(failed + not_begun, 40);
        assert!(answer.stderr.contains("stopped: several units in a row could not get their row locks"), "{}", answer.stderr);
        let holder = match engine {
            Engine::Sqlite => format!("warning: process {} (application ", std::process::id()),
            Engine::Postgresql => "warning: process ".to_owned(),
            Engine::Mysql | Engine::Mariadb => format!("warning: connection {} (user ", database.value("SELECT CONNECTION_ID()").unwrap()),
        };
        assert!(answer.stderr.contains(&holder), "{} {}", engine.name(), answer.stderr);
        assert_eq!(whole_units(&database, &ids), 0);
        let list = program.json(0, &["history", "list"]);
        assert_eq!(list["runs"][0]["summary"], document["summary"]);
        program.expect(0, &["history", "verify"]);
        program.expect(0, &["repair", "--yes", "--max-changes", "100"]);
        assert_eq!(whole_units(&database, &ids), 40);
    }
}

/// A missing privilege to see the holder is not an error.
#[test]
fn the_holder_of_a_lock_is_reported_if_the_account_may_see_it() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        let ids = stuck(&database, 1);
        let program = Program::on(database.account(&crate::guards::grants(engine, "repair")));
        database.execute("BEGIN");
        database.execute("UPDATE volumes SET display_name = 'held'");
        let answer = program.expect(11, &["repair", "--yes", "--lock-timeout", "1s"]);
        database.execute("ROLLBACK");
        assert_eq!(answer.stderr.contains("holds the lock"), engine == Engine::Postgresql, "{} {}", engine.name(), answer.stderr);
        assert_eq!(whole_units(&database, &ids), 0);
    }
}

/// Waits until the log has more than `lines` lines.
pub fn wait_for_lines(program: &Program, lines: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read_to_string(program.log()).map_or(0, |text| text.lines().count()) <= lines {
        assert!(Instant::now() < deadline, "the log does not grow");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_run_is_settled_by_reading_the_rows() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let ids = stuck(&database, 2_000);
        let program = Program::on(database.url());
        let mut child = program.start(&["repair", "--yes", "--max-changes", "5000", "--batch-size", "50"]);
        // A begin record, the intents of five batches and the outcomes of four. Then the test takes all locks, so that the program
        // waits in the middle of a batch.
        wait_for_lines(&program, 50 * 9);
        if engine == Engine::Sqlite {
            database.execute("BEGIN IMMEDIATE");
        } else {
            database.execute("BEGIN");
            database.execute("UPDATE volumes SET display_name = display_name");
        }
        thread::sleep(Duration::from_millis(500));
        child.kill().unwrap();
        child.wait().unwrap();
        database.execute("ROLLBACK");
        let applied = whole_units(&database, &ids);
        assert!((200..2_000).contains(&applied), "{}: {applied} of 2000", engine.name());
        let list = program.json(0, &["history", "list"]);
        assert!(!list["runs"][0]["open"].as_array().unwrap().is_empty(), "{list:#}");
        // An undo must not guess, and the next writing run reports the open intents.
        let run = program.last_run();
        program.expect(7, &["undo", &run, "--yes"]);
        let next = program.expect(0, &["repair", "--yes", "--limit", "1"]);
        assert!(next.stderr.contains("history reconcile"), "{}", next.stderr);
        let settled = program.json(0, &["history", "reconcile", &run]);
        let states: Vec<&str> = settled["units"].as_array().unwrap().iter().map(|unit| unit["state"].as_str().unwrap()).collect();
        assert!(states.contains(&"settled") && !states.contains(&"unknown"), "{states:?}");
        let show = program.json(0, &["history", "show", &run]);
        let by_log = show["units"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|unit| {
                let word = if unit["settled"].is_null() { &unit["outcome"]["outcome"] } else { &unit["settled"]["outcome"] };
                word == "applied"
            })
            .count();
        assert_eq!(by_log, applied, "{}: the log agrees with the rows", engine.name());
        program.expect(0, &["history", "verify"]);
        program.expect(0, &["undo", &run, "--yes"]);
        assert_eq!(whole_units(&database, &ids), 1, "only the unit of the later run stays changed");
    }
}

#[test]
fn a_signal_ends_a_run_between_two_units() {
    for (signal, code, word) in [(Signal::INT, 130, "SIGINT"), (Signal::TERM, 143, "SIGTERM")] {
        let database = fresh(Engine::Sqlite, Columns::Full);
        let ids = stuck(&database, 3_000);
        let program = Program::on(database.url());
        let child = program.start(&["repair", "--yes", "--max-changes", "5000", "--batch-size", "20", "-f", "json"]);
        wait_for_lines(&program, 100);
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(&format!("warning: stopped by {word} between two units")), "{stderr}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["interrupted"], word);
        let applied = whole_units(&database, &ids);
        assert_eq!(document["summary"]["applied"], applied, "the result agrees with the rows");
        let units = document["units"].as_array().unwrap();
        let not_begun = units.iter().filter(|unit| unit["outcome"] == "not-begun").count();
        assert_eq!((units.len(), not_begun), (3_000, 3_000 - applied));
        assert_eq!(document["summary"]["not_begun"], not_begun);
        let list = program.json(0, &["history", "list"]);
        let run = &list["runs"][0];
        assert_eq!(run["open"], serde_json::json!([]), "nothing is left open");
        assert_eq!(run["summary"], document["summary"], "the log agrees with the run's result");
        let show = program.json(0, &["history", "show", &program.last_run()]);
        assert_eq!((&show["summary"], &show["end"]["summary"]), (&document["summary"], &document["summary"]));
        let shown = program.expect(0, &["history", "show", &program.last_run(), "-f", "csv"]);
        assert!(!shown.stdout.contains("not-begun") && !shown.stdout.contains("refused"), "{}", shown.stdout);
        assert!(shown.stderr.contains(&format!("{not_begun} units were not begun")), "{}", shown.stderr);
        program.expect(0, &["history", "reconcile"]);
    }
}

#[test]
fn the_table_of_a_stopped_run_does_not_list_units_that_were_not_begun() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let ids = stuck(&database, 3_000);
    let program = Program::on(database.url());
    let child = program.start(&["repair", "--yes", "--max-changes", "5000", "--batch-size", "20", "-f", "csv"]);
    wait_for_lines(&program, 100);
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let applied = whole_units(&database, &ids);
    assert_eq!(stdout.lines().count(), 1 + applied, "{stderr}");
    assert!(stderr.contains(&format!("{applied} applied, {} not begun in ", 3_000 - applied)), "{stderr}");
}

#[test]
fn without_a_log_nothing_is_changed() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let ids = stuck(&database, 1);
    let program = Program::on(database.url());
    let run = |log: &str| {
        let mut command = crate::program::bare(&["repair", "--yes", "--audit-log", log]);
        command.env("CINDER_DATABASE_URL", database.url());
        crate::program::answer(&mut command)
    };
    let file = program.path("file");
    fs::write(&file, "something else\n").unwrap();
    let readable = program.path("readable.jsonl");
    fs::write(&readable, "").unwrap();
    fs::set_permissions(&readable, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let link = program.path("link.jsonl");
    std::os::unix::fs::symlink(program.path("target.jsonl"), &link).unwrap();
    let below_a_file = file.join("audit.jsonl");
    // A bad path is a usage error (2). A file that is not a log or cannot be opened is a failure (1).
    for (code, log) in
        [(1, below_a_file.as_path()), (2, &readable), (2, &link), (2, "/dev/full".as_ref()), (1, &file), (2, program.path("").as_path())]
    {
        let answer = run(log.to_str().unwrap());
        assert_eq!(answer.code, Some(code), "{log:?}: {}", answer.stderr);
        assert!(answer.stderr.contains("no log, no change"), "{log:?}: {}", answer.stderr);
        assert_eq!(whole_units(&database, &ids), 0, "{log:?}");
    }
    // Another run holds the log's lock.
    program.expect(0, &["repair", "--yes"]);
    program.expect(0, &["undo", &program.last_run(), "--yes"]);
    let held = File::open(program.log()).unwrap();
    held.lock().unwrap();
    let answer = program.expect(11, &["repair", "--yes", "--older-than", "0s"]);
    assert!(answer.stderr.contains("in use"), "{}", answer.stderr);
    assert_eq!(whole_units(&database, &ids), 0);
}

#[test]
fn tampering_with_the_log_is_detected() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, 2);
    let program = Program::on(database.url());
    program.expect(0, &["repair", "--yes"]);
    let verified = program.json(0, &["history", "verify"]);
    let last = verified["last_hash"].as_str().unwrap().to_owned();
    program.expect(0, &["history", "verify", "--expect-last", &last]);
    // The head of an empty log does not match a log with records.
    program.expect(9, &["history", "verify", "--expect-last", &"0".repeat(64)]);
    program.expect(0, &["history", "verify", "--expect-last", &format!(" {} ", last.to_uppercase())]);
    // A value that is not a hash, such as an unset variable of a script, is a usage error.
    for none in ["", "zzz", &last[1..]] {
        assert!(program.expect(2, &["history", "verify", "--expect-last", none]).stderr.contains("64 hexadecimal digits"));
    }
    let text = fs::read_to_string(program.log()).unwrap();
    fs::write(program.log(), text.replacen("\"to\":\"error\"", "\"to\":\"creating\"", 1)).unwrap();
    program.expect(9, &["history", "verify"]);
    // A log that was cut off has an intact hash chain. Only the hash that was kept elsewhere shows the loss.
    let cut: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    fs::write(program.log(), cut).unwrap();
    program.expect(0, &["history", "verify"]);
    program.expect(9, &["history", "verify", "--expect-last", &last]);
}

/// How the first COMMIT is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The server receives it, but its answer is lost.
    Answer,
    /// The server never receives it.
    Request,
}

/// A port that forwards everything to a server and breaks the connection at the first COMMIT of a change.
fn lossy_port(server: u16, loss: Loss) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let broken = Arc::new(AtomicBool::new(false));
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { return };
            let broken = Arc::clone(&broken);
            thread::spawn(move || relay(client, upstream, &broken, loss));
        }
    });
    port
}

fn relay(mut client: TcpStream, mut upstream: TcpStream, broken: &Arc<AtomicBool>, loss: Loss) {
    let (mut from_server, mut to_client) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
    let mute = Arc::new(AtomicBool::new(false));
    let muted = Arc::clone(&mute);
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(read) = from_server.read(&mut buffer) {
            if read == 0 || muted.load(Ordering::SeqCst) || to_client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut changing = false;
    let mut buffer = [0; 65_536];
    while let Ok(read) = client.read(&mut buffer) {
        if read == 0 {
            break;
        }
        let chunk = &buffer[..read];
        // Not the COMMITs of the session's set-up.
        changing = changing || chunk.windows(14).any(|window| window == b"UPDATE backups");
        if changing && chunk.windows(6).any(|window| window == b"COMMIT") && !broken.swap(true, Ordering::SeqCst) {
            mute.store(true, Ordering::SeqCst);
            if loss == Loss::Answer {
                let _ = upstream.write_all(chunk);
                thread::sleep(Duration::from_millis(300));
            }
            break;
        }
        if upstream.write_all(chunk).is_err() {
            break;
        }
    }
    let _ = upstream.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}

#[test]
fn a_commit_whose_answer_is_lost_is_settled_by_reading_again() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        for (loss, applied) in [(Loss::Answer, 2), (Loss::Request, 1)] {
            let database = fresh(engine, Columns::Full);
            let ids = stuck(&database, 2);
            let port = lossy_port(database.server().port, loss);
            let own = format!("localhost:{}/", database.server().port);
            let url = database.tcp_url().replace(&own, &format!("127.0.0.1:{port}/"));
            let program = Program::on(database.url());
            program.expect(0, &["plan", "--out", "plan.json"]);
            let program = program.with_url(url);
            let document =
                program.json(if loss == Loss::Answer { 0 } else { 4 }, &["apply", "plan.json", "--yes", "--tls-mode", "disable"]);
            assert_eq!(document["summary"]["applied"], applied, "{} {loss:?}: {document:#}", engine.name());
            assert_eq!(document["summary"]["unknown"], 0);
            assert_eq!(whole_units(&database, &ids), applied, "{} {loss:?}", engine.name());
            let reason = document["units"].to_string();
            assert!(reason.contains("read again") || reason.contains("the server says"), "{} {loss:?}: {reason}", engine.name());
            program.expect(0, &["history", "verify"]);
        }
    }
}

#[test]
fn an_outcome_that_cannot_be_settled_is_reported_as_unknown() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        let ids = stuck(&database, 1);
        let server = database.server().port;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        // One connection, cut at its COMMIT; no other is accepted.
        thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            drop(listener);
            relay(client, TcpStream::connect(("127.0.0.1", server)).unwrap(), &Arc::default(), Loss::Answer);
        });
        let own = format!("localhost:{server}/");
        let url = database.tcp_url().replace(&own, &format!("127.0.0.1:{port}/"));
        let program = Program::on(database.url()).with_url(url);
        let answer = program.expect(7, &["repair", "--yes", "--tls-mode", "disable"]);
        assert!(answer.stderr.contains("unknown"), "{}", answer.stderr);
        assert_eq!(whole_units(&database, &ids), 1, "{}: it was committed", engine.name());
        // Once the database answers, the outcome is settled.
        let program = program.with_url(database.url());
        let settled = program.json(0, &["history", "reconcile"]);
        assert_eq!(settled["units"][0]["outcome"], "applied", "{settled:#}");
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        assert_eq!(whole_units(&database, &ids), 0);
    }
}
