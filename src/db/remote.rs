//! A database server as messages name it, and the failures that MySQL and PostgreSQL connections share.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use super::{DbError, DbErrorKind, SessionSettings};
use crate::config::{Host, ServerKind, ServerTarget, TlsSettings};

/// How much longer the program waits for an answer than the server's own time-out.
const GRACE: Duration = Duration::from_secs(5);

/// The server at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    /// `db1:3306`, `socket /run/mysqld/mysqld.sock` or `socket in /run/postgresql for port 5432`.
    pub name: String,
    /// The TLS settings, for advice about a certificate.
    pub tls: TlsSettings,
    /// How long connecting and logging in may take.
    pub connect_timeout: Duration,
    /// How long to wait for each answer; `None` is no limit.
    pub answer_timeout: Option<Duration>,
}

impl Remote {
    pub fn new(target: &ServerTarget, settings: &SessionSettings) -> Self {
        let port = target.port;
        let name = match (&target.host, target.kind) {
            (Host::Tcp(name), _) if name.contains(':') => format!("[{name}]:{port}"),
            (Host::Tcp(name), _) => format!("{name}:{port}"),
            (Host::Socket(path), ServerKind::Mysql) => format!("socket {}", path.display()),
            (Host::Socket(path), ServerKind::Postgresql) => format!("socket in {} for port {port}", path.display()),
        };
        let longest = settings.statement_timeout.max(settings.lock_timeout);
        Self {
            name,
            tls: target.tls.clone(),
            connect_timeout: target.connect_timeout.unwrap_or(settings.connect_timeout).max(Duration::from_millis(1)),
            answer_timeout: (!settings.statement_timeout.is_zero()).then(|| longest + GRACE),
        }
    }

    /// The connection was closed earlier.
    pub fn closed(&self) -> DbError {
        self.connection_error(format!("the connection to {} is closed", self.name))
    }

    /// The host name has no address.
    pub fn unknown_address(&self, error: &io::Error) -> DbError {
        self.connection_error(format!("cannot find the address of {}: {error}; check the host name", self.name))
    }

    /// Connecting and logging in took too long.
    pub fn connect_timed_out(&self) -> DbError {
        let limit = self.connect_timeout.as_secs_f64();
        let advice = "check that the server answers, and host, port and firewall";
        self.connection_error(format!("no connection to {} within {limit} s; {advice}", self.name))
    }

    /// The server does not offer TLS.
    pub fn no_tls(&self) -> DbError {
        let advice = "enable TLS on the server, or use another TLS mode";
        self.connection_error(format!("{} does not offer TLS, which the settings require; {advice}", self.name))
    }

    /// The system refused to connect.
    pub fn cannot_connect(&self, kind: io::ErrorKind, error: impl Display) -> DbError {
        let name = &self.name;
        self.connection_error(match kind {
            io::ErrorKind::ConnectionRefused => {
                format!("no server listens at {name} (connection refused); check that the server is running and the port")
            }
            io::ErrorKind::NotFound => format!("{name} does not exist; check the path, and that the server is running"),
            io::ErrorKind::PermissionDenied => format!("this user may not connect to {name}: {error}"),
            io::ErrorKind::TimedOut => format!("{name} does not answer; check host, port and firewall"),
            _ => format!("cannot connect to {name}: {error}"),
        })
    }

    /// The connection failed while `doing` something.
    pub fn broken(&self, doing: &str, error: impl Display) -> DbError {
        self.connection_error(format!("{doing}: the connection to {} failed: {error}", self.name))
    }

    /// No answer arrived in time while `doing` something.
    pub fn answer_timed_out(&self, doing: &str) -> DbError {
        let waited = self.answer_timeout.map(|limit| format!(" for {} s", limit.as_secs())).unwrap_or_default();
        DbError::fatal(DbErrorKind::Timeout, format!("{doing}: {} did not answer{waited}, so the connection was closed", self.name))
    }

    fn connection_error(&self, message: String) -> DbError {
        DbError::fatal(DbErrorKind::Connection, message)
    }
}
