//! Runs that wait for others: for a replica, a server under load, or a file of a person's.

use std::io::Read;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use mysql::prelude::Queryable;
use rustix::process::{Pid, Signal, kill_process};

use crate::database::Database;
use crate::program::Program;
use crate::schemas::{Columns, fresh, on_server};
use crate::servers::{self, Server, mariadb, postgresql};

const DEADLINE: Duration = Duration::from_secs(60);
const TWO_HOURS: i64 = 7_200;
/// Two batches, so that a run also waits in its middle.
const BATCH: [&str; 4] = ["repair", "--yes", "--batch-size", "1"];

fn stuck(database: &Database) {
    for _ in 0..2 {
        database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS));
    }
}

fn repaired(database: &Database) -> i64 {
    database.value("SELECT count(*) FROM backups WHERE status = 'error'").unwrap().parse().unwrap()
}

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "never: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// The exit code, and what it said.
fn end(mut run: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    let code = run.wait().unwrap().code();
    run.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (code, said)
}

#[test]
fn a_run_waits_while_the_pause_file_exists_and_ends_at_a_signal() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database);
    let program = Program::on(database.url());
    let file = program.path("pause");
    std::fs::write(&file, "").unwrap();
    let args = [&BATCH as &[&str], &["--pause-file", file.to_str().unwrap()]].concat();
    // A dry run waits for nothing.
    program.expect(0, &[&args as &[&str], &["--dry-run"]].concat());
    let run = program.start(&args);
    wait_until("a log", || program.log().exists());
    sleep(Duration::from_secs(2));
    assert_eq!(repaired(&database), 0);
    kill_process(Pid::from_child(&run), Signal::INT).unwrap();
    let (code, said) = end(run);
    assert_eq!((code, repaired(&database)), (Some(130), 0), "{said}");
    assert_eq!(said.matches(&format!("Waiting because {} exists (--pause-file)", file.display())).count(), 1, "{said}");
    let run = program.start(&args);
    sleep(Duration::from_secs(1));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(end(run).0, Some(0));
    assert_eq!(repaired(&database), 2);
    program.expect(0, &["history", "verify"]);
    stuck(&database);
    for option in [["--max-load", "5"], ["--max-flow-control", "5"]] {
        let refused = program.expect(2, &[&BATCH as &[&str], &option].concat());
        assert!(refused.stderr.contains("only --pause-file works"), "{}", refused.stderr);
    }
}

#[test]
fn a_run_waits_for_a_server_under_load() {
    for server in [servers::mariadb(), servers::postgresql()] {
        let database = fresh(server.engine, Columns::Full);
        stuck(&database);
        let program = Program::on(database.url());
        // The program's own statement counts.
        let run = program.start(&[&BATCH as &[&str], &["--max-load", "0"]].concat());
        wait_until("a log", || program.log().exists());
        sleep(Duration::from_secs(2));
        kill_process(Pid::from_child(&run), Signal::INT).unwrap();
        let (code, said) = end(run);
        assert!(code == Some(130) && said.contains("sessions of the server run a statement (--max-load 0)"), "{code:?} {said}");
        assert_eq!(repaired(&database), 0);
        program.expect(0, &[&BATCH as &[&str], &["--max-load", "1000", "--max-flow-control", "90"]].concat());
        assert_eq!(repaired(&database), 2);
    }
}

/// Runs until the replica, which was stopped, goes on.
fn waits_for(database: &Database, replica: &Server, begin: impl Fn(), go_on: impl FnOnce(), why: &str) {
    stuck(database);
    let program = Program::on(database.tcp_url());
    let address = format!("127.0.0.1:{}", replica.port);
    let args = [&BATCH as &[&str], &["--max-lag", "1s", "--replica", &address]].concat();
    begin();
    let run = program.start(&args);
    wait_until("a log", || program.log().exists());
    sleep(Duration::from_secs(3));
    assert!(repaired(database) < 2, "it does not wait");
    go_on();
    let (code, said) = end(run);
    assert_eq!((code, repaired(database)), (Some(0), 2), "{said}");
    assert!(said.contains(&format!("Waiting because the replica {address} {why}")), "{said}");
    // The server itself is none.
    let itself = format!("127.0.0.1:{}", database.server().port);
    stuck(database);
    let refused = program.start(&[&BATCH as &[&str], &["--max-lag", "1s", "--replica", &itself]].concat());
    let (code, said) = end(refused);
    assert!(code == Some(1) && said.contains("it is not a replica"), "{code:?} {said}");
    assert_eq!(repaired(database), 2);
}

#[test]
fn a_run_waits_for_a_standby_of_postgresql() {
    let primary: &'static Server = Box::leak(Box::new(postgresql::start(&postgresql::Settings::default())));
    let database = on_server(primary);
    let standby: &'static Server = Box::leak(Box::new(postgresql::start_standby(primary)));
    let there = Database::named(Engine::Postgresql, Some(standby), database.name().to_owned(), true);
    // A standby knows the time of what it has replayed.
    let old = database.backup(|row| row.status("available").host("gone"));
    wait_until("the standby follows", || !there.query(&format!("SELECT id FROM backups WHERE id = '{old}'")).is_empty());
    let pause = || {
        there.value("SELECT pg_wal_replay_pause()");
        // Something to replay, that gets old.
        database.backup(|row| row.status("available").host("gone"));
        sleep(Duration::from_secs(2));
    };
    waits_for(&database, standby, pause, || drop(there.value("SELECT pg_wal_replay_resume()")), "is ");
}

#[test]
fn a_run_waits_for_a_replica_of_mariadb() {
    let start = |id: &str, log: &str| -> &'static Server {
        let options = vec![format!("--server-id={id}"), log.to_owned()];
        Box::leak(Box::new(mariadb::start(&mariadb::Settings { options, ..mariadb::Settings::default() })))
    };
    let (primary, replica) = (start("1", "--log-bin=binlog"), start("2", "--skip-slave-start"));
    let mut source = mariadb::connect(&primary.socket, "root", None).unwrap();
    let place: mysql::Row = source.query_first("SHOW MASTER STATUS").unwrap().unwrap();
    let (file, position): (String, u64) = (place.get(0).unwrap(), place.get(1).unwrap());
    let mut conn = mariadb::connect(&replica.socket, "root", None).unwrap();
    conn.query_drop(format!(
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = '{}', MASTER_PASSWORD = {}, MASTER_LOG_FILE = '{file}',
         MASTER_LOG_POS = {position}",
        primary.port,
        servers::ADMIN,
        mariadb::quote(servers::ADMIN_PASSWORD),
    ))
    .unwrap();
    conn.query_drop("START SLAVE").unwrap();
    let result = conn.query_iter("SHOW REPLICA STATUS").unwrap();
    let at = result.columns().as_ref().iter().position(|column| column.name_str() == "Seconds_Behind_Master");
    assert_eq!(at, Some(32), "the place of the lag");
    drop(result);
    let database = on_server(primary);
    let conn = std::sync::Mutex::new(conn);
    let seconds = || -> Option<i64> {
        let mut conn = conn.lock().unwrap();
        let row: mysql::Row = conn.query_first("SHOW REPLICA STATUS").unwrap().unwrap();
        row.get::<Option<i64>, _>("Seconds_Behind_Master").flatten()
    };
    wait_until("the replica copies", || seconds() == Some(0));
    let run = |statement: &str| conn.lock().unwrap().query_drop(statement).unwrap();
    waits_for(
        &database,
        replica,
        || run("STOP SLAVE SQL_THREAD"),
        || run("START SLAVE SQL_THREAD"),
        "does not say how far it is behind: its copying has stopped",
    );
}

/// Oracle's MySQL has the lag in the same place.
#[test]
fn mysql_shows_the_lag_in_the_same_place() {
    let Some(server) = servers::mysql() else { return };
    let mut conn = mariadb::connect(&server.socket, servers::ADMIN, Some(servers::ADMIN_PASSWORD)).unwrap();
    let result = conn.query_iter("SHOW REPLICA STATUS").unwrap();
    let at = result.columns().as_ref().iter().position(|column| column.name_str() == "Seconds_Behind_Source");
    assert_eq!(at, Some(32));
}
