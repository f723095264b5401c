//! Reads coverage, failures, the rate of runs, pauses and evidence from a ledger.

use rusqlite::{OptionalExtension, Row, params};

use super::policy::{index, level_of, number_of};
use super::{Ledger, Result, statements, unsigned};
use crate::domain::{CheckResult, Level};

/// How much of the backups of one project in one back end, or of a sum of them, is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Covered {
    /// The driver; `None` if no driver is known.
    pub driver: Option<String>,
    /// The container; empty where each backup has a directory of its own.
    pub container: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// Restore points: live backups in `available` or `restoring`.
    pub backups: u64,
    /// Their bytes of volumes.
    pub bytes: u64,
    /// How many are known to be intact at levels quick, deep and restore, within the maximum age.
    pub intact: [u64; 3],
    /// Failed.
    pub failed: u64,
    /// Never verified at any level.
    pub never: u64,
    /// Not verifiable at the level that was tried last.
    pub limited: u64,
    /// Without an answer at the last try.
    pub unanswered: u64,
    /// Bytes of those that are intact at the level in question.
    pub intact_bytes: u64,
    /// When the oldest backup was made that is not verified at the level in question; seconds since 1970.
    pub oldest_unverified_at: Option<i64>,
}

impl Covered {
    /// Adds another part.
    pub fn add(&mut self, other: &Self) {
        self.backups += other.backups;
        self.bytes = self.bytes.saturating_add(other.bytes);
        for (sum, part) in self.intact.iter_mut().zip(other.intact) {
            *sum += part;
        }
        self.failed += other.failed;
        self.never += other.never;
        self.limited += other.limited;
        self.unanswered += other.unanswered;
        self.intact_bytes = self.intact_bytes.saturating_add(other.intact_bytes);
        self.oldest_unverified_at = match (self.oldest_unverified_at, other.oldest_unverified_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// How many are intact at a level.
    pub fn intact_at(&self, level: Level) -> u64 {
        self.intact.get(index(level)).copied().unwrap_or_default()
    }
}

/// A backup that failed. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The backup.
    pub id: String,
    /// Its project.
    pub project: Option<String>,
    /// Its driver.
    pub driver: Option<String>,
    /// Its container.
    pub container: Option<String>,
    /// The verdict.
    pub verdict: String,
    /// The level at which it failed.
    pub level: Level,
    /// When the failure was found first.
    pub first_at: i64,
    /// When it was found last.
    pub found_at: i64,
    /// When the backup was last known to be intact where it is damaged now.
    pub good_at: Option<i64>,
    /// The first problem; may hold hostile text.
    pub problem: Option<String>,
}

/// Since when scrubbing is paused, by whom, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Since when, in seconds since 1970.
    pub since: i64,
    /// By whom.
    pub by: Option<String>,
    /// Why.
    pub why: Option<String>,
}

/// What recent runs did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// When the first of them began.
    pub since: Option<i64>,
    /// Backups with an answer.
    pub backups: u64,
    /// Bytes of volumes.
    pub bytes: u64,
}

/// A result that a plan may need.
#[derive(Debug)]
pub struct StoredResult {
    /// The result, with the rows of its chain.
    pub result: CheckResult,
    /// The settle time that the check had, in seconds.
    pub settle: u64,
}

impl Ledger {
    /// The coverage of each project in each back end: what was verified since `since`, and at `level`.
    pub fn coverage(&self, since: i64, level: Level) -> Result<Vec<Covered>> {
        let mut groups = self.connection.prepare(statements::COVERAGE)?;
        let groups = groups.query_map(params![since, number_of(level)], |row| {
            let total: f64 = row.get(12)?;
            Ok(Covered {
                driver: row.get(0)?,
                container: row.get(1)?,
                project: row.get(2)?,
                backups: unsigned(row, 3)?,
                bytes: unsigned(row, 4)?,
                intact: [unsigned(row, 5)?, unsigned(row, 6)?, unsigned(row, 7)?],
                failed: unsigned(row, 8)?,
                never: unsigned(row, 9)?,
                limited: unsigned(row, 10)?,
                unanswered: unsigned(row, 11)?,
                intact_bytes: total as u64,
                oldest_unverified_at: row.get(13)?,
            })
        })?;
        Ok(groups.collect::<rusqlite::Result<_>>()?)
    }

    /// The failures, the latest first, at most `most`; of one run, or all.
    pub fn failures(&self, run: Option<i64>, most: usize) -> Result<Vec<Failure>> {
        let mut failures = self.connection.prepare(statements::FAILURES)?;
        let failures = failures.query_map(params![run, i64::try_from(most).unwrap_or(i64::MAX)], read_failure)?;
        Ok(failures.collect::<rusqlite::Result<_>>()?)
    }

    /// What the runs since a time did at this level or deeper.
    pub fn rate(&self, since: i64, level: Level) -> Result<Rate> {
        Ok(self.connection.query_row(statements::RATE, params![since, number_of(level)], |row| {
            Ok(Rate { since: row.get(0)?, backups: unsigned(row, 1)?, bytes: unsigned(row, 2)? })
        })?)
    }

    /// Whether scrubbing is paused.
    pub fn paused(&self) -> Result<Option<Pause>> {
        let mut paused = self.connection.prepare_cached(statements::PAUSED)?;
        let pause = paused.query_row([], |row| Ok(Pause { since: row.get(0)?, by: row.get(1)?, why: row.get(2)? }));
        Ok(pause.optional()?)
    }

    /// Pauses scrubbing, or resumes it.
    pub fn set_pause(&self, pause: Option<&Pause>) -> Result<()> {
        let (since, by, why) = (pause.map(|pause| pause.since), pause.and_then(|p| p.by.as_deref()), pause.and_then(|p| p.why.as_deref()));
        self.connection.execute(statements::PAUSE, params![since, by, why])?;
        Ok(())
    }

    /// The results that a plan may need, one at a time.
    pub fn evidence(&self, each: &mut dyn FnMut(StoredResult)) -> Result<()> {
        let mut results = self.connection.prepare(statements::EVIDENCE)?;
        let mut rows = results.query([])?;
        while let Some(row) = rows.next()? {
            let document: String = row.get(0)?;
            each(StoredResult { result: serde_json::from_str(&document)?, settle: unsigned(row, 1)? });
        }
        Ok(())
    }
}

fn read_failure(row: &Row<'_>) -> rusqlite::Result<Failure> {
    Ok(Failure {
        id: row.get(0)?,
        project: row.get(1)?,
        driver: row.get(2)?,
        container: row.get(3)?,
        verdict: row.get(4)?,
        level: level_of(row.get(5)?),
        first_at: row.get(6)?,
        found_at: row.get(7)?,
        good_at: row.get(8)?,
        problem: row.get(9)?,
    })
}
