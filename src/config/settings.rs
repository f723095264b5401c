//! Which database, and how to reach it: what the database side is given.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;

use super::Origin;

/// The database.
#[derive(Debug, Clone)]
pub enum Target {
    /// A SQLite file.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A database server.
    Server(ServerTarget),
}

/// Which protocol the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerKind {
    /// MySQL, MariaDB, Percona Server, Galera.
    Mysql,
    /// PostgreSQL.
    Postgresql,
}

impl ServerKind {
    /// The scheme of its URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Postgresql => "postgresql",
        }
    }

    /// The port that it listens on unless told otherwise.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Mysql => 3306,
            Self::Postgresql => 5432,
        }
    }
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// On the network.
    Tcp {
        /// A name or an address, an IPv6 address without brackets.
        name: String,
        /// The port.
        port: u16,
    },
    /// On this machine.
    Socket {
        /// MySQL: the socket. PostgreSQL: the directory that holds it; the socket's name follows from the port.
        path: PathBuf,
    },
}

/// A server and the account to use there.
#[derive(Debug, Clone)]
pub struct ServerTarget {
    /// Its protocol.
    pub kind: ServerKind,
    /// Where it listens.
    pub host: Host,
    /// The port; with a PostgreSQL socket it is part of the socket's name, with a MySQL socket it means nothing.
    pub port: u16,
    /// The database's name.
    pub database: String,
    /// The account; `None` only if neither the configuration nor the environment names one.
    pub user: Option<String>,
    /// Its password; `None` if there is none or it has to be asked for.
    pub password: Option<SecretString>,
    /// Encryption.
    pub tls: TlsSettings,
    /// The connection's own time limit, where the configuration has one.
    pub connect_timeout: Option<Duration>,
    /// PostgreSQL's start-up options (`-c search_path=cinder`).
    pub options: Option<String>,
}

/// Encryption of the connection, and what is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// How much is asked for.
    pub mode: TlsMode,
    /// The certificates of the authorities to trust (PEM); `None` for those that the system trusts.
    pub ca: Option<PathBuf>,
    /// This client's certificate (PEM).
    pub cert: Option<PathBuf>,
    /// Its key (PEM); may be the same file.
    pub key: Option<PathBuf>,
}

/// How much encryption is asked for, from nothing to everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    /// None.
    Disable,
    /// If the server offers it; the certificate is not checked.
    Prefer,
    /// Always; the certificate is not checked.
    Require,
    /// Always; the certificate must lead to a trusted authority.
    VerifyCa,
    /// Always; the certificate must lead to a trusted authority and name the host.
    VerifyFull,
}

impl TlsMode {
    /// The name, as options and messages spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// Whether the server's certificate is checked.
    pub fn verifies(self) -> bool {
        self >= Self::VerifyCa
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TlsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| "a TLS mode is one of disable, prefer, require, verify-ca and verify-full".to_owned())
    }
}

/// The database, and where each part of the answer came from.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// The database.
    pub target: Target,
    /// Where its URL was found.
    pub origin: Origin,
    /// Where its password was found.
    pub password_origin: Option<Origin>,
    /// The URL without its password, where it came from the command line or the environment: what has to be typed to name the same
    /// database again.
    pub url: Option<String>,
    /// What the person should know: whole sentences without a secret.
    pub warnings: Vec<String>,
}

/// What is spelled out in [`Target::describe`]; the rest is percent-encoded, control characters too.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const PLAIN_PATH: &AsciiSet = &PLAIN.remove(b'/');

impl Target {
    /// The database as a URL without its password, safe to print.
    pub fn describe(&self) -> String {
        match self {
            Self::Sqlite { path } => describe_file(path),
            Self::Server(server) => server.describe(),
        }
    }

    /// Whether both name one database, whatever the user. Two names of one host count as two.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let canonical = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        match (self, other) {
            (Self::Sqlite { path }, Self::Sqlite { path: other }) => canonical(path) == canonical(other),
            (Self::Server(server), Self::Server(other)) => {
                (server.kind, &server.host, server.port, &server.database) == (other.kind, &other.host, other.port, &other.database)
            }
            _ => false,
        }
    }
}

/// A SQLite file as a URL.
pub fn describe_file(path: &Path) -> String {
    format!("sqlite:///{}", utf8_percent_encode(&path.to_string_lossy(), PLAIN_PATH))
}

impl ServerTarget {
    /// The database as a URL without its password, safe to print.
    pub fn describe(&self) -> String {
        let scheme = self.kind.scheme();
        let user = self.user.as_ref().map(|user| format!("{}@", utf8_percent_encode(user, PLAIN))).unwrap_or_default();
        let database = utf8_percent_encode(&self.database, PLAIN);
        match &self.host {
            Host::Tcp { name, port } if name.contains(':') => {
                format!("{scheme}://{user}[{}]:{port}/{database}", name.replace('%', "%25"))
            }
            Host::Tcp { name, port } => format!("{scheme}://{user}{name}:{port}/{database}"),
            Host::Socket { path } => {
                let path = path.to_string_lossy();
                let path = utf8_percent_encode(&path, PLAIN_PATH);
                match self.kind {
                    ServerKind::Mysql => format!("{scheme}://{user}/{database}?unix_socket={path}"),
                    ServerKind::Postgresql => format!("{scheme}://{user}/{database}?host={path}&port={}", self.port),
                }
            }
        }
    }
}
