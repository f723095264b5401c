//! The live backups of a database in the order of their chains, with their rows in portions.
//!
//! One pass over `backups` finds the order; after it, rows are read by the primary key, in one transaction or in several. So a check can
//! go through a large table without all rows in memory.

use std::collections::{BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::chain_order::{ChainOrder, Links, Member, Position};
use super::reader::Reader;
use crate::db::DbError;
use crate::domain::{Backup, Driver};

/// How many rows are read at a time. Only a chain with more backups is divided.
const PORTION: usize = 2_000;

/// The order of the backups, and how far they were read.
pub struct Catalog {
    order: ChainOrder,
    position: Position,
}

/// A backup of the catalog.
#[derive(Debug)]
pub struct CatalogEntry {
    /// Of the first backup of a chain: the chain.
    pub chain: Option<Chain>,
    /// Whether it is wanted. Otherwise it is here only because a wanted increment is based on it.
    pub is_wanted: bool,
    /// Its row.
    pub backup: Backup,
}

/// A full backup with its increments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chain {
    /// The id of the full backup.
    pub id: String,
    /// How many backups it has in the catalog.
    pub backups: usize,
    /// The sum of their [`expected_bytes`].
    pub bytes: u64,
    /// Their drivers; a class that this program does not know as `backups.service` names it.
    pub drivers: BTreeSet<String>,
}

/// The size of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CatalogTotals {
    /// The number of chains.
    pub chains: usize,
    /// The number of backups.
    pub backups: usize,
    /// The sum of their [`expected_bytes`].
    pub bytes: u64,
}

impl Chain {
    fn add(&mut self, backup: &Backup) {
        self.bytes = self.bytes.saturating_add(expected_bytes(backup));
        let driver = |service: &String| Driver::of_service(service).map_or_else(|| service.clone(), |driver| driver.to_string());
        self.drivers.extend(backup.service.as_ref().map(driver));
    }
}

impl Catalog {
    /// Reads the order in one pass. `wants` sees each live backup with the columns of [`Reader::live_backups`] only.
    pub fn read(reader: &mut Reader<'_>, wants: &mut dyn FnMut(&Backup) -> bool) -> Result<Self, DbError> {
        let mut links = Links::default();
        reader.live_backups(&mut |backup| links.add(&backup.id, backup.parent_id.as_deref(), wants(&backup)))?;
        Ok(Self { order: links.into_order(), position: Position::default() })
    }

    /// How many chains and backups it has.
    pub fn counts(&self) -> (usize, usize) {
        self.order.counts()
    }

    /// How many of its backups are wanted.
    pub fn wanted(&self) -> usize {
        self.order.wanted()
    }

    /// Leaves out the chains that are not kept, by the ids of their first backups.
    pub fn retain(&mut self, keep: &dyn Fn(&str) -> bool) {
        self.order.retain(keep);
    }

    /// Reads the next rows, whole chains if possible; none at the end. Backups that were deleted since the order was read are left out.
    pub fn next_portion(&mut self, reader: &mut Reader<'_>) -> Result<Vec<CatalogEntry>, DbError> {
        loop {
            let mut position = self.position;
            let members = self.order.next_portion(&mut position, PORTION);
            let ids: Vec<String> = members.iter().map(|member| member.id.clone()).collect();
            let mut rows: HashMap<String, Backup> = reader.backups(&ids)?.into_iter().map(|backup| (backup.id.clone(), backup)).collect();
            let mut entries = Vec::with_capacity(ids.len());
            for Member { id, is_wanted, chain } in members {
                let chain = chain.map(|(place, backups)| self.chain(reader, place, backups, &rows)).transpose()?;
                entries.extend(rows.remove(&id).map(|backup| CatalogEntry { chain, is_wanted, backup }));
            }
            // After an error the same rows can be read once more.
            self.position = position;
            if ids.is_empty() || !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    /// A chain, whose rows are in memory unless it has more than a portion.
    fn chain(&self, reader: &mut Reader<'_>, place: u32, backups: usize, rows: &HashMap<String, Backup>) -> Result<Chain, DbError> {
        let mut ids = self.order.ids_of_chain(place).peekable();
        let mut chain = Chain { id: ids.peek().cloned().unwrap_or_default(), backups, bytes: 0, drivers: BTreeSet::new() };
        if backups <= PORTION {
            ids.filter_map(|id| rows.get(&id)).for_each(|backup| chain.add(backup));
            return Ok(chain);
        }
        while ids.peek().is_some() {
            let portion: Vec<String> = ids.by_ref().take(PORTION).collect();
            reader.backups(&portion)?.iter().for_each(|backup| chain.add(backup));
        }
        Ok(chain)
    }
}

/// How many bytes a deep check of a backup is expected to read: its objects at their default size, and at most the size of the volume.
pub fn expected_bytes(backup: &Backup) -> u64 {
    let volume = u64::try_from(backup.size.unwrap_or(0)).unwrap_or(0).saturating_mul(1 << 30);
    let object = backup.service.as_deref().and_then(Driver::of_service).and_then(Driver::object_bytes);
    let objects = backup.object_count.and_then(|count| u64::try_from(count).ok()).filter(|count| *count > 0);
    match (object, objects) {
        (Some(object), Some(objects)) => object.saturating_mul(objects).min(volume),
        _ => volume,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_expected_to_read_the_objects_and_at_most_the_volume() {
        let bytes = |service: &str, size, object_count| {
            expected_bytes(&Backup { service: Some(format!("cinder.backup.drivers.{service}")), size, object_count, ..Backup::default() })
        };
        assert_eq!(bytes("swift", Some(10), Some(3)), 3 * 52_428_800);
        assert_eq!(bytes("posix", Some(1), Some(1)), 1 << 30, "a small volume has one object");
        assert_eq!(bytes("posix", Some(10), Some(1)), 1_999_994_880);
        for unknown in [None, Some(0), Some(-1)] {
            assert_eq!(bytes("s3", Some(10), unknown), 10 << 30);
        }
        assert_eq!(bytes("ceph", Some(10), Some(5)), 10 << 30);
        assert_eq!(bytes("vendor", Some(-10), Some(5)), 0);
        assert_eq!(bytes("gcs", Some(i64::MAX), None), u64::MAX);
    }
}
