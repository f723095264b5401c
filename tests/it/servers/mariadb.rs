//! MariaDB: the plugins `mysql_native_password`, `ed25519` and `unix_socket`, TLS with the private authority.

use std::path::{Path, PathBuf};
use std::process::Command;

use cinder_backup_repair::db::Engine;
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};

use super::process::{new_dir, without_fsync};
use super::{ADMIN, ADMIN_PASSWORD, Process, Server, ServerName, Transport, certificates, free_port, run};

/// The options of a server for one test.
#[derive(Debug, Default)]
pub struct Settings {
    /// The name in its certificate.
    pub certificate: ServerName,
    /// More options for `mariadbd`.
    pub options: Vec<String>,
}

/// The authentication method of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// The server's default: `mysql_native_password` on MariaDB, `caching_sha2_password` on MySQL.
    Default,
    /// MariaDB's `ed25519`.
    Ed25519,
    /// MariaDB's `unix_socket`: the name must be that of the operating system's user.
    UnixSocket,
}

/// Starts a server; it ends when it is dropped.
pub fn start(settings: &Settings) -> Server {
    let dir = new_dir(&std::env::temp_dir(), "mariadb");
    let data = dir.join("data");
    let port = free_port();
    let socket = dir.join("socket");
    let mut command = without_fsync().to_vec();
    command.push(mariadbd().display().to_string());
    command.extend(options(&user_name(), &dir, &data, port));
    command.extend(
        ["--plugin-load-add=auth_ed25519", "--innodb-log-file-size=16M", "--plugin-maturity=unknown", "--skip-log-bin"].map(String::from),
    );
    command.extend(settings.options.iter().cloned());
    let process = Process::supervise("mariadbd", &dir, "KILL", &command);
    install(&user_name(), &dir, &data);
    certificates::install(&dir, settings.certificate);
    process.start(&|| connect(&socket, "root", None).is_some());
    let server = Server { engine: Engine::Mariadb, port, socket, process };
    set_up(&server);
    server
}

/// Makes the system tables.
pub(super) fn install(user: &str, dir: &Path, data: &Path) {
    let env = without_fsync();
    run(Command::new(&env[0])
        .args([&env[1], "mariadb-install-db", "--no-defaults", "--skip-test-db"])
        .args(["--auth-root-authentication-method=normal", "--innodb-log-file-size=16M", "--skip-name-resolve"])
        .arg(format!("--user={user}"))
        .arg(format!("--datadir={}", data.display()))
        // A server that starts removes all temporary tables from its folder for temporary files, including those of other servers.
        .arg(format!("--tmpdir={}", dir.display())));
}

/// The options that MariaDB and MySQL share: no configuration of the system, everything in `dir` (as the server sees it), no protection
/// against a power cut.
pub(super) fn options(user: &str, dir: &Path, data: &Path, port: u16) -> Vec<String> {
    let dir = dir.display();
    vec![
        "--no-defaults".to_owned(),
        format!("--user={user}"),
        format!("--datadir={}", data.display()),
        format!("--socket={dir}/socket"),
        format!("--pid-file={dir}/mysqld.pid"),
        format!("--tmpdir={dir}"),
        format!("--ssl-ca={dir}/ca.pem"),
        format!("--ssl-cert={dir}/server.pem"),
        format!("--ssl-key={dir}/server-key.pem"),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--skip-name-resolve".to_owned(),
        "--character-set-server=utf8mb3".to_owned(),
        "--collation-server=utf8mb3_general_ci".to_owned(),
        "--max-connections=400".to_owned(),
        "--default-time-zone=+05:30".to_owned(),
        "--innodb-buffer-pool-size=128M".to_owned(),
        "--innodb-flush-log-at-trx-commit=0".to_owned(),
        "--innodb-doublewrite=0".to_owned(),
        // Each test creates a schema of 36 tables, and one file per table would take most of that time.
        "--innodb-file-per-table=0".to_owned(),
    ]
}

/// The operating system's user that runs the tests, and so the server.
pub fn user_name() -> String {
    run(Command::new("id").arg("-un")).trim().to_owned()
}

/// Creates the account of the harness.
pub fn set_up(server: &Server) {
    let mut root = connect(&server.socket, "root", None).expect("root logs in through the socket");
    let password = quote(ADMIN_PASSWORD);
    for statement in
        [format!("CREATE USER {ADMIN}@'%' IDENTIFIED BY {password}"), format!("GRANT ALL ON *.* TO {ADMIN}@'%' WITH GRANT OPTION")]
    {
        root.query_drop(&statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// Creates an account without privileges.
pub fn create_user(server: &Server, name: &str, password: &str, plugin: Plugin, transport: Transport) {
    let password = quote(password);
    let identified = match plugin {
        Plugin::Default => format!("IDENTIFIED BY {password}"),
        Plugin::Ed25519 => format!("IDENTIFIED VIA ed25519 USING PASSWORD({password})"),
        Plugin::UnixSocket => "IDENTIFIED VIA unix_socket".to_owned(),
    };
    let require = match transport {
        Transport::Any => "",
        Transport::Tls => "REQUIRE SSL",
        Transport::ClientCertificate => "REQUIRE X509",
    };
    let mut admin = connect(&server.socket, ADMIN, Some(ADMIN_PASSWORD)).expect("the harness logs in");
    let statement = format!("CREATE USER {name}@'%' {identified} {require}");
    admin.query_drop(&statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// A connection through the socket, or `None` if it fails.
pub fn connect(socket: &Path, user: &str, password: Option<&str>) -> Option<Conn> {
    let options = OptsBuilder::new()
        .prefer_socket(true)
        .socket(socket.to_str())
        .user(Some(user))
        .pass(password)
        .init(vec!["SET time_zone = '+00:00'"]);
    Conn::new(options).ok()
}

/// A text as an SQL literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Debian keeps the server in `/usr/sbin`, which is not on every user's path.
pub fn mariadbd() -> PathBuf {
    ["/usr/sbin/mariadbd", "/usr/bin/mariadbd", "/usr/local/bin/mariadbd"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("mariadbd is not installed; tests/run installs it")
}
