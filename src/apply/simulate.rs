//! The units of a plan as the units before them will leave their rows.
//!
//! In a plan each unit is as if it were alone: two increments of one parent both move its counter from where it is now. The
//! executor decides over each again when its turn has come. Where nobody does, as in a script for the server's own client, the
//! same is worked out beforehand: rows are as the units before leave them, and counters are counted from there.

use std::collections::BTreeSet;
use std::io;

use super::recheck::rebased;
use super::reconcile::intended;
use super::writes::statements;
use super::written::{SharedRows, Written};
use crate::audit::record::StatementText;
use crate::db::Engine;
use crate::domain::status::{AVAILABLE, RESTORING};
use crate::domain::{Change, ColumnSet, FindingKind, Image, Table, Value};
use crate::plan::Unit;
use crate::scan::Census;
use crate::spool::Spool;

/// What becomes of a unit after those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimulatedOutcome {
    Runs,
    /// The units before it have already repaired its row.
    Unneeded,
    /// A further row would have to change with it, and the unit does not change that row.
    Incomplete,
}

/// A unit as it will be if all units before it were applied.
#[derive(Debug, Clone)]
pub struct SimulatedUnit {
    /// Whether it is executed at all.
    pub outcome: SimulatedOutcome,
    /// The rows that it changes, as the units before have left them.
    pub before: Vec<Image>,
    /// The changes; they differ from the plan's in counters alone.
    pub changes: Vec<Change>,
    /// Those of the rows that a unit before has written. When that was, only the database knows: `before` has no
    /// `updated_at` of theirs.
    pub written: BTreeSet<(Table, String)>,
}

/// Simulates the units of a repair, in the order of the plan. `census` is the one that the plan was made with. Keeps only rows that more
/// than one unit needs.
pub fn simulate(units: &Spool<Unit>, census: &Census) -> io::Result<impl Iterator<Item = io::Result<(SimulatedUnit, Unit)>>> {
    let mut run = Written::of_shared(SharedRows::of_images(units)?);
    Ok(units.iter().map(move |unit| {
        let unit = unit?;
        let simulated = next(&unit, &run, census);
        if simulated.outcome == SimulatedOutcome::Runs {
            run.record(&simulated.before, &intended(&simulated.before, &simulated.changes));
        }
        Ok((simulated, unit))
    }))
}

fn next(unit: &Unit, run: &Written, census: &Census) -> SimulatedUnit {
    let key = |image: &Image| (image.table, image.id.clone());
    let before: Vec<Image> = unit.before.iter().map(|image| run.rows.get(&key(image)).unwrap_or(image).clone()).collect();
    let written = before.iter().map(key).filter(|row| run.rows.contains_key(row)).collect();
    let recorded = |parent: &str| Image::of(&before, Table::Backups, parent);
    let changes: Vec<Change> = rebased(&unit.changes, &before)
        .iter()
        .filter_map(|change| {
            if change.column != "num_dependent_backups" {
                return Some(change.clone());
            }
            let from = recorded(&change.id).map_or(&Value::Null, |image| image.value(&change.column));
            let right = count(unit, &change.id, from.as_integer().unwrap_or(0), run, census)?;
            Some(Change { from: from.clone(), to: right.into(), ..change.clone() })
        })
        .collect();
    let outcome = if changes.is_empty() {
        SimulatedOutcome::Unneeded
    } else if counts_for_more(unit, run, census) {
        SimulatedOutcome::Incomplete
    } else {
        SimulatedOutcome::Runs
    };
    SimulatedUnit { outcome, before, changes, written }
}

/// What a backup's counter has to become with this unit; `None` where it can stay as it is.
fn count(unit: &Unit, parent: &str, recorded: i64, run: &Written, census: &Census) -> Option<i64> {
    let mut children = run.children(census, parent);
    let own = unit.changes.iter().find(|change| change.id == unit.id && change.column == "status");
    if let Some(status) = own.filter(|_| unit.id != parent) {
        children.remove(status.from.as_text());
        children.add(status.to.as_text());
    }
    let right = children.nearest(recorded);
    (right != recorded).then_some(right)
}

/// Whether a backup that becomes available moves its parent's counter by then, although it did not when the plan was made: a
/// counter that was too high was right for the first of two increments, and is too low for the second.
fn counts_for_more(unit: &Unit, run: &Written, census: &Census) -> bool {
    let own = Image::of(&unit.before, Table::Backups, &unit.id);
    let Some(parent) = own.and_then(|image| image.value("parent_id").as_text()) else { return false };
    let becomes = |change: &Change| {
        change.id == unit.id
            && change.column == "status"
            && change.to.as_text() == Some(AVAILABLE)
            && change.from.as_text() != Some(RESTORING)
    };
    let counted = unit.changes.iter().any(|change| change.id == parent && change.column == "num_dependent_backups");
    if unit.kind != FindingKind::Backup || counted || !unit.changes.iter().any(becomes) {
        return false;
    }
    let moved = run.rows.get(&(Table::Backups, parent.to_owned())).map(|image| image.value("num_dependent_backups").as_integer());
    let recorded = moved.map_or_else(|| census.recorded(parent), |now| Some(now.unwrap_or(0)));
    // A parent that is gone has no counter.
    recorded.is_some_and(|recorded| count(unit, parent, recorded, run, census).is_some())
}

impl SimulatedUnit {
    /// Its guarded UPDATEs with the values in place, each with its row. `since` gives the expression for the `updated_at` of a
    /// row that a unit before has written.
    pub fn statements(
        &self,
        columns: ColumnSet,
        engine: Engine,
        since: &dyn Fn(Table, &str) -> String,
    ) -> Vec<((Table, &str), StatementText)> {
        let since = |table: Table, id: &str| self.written.contains(&(table, id.to_owned())).then(|| since(table, id));
        statements(&self.before, &self.changes, columns, engine, None, &since)
    }
}
