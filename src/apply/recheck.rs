//! Decides again over a unit's rows under lock, and compares the decision with the plan's.
//!
//! Rows are taken in one order everywhere: backups by id, then volumes by id, then snapshots; see [`Table`].

use super::locked_rows::LockedFacts;
use super::written::Written;
use crate::domain::decide::{self, RehostCase};
use crate::domain::{Change, CheckResult, Finding, FindingKind, Image, Moved, Policy, Situation, Table, Value};
use crate::plan::Unit;
use crate::scan::{backup_case, counter_case, snapshot_case, volume_case};

/// What became of a unit's plan.
#[derive(Debug)]
pub enum Recheck {
    /// It is still valid: these are the rows now and the changes to make.
    Valid {
        /// The rows to change, as they are now.
        now: Vec<Image>,
        /// The changes; they differ from the plan's only in what the same run moved.
        changes: Vec<Change>,
    },
    /// A row is not what the plan saw.
    RowsChanged(Vec<Moved>),
    /// The rows are, but the decision would now be another.
    OtherDecision(String),
    /// A service may be working on it.
    Refused(String),
}

/// Decides again over a unit's rows as they are now.
pub fn decide_again(facts: &LockedFacts<'_>, check: Option<&CheckResult>, situation: &Situation, policy: &Policy) -> Option<Finding> {
    let unit = facts.unit;
    match unit.kind {
        // The plan has no counter of a row that another unit changes.
        FindingKind::Backup if unit.counter => decide::counter(&counter_case(facts.backup()?, facts, false), situation, policy),
        FindingKind::Backup => Some(decide::backup(&backup_case(facts.backup()?, check, facts, policy), situation, policy)),
        FindingKind::Volume => {
            let volume = facts.rows.volume(&unit.id).cloned()?;
            decide::left_volume(&volume_case(volume, facts, situation.columns), situation, policy)
        }
        FindingKind::Snapshot => {
            let snapshot = facts.rows.snapshot(&unit.id).cloned()?;
            decide::snapshot(&snapshot_case(snapshot, facts, situation.columns), situation, policy)
        }
        FindingKind::Project => decide::quota(&facts.quota_case(), situation),
        // The drivers were compared for the plan.
        FindingKind::Host => {
            let backup = facts.rows.backup(&unit.id).cloned()?;
            decide::rehost(&RehostCase { backup, service: None, check: None }, situation, policy)
        }
    }
}

/// The changes with those of columns that count based on the rows as they are now: the difference stays.
pub fn rebased(changes: &[Change], now: &[Image]) -> Vec<Change> {
    let rebase = |change: &Change| {
        let counted = Image::of(now, change.table, &change.id).filter(|_| change.table.counts(&change.column))?;
        let from = counted.value(&change.column).as_integer()?;
        let planned = change.to.as_integer()?;
        // Only an undo leads back to a negative number.
        let to = from.saturating_add(planned.saturating_sub(change.from.as_integer()?)).max(planned.min(0));
        Some(Change { from: from.into(), to: to.into(), ..change.clone() })
    };
    changes.iter().map(|change| rebase(change).unwrap_or_else(|| change.clone())).collect()
}

/// Compares a decision made again with the plan's.
pub fn same_decision(unit: &Unit, finding: Option<Finding>, run: &Written) -> Result<Vec<Change>, Recheck> {
    let Some(finding) = finding else {
        if unit.counter || unit.kind == FindingKind::Project {
            let what = if unit.counter { "its counter" } else { "its quota" };
            return Err(Recheck::OtherDecision(format!("{what} may be correct by now: nothing to change")));
        }
        return Err(Recheck::Refused("an operation that explains its status is still pending".to_owned()));
    };
    if !finding.is_actionable() {
        let why = finding.refusal.or_else(|| finding.evidence.into_iter().next().map(|evidence| evidence.text));
        return Err(Recheck::Refused(why.unwrap_or_else(|| "nothing is left to change".to_owned())));
    }
    let changes = finding.proposal.map(|proposal| proposal.changes).unwrap_or_default();
    // The wording of fail_reason may differ (a service that was silent then has been removed since), and a counter that
    // this run itself has moved, or whose children it has changed, is counted from where it is now. What a quota counts is not compared: it
    // may have become right, or 0, by now.
    let essence = |changes: &[Change]| -> Vec<(Table, String, String, Option<Value>)> {
        changes
            .iter()
            .filter(|change| !change.table.counts(&change.column))
            .map(|change| {
                let loose =
                    change.column == "fail_reason" || (change.column == "num_dependent_backups" && run.may_have_moved_counter(&change.id));
                (change.table, change.id.clone(), change.column.clone(), (!loose).then(|| change.to.clone()))
            })
            .collect()
    };
    if essence(&changes) != essence(&unit.changes) {
        return Err(Recheck::OtherDecision(
            "related rows have changed, and the plan's changes are no longer right; make a new plan".to_owned(),
        ));
    }
    let is_planned = |change: &Change| Image::of(&unit.before, change.table, &change.id).is_some();
    if changes.iter().any(|change| change.table.counts(&change.column) && !is_planned(change)) {
        let why = "Cinder has counted again, so a quota that the plan leaves as it is must change, too; make a new plan";
        return Err(Recheck::OtherDecision(why.to_owned()));
    }
    Ok(changes)
}
