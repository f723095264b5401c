//! Waits for a heartbeat before the first change that depends on a silent service.
//!
//! A heartbeat has the time of its own host's clock. If that clock is late by more than `service_down_time`, a working service always
//! looks dead. But its heartbeats continue, and one after the plan was made proves that it is alive. The same holds for a service whose
//! row was removed: it makes its row again at its next heartbeat.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::domain::decide::frees_row_of_silent_host;
use crate::domain::status::{AVAILABLE, ERROR_DELETING};
use crate::domain::time::seconds_between;
use crate::domain::{Change, CheckResult, FindingKind, Policy, Services, Table};
use crate::plan::{Plan, Purpose, Unit};

/// The hosts whose silence the units of a plan depend on, including those without a service.
pub(super) struct SilentHosts<'p> {
    plan: &'p Plan,
    pub hosts: BTreeSet<String>,
}

impl<'p> SilentHosts<'p> {
    pub fn of(plan: &'p Plan) -> Self {
        Self { plan, hosts: BTreeSet::new() }
    }

    /// Adds the host of a unit of the plan, if the unit depends on its silence.
    pub fn add(&mut self, unit: &Unit) {
        let Self { plan, hosts } = self;
        let Some(host) = unit.host.as_deref().filter(|host| !host.trim().is_empty() && !hosts.contains(*host)) else { return };
        let check =
            plan.checks.binary_search_by(|check| check.id.cmp(&unit.id)).ok().and_then(|place| plan.checks.get(place)).map(AsRef::as_ref);
        let is_silent = depends_on_silence(unit, check, &plan.policy) && unit.status.as_deref() != Some(ERROR_DELETING);
        if is_silent && plan.purpose == Purpose::Repair && !plan.policy.assume_dead.covers(host) {
            hosts.insert(host.to_owned());
        }
    }
}

/// How long to wait for these hosts: `usual` is one and a half `report_interval`. If that is not configured, one and a half of their own
/// intervals if those are longer.
pub(super) fn span(plan: &Plan, hosts: &BTreeSet<String>, services: &Services, usual: Duration) -> Duration {
    let own = hosts.iter().filter(|_| plan.policy.thresholds.down_time_is_assumed).filter_map(|host| services.interval(host)).max();
    usual.max(Duration::from_millis(u64::try_from(own.unwrap_or(0)).unwrap_or(0).saturating_mul(1_500)))
}

/// Whether a unit depends on the silence of its host. A backup that becomes available because its driver has written all of it does not;
/// but that says nothing about other backups that may use the same rows. `check` is that of the backup with the unit's id.
pub(super) fn depends_on_silence(unit: &Unit, check: Option<&CheckResult>, policy: &Policy) -> bool {
    let is_backup = unit.kind == FindingKind::Backup;
    let finished = check.is_some_and(|check| check.earns_available(unit.status.as_deref(), policy.accept_quick) && check.is_finished());
    let becomes_available = |change: &Change| {
        change.table == Table::Backups && change.id == unit.id && change.column == "status" && change.to.as_text() == Some(AVAILABLE)
    };
    let storage_tells = is_backup && finished && unit.changes.iter().any(becomes_available) && !frees_row_of_silent_host(&unit.evidence);
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
    use crate::domain::{AssumeDead, Checks, ColumnSet, DatabaseInfo, Evidence, EvidenceCode, Selection, ServiceRow, Verdict};
    use crate::plan::Basis;
    use crate::spool::Spool;

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

    fn a_unit(from: &str, to: &str, code: EvidenceCode) -> Unit {
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
            assert!(depends_on_silence(unit, None, &policy));
            depends_on_silence(unit, Some(&check), &policy)
        };
        for (from, to, code, silence) in [
            ("creating", "available", EvidenceCode::StorageComplete, false),
            ("error", "available", EvidenceCode::StorageComplete, false),
            ("creating", "available", EvidenceCode::ServiceDown, false),
            ("creating", "error", EvidenceCode::ServiceDown, true),
            ("creating", "available", EvidenceCode::HeldInSilence, true),
            ("restoring", "available", EvidenceCode::ServiceDown, true),
            ("deleting", "error", EvidenceCode::ServiceDown, true),
        ] {
            assert_eq!(rests(&a_unit(from, to, code), &|_| ()), silence, "{from} {to} {code:?}");
        }
        let unit = a_unit("creating", "available", EvidenceCode::StorageComplete);
        assert!(rests(&unit, &|check| check.newest_object_at = None));
        assert!(rests(&unit, &|check| check.level = crate::domain::Level::Quick));
        assert!(rests(&unit, &|check| check.busy = true));
        assert!(rests(&Unit { kind: FindingKind::Volume, ..unit.clone() }, &|_| ()));
        let counter = Unit { counter: true, ..a_unit("available", "available", EvidenceCode::CounterWrong) };
        assert!(!depends_on_silence(&counter, None, &policy));
    }

    fn a_plan(units: Vec<Unit>, assume_dead: AssumeDead) -> Plan {
        let database =
            DatabaseInfo { engine: "sqlite".into(), version: "3".into(), release: "r".into(), identity: "i".into(), location: None };
        let basis = Basis {
            id: "p".into(),
            taken_at: "2026-11-22T12:00:00Z".into(),
            database,
            columns: ColumnSet::Mitaka,
            policy: Policy { assume_dead, ..Policy::default() },
            selection: Selection::default(),
            services: Services::default(),
            checks: Checks::new(),
        };
        Plan::of_units(Purpose::Repair, None, basis, Spool::of(units).unwrap()).unwrap()
    }

    #[test]
    fn hosts_without_a_service_are_waited_for_too() {
        let on =
            |host: Option<&str>, from: &str| Unit { host: host.map(Into::into), ..a_unit(from, "error", EvidenceCode::ServiceMissing) };
        let units = vec![
            on(Some("gone"), "creating"),
            on(Some("dead@ceph"), "restoring"),
            // Never scheduled; and a deletion that failed is over.
            on(None, "creating"),
            on(Some(" "), "creating"),
            on(Some("over"), "error_deleting"),
        ];
        let mut plan = a_plan(units.clone(), AssumeDead::Hosts(["dead".to_owned()].into()));
        let silent = |plan: &Plan| {
            let mut hosts = SilentHosts::of(plan);
            units.iter().for_each(|unit| hosts.add(unit));
            hosts.hosts
        };
        assert_eq!(silent(&plan), BTreeSet::from(["gone".to_owned()]));
        plan.purpose = Purpose::Undo;
        assert_eq!(silent(&plan), BTreeSet::new());
    }

    #[test]
    fn the_wait_is_as_long_as_the_beats_are_apart() {
        let row = |host: &str, count| ServiceRow {
            host: host.into(),
            created_at: Some("2026-11-22 00:00:00".into()),
            updated_at: Some("2026-11-22 12:00:00".into()),
            report_count: Some(count),
            ..ServiceRow::default()
        };
        let services = Services::new(&[row("seldom", 145), row("often", 4_321), row("once", 1)]);
        let mut plan = a_plan(Vec::new(), AssumeDead::None);
        let usual = Duration::from_secs(15);
        let wait =
            |plan: &Plan, hosts: &[&str]| span(plan, &hosts.iter().map(|host| (*host).to_owned()).collect(), &services, usual).as_secs();
        assert_eq!(wait(&plan, &["seldom"]), 15, "what is configured counts");
        plan.policy.thresholds.down_time_is_assumed = true;
        assert_eq!([&["often"] as &[_], &["gone"], &["often", "seldom"], &["once"]].map(|hosts| wait(&plan, hosts)), [15, 15, 450, 900]);
    }
}
