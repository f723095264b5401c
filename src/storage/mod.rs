//! Where backups are kept: one small interface, a file for each kind of storage.
//!
//! Only reads. A store is one container (a directory, a Swift container, a bucket); names are those that Cinder's driver
//! gave its objects, and nothing outside of the container can be reached by any name. May use `config`, `domain`, `input` and
//! `format`.

pub mod ceph;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
pub(crate) mod conformance;
mod error;
pub mod gcs;
mod health;
mod http;
mod memory;
pub mod posix;
mod retry;
pub mod s3;
pub mod swift;

use std::io::Read;
use std::ops::{ControlFlow, Range};

use jiff::Timestamp;

pub use error::{StorageError, StorageErrorKind};
pub use health::{Health, Patience};
pub use http::{Network, Proxies};
pub use memory::MemoryStore;
pub use posix::PosixStore;
pub use retry::{RetryPolicy, Retrying};

/// What a listing or a stat says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name in the container, as the driver gave it. Hostile text.
    pub name: String,
    /// Bytes, as stored.
    pub size: u64,
    /// When it was last written, by the storage's clock.
    pub modified: Option<Timestamp>,
    /// The MD5 of the bytes as stored, where the storage took it itself when they were written: Swift's and S3's ETag where
    /// that is one (not of SSE-C, multipart or large objects), Google's md5Hash. A listing may give one that is none: it does
    /// not say how an object is encrypted, which a stat does.
    pub md5: Option<[u8; 16]>,
}

/// One container on some storage.
///
/// Methods may be called from many threads at once. All of them end in bounded time: a store gives up a stalled connection
/// with [`StorageErrorKind::Transient`]. An error never names a secret.
pub trait ObjectStore: Send + Sync {
    /// Where this is: a path, a URL, or what else is always the same for one place, whatever was asked before. Never a secret.
    fn location(&self) -> &str;

    /// How many objects are worth reading at once: the number of cores or so for a disk, more for a far server.
    fn concurrency(&self) -> usize;

    /// Gives every object whose name begins with `prefix`, each once, in any order, until all are given or `each` breaks.
    /// All pages; what changes meanwhile may or may not be seen.
    ///
    /// A store does not try again by itself, or only a page: [`Retrying`] lists anew from the start after a
    /// [`StorageErrorKind::Transient`] error and passes over what was given before, in whatever order it comes.
    ///
    /// # Errors
    /// [`StorageErrorKind::NoContainer`] where the container itself does not exist. A listing that was cut short is an
    /// error, never a shorter list.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError>;

    /// What there is to know of one object; `Ok(None)` only where the storage itself said that there is none.
    ///
    /// # Errors
    /// As for [`ObjectStore::list`]; an object that may not be looked at is an error, not an absent one.
    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError>;

    /// The bytes of an object, or of a part of it (half-open, in bytes; the end may lie beyond that of the object, and
    /// [`u64::MAX`] is the usual way to say "to the end"; nothing where the part begins at the end or beyond it).
    ///
    /// Reading to the end without an error means that every byte came. A stream that breaks off early gives an
    /// [`std::io::Error`] that holds a [`StorageError`], so that [`StorageError::of_io`] finds its kind.
    ///
    /// # Errors
    /// [`StorageErrorKind::NoObject`] where there is none.
    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError>;
}
