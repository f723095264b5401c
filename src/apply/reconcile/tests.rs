use std::collections::BTreeMap;

use super::*;
use crate::apply::history_view::first_writers;
use crate::audit::RunRecords;
use crate::audit::record::{Begin, Settled, Who, Window};
use crate::domain::{Backup, ColumnSet, DatabaseInfo, FindingKind, Policy, QuotaUsage, Volume};

const BEFORE: &str = "2026-11-22 16:00:00";
const WRITTEN: &str = "2026-11-22 18:46:34";
const LATER: &str = "2026-11-22 20:00:00";
const OURS: &str = "cinder-backup-repair: left in creating: cinder-backup on ctl1 last beat 3 h ago";

fn backup(id: &str, status: &str, counter: i64, at: &str) -> Image {
    Backup {
        id: id.into(),
        status: Some(status.into()),
        host: Some("ctl1".into()),
        num_dependent_backups: Some(counter),
        updated_at: Some(at.into()),
        ..Backup::default()
    }
    .image(ColumnSet::Mitaka)
}

fn volume(status: &str, at: &str) -> Image {
    Volume { id: "v".into(), status: Some(status.into()), updated_at: Some(at.into()), ..Volume::default() }.image(ColumnSet::Mitaka)
}

fn with_reason(mut image: Image, reason: &str) -> Image {
    image.columns.insert("fail_reason".to_owned(), reason.into());
    image
}

/// What leads from one row to another, but for the time.
fn changes(pairs: &[(&Image, &Image)]) -> Vec<Change> {
    let of = |(before, after): &(&Image, &Image)| before.moved(after);
    let change = |moved: crate::domain::Moved| Change {
        table: moved.table,
        id: moved.id,
        column: moved.column,
        from: moved.planned,
        to: moved.found,
    };
    pairs.iter().flat_map(of).filter(|moved| moved.column != "updated_at").map(change).collect()
}

/// A unit of which the log has only the intent: from these rows to those.
fn open(number: usize, pairs: &[(&Image, &Image)]) -> UnitHistory {
    let window = Window {
        from: "2026-11-22T18:46:33.5Z".into(),
        until: "2026-11-22T18:56:33.5Z".into(),
        last_beat: Some("2026-11-22T15:00:00Z".into()),
    };
    let intent = Intent {
        unit: number,
        kind: FindingKind::Backup,
        id: pairs.first().unwrap().0.id.clone(),
        name: None,
        evidence: Vec::new(),
        before: pairs.iter().map(|(before, _)| (*before).clone()).collect(),
        changes: changes(pairs),
        statements: Vec::new(),
        window: Some(window),
        follow_up: Vec::new(),
    };
    UnitHistory { intent, outcome: None, settled: None }
}

/// Settles a unit over rows that are now as given.
fn settle(unit: &UnitHistory, later: &LaterUnits, now: &[Option<Image>]) -> Settlement {
    settle_after(unit, later, &FirstWriters::new(), now)
}

/// The same, for a unit that is not the first of its run.
fn settle_after(unit: &UnitHistory, later: &LaterUnits, first_writers: &FirstWriters, now: &[Option<Image>]) -> Settlement {
    let intended = intended(&unit.intent.before, &unit.intent.changes);
    let before = &unit.intent.before;
    let seen = before.iter().zip(now).map(|(row, now)| later.seen(row.table, &row.id, now.clone()));
    let seen: Vec<RowView> = seen.map(|seen| seen.without_earlier_units(&unit.intent, first_writers)).collect();
    let telling = telling(before, &intended, &seen);
    let standing = compare(before, &intended, &seen, &telling);
    let doubt = (standing == Standing::After).then(|| doubt_over(&unit.intent, &seen, &telling));
    settlement(standing, doubt.flatten(), seen)
}

/// The units of one run, settled as `history reconcile` does it: backwards.
fn settle_run(units: Vec<UnitHistory>, now: impl Fn(&str) -> Option<Image>) -> Vec<Outcome> {
    let mut run = run(units);
    let (mut later, mut outcomes) = (LaterUnits::default(), Vec::new());
    for number in run.units.keys().rev().copied().collect::<Vec<_>>() {
        let first_writers = first_writers(&run);
        let unit = run.units.get_mut(&number).unwrap();
        let rows: Vec<Option<Image>> = unit.intent.before.iter().map(|row| now(&row.id)).collect();
        let Settlement { outcome, reason, found, .. } = settle_after(unit, &later, &first_writers, &rows);
        unit.settled = Some(Settled { unit: number, outcome, reason, found, after_window: false, who: Who::default() });
        later.add(unit, &first_writers);
        outcomes.insert(0, outcome);
    }
    outcomes
}

fn run(units: Vec<UnitHistory>) -> RunRecords {
    let text = String::new;
    let database = DatabaseInfo { engine: text(), version: text(), release: text(), identity: text(), location: None };
    let begin = Begin {
        command: text(),
        program: text(),
        plan: text(),
        plan_sha256: text(),
        undoes: None,
        who: Who::default(),
        database,
        reason: None,
        ticket: None,
        policy: Policy::default(),
        units: units.len(),
    };
    let units: BTreeMap<usize, UnitHistory> = units.into_iter().map(|unit| (unit.intent.unit, unit)).collect();
    RunRecords { run: text(), at: text(), begin, units, ended_at: None, end: None }
}

#[test]
fn only_what_was_seen_settles() {
    let (before, after) = (backup("b", "creating", 0, BEFORE), with_reason(backup("b", "error", 0, ""), OURS));
    let unit = open(1, &[(&before, &after)]);
    let of = |found: Option<Image>| settle(&unit, &LaterUnits::default(), &[found]).outcome;
    assert_eq!(of(Some(before.clone())), Outcome::Failed);
    assert_eq!(of(Some(with_reason(backup("b", "error", 0, WRITTEN), OURS))), Outcome::Applied);
    // Decided over again, it may have given another reason.
    assert_eq!(of(Some(with_reason(backup("b", "error", 0, WRITTEN), "cinder-backup-repair: else"))), Outcome::Applied);
    assert_eq!(of(Some(with_reason(backup("b", "error", 0, WRITTEN), "incomplete backup reset on manager restart"))), Outcome::Unknown);
    // Somebody touched it and left the status: that it was not written cannot be said any more.
    assert_eq!(of(Some(backup("b", "creating", 0, WRITTEN))), Outcome::Unknown);
    assert_eq!(of(Some(backup("b", "available", 0, WRITTEN))), Outcome::Unknown);
    assert_eq!(of(None), Outcome::Unknown);
}

/// cinder-backup's own clean-up leaves a restored backup and its volume exactly as a repair does, and so does a person by hand.
#[test]
fn rows_as_they_were_to_become_are_no_proof_by_themselves() {
    let rows =
        |status: &str, of_volume: &str, backup_at: &str, volume_at: &str| [backup("b", status, 0, backup_at), volume(of_volume, volume_at)];
    let (before, restored) = (rows("restoring", "restoring-backup", BEFORE, BEFORE), rows("available", "error_restoring", "", ""));
    let unit = open(1, &before.iter().zip(&restored).collect::<Vec<_>>());
    let of = |unit: &UnitHistory, [backup, volume]: [Image; 2]| settle(unit, &LaterUnits::default(), &[Some(backup), Some(volume)]);
    let unmarked = of(&unit, rows("available", "error_restoring", WRITTEN, WRITTEN));
    assert_eq!(unmarked.outcome, Outcome::Unknown);
    assert!(unmarked.reason.contains("shows that this program wrote them"), "{}", unmarked.reason);
    // Our own words prove it, but not where somebody has written since.
    let marked = |backup_at: &str, volume_at: &str| {
        let [backup, volume] = rows("error", "error_restoring", backup_at, volume_at);
        [with_reason(backup, OURS), volume]
    };
    let failed = marked("", "");
    let unit = open(1, &before.iter().zip(&failed).collect::<Vec<_>>());
    assert_eq!(of(&unit, marked(WRITTEN, WRITTEN)).outcome, Outcome::Applied);
    for (backup_at, volume_at) in [(LATER, LATER), (WRITTEN, LATER), (BEFORE, WRITTEN)] {
        let elsewhen = of(&unit, marked(backup_at, volume_at));
        assert_eq!(elsewhen.outcome, Outcome::Unknown, "{backup_at} {volume_at}");
        assert!(elsewhen.reason.contains("was written at"), "{}", elsewhen.reason);
    }
}

#[test]
fn a_log_that_does_not_say_when_is_believed_where_our_own_words_stand() {
    let of = |after: Image, found: Image| {
        let mut unit = open(1, &[(&backup("b", "creating", 0, BEFORE), &after)]);
        unit.intent.window = None;
        settle(&unit, &LaterUnits::default(), &[Some(found)]).outcome
    };
    let error = |at: &str| with_reason(backup("b", "error", 0, at), OURS);
    assert_eq!(of(error(""), error(WRITTEN)), Outcome::Applied);
    assert_eq!(of(backup("b", "available", 0, ""), backup("b", "available", 0, WRITTEN)), Outcome::Unknown);
}

/// The parent that one unit of an undo takes back counts the child of the next one.
#[test]
fn a_chain_that_one_run_repaired_is_settled_whole() {
    let (parent, child) = (backup("p", "available", 0, BEFORE), backup("c", "available", 0, BEFORE));
    let units = || {
        vec![
            open(1, &[(&parent, &backup("p", "creating", 0, ""))]),
            open(2, &[(&child, &backup("c", "creating", 0, "")), (&parent, &backup("p", "available", 1, ""))]),
        ]
    };
    let of = |parent: Image, child: Image| settle_run(units(), |id| Some(if id == "p" { parent.clone() } else { child.clone() }));
    use Outcome::{Applied, Failed, Unknown};
    assert_eq!(of(backup("p", "creating", 1, WRITTEN), backup("c", "creating", 0, WRITTEN)), [Applied, Applied]);
    assert_eq!(of(backup("p", "creating", 0, WRITTEN), child.clone()), [Applied, Failed]);
    assert_eq!(of(backup("p", "available", 1, WRITTEN), backup("c", "creating", 0, WRITTEN)), [Failed, Applied]);
    assert_eq!(of(parent.clone(), child.clone()), [Failed, Failed]);
    // A stranger has counted, too; the parent may have been taken back by anybody then.
    assert_eq!(of(backup("p", "creating", 2, LATER), backup("c", "creating", 0, WRITTEN)), [Unknown, Applied]);
}

/// The child has the smaller number, and counts in its parent's row before that one's own unit writes it.
#[test]
fn a_chain_that_was_repaired_from_its_tip_is_settled_whole() {
    let (parent, child) = (backup("p", "available", 0, BEFORE), backup("c", "available", 0, BEFORE));
    let units = || {
        vec![
            open(1, &[(&child, &backup("c", "creating", 0, "")), (&parent, &backup("p", "available", 1, ""))]),
            open(2, &[(&parent, &backup("p", "creating", 0, ""))]),
        ]
    };
    let of = |parent: Image, child: Image| settle_run(units(), |id| Some(if id == "p" { parent.clone() } else { child.clone() }));
    use Outcome::{Applied, Failed, Unknown};
    assert_eq!(of(backup("p", "creating", 1, WRITTEN), backup("c", "creating", 0, WRITTEN)), [Applied, Applied]);
    assert_eq!(of(backup("p", "available", 1, WRITTEN), backup("c", "creating", 0, WRITTEN)), [Applied, Failed]);
    assert_eq!(of(backup("p", "creating", 0, WRITTEN), child.clone()), [Failed, Applied]);
    assert_eq!(of(parent.clone(), child.clone()), [Failed, Failed]);
    // Somebody has written the parent when this run no longer did.
    assert_eq!(of(backup("p", "creating", 1, LATER), backup("c", "creating", 0, WRITTEN)), [Applied, Unknown]);
    assert_eq!(of(backup("p", "available", 1, LATER), backup("c", "creating", 0, WRITTEN)), [Applied, Unknown]);
}

/// Two children of one parent: each moved the counter from where the one before left it.
#[test]
fn children_of_one_parent_are_settled_and_found_as_each_left_the_counter() {
    let parent = |counter: i64, at: &str| backup("p", "creating", counter, at);
    let child = |number: usize, id: &str| {
        let pairs = [(backup(id, "available", 0, BEFORE), backup(id, "creating", 0, "")), (parent(0, BEFORE), parent(1, ""))];
        open(number, &pairs.iter().map(|(before, after)| (before, after)).collect::<Vec<_>>())
    };
    let mut run = run(vec![child(1, "a"), child(2, "b")]);
    let mut later = LaterUnits::default();
    for (number, counter) in [(2, 2), (1, 1)] {
        let first_writers = first_writers(&run);
        let unit = run.units.get_mut(&number).unwrap();
        let now = [Some(backup(&unit.intent.id, "creating", 0, WRITTEN)), Some(parent(2, WRITTEN))];
        let Settlement { outcome, reason, found, .. } = settle_after(unit, &later, &first_writers, &now);
        assert_eq!(outcome, Outcome::Applied, "{reason}");
        assert_eq!(found.last().unwrap().value(COUNTER), &counter.into());
        unit.settled = Some(Settled { unit: number, outcome, reason, found, after_window: false, who: Who::default() });
        later.add(unit, &first_writers);
    }
    // What was done before the run is as the first of them found it.
    assert_eq!(later.seen(Table::Backups, "p", None).image, Some(parent(0, BEFORE)));
}

/// Where there is nothing but the counter, it decides.
#[test]
fn a_counter_alone_decides() {
    let parent = |counter: i64, at: &str| backup("p", "available", counter, at);
    let (before, after) = ([parent(0, BEFORE)], [parent(1, "")]);
    let of = |counter: i64| {
        let seen = [RowView::current(Some(parent(counter, "")))];
        compare(&before, &after, &seen, &telling(&before, &after, &seen))
    };
    assert_eq!([of(1), of(2)], [Standing::After, Standing::Neither]);
}

/// Two killed runs over one backup, of which only the second wrote; and two of which nobody knows.
#[test]
fn a_later_run_over_the_same_rows_is_taken_into_account() {
    let (before, after) = (backup("b", "creating", 0, BEFORE), with_reason(backup("b", "error", 0, ""), OURS));
    let now = [Some(with_reason(backup("b", "error", 0, WRITTEN), OURS))];
    let mut second = open(1, &[(&before, &after)]);
    let first = second.clone();
    let mut later = LaterUnits::default();
    later.add(&second, &first_writers(&run(vec![second.clone()])));
    assert_eq!(settle(&first, &later, &now).outcome, Outcome::Unknown, "the second may have written them");
    let Settlement { outcome, reason, found, .. } = settle(&second, &LaterUnits::default(), &now);
    assert_eq!(outcome, Outcome::Applied);
    second.settled = Some(Settled { unit: 1, outcome, reason, found, after_window: false, who: Who::default() });
    let mut later = LaterUnits::default();
    later.add(&second, &first_writers(&run(vec![second.clone()])));
    assert_eq!(settle(&first, &later, &now).outcome, Outcome::Failed);
}

#[test]
fn a_known_time_must_fit_too() {
    let (before, after) = (backup("b", "creating", 0, BEFORE), backup("b", "error", 0, WRITTEN));
    let of = |found: Image| {
        let (before, after, seen) = ([before.clone()], [after.clone()], [RowView::current(Some(found))]);
        compare(&before, &after, &seen, &telling(&before, &after, &seen))
    };
    assert_eq!(of(after.clone()), Standing::After);
    assert_eq!(of(backup("b", "error", 0, LATER)), Standing::Neither);
}

/// A row that is as it was proves that nothing was written only where nothing can arrive any more.
#[test]
fn what_was_sent_to_another_server_may_arrive_until_its_window_is_over() {
    let may_arrive =
        |to: Option<&str>, node: Option<&str>, multi_primary, is_over| Sent { to, until: None, is_over }.may_arrive(node, multi_primary);
    for multi_primary in [false, true] {
        // The same server keeps the rows locked until the transaction is over; PostgreSQL's is another one on another timeline.
        assert!(!may_arrive(Some("timeline 00000001"), Some("timeline 00000001"), multi_primary, false));
        assert!(may_arrive(Some("timeline 00000001"), Some("timeline 00000002"), multi_primary, false));
        assert!(may_arrive(Some("timeline 00000001"), None, multi_primary, false));
        assert!(!may_arrive(Some("timeline 00000001"), Some("timeline 00000002"), multi_primary, true));
        assert!(!may_arrive(None, Some("node"), multi_primary, true));
    }
    // Where it is not on record, it can only be the one server that there is.
    assert!(!may_arrive(None, Some("node"), false, false));
    assert!(may_arrive(None, Some("node"), true, false));
}

#[test]
fn what_a_quota_counts_shows_the_outcome_only_if_nothing_else_does() {
    let quota = |in_use| QuotaUsage { id: "1".into(), project_id: "p".into(), resource: "backups".into(), in_use, reserved: 0 }.image();
    let standing = |before: &[Image], after: &[Image], now: &[&Image]| {
        let seen: Vec<RowView> = now.iter().map(|image| RowView::current(Some((*image).clone()))).collect();
        compare(before, after, &seen, &telling(before, after, &seen))
    };
    let corrected = |now: i64| standing(&[quota(3)], &[quota(2)], &[&quota(now)]);
    assert_eq!([2, 3, 7].map(corrected), [Standing::After, Standing::Before, Standing::Neither]);
    // Since a deletion, Cinder may have counted other backups.
    let [before, after] = ["deleting", "deleted"].map(|status| backup("b", status, 0, BEFORE));
    let deleted = |row: &Image| standing(&[before.clone(), quota(3)], &[after.clone(), quota(2)], &[row, &quota(9)]);
    assert_eq!((deleted(&after), deleted(&before)), (Standing::After, Standing::Before));
}
