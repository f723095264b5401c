//! The objects of one backup, as its metadata and a listing show them.

use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::{Backup, Problem, ProblemCode};
use crate::format::metadata::Compression;
use crate::storage::{ObjectInfo, ObjectStore, StorageError};

/// Of a backup with more objects than this the list is not read to its end, because it would fill the memory: a full backup of that
/// many objects is of a volume of 190 TiB at the drivers' smallest usual size, but an increment has one for each changed range.
pub(super) const MOST_OBJECTS: usize = if cfg!(test) { 1 << 17 } else { 4_000_000 };
/// Each of the checks that run in parallel may hold this many objects (4 MB). Checks with more take turns.
pub const LARGE: usize = 1 << 16;
/// A listing that is longer than that of the largest backup never ends.
pub(in crate::verify) const MOST_LISTED: u64 = 2 * MOST_OBJECTS as u64;

/// A member of a chain with the store that its objects are in.
pub struct StoredBackup<'a> {
    pub backup: &'a Backup,
    /// Bytes of the volume when the backup was made; `None` if the row does not say.
    pub volume_bytes: Option<u64>,
    pub store: Result<Arc<dyn ObjectStore>, StorageError>,
}

/// The beginning of the names of a backup's objects; `None` if its driver never began, so that there is nothing to list.
pub(in crate::verify) fn prefix_of(backup: &Backup) -> Option<&str> {
    let set = |text: &'_ Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if set(&backup.container) && set(&backup.service_metadata) { backup.service_metadata.as_deref() } else { None }
}

/// One object, as the metadata lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// The number in its name, from 1.
    pub number: u64,
    /// Where its data belongs in the volume, in bytes.
    pub offset: u64,
    /// Bytes of data that it holds, before compression.
    pub length: u64,
    /// How the data is stored.
    pub compression: Compression,
    /// The MD5 of the data before compression.
    pub md5: [u8; 16],
    /// Bytes as stored, if the listing has the object.
    pub stored: Option<u64>,
    /// When it was written, in seconds of Unix time; [`i64::MIN`] if that is not known. An integer, as there may be millions of these.
    pub written: i64,
}

impl Object {
    /// The offset behind its last byte in the volume.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether it was written again since it was listed. Some servers round times up in one answer and down in another.
    pub fn was_rewritten(&self, found: &ObjectInfo) -> bool {
        let differs = |at: Timestamp| self.written != i64::MIN && at.as_second().abs_diff(self.written) > 1;
        found.modified.is_some_and(differs) || self.stored.is_some_and(|stored| stored != found.size)
    }

    /// Notes what the storage reports of the object; returns the problem if that contradicts the metadata.
    pub fn compare(&mut self, found: &ObjectInfo) -> Option<Problem> {
        self.stored = Some(found.size);
        self.written = found.modified.map_or(i64::MIN, Timestamp::as_second);
        let is_plain = self.compression == Compression::None;
        // Data that does not shrink is stored uncompressed. Before Liberty it was compressed anyway: no compressor adds more than this.
        let most = self.length.saturating_add(self.length / 64).saturating_add(1024);
        let fits = if is_plain { found.size == self.length } else { found.size > 0 && found.size <= most };
        if !fits {
            let how = if is_plain { "uncompressed" } else { "compressed" };
            let text = format!("it is {} bytes long, but must hold {} bytes, {how}", found.size, self.length);
            return Some(Problem::of(found.name.clone(), ProblemCode::ObjectSize, text));
        }
        let differs = is_plain && found.md5.is_some_and(|md5| md5 != self.md5);
        let text = "the MD5 that the storage reports differs from the one in the metadata";
        differs.then(|| Problem::of(found.name.clone(), ProblemCode::ObjectDigest, text))
    }
}

/// When objects were written, by the storage's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    pub newest: Option<Timestamp>,
    pub oldest: Option<Timestamp>,
    /// How many objects have no readable time.
    pub unknown: u64,
}

impl Times {
    pub fn add(&mut self, modified: Option<Timestamp>) {
        self.newest = self.newest.max(modified);
        self.oldest = self.oldest.into_iter().chain(modified).min();
        self.unknown += u64::from(modified.is_none());
    }

    /// The newest, if the storage reports the time of each.
    pub fn known_newest(&self) -> Option<Timestamp> {
        self.newest.filter(|_| self.unknown == 0)
    }
}

/// The digests in a sha256file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Bytes of the volume that one digest covers.
    pub block_size: u64,
    pub count: u64,
}

/// The objects of a backup, and the digests that they are compared with.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The beginning of the names of all its objects.
    pub prefix: String,
    /// What the metadata lists, in the order of the volume.
    pub entries: Vec<Object>,
    /// Its metadata was read: only then an empty list means that there are no objects.
    pub known: bool,
    /// Bytes of the volume when it was read, if that is known.
    pub volume_bytes: Option<u64>,
    /// The digests in its sha256file, if that fits the backup.
    pub digests: Option<Digests>,
    /// The digests that its sha256file claims to have, whether it fits or not.
    pub claimed_digests: Option<Digests>,
}

impl Inventory {
    /// The offset behind the last byte that an object holds.
    pub fn end(&self) -> u64 {
        self.entries.iter().map(Object::end).max().unwrap_or(0)
    }

    /// Bytes of the volume that its objects hold.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.length))
    }
}
