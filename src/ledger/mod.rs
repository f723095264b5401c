//! The ledger: when each backup was verified, at which level, and with which result. One SQLite file of its own, never the Cinder database.
//!
//! May use `domain`, and rusqlite for the file. Knows no clock: the caller says what time it is. A run holds a lock on a file beside the
//! ledger, which the system releases when the process ends, however it ends. Each result is a transaction. While a run writes, the file
//! has a write-ahead log: a commit then costs a few microseconds instead of two waits for the disk, and `scrub status` and `scrub pause`
//! work meanwhile. At the end of a run the journal is changed back, so that the ledger between runs is one file, which can be copied to
//! another host as evidence.

mod error;
mod file;
mod live;
pub mod policy;
mod queue;
mod record;
mod statements;
mod status;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;

use std::path::PathBuf;

use rusqlite::{Connection, Row};

pub use error::LedgerError;
pub use file::{RunLock, is_sqlite};
pub use live::{LivePass, LiveRow};
pub use queue::{Queue, Queued};
pub use record::{Recorded, Run};
pub use status::{Covered, Failure, Pause, Rate, StoredResult};

/// A ledger that is open.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    connection: Connection,
}

/// How many instructions of SQLite's virtual machine run between two questions whether to stop: some tens of rows.
const STEPS: std::ffi::c_int = 1_000;

type Result<T> = std::result::Result<T, LedgerError>;

impl Ledger {
    /// The path, for messages.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Runs `act` in a transaction that writes.
    fn transaction<T>(&self, act: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        // An error may have left a transaction on temporary tables open.
        if !self.connection.is_autocommit() {
            self.batch(statements::ROLLBACK)?;
        }
        self.batch(statements::BEGIN)?;
        match act(&self.connection).and_then(|done| self.batch(statements::COMMIT).map(|()| done)) {
            Ok(done) => Ok(done),
            Err(error) => {
                // The first error is the one to report.
                let _ = self.batch(statements::ROLLBACK);
                Err(error)
            }
        }
    }

    /// Makes statements fail once `is_over` returns true, with an error that [`LedgerError::is_interrupted`] recognizes; `None` removes the
    /// limit. A statement or transaction that fails leaves nothing in the ledger.
    pub fn interrupt(&mut self, is_over: Option<impl FnMut() -> bool + Send + 'static>) -> Result<()> {
        Ok(self.connection.progress_handler(STEPS, is_over)?)
    }

    fn batch(&self, statement: &str) -> Result<()> {
        Ok(self.connection.execute_batch(statement)?)
    }
}

/// A number of the ledger, which is never negative.
fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, Option<i64>>(column)?.unwrap_or_default()).unwrap_or_default())
}

/// A number as SQLite stores it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
