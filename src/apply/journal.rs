//! The log as the executor sees it: intents before changes, outcomes after them.

use crate::audit::AuditError;
use crate::audit::record::Event;

/// A record of events that is on disk once `sync` has returned.
pub trait Journal {
    /// Appends an event, perhaps only in memory.
    fn append(&mut self, event: Event) -> Result<(), AuditError>;
    /// Hands all appended events to the operating system: they survive this process, but not a power cut.
    fn flush(&mut self) -> Result<(), AuditError>;
    /// Writes all appended events to the disk.
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
