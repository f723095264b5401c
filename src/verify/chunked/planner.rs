//! The pieces of objects to be read, and the digests that prove them.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

use super::digest::Md5Reader;
use super::inventory::{Inventory, Object};
use super::layout::Ranges;
use crate::format::metadata::Compression;
use crate::format::names;
use crate::storage::ObjectStore;

/// An uncompressed object is read in parts of about this size, so that all threads share it.
pub const PART: u64 = 32 << 20;

/// Bytes of memory that an object of a list takes in a restore: itself, the queued object, and its ranges.
pub const LISTED_OBJECT: u64 = (size_of::<Object>() + size_of::<QueuedObject<'_>>() + 3 * size_of::<Range<u64>>()) as u64;

/// A member of a chain whose objects are read.
pub struct Member {
    pub store: Arc<dyn ObjectStore>,
    pub inventory: Arc<Inventory>,
}

/// An object to be read.
pub struct QueuedObject<'a> {
    /// The member that it belongs to.
    pub member: &'a Member,
    /// Whether that is the member whose sha256file counts.
    pub is_of_tip: bool,
    pub object: Object,
    /// The bytes of the volume that a restore takes from it.
    pub live: Ranges,
    /// Its pieces that were not read yet.
    pieces: AtomicUsize,
    /// The MD5 of all of its bytes as stored, if one of its pieces was found wrong; `None` in it if they cannot be read.
    whole: OnceLock<Option<[u8; 16]>>,
}

impl<'a> QueuedObject<'a> {
    pub fn new(member: &'a Member, is_of_tip: bool, object: Object, live: Ranges) -> Self {
        Self { member, is_of_tip, object, live, pieces: AtomicUsize::new(0), whole: OnceLock::new() }
    }

    pub fn name(&self) -> String {
        names::data(&self.member.inventory.prefix, self.object.number)
    }

    /// The MD5 of all of its bytes as stored. They are read for it once.
    pub fn whole_md5(&self) -> Option<[u8; 16]> {
        let read = || Md5Reader::new(self.member.store.open(&self.name(), None).ok()?).of_all(u64::MAX);
        *self.whole.get_or_init(read)
    }

    /// Counts a piece as read; returns whether that was the last one.
    pub fn count_piece(&self) -> bool {
        self.pieces.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// What proves a piece of an object.
pub enum Proof {
    /// The digests of its blocks of this size, from the first on.
    Blocks(u64, Vec<Option<[u8; 32]>>),
    /// The MD5 of the object.
    Md5,
}

/// A piece of an object to be read.
pub struct Piece<'a> {
    pub item: &'a QueuedObject<'a>,
    /// The bytes of the object; `None` for all of them.
    pub part: Option<Range<u64>>,
    pub proof: Proof,
}

impl Piece<'_> {
    pub fn length(&self) -> u64 {
        self.part.as_ref().map_or(self.item.object.length, |part| part.end - part.start)
    }
}

/// Queues objects to be compared with their MD5; returns false if no thread reads any more.
pub fn send_with_md5<'b>(items: impl Iterator<Item = &'b QueuedObject<'b>>, sender: &SyncSender<Piece<'b>>) -> bool {
    for item in items {
        item.pieces.store(1, Ordering::Relaxed);
        if sender.send(Piece { item, part: None, proof: Proof::Md5 }).is_err() {
            return false;
        }
    }
    true
}

/// Queues objects with the digests of their blocks.
pub struct Planner<'b, 'c> {
    /// In the order of the volume.
    pub items: &'b [QueuedObject<'b>],
    /// The first object that was not queued yet.
    pub next: usize,
    pub block_size: u64,
    pub volume_end: u64,
    /// The most digests that one object may have.
    pub most_blocks: u64,
    /// Digests that the next objects need.
    window: VecDeque<[u8; 32]>,
    /// The number of the first block in the window.
    base: u64,
    pub received: u64,
    pub sender: &'c SyncSender<Piece<'b>>,
    /// Objects that do not begin and end with a block, or have too many blocks.
    pub unaligned: Vec<usize>,
}

impl<'b, 'c> Planner<'b, 'c> {
    pub fn new(
        items: &'b [QueuedObject<'b>],
        block_size: u64,
        volume_end: u64,
        most_blocks: u64,
        sender: &'c SyncSender<Piece<'b>>,
    ) -> Self {
        let (window, unaligned) = (VecDeque::new(), Vec::new());
        Self { items, next: 0, block_size, volume_end, most_blocks, window, base: 0, received: 0, sender, unaligned }
    }

    pub fn take(&mut self, hash: [u8; 32]) -> ControlFlow<()> {
        self.window.push_back(hash);
        self.received += 1;
        while let Some(item) = self.items.get(self.next) {
            let object = &item.object;
            if object.length / self.block_size > self.most_blocks
                || !object.offset.is_multiple_of(self.block_size)
                || (!object.end().is_multiple_of(self.block_size) && object.end() != self.volume_end)
            {
                self.unaligned.push(self.next);
                self.next += 1;
                continue;
            }
            if self.received < object.end().div_ceil(self.block_size) {
                break;
            }
            if !self.send() {
                return ControlFlow::Break(());
            }
            self.next += 1;
        }
        // Digests before the next object are not needed any more. After the last object, none is.
        let needed = self.items.get(self.next).map_or(self.received, |item| item.object.offset / self.block_size);
        while self.base < needed.min(self.received) {
            self.window.pop_front();
            self.base += 1;
        }
        ControlFlow::Continue(())
    }

    /// Queues the next object; returns false if no thread reads any more.
    fn send(&self) -> bool {
        let Some(item) = self.items.get(self.next) else { return false };
        let object = &item.object;
        let parts: Vec<Option<Range<u64>>> = if object.compression == Compression::None && object.length > PART + PART / 2 {
            let step = (PART / self.block_size).max(1) * self.block_size;
            let count = object.length.div_ceil(step);
            (0..count).map(|part| Some(part * step..((part + 1) * step).min(object.length))).collect()
        } else {
            vec![None]
        };
        item.pieces.store(parts.len(), Ordering::Relaxed);
        for part in parts {
            let bytes = part.clone().unwrap_or(0..object.length);
            let blocks = (object.offset + bytes.start) / self.block_size..(object.offset + bytes.end).div_ceil(self.block_size);
            let wanted = blocks.map(|block| self.wanted(item, block)).collect();
            if self.sender.send(Piece { item, part, proof: Proof::Blocks(self.block_size, wanted) }).is_err() {
                return false;
            }
        }
        true
    }

    /// The digest of a block, if a restore takes all of the block from this object.
    fn wanted(&self, item: &QueuedObject<'_>, block: u64) -> Option<[u8; 32]> {
        let start = block.saturating_mul(self.block_size);
        let bytes = start..start.saturating_add(self.block_size).min(self.volume_end);
        // An object in the middle of a long chain can have many small ranges.
        let first = item.live.partition_point(|live| live.end < bytes.end);
        let is_live = item.live.get(first).is_some_and(|live| live.start <= bytes.start);
        let at = usize::try_from(block.checked_sub(self.base)?).ok()?;
        self.window.get(at).filter(|_| is_live).copied()
    }
}
