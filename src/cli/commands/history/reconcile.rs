//! `history reconcile`: the log against the rows.

use std::collections::{HashSet, VecDeque};
use std::path::Path;

use jiff::civil::DateTime;
use serde::Serialize;
use serde_json::json;

use super::shown;
use crate::apply::{LaterUnits, Standing, UnitContext, current, first_writers, settle_unit};
use crate::audit::record::{Event, Settled};
use crate::audit::{AuditLog, RunRecords, RunSummary, Runs, UnitHistory, load_run, load_runs, runs};
use crate::cli::context::{Connected, Context};
use crate::cli::error::{Error, Result};
use crate::cli::exit::Exit;
use crate::cli::{actor, view};
use crate::db::{Access, DbErrorKind, Engine};
use crate::domain::{Image, Outcome, Table, Value};
use crate::report::grid::{Cell, Grid};
use crate::report::safe::terminal;
use crate::scan::{Lock, Reader, database_info, situation};

#[derive(Debug, Serialize)]
struct Row {
    run: String,
    unit: usize,
    id: String,
    outcome: Option<Outcome>,
    state: &'static str,
    detail: String,
}

pub(super) fn reconcile(context: &Context<'_>, path: &Path, run: Option<&str>) -> Result<Exit> {
    let mut connected = context.connect()?;
    let here = database_info(connected.session.as_ref(), &connected.schema);
    let identity = &here.identity;
    let target = run.map(|run| load_run(path, run)).transpose()?;
    if let Some(other) = target.as_ref().filter(|run| run.begin.database.identity != *identity) {
        return Err(Error::new(Exit::Stale, format!("run {} changed {}, but this is {here}", other.run, other.begin.database)));
    }
    let target = target.map(|records| records.run);
    let is_listed = |run: &str| target.as_deref().is_none_or(|target| target == run);
    let whole = |found: Runs| -> Result<Vec<RunSummary>> {
        found.damage.map_or(Ok(()), Err)?;
        Ok(found.runs.into_iter().filter(|summary| summary.begin.database.identity == *identity).collect())
    };
    let mut all = whole(runs(path)?)?;
    // A run at work holds the log: whoever has it can be sure that nothing is written between a look at the rows and the record
    // of what was seen. What is open may be known by then.
    let mut log = None;
    if all.iter().any(|summary| is_listed(&summary.run) && (!summary.open.is_empty() || summary.provisional > 0)) {
        log = Some(AuditLog::open(path, actor::now)?);
        all = whole(runs(path)?)?;
    }
    // Read before any row: an early clock only makes it wait longer.
    let now = match log {
        Some(_) => situation(&mut Reader { session: connected.session.as_mut(), schema: &connected.schema })?.now,
        None => DateTime::MIN,
    };
    let first = target.as_ref().and_then(|target| all.iter().position(|summary| summary.run == *target)).unwrap_or(0);
    let mut backwards: Vec<&RunSummary> = all.iter().skip(first).rev().collect();
    let mut loaded: VecDeque<RunRecords> = VecDeque::new();
    let mut rows: Vec<Row> = Vec::new();
    // Later units first: what one of ours wrote is not "changed since" by a stranger, and shows nothing of those before it.
    let (mut written, mut later) = (HashSet::new(), LaterUnits::default());
    while !backwards.is_empty() || !loaded.is_empty() {
        let Some(mut records) = loaded.pop_front() else {
            let together = together(&backwards);
            let wanted: Vec<&RunSummary> = backwards.drain(..together).collect();
            loaded.extend(load_runs(path, &wanted)?);
            continue;
        };
        let (is_listed, run) = (is_listed(&records.run), records.run.clone());
        // Units that are open count among those that may have written; those before a unit stay so until their turn comes.
        let first_writers = first_writers(&records);
        for number in records.units.keys().rev().copied().collect::<Vec<_>>() {
            let Some(unit) = records.units.get_mut(&number) else { continue };
            let unit_context = UnitContext { later: &later, first_writers: &first_writers, now };
            let settled = match log.as_mut().filter(|_| is_listed && (unit.is_open() || unit.is_provisional())) {
                Some(log) => settle(context, &mut connected, log, &run, unit, &unit_context)?,
                None => None,
            };
            match settled {
                Some(row) => rows.push(row),
                None if unit.current_outcome() == Some(Outcome::Applied) => {
                    let (state, detail) = compare(&mut connected, unit, &mut written, is_listed)?;
                    let (run, id, outcome) = (run.clone(), unit.intent.id.clone(), unit.current_outcome());
                    rows.extend(is_listed.then_some(Row { run, unit: number, id, outcome, state, detail }));
                }
                None => {}
            }
            if log.is_some() {
                later.add(unit, &first_writers);
            }
        }
    }
    rows.reverse();
    report(context, path, &connected, &rows)
}

fn report(context: &Context<'_>, path: &Path, connected: &Connected, rows: &[Row]) -> Result<Exit> {
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
        "schema": "cinder-backup-repair/history-reconcile", "schema_version": 1, "audit_log": shown(path),
        "database": database_info(connected.session.as_ref(), &connected.schema), "units": rows,
    });
    context.ui.result(&document, "units", &grid)?;
    let count = |state: &str| rows.iter().filter(|row| row.state == state).count();
    let (lost, open) = (count("lost"), count("unknown"));
    context.ui.say(format!(
        "{} kept, {lost} lost, {} changed since, {} changed again by this program, {} settled, {open} still unknown, in {}",
        count("kept"),
        count("changed") + count("gone"),
        count("superseded"),
        count("settled"),
        terminal(&connected.location),
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
fn together(next: &[&RunSummary]) -> usize {
    const MOST_UNITS: usize = 5_000;
    let mut sum = 0;
    let fits = next.iter().take_while(|summary| {
        sum += summary.intents;
        sum <= MOST_UNITS
    });
    fits.count().max(1)
}

/// Whether what a unit wrote is still there; one that is not asked for is only taken down among those that wrote later.
fn compare(
    connected: &mut Connected,
    unit: &UnitHistory,
    written: &mut HashSet<(Table, String)>,
    is_listed: bool,
) -> Result<(&'static str, String)> {
    let outcome = unit.outcome.as_ref();
    let settled = unit.settled.as_ref().map(|settled| settled.found.as_slice()).unwrap_or_default();
    let after: &[Image] = outcome.map(|outcome| outcome.after.as_slice()).filter(|after| !after.is_empty()).unwrap_or(settled);
    let before = outcome.map(|outcome| outcome.before.as_slice()).filter(|before| !before.is_empty()).unwrap_or(&unit.intent.before);
    if !is_listed {
        written.extend(after.iter().map(|image| (image.table, image.id.clone())));
        return Ok(("", String::new()));
    }
    let mut details = Vec::new();
    let (mut lost, mut gone, mut superseded) = (0, 0, 0);
    connected.session.begin(Access::ReadOnly)?;
    let found: std::result::Result<Vec<Option<Image>>, _> = after
        .iter()
        .map(|image| {
            let mut reader = Reader { session: connected.session.as_mut(), schema: &connected.schema };
            current(&mut reader, image.table, &image.id, Lock::None)
        })
        .collect();
    connected.session.rollback()?;
    for (image, found) in after.iter().zip(found?) {
        let later = !written.insert((image.table, image.id.clone()));
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

/// Finds out how a unit ended and records it if that is new. Returns no row if the known outcome still holds.
fn settle(
    context: &Context<'_>,
    connected: &mut Connected,
    log: &mut AuditLog,
    run: &str,
    unit: &mut UnitHistory,
    unit_context: &UnitContext<'_>,
) -> Result<Option<Row>> {
    // A transaction that is still ending holds its rows: wait for it where this account may lock, else look as it is.
    let mut lock = if connected.session.server().read_only { Lock::None } else { Lock::Held };
    let seen = match settle_unit(connected.session.as_mut(), &connected.schema, unit, unit_context, lock) {
        Err(error) if error.kind == DbErrorKind::Privilege && !error.is_fatal() => {
            lock = Lock::None;
            settle_unit(connected.session.as_mut(), &connected.schema, unit, unit_context, lock)?
        }
        other => other?,
    };
    let number = unit.intent.unit;
    let who = actor::current(connected.session.server().user.clone());
    // A replica that lags shows the rows of an earlier time: what is read without a lock is not final.
    let is_exact = lock == Lock::Held || connected.session.server().engine == Engine::Sqlite;
    let after_window = is_exact && unit_context.is_over(unit);
    // The rows may have been changed since: only rows that contradict the known outcome change it.
    let stands = match unit.current_outcome() {
        Some(Outcome::Applied) => seen.outcome != Outcome::Failed,
        Some(Outcome::Failed) => seen.standing != Standing::After,
        _ => false,
    };
    let settled = match (stands, unit.current_outcome()) {
        (true, _) if !after_window => return Ok(None),
        // Not the rows as they are now: an undo goes by those that the unit left.
        (true, Some(outcome)) => {
            let reason = format!("looked at again after its time to write was over: it stays {}", outcome.name());
            let left = unit.outcome.as_ref().map(|outcome| outcome.after.clone()).unwrap_or_default();
            let found = unit.settled.as_ref().map_or(left, |settled| settled.found.clone());
            Settled { unit: number, outcome, reason, found, after_window, who }
        }
        _ => Settled { unit: number, outcome: seen.outcome, reason: seen.reason, found: seen.found, after_window, who },
    };
    log.append(run, Event::Settled(Box::new(settled.clone())))?;
    log.sync()?;
    context.ui.detail(format!("run {run}, unit {number}: {}", settled.reason));
    let (outcome, detail) = (Some(settled.outcome), settled.reason.clone());
    let state = if settled.outcome == Outcome::Unknown { "unknown" } else { "settled" };
    unit.settled = Some(settled);
    Ok((!stands).then(|| Row { run: run.to_owned(), unit: number, id: unit.intent.id.clone(), outcome, state, detail }))
}
