//! `undo`

use clap::Args;
use uuid::Uuid;

use crate::apply::{Undo, UndoError, undo_units};
use crate::audit::{UnitHistory, load_run};
use crate::cli::context::Context;
use crate::cli::error::{Error, Result};
use crate::cli::execute::{Assignment, ExecutionArgs, carry_out};
use crate::cli::exit::Exit;
use crate::cli::skipped::Skipped;
use crate::cli::view::Refused;
use crate::domain::Selection;
use crate::plan::{Basis, Plan, Purpose};
use crate::scan::{Reader, database_info, situation};

/// Puts back what a run changed, where nobody has touched it since. It is a run of its own, recorded and undoable.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// The run, or the beginning of its id; see `history list`
    #[arg(value_name = "RUN")]
    pub run: String,
    /// How.
    #[command(flatten)]
    pub execution: ExecutionArgs,
}

/// Runs `undo`.
pub fn run(context: &Context<'_>, args: &UndoArgs) -> Result<Exit> {
    let path = context.existing_audit_log()?;
    let records = load_run(&path, &args.run)?;
    let Undo { units, unknown } = undo_units(&records.run, records.units.values()).map_err(|error| {
        let exit = match &error {
            UndoError::Nothing(_) => Exit::Stale,
            UndoError::Open { .. } | UndoError::Unknown { .. } => Exit::Unknown,
        };
        Error::new(exit, error)
    })?;
    args.execution.check(context.ui)?;
    let refused = unknown.into_iter().map(stays_unknown).collect();
    let mut connected = context.connect()?;
    let here = database_info(connected.session.as_ref(), &connected.schema);
    if here.identity != records.begin.database.identity {
        return Err(Error::new(
            Exit::Stale,
            format!("run {} changed {}, but this is {here}; nothing was changed", records.run, records.begin.database),
        ));
    }
    let now = situation(&mut Reader { session: connected.session.as_mut(), schema: &connected.schema })?;
    let basis = Basis {
        checks: std::collections::BTreeMap::new(),
        id: Uuid::new_v4().to_string(),
        taken_at: crate::domain::time::rfc3339(now.now),
        database: here,
        columns: connected.schema.columns,
        policy: records.begin.policy.clone(),
        selection: Selection::default(),
        services: now.services,
    };
    let plan = Plan::of_units(Purpose::Undo, Some(records.run.clone()), basis, units);
    let assignment = Assignment {
        command: "undo",
        plan,
        execution: &args.execution,
        refused,
        untouched: Skipped::default(),
        max_changes: args.execution.max_changes,
        storage: None,
    };
    carry_out(context, &mut connected, assignment)
}

/// A unit that nobody can put back, because nobody knows whether it was changed.
fn stays_unknown(unit: &UnitHistory) -> Refused {
    let seen = unit.settled.as_ref().map(|settled| settled.reason.as_str()).unwrap_or_default();
    Refused {
        id: unit.intent.id.clone(),
        name: unit.intent.name.clone(),
        reason: format!("whether the run changed it stays unknown ({seen}); compare its rows with `history show` and decide by hand"),
    }
}
