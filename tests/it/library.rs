//! Runs parts of the program through the library, with options and sessions that a test changes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cinder_backup_repair::apply::{Executor, Journal, Options, Precheck, Progress, Run, Throttle};
use cinder_backup_repair::audit::{AuditError, Event};
use cinder_backup_repair::config::{DatabaseFlags, Environment, resolve};
use cinder_backup_repair::db::schema::probe;
use cinder_backup_repair::db::{
    Access, CommitOutcome, DbError, Param, PipelineStep, RowSink, ServerInfo, Session, SessionSettings, Statement, StepResult, open,
};
use cinder_backup_repair::domain::{CheckResult, Comparison};
use cinder_backup_repair::plan::{Plan, Unit};
use cinder_backup_repair::scan::{Census, Reader};

use crate::database::Database;
use crate::program::Program;

/// A journal that keeps its events.
#[derive(Default)]
struct Events(Vec<Event>);

impl Journal for Events {
    fn append(&mut self, event: Event) -> Result<(), AuditError> {
        self.0.push(event);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), AuditError> {
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AuditError> {
        Ok(())
    }
}

/// A storage for plans without checks.
struct NoStorage;

impl Precheck for NoStorage {
    fn precheck(&self, checks: &[&CheckResult]) -> Vec<Comparison> {
        assert!(checks.is_empty());
        Vec::new()
    }
}

/// Called before each statement, with the access of the open transaction. An error is the statement's result.
type Hook = Box<dyn FnMut(&Statement, Option<Access>) -> Result<(), DbError> + Send>;

struct Hooked {
    session: Box<dyn Session>,
    access: Option<Access>,
    hook: Hook,
}

/// A session that calls `hook` before each statement.
pub fn hooked(
    session: Box<dyn Session>,
    hook: impl FnMut(&Statement, Option<Access>) -> Result<(), DbError> + Send + 'static,
) -> Box<dyn Session> {
    Box::new(Hooked { session, access: None, hook: Box::new(hook) })
}

impl Session for Hooked {
    fn server(&self) -> &ServerInfo {
        self.session.server()
    }

    fn query(&mut self, statement: &Statement, params: &[Param], row: RowSink<'_>) -> Result<(), DbError> {
        (self.hook)(statement, self.access)?;
        self.session.query(statement, params, row)
    }

    fn execute(&mut self, statement: &Statement, params: &[Param]) -> Result<u64, DbError> {
        (self.hook)(statement, self.access)?;
        self.session.execute(statement, params)
    }

    fn pipeline(&mut self, steps: &[PipelineStep]) -> Result<Vec<StepResult>, DbError> {
        for step in steps {
            let (PipelineStep::Query(statement, _) | PipelineStep::Execute(statement, _)) = step;
            (self.hook)(statement, self.access)?;
        }
        self.session.pipeline(steps)
    }

    fn begin(&mut self, access: Access) -> Result<(), DbError> {
        self.access = Some(access);
        self.session.begin(access)
    }

    fn commit(&mut self) -> CommitOutcome {
        self.access = None;
        self.session.commit()
    }

    fn rollback(&mut self) -> Result<(), DbError> {
        self.access = None;
        self.session.rollback()
    }

    fn node(&self) -> Option<&str> {
        self.session.node()
    }

    fn set_lock_timeout(&mut self, limit: Duration) -> Result<(), DbError> {
        self.session.set_lock_timeout(limit)
    }

    fn lock_holders(&mut self) -> Vec<String> {
        self.session.lock_holders()
    }
}

/// A session on the database.
pub fn session(database: &Database, settings: &SessionSettings) -> Result<Box<dyn Session>, DbError> {
    let flags = DatabaseFlags { database_url: Some(database.url().into()), ..DatabaseFlags::default() };
    let target = resolve(&flags, &Environment::new([])).unwrap().database.target;
    open(&target, settings)
}

/// The plan as the program makes it.
pub fn plan(database: &Database) -> Plan {
    let program = Program::on(database.url());
    let file = program.path("plan.json");
    program.expect(0, &["plan", "-o", file.to_str().unwrap()]);
    Plan::parse(&std::fs::read(file).unwrap()).unwrap()
}

/// The units of a plan.
pub fn units(plan: &Plan) -> Vec<Unit> {
    plan.units.read(0..plan.units.len()).unwrap()
}

/// Executes a plan like the program. `wrap` can wrap each session; `stop` receives the number of units that have ended.
pub fn carry_out(
    database: &Database,
    plan: &Plan,
    options: Options,
    wrap: impl Fn(Box<dyn Session>) -> Box<dyn Session> + Sync,
    stop: impl Fn(usize) -> bool + Sync,
) -> (Run, Vec<Event>) {
    let settings = SessionSettings { lock_timeout: Duration::from_secs(1), ..SessionSettings::default() };
    let options = Options { lock_timeout: settings.lock_timeout, ..options };
    let connect = || self::session(database, &settings).map(&wrap);
    let mut session = connect().unwrap();
    let schema = probe(session.as_mut()).unwrap();
    let census = Census::take(&mut Reader { session: session.as_mut(), schema: &schema }, &plan.selection, &mut |_, _| Ok(())).unwrap();
    let ended = AtomicUsize::new(0);
    let mut journal = Events::default();
    let run = Executor {
        connect: &connect,
        schema: &schema,
        census: &census,
        options,
        stop: &|| stop(ended.load(Ordering::SeqCst)),
        storage: &NoStorage,
        throttle: Throttle::default(),
        progress: &mut |event| {
            if matches!(event, Progress::Ended(_)) {
                ended.fetch_add(1, Ordering::SeqCst);
            }
        },
    }
    .run(&mut session, plan, &mut journal);
    (run, journal.0)
}
