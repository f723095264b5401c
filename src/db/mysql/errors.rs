//! Turns errors of MySQL, MariaDB and the driver into a [`DbError`].

use std::error::Error as StdError;
use std::io;

use mysql::{DriverError, Error};

use crate::db::remote::Remote;
use crate::db::{DbError, DbErrorKind, tls};

/// The driver's path of the server's RSA key where a password must not be sent without TLS. The driver opens it only when the
/// server asks for the password itself; it then fails and sends nothing.
pub(super) const NO_SERVER_KEY: &str = "/dev/null/no-server-key";

/// Error codes after which the server has closed the connection or is about to.
const CLOSING: &[u16] = &[1053, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 4031];

/// Errors of COMMIT that prove that nothing was committed: a lock time-out, a deadlock or certification conflict, a snapshot
/// conflict, a server that became read-only, group replication's rollback. Any other error leaves the outcome unknown.
pub(super) const NOT_COMMITTED: &[u16] = &[1020, 1205, 1213, 1290, 1836, 3101];

/// The server's error code, if the server answered.
pub(super) fn code(error: &Error) -> Option<u16> {
    match error {
        Error::MySqlError(answer) => Some(answer.code),
        _ => None,
    }
}

/// An error while `doing` something ("cannot read the backup").
pub(super) fn describe(error: &Error, doing: &str, remote: &Remote) -> DbError {
    match error {
        Error::MySqlError(answer) => server(answer.code, &answer.message, doing),
        Error::DriverError(error) => driver(error, doing, remote),
        other => transport(other, doing, remote),
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
        1045 => (Kind::Authentication, Some("check the user, the password, and the host for which the account exists")),
        1698 => {
            (Kind::Authentication, Some("the account may log in only through the server's socket, as the system user of the same name"))
        }
        1130 => (Kind::Authentication, Some("the server does not accept connections from this host")),
        1524 | 2059 => {
            (Kind::Authentication, Some("the account's authentication plugin is not loaded on the server; load it or change the account"))
        }
        1820 | 1862 | 4151 | 3118 | 1396 => (Kind::Authentication, None),
        3159 => (Kind::Authentication, Some("the server accepts only connections with TLS; use TLS mode require or stricter")),
        1044 | 1142 | 1143 | 1227 | 1370 | 1410 => (Kind::Privilege, Some("see `sql/grants` for what the account needs")),
        1836 | 3100 => (Kind::NotPrimary, Some("connect to the server that accepts writes")),
        // 1290 is raised for many options; only --read-only and similar ones are about the server's role.
        1290 if message.to_ascii_lowercase().replace('_', "-").contains("read-only") => {
            (Kind::NotPrimary, Some("connect to the server that accepts writes"))
        }
        1047 => (Kind::NotPrimary, Some("this Galera node is outside the primary component; connect to a node inside it")),
        1049 => (Kind::Schema, Some("check the database's name in the URL")),
        1146 | 1054 | 1109 => (Kind::Schema, None),
        1205 | 3058 => (Kind::LockTimeout, None),
        1213 | 1020 | 3572 | 3101 | 1614 => (Kind::Conflict, None),
        1969 | 3024 => (Kind::Timeout, Some("raise the statement time-out if the server is only slow")),
        1040 | 1203 | 1226 | 1129 | 1152 | 1158..=1161 | 1053 | 1079 | 1184 | 1927 | 2002..=2006 | 2013 | 4031 => (Kind::Connection, None),
        _ => (Kind::Other, None),
    }
}

fn driver(error: &DriverError, doing: &str, remote: &Remote) -> DbError {
    let name = &remote.name;
    let message = match error {
        DriverError::ConnectTimeout | DriverError::Timeout => return remote.cannot_connect(io::ErrorKind::TimedOut, error),
        DriverError::CouldNotConnect(Some((_, text, kind))) => return remote.cannot_connect(*kind, text),
        DriverError::TlsNotSupported => return remote.no_tls(),
        DriverError::UnknownAuthPlugin(plugin) if plugin == "sha256_password" => format!(
            "{name} requires the authentication plugin sha256_password, which is not supported; a server also requires it if the user does \
             not exist, so check the user first"
        ),
        DriverError::UnknownAuthPlugin(plugin) => format!(
            "{name} requires the authentication plugin {plugin}, which is not supported; use an account with caching_sha2_password, ed25519, \
             unix_socket or mysql_native_password"
        ),
        DriverError::CleartextPluginDisabled | DriverError::OldMysqlPasswordDisabled => format!(
            "{name} asks for the password in an unsafe form ({error}); use an account with caching_sha2_password, ed25519 or \
             mysql_native_password"
        ),
        other => return DbError::fatal(DbErrorKind::Connection, format!("{doing}: {other}")),
    };
    DbError::fatal(DbErrorKind::Authentication, message)
}

/// A failure of the connection itself. It cannot be used any more.
fn transport(error: &Error, doing: &str, remote: &Remote) -> DbError {
    let cause: Option<&(dyn StdError + 'static)> = match error {
        Error::IoError(error) => Some(error),
        Error::CodecError(error) => Some(error),
        Error::TlsError(error) => Some(error),
        _ => None,
    };
    if let Some(cause) = cause {
        if let Some(failed) = tls::cause(cause) {
            return tls::explain(failed, remote);
        }
        let io = cause.downcast_ref::<io::Error>().or_else(|| cause.source().and_then(|source| source.downcast_ref::<io::Error>()));
        if let Some(io) = io {
            return input_output(io, doing, remote);
        }
    }
    remote.broken(doing, error)
}

fn input_output(error: &io::Error, doing: &str, remote: &Remote) -> DbError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => remote.answer_timed_out(doing),
        // The driver tried to open NO_SERVER_KEY.
        io::ErrorKind::NotADirectory => {
            let message = format!(
                "{} asks for the password itself (caching_sha2_password) over a connection without TLS, where a listener could read it; \
                 use TLS or the server's socket, or allow it with --insecure-auth",
                remote.name
            );
            DbError::fatal(DbErrorKind::Authentication, message)
        }
        _ => remote.broken(doing, error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mysql::MySqlError;

    use super::*;
    use crate::config::{TlsMode, TlsSettings};

    fn answered(code: u16, message: &str) -> DbError {
        let tls = TlsSettings { mode: TlsMode::Disable, ca: None, cert: None, key: None };
        let remote = Remote { name: "db:3306".to_owned(), tls, connect_timeout: Duration::ZERO, answer_timeout: None };
        let error = MySqlError { state: "HY000".to_owned(), message: message.to_owned(), code };
        describe(&Error::MySqlError(error), "cannot run x", &remote)
    }

    #[test]
    fn the_error_code_determines_the_kind() {
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
