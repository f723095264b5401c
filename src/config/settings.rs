//! The settings that [`crate::db`] needs: which database, and how to connect to it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use serde::de::IntoDeserializer;
use serde::de::value::Error as UnknownVariant;
use serde::{Deserialize, Serialize};

use super::Origin;
use crate::domain::display_by_serde;

display_by_serde!(ServerKind, TlsMode);

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

/// The server's protocol; it is displayed as the scheme of URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// MySQL, MariaDB, Percona Server, Galera.
    Mysql,
    /// PostgreSQL.
    Postgresql,
}

impl ServerKind {
    /// The default port.
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
    /// A name or an address; an IPv6 address has no brackets.
    Tcp(String),
    /// On this host. MySQL: the socket. PostgreSQL: its directory; the name of the socket follows from the port.
    Socket(PathBuf),
}

/// A server and an account.
#[derive(Debug, Clone)]
pub struct ServerTarget {
    /// The protocol.
    pub kind: ServerKind,
    /// Where it listens.
    pub host: Host,
    /// The port. For a PostgreSQL socket it is part of the socket's name; for a MySQL socket it has no meaning.
    pub port: u16,
    /// The database name.
    pub database: String,
    /// The account; `None` only if neither the configuration nor the environment names one.
    pub user: Option<String>,
    /// The password; `None` if there is none, or if the user has to type it.
    pub password: Option<SecretString>,
    /// Encryption.
    pub tls: TlsSettings,
    /// The time-out for connecting, if the configuration has one.
    pub connect_timeout: Option<Duration>,
    /// PostgreSQL's start-up options (`-c search_path=cinder`).
    pub options: Option<String>,
}

/// Encryption of the connection, and what is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The required protection.
    pub mode: TlsMode,
    /// The certificates of the trusted authorities (PEM); `None` for those that the system trusts.
    pub ca: Option<PathBuf>,
    /// This client's certificate (PEM).
    pub cert: Option<PathBuf>,
    /// The key for it (PEM); may be the same file.
    pub key: Option<PathBuf>,
}

impl TlsSettings {
    /// A connection without TLS.
    pub const DISABLED: Self = Self { mode: TlsMode::Disable, ca: None, cert: None, key: None };
}

/// The required protection, in increasing order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it; the certificate is not verified.
    Prefer,
    /// TLS; the certificate is not verified.
    Require,
    /// TLS; a trusted authority must have signed the certificate.
    VerifyCa,
    /// TLS; a trusted authority must have signed the certificate, for the host's name.
    VerifyFull,
}

impl FromStr for TlsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::deserialize(text.into_deserializer())
            .map_err(|_: UnknownVariant| format!("{text:?} is not a TLS mode: use disable, prefer, require, verify-ca or verify-full"))
    }
}

/// The database, with the origins of its settings.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// The database.
    pub target: Target,
    /// The origin of its URL.
    pub origin: Origin,
    /// The origin of its password.
    pub password_origin: Option<Origin>,
    /// The URL without its password, if it is from the command line or the environment: what the user has to type to name the same
    /// database again.
    pub url: Option<String>,
    /// Warnings, as sentences without a secret.
    pub warnings: Vec<String>,
}

/// The characters that [`Target::describe`] does not percent-encode. Control characters are encoded.
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

    /// Whether both name the same database, for any user. Two names of one host count as different.
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
    /// A server and an account, without a password, TLS, a time-out and options.
    pub fn new(kind: ServerKind, host: Host, port: u16, database: String, user: Option<String>) -> Self {
        Self { kind, host, port, database, user, password: None, tls: TlsSettings::DISABLED, connect_timeout: None, options: None }
    }

    /// The database as a URL without its password, safe to print.
    pub fn describe(&self) -> String {
        let (scheme, port) = (self.kind, self.port);
        let user = self.user.as_ref().map(|user| format!("{}@", utf8_percent_encode(user, PLAIN))).unwrap_or_default();
        let database = utf8_percent_encode(&self.database, PLAIN);
        match &self.host {
            Host::Tcp(name) if name.contains(':') => format!("{scheme}://{user}[{}]:{port}/{database}", name.replace('%', "%25")),
            Host::Tcp(name) => format!("{scheme}://{user}{name}:{port}/{database}"),
            Host::Socket(path) => {
                let path = path.to_string_lossy();
                let path = utf8_percent_encode(&path, PLAIN_PATH);
                match self.kind {
                    ServerKind::Mysql => format!("{scheme}://{user}/{database}?unix_socket={path}"),
                    ServerKind::Postgresql => format!("{scheme}://{user}/{database}?host={path}&port={port}"),
                }
            }
        }
    }
}
