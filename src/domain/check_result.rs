//! The result of a check: what the storage holds of a backup.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use jiff::Timestamp;
use jiff::civil::DateTime;

use super::shards::ObjectPart;
use super::status::{CREATING, DELETING, ERROR, ERROR_DELETING, RESTORING};
use super::time::{human, is_same_moment, moment, rfc3339, seconds_between, stamp};
use super::{Backup, Code, ColumnSet, Driver, Image, ProblemCode, Restorable, RestoreReason, Table};

/// How far apart the clocks of hosts may be, in seconds.
const CLOCKS: i64 = 300;

/// Check results by the ids of their backups. A result may be large, so a plan shares it.
pub type Checks = BTreeMap<String, Arc<CheckResult>>;

/// How deeply a backup is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Names, sizes and side files; no data is read.
    #[default]
    Quick,
    /// Every object is read, decompressed and compared with its length and digest.
    Deep,
    /// Every block of the volume, as a restore would write it, is compared with the digest taken when the volume was read.
    Restore,
}

/// What the storage holds of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    /// All of it, as far as the level reads.
    Intact,
    /// Part of it is not there.
    Incomplete,
    /// All of it is there, and part of it is wrong.
    Corrupt,
    /// Nothing of it is there.
    Missing,
    /// The check could not be finished, or this program does not know the driver.
    #[default]
    Unverifiable,
}

impl CheckVerdict {
    /// Whether a restore would fail or give wrong bytes.
    pub fn is_damage(self) -> bool {
        matches!(self, Self::Incomplete | Self::Corrupt | Self::Missing)
    }
}

/// A problem or a warning about one object or the whole backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The object's name on the storage; `None` if it is about the whole backup. Hostile text.
    pub object: Option<String>,
    /// A stable code such as `object-missing`.
    pub code: Code<ProblemCode>,
    /// A sentence fragment. May hold names from the storage, which are hostile text.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.iter().try_for_each(|object| write!(f, "{object}: "))?;
        f.write_str(&self.text)
    }
}

impl Problem {
    /// A problem with one object.
    pub fn of(object: impl Into<String>, code: ProblemCode, text: impl Into<String>) -> Self {
        Self { object: Some(object.into()), code: code.into(), text: text.into() }
    }

    /// Whether it reports a read error for the data of the backup or of an ancestor.
    pub fn is_unreadable(&self) -> bool {
        matches!(self.code.known(), Some(ProblemCode::Unreadable | ProblemCode::ParentUnreadable))
    }

    /// A problem with the whole backup.
    pub fn general(code: ProblemCode, text: impl Into<String>) -> Self {
        Self { object: None, code: code.into(), text: text.into() }
    }
}

/// How much was checked, and how much there is to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// Checked.
    pub checked: u64,
    /// To be checked.
    pub expected: u64,
}

/// The totals of a backup's listing, which show later whether something was added or removed. Ceph has no listing; its parts are counted
/// instead of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// Objects of any kind; in Ceph the image, this backup's snapshots of it, and the metadata object.
    pub objects: u64,
    /// Their bytes on the storage; in Ceph those in the extents of the image.
    pub bytes: u64,
}

/// The listings of all ancestors of a backup, summed up: with one for each ancestor, a document would grow with the square of the chain's
/// length.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AncestorListings {
    /// The totals.
    pub listing: Listing,
    /// When the newest object of them was written, RFC 3339, by the storage's clock.
    pub newest_object_at: Option<String>,
}

impl AncestorListings {
    /// Adds the listing of an ancestor, and when its newest object was written.
    pub fn add(&mut self, listing: Listing, newest: Option<Timestamp>) {
        self.listing.objects += listing.objects;
        self.listing.bytes = self.listing.bytes.saturating_add(listing.bytes);
        self.newest_object_at = self.newest_object_at.take().max(newest.map(stamp));
    }
}

/// The result of a precheck, which opens no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrecheckListing {
    /// As in [`Listing`].
    pub objects: u64,
    /// As in [`Listing`], or why they could not be counted.
    pub bytes: Result<u64, String>,
    /// When the newest object was written, RFC 3339, by the storage's clock.
    pub newest_object_at: Option<String>,
    /// Somebody has the image open (Ceph).
    pub watched: bool,
}

/// The result of a storage recheck, just before a backup is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Nothing changed since the check.
    Unchanged,
    /// What changed since the check, in words.
    Changed(String),
    /// Why it is not known.
    Unknown(String),
}

/// What a check found out about one backup: an entry of `results` in a check document, and of `checks` in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    /// The backup.
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    /// Its driver; `None` if this program does not know it.
    pub driver: Option<Driver>,
    /// `backups.service` as it was.
    pub service: Option<String>,
    /// Where its data is: a URL or a path without secrets; for Swift, the container and the address of Keystone.
    pub location: Option<String>,
    /// The level that was asked for.
    pub level: Level,
    /// What was done, in words: which digests were compared, how much was read.
    pub depth: String,
    /// Only part of the data was read, which can show damage but cannot show that there is none.
    pub partial: bool,
    /// What was found at `level`.
    pub verdict: CheckVerdict,
    /// The part of its objects that was read, if its chain is split over several shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<ObjectPart>,
    /// The deepest level at which it is known to be intact; `None` if there is none, and in documents of earlier versions. It is below
    /// `level` if the storage keeps nothing to compare the data with (Ceph), and if only a sample was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level_reached: Option<Level>,
    /// The newest object is younger than `--settle`, or somebody has the image open: it is being written.
    pub busy: bool,
    /// The storage has some object of it.
    pub begun: bool,
    /// Objects of this backup (at level restore: of its chain) without side files; 0 for Ceph.
    pub objects: Amount,
    /// Bytes of the volume that these objects hold.
    pub bytes: Amount,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// What does not change the verdict, but should be known.
    pub warnings: Vec<Problem>,
    /// Ids of the backups that a restore reads, this one first.
    pub chain: Vec<String>,
    /// The value for `backups.object_count` once it is available; `None` if the driver leaves it NULL.
    pub object_count: Option<i64>,
    /// The value for `backups.service_metadata` once it is available, if the driver sets that last (Ceph).
    pub service_metadata: Option<String>,
    /// When the newest object was written, RFC 3339, by the storage's clock; `None` if the time of some object is not known.
    pub newest_object_at: Option<String>,
    /// The totals of the listing; `None` if it was not listed, and in documents of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<Listing>,
    /// The totals of its ancestors' listings; `None` if it has no ancestors or can be restored without them (Ceph), if one of them could
    /// not be listed, and in documents of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<AncestorListings>,
    /// With `--to deleted`: another available backup that was found in the same place, so that this is the right storage. `None` if it was
    /// not looked for or not found, and in documents of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<String>,
    /// When the check ended, RFC 3339.
    pub checked_at: String,
    /// The host that it ran on; `None` in documents of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether Cinder would restore it, by the services when the rows were read; `None` in a check for a repair, and in documents of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restorable: Option<Restorable>,
    /// Why not, or why that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restorable_reasons: Vec<RestoreReason>,
    /// The backup's row as it was checked, and those of its ancestors, the parent first. A check document has the latter once for all
    /// results.
    pub rows: Vec<Image>,
}

impl CheckResult {
    /// The deepest level at which it is known to be intact. Versions without `level_reached` reported every level for Ceph, whatever they
    /// had compared. For those, the lowest level counts.
    pub fn reached(&self) -> Option<Level> {
        let by_verdict = || {
            let claims_too_much = self.partial || self.driver == Some(Driver::Ceph);
            (self.verdict == CheckVerdict::Intact).then_some(if claims_too_much { Level::Quick } else { self.level })
        };
        self.level_reached.or_else(by_verdict)
    }

    /// Whether it could not be verified because of read errors. A restore would fail today.
    pub fn is_unreadable(&self) -> bool {
        self.verdict == CheckVerdict::Unverifiable && self.problems.iter().any(Problem::is_unreadable)
    }

    /// Whether it could not be verified because the storage did not answer. Another check may.
    pub fn is_unreachable(&self) -> bool {
        let of_storage =
            |problem: &Problem| matches!(problem.code.known(), Some(ProblemCode::StorageUnreachable | ProblemCode::StorageAway));
        self.verdict == CheckVerdict::Unverifiable && self.problems.iter().any(of_storage)
    }

    /// Whether all of it was checked, and is intact at the level that was reached.
    pub fn is_whole(&self) -> bool {
        self.reached().is_some() && !self.partial && !self.busy
    }

    /// Whether the data was read, and is intact.
    pub fn is_read(&self) -> bool {
        self.reached() >= Some(Level::Deep)
    }

    /// Whether a backup in this status may become available: it is intact, and its data was read. With `accept_quick`, names and sizes
    /// are enough for one in `creating`, but not for one in `error`, which cinder-backup itself reported as failed.
    pub fn earns_available(&self, status: Option<&str>, accept_quick: bool) -> bool {
        let accepted = accept_quick && status == Some(CREATING);
        matches!(status, Some(CREATING | ERROR)) && self.is_whole() && (self.is_read() || accepted)
    }

    /// Whether another check at this level would find out nothing new: this one finished over all of the data, and nothing was being
    /// written.
    pub fn settles(&self, level: Level) -> bool {
        let is_deep_enough = if self.verdict.is_damage() { self.level >= level } else { self.reached() >= Some(level) };
        is_deep_enough && !self.partial && !self.busy
    }

    /// Whether nothing of it was found, which proves something only with a witness. A backup that never began needs none. In a missing
    /// container there can be none; a missing directory has one elsewhere in the same mount.
    pub fn needs_witness(&self) -> bool {
        let is_directory = self.driver.is_some_and(Driver::is_directory);
        self.verdict == CheckVerdict::Missing
            && !self.has(ProblemCode::NeverBegun)
            && (is_directory || !self.has(ProblemCode::ContainerMissing))
    }

    /// Whether it has a problem with this code.
    pub fn has(&self, code: ProblemCode) -> bool {
        self.problems.iter().any(|problem| problem.code == code)
    }

    /// Whether a backup may become deleted: the storage itself said that nothing of it is there, and it is the right storage.
    pub fn earns_deleted(&self) -> bool {
        let is_proven = if self.needs_witness() { self.witness.is_some() } else { self.has(ProblemCode::NeverBegun) };
        self.verdict == CheckVerdict::Missing && !self.busy && !self.begun && !self.partial && is_proven
    }

    /// Whether the driver has nothing left to write, although its service is up: what it writes last is there and intact, and nothing is
    /// younger than `--settle`. Objects without times cannot show that, and neither can an image that somebody has open or locked.
    pub fn is_finished(&self) -> bool {
        let in_use =
            self.warnings.iter().any(|warning| matches!(warning.code.known(), Some(ProblemCode::ImageOpen | ProblemCode::StaleLock)));
        self.is_whole() && self.newest_object_at.is_some() && !in_use
    }

    /// Marks it as busy if its newest object was younger than `settle` seconds when it was checked. The check may have run with a shorter
    /// settle time than the decision.
    pub fn hold_to(&mut self, settle: u64) {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        let newest = self.newest_object_at.as_deref().and_then(time);
        let young = newest.zip(time(&self.checked_at)).is_some_and(|(newest, checked)| {
            i64::try_from(settle).map_or(true, |settle| checked.duration_since(newest).as_secs() < settle)
        });
        // The document does not say by how much.
        let clock_behind = self.begun && self.warnings.iter().any(|warning| warning.code == ProblemCode::ClockBehind);
        self.busy |= young || clock_behind;
    }

    /// Says why it does not apply to this row any more, or to its ancestors (the parent first); `None` if it applies.
    pub fn outdated(&self, backup: &Backup, ancestors: &[Arc<Backup>], columns: ColumnSet) -> Option<String> {
        let mut rows = self.rows.iter();
        let Some(seen) = rows.next().filter(|row| row.id == backup.id && row.table == Table::Backups) else {
            return Some("the check does not name the row that it is about".to_owned());
        };
        let now = backup.image(columns);
        if let Some(moved) = seen.moved(&now).into_iter().next() {
            let column = moved.column;
            return Some(format!("the row has changed since it was checked ({column} differs)"));
        }
        if now.columns.keys().any(|column| !seen.columns.contains_key(column)) {
            return Some("the check is about a row with fewer columns".to_owned());
        }
        let mut ancestors = ancestors.iter();
        for seen in rows {
            let Some(ancestor) = ancestors.next().filter(|ancestor| ancestor.id == seen.id) else {
                return Some(format!("backup {}, which it is based on, was deleted since it was checked", seen.id));
            };
            let now = ancestor.image(columns);
            // Damage stays damage.
            let lost = (self.verdict == CheckVerdict::Intact && may_have_lost_data(seen, &now)).then_some("status");
            if let Some(column) = changed_ancestor(seen, &now).or(lost) {
                let id = &seen.id;
                return Some(format!("the row of backup {id}, which it is based on, has changed since it was checked ({column} differs)"));
            }
        }
        ancestors.next().map(|ancestor| format!("it is based on backup {}, which did not exist when it was checked", ancestor.id))
    }

    /// Whether another check is about the same data: the same row, with ancestors that have the same data.
    pub fn is_of_same_data(&self, other: &Self) -> bool {
        let same = |(number, (one, two)): (usize, (&Image, &Image))| match number {
            0 => one == two,
            _ => one.id == two.id && changed_data(one, two).is_none(),
        };
        self.rows.len() == other.rows.len() && self.rows.iter().zip(&other.rows).enumerate().all(same)
    }

    /// Whether another check listed the same objects, so that nothing was written in between.
    pub fn is_of_same_listing(&self, other: &Self) -> bool {
        self.listing.is_some()
            && self.listing == other.listing
            && is_same_moment(self.newest_object_at.as_deref(), other.newest_object_at.as_deref())
    }

    /// Compares a precheck with this check. If either lacks a number, the answer is that it is not known.
    pub fn compared_with(&self, now: &PrecheckListing) -> Comparison {
        if now.watched && !self.busy {
            return Comparison::Changed("a client has its image open".to_owned());
        }
        let what = if self.driver == Some(Driver::Ceph) { "parts (image, snapshots, metadata object)" } else { "objects" };
        let then = (self.listing, self.newest_object_at.as_deref());
        if let Some(moved) = moved_between(what, then, (now.objects, now.bytes.as_ref().ok(), now.newest_object_at.as_deref())) {
            return Comparison::Changed(moved);
        }
        match (self.listing, &now.bytes) {
            (None, _) => Comparison::Unknown("its check has no listing to compare with".to_owned()),
            (Some(_), Err(why)) => Comparison::Unknown(why.clone()),
            (Some(_), Ok(_)) => Comparison::Unchanged,
        }
    }

    /// Compares the listings of its ancestors with those of this check.
    pub fn compared_with_ancestors(&self, now: &AncestorListings) -> Comparison {
        let Some(then) = &self.below else {
            return Comparison::Unknown("its check has no listing of the backups that it is based on to compare with".to_owned());
        };
        let seen = (now.listing.objects, Some(&now.listing.bytes), now.newest_object_at.as_deref());
        match moved_between("objects", (Some(then.listing), then.newest_object_at.as_deref()), seen) {
            Some(moved) => Comparison::Changed(format!("in the backups that it is based on: {moved}")),
            None => Comparison::Unchanged,
        }
    }

    /// Says why it does not count any more: it is older than `max_age` seconds, or its age is not known. `now` is naive UTC.
    pub fn expired(&self, now: DateTime, max_age: i64) -> Option<String> {
        let Ok(at) = self.checked_at.parse::<Timestamp>() else {
            return Some(format!("its check has the time {:?}, which cannot be read; check it again", self.checked_at));
        };
        let age = seconds_between(at.to_zoned(jiff::tz::TimeZone::UTC).datetime(), now);
        // Clocks of hosts differ a little. A check from further in the future proves nothing.
        if age < -CLOCKS {
            let whose = self
                .host
                .as_ref()
                .map_or_else(|| "the host that checked it".to_owned(), |host| format!("host {host}, where it was checked,"));
            return Some(format!(
                "the clock of {whose} is {} ahead of the database's (checked at {at}, and it is {} now), so the age of the check is not known; \
                 correct that clock and check it again",
                human(-age),
                rfc3339(now)
            ));
        }
        (age > max_age).then(|| format!("its check at {at} is older than {} (--evidence-max-age); check it again", human(max_age)))
    }
}

/// Says what changed between a listing with its newest time and a later one, whose bytes may not be known.
fn moved_between(what: &str, then: (Option<Listing>, Option<&str>), now: (u64, Option<&u64>, Option<&str>)) -> Option<String> {
    let (listing, was, newest) = (then.0, then.1.and_then(moment), now.2.and_then(moment));
    if newest > was {
        let written = newest.map(|at| at.to_string()).unwrap_or_default();
        return Some(match was {
            Some(was) => format!("an object was written at {written}, and the newest one before was written at {was}"),
            None => format!("an object was written at {written}, and there was none before"),
        });
    }
    let (objects, bytes) = (now.0, now.1);
    if let Some(then) = listing.filter(|then| then.objects != objects || bytes.is_some_and(|bytes| *bytes != then.bytes)) {
        let of_bytes = bytes.map_or_else(String::new, |bytes| format!(" of {bytes}"));
        return Some(format!("{} {what} of {} bytes then, {objects}{of_bytes} now", then.objects, then.bytes));
    }
    (newest < was).then(|| "its newest object no longer exists".to_owned())
}

/// The beginning of `fail_reason` for a backup that this program sets to `error`.
pub(super) const LEFT_IN: &str = "cinder-backup-repair: left in ";

/// The first column that names another data location in the row of an ancestor. Its counter, times and status may change.
fn changed_data(seen: &Image, now: &Image) -> Option<&'static str> {
    ["container", "service", "service_metadata", "parent_id", "size"].into_iter().find(|column| seen.value(column) != now.value(column))
}

/// The first column whose change in the row of an ancestor matters. A deletion removes the data.
fn changed_ancestor(seen: &Image, now: &Image) -> Option<&'static str> {
    let changed = changed_data(seen, now);
    let is_going = matches!(now.value("status").as_text(), Some(DELETING | ERROR_DELETING)) && now.value("status") != seen.value("status");
    changed.or(is_going.then_some("status"))
}

/// Whether a deletion may have removed part of the data since. One that fails half-way leaves its backup in `error`, and so does a repair
/// of it. A repair of another operation leaves the data as it is, but only a `fail_reason` that is new shows that: Cinder does not clear
/// it when a backup becomes available, and neither does a reset of the state.
///
/// Source: `cinder/backup/manager.py` (`delete_backup`, `reset_status`).
fn may_have_lost_data(seen: &Image, now: &Image) -> bool {
    let differs = |column: &str| seen.value(column) != now.value(column);
    let repaired = now.value("fail_reason").as_text().and_then(|reason| reason.strip_prefix(LEFT_IN));
    let keeps_data = differs("fail_reason") && repaired.is_some_and(|was| was.starts_with(CREATING) || was.starts_with(RESTORING));
    now.value("status").as_text() == Some(ERROR) && (differs("status") || differs("fail_reason")) && !keeps_data
}

impl Backup {
    /// The row of an image of `backups`. Columns that no guard compares are empty.
    pub fn of_image(image: &Image) -> Self {
        let text = |column: &str| image.value(column).as_text().map(str::to_owned);
        let integer = |column: &str| image.value(column).as_integer();
        Self {
            id: image.id.clone(),
            status: text("status"),
            host: text("host"),
            availability_zone: text("availability_zone"),
            service: text("service"),
            volume_id: text("volume_id"),
            size: integer("size"),
            object_count: integer("object_count"),
            container: text("container"),
            service_metadata: text("service_metadata"),
            fail_reason: text("fail_reason"),
            updated_at: text("updated_at"),
            parent_id: text("parent_id"),
            temp_volume_id: text("temp_volume_id"),
            temp_snapshot_id: text("temp_snapshot_id"),
            num_dependent_backups: integer("num_dependent_backups"),
            snapshot_id: text("snapshot_id"),
            restore_volume_id: text("restore_volume_id"),
            deleted: image.is_deleted(),
            ..Self::default()
        }
    }
}
