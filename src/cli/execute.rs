//! What `apply`, `repair` and `undo` share once there is a plan: safety, confirmation, record, execution, result.

use std::collections::HashSet;
use std::time::Duration;

use uuid::Uuid;

use super::args::whole_number;
use super::context::{Connected, Context, follow_ups};
use super::error::{Error, Result};
use super::exit::Exit;
use super::reading::reading;
use super::signal::{Second, Signals};
use super::skipped::Skipped;
use super::storage::PlaceArgs;
use super::storage_recheck::StorageRecheck;
use super::ui::Ui;
use super::view::{self, Refused, RunDocument};
use super::{actor, prompt};
use crate::apply::{Executor, Failure, Journal, Mode, NoJournal, Options, Progress, Run};
use crate::audit::record::{Begin, DatabaseRef, Event};
use crate::audit::{AuditError, AuditLog};
use crate::db::{Access, Engine};
use crate::domain::{Outcome, Tally, UnitResult};
use crate::plan::{Plan, program};
use crate::report::safe::terminal;
use crate::scan::{Census, Reader, database_info};

/// How a plan is to be carried out.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Execution")]
pub struct ExecutionArgs {
    /// Change without a question; overrides no safety rule
    #[arg(short, long)]
    pub yes: bool,
    /// Go through everything but the writing, in transactions that the database holds read-only
    #[arg(long)]
    pub dry_run: bool,
    /// Refuse a plan of more units [default: 25 for repair --yes, else none]
    #[arg(long, value_name = "N", value_parser = whole_number, allow_negative_numbers = true)]
    pub max_changes: Option<usize>,
    /// How many units share the two syncs of the audit log
    #[arg(long, value_name = "N", default_value = "100", value_parser = batch_size, allow_negative_numbers = true)]
    pub batch_size: usize,
    /// Carry out units that have no row in common on N connections at once; SQLite has one writer [default: 4 from 50 units on, else 1]
    #[arg(long, value_name = "N", value_parser = sessions, allow_negative_numbers = true)]
    pub sessions: Option<usize>,
    /// End a dry run with 3 if something would be changed
    #[arg(long)]
    pub detailed_exitcode: bool,
}

fn batch_size(text: &str) -> std::result::Result<usize, String> {
    if whole_number(text)? == 0 { Err("a batch has at least 1 unit".to_owned()) } else { whole_number(text) }
}

fn sessions(text: &str) -> std::result::Result<usize, String> {
    match whole_number(text)? {
        number @ 1..=MOST_SESSIONS => Ok(number),
        _ => Err(format!("give 1 to {MOST_SESSIONS} connections")),
    }
}

/// More would gain nothing, and a server in an outage has few connections to spare.
const MOST_SESSIONS: usize = 32;

impl ExecutionArgs {
    /// The command line is validated first: an unknown column must be reported before anything is changed, and a missing terminal
    /// before a connection is made.
    pub fn check(&self, ui: &Ui) -> Result<()> {
        ui.check_columns(&view::results([]))?;
        if self.asks() { prompt::insist_on_terminal(ui) } else { Ok(()) }
    }

    /// Whether a person has to confirm.
    pub fn asks(&self) -> bool {
        !self.yes && !self.dry_run
    }

    /// On how many connections a plan of so many units is carried out.
    fn sessions(&self, units: usize) -> usize {
        self.sessions.unwrap_or(if units < 50 { 1 } else { 4 })
    }
}

/// A plan on its way to the database.
pub struct Assignment<'a> {
    /// `apply`, `repair` or `undo`.
    pub command: &'static str,
    /// The plan.
    pub plan: Plan,
    /// How.
    pub execution: &'a ExecutionArgs,
    /// What was named and may not be done.
    pub refused: Vec<Refused>,
    /// What else was found, and is left alone.
    pub untouched: Skipped,
    /// The most units that go without a higher `--max-changes`.
    pub max_changes: Option<usize>,
    /// Where the storage is that decisions rest on; `None` where none does.
    pub storage: Option<&'a PlaceArgs>,
}

struct Log {
    log: AuditLog,
    run: String,
}

impl Journal for Log {
    fn append(&mut self, event: Event) -> std::result::Result<(), AuditError> {
        self.log.append(&self.run, event)
    }

    fn flush(&mut self) -> std::result::Result<(), AuditError> {
        self.log.flush()
    }

    fn sync(&mut self) -> std::result::Result<(), AuditError> {
        self.log.sync()
    }
}

/// Carries the plan out, or says why not.
pub fn carry_out(context: &Context<'_>, connected: &mut Connected, assignment: Assignment<'_>) -> Result<Exit> {
    let Assignment { command, plan, execution, refused, untouched, max_changes, storage } = assignment;
    let ui = context.ui;
    for refusal in &refused {
        ui.warn(format!("refused {}: {}", terminal(&refusal.id), terminal(&refusal.reason)));
    }
    check_database(connected, &plan)?;
    if plan.units.is_empty() {
        report(context, command, None, &plan, connected, execution.dry_run, &[], &refused, &untouched, None)?;
        ui.say("Nothing to change.");
        tell(context, execution, &untouched);
        return Ok(if refused.is_empty() { Exit::Done } else { Exit::Safety });
    }
    if let Some(most) = max_changes.filter(|most| plan.units.len() > *most) {
        return Err(Error::new(
            Exit::Safety,
            format!("{} would be changed, more than the {most} of --max-changes; nothing was changed", units(plan.units.len())),
        )
        .hint("look at them with --dry-run, then give a higher --max-changes, or select fewer"));
    }
    if execution.dry_run {
        return dry_run(context, connected, command, &plan, execution, &refused, &untouched, storage);
    }
    insist_on_writes(connected)?;
    if !execution.yes {
        insist_on_log(context)?;
        show_changes(context, connected, &plan);
        prompt::confirm_rows(ui, plan.rows(), &connected.location)?;
    }
    write(context, connected, command, &plan, execution, &refused, &untouched, storage)
}

/// Refuses a database that takes no writes, and an account that may not make them.
pub fn insist_on_writes(connected: &mut Connected) -> Result<()> {
    match obstacle(connected)? {
        None => Ok(()),
        Some(Obstacle { exit, problem, hint }) => Err(Error::new(exit, format!("{problem}; nothing was changed")).hint(hint)),
    }
}

/// What keeps a run from writing.
struct Obstacle {
    exit: Exit,
    problem: String,
    hint: String,
}

/// Looks for what would keep a run from writing, without writing.
fn obstacle(connected: &mut Connected) -> Result<Option<Obstacle>> {
    let location = &connected.location;
    if connected.session.server().read_only {
        let hint = match connected.session.server().engine {
            Engine::Sqlite => "run it as an account that may write to the file and its folder",
            _ => "connect to the primary (the writer behind the proxy)",
        };
        let problem = format!("{location} takes no writes: it is read-only, or a replica");
        return Ok(Some(Obstacle { exit: Exit::NotPrimary, problem, hint: hint.to_owned() }));
    }
    let problem = format!("this account lacks privileges that a repair needs in {location}");
    let grants = connected.missing_grants()?;
    if grants.is_empty() {
        return Ok(None);
    }
    let hint = format!("ask a database administrator to run: {}; sql/grants has the complete grants", grants.join("; "));
    Ok(Some(Obstacle { exit: Exit::Privilege, problem, hint }))
}

/// Refuses a log that could not be written, before long work or a question.
pub fn insist_on_log(context: &Context<'_>) -> Result<()> {
    AuditLog::probe(&context.audit_path()?).map_err(no_log)
}

fn no_log(error: AuditError) -> Error {
    let error = Error::from(error);
    Error { error: error.error.context("no log, no change"), ..error }
}

/// Says what is left alone, and why; whoever was asked has seen each of it already.
fn tell(context: &Context<'_>, execution: &ExecutionArgs, untouched: &Skipped) {
    if !execution.asks() {
        untouched.tell(context.ui);
    }
}

/// A plan is for one database, and for the columns that it had.
fn check_database(connected: &Connected, plan: &Plan) -> Result<()> {
    let here = database_info(connected.session.as_ref(), &connected.schema);
    if here.identity != plan.database.identity {
        return Err(Error::new(Exit::Stale, format!("the plan was made for {}, but this is {here}; nothing was changed", plan.database)));
    }
    if connected.schema.columns != plan.columns {
        return Err(Error::new(Exit::Stale, "the database's columns are not those that the plan was made for; nothing was changed")
            .hint("make a new plan"));
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn dry_run(
    context: &Context<'_>,
    connected: &mut Connected,
    command: &'static str,
    plan: &Plan,
    execution: &ExecutionArgs,
    refused: &[Refused],
    untouched: &Skipped,
    storage: Option<&PlaceArgs>,
) -> Result<Exit> {
    if let Some(Obstacle { exit, problem, hint }) = obstacle(connected)? {
        context.ui.warn(terminal(&format!("{problem}: without --dry-run this ends with {}; {hint}", exit.code())));
    }
    let options = Options { mode: Mode::DryRun, batch_size: execution.batch_size, ..Options::default() };
    let run = execute(context, connected, plan, options, &mut NoJournal, &|| false, storage)?;
    if let Some(Failure::Database(error) | Failure::LockedOut(error)) = run.failure {
        return Err(error.into());
    }
    report(context, command, None, plan, connected, true, &run.results, refused, untouched, None)?;
    let tally = run.tally();
    let location = terminal(&connected.location);
    context.ui.say(format!("Dry run: {} would be changed in {location}, nothing was written.", units(tally.planned)));
    tell(context, execution, untouched);
    let bad = tally.changed + tally.refused + tally.failed;
    Ok(if bad > 0 || !refused.is_empty() {
        Exit::Partial
    } else if execution.detailed_exitcode && tally.planned > 0 {
        Exit::Findings
    } else {
        Exit::Done
    })
}

#[allow(clippy::too_many_arguments)]
fn write(
    context: &Context<'_>,
    connected: &mut Connected,
    command: &'static str,
    plan: &Plan,
    execution: &ExecutionArgs,
    refused: &[Refused],
    untouched: &Skipped,
    storage: Option<&PlaceArgs>,
) -> Result<Exit> {
    let ui = context.ui;
    let path = context.audit_path()?;
    let log = AuditLog::open(&path, super::actor::now).map_err(no_log)?;
    let mut runs = crate::audit::runs(&path)?;
    if let Some(damage) = runs.damage.take() {
        return Err(damage.into());
    }
    // To look once more at what stays unknown would show the same.
    for open in runs.runs.iter().filter(|summary| summary.unseen > 0) {
        ui.warn(format!(
            "run {} left {} without a known outcome; `cinder-backup-repair history reconcile{}` settles them",
            open.run,
            units(open.unseen),
            connected.same_places
        ));
    }
    if let Some(earlier) = runs.of_plan(&plan.id, &plan.sha256) {
        return Err(Error::new(Exit::Stale, format!("this plan was applied already, by run {earlier}; nothing was changed"))
            .hint("make a new plan to see what is left"));
    }
    let run_id = run_id();
    let mut journal = Log { log, run: run_id.clone() };
    let signals = Signals::note(Second::Ends)?;
    let begin = Event::Begin(Box::new(begin(context, connected, command, plan)));
    journal.append(begin).and_then(|()| journal.sync()).map_err(no_log)?;
    let sessions = execution.sessions(plan.units.len());
    // Half as long again as from one beat to the next.
    let heartbeat_wait = Duration::from_millis(connected.report_interval.saturating_mul(1_500));
    let options = Options {
        mode: Mode::Write,
        batch_size: execution.batch_size,
        sessions,
        heartbeat_wait,
        lock_timeout: context.global.database.lock_timeout,
        ..Options::default()
    };
    let result = execute(context, connected, plan, options, &mut journal, &|| signals.stop(), storage);
    let run = match result {
        Ok(run) => run,
        Err(error) => {
            // Nothing was begun: say so in the log, too.
            let summary = Tally { not_begun: plan.units.len(), ..Tally::default() };
            let _ = journal.append(Event::End { summary, interrupted: Some(format!("{:#}", error.error)) });
            let _ = journal.sync();
            return Err(error);
        }
    };
    let interrupted = match &run.failure {
        None => None,
        Some(Failure::Interrupted) => Some(signals.exit().1.to_owned()),
        Some(Failure::Database(error)) => Some(error.to_string()),
        Some(Failure::LockedOut(error)) => Some(format!("locked out: {error}")),
        Some(Failure::LogBefore(error) | Failure::LogAfter(error)) => Some(error.to_string()),
    };
    let tally = run.tally();
    let mut log_failure = None;
    if !matches!(run.failure, Some(Failure::LogBefore(_) | Failure::LogAfter(_))) {
        let end = Event::End { summary: tally, interrupted: interrupted.clone() };
        log_failure = journal.append(end).and_then(|()| journal.sync()).err();
    }
    signals.let_finish();
    // What was done is to be said, and judged, even where the result cannot be printed.
    let printed = report(context, command, Some(&run_id), plan, connected, false, &run.results, refused, untouched, interrupted.as_deref());
    ui.say(format!("Run {run_id}: {} in {}.", words(&tally), terminal(&connected.location)));
    if tally.applied > 0 && command != "undo" {
        ui.say_command(format!("To put it back: cinder-backup-repair undo {run_id}{}", connected.same_places));
    }
    tell(context, execution, untouched);
    let reconcile = format!("cinder-backup-repair history reconcile{}", connected.same_places);
    let verdict = verdict(ui, &run, refused, log_failure, &signals, &reconcile);
    if let Err(error) = printed {
        let hint = format!("what was done stands; `cinder-backup-repair history show {run_id}{}` shows it", connected.same_places);
        ui.error(&format!("{:#}", error.error), Some(&hint));
        return Ok(if verdict == Exit::Done { Exit::Unexpected } else { verdict });
    }
    Ok(verdict)
}

/// The exit code of a run, and the sentences that go with it.
fn verdict(ui: &Ui, run: &Run, refused: &[Refused], log_failure: Option<AuditError>, signals: &Signals, reconcile: &str) -> Exit {
    let tally = run.tally();
    if tally.unknown > 0 {
        ui.error(
            &format!("the outcome of {} is unknown", units(tally.unknown)),
            Some(&format!("look with `{reconcile}` once the database answers; change nothing by hand before")),
        );
        return Exit::Unknown;
    }
    match (&run.failure, &log_failure) {
        // Of changes that were never made it must not be said that they stand.
        (Some(Failure::LogAfter(error)), _) | (_, Some(error)) if tally.applied == 0 => {
            let hint = format!("make room or repair the disk, then run `{reconcile}`");
            ui.error(&format!("nothing was changed, and the audit log could not be completed: {error}"), Some(&hint));
            return Exit::Unexpected;
        }
        (Some(Failure::LogAfter(error)), _) | (_, Some(error)) => {
            let hint = format!("the changes stand; make room or repair the disk, then run `{reconcile}`");
            ui.error(&format!("the audit log could not be completed: {error}"), Some(&hint));
            return Exit::LogIncomplete;
        }
        (Some(Failure::LogBefore(error)), None) => {
            ui.error(&format!("no log, no change: {error}"), Some("what had been applied before is on record"));
            return if tally.applied > 0 { Exit::LogIncomplete } else { Exit::Unexpected };
        }
        (Some(Failure::Interrupted), None) => {
            let (exit, signal) = signals.exit();
            ui.warn(format!("stopped by {signal} between two units: what is not applied stands as it was"));
            return exit;
        }
        (Some(Failure::LockedOut(error)), None) => {
            let message = format!("stopped, because unit after unit could not get its row locks: {error}");
            ui.error(&message, Some("end the transaction that holds them, or wait for it, then run the command again"));
            tell_holders(ui, run);
            return Exit::Lock;
        }
        (Some(Failure::Database(error)), None) => {
            let edge = Error::from(error.clone());
            ui.error(&format!("{:#}", edge.error), edge.hint.as_deref());
            return if tally.applied > 0 { Exit::Partial } else { edge.exit };
        }
        (None, None) => {}
    }
    tell_holders(ui, run);
    if tally.changed + tally.refused + tally.failed > 0 {
        return if run.locks_only { Exit::Lock } else { Exit::Partial };
    }
    if refused.is_empty() { Exit::Done } else { Exit::Partial }
}

/// Says who held the locks that units could not get.
fn tell_holders(ui: &super::ui::Ui, run: &Run) {
    for holder in &run.lock_holders {
        ui.warn(holder);
    }
}

fn execute(
    context: &Context<'_>,
    connected: &mut Connected,
    plan: &Plan,
    options: Options,
    journal: &mut dyn Journal,
    stop: &(dyn Fn() -> bool + Sync),
    storage: Option<&PlaceArgs>,
) -> Result<Run> {
    // What is active, and who counts whom, as it is now and not as it was when the plan was made.
    if let Err(error) = connected.session.begin(Access::ReadOnly) {
        // While somebody reads and types, a proxy or the server may well close a connection that is idle.
        if !error.is_fatal() {
            return Err(error.into());
        }
        let fresh = connected.opener()()?;
        connected.session = fresh;
        connected.session.begin(Access::ReadOnly)?;
    }
    let mut reader = Reader { session: connected.session.as_mut(), schema: &connected.schema };
    let census = reading(context.ui, || Census::take(&mut reader, &plan.selection));
    connected.session.rollback()?;
    let census = census?;
    let last_look = StorageRecheck::new(context, connected, plan, storage, stop)?;
    let open = connected.opener();
    let bar = progress_bar(context, plan.units.len());
    let mut wait = HeartbeatWait { ui: context.ui, line: None };
    let mut progress = |event: Progress<'_>| match event {
        Progress::Ended(result) => {
            bar.inc(1);
            if result.outcome == Outcome::Unknown {
                context.ui.warn(format!("unit {}: {}", result.unit, terminal(result.reason.as_deref().unwrap_or("outcome unknown"))));
            }
        }
        Progress::Retry { unit, error } => context.ui.detail(format!("unit {unit} is tried again: {}", terminal(&error.to_string()))),
        Progress::Waiting { hosts, seconds } => wait.tell(hosts, seconds),
        Progress::FewerSessions(error) => {
            context.ui.detail(format!("the run goes on with fewer connections: {}", terminal(&error.to_string())))
        }
    };
    let mut executor = Executor {
        connect: &open,
        schema: &connected.schema,
        census: &census,
        options,
        stop,
        storage: &last_look,
        progress: &mut progress,
    };
    let run = executor.run(&mut connected.session, plan, journal);
    bar.finish_and_clear();
    last_look.tell(context);
    Ok(run)
}

/// The wait for heartbeats as it is shown: at a terminal it counts down in place, elsewhere it is one line.
struct HeartbeatWait<'a> {
    ui: &'a Ui,
    line: Option<indicatif::ProgressBar>,
}

impl HeartbeatWait<'_> {
    fn tell(&mut self, hosts: &[String], seconds: u64) {
        let text = terminal(&format!("Waiting {seconds} s for a heartbeat from cinder-backup on {} …", hosts.join(", ")));
        match self.line.take() {
            Some(line) if seconds == 0 => line.finish_and_clear(),
            None if seconds == 0 => {}
            Some(line) => {
                line.set_message(text);
                self.line = Some(line);
            }
            None if self.ui.shows_progress() => {
                let line = indicatif::ProgressBar::new_spinner();
                line.set_message(text);
                self.line = Some(line);
            }
            None => {
                self.ui.say(text);
                self.line = Some(indicatif::ProgressBar::hidden());
            }
        }
    }
}

fn progress_bar(context: &Context<'_>, units: usize) -> indicatif::ProgressBar {
    if !context.ui.shows_progress() || units < 2 {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new(u64::try_from(units).unwrap_or(u64::MAX));
    if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} units, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn show_changes(context: &Context<'_>, connected: &Connected, plan: &Plan) {
    let ui = context.ui;
    let location = terminal(&connected.location);
    ui.show(format!("These {} rows in {} would be changed in {location}:", plan.rows(), units(plan.units.len())));
    for unit in &plan.units {
        let name = unit.name.as_deref().map(|name| format!(" {name:?}")).unwrap_or_default();
        ui.show(terminal(&format!("  {} {}{name}", unit.kind.name(), unit.id)));
        if unit.is_accepted_quick() {
            ui.show("    becomes available on a quick check, which read none of its data (--accept-quick)");
        }
        for change in &unit.changes {
            ui.show(terminal(&format!(
                "    {}.{} of {}: {} -> {}",
                change.table,
                change.column,
                change.id,
                view::shown(&change.from),
                view::shown(&change.to)
            )));
        }
    }
}

fn begin(context: &Context<'_>, connected: &Connected, command: &str, plan: &Plan) -> Begin {
    let server = connected.session.server();
    Begin {
        command: command.to_owned(),
        program: program(),
        plan: plan.id.clone(),
        plan_sha256: plan.sha256.clone(),
        undoes: plan.undoes.clone(),
        who: actor::current(server.user.clone()),
        database: DatabaseRef {
            engine: server.engine.name().to_owned(),
            version: server.version.clone(),
            release: connected.schema.release.clone(),
            identity: server.identity.clone(),
            location: connected.location.clone(),
        },
        reason: context.global.record.reason.clone(),
        ticket: context.global.record.ticket.clone(),
        policy: plan.policy.clone(),
        units: plan.units.len(),
    }
}

#[allow(clippy::too_many_arguments)]
fn report(
    context: &Context<'_>,
    command: &str,
    run: Option<&str>,
    plan: &Plan,
    connected: &Connected,
    dry_run: bool,
    results: &[UnitResult],
    refused: &[Refused],
    untouched: &Skipped,
    interrupted: Option<&str>,
) -> Result<()> {
    let done: HashSet<usize> =
        results.iter().filter(|result| matches!(result.outcome, Outcome::Applied | Outcome::Planned)).map(|result| result.unit).collect();
    let mut said: HashSet<&str> = HashSet::new();
    let commands = plan.units.iter().filter(|unit| done.contains(&unit.number)).flat_map(|unit| &unit.follow_up);
    let follow_up: Vec<String> = commands.filter(|command| said.insert(command)).cloned().collect();
    let follow_up = follow_ups(&follow_up, &connected.same_places);
    let database = database_info(connected.session.as_ref(), &connected.schema);
    let document = RunDocument {
        schema: format!("cinder-backup-repair/{command}"),
        schema_version: 1,
        run,
        dry_run,
        plan: &plan.id,
        database: &database,
        units: results,
        refused,
        left_alone: &untouched.left_alone,
        left_out: untouched.left_out,
        missing_grants: &connected.missing_grants,
        summary: Tally::of(results.iter().map(|result| &result.outcome)),
        interrupted,
        follow_up: &follow_up,
    };
    // Thousands of units that were not begun: tables show only their number, JSON lists them.
    let shown = |result: &&UnitResult| context.ui.is_document() || result.outcome != Outcome::NotBegun;
    context.ui.result(&document, "units", &view::results(results.iter().filter(shown)))?;
    if context.ui.is_table() && !follow_up.is_empty() {
        context.ui.say("Once the API is back:");
        for command in &follow_up {
            context.ui.say_command(format!("  {command}"));
        }
    }
    Ok(())
}

/// A run's id: sortable by time, with enough chance in it that two hosts do not collide.
fn run_id() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let chance: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
    format!("{now}-{chance}")
}

/// `1 unit`, `2 units`.
pub fn units(number: usize) -> String {
    if number == 1 { "1 unit".to_owned() } else { format!("{number} units") }
}

/// A tally in words.
pub fn words(tally: &Tally) -> String {
    let parts: Vec<String> = [
        (tally.applied, "applied"),
        (tally.planned, "planned"),
        (tally.changed, "changed meanwhile"),
        (tally.refused, "refused"),
        (tally.failed, "failed"),
        (tally.unknown, "unknown"),
        (tally.not_begun, "not begun"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, word)| format!("{number} {word}"))
    .collect();
    if parts.is_empty() { "nothing done".to_owned() } else { parts.join(", ") }
}
