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
use crate::domain::status::ERROR_DELETING;
use crate::domain::time::seconds_between;
use crate::plan::{Plan, Purpose, Unit};

/// The hosts whose silence the plan rests on, as far as they ever beat.
pub(super) fn silent_hosts(plan: &Plan) -> BTreeSet<&str> {
    if plan.purpose == Purpose::Undo {
        return BTreeSet::new();
    }
    let idle: HashSet<&str> = plan.checks.iter().filter(|check| check.shows_idle()).map(|check| check.id.as_str()).collect();
    let by_heartbeat = |unit: &&Unit| {
        let idle = unit.kind == FindingKind::Backup && idle.contains(unit.id.as_str());
        !unit.counter && !idle && unit.status.as_deref() != Some(ERROR_DELETING)
    };
    let hosts = plan.units.iter().filter(by_heartbeat).filter_map(|unit| unit.host.as_deref());
    hosts.filter(|host| !plan.policy.assume_dead.covers(host) && plan.heartbeats.get(*host).is_some_and(Option::is_some)).collect()
}

/// How much of `span` is left since the plan was made, by the database's clock.
pub(super) fn left(plan: &Plan, now: DateTime, span: Duration) -> Duration {
    let taken = plan.taken_at.parse::<Timestamp>().map(|taken| Offset::UTC.to_datetime(taken));
    let since = taken.map_or(0, |taken| seconds_between(taken, now));
    span.saturating_sub(Duration::from_secs(u64::try_from(since).unwrap_or(0)))
}
