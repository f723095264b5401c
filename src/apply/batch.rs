//! The units of a batch: executed by one session or by several at once, and recorded by the thread that writes the log.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Journal;
use super::partition::groups;
use super::progress::{Failure, Progress};
use super::reconcile::intended;
use super::records::{outcome, result_of};
use super::storage_recheck::StorageRechecks;
use super::unit_rows::UnitRows;
use super::worker::{TimedSituation, Transaction, UnitEnd, UnitJob, Worker};
use crate::db::{DbError, DbErrorKind, Engine, Session};
use crate::domain::{Outcome, Tally, UnitResult};
use crate::plan::Unit;
use crate::spool::Spool;

/// How many units in a row may fail to get a lock before the next ones are tried with the shortest wait that the engine has.
const WAIT_IN_VAIN: usize = 3;
/// How many units in a row fail to get a lock before the run is stopped. A file is locked as a whole.
const LOCKED_OUT: usize = 13;

/// How a run's units have ended so far.
pub(super) struct UnitResults {
    /// In the order in which they ended.
    results: Spool<UnitResult>,
    /// By the units' places in the plan: the place of the result, if the unit has ended.
    ended: Vec<Option<usize>>,
    pub tally: Tally,
    /// Units that have an intent on record.
    pub intended: BTreeSet<usize>,
    /// Units that failed to get a lock.
    pub lock_failures: Vec<usize>,
}

impl UnitResults {
    pub fn new(units: usize) -> Self {
        let (results, tally) = (Spool::default(), Tally::default());
        Self { results, ended: vec![None; units], tally, intended: BTreeSet::new(), lock_failures: Vec::new() }
    }

    /// Adds the result of the unit at a place.
    pub fn add(&mut self, place: usize, result: &UnitResult) -> std::io::Result<()> {
        self.tally.add(result.outcome);
        if let Some(ended) = self.ended.get_mut(place) {
            *ended = Some(self.results.len());
        }
        self.results.push(result)
    }

    pub fn has_ended(&self, place: usize) -> bool {
        self.ended.get(place).is_some_and(Option::is_some)
    }

    /// All results, in the order of the plan.
    pub fn in_order(self) -> Spool<UnitResult> {
        let mut results = self.results;
        results.rearrange(self.ended.into_iter().flatten());
        results
    }

    /// Those of these places whose units have not ended.
    pub fn open(&self, places: Range<usize>) -> Vec<Range<usize>> {
        let mut open: Vec<Range<usize>> = Vec::new();
        for place in places.filter(|place| !self.has_ended(*place)) {
            match open.last_mut().filter(|range| range.end == place) {
                Some(range) => range.end += 1,
                None => open.push(place..place + 1),
            }
        }
        open
    }
}

/// What a session at work reports.
pub(super) enum WorkerEvent {
    /// A unit is tried again.
    Retry { unit: usize, error: DbError },
    /// A unit has ended.
    Ended(Box<EndedUnit>),
    /// The clock and the heartbeats could not be read: the run cannot go on.
    Lost(DbError),
}

/// A unit that has ended.
pub(super) struct EndedUnit {
    /// Its place in the batch.
    place: usize,
    result: UnitResult,
    transaction: Transaction,
    /// Whether the unit failed because it could not get a lock.
    is_lock_failure: bool,
    /// Why the run cannot go on after this unit.
    failure: Option<Failure>,
}

/// The units of a batch, for the next session that is free.
pub(super) struct Batch<'a> {
    units: &'a [Unit],
    rows: Vec<UnitRows>,
    rechecks: &'a StorageRechecks,
    groups: Mutex<VecDeque<Vec<usize>>>,
    /// A unit has begun: every batch executes at least one, however long that took.
    begun: AtomicBool,
    /// No session begins another unit.
    halted: AtomicBool,
}

impl<'a> Batch<'a> {
    pub fn new(units: &'a [Unit], rows: Vec<UnitRows>, rechecks: &'a StorageRechecks) -> Self {
        let groups = Mutex::new(groups(&rows).into());
        Self { units, rows, rechecks, groups, begun: AtomicBool::new(false), halted: AtomicBool::new(false) }
    }

    /// How many groups of units have no row in common.
    pub fn groups(&mut self) -> usize {
        self.groups.get_mut().map_or(0, |groups| groups.len())
    }

    /// Executes the units in the plan's order, for a batch with one session.
    pub fn in_plan_order(self) -> Self {
        Self { groups: Mutex::new((0..self.units.len()).map(|place| vec![place]).collect()), ..self }
    }

    fn next(&self) -> Option<Vec<usize>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn halt(&self) {
        self.halted.store(true, Ordering::SeqCst);
    }

    /// Executes units on this session until there is none left to begin.
    pub fn run(&self, worker: Worker<'_>, session: &mut Box<dyn Session>, mut known: TimedSituation, send: &mut dyn FnMut(WorkerEvent)) {
        while let Some(group) = self.next() {
            for place in group {
                if self.halted.load(Ordering::SeqCst) || (worker.stop)() {
                    return;
                }
                // The remaining units are for another batch.
                if self.begun.swap(true, Ordering::SeqCst) && worker.is_late() {
                    return;
                }
                let (Some(unit), Some(rows)) = (self.units.get(place), self.rows.get(place)) else { continue };
                if let Some(why) = self.rechecks.change_of(unit) {
                    let (result, transaction) = result_of(unit, UnitEnd::unchanged(Outcome::Changed, why));
                    let ended = EndedUnit { place, result, transaction, is_lock_failure: false, failure: None };
                    send(WorkerEvent::Ended(Box::new(ended)));
                    continue;
                }
                // Units may have waited long for locks, and a batch may be large.
                if known.is_old() {
                    match worker.read_situation(session) {
                        Ok(now) => known = now,
                        Err(error) => {
                            self.halt();
                            return send(WorkerEvent::Lost(error));
                        }
                    }
                }
                let (end, error) = with_short_waits(&worker, session, |session| {
                    worker.unit(session, UnitJob { unit, rows }, &mut known, &mut |error| {
                        send(WorkerEvent::Retry { unit: unit.number, error: error.clone() });
                    })
                });
                let (result, transaction) = result_of(unit, end);
                let is_lock_failure = error.as_ref().is_some_and(|error| error.is_retryable() || error.kind == DbErrorKind::Timeout);
                let locked_out = is_locked_out(&worker, session.as_ref(), error.as_ref());
                record(&worker, &result, &transaction);
                let failure = match error {
                    Some(error) if locked_out => Some(Failure::LockedOut(error)),
                    // A run goes on after a unit whose outcome is not known.
                    Some(error) if result.outcome != Outcome::Unknown && is_hopeless(&error) => Some(Failure::Database(error)),
                    _ => None,
                };
                let is_last = failure.is_some();
                if is_last {
                    self.halt();
                }
                send(WorkerEvent::Ended(Box::new(EndedUnit { place, result, transaction, is_lock_failure, failure })));
                if is_last {
                    return;
                }
            }
        }
    }
}

/// Executes a unit with the shortest wait for locks if those before it waited in vain.
fn with_short_waits<T>(worker: &Worker<'_>, session: &mut Box<dyn Session>, execute: impl FnOnce(&mut Box<dyn Session>) -> T) -> T {
    if worker.state.locked_out.load(Ordering::SeqCst) < WAIT_IN_VAIN {
        return execute(session);
    }
    // If this fails, the unit itself finds out why.
    let _ = session.set_lock_timeout(Duration::ZERO);
    let ended = execute(session);
    let _ = session.set_lock_timeout(worker.options.lock_timeout);
    ended
}

/// Counts the units in a row that failed to get a lock; whether there are too many.
fn is_locked_out(worker: &Worker<'_>, session: &dyn Session, error: Option<&DbError>) -> bool {
    if error.is_none_or(|error| error.kind != DbErrorKind::LockTimeout) {
        worker.state.locked_out.store(0, Ordering::SeqCst);
        return false;
    }
    let most = if session.server().engine == Engine::Sqlite { 1 } else { LOCKED_OUT };
    worker.state.locked_out.fetch_add(1, Ordering::SeqCst) + 1 >= most
}

/// Records what a unit wrote, or would have written, for the units after it.
fn record(worker: &Worker<'_>, result: &UnitResult, Transaction { before, changes, after, .. }: &Transaction) {
    let mut written = worker.state.written.write().unwrap_or_else(PoisonError::into_inner);
    match result.outcome {
        Outcome::Applied => written.record(before, after),
        Outcome::Planned => written.record(before, &intended(before, changes)),
        _ => {}
    }
}

/// Whether an error that makes one unit fail would make every other one fail, too.
fn is_hopeless(error: &DbError) -> bool {
    use DbErrorKind::{Authentication, Connection, NotPrimary, Privilege, Schema};
    matches!(error.kind, Privilege | Authentication | NotPrimary | Connection | Schema) || error.is_fatal()
}

/// Takes the events of a batch's sessions: writes the log, keeps the results, and reports progress.
pub(super) struct Recorder<'a> {
    pub batch: &'a Batch<'a>,
    /// The place of the batch's first unit in the plan.
    pub first: usize,
    pub writing: bool,
    pub journal: &'a mut dyn Journal,
    pub results: &'a mut UnitResults,
    pub progress: &'a mut dyn FnMut(Progress<'_>),
    /// Why the run cannot go on.
    pub failure: Option<Failure>,
}

impl Recorder<'_> {
    pub fn take(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Retry { unit, error } => (self.progress)(Progress::Retry { unit, error: &error }),
            WorkerEvent::Lost(error) => drop(self.failure.get_or_insert(Failure::Database(error))),
            WorkerEvent::Ended(ended) => self.end(*ended),
        }
    }

    fn end(&mut self, ended: EndedUnit) {
        let EndedUnit { place, mut result, transaction, is_lock_failure, failure } = ended;
        result.last_look = self.batch.units.get(place).and_then(|unit| self.batch.rechecks.evidence(unit));
        if is_lock_failure {
            self.results.lock_failures.push(self.first + place);
        }
        self.failure = self.failure.take().or(failure);
        // At once: if this process is killed, the rows alone seldom prove who wrote them.
        if self.writing
            && !matches!(self.failure, Some(Failure::LogAfter(_)))
            && let Err(error) = self.journal.append(outcome(&result, transaction)).and_then(|()| self.journal.flush())
        {
            self.batch.halt();
            self.failure = Some(Failure::LogAfter(error));
        }
        (self.progress)(Progress::Ended(&result));
        if let Err(error) = self.results.add(self.first + place, &result) {
            self.batch.halt();
            self.failure.get_or_insert(Failure::Spool(error));
        }
    }
}
