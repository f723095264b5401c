//! What is known of one backup from its own objects, without its chain.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use super::inventory::{Digests, Inventory, StoredBackup, Times, prefix_of};
use super::options::ReadContext;
use super::planner::{LISTED_OBJECT, Member};
use super::reader::{Pass, ReadReport};
use super::transfer::WRONG_SHA256FILE;
use crate::domain::time::stamp;
use crate::domain::{Amount, AncestorListings, CheckResult, CheckVerdict, Level, Listing, Problem, ProblemCode};
use crate::format::names;
use crate::verify::{Faults, Severity, Subject};

/// Clocks of hosts may differ by this much.
const CLOCKS: SignedDuration = SignedDuration::from_secs(60);

/// What is known of a backup after its own objects were checked, without its chain.
#[derive(Clone, Default)]
pub struct Inspection {
    pub(super) faults: Faults,
    pub(super) warnings: Vec<Problem>,
    pub(super) inventory: Option<Arc<Inventory>>,
    /// What `backups.object_count` must be.
    pub(super) object_count: Option<i64>,
    /// Whether at least one of its objects exists, even if the listing does not show it.
    pub(super) begun: bool,
    /// The storage answered that none of its objects exists. A listing alone does not show that, as it may lag behind.
    pub(super) absent: bool,
    pub(super) times: Times,
    /// What the listing showed, if it was read to its end.
    pub(super) listing: Option<Listing>,
    pub(super) below: Option<AncestorListings>,
    /// The digests of the inventory, which has them only if the sha256file fits the backup.
    pub(super) digests: Option<Digests>,
    /// The size of the volume, as in the inventory.
    pub(super) volume_bytes: Option<u64>,
    /// An object was written again during the check.
    pub(super) rewritten: bool,
    pub(super) objects: Amount,
    pub(super) bytes: Amount,
    /// What was done, in words.
    pub(super) depth: String,
}

impl Inspection {
    /// Reads the objects, and compares them with the backup's own digests.
    pub fn read_data(&mut self, stored: &StoredBackup<'_>, context: ReadContext<'_>) {
        let (Ok(store), Some(inventory)) = (&stored.store, &self.inventory) else { return };
        // Without side files there is nothing to compare, and "all 0 objects" would claim too much.
        if inventory.entries.is_empty() && inventory.digests.is_none() {
            return;
        }
        let members = [Member { store: Arc::clone(store), inventory: Arc::clone(inventory) }];
        self.add(Pass { members: &members, context, restore: false, full: stored.backup.parent_id.is_none() }.run());
    }

    /// The number of its objects, side files not counted.
    pub fn objects(&self) -> u64 {
        self.objects.expected
    }

    /// The same without the list of objects, which takes most of the memory.
    pub fn without_list(self) -> Self {
        Self { inventory: None, ..self }
    }

    /// Bytes of memory that its list takes in a restore.
    pub(in crate::verify) fn list_bytes(&self) -> u64 {
        self.inventory.as_ref().map_or(0, |inventory| (inventory.entries.len() as u64).saturating_mul(LISTED_OBJECT))
    }

    /// Checks that its sha256file can be one of its chain. Cinder makes an increment only with blocks of the same size as its parent's,
    /// and never of a larger device. The sha256file of a full backup is compared with its own data.
    pub(super) fn compare_sha256files(&mut self, tip: &StoredBackup<'_>, bottom: &StoredBackup<'_>, full: &Self) {
        let (Some(own), Some(wanted)) = (self.digests, full.digests) else { return };
        if bottom.backup.parent_id.is_some() || (own.block_size == wanted.block_size && own.count <= wanted.count) {
            return;
        }
        let text = format!(
            "its sha256file has {} digests of {} bytes, but that of its full backup {} has {} of {}: {WRONG_SHA256FILE}",
            own.count, own.block_size, bottom.backup.id, wanted.count, wanted.block_size
        );
        let name = names::sha256file(prefix_of(tip.backup).unwrap_or_default());
        self.faults.add_local(Severity::Corrupt, Problem::of(name, ProblemCode::Sha256fileWrong, text));
        if let Some(inventory) = &mut self.inventory {
            let inventory = Arc::make_mut(inventory);
            (inventory.digests, inventory.volume_bytes) = (None, full.volume_bytes);
        }
    }

    /// Adds what a pass over the data found.
    pub(super) fn add(&mut self, report: ReadReport) {
        self.depth = report.depth;
        (self.bytes.checked, self.objects.checked) = (report.bytes, report.objects);
        self.faults.extend(report.faults);
        self.warnings.extend(report.warnings);
        self.rewritten |= !report.rewritten.is_empty();
        report.rewritten.into_iter().for_each(|modified| self.times.add(modified));
    }

    pub(super) fn verdict(&self) -> CheckVerdict {
        if self.absent { CheckVerdict::Missing } else { self.faults.verdict() }
    }

    /// The result that follows.
    pub(super) fn into_result(mut self, subject: &Subject<'_>) -> CheckResult {
        let verdict = self.verdict();
        let busy = self.check_times(subject);
        let level_reached = match verdict {
            CheckVerdict::Intact => Some(subject.level),
            // A restore without a digest of the volume compares every object of the chain with its own.
            CheckVerdict::Unverifiable if self.faults.are_all(ProblemCode::NoSha256file) => Some(Level::Deep),
            _ => None,
        };
        CheckResult {
            level_reached,
            busy,
            begun: self.begun,
            objects: self.objects,
            bytes: self.bytes,
            warnings: self.warnings,
            object_count: self.object_count.filter(|_| level_reached.is_some()),
            // An object without a time may be newer than all others.
            newest_object_at: self.times.known_newest().map(stamp),
            listing: self.listing,
            below: self.below,
            ..subject.unread(verdict, &self.depth, self.faults.into_problems())
        }
    }

    /// Adds warnings about the clocks; returns whether the backup may still be written.
    fn check_times(&mut self, subject: &Subject<'_>) -> bool {
        // If the clock of the backup's host is ahead of ours, it shows nothing about the storage's.
        let lag = prefix_of(subject.backup).zip(self.times.oldest).and_then(|(prefix, oldest)| clock_lag(prefix, oldest));
        let lag = lag.filter(|(began, _)| *began <= subject.now).map(|(_, lag)| lag);
        if let Some(lag) = lag {
            let text = format!(
                "its oldest object seems to be {} s older than the backup itself: the storage's clock is behind by at least that much, and \
                 its objects are that much younger",
                lag.as_secs()
            );
            self.warnings.push(Problem::general(ProblemCode::ClockBehind, text));
        }
        if let Some(newest) = self.times.newest.filter(|newest| *newest > subject.now + Duration::from_secs(60)) {
            let text = format!("its newest object was written at {newest}, which is in the future by this host's clock");
            self.warnings.push(Problem::general(ProblemCode::ClockAhead, text));
        }
        if self.times.unknown > 0 {
            let text = format!(
                "the storage does not report when {} of its objects were written, so nothing shows whether it is still being written",
                self.times.unknown
            );
            self.warnings.push(Problem::general(ProblemCode::NoTimes, text));
        }
        let age = |newest: Timestamp| subject.now.duration_since(newest).saturating_sub(lag.unwrap_or_default());
        self.rewritten || self.times.newest.is_some_and(|newest| subject.is_young(age(newest)))
    }
}

/// When the driver began by its clock, as the prefix has it, and by how much the storage's clock is behind: nothing was written before.
fn clock_lag(prefix: &str, oldest: Timestamp) -> Option<(Timestamp, SignedDuration)> {
    let began = names::Prefix::parse(prefix)?.timestamp;
    let began = Offset::UTC.to_timestamp(DateTime::strptime("%Y%m%d%H%M%S", began).ok()?).ok()?;
    let lag = began.duration_since(oldest);
    (lag > CLOCKS).then_some((began, lag))
}
