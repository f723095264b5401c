//! The document that `check` answers, and that `plan` and `repair` take as evidence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::domain::{CheckResult, CheckVerdict, DatabaseInfo, Level, hex};

/// The schema's name in every document.
pub const SCHEMA: &str = "cinder-backup-repair/check";
/// The version that this program writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// Why a document cannot be used as evidence.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EvidenceError {
    /// It is none.
    #[error("is not what `check --format json` writes: {0}")]
    NotEvidence(String),
    /// A later version wrote it.
    #[error("has schema version {0}, which is newer than this program; use the version that wrote it")]
    Newer(u32),
    /// Its digest does not fit its content.
    #[error("was changed after it was written (its SHA-256 does not fit); check again instead of editing it")]
    Edited,
}

/// How many backups have which verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Whole.
    pub intact: usize,
    /// Part of them is not there.
    pub incomplete: usize,
    /// Part of them is wrong.
    pub corrupt: usize,
    /// Nothing of them is there.
    pub missing: usize,
    /// Nobody knows.
    pub unverifiable: usize,
    /// Being written, whatever their verdict.
    pub busy: usize,
    /// To be checked, and not begun when the check was stopped.
    pub left: usize,
}

impl Summary {
    /// Counts results.
    pub fn of(results: &[CheckResult], left: usize) -> Self {
        let mut summary = Self { left, ..Self::default() };
        for result in results {
            match result.verdict {
                CheckVerdict::Intact => summary.intact += 1,
                CheckVerdict::Incomplete => summary.incomplete += 1,
                CheckVerdict::Corrupt => summary.corrupt += 1,
                CheckVerdict::Missing => summary.missing += 1,
                CheckVerdict::Unverifiable => summary.unverifiable += 1,
            }
            summary.busy += usize::from(result.busy);
        }
        summary
    }
}

/// The document `cinder-backup-repair/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The database that the rows are from.
    pub database: DatabaseInfo,
    /// When the rows were read, RFC 3339, by the database's clock.
    pub taken_at: String,
    /// How deeply was checked.
    pub level: Level,
    /// An object younger than this was a sign of work.
    pub settle_seconds: u64,
    /// Why the check ended early, if it did.
    pub interrupted: Option<String>,
    /// One a backup.
    pub results: Vec<CheckResult>,
    /// How many have which verdict.
    pub summary: Summary,
    /// SHA-256 over all of this but itself, in hex.
    pub sha256: String,
}

impl Evidence {
    /// Writes the digest.
    pub fn seal(&mut self) {
        self.sha256 = self.digest();
    }

    fn digest(&self) -> String {
        let bare = Self { sha256: String::new(), ..self.clone() };
        // Only maps with keys that are no strings cannot be written as JSON, and there are none.
        hex::encode(&Sha256::digest(serde_json::to_vec(&bare).unwrap_or_default()))
    }

    /// Reads a document and makes sure that nobody has touched it.
    ///
    /// # Errors
    /// One that is none, is newer than this program, or was edited.
    pub fn parse(text: &[u8]) -> Result<Self, EvidenceError> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
            schema_version: u32,
        }
        let not = |error: serde_json::Error| EvidenceError::NotEvidence(error.to_string());
        let head: Head = serde_json::from_slice(text).map_err(not)?;
        if head.schema != SCHEMA {
            return Err(EvidenceError::NotEvidence(format!("its schema is {:?}", head.schema)));
        }
        if head.schema_version > SCHEMA_VERSION {
            return Err(EvidenceError::Newer(head.schema_version));
        }
        let evidence: Self = serde_json::from_slice(text).map_err(not)?;
        if evidence.digest() != evidence.sha256 {
            return Err(EvidenceError::Edited);
        }
        Ok(evidence)
    }
}

/// Puts results together; of two about the same backup the later one counts. But damage that was found is not taken back by
/// a look that went less deep: a quick check sees nothing of what the data is.
pub fn merge(all: impl IntoIterator<Item = CheckResult>) -> BTreeMap<String, CheckResult> {
    let mut merged: BTreeMap<String, CheckResult> = BTreeMap::new();
    let at = |result: &CheckResult| result.checked_at.parse::<jiff::Timestamp>().ok();
    for result in all {
        let Some(other) = merged.remove(&result.id) else {
            merged.insert(result.id.clone(), result);
            continue;
        };
        let (earlier, later) = if at(&other) > at(&result) { (result, other) } else { (other, result) };
        let counts = if is_taken_back(&earlier, &later) { later } else { earlier };
        merged.insert(counts.id.clone(), counts);
    }
    merged
}

/// Whether a later look may stand in the place of an earlier one.
fn is_taken_back(earlier: &CheckResult, later: &CheckResult) -> bool {
    // Two samples are of different objects.
    let saw_as_much = later.verdict != CheckVerdict::Unverifiable && !later.partial && later.level >= earlier.level;
    // What was being written then, or had another row, may have become whole.
    let same = !earlier.busy && earlier.rows == later.rows;
    !(same && earlier.verdict.is_damage()) || later.verdict.is_damage() || later.busy || saw_as_much
}
