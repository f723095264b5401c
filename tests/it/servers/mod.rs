//! Servers for the tests: in temporary directories, on free ports, ended with the test process.
//!
//! [`mariadb`], [`postgresql`] and [`mysql`] are started on first use and shared by the process. A test that stops, kills or configures a
//! server starts its own ([`mariadb::start`] and so on), which ends when it is dropped. Only `mysql` may be missing, because only
//! Debian unstable has it. An installed server that does not start fails the test.

pub mod ceph;
pub mod certificates;
pub mod galera;
pub mod gcs;
pub mod keystone;
pub mod mariadb;
pub mod mysql;
pub mod postgresql;
mod process;
pub mod slurm;
pub mod storage;
pub mod swift;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cinder_backup_repair::db::Engine;

pub use certificates::ServerName;
pub use process::{Process, is_alive, new_dir, run, without_fsync};

/// The account with all privileges, on every server.
pub const ADMIN: &str = "harness_admin";
/// Its password, with characters that a URL must escape.
pub const ADMIN_PASSWORD: &str = "p@ss/w:rd%#?";

/// What an account needs to connect, beside its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// With or without TLS.
    Any,
    /// With TLS only.
    Tls,
    /// With TLS and a client certificate of the private authority only.
    ClientCertificate,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The engine; never SQLite.
    pub engine: Engine,
    /// Its TCP port on 127.0.0.1.
    pub port: u16,
    /// Its socket; for PostgreSQL the directory of the socket.
    pub socket: PathBuf,
    /// The process, to stop, continue, kill or restart it.
    pub process: Process,
}

impl Server {
    /// A SQLAlchemy URL for a database over TCP, with the host name `localhost` as in the certificate.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        let (user, password) = (encode(user), encode(password));
        let port = self.port;
        match self.engine {
            Engine::Postgresql => format!("postgresql+psycopg2://{user}:{password}@localhost:{port}/{database}"),
            _ => format!("mysql+pymysql://{user}:{password}@localhost:{port}/{database}?charset=utf8"),
        }
    }

    /// A SQLAlchemy URL for a database through the server's socket.
    pub fn socket_url(&self, user: &str, password: &str, database: &str) -> String {
        let (user, password) = (encode(user), encode(password));
        let socket = self.socket.display();
        match self.engine {
            Engine::Postgresql => {
                format!("postgresql+psycopg2://{user}:{password}@/{database}?host={socket}&port={}", self.port)
            }
            _ => format!("mysql+pymysql://{user}:{password}@localhost/{database}?charset=utf8&unix_socket={socket}"),
        }
    }
}

/// The shared MariaDB server.
pub fn mariadb() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| mariadb::start(&mariadb::Settings::default()))
}

/// The shared PostgreSQL server.
pub fn postgresql() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| postgresql::start(&postgresql::Settings::default()))
}

/// The shared server of Oracle's MySQL; `None` if `tests/run` could not install it.
pub fn mysql() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| mysql::start(&mysql::Settings::default())).as_ref()
}

/// The shared Ceph cluster.
pub fn ceph() -> &'static ceph::Ceph {
    static CLUSTER: OnceLock<ceph::Ceph> = OnceLock::new();
    CLUSTER.get_or_init(ceph::start)
}

/// The shared server for an engine; `None` for SQLite, and for MySQL if it is not installed.
pub fn server(engine: Engine) -> Option<&'static Server> {
    match engine {
        Engine::Sqlite => None,
        Engine::Mariadb => Some(mariadb()),
        Engine::Postgresql => Some(postgresql()),
        Engine::Mysql => mysql(),
    }
}

/// The shared Swift, with its S3 API; see [`swift`].
pub fn swift() -> &'static swift::Swift {
    static SERVER: OnceLock<swift::Swift> = OnceLock::new();
    SERVER.get_or_init(|| swift::start(&swift::Settings::default()))
}

/// The shared Keystone, with a Swift of its own.
pub fn keystone() -> &'static keystone::Keystone {
    static SERVER: OnceLock<keystone::Keystone> = OnceLock::new();
    SERVER.get_or_init(|| keystone::start(&keystone::Settings::default()))
}

/// The shared emulator of Google Cloud Storage.
pub fn gcs() -> &'static gcs::Gcs {
    static SERVER: OnceLock<gcs::Gcs> = OnceLock::new();
    SERVER.get_or_init(|| gcs::start(&gcs::Settings::default()))
}

/// Whether this is `tests/run --fast`, which has no servers and no Cinder.
pub fn is_fast_run() -> bool {
    std::env::var_os("CINDER_TEST_FAST").is_some()
}

/// Fails a test that needs what `tests/run --fast` does not have.
pub fn refuse_in_fast_run(needed: &str) {
    assert!(!is_fast_run(), "tests/run --fast has no {needed}: name this test in its list of tests to skip, or use schemas::engines()");
}

/// The checkout, where `.cache` is.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory for shared files, removed when the test process ends.
pub fn shared_dir() -> &'static Path {
    static SHARED: OnceLock<Process> = OnceLock::new();
    SHARED.get_or_init(|| Process::folder("shared")).dir()
}

/// Whether the tests run as root. Some servers then have to be started as another user.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A TCP port that was free a moment ago. It is below the range that the kernel assigns to clients, from which it could be taken before
/// the server starts.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Percent-encodes a part of a URL.
fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
