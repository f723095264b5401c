//! Reads side files and objects of Cinder's own driver (see `fixtures/make.py`), and hostile ones.

use std::cell::Cell;
use std::io::{self, Cursor, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use md5::{Digest, Md5};
use proptest::prelude::*;
use serde_json::Value;
use sha2::Sha256;

use super::metadata::{Compression, ObjectEntry};
use super::{FormatError, decompress, metadata, names, sha256file};

const VOLUME: &str = "1b4f3b56-5a3b-4ad2-8d4b-2c9a4f7f1a10";
const BACKUPS: [&str; 2] = ["9c1d1f39-1d2a-4b1f-9d53-1f2b3c4d5e01", "9c1d1f39-1d2a-4b1f-9d53-1f2b3c4d5e02"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/format/fixtures")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name)).unwrap()
}

fn prefix(backup: &str) -> String {
    format!("volume_{VOLUME}_20261122101113_backup_{backup}")
}

fn read_metadata(bytes: impl Read) -> Result<(metadata::MetadataHead, Vec<ObjectEntry>), FormatError> {
    let mut entries = Vec::new();
    let head = metadata::read(bytes, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    })?;
    Ok((head, entries))
}

fn read_hashes(bytes: impl Read) -> Result<(sha256file::Sha256Head, Vec<[u8; 32]>), FormatError> {
    let mut hashes = Vec::new();
    let head = sha256file::read_hashes(bytes, &mut |hash| {
        hashes.push(hash);
        ControlFlow::Continue(())
    })?;
    Ok((head, hashes))
}

fn outline(bytes: &[u8]) -> Result<(sha256file::Outline, u64), FormatError> {
    let mut asked = 0;
    let outline = sha256file::outline(bytes.len() as u64, &mut |range| {
        asked += range.end - range.start;
        Ok(&bytes[range.start as usize..range.end as usize])
    })?;
    Ok((outline, asked))
}

fn decompressed(compression: Compression, bytes: &[u8], length: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decompress::open(compression, Box::new(bytes), length)?.read_to_end(&mut out)?;
    Ok(out)
}

fn malformed<T>(result: Result<T, FormatError>) -> String {
    match result {
        Err(FormatError::Malformed(text)) => text,
        Err(FormatError::Io(error)) => panic!("{error}"),
        Ok(_) => panic!("it is read"),
    }
}

/// Returns one byte at a time, after an interruption.
struct Drip<R>(R, bool);

impl<R: Read> Read for Drip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let part = out.len().min(1);
        self.0.read(&mut out[..part])
    }
}

#[test]
fn a_volume_is_described_by_what_it_states_and_by_nothing_else() {
    let of = |volume_meta: serde_json::Value| {
        let file = serde_json::json!({"backup_name": null, "objects": [{"x": [1, {}]}], "volume_meta": volume_meta}).to_string();
        metadata::describe(file.as_bytes()).unwrap().volume
    };
    let base = |base: serde_json::Value| of(serde_json::json!({"version": 2, "volume-base-metadata": base}).to_string().into());
    let full = base(serde_json::json!({"size": 3, "project_id": "p", "volume_type_id": null, "encryption_key_id": "k", "bootable": true}));
    let facts = metadata::VolumeFacts {
        size: Some(3),
        project_id: Some("p".to_owned()),
        volume_type_id: None,
        encryption_key_id: Some("k".to_owned()),
    };
    assert_eq!(full, Some(facts));
    for strange in [serde_json::json!({"size": "3"}), serde_json::json!([]), serde_json::json!({"project_id": 1})] {
        assert_eq!(base(strange), None);
    }
    for strange in [serde_json::json!(null), "".into(), "{}".into(), "x".into()] {
        assert_eq!(of(strange), None);
    }
    assert!(metadata::describe(br#"{"backup_name": "\ud800"}"#.as_slice()).is_err());
    assert!(metadata::describe(br#"{"volume_meta": 1}"#.as_slice()).is_err());
}

#[test]
fn files_of_cinders_driver_are_read() {
    let volumes = [fixture("volume-1"), fixture("volume-2")];
    for (folder, compression) in
        [("none", Compression::None), ("zlib", Compression::Zlib), ("bz2", Compression::Bz2), ("zstd", Compression::Zstd)]
    {
        let mut restored = vec![0; volumes[0].len()];
        for number in 1..=2 {
            let backup = BACKUPS[number - 1];
            let volume = &volumes[number - 1];
            let file = |end: &str| fixture(&format!("{folder}/backup-{number}{end}"));
            let (head, entries) = read_metadata(file("_metadata").as_slice()).unwrap();
            let parent_id = (number == 2).then(|| BACKUPS[0].to_owned());
            let expected = metadata::MetadataHead {
                version: "1.0.0".to_owned(),
                backup_id: backup.to_owned(),
                volume_id: VOLUME.to_owned(),
                parent_id,
                has_parent_key: true,
                created_at: Some("2026-11-22 10:11:12".to_owned()),
                volume_meta_problem: None,
            };
            assert_eq!(head, expected);
            assert_eq!(read_metadata(Drip(file("_metadata").as_slice(), false)).unwrap(), (head, entries.clone()));
            assert!(entries.iter().any(|entry| entry.compression == compression), "{folder} {number}");
            let described = metadata::describe(Drip(file("_metadata").as_slice(), false)).unwrap();
            assert_eq!(described.name.as_deref(), Some("Ä \"quoted\" 😀 name\n"));
            assert_eq!((described.description, described.parent_id, described.created_at), (None, expected.parent_id, expected.created_at));
            assert_eq!(described.volume, Some(metadata::VolumeFacts::default()));

            for (index, entry) in (1..).zip(&entries) {
                assert_eq!(names::role(&prefix(backup), &entry.name), names::ObjectRole::Data(index));
                let stored = file(&format!("-{index:05}"));
                let bytes = decompressed(entry.compression, &stored, entry.length).unwrap();
                let mut out = Vec::new();
                let mut drip = decompress::open(entry.compression, Box::new(Drip(stored.as_slice(), false)), entry.length).unwrap();
                drip.read_to_end(&mut out).unwrap();
                assert_eq!(out, bytes);
                assert_eq!(<[u8; 16]>::from(Md5::digest(&bytes)), entry.md5);
                let offset = entry.offset as usize;
                restored[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            assert_eq!(restored, *volume, "{folder} {number}");

            let bytes = file("_sha256file");
            let (head, hashes) = read_hashes(bytes.as_slice()).unwrap();
            assert_eq!((head.version.as_str(), head.backup_id.as_str(), head.volume_id.as_str()), ("1.0.0", backup, VOLUME));
            assert_eq!(head.block_size, 512);
            let expected: Vec<[u8; 32]> = volume.chunks(512).map(|block| Sha256::digest(block).into()).collect();
            assert_eq!(hashes, expected);
            assert_eq!(read_hashes(Drip(bytes.as_slice(), false)).unwrap(), (head.clone(), hashes));
            assert_eq!(sha256file::count(bytes.as_slice()).unwrap().head, head);
            assert_eq!(outline(&bytes).unwrap().0, sha256file::Outline { head, hashes: expected.len() as u64 });
        }
    }
}

const SMALL: &str = r#"{"backup_id": "b", "objects": [{"p-00001": {"compression": "none", "length": 4, "md5": "098f6bcd4621d373cade4e832627b4f6", "offset": 8}}], "version": "1.0.0", "volume_id": "v"}"#;

fn small(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    SMALL.replacen(from, to, 1)
}

#[test]
fn other_layouts_of_the_list_are_read() {
    let (head, entries) = read_metadata(SMALL.as_bytes()).unwrap();
    assert!(!head.has_parent_key && head.parent_id.is_none() && head.created_at.is_none());
    assert_eq!((entries[0].name.as_str(), entries[0].offset, entries[0].length), ("p-00001", 8, 4));
    assert_eq!(read_metadata(small("098f6bcd", "098F6BCD").as_bytes()).unwrap().1, entries);
    assert_eq!(read_metadata(small("p-00001", r"\u0070-0\/0\u0030001").as_bytes()).unwrap().1[0].name, "p-0/00001");
    assert_eq!(read_metadata(small("\"b\"", r#""\ud83d\ude00é""#).as_bytes()).unwrap().0.backup_id, "😀é");
    assert_eq!(read_metadata(small(": 8", ": 18446744073709551611").as_bytes()).unwrap().1[0].offset, u64::MAX - 4);
    for (from, to) in [
        (" ", "\r\n\t "),
        ("}", "  }  "),
        ("\"version\"", r#""extra_metadata": {"a": [1, -2.5e+10, true, false, null, {"b": {}}, [], "\ud800 \" ]}"]}, "version""#),
        ("\"version\"", r#""": "", "é": "日本", "version""#),
        ("\"length\"", r#""more": {"length": [7]}, "length""#),
        ("\"version\"", r#""unknown": 1, "unknown": 2, "version""#),
    ] {
        let text = small(from, to);
        let read = read_metadata(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read, (head.clone(), entries.clone()), "{text}");
    }
    let parents = read_metadata(small("\"version\"", r#""parent_id": null, "created_at": null, "version""#).as_bytes()).unwrap().0;
    assert!(parents.has_parent_key && parents.parent_id.is_none() && parents.created_at.is_none());
    let none = small(r#"{"p-00001": {"compression": "none", "length": 4, "md5": "098f6bcd4621d373cade4e832627b4f6", "offset": 8}}"#, "");
    assert!(read_metadata(none.as_bytes()).unwrap().1.is_empty());
}

#[test]
fn anything_that_cinder_does_not_write_is_malformed_with_its_position() {
    for (from, to, says) in [
        (r#"{"backup_id""#, r#"["backup_id""#, "expected an object, found `[` at byte 0"),
        ("\"b\"", "7", "expected a backup's id, found `7` at byte 14"),
        ("\"b\"", "null", "expected a backup's id, found `n`"),
        ("\"b\"", "\"\\ud800\"", "half a surrogate pair"),
        ("\"b\"", "\"\\ud800\\u0041\"", "half a surrogate pair"),
        ("\"b\"", "\"\\ude00\"", "half a surrogate pair"),
        ("\"b\"", "\"\\x\"", "expected an escape, found `x`"),
        ("\"b\"", "\"\\u00g0\"", "expected a hexadecimal digit"),
        ("\"b\"", "\"\n\"", "expected a character, found `\\n`"),
        ("\"1.0.0\"", "1.0", "expected a version"),
        ("\"v\"}", "\"v\"", "the file ends early"),
        ("\"v\"}", "\"v\"}}", "expected the end of the file, found `}`"),
        ("\"v\"}", "\"v\"} x", "expected the end of the file, found `x`"),
        ("\"v\"}", "\"v\",}", "expected a value, found `}`"),
        ("\"v\"}", "\"v\", \"volume_id\": \"w\"}", "duplicate key \"volume_id\""),
        ("\"v\"}", "\"v\", \"objects\": []}", "duplicate key \"objects\""),
        ("\"v\"}", "\"v\", \"x\": 01}", "expected `,` or `}`, found `1`"),
        ("\"v\"}", "\"v\", \"x\": NaN}", "expected a value, found `N`"),
        ("\"v\"}", "\"v\", \"x\": nul}", "expected a value, found `}`"),
        ("\"v\"}", "\"v\", \"x\": [1 2]}", "expected `,` or `]`, found `2`"),
        ("\"v\"}", "\"v\", \"x\": 1.}", "expected a digit"),
        ("\"v\"}", "\"v\", \"x\": -}", "expected a digit"),
        ("\"v\"}", "\"v\", \"x\": 1e}", "expected a digit"),
        ("\"v\"}", "\"v\", \"x\" 1}", "expected `:`"),
        ("\"v\"}", "\"v\", x: 1}", "expected a name, found `x`"),
        ("\"version\"", "\"other\"", "the key \"version\" is missing"),
        ("\"volume_id\"", "\"other\"", "the key \"volume_id\" is missing"),
        ("\"backup_id\"", "\"other\"", "the key \"backup_id\" is missing"),
        ("\"objects\"", "\"other\"", "the key \"objects\" is missing"),
        ("[{", "{\"x\": {", "expected a list of objects, found `{`"),
        ("[{", "[7, {", "entry 1: expected an object with one name, found `7`"),
        ("[{", "[{}, {", "entry 1: no name"),
        ("}}]", "}, \"q\": {}}]", "entry 1: more than one name"),
        ("}}]", "}}, {}]", "entry 2: no name"),
        ("}}]", "}},]", "expected a value, found `]`"),
        ("\"compression\": \"none\", ", "", "entry 1: the key \"compression\" is missing"),
        ("\"length\": 4, ", "", "entry 1: the key \"length\" is missing"),
        (", \"offset\": 8", "", "entry 1: the key \"offset\" is missing"),
        ("\"md5\"", "\"MD5\"", "entry 1: the key \"md5\" is missing"),
        ("\"offset\": 8", "\"offset\": 8, \"offset\": 8", "duplicate key \"offset\""),
        (": 8", ": -8", "entry 1: the offset is negative at byte"),
        (": 8", ": 8.0", "the offset is not an integer"),
        (": 8", ": 8e3", "the offset is not an integer"),
        (": 8", ": 08", "the offset begins with a zero"),
        (": 8", ": \"8\"", "expected the offset, found `\\\"`"),
        (": 8", ": null", "expected the offset, found `n`"),
        (": 8", ": 18446744073709551616", "the offset is too large"),
        (": 8", ": 18446744073709551615", "an object that ends beyond 2^64 bytes"),
        (": 4", ": 99999999999999999999999999", "the length is too large"),
        ("\"none\"", "\"lzma\"", "the compression \"lzma\", which Cinder does not know"),
        ("\"none\"", "\"\\u001b[2J\"", "the compression \"\\u{1b}[2J\", which Cinder does not know"),
        ("\"none\"", "null", "expected a compression"),
        ("098f", "098", "an MD5 that is not 32 hexadecimal digits"),
        ("098f", "098g", "an MD5 that is not 32 hexadecimal digits"),
    ] {
        let text = small(from, to);
        let error = malformed(read_metadata(text.as_bytes()));
        assert!(error.contains(says), "{text}\n{error}\n{says}");
    }
    for (bytes, says) in [
        (&b""[..], "the file ends early at byte 0"),
        (b"\xef\xbb\xbf{}", "expected an object"),
        (b"<html>", "expected an object, found `<` at byte 0"),
        (b"{\"a\": \"\xff\"}", "text that is not UTF-8"),
        (b"{\"a\": \"\xed\xa0\x80\"}", "text that is not UTF-8"),
        (b"{\"a\": \"\xc0\x80\"}", "text that is not UTF-8"),
        (b"{\"\xff\": 1}", "a name that is not UTF-8"),
        (b"{\"a\": {\"\xe6\xff", "the file ends early"),
        (b"\0\0\0\0", "expected an object, found `\\x00`"),
    ] {
        let error = malformed(read_metadata(bytes));
        assert!(error.contains(says), "{error}\n{says}");
        malformed(read_hashes(bytes));
        malformed(sha256file::count(bytes));
    }
    for cut in 0..SMALL.len() {
        malformed(read_metadata(&SMALL.as_bytes()[..cut]));
    }
}

#[test]
fn a_partly_read_file_has_no_values() {
    let bytes = fixture("zlib/backup-2_metadata");
    let mut seen = 0;
    let head = metadata::read(bytes.as_slice(), &mut |_| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((seen, head.unwrap()), (2, metadata::MetadataHead::default()));
    let bytes = fixture("zlib/backup-2_sha256file");
    let head = sha256file::read_hashes(bytes.as_slice(), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!(head, sha256file::Sha256Head::default());
}

/// Returns a sha256file in Cinder's layout, with this separator between the digests.
fn hashes_file(count: usize, comma: &str) -> String {
    let digests: Vec<String> = (0..count).map(|number| format!("\"{number:064x}\"")).collect();
    format!(
        "{{\n  \"backup_description\": null,\n  \"backup_id\": \"b\",\n  \"backup_name\": \"]\",\n  \"chunk_size\": 32768,\n  \
         \"created_at\": \"c\",\n  \"sha256s\": [\n    {}\n  ],\n  \"version\": \"1.0.0\",\n  \"volume_id\": \"v\"\n}}",
        digests.join(comma)
    )
}

#[test]
fn the_outline_of_a_large_file_needs_only_its_ends() {
    for (count, comma, ends) in [(5000, ",\n    ", true), (20_000, ", \n    ", true), (5001, ",", false), (3, ",\n    ", false)] {
        let text = hashes_file(count, comma);
        let (head, hashes) = read_hashes(text.as_bytes()).unwrap();
        assert_eq!(hashes.len(), count);
        let (found, asked) = outline(text.as_bytes()).unwrap();
        assert_eq!(found, sha256file::Outline { head, hashes: count as u64 });
        assert_eq!(asked <= 128 * 1024, ends || count == 3, "{count} {comma:?} {asked}");
    }
    // A file in another layout is read completely.
    let text = hashes_file(5000, ",\n    ");
    let digest = format!("\"{:064x}\"", 2500);
    for (from, to, hashes) in [
        (digest.as_str(), "\"00\"", None),
        (&format!("{digest},"), "", Some(4999)),
        (&digest, &digest.to_uppercase(), Some(5000)),
        ("\"volume_id\"", "\"sha256s\"", None),
        ("\"v\"\n}", "\"v\"\n} x", None),
        ("\"v\"\n}", "\"]\"\n}", Some(5000)),
        ("\"c\"", "\"sha256s\"", Some(5000)),
        ("32768", "0", None),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text.replacen("\u{0}", "", 1), "{from}");
        let found = outline(changed.as_bytes());
        match hashes {
            Some(hashes) => assert_eq!(found.unwrap().0.hashes, hashes, "{from}"),
            None => {
                malformed(found);
            }
        }
    }
    let failing = sha256file::outline(1 << 40, &mut |_| Err::<&[u8], _>(FormatError::Io(io::Error::other("gone"))));
    assert!(matches!(failing, Err(FormatError::Io(_))));
}

#[test]
fn digests_are_read_strictly() {
    let text = hashes_file(10, ",\n    ");
    let digest = format!("\"{:064x}\"", 5);
    for (from, to, says) in [
        (digest.as_str(), "7", "expected a SHA-256, found `7`"),
        (&digest, "\"\"", "64 hexadecimal digits, found 0 bytes"),
        (&digest, &digest.replace('5', "g"), "of 64 hexadecimal digits"),
        (&digest, &digest.replace("05\"", "050\""), "found 65 bytes"),
        ("[\n", "{\n", "expected a list of digests"),
        ("\"sha256s\"", "\"sha256\"", "the key \"sha256s\" is missing"),
        ("32768", "0", "a block size of 0"),
        ("32768", "-1", "the size of a block is negative"),
        ("\"chunk_size\"", "\"block_size\"", "the key \"chunk_size\" is missing"),
        ("\"version\"", "\"sha256s\"", "duplicate key \"sha256s\""),
        ("\"version\"", "\"backup_id\"", "duplicate key \"backup_id\""),
    ] {
        let error = malformed(read_hashes(text.replacen(from, to, 1).as_bytes()));
        assert!(error.contains(says), "{error}\n{says}");
    }
    let escaped = text.replacen(&digest, &digest.replacen('0', "\\u0030", 1), 1);
    assert_eq!(read_hashes(escaped.as_bytes()).unwrap(), read_hashes(text.as_bytes()).unwrap());
}

/// Returns `start`, then `again` endlessly, and counts the bytes.
struct Endless {
    start: Cursor<Vec<u8>>,
    again: u8,
    taken: Rc<Cell<u64>>,
    limit: u64,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut read = self.start.read(out)?;
        if read == 0 && self.taken.get() < self.limit {
            out.fill(self.again);
            read = out.len();
        }
        self.taken.set(self.taken.get() + read as u64);
        Ok(read)
    }
}

#[test]
fn endless_files_need_little_memory() {
    for (start, again, kept) in [
        ("{\"", b'a', true),
        ("{\"backup_id\": \"", b'a', true),
        ("{\"objects\": [{\"", b'a', true),
        ("{\"objects\": [{\"p\": {\"offset\": ", b'1', true),
        ("{\"sha256s\": [\"", b'0', true),
        ("{\"x\": ", b'[', true),
        ("{\"volume_meta\": \"", b'a', false),
        ("{\"x\": ", b'1', false),
        ("{\"x\": 1.", b'1', false),
        ("{\"x\": 1e", b'1', false),
        ("{", b' ', false),
    ] {
        for hashes in [false, true] {
            if hashes && start.contains("objects") || !hashes && start.contains("sha256s") {
                continue;
            }
            let taken = Rc::new(Cell::new(0));
            let start = Cursor::new(start.as_bytes().to_vec());
            let endless = Endless { start, again, taken: Rc::clone(&taken), limit: 4 << 20 };
            if hashes {
                malformed(read_hashes(endless));
            } else {
                malformed(read_metadata(endless));
            }
            // Kept values are bounded. Skipped ones continue to the end of the object, whose size is known.
            assert_eq!(taken.get() < 1 << 20, kept, "{again} {}", taken.get());
        }
    }
    let deep = |depth: usize| format!("{{\"x\": {}{}, {}", "[".repeat(depth), "]".repeat(depth), &SMALL[1..]);
    assert!(read_metadata(deep(128).as_bytes()).is_ok());
    assert!(malformed(read_metadata(deep(129).as_bytes())).contains("deeper than 128"));
    let objects = |depth: usize| format!("{{\"x\": {}1{}, {}", "{\"a\": [".repeat(depth), "]}".repeat(depth), &SMALL[1..]);
    assert!(read_metadata(objects(64).as_bytes()).is_ok());
    assert!(read_metadata(objects(65).as_bytes()).is_err());
}

#[test]
fn errors_of_the_stream_are_returned() {
    for cut in [0, 1, 100, SMALL.len()] {
        let read = read_metadata(SMALL.as_bytes()[..cut].chain(Broken));
        assert!(matches!(read, Err(FormatError::Io(error)) if error.to_string() == "the disk is broken"), "{cut}");
    }
    let text = hashes_file(10, ",\n");
    let read = read_hashes(text.as_bytes()[..200].chain(Broken));
    assert!(matches!(read, Err(FormatError::Io(error)) if error.to_string() == "the disk is broken"));
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the disk is broken"))
    }
}

#[test]
fn compressions_have_cinders_names() {
    for (name, compression) in [
        ("none", Some(Compression::None)),
        ("off", Some(Compression::None)),
        ("zlib", Some(Compression::Zlib)),
        ("gzip", Some(Compression::Zlib)),
        ("GZIP", Some(Compression::Zlib)),
        ("bz2", Some(Compression::Bz2)),
        ("bzip2", Some(Compression::Bz2)),
        ("zstd", Some(Compression::Zstd)),
        ("lz4", None),
        ("", None),
        (" zlib", None),
    ] {
        assert_eq!(Compression::of(name), compression, "{name}");
    }
}

/// Compresses a part of a volume with every algorithm.
fn stored(content: &[u8]) -> [(Compression, Vec<u8>); 4] {
    use std::io::Write;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(content).unwrap();
    let mut bz2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    bz2.write_all(content).unwrap();
    [
        (Compression::None, content.to_vec()),
        (Compression::Zlib, zlib.finish().unwrap()),
        (Compression::Bz2, bz2.finish().unwrap()),
        (Compression::Zstd, zstd::bulk::compress(content, 3).unwrap()),
    ]
}

fn damaged(compression: Compression, bytes: &[u8], length: u64) -> String {
    let mut out = Vec::new();
    let mut reader = decompress::open(compression, Box::new(bytes), length).unwrap();
    let error = reader.read_to_end(&mut out).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(out.len() as u64 <= length, "{compression:?} gives more than it should");
    // The error persists.
    assert!(reader.read(&mut [0; 16]).is_err());
    error.to_string()
}

#[test]
fn an_object_is_complete_or_damaged() {
    let content: Vec<u8> = (0..200_000_u32).flat_map(|number| (number % 999).to_le_bytes()).collect();
    let length = content.len() as u64;
    for (compression, bytes) in stored(&content) {
        assert_eq!(decompressed(compression, &bytes, length).unwrap(), content);
        assert!(damaged(compression, &bytes, length - 1).contains("longer than the expected 799999 bytes"));
        assert!(damaged(compression, &bytes, 0).contains("longer than the expected 0 bytes"));
        assert!(damaged(compression, &bytes, length + 1).contains("ends after 800000 of 800001 bytes"));
        for cut in [0, 1, 2, 10, bytes.len() / 2, bytes.len() - 9, bytes.len() - 1] {
            let error = damaged(compression, &bytes[..cut], length);
            assert!(error.contains("is truncated") || error.contains("ends after"), "{compression:?} {cut}: {error}");
        }
        for more in [&b"\0"[..], b"\0\0\0\0\0\0\0\0", b"garbage", &bytes] {
            let error = damaged(compression, &[&bytes, more].concat(), length);
            assert!(error.contains("after the end") || error.contains("longer than"), "{compression:?}: {error}");
        }
        // Two streams in a row are an error, even with the right length.
        if compression != Compression::None {
            damaged(compression, &[bytes.as_slice(), &bytes].concat(), 2 * length);
            assert!(damaged(compression, b"", 0).contains("is truncated"));
            damaged(compression, b"<html>not found</html>", length);
        }
    }
    for (compression, bytes) in stored(b"") {
        assert_eq!(decompressed(compression, &bytes, 0).unwrap(), b"", "{compression:?}");
        assert!(damaged(compression, &bytes, 1).contains("ends after 0 of 1 bytes"));
    }
}

#[test]
fn a_flipped_bit_is_detected_by_a_checksum() {
    let content: Vec<u8> = (0..3000_u32).flat_map(|number| (number % 99).to_le_bytes()).collect();
    for (compression, bytes) in stored(&content) {
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            // Without a checksum in the stream only the digest detects it. There is never more than the length, and no panic.
            if let Ok(read) = decompressed(compression, &flipped, content.len() as u64) {
                assert_eq!(read.len(), content.len());
                let unseen = matches!(compression, Compression::None | Compression::Zstd) || read == content;
                assert!(unseen, "{compression:?} at {at}");
            }
        }
    }
}

#[test]
fn a_bomb_returns_no_more_than_its_length() {
    let bomb = vec![0; 64 << 20];
    for (compression, bytes) in stored(&bomb) {
        if compression == Compression::Bz2 || compression == Compression::None {
            continue;
        }
        assert!(damaged(compression, &bytes, 1000).contains("longer than the expected 1000 bytes"));
    }
}

#[test]
fn a_window_larger_than_cinders_is_refused() {
    let content = vec![7; 1 << 20];
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(27)).unwrap();
    io::copy(&mut content.as_slice(), &mut encoder).unwrap();
    let bytes = encoder.finish().unwrap();
    assert!(damaged(Compression::Zstd, &bytes, content.len() as u64).contains("too much memory"));
}

#[test]
fn reading_continues_after_an_error_of_the_reader() {
    /// Fails at intervals.
    struct Hiccups<'a>(&'a [u8], usize);
    impl Read for Hiccups<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                return Err(io::Error::other("hiccup"));
            }
            let part = out.len().min(1000);
            self.0.read(&mut out[..part])
        }
    }
    let content: Vec<u8> = (0..20_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for (compression, bytes) in stored(&content) {
        let mut reader = decompress::open(compression, Box::new(Hiccups(&bytes, 0)), content.len() as u64).unwrap();
        let mut out = Vec::new();
        let mut hiccups = 0;
        let mut buffer = [0; 777];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => out.extend_from_slice(&buffer[..read]),
                Err(error) => {
                    assert_eq!(error.to_string(), "hiccup");
                    hiccups += 1;
                }
            }
        }
        assert!(out == content && hiccups > 5, "{compression:?}");
        // An empty buffer reads nothing, and the end remains.
        assert_eq!(reader.read(&mut []).unwrap(), 0);
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((".*", inner), 0..6).prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

/// A change of a file: a byte set, inserted or removed, a part doubled, the rest removed.
#[derive(Debug, Clone)]
enum Mutation {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Double(usize, usize),
    Cut(usize),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    // Mostly bytes with a meaning in JSON.
    let byte = || prop_oneof![prop::sample::select(br#"{}[]",:\0-.eE9nfub "#.to_vec()), any::<u8>()];
    let one = prop_oneof![
        4 => (any::<usize>(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        2 => (any::<usize>(), byte()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        2 => any::<usize>().prop_map(Mutation::Remove),
        1 => (any::<usize>(), 1..200_usize).prop_map(|(at, length)| Mutation::Double(at, length)),
        1 => any::<usize>().prop_map(Mutation::Cut),
    ];
    prop::collection::vec(one, 1..6)
}

fn mutate(bytes: &mut Vec<u8>, mutations: &[Mutation]) {
    for mutation in mutations {
        let size = bytes.len().max(1);
        match *mutation {
            Mutation::Set(at, byte) => {
                if let Some(old) = bytes.get_mut(at % size) {
                    *old = byte;
                }
            }
            Mutation::Insert(at, byte) => bytes.insert(at % size % (bytes.len() + 1), byte),
            Mutation::Remove(at) => {
                if !bytes.is_empty() {
                    bytes.remove(at % size);
                }
            }
            Mutation::Double(at, length) => {
                let from = (at % size).min(bytes.len());
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                bytes.splice(from..from, piece);
            }
            Mutation::Cut(at) => bytes.truncate(at % size),
        }
    }
}

/// Returns `None` for half of a surrogate pair, which Python and this parser accept in skipped values, and serde_json does not.
fn as_serde_json_reads(bytes: &[u8]) -> Option<Value> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(error.to_string().contains("surrogate") || error.to_string().contains("hex escape"), "{error}");
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any value under an unknown key is skipped.
    #[test]
    fn any_value_is_skipped(value in any_json(), key in ".*", pretty: bool) {
        prop_assume!(!["version", "backup_id", "volume_id", "parent_id", "created_at", "objects"].contains(&key.as_str()));
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let key = serde_json::to_string(&key).unwrap();
        let (head, entries) = read_metadata(SMALL.as_bytes()).unwrap();
        let with = format!("{{{key}: {text}, {}", &SMALL[1..]);
        prop_assert_eq!(read_metadata(with.as_bytes()).unwrap(), (head, entries));
    }

    /// Any list is read as it was written.
    #[test]
    fn lists_are_read_as_written(
        names in prop::collection::vec((".*", any::<u32>(), any::<u32>(), any::<[u8; 16]>(), 0..4_usize), 0..20),
        ids in (".*", ".*", ".*", proptest::option::of(".*")),
        pretty: bool,
    ) {
        let words = ["none", "zlib", "bz2", "zstd"];
        let objects: Vec<Value> = names.iter().map(|(name, offset, length, md5, word)| {
            serde_json::json!({ name: {"offset": offset, "length": length, "compression": words[*word], "md5": crate::domain::hex::encode(md5)} })
        }).collect();
        let (version, backup_id, volume_id, parent_id) = ids;
        let value = serde_json::json!({
            "objects": objects, "parent_id": parent_id, "version": version, "volume_id": volume_id, "backup_id": backup_id, "volume_meta": null,
        });
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let (head, entries) = read_metadata(Drip(text.as_bytes(), true)).unwrap();
        prop_assert_eq!((head.version, head.backup_id, head.volume_id, head.parent_id), (version, backup_id, volume_id, parent_id));
        prop_assert_eq!(entries.len(), names.len());
        for (entry, (name, offset, length, md5, word)) in entries.iter().zip(&names) {
            prop_assert_eq!((&entry.name, entry.offset, entry.length, &entry.md5), (name, u64::from(*offset), u64::from(*length), md5));
            prop_assert_eq!(entry.compression.name(), words[*word]);
        }
    }

    /// A changed file is read as serde_json reads it, or refused.
    #[test]
    fn a_changed_list_is_never_misread(which in 0..8_usize, mutations in mutations()) {
        let folder = ["none", "zlib", "bz2", "zstd"][which / 2];
        let mut bytes = fixture(&format!("{folder}/backup-{}_metadata", which % 2 + 1));
        mutate(&mut bytes, &mutations);
        if let Ok((head, entries)) = read_metadata(bytes.as_slice()) {
            let Some(value) = as_serde_json_reads(&bytes) else { return Ok(()) };
            prop_assert_eq!(value["version"].as_str(), Some(head.version.as_str()));
            prop_assert_eq!(value["backup_id"].as_str(), Some(head.backup_id.as_str()));
            prop_assert_eq!(value["volume_id"].as_str(), Some(head.volume_id.as_str()));
            prop_assert_eq!(value["parent_id"].as_str(), head.parent_id.as_deref());
            let objects = value["objects"].as_array().unwrap();
            prop_assert_eq!(objects.len(), entries.len());
            for (object, entry) in objects.iter().zip(&entries) {
                let known = &object[&entry.name];
                prop_assert_eq!(known["offset"].as_u64(), Some(entry.offset));
                prop_assert_eq!(known["length"].as_u64(), Some(entry.length));
                let md5 = known["md5"].as_str().unwrap().to_lowercase();
                prop_assert_eq!(md5, crate::domain::hex::encode(&entry.md5));
                prop_assert_eq!(Compression::of(known["compression"].as_str().unwrap()), Some(entry.compression));
            }
        }
    }

    /// The same for digests. The outline agrees with the file.
    #[test]
    fn changed_digests_are_never_misread(large: bool, mutations in mutations()) {
        let mut bytes = if large { hashes_file(2000, ",\n    ").into_bytes() } else { fixture("none/backup-1_sha256file") };
        mutate(&mut bytes, &mutations);
        let read = read_hashes(bytes.as_slice());
        let outlined = outline(&bytes);
        if let Ok((head, hashes)) = read {
            let Some(value) = as_serde_json_reads(&bytes) else { return Ok(()) };
            prop_assert_eq!(value["chunk_size"].as_u64(), Some(head.block_size));
            let digests = value["sha256s"].as_array().unwrap();
            prop_assert_eq!(digests.len(), hashes.len());
            for (digest, hash) in digests.iter().zip(&hashes) {
                prop_assert_eq!(digest.as_str().unwrap().to_lowercase(), crate::domain::hex::encode(hash));
            }
            let (outlined, _) = outlined.unwrap();
            prop_assert_eq!(&outlined.head, &head);
            prop_assert_eq!(outlined.hashes, hashes.len() as u64);
        }
    }

    /// A changed object is damaged, or has the right length, and its digest decides.
    #[test]
    fn changed_objects_are_damaged_or_have_their_length(which in 0..4_usize, mutations in mutations()) {
        let folder = ["none", "zlib", "bz2", "zstd"][which];
        let mut bytes = fixture(&format!("{folder}/backup-1-00002"));
        mutate(&mut bytes, &mutations);
        let compression = Compression::of(folder).unwrap();
        if let Ok(read) = decompressed(compression, &bytes, 8192) {
            prop_assert_eq!(read.len(), 8192);
        }
    }
}
