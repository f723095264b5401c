//! The backups that are due in a run, in their order, a portion at a time.

use rusqlite::{Row, params};

use super::policy::{Entry, Rules, level_of};
use super::{Ledger, Result, statements, unsigned};

/// The due backups of a run, in a temporary table on disk.
#[derive(Debug)]
pub struct Queue {
    /// How many there are.
    pub length: u64,
    /// The place up to which they were given out.
    place: i64,
}

/// A backup in the queue.
#[derive(Debug, Clone)]
pub struct Queued {
    place: i64,
    number: i64,
    /// The number of its oldest ancestor.
    pub chain: i64,
    /// Its id.
    pub id: String,
    /// Bytes of the volume that it probably holds.
    pub bytes: u64,
    /// The number of its back end.
    pub backend: Option<i64>,
}

impl Ledger {
    /// Puts the selected live backups that are due in order, at most `limit`; after a live pass.
    pub fn queue(&self, rules: &Rules, limit: Option<usize>) -> Result<Queue> {
        self.batch(statements::DUE_CREATE)?;
        // One transaction, which writes to the temporary table alone.
        self.batch(statements::BEGIN_TEMPORARY)?;
        let mut add = self.connection.prepare(statements::DUE_ADD)?;
        let mut entries = self.connection.prepare(statements::ENTRIES)?;
        let mut rows = entries.query([])?;
        while let Some(row) = rows.next()? {
            let entry = entry(row)?;
            if let Some(urgency) = entry.urgency(rules) {
                let (number, chain): (i64, i64) = (row.get(0)?, row.get(1)?);
                add.execute([number, chain, urgency, entry.created_at])?;
            }
        }
        drop(rows);
        self.batch(statements::COMMIT)?;
        self.batch(statements::QUEUE_CREATE)?;
        if let Some(limit) = limit.and_then(|limit| i64::try_from(limit).ok()) {
            self.connection.execute(statements::QUEUE_LIMIT, [limit])?;
        }
        self.batch(statements::LEFT_OUT_CREATE)?;
        let length = self.connection.query_row(statements::QUEUE_COUNT, [], |row| unsigned(row, 0))?;
        Ok(Queue { length, place: 0 })
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let leveled = |at: Option<i64>, level: Option<i64>| at.zip(level.map(level_of));
    Ok(Entry {
        created_at: row.get(2)?,
        intact_at: [row.get(3)?, row.get(4)?, row.get(5)?],
        limited: leveled(row.get(6)?, row.get(7)?),
        unanswered_at: row.get(8)?,
        failed: leveled(row.get(9)?, row.get(10)?),
    })
}

impl Queue {
    /// The next backups, at least one if there are any: about `most` of them, and of about `bytes` together. A chain is kept together if it
    /// is not longer than `most`. They are claimed until each has a result.
    pub fn next(&mut self, ledger: &Ledger, most: usize, bytes: Option<u64>, must_take: bool) -> Result<Vec<Queued>> {
        let mut portion: Vec<Queued> = Vec::new();
        let mut left = bytes;
        {
            let mut next = ledger.connection.prepare_cached(statements::QUEUE_NEXT)?;
            let mut rows = next.query([self.place])?;
            while let Some(row) = rows.next()? {
                let queued = Queued {
                    place: row.get(0)?,
                    number: row.get(1)?,
                    chain: row.get(2)?,
                    id: row.get(3)?,
                    bytes: unsigned(row, 4)?,
                    backend: row.get(5)?,
                };
                let is_first = portion.is_empty() && must_take;
                if left.is_some_and(|left| queued.bytes > left) && !is_first {
                    break;
                }
                let is_same_chain = portion.last().is_some_and(|last| last.chain == queued.chain);
                if portion.len() >= most && (!is_same_chain || portion.len() >= 2 * most) {
                    break;
                }
                left = left.map(|left| left.saturating_sub(queued.bytes));
                portion.push(queued);
            }
        }
        self.place = portion.last().map_or(self.place, |last| last.place);
        ledger.transaction(|connection| {
            let mut claim = connection.prepare_cached(statements::CLAIM)?;
            for queued in &portion {
                claim.execute([queued.number, queued.place])?;
            }
            Ok(())
        })?;
        Ok(portion)
    }

    /// Whether there are more backups, apart from the back ends that are left out.
    pub fn has_more(&self, ledger: &Ledger) -> Result<bool> {
        Ok(ledger.connection.prepare_cached(statements::QUEUE_NEXT)?.exists([self.place])?)
    }
}

impl Ledger {
    /// Releases the claims on backups that have no result, because they are no longer live.
    pub fn take_back(&self, portion: &[Queued]) -> Result<()> {
        self.transaction(|connection| {
            let mut unclaim = connection.prepare_cached(statements::UNCLAIM)?;
            for queued in portion {
                unclaim.execute([queued.number])?;
            }
            Ok(())
        })
    }

    /// Leaves out a back end for the rest of the run.
    pub fn leave_out(&self, backend: i64) -> Result<()> {
        self.connection.execute(statements::LEFT_OUT_ADD, [backend])?;
        Ok(())
    }

    /// Releases the claims of a run that was stopped or killed. The backup that it was checking goes behind others.
    pub fn release(&self, now: i64) -> Result<()> {
        self.transaction(|connection| {
            connection.execute(statements::CUT_OFF, params![now])?;
            connection.execute(statements::UNCLAIM_ALL, [])?;
            Ok(())
        })
    }
}
