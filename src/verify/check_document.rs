//! The document that `check` writes, and that `plan` and `repair` take as evidence.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{Body, CheckResult, CheckVerdict, DatabaseInfo, Image, Level, Sealed, digest};
use crate::spool::Spool;

/// The number of backups with each verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Complete and correct.
    pub intact: usize,
    /// Part of the data is missing.
    pub incomplete: usize,
    /// Part of the data is wrong.
    pub corrupt: usize,
    /// No data exists.
    pub missing: usize,
    /// Not known at the requested level.
    pub unverifiable: usize,
    /// Of the unverifiable ones: those whose disk gives read errors.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unreadable: usize,
    /// Of the unverifiable ones: those known to be intact at level quick, and no deeper.
    #[serde(default, skip_serializing_if = "is_none")]
    pub intact_at_quick: usize,
    /// Of the unverifiable ones: those known to be intact at level deep, and no deeper.
    #[serde(default, skip_serializing_if = "is_none")]
    pub intact_at_deep: usize,
    /// Of the unverifiable ones: those whose storage could not be reached.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unreachable: usize,
    /// Being written, whatever their verdict.
    pub busy: usize,
    /// Not begun when the check was stopped.
    pub left: usize,
    /// Carried over from an earlier check, each with its time (`checked_at`).
    #[serde(default, skip_serializing_if = "is_none")]
    pub carried: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires it")]
pub(super) fn is_none(number: &usize) -> bool {
    *number == 0
}

impl Summary {
    /// Counts one more result.
    pub fn add(&mut self, result: &CheckResult) {
        match result.verdict {
            CheckVerdict::Intact => self.intact += 1,
            CheckVerdict::Incomplete => self.incomplete += 1,
            CheckVerdict::Corrupt => self.corrupt += 1,
            CheckVerdict::Missing => self.missing += 1,
            CheckVerdict::Unverifiable => {
                self.unverifiable += 1;
                self.intact_at_quick += usize::from(result.reached() == Some(Level::Quick));
                self.intact_at_deep += usize::from(result.reached() == Some(Level::Deep));
            }
        }
        self.unreadable += usize::from(result.is_unreadable());
        self.unreachable += usize::from(result.is_unreachable());
        self.busy += usize::from(result.busy);
    }
}

/// The document `cinder-backup-repair/check`.
pub type CheckDocument = Sealed<CheckBody>;

/// The fields of a check document.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(PartialEq))]
#[serde(deny_unknown_fields)]
pub struct CheckBody {
    /// The database that the rows are from.
    pub database: DatabaseInfo,
    /// When the rows were read, RFC 3339, by the database's clock.
    pub taken_at: String,
    /// How deeply the backups were checked.
    pub level: Level,
    /// An object younger than this was a sign that its backup was being written.
    pub settle_seconds: u64,
    /// What stopped the check, if it was stopped: a signal, or `--max-runtime`.
    pub interrupted: Option<String>,
    /// One for each backup.
    pub results: Spool<CheckResult>,
    /// The rows of the ancestors of all results, each once. A result has only its own row, or, in documents of older versions, also those
    /// of its ancestors.
    #[serde(default, skip_serializing_if = "Spool::is_empty")]
    pub ancestors: Spool<Image>,
    /// The number of results with each verdict.
    pub summary: Summary,
}

impl Body for CheckBody {
    const SCHEMA: &'static str = "cinder-backup-repair/check";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = "what `check --format json` writes";
    const INSTEAD: &'static str = "check again instead of editing it";

    fn validate(&self) -> Result<(), String> {
        let number = |id: &str| digest::short(&[id]);
        let ids: io::Result<HashSet<u128>> = self.ancestors.iter().map(|row| Ok(number(&row?.id))).collect();
        let ids = ids.map_err(|error| error.to_string())?;
        for result in &self.results {
            let result = result.map_err(|error| error.to_string())?;
            if result.rows.len() == 1 && result.chain.iter().skip(1).any(|id| !ids.contains(&number(id))) {
                return Err(format!("it lacks rows of backups that {:?} is based on", result.id));
            }
        }
        Ok(())
    }
}

/// Merges results. Of two results of the same backup the later one counts, but a less deep check does not revoke damage: a quick
/// check reads no data.
pub fn merge(all: impl IntoIterator<Item = CheckResult>) -> BTreeMap<String, CheckResult> {
    let mut merged: BTreeMap<String, CheckResult> = BTreeMap::new();
    // Damage that was found before a check saw the backup being written. The next check shows whether anything was written.
    let mut before_work: HashMap<String, CheckResult> = HashMap::new();
    let mut all: Vec<CheckResult> = all.into_iter().collect();
    // Otherwise the result of three checks would depend on the order of the files.
    all.sort_by_cached_key(|result| result.checked_at.parse::<jiff::Timestamp>().ok());
    for later in all {
        let before = before_work.remove(&later.id);
        let was_busy = before.is_some();
        let earlier = before.or_else(|| merged.remove(&later.id)).filter(|earlier| !is_revoked(earlier, &later, was_busy));
        let counts = match earlier {
            Some(earlier) if later.busy => {
                before_work.insert(later.id.clone(), earlier);
                later
            }
            // Nothing is being written any more, and what was read is what was written.
            Some(earlier) => CheckResult { busy: false, ..earlier },
            None => later,
        };
        merged.insert(counts.id.clone(), counts);
    }
    merged
}

/// Whether a later result revokes the damage of an earlier one; `was_busy` if a check in between saw the backup being written.
fn is_revoked(earlier: &CheckResult, later: &CheckResult, was_busy: bool) -> bool {
    // Two samples are of different objects.
    let is_finished = later.verdict != CheckVerdict::Unverifiable && !later.partial && later.level >= earlier.level;
    // A check that did not reach its level still shows how deep the data is intact (Ceph).
    let is_as_deep = is_finished || later.reached() >= Some(earlier.level);
    // A backup that was being written, or had another row, may have been completed.
    let may_be_written = (was_busy || earlier.busy) && !earlier.is_of_same_listing(later);
    let same = !may_be_written && earlier.is_of_same_data(later);
    !(same && earlier.verdict.is_damage()) || is_as_deep
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{Backup, ColumnSet, SealError};

    /// A chain of this length; with `is_old`, each backup has the rows of all its ancestors, as older versions wrote them.
    fn chain(length: usize, is_old: bool) -> CheckDocument {
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
                "checked_at": "2026-11-22T11:00:00Z", "rows": above.get(..if is_old { above.len() } else { 1 }),
            }))
            .unwrap()
        };
        let body = CheckBody {
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
            results: Spool::of((0..length).map(result)).unwrap(),
            ancestors: if is_old { Spool::default() } else { Spool::of(rows.iter().take(length - 1).cloned()).unwrap() },
            summary: Summary::default(),
        };
        CheckDocument { schema_version: CheckBody::SCHEMA_VERSION, body, sha256: String::new(), signature: None }
    }

    /// The results with all rows of their chains.
    fn results(document: CheckDocument) -> Vec<CheckResult> {
        let mut file = tempfile::tempfile().unwrap();
        serde_json::to_writer(&file, &document).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let stored = crate::verify::StoredResults::read(file, &mut |_| true).unwrap();
        document.results.iter().map(|result| stored.get(&result.unwrap().id, 0).unwrap().unwrap()).collect()
    }

    /// The results as they are written.
    fn written(document: &CheckDocument) -> Vec<CheckResult> {
        document.results.iter().map(Result::unwrap).collect()
    }

    fn text(evidence: &CheckDocument) -> String {
        serde_json::to_string(evidence).unwrap()
    }

    #[test]
    fn a_document_has_each_row_once_and_is_read_with_all() {
        let mut document = chain(50, false);
        document.seal();
        assert!(written(&document).iter().all(|result| result.rows.len() == 1));
        let read = CheckDocument::parse(text(&document).as_bytes()).unwrap();
        assert_eq!(results(read), written(&chain(50, true)));
    }

    #[test]
    fn a_document_of_an_older_version_is_read() {
        let mut old = chain(3, true);
        old.seal();
        let text = text(&old);
        assert!(!text.contains("ancestors") && !text.contains("listing"), "{text}");
        let read = CheckDocument::parse(text.as_bytes()).unwrap();
        assert_eq!(results(read), written(&old));
    }

    #[test]
    fn a_document_of_version_0_1_is_read_and_written_as_it_was() {
        let old = include_str!("../../tests/fixtures/check-0.1.json");
        let read = CheckDocument::parse(old.as_bytes()).unwrap();
        assert!(read.signature.is_some());
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&text(&read)), value(old));
        let sha256 = read.sha256.clone();
        assert_eq!(CheckDocument::new(read.body).sha256, sha256, "byte by byte");
    }

    #[test]
    fn a_document_without_all_of_its_rows_is_refused() {
        let mut evidence = chain(3, false);
        evidence.ancestors.rearrange([0]);
        evidence.seal();
        assert!(matches!(CheckDocument::parse(text(&evidence).as_bytes()), Err(SealError::Invalid { .. })));
    }

    /// A result of this minute past 11 o'clock.
    fn result_at(minute: u32, level: Level, verdict: CheckVerdict) -> CheckResult {
        let result = written(&chain(2, true)).pop().unwrap();
        let listing = Some(crate::domain::Listing { objects: 5, bytes: 100 });
        let newest_object_at = Some("2026-11-22T10:00:00Z".to_owned());
        CheckResult { level, verdict, listing, newest_object_at, checked_at: format!("2026-11-22T11:{minute:02}:00Z"), ..result }
    }

    /// The verdict that counts, and whether the backup is busy, in any order of the results.
    #[track_caller]
    fn counts(results: &[CheckResult]) -> (CheckVerdict, bool) {
        let of = |results: Vec<CheckResult>| merge(results).into_values().map(|result| (result.verdict, result.busy)).collect::<Vec<_>>();
        let one = of(results.to_vec());
        assert_eq!(of(results.iter().rev().cloned().collect()), one);
        one.first().copied().unwrap()
    }

    #[test]
    fn an_intact_result_revokes_damage_that_was_found_at_the_same_level() {
        use CheckVerdict::{Corrupt, Intact, Missing, Unverifiable};
        // In Ceph: checked in the wrong pool, and then in the right one. Ceph has no digests.
        let wrong_pool = result_at(1, Level::Quick, Missing);
        let right_pool = CheckResult { level_reached: Some(Level::Quick), ..result_at(2, Level::Deep, Unverifiable) };
        assert_eq!(counts(&[wrong_pool.clone(), right_pool.clone()]), (Unverifiable, false));
        assert_eq!(
            counts(&[wrong_pool, result_at(2, Level::Deep, Unverifiable)]),
            (Missing, false),
            "it is not known how deep it is intact"
        );
        assert_eq!(counts(&[result_at(1, Level::Deep, Corrupt), right_pool]), (Corrupt, false), "the damage was deeper");
        let sample = CheckResult { partial: true, level_reached: Some(Level::Quick), ..result_at(2, Level::Deep, Intact) };
        assert_eq!(counts(&[result_at(1, Level::Deep, Corrupt), sample]), (Corrupt, false));
    }

    #[test]
    fn damage_is_kept_when_work_in_between_wrote_nothing() {
        use CheckVerdict::{Corrupt, Intact};
        let deep = result_at(1, Level::Deep, Corrupt);
        let busy = CheckResult { busy: true, ..result_at(2, Level::Quick, Intact) };
        let quick = result_at(3, Level::Quick, Intact);
        // A backup that is being written counts as busy, whatever is known.
        assert_eq!(counts(&[deep.clone(), busy.clone()]), (Intact, true));
        assert_eq!(counts(&[deep.clone(), busy.clone(), busy.clone(), quick.clone()]), (Corrupt, false));
        // An open image, or an object that was young only by a longer `--settle` than that of the check.
        let young = CheckResult { busy: true, ..deep.clone() };
        assert_eq!(counts(&[young.clone(), quick.clone()]), (Corrupt, false));
        let written = CheckResult { newest_object_at: Some("2026-11-22T11:02:00Z".to_owned()), ..quick.clone() };
        assert_eq!(counts(&[deep.clone(), busy.clone(), written.clone()]), (Intact, false));
        assert_eq!(counts(&[young, written]), (Intact, false));
        assert_eq!(counts(&[deep, busy, result_at(3, Level::Deep, Intact), result_at(4, Level::Quick, Intact)]), (Intact, false));
    }
}
