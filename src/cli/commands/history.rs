//! `history`

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::apply::{Overlay, intended_rows, settle_rows};
use crate::audit::record::{Event, Settled};
use crate::audit::{Anchor, AuditLog, RunRecords, RunSummary, load_run, load_runs, runs, verify};
use crate::cli::context::{Connected, Context};
use crate::cli::error::{Error, Result};
use crate::cli::exit::Exit;
use crate::cli::{carry_out, view, who};
use crate::db::Access;
use crate::domain::{Image, Outcome, Value};
use crate::report::grid::{Cell, Grid};
use crate::report::safe::terminal;
use crate::scan::{Lock, Reader, database_info};

/// Looks into the audit log.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// What to look at
    #[command(subcommand)]
    pub command: HistoryCommand,
}

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// All runs: when, who, what, how they ended
    List,
    /// One run in full: every row before and after, and why
    Show {
        /// The run, or the beginning of its id
        #[arg(value_name = "RUN")]
        run: String,
    },
    /// Check that no line of the log was changed, removed or added
    Verify {
        /// The hash of the last record as it was noted elsewhere: shows whether the log's end was cut off
        #[arg(long, value_name = "HASH")]
        expect_last: Option<String>,
    },
    /// Hold the log against the rows: what was kept, lost or changed since; settles intents without an outcome
    Reconcile {
        /// The run, or the beginning of its id [default: all runs on this database]
        #[arg(value_name = "RUN")]
        run: Option<String>,
    },
}

/// Runs `history`.
pub fn run(context: &Context<'_>, args: &HistoryArgs) -> Result<Exit> {
    let path = context.existing_audit_log()?;
    match &args.command {
        HistoryCommand::List => list(context, &path),
        HistoryCommand::Show { run } => show(context, &path, run),
        HistoryCommand::Verify { expect_last } => check(context, &path, expect_last.as_deref()),
        HistoryCommand::Reconcile { run } => reconcile(context, &path, run.as_deref()),
    }
}

fn state(summary: &RunSummary) -> String {
    if !summary.open.is_empty() {
        return "open".to_owned();
    }
    match (&summary.end, &summary.undone_by) {
        (_, Some(by)) => format!("undone by {by}"),
        (Some(end), None) => end.interrupted.as_ref().map_or_else(|| "ended".to_owned(), |why| format!("ended early: {why}")),
        (None, None) => "killed, settled".to_owned(),
    }
}

fn list(context: &Context<'_>, path: &std::path::Path) -> Result<Exit> {
    let found = runs(path)?;
    let rows = found
        .runs
        .iter()
        .map(|summary| {
            let who = &summary.begin.who;
            let user = who.sudo_user.as_ref().or(who.login_user.as_ref()).or(who.user.as_ref());
            vec![
                summary.run.as_str().into(),
                summary.at.as_str().into(),
                summary.begin.command.as_str().into(),
                view::optional(user.map(String::as_str)),
                summary.begin.database.location.as_str().into(),
                carry_out::words(&summary.tally).into(),
                state(summary).into(),
                view::optional(summary.begin.ticket.as_deref()),
                view::optional(summary.begin.reason.as_deref()),
            ]
        })
        .collect();
    let grid = Grid { columns: vec!["Run", "At", "Command", "User", "Database", "Units", "State", "Ticket", "Reason"], rows };
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
    let document = json!({ "schema": "cinder-backup-repair/history", "schema_version": 1, "audit_log": path, "runs": list });
    context.ui.result(&document, "runs", &grid)?;
    if let Some(damage) = found.damage {
        return Err(damage.into());
    }
    Ok(Exit::Done)
}

fn show(context: &Context<'_>, path: &std::path::Path, run: &str) -> Result<Exit> {
    let records = load_run(path, run)?;
    let mut rows = Vec::new();
    let mut units = Vec::new();
    for (number, unit) in &records.units {
        let outcome = unit.last_word();
        let changes =
            unit.outcome.as_ref().map(|outcome| &outcome.changes).filter(|changes| !changes.is_empty()).unwrap_or(&unit.intent.changes);
        let why: Vec<&str> = unit.intent.evidence.iter().map(|evidence| evidence.text.as_str()).collect();
        for change in changes {
            rows.push(vec![
                Cell::Integer(i64::try_from(*number).unwrap_or(i64::MAX)),
                outcome.map_or("open", Outcome::name).into(),
                change.table.name().into(),
                change.id.as_str().into(),
                change.column.as_str().into(),
                view::shown(&change.from).into(),
                view::shown(&change.to).into(),
                why.join("; ").into(),
            ]);
        }
        units.push(json!({ "unit": number, "intent": unit.intent, "outcome": unit.outcome, "settled": unit.settled }));
    }
    let grid = Grid { columns: vec!["Unit", "Outcome", "Table", "ID", "Column", "Before", "After", "Evidence"], rows };
    let document = json!({
        "schema": "cinder-backup-repair/run", "schema_version": 1, "run": records.run, "at": records.at,
        "begin": records.begin, "units": units,
        "end": records.end.as_ref().map(|end| json!({ "at": end.at, "summary": end.summary, "interrupted": end.interrupted })),
    });
    if context.ui.is_table() {
        let begin = &records.begin;
        let who = &begin.who;
        let line = |name: &str, value: &str| context.ui.text(&format!("{name:<10} {}\n", terminal(value)));
        line("run", &records.run)?;
        line("at", &records.at)?;
        line("command", &format!("{} ({})", begin.command, begin.program))?;
        line(
            "database",
            &format!(
                "{}, {} {}, Cinder {}",
                begin.database.location, begin.database.engine, begin.database.version, begin.database.release
            ),
        )?;
        let people = [("user", &who.user), ("login", &who.login_user), ("sudo", &who.sudo_user), ("database", &who.database_user)];
        let people: Vec<String> = people.iter().filter_map(|(what, name)| name.as_ref().map(|name| format!("{what} {name}"))).collect();
        line("who", &format!("{} on {}", people.join(", "), who.host))?;
        for (name, value) in [("reason", &begin.reason), ("ticket", &begin.ticket), ("undoes", &begin.undoes)] {
            if let Some(value) = value {
                line(name, value)?;
            }
        }
    }
    context.ui.result(&document, "units", &grid)?;
    Ok(Exit::Done)
}

fn check(context: &Context<'_>, path: &std::path::Path, expected: Option<&str>) -> Result<Exit> {
    let report = verify(path, expected)?;
    let rows = report
        .problems
        .iter()
        .map(|problem| {
            let line = i64::try_from(problem.line).unwrap_or(i64::MAX);
            vec![Cell::Integer(line), problem.kind.code().into(), problem.kind.to_string().into()]
        })
        .collect();
    let problems: Vec<serde_json::Value> = report
        .problems
        .iter()
        .map(|problem| json!({ "line": problem.line, "code": problem.kind.code(), "text": problem.kind.to_string() }))
        .collect();
    let document = json!({
        "schema": "cinder-backup-repair/history-verify", "schema_version": 1, "audit_log": path, "intact": report.is_intact(),
        "records": report.records, "torn": report.torn, "last_hash": report.last.hash, "last_seq": report.last.seq,
        "problem_count": report.problem_count, "problems": problems,
    });
    if !context.ui.is_table() || !report.problems.is_empty() {
        context.ui.result(&document, "problems", &Grid { columns: vec!["Line", "Code", "Problem"], rows })?;
    }
    if report.anchor == Some(Anchor::Missing) {
        return Err(Error::new(
            Exit::Damaged,
            format!("no record of {} has the expected hash: its end was cut off, or it was replaced", path.display()),
        ));
    }
    if !report.is_intact() {
        return Err(Error::new(
            Exit::Damaged,
            format!("{} was changed after it was written: {} problems", path.display(), report.problem_count),
        ));
    }
    if context.ui.is_table() {
        let torn = if report.torn > 0 { format!(", {} lines torn by crashes and accounted for", report.torn) } else { String::new() };
        context.ui.text(&format!(
            "{}: {} records, the chain is whole{torn}\nlast hash {}\n",
            path.display(),
            report.records,
            report.last.hash
        ))?;
    }
    if report.unfinished.is_some() {
        context.ui.warn("the last line is unfinished: it is being written now, or a crash tore it; the next run accounts for it");
    }
    Ok(Exit::Done)
}

#[derive(Debug, Serialize)]
struct Row {
    run: String,
    unit: usize,
    id: String,
    outcome: Option<Outcome>,
    state: &'static str,
    detail: String,
}

fn reconcile(context: &Context<'_>, path: &std::path::Path, run: Option<&str>) -> Result<Exit> {
    let mut connected = context.connect()?;
    let identity = database_info(connected.session.as_ref(), &connected.schema).identity;
    let all = runs(path)?;
    if let Some(damage) = all.damage {
        return Err(damage.into());
    }
    let chosen: Vec<String> = match run {
        Some(run) => vec![load_run(path, run)?.run],
        None => all.runs.iter().filter(|summary| summary.begin.database.identity == identity).map(|summary| summary.run.clone()).collect(),
    };
    let mut rows: Vec<Row> = Vec::new();
    // Later runs first: a row that a later run of ours wrote is not "changed since" by a stranger.
    let mut known: std::collections::HashMap<(crate::domain::Table, String), Image> = std::collections::HashMap::new();
    let mut seen_later: Option<(String, Overlay)> = None;
    let mut later: Vec<&String> = chosen.iter().rev().collect();
    let mut loaded: std::collections::VecDeque<RunRecords> = std::collections::VecDeque::new();
    while !later.is_empty() || !loaded.is_empty() {
        let Some(records) = loaded.pop_front() else {
            let together = together(&later, &all.runs);
            let wanted: Vec<String> = later.drain(..together).cloned().collect();
            loaded.extend(load_runs(path, &wanted)?);
            continue;
        };
        let run = &records.run;
        if records.begin.database.identity != identity {
            return Err(Error::new(Exit::Stale, format!("run {run} changed {}, but this is {identity}", records.begin.database.identity)));
        }
        for (number, unit) in records.units.iter().rev() {
            if unit.is_open() {
                let later = match &seen_later {
                    Some((of, rows)) if of == run => rows,
                    _ => &seen_later.insert((run.clone(), rows_seen_later(path, &all.runs, run)?)).1,
                };
                rows.push(settle(context, &mut connected, path, run, *number, unit, later)?);
                continue;
            }
            if unit.last_word() != Some(Outcome::Applied) {
                continue;
            }
            let after: &[Image] = unit
                .outcome
                .as_ref()
                .map(|outcome| outcome.after.as_slice())
                .filter(|after| !after.is_empty())
                .or(unit.settled.as_ref().map(|settled| settled.found.as_slice()))
                .unwrap_or_default();
            let before = unit
                .outcome
                .as_ref()
                .map(|outcome| outcome.before.as_slice())
                .filter(|before| !before.is_empty())
                .unwrap_or(&unit.intent.before);
            let (state, detail) = compare(&mut connected, before, after, &mut known)?;
            rows.push(Row { run: run.clone(), unit: *number, id: unit.intent.id.clone(), outcome: unit.last_word(), state, detail });
        }
    }
    rows.reverse();
    let grid = Grid {
        columns: vec!["Run", "Unit", "ID", "Outcome", "State", "Detail"],
        rows: rows
            .iter()
            .map(|row| {
                vec![
                    row.run.as_str().into(),
                    Cell::Integer(i64::try_from(row.unit).unwrap_or(i64::MAX)),
                    row.id.as_str().into(),
                    row.outcome.map_or("open", Outcome::name).into(),
                    row.state.into(),
                    row.detail.as_str().into(),
                ]
            })
            .collect(),
    };
    let document = json!({
        "schema": "cinder-backup-repair/history-reconcile", "schema_version": 1, "audit_log": path,
        "database": database_info(connected.session.as_ref(), &connected.schema), "units": rows,
    });
    context.ui.result(&document, "units", &grid)?;
    let count = |state: &str| rows.iter().filter(|row| row.state == state).count();
    let (lost, open) = (count("lost"), count("unknown"));
    context.ui.say(format!(
        "{} kept, {lost} lost, {} changed since, {} settled, {open} still unknown",
        count("kept"),
        count("changed") + count("superseded") + count("gone"),
        count("settled"),
    ));
    Ok(if open > 0 {
        Exit::Unknown
    } else if lost > 0 {
        Exit::Partial
    } else {
        Exit::Done
    })
}

/// How many of the next runs are read in one pass over the log: it may be long, and their units take memory.
fn together(next: &[&String], all: &[RunSummary]) -> usize {
    const MOST_UNITS: usize = 5_000;
    let units = |run: &String| all.iter().find(|summary| summary.run == *run).map_or(0, |summary| summary.intents);
    let mut sum = 0;
    let fits = next.iter().take_while(|run| {
        sum += units(run);
        sum <= MOST_UNITS
    });
    fits.count().max(1)
}

/// Whether what a unit wrote is still there.
fn compare(
    connected: &mut Connected,
    before: &[Image],
    after: &[Image],
    known: &mut std::collections::HashMap<(crate::domain::Table, String), Image>,
) -> Result<(&'static str, String)> {
    let mut details = Vec::new();
    let (mut lost, mut gone, mut superseded) = (0, 0, 0);
    connected.session.begin(Access::ReadOnly)?;
    let found: std::result::Result<Vec<Option<Image>>, _> = after
        .iter()
        .map(|image| {
            let mut reader = Reader { session: connected.session.as_mut(), schema: &connected.schema };
            crate::apply::current(&mut reader, image.table, &image.id, Lock::None)
        })
        .collect();
    connected.session.rollback()?;
    for (image, found) in after.iter().zip(found?) {
        let key = (image.table, image.id.clone());
        let later = known.contains_key(&key);
        known.entry(key).or_insert_with(|| image.clone());
        let Some(found) = found else {
            gone += 1;
            details.push(format!("{} {} is deleted", image.table, image.id));
            continue;
        };
        let moved = image.moved(&found);
        if moved.is_empty() {
            continue;
        }
        if later {
            superseded += 1;
            continue;
        }
        let old = before.iter().find(|old| old.table == image.table && old.id == image.id);
        if old.is_some_and(|old| old.moved(&found).is_empty()) {
            lost += 1;
            details.push(format!("{} {} is as it was before: the commit was lost", image.table, image.id));
            continue;
        }
        for column in moved.iter().filter(|moved| moved.column != "updated_at" || moved.planned == Value::Null) {
            details.push(format!(
                "{}.{} of {}: {} -> {}",
                column.table,
                column.column,
                column.id,
                view::shown(&column.planned),
                view::shown(&column.found)
            ));
        }
        if details.is_empty() {
            details.push(format!("{} {} was written since", image.table, image.id));
        }
    }
    let state = if lost > 0 {
        "lost"
    } else if gone > 0 {
        "gone"
    } else if !details.is_empty() {
        "changed"
    } else if superseded > 0 {
        "superseded"
    } else {
        "kept"
    };
    Ok((state, details.join("; ")))
}

/// The rows that runs after this one changed, as the first of them found them: what became of this run's own change to
/// them shows there, and not in what the database holds now.
fn rows_seen_later(path: &std::path::Path, all: &[RunSummary], run: &str) -> Result<Overlay> {
    let mut seen = Overlay::new();
    for later in all.iter().skip_while(|summary| summary.run != run).skip(1) {
        for unit in load_run(path, &later.run)?.units.into_values() {
            for image in unit.outcome.into_iter().flat_map(|outcome| outcome.before) {
                seen.entry((image.table, image.id.clone())).or_insert(image);
            }
        }
    }
    Ok(seen)
}

fn settle(
    context: &Context<'_>,
    connected: &mut Connected,
    path: &std::path::Path,
    run: &str,
    number: usize,
    unit: &crate::audit::UnitHistory,
    seen_later: &Overlay,
) -> Result<Row> {
    let outcome = unit.outcome.as_ref();
    let before = outcome.map(|outcome| outcome.before.as_slice()).filter(|before| !before.is_empty()).unwrap_or(&unit.intent.before);
    let intended = intended_rows(&unit.intent);
    let after = outcome.map(|outcome| outcome.after.as_slice()).filter(|after| !after.is_empty()).unwrap_or(&intended);
    // A transaction that is still ending holds its rows: wait for it where this account may lock, else look as it is.
    let lock = if connected.session.server().read_only { Lock::None } else { Lock::Held };
    let settled = match settle_rows(connected.session.as_mut(), &connected.schema, before, after, seen_later, lock) {
        Err(error) if error.kind == crate::db::DbErrorKind::Privilege && !error.is_fatal() => {
            settle_rows(connected.session.as_mut(), &connected.schema, before, after, seen_later, Lock::None)?
        }
        other => other?,
    };
    let who = who::who(connected.session.server().user.clone());
    let mut log = AuditLog::open(path, who::now)?;
    let event = Settled { unit: number, outcome: settled.outcome, reason: settled.reason.clone(), found: settled.found, who };
    log.append(run, Event::Settled(Box::new(event)))?;
    log.sync()?;
    context.ui.detail(format!("run {run}, unit {number}: {}", settled.reason));
    let state = if settled.outcome == Outcome::Unknown { "unknown" } else { "settled" };
    Ok(Row { run: run.to_owned(), unit: number, id: unit.intent.id.clone(), outcome: Some(settled.outcome), state, detail: settled.reason })
}
