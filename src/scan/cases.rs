//! Builds the cases that [`decide`] judges. It is the only place where facts become a case: when a plan is made, and again when it is applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::active::{ActiveBackups, volumes_of};
use super::census::Census;
use crate::domain::decide::{BackupCase, Children, CounterCase, Deletion, Peer, QuotaCase, SnapshotCase, VolumeCase};
use crate::domain::id::same;
use crate::domain::status::{AVAILABLE, BACKING_UP, CREATING, DELETED, DELETING, RESTORING, RESTORING_BACKUP};
use crate::domain::{Attachment, Backup, CheckResult, ColumnSet, Evidence, Policy, QuotaUsage, Reservation, Snapshot, Volume};

/// The rows that one decision depends on, beside the row that it is about.
///
/// A scan takes them from the census and from rows that it reads in batches. A run reads them under lock, just before it writes. Both
/// give the same case for the same rows, but for three facts: what a later unit may count on ([`Facts::is_repaired_before`]), and what is
/// judged only once, when the plan is made ([`Facts::row_conflicts`], [`Facts::suspects`]).
pub trait Facts {
    /// The census: a scan's own, or the one that was taken before the run.
    fn census(&self) -> &Census;
    /// The active backups. Under lock: those of the locked rows that are still active. A backup that an earlier unit has repaired is not,
    /// in a dry run neither, because its rows are taken as that unit would have left them.
    fn active(&self) -> &dyn ActiveBackups;
    /// A live volume.
    fn volume(&self, id: &str) -> Option<&Volume>;
    /// A live snapshot.
    fn snapshot(&self, id: &str) -> Option<&Snapshot>;
    /// The live parent of a backup.
    fn parent(&self, id: &str) -> Option<&Backup>;
    /// The live ancestors of a backup whose storage was checked, its parent first.
    fn ancestors(&self, backup: &Backup) -> Vec<Arc<Backup>>;
    /// The live attachments of a volume.
    fn attachments(&self, volume: &str) -> Vec<Attachment>;
    /// The live children of a backup. Under lock: as the census counted them, with what the run has changed since.
    fn children(&self, parent: &str) -> Children;
    /// Of what only the deletion of a backup depends on: its metadata and key, and the quota of its project.
    fn deletion(&self, backup: &Backup) -> Deletion;
    /// Whether an earlier unit of the same plan repairs this active backup, so that it will hold its rows no longer. Never under lock: what
    /// is active then was not repaired.
    fn is_repaired_before(&self, peer: &Peer) -> bool;
    /// Volumes and snapshots of the case's backup that other backups may still use, although their status does not say so. Under lock:
    /// as the plan has them on record, because the services of those backups were judged then.
    fn row_conflicts(&self, case: &BackupCase) -> Vec<Evidence>;
    /// Backups in no active status that may still use a volume or snapshot. None under lock: the plan's unit names the host of the only one
    /// that was not ruled out.
    fn suspects(&self, id: &str) -> Vec<Backup>;
}

/// The case of a backup, with the check of its storage if there is one.
pub fn backup_case(backup: Backup, check: Option<&CheckResult>, facts: &dyn Facts, policy: &Policy) -> BackupCase {
    let volume = backup.volume_id.as_deref().and_then(|id| facts.volume(id)).cloned();
    // Attachments matter only for a volume that may be set free.
    let held = volume.as_ref().filter(|volume| volume.status.as_deref() == Some(BACKING_UP));
    let mut case = BackupCase {
        attachments: held.map(|volume| attachments(facts, &volume.id)).unwrap_or_default(),
        destination: backup.restore_volume_id.as_deref().and_then(|id| facts.volume(id)).cloned(),
        snapshot: backup.snapshot_id.as_deref().and_then(|id| facts.snapshot(id)).cloned(),
        parent: backup.parent_id.as_deref().filter(|_| may_change_parent(check, policy)).and_then(|id| facts.parent(id)).cloned(),
        ancestors: if check.is_some() && policy.needs_check(backup.status.as_deref()) { facts.ancestors(&backup) } else { Vec::new() },
        siblings: siblings(&backup, facts),
        peers: peers(facts.active(), &backup).into_iter().map(|peer| Peer { released: facts.is_repaired_before(&peer), ..peer }).collect(),
        conflicts: Vec::new(),
        volume_is_temporary: backup.volume_id.as_deref().is_some_and(|id| facts.census().is_temporary(id)),
        check: check.cloned().map(Box::new),
        deletion: policy.deletes().then(|| Box::new(deletion(&backup, facts))),
        volume,
        backup,
    };
    case.conflicts = facts.row_conflicts(&case);
    case
}

/// The case of a volume that is marked although no backup may explain it.
pub fn volume_case(volume: Volume, facts: &dyn Facts, columns: ColumnSet) -> VolumeCase {
    let attachments = attachments(facts, &volume.id);
    let hosts = attachments.iter().filter_map(|attachment| attachment.attached_host.as_ref());
    VolumeCase {
        backup_hosts: hosts.filter(|host| facts.census().hosts.contains_key(*host)).cloned().collect(),
        explained_by: explained_by(explainers(facts.active(), &volume, columns), facts, columns),
        is_temporary: facts.census().is_temporary(&volume.id),
        suspects: facts.suspects(&volume.id),
        attachments,
        volume,
    }
}

/// The case of a snapshot that is marked although no backup may explain it.
pub fn snapshot_case(snapshot: Snapshot, facts: &dyn Facts, columns: ColumnSet) -> SnapshotCase {
    let explained_by = explained_by(snapshot_explainers(facts.active(), &snapshot.id), facts, columns);
    SnapshotCase { explained_by, suspects: facts.suspects(&snapshot.id), snapshot }
}

/// The case of a parent's counter. `occupied`: another unit of the same plan changes the row.
pub fn counter_case(backup: Backup, facts: &dyn Facts, occupied: bool) -> CounterCase {
    CounterCase { children: facts.children(&backup.id), occupied, backup }
}

/// The case of a project's quotas. `wait_reason`: why they cannot be corrected yet.
pub fn quota_case(
    project: &str,
    mut usages: Vec<QuotaUsage>,
    mut reservations: Option<Vec<Reservation>>,
    census: &Census,
    wait_reason: Option<String>,
) -> QuotaCase {
    usages.sort_by(|a, b| a.id.cmp(&b.id));
    reservations.iter_mut().for_each(|all| all.sort_by(|a, b| a.id.cmp(&b.id)));
    let counted = census.projects.get(project).copied().unwrap_or_default();
    QuotaCase { project: project.to_owned(), usages, reservations, counted, wait_reason }
}

/// Whether a decision may change the counter of a backup's parent, so that it depends on the parent.
pub fn may_change_parent(check: Option<&CheckResult>, policy: &Policy) -> bool {
    check.is_some() || matches!(policy.to.as_deref(), Some(AVAILABLE | DELETED))
}

/// What only the deletion of a backup depends on.
fn deletion(backup: &Backup, facts: &dyn Facts) -> Deletion {
    let mut of_volume = backup.volume_id.iter().flat_map(|id| facts.active().of_volume(id));
    let writing = of_volume.find(|other| other.status.as_deref() == Some(CREATING));
    Deletion { children: facts.children(&backup.id), writing: writing.map(|other| other.id), ..facts.deletion(backup) }
}

/// The other active backups that may use a volume or snapshot of this one, in the order of their ids.
pub fn peers(active: &dyn ActiveBackups, backup: &Backup) -> Vec<Peer> {
    let by_volume = volumes_of(backup).flat_map(|id| active.of_volume(id));
    let by_snapshot = backup.snapshot_id.iter().flat_map(|id| active.of_snapshot(id));
    in_order(by_volume.chain(by_snapshot).filter(|peer| peer.id != backup.id))
}

/// The active backups that may be the reason for a volume's status.
pub fn explainers(active: &dyn ActiveBackups, volume: &Volume, columns: ColumnSet) -> Vec<Peer> {
    let is_this = |id: &Option<String>| id.as_deref().is_some_and(|id| same(id, &volume.id));
    match volume.status.as_deref() {
        // From Mitaka to Ocata the backup of a snapshot, too, set the volume to backing-up, and not the snapshot.
        Some(BACKING_UP) => {
            in_order(active.of_volume(&volume.id).into_iter().filter(|backup| is_this(&backup.volume_id) && may_be_written(backup)))
        }
        // Before Mitaka the destination of a restore is not on record: any restore may be the reason.
        Some(RESTORING_BACKUP) if columns < ColumnSet::Mitaka => in_order(active.restoring()),
        Some(RESTORING_BACKUP) => in_order(
            active
                .of_volume(&volume.id)
                .into_iter()
                .filter(|backup| backup.status.as_deref() == Some(RESTORING) && is_this(&backup.restore_volume_id)),
        ),
        _ => Vec::new(),
    }
}

/// The active backups that may be the reason for a snapshot's status.
pub fn snapshot_explainers(active: &dyn ActiveBackups, snapshot: &str) -> Vec<Peer> {
    in_order(active.of_snapshot(snapshot).into_iter().filter(may_be_written))
}

/// A backup that is deleted while it is written keeps its volume or snapshot until the writer notices.
fn may_be_written(backup: &Peer) -> bool {
    matches!(backup.status.as_deref(), Some(CREATING | DELETING) | None)
}

/// Whether an active backup explains a volume or snapshot whatever is repaired before. The repair of a backup that is created, or restored
/// to a volume on record, sets the row free in its own unit: here it explains the row all the same.
pub(super) fn explains_always(peer: &Peer, columns: ColumnSet) -> bool {
    match peer.status.as_deref() {
        Some(DELETING) | None => false,
        Some(RESTORING) => columns >= ColumnSet::Mitaka,
        _ => true,
    }
}

fn explained_by(explainers: Vec<Peer>, facts: &dyn Facts, columns: ColumnSet) -> Vec<Peer> {
    let judge = |peer: Peer| Peer { released: !explains_always(&peer, columns) && facts.is_repaired_before(&peer), ..peer };
    explainers.into_iter().map(judge).collect()
}

/// The live children of a backup's parent, without the backup itself.
fn siblings(backup: &Backup, facts: &dyn Facts) -> Children {
    let Some(parent) = &backup.parent_id else { return Children::default() };
    let mut children = facts.children(parent);
    children.remove(backup.status.as_deref());
    children
}

fn attachments(facts: &dyn Facts, volume: &str) -> Vec<Attachment> {
    let mut found = facts.attachments(volume);
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

fn in_order(backups: impl IntoIterator<Item = Peer>) -> Vec<Peer> {
    backups.into_iter().map(|backup| (backup.id.clone(), backup)).collect::<BTreeMap<_, _>>().into_values().collect()
}
