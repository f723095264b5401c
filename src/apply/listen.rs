//! Whether silence is silence: before anything is written that rests on it, whoever is said to be silent gets the time to beat.
//!
//! A heartbeat bears the time of the clock of its own host. Where that is late by more than `service_down_time`, a working
//! service looks dead for ever; but it goes on to beat, and a heart that has beaten since the plan was made is alive.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::domain::decide::frees_in_silence;
use crate::domain::status::{AVAILABLE, ERROR_DELETING};
use crate::domain::time::seconds_between;
use crate::domain::{Change, CheckResult, FindingKind, Policy, Table};
use crate::plan::{Plan, Purpose, Unit};

/// The hosts whose silence the plan rests on, as far as they ever beat.
pub(super) fn silent_hosts(plan: &Plan) -> BTreeSet<&str> {
    if plan.purpose == Purpose::Undo {
        return BTreeSet::new();
    }
    let checks: HashMap<&str, &CheckResult> = plan.checks.iter().map(|check| (check.id.as_str(), check)).collect();
    let silent = |unit: &&Unit| {
        rests_on_silence(unit, checks.get(unit.id.as_str()).copied(), &plan.policy) && unit.status.as_deref() != Some(ERROR_DELETING)
    };
    let hosts = plan.units.iter().filter(silent).filter_map(|unit| unit.host.as_deref());
    hosts.filter(|host| !plan.policy.assume_dead.covers(host) && plan.heartbeats.get(*host).is_some_and(Option::is_some)).collect()
}

/// Whether a unit rests on the silence of its host. One that becomes available because its driver has written all of it does not;
/// but that says nothing of other backups that may hold the same rows. `check` is that of the backup with the unit's id.
pub(super) fn rests_on_silence(unit: &Unit, check: Option<&CheckResult>, policy: &Policy) -> bool {
    let is_backup = unit.kind == FindingKind::Backup;
    let finished = check.is_some_and(|check| check.earns_available(unit.status.as_deref(), policy.accept_quick) && check.is_finished());
    let becomes_available = |change: &Change| {
        change.table == Table::Backups && change.id == unit.id && change.column == "status" && change.to.as_text() == Some(AVAILABLE)
    };
    let storage_tells = is_backup && finished && unit.changes.iter().any(becomes_available) && !frees_in_silence(&unit.evidence);
    !unit.counter && !storage_tells
}

/// How much of `span` is left since the plan was made, by the database's clock.
pub(super) fn left(plan: &Plan, now: DateTime, span: Duration) -> Duration {
    let taken = plan.taken_at.parse::<Timestamp>().map(|taken| Offset::UTC.to_datetime(taken));
    let since = taken.map_or(0, |taken| seconds_between(taken, now));
    span.saturating_sub(Duration::from_secs(u64::try_from(since).unwrap_or(0)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{Evidence, Verdict};

    /// A check of level deep over a backup that its driver had finished long before.
    fn a_check() -> CheckResult {
        let amount = serde_json::json!({ "checked": 1, "expected": 1 });
        serde_json::from_value(serde_json::json!({
            "id": "b", "name": null, "driver": "posix", "service": null, "location": null, "level": "deep", "depth": "", "partial": false,
            "verdict": "intact", "busy": false, "begun": true, "objects": amount, "bytes": amount, "problems": [], "warnings": [],
            "chain": ["b"], "object_count": 1, "service_metadata": null, "newest_object_at": "2026-11-22T09:00:00Z",
            "checked_at": "2026-11-22T11:00:00Z", "rows": [],
        }))
        .unwrap()
    }

    fn a_unit(from: &str, to: &str, code: &str) -> Unit {
        let change = Change { table: Table::Backups, id: "b".into(), column: "status".into(), from: from.into(), to: to.into() };
        Unit {
            number: 1,
            kind: FindingKind::Backup,
            id: "b".into(),
            name: None,
            status: Some(from.into()),
            host: Some("h".into()),
            counter: false,
            verdict: Verdict::Stuck,
            evidence: vec![Evidence::new(code, "")],
            before: Vec::new(),
            changes: vec![change],
            follow_up: Vec::new(),
        }
    }

    #[test]
    fn only_what_becomes_available_by_a_finished_backup_rests_on_no_silence() {
        let policy = Policy::default();
        let rests = |unit: &Unit, change: &dyn Fn(&mut CheckResult)| {
            let mut check = a_check();
            change(&mut check);
            assert!(rests_on_silence(unit, None, &policy));
            rests_on_silence(unit, Some(&check), &policy)
        };
        for (from, to, code, silence) in [
            ("creating", "available", "storage-complete", false),
            ("error", "available", "storage-complete", false),
            ("creating", "available", "service-down", false),
            ("creating", "error", "service-down", true),
            ("creating", "available", "held-in-silence", true),
            ("restoring", "available", "service-down", true),
            ("deleting", "error", "service-down", true),
        ] {
            assert_eq!(rests(&a_unit(from, to, code), &|_| ()), silence, "{from} {to} {code}");
        }
        let unit = a_unit("creating", "available", "storage-complete");
        assert!(rests(&unit, &|check| check.newest_object_at = None));
        assert!(rests(&unit, &|check| check.level = crate::domain::Level::Quick));
        assert!(rests(&unit, &|check| check.busy = true));
        assert!(rests(&Unit { kind: FindingKind::Volume, ..unit.clone() }, &|_| ()));
        let counter = Unit { counter: true, ..a_unit("available", "available", "counter") };
        assert!(!rests_on_silence(&counter, None, &policy));
    }
}
