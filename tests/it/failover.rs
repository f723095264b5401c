//! A COMMIT is delayed on its way while another server answers in place of the one to which it was sent: what is reported then and later.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cinder_backup_repair::audit::{AuditLog, Event, Record};
use cinder_backup_repair::domain::Outcome;
use serde_json::Value;

use crate::database::Database;
use crate::program::Program;
use crate::schemas::on_server;
use crate::servers::{Server, galera, postgresql};

const TWO_HOURS: i64 = 7_200;

/// Called with the COMMIT of a change and its connection, before the client is disconnected.
type Meanwhile = Box<dyn Fn(&mut TcpStream, &[u8]) + Send + Sync>;

/// The connection for a COMMIT, and the COMMIT.
type DelayedCommit = (TcpStream, Vec<u8>);

/// A port that leads to one server until the first COMMIT of a change, which it delays, and then to another server.
struct Gate {
    port: u16,
    delayed: Arc<Mutex<Option<DelayedCommit>>>,
}

impl Gate {
    fn new(first: u16, second: u16, meanwhile: Meanwhile) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let delayed: Arc<Mutex<Option<DelayedCommit>>> = Arc::default();
        let (keep, meanwhile) = (Arc::clone(&delayed), Arc::new(meanwhile));
        let over = Arc::new(AtomicBool::new(false));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), keep, meanwhile, over) = (client, Arc::clone(&keep), Arc::clone(&meanwhile), Arc::clone(&over)) else {
                    return;
                };
                let server = if over.load(Ordering::SeqCst) { second } else { first };
                thread::spawn(move || {
                    let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { return };
                    relay(client, upstream, &over, &**meanwhile, &keep);
                });
            }
        });
        Self { port, delayed }
    }

    /// The URL of a database of the first server, through this port.
    fn url(&self, database: &Database) -> String {
        let own = format!("localhost:{}/", database.server().port);
        database.tcp_url().replace(&own, &format!("127.0.0.1:{}/", self.port))
    }

    /// Lets the COMMIT through and waits for its answer.
    fn release(&self) {
        let (mut upstream, commit) = self.delayed.lock().unwrap().take().expect("a COMMIT was delayed");
        upstream.write_all(&commit).unwrap();
        upstream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert!(upstream.read(&mut [0; 1024]).unwrap() > 0, "an answer");
    }

    /// Closes the connection without sending the COMMIT.
    fn give_up(&self) {
        let (upstream, _) = self.delayed.lock().unwrap().take().expect("a COMMIT was delayed");
        upstream.shutdown(Shutdown::Both).unwrap();
    }
}

fn relay(
    mut client: TcpStream,
    mut upstream: TcpStream,
    over: &AtomicBool,
    meanwhile: &dyn Fn(&mut TcpStream, &[u8]),
    keep: &Mutex<Option<DelayedCommit>>,
) {
    let (mut from_server, mut to_client) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
    let holding = Arc::new(AtomicBool::new(false));
    let is_held = Arc::clone(&holding);
    let answers = thread::spawn(move || {
        let mut buffer = [0; 65_536];
        from_server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        // After the COMMIT is delayed, the next answer belongs to it, and `release` reads it.
        while !is_held.load(Ordering::SeqCst) {
            match from_server.read(&mut buffer) {
                Ok(read @ 1..) if to_client.write_all(&buffer[..read]).is_ok() => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                _ => {
                    let _ = to_client.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    });
    let mut changing = false;
    let mut buffer = [0; 65_536];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let chunk = &buffer[..read];
        changing = changing || chunk.windows(14).any(|window| window == b"UPDATE backups");
        if changing && chunk.windows(6).any(|window| window == b"COMMIT") && !over.swap(true, Ordering::SeqCst) {
            holding.store(true, Ordering::SeqCst);
            answers.join().unwrap();
            meanwhile(&mut upstream, chunk);
            *keep.lock().unwrap() = Some((upstream, chunk.to_vec()));
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        if upstream.write_all(chunk).is_err() {
            break;
        }
    }
    let _ = upstream.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}

fn leaked(server: Server) -> &'static Server {
    Box::leak(Box::new(server))
}

fn stuck(database: &Database) -> (String, String) {
    let volume = database.volume(|row| row.status("backing-up").previous_status("available"));
    let backup = database.backup(|row| row.status("creating").host("gone").volume_id(&volume).age(TWO_HOURS));
    (backup, volume)
}

fn statuses(database: &Database, (backup, volume): &(String, String)) -> (String, String) {
    (database.cell("backups", backup, "status").unwrap(), database.cell("volumes", volume, "status").unwrap())
}

fn pair(backup: &str, volume: &str) -> (String, String) {
    (backup.to_owned(), volume.to_owned())
}

/// Writes a log again, with each event changed by `change`.
pub fn rewrite(log: &Path, change: impl Fn(Event) -> Option<Event>) {
    let text = fs::read_to_string(log).unwrap();
    fs::remove_file(log).unwrap();
    let mut new = AuditLog::open(log, || "2026-11-29T12:00:00Z".to_owned()).unwrap();
    for line in text.lines() {
        let record: Record = serde_json::from_str(line).unwrap();
        if let Some(event) = change(record.event) {
            new.append(&record.run, event).unwrap();
        }
    }
    new.sync().unwrap();
}

/// The event as an older version wrote it, which took unchanged rows on any node for a proof.
fn as_written_by_an_older_version(event: Event) -> Option<Event> {
    match event {
        Event::Outcome(mut outcome) => {
            outcome.outcome = Outcome::Failed;
            outcome.reason =
                Some("cannot commit: the connection broke; read again: every row is as it was before, nothing was written".into());
            outcome.after = Vec::new();
            outcome.sent_to = None;
            Some(Event::Outcome(outcome))
        }
        Event::Settled(_) => None,
        other => Some(other),
    }
}

/// The event of a run whose time to write has ended.
pub fn long_ago(event: Event) -> Option<Event> {
    let Event::Intent(mut intent) = event else { return Some(event) };
    intent.window.as_mut().unwrap().until = "2026-01-01T00:00:00Z".to_owned();
    Some(Event::Intent(intent))
}

#[track_caller]
fn one(document: &Value) -> (&str, &str) {
    let units = document["units"].as_array().unwrap();
    assert_eq!(units.len(), 1, "{document:#}");
    (units[0]["outcome"].as_str().unwrap(), units[0].get("reason").unwrap_or(&units[0]["detail"]).as_str().unwrap_or_default())
}

/// Makes a plan on the server itself and applies it through the gate.
fn apply(database: &Database, gate: &Gate, code: i32) -> (Program, Value) {
    let program = Program::on(database.url());
    program.expect(0, &["plan", "--out", "plan.json"]);
    let program = program.with_url(gate.url(database));
    let document = program.json(code, &["apply", "plan.json", "--yes", "--tls-mode", "disable"]);
    (program, document)
}

#[test]
fn a_commit_that_arrives_late_through_another_node_is_never_reported_as_failed() {
    let nodes: Vec<&Server> = galera::start().into_iter().map(leaked).collect();
    let database = on_server(nodes[0]);
    let elsewhere = Database::named(database.engine(), Some(nodes[1]), database.name().to_owned(), true);
    for arrives in [true, false] {
        let ids = stuck(&database);
        let gate = Gate::new(nodes[0].port, nodes[1].port, Box::new(|_, _| ()));
        let (program, document) = apply(&database, &gate, 7);
        let (outcome, reason) = one(&document);
        assert_eq!(outcome, "unknown", "{document:#}");
        assert!(reason.contains("may still arrive") && reason.contains("run `history reconcile` then"), "{reason}");
        assert_eq!(statuses(&elsewhere, &ids), pair("creating", "backing-up"));
        let program = program.with_url(elsewhere.url());
        let document = program.json(7, &["history", "reconcile"]);
        assert_eq!(one(&document).0, "unknown", "{document:#}");
        // On the node of the transaction, its rows are still locked.
        let program = program.with_url(database.url());
        program.expect(11, &["history", "reconcile", "--lock-timeout", "1s"]);
        if !arrives {
            gate.give_up();
            // The rows can now be locked there, which proves that the transaction has ended.
            let document = program.json(0, &["history", "reconcile", "--lock-timeout", "30s"]);
            assert_eq!(one(&document).0, "failed", "{document:#}");
            assert_eq!(statuses(&database, &ids), pair("creating", "backing-up"));
            continue;
        }
        gate.release();
        let program = program.with_url(elsewhere.url());
        let log = fs::read_to_string(program.log()).unwrap();
        for older in [false, true] {
            fs::write(program.log(), &log).unwrap();
            if older {
                rewrite(&program.log(), as_written_by_an_older_version);
                let list = program.json(0, &["history", "list"]);
                assert_eq!(list["runs"][0]["summary"]["failed"], 1, "{list:#}");
            }
            let document = program.json(0, &["history", "reconcile"]);
            assert_eq!(one(&document).0, "applied", "{document:#}");
            let list = program.json(0, &["history", "list"]);
            assert_eq!((&list["runs"][0]["summary"]["applied"], &list["runs"][0]["summary"]["failed"]), (&1.into(), &0.into()));
        }
        assert_eq!(statuses(&elsewhere, &ids), pair("error", "available"));
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        assert_eq!(statuses(&elsewhere, &ids), pair("creating", "backing-up"));
        database.execute("UPDATE backups SET status = 'error'");
        database.execute("UPDATE volumes SET status = 'available'");
    }
}

#[test]
fn a_run_killed_on_a_cluster_is_reconciled_when_its_time_to_write_has_ended() {
    let nodes: Vec<&Server> = galera::start().into_iter().map(leaked).collect();
    let database = on_server(nodes[0]);
    let ids = stuck(&database);
    let program = Program::on(database.url());
    let examined = program.json(0, &["doctor", "--no-storage"]);
    let [_, server, _] = crate::doctor::lines(&examined, "server")[0];
    assert!(server.ends_with("; a Galera cluster of 3 nodes, this node is Synced"), "{server}");
    database.execute("BEGIN");
    database.execute(&format!("UPDATE volumes SET display_name = 'held' WHERE id = '{}'", ids.1));
    let mut run = program.start(&["repair", "--yes", "--lock-timeout", "30s"]);
    crate::faults::wait_for_lines(&program, 1);
    run.kill().unwrap();
    run.wait().unwrap();
    database.execute("ROLLBACK");
    let document = program.json(7, &["history", "reconcile"]);
    assert_eq!(one(&document).0, "unknown", "{document:#}");
    rewrite(&program.log(), long_ago);
    let document = program.json(0, &["history", "reconcile"]);
    assert_eq!(one(&document).0, "failed", "{document:#}");
    // The outcome is final: nothing is left to reconcile.
    assert_eq!(program.json(0, &["history", "reconcile"])["units"], serde_json::json!([]));
}

/// A lagging standby takes over while the COMMIT is on its way, and uses the transaction's id for another transaction.
#[test]
fn a_transaction_id_of_another_timeline_proves_nothing() {
    for others in [true, false] {
        let primary = leaked(postgresql::start(&postgresql::Settings::default()));
        let database = on_server(primary);
        let ids = stuck(&database);
        let standby = leaked(postgresql::start_standby(primary));
        let promoted = Database::named(database.engine(), Some(standby), database.name().to_owned(), true);
        let begun = Instant::now();
        while promoted.query("SELECT 1 FROM backups").is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the standby does not follow");
        }
        promoted.execute("ALTER SYSTEM SET primary_conninfo = ''");
        promoted.execute("SELECT pg_reload_conf()");
        while promoted.value("SELECT count(*) FROM pg_stat_wal_receiver").as_deref() != Some("0") {
            assert!(begun.elapsed() < Duration::from_secs(60), "the standby still follows");
            thread::sleep(Duration::from_millis(20));
        }
        let name = database.name().to_owned();
        let promote = move |_: &mut TcpStream, _: &[u8]| {
            let there = Database::named(standby.engine, Some(standby), name.clone(), true);
            assert_eq!(there.value("SELECT pg_promote()").as_deref(), Some("t"));
            for _ in 0..if others { 20 } else { 0 } {
                there.execute("UPDATE services SET disabled_reason = 'x'; CREATE TEMPORARY TABLE t (id int); DROP TABLE t");
            }
        };
        let gate = Gate::new(primary.port, standby.port, Box::new(promote));
        let (program, document) = apply(&database, &gate, 7);
        let (outcome, reason) = one(&document);
        assert_eq!(outcome, "unknown", "{document:#}");
        assert!(reason.contains("run `history reconcile` then"), "{reason}");
        assert_eq!(statuses(&promoted, &ids), pair("creating", "backing-up"));
        let program = program.with_url(promoted.url());
        assert_eq!(one(&program.json(7, &["history", "reconcile"])).0, "unknown");
        // The old primary commits it, but only on itself.
        gate.release();
        assert_eq!(statuses(&database, &ids), pair("error", "available"));
        assert_eq!(one(&program.json(7, &["history", "reconcile"])).0, "unknown");
        rewrite(&program.log(), long_ago);
        assert_eq!(one(&program.json(0, &["history", "reconcile"])).0, "failed");
        let there = program.expect(5, &["undo", &program.last_run(), "--yes"]);
        assert!(there.stderr.contains("changed nothing"), "{}", there.stderr);
    }
}

#[test]
fn a_commit_that_reached_the_standby_is_applied_there() {
    let primary = leaked(postgresql::start(&postgresql::Settings::default()));
    let database = on_server(primary);
    let ids = stuck(&database);
    let standby = leaked(postgresql::start_standby(primary));
    let promoted = Database::named(database.engine(), Some(standby), database.name().to_owned(), true);
    let (there, here) = (Database::named(database.engine(), Some(standby), database.name().to_owned(), true), ids.clone());
    // The primary commits; the client learns this only from the standby after it has taken over.
    let commit_and_promote = move |upstream: &mut TcpStream, commit: &[u8]| {
        upstream.write_all(commit).unwrap();
        let begun = Instant::now();
        while statuses(&there, &here) != pair("error", "available") {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not reach the standby");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(there.value("SELECT pg_promote()").as_deref(), Some("t"));
    };
    let gate = Gate::new(primary.port, standby.port, Box::new(commit_and_promote));
    let (program, document) = apply(&database, &gate, 0);
    assert_eq!(one(&document).0, "applied", "{document:#}");
    let program = program.with_url(promoted.url());
    assert_eq!(one(&program.json(0, &["history", "reconcile"])).0, "applied");
    program.expect(0, &["undo", &program.last_run(), "--yes"]);
    assert_eq!(statuses(&promoted, &ids), pair("creating", "backing-up"));
}

/// A lagging replica shows old rows, so an outcome that was read there without a lock is not final.
#[test]
fn an_outcome_that_was_read_without_a_lock_is_read_again() {
    let primary = leaked(postgresql::start(&postgresql::Settings::default()));
    let database = on_server(primary);
    let ids = stuck(&database);
    let standby = leaked(postgresql::start_standby(primary));
    let lagging = Database::named(database.engine(), Some(standby), database.name().to_owned(), true);
    let begun = Instant::now();
    while lagging.query("SELECT 1 FROM backups").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the standby does not follow");
    }
    assert_eq!(lagging.value("SELECT pg_wal_replay_pause()").as_deref(), Some(""));
    let program = Program::on(lagging.url());
    let examined = program.json(13, &["doctor", "--no-storage"]);
    let server = crate::doctor::lines(&examined, "server")[0];
    assert!(server[0] == "failure" && server[2].contains("connect to the primary"), "{server:?}");
    let program = program.with_url(database.url());
    program.expect(0, &["repair", "--yes"]);
    assert_eq!(statuses(&lagging, &ids), pair("creating", "backing-up"));
    // The time to write has just ended.
    let now = jiff::Timestamp::now();
    let just_ended = |event| {
        let Event::Intent(mut intent) = event else { return Some(event) };
        intent.window.as_mut().unwrap().until = now.to_string();
        Some(Event::Intent(intent))
    };
    rewrite(&program.log(), |event| as_written_by_an_older_version(event).and_then(just_ended));
    let program = program.with_url(lagging.url());
    program.expect(0, &["history", "reconcile"]);
    let program = program.with_url(database.url());
    assert_eq!(one(&program.json(0, &["history", "reconcile"])).0, "applied");
    program.expect(0, &["undo", &program.last_run(), "--yes"]);
    assert_eq!(statuses(&database, &ids), pair("creating", "backing-up"));
}
