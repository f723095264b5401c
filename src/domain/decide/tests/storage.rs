//! What a look at the storage makes of a decision: every combination, against rules that are said another way than the code.

use std::sync::Arc;

use super::*;
use crate::domain::{Amount, Below, CheckResult, CheckVerdict, Driver, Glance, Level, Listing, Look, Problem};

const VERDICTS: [CheckVerdict; 5] =
    [CheckVerdict::Intact, CheckVerdict::Incomplete, CheckVerdict::Corrupt, CheckVerdict::Missing, CheckVerdict::Unverifiable];

fn a_check(backup: &Backup, verdict: CheckVerdict) -> CheckResult {
    CheckResult {
        id: backup.id.clone(),
        name: None,
        driver: None,
        service: backup.service.clone(),
        location: None,
        level: Level::Deep,
        depth: "SHA-256 of every block; all 20 objects read".into(),
        partial: false,
        verdict,
        level_reached: None,
        busy: false,
        begun: verdict != CheckVerdict::Missing,
        objects: Amount::default(),
        bytes: Amount::default(),
        problems: if verdict == CheckVerdict::Intact { Vec::new() } else { vec![Problem::of("o\u{1b}[2J", "x", "y")] },
        warnings: Vec::new(),
        chain: vec![backup.id.clone()],
        object_count: (verdict == CheckVerdict::Intact).then_some(20),
        service_metadata: None,
        newest_object_at: Some("2026-11-22T09:00:00Z".into()),
        listing: None,
        below: None,
        host: None,
        checked_at: "2026-11-22T11:00:00Z".into(),
        rows: vec![backup.image(ColumnSet::Mitaka)],
    }
}

fn a_checked_case(status: &str, host: &str, change: impl FnOnce(&mut CheckResult), verdict: CheckVerdict) -> BackupCase {
    let backup = Backup { host: Some(host.into()), ..a_backup(Some(status)) };
    let mut check = a_check(&backup, verdict);
    change(&mut check);
    BackupCase { check: Some(Box::new(check)), volume: Some(a_volume("v", Some(BACKING_UP), Some(IN_USE))), ..a_case(backup) }
}

#[test]
fn objects_without_times_do_not_show_that_nobody_writes() {
    for (driver, newest, quiet) in [
        (Driver::S3, Some("2026-11-22T09:00:00Z"), true),
        (Driver::S3, None, false),
        (Driver::Gcs, None, false),
        (Driver::Posix, None, false),
        // Who writes has the image open, which is seen.
        (Driver::Ceph, None, true),
    ] {
        for verdict in [CheckVerdict::Intact, CheckVerdict::Incomplete, CheckVerdict::Corrupt] {
            let change = |check: &mut CheckResult| (check.driver, check.newest_object_at) = (Some(driver), newest.map(str::to_owned));
            let finding = backup(&a_checked_case(CREATING, "up", change, verdict), &situation(), &Policy::default());
            let wanted = if quiet { Verdict::Stuck } else { Verdict::Uncertain };
            assert_eq!(finding.verdict, wanted, "{driver:?} {newest:?} {verdict}");
        }
    }
}

#[test]
fn every_combination_keeps_the_rules() {
    let mut counted = 0;
    for status in [CREATING, ERROR, RESTORING, DELETING] {
        for host in ["up", "down", GONE] {
            for verdict in VERDICTS {
                for bits in 0..32_u32 {
                    let [busy, partial, moved, expired, allow_unverified] = [0, 1, 2, 3, 4].map(|bit| bits >> bit & 1 == 1);
                    for to in [None, Some(AVAILABLE), Some(ERROR)] {
                        let change = |check: &mut CheckResult| {
                            (check.busy, check.partial) = (busy, partial);
                            if moved {
                                check.rows[0].columns.insert("container".into(), "elsewhere".into());
                            }
                            if expired {
                                check.checked_at = "2026-11-20T11:00:00Z".into();
                            }
                        };
                        let case = a_checked_case(status, host, change, verdict);
                        let policy = Policy { to: to.map(Into::into), allow_unverified, ..Policy::default() };
                        let finding = backup(&case, &situation(), &policy);
                        let without = backup(&BackupCase { check: None, ..case.clone() }, &situation(), &policy);
                        let context = format!(
                            "{status} {host} {verdict} busy {busy} partial {partial} moved {moved} expired {expired} {to:?}: {finding:?}"
                        );
                        counted += 1;
                        if matches!(status, RESTORING | DELETING) {
                            assert_eq!(finding, without, "{context}");
                            continue;
                        }
                        let proposed = finding.proposal.as_ref().and_then(|proposal| proposal.status.as_deref());
                        if moved || expired {
                            assert_eq!((finding.verdict, proposed), (without.verdict, None), "{context}");
                            assert!(finding.refusal.is_some(), "{context}");
                            continue;
                        }
                        if busy {
                            assert_eq!((finding.verdict, proposed), (Verdict::Busy, None), "{context}");
                            continue;
                        }
                        let quiet = verdict != CheckVerdict::Unverifiable && verdict != CheckVerdict::Missing;
                        let stuck = host != "up" || quiet;
                        assert_eq!(finding.verdict, if stuck { Verdict::Stuck } else { Verdict::Uncertain }, "{context}");
                        // Nobody gets available for damage, whatever the flags, and not without a look but by the flag.
                        if proposed == Some(AVAILABLE) {
                            let earned = verdict == CheckVerdict::Intact && !partial;
                            let overridden = verdict == CheckVerdict::Unverifiable && allow_unverified && to == Some(AVAILABLE);
                            assert!(earned || overridden, "{context}");
                            let object_count =
                                finding.proposal.as_ref().unwrap().changes.iter().any(|change| change.column == "object_count");
                            assert_eq!(object_count, earned, "{context}");
                        }
                        // What was damaged becomes error, if it is not error already.
                        if verdict.is_damage() && status == CREATING && to != Some(AVAILABLE) {
                            assert_eq!(proposed, Some(ERROR), "{context}");
                        }
                        if verdict == CheckVerdict::Intact && !partial && to != Some(ERROR) {
                            assert_eq!(proposed, Some(AVAILABLE), "{context}");
                        }
                        if verdict == CheckVerdict::Unverifiable && to.is_none() {
                            assert_eq!(proposed, None, "{context}");
                            assert!(finding.refusal.is_some(), "{context}");
                        }
                    }
                }
            }
        }
    }
    assert_eq!(counted, 4 * 3 * 5 * 32 * 3);
}

#[test]
fn out_of_error_only_data_that_was_read_earns_available() {
    let decide = |status: &str, level: Level, policy: &Policy| {
        let finding = backup(&a_checked_case(status, "down", |check| check.level = level, CheckVerdict::Intact), &situation(), policy);
        let to = finding.proposal.as_ref().and_then(|proposal| proposal.status.clone());
        (to, finding)
    };
    for level in [Level::Quick, Level::Deep, Level::Restore] {
        assert_eq!(decide(CREATING, level, &Policy::default()).0.as_deref(), Some(AVAILABLE), "{level}");
        let (to, finding) = decide(ERROR, level, &Policy::default());
        if level == Level::Quick {
            assert_eq!(to, None, "{finding:?}");
            assert!(finding.refusal.as_deref().is_some_and(|why| why.contains("only --check deep earns available")), "{finding:?}");
        } else {
            assert_eq!(to.as_deref(), Some(AVAILABLE), "{finding:?}");
        }
    }
    // The named flag goes around it, as it goes around no check at all, and that stands with it.
    let asked = Policy { to: Some(AVAILABLE.into()), ..Policy::default() };
    assert_eq!(decide(ERROR, Level::Quick, &asked).0, None);
    let (to, finding) = decide(ERROR, Level::Quick, &Policy { allow_unverified: true, ..asked });
    assert_eq!(to.as_deref(), Some(AVAILABLE), "{finding:?}");
    assert!(finding.evidence.iter().any(|evidence| evidence.code == "unverified"), "{finding:?}");
    // Without --to available the flag decides nothing.
    let (to, finding) = decide(ERROR, Level::Quick, &Policy { allow_unverified: true, ..Policy::default() });
    assert_eq!(to, None, "{finding:?}");
    assert!(finding.refusal.is_some(), "{finding:?}");
}

#[test]
fn the_level_that_was_reached_decides() {
    use CheckVerdict::{Intact, Unverifiable};
    use Level::{Deep, Quick, Restore};
    let ceph = Some(Driver::Ceph);
    // The driver, the level that was asked for, the verdict, the level that was reached, and whether that earns available.
    for (driver, level, verdict, reached, earned) in [
        (ceph, Quick, Intact, Some(Quick), true),
        (ceph, Deep, Unverifiable, Some(Quick), false),
        (ceph, Deep, Intact, Some(Deep), true),
        (ceph, Restore, Unverifiable, Some(Quick), false),
        (ceph, Restore, Unverifiable, Some(Deep), true),
        (ceph, Restore, Intact, Some(Restore), true),
        (ceph, Deep, Unverifiable, None, false),
        // Versions that did not say what was reached: nothing was compared that a level of Ceph's could stand for.
        (ceph, Quick, Intact, None, true),
        (ceph, Deep, Intact, None, false),
        (ceph, Restore, Intact, None, false),
        (Some(Driver::S3), Restore, Intact, None, true),
    ] {
        let change = |check: &mut CheckResult| (check.driver, check.level, check.level_reached) = (driver, level, reached);
        let finding = backup(&a_checked_case(CREATING, "down", change, verdict), &situation(), &Policy::default());
        let to = finding.proposal.as_ref().and_then(|proposal| proposal.status.as_deref());
        assert_eq!((to, finding.refusal.is_some()), (earned.then_some(AVAILABLE), !earned), "{level} {verdict} {reached:?}: {finding:?}");
    }
}

#[test]
fn what_is_known_goes_into_the_rows() {
    let finding = backup(&a_checked_case(CREATING, "up", |_| {}, CheckVerdict::Intact), &situation(), &Policy::default());
    assert_eq!(
        said(&finding),
        "stuck (storage-quiet): b status creating -> available".replace("status ", "")
            + ", b object_count NULL -> 20, v backing-up -> in-use"
    );
    let proposal = finding.proposal.unwrap();
    assert!(proposal.needs.is_empty());
    let finding = backup(&a_checked_case(CREATING, "down", |_| {}, CheckVerdict::Incomplete), &situation(), &Policy::default());
    let reason = finding.proposal.unwrap().changes.into_iter().find(|change| change.column == "fail_reason").unwrap();
    assert_eq!(reason.to.as_text(), Some("cinder-backup-repair: left in creating: cinder-backup on down was down; its data is incomplete"));
    // A Ceph backup gets what its driver would have written last.
    let change = |check: &mut CheckResult| (check.service_metadata, check.object_count) = (Some("{\"base\": \"x\"}".into()), None);
    let finding = backup(&a_checked_case(CREATING, "down", change, CheckVerdict::Intact), &situation(), &Policy::default());
    assert!(said(&finding).contains("b service_metadata NULL -> {\"base\": \"x\"}"), "{}", said(&finding));
}

#[test]
fn what_it_rests_on_being_moved_meanwhile_spoils_the_evidence() {
    let row = |id: &str, parent: Option<&str>| Backup {
        id: id.into(),
        parent_id: parent.map(Into::into),
        container: Some("c".into()),
        ..a_backup(Some(AVAILABLE))
    };
    let (parent, grandparent) = (row("p", Some("g")), row("g", None));
    let mut case = a_checked_case(CREATING, "down", |_| {}, CheckVerdict::Intact);
    case.backup.parent_id = Some("p".into());
    case.parent = Some(parent.clone());
    case.check.as_mut().unwrap().rows = [&case.backup, &parent, &grandparent].map(|row| row.image(ColumnSet::Mitaka)).into();
    let decide = |ancestors: &[Backup]| {
        let ancestors = ancestors.iter().cloned().map(Arc::new).collect();
        backup(&BackupCase { ancestors, ..case.clone() }, &situation(), &Policy::default())
    };
    let counted = Backup { num_dependent_backups: Some(7), status: Some(RESTORING.into()), ..grandparent.clone() };
    for ancestors in [[parent.clone(), grandparent.clone()], [parent.clone(), counted]] {
        let finding = decide(&ancestors);
        assert!(finding.proposal.is_some(), "counters and a restore are of no consequence: {finding:?}");
    }
    let moved = |row: &Backup| Backup { container: Some("other".into()), ..row.clone() };
    let going = Backup { status: Some(DELETING.into()), ..grandparent.clone() };
    for (ancestors, why) in [
        (vec![moved(&parent), grandparent.clone()], "backup p, which it rests on, has moved on since it was checked (container"),
        (vec![parent.clone(), moved(&grandparent)], "backup g, which it rests on, has moved on since it was checked (container"),
        (vec![parent.clone(), going], "backup g, which it rests on, has moved on since it was checked (status"),
        (vec![parent.clone()], "backup g, which it rests on, was there when it was checked and is not any more"),
        (vec![parent, grandparent, row("x", None)], "rests on backup x, which was not there when it was checked"),
    ] {
        let finding = decide(&ancestors);
        assert!(finding.refusal.as_deref().is_some_and(|said| said.contains(why)), "{why}: {finding:?}");
    }
}

#[test]
fn a_recent_backup_stays_recent_and_evidence_out_of_the_future_is_none() {
    let mut case = a_checked_case(CREATING, "down", |_| {}, CheckVerdict::Intact);
    case.backup.updated_at = Some(ago(60));
    case.check.as_mut().unwrap().rows = vec![case.backup.image(ColumnSet::Mitaka)];
    let finding = backup(&case, &situation(), &Policy::default());
    assert_eq!((finding.verdict, finding.proposal), (Verdict::Recent, None));
    for (host, whose) in
        [(None, "the clock of the host that checked it is "), (Some("store1"), "the clock of host store1, where it was checked, is ")]
    {
        let change = |check: &mut CheckResult| (check.checked_at, check.host) = ("2026-11-22T13:00:00Z".into(), host.map(Into::into));
        let case = a_checked_case(CREATING, "down", change, CheckVerdict::Intact);
        let refusal = backup(&case, &situation(), &Policy::default()).refusal.unwrap();
        assert!(refusal.starts_with(whose) && refusal.contains("1 h ahead of the database's"), "{refusal}");
        assert!(refusal.contains("set that clock right") && !refusal.contains("--evidence-max-age"), "{refusal}");
    }
}

#[test]
fn a_check_that_asked_for_less_quiet_is_held_to_more() {
    let mut check = a_check(&a_backup(Some(CREATING)), CheckVerdict::Intact);
    // The newest object is of 9:00, and the check of 11:00.
    check.hold_to(7_200);
    assert!(!check.busy);
    let held = |change: &dyn Fn(&mut CheckResult), settle| {
        let mut check = check.clone();
        change(&mut check);
        check.hold_to(settle);
        check.busy
    };
    assert!(held(&|_| {}, 7_201) && held(&|_| {}, u64::MAX));
    assert!(held(&|check| check.newest_object_at = Some("2026-11-22T11:30:00Z".into()), 0), "the storage's clock is ahead");
    // By how much the storage's clock was behind is not in the document.
    let behind = |check: &mut CheckResult| check.warnings.push(Problem::general("clock-behind", "x"));
    assert!(held(&behind, 1));
    assert!(!held(&|check| check.newest_object_at = None, 900), "nothing there");
}

#[test]
fn whatever_moves_on_the_storage_after_a_check_is_told() {
    let mut check = a_check(&a_backup(Some(CREATING)), CheckVerdict::Intact);
    check.listing = Some(Listing { objects: 3, bytes: 100 });
    let at = |time: &str, objects, bytes| Glance { objects, bytes: Ok(bytes), newest_object_at: Some(time.into()), watched: false };
    let as_it_was = at("2026-11-22T09:00:00.000Z", 3, 100);
    assert_eq!(check.compared_with(&as_it_was), Look::Same);
    let moved = |check: &CheckResult, now: &Glance, part: &str| {
        let look = check.compared_with(now);
        assert!(matches!(&look, Look::Moved(what) if what.contains(part)), "{part}: {look:?}");
    };
    for (now, part) in [
        (at("2026-11-22T09:00:01Z", 3, 100), "an object was written at 2026-11-22T09:00:01Z"),
        (at("2026-11-22T09:00:00Z", 4, 100), "3 objects of 100 bytes then, 4 of 100 now"),
        (at("2026-11-22T09:00:00Z", 3, 99), "3 objects of 100 bytes then, 3 of 99 now"),
        (at("2026-11-22T08:00:00Z", 3, 100), "its newest object is not there any more"),
        (Glance { watched: true, ..as_it_was.clone() }, "somebody has its image open"),
    ] {
        moved(&check, &now, part);
    }
    // In Ceph the object of metadata, the newest, outlives what it is about.
    let in_ceph = CheckResult { driver: Some(Driver::Ceph), ..check.clone() };
    moved(&in_ceph, &at("2026-11-22T09:00:00Z", 1, 0), "3 parts (image, snapshots, object of metadata) of 100 bytes then, 1 of 0 now");
    moved(&in_ceph, &at("2026-11-22T09:00:00Z", 3, 99), "of 100 bytes then, 3 of 99 now");
    let blind = |objects| Glance { objects, bytes: Err("no answer".into()), ..as_it_was.clone() };
    moved(&in_ceph, &blind(2), "of 100 bytes then, 2 now");
    assert_eq!(in_ceph.compared_with(&blind(3)), Look::Unseen("no answer".into()));
    // A document that does not know the listing still knows the newest object, and proves no more; nothing may have become something.
    check.listing = None;
    let look = check.compared_with(&as_it_was);
    assert!(matches!(&look, Look::Unseen(why) if why.contains("does not say what was listed then")), "{look:?}");
    moved(&check, &at("2026-11-22T08:00:00Z", 3, 100), "its newest object is not there any more");
    check.newest_object_at = None;
    moved(&check, &as_it_was, "there was none then");
}

#[test]
fn whatever_moves_below_a_backup_after_a_check_is_told() {
    let mut check = a_check(&a_backup(Some(CREATING)), CheckVerdict::Intact);
    let below = |time: &str, objects| Below { listing: Listing { objects, bytes: 100 }, newest_object_at: Some(time.into()) };
    let then = below("2026-11-22T09:00:00Z", 9);
    check.below = Some(then.clone());
    assert_eq!(check.compared_below(&then), Look::Same);
    for (now, part) in [
        (below("2026-11-22T09:00:01Z", 9), "of the backups that it rests on: an object was written at 2026-11-22T09:00:01Z"),
        (below("2026-11-22T09:00:00Z", 8), "of the backups that it rests on: 9 objects of 100 bytes then, 8 of 100 now"),
        (Below::default(), "9 objects of 100 bytes then, 0 of 0 now"),
    ] {
        let look = check.compared_below(&now);
        assert!(matches!(&look, Look::Moved(what) if what.contains(part)), "{part}: {look:?}");
    }
    // A document of a version that did not list them proves nothing of them.
    check.below = None;
    assert!(matches!(check.compared_below(&then), Look::Unseen(_)));
}
