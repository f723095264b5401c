//! The rows of Cinder's tables, with the columns that a decision depends on.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::ColumnSet::{Juno, Liberty, Mitaka};
use super::Value;
use super::status::{AVAILABLE, RESTORING};
use super::time::parse;

/// The columns that a database has. Those that this program needs were added in three steps, the last one in Mitaka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnSet {
    /// Icehouse, Juno, Kilo: no chains, no temporary volumes, no `volumes.previous_status`.
    Juno,
    /// Liberty: `parent_id`, `temp_volume_id`, `temp_snapshot_id`, `num_dependent_backups`, `volumes.previous_status`.
    Liberty,
    /// Mitaka and later: `snapshot_id`, `restore_volume_id`.
    Mitaka,
}

/// The tables whose rows the program may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// `backups`; locked first.
    Backups,
    /// `volumes`; locked second.
    Volumes,
    /// `snapshots`; locked third.
    Snapshots,
    /// `backup_metadata`; locked fourth.
    BackupMetadata,
    /// `quota_usages`; locked after the rows of backups, as many units may need the same row.
    QuotaUsages,
    /// `reservations`; locked after `quota_usages`, as Cinder does.
    Reservations,
}

impl Table {
    /// The primary key of a row as a parameter: an integer in some tables.
    pub fn key(self, id: &str) -> Value {
        match self {
            Self::Backups | Self::Volumes | Self::Snapshots => Value::from(id),
            Self::BackupMetadata | Self::QuotaUsages | Self::Reservations => id.parse().map_or(Value::Null, Value::Integer),
        }
    }

    /// Whether a column counts: an operation adds to it or subtracts from it, so a change keeps its difference, and not its values.
    pub fn counts(self, column: &str) -> bool {
        self == Self::QuotaUsages && matches!(column, "in_use" | "reserved")
    }
}

/// The image of a row: what a guard compares, a plan carries and an audit record keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The table.
    pub table: Table,
    /// The primary key.
    pub id: String,
    /// The columns that a guard compares, by name.
    pub columns: BTreeMap<String, Value>,
}

impl Image {
    /// An image with those of the given columns that the database has. Each is given with the set that it was added in.
    fn new<const N: usize>(table: Table, id: &str, has: ColumnSet, columns: [(ColumnSet, &str, Value); N]) -> Self {
        let columns = columns.into_iter().filter(|(since, ..)| has >= *since).map(|(_, name, value)| (name.to_owned(), value));
        Self { table, id: id.to_owned(), columns: columns.collect() }
    }

    /// The image of a row in a list.
    pub fn of<'i>(images: &'i [Self], table: Table, id: &str) -> Option<&'i Self> {
        images.iter().find(|image| image.table == table && image.id == id)
    }

    /// Whether the row is deleted.
    pub fn is_deleted(&self) -> bool {
        *self.value("deleted") == Value::Integer(1)
    }

    /// A column's value; NULL if the image has no such column.
    pub fn value(&self, column: &str) -> &Value {
        self.columns.get(column).unwrap_or(&Value::Null)
    }

    /// The columns in which `now` differs from this image. Those that count are left out: see [`Table::counts`].
    pub fn moved(&self, now: &Self) -> Vec<Moved> {
        self.columns
            .iter()
            .filter(|(column, before)| now.value(column) != *before && !self.table.counts(column))
            .map(|(column, before)| Moved {
                table: self.table,
                id: self.id.clone(),
                column: column.clone(),
                planned: before.clone(),
                found: now.value(column).clone(),
            })
            .collect()
    }
}

/// A column that has changed since the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// The table.
    pub table: Table,
    /// The primary key.
    pub id: String,
    /// The column; `id` if the row no longer exists.
    pub column: String,
    /// The value in the plan.
    pub planned: Value,
    /// The value now.
    pub found: Value,
}

/// A row of `backups`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backup {
    /// Primary key.
    pub id: String,
    /// The status, NULL in broken rows.
    pub status: Option<String>,
    /// The host of the cinder-backup that works on it; NULL until the scheduler chose one.
    pub host: Option<String>,
    /// The zone in which Cinder searches a cinder-backup for it; NULL for any zone.
    pub availability_zone: Option<String>,
    /// Class (or, in old rows, module) of the driver; NULL until a driver starts.
    pub service: Option<String>,
    /// The volume that was backed up.
    pub volume_id: Option<String>,
    /// The user's name for it; hostile text.
    pub display_name: Option<String>,
    /// The owner.
    pub project_id: Option<String>,
    /// GiB; NULL in an unfinished import.
    pub size: Option<i64>,
    /// The directory, container, bucket or pool of its data; the driver sets it before it writes any data.
    pub container: Option<String>,
    /// The number of objects on the storage; chunked drivers set it last.
    pub object_count: Option<i64>,
    /// The driver's own data: a prefix, or JSON for Ceph.
    pub service_metadata: Option<String>,
    /// Why it is in error; at most 255 characters.
    pub fail_reason: Option<String>,
    /// Naive UTC.
    pub created_at: Option<String>,
    /// Naive UTC; NULL until the first update.
    pub updated_at: Option<String>,
    /// The backup that this one is an increment of (Liberty).
    pub parent_id: Option<String>,
    /// A volume made only for this backup (Liberty).
    pub temp_volume_id: Option<String>,
    /// A snapshot made only for this backup (Liberty).
    pub temp_snapshot_id: Option<String>,
    /// The counter: how many increments are based on it; NULL counts as 0 (Liberty).
    pub num_dependent_backups: Option<i64>,
    /// The snapshot that was backed up, if any (Mitaka).
    pub snapshot_id: Option<String>,
    /// The volume that it is, or was last, restored to (Mitaka).
    pub restore_volume_id: Option<String>,
    /// Only an undo reads a deleted row.
    pub deleted: bool,
    /// When it was deleted, naive UTC; NULL in a live row. The image of a deleted row has it, because it shows who deleted the row.
    pub deleted_at: Option<String>,
    /// Why the row cannot be changed: a guarded column has a value that a guard cannot compare or an undo cannot restore.
    pub unchangeable: Option<String>,
}

impl Backup {
    /// The bytes of the volume when the backup was made, from `size` in GiB; `None` if that is NULL or not the size of a volume. With a
    /// size of 0, a backup without data would be intact.
    pub fn volume_bytes(&self) -> Option<u64> {
        let size = self.size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0)?;
        size.checked_mul(1 << 30)
    }

    /// Whether it is a restore point, a backup that can be restored.
    pub fn is_restore_point(&self) -> bool {
        matches!(self.status.as_deref(), Some(AVAILABLE | RESTORING))
    }

    /// The guarded columns that the database has.
    pub fn image(&self, columns: ColumnSet) -> Image {
        let guarded = [
            (Juno, "deleted", Value::Integer(self.deleted.into())),
            (Juno, "status", self.status.clone().into()),
            (Juno, "host", self.host.clone().into()),
            (Juno, "availability_zone", self.availability_zone.clone().into()),
            (Juno, "service", self.service.clone().into()),
            (Juno, "volume_id", self.volume_id.clone().into()),
            (Juno, "size", self.size.into()),
            (Juno, "object_count", self.object_count.into()),
            (Juno, "container", self.container.clone().into()),
            (Juno, "service_metadata", self.service_metadata.clone().into()),
            (Juno, "fail_reason", self.fail_reason.clone().into()),
            (Juno, "updated_at", self.updated_at.clone().into()),
            (Liberty, "parent_id", self.parent_id.clone().into()),
            (Liberty, "temp_volume_id", self.temp_volume_id.clone().into()),
            (Liberty, "temp_snapshot_id", self.temp_snapshot_id.clone().into()),
            (Liberty, "num_dependent_backups", self.num_dependent_backups.into()),
            (Mitaka, "snapshot_id", self.snapshot_id.clone().into()),
            (Mitaka, "restore_volume_id", self.restore_volume_id.clone().into()),
        ];
        let mut image = Image::new(Table::Backups, &self.id, columns, guarded);
        if self.deleted {
            image.columns.insert("deleted_at".to_owned(), self.deleted_at.clone().into());
        }
        image
    }
}

/// A row of `volumes` that is not deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Volume {
    /// Primary key.
    pub id: String,
    /// The status.
    pub status: Option<String>,
    /// The status before the API set `backing-up` (Liberty).
    pub previous_status: Option<String>,
    /// `attached`, `detached`, … as the sum of its attachments.
    pub attach_status: Option<String>,
    /// GiB.
    pub size: Option<i64>,
    /// The user's name for it; hostile text.
    pub display_name: Option<String>,
    /// The owner.
    pub project_id: Option<String>,
    /// Naive UTC.
    pub created_at: Option<String>,
    /// Naive UTC.
    pub updated_at: Option<String>,
    /// Why the row cannot be changed: a guarded column has a value that a guard cannot compare or an undo cannot restore.
    pub unchangeable: Option<String>,
}

impl Volume {
    /// The guarded columns that the database has.
    pub fn image(&self, columns: ColumnSet) -> Image {
        let guarded = [
            (Juno, "deleted", Value::Integer(0)),
            (Juno, "status", self.status.clone().into()),
            (Juno, "attach_status", self.attach_status.clone().into()),
            (Juno, "updated_at", self.updated_at.clone().into()),
            (Liberty, "previous_status", self.previous_status.clone().into()),
        ];
        Image::new(Table::Volumes, &self.id, columns, guarded)
    }
}

/// A row of `snapshots` that is not deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Primary key.
    pub id: String,
    /// The status.
    pub status: Option<String>,
    /// The volume that it is a snapshot of.
    pub volume_id: Option<String>,
    /// The user's name for it; hostile text.
    pub display_name: Option<String>,
    /// The owner.
    pub project_id: Option<String>,
    /// Naive UTC.
    pub created_at: Option<String>,
    /// Naive UTC.
    pub updated_at: Option<String>,
    /// Why the row cannot be changed: a guarded column has a value that a guard cannot compare or an undo cannot restore.
    pub unchangeable: Option<String>,
}

impl Snapshot {
    /// The guarded columns.
    pub fn image(&self) -> Image {
        let guarded = [
            (Juno, "deleted", Value::Integer(0)),
            (Juno, "status", self.status.clone().into()),
            (Juno, "volume_id", self.volume_id.clone().into()),
            (Juno, "updated_at", self.updated_at.clone().into()),
        ];
        Image::new(Table::Snapshots, &self.id, Juno, guarded)
    }
}

/// A row of `backup_metadata`: a user's name and value for a backup. The table was added in Pike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackupMetadata {
    /// Primary key, an integer.
    pub id: String,
    /// The backup.
    pub backup_id: String,
    /// Only an undo reads a deleted row.
    pub deleted: bool,
}

impl BackupMetadata {
    /// The guarded columns.
    pub fn image(&self) -> Image {
        let guarded = [(Juno, "deleted", Value::Integer(self.deleted.into())), (Juno, "backup_id", Value::from(self.backup_id.as_str()))];
        Image::new(Table::BackupMetadata, &self.id, Juno, guarded)
    }
}

/// Where a backup is stored according to its row. Unlike other rows, this one may be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StorageRow {
    /// Primary key.
    pub id: String,
    /// Whether the row is deleted, as Cinder leaves it when the backup is gone.
    pub deleted: bool,
    /// When it was deleted, as the database spells it.
    pub deleted_at: Option<String>,
    /// See `domain::status`.
    pub status: Option<String>,
    /// The class path of the driver.
    pub service: Option<String>,
    /// Directory, container, bucket or pool.
    pub container: Option<String>,
    /// What the names of its objects begin with; in Ceph JSON with the base image.
    pub service_metadata: Option<String>,
    /// The volume.
    pub volume_id: Option<String>,
    /// The owner.
    pub project_id: Option<String>,
}

/// A row of `quota_usages` that is not deleted: what a project's quota counts of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuotaUsage {
    /// Primary key, an integer.
    pub id: String,
    /// The project.
    pub project_id: String,
    /// `backups`, or `backup_gigabytes`.
    pub resource: String,
    /// Rows, or GiB, of the project's live backups.
    pub in_use: i64,
    /// What operations have reserved beside it.
    pub reserved: i64,
}

impl QuotaUsage {
    /// The guarded columns.
    pub fn image(&self) -> Image {
        let guarded = [
            (Juno, "deleted", Value::Integer(0)),
            (Juno, "project_id", Value::from(self.project_id.as_str())),
            (Juno, "resource", Value::from(self.resource.as_str())),
            (Juno, "in_use", Value::Integer(self.in_use)),
            (Juno, "reserved", Value::Integer(self.reserved)),
        ];
        Image::new(Table::QuotaUsages, &self.id, Juno, guarded)
    }
}

/// A row of `reservations`: what an operation has reserved of a quota until it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reservation {
    /// Primary key, an integer.
    pub id: String,
    /// The project.
    pub project_id: String,
    /// The row of `quota_usages` that counts it.
    pub usage_id: Option<i64>,
    /// `backups`, or `backup_gigabytes`.
    pub resource: String,
    /// Rows, or GiB. Negative for a deletion, which `quota_usages.reserved` does not count.
    pub delta: i64,
    /// When it expires, naive UTC; NULL for never.
    pub expire: Option<String>,
    /// Only an undo reads a deleted row.
    pub deleted: bool,
}

impl Reservation {
    /// The guarded columns.
    pub fn image(&self) -> Image {
        let guarded = [
            (Juno, "deleted", Value::Integer(self.deleted.into())),
            (Juno, "project_id", Value::from(self.project_id.as_str())),
            (Juno, "usage_id", self.usage_id.into()),
            (Juno, "resource", Value::from(self.resource.as_str())),
            (Juno, "delta", Value::Integer(self.delta)),
            (Juno, "expire", self.expire.clone().into()),
        ];
        Image::new(Table::Reservations, &self.id, Juno, guarded)
    }

    /// Whether it has expired: its operation never ended.
    pub fn is_expired(&self, now: DateTime) -> bool {
        self.expire.as_deref().and_then(parse).is_some_and(|expire| expire < now)
    }
}

/// A row of `volume_attachment` that is not deleted. The table was added in Kilo.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    /// Primary key.
    pub id: String,
    /// The volume.
    pub volume_id: String,
    /// The server that uses it; NULL if a host uses it for itself.
    pub instance_uuid: Option<String>,
    /// The host that it is attached to.
    pub attached_host: Option<String>,
    /// `attached`, `detached`, `attaching`, `reserved`, …
    pub attach_status: Option<String>,
}

impl Attachment {
    /// Whether a backup host holds this one for itself, as cinder-backup does while it reads or writes the volume.
    pub fn is_of_backup_host(&self, host: Option<&str>) -> bool {
        self.instance_uuid.is_none() && host.is_some() && self.attached_host.as_deref() == host
    }

    /// Whether it counts: Cinder itself counts every row that is not `detached`, including those that are being attached or detached.
    pub fn is_live(&self) -> bool {
        self.attach_status.as_deref() != Some("detached")
    }
}
