//! Errors in the configuration: what is wrong, where, and what to do.

use thiserror::Error;

use super::Origin;

/// A configuration that cannot be used. It contains only origins and names, and no values, which could be secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The error of the operating system, and what to do.
        reason: String,
    },
    /// A line with a syntax error.
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
        /// The origin of the value.
        origin: Origin,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Nothing names a database.
    #[error("no Cinder database is configured: {searched}; give --database-url URL or --config-file FILE")]
    NoDatabase {
        /// Where it was searched for.
        searched: String,
    },
}

impl ConfigError {
    /// A value that cannot be used.
    pub(super) fn invalid(origin: &Origin, problem: impl Into<String>) -> Self {
        Self::Invalid { origin: origin.clone(), problem: problem.into() }
    }

    /// A file that cannot be read.
    pub(super) fn unreadable(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::Unreadable { path: path.display().to_string(), reason: reason.to_string() }
    }
}
