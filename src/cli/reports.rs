//! Reports of a plan: Markdown for a change ticket, SQL for the database's own client, CSV for a spreadsheet.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use super::args::RecordArgs;
use super::context::follow_ups;
use super::view;
use crate::apply::{SimulatedOutcome, simulate};
use crate::db::literal::literal;
use crate::db::{Engine, task};
use crate::domain::text::shell_word;
use crate::domain::{Finding, Table, Value};
use crate::plan::Plan;
use crate::report::grid::{Format, Grid, OutputOptions};
use crate::report::markdown::{PlanView, plan_report};
use crate::report::script::{Kept, ScriptStatement, ScriptUnit, kept_time, sql_script};
use crate::scan::Scan;
use crate::spool::Spool;
use crate::workflow::actor;

/// The kinds of reports, by the file's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Markdown,
    Sql,
    Csv,
}

#[derive(Clone, Copy)]
pub struct Material<'a> {
    pub plan: &'a Plan,
    pub scan: &'a Scan,
    /// The findings that are not in the plan.
    pub others: &'a Spool<Finding>,
    pub engine: Engine,
    pub record: &'a RecordArgs,
    pub plan_file: Option<&'a Path>,
    /// The options that a command needs for the same database.
    pub same_places: &'a str,
}

impl Kind {
    pub fn of(path: &Path) -> Result<Self, String> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("md") => Ok(Self::Markdown),
            Some("sql") => Ok(Self::Sql),
            Some("csv") => Ok(Self::Csv),
            _ => Err(format!("--report {}: the name must end in .md, .sql or .csv", path.display())),
        }
    }
}

pub fn write(kind: Kind, out: &mut dyn Write, material: Material<'_>) -> io::Result<()> {
    match kind {
        Kind::Markdown => markdown(out, material),
        Kind::Sql => script(out, material),
        Kind::Csv => {
            let options = OutputOptions { format: Format::Csv, ..OutputOptions::default() };
            let plan = material.plan;
            let grid = || Grid::try_of(&plan.units, view::UNITS);
            crate::report::grid::write(out, plan, "units", grid, &options).map_err(io::Error::other)
        }
    }
}

fn markdown(out: &mut dyn Write, material: Material<'_>) -> io::Result<()> {
    let Material { plan, others, record, plan_file, same_places: same, .. } = material;
    let me = actor::current(None);
    let author = me.user.map(|user| format!("{user} on {}", me.host));
    let file = plan_file.map_or_else(|| "PLAN".to_owned(), |path| shell_word(path.display()));
    let command = |words: &str| format!("cinder-backup-repair {words}{same}");
    let view = PlanView {
        plan,
        author: author.as_deref(),
        reason: record.reason.as_deref(),
        ticket: record.ticket.as_deref(),
        follow_up: &|unit| follow_ups(&unit.follow_up, same),
        skipped: others,
        commands: vec![
            ("Apply", vec![command(&format!("apply {file} --dry-run")), command(&format!("apply {file}"))]),
            ("Verify afterwards", vec![command("history list"), command("history reconcile")]),
            ("Undo", vec![command("undo RUN")]),
        ],
    };
    plan_report(out, &view)
}

fn script(out: &mut dyn Write, material: Material<'_>) -> io::Result<()> {
    let Material { plan, scan, engine, .. } = material;
    // Rows that a later unit finds as an earlier one has left them.
    let (mut applied, mut shared) = (0, BTreeSet::new());
    for simulated in simulate(&plan.units, &scan.census)? {
        let (simulated, _) = simulated?;
        applied += usize::from(simulated.outcome == SimulatedOutcome::Runs);
        shared.extend(simulated.written);
    }
    let shared: BTreeMap<(Table, String), usize> = shared.into_iter().zip(1..).collect();
    let number = |table: Table, id: &str| shared.get(&(table, id.to_owned())).copied();
    let since = |table: Table, id: &str| kept_time(engine, number(table, id).unwrap_or(0));
    let units = simulate(&plan.units, &scan.census)?.map(|simulated| {
        let (simulated, unit) = simulated?;
        Ok(ScriptUnit {
            number: unit.number,
            title: format!("{} {} {:?}: {}", unit.kind, unit.id, unit.name.as_deref().unwrap_or(""), view::changes(&simulated.changes)),
            statements: simulated
                .statements(plan.columns, engine, &since)
                .into_iter()
                .map(|((table, id), statement)| {
                    let keep = number(table, id).map(|number| Kept {
                        number,
                        table,
                        id: literal(&Value::from(id), engine).unwrap_or_else(|error| error.to_string()),
                    });
                    ScriptStatement { task: task(&statement.name), sql: statement.sql, keep }
                })
                .collect(),
            evidence: unit.evidence.iter().map(|evidence| evidence.text.clone()).collect(),
            left_out: match simulated.outcome {
                SimulatedOutcome::Runs => None,
                SimulatedOutcome::Unneeded => Some("the units before it already correct the row."),
                SimulatedOutcome::Incomplete => {
                    Some("after the units before it, its parent's counter must change, too; make a new plan when this script is done.")
                }
            },
        })
    });
    sql_script(out, engine, plan, applied, units)
}
