//! The executor through the library: with what the program gives it, but for what a test wants to be otherwise.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cinder_backup_repair::apply::{Executor, Journal, Options, Precheck, Progress, Run};
use cinder_backup_repair::audit::{AuditError, Event};
use cinder_backup_repair::config::{DatabaseFlags, Environment, resolve};
use cinder_backup_repair::db::schema::probe;
use cinder_backup_repair::db::{Session, SessionSettings, open};
use cinder_backup_repair::domain::{CheckResult, Look};
use cinder_backup_repair::plan::Plan;
use cinder_backup_repair::scan::{Census, Reader};

use crate::database::Database;
use crate::program::Program;

/// Takes down what a log would be given.
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

/// No unit here rests on a check.
struct NoStorage;

impl Precheck for NoStorage {
    fn precheck(&self, checks: &[&CheckResult]) -> Vec<Look> {
        assert!(checks.is_empty());
        Vec::new()
    }
}

/// The plan that the program makes.
pub fn plan(database: &Database) -> Plan {
    let program = Program::on(database.url());
    let file = program.path("plan.json");
    program.expect(0, &["plan", "-o", file.to_str().unwrap()]);
    Plan::parse(&std::fs::read(file).unwrap()).unwrap()
}

/// Carries a plan out as the program would. `wrap` may put something around each session; `stop` is told how many units have ended.
pub fn carry_out(
    database: &Database,
    plan: &Plan,
    options: Options,
    wrap: impl Fn(Box<dyn Session>) -> Box<dyn Session> + Sync,
    stop: impl Fn(usize) -> bool + Sync,
) -> (Run, Vec<Event>) {
    let flags = DatabaseFlags { database_url: Some(database.url().into()), ..DatabaseFlags::default() };
    let target = resolve(&flags, &Environment::new([])).unwrap().database.target;
    let settings = SessionSettings { lock_timeout: Duration::from_secs(1), ..SessionSettings::default() };
    let options = Options { lock_timeout: settings.lock_timeout, ..options };
    let connect = || open(&target, &settings).map(&wrap);
    let mut session = connect().unwrap();
    let schema = probe(session.as_mut()).unwrap();
    let census = Census::take(&mut Reader { session: session.as_mut(), schema: &schema }, &plan.selection).unwrap();
    let ended = AtomicUsize::new(0);
    let mut journal = Events::default();
    let run = Executor {
        connect: &connect,
        schema: &schema,
        census: &census,
        options,
        stop: &|| stop(ended.load(Ordering::SeqCst)),
        storage: &NoStorage,
        progress: &mut |event| {
            if matches!(event, Progress::Ended(_)) {
                ended.fetch_add(1, Ordering::SeqCst);
            }
        },
    }
    .run(&mut session, plan, &mut journal);
    (run, journal.0)
}
