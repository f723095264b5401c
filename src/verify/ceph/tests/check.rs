//! A whole check over scripted commands, for what a real cluster cannot be made to do: read errors, hangs, nonsense.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tempfile::TempDir;

use super::super::check;
use crate::domain::{Backup, CheckResult, CheckVerdict, Level, Listing};
use crate::storage::ceph::Cluster;
use crate::storage::ceph::export::samples::stream;
use crate::verify::{Subject, Watch};

/// Answers as a cluster does that has one whole backup of a volume of 1 GiB with 5 bytes in it. `$*` is the command.
const WHOLE: &str = r#"
case "$*" in
info*base*) echo "rbd: error opening image x: (2) No such file or directory" >&2; exit 2;;
info*) echo '{"size":1073741824,"object_size":4194304,"block_name_prefix":"rbd_data.1","features":["fast-diff"],"flags":[]}';;
snap*) echo '[{"id":4,"name":"backup.b.snap.1.5","size":1073741824,"timestamp":"Sun Nov 22 10:00:00 2026"}]';;
status*) echo '{"watchers":[]}';;
lock*) echo '[]';;
diff*from-snap*) echo '[]';;
diff*whole-object*) echo '[{"offset":0,"length":4194304,"exists":"true"}]';;
diff*) echo '[{"offset":0,"length":5,"exists":"true"}]';;
export-diff*) cat "$0.export";;
*stat*) echo 'backups/backup.b.meta mtime 2026-11-22T10:00:01.000000+0000, size 40';;
*get*) echo '{"version": 2, "volume-base-metadata": {"id": "v"}}';;
esac
"#;

/// Checks the backup of [`WHOLE`], over commands that first do what `instead` says.
fn checked(instead: &str, level: Level) -> CheckResult {
    watched(instead, level, &Watch::default())
}

fn watched(instead: &str, level: Level, watch: &Watch) -> CheckResult {
    scripted(instead, |cluster, backup| {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let source = cluster.pool("volumes");
        check(cluster, Some(&source), &Subject { backup, ancestors: &[], level, settle: Duration::from_mins(15), now }, watch)
    })
}

/// Looks at the backup of [`WHOLE`], over commands that first do what `instead` says.
fn scripted<T>(instead: &str, look: impl FnOnce(&Cluster, &Backup) -> T) -> T {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let (text, path) = (dir.path().join("text"), dir.path().join("ceph"));
    fs::write(&text, format!("#!/bin/sh\n{instead}\n{WHOLE}")).unwrap();
    fs::write(dir.path().join("ceph.export"), stream(1 << 30, &[(0, Ok(b"hello"))])).unwrap();
    fs::write(dir.path().join("ceph.copy"), stream(1 << 30, &[(0, Err(1 << 30))])).unwrap();
    // Copied by another process, since a file that any process here has open for writing cannot be run.
    assert!(Command::new("install").arg("-m755").arg(&text).arg(&path).status().unwrap().success());
    let mut cluster = Cluster::with("cinder", "/etc/ceph/ceph.conf", "backups");
    (cluster.rbd, cluster.rados, cluster.deadline) = (path.clone().into(), path.into(), Duration::from_secs(5));
    let volume_id = Some("v".to_owned());
    let backup = Backup { id: "b".to_owned(), volume_id, size: Some(1), container: Some("backups".to_owned()), ..Backup::default() };
    look(&cluster, &backup)
}

fn first_code(result: &CheckResult) -> &str {
    result.problems.first().map_or("", |problem| problem.code.as_str())
}

#[test]
fn a_whole_backup_is_intact_at_every_level() {
    for level in [Level::Quick, Level::Deep, Level::Restore] {
        let found = checked("", level);
        assert_eq!((found.verdict, first_code(&found)), (CheckVerdict::Intact, ""), "{found:?}");
        assert_eq!(found.service_metadata.as_deref(), Some("{\"base\": \"volume-v.backup.b\"}"));
        assert_eq!((found.bytes.checked, found.busy, found.begun), (5, false, true));
        let compared = found.depth.contains("compared with volumes/volume-v@backup.b.snap.1.5");
        assert_eq!(compared, level == Level::Restore, "{}", found.depth);
    }
}

#[test]
fn without_the_volume_the_first_snapshot_on_an_image_of_its_own_proves_deep() {
    let gone = r#"case "$*" in *pool=volumes*) echo "rbd: error opening image x: (2) No such file or directory" >&2; exit 2;; esac"#;
    let undated = r#"case "$*" in snap*) echo '[{"id":4,"name":"backup.b.snap.1.5","size":1073741824}]'; exit;; esac"#;
    let copied = r#"case "$*" in snap*) echo '[]'; exit;; diff*) echo '[{"offset":0,"length":1073741824,"exists":"true"}]'; exit;;
        export-diff*) cat "$0.copy"; exit;; esac"#;
    let (quick, deep) = (Some(Level::Quick), Some(Level::Deep));
    for (instead, level, reached, text) in [
        (gone, Level::Deep, deep, ""),
        (gone, Level::Restore, deep, "intact at level deep, and level restore was not reached: its bytes were not compared"),
        (&format!("{gone}\n{undated}"), Level::Deep, quick, "it is not known whether backup.b.snap.1.5 was made before"),
        (&format!("{gone}\n{copied}"), Level::Deep, quick, "it is a copy"),
        (&format!("{gone}\n{copied}"), Level::Restore, quick, "it is a copy of a volume that is not an RBD image"),
    ] {
        let found = checked(instead, level);
        let verdict = if text.is_empty() { CheckVerdict::Intact } else { CheckVerdict::Unverifiable };
        assert_eq!((found.verdict, found.level_reached), (verdict, reached), "{level}: {found:?}");
        let said = found.problems.first().map_or("", |problem| problem.text.as_str());
        assert!(said.contains(text), "{said}");
        assert_eq!((first_code(&found), found.problems.len() < 2), (if text.is_empty() { "" } else { "level-not-reached" }, true));
    }
}

/// A chain of two on one image, f below b, of which the volume's image has the snapshots, too.
const CHAIN: &str = r#"
case "$*" in
snap*) echo '[{"id":4,"name":"backup.f.snap.1.5","size":1073741824,"timestamp":"Sun Nov 22 09:00:00 2026"},
    {"id":7,"name":"backup.b.snap.2.5","size":1073741824,"timestamp":"Sun Nov 22 10:00:00 2026"}]'; exit;;
info*backup.b) echo "rbd: error opening image x: (2) No such file or directory" >&2; exit 2;;
diff*snap=*from-snap*) echo '[{"offset":0,"length":5,"exists":"true"},{"offset":4096,"length":5,"exists":"false"}]'; exit;;
*stat*f.meta) echo 'backups/backup.f.meta mtime 2026-11-22T09:00:01.000000+0000, size 40'; exit;;
esac
"#;

fn checked_increment(instead: &str, level: Level, with_source: bool) -> CheckResult {
    scripted(&format!("{instead}\n{CHAIN}"), |cluster, backup| {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let source = cluster.pool("volumes");
        let full = Arc::new(Backup { id: "f".to_owned(), ..backup.clone() });
        let backup = &Backup { parent_id: Some("f".to_owned()), ..backup.clone() };
        let subject = Subject { backup, ancestors: &[full], level, settle: Duration::from_mins(15), now };
        check(cluster, with_source.then_some(&source), &subject, &Watch::default())
    })
}

#[test]
fn an_increment_reaches_deep_by_its_extents() {
    let level_of = |instead: &str, level, with_source| {
        let found = checked_increment(instead, level, with_source);
        let said = found.problems.first().map_or(String::new(), |problem| format!("{}: {}", problem.code, problem.text));
        (found.verdict, found.level_reached, said)
    };
    let (quick, deep, restore) = (Some(Level::Quick), Some(Level::Deep), Some(Level::Restore));
    assert_eq!(level_of("", Level::Quick, false), (CheckVerdict::Intact, quick, String::new()));
    assert_eq!(level_of("", Level::Deep, true), (CheckVerdict::Intact, deep, String::new()));
    assert_eq!(level_of("", Level::Restore, true), (CheckVerdict::Intact, restore, String::new()));
    let (verdict, reached, said) = level_of("", Level::Deep, false);
    assert_eq!((verdict, reached), (CheckVerdict::Unverifiable, quick));
    assert!(said.contains("its extents were not compared with the volume's: --ceph-source-pool was not given"), "{said}");

    let only_volumes = |diff: &str| format!(r#"case "$*" in diff*pool=volumes*) echo '{diff}'; exit;; esac"#);
    let snapshots = |text: &str| format!("case \"$*\" in snap*) echo '{text}'; exit;; esac\n");
    let (f, b) = (r#"{"id":4,"name":"backup.f.snap.1.5","size":1073741824"#, r#""name":"backup.b.snap.2.5","size":1073741824"#);
    let [nine, ten] = ["09", "10"].map(|hour| format!(r#""timestamp":"Sun Nov 22 {hour}:00:00 2026""#));
    for (why, instead) in [
        ("the volume has it no more", r#"case "$*" in snap*pool=volumes*) echo '[]'; exit;; esac"#.to_owned()),
        (
            "the volume's was made again",
            snapshots(&format!("[{f},{nine}}},{{\"id\":7,{b},{ten}}}]")).replace("snap*", "snap*pool=backups*")
                + &snapshots(&format!("[{f},{nine}}},{{\"id\":7,{b},{}}}]", ten.replace("10:00", "10:30"))),
        ),
        (
            "it is not known when its parent was finished",
            r#"case "$*" in *stat*f.meta) echo 'x stat-ing: (2) No such file or directory' >&2; exit 1;; esac"#
                .replace("x stat-ing", "error stat-ing x"),
        ),
        (
            "its parent was made again",
            r#"case "$*" in *stat*f.meta) echo 'backups/backup.f.meta mtime 2026-11-22T08:00:00.000000+0000, size 40'; exit;; esac"#
                .to_owned(),
        ),
        (
            "what was there before is not known",
            snapshots(&format!("[{{\"id\":3,\"name\":\"backup.e.snap.0.5\",\"size\":1}},{f},{nine}}},{{\"id\":7,{b},{ten}}}]")),
        ),
        ("its parent is not there", snapshots(&format!("[{{\"id\":7,{b},{ten}}}]"))),
    ] {
        let (verdict, reached, said) = level_of(&instead, Level::Deep, true);
        assert_eq!((verdict, reached), (CheckVerdict::Unverifiable, quick), "{why}: {said}");
        assert!(said.starts_with("level-not-reached: intact at level quick, and level deep was not reached: "), "{why}: {said}");
    }
    // What changed here alone is a sign of another writer; zeros that came along are left out of an import.
    let (verdict, reached, said) = level_of(&only_volumes(r#"[{"offset":0,"length":4,"exists":"true"}]"#), Level::Deep, true);
    assert_eq!((verdict, reached), (CheckVerdict::Unverifiable, None));
    assert!(said.starts_with("extents-differ: 6 bytes changed"), "{said}");
    let more = only_volumes(r#"[{"offset":0,"length":4101,"exists":"true"}]"#);
    assert_eq!(level_of(&more, Level::Deep, true), (CheckVerdict::Intact, deep, String::new()));
}

#[test]
fn in_a_pool_without_any_backup_nothing_is_missing() {
    let nothing = |names: &str| {
        let no = "echo 'rbd: error opening image x: (2) No such file or directory' >&2; exit 2";
        let no_object = "echo ' error stat-ing x: (2) No such file or directory' >&2; exit 1";
        format!("case \"$*\" in *ls) {names};; *stat*) {no_object};; *) {no};; esac")
    };
    for (names, verdict, code) in [
        ("exit 0", CheckVerdict::Unverifiable, "pool-without-backups"),
        ("printf 'volume-v\\nrbd_data.1.2\\nbackup.meta\\n'; exit 0", CheckVerdict::Unverifiable, "pool-without-backups"),
        ("echo volume-w.backup.c; exit 0", CheckVerdict::Missing, "image-missing"),
        ("echo backup.c.meta; exit 0", CheckVerdict::Missing, "image-missing"),
        ("echo 'rbd: listing images failed: (1) Operation not permitted' >&2; exit 1", CheckVerdict::Unverifiable, "storage-permission"),
    ] {
        let found = checked(&nothing(names), Level::Quick);
        assert_eq!((found.verdict, first_code(&found), found.begun), (verdict, code, false), "{names}: {found:?}");
    }
}

#[test]
fn whoever_watches_sees_the_bytes_of_every_reading() {
    let broken = r#"case "$*" in export-diff*) head -c 40 "$0.export"; exit 0;; esac"#;
    for (instead, level, bytes) in [("", Level::Quick, 0), ("", Level::Deep, 5), ("", Level::Restore, 10), (broken, Level::Deep, 5)] {
        let watch = Watch::default();
        watched(instead, level, &watch);
        assert_eq!(watch.progress(), (bytes, bytes), "{level} {instead}");
    }
}

#[test]
fn a_last_look_sees_who_writes_and_what_is_new() {
    let then = checked("", Level::Deep).listing;
    let glanced = |instead: &str| scripted(instead, |cluster, backup| super::super::precheck(cluster, backup, &[], then)).unwrap();
    let quiet = glanced("");
    assert_eq!((quiet.newest_object_at.as_deref(), quiet.watched), (Some("2026-11-22T10:00:01.000000Z"), false));
    // No data is read.
    assert_eq!(glanced(r#"case "$*" in *whole*|export*|*get*) exit 77;; esac"#), quiet);
    let later = r#"case "$*" in *stat*) case "$*" in status*) ;; *) echo 'backups/backup.b.meta mtime 2026-11-22T11:00:00.000000+0000, size 40'; exit;; esac;; esac"#;
    assert_eq!(glanced(later).newest_object_at.as_deref(), Some("2026-11-22T11:00:00.000000Z"));
    // Who has the image of a backup open that is not done is at work on it; a later backup may have that of one that is done.
    let open = r#"case "$*" in status*) echo '{"watchers":[{"address":"10.0.0.1:0/1","client":1,"cookie":1}]}'; exit;; SNAP esac"#;
    assert!(!glanced(&open.replace("SNAP", "")).watched);
    assert!(glanced(&open.replace("SNAP", "snap*) echo '[]'; exit;;")).watched);
    let error = scripted("exit 77", |cluster, backup| super::super::precheck(cluster, backup, &[], then)).unwrap_err();
    assert!(!error.text.is_empty());
}

#[test]
fn a_last_look_sees_what_has_gone_although_the_metadata_stays() {
    for (level, bytes) in [(Level::Quick, 5), (Level::Deep, 5), (Level::Restore, 5)] {
        assert_eq!(checked("", level).listing, Some(Listing { objects: 3, bytes }));
    }
    let then = checked("", Level::Quick).listing;
    let glanced = |instead: &str, then| {
        let precheck = scripted(instead, |cluster, backup| super::super::precheck(cluster, backup, &[], then)).unwrap();
        assert_eq!(precheck.newest_object_at.as_deref(), Some("2026-11-22T10:00:01.000000Z"), "the metadata is there: {instead}");
        (precheck.objects, precheck.bytes)
    };
    assert_eq!(glanced("", then), (3, Ok(5)));
    // What has gone has no extents: they are not asked for.
    let uncounted = || Err("its extents were not counted".to_owned());
    let no_image =
        r#"case "$*" in info*) echo "rbd: error opening image x: (2) No such file or directory" >&2; exit 2;; diff*) exit 77;; esac"#;
    assert_eq!(glanced(no_image, then), (1, uncounted()));
    assert_eq!(glanced(r#"case "$*" in snap*) echo '[]'; exit;; diff*) exit 77;; esac"#, then), (2, uncounted()));
    assert_eq!(glanced("", None), (3, uncounted()));
    assert_eq!(glanced(r#"case "$*" in diff*) echo '[]'; exit;; esac"#, then), (3, Ok(0)));
    // To count them may take too long, or fail.
    let (parts, bytes) = glanced(r#"case "$*" in diff*) echo 'rbd: diff error: (5) Input/output error' >&2; exit 5;; esac"#, then);
    assert_eq!(parts, 3);
    assert!(bytes.is_err_and(|why| why.contains("its extents could not be counted")));
}

#[test]
fn other_bytes_than_the_volumes_are_damage_at_level_restore_alone() {
    let other = r#"case "$*" in export-diff*pool=volumes*) tr h j <"$0.export"; exit;; esac"#;
    assert_eq!(checked(other, Level::Deep).verdict, CheckVerdict::Intact);
    let found = checked(other, Level::Restore);
    assert_eq!((found.verdict, first_code(&found)), (CheckVerdict::Corrupt, "differs"), "{found:?}");
    assert_eq!(found.problems[0].object.as_deref(), Some("rbd_data.1.0000000000000000"));
    assert_eq!(found.service_metadata, None);
}

#[test]
fn what_cannot_be_read_twice_is_unreadable_and_what_can_is_a_warning() {
    let fails = |when: &str| {
        format!(r#"case "$*" in export-diff*) {when} echo 'rbd: export-diff error: (5) Input/output error' >&2; exit 5;; esac"#)
    };
    let found = checked(&fails(""), Level::Deep);
    assert_eq!((found.verdict, first_code(&found)), (CheckVerdict::Unverifiable, "unreadable"), "{found:?}");
    assert_eq!(found.service_metadata, None);
    let once = r#"if [ -e "$0.once" ]; then cat "$0.export"; exit; fi; touch "$0.once";"#;
    let found = checked(&fails(once), Level::Deep);
    assert_eq!((found.verdict, found.warnings[0].code.as_str()), (CheckVerdict::Intact, "second-read"), "{found:?}");
}

#[test]
fn an_export_that_breaks_off_is_no_proof() {
    for cut in [r#"head -c 40 "$0.export""#, r#"echo '<html>'"#, "true"] {
        let found = checked(&format!(r#"case "$*" in export-diff*) {cut}; exit 0;; esac"#), Level::Deep);
        assert_eq!((found.verdict, first_code(&found)), (CheckVerdict::Unverifiable, "storage-protocol"), "{cut}: {found:?}");
        assert_eq!(found.service_metadata, None);
    }
}

#[test]
fn less_than_the_extents_promise_is_damage() {
    let found = checked(
        r#"case "$*" in diff*whole*|diff*from*) ;; diff*) echo '[{"offset":0,"length":6,"exists":"true"}]'; exit;; esac"#,
        Level::Deep,
    );
    assert_eq!((found.verdict, first_code(&found)), (CheckVerdict::Incomplete, "export-short"), "{found:?}");
}

#[test]
fn nonsense_from_any_command_is_no_verdict() {
    // What `rados get` gives is content, and another matter.
    for command in ["info*", "snap*", "status*", "lock*", "diff*from-snap*", "diff*whole-object*", "diff*", "*' stat '*"] {
        for nonsense in ["echo '<html>'", "true", "exit 77"] {
            let found = checked(&format!(r#"case "$*" in {command}) {nonsense}; exit 0;; esac"#), Level::Quick);
            assert_eq!(found.verdict, CheckVerdict::Unverifiable, "{command} {nonsense}: {found:?}");
        }
    }
}

#[test]
fn objects_that_only_the_map_knows_are_looked_for() {
    let promised = r#"
        case "$*" in
        diff*whole*) echo '[{"offset":0,"length":4194304,"exists":"true"},{"offset":8388608,"length":4194304,"exists":"true"}]'; exit;;
        *listsnaps*) ANSWER;;
        esac"#;
    let gone = "echo 'error listing snap shots backups/x: (2) No such file or directory' >&2; exit 1";
    let found = checked(&promised.replace("ANSWER", gone), Level::Quick);
    assert_eq!((found.verdict, first_code(&found)), (CheckVerdict::Incomplete, "object-missing"), "{found:?}");
    assert_eq!(found.problems[0].object.as_deref(), Some("rbd_data.1.0000000000000002"));
    let empty = "echo 'rbd_data.1.2:'; exit 0";
    assert_eq!(checked(&promised.replace("ANSWER", empty), Level::Quick).verdict, CheckVerdict::Intact);
}

#[test]
fn an_export_that_stalls_ends() {
    let begun = Instant::now();
    let dir: TempDir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("stalled");
    let found = checked(&format!(r#"case "$*" in export-diff*) touch {}; exec sleep 600;; esac"#, marker.display()), Level::Deep);
    assert_eq!((found.verdict, first_code(&found)), (CheckVerdict::Unverifiable, "storage-unavailable"), "{found:?}");
    assert!(marker.exists() && begun.elapsed() < Duration::from_secs(60));
}
