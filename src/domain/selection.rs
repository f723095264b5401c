//! Which rows the operator selects.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Backup;
use super::id::same;
use super::status::{AVAILABLE, BACKING_UP, CREATING, DELETING, ERROR, ERROR_DELETING, RESTORING, RESTORING_BACKUP, is_at_rest};

/// The word for a status of NULL on the command line.
pub const NULL: &str = "null";

/// The statuses that `--status` accepts.
pub const STATUSES: &[&str] = &[CREATING, RESTORING, DELETING, NULL, ERROR, ERROR_DELETING, BACKING_UP, RESTORING_BACKUP];

/// The selected rows. An empty set selects all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
    /// `--limit`: the largest number of findings.
    pub limit: Option<usize>,
}

/// The projects, volumes and statuses of a selection that some row has. One that no row has is probably a typo.
#[derive(Debug, Clone, Default)]
pub struct Matched {
    projects: BTreeSet<String>,
    volumes: BTreeSet<String>,
    status: bool,
}

impl Matched {
    /// Notes those of a row.
    pub fn note(&mut self, selection: &Selection, status: Option<&str>, project: Option<&str>, volume: Option<&str>) {
        self.status = self.status || selection.statuses.contains(status.unwrap_or(NULL));
        if let Some(project) = project.filter(|project| selection.projects.contains(*project) && !self.projects.contains(*project)) {
            self.projects.insert(project.to_owned());
        }
        if let Some(volume) = volume.and_then(|volume| selection.volumes.iter().find(|wanted| same(wanted, volume))) {
            self.volumes.insert(volume.clone());
        }
    }

    /// The volumes that no row had so far.
    pub fn missing_volumes(&self, selection: &Selection) -> Vec<String> {
        selection.volumes.difference(&self.volumes).cloned().collect()
    }

    /// One sentence for each option that matches nothing.
    pub fn problems(&self, selection: &Selection) -> Vec<String> {
        let missing = |option: &str, all: &BTreeSet<String>, matched: &BTreeSet<String>, what: &str| -> Vec<String> {
            all.difference(matched).map(|name| format!("{option} {name} matches nothing: {what}")).collect()
        };
        let mut problems = missing("--project", &selection.projects, &self.projects, "this project has no live backups");
        problems.extend(missing("--volume", &selection.volumes, &self.volumes, "this volume does not exist and has no live backups"));
        if !self.status && !selection.statuses.is_empty() {
            let statuses: Vec<&str> = selection.statuses.iter().map(String::as_str).collect();
            problems.push(format!("--status {} matches nothing: no live backup, volume or snapshot has that status", statuses.join(", ")));
        }
        problems
    }
}

impl Selection {
    /// Whether it selects everything, apart from `--limit`.
    pub fn is_all(&self) -> bool {
        *self == Self { limit: self.limit, ..Self::default() }
    }

    /// Whether a scan judges a live backup.
    pub fn takes(&self, backup: &Backup) -> bool {
        let status = backup.status.as_deref().unwrap_or(NULL);
        let by_status = if self.statuses.is_empty() {
            matches!(status, CREATING | RESTORING | DELETING | NULL) || (matches!(status, ERROR | ERROR_DELETING) && self.names(backup))
        } else {
            self.statuses.contains(status)
        };
        by_status && status != AVAILABLE && self.takes_row(backup)
    }

    /// Whether a backup is selected, whatever its status.
    fn takes_row(&self, backup: &Backup) -> bool {
        (self.backups.is_empty() || self.names(backup))
            && (self.hosts.is_empty() || backup.host.as_ref().is_some_and(|host| self.hosts.contains(host)))
            && self.takes_owner(backup.project_id.as_deref(), backup.volume_id.as_deref())
    }

    /// Whether `--rehost` may move a backup: it is selected, and no operation runs on it.
    pub fn takes_host_of(&self, backup: &Backup) -> bool {
        let status = backup.status.as_deref().unwrap_or(NULL);
        (self.statuses.is_empty() || self.statuses.contains(status)) && is_at_rest(backup.status.as_deref()) && self.takes_row(backup)
    }

    /// Whether the backup is named by its id or display name.
    pub fn names(&self, backup: &Backup) -> bool {
        self.backups.contains(&backup.id) || backup.display_name.as_ref().is_some_and(|name| self.backups.contains(name))
    }

    /// Whether project and volume are selected.
    pub fn takes_owner(&self, project: Option<&str>, volume: Option<&str>) -> bool {
        (self.projects.is_empty() || project.is_some_and(|project| self.projects.contains(project)))
            && (self.volumes.is_empty() || volume.is_some_and(|volume| self.volumes.iter().any(|wanted| same(wanted, volume))))
    }

    /// Whether volumes or snapshots in `status` are selected. They have no host, and are not backups.
    pub fn takes_leftover(&self, status: &str) -> bool {
        self.hosts.is_empty() && self.backups.is_empty() && (self.statuses.is_empty() || self.statuses.contains(status))
    }

    /// Whether the quotas of projects are selected.
    pub fn takes_quotas(&self) -> bool {
        self.takes_leftover("quota") && self.volumes.is_empty()
    }

    /// Whether inconsistencies of this backup are selected.
    pub fn takes_inconsistent(&self, backup: &Backup) -> bool {
        self.wants_inconsistent() && self.takes_row(backup)
    }

    /// Whether inconsistencies are selected at all.
    pub fn wants_inconsistent(&self) -> bool {
        self.statuses.is_empty()
    }
}
