//! The plan that undoes a run.

use std::path::Path;

use uuid::Uuid;

use super::{Database, Error, Refused, Result};
use crate::apply::{Undo, UndoUnits};
use crate::audit::{RunHead, UnitHistory, read_run};
use crate::domain::time::rfc3339;
use crate::domain::{Checks, Selection};
use crate::plan::{Basis, Plan, Purpose};
use crate::scan::situation;
use crate::spool::Spool;

/// A run, and what can be restored of it.
#[derive(Debug)]
pub struct UndoneRun {
    head: RunHead,
    undo: Undo,
}

impl UndoneRun {
    /// Reads a run from the audit log.
    pub fn read(log: &Path, run: &str) -> Result<Self> {
        let mut units = UndoUnits::default();
        let head = read_run::<Error>(log, run, &mut |unit| Ok(units.add(unit)?))?;
        let undo = units.finish(&head.run)?;
        Ok(Self { head, undo })
    }

    /// The plan that undoes it in this database, and the units that nobody can undo.
    pub fn plan(self, database: &mut Database) -> Result<(Plan, Spool<Refused>)> {
        let Self { head: RunHead { run, begin }, undo } = self;
        database.require_identity(&format!("run {run} changed"), &begin.database)?;
        let now = situation(&mut database.reader())?;
        let basis = Basis {
            checks: Checks::new(),
            id: Uuid::new_v4().to_string(),
            taken_at: rfc3339(now.now),
            database: database.info(),
            columns: database.schema.columns,
            policy: begin.policy,
            selection: Selection::default(),
            services: now.services,
        };
        let units = undo.units(&run)?;
        let plan = Plan::of_units(Purpose::Undo, Some(run), basis, units)?;
        Ok((plan, Spool::of(undo.unknown.iter().map(stays_unknown))?))
    }
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
