//! Turns errors of PostgreSQL and the driver into a [`DbError`].

use std::error::Error as StdError;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError as ServerError, Severity};

use crate::db::remote::Remote;
use crate::db::{DbError, DbErrorKind, tls};

/// An error while `doing` something ("cannot read the backup"). If it is not fatal, the server refused the statement and keeps the
/// connection, so the statement certainly had no effect.
pub(super) fn describe(error: &Error, doing: &str, remote: &Remote) -> DbError {
    let Some(answer) = error.as_db_error() else { return transport(error, doing, remote) };
    let described = server(answer, doing);
    let fatal = !matches!(answer.parsed_severity(), Some(Severity::Error)) || described.kind == DbErrorKind::Connection;
    DbError { fatal, ..described }
}

/// Whether the server does not offer TLS, as opposed to a failed handshake.
pub(super) fn offers_no_tls(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.to_string() == "server does not support TLS")
}

fn server(answer: &ServerError, doing: &str) -> DbError {
    let code = answer.code().code();
    let message = answer.message();
    let (kind, advice) = meaning(code, message);
    let detail = answer.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
    DbError::new(kind, format!("{doing}: {message}{detail} (SQLSTATE {code}){advice}")).with_code(code)
}

fn meaning(code: &str, message: &str) -> (DbErrorKind, Option<&'static str>) {
    use DbErrorKind as Kind;
    match code {
        "28P01" => (Kind::Authentication, Some("check the user and the password")),
        "28000" => (
            Kind::Authentication,
            Some("check the user, its role, and what the server's pg_hba.conf requires for it (TLS, a client certificate)"),
        ),
        "42501" if message.contains("row-level security") => {
            (Kind::Privilege, Some("a row policy hides rows from this account; use one with BYPASSRLS"))
        }
        "42501" => (Kind::Privilege, Some("see `sql/grants` for what the account needs")),
        "55P03" => (Kind::LockTimeout, None),
        "57014" => (Kind::Timeout, Some("raise the statement time-out if the server is only slow")),
        "40001" | "40P01" => (Kind::Conflict, None),
        "3D000" => (Kind::Schema, Some("check the database's name in the URL")),
        "42P01" | "42703" | "3F000" => (Kind::Schema, None),
        "53300" => (Kind::Connection, Some("all connections of the server are in use")),
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => (Kind::Connection, None),
        _ if code.starts_with("08") => (Kind::Connection, None),
        _ => (Kind::Other, None),
    }
}

/// A failure of the connection itself or of the driver. The connection cannot be used any more.
fn transport(error: &Error, doing: &str, remote: &Remote) -> DbError {
    if let Some(failed) = tls::cause(error) {
        return tls::explain(failed, remote);
    }
    if offers_no_tls(error) {
        return remote.no_tls();
    }
    let cause = error.source();
    if let Some(io) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        let connecting = error.to_string() == "error connecting to server";
        return match io.kind() {
            kind @ (io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                remote.cannot_connect(kind, io)
            }
            kind @ io::ErrorKind::TimedOut if connecting => remote.cannot_connect(kind, io),
            _ => remote.broken(doing, io),
        };
    }
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let kind = if error.to_string() == "authentication error" || cause.contains("password missing") {
        DbErrorKind::Authentication
    } else {
        DbErrorKind::Connection
    };
    DbError::fatal(kind, format!("{doing}: {}: {error}{cause}", remote.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_code_determines_the_kind() {
        for (code, kind) in [
            ("28P01", DbErrorKind::Authentication),
            ("42501", DbErrorKind::Privilege),
            ("55P03", DbErrorKind::LockTimeout),
            ("57014", DbErrorKind::Timeout),
            ("40001", DbErrorKind::Conflict),
            ("40P01", DbErrorKind::Conflict),
            ("42P01", DbErrorKind::Schema),
            ("57P01", DbErrorKind::Connection),
            ("08006", DbErrorKind::Connection),
            ("25006", DbErrorKind::Other),
        ] {
            assert_eq!(meaning(code, "").0, kind, "{code}");
        }
    }
}
