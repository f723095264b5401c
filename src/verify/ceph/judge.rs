//! From what the cluster said to what that means. Pure.
//!
//! For a backup that is a snapshot, the snapshot proves the data: `rbd import-diff` makes it last. For a copy, the extents
//! do. The object of metadata proves in either case that the driver went through its data stage to the end, and proves
//! nothing alone: deleting one backup's row can take the image of another that is still listed.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use super::names::{self, BackupNames, Shape};
use super::observe::{MetadataContent, Observation, ObservedImage};
use crate::domain::id::same;
use crate::domain::time::stamp;
use crate::domain::{Amount, Backup, CheckVerdict, Glance, Level, Listing, Problem, ProblemCode, time};
use crate::storage::ceph::{ImageInfo, SnapshotInfo};
use crate::verify::{Assessment, Severity, Subject};

/// Clocks of a cluster and its clients may be this far apart.
const CLOCKS: SignedDuration = SignedDuration::from_secs(60);
/// So many objects and holes are named; more are counted.
const NAMED: usize = 100;

/// Whether a problem may turn out not to be damage: comparing the bytes with the volume's decides.
pub(super) fn is_possible_damage(problem: &Problem) -> bool {
    use ProblemCode::{ExtentsDiffer, ImageNewer, ObjectsDoubtful, SnapshotNewer, SnapshotOrder};
    matches!(problem.code.known(), Some(ObjectsDoubtful | SnapshotNewer | SnapshotOrder | ImageNewer | ExtentsDiffer))
}

/// Whether something was made after the object of metadata was written, which the driver writes last; `None` where a time is not
/// known. The times are by two clocks: an OSD's, and that of the host that made the backup.
pub(super) fn is_newer(made: Option<Timestamp>, meta: Option<Timestamp>) -> Option<bool> {
    Some(made?.duration_since(meta?) > CLOCKS)
}

/// A verdict in the making.
struct Judgement<'a> {
    subject: &'a Subject<'a>,
    backup: &'a Backup,
    ancestors: &'a [Arc<Backup>],
    names: &'a BackupNames,
    observed: &'a Observation,
    severity: Option<Severity>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// What a look without reading says.
pub(super) fn judge(subject: &Subject<'_>, names: &BackupNames, observed: &Observation) -> Assessment {
    let Subject { backup, ancestors, .. } = *subject;
    let mut case = Judgement { subject, backup, ancestors, names, observed, severity: None, problems: Vec::new(), warnings: Vec::new() };
    let image = observed.image.as_ref();
    let end = image.and_then(|image| image.snapshots_of(&backup.id).next());
    let expected = match image {
        Some(image) if end.is_some() => case.snapshot(image),
        Some(image) if names.shape == Shape::Snapshot => case.without_snapshot(image),
        Some(image) => case.copy(image),
        None => case.without_image(),
    };
    case.meta();
    if let Some(image) = image {
        case.lost(image);
        case.writers(image);
    }
    case.configuration(end.is_some());

    let begun = is_begun(backup, names, observed);
    let newest = newest(observed, backup, begun);
    let is_complete = case.severity <= Some(Severity::Unverifiable);
    // Of a base with a chain on it, a writer is one of a later backup once this one is complete.
    let is_open = image.is_some_and(|image| !image.watchers.is_empty()) && !(is_complete && end.is_some());
    let busy = is_open || (begun && newest.is_some_and(|newest| is_young(newest, subject.now, subject.settle)));
    let verdict = if is_complete || begun { Severity::verdict(case.severity) } else { CheckVerdict::Missing };
    Assessment {
        verdict,
        reached: (verdict == CheckVerdict::Intact).then_some(Level::Quick),
        depth: depth(image, end.is_some(), names.shape),
        busy,
        begun,
        objects: Amount::default(),
        bytes: Amount { checked: image.map_or(0, |image| if expected == 0 { 0 } else { image.held.bytes }), expected },
        problems: case.problems,
        warnings: case.warnings,
        object_count: None,
        service_metadata: image.filter(|_| verdict == CheckVerdict::Intact).and_then(|image| service_metadata(backup, image)),
        newest_object_at: newest.filter(|_| tells_times(observed)),
        listing: Some(Listing {
            objects: parts(backup, names, observed),
            bytes: image.filter(|image| is_in(backup, names, image)).map_or(0, |image| image.held.bytes),
        }),
        // A snapshot is a whole image: it needs no parent to be restored.
        below: None,
    }
}

/// What there is and the signs of work: a later look compares them with those that a check saw.
pub(super) fn precheck(backup: &Backup, names: &BackupNames, observed: &Observation, objects: u64, bytes: Result<u64, String>) -> Glance {
    let newest = newest(observed, backup, is_begun(backup, names, observed)).filter(|_| tells_times(observed));
    let is_open = observed.image.as_ref().is_some_and(|image| {
        let is_complete = observed.meta.is_some() && image.snapshots_of(&backup.id).next().is_some();
        !image.watchers.is_empty() && !is_complete
    });
    Glance { objects, bytes, newest_object_at: newest.map(stamp), watched: is_open }
}

/// How many parts of this backup there are: its image, its snapshots of it, and its object of metadata. The last alone outlives
/// a deletion of the others.
pub(super) fn parts(backup: &Backup, names: &BackupNames, observed: &Observation) -> u64 {
    let image = observed.image.as_ref().filter(|image| is_in(backup, names, image));
    u64::from(observed.meta.is_some()) + image.map_or(0, |image| 1 + image.snapshots_of(&backup.id).count() as u64)
}

/// Whether anything there is of this backup.
fn is_begun(backup: &Backup, names: &BackupNames, observed: &Observation) -> bool {
    observed.meta.is_some() || observed.image.as_ref().is_some_and(|image| is_in(backup, names, image))
}

/// Whether anything in an image is of this backup: several can share one.
pub(super) fn is_in(backup: &Backup, names: &BackupNames, image: &ObservedImage) -> bool {
    image.snapshots_of(&backup.id).next().is_some() || is_named_after(image, &backup.id) || wrote_to_shared(backup, names, image)
}

/// Whether an image was made for this backup: others may share it, and are increments on it.
pub(super) fn is_named_after(image: &ObservedImage, backup: &str) -> bool {
    image.info.name.strip_suffix(backup).is_some_and(|name| name.ends_with(".backup."))
}

/// What is to be written to a row whose backup is intact: the driver does that last.
pub(super) fn service_metadata(backup: &Backup, image: &ObservedImage) -> Option<String> {
    let is_missing = backup.service_metadata.as_deref().is_none_or(str::is_empty);
    let is_snapshot = image.snapshots_of(&backup.id).next().is_some();
    (is_missing && is_snapshot).then(|| names::service_metadata(&image.info.name))
}

impl Judgement<'_> {
    fn add(&mut self, severity: Severity, problem: Problem) {
        self.severity = self.severity.max(Some(severity));
        self.problems.push(problem);
    }

    fn warn(&mut self, problem: Problem) {
        self.warnings.push(problem);
    }

    /// Bytes of the volume, by the row.
    fn size(&self) -> Option<u64> {
        self.backup.volume_bytes()
    }

    /// There is a snapshot of this backup: its data went through to the end. The bytes that it should have.
    fn snapshot(&mut self, image: &ObservedImage) -> u64 {
        let name = &image.info.name;
        let ends: Vec<_> = image.snapshots_of(&self.backup.id).collect();
        if ends.len() > 1 {
            let text = format!("{} snapshots of this backup where the driver insists on one", ends.len());
            self.add(Severity::Corrupt, Problem::of(name, ProblemCode::SnapshotTwice, text));
        }
        for end in ends {
            self.check_remade(image, end);
            match self.size() {
                Some(size) if size != end.size => {
                    let text = format!("the snapshot holds a volume of {} bytes, and the row says {size}", end.size);
                    self.add(Severity::Corrupt, Problem::of(format!("{name}@{}", end.name), ProblemCode::Size, text));
                }
                _ => {}
            }
        }
        self.size_known();
        // It was sent as what changed since the snapshot of its parent, into the image that this is in.
        if let Some(problem) = self.subject.parent_of_another_volume() {
            self.add(Severity::Corrupt, problem);
        }
        for ancestor in self.ancestors {
            // A snapshot is a whole image: it needs no parent to be restored.
            let (code, what) = match image.snapshots_of(&ancestor.id).next() {
                None => (ProblemCode::AncestorMissing, "there is no snapshot"),
                Some(snapshot) if image.snapshots_of(&self.backup.id).any(|end| end.id < snapshot.id) => {
                    (ProblemCode::AncestorRemade, "after this backup's own snapshot somebody made again the snapshot")
                }
                Some(_) => continue,
            };
            let text = format!(
                "{what} of backup {}, which this one is an increment of: this one can be restored all the same; that one cannot, and the next \
                 backup of the volume should be a full one",
                ancestor.id
            );
            self.warn(Problem::of(name, code, text));
        }
        if image.dirty == Some(true) {
            let text = "it was written to after its last backup, by an increment that was cut off: what the next increment does not write \
                        over stays in it, so make the next backup of the volume a full one";
            self.warn(Problem::of(name, ProblemCode::BaseDirty, text));
        }
        image.held.bytes
    }

    /// A snapshot that was removed and made again under its name holds what the image held by then. The driver makes the snapshot
    /// before the object of metadata, and before those of later backups.
    fn check_remade(&mut self, image: &ObservedImage, end: &SnapshotInfo) {
        let meta = self.observed.meta.as_ref().and_then(|meta| meta.modified);
        let begun = names::begun(&end.name);
        let is_later =
            |name: &str| names::backup_of_snapshot(name).and(names::begun(name)).zip(begun).is_some_and(|(other, own)| other > own);
        let later = image.snapshots.iter().find(|other| other.id < end.id && is_later(&other.name));
        let is_newer = is_newer(end.created, meta);
        // The image was made when the backup began: nobody copied it to here, and the clocks agree.
        let is_original = is_named_after(image, &self.backup.id)
            && image.info.created.zip(begun).is_some_and(|(made, begun)| (made.as_second() as f64 - begun).abs() <= CLOCKS.as_secs_f64());
        let times = match (end.created, meta) {
            (Some(made), Some(meta)) => format!("it was made at {made}, and the backup was finished at {meta}"),
            _ => "it is not known when it was made, or when the backup was finished".to_owned(),
        };
        let after = later.map_or_else(String::new, |later| format!("it was made after {}, which is of a later backup; ", later.name));
        let name = format!("{}@{}", image.info.name, end.name);
        match (is_newer, later) {
            (Some(true), _) if later.is_some() || is_original => {
                let text = format!("{after}{times}: somebody removed it and made it again, and it holds what the image held by then");
                self.add(Severity::Corrupt, Problem::of(name, ProblemCode::SnapshotRemade, text));
            }
            (_, Some(_)) => {
                let text =
                    format!("{after}{times}: somebody made it again, or the clocks of the hosts that made the backups are far apart");
                self.add(Severity::Unverifiable, Problem::of(name, ProblemCode::SnapshotOrder, text));
            }
            (Some(true), None) => {
                let text = format!(
                    "{times}: somebody made it again, or the image was copied or mirrored to here later, or the clocks of the OSDs and \
                     of cinder-backup are apart; `--level restore --ceph-source-pool POOL` compares the bytes with the volume's"
                );
                self.add(Severity::Unverifiable, Problem::of(name, ProblemCode::SnapshotNewer, text));
            }
            (None, None) if self.observed.meta.is_some() => {
                self.warn(Problem::of(name, ProblemCode::SnapshotUndated, format!("{times}: that nobody made it again is not known")));
            }
            _ => {}
        }
    }

    /// The row says that the backup is a snapshot, and it has none. The bytes that it should have are unknown.
    fn without_snapshot(&mut self, image: &ObservedImage) -> u64 {
        let mut text = format!(
            "no snapshot backup.{}.snap.*, which comes with the last byte: the transfer did not end, or was never begun",
            self.backup.id
        );
        if image.dirty == Some(true) {
            text.push_str("; what it wrote is in the image, so that the next increment may keep some of it: make that a full backup");
        }
        self.add(Severity::Incomplete, Problem::of(&image.info.name, ProblemCode::SnapshotMissing, text));
        0
    }

    /// A copy: every byte of the volume must be in an extent. The bytes that it should have.
    fn copy(&mut self, image: &ObservedImage) -> u64 {
        let name = &image.info.name;
        let size = self.size().unwrap_or(image.info.size);
        if size != image.info.size {
            let text = format!("the image has {} bytes, and the row says {size}", image.info.size);
            self.add(Severity::Corrupt, Problem::of(name, ProblemCode::Size, text));
        }
        self.size_known();
        let held = &image.held;
        for range in &held.holes {
            self.hole(image, range.start, range.end);
        }
        if held.inner_gap() > 0 {
            let named = held.holes.len() as u64;
            if held.hole_count > named || named == 0 {
                let text = format!(
                    "{} of the first {} bytes are missing, in {} holes that are not all named",
                    held.inner_gap(),
                    held.end,
                    held.hole_count
                );
                self.add(Severity::Incomplete, Problem::of(name, ProblemCode::Hole, text));
            }
        }
        let image_end = image.info.size;
        if held.end < image_end {
            // The driver stops writing where its source ends, which a snapshot of a volume that grew later does early.
            let may_be = held.bytes > 0 && held.inner_gap() == 0 && self.observed.meta.is_some() && self.names.shape == Shape::Copy;
            if may_be {
                let text = format!(
                    "nothing behind byte {} of {image_end}: right if the snapshot is of a time before the volume grew, else the end is missing",
                    held.end
                );
                self.warn(Problem::of(name, ProblemCode::TailHole, text));
            } else {
                self.hole(image, held.end, image_end);
            }
        }
        self.foreign(image);
        image_end
    }

    /// A part of a copy that is not there.
    fn hole(&mut self, image: &ObservedImage, from: u64, to: u64) {
        let object = image.info.object_size;
        let (first, last) = (from / object, to.saturating_sub(1) / object);
        let or_snapshot =
            if self.names.shape == Shape::Either { ", and there is no snapshot that would say that it may be so" } else { "" };
        let text = format!("bytes {from} to {to} were never written (objects {first} to {last}){or_snapshot}");
        self.add(Severity::Incomplete, Problem::of(&image.info.name, ProblemCode::Hole, text));
    }

    /// Copies of a volume's snapshots share one name: the image may be that of another backup. And nobody writes to a copy once its
    /// backup is finished.
    fn foreign(&mut self, image: &ObservedImage) {
        let ImageInfo { created, modified, .. } = image.info;
        let Some(finished) = self.observed.meta.as_ref().and_then(|meta| meta.modified) else { return };
        let is_newer = |time: Option<Timestamp>| time.filter(|_| is_newer(time, Some(finished)) == Some(true));
        if let Some(created) = is_newer(created).filter(|_| !is_named_after(image, &self.backup.id)) {
            let text = format!(
                "made at {created}, after this backup was finished at {finished}: it is the image of another backup, and this one's is lost"
            );
            self.add(Severity::Corrupt, Problem::of(&image.info.name, ProblemCode::ImageForeign, text));
        } else if let Some(written) = is_newer(created.max(modified)) {
            let text = format!(
                "made or written to at {written}, after this backup was finished at {finished}: somebody changed it, or it was copied or \
                 mirrored to here later, or the clocks of the OSDs and of cinder-backup are apart"
            );
            self.add(Severity::Unverifiable, Problem::of(&image.info.name, ProblemCode::ImageNewer, text));
        }
    }

    fn without_image(&mut self) -> u64 {
        let names: Vec<&str> = self.names.images.iter().map(|image| image.name.as_str()).collect();
        let first = names.first().copied().unwrap_or_default();
        let text = match self.observed.meta {
            Some(_) => format!(
                "no image {} in pool {}, and yet its object of metadata is there: the image was deleted",
                names.join(" nor "),
                self.observed.pool
            ),
            None => format!("no image {} in pool {}", names.join(" nor "), self.observed.pool),
        };
        self.add(Severity::Incomplete, Problem::of(first, ProblemCode::ImageMissing, text));
        self.size().unwrap_or(0)
    }

    fn meta(&mut self) {
        match &self.observed.meta {
            None => {
                let text =
                    "the object of the volume's metadata is not there, which is written after the data: the driver did not get so far";
                self.add(Severity::Incomplete, Problem::of(&self.names.meta, ProblemCode::MetadataMissing, text));
            }
            Some(meta) => match &meta.content {
                MetadataContent::Invalid(what) => {
                    let text = format!("not the metadata of a volume, and a restore would fail on it: {what}");
                    self.add(Severity::Corrupt, Problem::of(&meta.name, ProblemCode::MetadataInvalid, text));
                }
                MetadataContent::Of(Some(volume)) if !self.backup.volume_id.as_deref().is_some_and(|own| same(own, volume)) => {
                    let text = format!("the metadata of another volume, {volume:?}");
                    self.add(Severity::Corrupt, Problem::of(&meta.name, ProblemCode::MetadataForeign, text));
                }
                MetadataContent::Of(_) => {}
            },
        }
    }

    fn lost(&mut self, image: &ObservedImage) {
        for object in image.lost.objects.iter().take(NAMED) {
            let text = format!("in the map of objects of {}, and not in the pool: a restore would read zeros", image.info.name);
            self.add(Severity::Incomplete, Problem::of(object, ProblemCode::ObjectMissing, text));
        }
        let unnamed = image.lost.objects.len().saturating_sub(NAMED);
        if unnamed > 0 {
            self.add(
                Severity::Incomplete,
                Problem::of(&image.info.name, ProblemCode::ObjectMissing, format!("{unnamed} more of its objects are not in the pool")),
            );
        }
        if let (Some(object), count) = (image.lost.doubtful.first(), image.lost.doubtful.len()) {
            let text = format!(
                "in the map of objects of {}, as are {} more, and not in the pool: lost, or announced by an earlier increment that was \
                 cut off and never written; `--level restore` with the pool of the volumes tells, and the next backup should be a full one",
                image.info.name,
                count - 1
            );
            // No damage that is proven, and no proof of the contrary.
            self.add(Severity::Unverifiable, Problem::of(object, ProblemCode::ObjectsDoubtful, text));
        }
        if image.lost.unexamined > 0 {
            let text = format!("{} more of its objects hold nothing, and were not looked for one by one", image.lost.unexamined);
            self.warn(Problem::of(&image.info.name, ProblemCode::ObjectsUnexamined, text));
        }
    }

    fn writers(&mut self, image: &ObservedImage) {
        let (name, watchers) = (&image.info.name, image.watchers.join(", "));
        if !watchers.is_empty() {
            let text = format!("open for writing by {watchers}: somebody works on it, or died less than a minute ago");
            self.warn(Problem::of(name, ProblemCode::ImageOpen, text));
        } else if !image.locks.is_empty() {
            let text = format!("still locked by {}, which is gone: who wrote it was killed", image.locks.join(", "));
            self.warn(Problem::of(name, ProblemCode::StaleLock, text));
        }
    }

    fn size_known(&mut self) {
        if self.size().is_none() {
            // No damage, and no proof that all of it is there.
            let text = "backups.size is not set or no size of a volume, so that nothing tells how much of the volume there should be";
            self.add(Severity::Unverifiable, Problem::general(ProblemCode::SizeUnknown, text));
        }
    }

    fn configuration(&mut self, has_snapshot: bool) {
        let Observation { pool, configured_pool, .. } = self.observed;
        if has_snapshot && pool != configured_pool {
            let text = format!(
                "it is in pool {pool}, and Cinder's restore looks for its snapshot in backup_ceph_pool, which is {configured_pool}"
            );
            self.warn(Problem::general(ProblemCode::PoolDiffers, text));
        }
    }
}

/// Whether what was written last to an image of several backups is this one's.
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

/// Whether it is known when the object of metadata was written, which comes last.
fn tells_times(observed: &Observation) -> bool {
    observed.meta.as_ref().is_none_or(|meta| meta.modified.is_some())
}

/// When something of this backup was last written.
fn newest(observed: &Observation, backup: &Backup, begun: bool) -> Option<Timestamp> {
    let meta = observed.meta.as_ref().and_then(|meta| meta.modified);
    let image = observed.image.as_ref().filter(|_| begun).and_then(|image| {
        match image.snapshots_of(&backup.id).filter_map(|snapshot| snapshot.created).max() {
            // What was written to the base later is of later backups.
            Some(end) => Some(end),
            None => image.info.modified.max(image.info.created),
        }
    });
    meta.max(image)
}

/// Whether a time is younger than the span that counts as a sign of work. A time in the future is: clocks differ.
fn is_young(time: Timestamp, now: Timestamp, settle: Duration) -> bool {
    match SignedDuration::try_from(settle) {
        Ok(settle) => now.duration_since(time) < settle,
        Err(_) => true,
    }
}

fn depth(image: Option<&ObservedImage>, has_snapshot: bool, shape: Shape) -> String {
    let Some(image) = image else { return "names looked for, no data read".to_owned() };
    let what = match (has_snapshot, shape) {
        (true, _) => "snapshot, its extents",
        (false, Shape::Snapshot) => return "snapshots and object of metadata looked at, no data read".to_owned(),
        (false, _) => "extents",
    };
    let map = match (image.lost.compared, image.lost.unexamined) {
        (true, 0) => "compared with the image's map of objects",
        (true, _) => "compared with the image's map of objects as far as that goes",
        (false, _) => "with no map of objects to compare with",
    };
    format!("{what} and object of metadata looked at, {map}, no data read")
}
