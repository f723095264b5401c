//! The format of Cinder's chunked backups: names, side files, compression.
//!
//! Pure over [`std::io::Read`]: no storage, no clock. All of it is read as a stream and none of it is trusted: memory stays
//! the same however large a file says it is, and whatever is in it ends in a value or a [`FormatError`]. May use `domain`.

pub mod decompress;
pub mod generate;
mod json;
pub mod metadata;
pub mod names;
pub mod sha256file;

use std::io;

use thiserror::Error;

/// Why a side file could not be read.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The stream itself failed, which says nothing of what is in the file. Kept whole: a storage's error may be inside.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// What is there is wrong: a fragment with what, and at which byte or in which entry.
    #[error("{0}")]
    Malformed(String),
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
