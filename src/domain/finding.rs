//! What a scan says about one row.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Code, EvidenceCode, Image, Table, Value};

/// What kind of row a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingKind {
    /// A row of `backups`.
    Backup,
    /// A volume left behind with no backup that explains it.
    Volume,
    /// A snapshot left behind likewise.
    Snapshot,
}

impl FindingKind {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Whether it is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Old enough, and nobody can be working on it.
    Stuck,
    /// Old enough, but somebody may be working on it.
    Uncertain,
    /// Somebody is working on it.
    Busy,
    /// Too young to say.
    Recent,
    /// Nothing pending, but rows that contradict each other.
    Inconsistent,
}

impl Verdict {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stuck => "stuck",
            Self::Uncertain => "uncertain",
            Self::Busy => "busy",
            Self::Recent => "recent",
            Self::Inconsistent => "inconsistent",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One reason, with a code for scripts and a sentence fragment for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// A stable code such as `service-down`.
    pub code: Code<EvidenceCode>,
    /// The same in words. May hold names out of the database, which is hostile text.
    pub text: String,
}

impl Evidence {
    /// One reason.
    pub fn new(code: EvidenceCode, text: impl Into<String>) -> Self {
        Self { code: code.into(), text: text.into() }
    }
}

/// What must be done before a proposal may be carried out in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Nobody has looked at the data on the storage; a check could earn the backup `available`.
    StorageCheck,
}

/// One column of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The table.
    pub table: Table,
    /// The primary key.
    pub id: String,
    /// The column.
    pub column: String,
    /// What is there.
    pub from: Value,
    /// What is to be there.
    pub to: Value,
}

/// The change that would put a finding right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The row's status afterwards.
    pub status: Option<String>,
    /// What stands between this proposal and a better one.
    pub needs: Vec<Need>,
    /// Column by column, in the order in which rows are locked.
    pub changes: Vec<Change>,
}

/// What a scan says about one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The table that the row is in.
    pub kind: FindingKind,
    /// The primary key.
    pub id: String,
    /// The user's name for it; hostile text.
    pub name: Option<String>,
    /// Its status now.
    pub status: Option<String>,
    /// The host of its cinder-backup.
    pub host: Option<String>,
    /// The driver that made it.
    pub service: Option<String>,
    /// The owner.
    pub project_id: Option<String>,
    /// The volume that it belongs to.
    pub volume_id: Option<String>,
    /// The later of `created_at` and `updated_at`, RFC 3339.
    pub since: Option<String>,
    /// Seconds from then to the database's now.
    pub age_seconds: Option<i64>,
    /// Whether it is stuck.
    pub verdict: Verdict,
    /// Why the program thinks so.
    pub evidence: Vec<Evidence>,
    /// What would put it right; `None` where nothing is to be done, or may be.
    pub proposal: Option<Proposal>,
    /// Why there is no proposal although one was asked for.
    pub refusal: Option<String>,
    /// Commands for later, when the API is back.
    pub follow_up: Vec<String>,
    /// For a check on another host: the backup's row and those of its ancestors, the nearest first; empty where no check
    /// would help.
    #[serde(default)]
    pub rows: Vec<Image>,
}

impl Finding {
    /// Whether a plan may take it up: there is something to change and nobody may be working on it.
    pub fn is_actionable(&self) -> bool {
        matches!(self.verdict, Verdict::Stuck | Verdict::Inconsistent)
            && self.proposal.as_ref().is_some_and(|proposal| !proposal.changes.is_empty())
    }
}
