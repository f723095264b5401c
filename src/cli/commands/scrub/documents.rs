//! The documents of `scrub`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

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

/// The document of `scrub run`.
#[derive(Serialize)]
pub struct RunDocument<'a> {
    schema: &'static str,
    schema_version: u32,
    database: &'a DatabaseInfo,
    ledger: String,
    max_age_seconds: i64,
    #[serde(flatten)]
    run: RunEntry,
    /// Due backups that were not reached.
    left: u64,
    failures: Vec<FailureEntry>,
}

impl<'a> RunDocument<'a> {
    pub fn new(database: &'a DatabaseInfo, ledger: &Path, max_age_seconds: i64, report: &ScrubReport) -> Self {
        Self {
            schema: "cinder-backup-repair/scrub",
            schema_version: 1,
            database,
            ledger: ledger.display().to_string(),
            max_age_seconds,
            run: RunEntry::new(&report.run),
            left: report.left,
            failures: report.failures.iter().map(FailureEntry::new).collect(),
        }
    }
}

/// A run.
#[derive(Serialize)]
pub struct RunEntry {
    level: Level,
    started_at: String,
    /// `None` while it is running, and if it was killed.
    ended_at: Option<String>,
    interrupted: Option<String>,
    summary: RunSummary,
}

#[derive(Serialize)]
struct RunSummary {
    due: u64,
    intact: u64,
    failed: u64,
    /// Those of the failed ones that were intact before.
    rotted: u64,
    limited: u64,
    unanswered: u64,
    bytes: u64,
}

impl RunEntry {
    fn new(run: &Run) -> Self {
        Self {
            level: run.level,
            started_at: time(run.started_at),
            ended_at: run.ended_at.map(time),
            interrupted: run.stopped_by.clone(),
            summary: RunSummary {
                due: run.due,
                intact: run.intact,
                failed: run.failed,
                rotted: run.rotted,
                limited: run.limited,
                unanswered: run.unanswered,
                bytes: run.bytes,
            },
        }
    }

    /// The run in one sentence.
    pub fn sentence(&self) -> String {
        let summary = &self.summary;
        let done = summary.intact + summary.failed + summary.limited + summary.unanswered;
        let end = match (&self.ended_at, &self.interrupted) {
            (None, _) => "running or killed".to_owned(),
            (Some(at), None) => format!("ended {at}"),
            (Some(at), Some(why)) => format!("stopped by {why} {at}"),
        };
        format!(
            "level {}, began {}, {end}: {done} of {} due backups, {} failed, {} without an answer",
            self.level, self.started_at, summary.due, summary.failed, summary.unanswered
        )
    }
}

/// A backup that failed.
#[derive(Serialize)]
pub struct FailureEntry {
    pub id: String,
    project_id: Option<String>,
    driver: Option<String>,
    container: Option<String>,
    pub verdict: String,
    level: Level,
    first_failed_at: String,
    pub failed_at: String,
    /// When it was last known to be intact where it is damaged now.
    pub last_good_at: Option<String>,
    /// Whether it was intact and is not any more.
    rotted: bool,
    pub problem: Option<String>,
}

impl FailureEntry {
    fn new(failure: &Failure) -> Self {
        Self {
            id: failure.id.clone(),
            project_id: failure.project.clone(),
            driver: failure.driver.clone(),
            container: failure.container.clone().filter(|container| !container.is_empty()),
            verdict: failure.verdict.clone(),
            level: failure.level,
            first_failed_at: time(failure.first_at),
            failed_at: time(failure.found_at),
            last_good_at: failure.good_at.map(time),
            rotted: failure.good_at.is_some(),
            problem: failure.problem.clone(),
        }
    }
}

/// The document of `scrub status`.
#[derive(Serialize)]
pub struct StatusDocument {
    schema: &'static str,
    schema_version: u32,
    database: DatabaseInfo,
    ledger: String,
    /// When the live backups were read. Backups that were deleted since still count.
    as_of: Option<String>,
    pub level: Level,
    pub max_age_seconds: i64,
    #[serde(rename = "paused_since", serialize_with = "since")]
    pub paused: Option<Pause>,
    pub coverage: Vec<CoverageEntry>,
    /// How many backups failed; `failures` lists at most 10,000.
    pub failed: u64,
    pub failures: Vec<FailureEntry>,
    pub last_run: Option<RunEntry>,
    forecast: ForecastEntry,
    #[serde(skip)]
    pub forecast_of: Forecast,
}

/// How much of a part of the restore points is verified.
#[derive(Serialize)]
pub struct CoverageEntry {
    /// `all`, `backend` or `project`.
    pub scope: &'static str,
    /// The back end as driver and container, or the project.
    pub name: Option<String>,
    pub backups: u64,
    pub bytes: u64,
    /// How many are intact at each level, within the maximum age.
    pub quick: u64,
    pub deep: u64,
    pub restore: u64,
    pub failed: u64,
    /// How many were never verified at any level.
    pub never_verified: u64,
    limited: u64,
    unanswered: u64,
    /// When the oldest one was made that is not verified at the level in question.
    pub oldest_unverified_at: Option<String>,
}

#[derive(Serialize)]
struct ForecastEntry {
    /// `complete`, `in`, `too-slow` or `unknown`.
    kind: &'static str,
    /// Until full coverage, or, if too slow, for all of it.
    seconds: Option<i64>,
    complete_at: Option<String>,
}

fn since<S: serde::Serializer>(pause: &Option<Pause>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    pause.as_ref().map(|pause| time(pause.since)).serialize(serializer)
}

impl StatusDocument {
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
        let pace = ledger.pace(now.saturating_sub(RECENT), level)?;
        let span = pace.since.map_or(0, |since| now.saturating_sub(since).max(SHORTEST));
        let left = all.backups.saturating_sub(all.intact_at(level) + all.failed + all.limited);
        let of = match level {
            Level::Quick => forecast(left, all.backups, pace.backups, span, max_age_seconds),
            _ if left == 0 => Forecast::Complete,
            _ => forecast(all.bytes.saturating_sub(all.intact_bytes).max(1), all.bytes, pace.bytes, span, max_age_seconds),
        };
        let mut coverage = vec![CoverageEntry::new("all", None, &all)];
        coverage.extend(backends.into_iter().map(|(name, sum)| CoverageEntry::new("backend", name, &sum)));
        coverage.extend(projects.into_iter().map(|(name, sum)| CoverageEntry::new("project", name, &sum)));
        Ok(Self {
            schema: "cinder-backup-repair/scrub-status",
            schema_version: 1,
            database: ledger.database()?,
            ledger: ledger.shown(),
            as_of: ledger.read_at()?.map(time),
            level,
            max_age_seconds,
            paused: ledger.paused()?,
            coverage,
            failed: all.failed,
            failures: ledger.failures(None, LISTED)?.iter().map(FailureEntry::new).collect(),
            last_run: ledger.last_run()?.as_ref().map(RunEntry::new),
            forecast: ForecastEntry::new(of, now),
            forecast_of: of,
        })
    }
}

impl CoverageEntry {
    fn new(scope: &'static str, name: Option<String>, covered: &Covered) -> Self {
        Self {
            scope,
            name,
            backups: covered.backups,
            bytes: covered.bytes,
            quick: covered.intact_at(Level::Quick),
            deep: covered.intact_at(Level::Deep),
            restore: covered.intact_at(Level::Restore),
            failed: covered.failed,
            never_verified: covered.never,
            limited: covered.limited,
            unanswered: covered.unanswered,
            oldest_unverified_at: covered.oldest_unverified_at.map(time),
        }
    }
}

impl ForecastEntry {
    fn new(forecast: Forecast, now: i64) -> Self {
        let (kind, seconds) = match forecast {
            Forecast::Complete => ("complete", None),
            Forecast::In(seconds) => ("in", Some(seconds)),
            Forecast::TooSlow(seconds) => ("too-slow", Some(seconds)),
            Forecast::Unknown => ("unknown", None),
        };
        let complete_at = seconds.filter(|_| kind == "in").map(|seconds| time(now.saturating_add(seconds)));
        Self { kind, seconds, complete_at }
    }
}

/// The document of `scrub pause` and `scrub resume`, and of a run that is paused.
#[derive(Serialize)]
pub struct PauseDocument<'a> {
    schema: &'static str,
    schema_version: u32,
    ledger: String,
    paused_since: Option<String>,
    paused_by: Option<&'a str>,
    reason: Option<&'a str>,
}

impl<'a> PauseDocument<'a> {
    pub fn new(ledger: &Path, pause: Option<&'a Pause>) -> Self {
        Self {
            schema: "cinder-backup-repair/scrub-pause",
            schema_version: 1,
            ledger: ledger.display().to_string(),
            paused_since: pause.map(|pause| time(pause.since)),
            paused_by: pause.and_then(|pause| pause.by.as_deref()),
            reason: pause.and_then(|pause| pause.why.as_deref()),
        }
    }
}
