//! Executes a plan.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;

use super::storage_recheck::StorageRecheck;
use super::{Database, Error, Observer, Result, StorageSettings, WorkEvent, actor, reading};
use crate::apply::{Executor, Failure, Journal, Mode, NoJournal, Options, Run, Throttle};
use crate::audit::record::{self, Begin, RunEnd};
use crate::audit::{AuditError, AuditLog, RunSummary, runs};
use crate::db::Access;
use crate::domain::{Backup, FindingKind, Image, QuotaUsage, Table, Tally};
use crate::plan::{Plan, Purpose, Unit, program};
use crate::scan::{Census, Reader};

/// How a plan is executed, and what the log says about it.
pub struct Execution {
    /// `apply`, `repair` or `undo`.
    pub command: &'static str,
    pub reason: Option<String>,
    pub ticket: Option<String>,
    /// How many units share the two syncs of the log.
    pub batch_size: usize,
    /// On how many connections units are changed at once.
    pub sessions: usize,
    /// The storage that decisions depend on, if any do. Settings that cannot be used end the run after its begin is on record.
    pub storage: Option<Result<StorageSettings>>,
    /// What the run waits for.
    pub throttle: Throttle,
}

#[derive(Debug)]
pub struct RecordedRun {
    pub id: String,
    pub run: Run,
    /// Why it ended early, if it did.
    pub interrupted: Option<String>,
    /// Why its end is not in the log.
    pub log_failure: Option<AuditError>,
}

/// Makes sure that a plan was made for this database, and for the columns that it has.
pub fn require_database_of(database: &Database, plan: &Plan) -> Result<()> {
    database.require_identity("the plan was made for", &plan.database)?;
    if database.schema.columns == plan.columns { Ok(()) } else { Err(Error::OtherColumns) }
}

pub fn dry_run(database: &mut Database, plan: &Plan, execution: Execution, observer: &dyn Observer) -> Result<Run> {
    let options = Options { mode: Mode::DryRun, batch_size: execution.batch_size, ..Options::default() };
    let run = Prepared::new(database, plan, execution.storage, observer)?.run(database, plan, options, Throttle::default(), &mut NoJournal);
    match run.failure {
        Some(Failure::Database(error) | Failure::LockedOut(error)) => Err(error.into()),
        Some(Failure::Spool(error)) => Err(error.into()),
        _ => Ok(run),
    }
}

/// The audit log, held for a run that has not begun.
pub struct RunLog {
    log: AuditLog,
    run: String,
    /// The run that applied the plan already.
    applied_by: Option<String>,
    /// Earlier runs with units whose outcome was not looked up yet.
    pub unsettled: Vec<RunSummary>,
}

impl RunLog {
    /// Locks and reads the log.
    pub fn open(path: &Path, plan: &Plan) -> Result<Self> {
        let log = AuditLog::open(path, actor::now).map_err(Error::NoLog)?;
        let mut known = runs(path)?;
        known.damage.take().map_or(Ok(()), Err)?;
        let applied_by = known.of_plan(&plan.id, &plan.sha256).map(str::to_owned);
        // An outcome that was looked up and stays unknown would not change now.
        let unsettled = known.runs.into_iter().filter(|summary| summary.unseen > 0).collect();
        // Sortable by time, and random enough that the ids of two hosts differ.
        let random: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
        let run = format!("{}-{random}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        Ok(Self { log, run, applied_by, unsettled })
    }

    /// Executes the plan, with every step on record, unless it was applied already.
    pub fn execute(mut self, database: &mut Database, plan: &Plan, execution: Execution, observer: &dyn Observer) -> Result<RecordedRun> {
        if let Some(run) = self.applied_by.take() {
            return Err(Error::Applied(run));
        }
        let begin = record::Event::Begin(Box::new(begin(database, plan, &execution)));
        self.append(begin).and_then(|()| self.sync()).map_err(Error::NoLog)?;
        let options = Options {
            mode: Mode::Write,
            batch_size: execution.batch_size,
            sessions: execution.sessions,
            // One and a half times the interval between two heartbeats.
            heartbeat_wait: Duration::from_millis(database.report_interval.saturating_mul(1_500)),
            lock_timeout: database.limits.lock_timeout,
            ..Options::default()
        };
        let prepared = match Prepared::new(database, plan, execution.storage, observer) {
            Ok(prepared) => prepared,
            Err(error) => {
                // The log must say that nothing was begun.
                let summary = Tally { not_begun: plan.units.len(), ..Tally::default() };
                let _ = self.end(summary, Some(error.to_string()));
                return Err(error);
            }
        };
        let run = prepared.run(database, plan, options, execution.throttle, &mut self);
        let interrupted = run.failure.as_ref().map(|failure| match failure {
            Failure::Interrupted => observer.stop().map_or_else(String::new, |stop| stop.signal.to_owned()),
            Failure::Database(error) => error.to_string(),
            Failure::LockedOut(error) => format!("locked out: {error}"),
            Failure::LogBefore(error) | Failure::LogAfter(error) => error.to_string(),
            Failure::Spool(error) => error.to_string(),
        });
        let is_writable = !run.failure.as_ref().is_some_and(Failure::is_of_log);
        let log_failure = if is_writable { self.end(run.tally, interrupted.clone()).err() } else { None };
        Ok(RecordedRun { id: self.run, run, interrupted, log_failure })
    }

    fn end(&mut self, summary: Tally, interrupted: Option<String>) -> std::result::Result<(), AuditError> {
        self.append(record::Event::End(RunEnd { summary, interrupted })).and_then(|()| self.sync())
    }
}

impl Journal for RunLog {
    fn append(&mut self, event: record::Event) -> std::result::Result<(), AuditError> {
        self.log.append(&self.run, event)
    }

    fn flush(&mut self) -> std::result::Result<(), AuditError> {
        self.log.flush()
    }

    fn sync(&mut self) -> std::result::Result<(), AuditError> {
        self.log.sync()
    }
}

fn begin(database: &Database, plan: &Plan, execution: &Execution) -> Begin {
    Begin {
        command: execution.command.to_owned(),
        program: program(),
        plan: plan.id.clone(),
        plan_sha256: plan.sha256.clone(),
        undoes: plan.undoes.clone(),
        who: actor::current(database.session.server().user.clone()),
        database: database.info(),
        reason: execution.reason.clone(),
        ticket: execution.ticket.clone(),
        policy: plan.policy.clone(),
        units: plan.units.len(),
    }
}

/// The projects whose quotas a plan corrects.
fn projects(plan: &Plan) -> io::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct About {
        kind: FindingKind,
        id: String,
    }
    let corrects = plan.policy.fix_quotas && plan.purpose == Purpose::Repair;
    let units = plan.units.parts::<About>(0..if corrects { plan.units.len() } else { 0 });
    let projects = units.filter(|unit| !unit.as_ref().is_ok_and(|unit| unit.kind != FindingKind::Project));
    projects.map(|unit| unit.map(|unit| unit.id)).collect()
}

/// The backups that a plan deletes without changing both quotas of their projects.
fn with_unplanned_quotas(plan: &Plan) -> io::Result<Vec<String>> {
    let counts = plan.policy.deletes() && !plan.policy.no_quota && plan.purpose == Purpose::Repair;
    let units = plan.units.iter().take_while(|_| counts);
    let is_of_quota = |image: &&Image| image.table == Table::QuotaUsages;
    let is_wanted = |unit: &Unit| unit.kind == FindingKind::Backup && unit.before.iter().filter(is_of_quota).count() < 2;
    units.filter(|unit| unit.as_ref().map_or(true, is_wanted)).map(|unit| unit.map(|unit| unit.id)).collect()
}

/// What was read for a run before its first unit.
struct Prepared<'a> {
    census: Census,
    recheck: StorageRecheck<'a>,
    observer: &'a dyn Observer,
}

impl<'a> Prepared<'a> {
    /// Reads the active backups and the children of each backup as they are now, not as they were when the plan was made.
    fn new(database: &mut Database, plan: &Plan, storage: Option<Result<StorageSettings>>, observer: &'a dyn Observer) -> Result<Self> {
        database.persist(|session| session.begin(Access::ReadOnly))?;
        let mut reader = Reader { session: database.session.as_mut(), schema: &database.schema };
        let census = reading(observer, || -> Result<Census> {
            let mut census = Census::take(&mut reader, &plan.selection, &mut |_, _| Ok(()))?;
            let projects = projects(plan)?;
            if !projects.is_empty() {
                census.reservations = reader.reservation_totals(&projects)?;
                let mut quotas = reader.quota_usages_of(&projects)?;
                quotas.sort_unstable_by(|one, other| one.id.cmp(&other.id));
                quotas.into_iter().for_each(|quota| census.quotas.entry(quota.project_id.clone()).or_default().push(quota));
            }
            let backups = reader.backups(&with_unplanned_quotas(plan)?)?;
            if !backups.is_empty() {
                let projects: BTreeSet<String> = backups.iter().filter_map(|backup| backup.project_id.clone()).collect();
                let quotas = reader.quota_usages_of(&projects.into_iter().collect::<Vec<_>>())?;
                let mut of_projects: HashMap<String, Vec<QuotaUsage>> = HashMap::new();
                quotas.into_iter().for_each(|quota| of_projects.entry(quota.project_id.clone()).or_default().push(quota));
                let of_backup = |backup: Backup| Some((backup.id, of_projects.get(&backup.project_id?)?.clone()));
                census.unplanned_quotas = backups.into_iter().filter_map(of_backup).collect();
            }
            Ok(census)
        });
        database.session.rollback()?;
        let census = census?;
        Ok(Self { census, recheck: StorageRecheck::new(database, plan, storage.transpose()?, observer)?, observer })
    }

    fn run(&self, database: &mut Database, plan: &Plan, options: Options, throttle: Throttle, journal: &mut dyn Journal) -> Run {
        let connect = database.opener();
        self.observer.event(WorkEvent::Running(plan.units.len()));
        let mut executor = Executor {
            connect: &connect,
            schema: &database.schema,
            census: &self.census,
            options,
            stop: &|| self.observer.stop().is_some(),
            storage: &self.recheck,
            throttle,
            progress: &mut |progress| self.observer.event(WorkEvent::Run(progress)),
        };
        let run = executor.run(&mut database.session, plan, journal);
        self.observer.event(WorkEvent::Ran);
        self.recheck.report();
        run
    }
}
