//! Chains of increments: wrong counters, and missing parents.

use crate::domain::status::{AVAILABLE, CREATING, DELETED, ERROR, RESTORING, is_active};
use crate::domain::{Backup, Evidence, EvidenceCode, Finding, Policy, Proposal, Situation, Table, Verdict};

use super::{about_backup, change, command, propose_or_refuse};

/// The number of live children of a backup.
///
/// Cinder adds one when a child becomes `available`, and subtracts one when a child is deleted, even if it was never counted. So the
/// counter may or may not include a child in `error` or `deleting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Children {
    /// Children in `available` or `restoring`, which are counted.
    pub certain: i64,
    /// Children in any other status except `creating` and `deleted`, which may be counted.
    pub possible: i64,
}

impl Children {
    /// Adds a child with this status.
    pub fn add(&mut self, status: Option<&str>) {
        self.count(status, 1);
    }

    /// Removes a child with this status.
    pub fn remove(&mut self, status: Option<&str>) {
        self.count(status, -1);
    }

    fn count(&mut self, status: Option<&str>, number: i64) {
        match status {
            Some(AVAILABLE | RESTORING) => self.certain += number,
            Some(CREATING | DELETED) => {}
            _ => self.possible += number,
        }
    }

    /// The possible counter that is nearest to `recorded`.
    pub fn nearest(self, recorded: i64) -> i64 {
        let least = self.certain.max(0);
        recorded.clamp(least, least.saturating_add(self.possible.max(0)))
    }
}

/// Everything that the decision for a counter depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterCase {
    pub backup: Backup,
    pub children: Children,
    /// Another finding changes this row, so the counter has to wait for the next run.
    pub occupied: bool,
}

/// Decides for `num_dependent_backups`; `None` if it can be right.
pub fn counter(case: &CounterCase, situation: &Situation, policy: &Policy) -> Option<Finding> {
    let recorded = case.backup.num_dependent_backups.unwrap_or(0);
    let right = case.children.nearest(recorded);
    if right == recorded {
        return None;
    }
    let effect = if recorded == 0 { "Cinder would allow its deletion" } else { "Cinder refuses to delete it" };
    let text = format!("num_dependent_backups is {recorded}, but {right} live backups are based on it; {effect}");
    let mut finding = inconsistent(&case.backup, Evidence::new(EvidenceCode::CounterWrong, text));
    if case.occupied {
        finding.note(EvidenceCode::CounterLater, "another finding changes this row first; scan again afterwards");
    } else if is_active(case.backup.status.as_deref()) {
        let text = "an operation on this backup is pending, and its cinder-backup may write the row; scan again afterwards";
        finding.note(EvidenceCode::CounterLater, text);
    } else if policy.fix_counters {
        let mut changes = Vec::new();
        change(&mut changes, &case.backup.image(situation.columns), "num_dependent_backups", right);
        let (id, unchangeable) = (case.backup.id.as_str(), case.backup.unchangeable.as_deref());
        let proposal = Proposal { status: case.backup.status.clone(), needs: Vec::new(), changes };
        propose_or_refuse(&mut finding, proposal, [(Table::Backups, id, unchangeable)]);
    } else {
        finding.follow_up.push(command("cinder-backup-repair repair --fix-counters", &case.backup.id));
    }
    Some(finding)
}

/// Decides for an increment whose parent is missing or in error: whatever its own status, it may not be restorable.
pub fn broken_chain(backup: &Backup, parent_id: &str, parent: Option<&Backup>) -> Option<Finding> {
    let text = match parent {
        None => format!("it is an increment on backup {parent_id}, which no longer exists: it cannot be restored"),
        Some(parent) if parent.status.as_deref() == Some(ERROR) => {
            format!("it is an increment on backup {parent_id}, which is in error: it may not be restorable")
        }
        Some(_) => return None,
    };
    let code = if parent.is_none() { EvidenceCode::ParentMissing } else { EvidenceCode::ParentInError };
    let mut finding = inconsistent(backup, Evidence::new(code, text));
    if parent.is_none() {
        let volume = backup.volume_id.as_deref().unwrap_or("VOLUME");
        finding.follow_up.push(command("openstack volume backup create --force --name NAME", volume));
    }
    Some(finding)
}

pub(super) fn inconsistent(backup: &Backup, evidence: Evidence) -> Finding {
    Finding { evidence: vec![evidence], ..about_backup(backup, Verdict::Inconsistent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_wrong_only_when_it_cannot_be_right() {
        let children = Children { certain: 2, possible: 1 };
        let nearest: Vec<i64> = (-1..=5).map(|recorded| children.nearest(recorded)).collect();
        assert_eq!(nearest, [2, 2, 2, 2, 3, 3, 3]);
    }

    #[test]
    fn a_child_being_written_does_not_count() {
        let mut children = Children::default();
        for status in [Some("creating"), Some("available"), Some("restoring"), Some("error"), Some("deleting"), None] {
            children.add(status);
        }
        assert_eq!(children, Children { certain: 2, possible: 3 });
        children.remove(Some("available"));
        children.remove(None);
        children.remove(Some("creating"));
        assert_eq!(children, Children { certain: 1, possible: 2 });
    }
}
