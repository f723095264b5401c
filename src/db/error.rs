//! Database errors, in kinds that decide what the caller does next.

use thiserror::Error;

/// What a failure means for the caller; the exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DbErrorKind {
    /// No connection could be made, or it failed.
    Connection,
    /// A statement took too long, or its answer did not arrive.
    Timeout,
    /// A lock was not granted in time, SQLite's SQLITE_BUSY included.
    LockTimeout,
    /// The database made this transaction fail: deadlock, serialization failure, certification conflict.
    Conflict,
    /// The login failed.
    Authentication,
    /// The account lacks a privilege.
    Privilege,
    /// The server refuses writes: a replica, a standby, `read_only`, outside the primary component.
    NotPrimary,
    /// The database does not exist, is not Cinder's, or lacks what is needed.
    Schema,
    /// The settings are unusable, for example an unreadable CA file.
    Configuration,
    /// The session is not in the required state.
    SessionState,
    /// Any other error of the server.
    Other,
}

/// A database error.
#[derive(Debug, Clone, Error)]
#[error("{message}")]
pub struct DbError {
    /// What it means for the caller.
    pub kind: DbErrorKind,
    /// A sentence fragment: what failed, where, and what to do. Holds no secret.
    pub message: String,
    /// The engine's own code (`1213`, `40001`, `DatabaseBusy`), if it gave one.
    pub code: Option<String>,
    /// The connection must not be used any more.
    pub fatal: bool,
}

impl DbError {
    /// An error that leaves the connection usable.
    pub fn new(kind: DbErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, fatal: false }
    }

    /// An error after which the connection must not be used.
    pub fn fatal(kind: DbErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, message).into_fatal()
    }

    /// This error, with the connection unusable.
    #[must_use]
    pub fn into_fatal(self) -> Self {
        Self { fatal: true, ..self }
    }

    /// The answer to a statement after a failed one.
    pub(super) fn failed_transaction() -> Self {
        Self::new(DbErrorKind::Other, "a statement of the transaction failed, so it must be rolled back first")
    }

    /// This error with the engine's code.
    #[must_use]
    pub fn with_code(self, code: impl Into<String>) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    /// Whether the session must not be used any more.
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// Whether the file system refused access. Only SQLite, which has no accounts, reports this.
    pub fn is_of_a_file(&self) -> bool {
        matches!(self.code.as_deref(), Some("ReadOnly" | "PermissionDenied" | "CannotOpen"))
    }

    /// Whether it may succeed to roll back, read again and decide again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, DbErrorKind::Conflict | DbErrorKind::LockTimeout)
    }
}

/// What a statement does, in words that fit after "cannot". Messages do not show the statement's name.
pub fn task(name: &str) -> String {
    let (first, rest) = name.split_once('_').unwrap_or((name, ""));
    match (first, rest) {
        ("session", "begin_read" | "begin_write") => "begin a transaction".to_owned(),
        ("session", "commit") => "commit".to_owned(),
        ("session", "rollback") => "roll back".to_owned(),
        ("session", _) => "set up the session".to_owned(),
        ("revision" | "schema", _) => "read the schema".to_owned(),
        ("clock" | "uptime", _) => format!("read the server's {first}"),
        ("quota", "usage_update") => "update the quota".to_owned(),
        ("quota", "usage_lock") => "lock the quota".to_owned(),
        ("quota", _) => "read quotas".to_owned(),
        (row, _) if rest.starts_with("update") => format!("update the {row}"),
        (row, _) if rest.starts_with("lock") => format!("lock the {row}"),
        (row, _) if row.ends_with('s') => format!("read {row}"),
        (row, _) => format!("read the {row}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::statements::ALL;

    #[test]
    fn every_statement_is_described_without_its_name() {
        for (name, words) in [
            ("backup_update_mitaka", "update the backup"),
            ("volume_lock_liberty", "lock the volume"),
            ("snapshot_by_id", "read the snapshot"),
            ("quota_usage_update", "update the quota"),
            ("reservation_update", "update the reservation"),
            ("backups_live_juno", "read backups"),
            ("services_backup", "read services"),
            ("session_begin_write", "begin a transaction"),
            ("session_state_mariadb", "set up the session"),
            ("clock", "read the server's clock"),
        ] {
            assert_eq!(task(name), words);
        }
        for statement in ALL {
            assert!(!task(statement.name).contains('_'), "{}", task(statement.name));
        }
    }
}
