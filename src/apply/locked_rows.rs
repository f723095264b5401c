//! A unit's rows as they are under lock, and the facts made from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::unit_rows::UnitRows;
use super::written::{Overlay, Written};
use crate::db::{Access, DbError};
use crate::domain::decide::{self, BackupCase, Children, Deletion, Peer, QuotaCase};
use crate::domain::id::{key, same};
use crate::domain::status::{NO_VOLUME, RESTORING, is_active};
use crate::domain::{
    Attachment, Backup, BackupMetadata, ColumnSet, Evidence, Image, Moved, QuotaUsage, Reservation, Snapshot, Table, Value, Volume,
};
use crate::plan::Unit;
use crate::scan::lineage::chain;
use crate::scan::{
    ActiveBackups, Census, Facts, Lock, Reader, ReservationQuery, ReservationTotals, Row, UnitAnswers, quota_case, volumes_of,
};

/// A unit's rows as they are now, by the [`key`]s of their ids.
#[derive(Debug, Default)]
pub struct LockedRows {
    backups: BTreeMap<String, Backup>,
    volumes: BTreeMap<String, Volume>,
    snapshots: BTreeMap<String, Snapshot>,
    metadata: BTreeMap<String, BackupMetadata>,
    quotas: BTreeMap<String, QuotaUsage>,
    reservations: BTreeMap<String, Reservation>,
    /// The reservations of the project whose quotas change.
    totals: ReservationTotals,
    /// The live ones.
    live_reservations: Vec<Reservation>,
    /// Live attachments of the volume that may be set free.
    attachments: Vec<Attachment>,
}

impl LockedRows {
    /// Begins a transaction and reads the rows of a unit, under lock if it may write. Where nothing is decided again, as when a run is
    /// undone, attachments do not matter, and rows that the run deleted are read. After an error no transaction is open.
    pub fn begin(reader: &mut Reader<'_>, rows: &UnitRows, access: Access, decides: bool) -> Result<Self, DbError> {
        let lock = if access == Access::Write { Lock::Held } else { Lock::None };
        let wanted: Vec<(Table, &str)> = rows.all().collect();
        let held: Vec<&str> = rows.held.iter().map(String::as_str).filter(|id| decides && *id != NO_VOLUME).collect();
        let project = rows.project.as_deref().filter(|_| decides);
        let reservations = project.map(|project| ReservationQuery { project, with_totals: rows.counts_quotas });
        let UnitAnswers { rows, attachments, totals, live_reservations } =
            reader.rows_of_unit(access, &wanted, lock, (&held, reservations))?;
        let mut fresh = Self { attachments, totals, live_reservations, ..Self::default() };
        for row in rows.into_iter().flatten().filter(|row| !decides || !row.is_deleted()) {
            match row {
                Row::Backup(row) => drop(fresh.backups.insert(key(&row.id).into_owned(), *row)),
                Row::Volume(row) => drop(fresh.volumes.insert(key(&row.id).into_owned(), row)),
                Row::Snapshot(row) => drop(fresh.snapshots.insert(key(&row.id).into_owned(), row)),
                Row::Metadata(row) => drop(fresh.metadata.insert(row.id.clone(), row)),
                Row::Quota(row) => drop(fresh.quotas.insert(row.id.clone(), row)),
                Row::Reservation(row) => drop(fresh.reservations.insert(row.id.clone(), row)),
            }
        }
        Ok(fresh)
    }

    /// Changes the rows to what the earlier units would have left, for a dry run.
    pub fn assume(&mut self, overlay: &Overlay) {
        let of = |table: Table, id: &str| overlay.get(&(table, id.to_owned()));
        let text = |image: &Image, column: &str| image.value(column).as_text().map(str::to_owned);
        for row in self.backups.values_mut() {
            let Some(image) = of(Table::Backups, &row.id) else { continue };
            row.status = text(image, "status");
            row.host = text(image, "host");
            row.availability_zone = text(image, "availability_zone");
            row.service_metadata = text(image, "service_metadata");
            row.fail_reason = text(image, "fail_reason");
            row.size = image.value("size").as_integer();
            row.object_count = image.value("object_count").as_integer();
            row.num_dependent_backups = image.value("num_dependent_backups").as_integer();
        }
        for row in self.volumes.values_mut() {
            row.status = of(Table::Volumes, &row.id).map_or(row.status.take(), |image| text(image, "status"));
        }
        for row in self.snapshots.values_mut() {
            row.status = of(Table::Snapshots, &row.id).map_or(row.status.take(), |image| text(image, "status"));
        }
        for row in self.quotas.values_mut() {
            let in_use = of(Table::QuotaUsages, &row.id).and_then(|image| image.value("in_use").as_integer());
            row.in_use = in_use.unwrap_or(row.in_use);
        }
    }

    /// A backup as it is now; `None` where it is gone.
    pub fn backup(&self, id: &str) -> Option<&Backup> {
        self.backups.get(key(id).as_ref())
    }

    pub fn volume(&self, id: &str) -> Option<&Volume> {
        self.volumes.get(key(id).as_ref())
    }

    pub fn snapshot(&self, id: &str) -> Option<&Snapshot> {
        self.snapshots.get(key(id).as_ref())
    }

    /// A row as it is now; `None` where it is gone.
    pub fn image(&self, table: Table, id: &str, columns: ColumnSet) -> Option<Image> {
        match table {
            Table::Backups => self.backup(id).map(|row| row.image(columns)),
            Table::Volumes => self.volume(id).map(|row| row.image(columns)),
            Table::Snapshots => self.snapshot(id).map(Snapshot::image),
            Table::BackupMetadata => self.metadata.get(id).map(BackupMetadata::image),
            Table::QuotaUsages => self.quotas.get(id).map(QuotaUsage::image),
            Table::Reservations => self.reservations.get(id).map(Reservation::image),
        }
    }

    /// Why a row of an undo cannot be changed. A repair finds that out when it decides again.
    pub fn unchangeable(&self, unit: &Unit) -> Option<String> {
        let of = |image: &Image| match image.table {
            Table::Backups => self.backup(&image.id).and_then(|row| row.unchangeable.clone()),
            Table::Volumes => self.volume(&image.id).and_then(|row| row.unchangeable.clone()),
            Table::Snapshots => self.snapshot(&image.id).and_then(|row| row.unchangeable.clone()),
            Table::BackupMetadata | Table::QuotaUsages | Table::Reservations => None,
        };
        unit.before.iter().find_map(of)
    }

    /// Compares the rows with the plan's images, or with what this run has written since.
    pub fn compare(&self, unit: &Unit, overlay: &Overlay, columns: ColumnSet) -> Result<Vec<Image>, Vec<Moved>> {
        let (mut now, mut moved) = (Vec::new(), Vec::new());
        for planned in &unit.before {
            let expected = overlay.get(&(planned.table, planned.id.clone())).unwrap_or(planned);
            match self.image(planned.table, &planned.id, columns) {
                None => moved.push(Moved {
                    table: planned.table,
                    id: planned.id.clone(),
                    column: "id".to_owned(),
                    planned: Value::from(planned.id.as_str()),
                    found: Value::Null,
                }),
                Some(found) => {
                    moved.extend(expected.moved(&found));
                    now.push(found);
                }
            }
        }
        if moved.is_empty() { Ok(now) } else { Err(moved) }
    }
}

/// The facts of a unit, from its rows under lock.
#[derive(Clone, Copy)]
pub struct LockedFacts<'a> {
    pub rows: &'a LockedRows,
    pub unit: &'a Unit,
    /// The census that preceded the run.
    pub census: &'a Census,
    /// What the run has written since.
    pub written: &'a Written,
}

impl LockedFacts<'_> {
    fn active_backups(&self, uses: impl Fn(&Backup) -> bool) -> Vec<Peer> {
        let active = self.rows.backups.values().filter(|backup| is_active(backup.status.as_deref()) && uses(backup));
        active.map(|backup| self.census.peer(backup.clone())).collect()
    }

    /// The quotas of the unit's project. The census counted its backups. Cinder makes a reservation before it adds or deletes a backup, and
    /// ends it afterwards, so the count still holds if the reservations are those of the census. The lock on `quota_usages` keeps Cinder
    /// from making another one. Another run of this program makes none, but changes `quota_usages`.
    pub fn quota_case(&self) -> QuotaCase {
        let LockedRows { quotas, live_reservations, totals, .. } = self.rows;
        let project = self.unit.id.as_str();
        let usages: Vec<_> = quotas.values().filter(|usage| usage.project_id == project).cloned().collect();
        let counted_with = self.census.reservations.get(project).copied().unwrap_or_default();
        let are_moved = self.census.quotas.get(project).is_none_or(|then| *then != usages);
        let wait_reason = (counted_with != *totals || are_moved)
            .then(|| "its quotas, or its reservations of them, have changed since its backups were counted; try again".to_owned());
        quota_case(project, usages, Some(live_reservations.clone()), self.census, wait_reason)
    }

    /// The unit's backup. If this run itself has written its row, as the parent of another backup, it is taken as the plan saw it: that
    /// makes it neither young nor another one than was checked, and [`LockedRows::compare`] ensures that nobody else has written it.
    pub fn backup(&self) -> Option<Backup> {
        let backup = self.rows.backup(&self.unit.id).cloned()?;
        let planned = self.unit.before.iter().find(|image| image.table == Table::Backups && image.id == self.unit.id);
        let planned = planned.filter(|image| !self.unit.counter && self.written.rows.contains_key(&(image.table, image.id.clone())));
        Some(match planned {
            None => backup,
            Some(planned) => Backup {
                updated_at: planned.value("updated_at").as_text().map(str::to_owned),
                num_dependent_backups: planned.value("num_dependent_backups").as_integer(),
                ..backup
            },
        })
    }
}

impl ActiveBackups for LockedFacts<'_> {
    fn of_volume(&self, id: &str) -> Vec<Peer> {
        self.active_backups(|backup| volumes_of(backup).any(|volume| same(volume, id)))
    }

    fn of_snapshot(&self, id: &str) -> Vec<Peer> {
        self.active_backups(|backup| backup.snapshot_id.as_deref().is_some_and(|snapshot| same(snapshot, id)))
    }

    fn restoring(&self) -> Vec<Peer> {
        self.active_backups(|backup| backup.status.as_deref() == Some(RESTORING))
    }
}

impl Facts for LockedFacts<'_> {
    fn census(&self) -> &Census {
        self.census
    }

    fn active(&self) -> &dyn ActiveBackups {
        self
    }

    fn volume(&self, id: &str) -> Option<&Volume> {
        self.rows.volume(id)
    }

    fn snapshot(&self, id: &str) -> Option<&Snapshot> {
        self.rows.snapshot(id)
    }

    fn parent(&self, id: &str) -> Option<&Backup> {
        self.rows.backup(id)
    }

    fn ancestors(&self, backup: &Backup) -> Vec<Arc<Backup>> {
        chain(backup, |id| self.rows.backup(id)).into_iter().cloned().map(Arc::new).collect()
    }

    fn attachments(&self, volume: &str) -> Vec<Attachment> {
        self.rows.attachments.iter().filter(|attachment| same(&attachment.volume_id, volume)).cloned().collect()
    }

    fn children(&self, parent: &str) -> Children {
        self.written.children(self.census, parent)
    }

    fn is_repaired_before(&self, _: &Peer) -> bool {
        false
    }

    fn deletion(&self, _: &Backup) -> Deletion {
        let LockedRows { metadata, quotas, live_reservations, .. } = self.rows;
        Deletion {
            metadata: metadata.values().cloned().collect(),
            quotas: quotas.values().cloned().collect(),
            open_reservations: live_reservations.len(),
            ..Deletion::default()
        }
    }

    fn row_conflicts(&self, _: &BackupCase) -> Vec<Evidence> {
        decide::conflicts_in(&self.unit.evidence)
    }

    fn suspects(&self, _: &str) -> Vec<Backup> {
        Vec::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
