//! Records runs and results, each result in a transaction of its own.

use rusqlite::{OptionalExtension, Row, params};

use super::policy::{Entry, Outcome, last_good, level_of, number_of};
use super::{Ledger, Result, signed, statements, unsigned};
use crate::domain::status::AVAILABLE;
use crate::domain::{CheckResult, Level, Problem, ProblemCode};

/// The most problems of a result that are kept. A damaged backup may have a thousand.
const PROBLEMS: usize = 100;

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its number.
    pub number: i64,
    /// When it began, in seconds since 1970.
    pub started_at: i64,
    /// When it ended; `None` if it is running or was killed.
    pub ended_at: Option<i64>,
    /// Its level.
    pub level: Level,
    /// How many backups were due.
    pub due: u64,
    /// Intact at its level.
    pub intact: u64,
    /// Damaged or unreadable.
    pub failed: u64,
    /// Those of them that were intact before.
    pub rotted: u64,
    /// Not verifiable at its level.
    pub limited: u64,
    /// Without an answer.
    pub unanswered: u64,
    /// Bytes of volumes that were verified.
    pub bytes: u64,
    /// What stopped it.
    pub stopped_by: Option<String>,
}

/// What was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// What the result means.
    pub outcome: Outcome,
    /// When the backup was last known to be intact, if it has failed for the first time since.
    pub rotted_since: Option<i64>,
}

/// What the ledger knew before a result.
struct Seen {
    number: i64,
    entry: Entry,
    /// The result that it keeps: whether that failed, its level, and for a failure since when and the last good time.
    kept: Option<(bool, Level, i64, Option<i64>)>,
}

impl Ledger {
    /// Begins a run; returns its number.
    pub fn begin_run(&self, level: Level, now: i64) -> Result<i64> {
        self.connection.execute(statements::RUN_BEGIN, params![now, number_of(level)])?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Notes how many backups are due.
    pub fn note_due(&self, run: i64, due: u64) -> Result<()> {
        self.connection.execute(statements::RUN_DUE, params![run, signed(due)])?;
        Ok(())
    }

    /// Ends a run.
    pub fn end_run(&self, run: i64, now: i64, stopped_by: Option<&str>) -> Result<Run> {
        self.connection.execute(statements::RUN_END, params![run, now, stopped_by])?;
        Ok(self.connection.query_row(statements::RUN_ONE, [run], read_run)?)
    }

    /// The last run.
    pub fn last_run(&self) -> Result<Option<Run>> {
        Ok(self.connection.query_row(statements::RUN_LAST, [], read_run).optional()?)
    }

    /// Records a result of a run; `result` has the rows of its chain. A backup that the ledger does not know is ignored.
    pub fn record(&self, run: i64, result: &CheckResult, settle: u64, now: i64) -> Result<Recorded> {
        let outcome = Outcome::of(result);
        let nothing = Recorded { outcome, rotted_since: None };
        if outcome == Outcome::CutOff {
            return Ok(nothing);
        }
        self.transaction(|connection| {
            let seen = connection.prepare_cached(statements::SEEN)?.query_row([&result.id], read_seen).optional()?;
            let Some(seen) = seen else { return Ok(nothing) };
            let reached = result.reached().filter(|_| matches!(outcome, Outcome::Intact | Outcome::Limited | Outcome::Failed));
            let at = |level: Level| reached.filter(|reached| *reached >= level).map(|_| now);
            let limited = (outcome == Outcome::Limited).then_some((now, number_of(result.level)));
            let bytes = (outcome != Outcome::Unanswered && result.bytes.expected > 0).then_some(signed(result.bytes.expected));
            connection.prepare_cached(statements::BACKUP_RECORD)?.execute(params![
                seen.number,
                at(Level::Quick),
                at(Level::Deep),
                at(Level::Restore),
                limited.map(|(at, _)| at),
                limited.map(|(_, level)| level),
                (outcome == Outcome::Unanswered).then_some(now),
                bytes,
            ])?;
            let rotted_since = self.keep(run, result, &seen, (outcome, settle, now))?;
            let one = |is_so: bool| i64::from(is_so);
            connection.prepare_cached(statements::RUN_COUNT)?.execute(params![
                run,
                one(outcome == Outcome::Intact),
                one(outcome == Outcome::Failed),
                one(rotted_since.is_some()),
                one(outcome == Outcome::Limited),
                one(outcome == Outcome::Unanswered),
                signed(result.bytes.checked),
            ])?;
            Ok(Recorded { outcome, rotted_since })
        })
    }

    /// Keeps the document of a failure, or of a backup that a plan may change; returns the last good time of a backup that has rotted.
    fn keep(&self, run: i64, result: &CheckResult, seen: &Seen, (outcome, settle, now): (Outcome, u64, i64)) -> Result<Option<i64>> {
        if outcome == Outcome::Unanswered {
            return Ok(None);
        }
        let failed = outcome == Outcome::Failed;
        let status = result.rows.first().and_then(|row| row.value("status").as_text());
        // A check that reads less cannot show that damage is gone.
        let may_replace = seen.kept.is_none_or(|(was_failed, level, ..)| !was_failed || failed || result.reached() >= Some(level));
        if !may_replace {
            return Ok(None);
        }
        if !failed && status == Some(AVAILABLE) {
            self.connection.prepare_cached(statements::RESULT_REMOVE)?.execute([seen.number])?;
            return Ok(None);
        }
        let before = seen.kept.filter(|(was_failed, ..)| *was_failed && failed);
        let good = before.map_or_else(|| last_good(&seen.entry, result), |(_, _, _, good)| good).filter(|_| failed);
        let first = before.map_or(now, |(_, _, first, _)| first);
        let level = before.map_or(result.level, |(_, level, ..)| level.max(result.level));
        let problem = result.problems.first().map(|problem| problem.text.as_str());
        self.connection.prepare_cached(statements::RESULT_PUT)?.execute(params![
            seen.number,
            run,
            failed,
            result.verdict.to_string(),
            number_of(level),
            status,
            first,
            now,
            good,
            problem,
            signed(settle),
            document(result)?,
        ])?;
        Ok(if before.is_none() { good } else { None })
    }
}

/// A result as JSON, with its first problems.
fn document(result: &CheckResult) -> Result<String> {
    if result.problems.len() <= PROBLEMS {
        return Ok(serde_json::to_string(result)?);
    }
    let mut shorter = result.clone();
    let more = shorter.problems.split_off(PROBLEMS).len();
    shorter.problems.push(Problem::general(ProblemCode::More, format!("and {more} more problems")));
    Ok(serde_json::to_string(&shorter)?)
}

fn read_seen(row: &Row<'_>) -> rusqlite::Result<Seen> {
    let failed: Option<bool> = row.get(4)?;
    let kept = match (failed, row.get::<_, Option<i64>>(5)?, row.get::<_, Option<i64>>(6)?) {
        (Some(failed), Some(level), Some(first)) => Some((failed, level_of(level), first, row.get(7)?)),
        _ => None,
    };
    let entry = Entry { intact_at: [row.get(1)?, row.get(2)?, row.get(3)?], ..Entry::default() };
    Ok(Seen { number: row.get(0)?, entry, kept })
}

fn read_run(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        number: row.get(0)?,
        started_at: row.get(1)?,
        ended_at: row.get(2)?,
        level: level_of(row.get(3)?),
        due: unsigned(row, 4)?,
        intact: unsigned(row, 5)?,
        failed: unsigned(row, 6)?,
        rotted: unsigned(row, 7)?,
        limited: unsigned(row, 8)?,
        unanswered: unsigned(row, 9)?,
        bytes: unsigned(row, 10)?,
        stopped_by: row.get(11)?,
    })
}
