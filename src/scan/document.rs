//! The document of `scan`, for other programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::code::codes;
use crate::domain::{Code, DatabaseInfo, Finding, Thresholds, Verdict};
use crate::spool::Spool;

codes! {
    /// What a notice is about.
    NoticeCode {
    ClockAhead = "clock-ahead",
        "The clock of a host is ahead of the database server's by more than `service_down_time`, so its heartbeat proves nothing.",
        "Correct the clock of the host.";
    HostsRetired = "hosts-retired",
        "Backups that are `available` or `error` are on hosts without a cinder-backup, or with one that has been silent for a day. Cinder \
         restores and deletes them on other hosts, unless `backup_use_same_host` is set.",
        "Run `repair --rehost` if the hosts do not come back.";
    QuotaWrong = "quota-wrong",
        "The quota usage of a project differs from the number and size of its live backups.",
        "Run the suggested command.";
    }
}

/// A notice that is not about a single row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// A stable code such as `clock-ahead`.
    pub code: Code<NoticeCode>,
    /// The same in words.
    pub text: String,
    /// Commands for later.
    pub follow_up: Vec<String>,
}

/// How many findings have which verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Can be repaired.
    pub stuck: usize,
    /// May be worked on.
    pub uncertain: usize,
    /// Is worked on.
    pub busy: usize,
    /// Too young to say.
    pub recent: usize,
    /// Contradicts itself.
    pub inconsistent: usize,
}

impl Summary {
    /// Counts a finding.
    pub fn count(&mut self, verdict: Verdict) {
        let number = match verdict {
            Verdict::Stuck => &mut self.stuck,
            Verdict::Uncertain => &mut self.uncertain,
            Verdict::Busy => &mut self.busy,
            Verdict::Recent => &mut self.recent,
            Verdict::Inconsistent => &mut self.inconsistent,
        };
        *number += 1;
    }

    /// The number of all findings.
    pub fn total(&self) -> usize {
        self.stuck + self.uncertain + self.busy + self.recent + self.inconsistent
    }
}

/// The document `cinder-backup-repair/scan`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ScanDocument {
    /// Always `cinder-backup-repair/scan`.
    pub schema: &'static str,
    /// Always 1.
    pub schema_version: u32,
    /// The database.
    pub database: DatabaseInfo,
    /// The database's clock, RFC 3339.
    pub taken_at: String,
    /// The time spans that verdicts depend on.
    pub thresholds: Thresholds,
    /// What was found, the oldest first; with `--limit` no more than that.
    pub findings: Spool<Finding>,
    /// Further notices.
    pub notices: Vec<Notice>,
    /// How many findings have which verdict, those that `--limit` left out among them.
    pub summary: Summary,
    /// How many findings `--limit` left out.
    pub left_out: usize,
}
