//! `scan`

use std::collections::HashSet;
use std::io;

use clap::Args;

use crate::cli::args::{DecisionArgs, SelectionArgs};
use crate::cli::{Context, Error, Exit, Measured, MonitorArgs, ProgressDisplay, Result, Ui, sentences, view};
use crate::report::grid::Grid;
use crate::scan::{KeptRows, Scan};
use crate::workflow::{Database, Refused, StreamedScan, Wanted, find, stream_scan, unreported_backups};

/// Lists what is stuck or inconsistent, with the evidence and the proposed change. Changes nothing.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// Ids or names of backups; `-` reads ids from standard input [default: all that are stuck or inconsistent]
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    /// Also list every live backup that --status, --host, --project and --volume select, and its chain, for check --from; needs
    /// --format jsonl
    #[arg(long, conflicts_with = "backups")]
    pub all: bool,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub decision: DecisionArgs,
    /// Also show host, age and evidence in a table; other formats always have them
    #[arg(long)]
    pub long: bool,
    /// End with exit code 3 if there are findings
    #[arg(long)]
    pub detailed_exitcode: bool,
    #[command(flatten)]
    pub monitor: MonitorArgs,
}

pub fn run(context: &Context<'_>, args: &ScanArgs) -> Result<Exit> {
    let ui = context.ui;
    let selection = args.selection.selection(&args.backups)?;
    if args.all && !ui.is_stream() {
        return Err(Error::usage("--all lists every live backup, so it needs --format jsonl"));
    }
    ui.check_columns(view::FINDINGS)?;
    let mut database = context.connect()?;
    let wanted = context.wanted(&args.selection, selection, &args.decision, &database)?;
    if ui.is_stream() {
        return stream(context, args, &mut database, &wanted);
    }
    let kept = if ui.is_document() { KeptRows::Chains } else { KeptRows::None };
    let scan = find(&mut database, &wanted, kept, &ProgressDisplay::new(ui))?;
    context.monitor.measured(Measured::of_scan(&scan, &wanted.policy.thresholds));
    let document = &scan.document;
    if !wanted.selection.backups.is_empty() {
        say_unreported(ui, &scan, &document.findings.iter().map(|finding| Ok(finding?.id)).collect::<io::Result<_>>()?);
    }
    let brief = view::brief_findings();
    let columns = if ui.is_brief_table() && !args.long { &brief } else { view::FINDINGS };
    ui.result(document, "findings", || Grid::try_of(document.findings.iter(), columns))?;
    if ui.is_table() {
        for notice in &document.notices {
            ui.warn(&notice.text);
            for command in &notice.follow_up {
                ui.say_command(format!("  {command}"));
            }
        }
        if columns.len() < view::FINDINGS.len() && !document.findings.is_empty() {
            ui.say("--long also shows host, age and evidence; `cinder-backup-repair explain BACKUP` shows all about one backup");
        }
        let (summary, live) = (sentences::scan(document, &wanted.selection), scan.census.live);
        ui.say(format!("{summary} (of {live} live backups in {})", database.location));
    }
    Ok(if args.detailed_exitcode && !document.findings.is_empty() { Exit::Findings } else { Exit::Done })
}

/// Writes the result as JSON lines.
fn stream(context: &Context<'_>, args: &ScanArgs, database: &mut Database, wanted: &Wanted) -> Result<Exit> {
    let ui = context.ui;
    let StreamedScan { scan, findings, named } = stream_scan(database, wanted, args.all, || ui.stream(), &ProgressDisplay::new(ui))?;
    context.monitor.measured(Measured::of_scan(&scan, &wanted.policy.thresholds));
    say_unreported(ui, &scan, &named);
    Ok(if args.detailed_exitcode && findings > 0 { Exit::Findings } else { Exit::Done })
}

/// Says why named backups have no finding. Otherwise they would seem to be in order only because they are not stuck.
fn say_unreported(ui: &Ui, scan: &Scan, found: &HashSet<String>) {
    for Refused { id, reason, .. } in unreported_backups(scan, &|id| found.contains(id)) {
        ui.say(format!("{id}: {reason}"));
    }
}
