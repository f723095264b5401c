//! Updates a ledger with the live backups that one pass over the Cinder database sees.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use rusqlite::{OptionalExtension, params, params_from_iter};

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

/// One pass over the live backups. They are collected in temporary tables on disk. After a pass that did not end, the next one adds only
/// what is missing.
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

/// Returns the number of a name. Each name is looked up once.
fn numbered<'r, N: Eq + Hash>(
    known: &mut HashMap<&'r N, i64>,
    name: Option<&'r N>,
    look_up: impl FnOnce(&N) -> rusqlite::Result<i64>,
) -> rusqlite::Result<Option<i64>> {
    let Some(name) = name else { return Ok(None) };
    Ok(Some(match known.entry(name) {
        Entry::Occupied(known) => *known.get(),
        Entry::Vacant(new) => *new.insert(look_up(name)?),
    }))
}

impl LivePass<'_> {
    /// Adds a live backup; `is_wanted` says whether the run selects it.
    pub fn add(&self, live: &Backup, is_wanted: bool) -> Result<()> {
        let mut add = self.ledger.connection.prepare_cached(statements::LIVE_ADD)?;
        if add.execute(params![live.id, live.parent_id, live.status, is_wanted])? == 0 {
            self.ledger.connection.prepare_cached(statements::UNREAD_ADD)?.execute(params![live.id, is_wanted])?;
        }
        Ok(())
    }

    /// Notes that all live backups were added.
    pub fn seen_all(&self) -> Result<()> {
        self.ledger.batch(statements::UNREAD_SORT)?;
        self.ledger.batch(statements::COMMIT)
    }

    /// Returns at most `most` backups after a place whose rows the ledger needs, and the place of the last one.
    pub fn unknown(&self, after: i64, most: usize) -> Result<(i64, Vec<String>)> {
        let mut next = self.ledger.connection.prepare_cached(statements::LIVE_UNKNOWN)?;
        let (mut place, mut ids) = (after, Vec::new());
        let mut rows = next.query(params![after, i64::try_from(most).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            place = row.get(0)?;
            ids.push(row.get(1)?);
        }
        Ok((place, ids))
    }

    /// Adds rows, or updates them.
    pub fn put(&self, rows: &[LiveRow]) -> Result<()> {
        let (mut projects, mut backends) = (HashMap::new(), HashMap::new());
        self.ledger.transaction(|connection| {
            let number = |add: &str, find: &str, name: &[&String]| -> rusqlite::Result<i64> {
                connection.prepare_cached(add)?.execute(params_from_iter(name))?;
                connection.prepare_cached(find)?.query_row(params_from_iter(name), |row| row.get(0))
            };
            for row in rows {
                let project =
                    numbered(&mut projects, row.project.as_ref(), |id| number(statements::PROJECT_ADD, statements::PROJECT_NUMBER, &[id]))?;
                let backend = numbered(&mut backends, row.backend.as_ref(), |(driver, container)| {
                    number(statements::BACKEND_ADD, statements::BACKEND_NUMBER, &[driver, container])
                })?;
                let values = params![row.id, row.parent_id, row.status, project, backend, row.created_at, row.bytes];
                connection.prepare_cached(statements::BACKUP_PUT)?.execute(values)?;
            }
            Ok(())
        })
    }

    /// Ends the pass: a backup that it did not see is no longer live.
    pub fn end(self, now: i64) -> Result<()> {
        self.ledger.transaction(|connection| {
            connection.execute(statements::LIVE_PUT, [])?;
            connection.execute(statements::LIVE_GONE, [now])?;
            connection.execute(statements::GONE_FORGET, [now.saturating_sub(REMEMBERED)])?;
            connection.execute_batch(statements::CHAINS_CREATE)?;
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
