//! What the user asked for, and what surrounds all rows: clock, heartbeats, columns.

use std::collections::BTreeSet;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::{ColumnSet, Services};

/// The hosts whose cinder-backup the user declared dead (`--assume-dead`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AssumeDead {
    /// None.
    #[default]
    None,
    /// These.
    Hosts(BTreeSet<String>),
    /// All of them.
    All,
}

impl AssumeDead {
    /// Whether the user declared this host dead.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::None => false,
            Self::Hosts(hosts) => hosts.contains(host) || hosts.contains(super::services::host_part(host)),
            Self::All => true,
        }
    }
}

/// The spans that the verdict rests on, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Younger operations are left alone.
    pub older_than_seconds: i64,
    /// A heartbeat older than this is a dead service; Cinder's `service_down_time`.
    pub service_down_time_seconds: i64,
    /// Neither cinder.conf nor an option gave it: it is Cinder's default, and a service whose heartbeats are further apart gets
    /// longer ([`Services::down_time`]).
    #[serde(default, skip_serializing_if = "is_false")]
    pub down_time_is_assumed: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { older_than_seconds: 3_600, service_down_time_seconds: 60, down_time_is_assumed: false }
    }
}

/// What the user asked for, as far as a decision depends on it. A plan carries it, so that apply decides alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The spans.
    pub thresholds: Thresholds,
    /// `--assume-dead`.
    pub assume_dead: AssumeDead,
    /// `--to`: `available` or `error` in place of the usual target.
    pub to: Option<String>,
    /// `--allow-unverified`: `available` although nobody looked at the data.
    pub allow_unverified: bool,
    /// `--accept-quick`: `available` on a check that read none of the data.
    #[serde(default, skip_serializing_if = "is_false")]
    pub accept_quick: bool,
    /// `--fix-counters`: repair `num_dependent_backups` too.
    pub fix_counters: bool,
    /// `--evidence-max-age`: a check of the storage older than this, in seconds, is not believed.
    #[serde(default = "a_day")]
    pub evidence_max_age_seconds: i64,
    /// `--status`: statuses beside the pending ones that were asked for (`error`, `error_deleting`).
    pub asked: BTreeSet<String>,
}

fn a_day() -> i64 {
    86_400
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            assume_dead: AssumeDead::None,
            to: None,
            allow_unverified: false,
            accept_quick: false,
            fix_counters: false,
            evidence_max_age_seconds: a_day(),
            asked: BTreeSet::new(),
        }
    }
}

/// What is the same for all rows of a scan.
#[derive(Debug, Clone)]
pub struct Situation {
    /// The database server's clock, naive UTC.
    pub now: DateTime,
    /// Seconds since the database server started, where it says so.
    pub server_uptime_seconds: Option<i64>,
    /// The heartbeats.
    pub services: Services,
    /// Which columns there are.
    pub columns: ColumnSet,
    /// Whether there is a table `volume_attachment`.
    pub has_attachments: bool,
}
