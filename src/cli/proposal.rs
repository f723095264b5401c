//! How `plan` and `repair` come to a plan.

use super::context::Context;
use super::error::Result;
use super::progress_display::ProgressDisplay;
use super::sentences;
use super::storage::CheckArgs;
use crate::domain::text::count;
use crate::domain::{Checks, Level};
use crate::verify::chunked::Share;
use crate::workflow::{Check, Database, ProposedPlan, VerifyKey, Wanted, check_for_decision, read_evidence, unsettled_targets};

/// Reads evidence, checks the storage if that was asked for, and plans.
pub fn propose<'a>(context: &Context<'_>, database: &mut Database, wanted: &'a Wanted, args: &CheckArgs) -> Result<ProposedPlan<'a>> {
    let progress = ProgressDisplay::new(context.ui);
    let checks = gather(context, database, wanted, args, &progress)?;
    let proposal = ProposedPlan::new(database, wanted, checks, args.check.is_some(), &progress)?;
    sentences::warn_of_quick(context.ui, &proposal.plan);
    Ok(proposal)
}

/// What is known of the storage.
fn gather(
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
    let how = match level {
        Level::Quick if args.accept_quick => "quick: no data is read; --check deep reads all data",
        Level::Quick => "quick: no data is read, so it makes nothing available without --accept-quick; --check deep reads all data",
        Level::Deep | Level::Restore => level.name(),
    };
    context.ui.say(format!("Checking {} on the storage ({how}) …", count(targets.len(), "backup")));
    let (storage, request) = (args.storage.settings(context)?, args.storage.request(level, Share::All));
    let check = Check { storage, request, targets, earlier: Checks::new() };
    Ok(check_for_decision(check, known, database, progress)?)
}
