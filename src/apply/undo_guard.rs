//! Refuses an undo if increments on the backup may have begun since the run.
//!
//! An undo makes no decision, it only restores. But Cinder may make increments on a backup that a run made available, and an increment
//! changes its parent's row only when it is finished, so no guard detects it. The increments are read together with the heartbeats, at most
//! seconds before a unit is executed.

use std::collections::{HashMap, HashSet};

use jiff::civil::DateTime;

use crate::db::{DbError, ID_BATCH};
use crate::domain::id::key;
use crate::domain::status::{AVAILABLE, CREATING, ERROR};
use crate::domain::time::{parse, seconds_between};
use crate::domain::{Backup, Change, ColumnSet, Table, digest};
use crate::plan::{Plan, Purpose, Unit};
use crate::scan::{CompactIds, Reader, ReferenceColumn, References};

/// How far the clock of an API host may be behind if the backup was `creating`: Cinder starts no increment on such a backup, so none should
/// be older than the run.
const LATE_CLOCK: i64 = 3_600;

/// The backups that must stay available because of increments, with the reason, by id.
pub type NewIncrements = HashMap<String, String>;

/// The backups from which an undo takes `available`.
#[derive(Debug, Default)]
pub struct UndoGuard {
    is_undo: bool,
    /// The backups that lose `available`, by the numbers of the [`key`]s of their ids.
    backups: HashMap<u128, Losing>,
    ids: CompactIds,
    /// The backups that the undo restores, as short digests of their ids: they are older than the run.
    restored: HashSet<u128>,
    /// When the run wrote a backup, by the database's clock and by the short digest of its id.
    written: HashMap<u128, DateTime>,
    down_time: i64,
}

/// A backup that loses `available`.
#[derive(Debug)]
struct Losing {
    /// The number of its id.
    id: u128,
    /// Whether the undo takes it back to `creating`.
    to_creating: bool,
}

impl UndoGuard {
    pub fn of(plan: &Plan) -> Self {
        let is_undo = plan.purpose == Purpose::Undo && plan.columns >= ColumnSet::Liberty;
        Self { is_undo, down_time: plan.policy.thresholds.service_down_time_seconds, ..Self::default() }
    }

    /// Adds a unit of the plan.
    pub fn add(&mut self, unit: &Unit) {
        if !self.is_undo {
            return;
        }
        self.restored.insert(digest::short(&[&unit.id]));
        for change in unit.changes.iter().filter(|change| takes_back(change)) {
            let to_creating = change.to.as_text() == Some(CREATING);
            self.backups.insert(CompactIds::number(&key(&change.id)), Losing { id: self.ids.add(&change.id), to_creating });
        }
        for row in unit.before.iter().filter(|row| row.table == Table::Backups) {
            if let Some(at) = row.value("updated_at").as_text().and_then(parse) {
                let first = self.written.entry(digest::short(&[&row.id])).or_insert(at);
                *first = at.min(*first);
            }
        }
    }

    /// Finds the backups that must not lose `available`, because increments on them may have begun since the run. Reads `backups` once,
    /// because no index leads from a parent to its increments.
    pub fn find_new_increments(&self, reader: &mut Reader<'_>) -> Result<NewIncrements, DbError> {
        if self.backups.is_empty() {
            return Ok(NewIncrements::new());
        }
        let ids = || self.backups.values().map(|backup| self.ids.id(backup.id));
        let mut references = References::default();
        ids().for_each(|id| references.want(ReferenceColumn::Parent, &id));
        references.read(reader)?;
        let mut found = NewIncrements::new();
        for increments in references.backups_with(ReferenceColumn::Parent, ids()).chunks(ID_BATCH) {
            for child in reader.backups(increments)? {
                let parent = child.parent_id.as_deref().map(|parent| CompactIds::number(&key(parent)));
                let Some(backup) = parent.and_then(|parent| self.backups.get(&parent)) else { continue };
                let id = self.ids.id(backup.id);
                if !self.restored.contains(&digest::short(&[&child.id])) && self.may_be_new(&child, &id, backup.to_creating) {
                    let why = format!(
                        "increment {} (created_at {}) may have been started on backup {id} since the run made it available, and would lose \
                         its parent; delete the increment first",
                        child.id,
                        child.created_at.as_deref().unwrap_or("NULL"),
                    );
                    found.entry(id).or_insert(why);
                }
            }
        }
        Ok(found)
    }

    /// Whether a child may have begun after the run. Compares its `created_at`, from the clock of an API host, with the time at which the
    /// run wrote, from the database's clock. If a time is missing or invalid, the child counts as new.
    fn may_be_new(&self, child: &Backup, parent: &str, to_creating: bool) -> bool {
        // An increment in error does not need its parent.
        let unlikely = to_creating && child.status.as_deref() != Some(ERROR);
        let late = if unlikely { self.down_time.max(LATE_CLOCK) } else { self.down_time };
        let available_since = self.written.get(&digest::short(&[parent])).copied();
        let Some((since, begun)) = available_since.zip(child.created_at.as_deref().and_then(parse)) else { return true };
        seconds_between(since, begun) >= -late
    }
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
