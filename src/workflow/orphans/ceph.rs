//! Orphans in a Ceph pool: images, their snapshots and metadata objects.

use std::collections::BTreeSet;
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
use crate::verify::ceph::{backup_of_meta, backup_of_snapshot, may_need_image, meta, owner_of_image, volumes_of};
use crate::verify::orphans::{NameRange, ObjectTotals, Orphan, OrphanKind, judge};
use crate::workflow::Error;

/// A part of a pool.
enum Part {
    /// An image of backups, with the backups whose snapshots it has.
    Image { name: String, snapshots: Vec<Snapshot> },
    /// A metadata object.
    Meta { name: String },
}

struct Snapshot {
    name: String,
    backup: String,
    created: Option<Timestamp>,
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
        full.map_err(|error| StorageError::protocol(error.to_string())).map(|()| names)
    };
    match once() {
        Err(error) if error.is_transient() => once(),
        names => names,
    }
}

/// Lists a pool on its own thread. The channel is closed at the end.
fn list(stores: Arc<Stores>, pool: String, range: NameRange) -> io::Result<Receiver<std::result::Result<Part, StorageError>>> {
    let (sender, parts) = mpsc::sync_channel(PORTION);
    std::thread::Builder::new().spawn(move || {
        let send = |part: Part| sender.send(Ok(part)).map_err(|_| StorageError::protocol("the walk has ended"));
        let walk = || -> std::result::Result<(), StorageError> {
            let pool = stores.cluster()?.pool(&pool);
            let unreadable = |error: io::Error| StorageError::protocol(error.to_string());
            for name in &names(&pool, true, &|name| owner_of_image(name).is_some() && range.has(name))? {
                let name = name.map_err(unreadable)?;
                // It may have been removed meanwhile.
                let Some(snapshots) = StorageError::none_if_absent(pool.snapshots(&name))? else { continue };
                let snapshots = snapshots.into_iter().filter_map(|snapshot| {
                    let backup = backup_of_snapshot(&snapshot.name)?.to_owned();
                    Some(Snapshot { name: snapshot.name, backup, created: snapshot.created })
                });
                send(Part::Image { name, snapshots: snapshots.collect() })?;
            }
            for name in &names(&pool, false, &|name| backup_of_meta(name).is_some() && range.has(name))? {
                send(Part::Meta { name: name.map_err(unreadable)? })?;
            }
            Ok(())
        };
        if let Err(error) = walk() {
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

impl Walk<'_, '_> {
    /// Walks one pool. Returns why it was not read to its end.
    pub(super) fn pool(&mut self, place: &Place) -> Result<Option<StorageError>> {
        let name = place.container.clone().unwrap_or_default();
        let location = match self.stores.location(Driver::Ceph, &Backup { container: Some(name.clone()), ..Backup::default() }) {
            Ok(location) => location,
            Err(error) => return Ok(Some(error)),
        };
        let parts = list(Arc::clone(&self.stores), name, NameRange::of(self.shard, Driver::Ceph)).map_err(Error::Start)?;
        let (mut portion, mut candidates) = (Vec::new(), Vec::new());
        loop {
            if self.is_stopped() {
                return Ok(None);
            }
            let is_over = match parts.recv_timeout(POLL) {
                Ok(Ok(part)) => {
                    portion.push(part);
                    false
                }
                Ok(Err(error)) => return Ok(Some(error)),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if is_over || portion.len() >= PORTION {
                let compared = self.compare_pool(place, &location, std::mem::take(&mut portion), &mut candidates)?;
                if let Err(error) = compared {
                    return Ok(Some(error));
                }
            }
            if is_over {
                break;
            }
        }
        if let Err(error) = self.images(place, &location, candidates)? {
            return Ok(Some(error));
        }
        Ok(None)
    }

    /// Compares parts of a pool with the rows, which are read after the parts were listed.
    fn compare_pool(
        &mut self,
        place: &Place,
        location: &str,
        parts: Vec<Part>,
        candidates: &mut Vec<Candidate>,
    ) -> Result<std::result::Result<(), StorageError>> {
        let stores = Arc::clone(&self.stores);
        let pool = match stores.cluster() {
            Ok(cluster) => cluster.pool(place.container.as_deref().unwrap_or_default()),
            Err(error) => return Ok(Err(error)),
        };
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
        let live: BTreeSet<&String> = rows.values().filter(|row| !row.deleted).map(|row| &row.id).collect();
        live.iter().for_each(|id| self.expected.mark(id));
        if !live.is_empty() {
            self.familiar.insert((Driver::Ceph, location.to_owned()));
        }
        for part in parts {
            match part {
                Part::Meta { name } => {
                    let id = backup_of_meta(&name).unwrap_or_default().to_owned();
                    if live.contains(&id) {
                        continue;
                    }
                    let stat = match pool.object(&name) {
                        Ok(stat) => stat,
                        Err(error) => return Ok(Err(error)),
                    };
                    let Some(stat) = stat else { continue };
                    let found = judge(&totals(stat.modified, stat.size), true, rows.get(&id), self.quiet);
                    self.add_part(place, location, (name, id.clone(), None), found, rows.get(&id), totals(stat.modified, stat.size))?;
                }
                Part::Image { name, snapshots } => {
                    let (volume, own) = owner_of_image(&name).unwrap_or_default();
                    let is_used = own.is_some_and(|own| live.contains(&own.to_owned()))
                        || snapshots.iter().any(|snapshot| live.contains(&snapshot.backup));
                    if !is_used {
                        let (volume, row) = (volume.to_owned(), own.and_then(|own| rows.get(own).cloned()));
                        candidates.push(Candidate { name: name.clone(), volume, row });
                    }
                    for Snapshot { name: snapshot, backup, created } in snapshots {
                        if live.contains(&backup) {
                            continue;
                        }
                        let is_finished = match pool.object(&meta(&backup)) {
                            Ok(stat) => stat.is_some(),
                            Err(error) => return Ok(Err(error)),
                        };
                        let row = rows.get(&backup);
                        let found = judge(&totals(created, 0), is_finished, row, self.quiet);
                        let volume = Some(volume.to_owned());
                        self.add_part(place, location, (format!("{name}@{snapshot}"), backup, volume), found, row, totals(created, 0))?;
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    /// Adds the images among the candidates that no live backup needs. Which one an increment is in only its row says, and not its id. So all
    /// rows are read once more.
    fn images(&mut self, place: &Place, location: &str, mut candidates: Vec<Candidate>) -> Result<std::result::Result<(), StorageError>> {
        if candidates.is_empty() {
            return Ok(Ok(()));
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
        let mut needed = needed.into_iter();
        candidates.retain(|_| needed.next() == Some(false));
        let stores = Arc::clone(&self.stores);
        let pool = match stores.cluster() {
            Ok(cluster) => cluster.pool(place.container.as_deref().unwrap_or_default()),
            Err(error) => return Ok(Err(error)),
        };
        for Candidate { name, volume, row } in candidates {
            if self.is_stopped() {
                return Ok(Ok(()));
            }
            let own = owner_of_image(&name).and_then(|(_, own)| own).unwrap_or_default().to_owned();
            match image_totals(&pool, &name, &own) {
                Ok(Some((totals, is_finished))) => {
                    // Of the image that backups share, no row can say that it is not needed any more.
                    let found = judge(&totals, is_finished || own.is_empty(), row.as_ref(), self.quiet);
                    self.add_part(place, location, (name, own, Some(volume)), found, row.as_ref(), totals)?;
                }
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Adds an image, a snapshot or a metadata object: its name, the backup and the volume that it names.
    fn add_part(
        &mut self,
        place: &Place,
        location: &str,
        (name, backup, volume_id): (String, String, Option<String>),
        kind: Option<OrphanKind>,
        row: Option<&StorageRow>,
        totals: ObjectTotals,
    ) -> Result<()> {
        let Some(kind) = kind else { return Ok(()) };
        self.output.add(Orphan {
            kind: kind.into(),
            driver: Driver::Ceph,
            location: location.to_owned(),
            container: place.container.clone(),
            name: Some(name),
            backup_id: Some(backup).filter(|id| !id.is_empty()),
            volume_id: volume_id.or_else(|| row.and_then(|row| row.volume_id.clone())),
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

/// What an image holds now and when it was written last, and whether its backup was finished; `None` if it is gone, or open.
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
    let is_finished = pool.object(&meta(backup))?.is_some();
    Ok(Some((ObjectTotals { oldest_at: info.created.or(info.modified), ..totals(info.modified.or(info.created), bytes) }, is_finished)))
}
