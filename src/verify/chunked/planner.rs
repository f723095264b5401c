//! What is to be read, piece by piece, and the digests that prove it.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;

use super::digest::Md5Reader;
use super::inventory::Object;
use super::reader::{Member, PART};
use crate::format::metadata::Compression;
use crate::format::names;

/// An object to be read.
pub struct QueuedObject<'a> {
    pub member: &'a Member,
    pub object: Object,
    /// The bytes of the volume that it decides.
    pub live: Vec<Range<u64>>,
    /// Its pieces that were not read yet.
    pieces: AtomicUsize,
    /// The MD5 of all of its bytes as stored, where one of its pieces was found wrong; `None` in it where they cannot be read.
    whole: OnceLock<Option<[u8; 16]>>,
}

impl<'a> QueuedObject<'a> {
    /// An object of a member.
    pub fn new(member: &'a Member, object: Object, live: Vec<Range<u64>>) -> Self {
        Self { member, object, live, pieces: AtomicUsize::new(0), whole: OnceLock::new() }
    }

    /// Its name.
    pub fn name(&self) -> String {
        names::data(&self.member.inventory.prefix, self.object.number)
    }

    /// The MD5 of all of its bytes as stored; they are read for it once.
    pub fn whole_md5(&self) -> Option<[u8; 16]> {
        let read = || Md5Reader::of(self.member.store.open(&self.name(), None).ok()?).1.of_all(u64::MAX);
        *self.whole.get_or_init(read)
    }

    /// A piece of it was read; whether that was the last one.
    pub fn piece_was_read(&self) -> bool {
        self.pieces.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// What proves a piece of an object.
pub enum Proof {
    /// The digests of its blocks, from the first on.
    Blocks(Vec<Option<[u8; 32]>>),
    /// The object's own.
    Md5,
}

/// A piece of an object to be read.
pub struct Piece<'a> {
    /// The object.
    pub item: &'a QueuedObject<'a>,
    /// The bytes of the object; `None` for all of them.
    pub part: Option<Range<u64>>,
    /// What proves it.
    pub proof: Proof,
}

/// Sends objects off to be compared with their own digests; false where nobody takes them any more.
pub fn send_with_md5<'b>(items: impl Iterator<Item = &'b QueuedObject<'b>>, sender: &SyncSender<Piece<'b>>) -> bool {
    for item in items {
        item.pieces.store(1, Ordering::Relaxed);
        if sender.send(Piece { item, part: None, proof: Proof::Md5 }).is_err() {
            return false;
        }
    }
    true
}

/// Gives every object the digests of its blocks.
pub struct Planner<'b, 'c> {
    /// In the order of the volume.
    pub items: &'b [QueuedObject<'b>],
    /// The first object that was not sent off yet.
    pub next: usize,
    /// Bytes that one digest stands for.
    pub block_size: u64,
    /// Bytes of the volume.
    pub volume_end: u64,
    /// So many digests one object may have.
    pub most_blocks: u64,
    /// Digests that objects to come need.
    window: VecDeque<[u8; 32]>,
    /// The number of the first block in the window.
    base: u64,
    /// How many digests came by.
    pub came: u64,
    /// Who reads.
    pub sender: &'c SyncSender<Piece<'b>>,
    /// Objects that do not lie on the borders of blocks, or have too many of them.
    pub unaligned: Vec<usize>,
}

impl<'b, 'c> Planner<'b, 'c> {
    /// At the beginning; no object gets more digests than `most_blocks`.
    pub fn new(
        items: &'b [QueuedObject<'b>],
        block_size: u64,
        volume_end: u64,
        most_blocks: u64,
        sender: &'c SyncSender<Piece<'b>>,
    ) -> Self {
        let (window, unaligned) = (VecDeque::new(), Vec::new());
        Self { items, next: 0, block_size, volume_end, most_blocks, window, base: 0, came: 0, sender, unaligned }
    }

    /// Takes the next digest.
    pub fn take(&mut self, hash: [u8; 32]) -> ControlFlow<()> {
        self.window.push_back(hash);
        self.came += 1;
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
            if self.came < object.end().div_ceil(self.block_size) {
                break;
            }
            if !self.send() {
                return ControlFlow::Break(());
            }
            self.next += 1;
        }
        // Nothing before the next object is needed any more; behind the last one, nothing is.
        let needed = self.items.get(self.next).map_or(self.came, |item| item.object.offset / self.block_size);
        while self.base < needed.min(self.came) {
            self.window.pop_front();
            self.base += 1;
        }
        ControlFlow::Continue(())
    }

    /// Sends the next object off; false where nobody takes it any more.
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
            if self.sender.send(Piece { item, part, proof: Proof::Blocks(wanted) }).is_err() {
                return false;
            }
        }
        true
    }

    /// The digest of a block, if this object decides it.
    fn wanted(&self, item: &QueuedObject<'_>, block: u64) -> Option<[u8; 32]> {
        let start = block.saturating_mul(self.block_size);
        let bytes = start..start.saturating_add(self.block_size).min(self.volume_end);
        // An object in the middle of a long chain decides many small ranges.
        let first = item.live.partition_point(|live| live.end < bytes.end);
        let lives = item.live.get(first).is_some_and(|live| live.start <= bytes.start);
        let at = usize::try_from(block.checked_sub(self.base)?).ok()?;
        self.window.get(at).filter(|_| lives).copied()
    }
}
