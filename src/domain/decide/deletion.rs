//! `--to deleted`: whether the deletion of a backup may be finished, and the changes with which Cinder's own delete ends.
//!
//! Cinder deletes the objects first, then the row with its metadata, then it subtracts the backup from its parent's counter and from the
//! quota. Only what comes after the objects is done here, and only once nothing of them is left.
//!
//! Source: `cinder/backup/manager.py` (`delete_backup`), `cinder/db/api.py` (`backup_destroy`, `quota_reserve`, `reservation_commit`).

use std::fmt::Display;

use super::backup::Target;
use super::quota::is_duplicate;
use super::{BackupCase, Children, change, last_resort};
use crate::domain::status::{DELETED, DELETING, ERROR, ERROR_DELETING};
use crate::domain::text::{count, shell_word};
use crate::domain::{
    BackupMetadata, Change, CheckResult, CheckVerdict, ColumnSet, EvidenceCode, Finding, Policy, ProblemCode, QuotaUsage, Situation,
};

/// The rows that only a deletion depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deletion {
    /// The live metadata of the backup.
    pub metadata: Vec<BackupMetadata>,
    /// What the quotas of its project count; not read with `--no-quota`.
    pub quotas: Vec<QuotaUsage>,
    /// How many reservations of its project for backups or their gigabytes are live.
    pub open_reservations: usize,
    /// The live backups that are based on it. [`Children`] leaves out those in `creating`.
    pub children: Children,
    /// A backup of its volume that is being made, and may be based on it.
    pub writing: Option<String>,
    /// The key of an encrypted backup; not known under lock, because only a follow-up command needs it.
    pub key: Option<String>,
}

/// What should become of a backup with `--to deleted`.
pub(super) fn target(case: &BackupCase, check: Option<&CheckResult>, situation: &Situation, policy: &Policy) -> Target {
    let refused = |why: String| Target::Refused(why);
    let status = case.backup.status.as_deref();
    if !matches!(status, Some(DELETING | ERROR_DELETING | ERROR)) {
        let status = status.unwrap_or("NULL");
        return refused(format!("a backup in {status} cannot become deleted, as its deletion was not begun; leave out --to deleted"));
    }
    if situation.columns < ColumnSet::Mitaka {
        return refused("--to deleted needs the tables of Mitaka or later".to_owned());
    }
    // Without these rows nothing shows that no other backup is based on it.
    let Some(deletion) = case.deletion.as_deref() else { return refused("the rows that its deletion depends on were not read".to_owned()) };
    if let Some(other) = &deletion.writing {
        return refused(format!("backup {other} of its volume is being made, and may be based on it; repair that one first"));
    }
    if deletion.children.certain + deletion.children.possible > 0 {
        let why =
            "other live backups are based on it, so it cannot become deleted, whatever the storage holds; finish their deletion first";
        return refused(why.to_owned());
    }
    if let Some(why) = quota_problem(deletion, policy) {
        return refused(why);
    }
    match check {
        Some(check) if check.earns_deleted() => Target::Status(DELETED),
        _ if policy.allow_unverified => Target::Status(DELETED),
        Some(check) if check.verdict == CheckVerdict::Missing => refused(without_witness(check)),
        Some(check) if check.verdict == CheckVerdict::Unverifiable => refused(format!(
            "it is not proven that nothing of it is on the storage: {}; try again, or give --to error",
            super::backup::first_problem(check)
        )),
        Some(_) => refused(
            "part of it is still on the storage, so it cannot become deleted: give --to error, and delete it again once the API is back"
                .to_owned(),
        ),
        None => refused(
            "nothing shows that it is gone from the storage; use --check quick to make it deleted, or override this with \
             --allow-unverified, at your own risk"
                .to_owned(),
        ),
    }
}

/// Why a check that found nothing proves nothing.
fn without_witness(check: &CheckResult) -> String {
    let found = if check.has(ProblemCode::ContainerMissing) { "its container is missing, too" } else { "nothing of it was found" };
    let why = check.warnings.iter().find(|warning| warning.code == ProblemCode::NoWitness).map(|warning| warning.text.as_str());
    let why = match why {
        Some(why) => why,
        None if check.needs_witness() => "this run did not check whether it is the right storage; use --check quick",
        None => "it may be another storage",
    };
    format!(
        "{found}, but {why}; if the settings name the right storage, and its data is gone for good, override this with --allow-unverified, at \
         your own risk"
    )
}

/// Why the quota cannot be set right in the same transaction.
fn quota_problem(deletion: &Deletion, policy: &Policy) -> Option<String> {
    if policy.no_quota {
        return None;
    }
    if deletion.open_reservations > 0 {
        return Some(format!("{}; try again later, or give --no-quota", open_reservations(deletion.open_reservations)));
    }
    let twice = deletion.quotas.iter().find(|quota| is_duplicate(quota, &deletion.quotas))?;
    Some(format!(
        "its project {} has several rows in quota_usages for {}; run `cinder-manage quota sync` first, or give --no-quota",
        twice.project_id, twice.resource
    ))
}

/// Says that a project has open reservations.
pub(super) fn open_reservations(number: impl Display) -> String {
    format!("its project has {} of backup quota, so what it uses may change", count(number, "open reservation"))
}

/// Adds the changes with which Cinder's own delete ends, beside the status and the parent's counter.
pub(super) fn add_changes(finding: &mut Finding, changes: &mut Vec<Change>, case: &BackupCase, situation: &Situation, policy: &Policy) {
    let backup = &case.backup;
    change(changes, &backup.image(situation.columns), "deleted", 1);
    let Some(deletion) = case.deletion.as_deref() else { return };
    for row in &deletion.metadata {
        change(changes, &row.image(), "deleted", 1);
    }
    for quota in deletion.quotas.iter().filter(|_| !policy.no_quota) {
        let used = if quota.resource == "backups" { 1 } else { backup.size.unwrap_or_default().max(0) };
        if quota.in_use < used {
            let text =
                format!("the quota of its project {} counts only {} {}, and stays at 0", quota.project_id, quota.in_use, quota.resource);
            finding.note(EvidenceCode::QuotaTooLow, text);
        }
        change(changes, &quota.image(), "in_use", quota.in_use.saturating_sub(used).max(0));
    }
    if let Some(key) = &deletion.key {
        let delete = format!("openstack secret delete {}", shell_word(key));
        finding
            .follow_up
            .push(last_resort("its encryption key stays in the key manager, which may need the whole URL of the secret", &delete));
    }
}
