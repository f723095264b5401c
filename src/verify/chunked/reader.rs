//! Reads objects and compares them with their digests, on several threads, in bounded memory.
//!
//! The digests stream out of the sha256file in the order of the volume. The objects are in the same order, and each is queued once
//! the digests of all its blocks were received. So neither a sha256file of many GB nor an object of two is ever held.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use jiff::Timestamp;
use rand::Rng;

use super::digest::{Digest, Md5Reader};
use super::inventory::{Digests, Object};
use super::layout::{self, Ranges};
use super::options::{ReadContext, Share};
use super::piece::{FailureDetail, PieceFailure};
use super::planner::{LISTED_OBJECT, Member, PART, Piece, Planner, Proof, QueuedObject, send_with_md5};
use super::transfer::{WRONG_SHA256FILE, add_sha256file_error, into_format, transfer_damage};
use crate::domain::{Problem, ProblemCode};
use crate::format::{names, sha256file};
use crate::parallel::lock;
use crate::verify::capacity::{Admission, ReadSlot};
use crate::verify::{Faults, Severity};

/// The most blocks of one object whose digests are held (256 MiB of them). An object with more is compared with its MD5. The drivers'
/// defaults come to 61 035.
const MOST_BLOCKS: u64 = 8 << 20;

/// What is to be read: one backup against its own digests, or, for a restore, a chain (the newest first) against those of the
/// newest.
pub struct Pass<'a> {
    /// The members, the one whose digests count first.
    pub members: &'a [Member],
    pub context: ReadContext<'a>,
    /// Whether the whole chain is put together.
    pub restore: bool,
    /// Whether it is one full backup, whose digests are those of its own objects.
    pub full: bool,
}

#[derive(Debug, Default)]
pub struct ReadReport {
    pub faults: Faults,
    pub warnings: Vec<Problem>,
    pub depth: String,
    /// Bytes of the volume that were read and compared.
    pub bytes: u64,
    /// Objects that were read.
    pub objects: u64,
    /// When objects were written that were written again during the check, if the storage reports it.
    pub rewritten: Vec<Option<Timestamp>>,
    /// Objects that were compared with their MD5 alone.
    by_md5: u64,
    /// Objects whose MD5 is that of the bytes as stored.
    as_stored: u64,
    /// The first byte of the volume whose digest in the sha256file differs from the data although the MD5 of the object fits.
    sha256file_differs: Option<u64>,
    /// The MD5 of the sha256file, as received.
    sha256file_md5: Option<[u8; 16]>,
}

/// What the threads of a pass share.
struct Shared<'a> {
    admission: Admission<'a>,
    report: Mutex<ReadReport>,
    /// The storage is unreachable: nothing more is requested.
    is_away: AtomicBool,
}

impl Pass<'_> {
    pub fn run(&self) -> ReadReport {
        let Some(tip) = self.members.first() else { return ReadReport::default() };
        let block_size = tip.inventory.digests.map(|digests| digests.block_size);
        let block_size = block_size.filter(|_| self.restore || self.context.options.digest == Digest::Sha256);
        let mut faults = Faults::default();
        let (volume_end, live) = self.lay_out(tip, &mut faults);
        let mut objects = self.objects(live);
        let all = objects.len();
        objects.retain(|item| item.object.stored.is_some());
        self.choose(&mut objects);
        objects.sort_by_key(|item| item.object.offset);
        self.context.watch.announce(objects.iter().fold(0, |sum: u64, item| sum.saturating_add(item.object.length)));
        if self.restore && block_size.is_none() {
            let text = "without a usable sha256file it is not known what a restore must give; the MD5 of its objects was compared instead";
            faults.add(Severity::Unverifiable, Problem::general(ProblemCode::NoSha256file, text));
        }
        let report = self.read(tip, &objects, block_size, volume_end);
        let depth = self.depth(&report, block_size.is_some(), all as u64);
        faults.extend(report.faults);
        if let Some(first) = report.sha256file_differs {
            let name = names::sha256file(&tip.inventory.prefix);
            let (severity, problem) = match transfer_damage(tip.store.as_ref(), &name, report.sha256file_md5) {
                Some(problem) => (Severity::Unverifiable, problem),
                None => {
                    let text = format!(
                        "its digests are not those of the data, the first at byte {first} of the volume, although the MD5 of the object there \
                         matches: {WRONG_SHA256FILE}"
                    );
                    (Severity::Corrupt, Problem::of(name, ProblemCode::Sha256fileWrong, text))
                }
            };
            faults.add_local(severity, problem);
        }
        if self.context.watch.is_cancelled() {
            let text = "the check was stopped before it had read everything";
            faults.add(Severity::Unverifiable, Problem::general(ProblemCode::Cancelled, text));
        }
        ReadReport { faults, depth, ..report }
    }

    /// Works out which bytes of the volume come from which object, and reports those that a restore would lack. Returns the end of the
    /// volume, and the ranges of every object.
    fn lay_out(&self, tip: &Member, faults: &mut Faults) -> (u64, Vec<Vec<Ranges>>) {
        let end = tip.inventory.end();
        // The sha256file of an increment has the digests of the whole volume, too.
        let mut volume_end = if self.full { end } else { tip.inventory.volume_bytes.unwrap_or(0).max(end) };
        // The tip's digests end where its chain ends, whatever the size in GiB says: a device may be a little larger and need not end
        // with a block, and its last bytes may be in an older backup. If a chain ends elsewhere, its last digest differs.
        let reached = self.members.iter().map(|member| member.inventory.end()).max().unwrap_or(0);
        let digests = tip.inventory.digests.filter(|_| self.restore);
        if digests.is_some_and(|digests| reached.div_ceil(digests.block_size) == digests.count) {
            volume_end = reached;
        }
        let entries: Vec<&[Object]> = self.members.iter().map(|member| member.inventory.entries.as_slice()).collect();
        let (live, gaps) = layout::live(&entries, volume_end);
        if !self.restore {
            return (volume_end, live);
        }
        // No increment is made of a device that is larger than its parent's.
        let has_more = |digests: &Digests| gaps.is_empty() && reached.div_ceil(digests.block_size) < digests.count;
        if let Some(Digests { block_size, count }) = digests.filter(has_more) {
            let text = format!(
                "neither it nor a backup that it is based on holds anything after byte {reached} of the volume, but its sha256file has \
                 {count} digests of {block_size} bytes"
            );
            if self.members.last().and_then(|bottom| bottom.inventory.claimed_digests) == digests {
                // Two sha256files agree: the device was that large, and its end is lost.
                faults.add(Severity::Incomplete, Problem::general(ProblemCode::Gap, text));
            } else {
                let name = names::sha256file(&tip.inventory.prefix);
                faults.add_local(Severity::Corrupt, Problem::of(name, ProblemCode::Sha256fileWrong, text));
            }
        }
        for gap in gaps {
            let text = format!("neither it nor a backup that it is based on holds bytes {} to {} of the volume", gap.start, gap.end);
            faults.add(Severity::Incomplete, Problem::general(ProblemCode::Gap, text));
        }
        (volume_end, live)
    }

    fn objects(&self, live: Vec<Vec<Ranges>>) -> Vec<QueuedObject<'_>> {
        let members = self.members.iter().zip(live).enumerate();
        let objects = members.flat_map(|(index, (member, lists))| {
            let entries = member.inventory.entries.iter().zip(lists);
            entries.map(move |(object, live)| QueuedObject::new(member, index == 0, *object, live))
        });
        objects.collect()
    }

    /// Removes the objects that are not read this time.
    fn choose(&self, objects: &mut Vec<QueuedObject<'_>>) {
        match self.context.options.share {
            Share::All => {}
            Share::Part(part, of) => objects.retain(|item| item.object.number % of.max(1) == part % of.max(1)),
            Share::Objects(part) => objects.retain(|item| part.has(item.object.number)),
            Share::Fraction(fraction) => {
                let mut random = rand::rng();
                // At least one, or a small backup would never be read.
                let one = random.random_range(0..objects.len().max(1));
                let mut index = 0..;
                objects.retain(|_| index.next() == Some(one) || random.random_bool(fraction.clamp(0.0, 1.0)));
            }
        }
    }

    /// Reads the objects on several threads. This one reads the sha256file and queues them.
    fn read(&self, tip: &Member, objects: &[QueuedObject<'_>], block_size: Option<u64>, volume_end: u64) -> ReadReport {
        let ReadContext { options, capacity, driver, .. } = self.context;
        let worth = self.members.iter().map(|member| member.store.concurrency()).max().unwrap_or(1);
        let most = options.readers(worth).min(capacity.slots());
        let pieces: u64 = objects.iter().map(|item| item.object.length.div_ceil(PART)).sum();
        let threads = most.min(usize::try_from(pieces).unwrap_or(usize::MAX)).max(1);
        // Bytes that one digest takes in all objects that a pass holds: two for each thread (one being read and one queued), the next
        // one's, and what is known of the one after it.
        let held = (size_of::<Option<[u8; 32]>>() as u64).saturating_mul(2 * threads as u64 + 2);
        let most_blocks = (options.memory / 2 / held).min(MOST_BLOCKS);
        let largest = objects.iter().map(|item| item.object.length / block_size.unwrap_or(u64::MAX)).max().unwrap_or(0);
        let digests = largest.min(most_blocks).saturating_mul(held);
        let bytes = (objects.len() as u64).saturating_mul(LISTED_OBJECT).saturating_add(digests);
        let shared = Shared { admission: capacity.admit(driver, most, bytes), report: Mutex::default(), is_away: AtomicBool::new(false) };
        // One slot is held for the whole pass, so that a stream which was opened continues.
        let mut first = Some(shared.admission.slot());
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Piece<'_>>(threads);
            let receiver = Arc::new(Mutex::new(receiver));
            for _ in 0..threads {
                let (receiver, slot, shared) = (Arc::clone(&receiver), first.take(), &shared);
                scope.spawn(move || self.work(&receiver, slot, shared));
            }
            // The receiving end closes with the last thread.
            drop(receiver);
            match block_size {
                Some(block_size) => {
                    let planner = Planner::new(objects, block_size, volume_end, most_blocks, &sender);
                    self.send_with_blocks(tip, planner, &shared);
                }
                None => drop(send_with_md5(objects.iter(), &sender)),
            }
        });
        shared.report.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the sha256file and queues each object once the digests of all its blocks were received.
    fn send_with_blocks(&self, tip: &Member, mut planner: Planner<'_, '_>, shared: &Shared<'_>) {
        let name = names::sha256file(&tip.inventory.prefix);
        let read = tip.store.open(&name, None).map_err(into_format).and_then(|stream| {
            let mut stream = Md5Reader::new(stream);
            let read = sha256file::read_hashes(&mut stream, &mut |hash| {
                if self.context.watch.is_cancelled() { ControlFlow::Break(()) } else { planner.take(hash) }
            });
            lock(&shared.report).sha256file_md5 = stream.of_all(1 << 20);
            read
        });
        if self.context.watch.is_cancelled() {
            return;
        }
        let Planner { block_size, received, most_blocks, .. } = planner;
        let wanted = planner.volume_end.div_ceil(block_size);
        match read {
            Err(error) => {
                let ReadReport { faults, sha256file_md5, .. } = &mut *lock(&shared.report);
                add_sha256file_error(faults, tip.store.as_ref(), &name, *sha256file_md5, error);
            }
            // A device may have been a little larger than its size in GiB.
            Ok(_) if received < wanted || (received > wanted && self.full) => {
                let text =
                    format!("its sha256file has {received} digests of {block_size} bytes, but {wanted} are needed: {WRONG_SHA256FILE}");
                let problem = Problem::of(name, ProblemCode::Sha256fileWrong, text);
                lock(&shared.report).faults.add_local(Severity::Corrupt, problem);
            }
            Ok(_) => {}
        }
        // Objects that the sha256file does not cover are compared with their MD5.
        let rest = || planner.items.iter().skip(planner.next).chain(planner.unaligned.iter().filter_map(|index| planner.items.get(*index)));
        for item in rest().filter(|item| self.restore && !item.live.is_empty()) {
            let text = if item.object.length / block_size > most_blocks {
                "it has more digests than the memory holds, so only its MD5 was compared: give more --memory"
            } else {
                "no digest of the volume fits this object, so only its MD5 was compared"
            };
            let problem = Problem::of(item.name(), ProblemCode::NoDigest, text);
            lock(&shared.report).faults.add(Severity::Unverifiable, problem);
        }
        send_with_md5(rest(), planner.sender);
    }

    /// Reads the queued pieces. Holds the `slot` that it is given; otherwise it takes one while there is something to read.
    fn work<'s>(&self, receiver: &Mutex<Receiver<Piece<'_>>>, mut slot: Option<ReadSlot<'s>>, shared: &Shared<'s>) {
        let is_held = slot.is_some();
        loop {
            let ready = receiver.try_lock().ok().and_then(|receiver| receiver.try_recv().ok());
            let piece = ready.map_or_else(
                || {
                    slot = slot.take().filter(|_| is_held);
                    lock(receiver).recv()
                },
                Ok,
            );
            let Ok(piece) = piece else { return };
            if self.context.watch.is_cancelled() || shared.is_away.load(Ordering::Relaxed) {
                continue;
            }
            let buffer = &mut slot.get_or_insert_with(|| shared.admission.slot()).buffer;
            let watch = self.context.watch;
            let result = match piece.read(watch, false, buffer) {
                Err(first) if first.severity != Severity::Unverifiable => {
                    let second = piece.read_again(watch, buffer);
                    if second.is_ok() {
                        let text = format!("the second read is right, the first was not: {}", first.problem.text);
                        let warning = Problem { text, code: ProblemCode::ReadTwice.into(), ..first.problem };
                        lock(&shared.report).warnings.push(warning);
                    }
                    second
                }
                result => result,
            };
            shared.add(&piece, result);
        }
    }

    fn depth(&self, report: &ReadReport, has_digests: bool, all: u64) -> String {
        let what = match (self.restore, has_digests) {
            (true, true) => "every block as a restore would write it, by its SHA-256",
            (false, true) => Digest::Sha256.name(),
            (_, false) => Digest::Md5.name(),
        };
        let by_md5 = (has_digests && report.by_md5 > 0).then(|| format!("{} objects by their MD5", report.by_md5));
        let as_stored =
            (report.as_stored > 0).then(|| format!("{} of the bytes as stored, as Cinder took it before Liberty", report.as_stored));
        let exceptions: Vec<String> = by_md5.into_iter().chain(as_stored).collect();
        let exceptions = if exceptions.is_empty() { String::new() } else { format!(" ({})", exceptions.join(", ")) };
        let read = report.objects;
        let share = match self.context.options.share {
            Share::All if read == all => format!("all {all} objects read"),
            Share::All => format!("{read} of {all} objects read"),
            Share::Part(part, of) => format!("{read} of {all} objects read (part {part} of {of})"),
            Share::Objects(part) => format!("{read} of {all} objects read (part {part} of a split chain)"),
            Share::Fraction(fraction) => format!("{read} of {all} objects read (a sample of {} %)", fraction * 100.0),
        };
        format!("{what}{exceptions}; {share}")
    }
}

impl Shared<'_> {
    fn add(&self, piece: &Piece<'_>, result: Result<bool, PieceFailure>) {
        // A wrong piece was read. A missing or unreachable one was not.
        let was_read = result.as_ref().map_or_else(|failure| failure.severity == Severity::Corrupt, |_| true);
        let is_complete = was_read && piece.item.count_piece();
        let mut report = lock(&self.report);
        report.objects += u64::from(is_complete);
        report.by_md5 += u64::from(is_complete && matches!(piece.proof, Proof::Md5));
        let PieceFailure { severity, problem, detail } = match result {
            Ok(as_stored) => {
                report.bytes += piece.length();
                report.as_stored += u64::from(as_stored);
                return;
            }
            Err(failure) => failure,
        };
        if problem.code == ProblemCode::StorageAway {
            // Reported once for all the others.
            if !self.is_away.swap(true, Ordering::Relaxed) {
                report.faults.add(severity, Problem { object: None, ..problem });
            }
            return;
        }
        match detail {
            // Reported once for the whole sha256file.
            FailureDetail::Sha256fileDiffers(at) => {
                report.sha256file_differs = Some(report.sha256file_differs.map_or(at, |first| first.min(at)));
                return;
            }
            FailureDetail::Rewritten(at) => report.rewritten.push(at),
            FailureDetail::Nothing | FailureDetail::StoredMd5(_) => {}
        }
        report.faults.add(severity, problem);
    }
}
