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

    /// The statement in the SQL of an engine.
    pub(super) fn of(&self, engine: Engine) -> EngineStatement {
        EngineStatement { name: self.name, text: self.text(engine) }
    }
}

/// A statement in the SQL of one engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineStatement {
    /// The file's name without directory and extension.
    pub name: &'static str,
    /// The SQL.
    pub text: &'static str,
}

/// Defines a constant for each statement of one engine's sessions.
macro_rules! session_statements {
    ($engine:literal: $($constant:ident = $name:literal;)*) => {
        $(
            const $constant: EngineStatement = EngineStatement {
                name: $name,
                text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/", $engine, "/", $name, ".sql")),
            };
        )*
        /// The statements that only this engine has.
        pub const SESSION_STATEMENTS: &[EngineStatement] = &[$($constant),*];
    };
}
pub(super) use session_statements;

macro_rules! statements {
    ($($constant:ident = $name:literal;)*) => {
        $(
            #[doc = concat!("`sql/*/", $name, ".sql`, whose first lines say what the statement does.")]
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
    ATTACHMENTS_BY_VOLUME = "attachments_by_volume";
    ATTACHMENTS_BY_VOLUMES = "attachments_by_volumes";
    ATTACHMENTS_OF_HOSTS = "attachments_of_hosts";
    BACKUP_BY_ID_JUNO = "backup_by_id_juno";
    BACKUP_BY_ID_LIBERTY = "backup_by_id_liberty";
    BACKUP_BY_ID_MITAKA = "backup_by_id_mitaka";
    BACKUP_KEYS_BY_IDS = "backup_keys_by_ids";
    BACKUP_LOCK_JUNO = "backup_lock_juno";
    BACKUP_LOCK_LIBERTY = "backup_lock_liberty";
    BACKUP_LOCK_MITAKA = "backup_lock_mitaka";
    BACKUP_METADATA_BY_BACKUPS = "backup_metadata_by_backups";
    BACKUP_METADATA_BY_ID = "backup_metadata_by_id";
    BACKUP_METADATA_LOCK = "backup_metadata_lock";
    BACKUP_METADATA_UPDATE = "backup_metadata_update";
    BACKUP_UPDATE_DELETED_MITAKA = "backup_update_deleted_mitaka";
    BACKUP_UPDATE_HOST_JUNO = "backup_update_host_juno";
    BACKUP_UPDATE_HOST_LIBERTY = "backup_update_host_liberty";
    BACKUP_UPDATE_HOST_MITAKA = "backup_update_host_mitaka";
    BACKUP_UPDATE_JUNO = "backup_update_juno";
    BACKUP_UPDATE_LIBERTY = "backup_update_liberty";
    BACKUP_UPDATE_MITAKA = "backup_update_mitaka";
    BACKUPS_AVAILABLE = "backups_available";
    BACKUPS_BY_IDS_JUNO = "backups_by_ids_juno";
    BACKUPS_BY_IDS_LIBERTY = "backups_by_ids_liberty";
    BACKUPS_BY_IDS_MITAKA = "backups_by_ids_mitaka";
    BACKUPS_LIVE_JUNO = "backups_live_juno";
    BACKUPS_LIVE_LIBERTY = "backups_live_liberty";
    BACKUPS_REFERENCES_JUNO = "backups_references_juno";
    BACKUPS_REFERENCES_LIBERTY = "backups_references_liberty";
    BACKUPS_REFERENCES_MITAKA = "backups_references_mitaka";
    BACKUPS_STORED = "backups_stored";
    BACKUPS_STORED_BY_IDS = "backups_stored_by_ids";
    CLOCK = "clock";
    DURABILITY = "durability";
    MISSING_PRIVILEGES = "missing_privileges";
    QUOTA_USAGE_BY_ID = "quota_usage_by_id";
    QUOTA_USAGE_LOCK = "quota_usage_lock";
    QUOTA_USAGE_UPDATE = "quota_usage_update";
    LOAD = "load";
    MESSAGES_BACKUP = "messages_backup";
    QUOTA_USAGES_BACKUP = "quota_usages_backup";
    QUOTA_USAGES_BY_PROJECTS = "quota_usages_by_projects";
    REPLICA_LAG = "replica_lag";
    RESERVATION_BY_ID = "reservation_by_id";
    RESERVATION_LOCK = "reservation_lock";
    RESERVATION_UPDATE = "reservation_update";
    RESERVATIONS_BY_PROJECTS = "reservations_by_projects";
    RESERVATIONS_LIVE_BY_PROJECTS = "reservations_live_by_projects";
    REVISION_ALEMBIC = "revision_alembic";
    REVISION_MIGRATE = "revision_migrate";
    SCHEMA_COLUMNS = "schema_columns";
    SERVICES_BACKUP = "services_backup";
    SERVICES_BACKUP_UNCOUNTED = "services_backup_uncounted";
    SNAPSHOT_BY_ID = "snapshot_by_id";
    SNAPSHOT_LOCK = "snapshot_lock";
    SNAPSHOT_UPDATE = "snapshot_update";
    SNAPSHOTS_BY_IDS = "snapshots_by_ids";
    SNAPSHOTS_PENDING = "snapshots_pending";
    TRIGGERS = "triggers";
    UPTIME = "uptime";
    USER_METADATA_BY_BACKUPS = "user_metadata_by_backups";
    VOLUME_BY_ID_JUNO = "volume_by_id_juno";
    VOLUME_BY_ID_LIBERTY = "volume_by_id_liberty";
    VOLUME_LOCK_JUNO = "volume_lock_juno";
    VOLUME_LOCK_LIBERTY = "volume_lock_liberty";
    VOLUME_UPDATE_JUNO = "volume_update_juno";
    VOLUME_UPDATE_LIBERTY = "volume_update_liberty";
    VOLUMES_BY_IDS_JUNO = "volumes_by_ids_juno";
    VOLUMES_BY_IDS_LIBERTY = "volumes_by_ids_liberty";
    VOLUMES_PENDING_JUNO = "volumes_pending_juno";
    VOLUMES_PENDING_LIBERTY = "volumes_pending_liberty";
}
