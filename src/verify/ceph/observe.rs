//! Requests from the cluster everything that a verdict is based on.

use std::ops::ControlFlow;

use jiff::Timestamp;
use serde_json::Value;

use super::extents::{ExtentSum, ExtentSummary, ObjectSet};
use super::names::{BackupNames, Shape, backup_of_snapshot};
use crate::storage::ceph::{ExtentQuery, ImageInfo, Pool, SnapshotInfo};
use crate::storage::{StorageError, StorageErrorKind};

/// The most objects without data that are in an image's object map and are looked up one by one.
const LOOKED_UP: usize = 256;
/// Bytes that are read of a metadata object, which has about 1 KB.
const MOST_METADATA: usize = 8 << 20;

/// The parts of a backup that exist.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observation {
    /// The pool that it is looked for in.
    pub pool: String,
    /// The pool that Cinder's driver is configured with, where its restore looks for snapshots.
    pub configured_pool: String,
    /// The image that it is in, if any.
    pub image: Option<ObservedImage>,
    pub meta: Option<MetadataObject>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ObservedImage {
    pub info: ImageInfo,
    /// All of its snapshots, the oldest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// The clients that have it open for writing.
    pub watchers: Vec<String>,
    /// The clients that hold its lock, or died with it.
    pub locks: Vec<String>,
    /// What it holds as of this backup's snapshot, or now if it has none.
    pub extents: ExtentSummary,
    /// Objects that are in its object map, but not in the pool.
    pub lost: LostObjects,
    /// Whether it was written to since the last snapshot of a backup; `None` if that was not requested.
    pub dirty: Option<bool>,
}

impl ObservedImage {
    /// The snapshots that mark the end of a backup.
    pub(super) fn snapshots_of<'a>(&'a self, backup: &'a str) -> impl Iterator<Item = &'a SnapshotInfo> {
        self.snapshots.iter().filter(move |snapshot| backup_of_snapshot(&snapshot.name) == Some(backup))
    }

    /// The first of [`Self::snapshots_of`].
    pub(super) fn end_of(&self, backup: &str) -> Option<&SnapshotInfo> {
        self.snapshots.iter().find(|snapshot| backup_of_snapshot(&snapshot.name) == Some(backup))
    }

    /// The newest snapshot of any backup.
    fn newest_of_backups(&self) -> Option<&SnapshotInfo> {
        self.snapshots.iter().rfind(|snapshot| backup_of_snapshot(&snapshot.name).is_some())
    }
}

/// The comparison of an image's object map with the pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LostObjects {
    /// Whether there is an object map.
    pub compared: bool,
    /// Names of objects that were written, but are not in the pool.
    pub objects: Vec<String>,
    /// Names of objects that are not in the pool, and may never have been: a writer enters an object into the map first, so an
    /// increment that was cut off leaves objects in the maps of all later ones.
    pub doubtful: Vec<String>,
    /// How many more objects were not looked up.
    pub unexamined: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct MetadataObject {
    pub name: String,
    /// When it was written, which is after all of the data.
    pub modified: Option<Timestamp>,
    /// The id of its volume, if the object names one; the error is what is wrong with the object.
    pub content: Result<Option<String>, String>,
}

/// Reads the metadata of a volume, as Cinder's `BackupMetadataAPI` writes it. Returns the volume's id, if it names one.
///
/// # Errors
/// What is wrong with it.
fn read_metadata(bytes: &[u8]) -> Result<Option<String>, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
    match document.get("version").map(Value::as_u64) {
        Some(Some(1 | 2)) => Ok(document.pointer("/volume-base-metadata/id").and_then(Value::as_str).map(str::to_owned)),
        Some(_) => Err("Cinder restores only its versions 1 and 2".to_owned()),
        None => Err("it names no version".to_owned()),
    }
}

/// Observes all of it. No data is read.
///
/// # Errors
/// The first request that the cluster did not answer: then nothing is known.
pub(super) fn observe(pool: &Pool<'_>, configured_pool: &str, names: &BackupNames, backup: &str) -> Result<Observation, StorageError> {
    let mut observed = observe_parts(pool, configured_pool, names, backup)?;
    if let Some(meta) = observed.meta.take() {
        let bytes = pool.read_object(&names.meta, MOST_METADATA)?;
        observed.meta = bytes.map(|bytes| MetadataObject { content: read_metadata(&bytes), ..meta });
    }
    if let Some(image) = &mut observed.image {
        observe_content(pool, image, names.shape, backup)?;
    }
    Ok(observed)
}

/// Observes only which parts exist, and the signs of work: a few requests, none of them for data.
pub(super) fn observe_parts(
    pool: &Pool<'_>,
    configured_pool: &str,
    names: &BackupNames,
    backup: &str,
) -> Result<Observation, StorageError> {
    let meta =
        pool.object(&names.meta)?.map(|stat| MetadataObject { name: names.meta.clone(), modified: stat.modified, content: Ok(None) });
    let mut image = None;
    if let Some((info, snapshots)) = choose(pool, names, backup)? {
        let watchers = pool.watchers(&info.name)?;
        let (extents, lost) = Default::default();
        let mut found = ObservedImage { info, snapshots, watchers, locks: Vec::new(), extents, lost, dirty: None };
        if let (None, Some(newest)) = (found.end_of(backup), found.newest_of_backups()) {
            found.dirty = Some(has_changed(pool, &found.info.name, &newest.name)?);
        }
        image = Some(found);
    }
    Ok(Observation { pool: pool.name().to_owned(), configured_pool: configured_pool.to_owned(), image, meta })
}

/// The image that this backup is in: the first that has its snapshot, otherwise the first that may be a copy.
fn choose(pool: &Pool<'_>, names: &BackupNames, backup: &str) -> Result<Option<(ImageInfo, Vec<SnapshotInfo>)>, StorageError> {
    let mut found = None;
    for candidate in &names.images {
        let Some(info) = pool.image(&candidate.name)? else { continue };
        let snapshots = pool.snapshots(&candidate.name)?;
        let mut owners = snapshots.iter().filter_map(|snapshot| backup_of_snapshot(&snapshot.name));
        if owners.clone().any(|owner| owner == backup) {
            return Ok(Some((info, snapshots)));
        }
        // A base image of other backups is not a copy.
        let is_others = names.shape != Shape::Snapshot && owners.next().is_some();
        if found.is_none() && !candidate.by_snapshot && !is_others {
            found = Some((info, snapshots));
        }
    }
    Ok(found)
}

/// Adds the locks of an image, and what it holds.
fn observe_content(pool: &Pool<'_>, image: &mut ObservedImage, shape: Shape, backup: &str) -> Result<(), StorageError> {
    image.locks = pool.locks(&image.info.name)?;
    let end = image.end_of(backup).cloned();
    let (info, end) = (&image.info, end.as_ref());
    // For older backups of the chain, a base image that was written to after its last snapshot means nothing.
    if let Some(end) = end.filter(|end| image.newest_of_backups() == Some(end)) {
        image.dirty = Some(has_changed(pool, &info.name, &end.name)?);
    }
    let Some((size, range)) = extent_query(info, end, shape) else { return Ok(()) };
    let at = range.at;
    let (extents, present) = sum_extents(pool, info, size, range)?;
    image.extents = extents;
    if let Some(present) = present.filter(|_| info.has_object_map()) {
        let (_, mapped) = sum_extents(pool, info, size, ExtentQuery { at, by_map: true, since: None })?;
        let suspects = mapped.map(|mapped| mapped.without(&present)).unwrap_or_default();
        let written = if suspects.is_empty() { None } else { written(pool, info, size, &image.snapshots, end)? };
        image.lost = find_lost(pool, info, suspects, written.as_ref())?;
    }
    Ok(())
}

/// Sums the extents of an observed image as of this backup's snapshot, or now if it has none.
pub(super) fn extents(pool: &Pool<'_>, image: &ObservedImage, shape: Shape, backup: &str) -> Result<ExtentSummary, StorageError> {
    match extent_query(&image.info, image.end_of(backup), shape) {
        Some((size, range)) => Ok(sum_extents(pool, &image.info, size, range)?.0),
        None => Ok(ExtentSummary::default()),
    }
}

/// The size of the image and the query for the extents of a backup; `None` if it has none.
fn extent_query<'a>(info: &ImageInfo, end: Option<&'a SnapshotInfo>, shape: Shape) -> Option<(u64, ExtentQuery<'a>)> {
    if end.is_none() && shape == Shape::Snapshot {
        // The present content of the base image is not a backup, and what an increment that was cut off left there damages none.
        return None;
    }
    // The volume may have grown since, or its image may have been truncated.
    let size = info.size.max(end.map_or(0, |end| end.size));
    Some((size, ExtentQuery { at: end.map(|end| end.name.as_str()), ..ExtentQuery::default() }))
}

fn sum_extents(
    pool: &Pool<'_>,
    info: &ImageInfo,
    size: u64,
    range: ExtentQuery<'_>,
) -> Result<(ExtentSummary, Option<ObjectSet>), StorageError> {
    let mut sum = ExtentSum::new(size, info.object_size, info.is_striped());
    let mut is_ordered = true;
    pool.extents(&info.name, range, &mut |extent| {
        is_ordered = sum.add(extent);
        if is_ordered { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if is_ordered {
        Ok((sum.summary, sum.objects))
    } else {
        Err(StorageError::new(StorageErrorKind::Protocol, format!("the extents of {}/{} overlap", pool.name(), info.name)))
    }
}

fn has_changed(pool: &Pool<'_>, image: &str, since: &str) -> Result<bool, StorageError> {
    let mut changed = false;
    pool.extents(image, ExtentQuery { since: Some(since), ..ExtentQuery::default() }, &mut |_| {
        changed = true;
        ControlFlow::Break(())
    })?;
    Ok(changed)
}

/// The objects that are known to have been written; `None` if all objects of the map were. The first backup on a base image is its only
/// writer up to its own snapshot, so the map of that snapshot is correct, as is the map of a finished copy.
fn written(
    pool: &Pool<'_>,
    info: &ImageInfo,
    size: u64,
    snapshots: &[SnapshotInfo],
    end: Option<&SnapshotInfo>,
) -> Result<Option<ObjectSet>, StorageError> {
    let Some(end) = end else { return Ok(None) };
    let first = snapshots.iter().find(|snapshot| {
        backup_of_snapshot(&snapshot.name).is_some_and(|owner| info.name.strip_suffix(owner).is_some_and(|rest| rest.ends_with('.')))
    });
    let known = match first {
        Some(first) if first.name == end.name => return Ok(None),
        Some(first) => sum_extents(pool, info, size, ExtentQuery { at: Some(&first.name), by_map: true, since: None })?.1,
        None => None,
    };
    Ok(known.or_else(|| ObjectSet::new(0, 1)))
}

/// Looks up objects that are in the map and hold no data. They may exist and be empty, after a hole was made in them.
fn find_lost(pool: &Pool<'_>, info: &ImageInfo, suspects: Vec<u64>, written: Option<&ObjectSet>) -> Result<LostObjects, StorageError> {
    let other = info.data_pool.as_deref().map(|name| pool.sibling(name));
    let data = other.as_ref().unwrap_or(pool);
    let unexamined = suspects.len().saturating_sub(LOOKED_UP) as u64;
    let mut lost = LostObjects { compared: true, unexamined, ..LostObjects::default() };
    for number in suspects.into_iter().take(LOOKED_UP) {
        let object = format!("{}.{number:016x}", info.object_prefix);
        if data.has_object(&object)? {
            continue;
        }
        let is_written = written.is_none_or(|written| written.contains(number));
        if is_written { &mut lost.objects } else { &mut lost.doubtful }.push(object);
    }
    Ok(lost)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_cinder_restores_it() {
        let text = br#"{"version": 2, "volume-base-metadata": {"id": "V", "size": 1}}"#;
        assert_eq!(read_metadata(text), Ok(Some("V".to_owned())));
        assert_eq!(read_metadata(br#"{"version": 1}"#), Ok(None));
        for wrong in ["", "{}", "[]", "{\"version\": 3}", "{\"version\": \"2\"}", "{\"version\": 2", "\u{0}"] {
            assert!(read_metadata(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
