//! What PostgreSQL and the driver say, as a [`DbError`]: kind, one sentence, what to do.

use std::error::Error as StdError;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError as Answer, Severity};

use crate::config::TlsSettings;
use crate::db::{DbError, DbErrorKind, tls};

/// Whom a message is about.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// `db1:5432` or `socket in /run/postgresql`.
    pub name: String,
    /// The TLS settings, for what to do about a certificate.
    pub tls: TlsSettings,
}

/// A failure, and whether the server itself said so and keeps the connection: then it has certainly not done what it was asked.
pub(super) struct Failure {
    pub error: DbError,
    pub refused: bool,
}

/// A failure while `doing` something ("cannot read the backup").
pub(super) fn describe(error: &Error, doing: &str, place: &Place) -> Failure {
    if let Some(answer) = error.as_db_error() {
        let fatal = !matches!(answer.parsed_severity(), Some(Severity::Error));
        let described = server(answer, doing);
        let fatal = fatal || described.kind == DbErrorKind::Connection;
        return Failure { error: DbError { fatal, ..described }, refused: !fatal };
    }
    Failure { error: transport(error, doing, place), refused: false }
}

/// Whether the server has no TLS, as opposed to TLS that failed.
pub(super) fn offers_no_tls(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.to_string() == "server does not support TLS")
}

fn server(answer: &Answer, doing: &str) -> DbError {
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
            Some("check the user, its role, and what the server's pg_hba.conf demands for it (TLS, a client certificate)"),
        ),
        "42501" if message.contains("row-level security") => {
            (Kind::Privilege, Some("rows would be hidden from this account; use one with BYPASSRLS"))
        }
        "42501" => (Kind::Privilege, Some("see `sql/grants` for what the account needs")),
        "55P03" => (Kind::LockTimeout, None),
        "57014" => (Kind::Timeout, Some("raise the statement time-out if the server is just slow")),
        "40001" | "40P01" => (Kind::Conflict, None),
        "3D000" => (Kind::Schema, Some("check the database's name in the URL")),
        "42P01" | "42703" | "3F000" => (Kind::Schema, None),
        "53300" => (Kind::Connection, Some("the server has no connection to spare")),
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => (Kind::Connection, None),
        _ if code.starts_with("08") => (Kind::Connection, None),
        _ => (Kind::Other, None),
    }
}

/// A failure of the connection itself, or of the driver: it is over, whatever the kind.
fn transport(error: &Error, doing: &str, place: &Place) -> DbError {
    let at = &place.name;
    if let Some(failed) = tls::cause(error) {
        return tls::explain(failed, at, &place.tls);
    }
    if offers_no_tls(error) {
        return DbError::fatal(
            DbErrorKind::Connection,
            format!("{at} offers no TLS, which the settings ask for; enable it on the server, or use another TLS mode"),
        );
    }
    let cause = error.source();
    if let Some(io) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        let connecting = error.to_string() == "error connecting to server";
        return input_output(io, connecting, doing, place);
    }
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let kind = if error.to_string() == "authentication error" || cause.contains("password missing") {
        DbErrorKind::Authentication
    } else {
        DbErrorKind::Connection
    };
    DbError::fatal(kind, format!("{doing}: {at}: {error}{cause}"))
}

fn input_output(error: &io::Error, connecting: bool, doing: &str, place: &Place) -> DbError {
    let at = &place.name;
    let (kind, message) = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            (DbErrorKind::Connection, format!("nothing listens at {at} (connection refused); check that the server runs and the port"))
        }
        io::ErrorKind::NotFound => (DbErrorKind::Connection, format!("{at} does not exist; check the folder, and that the server runs")),
        io::ErrorKind::PermissionDenied => (DbErrorKind::Connection, format!("this user may not connect to {at}: {error}")),
        io::ErrorKind::TimedOut if connecting => (DbErrorKind::Connection, format!("{at} does not answer; check host, port and firewall")),
        _ => (DbErrorKind::Connection, format!("{doing}: the connection to {at} broke: {error}")),
    };
    DbError::fatal(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_decides_the_kind() {
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
