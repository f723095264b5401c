//! What an audit log holds: one JSON object a line, each with the hash of the line before.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::{Change, Evidence, FindingKind, Image, Moved, Outcome, Policy, Tally};

/// The schema's name in every line.
pub const SCHEMA: &str = "cinder-backup-repair/audit";
/// The version that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

/// One line, but for the digest of its own that it ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Its place in the file, from 1.
    pub seq: u64,
    /// SHA-256 of the record before (its line without the line feed) in hex; 64 zeros in the first. A torn line is no record.
    pub previous: String,
    /// When it was written, by this host's clock, RFC 3339 in UTC.
    pub at: String,
    /// The run that it belongs to.
    pub run: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run begins.
    Begin(Box<Begin>),
    /// A unit is about to be changed; on disk before its transaction begins.
    Intent(Box<Intent>),
    /// How a unit ended; written after its transaction ended.
    Outcome(Box<UnitOutcome>),
    /// A run ends.
    End {
        /// How many units ended how.
        summary: Tally,
        /// The signal or fault that ended it early.
        interrupted: Option<String>,
    },
    /// An intent without an outcome (the run was killed, or its COMMIT's answer was lost) was settled later by reading the rows.
    Settled(Box<Settled>),
    /// What stands between the record before and this one was cut off in the middle of being written. If only the line feed was
    /// missing, it is the record before itself, and counts as one.
    Torn {
        /// Its length in bytes, without its last line feed.
        bytes: u64,
        /// The SHA-256 of these bytes in hex.
        sha256: String,
    },
}

/// Who runs the program, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Who {
    /// The effective user id.
    pub uid: u32,
    /// Its name.
    pub user: Option<String>,
    /// The user who logged in (`/proc/self/loginuid`), which survives `su` and `sudo`.
    pub login_user: Option<String>,
    /// `SUDO_USER`.
    pub sudo_user: Option<String>,
    /// The user of the database session, as the server sees it.
    pub database_user: Option<String>,
    /// This host's name.
    pub host: String,
    /// This process.
    pub pid: u32,
}

/// The database that a run changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRef {
    /// `sqlite`, `mysql`, `mariadb` or `postgresql`.
    pub engine: String,
    /// The server's version.
    pub version: String,
    /// The range of Cinder releases.
    pub release: String,
    /// Which database it is.
    pub identity: String,
    /// Where it was reached, without the password.
    pub location: String,
}

/// For people, to whom an identity alone means nothing.
impl fmt::Display for DatabaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.location, self.identity)
    }
}

/// A run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// `apply`, `repair` or `undo`.
    pub command: String,
    /// Name and version of the program.
    pub program: String,
    /// The plan's id.
    pub plan: String,
    /// The plan's digest.
    pub plan_sha256: String,
    /// The run that this one undoes.
    pub undoes: Option<String>,
    /// Who.
    pub who: Who,
    /// Where.
    pub database: DatabaseRef,
    /// `--reason`.
    pub reason: Option<String>,
    /// `--ticket`.
    pub ticket: Option<String>,
    /// What was asked for, safety flags among it.
    pub policy: Policy,
    /// How many units the plan has.
    pub units: usize,
}

/// A statement as it will be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementText {
    /// Its file in `sql/`, without folder and ending.
    pub name: String,
    /// Its text with the values in place.
    pub sql: String,
}

/// When a unit's transaction writes, if it ever does, and what was to be seen of its cinder-backup just before: so that later, where
/// the outcome is not on record, somebody else's writing can be told from ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The database's clock before it, RFC 3339; every row that it writes gets this time or a later one as `updated_at`.
    pub from: String,
    /// The database's clock after which it writes no more.
    pub until: String,
    /// The last heartbeat of the host of the unit's backup; where it has none, of any cinder-backup. `None` if there was none. For
    /// whoever looks into the log: that it has not beaten since does not prove who wrote, because a person may have.
    pub last_beat: Option<String>,
}

/// A unit is about to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its number in the plan, from 1.
    pub unit: usize,
    /// What its main row is.
    pub kind: FindingKind,
    /// The main row's id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Why it is changed.
    pub evidence: Vec<Evidence>,
    /// The rows as the plan saw them.
    pub before: Vec<Image>,
    /// What is to be changed.
    pub changes: Vec<Change>,
    /// How.
    pub statements: Vec<StatementText>,
    /// When; `None` in logs of versions that did not say so.
    pub window: Option<Window>,
}

/// The reason in the record of a unit that has an intent and was not begun. Its outcome in the log is `refused`, which older versions
/// can read.
pub const NOT_BEGUN: &str = "not begun: the run ended before it";

/// How a unit ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitOutcome {
    /// Its number in the plan.
    pub unit: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<String>,
    /// The columns that were not as the plan saw them.
    pub moved: Vec<Moved>,
    /// The changed rows as they were just before, where they were read again under lock.
    pub before: Vec<Image>,
    /// What was changed; differs from the intent's only in counters that the same run had moved already.
    pub changes: Vec<Change>,
    /// The changed rows afterwards, as read in the same transaction; where the outcome is `unknown`, as it was to leave them.
    pub after: Vec<Image>,
    /// The server that was told to commit, if its answer never came and it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_to: Option<String>,
}

impl UnitOutcome {
    /// How it ended, with units that were not begun told from those that were refused.
    pub fn ended(&self) -> Outcome {
        let not_begun = self.outcome == Outcome::Refused && self.reason.as_deref() == Some(NOT_BEGUN);
        if not_begun { Outcome::NotBegun } else { self.outcome }
    }

    /// Whether the answer to COMMIT was lost, and the rows, or on PostgreSQL once the transaction's id, were all there was to go by.
    pub fn is_found_by_reading(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        ["; read again: ", "; the server says that the transaction was "].iter().any(|words| reason.contains(words))
    }
}

/// An open intent was settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The unit's number in the run that this record names.
    pub unit: usize,
    /// What reading the rows showed: applied, failed (nothing was written) or unknown.
    pub outcome: Outcome,
    /// How that was seen.
    pub reason: String,
    /// The rows as found.
    pub found: Vec<Image>,
    /// The database's clock was past the unit's window by then: the COMMIT can no longer arrive, and there is no need to look again.
    /// Older versions did not record it.
    #[serde(default)]
    pub after_window: bool,
    /// Who settled it.
    pub who: Who,
}
