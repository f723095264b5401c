//! The format of Cinder's chunked backups: names, side files and compression.
//!
//! Pure over [`std::io::Read`], without storage and clock. Input is read as a stream and not trusted: memory is bounded for files of
//! any size, and any content gives a value or a [`FormatError`]. May use `domain`.

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
    /// The stream failed, which says nothing about the file. May contain the error of a storage.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The file is malformed: a fragment that says what is wrong, and at which byte or in which entry.
    #[error("{0}")]
    Malformed(String),
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
