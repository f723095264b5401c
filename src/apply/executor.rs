//! The executor: a plan's units, one transaction each.

use std::time::{Duration, Instant};

use rand::Rng;

use super::look::{Looked, Storage};
use super::recheck::{Fresh, Overlay, Recheck, Written, same_decision};
use super::settle::{intended, settle_rows};
use super::writes::{by_row, update};
use super::{Journal, Settlement};
use crate::audit::AuditError;
use crate::audit::record::{Event, Intent, StatementText, UnitOutcome};
use crate::db::literal::inline;
use crate::db::schema::Schema;
use crate::db::{Access, Answer, CommitOutcome, DbError, DbErrorKind, Session, Step};
use crate::domain::status::ERROR_DELETING;
use crate::domain::transitions::{Direction, is_allowed};
use crate::domain::{Backup, Change, CheckResult, ColumnSet, FindingKind, Image, Outcome, Situation, Tally, UnitResult};
use crate::plan::{Plan, Purpose, Unit};
use crate::scan::{Census, Lock, Reader, row_in};

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
    /// The first pause between tries; it doubles, with jitter, up to 32 times this.
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { mode: Mode::Write, batch_size: 100, attempts: 6, backoff: Duration::from_millis(50) }
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
    /// A signal asked for an end.
    Interrupted,
}

/// A run as it ended.
#[derive(Debug)]
pub struct Run {
    /// One result a unit, in order; units that were never reached are refused.
    pub results: Vec<UnitResult>,
    /// Why it stopped early, if it did.
    pub failure: Option<Failure>,
    /// Every unit that failed did so for want of a lock.
    pub locks_only: bool,
}

impl Run {
    /// How many units ended how.
    pub fn tally(&self) -> Tally {
        Tally::of(self.results.iter().map(|result| &result.outcome))
    }
}

/// Carries out one plan.
pub struct Executor<'a> {
    /// Opens another session when the first one is lost.
    pub connect: &'a dyn Fn() -> Result<Box<dyn Session>, DbError>,
    /// What the database has.
    pub schema: &'a Schema,
    /// The pass over `backups` that preceded the run.
    pub census: &'a Census,
    /// How.
    pub options: Options,
    /// Asked between units, never within one.
    pub stop: &'a dyn Fn() -> bool,
    /// The last look at the storage before a unit that rests on a check.
    pub storage: &'a dyn Storage,
    /// Told of what happens.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

enum Attempt {
    Ended(Outcome, Option<String>, Vec<crate::domain::Moved>, Done),
    Failed(DbError),
}

/// Heartbeats older than this are looked at anew before a unit begins: a service may have come back.
const FRESH: Duration = Duration::from_secs(2);

/// Why nothing was done to a unit that was never reached.
const NOT_BEGUN: &str = "not begun: the run ended before it";

/// The clock and the heartbeats, and since when they are known.
struct Known {
    situation: Situation,
    at: Instant,
}

/// What an attempt did, as far as it got.
#[derive(Debug, Default)]
struct Done {
    before: Vec<Image>,
    changes: Vec<Change>,
    after: Vec<Image>,
}

impl Executor<'_> {
    /// Carries out the plan's units in order. The session is replaced when it is lost.
    pub fn run(&mut self, session: &mut Box<dyn Session>, plan: &Plan, journal: &mut dyn Journal) -> Run {
        let mut run = Run { results: Vec::with_capacity(plan.units.len()), failure: None, locks_only: false };
        let mut written = Written::default();
        let mut lock_failures = 0;
        for batch in plan.units.chunks(self.options.batch_size.max(1)) {
            if (self.stop)() {
                run.failure = Some(Failure::Interrupted);
            }
            if run.failure.is_some() {
                break;
            }
            if let Err(failure) = self.batch(session, plan, batch, journal, &mut written, &mut run.results, &mut lock_failures) {
                run.failure = Some(failure);
            }
        }
        // What was never reached was not written; no intent of it is on record either.
        for unit in plan.units.iter().skip(run.results.len()) {
            run.results.push(not_done(unit, Outcome::Refused, NOT_BEGUN.to_owned()).0);
        }
        let bad = run.results.iter().filter(|result| !matches!(result.outcome, Outcome::Applied | Outcome::Planned)).count();
        run.locks_only = lock_failures > 0 && lock_failures == bad;
        run
    }

    #[allow(clippy::too_many_arguments)]
    fn batch(
        &mut self,
        session: &mut Box<dyn Session>,
        plan: &Plan,
        batch: &[Unit],
        journal: &mut dyn Journal,
        written: &mut Written,
        results: &mut Vec<UnitResult>,
        lock_failures: &mut usize,
    ) -> Result<(), Failure> {
        let looked = Looked::at(self.storage, plan, batch);
        if (self.stop)() {
            return Err(Failure::Interrupted);
        }
        let mut known = self.look(session).map_err(Failure::Database)?;
        if self.options.mode == Mode::Write {
            let engine = session.server().engine;
            for unit in batch {
                let mut intent = intent(unit, plan.columns, engine);
                intent.evidence.extend(looked.evidence(unit));
                journal.append(Event::Intent(Box::new(intent))).map_err(Failure::LogBefore)?;
            }
            journal.sync().map_err(Failure::LogBefore)?;
        }
        let mut failure = None;
        for unit in batch {
            // Units may have waited long for locks, and a batch may be large.
            if failure.is_none() && known.at.elapsed() > FRESH {
                match self.look(session) {
                    Ok(now) => known = now,
                    Err(error) => failure = Some(Failure::Database(error)),
                }
            }
            let (result, done) = if failure.is_some() {
                not_done(unit, Outcome::Refused, NOT_BEGUN.to_owned())
            } else if let Some(why) = looked.moved(unit) {
                not_done(unit, Outcome::Changed, why)
            } else {
                let (result, done, error) = self.unit(session, plan, unit, written, &mut known);
                if let Some(error) = error {
                    *lock_failures += usize::from(error.is_retryable() || error.kind == DbErrorKind::Timeout);
                    let hopeless = matches!(
                        error.kind,
                        DbErrorKind::Privilege
                            | DbErrorKind::Authentication
                            | DbErrorKind::NotPrimary
                            | DbErrorKind::Connection
                            | DbErrorKind::Schema
                    ) || error.is_fatal();
                    if hopeless && result.outcome != Outcome::Unknown {
                        failure = Some(Failure::Database(error));
                    }
                }
                (result, done)
            };
            if result.outcome == Outcome::Planned && unit.kind == FindingKind::Backup {
                written.planned.insert(unit.id.clone());
            }
            if result.outcome == Outcome::Applied {
                written.record(&done.before, &done.after);
            }
            if self.options.mode == Mode::Write {
                let outcome = UnitOutcome {
                    unit: unit.number,
                    outcome: result.outcome,
                    reason: result.reason.clone(),
                    moved: result.moved.clone(),
                    before: done.before,
                    changes: done.changes,
                    after: done.after,
                };
                let recorded = journal.append(Event::Outcome(Box::new(outcome)));
                (self.progress)(Progress::Ended(&result));
                results.push(result);
                recorded.map_err(Failure::LogAfter)?;
            } else {
                (self.progress)(Progress::Ended(&result));
                results.push(result);
            }
            if failure.is_none() && (self.stop)() {
                failure = Some(Failure::Interrupted);
            }
        }
        if self.options.mode == Mode::Write {
            journal.sync().map_err(Failure::LogAfter)?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Looks at the clock and the heartbeats, on another session where the first one is lost.
    fn look(&self, session: &mut Box<dyn Session>) -> Result<Known, DbError> {
        let look = |session: &mut Box<dyn Session>| {
            let mut reader = Reader { session: session.as_mut(), schema: self.schema };
            crate::scan::situation(&mut reader).map(|situation| Known { situation, at: Instant::now() })
        };
        match look(session) {
            Err(error) if error.is_fatal() => {
                *session = self.reconnect()?;
                look(session)
            }
            other => other,
        }
    }

    /// Another session; a server that restarts, or a proxy that changes over, is given some seconds.
    fn reconnect(&self) -> Result<Box<dyn Session>, DbError> {
        let mut attempt = 1;
        loop {
            let error = match (self.connect)() {
                Ok(fresh) => return Ok(fresh),
                Err(error) => error,
            };
            let again = matches!(error.kind, DbErrorKind::Connection | DbErrorKind::Timeout);
            if !again || attempt >= self.options.attempts.max(1) || (self.stop)() {
                return Err(DbError { fatal: true, ..error });
            }
            std::thread::sleep(jittered(self.options.backoff.saturating_mul(4), attempt));
            attempt += 1;
        }
    }

    /// One unit, tried again where the database asks for it. The error is what made it fail, if it failed; a fatal one leaves
    /// no session to go on with.
    fn unit(
        &mut self,
        session: &mut Box<dyn Session>,
        plan: &Plan,
        unit: &Unit,
        written: &Written,
        known: &mut Known,
    ) -> (UnitResult, Done, Option<DbError>) {
        let mut attempt = 1;
        loop {
            let error = match self.attempt(session, plan, unit, written, &known.situation) {
                Attempt::Ended(outcome, reason, moved, done) => {
                    return (ended(unit, outcome, reason, moved, &done), done, None);
                }
                Attempt::Failed(error) => error,
            };
            // Before COMMIT a lost connection has rolled back: the unit may be tried again on another one.
            let lost = error.is_fatal();
            if lost {
                match self.reconnect() {
                    Ok(fresh) => *session = fresh,
                    Err(another) => return failed(unit, another),
                }
            }
            let error = DbError { fatal: false, ..error };
            let again = error.is_retryable() || (lost && error.kind == DbErrorKind::Connection);
            if !again || attempt >= self.options.attempts.max(1) || (self.stop)() {
                return failed(unit, error);
            }
            (self.progress)(Progress::Retry { unit: unit.number, error: &error });
            std::thread::sleep(jittered(self.options.backoff, attempt));
            attempt += 1;
            match self.look(session) {
                Ok(now) => *known = now,
                Err(error) => return failed(unit, error),
            }
        }
    }

    fn attempt(&mut self, session: &mut Box<dyn Session>, plan: &Plan, unit: &Unit, written: &Written, situation: &Situation) -> Attempt {
        let writing = self.options.mode == Mode::Write;
        if let Err(error) = session.begin(if writing { Access::Write } else { Access::ReadOnly }) {
            return Attempt::Failed(error);
        }
        let lock = if writing { Lock::Held } else { Lock::None };
        let (now, changes) = match self.recheck(session, plan, unit, written, situation, lock) {
            Ok(Recheck::Stands { now, changes }) => (now, changes),
            Ok(Recheck::Moved(moved)) => return roll_back(session, Outcome::Changed, "changed since the plan was made".to_owned(), moved),
            Ok(Recheck::Otherwise(why)) => return roll_back(session, Outcome::Changed, why, Vec::new()),
            Ok(Recheck::Refused(why)) => return roll_back(session, Outcome::Refused, why, Vec::new()),
            Err(error) => return give_up(session, error),
        };
        if !writing {
            let done = Done { before: now, changes, after: Vec::new() };
            return match session.rollback() {
                Ok(()) => Attempt::Ended(Outcome::Planned, None, Vec::new(), done),
                Err(error) => Attempt::Failed(error),
            };
        }
        self.write(session, plan, unit, now, changes)
    }

    fn recheck(
        &self,
        session: &mut Box<dyn Session>,
        plan: &Plan,
        unit: &Unit,
        written: &Written,
        situation: &Situation,
        lock: Lock,
    ) -> Result<Recheck, DbError> {
        let columns = plan.columns;
        let mut reader = Reader { session: session.as_mut(), schema: self.schema };
        let check = plan.check_of(unit);
        let fresh = Fresh::read(&mut reader, unit, self.census, &plan.policy, lock, check, plan.purpose == Purpose::Repair)?;
        let now = match fresh.compare(unit, &written.rows, columns) {
            Ok(now) => now,
            Err(moved) => return Ok(Recheck::Moved(moved)),
        };
        let (changes, direction) = match plan.purpose {
            Purpose::Undo => (unit.changes.clone(), Direction::Either),
            Purpose::Repair => {
                // Where the storage shows that nobody is at work, a heartbeat says nothing.
                let by_heartbeat = unit.kind == FindingKind::Backup && !unit.counter && !check.is_some_and(CheckResult::shows_idle);
                let rests_on_silence = fresh.backup(&unit.id).filter(|_| by_heartbeat);
                if let Some(why) = rests_on_silence.and_then(|backup| has_beaten(plan, backup, situation)) {
                    return Ok(Recheck::Refused(why));
                }
                let finding = fresh.decide(unit, self.census, written, situation, &plan.policy, check);
                match same_decision(unit, finding, &written.rows) {
                    Ok(changes) => (changes, Direction::Forward),
                    Err(otherwise) => return Ok(otherwise),
                }
            }
        };
        // The last look before anything is written: whatever led here, only what the table of changes allows passes.
        for change in &changes {
            let row = now.iter().find(|image| image.table == change.table && image.id == change.id);
            let seen = row.is_some_and(|image| *image.value(&change.column) == change.from);
            if !seen || !is_allowed(change, direction) {
                return Ok(Recheck::Refused(format!(
                    "the change of {}.{} of {} is not one that this program makes",
                    change.table, change.column, change.id
                )));
            }
        }
        if changes.is_empty() {
            return Ok(Recheck::Refused("there is nothing to change".to_owned()));
        }
        Ok(Recheck::Stands { now, changes })
    }

    fn write(&mut self, session: &mut Box<dyn Session>, plan: &Plan, unit: &Unit, now: Vec<Image>, changes: Vec<Change>) -> Attempt {
        let columns = plan.columns;
        let rows = by_row(&changes);
        let reader = Reader { session: session.as_mut(), schema: self.schema };
        // Each UPDATE with the look at what it made of its row. That a later one runs although an earlier one matched nothing
        // does no harm: all answers are looked at before anything is committed.
        let mut steps = Vec::with_capacity(rows.len() * 2);
        for ((table, id), row_changes) in &rows {
            let Some(image) = now.iter().find(|image| image.table == *table && image.id == *id) else {
                return roll_back(session, Outcome::Refused, format!("the plan has no image of {table} {id}"), Vec::new());
            };
            let write = update(columns, image, row_changes);
            steps.push(Step::Execute(write.statement, write.params));
            steps.push(reader.row_step(*table, id, Lock::None));
        }
        let answers = match session.together(&steps) {
            Ok(answers) => answers,
            Err(error) => return give_up(session, error),
        };
        let mut after = Vec::new();
        for (((table, id), row_changes), answer) in rows.iter().zip(answers.chunks(2)) {
            let (matched, found) = match answer {
                [Answer::Matched(matched), found] => (*matched, row_in(found, *table, id).map(|row| row.image(columns))),
                _ => (0, None),
            };
            if matched != 1 {
                let why = format!("the guarded UPDATE of {table} {id} matched {matched} rows in place of 1");
                return roll_back(session, Outcome::Changed, why, Vec::new());
            }
            match found {
                Some(found) if row_changes.iter().all(|change| *found.value(&change.column) == change.to) => after.push(found),
                _ => {
                    let why = format!("the database did not store {table} {id} as it was told to");
                    return roll_back(session, Outcome::Failed, why, Vec::new());
                }
            }
        }
        if after.len() != rows.len() {
            let why = "the database did not answer every statement".to_owned();
            return roll_back(session, Outcome::Failed, why, Vec::new());
        }
        let before: Vec<Image> =
            after.iter().filter_map(|row| now.iter().find(|image| image.table == row.table && image.id == row.id)).cloned().collect();
        let transaction = session.transaction_id();
        match session.commit() {
            CommitOutcome::Committed => Attempt::Ended(Outcome::Applied, None, Vec::new(), Done { before, changes, after }),
            CommitOutcome::NotCommitted(error) => Attempt::Failed(error),
            CommitOutcome::Unknown(error) => {
                let settled = self.settle(session, &before, &after, transaction.as_deref(), &error, unit);
                let reason = format!("{error}; {}", settled.reason);
                let after = if settled.outcome == Outcome::Applied { after } else { Vec::new() };
                Attempt::Ended(settled.outcome, Some(reason), Vec::new(), Done { before, changes, after })
            }
        }
    }

    /// After a COMMIT without an answer: opens another session and looks. Never writes.
    fn settle(
        &self,
        session: &mut Box<dyn Session>,
        before: &[Image],
        after: &[Image],
        transaction: Option<&str>,
        lost: &DbError,
        unit: &Unit,
    ) -> Settlement {
        let mut last = lost.clone();
        for attempt in 1..=self.options.attempts.max(1) {
            if attempt > 1 {
                std::thread::sleep(jittered(self.options.backoff.saturating_mul(4), attempt));
            }
            let mut fresh = match (self.connect)() {
                Ok(fresh) => fresh,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            // PostgreSQL knows what became of a transaction by its id: that is proof.
            if let Some(committed) = transaction.and_then(|id| fresh.transaction_status(id).ok().flatten()) {
                *session = fresh;
                let (outcome, reason) = if committed {
                    (Outcome::Applied, "the server says that the transaction was committed")
                } else {
                    (Outcome::Failed, "the server says that the transaction was rolled back, nothing was written")
                };
                return Settlement { outcome, reason: reason.to_owned(), found: Vec::new() };
            }
            let galera = fresh.server().galera;
            let first = settle_rows(fresh.as_mut(), self.schema, before, after, &Overlay::new(), Lock::Held);
            let settled = match first {
                // On a cluster another node answers now, where the old transaction holds no lock: give it time to arrive.
                Ok(settled) if galera && settled.outcome == Outcome::Failed => {
                    std::thread::sleep(Duration::from_secs(2));
                    settle_rows(fresh.as_mut(), self.schema, before, after, &Overlay::new(), Lock::Held)
                }
                other => other,
            };
            match settled {
                Ok(settled) => {
                    *session = fresh;
                    return settled;
                }
                Err(error) => last = error,
            }
        }
        Settlement {
            outcome: Outcome::Unknown,
            reason: format!("reading again failed ({last}); `history reconcile` settles unit {} once the database is back", unit.number),
            found: Vec::new(),
        }
    }
}

/// A heart that has beaten since the plan was made is alive, however far its clock lags behind the database's.
fn has_beaten(plan: &Plan, backup: &Backup, situation: &Situation) -> Option<String> {
    // A deletion that has failed is over, whatever beats.
    if backup.status.as_deref() == Some(ERROR_DELETING) {
        return None;
    }
    let host = backup.host.as_deref().filter(|host| !plan.policy.assume_dead.covers(host))?;
    let Some(then) = plan.heartbeats.get(host) else {
        return Some(format!("the plan does not say when cinder-backup on {host} last beat; make a new one"));
    };
    let now = situation.services.last_beat(host);
    (now != *then).then(|| format!("cinder-backup on {host} has beaten since the plan was made; scan again"))
}

/// The jittered pause before try `attempt` + 1: between half and the whole of a doubling span.
fn jittered(base: Duration, attempt: u32) -> Duration {
    let whole = base.saturating_mul(1 << attempt.saturating_sub(1).min(5));
    let half = whole / 2;
    half + half.mul_f64(rand::rng().random::<f64>())
}

fn roll_back(session: &mut Box<dyn Session>, outcome: Outcome, reason: String, moved: Vec<crate::domain::Moved>) -> Attempt {
    match session.rollback() {
        Ok(()) => Attempt::Ended(outcome, Some(reason), moved, Done::default()),
        Err(error) => Attempt::Failed(error),
    }
}

fn give_up(session: &mut Box<dyn Session>, error: DbError) -> Attempt {
    if error.is_fatal() {
        return Attempt::Failed(error);
    }
    match session.rollback() {
        Ok(()) => Attempt::Failed(error),
        Err(broken) => Attempt::Failed(DbError { fatal: broken.fatal, ..error }),
    }
}

fn failed(unit: &Unit, error: DbError) -> (UnitResult, Done, Option<DbError>) {
    let done = Done::default();
    (ended(unit, Outcome::Failed, Some(error.to_string()), Vec::new(), &done), done, Some(error))
}

/// A unit that no transaction was begun for.
fn not_done(unit: &Unit, outcome: Outcome, reason: String) -> (UnitResult, Done) {
    let done = Done::default();
    (ended(unit, outcome, Some(reason), Vec::new(), &done), done)
}

fn ended(unit: &Unit, outcome: Outcome, reason: Option<String>, moved: Vec<crate::domain::Moved>, done: &Done) -> UnitResult {
    let changes = if done.changes.is_empty() { unit.changes.clone() } else { done.changes.clone() };
    UnitResult {
        unit: unit.number,
        kind: unit.kind,
        id: unit.id.clone(),
        name: unit.name.clone(),
        outcome,
        reason,
        moved,
        changes,
        after: done.after.clone(),
    }
}

/// The record of what is about to be done.
fn intent(unit: &Unit, columns: ColumnSet, engine: crate::db::Engine) -> Intent {
    Intent {
        unit: unit.number,
        kind: unit.kind,
        id: unit.id.clone(),
        name: unit.name.clone(),
        evidence: unit.evidence.clone(),
        before: unit.before.clone(),
        changes: unit.changes.clone(),
        statements: statements(unit, columns, engine),
    }
}

/// The guarded UPDATEs of a unit as they will be run, with the values in place.
pub fn statements(unit: &Unit, columns: ColumnSet, engine: crate::db::Engine) -> Vec<StatementText> {
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

/// The rows as an intent's changes were to leave them.
pub fn intended_rows(intent: &Intent) -> Vec<Image> {
    intended(&intent.before, &intent.changes)
}
