//! Options that several commands share, and the selection and policy that they describe.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Error, Result};
use crate::config::DatabaseFlags;
use crate::domain::text::meant;
use crate::domain::time::seconds;
use crate::domain::{AssumeDead, NULL, NewHost, Policy, STATUSES, Selection, Thresholds};
use crate::report::grid::OutputOptions;
use crate::workflow::{Database, Wanted};

/// What all commands share.
#[derive(Debug, Args)]
pub struct Global {
    #[command(flatten, next_help_heading = "Database")]
    pub database: DatabaseArgs,
    #[command(flatten, next_help_heading = "Output")]
    pub output: OutputArgs,
    #[command(flatten, next_help_heading = "Record")]
    pub record: RecordArgs,
}

/// Where the database is and how to log in.
#[derive(Debug, Args)]
pub struct DatabaseArgs {
    #[command(flatten)]
    pub flags: DatabaseFlags,
    /// Allow sending a password in a form that an eavesdropper can use (caching_sha2_password without TLS)
    #[arg(long, global = true)]
    pub insecure_auth: bool,
    /// Time limit for connecting
    #[arg(long, global = true, value_name = "SPAN", default_value = "10s", value_parser = span)]
    pub connect_timeout: Duration,
    /// Time limit for a statement
    #[arg(long, global = true, value_name = "SPAN", default_value = "5m", value_parser = span)]
    pub statement_timeout: Duration,
    /// Time limit for waiting for a lock of another transaction
    #[arg(long, global = true, value_name = "SPAN", default_value = "10s", value_parser = span)]
    pub lock_timeout: Duration,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum ColorArg {
    /// At a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How standard error is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressArg {
    /// A bar, at a terminal.
    Bar,
    /// A line every ten seconds.
    Plain,
    /// An object every second, each on a line.
    Json,
    /// Nothing.
    None,
}

#[derive(Debug, Args)]
pub struct OutputArgs {
    #[command(flatten)]
    pub options: OutputOptions,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: ColorArg,
    /// Print only results, warnings and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print details; twice: also all evidence about what a plan or a repair skips
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Never prompt; fail if an answer is missing
    #[arg(long, global = true)]
    pub no_input: bool,
    /// How standard error is written: text, or json with one object a line; json never prompts
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// How progress is shown on standard error [default: bar at a terminal, otherwise none]
    #[arg(long, global = true, value_enum, value_name = "HOW")]
    pub progress: Option<ProgressArg>,
}

#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The audit log [default: /var/log/cinder-backup-repair/audit.jsonl for root, otherwise in the XDG state directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    /// The reason, for the audit log
    #[arg(long, global = true, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The change ticket, for the audit log
    #[arg(long, global = true, value_name = "ID")]
    pub ticket: Option<String>,
}

/// Limit on standard input; a million ids take 37 MB.
const MAX_IDS_BYTES: u64 = 1 << 28;

#[derive(Debug, Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectionArgs {
    /// Only this status (creating, restoring, deleting, null; error and error_deleting only when asked for; backing-up and
    /// restoring-backup for volumes and snapshots); repeatable
    #[arg(long, value_name = "STATUS")]
    pub status: Vec<String>,
    /// Only backups of this cinder-backup host; repeatable
    #[arg(long, value_name = "HOST")]
    pub host: Vec<String>,
    /// Only this project; repeatable
    #[arg(long, value_name = "ID")]
    pub project: Vec<String>,
    /// Only backups of this volume; repeatable
    #[arg(long, value_name = "ID")]
    pub volume: Vec<String>,
    /// Only warn if one of these options matches nothing, instead of failing with exit code 2
    #[arg(long)]
    pub allow_empty: bool,
    /// Skip operations that are younger
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = span)]
    pub older_than: Duration,
    /// Maximum number of findings, the oldest first
    #[arg(long, value_name = "N", value_parser = whole_number)]
    pub limit: Option<usize>,
    /// Treat a service as down if its heartbeat is older [default: service_down_time in cinder.conf, otherwise 60s]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub service_down_time: Option<Duration>,
}

/// Exceptions from the rules of a decision.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decision")]
pub struct DecisionArgs {
    /// Treat cinder-backup on this host as down even if it has heartbeats (repeatable; `all` for every host)
    #[arg(long, value_name = "HOST")]
    pub assume_dead: Vec<String>,
    /// The status that backups get if there is a choice
    #[arg(long, value_name = "STATUS", value_parser = ["available", "error", "deleted"])]
    pub to: Option<String>,
    /// Allow a backup to become available although its data was not verified, or deleted although its data may still be there
    #[arg(long)]
    pub allow_unverified: bool,
    /// Leave the quota of the project as it is when a backup becomes deleted
    #[arg(long)]
    pub no_quota: bool,
    /// Also correct wrong num_dependent_backups
    #[arg(long)]
    pub fix_counters: bool,
    /// Also correct the quota usage of projects for backups, and end expired reservations for backups
    #[arg(long)]
    pub fix_quotas: bool,
    /// Also move `available` and `error` backups from hosts without a living cinder-backup to this host
    #[arg(long, value_name = "HOST")]
    pub rehost: Option<String>,
}

impl SelectionArgs {
    /// The selection, with the backups that were named; `-` reads ids from standard input.
    pub fn selection(&self, backups: &[String]) -> Result<Selection> {
        let backups = named(backups)?;
        // Tables print None for NULL, and what they print must be accepted.
        let spelled = |status: &String| match status.to_ascii_lowercase() {
            none if none == "none" => NULL.to_owned(),
            status => status,
        };
        let statuses: BTreeSet<String> = self.status.iter().map(spelled).collect();
        if let Some(unknown) = statuses.iter().find(|status| !STATUSES.contains(&status.as_str())) {
            let meant = meant(unknown, STATUSES.iter().copied());
            return Err(Error::usage(format!("{unknown:?} is not a status: use one of {}{meant}", STATUSES.join(", "))));
        }
        if self.limit == Some(0) {
            return Err(Error::usage("--limit must be at least 1"));
        }
        Ok(Selection {
            statuses,
            hosts: self.host.iter().cloned().collect(),
            projects: self.project.iter().cloned().collect(),
            volumes: self.volume.iter().cloned().collect(),
            backups: backups.into_iter().collect(),
            limit: self.limit,
        })
    }

    /// The selection and the policy for the heartbeat interval of this cloud's services.
    pub fn wanted(&self, selection: Selection, decision: Option<&DecisionArgs>, database: &Database) -> Result<Wanted> {
        let report_interval = database.report_interval;
        // Otherwise a working service would look down between two heartbeats.
        if let Some(span) = self.service_down_time.filter(|span| span.as_secs() < report_interval.saturating_mul(2)) {
            return Err(Error::usage(format!(
                "--service-down-time {} s is less than twice report_interval ({report_interval} s), so working services would look down; \
                 use --assume-dead HOST for a service that is known to be down",
                span.as_secs()
            )));
        }
        let thresholds = Thresholds {
            older_than_seconds: seconds(self.older_than),
            service_down_time_seconds: self.service_down_time.map_or(database.service_down_time, seconds),
            down_time_is_assumed: database.has_default_intervals && self.service_down_time.is_none(),
        };
        let mut policy = Policy { thresholds, asked: selection.statuses.clone(), ..Policy::default() };
        if let Some(decision) = decision {
            policy.assume_dead = assume_dead(&decision.assume_dead);
            policy.to = decision.to.clone();
            policy.allow_unverified = decision.allow_unverified;
            policy.no_quota = decision.no_quota;
            policy.fix_counters = decision.fix_counters;
            policy.fix_quotas = decision.fix_quotas;
            let backup_driver = database.backup_driver.clone();
            policy.rehost = decision.rehost.clone().map(|host| NewHost { host, backup_driver });
        }
        Ok(Wanted { selection, policy, may_be_empty: self.allow_empty })
    }
}

/// The hosts of `--assume-dead`.
pub fn assume_dead(hosts: &[String]) -> AssumeDead {
    match hosts {
        [] => AssumeDead::None,
        hosts if hosts.iter().any(|host| host == "all") => AssumeDead::All,
        hosts => AssumeDead::Hosts(hosts.iter().cloned().collect()),
    }
}

/// Reads a count.
pub fn whole_number(text: &str) -> std::result::Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is not an integer from 0, or too large"))
}

/// Reads a count from 1 to `MOST`.
pub fn number_up_to<const MOST: usize>(text: &str) -> std::result::Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("{text:?} is not an integer from 1 to {MOST}"))
}

/// Reads a time span: numbers with `s`, `m`, `h` or `d` (`90s`, `1h30m`), which are added up. A number without a unit is in seconds.
///
/// jiff's parser does not fit: it refuses a number without a unit and units out of order (`30m1h`), and it accepts months and fractions.
pub fn span(text: &str) -> std::result::Result<Duration, String> {
    let invalid = || format!("{text:?} is not a time span: use for example 90s, 15m, 2h or 1d");
    let too_long = || format!("{text:?} is longer than a hundred years, the longest time span");
    let mut total: u64 = 0;
    for part in Some(text.trim()).filter(|text| !text.is_empty()).ok_or_else(invalid)?.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let (digits, unit) = part.split_at_checked(part.trim_end_matches(|c: char| !c.is_ascii_digit()).len()).ok_or_else(invalid)?;
        let unit: u64 = match unit {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(invalid()),
        };
        let number: u64 = digits.parse().map_err(|_| if digits.is_empty() { invalid() } else { too_long() })?;
        total = number.checked_mul(unit).and_then(|span| total.checked_add(span)).ok_or_else(too_long)?;
    }
    // Arithmetic with later times could overflow.
    if total > 100 * 366 * 86_400 { Err(too_long()) } else { Ok(Duration::from_secs(total)) }
}

/// The backups that were named; `-` is replaced by the ids on standard input.
fn named(backups: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in backups {
        if name != "-" {
            names.push(name.clone());
            continue;
        }
        let read = crate::input::read_from(std::io::stdin(), MAX_IDS_BYTES)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error)));
        let text = read.map_err(|error| Error::usage(format!("cannot read ids from standard input: {error}")))?;
        let before = names.len();
        names.extend(text.split_whitespace().map(str::to_owned));
        // An empty list must not turn into "all".
        if names.len() == before {
            return Err(Error::usage("standard input lists no ids: nothing to do"));
        }
    }
    if let Some(empty) = names.iter().position(|name| name.trim().is_empty()) {
        return Err(Error::usage(format!("backup {} on the command line is empty; give an id or a name", empty + 1)));
    }
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        let seconds = |text: &str| span(text).map(|span| span.as_secs());
        for (text, expected) in [
            ("90", 90),
            ("90s", 90),
            ("1h30m", 5_400),
            ("30m1h", 5_400),
            ("1m1m", 120),
            ("1h30", 3_630),
            ("1d2h3m4s", 93_784),
            (" 2d ", 172_800),
            ("007s", 7),
            ("0s", 0),
            ("36600d", 3_162_240_000),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", " ", "h", "5q", "-1h", "+1h", "1w", "1 h", "1h 30m", "1.5h", "1H", "hm", "1hh", "1é", "PT1H"] {
            let error = seconds(wrong).unwrap_err();
            assert_eq!(error, format!("{wrong:?} is not a time span: use for example 90s, 15m, 2h or 1d"));
        }
        for long in ["36601d", "99999999999d", "99999999999999999999s", "18446744073709551615s1s", "99999999999999999999"] {
            assert_eq!(seconds(long).unwrap_err(), format!("{long:?} is longer than a hundred years, the longest time span"));
        }
    }
}
