//! What a command reports while it works, and how it learns that it should stop.

use std::io;
use std::path::Path;

use crate::apply;
use crate::domain::{CheckResult, Level};
use crate::verify::Watch;

/// Something that happened; reported in order, on the thread that called.
#[derive(Debug)]
pub enum Event<'a> {
    /// The database is being read from now on.
    Reading,
    /// It was read.
    Read,
    /// An option matches nothing: a sentence.
    Unmatched(&'a str),
    /// A check document is of a check that was stopped.
    Interrupted {
        /// The document.
        path: &'a Path,
        /// What stopped the check.
        why: &'a str,
    },
    /// A check begins.
    Checking {
        /// Its level.
        level: Level,
        /// How many backups are checked.
        backups: usize,
    },
    /// A backup was checked.
    Checked(&'a CheckResult),
    /// How far the check is; reported several times a second.
    CheckProgress {
        /// How many results there are.
        ready: usize,
        /// How much was read.
        watch: &'a Watch,
    },
    /// All backups were checked, or the check was stopped.
    CheckEnded,
    /// What the user must know about a storage.
    StorageWarning(&'a str),
    /// Results are no longer written to their file.
    FileFailed {
        /// The file.
        path: &'a Path,
        /// Why.
        error: &'a io::Error,
    },
    /// A partial file keeps earlier results of backups that could not be checked now.
    FileKept {
        /// The file.
        path: &'a Path,
        /// How many backups.
        backups: usize,
    },
    /// A run begins, with so many units.
    Running(usize),
    /// Something of the run.
    Run(apply::Progress<'a>),
    /// The run has ended.
    Ran,
    /// A unit's outcome was recorded.
    Settled {
        /// Its run.
        run: &'a str,
        /// Its number.
        unit: usize,
        /// Why.
        reason: &'a str,
    },
    /// The storage of some backups could not be checked again before the change.
    NotRechecked {
        /// How many.
        backups: usize,
        /// Why the first could not.
        why: &'a str,
    },
}

/// A request to stop.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// The signal's name.
    pub signal: &'static str,
    /// How many signals have arrived.
    pub times: usize,
}

/// Follows a command.
pub trait Observer: Sync {
    /// Receives an event.
    fn event(&self, event: Event<'_>);

    /// The request to stop, if there was one.
    fn stop(&self) -> Option<Stop>;
}

/// Reads the database, and reports the beginning and the end of it.
pub fn reading<T>(observer: &dyn Observer, read: impl FnOnce() -> T) -> T {
    observer.event(Event::Reading);
    let read = read();
    observer.event(Event::Read);
    read
}
