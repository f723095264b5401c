//! `apply`

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;

use crate::cli::carry_out::{Assignment, ExecutionArgs, carry_out};
use crate::cli::context::Context;
use crate::cli::error::{Error, Result};
use crate::cli::exit::Exit;
use crate::plan::Plan;

/// Plans are read into memory; what is larger than this is none.
const MAX_PLAN_BYTES: u64 = 1 << 28;

/// Applies exactly one plan, once. A row that changed since the plan was made is left alone and reported.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The plan file
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// How.
    #[command(flatten)]
    pub execution: ExecutionArgs,
}

/// Runs `apply`.
pub fn run(context: &Context<'_>, args: &ApplyArgs) -> Result<Exit> {
    let plan = read(&args.plan)?;
    if !args.execution.yes && !args.execution.dry_run && !context.ui.can_ask() {
        return Err(Error::usage("nobody can be asked here, so nothing was changed")
            .hint("give --yes to change without a question, or --dry-run to look"));
    }
    let mut connected = context.connect()?;
    let assignment =
        Assignment { command: "apply", plan, execution: &args.execution, refused: Vec::new(), max_changes: args.execution.max_changes };
    carry_out(context, &mut connected, assignment)
}

fn read(path: &std::path::Path) -> Result<Plan> {
    let shown = path.display();
    let mut text = Vec::new();
    // A device or a pipe tells no size beforehand.
    let size = File::open(path)
        .and_then(|file| file.take(MAX_PLAN_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| Error::usage(format!("cannot read the plan {shown}: {error}")))?;
    if u64::try_from(size).is_ok_and(|size| size > MAX_PLAN_BYTES) {
        return Err(Error::usage(format!("{shown} has more than {MAX_PLAN_BYTES} bytes, which no plan has")));
    }
    if text.is_empty() {
        return Err(Error::usage(format!("the plan {shown} is empty: whatever wrote it did not finish; make a new plan")));
    }
    Plan::parse(&text).map_err(|error| {
        let edge = Error::from(error);
        Error { error: anyhow::anyhow!("{shown} {:#}; nothing was changed", edge.error), ..edge }
    })
}
