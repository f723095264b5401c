//! Refuses an undo if increments on the backup may have begun since the run.
//!
//! An undo makes no decision, it only restores. But Cinder may make increments on a backup that a run made available, and an increment
//! changes its parent's row only when it is finished, so no guard detects it.

use crate::db::DbError;
use crate::domain::status::{AVAILABLE, CREATING, ERROR};
use crate::domain::time::{parse, seconds_between};
use crate::domain::{Backup, Change, Table};
use crate::plan::{Plan, Unit};
use crate::scan::Reader;

/// How far the clock of an API host may be behind if the backup was `creating`: Cinder starts no increment on such a backup, so none should
/// be older than the run.
const LATE_CLOCK: i64 = 3_600;

/// The reason why a unit of an undo must not be executed; `None` if no increment on its backup began since the run.
pub fn begun_since(reader: &mut Reader<'_>, plan: &Plan, unit: &Unit) -> Result<Option<String>, DbError> {
    for change in unit.changes.iter().filter(|change| takes_back(change)) {
        let children = reader.children(std::slice::from_ref(&change.id))?;
        if let Some(child) = children.iter().find(|child| may_be_new(child, change, plan)) {
            return Ok(Some(format!(
                "increment {} (created_at {}) may have been started on backup {} since the run made it available, and would lose its \
                 parent; delete the increment first",
                child.id,
                child.created_at.as_deref().unwrap_or("NULL"),
                change.id
            )));
        }
    }
    Ok(None)
}

fn takes_back(change: &Change) -> bool {
    let to = change.to.as_text();
    change.table == Table::Backups
        && change.column == "status"
        && change.from.as_text() == Some(AVAILABLE)
        && matches!(to, Some(CREATING | ERROR))
}

/// Whether a child may have begun after the run. Compares its `created_at`, from the clock of an API host, with the time at which the run
/// wrote, from the database's clock. If one of them is missing or invalid, it may.
fn may_be_new(child: &Backup, change: &Change, plan: &Plan) -> bool {
    // A backup that the undo itself restores is older than the run.
    if plan.units.iter().any(|unit| unit.id == child.id) {
        return false;
    }
    let down_time = plan.policy.thresholds.service_down_time_seconds;
    // An increment in error does not need its parent.
    let unlikely = change.to.as_text() == Some(CREATING) && child.status.as_deref() != Some(ERROR);
    let late = if unlikely { down_time.max(LATE_CLOCK) } else { down_time };
    let rows = plan.units.iter().flat_map(|unit| &unit.before).filter(|row| row.table == Table::Backups && row.id == change.id);
    let available_since = rows.filter_map(|row| row.value("updated_at").as_text().and_then(parse)).min();
    let Some((since, begun)) = available_since.zip(child.created_at.as_deref().and_then(parse)) else { return true };
    seconds_between(since, begun) >= -late
}
