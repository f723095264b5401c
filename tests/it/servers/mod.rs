//! Servers of the tests' own: in temporary folders, on free ports, gone with the test process.
//!
//! [`mariadb`], [`postgresql`] and [`mysql`] are started when a test first asks and are shared by the whole process; a
//! test that stops, kills or sets up a server in its own way starts its own ([`mariadb::start`] and its like), which
//! ends when it is dropped. Only `mysql` may be missing, since Debian keeps it in unstable alone; a server that is
//! installed and does not start fails the test.

pub mod ceph;
pub mod certificates;
pub mod galera;
pub mod gcs;
pub mod keystone;
pub mod mariadb;
pub mod mysql;
pub mod postgresql;
mod process;
pub mod storage;
pub mod swift;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cinder_backup_repair::db::Engine;

pub use certificates::ServerName;
pub use process::{Process, is_alive, new_dir, run, without_fsync};

/// The account that may do everything, on every server.
pub const ADMIN: &str = "harness_admin";
/// Its password; it holds what a URL must escape.
pub const ADMIN_PASSWORD: &str = "p@ss/w:rd%#?";

/// How an account may connect beside its password.
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
    /// Which server it is; never SQLite.
    pub engine: Engine,
    /// Its TCP port on 127.0.0.1.
    pub port: u16,
    /// Its socket; PostgreSQL: the folder of it.
    pub socket: PathBuf,
    /// The process, to stop, continue, kill or restart it.
    pub process: Process,
}

impl Server {
    /// A SQLAlchemy URL for a database over TCP by the name `localhost` (the name in the certificate).
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

/// The shared server of Oracle's MySQL; `None` where `tests/run` could not install it.
pub fn mysql() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| mysql::start(&mysql::Settings::default())).as_ref()
}

/// The shared Ceph cluster.
pub fn ceph() -> &'static ceph::Ceph {
    static CLUSTER: OnceLock<ceph::Ceph> = OnceLock::new();
    CLUSTER.get_or_init(ceph::start)
}

/// The shared server for an engine; `None` for SQLite, which has none, and for a MySQL that is not installed.
pub fn server(engine: Engine) -> Option<&'static Server> {
    match engine {
        Engine::Sqlite => None,
        Engine::Mariadb => Some(mariadb()),
        Engine::Postgresql => Some(postgresql()),
        Engine::Mysql => mysql(),
    }
}

/// The shared Swift, with its S3 API; see [`swift`] for what it takes.
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

/// The checkout, where `.cache` is.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder that is removed when the test process is gone, for what all tests share.
pub fn shared_dir() -> &'static Path {
    static SHARED: OnceLock<Process> = OnceLock::new();
    SHARED.get_or_init(|| Process::folder("shared")).dir()
}

/// Whether the tests run as root, so that a server that refuses to must be started as somebody else.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A TCP port that was free a moment ago, below those that the kernel hands out to clients, any of which could be taken
/// by the time the server wants it.
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
