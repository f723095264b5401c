//! What a command reports while it works, and how it learns that it should stop.

use crate::apply;
use crate::domain::{CheckResult, Level};
use crate::verify::Watch;

/// Something that happened; reported in order, on the thread that called.
#[derive(Debug)]
pub enum WorkEvent<'a> {
    /// What the user must know: a sentence.
    Warning(String),
    /// What interests a user who asked for details: a sentence.
    Detail(String),
    Reading,
    Read,
    /// A check of this level begins, with this number of backups.
    Checking(Level, usize),
    Checked(&'a CheckResult),
    /// The number of results so far, and how much was read; reported several times a second.
    CheckProgress(usize, &'a Watch),
    /// All backups were checked, or the check was stopped.
    CheckEnded,
    /// A run begins, with this number of units.
    Running(usize),
    /// Something of the run.
    Run(apply::Progress<'a>),
    Ran,
}

#[derive(Debug, Clone, Copy)]
pub struct Stop {
    pub signal: &'static str,
    pub times: usize,
}

/// Follows a command.
pub trait Observer: Sync {
    fn event(&self, event: WorkEvent<'_>);

    /// The request to stop, if there was one.
    fn stop(&self) -> Option<Stop>;
}

/// Reads the database, and reports the beginning and the end of it.
pub fn reading<T>(observer: &dyn Observer, read: impl FnOnce() -> T) -> T {
    observer.event(WorkEvent::Reading);
    let read = read();
    observer.event(WorkEvent::Read);
    read
}
