//! Sessions on real servers: login, TLS, the known state, time-outs, and COMMITs that fail.

mod login;
mod lost;
mod state;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use cinder_backup_repair::config::{Host, ServerKind, ServerTarget, TlsMode, TlsSettings};
use cinder_backup_repair::db::statements::{SNAPSHOT_BY_ID, SNAPSHOT_UPDATE};
use cinder_backup_repair::db::{CommitOutcome, DbError, Engine, Param, Session, SessionSettings, mysql, postgres};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;

use crate::database::Database;
use crate::schemas::{Columns, engines, fresh};
use crate::servers::{self, ADMIN, ADMIN_PASSWORD, Server};

fn plain() -> TlsSettings {
    TlsSettings { mode: TlsMode::Disable, ca: None, cert: None, key: None }
}

fn tls(mode: TlsMode, ca: Option<PathBuf>) -> TlsSettings {
    TlsSettings { mode, ca, ..plain() }
}

/// A target for an account: TCP to `localhost` without TLS.
fn target(server: &Server, user: &str, password: &str, database: &str) -> ServerTarget {
    ServerTarget {
        kind: if server.engine == Engine::Postgresql { ServerKind::Postgresql } else { ServerKind::Mysql },
        host: Host::Tcp("localhost".to_owned()),
        port: server.port,
        database: database.to_owned(),
        user: Some(user.to_owned()),
        password: Some(SecretString::from(password)),
        tls: plain(),
        connect_timeout: None,
        options: None,
    }
}

fn admin(database: &Database) -> ServerTarget {
    target(database.server(), ADMIN, ADMIN_PASSWORD, database.name())
}

fn through_socket(server: &Server, target: ServerTarget) -> ServerTarget {
    ServerTarget { host: Host::Socket(server.socket.clone()), ..target }
}

fn open_with(target: &ServerTarget, settings: &SessionSettings) -> Result<Box<dyn Session>, DbError> {
    match target.kind {
        ServerKind::Mysql => mysql::open(target, settings),
        ServerKind::Postgresql => postgres::open(target, settings),
    }
}

fn open(target: &ServerTarget) -> Result<Box<dyn Session>, DbError> {
    open_with(target, &SessionSettings::default())
}

fn opened(target: &ServerTarget) -> Box<dyn Session> {
    open(target).unwrap_or_else(|error| panic!("{target:?}: {error}"))
}

fn refusal(target: &ServerTarget) -> DbError {
    let error = open(target).err().unwrap_or_else(|| panic!("{target:?} was let in"));
    assert!(error.is_fatal(), "{error}");
    error
}

/// The engines that have a server.
fn server_engines() -> Vec<Engine> {
    engines().into_iter().filter(|engine| *engine != Engine::Sqlite).collect()
}

/// A database on the shared server with a volume and a snapshot, and the snapshot's id.
fn with_snapshot(engine: Engine) -> (Database, String) {
    let database = fresh(engine, Columns::Full);
    let volume = database.volume(|row| row);
    let snapshot = database.snapshot(&volume, |row| row.status("backing-up"));
    (database, snapshot)
}

/// Sets the snapshot's status, guarded by its current values; returns the number of matched rows.
fn update(session: &mut dyn Session, snapshot: &str, status: &str) -> Result<u64, DbError> {
    let rows = session.rows(&SNAPSHOT_BY_ID, &[snapshot.into()])?;
    let row = rows.first().expect("the snapshot is there").clone();
    let params: Vec<Param> =
        vec![status.into(), snapshot.into(), Param::One(row[1].clone()), Param::One(row[2].clone()), Param::One(row[6].clone())];
    session.execute(&SNAPSHOT_UPDATE, &params)
}

fn status(database: &Database, snapshot: &str) -> String {
    database.cell("snapshots", snapshot, "status").unwrap_or_default()
}

fn committed(outcome: CommitOutcome) {
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
}

/// A server for one test, with a row in the table that [`update`] needs.
fn own_server(engine: Engine) -> Server {
    let server = match engine {
        Engine::Mariadb => servers::mariadb::start(&servers::mariadb::Settings::default()),
        Engine::Postgresql => servers::postgresql::start(&servers::postgresql::Settings::default()),
        other => panic!("{other:?} has no server for one test"),
    };
    fill(&server);
    server
}

fn fill(server: &Server) {
    let table = "CREATE TABLE snapshots (id varchar(36) PRIMARY KEY, status varchar(255), volume_id varchar(36), \
                 display_name varchar(255), project_id varchar(255), created_at timestamp NULL, updated_at timestamp NULL, deleted boolean)";
    let row = "INSERT INTO snapshots VALUES ('s', 'backing-up', 'v', NULL, NULL, NULL, NULL, FALSE)";
    if server.engine == Engine::Postgresql {
        let mut client = servers::postgresql::connect(&server.socket, server.port, "postgres", None, "postgres").expect("it answers");
        client.batch_execute(&format!("{table}; {row}; GRANT ALL ON snapshots TO public")).expect("a new table");
        // The harness's server does not flush commits, and a test may kill it.
        client.batch_execute("CHECKPOINT").expect("a superuser");
    } else {
        use ::mysql::prelude::Queryable;
        let mut connection = servers::mariadb::connect(&server.socket, ADMIN, Some(ADMIN_PASSWORD)).expect("it answers");
        connection.query_drop("CREATE DATABASE postgres").expect("a new database");
        connection.select_db("postgres").expect("a new database");
        connection.query_drop(table).expect("a new table");
        connection.query_drop(row).expect("a new row");
    }
}

fn own_target(server: &Server) -> ServerTarget {
    target(server, ADMIN, ADMIN_PASSWORD, "postgres")
}

const OWN_ENGINES: [Engine; 2] = [Engine::Mariadb, Engine::Postgresql];

fn ready(server: &Server) -> bool {
    match server.engine {
        Engine::Postgresql => servers::postgresql::connect(&server.socket, server.port, "postgres", None, "postgres").is_some(),
        _ => servers::mariadb::connect(&server.socket, "root", None).is_some(),
    }
}

/// The child processes of a server: PostgreSQL has one for each session.
fn children(server: &Server) -> Vec<Pid> {
    let pid = server.process.pid().expect("a running server").as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
    children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}

/// Stops or continues a server with all its processes. Returns after a stop when every thread is stopped.
fn signal(server: &Server, signal: Signal) {
    let mut processes = children(server);
    processes.extend(server.process.pid());
    for process in &processes {
        kill_process(*process, signal).expect("the signal is sent");
    }
    let begun = Instant::now();
    while signal == Signal::STOP && !processes.iter().all(|process| is_stopped(*process)) {
        assert!(begun.elapsed() < Duration::from_secs(10), "the server does not stop");
        thread::sleep(Duration::from_millis(2));
    }
}

fn is_stopped(process: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).expect("a process");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The state is the first field after the name in parentheses.
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}

/// Kills a server with all its processes.
fn kill(server: &Server) {
    let children = children(server);
    signal(server, Signal::STOP);
    server.process.kill();
    for child in children {
        kill_process(child, Signal::KILL).expect("the signal is sent");
    }
}

/// Short time-outs, for servers that do not answer.
fn impatient() -> SessionSettings {
    SessionSettings {
        connect_timeout: Duration::from_millis(1500),
        statement_timeout: Duration::from_millis(500),
        lock_timeout: Duration::from_secs(1),
        ..SessionSettings::default()
    }
}
