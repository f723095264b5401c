//! `plan`

use std::io;
use std::path::PathBuf;

use clap::Args;

use crate::cli::new_files::NewFiles;
use crate::cli::proposal::{ProposalArgs, propose};
use crate::cli::reports::{self, Material};
use crate::cli::{Context, Error, Exit, Result, sentences, view};
use crate::domain::text::{count, shell_word};
use crate::report::grid::Grid;
use crate::report::json;
use crate::workflow::{ProposedPlan, SigningKey};

/// Scans, and writes a plan of the possible repairs to a file, with reports. Changes nothing in the database.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Write the plan to this new file; as a record stream if its name ends in .jsonl
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Also write a report: .md for a change ticket, .sql as a script for the database's own client, .csv; repeatable
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,
    /// Sign the plan with this private key (Ed25519 in PEM), for `apply --verify-key`
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    #[command(flatten)]
    pub proposal: ProposalArgs,
    /// End with exit code 3 if the plan changes anything
    #[arg(long)]
    pub detailed_exitcode: bool,
}

pub fn run(context: &Context<'_>, args: &PlanArgs) -> Result<Exit> {
    let ui = context.ui;
    let selection = args.proposal.selection()?;
    let kinds = args.report.iter().map(|path| reports::Kind::of(path)).collect::<std::result::Result<Vec<_>, _>>().map_err(Error::usage)?;
    ui.check_columns(view::UNITS)?;
    let key = context.signing_key(args.sign_key.as_deref())?;
    // A file that cannot be created is reported before a check that may take hours. It is removed again, so that a kill leaves no empty
    // file behind.
    drop(NewFiles::create(args.out.iter().chain(&args.report))?);
    let mut database = context.connect()?;
    let wanted = args.proposal.wanted(context, selection, &database)?;
    let mut proposal = propose(context, &mut database, &wanted, &args.proposal.checks)?;
    proposal.plan.signature = key.as_ref().map(|key| key.sign(&proposal.plan.sha256));
    let ProposedPlan { plan, scan, others, refused, skipped, .. } = &mut proposal;
    for refusal in refused.iter() {
        let refusal = refusal?;
        ui.warn(format!("not in the plan: {}: {}", refusal.id, refusal.reason));
    }
    let same_places = context.same_places(&database);
    let mut files = NewFiles::create(args.out.iter().chain(&args.report))?;
    let sign = || key.as_ref().map(SigningKey::signer);
    // The reports have the digest of the form that is kept.
    let sealed = plan.sha256.clone();
    match &args.out {
        Some(path) if path.extension().is_some_and(|ending| ending == "jsonl") => {
            files.fill(|file| plan.write_stream(file, sign()).map(|digest| plan.sha256 = digest))?;
        }
        Some(_) => files.fill(|file| json::write(file, plan, false))?,
        None if ui.is_stream() && !args.report.is_empty() => plan.sha256 = plan.write_stream(io::sink(), None)?,
        None => {}
    }
    for kind in kinds {
        let (engine, record, plan_file) = (database.session.server().engine, &context.global.record, args.out.as_deref());
        let material = Material { plan, scan, others, engine, record, plan_file, same_places: &same_places };
        files.fill(|file| reports::write(kind, file, material))?;
    }
    files.keep();
    plan.sha256 = sealed;
    if ui.is_stream() {
        ui.written(plan.write_stream(ui.stream(), sign()).map(drop))?;
    } else {
        ui.result(plan, "units", || Grid::try_of(&plan.units, view::UNITS))?;
    }
    if ui.is_table() {
        let (summary, units) = (sentences::scan(&scan.document, &wanted.selection), count(plan.units.len(), "unit"));
        ui.say(format!("{summary}; the plan changes {} in {units}, in {}.", count(plan.rows()?, "row"), database.location));
        match &args.out {
            Some(path) => {
                // The storage of what depends on a check is checked once more when the plan is applied.
                let storage =
                    if plan.checks.is_empty() || ui.is_inner() { String::new() } else { args.proposal.checks.storage.place.same() };
                ui.say_command(format!("To apply it: cinder-backup-repair apply {}{same_places}{storage}", shell_word(path.display())));
            }
            None => ui.say("The plan was not saved; --out FILE saves it."),
        }
    }
    sentences::say_skipped(ui, skipped)?;
    Ok(if !refused.is_empty() {
        // Like a repair that refuses something.
        Exit::Partial
    } else if args.detailed_exitcode && !plan.units.is_empty() {
        Exit::Findings
    } else {
        Exit::Done
    })
}
