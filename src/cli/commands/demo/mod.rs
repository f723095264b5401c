//! `demo`

mod stage;
mod store;
#[cfg(test)]
mod tests;
mod walk;

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Global;
use crate::cli::context::RunCommand;
use crate::cli::{Context, Error, Exit, Result, prompt};
use crate::report::grid::{Format, Quote};

use stage::Stage;

/// Builds a small Cinder database (SQLite) with a backup storage, and walks through a repair: scan, plan with a check, dry run, apply,
/// history, undo.
///
/// Works on files of its own in a temporary folder, needs no other software, and touches no other database, configuration or
/// audit log. Ends with exit code 1 if a step has another result than expected.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the files in this directory, which must not exist yet or be empty
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Show everything that the program can do, not only the main job
    #[arg(long)]
    pub all: bool,
    /// Wait for Enter before each command
    #[arg(long)]
    pub step: bool,
}

/// Runs `demo`.
pub fn run(context: &Context<'_>, args: &DemoArgs, command: &RunCommand) -> Result<Exit> {
    if let Some(option) = meaningless(context.global) {
        return Err(Error::usage(format!("{option} has no effect on demo, which has its own database and audit log: omit it")));
    }
    if args.step {
        prompt::insist_on_terminal(context.ui)?;
    }
    let stage = Stage::build(args.keep.as_deref())?;
    let walked = walk::walk(context, args, &stage, command);
    let folder = stage.folder.display().to_string();
    // Even if a step failed, the temporary folder is removed and the one to keep stays.
    let removed = stage.close();
    let exit = walked?;
    removed.map_err(|error| Error::new(Exit::Unexpected, format!("cannot remove the temporary folder {folder}: {error}")))?;
    Ok(exit)
}

/// A shared option that was given and would be ignored.
fn meaningless(global: &Global) -> Option<&'static str> {
    let (database, output, record) = (&global.database.flags, &global.output.options, &global.record);
    let given = [
        (database.database_url.is_some(), "--database-url"),
        (!database.config_files.is_empty(), "--config-file"),
        (!database.config_dirs.is_empty(), "--config-dir"),
        (database.password_file.is_some(), "--password-file"),
        (output.format != Format::Table, "--format"),
        (!output.columns.is_empty(), "--column"),
        (!output.sort_columns.is_empty(), "--sort-column"),
        (output.sort_ascending || output.sort_descending, "--sort-ascending or --sort-descending"),
        (output.quote != Quote::Nonnumeric, "--quote"),
        (output.max_width.is_some() || output.fit_width, "--max-width or --fit-width"),
        (output.print_empty, "--print-empty"),
        (record.audit_log.is_some(), "--audit-log"),
        (record.reason.is_some(), "--reason"),
        (record.ticket.is_some(), "--ticket"),
    ];
    given.into_iter().find_map(|(is_given, option)| is_given.then_some(option))
}
