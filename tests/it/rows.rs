//! Rows of Cinder's tables, with Cinder's values for the columns that a test does not set.

use std::collections::BTreeMap;

use cinder_backup_repair::db::Engine;
use uuid::Uuid;

/// One cell of a row to be inserted.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A boolean, in the engine's form.
    Boolean(bool),
    /// A text.
    Text(String),
    /// A time in UTC, in seconds before now by the database server's clock.
    Ago(i64),
    /// The id of the volume type in every new Cinder database.
    DefaultVolumeType,
}

/// A time in seconds before now by the database server's clock; negative is in the future.
pub fn ago(seconds: i64) -> Cell {
    Cell::Ago(seconds)
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Cell {
    /// The cell as an SQL expression for the engine.
    pub fn sql(&self, engine: Engine) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(value) if engine == Engine::Postgresql => value.to_string(),
            Self::Boolean(value) => i64::from(*value).to_string(),
            Self::Text(text) => quote(engine, text),
            Self::Ago(seconds) => match engine {
                // As SQLAlchemy writes it: with microseconds.
                Engine::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%S', 'now', '{} seconds') || '.000000'", -seconds),
                Engine::Postgresql => format!("timezone('UTC', now()) - interval '{seconds} seconds'"),
                Engine::Mysql | Engine::Mariadb => format!("UTC_TIMESTAMP() - INTERVAL {seconds} SECOND"),
            },
            Self::DefaultVolumeType => "(SELECT id FROM volume_types WHERE name = '__DEFAULT__')".to_owned(),
        }
    }
}

/// A text as a literal.
pub fn quote(engine: Engine, text: &str) -> String {
    match engine {
        Engine::Mysql | Engine::Mariadb => crate::servers::mariadb::quote(text),
        Engine::Sqlite | Engine::Postgresql => crate::servers::postgresql::quote(text),
    }
}

/// A row to be inserted. Columns that the database's column set does not have are left out, so that a scenario also fits older
/// releases.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The table.
    pub table: &'static str,
    /// The cells by column.
    pub cells: BTreeMap<&'static str, Cell>,
}

/// Setters named after columns.
macro_rules! columns {
    ($($column:ident),* $(,)?) => {
        $(
            /// Sets the column of this name.
            #[must_use]
            pub fn $column(self, value: impl Into<Cell>) -> Self {
                self.set(stringify!($column), value)
            }
        )*
    };
}

impl Row {
    fn new(table: &'static str, cells: &[(&'static str, Cell)]) -> Self {
        Self { table, cells: cells.iter().cloned().collect() }
    }

    /// Sets any column.
    #[must_use]
    pub fn set(mut self, column: &'static str, value: impl Into<Cell>) -> Self {
        self.cells.insert(column, value.into());
        self
    }

    /// The row's id.
    pub fn get_id(&self) -> String {
        match self.cells.get("id") {
            Some(Cell::Text(id)) => id.clone(),
            other => panic!("a row of {} without an id: {other:?}", self.table),
        }
    }

    /// Sets the time of creation and of the last update, in seconds before now.
    #[must_use]
    pub fn age(self, seconds: i64) -> Self {
        self.created_at(ago(seconds)).updated_at(ago(seconds))
    }

    /// Soft-deletes the row, as Cinder does.
    #[must_use]
    pub fn gone(self) -> Self {
        self.deleted(true).deleted_at(ago(60)).status("deleted")
    }

    columns!(
        id,
        created_at,
        updated_at,
        deleted_at,
        deleted,
        status,
        host,
        volume_id,
        snapshot_id,
        project_id,
        user_id,
        display_name,
        display_description,
        container,
        service,
        service_metadata,
        fail_reason,
        size,
        object_count,
        parent_id,
        temp_volume_id,
        temp_snapshot_id,
        num_dependent_backups,
        restore_volume_id,
        data_timestamp,
        encryption_key_id,
        availability_zone,
        previous_status,
        attach_status,
        migration_status,
        attached_host,
        instance_uuid,
        mountpoint,
        binary,
        disabled,
        volume_size,
        resource,
        in_use,
        reserved
    );
}

/// An available backup, two hours old, of a volume that does not have to exist.
pub fn backup() -> Row {
    let id = Uuid::new_v4().to_string();
    let name = format!("backup-{}", id.get(..8).unwrap_or_default());
    Row::new(
        "backups",
        &[
            ("display_name", name.into()),
            ("volume_id", Uuid::new_v4().to_string().into()),
            ("id", id.into()),
            ("user_id", "4b7fd1b1c5a94a6c8b51f1e1f2a7d0c3".into()),
            ("project_id", "9d3bb1e4ab3f4a8f9a3e6d0a6b8e7f52".into()),
            ("host", "ctl1".into()),
            ("availability_zone", "nova".into()),
            ("container", "volumebackups".into()),
            ("status", "available".into()),
            ("service", "cinder.backup.drivers.swift.SwiftBackupDriver".into()),
            ("size", 1.into()),
            ("object_count", 0.into()),
            ("num_dependent_backups", 0.into()),
            ("deleted", false.into()),
        ],
    )
    .age(7200)
    .data_timestamp(ago(7200))
}

/// An available volume, a day old.
pub fn volume() -> Row {
    let id = Uuid::new_v4().to_string();
    let name = format!("volume-{}", id.get(..8).unwrap_or_default());
    Row::new(
        "volumes",
        &[
            ("display_name", name.into()),
            ("id", id.into()),
            ("user_id", "4b7fd1b1c5a94a6c8b51f1e1f2a7d0c3".into()),
            ("project_id", "9d3bb1e4ab3f4a8f9a3e6d0a6b8e7f52".into()),
            ("host", "ctl1@lvm#lvm".into()),
            ("size", 1.into()),
            ("availability_zone", "nova".into()),
            ("status", "available".into()),
            ("attach_status", "detached".into()),
            ("volume_type_id", Cell::DefaultVolumeType),
            ("multiattach", false.into()),
            ("bootable", false.into()),
            ("use_quota", true.into()),
            ("shared_targets", false.into()),
            ("deleted", false.into()),
        ],
    )
    .age(86400)
}

/// An available snapshot, a day old. Its volume must exist (foreign key).
pub fn snapshot(volume: &str) -> Row {
    let id = Uuid::new_v4().to_string();
    Row::new(
        "snapshots",
        &[
            ("id", id.into()),
            ("volume_id", volume.into()),
            ("user_id", "4b7fd1b1c5a94a6c8b51f1e1f2a7d0c3".into()),
            ("project_id", "9d3bb1e4ab3f4a8f9a3e6d0a6b8e7f52".into()),
            ("status", "available".into()),
            ("progress", "100%".into()),
            ("volume_size", 1.into()),
            ("volume_type_id", Cell::DefaultVolumeType),
            ("use_quota", true.into()),
            ("deleted", false.into()),
        ],
    )
    .age(86400)
}

/// A live attachment of a volume to a server. The volume must exist (foreign key).
pub fn attachment(volume: &str) -> Row {
    Row::new(
        "volume_attachment",
        &[
            ("id", Uuid::new_v4().to_string().into()),
            ("volume_id", volume.into()),
            ("attached_host", "compute1".into()),
            ("instance_uuid", Uuid::new_v4().to_string().into()),
            ("mountpoint", "/dev/vdb".into()),
            ("attach_time", ago(80000)),
            ("attach_mode", "rw".into()),
            ("attach_status", "attached".into()),
            ("deleted", false.into()),
        ],
    )
    .age(80000)
}

/// A cinder-backup service whose last heartbeat was five seconds ago.
pub fn service(host: &str) -> Row {
    Row::new(
        "services",
        &[
            ("host", host.into()),
            ("binary", "cinder-backup".into()),
            ("topic", "cinder-backup".into()),
            ("report_count", 86_400.into()),
            ("disabled", false.into()),
            ("availability_zone", "nova".into()),
            ("uuid", Uuid::new_v4().to_string().into()),
            ("frozen", false.into()),
            ("replication_status", "not-capable".into()),
            ("deleted", false.into()),
            ("created_at", ago(864_000)),
            ("updated_at", ago(5)),
        ],
    )
}

/// A project's use of a resource: `backups` or `backup_gigabytes`.
pub fn quota_usage(resource: &str, in_use: i64) -> Row {
    Row::new(
        "quota_usages",
        &[
            ("project_id", "9d3bb1e4ab3f4a8f9a3e6d0a6b8e7f52".into()),
            ("resource", resource.into()),
            ("in_use", in_use.into()),
            ("reserved", 0.into()),
            ("deleted", false.into()),
            ("race_preventer", true.into()),
        ],
    )
    .age(86400)
}

/// A reservation of an operation that never ended, in a row of `quota_usages`; it has expired.
pub fn reservation(project: &str, usage: i64, resource: &str, delta: i64) -> Row {
    Row::new(
        "reservations",
        &[
            ("uuid", Uuid::new_v4().to_string().into()),
            ("usage_id", usage.into()),
            ("project_id", project.into()),
            ("resource", resource.into()),
            ("delta", delta.into()),
            ("expire", ago(600)),
            ("deleted", false.into()),
        ],
    )
    .created_at(ago(90_000))
}
