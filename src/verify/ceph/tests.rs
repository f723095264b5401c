//! Every state that a real cluster was seen in after a kill, and what must be said of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![allow(clippy::single_range_in_vec_init, reason = "a list of one hole")]

mod check;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::extents::ExtentSummary;
use super::judge::judge;
use super::names;
use super::observe::{LostObjects, MetadataObject, Observation, ObservedImage};
use crate::domain::time::stamp;
use crate::domain::{Backup, CheckResult, CheckVerdict, Level, Problem};
use crate::storage::ceph::{ImageInfo, SnapshotInfo};
use crate::verify::Subject;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const OWN: &str = "volume-v.backup.b";
const BASE: &str = "volume-v.backup.f";
const SHARED: &str = "volume-v.backup.base";
const METADATA: &str = "{\"base\": \"volume-v.backup.f\"}";

/// Minutes before the check.
fn ago(minutes: i64) -> Option<Timestamp> {
    Some(now() - jiff::SignedDuration::from_mins(minutes))
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// A row that hangs in `creating`.
fn row() -> Backup {
    Backup {
        id: "b".to_owned(),
        volume_id: Some("v".to_owned()),
        size: Some(1),
        status: Some("creating".to_owned()),
        container: Some("backups".to_owned()),
        created_at: Some("2026-11-22 10:00:00".to_owned()),
        ..Backup::default()
    }
}

fn increment() -> Backup {
    Backup { parent_id: Some("p".to_owned()), ..row() }
}

fn ancestors() -> Vec<Arc<Backup>> {
    let parent = Backup { id: "p".to_owned(), parent_id: Some("f".to_owned()), service_metadata: Some(METADATA.to_owned()), ..row() };
    let full = Backup { id: "f".to_owned(), service_metadata: Some(METADATA.to_owned()), ..row() };
    vec![parent.into(), full.into()]
}

fn of_snapshot() -> Backup {
    Backup { snapshot_id: Some("s".to_owned()), ..row() }
}

fn meta() -> MetadataObject {
    MetadataObject { name: "backup.b.meta".to_owned(), modified: ago(60), content: Ok(Some("v".to_owned())) }
}

fn snapshot(backup: &str) -> SnapshotInfo {
    SnapshotInfo { id: 4, name: format!("backup.{backup}.snap.1763805600.5"), size: GIB, created: ago(61) }
}

/// An image that is closed and has all of a copy in it.
fn image(name: &str) -> ObservedImage {
    ObservedImage {
        info: ImageInfo {
            name: name.to_owned(),
            size: GIB,
            object_size: 4 * MIB,
            object_prefix: "rbd_data.1".to_owned(),
            features: vec!["fast-diff".to_owned()],
            created: ago(110),
            modified: ago(61),
            ..ImageInfo::default()
        },
        snapshots: Vec::new(),
        watchers: Vec::new(),
        locks: Vec::new(),
        extents: ExtentSummary { bytes: GIB, end: GIB, ..ExtentSummary::default() },
        lost: LostObjects { compared: true, ..LostObjects::default() },
        dirty: None,
    }
}

/// A base image with snapshots of these backups, and little data.
fn base(name: &str, snapshots: &[&str]) -> ObservedImage {
    let extents = ExtentSummary { bytes: 3 * MIB, end: 100 * MIB, holes: vec![MIB..98 * MIB], hole_count: 1 };
    let snapshots = (4..).zip(snapshots).map(|(id, backup)| SnapshotInfo { id, ..snapshot(backup) }).collect();
    ObservedImage { snapshots, dirty: Some(false), extents, ..image(name) }
}

fn killed(mut image: ObservedImage) -> ObservedImage {
    image.locks = vec!["client.1 at 127.0.0.1:0/1".to_owned()];
    image
}

fn judged(backup: &Backup, ancestors: &[Arc<Backup>], image: Option<ObservedImage>, meta: Option<MetadataObject>) -> CheckResult {
    let names = names::of(backup, ancestors).unwrap();
    let observed = Observation { pool: "backups".to_owned(), configured_pool: "backups".to_owned(), image, meta };
    let subject = Subject { backup, ancestors, level: Level::Quick, settle: Duration::from_mins(15), now: now() };
    judge(&subject, &names, &observed)
}

fn codes(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.code.as_str()).collect()
}

/// Verdict, codes of problems, codes of warnings.
fn summary(result: &CheckResult) -> (CheckVerdict, Vec<&str>, Vec<&str>) {
    (result.verdict, codes(&result.problems), codes(&result.warnings))
}

use CheckVerdict::{Corrupt, Incomplete, Intact, Missing, Unverifiable};

// The four shapes, complete with only the update of the database lost.

#[test]
fn a_complete_copy_is_intact_and_its_row_keeps_null() {
    let found = judged(&row(), &[], Some(image(OWN)), Some(meta()));
    assert_eq!(summary(&found), (Intact, vec![], vec![]));
    assert_eq!((found.busy, found.begun, found.service_metadata, found.object_count), (false, true, None, None));
    assert_eq!((found.bytes.checked, found.bytes.expected), (GIB, GIB));
    assert_eq!(found.newest_object_at, ago(60).map(stamp));
    assert!(found.depth.contains("no data read"), "{}", found.depth);
}

#[test]
fn a_complete_full_backup_of_rbd_gets_its_base_back() {
    let found = judged(&row(), &[], Some(base(OWN, &["b"])), Some(meta()));
    assert_eq!(summary(&found), (Intact, vec![], vec![]));
    assert_eq!(found.service_metadata.as_deref(), Some("{\"base\": \"volume-v.backup.b\"}"));
    assert_eq!((found.bytes.checked, found.bytes.expected), (3 * MIB, 3 * MIB));
}

#[test]
fn an_empty_volume_is_a_backup_too() {
    let image = ObservedImage { extents: ExtentSummary::default(), ..base(OWN, &["b"]) };
    assert_eq!(summary(&judged(&row(), &[], Some(image), Some(meta()))), (Intact, vec![], vec![]));
}

#[test]
fn a_complete_increment_gets_the_base_of_its_chain() {
    let found = judged(&increment(), &ancestors(), Some(base(BASE, &["f", "p", "b"])), Some(meta()));
    assert_eq!(summary(&found), (Intact, vec![], vec![]));
    assert_eq!(found.service_metadata.as_deref(), Some(METADATA));
}

#[test]
fn what_the_row_has_already_is_not_written_again() {
    let backup = Backup { service_metadata: Some(METADATA.to_owned()), ..increment() };
    let found = judged(&backup, &ancestors(), Some(base(BASE, &["f", "p", "b"])), Some(meta()));
    assert_eq!((found.verdict, found.service_metadata), (Intact, None));
}

#[test]
fn an_old_backup_on_the_shared_base_is_intact() {
    let found = judged(&row(), &[], Some(base(SHARED, &["a", "b", "c"])), Some(meta()));
    assert_eq!(summary(&found), (Intact, vec![], vec![]));
    assert_eq!(found.service_metadata.as_deref(), Some("{\"base\": \"volume-v.backup.base\"}"));
}

#[test]
fn a_complete_copy_of_a_snapshot_is_intact() {
    let found = judged(&of_snapshot(), &[], Some(image(SHARED)), Some(meta()));
    assert_eq!(summary(&found), (Intact, vec![], vec![]));
    assert_eq!(found.service_metadata, None);
}

// What each kill leaves.

#[test]
fn killed_half_way_through_a_copy() {
    for (backup, name) in [(row(), OWN), (of_snapshot(), SHARED)] {
        let extents = ExtentSummary { bytes: 256 * MIB, end: 256 * MIB, ..ExtentSummary::default() };
        let found = judged(&backup, &[], Some(killed(ObservedImage { extents, ..image(name) })), None);
        assert_eq!(summary(&found), (Incomplete, vec!["hole", "metadata-missing"], vec!["stale-lock"]));
        assert!(found.problems[0].text.contains("bytes 268435456 to 1073741824"), "{:?}", found.problems);
        assert_eq!((found.begun, found.busy), (true, false));
        assert_eq!((found.bytes.checked, found.bytes.expected), (256 * MIB, GIB));
    }
}

#[test]
fn killed_inside_the_last_chunk() {
    // The map has all objects; one was never written.
    let extents = ExtentSummary { bytes: GIB - 4 * MIB, end: GIB, holes: vec![GIB - 8 * MIB..GIB - 4 * MIB], hole_count: 1 };
    let lost = LostObjects { compared: true, objects: vec!["rbd_data.1.00000000000000fe".to_owned()], ..LostObjects::default() };
    let found = judged(&row(), &[], Some(killed(ObservedImage { extents, lost, ..image(OWN) })), None);
    assert_eq!(summary(&found), (Incomplete, vec!["hole", "metadata-missing", "object-missing"], vec!["stale-lock"]));
    assert_eq!(found.problems[2].object.as_deref(), Some("rbd_data.1.00000000000000fe"));
}

#[test]
fn killed_after_the_copy_and_before_the_metadata() {
    for (backup, name) in [(row(), OWN), (of_snapshot(), SHARED)] {
        assert_eq!(summary(&judged(&backup, &[], Some(image(name)), None)), (Incomplete, vec!["metadata-missing"], vec![]));
    }
}

#[test]
fn killed_in_the_import_of_a_full_backup() {
    // Few objects, no snapshot, no metadata.
    let image = killed(ObservedImage { snapshots: Vec::new(), dirty: None, ..base(OWN, &[]) });
    let found = judged(&row(), &[], Some(image), None);
    assert_eq!(summary(&found), (Incomplete, vec!["hole", "hole", "metadata-missing"], vec!["stale-lock"]));
    assert_eq!(found.service_metadata, None);
}

#[test]
fn killed_in_the_import_of_an_increment() {
    let image = killed(ObservedImage { dirty: Some(true), ..base(BASE, &["f", "p"]) });
    let found = judged(&increment(), &ancestors(), Some(image), None);
    assert_eq!(summary(&found), (Incomplete, vec!["snapshot-missing", "metadata-missing"], vec!["stale-lock"]));
    assert!(found.problems[0].text.contains("make the next backup a full one"), "{:?}", found.problems);
    assert!(found.begun);
}

#[test]
fn an_increment_that_was_never_begun_is_missing() {
    let found = judged(&increment(), &ancestors(), Some(base(BASE, &["f", "p"])), None);
    assert_eq!(summary(&found), (Missing, vec!["snapshot-missing", "metadata-missing"], vec![]));
    assert_eq!((found.begun, found.busy, found.newest_object_at), (false, false, None));
}

#[test]
fn only_python_was_killed_and_the_pipeline_went_on() {
    for (backup, ancestors, image) in [(row(), vec![], base(OWN, &["b"])), (increment(), ancestors(), base(BASE, &["f", "p", "b"]))] {
        let found = judged(&backup, &ancestors, Some(image), None);
        assert_eq!(summary(&found), (Incomplete, vec!["metadata-missing"], vec![]));
        assert_eq!(found.service_metadata, None);
    }
}

#[test]
fn nothing_at_all_is_missing() {
    for backup in [row(), of_snapshot()] {
        let found = judged(&backup, &[], None, None);
        assert_eq!(summary(&found), (Missing, vec!["image-missing", "metadata-missing"], vec![]));
        assert_eq!((found.begun, found.busy), (false, false));
    }
}

// Traps.

#[test]
fn metadata_alone_is_never_enough() {
    // The errored row of a second copy was deleted, and took the first one's image with it.
    let found = judged(&of_snapshot(), &[], None, Some(meta()));
    assert_eq!(summary(&found), (Incomplete, vec!["image-missing"], vec![]));
    assert!(found.problems[0].text.contains("was deleted"), "{:?}", found.problems);
}

#[test]
fn the_image_of_another_copy_is_not_this_ones() {
    // As above, and then a third copy was made, under the same name.
    let mut other = image(SHARED);
    other.info.created = ago(30);
    other.info.modified = ago(25);
    let found = judged(&of_snapshot(), &[], Some(other), Some(meta()));
    assert_eq!(summary(&found), (Corrupt, vec!["image-foreign"], vec![]));
}

/// A base with these snapshots, each with the minutes since it was made and since its backup began, in the order of their ids.
fn base_of(name: &str, snapshots: &[(&str, i64, i64)]) -> ObservedImage {
    let snapshots = (4..).zip(snapshots).map(|(id, (backup, made, begun))| SnapshotInfo {
        id,
        name: format!("backup.{backup}.snap.{}.25", ago(*begun).unwrap().as_second()),
        size: GIB,
        created: ago(*made),
    });
    ObservedImage { snapshots: snapshots.collect(), ..base(name, &[]) }
}

#[test]
fn a_snapshot_that_was_made_again_is_not_the_backups() {
    let full = |made: i64, image_made: i64| {
        let mut image = base_of(OWN, &[("b", made, 110)]);
        image.info.created = ago(image_made);
        judged(&row(), &[], Some(image), Some(meta()))
    };
    assert_eq!(summary(&full(61, 110)), (Intact, vec![], vec![]));
    let found = full(30, 110);
    assert_eq!(summary(&found), (Corrupt, vec!["snapshot-remade"], vec![]));
    assert!(found.problems[0].text.contains("at 2026-11-22T11:30:00Z, and the backup was finished at 2026-11-22T11:00:00Z"));
    // Clocks are a little apart. An image that was copied or mirrored to here, as after a disaster, has later times throughout.
    assert_eq!(full(59, 110).verdict, Intact);
    let found = full(30, 31);
    assert_eq!((summary(&found), found.level_reached), ((Unverifiable, vec!["snapshot-newer"], vec![]), None));
    // An increment, whose image is an older one.
    let of = |snapshots: &[(&str, i64, i64)]| judged(&increment(), &ancestors(), Some(base_of(BASE, snapshots)), Some(meta()));
    let (first, parent) = (("f", 500, 510), ("p", 300, 310));
    assert_eq!(summary(&of(&[first, parent, ("b", 61, 70)])), (Intact, vec![], vec![]));
    assert_eq!(summary(&of(&[first, parent, ("b", 30, 70)])), (Unverifiable, vec!["snapshot-newer"], vec![]));
    // After the snapshot of a later backup there is no doubt about it; its own time alone may be that of a wrong clock.
    assert_eq!(summary(&of(&[first, parent, ("c", 40, 45), ("b", 30, 70)])), (Corrupt, vec!["snapshot-remade"], vec![]));
    assert_eq!(summary(&of(&[first, parent, ("c", 62, 45), ("b", 61, 70)])), (Unverifiable, vec!["snapshot-order"], vec![]));
    // Where it is a parent's, this one is a whole image all the same.
    assert_eq!(summary(&of(&[first, ("b", 61, 70), ("p", 30, 310)])), (Intact, vec![], vec!["ancestor-remade"]));
}

#[test]
fn what_has_no_time_is_not_called_made_again() {
    let mut image = base_of(OWN, &[("b", 61, 110)]);
    image.snapshots[0].created = None;
    assert_eq!(summary(&judged(&row(), &[], Some(image.clone()), Some(meta()))), (Intact, vec![], vec!["snapshot-undated"]));
    image.snapshots[0].created = ago(61);
    let undated = MetadataObject { modified: None, ..meta() };
    assert_eq!(summary(&judged(&row(), &[], Some(image.clone()), Some(undated.clone()))), (Intact, vec![], vec!["snapshot-undated"]));
    // Nor where a name has none, or is that of no backup.
    image.snapshots[0].name = "backup.b.snap.x".to_owned();
    image.snapshots.insert(0, SnapshotInfo { id: 3, name: "daily.snap.9999999999".to_owned(), ..snapshot("z") });
    assert_eq!(summary(&judged(&row(), &[], Some(image), Some(meta()))), (Intact, vec![], vec![]));
    assert_eq!(judged(&row(), &[], Some(super::tests::image(OWN)), Some(undated)).verdict, Intact);
}

#[test]
fn a_copy_that_was_written_to_after_its_backup_is_in_doubt() {
    for change in [|image: &mut ObservedImage| image.info.modified = ago(30), |image: &mut ObservedImage| image.info.created = ago(30)] {
        let mut own = image(OWN);
        change(&mut own);
        let found = judged(&row(), &[], Some(own), Some(meta()));
        assert_eq!((summary(&found), found.level_reached), ((Unverifiable, vec!["image-newer"], vec![]), None));
    }
    let mut shared = image(SHARED);
    shared.info.modified = ago(30);
    assert_eq!(summary(&judged(&of_snapshot(), &[], Some(shared), Some(meta()))), (Unverifiable, vec!["image-newer"], vec![]));
}

#[test]
fn the_image_of_an_earlier_copy_does_not_mean_that_this_one_was_begun() {
    let mut earlier = image(SHARED);
    earlier.info.created = ago(10_000);
    let found = judged(&of_snapshot(), &[], Some(earlier), None);
    assert_eq!((found.verdict, found.begun), (Missing, false));
    // Made after the row was: then it is this one's.
    assert!(judged(&of_snapshot(), &[], Some(image(SHARED)), None).begun);
}

#[test]
fn a_lost_object_is_found_without_reading() {
    let lost = LostObjects { compared: true, objects: vec!["rbd_data.1.0000000000000007".to_owned()], ..LostObjects::default() };
    let found = judged(&row(), &[], Some(ObservedImage { lost, ..base(OWN, &["b"]) }), Some(meta()));
    assert_eq!(summary(&found), (Incomplete, vec!["object-missing"], vec![]));
    assert_eq!(found.service_metadata, None);
    let lost = LostObjects {
        compared: true,
        objects: (0..250).map(|object| format!("rbd_data.1.{object:016x}")).collect(),
        unexamined: 9,
        ..LostObjects::default()
    };
    let found = judged(&row(), &[], Some(ObservedImage { lost, ..base(OWN, &["b"]) }), Some(meta()));
    assert_eq!((found.problems.len(), codes(&found.warnings)), (101, vec!["objects-unexamined"]));
    assert!(found.problems[100].text.starts_with("150 more"), "{}", found.problems[100].text);
}

#[test]
fn an_object_that_may_never_have_been_is_no_damage_and_no_proof() {
    let lost = LostObjects { compared: true, doubtful: vec!["rbd_data.1.0000000000000007".to_owned()], ..LostObjects::default() };
    let found =
        judged(&increment(), &ancestors(), Some(ObservedImage { lost: lost.clone(), ..base(BASE, &["f", "p", "b"]) }), Some(meta()));
    assert_eq!(summary(&found), (CheckVerdict::Unverifiable, vec!["objects-doubtful"], vec![]));
    assert_eq!(found.service_metadata, None);
    // And it hides nothing that is proven.
    let found = judged(&increment(), &ancestors(), Some(ObservedImage { lost, ..base(BASE, &["f", "p", "b"]) }), None);
    assert_eq!(summary(&found), (Incomplete, vec!["metadata-missing", "objects-doubtful"], vec![]));
}

#[test]
fn a_lost_parent_is_no_damage_of_the_child() {
    let found = judged(&increment(), &ancestors(), Some(base(BASE, &["f", "b"])), Some(meta()));
    assert_eq!(summary(&found), (Intact, vec![], vec!["ancestor-missing"]));
    assert!(found.warnings[0].text.contains("backup p"));
}

#[test]
fn a_base_that_was_written_to_after_its_last_backup_is_worth_a_warning() {
    let image = ObservedImage { dirty: Some(true), ..base(BASE, &["f", "p", "b"]) };
    let found = judged(&increment(), &ancestors(), Some(image), Some(meta()));
    assert_eq!(summary(&found), (Intact, vec![], vec!["base-dirty"]));
}

#[test]
fn a_copy_may_end_early_only_where_its_source_can() {
    let extents = || ExtentSummary { bytes: 512 * MIB, end: 512 * MIB, ..ExtentSummary::default() };
    let of = |backup: &Backup, name: &str, meta: Option<MetadataObject>| {
        judged(backup, &[], Some(ObservedImage { extents: extents(), ..image(name) }), meta)
    };
    // A snapshot from before the volume grew.
    assert_eq!(summary(&of(&of_snapshot(), SHARED, Some(meta()))), (Intact, vec![], vec!["tail-hole"]));
    assert_eq!(of(&of_snapshot(), SHARED, None).verdict, Incomplete);
    // A volume has its size, always.
    assert_eq!(summary(&of(&row(), OWN, Some(meta()))), (Incomplete, vec!["hole"], vec![]));
    // And nothing at all is no copy.
    let empty = ObservedImage { extents: ExtentSummary::default(), ..image(SHARED) };
    assert_eq!(judged(&of_snapshot(), &[], Some(empty), Some(meta())).verdict, Incomplete);
}

#[test]
fn a_hole_in_the_middle_is_damage_in_every_copy() {
    let extents = || ExtentSummary { bytes: GIB - MIB, end: GIB, holes: vec![5 * MIB..6 * MIB], hole_count: 1 };
    for (backup, name) in [(row(), OWN), (of_snapshot(), SHARED)] {
        let found = judged(&backup, &[], Some(ObservedImage { extents: extents(), ..image(name) }), Some(meta()));
        assert_eq!(summary(&found), (Incomplete, vec!["hole"], vec![]));
        assert!(found.problems[0].text.contains("objects 1 to 1"), "{:?}", found.problems);
    }
    // Of a striped image it is only known that there is one.
    let extents = ExtentSummary { bytes: GIB - MIB, end: GIB, ..ExtentSummary::default() };
    assert_eq!(
        summary(&judged(&row(), &[], Some(ObservedImage { extents, ..image(OWN) }), Some(meta()))),
        (Incomplete, vec!["hole"], vec![])
    );
}

#[test]
fn sizes_must_be_those_of_the_row() {
    let two = Backup { size: Some(2), ..row() };
    assert_eq!(summary(&judged(&two, &[], Some(base(OWN, &["b"])), Some(meta()))), (Corrupt, vec!["size"], vec![]));
    assert_eq!(summary(&judged(&two, &[], Some(image(OWN)), Some(meta()))), (Corrupt, vec!["size"], vec![]));
    // The volume grew after this backup: the snapshot keeps its size.
    let mut grown = base(OWN, &["b"]);
    grown.info.size = 3 * GIB;
    assert_eq!(judged(&row(), &[], Some(grown), Some(meta())).verdict, Intact);
    for size in [None, Some(-1), Some(0)] {
        let unknown = Backup { size, ..row() };
        for image in [image(OWN), base(OWN, &["b"])] {
            assert_eq!(summary(&judged(&unknown, &[], Some(image), Some(meta()))), (Unverifiable, vec!["size-unknown"], vec![]));
        }
    }
}

#[test]
fn an_increment_on_a_backup_of_another_volume_is_damage() {
    let of_volume = |volume: &str| -> Vec<Arc<Backup>> {
        let of = |ancestor: &Arc<Backup>| Arc::new(Backup { volume_id: Some(volume.to_owned()), ..Backup::clone(ancestor) });
        ancestors().iter().map(of).collect()
    };
    let seen = || Some(base(BASE, &["f", "p", "b"]));
    let found = judged(&increment(), &of_volume("w"), seen(), Some(meta()));
    assert_eq!(summary(&found), (Corrupt, vec!["parent-of-another-volume"], vec![]));
    assert!(found.problems[0].text.contains("backup p, which it is based on, is of volume w, as are 1 more"), "{:?}", found.problems);
    assert_eq!(found.service_metadata, None);
    // An id is the same in either case.
    assert_eq!(judged(&increment(), &of_volume("V"), seen(), Some(meta())).verdict, Intact);
}

#[test]
fn two_snapshots_of_one_backup_are_one_too_many() {
    let found = judged(&row(), &[], Some(base(OWN, &["b", "b"])), Some(meta()));
    assert_eq!(summary(&found), (Corrupt, vec!["snapshot-twice"], vec![]));
}

#[test]
fn metadata_of_something_else_is_damage() {
    let invalid = MetadataObject { content: Err("it is no JSON".to_owned()), ..meta() };
    assert_eq!(summary(&judged(&row(), &[], Some(image(OWN)), Some(invalid))), (Corrupt, vec!["metadata-invalid"], vec![]));
    let foreign = MetadataObject { content: Ok(Some("w".to_owned())), ..meta() };
    assert_eq!(summary(&judged(&row(), &[], Some(image(OWN)), Some(foreign))), (Corrupt, vec!["metadata-foreign"], vec![]));
    let silent = MetadataObject { content: Ok(None), ..meta() };
    assert_eq!(judged(&row(), &[], Some(image(OWN)), Some(silent)).verdict, Intact);
}

#[test]
fn a_restore_that_would_look_in_another_pool_is_worth_a_warning() {
    let backup = row();
    let names = names::of(&backup, &[]).unwrap();
    let subject = Subject { backup: &backup, ancestors: &[], level: Level::Quick, settle: Duration::from_mins(15), now: now() };
    let of = |image: ObservedImage| {
        let observed = Observation { pool: "old".to_owned(), configured_pool: "new".to_owned(), image: Some(image), meta: Some(meta()) };
        judge(&subject, &names, &observed)
    };
    assert_eq!(summary(&of(base(OWN, &["b"]))), (Intact, vec![], vec!["pool-differs"]));
    assert_eq!(summary(&of(image(OWN))), (Intact, vec![], vec![]));
}

// Signs of work.

#[test]
fn who_has_the_image_open_is_at_work() {
    let open = |mut image: ObservedImage| {
        image.watchers = vec!["127.0.0.1:0/1".to_owned()];
        image.locks = vec!["client.1 at 127.0.0.1:0/1".to_owned()];
        image
    };
    let half = ExtentSummary { bytes: MIB, end: MIB, ..ExtentSummary::default() };
    let found = judged(&row(), &[], Some(open(ObservedImage { extents: half, ..image(OWN) })), None);
    assert!(found.busy && codes(&found.warnings) == ["image-open"]);
    assert!(judged(&row(), &[], Some(open(image(OWN))), Some(meta())).busy, "nobody writes to a copy that is done");
    // On a base, the writer may be one of this increment, which has no snapshot yet ...
    let found = judged(&increment(), &ancestors(), Some(open(base(BASE, &["f", "p"]))), None);
    assert_eq!((found.busy, found.begun), (true, true));
    // ... and of another once this one is done.
    assert!(!judged(&increment(), &ancestors(), Some(open(base(BASE, &["f", "p", "b"]))), Some(meta())).busy);
}

#[test]
fn what_is_young_may_still_be_written() {
    let young = MetadataObject { modified: ago(14), ..meta() };
    assert!(judged(&row(), &[], Some(image(OWN)), Some(young.clone())).busy);
    assert!(judged(&row(), &[], Some(base(OWN, &["b"])), Some(young)).busy);
    let future = MetadataObject { modified: ago(-5), ..meta() };
    assert!(judged(&row(), &[], Some(image(OWN)), Some(future)).busy);
    let mut writing = image(OWN);
    writing.info.modified = ago(3);
    assert!(judged(&row(), &[], Some(writing), None).busy);
    // A base that later increments wrote to says nothing about an older backup.
    let mut written = base(BASE, &["f", "p", "b"]);
    written.info.modified = ago(1);
    let found = judged(&increment(), &ancestors(), Some(written), Some(meta()));
    assert_eq!((found.busy, found.newest_object_at), (false, ago(60).map(stamp)));
    // The metadata is written last: without its time nobody knows when the newest part was written.
    let undated = MetadataObject { modified: None, ..meta() };
    assert_eq!(judged(&row(), &[], Some(base(OWN, &["b"])), Some(undated)).newest_object_at, None);
    assert_ne!(judged(&row(), &[], Some(base(OWN, &["b"])), Some(meta())).newest_object_at, None);
}
