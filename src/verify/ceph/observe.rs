//! Asks the cluster everything that a verdict rests on.

use std::ops::ControlFlow;

use jiff::Timestamp;
use serde_json::Value;

use super::extents::{ExtentSum, ExtentSummary, ObjectSet};
use super::names::{BackupNames, Shape, backup_of_snapshot};
use crate::storage::ceph::{ExtentQuery, ImageInfo, Pool, SnapshotInfo};
use crate::storage::{StorageError, StorageErrorKind};

/// So many objects that an image's map promises and that hold nothing are looked for one by one.
const LOOKED_FOR: usize = 256;
/// The object of metadata is about 1 KB.
const META: usize = 8 << 20;

/// What there is of a backup.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observation {
    /// The pool that it is looked for in.
    pub pool: String,
    /// The pool that Cinder's driver is configured with, where its restore looks for snapshots.
    pub configured_pool: String,
    /// The image that it is in, if there is one.
    pub image: Option<ObservedImage>,
    /// The object of the volume's metadata, if there is one.
    pub meta: Option<MetadataObject>,
}

/// An image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ObservedImage {
    pub info: ImageInfo,
    /// All of its snapshots, the oldest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// Who has it open for writing.
    pub watchers: Vec<String>,
    /// Who holds its lock, or held it at death.
    pub locks: Vec<String>,
    /// What is in it: as of this backup's snapshot, or now where it has none.
    pub held: ExtentSummary,
    /// What the image's map promises and what is not in the pool.
    pub lost: LostObjects,
    /// Since the last of the backups' snapshots something was written; `None` where that was not looked at.
    pub dirty: Option<bool>,
}

impl ObservedImage {
    /// The snapshots that mark the end of a backup.
    pub(super) fn snapshots_of<'a>(&'a self, backup: &'a str) -> impl Iterator<Item = &'a SnapshotInfo> {
        self.snapshots.iter().filter(move |snapshot| backup_of_snapshot(&snapshot.name) == Some(backup))
    }
}

/// The comparison of an image's map of objects with what is in the pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LostObjects {
    /// Whether there is a map that can be compared.
    pub compared: bool,
    /// BackupNames of objects that are not in the pool although they were written.
    pub objects: Vec<String>,
    /// BackupNames of objects that are not in the pool, and of which it is not known whether they ever were: whoever writes enters
    /// an object into the map first, so that an increment that was cut off leaves objects in the maps of all later ones.
    pub doubtful: Vec<String>,
    /// Of so many more it is not known.
    pub unexamined: u64,
}

/// The object of the volume's metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MetadataObject {
    /// Its name.
    pub name: String,
    /// When it was written: after all of the data.
    pub modified: Option<Timestamp>,
    /// The volume that it says it is of.
    pub content: MetadataContent,
}

/// What an object of metadata holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum MetadataContent {
    /// A volume's metadata, with the volume's id where it has one.
    Of(Option<String>),
    /// Something else, and what is wrong with it.
    Invalid(String),
}

impl MetadataContent {
    /// Reads what Cinder's `BackupMetadataAPI` wrote.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let document: Value = match serde_json::from_slice(bytes) {
            Ok(document) => document,
            Err(error) => return Self::Invalid(format!("it is no JSON: {error}")),
        };
        match document.get("version").map(Value::as_u64) {
            Some(Some(1 | 2)) => Self::Of(document.pointer("/volume-base-metadata/id").and_then(Value::as_str).map(str::to_owned)),
            Some(_) => Self::Invalid("Cinder restores only the versions 1 and 2 of it".to_owned()),
            None => Self::Invalid("it names no version".to_owned()),
        }
    }
}

/// Asks all of it. No data is read.
///
/// # Errors
/// That of the first question which the cluster did not answer: then nothing is known.
pub(super) fn observe(pool: &Pool<'_>, configured_pool: &str, names: &BackupNames, backup: &str) -> Result<Observation, StorageError> {
    let meta = match pool.object(&names.meta)? {
        None => None,
        Some(stat) => pool.read_object(&names.meta, META)?.map(|bytes| MetadataObject {
            name: names.meta.clone(),
            modified: stat.modified,
            content: MetadataContent::read(&bytes),
        }),
    };
    let image = match choose(pool, names, backup)? {
        Some((info, snapshots)) => Some(look(pool, info, snapshots, names.shape, backup)?),
        None => None,
    };
    Ok(Observation { pool: pool.name().to_owned(), configured_pool: configured_pool.to_owned(), image, meta })
}

/// Asks only what shows which parts there are, and whether somebody is or was at work: a few questions, none of them about data.
///
/// # Errors
/// As for [`observe`].
pub(super) fn glimpse(pool: &Pool<'_>, configured_pool: &str, names: &BackupNames, backup: &str) -> Result<Observation, StorageError> {
    let meta = pool.object(&names.meta)?.map(|stat| MetadataObject {
        name: names.meta.clone(),
        modified: stat.modified,
        content: MetadataContent::Of(None),
    });
    let image = match choose(pool, names, backup)? {
        Some((info, snapshots)) => {
            let watchers = pool.watchers(&info.name)?;
            let newest = snapshots.iter().rfind(|snapshot| backup_of_snapshot(&snapshot.name).is_some());
            let is_done = snapshots.iter().any(|snapshot| backup_of_snapshot(&snapshot.name) == Some(backup));
            let dirty = match newest.filter(|_| !is_done && names.shape == Shape::Snapshot) {
                Some(newest) => Some(has_changed(pool, &info.name, &newest.name)?),
                None => None,
            };
            Some(ObservedImage {
                info,
                snapshots,
                watchers,
                locks: Vec::new(),
                held: ExtentSummary::default(),
                lost: LostObjects::default(),
                dirty,
            })
        }
        None => None,
    };
    Ok(Observation { pool: pool.name().to_owned(), configured_pool: configured_pool.to_owned(), image, meta })
}

/// The image that this backup is in: the first that has its snapshot, else the first that can be it.
fn choose(pool: &Pool<'_>, names: &BackupNames, backup: &str) -> Result<Option<(ImageInfo, Vec<SnapshotInfo>)>, StorageError> {
    let mut found = None;
    for candidate in &names.images {
        let Some(info) = pool.image(&candidate.name)? else { continue };
        let snapshots = pool.snapshots(&candidate.name)?;
        let mut owners = snapshots.iter().filter_map(|snapshot| backup_of_snapshot(&snapshot.name));
        if owners.clone().any(|owner| owner == backup) {
            return Ok(Some((info, snapshots)));
        }
        // A base that others rest on is no copy.
        let is_others = names.shape != Shape::Snapshot && owners.next().is_some();
        if found.is_none() && !candidate.by_snapshot && !is_others {
            found = Some((info, snapshots));
        }
    }
    Ok(found)
}

fn look(pool: &Pool<'_>, info: ImageInfo, snapshots: Vec<SnapshotInfo>, shape: Shape, backup: &str) -> Result<ObservedImage, StorageError> {
    let name = info.name.as_str();
    let watchers = pool.watchers(name)?;
    let locks = pool.locks(name)?;
    let mut of_backups = snapshots.iter().filter(|snapshot| backup_of_snapshot(&snapshot.name).is_some());
    let newest = of_backups.next_back();
    let end = snapshots.iter().find(|snapshot| backup_of_snapshot(&snapshot.name) == Some(backup));
    // A base that was written to after its last snapshot; for older backups of the chain that means nothing.
    let dirty = match newest {
        Some(newest) if end.is_none_or(|end| end.name == newest.name) => Some(has_changed(pool, name, &newest.name)?),
        _ => None,
    };
    let Some((size, range)) = whole(&info, end, shape) else {
        return Ok(ObservedImage { info, snapshots, watchers, locks, held: ExtentSummary::default(), lost: LostObjects::default(), dirty });
    };
    let at = range.at;
    let (held, there) = sum(pool, &info, size, range)?;
    let lost = match there {
        Some(there) if info.has_object_map => {
            let (_, promised) = sum(pool, &info, size, ExtentQuery { at, by_map: true, since: None })?;
            let suspects = promised.map(|promised| promised.without(&there)).unwrap_or_default();
            let written = if suspects.is_empty() { WrittenObjects::All } else { written(pool, &info, size, &snapshots, end)? };
            examine(pool, &info, suspects, &written)?
        }
        _ => LostObjects::default(),
    };
    Ok(ObservedImage { info, snapshots, watchers, locks, held, lost, dirty })
}

/// What is in an image of which the rest is known: as of this backup's snapshot, or now where it has none.
///
/// # Errors
/// As for every question.
pub(super) fn held(pool: &Pool<'_>, image: &ObservedImage, shape: Shape, backup: &str) -> Result<ExtentSummary, StorageError> {
    match whole(&image.info, image.snapshots_of(backup).next(), shape) {
        Some((size, range)) => Ok(sum(pool, &image.info, size, range)?.0),
        None => Ok(ExtentSummary::default()),
    }
}

/// The bytes and the range of the extents that a backup is in; `None` where it has none.
fn whole<'a>(info: &ImageInfo, end: Option<&'a SnapshotInfo>, shape: Shape) -> Option<(u64, ExtentQuery<'a>)> {
    if end.is_none() && shape == Shape::Snapshot {
        // What is in the base now is no backup, and what an increment that was cut off left there no damage of one.
        return None;
    }
    // The volume may have grown since, or its image may have been cut.
    let size = info.size.max(end.map_or(0, |end| end.size));
    Some((size, ExtentQuery { at: end.map(|end| end.name.as_str()), ..ExtentQuery::default() }))
}

fn sum(pool: &Pool<'_>, info: &ImageInfo, size: u64, range: ExtentQuery<'_>) -> Result<(ExtentSummary, Option<ObjectSet>), StorageError> {
    let mut sum = ExtentSum::new(size, info.object_size, info.striped);
    let mut sane = true;
    pool.extents(&info.name, range, &mut |extent| {
        sane = sum.add(extent);
        if sane { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if sane {
        Ok(sum.done())
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

/// Which of the objects in a map were really written.
enum WrittenObjects {
    /// All: only one backup wrote to the image before the map was kept.
    All,
    /// These at least.
    These(ObjectSet),
}

/// What is known to have been written. The first backup on a base is its only writer up to its own snapshot, whose map is
/// therefore true; and so is that of a copy that is done.
fn written(
    pool: &Pool<'_>,
    info: &ImageInfo,
    size: u64,
    snapshots: &[SnapshotInfo],
    end: Option<&SnapshotInfo>,
) -> Result<WrittenObjects, StorageError> {
    let Some(end) = end else { return Ok(WrittenObjects::All) };
    let first = snapshots.iter().find(|snapshot| {
        backup_of_snapshot(&snapshot.name).is_some_and(|owner| info.name.strip_suffix(owner).is_some_and(|rest| rest.ends_with('.')))
    });
    let known = match first {
        Some(first) if first.name == end.name => return Ok(WrittenObjects::All),
        Some(first) => sum(pool, info, size, ExtentQuery { at: Some(&first.name), by_map: true, since: None })?.1,
        None => None,
    };
    Ok(known.or_else(|| ObjectSet::new(0, 1)).map_or(WrittenObjects::All, WrittenObjects::These))
}

/// Looks for objects that the map has and that hold nothing. They may be there and empty: a hole was made in them.
fn examine(pool: &Pool<'_>, info: &ImageInfo, suspects: Vec<u64>, written: &WrittenObjects) -> Result<LostObjects, StorageError> {
    let other = info.data_pool.as_deref().map(|name| pool.sibling(name));
    let data = other.as_ref().unwrap_or(pool);
    let unexamined = suspects.len().saturating_sub(LOOKED_FOR) as u64;
    let mut lost = LostObjects { compared: true, unexamined, ..LostObjects::default() };
    for number in suspects.into_iter().take(LOOKED_FOR) {
        let object = format!("{}.{number:016x}", info.object_prefix);
        if data.has_object(&object)? {
            continue;
        }
        match written {
            WrittenObjects::These(these) if !these.contains(number) => lost.doubtful.push(object),
            _ => lost.objects.push(object),
        }
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
        assert_eq!(MetadataContent::read(text), MetadataContent::Of(Some("V".to_owned())));
        assert_eq!(MetadataContent::read(br#"{"version": 1}"#), MetadataContent::Of(None));
        for wrong in ["", "{}", "[]", "{\"version\": 3}", "{\"version\": \"2\"}", "{\"version\": 2", "\u{0}"] {
            assert!(matches!(MetadataContent::read(wrong.as_bytes()), MetadataContent::Invalid(_)), "{wrong}");
        }
    }
}
