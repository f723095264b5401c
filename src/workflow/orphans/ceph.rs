//! Orphans in Ceph: images, their snapshots and metadata objects in a pool of backups, and snapshots of backups in a pool of volumes.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;

use super::{BackEnd, PORTION, Result, StorageResult, Stores, Walk, WalkError, driver_of, start};
use crate::domain::{Backup, Driver, StorageRow};
use crate::spool::Spool;
use crate::storage::ceph::{ExtentQuery, Pool};
use crate::storage::{StorageError, StorageErrorKind};
use crate::verify::StorageAccess;
use crate::verify::ceph::{backup_of_meta, backup_of_snapshot, may_need_image, meta, owner_of_image, volume_of_image, volumes_of};
use crate::verify::orphans::{NameRange, ObjectTotals, Orphan, judge};

/// A part of a pool.
enum PoolPart {
    /// An image, with the snapshots of backups that it has.
    Image { name: String, snapshots: Vec<BackupSnapshot> },
    /// A metadata object.
    Meta { name: String },
}

struct BackupSnapshot {
    name: String,
    backup: String,
    created: Option<Timestamp>,
}

/// The names of a pool that are listed.
struct PoolNames {
    pool: String,
    /// Whether it is a pool of volumes, where Cinder's driver leaves the snapshots that it made for backups.
    is_source: bool,
    range: NameRange,
}

impl PoolNames {
    fn keeps_image(&self, name: &str) -> bool {
        let is_known = if self.is_source { volume_of_image(name).is_some() } else { owner_of_image(name).is_some() };
        is_known && self.range.has(name)
    }

    fn list(&self, stores: &Stores, send: &mut dyn FnMut(PoolPart) -> StorageResult<()>) -> StorageResult<()> {
        let pool = stores.cluster()?.pool(&self.pool);
        for name in &names(&pool, true, &|name| self.keeps_image(name))? {
            let name = name.map_err(unreadable)?;
            // It may have been removed meanwhile.
            let Some(snapshots) = StorageError::none_if_absent(pool.snapshots(&name))? else { continue };
            let snapshots = snapshots.into_iter().filter_map(|snapshot| {
                let backup = backup_of_snapshot(&snapshot.name).filter(|backup| backup_of_meta(&meta(backup)).is_some())?.to_owned();
                Some(BackupSnapshot { name: snapshot.name, backup, created: snapshot.created })
            });
            send(PoolPart::Image { name, snapshots: snapshots.collect() })?;
        }
        if self.is_source {
            return Ok(());
        }
        for name in &names(&pool, false, &|name| backup_of_meta(name).is_some() && self.range.has(name))? {
            send(PoolPart::Meta { name: name.map_err(unreadable)? })?;
        }
        Ok(())
    }
}

pub(super) fn unreadable(error: io::Error) -> StorageError {
    StorageError::protocol(error.to_string())
}

/// The names of images, or of RADOS objects, that `keep` accepts. Lists once more after a transient error.
fn names(pool: &Pool<'_>, are_images: bool, keep: &dyn Fn(&str) -> bool) -> StorageResult<Spool<String>> {
    let once = || {
        let (mut names, mut full) = (Spool::default(), Ok(()));
        let mut each = |name: &str| {
            if full.is_ok() && keep(name) {
                full = names.push(&name.to_owned());
            }
        };
        if are_images {
            pool.images(&mut each)?
        } else {
            pool.objects(&mut each)?
        }
        full.map_err(unreadable).map(|()| names)
    };
    match once() {
        Err(error) if error.is_transient() => once(),
        names => names,
    }
}

/// An image without a snapshot of a live backup, whose own backup is not live.
struct ImageCandidate {
    name: String,
    volume: String,
    row: Option<StorageRow>,
}

/// A pool that is walked.
struct WalkedPool<'p> {
    pool: Pool<'p>,
    location: String,
    is_source: bool,
}

/// An image, a snapshot or a metadata object without a live backup of its own.
struct Leftover<'a> {
    name: String,
    /// The backup in the name; empty for an image that backups share.
    backup: String,
    volume: Option<String>,
    row: Option<&'a StorageRow>,
    is_finished: bool,
    totals: ObjectTotals,
}

impl Walk<'_, '_> {
    /// Walks one pool.
    pub(super) fn pool(&mut self, back_end: &BackEnd, is_source: bool) -> std::result::Result<(), WalkError> {
        let stores = Arc::clone(&self.stores);
        let (pool, range) = (back_end.container.clone().unwrap_or_default(), NameRange::of(self.shard, Driver::Ceph));
        let location = stores.location(Driver::Ceph, &Backup { container: Some(pool.clone()), ..Backup::default() })?;
        let walked = WalkedPool { pool: stores.cluster()?.pool(&pool), location, is_source };
        let (names, lister) = (PoolNames { pool, is_source, range }, Arc::clone(&stores));
        let parts = start(move |send| names.list(&lister, send))?;
        let (mut portion, mut candidates) = (Vec::new(), Vec::new());
        while let Some(part) = self.next_part(&parts) {
            portion.push(part?);
            if portion.len() >= PORTION {
                self.compare_parts(&walked, std::mem::take(&mut portion), &mut candidates)?;
            }
        }
        if self.interrupted.is_some() {
            return Ok(());
        }
        self.compare_parts(&walked, portion, &mut candidates)?;
        self.images(&walked, candidates)
    }

    /// Compares parts of a pool with the rows, which are read after the parts were listed.
    fn compare_parts(
        &mut self,
        walked: &WalkedPool<'_>,
        parts: Vec<PoolPart>,
        candidates: &mut Vec<ImageCandidate>,
    ) -> std::result::Result<(), WalkError> {
        let mut ids = BTreeSet::new();
        for part in &parts {
            match part {
                PoolPart::Meta { name } => ids.extend(backup_of_meta(name).map(str::to_owned)),
                PoolPart::Image { name, snapshots } => {
                    ids.extend(owner_of_image(name).and_then(|(_, backup)| backup).map(str::to_owned));
                    ids.extend(snapshots.iter().map(|snapshot| snapshot.backup.clone()));
                }
            }
        }
        let rows = self.rows(&ids.into_iter().collect::<Vec<_>>())?;
        let is_live = |id: &str| rows.get(id).is_some_and(|row| !row.deleted);
        for id in rows.keys().filter(|id| is_live(id)) {
            // A snapshot of the volume is not the backup.
            if !walked.is_source {
                self.expected.mark(id);
            }
            self.familiar.insert((Driver::Ceph, walked.location.clone()));
        }
        for part in parts {
            match part {
                PoolPart::Meta { name } => {
                    let backup = backup_of_meta(&name).unwrap_or_default().to_owned();
                    if !is_live(&backup)
                        && let Some(stat) = walked.pool.object(&name)?
                    {
                        let (row, totals) = (rows.get(&backup), ObjectTotals::one(stat.modified, stat.size));
                        self.add_leftover(walked, Leftover { name, backup, volume: None, row, is_finished: true, totals })?;
                    }
                }
                PoolPart::Image { name, snapshots } => {
                    let volume =
                        owner_of_image(&name).map_or_else(|| volume_of_image(&name), |(volume, _)| Some(volume)).map(str::to_owned);
                    let is_used = snapshots.iter().any(|snapshot| is_live(&snapshot.backup));
                    if let Some((volume, own)) = owner_of_image(&name).filter(|(_, own)| !is_used && !own.is_some_and(is_live)) {
                        let row = own.and_then(|own| rows.get(own).cloned());
                        candidates.push(ImageCandidate { name: name.clone(), volume: volume.to_owned(), row });
                    }
                    self.snapshots(walked, (&name, volume), snapshots, &rows)?;
                }
            }
        }
        Ok(())
    }

    /// Adds the snapshots of an image that belong to no live backup.
    fn snapshots(
        &mut self,
        walked: &WalkedPool<'_>,
        (image, volume): (&str, Option<String>),
        snapshots: Vec<BackupSnapshot>,
        rows: &HashMap<String, StorageRow>,
    ) -> std::result::Result<(), WalkError> {
        for BackupSnapshot { name, backup, created } in snapshots {
            let row = rows.get(&backup);
            if row.is_none_or(|row| row.deleted) {
                let is_finished = is_finished(&walked.pool, image, &backup)?;
                let (name, volume, totals) = (format!("{image}@{name}"), volume.clone(), ObjectTotals::one(created, 0));
                self.add_leftover(walked, Leftover { name, backup, volume, row, is_finished, totals })?;
            }
        }
        Ok(())
    }

    /// Adds the images among the candidates that no live backup needs. Only the row of an increment says which image it is in, so all rows
    /// are read once more.
    fn images(&mut self, walked: &WalkedPool<'_>, mut candidates: Vec<ImageCandidate>) -> std::result::Result<(), WalkError> {
        if candidates.is_empty() {
            return Ok(());
        }
        candidates.sort_by(|one, other| one.volume.cmp(&other.volume));
        let mut needed = vec![false; candidates.len()];
        self.each_row(&mut |row| {
            if row.deleted || driver_of(&row) != Some(Driver::Ceph) {
                return;
            }
            for volume in volumes_of(&row).into_iter().flatten() {
                let start = candidates.partition_point(|image| image.volume < volume);
                for (image, needed) in candidates.iter().zip(&mut needed).skip(start).take_while(|(image, _)| image.volume == volume) {
                    *needed |= may_need_image(&row, &volume, &image.name);
                }
            }
        })?;
        for (ImageCandidate { name, volume, row }, _) in candidates.into_iter().zip(needed).filter(|(_, needed)| !needed) {
            if self.is_stopped() {
                return Ok(());
            }
            let backup = owner_of_image(&name).and_then(|(_, own)| own).unwrap_or_default().to_owned();
            if let Some((totals, is_finished)) = image_totals(&walked.pool, &name, &backup)? {
                let row = row.as_ref();
                self.add_leftover(walked, Leftover { name, backup, volume: Some(volume), row, is_finished, totals })?;
            }
        }
        Ok(())
    }

    fn add_leftover(&mut self, walked: &WalkedPool<'_>, leftover: Leftover<'_>) -> Result<()> {
        let Leftover { name, backup, volume, row, is_finished, totals } = leftover;
        let Some(kind) = judge(&totals, is_finished, row, self.quiet) else { return Ok(()) };
        let orphan = Orphan::new(kind, (Driver::Ceph, &walked.location), row, totals);
        self.output.add(Orphan {
            container: Some(walked.pool.name().to_owned()),
            name: Some(name),
            backup_id: Some(backup).filter(|id| !id.is_empty()),
            volume_id: volume.or(orphan.volume_id),
            ..orphan
        })
    }

    /// Whether anything of a backup is in its pool, and the location of the pool.
    pub(super) fn is_in_pool(&self, row: &StorageRow) -> StorageResult<(bool, String)> {
        let StorageRow { id, container, service_metadata, volume_id, .. } = row.clone();
        let backup = Backup { id, container, service_metadata, volume_id, ..Backup::default() };
        let location = self.stores.location(Driver::Ceph, &backup)?;
        match self.stores.precheck_ceph(&backup, &[], None) {
            Ok(listing) => Ok((listing.objects > 0, location)),
            Err(error) if error.kind == StorageErrorKind::NoContainer => Ok((false, location)),
            Err(error) => Err(error),
        }
    }
}

/// Whether a backup with a snapshot on this image is finished. An image of a volume does not show it, so its backup counts as finished.
pub(super) fn is_finished(pool: &Pool<'_>, image: &str, backup: &str) -> StorageResult<bool> {
    Ok(owner_of_image(image).is_none() || pool.object(&meta(backup))?.is_some())
}

/// The bytes and times of an image, and whether its backup is finished; `None` if it is gone, or open. An image that backups share counts
/// as finished, because no row shows that it is no longer needed.
pub(super) fn image_totals(pool: &Pool<'_>, image: &str, backup: &str) -> StorageResult<Option<(ObjectTotals, bool)>> {
    let Some(info) = pool.image(image)? else { return Ok(None) };
    if !pool.watchers(image)?.is_empty() {
        return Ok(None);
    }
    let mut bytes = 0_u64;
    let query = ExtentQuery { by_map: info.has_object_map(), ..ExtentQuery::default() };
    pool.extents(image, query, &mut |extent| {
        bytes = bytes.saturating_add(if extent.exists { extent.length } else { 0 });
        ControlFlow::Continue(())
    })?;
    let is_finished = backup.is_empty() || pool.object(&meta(backup))?.is_some();
    Ok(Some((
        ObjectTotals { oldest_at: info.created.or(info.modified), ..ObjectTotals::one(info.modified.or(info.created), bytes) },
        is_finished,
    )))
}
