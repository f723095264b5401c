//! `scan`

use clap::Args;

use crate::cli::args::{DecisionArgs, SelectionArgs};
use crate::cli::{Context, Exit, ProgressDisplay, Result, sentences, view};
use crate::scan::KeptRows;
use crate::workflow::{Refused, find, passed_over};

/// Lists what is stuck or inconsistent, with the evidence and the proposed change. Changes nothing.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// Ids or names of backups; `-` reads ids from standard input [default: all that are stuck or inconsistent]
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub decision: DecisionArgs,
    /// End with exit code 3 if there are findings
    #[arg(long)]
    pub detailed_exitcode: bool,
}

pub fn run(context: &Context<'_>, args: &ScanArgs) -> Result<Exit> {
    let ui = context.ui;
    let selection = args.selection.selection(&args.backups)?;
    ui.check_columns(|| view::findings(&[]))?;
    let mut database = context.connect()?;
    let wanted = context.wanted(&args.selection, selection, &args.decision, &database)?;
    let kept = if ui.is_document() { KeptRows::Chains } else { KeptRows::None };
    let scan = find(&mut database, &wanted, kept, &ProgressDisplay::new(ui))?;
    let document = &scan.document;
    // A backup that was named must not look in order only because nothing is stuck.
    let found = document.findings.iter().map(|finding| finding.id.clone()).collect();
    for Refused { id, reason, .. } in passed_over(&scan, &wanted.selection, &found) {
        ui.say(format!("{id}: {reason}"));
    }
    ui.result(document, "findings", || view::findings(&document.findings))?;
    if ui.is_table() {
        for notice in &document.notices {
            ui.warn(&notice.text);
            for command in &notice.follow_up {
                ui.say_command(format!("  {command}"));
            }
        }
        let (summary, live) = (sentences::scan(document, &wanted.selection), scan.census.live);
        ui.say(format!("{summary} (of {live} live backups in {})", database.location));
    }
    Ok(if args.detailed_exitcode && !document.findings.is_empty() { Exit::Findings } else { Exit::Done })
}
