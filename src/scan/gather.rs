//! One scan: the census, the rows around what it kept, and the decisions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use thiserror::Error;

use super::census::Census;
use super::document::{Notice, ScanDocument, Summary};
use super::lineage;
use super::reader::Reader;
use crate::db::schema::Schema;
use crate::db::{Access, DbError, Session};
use crate::domain::decide::{self, BackupCase, CounterCase, Peer, SnapshotCase, VolumeCase, judge_backup};
use crate::domain::status::{AVAILABLE, BACKING_UP, CREATING, DELETING, ERROR, NO_VOLUME, RESTORING, RESTORING_BACKUP};
use crate::domain::time::{human, rfc3339};
use crate::domain::{
    Attachment, Backup, Checks, ColumnSet, DatabaseInfo, Finding, FindingKind, Image, NULL, Policy, Selection, Services, Situation,
    Snapshot, Verdict, Volume,
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

/// What a scan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// To look: no rows are kept.
    Look,
    /// To hand what was found to other programs: what can be checked on its storage has its rows with it.
    HandOn,
    /// To plan changes: the rows that they would be made to are kept.
    Plan,
}

/// A scan with what later steps need beside the document.
pub struct Scan {
    /// For other programs.
    pub document: ScanDocument,
    /// The pass over `backups`.
    pub census: Census,
    /// The clock and the heartbeats.
    pub situation: Situation,
    /// The rows that findings would change, as they were seen; none if the aim was to look.
    pub images: Images,
    /// The ids of the backups that were named.
    pub named: BTreeSet<String>,
}

/// The database, as every document names it.
pub fn database_info(session: &dyn Session, schema: &Schema) -> DatabaseInfo {
    let server = session.server();
    DatabaseInfo {
        engine: server.engine.name().to_owned(),
        version: server.version.clone(),
        release: schema.release.clone(),
        identity: server.identity.clone(),
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
///
/// `checks` is what is known of the storage of some backups; where there is any, decisions rest on it.
pub fn scan(
    session: &mut dyn Session,
    schema: &Schema,
    policy: &Policy,
    selection: &Selection,
    aim: Aim,
    checks: &Checks,
) -> Result<Scan, ScanError> {
    session.begin(Access::ReadOnly)?;
    let result = inside(session, schema, policy, selection, aim, checks);
    // Nothing was written; a connection that cannot even roll back has said so in the result, or will at its next use.
    let ended = session.rollback();
    let scan = result?;
    ended?;
    Ok(scan)
}

fn inside(
    session: &mut dyn Session,
    schema: &Schema,
    policy: &Policy,
    selection: &Selection,
    aim: Aim,
    checks: &Checks,
) -> Result<Scan, ScanError> {
    let database = database_info(session, schema);
    let mut reader = Reader { session, schema };
    let situation = situation(&mut reader)?;
    let mut census = Census::take(&mut reader, selection)?;
    let selection = census.resolve(selection).map_err(ScanError::Selection)?;
    let mut gathering = Gathering::new(&census, &situation, policy, &selection, aim, checks);
    gathering.backups(&mut reader)?;
    gathering.volumes(&mut reader)?;
    gathering.snapshots(&mut reader)?;
    if selection.wants_inconsistent() {
        gathering.chains(&mut reader)?;
        gathering.leftovers(&mut reader)?;
    }
    let mut notices = gathering.clocks();
    if selection.takes_leftover("quota") && selection.volumes.is_empty() {
        notices.extend(gathering.quotas(&mut reader)?);
    }
    let (mut findings, images) = (gathering.findings, gathering.images);
    // The oldest first; what has no age (contradictions) last.
    findings.sort_by(|a, b| (a.since.is_none(), &a.since, a.kind, &a.id).cmp(&(b.since.is_none(), &b.since, b.kind, &b.id)));
    // The sum is of all: a limit must not make trouble look smaller than it is.
    let summary = Summary::of(&findings);
    let left_out = findings.len().saturating_sub(selection.limit.unwrap_or(usize::MAX));
    findings.truncate(findings.len() - left_out);
    let document = ScanDocument {
        schema: "cinder-backup-repair/scan",
        schema_version: 1,
        database,
        taken_at: rfc3339(situation.now),
        thresholds: policy.thresholds,
        findings,
        notices,
        summary,
        left_out,
    };
    let named = selection.backups.clone();
    Ok(Scan { document, census, situation, images, named })
}

struct Gathering<'a> {
    census: &'a Census,
    situation: &'a Situation,
    policy: &'a Policy,
    selection: &'a Selection,
    aim: Aim,
    checks: &'a Checks,
    findings: Vec<Finding>,
    images: Images,
    /// Selected backups that are stuck: the rows that they hold will be free once they are repaired.
    stuck: HashSet<String>,
}

impl<'a> Gathering<'a> {
    fn new(
        census: &'a Census,
        situation: &'a Situation,
        policy: &'a Policy,
        selection: &'a Selection,
        aim: Aim,
        checks: &'a Checks,
    ) -> Self {
        let stuck = census
            .selected
            .iter()
            .filter(|id| {
                let judged = census.kept.get(*id).map(|backup| judge_backup(backup, checks.get(*id), situation, policy));
                judged.is_some_and(|judged| judged.verdict == Verdict::Stuck)
            })
            .cloned()
            .collect();
        Self { census, situation, policy, selection, aim, checks, findings: Vec::new(), images: BTreeMap::new(), stuck }
    }

    fn backups(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        let census = self.census;
        let selected: Vec<&Backup> = census.kept.values().filter(|backup| census.selected.contains(&backup.id)).collect();
        // In portions, so that the rows around them need not all be in memory at once.
        for portion in selected.chunks(2_000) {
            let around = Around::read(reader, portion)?;
            let mut lineages = self.lineages(reader, portion)?;
            for backup in portion {
                let above = lineages.remove(&backup.id);
                let rows =
                    above.as_ref().filter(|_| self.aim == Aim::HandOn).map(|above| images_of_chain(backup, above, self.situation.columns));
                let case = BackupCase {
                    ancestors: above.unwrap_or_default(),
                    backup: (*backup).clone(),
                    volume: around.volume(backup.volume_id.as_deref()),
                    destination: around.volume(backup.restore_volume_id.as_deref()),
                    snapshot: backup.snapshot_id.as_ref().and_then(|id| around.snapshots.get(id)).cloned(),
                    parent: backup.parent_id.as_ref().and_then(|id| around.parents.get(id)).cloned(),
                    siblings: siblings(census, backup),
                    attachments: around.attachments(backup.volume_id.as_deref()),
                    peers: peers(census, backup).map(|peer| self.peer(peer, &backup.id)).collect(),
                    volume_is_temporary: backup.volume_id.as_ref().is_some_and(|id| census.temporary_volumes.contains(id)),
                    check: self.checks.get(&backup.id).cloned().map(Box::new),
                };
                let mut finding = decide::backup(&case, self.situation, self.policy);
                finding.rows = rows.unwrap_or_default();
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
            matches!(backup.status.as_deref(), Some(CREATING | ERROR)) && (self.aim == Aim::HandOn || self.checks.contains_key(&backup.id))
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
        let released = self.stuck.contains(&peer.id) && peer.id.as_str() < before;
        as_peer(self.census, peer, released)
    }

    fn keep(&mut self, finding: Finding, images: impl FnOnce() -> Vec<Image>, counter: bool) {
        if self.aim == Aim::Plan && finding.is_actionable() {
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
        reader.pending_volumes(&mut |volume| {
            let wanted = selection.takes_leftover(volume.status.as_deref().unwrap_or(NULL))
                && selection.takes_owner(volume.project_id.as_deref(), Some(&volume.id));
            if wanted && !self.is_explained(&volume) {
                pending.push(volume);
            }
        })?;
        pending.sort_by(|a, b| a.id.cmp(&b.id));
        let ids: Vec<String> = pending.iter().map(|volume| volume.id.clone()).collect();
        let mut attachments: HashMap<String, Vec<Attachment>> = HashMap::new();
        for attachment in reader.attachments(&ids)? {
            attachments.entry(attachment.volume_id.clone()).or_default().push(attachment);
        }
        let backup_hosts: Vec<String> = self.census.hosts.iter().cloned().collect();
        for volume in pending {
            let case = VolumeCase {
                attachments: attachments.remove(&volume.id).unwrap_or_default(),
                explained_by: explainers(self.census, &volume, self.situation.columns)
                    .map(|peer| as_peer(self.census, peer, self.will_let_go(peer)))
                    .collect(),
                is_temporary: self.census.temporary_volumes.contains(&volume.id),
                backup_hosts: backup_hosts.clone(),
                volume,
            };
            // While the backup is being written, its temporary volume is as it should be.
            if self.census.temporaries_in_use.contains(&case.volume.id) {
                continue;
            }
            if let Some(finding) = decide::left_volume(&case, self.situation, self.policy) {
                let columns = self.situation.columns;
                self.keep(finding, || vec![case.volume.image(columns)], false);
            }
        }
        Ok(())
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
        elsewhere && self.stuck.contains(&peer.id)
    }

    fn snapshots(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        let selection = self.selection;
        if !selection.takes_leftover(BACKING_UP) {
            return Ok(());
        }
        let mut pending: Vec<Snapshot> = Vec::new();
        reader.pending_snapshots(&mut |snapshot| {
            if selection.takes_owner(snapshot.project_id.as_deref(), snapshot.volume_id.as_deref()) {
                pending.push(snapshot);
            }
        })?;
        for snapshot in pending {
            let case = SnapshotCase {
                explained_by: snapshot_explainers(self.census, &snapshot.id)
                    .map(|peer| as_peer(self.census, peer, self.will_let_go(peer)))
                    .collect(),
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
            let busy = census.by_volume.contains_key(&attachment.volume_id);
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
                code: "clock-ahead".to_owned(),
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
                code: "quota-wrong".to_owned(),
                text: format!("the quota usage of project {project} is wrong: {}", wrong.join("; ")),
                follow_up: vec![format!("cinder-manage quota sync --project-id {}", decide::shell_word(&project))],
            })
            .collect())
    }
}

/// The rows around a portion of backups.
struct Around {
    volumes: HashMap<String, Volume>,
    snapshots: HashMap<String, Snapshot>,
    parents: HashMap<String, Backup>,
    attachments: HashMap<String, Vec<Attachment>>,
}

impl Around {
    fn read(reader: &mut Reader<'_>, backups: &[&Backup]) -> Result<Self, DbError> {
        let ids = |of: &dyn Fn(&Backup) -> Vec<Option<String>>| -> Vec<String> {
            let set: BTreeSet<String> =
                backups.iter().flat_map(|backup| of(backup)).flatten().filter(|id| id.as_str() != NO_VOLUME).collect();
            set.into_iter().collect()
        };
        let volume_ids = ids(&|backup| vec![backup.volume_id.clone(), backup.restore_volume_id.clone()]);
        let volumes: HashMap<String, Volume> = reader.volumes(&volume_ids)?.into_iter().map(|volume| (volume.id.clone(), volume)).collect();
        // Attachments matter only for volumes that may be set free.
        let held: Vec<String> =
            volumes.values().filter(|volume| volume.status.as_deref() == Some(BACKING_UP)).map(|volume| volume.id.clone()).collect();
        let mut attachments: HashMap<String, Vec<Attachment>> = HashMap::new();
        for attachment in reader.attachments(&held)? {
            attachments.entry(attachment.volume_id.clone()).or_default().push(attachment);
        }
        let snapshots = reader.snapshots(&ids(&|backup| vec![backup.snapshot_id.clone()]))?;
        let parents = reader.backups(&ids(&|backup| vec![backup.parent_id.clone()]))?;
        Ok(Self {
            volumes,
            snapshots: snapshots.into_iter().map(|snapshot| (snapshot.id.clone(), snapshot)).collect(),
            parents: parents.into_iter().map(|parent| (parent.id.clone(), parent)).collect(),
            attachments,
        })
    }

    fn volume(&self, id: Option<&str>) -> Option<Volume> {
        id.and_then(|id| self.volumes.get(id)).cloned()
    }

    fn attachments(&self, volume: Option<&str>) -> Vec<Attachment> {
        let mut found = volume.and_then(|id| self.attachments.get(id)).cloned().unwrap_or_default();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }
}

/// The other active backups that may need a row which `backup` needs.
pub fn peers<'c>(census: &'c Census, backup: &Backup) -> impl Iterator<Item = &'c Backup> {
    let by_volume = [&backup.volume_id, &backup.restore_volume_id].into_iter().flatten().filter_map(|id| census.by_volume.get(id));
    let by_snapshot = backup.snapshot_id.iter().filter_map(|id| census.by_snapshot.get(id));
    let ids: BTreeSet<&String> = by_volume.chain(by_snapshot).flatten().filter(|id| **id != backup.id).collect();
    ids.into_iter().filter_map(|id| census.kept.get(id)).collect::<Vec<_>>().into_iter()
}

/// The active backups that could be the reason for a volume's status.
pub fn explainers<'c>(census: &'c Census, volume: &Volume, columns: ColumnSet) -> impl Iterator<Item = &'c Backup> {
    let status = volume.status.as_deref();
    let named = census.by_volume.get(&volume.id).into_iter().flatten().filter_map(|id| census.kept.get(id));
    let mut found: Vec<&Backup> = match status {
        // A backup that is deleted while it is being written keeps its volume until the writer notices. From Mitaka to
        // Ocata the backup of a snapshot, too, set the volume to backing-up, and not the snapshot.
        Some(BACKING_UP) => named
            .filter(|backup| {
                backup.volume_id.as_deref() == Some(&volume.id)
                    && census.holds_volume(backup)
                    && matches!(backup.status.as_deref(), Some(CREATING | DELETING) | None)
            })
            .collect(),
        // Before Mitaka it is not on record where a backup is restored to: any restore may be the one.
        Some(RESTORING_BACKUP) if columns < ColumnSet::Mitaka => census.restoring.iter().filter_map(|id| census.kept.get(id)).collect(),
        Some(RESTORING_BACKUP) => named
            .filter(|backup| backup.status.as_deref() == Some(RESTORING) && backup.restore_volume_id.as_deref() == Some(&volume.id))
            .collect(),
        _ => Vec::new(),
    };
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found.into_iter()
}

/// The active backups that could be the reason for a snapshot's status.
pub fn snapshot_explainers<'c>(census: &'c Census, snapshot_id: &str) -> impl Iterator<Item = &'c Backup> {
    census
        .by_snapshot
        .get(snapshot_id)
        .into_iter()
        .flatten()
        .filter_map(|id| census.kept.get(id))
        .filter(|backup| matches!(backup.status.as_deref(), Some(CREATING | DELETING) | None))
}

/// The live children of a backup's parent, without the backup itself.
pub fn siblings(census: &Census, backup: &Backup) -> decide::Children {
    let Some(parent) = &backup.parent_id else {
        return decide::Children::default();
    };
    let mut children = census.children(parent);
    children.remove(backup.status.as_deref());
    children
}

/// A backup as a peer of another.
pub fn as_peer(census: &Census, backup: &Backup, released: bool) -> Peer {
    Peer {
        id: backup.id.clone(),
        status: backup.status.clone(),
        volume_id: backup.volume_id.clone().filter(|_| census.holds_volume(backup)),
        snapshot_id: backup.snapshot_id.clone(),
        restore_volume_id: backup.restore_volume_id.clone(),
        released,
    }
}

/// The images of a backup and of those that it rests on.
fn images_of_chain(backup: &Backup, above: &[Arc<Backup>], columns: ColumnSet) -> Vec<Image> {
    std::iter::once(backup).chain(above.iter().map(AsRef::as_ref)).map(|row| row.image(columns)).collect()
}

/// The images of all rows that a backup's unit could change.
pub fn images_of_backup(case: &BackupCase, columns: ColumnSet) -> Vec<Image> {
    let mut images = vec![case.backup.image(columns)];
    images.extend(case.parent.iter().map(|parent| parent.image(columns)));
    images.extend(case.volume.iter().chain(&case.destination).map(|volume| volume.image(columns)));
    images.extend(case.snapshot.iter().map(Snapshot::image));
    images
}
