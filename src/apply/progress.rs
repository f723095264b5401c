//! What a run reports: events while it runs, and its end.

use crate::audit::AuditError;
use crate::db::DbError;
use crate::domain::{Tally, UnitResult};
use crate::spool::Spool;

/// What happens during a run, for display.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A unit has ended.
    Ended(&'a UnitResult),
    /// A unit is tried again.
    Retry {
        /// Its number.
        unit: usize,
        /// Why.
        error: &'a DbError,
    },
    /// Before anything is written, the run waits for heartbeats of these hosts. Reported once a second, at the end with zero.
    Waiting {
        /// The hosts.
        hosts: &'a [String],
        /// How much longer, in whole seconds.
        seconds: u64,
    },
    /// The run waits for others before its next batch, and why; `None` once it goes on.
    Held(Option<&'a str>),
    /// Another session could not be opened; the run continues with fewer.
    FewerSessions(&'a DbError),
}

/// Why a run stopped before its last unit.
#[derive(Debug)]
pub enum Failure {
    /// The log could not be written before a change: nothing was changed without a record.
    LogBefore(AuditError),
    /// The log could not be completed after changes were made.
    LogAfter(AuditError),
    /// The database is unreachable, or refuses everything.
    Database(DbError),
    /// Too many units in a row failed to get a lock.
    LockedOut(DbError),
    /// The units or results, which are in a temporary file, could not be read or kept.
    Spool(std::io::Error),
    /// A signal ended it.
    Interrupted,
}

impl Failure {
    /// Whether nothing more can be recorded.
    pub fn is_of_log(&self) -> bool {
        matches!(self, Self::LogBefore(_) | Self::LogAfter(_))
    }
}

/// A run as it ended.
#[derive(Debug, Default)]
pub struct Run {
    /// One result a unit, in order.
    pub results: Spool<UnitResult>,
    /// How many units ended how.
    pub tally: Tally,
    /// Why it stopped early, if it did.
    pub failure: Option<Failure>,
    /// Every unit that failed did so because it could not get a lock.
    pub locks_only: bool,
    /// Who held the lock that a unit could not get, if the server reports it: a sentence each; hostile text.
    pub lock_holders: Vec<String>,
}
