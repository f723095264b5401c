//! The executor: a plan's units in batches, one transaction each, on one session or on several at once.
//!
//! Several sessions share the waiting: a server writes commits that arrive together to the disk together. Only units that have no row in
//! common are executed side by side, and only this thread writes the log.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Journal;
use super::batch::{Batch, Recorder, UnitResults, WorkerEvent};
use super::heartbeat_wait::{self, SilentHosts};
use super::locked_rows::LockedRows;
use super::options::{Connect, Mode, Options};
use super::progress::{Failure, Progress, Run};
use super::records::{intent, not_begun, outcome};
use super::storage_recheck::{Precheck, StorageRechecks};
use super::throttle::Throttle;
use super::undo_guard::UndoGuard;
use super::unit_rows::UnitRows;
use super::worker::{TimedSituation, Transaction, Worker};
use super::written::{RunState, SharedRows};
use crate::audit::AuditError;
use crate::audit::record::Event;
use crate::db::schema::Schema;
use crate::db::{Access, DbError, Engine, Session};
use crate::domain::UnitResult;
use crate::parallel;
use crate::plan::{Plan, Unit};
use crate::scan::{Census, Reader};

/// How long a session waits for a lock so that another session can see who holds it.
const SEE_HOLDERS: Duration = Duration::from_secs(2);

/// How long a run that waits for others does not look again.
const HOLD: Duration = Duration::from_secs(1);

/// Executes one plan.
pub struct Executor<'a> {
    /// Opens another session if the first one is lost, or several are wanted.
    pub connect: Connect<'a>,
    /// What the database has.
    pub schema: &'a Schema,
    /// The pass over `backups` that preceded the run.
    pub census: &'a Census,
    /// How.
    pub options: Options,
    /// Whether to stop; asked between units, never within one.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Prechecks the storage before a unit that depends on a check.
    pub storage: &'a dyn Precheck,
    /// What it waits for between batches.
    pub throttle: Throttle,
    /// Receives what happens.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

/// One run of a plan: what its batches share.
struct PlanRun<'r> {
    plan: &'r Plan,
    session: &'r mut Box<dyn Session>,
    /// Further sessions, opened when a batch can use them.
    more: Vec<Box<dyn Session>>,
    journal: &'r mut dyn Journal,
    state: RunState,
    results: UnitResults,
}

impl<'a> Executor<'a> {
    /// Executes the plan's units in order; those that are executed side by side in any order. The session is replaced when it is lost.
    pub fn run(&mut self, session: &mut Box<dyn Session>, plan: &Plan, journal: &mut dyn Journal) -> Run {
        let results = UnitResults::new(plan.units.len());
        let mut run = PlanRun { plan, session, more: Vec::new(), journal, state: RunState::default(), results };
        let failure =
            self.prepare(&mut run).and_then(|hosts| self.wait_for_heartbeats(&mut run, &hosts)).and_then(|()| self.batches(&mut run));
        self.finish(run, failure.err())
    }

    fn batches(&mut self, run: &mut PlanRun<'_>) -> Result<(), Failure> {
        let (units, size) = (run.plan.units.len(), self.options.batch_size.max(1));
        let mut batches: VecDeque<Range<usize>> = (0..units).step_by(size).map(|from| from..from.saturating_add(size).min(units)).collect();
        while let Some(places) = batches.pop_front() {
            if (self.stop)() {
                return Err(Failure::Interrupted);
            }
            self.hold(run)?;
            // Units that were too late for their batch go before the units that follow them in the plan.
            self.batch(run, places)?.into_iter().rev().for_each(|late| batches.push_front(late));
        }
        Ok(())
    }

    /// Waits as long as the throttle says.
    fn hold(&mut self, run: &mut PlanRun<'_>) -> Result<(), Failure> {
        if self.options.mode == Mode::DryRun {
            return Ok(());
        }
        let mut has_waited = false;
        while let Some(obstacle) = self.throttle.obstacle(run.session.as_mut()).map_err(Failure::Database)? {
            has_waited = true;
            (self.progress)(Progress::Held(Some(&obstacle)));
            let until = Instant::now() + HOLD;
            while Instant::now() < until {
                if (self.stop)() {
                    (self.progress)(Progress::Held(None));
                    return Err(Failure::Interrupted);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        if has_waited {
            (self.progress)(Progress::Held(None));
        }
        Ok(())
    }

    /// Ends the units that never began, completes the log and sums the run up.
    fn finish(&mut self, run: PlanRun<'_>, mut failure: Option<Failure>) -> Run {
        let PlanRun { plan, session, journal, mut results, .. } = run;
        if let Err(error) = self.end_others(plan, journal, &mut results, &mut failure) {
            failure.get_or_insert(Failure::Spool(error));
        }
        if !results.intended.is_empty()
            && !matches!(failure, Some(Failure::LogBefore(_) | Failure::LogAfter(_)))
            && let Err(error) = journal.sync()
        {
            failure = Some(Failure::LogAfter(error));
        }
        let (tally, lock_failures) = (results.tally, &results.lock_failures);
        let well = tally.applied + tally.planned + tally.not_begun;
        let locks_only = !lock_failures.is_empty() && lock_failures.len() == tally.total() - well;
        let lock_holders = lock_failures.last().map(|place| self.lock_holders(session, plan, *place)).unwrap_or_default();
        Run { results: results.in_order(), tally, failure, locks_only, lock_holders }
    }

    /// Ends the units that have not ended.
    fn end_others(
        &mut self,
        plan: &Plan,
        journal: &mut dyn Journal,
        results: &mut UnitResults,
        failure: &mut Option<Failure>,
    ) -> io::Result<()> {
        for places in results.open(0..plan.units.len()) {
            for (place, unit) in places.clone().zip(plan.units.parts::<Unit>(places)) {
                let unit = unit?;
                // If it was never reached, nothing was written, not even an intent.
                let intended = results.intended.contains(&place);
                let result = if intended { self.end_unbegun(&unit, journal, failure) } else { not_begun(&unit) };
                results.add(place, &result)?;
            }
        }
        Ok(())
    }

    /// Reads all units once, for what they have in common; returns the hosts whose silence the plan depends on.
    fn prepare(&self, run: &mut PlanRun<'_>) -> Result<BTreeSet<String>, Failure> {
        let plan = run.plan;
        let mut hosts = SilentHosts::of(plan);
        let (mut shared, mut guard) = (SharedRows::default(), UndoGuard::of(plan));
        for unit in &plan.units {
            let unit = unit.map_err(Failure::Spool)?;
            hosts.add(&unit);
            guard.add(&unit);
            let rows = UnitRows::of(&unit, plan, self.census, self.schema.columns);
            shared.add(rows.all().chain(rows.parent()));
        }
        run.state = RunState::new(shared, guard);
        Ok(hosts.hosts)
    }

    /// Waits for a heartbeat of the hosts whose silence the plan depends on; each unit then checks whether there was one.
    fn wait_for_heartbeats(&mut self, run: &mut PlanRun<'_>, hosts: &BTreeSet<String>) -> Result<(), Failure> {
        let plan = run.plan;
        if self.options.mode == Mode::DryRun || self.options.heartbeat_wait.is_zero() || hosts.is_empty() {
            return Ok(());
        }
        let options = self.options.clone();
        let worker = self.worker(&options, plan, &run.state);
        let known = worker.read_situation(run.session).map_err(Failure::Database)?;
        let span = heartbeat_wait::span(plan, hosts, &known.situation.services, self.options.heartbeat_wait);
        let span = heartbeat_wait::left(plan, known.situation.now, span);
        if span.is_zero() {
            return Ok(());
        }
        let hosts: Vec<String> = hosts.iter().cloned().collect();
        let (begun, mut reported) = (Instant::now(), None);
        loop {
            let left = span.saturating_sub(begun.elapsed());
            let seconds = left.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX);
            if reported.replace(seconds) != Some(seconds) {
                (self.progress)(Progress::Waiting { hosts: &hosts, seconds });
            }
            if left.is_zero() {
                return Ok(());
            }
            if (self.stop)() {
                (self.progress)(Progress::Waiting { hosts: &hosts, seconds: 0 });
                return Err(Failure::Interrupted);
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// The end of a unit that has an intent on record and never begins.
    fn end_unbegun(&mut self, unit: &Unit, journal: &mut dyn Journal, failure: &mut Option<Failure>) -> UnitResult {
        let result = not_begun(unit);
        if !failure.as_ref().is_some_and(Failure::is_of_log)
            && let Err(error) = journal.append(outcome(&result, Transaction::default()))
        {
            *failure = Some(Failure::LogAfter(error));
        }
        (self.progress)(Progress::Ended(&result));
        result
    }

    /// Executes one batch of units; returns those that it was too late for.
    fn batch(&mut self, run: &mut PlanRun<'_>, places: Range<usize>) -> Result<Vec<Range<usize>>, Failure> {
        let plan = run.plan;
        let units = plan.units.read(places.clone()).map_err(Failure::Spool)?;
        // The storage may take its time, so it is read before the database: the time that the log gives the units to write begins then.
        let rechecks = StorageRechecks::of(self.storage, plan, &units);
        if (self.stop)() {
            return Err(Failure::Interrupted);
        }
        let begun = Instant::now();
        let options = self.options.clone();
        let known = self.worker(&options, plan, &run.state).read_situation(run.session).map_err(Failure::Database)?;
        let writing = self.options.mode == Mode::Write;
        if writing {
            write_intents(run, (places.start, &units), &rechecks, &known).map_err(Failure::LogBefore)?;
        }
        let rows = units.iter().map(|unit| UnitRows::of(unit, plan, self.census, self.schema.columns)).collect();
        let mut batch = Batch::new(&units, rows, &rechecks);
        let number = self.open_sessions(run, batch.groups());
        let batch = if number == 1 { batch.in_plan_order() } else { batch };
        let worker = Worker { begun, until: Some(known.until()), ..self.worker(&options, plan, &run.state) };
        let (first, journal, results) = (places.start, &mut *run.journal, &mut run.results);
        let mut recorder = Recorder { batch: &batch, first, writing, journal, results, progress: &mut *self.progress, failure: None };
        let sessions = std::iter::once(&mut *run.session).chain(run.more.iter_mut()).take(number);
        let work = |session, send: &mut dyn FnMut(WorkerEvent)| batch.run(worker, session, known.clone(), send);
        if self.options.sessions > 1 {
            // Outcomes are recorded beside the work, also where only one session can write.
            parallel::beside(number, sessions, work, |event| recorder.take(event));
        } else {
            parallel::for_each(number, sessions, work, |event| recorder.take(event));
        }
        let failure = recorder.failure.or_else(|| (self.stop)().then_some(Failure::Interrupted));
        if writing && !matches!(failure, Some(Failure::LogAfter(_))) {
            run.journal.sync().map_err(Failure::LogAfter)?;
        }
        // If the batch went to its end, the units that have not begun were late. Otherwise they end with the run.
        failure.map_or_else(|| Ok(run.results.open(places)), Err)
    }

    /// What the sessions of a batch work with.
    fn worker<'w>(&self, options: &'w Options, plan: &'w Plan, state: &'w RunState) -> Worker<'w>
    where
        'a: 'w,
    {
        let Self { connect, schema, census, stop, .. } = *self;
        Worker { connect, schema, census, options, stop, plan, state, begun: Instant::now(), until: None }
    }

    /// Who holds the locks on a unit's rows, if the server reports it: another session asks while this one waits for them.
    fn lock_holders(&self, session: &mut Box<dyn Session>, plan: &Plan, place: usize) -> Vec<String> {
        if session.server().engine == Engine::Sqlite {
            return session.lock_holders();
        }
        let Ok(Some(unit)) = plan.units.get(place) else { return Vec::new() };
        let rows = UnitRows::of(&unit, plan, self.census, self.schema.columns);
        let Ok(mut other) = (self.connect)() else { return Vec::new() };
        let schema = self.schema;
        let wait = move || -> Result<(), DbError> {
            session.set_lock_timeout(SEE_HOLDERS)?;
            LockedRows::begin(&mut Reader { session: session.as_mut(), schema }, &rows, Access::Write, false)?;
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

    /// The number of sessions for a batch with this many groups; opens the missing ones.
    fn open_sessions(&mut self, run: &mut PlanRun<'_>, groups: usize) -> usize {
        let one = self.options.mode == Mode::DryRun || run.session.server().engine == Engine::Sqlite;
        let wanted = if one { 1 } else { self.options.sessions.min(groups).max(1) };
        while run.more.len() + 1 < wanted {
            match (self.connect)() {
                Ok(another) => run.more.push(another),
                Err(error) => {
                    (self.progress)(Progress::FewerSessions(&error));
                    self.options.sessions = run.more.len() + 1;
                    break;
                }
            }
        }
        wanted.min(run.more.len() + 1)
    }
}

/// Writes the intents of a batch to the log, and the log to the disk.
fn write_intents(
    run: &mut PlanRun<'_>,
    (first, units): (usize, &[Unit]),
    rechecks: &StorageRechecks,
    known: &TimedSituation,
) -> Result<(), AuditError> {
    let engine = run.session.server().engine;
    for (place, unit) in (first..).zip(units) {
        let mut intent = intent(unit, run.plan.columns, engine, known.window(unit));
        intent.evidence.extend(rechecks.evidence(unit));
        run.journal.append(Event::Intent(Box::new(intent)))?;
        run.results.intended.insert(place);
    }
    run.journal.sync()
}
