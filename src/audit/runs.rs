//! The runs in a log: what each one intended, what it did, and what is still open.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::AuditError;
use super::chain::{LogProblemCode, Problem};
use super::read::{Position, read, read_on};
use super::record::{Begin, Event, Intent, Record, RunEnd, Settled, UnitOutcome};
use crate::domain::text::meant;
use crate::domain::{Outcome, Tally};

/// The summary of one run.
#[derive(Debug, Clone)]
pub struct RunSummary {
    pub run: String,
    /// When it began.
    pub at: String,
    /// Who, where, why, with which plan.
    pub begin: Begin,
    /// How many units have an intent.
    pub intents: usize,
    /// How many units ended how, including outcomes that were settled later.
    pub tally: Tally,
    /// How it ended; `None` if it was killed or is still running.
    pub end: Option<RunEnd>,
    /// It no longer runs: it ended, or another run has locked the log since, which is impossible while this one runs.
    pub over: bool,
    /// The units whose outcome is not known: an intent without an outcome, or the outcome `unknown`, and not settled since.
    pub open: Vec<usize>,
    /// How many of these nobody has tried to settle. For the others the rows did not show the outcome.
    pub unseen: usize,
    /// How many units have an outcome that has to be confirmed by reading the rows again ([`UnitHistory::is_provisional`]).
    pub provisional: usize,
    /// The last run that undid at least a part of this one and was not undone itself.
    pub undone_by: Option<String>,
    /// The position of its records.
    pub span: Span,
}

/// The part of the log that holds the records of a run.
#[derive(Debug, Clone)]
pub struct Span {
    from: Position,
    /// The line of the last record.
    until: u64,
}

/// All runs of a log.
#[derive(Debug)]
pub struct Runs {
    /// In the order of their first records.
    pub runs: Vec<RunSummary>,
    /// Why reading stopped before the end of the log. Everything before is intact.
    pub damage: Option<AuditError>,
}

/// One unit of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitHistory {
    pub intent: Intent,
    pub outcome: Option<UnitOutcome>,
    /// The last settlement, if the run itself left the outcome open.
    pub settled: Option<Settled>,
}

impl UnitHistory {
    /// The outcome as known today; `None` if it is open and nobody has tried to settle it.
    pub fn current_outcome(&self) -> Option<Outcome> {
        let settled = self.settled.as_ref().map(|settled| settled.outcome);
        settled.or_else(|| self.outcome.as_ref().map(UnitOutcome::ended))
    }

    /// Whether its outcome is not known.
    pub fn is_open(&self) -> bool {
        matches!(self.current_outcome(), None | Some(Outcome::Unknown))
    }

    /// Whether the outcome was read from the rows while a COMMIT could still arrive, so that they have to be read again.
    pub fn is_provisional(&self) -> bool {
        let by_reading = match (&self.settled, &self.outcome) {
            (Some(settled), _) => !settled.after_window,
            (None, Some(outcome)) => outcome.is_found_by_reading(),
            (None, None) => false,
        };
        by_reading && !self.is_open()
    }
}

/// All records of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecords {
    /// Its id, in full.
    pub run: String,
    /// When it began.
    pub at: String,
    /// Who, where, why, with which plan.
    pub begin: Begin,
    /// By number in the plan.
    pub units: BTreeMap<usize, UnitHistory>,
    pub ended_at: Option<String>,
    pub end: Option<RunEnd>,
}

impl RunRecords {
    /// How many units ended how, as known today.
    pub fn tally(&self) -> Tally {
        let ended: Vec<Option<Outcome>> =
            self.units.values().map(UnitHistory::current_outcome).filter(|word| *word != Some(Outcome::NotBegun)).collect();
        Tally { not_begun: self.begin.units.saturating_sub(ended.len()), ..Tally::of(ended.iter().flatten()) }
    }
}

/// The summaries of all runs, as far as the log can be read. Memory grows with runs and open units, not with units.
pub fn runs(path: &Path) -> Result<Runs, AuditError> {
    let mut records = read(path)?;
    let mut summaries = Summaries::default();
    let mut damage = None;
    loop {
        let place = records.position();
        match records.next() {
            None => break,
            Some(Ok(record)) => summaries.add(record, place, records.line()),
            Some(Err(error @ AuditError::Io { .. })) => return Err(error),
            Some(Err(error)) => damage = Some(error),
        }
    }
    Ok(Runs { runs: summaries.finish(), damage })
}

/// The run whose id is `run`, or the only one whose id begins with it.
pub fn load_run(path: &Path, run: &str) -> Result<RunRecords, AuditError> {
    let (run, from) = find(path, run)?;
    let found = load(path, &[&run], &from, u64::MAX)?.pop();
    found.ok_or_else(|| AuditError::NoSuchRun { path: path.to_owned(), run, meant: String::new() })
}

/// A run without its units.
#[derive(Debug, Clone)]
pub struct RunHead {
    /// Its id, in full.
    pub run: String,
    /// Who, where, why, with which plan.
    pub begin: Begin,
}

/// Reads the units of the run whose id is `run`, or of the only one whose id begins with it. Each is passed on when its outcome is final,
/// the others at the end. A unit that is passed on twice is as the second time. Memory grows with the units whose outcome is not final.
pub fn read_run<E: From<AuditError>>(path: &Path, run: &str, take: &mut dyn FnMut(UnitHistory) -> Result<(), E>) -> Result<RunHead, E> {
    let (run, from) = find(path, run)?;
    let (mut begin, mut closed, mut units) = (None, BTreeSet::new(), BTreeMap::new());
    let mut records = read_on(path, &from)?;
    while let Some(record) = records.next() {
        let record = record?;
        if record.run != run {
            continue;
        }
        match (record.event, &begin) {
            (Event::Begin(first), None) => begin = Some(*first),
            (_, None) => {}
            (Event::Settled(settled), Some(_)) if closed.contains(&settled.unit) => {}
            (event, Some(_)) => {
                let changed = add(&mut units, event).map_err(|unit| without_intent(path, records.line(), unit))?;
                if let Some(number) = changed {
                    closed.remove(&number);
                    let is_final = |unit: &UnitHistory| !unit.is_open() && !unit.is_provisional();
                    if units.get(&number).is_some_and(is_final) {
                        closed.insert(number);
                        units.remove(&number).map_or(Ok(()), &mut *take)?;
                    }
                }
            }
        }
    }
    units.into_values().try_for_each(take)?;
    let missing = AuditError::NoSuchRun { path: path.to_owned(), run: run.clone(), meant: String::new() };
    Ok(RunHead { begin: begin.ok_or(missing)?, run })
}

/// All records of these runs, in the order of `wanted`. Reads from their first record to their last and keeps all of them in memory.
pub fn load_runs(path: &Path, wanted: &[&RunSummary]) -> Result<Vec<RunRecords>, AuditError> {
    let Some(first) = wanted.iter().map(|summary| &summary.span.from).min_by_key(|place| place.offset) else { return Ok(Vec::new()) };
    let until = wanted.iter().map(|summary| summary.span.until).max().unwrap_or(u64::MAX);
    let ids: Vec<&str> = wanted.iter().map(|summary| summary.run.as_str()).collect();
    load(path, &ids, first, until)
}

/// The runs with these ids, whose records are between a position and a line.
fn load(path: &Path, wanted: &[&str], from: &Position, until: u64) -> Result<Vec<RunRecords>, AuditError> {
    let mut found: Vec<Option<RunRecords>> = wanted.iter().map(|_| None).collect();
    let places: HashMap<&str, usize> = wanted.iter().enumerate().map(|(place, run)| (*run, place)).collect();
    let mut records = read_on(path, from)?;
    while records.line() < until
        && let Some(record) = records.next()
    {
        let record = record?;
        let Some(slot) = places.get(record.run.as_str()).and_then(|place| found.get_mut(*place)) else { continue };
        let Some(run) = slot else {
            if let Event::Begin(begin) = record.event {
                *slot =
                    Some(RunRecords { run: record.run, at: record.at, begin: *begin, units: BTreeMap::new(), ended_at: None, end: None });
            }
            continue;
        };
        match record.event {
            Event::End(end) => (run.ended_at, run.end) = (Some(record.at), Some(end)),
            event => drop(add(&mut run.units, event).map_err(|unit| without_intent(path, records.line(), unit))?),
        }
    }
    let missing = |run: &str| AuditError::NoSuchRun { path: path.to_owned(), run: run.to_owned(), meant: String::new() };
    found.into_iter().zip(wanted).map(|(found, run)| found.ok_or_else(|| missing(run))).collect()
}

/// Adds a record to the units of its run; returns the unit that it is about. If the unit has no intent, its number is the error: to skip
/// such a record could leave a change out of an undo.
fn add(units: &mut BTreeMap<usize, UnitHistory>, event: Event) -> Result<Option<usize>, usize> {
    match event {
        // The last intent counts: a unit with an earlier intent and no outcome had not begun.
        Event::Intent(intent) => {
            let number = intent.unit;
            units.insert(number, UnitHistory { intent: *intent, outcome: None, settled: None });
            Ok(Some(number))
        }
        Event::Outcome(outcome) => {
            let number = outcome.unit;
            units.get_mut(&number).ok_or(number)?.outcome = Some(*outcome);
            Ok(Some(number))
        }
        Event::Settled(settled) => {
            let number = settled.unit;
            let unit = units.get_mut(&number).ok_or(number)?;
            // An outcome that the run itself recorded is not replaced.
            if unit.is_open() || unit.is_provisional() {
                unit.settled = Some(*settled);
            }
            Ok(Some(number))
        }
        Event::Begin(_) | Event::End(_) | Event::Torn(_) => Ok(None),
    }
}

fn without_intent(path: &Path, line: u64, unit: usize) -> AuditError {
    let text = format!("belongs to unit {unit}, which has no earlier intent");
    AuditError::of(path, Problem::new(line, LogProblemCode::NoIntent, text))
}

impl Runs {
    /// The first run that applied, or may have applied, a part of the plan with this id or digest: one of its units is applied or
    /// open.
    pub fn of_plan(&self, plan: &str, sha256: &str) -> Option<&str> {
        let is_of = |begin: &Begin| begin.plan == plan || begin.plan_sha256 == sha256;
        let found = self.runs.iter().find(|summary| is_of(&summary.begin) && may_have_written(summary))?;
        Some(&found.run)
    }
}

/// Whether a run wrote to the database, or may have.
fn may_have_written(summary: &RunSummary) -> bool {
    summary.tally.applied > 0 || !summary.open.is_empty()
}

/// The full id of a run, and the position of its first record.
fn find(path: &Path, run: &str) -> Result<(String, Position), AuditError> {
    let (mut candidates, mut others) = (Vec::new(), BTreeSet::new());
    let mut place = Position::default();
    let mut records = read(path)?;
    loop {
        let before = records.position();
        let Some(record) = records.next() else { break };
        let record = record?;
        if !matches!(record.event, Event::Begin(_)) || run.is_empty() {
            continue;
        }
        if !record.run.starts_with(run) {
            // Of an id, usually only the beginning is given.
            others.extend(record.run.get(..run.len()).map(str::to_owned));
            continue;
        }
        if record.run == run {
            return Ok((record.run, before));
        }
        candidates.push(record.run);
        place = before;
    }
    match candidates.len() {
        0 => {
            let meant = meant(run, others.iter().map(String::as_str));
            Err(AuditError::NoSuchRun { path: path.to_owned(), run: run.to_owned(), meant })
        }
        1 => Ok((candidates.remove(0), place)),
        _ => Err(AuditError::AmbiguousRun { path: path.to_owned(), run: run.to_owned(), candidates }),
    }
}

/// The state of a unit that is open, or whose outcome has to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// It has an intent and no outcome.
    Intended,
    /// The run recorded `unknown`, which is in the tally.
    Unknown,
    /// An attempt to settle it ended with `unknown`, which is in the tally.
    StillUnknown,
    /// Its outcome was read from the rows and has to be confirmed; it is in the tally.
    Provisional(Outcome),
}

/// Builds the summaries record by record.
#[derive(Default)]
struct Summaries {
    /// Each run with its units that are open or have to be confirmed.
    runs: Vec<(RunSummary, BTreeMap<usize, Open>)>,
    index: HashMap<String, usize>,
}

impl Summaries {
    /// Adds one record with its position and line. Skips records of a run that did not begin in this log, which `history reconcile`
    /// writes after a log rotation.
    fn add(&mut self, record: Record, position: Position, line: u64) {
        let Record { at, run, event, .. } = record;
        let own = matches!(event, Event::Intent(_) | Event::Outcome(_));
        if let Some((last, _)) = self.runs.last_mut().filter(|(last, _)| !own || last.run != run) {
            last.over = true;
        }
        let Some(known) = self.index.get(&run) else {
            if let Event::Begin(begin) = event {
                self.index.insert(run.clone(), self.runs.len());
                let (begin, tally) = (*begin, Tally::default());
                let (end, over, open, undone_by) = (None, false, Vec::new(), None);
                let (intents, unseen, provisional) = (0, 0, 0);
                let span = Span { from: position, until: line };
                let summary = RunSummary { run, at, begin, intents, tally, end, over, open, unseen, provisional, undone_by, span };
                self.runs.push((summary, BTreeMap::new()));
            }
            return;
        };
        let Some((summary, open)) = self.runs.get_mut(*known) else { return };
        summary.span.until = line;
        match event {
            Event::Intent(intent) => {
                // A unit that its batch did not reach in time gets a new intent.
                if open.insert(intent.unit, Open::Intended).is_none() {
                    summary.intents += 1;
                }
            }
            Event::Outcome(outcome) => {
                open.remove(&outcome.unit);
                if outcome.ended() != Outcome::NotBegun {
                    summary.tally.add(outcome.outcome);
                }
                if outcome.outcome == Outcome::Unknown {
                    open.insert(outcome.unit, Open::Unknown);
                } else if outcome.is_found_by_reading() {
                    open.insert(outcome.unit, Open::Provisional(outcome.outcome));
                }
            }
            Event::Settled(settled) => {
                // A final outcome is not replaced and must not be counted twice.
                let Some(known) = open.remove(&settled.unit) else { return };
                match known {
                    Open::Intended => {}
                    Open::Unknown | Open::StillUnknown => summary.tally.remove(Outcome::Unknown),
                    Open::Provisional(outcome) => summary.tally.remove(outcome),
                }
                summary.tally.add(settled.outcome);
                if settled.outcome == Outcome::Unknown {
                    open.insert(settled.unit, Open::StillUnknown);
                } else if !settled.after_window {
                    open.insert(settled.unit, Open::Provisional(settled.outcome));
                }
            }
            Event::End(end) => summary.end = Some(end),
            Event::Begin(_) | Event::Torn(_) => {}
        }
    }

    /// The summaries of all runs.
    fn finish(self) -> Vec<RunSummary> {
        let Self { runs, index } = self;
        let mut summaries = Vec::with_capacity(runs.len());
        for (mut summary, mut open) in runs {
            let all = open.len();
            open.retain(|_, known| !matches!(known, Open::Provisional(_)));
            summary.provisional = all - open.len();
            summary.unseen = open.values().filter(|known| **known != Open::StillUnknown).count();
            let without_outcome = open.values().filter(|known| **known == Open::Intended).count();
            summary.tally.not_begun = summary.begin.units.saturating_sub(summary.tally.total() + without_outcome);
            summary.open = open.into_keys().collect();
            summaries.push(summary);
        }
        // Latest first, so that an undo which was undone itself is known before it is used.
        for at in (0..summaries.len()).rev() {
            let Some(undo) = summaries.get(at).filter(|undo| undo.undone_by.is_none() && may_have_written(undo)) else { continue };
            let (run, target) = (undo.run.clone(), undo.begin.undoes.as_ref().and_then(|target| index.get(target)).copied());
            if let Some(undone) = target.and_then(|target| summaries.get_mut(target)) {
                undone.undone_by.get_or_insert(run);
            }
        }
        summaries
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
