//! Batches, through the library: their time is set to milliseconds instead of the program's minutes, and the tests see which statements
//! run inside a transaction.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cinder_backup_repair::apply::{Mode, Options};
use cinder_backup_repair::audit::Event;
use cinder_backup_repair::db::{Access, DbError, DbErrorKind, Engine, Session};
use cinder_backup_repair::domain::{Outcome, Table};

use crate::database::Database;
use crate::library::{carry_out, hooked, plan, units};
use crate::rows;
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;
const UNITS: usize = 12;

/// Stuck backups, each with a volume of its own.
fn stuck(database: &Database) {
    let mut all = Vec::new();
    for _ in 0..UNITS {
        let volume = rows::volume().status("backing-up").previous_status("available");
        all.push(rows::backup().status("creating").host("gone").volume_id(volume.get_id()).age(TWO_HOURS));
        all.push(volume);
    }
    database.insert(&all);
}

/// The number of intents of each unit. Checks that each unit has one outcome after its last intent.
fn intents(events: &[Event]) -> BTreeMap<usize, usize> {
    let mut intents = BTreeMap::new();
    let mut over = BTreeMap::new();
    for event in events {
        match event {
            Event::Intent(intent) => {
                assert!(!over.contains_key(&intent.unit), "unit {} has an intent after its outcome", intent.unit);
                *intents.entry(intent.unit).or_insert(0) += 1;
            }
            Event::Outcome(outcome) => assert!(over.insert(outcome.unit, outcome.outcome).is_none(), "unit {} ended twice", outcome.unit),
            _ => {}
        }
    }
    assert!(over.keys().eq(intents.keys()), "{over:?}, {intents:?}");
    intents
}

/// The number of batches of a run: each writes its intents, then the outcomes of the units that it begins.
fn batches(events: &[Event]) -> usize {
    let mut count = 0;
    let mut after_outcome = true;
    for event in events {
        match event {
            Event::Intent(_) if after_outcome => {
                count += 1;
                after_outcome = false;
            }
            Event::Outcome(_) => after_outcome = true,
            _ => {}
        }
    }
    count
}

fn options(begins_within: Duration, sessions: usize) -> Options {
    Options { mode: Mode::Write, attempts: 2, sessions, begins_within, ..Options::default() }
}

fn count(database: &Database, status: &str) -> usize {
    database.value(&format!("SELECT COUNT(*) FROM backups WHERE status = '{status}'")).unwrap().parse().unwrap()
}

#[test]
fn units_that_a_batch_has_no_time_for_run_in_the_next_batch() {
    for engine in engines() {
        for sessions in [1, 3] {
            let database = fresh(engine, Columns::Full);
            stuck(&database);
            let plan = plan(&database);
            // Without any time, each batch begins one unit.
            let (run, events) = carry_out(&database, &plan, options(Duration::ZERO, sessions), |session| session, |_| false);
            assert!(run.failure.is_none(), "{:?}", run.failure);
            assert_eq!(run.tally.applied, UNITS, "{}", engine.name());
            let results = run.results.iter().map(|result| result.unwrap().unit);
            assert!(results.eq(units(&plan).iter().map(|unit| unit.number)), "in the plan's order");
            assert_eq!((count(&database, "error"), count(&database, "creating")), (UNITS, 0));
            let intents = intents(&events);
            assert_eq!(batches(&events), UNITS, "{intents:?}");
            // With several sessions, any unit of a batch may be the first to begin.
            if sessions == 1 {
                assert!(intents.iter().all(|(unit, count)| unit == count), "{intents:?}");
            }
        }
    }
}

#[test]
fn a_locked_row_does_not_use_up_the_time_of_the_other_units() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        stuck(&database);
        let plan = plan(&database);
        let units = units(&plan);
        let first = &units[0];
        let volume = database.cell("backups", &first.id, "volume_id").unwrap();
        database.execute("BEGIN");
        database.execute(&format!("UPDATE volumes SET display_name = 'held' WHERE id = '{volume}'"));
        // Two attempts of 1 s each exceed the time of a batch.
        let (run, events) = carry_out(&database, &plan, options(Duration::from_millis(500), 1), |session| session, |_| false);
        database.execute("ROLLBACK");
        assert!(run.failure.is_none(), "{:?}", run.failure);
        assert_eq!(run.results.get(0).unwrap().unwrap().outcome, Outcome::Failed, "{}", engine.name());
        assert_eq!((run.tally.applied, run.tally.failed), (UNITS - 1, 1));
        assert!(run.locks_only);
        let intents = intents(&events);
        assert!(units[1..].iter().all(|unit| intents[&unit.number] >= 2), "{intents:?}");
    }
}

#[test]
fn ten_locked_rows_do_not_stop_the_units_after_them() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        for sessions in [1, 3] {
            let database = fresh(engine, Columns::Full);
            stuck(&database);
            let plan = plan(&database);
            database.execute("BEGIN");
            for unit in &units(&plan)[..10] {
                let volume = unit.before.iter().find(|image| image.table == Table::Volumes).unwrap();
                database.execute(&format!("UPDATE volumes SET display_name = 'held' WHERE id = '{}'", volume.id));
            }
            let (run, _) = carry_out(&database, &plan, options(Duration::from_secs(60), sessions), |session| session, |_| false);
            database.execute("ROLLBACK");
            assert!(run.failure.is_none(), "{} {:?}", engine.name(), run.failure);
            assert_eq!((run.tally.applied, run.tally.failed), (UNITS - 10, 10), "{}", engine.name());
            assert!(run.locks_only);
            assert!(run.lock_holders[0].contains("holds the lock, in a transaction that began at "), "{:?}", run.lock_holders);
        }
    }
}

#[test]
fn a_run_that_ends_early_leaves_no_intent_open() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        stuck(&database);
        let plan = plan(&database);
        let (run, events) = carry_out(&database, &plan, options(Duration::ZERO, 1), |session| session, |ended| ended >= 5);
        assert_eq!((run.tally.applied, run.tally.not_begun), (5, UNITS - 5), "{}", engine.name());
        assert_eq!((count(&database, "error"), count(&database, "creating")), (5, UNITS - 5));
        // Units that had an intent have an outcome, too.
        assert_eq!(intents(&events).len(), UNITS);
    }
}

/// Sessions that note which SELECTs ran outside a write transaction, so that a replica could have answered them. The first `failing`
/// SELECTs of the heartbeats fail with a conflict.
fn recording(outside: Arc<Mutex<Vec<&'static str>>>, failing: Arc<AtomicUsize>) -> impl Fn(Box<dyn Session>) -> Box<dyn Session> + Sync {
    move |session| {
        let (outside, failing) = (Arc::clone(&outside), Arc::clone(&failing));
        hooked(session, move |statement, access| {
            if access != Some(Access::Write) {
                outside.lock().unwrap().push(statement.name);
            }
            let fails = statement.name == "services_backup"
                && failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if fails { Err(DbError::new(DbErrorKind::Conflict, "in the way")) } else { Ok(()) }
        })
    }
}

#[test]
fn a_conflict_while_heartbeats_are_read_is_retried() {
    for (failures, applied) in [(1, UNITS), (2, 0)] {
        let database = fresh(Engine::Sqlite, Columns::Full);
        stuck(&database);
        let wrap = recording(Arc::default(), Arc::new(AtomicUsize::new(failures)));
        // `attempts` is 2.
        let (run, _) = carry_out(&database, &plan(&database), options(Duration::from_secs(60), 1), wrap, |_| false);
        assert_eq!((run.tally.applied, run.failure.is_none()), (applied, applied == UNITS), "{:?}", run.failure);
        assert_eq!(count(&database, "creating"), UNITS - applied);
    }
}

#[test]
fn heartbeats_are_read_from_the_primary() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        stuck(&database);
        let plan = plan(&database);
        let outside = Arc::default();
        let wrap = recording(Arc::clone(&outside), Arc::default());
        let options = Options { heartbeat_wait: Duration::from_millis(100), ..options(Duration::from_secs(60), 1) };
        let (run, _) = carry_out(&database, &plan, options, wrap, |_| false);
        assert_eq!(run.tally.applied, UNITS, "{}", engine.name());
        let outside = outside.lock().unwrap();
        let read: Vec<&&str> = outside.iter().filter(|name| ["services_backup", "clock", "uptime"].contains(*name)).collect();
        assert!(read.is_empty(), "{}: {read:?} could have come from a replica", engine.name());
        // The active backups were read before, which shows that the recording works.
        assert!(outside.contains(&"backups_live_liberty"), "{outside:?}");
    }
}
