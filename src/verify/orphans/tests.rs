use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::format::names;

fn id(number: u8) -> String {
    format!("{number:02x}000000-0000-4000-8000-000000000000")
}

fn prefix(volume: u8, backup: u8, is_directory: bool) -> String {
    let (volume, backup) = (id(volume), id(backup));
    if is_directory {
        format!("volume_{volume}_20261122101112_backup_{backup}")
    } else {
        format!("volume_{volume}/20261122101112/az_nova_backup_{backup}")
    }
}

fn object(name: String, second: i64, size: u64) -> ObjectInfo {
    ObjectInfo { name, size, modified: Timestamp::from_second(second).ok(), md5: None }
}

fn quiet(second: i64) -> QuietSince {
    let storage = Timestamp::from_second(second).unwrap();
    QuietSince { storage, database: jiff::tz::Offset::UTC.to_datetime(storage) }
}

fn row(is_deleted: bool, deleted_at: Option<i64>) -> StorageRow {
    let text = |second| jiff::tz::Offset::UTC.to_datetime(Timestamp::from_second(second).unwrap()).to_string();
    StorageRow { deleted: is_deleted, deleted_at: deleted_at.map(text), ..StorageRow::default() }
}

#[derive(Debug, Clone)]
struct Backup {
    volume: u8,
    backup: u8,
    data: u64,
    is_finished: bool,
    second: i64,
    strange: bool,
}

fn backups() -> impl Strategy<Value = Vec<Backup>> {
    let one = (any::<u8>(), any::<u8>(), 1..5_u64, any::<bool>(), 0..1_000_i64, any::<bool>());
    let one =
        one.prop_map(|(volume, backup, data, is_finished, second, strange)| Backup { volume, backup, data, is_finished, second, strange });
    vec(one, 0..20).prop_map(|mut all| {
        all.sort_by_key(|one| one.backup);
        all.dedup_by_key(|one| one.backup);
        all
    })
}

fn objects(backups: &[Backup], is_directory: bool) -> Vec<ObjectInfo> {
    let mut all = Vec::new();
    for one in backups {
        let own = prefix(one.volume, one.backup, is_directory);
        let path = |name: String| {
            let id = id(one.backup);
            if is_directory { format!("{}/00/{id}/{name}", id.get(..2).unwrap()) } else { name }
        };
        all.extend((1..=one.data).map(|number| object(path(names::data(&own, number)), one.second, number)));
        if one.is_finished {
            all.push(object(path(names::metadata(&own)), one.second + 1, 7));
        }
        if one.strange {
            all.push(object(path(format!("{own}-00001.tmp")), 0, 1));
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn listed(objects: Vec<ObjectInfo>, is_directory: bool) -> Vec<Listed> {
    let mut grouper = Grouper::new(is_directory);
    let mut all: Vec<Listed> = objects.into_iter().filter_map(|object| grouper.add(object)).collect();
    all.extend(grouper.end());
    all
}

proptest! {
    #[test]
    fn every_object_is_in_one_group_of_its_backup_or_unknown(backups in backups(), is_directory: bool) {
        let all = objects(&backups, is_directory);
        let (count, bytes) = (all.len() as u64, all.iter().map(|object| object.size).sum::<u64>());
        let mut totals = ObjectTotals::default();
        let mut found = BTreeMap::new();
        for part in listed(all, is_directory) {
            match part {
                Listed::Unknown(object) => {
                    prop_assert!(object.name.ends_with(".tmp"));
                    totals.add(&ObjectTotals::of(&object));
                }
                Listed::Group(group) => {
                    totals.add(&group.totals);
                    prop_assert!(found.insert(group.backup_id.clone(), group).is_none(), "a backup twice");
                }
            }
        }
        prop_assert_eq!((totals.objects, totals.bytes), (count, bytes));
        prop_assert_eq!(found.len(), backups.len());
        for one in &backups {
            let group = found.get(&id(one.backup)).unwrap();
            prop_assert_eq!(&group.volume_id, &id(one.volume));
            prop_assert_eq!(group.is_finished, one.is_finished);
            prop_assert_eq!(group.totals.objects, one.data + u64::from(one.is_finished));
            prop_assert_eq!(group.totals.oldest_at, Timestamp::from_second(one.second).ok());
            prop_assert_eq!(group.folder.is_some(), is_directory);
        }
    }

    #[test]
    fn live_backups_and_young_objects_are_never_orphans(
        is_finished: bool, second in 0..2_000_i64, untimed: bool, has_row: bool, is_deleted: bool,
        deleted_at in proptest::option::of(0..2_000_i64),
    ) {
        let mut totals = ObjectTotals::of(&object("x".into(), second, 1));
        totals.untimed = untimed.into();
        let row = has_row.then(|| row(is_deleted, deleted_at));
        let kind = judge(&totals, is_finished, row.as_ref(), quiet(1_000));
        if (has_row && !is_deleted) || second >= 1_000 || untimed || (has_row && deleted_at.is_some_and(|at| at >= 1_000)) {
            prop_assert_eq!(kind, None);
        } else {
            let expected = match (has_row, is_finished) {
                (true, _) => OrphanKind::RowDeleted,
                (false, true) => OrphanKind::NoRow,
                (false, false) => OrphanKind::Half,
            };
            prop_assert_eq!(kind, Some(expected));
        }
    }

    #[test]
    fn every_name_is_in_one_shard_and_no_backup_in_two(backups in backups(), of in 1..50_u32, is_directory: bool) {
        let shards: Vec<NameRange> = (1..=of).map(|number| NameRange::of(Shard::new(number, of), if is_directory { Driver::Nfs } else { Driver::S3 })).collect();
        let mut places = BTreeMap::new();
        for object in objects(&backups, is_directory).into_iter().chain([object("~".into(), 0, 0), object("!".into(), 0, 0)]) {
            let found: Vec<usize> = (0..shards.len()).filter(|place| shards.get(*place).unwrap().has(&object.name)).collect();
            prop_assert_eq!(found.len(), 1, "{}", object.name);
            if let Some(group) = ObjectGroup::of(&object, is_directory) {
                prop_assert_eq!(places.entry(group.backup_id).or_insert_with(|| found.clone()), &found);
            }
        }
    }
}

#[test]
fn a_clock_that_is_ahead_makes_no_object_old() {
    let (settle, hour) = (SignedDuration::from_secs(900), 3_600);
    for (machine, database) in [(0, 0), (hour, 0), (0, hour)] {
        let [machine, database] = [machine, database].map(|ahead| Timestamp::from_second(100_000 + ahead).unwrap());
        let quiet = QuietSince::new(machine, Offset::UTC.to_datetime(database), settle);
        assert_eq!(quiet.storage.as_second(), 100_000 - 900);
    }
}

#[test]
fn only_names_that_cinder_gives_belong_to_a_backup() {
    let of = |name: String, is_directory| ObjectGroup::of(&object(name, 0, 0), is_directory).map(|group| group.backup_id);
    assert_eq!(of(names::data(&prefix(1, 2, true), 1), true), Some(id(2)));
    assert_eq!(of(format!("ab/cd/x/{}", names::data(&prefix(1, 2, true), 1)), true), Some(id(2)));
    assert_eq!(of(names::metadata(&prefix(1, 2, false)), false), Some(id(2)));
    let capitals = prefix(1, 2, true).replace("8000", "ABCD");
    for (name, is_directory) in [
        (names::data(&capitals, 1), true),
        (names::data("volume_v_20261122101112_backup_b", 1), true),
        (names::data(&prefix(1, 2, false), 1), true),
        (names::data(&prefix(1, 2, true), 1), false),
        (format!("{}-1", prefix(1, 2, true)), true),
        (format!("{}-00001/x", prefix(1, 2, true)), true),
        ("lost+found".to_owned(), true),
        (String::new(), false),
    ] {
        assert_eq!(of(name.clone(), is_directory), None, "{name}");
    }
}

#[test]
fn orphans_are_counted_by_back_end_project_and_kind() {
    let orphan = |project: Option<&str>, kind: OrphanKind, second: i64| Orphan {
        project_id: project.map(str::to_owned),
        ..Orphan::new(kind, (Driver::S3, "s3://b"), None, ObjectTotals::of(&object(String::new(), second, 10)))
    };
    let mut summary = OrphanSummary::default();
    for (project, kind, second) in
        [(Some("p"), OrphanKind::RowDeleted, 5), (Some("p"), OrphanKind::RowDeleted, 3), (None, OrphanKind::UnknownName, 9)]
    {
        summary.add(&orphan(project, kind, second));
    }
    let counts: Vec<_> = summary.counts().iter().map(|count| (count.project_id.clone(), count.backups, count.totals.bytes)).collect();
    assert_eq!(counts, [(None, 0, 10), (Some("p".to_owned()), 2, 20)]);
    let json = serde_json::to_value(summary.counts()).unwrap();
    assert_eq!(json.pointer("/1/oldest_at").unwrap(), "1970-01-01T00:00:03.000000Z");
    assert_eq!(serde_json::from_value::<Vec<OrphanCount>>(json).unwrap(), summary.counts());
}
