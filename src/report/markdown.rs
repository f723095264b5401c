//! A plan as Markdown for a change ticket: the changes, their reasons, the state that they require, and the commands to undo them.
//!
//! Uses tables as in GitHub and GitLab, and is readable as plain text. May use `domain`, `plan`, `spool` and `report::safe` only.

use std::collections::HashSet;
use std::io;

use super::safe::{markdown, markdown_code, terminal};
use crate::domain::text::count;
use crate::domain::{AssumeDead, Change, Evidence, Finding, Policy, Value, digest};
use crate::plan::{Plan, Unit};
use crate::spool::Spool;

/// A plan, and everything else that its report shows. All text may be hostile.
pub struct PlanView<'a> {
    pub plan: &'a Plan,
    /// Who made it.
    pub author: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub ticket: Option<&'a str>,
    /// The commands of a unit to run once the API is back.
    pub follow_up: &'a dyn Fn(&Unit) -> Vec<String>,
    /// The findings that are skipped.
    pub skipped: &'a Spool<Finding>,
    /// The commands that apply the plan, verify the result and undo it, each list with its heading.
    pub commands: Vec<(&'static str, Vec<String>)>,
}

/// Writes the report.
pub fn plan_report(out: &mut dyn io::Write, view: &PlanView<'_>) -> io::Result<()> {
    writeln!(out, "# Repair of Cinder volume backups\n")?;
    write_summary(out, view)?;
    write_facts(out, view)?;
    write_policy(out, &view.plan.policy)?;
    write_units(out, view)?;
    write_skipped(out, view.skipped)?;
    write_commands(out, view)
}

fn write_summary(out: &mut dyn io::Write, PlanView { plan, skipped, .. }: &PlanView<'_>) -> io::Result<()> {
    match plan.units.len() {
        0 => writeln!(out, "Nothing to change.")?,
        units => {
            writeln!(out, "{} in {}. Each unit is changed completely or not at all.", count(plan.rows()?, "row"), count(units, "unit"))?
        }
    }
    if !skipped.is_empty() {
        writeln!(out, "{} found and skipped, see below.", count(skipped.len(), "case"))?;
    }
    writeln!(out, "Writing this report has changed nothing.\n")
}

fn write_facts(out: &mut dyn io::Write, view: &PlanView<'_>) -> io::Result<()> {
    let plan = view.plan;
    let database = &plan.database;
    writeln!(out, "| | |\n|---|---|")?;
    for (what, value) in [
        ("Plan", Some(markdown_code(&plan.id))),
        ("SHA-256", Some(markdown_code(&plan.sha256))),
        ("Made by", view.author.map(markdown_code)),
        ("Reason", view.reason.map(markdown)),
        ("Ticket", view.ticket.map(markdown)),
        ("Rows read at", Some(format!("{} (the database's clock)", markdown(&plan.taken_at)))),
        (
            "Database",
            Some(format!("{} {}, Cinder {}", markdown(&database.engine), markdown(&database.version), markdown(&database.release))),
        ),
        ("Reached at", database.location.as_deref().map(markdown_code)),
        ("Identity", Some(markdown_code(&database.identity))),
        ("Program", Some(markdown(&plan.program))),
    ] {
        if let Some(value) = value {
            writeln!(out, "| {what} | {value} |")?;
        }
    }
    writeln!(out)
}

fn write_policy(out: &mut dyn io::Write, policy: &Policy) -> io::Result<()> {
    writeln!(out, "## Rules in force\n")?;
    let thresholds = policy.thresholds;
    writeln!(out, "- Rows younger than {} s are skipped (`--older-than`).", thresholds.older_than_seconds)?;
    writeln!(
        out,
        "- A service is down when its last heartbeat is older than {} s (`service_down_time`).",
        thresholds.service_down_time_seconds
    )?;
    if thresholds.down_time_is_assumed {
        writeln!(
            out,
            "- No cinder.conf was read: for a service with a longer average heartbeat interval, the limit is two and a half such intervals."
        )?;
    }
    match &policy.assume_dead {
        AssumeDead::None => writeln!(out, "- Backups that a service may still work on are skipped (no `--assume-dead`).")?,
        AssumeDead::Hosts(hosts) => {
            let hosts: Vec<String> = hosts.iter().map(|host| markdown_code(host)).collect();
            writeln!(out, "- **Safety flag `--assume-dead`**: the operator states that cinder-backup is dead on {}.", hosts.join(", "))?;
        }
        AssumeDead::All => {
            writeln!(out, "- **Safety flag `--assume-dead all`**: the operator states that no cinder-backup is alive.")?;
        }
    }
    if policy.allow_unverified {
        writeln!(out, "- **Safety flag `--allow-unverified`**: a backup may become `available` or `deleted` without a check of its data.")?;
    } else {
        writeln!(
            out,
            "- From any status but `restoring`, a backup becomes `available` only when a deep check verified its data on the storage."
        )?;
    }
    if policy.accept_quick {
        writeln!(out, "- **Safety flag `--accept-quick`**: a quick check, which reads no data, is enough for a backup in `creating`.")?;
    }
    if policy.no_quota {
        writeln!(out, "- The quota of a project stays as it is when a backup becomes `deleted` (`--no-quota`).")?;
    }
    if let Some(to) = &policy.to {
        writeln!(out, "- Backups become {} (`--to`).", markdown_code(to))?;
    }
    if policy.fix_counters {
        writeln!(out, "- Wrong counters of dependent backups are corrected.")?;
    }
    if policy.fix_quotas {
        writeln!(out, "- Wrong quota usage of backups is corrected, and expired reservations for backups are ended.")?;
    }
    if let Some(new) = &policy.rehost {
        writeln!(out, "- Backups of hosts without a living cinder-backup are moved to {} (`--rehost`).", markdown_code(&new.host))?;
    }
    writeln!(out)
}

fn write_units(out: &mut dyn io::Write, view: &PlanView<'_>) -> io::Result<()> {
    let units = &view.plan.units;
    if units.is_empty() {
        return Ok(());
    }
    writeln!(out, "## What would be changed\n")?;
    writeln!(out, "| Unit | Kind | ID | Name | Change | Host | Why |\n|---:|---|---|---|---|---|---|")?;
    for unit in units {
        let unit = unit?;
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            unit.number,
            unit.kind,
            markdown_code(&unit.id),
            optional(unit.name.as_deref()),
            main_change(&unit),
            optional(unit.host.as_deref()),
            reasons(&unit.evidence),
        )?;
    }
    writeln!(out)?;
    for unit in units {
        let unit = unit?;
        write_unit(out, &unit, &(view.follow_up)(&unit))?;
    }
    Ok(())
}

fn write_unit(out: &mut dyn io::Write, unit: &Unit, follow_up: &[String]) -> io::Result<()> {
    writeln!(out, "### Unit {}: {} {}\n", unit.number, unit.kind, markdown_code(&unit.id))?;
    for evidence in &unit.evidence {
        writeln!(out, "- {} ({})", markdown(&evidence.text), markdown_code(evidence.code.as_str()))?;
    }
    writeln!(out, "\n| Table | Row | Column | From | To |\n|---|---|---|---|---|")?;
    for change in &unit.changes {
        let (table, id, column) = (change.table, markdown_code(&change.id), markdown_code(&change.column));
        writeln!(out, "| {table} | {id} | {column} | {} | {} |", value(&change.from), value(&change.to))?;
    }
    writeln!(
        out,
        "\n`updated_at` of each row also becomes the database's time. The unit is applied only if every row is still as follows:\n"
    )?;
    for image in &unit.before {
        let columns: Vec<String> = image.columns.iter().map(|(name, seen)| format!("{} = {}", markdown_code(name), value(seen))).collect();
        writeln!(out, "- {} {}: {}", image.table, markdown_code(&image.id), columns.join(", "))?;
    }
    writeln!(out)?;
    if !follow_up.is_empty() {
        writeln!(out, "To run once the API is back:\n")?;
        write_code(out, follow_up)?;
    }
    Ok(())
}

fn write_skipped(out: &mut dyn io::Write, skipped: &Spool<Finding>) -> io::Result<()> {
    if skipped.is_empty() {
        return Ok(());
    }
    writeln!(out, "## What is skipped, and why\n")?;
    writeln!(out, "| Verdict | Kind | ID | Name | Status | Host | Why |\n|---|---|---|---|---|---|---|")?;
    let (mut follow_up, mut said): (Vec<String>, HashSet<u128>) = (Vec::new(), HashSet::new());
    for finding in skipped {
        let finding = finding?;
        let refusal = finding.refusal.as_deref().map(markdown);
        let reasons = refusal.into_iter().chain((!finding.evidence.is_empty()).then(|| reasons(&finding.evidence)));
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            finding.verdict,
            finding.kind,
            markdown_code(&finding.id),
            optional(finding.name.as_deref()),
            finding.status.as_deref().map_or_else(|| "NULL".to_owned(), markdown_code),
            optional(finding.host.as_deref()),
            reasons.collect::<Vec<_>>().join("; "),
        )?;
        follow_up.extend(finding.follow_up.into_iter().filter(|command| said.insert(digest::short(&[command]))));
    }
    writeln!(out)?;
    if !follow_up.is_empty() {
        writeln!(out, "For these, once the API is back:\n")?;
        write_code(out, &follow_up)?;
    }
    Ok(())
}

fn write_commands(out: &mut dyn io::Write, view: &PlanView<'_>) -> io::Result<()> {
    for (heading, commands) in view.commands.iter().filter(|_| !view.plan.units.is_empty()) {
        writeln!(out, "## {heading}\n")?;
        write_code(out, commands)?;
    }
    Ok(())
}

/// A fenced block with one command a line. No text in it can end the block.
fn write_code(out: &mut dyn io::Write, lines: &[String]) -> io::Result<()> {
    let lines: Vec<String> = lines.iter().map(|line| terminal(line)).collect();
    let longest = lines.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    writeln!(out, "{fence}sh\n{}\n{fence}\n", lines.join("\n"))
}

/// The change of the main row's status, or its first change if the status is unchanged.
fn main_change(unit: &Unit) -> String {
    let own = |change: &&Change| change.id == unit.id;
    let status = unit.changes.iter().filter(own).find(|change| change.column == "status");
    match status.or_else(|| unit.changes.iter().find(own)).or_else(|| unit.changes.first()) {
        Some(change) if change.column == "status" => format!("{} → {}", value(&change.from), value(&change.to)),
        Some(change) => format!("{}: {} → {}", markdown_code(&change.column), value(&change.from), value(&change.to)),
        None => "–".to_owned(),
    }
}

fn reasons(evidence: &[Evidence]) -> String {
    let texts: Vec<String> = evidence.iter().map(|evidence| markdown(&evidence.text)).collect();
    texts.join("; ")
}

fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| "–".to_owned(), markdown_code)
}

/// NULL and numbers as they are, text as code, so that the text `NULL` differs from NULL.
fn value(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) if text.is_empty() => "(empty text)".to_owned(),
        Value::Text(text) | Value::Unsupported(text) => markdown_code(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
