//! How `plan` and `repair` come to a plan.

use super::args::{DecisionArgs, SelectionArgs};
use super::storage::CheckArgs;
use super::{Context, ProgressDisplay, Result, sentences};
use crate::domain::text::count;
use crate::domain::time::seconds;
use crate::domain::{Checks, Level, Selection};
use crate::verify::chunked::Share;
use crate::workflow::{Check, Database, ProposedPlan, VerifyKey, Wanted, check_for_decision, read_evidence, unsettled_targets};

/// What `plan` and `repair` propose changes for, and how they decide.
#[derive(Debug, clap::Args)]
pub struct ProposalArgs {
    /// Ids or names of backups; `-` reads ids from standard input [default: all that are stuck]
    #[arg(value_name = "BACKUP")]
    backups: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    decision: DecisionArgs,
    #[command(flatten)]
    pub checks: CheckArgs,
}

impl ProposalArgs {
    /// The rows that are asked for.
    pub fn selection(&self) -> Result<Selection> {
        self.selection.selection(&self.backups)
    }

    /// The same rows, with the rules for them.
    pub fn wanted(&self, context: &Context<'_>, selection: Selection, database: &Database) -> Result<Wanted> {
        let mut wanted = context.wanted(&self.selection, selection, &self.decision, database)?;
        wanted.policy.accept_quick = self.checks.accept_quick;
        wanted.policy.evidence_max_age_seconds = seconds(self.checks.evidence_max_age);
        Ok(wanted)
    }
}

/// Reads evidence, checks the storage with `--check`, and plans.
pub fn propose<'a>(context: &Context<'_>, database: &mut Database, wanted: &'a Wanted, args: &CheckArgs) -> Result<ProposedPlan<'a>> {
    let progress = ProgressDisplay::new(context.ui);
    let checks = gather(context, database, wanted, args, &progress)?;
    let proposal = ProposedPlan::new(database, wanted, checks, args.check.is_some(), &progress)?;
    sentences::warn_of_quick(context.ui, &proposal.plan)?;
    Ok(proposal)
}

pub fn gather(
    context: &Context<'_>,
    database: &mut Database,
    wanted: &Wanted,
    args: &CheckArgs,
    progress: &ProgressDisplay<'_>,
) -> Result<Checks> {
    let key = args.verify_key.as_deref().map(VerifyKey::read).transpose()?;
    let known = read_evidence(database, &args.evidence, key.as_ref(), args.storage.settle.as_secs(), progress)?;
    let Some(level) = args.check else { return Ok(known) };
    let targets = unsettled_targets(database, wanted, &known, level, progress)?;
    if targets.is_empty() {
        return Ok(known);
    }
    // A quick check reads no data: say so, and that it makes nothing available.
    let word = level.to_string();
    let how = match level {
        Level::Quick if args.accept_quick => "quick: no data is read; --check deep reads all data",
        Level::Quick => "quick: no data is read, so it makes nothing available without --accept-quick; --check deep reads all data",
        Level::Deep | Level::Restore => &word,
    };
    context.ui.say(format!("Checking {} on the storage ({how}) …", count(targets.len(), "backup")));
    let (storage, request) = (args.storage.settings(context)?, args.storage.request(level, Share::All));
    let check = Check { storage, request, deadline: None };
    Ok(check_for_decision(check, targets, known, database, wanted, progress)?)
}
