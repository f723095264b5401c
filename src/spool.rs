//! A list that may be larger than memory: its first MiB is kept in memory, the rest in a temporary file without a name.
//!
//! Items are kept as JSON, so an item must be read as it was written. The file is in the folder that `TMPDIR` names and is gone when the
//! list is dropped, however the program ends. Only this process can reach it. Uses nothing of the crate.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many bytes are kept in memory before they are written to the file.
const BUFFER: usize = 1 << 20;
/// How many bytes are read at once while the list is read in order.
const PORTION: u64 = 256 << 10;

/// Where an item is.
#[derive(Clone, Copy)]
struct Place {
    start: u64,
    length: u32,
}

/// A list of items in memory and in a temporary file.
pub struct Spool<T> {
    file: Option<File>,
    /// The bytes after those in the file.
    buffer: Vec<u8>,
    in_file: u64,
    places: Vec<Place>,
    items: PhantomData<fn() -> T>,
}

impl<T> Default for Spool<T> {
    fn default() -> Self {
        Self { file: None, buffer: Vec::new(), in_file: 0, places: Vec::new(), items: PhantomData }
    }
}

impl<T> fmt::Debug for Spool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spool of {} items", self.places.len())
    }
}

impl<T> Spool<T> {
    /// The number of items.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has no items.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Brings the items into another order, given as their present places. Items that are not in it are left out.
    pub fn rearrange(&mut self, order: impl IntoIterator<Item = usize>) {
        self.places = order.into_iter().filter_map(|place| self.places.get(place).copied()).collect();
    }

    fn bytes(&self, start: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        let stored = usize::try_from(self.in_file.saturating_sub(start)).unwrap_or(usize::MAX).min(bytes.len());
        let (from_file, from_buffer) = bytes.split_at_mut(stored);
        if let Some(file) = self.file.as_ref().filter(|_| !from_file.is_empty()) {
            file.read_exact_at(from_file, start).map_err(|error| failed("read", &error))?;
        }
        let begin = usize::try_from(start.saturating_sub(self.in_file)).map_err(io::Error::other)?;
        let buffered = begin.checked_add(from_buffer.len()).and_then(|end| self.buffer.get(begin..end));
        from_buffer.copy_from_slice(buffered.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(bytes)
    }

    /// Moves the buffer to the file.
    fn store(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile().map_err(|error| failed("create", &error))?),
        };
        file.write_all_at(&self.buffer, self.in_file).map_err(|error| failed("write", &error))?;
        self.in_file += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn failed(what: &str, error: &io::Error) -> io::Error {
    let folder = std::env::temp_dir();
    io::Error::new(error.kind(), format!("cannot {what} a temporary file in {} (TMPDIR): {error}", folder.display()))
}

impl<T: Serialize> Spool<T> {
    /// Adds an item.
    ///
    /// # Errors
    /// The temporary file's, and an item that JSON cannot represent.
    pub fn push(&mut self, item: &T) -> io::Result<()> {
        let before = self.buffer.len();
        if let Err(error) = serde_json::to_writer(&mut self.buffer, item) {
            self.buffer.truncate(before);
            return Err(error.into());
        }
        let length = u32::try_from(self.buffer.len() - before).map_err(io::Error::other)?;
        self.places.push(Place { start: self.in_file + before as u64, length });
        if self.buffer.len() >= BUFFER { self.store() } else { Ok(()) }
    }

    /// A list of these items.
    ///
    /// # Errors
    /// Those of [`Self::push`].
    pub fn of(items: impl IntoIterator<Item = T>) -> io::Result<Self> {
        let mut spool = Self::default();
        items.into_iter().try_for_each(|item| spool.push(&item))?;
        Ok(spool)
    }
}

impl<T: DeserializeOwned> Spool<T> {
    /// Reads the items of some places; fewer if the list ends before.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn read(&self, places: Range<usize>) -> io::Result<Vec<T>> {
        self.parts(places).collect()
    }

    /// Reads the item of a place.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn get(&self, place: usize) -> io::Result<Option<T>> {
        self.parts(place..place.saturating_add(1)).next().transpose()
    }

    /// Reads all items in order, holding one at a time.
    pub fn iter(&self) -> Items<'_, T, T> {
        self.parts(0..self.len())
    }
}

impl<T> Spool<T> {
    /// Reads a part of each item: the fields that `P` has.
    pub fn parts<P: DeserializeOwned>(&self, places: Range<usize>) -> Items<'_, T, P> {
        let places = self.places.get(places.start..places.end.min(self.len())).unwrap_or_default();
        Items { spool: self, places: places.iter(), bytes: Vec::new(), start: 0, part: PhantomData }
    }
}

/// Items as they are read.
pub struct Items<'s, T, P> {
    spool: &'s Spool<T>,
    places: std::slice::Iter<'s, Place>,
    /// The bytes that were read last, and where they begin.
    bytes: Vec<u8>,
    start: u64,
    part: PhantomData<P>,
}

impl<T, P: DeserializeOwned> Items<'_, T, P> {
    fn item(&mut self, place: Place) -> io::Result<P> {
        let known = |start: u64, bytes: &[u8]| {
            let begin = usize::try_from(place.start.checked_sub(start)?).ok()?;
            Some(begin..begin.checked_add(place.length as usize)?).filter(|range| range.end <= bytes.len())
        };
        if known(self.start, &self.bytes).is_none() {
            // The items after this one, too, as far as they are next to it.
            let mut length = u64::from(place.length);
            for next in self.places.as_slice() {
                let more = length + u64::from(next.length);
                if next.start != place.start + length || more > PORTION {
                    break;
                }
                length = more;
            }
            (self.start, self.bytes) = (place.start, self.spool.bytes(place.start, length)?);
        }
        let bytes = known(self.start, &self.bytes).and_then(|range| self.bytes.get(range)).unwrap_or_default();
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl<T, P: DeserializeOwned> Iterator for Items<'_, T, P> {
    type Item = io::Result<P>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = *self.places.next()?;
        Some(self.item(place))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl<'s, T: DeserializeOwned> IntoIterator for &'s Spool<T> {
    type Item = io::Result<T>;
    type IntoIter = Items<'s, T, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
impl<T: DeserializeOwned + PartialEq> PartialEq for Spool<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().zip(other).all(|(one, other)| one.is_ok_and(|one| other.is_ok_and(|other| one == other)))
    }
}

/// A list, wherever its items are kept.
impl<T: JsonSchema> JsonSchema for Spool<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Vec::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<T>::json_schema(generator)
    }
}

impl<T: Serialize + DeserializeOwned> Serialize for Spool<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        for item in self {
            list.serialize_element(&item.map_err(S::Error::custom)?)?;
        }
        list.end()
    }
}

impl<'de, T: Serialize + Deserialize<'de>> Deserialize<'de> for Spool<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<fn() -> T>);

        impl<'de, T: Serialize + Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Spool<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Spool<T>, A::Error> {
                let mut spool = Spool::default();
                while let Some(item) = list.next_element::<T>()? {
                    spool.push(&item).map_err(A::Error::custom)?;
                }
                Ok(spool)
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_is_read_from_memory_and_from_the_file_alike() {
        let items: Vec<String> = (0..5_000).map(|number| number.to_string().repeat(number % 300)).collect();
        let spool = Spool::of(items.clone()).unwrap();
        assert!(spool.in_file > 0 && !spool.buffer.is_empty());
        assert_eq!(spool.iter().collect::<io::Result<Vec<String>>>().unwrap(), items);
        assert_eq!(spool.read(100..103).unwrap(), items.get(100..103).unwrap());
        assert_eq!(spool.get(4_999).unwrap().as_ref(), items.last());
        assert_eq!(spool.get(5_000).unwrap(), None);
        let text = serde_json::to_string(&spool).unwrap();
        assert_eq!(text, serde_json::to_string(&items).unwrap());
        let again: Spool<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(again.iter().collect::<io::Result<Vec<String>>>().unwrap(), items);
    }

    #[test]
    fn an_item_larger_than_a_portion_is_read_whole() {
        let long = "x".repeat(3 * BUFFER);
        let spool = Spool::of(["a".to_owned(), long.clone(), "b".to_owned()]).unwrap();
        assert_eq!(spool.iter().map(|item| item.unwrap().len()).collect::<Vec<_>>(), [1, long.len(), 1]);
    }

    proptest! {
        #[test]
        fn items_are_read_in_every_order(lengths in prop::collection::vec(0_usize..4_000, 0..600), order in prop::collection::vec(0_usize..600, 0..600)) {
            let items: Vec<String> = lengths.iter().enumerate().map(|(number, length)| format!("{number} {}", "y".repeat(*length))).collect();
            let mut spool = Spool::of(items.clone()).unwrap();
            spool.rearrange(order.iter().copied());
            let expected: Vec<String> = order.iter().filter_map(|place| items.get(*place).cloned()).collect();
            prop_assert_eq!(spool.iter().collect::<io::Result<Vec<String>>>().unwrap(), expected);
        }
    }
}
