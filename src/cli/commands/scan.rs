//! `scan`

use clap::Args;

use crate::cli::args::{DecisionArgs, FormatArg, SelectionArgs};
use crate::cli::context::Context;
use crate::cli::error::{Error, Result};
use crate::cli::exit::Exit;
use crate::cli::reading::reading;
use crate::cli::view::Refused;
use crate::cli::{hosts, view};
use crate::domain::{Checks, Selection};
use crate::report::safe::terminal;
use crate::scan::{KeptRows, ScanDocument, ScanRequest, scan};

/// Lists what is stuck or inconsistent, with the evidence and the proposed change. Changes nothing.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// Ids or names of backups; `-` reads ids from standard input [default: all that are stuck or inconsistent]
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    /// Which rows.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// What would be allowed.
    #[command(flatten)]
    pub decision: DecisionArgs,
    /// End with 3 if there are findings
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// Runs `scan`.
pub fn run(context: &Context<'_>, args: &ScanArgs) -> Result<Exit> {
    let backups = super::repair::named(&args.backups)?;
    let selection = args.selection.selection(&backups).map_err(Error::usage)?;
    context.ui.check_columns(&view::findings(&[]))?;
    let mut connected = context.connect()?;
    connected.warn_of_defaults(context.ui, args.selection.service_down_time.is_some());
    let mut policy = args.selection.policy(Some(&args.decision), &connected).map_err(Error::usage)?;
    selection.tell(&mut policy);
    let kept = if matches!(context.global.output.format, FormatArg::Json | FormatArg::Yaml) { KeptRows::Chains } else { KeptRows::None };
    let checks = Checks::new();
    let request = ScanRequest::new(&policy, &selection, kept, &checks);
    let scan = reading(context.ui, || scan(connected.session.as_mut(), &connected.schema, &request))?;
    let document = &scan.document;
    hosts::insist(context.ui, &scan, &selection, &policy, args.selection.allow_empty)?;
    // Whoever named a backup and reads "nothing is stuck" must not take that for its being in order.
    let found = document.findings.iter().map(|finding| finding.id.clone()).collect();
    for Refused { id, reason, .. } in super::repair::passed_over(&scan, &selection, &found) {
        context.ui.say(terminal(&format!("{id}: {reason}")));
    }
    context.ui.result(document, "findings", &view::findings(&document.findings))?;
    if context.ui.is_table() {
        for notice in &document.notices {
            context.ui.warn(terminal(&notice.text));
            for command in &notice.follow_up {
                context.ui.say_command(format!("  {command}"));
            }
        }
        context.ui.say(format!(
            "{} (of {} live backups in {})",
            sentence(document, &selection),
            scan.census.live,
            terminal(&connected.location)
        ));
    }
    Ok(if args.detailed_exitcode && !document.findings.is_empty() { Exit::Findings } else { Exit::Done })
}

/// A summary in words, and how much of it a limit shows. Of what was not asked for it says nothing.
pub fn sentence(document: &ScanDocument, selection: &Selection) -> String {
    let summary = &document.summary;
    let parts: Vec<String> = [
        (summary.stuck, "stuck"),
        (summary.uncertain, "uncertain"),
        (summary.busy, "busy"),
        (summary.recent, "recent"),
        (summary.inconsistent, "inconsistent"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, word)| format!("{number} {word}"))
    .collect();
    if parts.is_empty() {
        let what = if selection.is_all() { "Nothing" } else { "Nothing of what was asked for" };
        return format!("{what} is stuck or inconsistent");
    }
    let (shown, words) = (document.findings.len(), parts.join(", "));
    if document.left_out == 0 { words } else { format!("{words}, of which --limit takes {shown}") }
}
