//! The executor: a plan's units in batches, one transaction each, on one session or on several at once.
//!
//! Several sessions share the waiting: a server puts the commits that arrive together onto the disk together. Only units that
//! have no row in common go side by side, and only this thread writes the log.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Journal;
use super::heartbeat_wait;
use super::locked_rows::LockedRows;
use super::partition::groups;
use super::reconcile::intended;
use super::storage_recheck::{Precheck, StorageRechecks};
use super::unit_rows::UnitRows;
use super::worker::{BEGINS_WITHIN, Connect, TimedSituation, Transaction, Worker, ended};
use super::writes::{by_row, update};
use super::written::RunState;
use crate::audit::AuditError;
use crate::audit::record::{Event, Intent, NOT_BEGUN, StatementText, UnitOutcome, Window};
use crate::backoff::Backoff;
use crate::db::literal::inline;
use crate::db::schema::Schema;
use crate::db::{Access, DbError, DbErrorKind, Engine, Session, SessionSettings};
use crate::domain::{ColumnSet, Outcome, Tally, UnitResult};
use crate::parallel;
use crate::plan::{Plan, Unit};
use crate::scan::{Census, Lock, Reader};

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Rows are locked and changed.
    Write,
    /// The same, in transactions that the database holds read-only, up to the point of writing.
    DryRun,
}

/// How a run is carried out.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether anything is written.
    pub mode: Mode,
    /// How many units share the two fsyncs of the log.
    pub batch_size: usize,
    /// How often a unit is tried when the database lets another transaction win.
    pub attempts: u32,
    /// The pauses between tries, with jitter; four times as long between attempts to connect again.
    pub backoff: Backoff,
    /// On how many sessions units that have no row in common go side by side. SQLite has one writer, so there it is 1, as in a
    /// dry run.
    pub sessions: usize,
    /// How old the look at the heartbeats must be before anything is written that rests on somebody's silence: longer than from one
    /// beat to the next. Zero does not wait.
    pub heartbeat_wait: Duration,
    /// How old a batch may be when a unit of it begins: what its intents promised has an end, and rows that others hold for long use it
    /// up. The units that are left then get new intents, in a batch of their own.
    pub begins_within: Duration,
    /// How long a session waits for another transaction's lock, as it was opened.
    pub lock_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Write,
            batch_size: 100,
            attempts: 6,
            backoff: Backoff { first: Duration::from_millis(50), longest: Duration::from_millis(1600) },
            sessions: 1,
            heartbeat_wait: Duration::ZERO,
            begins_within: BEGINS_WITHIN,
            lock_timeout: SessionSettings::default().lock_timeout,
        }
    }
}

/// What happens while a run goes on, for whoever shows it.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A unit has ended.
    Ended(&'a UnitResult),
    /// A unit is tried again.
    Retry {
        /// Its number.
        unit: usize,
        /// Why.
        error: &'a DbError,
    },
    /// Before anything is written, the run waits for heartbeats of these hosts. Reported once a second, at the end with zero.
    Waiting {
        /// The hosts.
        hosts: &'a [String],
        /// How much longer, in whole seconds.
        seconds: u64,
    },
    /// Another session could not be had; the run goes on with those that there are.
    FewerSessions(&'a DbError),
}

/// Why a run stopped before its last unit.
#[derive(Debug)]
pub enum Failure {
    /// The log could not be written before a change: nothing was changed without a record.
    LogBefore(AuditError),
    /// The log could not be completed after changes were made.
    LogAfter(AuditError),
    /// The database is out of reach, or refuses everything alike.
    Database(DbError),
    /// One unit after the other failed for want of a lock.
    LockedOut(DbError),
    /// A signal asked for an end.
    Interrupted,
}

/// A run as it ended.
#[derive(Debug)]
pub struct Run {
    /// One result a unit, in order.
    pub results: Vec<UnitResult>,
    /// Why it stopped early, if it did.
    pub failure: Option<Failure>,
    /// Every unit that failed did so for want of a lock.
    pub locks_only: bool,
    /// Who held the lock that a unit could not get, as far as the server tells: a sentence each; hostile text.
    pub lock_holders: Vec<String>,
}

impl Run {
    /// How many units ended how.
    pub fn tally(&self) -> Tally {
        Tally::of(self.results.iter().map(|result| &result.outcome))
    }
}

/// Carries out one plan.
pub struct Executor<'a> {
    /// Opens another session when the first one is lost, or does not suffice.
    pub connect: Connect<'a>,
    /// What the database has.
    pub schema: &'a Schema,
    /// The pass over `backups` that preceded the run.
    pub census: &'a Census,
    /// How.
    pub options: Options,
    /// Asked between units, never within one.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// The last look at the storage before a unit that rests on a check.
    pub storage: &'a dyn Precheck,
    /// Receives what happens.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

/// How many units in a row may fail to get a lock before the next ones are only tried, with the shortest wait that the engine has.
const WAIT_IN_VAIN: usize = 3;
/// How many units in a row fail for want of a lock before the run is stopped. A file is locked as a whole.
const LOCKED_OUT: usize = 13;
/// How long a session waits for a lock so that another session can see who holds it.
const SEE_HOLDERS: Duration = Duration::from_secs(2);

/// How a run's units have ended so far, by their places in the plan.
struct UnitResults {
    results: Vec<Option<UnitResult>>,
    /// Those that have an intent on record.
    intended: BTreeSet<usize>,
    /// The units that failed to get a lock.
    lock_failures: Vec<usize>,
}

impl UnitResults {
    fn set(&mut self, place: usize, result: UnitResult) {
        if let Some(slot) = self.results.get_mut(place) {
            *slot = Some(result);
        }
    }
}

/// What a session at work tells.
enum WorkerEvent {
    /// A unit is tried again.
    Retry { unit: usize, error: DbError },
    /// A unit has ended.
    Ended(Box<EndedUnit>),
    /// The clock and the heartbeats could not be read: the run cannot go on.
    Lost(DbError),
    /// Too many units failed for want of a lock.
    LockedOut(DbError),
}

/// How a unit ended.
struct EndedUnit {
    /// Its place in the batch.
    place: usize,
    result: UnitResult,
    done: Transaction,
    /// What made it fail, if it failed.
    error: Option<DbError>,
}

/// The units of a batch, for whichever session is free.
struct Work<'a> {
    units: &'a [Unit],
    rows: &'a [UnitRows],
    rechecks: &'a StorageRechecks,
    groups: Mutex<VecDeque<Vec<usize>>>,
    /// A unit has begun: however long that took, each batch does something.
    begun: AtomicBool,
    /// Nobody begins another unit.
    halt: AtomicBool,
}

impl Work<'_> {
    fn next(&self) -> Option<Vec<usize>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn halt(&self) {
        self.halt.store(true, Ordering::SeqCst);
    }

    /// Works on this session until there is nothing left to begin.
    fn run(&self, worker: Worker<'_>, session: &mut Box<dyn Session>, mut known: TimedSituation, tell: &mut dyn FnMut(WorkerEvent)) {
        while let Some(group) = self.next() {
            for place in group {
                if self.halt.load(Ordering::SeqCst) || (worker.stop)() {
                    return;
                }
                // What is left is for another batch.
                if self.begun.swap(true, Ordering::SeqCst) && worker.is_late() {
                    return;
                }
                let (Some(unit), Some(rows)) = (self.units.get(place), self.rows.get(place)) else { continue };
                if let Some(why) = self.rechecks.moved(unit) {
                    let result = untouched(unit, Outcome::Changed, why);
                    tell(WorkerEvent::Ended(Box::new(EndedUnit { place, result, done: Transaction::default(), error: None })));
                    continue;
                }
                // Units may have waited long for locks, and a batch may be large.
                if known.is_old() {
                    match worker.read_situation(session) {
                        Ok(now) => known = now,
                        Err(error) => {
                            self.halt();
                            tell(WorkerEvent::Lost(error));
                            return;
                        }
                    }
                }
                let only_tried = worker.state.locked_out.load(Ordering::SeqCst) >= WAIT_IN_VAIN;
                if only_tried {
                    // The unit itself finds out what follows from that.
                    let _ = session.set_lock_timeout(Duration::ZERO);
                }
                let (result, done, error) = worker.unit(session, unit, rows, &mut known, &mut |error| {
                    tell(WorkerEvent::Retry { unit: unit.number, error: error.clone() });
                });
                if only_tried {
                    let _ = session.set_lock_timeout(worker.options.lock_timeout);
                }
                let locked_out = match &error {
                    Some(error) if error.kind == DbErrorKind::LockTimeout => worker.state.locked_out.fetch_add(1, Ordering::SeqCst) + 1,
                    _ => {
                        worker.state.locked_out.store(0, Ordering::SeqCst);
                        0
                    }
                };
                let whole_file = session.server().engine == Engine::Sqlite;
                {
                    let mut written = worker.state.written.write().unwrap_or_else(PoisonError::into_inner);
                    match result.outcome {
                        Outcome::Applied => written.record(&done.before, &done.after),
                        Outcome::Planned => written.record(&done.before, &intended(&done.before, &done.changes)),
                        _ => {}
                    }
                }
                let hopeless = result.outcome != Outcome::Unknown && error.as_ref().is_some_and(is_hopeless);
                let given_up = locked_out >= if whole_file { 1 } else { LOCKED_OUT };
                if hopeless || given_up {
                    self.halt();
                }
                if let (true, Some(error)) = (given_up, &error) {
                    tell(WorkerEvent::LockedOut(error.clone()));
                }
                tell(WorkerEvent::Ended(Box::new(EndedUnit { place, result, done, error })));
                if hopeless || given_up {
                    return;
                }
            }
        }
    }
}

/// What makes one unit fail would make every other one fail, too.
fn is_hopeless(error: &DbError) -> bool {
    use DbErrorKind::{Authentication, Connection, NotPrimary, Privilege, Schema};
    matches!(error.kind, Privilege | Authentication | NotPrimary | Connection | Schema) || error.is_fatal()
}

impl<'a> Executor<'a> {
    /// Carries out the plan's units in order; those that go side by side in any order. The session is replaced when it is lost.
    pub fn run(&mut self, session: &mut Box<dyn Session>, plan: &Plan, journal: &mut dyn Journal) -> Run {
        let units = &plan.units;
        let mut ends = UnitResults { results: units.iter().map(|_| None).collect(), intended: BTreeSet::new(), lock_failures: Vec::new() };
        let state = RunState::default();
        let mut more = Vec::new();
        let mut failure = self.wait_for_heartbeats(session, plan, &state).err();
        let size = self.options.batch_size.max(1);
        let mut batches: VecDeque<Range<usize>> =
            (0..units.len()).step_by(size).map(|from| from..from.saturating_add(size).min(units.len())).collect();
        while let Some(batch) = batches.pop_front() {
            if (self.stop)() {
                failure.get_or_insert(Failure::Interrupted);
            }
            if failure.is_some() {
                break;
            }
            match self.batch(session, &mut more, plan, batch, journal, &state, &mut ends) {
                // In front of what comes after them in the plan.
                Ok(late) => late.into_iter().rev().for_each(|range| batches.push_front(range)),
                Err(why) => failure = Some(why),
            }
        }
        let UnitResults { results, intended, lock_failures } = ends;
        let mut run = Run { results: Vec::with_capacity(units.len()), failure, locks_only: false, lock_holders: Vec::new() };
        for (place, (unit, result)) in units.iter().zip(results).enumerate() {
            run.results.push(match result {
                Some(result) => result,
                None if intended.contains(&place) => self.end_unbegun(unit, journal, &mut run.failure),
                // What was never reached was not written; no intent of it is on record either.
                None => not_begun(unit),
            });
        }
        if !intended.is_empty()
            && !matches!(run.failure, Some(Failure::LogBefore(_) | Failure::LogAfter(_)))
            && let Err(error) = journal.sync()
        {
            run.failure = Some(Failure::LogAfter(error));
        }
        let well = |outcome| matches!(outcome, Outcome::Applied | Outcome::Planned | Outcome::NotBegun);
        let bad = run.results.iter().filter(|result| !well(result.outcome)).count();
        run.locks_only = !lock_failures.is_empty() && lock_failures.len() == bad;
        if let Some(place) = lock_failures.last() {
            run.lock_holders = self.lock_holders(session, plan, *place);
        }
        run
    }

    /// Gives those whose silence the plan rests on the time to beat; each unit then looks whether they have.
    fn wait_for_heartbeats(&mut self, session: &mut Box<dyn Session>, plan: &Plan, state: &RunState) -> Result<(), Failure> {
        let hosts = heartbeat_wait::silent_hosts(plan);
        if self.options.mode == Mode::DryRun || self.options.heartbeat_wait.is_zero() || hosts.is_empty() {
            return Ok(());
        }
        let options = self.options.clone();
        let worker = self.worker(&options, plan, state);
        let known = worker.read_situation(session).map_err(Failure::Database)?;
        let span = heartbeat_wait::span(plan, &hosts, known.services(), self.options.heartbeat_wait);
        let span = heartbeat_wait::left(plan, known.now(), span);
        if span.is_zero() {
            return Ok(());
        }
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let (begun, mut told) = (Instant::now(), None);
        let waited = loop {
            let left = span.saturating_sub(begun.elapsed());
            let seconds = left.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX);
            if told.replace(seconds) != Some(seconds) {
                (self.progress)(Progress::Waiting { hosts: &hosts, seconds });
            }
            if left.is_zero() {
                break Ok(());
            }
            if (self.stop)() {
                break Err(Failure::Interrupted);
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        };
        if waited.is_err() {
            (self.progress)(Progress::Waiting { hosts: &hosts, seconds: 0 });
        }
        waited
    }

    /// The end of a unit that has an intent on record and never begins.
    fn end_unbegun(&mut self, unit: &Unit, journal: &mut dyn Journal, failure: &mut Option<Failure>) -> UnitResult {
        let result = not_begun(unit);
        if !matches!(failure, Some(Failure::LogBefore(_) | Failure::LogAfter(_)))
            && let Err(error) = journal.append(outcome(&result, Transaction::default()))
        {
            *failure = Some(Failure::LogAfter(error));
        }
        (self.progress)(Progress::Ended(&result));
        result
    }

    /// One batch of units; answers with those that it was too late for.
    #[allow(clippy::too_many_arguments)]
    fn batch(
        &mut self,
        session: &mut Box<dyn Session>,
        more: &mut Vec<Box<dyn Session>>,
        plan: &Plan,
        places: Range<usize>,
        journal: &mut dyn Journal,
        state: &RunState,
        ends: &mut UnitResults,
    ) -> Result<Vec<Range<usize>>, Failure> {
        let batch = plan.units.get(places.clone()).unwrap_or_default();
        // A storage may take its time; what the log gives the units to write begins with the look at the database.
        let rechecks = StorageRechecks::at(self.storage, plan, batch);
        if (self.stop)() {
            return Err(Failure::Interrupted);
        }
        let options = self.options.clone();
        let worker = self.worker(&options, plan, state);
        let known = worker.read_situation(session).map_err(Failure::Database)?;
        let worker = Worker { until: Some(known.until()), ..worker };
        let writing = self.options.mode == Mode::Write;
        if writing {
            let engine = session.server().engine;
            for (place, unit) in places.clone().zip(batch) {
                let mut intent = intent(unit, plan.columns, engine, known.window(unit));
                intent.evidence.extend(rechecks.evidence(unit));
                journal.append(Event::Intent(Box::new(intent))).map_err(Failure::LogBefore)?;
                ends.intended.insert(place);
            }
            journal.sync().map_err(Failure::LogBefore)?;
        }
        let rows: Vec<UnitRows> = batch.iter().map(|unit| UnitRows::of(unit, plan, self.census, self.schema.columns)).collect();
        let groups = groups(&rows);
        let lanes = self.lanes(session, more, groups.len());
        // On one session the order is the plan's.
        let groups = if lanes == 1 { (0..batch.len()).map(|place| vec![place]).collect() } else { groups.into() };
        let work = Work {
            units: batch,
            rows: &rows,
            rechecks: &rechecks,
            groups: Mutex::new(groups),
            begun: AtomicBool::new(false),
            halt: AtomicBool::new(false),
        };

        let mut failure = None;
        let progress = &mut *self.progress;
        let mut take = |told: WorkerEvent| match told {
            WorkerEvent::Retry { unit, error } => progress(Progress::Retry { unit, error: &error }),
            WorkerEvent::Lost(error) => {
                failure.get_or_insert(Failure::Database(error));
            }
            WorkerEvent::LockedOut(error) => {
                failure.get_or_insert(Failure::LockedOut(error));
            }
            WorkerEvent::Ended(end) => {
                let EndedUnit { place, mut result, done, error } = *end;
                result.last_look = batch.get(place).and_then(|unit| rechecks.evidence(unit));
                if let Some(error) = error {
                    if error.is_retryable() || error.kind == DbErrorKind::Timeout {
                        ends.lock_failures.push(places.start + place);
                    }
                    if is_hopeless(&error) && result.outcome != Outcome::Unknown {
                        failure.get_or_insert(Failure::Database(error));
                    }
                }
                // At once: should this process be killed, the rows alone seldom prove who wrote them.
                if writing
                    && !matches!(failure, Some(Failure::LogAfter(_)))
                    && let Err(error) = journal.append(outcome(&result, done)).and_then(|()| journal.flush())
                {
                    work.halt();
                    failure = Some(Failure::LogAfter(error));
                }
                progress(Progress::Ended(&result));
                ends.set(places.start + place, result);
            }
        };
        let sessions = std::iter::once(session).chain(more.iter_mut()).take(lanes);
        parallel::for_each(lanes, sessions, |session, send| work.run(worker, session, known.clone(), send), &mut take);
        if failure.is_none() && (self.stop)() {
            failure = Some(Failure::Interrupted);
        }
        // In a batch that went to its end, what has not begun was late. Otherwise it will not begin any more, and ends with the run.
        let mut late: Vec<Range<usize>> = Vec::new();
        for place in places.filter(|place| ends.results.get(*place).is_some_and(Option::is_none)) {
            match late.last_mut().filter(|range| range.end == place) {
                Some(range) => range.end += 1,
                None => late.push(place..place + 1),
            }
        }
        if writing && !matches!(failure, Some(Failure::LogAfter(_))) {
            journal.sync().map_err(Failure::LogAfter)?;
        }
        failure.map_or(Ok(late), Err)
    }

    /// What the sessions of a batch that begins now work with.
    fn worker<'w>(&self, options: &'w Options, plan: &'w Plan, state: &'w RunState) -> Worker<'w>
    where
        'a: 'w,
    {
        let Self { connect, schema, census, stop, .. } = *self;
        Worker { connect, schema, census, options, stop, plan, state, begun: Instant::now(), until: None }
    }

    /// Who holds the locks on a unit's rows, as far as the server tells: another session looks while this one waits for them.
    fn lock_holders(&self, session: &mut Box<dyn Session>, plan: &Plan, place: usize) -> Vec<String> {
        if session.server().engine == Engine::Sqlite {
            return session.lock_holders();
        }
        let Some(unit) = plan.units.get(place) else { return Vec::new() };
        let rows = UnitRows::of(unit, plan, self.census, self.schema.columns);
        let Ok(mut other) = (self.connect)() else { return Vec::new() };
        let schema = self.schema;
        let wait = move || -> Result<(), DbError> {
            session.set_lock_timeout(SEE_HOLDERS)?;
            session.begin(Access::Write)?;
            let _ = LockedRows::read(&mut Reader { session: session.as_mut(), schema }, &rows, Lock::Held, false);
            session.rollback()
        };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(wait);
            loop {
                let holders = other.lock_holders();
                if !holders.is_empty() || waiting.is_finished() {
                    return holders;
                }
                // InnoDB refreshes these tables only when nobody has read them for a tenth of a second.
                std::thread::sleep(Duration::from_millis(250));
            }
        })
    }

    /// On how many sessions a batch of so many groups is carried out; opens those that are missing.
    fn lanes(&mut self, session: &mut Box<dyn Session>, more: &mut Vec<Box<dyn Session>>, groups: usize) -> usize {
        let one = self.options.mode == Mode::DryRun || session.server().engine == Engine::Sqlite;
        let wanted = if one { 1 } else { self.options.sessions.min(groups).max(1) };
        while more.len() + 1 < wanted {
            match (self.connect)() {
                Ok(another) => more.push(another),
                Err(error) => {
                    (self.progress)(Progress::FewerSessions(&error));
                    self.options.sessions = more.len() + 1;
                    break;
                }
            }
        }
        wanted.min(more.len() + 1)
    }
}

fn not_begun(unit: &Unit) -> UnitResult {
    untouched(unit, Outcome::NotBegun, NOT_BEGUN.to_owned())
}

/// A unit that no transaction was begun for.
fn untouched(unit: &Unit, outcome: Outcome, reason: String) -> UnitResult {
    ended(unit, outcome, Some(reason), Vec::new(), &Transaction::default())
}

/// The record of what became of a unit.
fn outcome(result: &UnitResult, done: Transaction) -> Event {
    Event::Outcome(Box::new(UnitOutcome {
        unit: result.unit,
        outcome: if result.outcome == Outcome::NotBegun { Outcome::Refused } else { result.outcome },
        reason: result.reason.clone(),
        moved: result.moved.clone(),
        before: done.before,
        changes: done.changes,
        after: done.after,
        sent_to: done.sent_to,
    }))
}

/// The record of what is about to be done.
fn intent(unit: &Unit, columns: ColumnSet, engine: Engine, window: Window) -> Intent {
    Intent {
        unit: unit.number,
        kind: unit.kind,
        id: unit.id.clone(),
        name: unit.name.clone(),
        evidence: unit.evidence.clone(),
        before: unit.before.clone(),
        changes: unit.changes.clone(),
        statements: statements(unit, columns, engine),
        window: Some(window),
    }
}

/// The guarded UPDATEs of a unit as they will be run, with the values in place.
fn statements(unit: &Unit, columns: ColumnSet, engine: Engine) -> Vec<StatementText> {
    by_row(&unit.changes)
        .into_iter()
        .filter_map(|((table, id), changes)| {
            let image = unit.before.iter().find(|image| image.table == table && image.id == id)?;
            let write = update(columns, image, &changes);
            let sql = inline(write.statement.text(engine), engine, &write.params, true).unwrap_or_else(|error| error.to_string());
            Some(StatementText { name: write.statement.name.to_owned(), sql })
        })
        .collect()
}
