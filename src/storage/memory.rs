//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::{Bound, ControlFlow, Range};

use jiff::Timestamp;

use super::{ListedPage, ObjectInfo, ObjectStore, StorageError, StorageErrorKind};

/// A store in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    objects: BTreeMap<String, (Vec<u8>, Option<Timestamp>)>,
}

impl MemoryStore {
    /// Adds or replaces an object.
    pub fn put(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>, modified: Option<Timestamp>) {
        self.objects.insert(name.into(), (bytes.into(), modified));
    }

    /// Removes an object.
    pub fn remove(&mut self, name: &str) -> Option<Vec<u8>> {
        self.objects.remove(name).map(|(bytes, _)| bytes)
    }

    /// Returns the bytes of an object, to change them.
    pub fn bytes_mut(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        self.objects.get_mut(name).map(|(bytes, _)| bytes)
    }

    /// Returns the names of all objects.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }
}

impl ObjectStore for MemoryStore {
    fn location(&self) -> &str {
        "memory"
    }

    fn concurrency(&self) -> usize {
        2
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        let begins = |(name, _): &(&String, _)| name.starts_with(prefix);
        for (name, (bytes, modified)) in self.objects.range(prefix.to_owned()..).take_while(begins) {
            if each(info(name, bytes, *modified)).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Pages of three, so that tests have many.
    fn list_page(&self, after: &str) -> Result<Option<ListedPage>, StorageError> {
        let mut rest = self.objects.range((Bound::Excluded(after.to_owned()), Bound::Unbounded));
        let objects = rest.by_ref().take(3).map(|(name, (bytes, modified))| info(name, bytes, *modified)).collect();
        Ok(Some(ListedPage { objects, is_last: rest.next().is_none() }))
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        Ok(self.objects.get(name).map(|(bytes, modified)| info(name, bytes, *modified)))
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        let Some((bytes, _)) = self.objects.get(name) else {
            return Err(StorageError::new(StorageErrorKind::NoObject, format!("the object {name:?} does not exist")));
        };
        let end = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let part = range.map_or(bytes.as_slice(), |range| bytes.get(end(range.start)..end(range.end)).unwrap_or_default());
        Ok(Box::new(Cursor::new(part)))
    }
}

fn info(name: &str, bytes: &[u8], modified: Option<Timestamp>) -> ObjectInfo {
    ObjectInfo { name: name.to_owned(), size: bytes.len() as u64, modified, md5: None }
}
