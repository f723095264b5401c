//! The live backups that refer to some volumes, snapshots and parents.
//!
//! No index leads from a volume, a snapshot or a parent to its backups. So one pass over `backups` finds the backups of all of them, and
//! keeps 20 bytes for each backup that is found.

use std::collections::HashMap;

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
    /// Each wanted row with a place.
    wanted: HashMap<(ReferenceColumn, u128), u32>,
    /// The places of wanted rows with backups that refer to them, as bytes of their numbers, which need no alignment. In order once all are
    /// found.
    found: Vec<(u32, [u8; 16])>,
}

impl References {
    /// Makes the pass look for backups that refer to this row by this column.
    pub fn want(&mut self, column: ReferenceColumn, id: &str) {
        let place = u32::try_from(self.wanted.len()).unwrap_or(u32::MAX);
        self.wanted.entry((column, number(id))).or_insert(place);
    }

    /// Finds the backups in one pass over `backups`. Reads nothing if no row is wanted.
    pub fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), DbError> {
        if !self.wanted.is_empty() {
            reader.references(&mut |backup| self.note(&backup))?;
        }
        self.found.sort_unstable();
        Ok(())
    }

    fn note(&mut self, backup: &Backup) {
        let columns = [
            (ReferenceColumn::Volume, &backup.volume_id),
            (ReferenceColumn::RestoreVolume, &backup.restore_volume_id),
            (ReferenceColumn::Snapshot, &backup.snapshot_id),
            (ReferenceColumn::Parent, &backup.parent_id),
        ];
        for (column, id) in columns {
            let Some(place) = id.as_deref().and_then(|id| self.wanted.get(&(column, number(id)))) else { continue };
            self.found.push((*place, self.ids.add(&backup.id).to_be_bytes()));
        }
    }

    /// The ids of the backups that refer to these rows by this column, sorted.
    pub fn backups_with(&self, column: ReferenceColumn, ids: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
        let places = ids.into_iter().filter_map(|id| self.wanted.get(&(column, number(id.as_ref()))).copied());
        let referring = |place: u32| {
            let begin = self.found.partition_point(|(wanted, _)| *wanted < place);
            self.found.get(begin..).unwrap_or_default().iter().take_while(move |(wanted, _)| *wanted == place)
        };
        let mut found: Vec<String> = places.flat_map(referring).map(|(_, backup)| self.ids.id(u128::from_be_bytes(*backup))).collect();
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
        references.found.sort_unstable();
        assert_eq!(references.backups_with(ReferenceColumn::Volume, &volume), ["a", "b"]);
        assert_eq!(references.backups_with(ReferenceColumn::Parent, &["odd parent".to_owned(), "another".to_owned()]), ["a"]);
        assert!(references.backups_with(ReferenceColumn::RestoreVolume, &volume).is_empty());
    }
}
