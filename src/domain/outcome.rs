//! Outcomes: how the units of a run ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rows::Moved;
use super::{Change, Evidence, FindingKind};

/// How a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Committed.
    Applied,
    /// In a dry run: it would be applied.
    Planned,
    /// A row has changed since the plan; nothing of the unit was written.
    Changed,
    /// A rule forbids it; nothing of the unit was written.
    Refused,
    /// The database reported an error; nothing of the unit was written.
    Failed,
    /// The connection failed during COMMIT, and reading the rows again did not show the outcome.
    Unknown,
    /// The run ended before its turn; nothing of the unit was written.
    #[serde(rename = "not-begun")]
    NotBegun,
}

/// The outcome of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnitResult {
    /// Its number in the plan, from 1.
    pub unit: usize,
    /// The kind of its main row.
    pub kind: FindingKind,
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    pub outcome: Outcome,
    /// Why, unless it was applied or planned.
    pub reason: Option<String>,
    /// The columns that have changed since the plan.
    pub moved: Vec<Moved>,
    /// The storage recheck, if the unit depends on a check: `storage-unchanged`, `storage-moved` or `storage-not-seen-again`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_look: Option<Evidence>,
    /// What was changed, or would be.
    pub changes: Vec<Change>,
}

/// The number of units for each outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    pub applied: usize,
    pub planned: usize,
    /// Changed since the plan.
    pub changed: usize,
    pub refused: usize,
    pub failed: usize,
    pub unknown: usize,
    /// Not begun, because the run ended first. Logs of earlier versions counted these as refused.
    #[serde(default)]
    pub not_begun: usize,
}

impl Tally {
    /// Adds one.
    pub fn add(&mut self, outcome: Outcome) {
        *self.count(outcome) += 1;
    }

    /// Subtracts one.
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

    /// The number of all units.
    pub fn total(&self) -> usize {
        self.applied + self.planned + self.changed + self.refused + self.failed + self.unknown + self.not_begun
    }

    /// Counts outcomes.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut tally = Self::default();
        outcomes.into_iter().for_each(|outcome| tally.add(*outcome));
        tally
    }
}
