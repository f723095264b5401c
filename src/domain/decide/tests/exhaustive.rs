//! Every combination of states, split along the lines where the decision does not look across.

use super::super::verdict::judge_backup;
use super::*;

const STATUSES: [Option<&str>; 11] = [
    None,
    Some(CREATING),
    Some(RESTORING),
    Some(DELETING),
    Some(ERROR),
    Some(ERROR_DELETING),
    Some(AVAILABLE),
    Some("deleted"),
    Some(""),
    Some("Creating"),
    Some("\u{1b}[2J'; DROP TABLE backups"),
];

const TARGETS: [(Option<&str>, bool); 5] =
    [(None, false), (None, true), (Some(AVAILABLE), false), (Some(AVAILABLE), true), (Some(ERROR), false)];

fn policy(to: Option<&str>, allow_unverified: bool) -> Policy {
    Policy { to: to.map(Into::into), allow_unverified, ..Policy::default() }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Age {
    Young,
    Old,
    Unset,
    Future,
    Unreadable,
}

/// The table of section 6, the first line that fits counts.
fn verdict_of(status: Option<&str>, host: Option<&str>, age: Age, just_started: bool, assume: &AssumeDead) -> Verdict {
    let host = host.filter(|host| !host.trim().is_empty());
    let declared_dead = match assume {
        AssumeDead::All => true,
        AssumeDead::Hosts(hosts) => host.is_some_and(|host| hosts.contains(host.split('@').next().unwrap())),
        AssumeDead::None => false,
    };
    let silence = if just_started { Verdict::Uncertain } else { Verdict::Stuck };
    let by_service = match (status, host.map(|host| host.split('@').next().unwrap().trim().to_lowercase()).as_deref()) {
        (Some(ERROR_DELETING), _) => Verdict::Stuck,
        // Without a host it was never scheduled, whatever else the row says.
        (_, None | Some(GONE | "retired")) => Verdict::Stuck,
        _ if declared_dead => Verdict::Stuck,
        (_, Some("down" | "never")) => silence,
        // The last heartbeat of a removed row counts.
        (_, Some("up" | "ahead" | "odd" | "removed")) => Verdict::Uncertain,
        (_, Some(other)) => panic!("no such host here: {other}"),
    };
    match age {
        Age::Young | Age::Future => Verdict::Recent,
        Age::Unreadable if !declared_dead => Verdict::Uncertain,
        _ => by_service,
    }
}

#[test]
fn every_verdict_is_the_one_of_the_table() {
    let hosts = [
        None,
        Some(""),
        Some(" "),
        Some(GONE),
        Some("down"),
        Some("down@ceph#pool"),
        Some("up"),
        Some("UP"),
        Some("up@ceph"),
        Some("ahead"),
        Some("never"),
        Some("odd"),
        Some("removed"),
        Some("retired"),
    ];
    let named = |host: &str| AssumeDead::Hosts([host.to_owned()].into());
    let assumptions = [AssumeDead::None, named("up"), named("down"), AssumeDead::All];
    let mut count = 0;
    for uptime in [None, Some(1_000_000), Some(120), Some(119), Some(0)] {
        let situation = Situation { server_uptime_seconds: uptime, ..situation() };
        for age in [Age::Young, Age::Old, Age::Unset, Age::Future, Age::Unreadable] {
            let (created_at, updated_at) = match age {
                Age::Young => (Some(ago(OLD)), Some(ago(3_599))),
                Age::Old => (Some(ago(3_600)), Some(ago(3_600))),
                Age::Unset => (None, None),
                Age::Future => (Some(ago(-10)), None),
                Age::Unreadable => (Some(ago(OLD)), Some("2026-13-45".to_owned())),
            };
            for status in STATUSES {
                for (host, taken_up) in hosts.into_iter().flat_map(|host| [(host, true), (host, false)]) {
                    let case = a_case(Backup {
                        host: host.map(Into::into),
                        service: taken_up.then(|| POSIX.to_owned()),
                        created_at: created_at.clone(),
                        updated_at: updated_at.clone(),
                        ..a_backup(status)
                    });
                    for assume_dead in &assumptions {
                        let policy = Policy { assume_dead: assume_dead.clone(), ..Policy::default() };
                        let judged = judge_backup(&case.backup, None, false, &situation, &policy);
                        let expected = verdict_of(status, host, age, uptime.is_some_and(|seconds| seconds < 120), assume_dead);
                        assert_eq!(
                            judged.verdict, expected,
                            "{status:?} {host:?} {taken_up} {age:?} {uptime:?} {assume_dead:?}: {judged:?}"
                        );
                        count += 1;
                    }
                    let finding = decided(&case, &situation, &Policy::default());
                    let recent = matches!(age, Age::Young | Age::Future);
                    assert_eq!(finding.evidence[0].code.as_str() == "recent", recent, "the decisive reason first: {finding:?}");
                }
            }
        }
    }
    assert_eq!(count, 5 * 5 * 11 * 28 * 4);
}

#[test]
fn every_status_and_target_gives_what_the_table_allows() {
    let services = [None, Some(""), Some(POSIX), Some(CEPH), Some("cinder.backup.drivers.ceph")];
    let sizes = [(Some(1), "v"), (None, "v"), (None, crate::domain::status::NO_VOLUME), (Some(1), crate::domain::status::NO_VOLUME)];
    for (status, (to, allow)) in STATUSES.into_iter().flat_map(|status| TARGETS.map(|target| (status, target))) {
        for (service, metadata) in services.into_iter().flat_map(|service| [(service, None), (service, Some("{}"))]) {
            for ((size, volume_id), orphan) in sizes.into_iter().flat_map(|size| [(size, false), (size, true)]) {
                let case = a_case(Backup {
                    service: service.map(Into::into),
                    service_metadata: metadata.map(Into::into),
                    size,
                    volume_id: Some(volume_id.into()),
                    parent_id: orphan.then(|| "nobody".to_owned()),
                    temp_volume_id: Some("t".into()),
                    ..a_backup(status)
                });
                let finding = decided(&case, &situation(), &policy(to, allow));
                let of_use = service.is_some_and(|service| !service.is_empty() && (service == POSIX || metadata.is_some()))
                    && size.is_some()
                    && volume_id == "v"
                    && !orphan;
                let expected = match (status, to) {
                    (Some(CREATING | ERROR), Some(AVAILABLE)) => (allow && of_use).then_some(AVAILABLE),
                    (Some(RESTORING), Some(ERROR)) => Some(ERROR),
                    (Some(RESTORING), _) => Some(AVAILABLE),
                    (None | Some(DELETING | ERROR_DELETING), Some(AVAILABLE)) => None,
                    (None | Some(CREATING | DELETING | ERROR_DELETING), _) => Some(ERROR),
                    _ => None,
                };
                let got = finding.proposal.as_ref().and_then(|proposal| proposal.status.as_deref());
                assert_eq!(got, expected, "{case:?} {to:?} {allow}: {finding:?}");
                let reason = case.backup.status.as_deref() != expected && expected == Some(ERROR);
                let says = |finding: &Finding| {
                    finding.proposal.as_ref().is_some_and(|proposal| proposal.changes.iter().any(|change| change.column == "fail_reason"))
                };
                assert_eq!(says(&finding), reason, "error comes with a reason: {finding:?}");
            }
        }
    }
}

/// The volumes, attachments and peers that a backup in `creating` can have.
fn each_case_of_a_volume(each: &mut dyn FnMut(BackupCase, ColumnSet, bool)) {
    let statuses = [
        None,
        Some(BACKING_UP),
        Some(AVAILABLE),
        Some(IN_USE),
        Some(RESTORING_BACKUP),
        Some("error_backing-up"),
        Some("error"),
        Some("deleting"),
        Some("Backing-up"),
    ];
    let previous = [None, Some(AVAILABLE), Some(IN_USE), Some(BACKING_UP), Some("error_backing-up"), Some(""), Some("IN-USE")];
    let live = ["attached", "attaching", "reserved", "detaching", "error_detaching"];
    let mut attachments: Vec<Vec<Attachment>> = vec![
        vec![],
        vec![an_attachment(Some("server"), "compute", "detached")],
        vec![an_attachment(None, "down", "attached")],
        vec![an_attachment(None, "down", "detached"), an_attachment(None, "other", "detached")],
        vec![an_attachment(None, "other", "attached")],
        vec![an_attachment(Some("server"), "down", "attached")],
        vec![an_attachment(None, "down", "attached"), an_attachment(Some("server"), "compute", "attached")],
    ];
    attachments.extend(live.map(|status| vec![an_attachment(Some("server"), "compute", status)]));
    let peers = [
        vec![],
        vec![a_peer("a", CREATING)],
        vec![Peer { released: true, ..a_peer("a", CREATING) }],
        vec![a_peer("a", DELETING), a_peer("c", RESTORING)],
        vec![Peer { volume_id: Some("other".into()), ..a_peer("a", CREATING) }],
    ];
    for columns in [ColumnSet::Juno, ColumnSet::Liberty, ColumnSet::Mitaka] {
        for (status, gone) in statuses.into_iter().map(|status| (status, false)).chain([(None, true)]) {
            for previous in previous {
                // Anything but backing-up stays as it is, whatever surrounds it: one of each kind will do there.
                let (portion, temporaries): (usize, &[bool]) =
                    if status == Some(BACKING_UP) { (usize::MAX, &[false, true]) } else { (3, &[false]) };
                for (attachments, peers) in
                    attachments.iter().take(portion).flat_map(|these| peers.iter().take(portion).map(move |peers| (these, peers)))
                {
                    for (temporary, attach_status) in temporaries.iter().flat_map(|flag| [(*flag, "detached"), (*flag, "attached")]) {
                        let volume = Volume { attach_status: Some(attach_status.into()), ..a_volume("v", status, previous) };
                        let case = BackupCase {
                            volume: (!gone).then_some(volume),
                            attachments: attachments.clone(),
                            peers: peers.clone(),
                            volume_is_temporary: temporary,
                            ..a_case(a_backup(Some(CREATING)))
                        };
                        each(case, columns, attach_status == "attached");
                    }
                }
            }
        }
    }
}

#[test]
fn a_volume_is_freed_only_if_it_may_be() {
    let mut freed = 0;
    each_case_of_a_volume(&mut |case, columns, says_attached| {
        let situation = Situation { columns, has_attachments: columns != ColumnSet::Juno, ..situation() };
        let finding = decided(&case, &situation, &Policy::default());
        let change = finding.proposal.iter().flat_map(|proposal| &proposal.changes).find(|change| change.table == Table::Volumes);
        let held = case
            .peers
            .iter()
            .any(|peer| !peer.released && peer.status.as_deref() == Some(CREATING) && peer.volume_id.as_deref() == Some("v"));
        let backing_up = case.volume.as_ref().is_some_and(|volume| volume.status.as_deref() == Some(BACKING_UP));
        assert_eq!(change.is_some(), backing_up && !held && !case.volume_is_temporary, "{case:?} {finding:?}");
        let Some(change) = change else { return };
        freed += 1;
        let live: Vec<&Attachment> =
            case.attachments.iter().filter(|attachment| attachment.attach_status.as_deref() != Some("detached")).collect();
        let own = |attachment: &&Attachment| attachment.instance_uuid.is_none() && attachment.attached_host.as_deref() == Some("down");
        let attached = if columns == ColumnSet::Juno || live.is_empty() { says_attached } else { !live.iter().all(own) };
        let in_use = attached || case.volume.as_ref().unwrap().previous_status.as_deref() == Some(IN_USE);
        assert_eq!(change.to.as_text(), Some(if in_use { IN_USE } else { AVAILABLE }), "{case:?} {finding:?}");
        let leftovers =
            case.attachments.iter().filter(|attachment| attachment.attach_status.as_deref() == Some("attached") && own(attachment)).count();
        assert_eq!(codes(&finding).iter().filter(|code| **code == "attachment-leftover").count(), leftovers, "{finding:?}");
    });
    assert!(freed > 500, "{freed}");
}

#[test]
fn a_snapshot_is_freed_or_its_volume_but_not_both() {
    let peers = [
        vec![],
        vec![Peer { snapshot_id: Some("s".into()), ..a_peer("a", CREATING) }],
        vec![Peer { snapshot_id: Some("s".into()), released: true, ..a_peer("a", CREATING) }],
        vec![Peer { snapshot_id: Some("other".into()), volume_id: Some("w".into()), ..a_peer("a", CREATING) }],
        vec![Peer { snapshot_id: Some("s".into()), ..a_peer("a", RESTORING) }],
    ];
    let statuses = [None, Some(BACKING_UP), Some(AVAILABLE), Some("deleting"), Some("error")];
    for (snapshot, gone) in statuses.into_iter().map(|status| (status, false)).chain([(None, true)]) {
        for (peers, volume) in peers.iter().flat_map(|peers| [None, Some(BACKING_UP), Some(IN_USE)].map(|volume| (peers, volume))) {
            for (to, allow) in TARGETS {
                let case = BackupCase {
                    volume: volume.map(|status| a_volume("v", Some(status), Some(IN_USE))),
                    snapshot: (!gone).then(|| a_snapshot(snapshot)),
                    peers: peers.clone(),
                    ..a_case(Backup { snapshot_id: Some("s".into()), ..a_backup(Some(CREATING)) })
                };
                let finding = decided(&case, &situation(), &policy(to, allow));
                let Some(proposal) = &finding.proposal else {
                    assert_eq!((to, allow), (Some(AVAILABLE), false), "{finding:?}");
                    continue;
                };
                let holds = |peer: &Peer, id: &str| {
                    !peer.released && peer.status.as_deref() == Some(CREATING) && peer.snapshot_id.as_deref() == Some(id)
                };
                let frees = |table: Table| proposal.changes.iter().any(|change| change.table == table);
                let pike = snapshot == Some(BACKING_UP);
                assert_eq!(frees(Table::Snapshots), pike && !peers.iter().any(|peer| holds(peer, "s")), "{finding:?}");
                let volume_held = peers
                    .iter()
                    .any(|peer| !peer.released && peer.status.as_deref() == Some(CREATING) && peer.volume_id.as_deref() == Some("v"));
                assert_eq!(frees(Table::Volumes), volume == Some(BACKING_UP) && !pike && !volume_held, "{case:?} {finding:?}");
            }
        }
    }
}

#[test]
fn a_destination_fails_only_if_it_was_being_written() {
    let statuses = [
        None,
        Some(RESTORING_BACKUP),
        Some(CREATING),
        Some(AVAILABLE),
        Some(IN_USE),
        Some(BACKING_UP),
        Some("error_restoring"),
        Some(ERROR),
    ];
    let here = |status: &str, released: bool| Peer { restore_volume_id: Some("d".into()), released, ..a_peer("a", status) };
    let peers =
        [vec![], vec![here(RESTORING, false)], vec![here(RESTORING, true)], vec![here(CREATING, false)], vec![a_peer("a", RESTORING)]];
    for columns in [ColumnSet::Juno, ColumnSet::Liberty, ColumnSet::Mitaka] {
        let situation = Situation { columns, ..situation() };
        for (status, gone) in statuses.into_iter().map(|status| (status, false)).chain([(None, true)]) {
            for (peers, recorded) in peers.iter().flat_map(|peers| [(peers, true), (peers, false)]) {
                for (to, allow) in TARGETS {
                    // Another backup of its volume is being made, which does not matter to a restore.
                    let case = BackupCase {
                        volume: Some(a_volume("v", Some(BACKING_UP), Some(AVAILABLE))),
                        destination: (!gone && recorded).then(|| a_volume("d", status, None)),
                        peers: peers.clone(),
                        ..a_case(Backup { restore_volume_id: recorded.then(|| "d".to_owned()), ..a_backup(Some(RESTORING)) })
                    };
                    let finding = decided(&case, &situation, &policy(to, allow));
                    let changes = &finding.proposal.as_ref().unwrap().changes;
                    let volumes: Vec<&Change> = changes.iter().filter(|change| change.table == Table::Volumes).collect();
                    let held = peers
                        .iter()
                        .any(|peer| !peer.released && peer.status.as_deref() == Some(RESTORING) && peer.restore_volume_id.is_some());
                    let expected = match status {
                        Some(RESTORING_BACKUP) if recorded && !held => Some("error_restoring"),
                        Some(CREATING) if recorded && !held => Some(ERROR),
                        _ => None,
                    };
                    assert_eq!(volumes.first().and_then(|change| change.to.as_text()), expected, "{case:?} {finding:?}");
                    assert!(volumes.iter().all(|change| change.id == "d"), "{finding:?}");
                }
            }
        }
    }
}

#[test]
fn a_counter_moves_only_with_a_child_that_becomes_available() {
    let siblings = [(0, 0), (1, 0), (0, 1), (2, 2), (-1, 0)].map(|(certain, possible)| Children { certain, possible });
    for columns in [ColumnSet::Liberty, ColumnSet::Mitaka] {
        let situation = Situation { columns, ..situation() };
        for (status, (to, allow)) in STATUSES.into_iter().flat_map(|status| TARGETS.map(|target| (status, target))) {
            for (recorded, siblings) in
                [None, Some(-1), Some(0), Some(1), Some(2), Some(9)].into_iter().flat_map(|n| siblings.map(|these| (n, these)))
            {
                let parent = Backup { id: "a".into(), num_dependent_backups: recorded, ..a_backup(Some(AVAILABLE)) };
                let case =
                    BackupCase { parent: Some(parent), siblings, ..a_case(Backup { parent_id: Some("a".into()), ..a_backup(status) }) };
                let finding = decided(&case, &situation, &policy(to, allow));
                let changes = finding.proposal.iter().flat_map(|proposal| &proposal.changes);
                let counter = changes.clone().find(|change| change.column == "num_dependent_backups");
                let becomes = status != Some(RESTORING)
                    && finding.proposal.as_ref().is_some_and(|proposal| proposal.status.as_deref() == Some(AVAILABLE));
                let least = (siblings.certain + 1).max(0);
                let right = recorded.unwrap_or(0).clamp(least, least + siblings.possible);
                assert_eq!(
                    counter.and_then(|change| change.to.as_integer()),
                    (becomes && right != recorded.unwrap_or(0)).then_some(right),
                    "{case:?} {finding:?}"
                );
            }
        }
    }
}

#[test]
fn hostile_texts_change_nothing_but_their_spelling() {
    let long = "h".repeat(400);
    let umlauts = "\u{1F4A3}ä".repeat(200);
    let texts = ["x'; DROP TABLE backups; --", "\u{1b}[2J\r\n", "$(reboot)", "--all", "", " ", "a\0b", long.as_str(), umlauts.as_str()];
    for text in texts {
        for status in STATUSES {
            for (to, allow) in TARGETS {
                let destination = format!("{text}d");
                let own = Attachment { id: text.into(), ..an_attachment(None, text, "attached") };
                let case = BackupCase {
                    volume: Some(Volume { previous_status: Some(text.into()), ..a_volume(text, Some(BACKING_UP), None) }),
                    destination: Some(a_volume(&destination, Some(RESTORING_BACKUP), None)),
                    attachments: vec![own],
                    ..a_case(Backup {
                        id: text.into(),
                        display_name: Some(text.into()),
                        host: Some(text.into()),
                        volume_id: Some(text.into()),
                        restore_volume_id: Some(destination),
                        temp_volume_id: Some(text.into()),
                        temp_snapshot_id: Some(text.into()),
                        ..a_backup(status)
                    })
                };
                let policy = Policy { assume_dead: AssumeDead::All, ..policy(to, allow) };
                let finding = decided(&case, &situation(), &policy);
                assert!(finding.verdict == Verdict::Stuck, "{finding:?}");
            }
        }
    }
}
