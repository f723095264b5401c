//! Row conflicts: volumes and snapshots of a stuck backup that another backup may still use.
//!
//! A backup can be stuck after its volume was free again, because only its own last update was lost. Another backup may then have marked the
//! volume, and its status may have been set by hand while its cinder-backup works on. Such a row is left to a later scan, which judges it by
//! all backups that could explain it.

use crate::domain::status::{BACKING_UP, CREATING, RESTORING};
use crate::domain::time::parse;
use crate::domain::{Backup, Evidence, EvidenceCode, Policy, Situation, Snapshot, Volume, is_same_host};

use super::verdict::{Marked, Suspicion, marked_after, suspicion};

/// Live backups of any status that share rows with a stuck backup.
#[derive(Debug, Clone, Default)]
pub struct OtherBackups {
    /// Backups of its volume.
    pub of_volume: Vec<Backup>,
    /// Backups that were last restored to the volume that it is restored to.
    pub restored_there: Vec<Backup>,
    /// Backups of its snapshot.
    pub of_snapshot: Vec<Backup>,
}

/// Whether a marked row may be marked for another backup, because it was written after this backup took it.
///
/// The backup of a snapshot may not use its volume at all, so the volume may have been marked before. And once an increment was counted in a
/// backup, the time at which its restore was requested is not known any more.
pub fn may_be_marked_for_another(backup: &Backup, marked_at: Option<&str>) -> bool {
    let may_be_before = backup.snapshot_id.is_some() || backup.status.as_deref() == Some(RESTORING);
    marked_after(taken_at(backup), marked_at).is_none_or(|span| span > 0 || (span < 0 && may_be_before))
}

/// When a backup took its rows: when it was made, or when its restore was requested.
fn taken_at(backup: &Backup) -> Option<&str> {
    let restoring = backup.status.as_deref() == Some(RESTORING);
    backup.updated_at.as_deref().filter(|_| restoring).or(backup.created_at.as_deref())
}

/// The row conflicts of `backup`, as evidence.
pub fn row_conflicts(
    backup: &Backup,
    (volume, destination, snapshot): (Option<&Volume>, Option<&Volume>, Option<&Snapshot>),
    others: &OtherBackups,
    situation: &Situation,
    policy: &Policy,
) -> Vec<Evidence> {
    let judge = |code: EvidenceCode, what: String, list: &[Backup], marked: Marked<'_>, any_age: bool| {
        if list.is_empty() || !may_be_marked_for_another(backup, marked.at) {
            return None;
        }
        let taken = taken_at(backup).and_then(parse);
        // A backup that began before this one had ended when this one took the row.
        let later = |other: &Backup| {
            let touched = other.created_at.as_deref().and_then(parse);
            let touched =
                if marked.status == Some(BACKING_UP) { touched } else { touched.max(other.updated_at.as_deref().and_then(parse)) };
            any_age || taken.zip(touched).is_none_or(|(taken, touched)| touched >= taken)
        };
        let list: Vec<Backup> = list.iter().filter(|other| other.id != backup.id && later(other)).cloned().collect();
        match suspicion(&list, may_use, marked, situation, policy)? {
            Suspicion::AtWork(why) => Some(Evidence::new(code, format!("{what} stays as it is: {}", why.text))),
            // A repair waits for a heartbeat of its own host anyway, whatever a check found.
            Suspicion::Silent(host, why) if backup.host.as_deref().is_some_and(|own| is_same_host(own, &host)) => {
                Some(Evidence::new(EvidenceCode::HeldInSilence, format!("{what} counts as free: {}", why.text)))
            }
            Suspicion::Silent(_, why) => {
                Some(Evidence::new(code, format!("{what} stays as it is for now: {}; scan again after this repair", why.text)))
            }
        }
    };
    let of_volume = volume.and_then(|row| {
        let marked = Marked { status: row.status.as_deref(), at: row.updated_at.as_deref() };
        // The volume may not be marked for the backup of a snapshot that is free again, however old the others are.
        let any_age = backup.snapshot_id.is_some();
        judge(EvidenceCode::VolumeSuspected, format!("volume {}", row.id), &others.of_volume, marked, any_age)
    });
    let restored_there = destination.and_then(|row| {
        let marked = Marked { status: row.status.as_deref(), at: row.updated_at.as_deref() };
        let any_age = marked_after(taken_at(backup), marked.at).is_some_and(|span| span < 0);
        judge(EvidenceCode::DestinationSuspected, format!("volume {}", row.id), &others.restored_there, marked, any_age)
    });
    let of_snapshot = snapshot.and_then(|row| {
        let marked = Marked { status: row.status.as_deref(), at: row.updated_at.as_deref() };
        judge(EvidenceCode::SnapshotSuspected, format!("snapshot {}", row.id), &others.of_snapshot, marked, false)
    });
    of_volume.into_iter().chain(restored_there).chain(of_snapshot).collect()
}

/// The row conflicts in the evidence of a plan.
pub fn conflicts_in(evidence: &[Evidence]) -> Vec<Evidence> {
    use EvidenceCode::{DestinationSuspected, HeldInSilence, SnapshotSuspected, VolumeSuspected};
    let is_kept = |code| matches!(code, Some(VolumeSuspected | DestinationSuspected | SnapshotSuspected | HeldInSilence));
    evidence.iter().filter(|evidence| is_kept(evidence.code.known())).cloned().collect()
}

/// Whether a plan sets a row free only because the host of another backup is silent.
pub fn frees_row_of_silent_host(evidence: &[Evidence]) -> bool {
    evidence.iter().any(|evidence| evidence.code == EvidenceCode::HeldInSilence)
}

/// Whether a backup may use a row although it has no such status. One that is being created or restored is a peer.
fn may_use(status: Option<&str>) -> bool {
    !matches!(status, Some(CREATING | RESTORING))
}
