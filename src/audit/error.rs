//! Errors of the audit log, one sentence each.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::chain::Problem;

/// A failure of the audit log.
#[derive(Debug, Error)]
pub enum AuditError {
    /// Another process holds its lock.
    #[error("audit log {path} is in use by {}: wait until that run has ended", holder(*.pid))]
    Locked {
        /// The log.
        path: PathBuf,
        /// The holder, if the system reports it.
        pid: Option<u32>,
    },
    /// Another user can change it, or it is not a regular file.
    #[error("audit log {path} {what}")]
    NotPrivate {
        /// The log.
        path: PathBuf,
        /// What is wrong with it and what to do.
        what: String,
    },
    /// A system call failed.
    #[error("cannot {action} audit log {path}: {source}")]
    Io {
        /// The log, or a directory on the way to it.
        path: PathBuf,
        /// What failed, as a verb.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An earlier write failed, so the content of the file is unknown.
    #[error("audit log {path} accepts no more records, because an earlier write failed: {cause}")]
    Poisoned {
        /// The log.
        path: PathBuf,
        /// The first failure.
        cause: String,
    },
    /// A record is longer than readers accept.
    #[error("cannot add a record of {bytes} bytes to audit log {path}: the limit is {} bytes", super::MAX_LINE)]
    TooLong {
        /// The log.
        path: PathBuf,
        /// The length of the line.
        bytes: usize,
    },
    /// A line is damaged, or was written by a newer version.
    #[error("audit log {path}: {problem}")]
    Damaged {
        /// The log.
        path: PathBuf,
        /// The line, and what is wrong with it.
        problem: Problem,
    },
    /// The log has no run with this id.
    #[error("audit log {path} has no run {run}: `history list` shows its runs{meant}")]
    NoSuchRun {
        /// The log.
        path: PathBuf,
        /// The id that was given.
        run: String,
        /// The one that may be meant, in words.
        meant: String,
    },
    /// Several run ids begin with the given text.
    #[error("run {run} is ambiguous in audit log {path}: it matches {}", some(candidates))]
    AmbiguousRun {
        /// The log.
        path: PathBuf,
        /// The id that was given.
        run: String,
        /// All matching runs, oldest first.
        candidates: Vec<String>,
    },
    /// There is no default path for this user.
    #[error("neither XDG_STATE_HOME nor HOME names an absolute directory for the audit log: give --audit-log FILE")]
    NoDefaultPath,
}

impl AuditError {
    /// An I/O failure.
    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }

    /// A problem of the chain, with the path of the log.
    pub(super) fn of(path: &Path, problem: Problem) -> Self {
        Self::Damaged { path: path.to_owned(), problem }
    }
}

/// The first candidates and the number of the others.
fn some(candidates: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = candidates.iter().take(SHOWN).map(String::as_str).collect();
    let more = candidates.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// The holder of the lock in words.
fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
