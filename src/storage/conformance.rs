//! A conformance test of [`ObjectStore`] that every store passes.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::{ControlFlow, Range};

use super::{ObjectInfo, ObjectStore, StorageErrorKind};

/// The number of objects with the prefix `many-`: more than the 1000 that servers list on a page.
const MANY: usize = 1500;

/// Returns the objects that [`check`] expects in the container. `slashes` adds names as the drivers of object stores give them.
pub(crate) fn content(slashes: bool) -> BTreeMap<String, Vec<u8>> {
    let mut objects: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for number in 1..=MANY {
        objects.insert(format!("many-{number:05}"), number.to_string().into_bytes());
    }
    let odd = [
        "odd name",
        "odd%20name",
        "odd+name",
        "odd%2Fname",
        "odd'name\"",
        "oddü日本語😀",
        "odd&name=1?2#3;4",
        "odd\\name",
        "odd<name>",
        "odd~name*",
        "odd_name:@!$()[]{},|^`",
    ];
    for name in odd {
        objects.insert(name.to_owned(), format!("in {name}").into_bytes());
    }
    if slashes {
        for name in [
            "volume_v/20261122101112/az_nova_backup_b-00001",
            "volume_v/20261122101112/az_nova_backup_b_metadata",
            "volume_v/20261122101113/az_nova_backup_c-00001",
            "volume_w/20261122101113/az_my zone_backup_d-00001",
        ] {
            objects.insert(name.to_owned(), format!("in {name}").into_bytes());
        }
    }
    objects.insert("empty".to_owned(), Vec::new());
    objects.insert("large".to_owned(), (0..300_000_u32).flat_map(u32::to_le_bytes).collect());
    // A name that is a prefix of another.
    objects.insert("p-00001".to_owned(), b"of p".to_vec());
    objects.insert("p-00001x-00001".to_owned(), b"of p-00001x".to_vec());
    objects
}

fn names(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    store
        .list(prefix, &mut |info| {
            names.push(info.name);
            ControlFlow::Continue(())
        })
        .unwrap();
    names.sort();
    names
}

/// Checks that the pages after any name have the rest of the listing without a gap.
fn pages(store: &dyn ObjectStore, all: &[String]) {
    for from in ["", "many-00700", "many-00700x", "odd", "p-00001", "zzz"] {
        let (mut after, mut listed) = (from.to_owned(), Vec::new());
        while let Some(page) = store.list_page(&after).unwrap() {
            listed.extend(page.objects.into_iter().map(|object| object.name));
            if page.is_last {
                break;
            }
            after.clone_from(listed.last().unwrap());
        }
        let expected: Vec<&String> = all.iter().filter(|name| name.as_str() > from && !name.contains('/')).collect();
        // The pages of a directory have no subdirectories.
        let listed: Vec<&String> = listed.iter().filter(|name| *name != "volume_v" && *name != "volume_w" && !name.contains('/')).collect();
        assert_eq!(listed, expected, "after {from:?}");
    }
    let listed = list_one(store, "many-00700");
    let found = store.list_page("many-00699").unwrap().unwrap().objects.into_iter().next();
    assert_eq!(found, listed);
}

fn list_one(store: &dyn ObjectStore, prefix: &str) -> Option<ObjectInfo> {
    let mut found = None;
    store
        .list(prefix, &mut |info| {
            found = Some(info);
            ControlFlow::Break(())
        })
        .unwrap();
    found
}

fn bytes(store: &dyn ObjectStore, name: &str, range: Option<Range<u64>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.open(name, range).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Checks a store that has [`content`].
pub(crate) fn check(store: &dyn ObjectStore, slashes: bool) {
    let content = content(slashes);
    assert!(!store.location().is_empty());
    assert!(store.concurrency() > 0);

    // Listings: each object once, with any prefix.
    let all: Vec<String> = content.keys().cloned().collect();
    let mut prefixes =
        vec!["many-", "many-0", "many-0004", "many-00042", "odd", "odd ", "odd%", "odd+", "oddü", "p-00001", "p-00001x", "absent"];
    if slashes {
        prefixes.extend([
            "volume_v/",
            "volume_v/2026112210111",
            "volume_v/20261122101112/az_nova_backup_b",
            "volume_w/20261122101113/az_my z",
        ]);
    } else {
        assert_eq!(names(store, ""), all);
    }
    for prefix in prefixes {
        let expected: Vec<String> = all.iter().filter(|name| name.starts_with(prefix)).cloned().collect();
        assert_eq!(names(store, prefix), expected, "prefix {prefix:?}");
    }
    assert_eq!(names(store, "many-").len(), MANY);
    for stop_after in [1, 2, 1001] {
        let mut seen = 0;
        let mut each = |_: ObjectInfo| {
            seen += 1;
            if seen == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.list("many-", &mut each).unwrap();
        assert_eq!(seen, stop_after, "a listing continues after a break");
    }

    pages(store, &all);

    // A stat agrees with the listing.
    let mut listed = BTreeMap::new();
    store
        .list("odd", &mut |info| {
            listed.insert(info.name.clone(), info);
            ControlFlow::Continue(())
        })
        .unwrap();
    for (name, data) in content.iter().filter(|(name, _)| !name.starts_with("many-")) {
        let info = store.stat(name).unwrap().unwrap_or_else(|| panic!("{name:?} is not there"));
        assert_eq!((info.name.as_str(), info.size), (name.as_str(), data.len() as u64));
        if let Some(listed) = listed.get(name) {
            assert_eq!(listed.size, info.size, "{name:?}");
            let seconds = |info: &ObjectInfo| info.modified.map(|time| time.as_second());
            assert_eq!(seconds(listed), seconds(&info), "{name:?}");
        }
        assert_eq!(bytes(store, name, None), *data, "{name:?}");
    }

    // Ranges.
    let large = content.get("large").unwrap();
    let size = large.len() as u64;
    for range in [
        0..1,
        0..size,
        1..2,
        65_535..65_537,
        size - 1..size,
        size - 1..size + 100,
        0..u64::MAX,
        7..u64::MAX,
        size..size + 1,
        size + 10..size + 20,
        size..u64::MAX,
        5..5,
        u64::MAX - 1..u64::MAX,
    ] {
        let cut = |at: u64| usize::try_from(at.min(size)).unwrap();
        let expected = large.get(cut(range.start)..cut(range.end)).unwrap();
        assert!(bytes(store, "large", Some(range.clone())) == expected, "range {range:?}");
    }
    assert_eq!(bytes(store, "empty", Some(0..10)), b"");

    // Absent objects.
    for absent in ["absent", "p-00002", "p-0000", "large ", "Large", "odd%2520name"] {
        assert_eq!(store.stat(absent).unwrap(), None, "{absent:?}");
        let error = store.open(absent, None).err().unwrap_or_else(|| panic!("{absent:?} opens"));
        assert_eq!(error.kind, StorageErrorKind::NoObject, "{absent:?}: {error}");
    }

    // In parallel.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for name in ["large", "empty", "p-00001"] {
                    assert!(bytes(store, name, None) == *content.get(name).unwrap(), "{name}");
                }
            });
        }
    });
}
