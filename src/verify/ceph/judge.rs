//! Decides what the answers of a cluster mean. Pure.
//!
//! For a backup that is a snapshot, the snapshot proves the data: `rbd import-diff` makes it last. For a copy, the extents do. The
//! metadata object shows in both cases that the driver wrote all data, but alone it proves nothing: the deletion of one backup can
//! remove the image of another that is still listed.

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use super::names::{self, BackupNames, Shape};
use super::observe::{Observation, ObservedImage};
use crate::domain::id::same;
use crate::domain::time::stamp;
use crate::domain::{Amount, Backup, CheckResult, CheckVerdict, Level, Listing, PrecheckListing, Problem, ProblemCode, time};
use crate::storage::ceph::{ImageInfo, SnapshotInfo};
use crate::verify::{Severity, Subject};

/// Clocks of a cluster and its clients may differ by this much.
const CLOCKS: SignedDuration = SignedDuration::from_secs(60);
/// The most objects that are listed. More are counted.
const NAMED: usize = 100;

/// Whether a problem may turn out not to be damage. A comparison of the bytes with the volume's decides.
pub(super) fn is_possible_damage(problem: &Problem) -> bool {
    use ProblemCode::{ExtentsDiffer, ImageNewer, ObjectsDoubtful, SnapshotNewer, SnapshotOrder};
    matches!(problem.code.known(), Some(ObjectsDoubtful | SnapshotNewer | SnapshotOrder | ImageNewer | ExtentsDiffer))
}

/// Whether something was made after the metadata object, which the driver writes last; `None` if a time is not known. The times are
/// from two clocks: that of an OSD, and that of the host that made the backup.
pub(super) fn is_newer(made: Option<Timestamp>, meta: Option<Timestamp>) -> Option<bool> {
    Some(made?.duration_since(meta?) > CLOCKS)
}

/// A verdict that is being decided.
struct Judgement<'a> {
    subject: &'a Subject<'a>,
    names: &'a BackupNames,
    observed: &'a Observation,
    severity: Option<Severity>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Judges a backup without reading its data.
pub(super) fn judge(subject: &Subject<'_>, names: &BackupNames, observed: &Observation) -> CheckResult {
    let backup = subject.backup;
    let mut judgement = Judgement { subject, names, observed, severity: None, problems: Vec::new(), warnings: Vec::new() };
    let image = observed.image.as_ref();
    let end = image.and_then(|image| image.end_of(&backup.id));
    let expected = match image {
        Some(image) if end.is_some() => judgement.snapshot(image),
        Some(image) if names.shape == Shape::Snapshot => judgement.without_snapshot(image),
        Some(image) => judgement.copy(image),
        None => judgement.without_image(),
    };
    judgement.meta();
    if let Some(image) = image {
        judgement.lost(image);
        judgement.writers(image);
    }
    judgement.configuration(end.is_some());

    let objects = parts(backup, names, observed);
    let begun = objects > 0;
    let newest = newest(observed, backup, begun);
    let is_complete = judgement.severity <= Some(Severity::Unverifiable);
    // On a base image with a chain, a writer works on a later backup once this one is complete.
    let is_open = image.is_some_and(|image| !image.watchers.is_empty()) && !(is_complete && end.is_some());
    let busy = is_open || (begun && newest.is_some_and(|newest| subject.is_young(subject.now.duration_since(newest))));
    let verdict = if is_complete || begun { Severity::verdict(judgement.severity) } else { CheckVerdict::Missing };
    CheckResult {
        level_reached: (verdict == CheckVerdict::Intact).then_some(Level::Quick),
        busy,
        begun,
        bytes: Amount { checked: image.map_or(0, |image| if expected == 0 { 0 } else { image.extents.bytes }), expected },
        warnings: judgement.warnings,
        service_metadata: image.filter(|_| verdict == CheckVerdict::Intact).and_then(|image| service_metadata(backup, image)),
        newest_object_at: newest.filter(|_| has_times(observed)).map(stamp),
        listing: Some(Listing { objects, bytes: image.filter(|image| is_in(backup, names, image)).map_or(0, |image| image.extents.bytes) }),
        // It has no listing of its ancestors: a snapshot is a full image, and needs no parent to be restored.
        ..subject.unread(verdict, &depth(image, end.is_some(), names.shape), judgement.problems)
    }
}

/// The parts of a backup and the signs of work, to be compared with what a check saw.
pub(super) fn precheck(backup: &Backup, observed: &Observation, objects: u64, bytes: Result<u64, String>) -> PrecheckListing {
    let newest = newest(observed, backup, objects > 0).filter(|_| has_times(observed));
    let is_open = observed.image.as_ref().is_some_and(|image| {
        let is_complete = observed.meta.is_some() && image.end_of(&backup.id).is_some();
        !image.watchers.is_empty() && !is_complete
    });
    PrecheckListing { objects, bytes, newest_object_at: newest.map(stamp), watched: is_open }
}

/// How many parts of this backup exist: its image, its snapshots, and its metadata object. Only the last can outlive a deletion of the
/// others.
pub(super) fn parts(backup: &Backup, names: &BackupNames, observed: &Observation) -> u64 {
    let image = observed.image.as_ref().filter(|image| is_in(backup, names, image));
    u64::from(observed.meta.is_some()) + image.map_or(0, |image| 1 + image.snapshots_of(&backup.id).count() as u64)
}

/// Whether an image holds a part of this backup: several backups can share one.
pub(super) fn is_in(backup: &Backup, names: &BackupNames, image: &ObservedImage) -> bool {
    image.end_of(&backup.id).is_some() || is_named_after(image, &backup.id) || wrote_to_shared(backup, names, image)
}

/// Whether an image was made for this backup. Its increments may share it.
pub(super) fn is_named_after(image: &ObservedImage, backup: &str) -> bool {
    image.info.name.strip_suffix(backup).is_some_and(|name| name.ends_with(".backup."))
}

/// What must be written to the row of an intact backup, as the driver does at the end.
pub(super) fn service_metadata(backup: &Backup, image: &ObservedImage) -> Option<String> {
    let is_missing = backup.service_metadata.as_deref().is_none_or(str::is_empty);
    let is_snapshot = image.end_of(&backup.id).is_some();
    (is_missing && is_snapshot).then(|| names::service_metadata(&image.info.name))
}

impl Judgement<'_> {
    fn add(&mut self, severity: Severity, problem: Problem) {
        self.severity = self.severity.max(Some(severity));
        self.problems.push(problem);
    }

    /// Bytes of the volume according to the row.
    fn size(&self) -> Option<u64> {
        self.subject.backup.volume_bytes()
    }

    /// Checks a backup with a snapshot, so that all of its data was transferred; returns the bytes that it must have.
    fn snapshot(&mut self, image: &ObservedImage) -> u64 {
        let name = &image.info.name;
        let ends: Vec<_> = image.snapshots_of(&self.subject.backup.id).collect();
        if ends.len() > 1 {
            let text = format!("{} snapshots of this backup, but the driver accepts only one", ends.len());
            self.add(Severity::Corrupt, Problem::of(name, ProblemCode::SnapshotTwice, text));
        }
        for end in ends {
            self.check_remade(image, end);
            if let Some(size) = self.size().filter(|size| *size != end.size) {
                let text = format!("the snapshot holds a volume of {} bytes, but the row says {size}", end.size);
                self.add(Severity::Corrupt, Problem::of(format!("{name}@{}", end.name), ProblemCode::Size, text));
            }
        }
        self.size_known();
        // It was sent to this image as the changes since the snapshot of its parent.
        if let Some(problem) = self.subject.parent_of_another_volume() {
            self.add(Severity::Corrupt, problem);
        }
        for ancestor in self.subject.ancestors {
            // A snapshot is a full image: it needs no parent to be restored.
            let (code, what) = match image.end_of(&ancestor.id) {
                None => (ProblemCode::AncestorMissing, "there is no snapshot"),
                Some(snapshot) if image.snapshots_of(&self.subject.backup.id).any(|end| end.id < snapshot.id) => {
                    (ProblemCode::AncestorRemade, "after this backup's own snapshot was made, someone recreated the snapshot")
                }
                Some(_) => continue,
            };
            let text = format!(
                "{what} of backup {}, which this one is based on: this one can be restored, that one cannot; make the next backup of the \
                 volume a full one",
                ancestor.id
            );
            self.warnings.push(Problem::of(name, code, text));
        }
        if image.dirty == Some(true) {
            let text = "it was written to after its last backup, by an increment that was cut off: bytes that the next increment does not \
                        overwrite stay in it, so make the next backup of the volume a full one";
            self.warnings.push(Problem::of(name, ProblemCode::BaseDirty, text));
        }
        image.extents.bytes
    }

    /// Finds a snapshot that was removed and made again under its name, and so holds what the image held then. The driver makes the
    /// snapshot before the metadata object, and before the snapshots of later backups.
    fn check_remade(&mut self, image: &ObservedImage, end: &SnapshotInfo) {
        let meta = self.observed.meta.as_ref().and_then(|meta| meta.modified);
        let begun = names::begun(&end.name);
        let is_later =
            |name: &str| names::backup_of_snapshot(name).and(names::begun(name)).zip(begun).is_some_and(|(other, own)| other > own);
        let later = image.snapshots.iter().find(|other| other.id < end.id && is_later(&other.name));
        let is_newer = is_newer(end.created, meta);
        // The image was made when the backup began: it was not copied, and the clocks agree.
        let is_original = is_named_after(image, &self.subject.backup.id)
            && image.info.created.zip(begun).is_some_and(|(made, begun)| (made.as_second() as f64 - begun).abs() <= CLOCKS.as_secs_f64());
        let times = match (end.created, meta) {
            (Some(made), Some(meta)) => format!("it was made at {made}, and the backup was finished at {meta}"),
            _ => "it is not known when it was made, or when the backup was finished".to_owned(),
        };
        let after = later.map_or_else(String::new, |later| format!("it was made after {}, which belongs to a later backup; ", later.name));
        let name = format!("{}@{}", image.info.name, end.name);
        match (is_newer, later) {
            (Some(true), _) if later.is_some() || is_original => {
                let text = format!("{after}{times}: someone removed and recreated it, so it holds what the image held then");
                self.add(Severity::Corrupt, Problem::of(name, ProblemCode::SnapshotRemade, text));
            }
            (_, Some(_)) => {
                let text = format!("{after}{times}: someone recreated it, or the clocks of the hosts that made the backups differ");
                self.add(Severity::Unverifiable, Problem::of(name, ProblemCode::SnapshotOrder, text));
            }
            (Some(true), None) => {
                let text = format!(
                    "{times}: someone recreated it, or the image was copied or mirrored later, or the clocks of the OSDs and of \
                     cinder-backup differ; `--level restore --ceph-source-pool POOL` compares the bytes with the volume's"
                );
                self.add(Severity::Unverifiable, Problem::of(name, ProblemCode::SnapshotNewer, text));
            }
            (None, None) if self.observed.meta.is_some() => {
                self.warnings.push(Problem::of(name, ProblemCode::SnapshotUndated, format!("{times}: it may have been recreated")));
            }
            _ => {}
        }
    }

    /// Checks a backup that is a snapshot according to its row, but has none. It is not known how many bytes it must have.
    fn without_snapshot(&mut self, image: &ObservedImage) -> u64 {
        let mut text = format!(
            "no snapshot backup.{}.snap.*, which the driver makes after the last byte: the transfer did not end, or never began",
            self.subject.backup.id
        );
        if image.dirty == Some(true) {
            text.push_str("; what it wrote is in the image, and the next increment may keep some of it: make the next backup a full one");
        }
        self.add(Severity::Incomplete, Problem::of(&image.info.name, ProblemCode::SnapshotMissing, text));
        0
    }

    /// Checks a copy: every byte of the volume must be in an extent. Returns the bytes that it must have.
    fn copy(&mut self, image: &ObservedImage) -> u64 {
        let name = &image.info.name;
        let size = self.size().unwrap_or(image.info.size);
        if size != image.info.size {
            let text = format!("the image has {} bytes, but the row says {size}", image.info.size);
            self.add(Severity::Corrupt, Problem::of(name, ProblemCode::Size, text));
        }
        self.size_known();
        let extents = &image.extents;
        for range in &extents.holes {
            self.hole(image, range.start, range.end);
        }
        if extents.inner_gap() > 0 {
            let named = extents.holes.len() as u64;
            if extents.hole_count > named || named == 0 {
                let text = format!(
                    "{} of the first {} bytes are missing, in {} holes that are not all listed",
                    extents.inner_gap(),
                    extents.end,
                    extents.hole_count
                );
                self.add(Severity::Incomplete, Problem::of(name, ProblemCode::Hole, text));
            }
        }
        let image_end = image.info.size;
        if extents.end < image_end {
            // The driver stops where its source ends, and a snapshot of a volume that grew later ends early.
            let may_be = extents.bytes > 0 && extents.inner_gap() == 0 && self.observed.meta.is_some() && self.names.shape == Shape::Copy;
            if may_be {
                let text = format!(
                    "nothing after byte {} of {image_end}: right if the snapshot is from before the volume grew, otherwise the end is missing",
                    extents.end
                );
                self.warnings.push(Problem::of(name, ProblemCode::TailHole, text));
            } else {
                self.hole(image, extents.end, image_end);
            }
        }
        self.foreign(image);
        image_end
    }

    /// Adds a missing part of a copy.
    fn hole(&mut self, image: &ObservedImage, from: u64, to: u64) {
        let object = image.info.object_size;
        let (first, last) = (from / object, to.saturating_sub(1) / object);
        let or_snapshot = if self.names.shape == Shape::Either { ", and there is no snapshot that would allow that" } else { "" };
        let text = format!("bytes {from} to {to} were never written (objects {first} to {last}){or_snapshot}");
        self.add(Severity::Incomplete, Problem::of(&image.info.name, ProblemCode::Hole, text));
    }

    /// Finds an image that is not this backup's, or was written to later. Copies of a volume's snapshots share one name, and nothing
    /// writes to a copy once its backup is finished.
    fn foreign(&mut self, image: &ObservedImage) {
        let ImageInfo { created, modified, .. } = image.info;
        let Some(finished) = self.observed.meta.as_ref().and_then(|meta| meta.modified) else { return };
        let is_newer = |time: Option<Timestamp>| time.filter(|_| is_newer(time, Some(finished)) == Some(true));
        if let Some(created) = is_newer(created).filter(|_| !is_named_after(image, &self.subject.backup.id)) {
            let text = format!(
                "made at {created}, after this backup was finished at {finished}: it is the image of another backup, and that of this one is lost"
            );
            self.add(Severity::Corrupt, Problem::of(&image.info.name, ProblemCode::ImageForeign, text));
        } else if let Some(written) = is_newer(created.max(modified)) {
            let text = format!(
                "made or written to at {written}, after this backup was finished at {finished}: someone changed it, or it was copied or \
                 mirrored later, or the clocks of the OSDs and of cinder-backup differ"
            );
            self.add(Severity::Unverifiable, Problem::of(&image.info.name, ProblemCode::ImageNewer, text));
        }
    }

    fn without_image(&mut self) -> u64 {
        let names: Vec<&str> = self.names.images.iter().map(|image| image.name.as_str()).collect();
        let first = names.first().copied().unwrap_or_default();
        let but = if self.observed.meta.is_some() { ", but its metadata object exists: the image was deleted" } else { "" };
        let text = format!("no image {} in pool {}{but}", names.join(" nor "), self.observed.pool);
        self.add(Severity::Incomplete, Problem::of(first, ProblemCode::ImageMissing, text));
        self.size().unwrap_or(0)
    }

    fn meta(&mut self) {
        match &self.observed.meta {
            None => {
                let text = "the metadata object, which is written after the data, does not exist: the driver did not get that far";
                self.add(Severity::Incomplete, Problem::of(&self.names.meta, ProblemCode::MetadataMissing, text));
            }
            Some(meta) => match &meta.content {
                Err(what) => {
                    let text = format!("not the metadata of a volume, so a restore would fail on it: {what}");
                    self.add(Severity::Corrupt, Problem::of(&meta.name, ProblemCode::MetadataInvalid, text));
                }
                Ok(Some(volume)) if !self.subject.backup.volume_id.as_deref().is_some_and(|own| same(own, volume)) => {
                    let text = format!("the metadata of another volume, {volume:?}");
                    self.add(Severity::Corrupt, Problem::of(&meta.name, ProblemCode::MetadataForeign, text));
                }
                Ok(_) => {}
            },
        }
    }

    fn lost(&mut self, image: &ObservedImage) {
        for object in image.lost.objects.iter().take(NAMED) {
            let text = format!("in the object map of {}, but not in the pool: a restore would read zeros", image.info.name);
            self.add(Severity::Incomplete, Problem::of(object, ProblemCode::ObjectMissing, text));
        }
        let more = image.lost.objects.len().saturating_sub(NAMED);
        if more > 0 {
            self.add(
                Severity::Incomplete,
                Problem::of(&image.info.name, ProblemCode::ObjectMissing, format!("{more} more of its objects are not in the pool")),
            );
        }
        if let (Some(object), count) = (image.lost.doubtful.first(), image.lost.doubtful.len()) {
            let text = format!(
                "in the object map of {}, as are {} more, but not in the pool: lost, or never written by an earlier increment that was \
                 cut off; `--level restore` with the pool of the volumes shows which; make the next backup a full one",
                image.info.name,
                count - 1
            );
            // Neither damage nor its absence is proven.
            self.add(Severity::Unverifiable, Problem::of(object, ProblemCode::ObjectsDoubtful, text));
        }
        if image.lost.unexamined > 0 {
            let text = format!("{} more of its objects hold no data, and were not looked up one by one", image.lost.unexamined);
            self.warnings.push(Problem::of(&image.info.name, ProblemCode::ObjectsUnexamined, text));
        }
    }

    fn writers(&mut self, image: &ObservedImage) {
        let (name, watchers) = (&image.info.name, image.watchers.join(", "));
        if !watchers.is_empty() {
            let text = format!("open for writing by {watchers}: that client is working on it, or died less than a minute ago");
            self.warnings.push(Problem::of(name, ProblemCode::ImageOpen, text));
        } else if !image.locks.is_empty() {
            let text = format!("still locked by {}, which is gone: its writer was killed", image.locks.join(", "));
            self.warnings.push(Problem::of(name, ProblemCode::StaleLock, text));
        }
    }

    fn size_known(&mut self) {
        if self.size().is_none() {
            // This is not damage, but nothing proves that all of it exists.
            let text = "backups.size is not set or not a size of a volume, so it is not known how much of the volume there must be";
            self.add(Severity::Unverifiable, Problem::general(ProblemCode::SizeUnknown, text));
        }
    }

    fn configuration(&mut self, has_snapshot: bool) {
        let Observation { pool, configured_pool, .. } = self.observed;
        if has_snapshot && pool != configured_pool {
            let text = format!(
                "it is in pool {pool}, but Cinder's restore looks for its snapshot in backup_ceph_pool, which is {configured_pool}"
            );
            self.warnings.push(Problem::general(ProblemCode::PoolDiffers, text));
        }
    }
}

/// Whether the last write to an image of several backups was for this one.
fn wrote_to_shared(backup: &Backup, names: &BackupNames, image: &ObservedImage) -> bool {
    if names.shape == Shape::Snapshot {
        return image.dirty == Some(true) || !image.watchers.is_empty();
    }
    let created_at = backup.created_at.as_deref().and_then(time::parse).and_then(|time| Offset::UTC.to_timestamp(time).ok());
    match (image.info.created, created_at) {
        (Some(image), Some(row)) => row.duration_since(image) <= CLOCKS,
        _ => true,
    }
}

/// Whether it is known when the metadata object was written, which is the last one.
fn has_times(observed: &Observation) -> bool {
    observed.meta.as_ref().is_none_or(|meta| meta.modified.is_some())
}

/// When a part of this backup was last written.
fn newest(observed: &Observation, backup: &Backup, begun: bool) -> Option<Timestamp> {
    let meta = observed.meta.as_ref().and_then(|meta| meta.modified);
    let image = observed.image.as_ref().filter(|_| begun).and_then(|image| {
        match image.snapshots_of(&backup.id).filter_map(|snapshot| snapshot.created).max() {
            // Later writes to the base image are for later backups.
            Some(end) => Some(end),
            None => image.info.modified.max(image.info.created),
        }
    });
    meta.max(image)
}

fn depth(image: Option<&ObservedImage>, has_snapshot: bool, shape: Shape) -> String {
    let Some(image) = image else { return "names looked up, no data read".to_owned() };
    let what = match (has_snapshot, shape) {
        (true, _) => "snapshot, its extents",
        (false, Shape::Snapshot) => return "snapshots and metadata object checked, no data read".to_owned(),
        (false, _) => "extents",
    };
    let map = match (image.lost.compared, image.lost.unexamined) {
        (true, 0) => "compared with the image's object map",
        (true, _) => "compared with most of the image's object map",
        (false, _) => "without an object map to compare with",
    };
    format!("{what} and metadata object checked, {map}, no data read")
}
