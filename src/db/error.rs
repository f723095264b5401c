//! What can go wrong between the program and the database, in kinds that decide what to do next.

use thiserror::Error;

/// What a failure means for the caller; the exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DbErrorKind {
    /// No connection could be made, or it broke.
    Connection,
    /// The server or the program gave up waiting for the connection or a statement.
    Timeout,
    /// A lock was not had in time.
    LockTimeout,
    /// The database chose this transaction to fail: deadlock, serialization failure, certification conflict, SQLITE_BUSY.
    Conflict,
    /// Log in failed.
    Authentication,
    /// The account lacks a privilege.
    Privilege,
    /// The server takes no writes: a replica, a standby, `read_only`, outside the primary component.
    NotPrimary,
    /// The database does not exist, is not Cinder's, or lacks what is needed.
    Schema,
    /// The settings cannot work: unreadable CA file, unknown option.
    Configuration,
    /// The session is not in the state that was asked for.
    SessionState,
    /// Anything else that the server said.
    Other,
}

/// A failure of the database, said in one sentence.
#[derive(Debug, Clone, Error)]
#[error("{message}")]
pub struct DbError {
    /// What to do about it.
    pub kind: DbErrorKind,
    /// One sentence fragment: what, where. Holds no secret.
    pub message: String,
    /// The server's own code (`1213`, `40001`, `SQLITE_BUSY`), where it gave one.
    pub code: Option<String>,
    /// The connection is not to be used any more.
    pub fatal: bool,
}

impl DbError {
    /// An error of a kind that leaves the connection usable.
    pub fn new(kind: DbErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, fatal: false }
    }

    /// The same, with the connection lost.
    pub fn fatal(kind: DbErrorKind, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::new(kind, message) }
    }

    /// The same with the server's code.
    #[must_use]
    pub fn with_code(self, code: impl Into<String>) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    /// Whether the session is of no further use.
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// Whether it is the file system that refuses, as it does to SQLite, which has no accounts of its own.
    pub fn is_of_a_file(&self) -> bool {
        matches!(self.code.as_deref(), Some("ReadOnly" | "PermissionDenied" | "CannotOpen"))
    }

    /// Whether rolling back, reading again and deciding again may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, DbErrorKind::Conflict | DbErrorKind::LockTimeout)
    }
}

/// What a statement does, in words that follow "cannot". Messages do not show its name.
pub fn task(name: &str) -> String {
    let (first, rest) = name.split_once('_').unwrap_or((name, ""));
    match (first, rest) {
        ("session", "begin_read" | "begin_write") => "begin a transaction".to_owned(),
        ("session", "commit") => "commit".to_owned(),
        ("session", "rollback") => "roll back".to_owned(),
        ("session", _) => "set up the session".to_owned(),
        ("revision" | "schema", _) => "read the schema".to_owned(),
        ("clock" | "uptime", _) => format!("read the server's {first}"),
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
    fn what_a_statement_does_is_said_in_words() {
        for (name, words) in [
            ("backup_update_mitaka", "update the backup"),
            ("volume_lock_liberty", "lock the volume"),
            ("snapshot_by_id", "read the snapshot"),
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
