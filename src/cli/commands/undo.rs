//! `undo`

use std::path::Path;

use clap::Args;

use crate::audit::runs;
use crate::cli::execute::{ExecutionArgs, PlannedRun, execute};
use crate::cli::{Context, Error, Exit, Result};
use crate::workflow::{Skipped, UndoneRun};

/// Restores the rows that a run changed, unless they were changed since. It is a run too, recorded and undoable.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// The run, or the beginning of its id; see `history list`. `last` is the newest run in the audit log
    #[arg(value_name = "RUN")]
    pub run: String,
    #[command(flatten)]
    pub execution: ExecutionArgs,
}

pub fn run(context: &Context<'_>, args: &UndoArgs) -> Result<Exit> {
    let log = context.existing_audit_log()?;
    let run = if args.run == "last" { last_run(context, &log)? } else { args.run.clone() };
    let undone = UndoneRun::read(&log, &run)?;
    args.execution.check(context.ui)?;
    let mut database = context.connect()?;
    let (plan, refused) = undone.plan(&mut database)?;
    let (skipped, max_changes) = (Skipped::default(), args.execution.max_changes);
    let planned =
        PlannedRun { command: "undo", plan, execution: &args.execution, refused, skipped, max_changes, storage: None, follow_up: None };
    execute(context, &mut database, &planned)
}

/// The newest run, which is named before anything else is said.
fn last_run(context: &Context<'_>, log: &Path) -> Result<String> {
    let found = runs(log)?;
    // A run behind the damage could be newer.
    if let Some(damage) = found.damage {
        return Err(damage.into());
    }
    let Some(last) = found.runs.last() else {
        return Err(Error::usage(format!("the audit log {} has no run", log.display())));
    };
    context.ui.say(format!("The last run is {}, by {} at {}.", last.run, last.begin.command, last.at));
    Ok(last.run.clone())
}
