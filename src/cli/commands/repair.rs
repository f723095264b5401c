//! `repair`

use clap::Args;

use crate::cli::execute::{ExecutionArgs, PlannedRun, execute, require_log};
use crate::cli::follow_up::FollowUpArgs;
use crate::cli::proposal::{ProposalArgs, propose};
use crate::cli::{Context, Exit, Result, prompt, sentences};
use crate::domain::text::count;
use crate::domain::{FindingKind, Selection};
use crate::workflow::{Database, ProposedPlan};

/// How many units `--yes` changes at most without `--max-changes`.
const MAX_CHANGES_WITH_YES: usize = 25;
/// How many findings without a change are listed before a question; of more, only their number is said.
const MOST_SKIPPED: usize = 10;

/// Scans, plans, confirms and applies in one step. At a terminal you choose the units, see the exact changes, and confirm by typing
/// the number of rows.
#[derive(Debug, Args)]
pub struct RepairArgs {
    #[command(flatten)]
    pub proposal: ProposalArgs,
    #[command(flatten)]
    pub execution: ExecutionArgs,
    #[command(flatten)]
    pub follow_up: FollowUpArgs,
}

pub fn run(context: &Context<'_>, args: &RepairArgs) -> Result<Exit> {
    let (selection, checks) = (args.proposal.selection()?, &args.proposal.checks);
    args.execution.check(context.ui)?;
    let mut database = context.connect()?;
    let wanted = args.proposal.wanted(context, selection, &database)?;
    if checks.check.is_some() && !args.execution.dry_run {
        // Before a check that may take hours, not after it.
        database.require_writable(&wanted.policy)?;
        require_log(context)?;
    }
    let mut proposal = propose(context, &mut database, &wanted, checks)?;
    if args.execution.asks() {
        choose(context, &mut database, &mut proposal, &wanted.selection)?;
    }
    let ProposedPlan { plan, refused, skipped, scan, .. } = proposal;
    // The run counts the backups again.
    drop(scan);
    let max_changes = args.execution.max_changes.or((args.execution.yes && !args.execution.dry_run).then_some(MAX_CHANGES_WITH_YES));
    let storage = Some(&checks.storage.place);
    let (execution, follow_up) = (&args.execution, args.follow_up.follow_up.as_ref());
    let planned = PlannedRun { command: "repair", plan, execution, refused, skipped, max_changes, storage, follow_up };
    execute(context, &mut database, &planned)
}

/// Shows what was found, and lets a person choose the units to change.
fn choose(context: &Context<'_>, database: &mut Database, proposal: &mut ProposedPlan<'_>, selection: &Selection) -> Result<()> {
    let ui = context.ui;
    let document = &proposal.scan.document;
    ui.say(format!("{} in {}", sentences::scan(document, selection), database.location));
    if proposal.others.len() > MOST_SKIPPED {
        sentences::say_skipped(ui, &proposal.skipped)?;
    } else {
        for finding in &proposal.others {
            let finding = finding?;
            let why = finding.refusal.as_deref().or(finding.evidence.first().map(|evidence| evidence.text.as_str())).unwrap_or("");
            ui.say(format!("  skipped: {} {} is {}: {why}", finding.kind, finding.id, finding.verdict));
        }
    }
    if !proposal.plan.units.is_empty() {
        database.require_writable(&proposal.plan.policy)?;
        require_log(context)?;
    }
    if let [unit] = proposal.plan.units.read(0..2)?.as_slice() {
        // A project has no status.
        let status = (unit.kind != FindingKind::Project).then(|| format!(" is {}", unit.status.as_deref().unwrap_or("NULL")));
        let why: Vec<&str> = unit.evidence.iter().map(|evidence| evidence.text.as_str()).collect();
        ui.show(format!("  {}{}: {}", unit.title(), status.unwrap_or_default(), why.join("; ")));
    } else if !proposal.plan.units.is_empty() {
        // What was named was chosen already.
        let chosen = prompt::choose(ui, &proposal.plan, &database.location, !selection.backups.is_empty())?;
        let gone = proposal.narrow(database, &chosen)?;
        if gone > 0 {
            ui.warn(format!("{} that you chose can no longer be repaired", count(gone, "unit")));
        }
    }
    Ok(())
}
