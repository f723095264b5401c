//! Updates a ledger with the live backups that one pass over the Cinder database sees.

use rusqlite::{OptionalExtension, params};

use super::{Ledger, Result, statements};
use crate::domain::Backup;

/// Backups that were deleted longer ago are forgotten, in seconds.
const REMEMBERED: i64 = 90 * 86_400;

/// What a ledger keeps of the row of a backup.
#[derive(Debug, Clone, Default)]
pub struct LiveRow {
    /// Its id.
    pub id: String,
    /// Its parent.
    pub parent_id: Option<String>,
    /// Its status.
    pub status: Option<String>,
    /// Its project.
    pub project: Option<String>,
    /// The driver and the container; `None` until a driver began it.
    pub backend: Option<(String, String)>,
    /// When it was made, in seconds since 1970; 0 if that is not known.
    pub created_at: i64,
    /// Bytes of the volume.
    pub bytes: i64,
}

/// One pass over the live backups. They are collected in a temporary table on disk.
#[derive(Debug)]
pub struct LivePass<'l> {
    ledger: &'l Ledger,
}

impl Ledger {
    /// Begins a pass.
    pub fn live_pass(&self) -> Result<LivePass<'_>> {
        self.batch(statements::LIVE_CREATE)?;
        // One transaction, which writes to the temporary table alone.
        self.batch(statements::BEGIN_TEMPORARY)?;
        Ok(LivePass { ledger: self })
    }
}

impl LivePass<'_> {
    /// Adds a live backup; `is_wanted` says whether the run selects it.
    pub fn add(&self, live: &Backup, is_wanted: bool) -> Result<()> {
        let mut add = self.ledger.connection.prepare_cached(statements::LIVE_ADD)?;
        add.execute(params![live.id, live.parent_id, live.status, is_wanted])?;
        Ok(())
    }

    /// Notes that all live backups were added.
    pub fn seen_all(&self) -> Result<()> {
        self.ledger.batch(statements::COMMIT)
    }

    /// The next backups after `after`, at most `most`, whose rows the ledger needs.
    pub fn unknown(&self, after: &str, most: usize) -> Result<Vec<String>> {
        let mut next = self.ledger.connection.prepare_cached(statements::LIVE_UNKNOWN)?;
        let ids =
            next.query_map(params![after, i64::try_from(most).unwrap_or(i64::MAX)], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(ids)
    }

    /// Adds rows, or updates them.
    pub fn put(&self, rows: &[LiveRow]) -> Result<()> {
        self.ledger.transaction(|connection| {
            for row in rows {
                if let Some(project) = &row.project {
                    connection.prepare_cached(statements::PROJECT_ADD)?.execute([project])?;
                }
                if let Some((driver, container)) = &row.backend {
                    connection.prepare_cached(statements::BACKEND_ADD)?.execute([driver, container])?;
                }
                let (driver, container) = row.backend.as_ref().map(|(driver, container)| (driver, container)).unzip();
                connection.prepare_cached(statements::BACKUP_PUT)?.execute(params![
                    row.id,
                    row.parent_id,
                    row.status,
                    row.project,
                    driver,
                    container,
                    row.created_at,
                    row.bytes
                ])?;
            }
            Ok(())
        })
    }

    /// Ends the pass: a backup that it did not see is no longer live.
    pub fn end(self, now: i64) -> Result<()> {
        self.ledger.transaction(|connection| {
            connection.execute(statements::LIVE_CHANGED, [])?;
            connection.execute(statements::LIVE_GONE, [now])?;
            connection.execute(statements::GONE_FORGET, [now.saturating_sub(REMEMBERED)])?;
            connection.execute(statements::CHAINS_LINK, [])?;
            connection.execute(statements::CHAINS_ALONE, [])?;
            connection.execute(statements::READ_AT, [now])?;
            Ok(())
        })
    }
}

impl Ledger {
    /// When the live backups were read last.
    pub fn read_at(&self) -> Result<Option<i64>> {
        Ok(self.connection.query_row(statements::BOUND, [], |row| row.get(2)).optional()?.flatten())
    }
}
