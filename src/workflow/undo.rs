//! The plan that undoes a run.

use uuid::Uuid;

use super::{Database, Refused, Result};
use crate::apply::Undo;
use crate::audit::{RunRecords, UnitHistory};
use crate::domain::time::rfc3339;
use crate::domain::{Checks, Selection};
use crate::plan::{Basis, Plan, Purpose};
use crate::scan::situation;

/// The plan that undoes a run of this database, and the units that nobody can undo.
pub fn plan_undo(database: &mut Database, records: &RunRecords, undo: Undo<'_>) -> Result<(Plan, Vec<Refused>)> {
    database.require_identity(&format!("run {} changed", records.run), &records.begin.database)?;
    let now = situation(&mut database.reader())?;
    let basis = Basis {
        checks: Checks::new(),
        id: Uuid::new_v4().to_string(),
        taken_at: rfc3339(now.now),
        database: database.info(),
        columns: database.schema.columns,
        policy: records.begin.policy.clone(),
        selection: Selection::default(),
        services: now.services,
    };
    let plan = Plan::of_units(Purpose::Undo, Some(records.run.clone()), basis, undo.units);
    Ok((plan, undo.unknown.into_iter().map(stays_unknown).collect()))
}

/// A unit that nobody can undo, because nobody knows whether it was changed.
fn stays_unknown(unit: &UnitHistory) -> Refused {
    let seen = unit.settled.as_ref().map(|settled| settled.reason.as_str()).unwrap_or_default();
    Refused {
        id: unit.intent.id.clone(),
        name: unit.intent.name.clone(),
        reason: format!("whether the run changed it stays unknown ({seen}); compare its rows with `history show` and decide by hand"),
    }
}
