//! The records of the audit log, one JSON object a line.

use jiff::civil::DateTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::time::parse_rfc3339;
use crate::domain::{Change, DatabaseInfo, Evidence, FindingKind, Image, Moved, Outcome, Policy, Tally};

/// The schema's name in every line.
pub const SCHEMA: &str = "cinder-backup-repair/audit";
/// The version that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

/// One line without its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Its number in the file, from 1.
    pub seq: u64,
    /// SHA-256 of the line of the record before, without its line feed, in hex; 64 zeros in the first record. A torn line is not a record.
    pub previous: String,
    /// When it was written, by this host's clock, RFC 3339 in UTC.
    pub at: String,
    /// The id of its run.
    pub run: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run begins.
    Begin(Box<Begin>),
    /// A unit will be changed; on disk before its transaction begins.
    Intent(Box<Intent>),
    /// How a unit ended; written after its transaction ended.
    Outcome(Box<UnitOutcome>),
    /// A run ends.
    End(RunEnd),
    /// The outcome of a unit was settled later by reading its rows: the run was killed, or the answer to COMMIT was lost.
    Settled(Box<Settled>),
    /// A crash cut off the lines between the record before and this one. If only a line feed was missing, this describes the record
    /// before, which counts as a record.
    Torn(Torn),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunEnd {
    /// How many units ended how, as the run itself counted them.
    pub summary: Tally,
    /// The signal or error that ended it early.
    pub interrupted: Option<String>,
}

/// Lines that a crash cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Torn {
    /// Their length in bytes, without the last line feed.
    pub bytes: u64,
    /// The SHA-256 of these bytes in hex.
    pub sha256: String,
}

/// Who runs the program, and on which host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
    /// The id of this process.
    pub pid: u32,
}

/// A run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    pub who: Who,
    pub database: DatabaseInfo,
    pub reason: Option<String>,
    pub ticket: Option<String>,
    /// The selection and the flags, including safety flags.
    pub policy: Policy,
    /// How many units the plan has.
    pub units: usize,
}

/// A statement with its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatementText {
    /// The name of its file in `sql/`, without directory and extension.
    pub name: String,
    /// Its text with the values in place of the placeholders.
    pub sql: String,
}

/// When the transaction of a unit may write, and the last heartbeat of its cinder-backup before. If the outcome is not on record,
/// this later distinguishes the program's own changes from those of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    /// The database's clock before the transaction, RFC 3339. Every row that it writes has this `updated_at` or a later one.
    pub from: String,
    /// The database's clock after which it writes nothing.
    pub until: String,
    /// The last heartbeat of the backup's host, or of any cinder-backup if the backup has no host. `None` if there was none. This is
    /// information for an auditor: a missing heartbeat does not prove who changed a row, because a person may have changed it.
    pub last_beat: Option<String>,
}

impl Window {
    /// The `deleted_at` of backups that become deleted in it.
    pub fn deleted_at(&self) -> Option<String> {
        parse_rfc3339(&self.from).map(deletion_time)
    }
}

/// The `deleted_at` of a backup that becomes deleted in a window that begins then, as Cinder writes times. The whole second shows that this
/// program deleted the backup.
pub fn deletion_time(from: DateTime) -> String {
    from.strftime("%Y-%m-%d %H:%M:%S.000000").to_string()
}

/// A unit will be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Intent {
    /// Its number in the plan, from 1.
    pub unit: usize,
    /// The kind of its main row.
    pub kind: FindingKind,
    /// The main row's id.
    pub id: String,
    pub name: Option<String>,
    /// Why it is changed.
    pub evidence: Vec<Evidence>,
    /// The rows as planned.
    pub before: Vec<Image>,
    pub changes: Vec<Change>,
    /// The statements that make them.
    pub statements: Vec<StatementText>,
    /// When it may write; `None` in logs of earlier versions.
    pub window: Option<Window>,
    /// Commands for the operator, once the API is back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub follow_up: Vec<String>,
}

/// The reason in the outcome of a unit that has an intent and was not begun. The log says `refused`, which older versions can read.
pub const NOT_BEGUN: &str = "not begun: the run ended before it";

/// How a unit ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnitOutcome {
    /// Its number in the plan.
    pub unit: usize,
    pub outcome: Outcome,
    pub reason: Option<String>,
    /// The columns that differ from the plan.
    pub moved: Vec<Moved>,
    /// The changed rows just before, as read under lock.
    pub before: Vec<Image>,
    /// The changes. They differ from the intent only in counters that the same run had already changed.
    pub changes: Vec<Change>,
    /// The changed rows afterwards, as read in the same transaction. If the outcome is `unknown`, as the transaction would leave them.
    pub after: Vec<Image>,
    /// The server that received COMMIT, if its answer was lost and the server is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_to: Option<String>,
}

impl UnitOutcome {
    /// How it ended. Distinguishes units that were not begun from refused ones.
    pub fn ended(&self) -> Outcome {
        let not_begun = self.outcome == Outcome::Refused && self.reason.as_deref() == Some(NOT_BEGUN);
        if not_begun { Outcome::NotBegun } else { self.outcome }
    }

    /// Whether the answer to COMMIT was lost, so that the outcome was read from the rows (or in older versions on PostgreSQL from the
    /// transaction id).
    pub fn is_found_by_reading(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        ["; read again: ", "; the server says that the transaction was "].iter().any(|words| reason.contains(words))
    }
}

/// The settlement of an open unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settled {
    /// The unit's number in the run that this record names.
    pub unit: usize,
    /// What the rows showed: applied, failed (nothing was written) or unknown.
    pub outcome: Outcome,
    /// How the rows showed it.
    pub reason: String,
    pub found: Vec<Image>,
    /// The rows were read after the unit's window, when the COMMIT could no longer arrive, so they need not be read again. Older
    /// versions did not record it.
    #[serde(default)]
    pub after_window: bool,
    pub who: Who,
}
