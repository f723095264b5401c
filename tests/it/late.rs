//! A batch in which rows that others hold use up the time: what is left of it gets its turn in another one.
//!
//! Through the library, as nobody wants to wait for the minutes that the program gives a batch.

use std::collections::BTreeMap;
use std::time::Duration;

use cinder_backup_repair::apply::{Executor, Journal, Mode, Options, Run, Storage};
use cinder_backup_repair::audit::{AuditError, Event};
use cinder_backup_repair::config::{DatabaseFlags, Environment, resolve};
use cinder_backup_repair::db::schema::probe;
use cinder_backup_repair::db::{Engine, SessionSettings, open};
use cinder_backup_repair::domain::{CheckResult, Look, Outcome};
use cinder_backup_repair::plan::Plan;
use cinder_backup_repair::scan::{Census, Reader};

use crate::database::Database;
use crate::program::Program;
use crate::rows;
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;
const UNITS: usize = 12;

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

impl Storage for NoStorage {
    fn look(&self, checks: &[&CheckResult]) -> Vec<Look> {
        assert!(checks.is_empty());
        Vec::new()
    }
}

/// Backups that hang, each with a volume of its own.
fn hanging(database: &Database) {
    let mut all = Vec::new();
    for _ in 0..UNITS {
        let volume = rows::volume().status("backing-up").previous_status("available");
        all.push(rows::backup().status("creating").host("gone").volume_id(volume.get_id()).age(TWO_HOURS));
        all.push(volume);
    }
    database.insert(&all);
}

fn plan(database: &Database) -> Plan {
    let program = Program::on(database.url());
    let file = program.path("plan.json");
    program.expect(0, &["plan", "-o", file.to_str().unwrap()]);
    Plan::parse(&std::fs::read(file).unwrap()).unwrap()
}

/// Carries a plan out as the program would, with a batch's time as given. `stop` is told how many units have ended.
fn carry_out(database: &Database, plan: &Plan, options: Options, stop: impl Fn(usize) -> bool + Sync) -> (Run, Vec<Event>) {
    let flags = DatabaseFlags { database_url: Some(database.url().into()), ..DatabaseFlags::default() };
    let target = resolve(&flags, &Environment::new([])).unwrap().database.target;
    let settings = SessionSettings { lock_timeout: Duration::from_secs(1), ..SessionSettings::default() };
    let connect = || open(&target, &settings);
    let mut session = connect().unwrap();
    let schema = probe(session.as_mut()).unwrap();
    let census = Census::take(&mut Reader { session: session.as_mut(), schema: &schema }, &plan.selection).unwrap();
    let ended = std::sync::atomic::AtomicUsize::new(0);
    let mut journal = Events::default();
    let run = Executor {
        connect: &connect,
        schema: &schema,
        census: &census,
        options,
        stop: &|| stop(ended.load(std::sync::atomic::Ordering::SeqCst)),
        storage: &NoStorage,
        progress: &mut |event| {
            if matches!(event, cinder_backup_repair::apply::Progress::Ended(_)) {
                ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        },
    }
    .run(&mut session, plan, &mut journal);
    (run, journal.0)
}

/// How many intents each unit has; every one must have just one outcome, after the last of them.
fn intents(events: &[Event]) -> BTreeMap<usize, usize> {
    let mut intents = BTreeMap::new();
    let mut over = BTreeMap::new();
    for event in events {
        match event {
            Event::Intent(intent) => {
                assert!(!over.contains_key(&intent.unit), "unit {} had ended", intent.unit);
                *intents.entry(intent.unit).or_insert(0) += 1;
            }
            Event::Outcome(outcome) => assert!(over.insert(outcome.unit, outcome.outcome).is_none(), "unit {} ended twice", outcome.unit),
            _ => {}
        }
    }
    assert!(over.keys().eq(intents.keys()), "{over:?}, {intents:?}");
    intents
}

fn options(begins_within: Duration, sessions: usize) -> Options {
    Options { mode: Mode::Write, attempts: 2, sessions, begins_within, ..Options::default() }
}

fn count(database: &Database, status: &str) -> usize {
    database.value(&format!("SELECT COUNT(*) FROM backups WHERE status = '{status}'")).unwrap().parse().unwrap()
}

#[test]
fn what_a_batch_has_no_time_for_is_carried_out_in_another_one() {
    for engine in engines() {
        for sessions in [1, 3] {
            let database = fresh(engine, Columns::Full);
            hanging(&database);
            let plan = plan(&database);
            // No time at all: each batch begins one unit and leaves the others.
            let (run, events) = carry_out(&database, &plan, options(Duration::ZERO, sessions), |_| false);
            assert!(run.failure.is_none(), "{:?}", run.failure);
            assert_eq!(run.tally().applied, UNITS, "{}", engine.name());
            assert!(run.results.iter().map(|result| result.unit).eq(plan.units.iter().map(|unit| unit.number)), "in the plan's order");
            assert_eq!((count(&database, "error"), count(&database, "creating")), (UNITS, 0));
            let intents = intents(&events);
            assert_eq!(intents.values().max(), Some(&UNITS), "{intents:?}");
        }
    }
}

#[test]
fn a_row_that_is_held_for_long_does_not_use_up_the_time_of_the_others() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        hanging(&database);
        let plan = plan(&database);
        let first = &plan.units[0];
        let volume = database.cell("backups", &first.id, "volume_id").unwrap();
        database.execute("BEGIN");
        database.execute(&format!("UPDATE volumes SET display_name = 'held' WHERE id = '{volume}'"));
        // Two tries of a second each are more than a batch has.
        let (run, events) = carry_out(&database, &plan, options(Duration::from_millis(500), 1), |_| false);
        database.execute("ROLLBACK");
        assert!(run.failure.is_none(), "{:?}", run.failure);
        assert_eq!(run.results[0].outcome, Outcome::Failed, "{}", engine.name());
        assert_eq!((run.tally().applied, run.tally().failed), (UNITS - 1, 1));
        assert!(run.locks_only);
        let intents = intents(&events);
        assert!(plan.units[1..].iter().all(|unit| intents[&unit.number] >= 2), "{intents:?}");
    }
}

#[test]
fn a_run_that_ends_before_their_turn_leaves_no_intent_open() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        hanging(&database);
        let plan = plan(&database);
        let (run, events) = carry_out(&database, &plan, options(Duration::ZERO, 1), |ended| ended >= 5);
        assert_eq!((run.tally().applied, run.tally().refused), (5, UNITS - 5), "{}", engine.name());
        assert_eq!((count(&database, "error"), count(&database, "creating")), (5, UNITS - 5));
        // Also those that had an intent: each has its outcome.
        assert_eq!(intents(&events).len(), UNITS);
    }
}
