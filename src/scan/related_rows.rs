//! The rows that decisions depend on, read in batches: related rows of backups, volumes or snapshots, and the facts made from them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::active::{ActiveBackups, volumes_of};
use super::cases::Facts;
use super::census::Census;
use super::compact_ids::CompactIds;
use super::lineage;
use super::reader::Reader;
use super::references::{ReferenceColumn, References};
use crate::db::DbError;
use crate::domain::decide::{self, BackupCase, Children, Deletion, OtherBackups, Peer};
use crate::domain::id::key;
use crate::domain::status::{BACKING_UP, CREATING, RESTORING, RESTORING_BACKUP};
use crate::domain::{Attachment, Backup, Evidence, Policy, QuotaUsage, Situation, Snapshot, Volume};

/// Rows by the [`key`]s of their own ids, or of an id in them.
type ByKey<T> = HashMap<String, T>;

/// The related rows of some backups, volumes or snapshots.
#[derive(Debug, Default)]
pub struct RelatedRows {
    volumes: ByKey<Volume>,
    snapshots: ByKey<Snapshot>,
    parents: ByKey<Backup>,
    /// By the ids of the backups.
    ancestors: HashMap<String, Vec<Arc<Backup>>>,
    attachments: ByKey<Vec<Attachment>>,
    /// By the ids of the backups that may become deleted.
    deletions: HashMap<String, Deletion>,
    /// Backups, whatever their status, of volumes that another backup may have marked; likewise those that were restored to such volumes,
    /// and those of such snapshots.
    of_volumes: ByKey<Vec<Backup>>,
    restored: ByKey<Vec<Backup>>,
    of_snapshots: ByKey<Vec<Backup>>,
}

impl RelatedRows {
    /// Reads the volumes and snapshots of backups.
    pub fn marked(reader: &mut Reader<'_>, backups: &[&Backup]) -> Result<Self, DbError> {
        let volumes = reader.volumes(&ids(backups.iter().flat_map(|backup| volumes_of(backup))))?;
        let snapshots = reader.snapshots(&ids(backups.iter().filter_map(|backup| backup.snapshot_id.as_ref())))?;
        let (volumes, snapshots) = (by_own_key(volumes, |volume| &volume.id), by_own_key(snapshots, |snapshot| &snapshot.id));
        Ok(Self { volumes, snapshots, ..Self::default() })
    }

    /// Reads the related rows of backups; the ancestors only of those that `with_ancestors` selects.
    pub fn of_backups(
        reader: &mut Reader<'_>,
        backups: &[Backup],
        with_ancestors: &dyn Fn(&Backup) -> bool,
        references: &References,
    ) -> Result<Self, DbError> {
        let backups: Vec<&Backup> = backups.iter().collect();
        let mut related = Self::marked(reader, &backups)?;
        // Attachments matter only for volumes that may be set free.
        let held = related.volumes.values().filter(|volume| volume.status.as_deref() == Some(BACKING_UP)).map(|volume| &volume.id);
        let held = ids(held);
        related.read_attachments(reader, &held)?;
        let parents = reader.backups(&ids(backups.iter().filter_map(|backup| backup.parent_id.as_ref())))?;
        related.parents = by_own_key(parents, |parent| &parent.id);
        let checked: Vec<Backup> = backups.iter().filter(|backup| with_ancestors(backup)).map(|backup| (*backup).clone()).collect();
        let ancestors = lineage::ancestors(reader, &checked)?;
        related.ancestors = checked.into_iter().map(|backup| backup.id).zip(ancestors).collect();
        related.read_others(reader, references, related.marked_for_others(&backups))?;
        Ok(related)
    }

    /// Reads what only the deletion of backups depends on; the quotas of their projects only if they are to be corrected.
    pub fn read_deletions(&mut self, reader: &mut Reader<'_>, backups: &[Backup], with_quotas: bool) -> Result<(), DbError> {
        let wanted = ids(backups.iter().map(|backup| &backup.id));
        let projects = ids(backups.iter().filter_map(|backup| backup.project_id.as_ref()));
        let metadata = by_key(reader.backup_metadata(&wanted)?, |row| Some(&row.backup_id));
        let keys: ByKey<String> = reader.backup_keys(&wanted)?.into_iter().map(|(id, key_id)| (key(&id).into_owned(), key_id)).collect();
        let (mut quotas, mut reservations): (HashMap<String, Vec<QuotaUsage>>, HashMap<String, usize>) = Default::default();
        if with_quotas {
            for quota in reader.quota_usages_of(&projects)? {
                quotas.entry(quota.project_id.clone()).or_default().push(quota);
            }
            for reservation in reader.live_reservations(&projects)? {
                *reservations.entry(reservation.project_id).or_default() += 1;
            }
        }
        for backup in backups {
            let (id, project) = (key(&backup.id), backup.project_id.as_deref().unwrap_or_default());
            let deletion = Deletion {
                metadata: metadata.get(id.as_ref()).cloned().unwrap_or_default(),
                quotas: quotas.get(project).cloned().unwrap_or_default(),
                open_reservations: reservations.get(project).copied().unwrap_or_default(),
                key: keys.get(id.as_ref()).cloned(),
                ..Deletion::default()
            };
            self.deletions.insert(backup.id.clone(), deletion);
        }
        Ok(())
    }

    /// Reads the related rows of volumes that may be left over.
    pub fn of_volumes(reader: &mut Reader<'_>, volumes: &[Volume], references: &References) -> Result<Self, DbError> {
        let marked = |status: &str| ids(volumes.iter().filter(|volume| volume.status.as_deref() == Some(status)).map(|volume| &volume.id));
        let mut related = Self::default();
        related.read_others(reader, references, [marked(BACKING_UP), marked(RESTORING_BACKUP), Vec::new()])?;
        related.read_attachments(reader, &ids(volumes.iter().map(|volume| &volume.id)))?;
        Ok(related)
    }

    /// Reads the related rows of snapshots that may be left over.
    pub fn of_snapshots(reader: &mut Reader<'_>, snapshots: Vec<String>, references: &References) -> Result<Self, DbError> {
        let mut related = Self::default();
        related.read_others(reader, references, [Vec::new(), Vec::new(), snapshots])?;
        Ok(related)
    }

    fn read_attachments(&mut self, reader: &mut Reader<'_>, volumes: &[String]) -> Result<(), DbError> {
        self.attachments = by_key(reader.attachments(volumes)?, |attachment| Some(&attachment.volume_id));
        Ok(())
    }

    /// Wants the other backups that may use the rows of these backups.
    pub fn want_others(&self, backups: &[&Backup], references: &mut References) {
        let columns = [ReferenceColumn::Volume, ReferenceColumn::RestoreVolume, ReferenceColumn::Snapshot];
        for (column, ids) in columns.into_iter().zip(self.marked_for_others(backups)) {
            ids.iter().for_each(|id| references.want(column, id));
        }
    }

    /// The volumes, destinations and snapshots of these backups that may be marked for another backup. Mostly there are none, because nobody
    /// has written the rows since.
    fn marked_for_others(&self, backups: &[&Backup]) -> [Vec<String>; 3] {
        let (mut sources, mut destinations, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
        for backup in backups {
            let marked = |status: &Option<String>, mark: &str, at: &Option<String>| {
                status.as_deref() == Some(mark) && decide::may_be_marked_for_another(backup, at.as_deref())
            };
            let volume = |id: &Option<String>, mark: &str| {
                let volume = self.volumes.get(key(id.as_deref()?).as_ref())?;
                marked(&volume.status, mark, &volume.updated_at).then(|| volume.id.clone())
            };
            match backup.status.as_deref() {
                Some(CREATING) => {
                    sources.extend(volume(&backup.volume_id, BACKING_UP));
                    let snapshot = backup.snapshot_id.as_deref().and_then(|id| self.snapshots.get(key(id).as_ref()));
                    let snapshot = snapshot.filter(|snapshot| marked(&snapshot.status, BACKING_UP, &snapshot.updated_at));
                    snapshots.extend(snapshot.map(|snapshot| snapshot.id.clone()));
                }
                Some(RESTORING) => destinations.extend(volume(&backup.restore_volume_id, RESTORING_BACKUP)),
                _ => {}
            }
        }
        [ids(&sources), ids(&destinations), ids(&snapshots)]
    }

    /// Reads the backups that refer to these volumes, destinations and snapshots.
    fn read_others(
        &mut self,
        reader: &mut Reader<'_>,
        references: &References,
        [sources, destinations, snapshots]: [Vec<String>; 3],
    ) -> Result<(), DbError> {
        let mut read = |column, ids: &[String]| reader.backups(&references.backups_with(column, ids));
        self.of_volumes = by_key(read(ReferenceColumn::Volume, &sources)?, |backup| backup.volume_id.as_deref());
        self.restored = by_key(read(ReferenceColumn::RestoreVolume, &destinations)?, |backup| backup.restore_volume_id.as_deref());
        self.of_snapshots = by_key(read(ReferenceColumn::Snapshot, &snapshots)?, |backup| backup.snapshot_id.as_deref());
        Ok(())
    }

    /// The other backups that may use the rows of a backup.
    fn others(&self, backup: &Backup) -> OtherBackups {
        let of = |found: &ByKey<Vec<Backup>>, id: &Option<String>| {
            id.as_deref().and_then(|id| found.get(key(id).as_ref())).cloned().unwrap_or_default()
        };
        match backup.status.as_deref() {
            Some(CREATING) => OtherBackups {
                of_volume: of(&self.of_volumes, &backup.volume_id),
                of_snapshot: of(&self.of_snapshots, &backup.snapshot_id),
                ..OtherBackups::default()
            },
            Some(RESTORING) => OtherBackups { restored_there: of(&self.restored, &backup.restore_volume_id), ..OtherBackups::default() },
            _ => OtherBackups::default(),
        }
    }
}

/// The selected backups that a plan of this scan repairs, as far as they are decided.
#[derive(Debug, Default)]
pub struct Repaired {
    /// The numbers of their ids.
    pub ids: RefCell<HashSet<u128>>,
    /// Whether some decision holds only if one of them is repaired first.
    pub counted_on: Cell<bool>,
}

impl Repaired {
    /// Whether a plan repairs this backup.
    pub fn contains(&self, id: &str) -> bool {
        self.ids.borrow().contains(&CompactIds::number(id))
    }
}

/// The facts of a scan.
pub struct ScanFacts<'a> {
    pub census: &'a Census,
    pub related: &'a RelatedRows,
    pub repaired: &'a Repaired,
    pub situation: &'a Situation,
    pub policy: &'a Policy,
}

impl Facts for ScanFacts<'_> {
    fn census(&self) -> &Census {
        self.census
    }

    fn active(&self) -> &dyn ActiveBackups {
        self.census
    }

    fn volume(&self, id: &str) -> Option<&Volume> {
        self.related.volumes.get(key(id).as_ref())
    }

    fn snapshot(&self, id: &str) -> Option<&Snapshot> {
        self.related.snapshots.get(key(id).as_ref())
    }

    fn parent(&self, id: &str) -> Option<&Backup> {
        self.related.parents.get(key(id).as_ref())
    }

    fn ancestors(&self, backup: &Backup) -> Vec<Arc<Backup>> {
        self.related.ancestors.get(&backup.id).cloned().unwrap_or_default()
    }

    fn attachments(&self, volume: &str) -> Vec<Attachment> {
        self.related.attachments.get(key(volume).as_ref()).cloned().unwrap_or_default()
    }

    fn children(&self, parent: &str) -> Children {
        self.census.children(parent)
    }

    fn deletion(&self, backup: &Backup) -> Deletion {
        self.related.deletions.get(&backup.id).cloned().unwrap_or_default()
    }

    // Backups are decided in the order of their ids, which is that of the units; volumes and snapshots after them.
    fn is_repaired_before(&self, peer: &Peer) -> bool {
        let repaired = self.repaired.contains(&peer.id);
        self.repaired.counted_on.set(self.repaired.counted_on.get() || repaired);
        repaired
    }

    fn row_conflicts(&self, case: &BackupCase) -> Vec<Evidence> {
        let rows = (case.volume.as_ref(), case.destination.as_ref(), case.snapshot.as_ref());
        decide::row_conflicts(&case.backup, rows, &self.related.others(&case.backup), self.situation, self.policy)
    }

    fn suspects(&self, id: &str) -> Vec<Backup> {
        let related = self.related;
        let found = [&related.of_volumes, &related.restored, &related.of_snapshots].map(|rows| rows.get(key(id).as_ref()));
        found.into_iter().flatten().flatten().cloned().collect()
    }
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    ids.into_iter().collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

fn by_own_key<T>(rows: Vec<T>, id: fn(&T) -> &String) -> ByKey<T> {
    rows.into_iter().map(|row| (key(id(&row)).into_owned(), row)).collect()
}

fn by_key<T>(rows: Vec<T>, id: fn(&T) -> Option<&str>) -> ByKey<Vec<T>> {
    let mut found: ByKey<Vec<T>> = HashMap::new();
    for row in rows {
        let id = key(id(&row).unwrap_or_default()).into_owned();
        found.entry(id).or_default().push(row);
    }
    found
}
