//! `history`

mod head;
mod reconcile;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use head::LogHead;

/// What `history verify --sign-key` writes.
pub(super) type SignedHead = Sealed<LogHead>;

use crate::audit::{Begin, Head, Intent, Problem, RunRecords, RunSummary, Settled, UnitOutcome, load_run, runs, verify};
use crate::cli::args::whole_number;
use crate::cli::follow_up::{FollowUpArgs, FollowUps};
use crate::cli::new_files::NewFiles;
use crate::cli::{Context, Error, Exit, Result, sentences};
use crate::domain::text::count;
use crate::domain::{CodeSet, DatabaseInfo, Outcome, Sealed, Tally};
use crate::report::grid::{Column, Grid};
use crate::report::safe::terminal;
use crate::workflow::VerifyKey;

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// What to read
    #[command(subcommand)]
    pub command: HistoryCommand,
}

#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// All runs: time, actor, command, end
    List {
        /// Only this many runs, the newest
        #[arg(long, value_name = "N", value_parser = whole_number)]
        limit: Option<usize>,
    },
    /// One run: every row before and after, and why
    Show {
        /// The run, or the beginning of its id
        #[arg(value_name = "RUN")]
        run: String,
        #[command(flatten)]
        follow_up: FollowUpArgs,
    },
    /// Verify the chain and the digest of each record: finds accidental changes and edited records
    Verify {
        /// The hash of the last record as noted elsewhere: shows whether the end of the log was cut off
        #[arg(long, value_name = "HASH", value_parser = hash)]
        expect_last: Option<String>,
        /// If the log is intact, sign its head (the last record) with this private key (Ed25519 in PEM)
        #[arg(long, value_name = "FILE", requires = "out")]
        sign_key: Option<PathBuf>,
        /// Write the signed head to this file, which must not exist yet; keep it on another host
        #[arg(long, value_name = "FILE", requires = "sign_key")]
        out: Option<PathBuf>,
        /// The public key (PEM) for the private key that signed the head
        #[arg(long, value_name = "FILE", requires = "head")]
        verify_key: Option<PathBuf>,
        /// Compare the log with this signed head: shows whether an earlier record was changed, or the log cut off
        #[arg(long, value_name = "FILE", requires = "verify_key", conflicts_with = "expect_last")]
        head: Option<PathBuf>,
    },
    /// Compare the log with the rows: kept, lost or changed since; settles unknown outcomes
    Reconcile {
        /// The run, or the beginning of its id [default: all runs on this database]
        #[arg(value_name = "RUN")]
        run: Option<String>,
    },
}

/// Reads a hash. An empty variable in a script must not look like a log that was cut off.
fn hash(text: &str) -> std::result::Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err("a hash has 64 hexadecimal digits, as in the last line of `history verify`".to_owned())
}

pub fn run(context: &Context<'_>, args: &HistoryArgs) -> Result<Exit> {
    let path = context.existing_audit_log()?;
    match &args.command {
        HistoryCommand::List { limit } => list(context, &path, *limit),
        HistoryCommand::Show { run, follow_up } => show(context, &path, run, follow_up.follow_up.as_ref()),
        HistoryCommand::Verify { expect_last, sign_key, out, verify_key, head } => {
            let signs = context.signing_key(sign_key.as_deref())?.zip(out.as_ref());
            let key = verify_key.as_deref().map(VerifyKey::read).transpose()?;
            let head = key.zip(head.as_ref()).map(|(key, head)| LogHead::read(head, &key)).transpose()?;
            let expected = expect_last.as_deref().or(head.as_ref().map(|head| head.last_hash.as_str()));
            let last = check(context, &path, expected)?;
            if let Some(head) = &head {
                context.ui.say(format!("record {} is as it was signed on {}", head.last_seq, head.at));
            }
            if let Some((key, out)) = signs {
                LogHead::write(out, &key, &path, &last)?;
                context.ui.say(format!("record {} is signed in {}: keep that file elsewhere", last.seq, out.display()));
            }
            Ok(Exit::Done)
        }
        HistoryCommand::Reconcile { run } => reconcile::reconcile(context, &path, run.as_deref()),
    }
}

/// The document of `history show`. It borrows the records, which may be hundreds of MiB.
#[derive(Serialize, JsonSchema)]
pub(super) struct Run<'r> {
    schema: &'static str,
    schema_version: u32,
    run: &'r str,
    at: &'r str,
    begin: &'r Begin,
    summary: &'r Tally,
    units: Vec<Unit<'r>>,
    #[schemars(with = "Option<RunEnd>")]
    end: Option<serde_json::Value>,
}

/// How the run ended.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct RunEnd {
    at: Option<String>,
    summary: Tally,
    interrupted: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Unit<'r> {
    unit: usize,
    intent: &'r Intent,
    outcome: &'r Option<UnitOutcome>,
    settled: &'r Option<Settled>,
}

/// A path as JSON takes it: a name need not be UTF-8, but a text must.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn state(summary: &RunSummary) -> String {
    if !summary.open.is_empty() {
        return if summary.unseen > 0 { "open" } else { "unknown" }.to_owned();
    }
    match (&summary.end, &summary.undone_by) {
        (_, Some(by)) => format!("undone by {by}"),
        (Some(end), None) => end.interrupted.as_ref().map_or_else(|| "ended".to_owned(), |why| format!("ended early: {why}")),
        (None, None) if summary.over => "killed, settled".to_owned(),
        // Between two batches a running one has nothing open either.
        (None, None) => "killed or still running".to_owned(),
    }
}

const RUNS: &[Column<RunSummary>] = &[
    ("Run", |summary| summary.run.as_str().into()),
    ("At", |summary| summary.at.as_str().into()),
    ("Command", |summary| summary.begin.command.as_str().into()),
    ("User", |summary| {
        let who = &summary.begin.who;
        who.sudo_user.as_deref().or(who.login_user.as_deref()).or(who.user.as_deref()).into()
    }),
    ("Database", |summary| summary.begin.database.location.as_deref().into()),
    ("Units", |summary| sentences::tally(&summary.tally).into()),
    ("State", |summary| state(summary).into()),
    ("Ticket", |summary| summary.begin.ticket.as_deref().into()),
    ("Reason", |summary| summary.begin.reason.as_deref().into()),
];

fn list(context: &Context<'_>, path: &Path, limit: Option<usize>) -> Result<Exit> {
    let mut found = runs(path)?;
    let older = found.runs.len().saturating_sub(limit.unwrap_or(usize::MAX));
    found.runs.drain(..older);
    let list: Vec<serde_json::Value> = found
        .runs
        .iter()
        .map(|summary| {
            json!({
                "run": summary.run, "at": summary.at, "begin": summary.begin, "intents": summary.intents,
                "summary": summary.tally, "open": summary.open, "undone_by": summary.undone_by, "state": state(summary),
            })
        })
        .collect();
    let document = json!({ "schema": "cinder-backup-repair/history", "schema_version": 1, "audit_log": shown(path), "runs": list });
    context.ui.result(&document, "runs", || Grid::of(&found.runs, RUNS))?;
    if let Some(damage) = found.damage {
        return Err(damage.into());
    }
    Ok(Exit::Done)
}

fn show(context: &Context<'_>, path: &Path, run: &str, follow_up: Option<&PathBuf>) -> Result<Exit> {
    let file = follow_up.map(|path| NewFiles::create(std::iter::once(path))).transpose()?;
    let records = load_run(path, run)?;
    let mut rows = Vec::new();
    let mut units = Vec::with_capacity(records.units.len());
    let mut follow_ups = FollowUps::default();
    for (number, unit) in &records.units {
        let outcome = unit.current_outcome();
        units.push(Unit { unit: *number, intent: &unit.intent, outcome: &unit.outcome, settled: &unit.settled });
        if outcome == Some(Outcome::NotBegun) {
            continue;
        }
        if outcome == Some(Outcome::Applied) {
            unit.intent.follow_up.iter().try_for_each(|command| follow_ups.add(command))?;
        }
        let changes =
            unit.outcome.as_ref().map(|outcome| &outcome.changes).filter(|changes| !changes.is_empty()).unwrap_or(&unit.intent.changes);
        let why: Vec<&str> = unit.intent.evidence.iter().map(|evidence| evidence.text.as_str()).collect();
        for change in changes {
            rows.push(Ok(vec![
                (*number).into(),
                outcome.map_or_else(|| "open".to_owned(), |outcome| outcome.to_string()).into(),
                change.table.to_string().into(),
                change.id.as_str().into(),
                change.column.as_str().into(),
                change.from.to_string().into(),
                change.to.to_string().into(),
                why.join("; ").into(),
            ]));
        }
    }
    let tally = records.tally();
    let grid = || Grid::new(&["Unit", "Outcome", "Table", "ID", "Column", "Before", "After", "Evidence"], rows);
    let document = Run {
        schema: "cinder-backup-repair/run",
        schema_version: 1,
        run: &records.run,
        at: &records.at,
        begin: &records.begin,
        summary: &tally,
        units,
        end: records.end.as_ref().map(|end| json!({ "at": records.ended_at, "summary": end.summary, "interrupted": end.interrupted })),
    };
    if context.ui.is_table() {
        print_head(context, &records)?;
    }
    context.ui.result(&document, "units", grid)?;
    if !follow_ups.commands.is_empty() && (file.is_some() || context.ui.is_table()) {
        let summary = runs(path)?.runs.into_iter().find(|summary| summary.run == records.run);
        if let Some(by) = summary.and_then(|summary| summary.undone_by) {
            context.ui.warn(format!("run {by} undid at least a part of this one: the commands that follow are not for what it restored"));
        }
    }
    follow_ups.present(context.ui, file, "--follow-up FILE writes all")?;
    if tally.not_begun > 0 {
        let were = if tally.not_begun == 1 { "was" } else { "were" };
        context.ui.say(format!("{} {were} not begun.", count(tally.not_begun, "unit")));
    }
    Ok(Exit::Done)
}

fn print_head(context: &Context<'_>, records: &RunRecords) -> Result<()> {
    let begin = &records.begin;
    let who = &begin.who;
    let line = |name: &str, value: &str| context.ui.text(&format!("{name:<10} {}\n", terminal(value)));
    line("run", &records.run)?;
    line("at", &records.at)?;
    line("command", &format!("{} ({})", begin.command, begin.program))?;
    let DatabaseInfo { engine, version, release, location, .. } = &begin.database;
    line("database", &format!("{}, {engine} {version}, Cinder {release}", location.as_deref().unwrap_or_default()))?;
    let people = [("user", &who.user), ("login", &who.login_user), ("sudo", &who.sudo_user), ("database", &who.database_user)];
    let people: Vec<String> = people.iter().filter_map(|(what, name)| name.as_ref().map(|name| format!("{what} {name}"))).collect();
    line("who", &format!("{} on {}", people.join(", "), who.host))?;
    for (name, value) in [("reason", &begin.reason), ("ticket", &begin.ticket), ("undoes", &begin.undoes)] {
        if let Some(value) = value {
            line(name, value)?;
        }
    }
    Ok(())
}

const PROBLEMS: &[Column<Problem>] = &[
    ("Line", |problem| problem.line.into()),
    ("Code", |problem| problem.code.as_str().into()),
    ("Problem", |problem| problem.text.as_str().into()),
];

/// Checks the log, and says what its last record is if nothing is wrong.
fn check(context: &Context<'_>, path: &Path, expected: Option<&str>) -> Result<Head> {
    let report = verify(path, expected)?;
    let problems: Vec<serde_json::Value> = report
        .problems
        .iter()
        .map(|problem| json!({ "line": problem.line, "code": problem.code.as_str(), "text": problem.text }))
        .collect();
    let document = json!({
        "schema": "cinder-backup-repair/history-verify", "schema_version": 1, "audit_log": shown(path), "intact": report.is_intact(),
        "records": report.records, "torn": report.torn, "last_hash": report.last.hash, "last_seq": report.last.seq,
        "problem_count": report.problem_count, "problems": problems,
    });
    if !context.ui.is_table() || !report.problems.is_empty() {
        context.ui.result(&document, "problems", || Grid::of(&report.problems, PROBLEMS))?;
    }
    let (shown, problems) = (path.display(), count(report.problem_count, "problem"));
    if report.lacks_expected {
        let problem = format!("no record of {shown} has the expected hash: its end was cut off, or it was replaced");
        return Err(Error::new(Exit::Damaged, problem));
    }
    if !report.is_intact() {
        return Err(Error::new(Exit::Damaged, format!("{shown} was changed after it was written: {problems}")));
    }
    if context.ui.is_table() {
        let torn =
            if report.torn > 0 { format!(", {} cut off by crashes and accounted for", count(report.torn, "line")) } else { String::new() };
        let (records, last) = (report.records, &report.last.hash);
        context.ui.text(&format!("{shown}: {records} records, the hash chain is intact{torn}\nlast hash {last}\n"))?;
    }
    if report.is_unfinished {
        context.ui.warn("the last line is unfinished: it is being written now, or a crash cut it off; the next run accounts for it");
    }
    Ok(report.last)
}
