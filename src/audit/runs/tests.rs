use std::io::Write;

use super::super::tests::samples;
use super::*;

fn log(lines: &[Vec<u8>]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&lines.concat()).unwrap();
    file
}

fn of(events: Vec<(&'static str, Event)>) -> tempfile::NamedTempFile {
    log(&samples::lines(events))
}

/// Run, intents, tally, open units, undone by.
type Short = (String, usize, Tally, Vec<usize>, Option<String>);

fn short(path: &Path) -> Vec<Short> {
    let of = |run: RunSummary| (run.run, run.intents, Tally { not_begun: 0, ..run.tally }, run.open, run.undone_by);
    runs(path).unwrap().runs.into_iter().map(of).collect()
}

fn tally(outcomes: &[Outcome]) -> Tally {
    Tally::of(outcomes)
}

#[test]
fn a_run_is_summed_up() {
    let file = of(vec![
        ("r1", samples::begin("p1", None)),
        ("r1", samples::intent(1)),
        ("r1", samples::outcome(1, Outcome::Applied)),
        ("r1", samples::intent(2)),
        ("r1", samples::outcome(2, Outcome::Changed)),
        ("r1", samples::outcome(3, Outcome::Refused)),
        ("r1", samples::end()),
    ]);
    let found = runs(file.path()).unwrap();
    assert!(found.damage.is_none());
    let run = &found.runs[0];
    assert_eq!((run.run.as_str(), run.intents, &run.open), ("r1", 2, &vec![]));
    assert_eq!(run.tally, tally(&[Outcome::Applied, Outcome::Changed, Outcome::Refused]));
    assert_eq!(run.at, "2026-11-22T18:46:01Z");
    assert_eq!(run.end.as_ref().unwrap().interrupted.as_deref(), Some("SIGTERM"));
}

#[test]
fn an_intent_that_is_written_anew_counts_once_and_the_last_one_holds() {
    let again = |unit| {
        let Event::Intent(mut intent) = samples::intent(unit) else { unreachable!() };
        intent.window.as_mut().unwrap().from = "2026-11-22T18:50:00Z".to_owned();
        Event::Intent(intent)
    };
    let events = vec![
        ("r1", samples::begin("p1", None)),
        ("r1", samples::intent(1)),
        ("r1", samples::intent(2)),
        ("r1", samples::outcome(1, Outcome::Applied)),
        ("r1", again(2)),
    ];
    let file = of(events.clone());
    assert_eq!(short(file.path()), [("r1".into(), 2, tally(&[Outcome::Applied]), vec![2], None)]);
    assert_eq!(Event::Intent(Box::new(load_run(file.path(), "r1").unwrap().units[&2].intent.clone())), again(2));
    let file = of([events, vec![("r1", samples::outcome(2, Outcome::Failed))]].concat());
    assert_eq!(short(file.path())[0], ("r1".into(), 2, tally(&[Outcome::Applied, Outcome::Failed]), vec![], None));
}

#[test]
fn open_units_stay_open_until_they_are_settled() {
    let mut events = vec![
        ("r1", samples::begin("p1", None)),
        ("r1", samples::intent(1)),
        ("r1", samples::outcome(1, Outcome::Unknown)),
        ("r1", samples::intent(2)),
        ("r1", samples::intent(3)),
        ("r1", samples::outcome(3, Outcome::Failed)),
    ];
    let open = |events: &[(&'static str, Event)]| {
        let (_, _, tally, open, _) = short(of(events.to_vec()).path()).remove(0);
        (tally, open)
    };
    use Outcome::{Applied, Failed, Unknown};
    assert_eq!(open(&events), (tally(&[Unknown, Failed]), vec![1, 2]));
    let unseen = |events: &[(&'static str, Event)]| runs(of(events.to_vec()).path()).unwrap().runs[0].unseen;
    assert_eq!(unseen(&events), 2);
    events.push(("r1", samples::settled(1, Unknown)));
    assert_eq!(open(&events), (tally(&[Unknown, Failed]), vec![1, 2]));
    assert_eq!(unseen(&events), 1, "one was looked at, and the rows did not tell");
    events.push(("r1", samples::settled(1, Applied)));
    assert_eq!(open(&events), (tally(&[Applied, Failed]), vec![2]));
    events.push(("r1", samples::settled(2, Failed)));
    assert_eq!(open(&events), (tally(&[Applied, Failed, Failed]), vec![]));
    // Settled once more, it is not counted once more.
    events.push(("r1", samples::settled(2, Failed)));
    assert_eq!(open(&events), (tally(&[Applied, Failed, Failed]), vec![]));
}

#[test]
fn runs_that_mingle_or_began_in_another_log_are_kept_apart() {
    let file = of(vec![
        ("gone", samples::settled(1, Outcome::Applied)),
        ("r1", samples::begin("p1", None)),
        ("r1", samples::intent(1)),
        ("r2", samples::begin("p2", None)),
        ("r1", samples::settled(1, Outcome::Applied)),
        ("r2", samples::intent(1)),
    ]);
    let found = short(file.path());
    assert_eq!(found[0], ("r1".to_owned(), 1, tally(&[Outcome::Applied]), vec![], None));
    assert_eq!(found[1], ("r2".to_owned(), 1, Tally::default(), vec![1], None));
    assert_eq!(found.len(), 2);
}

fn undo_of(run: &'static str, undone: &'static str, outcome: Outcome) -> [(&'static str, Event); 3] {
    [(run, samples::begin(run, Some(undone))), (run, samples::intent(1)), (run, samples::outcome(1, outcome))]
}

#[test]
fn undone_is_what_an_undo_changed_and_nobody_brought_back() {
    let undone_by = |parts: &[[(&'static str, Event); 3]]| {
        let first = [("r1", samples::begin("p1", None)), ("r1", samples::intent(1)), ("r1", samples::outcome(1, Outcome::Applied))];
        let events = [first].iter().chain(parts).flatten().cloned().collect();
        short(of(events).path()).into_iter().map(|run| run.4).collect::<Vec<_>>()
    };
    let changed = undo_of("u1", "r1", Outcome::Changed);
    let applied = undo_of("u2", "r1", Outcome::Applied);
    let back = undo_of("u3", "u2", Outcome::Applied);
    assert_eq!(undone_by(std::slice::from_ref(&changed)), [None, None]);
    assert_eq!(undone_by(&[changed.clone(), applied.clone()]), [Some("u2".to_owned()), None, None]);
    assert_eq!(undone_by(&[applied, back]), [None, Some("u3".to_owned()), None]);
}

#[test]
fn damage_leaves_what_stands_before_it() {
    let mut lines = samples::lines([
        ("r1", samples::begin("p1", None)),
        ("r1", samples::end()),
        ("r2", samples::begin("p2", None)),
        ("r2", samples::end()),
    ]);
    lines.remove(1);
    let found = runs(log(&lines).path()).unwrap();
    assert_eq!(found.runs.len(), 1);
    assert!(matches!(found.damage, Some(AuditError::Damaged { problem: Problem { line: 2, .. }, .. })));
}

#[test]
fn a_run_is_loaded_by_its_id_or_what_begins_it() {
    let file = of(vec![
        ("ab12", samples::begin("p1", None)),
        ("ab12", samples::intent(1)),
        ("ab99", samples::begin("p2", None)),
        ("ab12", samples::intent(2)),
        ("ab12", samples::outcome(1, Outcome::Unknown)),
        ("ab12", samples::outcome(2, Outcome::Refused)),
        ("ab12", samples::end()),
        ("ab12", samples::settled(1, Outcome::Applied)),
        ("ab", samples::begin("p3", None)),
    ]);
    for id in ["ab12", "ab1"] {
        let run = load_run(file.path(), id).unwrap();
        assert_eq!((run.run.as_str(), run.begin.plan.as_str()), ("ab12", "p1"));
        assert_eq!((run.ended_at.as_deref(), run.end.is_some()), (Some("2026-11-22T18:46:07Z"), true));
        let unit = &run.units[&1];
        assert_eq!(Event::Intent(Box::new(unit.intent.clone())), samples::intent(1));
        assert!(unit.outcome.is_some() && !unit.is_open());
        assert_eq!(unit.current_outcome(), Some(Outcome::Applied));
        assert_eq!(run.units[&2].current_outcome(), Some(Outcome::Refused));
    }
    assert_eq!(load_run(file.path(), "ab").unwrap().begin.plan, "p3");
    let all = runs(file.path()).unwrap().runs;
    let wanted: Vec<&RunSummary> = all.iter().rev().collect();
    let one_by_one: Vec<_> = wanted.iter().map(|summary| load_run(file.path(), &summary.run).unwrap()).collect();
    assert_eq!(load_runs(file.path(), &wanted).unwrap(), one_by_one, "in the order in which they are wanted");
    assert_eq!(load_runs(file.path(), &[]).unwrap(), []);
    let message = load_run(file.path(), "a").unwrap_err().to_string();
    assert!(message.ends_with("it matches ab12, ab99, ab"), "{message}");
    for none in ["", "b", "ab123", "-"] {
        assert!(matches!(load_run(file.path(), none), Err(AuditError::NoSuchRun { .. })), "{none}");
    }
}

/// Older versions could put on record what they had seen before the run wrote, after its end.
#[test]
fn what_is_known_is_not_settled_anew() {
    use Outcome::{Applied, Failed, Unknown};
    let word = |events: &[Event]| {
        let mut all = vec![("r1", samples::begin("p1", None)), ("r1", samples::intent(1))];
        all.extend(events.iter().map(|event| ("r1", event.clone())));
        let file = of(all);
        let run = load_run(file.path(), "r1").unwrap();
        let open = short(file.path()).remove(0).3;
        assert_eq!(open.is_empty(), !run.units[&1].is_open());
        run.units[&1].current_outcome()
    };
    let (outcome, settled) = (|word| samples::outcome(1, word), |word| samples::settled(1, word));
    assert_eq!(word(&[outcome(Applied), settled(Failed)]), Some(Applied));
    // What was seen while a COMMIT could still arrive is no last word; what was seen later is.
    assert_eq!(word(&[outcome(Unknown), settled(Unknown), settled(Failed), settled(Applied)]), Some(Applied));
    let Event::Settled(mut last) = settled(Failed) else { unreachable!() };
    last.after_window = true;
    assert_eq!(word(&[outcome(Unknown), settled(Unknown), Event::Settled(last), settled(Applied)]), Some(Failed));
    let Event::Outcome(mut read) = outcome(Failed) else { unreachable!() };
    read.reason = Some("cannot commit: the connection broke; read again: every row is as it was before, nothing was written".to_owned());
    assert_eq!(word(&[Event::Outcome(read), settled(Applied)]), Some(Applied));
    assert_eq!(word(&[settled(Unknown), settled(Applied)]), Some(Applied));
}

/// One writer at a time: a record of somebody else shows that a run is at work no more.
#[test]
fn a_run_is_over_once_somebody_else_has_written() {
    let over = |more: &[(&'static str, Event)]| {
        let mut events = vec![("r1", samples::begin("p1", None)), ("r1", samples::intent(1))];
        events.extend(more.iter().cloned());
        runs(of(events).path()).unwrap().runs[0].over
    };
    let own = ("r1", samples::outcome(1, Outcome::Applied));
    assert!(!over(&[]));
    assert!(!over(std::slice::from_ref(&own)));
    assert!(over(&[own.clone(), ("r1", samples::end())]));
    assert!(over(&[("r1", samples::settled(1, Outcome::Applied))]));
    assert!(over(&[own, ("r2", samples::begin("p2", None))]));
}

#[test]
fn a_run_with_an_outcome_from_nowhere_is_not_loaded() {
    let file = of(vec![("r1", samples::begin("p1", None)), ("r1", samples::intent(1)), ("r1", samples::outcome(2, Outcome::Applied))]);
    let message = load_run(file.path(), "r1").unwrap_err().to_string();
    assert!(message.contains("line 3 belongs to unit 2"), "{message}");
}

/// What is read of a long log for some of its runs is their own part of it: to go through all runs takes one pass, not one each.
#[test]
fn a_run_is_loaded_from_its_own_part_of_the_log() {
    let unit = |run: &'static str| [(run, samples::intent(1)), (run, samples::outcome(1, Outcome::Unknown))];
    let mut events = Vec::new();
    for (run, plan) in [("r1", "p1"), ("r2", "p2"), ("r3", "p3")] {
        events.push((run, samples::begin(plan, None)));
        events.extend(unit(run));
        events.push((run, samples::end()));
    }
    events.push(("r2", samples::settled(1, Outcome::Applied)));
    events.push(("r3", samples::settled(1, Outcome::Failed)));
    let mut lines = samples::lines(events);
    let whole = log(&lines);
    let all = runs(whole.path()).unwrap().runs;
    let loaded = load_runs(whole.path(), &[&all[1]]).unwrap();
    assert_eq!(loaded[0].units[&1].current_outcome(), Some(Outcome::Applied), "with what was settled later");
    // Whoever read from the beginning or to the end would see it.
    lines[0][0] = b'[';
    let last = lines.len() - 1;
    lines[last][0] = b'[';
    let damaged = log(&lines);
    assert_eq!(load_runs(damaged.path(), &[&all[1]]).unwrap(), loaded);
    assert!(load_runs(damaged.path(), &[&all[0]]).is_err() && load_runs(damaged.path(), &[&all[2]]).is_err());
    // The chain is held together from there on.
    lines[5][10] ^= 1;
    assert!(matches!(load_runs(log(&lines).path(), &[&all[1]]), Err(AuditError::Damaged { .. })));
}

fn of_plan(file: &tempfile::NamedTempFile, plan: &str, sha256: &str) -> Option<String> {
    runs(file.path()).unwrap().of_plan(plan, sha256).map(str::to_owned)
}

#[test]
fn a_plan_counts_as_applied_once_it_wrote_or_may_have() {
    use Outcome::{Applied, Changed, Failed, Unknown};
    let by = |last: &[Event]| {
        let mut events = vec![("r1", samples::begin("p1", None)), ("r1", samples::intent(1))];
        events.extend(last.iter().map(|event| ("r1", event.clone())));
        of_plan(&of(events), "p1", "no digest")
    };
    let r1 = Some("r1".to_owned());
    assert_eq!(by(&[]), r1);
    assert_eq!(by(&[samples::outcome(1, Applied)]), r1);
    assert_eq!(by(&[samples::outcome(1, Unknown)]), r1);
    assert_eq!(by(&[samples::outcome(1, Changed)]), None);
    assert_eq!(by(&[samples::outcome(1, Unknown), samples::settled(1, Failed)]), None);

    let file = of(vec![("r1", samples::begin("p1", None)), ("r1", samples::outcome(1, Applied))]);
    assert_eq!(of_plan(&file, "another id", &super::super::digest(b"p1")), r1);
    assert_eq!(of_plan(&file, "p2", "no digest"), None);
}

#[test]
fn what_was_not_begun_is_counted_apart_in_old_logs_too() {
    let refused = |unit, reason: &str| {
        let Event::Outcome(mut outcome) = samples::outcome(unit, Outcome::Refused) else { unreachable!() };
        outcome.reason = Some(reason.to_owned());
        Event::Outcome(outcome)
    };
    let Event::Begin(mut begin) = samples::begin("p1", None) else { unreachable!() };
    begin.units = 10;
    let file = of(vec![
        ("r1", Event::Begin(begin)),
        ("r1", samples::intent(1)),
        ("r1", samples::intent(2)),
        ("r1", samples::intent(3)),
        ("r1", samples::outcome(1, Outcome::Applied)),
        ("r1", refused(2, "cinder-backup on ctl1 has beaten since the plan was made; scan again")),
        ("r1", refused(3, "not begun: the run ended before it")),
        ("r1", samples::intent(4)),
    ]);
    let counted = Tally { not_begun: 8 - 1, ..tally(&[Outcome::Applied, Outcome::Refused]) };
    assert_eq!(runs(file.path()).unwrap().runs[0].tally, counted, "the fourth has an intent and may have begun");
    let records = load_run(file.path(), "r1").unwrap();
    assert_eq!(records.tally(), counted);
    assert_eq!(records.units[&3].current_outcome(), Some(Outcome::NotBegun));
}
