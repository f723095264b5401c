//! What MySQL, MariaDB and the driver say, as a [`DbError`]: kind, one sentence, what to do.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use mysql::{DriverError, Error};

use crate::config::TlsSettings;
use crate::db::{DbError, DbErrorKind, tls};

/// Given to the driver as the file of the server's RSA key where a password must not leave without TLS: the driver reads
/// it exactly when the server asks for the password itself, fails, and sends nothing.
pub(super) const NO_SERVER_KEY: &str = "/dev/null/no-server-key";

/// Whom a message is about.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// `db1:3306` or `the socket /run/mysqld/mysqld.sock`.
    pub name: String,
    /// The TLS settings, for what to do about a certificate.
    pub tls: TlsSettings,
    /// How long a read from the connection may take.
    pub patience: Option<Duration>,
}

/// Error codes after which the server has closed the connection or is about to.
const CLOSING: &[u16] = &[1053, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 4031];

/// The answers to COMMIT that mean for certain that nothing was committed: a lock, a deadlock or certification conflict,
/// a snapshot conflict, a server that has turned read-only, group replication's rollback. Any other is no certainty.
pub(super) const NOT_COMMITTED: &[u16] = &[1020, 1205, 1213, 1290, 1836, 3101];

/// The server's error code, where the server answered.
pub(super) fn code(error: &Error) -> Option<u16> {
    match error {
        Error::MySqlError(answer) => Some(answer.code),
        _ => None,
    }
}

/// A failure while `doing` something ("cannot read the backup").
pub(super) fn describe(error: &Error, doing: &str, place: &Place) -> DbError {
    match error {
        Error::MySqlError(answer) => server(answer.code, &answer.message, doing),
        Error::DriverError(error) => driver(error, doing, place),
        other => transport(other, doing, place),
    }
}

fn server(code: u16, message: &str, doing: &str) -> DbError {
    let (kind, advice) = meaning(code, message);
    let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
    let error = DbError::new(kind, format!("{doing}: {message} (error {code}){advice}")).with_code(code.to_string());
    DbError { fatal: CLOSING.contains(&code), ..error }
}

fn meaning(code: u16, message: &str) -> (DbErrorKind, Option<&'static str>) {
    use DbErrorKind as Kind;
    match code {
        1045 => (Kind::Authentication, Some("check the user, the password and the host that the account is for")),
        1698 => (Kind::Authentication, Some("the account may log in through the server's socket only, as the system user of its name")),
        1130 => (Kind::Authentication, Some("the server takes no connections from this host")),
        1524 | 2059 => {
            (Kind::Authentication, Some("the account's authentication plugin is not loaded on the server; load it or change the account"))
        }
        1820 | 1862 | 4151 | 3118 | 1396 => (Kind::Authentication, None),
        3159 => (Kind::Authentication, Some("the server takes connections with TLS only; use TLS mode require or stricter")),
        1044 | 1142 | 1143 | 1227 | 1370 | 1410 => (Kind::Privilege, Some("see `sql/grants` for what the account needs")),
        1836 | 3100 => (Kind::NotPrimary, Some("connect to the server that takes writes")),
        // 1290 is raised for many options; only --read-only and its like are about the server's role.
        1290 if message.to_ascii_lowercase().replace('_', "-").contains("read-only") => {
            (Kind::NotPrimary, Some("connect to the server that takes writes"))
        }
        1047 => (Kind::NotPrimary, Some("this Galera node is outside the primary component; connect to a node inside it")),
        1049 => (Kind::Schema, Some("check the database's name in the URL")),
        1146 | 1054 | 1109 => (Kind::Schema, None),
        1205 | 3058 => (Kind::LockTimeout, None),
        1213 | 1020 | 3572 | 3101 | 1614 => (Kind::Conflict, None),
        1969 | 3024 => (Kind::Timeout, Some("raise the statement time-out if the server is just slow")),
        1040 | 1203 | 1226 | 1129 | 1152 | 1158..=1161 | 1053 | 1079 | 1184 | 1927 | 2002..=2006 | 2013 | 4031 => (Kind::Connection, None),
        _ => (Kind::Other, None),
    }
}

fn driver(error: &DriverError, doing: &str, place: &Place) -> DbError {
    let at = &place.name;
    let (kind, message) = match error {
        DriverError::ConnectTimeout | DriverError::Timeout => {
            (DbErrorKind::Connection, format!("{at} does not answer; check host, port and firewall"))
        }
        DriverError::CouldNotConnect(Some((_, text, kind))) => (DbErrorKind::Connection, refused(*kind, text, at)),
        DriverError::TlsNotSupported => (
            DbErrorKind::Connection,
            format!("{at} offers no TLS, which the settings ask for; enable it on the server, or use another TLS mode"),
        ),
        DriverError::UnknownAuthPlugin(name) if name == "sha256_password" => (
            DbErrorKind::Authentication,
            format!(
                "{at} asks for sha256_password, which this program does not speak; a server asks for it too when there is no such user, so \
                 check the user first"
            ),
        ),
        DriverError::UnknownAuthPlugin(name) => (
            DbErrorKind::Authentication,
            format!(
                "{at} asks for the authentication plugin {name}, which this program does not speak; use an account with \
                 caching_sha2_password, ed25519, unix_socket or mysql_native_password"
            ),
        ),
        DriverError::CleartextPluginDisabled | DriverError::OldMysqlPasswordDisabled => (
            DbErrorKind::Authentication,
            format!(
                "{at} asks for the password in a form that is not safe ({error}); use an account with caching_sha2_password, ed25519 or \
                 mysql_native_password"
            ),
        ),
        other => (DbErrorKind::Connection, format!("{doing}: {other}")),
    };
    DbError::fatal(kind, message)
}

/// A failure of the connection itself: it is over, whatever the kind.
fn transport(error: &Error, doing: &str, place: &Place) -> DbError {
    let at = &place.name;
    let cause: Option<&(dyn StdError + 'static)> = match error {
        Error::IoError(error) => Some(error),
        Error::CodecError(error) => Some(error),
        Error::TlsError(error) => Some(error),
        _ => None,
    };
    if let Some(cause) = cause {
        if let Some(failed) = tls::cause(cause) {
            return tls::explain(failed, at, &place.tls);
        }
        let io = cause.downcast_ref::<io::Error>().or_else(|| cause.source().and_then(|source| source.downcast_ref::<io::Error>()));
        if let Some(io) = io {
            return input_output(io, doing, place);
        }
    }
    DbError::fatal(DbErrorKind::Connection, format!("{doing}: the connection to {at} broke: {error}"))
}

fn input_output(error: &io::Error, doing: &str, place: &Place) -> DbError {
    let at = &place.name;
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let waited = place.patience.map(|limit| format!(" for {} s", limit.as_secs())).unwrap_or_default();
            DbError::fatal(DbErrorKind::Timeout, format!("{doing}: {at} has not answered{waited}, so the connection was given up"))
        }
        io::ErrorKind::NotADirectory => DbError::fatal(
            DbErrorKind::Authentication,
            format!(
                "{at} asks for the password itself (caching_sha2_password) over a connection without TLS, where a listener could get at \
                 it; use TLS or the server's socket, or allow it with --insecure-auth"
            ),
        ),
        _ => DbError::fatal(DbErrorKind::Connection, format!("{doing}: the connection to {at} broke: {error}")),
    }
}

/// Why no connection could be made, by the system's reason.
pub(super) fn refused(kind: io::ErrorKind, text: &str, at: &str) -> String {
    match kind {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {at} (connection refused); check that the server runs and the port")
        }
        io::ErrorKind::NotFound => format!("{at} does not exist; check the path, and that the server runs"),
        io::ErrorKind::PermissionDenied => format!("this user may not connect to {at}: {text}"),
        io::ErrorKind::TimedOut => format!("{at} does not answer; check host, port and firewall"),
        _ => format!("cannot connect to {at}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsMode;
    use mysql::MySqlError;

    fn answered(code: u16, message: &str) -> DbError {
        let place = Place {
            name: "db:3306".to_owned(),
            tls: TlsSettings { mode: TlsMode::Disable, ca: None, cert: None, key: None },
            patience: None,
        };
        let error = MySqlError { state: "HY000".to_owned(), message: message.to_owned(), code };
        describe(&Error::MySqlError(error), "cannot run x", &place)
    }

    #[test]
    fn a_code_decides_the_kind() {
        for (code, kind) in [
            (1045, DbErrorKind::Authentication),
            (1142, DbErrorKind::Privilege),
            (1047, DbErrorKind::NotPrimary),
            (1146, DbErrorKind::Schema),
            (1205, DbErrorKind::LockTimeout),
            (1213, DbErrorKind::Conflict),
            (1969, DbErrorKind::Timeout),
            (3024, DbErrorKind::Timeout),
            (1792, DbErrorKind::Other),
        ] {
            let error = answered(code, "something");
            assert_eq!(error.kind, kind, "{code}");
            assert_eq!(error.code, Some(code.to_string()));
            assert!(!error.fatal, "{code}");
        }
        assert!(answered(1053, "shutdown").fatal);
    }

    #[test]
    fn error_1290_is_about_the_role_only_for_read_only() {
        let read_only = "The MariaDB server is running with the --read-only option so it cannot execute this statement";
        assert_eq!(answered(1290, read_only).kind, DbErrorKind::NotPrimary);
        assert_eq!(answered(1290, "… running with the READ_ONLY option …").kind, DbErrorKind::NotPrimary);
        assert_eq!(answered(1290, "… running with the --secure-file-priv option …").kind, DbErrorKind::Other);
    }
}
