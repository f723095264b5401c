//! What of a stuck backup's rows another backup may hold although its status does not say so.
//!
//! A backup can be stuck after its volume was free again: only its own last update was lost. Whoever takes the volume then marks
//! it anew, and may have been put into another status by hand since, under a cinder-backup that works on. The row is left to a
//! later scan then, which judges it by all backups that could explain it.

use crate::domain::status::{BACKING_UP, CREATING, RESTORING};
use crate::domain::time::parse;
use crate::domain::{Backup, Evidence, EvidenceCode, Policy, Situation, Snapshot, Volume, is_same_host};

use super::verdict::{Suspicion, marked_after, suspicion};

/// Live backups, whatever their status, that a stuck backup shares rows with.
#[derive(Debug, Clone, Default)]
pub struct Others {
    /// Those that are made of its volume.
    pub of_volume: Vec<Backup>,
    /// Those that were last restored to the volume that it is restored to.
    pub restored_there: Vec<Backup>,
    /// Those that are made of its snapshot.
    pub of_snapshot: Vec<Backup>,
}

/// Whether a marked row may be marked for another backup: whoever took it since has written it. That of a snapshot need not hold
/// its volume at all, which may have been marked before; and when a restore was asked for is not known any more once an increment
/// was counted in its backup.
pub fn was_taken_since(backup: &Backup, marked_at: Option<&str>) -> bool {
    let may_be_before = backup.snapshot_id.is_some() || backup.status.as_deref() == Some(RESTORING);
    marked_after(taken_at(backup), marked_at).is_none_or(|span| span > 0 || (span < 0 && may_be_before))
}

/// When a backup took what it holds: when it was made, or when its restore was asked for.
fn taken_at(backup: &Backup) -> Option<&str> {
    let restoring = backup.status.as_deref() == Some(RESTORING);
    backup.updated_at.as_deref().filter(|_| restoring).or(backup.created_at.as_deref())
}

/// What of the rows of `backup` others may hold.
pub fn held(
    backup: &Backup,
    (volume, destination, snapshot): (Option<&Volume>, Option<&Volume>, Option<&Snapshot>),
    others: &Others,
    situation: &Situation,
    policy: &Policy,
) -> Vec<Evidence> {
    let judge = |code: EvidenceCode, what: String, list: &[Backup], status: Option<&str>, marked_at: Option<&str>, any_age: bool| {
        if list.is_empty() || !was_taken_since(backup, marked_at) {
            return None;
        }
        let taken = taken_at(backup).and_then(parse);
        // What was begun before this one was over when this one took the row.
        let later = |other: &Backup| {
            let touched = other.created_at.as_deref().and_then(parse);
            let touched = if status == Some(BACKING_UP) { touched } else { touched.max(other.updated_at.as_deref().and_then(parse)) };
            any_age || taken.zip(touched).is_none_or(|(taken, touched)| touched >= taken)
        };
        let list: Vec<Backup> = list.iter().filter(|other| other.id != backup.id && later(other)).cloned().collect();
        match suspicion(&list, may_hold, status, marked_at, situation, policy)? {
            Suspicion::AtWork(why) => Some(Evidence::new(code, format!("{what} stays as it is: {}", why.text))),
            // The silence of its own host is listened to before anything is written, whatever the storage says of its own data.
            Suspicion::Silent(host, why) if backup.host.as_deref().is_some_and(|own| is_same_host(own, &host)) => {
                Some(Evidence::new(EvidenceCode::HeldInSilence, format!("{what} is taken for free: {}", why.text)))
            }
            Suspicion::Silent(_, why) => {
                Some(Evidence::new(code, format!("{what} stays as it is for now: {}; scan again after this repair", why.text)))
            }
        }
    };
    let of_volume = volume.and_then(|row| {
        let what = format!("volume {}", row.id);
        // The backup of a snapshot that is free again need not be what the volume is marked for, however old the others are.
        let any_age = backup.snapshot_id.is_some();
        judge(EvidenceCode::VolumeSuspected, what, &others.of_volume, row.status.as_deref(), row.updated_at.as_deref(), any_age)
    });
    let restored_there = destination.and_then(|row| {
        let what = format!("volume {}", row.id);
        let any_age = marked_after(taken_at(backup), row.updated_at.as_deref()).is_some_and(|span| span < 0);
        judge(EvidenceCode::DestinationSuspected, what, &others.restored_there, row.status.as_deref(), row.updated_at.as_deref(), any_age)
    });
    let of_snapshot = snapshot.and_then(|row| {
        let what = format!("snapshot {}", row.id);
        judge(EvidenceCode::SnapshotSuspected, what, &others.of_snapshot, row.status.as_deref(), row.updated_at.as_deref(), false)
    });
    of_volume.into_iter().chain(restored_there).chain(of_snapshot).collect()
}

/// What of its rows a plan left to others, out of the evidence that it has.
pub fn held_in(evidence: &[Evidence]) -> Vec<Evidence> {
    use EvidenceCode::{DestinationSuspected, HeldInSilence, SnapshotSuspected, VolumeSuspected};
    let is_kept = |code| matches!(code, Some(VolumeSuspected | DestinationSuspected | SnapshotSuspected | HeldInSilence));
    evidence.iter().filter(|evidence| is_kept(evidence.code.known())).cloned().collect()
}

/// Whether a plan sets a row free that only the silence of its host says nobody holds.
pub fn frees_in_silence(evidence: &[Evidence]) -> bool {
    evidence.iter().any(|evidence| evidence.code == EvidenceCode::HeldInSilence)
}

/// Those that are being made or restored say so, and are known as such.
fn may_hold(status: Option<&str>) -> bool {
    !matches!(status, Some(CREATING | RESTORING))
}
