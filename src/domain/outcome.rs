//! How each unit of a run ended.

use serde::{Deserialize, Serialize};

use super::rows::Moved;
use super::{Change, Evidence, FindingKind, Image};

/// The truth about one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Committed.
    Applied,
    /// A dry run: it would be applied as things stand.
    Planned,
    /// A row is not what the plan saw; nothing of the unit was written.
    Changed,
    /// A rule forbids it; nothing of the unit was written.
    Refused,
    /// The database would not; nothing of the unit was written.
    Failed,
    /// The connection died during COMMIT and reading again did not settle it.
    Unknown,
    /// The run ended before its turn; nothing of the unit was written.
    #[serde(rename = "not-begun")]
    NotBegun,
}

impl Outcome {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Planned => "planned",
            Self::Changed => "changed",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::NotBegun => "not-begun",
        }
    }
}

/// One unit as it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitResult {
    /// Its number in the plan, from 1.
    pub unit: usize,
    /// What its main row is.
    pub kind: FindingKind,
    /// The main row's id.
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, unless it was applied or planned.
    pub reason: Option<String>,
    /// The columns that were not as the plan saw them.
    pub moved: Vec<Moved>,
    /// What the storage showed just before, where the unit rests on a check of it: `storage-unchanged`, `storage-moved` or
    /// `storage-not-seen-again`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_look: Option<Evidence>,
    /// What was changed, or would have been.
    pub changes: Vec<Change>,
    /// The changed rows afterwards.
    #[serde(skip)]
    pub after: Vec<Image>,
}

/// How many units ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Committed.
    pub applied: usize,
    /// Would be applied.
    pub planned: usize,
    /// Changed meanwhile.
    pub changed: usize,
    /// Forbidden.
    pub refused: usize,
    /// Failed.
    pub failed: usize,
    /// Not known.
    pub unknown: usize,
    /// Not begun, because the run ended first. Absent in the logs of older versions, which counted these as refused.
    #[serde(default)]
    pub not_begun: usize,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, outcome: Outcome) {
        *self.count(outcome) += 1;
    }

    /// Counts one less.
    pub fn remove(&mut self, outcome: Outcome) {
        let count = self.count(outcome);
        *count = count.saturating_sub(1);
    }

    fn count(&mut self, outcome: Outcome) -> &mut usize {
        match outcome {
            Outcome::Applied => &mut self.applied,
            Outcome::Planned => &mut self.planned,
            Outcome::Changed => &mut self.changed,
            Outcome::Refused => &mut self.refused,
            Outcome::Failed => &mut self.failed,
            Outcome::Unknown => &mut self.unknown,
            Outcome::NotBegun => &mut self.not_begun,
        }
    }

    /// How many units are counted.
    pub fn total(&self) -> usize {
        self.applied + self.planned + self.changed + self.refused + self.failed + self.unknown + self.not_begun
    }

    /// Counts all of them.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut tally = Self::default();
        outcomes.into_iter().for_each(|outcome| tally.add(*outcome));
        tally
    }
}
