//! The options that decide, and the facts that all rows share: clock, heartbeats, columns.

use std::collections::BTreeSet;

use jiff::civil::DateTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::{CREATING, DELETED, DELETING, ERROR, ERROR_DELETING};
use super::{ColumnSet, Services};

/// The hosts whose cinder-backup the user declared dead (`--assume-dead`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AssumeDead {
    /// No host.
    #[default]
    None,
    /// These hosts.
    Hosts(BTreeSet<String>),
    /// All hosts.
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

/// The time spans that a verdict depends on, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// A younger operation is `recent`.
    pub older_than_seconds: i64,
    /// A service with an older heartbeat counts as down; Cinder's `service_down_time`.
    pub service_down_time_seconds: i64,
    /// `service_down_time` is Cinder's default, because neither cinder.conf nor an option gave it. A service whose heartbeats are further
    /// apart gets longer ([`Services::down_time`]).
    #[serde(default, skip_serializing_if = "is_false")]
    pub down_time_is_assumed: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { older_than_seconds: 3_600, service_down_time_seconds: 60, down_time_is_assumed: false }
    }
}

/// The options that a decision depends on. A plan carries them, so that `apply` decides alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The time spans.
    pub thresholds: Thresholds,
    /// `--assume-dead`.
    pub assume_dead: AssumeDead,
    /// `--to`: `available`, `error` or `deleted` instead of the usual status.
    pub to: Option<String>,
    /// `--allow-unverified`: `available` or `deleted` without a check.
    pub allow_unverified: bool,
    /// `--no-quota`: what the quota counts stays as it is when a backup becomes deleted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_quota: bool,
    /// `--accept-quick`: `available` after a check that read no data.
    #[serde(default, skip_serializing_if = "is_false")]
    pub accept_quick: bool,
    /// `--fix-counters`: repair `num_dependent_backups` too.
    pub fix_counters: bool,
    /// `--fix-quotas`: correct quota usages too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fix_quotas: bool,
    /// `--rehost`: where backups of hosts without a living cinder-backup go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehost: Option<NewHost>,
    /// `--evidence-max-age`: a check older than this, in seconds, does not count.
    #[serde(default = "a_day")]
    pub evidence_max_age_seconds: i64,
    /// `--status`: statuses that were asked for (`error`, `error_deleting`), beside those of a pending operation.
    pub asked: BTreeSet<String>,
}

/// The host that backups are moved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHost {
    /// Its name, as its service row spells it.
    pub host: String,
    /// The `backup_driver` of the cinder.conf that was read, if it sets one.
    pub backup_driver: Option<String>,
}

fn a_day() -> i64 {
    86_400
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
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
            no_quota: false,
            accept_quick: false,
            fix_counters: false,
            fix_quotas: false,
            rehost: None,
            evidence_max_age_seconds: a_day(),
            asked: BTreeSet::new(),
        }
    }
}

impl Policy {
    /// Whether backups are to become deleted.
    pub fn deletes(&self) -> bool {
        self.to.as_deref() == Some(DELETED)
    }

    /// Whether a check of its storage has a say in what becomes of a backup with this status.
    pub fn needs_check(&self, status: Option<&str>) -> bool {
        matches!(status, Some(CREATING | ERROR)) || (self.deletes() && matches!(status, Some(DELETING | ERROR_DELETING)))
    }
}

/// The facts that all rows of a scan share.
#[derive(Debug, Clone)]
pub struct Situation {
    /// The database server's clock, naive UTC.
    pub now: DateTime,
    /// Seconds since the database server started, if it reports that.
    pub server_uptime_seconds: Option<i64>,
    /// The heartbeats.
    pub services: Services,
    /// The columns of the tables.
    pub columns: ColumnSet,
    /// Whether there is a table `volume_attachment`.
    pub has_attachments: bool,
}
