//! A plan as a file for others: Markdown for a change ticket, SQL for the server's own client, CSV for a spreadsheet.

use std::io::{self, Write};
use std::path::Path;

use super::args::RecordArgs;
use super::view;
use super::who::who;
use crate::apply::statements;
use crate::db::Engine;
use crate::plan::Plan;
use crate::report::grid::{Format, OutputOptions};
use crate::report::markdown::{Commands, DatabaseView, PlanView, UnitView, plan_report};
use crate::report::script::{ScriptHeader, ScriptStatement, ScriptUnit, sql_script};
use crate::scan::Scan;

/// The kinds of reports, by the file's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For a change ticket.
    Markdown,
    /// For the server's own client.
    Sql,
    /// For a spreadsheet.
    Csv,
}

/// What a report is made of.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The scan that it came from.
    pub scan: &'a Scan,
    /// The engine that it is for.
    pub engine: Engine,
    /// Who and why.
    pub record: &'a RecordArgs,
    /// The plan's file, if it has one.
    pub plan_file: Option<&'a Path>,
}

impl Kind {
    /// The kind that a file's name asks for.
    pub fn of(path: &Path) -> Result<Self, String> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("md") => Ok(Self::Markdown),
            Some("sql") => Ok(Self::Sql),
            Some("csv") => Ok(Self::Csv),
            _ => Err(format!("--report {}: the name must end in .md, .sql or .csv", path.display())),
        }
    }
}

/// Writes a report of a plan.
pub fn write(kind: Kind, out: &mut dyn Write, material: Material<'_>) -> io::Result<()> {
    match kind {
        Kind::Markdown => markdown(out, material),
        Kind::Sql => script(out, material),
        Kind::Csv => {
            let options = OutputOptions { format: Format::Csv, ..OutputOptions::default() };
            let plan = material.plan;
            crate::report::grid::write(out, plan, "units", &view::units(&plan.units), &options).map_err(io::Error::other)
        }
    }
}

fn markdown(out: &mut dyn Write, material: Material<'_>) -> io::Result<()> {
    let Material { plan, scan, record, plan_file, .. } = material;
    let me = who(None);
    let author = me.user.map(|user| format!("{user} on {}", me.host));
    let file = plan_file.map_or_else(|| "PLAN".to_owned(), |path| path.display().to_string());
    let apply = [format!("cinder-backup-repair apply {file} --dry-run"), format!("cinder-backup-repair apply {file}")];
    let verify = ["cinder-backup-repair history list".to_owned(), "cinder-backup-repair history reconcile".to_owned()];
    let undo = ["cinder-backup-repair undo RUN".to_owned()];
    let view = PlanView {
        title: "Repair of Cinder volume backups",
        program: &plan.program,
        plan_id: &plan.id,
        sha256: &plan.sha256,
        taken_at: &plan.taken_at,
        author: author.as_deref(),
        reason: record.reason.as_deref(),
        ticket: record.ticket.as_deref(),
        database: DatabaseView {
            engine: &plan.database.engine,
            version: &plan.database.version,
            release: &plan.database.release,
            identity: &plan.database.identity,
        },
        policy: &plan.policy,
        units: plan
            .units
            .iter()
            .map(|unit| UnitView {
                number: unit.number,
                kind: unit.kind,
                id: &unit.id,
                name: unit.name.as_deref(),
                host: unit.host.as_deref(),
                evidence: &unit.evidence,
                before: &unit.before,
                changes: &unit.changes,
                follow_up: &unit.follow_up,
            })
            .collect(),
        untouched: scan.document.findings.iter().filter(|finding| !finding.is_actionable()).collect(),
        commands: Commands { apply: &apply, verify: &verify, undo: &undo },
    };
        rows: plan.rows(),
    plan_report(out, &view)
}

fn script(out: &mut dyn Write, material: Material<'_>) -> io::Result<()> {
    let Material { plan, engine, .. } = material;
    let header = ScriptHeader {
        program: &plan.program,
        plan_id: &plan.id,
        sha256: &plan.sha256,
        taken_at: &plan.taken_at,
        identity: &plan.database.identity,
    };
    let units: Vec<ScriptUnit> = plan
        .units
        .iter()
        .map(|unit| ScriptUnit {
            number: unit.number,
            title: format!("{} {} {:?}: {}", unit.kind.name(), unit.id, unit.name.as_deref().unwrap_or(""), view::changes(&unit.changes)),
            statements: statements(unit, plan.columns, engine)
                .into_iter()
                .map(|statement| ScriptStatement { name: statement.name, sql: statement.sql })
                .collect(),
            evidence: unit.evidence.iter().map(|evidence| evidence.text.clone()).collect(),
        })
        .collect();
    sql_script(out, engine, &header, &units)
}
