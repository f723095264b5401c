//! One scan: the census, the rows around what it kept, and the decisions.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use thiserror::Error;

use super::census::Census;
use super::document::{Notice, NoticeCode, ScanDocument, Summary};
use super::lineage;
use super::reader::Reader;
use super::related_rows::{
    RelatedRows, as_peer, by_key, explainers, images_of_backup, images_of_chain, peers, siblings, snapshot_explainers,
};
use crate::db::schema::Schema;
use crate::db::{Access, DbError, Session};
use crate::domain::decide::{self, BackupCase, CounterCase, Peer, SnapshotCase, VolumeCase};
use crate::domain::id::key;
use crate::domain::status::{AVAILABLE, BACKING_UP, CREATING, DELETING, ERROR, RESTORING, RESTORING_BACKUP};
use crate::domain::text::shell_word;
use crate::domain::time::{human, rfc3339};
use crate::domain::{
    Attachment, Backup, Checks, ColumnSet, DatabaseInfo, Finding, FindingKind, Image, Matched, NULL, Need, Policy, Selection, Services,
    Situation, Snapshot, Volume,
};

/// Why a scan could not be made.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The database would not.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A backup was named that is not there, or that is several.
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
    /// What is known of the storage of some backups; where there is any, decisions rest on it.
    pub checks: &'a Checks,
    /// The storage was storage_checked at, so that no backup is given up whose data was not.
    pub storage_checked: bool,
    /// The backups that will be repaired, by id, where that is not all that can be: what the others hold, they keep.
    pub only: Option<&'a BTreeSet<String>>,
}

impl<'a> ScanRequest<'a> {
    /// What is there, whether or not storage was storage_checked at.
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
    /// Some proposal holds only if other backups are repaired before: whoever leaves some out has to ask again, and say so in
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
    let request = ScanRequest { selection: &selection, ..*request };
    let within;
    let mut findings = Findings::new(&census, &situation, &request);
    findings.all(&mut reader)?;
    // The sum is of all: a limit must not make trouble look smaller than it is.
    let summary = Summary::of(&findings.findings);
    let limit = selection.limit.unwrap_or(usize::MAX);
    let left_out = findings.findings.len().saturating_sub(limit);
    if left_out > 0 {
        within = findings.repaired_within(limit);
        if findings.counts_on_others.get() && within.len() < findings.repaired.len() {
            // Some proposals count on backups that the limit leaves for another time.
            findings = Findings::new(&census, &situation, &ScanRequest { only: Some(&within), ..request });
            findings.all(&mut reader)?;
        }
        findings.findings.truncate(limit);
    }
    let mut notices = findings.clocks();
    if selection.takes_leftover("quota") && selection.volumes.is_empty() {
        notices.extend(findings.quotas(&mut reader)?);
    }
    let Findings { findings, images, matched, counts_on_others, .. } = findings;
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
    let counts_on_others = counts_on_others.get();
    Ok(Scan { document, census, situation, images, matched, named, counts_on_others })
}

/// A check may take hours, and meanwhile other backups become old enough to be stuck. Whoever asked for a look at the data
/// before it is decided on does not want those given up without one.
fn leave_unlooked(finding: &mut Finding, policy: &Policy) {
    let unlooked = finding.proposal.as_ref().is_some_and(|proposal| proposal.needs.contains(&Need::StorageCheck));
    if unlooked && policy.to.as_deref() != Some(ERROR) {
        finding.proposal = None;
        finding.refusal =
            Some("it was not old enough yet when the storage was storage_checked at, so its data was not checked; try again".to_owned());
    }
}

struct Findings<'a> {
    census: &'a Census,
    situation: &'a Situation,
    request: ScanRequest<'a>,
    policy: &'a Policy,
    selection: &'a Selection,
    findings: Vec<Finding>,
    images: Images,
    matched: Matched,
    /// Selected backups that will be repaired: the rows that they hold will be free then.
    repaired: HashSet<String>,
    /// Whether something was decided that holds only if one of those is repaired before.
    counts_on_others: Cell<bool>,
}

impl<'a> Findings<'a> {
    fn new(census: &'a Census, situation: &'a Situation, request: &ScanRequest<'a>) -> Self {
        Self {
            census,
            situation,
            request: *request,
            policy: request.policy,
            selection: request.selection,
            findings: Vec::new(),
            images: BTreeMap::new(),
            matched: census.matched.clone(),
            repaired: HashSet::new(),
            counts_on_others: Cell::new(false),
        }
    }

    /// Everything that is wanted: the oldest first, what has no age (contradictions) last.
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
        first.filter(|finding| self.repaired.contains(&finding.id)).map(|finding| finding.id.clone()).collect()
    }

    /// Whether a backup will have been repaired by then.
    fn is_repaired(&self, backup: &Backup) -> bool {
        let repaired = self.repaired.contains(&backup.id);
        if repaired {
            self.counts_on_others.set(true);
        }
        repaired
    }

    fn backups(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        let census = self.census;
        let selected: Vec<&Backup> = census.kept.values().filter(|backup| census.selected.contains(&backup.id)).collect();
        // In portions, so that the rows around them need not all be in memory at once.
        for portion in selected.chunks(2_000) {
            let related = RelatedRows::read(reader, portion)?;
            let mut lineages = self.lineages(reader, portion)?;
            for backup in portion {
                let above = lineages.remove(&backup.id);
                let rows = above
                    .as_ref()
                    .filter(|_| self.request.kept == KeptRows::Chains)
                    .map(|above| images_of_chain(backup, above, self.situation.columns));
                let volume = related.volume(backup.volume_id.as_deref());
                let destination = related.volume(backup.restore_volume_id.as_deref());
                let snapshot = backup.snapshot_id.as_ref().and_then(|id| related.snapshots.get(key(id).as_ref())).cloned();
                let rows_of = (volume.as_ref(), destination.as_ref(), snapshot.as_ref());
                let case = BackupCase {
                    ancestors: above.unwrap_or_default(),
                    backup: (*backup).clone(),
                    held: decide::held(backup, rows_of, &related.others(backup), self.situation, self.policy),
                    volume,
                    destination,
                    snapshot,
                    parent: backup.parent_id.as_ref().and_then(|id| related.parents.get(key(id).as_ref())).cloned(),
                    siblings: siblings(census, backup),
                    attachments: related.attachments(backup.volume_id.as_deref()),
                    peers: peers(census, backup).map(|peer| self.peer(peer, &backup.id)).collect(),
                    volume_is_temporary: backup.volume_id.as_ref().is_some_and(|id| census.is_temporary(id)),
                    check: self.request.checks.get(&backup.id).cloned().map(Box::new),
                };
                let mut finding = decide::backup(&case, self.situation, self.policy);
                finding.rows = rows.unwrap_or_default();
                if self.request.storage_checked {
                    leave_unlooked(&mut finding, self.policy);
                }
                // Only what ends in a plan lets go of what it holds; in the order of their ids, as units are.
                if finding.is_actionable() && self.request.only.is_none_or(|only| only.contains(&finding.id)) {
                    self.repaired.insert(finding.id.clone());
                }
                // A row in error or error_deleting that was only named is nothing to report unless something can become of it.
                let pending = !matches!(finding.status.as_deref(), Some("error" | "error_deleting"));
                if pending || finding.proposal.is_some() || finding.refusal.is_some() || !self.selection.statuses.is_empty() {
                    let columns = self.situation.columns;
                    self.keep(finding, || images_of_backup(&case, columns), false);
                }
            }
        }
        Ok(())
    }

    /// What those rest on that a check on their storage says something about, or will.
    fn lineages(&self, reader: &mut Reader<'_>, portion: &[&Backup]) -> Result<HashMap<String, Vec<Arc<Backup>>>, DbError> {
        let storage = |backup: &&Backup| {
            matches!(backup.status.as_deref(), Some(CREATING | ERROR))
                && (self.request.kept == KeptRows::Chains || self.request.checks.contains_key(&backup.id))
        };
        let list: Vec<Backup> = portion.iter().copied().filter(storage).cloned().collect();
        let ancestors = lineage::ancestors(reader, &list)?;
        Ok(list.into_iter().map(|backup| backup.id).zip(ancestors).collect())
    }

    /// Whether contradictions of this backup are wanted. What was named is ids by now, and a backup that is called by one of
    /// them is not meant.
    fn wants(&self, backup: &Backup) -> bool {
        let backups = &self.selection.backups;
        self.selection.takes_inconsistent(backup) && (backups.is_empty() || backups.contains(&backup.id))
    }

    fn peer(&self, peer: &Backup, before: &str) -> Peer {
        let released = peer.id.as_str() < before && self.is_repaired(peer);
        as_peer(self.census, peer, released)
    }

    fn keep(&mut self, finding: Finding, images: impl FnOnce() -> Vec<Image>, counter: bool) {
        if self.request.kept == KeptRows::Changes && finding.is_actionable() {
            let mut images = images();
            if let Some(proposal) = &finding.proposal {
                let changed: HashSet<(&str, &str)> =
                    proposal.changes.iter().map(|change| (change.table.name(), change.id.as_str())).collect();
                images.retain(|image| changed.contains(&(image.table.name(), image.id.as_str())));
            }
            images.sort_by(|a, b| (a.table, &a.id).cmp(&(b.table, &b.id)));
            images.dedup();
            self.images.insert((finding.kind, finding.id.clone(), counter), images);
        }
        self.findings.push(finding);
    }

    fn volumes(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        let selection = self.selection;
        if ![BACKING_UP, RESTORING_BACKUP, NULL].iter().any(|status| selection.takes_leftover(status)) {
            return Ok(());
        }
        let mut pending: Vec<Volume> = Vec::new();
        let mut matched = std::mem::take(&mut self.matched);
        reader.pending_volumes(&mut |volume| {
            matched.note(selection, volume.status.as_deref(), volume.project_id.as_deref(), Some(&volume.id));
            let wanted = selection.takes_leftover(volume.status.as_deref().unwrap_or(NULL))
                && selection.takes_owner(volume.project_id.as_deref(), Some(&volume.id));
            if wanted && !self.is_explained(&volume) {
                pending.push(volume);
            }
        })?;
        self.matched = matched;
        pending.sort_by(|a, b| a.id.cmp(&b.id));
        let ids: Vec<String> = pending.iter().map(|volume| volume.id.clone()).collect();
        let mut suspects = Self::suspects_of_volumes(reader, &pending)?;
        let mut attachments: HashMap<String, Vec<Attachment>> = HashMap::new();
        for attachment in reader.attachments(&ids)? {
            attachments.entry(key(&attachment.volume_id).into_owned()).or_default().push(attachment);
        }
        let backup_hosts: Vec<String> = self.census.hosts.iter().cloned().collect();
        for volume in pending {
            let case = VolumeCase {
                attachments: attachments.remove(key(&volume.id).as_ref()).unwrap_or_default(),
                explained_by: explainers(self.census, &volume, self.situation.columns)
                    .map(|peer| as_peer(self.census, peer, self.will_let_go(peer)))
                    .collect(),
                is_temporary: self.census.is_temporary(&volume.id),
                suspects: suspects.remove(key(&volume.id).as_ref()).unwrap_or_default(),
                backup_hosts: backup_hosts.clone(),
                volume,
            };
            // While the backup is being written, its temporary volume is as it should be.
            if self.census.is_temporary_in_use(&case.volume.id) {
                continue;
            }
            if let Some(finding) = decide::left_volume(&case, self.situation, self.policy) {
                let columns = self.situation.columns;
                self.keep(finding, || vec![case.volume.image(columns)], false);
            }
        }
        Ok(())
    }

    /// Backups, whatever their status, that may be the reason for what volumes are marked as, by the volumes' keys.
    fn suspects_of_volumes(reader: &mut Reader<'_>, volumes: &[Volume]) -> Result<HashMap<String, Vec<Backup>>, DbError> {
        let marked = |status: &str| -> Vec<String> {
            volumes.iter().filter(|volume| volume.status.as_deref() == Some(status)).map(|volume| volume.id.clone()).collect()
        };
        let sources = reader.backups_of_volumes(&marked(BACKING_UP))?.into_iter().map(|backup| (backup.volume_id.clone(), backup));
        let restored = reader.backups_restored_to(&marked(RESTORING_BACKUP))?;
        let destinations = restored.into_iter().map(|backup| (backup.restore_volume_id.clone(), backup));
        Ok(by_key(sources.chain(destinations)))
    }

    fn is_explained(&self, volume: &Volume) -> bool {
        explainers(self.census, volume, self.situation.columns).any(|peer| !self.will_let_go(peer))
    }

    /// Whether a backup explains a volume only until it is repaired itself. One that is being created, or restored to
    /// a volume on record, frees the volume in its own unit and goes on explaining it here.
    fn will_let_go(&self, peer: &Backup) -> bool {
        let elsewhere = match peer.status.as_deref() {
            Some(DELETING) | None => true,
            Some(RESTORING) => self.situation.columns < ColumnSet::Mitaka,
            _ => false,
        };
        elsewhere && self.is_repaired(peer)
    }

    fn snapshots(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        let selection = self.selection;
        if !selection.takes_leftover(BACKING_UP) {
            return Ok(());
        }
        let mut pending: Vec<Snapshot> = Vec::new();
        let matched = &mut self.matched;
        reader.pending_snapshots(&mut |snapshot| {
            matched.note(selection, snapshot.status.as_deref(), snapshot.project_id.as_deref(), snapshot.volume_id.as_deref());
            if selection.takes_owner(snapshot.project_id.as_deref(), snapshot.volume_id.as_deref()) {
                pending.push(snapshot);
            }
        })?;
        let unexplained = |snapshot: &&Snapshot| snapshot_explainers(self.census, &snapshot.id).next().is_none();
        let ids: Vec<String> = pending.iter().filter(unexplained).map(|snapshot| snapshot.id.clone()).collect();
        let suspects = reader.backups_of_snapshots(&ids)?.into_iter().map(|backup| (backup.snapshot_id.clone(), backup));
        let mut suspects = by_key(suspects);
        for snapshot in pending {
            let case = SnapshotCase {
                explained_by: snapshot_explainers(self.census, &snapshot.id)
                    .map(|peer| as_peer(self.census, peer, self.will_let_go(peer)))
                    .collect(),
                suspects: suspects.remove(key(&snapshot.id).as_ref()).unwrap_or_default(),
                snapshot,
            };
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
        let doubtful = self.census.doubtful_parents();
        let occupied: HashSet<String> =
            self.findings.iter().filter(|finding| finding.is_actionable()).map(|finding| finding.id.clone()).collect();
        let mut suspects: HashMap<String, Option<Backup>> = doubtful.iter().map(|id| (id.clone(), None)).collect();
        for parent in reader.backups(&doubtful)? {
            let case = CounterCase { children: self.census.children(&parent.id), occupied: occupied.contains(&parent.id), backup: parent };
            if self.wants(&case.backup)
                && let Some(finding) = decide::counter(&case, self.situation, self.policy)
            {
                let columns = self.situation.columns;
                self.keep(finding, || vec![case.backup.image(columns)], true);
            }
            suspects.insert(case.backup.id.clone(), Some(case.backup));
        }
        let suspects: BTreeMap<String, Option<Backup>> = suspects
            .into_iter()
            .filter(|(_, parent)| parent.as_ref().is_none_or(|parent| parent.status.as_deref() == Some("error")))
            .collect();
        let parents: Vec<String> = suspects.keys().cloned().collect();
        for child in reader.children(&parents)? {
            let Some(parent_id) = child.parent_id.clone() else { continue };
            // Only a backup that claims to be of use can disappoint.
            if !matches!(child.status.as_deref(), Some(AVAILABLE | RESTORING)) || !self.wants(&child) {
                continue;
            }
            let parent = suspects.get(&parent_id).and_then(Option::as_ref);
            if let Some(finding) = decide::broken_chain(&child, &parent_id, parent) {
                self.findings.push(finding);
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
            let busy = census.of_volume(&attachment.volume_id).next().is_some();
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
                    "the clock of host {host} is {} ahead of the database's: its heartbeat proves nothing; set its clock right",
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
