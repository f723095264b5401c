//! Reads the data of a backup, and compares it with the volume's if the volume still has the same snapshot.
//!
//! What an export leaves out counts as zeros, so it does not matter in which extents either image keeps its zeros, if at all. Memory
//! is bounded by two windows.

use std::io::Read;
use std::ops::ControlFlow;

use jiff::Timestamp;

use super::judge::{is_named_after, is_newer, service_metadata};
use super::names::{self, backup_of_snapshot};
use super::observe::ObservedImage;
use super::unanswered;
use crate::domain::{CheckResult, CheckVerdict, Level, Problem, ProblemCode};
use crate::storage::ceph::export::{ExportReader, Segment};
use crate::storage::ceph::{ExtentQuery, Pool, SnapshotInfo};
use crate::storage::{StorageError, StorageErrorKind};
use crate::verify::ranges::RangeSet;
use crate::verify::watch::ReadProgress;
use crate::verify::{Subject, Watch};

/// Bytes that are compared at a time.
const WINDOW: u64 = 1 << 20;
/// The most differing windows that are listed. More are counted.
const NAMED: usize = 100;
/// Images of more extents than this are not compared by extents.
const MOST_EXTENTS: usize = 1 << 20;

pub(super) struct ImageData<'a> {
    pub pool: &'a Pool<'a>,
    pub image: &'a ObservedImage,
    pub subject: &'a Subject<'a>,
    /// When the metadata object was written.
    pub finished: Option<Timestamp>,
    pub watch: &'a Watch,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Difference {
    /// The offsets of the first windows that differ.
    pub offsets: Vec<u64>,
    pub count: u64,
}

/// Reads all data of the backup, and adds the outcome to the result.
pub(super) fn read_data(result: &mut CheckResult, data: &ImageData<'_>, source: Option<&Pool<'_>>) {
    let name = &data.image.info.name;
    let Subject { backup, level, .. } = *data.subject;
    let end = data.image.end_of(&backup.id);
    let at = end.map(|end| end.name.as_str());
    result.level_reached = None;
    let mut read = read_all(data, at);
    let is_second = read.as_ref().is_err_and(|error| matches!(error.kind, StorageErrorKind::Media | StorageErrorKind::Transient));
    if is_second {
        read = read_all(data, at);
    }
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) => return give_up(result, name, &error),
    };
    result.bytes.checked = bytes;
    result.depth = format!("all {bytes} bytes read; Ceph's driver stores no digest");
    if is_second {
        let text = "the cluster gave an error on the first read, but not on the second";
        result.warnings.push(Problem::of(name, ProblemCode::SecondRead, text));
    }
    // Zeros are extents of a copy, too, so an export is never shorter than the list of extents.
    if bytes < data.image.extents.bytes {
        result.verdict = CheckVerdict::Incomplete;
        let text = format!("an export gives {bytes} bytes, but its extents have {}", data.image.extents.bytes);
        result.problems.push(Problem::of(name, ProblemCode::ExportShort, text));
        result.service_metadata = None;
        return;
    }
    let volume = find_volume(data, end, source);
    let mut lacking = Vec::new();
    if level == Level::Restore {
        let compared = volume.as_ref().map_err(String::clone).and_then(|volume| {
            let difference = compare_with(data, at, volume).map_err(|error| error.text)?;
            Ok((volume, difference))
        });
        match compared {
            Ok((volume, difference)) => return add_difference(result, data, volume, &difference),
            Err(why) => lacking.push(format!("its bytes were not compared with the volume's: {why}")),
        }
    }
    let reached = match trace(result, data, end, volume.as_ref()) {
        Ok(()) => Level::Deep,
        Err(why) => {
            lacking.push(why);
            Level::Quick
        }
    };
    if result.verdict != CheckVerdict::Intact {
        // Possible damage remains.
        lacking.iter().for_each(|why| result.depth.push_str(&format!("; {why}")));
        return;
    }
    result.level_reached = Some(reached);
    if reached < level {
        result.verdict = CheckVerdict::Unverifiable;
        let text = format!("intact at level {reached}, and level {level} was not reached: {}", lacking.join("; "));
        result.problems.push(Problem::general(ProblemCode::LevelNotReached, text));
    }
}

/// Follows the data of a backup from an empty image to its snapshot. `rbd import-diff` makes the snapshot after the last byte, and a
/// snapshot cannot be written to. So the bytes are right if the image was empty before the first import, and only imports wrote to it.
/// Otherwise returns why that is not known.
fn trace(
    result: &mut CheckResult,
    data: &ImageData<'_>,
    end: Option<&SnapshotInfo>,
    volume: Result<&VolumeImage<'_>, &String>,
) -> Result<(), String> {
    let Subject { backup, ancestors, .. } = *data.subject;
    let name = &data.image.info.name;
    let Some(end) = end else {
        return Err("it is a copy, and nothing shows whether its bytes are still those that were written".to_owned());
    };
    let ids: Vec<&str> = ancestors.iter().rev().map(|ancestor| ancestor.id.as_str()).chain([backup.id.as_str()]).collect();
    let snapshots: Vec<&SnapshotInfo> = ids.iter().filter_map(|id| data.image.end_of(id)).collect();
    let first = data.image.snapshots.iter().find(|snapshot| backup_of_snapshot(&snapshot.name).is_some());
    let is_first = ids.first().is_some_and(|id| is_named_after(data.image, id)) && snapshots.first().copied() == first;
    if !is_first || snapshots.len() != ids.len() || !snapshots.is_sorted_by_key(|snapshot| snapshot.id) {
        return Err(format!("the snapshots of {name} are not those of its chain from the first on"));
    }
    let is_as_made = |made: Option<Timestamp>, finished: Option<Timestamp>| is_newer(made, finished) == Some(false);
    if !is_as_made(end.created, data.finished) {
        return Err(format!("it is not known whether {} was made before the backup was finished", end.name));
    }
    if snapshots.len() == 1 {
        result.depth.push_str("; its snapshot, which is made after the last byte, is the first of an image that was made for it");
        return Ok(());
    }
    let volume = volume.map_err(|why| {
        format!(
            "an increment that was cut off before it may have left bytes in it, and its extents were not compared with the volume's: {why}"
        )
    })?;
    for (id, snapshot) in ids.iter().zip(&snapshots).take(ancestors.len()) {
        let meta = data.pool.object(&names::meta(id)).map_err(|error| error.text)?;
        if !is_as_made(snapshot.created, meta.and_then(|meta| meta.modified)) {
            return Err(format!("it is not known whether {} was made before its backup was finished", snapshot.name));
        }
    }
    let mut more = 0;
    for step in snapshots.windows(2) {
        let [since, at] = step else { continue };
        volume.has(&since.name, since.created)?;
        volume.has(&at.name, at.created)?;
        let here = changed_ranges(data.pool, name, since, at)?;
        let there = changed_ranges(&volume.pool, &volume.image, since, at)?;
        // An import leaves out zeros, so less may have changed here.
        more += here.bytes_without(&there);
    }
    result.depth.push_str(&format!("; its extents and those of its chain compared with those of {}", volume.about(&end.name)));
    if more > 0 {
        let text = format!(
            "{more} bytes changed in it or its ancestors that did not change in {}: an increment that was cut off may have left them; \
             `--level restore` compares the bytes themselves",
            volume.about(&end.name)
        );
        result.problems.push(Problem::of(format!("{name}@{}", end.name), ProblemCode::ExtentsDiffer, text));
        result.verdict = CheckVerdict::Unverifiable;
        result.service_metadata = None;
    }
    Ok(())
}

/// Finds the volume's image and its snapshot of the same time; the error is why there is none.
fn find_volume<'a>(data: &ImageData<'_>, end: Option<&SnapshotInfo>, source: Option<&Pool<'a>>) -> Result<VolumeImage<'a>, String> {
    let pool = source.ok_or("--ceph-source-pool was not given")?;
    let backup = data.subject.backup;
    let volume = backup.volume_id.as_deref().ok_or("the row names no volume")?;
    // The defaults of `volume_name_template` and `snapshot_name_template`, which are hardly ever changed.
    let image = format!("volume-{volume}");
    let info = &data.image.info;
    let (name, made) = match (end, backup.snapshot_id.as_deref()) {
        (Some(end), _) => (end.name.clone(), end.created),
        (None, Some(id)) => (format!("snapshot-{id}"), info.created),
        (None, None) => return Err("it is a copy of a volume that is not an RBD image".to_owned()),
    };
    let found = pool.image(&image).map_err(|error| error.text)?;
    let found = found.ok_or_else(|| format!("there is no image {image} in pool {}", pool.name()))?;
    if found.is_striped() || info.is_striped() {
        return Err("the extents of striped images are not in the order of their bytes".to_owned());
    }
    let snapshots = pool.snapshots(&image).map_err(|error| error.text)?;
    let volume = VolumeImage { pool: pool.clone(), image, snapshots, snapshot: name.clone() };
    volume.has(&name, made)?;
    Ok(volume)
}

struct VolumeImage<'a> {
    pool: Pool<'a>,
    image: String,
    snapshots: Vec<SnapshotInfo>,
    /// The snapshot that the backup was made of.
    snapshot: String,
}

impl VolumeImage<'_> {
    /// Checks that the volume still has the snapshot that the backup was copied from. `copied` is the time of the copy: a snapshot that was
    /// made later is another one with the same name.
    fn has(&self, snapshot: &str, copied: Option<Timestamp>) -> Result<(), String> {
        let about = self.about(snapshot);
        match self.snapshots.iter().find(|have| have.name == snapshot) {
            None => Err(format!("{about} no longer exists (backup_ceph_max_snapshots removes the oldest ones)")),
            Some(have) if is_newer(have.created, copied) == Some(true) => Err(format!("{about} was made after the backup")),
            Some(_) => Ok(()),
        }
    }

    fn about(&self, snapshot: &str) -> String {
        format!("{}/{}@{snapshot}", self.pool.name(), self.image)
    }
}

fn compare_with(data: &ImageData<'_>, at: Option<&str>, volume: &VolumeImage<'_>) -> Result<Difference, StorageError> {
    let backup = data.pool.export(&data.image.info.name, at)?;
    let original = volume.pool.export(&volume.image, Some(&volume.snapshot))?;
    data.watch.announce(data.image.extents.bytes);
    let progress = ReadProgress::new(data.watch, data.image.extents.bytes);
    compare_images(ExportWindows::begin(backup, Some(progress))?, ExportWindows::begin(original, None)?)
}

/// The ranges of an image that changed between two snapshots.
fn changed_ranges(pool: &Pool<'_>, image: &str, since: &SnapshotInfo, at: &SnapshotInfo) -> Result<RangeSet, String> {
    let mut ranges = RangeSet::default();
    pool.extents(image, ExtentQuery { since: Some(&since.name), at: Some(&at.name), by_map: false }, &mut |extent| {
        ranges.add(extent.offset..extent.offset.saturating_add(extent.length));
        if ranges.len() > MOST_EXTENTS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(|error| error.text)?;
    if ranges.len() > MOST_EXTENTS { Err(format!("{image} has too many extents to be compared")) } else { Ok(ranges) }
}

fn add_difference(result: &mut CheckResult, data: &ImageData<'_>, volume: &VolumeImage<'_>, difference: &Difference) {
    let source = volume.about(&volume.snapshot);
    result.depth = format!("all {} bytes read and compared with {source}", result.bytes.checked);
    if difference.count == 0 {
        // Every byte is as it was, so nothing of what looked like damage is.
        result.warnings.append(&mut result.problems);
        result.verdict = CheckVerdict::Intact;
        result.level_reached = Some(Level::Restore);
        result.service_metadata = service_metadata(data.subject.backup, data.image);
        return;
    }
    let info = &data.image.info;
    let mut objects: Vec<u64> = difference.offsets.iter().map(|offset| offset / info.object_size).collect();
    objects.dedup();
    for object in objects {
        let text = format!("differs from {source} in its bytes from {} on", object * info.object_size);
        result.problems.push(Problem::of(format!("{}.{object:016x}", info.object_prefix), ProblemCode::Differs, text));
    }
    let more = difference.count.saturating_sub(difference.offsets.len() as u64);
    if more > 0 {
        result.problems.push(Problem::of(
            &info.name,
            ProblemCode::Differs,
            format!("differs from {source} in {more} more windows of {WINDOW} bytes"),
        ));
    }
    result.verdict = CheckVerdict::Corrupt;
    result.service_metadata = None;
}

fn give_up(result: &mut CheckResult, image: &str, error: &StorageError) {
    result.service_metadata = None;
    // A read error is not proof of damage on any storage, and nothing is decided by it.
    result.verdict = CheckVerdict::Unverifiable;
    if error.kind == StorageErrorKind::Media {
        result.problems.push(Problem::of(image, ProblemCode::Unreadable, format!("both reads ended with an error: {error}")));
        result.depth = "read as far as possible".to_owned();
    } else {
        result.problems.push(unanswered(error));
        result.depth.push_str("; the data could not be read to its end");
    }
}

fn read_all(data: &ImageData<'_>, at: Option<&str>) -> Result<u64, StorageError> {
    let mut export = data.pool.export(&data.image.info.name, at)?;
    data.watch.announce(data.image.extents.bytes);
    let mut progress = ReadProgress::new(data.watch, data.image.extents.bytes);
    let mut bytes = 0_u64;
    while let Some(segment) = export.next_segment()? {
        bytes = bytes.saturating_add(segment.length);
        progress.add(segment.length);
    }
    Ok(bytes)
}

/// An export as windows of bytes.
struct ExportWindows<'a, R> {
    export: ExportReader<R>,
    /// The progress of the read, if it is reported.
    progress: Option<ReadProgress<'a>>,
    /// The rest of the current segment, the next bytes that may not be zeros; `None` after the last.
    segment: Option<Segment>,
    /// The least offset of the next segment.
    from: u64,
}

impl<'a, R: Read> ExportWindows<'a, R> {
    fn begin(export: ExportReader<R>, progress: Option<ReadProgress<'a>>) -> Result<Self, StorageError> {
        let mut windows = Self { export, progress, segment: None, from: 0 };
        windows.advance()?;
        Ok(windows)
    }

    fn advance(&mut self) -> Result<(), StorageError> {
        self.segment = loop {
            match self.export.next_segment()? {
                Some(segment) if segment.offset < self.from => {
                    return Err(StorageError::new(StorageErrorKind::Protocol, "the extents of an export are not in order"));
                }
                Some(segment) => {
                    self.from = segment.offset.saturating_add(segment.length);
                    if let Some(progress) = &mut self.progress {
                        progress.add(segment.length);
                    }
                    if !segment.zero {
                        break Some(segment);
                    }
                }
                None => break None,
            }
        };
        Ok(())
    }

    /// Fills a window that begins at `start`, which must not be after the current segment.
    fn fill(&mut self, start: u64, window: &mut [u8]) -> Result<(), StorageError> {
        window.fill(0);
        let end = start.saturating_add(window.len() as u64);
        while let Some(Segment { offset, .. }) = self.segment.filter(|segment| segment.offset < end) {
            let at = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            let count = match window.get_mut(at..) {
                Some(part) => self.export.read_segment(part)?,
                None => 0,
            };
            match &mut self.segment {
                Some(segment) if count > 0 && segment.length > count as u64 => {
                    segment.offset += count as u64;
                    segment.length -= count as u64;
                }
                _ => self.advance()?,
            }
        }
        Ok(())
    }
}

/// Compares two images, byte by byte.
fn compare_images(mut one: ExportWindows<'_, impl Read>, mut other: ExportWindows<'_, impl Read>) -> Result<Difference, StorageError> {
    let mut difference = Difference::default();
    let size = usize::try_from(WINDOW).unwrap_or(1 << 20);
    let (mut left, mut right) = (vec![0; size], vec![0; size]);
    loop {
        let Some(next) = one.segment.iter().chain(&other.segment).map(|segment| segment.offset).min() else {
            return Ok(difference);
        };
        let start = next - next % WINDOW;
        one.fill(start, &mut left)?;
        other.fill(start, &mut right)?;
        if left != right {
            difference.count += 1;
            if difference.offsets.len() < NAMED {
                difference.offsets.push(start);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::storage::ceph::export::samples::stream;

    const SIZE: u64 = 64 << 20;

    type Segments<'a> = &'a [(u64, Result<&'a [u8], u64>)];

    fn difference(one: Segments<'_>, other: Segments<'_>) -> Result<Difference, StorageError> {
        let (one, other) = (stream(SIZE, one), stream(SIZE, other));
        let open = |bytes| ExportReader::new(bytes, "x").and_then(|export| ExportWindows::begin(export, None));
        compare_images(open(one.as_slice())?, open(other.as_slice())?)
    }

    fn offsets(one: Segments<'_>, other: Segments<'_>) -> Vec<u64> {
        let there = difference(one, other).unwrap();
        assert_eq!(there, difference(other, one).unwrap(), "the order does not matter");
        assert_eq!(there.count, there.offsets.len() as u64);
        there.offsets
    }

    #[test]
    fn the_same_bytes_in_other_extents_are_equal() {
        let big = vec![7; 3 << 20];
        let (first, second) = big.split_at(1_234_567);
        let cut = [(100, Ok(first)), (100 + 1_234_567, Ok(second))];
        assert!(offsets(&[(100, Ok(&big))], &cut).is_empty());
        // Zeros written, zeros made and nothing at all.
        let zeros = vec![0; 5 << 20];
        assert!(offsets(&[(0, Ok(&zeros))], &[(4 << 20, Err(1 << 20))]).is_empty());
        assert!(offsets(&[], &[]).is_empty());
    }

    #[test]
    fn one_wrong_byte_is_found_anywhere() {
        let good = vec![7; 2 << 20];
        for place in [0, 1, WINDOW - 1, WINDOW, (2 << 20) - 1] {
            let mut bad = good.clone();
            bad[usize::try_from(place).unwrap()] = 8;
            assert_eq!(offsets(&[(3 << 20, Ok(&good))], &[(3 << 20, Ok(&bad))]), [(3 << 20) + place / WINDOW * WINDOW], "{place}");
        }
        assert_eq!(offsets(&[(SIZE - 1, Ok(b"x"))], &[]), [SIZE - WINDOW]);
    }

    #[test]
    fn bytes_of_only_one_image_are_a_difference() {
        assert_eq!(offsets(&[(5, Ok(b"a")), (9 << 20, Ok(b"b"))], &[(5, Ok(b"a"))]), [9 << 20]);
        assert_eq!(offsets(&[(0, Ok(b"abc"))], &[(1, Ok(b"abc"))]), [0]);
    }

    #[test]
    fn many_differences_are_counted_and_some_listed() {
        let runs: Vec<(u64, Result<&[u8], u64>)> = (0..SIZE / WINDOW).map(|window| (window * WINDOW, Ok(b"x".as_slice()))).collect();
        assert_eq!(difference(&runs, &[]).unwrap().count, 64);
    }

    #[test]
    fn an_export_without_order_or_end_is_an_error() {
        assert_eq!(difference(&[(9, Ok(b"a")), (5, Ok(b"a"))], &[]).unwrap_err().kind, StorageErrorKind::Protocol);
        let whole = stream(SIZE, &[(0, Ok(b"abc"))]);
        let cut = &whole[..whole.len() - 1];
        let open = |bytes| ExportWindows::begin(ExportReader::new(bytes, "x").unwrap(), None).unwrap();
        assert_eq!(compare_images(open(cut), open(whole.as_slice())).unwrap_err().kind, StorageErrorKind::Protocol);
    }
}
