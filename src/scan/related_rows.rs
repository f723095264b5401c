//! The rows around backups: what they hold, who else needs it, and what explains it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::census::Census;
use super::reader::Reader;
use crate::db::DbError;
use crate::domain::decide::{self, BackupCase, Peer};
use crate::domain::id::{key, same};
use crate::domain::status::{BACKING_UP, CREATING, DELETING, NO_VOLUME, RESTORING, RESTORING_BACKUP};
use crate::domain::{Attachment, Backup, ColumnSet, Image, Snapshot, Volume};

/// Backups by the keys of what they have to do with.
pub(super) fn by_key(backups: impl Iterator<Item = (Option<String>, Backup)>) -> HashMap<String, Vec<Backup>> {
    let mut found: HashMap<String, Vec<Backup>> = HashMap::new();
    for (id, backup) in backups {
        found.entry(key(&id.unwrap_or_default()).into_owned()).or_default().push(backup);
    }
    found
}

/// The rows around a portion of backups, by the [`key`]s of their ids.
pub(super) struct RelatedRows {
    volumes: HashMap<String, Volume>,
    /// The snapshots that they are made of.
    pub snapshots: HashMap<String, Snapshot>,
    /// Their parents.
    pub parents: HashMap<String, Backup>,
    attachments: HashMap<String, Vec<Attachment>>,
    /// Backups, whatever their status, of volumes that somebody else may have marked since a backup took them; likewise those
    /// restored to such volumes, and those of such snapshots.
    of_volumes: HashMap<String, Vec<Backup>>,
    restored: HashMap<String, Vec<Backup>>,
    of_snapshots: HashMap<String, Vec<Backup>>,
}

impl RelatedRows {
    pub fn read(reader: &mut Reader<'_>, backups: &[&Backup]) -> Result<Self, DbError> {
        let ids = |of: &dyn Fn(&Backup) -> Vec<Option<String>>| -> Vec<String> {
            let set: BTreeSet<String> =
                backups.iter().flat_map(|backup| of(backup)).flatten().filter(|id| id.as_str() != NO_VOLUME).collect();
            set.into_iter().collect()
        };
        let volume_ids = ids(&|backup| vec![backup.volume_id.clone(), backup.restore_volume_id.clone()]);
        let volumes: HashMap<String, Volume> =
            reader.volumes(&volume_ids)?.into_iter().map(|volume| (key(&volume.id).into_owned(), volume)).collect();
        // Attachments matter only for volumes that may be set free.
        let held: Vec<String> =
            volumes.values().filter(|volume| volume.status.as_deref() == Some(BACKING_UP)).map(|volume| volume.id.clone()).collect();
        let mut attachments: HashMap<String, Vec<Attachment>> = HashMap::new();
        for attachment in reader.attachments(&held)? {
            attachments.entry(key(&attachment.volume_id).into_owned()).or_default().push(attachment);
        }
        let snapshots = reader.snapshots(&ids(&|backup| vec![backup.snapshot_id.clone()]))?;
        let parents = reader.backups(&ids(&|backup| vec![backup.parent_id.clone()]))?;
        let mut related = Self {
            volumes,
            snapshots: snapshots.into_iter().map(|snapshot| (key(&snapshot.id).into_owned(), snapshot)).collect(),
            parents: parents.into_iter().map(|parent| (key(&parent.id).into_owned(), parent)).collect(),
            attachments,
            of_volumes: HashMap::new(),
            restored: HashMap::new(),
            of_snapshots: HashMap::new(),
        };
        related.read_others(reader, backups)?;
        Ok(related)
    }

    /// Reads who else may hold what the backups hold: seldom anybody, as mostly nobody has written the row since.
    fn read_others(&mut self, reader: &mut Reader<'_>, backups: &[&Backup]) -> Result<(), DbError> {
        let (mut sources, mut destinations, mut snapshots) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for backup in backups {
            let marked = |id: &Option<String>, status: &str| {
                let volume = self.volumes.get(key(id.as_deref()?).as_ref())?;
                let marked = volume.status.as_deref() == Some(status) && decide::was_taken_since(backup, volume.updated_at.as_deref());
                marked.then(|| volume.id.clone())
            };
            match backup.status.as_deref() {
                Some(CREATING) => {
                    sources.extend(marked(&backup.volume_id, BACKING_UP));
                    let snapshot = backup.snapshot_id.as_deref().and_then(|id| self.snapshots.get(key(id).as_ref()));
                    let marked = snapshot.filter(|snapshot| {
                        snapshot.status.as_deref() == Some(BACKING_UP) && decide::was_taken_since(backup, snapshot.updated_at.as_deref())
                    });
                    snapshots.extend(marked.map(|snapshot| snapshot.id.clone()));
                }
                Some(RESTORING) => destinations.extend(marked(&backup.restore_volume_id, RESTORING_BACKUP)),
                _ => {}
            }
        }
        let list = |ids: BTreeSet<String>| -> Vec<String> { ids.into_iter().collect() };
        let found = reader.backups_of_volumes(&list(sources))?;
        self.of_volumes = by_key(found.into_iter().map(|backup| (backup.volume_id.clone(), backup)));
        let found = reader.backups_restored_to(&list(destinations))?;
        self.restored = by_key(found.into_iter().map(|backup| (backup.restore_volume_id.clone(), backup)));
        let found = reader.backups_of_snapshots(&list(snapshots))?;
        self.of_snapshots = by_key(found.into_iter().map(|backup| (backup.snapshot_id.clone(), backup)));
        Ok(())
    }

    /// Who else may hold what a backup holds.
    pub fn others(&self, backup: &Backup) -> decide::Others {
        let of = |found: &HashMap<String, Vec<Backup>>, id: &Option<String>| {
            id.as_deref().and_then(|id| found.get(key(id).as_ref())).cloned().unwrap_or_default()
        };
        match backup.status.as_deref() {
            Some(CREATING) => decide::Others {
                of_volume: of(&self.of_volumes, &backup.volume_id),
                of_snapshot: of(&self.of_snapshots, &backup.snapshot_id),
                ..decide::Others::default()
            },
            Some(RESTORING) => {
                decide::Others { restored_there: of(&self.restored, &backup.restore_volume_id), ..decide::Others::default() }
            }
            _ => decide::Others::default(),
        }
    }

    pub fn volume(&self, id: Option<&str>) -> Option<Volume> {
        id.and_then(|id| self.volumes.get(key(id).as_ref())).cloned()
    }

    pub fn attachments(&self, volume: Option<&str>) -> Vec<Attachment> {
        let mut found = volume.and_then(|id| self.attachments.get(key(id).as_ref())).cloned().unwrap_or_default();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }
}

/// The other active backups that may need a row which `backup` needs.
pub fn peers<'c>(census: &'c Census, backup: &Backup) -> impl Iterator<Item = &'c Backup> {
    let by_volume = [&backup.volume_id, &backup.restore_volume_id].into_iter().flatten().flat_map(|id| census.of_volume(id));
    let by_snapshot = backup.snapshot_id.iter().flat_map(|id| census.of_snapshot(id));
    let others: BTreeMap<&String, &Backup> =
        by_volume.chain(by_snapshot).filter(|peer| peer.id != backup.id).map(|peer| (&peer.id, peer)).collect();
    others.into_values()
}

/// The active backups that could be the reason for a volume's status.
pub fn explainers<'c>(census: &'c Census, volume: &Volume, columns: ColumnSet) -> impl Iterator<Item = &'c Backup> {
    let status = volume.status.as_deref();
    let named = census.of_volume(&volume.id);
    let is_this = |id: &Option<String>| id.as_deref().is_some_and(|id| same(id, &volume.id));
    let mut found: Vec<&Backup> = match status {
        // A backup that is deleted while it is being written keeps its volume until the writer notices. From Mitaka to
        // Ocata the backup of a snapshot, too, set the volume to backing-up, and not the snapshot.
        Some(BACKING_UP) => named
            .filter(|backup| {
                is_this(&backup.volume_id)
                    && census.holds_volume(backup)
                    && matches!(backup.status.as_deref(), Some(CREATING | DELETING) | None)
            })
            .collect(),
        // Before Mitaka it is not on record where a backup is restored to: any restore may be the one.
        Some(RESTORING_BACKUP) if columns < ColumnSet::Mitaka => census.restoring.iter().filter_map(|id| census.kept.get(id)).collect(),
        Some(RESTORING_BACKUP) => {
            named.filter(|backup| backup.status.as_deref() == Some(RESTORING) && is_this(&backup.restore_volume_id)).collect()
        }
        _ => Vec::new(),
    };
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found.into_iter()
}

/// The active backups that could be the reason for a snapshot's status.
pub fn snapshot_explainers<'c>(census: &'c Census, snapshot_id: &str) -> impl Iterator<Item = &'c Backup> {
    census.of_snapshot(snapshot_id).filter(|backup| matches!(backup.status.as_deref(), Some(CREATING | DELETING) | None))
}

/// The live children of a backup's parent, without the backup itself.
pub fn siblings(census: &Census, backup: &Backup) -> decide::Children {
    let Some(parent) = &backup.parent_id else {
        return decide::Children::default();
    };
    let mut children = census.children(parent);
    children.remove(backup.status.as_deref());
    children
}

/// A backup as a peer of another.
pub fn as_peer(census: &Census, backup: &Backup, released: bool) -> Peer {
    Peer {
        id: backup.id.clone(),
        status: backup.status.clone(),
        volume_id: backup.volume_id.clone().filter(|_| census.holds_volume(backup)),
        snapshot_id: backup.snapshot_id.clone(),
        restore_volume_id: backup.restore_volume_id.clone(),
        released,
    }
}

/// The images of a backup and of those that it rests on.
pub(super) fn images_of_chain(backup: &Backup, above: &[Arc<Backup>], columns: ColumnSet) -> Vec<Image> {
    std::iter::once(backup).chain(above.iter().map(AsRef::as_ref)).map(|row| row.image(columns)).collect()
}

/// The images of all rows that a backup's unit could change.
pub fn images_of_backup(case: &BackupCase, columns: ColumnSet) -> Vec<Image> {
    let mut images = vec![case.backup.image(columns)];
    images.extend(case.parent.iter().map(|parent| parent.image(columns)));
    images.extend(case.volume.iter().chain(&case.destination).map(|volume| volume.image(columns)));
    images.extend(case.snapshot.iter().map(Snapshot::image));
    images
}
