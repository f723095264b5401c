//! The error of a command: what went wrong, the exit code, and what to do.

use crate::apply::UndoError;
use crate::audit::{AuditError, LogProblemCode};
use crate::db::{DbError, DbErrorKind};
use crate::domain::SealError;
use crate::domain::record_stream::StreamError;
use crate::domain::text::shell_word;
use crate::ledger::LedgerError;
use crate::report::grid::ReportError;
use crate::workflow::{self, Obstacle};

use super::Exit;

/// An error that ends the program.
#[derive(Debug)]
pub struct Error {
    pub exit: Exit,
    /// What went wrong, with its causes.
    pub error: anyhow::Error,
    pub hint: Option<String>,
}

/// The result of a command: how the program ends.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{message}"), hint: None }
    }

    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        let hint = match error.kind {
            DbErrorKind::Privilege if error.is_of_a_file() => {
                Some("run it as an account that may write to the database's directory, or on a copy of the file and its -wal file")
            }
            DbErrorKind::Privilege => Some("sql/grants has the minimum privileges for scan and repair"),
            DbErrorKind::NotPrimary => Some("connect to the primary (the writer behind the proxy), not to a replica"),
            DbErrorKind::LockTimeout => Some("another transaction holds the rows: wait for it, or raise --lock-timeout"),
            DbErrorKind::SessionState => Some("a proxy may have dropped it: connect to the server directly"),
            _ => None,
        };
        Self { exit: error.kind.into(), hint: hint.map(str::to_owned), error: error.into() }
    }
}

impl From<workflow::Error> for Error {
    fn from(error: workflow::Error) -> Self {
        use workflow::Error as Failed;
        let text = error.to_string();
        match error {
            Failed::Database(error) => error.into(),
            Failed::Log(error) | Failed::NoLog(error) => Self { error: anyhow::anyhow!(text), ..error.into() },
            Failed::Unusable(problem) => Self::usage(problem),
            Failed::Unfit(problem, hint) => Self::usage(problem).hint(hint),
            Failed::Unsafe(_) => Self::new(Exit::Safety, text),
            Failed::Running(problem) => Self::new(Exit::Lock, problem),
            Failed::Incomplete(problem, hint) => Self::new(Exit::Partial, problem).hint(hint),
            Failed::Edited(problem) => Self::new(Exit::Stale, problem),
            Failed::Unmatched(_) => Self::usage(text).hint("correct it, or use --allow-empty if it may match nothing"),
            Failed::OtherDatabase(..) => Self::new(Exit::Stale, text),
            Failed::Ledger(error) => error.into(),
            Failed::OtherColumns => Self::new(Exit::Stale, text).hint("make a new plan"),
            Failed::Applied(_) => Self::new(Exit::Stale, text).hint("make a new plan to see what is left"),
            Failed::Signature(_) => Self::new(Exit::Stale, text),
            Failed::Interrupted(signal) => Self::new(Exit::of_signal(signal), text),
            Failed::Start(_) | Failed::Spool(_) | Failed::Write(..) => Self::new(Exit::Unexpected, text),
            Failed::Undo(error) => error.into(),
            Failed::Obstacle(obstacle) => Self { error: anyhow::anyhow!(text), ..obstacle.into() },
        }
    }
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        let exit = match &error {
            LedgerError::Locked(..) => Exit::Lock,
            LedgerError::Sqlite(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Exit::Lock,
            LedgerError::Sqlite(_) | LedgerError::Document(_) => Exit::Unexpected,
            _ => Exit::Usage,
        };
        let hint = match &error {
            LedgerError::Missing(path) => Some(format!("correct the path, or make it with `scrub run --ledger {}`", shell_word(path))),
            LedgerError::NotALedger(..) => Some("name a ledger or, for `scrub run`, a file that does not exist yet".to_owned()),
            LedgerError::Damaged(..) => Some(
                "put a copy in its place, or remove it: the next scrub run then makes a new one and verifies all backups again".to_owned(),
            ),
            _ => None,
        };
        Self { hint, ..Self::new(exit, error) }
    }
}

impl From<Obstacle> for Error {
    fn from(obstacle: Obstacle) -> Self {
        let (exit, hint) = match &obstacle {
            Obstacle::ReadOnly(_, true) => {
                (Exit::NotPrimary, "run it as an account that may write to the file and its directory".to_owned())
            }
            Obstacle::ReadOnly(..) => (Exit::NotPrimary, "connect to the primary (the writer behind the proxy)".to_owned()),
            Obstacle::Privileges(_, grants) => {
                let grants = grants.join("; ");
                (Exit::Privilege, format!("ask a database administrator to run: {grants}; sql/grants has the complete grants"))
            }
        };
        Self::new(exit, obstacle).hint(hint)
    }
}

impl From<SealError> for Error {
    fn from(error: SealError) -> Self {
        let exit = match error {
            SealError::Invalid { .. } | SealError::Newer(_) => Exit::Usage,
            SealError::Edited(_) => Exit::Stale,
        };
        Self { exit, error: error.into(), hint: None }
    }
}

impl From<StreamError> for Error {
    fn from(error: StreamError) -> Self {
        let exit = match &error {
            StreamError::Seal(SealError::Edited(_), _) => Exit::Stale,
            StreamError::Seal(..) | StreamError::CutOff(_) | StreamError::Io(_) => Exit::Usage,
        };
        // Its message names the cause already.
        Self { exit, error: anyhow::anyhow!("{error}"), hint: None }
    }
}

impl From<UndoError> for Error {
    fn from(error: UndoError) -> Self {
        let exit = match error {
            UndoError::Nothing(_) => Exit::Stale,
            UndoError::Open { .. } | UndoError::Unknown { .. } => Exit::Unknown,
        };
        Self::new(exit, error)
    }
}

impl From<AuditError> for Error {
    fn from(error: AuditError) -> Self {
        let exit = match error {
            AuditError::NoSuchRun { .. } | AuditError::AmbiguousRun { .. } | AuditError::NoDefaultPath => Exit::Usage,
            AuditError::NotPrivate { .. } => Exit::Usage,
            AuditError::Damaged { ref problem, .. } if problem.code == LogProblemCode::NewerVersion => Exit::Usage,
            AuditError::Locked { .. } => Exit::Lock,
            AuditError::Io { .. } | AuditError::Poisoned { .. } | AuditError::TooLong { .. } | AuditError::Damaged { .. } => {
                Exit::Unexpected
            }
        };
        // Its message names the cause already; as an error with a source it would be said twice.
        Self { exit, error: anyhow::anyhow!("{error}"), hint: None }
    }
}

impl From<ReportError> for Error {
    fn from(error: ReportError) -> Self {
        let exit = if matches!(error, ReportError::Io(_)) { Exit::Unexpected } else { Exit::Usage };
        Self { exit, error: error.into(), hint: None }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self { exit: Exit::Unexpected, error: error.into(), hint: None }
    }
}
