//! Orphans: what is on a storage without a live backup, and live backups with nothing there. Pure.
//!
//! [`Grouper`] divides a listing in the order of names into the objects of one backup each. The row of the backup is read after its objects
//! were listed, and [`judge`] decides. So a row that was added meanwhile is seen. If a row was added even later, its objects are younger than
//! the settle time.

use std::collections::BTreeMap;

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::code::codes;
use crate::domain::id::is_uuid;
use crate::domain::record_stream::StreamKind;
use crate::domain::shards::Shard;
use crate::domain::time::{moment, parse, seconds_between, stamp};
use crate::domain::{Code, DatabaseInfo, Driver, StorageRow};
use crate::format::names::{ObjectRole, Prefix, split};
use crate::storage::ObjectInfo;

codes! {
    /// Why something is an orphan.
    OrphanKind {
    Half = "half",
        "The database has no row of the backup, and the object that the driver writes last is missing: the backup was never finished.",
        "Remove the objects once you are sure that no other cloud uses this storage.";
    NoRow = "no-row",
        "The database has no row of the backup, but the backup on the storage is finished. The row may be lost, or in another cloud.",
        "Find out which cloud it belongs to. If it is needed, import it: `rescue` makes the record for `cinder backup-import`. Otherwise remove it.";
    NothingStored = "nothing-stored",
        "A live row names a place on the storage, but nothing of the backup is there. The backup cannot be restored.",
        "Look for the objects elsewhere. If they are gone, delete the backup with `openstack volume backup delete`.";
    RowDeleted = "row-deleted",
        "The row of the backup is deleted, but objects of it are still on the storage.",
        "Remove the objects, unless a live increment is based on the backup.";
    UnknownName = "unknown-name",
        "Cinder does not use these names for objects of backups. The objects are counted together.",
        "Check them by hand. No command is written for them.";
    }
}

/// Writes a time in the precision of all documents.
#[expect(clippy::ref_option, reason = "serde requires it")]
fn write_time<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(stamp).serialize(serializer)
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.as_deref().and_then(moment))
}

/// The number, bytes and times of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ObjectTotals {
    /// Their number.
    pub objects: u64,
    /// Their bytes, as stored.
    pub bytes: u64,
    /// When the oldest was written, by the storage's clock; `None` if that is not known.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    #[schemars(with = "Option<String>")]
    pub oldest_at: Option<Timestamp>,
    /// When the newest was written.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    #[schemars(with = "Option<String>")]
    pub newest_at: Option<Timestamp>,
    /// How many have no time. They count as young.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untimed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl ObjectTotals {
    /// One object that was written at a time.
    pub fn one(time: Option<Timestamp>, bytes: u64) -> Self {
        Self { objects: 1, bytes, oldest_at: time, newest_at: time, untimed: u64::from(time.is_none()) }
    }

    /// One object of a listing.
    pub fn of(object: &ObjectInfo) -> Self {
        Self::one(object.modified, object.size)
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.objects = self.objects.saturating_add(other.objects);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.oldest_at = self.oldest_at.into_iter().chain(other.oldest_at).min();
        self.newest_at = self.newest_at.into_iter().chain(other.newest_at).max();
        self.untimed = self.untimed.saturating_add(other.untimed);
    }

    /// Whether all of them were written before a time.
    pub fn are_before(&self, time: Timestamp) -> bool {
        self.untimed == 0 && self.newest_at.is_some_and(|newest| newest < time)
    }
}

/// The objects of one backup in one place, as a listing shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectGroup {
    /// The directory, for drivers that keep containers as directories.
    pub folder: Option<String>,
    /// What their names begin with, without the directory.
    pub prefix: String,
    /// The backup in the names.
    pub backup_id: String,
    /// The volume in the names.
    pub volume_id: String,
    /// Whether it has the object that the driver writes last.
    pub is_finished: bool,
    /// Number, bytes and times of the objects.
    pub totals: ObjectTotals,
}

impl ObjectGroup {
    /// The group of one object; `None` if Cinder does not use its name.
    pub fn of(object: &ObjectInfo, is_directory: bool) -> Option<Self> {
        let (folder, name) = match object.name.rsplit_once('/').filter(|_| is_directory) {
            Some((folder, name)) => (Some(folder.to_owned()), name),
            None => (None, object.name.as_str()),
        };
        let (prefix, role) = split(name)?;
        let Prefix { volume_id, backup_id, .. } = Prefix::parse(prefix).filter(|parsed| parsed.az.is_none() == is_directory)?;
        let (prefix, is_finished) = (prefix.to_owned(), role == ObjectRole::Metadata);
        // Engines compare other spellings of an id in different ways, and so might not find the row.
        is_uuid(&backup_id).then(|| Self { folder, prefix, backup_id, volume_id, is_finished, totals: ObjectTotals::of(object) })
    }

    fn is_with(&self, other: &Self) -> bool {
        self.folder == other.folder && self.prefix == other.prefix
    }
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// Objects of a backup.
    Group(ObjectGroup),
    /// An object with a name that Cinder does not use.
    Unknown(ObjectInfo),
}

/// Divides a listing in the order of names into groups. Holds one group at a time.
#[derive(Debug, Default)]
pub struct Grouper {
    is_directory: bool,
    group: Option<ObjectGroup>,
}

impl Grouper {
    /// `is_directory`: whether the names of the listing are paths of files.
    pub fn new(is_directory: bool) -> Self {
        Self { is_directory, group: None }
    }

    /// Adds the next object. Returns the group that is complete, or the object if its name is unknown.
    pub fn add(&mut self, object: ObjectInfo) -> Option<Listed> {
        let Some(next) = ObjectGroup::of(&object, self.is_directory) else { return Some(Listed::Unknown(object)) };
        match &mut self.group {
            Some(group) if group.is_with(&next) => {
                group.is_finished |= next.is_finished;
                group.totals.add(&next.totals);
                None
            }
            _ => self.group.replace(next).map(Listed::Group),
        }
    }

    /// Whether all objects that were added have been returned.
    pub fn is_empty(&self) -> bool {
        self.group.is_none()
    }

    /// The last group.
    pub fn end(&mut self) -> Option<Listed> {
        self.group.take().map(Listed::Group)
    }
}

/// The settle time before a walk, by the clock of the storage and by that of the database.
#[derive(Debug, Clone, Copy)]
pub struct QuietSince {
    /// Objects that were written after this do not count.
    pub storage: Timestamp,
    /// Objects of backups that were deleted after this do not count.
    pub database: jiff::civil::DateTime,
}

impl QuietSince {
    /// The settle time before now, by the clocks of this machine and of the database. Objects have to be old by both: a clock that is ahead
    /// does not make them old.
    pub fn new(machine: Timestamp, database: jiff::civil::DateTime, settle: SignedDuration) -> Self {
        let storage = Offset::UTC.to_timestamp(database).map_or(machine, |database| database.min(machine));
        let storage = storage.checked_sub(settle).unwrap_or(Timestamp::MIN);
        Self { storage, database: database.checked_sub(settle).unwrap_or(jiff::civil::DateTime::MIN) }
    }
}

/// Says why objects are orphans, by the row of their backup; `None` if they are not, or not yet.
pub fn judge(totals: &ObjectTotals, is_finished: bool, row: Option<&StorageRow>, quiet: QuietSince) -> Option<OrphanKind> {
    if !totals.are_before(quiet.storage) {
        return None;
    }
    match row {
        Some(row) if !row.deleted => None,
        // Cinder may have removed the objects since they were listed.
        Some(row) => {
            let deleted_at = row.deleted_at.as_deref().and_then(parse);
            deleted_at.is_none_or(|deleted_at| seconds_between(deleted_at, quiet.database) > 0).then_some(OrphanKind::RowDeleted)
        }
        None if is_finished => Some(OrphanKind::NoRow),
        None => Some(OrphanKind::Half),
    }
}

/// An orphan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Orphan {
    /// Why it is one.
    pub kind: Code<OrphanKind>,
    /// The driver of the storage.
    pub driver: Driver,
    /// The directory, container, bucket or pool that was walked.
    pub location: String,
    /// The directory, container, bucket or pool of the objects, or of the row. Hostile text.
    pub container: Option<String>,
    /// The prefix of the objects; in Ceph the name of the image, snapshot or object; one of several unknown names. Hostile text.
    pub name: Option<String>,
    /// The backup in the names or of the row.
    pub backup_id: Option<String>,
    /// Its volume.
    pub volume_id: Option<String>,
    /// The owner, if a row names it.
    pub project_id: Option<String>,
    /// The status of the row.
    pub status: Option<String>,
    /// Number, bytes and times of the objects.
    #[serde(flatten)]
    pub totals: ObjectTotals,
}

impl Orphan {
    /// An orphan without a name and a backup. Its volume, project and status are those of the row.
    pub fn new(kind: OrphanKind, (driver, location): (Driver, &str), row: Option<&StorageRow>, totals: ObjectTotals) -> Self {
        let [container, name, backup_id] = [const { None }; 3];
        let of_row = |column: fn(&StorageRow) -> &Option<String>| row.and_then(|row| column(row).clone());
        Self {
            kind: kind.into(),
            driver,
            location: location.to_owned(),
            container,
            name,
            backup_id,
            volume_id: of_row(|row| &row.volume_id),
            project_id: of_row(|row| &row.project_id),
            status: of_row(|row| &row.status),
            totals,
        }
    }
}

/// The orphans of one kind that a project has on a back end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrphanCount {
    /// The driver of the storage.
    pub driver: Driver,
    /// The directory, container, bucket or pool that was walked.
    pub location: String,
    /// The project; `None` if no row names it.
    pub project_id: Option<String>,
    /// Why they are orphans.
    pub kind: Code<OrphanKind>,
    /// How many backups they belong to; 0 for unknown names.
    pub backups: u64,
    /// Number, bytes and times of the objects.
    #[serde(flatten)]
    pub totals: ObjectTotals,
}

/// Driver, location, project and kind.
type CountKey = (Driver, String, Option<String>, String);

/// Counts orphans by back end, project and kind.
#[derive(Debug, Default)]
pub struct OrphanSummary(BTreeMap<CountKey, OrphanCount>);

impl OrphanSummary {
    /// Counts one more.
    pub fn add(&mut self, orphan: &Orphan) {
        let (kind, driver, project_id) = (orphan.kind.clone(), orphan.driver, orphan.project_id.clone());
        let key = (driver, orphan.location.clone(), project_id.clone(), kind.as_str().to_owned());
        let (location, totals) = (orphan.location.clone(), ObjectTotals::default());
        let count = self.0.entry(key).or_insert(OrphanCount { driver, location, project_id, kind, backups: 0, totals });
        count.backups += u64::from(orphan.kind != OrphanKind::UnknownName);
        count.totals.add(&orphan.totals);
    }

    /// The counts, ordered by back end and project.
    pub fn counts(&self) -> Vec<OrphanCount> {
        self.0.values().cloned().collect()
    }
}

/// The stream `cinder-backup-repair/orphan-records`.
#[derive(Debug)]
pub struct OrphanRecords;

impl StreamKind for OrphanRecords {
    const SCHEMA: &'static str = "cinder-backup-repair/orphan-records";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = "a stream of `check --orphans --format jsonl`";
    const INSTEAD: &'static str = "run `check --orphans` again";
    type Head = OrphanHead;
    type Record = OrphanRecord;
    type End = OrphanEnd;
}

/// What a walk compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrphanHead {
    /// The program and its version.
    pub program: String,
    /// The database.
    pub database: DatabaseInfo,
    /// When the walk began, RFC 3339, by the database's clock.
    pub taken_at: String,
    /// Younger objects do not count.
    pub settle_seconds: u64,
    /// Which part of the names was walked, if hosts share the walk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrphanRecord {
    /// An orphan.
    Orphan(Box<Orphan>),
    /// How far a storage was walked.
    Position(Position),
}

/// How far a storage was walked. A walk that was stopped continues from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Position {
    /// The driver of the storage.
    pub driver: Driver,
    /// The directory, container, bucket or pool that is walked.
    pub location: String,
    /// The last name that was walked; `None` at the end.
    pub after: Option<String>,
    /// The live backups that were seen since the last position.
    pub seen: Vec<String>,
}

/// How the walk ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrphanEnd {
    /// What stopped it; `None` at its own end.
    pub interrupted: Option<String>,
    /// The storages that could not be walked to the end, and why.
    pub unread: Vec<String>,
    /// The orphans by back end, project and kind.
    pub summary: Vec<OrphanCount>,
}

/// A part of the names of a storage, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRange {
    /// Names after this one.
    pub after: String,
    /// Names before this one; `None` for all.
    pub before: Option<String>,
}

impl NameRange {
    /// The names of a shard: an equal part of the ids in the names, with all other names in between.
    pub fn of(shard: Option<Shard>, driver: Driver) -> Self {
        let Some(shard) = shard else { return Self { after: String::new(), before: None } };
        let bound = |number: u32| {
            let digits = format!("{:04x}", u64::from(number) * 0x1_0000 / u64::from(shard.of()));
            // `<id[0:2]>/<id[2:4]>/<id>` (posix.py, `update_container_name`), `volume-<volume>.…` and `volume_<volume>/…`.
            match driver {
                Driver::Ceph => format!("volume-{digits}"),
                Driver::Swift | Driver::S3 | Driver::Gcs => format!("volume_{digits}"),
                Driver::Posix | Driver::Nfs | Driver::GlusterFs => {
                    digits.split_at_checked(2).map_or_else(String::new, |(one, two)| format!("{one}/{two}"))
                }
            }
        };
        let after = if shard.number() == 1 { String::new() } else { bound(shard.number() - 1) };
        Self { after, before: (shard.number() < shard.of()).then(|| bound(shard.number())) }
    }

    /// Whether a name is in it.
    pub fn has(&self, name: &str) -> bool {
        (self.after.is_empty() || name > self.after.as_str()) && self.before.as_deref().is_none_or(|before| name < before)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
