//! One test for each fault that was found, named after what went wrong.

use super::*;

fn creating(set: impl FnOnce(&mut BackupCase)) -> Finding {
    let mut case = a_case(a_backup(Some(CREATING)));
    set(&mut case);
    decided(&case, &situation(), &Policy::default())
}

fn unverified() -> Policy {
    Policy { to: Some(AVAILABLE.into()), allow_unverified: true, ..Policy::default() }
}

#[test]
fn a_host_in_another_spelling_counted_as_retired() {
    assert_eq!(creating(|case| case.backup.host = Some("UP".into())).verdict, Verdict::Uncertain);
}

#[test]
fn an_unreadable_heartbeat_counted_as_none() {
    let finding = creating(|case| case.backup.host = Some("odd".into()));
    assert_eq!((finding.verdict, codes(&finding)[0]), (Verdict::Uncertain, "heartbeat-unreadable"));
}

#[test]
fn an_unreadable_time_made_a_row_old() {
    let finding = creating(|case| case.backup.updated_at = Some("22.11.2026 11:59".into()));
    assert_eq!((finding.verdict, codes(&finding)[0]), (Verdict::Uncertain, "time-unreadable"));
    assert!(!finding.is_actionable());
}

#[test]
fn the_end_of_the_calendar_counted_as_1970() {
    assert_eq!(creating(|case| case.backup.updated_at = Some("9999-12-31 23:59:59".into())).verdict, Verdict::Recent);
}

#[test]
fn a_volume_whose_attachment_was_being_made_or_undone_was_set_free() {
    for status in ["attaching", "detaching", "reserved", "error_detaching", "error_attaching"] {
        let finding = creating(|case| {
            case.volume = Some(a_volume("v", Some(BACKING_UP), None));
            case.attachments = vec![an_attachment(Some("vm"), "cmp", status)];
        });
        assert_eq!(said(&finding), "stuck (service-down): b creating -> error, v backing-up -> in-use", "{status}");
    }
}

#[test]
fn a_detached_attachment_of_the_backup_host_was_called_left_over() {
    let finding = creating(|case| {
        case.volume = Some(a_volume("v", Some(BACKING_UP), Some(AVAILABLE)));
        case.attachments = vec![an_attachment(None, "down", "detached")];
    });
    assert!(!codes(&finding).contains(&"attachment-leftover"), "{finding:?}");
}

#[test]
fn from_mitaka_to_ocata_the_backup_of_a_snapshot_holds_the_volume() {
    let of_snapshot = |snapshot: Option<&str>| {
        creating(|case| {
            case.backup.snapshot_id = Some("s".into());
            case.snapshot = snapshot.map(|status| a_snapshot(Some(status)));
            case.volume = Some(a_volume("v", Some(BACKING_UP), Some(IN_USE)));
        })
    };
    assert_eq!(said(&of_snapshot(Some(AVAILABLE))), "stuck (service-down): b creating -> error, v backing-up -> in-use");
    assert_eq!(said(&of_snapshot(None)), "stuck (service-down): b creating -> error, v backing-up -> in-use");
    assert_eq!(said(&of_snapshot(Some(BACKING_UP))), "stuck (service-down): b creating -> error, s backing-up -> available");
    // Another backup, of any snapshot of the volume, may have marked it.
    let finding = creating(|case| {
        case.volume = Some(a_volume("v", Some(BACKING_UP), Some(AVAILABLE)));
        case.peers = vec![Peer { snapshot_id: Some("s".into()), ..a_peer("a", CREATING) }];
    });
    assert_eq!(said(&finding), "stuck (service-down): b creating -> error");
    assert!(codes(&finding).contains(&"volume-held"), "{finding:?}");
}

#[test]
fn an_increment_without_its_parent_could_become_available() {
    let case = a_case(Backup { parent_id: Some("a".into()), ..a_backup(Some(CREATING)) });
    let finding = decided(&case, &situation(), &unverified());
    assert!(finding.refusal.unwrap().contains("no longer exists"));
}

#[test]
fn deleting_a_backup_with_good_data_was_suggested() {
    let policy = Policy { to: Some(ERROR.into()), ..Policy::default() };
    let follow_up = |status: Option<&str>| decided(&a_case(a_backup(status)), &situation(), &policy).follow_up;
    assert_eq!(follow_up(Some(RESTORING)), [""; 0]);
    assert_eq!(follow_up(None), [""; 0]);
    assert_eq!(follow_up(Some(DELETING)), ["openstack volume backup delete b"]);
}

#[test]
fn the_only_suggestion_was_to_delete_a_volume_that_was_restored_in_place() {
    let follow_up = |status: &str, policy: &Policy| {
        let mut case = a_case(Backup { restore_volume_id: Some("-v".into()), ..a_backup(Some(RESTORING)) });
        case.destination = Some(a_volume("-v", Some(status), None));
        decided(&case, &situation(), policy).follow_up
    };
    let (usual, to_error) = (Policy::default(), Policy { to: Some(ERROR.into()), ..Policy::default() });
    let delete = "openstack volume delete -- -v";
    assert_eq!(
        follow_up(RESTORING_BACKUP, &usual),
        [
            "openstack volume set --state available -- -v".to_owned(),
            "openstack volume backup restore --force -- b -v".to_owned(),
            format!("# or, if the volume is no longer needed: {delete}")
        ]
    );
    // A backup in error cannot be restored again.
    let expected = format!("# restore a backup into it again, or, if the volume is no longer needed: {delete}");
    assert_eq!(follow_up(RESTORING_BACKUP, &to_error), ["openstack volume show -- -v".to_owned(), expected.clone()]);
    // A volume that was being created from the backup holds nothing else.
    assert_eq!(follow_up(CREATING, &usual), [delete]);
    // A leftover volume must not be deleted without a look at it either.
    let left = VolumeCase {
        volume: a_volume("-v", Some(RESTORING_BACKUP), None),
        attachments: Vec::new(),
        explained_by: Vec::new(),
        suspects: Vec::new(),
        is_temporary: false,
        backup_hosts: Vec::new(),
    };
    let finding = left_volume(&left, &situation(), &usual).unwrap();
    assert_eq!(finding.follow_up, ["openstack volume show -- -v".to_owned(), expected]);
}

#[test]
fn the_deletion_of_an_unchecked_backup_was_suggested() {
    let follow_up = |change: &dyn Fn(&mut BackupCase)| creating(|case| change(case)).follow_up;
    assert_eq!(
        follow_up(&|_| {}),
        ["cinder-backup-repair check b", "# if the check does not find it intact: openstack volume backup delete b"]
    );
    // A backup without a driver has no data to check.
    assert_eq!(follow_up(&|case| case.backup.service = None), ["openstack volume backup delete b"]);
}

#[test]
fn the_removal_of_a_temporary_volume_was_promised_without_error() {
    let promise = |policy: &Policy| {
        let case = a_case(Backup { temp_volume_id: Some("t".into()), ..a_backup(Some(CREATING)) });
        let finding = decided(&case, &situation(), policy);
        finding.evidence.into_iter().find(|evidence| evidence.code.as_str() == "temporary-leftover").unwrap().text
    };
    assert!(promise(&Policy::default()).contains("because the backup is in error"));
    assert!(!promise(&unverified()).contains("in error"));
}

#[test]
fn a_fail_reason_without_a_cause_had_an_empty_part() {
    let reason = |host: &str| {
        let finding = creating(|case| case.backup.host = Some(host.into()));
        let changes = finding.proposal.unwrap().changes;
        changes.into_iter().find(|change| change.column == "fail_reason").unwrap().to.as_text().unwrap().to_owned()
    };
    assert_eq!(reason("up"), "cinder-backup-repair: left in creating; its data was not checked");
    assert_eq!(reason("down"), "cinder-backup-repair: left in creating: cinder-backup on down was down; its data was not checked");
    assert_eq!(reason("a\u{1b}[2Jb").matches('\u{1b}').count(), 0);
    assert_eq!(reason(&"h".repeat(300)).chars().count(), 255);
}

#[test]
fn a_storage_check_was_requested_for_a_backup_without_a_driver() {
    let needs = |service: Option<&str>| creating(|case| case.backup.service = service.map(Into::into)).proposal.unwrap().needs;
    assert_eq!(needs(Some(POSIX)), [crate::domain::Need::StorageCheck]);
    assert_eq!(needs(None), []);
}
