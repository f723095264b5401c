//! `explain`: what is known about one backup, and for each status the command that leads there, or why none does.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::propose::request;
use super::{Database, Observer, Result, Wanted, reading, unreported_backups};
use crate::audit::record::{Event, Record};
use crate::audit::{AuditError, records};
use crate::db::DbError;
use crate::domain::id::same;
use crate::domain::status::{ERROR, ERROR_DELETING, NO_VOLUME};
use crate::domain::text::{count, shell_word};
use crate::domain::time::{parse, parse_rfc3339, rfc3339};
use crate::domain::{AssumeDead, Backup, Change, CheckResult, Checks, Finding, FindingKind, Image, Policy, Table, Thresholds, Verdict};
use crate::scan::{Lock, Reader, Row, Scan, scan};

/// How many other backups of the same volume have a line in the timeline: the newest ones.
const OTHERS: usize = 20;
/// How many of them are in memory at the same time.
const PORTION: usize = 2_000;

/// What is known about a backup.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    pub id: String,
    /// Hostile text.
    pub name: Option<String>,
    /// The backup's row, then those of its volume, restore destination, snapshot and parent, as far as they exist. The columns are those
    /// that a repair compares.
    pub rows: Vec<Image>,
    /// Who holds its volumes, in words.
    pub attachments: Vec<String>,
    /// The ids of its live increments.
    pub increments: Vec<String>,
    /// What happened when, in the order of time.
    pub timeline: Vec<Moment>,
    /// What a scan finds, the decisive finding first.
    pub findings: Vec<Finding>,
    /// Why there is no finding.
    pub reason: Option<String>,
    /// The check of its storage.
    pub check: Option<CheckResult>,
    pub ways: Vec<Way>,
}

/// A line of the timeline.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Moment {
    /// RFC 3339.
    pub at: String,
    pub text: String,
}

/// What the backup could become.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Way {
    /// The status.
    pub to: &'static str,
    pub command: String,
    pub changes: Vec<Change>,
    /// Why it is not possible, as far as the storage was checked.
    pub refusal: Option<String>,
}

/// What a scan with one policy says about the backup.
struct Judgement {
    scan: Scan,
    /// The decisive one first.
    findings: Vec<Finding>,
    /// Why there is no finding.
    reason: Option<String>,
}

fn judge(database: &mut Database, wanted: &Wanted, checks: &Checks, has_checked: bool, observer: &dyn Observer) -> Result<Judgement> {
    let request = request(wanted, checks, has_checked);
    let scan = reading(observer, || scan(database.session.as_mut(), &database.schema, &request))?;
    let id = scan.census.named.first().map(|named| named.id.as_str());
    let mut findings = Vec::new();
    for finding in &scan.document.findings {
        let finding = finding?;
        // The scan may also find something about its volume or its parent.
        if finding.kind == FindingKind::Backup && Some(finding.id.as_str()) == id {
            findings.push(finding);
        }
    }
    findings.sort_by_key(|finding| finding.verdict == Verdict::Inconsistent);
    let reason = unreported_backups(&scan, &|_| !findings.is_empty()).pop().map(|refused| refused.reason);
    Ok(Judgement { scan, findings, reason })
}

/// Explains the backup that is wanted. A scan for each status that it could become takes one pass over the live backups, and so does the
/// search for its relatives.
pub fn explain(
    database: &mut Database,
    mut wanted: Wanted,
    checks: &Checks,
    has_checked: bool,
    log: &Path,
    observer: &dyn Observer,
) -> Result<Explanation> {
    let Judgement { scan, findings, reason } = judge(database, &wanted, checks, has_checked, observer)?;
    let Some(named) = scan.census.named.first() else {
        return Err(super::Error::Unusable("the backup was deleted while it was examined".to_owned()));
    };
    let (id, name, status) = (named.id.clone(), named.display_name.clone(), named.status.clone());
    let (mut ways, exceptions) = (Vec::new(), exceptions(&wanted.policy));
    for to in ["available", "error", "deleted"] {
        wanted.policy.to = Some(to.to_owned());
        // These statuses count only if they are asked for.
        let asked = status.as_deref().filter(|status| [ERROR, ERROR_DELETING].contains(status));
        wanted.policy.asked = asked.map(str::to_owned).into_iter().collect();
        let asked = asked.map(|status| format!(" --status {status}")).unwrap_or_default();
        let options = match to {
            "available" if wanted.policy.accept_quick => "--check quick --accept-quick",
            "available" => "--check deep",
            "error" => "--to error",
            _ => "--to deleted --check quick",
        };
        let command = format!("cinder-backup-repair repair {}{asked} {options}{exceptions}", shell_word(&id));
        let Judgement { findings, reason, .. } = judge(database, &wanted, checks, has_checked, observer)?;
        ways.push(way(to, command, findings, reason));
    }
    let mut known = database.read(|reader| relatives(reader, &id))?;
    let services = &scan.situation.services;
    let host = known.rows.first().and_then(|row| row.value("host").as_text());
    if let Some((host, at)) = host.and_then(|host| Some((host, services.last_beat(host)?))) {
        known.timeline.push(Moment { at, text: format!("last heartbeat of cinder-backup on {host}") });
    }
    let check = checks.get(&id).map(|check| CheckResult::clone(check));
    let newest = check.as_ref().and_then(|check| check.newest_object_at.as_deref()).and_then(parse_rfc3339);
    known.timeline.extend(newest.map(|at| Moment { at: rfc3339(at), text: "its newest object was written".to_owned() }));
    let now = rfc3339(scan.situation.now);
    known.timeline.extend(runs_of(log, &id, &now)?);
    known.timeline.push(Moment { at: now, text: "now, by the database's clock".to_owned() });
    known.timeline.sort();
    let Relatives { rows, attachments, increments, timeline } = known;
    Ok(Explanation { id, name, rows, attachments, increments, timeline, findings, reason, check, ways })
}

/// The options with which a repair decides as this explanation does.
fn exceptions(policy: &Policy) -> String {
    let hosts = match &policy.assume_dead {
        AssumeDead::None => Vec::new(),
        AssumeDead::All => vec!["all".to_owned()],
        AssumeDead::Hosts(hosts) => hosts.iter().map(shell_word).collect(),
    };
    let mut options: String = hosts.iter().map(|host| format!(" --assume-dead {host}")).collect();
    let older_than = policy.thresholds.older_than_seconds;
    if older_than != Thresholds::default().older_than_seconds {
        options.push_str(&format!(" --older-than {older_than}s"));
    }
    options
}

fn way(to: &'static str, command: String, findings: Vec<Finding>, reason: Option<String>) -> Way {
    let mut refusal = reason;
    for finding in findings {
        let is_actionable = finding.is_actionable();
        let Finding { verdict, evidence, proposal, refusal: refused, .. } = finding;
        if let Some(proposal) = proposal.filter(|proposal| is_actionable && proposal.status.as_deref() == Some(to)) {
            return Way { to, command, changes: proposal.changes, refusal: None };
        }
        let why = || match evidence.first() {
            _ if is_actionable => "its data was not verified".to_owned(),
            Some(evidence) => format!("{verdict}: {}", evidence.text),
            None => format!("{verdict}: nothing has to change"),
        };
        refusal = refusal.or(refused).or_else(|| Some(why()));
    }
    Way { to, command, changes: Vec::new(), refusal }
}

/// The rows around a backup, and their times.
#[derive(Default)]
struct Relatives {
    rows: Vec<Image>,
    attachments: Vec<String>,
    increments: Vec<String>,
    timeline: Vec<Moment>,
}

impl Relatives {
    /// Adds a time of a row.
    fn add(&mut self, at: Option<&str>, text: impl Into<String>) {
        self.timeline.extend(at.and_then(parse).map(|at| Moment { at: rfc3339(at), text: text.into() }));
    }
}

fn relatives(reader: &mut Reader<'_>, id: &str) -> std::result::Result<Relatives, DbError> {
    let columns = reader.schema.columns;
    let mut known = Relatives::default();
    let Some(Row::Backup(backup)) = reader.row(Table::Backups, id, Lock::None)? else { return Ok(known) };
    known.rows.push(backup.image(columns));
    known.add(backup.created_at.as_deref(), "the backup was requested");
    known.add(backup.updated_at.as_deref(), "the row of the backup was changed last");
    let destination = backup.restore_volume_id.as_ref().filter(|destination| backup.volume_id.as_ref() != Some(*destination));
    let volumes: Vec<String> = backup.volume_id.iter().chain(destination).filter(|volume| *volume != NO_VOLUME).cloned().collect();
    for volume in reader.volumes(&volumes)? {
        known.rows.push(volume.image(columns));
        let what = if Some(&volume.id) == destination { "the restore destination" } else { "the volume" };
        known.add(volume.created_at.as_deref(), format!("{what} was created"));
        known.add(volume.updated_at.as_deref(), format!("the row of {what} was changed last"));
    }
    for attachment in reader.attachments(&volumes)? {
        let holder = attachment.instance_uuid.as_deref().or(attachment.attached_host.as_deref()).unwrap_or("nobody");
        let status = attachment.attach_status.as_deref().unwrap_or("NULL");
        known.attachments.push(format!("volume {} is {status} to {holder}", attachment.volume_id));
    }
    for snapshot in reader.snapshots(backup.snapshot_id.as_slice())? {
        known.rows.push(snapshot.image());
        known.add(snapshot.created_at.as_deref(), "the snapshot was created");
        known.add(snapshot.updated_at.as_deref(), "the row of the snapshot was changed last");
    }
    for parent in reader.backups(backup.parent_id.as_slice())? {
        known.rows.push(parent.image(columns));
    }
    let mut others = Vec::new();
    reader.live_backups(&mut |other| {
        if same(&other.id, id) {
            return;
        }
        if other.parent_id.as_deref().is_some_and(|parent| same(parent, id)) {
            known.increments.push(other.id.clone());
        }
        let volume = other.volume_id.as_deref().filter(|volume| *volume != NO_VOLUME);
        if volume.zip(backup.volume_id.as_deref()).is_some_and(|(its, this)| same(its, this)) {
            others.push(other.id);
        }
    })?;
    known.increments.sort();
    let mut newest: Vec<Backup> = Vec::new();
    for portion in others.chunks(PORTION) {
        newest.extend(reader.backups(portion)?);
        newest.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        newest.truncate(OTHERS + 1);
    }
    if let Some(first) = newest.get(OTHERS) {
        known.add(first.created_at.as_deref(), format!("{} of this volume, up to here", count(others.len() - OTHERS, "older backup")));
    }
    for other in newest.iter().take(OTHERS) {
        let status = other.status.as_deref().unwrap_or("NULL");
        known.add(other.created_at.as_deref(), format!("backup {} of the same volume was requested; it is {status}", other.id));
    }
    if let Some(message) = reader.messages(&|backup| same(backup, id))?.into_values().next() {
        known.add(message.created_at.as_deref(), format!("Cinder told the user: {}", message.text()));
    }
    Ok(known)
}

/// What runs of this program did to the backup, by the audit log. `now` is the time of damage before the first record.
fn runs_of(log: &Path, id: &str, now: &str) -> Result<Vec<Moment>> {
    let mut moments = Vec::new();
    if !log.exists() {
        return Ok(moments);
    }
    // The runs and the numbers of the units about this backup, and what began the last run.
    let mut units: BTreeSet<(String, usize)> = BTreeSet::new();
    let (mut command, mut last) = (String::new(), now.to_owned());
    for record in records(log)? {
        let record = match record {
            Err(AuditError::Damaged { .. }) => {
                let text = "the audit log is damaged from here, so later runs are not told: `history verify` says how".to_owned();
                moments.push(Moment { at: last, text });
                break;
            }
            other => other?,
        };
        let Record { at, run, event, .. } = record;
        last.clone_from(&at);
        let is_of = |number: usize| units.contains(&(run.clone(), number));
        let is_about = |kind| matches!(kind, FindingKind::Backup | FindingKind::Host);
        match event {
            Event::Begin(begin) => {
                let ticket = begin.ticket.as_ref().map(|ticket| format!(", {ticket}")).unwrap_or_default();
                command = format!("{}{ticket}", begin.command);
            }
            Event::Intent(intent) if is_about(intent.kind) && same(&intent.id, id) => {
                units.insert((run, intent.unit));
            }
            Event::Outcome(outcome) if is_of(outcome.unit) => {
                let reason = outcome.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                moments.push(Moment { at, text: format!("{} by run {run} ({command}){reason}", outcome.ended()) });
            }
            Event::Settled(settled) if is_of(settled.unit) => {
                moments.push(Moment { at, text: format!("run {run} was settled as {}: {}", settled.outcome, settled.reason) });
            }
            _ => {}
        }
    }
    Ok(moments)
}
