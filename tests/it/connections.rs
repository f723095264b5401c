//! Sessions on real servers: logging in, TLS, the known state, time-outs, and what is said about a COMMIT that went wrong.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use cinder_backup_repair::config::{Host, ServerKind, ServerTarget, TlsMode, TlsSettings};
use cinder_backup_repair::db::statements::{BACKUPS_BY_IDS_MITAKA, BACKUPS_LIVE_LIBERTY, SNAPSHOT_BY_ID, SNAPSHOT_LOCK, SNAPSHOT_UPDATE};
use cinder_backup_repair::db::{
    Access, CommitOutcome, DbError, DbErrorKind, Engine, ID_BATCH, Param, Session, SessionSettings, mysql, postgres,
};
use cinder_backup_repair::domain::Value;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;

use crate::database::Database;
use crate::schemas::{Columns, engines, fresh};
use crate::servers::certificates::Certificates;
use crate::servers::mariadb::Plugin;
use crate::servers::{self, ADMIN, ADMIN_PASSWORD, Server, ServerName, Transport};

fn plain() -> TlsSettings {
    TlsSettings { mode: TlsMode::Disable, ca: None, cert: None, key: None }
}

fn tls(mode: TlsMode, ca: Option<PathBuf>) -> TlsSettings {
    TlsSettings { mode, ca, ..plain() }
}

/// Where an account connects to: TCP by the name `localhost`, without TLS.
fn target(server: &Server, user: &str, password: &str, database: &str) -> ServerTarget {
    ServerTarget {
        kind: if server.engine == Engine::Postgresql { ServerKind::Postgresql } else { ServerKind::Mysql },
        host: Host::Tcp { name: "localhost".to_owned(), port: server.port },
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
    ServerTarget { host: Host::Socket { path: server.socket.clone() }, ..target }
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

/// Sets the snapshot's status, guarded by what is there now; gives the number of matched rows.
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

/// A server of a test's own, with the table that [`update`] needs and a row in it.
fn own_server(engine: Engine) -> Server {
    let server = match engine {
        Engine::Mariadb => servers::mariadb::start(&servers::mariadb::Settings::default()),
        Engine::Postgresql => servers::postgresql::start(&servers::postgresql::Settings::default()),
        other => panic!("no server of its own for {other:?}"),
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
        // The harness's server does not flush what is committed, and a test may kill it.
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

/// The processes of a server beside the first: PostgreSQL has one for each session.
fn children(server: &Server) -> Vec<Pid> {
    let pid = server.process.pid().expect("a running server").as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
    children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}

/// Stops or continues a server with all its processes; once stopped, no thread of it does anything.
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
        // The state is the first field behind the name, which stands in parentheses.
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}

/// Kills a server so that no process of it does anything any more.
fn kill(server: &Server) {
    let children = children(server);
    signal(server, Signal::STOP);
    server.process.kill();
    for child in children {
        kill_process(child, Signal::KILL).expect("the signal is sent");
    }
}

/// Settings with which a server that does not answer is given up within a few seconds.
fn impatient() -> SessionSettings {
    SessionSettings {
        connect_timeout: Duration::from_millis(1500),
        statement_timeout: Duration::from_millis(500),
        lock_timeout: Duration::from_secs(1),
        ..SessionSettings::default()
    }
}

#[test]
fn a_password_logs_in_with_and_without_tls_and_through_the_socket() {
    let authority = Certificates::get().authority();
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let grant = if engine == Engine::Postgresql { "" } else { "GRANT SELECT ON {database}.backups TO {user}" };
        let account = database.account_with(grant, Plugin::Default, Transport::Any);
        let server = database.server();
        // With TLS first: MySQL then still wants the password itself, which it later has a digest of.
        let over_tcp = target(server, &account.user, &account.password, database.name());
        let over_tls = ServerTarget { tls: tls(TlsMode::VerifyFull, Some(authority.clone())), ..over_tcp.clone() };
        assert!(opened(&over_tls).is_encrypted(), "{engine:?}");
        assert!(!opened(&over_tcp).is_encrypted(), "{engine:?}");
        let session = opened(&through_socket(server, over_tcp.clone()));
        assert_eq!(session.server().engine, engine);
        assert!(session.server().user.as_deref().is_some_and(|user| user.starts_with(&account.user)), "{engine:?}");

        let wrong = ServerTarget { password: Some(SecretString::from("wrong")), ..over_tcp.clone() };
        let error = refusal(&wrong);
        assert_eq!(error.kind, DbErrorKind::Authentication, "{engine:?}: {error}");
        assert!(!format!("{error:?}").contains("wrong"), "{engine:?}: {error:?}");
        let missing = ServerTarget { password: None, ..over_tcp };
        assert_eq!(refusal(&missing).kind, DbErrorKind::Authentication, "{engine:?}");
    }
}

#[test]
fn mariadb_s_ed25519_logs_in() {
    let database = fresh(Engine::Mariadb, Columns::Full);
    let server = database.server();
    let grants = "GRANT SELECT ON {database}.backups TO {user}";
    let ed25519 = database.account_with(grants, Plugin::Ed25519, Transport::Any);
    opened(&target(server, &ed25519.user, &ed25519.password, database.name()));
    let wrong = refusal(&target(server, &ed25519.user, "wrong", database.name()));
    assert_eq!(wrong.kind, DbErrorKind::Authentication, "{wrong}");
}

#[test]
fn the_system_s_user_logs_in_through_the_socket_alone() {
    use ::mysql::prelude::Queryable;
    let server = servers::mariadb::start(&servers::mariadb::Settings::default());
    let mut connection = servers::mariadb::connect(&server.socket, ADMIN, Some(ADMIN_PASSWORD)).expect("it answers");
    let user = servers::mariadb::user_name();
    // The server comes with accounts of this name that need no password.
    let hosts: Vec<String> = connection.query(format!("SELECT host FROM mysql.user WHERE user = '{user}'")).expect("hosts");
    for host in hosts {
        connection.query_drop(format!("DROP USER '{user}'@'{host}'")).expect("dropped");
    }
    connection.query_drop(format!("CREATE USER '{user}'@'%' IDENTIFIED VIA unix_socket")).expect("a new account");
    connection.query_drop(format!("GRANT SELECT ON mysql.* TO '{user}'@'%'")).expect("granted");
    let without = ServerTarget { password: None, ..target(&server, &user, "", "mysql") };
    let session = opened(&through_socket(&server, without.clone()));
    assert_eq!(session.server().user, Some(format!("{user}@%")));
    let error = refusal(&without);
    assert_eq!(error.kind, DbErrorKind::Authentication, "{error}");
    assert!(error.message.contains("through the server's socket only"), "{error}");
}

#[test]
fn mysql_s_password_does_not_cross_a_network_without_tls() {
    let settings = servers::mysql::Settings { options: vec!["--bind-address=0.0.0.0".to_owned()], ..servers::mysql::Settings::default() };
    let Some(server) = servers::mysql::start(&settings) else {
        eprintln!("Oracle's MySQL is not installed");
        return;
    };
    let Some(address) = outer_address() else {
        eprintln!("this machine has no address but the loopback's");
        return;
    };
    let far = ServerTarget {
        host: Host::Tcp { name: address.to_string(), port: server.port },
        ..target(&server, ADMIN, ADMIN_PASSWORD, "mysql")
    };
    let error = refusal(&far);
    assert_eq!(error.kind, DbErrorKind::Authentication, "{error}");
    assert!(error.message.contains("use TLS or the server's socket"), "{error}");
    let allowed = SessionSettings { insecure_auth: true, ..SessionSettings::default() };
    assert!(open_with(&far, &allowed).is_ok_and(|session| !session.is_encrypted()));
    // From here on the server has a digest of the password, and the password itself need not travel.
    opened(&far);
}

/// An IPv4 address of this machine that is not the loopback's.
fn outer_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent: this only asks for the route.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

#[test]
fn only_the_given_authority_is_trusted() {
    let certificates = Certificates::get();
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let with = |mode, ca| ServerTarget { tls: tls(mode, ca), ..admin(&database) };
        for mode in [TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
            let session = opened(&with(mode, Some(certificates.authority())));
            assert!(session.is_encrypted(), "{engine:?} {mode:?}");
            let error = refusal(&with(mode, Some(certificates.other_authority())));
            assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?} {mode:?}: {error}");
            assert!(error.message.contains("is not signed by an authority in"), "{engine:?} {mode:?}: {error}");
            assert!(error.message.contains("other.crt"), "{engine:?} {mode:?}: {error}");
        }
        // Without a CA file there is nothing to verify with, or the system's authorities, which know nothing of ours.
        assert!(opened(&with(TlsMode::Prefer, None)).is_encrypted(), "{engine:?}");
        assert!(opened(&with(TlsMode::Require, None)).is_encrypted(), "{engine:?}");
        assert_eq!(refusal(&with(TlsMode::VerifyCa, None)).kind, DbErrorKind::Configuration, "{engine:?}");
        let error = refusal(&with(TlsMode::VerifyFull, None));
        assert!(matches!(error.kind, DbErrorKind::Connection | DbErrorKind::Configuration), "{engine:?}: {error}");
        // The address is in the certificate too.
        let by_address = ServerTarget {
            host: Host::Tcp { name: "127.0.0.1".to_owned(), port: database.server().port },
            ..with(TlsMode::VerifyFull, Some(certificates.authority()))
        };
        assert!(opened(&by_address).is_encrypted(), "{engine:?}");
    }
}

#[test]
fn the_name_in_the_certificate_counts_where_it_should() {
    let certificate = ServerName::Elsewhere;
    let own = [
        servers::mariadb::start(&servers::mariadb::Settings { certificate, ..Default::default() }),
        servers::postgresql::start(&servers::postgresql::Settings { certificate, ..Default::default() }),
    ];
    for server in &own {
        let engine = server.engine;
        let database = if engine == Engine::Postgresql { "postgres" } else { "mysql" };
        let with = |mode| ServerTarget {
            tls: tls(mode, Some(Certificates::get().authority())),
            ..target(server, ADMIN, ADMIN_PASSWORD, database)
        };
        assert!(opened(&with(TlsMode::VerifyCa)).is_encrypted(), "{engine:?}");
        assert!(opened(&with(TlsMode::Require)).is_encrypted(), "{engine:?}");
        let error = refusal(&with(TlsMode::VerifyFull));
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.message.contains("elsewhere.example") && error.message.contains("localhost"), "{engine:?}: {error}");
    }
}

#[test]
fn a_client_certificate_is_shown_where_one_is_demanded() {
    let certificates = Certificates::get();
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let grants = if engine == Engine::Postgresql { "" } else { "GRANT SELECT ON {database}.backups TO {user}" };
        let account = database.account_with(grants, Plugin::Default, Transport::ClientCertificate);
        let base = target(database.server(), &account.user, &account.password, database.name());
        let (cert, key) = certificates.client();
        let verified = tls(TlsMode::VerifyFull, Some(certificates.authority()));
        let shown = TlsSettings { cert: Some(cert), key: Some(key), ..verified.clone() };
        assert!(opened(&ServerTarget { tls: shown, ..base.clone() }).is_encrypted(), "{engine:?}");
        for without in [verified, plain()] {
            let error = refusal(&ServerTarget { tls: without, ..base.clone() });
            assert_eq!(error.kind, DbErrorKind::Authentication, "{engine:?}: {error}");
        }
        let tls_only = database.account_with(grants, Plugin::Default, Transport::Tls);
        let base = target(database.server(), &tls_only.user, &tls_only.password, database.name());
        assert_eq!(refusal(&base).kind, DbErrorKind::Authentication, "{engine:?}");
        assert!(opened(&ServerTarget { tls: tls(TlsMode::Prefer, None), ..base }).is_encrypted(), "{engine:?}");
    }
}

#[test]
fn a_server_without_tls_is_told_from_one_with() {
    let own = [
        servers::mariadb::start(&servers::mariadb::Settings { options: vec!["--skip-ssl".to_owned()], ..Default::default() }),
        servers::postgresql::start(&servers::postgresql::Settings { options: vec!["ssl = off".to_owned()], ..Default::default() }),
    ];
    for server in &own {
        let engine = server.engine;
        let database = if engine == Engine::Postgresql { "postgres" } else { "mysql" };
        let with = |mode| ServerTarget { tls: tls(mode, None), ..target(server, ADMIN, ADMIN_PASSWORD, database) };
        assert!(!opened(&with(TlsMode::Prefer)).is_encrypted(), "{engine:?}");
        let error = refusal(&with(TlsMode::Require));
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.message.contains("offers no TLS"), "{engine:?}: {error}");
    }
}

#[test]
fn what_is_wrong_with_the_place_is_said_in_a_sentence() {
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let at = |name: &str, port| ServerTarget { host: Host::Tcp { name: name.to_owned(), port }, ..admin(&database) };
        let closed = servers::free_port();
        let error = refusal(&at("localhost", closed));
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.message.contains(&format!("nothing listens at localhost:{closed}")), "{engine:?}: {error}");
        let full = ServerTarget { tls: tls(TlsMode::VerifyFull, Some(Certificates::get().authority())), ..at("localhost", closed) };
        assert!(refusal(&full).message.contains("localhost"), "{engine:?}");
        let error = refusal(&at("no-such-host.invalid", 3306));
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.message.contains("cannot find the address of no-such-host.invalid:3306"), "{engine:?}: {error}");
        let error = refusal(&ServerTarget { host: Host::Socket { path: "/nonexistent/socket".into() }, ..admin(&database) });
        assert!(error.message.contains("/nonexistent/socket") && error.message.contains("does not exist"), "{engine:?}: {error}");
        let error = refusal(&ServerTarget { database: "no_such_database".to_owned(), ..admin(&database) });
        assert_eq!(error.kind, DbErrorKind::Schema, "{engine:?}: {error}");
        assert!(!format!("{error:?}").contains(ADMIN_PASSWORD), "{engine:?}");
    }
}

#[test]
fn the_identity_is_the_same_for_every_account_and_way_in() {
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let grants = match engine {
            Engine::Postgresql => "GRANT SELECT ON backups TO {user}",
            _ => "GRANT SELECT ON {database}.backups TO {user}",
        };
        let account = database.account_with(grants, Plugin::Default, Transport::Any);
        let reader = target(database.server(), &account.user, &account.password, database.name());
        let mut sessions = [opened(&admin(&database)), opened(&reader), opened(&through_socket(database.server(), reader.clone()))];
        let identity = sessions[0].server().identity.clone();
        assert!(identity.ends_with(&format!("/{}", database.name())), "{identity}");
        assert!(identity.len() > database.name().len() + 20, "{identity}");
        for session in &mut sessions {
            assert_eq!(session.server().identity, identity, "{engine:?}");
            assert!(!session.server().read_only && !session.server().galera, "{engine:?}");
            assert!(session.server().version.chars().next().is_some_and(|first| first.is_ascii_digit()), "{engine:?}");
            assert_eq!(session.rows(&BACKUPS_LIVE_LIBERTY, &[]).expect("SELECT was granted"), Vec::<Vec<Value>>::new(), "{engine:?}");
        }
        let error = sessions[1].rows(&SNAPSHOT_BY_ID, &["x".into()]).expect_err("not granted");
        assert_eq!(error.kind, DbErrorKind::Privilege, "{engine:?}: {error}");
        let other = fresh(engine, Columns::Full);
        assert_ne!(opened(&admin(&other)).server().identity, identity, "{engine:?}");
    }
}

#[test]
fn postgresql_has_one_identity_even_where_its_identifier_is_kept_from_accounts() {
    let database = fresh(Engine::Postgresql, Columns::Full);
    database.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    let account = database.account_with("GRANT SELECT ON backups TO {user}", Plugin::Default, Transport::Any);
    let reader = opened(&target(database.server(), &account.user, &account.password, database.name())).server().identity.clone();
    assert!(reader.starts_with("postgresql:database-"), "{reader}");
    assert_eq!(opened(&admin(&database)).server().identity, reader);
}

#[test]
fn a_row_policy_that_hides_rows_is_an_error() {
    let database = fresh(Engine::Postgresql, Columns::Full);
    database.execute("ALTER TABLE backups ENABLE ROW LEVEL SECURITY");
    let account = database.account_with("GRANT SELECT ON backups TO {user}", Plugin::Default, Transport::Any);
    let mut session = opened(&target(database.server(), &account.user, &account.password, database.name()));
    let error = session.rows(&BACKUPS_LIVE_LIBERTY, &[]).expect_err("all rows are hidden");
    assert_eq!(error.kind, DbErrorKind::Privilege, "{error}");
    assert!(error.message.contains("BYPASSRLS"), "{error}");
}

#[test]
fn a_server_that_takes_no_writes_says_so() {
    let database = fresh(Engine::Postgresql, Columns::Full);
    database.execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name()));
    assert!(opened(&admin(&database)).server().read_only);

    let standby = own_server(Engine::Postgresql);
    standby.process.kill();
    std::fs::write(standby.process.dir().join("data/standby.signal"), "").expect("the folder is ours");
    standby.process.start(&|| ready(&standby));
    let mut session = opened(&own_target(&standby));
    assert!(session.server().read_only);
    let error = session.begin(Access::Write).expect_err("it is a standby");
    assert_eq!(error.kind, DbErrorKind::NotPrimary, "{error}");
    assert_eq!(session.rows(&SNAPSHOT_BY_ID, &["s".into()]).expect("it can be read").len(), 1);

    let settings = servers::mariadb::Settings { options: vec!["--read-only=ON".to_owned()], ..Default::default() };
    let server = servers::mariadb::start(&settings);
    assert!(opened(&target(&server, ADMIN, ADMIN_PASSWORD, "mysql")).server().read_only);
}

#[test]
fn a_read_only_transaction_is_held_so_by_the_database() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut session = opened(&admin(&database));
        session.begin(Access::ReadOnly).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let error = update(&mut *session, &snapshot, "available").expect_err("read-only");
        assert_eq!(error.kind, DbErrorKind::Other, "{engine:?}: {error}");
        let code = if engine == Engine::Postgresql { "25006" } else { "1792" };
        assert_eq!(error.code.as_deref(), Some(code), "{engine:?}");
        session.rollback().unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(status(&database, &snapshot), "backing-up", "{engine:?}");
    }
}

#[test]
fn a_read_only_transaction_sees_one_moment() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut session = opened(&admin(&database));
        session.begin(Access::ReadOnly).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let before = session.rows(&SNAPSHOT_BY_ID, &[snapshot.as_str().into()]).expect("read");
        database.execute("UPDATE snapshots SET status = 'error'");
        assert_eq!(session.rows(&SNAPSHOT_BY_ID, &[snapshot.as_str().into()]).expect("read"), before, "{engine:?}");
        committed(session.commit());
        let after = session.rows(&SNAPSHOT_BY_ID, &[snapshot.as_str().into()]).expect("read");
        assert_eq!(after[0][1], Value::from("error"), "{engine:?}");
    }
}

#[test]
fn a_transaction_is_committed_or_rolled_back_whole() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut session = opened(&admin(&database));
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, &snapshot, "available").expect("written"), 1, "{engine:?}");
        session.rollback().unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(status(&database, &snapshot), "backing-up", "{engine:?}");
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, &snapshot, "available").expect("written"), 1, "{engine:?}");
        let stale: Vec<Param> = vec!["error".into(), snapshot.as_str().into(), "backing-up".into(), "x".into(), Param::One(Value::Null)];
        assert_eq!(session.execute(&SNAPSHOT_UPDATE, &stale).expect("nothing matches"), 0, "{engine:?}");
        committed(session.commit());
        assert_eq!(status(&database, &snapshot), "available", "{engine:?}");
    }
}

#[test]
fn a_transaction_with_a_failed_statement_is_never_committed() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut session = opened(&admin(&database));
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, &snapshot, "available").expect("written"), 1, "{engine:?}");
        // Too long for the column, which MySQL would cut off outside of its strict mode.
        let error = update(&mut *session, &snapshot, &"x".repeat(300)).expect_err("300 characters do not fit");
        assert_eq!(error.kind, DbErrorKind::Other, "{engine:?}: {error}");
        // On MySQL it would be carried out, and after a deadlock even committed by itself.
        session.rows(&SNAPSHOT_BY_ID, &[snapshot.as_str().into()]).expect_err("the transaction has failed");
        let outcome = session.commit();
        assert!(matches!(outcome, CommitOutcome::NotCommitted(_)), "{engine:?}: {outcome:?}");
        assert_eq!(status(&database, &snapshot), "backing-up", "{engine:?}");
        // The session goes on.
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, &snapshot, "available").expect("written"), 1, "{engine:?}");
        committed(session.commit());
    }
}

#[test]
fn rows_count_as_matched_whether_or_not_they_change() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut direct = opened(&admin(&database));
        // The same through something that takes CLIENT_FOUND_ROWS out of the log in.
        let relay = Relay::start(database.server().port, |first, bytes| {
            if first && bytes.len() > 4 {
                bytes[4] &= !2;
            }
        });
        let far = ServerTarget { host: Host::Tcp { name: "127.0.0.1".to_owned(), port: relay.port }, ..admin(&database) };
        let mut sessions = vec![&mut direct];
        let mut relayed = (engine != Engine::Postgresql).then(|| opened(&far));
        sessions.extend(relayed.iter_mut());
        for session in sessions {
            // Two in the same second write the same time, so that the second changes nothing; five, to be sure of it.
            for _ in 0..5 {
                session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
                assert_eq!(update(&mut **session, &snapshot, "available").expect("written"), 1, "{engine:?}");
                committed(session.commit());
            }
        }
    }
}

#[test]
fn a_state_that_something_in_between_does_not_keep_is_noticed() {
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let (wanted, found): (&[u8], &[u8]) =
            if engine == Engine::Postgresql { (b"'TimeZone', 'UTC'", b"'TimeZone', 'CET'") } else { (b"'+00:00'", b"'+01:00'") };
        let relay = Relay::start(database.server().port, move |_, bytes| {
            if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                bytes[at..at + wanted.len()].copy_from_slice(found);
            }
        });
        let far = ServerTarget { host: Host::Tcp { name: "127.0.0.1".to_owned(), port: relay.port }, ..admin(&database) };
        let error = refusal(&far);
        assert_eq!(error.kind, DbErrorKind::SessionState, "{engine:?}: {error}");
        let (name, value) = if engine == Engine::Postgresql { ("TimeZone", "CET") } else { ("time_zone", "+01:00") };
        assert!(error.message.contains(name) && error.message.contains(value), "{engine:?}: {error}");
    }
}

/// Stands between a session and its server, and may change what the session sends; the first piece is marked.
struct Relay {
    port: u16,
}

impl Relay {
    fn start(server: u16, change: impl Fn(bool, &mut [u8]) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            let Ok((mut client, _)) = listener.accept() else { return };
            let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).expect("the server listens");
            let (mut answers, mut back) = (upstream.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
            thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            let mut buffer = vec![0; 1 << 16];
            let mut first = true;
            while let Ok(length @ 1..) = client.read(&mut buffer) {
                change(first, &mut buffer[..length]);
                first = false;
                if upstream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            let _ = upstream.shutdown(Shutdown::Both);
        });
        Self { port }
    }
}

#[test]
fn lists_of_ids_of_every_length_find_their_rows() {
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let ids: Vec<String> = (0..ID_BATCH).map(|_| database.backup(|row| row)).collect();
        let mut session = opened(&admin(&database));
        for length in [1, 2, ID_BATCH - 1, ID_BATCH] {
            let rows = session.rows(&BACKUPS_BY_IDS_MITAKA, &[Param::Ids(ids[..length].to_vec())]);
            let rows = rows.unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            let mut found: Vec<&str> = rows.iter().filter_map(|row| row[0].as_text()).collect();
            found.sort_unstable();
            let mut wanted: Vec<&str> = ids[..length].iter().map(String::as_str).collect();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{engine:?}");
        }
    }
}

#[test]
fn a_query_can_be_left_early() {
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        // More than the server and the session hold between them.
        let values: Vec<String> = (0..4000).map(|number| format!("('{number}', 'available', 'v', '{}', FALSE)", "x".repeat(200))).collect();
        database
            .execute(&format!("INSERT INTO backups (id, status, volume_id, display_description, deleted) VALUES {}", values.join(", ")));
        let mut session = opened(&admin(&database));
        for access in [None, Some(Access::ReadOnly)] {
            if let Some(access) = access {
                session.begin(access).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            }
            let mut seen = 0;
            let left = session.query(&BACKUPS_LIVE_LIBERTY, &[], &mut |_| {
                seen += 1;
                if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            left.unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            assert_eq!(seen, 3, "{engine:?}");
            let mut all = 0;
            let whole = session.query(&BACKUPS_LIVE_LIBERTY, &[], &mut |_| {
                all += 1;
                ControlFlow::Continue(())
            });
            whole.unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            assert_eq!(all, 4000, "{engine:?}");
        }
        committed(session.commit());
    }
}

#[test]
fn a_lock_is_waited_for_no_longer_than_told() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut holder = opened(&admin(&database));
        holder.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        holder.rows(&SNAPSHOT_LOCK, &[snapshot.as_str().into()]).unwrap_or_else(|error| panic!("{engine:?}: {error}"));

        let settings = SessionSettings { lock_timeout: Duration::from_secs(1), ..SessionSettings::default() };
        let mut waiting = open_with(&admin(&database), &settings).expect("a second session");
        waiting.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let begun = Instant::now();
        let error = waiting.rows(&SNAPSHOT_LOCK, &[snapshot.as_str().into()]).expect_err("it is locked");
        assert_eq!(error.kind, DbErrorKind::LockTimeout, "{engine:?}: {error}");
        assert!(error.is_retryable() && !error.is_fatal(), "{engine:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{engine:?}: {:?}", begun.elapsed());
        waiting.rollback().unwrap_or_else(|error| panic!("{engine:?}: {error}"));

        // The limit of a statement where the lock's is longer; MySQL has none for what takes locks.
        if engine != Engine::Mysql {
            let settings = SessionSettings {
                lock_timeout: Duration::from_secs(20),
                statement_timeout: Duration::from_millis(1500),
                ..SessionSettings::default()
            };
            let mut waiting = open_with(&admin(&database), &settings).expect("a third session");
            waiting.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            let begun = Instant::now();
            let error = waiting.rows(&SNAPSHOT_LOCK, &[snapshot.as_str().into()]).expect_err("it is locked");
            assert_eq!(error.kind, DbErrorKind::Timeout, "{engine:?}: {error}");
            assert!(!error.is_fatal() && begun.elapsed() < Duration::from_secs(5), "{engine:?}: {:?}", begun.elapsed());
        }
        holder.rollback().unwrap_or_else(|error| panic!("{engine:?}: {error}"));
    }
}

#[test]
fn a_server_that_stops_answering_is_given_up() {
    for engine in OWN_ENGINES {
        let server = own_server(engine);
        let target = own_target(&server);
        let mut session = open_with(&target, &impatient()).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        signal(&server, Signal::STOP);

        let begun = Instant::now();
        let error = open_with(&target, &impatient()).err().expect("it does not answer");
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{engine:?}: {:?}", begun.elapsed());

        let begun = Instant::now();
        let error = session.rows(&SNAPSHOT_BY_ID, &["s".into()]).expect_err("it does not answer");
        assert_eq!(error.kind, DbErrorKind::Timeout, "{engine:?}: {error}");
        assert!(error.is_fatal() && begun.elapsed() < Duration::from_secs(9), "{engine:?}: {:?}", begun.elapsed());

        // Even when the server goes on: its next answer would be that to the first question.
        signal(&server, Signal::CONT);
        let begun = Instant::now();
        for _ in 0..2 {
            let again = session.rows(&SNAPSHOT_BY_ID, &["s".into()]).expect_err("the session is over");
            assert!(again.is_fatal() && again.message == error.message, "{engine:?}: {again}");
        }
        assert!(session.begin(Access::Write).is_err_and(|error| error.is_fatal()), "{engine:?}");
        assert!(session.rollback().is_err_and(|error| error.is_fatal()), "{engine:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{engine:?}");
        assert_eq!(opened(&target).rows(&SNAPSHOT_BY_ID, &["s".into()]).expect("a new session").len(), 1, "{engine:?}");
    }
}

#[test]
fn a_commit_without_an_answer_is_unknown() {
    for engine in OWN_ENGINES {
        let server = own_server(engine);
        let target = own_target(&server);
        let mut session = open_with(&target, &impatient()).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let begin = |status: &str| {
            let mut session = open_with(&target, &impatient()).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            assert_eq!(update(&mut *session, "s", status).expect("written"), 1, "{engine:?}");
            let id = session.transaction_id();
            assert_eq!(id.is_some(), engine == Engine::Postgresql, "{engine:?}");
            (session, id)
        };
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(session.transaction_id(), None, "{engine:?}: nothing was written yet");
        session.rollback().unwrap_or_else(|error| panic!("{engine:?}: {error}"));

        // Committed and answered.
        let (mut writer, first) = begin("available");
        committed(writer.commit());

        // The server is stopped during COMMIT and goes on afterwards.
        let (mut writer, second) = begin("error");
        signal(&server, Signal::STOP);
        let outcome = writer.commit();
        signal(&server, Signal::CONT);
        let CommitOutcome::Unknown(error) = outcome else { panic!("{engine:?}: {outcome:?}") };
        assert!(error.is_fatal(), "{engine:?}: {error}");
        drop(writer);

        // The server is killed before it gets COMMIT.
        if engine == Engine::Postgresql {
            let known = |id: &Option<String>, session: &mut dyn Session| {
                session.transaction_status(id.as_deref().expect("an id")).unwrap_or_else(|error| panic!("{error}"))
            };
            let deadline = Instant::now() + Duration::from_secs(10);
            while known(&second, &mut *session).is_none() {
                assert!(Instant::now() < deadline, "the transaction neither ends nor fails");
                thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(known(&first, &mut *session), Some(true));
            let mut undone = opened(&target);
            undone.begin(Access::Write).expect("begun");
            assert_eq!(update(&mut *undone, "s", "deleted").expect("written"), 1);
            let third = undone.transaction_id();
            assert_eq!(known(&third, &mut *session), None, "in progress");
            undone.rollback().expect("rolled back");
            assert_eq!(known(&third, &mut *session), Some(false));
        }
        let (mut writer, _) = begin("deleting");
        kill(&server);
        let outcome = writer.commit();
        assert!(matches!(outcome, CommitOutcome::Unknown(_)), "{engine:?}: {outcome:?}");
        server.process.start(&|| ready(&server));
        let rows = opened(&target).rows(&SNAPSHOT_BY_ID, &["s".into()]).expect("a new session");
        assert_ne!(rows[0][1], Value::from("deleting"), "{engine:?}");
    }
}

#[test]
fn a_connection_that_is_lost_before_commit_has_certainly_not_committed() {
    for engine in OWN_ENGINES {
        let server = own_server(engine);
        let mut session = opened(&own_target(&server));
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, "s", "available").expect("written"), 1, "{engine:?}");
        kill(&server);
        let error = session.rows(&SNAPSHOT_BY_ID, &["s".into()]).expect_err("the server is gone");
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.is_fatal(), "{engine:?}: {error}");
        let outcome = session.commit();
        assert!(matches!(&outcome, CommitOutcome::NotCommitted(error) if error.is_fatal()), "{engine:?}: {outcome:?}");
    }
}

#[test]
fn a_galera_cluster_is_one_database_and_its_lost_nodes_are_refused() {
    let nodes = servers::galera::start();
    fill(&nodes[0]);
    let at = own_target;
    let identities: Vec<String> = nodes
        .iter()
        .map(|node| {
            let mut session = opened(&at(node));
            assert!(session.server().galera && !session.server().read_only);
            session.begin(Access::ReadOnly).expect("begun");
            committed(session.commit());
            session.server().identity.clone()
        })
        .collect();
    assert!(identities[0].starts_with("galera:") && identities.iter().all(|identity| *identity == identities[0]), "{identities:?}");

    // Two nodes change the same row: the first to commit wins, on every node at once, and the other has certainly not.
    let (mut loser, mut winner) = (opened(&at(&nodes[0])), opened(&at(&nodes[1])));
    for (session, status) in [(&mut loser, "error"), (&mut winner, "available")] {
        session.begin(Access::Write).expect("begun");
        assert_eq!(update(&mut **session, "s", status).expect("written"), 1);
    }
    committed(winner.commit());
    let rows = opened(&at(&nodes[2])).rows(&SNAPSHOT_BY_ID, &["s".into()]).expect("read");
    assert_eq!(rows[0][1], Value::from("available"), "reads wait for what the cluster has committed");
    let outcome = loser.commit();
    let CommitOutcome::NotCommitted(error) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind, DbErrorKind::Conflict, "{error}");
    loser.begin(Access::Write).expect("the session goes on");
    assert_eq!(update(&mut *loser, "s", "error").expect("written"), 1);
    committed(loser.commit());

    nodes[1].process.kill();
    nodes[2].process.kill();
    let deadline = Instant::now() + Duration::from_secs(90);
    let error = loop {
        match open(&at(&nodes[0])) {
            // Until the node has noticed, it waits for the others in vain.
            Err(error) if error.kind != DbErrorKind::LockTimeout => break error,
            Err(error) => assert!(error.message.contains("did not catch up with its cluster"), "{error}"),
            Ok(_) => {}
        }
        assert!(Instant::now() < deadline, "the node still thinks itself in the primary component");
        thread::sleep(Duration::from_millis(300));
    };
    assert_eq!(error.kind, DbErrorKind::NotPrimary, "{error}");
}
