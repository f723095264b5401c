//! `--fix-quotas`.

use super::*;
use crate::domain::{EvidenceCode, QuotaUsage, Reservation, Value};

fn usage(id: &str, resource: &str, (in_use, reserved): (i64, i64)) -> QuotaUsage {
    QuotaUsage { id: id.into(), project_id: "p".into(), resource: resource.into(), in_use, reserved }
}

fn reservation(id: &str, usage_id: i64, delta: i64, expire: Option<String>) -> Reservation {
    Reservation {
        id: id.into(),
        project_id: "p".into(),
        usage_id: Some(usage_id),
        resource: "backups".into(),
        delta,
        expire,
        deleted: false,
    }
}

/// A project with 3 live backups of 30 GiB, whose quotas count so much in use and reserved.
fn case(backups: (i64, i64), gigabytes: (i64, i64), reservations: Vec<Reservation>) -> QuotaCase {
    let usages = vec![usage("1", "backups", backups), usage("2", "backup_gigabytes", gigabytes)];
    QuotaCase { project: "p".into(), usages, reservations: Some(reservations), counted: (3, 30), wait_reason: None }
}

fn changes(case: &QuotaCase) -> Vec<(Table, String, String, Value)> {
    let proposal = quota(case, &situation()).unwrap().proposal.unwrap();
    assert!(proposal.changes.iter().all(|change| is_allowed(change, Direction::Forward)), "{proposal:?}");
    proposal.changes.into_iter().map(|change| (change.table, change.id, change.column, change.to)).collect()
}

fn change_of(table: Table, id: &str, column: &str, to: i64) -> (Table, String, String, Value) {
    (table, id.into(), column.into(), to.into())
}

fn codes(case: &QuotaCase) -> Vec<EvidenceCode> {
    let evidence = quota(case, &situation()).unwrap().evidence;
    [EvidenceCode::QuotaWrong, EvidenceCode::QuotaDuplicate, EvidenceCode::ReservationsExpired]
        .into_iter()
        .filter(|code| evidence.iter().any(|evidence| evidence.code == *code))
        .collect()
}

#[test]
fn only_wrong_numbers_are_changed() {
    assert_eq!(quota(&case((3, 0), (30, 0), Vec::new()), &situation()), None);
    // An operation that is open explains what it has reserved, and has the last word on what is in use.
    let open = || vec![reservation("7", 1, 2, Some(ago(-60))), reservation("8", 1, -4, None)];
    assert_eq!(quota(&case((3, 2), (30, 0), open()), &situation()), None);
    assert_eq!(changes(&case((5, 0), (30, 0), Vec::new())), [change_of(Table::QuotaUsages, "1", "in_use", 3)]);
    let negative = case((-1, 0), (30, -9), Vec::new());
    assert_eq!(changes(&negative), [change_of(Table::QuotaUsages, "1", "in_use", 3), change_of(Table::QuotaUsages, "2", "reserved", 0)]);
    assert_eq!(codes(&negative), [EvidenceCode::QuotaWrong]);
}

#[test]
fn expired_reservations_end_with_their_share() {
    let expired = vec![reservation("7", 1, 2, Some(ago(60))), reservation("8", 1, -4, Some(ago(60)))];
    let case = case((3, 2), (30, 0), expired);
    let ended = ["7", "8"].map(|id| change_of(Table::Reservations, id, "deleted", 1));
    assert_eq!(changes(&case), [&[change_of(Table::QuotaUsages, "1", "reserved", 0)] as &[_], &ended].concat());
    assert_eq!(codes(&case), [EvidenceCode::ReservationsExpired]);
    let text = &quota(&case, &situation()).unwrap().evidence[0].text;
    assert!(text.contains("2 expired reservations") && text.contains("7 (backups +2, expired at 2026-"), "{text}");
    // Those of a row that is gone count nowhere.
    let of_nothing = QuotaCase { reservations: Some(vec![reservation("7", 9, 2, Some(ago(60)))]), ..case };
    assert_eq!(codes(&of_nothing), [EvidenceCode::QuotaWrong]);
    assert_eq!(changes(&of_nothing), [change_of(Table::QuotaUsages, "1", "reserved", 0)]);
}

#[test]
fn a_project_waits_while_its_numbers_may_change() {
    let refusal = |case: &QuotaCase| {
        let finding = quota(case, &situation()).unwrap();
        assert_eq!(finding.proposal, None);
        finding.refusal
    };
    let open = case((5, 1), (30, 0), vec![reservation("7", 1, 1, Some(ago(-60)))]);
    assert!(refusal(&open).unwrap().contains("1 open reservation of backup quota"));
    let waits = QuotaCase { wait_reason: Some("not yet".into()), ..case((5, 0), (30, 0), Vec::new()) };
    assert_eq!(refusal(&waits).as_deref(), Some("not yet"));
    let mut twice = case((3, 0), (30, 0), Vec::new());
    twice.usages.push(usage("3", "backups", (0, 0)));
    assert_eq!(codes(&twice), [EvidenceCode::QuotaDuplicate]);
    assert!(refusal(&twice).unwrap().contains("several rows of it for backups"));
    // A scan that corrects nothing says what to run.
    let report = |case: QuotaCase| quota(&QuotaCase { reservations: None, ..case }, &situation()).unwrap().follow_up.concat();
    assert_eq!(report(twice), "cinder-manage quota sync --project-id p");
    assert_eq!(report(case((5, 0), (30, 0), Vec::new())), "cinder-backup-repair repair --fix-quotas --project p");
}
