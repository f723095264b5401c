//! `--fix-quotas`: compares the quota usage of a project with its live backups and open reservations.
//!
//! Like `cinder-manage quota sync`, it counts every live backup in any status, and a size of NULL as 0. It corrects only rows that exist,
//! because Cinder counts for itself when it makes one. Unlike `quota sync`, it ends expired reservations, as Cinder's scheduler does, and
//! waits while one is open: the operation may have added or deleted a backup that it has not counted yet.
//!
//! Source: `cinder/cmd/manage.py` (`QuotaCommands`), `cinder/db/api.py` (`_backup_data_get_for_project`, `reservation_expire`).

use std::collections::BTreeSet;

use super::deletion::open_reservations;
use super::{change, new_finding};
use crate::domain::text::{count, shell_word};
use crate::domain::{EvidenceCode, Finding, FindingKind, Proposal, QuotaUsage, Reservation, Situation, Verdict};

/// The number of expired reservations that a text names.
const NAMED: usize = 5;

/// Everything that the decision for the quotas of a project depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCase {
    pub project: String,
    /// Its quota usage of backups and their gigabytes: live rows.
    pub usages: Vec<QuotaUsage>,
    /// Its live reservations for them; `None` if they were not read, because nothing is to be corrected.
    pub reservations: Option<Vec<Reservation>>,
    /// Its live backups, and their GiB.
    pub counted: (i64, i64),
    /// Why a correction has to wait.
    pub wait_reason: Option<String>,
}

impl QuotaCase {
    /// Whether its rows contradict themselves: a number is negative, or two rows are for one resource. Any other wrong number may be
    /// temporary: Cinder can be configured to count again from time to time.
    pub fn is_contradictory(&self) -> bool {
        self.usages.iter().any(|usage| usage.in_use < 0 || usage.reserved < 0 || is_duplicate(usage, &self.usages))
    }
}

/// Whether several rows are for the resource of a quota usage.
pub(super) fn is_duplicate(usage: &QuotaUsage, usages: &[QuotaUsage]) -> bool {
    usages.iter().filter(|other| other.resource == usage.resource).count() > 1
}

/// Decides for the quotas of a project; `None` if they are right.
pub fn quota(case: &QuotaCase, situation: &Situation) -> Option<Finding> {
    let QuotaCase { project, usages, reservations, counted, wait_reason } = case;
    let mut finding = Finding { project_id: Some(project.clone()), ..new_finding(FindingKind::Project, project, Verdict::Inconsistent) };
    let is_of = |usage: &QuotaUsage, reservation: &Reservation| reservation.usage_id.is_some_and(|id| usage.id == id.to_string());
    let (expired, open): (Vec<_>, Vec<_>) = reservations.iter().flatten().partition(|reservation| reservation.is_expired(situation.now));
    let expired: Vec<_> = expired.into_iter().filter(|reservation| usages.iter().any(|usage| is_of(usage, reservation))).collect();
    let (mut wrong, mut twice, mut changes) = (Vec::new(), BTreeSet::new(), Vec::new());
    for usage in usages {
        let QuotaUsage { resource, in_use, reserved, .. } = usage;
        if is_duplicate(usage, usages) {
            twice.insert(resource.as_str());
            continue;
        }
        let right = if resource == "backups" { counted.0 } else { counted.1.max(0) };
        let of_usage = open.iter().filter(|reservation| is_of(usage, reservation));
        let right_reserved = match reservations {
            Some(_) => of_usage.map(|reservation| reservation.delta.max(0)).fold(0, i64::saturating_add),
            None => (*reserved).max(0),
        };
        // Expired reservations are named on their own.
        let of_expired = expired.iter().filter(|reservation| is_of(usage, reservation));
        let explained = of_expired.map(|reservation| reservation.delta.max(0)).fold(right_reserved, i64::saturating_add);
        if *in_use != right {
            wrong.push(format!("{resource} in use {in_use}, counted {right}"));
        }
        if *reserved != explained {
            wrong.push(format!("{resource} reserved {reserved}, not {explained}"));
        }
        change(&mut changes, &usage.image(), "in_use", right);
        change(&mut changes, &usage.image(), "reserved", right_reserved);
    }
    let twice = twice.into_iter().collect::<Vec<_>>().join(" and ");
    if !wrong.is_empty() {
        finding.note(EvidenceCode::QuotaWrong, format!("the quota usage of project {project} is wrong: {}", wrong.join("; ")));
    }
    if !twice.is_empty() {
        finding.note(EvidenceCode::QuotaDuplicate, format!("project {project} has several rows in quota_usages for {twice}"));
    }
    if !expired.is_empty() {
        let named = expired.iter().take(NAMED).map(|Reservation { id, resource, delta, expire, .. }| {
            format!("{id} ({resource} {delta:+}, expired at {})", expire.as_deref().unwrap_or("NULL"))
        });
        let (number, named) = (count(expired.len(), "expired reservation"), named.collect::<Vec<_>>().join(", "));
        let more = if expired.len() > NAMED { ", …" } else { "" };
        finding.note(EvidenceCode::ReservationsExpired, format!("project {project} has {number} that still count: {named}{more}"));
    }
    if finding.evidence.is_empty() {
        return None;
    }
    if !twice.is_empty() {
        let why = || format!("quota_usages has several rows of it for {twice}; run `cinder-manage quota sync` first, which merges them");
        finding.refusal = reservations.is_some().then(why);
        finding.follow_up.push(format!("cinder-manage quota sync --project-id {}", shell_word(project)));
    } else if reservations.is_none() {
        finding.follow_up.push(format!("cinder-backup-repair repair --fix-quotas --project {}", shell_word(project)));
    } else if let Some(why) = wait_reason {
        finding.refusal = Some(why.clone());
    } else if let Some(last) = open.iter().map(|reservation| reservation.expire.as_deref().unwrap_or("never")).max() {
        finding.refusal =
            Some(format!("{}; try again once its operations have ended or it has expired ({last})", open_reservations(open.len())));
    } else {
        expired.iter().for_each(|reservation| change(&mut changes, &reservation.image(), "deleted", 1));
        finding.proposal = Some(Proposal { status: None, needs: Vec::new(), changes });
    }
    Some(finding)
}
