//! What only shows through the library: a batch whose time is used up, by rows that others hold, in milliseconds in place of the minutes
//! that the program gives it; and what is asked within a transaction.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cinder_backup_repair::apply::{Mode, Options};
use cinder_backup_repair::audit::Event;
use cinder_backup_repair::db::{Access, DbError, DbErrorKind, Engine, Session};
use cinder_backup_repair::domain::{Outcome, Table};

use crate::database::Database;
use crate::library::{carry_out, hooked, plan};
use crate::rows;
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;
const UNITS: usize = 12;

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

/// How many batches a run had: each writes its intents, and then the outcomes of the units that it begins.
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
fn what_a_batch_has_no_time_for_is_carried_out_in_another_one() {
    for engine in engines() {
        for sessions in [1, 3] {
            let database = fresh(engine, Columns::Full);
            hanging(&database);
            let plan = plan(&database);
            // No time at all: each batch begins one unit and leaves the others.
            let (run, events) = carry_out(&database, &plan, options(Duration::ZERO, sessions), |session| session, |_| false);
            assert!(run.failure.is_none(), "{:?}", run.failure);
            assert_eq!(run.tally().applied, UNITS, "{}", engine.name());
            assert!(run.results.iter().map(|result| result.unit).eq(plan.units.iter().map(|unit| unit.number)), "in the plan's order");
            assert_eq!((count(&database, "error"), count(&database, "creating")), (UNITS, 0));
            let intents = intents(&events);
            assert_eq!(batches(&events), UNITS, "{intents:?}");
            // Which of the units in a batch begins is a race between the sessions.
            if sessions == 1 {
                assert!(intents.iter().all(|(unit, count)| unit == count), "{intents:?}");
            }
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
        let (run, events) = carry_out(&database, &plan, options(Duration::from_millis(500), 1), |session| session, |_| false);
        database.execute("ROLLBACK");
        assert!(run.failure.is_none(), "{:?}", run.failure);
        assert_eq!(run.results[0].outcome, Outcome::Failed, "{}", engine.name());
        assert_eq!((run.tally().applied, run.tally().failed), (UNITS - 1, 1));
        assert!(run.locks_only);
        let intents = intents(&events);
        assert!(plan.units[1..].iter().all(|unit| intents[&unit.number] >= 2), "{intents:?}");
    }
}

/// However many rows in a row others hold, the free ones are let through.
#[test]
fn ten_rows_that_are_held_do_not_keep_those_behind_them_from_their_turn() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        for sessions in [1, 3] {
            let database = fresh(engine, Columns::Full);
            hanging(&database);
            let plan = plan(&database);
            database.execute("BEGIN");
            for unit in &plan.units[..10] {
                let volume = unit.before.iter().find(|image| image.table == Table::Volumes).unwrap();
                database.execute(&format!("UPDATE volumes SET display_name = 'held' WHERE id = '{}'", volume.id));
            }
            let (run, _) = carry_out(&database, &plan, options(Duration::from_secs(60), sessions), |session| session, |_| false);
            database.execute("ROLLBACK");
            assert!(run.failure.is_none(), "{} {:?}", engine.name(), run.failure);
            assert_eq!((run.tally().applied, run.tally().failed), (UNITS - 10, 10), "{}", engine.name());
            assert!(run.locks_only);
            assert!(run.lock_holders[0].contains("holds the lock, in a transaction that began at "), "{:?}", run.lock_holders);
        }
    }
}

#[test]
fn a_run_that_ends_before_their_turn_leaves_no_intent_open() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        hanging(&database);
        let plan = plan(&database);
        let (run, events) = carry_out(&database, &plan, options(Duration::ZERO, 1), |session| session, |ended| ended >= 5);
        assert_eq!((run.tally().applied, run.tally().not_begun), (5, UNITS - 5), "{}", engine.name());
        assert_eq!((count(&database, "error"), count(&database, "creating")), (5, UNITS - 5));
        // Also those that had an intent: each has its outcome.
        assert_eq!(intents(&events).len(), UNITS);
    }
}

/// Sessions that note which SELECTs ran outside a transaction that may write, so that a replica could have answered them. The first
/// `failing` SELECTs of the heartbeats fail as if another transaction were in the way.
fn watching(outside: Arc<Mutex<Vec<&'static str>>>, failing: Arc<AtomicUsize>) -> impl Fn(Box<dyn Session>) -> Box<dyn Session> + Sync {
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
        hanging(&database);
        let wrap = watching(Arc::default(), Arc::new(AtomicUsize::new(failures)));
        // There are two tries.
        let (run, _) = carry_out(&database, &plan(&database), options(Duration::from_secs(60), 1), wrap, |_| false);
        assert_eq!((run.tally().applied, run.failure.is_none()), (applied, applied == UNITS), "{:?}", run.failure);
        assert_eq!(count(&database, "creating"), UNITS - applied);
    }
}

#[test]
fn heartbeats_are_read_from_the_primary() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        hanging(&database);
        let plan = plan(&database);
        let outside = Arc::default();
        let wrap = watching(Arc::clone(&outside), Arc::default());
        let options = Options { heartbeat_wait: Duration::from_millis(100), ..options(Duration::from_secs(60), 1) };
        let (run, _) = carry_out(&database, &plan, options, wrap, |_| false);
        assert_eq!(run.tally().applied, UNITS, "{}", engine.name());
        let outside = outside.lock().unwrap();
        let asked: Vec<&&str> = outside.iter().filter(|name| ["services_backup", "clock", "uptime"].contains(*name)).collect();
        assert!(asked.is_empty(), "{}: {asked:?} could have come from a replica", engine.name());
        // What the schema is like, and which backups are active, was asked before: the watch itself works.
        assert!(outside.contains(&"backups_live_liberty"), "{outside:?}");
    }
}
