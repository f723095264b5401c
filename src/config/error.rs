//! What can be wrong with the configuration: each error is one sentence that says what, where, and what to do.

use thiserror::Error;

use super::Origin;

/// A configuration that cannot be used. Holds no secret: values are never part of it, only places and names.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A file or directory that was asked for cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the operating system said, and what to do.
        reason: String,
    },
    /// A line that does not follow the rules of its file.
    #[error("{path}:{line}: {problem}")]
    Syntax {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A value that cannot be used.
    #[error("{origin}: {problem}")]
    Invalid {
        /// Where the value was written.
        origin: Origin,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Nothing names a database.
    #[error("no Cinder database is configured: {looked}; give --database-url URL or --config-file FILE")]
    NoDatabase {
        /// Where it was looked for.
        looked: String,
    },
}

impl ConfigError {
    /// A value that cannot be used, with the place where it was written.
    pub(super) fn invalid(origin: &Origin, problem: impl Into<String>) -> Self {
        Self::Invalid { origin: origin.clone(), problem: problem.into() }
    }

    /// A file that cannot be read.
    pub(super) fn unreadable(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::Unreadable { path: path.display().to_string(), reason: reason.to_string() }
    }
}
