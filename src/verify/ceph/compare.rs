//! Reads a backup's data, and compares it with the volume's own where that still has the same snapshot.
//!
//! Images are compared as what their exports say and zeros elsewhere, so that it does not matter in which extents, or
//! whether at all, either side keeps its zeros. Memory is bounded by two windows.

use std::io::Read;
use std::ops::{ControlFlow, Range};

use jiff::Timestamp;

use super::judge::{is_named_after, is_newer, service_metadata};
use super::names::{self, backup_of_snapshot};
use super::observe::ObservedImage;
use super::unfinished;
use crate::domain::{CheckVerdict, Level, Problem, ProblemCode};
use crate::storage::ceph::export::{ExportReader, Segment};
use crate::storage::ceph::{Pool, SnapshotInfo};
use crate::storage::{StorageError, StorageErrorKind};
use crate::verify::{Assessment, Subject, Watch};

/// So much is compared at a time.
const WINDOW: u64 = 1 << 20;
/// So many places that differ are named; more are counted.
const NAMED: usize = 100;

/// Images of more extents than this are not compared by extents.
const MOST_EXTENTS: usize = 1 << 20;

/// What is to be read.
pub(super) struct Comparison<'a> {
    pub pool: &'a Pool<'a>,
    pub image: &'a ObservedImage,
    pub subject: &'a Subject<'a>,
    /// When the object of metadata was written.
    pub finished: Option<Timestamp>,
    pub watch: &'a Watch,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Difference {
    /// Where windows begin that differ, the first of them.
    pub places: Vec<u64>,
    /// How many they are.
    pub count: u64,
}

/// Reads everything and adds to the assessment what comes of it.
pub(super) fn deepen(assessment: &mut Assessment, data: &Comparison<'_>, source: Option<&Pool<'_>>) {
    let name = &data.image.info.name;
    let Subject { backup, level, .. } = *data.subject;
    let end = data.image.snapshots_of(&backup.id).next();
    let at = end.map(|end| end.name.as_str());
    assessment.reached = None;
    let (bytes, second) = match twice(|| read_all(data, at)) {
        Ok(read) => read,
        Err(error) => return give_up(assessment, name, &error),
    };
    assessment.bytes.checked = bytes;
    assessment.depth = format!("looked at, and all {bytes} bytes of it read; Ceph's driver stores no digest");
    if second {
        assessment.warnings.push(Problem::of(
            name,
            ProblemCode::SecondRead,
            "the cluster gave an error on the first read and none on the second",
        ));
    }
    // Zeros are extents of a copy too, so that an export is never shorter than the list of extents.
    if bytes < data.image.held.bytes {
        assessment.verdict = CheckVerdict::Incomplete;
        let text = format!("an export gives {bytes} bytes, and its extents are {}", data.image.held.bytes);
        assessment.problems.push(Problem::of(name, ProblemCode::ExportShort, text));
        assessment.service_metadata = None;
        return;
    }
    let volume = original(data, end, source).unwrap_or_else(|error| Err(error.text));
    let mut lacking = Vec::new();
    if level == Level::Restore {
        let compared = volume.as_ref().map_err(String::clone).and_then(|volume| {
            let difference = compare_with(data, at, volume).map_err(|error| error.text)?;
            Ok((volume, difference))
        });
        match compared {
            Ok((volume, difference)) => return differs(assessment, data, volume, &difference),
            Err(why) => lacking.push(format!("its bytes were not compared with the volume's: {why}")),
        }
    }
    let reached = match trace(assessment, data, end, volume.as_ref()) {
        Ok(()) => Level::Deep,
        Err(why) => {
            lacking.push(why);
            Level::Quick
        }
    };
    if assessment.verdict != CheckVerdict::Intact {
        // A doubt remains.
        lacking.iter().for_each(|why| assessment.depth.push_str(&format!("; {why}")));
        return;
    }
    assessment.reached = Some(reached);
    if reached < level {
        assessment.verdict = CheckVerdict::Unverifiable;
        let text = format!("intact at level {reached}, and level {level} was not reached: {}", lacking.join("; "));
        assessment.problems.push(Problem::general(ProblemCode::LevelNotReached, text));
    }
}

/// Follows a backup's data from an empty image to its snapshot. `rbd import-diff` makes the snapshot after the last byte, and nobody
/// can write to a snapshot; so the bytes are right if the image was empty before the first import and nothing but imports wrote to
/// it. Otherwise says why that is not known.
fn trace(
    assessment: &mut Assessment,
    data: &Comparison<'_>,
    end: Option<&SnapshotInfo>,
    volume: Result<&VolumeImage<'_>, &String>,
) -> Result<(), String> {
    let Subject { backup, ancestors, .. } = *data.subject;
    let name = &data.image.info.name;
    let Some(end) = end else {
        return Err("it is a copy, and nothing tells whether its bytes are still those that were written".to_owned());
    };
    let ids: Vec<&str> = ancestors.iter().rev().map(|ancestor| ancestor.id.as_str()).chain([backup.id.as_str()]).collect();
    let snapshots: Vec<&SnapshotInfo> = ids.iter().filter_map(|id| data.image.snapshots_of(id).next()).collect();
    let first = data.image.snapshots.iter().find(|snapshot| backup_of_snapshot(&snapshot.name).is_some());
    let is_first = ids.first().is_some_and(|id| is_named_after(data.image, id)) && snapshots.first().copied() == first;
    if !is_first || snapshots.len() != ids.len() || !snapshots.is_sorted_by_key(|snapshot| snapshot.id) {
        return Err(format!("the snapshots on {name} are not those of its chain, from the first on"));
    }
    let is_as_made = |made: Option<Timestamp>, finished: Option<Timestamp>| is_newer(made, finished) == Some(false);
    if !is_as_made(end.created, data.finished) {
        return Err(format!("it is not known whether {} was made before the backup was finished", end.name));
    }
    if snapshots.len() == 1 {
        assessment.depth.push_str("; its snapshot, which comes with the last byte, is the first on an image that was made for it");
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
        volume.has(since).and_then(|()| volume.has(at))?;
        let here = changed(data.pool, name, since, at)?;
        let there = changed(&volume.pool, &volume.image, since, at)?;
        // An import leaves out zeros, so that less may have changed here.
        more += bytes_without(&here, &there);
    }
    assessment.depth.push_str(&format!("; its extents and those of its chain compared with those of {}", volume.about(&end.name)));
    if more > 0 {
        let text = format!(
            "{more} bytes changed in it or below it that did not change in {}: an increment that was cut off may have left them; \
             `--level restore` compares the bytes themselves",
            volume.about(&end.name)
        );
        assessment.problems.push(Problem::of(format!("{name}@{}", end.name), ProblemCode::ExtentsDiffer, text));
        assessment.verdict = CheckVerdict::Unverifiable;
        assessment.service_metadata = None;
    }
    Ok(())
}

/// The volume's image and its snapshot of the same time, or why there is none.
fn original<'a>(
    data: &Comparison<'_>,
    end: Option<&SnapshotInfo>,
    source: Option<&Pool<'a>>,
) -> Result<Result<VolumeImage<'a>, String>, StorageError> {
    let Some(pool) = source else { return Ok(Err("--ceph-source-pool was not given".to_owned())) };
    let backup = data.subject.backup;
    let Some(volume) = backup.volume_id.as_deref() else { return Ok(Err("the row names no volume".to_owned())) };
    // `volume_name_template` and `snapshot_name_template` as nearly everybody leaves them.
    let image = format!("volume-{volume}");
    let info = &data.image.info;
    let (name, made) = match (end, backup.snapshot_id.as_deref()) {
        (Some(end), _) => (end.name.clone(), end.created),
        (None, Some(id)) => (format!("snapshot-{id}"), info.created),
        (None, None) => return Ok(Err("it is a copy of a volume that is no RBD image".to_owned())),
    };
    let Some(found) = pool.image(&image)? else { return Ok(Err(format!("there is no image {image} in pool {}", pool.name()))) };
    if found.striped || info.striped {
        return Ok(Err("striped images do not come in the order of their bytes".to_owned()));
    }
    let snapshots = pool.snapshots(&image)?;
    let volume = VolumeImage { pool: pool.clone(), image, snapshots, snapshot: name.clone() };
    Ok(volume.has(&SnapshotInfo { id: 0, name, size: 0, created: made }).map(|()| volume))
}

struct VolumeImage<'a> {
    pool: Pool<'a>,
    image: String,
    snapshots: Vec<SnapshotInfo>,
    /// The one that the backup was made of.
    snapshot: String,
}

impl VolumeImage<'_> {
    /// Makes sure that it still has the snapshot that one on the backup's image was made of. One that was made later is another.
    fn has(&self, copy: &SnapshotInfo) -> Result<(), String> {
        let about = self.about(&copy.name);
        match self.snapshots.iter().find(|have| have.name == copy.name) {
            None => Err(format!("{about} is not there any more")),
            Some(have) if is_newer(have.created, copy.created) == Some(true) => Err(format!("{about} was made after the backup")),
            Some(_) => Ok(()),
        }
    }

    fn about(&self, snapshot: &str) -> String {
        format!("{}/{}@{snapshot}", self.pool.name(), self.image)
    }
}

fn compare_with(data: &Comparison<'_>, at: Option<&str>, volume: &VolumeImage<'_>) -> Result<Difference, StorageError> {
    let backup = data.pool.export(&data.image.info.name, at)?;
    let original = volume.pool.export(&volume.image, Some(&volume.snapshot))?;
    let told = ReadProgress::new(data.watch, data.image.held.bytes);
    compare(&mut ExportWindows::new(backup).telling(told), &mut ExportWindows::new(original))
}

/// What changed in an image between two snapshots, in order and merged.
fn changed(pool: &Pool<'_>, image: &str, since: &SnapshotInfo, at: &SnapshotInfo) -> Result<Vec<Range<u64>>, String> {
    let mut list: Vec<Range<u64>> = Vec::new();
    let range = crate::storage::ceph::ExtentQuery { since: Some(&since.name), at: Some(&at.name), by_map: false };
    pool.extents(image, range, &mut |extent| {
        let end = extent.offset.saturating_add(extent.length);
        match list.last_mut() {
            Some(last) if last.end == extent.offset => last.end = end,
            _ => list.push(extent.offset..end),
        }
        if list.len() > MOST_EXTENTS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(|error| error.text)?;
    if list.len() > MOST_EXTENTS { Err(format!("the extents of {image} are too many to be compared")) } else { Ok(list) }
}

/// How many bytes are in some ranges and not in others; both in order.
fn bytes_without(these: &[Range<u64>], others: &[Range<u64>]) -> u64 {
    let mut bytes = 0_u64;
    let mut others = others.iter().peekable();
    for range in these {
        let mut from = range.start;
        while let Some(other) = others.peek() {
            if other.end <= from {
                others.next();
                continue;
            }
            if other.start >= range.end {
                break;
            }
            bytes = bytes.saturating_add(other.start.saturating_sub(from));
            from = other.end;
            if from >= range.end {
                break;
            }
        }
        bytes = bytes.saturating_add(range.end.saturating_sub(from));
    }
    bytes
}

fn differs(assessment: &mut Assessment, data: &Comparison<'_>, volume: &VolumeImage<'_>, difference: &Difference) {
    let source = volume.about(&volume.snapshot);
    assessment.depth = format!("all {} bytes read and compared with {source}", assessment.bytes.checked);
    if difference.count == 0 {
        // Every byte is as it was: what was in doubt is no more.
        assessment.warnings.append(&mut assessment.problems);
        assessment.verdict = CheckVerdict::Intact;
        assessment.reached = Some(Level::Restore);
        assessment.service_metadata = service_metadata(data.subject.backup, data.image);
        return;
    }
    let info = &data.image.info;
    let mut named: Vec<u64> = difference.places.iter().map(|place| place / info.object_size).collect();
    named.dedup();
    for object in named {
        let text = format!("not as in {source}, in its bytes from {} on", object * info.object_size);
        assessment.problems.push(Problem::of(format!("{}.{object:016x}", info.object_prefix), ProblemCode::Differs, text));
    }
    let unnamed = difference.count.saturating_sub(difference.places.len() as u64);
    if unnamed > 0 {
        assessment.problems.push(Problem::of(
            &info.name,
            ProblemCode::Differs,
            format!("not as in {source} in {unnamed} more places of {WINDOW} bytes"),
        ));
    }
    assessment.verdict = CheckVerdict::Corrupt;
    assessment.service_metadata = None;
}

fn give_up(assessment: &mut Assessment, image: &str, error: &StorageError) {
    assessment.service_metadata = None;
    // As on every storage: it differs from a cluster that is down, and nothing is decided by it.
    assessment.verdict = CheckVerdict::Unverifiable;
    if error.kind == StorageErrorKind::Media {
        assessment.problems.push(Problem::of(image, ProblemCode::Unreadable, format!("two reads, and both ended with an error: {error}")));
        assessment.depth = "looked at, and read as far as it can be read".to_owned();
    } else {
        assessment.problems.push(unfinished(error));
        assessment.depth.push_str("; the reading could not be finished");
    }
}

/// Tries once more what failed; whether that was needed.
fn twice<T>(mut read: impl FnMut() -> Result<T, StorageError>) -> Result<(T, bool), StorageError> {
    match read() {
        Ok(value) => Ok((value, false)),
        Err(error) if matches!(error.kind, StorageErrorKind::Media | StorageErrorKind::Transient) => read().map(|value| (value, true)),
        Err(error) => Err(error),
    }
}

fn read_all(data: &Comparison<'_>, at: Option<&str>) -> Result<u64, StorageError> {
    let mut export = data.pool.export(&data.image.info.name, at)?;
    let mut told = ReadProgress::new(data.watch, data.image.held.bytes);
    let mut bytes = 0_u64;
    while let Some(run) = export.next_segment()? {
        bytes = bytes.saturating_add(run.length);
        told.add(run.length);
    }
    Ok(bytes)
}

/// Tells whoever watches how far one reading is. What was announced and does not come, since the reading breaks off or the
/// extents were more than the bytes, is made good at its end, so that several readings add up.
struct ReadProgress<'a> {
    watch: &'a Watch,
    left: u64,
}

impl<'a> ReadProgress<'a> {
    fn new(watch: &'a Watch, expected: u64) -> Self {
        watch.announce(expected);
        Self { watch, left: expected }
    }

    fn add(&mut self, bytes: u64) {
        // Runs of zeros are more than the extents.
        let counted = bytes.min(self.left);
        self.left -= counted;
        self.watch.add(counted);
    }
}

impl Drop for ReadProgress<'_> {
    fn drop(&mut self) {
        self.watch.add(self.left);
    }
}

/// An export as windows of bytes.
struct ExportWindows<'a, R> {
    export: ExportReader<R>,
    /// Who is told of every run.
    told: Option<ReadProgress<'a>>,
    /// What of the current run has not been given, and whether it is zeros.
    run: Option<Segment>,
    begun: bool,
    /// Where the next run may begin.
    from: u64,
}

impl<'a, R: Read> ExportWindows<'a, R> {
    fn new(export: ExportReader<R>) -> Self {
        Self { export, told: None, run: None, begun: false, from: 0 }
    }

    fn telling(self, told: ReadProgress<'a>) -> Self {
        Self { told: Some(told), ..self }
    }

    /// Where the next bytes are that may be other than zeros; `None` behind the last.
    fn next_offset(&mut self) -> Result<Option<u64>, StorageError> {
        if !self.begun {
            self.begun = true;
            self.advance()?;
        }
        Ok(self.run.map(|run| run.offset))
    }

    fn advance(&mut self) -> Result<(), StorageError> {
        self.run = loop {
            match self.export.next_segment()? {
                Some(run) if run.offset < self.from => {
                    return Err(StorageError::new(StorageErrorKind::Protocol, "an export whose extents are not in order"));
                }
                Some(run) => {
                    self.from = run.offset.saturating_add(run.length);
                    if let Some(told) = &mut self.told {
                        told.add(run.length);
                    }
                    if !run.zero {
                        break Some(run);
                    }
                }
                None => break None,
            }
        };
        Ok(())
    }

    /// Fills a window that begins at `start`, not behind [`ExportWindows::next_offset`].
    fn fill(&mut self, start: u64, window: &mut [u8]) -> Result<(), StorageError> {
        window.fill(0);
        let end = start.saturating_add(window.len() as u64);
        while let Some(offset) = self.next_offset()?.filter(|offset| *offset < end) {
            let place = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            let count = match window.get_mut(place..) {
                Some(part) => self.export.read_segment(part)?,
                None => 0,
            };
            match &mut self.run {
                Some(run) if count > 0 && run.length > count as u64 => {
                    run.offset += count as u64;
                    run.length -= count as u64;
                }
                _ => self.advance()?,
            }
        }
        Ok(())
    }
}

/// Compares two images, byte by byte.
fn compare(one: &mut ExportWindows<'_, impl Read>, other: &mut ExportWindows<'_, impl Read>) -> Result<Difference, StorageError> {
    let mut difference = Difference::default();
    let size = usize::try_from(WINDOW).unwrap_or(1 << 20);
    let (mut left, mut right) = (vec![0; size], vec![0; size]);
    loop {
        let next = match (one.next_offset()?, other.next_offset()?) {
            (None, None) => return Ok(difference),
            (Some(offset), None) | (None, Some(offset)) => offset,
            (Some(left), Some(right)) => left.min(right),
        };
        let start = next - next % WINDOW;
        one.fill(start, &mut left)?;
        other.fill(start, &mut right)?;
        if left != right {
            difference.count += 1;
            if difference.places.len() < NAMED {
                difference.places.push(start);
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

    type Runs<'a> = &'a [(u64, Result<&'a [u8], u64>)];

    fn difference(one: Runs<'_>, other: Runs<'_>) -> Result<Difference, StorageError> {
        let (one, other) = (stream(SIZE, one), stream(SIZE, other));
        let open = |bytes| ExportReader::new(bytes, "x").map(ExportWindows::new);
        compare(&mut open(one.as_slice())?, &mut open(other.as_slice())?)
    }

    fn places(one: Runs<'_>, other: Runs<'_>) -> Vec<u64> {
        let there = difference(one, other).unwrap();
        assert_eq!(there, difference(other, one).unwrap(), "the order does not matter");
        assert_eq!(there.count, there.places.len() as u64);
        there.places
    }

    #[test]
    fn the_same_bytes_in_other_extents_are_the_same() {
        let big = vec![7; 3 << 20];
        let (first, second) = big.split_at(1_234_567);
        let cut = [(100, Ok(first)), (100 + 1_234_567, Ok(second))];
        assert!(places(&[(100, Ok(&big))], &cut).is_empty());
        // Zeros written, zeros made and nothing at all.
        let zeros = vec![0; 5 << 20];
        assert!(places(&[(0, Ok(&zeros))], &[(4 << 20, Err(1 << 20))]).is_empty());
        assert!(places(&[], &[]).is_empty());
    }

    #[test]
    fn one_other_byte_is_found_wherever_it_is() {
        let good = vec![7; 2 << 20];
        for place in [0, 1, WINDOW - 1, WINDOW, (2 << 20) - 1] {
            let mut bad = good.clone();
            bad[usize::try_from(place).unwrap()] = 8;
            assert_eq!(places(&[(3 << 20, Ok(&good))], &[(3 << 20, Ok(&bad))]), [(3 << 20) + place / WINDOW * WINDOW], "{place}");
        }
        assert_eq!(places(&[(SIZE - 1, Ok(b"x"))], &[]), [SIZE - WINDOW]);
    }

    #[test]
    fn what_only_one_side_has_is_a_difference() {
        assert_eq!(places(&[(5, Ok(b"a")), (9 << 20, Ok(b"b"))], &[(5, Ok(b"a"))]), [9 << 20]);
        assert_eq!(places(&[(0, Ok(b"abc"))], &[(1, Ok(b"abc"))]), [0]);
    }

    #[test]
    fn ranges_are_taken_from_ranges() {
        type Pairs<'a> = &'a [(u64, u64)];
        let ranges = |pairs: Pairs<'_>| pairs.iter().map(|(from, to)| *from..*to).collect::<Vec<_>>();
        let cases: [(Pairs<'_>, Pairs<'_>, u64); 7] = [
            (&[(0, 10)], &[], 10),
            (&[], &[(0, 10)], 0),
            (&[(0, 10)], &[(0, 10)], 0),
            (&[(0, 10), (20, 30)], &[(5, 25)], 10),
            (&[(0, 100)], &[(10, 20), (30, 40), (90, 200)], 70),
            (&[(10, 20), (30, 40)], &[(0, 5), (6, 50)], 0),
            (&[(0, 10), (10, 20)], &[(3, 4), (15, 16), (16, 17)], 17),
        ];
        for (these, others, bytes) in cases {
            assert_eq!(bytes_without(&ranges(these), &ranges(others)), bytes, "{these:?} {others:?}");
        }
    }

    #[test]
    fn many_places_are_counted_and_some_named() {
        let runs: Vec<(u64, Result<&[u8], u64>)> = (0..SIZE / WINDOW).map(|window| (window * WINDOW, Ok(b"x".as_slice()))).collect();
        assert_eq!(difference(&runs, &[]).unwrap().count, 64);
    }

    #[test]
    fn an_export_without_order_or_end_is_no_comparison() {
        assert_eq!(difference(&[(9, Ok(b"a")), (5, Ok(b"a"))], &[]).unwrap_err().kind, StorageErrorKind::Protocol);
        let whole = stream(SIZE, &[(0, Ok(b"abc"))]);
        let cut = &whole[..whole.len() - 1];
        let mut one = ExportWindows::new(ExportReader::new(cut, "x").unwrap());
        let mut other = ExportWindows::new(ExportReader::new(whole.as_slice(), "x").unwrap());
        assert_eq!(compare(&mut one, &mut other).unwrap_err().kind, StorageErrorKind::Protocol);
    }
}
