//! Compares the audit log with the rows.

use std::collections::{HashSet, VecDeque};
use std::path::Path;

use jiff::civil::DateTime;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Database, Observer, Result, WorkEvent, actor};
use crate::apply::{FirstWriters, LaterUnits, Standing, UnitContext, current, first_writers, settle_unit};
use crate::audit::record::{self, Settled};
use crate::audit::{AuditLog, RunRecords, RunSummary, UnitHistory, load_run, load_runs, runs};
use crate::db::{DbErrorKind, Engine};
use crate::domain::{Image, Outcome, Table, Value};
use crate::scan::{Lock, situation};

/// A unit of the log, compared with its rows.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReconciledUnit {
    pub run: String,
    pub unit: usize,
    /// The backup, volume or snapshot.
    pub id: String,
    /// How the unit ended; `None` if its outcome is not on record.
    pub outcome: Option<Outcome>,
    /// `kept`, `lost`, `gone`, `changed`, `superseded`, `settled` or `unknown`.
    pub state: &'static str,
    pub detail: String,
}

/// Compares one run, or all runs on this database, with the rows, and records the outcomes that were unknown.
pub fn reconcile(database: &mut Database, path: &Path, run: Option<&str>, observer: &dyn Observer) -> Result<Vec<ReconciledUnit>> {
    let target = run.map(|run| load_run(path, run)).transpose()?;
    if let Some(target) = &target {
        database.require_identity(&format!("run {} changed", target.run), &target.begin.database)?;
    }
    let (target, identity) = (target.map(|records| records.run), database.info().identity);
    let is_listed = |run: &str| target.as_deref().is_none_or(|target| target == run);
    let mut all = runs_on(path, &identity)?;
    // A run at work holds the log: a process that has it can be sure that nothing is written between its read of the rows and the
    // record of what it saw. What was open may be settled by then.
    let mut log = None;
    if all.iter().any(|summary| is_listed(&summary.run) && (!summary.open.is_empty() || summary.provisional > 0)) {
        log = Some(AuditLog::open(path, actor::now)?);
        all = runs_on(path, &identity)?;
    }
    // Read before any row: an early clock only makes it wait longer.
    let now = if log.is_some() { situation(&mut database.reader())?.now } else { DateTime::MIN };
    let first = target.as_ref().and_then(|target| all.iter().position(|summary| summary.run == *target)).unwrap_or(0);
    let mut backwards: Vec<&RunSummary> = all.iter().skip(first).rev().collect();
    let mut loaded: VecDeque<RunRecords> = VecDeque::new();
    let mut units = Vec::new();
    let mut reconciler = Reconciler { database, observer, log, now, written: HashSet::new(), later: LaterUnits::default() };
    while !backwards.is_empty() || !loaded.is_empty() {
        match loaded.pop_front() {
            Some(records) => reconciler.run(is_listed(&records.run), records, &mut units)?,
            None => {
                let wanted: Vec<&RunSummary> = backwards.drain(..one_pass(&backwards)).collect();
                loaded.extend(load_runs(path, &wanted)?);
            }
        }
    }
    units.reverse();
    Ok(units)
}

/// The runs on a database, from a log without damage.
fn runs_on(path: &Path, identity: &str) -> Result<Vec<RunSummary>> {
    let found = runs(path)?;
    found.damage.map_or(Ok(()), Err)?;
    Ok(found.runs.into_iter().filter(|summary| summary.begin.database.identity == *identity).collect())
}

/// How many of the next runs are read in one pass over the log, which may be long: their units take memory.
fn one_pass(next: &[&RunSummary]) -> usize {
    const MOST_UNITS: usize = 5_000;
    let mut sum = 0;
    let fits = next.iter().take_while(|summary| {
        sum += summary.intents;
        sum <= MOST_UNITS
    });
    fits.count().max(1)
}

/// Goes backwards through the log, because a row that a later unit wrote is no change by another program, and proves nothing about earlier
/// units.
struct Reconciler<'a> {
    database: &'a mut Database,
    observer: &'a dyn Observer,
    /// Held if there is something to settle.
    log: Option<AuditLog>,
    /// The database's clock before any row was read.
    now: DateTime,
    /// The rows that later units wrote.
    written: HashSet<(Table, String)>,
    later: LaterUnits,
}

impl Reconciler<'_> {
    /// Adds the units of a run, the last first.
    fn run(&mut self, is_listed: bool, mut records: RunRecords, units: &mut Vec<ReconciledUnit>) -> Result<()> {
        // Open units count among those that may have written; the units before one are open until their turn comes.
        let first_writers = first_writers(&records);
        for number in records.units.keys().rev().copied().collect::<Vec<_>>() {
            let Some(unit) = records.units.get_mut(&number) else { continue };
            let is_open = is_listed && (unit.is_open() || unit.is_provisional());
            let settled = if is_open { self.settle(&records.run, unit, &first_writers)? } else { None };
            match settled {
                Some(settled) => units.push(settled),
                None if unit.current_outcome() == Some(Outcome::Applied) => {
                    let (state, detail) = self.compare(unit, is_listed)?;
                    let (run, id, outcome) = (records.run.clone(), unit.intent.id.clone(), unit.current_outcome());
                    units.extend(is_listed.then_some(ReconciledUnit { run, unit: number, id, outcome, state, detail }));
                }
                None => {}
            }
            if self.log.is_some() {
                self.later.add(unit, &first_writers);
            }
        }
        Ok(())
    }

    /// Whether what a unit wrote is still there. The rows of a unit that is not listed are only noted as written.
    fn compare(&mut self, unit: &UnitHistory, is_listed: bool) -> Result<(&'static str, String)> {
        let outcome = unit.outcome.as_ref();
        let settled = unit.settled.as_ref().map(|settled| settled.found.as_slice()).unwrap_or_default();
        let after: &[Image] = outcome.map(|outcome| outcome.after.as_slice()).filter(|after| !after.is_empty()).unwrap_or(settled);
        let before = outcome.map(|outcome| outcome.before.as_slice()).filter(|before| !before.is_empty()).unwrap_or(&unit.intent.before);
        if !is_listed {
            self.written.extend(after.iter().map(|image| (image.table, image.id.clone())));
            return Ok(("", String::new()));
        }
        let mut details = Vec::new();
        let (mut lost, mut gone, mut superseded) = (0, 0, 0);
        let found: Vec<Option<Image>> =
            self.database.read(|reader| after.iter().map(|image| current(reader, image.table, &image.id, Lock::None)).collect())?;
        for (image, found) in after.iter().zip(found) {
            let later = !self.written.insert((image.table, image.id.clone()));
            // What the run itself deleted is still there.
            let Some(found) = found.filter(|found| image.is_deleted() || !found.is_deleted()) else {
                gone += 1;
                details.push(format!("{} {} is deleted", image.table, image.id));
                continue;
            };
            let moved = image.moved(&found);
            if moved.is_empty() {
                continue;
            }
            if later {
                superseded += 1;
                continue;
            }
            let old = before.iter().find(|old| old.table == image.table && old.id == image.id);
            if old.is_some_and(|old| old.moved(&found).is_empty()) {
                lost += 1;
                details.push(format!("{} {} is as before: the commit was lost", image.table, image.id));
                continue;
            }
            for column in moved.iter().filter(|moved| moved.column != "updated_at" || moved.planned == Value::Null) {
                details.push(format!("{}.{} of {}: {} -> {}", column.table, column.column, column.id, column.planned, column.found));
            }
            if details.is_empty() {
                details.push(format!("{} {} was written since", image.table, image.id));
            }
        }
        let found = [(lost, "lost"), (gone, "gone"), (details.len(), "changed"), (superseded, "superseded")];
        let state = found.iter().find(|(number, _)| *number > 0).map_or("kept", |(_, state)| *state);
        Ok((state, details.join("; ")))
    }

    /// Finds out how a unit ended, and records that if it is new. Returns nothing if the known outcome still holds.
    fn settle(&mut self, run: &str, unit: &mut UnitHistory, first_writers: &FirstWriters) -> Result<Option<ReconciledUnit>> {
        let Some(log) = &mut self.log else { return Ok(None) };
        let around = UnitContext { later: &self.later, first_writers, now: self.now };
        // A transaction that is still ending holds its rows: wait for it where this account may lock, else look as it is.
        let mut lock = if self.database.session.server().read_only { Lock::None } else { Lock::Held };
        let seen = match settle_unit(self.database.session.as_mut(), &self.database.schema, unit, &around, lock) {
            Err(error) if error.kind == DbErrorKind::Privilege && !error.is_fatal() => {
                lock = Lock::None;
                settle_unit(self.database.session.as_mut(), &self.database.schema, unit, &around, lock)?
            }
            other => other?,
        };
        let number = unit.intent.unit;
        let who = actor::current(self.database.session.server().user.clone());
        // A replica that lags shows the rows of an earlier time: what is read without a lock is not final.
        let is_exact = lock == Lock::Held || self.database.session.server().engine == Engine::Sqlite;
        let after_window = is_exact && around.is_over(unit);
        // The rows may have been changed since: only rows that contradict the known outcome change it.
        let stands = match unit.current_outcome() {
            Some(Outcome::Applied) => seen.outcome != Outcome::Failed,
            Some(Outcome::Failed) => seen.standing != Standing::After,
            _ => false,
        };
        let settled = match (stands, unit.current_outcome()) {
            (true, _) if !after_window => return Ok(None),
            // Not the rows as they are now: an undo goes by those that the unit left.
            (true, Some(outcome)) => {
                let reason = format!("read again after its time to write was over: it stays {}", outcome);
                let left = unit.outcome.as_ref().map(|outcome| outcome.after.clone()).unwrap_or_default();
                let found = unit.settled.as_ref().map_or(left, |settled| settled.found.clone());
                Settled { unit: number, outcome, reason, found, after_window, who }
            }
            _ => Settled { unit: number, outcome: seen.outcome, reason: seen.reason, found: seen.found, after_window, who },
        };
        log.append(run, record::Event::Settled(Box::new(settled.clone())))?;
        log.sync()?;
        self.observer.event(WorkEvent::Detail(format!("run {run}, unit {number}: {}", settled.reason)));
        let (outcome, detail) = (Some(settled.outcome), settled.reason.clone());
        let state = if settled.outcome == Outcome::Unknown { "unknown" } else { "settled" };
        unit.settled = Some(settled);
        Ok((!stands).then(|| ReconciledUnit { run: run.to_owned(), unit: number, id: unit.intent.id.clone(), outcome, state, detail }))
    }
}
