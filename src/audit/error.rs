//! What can go wrong with the audit log, said in one sentence.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::chain::{Problem, ProblemKind};
use super::record::SCHEMA_VERSION;

/// A failure of the audit log.
#[derive(Debug, Error)]
pub enum AuditError {
    /// Another process writes to it.
    #[error("audit log {path} is in use by {}: wait until that run has ended", holder(*.pid))]
    Locked {
        /// The log.
        path: PathBuf,
        /// Who holds it, where the system says so.
        pid: Option<u32>,
    },
    /// Others could change it, or it is no plain file.
    #[error("audit log {path} {what}")]
    NotPrivate {
        /// The log.
        path: PathBuf,
        /// What is wrong with it and what to do.
        what: String,
    },
    /// The system would not.
    #[error("cannot {action} audit log {path}: {source}")]
    Io {
        /// The log, or a directory on the way to it.
        path: PathBuf,
        /// What was tried, a verb.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// An earlier write failed, so that what the file holds is not known any more.
    #[error("audit log {path} takes no more records, because an earlier write failed: {cause}")]
    Poisoned {
        /// The log.
        path: PathBuf,
        /// The first failure.
        cause: String,
    },
    /// A record that no reader would accept was to be written.
    #[error("audit log {path} cannot take a record of {bytes} bytes: the limit is {} bytes", super::MAX_LINE)]
    TooLong {
        /// The log.
        path: PathBuf,
        /// How long the line would be.
        bytes: usize,
    },
    /// A line is not what was written.
    #[error("audit log {path}: line {line} {kind}")]
    Damaged {
        /// The log.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        kind: ProblemKind,
    },
    /// A line that only a later program understands.
    #[error(
        "audit log {path}: line {line} was written by a newer version of this program (schema version {version}, this one knows \
         {SCHEMA_VERSION}): use that one, or another --audit-log"
    )]
    NewerVersion {
        /// The log.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Its schema version.
        version: u64,
    },
    /// No run of this id.
    #[error("audit log {path} holds no run {run}: `history list` shows those that it holds")]
    NoSuchRun {
        /// The log.
        path: PathBuf,
        /// What was asked for.
        run: String,
    },
    /// Several runs begin like this.
    #[error("run {run} is ambiguous in audit log {path}: it may be {}", some(candidates))]
    AmbiguousRun {
        /// The log.
        path: PathBuf,
        /// What was asked for.
        run: String,
        /// All that fit, oldest first.
        candidates: Vec<String>,
    },
    /// There is no usual place for this user.
    #[error("neither XDG_STATE_HOME nor HOME names an absolute directory for the audit log: give --audit-log FILE")]
    NoDefaultPath,
}

impl AuditError {
    /// An I/O failure.
    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }

    /// A problem of the chain, with the file that it is in.
    pub(super) fn of(path: &Path, problem: Problem) -> Self {
        let (path, line) = (path.to_owned(), problem.line);
        match problem.kind {
            ProblemKind::NewerVersion { version } => Self::NewerVersion { path, line, version },
            kind => Self::Damaged { path, line, kind },
        }
    }

    /// Whether there was no such file to read: nothing was ever recorded there. A log that vanished while in use is another matter.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { action: "open", source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The first of the candidates, and how many more there are.
fn some(candidates: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = candidates.iter().take(SHOWN).map(String::as_str).collect();
    let more = candidates.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// The holder of a lock in words.
fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
