//! Parses the output of `rbd --format json` strictly: the keys that are used must exist and have their type. Others are ignored,
//! because newer releases add some.

use std::fmt;
use std::io::Read;
use std::ops::ControlFlow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::{Extent, ImageInfo, SnapshotInfo};

/// A boolean, which some commands write as a string.
#[derive(Debug, Clone, Copy)]
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Flag;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a boolean, bare or as a string")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Flag, E> {
                Ok(Flag(value))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Flag, E> {
                match value {
                    "true" => Ok(Flag(true)),
                    "false" => Ok(Flag(false)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
struct Info {
    size: u64,
    object_size: u64,
    // Absent in images of format 1.
    #[serde(default)]
    block_name_prefix: String,
    #[serde(default)]
    data_pool: Option<String>,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    stripe_count: Option<u64>,
    #[serde(default)]
    create_timestamp: Option<String>,
    #[serde(default)]
    modify_timestamp: Option<String>,
}

/// Parses the output of `rbd info`.
pub(super) fn image(name: &str, bytes: &[u8]) -> Result<ImageInfo, serde_json::Error> {
    let info: Info = serde_json::from_slice(bytes)?;
    if info.object_size == 0 {
        return Err(serde_json::Error::custom("an object_size of 0"));
    }
    Ok(ImageInfo {
        name: name.to_owned(),
        size: info.size,
        object_size: info.object_size,
        object_prefix: info.block_name_prefix,
        data_pool: info.data_pool.filter(|pool| !pool.is_empty()),
        striped: info.stripe_count.is_some_and(|count| count > 1),
        // Ceph itself does not trust a map with an "invalid" flag.
        has_object_map: info.features.iter().any(|feature| feature == "fast-diff")
            && !info.flags.iter().any(|flag| flag.contains("invalid")),
        created: info.create_timestamp.as_deref().and_then(time),
        modified: info.modify_timestamp.as_deref().and_then(time),
    })
}

#[derive(Deserialize)]
struct Snapshot {
    id: u64,
    name: String,
    size: u64,
    #[serde(default)]
    timestamp: Option<String>,
}

/// Parses the output of `rbd snap ls`; returns the oldest snapshot first.
pub(super) fn snapshots(bytes: &[u8]) -> Result<Vec<SnapshotInfo>, serde_json::Error> {
    let mut list: Vec<Snapshot> = serde_json::from_slice(bytes)?;
    list.sort_by_key(|snapshot| snapshot.id);
    Ok(list
        .into_iter()
        .map(|Snapshot { id, name, size, timestamp }| SnapshotInfo { id, name, size, created: timestamp.as_deref().and_then(time) })
        .collect())
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
    #[derive(Deserialize)]
    struct Entry {
        offset: u64,
        length: u64,
        exists: Flag,
    }
    struct List<'a>(&'a mut dyn FnMut(Extent) -> ControlFlow<()>);
    impl<'de> Visitor<'de> for List<'_> {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of extents")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
            while let Some(Entry { offset, length, exists }) = list.next_element()? {
                if offset.checked_add(length).is_none() {
                    return Err(A::Error::custom("an extent that ends beyond 2^64 bytes"));
                }
                if (self.0)(Extent { offset, length, exists: exists.0 }).is_break() {
                    while list.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
    impl<'de> DeserializeSeed<'de> for List<'_> {
        type Value = bool;
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
            deserializer.deserialize_seq(self)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    List(each).deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Parses a time as `ctime` writes it: `Sun Nov 22 22:22:15 2026`. It is in UTC, because the commands run with TZ=UTC.
fn time(text: &str) -> Option<Timestamp> {
    let mut words = text.split_ascii_whitespace().skip(1);
    let (month, day, clock, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let text = format!("{day:0>2} {month} {year} {clock}");
    DateTime::strptime("%d %b %Y %H:%M:%S", text).ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// Parses the output of `rados stat`: size and time of the last write.
pub(super) fn stat(text: &str) -> Option<(u64, Option<Timestamp>)> {
    let (rest, size) = text.trim_end().rsplit_once(", size ")?;
    let (_, time) = rest.rsplit_once(" mtime ")?;
    // Before Ceph 16 this is local time without a zone. Commands run with TZ=UTC.
    let zoned = Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", time).ok();
    let local = || DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", time).ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    Some((size.parse().ok()?, zoned.or_else(local)))
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
        assert_eq!((info.size, info.object_size, info.striped, info.has_object_map), (16 << 20, 4 << 20, false, true));
        assert_eq!(info.object_prefix, "rbd_data.100b556efe9b");
        assert_eq!(info.created.unwrap().to_string(), "2026-11-01T22:22:15Z");
        assert_eq!(info.modified.unwrap().to_string(), "2026-11-22T22:22:15Z");
        let invalid = INFO.replace("\"flags\":[]", "\"flags\":[\"object map invalid\",\"fast diff invalid\"]");
        assert!(!image("img", invalid.as_bytes()).unwrap().has_object_map);
        assert!(!image("img", INFO.replace(",\"fast-diff\"", "").as_bytes()).unwrap().has_object_map);
        let wide = INFO.replace("\"flags\"", "\"data_pool\":\"ec\",\"stripe_unit\":65536,\"stripe_count\":16,\"flags\"");
        let wide = image("img", wide.as_bytes()).unwrap();
        assert_eq!((wide.striped, wide.data_pool.as_deref()), (true, Some("ec")));
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
        let (size, time) = stat("backups/backup.x.meta mtime 2026-11-22T22:22:16.000000+0000, size 15\n").unwrap();
        assert_eq!((size, time.unwrap().to_string().as_str()), (15, "2026-11-22T22:22:16Z"));
        let (size, time) = stat("backups/backup.x.meta mtime 2017-03-01 10:00:00.000000, size 0").unwrap();
        assert_eq!((size, time.unwrap().to_string().as_str()), (0, "2017-03-01T10:00:00Z"));
        assert_eq!(stat("backups/x mtime soon, size 1"), Some((1, None)));
        for wrong in ["", "x", "backups/x mtime 2017, size -1", "backups/x size 1"] {
            assert_eq!(stat(wrong), None, "{wrong}");
        }
    }
}
