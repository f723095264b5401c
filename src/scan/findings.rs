//! Makes the findings of a scan: reads the related rows of the backups in the census, and decides.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use super::active::ActiveBackups;
use super::cases::{Facts, backup_case, counter_case, quota_case, snapshot_case, volume_case};
use super::census::{Census, PORTION};
use super::compact_ids::CompactIds;
use super::document::Summary;
use super::lineage;
use super::reader::Reader;
use super::references::ReferenceColumn;
use super::related_rows::{RelatedRows, Repaired, ScanFacts};
use super::run::{Basis, KeptRows, Pending, ScanError, ScanRequest};
use crate::domain::decide::{self, Background, BackupCase, RehostCase};
use crate::domain::id::key;
use crate::domain::status::{ERROR, ERROR_DELETING};
use crate::domain::{
    Attachment, Backup, BackupMetadata, CheckResult, ColumnSet, Driver, Finding, Image, Need, Policy, QuotaUsage, Reservation, Situation,
    Snapshot, Table, Volume,
};

/// A check may take hours, and other backups become old enough to be stuck meanwhile. If a check of the storage was asked for, do not give
/// them up without one.
fn refuse_unchecked(finding: &mut Finding, policy: &Policy) {
    let unchecked = finding.proposal.as_ref().is_some_and(|proposal| proposal.needs.contains(&Need::StorageCheck));
    if unchecked && policy.to.as_deref() != Some(ERROR) {
        finding.proposal = None;
        finding.refusal = Some("it was too recent when the storage was checked, so its data was not checked; try again".to_owned());
    }
}

/// The findings of one scan, as they are made.
pub(super) struct Findings<'a> {
    census: &'a Census,
    pending: &'a Pending,
    situation: &'a Situation,
    request: ScanRequest<'a>,
    sink: &'a mut dyn FnMut(Finding) -> Result<(), ScanError>,
    summary: Summary,
    /// The numbers of the ids that actionable findings are about.
    actionable: HashSet<u128>,
    repaired: Rc<Repaired>,
    /// The projects with a backup that becomes deleted or gets another size.
    recounted: HashSet<String>,
    /// The driver of the new host.
    new_service: Option<String>,
}

/// What is known of all findings.
pub(super) struct Made {
    pub(super) summary: Summary,
    repaired: Rc<Repaired>,
}

impl Made {
    /// Whether a plan repairs this backup.
    pub(super) fn is_repaired(&self, id: &str) -> bool {
        self.repaired.contains(id)
    }

    /// How many backups a plan repairs.
    pub(super) fn repaired(&self) -> usize {
        self.repaired.ids.borrow().len()
    }

    /// See [`Scan::has_dependent_proposals`](super::Scan::has_dependent_proposals).
    pub(super) fn has_dependent_proposals(&self) -> bool {
        self.repaired.counted_on.get()
    }
}

impl<'a> Findings<'a> {
    pub(super) fn new(basis: &'a Basis<'a>, sink: &'a mut dyn FnMut(Finding) -> Result<(), ScanError>) -> Self {
        let Basis { census, pending, situation, request, ref new_service } = *basis;
        let (summary, actionable, repaired, recounted) = Default::default();
        Self { census, pending, situation, request, sink, summary, actionable, repaired, recounted, new_service: new_service.clone() }
    }

    fn facts<'r>(&'r self, repaired: &'r Repaired, related: &'r RelatedRows) -> ScanFacts<'r> {
        ScanFacts { census: self.census, related, repaired, situation: self.situation, policy: self.request.policy }
    }

    /// Makes all findings. The same rows give them in the same order.
    pub(super) fn all(mut self, reader: &mut Reader<'_>) -> Result<Made, ScanError> {
        self.backups(reader)?;
        self.volumes(reader)?;
        self.snapshots(reader)?;
        if self.request.selection.wants_inconsistent() {
            self.chains(reader)?;
            self.leftovers(reader)?;
        }
        self.quotas(reader)?;
        self.hosts(reader)?;
        let Self { summary, repaired, .. } = self;
        Ok(Made { summary, repaired })
    }

    fn backups(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let (census, policy, situation, columns) = (self.census, self.request.policy, self.situation, self.situation.columns);
        let (repaired, request) = (Rc::clone(&self.repaired), self.request);
        let with_chain = |backup: &Backup| {
            policy.needs_check(backup.status.as_deref()) && (request.kept == KeptRows::Chains || request.checks.contains_key(&backup.id))
        };
        let messages = reader.messages(&|id| census.is_selected(id))?;
        // In portions, so that not all rows are in memory at once.
        for ids in census.selected() {
            let mut portion = reader.backups(&ids)?;
            portion.sort_unstable_by(|one, other| one.id.cmp(&other.id));
            let metadata = reader.user_metadata(&ids)?;
            let mut related = RelatedRows::of_backups(reader, &portion, &with_chain, &self.pending.references)?;
            if policy.deletes() {
                related.read_deletions(reader, &portion, !policy.no_quota)?;
            }
            let facts = ScanFacts { census, related: &related, repaired: &repaired, situation, policy };
            for backup in portion {
                let check = request.checks.get(&backup.id).map(AsRef::as_ref);
                let case = backup_case(backup, check, &facts, policy);
                let mut finding = decide::backup(&case, situation, policy);
                let queue = case.backup.host.as_ref().and_then(|host| census.queues.get(host));
                let id = key(&case.backup.id);
                let background = Background { queue, message: messages.get(id.as_ref()), metadata: metadata.get(id.as_ref()) };
                decide::add_background(&mut finding, background, situation);
                if request.kept == KeptRows::Chains && policy.needs_check(case.backup.status.as_deref()) {
                    finding.rows = images_of_chain(&case.backup, &facts.ancestors(&case.backup), columns);
                }
                if request.storage_checked {
                    refuse_unchecked(&mut finding, policy);
                }
                // Only a backup that the plan repairs lets go of its rows.
                if finding.is_actionable() && request.only.is_none_or(|only| only.contains(&finding.id)) {
                    repaired.ids.borrow_mut().insert(CompactIds::number(&finding.id));
                }
                // A backup in error or error_deleting that was only named is a finding only if it can be repaired, or is refused.
                let pending = !matches!(finding.status.as_deref(), Some(ERROR | ERROR_DELETING));
                if pending || finding.proposal.is_some() || finding.refusal.is_some() || !self.request.selection.statuses.is_empty() {
                    self.keep(finding, || images_of_backup(&case, columns))?;
                }
            }
        }
        Ok(())
    }

    /// Whether contradictions of this backup are wanted. What was named is ids by now, and a backup that is called by one of
    /// them is not meant.
    fn wants(&self, backup: &Backup) -> bool {
        let backups = &self.request.selection.backups;
        self.request.selection.takes_inconsistent(backup) && (backups.is_empty() || backups.contains(&backup.id))
    }

    fn keep(&mut self, mut finding: Finding, images: impl FnOnce() -> Vec<Image>) -> Result<(), ScanError> {
        if self.request.kept == KeptRows::Changes && finding.is_actionable() {
            let mut images = images();
            if let Some(proposal) = &finding.proposal {
                images.retain(|image| proposal.changes.iter().any(|change| change.is_of(image.table, &image.id)));
            }
            images.sort_by(|a, b| (a.table, &a.id).cmp(&(b.table, &b.id)));
            images.dedup();
            finding.rows = images;
        }
        self.give(finding)
    }

    fn give(&mut self, finding: Finding) -> Result<(), ScanError> {
        self.summary.count(finding.verdict);
        if finding.is_actionable() {
            self.actionable.insert(CompactIds::number(&finding.id));
            let mut changes = finding.proposal.iter().flat_map(|proposal| &proposal.changes);
            if changes.any(|change| change.table == Table::Backups && matches!(change.column.as_str(), "deleted" | "size")) {
                self.recounted.extend(finding.project_id.clone());
            }
        }
        (self.sink)(finding)
    }

    fn volumes(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let (repaired, columns, pending) = (Rc::clone(&self.repaired), self.situation.columns, self.pending);
        for ids in pending.volumes() {
            let mut volumes = reader.volumes(&ids)?;
            volumes.retain(|volume| !self.is_explained(volume));
            volumes.sort_unstable_by(|one, other| one.id.cmp(&other.id));
            let related = RelatedRows::of_volumes(reader, &volumes, &pending.references)?;
            for volume in volumes {
                let case = volume_case(volume, &self.facts(&repaired, &related), columns);
                if let Some(finding) = decide::left_volume(&case, self.situation, self.request.policy) {
                    self.keep(finding, || vec![case.volume.image(columns)])?;
                }
            }
        }
        Ok(())
    }

    fn is_explained(&self, volume: &Volume) -> bool {
        let related = RelatedRows::default();
        let case = volume_case(volume.clone(), &self.facts(&self.repaired, &related), self.situation.columns);
        case.explained_by.iter().any(|peer| !peer.released)
    }

    fn snapshots(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let (repaired, columns, pending) = (Rc::clone(&self.repaired), self.situation.columns, self.pending);
        for ids in pending.snapshots() {
            let mut snapshots = reader.snapshots(&ids)?;
            snapshots.sort_unstable_by(|one, other| one.id.cmp(&other.id));
            let related = RelatedRows::of_snapshots(reader, ids, &pending.references)?;
            for snapshot in snapshots {
                let case = snapshot_case(snapshot, &self.facts(&repaired, &related), columns);
                if let Some(finding) = decide::snapshot(&case, self.situation, self.request.policy) {
                    self.keep(finding, || vec![case.snapshot.image()])?;
                }
            }
        }
        Ok(())
    }

    fn chains(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        if self.situation.columns < ColumnSet::Liberty {
            return Ok(());
        }
        let repaired = Rc::clone(&self.repaired);
        // If the database does not ignore case, an id in another case names no backup.
        let ignores_case = reader.ignores_case();
        let spelling = |id: &str| if ignores_case { key(id).into_owned() } else { id.to_owned() };
        let parents = self.census.parents_that_may_break_chains();
        let mut unusable: BTreeMap<String, Option<Backup>> = parents.iter().map(|id| (spelling(id), None)).collect();
        for portion in self.census.doubtful_parents().chunks(PORTION) {
            let ids: Vec<String> = portion.iter().map(|number| self.census.parent(*number)).collect();
            for parent in reader.backups(&ids)? {
                let is_occupied = self.actionable.contains(&CompactIds::number(&parent.id));
                let case = counter_case(parent, &self.facts(&repaired, &RelatedRows::default()), is_occupied);
                if self.wants(&case.backup)
                    && let Some(finding) = decide::counter(&case, self.situation, self.request.policy)
                {
                    let columns = self.situation.columns;
                    self.keep(finding, || vec![case.backup.image(columns)])?;
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
                if !child.is_restore_point() || !self.wants(&child) {
                    continue;
                }
                if let Some(parent) = unusable.get(&spelling(parent_id)) {
                    decide::broken_chain(&child, parent_id, parent.as_ref()).map_or(Ok(()), |finding| self.give(finding))?;
                }
            }
        }
        Ok(())
    }

    fn leftovers(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let census = self.census;
        for ids in census.with_temporaries() {
            let mut backups = reader.backups(&ids)?;
            backups.sort_unstable_by(|one, other| one.id.cmp(&other.id));
            backups.iter().filter_map(decide::temporaries).try_for_each(|finding| self.give(finding))?;
        }
        if !self.request.selection.takes_leftover("attachment") {
            return Ok(());
        }
        let mut found: Vec<Attachment> = Vec::new();
        let (selection, services) = (self.request.selection, &self.situation.services);
        reader.host_attachments(&mut |attachment| {
            let host = attachment.attached_host.as_deref().unwrap_or_default();
            let of_backup = census.hosts.contains_key(host) || services.knows(host);
            let busy = !census.of_volume(&attachment.volume_id).is_empty();
            if of_backup && !busy && attachment.is_live() && selection.takes_owner(None, Some(&attachment.volume_id)) {
                found.push(attachment);
            }
        })?;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.iter().map(decide::attachment).try_for_each(|finding| self.give(finding))
    }

    /// With `--rehost`, backups whose hosts have no living cinder-backup. Without it, their number is a notice.
    fn hosts(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let (census, columns, request) = (self.census, self.situation.columns, self.request);
        for ids in census.retired() {
            let mut portion = reader.backups(&ids)?;
            portion.sort_unstable_by(|one, other| one.id.cmp(&other.id));
            // Only data in a directory of a host is checked.
            let is_local = |backup: &Backup| backup.service.as_deref().and_then(Driver::of_service) == Some(Driver::Posix);
            let local: Vec<Backup> =
                portion.iter().filter(|backup| request.kept == KeptRows::Chains && is_local(backup)).cloned().collect();
            let chains: HashMap<_, _> = local.iter().map(|backup| backup.id.clone()).zip(lineage::ancestors(reader, &local)?).collect();
            for backup in portion {
                let check = request.checks.get(&backup.id).map(|check| Box::new(CheckResult::clone(check)));
                let case = RehostCase { backup, service: self.new_service.clone(), check };
                let Some(mut finding) = decide::rehost(&case, self.situation, request.policy) else { continue };
                if let Some(ancestors) = chains.get(&case.backup.id) {
                    finding.rows = images_of_chain(&case.backup, ancestors, columns);
                }
                self.keep(finding, || vec![case.backup.image(columns)])?;
            }
        }
        Ok(())
    }

    /// Wrong quota usages, if they are to be corrected. Otherwise only rows that contradict themselves; the others are notices.
    fn quotas(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let (pending, corrects) = (self.pending, self.request.policy.fix_quotas && self.request.selection.takes_quotas());
        let mut reservations: HashMap<String, Vec<Reservation>> = HashMap::new();
        if corrects {
            reader.require_quotas()?;
            let projects: Vec<String> = pending.quotas.keys().cloned().collect();
            for reservation in reader.live_reservations(&projects)? {
                reservations.entry(reservation.project_id.clone()).or_default().push(reservation);
            }
        }
        // MySQL and MariaDB take such ids for the same project, and so Cinder counts them together.
        let mut spellings: HashMap<String, BTreeSet<&str>> = HashMap::new();
        for project in self.census.projects.keys().chain(pending.quotas.keys()).filter(|_| corrects && reader.ignores_case()) {
            spellings.entry(key(project).into_owned()).or_default().insert(project);
        }
        for (project, usages) in &pending.quotas {
            let is_ambiguous = spellings.get(key(project).as_ref()).is_some_and(|all| all.len() > 1);
            let wait_reason = if is_ambiguous {
                Some("its rows spell the project id in several ways; run `cinder-manage quota sync` instead".to_owned())
            } else {
                self.recounted.contains(project).then(|| "another unit changes what it counts; scan again afterwards".to_owned())
            };
            let of_project = corrects.then(|| reservations.remove(project).unwrap_or_default());
            let case = quota_case(project, usages.clone(), of_project, self.census, wait_reason);
            let finding = decide::quota(&case, self.situation).filter(|_| corrects || case.is_contradictory());
            if let Some(finding) = finding {
                let reservations = case.reservations.iter().flatten().map(Reservation::image);
                self.keep(finding, || case.usages.iter().map(QuotaUsage::image).chain(reservations).collect())?;
            }
        }
        Ok(())
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
    let deletion = case.deletion.iter();
    let others = deletion
        .flat_map(|deletion| deletion.metadata.iter().map(BackupMetadata::image).chain(deletion.quotas.iter().map(QuotaUsage::image)));
    backups.chain(volumes).chain(case.snapshot.iter().map(Snapshot::image)).chain(others).collect()
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
