//! Runs the executor through the library like the program does, except for the options that a test changes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cinder_backup_repair::apply::{Executor, Journal, Options, Precheck, Progress, Run};
use cinder_backup_repair::audit::{AuditError, Event};
use cinder_backup_repair::config::{DatabaseFlags, Environment, resolve};
use cinder_backup_repair::db::schema::probe;
use cinder_backup_repair::db::{Session, SessionSettings, open};
use cinder_backup_repair::domain::{CheckResult, Comparison};
use cinder_backup_repair::plan::Plan;
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

/// The plan as the program makes it.
pub fn plan(database: &Database) -> Plan {
    let program = Program::on(database.url());
    let file = program.path("plan.json");
    program.expect(0, &["plan", "-o", file.to_str().unwrap()]);
    Plan::parse(&std::fs::read(file).unwrap()).unwrap()
}

/// Executes a plan like the program. `wrap` can wrap each session; `stop` receives the number of units that have ended.
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
