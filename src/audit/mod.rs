//! The audit log: every change is on record before it is made.
//!
//! One JSON object a line, each with the SHA-256 of the line before, appended and never rewritten. [`AuditLog`] writes it,
//! [`read`](read::read), [`runs`], [`load_run`] and [`verify`] read it. The chain itself ([`chain`], [`record`], [`path`]) is pure.
//! May use `domain` and `input` only.
//!
//! The chain, and the digest that each record has of itself, show every accidental change and every edit of a part. They cannot show
//! that lines were cut off at the end: for that, keep the last hash somewhere else and give it to [`verify`]. Nor do they stop a
//! person, who can compute the whole chain anew; a signature of the last hash does.

pub mod chain;
mod error;
mod holder;
mod log;
mod parse;
pub mod path;
pub mod read;
pub mod record;
mod runs;
mod seal;
mod tail;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod properties;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod samples;

pub use chain::{Head, Problem, ProblemKind, Unfinished, Verifier, digest};
pub use error::AuditError;
pub use log::{AuditLog, Sink};
pub use path::default_path;
pub use read::{Anchor, Place, Records, VerifyReport, verify};
pub use record::{Begin, DatabaseRef, Event, Intent, Record, Settled, StatementText, UnitOutcome, Who, Window};
pub use runs::{RunEnd, RunRecords, RunSummary, Runs, Span, UnitHistory, load_run, load_runs, runs};

/// The longest line that is written or read, in bytes: so that a file of something else cannot fill the memory.
pub const MAX_LINE: usize = 16 << 20;
