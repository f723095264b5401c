//! How a run is executed.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::db::{DbError, Session, SessionSettings};

/// Opens another session on the same database.
pub type Connect<'a> = &'a (dyn Fn() -> Result<Box<dyn Session>, DbError> + Sync);

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Rows are locked and changed.
    Write,
    /// Nothing is written: transactions are read-only and end where the first UPDATE would be.
    DryRun,
}

/// How a run is executed.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether anything is written.
    pub mode: Mode,
    /// How many units share the two fsyncs of the log.
    pub batch_size: usize,
    /// How often a unit is tried if the database lets another transaction win.
    pub attempts: u32,
    /// The pauses between tries.
    pub backoff: Backoff,
    /// How many sessions work on units that have no row in common. SQLite has one writer, so there it is 1, as in a dry run.
    pub sessions: usize,
    /// How old the heartbeats in the plan must be before the first change that depends on a silent service: longer than the interval
    /// between two heartbeats. Zero does not wait.
    pub heartbeat_wait: Duration,
    /// How old a batch may be when one of its units begins. Its intents state when it ends, and rows that others hold for long use that time
    /// up. The remaining units then get new intents, in a batch of their own.
    pub begins_within: Duration,
    /// How long a session waits for another transaction's lock, as it was opened.
    pub lock_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Write,
            batch_size: 100,
            attempts: 6,
            backoff: Backoff { first: Duration::from_millis(50), longest: Duration::from_millis(1600) },
            sessions: 1,
            heartbeat_wait: Duration::ZERO,
            // A unit that waits for locks after this still has time to write.
            begins_within: Duration::from_secs(150),
            lock_timeout: SessionSettings::default().lock_timeout,
        }
    }
}
