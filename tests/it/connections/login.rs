//! Login: passwords, sockets, TLS, and the identity of the server.

use std::net::{Ipv4Addr, UdpSocket};

use cinder_backup_repair::config::{Host, ServerTarget, TlsMode, TlsSettings};
use cinder_backup_repair::db::statements::{BACKUPS_LIVE_LIBERTY, SNAPSHOT_BY_ID};
use cinder_backup_repair::db::{DbErrorKind, Engine, SessionSettings};
use cinder_backup_repair::domain::Value;
use secrecy::SecretString;

use super::{admin, open_with, opened, plain, refusal, server_engines, target, through_socket, tls};
use crate::schemas::{Columns, fresh};
use crate::servers::certificates::Certificates;
use crate::servers::mariadb::Plugin;
use crate::servers::{self, ADMIN, ADMIN_PASSWORD, ServerName, Transport};

#[test]
fn a_password_logs_in_with_and_without_tls_and_through_the_socket() {
    let authority = Certificates::get().authority();
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let grant = if engine == Engine::Postgresql { "" } else { "GRANT SELECT ON {database}.backups TO {user}" };
        let account = database.account_with(grant, Plugin::Default, Transport::Any);
        let server = database.server();
        // TLS first: MySQL then asks for the password itself. Later it has a digest of it.
        let over_tcp = target(server, &account.user, &account.password, database.name());
        let over_tls = ServerTarget { tls: tls(TlsMode::VerifyFull, Some(authority.clone())), ..over_tcp.clone() };
        assert!(opened(&over_tls).server().encrypted, "{engine:?}");
        assert!(!opened(&over_tcp).server().encrypted, "{engine:?}");
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
fn ed25519_logs_in_to_mariadb() {
    let database = fresh(Engine::Mariadb, Columns::Full);
    let server = database.server();
    let grants = "GRANT SELECT ON {database}.backups TO {user}";
    let ed25519 = database.account_with(grants, Plugin::Ed25519, Transport::Any);
    opened(&target(server, &ed25519.user, &ed25519.password, database.name()));
    let wrong = refusal(&target(server, &ed25519.user, "wrong", database.name()));
    assert_eq!(wrong.kind, DbErrorKind::Authentication, "{wrong}");
}

#[test]
fn the_system_user_logs_in_only_through_the_socket() {
    use ::mysql::prelude::Queryable;
    let server = servers::mariadb::start(&servers::mariadb::Settings::default());
    let mut connection = servers::mariadb::connect(&server.socket, ADMIN, Some(ADMIN_PASSWORD)).expect("it answers");
    let user = servers::mariadb::user_name();
    // A new server has accounts of this name without a password.
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
    assert!(error.message.contains("only through the server's socket"), "{error}");
}

#[test]
fn a_mysql_password_is_not_sent_over_a_network_without_tls() {
    let settings = servers::mysql::Settings { options: vec!["--bind-address=0.0.0.0".to_owned()], ..servers::mysql::Settings::default() };
    let Some(server) = servers::mysql::start(&settings) else {
        eprintln!("Oracle's MySQL is not installed");
        return;
    };
    let Some(address) = outer_address() else {
        eprintln!("this host has only the loopback address");
        return;
    };
    let far = ServerTarget { host: Host::Tcp(address.to_string()), ..target(&server, ADMIN, ADMIN_PASSWORD, "mysql") };
    let error = refusal(&far);
    assert_eq!(error.kind, DbErrorKind::Authentication, "{error}");
    assert!(error.message.contains("use TLS or the server's socket"), "{error}");
    let allowed = SessionSettings { insecure_auth: true, ..SessionSettings::default() };
    assert!(open_with(&far, &allowed).is_ok_and(|session| !session.server().encrypted));
    // The server now has a digest of the password and does not ask for the password itself.
    opened(&far);
}

/// An IPv4 address of this host other than the loopback address.
fn outer_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // This sends nothing; it only looks up the route.
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
            assert!(session.server().encrypted, "{engine:?} {mode:?}");
            let error = refusal(&with(mode, Some(certificates.other_authority())));
            assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?} {mode:?}: {error}");
            assert!(error.message.contains("is not signed by an authority in"), "{engine:?} {mode:?}: {error}");
            assert!(error.message.contains("other.crt"), "{engine:?} {mode:?}: {error}");
        }
        // Without a CA file nothing is verified, or the system's authorities are used, which do not include the test's.
        assert!(opened(&with(TlsMode::Prefer, None)).server().encrypted, "{engine:?}");
        assert!(opened(&with(TlsMode::Require, None)).server().encrypted, "{engine:?}");
        assert_eq!(refusal(&with(TlsMode::VerifyCa, None)).kind, DbErrorKind::Configuration, "{engine:?}");
        let error = refusal(&with(TlsMode::VerifyFull, None));
        assert!(matches!(error.kind, DbErrorKind::Connection | DbErrorKind::Configuration), "{engine:?}: {error}");
        // The address is in the certificate too.
        let by_address =
            ServerTarget { host: Host::Tcp("127.0.0.1".to_owned()), ..with(TlsMode::VerifyFull, Some(certificates.authority())) };
        assert!(opened(&by_address).server().encrypted, "{engine:?}");
    }
}

#[test]
fn verify_full_checks_the_name_in_the_certificate() {
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
        assert!(opened(&with(TlsMode::VerifyCa)).server().encrypted, "{engine:?}");
        assert!(opened(&with(TlsMode::Require)).server().encrypted, "{engine:?}");
        let error = refusal(&with(TlsMode::VerifyFull));
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.message.contains("elsewhere.example") && error.message.contains("localhost"), "{engine:?}: {error}");
    }
}

#[test]
fn a_client_certificate_is_sent_if_the_server_requires_one() {
    let certificates = Certificates::get();
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let grants = if engine == Engine::Postgresql { "" } else { "GRANT SELECT ON {database}.backups TO {user}" };
        let account = database.account_with(grants, Plugin::Default, Transport::ClientCertificate);
        let base = target(database.server(), &account.user, &account.password, database.name());
        let (cert, key) = certificates.client();
        let verified = tls(TlsMode::VerifyFull, Some(certificates.authority()));
        let shown = TlsSettings { cert: Some(cert), key: Some(key), ..verified.clone() };
        assert!(opened(&ServerTarget { tls: shown, ..base.clone() }).server().encrypted, "{engine:?}");
        for without in [verified, plain()] {
            let error = refusal(&ServerTarget { tls: without, ..base.clone() });
            assert_eq!(error.kind, DbErrorKind::Authentication, "{engine:?}: {error}");
        }
        let tls_only = database.account_with(grants, Plugin::Default, Transport::Tls);
        let base = target(database.server(), &tls_only.user, &tls_only.password, database.name());
        assert_eq!(refusal(&base).kind, DbErrorKind::Authentication, "{engine:?}");
        assert!(opened(&ServerTarget { tls: tls(TlsMode::Prefer, None), ..base }).server().encrypted, "{engine:?}");
    }
}

#[test]
fn a_server_without_tls_is_refused_or_used_in_plain_by_mode() {
    let own = [
        servers::mariadb::start(&servers::mariadb::Settings { options: vec!["--skip-ssl".to_owned()], ..Default::default() }),
        servers::postgresql::start(&servers::postgresql::Settings { options: vec!["ssl = off".to_owned()], ..Default::default() }),
    ];
    for server in &own {
        let engine = server.engine;
        let database = if engine == Engine::Postgresql { "postgres" } else { "mysql" };
        let with = |mode| ServerTarget { tls: tls(mode, None), ..target(server, ADMIN, ADMIN_PASSWORD, database) };
        assert!(!opened(&with(TlsMode::Prefer)).server().encrypted, "{engine:?}");
        let error = refusal(&with(TlsMode::Require));
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.message.contains("does not offer TLS"), "{engine:?}: {error}");
    }
}

#[test]
fn errors_name_the_server_and_the_cause() {
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let at = |name: &str, port| ServerTarget { host: Host::Tcp(name.to_owned()), port, ..admin(&database) };
        let closed = servers::free_port();
        let error = refusal(&at("localhost", closed));
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.message.contains(&format!("no server listens at localhost:{closed}")), "{engine:?}: {error}");
        let full = ServerTarget { tls: tls(TlsMode::VerifyFull, Some(Certificates::get().authority())), ..at("localhost", closed) };
        assert!(refusal(&full).message.contains("localhost"), "{engine:?}");
        let error = refusal(&at("no-such-host.invalid", 3306));
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.message.contains("cannot find the address of no-such-host.invalid:3306"), "{engine:?}: {error}");
        let error = refusal(&ServerTarget { host: Host::Socket("/nonexistent/socket".into()), ..admin(&database) });
        assert!(error.message.contains("/nonexistent/socket") && error.message.contains("does not exist"), "{engine:?}: {error}");
        let error = refusal(&ServerTarget { database: "no_such_database".to_owned(), ..admin(&database) });
        assert_eq!(error.kind, DbErrorKind::Schema, "{engine:?}: {error}");
        assert!(!format!("{error:?}").contains(ADMIN_PASSWORD), "{engine:?}");
    }
}

#[test]
fn the_identity_does_not_depend_on_account_or_address() {
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
fn postgresql_has_one_identity_even_if_accounts_cannot_read_its_identifier() {
    let database = fresh(Engine::Postgresql, Columns::Full);
    database.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    let account = database.account_with("GRANT SELECT ON backups TO {user}", Plugin::Default, Transport::Any);
    let reader = opened(&target(database.server(), &account.user, &account.password, database.name())).server().identity.clone();
    assert!(reader.starts_with("postgresql:database-"), "{reader}");
    assert_eq!(opened(&admin(&database)).server().identity, reader);
}
