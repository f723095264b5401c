//! A ledger through a year with a clock of its own, and after a kill at any step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::policy::{Entry, Forecast, Outcome, Rules, forecast};
use super::*;
use crate::domain::{Backup, CheckResult, CheckVerdict, ColumnSet, DatabaseInfo, Level, Problem, ProblemCode};

const DAY: i64 = 86_400;
/// Some day in 2026.
const START: i64 = 1_780_000_000;

fn database(identity: &str) -> DatabaseInfo {
    DatabaseInfo { engine: "sqlite".into(), version: "3".into(), release: "r".into(), identity: identity.into(), location: None }
}

/// The result of a check of an available backup.
fn result(id: &str, level: Level, verdict: CheckVerdict) -> CheckResult {
    let row = Backup { id: id.into(), status: Some("available".into()), ..Backup::default() };
    let level_reached = (verdict == CheckVerdict::Intact).then_some(level);
    CheckResult { id: id.into(), level, verdict, level_reached, rows: vec![row.image(ColumnSet::Mitaka)], ..CheckResult::default() }
}

fn with_problem(result: CheckResult, code: ProblemCode) -> CheckResult {
    CheckResult { problems: vec![Problem::general(code, "why")], ..result }
}

/// A backup of the simulation.
#[derive(Debug, Clone)]
struct Made {
    parent: Option<String>,
    created_at: i64,
    damaged: bool,
}

/// A folder with a ledger, of which a killed process leaves the files as they are.
struct Site {
    folder: tempfile::TempDir,
    number: usize,
}

impl Site {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), number: 0 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(format!("ledger-{}", self.number))
    }

    fn open(&self, now: i64) -> (RunLock, Ledger) {
        let lock = RunLock::take(&self.path()).unwrap();
        let ledger = Ledger::open_for_run(&self.path(), &lock, &database("one"), now).unwrap();
        (lock, ledger)
    }

    /// Goes on with the files as they are on the disk at this moment, as after `kill -9`.
    fn kill(&mut self) {
        let from = self.path();
        self.number += 1;
        for ending in ["", "-wal", "-journal"] {
            let name = |path: &Path| PathBuf::from(format!("{}{ending}", path.display()));
            if name(&from).exists() {
                fs::copy(name(&from), name(&self.path())).unwrap();
            }
        }
    }
}

fn rows(live: &BTreeMap<String, Made>, ids: Vec<String>) -> Vec<LiveRow> {
    let row = |id: String| LiveRow {
        parent_id: live[&id].parent.clone(),
        created_at: live[&id].created_at,
        status: Some("available".into()),
        project: Some("p".into()),
        backend: Some(("posix".into(), String::new())),
        bytes: 1 << 30,
        id,
    };
    ids.into_iter().map(row).collect()
}

fn try_take_over(ledger: &Ledger, live: &BTreeMap<String, Made>, now: i64) -> Result<()> {
    let pass = ledger.live_pass()?;
    for (id, made) in live {
        let (id, parent_id) = (id.clone(), made.parent.clone());
        pass.add(&Backup { id, parent_id, status: Some("available".into()), ..Backup::default() }, true)?;
    }
    pass.seen_all()?;
    let mut after = 0;
    loop {
        let (place, ids) = pass.unknown(after, 50)?;
        if ids.is_empty() {
            return pass.end(now);
        }
        pass.put(&rows(live, ids))?;
        after = place;
    }
}

fn take_over(ledger: &Ledger, live: &BTreeMap<String, Made>, now: i64) {
    try_take_over(ledger, live, now).unwrap();
}

const RULES: Rules = Rules { level: Level::Deep, max_age: 30 * DAY, failed_only: false, now: START };

/// What is known of each backup: when it was verified last, and whether it was intact.
type Known = BTreeMap<String, (i64, bool)>;

/// What the ledger knows.
fn known(ledger: &Ledger, live: &BTreeMap<String, Made>) -> Known {
    let mut entries = ledger.connection.prepare(
        "SELECT backups.id, coalesce(found_at, deep_at), results.backup IS NULL FROM backups LEFT JOIN results ON backup = number",
    );
    let rows = entries.as_mut().unwrap().query_map([], |row| Ok((row.get::<_, String>(0)?, (row.get::<_, Option<i64>>(1)?, row.get(2)?))));
    let known = rows.unwrap().map(|row| row.unwrap()).filter_map(|(id, (at, intact))| Some((id, (at?, intact))));
    known.filter(|(id, _)| live.contains_key(id)).collect()
}

/// A year of nights: some backups are added, deleted and damaged every day. Every 50th result, the process is killed.
struct Year {
    site: Site,
    live: BTreeMap<String, Made>,
    model: Known,
    random: StdRng,
    steps: usize,
    made: usize,
    kills: usize,
}

impl Year {
    fn new() -> Self {
        let random = StdRng::seed_from_u64(11);
        Self { site: Site::new(), live: BTreeMap::new(), model: Known::new(), random, steps: 0, made: 0, kills: 0 }
    }

    /// Some backups are added, some of them as increments.
    fn add(&mut self, backups: usize, now: i64) {
        for _ in 0..backups {
            self.made += 1;
            let parents: Vec<String> = self.live.keys().cloned().collect();
            let parent =
                (!parents.is_empty() && self.random.random_bool(0.7)).then(|| parents[self.random.random_range(0..parents.len())].clone());
            // Ids in an order of their own.
            let id = format!("{:08x}", (self.made as u32).wrapping_mul(2_654_435_761));
            self.live.insert(id, Made { parent, created_at: now, damaged: false });
        }
    }

    fn live_through_a_day(&mut self, now: i64) {
        self.add(self.made % 6, now);
        for _ in 0..2 {
            let any = self.live.keys().nth(self.random.random_range(0..self.live.len())).cloned().unwrap();
            self.live.remove(&any);
            self.model.remove(&any);
        }
        if self.random.random_bool(0.3) {
            let any = self.random.random_range(0..self.live.len());
            self.live.values_mut().nth(any).unwrap().damaged = true;
        }
    }

    /// Runs in one night, which check at most `budget` backups together: one, and another after each kill. Returns whether everything that
    /// was due was checked.
    fn night(&mut self, mut budget: usize, mut now: i64) -> bool {
        loop {
            match self.run(&mut budget, &mut now) {
                End::Killed => self.kills += 1,
                End::Done => return true,
                End::UsedUp => return false,
            }
        }
    }

    fn run(&mut self, budget: &mut usize, now: &mut i64) -> End {
        let (_lock, ledger) = self.site.open(*now);
        assert!(matches!(RunLock::take(&self.site.path()), Err(LedgerError::Locked(..))), "one writer");
        ledger.release(*now).unwrap();
        let run = ledger.begin_run(Level::Deep, *now).unwrap();
        take_over(&ledger, &self.live, *now);
        assert_eq!(known(&ledger, &self.live), self.model, "after {} kills", self.kills);
        let mut queue = ledger.queue(&Rules { now: *now, ..RULES }, None).unwrap();
        loop {
            let portion = queue.next(&ledger, 10, None, true).unwrap();
            for queued in &portion {
                if *budget == 0 {
                    break;
                }
                (*budget, *now, self.steps) = (*budget - 1, *now + 60, self.steps + 1);
                let damaged = self.live[&queued.id].damaged;
                let verdict = if damaged { CheckVerdict::Corrupt } else { CheckVerdict::Intact };
                // Every 50th step, the process is killed: once before the result is committed, and once after it.
                if self.steps % 100 == 50 {
                    ledger.batch(statements::BEGIN).unwrap();
                    ledger.connection.execute(statements::UNCLAIM_ALL, []).unwrap();
                    self.site.kill();
                    return End::Killed;
                }
                ledger.record(run, &result(&queued.id, Level::Deep, verdict), 900, *now).unwrap();
                self.model.insert(queued.id.clone(), (*now, !damaged));
                if self.steps.is_multiple_of(100) {
                    self.site.kill();
                    return End::Killed;
                }
            }
            if portion.is_empty() || *budget == 0 {
                ledger.release(*now).unwrap();
                ledger.end_run(run, *now, None).unwrap();
                let is_done = portion.is_empty() || !queue.has_more(&ledger).unwrap();
                ledger.close();
                return if is_done && *budget > 0 { End::Done } else { End::UsedUp };
            }
        }
    }
}

/// How a run ends.
enum End {
    /// Everything that was due was checked.
    Done,
    /// The budget is used up.
    UsedUp,
    /// The process was killed.
    Killed,
}

#[test]
fn in_a_year_every_backup_is_verified_within_the_maximum_age_and_a_kill_loses_at_most_one_result() {
    let mut year = Year::new();
    year.add(200, START);
    let (mut nights_done, mut last_missed) = (0, 0);
    for day in 0..365 {
        let now = START + day * DAY;
        year.live_through_a_day(now);
        if year.night(40, now + DAY / 2) {
            nights_done += 1;
            for (id, made) in &year.live {
                let (at, intact) = year.model.get(id).copied().unwrap_or_else(|| panic!("day {day}: {id} was never verified"));
                assert!(at > now + DAY / 2 - 30 * DAY, "day {day}: {id} was verified {} days ago", (now - at) / DAY);
                // Damage is found within the maximum age.
                assert!(intact || made.damaged, "{id}");
            }
        } else {
            last_missed = day;
        }
    }
    assert!(nights_done > 300, "{nights_done} nights, the last one that missed something was {last_missed}");
    assert!(year.kills > 50 && year.made > 800, "{} kills, {} backups", year.kills, year.made);
    let (_lock, ledger) = year.site.open(START + 366 * DAY);
    let failures = ledger.failures(None, usize::MAX).unwrap();
    assert!(!failures.is_empty() && failures.iter().all(|failure| year.live[&failure.id].damaged && failure.found_at >= failure.first_at));
    let rotted = failures.iter().filter(|failure| failure.good_at.is_some_and(|good| good < failure.first_at)).count();
    assert!(rotted > failures.len() / 2, "{rotted} of {}", failures.len());
}

fn entries() -> impl Strategy<Value = Entry> {
    let at = || proptest::option::of(0..100 * DAY).prop_map(|at| at.map(|at| START - at));
    (0..400 * DAY, at(), at(), at(), at()).prop_map(|(age, quick, deep, failed, unanswered_at)| Entry {
        created_at: START - age,
        // A deeper check is also one at the lower levels.
        intact_at: [quick.max(deep), deep, None],
        failed: failed.map(|at| (at, Level::Deep)),
        limited: None,
        unanswered_at,
    })
}

proptest! {
    #[test]
    fn what_was_never_verified_comes_first_and_then_what_was_tried_longest_ago(one in entries(), other in entries()) {
        let tried = |entry: &Entry| entry.settled_at(Level::Deep).max(entry.unanswered_at);
        let urgency = |entry: &Entry| entry.urgency(&RULES);
        for entry in [&one, &other] {
            let is_due = entry.settled_at(Level::Deep).is_none_or(|at| at + RULES.max_age <= RULES.now);
            prop_assert_eq!(urgency(entry).is_some(), is_due);
        }
        if let (Some(first), Some(second)) = (urgency(&one), urgency(&other)) {
            match (tried(&one), tried(&other)) {
                (None, Some(_)) => prop_assert!(first < second),
                (None, None) => prop_assert_eq!(first.cmp(&second), one.created_at.cmp(&other.created_at)),
                (Some(one), Some(other)) => prop_assert_eq!(first.cmp(&second), one.cmp(&other)),
                (Some(_), None) => prop_assert!(first > second),
            }
        }
        // What is due at a level is due at every deeper one.
        if one.urgency(&Rules { level: Level::Quick, ..RULES }).is_some() && one.failed.is_none() {
            prop_assert!(urgency(&one).is_some());
        }
    }

    #[test]
    fn chains_stay_together_at_the_place_of_their_most_urgent_member(
        parents in proptest::collection::vec(proptest::option::of(0_usize..40), 1..40),
        verified in proptest::collection::vec(proptest::option::of(0..60 * DAY), 40),
    ) {
        let site = Site::new();
        let (_lock, ledger) = site.open(START);
        let name = |number: usize| format!("b{number:02}");
        let live: BTreeMap<String, Made> = parents.iter().enumerate().map(|(number, parent)| {
            let parent = parent.filter(|parent| *parent < number).map(name);
            (name(number), Made { parent, created_at: START - 1_000 + number as i64, damaged: false })
        }).collect();
        take_over(&ledger, &live, START - 61 * DAY);
        let run = ledger.begin_run(Level::Deep, START - 61 * DAY).unwrap();
        for (number, age) in verified.iter().enumerate().take(parents.len()) {
            if let Some(age) = age {
                ledger.record(run, &result(&name(number), Level::Deep, CheckVerdict::Intact), 0, START - age).unwrap();
            }
        }
        let mut queue = ledger.queue(&RULES, None).unwrap();
        let (mut order, mut portions) = (Vec::new(), 0);
        loop {
            let portion = queue.next(&ledger, 5, None, true).unwrap();
            if portion.is_empty() {
                break;
            }
            portions += 1;
            order.extend(portion);
        }
        let root = |id: &str| {
            let mut id = id.to_owned();
            while let Some(parent) = live[&id].parent.clone() {
                id = parent;
            }
            id
        };
        let due = |number: usize| verified[number].is_none_or(|age| age >= 30 * DAY);
        let expected: BTreeSet<String> = (0..parents.len()).filter(|number| due(*number)).map(name).collect();
        prop_assert_eq!(order.iter().map(|queued| queued.id.clone()).collect::<BTreeSet<_>>(), expected);
        prop_assert!(portions <= order.len() && order.len() as u64 == queue.length);
        let chains: Vec<String> = order.iter().map(|queued| root(&queued.id)).collect();
        let mut begun: Vec<&String> = chains.iter().collect();
        begun.dedup();
        prop_assert_eq!(begun.len(), chains.iter().collect::<BTreeSet<_>>().len(), "a chain is in one piece");
        let urgency = |id: &str| {
            let number: usize = id[1..].parse().unwrap();
            verified[number].map_or(i64::MIN / 2 + live[id].created_at, |age| START - age)
        };
        let most: Vec<i64> = begun.iter().map(|chain| {
            order.iter().filter(|queued| root(&queued.id) == **chain).map(|queued| urgency(&queued.id)).min().unwrap()
        }).collect();
        prop_assert!(most.is_sorted(), "{most:?}");
    }
}

/// The clock of each run says sooner or later that the time is over.
#[test]
fn a_run_that_is_interrupted_at_any_step_keeps_rows_and_the_next_one_adds_the_others() {
    let name = |number: usize| format!("b{:03}", number * 7 % 300);
    let parent = |number: usize| (!number.is_multiple_of(3)).then(|| name(number - 1));
    let live: BTreeMap<String, Made> =
        (0..300).map(|number| (name(number), Made { parent: parent(number), created_at: START, damaged: false })).collect();
    let site = Site::new();
    let mut kept = Vec::new();
    let length = (1..).find_map(|questions| {
        let (_lock, mut ledger) = site.open(START);
        let mut asked = 0;
        let clock = move || {
            asked += 1;
            asked > questions
        };
        ledger.interrupt(Some(clock)).unwrap();
        let queue = try_take_over(&ledger, &live, START).and_then(|()| ledger.queue(&RULES, None));
        ledger.interrupt(None::<fn() -> bool>).unwrap();
        ledger.release(START).unwrap();
        let number = |statement: &str| ledger.connection.query_row(statement, [], |row| unsigned(row, 0)).unwrap();
        kept.push(number("SELECT count(*) FROM backups"));
        match queue {
            Ok(queue) => {
                assert_eq!(number("SELECT count(*) FROM backups WHERE chain = 0"), 0);
                assert_eq!(number("SELECT count(DISTINCT chain) FROM backups"), 100);
                Some(queue.length)
            }
            Err(error) => {
                assert!(error.is_interrupted(), "{error}");
                None
            }
        }
    });
    assert_eq!(length, Some(300));
    assert!(kept.is_sorted() && kept.iter().any(|kept| (1..300).contains(kept)), "{kept:?}");
}

#[test]
fn a_result_says_whether_the_backup_or_the_storage_is_at_fault() {
    let deep = |verdict| result("b", Level::Deep, verdict);
    for (result, outcome) in [
        (deep(CheckVerdict::Intact), Outcome::Intact),
        (deep(CheckVerdict::Missing), Outcome::Failed),
        (CheckResult { busy: true, ..deep(CheckVerdict::Incomplete) }, Outcome::Unanswered),
        (with_problem(deep(CheckVerdict::Unverifiable), ProblemCode::Unreadable), Outcome::Failed),
        (with_problem(deep(CheckVerdict::Unverifiable), ProblemCode::StorageAway), Outcome::Unanswered),
        (with_problem(deep(CheckVerdict::Unverifiable), ProblemCode::Cancelled), Outcome::CutOff),
        (with_problem(deep(CheckVerdict::Unverifiable), ProblemCode::DriverUnknown), Outcome::Limited),
        (with_problem(deep(CheckVerdict::Unverifiable), ProblemCode::LevelNotReached), Outcome::Limited),
    ] {
        assert_eq!(Outcome::of(&result), outcome, "{result:?}");
    }
}

/// A ledger with one backup.
fn one_backup(site: &Site) -> (RunLock, Ledger, i64) {
    let (lock, ledger) = site.open(START);
    take_over(&ledger, &BTreeMap::from([("b".to_owned(), Made { parent: None, created_at: START, damaged: false })]), START);
    let run = ledger.begin_run(Level::Deep, START).unwrap();
    (lock, ledger, run)
}

#[test]
fn the_last_good_date_is_that_of_a_check_that_could_have_seen_the_damage() {
    for (before, verdict, good) in [
        (Level::Quick, CheckVerdict::Corrupt, None),
        (Level::Deep, CheckVerdict::Corrupt, Some(START)),
        (Level::Quick, CheckVerdict::Incomplete, Some(START)),
    ] {
        let site = Site::new();
        let (_lock, ledger, run) = one_backup(&site);
        ledger.record(run, &result("b", before, CheckVerdict::Intact), 0, START).unwrap();
        let recorded = ledger.record(run, &result("b", Level::Deep, verdict), 0, START + DAY).unwrap();
        assert_eq!(recorded, Recorded { outcome: Outcome::Failed, rotted_since: good }, "{before} {verdict}");
        // It has rotted once, and keeps both dates.
        let again = ledger.record(run, &result("b", Level::Deep, verdict), 0, START + 2 * DAY).unwrap();
        assert_eq!(again.rotted_since, None);
        let failure = ledger.failures(Some(run), 10).unwrap().remove(0);
        assert_eq!((failure.first_at, failure.found_at, failure.good_at), (START + DAY, START + 2 * DAY, good));
        // A check at a lower level does not clear a failure; one at the same level does.
        ledger.record(run, &result("b", Level::Quick, CheckVerdict::Intact), 0, START + 3 * DAY).unwrap();
        assert_eq!(ledger.failures(None, 10).unwrap().len(), 1);
        ledger.record(run, &result("b", Level::Deep, CheckVerdict::Intact), 0, START + 4 * DAY).unwrap();
        assert_eq!(ledger.failures(None, 10).unwrap(), []);
    }
}

#[test]
fn what_gives_no_answer_goes_behind_and_keeps_its_verification() {
    let site = Site::new();
    let (_lock, ledger, run) = one_backup(&site);
    ledger.record(run, &result("b", Level::Deep, CheckVerdict::Intact), 0, START).unwrap();
    let away = with_problem(result("b", Level::Deep, CheckVerdict::Unverifiable), ProblemCode::StorageAway);
    ledger.record(run, &away, 0, START + DAY).unwrap();
    let covered = ledger.coverage(START - DAY, Level::Deep).unwrap().remove(0);
    assert_eq!((covered.backups, covered.intact, covered.failed, covered.unanswered), (1, [1, 1, 0], 0, 1));
    assert_eq!((covered.oldest_unverified_at, covered.intact_bytes), (None, 1 << 30));
    let later = ledger.coverage(START + 1, Level::Deep).unwrap().remove(0);
    assert_eq!((later.intact, later.oldest_unverified_at), ([0; 3], Some(START)));
    // A live pass that does not see a backup takes it out of the coverage, and a later one brings it back with what is known of it.
    drop(ledger);
    let (_, ledger) = (drop(_lock), site.open(START).1);
    take_over(&ledger, &BTreeMap::new(), START + DAY);
    assert_eq!(ledger.coverage(0, Level::Deep).unwrap(), []);
    drop(ledger);
    let ledger = site.open(START).1;
    take_over(&ledger, &BTreeMap::from([("b".to_owned(), Made { parent: None, created_at: START, damaged: false })]), START + 2 * DAY);
    assert_eq!(ledger.coverage(START - DAY, Level::Deep).unwrap().remove(0).intact, [1, 1, 0]);
}

#[test]
fn results_are_short_and_only_those_about_pending_backups_are_evidence() {
    let site = Site::new();
    let (_lock, ledger, run) = one_backup(&site);
    let many = (0..1_000).map(|number| Problem::of(format!("object {number}"), ProblemCode::ObjectMissing, "is missing")).collect();
    let damaged = CheckResult { problems: many, ..result("b", Level::Deep, CheckVerdict::Incomplete) };
    ledger.record(run, &damaged, 900, START).unwrap();
    let evidence = || {
        let mut all = Vec::new();
        ledger.evidence(&mut |stored| all.push(stored)).unwrap();
        all
    };
    assert!(evidence().is_empty(), "nothing is decided about an available backup");
    let row = Backup { id: "b".into(), status: Some("creating".into()), ..Backup::default() };
    ledger.record(run, &CheckResult { rows: vec![row.image(ColumnSet::Mitaka)], ..damaged }, 900, START).unwrap();
    let stored = evidence().remove(0);
    assert_eq!((stored.result.verdict, stored.settle, stored.result.problems.len()), (CheckVerdict::Incomplete, 900, 101));
    assert_eq!(stored.result.problems.last().unwrap().text, "and 900 more problems");
}

#[test]
fn an_older_ledger_is_migrated_and_a_newer_one_is_refused() {
    let site = Site::new();
    let (lock, ledger) = site.open(START);
    ledger.migrate(&[statements::SCHEMA_1, "CREATE TABLE later (id INTEGER) STRICT; PRAGMA user_version = 2;"]).unwrap();
    let tables = || ledger.connection.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'later'", [], |row| row.get::<_, i64>(0));
    assert_eq!(tables().unwrap(), 1);
    // A migration that fails leaves the ledger as it was.
    assert!(ledger.migrate(&[statements::SCHEMA_1, "", "CREATE TABLE other (id INTEGER); CREATE TABLE later (id INTEGER);"]).is_err());
    assert_eq!(ledger.database().unwrap().identity, "one");
    drop(ledger);
    for refused in [Ledger::open(&site.path(), false), Ledger::open_for_run(&site.path(), &lock, &database("one"), START)] {
        assert!(matches!(refused, Err(LedgerError::Newer(_, 2, 1))), "{refused:?}");
    }
}

#[test]
fn the_forecast_is_the_rest_at_the_recent_rate() {
    for (left, all, done, span, forecasted) in [
        (0, 10, 0, 0, Forecast::Complete),
        (5, 10, 0, DAY, Forecast::Unknown),
        (5, 10, 1, DAY, Forecast::In(5 * DAY)),
        (5, 40, 1, DAY, Forecast::TooSlow(40 * DAY)),
        (u64::MAX, u64::MAX, 1, DAY, Forecast::TooSlow(i64::MAX)),
    ] {
        assert_eq!(forecast(left, all, done, span, 30 * DAY), forecasted);
    }
}

#[test]
fn a_ledger_has_one_lock_under_all_of_its_names() {
    let site = Site::new();
    let (_lock, _ledger) = site.open(0);
    let other = site.folder.path().join("other");
    std::os::unix::fs::symlink(site.path(), &other).unwrap();
    assert!(matches!(RunLock::take(&other), Err(LedgerError::Locked(..))));
}

#[test]
fn a_link_in_place_of_the_lock_is_not_followed() {
    let site = Site::new();
    let victim = site.folder.path().join("victim");
    fs::write(&victim, "text").unwrap();
    std::os::unix::fs::symlink(&victim, format!("{}.lock", site.path().display())).unwrap();
    assert!(matches!(RunLock::take(&site.path()), Err(LedgerError::Open(..))));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "text");
}
