//! Records for the tests.

use std::collections::BTreeMap;

use super::super::record::{
    Begin, Event, Intent, Record, RunEnd, SCHEMA, SCHEMA_VERSION, Settled, StatementText, UnitOutcome, Who, Window,
};
use super::super::{Head, digest};
use crate::domain::{
    AssumeDead, Change, DatabaseInfo, Evidence, EvidenceCode, FindingKind, Image, Moved, Outcome, Policy, Table, Tally, Value,
};

pub(in crate::audit) fn who() -> Who {
    Who { uid: 7, user: Some("dba".to_owned()), host: "ctl1".to_owned(), pid: 42, ..Who::default() }
}

pub(in crate::audit) fn begin(plan: &str, undoes: Option<&str>) -> Event {
    let assume_dead = AssumeDead::Hosts(["ctl2".to_owned()].into());
    Event::Begin(Box::new(Begin {
        command: if undoes.is_some() { "undo" } else { "apply" }.to_owned(),
        program: "cinder-backup-repair 0.1.0".to_owned(),
        plan: plan.to_owned(),
        plan_sha256: digest(plan.as_bytes()),
        undoes: undoes.map(str::to_owned),
        who: who(),
        database: DatabaseInfo {
            engine: "sqlite".to_owned(),
            version: "3.50".to_owned(),
            release: "Mitaka or later".to_owned(),
            identity: "abc".to_owned(),
            location: Some("/var/lib/cinder.sqlite".to_owned()),
        },
        reason: Some("Störung\n\u{1b}[31m".to_owned()),
        ticket: None,
        policy: Policy { assume_dead, ..Policy::default() },
        units: 2,
    }))
}

fn image(status: &str) -> Image {
    let columns = [("status", status.into()), ("size", Value::Integer(-3)), ("host", Value::Null)];
    let columns: BTreeMap<_, _> = columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Image { table: Table::Backups, id: "b1".to_owned(), columns }
}

fn change() -> Change {
    let (from, to) = ("creating".into(), "error".into());
    Change { table: Table::Backups, id: "b1".to_owned(), column: "status".to_owned(), from, to }
}

pub(in crate::audit) fn intent(unit: usize) -> Event {
    Event::Intent(Box::new(Intent {
        unit,
        kind: FindingKind::Backup,
        id: "b1".to_owned(),
        name: Some("../\"Ω\"".to_owned()),
        evidence: vec![Evidence::new(EvidenceCode::ServiceDown, "no heartbeat")],
        before: vec![image("creating")],
        changes: vec![change()],
        statements: vec![StatementText { name: "update_backup".to_owned(), sql: "UPDATE backups\n   SET status = 'error'".to_owned() }],
        window: Some(Window { from: "2026-11-22T18:46:33.25Z".to_owned(), until: "2026-11-22T18:56:33.25Z".to_owned(), last_beat: None }),
        follow_up: vec!["openstack volume backup delete b1".to_owned()],
    }))
}

pub(in crate::audit) fn outcome(unit: usize, outcome: Outcome) -> Event {
    let (planned, found) = (Value::Null, 3.into());
    Event::Outcome(Box::new(UnitOutcome {
        unit,
        outcome,
        reason: None,
        moved: vec![Moved { table: Table::Volumes, id: "v1".to_owned(), column: "size".to_owned(), planned, found }],
        before: vec![image("creating")],
        changes: vec![change()],
        after: vec![image("error")],
        sent_to: None,
    }))
}

pub(in crate::audit) fn settled(unit: usize, outcome: Outcome) -> Event {
    let reason = "the row has the new status".to_owned();
    Event::Settled(Box::new(Settled { unit, outcome, reason, found: vec![image("error")], after_window: false, who: who() }))
}

pub(in crate::audit) fn end() -> Event {
    Event::End(RunEnd { summary: Tally { applied: 1, ..Tally::default() }, interrupted: Some("SIGTERM".to_owned()) })
}

/// One event of each kind. `torn` is left out because it is valid in few places.
pub(in crate::audit) fn events() -> Vec<Event> {
    vec![begin("p1", None), intent(1), outcome(1, Outcome::Applied), settled(2, Outcome::Failed), end()]
}

/// One of these events.
pub(in crate::audit) fn event(number: usize) -> Event {
    let mut events = events();
    events.swap_remove(number % events.len())
}

pub(in crate::audit) fn record(seq: u64, previous: &str, run: &str, event: Event) -> Record {
    let at = format!("2026-11-22T18:46:{:02}Z", seq % 60);
    let (schema, previous, run) = (SCHEMA.to_owned(), previous.to_owned(), run.to_owned());
    Record { schema, schema_version: SCHEMA_VERSION, seq, previous, at, run, event }
}

/// The lines, with their line feeds, of a chain of these events.
pub(in crate::audit) fn lines(events: impl IntoIterator<Item = (&'static str, Event)>) -> Vec<Vec<u8>> {
    let mut head = Head::default();
    let line = |(run, event)| {
        let mut line = serde_json::to_vec(&record(head.seq + 1, &head.hash, run, event)).unwrap();
        head = Head { seq: head.seq + 1, hash: digest(&line) };
        line.push(b'\n');
        line
    };
    events.into_iter().map(line).collect()
}

/// The lines of a chain with `count` records.
pub(in crate::audit) fn chain(count: usize) -> Vec<Vec<u8>> {
    lines((0..count).map(|number| ("run", event(number))))
}

/// A chain of these records as this version writes it: each with its digest.
pub(in crate::audit) fn with_digests(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut head = Head::default();
    let add_digest = |line: &Vec<u8>| {
        let record: Record = serde_json::from_slice(line).unwrap();
        let record = Record { previous: head.hash.clone(), ..record };
        let line = super::super::line_digest::with_digest(serde_json::to_string(&record).unwrap());
        head = Head { seq: record.seq, hash: digest(line.as_bytes()) };
        (line + "\n").into_bytes()
    };
    lines.iter().map(add_digest).collect()
}
