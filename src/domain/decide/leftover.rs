//! Leftovers: volumes, snapshots and attachments that no backup explains, and temporary volumes and snapshots.
//!
//! They name no host of a cinder-backup, so their age and all backups that could explain them decide.

use crate::domain::status::{AVAILABLE, BACKING_UP, CREATING, ERROR_RESTORING, RESTORING_BACKUP};
use crate::domain::{
    Attachment, Backup, Evidence, EvidenceCode, Finding, FindingKind, Policy, Proposal, Situation, Snapshot, Table, Verdict, Volume,
};

use super::backup::{delete_temporary, detach, leftover_attachment};
use super::verdict::{Marked, Suspicion};
use super::{Peer, about_backup, change, command, half_restored, new_finding, propose_or_refuse, verdict, volume as volumes};

/// The evidence text for a volume or snapshot in `backing-up` that no backup explains.
const NO_BACKUP_OF_IT: &str = "backing-up, but no backup is being made of it";

/// Everything that the decision for a leftover volume depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeCase {
    pub volume: Volume,
    pub attachments: Vec<Attachment>,
    /// Active backups that could explain its status.
    pub explained_by: Vec<Peer>,
    /// It is named in some `temp_volume_id`.
    pub is_temporary: bool,
    /// Backups without an active status that were made of it or restored to it. Their status may have been set by hand while cinder-backup
    /// works on.
    pub suspects: Vec<Backup>,
    /// Hosts of cinder-backup. An attachment that such a host holds for itself is that of the backup.
    pub backup_hosts: Vec<String>,
}

/// Everything that the decision for a leftover snapshot depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotCase {
    pub snapshot: Snapshot,
    /// Active backups that could explain its status.
    pub explained_by: Vec<Peer>,
    /// Backups without an active status that were made of it.
    pub suspects: Vec<Backup>,
}

/// Decides for a volume in `backing-up` or `restoring-backup`; `None` if a backup explains it.
pub fn volume(case: &VolumeCase, situation: &Situation, policy: &Policy) -> Option<Finding> {
    let volume = &case.volume;
    if case.explained_by.iter().any(|peer| !peer.released) {
        return None;
    }
    let (created_at, marked) =
        (volume.created_at.as_deref(), Marked { status: volume.status.as_deref(), at: volume.updated_at.as_deref() });
    let (since, age_seconds, recent) = verdict::age(created_at, marked.at, situation, policy);
    let mut finding = Finding {
        name: volume.display_name.clone(),
        status: volume.status.clone(),
        project_id: volume.project_id.clone(),
        volume_id: Some(volume.id.clone()),
        since,
        age_seconds,
        ..new_finding(FindingKind::Volume, &volume.id, Verdict::Stuck)
    };
    let not_stuck = match recent {
        Some(recent) => Some((Verdict::Recent, recent, None)),
        None => temporary(case)
            .map(|(evidence, command)| (Verdict::Inconsistent, evidence, Some(command)))
            .or_else(|| Some((Verdict::Uncertain, verdict::unreadable(created_at, marked.at)?, None))),
    };
    if let Some((verdict, evidence, command)) = not_stuck {
        finding.verdict = verdict;
        finding.evidence.push(evidence);
        finding.follow_up.extend(command);
        return Some(finding);
    }
    let mut silence = None;
    match verdict::suspicion(&case.suspects, verdict::is_over, marked, situation, policy) {
        Some(Suspicion::AtWork(evidence)) => {
            finding.verdict = Verdict::Uncertain;
            finding.evidence.push(evidence);
            return Some(finding);
        }
        Some(Suspicion::Silent(host, evidence)) => (finding.host, silence) = (Some(host), Some(evidence)),
        None => {}
    }
    let to = match marked.status {
        Some(BACKING_UP) => {
            let held_by = case.attachments.iter().find_map(|attachment| {
                let host = attachment.attached_host.as_deref()?;
                case.backup_hosts.iter().find(|known| known.as_str() == host)
            });
            let (to, why) = volumes::before_backup(volume, &case.attachments, held_by.map(String::as_str), situation);
            finding.note(EvidenceCode::NoActiveBackup, NO_BACKUP_OF_IT);
            finding.evidence.extend(why);
            to
        }
        Some(RESTORING_BACKUP) => {
            finding.note(EvidenceCode::NoActiveBackup, "restoring-backup, but no backup is being restored to it");
            finding.follow_up.extend(half_restored(&volume.id, None));
            ERROR_RESTORING
        }
        status => {
            finding.verdict = Verdict::Inconsistent;
            let text = format!("its status is {}, which a restart of cinder-backup can leave behind", status.unwrap_or("NULL"));
            finding.note(EvidenceCode::StatusUnusable, text);
            let state = volumes::before_backup(volume, &case.attachments, None, situation).0;
            finding.follow_up.push(command(&format!("openstack volume set --state {state}"), &volume.id));
            return Some(finding);
        }
    };
    let mut changes = Vec::new();
    change(&mut changes, &volume.image(situation.columns), "status", to);
    finding.evidence.extend(silence);
    let proposal = Proposal { status: Some(to.to_owned()), needs: Vec::new(), changes };
    propose_or_refuse(&mut finding, proposal, [(Table::Volumes, volume.id.as_str(), volume.unchangeable.as_deref())]);
    Some(finding)
}

/// The evidence that a volume was made only for a backup, and what to do with it.
fn temporary(case: &VolumeCase) -> Option<(Evidence, String)> {
    let (text, words) = if case.is_temporary {
        ("made only for a backup (temp_volume_id names it): delete it instead of making it available", "openstack volume delete --force")
    } else if looks_temporary(&case.volume) {
        // Any volume can have such a name, which is not enough to suggest a deletion.
        (
            "named as Cinder names a volume made only for a backup, but no backup has it on record; it stays as it is",
            "openstack volume show",
        )
    } else {
        return None;
    };
    Some((Evidence::new(EvidenceCode::VolumeTemporary, text), command(words, &case.volume.id)))
}

/// Whether it is named `backup-vol-<volume id>`, as Cinder's volume driver names the clone that it makes for a backup.
fn looks_temporary(volume: &Volume) -> bool {
    volume.status.as_deref() == Some(BACKING_UP)
        && volume.previous_status.is_none()
        && volume.display_name.as_deref().and_then(|name| name.strip_prefix("backup-vol-")).is_some_and(|rest| rest.len() == 36)
}

/// Decides for a snapshot in `backing-up`; `None` if a backup explains it.
pub fn snapshot(case: &SnapshotCase, situation: &Situation, policy: &Policy) -> Option<Finding> {
    let snapshot = &case.snapshot;
    if snapshot.status.as_deref() != Some(BACKING_UP) || case.explained_by.iter().any(|peer| !peer.released) {
        return None;
    }
    let (created_at, marked) =
        (snapshot.created_at.as_deref(), Marked { status: snapshot.status.as_deref(), at: snapshot.updated_at.as_deref() });
    let (since, age_seconds, recent) = verdict::age(created_at, marked.at, situation, policy);
    let mut finding = Finding {
        name: snapshot.display_name.clone(),
        status: snapshot.status.clone(),
        project_id: snapshot.project_id.clone(),
        volume_id: snapshot.volume_id.clone(),
        since,
        age_seconds,
        evidence: vec![Evidence::new(EvidenceCode::NoActiveBackup, NO_BACKUP_OF_IT)],
        ..new_finding(FindingKind::Snapshot, &snapshot.id, Verdict::Stuck)
    };
    let not_stuck = match recent {
        Some(recent) => Some((Verdict::Recent, recent)),
        None => verdict::unreadable(created_at, marked.at).map(|unreadable| (Verdict::Uncertain, unreadable)),
    };
    let not_stuck = not_stuck.or_else(|| match verdict::suspicion(&case.suspects, verdict::is_over, marked, situation, policy)? {
        Suspicion::AtWork(evidence) => Some((Verdict::Uncertain, evidence)),
        Suspicion::Silent(host, evidence) => {
            finding.host = Some(host);
            finding.evidence.push(evidence);
            None
        }
    });
    if let Some((verdict, evidence)) = not_stuck {
        finding.verdict = verdict;
        finding.evidence.insert(0, evidence);
        return Some(finding);
    }
    let mut changes = Vec::new();
    change(&mut changes, &snapshot.image(), "status", AVAILABLE);
    let proposal = Proposal { status: Some(AVAILABLE.to_owned()), needs: Vec::new(), changes };
    propose_or_refuse(&mut finding, proposal, [(Table::Snapshots, snapshot.id.as_str(), snapshot.unchangeable.as_deref())]);
    Some(finding)
}

/// Decides for the temporary volume and snapshot of a backup; `None` if it has none, or is being created.
pub fn temporaries(backup: &Backup) -> Option<Finding> {
    let status = backup.status.as_deref();
    if status == Some(CREATING) || (backup.temp_volume_id.is_none() && backup.temp_snapshot_id.is_none()) {
        return None;
    }
    let mut finding = about_backup(backup, Verdict::Inconsistent);
    for (what, id) in [("volume", &backup.temp_volume_id), ("snapshot", &backup.temp_snapshot_id)] {
        let Some(id) = id else { continue };
        let text = format!(
            "temporary {what} {id}, made only for this backup, is still on record although the backup's status is {}",
            status.unwrap_or("NULL")
        );
        finding.note(EvidenceCode::TemporaryLeftover, text);
        finding.follow_up.push(delete_temporary(what, id));
    }
    Some(finding)
}

/// Decides for an attachment that a backup host holds for itself although no backup is being made of the volume.
pub fn attachment(attachment: &Attachment) -> Finding {
    Finding {
        host: attachment.attached_host.clone(),
        volume_id: Some(attachment.volume_id.clone()),
        evidence: vec![leftover_attachment(attachment)],
        follow_up: vec![detach(attachment)],
        ..new_finding(FindingKind::Volume, &attachment.volume_id, Verdict::Inconsistent)
    }
}
