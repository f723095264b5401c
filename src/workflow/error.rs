//! What keeps a command from doing its work.

use std::io;

use thiserror::Error;

use crate::apply::UndoError;
use crate::audit::AuditError;
use crate::db::DbError;
use crate::domain::SealError;
use crate::domain::record_stream::StreamError;
use crate::ledger::LedgerError;
use crate::scan::ScanError;

/// What keeps a command from doing its work.
#[derive(Debug, Error)]
pub enum Error {
    /// The database refused.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The audit log cannot be read.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// The audit log cannot be written, so nothing may be changed.
    #[error("no log, no change: {0}")]
    NoLog(AuditError),
    /// What was asked for cannot be used: a backup that does not exist, a file of another kind, a key.
    #[error("{0}")]
    Unusable(String),
    /// The same, with what to do about it.
    #[error("{0}")]
    Unfit(String, String),
    /// A safety rule forbids it.
    #[error("{0}; nothing was changed")]
    Unsafe(String),
    /// Another process holds a file.
    #[error("{0}")]
    Running(String),
    /// Something is missing that another run can add, with what to do about it.
    #[error("{0}")]
    Incomplete(String, String),
    /// A document was edited.
    #[error("{0}")]
    Edited(String),
    /// Options that match nothing: one sentence each.
    #[error("{}", .0.join("; "))]
    Unmatched(Vec<String>),
    /// A document is about another database.
    #[error("{0}; nothing was changed")]
    OtherDatabase(String),
    #[error("the database has other columns than the plan; nothing was changed")]
    OtherColumns,
    /// A plan was applied by this run.
    #[error("this plan was applied already, by run {0}; nothing was changed")]
    Applied(String),
    /// A document is not signed with the key that it must be signed with.
    #[error("{0}; nothing was changed")]
    Signature(String),
    /// The ledger of a scrub cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot begin the check: {0}")]
    Start(io::Error),
    /// The units of a plan, or results, cannot be kept in a temporary file or read from it.
    #[error("{0}")]
    Spool(#[from] io::Error),
    /// A run cannot be undone.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// A signal stopped a check that a decision needs.
    #[error("stopped by {0} while checking the storage; nothing was changed")]
    Interrupted(&'static str),
    #[error("cannot write {0}: {1}")]
    Write(String, io::Error),
    #[error("{0}; nothing was changed")]
    Obstacle(#[from] Obstacle),
}

impl Error {
    /// Why a record stream cannot be read.
    pub fn of_stream(name: &str, error: StreamError) -> Self {
        let problem = format!("{name} {error}");
        if matches!(error, StreamError::Seal(SealError::Edited(_), _)) { Self::Edited(problem) } else { Self::Unusable(problem) }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// What keeps a run from writing.
#[derive(Debug, Error)]
pub enum Obstacle {
    /// This database accepts no writes; whether it is a file.
    #[error("{0} accepts no writes: it is read-only, or a replica")]
    ReadOnly(String, bool),
    /// The account may not make the changes of a repair in this database; the GRANTs that it lacks.
    #[error("this account lacks privileges for a repair in {0}")]
    Privileges(String, Vec<String>),
}

impl From<ScanError> for Error {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Db(error) => Self::Database(error),
            ScanError::Selection(problem) => Self::Unusable(problem),
            ScanError::NewHost(problem) => Self::Unsafe(problem),
            ScanError::Spool(error) => error.into(),
            ScanError::Stopped => Self::Unusable("the scan was stopped".to_owned()),
        }
    }
}
