//! Volumes, snapshots, counters and temporary things that no backup explains.

use super::*;

fn a_volume_case(volume: Volume) -> VolumeCase {
    VolumeCase {
        volume,
        attachments: Vec::new(),
        explained_by: Vec::new(),
        suspects: Vec::new(),
        is_temporary: false,
        backup_hosts: vec!["down".into()],
    }
}

fn left(case: &VolumeCase) -> Option<Finding> {
    let finding = left_volume(case, &situation(), &Policy::default())?;
    sound(&finding, &|| format!("{case:?} {finding:?}"));
    Some(finding)
}

#[test]
fn every_leftover_volume_is_freed_marked_as_failed_or_left_alone() {
    let statuses = [None, Some(BACKING_UP), Some(RESTORING_BACKUP), Some(AVAILABLE), Some("error")];
    let previous = [None, Some(AVAILABLE), Some(IN_USE), Some(BACKING_UP), Some("")];
    let names = [None, Some("data".to_owned()), Some(format!("backup-vol-{}", "7".repeat(36))), Some("backup-vol-of-mine".to_owned())];
    let attachments = [vec![], vec![an_attachment(Some("vm"), "cmp", "attached")], vec![an_attachment(None, "down", "attached")]];
    let times = [Some(ago(OLD)), Some(ago(60)), Some(ago(-60)), None, Some("soon".to_owned())];
    let peers = [vec![], vec![a_peer("a", CREATING)], vec![Peer { released: true, ..a_peer("a", CREATING) }]];
    for (status, previous) in statuses.into_iter().flat_map(|status| previous.map(|previous| (status, previous))) {
        for (name, temporary) in names.iter().flat_map(|name| [(name, false), (name, true)]) {
            for (attachments, time) in attachments.iter().flat_map(|these| times.iter().map(move |time| (these, time))) {
                for peers in &peers {
                    let volume = Volume {
                        display_name: name.clone(),
                        created_at: time.clone(),
                        updated_at: time.clone(),
                        ..a_volume("v", status, previous)
                    };
                    let case = VolumeCase {
                        attachments: attachments.clone(),
                        explained_by: peers.clone(),
                        is_temporary: temporary,
                        ..a_volume_case(volume)
                    };
                    let Some(finding) = left(&case) else {
                        assert!(peers.iter().any(|peer| !peer.released));
                        continue;
                    };
                    assert!(peers.iter().all(|peer| peer.released), "a backup explains it: {finding:?}");
                    let looks_temporary =
                        name.as_ref().is_some_and(|name| name.len() == 47) && status == Some(BACKING_UP) && previous.is_none();
                    let young = time.as_ref().is_some_and(|time| *time == ago(60) || *time == ago(-60));
                    let expected = if young {
                        "recent (recent): nothing"
                    } else if temporary || looks_temporary {
                        "inconsistent (volume-temporary): nothing"
                    } else if time.as_deref() == Some("soon") {
                        "uncertain (time-unreadable): nothing"
                    } else {
                        let server = attachments.iter().any(|attachment| attachment.instance_uuid.is_some());
                        match status {
                            Some(BACKING_UP) if server || previous == Some(IN_USE) => "stuck (no-active-backup): v backing-up -> in-use",
                            Some(BACKING_UP) => "stuck (no-active-backup): v backing-up -> available",
                            Some(RESTORING_BACKUP) => "stuck (no-active-backup): v restoring-backup -> error_restoring",
                            _ => "inconsistent (status-unusable): nothing",
                        }
                    };
                    assert_eq!(said(&finding), expected, "{case:?}");
                }
            }
        }
    }
}

/// A status that is set by hand does not stop a service.
#[test]
fn what_a_service_may_still_work_on_is_not_freed() {
    let suspect = |status, host: &str, created: i64, updated: i64| Backup {
        host: Some(host.into()),
        created_at: Some(ago(created)),
        updated_at: Some(ago(updated)),
        ..a_backup(Some(status))
    };
    // (status of the volume, what is known of a backup, whether it may be at work)
    let cases = [
        (BACKING_UP, suspect(ERROR, "up", OLD, 60), true),
        (BACKING_UP, suspect(AVAILABLE, "up", OLD, 60), true),
        (BACKING_UP, suspect(ERROR, "ahead", OLD, 60), true),
        (BACKING_UP, suspect(ERROR, "odd", OLD, 60), true),
        (BACKING_UP, suspect(ERROR, "down", OLD, 60), false),
        (BACKING_UP, suspect(ERROR, GONE, OLD, 60), false),
        // Other operations may have written the volume's row since: the newest backup failed, and nothing shows that it did so before.
        (BACKING_UP, suspect(ERROR, "up", 10 * OLD, 10 * OLD), true),
        // It succeeded before the volume was marked, or its status was set by hand since.
        (BACKING_UP, suspect(AVAILABLE, "up", 2 * OLD, OLD + 6), false),
        (BACKING_UP, suspect(AVAILABLE, "up", 2 * OLD, OLD + 5), true),
        (RESTORING_BACKUP, suspect(AVAILABLE, "up", 10 * OLD, OLD - 1), true),
        (RESTORING_BACKUP, suspect(AVAILABLE, "up", 10 * OLD, 2 * OLD), false),
        // It was made after the volume was marked, by more than a stalled database explains, as the backup of a snapshot is.
        (BACKING_UP, suspect(AVAILABLE, "up", OLD - 601, 60), false),
        (BACKING_UP, suspect(ERROR, "up", OLD - 601, 60), false),
        (BACKING_UP, suspect(ERROR, "up", OLD - 600, 60), true),
        // The time at which it was made is not known.
        (BACKING_UP, Backup { created_at: None, ..suspect(ERROR, "up", OLD, OLD) }, true),
    ];
    for (status, suspect, works) in cases {
        let case = VolumeCase { suspects: vec![suspect], ..a_volume_case(a_volume("v", Some(status), None)) };
        let finding = left(&case).unwrap();
        let expected = if works { Verdict::Uncertain } else { Verdict::Stuck };
        assert_eq!(finding.verdict, expected, "{case:?} {finding:?}");
        assert_eq!(finding.is_actionable(), !works);
        // A finding that depends on a silent host names it.
        let silent = [("service-down", "down"), ("service-missing", GONE)].into_iter().find(|(code, _)| codes(&finding).contains(code));
        assert_eq!(finding.host.as_deref(), silent.map(|(_, host)| host), "{finding:?}");
        assert_eq!(silent.is_some(), !works && ["down", GONE].contains(&case.suspects[0].host.as_deref().unwrap()), "{finding:?}");
        let dead = Policy { assume_dead: AssumeDead::All, ..Policy::default() };
        assert_eq!(left_volume(&case, &situation(), &dead).unwrap().verdict, Verdict::Stuck);
        if status == BACKING_UP {
            let row = Snapshot { updated_at: case.volume.updated_at.clone(), created_at: None, ..a_snapshot(Some(status)) };
            let case = SnapshotCase { snapshot: row, explained_by: Vec::new(), suspects: case.suspects };
            assert_eq!(snapshot(&case, &situation(), &Policy::default()).unwrap().verdict, expected, "{case:?}");
        }
    }
}

/// Cinder starts no backup of a volume that is marked.
#[test]
fn a_backup_that_a_later_one_followed_has_ended() {
    let backup = |id: &str, status, host: &str, created| Backup {
        id: id.into(),
        host: Some(host.into()),
        created_at: Some(ago(created)),
        updated_at: Some(ago(created)),
        ..a_backup(Some(status))
    };
    let judge = |suspects: Vec<Backup>| left(&VolumeCase { suspects, ..a_volume_case(a_volume("v", Some(BACKING_UP), None)) }).unwrap();
    let old = backup("a", ERROR, "up", 10 * OLD);
    assert_eq!(judge(vec![old.clone(), backup("b", AVAILABLE, "up", 5 * OLD)]).verdict, Verdict::Stuck);
    assert_eq!(judge(vec![old, backup("b", ERROR, "up", 5 * OLD)]).verdict, Verdict::Uncertain);
    // A backup that was made long after the volume was marked shows nothing about the one that marked it.
    let failed = backup("a", ERROR, "up", 2 * OLD);
    assert_eq!(judge(vec![failed, backup("b", AVAILABLE, "down", OLD - 700)]).verdict, Verdict::Uncertain);
    // A unit waits for one host only, and one without a heartbeat or a row may be about to send one.
    for other in ["never", GONE] {
        let hosts = ["down", other].map(|host| backup(host, ERROR, host, OLD));
        for suspects in [hosts.to_vec(), hosts.iter().rev().cloned().collect()] {
            let finding = judge(suspects);
            assert_eq!(said(&finding), "uncertain (services-down): nothing", "{finding:?}");
        }
        assert_eq!(judge(vec![hosts[1].clone()]).host.as_deref(), Some(other));
    }
}

/// When an increment is counted, the row of its parent is written, even while that is being restored.
#[test]
fn a_destination_may_belong_to_another_backup_even_if_this_one_was_written_last() {
    let restored = |id: &str, status, host: &str, updated| Backup {
        id: id.into(),
        host: Some(host.into()),
        restore_volume_id: Some("v".into()),
        created_at: Some(ago(10 * OLD)),
        updated_at: Some(ago(updated)),
        ..a_backup(Some(status))
    };
    let destination = a_volume("v", Some(RESTORING_BACKUP), None);
    // (when the stuck one was written last, and the other; whether the other may hold the volume that was marked OLD ago)
    for (stuck, other, suspected) in [
        (2 * OLD, OLD - 10, true),
        (OLD, OLD - 10, false),
        (OLD - 600, OLD - 10, true),
        (OLD - 600, OLD + 10, false),
        (2 * OLD, 3 * OLD, false),
    ] {
        let others = OtherBackups { restored_there: vec![restored("a", AVAILABLE, "up", other)], ..OtherBackups::default() };
        let rows = (None, Some(&destination), None);
        let found = row_conflicts(&restored("b", RESTORING, "down", stuck), rows, &others, &situation(), &Policy::default());
        assert_eq!(found.first().map(|evidence| evidence.code.as_str()), suspected.then_some("destination-suspected"), "{stuck} {other}");
    }
}

#[test]
fn a_name_is_not_enough_to_suggest_the_deletion_of_a_volume() {
    let named = Volume { display_name: Some(format!("backup-vol-{}", "7".repeat(36))), ..a_volume("v", Some(BACKING_UP), None) };
    assert_eq!(left(&a_volume_case(named.clone())).unwrap().follow_up, ["openstack volume show v"]);
    // Between its creation and its record in the database it belongs to a backup that is being created.
    let young = Volume { created_at: Some(ago(5)), updated_at: Some(ago(5)), ..named };
    for is_temporary in [false, true] {
        let finding = left(&VolumeCase { is_temporary, ..a_volume_case(young.clone()) }).unwrap();
        assert_eq!((finding.verdict, finding.follow_up.len()), (Verdict::Recent, 0));
    }
}

#[test]
fn every_leftover_snapshot_is_freed_or_left_alone() {
    let peer = |released| Peer { snapshot_id: Some("s".into()), released, ..a_peer("a", CREATING) };
    for status in [None, Some(BACKING_UP), Some(AVAILABLE), Some("error"), Some("deleting")] {
        for (peers, time) in [vec![], vec![peer(false)], vec![peer(true)]]
            .into_iter()
            .flat_map(|peers| [Some(ago(OLD)), Some(ago(60)), None, Some("soon".to_owned())].map(|time| (peers.clone(), time)))
        {
            let row = Snapshot { created_at: time.clone(), updated_at: None, ..a_snapshot(status) };
            let held = peers.iter().any(|peer| !peer.released);
            let case = SnapshotCase { snapshot: row, explained_by: peers, suspects: Vec::new() };
            let finding = snapshot(&case, &situation(), &Policy::default());
            let expected = match time.as_deref() {
                _ if held || status != Some(BACKING_UP) => None,
                Some("soon") => Some("uncertain (time-unreadable): nothing"),
                Some(time) if time == ago(60) => Some("recent (recent): nothing"),
                _ => Some("stuck (no-active-backup): s backing-up -> available"),
            };
            assert_eq!(finding.as_ref().map(said).as_deref(), expected, "{case:?}");
            finding.iter().for_each(|finding| sound(finding, &|| format!("{finding:?}")));
        }
    }
}

#[test]
fn every_counter_is_right_waits_or_is_repaired_on_request() {
    for (certain, possible) in (-1..=3).flat_map(|certain| (-1..=2).map(move |possible| (certain, possible))) {
        for (recorded, occupied) in [None, Some(-5), Some(0), Some(1), Some(3), Some(7)].into_iter().flat_map(|n| [(n, false), (n, true)]) {
            for (status, fix_counters) in
                [AVAILABLE, ERROR, CREATING, RESTORING, DELETING].into_iter().flat_map(|status| [(status, false), (status, true)])
            {
                let backup = Backup { num_dependent_backups: recorded, ..a_backup(Some(status)) };
                let case = CounterCase { backup, children: Children { certain, possible }, occupied };
                let policy = Policy { fix_counters, ..Policy::default() };
                let least = certain.max(0);
                let right = recorded.unwrap_or(0).clamp(least, least + possible.max(0));
                let Some(finding) = counter(&case, &situation(), &policy) else {
                    assert_eq!(right, recorded.unwrap_or(0), "{case:?}");
                    continue;
                };
                sound(&finding, &|| format!("{case:?} {finding:?}"));
                assert_ne!(right, recorded.unwrap_or(0), "{case:?}");
                assert_eq!(finding.verdict, Verdict::Inconsistent);
                let waits = occupied || matches!(status, CREATING | RESTORING | DELETING);
                assert_eq!(codes(&finding).contains(&"counter-later"), waits, "{finding:?}");
                let to = finding.proposal.as_ref().and_then(|proposal| proposal.changes[0].to.as_integer());
                assert_eq!(to, (fix_counters && !waits).then_some(right), "{finding:?}");
                assert_eq!(finding.follow_up.len(), usize::from(!fix_counters && !waits), "{finding:?}");
            }
        }
    }
}

#[test]
fn a_chain_is_broken_by_a_parent_that_is_missing_or_in_error() {
    let child = Backup { parent_id: Some("a".into()), ..a_backup(Some(AVAILABLE)) };
    let parent = |status: &str| Backup { id: "a".into(), ..a_backup(Some(status)) };
    assert_eq!(said(&broken_chain(&child, "a", None).unwrap()), "inconsistent (parent-missing): nothing");
    assert_eq!(said(&broken_chain(&child, "a", Some(&parent(ERROR))).unwrap()), "inconsistent (parent-in-error): nothing");
    for status in [AVAILABLE, RESTORING, CREATING] {
        assert_eq!(broken_chain(&child, "a", Some(&parent(status))), None, "{status}");
    }
}

#[test]
fn temporary_volumes_and_snapshots_are_leftovers_once_nothing_is_written() {
    let naming =
        |status: Option<&str>| Backup { temp_volume_id: Some("-t".into()), temp_snapshot_id: Some("u v".into()), ..a_backup(status) };
    assert_eq!(temporaries(&naming(Some(CREATING))), None);
    assert_eq!(temporaries(&a_backup(Some(ERROR))), None);
    for status in [None, Some(ERROR), Some(AVAILABLE)] {
        let finding = temporaries(&naming(status)).unwrap();
        assert_eq!(codes(&finding), ["temporary-leftover", "temporary-leftover"]);
        assert_eq!(finding.follow_up, ["openstack volume delete --force -- -t", "openstack volume snapshot delete --force 'u v'"]);
        assert_eq!(finding.proposal, None);
        sound(&finding, &|| format!("{finding:?}"));
    }
}
