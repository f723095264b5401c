//! Which rows a unit needs.

use std::collections::BTreeSet;

use crate::domain::decide::Peer;
use crate::domain::status::NO_VOLUME;
use crate::domain::{Backup, ColumnSet, FindingKind, Table, Volume};
use crate::plan::{Plan, Unit};
use crate::scan::{Census, explainers, may_change_parent, peers, snapshot_explainers};

/// Which rows a unit needs: those that it changes, and those that its decision depends on.
///
/// They follow from the images, which are compared with the rows, and never from what else a plan says; but for the rows that
/// its checks compare.
#[derive(Debug, Default)]
pub struct UnitRows {
    backups: BTreeSet<String>,
    volumes: BTreeSet<String>,
    snapshots: BTreeSet<String>,
    /// Metadata of a backup that is deleted or restored, and the quota and reservations of a project.
    others: BTreeSet<(Table, String)>,
    /// The project whose reservations matter.
    pub(super) project: Option<String>,
    /// Whether the quotas of the project are corrected, so that each of its reservations matters.
    pub(super) counts_quotas: bool,
    /// The volume whose attachments matter.
    pub(super) held: Option<String>,
    /// The backup that counts this one among its dependents.
    parent: Option<String>,
}

impl UnitRows {
    /// The rows of a unit of the plan, in a database with these columns.
    pub fn of(unit: &Unit, plan: &Plan, census: &Census, columns: ColumnSet) -> Self {
        let ids_of = |table: Table| unit.before.iter().filter(move |image| image.table == table).map(|image| image.id.clone());
        let mut rows = Self {
            backups: ids_of(Table::Backups).collect(),
            volumes: ids_of(Table::Volumes).collect(),
            snapshots: ids_of(Table::Snapshots).collect(),
            others: [Table::BackupMetadata, Table::QuotaUsages, Table::Reservations]
                .into_iter()
                .flat_map(|table| ids_of(table).map(move |id| (table, id)))
                .collect(),
            project: unit.before.iter().find_map(|image| image.value("project_id").as_text()).map(str::to_owned),
            counts_quotas: unit.kind == FindingKind::Project,
            ..Self::default()
        };
        let ids = |backups: Vec<Peer>| backups.into_iter().map(|backup| backup.id);
        match unit.kind {
            FindingKind::Backup => {
                if let Some(image) = unit.main_image() {
                    rows.add_rows_of_backup(&Backup::of_image(image), unit, plan, census);
                }
                // A quota that did not count the backup may count it by now: Cinder counts again when it reserves something.
                for quota in census.unplanned_quotas.get(&unit.id).into_iter().flatten() {
                    rows.project = Some(quota.project_id.clone());
                    rows.others.insert((Table::QuotaUsages, quota.id.clone()));
                }
            }
            FindingKind::Volume => {
                rows.held = Some(unit.id.clone());
                let status = unit.main_image().and_then(|image| image.value("status").as_text()).map(str::to_owned);
                let volume = Volume { id: unit.id.clone(), status, ..Volume::default() };
                rows.backups.extend(ids(explainers(census, &volume, columns)));
            }
            FindingKind::Snapshot => rows.backups.extend(ids(snapshot_explainers(census, &unit.id))),
            FindingKind::Host => {}
            // Also those whose numbers are right: without one of them under lock, Cinder could make a reservation.
            FindingKind::Project => {
                let quotas = census.quotas.get(&unit.id).into_iter().flatten();
                rows.others.extend(quotas.map(|quota| (Table::QuotaUsages, quota.id.clone())));
            }
        }
        rows.volumes.remove(NO_VOLUME);
        rows
    }

    fn add_rows_of_backup(&mut self, backup: &Backup, unit: &Unit, plan: &Plan, census: &Census) {
        self.volumes.extend(backup.volume_id.iter().chain(&backup.restore_volume_id).cloned());
        self.snapshots.extend(backup.snapshot_id.clone());
        self.parent.clone_from(&backup.parent_id);
        if unit.counter {
            return;
        }
        let check = plan.check_of(unit);
        self.held.clone_from(&backup.volume_id);
        self.backups.extend(peers(census, backup).into_iter().map(|peer| peer.id));
        // The decision depends on the parent, even if the parent's row does not change.
        self.backups.extend(backup.parent_id.clone().filter(|_| may_change_parent(check, &plan.policy)));
        // A check covers the backup and all its ancestors.
        self.backups.extend(check.into_iter().flat_map(|check| &check.rows).map(|image| image.id.clone()));
    }

    /// The rows, in the order in which they are locked.
    pub fn all(&self) -> impl Iterator<Item = (Table, &str)> {
        let backups = self.backups.iter().map(|id| (Table::Backups, id.as_str()));
        let volumes = self.volumes.iter().map(|id| (Table::Volumes, id.as_str()));
        let snapshots = self.snapshots.iter().map(|id| (Table::Snapshots, id.as_str()));
        backups.chain(volumes).chain(snapshots).chain(self.others.iter().map(|(table, id)| (*table, id.as_str())))
    }

    /// Rows by their ids alone.
    #[cfg(test)]
    pub fn plain(backups: &[&str], volumes: &[&str], parent: Option<&str>) -> Self {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        Self { backups: set(backups), volumes: set(volumes), parent: parent.map(str::to_owned), ..Self::default() }
    }

    /// The backup whose count of dependents this unit may move, whether or not it is read.
    pub fn parent(&self) -> Option<(Table, &str)> {
        self.parent.as_deref().map(|id| (Table::Backups, id))
    }
}
