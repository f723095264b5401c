//! `check`

mod merge;
mod orphans;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::HumanCount;

pub(super) use orphans::OrphanDocument;

use crate::cli::args::{SelectionArgs, span};
use crate::cli::sentences::counted;
use crate::cli::shard::ShardArg;
use crate::cli::storage::{self, StorageArgs};
use crate::cli::{Context, Error, Exit, Measured, MonitorArgs, ProgressDisplay, Result, view};
use crate::domain::text::{count, shell_word};
use crate::domain::time::seconds;
use crate::domain::{CheckVerdict, Level};
use crate::report::grid::Grid;
use crate::verify::check_document::Summary;
use crate::verify::chunked::Share;
use crate::verify::{CheckDocument, Request};
use crate::workflow::{CatalogShare, CheckJob, CheckReport, Earlier, MAX_RUNTIME, Resume, TargetList};

/// Verifies the data of backups on their storage: of the backups that scan finds, of named backups, or of all. Changes nothing in the
/// database or on the storage. `--format json` and `--format jsonl` write evidence for `plan --evidence`; jsonl writes each result as it
/// arrives.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CheckCommandArgs {
    #[command(subcommand)]
    pub command: Option<CheckCommand>,
    /// Ids or names of backups; `-` reads ids from standard input [default: findings of scan that a check of their data can decide]
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    /// quick: names, sizes and side files; deep: every object against its digest; restore: every block as a restore would
    /// write it
    #[arg(long, value_name = "LEVEL", default_value = "quick", value_parser = storage::level)]
    pub level: Level,
    /// Check every backup, including available ones
    #[arg(long, conflicts_with_all = ["backups", "from"])]
    pub all: bool,
    /// Walk each storage once and list objects without a live backup, and live backups with nothing on the storage. Removes nothing.
    /// Objects younger than --settle do not count. --resume continues the JSON lines of an earlier walk
    #[arg(long, conflicts_with_all = ["backups", "all", "from", "level", "sign_key", "out", "resume_max_age", "read_data_subset", "sample",
        "status", "host", "project", "volume", "limit", "older_than", "prometheus", "nagios"])]
    pub orphans: bool,
    /// Write a shell script for review to this new file: the commands of the storage's own tools that remove the orphans, each with what
    /// was found. The script refuses to run when it is older than a day
    #[arg(long, value_name = "FILE", requires = "orphans")]
    pub commands: Option<PathBuf>,
    /// Check the backups in a file that scan wrote, on a host without access to the database: its findings (`--format json` or jsonl), or
    /// all backups of a catalog (`scan --all --format jsonl`)
    #[arg(long, value_name = "FILE", conflicts_with = "backups")]
    pub from: Option<PathBuf>,
    /// Continue an earlier check (its JSON or JSON lines): a backup that it found intact is carried over if its row, location and listing
    /// are unchanged; all others are checked again
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Sign the evidence with this private key (Ed25519 in PEM), for `plan --verify-key`; --resume then accepts only files signed with it
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// Write results to FILE.partial as they arrive, and the JSON document to FILE at the end; --resume accepts both. If FILE ends in
    /// .jsonl, or with --format jsonl, FILE.partial becomes FILE
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Check backups again that the earlier check read longer ago than this
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = span)]
    pub resume_max_age: Duration,
    /// Stop after this time: backups that are not finished then are left for --resume [default: no limit]
    #[arg(long, value_name = "SPAN", value_parser = storage::positive_span)]
    pub max_runtime: Option<Duration>,
    /// Check only shard K of N, so that N hosts share the work. Shards of a catalog (--from) have about the same number of bytes, and
    /// `check merge` merges their results. Other shards have about the same number of chains. auto: from CBR_SHARD (K/N), Kubernetes or
    /// Slurm
    #[arg(long, value_name = "K/N|auto")]
    pub shard: Option<ShardArg>,
    /// Number of shards, for --shard auto
    #[arg(long, value_name = "N", requires = "shard", value_parser = clap::value_parser!(u32).range(1..))]
    pub shards: Option<u32>,
    /// Read only part N of T of each backup's objects: T runs read everything once
    #[arg(long, value_name = "N/T", value_parser = part, conflicts_with = "sample")]
    pub read_data_subset: Option<(u64, u64)>,
    /// Read only this share of each backup's objects, chosen at random
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub sample: Option<f64>,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub storage: StorageArgs,
    #[command(flatten)]
    pub monitor: MonitorArgs,
}

#[derive(Debug, Subcommand)]
pub enum CheckCommand {
    Merge(merge::MergeArgs),
}

fn part(text: &str) -> std::result::Result<(u64, u64), String> {
    let usage = || format!("{text:?} is not a part: use for example 2/5, the second of five");
    let (part, of) = text.split_once('/').ok_or_else(usage)?;
    let (part, of): (u64, u64) = (part.trim().parse().map_err(|_| usage())?, of.trim().parse().map_err(|_| usage())?);
    if part >= 1 && part <= of { Ok((part, of)) } else { Err(usage()) }
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let usage = || format!("{text:?} is not a percentage: use for example 5%");
    let number: f64 = text.trim().trim_end_matches('%').trim().parse().map_err(|_| usage())?;
    if number > 0.0 && number <= 100.0 { Ok(number / 100.0) } else { Err(usage()) }
}

pub fn run(context: &Context<'_>, args: &CheckCommandArgs) -> Result<Exit> {
    if let Some(CheckCommand::Merge(args)) = &args.command {
        return merge::run(context, args);
    }
    if args.orphans {
        return orphans::run(context, args);
    }
    let ui = context.ui;
    let deadline = args.max_runtime.and_then(|span| Instant::now().checked_add(span));
    let share = share(args)?;
    ui.check_columns(view::CHECKS)?;
    let key = context.signing_key(args.sign_key.as_deref())?;
    let max_age = seconds(args.resume_max_age);
    let mut resume =
        args.resume.as_deref().map(|path| Resume::read(path, max_age, key.as_ref().zip(args.sign_key.as_deref()))).transpose()?;
    let progress = ProgressDisplay::new(ui);
    let request = args.storage.request(args.level, share);
    let list = list(context, args, &request, &progress)?;
    let part = list.part();
    if let (Some(part), Some(out), None) = (&part, &args.out, &resume) {
        match Earlier::read(out, part, &request, max_age, key.as_ref().zip(args.sign_key.as_deref()))? {
            Earlier::Nothing => {}
            Earlier::Unfinished(earlier) => resume = Some(*earlier),
            Earlier::Finished(summary) => {
                ui.say(format!("Shard {} is finished: {}.", part.shard, verdicts(&summary)));
                return Ok(exit(&summary));
            }
        }
    }
    // The file of a shard has its results, which may be too many for memory.
    let is_in_file = part.is_some() && args.out.is_some();
    let stream = if ui.is_stream() { Some(ui.stream()) } else { is_in_file.then(|| Box::new(io::sink()) as Box<dyn Write>) };
    let is_unread = || ui.is_closed();
    let (key, is_shown) = (key.as_ref(), !ui.is_document());
    let job = CheckJob { request, resume, out: args.out.clone(), stream, is_shown, is_unread: &is_unread, key, deadline };
    let mut report = job.run(list, args.storage.settings(context)?, &progress)?;
    let carried = report.summary.carried;
    if report.known > 0 {
        ui.say(format!("{carried} of {} carried over from the earlier check.", report.backups));
    }
    if report.known > carried && report.interrupted.is_none() {
        ui.say(format!(
            "{} checked again: not intact at this level, older than --resume-max-age, or with a changed row, location or listing.",
            count(report.known - carried, "backup"),
        ));
    }
    // Report and judge what was found, even if the file cannot be written.
    let closed = report.close(&progress);
    if let Some(document) = &report.document {
        ui.result(document, "results", || Grid::try_of(&document.results, view::CHECKS))?;
        if ui.is_table() {
            say_problems(context, document)?;
            ui.say(summary(&report));
        }
    } else if is_in_file {
        ui.say(summary(&report));
    }
    context.monitor.measured(Measured::of_check(&report, summary(&report)));
    let interrupted = report.interrupted.filter(|_| args.out.is_some() || !ui.is_closed());
    if let Some(why) = interrupted {
        let from = match &closed {
            Ok(Some(partial)) => format!("--resume {} continues it", shell_word(partial.display())),
            _ if ui.is_table() => "--resume continues from the document of --format json or --out FILE".to_owned(),
            _ if ui.is_stream() => "--resume continues from this stream".to_owned(),
            _ => "--resume continues from this document".to_owned(),
        };
        ui.warn(format!("stopped by {why} before the end; {from}"));
    }
    let is_finished = closed?.is_none();
    if let Some(failure) = report.failure {
        return Err(failure.into());
    }
    let signal = interrupted.filter(|why| *why != MAX_RUNTIME);
    let exit = || if part.is_some() { exit_of_shard(&report, is_finished) } else { exit(&report.summary) };
    Ok(signal.map_or_else(exit, Exit::of_signal))
}

fn share(args: &CheckCommandArgs) -> Result<Share> {
    let share = match (args.read_data_subset, args.sample) {
        (Some((part, of)), _) => Share::Part(part, of),
        (None, Some(fraction)) => Share::Fraction(fraction),
        (None, None) => Share::All,
    };
    if share != Share::All && args.level == Level::Quick {
        return Err(Error::usage("--read-data-subset and --sample select data, which --level quick does not read: use --level deep"));
    }
    Ok(share)
}

fn list(context: &Context<'_>, args: &CheckCommandArgs, request: &Request, progress: &ProgressDisplay<'_>) -> Result<TargetList> {
    let shard = args.shard.map(|shard| shard.shard(args.shards, context.environment)).transpose()?;
    if shard.is_some() && args.from.is_some() && request.options.share != Share::All {
        return Err(Error::usage(
            "--read-data-subset and --sample do not work with --shard of a catalog: each shard is checked as a whole",
        ));
    }
    let list = whole_list(context, args, shard.map(|shard| CatalogShare::new(shard, request)), progress)?;
    Ok(match shard {
        Some(shard) => list.keep_part(shard)?,
        None => list,
    })
}

fn whole_list(
    context: &Context<'_>,
    args: &CheckCommandArgs,
    share: Option<CatalogShare>,
    progress: &ProgressDisplay<'_>,
) -> Result<TargetList> {
    let selection = args.selection.selection(&args.backups)?;
    if let Some(path) = &args.from {
        return Ok(TargetList::from_scan(path, &selection, share, progress)?);
    }
    let mut database = context.connect()?;
    let wanted = args.selection.wanted(selection, None, &database)?;
    if args.all || !wanted.selection.backups.is_empty() {
        return Ok(TargetList::of_selection(database, &wanted, progress)?);
    }
    Ok(TargetList::of_findings(&mut database, &wanted, progress)?)
}

fn say_problems(context: &Context<'_>, document: &CheckDocument) -> io::Result<()> {
    let most = 20;
    for result in &document.results {
        let result = result?;
        if result.problems.is_empty() && result.warnings.is_empty() {
            continue;
        }
        let level = if result.verdict == CheckVerdict::Intact { format!(" by a {} check", result.level) } else { String::new() };
        context.ui.say(format!("{} is {}{level}:", result.id, result.verdict));
        let shown = if context.ui.verbose > 0 { usize::MAX } else { most };
        for problem in result.problems.iter().chain(&result.warnings).take(shown) {
            context.ui.say(format!("  {problem}"));
        }
        let more = (result.problems.len() + result.warnings.len()).saturating_sub(shown);
        if more > 0 {
            context.ui.say(format!("  and {more} more (-v shows all, --format json too)"));
        }
    }
    Ok(())
}

/// The number of backups with each verdict.
fn verdicts(summary: &Summary) -> String {
    let mut parts = counted(&[
        (summary.intact, "intact"),
        (summary.incomplete, "incomplete"),
        (summary.corrupt, "corrupt"),
        (summary.missing, "missing"),
        (summary.unverifiable, "unverifiable"),
    ]);
    let known = counted(&[
        (summary.intact_at_quick, "intact at level quick"),
        (summary.intact_at_deep, "intact at level deep"),
        (summary.unreadable, "unreadable: the disk reports read errors"),
    ]);
    if let Some(unverifiable) = parts.last_mut().filter(|_| !known.is_empty()) {
        unverifiable.push_str(&format!(" (of these {})", known.join(", ")));
    }
    parts.join(", ")
}

fn summary(report: &CheckReport<'_>) -> String {
    let summary = &report.summary;
    let mut sentence = match verdicts(summary).as_str() {
        "" if summary.left > 0 => "Nothing checked".to_owned(),
        "" => "Nothing to check".to_owned(),
        verdicts => format!("{verdicts} by a {} check", report.level),
    };
    if summary.busy > 0 {
        sentence.push_str(&format!("; {} being written", summary.busy));
    }
    if report.interrupted == Some(MAX_RUNTIME) {
        let done = report.backups - summary.left;
        let [done, all] = [done, done + summary.left].map(|number| HumanCount(number as u64));
        sentence.push_str(&format!("; stopped by {MAX_RUNTIME}, {done} of {all} done"));
    } else if summary.left > 0 {
        sentence.push_str(&format!("; {} left", summary.left));
    }
    if let Some(location) = &report.location {
        sentence.push_str(&format!(", in {}", location));
    }
    sentence
}

fn exit(summary: &Summary) -> Exit {
    if summary.incomplete + summary.corrupt + summary.missing + summary.unreadable > 0 {
        Exit::Damaged
    } else if summary.unverifiable > 0 {
        // A backup that could not be checked is not in order.
        Exit::Partial
    } else {
        Exit::Done
    }
}

/// The exit code of a shard of a catalog, which tells an engine whether to start it again. A shard that has all its results ends as any
/// other check.
fn exit_of_shard(report: &CheckReport<'_>, is_finished: bool) -> Exit {
    if report.summary.unreachable > 0 {
        Exit::Connection
    } else if report.interrupted.is_some() || !is_finished {
        Exit::Lock
    } else {
        exit(&report.summary)
    }
}
