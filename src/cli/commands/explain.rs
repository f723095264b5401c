//! `explain`

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::args::{assume_dead, span};
use crate::cli::context::follow_ups;
use crate::cli::proposal::gather;
use crate::cli::storage::CheckArgs;
use crate::cli::{Context, Error, Exit, ProgressDisplay, Result, Ui, view};
use crate::domain::status::{DELETED, ERROR, ERROR_DELETING};
use crate::domain::text::count;
use crate::domain::time::{human, seconds};
use crate::domain::{DatabaseInfo, Policy, Selection, Table, Thresholds, Value};
use crate::report::grid::Grid;
use crate::workflow::{Explanation, Wanted, Way, explain};

/// How many increments the page names.
const INCREMENTS: usize = 20;

/// Shows what is known about one backup: its rows, a timeline, the evidence, and for each status the command that leads there, or why none
/// does. Changes nothing.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The id or the name of the backup
    #[arg(value_name = "BACKUP")]
    pub backup: String,
    /// Operations that are younger count as recent
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = span)]
    pub older_than: Duration,
    /// Treat cinder-backup on this host as down even if it has heartbeats (repeatable; `all` for every host)
    #[arg(long, value_name = "HOST")]
    pub assume_dead: Vec<String>,
    #[command(flatten)]
    pub checks: CheckArgs,
}

/// The document `cinder-backup-repair/explain`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Document<'e> {
    schema: &'static str,
    schema_version: u32,
    database: DatabaseInfo,
    #[serde(flatten)]
    explanation: &'e Explanation,
}

pub fn run(context: &Context<'_>, args: &ExplainArgs) -> Result<Exit> {
    let ui = context.ui;
    if !ui.is_table() && !ui.is_document() {
        return Err(Error::usage("explain prints a page or a document: use --format json or yaml"));
    }
    let mut database = context.connect()?;
    let thresholds = Thresholds { older_than_seconds: seconds(args.older_than), ..database.thresholds() };
    let assume_dead = assume_dead(&args.assume_dead);
    let policy = Policy { thresholds, assume_dead, accept_quick: args.checks.accept_quick, ..Policy::default() };
    let selection = Selection { backups: [args.backup.clone()].into(), ..Selection::default() };
    let mut wanted = Wanted { selection, policy, may_be_empty: false };
    let progress = ProgressDisplay::new(ui);
    // The most that a decision may need to know.
    (wanted.policy.to, wanted.policy.asked) = (Some(DELETED.to_owned()), [ERROR, ERROR_DELETING].map(str::to_owned).into());
    let checks = gather(context, &mut database, &wanted, &args.checks, &progress)?;
    (wanted.policy.to, wanted.policy.asked) = (None, BTreeSet::new());
    let has_checked = args.checks.check.is_some();
    let explanation = explain(&mut database, wanted, &checks, has_checked, &context.audit_path()?, &progress)?;
    if ui.is_document() {
        let document =
            Document { schema: "cinder-backup-repair/explain", schema_version: 1, database: database.info(), explanation: &explanation };
        ui.result(&document, "", || Ok(Grid::default()))?;
    } else {
        let places = context.same_places(&database);
        let storage = args.checks.storage.place.same();
        write_page(ui, &explanation, &places, &format!("{places}{storage}"))?;
    }
    Ok(Exit::Done)
}

/// Writes a page for people. `places` are the options for the same database, and `all_places` also those for the same storage.
fn write_page(ui: &Ui, explanation: &Explanation, places: &str, all_places: &str) -> io::Result<()> {
    let Explanation { id, name, rows, attachments, increments, timeline, findings, reason, check, ways } = explanation;
    let section = |title: &str, lines: Vec<String>| -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        ui.text(&format!("{}\n", ui.strong(title)))?;
        lines.iter().try_for_each(|line| ui.result_line(&format!("  {line}")))
    };
    let name = name.as_deref().map(|name| format!(" {name:?}")).unwrap_or_default();
    ui.result_line(&format!("Backup {id}{name}"))?;
    let known = rows.iter().enumerate().map(|(place, row)| {
        let cells = row.columns.iter().filter(|(name, value)| **value != Value::Null && *name != "deleted");
        let cells: Vec<String> = cells.map(|(name, value)| format!("{name} {value}")).collect();
        let what = if place > 0 && row.table == Table::Backups { "parent".to_owned() } else { row.table.to_string() };
        format!("{what} {}: {}", row.id, cells.join(", "))
    });
    let based = increments.iter().take(INCREMENTS).map(|id| format!("increment {id} is based on it"));
    let more = increments.len().saturating_sub(INCREMENTS);
    let more = (more > 0).then(|| format!("{} based on it (all are in --format json)", count(more, "more increment")));
    section("Rows", known.chain(attachments.iter().cloned()).chain(based).chain(more).collect())?;
    section("Timeline", timeline.iter().map(|moment| format!("{}  {}", moment.at, moment.text)).collect())?;
    let mut verdict: Vec<String> = reason.iter().cloned().collect();
    for finding in findings {
        let age = finding.age_seconds.map(|age| format!(", for {}", human(age))).unwrap_or_default();
        verdict.push(format!("{}: {}{age}", finding.verdict, finding.status.as_deref().unwrap_or("NULL")));
        verdict.extend(finding.evidence.iter().map(|evidence| format!("{}: {}", evidence.code, evidence.text)));
    }
    section("Verdict", verdict)?;
    let storage = match check {
        Some(check) => {
            let problems =
                check.problems.iter().chain(&check.warnings).take(10).map(|problem| format!("{}: {}", problem.code, problem.text));
            [format!("{} at level {}", check.verdict, check.level)].into_iter().chain(problems).collect()
        }
        None => vec!["not checked".to_owned()],
    };
    section("Storage", storage)?;
    section("Ways out", ways.iter().flat_map(|way| lines_of_way(way, all_places)).collect())?;
    section("Once the API is back", findings.iter().flat_map(|finding| follow_ups(&finding.follow_up, places)).collect())
}

fn lines_of_way(way: &Way, places: &str) -> Vec<String> {
    let Way { to, command, changes, refusal } = way;
    match refusal {
        Some(refusal) => vec![format!("{to}: not possible: {refusal}")],
        None => vec![format!("{to}: {}", view::changes(changes)), format!("  {command}{places}")],
    }
}
