//! Refuses an undo if increments on the backup may have begun since the run.
//!
//! An undo makes no decision, it only restores. But Cinder may make increments on a backup that a run made available, and an increment
//! changes its parent's row only when it is finished, so no guard detects it. The increments are read together with the heartbeats, at most
//! seconds before a unit is executed.

use std::collections::{HashMap, HashSet};

use crate::db::DbError;
use crate::domain::id::key;
use crate::domain::status::{AVAILABLE, CREATING, ERROR};
use crate::domain::time::{parse, seconds_between};
use crate::domain::{Backup, Change, ColumnSet, Table};
use crate::plan::{Plan, Purpose, Unit};
use crate::scan::{Reader, ReferenceColumn, References};

/// How far the clock of an API host may be behind if the backup was `creating`: Cinder starts no increment on such a backup, so none should
/// be older than the run.
const LATE_CLOCK: i64 = 3_600;

/// The backups that must stay available because of increments, with the reason, by id.
pub type NewIncrements = HashMap<String, String>;

/// Finds the backups that must not lose `available`, because increments on them may have begun since the run. Reads `backups` once, because
/// no index leads from a parent to its increments.
pub fn find_new_increments(reader: &mut Reader<'_>, plan: &Plan) -> Result<NewIncrements, DbError> {
    let changes = plan.units.iter().flat_map(|unit| &unit.changes).filter(|change| takes_back(change));
    let changes: HashMap<String, &Change> = changes.map(|change| (key(&change.id).into_owned(), change)).collect();
    if plan.purpose != Purpose::Undo || changes.is_empty() || plan.columns < ColumnSet::Liberty {
        return Ok(NewIncrements::new());
    }
    let mut references = References::default();
    changes.keys().for_each(|id| references.want(ReferenceColumn::Parent, id));
    let increments = references.read(reader)?.backups_with(ReferenceColumn::Parent, changes.keys());
    // What the undo itself restores is older than the run.
    let restored: HashSet<&str> = plan.units.iter().map(|unit| unit.id.as_str()).collect();
    let mut found = NewIncrements::new();
    for child in reader.backups(&increments)? {
        let Some(change) = child.parent_id.as_deref().and_then(|parent| changes.get(key(parent).as_ref())) else { continue };
        if !restored.contains(child.id.as_str()) && may_be_new(&child, change, plan) {
            let why = format!(
                "increment {} (created_at {}) may have been started on backup {} since the run made it available, and would lose its \
                 parent; delete the increment first",
                child.id,
                child.created_at.as_deref().unwrap_or("NULL"),
                change.id
            );
            found.entry(change.id.clone()).or_insert(why);
        }
    }
    Ok(found)
}

/// The reason why a unit must not be executed, if it takes `available` from one of these backups.
pub fn new_increment<'a>(unit: &Unit, found: &'a NewIncrements) -> Option<&'a String> {
    unit.changes.iter().filter(|change| takes_back(change)).find_map(|change| found.get(&change.id))
}

fn takes_back(change: &Change) -> bool {
    let to = change.to.as_text();
    change.table == Table::Backups
        && change.column == "status"
        && change.from.as_text() == Some(AVAILABLE)
        && matches!(to, Some(CREATING | ERROR))
}

/// Whether a child may have begun after the run. Compares its `created_at`, from the clock of an API host, with the time at which the run
/// wrote, from the database's clock. If a time is missing or invalid, the child counts as new.
fn may_be_new(child: &Backup, change: &Change, plan: &Plan) -> bool {
    let down_time = plan.policy.thresholds.service_down_time_seconds;
    // An increment in error does not need its parent.
    let unlikely = change.to.as_text() == Some(CREATING) && child.status.as_deref() != Some(ERROR);
    let late = if unlikely { down_time.max(LATE_CLOCK) } else { down_time };
    let rows = plan.units.iter().flat_map(|unit| &unit.before).filter(|row| row.table == Table::Backups && row.id == change.id);
    let available_since = rows.filter_map(|row| row.value("updated_at").as_text().and_then(parse)).min();
    let Some((since, begun)) = available_since.zip(child.created_at.as_deref().and_then(parse)) else { return true };
    seconds_between(since, begun) >= -late
}
