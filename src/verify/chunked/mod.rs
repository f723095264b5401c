//! Backups of the chunked drivers: numbered objects, a list of them, and a digest of every block of the volume.
//!
//! [`inventory`] looks at names, sizes and side files, and [`confirm`] asks for what a listing leaves open; [`layout`] says which bytes of the volume come from which object;
//! [`planner`] gives each object the digests that prove it; [`reader`] reads the objects and compares.

mod confirm;
mod digest;
mod inventory;
mod layout;
mod planner;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use self::confirm::transfer_damage;
use self::inventory::{Inventory, WRONG_SHA256FILE};
use self::reader::{Member, Pass, ReadReport};
use super::fault::{Faults, Severity};
use super::{Assessment, Capacity, Subject, Watch};
use crate::domain::status::DELETING;
use crate::domain::time::stamp;
use crate::domain::{Amount, Backup, Below, CheckVerdict, Driver, Level, Listing, Problem, ProblemCode};
use crate::format::names;
use crate::storage::{ObjectStore, StorageError};

pub use self::digest::Digest;
pub(super) use self::inventory::{LARGE, MOST_LISTED, Times};
pub use self::reader::{ReadOptions, Share};

/// Clocks of hosts may be this far apart.
const CLOCKS: SignedDuration = SignedDuration::from_secs(60);

/// Bytes of memory that an object of a list takes in a restore: itself, the item that is made of it, and its ranges.
pub(super) const LISTED_OBJECT: u64 =
    (size_of::<inventory::Object>() + size_of::<planner::QueuedObject<'_>>() + 3 * size_of::<std::ops::Range<u64>>()) as u64;

/// How the data of a backup is read.
#[derive(Debug, Clone, Copy)]
pub struct ReadContext<'a> {
    /// With how much options.
    pub options: &'a ReadOptions,
    /// Who watches.
    pub watch: &'a Watch,
    /// What this check shares with others.
    pub capacity: &'a Capacity,
    /// The back end.
    pub driver: Driver,
}

/// A member of a chain with the store that its objects are in.
pub struct StoredBackup<'a> {
    /// The row.
    pub backup: &'a Backup,
    /// Bytes of the volume when it was made; `None` where the row does not say.
    pub volume_bytes: Option<u64>,
    /// Where its objects are.
    pub store: Result<Arc<dyn ObjectStore>, StorageError>,
}

/// What is known of a backup after its own objects were looked at, without its chain.
#[derive(Clone)]
pub struct Inspection {
    faults: Faults,
    warnings: Vec<Problem>,
    inventory: Option<Arc<Inventory>>,
    count: Option<i64>,
    begun: bool,
    absent: bool,
    times: Times,
    listing: Option<Listing>,
    below: Option<Below>,
    /// What its sha256file tells of (see [`Inventory::told`]), and whether that fits what is known of the backup alone.
    told: Option<((u64, u64), bool)>,
    /// Bytes of the volume when it was read, as [`Inventory::volume_bytes`] has it.
    volume_bytes: Option<u64>,
    /// An object was written again while it was being checked.
    rewritten: bool,
    /// When the driver began by its clock, and how far the storage's is behind that at least, if it is.
    behind: Option<(Timestamp, SignedDuration)>,
    objects: Amount,
    bytes: Amount,
    depth: String,
}

impl Inspection {
    /// Looks at names, sizes and side files. `large` is called before much memory is taken, and may wait.
    pub fn quick(link: &StoredBackup<'_>, thorough: bool, large: &mut dyn FnMut()) -> Self {
        let mut own = Self {
            faults: Faults::default(),
            warnings: Vec::new(),
            inventory: None,
            count: None,
            begun: false,
            absent: false,
            times: Times::default(),
            listing: None,
            below: None,
            told: None,
            volume_bytes: None,
            rewritten: false,
            behind: None,
            objects: Amount::default(),
            bytes: Amount::default(),
            depth: String::new(),
        };
        let backup = link.backup;
        let Some(prefix) = prefix_of(backup) else {
            own.absent = true;
            let text = "the driver never began: backups.container or service_metadata is not set, so nothing was written";
            own.faults.add(Severity::Incomplete, Problem::general(ProblemCode::NeverBegun, text));
            return own;
        };
        let store = match &link.store {
            Ok(store) => store,
            Err(error) => {
                own.faults.add_error(None, error);
                return own;
            }
        };
        let mut take = |own: &mut Self| {
            (own.faults, own.warnings) = Default::default();
            Inventory::take(store.as_ref(), link, prefix, thorough, large, &mut own.faults, &mut own.warnings)
        };
        let mut found = take(&mut own);
        // Damage is judged by the metadata, which may itself have been damaged on the network.
        let name = names::metadata(prefix);
        if own.faults.has_damage() && transfer_damage(store.as_ref(), &name, found.metadata_md5).is_some() {
            found = take(&mut own);
            if let Some(problem) = transfer_damage(store.as_ref(), &name, found.metadata_md5) {
                own.faults = Faults::default();
                own.faults.add(Severity::Unverifiable, problem);
                (found.entries, found.known) = (Vec::new(), false);
            }
        }
        own.begun = found.begun;
        own.absent = found.absent;
        own.times = found.times;
        own.listing = found.listed.then_some(Listing { objects: found.present, bytes: found.present_bytes });
        own.behind = found.times.oldest.and_then(|oldest| behind(prefix, oldest));
        own.objects = Amount {
            checked: found.data_objects,
            expected: found.entries.len().max(usize::try_from(found.data_objects).unwrap_or(0)) as u64,
        };
        own.bytes = Amount { checked: 0, expected: found.entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.length)) };
        own.depth = found.depth.clone();
        (own.told, own.volume_bytes) = (found.told.map(|told| (told, found.block_size.is_some())), found.volume_bytes);
        own.count = i64::try_from(found.entries.len()).ok();
        let reached = found.entries.iter().map(inventory::Object::end).max().unwrap_or(0);
        if !link.volume_bytes.is_some_and(|volume_bytes| layout::is_beyond(reached, volume_bytes)) {
            own.inventory = Some(Arc::new(found));
        }
        own
    }

    /// How many objects it has, side files not counted.
    pub fn objects(&self) -> u64 {
        self.objects.expected
    }

    /// The same without the list of objects, which is the large part of it.
    pub fn without_list(&self) -> Self {
        Self { inventory: None, ..self.clone() }
    }

    /// Bytes of memory that its list takes in a restore.
    pub(super) fn list_bytes(&self) -> u64 {
        self.inventory.as_ref().map_or(0, |inventory| (inventory.entries.len() as u64).saturating_mul(LISTED_OBJECT))
    }

    /// Whether its sha256file can be one of its chain: Cinder makes an increment only with blocks of the same size as those of its
    /// parent, and never of a larger device. That of a full backup is held against its own data.
    fn compare_sha256files(&mut self, tip: &StoredBackup<'_>, bottom: &StoredBackup<'_>, found: &Self) {
        let (Some(((block, digests), true)), Some((wanted, true))) = (self.told, found.told) else { return };
        if bottom.backup.parent_id.is_some() || (block == wanted.0 && digests <= wanted.1) {
            return;
        }
        let text = format!(
            "its sha256file has {digests} digests of {block} bytes, and that of backup {}, the full one that it rests on, {} of {}: \
             {WRONG_SHA256FILE}",
            bottom.backup.id, wanted.1, wanted.0
        );
        let name = names::sha256file(prefix_of(tip.backup).unwrap_or_default());
        self.faults.add_local(Severity::Corrupt, Problem::of(name, ProblemCode::Sha256fileWrong, text));
        if let Some(inventory) = &mut self.inventory {
            let inventory = Arc::make_mut(inventory);
            (inventory.block_size, inventory.digests, inventory.volume_bytes) = (None, 0, found.volume_bytes);
        }
    }

    /// Adds what came of reading the data.
    fn take_in(&mut self, outcome: ReadReport) {
        self.depth = outcome.depth;
        (self.bytes.checked, self.objects.checked) = (outcome.bytes, outcome.objects);
        self.faults.extend(outcome.faults);
        self.warnings.extend(outcome.warnings);
        self.rewritten |= !outcome.rewritten.is_empty();
        outcome.rewritten.into_iter().for_each(|modified| self.times.add(modified));
    }

    fn verdict(&self) -> CheckVerdict {
        if self.absent { CheckVerdict::Missing } else { self.faults.verdict() }
    }
}

/// No more than this many damaged ancestors are named with each backup, the nearest ones: in a chain they would grow with the
/// square of its length, and each has a result of its own.
const MOST_PARENTS_NAMED: usize = 20;

/// Checks one backup whose chain is given, this backup first. `own` looks up (or makes) what is known of a member at a level,
/// so that a parent which many backups share is read once.
pub fn check(
    subject: &Subject<'_>,
    chain: &[StoredBackup<'_>],
    reading: ReadContext<'_>,
    own: &mut dyn FnMut(&StoredBackup<'_>, Level) -> Inspection,
) -> Assessment {
    let Some((tip, parents)) = chain.split_first() else {
        return empty(subject.level);
    };
    let inner = if subject.level == Level::Deep { Level::Deep } else { Level::Quick };
    let mut this = own(tip, inner);
    let mut members: Vec<Inspection> = Vec::new();
    let mut damaged = 0;
    let mut unnamed: BTreeMap<Severity, usize> = BTreeMap::new();
    let restore = subject.level == Level::Restore;
    let mut held = this.list_bytes();
    for parent in parents {
        let found = own(parent, inner);
        let verdict = if found.absent { CheckVerdict::Missing } else { found.faults.inherited_verdict() };
        if verdict == CheckVerdict::Intact && found.verdict() != verdict {
            let first = found.faults.first().map(|problem| problem.text.as_str()).unwrap_or_default();
            let text = format!(
                "what is wrong with backup {}, which it rests on, does not matter to a restore, which reads that one's data alone: {first}",
                parent.backup.id
            );
            this.warnings.push(Problem::general(ProblemCode::ParentSha256file, text));
        } else if verdict != CheckVerdict::Intact {
            let severity = if verdict == CheckVerdict::Unverifiable { Severity::Unverifiable } else { Severity::Corrupt };
            damaged += 1;
            if damaged > MOST_PARENTS_NAMED {
                *unnamed.entry(severity).or_default() += 1;
            } else {
                let first = found.faults.first_inherited().map(|problem| problem.text.as_str()).unwrap_or_default();
                let (what, code) = match severity == Severity::Unverifiable && found.faults.has_inherited_read_error() {
                    true => ("unreadable", ProblemCode::ParentUnreadable),
                    false => (verdict.name(), ProblemCode::ParentDamaged),
                };
                let text = format!("backup {}, which it rests on, is {what}: {first}", parent.backup.id);
                this.faults.add(severity, Problem::general(code, text));
            }
        }
        // Only a restore goes through the lists of all members, and a chain can be long.
        held = held.saturating_add(found.list_bytes());
        this.rewritten |= found.rewritten;
        members.push(if restore && held <= reading.options.memory / 2 { found } else { found.without_list() });
    }
    this.below = below(parents, &members);
    if let (Some(bottom), Some(found)) = (parents.last(), members.last()) {
        this.compare_sha256files(tip, bottom, found);
    }
    for (severity, more) in unnamed {
        let what = if severity == Severity::Unverifiable { "could not be verified" } else { "are damaged" };
        let text = format!("{more} more of the backups that it rests on {what}; `check --all` lists each with what is wrong with it");
        this.faults.add(severity, Problem::general(ProblemCode::ParentDamaged, text));
    }
    lineage(subject, tip, parents, &mut this);
    if restore && held > reading.options.memory / 2 {
        let text = format!(
            "the lists of objects of all {} backups of its chain take {held} bytes, more than half of the memory: give more --memory",
            chain.len()
        );
        this.faults.add(Severity::Unverifiable, Problem::general(ProblemCode::TooLarge, text));
    } else if restore && !this.faults.has_inherited_damage() && this.inventory.is_some() {
        let mut list = Vec::new();
        for (link, found) in chain.iter().zip(std::iter::once(&this).chain(&members)) {
            // Of a member whose list could not be read nobody knows what it holds.
            if let (Ok(store), Some(inventory)) = (&link.store, found.inventory.as_ref().filter(|inventory| inventory.known)) {
                list.push(Member { store: Arc::clone(store), inventory: Arc::clone(inventory) });
            }
        }
        if list.len() == chain.len() {
            // A restore reads the whole chain.
            let entries = || list.iter().flat_map(|member| &member.inventory.entries);
            this.bytes.expected = entries().fold(0, |sum: u64, entry| sum.saturating_add(entry.length));
            this.objects.expected = entries().count() as u64;
            let volume_bytes = this.inventory.as_ref().and_then(|inventory| inventory.volume_bytes);
            let outcome = Pass { members: &list, reading, restore: true, full: parents.is_empty(), volume_bytes }.run();
            this.take_in(outcome);
        }
    }
    finish(subject, this)
}

/// Reads the objects of one backup, whose names, sizes and side files were found good, and compares them with its own digests.
pub fn deepen(link: &StoredBackup<'_>, own: &mut Inspection, reading: ReadContext<'_>) {
    let (Ok(store), Some(inventory)) = (&link.store, &own.inventory) else { return };
    // Without side files there is nothing to compare, and "all 0 objects" would say too much.
    if inventory.entries.is_empty() && inventory.block_size.is_none() {
        return;
    }
    let members = [Member { store: Arc::clone(store), inventory: Arc::clone(inventory) }];
    let outcome =
        Pass { members: &members, reading, restore: false, full: link.backup.parent_id.is_none(), volume_bytes: inventory.volume_bytes }
            .run();
    own.take_in(outcome);
}

/// The beginning of the names of a backup's objects; `None` where its driver never began, so that it has no admission to look at.
pub(super) fn prefix_of(backup: &Backup) -> Option<&str> {
    let set = |text: &'_ Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if set(&backup.container) && set(&backup.service_metadata) { backup.service_metadata.as_deref() } else { None }
}

/// What the listings of the parents showed, if all of them could be listed.
fn below(parents: &[StoredBackup<'_>], members: &[Inspection]) -> Option<Below> {
    let (mut listing, mut newest) = (Listing::default(), None::<Timestamp>);
    for (_, own) in parents.iter().zip(members).filter(|(parent, _)| prefix_of(parent.backup).is_some()) {
        let shown = own.listing?;
        listing.objects += shown.objects;
        listing.bytes = listing.bytes.saturating_add(shown.bytes);
        newest = newest.max(own.times.known_newest());
    }
    (!parents.is_empty()).then(|| Below { listing, newest_object_at: newest.map(stamp) })
}

/// Whether the chain goes down to a full backup, and will still do so tomorrow.
fn lineage(subject: &Subject<'_>, tip: &StoredBackup<'_>, parents: &[StoredBackup<'_>], this: &mut Inspection) {
    // cinder-backup goes on with the deletion when it starts again, whatever of the data is there today. Cinder lets it happen:
    // an increment counts for its parent only when it is done.
    for parent in parents.iter().filter(|parent| parent.backup.status.as_deref() == Some(DELETING)) {
        let text = format!("backup {}, which it rests on, is being deleted: put that right first", parent.backup.id);
        this.faults.add(Severity::Unverifiable, Problem::general(ProblemCode::ParentDeleting, text));
    }
    if let Some(problem) = subject.other_volume() {
        this.faults.add(Severity::Corrupt, problem);
    }
    let last = parents.last().unwrap_or(tip);
    if let Some(parent) = &last.backup.parent_id {
        let text = if *parent == tip.backup.id || subject.ancestors.iter().any(|ancestor| ancestor.id == *parent) {
            format!("its chain of parents comes back to backup {parent}, so it has no full backup at its end")
        } else {
            format!("backup {parent}, which it rests on, does not exist any more")
        };
        this.faults.add(Severity::Incomplete, Problem::general(ProblemCode::ParentMissing, text));
    }
}

/// When the driver began by its clock, as the prefix has it, and how far the storage's is behind: nothing was written before.
fn behind(prefix: &str, oldest: Timestamp) -> Option<(Timestamp, SignedDuration)> {
    let began = names::Prefix::parse(prefix)?.timestamp;
    let began = Offset::UTC.to_timestamp(DateTime::strptime("%Y%m%d%H%M%S", began).ok()?).ok()?;
    let behind = began.duration_since(oldest);
    (behind > CLOCKS).then_some((began, behind))
}

fn finish(subject: &Subject<'_>, own: Inspection) -> Assessment {
    let verdict = own.verdict();
    let settle = SignedDuration::try_from(subject.settle).unwrap_or(SignedDuration::MAX);
    let mut warnings = own.warnings;
    // A clock that says when the backup began and is ahead of ours tells nothing about the storage's.
    let behind = own.behind.filter(|(began, _)| *began <= subject.now).map(|(_, behind)| behind);
    if let Some(behind) = behind {
        let text = format!(
            "its oldest object seems to be {} s older than the backup itself: the storage's clock is behind by that much at least, and its objects are so much younger",
            behind.as_secs()
        );
        warnings.push(Problem::general(ProblemCode::ClockBehind, text));
    }
    let slow = behind.unwrap_or_default();
    let busy = own.rewritten || own.times.newest.is_some_and(|newest| subject.now.duration_since(newest).saturating_sub(slow) < settle);
    if let Some(newest) = own.times.newest.filter(|newest| *newest > subject.now + Duration::from_secs(60)) {
        let text = format!("its newest object was written at {newest}, which is in the future by this host's clock");
        warnings.push(Problem::general(ProblemCode::ClockAhead, text));
    }
    if own.times.unknown > 0 {
        let text = format!(
            "the storage does not tell when {} of its objects were written, so that nothing shows whether it is still being written",
            own.times.unknown
        );
        warnings.push(Problem::general(ProblemCode::NoTimes, text));
    }
    let reached = match verdict {
        CheckVerdict::Intact => Some(subject.level),
        // A restore that has no digest of the volume compares every object of the chain with its own.
        CheckVerdict::Unverifiable if own.faults.are_all(ProblemCode::NoSha256file) => Some(Level::Deep),
        _ => None,
    };
    let object_count = own.count.filter(|_| reached.is_some());
    Assessment {
        verdict,
        reached,
        depth: own.depth,
        busy,
        begun: own.begun,
        objects: own.objects,
        bytes: own.bytes,
        problems: own.faults.into_problems(),
        warnings,
        object_count,
        // The chunked drivers set it before they write anything.
        service_metadata: None,
        // One without a time may be newer than all others.
        newest_object_at: own.times.known_newest(),
        listing: own.listing,
        below: own.below,
    }
}

/// Nothing known.
pub fn empty(level: Level) -> Assessment {
    Assessment {
        verdict: CheckVerdict::Unverifiable,
        reached: None,
        depth: level.name().to_owned(),
        busy: false,
        begun: false,
        objects: Amount::default(),
        bytes: Amount::default(),
        problems: Vec::new(),
        warnings: Vec::new(),
        object_count: None,
        service_metadata: None,
        newest_object_at: None,
        listing: None,
        below: None,
    }
}
