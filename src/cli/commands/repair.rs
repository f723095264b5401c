//! `repair`

use std::collections::{BTreeSet, HashSet};

use clap::Args;
use uuid::Uuid;

use crate::apply::{SimulatedOutcome, simulate};
use crate::cli::args::{DecisionArgs, SelectionArgs};
use crate::cli::context::{Connected, Context};
use crate::cli::error::{Error, Result};
use crate::cli::execute::{Assignment, ExecutionArgs, carry_out, insist_on_log, insist_on_writes};
use crate::cli::exit::Exit;
use crate::cli::reading::reading;
use crate::cli::skipped::Skipped;
use crate::cli::storage::CheckArgs;
use crate::cli::ui::Ui;
use crate::cli::view::{self, Refused};
use crate::cli::{check_run, hosts, prompt};
use crate::domain::status::{ERROR, is_active};
use crate::domain::{FindingKind, Selection};
use crate::plan::{Basis, Plan};
use crate::report::safe::terminal;
use crate::scan::{KeptRows, Scan, ScanRequest, scan};

/// So many units go with `--yes` unless `--max-changes` says otherwise.
const MAX_CHANGES_WITH_YES: usize = 25;

/// Limit on standard input; a million ids take 37 MB.
const MAX_IDS_BYTES: u64 = 1 << 28;

/// Scans, plans, confirms and applies in one go. At a terminal it lets you choose, shows the exact changes and asks for
/// the number of rows to be typed.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// Ids or names of backups; `-` reads ids from standard input [default: all that are stuck]
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    /// Which rows.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// What is allowed.
    #[command(flatten)]
    pub decision: DecisionArgs,
    /// What the decision may rest on.
    #[command(flatten)]
    pub checks: CheckArgs,
    /// How.
    #[command(flatten)]
    pub execution: ExecutionArgs,
}

/// Runs `repair`.
pub fn run(context: &Context<'_>, args: &RepairArgs) -> Result<Exit> {
    let backups = named(&args.backups)?;
    let selection = args.selection.selection(&backups).map_err(Error::usage)?;
    let ui = context.ui;
    args.execution.check(ui)?;
    let mut connected = context.connect()?;
    if args.checks.check.is_some() && !args.execution.dry_run {
        // Before a check that may take hours, not after it.
        insist_on_writes(&mut connected)?;
        insist_on_log(context)?;
    }
    connected.warn_of_defaults(ui, args.selection.service_down_time.is_some());
    let mut policy = args.selection.policy(Some(&args.decision), &connected).map_err(Error::usage)?;
    selection.tell(&mut policy);
    args.checks.tell(&mut policy);
    let checks = check_run::gather(context, &mut connected, &args.checks, &policy, &selection, args.selection.allow_empty)?;
    let request =
        ScanRequest { storage_checked: args.checks.check.is_some(), ..ScanRequest::new(&policy, &selection, KeptRows::Changes, &checks) };
    let (mut plan, scan) = reading(ui, || propose(&mut connected, &request))?;
    hosts::insist(ui, &scan, &selection, &policy, args.selection.allow_empty)?;
    warn_of_quick(ui, &plan);
    let refused = refusals(&scan, &selection);
    let untouched = Skipped::of(&scan, &refused);
    if args.execution.asks() {
        ui.say(format!("{} in {}", super::scan::sentence(&scan.document, &selection), terminal(&connected.location)));
        for finding in scan.document.findings.iter().filter(|finding| !finding.is_actionable()) {
            let why = finding.refusal.as_deref().or(finding.evidence.first().map(|evidence| evidence.text.as_str())).unwrap_or("");
            ui.say(terminal(&format!("  left alone: {} {} is {}: {why}", finding.kind.name(), finding.id, finding.verdict)));
        }
        for unit in &plan.units {
            let why: Vec<&str> = unit.evidence.iter().map(|evidence| evidence.text.as_str()).collect();
            let (name, status) = (unit.name.as_deref().unwrap_or(""), unit.status.as_deref().unwrap_or("NULL"));
            ui.show(terminal(&format!("  {} {} {name:?} is {status}: {}", unit.kind.name(), unit.id, why.join("; "))));
        }
        if !plan.units.is_empty() {
            insist_on_writes(&mut connected)?;
            insist_on_log(context)?;
        }
        if plan.units.len() > 1 {
            let chosen = prompt::choose(ui, &plan)?;
            plan = narrow(&mut connected, &request, plan, &scan, &chosen)?;
            let moved_on = chosen.len().saturating_sub(plan.units.len());
            if moved_on > 0 {
                ui.warn(format!("{} of what was chosen cannot be repaired any more", crate::cli::execute::units(moved_on)));
            }
        }
    }
    let max_changes = args.execution.max_changes.or((args.execution.yes && !args.execution.dry_run).then_some(MAX_CHANGES_WITH_YES));
    let storage = Some(&args.checks.storage.place);
    let assignment = Assignment { command: "repair", plan, execution: &args.execution, refused, untouched, max_changes, storage };
    carry_out(context, &mut connected, assignment)
}

/// A scan and the plan that follows from it.
pub fn propose(connected: &mut Connected, request: &ScanRequest<'_>) -> Result<(Plan, Scan)> {
    let scan = scan(connected.session.as_mut(), &connected.schema, request)?;
    let basis = Basis {
        id: Uuid::new_v4().to_string(),
        taken_at: scan.document.taken_at.clone(),
        database: scan.document.database.clone(),
        columns: scan.situation.columns,
        policy: request.policy.clone(),
        selection: request.selection.clone(),
        services: scan.situation.services.clone(),
        checks: request.checks.clone(),
    };
    let mut plan = Plan::propose(&scan.document.findings, &scan.images, basis);
    if request.policy.fix_counters {
        leave_done(&mut plan, &scan);
    }
    Ok((plan, scan))
}

/// The unit of an increment that becomes available counts its parent anew, too: where the counter was wrong, nothing is left of the
/// unit that was to put it right.
fn leave_done(plan: &mut Plan, scan: &Scan) {
    let simulated = simulate(&plan.units, &scan.census);
    let done = plan.units.iter().zip(&simulated).filter(|(_, simulated)| simulated.outcome == SimulatedOutcome::Unneeded);
    let done: BTreeSet<usize> = done.map(|(unit, _)| unit.number).collect();
    if !done.is_empty() {
        plan.leave_out(&done);
    }
}

/// The plan that is left of one when only the chosen units are wanted. Where some of them were to let go of rows because others
/// are repaired before, and these are not wanted, all is asked again.
fn narrow(connected: &mut Connected, request: &ScanRequest<'_>, mut plan: Plan, scan: &Scan, chosen: &BTreeSet<usize>) -> Result<Plan> {
    let wanted: BTreeSet<(FindingKind, String, bool)> =
        plan.units.iter().filter(|unit| chosen.contains(&unit.number)).map(|unit| (unit.kind, unit.id.clone(), unit.counter)).collect();
    if scan.counts_on_others && wanted.len() < plan.units.len() {
        let backups = wanted.iter().filter(|(kind, _, counter)| *kind == FindingKind::Backup && !counter);
        let only: BTreeSet<String> = backups.map(|(_, id, _)| id.clone()).collect();
        plan = propose(connected, &ScanRequest { only: Some(&only), ..*request })?.0;
    }
    let left: BTreeSet<usize> =
        plan.units.iter().filter(|unit| wanted.contains(&(unit.kind, unit.id.clone(), unit.counter))).map(|unit| unit.number).collect();
    plan.keep(&left);
    Ok(plan)
}

/// Says how many backups become available although none of their data was read.
pub fn warn_of_quick(ui: &Ui, plan: &Plan) {
    let number = plan.units.iter().filter(|unit| unit.is_accepted_quick()).count();
    if number > 0 {
        let (backups, their) = if number == 1 { ("1 backup becomes", "its") } else { (&*format!("{number} backups become"), "their") };
        ui.warn(format!("{backups} available on a quick check alone, which reads none of {their} data (--accept-quick)"));
    }
}

/// What was asked for and may not be done: refused outright, or named and not stuck.
pub fn refusals(scan: &Scan, selection: &Selection) -> Vec<Refused> {
    let named = !selection.backups.is_empty();
    let mut refused: Vec<Refused> = scan
        .document
        .findings
        .iter()
        .filter(|finding| !finding.is_actionable() && (finding.refusal.is_some() || named))
        .filter(|finding| !(finding.verdict == crate::domain::Verdict::Inconsistent && finding.refusal.is_none()))
        .map(|finding| Refused {
            id: finding.id.clone(),
            name: finding.name.clone(),
            reason: finding.refusal.clone().unwrap_or_else(|| {
                let why = finding.evidence.first().map_or("", |evidence| evidence.text.as_str());
                format!("{}: {why}", finding.verdict)
            }),
        })
        .collect();
    // Whatever else was named and comes into no plan: nobody may take an exit code of 0 for its being in order.
    let told: HashSet<String> = refused.iter().map(|refusal| refusal.id.clone()).collect();
    let planned = scan.document.findings.iter().filter(|finding| finding.is_actionable()).map(|finding| finding.id.clone());
    refused.extend(passed_over(scan, selection, &told.into_iter().chain(planned).collect()));
    refused
}

/// What was named and is not among those that are told of, with the reason.
pub fn passed_over(scan: &Scan, selection: &Selection, told: &HashSet<String>) -> Vec<Refused> {
    let left_out = selection.limit.is_some_and(|limit| scan.document.findings.len() >= limit);
    let named = scan.census.idle.iter().chain(scan.census.kept.values()).filter(|backup| scan.named.contains(&backup.id));
    named
        .filter(|backup| !told.contains(&backup.id))
        .map(|backup| {
            let status = view::shown(&backup.status.clone().into());
            let reason = if left_out {
                "left for another time by --limit".to_owned()
            } else if is_active(backup.status.as_deref()) && !scan.census.selected.contains(&backup.id) {
                format!("its status is {status}, but the other options leave it out")
            } else if backup.status.as_deref() == Some(ERROR) {
                "its status is error: only --check deep that finds its data intact, or --to available with --allow-unverified, changes that"
                    .to_owned()
            } else {
                format!("its status is {status}, there is nothing to repair")
            };
            Refused { id: backup.id.clone(), name: backup.display_name.clone(), reason }
        })
        .collect()
}

/// The backups that were named, with `-` replaced by what standard input lists.
pub fn named(backups: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in backups {
        if name != "-" {
            names.push(name.clone());
            continue;
        }
        let read = crate::input::read_from(std::io::stdin(), MAX_IDS_BYTES)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error)));
        let text = read.map_err(|error| Error::usage(format!("cannot read ids from standard input: {error}")))?;
        let before = names.len();
        names.extend(text.split_whitespace().map(str::to_owned));
        // An empty list must not turn into "all".
        if names.len() == before {
            return Err(Error::usage("standard input lists no ids, so there is nothing to work on"));
        }
    }
    if let Some(empty) = names.iter().position(|name| name.trim().is_empty()) {
        return Err(Error::usage(format!("backup {} on the command line is empty; give an id or a name", empty + 1)));
    }
    Ok(names)
}
