//! What must hold for every log: nothing done to its lines goes unseen, and no crash makes it unreadable.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::super::read::{self, VerifyReport};
use super::super::record::Event;
use super::super::{AuditLog, Record, digest, verify};
use super::samples;
use crate::domain::Outcome;

/// A file for one case.
struct Place(tempfile::TempDir);

impl Place {
    fn with(content: &[u8]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.set(content);
        place
    }

    fn set(&self, content: &[u8]) {
        fs::write(self.path(), content).unwrap();
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }
}

fn open(path: &Path) -> AuditLog {
    AuditLog::open(path, || "2026-11-22T18:46:33Z".to_owned()).unwrap()
}

fn append(path: &Path, events: &[Event]) {
    let mut log = open(path);
    events.iter().for_each(|event| log.append("run", event.clone()).unwrap());
    log.sync().unwrap();
}

fn report(content: &[u8], expected: Option<&str>) -> Option<VerifyReport> {
    verify(&Place::with(content).path(), expected).ok()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (any::<String>(), 0usize..5).prop_map(|(text, kind)| match (kind, samples::event(kind)) {
        (_, Event::Begin(mut begin)) => {
            begin.reason = Some(text);
            Event::Begin(begin)
        }
        (_, Event::Intent(mut intent)) => {
            intent.name = Some(text);
            Event::Intent(intent)
        }
        (unit, Event::Outcome(mut outcome)) => {
            (outcome.unit, outcome.outcome, outcome.reason) = (unit, Outcome::Failed, Some(text));
            Event::Outcome(outcome)
        }
        (_, event) => event,
    });
    prop::collection::vec(event, 1..8)
}

/// A log with the traces of crashes in it: its lines, line feeds included.
fn log() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (prop::collection::vec((events(), any::<prop::sample::Index>()), 1..4)).prop_map(|runs| {
        let place = Place::with(b"");
        for (events, cut) in runs {
            let before = fs::read(place.path()).unwrap().len();
            append(&place.path(), &events);
            let content = fs::read(place.path()).unwrap();
            let kept = before + cut.index(content.len() - before) + 1;
            place.set(&content[..kept]);
        }
        drop(open(&place.path()));
        let content = fs::read(place.path()).unwrap();
        content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    })
}

/// Whether a change to a log is seen: at once, or, at its very end, by the hash that was kept elsewhere.
fn is_seen(content: &[u8], kept: &str) -> bool {
    report(content, Some(kept)).is_none_or(|report| !report.is_intact() || report.last.hash != kept)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_intact_in_spite_of_crashes(lines in log()) {
        let report = report(&lines.concat(), Some(&digest(lines.last().unwrap()))).unwrap();
        prop_assert!(report.is_intact(), "{report:?}");
        prop_assert!(!report.is_unfinished);
    }

    #[test]
    fn no_changed_byte_goes_unseen(lines in log(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let kept = digest(lines.last().unwrap());
        let mut content = lines.concat();
        let at = at.index(content.len());
        content[at] ^= flip;
        prop_assert!(is_seen(&content, &kept));
        prop_assert!(report(&content, None).is_none_or(|report| !report.is_intact()), "no hash from elsewhere is needed");
    }

    #[test]
    fn no_line_is_removed_doubled_or_moved_unseen(lines in log(), one in any::<prop::sample::Index>(), two in any::<prop::sample::Index>()) {
        let kept = digest(lines.last().unwrap());
        let (one, two) = (one.index(lines.len()), two.index(lines.len()));
        let mut removed = lines.clone();
        removed.remove(one);
        prop_assert!(is_seen(&removed.concat(), &kept), "without line {}", one + 1);
        if one + 1 < lines.len() {
            prop_assert!(report(&removed.concat(), None).is_none_or(|report| !report.is_intact()));
        }
        let mut doubled = lines.clone();
        doubled.insert(two, lines[one].clone());
        prop_assert!(is_seen(&doubled.concat(), &kept), "line {} again at {}", one + 1, two + 1);
        if lines[one] != lines[two] {
            let mut swapped = lines.clone();
            swapped.swap(one, two);
            prop_assert!(is_seen(&swapped.concat(), &kept), "lines {} and {}", one + 1, two + 1);
        }
    }

    #[test]
    fn wherever_a_log_is_cut_it_goes_on(lines in log(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4), more in events()) {
        let place = Place::with(&lines.concat());
        for cut in cuts {
            let content = fs::read(place.path()).unwrap();
            let cut = cut.index(content.len() + 1);
            place.set(&content[..cut]);
            let before = verify(&place.path(), None).unwrap();
            prop_assert!(before.is_intact(), "a reader before the repair: {before:?}");

            append(&place.path(), &more);
            prop_assert!(fs::read(place.path()).unwrap().starts_with(&content[..cut]), "nothing is rewritten");
            let after = verify(&place.path(), None).unwrap();
            prop_assert!(after.is_intact() && !after.is_unfinished, "{after:?}");
            let torn = u64::from(before.is_unfinished);
            prop_assert_eq!(after.records, before.records + torn + more.len() as u64);
            let records: Vec<Record> = read::read(&place.path()).unwrap().map(Result::unwrap).collect();
            let last: Vec<&Event> = records[records.len() - more.len()..].iter().map(|record| &record.event).collect();
            prop_assert_eq!(last, more.iter().collect::<Vec<_>>());
        }
    }
}
