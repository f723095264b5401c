//! The record stream of a scan: findings, notices, and the catalog if all backups were asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::catalog::{CatalogTotals, Chain, expected_bytes};
use super::document::{Notice, Summary};
use crate::domain::record_stream::StreamKind;
use crate::domain::{Backup, ColumnSet, DatabaseInfo, Finding, Image, Thresholds};

/// The stream `cinder-backup-repair/scan-records`.
#[derive(Debug)]
pub struct ScanRecords;

impl StreamKind for ScanRecords {
    const SCHEMA: &'static str = "cinder-backup-repair/scan-records";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = "a stream of `scan --format jsonl`";
    const INSTEAD: &'static str = "scan again";
    type Head = ScanHead;
    type Record = ScanRecord;
    type End = ScanEnd;
}

/// What was scanned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScanHead {
    /// The program and its version.
    pub program: String,
    /// The database.
    pub database: DatabaseInfo,
    /// The database's clock, RFC 3339.
    pub taken_at: String,
    /// The time spans that verdicts depend on.
    pub thresholds: Thresholds,
    /// The columns that the rows have.
    pub columns: ColumnSet,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScanRecord {
    /// A row that is stuck or inconsistent.
    Finding(Box<Finding>),
    /// A notice that is not about a single row.
    Notice(Notice),
    /// A chain of the catalog; its backups follow, each increment after its parent and before its parent's next increment.
    Chain(Chain),
    /// A backup of the catalog.
    Backup(Box<CatalogBackup>),
}

/// A backup of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CatalogBackup {
    /// The user's name for it; hostile text.
    pub name: Option<String>,
    /// The owner.
    pub project_id: Option<String>,
    /// How many bytes a deep check is expected to read.
    pub bytes: u64,
    /// Whether it was asked for. Otherwise it is here only because an increment is based on it.
    pub wanted: bool,
    /// Its own row.
    pub row: Image,
}

impl CatalogBackup {
    /// The record of a backup.
    pub fn new(backup: &Backup, wanted: bool, columns: ColumnSet) -> Self {
        Self {
            name: backup.display_name.clone(),
            project_id: backup.project_id.clone(),
            bytes: expected_bytes(backup),
            wanted,
            row: backup.image(columns),
        }
    }

    /// The row as it was read.
    pub fn backup(&self) -> Backup {
        Backup { display_name: self.name.clone(), project_id: self.project_id.clone(), ..Backup::of_image(&self.row) }
    }
}

/// How the scan ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScanEnd {
    /// How many findings have which verdict, those that `--limit` left out among them.
    pub summary: Summary,
    /// How many findings `--limit` left out.
    pub left_out: usize,
    /// The size of the catalog, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<CatalogTotals>,
}
