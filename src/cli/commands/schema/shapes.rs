//! The shapes of documents that are written field by field: only their schemas are used.

#![expect(dead_code, reason = "no value is made")]

use schemars::JsonSchema;

use crate::audit::{Begin, Record};
use crate::domain::{DatabaseInfo, Level, Signature, Tally, UnitResult};
use crate::verify::rescue::{LostBackup, Summary as RescueSummary};
use crate::workflow::{LeftAlone, ReconciledUnit, Refused};

/// A line of a record stream: the head, a record, or the closing record.
#[derive(JsonSchema)]
#[serde(untagged)]
pub enum Line<H, R, E> {
    Head {
        head: StreamHead<H>,
        #[serde(flatten)]
        seal: Seal,
    },
    Record {
        #[serde(flatten)]
        record: R,
        #[serde(flatten)]
        seal: Seal,
    },
    End {
        end: StreamEnd<E>,
        #[serde(flatten)]
        seal: Seal,
    },
}

#[derive(JsonSchema)]
pub struct Seal {
    /// Over this line and the digest of the line before.
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
}

#[derive(JsonSchema)]
pub struct StreamHead<H> {
    schema: String,
    schema_version: u32,
    #[serde(flatten)]
    fields: H,
}

#[derive(JsonSchema)]
pub struct StreamEnd<E> {
    /// How many records there are between the head and this line.
    records: u64,
    #[serde(flatten)]
    fields: E,
}

#[derive(JsonSchema)]
pub struct RunHead {
    /// `apply`, `repair` or `undo`.
    command: String,
    run: Option<String>,
    dry_run: bool,
    plan: String,
    database: DatabaseInfo,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunRecord {
    Unit(UnitResult),
    Refused(Refused),
    LeftAlone(LeftAlone),
    FollowUp(String),
}

#[derive(JsonSchema)]
pub struct RunEnd {
    left_out: usize,
    missing_grants: Vec<String>,
    summary: Tally,
    interrupted: Option<String>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RescueRecord {
    Backup(LostBackup),
}

#[derive(JsonSchema)]
pub struct RescueEnd {
    interrupted: Option<String>,
    unread: Vec<String>,
    follow_up: Vec<String>,
    summary: RescueSummary,
}

/// A record of the audit log.
#[derive(JsonSchema)]
pub struct LogLine {
    #[serde(flatten)]
    record: Record,
    /// `sha256:` and the digest of this line without this field. Records of early versions have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

#[derive(JsonSchema)]
pub struct ScrubRun {
    schema: String,
    schema_version: u32,
    database: DatabaseInfo,
    ledger: String,
    max_age_seconds: i64,
    level: Level,
    started_at: String,
    ended_at: Option<String>,
    /// The signal, option or command that stopped it.
    interrupted: Option<String>,
    /// False if it was stopped before it knew what is due.
    due_known: bool,
    summary: ScrubSummary,
    /// Due backups that it did not reach.
    left: u64,
    failures: Vec<ScrubFailure>,
}

#[derive(JsonSchema)]
struct ScrubSummary {
    due: u64,
    intact: u64,
    failed: u64,
    rotted: u64,
    limited: u64,
    unanswered: u64,
    bytes: u64,
}

#[derive(JsonSchema)]
struct ScrubFailure {
    id: String,
    project_id: Option<String>,
    driver: Option<String>,
    container: Option<String>,
    verdict: String,
    level: Level,
    first_failed_at: String,
    failed_at: String,
    last_good_at: Option<String>,
    /// It was intact and is not any more.
    rotted: bool,
    problem: Option<String>,
}

#[derive(JsonSchema)]
pub struct ScrubPause {
    schema: String,
    schema_version: u32,
    ledger: String,
    paused_since: Option<String>,
    paused_by: Option<String>,
    reason: Option<String>,
}

#[derive(JsonSchema)]
pub struct ScrubStatus {
    schema: String,
    schema_version: u32,
    database: DatabaseInfo,
    ledger: String,
    as_of: Option<String>,
    level: Level,
    max_age_seconds: i64,
    paused_since: Option<String>,
    coverage: Vec<Coverage>,
    failed: u64,
    /// At most 10,000.
    failures: Vec<ScrubFailure>,
    last_run: Option<LastRun>,
    forecast: Forecast,
}

#[derive(JsonSchema)]
struct Coverage {
    /// `all`, `backend` or `project`.
    scope: String,
    name: Option<String>,
    backups: u64,
    bytes: u64,
    quick: u64,
    deep: u64,
    restore: u64,
    failed: u64,
    never_verified: u64,
    limited: u64,
    unanswered: u64,
    oldest_unverified_at: Option<String>,
}

#[derive(JsonSchema)]
struct LastRun {
    level: Level,
    started_at: String,
    ended_at: Option<String>,
    interrupted: Option<String>,
    summary: ScrubSummary,
}

#[derive(JsonSchema)]
struct Forecast {
    /// `complete`, `in`, `too-slow` or `unknown`.
    kind: String,
    seconds: Option<i64>,
    complete_at: Option<String>,
}

#[derive(JsonSchema)]
pub struct HistoryList {
    schema: String,
    schema_version: u32,
    audit_log: String,
    runs: Vec<HistoryRun>,
}

#[derive(JsonSchema)]
struct HistoryRun {
    run: String,
    at: String,
    begin: Begin,
    intents: usize,
    summary: Tally,
    /// The units whose outcome is not known.
    open: Vec<usize>,
    undone_by: Option<String>,
    /// In words.
    state: String,
}

#[derive(JsonSchema)]
pub struct HistoryVerify {
    schema: String,
    schema_version: u32,
    audit_log: String,
    intact: bool,
    records: u64,
    /// Lines that crashes cut off and that a record accounts for.
    torn: u64,
    last_hash: String,
    last_seq: u64,
    problem_count: u64,
    problems: Vec<LogProblem>,
}

#[derive(JsonSchema)]
struct LogProblem {
    line: u64,
    code: String,
    text: String,
}

#[derive(JsonSchema)]
pub struct HistoryReconcile {
    schema: String,
    schema_version: u32,
    audit_log: String,
    database: DatabaseInfo,
    units: Vec<ReconciledUnit>,
}

#[derive(JsonSchema)]
pub struct Failed {
    schema: String,
    schema_version: u32,
    exit_code: u8,
    error: String,
    hint: Option<String>,
}

#[derive(JsonSchema)]
pub struct Schemas {
    schema: String,
    schema_version: u32,
    schemas: Vec<ListedSchema>,
}

#[derive(JsonSchema)]
struct ListedSchema {
    name: String,
    written_by: String,
    /// Each line is a value of this schema.
    lines: bool,
}
