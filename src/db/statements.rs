//! Includes the files of `sql/` in the program.
//!
//! A statement has one file for each engine, under the same name. MariaDB and MySQL share `sql/mysql/`. A variant is another
//! file with another name; SQL is never assembled from pieces.

use super::Engine;

/// A statement in the SQL of each engine.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// The file's name without directory and extension.
    pub name: &'static str,
    sqlite: &'static str,
    mysql: &'static str,
    postgres: &'static str,
}

impl Statement {
    /// The SQL for an engine.
    pub fn text(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Sqlite => self.sqlite,
            Engine::Mysql | Engine::Mariadb => self.mysql,
            Engine::Postgresql => self.postgres,
        }
    }
}

/// A statement of one engine's sessions.
#[derive(Debug)]
pub struct SessionStatement {
    /// The file's name without directory and extension.
    pub name: &'static str,
    /// The SQL.
    pub text: &'static str,
}

/// Defines a constant for each statement of one engine's sessions.
macro_rules! session_statements {
    ($engine:literal: $($constant:ident = $name:literal;)*) => {
        $(
            const $constant: SessionStatement = SessionStatement {
                name: $name,
                text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/", $engine, "/", $name, ".sql")),
            };
        )*
        /// The statements that only this engine has.
        pub const SESSION_STATEMENTS: &[SessionStatement] = &[$($constant),*];
    };
}
pub(super) use session_statements;

macro_rules! statements {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $(
            $(#[$doc])*
            pub static $constant: Statement = Statement {
                name: $name,
                sqlite: include_str!(concat!("../../sql/sqlite/", $name, ".sql")),
                mysql: include_str!(concat!("../../sql/mysql/", $name, ".sql")),
                postgres: include_str!(concat!("../../sql/postgres/", $name, ".sql")),
            };
        )*
        /// Every statement that runs on all engines.
        pub static ALL: &[&Statement] = &[$(&$constant),*];
    };
}

statements! {
    /// Live attachments of one volume.
    ATTACHMENTS_BY_VOLUME = "attachments_by_volume";
    /// Live attachments of a list of volumes.
    ATTACHMENTS_BY_VOLUMES = "attachments_by_volumes";
    /// Live attachments to a host itself, as cinder-backup makes while it reads a volume.
    ATTACHMENTS_OF_HOSTS = "attachments_of_hosts";
    /// One live backup, without a lock, for dry runs and for reading the result (Icehouse, Juno and Kilo).
    BACKUP_BY_ID_JUNO = "backup_by_id_juno";
    /// One live backup, without a lock, for dry runs and for reading the result (Liberty).
    BACKUP_BY_ID_LIBERTY = "backup_by_id_liberty";
    /// One live backup, without a lock, for dry runs and for reading the result (Mitaka and later).
    BACKUP_BY_ID_MITAKA = "backup_by_id_mitaka";
    /// One live backup, locked until the transaction ends (Icehouse, Juno and Kilo).
    BACKUP_LOCK_JUNO = "backup_lock_juno";
    /// One live backup, locked until the transaction ends (Liberty).
    BACKUP_LOCK_LIBERTY = "backup_lock_liberty";
    /// One live backup, locked until the transaction ends (Mitaka and later).
    BACKUP_LOCK_MITAKA = "backup_lock_mitaka";
    /// Changes one backup, if the row is as planned (Icehouse, Juno and Kilo).
    BACKUP_UPDATE_JUNO = "backup_update_juno";
    /// Changes one backup, if the row is as planned (Liberty).
    BACKUP_UPDATE_LIBERTY = "backup_update_liberty";
    /// Changes one backup, if the row is as planned (Mitaka and later).
    BACKUP_UPDATE_MITAKA = "backup_update_mitaka";
    /// Live backups by a list of ids (Icehouse, Juno and Kilo).
    BACKUPS_BY_IDS_JUNO = "backups_by_ids_juno";
    /// Live backups by a list of ids (Liberty).
    BACKUPS_BY_IDS_LIBERTY = "backups_by_ids_liberty";
    /// Live backups by a list of ids (Mitaka and later).
    BACKUPS_BY_IDS_MITAKA = "backups_by_ids_mitaka";
    /// Every live backup, in one pass over the table (Icehouse, Juno and Kilo).
    BACKUPS_LIVE_JUNO = "backups_live_juno";
    /// Every live backup, in one pass over the table (Liberty and later).
    BACKUPS_LIVE_LIBERTY = "backups_live_liberty";
    /// The server's UTC clock, for the age of heartbeats; on SQLite this host's clock.
    CLOCK = "clock";
    /// For each table, the columns that a repair sets and this account may not set, with the table and the account as in a GRANT.
    MISSING_PRIVILEGES = "missing_privileges";
    /// The number of backups and their gigabytes that the quotas count, by project.
    QUOTA_USAGES_BACKUP = "quota_usages_backup";
    /// The revision of the schema (Wallaby and later).
    REVISION_ALEMBIC = "revision_alembic";
    /// The revision of the schema (before Wallaby).
    REVISION_MIGRATE = "revision_migrate";
    /// Which of the required tables and columns exist.
    SCHEMA_COLUMNS = "schema_columns";
    /// The last heartbeat of every cinder-backup service and the number of heartbeats, removed services included.
    SERVICES_BACKUP = "services_backup";
    /// The last heartbeat of every cinder-backup service, if the table has no report_count.
    SERVICES_BACKUP_UNCOUNTED = "services_backup_uncounted";
    /// One live snapshot, without a lock, for dry runs and for reading the result.
    SNAPSHOT_BY_ID = "snapshot_by_id";
    /// One live snapshot, locked until the transaction ends.
    SNAPSHOT_LOCK = "snapshot_lock";
    /// Children of a list of backups, live rows only (Liberty).
    BACKUPS_BY_PARENTS_LIBERTY = "backups_by_parents_liberty";
    /// Children of a list of backups, live rows only (Mitaka and later).
    BACKUPS_BY_PARENTS_MITAKA = "backups_by_parents_mitaka";
    /// Live backups that were last restored to one of a list of volumes (Mitaka and later).
    BACKUPS_BY_DESTINATIONS_MITAKA = "backups_by_destinations_mitaka";
    /// Live backups of a list of snapshots (Mitaka and later).
    BACKUPS_BY_SNAPSHOTS_MITAKA = "backups_by_snapshots_mitaka";
    /// Live backups of a list of volumes (Icehouse, Juno and Kilo).
    BACKUPS_BY_VOLUMES_JUNO = "backups_by_volumes_juno";
    /// Live backups of a list of volumes (Liberty).
    BACKUPS_BY_VOLUMES_LIBERTY = "backups_by_volumes_liberty";
    /// Live backups of a list of volumes (Mitaka and later).
    BACKUPS_BY_VOLUMES_MITAKA = "backups_by_volumes_mitaka";
    /// Changes the status of one snapshot if the row is as planned.
    SNAPSHOT_UPDATE = "snapshot_update";
    /// Live snapshots by a list of ids.
    SNAPSHOTS_BY_IDS = "snapshots_by_ids";
    /// Live snapshots that are being backed up.
    SNAPSHOTS_PENDING = "snapshots_pending";
    /// Seconds since the server started; none for a file.
    UPTIME = "uptime";
    /// One live volume, without a lock, for dry runs and for reading the result (before Liberty).
    VOLUME_BY_ID_JUNO = "volume_by_id_juno";
    /// One live volume, without a lock, for dry runs and for reading the result (Liberty and later).
    VOLUME_BY_ID_LIBERTY = "volume_by_id_liberty";
    /// One live volume, locked until the transaction ends (before Liberty).
    VOLUME_LOCK_JUNO = "volume_lock_juno";
    /// One live volume, locked until the transaction ends (Liberty and later).
    VOLUME_LOCK_LIBERTY = "volume_lock_liberty";
    /// Changes the status of one volume, if the row is as planned (before Liberty).
    VOLUME_UPDATE_JUNO = "volume_update_juno";
    /// Changes the status of one volume, if the row is as planned (Liberty and later).
    VOLUME_UPDATE_LIBERTY = "volume_update_liberty";
    /// Live volumes by a list of ids (before Liberty).
    VOLUMES_BY_IDS_JUNO = "volumes_by_ids_juno";
    /// Live volumes by a list of ids (Liberty and later).
    VOLUMES_BY_IDS_LIBERTY = "volumes_by_ids_liberty";
    /// Live volumes that are being backed up or restored, or whose status is NULL (before Liberty).
    VOLUMES_PENDING_JUNO = "volumes_pending_juno";
    /// Live volumes that are being backed up or restored, or whose status is NULL (Liberty and later).
    VOLUMES_PENDING_LIBERTY = "volumes_pending_liberty";
}
