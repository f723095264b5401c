//! Decisions after a check: every combination, against rules that are written in another way than the code.

use std::sync::Arc;

use super::*;
use crate::domain::{
    Amount, AncestorListings, CheckResult, CheckVerdict, Comparison, Driver, Level, Listing, PrecheckListing, Problem, ProblemCode,
};

const VERDICTS: [CheckVerdict; 5] =
    [CheckVerdict::Intact, CheckVerdict::Incomplete, CheckVerdict::Corrupt, CheckVerdict::Missing, CheckVerdict::Unverifiable];

pub(super) fn a_check(backup: &Backup, verdict: CheckVerdict) -> CheckResult {
    CheckResult {
        id: backup.id.clone(),
        name: None,
        driver: None,
        service: backup.service.clone(),
        location: None,
        level: Level::Deep,
        depth: "SHA-256 of every block; all 20 objects read".into(),
        partial: false,
        part: None,
        verdict,
        level_reached: None,
        busy: false,
        begun: verdict != CheckVerdict::Missing,
        objects: Amount::default(),
        bytes: Amount::default(),
        problems: if verdict == CheckVerdict::Intact { Vec::new() } else { vec![Problem::of("o\u{1b}[2J", ProblemCode::Gap, "y")] },
        warnings: Vec::new(),
        chain: vec![backup.id.clone()],
        object_count: (verdict == CheckVerdict::Intact).then_some(20),
        service_metadata: None,
        newest_object_at: Some("2026-11-22T09:00:00Z".into()),
        listing: None,
        below: None,
        witness: None,
        host: None,
        checked_at: "2026-11-22T11:00:00Z".into(),
        restorable: None,
        restorable_reasons: Vec::new(),
        rows: vec![backup.image(ColumnSet::Mitaka)],
    }
}

fn a_checked_case(status: &str, host: &str, change: impl FnOnce(&mut CheckResult), verdict: CheckVerdict) -> BackupCase {
    let backup = Backup { host: Some(host.into()), ..a_backup(Some(status)) };
    let mut check = a_check(&backup, verdict);
    change(&mut check);
    BackupCase { check: Some(Box::new(check)), volume: Some(a_volume("v", Some(BACKING_UP), Some(IN_USE))), ..a_case(backup) }
}

/// While a service is up, a check can only make a backup available, and only if the driver has nothing left to write.
#[test]
fn while_the_service_is_up_only_a_finished_backup_changes() {
    let newest = Some("2026-11-22T09:00:00Z");
    let warned = |code: ProblemCode| vec![Problem::general(code, "x")];
    for (driver, newest, warnings, finished) in [
        (Driver::S3, newest, Vec::new(), true),
        (Driver::Ceph, newest, Vec::new(), true),
        (Driver::S3, newest, warned(ProblemCode::NoSha256file), true),
        // Objects without times do not show when the last of them was written.
        (Driver::S3, None, Vec::new(), false),
        (Driver::Gcs, None, Vec::new(), false),
        (Driver::Ceph, None, Vec::new(), false),
        // A client has the image open, or was killed while it had.
        (Driver::Ceph, newest, warned(ProblemCode::ImageOpen), false),
        (Driver::Ceph, newest, warned(ProblemCode::StaleLock), false),
    ] {
        for (status, verdict) in [CREATING, ERROR].into_iter().flat_map(|status| VERDICTS.map(|verdict| (status, verdict))) {
            for host in ["up", "odd", "ahead"] {
                let change = |check: &mut CheckResult| {
                    (check.driver, check.newest_object_at) = (Some(driver), newest.map(str::to_owned));
                    check.warnings.clone_from(&warnings);
                    check.level_reached = (verdict == CheckVerdict::Intact).then_some(Level::Deep);
                };
                let case = a_checked_case(status, host, change, verdict);
                for to in [None, Some(AVAILABLE), Some(ERROR)] {
                    let policy = Policy { to: to.map(Into::into), allow_unverified: to.is_some(), ..Policy::default() };
                    let finding = backup(&case, &situation(), &policy);
                    let context = format!("{driver:?} {newest:?} {warnings:?} {status} {verdict} {host} {to:?}: {finding:?}");
                    let earned = finished && verdict == CheckVerdict::Intact && to != Some(ERROR);
                    assert_eq!(finding.is_actionable(), earned, "{context}");
                    assert_eq!(finding.verdict, if earned { Verdict::Stuck } else { Verdict::Uncertain }, "{context}");
                    assert_eq!(codes(&finding).contains(&"storage-complete"), earned, "{context}");
                    // It is also so while heartbeats say nothing because the server has only just started.
                    let young = Situation { server_uptime_seconds: Some(0), ..situation() };
                    let case = a_checked_case(status, "down", change, verdict);
                    assert_eq!(backup(&case, &young, &policy).is_actionable(), earned, "{context}");
                }
            }
        }
    }
    // A row whose age is not known does not count as old enough.
    let mut case = a_checked_case(CREATING, "up", |_| {}, CheckVerdict::Intact);
    case.backup.created_at = Some("soon".into());
    assert_eq!(backup(&case, &situation(), &Policy::default()).verdict, Verdict::Uncertain);
}

#[test]
fn every_combination_keeps_the_rules() {
    let mut counted = 0;
    for status in [CREATING, ERROR, RESTORING, DELETING] {
        for host in ["up", "down", GONE] {
            for verdict in VERDICTS {
                for bits in 0..256_u32 {
                    let [busy, partial, moved, expired, allow_unverified, accept_quick, quick, timeless] =
                        [0, 1, 2, 3, 4, 5, 6, 7].map(|bit| bits >> bit & 1 == 1);
                    for to in [None, Some(AVAILABLE), Some(ERROR)] {
                        let change = |check: &mut CheckResult| {
                            (check.busy, check.partial) = (busy, partial);
                            if quick {
                                check.level = Level::Quick;
                            }
                            if timeless {
                                check.newest_object_at = None;
                            }
                            if moved {
                                check.rows[0].columns.insert("container".into(), "elsewhere".into());
                            }
                            if expired {
                                check.checked_at = "2026-11-20T11:00:00Z".into();
                            }
                        };
                        let case = a_checked_case(status, host, change, verdict);
                        let policy = Policy { to: to.map(Into::into), allow_unverified, accept_quick, ..Policy::default() };
                        let finding = backup(&case, &situation(), &policy);
                        let without = backup(&BackupCase { check: None, ..case.clone() }, &situation(), &policy);
                        let context = format!(
                            "{status} {host} {verdict} busy {busy} partial {partial} moved {moved} expired {expired} quick {quick} \
                             timeless {timeless} {to:?} {policy:?}: {finding:?}"
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
                        // Available takes data that was read; of one that is being created names and sizes are enough if the flag says so.
                        let whole = verdict == CheckVerdict::Intact && !partial;
                        let earned = whole && (!quick || (accept_quick && status == CREATING)) && to != Some(ERROR);
                        let finished = earned && !timeless;
                        let stuck = host != "up" || finished;
                        assert_eq!(finding.verdict, if stuck { Verdict::Stuck } else { Verdict::Uncertain }, "{context}");
                        // Damage never becomes available, and nothing does without a check unless the option is given.
                        let unproven = verdict == CheckVerdict::Unverifiable || (whole && !earned);
                        let overridden = unproven && allow_unverified && to == Some(AVAILABLE);
                        assert_eq!(proposed == Some(AVAILABLE), earned || overridden, "{context}");
                        if proposed == Some(AVAILABLE) {
                            let object_count =
                                finding.proposal.as_ref().unwrap().changes.iter().any(|change| change.column == "object_count");
                            assert_eq!(object_count, earned, "{context}");
                            let [accepted, unverified] = ["accepted-quick", "unverified"].map(|code| codes(&finding).contains(&code));
                            assert_eq!((accepted, unverified), (earned && quick, !earned), "{context}");
                        }
                        // What was damaged becomes error, if it is not error already; a quick look is enough to find that.
                        if verdict.is_damage() && status == CREATING && to != Some(AVAILABLE) {
                            assert_eq!(proposed, Some(ERROR), "{context}");
                        }
                        // What is whole and was not read is not given up for that.
                        let undecided = (verdict == CheckVerdict::Unverifiable || (whole && !earned)) && to.is_none();
                        if undecided {
                            assert_eq!(proposed, None, "{context}");
                            assert!(finding.refusal.is_some(), "{context}");
                        }
                        if undecided && whole && status == CREATING {
                            let why = finding.refusal.as_deref().unwrap();
                            assert!(why.contains("--check deep") && why.contains("--accept-quick"), "{context}");
                        }
                        let reasons = finding.proposal.iter().flat_map(|proposal| &proposal.changes);
                        let reason = reasons.filter(|change| change.column == "fail_reason").find_map(|change| change.to.as_text());
                        assert!(reason.is_none_or(|reason| !reason.contains("accept")), "{context}");
                    }
                }
            }
        }
    }
    assert_eq!(counted, 4 * 3 * 5 * 256 * 3);
}

#[test]
fn only_data_that_was_read_earns_available() {
    let decide = |status: &str, level: Level, policy: &Policy| {
        let finding = backup(&a_checked_case(status, "down", |check| check.level = level, CheckVerdict::Intact), &situation(), policy);
        let to = finding.proposal.as_ref().and_then(|proposal| proposal.status.clone());
        (to, finding)
    };
    let accepting = Policy { accept_quick: true, ..Policy::default() };
    for (status, level) in [CREATING, ERROR].into_iter().flat_map(|s| [Level::Quick, Level::Deep, Level::Restore].map(|level| (s, level))) {
        for policy in [Policy::default(), accepting.clone()] {
            let (to, finding) = decide(status, level, &policy);
            if level > Level::Quick || (policy.accept_quick && status == CREATING) {
                assert_eq!(to.as_deref(), Some(AVAILABLE), "{finding:?}");
            } else {
                assert_eq!(to, None, "{finding:?}");
                let wanted =
                    if status == ERROR { "use --check deep to make it available" } else { "which is not enough to make it available" };
                assert!(finding.refusal.as_deref().is_some_and(|why| why.contains(wanted)), "{finding:?}");
            }
        }
    }
    // The named option overrides it, as it does without a check, and the evidence says so.
    let asked = Policy { to: Some(AVAILABLE.into()), ..Policy::default() };
    for status in [CREATING, ERROR] {
        assert_eq!(decide(status, Level::Quick, &asked).0, None);
        let (to, finding) = decide(status, Level::Quick, &Policy { allow_unverified: true, ..asked.clone() });
        assert_eq!(to.as_deref(), Some(AVAILABLE), "{finding:?}");
        assert!(finding.evidence.iter().any(|evidence| evidence.code.as_str() == "unverified"), "{finding:?}");
        // Without --to available the option decides nothing.
        let (to, finding) = decide(status, Level::Quick, &Policy { allow_unverified: true, ..Policy::default() });
        assert_eq!(to, None, "{finding:?}");
        assert!(finding.refusal.is_some(), "{finding:?}");
    }
}

#[test]
fn the_level_that_was_reached_decides() {
    use CheckVerdict::{Intact, Unverifiable};
    use Level::{Deep, Quick, Restore};
    let ceph = Some(Driver::Ceph);
    // The driver, the level that was asked for, the verdict, the level that was reached, and the one that counts.
    for (driver, level, verdict, reached, counts) in [
        (ceph, Quick, Intact, Some(Quick), Some(Quick)),
        (ceph, Deep, Unverifiable, Some(Quick), Some(Quick)),
        (ceph, Deep, Intact, Some(Deep), Some(Deep)),
        (ceph, Restore, Unverifiable, Some(Quick), Some(Quick)),
        (ceph, Restore, Unverifiable, Some(Deep), Some(Deep)),
        (ceph, Restore, Intact, Some(Restore), Some(Restore)),
        (ceph, Deep, Unverifiable, None, None),
        // Versions without level_reached: for Ceph they compared nothing that a deeper level requires.
        (ceph, Quick, Intact, None, Some(Quick)),
        (ceph, Deep, Intact, None, Some(Quick)),
        (ceph, Restore, Intact, None, Some(Quick)),
        (Some(Driver::S3), Restore, Intact, None, Some(Restore)),
    ] {
        for (accept_quick, host) in [(false, "down"), (true, "down"), (false, "up"), (true, "up")] {
            let change = |check: &mut CheckResult| (check.driver, check.level, check.level_reached) = (driver, level, reached);
            let policy = Policy { accept_quick, ..Policy::default() };
            let finding = backup(&a_checked_case(CREATING, host, change, verdict), &situation(), &policy);
            let to = finding.proposal.as_ref().and_then(|proposal| proposal.status.as_deref());
            let earned = counts >= Some(if accept_quick { Quick } else { Deep });
            let context = format!("{level} {verdict} {reached:?} {accept_quick} {host}: {finding:?}");
            assert_eq!((to, finding.refusal.is_some()), (earned.then_some(AVAILABLE), !earned), "{context}");
            assert_eq!(finding.is_actionable(), earned, "{context}");
        }
    }
}

#[test]
fn a_level_that_was_not_reached_is_checked_again() {
    let settled = |driver, verdict, level, reached, again| {
        let check = CheckResult { driver: Some(driver), level, level_reached: reached, ..a_check(&a_backup(Some(CREATING)), verdict) };
        check.settles(again)
    };
    let (deep, quick) = (Level::Deep, Level::Quick);
    assert!(settled(Driver::S3, CheckVerdict::Intact, deep, None, deep) && settled(Driver::S3, CheckVerdict::Corrupt, deep, None, deep));
    assert!(
        !settled(Driver::S3, CheckVerdict::Intact, quick, None, deep) && !settled(Driver::S3, CheckVerdict::Missing, quick, None, deep)
    );
    assert!(settled(Driver::Ceph, CheckVerdict::Unverifiable, deep, Some(quick), quick));
    assert!(!settled(Driver::Ceph, CheckVerdict::Unverifiable, deep, Some(quick), deep));
    // An earlier version reported intact, whatever it had compared.
    assert!(!settled(Driver::Ceph, CheckVerdict::Intact, deep, None, deep));
}

#[test]
fn the_numbers_of_a_check_go_into_the_rows() {
    let finding = backup(&a_checked_case(CREATING, "up", |_| {}, CheckVerdict::Intact), &situation(), &Policy::default());
    assert_eq!(said(&finding), "stuck (storage-complete): b creating -> available, b object_count NULL -> 20, v backing-up -> in-use");
    let proposal = finding.proposal.unwrap();
    assert!(proposal.needs.is_empty());
    let to_error = Policy { to: Some(ERROR.into()), ..Policy::default() };
    for (verdict, said) in [(CheckVerdict::Incomplete, "incomplete"), (CheckVerdict::Intact, "intact by a deep check")] {
        let finding = backup(&a_checked_case(CREATING, "down", |_| {}, verdict), &situation(), &to_error);
        let reason = finding.proposal.unwrap().changes.into_iter().find(|change| change.column == "fail_reason").unwrap();
        let expected = format!("cinder-backup-repair: left in creating: cinder-backup on down was down; its data is {said}");
        assert_eq!(reason.to.as_text(), Some(&*expected));
    }
    // A Ceph backup gets the metadata that its driver would have set last.
    let change = |check: &mut CheckResult| (check.service_metadata, check.object_count) = (Some("{\"base\": \"x\"}".into()), None);
    let finding = backup(&a_checked_case(CREATING, "down", change, CheckVerdict::Intact), &situation(), &Policy::default());
    assert!(said(&finding).contains("b service_metadata NULL -> {\"base\": \"x\"}"), "{}", said(&finding));
}

#[test]
fn evidence_is_void_once_an_ancestor_has_changed() {
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
        (vec![moved(&parent), grandparent.clone()], "backup p, which it is based on, has changed since it was checked (container"),
        (vec![parent.clone(), moved(&grandparent)], "backup g, which it is based on, has changed since it was checked (container"),
        (vec![parent.clone(), going], "backup g, which it is based on, has changed since it was checked (status"),
        (vec![parent.clone()], "backup g, which it is based on, was deleted since it was checked"),
        (vec![parent, grandparent, row("x", None)], "is based on backup x, which did not exist when it was checked"),
    ] {
        let finding = decide(&ancestors);
        assert!(finding.refusal.as_deref().is_some_and(|said| said.contains(why)), "{why}: {finding:?}");
    }
}

#[test]
fn a_recent_backup_stays_recent_and_evidence_from_the_future_is_void() {
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
        assert!(refusal.contains("correct that clock") && !refusal.contains("--evidence-max-age"), "{refusal}");
    }
}

#[test]
fn a_check_with_a_shorter_settle_time_is_judged_by_the_longer_one() {
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
    // The document does not say by how much the storage's clock was behind.
    let behind = |check: &mut CheckResult| check.warnings.push(Problem::general(ProblemCode::ClockBehind, "x"));
    assert!(held(&behind, 1));
    assert!(!held(&|check| check.newest_object_at = None, 900), "nothing there");
}

#[test]
fn every_change_on_the_storage_after_a_check_is_reported() {
    let mut check = a_check(&a_backup(Some(CREATING)), CheckVerdict::Intact);
    check.listing = Some(Listing { objects: 3, bytes: 100 });
    let at =
        |time: &str, objects, bytes| PrecheckListing { objects, bytes: Ok(bytes), newest_object_at: Some(time.into()), watched: false };
    let as_it_was = at("2026-11-22T09:00:00.000Z", 3, 100);
    assert_eq!(check.compared_with(&as_it_was), Comparison::Unchanged);
    let moved = |check: &CheckResult, now: &PrecheckListing, part: &str| {
        let look = check.compared_with(now);
        assert!(matches!(&look, Comparison::Changed(what) if what.contains(part)), "{part}: {look:?}");
    };
    for (now, part) in [
        (at("2026-11-22T09:00:01Z", 3, 100), "an object was written at 2026-11-22T09:00:01Z"),
        (at("2026-11-22T09:00:00Z", 4, 100), "3 objects of 100 bytes then, 4 of 100 now"),
        (at("2026-11-22T09:00:00Z", 3, 99), "3 objects of 100 bytes then, 3 of 99 now"),
        (at("2026-11-22T08:00:00Z", 3, 100), "its newest object no longer exists"),
        (PrecheckListing { watched: true, ..as_it_was.clone() }, "a client has its image open"),
    ] {
        moved(&check, &now, part);
    }
    // In Ceph the metadata object, which is the newest, outlives the image.
    let in_ceph = CheckResult { driver: Some(Driver::Ceph), ..check.clone() };
    moved(&in_ceph, &at("2026-11-22T09:00:00Z", 1, 0), "3 parts (image, snapshots, metadata object) of 100 bytes then, 1 of 0 now");
    moved(&in_ceph, &at("2026-11-22T09:00:00Z", 3, 99), "of 100 bytes then, 3 of 99 now");
    let blind = |objects| PrecheckListing { objects, bytes: Err("no answer".into()), ..as_it_was.clone() };
    moved(&in_ceph, &blind(2), "of 100 bytes then, 2 now");
    assert_eq!(in_ceph.compared_with(&blind(3)), Comparison::Unknown("no answer".into()));
    // A document without a listing has the newest object only; nothing may have become something.
    check.listing = None;
    let look = check.compared_with(&as_it_was);
    assert!(matches!(&look, Comparison::Unknown(why) if why.contains("has no listing to compare with")), "{look:?}");
    moved(&check, &at("2026-11-22T08:00:00Z", 3, 100), "its newest object no longer exists");
    check.newest_object_at = None;
    moved(&check, &as_it_was, "there was none before");
}

#[test]
fn every_change_of_an_ancestor_after_a_check_is_reported() {
    let mut check = a_check(&a_backup(Some(CREATING)), CheckVerdict::Intact);
    let below = |time: &str, objects| AncestorListings { listing: Listing { objects, bytes: 100 }, newest_object_at: Some(time.into()) };
    let then = below("2026-11-22T09:00:00Z", 9);
    check.below = Some(then.clone());
    assert_eq!(check.compared_with_ancestors(&then), Comparison::Unchanged);
    for (now, part) in [
        (below("2026-11-22T09:00:01Z", 9), "in the backups that it is based on: an object was written at 2026-11-22T09:00:01Z"),
        (below("2026-11-22T09:00:00Z", 8), "in the backups that it is based on: 9 objects of 100 bytes then, 8 of 100 now"),
        (AncestorListings::default(), "9 objects of 100 bytes then, 0 of 0 now"),
    ] {
        let look = check.compared_with_ancestors(&now);
        assert!(matches!(&look, Comparison::Changed(what) if what.contains(part)), "{part}: {look:?}");
    }
    // A document without their listings proves nothing about them.
    check.below = None;
    assert!(matches!(check.compared_with_ancestors(&then), Comparison::Unknown(_)));
}
