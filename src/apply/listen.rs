//! Whether silence is silence: before anything is written that rests on it, whoever is said to be silent gets the time to beat.
//!
//! A heartbeat bears the time of the clock of its own host. Where that is late by more than `service_down_time`, a working
//! service looks dead for ever; but it goes on to beat, and a heart that has beaten since the plan was made is alive.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::domain::FindingKind;
use crate::domain::decide::frees_in_silence;
use crate::domain::status::{CREATING, ERROR, ERROR_DELETING};
use crate::domain::time::seconds_between;
use crate::plan::{Plan, Purpose, Unit};

/// The hosts whose silence the plan rests on, as far as they ever beat.
pub(super) fn silent_hosts(plan: &Plan) -> BTreeSet<&str> {
    if plan.purpose == Purpose::Undo {
        return BTreeSet::new();
    }
    let idle: HashSet<&str> = plan.checks.iter().filter(|check| check.shows_idle()).map(|check| check.id.as_str()).collect();
    let silent = |unit: &&Unit| rests_on_silence(unit, idle.contains(unit.id.as_str())) && unit.status.as_deref() != Some(ERROR_DELETING);
    let hosts = plan.units.iter().filter(silent).filter_map(|unit| unit.host.as_deref());
    hosts.filter(|host| !plan.policy.assume_dead.covers(host) && plan.heartbeats.get(*host).is_some_and(Option::is_some)).collect()
}

/// Whether a unit rests on the silence of its host. Where the storage shows that nobody is at work on a backup that is being made, a
/// heartbeat says nothing of it; but of other operations storage says nothing, nor of other backups that may hold the same rows.
pub(super) fn rests_on_silence(unit: &Unit, shows_idle: bool) -> bool {
    let is_made = unit.kind == FindingKind::Backup && matches!(unit.status.as_deref(), Some(CREATING | ERROR));
    let storage_tells = shows_idle && is_made && !frees_in_silence(&unit.evidence);
    !unit.counter && !storage_tells
}

/// How much of `span` is left since the plan was made, by the database's clock.
pub(super) fn left(plan: &Plan, now: DateTime, span: Duration) -> Duration {
    let taken = plan.taken_at.parse::<Timestamp>().map(|taken| Offset::UTC.to_datetime(taken));
    let since = taken.map_or(0, |taken| seconds_between(taken, now));
    span.saturating_sub(Duration::from_secs(u64::try_from(since).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Evidence, Verdict};

    #[test]
    fn quiet_data_speaks_for_a_backup_that_is_made_and_for_nothing_else() {
        let unit = |status: &str, code: &str| Unit {
            number: 1,
            kind: FindingKind::Backup,
            id: "b".into(),
            name: None,
            status: Some(status.into()),
            host: Some("h".into()),
            counter: false,
            verdict: Verdict::Stuck,
            evidence: vec![Evidence::new(code, "")],
            before: Vec::new(),
            changes: Vec::new(),
            follow_up: Vec::new(),
        };
        for (status, code, speaks) in [
            ("creating", "storage-quiet", true),
            ("error", "service-down", true),
            ("creating", "held-in-silence", false),
            ("restoring", "service-down", false),
            ("deleting", "service-down", false),
        ] {
            let unit = unit(status, code);
            assert_eq!((rests_on_silence(&unit, false), rests_on_silence(&unit, true)), (true, !speaks), "{status} {code}");
        }
        let volume = Unit { kind: FindingKind::Volume, ..unit("backing-up", "service-down") };
        assert!(rests_on_silence(&volume, true));
        assert!(!rests_on_silence(&Unit { counter: true, ..unit("available", "counter") }, false));
    }
}
