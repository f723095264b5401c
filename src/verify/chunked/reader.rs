//! Reads objects and compares them with their digests, on several threads, in bounded memory.
//!
//! The digests of the blocks stream out of the sha256file in the order of the volume, the objects stand in the same order,
//! and each gets the digests that belong to it the round they have come by. So neither a sha256file of many GB nor an object
//! of two is ever held.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use jiff::Timestamp;
use rand::Rng;

use super::confirm::{differs, transfer_damage};
use super::digest::{Digest, Md5Reader, compare};
use super::inventory::{Inventory, Object, WRONG_SHA256FILE, add_sha256file_error};
use super::planner::{Piece, Planner, Proof, QueuedObject, send_with_md5};
use super::{LISTED_OBJECT, ReadContext, layout};
use crate::domain::{Problem, ProblemCode};
use crate::format::metadata::Compression;
use crate::format::{decompress, names, sha256file};
use crate::storage::{ObjectStore, StorageError, StorageErrorKind};
use crate::verify::capacity::{Admission, ReadSlot};
use crate::verify::fault::{Faults, Severity};

/// An uncompressed object is read in parts of about this size, so that all threads share it.
pub(super) const PART: u64 = 32 << 20;
/// The digests of more blocks than this are not held for one object, whose own digest is compared then: 256 MiB of them. The
/// drivers' defaults come to 61 035.
const MOST_BLOCKS: u64 = 8 << 20;

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
pub struct ReadOptions {
    /// Threads; a store that is worth more at once gets more.
    pub jobs: usize,
    /// Bytes that reading may hold.
    pub memory: u64,
    /// How much is read.
    pub share: Share,
    /// The digest that proves an object, where there are both.
    pub digest: Digest,
}

impl ReadOptions {
    /// How many readers at once, where the storage is worth so many: more than cores are only worth it where they wait for a far
    /// server.
    pub(in crate::verify) fn readers(&self, worth: usize) -> usize {
        if self.jobs == 1 { 1 } else { self.jobs.max(worth) }
    }
}

impl Default for ReadOptions {
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
    pub reading: ReadContext<'a>,
    /// Whether the whole chain is put together.
    pub restore: bool,
    /// Whether the member whose digests count holds the whole volume itself.
    pub full: bool,
    /// Bytes of the volume.
    pub volume_bytes: Option<u64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct ReadReport {
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
    /// When objects were written that were written again meanwhile, as far as the storage says.
    pub rewritten: Vec<Option<Timestamp>>,
}

/// What the threads add to.
#[derive(Default)]
struct Totals {
    faults: Faults,
    warnings: Vec<Problem>,
    bytes: u64,
    /// Objects that were read to their end.
    objects: u64,
    /// Objects that were compared with their MD5 alone.
    by_md5: u64,
    /// Objects whose MD5 is that of the bytes as stored.
    as_stored: u64,
    /// As in [`ReadReport`].
    rewritten: Vec<Option<Timestamp>>,
    /// The first byte of the volume whose digest in the sha256file fits neither the data nor the MD5 that fits it.
    misfit: Option<u64>,
    /// The MD5 of the sha256file, as it came.
    sha256file_md5: Option<[u8; 16]>,
}

/// What a piece came to.
struct ProvenPiece {
    /// Bytes of the volume.
    bytes: u64,
    /// The MD5 that proved it is that of the bytes as stored: until Liberty Cinder took it after it had compressed them.
    ///
    /// Source: Cinder's commit fc5affbe7, first in 7.0.0.
    as_stored: bool,
}

impl Pass<'_> {
    /// Reads and compares.
    pub fn run(&self) -> ReadReport {
        let mut outcome = ReadReport::default();
        let Some(tip) = self.members.first() else { return outcome };
        let end = tip.inventory.entries.iter().map(Object::end).max().unwrap_or(0);
        // The sha256file of an increment has the digests of the whole volume, too.
        let mut volume_end = if self.full && !self.restore { end } else { self.volume_bytes.unwrap_or(0).max(end) };
        // What the tip's digests tell of ends where its chain does, whatever the size in GiB says: a device may be a little larger,
        // and need not end with a block; its last bytes may lie below. A chain that ends elsewhere fails its last digest.
        let reached = self.members.iter().flat_map(|member| &member.inventory.entries).map(Object::end).max().unwrap_or(0);
        let told = tip.inventory.block_size.filter(|_| self.restore).map(|block| (block, tip.inventory.digests));
        if told.is_some_and(|(block, digests)| reached.div_ceil(block) == digests) {
            volume_end = reached;
        }
        let slices: Vec<&[Object]> = self.members.iter().map(|member| member.inventory.entries.as_slice()).collect();
        let (live, gaps) = layout::live(&slices, volume_end);
        if self.restore {
            // No increment is made of a device that is larger than its parent's.
            let more = told.filter(|(block, digests)| gaps.is_empty() && reached.div_ceil(*block) < *digests);
            let bottom = self.members.last().and_then(|member| member.inventory.told);
            if let Some((block, digests)) = more {
                let text = format!(
                    "neither it nor a backup that it rests on holds anything behind byte {reached} of the volume, and its sha256file has \
                     {digests} digests of {block} bytes"
                );
                if bottom == more {
                    // Two that agree: the device was as large, and its end is lost.
                    outcome.faults.add(Severity::Incomplete, Problem::general(ProblemCode::Gap, text));
                } else {
                    let problem = Problem::of(names::sha256file(&tip.inventory.prefix), ProblemCode::Sha256fileWrong, text);
                    outcome.faults.add_local(Severity::Corrupt, problem);
                }
            }
            for gap in gaps {
                let text = format!("neither it nor a backup that it rests on holds bytes {} to {} of the volume", gap.start, gap.end);
                outcome.faults.add(Severity::Incomplete, Problem::general(ProblemCode::Gap, text));
            }
        }
        let mut items: Vec<QueuedObject<'_>> = self
            .members
            .iter()
            .zip(live)
            .flat_map(|(member, lists)| {
                member.inventory.entries.iter().zip(lists).map(move |(object, live)| QueuedObject::new(member, *object, live))
            })
            .collect();
        let all = items.len();
        items.retain(|item| item.object.stored.is_some());
        self.choose(&mut items);
        items.sort_by_key(|item| item.object.offset);
        self.reading.watch.announce(items.iter().fold(0, |sum: u64, item| sum.saturating_add(item.object.length)));

        let block_size = tip.inventory.block_size.filter(|_| self.restore || self.reading.options.digest == Digest::Sha256);
        if self.restore && block_size.is_none() {
            let text = "without a usable sha256file nothing tells what a restore should give; the MD5 of its objects was compared instead";
            outcome.faults.add(Severity::Unverifiable, Problem::general(ProblemCode::NoSha256file, text));
        }
        let shared = Mutex::new(Totals::default());
        let away = AtomicBool::new(false);
        let (most, threads) = self.threads(&items);
        let most_blocks = self.most_blocks(threads);
        let largest = items.iter().map(|item| item.object.length / block_size.unwrap_or(u64::MAX)).max().unwrap_or(0);
        let digests = largest.min(most_blocks).saturating_mul(digests_held(threads));
        let bytes = (items.len() as u64).saturating_mul(LISTED_OBJECT).saturating_add(digests);
        let admission = self.reading.capacity.admit(self.reading.driver, most, bytes);
        // One for the whole of the pass, so that a stream which was opened goes on.
        let mut first = Some(admission.slot());
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Piece<'_>>(threads);
            let receiver = Arc::new(Mutex::new(receiver));
            for _ in 0..threads {
                let (receiver, own) = (Arc::clone(&receiver), first.take());
                scope.spawn(|| self.work(receiver, &admission, own, &shared, &away));
            }
            // The workers' end of the channel closes with the last of them.
            drop(receiver);
            match block_size {
                Some(block_size) => {
                    let planner = Planner::new(&items, block_size, volume_end, most_blocks, &sender);
                    self.send_with_blocks(tip, planner, &shared);
                }
                None => drop(send_with_md5(items.iter(), &sender)),
            }
        });
        let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome.faults.extend(shared.faults);
        outcome.warnings.extend(shared.warnings);
        outcome.rewritten = shared.rewritten;
        if let Some(first) = shared.misfit {
            let name = names::sha256file(&tip.inventory.prefix);
            let (severity, problem) = match transfer_damage(tip.store.as_ref(), &name, shared.sha256file_md5) {
                Some(problem) => (Severity::Unverifiable, problem),
                None => {
                    let text = format!(
                        "its digests are not those of the data, the first at byte {first} of the volume, and the MD5 of the object there is: \
                         {WRONG_SHA256FILE}"
                    );
                    (Severity::Corrupt, Problem::of(name, ProblemCode::Sha256fileWrong, text))
                }
            };
            outcome.faults.add_local(severity, problem);
        }
        (outcome.bytes, outcome.objects) = (shared.bytes, shared.objects);
        if self.reading.watch.is_cancelled() {
            outcome.faults.add(
                Severity::Unverifiable,
                Problem::general(ProblemCode::Cancelled, "the check was stopped before it had read everything"),
            );
        }
        let digest = if block_size.is_some() { Digest::Sha256 } else { Digest::Md5 };
        let what =
            if self.restore && block_size.is_some() { "every block as a restore would write it, by its SHA-256" } else { digest.name() };
        let mut but = Vec::new();
        if block_size.is_some() && shared.by_md5 > 0 {
            but.push(format!("{} objects by their MD5", shared.by_md5));
        }
        if shared.as_stored > 0 {
            but.push(format!("{} of the bytes as stored, as Cinder took it before Liberty", shared.as_stored));
        }
        let but = if but.is_empty() { String::new() } else { format!(" ({})", but.join(", ")) };
        let read = shared.objects;
        let how_much = match self.reading.options.share {
            Share::All if read == all as u64 => format!("all {all} objects read"),
            Share::All => format!("{read} of {all} objects read"),
            Share::Part(part, of) => format!("{read} of {all} objects read (part {part} of {of})"),
            Share::Fraction(fraction) => format!("{read} of {all} objects read (a sample of {} %)", fraction * 100.0),
        };
        outcome.depth = format!("{what}{but}; {how_much}");
        outcome
    }

    /// Leaves out what is not to be read this time.
    fn choose(&self, items: &mut Vec<QueuedObject<'_>>) {
        match self.reading.options.share {
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

    /// How many readers the storage is worth, and how many of them this pass can use.
    fn threads(&self, items: &[QueuedObject<'_>]) -> (usize, usize) {
        let worth = self.members.iter().map(|member| member.store.concurrency()).max().unwrap_or(1);
        let most = self.reading.options.readers(worth).min(self.reading.capacity.readers());
        let pieces: u64 = items.iter().map(|item| item.object.length.div_ceil(PART)).sum();
        (most, most.min(usize::try_from(pieces).unwrap_or(usize::MAX)).max(1))
    }

    /// How many digests one object may hold while it waits.
    fn most_blocks(&self, threads: usize) -> u64 {
        (self.reading.options.memory / 2 / digests_held(threads)).min(MOST_BLOCKS)
    }

    /// Goes through the sha256file and sends each object off as soon as the digests of all its blocks have come by.
    fn send_with_blocks(&self, tip: &Member, mut planner: Planner<'_, '_>, shared: &Mutex<Totals>) {
        let (items, block_size, sender) = (planner.items, planner.block_size, planner.sender);
        let name = names::sha256file(&tip.inventory.prefix);
        let note = |severity, problem| lock(shared).faults.add(severity, problem);
        let read = tip.store.open(&name, None).map_err(|error| crate::format::FormatError::Io(error.into_io())).and_then(|stream| {
            let (stream, taken) = Md5Reader::of(stream);
            let read = sha256file::read_hashes(stream, &mut |hash| {
                if self.reading.watch.is_cancelled() { ControlFlow::Break(()) } else { planner.take(hash) }
            });
            lock(shared).sha256file_md5 = taken.of_all(1 << 20);
            read
        });
        if self.reading.watch.is_cancelled() {
            return;
        }
        match read {
            Err(error) => {
                let came = lock(shared).sha256file_md5;
                add_sha256file_error(&mut lock(shared).faults, tip.store.as_ref(), &name, came, error);
            }
            Ok(_) => {
                let wanted = planner.volume_end.div_ceil(block_size);
                if planner.came != wanted {
                    let text = format!(
                        "its sha256file has {} digests of {block_size} bytes, and {wanted} are wanted: {WRONG_SHA256FILE}",
                        planner.came
                    );
                    // A device may have been a little larger than its size in GiB says.
                    if planner.came < wanted || (self.full && !self.restore) {
                        lock(shared).faults.add_local(Severity::Corrupt, Problem::of(name.clone(), ProblemCode::Sha256fileWrong, text));
                    }
                }
            }
        }
        // What the sha256file says nothing about is compared with its own digest.
        let (next, unaligned) = (planner.next, std::mem::take(&mut planner.unaligned));
        let rest = || items.iter().skip(next).chain(unaligned.iter().filter_map(|index| items.get(*index)));
        for item in rest().filter(|item| self.restore && !item.live.is_empty()) {
            let too_many = item.object.length / block_size > planner.most_blocks;
            let text = if too_many {
                "it has more digests than there is memory for, so that only its own was compared: give more --memory"
            } else {
                "no digest of the volume fits this object, so that only its own was compared"
            };
            note(Severity::Unverifiable, Problem::of(item.name(), ProblemCode::NoDigest, text));
        }
        send_with_md5(rest(), sender);
    }

    /// Reads what is sent; with a reader of its `own` always, else with one of the admission's as long as there is something to read.
    fn work(
        &self,
        receiver: Arc<Mutex<Receiver<Piece<'_>>>>,
        admission: &Admission<'_>,
        mut own: Option<ReadSlot<'_>>,
        shared: &Mutex<Totals>,
        away: &AtomicBool,
    ) {
        let mut lent = None;
        loop {
            let ready = receiver.try_lock().ok().and_then(|receiver| receiver.try_recv().ok());
            let piece = match ready {
                Some(piece) => Ok(piece),
                None => {
                    lent = None;
                    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv()
                }
            };
            let Ok(piece) = piece else { return };
            if self.reading.watch.is_cancelled() || away.load(Ordering::Relaxed) {
                continue;
            }
            let buffer = match &mut own {
                Some(own) => &mut own.buffer,
                None => &mut lent.get_or_insert_with(|| admission.slot()).buffer,
            };
            let first = self.read(&piece, false, buffer);
            let result = match first {
                Err(first) if first.fault.0 != Severity::Unverifiable => {
                    let second = self.look_again(&piece, buffer);
                    if second.is_ok() {
                        let text = format!("the second reading is good, the first was not: {}", first.fault.1.text);
                        lock(shared).warnings.push(Problem { text, code: ProblemCode::ReadTwice.into(), ..first.fault.1 });
                    }
                    second
                }
                result => result,
            };
            // What is wrong was read, what is not there or could not be had was not.
            let was_read = result.as_ref().map_or_else(|trouble| trouble.fault.0 == Severity::Corrupt, |_| true);
            let whole = was_read && piece.item.piece_was_read();
            let mut shared = lock(shared);
            shared.objects += u64::from(whole);
            shared.by_md5 += u64::from(whole && matches!(piece.proof, Proof::Md5));
            match result {
                Ok(proven) => {
                    shared.bytes += proven.bytes;
                    shared.as_stored += u64::from(proven.as_stored);
                }
                Err(PieceFailure { fault: (severity, problem), .. }) if problem.code == ProblemCode::StorageAway => {
                    // Said once; nobody asks for the rest.
                    if !away.swap(true, Ordering::Relaxed) {
                        shared.faults.add(severity, Problem { object: None, ..problem });
                    }
                }
                // Said once for all of the sha256file.
                Err(PieceFailure { detail: FailureDetail::Sha256fileDiffers(at), .. }) => {
                    shared.misfit = Some(shared.misfit.map_or(at, |first| first.min(at)))
                }
                Err(PieceFailure { fault: (severity, problem), detail }) => {
                    if let FailureDetail::Rewritten(at) = detail {
                        shared.rewritten.push(at);
                    }
                    shared.faults.add(severity, problem);
                }
            }
        }
    }

    /// Asks for an object again that was found wrong, before it is reported: it may have been rewritten since it was listed, and the
    /// bytes may have been damaged on the network.
    fn look_again(&self, piece: &Piece<'_>, buffer: &mut Vec<u8>) -> Result<ProvenPiece, PieceFailure> {
        let QueuedObject { member, object, .. } = piece.item;
        let name = piece.item.name();
        let told = match member.store.stat(&name) {
            Ok(Some(found)) if object.was_rewritten(&found) => {
                let at = found.modified.map_or_else(String::new, |at| format!(" at {at}"));
                let text = format!("it was rewritten{at}, after it was listed: what was read of it proves nothing");
                let fault = (Severity::Unverifiable, Problem::of(name, ProblemCode::ObjectRewritten, text));
                return Err(PieceFailure { fault, detail: FailureDetail::Rewritten(found.modified) });
            }
            Ok(found) => found.and_then(|found| found.md5),
            Err(error) if matches!(error.kind, StorageErrorKind::Transient | StorageErrorKind::Unreachable) => {
                return Err(PieceFailure::of_error(&name, &error));
            }
            // An account that may read an object may lack the right to stat it.
            Err(_) => None,
        };
        let trouble = match self.read(piece, true, buffer) {
            Err(trouble) if trouble.fault.0 == Severity::Corrupt => trouble,
            result => return result,
        };
        let came = match trouble.detail {
            FailureDetail::StoredMd5(md5) => Some(md5),
            // The MD5 of the metadata fits what came.
            FailureDetail::Sha256fileDiffers(_) => None,
            _ => told.and_then(|_| piece.item.whole_md5()),
        };
        match came.zip(told).and_then(|(came, told)| differs(&name, came, told)) {
            Some(problem) => Err(PieceFailure::from((Severity::Unverifiable, problem))),
            None => Err(trouble),
        }
    }

    /// Reads a piece; gives the bytes of the volume that are proven.
    fn read(&self, piece: &Piece<'_>, again: bool, buffer: &mut Vec<u8>) -> Result<ProvenPiece, PieceFailure> {
        let QueuedObject { member, object, .. } = piece.item;
        let name = piece.item.name();
        let length = piece.part.as_ref().map_or(object.length, |part| part.end - part.start);
        let failed = |error: &StorageError| PieceFailure::of_error(&name, error);
        let stream = member.store.open(&name, piece.part.clone()).map_err(|error| failed(&error))?;
        let with_md5 = match piece.proof {
            Proof::Md5 => true,
            // The second time it shall say which of the two is wrong: the object, or what the sha256file says of it.
            Proof::Blocks(_) => again && piece.part.is_none(),
        };
        // Without compression the two are the same, if all of it is read.
        let (stream, stored) = if piece.part.is_none() && (again || (with_md5 && object.compression != Compression::None)) {
            let (tap, taken) = Md5Reader::of(stream);
            (Box::new(tap) as _, Some(taken))
        } else {
            (stream, None)
        };
        let stream = decompress::open(object.compression, stream, length);
        let (block, wanted): (u64, &[Option<[u8; 32]>]) = match &piece.proof {
            Proof::Blocks(wanted) => (self.members.first().and_then(|tip| tip.inventory.block_size).unwrap_or(PART), wanted),
            Proof::Md5 => (1 << 20, &[]),
        };
        let mut counted = 0;
        let read = compare(stream, block, wanted, with_md5, buffer, &mut |bytes| {
            if self.reading.watch.is_cancelled() {
                return Err(StorageError::new(StorageErrorKind::Cancelled, "the check was stopped").into_io());
            }
            if !again {
                self.reading.watch.add(bytes);
                counted += bytes;
            }
            Ok(())
        });
        if !again {
            // What could not be read is done with, too.
            self.reading.watch.add(length.saturating_sub(counted));
        }
        // Of all bytes as they are stored, also where nobody wanted to read them to their end.
        let came = match stored {
            Some(taken) if again => taken.of_all(u64::MAX),
            Some(taken) => Some(taken.so_far()),
            None => None,
        };
        let wrong = |code: ProblemCode, text: String| {
            let fault = (Severity::Corrupt, Problem::of(name.clone(), code, text));
            PieceFailure { fault, detail: came.map_or(FailureDetail::Nothing, FailureDetail::StoredMd5) }
        };
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                return Err(match StorageError::of_io(&error) {
                    Some(error) => failed(error),
                    None if error.kind() == io::ErrorKind::InvalidData => wrong(ProblemCode::ObjectBroken, error.to_string()),
                    None => PieceFailure::from((
                        Severity::Unverifiable,
                        Problem::of(name.clone(), ProblemCode::StorageUnreadable, error.to_string()),
                    )),
                });
            }
        };
        let as_stored = read.md5 != Some(object.md5) && with_md5 && object.compression != Compression::None && came == Some(object.md5);
        let md5_fits = as_stored || read.md5.is_none_or(|md5| md5 == object.md5);
        if let Some(first) = read.differing.first() {
            let start = object.offset + piece.part.as_ref().map_or(0, |part| part.start) + first * block;
            let many = read.differing.len();
            let blocks = if many == 1 { "1 block differs".to_owned() } else { format!("{many} blocks differ") };
            // Of a piece the object's own digest says nothing: all of the object is read for it.
            let of_whole = || piece.item.whole_md5().map(|md5| md5 == object.md5);
            let fits = if read.md5.is_some() { Some(md5_fits) } else { Some(()).filter(|()| again).and_then(|()| of_whole()) };
            let why = match fits {
                Some(true) => "; it is as it was written (its MD5 fits), so that it is not what the volume held",
                Some(false) => "; its MD5 differs, too",
                None => "",
            };
            let text = format!("{blocks} from what the volume held, the first at byte {start} of the volume{why}");
            // The driver takes both digests of the same bytes. Those of another member are its own sha256file's business.
            let is_own = self.members.first().is_some_and(|tip| std::ptr::eq(tip, *member));
            let trouble = wrong(ProblemCode::BlockDiffers, text);
            let is_misfit = is_own && again && fits == Some(true);
            return Err(if is_misfit { PieceFailure { detail: FailureDetail::Sha256fileDiffers(start), ..trouble } } else { trouble });
        }
        if !md5_fits {
            return Err(wrong(ProblemCode::ObjectDigest, "its MD5 is not the one in the metadata".to_owned()));
        }
        Ok(ProvenPiece { bytes: length, as_stored })
    }
}

/// Why a piece could not be proven.
struct PieceFailure {
    fault: (Severity, Problem),
    detail: FailureDetail,
}

/// What else is known of it.
enum FailureDetail {
    Nothing,
    /// The MD5 of the whole object as stored, as it came.
    StoredMd5([u8; 16]),
    /// It was written again meanwhile, and when, if the storage says so.
    Rewritten(Option<Timestamp>),
    /// From this byte of the volume on the sha256file does not fit, and the MD5 of the object does.
    Sha256fileDiffers(u64),
}

impl From<(Severity, Problem)> for PieceFailure {
    fn from(fault: (Severity, Problem)) -> Self {
        Self { fault, detail: FailureDetail::Nothing }
    }
}

impl PieceFailure {
    fn of_error(name: &str, error: &StorageError) -> Self {
        let mut faults = Faults::default();
        faults.add_error(Some(name), error);
        let severity = faults.severity().unwrap_or(Severity::Unverifiable);
        let problem = faults
            .into_problems()
            .into_iter()
            .next()
            .unwrap_or_else(|| Problem::of(name, ProblemCode::StorageUnreadable, "cannot be read"));
        Self::from((severity, problem))
    }
}

/// Bytes that a digest of each block takes, for all that one pass holds: two objects for each thread, one in its hands and one in
/// the queue, the next one's and what is known of the one after it.
fn digests_held(threads: usize) -> u64 {
    (size_of::<Option<[u8; 32]>>() as u64).saturating_mul(2 * threads as u64 + 2)
}

fn lock(shared: &Mutex<Totals>) -> std::sync::MutexGuard<'_, Totals> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
