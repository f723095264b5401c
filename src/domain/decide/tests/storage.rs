//! What a look at the storage makes of a decision: every combination, against rules that are said another way than the code.

use super::*;
use crate::domain::{Amount, CheckResult, CheckVerdict, Level, Problem};

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
fn a_parent_that_was_moved_meanwhile_spoils_the_evidence() {
    let parent = Backup { id: "p".into(), container: Some("c".into()), ..a_backup(Some(AVAILABLE)) };
    let mut case = a_checked_case(CREATING, "down", |_| {}, CheckVerdict::Intact);
    case.backup.parent_id = Some("p".into());
    let check = case.check.as_mut().unwrap();
    check.rows = vec![case.backup.image(ColumnSet::Mitaka), parent.image(ColumnSet::Mitaka)];
    case.parent = Some(Backup { num_dependent_backups: Some(7), ..parent.clone() });
    let finding = backup(&case, &situation(), &Policy::default());
    assert!(finding.proposal.is_some(), "its counter is of no consequence: {finding:?}");
    case.parent = Some(Backup { container: Some("other".into()), ..parent });
    let finding = backup(&case, &situation(), &Policy::default());
    assert!(finding.refusal.as_deref().is_some_and(|why| why.contains("parent p has moved on")), "{finding:?}");
}

#[test]
fn a_recent_backup_stays_recent_and_evidence_out_of_the_future_is_none() {
    let mut case = a_checked_case(CREATING, "down", |_| {}, CheckVerdict::Intact);
    case.backup.updated_at = Some(ago(60));
    case.check.as_mut().unwrap().rows = vec![case.backup.image(ColumnSet::Mitaka)];
    let finding = backup(&case, &situation(), &Policy::default());
    assert_eq!((finding.verdict, finding.proposal), (Verdict::Recent, None));
    let case = a_checked_case(CREATING, "down", |check| check.checked_at = "2026-11-22T13:00:00Z".into(), CheckVerdict::Intact);
    assert!(backup(&case, &situation(), &Policy::default()).refusal.is_some());
}
