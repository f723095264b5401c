//! The document that `check` answers, and that `plan` and `repair` take as evidence.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{CheckResult, CheckVerdict, DatabaseInfo, Image, Level, Signature, digest};

/// The schema's name in every document.
pub const SCHEMA: &str = "cinder-backup-repair/check";
/// The version that this program writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// Why a document cannot be used as evidence.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CheckDocumentError {
    /// It is none.
    #[error("is not what `check --format json` writes: {0}")]
    NotACheckDocument(String),
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
    /// Those whose state is not known at the level that was asked for.
    pub unverifiable: usize,
    /// Of the unverifiable ones: a disk gives read errors for their data.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unreadable: usize,
    /// Those of the unverifiable ones that are intact at level quick, and no deeper.
    #[serde(default, skip_serializing_if = "is_none")]
    pub intact_at_quick: usize,
    /// Those of the unverifiable ones that are intact at level deep, and no deeper.
    #[serde(default, skip_serializing_if = "is_none")]
    pub intact_at_deep: usize,
    /// Being written, whatever their verdict.
    pub busy: usize,
    /// To be checked, and not begun when the check was stopped.
    pub left: usize,
    /// Md5Handle over from an earlier check, each with the time of that (`checked_at`).
    #[serde(default, skip_serializing_if = "is_none")]
    pub carried: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_none(number: &usize) -> bool {
    *number == 0
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
                CheckVerdict::Unverifiable => {
                    summary.unverifiable += 1;
                    summary.intact_at_quick += usize::from(result.reached() == Some(Level::Quick));
                    summary.intact_at_deep += usize::from(result.reached() == Some(Level::Deep));
                }
            }
            summary.unreadable += usize::from(result.is_unreadable());
            summary.busy += usize::from(result.busy);
        }
        summary
    }
}

/// The document `cinder-backup-repair/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckDocument {
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
    /// The rows of those that the results' backups rest on, each once, where a result has its own row alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Image>,
    /// How many have which verdict.
    pub summary: Summary,
    /// SHA-256, in hex, over all other fields except the signature.
    pub sha256: String,
    /// The signature, if it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

impl CheckDocument {
    /// Writes every row once, and the digest: a chain's rows with each of its members would grow with its square.
    pub fn seal(&mut self) {
        let mut pool: BTreeMap<String, Image> = self.ancestors.drain(..).map(|row| (row.id.clone(), row)).collect();
        for result in &mut self.results {
            let above = result.rows.get(1..).unwrap_or_default();
            for row in above {
                pool.entry(row.id.clone()).or_insert_with(|| row.clone());
            }
            // Two looks at the database may have seen two images of a row; the second one's results keep theirs.
            if above.iter().all(|row| pool.get(&row.id) == Some(row)) {
                result.rows.truncate(1);
            }
        }
        self.ancestors = pool.into_values().collect();
        self.sha256 = self.digest();
    }

    /// The results, those with all of their rows that `wanted` takes.
    pub fn into_results(self, wanted: impl Fn(&CheckResult) -> bool) -> impl Iterator<Item = CheckResult> {
        let pool: HashMap<String, Image> = self.ancestors.into_iter().map(|row| (row.id.clone(), row)).collect();
        self.results.into_iter().map(move |mut result| {
            if wanted(&result) && result.rows.len() == 1 {
                result.rows.extend(result.chain.iter().skip(1).filter_map(|id| pool.get(id)).cloned());
            }
            result
        })
    }

    /// The same, if the rows of every result are there.
    pub(super) fn with_rows(self) -> Result<Self, CheckDocumentError> {
        let pool: HashSet<&str> = self.ancestors.iter().map(|row| row.id.as_str()).collect();
        let lacks = |result: &&CheckResult| result.rows.len() == 1 && result.chain.iter().skip(1).any(|id| !pool.contains(id.as_str()));
        match self.results.iter().find(lacks) {
            Some(result) => Err(CheckDocumentError::NotACheckDocument(format!("it lacks rows of backups that {:?} rests on", result.id))),
            None => Ok(self),
        }
    }

    /// SHA-256 over the document without one, which is what it has for a round: a survey is too large to be copied for this.
    fn digest(&mut self) -> String {
        let (stated, signature) = (std::mem::take(&mut self.sha256), self.signature.take());
        let made = digest::of_json(self);
        (self.sha256, self.signature) = (stated, signature);
        made
    }

    /// Reads a document and makes sure that nobody has touched it.
    ///
    /// # Errors
    /// One that is none, is newer than this program, or was edited.
    pub fn parse(text: &[u8]) -> Result<Self, CheckDocumentError> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
            schema_version: u32,
        }
        let not = |error: serde_json::Error| CheckDocumentError::NotACheckDocument(error.to_string());
        let head: Head = serde_json::from_slice(text).map_err(not)?;
        if head.schema != SCHEMA {
            return Err(CheckDocumentError::NotACheckDocument(format!("its schema is {:?}", head.schema)));
        }
        if head.schema_version > SCHEMA_VERSION {
            return Err(CheckDocumentError::Newer(head.schema_version));
        }
        let mut evidence: Self = serde_json::from_slice(text).map_err(not)?;
        if evidence.digest() != evidence.sha256 {
            return Err(CheckDocumentError::Edited);
        }
        evidence.with_rows()
    }
}

/// Puts results together; of two about the same backup the later one counts. But damage that was found is not taken back by
/// a look that went less deep: a quick check sees nothing of what the data is, whatever else it may find wrong.
pub fn merge(all: impl IntoIterator<Item = CheckResult>) -> BTreeMap<String, CheckResult> {
    let mut merged: BTreeMap<String, CheckResult> = BTreeMap::new();
    // Damage that was found before somebody was seen at work. Whether anything was written then is seen in the next look.
    let mut before_work: HashMap<String, CheckResult> = HashMap::new();
    let mut all: Vec<CheckResult> = all.into_iter().collect();
    // Which of three counts would depend on the order of the files else.
    all.sort_by_cached_key(|result| result.checked_at.parse::<jiff::Timestamp>().ok());
    for later in all {
        let worked_on = before_work.remove(&later.id);
        let was_busy = worked_on.is_some();
        let earlier = worked_on.or_else(|| merged.remove(&later.id)).filter(|earlier| !is_taken_back(earlier, &later, was_busy));
        let counts = match earlier {
            Some(earlier) if later.busy => {
                before_work.insert(later.id.clone(), earlier);
                later
            }
            // Nobody is at work any more, and what was written by then is what was read.
            Some(earlier) => CheckResult { busy: false, ..earlier },
            None => later,
        };
        merged.insert(counts.id.clone(), counts);
    }
    merged
}

/// Whether a later look may stand in the place of an earlier one; `was_busy` where somebody was seen at work in between.
fn is_taken_back(earlier: &CheckResult, later: &CheckResult, was_busy: bool) -> bool {
    // Two samples are of different objects.
    let came_to_its_end = later.verdict != CheckVerdict::Unverifiable && !later.partial && later.level >= earlier.level;
    // Of one that did not reach its level it is known how far it is intact (Ceph).
    let saw_as_much = came_to_its_end || later.reached() >= Some(earlier.level);
    // What was being written, or had another row, may have become whole.
    let may_be_written = (was_busy || earlier.busy) && !earlier.is_of_same_listing(later);
    let same = !may_be_written && earlier.is_of_same_data(later);
    !(same && earlier.verdict.is_damage()) || saw_as_much
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{Backup, ColumnSet};

    /// A chain of so many backups, each with the rows of all below it, as older versions wrote them.
    fn chain(length: usize) -> CheckDocument {
        let rows: Vec<Image> = (0..length)
            .map(|number| {
                let parent_id = number.checked_sub(1).map(|number| format!("b{number}"));
                Backup { id: format!("b{number}"), parent_id, status: Some("available".to_owned()), ..Backup::default() }
                    .image(ColumnSet::Mitaka)
            })
            .collect();
        let result = |number: usize| {
            let above: Vec<Image> = rows.iter().take(number + 1).rev().cloned().collect();
            let ids: Vec<&str> = above.iter().map(|row| row.id.as_str()).collect();
            let amount = serde_json::json!({ "checked": 0, "expected": 0 });
            serde_json::from_value(serde_json::json!({
                "id": format!("b{number}"), "name": null, "driver": "posix", "service": null, "location": null, "level": "quick", "depth": "",
                "partial": false, "verdict": "intact", "busy": false, "begun": true, "objects": amount, "bytes": amount, "problems": [],
                "warnings": [], "chain": ids, "object_count": null, "service_metadata": null, "newest_object_at": null,
                "checked_at": "2026-11-22T11:00:00Z", "rows": above,
            }))
            .unwrap()
        };
        CheckDocument {
            schema: SCHEMA.into(),
            schema_version: SCHEMA_VERSION,
            database: DatabaseInfo {
                engine: "sqlite".into(),
                version: "3".into(),
                release: "r".into(),
                identity: "i".into(),
                location: None,
            },
            taken_at: "2026-11-22T10:00:00Z".into(),
            level: Level::Quick,
            settle_seconds: 900,
            interrupted: None,
            results: (0..length).map(result).collect(),
            ancestors: Vec::new(),
            summary: Summary::default(),
            sha256: String::new(),
            signature: None,
        }
    }

    fn text(evidence: &CheckDocument) -> String {
        serde_json::to_string(evidence).unwrap()
    }

    #[test]
    fn a_document_grows_with_the_number_of_rows_and_says_the_same() {
        let (mut long, mut longer) = (chain(50), chain(100));
        let original = longer.results.clone();
        long.seal();
        longer.seal();
        assert!(longer.results.iter().all(|result| result.rows.len() == 1));
        // The ids in `chain` alone are written more than once.
        let rows = |evidence: &CheckDocument| serde_json::to_string(&evidence.ancestors).unwrap().len();
        assert!(rows(&longer) < 5 * rows(&long) / 2, "{} {}", rows(&long), rows(&longer));
        let read = CheckDocument::parse(text(&longer).as_bytes()).unwrap();
        assert_eq!(read.into_results(|_| true).collect::<Vec<_>>(), original);
    }

    #[test]
    fn a_document_of_an_older_version_is_read() {
        let mut old = chain(3);
        old.sha256 = old.digest();
        let text = text(&old);
        assert!(!text.contains("ancestors") && !text.contains("listing"), "{text}");
        let read = CheckDocument::parse(text.as_bytes()).unwrap();
        assert_eq!(read.into_results(|_| true).collect::<Vec<_>>(), old.results);
    }

    #[test]
    fn two_images_of_a_row_are_both_kept() {
        let mut evidence = chain(3);
        let other = evidence.results.last_mut().and_then(|result| result.rows.last_mut()).unwrap();
        other.columns.insert("num_dependent_backups".into(), 5.into());
        let original = evidence.results.clone();
        evidence.seal();
        let read = CheckDocument::parse(text(&evidence).as_bytes()).unwrap();
        assert_eq!(read.into_results(|_| true).collect::<Vec<_>>(), original);
    }

    #[test]
    fn a_document_without_all_of_its_rows_is_none() {
        let mut evidence = chain(3);
        evidence.seal();
        evidence.ancestors.pop();
        evidence.sha256 = evidence.digest();
        assert!(matches!(CheckDocument::parse(text(&evidence).as_bytes()), Err(CheckDocumentError::NotACheckDocument(_))));
    }

    /// A look at so much past 11 o'clock.
    fn look(minute: u32, level: Level, verdict: CheckVerdict) -> CheckResult {
        let result = chain(2).results.pop().unwrap();
        let listing = Some(crate::domain::Listing { objects: 5, bytes: 100 });
        let newest_object_at = Some("2026-11-22T10:00:00Z".to_owned());
        CheckResult { level, verdict, listing, newest_object_at, checked_at: format!("2026-11-22T11:{minute:02}:00Z"), ..result }
    }

    /// The verdict that counts, and whether somebody is at work, in whatever order the looks come.
    #[track_caller]
    fn counts(looks: &[CheckResult]) -> (CheckVerdict, bool) {
        let of = |looks: Vec<CheckResult>| merge(looks).into_values().map(|result| (result.verdict, result.busy)).collect::<Vec<_>>();
        let one = of(looks.to_vec());
        assert_eq!(of(looks.iter().rev().cloned().collect()), one);
        one.first().copied().unwrap()
    }

    #[test]
    fn what_is_intact_as_deep_as_the_damage_was_seen_takes_it_back() {
        use CheckVerdict::{Corrupt, Intact, Missing, Unverifiable};
        // In Ceph: looked for in the wrong pool, and then in the right one, which keeps no digest.
        let wrong_pool = look(1, Level::Quick, Missing);
        let right_pool = CheckResult { level_reached: Some(Level::Quick), ..look(2, Level::Deep, Unverifiable) };
        assert_eq!(counts(&[wrong_pool.clone(), right_pool.clone()]), (Unverifiable, false));
        assert_eq!(counts(&[wrong_pool, look(2, Level::Deep, Unverifiable)]), (Missing, false), "nobody knows how far it is intact");
        assert_eq!(counts(&[look(1, Level::Deep, Corrupt), right_pool]), (Corrupt, false), "not as deep as that");
        let sample = CheckResult { partial: true, level_reached: Some(Level::Quick), ..look(2, Level::Deep, Intact) };
        assert_eq!(counts(&[look(1, Level::Deep, Corrupt), sample]), (Corrupt, false));
    }

    #[test]
    fn damage_is_not_forgotten_for_work_that_wrote_nothing() {
        use CheckVerdict::{Corrupt, Intact};
        let deep = look(1, Level::Deep, Corrupt);
        let busy = CheckResult { busy: true, ..look(2, Level::Quick, Intact) };
        let quick = look(3, Level::Quick, Intact);
        // Who is at work is not disturbed, whatever is known.
        assert_eq!(counts(&[deep.clone(), busy.clone()]), (Intact, true));
        assert_eq!(counts(&[deep.clone(), busy.clone(), busy.clone(), quick.clone()]), (Corrupt, false));
        // A watcher, or an object that was young by a longer `--settle` than it was checked with.
        let young = CheckResult { busy: true, ..deep.clone() };
        assert_eq!(counts(&[young.clone(), quick.clone()]), (Corrupt, false));
        let written = CheckResult { newest_object_at: Some("2026-11-22T11:02:00Z".to_owned()), ..quick.clone() };
        assert_eq!(counts(&[deep.clone(), busy.clone(), written.clone()]), (Intact, false));
        assert_eq!(counts(&[young, written]), (Intact, false));
        assert_eq!(counts(&[deep, busy, look(3, Level::Deep, Intact), look(4, Level::Quick, Intact)]), (Intact, false));
    }
}
