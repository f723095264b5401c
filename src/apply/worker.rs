//! One unit at a time, on one session: read again under lock, decide again, change under guard, read back, commit.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use super::heartbeat_wait::depends_on_silence;
use super::locked_rows::{LockedFacts, LockedRows};
use super::recheck::{Recheck, decide_again, same_decision};
use super::reconcile::{Sent, Standing, settle_rows};
use super::undo_guard::begun_since;
use super::unit_rows::UnitRows;
use super::writes::{by_row, update};
use super::written::RunState;
use super::{Mode, Options, Settlement};
use crate::audit::record::Window;
use crate::db::schema::Schema;
use crate::db::{Access, CommitOutcome, DbError, DbErrorKind, Engine, PipelineStep, Session, StepResult};
use crate::domain::status::ERROR_DELETING;
use crate::domain::time::{is_same_moment, rfc3339};
use crate::domain::transitions::{Direction, is_allowed};
use crate::domain::{Backup, Change, FindingKind, Image, Moved, Outcome, Services, Situation, Table, UnitResult};
use crate::plan::{Plan, Purpose, Unit};
use crate::scan::{Census, Lock, Reader, row_in};

/// Opens another session on the same database.
pub type Connect<'a> = &'a (dyn Fn() -> Result<Box<dyn Session>, DbError> + Sync);

enum Attempt {
    Ended(Outcome, Option<String>, Vec<Moved>, Transaction),
    Failed(DbError),
}

/// Heartbeats older than this are looked at anew before a unit begins: a service may have come back.
const SITUATION_MAX_AGE: Duration = Duration::from_secs(2);

/// How often a unit is tried if it cannot get a lock: each try waits for the lock time-out.
const LOCK_ATTEMPTS: u32 = 2;

/// A unit writes within this time of its intent, or not at all; and the intent says so, with as much again to spare for statements that
/// are on their way: an outcome that gets lost can be settled later only if what was to happen has an end.
const WRITES_WITHIN: Duration = Duration::from_secs(300);
/// A unit begins within this time of its intent, so that waiting for locks leaves it time to write.
pub(super) const BEGINS_WITHIN: Duration = Duration::from_secs(150);
const WINDOW: SignedDuration = SignedDuration::from_secs(600);

/// The clock and the heartbeats, and since when they are known.
#[derive(Clone)]
pub(super) struct TimedSituation {
    situation: Situation,
    at: Instant,
}

impl TimedSituation {
    /// The database's clock as it was read.
    pub fn now(&self) -> jiff::civil::DateTime {
        self.situation.now
    }

    /// When the time to write ends for a unit whose intent is written now.
    pub fn until(&self) -> jiff::civil::DateTime {
        self.now().saturating_add(WINDOW)
    }

    /// The heartbeats as they were read.
    pub fn services(&self) -> &Services {
        &self.situation.services
    }

    /// Whether it is so long ago that a service may have come back meanwhile.
    pub fn is_old(&self) -> bool {
        self.at.elapsed() > SITUATION_MAX_AGE
    }

    /// When a unit whose intent is written now writes, and when its cinder-backup last beat before that.
    pub fn window(&self, unit: &Unit) -> Window {
        let services = &self.situation.services;
        let row = unit.before.iter().find(|image| image.table == Table::Backups && image.id == unit.id);
        let host = row.and_then(|row| row.value("host").as_text());
        Window {
            from: rfc3339(self.now()),
            until: rfc3339(self.until()),
            last_beat: host.map_or_else(|| services.newest_beat(), |host| services.last_beat(host)),
        }
    }
}

/// What an attempt did, as far as it got.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub before: Vec<Image>,
    pub changes: Vec<Change>,
    pub after: Vec<Image>,
    /// The server that was told to commit, where it did not answer.
    pub sent_to: Option<String>,
}

/// What every session of a run works with.
#[derive(Clone, Copy)]
pub(super) struct Worker<'a> {
    pub connect: Connect<'a>,
    pub schema: &'a Schema,
    pub census: &'a Census,
    pub options: &'a Options,
    pub stop: &'a (dyn Fn() -> bool + Sync),
    pub plan: &'a Plan,
    pub state: &'a RunState,
    /// When the batch began, before its intents were written.
    pub begun: Instant,
    /// When its units write no more, by the database's clock.
    pub until: Option<jiff::civil::DateTime>,
}

impl Worker<'_> {
    /// Whether it is too late to begin another unit of this batch.
    pub fn is_late(&self) -> bool {
        self.options.mode == Mode::Write && self.begun.elapsed() > self.options.begins_within
    }

    /// Looks at the clock and the heartbeats, on another session where the first one is lost.
    pub fn read_situation(&self, session: &mut Box<dyn Session>) -> Result<TimedSituation, DbError> {
        // A proxy that sends single SELECTs to replicas leaves those of a transaction that may write with the primary; on a replica that
        // lags, whoever beats would be silent. A file has no replicas, and such a transaction would keep others from writing.
        let at_primary = self.options.mode == Mode::Write && session.server().engine != Engine::Sqlite;
        let look = |session: &mut Box<dyn Session>| {
            if at_primary {
                session.begin(Access::Write)?;
            }
            let found = crate::scan::situation(&mut Reader { session: session.as_mut(), schema: self.schema });
            let known = found.map(|situation| TimedSituation { situation, at: Instant::now() });
            let ended = if at_primary { session.rollback() } else { Ok(()) };
            let known = known?;
            ended.map(|()| known)
        };
        let mut attempt = 1;
        loop {
            match look(session) {
                Err(error) if error.is_fatal() => {
                    *session = self.reconnect()?;
                    return look(session);
                }
                // A cluster that is busy, or a file that is locked for long, need not end a whole run.
                Err(error) if error.is_retryable() && attempt < self.attempts(&error) && !(self.stop)() => {
                    std::thread::sleep(self.options.backoff.jittered(attempt));
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// How often to try after such a failure. While unit after unit cannot get a lock, each is tried once.
    fn attempts(&self, error: &DbError) -> u32 {
        let most = match (error.kind, self.state.locked_out.load(Ordering::SeqCst)) {
            (DbErrorKind::LockTimeout, 0) => LOCK_ATTEMPTS,
            (DbErrorKind::LockTimeout, _) => 1,
            _ => u32::MAX,
        };
        self.options.attempts.min(most).max(1)
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
            std::thread::sleep(self.options.backoff.times(4).jittered(attempt));
            attempt += 1;
        }
    }

    /// One unit, tried again where the database asks for it. The error is what made it fail, if it failed; a fatal one leaves
    /// no session to go on with.
    pub fn unit(
        &self,
        session: &mut Box<dyn Session>,
        unit: &Unit,
        rows: &UnitRows,
        known: &mut TimedSituation,
        retried: &mut dyn FnMut(&DbError),
    ) -> (UnitResult, Transaction, Option<DbError>) {
        let mut attempt = 1;
        loop {
            let error = match self.attempt(session, unit, rows, &known.situation) {
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
            if !again || attempt >= self.attempts(&error) || (self.stop)() {
                return failed(unit, error);
            }
            retried(&error);
            std::thread::sleep(self.options.backoff.jittered(attempt));
            attempt += 1;
            match self.read_situation(session) {
                Ok(now) => *known = now,
                Err(error) => return failed(unit, error),
            }
        }
    }

    fn attempt(&self, session: &mut Box<dyn Session>, unit: &Unit, rows: &UnitRows, situation: &Situation) -> Attempt {
        let writing = self.options.mode == Mode::Write;
        if let Err(error) = session.begin(if writing { Access::Write } else { Access::ReadOnly }) {
            return Attempt::Failed(error);
        }
        let lock = if writing { Lock::Held } else { Lock::None };
        let (now, changes) = match self.recheck(session, unit, rows, situation, lock) {
            Ok(Recheck::Valid { now, changes }) => (now, changes),
            Ok(Recheck::RowsChanged(moved)) => {
                return roll_back(session, Outcome::Changed, "changed since the plan was made".to_owned(), moved);
            }
            Ok(Recheck::OtherDecision(why)) => return roll_back(session, Outcome::Changed, why, Vec::new()),
            Ok(Recheck::Refused(why)) => return roll_back(session, Outcome::Refused, why, Vec::new()),
            Err(error) => return give_up(session, error),
        };
        if !writing {
            let done = Transaction { before: now, changes, ..Transaction::default() };
            return match session.rollback() {
                Ok(()) => Attempt::Ended(Outcome::Planned, None, Vec::new(), done),
                Err(error) => Attempt::Failed(error),
            };
        }
        if self.begun.elapsed() > WRITES_WITHIN {
            let why =
                format!("the time to write that its record in the audit log gives it ({} s) is over; try again", WRITES_WITHIN.as_secs());
            return roll_back(session, Outcome::Failed, why, Vec::new());
        }
        self.write(session, unit, now, changes)
    }

    fn recheck(
        &self,
        session: &mut Box<dyn Session>,
        unit: &Unit,
        rows: &UnitRows,
        situation: &Situation,
        lock: Lock,
    ) -> Result<Recheck, DbError> {
        let (plan, columns) = (self.plan, self.plan.columns);
        let mut reader = Reader { session: session.as_mut(), schema: self.schema };
        let check = plan.check_of(unit);
        let mut fresh = LockedRows::read(&mut reader, rows, lock, plan.purpose == Purpose::Repair)?;
        // Not before the rows are read, which may take as long as a lock does: others have to say what they wrote.
        let written = self.state.written.read().unwrap_or_else(PoisonError::into_inner);
        if self.options.mode == Mode::DryRun {
            fresh.assume(&written.rows);
        }
        let now = match fresh.compare(unit, &written.rows, columns) {
            Ok(now) => now,
            Err(moved) => return Ok(Recheck::RowsChanged(moved)),
        };
        let (changes, direction) = match plan.purpose {
            Purpose::Undo => match fresh.unfit(unit).map_or_else(|| begun_since(&mut reader, plan, unit), |why| Ok(Some(why)))? {
                Some(why) => return Ok(Recheck::Refused(why)),
                None => (unit.changes.clone(), Direction::Either),
            },
            Purpose::Repair => {
                let by_heartbeat = depends_on_silence(unit, check, &plan.policy);
                let silent = match unit.kind {
                    FindingKind::Backup => fresh.backup(&unit.id).and_then(host_at_work),
                    FindingKind::Volume | FindingKind::Snapshot => unit.host.as_deref(),
                };
                if let Some(why) = silent.filter(|_| by_heartbeat).and_then(|host| heartbeat_since_plan(plan, host, situation)) {
                    return Ok(Recheck::Refused(why));
                }
                let facts = LockedFacts { rows: &fresh, unit, census: self.census, written: &written };
                let finding = decide_again(&facts, check, situation, &plan.policy);
                match same_decision(unit, finding, &written) {
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
        Ok(Recheck::Valid { now, changes })
    }

    fn write(&self, session: &mut Box<dyn Session>, unit: &Unit, now: Vec<Image>, changes: Vec<Change>) -> Attempt {
        let columns = self.plan.columns;
        let rows = by_row(&changes);
        let reader = Reader { session: session.as_mut(), schema: self.schema };
        // All UPDATEs, and then the look at what became of their rows: a trigger on one may write another. That a later one runs
        // although an earlier one matched nothing does no harm: all answers are looked at before anything is committed.
        let mut steps = Vec::with_capacity(rows.len() * 2);
        for ((table, id), row_changes) in &rows {
            let Some(image) = now.iter().find(|image| image.table == *table && image.id == *id) else {
                return roll_back(session, Outcome::Refused, format!("the plan has no image of {table} {id}"), Vec::new());
            };
            let write = update(columns, image, row_changes);
            steps.push(PipelineStep::Execute(write.statement, write.params));
        }
        steps.extend(rows.iter().map(|((table, id), _)| reader.row_step(*table, id, Lock::None)));
        let answers = match session.pipeline(&steps) {
            Ok(answers) => answers,
            Err(error) => return give_up(session, error),
        };
        let mut after = Vec::new();
        let (writes, looks) = answers.split_at(rows.len().min(answers.len()));
        for (((table, id), row_changes), (write, look)) in rows.iter().zip(writes.iter().zip(looks)) {
            let StepResult::Matched(matched) = *write else { continue };
            let found = row_in(look, *table, id).map(|row| row.image(columns));
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
        match session.commit() {
            CommitOutcome::Committed => {
                Attempt::Ended(Outcome::Applied, None, Vec::new(), Transaction { before, changes, after, sent_to: None })
            }
            CommitOutcome::NotCommitted(error) => Attempt::Failed(error),
            CommitOutcome::Unknown(error) => {
                let sent_to = session.node().map(str::to_owned);
                let settled = self.settle(session, (&before, &after), sent_to.as_deref(), &error, unit);
                let reason = format!("{error}; {}", settled.reason);
                // Where it stays unknown, what it was to leave is what it can be settled by later.
                let after = if settled.outcome == Outcome::Failed { Vec::new() } else { after };
                Attempt::Ended(settled.outcome, Some(reason), Vec::new(), Transaction { before, changes, after, sent_to })
            }
        }
    }

    /// After a COMMIT without an answer: opens another session and looks. Never writes.
    fn settle(
        &self,
        session: &mut Box<dyn Session>,
        (before, after): (&[Image], &[Image]),
        sent_to: Option<&str>,
        lost: &DbError,
        unit: &Unit,
    ) -> Settlement {
        let mut last = lost.clone();
        let sent = Sent { to: sent_to, until: self.until, is_over: false };
        for attempt in 1..=self.options.attempts.max(1) {
            if attempt > 1 {
                std::thread::sleep(self.options.backoff.times(4).jittered(attempt));
            }
            let mut fresh = match (self.connect)() {
                Ok(fresh) => fresh,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            let mut look = || settle_rows(fresh.as_mut(), self.schema, before, after, &sent);
            let settled = match look() {
                // Another server answers now, where the old transaction holds no lock: give it time to arrive.
                Ok(settled) if settled.standing == Standing::Before && settled.outcome == Outcome::Unknown => {
                    std::thread::sleep(Duration::from_secs(2));
                    look()
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
            standing: Standing::Hidden,
            found: Vec::new(),
        }
    }
}

/// The host whose cinder-backup would be at work on a backup. A deletion that has failed is over, whatever beats.
fn host_at_work(backup: &Backup) -> Option<&str> {
    backup.host.as_deref().filter(|_| backup.status.as_deref() != Some(ERROR_DELETING))
}

/// A heart that has beaten since the plan was made is alive, however far its clock lags behind the database's.
fn heartbeat_since_plan(plan: &Plan, host: &str, situation: &Situation) -> Option<String> {
    if plan.policy.assume_dead.covers(host) {
        return None;
    }
    let Some(then) = plan.heartbeats.get(host) else {
        return Some(format!("the plan does not say when cinder-backup on {host} last beat; make a new one"));
    };
    let now = situation.services.last_beat(host);
    (!is_same_moment(now.as_deref(), then.as_deref()))
        .then(|| format!("cinder-backup on {host} has beaten since the plan was made; scan again"))
}

fn roll_back(session: &mut Box<dyn Session>, outcome: Outcome, reason: String, moved: Vec<Moved>) -> Attempt {
    match session.rollback() {
        Ok(()) => Attempt::Ended(outcome, Some(reason), moved, Transaction::default()),
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

fn failed(unit: &Unit, error: DbError) -> (UnitResult, Transaction, Option<DbError>) {
    let done = Transaction::default();
    (ended(unit, Outcome::Failed, Some(error.to_string()), Vec::new(), &done), done, Some(error))
}

pub(super) fn ended(unit: &Unit, outcome: Outcome, reason: Option<String>, moved: Vec<Moved>, done: &Transaction) -> UnitResult {
    let changes = if done.changes.is_empty() { unit.changes.clone() } else { done.changes.clone() };
    UnitResult {
        unit: unit.number,
        kind: unit.kind,
        id: unit.id.clone(),
        name: unit.name.clone(),
        outcome,
        reason,
        moved,
        last_look: None,
        changes,
        after: done.after.clone(),
    }
}
