//! The commands: one file each with its arguments, whose comments are its help, and one function.

pub mod apply;
pub mod check;
pub mod completions;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod history;
pub mod plan;
pub mod repair;
pub mod rescue;
pub mod scan;
pub mod schema;
pub mod scrub;
pub mod undo;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

use super::args::Global;
use super::{Context, Error, Exit, Monitor, Result, Ui, help};
use crate::config::Environment;

/// Finds OpenStack Cinder backups that are stuck in creating, restoring or deleting, explains why, and repairs them directly in
/// the database: guarded, recorded, undoable. Needs no API, no message bus and no cinder-backup.
#[derive(Debug, Parser)]
#[command(name = "cinder-backup-repair", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Only apply, repair and undo write, and only after a typed confirmation or --yes.")]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List what is stuck or inconsistent, with evidence and proposed changes
    Scan(scan::ScanArgs),
    /// Show what is known about one backup, and what a repair can make of it; changes nothing
    Explain(explain::ExplainArgs),
    /// Verify the data of backups on their storage; changes nothing
    Check(check::CheckCommandArgs),
    /// Write a plan, and a report or a script of it; changes nothing
    Plan(plan::PlanArgs),
    /// Apply one plan, once
    Apply(apply::ApplyArgs),
    /// Scan, plan, confirm and apply in one step
    Repair(repair::RepairArgs),
    /// Restore the rows that a run changed, unless they were changed since
    Undo(undo::UndoArgs),
    /// Find backups on the storage that the database lost, and print what an import needs; changes nothing
    Rescue(rescue::RescueArgs),
    /// Verify all restore points in turn, and record each result in a ledger
    Scrub(scrub::ScrubArgs),
    /// Read the audit log: what was changed, by whom, and how it ended
    History(history::HistoryArgs),
    /// Examine what a repair depends on: database, privileges, heartbeats, storage, audit log; changes nothing
    Doctor(doctor::DoctorArgs),
    /// Show the settings that would be used, and where each was found
    Config(config::ConfigArgs),
    /// Print the JSON Schema of a document that this program writes
    Schema(schema::SchemaArgs),
    /// Build a small Cinder database and walk through a repair
    Demo(demo::DemoArgs),
    /// Write a shell's completion script to standard output
    Completions(completions::CompletionsArgs),
    /// Write the manual page to standard output
    Man(completions::ManArgs),
}

impl Command {
    /// The run, as monitoring sees it.
    pub(super) fn monitor(&self) -> Monitor {
        let (name, args) = match self {
            Self::Scan(args) => ("scan".to_owned(), &args.monitor),
            // A quick check every night and a deep one every month are different series.
            Self::Check(args) if args.command.is_none() => (format!("check-{}", args.level), &args.monitor),
            Self::Scrub(scrub::ScrubArgs { command: scrub::ScrubCommand::Run(args) }) => ("scrub-run".to_owned(), &args.monitor),
            Self::Scrub(scrub::ScrubArgs { command: scrub::ScrubCommand::Status(args) }) => ("scrub-status".to_owned(), &args.monitor),
            Self::Doctor(args) => ("doctor".to_owned(), &args.monitor),
            _ => return Monitor::none(),
        };
        Monitor::new(name, args.clone())
    }

    /// Whether the command can write its result as JSON lines.
    fn has_stream(&self) -> bool {
        matches!(self, Self::Scan(_) | Self::Check(_) | Self::Plan(_) | Self::Apply(_) | Self::Repair(_) | Self::Undo(_) | Self::Rescue(_))
    }
}

/// Refuses `--format jsonl` for a command without a stream, and with options that need all rows at once.
fn check_stream(context: &Context<'_>, command: &Command) -> Result<()> {
    let output = &context.global.output.options;
    let problem = match () {
        () if !command.has_stream() => "this command does not write JSON lines: use --format json",
        () if !output.columns.is_empty() => "--column cannot be used with --format jsonl, whose records are always complete",
        () if !output.sort_columns.is_empty() => {
            "--sort-column cannot be used with --format jsonl, whose records are written as they are made"
        }
        () => return Ok(()),
    };
    Err(Error::usage(problem))
}

pub fn run(context: &Context<'_>, command: &Command) -> Result<Exit> {
    if context.ui.is_stream() {
        check_stream(context, command)?;
    }
    match command {
        Command::Scan(args) => scan::run(context, args),
        Command::Explain(args) => explain::run(context, args),
        Command::Check(args) => check::run(context, args),
        Command::Plan(args) => plan::run(context, args),
        Command::Apply(args) => apply::run(context, args),
        Command::Repair(args) => repair::run(context, args),
        Command::Undo(args) => undo::run(context, args),
        Command::Rescue(args) => rescue::run(context, args),
        Command::Scrub(args) => scrub::run(context, args),
        Command::History(args) => history::run(context, args),
        Command::Doctor(args) => doctor::run(context, args),
        Command::Config(args) => config::run(context, args),
        Command::Schema(args) => schema::run(context, args),
        Command::Demo(args) => demo::run(context, args, &inner),
        Command::Completions(args) => completions::completions(context, args, help::complete(Cli::command())),
        Command::Man(args) => completions::man(context, args, help::complete(Cli::command())),
    }
}

/// Runs a command line inside of another command, after `adjust` has changed its shared options; `muted` prints nothing.
fn inner(words: Vec<OsString>, environment: &Environment, muted: bool, adjust: &dyn Fn(&mut Global)) -> Result<Exit> {
    let mut cli = Cli::try_parse_from(words).map_err(|error| Error::new(Exit::Unexpected, error))?;
    adjust(&mut cli.global);
    let ui = Ui::inner(&cli.global.output, muted);
    let context = Context { ui: &ui, global: &cli.global, environment, monitor: &Monitor::none() };
    run(&context, &cli.command).inspect_err(|error| ui.error(&format!("{:#}", error.error), error.hint.as_deref()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::domain::NULL;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_status_of_null_has_the_names_that_results_give_it() {
        let statuses = |status: &str| {
            let cli = Cli::try_parse_from(["cinder-backup-repair", "scan", "--status", status]).unwrap();
            let Command::Scan(args) = cli.command else { return None };
            args.selection.selection(&[]).ok().map(|selection| selection.statuses.into_iter().collect::<Vec<_>>())
        };
        for spelling in ["null", "NULL", "None", "none"] {
            assert_eq!(statuses(spelling), Some(vec![NULL.to_owned()]), "{spelling}");
        }
        assert_eq!(statuses("Creating"), Some(vec!["creating".to_owned()]));
        assert_eq!(statuses("nothing"), None);
    }
}
