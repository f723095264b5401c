//! One scan: the census, the related rows of what it kept, and the decisions.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use thiserror::Error;

use super::active::ActiveBackups;
use super::cases::{Facts, backup_case, counter_case, has_data_to_check, snapshot_case, snapshot_explainers, volume_case};
use super::census::Census;
use super::document::{Notice, NoticeCode, ScanDocument, Summary};
use super::reader::Reader;
use super::references::{ReferenceColumn, References};
use super::related_rows::{RelatedRows, Repaired, ScanFacts};
use crate::db::schema::Schema;
use crate::db::{Access, DbError, Session};
use crate::domain::decide::{self, BackupCase};
use crate::domain::id::key;
use crate::domain::status::{AVAILABLE, BACKING_UP, CREATING, ERROR, ERROR_DELETING, RESTORING, RESTORING_BACKUP};
use crate::domain::text::shell_word;
use crate::domain::time::{human, rfc3339};
use crate::domain::{
    Attachment, Backup, Checks, ColumnSet, DatabaseInfo, Finding, FindingKind, Image, Matched, NULL, Need, Policy, Selection, Services,
    Situation, Snapshot, Volume,
};

/// Why a scan could not be made.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A named backup does not exist, or the name is not unique.
    #[error("{0}")]
    Selection(String),
}

/// The rows that findings would change, by kind, id, and whether only the counter is meant.
pub type Images = BTreeMap<(FindingKind, String, bool), Vec<Image>>;

/// Which rows a scan keeps beside its findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptRows {
    /// No rows.
    None,
    /// The rows of backups whose storage can be checked, with their ancestors, in [`Finding::rows`]: for other programs.
    Chains,
    /// The rows that the findings would change, in [`Scan::images`]: for a plan.
    Changes,
}

/// What to scan for, and by which rules to decide.
#[derive(Clone, Copy)]
pub struct ScanRequest<'a> {
    /// What decisions depend on.
    pub policy: &'a Policy,
    /// Which rows are wanted.
    pub selection: &'a Selection,
    /// Which rows to keep.
    pub kept: KeptRows,
    /// Checks of the storage of some backups; the decisions on these backups depend on them.
    pub checks: &'a Checks,
    /// The storage was checked, so a backup whose data was not checked is not set to error.
    pub storage_checked: bool,
    /// The ids of the backups that will be repaired, if not all: the others keep their rows.
    pub only: Option<&'a BTreeSet<String>>,
}

impl<'a> ScanRequest<'a> {
    /// A scan of the rows alone, without a check of the storage.
    pub fn new(policy: &'a Policy, selection: &'a Selection, kept: KeptRows, checks: &'a Checks) -> Self {
        Self { policy, selection, kept, checks, storage_checked: false, only: None }
    }
}

/// A scan with what later steps need beside the document.
pub struct Scan {
    /// For other programs.
    pub document: ScanDocument,
    /// The pass over `backups`.
    pub census: Census,
    /// The clock and the heartbeats.
    pub situation: Situation,
    /// The rows that findings would change, as they were seen; only with [`KeptRows::Changes`].
    pub images: Images,
    /// Which parts of the selection a row matches.
    pub matched: Matched,
    /// The ids of the backups that were named.
    pub named: BTreeSet<String>,
    /// Some proposal holds only if other backups are repaired first. To leave some out, scan again with the others in
    /// [`ScanRequest::only`].
    pub counts_on_others: bool,
}

/// The database, as every document names it.
pub fn database_info(session: &dyn Session, schema: &Schema) -> DatabaseInfo {
    let server = session.server();
    DatabaseInfo {
        engine: server.engine.name().to_owned(),
        version: server.version.clone(),
        release: schema.release.clone(),
        identity: server.identity.clone(),
        location: Some(server.location.clone()),
    }
}

/// The clock, the heartbeats and the columns, as they are now.
pub fn situation(reader: &mut Reader<'_>) -> Result<Situation, DbError> {
    let services = Services::new(&reader.services()?);
    let server_uptime_seconds = reader.uptime()?;
    let now = reader.clock()?;
    Ok(Situation { now, server_uptime_seconds, services, columns: reader.schema.columns, has_attachments: reader.schema.has_attachments })
}

/// Makes a scan in one read-only transaction.
pub fn scan(session: &mut dyn Session, schema: &Schema, request: &ScanRequest<'_>) -> Result<Scan, ScanError> {
    session.begin(Access::ReadOnly)?;
    let result = inside(session, schema, request);
    // Nothing was written; a connection that cannot even roll back has said so in the result, or will at its next use.
    let ended = session.rollback();
    let scan = result?;
    ended?;
    Ok(scan)
}

fn inside(session: &mut dyn Session, schema: &Schema, request: &ScanRequest<'_>) -> Result<Scan, ScanError> {
    let database = database_info(session, schema);
    let mut reader = Reader { session, schema };
    let situation = situation(&mut reader)?;
    let mut census = Census::take(&mut reader, request.selection)?;
    let selection = census.resolve(request.selection).map_err(ScanError::Selection)?;
    let pending = Pending::read(&mut reader, &mut census, &selection)?;
    let request = ScanRequest { selection: &selection, ..*request };
    let within;
    let mut findings = Findings::new(&census, &pending, &situation, &request);
    findings.all(&mut reader)?;
    // The sum is of all: a limit must not make trouble look smaller than it is.
    let summary = Summary::of(&findings.findings);
    let limit = selection.limit.unwrap_or(usize::MAX);
    let left_out = findings.findings.len().saturating_sub(limit);
    if left_out > 0 {
        within = findings.repaired_within(limit);
        if findings.repaired.counted_on.get() && within.len() < findings.repaired.ids.borrow().len() {
            // Some proposals count on backups that the limit leaves for another time.
            findings = Findings::new(&census, &pending, &situation, &ScanRequest { only: Some(&within), ..request });
            findings.all(&mut reader)?;
        }
        findings.findings.truncate(limit);
    }
    let mut notices = findings.clocks();
    if selection.takes_leftover("quota") && selection.volumes.is_empty() {
        notices.extend(findings.quotas(&mut reader)?);
    }
    let Findings { findings, images, repaired, .. } = findings;
    let document = ScanDocument {
        schema: "cinder-backup-repair/scan",
        schema_version: 1,
        database,
        taken_at: rfc3339(situation.now),
        thresholds: request.policy.thresholds,
        findings,
        notices,
        summary,
        left_out,
    };
    let named = selection.backups.clone();
    let counts_on_others = repaired.counted_on.get();
    Ok(Scan { document, matched: census.matched.clone(), census, situation, images, named, counts_on_others })
}

/// A check may take hours, and other backups become old enough to be stuck meanwhile. If a check of the storage was asked for, do not give
/// them up without one.
fn refuse_unchecked(finding: &mut Finding, policy: &Policy) {
    let unchecked = finding.proposal.as_ref().is_some_and(|proposal| proposal.needs.contains(&Need::StorageCheck));
    if unchecked && policy.to.as_deref() != Some(ERROR) {
        finding.proposal = None;
        finding.refusal = Some("it was too recent when the storage was checked, so its data was not checked; try again".to_owned());
    }
}

/// The number of backups whose rows and related rows are in memory at the same time.
const PORTION: usize = 2_000;

/// The rows that findings may be about, beside the backups of the census.
#[derive(Default)]
struct Pending {
    /// Selected volumes that are marked for a backup or a restore, or have no status.
    volumes: Vec<Volume>,
    /// Selected snapshots that are marked for a backup.
    snapshots: Vec<Snapshot>,
    /// The backups that refer to these rows, to volumes and snapshots of stuck backups, or to parents that may break chains.
    references: References,
}

impl Pending {
    fn read(reader: &mut Reader<'_>, census: &mut Census, selection: &Selection) -> Result<Self, DbError> {
        let mut pending = Self::default();
        if [BACKING_UP, RESTORING_BACKUP, NULL].iter().any(|status| selection.takes_leftover(status)) {
            reader.pending_volumes(&mut |volume| {
                census.matched.note(selection, volume.status.as_deref(), volume.project_id.as_deref(), Some(&volume.id));
                if selection.takes_leftover(volume.status.as_deref().unwrap_or(NULL))
                    && selection.takes_owner(volume.project_id.as_deref(), Some(&volume.id))
                {
                    pending.volumes.push(volume);
                }
            })?;
        }
        if selection.takes_leftover(BACKING_UP) {
            reader.pending_snapshots(&mut |snapshot| {
                census.matched.note(selection, snapshot.status.as_deref(), snapshot.project_id.as_deref(), snapshot.volume_id.as_deref());
                if selection.takes_owner(snapshot.project_id.as_deref(), snapshot.volume_id.as_deref()) {
                    pending.snapshots.push(snapshot);
                }
            })?;
        }
        pending.volumes.sort_by(|a, b| a.id.cmp(&b.id));
        pending.want(census, selection, reader.schema.columns);
        pending.references = pending.references.read(reader)?;
        Ok(pending)
    }

    fn want(&mut self, census: &Census, selection: &Selection, columns: ColumnSet) {
        let references = &mut self.references;
        for backup in census.kept.values().filter(|backup| census.selected.contains(&backup.id)) {
            let (volume, snapshot, destination) = (&backup.volume_id, &backup.snapshot_id, &backup.restore_volume_id);
            match backup.status.as_deref() {
                Some(CREATING) => {
                    volume.iter().for_each(|id| references.want(ReferenceColumn::Volume, id));
                    snapshot.iter().for_each(|id| references.want(ReferenceColumn::Snapshot, id));
                }
                Some(RESTORING) => destination.iter().for_each(|id| references.want(ReferenceColumn::RestoreVolume, id)),
                _ => {}
            }
        }
        for volume in &self.volumes {
            match volume.status.as_deref() {
                Some(BACKING_UP) => references.want(ReferenceColumn::Volume, &volume.id),
                Some(RESTORING_BACKUP) => references.want(ReferenceColumn::RestoreVolume, &volume.id),
                _ => {}
            }
        }
        self.snapshots.iter().for_each(|snapshot| references.want(ReferenceColumn::Snapshot, &snapshot.id));
        if selection.wants_inconsistent() && columns >= ColumnSet::Liberty {
            census.parents_that_may_break_chains().iter().for_each(|parent| references.want(ReferenceColumn::Parent, parent));
        }
    }
}

/// The findings of one scan, as they are made.
struct Findings<'a> {
    census: &'a Census,
    pending: &'a Pending,
    situation: &'a Situation,
    request: ScanRequest<'a>,
    policy: &'a Policy,
    selection: &'a Selection,
    findings: Vec<Finding>,
    images: Images,
    repaired: Rc<Repaired>,
}

impl<'a> Findings<'a> {
    fn new(census: &'a Census, pending: &'a Pending, situation: &'a Situation, request: &ScanRequest<'a>) -> Self {
        Self {
            census,
            pending,
            situation,
            request: *request,
            policy: request.policy,
            selection: request.selection,
            findings: Vec::new(),
            images: BTreeMap::new(),
            repaired: Rc::default(),
        }
    }

    fn facts<'r>(&'r self, repaired: &'r Repaired, related: &'r RelatedRows) -> ScanFacts<'r> {
        ScanFacts { census: self.census, related, repaired, situation: self.situation, policy: self.policy }
    }

    /// Makes all findings: the oldest first, those without an age (contradictions) last.
    fn all(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        self.backups(reader)?;
        self.volumes(reader)?;
        self.snapshots(reader)?;
        if self.selection.wants_inconsistent() {
            self.chains(reader)?;
            self.leftovers(reader)?;
        }
        self.findings.sort_by(|a, b| (a.since.is_none(), &a.since, a.kind, &a.id).cmp(&(b.since.is_none(), &b.since, b.kind, &b.id)));
        Ok(())
    }

    /// Those of the repaired backups that are among the first findings.
    fn repaired_within(&self, limit: usize) -> BTreeSet<String> {
        let first = self.findings.iter().take(limit).filter(|finding| finding.kind == FindingKind::Backup);
        first.filter(|finding| self.repaired.ids.borrow().contains(&finding.id)).map(|finding| finding.id.clone()).collect()
    }

    fn backups(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        let (census, policy, situation, columns) = (self.census, self.policy, self.situation, self.situation.columns);
        let (repaired, request) = (Rc::clone(&self.repaired), self.request);
        let with_chain = |backup: &Backup| request.kept == KeptRows::Chains || request.checks.contains_key(&backup.id);
        let selected: Vec<&Backup> = census.kept.values().filter(|backup| census.selected.contains(&backup.id)).collect();
        // In portions, so that not all related rows are in memory at once.
        for portion in selected.chunks(PORTION) {
            let related = RelatedRows::of_backups(reader, portion, &with_chain, &self.pending.references)?;
            let facts = ScanFacts { census, related: &related, repaired: &repaired, situation, policy };
            for backup in portion {
                let case = backup_case((*backup).clone(), request.checks.get(&backup.id), &facts, policy);
                let mut finding = decide::backup(&case, situation, policy);
                if request.kept == KeptRows::Chains && has_data_to_check(backup) {
                    finding.rows = images_of_chain(backup, &facts.ancestors(backup), columns);
                }
                if request.storage_checked {
                    refuse_unchecked(&mut finding, policy);
                }
                // Only a backup that the plan repairs lets go of its rows.
                if finding.is_actionable() && request.only.is_none_or(|only| only.contains(&finding.id)) {
                    repaired.ids.borrow_mut().insert(finding.id.clone());
                }
                // A backup in error or error_deleting that was only named is a finding only if it can be repaired, or is refused.
                let pending = !matches!(finding.status.as_deref(), Some(ERROR | ERROR_DELETING));
                if pending || finding.proposal.is_some() || finding.refusal.is_some() || !self.selection.statuses.is_empty() {
                    self.keep(finding, || images_of_backup(&case, columns), false);
                }
            }
        }
        Ok(())
    }

    /// Whether contradictions of this backup are wanted. What was named is ids by now, and a backup that is called by one of
    /// them is not meant.
    fn wants(&self, backup: &Backup) -> bool {
        let backups = &self.selection.backups;
        self.selection.takes_inconsistent(backup) && (backups.is_empty() || backups.contains(&backup.id))
    }

    fn keep(&mut self, finding: Finding, images: impl FnOnce() -> Vec<Image>, counter: bool) {
        if self.request.kept == KeptRows::Changes && finding.is_actionable() {
            let mut images = images();
            if let Some(proposal) = &finding.proposal {
                images.retain(|image| proposal.changes.iter().any(|change| change.is_of(image.table, &image.id)));
            }
            images.sort_by(|a, b| (a.table, &a.id).cmp(&(b.table, &b.id)));
            images.dedup();
            self.images.insert((finding.kind, finding.id.clone(), counter), images);
        }
        self.findings.push(finding);
    }

    fn volumes(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        // While the backup is being written, its temporary volume is as it should be.
        let left_over = |volume: &&Volume| !self.census.is_temporary_in_use(&volume.id) && !self.is_explained(volume);
        let pending: Vec<Volume> = self.pending.volumes.iter().filter(left_over).cloned().collect();
        let related = RelatedRows::of_volumes(reader, &pending, &self.pending.references)?;
        let (repaired, columns) = (Rc::clone(&self.repaired), self.situation.columns);
        for volume in pending {
            let case = volume_case(volume, &self.facts(&repaired, &related), columns);
            if let Some(finding) = decide::left_volume(&case, self.situation, self.policy) {
                self.keep(finding, || vec![case.volume.image(columns)], false);
            }
        }
        Ok(())
    }

    fn is_explained(&self, volume: &Volume) -> bool {
        let related = RelatedRows::default();
        let case = volume_case(volume.clone(), &self.facts(&self.repaired, &related), self.situation.columns);
        case.explained_by.iter().any(|peer| !peer.released)
    }

    fn snapshots(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        let unexplained = |snapshot: &&Snapshot| snapshot_explainers(self.census, &snapshot.id).is_empty();
        let ids: Vec<String> = self.pending.snapshots.iter().filter(unexplained).map(|snapshot| snapshot.id.clone()).collect();
        let related = RelatedRows::of_snapshots(reader, &ids, &self.pending.references)?;
        let (repaired, columns) = (Rc::clone(&self.repaired), self.situation.columns);
        for snapshot in &self.pending.snapshots {
            let case = snapshot_case(snapshot.clone(), &self.facts(&repaired, &related), columns);
            if let Some(finding) = decide::snapshot(&case, self.situation, self.policy) {
                self.keep(finding, || vec![case.snapshot.image()], false);
            }
        }
        Ok(())
    }

    fn chains(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        if self.situation.columns < ColumnSet::Liberty {
            return Ok(());
        }
        let repaired = Rc::clone(&self.repaired);
        let occupied: HashSet<String> =
            self.findings.iter().filter(|finding| finding.is_actionable()).map(|finding| finding.id.clone()).collect();
        // If the database does not ignore case, an id in another case names no backup.
        let ignores_case = reader.ignores_case();
        let spelling = |id: &str| if ignores_case { key(id).into_owned() } else { id.to_owned() };
        let parents = self.census.parents_that_may_break_chains();
        let mut unusable: BTreeMap<String, Option<Backup>> = parents.iter().map(|id| (spelling(id), None)).collect();
        for portion in self.census.doubtful_parents().chunks(PORTION) {
            for parent in reader.backups(portion)? {
                let is_occupied = occupied.contains(&parent.id);
                let case = counter_case(parent, &self.facts(&repaired, &RelatedRows::default()), is_occupied);
                if self.wants(&case.backup)
                    && let Some(finding) = decide::counter(&case, self.situation, self.policy)
                {
                    let columns = self.situation.columns;
                    self.keep(finding, || vec![case.backup.image(columns)], true);
                }
                let parent = case.backup;
                if parent.status.as_deref() != Some(ERROR) {
                    unusable.remove(&spelling(&parent.id));
                } else if let Some(row) = unusable.get_mut(&spelling(&parent.id)) {
                    *row = Some(parent);
                }
            }
        }
        for portion in self.pending.references.backups_with(ReferenceColumn::Parent, unusable.keys()).chunks(PORTION) {
            for child in reader.backups(portion)? {
                let Some(parent_id) = &child.parent_id else { continue };
                // The chain matters only if the increment counts as usable.
                if !matches!(child.status.as_deref(), Some(AVAILABLE | RESTORING)) || !self.wants(&child) {
                    continue;
                }
                if let Some(parent) = unusable.get(&spelling(parent_id)) {
                    self.findings.extend(decide::broken_chain(&child, parent_id, parent.as_ref()));
                }
            }
        }
        Ok(())
    }

    fn leftovers(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        self.findings.extend(self.census.with_temporaries.iter().filter_map(decide::temporaries));
        if !self.selection.takes_leftover("attachment") {
            return Ok(());
        }
        let mut found: Vec<Attachment> = Vec::new();
        let (census, selection, services) = (self.census, self.selection, &self.situation.services);
        reader.host_attachments(&mut |attachment| {
            let host = attachment.attached_host.as_deref().unwrap_or_default();
            let of_backup = census.hosts.contains(host) || services.knows(host);
            let busy = !census.of_volume(&attachment.volume_id).is_empty();
            if of_backup && !busy && attachment.is_live() && selection.takes_owner(None, Some(&attachment.volume_id)) {
                found.push(attachment);
            }
        })?;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        self.findings.extend(found.iter().map(decide::attachment));
        Ok(())
    }

    fn clocks(&self) -> Vec<Notice> {
        let tolerance = self.policy.thresholds.service_down_time_seconds;
        self.situation
            .services
            .clocks_ahead(self.situation.now, tolerance)
            .into_iter()
            .map(|(host, seconds)| Notice {
                code: NoticeCode::ClockAhead.into(),
                text: format!(
                    "the clock of host {host} is {} ahead of the database's: its heartbeat proves nothing; correct its clock",
                    human(seconds)
                ),
                follow_up: Vec::new(),
            })
            .collect()
    }

    fn quotas(&self, reader: &mut Reader<'_>) -> Result<Vec<Notice>, DbError> {
        let mut usages: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (project, resource, in_use) in reader.quota_usages()? {
            if !self.selection.takes_owner(Some(&project), None) {
                continue;
            }
            let (count, size) = self.census.projects.get(&project).copied().unwrap_or_default();
            let right = if resource == "backups" { count } else { size };
            if in_use != right {
                usages.entry(project).or_default().push(format!("{resource} in use {in_use}, counted {right}"));
            }
        }
        Ok(usages
            .into_iter()
            .map(|(project, wrong)| Notice {
                code: NoticeCode::QuotaWrong.into(),
                text: format!("the quota usage of project {project} is wrong: {}", wrong.join("; ")),
                follow_up: vec![format!("cinder-manage quota sync --project-id {}", shell_word(&project))],
            })
            .collect())
    }
}

/// The images of a backup and of its ancestors.
fn images_of_chain(backup: &Backup, ancestors: &[Arc<Backup>], columns: ColumnSet) -> Vec<Image> {
    std::iter::once(backup).chain(ancestors.iter().map(AsRef::as_ref)).map(|row| row.image(columns)).collect()
}

/// The images of all rows that the unit of a backup could change.
fn images_of_backup(case: &BackupCase, columns: ColumnSet) -> Vec<Image> {
    let backups = std::iter::once(&case.backup).chain(&case.parent).map(|row| row.image(columns));
    let volumes = case.volume.iter().chain(&case.destination).map(|row| row.image(columns));
    backups.chain(volumes).chain(case.snapshot.iter().map(Snapshot::image)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_became_stuck_during_a_check_is_not_given_up() {
        let mut finding: Finding = serde_json::from_value(serde_json::json!({
            "kind": "backup", "id": "b", "name": null, "status": "creating", "host": null, "service": null, "project_id": null,
            "volume_id": null, "since": null, "age_seconds": null, "verdict": "stuck", "evidence": [],
            "proposal": { "status": "error", "needs": ["storage-check"], "changes": [] }, "refusal": null, "follow_up": [],
        }))
        .unwrap();
        let given_up = finding.clone();
        refuse_unchecked(&mut finding, &Policy { to: Some(ERROR.to_owned()), ..Policy::default() });
        assert_eq!(finding, given_up, "--to error gives it up unchecked");
        refuse_unchecked(&mut finding, &Policy::default());
        let why = "it was too recent when the storage was checked, so its data was not checked; try again";
        assert_eq!((finding.proposal, finding.refusal.as_deref()), (None, Some(why)));
    }
}
