//! PostgreSQL: SCRAM over TCP and the socket, TLS with the private authority, roles that require TLS or a certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cinder_backup_repair::db::Engine;
use postgres::{Client, Config, NoTls};

use super::process::new_dir;
use super::{ADMIN, ADMIN_PASSWORD, Process, Server, ServerName, Transport, certificates, free_port, is_root, run};

/// The connection rules. Members of two roles must use TLS, or TLS with a client certificate. A superuser counts as a member only of
/// roles that it was granted.
const HBA: &str = "\
local     all  postgres                            trust
local     replication  postgres                    trust
local     all  all                                 scram-sha-256
hostssl   all  +needs_client_certificate  all      scram-sha-256  clientcert=verify-ca
host      all  +needs_client_certificate  all      reject
hostssl   all  +needs_tls                 all      scram-sha-256
host      all  +needs_tls                 all      reject
host      all  all                        all      scram-sha-256
";

/// The options of a server for one test.
#[derive(Debug, Default)]
pub struct Settings {
    /// The name in its certificate.
    pub certificate: ServerName,
    /// More settings, as lines of `postgresql.conf`.
    pub options: Vec<String>,
}

/// Starts a server; it ends when it is dropped.
pub fn start(settings: &Settings) -> Server {
    let dir = new_dir(&std::env::temp_dir(), "postgresql");
    let data = dir.join("data");
    let mut command = as_server_user(&program("postgres"));
    command.extend(["-D".to_owned(), data.display().to_string()]);
    // SIGKILL would leave its shared memory behind.
    let process = Process::supervise("postgres", &dir, "QUIT", &command);
    certificates::install(&dir, settings.certificate);
    // PostgreSQL refuses to run as root and to use a key that others can read.
    run(Command::new("chmod").arg("600").arg(dir.join("server-key.pem")));
    if is_root() {
        run(Command::new("chown").args(["-R", "postgres:"]).arg(&dir));
    }
    let mut initdb = as_server_user(&program("initdb"));
    initdb
        .extend(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--pgdata"].map(String::from));
    run(Command::new(&initdb[0]).args(&initdb[1..]).arg(&data).current_dir(&dir));
    let port = free_port();
    fs::write(data.join("pg_hba.conf"), HBA).expect("the data folder is ours");
    let shown = dir.display();
    let mut lines = vec![
        format!("port = {port}"),
        format!("unix_socket_directories = '{shown}'"),
        format!("ssl_ca_file = '{shown}/ca.pem'"),
        format!("ssl_cert_file = '{shown}/server.pem'"),
        format!("ssl_key_file = '{shown}/server-key.pem'"),
        "listen_addresses = '127.0.0.1'".to_owned(),
        "ssl = on".to_owned(),
        "password_encryption = 'scram-sha-256'".to_owned(),
        "timezone = 'Asia/Kolkata'".to_owned(),
        "max_connections = 200".to_owned(),
        // No fsync, and no files outside the data directory.
        "fsync = off".to_owned(),
        "synchronous_commit = off".to_owned(),
        "full_page_writes = off".to_owned(),
        "dynamic_shared_memory_type = mmap".to_owned(),
    ];
    lines.extend(settings.options.iter().cloned());
    fs::write(data.join("postgresql.conf"), lines.join("\n") + "\n").expect("the data folder is ours");
    process.start(&|| connect(&dir, port, "postgres", None, "postgres").is_some());
    let server = Server { engine: Engine::Postgresql, port, socket: dir, process };
    let mut superuser = connect(&server.socket, port, "postgres", None, "postgres").expect("it just answered");
    superuser
        .batch_execute(&format!(
            "CREATE ROLE needs_tls; CREATE ROLE needs_client_certificate; CREATE ROLE {ADMIN} SUPERUSER LOGIN PASSWORD {}",
            quote(ADMIN_PASSWORD)
        ))
        .expect("a superuser may make roles");
    server
}

/// Starts a standby that follows a server, asynchronously; it ends when it is dropped.
pub fn start_standby(primary: &Server) -> Server {
    let dir = new_dir(&std::env::temp_dir(), "standby");
    let data = dir.join("data");
    let mut command = as_server_user(&program("postgres"));
    command.extend(["-D".to_owned(), data.display().to_string()]);
    let process = Process::supervise("postgres (standby)", &dir, "QUIT", &command);
    if is_root() {
        run(Command::new("chown").args(["-R", "postgres:"]).arg(&dir));
    }
    let mut copy = as_server_user(&program("pg_basebackup"));
    copy.extend(["--username=postgres", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"].map(String::from));
    copy.extend([format!("--host={}", primary.socket.display()), format!("--port={}", primary.port)]);
    run(Command::new(&copy[0]).args(&copy[1..]).arg("--pgdata").arg(&data).current_dir(&dir));
    let port = free_port();
    let mut settings = fs::read_to_string(data.join("postgresql.conf")).expect("the data folder is ours");
    settings.push_str(&format!("port = {port}\nunix_socket_directories = '{}'\n", dir.display()));
    fs::write(data.join("postgresql.conf"), settings).expect("the data folder is ours");
    process.start(&|| connect(&dir, port, "postgres", None, "postgres").is_some());
    Server { engine: Engine::Postgresql, port, socket: dir, process }
}

/// Creates an account without privileges.
pub fn create_user(server: &Server, name: &str, password: &str, transport: Transport) {
    let role = match transport {
        Transport::Any => "",
        Transport::Tls => "IN ROLE needs_tls",
        Transport::ClientCertificate => "IN ROLE needs_client_certificate",
    };
    let statement = format!("CREATE ROLE {name} LOGIN PASSWORD {} {role}", quote(password));
    let mut superuser = connect(&server.socket, server.port, "postgres", None, "postgres").expect("the server answers");
    superuser.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
}

/// A connection through the socket, or `None` if it fails.
pub fn connect(socket: &Path, port: u16, user: &str, password: Option<&str>, database: &str) -> Option<Client> {
    let mut config = Config::new();
    config.host_path(socket).port(port).user(user).dbname(database).options("-c timezone=UTC");
    if let Some(password) = password {
        config.password(password);
    }
    config.connect(NoTls).ok()
}

/// A text as an SQL literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The newest version of a PostgreSQL program. Debian keeps each version in a folder that is not on the path.
pub fn program(name: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| {
                    let version = entry.file_name().to_str()?.parse().ok()?;
                    Some((version, entry.path().join("bin").join(name)))
                })
                .filter(|(_, path)| path.exists())
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    versions.pop().map_or_else(|| PathBuf::from(name), |(_, path)| path)
}

/// The command prefix that runs a program as a user that PostgreSQL accepts.
fn as_server_user(program: &Path) -> Vec<String> {
    let mut words = Vec::new();
    if is_root() {
        words.extend(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"].map(String::from));
    }
    words.push(program.display().to_string());
    words
}
