//! Findings: rows that are stuck or inconsistent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Code, EvidenceCode, Image, Table, Value};

/// The kind of row that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FindingKind {
    /// A row of `backups`.
    #[default]
    Backup,
    /// A volume whose status no backup explains.
    Volume,
    /// A snapshot whose status no backup explains.
    Snapshot,
    /// A project whose quota usage is wrong.
    Project,
    /// The host of a backup that has no living cinder-backup.
    Host,
}

impl FindingKind {
    /// The table that such rows are in; of a project, that of its quota usages, and of a host that of its backup.
    pub fn table(self) -> Table {
        match self {
            Self::Backup | Self::Host => Table::Backups,
            Self::Volume => Table::Volumes,
            Self::Snapshot => Table::Snapshots,
            Self::Project => Table::QuotaUsages,
        }
    }
}

/// Whether it is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Old enough, and no service can be working on it.
    Stuck,
    /// Old enough, but a service may be working on it.
    #[default]
    Uncertain,
    /// The storage shows that it is being worked on.
    Busy,
    /// Too young to be judged.
    Recent,
    /// No operation is pending, but rows contradict each other.
    Inconsistent,
}

/// A reason for a verdict, with a code for scripts and a sentence fragment for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// A stable code such as `service-down`.
    pub code: Code<EvidenceCode>,
    /// A sentence fragment. May hold names from the database, which are hostile text.
    pub text: String,
}

impl Evidence {
    /// One reason.
    pub fn new(code: EvidenceCode, text: impl Into<String>) -> Self {
        Self { code: code.into(), text: text.into() }
    }
}

/// What would make a better proposal possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// The data was not checked. If a check finds it intact, the backup can become `available`.
    StorageCheck,
}

/// One column of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The table.
    pub table: Table,
    /// The primary key.
    pub id: String,
    /// The column.
    pub column: String,
    /// The value as it was read.
    pub from: Value,
    /// The value to be written.
    pub to: Value,
}

impl Change {
    /// Whether it is a change of this row.
    pub fn is_of(&self, table: Table, id: &str) -> bool {
        self.table == table && self.id == id
    }
}

/// The changes that would repair a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The row's status afterwards.
    pub status: Option<String>,
    /// What would make a better proposal possible.
    pub needs: Vec<Need>,
    /// Column by column, in the order in which rows are locked.
    pub changes: Vec<Change>,
}

/// One row that is stuck or inconsistent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The table that the row is in.
    pub kind: FindingKind,
    /// The primary key.
    pub id: String,
    /// The user's name for it; hostile text.
    pub name: Option<String>,
    pub status: Option<String>,
    /// The host of the cinder-backup that works on it.
    pub host: Option<String>,
    /// The driver, as `backups.service` names it.
    pub service: Option<String>,
    /// The owner.
    pub project_id: Option<String>,
    /// The volume that it belongs to.
    pub volume_id: Option<String>,
    /// The later of `created_at` and `updated_at`, RFC 3339.
    pub since: Option<String>,
    /// Seconds from then to the database's now.
    pub age_seconds: Option<i64>,
    pub verdict: Verdict,
    /// The reasons for the verdict, the decisive one first.
    pub evidence: Vec<Evidence>,
    /// The repair; `None` if there is nothing to change, or it is refused.
    pub proposal: Option<Proposal>,
    /// Why no proposal is made.
    pub refusal: Option<String>,
    /// Commands for the operator, once the API is back.
    pub follow_up: Vec<String>,
    /// For a check on another host: the backup's row and those of its ancestors, the parent first; empty if a check would not help. For a
    /// plan: the rows that the proposal changes.
    #[serde(default)]
    pub rows: Vec<Image>,
}

impl Finding {
    /// Adds a reason.
    pub(super) fn note(&mut self, code: EvidenceCode, text: impl Into<String>) {
        self.evidence.push(Evidence::new(code, text));
    }

    /// Whether a plan takes it: there is something to change, and no service may be working on it.
    pub fn is_actionable(&self) -> bool {
        matches!(self.verdict, Verdict::Stuck | Verdict::Inconsistent)
            && self.proposal.as_ref().is_some_and(|proposal| !proposal.changes.is_empty())
    }
}
