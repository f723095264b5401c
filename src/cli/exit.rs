//! Exit codes, on which scripts depend.

use serde::Serialize;

use crate::db::DbErrorKind;

/// Why the program ended, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Something unexpected.
    Unexpected = 1,
    /// The command line or the configuration cannot be used.
    Usage = 2,
    /// There are findings (only with `--detailed-exitcode`).
    Findings = 3,
    /// Some units were refused, failed or had changed meanwhile.
    Partial = 4,
    /// The plan is stale, was edited or was applied already, or a signature is wrong; nothing was written.
    Stale = 5,
    /// A safety rule forbids it; nothing was written.
    Safety = 6,
    /// An outcome is unknown: a person must check it.
    Unknown = 7,
    /// Applied, but the audit log could not be completed.
    LogIncomplete = 8,
    /// A check found damaged or missing data.
    Damaged = 9,
    /// No connection.
    Connection = 10,
    /// A lock or a time-out, and no retries left.
    Lock = 11,
    /// Login or privilege.
    Privilege = 12,
    /// The server is not a writable primary.
    NotPrimary = 13,
    /// The schema is not one that this program can work with.
    Schema = 14,
    /// SIGHUP: the terminal was closed.
    HungUp = 129,
    /// SIGINT, or the answer to a question was no; then nothing was written.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl Exit {
    pub fn code(self) -> u8 {
        self as u8
    }

    /// For a program that a signal of this name ended.
    pub fn of_signal(name: &str) -> Self {
        match name {
            "SIGTERM" => Self::Terminated,
            "SIGHUP" => Self::HungUp,
            _ => Self::Interrupted,
        }
    }
}

impl From<DbErrorKind> for Exit {
    fn from(kind: DbErrorKind) -> Self {
        match kind {
            DbErrorKind::Connection => Self::Connection,
            DbErrorKind::Timeout | DbErrorKind::LockTimeout | DbErrorKind::Conflict => Self::Lock,
            DbErrorKind::Authentication | DbErrorKind::Privilege => Self::Privilege,
            DbErrorKind::NotPrimary => Self::NotPrimary,
            DbErrorKind::Schema => Self::Schema,
            DbErrorKind::Configuration => Self::Usage,
            DbErrorKind::SessionState | DbErrorKind::Other => Self::Unexpected,
        }
    }
}
