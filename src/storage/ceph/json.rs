//! Parses the output of `rbd --format json` strictly: the keys that are used must exist and have their type. Others are ignored,
//! because newer releases add some.

use std::fmt;
use std::io::Read;
use std::ops::ControlFlow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use super::{Extent, ImageInfo, ObjectStat, SnapshotInfo};

/// Reads a boolean, which some commands write as a string.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Bool(flag) => Ok(flag),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        other => Err(D::Error::custom(format_args!("{other} is not a boolean, bare or as a string"))),
    }
}

/// Reads a time as `ctime` writes it: `Sun Nov 22 22:22:15 2026`. It is in UTC, because the commands run with TZ=UTC.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text: Option<String> = Deserialize::deserialize(deserializer)?;
    Ok(text.and_then(|text| in_utc("%b %e %H:%M:%S %Y", text.split_once(' ')?.1)))
}

fn in_utc(format: &str, text: &str) -> Option<Timestamp> {
    Offset::UTC.to_timestamp(DateTime::strptime(format, text).ok()?).ok()
}

/// Parses the output of `rbd info`.
pub(super) fn image(name: &str, bytes: &[u8]) -> Result<ImageInfo, serde_json::Error> {
    let info: ImageInfo = serde_json::from_slice(bytes)?;
    if info.object_size == 0 {
        return Err(serde_json::Error::custom("an object_size of 0"));
    }
    Ok(ImageInfo { name: name.to_owned(), data_pool: info.data_pool.filter(|pool| !pool.is_empty()), ..info })
}

/// Parses the output of `rbd snap ls`; returns the oldest snapshot first.
pub(super) fn snapshots(bytes: &[u8]) -> Result<Vec<SnapshotInfo>, serde_json::Error> {
    let mut list: Vec<SnapshotInfo> = serde_json::from_slice(bytes)?;
    list.sort_by_key(|snapshot| snapshot.id);
    Ok(list)
}

/// Parses the output of `rbd status`: the addresses of the clients that have the image open for writing.
pub(super) fn watchers(bytes: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Status {
        watchers: Vec<Watcher>,
    }
    #[derive(Deserialize)]
    struct Watcher {
        address: String,
    }
    let status: Status = serde_json::from_slice(bytes)?;
    Ok(status.watchers.into_iter().map(|watcher| watcher.address).collect())
}

/// Parses the output of `rbd lock ls`: the holders of the exclusive lock, which may have died.
pub(super) fn locks(bytes: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Lock {
        locker: String,
        address: String,
    }
    let locks: Vec<Lock> = serde_json::from_slice(bytes)?;
    Ok(locks.into_iter().map(|lock| format!("{} at {}", lock.locker, lock.address)).collect())
}

/// Parses the output of `rbd diff`, one extent at a time, including extents that no longer exist.
pub(super) fn extents(reader: impl Read, each: &mut dyn FnMut(Extent) -> ControlFlow<()>) -> Result<(), serde_json::Error> {
    struct List<'a>(&'a mut dyn FnMut(Extent) -> ControlFlow<()>);
    impl<'de> Visitor<'de> for List<'_> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of extents")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            while let Some(extent) = list.next_element::<Extent>()? {
                if extent.offset.checked_add(extent.length).is_none() {
                    return Err(A::Error::custom("an extent that ends beyond 2^64 bytes"));
                }
                if (self.0)(extent).is_break() {
                    while list.next_element::<IgnoredAny>()?.is_some() {}
                }
            }
            Ok(())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    deserializer.deserialize_seq(List(each))?;
    deserializer.end()
}

/// Parses the output of `rados stat`: size and time of the last write.
pub(super) fn stat(text: &str) -> Option<ObjectStat> {
    let (rest, size) = text.trim_end().rsplit_once(", size ")?;
    let (_, time) = rest.rsplit_once(" mtime ")?;
    // Before Ceph 16 this is local time without a zone. Commands run with TZ=UTC.
    let zoned = Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", time).ok();
    Some(ObjectStat { size: size.parse().ok()?, modified: zoned.or_else(|| in_utc("%Y-%m-%d %H:%M:%S%.f", time)) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    const INFO: &str = r#"{"name":"img","id":"100b556efe9b","size":16777216,"objects":4,"order":22,"object_size":4194304,"snapshot_count":1,
        "block_name_prefix":"rbd_data.100b556efe9b","format":2,"features":["layering","exclusive-lock","object-map","fast-diff"],
        "op_features":[],"flags":[],"create_timestamp":"Sun Nov  1 22:22:15 2026","modify_timestamp":"Sun Nov 22 22:22:15 2026"}"#;

    #[test]
    fn an_image_is_read() {
        let info = image("img", INFO.as_bytes()).unwrap();
        assert_eq!((info.size, info.object_size, info.is_striped(), info.has_object_map()), (16 << 20, 4 << 20, false, true));
        assert_eq!(info.object_prefix, "rbd_data.100b556efe9b");
        assert_eq!(info.created.unwrap().to_string(), "2026-11-01T22:22:15Z");
        assert_eq!(info.modified.unwrap().to_string(), "2026-11-22T22:22:15Z");
        let invalid = INFO.replace("\"flags\":[]", "\"flags\":[\"object map invalid\",\"fast diff invalid\"]");
        assert!(!image("img", invalid.as_bytes()).unwrap().has_object_map());
        assert!(!image("img", INFO.replace(",\"fast-diff\"", "").as_bytes()).unwrap().has_object_map());
        let wide = INFO.replace("\"flags\"", "\"data_pool\":\"ec\",\"stripe_unit\":65536,\"stripe_count\":16,\"flags\"");
        let wide = image("img", wide.as_bytes()).unwrap();
        assert_eq!((wide.is_striped(), wide.data_pool.as_deref()), (true, Some("ec")));
    }

    #[test]
    fn invalid_images_are_refused() {
        for (from, to) in [
            ("16777216", "-1"),
            ("16777216", "\"16777216\""),
            ("16777216", "1e30"),
            ("4194304", "0"),
            ("\"size\"", "\"sise\""),
            ("{", "["),
            ("2026\"}", "2026\"} x"),
            ("2026\"}", "2026\""),
        ] {
            assert!(image("img", INFO.replacen(from, to, 1).as_bytes()).is_err(), "{from} -> {to}");
        }
        assert!(image("img", b"<html>").is_err() && image("img", b"").is_err());
    }

    #[test]
    fn snapshots_watchers_and_locks_are_read() {
        let list = br#"[{"id":14,"name":"undated","size":1,"timestamp":""},
            {"id":4,"name":"backup.x.snap.1","size":16777216,"protected":"false","timestamp":"Sun Nov 22 22:22:15 2026"}]"#;
        let list = snapshots(list).unwrap();
        assert_eq!((list[0].id, list[0].name.as_str(), list[0].size), (4, "backup.x.snap.1", 16 << 20));
        assert!(list[0].created.is_some() && list[1].created.is_none());
        assert!(snapshots(br#"[{"id":4,"size":1}]"#).is_err() && snapshots(br#"[{"name":"x","size":1}]"#).is_err());
        let status = br#"{"watchers":[{"address":"127.0.0.1:0/123","client":4123,"cookie":94}]}"#;
        assert_eq!(watchers(status).unwrap(), ["127.0.0.1:0/123"]);
        assert!(watchers(b"{}").is_err(), "no list is not an empty list");
        let held = br#"[{"id":"auto 1","locker":"client.4123","address":"127.0.0.1:0/123"}]"#;
        assert_eq!(locks(held).unwrap(), ["client.4123 at 127.0.0.1:0/123"]);
        assert!(locks(b"{}").is_err());
    }

    #[test]
    fn extents_are_parsed_one_by_one_and_strictly() {
        let text = r#"[{"offset":0,"length":3342336,"exists":"true"},{"offset":4194304,"length":1,"exists":false}]"#;
        let read = |text: &str, most: usize| {
            let mut found = Vec::new();
            let result = extents(text.as_bytes(), &mut |extent| {
                found.push(extent);
                if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            result.map(|()| found)
        };
        let found = read(text, 9).unwrap();
        assert_eq!(found[0], Extent { offset: 0, length: 3_342_336, exists: true });
        assert_eq!(found[1], Extent { offset: 4 << 20, length: 1, exists: false });
        assert_eq!(read(text, 1).unwrap().len(), 1);
        assert_eq!(read("[]", 9).unwrap(), []);
        for wrong in [
            "",
            "{}",
            "[",
            "[] []",
            r#"[{"offset":0,"length":1}]"#,
            r#"[{"offset":-1,"length":1,"exists":"true"}]"#,
            r#"[{"offset":18446744073709551615,"length":2,"exists":"true"}]"#,
            r#"[{"offset":0,"length":1,"exists":"yes"}]"#,
            r#"[{"offset":0,"length":1,"exists":"true"}"#,
        ] {
            assert!(read(wrong, 9).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stat_is_parsed_in_both_formats() {
        let read = |text| stat(text).map(|ObjectStat { size, modified }| (size, modified));
        let (size, time) = read("backups/backup.x.meta mtime 2026-11-22T22:22:16.000000+0000, size 15\n").unwrap();
        assert_eq!((size, time.unwrap().to_string().as_str()), (15, "2026-11-22T22:22:16Z"));
        let (size, time) = read("backups/backup.x.meta mtime 2017-03-01 10:00:00.000000, size 0").unwrap();
        assert_eq!((size, time.unwrap().to_string().as_str()), (0, "2017-03-01T10:00:00Z"));
        assert_eq!(read("backups/x mtime soon, size 1"), Some((1, None)));
        for wrong in ["", "x", "backups/x mtime 2017, size -1", "backups/x size 1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
