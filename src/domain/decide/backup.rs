//! The decision for a backup: its verdict, and the changes to it and to the rows that must change with it.

use std::sync::Arc;

use crate::domain::check_result::LEFT_IN;
use crate::domain::id::same;
use crate::domain::status::{
    AVAILABLE, BACKING_UP, CREATING, DELETED, DELETING, ERROR, ERROR_DELETING, ERROR_RESTORING, NO_VOLUME, RESTORING, RESTORING_BACKUP,
};
use crate::domain::{
    Attachment, Backup, Change, CheckResult, CheckVerdict, ColumnSet, Evidence, EvidenceCode, Finding, Level, Need, Policy, Proposal,
    Situation, Snapshot, Table, Verdict, Volume,
};

use super::deletion::{self, Deletion};
use super::verdict::{Judgement, judge_backup};
use super::{Children, Peer, about_backup, change, command, half_restored, last_resort, propose_or_refuse, volume};

/// The length of `backups.fail_reason` in characters.
const FAIL_REASON_MAX: usize = 255;

/// Everything that the decision for a backup depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupCase {
    pub backup: Backup,
    /// Its volume, if that still exists.
    pub volume: Option<Volume>,
    /// The volume that it is restored to, if that still exists.
    pub destination: Option<Volume>,
    /// The snapshot that was backed up, if that still exists.
    pub snapshot: Option<Snapshot>,
    /// Its parent, if that still exists.
    pub parent: Option<Backup>,
    /// Its ancestors as far as they still exist, the parent first; only if there is a check of it.
    pub ancestors: Vec<Arc<Backup>>,
    /// The other live children of its parent.
    pub siblings: Children,
    /// The attachments of its volume.
    pub attachments: Vec<Attachment>,
    /// Other active backups.
    pub peers: Vec<Peer>,
    /// Its row conflicts: see [`super::row_conflicts`].
    pub conflicts: Vec<Evidence>,
    /// Its volume is named in some `temp_volume_id`.
    pub volume_is_temporary: bool,
    /// The check of its storage, if there is one.
    pub check: Option<Box<CheckResult>>,
    /// With `--to deleted`: what only a deletion depends on.
    pub deletion: Option<Box<Deletion>>,
}

/// What should become of a backup.
pub(super) enum Target {
    Status(&'static str),
    Unchanged,
    Refused(String),
}

/// Decides for one backup whose status is active, NULL, or was asked for.
pub fn backup(case: &BackupCase, situation: &Situation, policy: &Policy) -> Finding {
    let backup = &case.backup;
    let (check, outdated) = usable_check(case, situation, policy);
    let decision = Decision { case, check, situation, policy };
    let target = outdated.map_or_else(|| decision.target(), Target::Refused);
    let earned = matches!(target, Target::Status(AVAILABLE)) && check.is_some_and(|check| decision.earns_available(check));
    let Judgement { verdict, evidence, since, age_seconds, cause } = judge_backup(backup, check, earned, situation, policy);
    let mut finding = Finding { since, age_seconds, evidence, ..about_backup(backup, verdict) };
    if !matches!(verdict, Verdict::Stuck | Verdict::Uncertain) {
        return finding;
    }
    if let Some(check) = check {
        finding.evidence.push(check_evidence(check));
    }
    match target {
        Target::Unchanged => {}
        Target::Refused(reason) => finding.refusal = Some(reason),
        Target::Status(status) => decision.propose(&mut finding, status, &cause),
    }
    finding
}

/// The check, if it applies to the row as it is now; otherwise why not.
fn usable_check<'a>(case: &'a BackupCase, situation: &Situation, policy: &Policy) -> (Option<&'a CheckResult>, Option<String>) {
    // For other operations, the data on the storage does not matter.
    let Some(check) = case.check.as_deref().filter(|_| policy.needs_check(case.backup.status.as_deref())) else { return (None, None) };
    if let Some(why) = check.outdated(&case.backup, &case.ancestors, situation.columns) {
        return (None, Some(format!("{why}; check it again")));
    }
    if let Some(why) = check.expired(situation.now, policy.evidence_max_age_seconds) {
        return (None, Some(why));
    }
    (Some(check), None)
}

/// The result of a check, as evidence.
fn check_evidence(check: &CheckResult) -> Evidence {
    let but = match check.reached() {
        Some(reached) if reached < check.level => format!(" at level {}, and intact at level {reached}", check.level),
        _ => String::new(),
    };
    let mut text = format!("its data on the storage is {}{but} (check {}: {}", check.verdict, check.level, check.depth);
    // A reviewer of the plan should see whether the check read the right place.
    if let Some(location) = &check.location {
        text.push_str(&format!("; at {location}"));
    }
    text.push(')');
    if let Some(witness) = &check.witness {
        text.push_str(&format!("; backup {witness} was found there, so it is the right storage"));
    }
    let most = 3;
    for problem in check.problems.iter().take(most) {
        text.push_str(&format!("; {problem}"));
    }
    if check.problems.len() > most {
        text.push_str(&format!("; {} more problems", check.problems.len() - most));
    }
    let code = match check.verdict {
        CheckVerdict::Intact => EvidenceCode::StorageIntact,
        CheckVerdict::Incomplete => EvidenceCode::StorageIncomplete,
        CheckVerdict::Corrupt => EvidenceCode::StorageCorrupt,
        CheckVerdict::Missing => EvidenceCode::StorageMissing,
        CheckVerdict::Unverifiable => EvidenceCode::StorageUnverifiable,
    };
    Evidence::new(code, text)
}

pub(super) fn first_problem(check: &CheckResult) -> &str {
    check.problems.first().map_or("the storage gave no reason", |problem| problem.text.as_str())
}

/// A case with a check that applies to it.
struct Decision<'a> {
    case: &'a BackupCase,
    check: Option<&'a CheckResult>,
    situation: &'a Situation,
    policy: &'a Policy,
}

impl Decision<'_> {
    fn status(&self) -> Option<&str> {
        self.case.backup.status.as_deref()
    }

    /// Whether a check allows the backup to become available.
    fn earns_available(&self, check: &CheckResult) -> bool {
        check.earns_available(self.status(), self.policy.accept_quick)
    }

    /// What should become of the backup.
    fn target(&self) -> Target {
        if self.policy.deletes() {
            return deletion::target(self.case, self.check, self.situation, self.policy);
        }
        if let (Some(CREATING | ERROR), Some(check)) = (self.status(), self.check) {
            return self.target_by_check(check);
        }
        match (self.status(), self.policy.to.as_deref()) {
            (Some(CREATING), Some(AVAILABLE)) | (Some(ERROR), _) => self.target_unverified(),
            (Some(RESTORING), Some(ERROR)) => Target::Status(ERROR),
            (Some(RESTORING), _) => Target::Status(AVAILABLE),
            (Some(DELETING | ERROR_DELETING), Some(AVAILABLE)) => Target::Refused(
                "a backup that was being deleted cannot become available, as part of its data may be gone; leave out --to available"
                    .to_owned(),
            ),
            (None, Some(AVAILABLE)) => Target::Refused(
                "a backup whose status is NULL cannot become available, as its last operation is not known; leave out --to available"
                    .to_owned(),
            ),
            (Some(CREATING | DELETING | ERROR_DELETING) | None, _) => Target::Status(ERROR),
            _ => Target::Unchanged,
        }
    }

    /// What should become of the backup after a check.
    fn target_by_check(&self, check: &CheckResult) -> Target {
        let creating = self.status() == Some(CREATING);
        let give_up = if creating { Target::Status(ERROR) } else { Target::Unchanged };
        match (check.verdict, self.policy.to.as_deref()) {
            // The operator may always give a backup up.
            (_, Some(ERROR)) => give_up,
            _ if check.reached().is_some() => match self.why_useless() {
                Some(why) => Target::Refused(why),
                None if self.earns_available(check) => Target::Status(AVAILABLE),
                None if check.is_whole() && self.policy.allow_unverified && self.policy.to.is_some() => self.target_unverified(),
                None if check.is_whole() && check.reached() < Some(check.level.min(Level::Deep)) => Target::Refused(format!(
                    "its data was not verified at the requested level: {}{}",
                    first_problem(check),
                    if creating { "; --accept-quick overrides this, at your own risk" } else { "" }
                )),
                None if check.is_whole() && creating => Target::Refused(format!(
                    "a {} check found it intact, but read none of its data, which is not enough to make it available: use --check deep, or \
                     override this with --accept-quick, at your own risk",
                    check.level
                )),
                None if check.is_whole() => Target::Refused(format!(
                    "its status is error, and the {} check read none of its data; use --check deep to make it available",
                    check.level
                )),
                None => {
                    Target::Refused("only part of its data was read, which is not enough to make it available; check all of it".to_owned())
                }
            },
            (CheckVerdict::Unverifiable, Some(AVAILABLE)) if self.policy.allow_unverified => self.target_unverified(),
            (CheckVerdict::Unverifiable, _) => Target::Refused(format!(
                "the check of its data could not be finished: {}; try again{}",
                first_problem(check),
                if creating { ", or give --to error" } else { "" }
            )),
            (damage, Some(AVAILABLE)) => Target::Refused(format!("it cannot become available: its data is {damage}")),
            _ => give_up,
        }
    }

    /// `available` without a check: only with the named option, and never if the row shows that the backup would be useless.
    fn target_unverified(&self) -> Target {
        let backup = &self.case.backup;
        if self.policy.to.as_deref() != Some(AVAILABLE) {
            return Target::Unchanged;
        }
        if let Some(why) = self.why_useless() {
            return Target::Refused(why);
        }
        if backup.service.as_deref().is_some_and(|service| service.contains("ceph")) && backup.service_metadata.is_none() {
            return Target::Refused(
                "a Ceph backup without service_metadata cannot become available unchecked: its base image is not on record".to_owned(),
            );
        }
        if !self.policy.allow_unverified {
            return Target::Refused(
                "its data was not verified on the storage; use --check deep to make it available, or override this with \
                 --allow-unverified, at your own risk"
                    .to_owned(),
            );
        }
        Target::Status(AVAILABLE)
    }

    /// Why the backup would be useless if it were available, whatever its data is.
    fn why_useless(&self) -> Option<String> {
        let Self { case, situation, .. } = self;
        let backup = &case.backup;
        if backup.size.is_none() || backup.volume_id.as_deref() == Some(NO_VOLUME) {
            return Some("an import that did not finish cannot become available: its volume and its size are not known".to_owned());
        }
        if let Some(size) = backup.size.filter(|size| *size <= 0) {
            return Some(format!("it cannot become available: backups.size is {size}, which is not the size of a volume"));
        }
        if backup.service.as_deref().is_none_or(str::is_empty) {
            return Some("it cannot become available: no driver has begun to write it, so it has no data".to_owned());
        }
        if let Some(parent) = case.parent.as_ref().filter(|parent| parent.status.as_deref() == Some(DELETING)) {
            return Some(format!(
                "an increment on backup {}, which is being deleted, cannot become available: repair that backup first",
                parent.id
            ));
        }
        let parent = backup.parent_id.as_deref().filter(|_| situation.columns >= ColumnSet::Liberty && case.parent.is_none())?;
        Some(format!("an increment on backup {parent}, which no longer exists, cannot become available: it cannot be restored"))
    }

    /// Proposes the changes that bring the backup to a status.
    fn propose(&self, finding: &mut Finding, to: &'static str, cause: &str) {
        let Self { case, check, situation, policy } = *self;
        let backup = &case.backup;
        let image = backup.image(situation.columns);
        let mut changes = Vec::new();
        let mut needs = Vec::new();
        change(&mut changes, &image, "status", to);
        if to == ERROR {
            change(&mut changes, &image, "fail_reason", fail_reason(backup, check, cause));
        }
        let earned = check.filter(|check| to == AVAILABLE && self.earns_available(check));
        if let Some(check) = earned {
            if let Some(count) = check.object_count {
                change(&mut changes, &image, "object_count", count);
            }
            if let Some(metadata) = check.service_metadata.as_ref().filter(|_| backup.service_metadata.is_none()) {
                change(&mut changes, &image, "service_metadata", metadata.clone());
            }
        }
        match backup.status.as_deref() {
            Some(CREATING) => {
                // Without a driver there is nothing on the storage to check.
                if check.is_none() && backup.service.as_deref().is_some_and(|service| !service.is_empty()) {
                    needs.push(Need::StorageCheck);
                }
                release_volume(finding, &mut changes, case, situation);
                release_snapshot(finding, &mut changes, case);
            }
            Some(ERROR) if check.is_none() => needs.push(Need::StorageCheck),
            Some(RESTORING) => fail_destination(finding, &mut changes, case, situation, to),
            _ => {}
        }
        if to == DELETED {
            count_in(&mut changes, case, situation, DELETED);
            deletion::add_changes(finding, &mut changes, case, situation, policy);
            if !check.is_some_and(CheckResult::earns_deleted) {
                finding
                    .note(EvidenceCode::Unverified, "it is not proven that nothing of it is on the storage: --allow-unverified was given");
            }
        } else if changes.iter().any(|change| change.table != Table::Backups) {
            finding.evidence.extend(case.conflicts.iter().filter(|evidence| evidence.code == EvidenceCode::HeldInSilence).cloned());
        }
        if to == AVAILABLE && backup.status.as_deref() != Some(RESTORING) {
            count_in(&mut changes, case, situation, AVAILABLE);
            debug_assert!(earned.is_some() || policy.allow_unverified);
            match earned {
                None => finding.note(EvidenceCode::Unverified, "its data was not verified: --allow-unverified was given"),
                Some(check) if !check.is_read() => {
                    let why = if check.level == Level::Quick { "none of its data was read" } else { "nothing proves its data" };
                    let text = format!("{why}, as it is known to be intact only at level quick: --accept-quick was given");
                    finding.note(EvidenceCode::AcceptedQuick, text);
                }
                Some(_) => {}
            }
        }
        // The order in which rows are locked: table, then id. The sort is stable, so a row's columns keep their order.
        changes.sort_by(|a, b| (a.table, &a.id).cmp(&(b.table, &b.id)));
        follow_up(finding, backup, to, needs.contains(&Need::StorageCheck));
        let backups = std::iter::once(backup).chain(&case.parent);
        let backups = backups.map(|row| (Table::Backups, row.id.as_str(), row.unchangeable.as_deref()));
        let volumes = case.volume.iter().chain(&case.destination);
        let volumes = volumes.map(|row| (Table::Volumes, row.id.as_str(), row.unchangeable.as_deref()));
        let snapshots = case.snapshot.iter().map(|row| (Table::Snapshots, row.id.as_str(), row.unchangeable.as_deref()));
        propose_or_refuse(finding, Proposal { status: Some(to.to_owned()), needs, changes }, backups.chain(volumes).chain(snapshots));
    }
}

fn fail_reason(backup: &Backup, check: Option<&CheckResult>, cause: &str) -> String {
    let was = backup.status.as_deref().unwrap_or("NULL");
    let mut text = format!("{LEFT_IN}{was}");
    if !cause.is_empty() {
        text = format!("{text}: {cause}");
    }
    if was == CREATING {
        match check.filter(|check| check.verdict.is_damage()) {
            Some(check) => text.push_str(&format!("; its data is {}", check.verdict)),
            None => match check.filter(|check| check.verdict == CheckVerdict::Intact) {
                Some(check) => text.push_str(&format!("; its data is intact by a {} check", check.level)),
                None => text.push_str("; its data was not checked"),
            },
        }
    }
    // A host name comes from the database: the reason may be shown on a terminal, and the column may have another character set.
    text.chars().filter(|c| !c.is_control()).map(|c| if c.is_ascii() { c } else { '?' }).take(FAIL_REASON_MAX).collect()
}

/// How another backup may still need a row of the case's backup.
struct Use {
    /// The status of a backup that needs the row.
    status: &'static str,
    /// The column of the other backup that names the row.
    id: fn(&Peer) -> Option<&str>,
    /// The evidence that a backup needs the row.
    held: EvidenceCode,
    /// The evidence that a backup may need the row.
    suspected: EvidenceCode,
}

/// Whether a row stays as it is because another backup needs it, or may need it. Adds the evidence. If a backup needs the row, the text
/// consists of `stays`, the id of that backup and `because`.
fn is_needed(finding: &mut Finding, case: &BackupCase, id: &str, usage: &Use, (stays, because): (&str, &str)) -> bool {
    let needs_row = |peer: &&Peer| {
        !peer.released && peer.status.as_deref() == Some(usage.status) && (usage.id)(peer).is_some_and(|other| same(other, id))
    };
    if let Some(peer) = case.peers.iter().find(needs_row) {
        finding.note(usage.held, format!("{stays}: backup {} is {because} too", peer.id));
        return true;
    }
    let suspected = case.conflicts.iter().find(|evidence| evidence.code == usage.suspected);
    finding.evidence.extend(suspected.cloned());
    suspected.is_some()
}

fn release_volume(finding: &mut Finding, changes: &mut Vec<Change>, case: &BackupCase, situation: &Situation) {
    let backup = &case.backup;
    let Some(volume_id) = backup.volume_id.as_deref().filter(|id| *id != NO_VOLUME) else { return };
    // From Pike on, the backup of a snapshot marks the snapshot and never its volume. In Mitaka, Newton and Ocata it marks the volume and
    // never the snapshot. The status of the snapshot shows which.
    if backup.snapshot_id.is_some() && case.snapshot.as_ref().is_some_and(|snapshot| snapshot.status.as_deref() == Some(BACKING_UP)) {
        return;
    }
    let Some(volume) = &case.volume else {
        if backup.snapshot_id.is_some() {
            return;
        }
        return finding.note(EvidenceCode::VolumeGone, format!("volume {volume_id} no longer exists"));
    };
    if volume.status.as_deref() != Some(BACKING_UP) {
        if backup.snapshot_id.is_some() {
            return;
        }
        let status = volume.status.as_deref().unwrap_or("NULL");
        return finding.note(EvidenceCode::VolumeMovedOn, format!("volume {volume_id} is already {status} and stays so"));
    }
    if case.volume_is_temporary {
        let text = format!("volume {volume_id} was made only for a backup (temp_volume_id) and stays as it is");
        return finding.note(EvidenceCode::VolumeTemporary, text);
    }
    let of_volume = Use {
        status: CREATING,
        id: |peer| peer.volume_id.as_deref(),
        held: EvidenceCode::VolumeHeld,
        suspected: EvidenceCode::VolumeSuspected,
    };
    if is_needed(finding, case, volume_id, &of_volume, (&format!("volume {volume_id} stays backing-up"), "being made of it")) {
        return;
    }
    let (to, why) = volume::before_backup(volume, &case.attachments, backup.host.as_deref(), situation);
    finding.evidence.extend(why);
    change(changes, &volume.image(situation.columns), "status", to);
    let own = |attachment: &&Attachment| attachment.is_live() && attachment.is_of_backup_host(backup.host.as_deref());
    for attachment in case.attachments.iter().filter(own) {
        finding.evidence.push(leftover_attachment(attachment));
        finding.follow_up.push(detach(attachment));
    }
}

pub(super) fn leftover_attachment(attachment: &Attachment) -> Evidence {
    let host = attachment.attached_host.as_deref().unwrap_or("?");
    let text = format!("attachment {} of the backup host {host} to volume {} was left behind", attachment.id, attachment.volume_id);
    Evidence::new(EvidenceCode::AttachmentLeftover, text)
}

pub(super) fn detach(attachment: &Attachment) -> String {
    command("openstack --os-volume-api-version 3.27 volume attachment delete", &attachment.id)
}

fn release_snapshot(finding: &mut Finding, changes: &mut Vec<Change>, case: &BackupCase) {
    let Some(snapshot_id) = case.backup.snapshot_id.as_deref() else { return };
    let Some(snapshot) = &case.snapshot else {
        return finding.note(EvidenceCode::SnapshotGone, format!("snapshot {snapshot_id} no longer exists"));
    };
    if snapshot.status.as_deref() != Some(BACKING_UP) {
        let status = snapshot.status.as_deref().unwrap_or("NULL");
        return finding.note(EvidenceCode::SnapshotMovedOn, format!("snapshot {snapshot_id} is already {status} and stays so"));
    }
    let of_snapshot = Use {
        status: CREATING,
        id: |peer| peer.snapshot_id.as_deref(),
        held: EvidenceCode::SnapshotHeld,
        suspected: EvidenceCode::SnapshotSuspected,
    };
    if is_needed(finding, case, snapshot_id, &of_snapshot, (&format!("snapshot {snapshot_id} stays backing-up"), "being made of it")) {
        return;
    }
    change(changes, &snapshot.image(), "status", AVAILABLE);
}

/// Marks the volume of a restore as failed: it holds neither its old content nor the backup's.
fn fail_destination(finding: &mut Finding, changes: &mut Vec<Change>, case: &BackupCase, situation: &Situation, backup_to: &str) {
    let Some(volume_id) = case.backup.restore_volume_id.as_deref() else {
        return finding.note(EvidenceCode::DestinationUnknown, "the volume that it was restored to is not on record");
    };
    let Some(volume) = &case.destination else {
        return finding.note(EvidenceCode::DestinationGone, format!("the volume {volume_id} that it was restored to no longer exists"));
    };
    let to = match volume.status.as_deref() {
        Some(RESTORING_BACKUP) => ERROR_RESTORING,
        Some(CREATING) => ERROR,
        status => {
            let text = format!("the volume {volume_id} that it was restored to is already {} and stays so", status.unwrap_or("NULL"));
            return finding.note(EvidenceCode::DestinationMovedOn, text);
        }
    };
    let restored_there = Use {
        status: RESTORING,
        id: |peer| peer.restore_volume_id.as_deref(),
        held: EvidenceCode::DestinationHeld,
        suspected: EvidenceCode::DestinationSuspected,
    };
    if is_needed(finding, case, volume_id, &restored_there, (&format!("volume {volume_id} stays as it is"), "being restored to it")) {
        return;
    }
    change(changes, &volume.image(situation.columns), "status", to);
    if to == ERROR {
        // It was created from the backup, so it holds nothing else.
        finding.follow_up.push(command("openstack volume delete", volume_id));
    } else {
        let restorable = (backup_to == AVAILABLE).then_some(case.backup.id.as_str());
        finding.follow_up.extend(half_restored(volume_id, restorable));
    }
}

/// Counts a backup in its parent by the status that it will have.
fn count_in(changes: &mut Vec<Change>, case: &BackupCase, situation: &Situation, status: &str) {
    let Some(parent) = &case.parent else { return };
    let mut children = case.siblings;
    children.add(Some(status));
    let recorded = parent.num_dependent_backups.unwrap_or(0);
    let right = children.nearest(recorded);
    if right != recorded {
        change(changes, &parent.image(situation.columns), "num_dependent_backups", right);
    }
}

/// The command that deletes a temporary volume or snapshot.
pub(super) fn delete_temporary(what: &str, id: &str) -> String {
    let words = if what == "volume" { "openstack volume delete --force" } else { "openstack volume snapshot delete --force" };
    command(words, id)
}

fn follow_up(finding: &mut Finding, backup: &Backup, to: &str, unchecked: bool) {
    // A backup that was being restored has good data, and what one with status NULL holds is not known: neither is to be deleted.
    if to == ERROR && matches!(backup.status.as_deref(), Some(CREATING | DELETING | ERROR_DELETING)) {
        let delete = command("openstack volume backup delete", &backup.id);
        if unchecked {
            // It may be intact: often only the last update of the database was lost.
            finding.follow_up.push(command("cinder-backup-repair check", &backup.id));
            finding.follow_up.push(last_resort("if the check does not find it intact", &delete));
        } else {
            finding.follow_up.push(delete);
        }
    }
    for (what, id) in [("volume", &backup.temp_volume_id), ("snapshot", &backup.temp_snapshot_id)] {
        let Some(id) = id else { continue };
        let mut text = format!("temporary {what} {id} was left behind");
        if to == ERROR {
            text.push_str("; cinder-backup removes it when it starts on the host, because the backup is in error");
        }
        finding.note(EvidenceCode::TemporaryLeftover, text);
        finding.follow_up.push(delete_temporary(what, id));
    }
}
