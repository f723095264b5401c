//! Reads objects and compares them with their digests, on several threads, in bounded memory.
//!
//! The digests of the blocks stream out of the sha256file in the order of the volume, the objects stand in the same order,
//! and each gets the digests that belong to it the moment they have come by. So neither a sha256file of many GB nor an object
//! of two is ever held.

use std::collections::VecDeque;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rand::Rng;

use super::digest::{Digest, compare};
use super::inventory::{Inventory, Object, add_format_error};
use super::layout;
use crate::domain::Problem;
use crate::format::metadata::Compression;
use crate::format::{decompress, names, sha256file};
use crate::storage::{ObjectStore, StorageError, StorageErrorKind};
use crate::verify::Watch;
use crate::verify::fault::{Class, Faults};

/// An uncompressed object is read in parts of about this size, so that all threads share it.
const PART: u64 = 32 << 20;
/// What one thread may need: its buffer, a decompressor's window, the digests that wait for it.
const MEMORY_PER_JOB: u64 = 24 << 20;
/// The digests of more blocks than this are not held for one object, whose own digest is compared then: 256 MiB of them. The
/// drivers' defaults come to 61 035.
const MOST_BLOCKS: u64 = 8 << 20;
/// Blocks larger than this have no room in a thread's buffer; the drivers' default is 32 KiB.
const LARGEST_BLOCK: u64 = 8 << 20;

/// How much of the data is read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Share {
    /// All of it.
    #[default]
    All,
    /// The n-th of t parts (`--read-data-subset`), from 1: t runs read everything once.
    Part(u64, u64),
    /// About so much of it, chosen at random (`--sample`), from 0 to 1.
    Fraction(f64),
}

/// How the data is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Effort {
    /// Threads; a store that is worth more at once gets more.
    pub jobs: usize,
    /// Bytes that reading may hold.
    pub memory: u64,
    /// How much is read.
    pub share: Share,
    /// The digest that proves an object, where there are both.
    pub digest: Digest,
}

impl Default for Effort {
    fn default() -> Self {
        let jobs = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { jobs, memory: 512 << 20, share: Share::All, digest: Digest::cheaper() }
    }
}

/// A member of a chain.
pub struct Member {
    /// Where its objects are.
    pub store: Arc<dyn ObjectStore>,
    /// Its objects.
    pub inventory: Arc<Inventory>,
}

/// What is to be read: one backup against its own digests, or, for a restore, a chain (the newest first) against those of the
/// newest.
pub struct Pass<'a> {
    /// The members, the one whose digests count first.
    pub members: &'a [Member],
    /// How.
    pub effort: &'a Effort,
    /// Who watches.
    pub watch: &'a Watch,
    /// Whether the whole chain is put together.
    pub restore: bool,
    /// Whether the member whose digests count holds the whole volume itself.
    pub full: bool,
    /// Bytes of the volume.
    pub volume_bytes: Option<u64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is wrong.
    pub faults: Faults,
    /// What is not, and should be known.
    pub warnings: Vec<Problem>,
    /// What was done, in words.
    pub depth: String,
    /// Bytes of the volume that were read and compared.
    pub bytes: u64,
    /// Objects that were read.
    pub objects: u64,
}

/// An object to be read.
struct Item<'a> {
    member: &'a Member,
    object: Object,
    /// The bytes of the volume that it decides.
    live: Vec<Range<u64>>,
}

impl Item<'_> {
    fn name(&self) -> String {
        names::data(&self.member.inventory.prefix, self.object.number)
    }
}

/// What proves a piece of an object.
enum Proof {
    /// The digests of its blocks, from the first on.
    Blocks(Vec<Option<[u8; 32]>>),
    /// The object's own.
    Md5,
}

/// A piece of an object to be read.
struct Job<'a> {
    item: &'a Item<'a>,
    /// The bytes of the object; `None` for all of them.
    part: Option<Range<u64>>,
    proof: Proof,
}

/// What the threads add to.
#[derive(Default)]
struct Shared {
    faults: Faults,
    warnings: Vec<Problem>,
    bytes: u64,
}

impl Pass<'_> {
    /// Reads and compares.
    pub fn run(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(tip) = self.members.first() else { return outcome };
        let end = tip.inventory.entries.iter().map(Object::end).max().unwrap_or(0);
        // The sha256file of an increment has the digests of the whole volume, too.
        let volume_end = if self.full && !self.restore { end } else { self.volume_bytes.unwrap_or(0).max(end) };
        let slices: Vec<&[Object]> = self.members.iter().map(|member| member.inventory.entries.as_slice()).collect();
        let (live, gaps) = layout::live(&slices, volume_end);
        if self.restore {
            for gap in gaps {
                let text = format!("neither it nor a backup that it rests on holds bytes {} to {} of the volume", gap.start, gap.end);
                outcome.faults.add(Class::Absent, Problem::general("gap", text));
            }
        }
        let mut items: Vec<Item<'_>> = self
            .members
            .iter()
            .zip(live)
            .flat_map(|(member, lists)| {
                member.inventory.entries.iter().zip(lists).map(move |(object, live)| Item { member, object: *object, live })
            })
            .filter(|item| item.object.stored.is_some())
            .collect();
        let all = items.len();
        self.choose(&mut items);
        items.sort_by_key(|item| item.object.offset);
        let chosen = items.len();
        self.watch.announce(items.iter().fold(0, |sum: u64, item| sum.saturating_add(item.object.length)));
        outcome.objects = chosen as u64;

        let block_size =
            tip.inventory.block_size.filter(|size| *size <= LARGEST_BLOCK && (self.restore || self.effort.digest == Digest::Sha256));
        if self.restore && block_size.is_none() {
            let text = "without a usable sha256file nothing tells what a restore should give; the MD5 of its objects was compared instead";
            outcome.faults.add(Class::Unfinished, Problem::general("no-sha256file", text));
        }
        let shared = Mutex::new(Shared::default());
        let threads = self.threads(&items);
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Job<'_>>(threads);
            let receiver = Arc::new(Mutex::new(receiver));
            for _ in 0..threads {
                let receiver = Arc::clone(&receiver);
                scope.spawn(|| self.work(receiver, &shared));
            }
            // The workers' end of the channel closes with the last of them.
            drop(receiver);
            match block_size {
                Some(block_size) => self.send_with_blocks(tip, &items, block_size, volume_end, &sender, &shared),
                None => send_with_md5(&items, &sender),
            }
        });
        let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome.faults.extend(shared.faults);
        outcome.warnings.extend(shared.warnings);
        outcome.bytes = shared.bytes;
        if self.watch.is_cancelled() {
            outcome.faults.add(Class::Unfinished, Problem::general("cancelled", "the check was stopped before it had read everything"));
        }
        let digest = if block_size.is_some() { Digest::Sha256 } else { Digest::Md5 };
        let what =
            if self.restore && block_size.is_some() { "every block as a restore would write it, by its SHA-256" } else { digest.name() };
        let how_much = match self.effort.share {
            Share::All => format!("all {all} objects read"),
            Share::Part(part, of) => format!("{chosen} of {all} objects read (part {part} of {of})"),
            Share::Fraction(fraction) => format!("{chosen} of {all} objects read (a sample of {} %)", fraction * 100.0),
        };
        outcome.depth = format!("{what}; {how_much}");
        outcome
    }

    /// Leaves out what is not to be read this time.
    fn choose(&self, items: &mut Vec<Item<'_>>) {
        match self.effort.share {
            Share::All => {}
            Share::Part(part, of) => items.retain(|item| item.object.number % of.max(1) == part % of.max(1)),
            Share::Fraction(fraction) => {
                let mut random = rand::rng();
                let one = if items.is_empty() { 0 } else { random.random_range(0..items.len()) };
                let mut index = 0;
                items.retain(|_| {
                    index += 1;
                    // At least one, or a small backup would never be looked at.
                    index - 1 == one || random.random_bool(fraction.clamp(0.0, 1.0))
                });
            }
        }
    }

    fn threads(&self, items: &[Item<'_>]) -> usize {
        let worth = self.members.iter().map(|member| member.store.concurrency()).max().unwrap_or(1);
        let room = usize::try_from(self.effort.memory / MEMORY_PER_JOB).unwrap_or(usize::MAX);
        let pieces: u64 = items.iter().map(|item| item.object.length.div_ceil(PART)).sum();
        let pieces = usize::try_from(pieces).unwrap_or(usize::MAX);
        // More threads than cores are only worth it where they wait for a far server.
        let wanted = if self.effort.jobs == 1 { 1 } else { self.effort.jobs.max(worth) };
        wanted.min(room).min(pieces).max(1)
    }

    /// Goes through the sha256file and sends each object off as soon as the digests of all its blocks have come by.
    fn send_with_blocks<'b>(
        &self,
        tip: &Member,
        items: &'b [Item<'b>],
        block_size: u64,
        volume_end: u64,
        sender: &SyncSender<Job<'b>>,
        shared: &Mutex<Shared>,
    ) {
        let mut planner =
            Planner { items, next: 0, block_size, volume_end, window: VecDeque::new(), base: 0, came: 0, sender, unaligned: Vec::new() };
        let name = names::sha256file(&tip.inventory.prefix);
        let note = |class, problem| lock(shared).faults.add(class, problem);
        let read = tip.store.open(&name, None).map_err(|error| crate::format::FormatError::Io(error.into_io())).and_then(|stream| {
            sha256file::read_hashes(stream, &mut |hash| {
                if self.watch.is_cancelled() { ControlFlow::Break(()) } else { planner.take(hash) }
            })
        });
        if self.watch.is_cancelled() {
            return;
        }
        match read {
            Err(error) => {
                add_format_error(&mut lock(shared).faults, &name, "sha256file-malformed", "its sha256file cannot be read", error);
            }
            Ok(_) => {
                let wanted = volume_end.div_ceil(block_size);
                if planner.came != wanted {
                    let text = format!("its sha256file has {} digests of {block_size} bytes, and {wanted} are wanted", planner.came);
                    // A device may have been a little larger than its size in GiB says.
                    if planner.came < wanted || (self.full && !self.restore) {
                        note(Class::Wrong, Problem::of(name.clone(), "sha256file-length", text));
                    }
                }
            }
        }
        // What the sha256file says nothing about is compared with its own digest.
        let (next, unaligned) = (planner.next, std::mem::take(&mut planner.unaligned));
        let rest = items.iter().skip(next).chain(unaligned.iter().filter_map(|index| items.get(*index)));
        for item in rest {
            if self.restore && !item.live.is_empty() {
                let text = "no digest of the volume fits this object, so that only its own was compared";
                note(Class::Unfinished, Problem::of(item.name(), "no-digest", text));
            }
            if sender.send(Job { item, part: None, proof: Proof::Md5 }).is_err() {
                return;
            }
        }
    }

    fn work(&self, receiver: Arc<Mutex<Receiver<Job<'_>>>>, shared: &Mutex<Shared>) {
        let mut buffer = Vec::new();
        loop {
            let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            if self.watch.is_cancelled() {
                continue;
            }
            let first = self.read(&job, false, &mut buffer);
            let (bytes, fault) = match first {
                Ok(bytes) => (bytes, None),
                Err(Trouble { fault: (Class::Unfinished, problem), .. }) => (0, Some((Class::Unfinished, problem))),
                // Once more, for the first answer may have been spoilt on its way.
                Err(first) => match self.read(&job, true, &mut buffer) {
                    Ok(bytes) => {
                        let text = format!("the second reading is good, the first was not: {}", first.fault.1.text);
                        lock(shared).warnings.push(Problem { text, code: "read-twice".to_owned(), ..first.fault.1 });
                        (bytes, None)
                    }
                    Err(second) => (0, Some(second.fault)),
                },
            };
            let mut shared = lock(shared);
            shared.bytes += bytes;
            if let Some((class, problem)) = fault {
                shared.faults.add(class, problem);
            }
        }
    }

    /// Reads a piece; gives the bytes of the volume that are proven.
    fn read(&self, job: &Job<'_>, again: bool, buffer: &mut Vec<u8>) -> Result<u64, Trouble> {
        let Item { member, object, .. } = job.item;
        let name = job.item.name();
        let length = job.part.as_ref().map_or(object.length, |part| part.end - part.start);
        let failed = |error: &StorageError| {
            let mut faults = Faults::default();
            faults.add_error(Some(&name), error);
            Trouble::of(faults, &name)
        };
        let stream = member.store.open(&name, job.part.clone()).map_err(|error| failed(&error))?;
        let stream = decompress::open(object.compression, stream, length);
        let (block, wanted): (u64, &[Option<[u8; 32]>]) = match &job.proof {
            Proof::Blocks(wanted) => (self.members.first().and_then(|tip| tip.inventory.block_size).unwrap_or(PART), wanted),
            Proof::Md5 => (1 << 20, &[]),
        };
        let with_md5 = match job.proof {
            Proof::Md5 => true,
            // The second time it shall say which of the two is wrong: the object, or what the sha256file says of it.
            Proof::Blocks(_) => again && job.part.is_none(),
        };
        let block_bytes = usize::try_from(block).unwrap_or(usize::MAX);
        let mut counted = 0;
        let read = compare(stream, block_bytes, wanted, with_md5, buffer, &mut |bytes| {
            if self.watch.is_cancelled() {
                return Err(StorageError::new(StorageErrorKind::Cancelled, "the check was stopped").into_io());
            }
            if !again {
                self.watch.add(bytes);
                counted += bytes;
            }
            Ok(())
        });
        if !again {
            // What could not be read is done with, too.
            self.watch.add(length.saturating_sub(counted));
        }
        let wrong = |code: &str, text: String| Trouble { fault: (Class::Wrong, Problem::of(name.clone(), code, text)) };
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                return Err(match StorageError::of_io(&error) {
                    Some(error) => failed(error),
                    None if error.kind() == io::ErrorKind::InvalidData => wrong("object-broken", error.to_string()),
                    None => Trouble { fault: (Class::Unfinished, Problem::of(name.clone(), "storage-unreadable", error.to_string())) },
                });
            }
        };
        let md5_fits = read.md5.is_none_or(|md5| md5 == object.md5);
        if let Some(first) = read.differing.first() {
            let start = object.offset + job.part.as_ref().map_or(0, |part| part.start) + first * block;
            let many = read.differing.len();
            let blocks = if many == 1 { "1 block differs".to_owned() } else { format!("{many} blocks differ") };
            let why = match (read.md5.is_some(), md5_fits) {
                (true, true) => "; it is as it was written (its MD5 fits), so that it is not what the volume held",
                (true, false) => "; its MD5 differs, too",
                _ => "",
            };
            let text = format!("{blocks} from what the volume held, the first at byte {start} of the volume{why}");
            return Err(wrong("block-differs", text));
        }
        if !md5_fits {
            return Err(wrong("object-digest", "its MD5 is not the one in the metadata".to_owned()));
        }
        Ok(length)
    }
}

/// Why a piece could not be proven.
struct Trouble {
    fault: (Class, Problem),
}

impl Trouble {
    fn of(faults: Faults, name: &str) -> Self {
        let class = if faults.has_damage() {
            if faults.verdict() == crate::domain::CheckVerdict::Incomplete { Class::Absent } else { Class::Wrong }
        } else {
            Class::Unfinished
        };
        let problem =
            faults.into_problems().into_iter().next().unwrap_or_else(|| Problem::of(name, "storage-unreadable", "cannot be read"));
        Self { fault: (class, problem) }
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send_with_md5<'b>(items: &'b [Item<'b>], sender: &SyncSender<Job<'b>>) {
    for item in items {
        if sender.send(Job { item, part: None, proof: Proof::Md5 }).is_err() {
            return;
        }
    }
}

/// Gives every object the digests of its blocks.
struct Planner<'b, 'c> {
    items: &'b [Item<'b>],
    next: usize,
    block_size: u64,
    volume_end: u64,
    /// Digests that objects to come need.
    window: VecDeque<[u8; 32]>,
    /// The number of the first block in the window.
    base: u64,
    /// How many digests came by.
    came: u64,
    sender: &'c SyncSender<Job<'b>>,
    /// Objects that do not lie on the borders of blocks.
    unaligned: Vec<usize>,
}

impl Planner<'_, '_> {
    fn take(&mut self, hash: [u8; 32]) -> ControlFlow<()> {
        self.window.push_back(hash);
        self.came += 1;
        while let Some(item) = self.items.get(self.next) {
            let object = &item.object;
            if object.length / self.block_size > MOST_BLOCKS
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
        for part in parts {
            let bytes = part.clone().unwrap_or(0..object.length);
            let blocks = (object.offset + bytes.start) / self.block_size..(object.offset + bytes.end).div_ceil(self.block_size);
            let wanted = blocks.map(|block| self.wanted(item, block)).collect();
            if self.sender.send(Job { item, part, proof: Proof::Blocks(wanted) }).is_err() {
                return false;
            }
        }
        true
    }

    /// The digest of a block, if this object decides it.
    fn wanted(&self, item: &Item<'_>, block: u64) -> Option<[u8; 32]> {
        let bytes = block * self.block_size..((block + 1) * self.block_size).min(self.volume_end);
        let lives = item.live.iter().any(|live| live.start <= bytes.start && bytes.end <= live.end);
        let at = usize::try_from(block.checked_sub(self.base)?).ok()?;
        self.window.get(at).filter(|_| lives).copied()
    }
}
