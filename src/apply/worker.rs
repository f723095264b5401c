//! One unit at a time, on one session: read again under lock, decide again, change under guard, read back, commit.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use super::Settlement;
use super::heartbeat_wait::depends_on_silence;
use super::locked_rows::{LockedFacts, LockedRows};
use super::options::{Connect, Mode, Options};
use super::recheck::{Recheck, decide_again, rebased, same_decision};
use super::reconcile::{Sent, Standing, settle_rows};
use super::undo_guard::{NewIncrements, new_increment};
use super::unit_rows::UnitRows;
use super::writes::{by_row, update};
use super::written::RunState;
use crate::audit::record::{Window, deletion_time};
use crate::db::schema::Schema;
use crate::db::{Access, CommitOutcome, DbError, DbErrorKind, Engine, PipelineStep, Session, StepResult};
use crate::domain::status::ERROR_DELETING;
use crate::domain::time::{is_same_moment, rfc3339};
use crate::domain::transitions::{Direction, is_allowed, refusal};
use crate::domain::{Backup, Change, FindingKind, Image, Moved, Outcome, Situation, Table};
use crate::plan::{Plan, Purpose, Unit};
use crate::scan::{Census, Lock, Reader, row_in};

/// Heartbeats older than this are read again before a unit begins: a service may have come back.
const SITUATION_MAX_AGE: Duration = Duration::from_secs(2);

/// How often a unit is tried if it cannot get a lock: each try waits for the lock time-out.
const LOCK_ATTEMPTS: u32 = 2;

/// A unit writes within this time of its intent, or not at all; and the intent says so, with as much again to spare for statements that
/// are on their way: an outcome that gets lost can be settled later only if what was to happen has an end.
const WRITES_WITHIN: Duration = Duration::from_secs(300);
const WINDOW: SignedDuration = SignedDuration::from_secs(600);

/// The clock, the heartbeats and the increments, and when they were read.
#[derive(Clone)]
pub(super) struct TimedSituation {
    pub situation: Situation,
    /// Increments that may have begun since the run that is undone; empty if none is undone.
    increments: Arc<NewIncrements>,
    at: Instant,
}

impl TimedSituation {
    /// When the time to write ends for a unit whose intent is written now.
    pub fn until(&self) -> jiff::civil::DateTime {
        self.situation.now.saturating_add(WINDOW)
    }

    /// Whether it is so long ago that a service may have come back meanwhile.
    pub fn is_old(&self) -> bool {
        self.at.elapsed() > SITUATION_MAX_AGE
    }

    /// The window of a unit whose intent is written now, and the last heartbeat of its cinder-backup before that.
    pub fn window(&self, unit: &Unit) -> Window {
        let services = &self.situation.services;
        let row = Image::of(&unit.before, Table::Backups, &unit.id);
        let host = row.and_then(|row| row.value("host").as_text());
        Window {
            from: rfc3339(self.situation.now),
            until: rfc3339(self.until()),
            last_beat: host.map_or_else(|| services.newest_beat(), |host| services.last_beat(host)),
        }
    }
}

/// What a transaction read and wrote, as far as it got.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub before: Vec<Image>,
    pub changes: Vec<Change>,
    pub after: Vec<Image>,
    /// The server that was told to commit, if it did not answer.
    pub sent_to: Option<String>,
}

/// How a unit ended.
#[derive(Debug)]
pub(super) struct UnitEnd {
    pub outcome: Outcome,
    pub reason: Option<String>,
    /// The columns that are not as planned.
    pub moved: Vec<Moved>,
    pub transaction: Transaction,
}

impl UnitEnd {
    /// The end of a unit that wrote nothing.
    pub fn unchanged(outcome: Outcome, reason: String) -> Self {
        Self { outcome, reason: Some(reason), moved: Vec::new(), transaction: Transaction::default() }
    }
}

/// A unit and the rows that it needs.
#[derive(Clone, Copy)]
pub(super) struct UnitJob<'a> {
    pub unit: &'a Unit,
    pub rows: &'a UnitRows,
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

    /// Reads the clock, the heartbeats and the increments, on another session if the first one is lost.
    pub fn read_situation(&self, session: &mut Box<dyn Session>) -> Result<TimedSituation, DbError> {
        // A proxy that sends single SELECTs to replicas leaves those of a transaction that may write with the primary; on a replica that
        // lags, every service would look silent. A file has no replicas, and such a transaction would keep others from writing.
        let at_primary = self.options.mode == Mode::Write && session.server().engine != Engine::Sqlite;
        let look = |session: &mut Box<dyn Session>| {
            if at_primary {
                session.begin(Access::Write)?;
            }
            let known = self.read_now(session.as_mut());
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

    fn read_now(&self, session: &mut dyn Session) -> Result<TimedSituation, DbError> {
        let mut reader = Reader { session, schema: self.schema };
        let increments = Arc::new(self.state.undo_guard.find_new_increments(&mut reader)?);
        Ok(TimedSituation { situation: crate::scan::situation(&mut reader)?, increments, at: Instant::now() })
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

    /// Executes a unit, again if the database asks for it. The error is what made it fail; after a fatal one there is no session left.
    pub fn unit(
        &self,
        session: &mut Box<dyn Session>,
        job: UnitJob<'_>,
        known: &mut TimedSituation,
        retried: &mut dyn FnMut(&DbError),
    ) -> (UnitEnd, Option<DbError>) {
        let mut attempt = 1;
        let error = loop {
            let error = match self.attempt(session, job, known) {
                Ok(end) => return (end, None),
                Err(error) => error,
            };
            // Before COMMIT, a lost connection has rolled back: the unit may be tried again on another one.
            let lost = error.is_fatal();
            if lost {
                match self.reconnect() {
                    Ok(fresh) => *session = fresh,
                    Err(another) => break another,
                }
            }
            let error = DbError { fatal: false, ..error };
            let again = error.is_retryable() || (lost && error.kind == DbErrorKind::Connection);
            if !again || attempt >= self.attempts(&error) || (self.stop)() {
                break error;
            }
            retried(&error);
            std::thread::sleep(self.options.backoff.jittered(attempt));
            attempt += 1;
            match self.read_situation(session) {
                Ok(now) => *known = now,
                Err(error) => break error,
            }
        };
        (UnitEnd::unchanged(Outcome::Failed, error.to_string()), Some(error))
    }

    fn attempt(&self, session: &mut Box<dyn Session>, job: UnitJob<'_>, known: &TimedSituation) -> Result<UnitEnd, DbError> {
        let writing = self.options.mode == Mode::Write;
        let (now, changes) = match self.recheck(session, job, known)? {
            Recheck::Valid { now, changes } => (now, changes),
            Recheck::RowsChanged(moved) => {
                let end = UnitEnd::unchanged(Outcome::Changed, "changed since the plan was made".to_owned());
                return roll_back(session, UnitEnd { moved, ..end });
            }
            Recheck::OtherDecision(why) => return roll_back(session, UnitEnd::unchanged(Outcome::Changed, why)),
            Recheck::Refused(why) => return roll_back(session, UnitEnd::unchanged(Outcome::Refused, why)),
        };
        if !writing {
            let transaction = Transaction { before: now, changes, ..Transaction::default() };
            return roll_back(session, UnitEnd { outcome: Outcome::Planned, reason: None, moved: Vec::new(), transaction });
        }
        if self.begun.elapsed() > WRITES_WITHIN {
            let why = format!("its window in the audit log ({} s) is over; try again", WRITES_WITHIN.as_secs());
            return roll_back(session, UnitEnd::unchanged(Outcome::Failed, why));
        }
        self.write(session, job.unit, now, changes)
    }

    /// Begins the unit's transaction, and decides again over its rows. After an error no transaction is open.
    fn recheck(&self, session: &mut Box<dyn Session>, job: UnitJob<'_>, known: &TimedSituation) -> Result<Recheck, DbError> {
        let UnitJob { unit, rows } = job;
        let mut reader = Reader { session: session.as_mut(), schema: self.schema };
        let access = if self.options.mode == Mode::Write { Access::Write } else { Access::ReadOnly };
        let mut locked = LockedRows::begin(&mut reader, rows, access, self.plan.purpose == Purpose::Repair)?;
        // Only after the rows are read, which may wait for a lock: by then the other sessions have recorded what they wrote.
        let written = self.state.written.read().unwrap_or_else(PoisonError::into_inner);
        if self.options.mode == Mode::DryRun {
            locked.assume(&written.rows);
        }
        let now = match locked.compare(unit, &written.rows, self.plan.columns) {
            Ok(now) => now,
            Err(moved) => return Ok(Recheck::RowsChanged(moved)),
        };
        let facts = LockedFacts { rows: &locked, unit, census: self.census, written: &written };
        let (decided, direction) = match self.plan.purpose {
            Purpose::Repair => (self.changes_of_repair(&facts, &known.situation), Direction::Forward),
            Purpose::Undo => {
                let refusal = locked.unchangeable(unit).or_else(|| new_increment(unit, &known.increments).cloned());
                (refusal.map_or_else(|| Ok(rebased(&unit.changes, &now)), |why| Err(Recheck::Refused(why))), Direction::Either)
            }
        };
        Ok(match decided.and_then(|changes| only_allowed(changes, &now, direction)) {
            Ok(changes) => Recheck::Valid { now, changes },
            Err(otherwise) => otherwise,
        })
    }

    /// The changes of a unit, decided again; an error if they are not the plan's.
    fn changes_of_repair(&self, facts: &LockedFacts<'_>, situation: &Situation) -> Result<Vec<Change>, Recheck> {
        let (plan, unit) = (self.plan, facts.unit);
        let check = plan.check_of(unit);
        let host = match unit.kind {
            FindingKind::Backup => facts.rows.backup(&unit.id).and_then(host_at_work),
            FindingKind::Volume | FindingKind::Snapshot | FindingKind::Project | FindingKind::Host => unit.host.as_deref(),
        };
        let silent = host.filter(|_| depends_on_silence(unit, check, &plan.policy));
        if let Some(why) = silent.and_then(|host| heartbeat_since_plan(plan, host, situation)) {
            return Err(Recheck::Refused(why));
        }
        same_decision(unit, decide_again(facts, check, situation, &plan.policy), facts.written)
    }

    fn write(&self, session: &mut Box<dyn Session>, unit: &Unit, now: Vec<Image>, changes: Vec<Change>) -> Result<UnitEnd, DbError> {
        let columns = self.plan.columns;
        let rows = by_row(&changes);
        let reader = Reader { session: session.as_mut(), schema: self.schema };
        // All UPDATEs before their rows are read back: a trigger on one may write another. A later UPDATE may run although an earlier one
        // matched nothing; that is harmless, because all answers are checked before COMMIT.
        let mut steps = Vec::with_capacity(rows.len() * 2);
        let deleted_at = self.until.map(|until| deletion_time(until.saturating_sub(WINDOW)));
        for ((table, id), row_changes) in &rows {
            let Some(image) = Image::of(&now, *table, id) else {
                return roll_back(session, UnitEnd::unchanged(Outcome::Refused, format!("the plan has no image of {table} {id}")));
            };
            let write = update(columns, image, row_changes, deleted_at.as_deref());
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
                let why = format!("the guarded UPDATE of {table} {id} matched {matched} rows instead of 1");
                return roll_back(session, UnitEnd::unchanged(Outcome::Changed, why));
            }
            match found {
                Some(found) if row_changes.iter().all(|change| *found.value(&change.column) == change.to) => after.push(found),
                _ => {
                    let why = format!("the database did not store the new values of {table} {id}");
                    return roll_back(session, UnitEnd::unchanged(Outcome::Failed, why));
                }
            }
        }
        if after.len() != rows.len() {
            let why = "the database did not answer every statement".to_owned();
            return roll_back(session, UnitEnd::unchanged(Outcome::Failed, why));
        }
        let before: Vec<Image> = after.iter().filter_map(|row| Image::of(&now, row.table, &row.id)).cloned().collect();
        let mut transaction = Transaction { before, changes, after, sent_to: None };
        match session.commit() {
            CommitOutcome::Committed => Ok(UnitEnd { outcome: Outcome::Applied, reason: None, moved: Vec::new(), transaction }),
            CommitOutcome::NotCommitted(error) => Err(error),
            CommitOutcome::Unknown(error) => {
                transaction.sent_to = session.node().map(str::to_owned);
                let settled = self.settle(session, &transaction, &error, unit.number);
                let reason = Some(format!("{error}; {}", settled.reason));
                // If it stays unknown, it can be settled later by the rows that it was to leave.
                if settled.outcome == Outcome::Failed {
                    transaction.after.clear();
                }
                Ok(UnitEnd { outcome: settled.outcome, reason, moved: Vec::new(), transaction })
            }
        }
    }

    /// After a COMMIT without an answer: reads the rows on another session. Never writes.
    fn settle(&self, session: &mut Box<dyn Session>, written: &Transaction, lost: &DbError, unit: usize) -> Settlement {
        let mut last = lost.clone();
        let sent = Sent { to: written.sent_to.as_deref(), until: self.until, is_over: false };
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
            let mut look = || settle_rows(fresh.as_mut(), self.schema, &written.before, &written.after, &sent);
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
            reason: format!("reading again failed ({last}); `history reconcile` settles unit {} once the database is back", unit),
            standing: Standing::Hidden,
            found: Vec::new(),
        }
    }
}

/// The host whose cinder-backup would work on a backup; none for a failed deletion, on which no service works any more.
fn host_at_work(backup: &Backup) -> Option<&str> {
    backup.host.as_deref().filter(|_| backup.status.as_deref() != Some(ERROR_DELETING))
}

/// Why a host is alive after all: a heartbeat since the plan was made proves it, however late the host's clock is.
fn heartbeat_since_plan(plan: &Plan, host: &str, situation: &Situation) -> Option<String> {
    if plan.policy.assume_dead.covers(host) {
        return None;
    }
    let Some(then) = plan.heartbeats.get(host) else {
        return Some(format!("the plan has no last heartbeat of cinder-backup on {host}; make a new plan"));
    };
    let now = situation.services.last_beat(host);
    (!is_same_moment(now.as_deref(), then.as_deref()))
        .then(|| format!("cinder-backup on {host} has sent a heartbeat since the plan was made; scan again"))
}

/// The last check before anything is written: only changes in the table of changes pass, whatever led to them.
fn only_allowed(changes: Vec<Change>, now: &[Image], direction: Direction) -> Result<Vec<Change>, Recheck> {
    let is_current =
        |change: &Change| Image::of(now, change.table, &change.id).is_some_and(|image| *image.value(&change.column) == change.from);
    if let Some(change) = changes.iter().find(|change| !is_current(change) || !is_allowed(change, direction)) {
        return Err(Recheck::Refused(refusal(change)));
    }
    if changes.is_empty() { Err(Recheck::Refused("nothing to change".to_owned())) } else { Ok(changes) }
}

fn roll_back(session: &mut Box<dyn Session>, end: UnitEnd) -> Result<UnitEnd, DbError> {
    session.rollback().map(|()| end)
}

fn give_up(session: &mut Box<dyn Session>, error: DbError) -> Result<UnitEnd, DbError> {
    if error.is_fatal() {
        return Err(error);
    }
    match session.rollback() {
        Ok(()) => Err(error),
        Err(broken) => Err(DbError { fatal: broken.fatal, ..error }),
    }
}
