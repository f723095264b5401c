//! Errors of a storage, distinguished as far as a verdict depends on them.

use std::io;

use thiserror::Error;

use crate::config::ConfigError;

/// The meaning of an error for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// The object does not exist. This is damage if it must exist.
    NoObject,
    /// The container, bucket, pool or directory does not exist.
    NoContainer,
    /// A later attempt may succeed: a time-out, a reset, a 5xx, 408, 425 or 429, a truncated response.
    Transient,
    /// The storage was unreachable for too long, and the request was not sent.
    Unreachable,
    /// Wrong or missing credentials.
    Authentication,
    /// The credentials are valid but not sufficient.
    Permission,
    /// An invalid response of the server or the operating system: HTML, a wrong length, a redirect, an endless listing, an
    /// error number without a known meaning.
    Protocol,
    /// The storage cannot be used with this configuration.
    Configuration,
    /// Not a regular file: a device, a fifo, a directory.
    NotAnObject,
    /// A link, or a name that leads out of the container or its root. It is not followed, and nothing behind it was read.
    NotFollowed,
    /// The disk, its file system or its storage daemon cannot read the data (EIO and the like). One more attempt is made.
    Media,
    /// The operator asked to stop.
    Cancelled,
}

/// An error of a storage: one sentence fragment that says what failed and where, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct StorageError {
    /// Its meaning.
    pub kind: StorageErrorKind,
    /// What failed, where, and, if it is not obvious, what to do.
    pub text: String,
    /// The pause that the server asks for before the next attempt (`Retry-After`), in seconds.
    pub retry_after: Option<u64>,
}

/// An option that cannot be read.
impl From<ConfigError> for StorageError {
    fn from(error: ConfigError) -> Self {
        Self::configuration(error.to_string())
    }
}

impl StorageError {
    /// Creates an error.
    pub fn new(kind: StorageErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), retry_after: None }
    }

    /// Creates a [`StorageErrorKind::Configuration`] error.
    pub fn configuration(text: impl Into<String>) -> Self {
        Self::new(StorageErrorKind::Configuration, text)
    }

    /// Creates a [`StorageErrorKind::Protocol`] error.
    pub fn protocol(text: impl Into<String>) -> Self {
        Self::new(StorageErrorKind::Protocol, text)
    }

    /// Creates the error for an option that is not set.
    pub(super) fn missing_option(name: &str) -> Self {
        Self::configuration(format!("{name} is not set; set it in cinder.conf or with --storage-option {name}=…"))
    }

    /// Creates the error for an object that does not exist in the container at `place`.
    pub(super) fn no_object(name: &str, place: &str) -> Self {
        Self::new(StorageErrorKind::NoObject, format!("the object {name:?} does not exist at {place}"))
    }

    /// Turns the error about a missing object into `None`.
    pub(crate) fn none_if_absent<T>(result: Result<T, Self>) -> Result<Option<T>, Self> {
        match result {
            Err(error) if error.kind == StorageErrorKind::NoObject => Ok(None),
            result => result.map(Some),
        }
    }

    /// Whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        self.kind == StorageErrorKind::Transient
    }

    /// Wraps the error as one of a stream. [`StorageError::of_io`] unwraps it.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Converts an error of a stream; one that is not of a storage is transient.
    pub(super) fn from_stream(error: io::Error) -> Self {
        Self::of_io(&error).cloned().unwrap_or_else(|| Self::new(StorageErrorKind::Transient, error.to_string()))
    }

    /// Returns the storage error inside an error of a stream, if there is one.
    pub fn of_io(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}
