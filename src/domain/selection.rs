//! Which rows the user wants to hear about.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::id::same;
use super::status::{AVAILABLE, BACKING_UP, CREATING, DELETING, ERROR, ERROR_DELETING, RESTORING, RESTORING_BACKUP};
use super::{Backup, Policy};

/// The word for a status of NULL on the command line.
pub const NULL: &str = "null";

/// Statuses that `--status` takes.
pub const STATUSES: &[&str] = &[CREATING, RESTORING, DELETING, NULL, ERROR, ERROR_DELETING, BACKING_UP, RESTORING_BACKUP];

/// The rows that a scan reports; empty sets mean all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// `--status`.
    pub statuses: BTreeSet<String>,
    /// `--host`.
    pub hosts: BTreeSet<String>,
    /// `--project`.
    pub projects: BTreeSet<String>,
    /// `--volume`.
    pub volumes: BTreeSet<String>,
    /// Ids or display names of backups.
    pub backups: BTreeSet<String>,
    /// `--limit`: at most so many findings.
    pub limit: Option<usize>,
}

/// Which projects, volumes and statuses of a selection exist in some row. A value that no row has is probably a typo.
#[derive(Debug, Clone, Default)]
pub struct Matched {
    projects: BTreeSet<String>,
    volumes: BTreeSet<String>,
    status: bool,
}

impl Matched {
    /// Notes which of them a row has.
    pub fn note(&mut self, selection: &Selection, status: Option<&str>, project: Option<&str>, volume: Option<&str>) {
        self.status = self.status || selection.statuses.contains(status.unwrap_or(NULL));
        if let Some(project) = project.filter(|project| selection.projects.contains(*project) && !self.projects.contains(*project)) {
            self.projects.insert(project.to_owned());
        }
        if let Some(volume) = volume.and_then(|volume| selection.volumes.iter().find(|wanted| same(wanted, volume))) {
            self.volumes.insert(volume.clone());
        }
    }

    /// The volumes that no row has yet.
    pub fn missing_volumes(&self, selection: &Selection) -> Vec<String> {
        selection.volumes.difference(&self.volumes).cloned().collect()
    }

    /// A sentence about each option that matches nothing: a project or a volume that does not exist, or statuses that no row has.
    pub fn problems(&self, selection: &Selection) -> Vec<String> {
        let missing = |option: &str, all: &BTreeSet<String>, matched: &BTreeSet<String>, what: &str| -> Vec<String> {
            all.difference(matched).map(|name| format!("{option} {name} matches nothing: {what}")).collect()
        };
        let mut problems = missing("--project", &selection.projects, &self.projects, "no live backup is of this project");
        problems.extend(missing("--volume", &selection.volumes, &self.volumes, "no live backup is of this volume, and it does not exist"));
        if !self.status && !selection.statuses.is_empty() {
            let statuses: Vec<&str> = selection.statuses.iter().map(String::as_str).collect();
            problems.push(format!("--status {} matches nothing: no live backup, volume or snapshot has it", statuses.join(", ")));
        }
        problems
    }
}

impl Selection {
    /// Whether it is all that there is, if not all at once.
    pub fn is_all(&self) -> bool {
        *self == Self { limit: self.limit, ..Self::default() }
    }

    /// Whether a live backup is one that a scan is to judge.
    pub fn takes(&self, backup: &Backup) -> bool {
        let status = backup.status.as_deref().unwrap_or(NULL);
        let named = self.names(backup);
        let by_status = if self.statuses.is_empty() {
            matches!(status, CREATING | RESTORING | DELETING | NULL) || (named && status == ERROR_DELETING) || (named && status == ERROR)
        } else {
            self.statuses.contains(status)
        };
        by_status
            && status != AVAILABLE
            && (self.backups.is_empty() || named)
            && self.takes_host(backup.host.as_deref())
            && self.takes_owner(backup.project_id.as_deref(), backup.volume_id.as_deref())
    }

    /// Whether the backup was named, by id or display name.
    pub fn names(&self, backup: &Backup) -> bool {
        self.backups.contains(&backup.id) || backup.display_name.as_ref().is_some_and(|name| self.backups.contains(name))
    }

    fn takes_host(&self, host: Option<&str>) -> bool {
        self.hosts.is_empty() || host.is_some_and(|host| self.hosts.contains(host))
    }

    /// Whether project and volume are wanted.
    pub fn takes_owner(&self, project: Option<&str>, volume: Option<&str>) -> bool {
        (self.projects.is_empty() || project.is_some_and(|project| self.projects.contains(project)))
            && (self.volumes.is_empty() || volume.is_some_and(|volume| self.volumes.iter().any(|wanted| same(wanted, volume))))
    }

    /// Whether volumes or snapshots left behind in `status` are wanted: they have no host, and are no backups.
    pub fn takes_leftover(&self, status: &str) -> bool {
        self.hosts.is_empty() && self.backups.is_empty() && (self.statuses.is_empty() || self.statuses.contains(status))
    }

    /// Whether contradictions of this backup are wanted.
    pub fn takes_inconsistent(&self, backup: &Backup) -> bool {
        self.statuses.is_empty()
            && (self.backups.is_empty() || self.names(backup))
            && self.takes_host(backup.host.as_deref())
            && self.takes_owner(backup.project_id.as_deref(), backup.volume_id.as_deref())
    }

    /// Whether any contradictions are wanted at all.
    pub fn wants_inconsistent(&self) -> bool {
        self.statuses.is_empty()
    }

    /// Tells the policy which statuses beside the pending ones were asked for.
    pub fn tell(&self, policy: &mut Policy) {
        policy.asked = self.statuses.clone();
    }
}
