//! The live backups that refer to some volumes, snapshots and parents.
//!
//! No index leads from a volume, a snapshot or a parent to its backups. So one pass over `backups` finds the backups of all of them, and
//! keeps 16 bytes for each backup that is found.

use std::collections::{HashMap, HashSet};

use super::compact_ids::CompactIds;
use super::reader::Reader;
use crate::db::DbError;
use crate::domain::Backup;
use crate::domain::id::key;

/// A column of `backups` that refers to another row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReferenceColumn {
    /// `volume_id`, the volume that the backup is made of.
    Volume,
    /// `restore_volume_id`, the volume that the backup was last restored to; recorded since Mitaka.
    RestoreVolume,
    /// `snapshot_id`, the snapshot that the backup is made of; recorded since Mitaka.
    Snapshot,
    /// `parent_id`, the parent of an increment; recorded since Liberty.
    Parent,
}

/// The live backups, whatever their status, that refer to the wanted rows.
#[derive(Debug, Default)]
pub struct References {
    ids: CompactIds,
    wanted: HashSet<(ReferenceColumn, u128)>,
    found: HashMap<(ReferenceColumn, u128), Vec<u128>>,
}

impl References {
    /// Makes the pass look for backups that refer to this row by this column.
    pub fn want(&mut self, column: ReferenceColumn, id: &str) {
        self.wanted.insert((column, number(id)));
    }

    /// Finds the backups in one pass over `backups`. Reads nothing if no row is wanted.
    pub fn read(mut self, reader: &mut Reader<'_>) -> Result<Self, DbError> {
        if !self.wanted.is_empty() {
            reader.references(&mut |backup| self.note(&backup))?;
        }
        Ok(self)
    }

    fn note(&mut self, backup: &Backup) {
        let columns = [
            (ReferenceColumn::Volume, &backup.volume_id),
            (ReferenceColumn::RestoreVolume, &backup.restore_volume_id),
            (ReferenceColumn::Snapshot, &backup.snapshot_id),
            (ReferenceColumn::Parent, &backup.parent_id),
        ];
        for (column, id) in columns {
            let Some(place) = id.as_deref().map(|id| (column, number(id))).filter(|place| self.wanted.contains(place)) else { continue };
            let id = self.ids.add(&backup.id);
            self.found.entry(place).or_default().push(id);
        }
    }

    /// The ids of the backups that refer to these rows by this column, sorted.
    pub fn backups_with(&self, column: ReferenceColumn, ids: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
        let found = ids.into_iter().filter_map(|id| self.found.get(&(column, number(id.as_ref())))).flatten();
        let mut found: Vec<String> = found.map(|number| self.ids.id(*number)).collect();
        found.sort();
        found.dedup();
        found
    }
}

fn number(id: &str) -> u128 {
    CompactIds::number(&key(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_are_found_by_each_column_whatever_the_spelling_of_the_ids() {
        let mut references = References::default();
        references.want(ReferenceColumn::Volume, "6D1F0C92-84BE-4C35-9A77-2F50E8B1D643");
        references.want(ReferenceColumn::Parent, "odd parent");
        let row = |id: &str| Backup { id: id.into(), ..Backup::default() };
        let volume = Some("6d1f0c92-84be-4c35-9a77-2f50e8b1d643".to_owned());
        references.note(&Backup { volume_id: volume.clone(), ..row("b") });
        references.note(&Backup { volume_id: volume.clone(), parent_id: Some("odd parent".into()), ..row("a") });
        references.note(&Backup { restore_volume_id: volume.clone(), parent_id: Some("another".into()), ..row("c") });
        assert_eq!(references.backups_with(ReferenceColumn::Volume, &volume), ["a", "b"]);
        assert_eq!(references.backups_with(ReferenceColumn::Parent, &["odd parent".to_owned(), "another".to_owned()]), ["a"]);
        assert!(references.backups_with(ReferenceColumn::RestoreVolume, &volume).is_empty());
    }
}
