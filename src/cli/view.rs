//! What each result looks like as rows; one table of columns a result, no logic.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::commands::scrub::{Coverage, time};
use crate::domain::time::{human, stamp};
use crate::domain::{Change, CheckResult, DatabaseInfo, Evidence, Finding, Level, Tally, UnitResult};
use crate::ledger::Failure;
use crate::plan::Unit;
use crate::report::grid::Column;
use crate::spool::Spool;
use crate::verify::orphans::OrphanCount;
use crate::verify::rescue::LostBackup;
use crate::workflow::{LeftAlone, Refused};

/// The columns of [`FINDINGS`] that a table has without `--long`.
const BRIEF: [&str; 6] = ["Kind", "ID", "Name", "Status", "Verdict", "Proposed"];

/// The columns of a table of findings that fit a terminal.
pub fn brief_findings() -> Vec<Column<Finding>> {
    FINDINGS.iter().filter(|(title, _)| BRIEF.contains(title)).copied().collect()
}

pub const FINDINGS: &[Column<Finding>] = &[
    ("Kind", |finding| finding.kind.to_string().into()),
    ("ID", |finding| finding.id.as_str().into()),
    ("Name", |finding| finding.name.as_deref().into()),
    ("Status", |finding| finding.status.as_deref().into()),
    ("Host", |finding| finding.host.as_deref().into()),
    ("Age", |finding| finding.age_seconds.map(human).into()),
    ("Verdict", |finding| finding.verdict.to_string().into()),
    ("Proposed", |finding| match &finding.proposal {
        Some(proposal) => changes(&proposal.changes).into(),
        None => if finding.refusal.is_some() { "refused" } else { "" }.into(),
    }),
    ("Evidence", |finding| why(&finding.evidence, finding.refusal.as_deref()).into()),
];

pub const UNITS: &[Column<Unit>] = &[
    ("Unit", |unit| unit.number.into()),
    ("Kind", |unit| unit.kind.to_string().into()),
    ("ID", |unit| unit.id.as_str().into()),
    ("Name", |unit| unit.name.as_deref().into()),
    ("Status", |unit| unit.status.as_deref().into()),
    ("Changes", |unit| changes(&unit.changes).into()),
    ("Evidence", |unit| why(&unit.evidence, None).into()),
];

/// The results of a run.
pub const RESULTS: &[Column<UnitResult>] = &[
    ("Unit", |result| result.unit.into()),
    ("Kind", |result| result.kind.to_string().into()),
    ("ID", |result| result.id.as_str().into()),
    ("Name", |result| result.name.as_deref().into()),
    ("Outcome", |result| result.outcome.to_string().into()),
    ("Changes", |result| changes(&result.changes).into()),
    ("Reason", |result| reason(result).into()),
];

/// What was found on the storage.
pub const CHECKS: &[Column<CheckResult>] = &[
    ("ID", |result| result.id.as_str().into()),
    ("Name", |result| result.name.as_deref().into()),
    ("Driver", |result| result.driver.map_or_else(|| result.service.as_deref().into(), |driver| driver.to_string().into())),
    ("Verdict", |result| {
        let verdict = result.verdict.to_string();
        let words = [(true, verdict.as_str()), (result.is_unreadable(), "unreadable"), (result.busy, "busy")];
        words.into_iter().filter_map(|(is_so, word)| is_so.then_some(word)).collect::<Vec<_>>().join(", ").into()
    }),
    ("Reached", |result| result.reached().map(|level| level.to_string()).into()),
    ("Restorable", |result| result.restorable.map(|restorable| restorable.to_string()).into()),
    ("Objects", |result| result.objects.expected.into()),
    ("Bytes", |result| result.bytes.expected.into()),
    ("Problems", |result| result.problems.len().into()),
    ("Depth", |result| result.depth.as_str().into()),
];

/// What is on the storage without a live backup, and the reverse.
pub const ORPHANS: &[Column<OrphanCount>] = &[
    ("Driver", |count| count.driver.to_string().into()),
    ("Location", |count| count.location.as_str().into()),
    ("Project ID", |count| count.project_id.as_deref().into()),
    ("Kind", |count| count.kind.as_str().into()),
    ("Backups", |count| count.backups.into()),
    ("Objects", |count| count.totals.objects.into()),
    ("Bytes", |count| count.totals.bytes.into()),
    ("Oldest", |count| count.totals.oldest_at.map(stamp).into()),
    ("Newest", |count| count.totals.newest_at.map(stamp).into()),
];

/// Backups that the database lost.
pub const LOST: &[Column<LostBackup>] = &[
    ("ID", |backup| backup.id.as_str().into()),
    ("Name", |backup| backup.name.as_deref().into()),
    ("Project ID", |backup| backup.project_id.as_deref().into()),
    ("Volume ID", |backup| backup.volume_id.as_deref().into()),
    ("Parent ID", |backup| backup.parent_id.as_deref().into()),
    ("Parent", |backup| backup.parent.map(|parent| parent.to_string()).into()),
    ("Size", |backup| backup.size.and_then(|size| u64::try_from(size).ok()).into()),
    ("Created At", |backup| backup.created_at.as_deref().into()),
    ("Verdict", |backup| backup.verdict.map(|verdict| verdict.to_string()).into()),
    ("Importable", |backup| if backup.is_importable() { "yes" } else { "no" }.into()),
    ("Unknown", |backup| backup.remarkable().collect::<Vec<_>>().join(", ").into()),
];

pub const SCRUB_FAILURES: &[Column<Failure>] = &[
    ("ID", |failure| failure.id.as_str().into()),
    ("Project ID", |failure| failure.project.as_deref().into()),
    ("Driver", |failure| failure.driver.as_deref().into()),
    ("Verdict", |failure| failure.verdict.as_str().into()),
    ("Level", |failure| failure.level.to_string().into()),
    ("Failed Since", |failure| time(failure.first_at).into()),
    ("Last Good", |failure| failure.good_at.map(time).into()),
    ("Problem", |failure| failure.problem.as_deref().into()),
];

/// The coverage of a scrub.
pub const COVERAGE: &[Column<Coverage>] = &[
    ("Scope", |part| part.scope.into()),
    ("Name", |part| part.name.as_deref().into()),
    ("Backups", |part| part.covered.backups.into()),
    ("Bytes", |part| part.covered.bytes.into()),
    ("Quick", |part| part.covered.intact_at(Level::Quick).into()),
    ("Deep", |part| part.covered.intact_at(Level::Deep).into()),
    ("Restore", |part| part.covered.intact_at(Level::Restore).into()),
    ("Failed", |part| part.covered.failed.into()),
    ("Never Verified", |part| part.covered.never.into()),
    ("Oldest Unverified At", |part| part.covered.oldest_unverified_at.map(time).into()),
];

/// The document of `apply`, `repair` and `undo`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RunDocument<'a> {
    /// `cinder-backup-repair/apply`, `/repair` or `/undo`.
    pub schema: String,
    pub schema_version: u32,
    /// The run's id; none for a dry run, which leaves no record.
    pub run: Option<&'a str>,
    /// Whether nothing was written on purpose.
    pub dry_run: bool,
    pub plan: &'a str,
    pub database: &'a DatabaseInfo,
    pub units: &'a Spool<UnitResult>,
    /// What was asked for by name and refused before there was a plan.
    pub refused: &'a Spool<Refused>,
    /// What else was found, and why nothing was done about it.
    pub left_alone: &'a Spool<LeftAlone>,
    /// How many findings `--limit` left out; they are in none of these lists.
    pub left_out: usize,
    /// What a dry run found that the account may not do and a repair has to: the GRANTs that it lacks.
    pub missing_grants: &'a [String],
    pub summary: Tally,
    pub interrupted: Option<&'a str>,
    pub follow_up: &'a Spool<String>,
}

/// Changes in one line: `creating -> error, volume backing-up -> available`. Which volume is in the other formats.
pub fn changes(changes: &[Change]) -> String {
    steps(changes, true).join(", ")
}

/// The same without the values that differ from backup to backup: `creating -> available, object_count`.
pub fn kinds_of_changes(changes: &[Change]) -> String {
    let mut kinds = steps(changes, false);
    let mut said = BTreeSet::new();
    kinds.retain(|kind| said.insert(kind.clone()));
    kinds.join(", ")
}

fn steps(changes: &[Change], has_values: bool) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    let main = changes.iter().find(|change| change.column == "status").map(|change| (change.table, change.id.as_str()));
    for change in changes {
        let mut step = format!("{} -> {}", change.from, change.to);
        // fail_reason goes with every error; that it is set need not be said in a line.
        match change.column.as_str() {
            "fail_reason" => continue,
            "status" => {}
            column if has_values => step = format!("{column} {step}"),
            column => step = column.to_owned(),
        }
        if Some((change.table, change.id.as_str())) == main {
            steps.push(step);
        } else {
            steps.push(format!("{} {step}", change.table.to_string().trim_end_matches('s')));
        }
    }
    steps
}

/// What changes in each row of a unit, one line a row. Hostile text.
pub fn rows(unit: &Unit) -> Vec<String> {
    let rows = unit.changes.chunk_by(|one, next| next.is_of(one.table, &one.id));
    let line = |row: &[Change]| {
        let first = row.first()?;
        let columns: Vec<String> = row.iter().map(|change| format!("{} {} -> {}", change.column, change.from, change.to)).collect();
        Some(format!("{} {}: {}", first.table, first.id, columns.join(", ")))
    };
    rows.filter_map(line).collect()
}

/// Why a unit ended as it did, with the columns that differ from the plan.
fn reason(result: &UnitResult) -> String {
    let mut reason = result.reason.clone().unwrap_or_default();
    // Every write sets updated_at: it tells nothing where another column moved, too.
    let telling = result.moved.iter().any(|moved| moved.column != "updated_at");
    for moved in result.moved.iter().filter(|moved| !telling || moved.column != "updated_at") {
        let of =
            if moved.id == result.id { String::new() } else { format!("{} {}: ", moved.table.to_string().trim_end_matches('s'), moved.id) };
        reason.push_str(&format!("; {of}{} planned {}, found {}", moved.column, moved.planned, moved.found));
    }
    reason
}

fn why(evidence: &[Evidence], refusal: Option<&str>) -> String {
    let texts: Vec<&str> = refusal.into_iter().chain(evidence.iter().map(|evidence| evidence.text.as_str())).collect();
    texts.join("; ")
}
