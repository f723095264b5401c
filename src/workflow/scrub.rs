//! `scrub run`: verifies restore points, those that were verified longest ago first, and records each result in a ledger.
//!
//! The database is read in one pass, which updates the ledger with the live backups; only rows that are new or have changed are read a second
//! time, by their ids. The due backups are then checked in portions, so that neither targets nor results of more than one portion are in
//! memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::tz::Offset;

use super::actor::seconds_now;
use super::check::STOPPED_BY_ERROR;
use super::observer::{Observer, Stop, WorkEvent, reading};
use super::targets::{read_situation, takes, targets_by_id};
use super::{Check, Database, Error, Hosts, Result, StorageSettings};
use crate::domain::status::{AVAILABLE, DELETING, ERROR_DELETING};
use crate::domain::time::parse;
use crate::domain::{Backup, CheckResult, Driver, Matched, Selection};
use crate::ledger::policy::{Outcome, Rules};
use crate::ledger::{Failure, Ledger, LedgerError, LiveRow, Pause, Queue, Queued, Run, RunLock};
use crate::parallel::lock;
use crate::scan::catalog::expected_bytes;
use crate::scan::names;
use crate::verify::{Answer, Request, Target};

/// What stopped a run that another process paused.
const PAUSED: &str = "scrub pause";
/// What stopped a run whose bytes are used up.
const MAX_BYTES: &str = "--max-bytes";
/// What stopped a run whose ledger could not be written; the error says more.
const UNWRITABLE: &str = "an error of the ledger";
/// How many backups are checked together. Each portion opens the storage anew.
const PORTION: usize = 500;
/// How many rows are taken over at a time.
const ROWS: usize = 2_000;
/// How often a run checks whether it was paused.
const PAUSE_POLL: Duration = Duration::from_secs(1);
/// The most failures of a run that its result lists.
const LISTED: usize = 10_000;

/// A run to do.
pub struct Scrub<'a> {
    pub ledger: &'a Path,
    pub request: Request,
    /// How long a verification counts, in seconds.
    pub max_age: i64,
    pub failed_only: bool,
    pub storage: StorageSettings,
    pub selection: Selection,
    pub may_be_empty: bool,
    /// Bytes of volumes.
    pub max_bytes: Option<u64>,
    /// After this time nothing more is read.
    pub deadline: Option<Instant>,
}

/// How a run ended.
pub enum Scrubbed {
    /// It did nothing, because scrubbing is paused.
    Paused(Pause),
    Done(Box<ScrubReport>),
}

pub struct ScrubReport {
    pub run: Run,
    /// The failures that it found, at most [`LISTED`].
    pub failures: Vec<Failure>,
    /// Due backups that it did not reach.
    pub left: u64,
    /// How many rows it read into the ledger, if it was stopped before it knew which backups are due.
    pub stopped_early: Option<usize>,
    /// The signal, option or command that stopped it.
    pub stopped_by: Option<&'static str>,
}

impl Scrub<'_> {
    /// Runs until everything that is due was checked, or something stops it.
    pub fn run(self, database: &mut Database, observer: &dyn Observer) -> Result<Scrubbed> {
        let path = self.ledger;
        self.locked_run(database, observer).map_err(|error| match error {
            Error::Ledger(error) => error.of(path).into(),
            other => other,
        })
    }

    fn locked_run(mut self, database: &mut Database, observer: &dyn Observer) -> Result<Scrubbed> {
        let run_lock = RunLock::take(self.ledger)?;
        let mut ledger = Ledger::open_for_run(self.ledger, &run_lock, &database.info(), seconds_now())?;
        if let Some(pause) = ledger.paused()? {
            ledger.close();
            return Ok(Scrubbed::Paused(pause));
        }
        // A killed run has left its claims.
        ledger.release(seconds_now())?;
        let run = ledger.begin_run(self.request.level, seconds_now())?;
        let mut rows_put = 0;
        let mut done = self.work(run, (&mut ledger, &mut rows_put), database, observer);
        ledger.interrupt(None::<fn() -> bool>)?;
        let stopped_early = matches!(&done, Err(Error::Ledger(error)) if error.is_interrupted()).then_some(rows_put);
        if stopped_early.is_some() {
            done = Ok((Some(super::MAX_RUNTIME), 0));
        }
        let stopped_by = match &done {
            Ok((stopped_by, _)) => *stopped_by,
            Err(_) => Some(STOPPED_BY_ERROR),
        };
        // Also after an error: the recorded results stay, and the other claims are released.
        let ended = ledger.release(seconds_now()).and_then(|()| ledger.end_run(run, seconds_now(), stopped_by));
        let (stopped_by, left) = done?;
        let (run, failures) = (ended?, ledger.failures(Some(run), LISTED)?);
        ledger.close();
        Ok(Scrubbed::Done(Box::new(ScrubReport { run, failures, left, stopped_early, stopped_by })))
    }

    /// Returns what stopped it, and how many due backups it left. Counts the rows that it reads into the ledger.
    fn work(
        &mut self,
        run: i64,
        (ledger, rows_put): (&mut Ledger, &mut usize),
        database: &mut Database,
        observer: &dyn Observer,
    ) -> Result<(Option<&'static str>, u64)> {
        ledger.interrupt(self.deadline.map(|deadline| move || Instant::now() >= deadline))?;
        reading(observer, || self.take_over(ledger, rows_put, database, observer))?;
        let rules = Rules { level: self.request.level, max_age: self.max_age, failed_only: self.failed_only, now: seconds_now() };
        let mut queue = ledger.queue(&rules, self.selection.limit)?;
        ledger.interrupt(None::<fn() -> bool>)?;
        ledger.note_due(run, queue.length)?;
        if queue.length == 0 {
            return Ok((None, 0));
        }
        observer.event(WorkEvent::Checking(rules.level, usize::try_from(queue.length).unwrap_or(usize::MAX)));
        let done = self.check_queue(run, &mut queue, (ledger, database), observer);
        observer.event(WorkEvent::CheckEnded);
        let (stopped_by, done) = done?;
        Ok((stopped_by, queue.length.saturating_sub(done)))
    }

    /// Checks portions; returns what stopped it, and how many backups have a result.
    fn check_queue(
        &self,
        run: i64,
        queue: &mut Queue,
        (ledger, database): (&mut Ledger, &mut Database),
        observer: &dyn Observer,
    ) -> Result<(Option<&'static str>, u64)> {
        let (mut done, mut bytes) = (0_u64, 0_u64);
        loop {
            if let Some(stop) = observer.stop() {
                return Ok((Some(stop.signal), done));
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok((Some(super::MAX_RUNTIME), done));
            }
            let left = self.max_bytes.map(|most| most.saturating_sub(bytes));
            // The first backup is checked even if it is larger than the limit. Otherwise it never would be.
            let portion = queue.next(ledger, PORTION, left, done == 0)?;
            if portion.is_empty() {
                let used_up = self.max_bytes.is_some() && queue.has_more(ledger)?;
                return Ok((used_up.then_some(MAX_BYTES), done));
            }
            let ids: Vec<String> = portion.iter().map(|queued| queued.id.clone()).collect();
            let mut targets = read_targets(database, &ids)?;
            let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(place, id)| (id.as_str(), place)).collect();
            targets.sort_by_key(|target| places.get(target.backup.id.as_str()).copied());
            let recorder = Recorder::new(run, self.request.settle, (&mut *ledger, &mut *database), (observer, done));
            let check = Check { storage: self.storage.clone(), request: self.request.clone(), deadline: self.deadline };
            let checked = check.run(targets.into(), &mut |answer| recorder.record(&answer), &recorder);
            let portion_done = recorder.end()?;
            let stopped_by = checked?.interrupted;
            done += portion_done.results;
            bytes = bytes.saturating_add(portion_done.bytes);
            if let Some(stopped_by) = stopped_by {
                return Ok((Some(stopped_by), done));
            }
            ledger.take_back(&portion)?;
            leave_out_silent(ledger, &portion, &portion_done.answered)?;
        }
    }

    /// Tells the ledger which backups are live, and which of them are selected. Counts the rows that it reads into the ledger.
    fn take_over(&mut self, ledger: &Ledger, rows_put: &mut usize, database: &mut Database, observer: &dyn Observer) -> Result<()> {
        let selection = &mut self.selection;
        let mut matched = Matched::default();
        let situation = read_situation(database, selection, &mut matched)?;
        if !selection.backups.is_empty() {
            let mut named = Vec::new();
            let read = |reader: &mut crate::scan::Reader<'_>| {
                reader.live_backups(&mut |backup| named.extend(Some(backup).filter(|backup| selection.names(backup))))
            };
            database.read(read)?;
            selection.backups = {
                let named = named.iter().map(|backup| (backup.id.as_str(), backup.display_name.as_deref()));
                names::resolve(&selection.backups, named).map_err(Error::Unusable)?
            };
        }
        let (pass, mut hosts, mut added) = (ledger.live_pass()?, HashSet::new(), Ok(()));
        database.read(|reader| {
            reader.live_backups_until(&mut |backup| {
                if let Some(host) = backup.host.as_ref().filter(|host| !hosts.contains(*host)) {
                    hosts.insert(host.clone());
                }
                matched.note(selection, backup.status.as_deref(), backup.project_id.as_deref(), backup.volume_id.as_deref());
                added = pass.add(&backup, wants(selection, &backup));
                if added.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        })?;
        added?;
        pass.seen_all()?;
        Hosts::of_database(&hosts, &situation.services).require(observer, selection, &matched, self.may_be_empty)?;
        let mut after = 0;
        loop {
            let (place, ids) = pass.unknown(after, ROWS)?;
            if ids.is_empty() {
                return Ok(pass.end(seconds_now())?);
            }
            after = place;
            let rows: Vec<LiveRow> = database.read(|reader| reader.backups(&ids))?.into_iter().map(live_row).collect();
            pass.put(&rows)?;
            *rows_put += rows.len();
        }
    }
}

/// Whether a backup is selected. Without a status or a name these are the restore points: what a user can restore.
fn wants(selection: &Selection, backup: &Backup) -> bool {
    let by_name = selection.backups.is_empty() || selection.backups.contains(&backup.id);
    let by_default = backup.is_restore_point() || !selection.statuses.is_empty() || !selection.backups.is_empty();
    by_name && by_default && takes(selection, backup)
}

/// What the ledger keeps of a row.
fn live_row(backup: Backup) -> LiveRow {
    let driver = backup.service.as_deref().map(|service| (Driver::of_service(service), service));
    let backend = driver.map(|(driver, service)| {
        // Each backup has a directory of its own, below one mount.
        let container = backup.container.clone().filter(|_| !driver.is_some_and(Driver::is_directory)).unwrap_or_default();
        (driver.map_or_else(|| service.to_owned(), |driver| driver.to_string()), container)
    });
    let created = backup.created_at.as_deref().and_then(parse).and_then(|at| Offset::UTC.to_timestamp(at).ok());
    LiveRow {
        bytes: i64::try_from(expected_bytes(&backup)).unwrap_or(i64::MAX),
        created_at: created.map_or(0, |at| at.as_second()),
        id: backup.id,
        parent_id: backup.parent_id,
        status: backup.status,
        project: backup.project_id,
        backend,
    }
}

/// The current rows of backups with their ancestors, on a new connection if the old one was lost while the storage was read.
fn read_targets(database: &mut Database, ids: &[String]) -> Result<Vec<Target>> {
    match targets_by_id(database, ids) {
        Err(error) if error.is_fatal() => {
            database.reconnect()?;
            Ok(targets_by_id(database, ids)?)
        }
        other => Ok(other?),
    }
}

/// Leaves out the back ends of which no backup in a portion had an answer.
fn leave_out_silent(ledger: &Ledger, portion: &[Queued], answered: &BTreeMap<String, bool>) -> Result<()> {
    let mut by_backend: BTreeMap<i64, (bool, bool)> = BTreeMap::new();
    for queued in portion {
        if let (Some(backend), Some(answered)) = (queued.backend, answered.get(&queued.id)) {
            let (any, none) = by_backend.entry(backend).or_default();
            *any |= *answered;
            *none |= !answered;
        }
    }
    for (backend, _) in by_backend.into_iter().filter(|(_, (any, none))| *none && !any) {
        ledger.leave_out(backend)?;
    }
    Ok(())
}

/// Whether a backup is what it was when its check began. Its data may have been deleted meanwhile, and then damage proves nothing.
fn is_same(then: &Target, now: &Target) -> bool {
    let same_status = then.backup.status == now.backup.status || (then.backup.is_restore_point() && now.backup.is_restore_point());
    let place = |backup: &Backup| (backup.service.clone(), backup.container.clone(), backup.service_metadata.clone());
    let chain = |target: &Target| -> Vec<String> { target.ancestors.iter().map(|ancestor| ancestor.id.clone()).collect() };
    let is_going = |target: &Target| {
        target.ancestors.iter().filter(|ancestor| matches!(ancestor.status.as_deref(), Some(DELETING | ERROR_DELETING))).count()
    };
    same_status && place(&then.backup) == place(&now.backup) && chain(then) == chain(now) && is_going(then) == is_going(now)
}

/// Records each result of a portion as it arrives.
struct Recorder<'a> {
    run: i64,
    settle: u64,
    state: Mutex<RecorderState<'a>>,
    observer: &'a dyn Observer,
    /// Results of the portions before this one.
    before: usize,
}

struct RecorderState<'a> {
    ledger: &'a mut Ledger,
    database: &'a mut Database,
    failure: Option<Error>,
    is_paused: bool,
    pause_polled: Instant,
    done: PortionDone,
}

/// What a portion did.
#[derive(Default)]
struct PortionDone {
    results: u64,
    bytes: u64,
    /// Whether each backup had an answer.
    answered: BTreeMap<String, bool>,
}

impl<'a> Recorder<'a> {
    fn new(
        run: i64,
        settle: Duration,
        (ledger, database): (&'a mut Ledger, &'a mut Database),
        (observer, before): (&'a dyn Observer, u64),
    ) -> Self {
        let state =
            RecorderState { ledger, database, failure: None, is_paused: false, pause_polled: Instant::now(), done: PortionDone::default() };
        Self { run, settle: settle.as_secs(), state: Mutex::new(state), observer, before: usize::try_from(before).unwrap_or(usize::MAX) }
    }

    fn end(self) -> Result<PortionDone> {
        let state = self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.failure.map_or(Ok(state.done), Err)
    }

    fn record(&self, answer: &Answer) {
        let mut state = lock(&self.state);
        if state.failure.is_some() {
            return;
        }
        if let Err(error) = self.try_record(&answer.result, &answer.task.target, &mut state) {
            state.failure = Some(error);
        }
    }

    fn try_record(&self, result: &CheckResult, target: &Target, state: &mut RecorderState<'_>) -> Result<()> {
        let outcome = Outcome::of(result);
        if outcome == Outcome::CutOff {
            return Ok(());
        }
        if outcome == Outcome::Failed {
            let current = read_targets(state.database, std::slice::from_ref(&result.id))?;
            if !current.first().is_some_and(|current| is_same(target, current)) {
                let text = format!("{} was changed or deleted while it was checked, so that its result says nothing", result.id);
                self.observer.event(WorkEvent::Detail(text));
                return Ok(());
            }
        }
        let mut complete = result.clone();
        if outcome == Outcome::Failed || target.backup.status.as_deref() != Some(AVAILABLE) {
            complete.rows.extend(target.rows_above());
        }
        let recorded = state.ledger.record(self.run, &complete, self.settle, seconds_now())?;
        if let Some(good) = recorded.rotted_since {
            let good = jiff::Timestamp::from_second(good).map(crate::domain::time::stamp).unwrap_or_default();
            self.observer.event(WorkEvent::Warning(format!("{} has rotted since {good}, when it was last intact", result.id)));
        }
        state.done.results += 1;
        state.done.bytes = state.done.bytes.saturating_add(result.bytes.checked);
        state.done.answered.insert(result.id.clone(), outcome != Outcome::Unanswered);
        Ok(())
    }

    fn is_paused(&self) -> bool {
        let mut state = lock(&self.state);
        if !state.is_paused && state.pause_polled.elapsed() >= PAUSE_POLL {
            state.pause_polled = Instant::now();
            match state.ledger.paused() {
                Ok(pause) => state.is_paused = pause.is_some(),
                Err(error) => state.failure = Some(LedgerError::into(error)),
            }
        }
        state.is_paused
    }
}

impl Observer for Recorder<'_> {
    fn event(&self, event: WorkEvent<'_>) {
        match event {
            WorkEvent::CheckProgress(ready, watch) => {
                self.observer.event(WorkEvent::CheckProgress(self.before.saturating_add(ready), watch))
            }
            // The run reports these for all portions.
            WorkEvent::Checking(..) | WorkEvent::CheckEnded => {}
            other => self.observer.event(other),
        }
    }

    fn stop(&self) -> Option<Stop> {
        if let Some(stop) = self.observer.stop() {
            return Some(stop);
        }
        let stop = |signal| Stop { signal, times: 1 };
        if lock(&self.state).failure.is_some() {
            return Some(stop(UNWRITABLE));
        }
        self.is_paused().then(|| stop(PAUSED))
    }
}
