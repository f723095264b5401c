//! How `apply`, `repair` and `undo` execute a plan: safety, confirmation, run, result.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::args::{number_up_to, whole_number};
use super::context::follow_ups;
use super::follow_up::FollowUps;
use super::new_files::NewFiles;
use super::storage::PlaceArgs;
use super::throttle::ThrottleArgs;
use super::view::{self, RunDocument};
use super::{Context, Error, Exit, ProgressDisplay, Result, Ui, choice, prompt, run_records, sentences};
use crate::apply::{Failure, Run, Throttle};
use crate::audit::AuditLog;
use crate::domain::text::count;
use crate::domain::{Outcome, UnitResult};
use crate::plan::{Plan, Purpose};
use crate::report::grid::Grid;
use crate::spool::Spool;
use crate::workflow::{
    self, Database, Execution, Observer, RecordedRun, Refused, RunLog, Skipped, depends_on_storage, require_database_of,
};

/// How a plan is executed.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Execution")]
pub struct ExecutionArgs {
    /// Change without asking; overrides no safety rule
    #[arg(short, long)]
    pub yes: bool,
    /// Do everything except writing, in read-only transactions
    #[arg(long)]
    pub dry_run: bool,
    /// Refuse a plan with more units [default: 25 for repair --yes, otherwise no limit]
    #[arg(long, value_name = "N", value_parser = whole_number)]
    pub max_changes: Option<usize>,
    /// Number of units that share the two syncs of the audit log
    #[arg(long, value_name = "N", default_value = "100", value_parser = batch_size)]
    pub batch_size: usize,
    /// Number of connections for units that have no row in common; SQLite has one writer [default: 8 from 50 units on, otherwise 1]
    #[arg(long, value_name = "N", value_parser = number_up_to::<MOST_SESSIONS>)]
    pub sessions: Option<usize>,
    /// End a dry run with exit code 3 if it would change something
    #[arg(long)]
    pub detailed_exitcode: bool,
    #[command(flatten)]
    pub throttle: ThrottleArgs,
}

fn batch_size(text: &str) -> std::result::Result<usize, String> {
    whole_number(text).and_then(|number| if number == 0 { Err("must be at least 1".to_owned()) } else { Ok(number) })
}

/// More would gain nothing, and a server in an outage has few connections to spare.
const MOST_SESSIONS: usize = 32;
/// How many units a question lists one by one.
const MOST_SHOWN: usize = 20;

impl ExecutionArgs {
    /// Checks the command line first: an unknown column must be reported before anything is changed, and a missing terminal before a
    /// connection is made.
    pub fn check(&self, ui: &Ui) -> Result<()> {
        ui.check_columns(view::RESULTS)?;
        if self.asks() { prompt::insist_on_terminal(ui) } else { Ok(()) }
    }

    /// Whether a person has to confirm.
    pub fn asks(&self) -> bool {
        !self.yes && !self.dry_run
    }

    /// The number of connections for a plan with this number of units.
    fn sessions(&self, units: usize) -> usize {
        self.sessions.unwrap_or(if units < 50 { 1 } else { 8 })
    }
}

/// A plan on its way to the database.
pub struct PlannedRun<'a> {
    /// `apply`, `repair` or `undo`.
    pub command: &'static str,
    pub plan: Plan,
    pub execution: &'a ExecutionArgs,
    pub refused: Spool<Refused>,
    pub skipped: Skipped,
    /// The most units without a higher `--max-changes`.
    pub max_changes: Option<usize>,
    /// The storage that decisions depend on; `None` if none do.
    pub storage: Option<&'a PlaceArgs>,
    /// The new file for the commands to run once the API is back.
    pub follow_up: Option<&'a PathBuf>,
}

impl PlannedRun<'_> {
    fn execution(&self, context: &Context<'_>, throttle: Throttle) -> Result<Execution> {
        let depends = self.storage.is_some() && depends_on_storage(&self.plan)?;
        let storage = self.storage.filter(|_| depends);
        let unusable = |error: Error| workflow::Error::Unusable(format!("{:#}", error.error));
        Ok(Execution {
            command: self.command,
            reason: context.global.record.reason.clone(),
            ticket: context.global.record.ticket.clone(),
            batch_size: self.execution.batch_size,
            sessions: self.execution.sessions(self.plan.units.len()),
            storage: storage.map(|place| place.settings(context).map_err(unusable)),
            throttle,
        })
    }

    /// Says what is left alone, and why; a person who was asked has seen each of it already.
    fn say_skipped(&self, ui: &Ui) -> Result<()> {
        if self.execution.asks() { Ok(()) } else { Ok(sentences::say_skipped(ui, &self.skipped)?) }
    }
}

pub fn execute(context: &Context<'_>, database: &mut Database, planned: &PlannedRun<'_>) -> Result<Exit> {
    let PlannedRun { plan, execution, refused, .. } = planned;
    let ui = context.ui;
    let file = planned.follow_up.map(|path| NewFiles::create(std::iter::once(path))).transpose()?;
    for refusal in refused {
        let refusal = refusal?;
        ui.warn(format!("refused {}: {}", refusal.id, refusal.reason));
    }
    require_database_of(database, plan)?;
    if plan.units.is_empty() {
        report(context, database, planned, file, &Run::default(), None)?;
        ui.say("Nothing to change.");
        planned.say_skipped(ui)?;
        return Ok(if refused.is_empty() { Exit::Done } else { Exit::Safety });
    }
    if let Some(most) = planned.max_changes.filter(|most| plan.units.len() > *most) {
        let problem =
            format!("{} would be changed, more than the {most} of --max-changes; nothing was changed", count(plan.units.len(), "unit"));
        return Err(Error::new(Exit::Safety, problem).hint("review them with --dry-run, then use a higher --max-changes or select fewer"));
    }
    if execution.dry_run {
        return dry_run(context, database, planned, file);
    }
    database.require_writable(&plan.policy)?;
    let throttle = execution.throttle.throttle(database)?;
    if !execution.yes {
        require_log(context)?;
        show_changes(context, database, plan)?;
        prompt::confirm_rows(ui, plan.rows()?, &database.location)?;
    }
    write(context, database, planned, file, throttle)
}

/// Refuses a log that cannot be written, before long work or a question.
pub fn require_log(context: &Context<'_>) -> Result<()> {
    AuditLog::probe(&context.audit_path()?).map_err(|error| workflow::Error::NoLog(error).into())
}

fn dry_run(context: &Context<'_>, database: &mut Database, planned: &PlannedRun<'_>, file: Option<NewFiles<'_>>) -> Result<Exit> {
    let (ui, execution) = (context.ui, planned.execution);
    if let Some(obstacle) = database.obstacle(&planned.plan.policy)? {
        let problem = obstacle.to_string();
        let Error { exit, hint, .. } = obstacle.into();
        ui.warn(format!("{problem}: without --dry-run this ends with {}; {}", exit.code(), hint.unwrap_or_default()));
    }
    let run = workflow::dry_run(database, &planned.plan, planned.execution(context, Throttle::default())?, &ProgressDisplay::new(ui))?;
    report(context, database, planned, file, &run, None)?;
    let tally = run.tally;
    let planned_units = count(tally.planned, "unit");
    ui.say(format!("Dry run: {planned_units} would be changed in {}, nothing was written.", database.location));
    planned.say_skipped(ui)?;
    let bad = tally.changed + tally.refused + tally.failed;
    Ok(if bad > 0 || !planned.refused.is_empty() {
        Exit::Partial
    } else if execution.detailed_exitcode && tally.planned > 0 {
        Exit::Findings
    } else {
        Exit::Done
    })
}

fn write(
    context: &Context<'_>,
    database: &mut Database,
    planned: &PlannedRun<'_>,
    file: Option<NewFiles<'_>>,
    throttle: Throttle,
) -> Result<Exit> {
    let ui = context.ui;
    let same_places = context.same_places(database);
    let reconcile = format!("cinder-backup-repair history reconcile{same_places}");
    let log = RunLog::open(&context.audit_path()?, &planned.plan)?;
    for open in &log.unsettled {
        let (run, units) = (&open.run, count(open.unseen, "unit"));
        ui.warn(format!("run {run} left {units} without a known outcome; `{reconcile}` settles them"));
    }
    let progress = ProgressDisplay::stoppable(ui)?;
    let ended = log.execute(database, &planned.plan, planned.execution(context, throttle)?, &progress)?;
    progress.let_finish();
    // What was done must be said and judged even if the result cannot be printed.
    let printed = report(context, database, planned, file, &ended.run, Some(&ended));
    let tally = ended.run.tally;
    ui.say(format!("Run {}: {} in {}.", ended.id, sentences::tally(&tally), database.location));
    if tally.applied > 0 && planned.command != "undo" {
        ui.say_command(format!("To undo it: cinder-backup-repair undo {}{same_places}", ended.id));
    }
    let printed = printed.and(planned.say_skipped(ui));
    let exit = judge(ui, &ended, &progress, &reconcile);
    let exit = if exit == Exit::Done && !planned.refused.is_empty() { Exit::Partial } else { exit };
    if let Err(error) = printed {
        let hint = format!("the run has ended; `cinder-backup-repair history show {}{same_places}` shows its results", ended.id);
        ui.error(&format!("{:#}", error.error), Some(&hint));
        return Ok(if exit == Exit::Done { Exit::Unexpected } else { exit });
    }
    Ok(exit)
}

/// The exit code of a run, and the sentences that go with it.
fn judge(ui: &Ui, ended: &RecordedRun, progress: &ProgressDisplay<'_>, reconcile: &str) -> Exit {
    let RecordedRun { run, log_failure, .. } = ended;
    let tally = run.tally;
    if tally.unknown > 0 {
        ui.error(
            &format!("the outcome of {} is unknown", count(tally.unknown, "unit")),
            Some(&format!("run `{reconcile}` once the database answers; change nothing by hand until then")),
        );
        return Exit::Unknown;
    }
    let log_after = if let Some(Failure::LogAfter(error)) = &run.failure { Some(error) } else { log_failure.as_ref() };
    if let Some(error) = log_after {
        let (problem, hint) = ("the audit log could not be completed", format!("make room or repair the disk, then run `{reconcile}`"));
        // If nothing was applied, no change stands.
        if tally.applied == 0 {
            ui.error(&format!("nothing was changed, and {problem}: {error}"), Some(&hint));
            return Exit::Unexpected;
        }
        ui.error(&format!("{problem}: {error}"), Some(&format!("the changes were made; {hint}")));
        return Exit::LogIncomplete;
    }
    match &run.failure {
        Some(Failure::LogBefore(error)) => {
            ui.error(&format!("no log, no change: {error}"), Some("the log has everything that was applied before"));
            return if tally.applied > 0 { Exit::LogIncomplete } else { Exit::Unexpected };
        }
        Some(Failure::Interrupted) => {
            let signal = progress.stop().map_or("SIGINT", |stop| stop.signal);
            ui.warn(format!("stopped by {signal} between two units: units that are not applied were not changed"));
            return Exit::of_signal(signal);
        }
        Some(Failure::LockedOut(error)) => {
            let message = format!("stopped: several units in a row could not get their row locks: {error}");
            ui.error(&message, Some("end the transaction that holds them or wait for it, then run the command again"));
            run.lock_holders.iter().for_each(|holder| ui.warn(holder));
            return Exit::Lock;
        }
        Some(Failure::Database(error)) => {
            let edge = Error::from(error.clone());
            ui.error(&format!("{:#}", edge.error), edge.hint.as_deref());
            return if tally.applied > 0 { Exit::Partial } else { edge.exit };
        }
        Some(Failure::Spool(error)) => {
            ui.error(
                &error.to_string(),
                Some("make room, or let TMPDIR name another folder; the audit log has everything that was applied"),
            );
            return if tally.applied > 0 { Exit::Partial } else { Exit::Unexpected };
        }
        Some(Failure::LogAfter(_)) | None => {}
    }
    run.lock_holders.iter().for_each(|holder| ui.warn(holder));
    if tally.changed + tally.refused + tally.failed > 0 {
        return if run.locks_only { Exit::Lock } else { Exit::Partial };
    }
    Exit::Done
}

/// Says what would change, before the question. Of many units only the groups, unless `-v` asks for each.
fn show_changes(context: &Context<'_>, database: &Database, plan: &Plan) -> Result<()> {
    let ui = context.ui;
    let (rows, units) = (count(plan.rows()?, "row"), count(plan.units.len(), "unit"));
    ui.show(format!("{rows} in {units} would be changed in {}:", database.location));
    if plan.units.len() > MOST_SHOWN && ui.verbose == 0 {
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for unit in &plan.units {
            *groups.entry(choice::title(&unit?)).or_default() += 1;
        }
        groups.iter().for_each(|(group, number)| ui.show(format!("  {number:>6}  {group}")));
        ui.show("-v lists each row.");
        sentences::warn_of_quick(ui, plan)?;
    } else {
        for unit in &plan.units {
            let unit = unit?;
            ui.show(format!("  {}", unit.title()));
            if unit.is_accepted_quick() {
                ui.show("    becomes available on a quick check, which read none of its data (--accept-quick)");
            }
            view::rows(&unit).iter().for_each(|row| ui.show(format!("    {row}")));
        }
    }
    let log = context.audit_path()?;
    ui.show(match plan.purpose {
        Purpose::Repair => format!("`undo` can restore the rows from the audit log {}.", log.display()),
        Purpose::Undo => format!("The audit log {} records it.", log.display()),
    });
    Ok(())
}

/// The commands of the units that were changed, or would be.
fn commands(planned: &PlannedRun<'_>, run: &Run, same_places: &str) -> io::Result<FollowUps> {
    #[derive(serde::Deserialize)]
    struct Ended {
        unit: usize,
        outcome: Outcome,
    }
    #[derive(serde::Deserialize)]
    struct Commands {
        number: usize,
        follow_up: Vec<String>,
    }
    let units = &planned.plan.units;
    // Both are in the order of the plan.
    let mut results = run.results.parts::<Ended>(0..run.results.len());
    let mut commands = FollowUps::default();
    for unit in units.parts::<Commands>(0..units.len()) {
        let Commands { number, follow_up } = unit?;
        let result = results.next().transpose()?;
        if result.is_some_and(|result| result.unit == number && matches!(result.outcome, Outcome::Applied | Outcome::Planned)) {
            follow_ups(&follow_up, same_places).iter().try_for_each(|command| commands.add(command))?;
        }
    }
    Ok(commands)
}

/// Writes the result, and the commands that follow to their file.
fn report(
    context: &Context<'_>,
    database: &Database,
    planned: &PlannedRun<'_>,
    file: Option<NewFiles<'_>>,
    run: &Run,
    recorded: Option<&RecordedRun>,
) -> Result<()> {
    let ui = context.ui;
    let PlannedRun { plan, execution, skipped, .. } = planned;
    let same_places = context.same_places(database);
    let follow_ups = commands(planned, run, &same_places)?;
    let document = RunDocument {
        schema: format!("cinder-backup-repair/{}", planned.command),
        schema_version: 1,
        run: recorded.map(|run| run.id.as_str()),
        dry_run: execution.dry_run,
        plan: &plan.id,
        database: &database.info(),
        units: &run.results,
        refused: &planned.refused,
        left_alone: &skipped.left_alone,
        left_out: skipped.left_out,
        missing_grants: &database.missing_grants,
        summary: run.tally,
        interrupted: recorded.and_then(|run| run.interrupted.as_deref()),
        follow_up: &follow_ups.commands,
    };
    // Thousands of units may not have begun: tables show only their number, JSON lists them.
    if ui.is_stream() {
        ui.written(run_records::write(ui.stream(), planned.command, &document))?;
    } else {
        let is_shown = |result: &io::Result<UnitResult>| {
            ui.is_document() || result.as_ref().map_or(true, |result| result.outcome != Outcome::NotBegun)
        };
        ui.result(&document, "units", || Grid::try_of(run.results.iter().filter(is_shown), view::RESULTS))?;
    }
    follow_ups.present(
        ui,
        file,
        &match recorded {
            Some(run) => format!("cinder-backup-repair history show {} --follow-up FILE{same_places}", run.id),
            None => "--follow-up FILE writes all".to_owned(),
        },
    )
}
