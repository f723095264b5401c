//! What can go wrong on a storage, as far as a verdict depends on it.

use std::io;

use thiserror::Error;

/// What an error means for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// The object does not exist: damage, if it should.
    NoObject,
    /// The container, bucket, pool or directory does not exist.
    NoContainer,
    /// It may go through later: a time-out, a reset, a 5xx, 408, 425 or 429, an answer that breaks off.
    Transient,
    /// It was away for so long that it was not even asked.
    Away,
    /// Wrong or missing credentials.
    Authentication,
    /// The credentials are good and do not suffice.
    Permission,
    /// The server or the operating system answered something that it should not: HTML, another length, a redirect, a listing
    /// without an end, an error number that says nothing.
    Protocol,
    /// It cannot be used as it is configured.
    Configuration,
    /// What is there is no plain object: a device, a fifo, a directory.
    NotAnObject,
    /// A link, or a name that leads out of the container or its root: neither is followed, and what is there was not looked at.
    NotFollowed,
    /// The disk, its file system or its storage daemon cannot read what is there (EIO and the like). It is read once more.
    Media,
    /// The person asked to stop.
    Cancelled,
}

/// An error on a storage; one sentence fragment with what and where, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct StorageError {
    /// What it means.
    pub kind: StorageErrorKind,
    /// What, where, and where it helps, what to do.
    pub text: String,
    /// How long the server asks to wait before the next attempt (`Retry-After`), in seconds.
    pub retry_after: Option<u64>,
}

impl StorageError {
    /// An error.
    pub fn new(kind: StorageErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), retry_after: None }
    }

    /// Whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        self.kind == StorageErrorKind::Transient
    }

    /// As an error of a stream, from which [`StorageError::of_io`] finds it again.
    pub fn into_io(self) -> io::Error {
        let kind = match self.kind {
            StorageErrorKind::NoObject | StorageErrorKind::NoContainer => io::ErrorKind::NotFound,
            StorageErrorKind::Permission | StorageErrorKind::Authentication => io::ErrorKind::PermissionDenied,
            StorageErrorKind::Cancelled => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }

    /// The storage's error inside an error of a stream, if there is one.
    pub fn of_io(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}
