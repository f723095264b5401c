//! `--to deleted`.

use super::storage::a_check;
use super::*;
use crate::domain::status::DELETED;
use crate::domain::{BackupMetadata, CheckResult, CheckVerdict, Driver, EvidenceCode, Problem, ProblemCode, QuotaUsage, Value};

fn policy() -> Policy {
    Policy { to: Some(DELETED.into()), asked: BTreeSet::from([ERROR.into(), ERROR_DELETING.into()]), ..Policy::default() }
}

fn quota(id: &str, resource: &str, in_use: i64) -> QuotaUsage {
    QuotaUsage { id: id.into(), project_id: "p".into(), resource: resource.into(), in_use, reserved: 0 }
}

fn a_deletion() -> Deletion {
    Deletion {
        metadata: vec![BackupMetadata { id: "7".into(), backup_id: "b".into(), deleted: false }],
        quotas: vec![quota("1", "backups", 3), quota("2", "backup_gigabytes", 30)],
        ..Deletion::default()
    }
}

/// A backup of 10 GiB in this status, whose storage was checked with this verdict.
fn case(status: &str, verdict: Option<CheckVerdict>, deletion: Deletion) -> BackupCase {
    let backup = Backup { size: Some(10), parent_id: Some("a".into()), ..a_backup(Some(status)) };
    let parent = Backup { id: "a".into(), num_dependent_backups: Some(1), ..a_backup(Some(AVAILABLE)) };
    let check = verdict.map(|verdict| {
        let witness = Some("w".into());
        Box::new(CheckResult { begun: verdict != CheckVerdict::Missing, witness, ..a_check(&backup, verdict) })
    });
    BackupCase { check, parent: Some(parent), deletion: Some(Box::new(deletion)), ..a_case(backup) }
}

fn changes(finding: &Finding) -> Vec<(Table, &str, &str, Value, Value)> {
    let proposal = finding.proposal.as_ref().unwrap();
    let all = proposal.changes.iter();
    all.map(|change| (change.table, change.id.as_str(), change.column.as_str(), change.from.clone(), change.to.clone())).collect()
}

fn refusal(case: &BackupCase, policy: &Policy) -> String {
    backup(case, &situation(), policy).refusal.unwrap()
}

#[test]
fn a_deletion_ends_as_cinders_own_does() {
    for status in [DELETING, ERROR_DELETING, ERROR] {
        let finding = backup(&case(status, Some(CheckVerdict::Missing), a_deletion()), &situation(), &policy());
        assert_eq!(finding.refusal, None);
        let expected = [
            (Table::Backups, "a", "num_dependent_backups", 1.into(), 0.into()),
            (Table::Backups, "b", "status", status.into(), DELETED.into()),
            (Table::Backups, "b", "deleted", 0.into(), 1.into()),
            (Table::BackupMetadata, "7", "deleted", 0.into(), 1.into()),
            (Table::QuotaUsages, "1", "in_use", 3.into(), 2.into()),
            (Table::QuotaUsages, "2", "in_use", 30.into(), 20.into()),
        ];
        assert_eq!(changes(&finding), expected, "{status}");
        assert!(finding.proposal.unwrap().changes.iter().all(|change| is_allowed(change, Direction::Forward)));
    }
}

#[test]
fn without_proof_that_its_data_is_gone_it_is_refused() {
    let missing = || case(DELETING, Some(CheckVerdict::Missing), a_deletion());
    let changed = |change: fn(&mut CheckResult)| {
        let mut case = missing();
        change(case.check.as_mut().unwrap());
        case
    };
    let elsewhere = changed(|check| check.problems = vec![Problem::general(ProblemCode::ContainerMissing, "no such container")]);
    let directory = changed(|check| {
        (check.driver, check.witness) = (Some(Driver::Posix), None);
        check.problems.push(Problem::general(ProblemCode::ContainerMissing, "no such directory"));
    });
    let unseen = |check: &mut CheckResult| {
        check.witness = None;
        check.warnings.push(Problem::general(ProblemCode::NoWitness, "nothing of the available backup x was found either"));
    };
    let of = |verdict| case(DELETING, verdict, a_deletion());
    for (case, says) in [
        (changed(|check| check.begun = true), "nothing of it was found"),
        (elsewhere, "its container is missing"),
        (directory, "its container is missing"),
        (changed(|check| check.witness = None), "use --check quick"),
        (changed(unseen), "nothing of the available backup x was found either"),
        (of(None), "use --check quick"),
        (of(Some(CheckVerdict::Unverifiable)), "it is not proven"),
        (of(Some(CheckVerdict::Intact)), "still on the storage"),
        (of(Some(CheckVerdict::Corrupt)), "still on the storage"),
        (of(Some(CheckVerdict::Incomplete)), "still on the storage"),
    ] {
        let why = refusal(&case, &policy());
        assert!(why.contains(says), "{why}");
        // The way around is on record.
        let finding = backup(&case, &situation(), &Policy { allow_unverified: true, ..policy() });
        assert_eq!(finding.proposal.unwrap().status.as_deref(), Some(DELETED));
        assert!(finding.evidence.iter().any(|evidence| evidence.code == EvidenceCode::Unverified));
    }
}

#[test]
fn a_witness_proves_a_directory_and_a_row_proves_that_nothing_was_written() {
    let missing = |driver, witness: Option<&str>, code| {
        let mut case = case(DELETING, Some(CheckVerdict::Missing), a_deletion());
        let problems = vec![Problem::general(code, "x")];
        let check = case.check.as_mut().unwrap();
        (check.driver, check.witness, check.problems) = (driver, witness.map(str::to_owned), problems);
        backup(&case, &situation(), &policy()).refusal
    };
    assert_eq!(missing(Some(Driver::Nfs), Some("w"), ProblemCode::ContainerMissing), None);
    assert_eq!(missing(None, None, ProblemCode::NeverBegun), None);
    for driver in [Driver::Ceph, Driver::S3, Driver::Swift, Driver::Gcs] {
        assert!(missing(Some(driver), Some("w"), ProblemCode::ContainerMissing).is_some());
    }
}

#[test]
fn a_backup_that_others_are_based_on_never_becomes_deleted() {
    let based = [
        Deletion { children: Children { certain: 1, possible: 0 }, ..a_deletion() },
        Deletion { children: Children { certain: 0, possible: 1 }, ..a_deletion() },
        Deletion { writing: Some("c".into()), ..a_deletion() },
    ];
    for deletion in based {
        let case = case(ERROR_DELETING, Some(CheckVerdict::Missing), deletion);
        let why = refusal(&case, &Policy { allow_unverified: true, ..policy() });
        assert!(why.starts_with("other live backups are based on it") || why.contains("may be based on it"), "{why}");
    }
}

#[test]
fn without_the_rows_that_it_depends_on_nothing_is_deleted() {
    let case = BackupCase { deletion: None, ..case(DELETING, Some(CheckVerdict::Missing), a_deletion()) };
    assert!(refusal(&case, &Policy { allow_unverified: true, ..policy() }).contains("were not read"));
}

#[test]
fn a_quota_that_may_change_stops_it_unless_it_is_left_alone() {
    let twice = Deletion { quotas: vec![quota("1", "backups", 3), quota("3", "backups", 4)], ..a_deletion() };
    for (deletion, says) in [(Deletion { open_reservations: 2, ..a_deletion() }, "2 open reservations"), (twice, "several rows")] {
        let case = case(DELETING, Some(CheckVerdict::Missing), deletion);
        let why = refusal(&case, &policy());
        assert!(why.contains(says) && why.contains("--no-quota"), "{why}");
        let finding = backup(&case, &situation(), &Policy { no_quota: true, ..policy() });
        assert!(changes(&finding).iter().all(|(table, ..)| *table != Table::QuotaUsages));
    }
}

#[test]
fn a_quota_never_falls_below_zero() {
    let deletion = Deletion { quotas: vec![quota("1", "backups", 0), quota("2", "backup_gigabytes", 4)], ..a_deletion() };
    let finding = backup(&case(DELETING, Some(CheckVerdict::Missing), deletion), &situation(), &policy());
    let quotas: Vec<_> = changes(&finding).into_iter().filter(|(table, ..)| *table == Table::QuotaUsages).collect();
    assert_eq!(quotas, [(Table::QuotaUsages, "2", "in_use", 4.into(), 0.into())]);
    assert_eq!(finding.evidence.iter().filter(|evidence| evidence.code == EvidenceCode::QuotaTooLow).count(), 2);
}

#[test]
fn a_backup_whose_deletion_was_not_begun_cannot_become_deleted() {
    for status in [CREATING, RESTORING] {
        let why = refusal(&case(status, Some(CheckVerdict::Missing), a_deletion()), &Policy { allow_unverified: true, ..policy() });
        assert!(why.contains("its deletion was not begun"), "{why}");
    }
}

#[test]
fn a_key_that_stays_is_named() {
    let deletion = Deletion { key: Some("k 1".into()), ..a_deletion() };
    let finding = backup(&case(DELETING, Some(CheckVerdict::Missing), deletion), &situation(), &policy());
    assert!(finding.follow_up.iter().any(|line| line.starts_with('#') && line.ends_with("openstack secret delete 'k 1'")));
}
