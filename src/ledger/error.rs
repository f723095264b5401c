//! Errors of opening, reading and writing a ledger.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use thiserror::Error;

/// Why a ledger cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// There is no such file.
    #[error("the ledger {0} does not exist")]
    Missing(String),
    /// The file cannot be opened or created.
    #[error("cannot open the ledger {0}: {1}")]
    Open(String, io::Error),
    /// The file is something else.
    #[error("{0} is not a ledger: {1}")]
    NotALedger(String, String),
    /// A newer program made it.
    #[error("the ledger {0} has version {1}, and this program knows versions up to {2}: use the version that wrote it")]
    Newer(String, i64, i64),
    /// It belongs to another database: the ledger, its database, this database.
    #[error("the ledger {0} is about the database {1}, but this is {2}: use one ledger for each database")]
    OtherDatabase(String, String, String),
    /// Another run writes to it; its process, if that is known.
    #[error("another scrub run{1} is writing to the ledger {0}: wait until it ends")]
    Locked(String, String),
    /// Other accounts may write to it.
    #[error("the ledger {0} can be changed by other accounts: run chmod 600 {0}")]
    NotPrivate(String),
    /// A part of the file is missing or was overwritten.
    #[error("the ledger {0} is damaged: {1}")]
    Damaged(String, String),
    /// SQLite cannot read or write it.
    #[error("cannot use the ledger: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A document that cannot be read or made.
    #[error("cannot use a result in the ledger: {0}")]
    Document(#[from] serde_json::Error),
}

impl LedgerError {
    /// Whether [`Ledger::interrupt`](super::Ledger::interrupt) ended a statement.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
    }

    /// The same, with the path of the ledger if the file is damaged.
    #[must_use]
    pub fn of(self, path: &Path) -> Self {
        let problem = match &self {
            Self::Sqlite(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) => {
                error.to_string()
            }
            Self::Document(error) => format!("a result is not the JSON of one: {error}"),
            _ => return self,
        };
        Self::Damaged(path.display().to_string(), problem)
    }
}
