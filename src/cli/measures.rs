//! What monitoring is told of the result of a command.
//!
//! No label is an id or a name that a cloud's users choose, and no label has more than [`MOST_HOSTS`] values: each value is a time series
//! that the monitoring keeps.

use std::collections::BTreeMap;

use super::commands::scrub::Status;
use super::sentences::counted;
use crate::domain::text::count;
use crate::domain::{Driver, Heartbeat, Level, Thresholds};
use crate::ledger::policy::Forecast;
use crate::ledger::{Covered, Run};
use crate::report::metrics::Gauge;
use crate::scan::Scan;
use crate::verify::check_document::Summary;
use crate::workflow::{CheckReport, ScrubReport};

/// How many hosts have a gauge of their own: those whose heartbeats are the oldest.
const MOST_HOSTS: usize = 50;
/// The host of the gauge for all others.
const OTHER: &str = "other";

/// The states of a plugin; the number is its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The first state whose condition holds.
    fn first(conditions: &[(bool, Self)]) -> Self {
        conditions.iter().find(|(holds, _)| *holds).map_or(Self::Ok, |(_, state)| *state)
    }
}

/// The result of a command for monitoring.
#[derive(Debug)]
pub struct Measured {
    pub state: State,
    /// What was found, in words.
    pub text: String,
    /// The performance data.
    pub numbers: String,
    pub gauges: Vec<Gauge>,
}

impl Measured {
    fn new(state: State, text: String) -> Self {
        Self { state, text, numbers: String::new(), gauges: Vec::new() }
    }

    fn gauge(mut self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)], value: f64) -> Self {
        let labels = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
        self.gauges.push(Gauge { name, help, labels, value });
        self
    }

    /// Gauges that differ in their last label, which are performance data, too.
    fn counts(
        mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        label: &'static str,
        counts: &[(&str, u64)],
    ) -> Self {
        for (value, number) in counts {
            let labels = [labels, &[(label, *value)]].concat();
            self = self.gauge(name, help, &labels, *number as f64).number(value, *number);
        }
        self
    }

    /// A number in the performance data.
    fn number(mut self, label: &str, number: u64) -> Self {
        let blank = if self.numbers.is_empty() { "" } else { " " };
        self.numbers.push_str(&format!("{blank}{label}={number};;;0"));
        self
    }

    /// Of `scan`.
    pub fn of_scan(scan: &Scan, thresholds: &Thresholds) -> Self {
        let summary = &scan.document.summary;
        let counts = [
            ("stuck", summary.stuck),
            ("uncertain", summary.uncertain),
            ("inconsistent", summary.inconsistent),
            ("busy", summary.busy),
            ("recent", summary.recent),
        ];
        let words = counted(&counts.map(|(word, number)| (number, word)));
        let words = if words.is_empty() { "nothing stuck or inconsistent".to_owned() } else { words.join(", ") };
        let live = scan.census.live;
        let state = State::first(&[(summary.stuck > 0, State::Critical), (summary.uncertain + summary.inconsistent > 0, State::Warning)]);
        let measured = Self::new(state, format!("{words} (of {})", count(live, "live backup")))
            .counts(
                "cinder_backup_findings",
                "Backups, volumes, snapshots and projects that the last scan found, by verdict.",
                &[],
                "verdict",
                &counts.map(|(word, number)| (word, number as u64)),
            )
            .gauge("cinder_backup_live_backups", "Live backups in the database at the last scan.", &[], live as f64)
            .number("live", live);
        measured.hosts(scan, thresholds)
    }

    /// The heartbeats of cinder-backup.
    fn hosts(mut self, scan: &Scan, thresholds: &Thresholds) -> Self {
        let (services, now) = (&scan.situation.services, scan.situation.now);
        let (mut up, mut down, mut ages) = (0_u64, 0_u64, Vec::new());
        for host in services.hosts() {
            let age = match services.heartbeat(host, now, services.down_time(host, thresholds)) {
                Heartbeat::Up { silent } => {
                    up += 1;
                    Some(silent.max(0))
                }
                Heartbeat::Down { silent } => {
                    down += 1;
                    silent
                }
                Heartbeat::Missing | Heartbeat::Unreadable => {
                    down += 1;
                    None
                }
            };
            ages.extend(age.map(|age| (host == OTHER, std::cmp::Reverse(age), host)));
        }
        ages.sort_unstable();
        for (state, number) in [("up", up), ("silent", down)] {
            let help = "Hosts with a cinder-backup, by whether its heartbeats are recent.";
            self = self.gauge("cinder_backup_service_hosts", help, &[("state", state)], number as f64);
        }
        let own = ages.len().min(if ages.len() > MOST_HOSTS { MOST_HOSTS } else { usize::MAX });
        let (shown, others) = ages.split_at_checked(own).unwrap_or_default();
        let others = others.iter().map(|(_, age, _)| (age.0, OTHER)).max();
        for (age, host) in shown.iter().map(|(_, age, host)| (age.0, *host)).chain(others) {
            let help =
                "Time since the last heartbeat of cinder-backup on a host at the last scan; `other` has the longest of all other hosts.";
            self = self.gauge("cinder_backup_heartbeat_age_seconds", help, &[("host", host)], age as f64);
        }
        self
    }

    /// Of `check`.
    pub fn of_check(report: &CheckReport<'_>, text: String) -> Self {
        let Summary { intact, incomplete, corrupt, missing, unverifiable, .. } = report.summary;
        let Summary { unreadable, unreachable, busy, left, .. } = report.summary;
        let level = report.level.to_string();
        let state = State::first(&[
            (incomplete + corrupt + missing + unreadable > 0, State::Critical),
            (unreachable > 0, State::Unknown),
            (unverifiable + left > 0, State::Warning),
        ]);
        let verdicts = [
            ("intact", intact as u64),
            ("incomplete", incomplete as u64),
            ("corrupt", corrupt as u64),
            ("missing", missing as u64),
            ("unverifiable", unverifiable as u64),
        ];
        let help = "Backups that the last check at a level found in a condition; unreadable and unreachable ones are also unverifiable.";
        let conditions =
            [("unreadable", unreadable as u64), ("unreachable", unreachable as u64), ("busy", busy as u64), ("left", left as u64)];
        Self::new(state, text)
            .counts(
                "cinder_backup_check_backups",
                "Backups that the last check at a level verified, by verdict.",
                &[("level", &level)],
                "verdict",
                &verdicts,
            )
            .counts("cinder_backup_check_condition_backups", help, &[("level", &level)], "condition", &conditions)
    }

    /// Of `scrub run`.
    pub fn of_scrub(report: &ScrubReport, text: String) -> Self {
        let Run { due, intact, failed, rotted, limited, unanswered, bytes, .. } = report.run;
        let state =
            State::first(&[(failed > 0, State::Critical), (unanswered + limited > 0 || report.stopped_early.is_some(), State::Warning)]);
        let results = [("intact", intact), ("failed", failed), ("limited", limited), ("unanswered", unanswered)];
        let help = "Restore points that the last run of the scrub verified, by result.";
        Self::new(state, text)
            .counts("cinder_backup_scrub_run_backups", help, &[], "result", &results)
            .gauge("cinder_backup_scrub_run_rotted_backups", "Failed ones among them that were intact before.", &[], rotted as f64)
            .gauge("cinder_backup_scrub_run_due_backups", "Restore points that were due when the last run began.", &[], due as f64)
            .gauge("cinder_backup_scrub_run_left_backups", "Due restore points that the last run did not reach.", &[], report.left as f64)
            .gauge("cinder_backup_scrub_run_verified_bytes", "Bytes of volumes that the last run verified.", &[], bytes as f64)
    }

    /// Of a `scrub run` that found a pause.
    pub fn of_pause(text: String) -> Self {
        Self::new(State::Warning, text)
    }

    /// Of `scrub status`.
    pub fn of_status(status: &Status, as_of: Option<i64>, text: String) -> Self {
        let is_behind = matches!(status.forecast, Forecast::TooSlow(_) | Forecast::Unknown) || status.paused.is_some();
        let mut measured = Self::new(State::Ok, text);
        let mut drivers: BTreeMap<&str, Covered> = BTreeMap::new();
        for part in status.coverage.iter().filter(|part| part.scope == "backend") {
            // The name of a back end is its driver and perhaps its container. Without a known driver it is text from the database.
            let driver = part.name.as_deref().and_then(|name| name.split(' ').next()).unwrap_or(OTHER);
            let is_known = serde_json::from_value::<Driver>(driver.into()).is_ok();
            drivers.entry(if is_known { driver } else { OTHER }).or_default().add(&part.covered);
        }
        for (driver, covered) in &drivers {
            measured = measured.coverage(driver, covered);
        }
        let all = status.coverage.first().map(|part| part.covered.clone()).unwrap_or_default();
        measured.state = State::first(&[(all.failed > 0, State::Critical), (is_behind || all.unanswered > 0, State::Warning)]);
        let numbers = [
            ("restore_points", all.backups),
            ("verified", all.intact_at(status.level)),
            ("failed", all.failed),
            ("unanswered", all.unanswered),
            ("never_verified", all.never),
        ];
        for (label, number) in numbers {
            measured = measured.number(label, number);
        }
        let seconds = match status.forecast {
            Forecast::Complete => Some(0),
            Forecast::In(seconds) | Forecast::TooSlow(seconds) => Some(seconds),
            Forecast::Unknown => None,
        };
        let times = [
            (
                "cinder_backup_scrub_forecast_seconds",
                "Time until every restore point is verified within the maximum age, at the rate of the last runs; 0 if they are.",
                seconds,
            ),
            ("cinder_backup_scrub_max_age_seconds", "The maximum age for which coverage was counted.", Some(status.max_age_seconds)),
            (
                "cinder_backup_scrub_run_end_timestamp_seconds",
                "When the last run of the scrub ended; missing while it is running, and if it was killed.",
                status.last_run.as_ref().and_then(|run| run.ended_at),
            ),
            ("cinder_backup_scrub_read_timestamp_seconds", "When the restore points were last read from the database.", as_of),
            ("cinder_backup_scrub_paused", "1 while the scrub is paused.", Some(i64::from(status.paused.is_some()))),
        ];
        times.into_iter().fold(measured, |measured, (name, help, value)| match value {
            Some(value) => measured.gauge(name, help, &[], value as f64),
            None => measured,
        })
    }

    fn coverage(self, driver: &str, covered: &Covered) -> Self {
        let labels = [("driver", driver)];
        let conditions = [
            ("failed", covered.failed),
            ("limited", covered.limited),
            ("unanswered", covered.unanswered),
            ("never-verified", covered.never),
        ];
        let mut measured = self
            .gauge("cinder_backup_scrub_restore_points", "Restore points in the ledger.", &labels, covered.backups as f64)
            .gauge("cinder_backup_scrub_restore_point_bytes", "Bytes of their volumes.", &labels, covered.bytes as f64);
        for (condition, number) in conditions {
            let help = "Restore points in a condition.";
            let labels = [("driver", driver), ("condition", condition)];
            measured = measured.gauge("cinder_backup_scrub_condition_restore_points", help, &labels, number as f64);
        }
        for level in [Level::Quick, Level::Deep, Level::Restore] {
            let (help, name) = ("Restore points that were verified at a level within the maximum age.", level.to_string());
            let labels = [("driver", driver), ("level", name.as_str())];
            measured = measured.gauge("cinder_backup_scrub_verified_restore_points", help, &labels, covered.intact_at(level) as f64);
        }
        match covered.oldest_unverified_at {
            Some(at) => {
                let help = "When the oldest restore point was made that is not verified at the level of the status.";
                measured.gauge("cinder_backup_scrub_oldest_unverified_timestamp_seconds", help, &labels, at as f64)
            }
            None => measured,
        }
    }

    /// Of `doctor`.
    pub fn of_doctor(ok: usize, warnings: usize, failures: usize, text: String) -> Self {
        let state = State::first(&[(failures > 0, State::Critical), (warnings > 0, State::Warning)]);
        let counts = [("ok", ok as u64), ("warning", warnings as u64), ("failure", failures as u64)];
        Self::new(state, text).counts("cinder_backup_doctor_checks", "What the last doctor examined, by state.", &[], "state", &counts)
    }
}
