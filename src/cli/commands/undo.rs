//! `undo`

use clap::Args;

use crate::cli::execute::{ExecutionArgs, PlannedRun, execute};
use crate::cli::{Context, Exit, Result};
use crate::workflow::{Skipped, UndoneRun};

/// Restores the rows that a run changed, unless they were changed since. It is a run too, recorded and undoable.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// The run, or the beginning of its id; see `history list`
    #[arg(value_name = "RUN")]
    pub run: String,
    #[command(flatten)]
    pub execution: ExecutionArgs,
}

pub fn run(context: &Context<'_>, args: &UndoArgs) -> Result<Exit> {
    let undone = UndoneRun::read(&context.existing_audit_log()?, &args.run)?;
    args.execution.check(context.ui)?;
    let mut database = context.connect()?;
    let (plan, refused) = undone.plan(&mut database)?;
    let (skipped, max_changes) = (Skipped::default(), args.execution.max_changes);
    let planned = PlannedRun { command: "undo", plan, execution: &args.execution, refused, skipped, max_changes, storage: None };
    execute(context, &mut database, &planned)
}
