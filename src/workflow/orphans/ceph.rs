//! Orphans in Ceph: in a pool of backups images, their snapshots and metadata objects; in a pool of volumes the snapshots of backups.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use jiff::Timestamp;

use super::{POLL, PORTION, Place, Result, Stores, Walk, driver_of};
use crate::domain::{Backup, Driver, StorageRow};
use crate::spool::Spool;
use crate::storage::ceph::{ExtentQuery, Pool};
use crate::storage::{StorageError, StorageErrorKind};
use crate::verify::StorageAccess;
use crate::verify::ceph::{backup_of_meta, backup_of_snapshot, may_need_image, meta, owner_of_image, volume_of_image, volumes_of};
use crate::verify::orphans::{NameRange, ObjectTotals, Orphan, judge};
use crate::workflow::Error;

/// Why the walk of a pool ends.
enum Halt {
    /// The whole walk ends.
    Work(Error),
    /// The pool was not read to its end.
    Storage(StorageError),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Work(error)
    }
}

impl From<StorageError> for Halt {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A part of a pool.
enum Part {
    /// An image, with the snapshots of backups that it has.
    Image { name: String, snapshots: Vec<Snapshot> },
    /// A metadata object.
    Meta { name: String },
}

struct Snapshot {
    name: String,
    backup: String,
    created: Option<Timestamp>,
}

/// What is listed.
#[derive(Clone)]
struct Listing {
    pool: String,
    /// Whether it is a pool of volumes, on which Cinder's driver leaves the snapshots that it made for backups.
    is_source: bool,
    range: NameRange,
}

impl Listing {
    fn keeps_image(&self, name: &str) -> bool {
        let is_known = if self.is_source { volume_of_image(name).is_some() } else { owner_of_image(name).is_some() };
        is_known && self.range.has(name)
    }

    fn each(&self, stores: &Stores, send: &dyn Fn(Part) -> std::result::Result<(), StorageError>) -> std::result::Result<(), StorageError> {
        let pool = stores.cluster()?.pool(&self.pool);
        for name in &names(&pool, true, &|name| self.keeps_image(name))? {
            let name = name.map_err(unreadable)?;
            // It may have been removed meanwhile.
            let Some(snapshots) = StorageError::none_if_absent(pool.snapshots(&name))? else { continue };
            let snapshots = snapshots.into_iter().filter_map(|snapshot| {
                let backup = backup_of_snapshot(&snapshot.name).filter(|backup| backup_of_meta(&meta(backup)).is_some())?.to_owned();
                Some(Snapshot { name: snapshot.name, backup, created: snapshot.created })
            });
            send(Part::Image { name, snapshots: snapshots.collect() })?;
        }
        if self.is_source {
            return Ok(());
        }
        for name in &names(&pool, false, &|name| backup_of_meta(name).is_some() && self.range.has(name))? {
            send(Part::Meta { name: name.map_err(unreadable)? })?;
        }
        Ok(())
    }
}

fn unreadable(error: io::Error) -> StorageError {
    StorageError::protocol(error.to_string())
}

/// The names of images, or of RADOS objects, that the driver can have given; listed once more after a transient error.
fn names(pool: &Pool<'_>, are_images: bool, keep: &dyn Fn(&str) -> bool) -> std::result::Result<Spool<String>, StorageError> {
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

/// Lists a pool on its own thread. The channel is closed at the end.
fn list(stores: Arc<Stores>, listing: Listing) -> io::Result<Receiver<std::result::Result<Part, StorageError>>> {
    let (sender, parts) = mpsc::sync_channel(PORTION);
    std::thread::Builder::new().spawn(move || {
        let send = |part: Part| sender.send(Ok(part)).map_err(|_| StorageError::protocol("the walk has ended"));
        if let Err(error) = listing.each(&stores, &send) {
            drop(sender.send(Err(error)));
        }
    })?;
    Ok(parts)
}

/// An image of which no live backup has a snapshot, and its own backup is not live.
struct Candidate {
    name: String,
    volume: String,
    row: Option<StorageRow>,
}

/// What one part of a pool holds, and from when.
pub(super) fn totals(time: Option<Timestamp>, bytes: u64) -> ObjectTotals {
    ObjectTotals { objects: 1, bytes, oldest_at: time, newest_at: time, untimed: u64::from(time.is_none()) }
}

/// A pool that is walked.
struct Walked<'p> {
    pool: Pool<'p>,
    location: String,
    is_source: bool,
}

/// An image, a snapshot or a metadata object that has no live backup of its own.
struct Leftover<'a> {
    name: String,
    /// The backup that the name names; empty for an image that backups share.
    backup: String,
    volume: Option<String>,
    row: Option<&'a StorageRow>,
    is_finished: bool,
    totals: ObjectTotals,
}

impl Walk<'_, '_> {
    /// Walks one pool. Returns why it was not read to its end.
    pub(super) fn pool(&mut self, place: &Place, is_source: bool) -> Result<Option<StorageError>> {
        let stores = Arc::clone(&self.stores);
        match self.walk_pool(&stores, place, is_source) {
            Ok(()) => Ok(None),
            Err(Halt::Storage(error)) => Ok(Some(error)),
            Err(Halt::Work(error)) => Err(error),
        }
    }

    fn walk_pool(&mut self, stores: &Arc<Stores>, place: &Place, is_source: bool) -> std::result::Result<(), Halt> {
        let (pool, range) = (place.container.clone().unwrap_or_default(), NameRange::of(self.shard, Driver::Ceph));
        let location = stores.location(Driver::Ceph, &Backup { container: Some(pool.clone()), ..Backup::default() })?;
        let walked = Walked { pool: stores.cluster()?.pool(&pool), location, is_source };
        let parts = list(Arc::clone(stores), Listing { pool, is_source, range }).map_err(Error::Start)?;
        let (mut portion, mut candidates) = (Vec::new(), Vec::new());
        loop {
            if self.is_stopped() {
                return Ok(());
            }
            match parts.recv_timeout(POLL) {
                Ok(part) => portion.push(part?),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if portion.len() >= PORTION {
                self.compare_parts(&walked, std::mem::take(&mut portion), &mut candidates)?;
            }
        }
        self.compare_parts(&walked, portion, &mut candidates)?;
        self.images(&walked, candidates)
    }

    /// Compares parts of a pool with the rows, which are read after the parts were listed.
    fn compare_parts(&mut self, walked: &Walked<'_>, parts: Vec<Part>, candidates: &mut Vec<Candidate>) -> std::result::Result<(), Halt> {
        let mut ids = BTreeSet::new();
        for part in &parts {
            match part {
                Part::Meta { name } => ids.extend(backup_of_meta(name).map(str::to_owned)),
                Part::Image { name, snapshots } => {
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
                Part::Meta { name } => {
                    let backup = backup_of_meta(&name).unwrap_or_default().to_owned();
                    if !is_live(&backup)
                        && let Some(stat) = walked.pool.object(&name)?
                    {
                        let (row, totals) = (rows.get(&backup), totals(stat.modified, stat.size));
                        self.add_leftover(walked, Leftover { name, backup, volume: None, row, is_finished: true, totals })?;
                    }
                }
                Part::Image { name, snapshots } => {
                    let volume =
                        owner_of_image(&name).map_or_else(|| volume_of_image(&name), |(volume, _)| Some(volume)).map(str::to_owned);
                    let is_used = snapshots.iter().any(|snapshot| is_live(&snapshot.backup));
                    if let Some((volume, own)) = owner_of_image(&name).filter(|(_, own)| !is_used && !own.is_some_and(is_live)) {
                        let row = own.and_then(|own| rows.get(own).cloned());
                        candidates.push(Candidate { name: name.clone(), volume: volume.to_owned(), row });
                    }
                    self.snapshots(walked, (&name, volume), snapshots, &rows)?;
                }
            }
        }
        Ok(())
    }

    /// Adds the snapshots of an image that are not those of live backups.
    fn snapshots(
        &mut self,
        walked: &Walked<'_>,
        (image, volume): (&str, Option<String>),
        snapshots: Vec<Snapshot>,
        rows: &HashMap<String, StorageRow>,
    ) -> std::result::Result<(), Halt> {
        for Snapshot { name, backup, created } in snapshots {
            let row = rows.get(&backup);
            if row.is_none_or(|row| row.deleted) {
                let is_finished = is_finished(&walked.pool, image, &backup)?;
                let (name, volume, totals) = (format!("{image}@{name}"), volume.clone(), totals(created, 0));
                self.add_leftover(walked, Leftover { name, backup, volume, row, is_finished, totals })?;
            }
        }
        Ok(())
    }

    /// Adds the images among the candidates that no live backup needs. Only its row says in which image an increment is. So all rows are
    /// read once more.
    fn images(&mut self, walked: &Walked<'_>, mut candidates: Vec<Candidate>) -> std::result::Result<(), Halt> {
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
        for (Candidate { name, volume, row }, _) in candidates.into_iter().zip(needed).filter(|(_, needed)| !needed) {
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

    fn add_leftover(&mut self, walked: &Walked<'_>, leftover: Leftover<'_>) -> Result<()> {
        let Leftover { name, backup, volume, row, is_finished, totals } = leftover;
        let Some(kind) = judge(&totals, is_finished, row, self.quiet) else { return Ok(()) };
        self.output.add(Orphan {
            kind: kind.into(),
            driver: Driver::Ceph,
            location: walked.location.clone(),
            container: Some(walked.pool.name().to_owned()),
            name: Some(name),
            backup_id: Some(backup).filter(|id| !id.is_empty()),
            volume_id: volume.or_else(|| row.and_then(|row| row.volume_id.clone())),
            project_id: row.and_then(|row| row.project_id.clone()),
            status: row.and_then(|row| row.status.clone()),
            totals,
        })
    }

    /// Whether anything of a backup is in its pool, and the location of the pool.
    pub(super) fn is_in_pool(&self, row: &StorageRow) -> std::result::Result<(bool, String), StorageError> {
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

/// Whether the driver has finished a backup with a snapshot on this image. A pool of volumes does not show it.
pub(super) fn is_finished(pool: &Pool<'_>, image: &str, backup: &str) -> std::result::Result<bool, StorageError> {
    Ok(owner_of_image(image).is_none() || pool.object(&meta(backup))?.is_some())
}

/// What an image holds now and when it was written last, and whether its backup was finished; `None` if it is gone, or open. Of an image
/// that backups share, no row can say that it is not needed any more, so it counts as finished.
pub(super) fn image_totals(pool: &Pool<'_>, image: &str, backup: &str) -> std::result::Result<Option<(ObjectTotals, bool)>, StorageError> {
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
    Ok(Some((ObjectTotals { oldest_at: info.created.or(info.modified), ..totals(info.modified.or(info.created), bytes) }, is_finished)))
}
