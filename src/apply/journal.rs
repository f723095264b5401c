//! Where the executor says what it is about to do and what came of it.

use crate::audit::AuditError;
use crate::audit::record::Event;

/// A record of events that is on disk once `sync` has returned.
pub trait Journal {
    /// Takes an event down; it may still be in memory.
    fn append(&mut self, event: Event) -> Result<(), AuditError>;
    /// Hands everything taken down so far to the operating system: it outlives this process, if not yet a power cut.
    fn flush(&mut self) -> Result<(), AuditError>;
    /// Puts everything taken down so far onto the disk.
    fn sync(&mut self) -> Result<(), AuditError>;
}

/// For dry runs, which change nothing and so have nothing to record.
#[derive(Debug, Default)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn append(&mut self, _: Event) -> Result<(), AuditError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), AuditError> {
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AuditError> {
        Ok(())
    }
}
