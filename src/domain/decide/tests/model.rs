//! A database in memory: what is decided is done there under the same guards, and undone, and decided again.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::domain::Image;

type Rows = BTreeMap<(Table, String), Image>;

fn rows(images: impl IntoIterator<Item = Image>) -> Rows {
    images.into_iter().map(|image| ((image.table, image.id.clone()), image)).collect()
}

fn rows_of(case: &BackupCase, columns: ColumnSet) -> Rows {
    let mut images = vec![case.backup.image(columns)];
    images.extend(case.parent.iter().map(|parent| parent.image(columns)));
    images.extend(case.volume.iter().chain(&case.destination).map(|volume| volume.image(columns)));
    images.extend(case.snapshot.iter().map(Snapshot::image));
    rows(images)
}

/// Applies the changes as the executor does: each row by its key, guarded by the column's value, with `updated_at` at `time`.
fn apply(rows: &mut Rows, changes: &[Change], time: &str, direction: Direction) {
    for change in changes {
        assert!(is_allowed(change, direction), "{change:?}");
        let image = rows.get_mut(&(change.table, change.id.clone())).unwrap();
        assert_eq!(image.value(&change.column), &change.from, "the guard would stop it: {change:?}");
        image.columns.insert(change.column.clone(), change.to.clone());
        image.columns.insert("updated_at".into(), time.into());
    }
}

fn reversed(changes: &[Change]) -> Vec<Change> {
    changes.iter().rev().map(|change| Change { from: change.to.clone(), to: change.from.clone(), ..change.clone() }).collect()
}

fn without_updated_at(rows: &Rows) -> Rows {
    let mut rows = rows.clone();
    rows.values_mut().for_each(|image| drop(image.columns.remove("updated_at")));
    rows
}

/// Applies and undoes changes; returns the rows in between.
fn done_and_undone(before: &Rows, changes: &[Change]) -> Rows {
    let mut rows = before.clone();
    apply(&mut rows, changes, &ago(0), Direction::Forward);
    let after = rows.clone();
    apply(&mut rows, &reversed(changes), &ago(0), Direction::Either);
    assert_eq!(without_updated_at(&rows), without_updated_at(before), "undo gives the same bytes");
    let untouched = |key: &(Table, String)| !changes.iter().any(|change| (change.table, &change.id) == (key.0, &key.1));
    for (key, image) in before.iter().filter(|(key, _)| untouched(key)) {
        assert_eq!(after.get(key), Some(image), "nothing else is touched, updated_at among it");
    }
    after
}

fn text(image: &Image, column: &str) -> Option<String> {
    image.value(column).as_text().map(Into::into)
}

fn read_backup(backup: &Backup, rows: &Rows, old: bool) -> Backup {
    let image = &rows[&(Table::Backups, backup.id.clone())];
    Backup {
        status: text(image, "status"),
        fail_reason: text(image, "fail_reason"),
        size: image.value("size").as_integer(),
        object_count: image.value("object_count").as_integer(),
        num_dependent_backups: image.value("num_dependent_backups").as_integer(),
        updated_at: if old { backup.updated_at.clone() } else { text(image, "updated_at") },
        ..backup.clone()
    }
}

fn read_volume(volume: &Volume, rows: &Rows) -> Volume {
    Volume { status: text(&rows[&(Table::Volumes, volume.id.clone())], "status"), ..volume.clone() }
}

fn read_snapshot(snapshot: &Snapshot, rows: &Rows) -> Snapshot {
    Snapshot { status: text(&rows[&(Table::Snapshots, snapshot.id.clone())], "status"), ..snapshot.clone() }
}

/// The case as the next scan reads it; `old` if the repair is not recent any more by then.
fn read_again(case: &BackupCase, rows: &Rows, old: bool) -> BackupCase {
    BackupCase {
        backup: read_backup(&case.backup, rows, old),
        volume: case.volume.as_ref().map(|volume| read_volume(volume, rows)),
        destination: case.destination.as_ref().map(|volume| read_volume(volume, rows)),
        snapshot: case.snapshot.as_ref().map(|snapshot| read_snapshot(snapshot, rows)),
        parent: case.parent.as_ref().map(|parent| read_backup(parent, rows, old)),
        ..case.clone()
    }
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(these: &[T]) -> impl Strategy<Value = T> + use<T> {
    select(these.to_vec())
}

fn maybe(these: &[&str]) -> impl Strategy<Value = Option<String>> + use<> {
    let mut all = vec![None];
    all.extend(these.iter().map(|text| Some((*text).to_owned())));
    select(all)
}

prop_compose! {
    fn any_backup()(
        status in maybe(&[CREATING, CREATING, RESTORING, RESTORING, DELETING, ERROR, ERROR_DELETING, AVAILABLE]),
        host in maybe(&["", GONE, "down", "down", "up", "never", "up@ceph", "\u{1b}[31mhost'"]),
        service in maybe(&[POSIX, POSIX, CEPH, ""]),
        (created, updated) in (one_of(&[Some(OLD), Some(OLD), Some(10), None]), one_of(&[Some(OLD), Some(100_000), None, Some(-60)])),
        (size, object_count, counter) in (one_of(&[Some(1), Some(500), None]), one_of(&[None, Some(0), Some(9)]), one_of(&[None, Some(0), Some(3)])),
        (metadata, fail_reason) in (maybe(&["prefix"]), maybe(&["it failed", "cinder-backup-repair: left in creating"])),
        (parent, temporary, snapshot, destination) in (maybe(&["a"]), maybe(&["t"]), maybe(&["s"]), maybe(&["d", "v"])),
    ) -> Backup {
        Backup {
            host, service, size, object_count, fail_reason,
            status,
            service_metadata: metadata,
            num_dependent_backups: counter,
            created_at: created.map(ago),
            updated_at: updated.map(ago),
            parent_id: parent,
            temp_volume_id: temporary,
            snapshot_id: snapshot,
            restore_volume_id: destination,
            ..a_backup(None)
        }
    }
}

fn any_volume(id: &'static str) -> impl Strategy<Value = Option<Volume>> {
    let status = maybe(&[BACKING_UP, BACKING_UP, BACKING_UP, RESTORING_BACKUP, RESTORING_BACKUP, CREATING, AVAILABLE, IN_USE]);
    let previous = maybe(&[AVAILABLE, IN_USE, BACKING_UP, "error_backing-up"]);
    let attached = maybe(&["attached", "detached"]);
    proptest::option::weighted(0.9, (status, previous, attached)).prop_map(move |found| {
        found.map(|(status, previous, attach_status)| Volume { attach_status, ..a_volume(id, status.as_deref(), previous.as_deref()) })
    })
}

fn any_attachments() -> impl Strategy<Value = Vec<Attachment>> {
    let one = (any::<bool>(), one_of(&["down", "cmp"]), one_of(&["attached", "detached", "reserved", "detaching"]));
    proptest::collection::vec(one, 0..3)
        .prop_map(|these| these.into_iter().map(|(server, host, status)| an_attachment(server.then_some("vm"), host, status)).collect())
}

fn any_peers() -> impl Strategy<Value = Vec<Peer>> {
    let one = (one_of(&[CREATING, RESTORING, DELETING]), maybe(&["v", "w"]), maybe(&["s"]), maybe(&["d"]), any::<bool>());
    proptest::collection::vec(one, 0..3).prop_map(|these| {
        these
            .into_iter()
            .enumerate()
            .map(|(index, (status, volume_id, snapshot_id, restore_volume_id, released))| Peer {
                volume_id,
                snapshot_id,
                restore_volume_id,
                released,
                ..a_peer(&format!("peer{index}"), status)
            })
            .collect()
    })
}

prop_compose! {
    fn any_case()(
        backup in any_backup(),
        (volume, destination) in (any_volume("v"), any_volume("d")),
        snapshot in proptest::option::of(maybe(&[BACKING_UP, BACKING_UP, AVAILABLE, ERROR])),
        parent in proptest::option::weighted(0.8, (maybe(&[AVAILABLE, ERROR, RESTORING]), one_of(&[None, Some(0), Some(2), Some(7)]))),
        (certain, possible) in (0..4_i64, 0..3_i64),
        attachments in any_attachments(),
        peers in any_peers(),
        volume_is_temporary in proptest::bool::weighted(0.1),
    ) -> BackupCase {
        let into_itself = backup.restore_volume_id.as_deref() == Some("v");
        BackupCase {
            ancestors: Vec::new(),
            destination: if into_itself { volume.clone() } else { destination.filter(|_| backup.restore_volume_id.is_some()) },
            volume,
            snapshot: snapshot.filter(|_| backup.snapshot_id.is_some()).map(|status| a_snapshot(status.as_deref())),
            parent: parent.filter(|_| backup.parent_id.is_some()).map(|(status, counter)| Backup {
                id: "a".into(),
                num_dependent_backups: counter,
                ..a_backup(status.as_deref())
            }),
            siblings: Children { certain, possible },
            attachments,
            conflicts: Vec::new(),
            peers,
            volume_is_temporary,
            check: None,
            deletion: None,
            backup,
        }
    }
}

prop_compose! {
    fn any_policy()(
        to in maybe(&[AVAILABLE, AVAILABLE, ERROR]),
        (allow_unverified, fix_counters) in (any::<bool>(), any::<bool>()),
        assume_dead in one_of(&[AssumeDead::None, AssumeDead::All, AssumeDead::Hosts(["up".to_owned()].into())]),
        older_than_seconds in one_of(&[0, 3_600, 3_600, 90_000]),
        service_down_time_seconds in one_of(&[60, 60, 0, 100_000]),
    ) -> Policy {
        let thresholds = crate::domain::Thresholds { older_than_seconds, service_down_time_seconds, ..Default::default() };
        Policy { thresholds, assume_dead, to, allow_unverified, fix_counters, ..Policy::default() }
    }
}

prop_compose! {
    fn any_situation()(
        columns in one_of(&[ColumnSet::Juno, ColumnSet::Liberty, ColumnSet::Mitaka]),
        server_uptime_seconds in one_of(&[None, Some(0), Some(119), Some(1_000_000)]),
        has_attachments in any::<bool>(),
    ) -> Situation {
        Situation { columns, server_uptime_seconds, has_attachments, ..situation() }
    }
}

/// The case as read from a database with these columns.
fn as_read(mut case: BackupCase, columns: ColumnSet) -> BackupCase {
    if columns < ColumnSet::Liberty {
        (case.backup.parent_id, case.backup.temp_volume_id, case.backup.num_dependent_backups, case.parent) = (None, None, None, None);
        case.volume.iter_mut().chain(&mut case.destination).for_each(|volume| volume.previous_status = None);
    }
    if columns < ColumnSet::Mitaka {
        (case.backup.snapshot_id, case.backup.restore_volume_id, case.snapshot, case.destination) = (None, None, None, None);
    }
    case
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_backup_repaired_is_as_decided_can_be_undone_and_is_not_repaired_twice(
        case in any_case(), situation in any_situation(), policy in any_policy()
    ) {
        let case = as_read(case, situation.columns);
        let finding = decided(&case, &situation, &policy);
        prop_assert_eq!(&finding, &backup(&case, &situation, &policy), "the same rows give the same decision");
        if let Some(proposal) = finding.proposal {
            // The same holds for one that is uncertain, which --assume-dead makes stuck.
            let after = done_and_undone(&rows_of(&case, situation.columns), &proposal.changes);
            for old in [false, true] {
                let again = decided(&read_again(&case, &after, old), &situation, &policy);
                prop_assert!(!again.is_actionable(), "applied twice: {again:?}");
            }
        }
    }

    #[test]
    fn options_and_time_only_extend_what_may_change(case in any_case(), situation in any_situation(), policy in any_policy()) {
        let case = as_read(case, situation.columns);
        if decided(&case, &situation, &policy).is_actionable() {
            let dead = Policy { assume_dead: AssumeDead::All, ..policy.clone() };
            prop_assert!(decided(&case, &situation, &dead).is_actionable());
            let later = Situation { now: now().checked_add(jiff::SignedDuration::from_hours(1)).unwrap(), ..situation.clone() };
            prop_assert!(decided(&case, &later, &policy).is_actionable());
        }
    }

    #[test]
    fn a_leftover_volume_is_repaired_once(
        volume in any_volume("v"), attachments in any_attachments(), situation in any_situation(), policy in any_policy()
    ) {
        let Some(volume) = volume else { return Ok(()) };
        let case = VolumeCase { volume, attachments, explained_by: Vec::new(), suspects: Vec::new(), is_temporary: false, backup_hosts: vec!["down".into()] };
        let finding = left_volume(&case, &situation, &policy).unwrap();
        sound(&finding, &|| format!("{case:?} {finding:?}"));
        if let Some(proposal) = &finding.proposal {
            let after = done_and_undone(&rows([case.volume.image(situation.columns)]), &proposal.changes);
            let again = VolumeCase { volume: read_volume(&case.volume, &after), ..case };
            prop_assert!(left_volume(&again, &situation, &policy).is_none_or(|finding| !finding.is_actionable()));
        }
    }

    #[test]
    fn a_leftover_snapshot_is_repaired_once(status in maybe(&[BACKING_UP, AVAILABLE]), policy in any_policy()) {
        let case = SnapshotCase { snapshot: a_snapshot(status.as_deref()), explained_by: Vec::new(), suspects: Vec::new() };
        if let Some(proposal) = snapshot(&case, &situation(), &policy).and_then(|finding| finding.proposal) {
            let after = done_and_undone(&rows([case.snapshot.image()]), &proposal.changes);
            let again = SnapshotCase { snapshot: read_snapshot(&case.snapshot, &after), ..case };
            prop_assert_eq!(snapshot(&again, &situation(), &policy), None);
        }
    }

    #[test]
    fn a_counter_is_repaired_once(
        row in any_backup(), certain in -1..5_i64, possible in -1..3_i64, occupied in any::<bool>(), policy in any_policy()
    ) {
        let case = CounterCase { backup: row, children: Children { certain, possible }, occupied };
        if let Some(proposal) = counter(&case, &situation(), &policy).and_then(|finding| finding.proposal) {
            let after = done_and_undone(&rows([case.backup.image(ColumnSet::Mitaka)]), &proposal.changes);
            let again = CounterCase { backup: read_backup(&case.backup, &after, true), ..case };
            prop_assert_eq!(counter(&again, &situation(), &policy), None);
        }
    }
}

/// A plan expects that a stuck backup with a lesser id is repaired before. A run does not expect it: it reads the rows.
#[test]
fn of_several_stuck_backups_of_one_volume_the_last_sets_it_free() {
    let (situation, policy) = (situation(), Policy::default());
    let ids = ["a", "b", "c"];
    let mut volume = a_volume("v", Some(BACKING_UP), Some(IN_USE));
    let mut statuses = BTreeMap::from(ids.map(|id| (id, CREATING.to_owned())));
    let case = |id: &str, volume: &Volume, peers: Vec<Peer>| BackupCase {
        volume: Some(volume.clone()),
        peers,
        ..a_case(Backup { id: id.into(), ..a_backup(Some(CREATING)) })
    };
    let others = |id: &'static str| ids.into_iter().filter(move |other| *other != id);
    let planned: Vec<Vec<Change>> = ids
        .iter()
        .map(|id| {
            let peers = others(id).map(|other| Peer { released: other < *id, ..a_peer(other, CREATING) }).collect();
            decided(&case(id, &volume, peers), &situation, &policy).proposal.unwrap().changes
        })
        .collect();
    for (id, planned) in ids.iter().zip(planned) {
        let peers = others(id).filter(|other| statuses[other] == CREATING).map(|other| a_peer(other, CREATING)).collect();
        let case = case(id, &volume, peers);
        let now = decided(&case, &situation, &policy).proposal.unwrap().changes;
        assert_eq!(now, planned, "what was planned for {id} is what is right when its turn comes");
        let after = done_and_undone(&rows_of(&case, ColumnSet::Mitaka), &now);
        volume = read_volume(&volume, &after);
        statuses.insert(id, ERROR.into());
        assert_eq!(volume.status.as_deref(), Some(if *id == "c" { IN_USE } else { BACKING_UP }));
    }
}
