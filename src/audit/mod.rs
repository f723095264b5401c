//! The audit log, which records every change before it is made.
//!
//! Each line is one JSON object with the SHA-256 of the line before it. Lines are appended and never rewritten. [`AuditLog`] writes the
//! log; `runs`, `load_run` and `verify` read it. The chain itself (`chain`, `record`, `path`) is pure.
//! May use `domain` and `input` only.
//!
//! The chain and the digest of each record show every accidental change, and every edit of a part of the log. They do not show that
//! lines were cut off at the end: keep the last hash elsewhere and give it to [`verify`]. A person can compute the whole chain again;
//! only a signature of the last hash shows that.

mod chain;
mod error;
mod holder;
mod line_digest;
mod log;
mod parse;
mod path;
mod read;
pub(crate) mod record;
mod runs;
mod tail;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

pub use chain::LogProblemCode;
pub(crate) use chain::{Head, Problem};
pub use error::AuditError;
pub use line_digest::digest;
pub use log::AuditLog;
pub(crate) use path::default_path;
pub(crate) use read::{read as records, verify};
pub(crate) use record::{Begin, Intent, Settled, UnitOutcome};
pub use record::{Event, Record};
pub(crate) use runs::{RunHead, RunRecords, RunSummary, UnitHistory, load_run, load_runs, read_run, runs};

/// The longest line that is written or read, in bytes. Without a limit a file of another kind could fill the memory.
pub const MAX_LINE: usize = 16 << 20;
