//! Volumes, snapshots, attachments and temporary things that no backup explains.
//!
//! They have no host of a cinder-backup: they are judged by their age and by every backup that could explain them.

use crate::domain::status::{AVAILABLE, BACKING_UP, CREATING, ERROR_RESTORING, RESTORING_BACKUP};
use crate::domain::{
    Attachment, Backup, Evidence, EvidenceCode, Finding, FindingKind, Policy, Proposal, Situation, Snapshot, Table, Verdict, Volume,
};

use super::backup::{detach, leftover_attachment};
use super::counter::inconsistent;
use super::verdict::Suspicion;
use super::{Peer, change, command, half_restored, offer, verdict, volume as volumes};

/// Everything that the decision over a volume left behind rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeCase {
    /// The volume.
    pub volume: Volume,
    /// Its attachments.
    pub attachments: Vec<Attachment>,
    /// Active backups that could be the reason for its status.
    pub explained_by: Vec<Peer>,
    /// It is named in some `temp_volume_id`.
    pub is_temporary: bool,
    /// Backups in no active status that were made of it or restored to it: they may have been put there by hand, under a
    /// cinder-backup that works on.
    pub suspects: Vec<Backup>,
    /// Hosts of cinder-backup; an attachment that such a host holds for itself is the backup's own.
    pub backup_hosts: Vec<String>,
}

/// Everything that the decision over a snapshot left behind rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotCase {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Active backups that could be the reason for its status.
    pub explained_by: Vec<Peer>,
    /// Backups in no active status that were made of it.
    pub suspects: Vec<Backup>,
}

/// Decides over a volume in `backing-up` or `restoring-backup`; `None` where a backup explains it.
pub fn volume(case: &VolumeCase, situation: &Situation, policy: &Policy) -> Option<Finding> {
    let volume = &case.volume;
    if case.explained_by.iter().any(|peer| !peer.released) {
        return None;
    }
    let (since, age_seconds, recent) = verdict::age(volume.created_at.as_deref(), volume.updated_at.as_deref(), situation, policy);
    let status = volume.status.as_deref();
    let mut silence = None;
    let mut finding = Finding {
        kind: FindingKind::Volume,
        id: volume.id.clone(),
        name: volume.display_name.clone(),
        status: volume.status.clone(),
        host: None,
        service: None,
        project_id: volume.project_id.clone(),
        volume_id: Some(volume.id.clone()),
        since,
        age_seconds,
        verdict: Verdict::Stuck,
        evidence: Vec::new(),
        proposal: None,
        refusal: None,
        follow_up: Vec::new(),
        rows: Vec::new(),
    };
    if let Some(recent) = recent {
        finding.verdict = Verdict::Recent;
        finding.evidence.push(recent);
        return Some(finding);
    }
    if case.is_temporary {
        finding.verdict = Verdict::Inconsistent;
        let text = "made for a backup alone (temp_volume_id names it); it is not set free but deleted";
        finding.evidence.push(Evidence::new(EvidenceCode::VolumeTemporary, text));
        finding.follow_up.push(command("openstack volume delete --force", &volume.id));
        return Some(finding);
    }
    if looks_temporary(volume) {
        // Anybody can name a volume so: a name alone is no reason to tell anyone to delete it.
        finding.verdict = Verdict::Inconsistent;
        let text = "named as Cinder names a volume made for a backup alone, but no backup has it on record; it is not set free";
        finding.evidence.push(Evidence::new(EvidenceCode::VolumeTemporary, text));
        finding.follow_up.push(command("openstack volume show", &volume.id));
        return Some(finding);
    }
    if let Some(unreadable) = verdict::unreadable(volume.created_at.as_deref(), volume.updated_at.as_deref()) {
        finding.verdict = Verdict::Uncertain;
        finding.evidence.push(unreadable);
        return Some(finding);
    }
    match verdict::suspicion(&case.suspects, verdict::is_over, status, volume.updated_at.as_deref(), situation, policy) {
        Some(Suspicion::AtWork(evidence)) => {
            finding.verdict = Verdict::Uncertain;
            finding.evidence.push(evidence);
            return Some(finding);
        }
        Some(Suspicion::Silent(host, evidence)) => (finding.host, silence) = (Some(host), Some(evidence)),
        None => {}
    }
    let to = match status {
        Some(BACKING_UP) => {
            let held_by = case.attachments.iter().find_map(|attachment| {
                let host = attachment.attached_host.as_deref()?;
                case.backup_hosts.iter().find(|known| known.as_str() == host)
            });
            let (to, why) = volumes::before_backup(volume, &case.attachments, held_by.map(String::as_str), situation);
            finding.evidence.push(Evidence::new(EvidenceCode::NoActiveBackup, "backing-up, but no backup is being made of it"));
            finding.evidence.extend(why);
            to
        }
        Some(RESTORING_BACKUP) => {
            finding.evidence.push(Evidence::new(EvidenceCode::NoActiveBackup, "restoring-backup, but no backup is being restored to it"));
            finding.follow_up.extend(half_restored(&volume.id, None));
            ERROR_RESTORING
        }
        _ => {
            finding.verdict = Verdict::Inconsistent;
            let status = status.unwrap_or("NULL");
            finding.evidence.push(Evidence::new(
                EvidenceCode::StatusUnusable,
                format!("its status is {status}, as a restart of cinder-backup can leave it"),
            ));
            let state = volumes::before_backup(volume, &case.attachments, None, situation).0;
            finding.follow_up.push(command(&format!("openstack volume set --state {state}"), &volume.id));
            return Some(finding);
        }
    };
    let mut changes = Vec::new();
    change(&mut changes, &volume.image(situation.columns), "status", to);
    finding.evidence.extend(silence);
    let proposal = Proposal { status: Some(to.to_owned()), needs: Vec::new(), changes };
    offer(&mut finding, proposal, [(Table::Volumes, volume.id.as_str(), volume.unfit.as_deref())]);
    Some(finding)
}

/// `backup-vol-<volume id>` is what Cinder's volume driver calls the clone that it makes for a backup.
fn looks_temporary(volume: &Volume) -> bool {
    volume.status.as_deref() == Some(BACKING_UP)
        && volume.previous_status.is_none()
        && volume.display_name.as_deref().and_then(|name| name.strip_prefix("backup-vol-")).is_some_and(|rest| rest.len() == 36)
}

/// Decides over a snapshot in `backing-up`; `None` where a backup explains it.
pub fn snapshot(case: &SnapshotCase, situation: &Situation, policy: &Policy) -> Option<Finding> {
    let snapshot = &case.snapshot;
    if snapshot.status.as_deref() != Some(BACKING_UP) || case.explained_by.iter().any(|peer| !peer.released) {
        return None;
    }
    let (since, age_seconds, recent) = verdict::age(snapshot.created_at.as_deref(), snapshot.updated_at.as_deref(), situation, policy);
    let mut finding = Finding {
        kind: FindingKind::Snapshot,
        id: snapshot.id.clone(),
        name: snapshot.display_name.clone(),
        status: snapshot.status.clone(),
        host: None,
        service: None,
        project_id: snapshot.project_id.clone(),
        volume_id: snapshot.volume_id.clone(),
        since,
        age_seconds,
        verdict: Verdict::Stuck,
        evidence: vec![Evidence::new(EvidenceCode::NoActiveBackup, "backing-up, but no backup is being made of it")],
        proposal: None,
        refusal: None,
        follow_up: Vec::new(),
        rows: Vec::new(),
    };
    if let Some(recent) = recent {
        finding.verdict = Verdict::Recent;
        finding.evidence.insert(0, recent);
        return Some(finding);
    }
    if let Some(unreadable) = verdict::unreadable(snapshot.created_at.as_deref(), snapshot.updated_at.as_deref()) {
        finding.verdict = Verdict::Uncertain;
        finding.evidence.insert(0, unreadable);
        return Some(finding);
    }
    let status = snapshot.status.as_deref();
    match verdict::suspicion(&case.suspects, verdict::is_over, status, snapshot.updated_at.as_deref(), situation, policy) {
        Some(Suspicion::AtWork(evidence)) => {
            finding.verdict = Verdict::Uncertain;
            finding.evidence.insert(0, evidence);
            return Some(finding);
        }
        Some(Suspicion::Silent(host, evidence)) => {
            finding.host = Some(host);
            finding.evidence.push(evidence);
        }
        None => {}
    }
    let mut changes = Vec::new();
    change(&mut changes, &snapshot.image(), "status", AVAILABLE);
    let proposal = Proposal { status: Some(AVAILABLE.to_owned()), needs: Vec::new(), changes };
    offer(&mut finding, proposal, [(Table::Snapshots, snapshot.id.as_str(), snapshot.unfit.as_deref())]);
    Some(finding)
}

/// Temporary things that a backup still names although nothing is being written; `None` while it is pending.
pub fn temporaries(backup: &Backup) -> Option<Finding> {
    let status = backup.status.as_deref();
    if status == Some(CREATING) || (backup.temp_volume_id.is_none() && backup.temp_snapshot_id.is_none()) {
        return None;
    }
    let mut finding: Option<Finding> = None;
    for (what, id) in [("volume", &backup.temp_volume_id), ("snapshot", &backup.temp_snapshot_id)] {
        let Some(id) = id else { continue };
        let text = format!(
            "temporary {what} {id}, made for this backup alone, is still on record although the backup's status is {}",
            status.unwrap_or("NULL")
        );
        let evidence = Evidence::new(EvidenceCode::TemporaryLeftover, text);
        let words = if what == "volume" { "openstack volume delete --force" } else { "openstack volume snapshot delete --force" };
        let command = command(words, id);
        match &mut finding {
            Some(finding) => {
                finding.evidence.push(evidence);
                finding.follow_up.push(command);
            }
            None => {
                let mut first = inconsistent(backup, evidence);
                first.follow_up.push(command);
                finding = Some(first);
            }
        }
    }
    finding
}

/// An attachment that a backup host holds for itself to a volume of which no backup is being made.
pub fn attachment(attachment: &Attachment) -> Finding {
    Finding {
        kind: FindingKind::Volume,
        id: attachment.volume_id.clone(),
        name: None,
        status: None,
        host: attachment.attached_host.clone(),
        service: None,
        project_id: None,
        volume_id: Some(attachment.volume_id.clone()),
        since: None,
        age_seconds: None,
        verdict: Verdict::Inconsistent,
        evidence: vec![leftover_attachment(attachment)],
        proposal: None,
        refusal: None,
        rows: Vec::new(),
        follow_up: vec![detach(attachment)],
    }
}
