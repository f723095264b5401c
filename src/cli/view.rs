//! What each result looks like as rows; one function a result, no logic.

use std::io;

use serde::Serialize;

use crate::cli::commands::scrub::CoverageEntry;
use crate::domain::time::{human, stamp};
use crate::domain::{Change, CheckResult, DatabaseInfo, Evidence, Finding, Outcome, Tally, UnitResult};
use crate::ledger::Failure;
use crate::plan::Unit;
use crate::report::grid::{Cell, Grid};
use crate::spool::Spool;
use crate::workflow::{LeftAlone, Refused};

pub fn findings(findings: &[Finding]) -> io::Result<Grid> {
    let row = |finding: &Finding| {
        let proposed = finding.proposal.as_ref().map_or_else(
            || if finding.refusal.is_some() { "refused".to_owned() } else { String::new() },
            |proposal| changes(&proposal.changes),
        );
        vec![
            finding.kind.to_string().into(),
            finding.id.as_str().into(),
            finding.name.as_deref().into(),
            finding.status.as_deref().into(),
            finding.host.as_deref().into(),
            finding.age_seconds.map_or(Cell::Null, |age| human(age).into()),
            finding.verdict.to_string().into(),
            proposed.into(),
            why(&finding.evidence, finding.refusal.as_deref()).into(),
        ]
    };
    let columns = ["Kind", "ID", "Name", "Status", "Host", "Age", "Verdict", "Proposed", "Evidence"];
    Grid::of(&columns, findings.iter().map(row))
}

pub fn units(units: &Spool<Unit>) -> io::Result<Grid> {
    let row = |unit: io::Result<Unit>| {
        let unit = unit?;
        Ok(vec![
            unit.number.into(),
            unit.kind.to_string().into(),
            unit.id.into(),
            unit.name.into(),
            unit.status.into(),
            changes(&unit.changes).into(),
            why(&unit.evidence, None).into(),
        ])
    };
    Grid::read(&["Unit", "Kind", "ID", "Name", "Status", "Changes", "Evidence"], units.iter().map(row))
}

/// The results of a run, those of units that were not begun only if `all` are wanted.
pub fn results(results: &Spool<UnitResult>, all: bool) -> io::Result<Grid> {
    let is_shown = |result: &UnitResult| all || result.outcome != Outcome::NotBegun;
    let rows = results.iter().filter(|result| result.as_ref().map_or(true, is_shown)).map(|result| {
        let result = result?;
        let mut reason = result.reason.clone().unwrap_or_default();
        // Every write sets updated_at: it tells nothing where another column moved, too.
        let telling = result.moved.iter().any(|moved| moved.column != "updated_at");
        for moved in result.moved.iter().filter(|moved| !telling || moved.column != "updated_at") {
            let of = if moved.id == result.id {
                String::new()
            } else {
                format!("{} {}: ", moved.table.to_string().trim_end_matches('s'), moved.id)
            };
            reason.push_str(&format!("; {of}{} planned {}, found {}", moved.column, moved.planned, moved.found));
        }
        Ok(vec![
            result.unit.into(),
            result.kind.to_string().into(),
            result.id.into(),
            result.name.into(),
            result.outcome.to_string().into(),
            changes(&result.changes).into(),
            reason.into(),
        ])
    });
    Grid::read(&["Unit", "Kind", "ID", "Name", "Outcome", "Changes", "Reason"], rows)
}

/// What was found on the storage, as rows.
pub fn checks(results: &[CheckResult]) -> io::Result<Grid> {
    let number = |number: u64| Cell::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let rows = results.iter().map(|result| {
        vec![
            result.id.as_str().into(),
            result.name.as_deref().into(),
            result.driver.map_or_else(|| result.service.as_deref().into(), |driver| driver.to_string().into()),
            [(true, result.verdict.name()), (result.is_unreadable(), "unreadable"), (result.busy, "busy")]
                .into_iter()
                .filter_map(|(is_so, word)| is_so.then_some(word))
                .collect::<Vec<_>>()
                .join(", ")
                .into(),
            result.reached().map_or(Cell::Null, |level| level.name().into()),
            number(result.objects.expected),
            number(result.bytes.expected),
            number(u64::try_from(result.problems.len()).unwrap_or(u64::MAX)),
            result.depth.as_str().into(),
        ]
    });
    Grid::of(&["ID", "Name", "Driver", "Verdict", "Reached", "Objects", "Bytes", "Problems", "Depth"], rows)
}

/// The failures of a scrub, as rows.
pub fn scrub_failures(failures: &[Failure]) -> io::Result<Grid> {
    let time = |seconds: i64| jiff::Timestamp::from_second(seconds).map(stamp).unwrap_or_default();
    let rows = failures.iter().map(|failure| {
        vec![
            failure.id.as_str().into(),
            failure.project.as_deref().into(),
            failure.driver.as_deref().into(),
            failure.verdict.as_str().into(),
            failure.level.name().into(),
            time(failure.first_at).into(),
            failure.good_at.map(time).into(),
            failure.problem.as_deref().into(),
        ]
    });
    Grid::of(&["ID", "Project ID", "Driver", "Verdict", "Level", "Failed Since", "Last Good", "Problem"], rows)
}

/// The coverage of a scrub, as rows.
pub fn coverage(entries: &[CoverageEntry]) -> io::Result<Grid> {
    let number = |number: u64| Cell::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let rows = entries.iter().map(|entry| {
        vec![
            entry.scope.into(),
            entry.name.as_deref().into(),
            number(entry.backups),
            number(entry.bytes),
            number(entry.quick),
            number(entry.deep),
            number(entry.restore),
            number(entry.failed),
            number(entry.never_verified),
            entry.oldest_unverified_at.as_deref().into(),
        ]
    });
    let columns = ["Scope", "Name", "Backups", "Bytes", "Quick", "Deep", "Restore", "Failed", "Never Verified", "Oldest Unverified At"];
    Grid::of(&columns, rows)
}

/// The document of `apply`, `repair` and `undo`.
#[derive(Debug, Serialize)]
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
    let mut steps: Vec<String> = Vec::new();
    let main = changes.iter().find(|change| change.column == "status").map(|change| (change.table, change.id.as_str()));
    for change in changes {
        let mut step = format!("{} -> {}", change.from, change.to);
        // fail_reason goes with every error; that it is set need not be said in a line.
        match change.column.as_str() {
            "fail_reason" => continue,
            "status" => {}
            column => step = format!("{column} {step}"),
        }
        if Some((change.table, change.id.as_str())) == main {
            steps.push(step);
        } else {
            steps.push(format!("{} {step}", change.table.to_string().trim_end_matches('s')));
        }
    }
    steps.join(", ")
}

fn why(evidence: &[Evidence], refusal: Option<&str>) -> String {
    let texts: Vec<&str> = refusal.into_iter().chain(evidence.iter().map(|evidence| evidence.text.as_str())).collect();
    texts.join("; ")
}
