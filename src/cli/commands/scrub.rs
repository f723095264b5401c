//! `scrub`

mod documents;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

pub use documents::{Coverage, Status, time};
use documents::{of_pause, of_run};

use crate::cli::args::{SelectionArgs, span};
use crate::cli::sentences::counted;
use crate::cli::storage::{self, StorageArgs};
use crate::cli::{Context, Error, Exit, Measured, MonitorArgs, ProgressDisplay, Result, view};
use crate::domain::Level;
use crate::domain::text::count;
use crate::domain::time::{human, seconds};
use crate::ledger::policy::Forecast;
use crate::ledger::{Ledger, Pause, Run};
use crate::report::grid::Grid;
use crate::verify::chunked::Share;
use crate::workflow::{Scrub, ScrubReport, Scrubbed, actor};

/// The most failures that are printed below the table of a status.
const SHOWN: usize = 20;

/// Verifies all restore points (backups in available or restoring) in turn, and records in a ledger when each was verified and with which
/// result. Changes nothing in the database or on the storage.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ScrubCommand,
}

#[derive(Debug, Subcommand)]
pub enum ScrubCommand {
    /// Verify backups that were never verified, the oldest first, then those that were verified longest ago
    Run(Box<RunArgs>),
    /// Coverage by back end and project, failures, and a forecast
    Status(StatusArgs),
    /// Stop the current run, and let no other run begin until `scrub resume`
    Pause(LedgerArgs),
    /// End a pause
    Resume(LedgerArgs),
}

#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// The ledger: an SQLite file, one for each Cinder database, on a local disk
    #[arg(long, value_name = "FILE")]
    pub ledger: PathBuf,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Only these backups, by id or name, whatever their status; `-` reads ids from standard input [default: all restore points]
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    #[command(flatten)]
    pub ledger: LedgerArgs,
    /// quick: names, sizes and side files; deep: every object against its digest; restore: every block as a restore would
    /// write it
    #[arg(long, value_name = "LEVEL", default_value = "deep", value_parser = storage::level)]
    pub level: Level,
    /// Verify backups again that were verified at this level longer ago than this
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = span)]
    pub max_age: Duration,
    /// Verify only backups that failed before, whatever --max-age says
    #[arg(long)]
    pub failed: bool,
    /// Stop after this time: unfinished backups are left for the next run [default: no limit]
    #[arg(long, value_name = "SPAN", value_parser = storage::positive_span)]
    pub max_runtime: Option<Duration>,
    /// Begin no more backups once about this many bytes of volumes are verified, for example 2T [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = storage::size)]
    pub max_bytes: Option<u64>,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub storage: StorageArgs,
    #[command(flatten)]
    pub monitor: MonitorArgs,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub ledger: LedgerArgs,
    /// Count backups that were verified within this time
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = span)]
    pub max_age: Duration,
    /// The level at which a backup must be verified for the forecast and the oldest unverified restore point
    #[arg(long, value_name = "LEVEL", default_value = "deep", value_parser = storage::level)]
    pub level: Level,
    #[command(flatten)]
    pub monitor: MonitorArgs,
}

pub fn run(context: &Context<'_>, args: &ScrubArgs) -> Result<Exit> {
    match &args.command {
        ScrubCommand::Run(args) => scrub(context, args),
        ScrubCommand::Status(args) => status(context, args),
        ScrubCommand::Pause(args) => pause(context, args),
        ScrubCommand::Resume(args) => resume(context, args),
    }
}

fn scrub(context: &Context<'_>, args: &RunArgs) -> Result<Exit> {
    let ui = context.ui;
    let deadline = args.max_runtime.and_then(|span| Instant::now().checked_add(span));
    if args.max_bytes.is_some() && args.level == Level::Quick {
        return Err(Error::usage("--max-bytes limits data, which --level quick does not read: use --max-runtime"));
    }
    ui.check_columns(view::SCRUB_FAILURES)?;
    let scrub = Scrub {
        ledger: &args.ledger.ledger,
        request: args.storage.request(args.level, Share::All),
        max_age: seconds(args.max_age),
        failed_only: args.failed,
        storage: args.storage.settings(context)?,
        selection: args.selection.selection(&args.backups)?,
        may_be_empty: args.selection.allow_empty,
        max_bytes: args.max_bytes,
        deadline,
    };
    let mut database = context.connect()?;
    let report = match scrub.run(&mut database, &ProgressDisplay::new(ui))? {
        Scrubbed::Done(report) => report,
        Scrubbed::Paused(pause) => {
            show_pause(context, &args.ledger, Some(&pause))?;
            let sentence = format!("{}; nothing was verified", paused(&pause));
            ui.say(&sentence);
            context.monitor.measured(Measured::of_pause(sentence));
            return Ok(Exit::Done);
        }
    };
    context.monitor.measured(Measured::of_scrub(&report, summary(&report)));
    let document = of_run(&database.info(), &args.ledger.ledger, seconds(args.max_age), &report);
    ui.result(&document, "failures", || Grid::of(&report.failures, view::SCRUB_FAILURES))?;
    if ui.is_table() {
        ui.say(summary(&report));
    }
    let signal = report.stopped_by.filter(|why| why.starts_with("SIG"));
    Ok(signal.map_or_else(|| exit(&report), Exit::of_signal))
}

fn exit(report: &ScrubReport) -> Exit {
    let run = &report.run;
    if run.failed > 0 {
        Exit::Damaged
    } else if run.unanswered + run.limited > 0 {
        // As for a check: a backup that could not be verified is not in order.
        Exit::Partial
    } else {
        Exit::Done
    }
}

fn summary(report: &ScrubReport) -> String {
    let run = &report.run;
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let parts = counted(&[
        (number(run.intact), "intact"),
        (number(run.failed), "damaged or unreadable"),
        (number(run.limited), "not verifiable at this level"),
        (number(run.unanswered), "without an answer, to be tried again"),
    ]);
    let rotted = if run.rotted > 0 { format!(" ({} rotted since the last good check)", run.rotted) } else { String::new() };
    let mut sentence = if parts.is_empty() {
        let what = if run.due == 0 { "Nothing is due" } else { "Nothing verified" };
        format!("{what} at level {}", run.level)
    } else {
        format!("{}{rotted} at level {}", parts.join(", "), run.level)
    };
    if let Some(rows) = report.stopped_early {
        return format!(
            "Nothing verified at level {}; stopped by --max-runtime before the due backups were known: {} read into the ledger, the next \
             run reads the others",
            run.level,
            count(rows, "backup")
        );
    }
    let done = run.due.saturating_sub(report.left);
    match report.stopped_by {
        Some(why) => sentence.push_str(&format!("; stopped by {why}, {done} of {} done", run.due)),
        None if report.left > 0 => sentence.push_str(&format!("; {} left for the next run", report.left)),
        None => {}
    }
    sentence
}

fn status(context: &Context<'_>, args: &StatusArgs) -> Result<Exit> {
    let ui = context.ui;
    let (path, now) = (&args.ledger.ledger, actor::seconds_now());
    let ledger = Ledger::open(path, false).map_err(|error| error.of(path))?;
    let status = Status::read(&ledger, args.level, seconds(args.max_age), now).map_err(|error| error.of(path))?;
    let document = status.document(&ledger, now).map_err(|error| error.of(path))?;
    ui.result(&document, "coverage", || Grid::of(&status.coverage, view::COVERAGE))?;
    if ui.is_table() {
        say_status(context, &status);
    }
    let as_of = ledger.read_at().map_err(|error| error.of(path))?;
    context.monitor.measured(Measured::of_status(&status, as_of, forecast(&status)));
    Ok(Exit::Done)
}

fn say_status(context: &Context<'_>, status: &Status) {
    let ui = context.ui;
    for failure in status.failures.iter().take(SHOWN) {
        let rotted = failure.good_at.map_or_else(String::new, |good| format!(", rotted since {}", time(good)));
        let problem = failure.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
        ui.say(format!("{} is {}, found {}{rotted}{problem}", failure.id, failure.verdict, time(failure.found_at)));
    }
    let more = status.failed.saturating_sub(u64::try_from(SHOWN).unwrap_or(u64::MAX));
    if more > 0 {
        ui.say(format!("and {more} more failed backups (-f json shows them)"));
    }
    if let Some(pause) = &status.paused {
        ui.say(paused(pause));
    }
    match &status.last_run {
        Some(run) => ui.say(format!("Last run: {}", sentence(run))),
        None => ui.say("No run has ended yet"),
    }
    ui.say(forecast(status));
}

fn forecast(status: &Status) -> String {
    let (level, age) = (status.level, human(status.max_age_seconds));
    match status.forecast {
        Forecast::Complete => format!("Every restore point was verified at level {level} within {age}, or has failed"),
        Forecast::In(seconds) => format!("Full coverage at level {level} in about {} at the rate of the last runs", human(seconds)),
        Forecast::TooSlow(seconds) => format!(
            "No full coverage at level {level}: at the rate of the last runs it takes {}, which is longer than {age}; give the runs more time, or \
             use a longer --max-age",
            human(seconds)
        ),
        Forecast::Unknown => format!("No forecast: no recent run has verified anything at level {level}"),
    }
}

fn sentence(run: &Run) -> String {
    let end = match (run.ended_at.map(time), &run.stopped_by) {
        (None, _) => "running or killed".to_owned(),
        (Some(at), None) => format!("ended {at}"),
        (Some(at), Some(why)) => format!("stopped by {why} {at}"),
    };
    let (done, began) = (run.intact + run.failed + run.limited + run.unanswered, time(run.started_at));
    format!(
        "level {}, began {began}, {end}: {done} of {} due backups, {} failed, {} without an answer",
        run.level, run.due, run.failed, run.unanswered
    )
}

fn paused(pause: &Pause) -> String {
    let by = pause.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
    let why = pause.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    format!("Scrubbing is paused since {}{by}{why}: `scrub resume` ends the pause", time(pause.since))
}

fn show_pause(context: &Context<'_>, args: &LedgerArgs, pause: Option<&Pause>) -> Result<()> {
    Ok(context.ui.result(&of_pause(&args.ledger, pause), "", || Ok(Grid::empty(view::SCRUB_FAILURES)))?)
}

fn pause(context: &Context<'_>, args: &LedgerArgs) -> Result<Exit> {
    let ledger = Ledger::open(&args.ledger, true)?;
    let me = actor::current(None);
    let by = me.user.map(|user| format!("{user} on {}", me.host));
    let pause = match ledger.paused()? {
        Some(pause) => pause,
        None => {
            let pause = Pause { since: actor::seconds_now(), by, why: context.global.record.reason.clone() };
            ledger.set_pause(Some(&pause))?;
            pause
        }
    };
    show_pause(context, args, Some(&pause))?;
    context.ui.say(paused(&pause));
    Ok(Exit::Done)
}

fn resume(context: &Context<'_>, args: &LedgerArgs) -> Result<Exit> {
    let ledger = Ledger::open(&args.ledger, true)?;
    let was_paused = ledger.paused()?.is_some();
    ledger.set_pause(None)?;
    show_pause(context, args, None)?;
    context.ui.say(if was_paused { "Scrubbing is resumed: the next run verifies what is due" } else { "Scrubbing was not paused" });
    Ok(Exit::Done)
}
