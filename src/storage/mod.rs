//! Access to the storage that holds the backups: one small trait, and a module for each driver.
//!
//! Reads only. A store is one container: a directory, a Swift container or a bucket. Objects have the names that Cinder's driver
//! gave them, and no name reaches anything outside of the container. May use `backoff`, `config`, `domain`, `format`,
//! `input` and `parallel`.

pub mod ceph;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
pub(crate) mod conformance;
mod error;
pub mod gcs;
mod health;
mod http;
mod limits;
#[cfg(test)]
mod memory;
pub mod posix;
mod request_slots;
mod retry;
pub mod s3;
pub mod swift;

use std::io::Read;
use std::ops::{ControlFlow, Range};

use jiff::Timestamp;

pub use error::{StorageError, StorageErrorKind};
pub use health::{Health, WaitLimit};
pub use http::{Network, Proxies};
pub use limits::Limits;
#[cfg(test)]
pub use memory::MemoryStore;
pub use retry::{RetryPolicy, RetryingStore};

/// The attributes of an object, from a listing or a stat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Name in the container, as the driver gave it. Hostile text.
    pub name: String,
    /// Size in bytes, as stored.
    pub size: u64,
    /// Time of the last write, by the storage's clock.
    pub modified: Option<Timestamp>,
    /// MD5 of the bytes as stored, if the storage computed it when they were written: Google's md5Hash, or Swift's and S3's ETag
    /// if that is an MD5 (not for SSE-C, multipart or large objects). In a listing it may be something else, because a listing
    /// does not say how an object is encrypted. A stat does.
    pub md5: Option<[u8; 16]>,
}

/// A part of the listing of a container, without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedPage {
    /// In ascending order of the bytes of their names.
    pub objects: Vec<ObjectInfo>,
    /// Whether there is nothing after it.
    pub is_last: bool,
}

/// One container of a storage.
///
/// Methods may be called from many threads at once. All of them return in bounded time: a stalled connection ends with
/// [`StorageErrorKind::Transient`]. An error never contains a secret.
pub trait ObjectStore: Send + Sync {
    /// A path, a URL or another text that identifies the container. It is the same before and after every call, and holds no secret.
    fn location(&self) -> &str;

    /// Where other tools find the container: [`ObjectStore::location`], or after the first request a URL that is known only after a login.
    fn address(&self) -> &str {
        self.location()
    }

    /// How many objects to read at the same time: about the number of cores for a disk, more for a remote server.
    fn concurrency(&self) -> usize;

    /// Passes every object whose name begins with `prefix` to `each`, once and in any order, until it breaks. Reads all pages.
    /// Objects that change meanwhile may be missed. `each` must request nothing of the storage.
    ///
    /// A store repeats at most the request for one page. After a [`StorageErrorKind::Transient`] error [`RetryingStore`] lists from
    /// the start again and skips the objects that it has already passed on, in any order.
    ///
    /// # Errors
    /// [`StorageErrorKind::NoContainer`] if the container does not exist. A truncated listing is an error, never a shorter list.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError>;

    /// Returns the first objects whose names come after `after` in the order of their bytes, as many as one request gives. `None` if the
    /// store has no such request.
    ///
    /// # Errors
    /// As for [`ObjectStore::list`].
    fn list_page(&self, _after: &str) -> Result<Option<ListedPage>, StorageError> {
        Ok(None)
    }

    /// Reads the attributes of an object; `Ok(None)` only if the storage itself reported that it does not exist.
    ///
    /// # Errors
    /// As for [`ObjectStore::list`]. An object without permission is an error, not an absent object.
    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError>;

    /// Opens an object, or a range of its bytes. The range is half-open and may end beyond the object: [`u64::MAX`] means "to the
    /// end". It is empty if it begins at the end of the object or beyond.
    ///
    /// Reading to the end without an error means that every byte was received. A stream that breaks off returns an
    /// [`std::io::Error`] that holds a [`StorageError`], which [`StorageError::of_io`] finds.
    ///
    /// # Errors
    /// [`StorageErrorKind::NoObject`] if the object does not exist.
    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError>;
}
