//! The documents of `scrub`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::domain::time::stamp;
use crate::domain::{DatabaseInfo, Level};
use crate::ledger::policy::{Forecast, forecast};
use crate::ledger::{Covered, Failure, Ledger, LedgerError, Pause, Run};
use crate::workflow::ScrubReport;

/// The most failures that a status lists.
const LISTED: usize = 10_000;
/// The rate is measured over the runs of this last time, in seconds.
const RECENT: i64 = 14 * 86_400;
/// A rate is measured over at least this time, in seconds: a single run says nothing about how often there is one.
const SHORTEST: i64 = 86_400;

/// A time as in all documents.
pub fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(stamp).unwrap_or_default()
}

/// The document of `scrub run`. `left` are due backups that were not reached. `due_known` is false if the run was stopped before it knew
/// them; then nothing was verified.
pub fn of_run(database: &DatabaseInfo, ledger: &Path, max_age_seconds: i64, report: &ScrubReport) -> Value {
    let run = &report.run;
    json!({
        "schema": "cinder-backup-repair/scrub", "schema_version": 1, "database": database, "ledger": ledger.display().to_string(),
        "max_age_seconds": max_age_seconds, "level": run.level, "started_at": time(run.started_at), "ended_at": run.ended_at.map(time),
        "interrupted": run.stopped_by, "due_known": report.stopped_early.is_none(), "summary": summary(run), "left": report.left,
        "failures": report.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

fn summary(run: &Run) -> Value {
    json!({
        "due": run.due, "intact": run.intact, "failed": run.failed, "rotted": run.rotted, "limited": run.limited,
        "unanswered": run.unanswered, "bytes": run.bytes,
    })
}

/// A backup that failed. `rotted` says whether it was intact and is not any more.
fn failure(failure: &Failure) -> Value {
    json!({
        "id": failure.id, "project_id": failure.project, "driver": failure.driver,
        "container": failure.container.as_ref().filter(|container| !container.is_empty()), "verdict": failure.verdict,
        "level": failure.level, "first_failed_at": time(failure.first_at), "failed_at": time(failure.found_at),
        "last_good_at": failure.good_at.map(time), "rotted": failure.good_at.is_some(), "problem": failure.problem,
    })
}

/// The document of `scrub pause` and `scrub resume`, and of a run that is paused.
pub fn of_pause(ledger: &Path, pause: Option<&Pause>) -> Value {
    json!({
        "schema": "cinder-backup-repair/scrub-pause", "schema_version": 1, "ledger": ledger.display().to_string(),
        "paused_since": pause.map(|pause| time(pause.since)), "paused_by": pause.and_then(|pause| pause.by.as_ref()),
        "reason": pause.and_then(|pause| pause.why.as_ref()),
    })
}

/// How much of a part of the restore points is verified.
pub struct Coverage {
    /// `all`, `backend` or `project`.
    pub scope: &'static str,
    /// The back end as driver and container, or the project.
    pub name: Option<String>,
    pub covered: Covered,
}

/// What a ledger shows.
pub struct Status {
    pub level: Level,
    pub max_age_seconds: i64,
    pub paused: Option<Pause>,
    /// First that of all restore points.
    pub coverage: Vec<Coverage>,
    /// How many backups failed; `failures` lists at most 10,000.
    pub failed: u64,
    pub failures: Vec<Failure>,
    pub last_run: Option<Run>,
    pub forecast: Forecast,
}

impl Status {
    pub fn read(ledger: &Ledger, level: Level, max_age_seconds: i64, now: i64) -> Result<Self, LedgerError> {
        let groups = ledger.coverage(now.saturating_sub(max_age_seconds), level)?;
        let (mut all, mut backends, mut projects) = (Covered::default(), BTreeMap::new(), BTreeMap::new());
        for group in &groups {
            all.add(group);
            let container = group.container.as_deref().filter(|container| !container.is_empty());
            let backend =
                group.driver.as_ref().map(|driver| container.map_or_else(|| driver.clone(), |container| format!("{driver} {container}")));
            backends.entry(backend).or_insert_with(Covered::default).add(group);
            projects.entry(group.project.clone()).or_insert_with(Covered::default).add(group);
        }
        let rate = ledger.rate(now.saturating_sub(RECENT), level)?;
        let span = rate.since.map_or(0, |since| now.saturating_sub(since).max(SHORTEST));
        let left = all.backups.saturating_sub(all.intact_at(level) + all.failed + all.limited);
        let forecast = match level {
            Level::Quick => forecast(left, all.backups, rate.backups, span, max_age_seconds),
            _ if left == 0 => Forecast::Complete,
            _ => forecast(all.bytes.saturating_sub(all.intact_bytes).max(1), all.bytes, rate.bytes, span, max_age_seconds),
        };
        let (failed, mut coverage) = (all.failed, vec![Coverage { scope: "all", name: None, covered: all }]);
        coverage.extend(backends.into_iter().map(|(name, covered)| Coverage { scope: "backend", name, covered }));
        coverage.extend(projects.into_iter().map(|(name, covered)| Coverage { scope: "project", name, covered }));
        let (paused, failures, last_run) = (ledger.paused()?, ledger.failures(None, LISTED)?, ledger.last_run()?);
        Ok(Self { level, max_age_seconds, paused, coverage, failed, failures, last_run, forecast })
    }

    /// The document of `scrub status`. `as_of` is when the live backups were read: backups that were deleted since still count.
    /// `ended_at` of the last run is null while it is running, and if it was killed.
    pub fn document(&self, ledger: &Ledger, now: i64) -> Result<Value, LedgerError> {
        // Until full coverage, or, if too slow, for all of it.
        let (kind, seconds) = match self.forecast {
            Forecast::Complete => ("complete", None),
            Forecast::In(seconds) => ("in", Some(seconds)),
            Forecast::TooSlow(seconds) => ("too-slow", Some(seconds)),
            Forecast::Unknown => ("unknown", None),
        };
        let complete_at = seconds.filter(|_| kind == "in").map(|seconds| time(now.saturating_add(seconds)));
        let last_run = self.last_run.as_ref().map(|run| {
            json!({
                "level": run.level, "started_at": time(run.started_at), "ended_at": run.ended_at.map(time),
                "interrupted": run.stopped_by, "summary": summary(run),
            })
        });
        let coverage = self.coverage.iter().map(|Coverage { scope, name, covered }| {
            json!({
                "scope": scope, "name": name, "backups": covered.backups, "bytes": covered.bytes,
                "quick": covered.intact_at(Level::Quick), "deep": covered.intact_at(Level::Deep),
                "restore": covered.intact_at(Level::Restore), "failed": covered.failed, "never_verified": covered.never,
                "limited": covered.limited, "unanswered": covered.unanswered,
                "oldest_unverified_at": covered.oldest_unverified_at.map(time),
            })
        });
        Ok(json!({
            "schema": "cinder-backup-repair/scrub-status", "schema_version": 1, "database": ledger.database()?,
            "ledger": ledger.shown(), "as_of": ledger.read_at()?.map(time), "level": self.level,
            "max_age_seconds": self.max_age_seconds, "paused_since": self.paused.as_ref().map(|pause| time(pause.since)),
            "coverage": coverage.collect::<Vec<_>>(), "failed": self.failed,
            "failures": self.failures.iter().map(failure).collect::<Vec<_>>(), "last_run": last_run,
            "forecast": { "kind": kind, "seconds": seconds, "complete_at": complete_at },
        }))
    }
}
