//! A storage that others can write to: a check of any content ends with a verdict or an error, in bounded time and memory, and reads
//! nothing outside of the container.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

use super::{CHUNK, OBJECTS, Placed, Site, problems, result};
use crate::program::Answer;
use crate::servers::is_root;

/// The most memory that a check may need: `--memory` and what is not counted in it.
const MOST_MEMORY: u64 = 600 << 20;
const MOST_TIME: Duration = Duration::from_secs(120);

/// Runs a command within these limits; returns its answer and its peak memory in bytes.
#[track_caller]
fn bounded(mut command: Command) -> (Answer, u64) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    let (begun, mut peak) = (Instant::now(), 0);
    let code = loop {
        peak = peak.max(memory(&child));
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if begun.elapsed() > MOST_TIME {
            child.kill().unwrap();
            panic!("it does not end: {}", String::from_utf8_lossy(&stderr.join().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let answer = Answer { code, stdout: text(stdout.join().unwrap()), stderr: text(stderr.join().unwrap()) };
    assert!(!answer.stderr.contains("panicked"), "{}", answer.stderr);
    assert!(peak < MOST_MEMORY, "{} MiB", peak >> 20);
    (answer, peak)
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// The peak memory of a process in bytes; 0 once it has ended.
fn memory(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Checks all stuck backups at a level, within the limits.
#[track_caller]
fn check_all(site: &Site, level: &str) -> Value {
    check_with(site, &["--level", level])
}

#[track_caller]
fn check_with(site: &Site, args: &[&str]) -> Value {
    let (answer, _) = bounded(site.program.command(&[&["check", "-f", "json"], args].concat()));
    assert!([Some(0), Some(4), Some(9)].contains(&answer.code), "{:?} {}", answer.code, answer.stderr);
    answer.json()
}

/// A file outside of every container that must not be read: its access time is old.
struct Decoy(PathBuf);

impl Decoy {
    fn new(path: PathBuf, bytes: &[u8]) -> Self {
        fs::write(&path, bytes).unwrap();
        let then = std::time::SystemTime::now() - Duration::from_secs(100_000);
        File::options().write(true).open(&path).unwrap().set_times(fs::FileTimes::new().set_accessed(then).set_modified(then)).unwrap();
        Self(path)
    }

    #[track_caller]
    fn is_untouched(&self) {
        let metadata = fs::metadata(&self.0).unwrap();
        assert_eq!(metadata.atime(), metadata.mtime(), "{} was read", self.0.display());
    }
}

/// A named pipe: opening it for reading would block for ever.
fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
}

fn rename_in_list(placed: &Placed, number: usize, name: &str) {
    let old = placed.object(number).file_name().unwrap().to_str().unwrap().to_owned();
    let new = serde_json::to_string(name).unwrap();
    placed.edit(&placed.metadata(), |text| text.replace(&format!("\"{old}\""), &new));
}

#[test]
fn names_in_the_metadata_cannot_leave_the_container() {
    let site = Site::new();
    let mut decoys = Vec::new();
    let all: Vec<(Placed, String)> =
        ["../decoy", "/etc/passwd", "../../../decoy", "", ".", "..", "x/../../decoy", "\u{1b}]0;title\u{7}\n", "a\0b"]
            .iter()
            .map(|name| {
                let placed = site.creating();
                rename_in_list(&placed, 2, name);
                (placed, (*name).to_owned())
            })
            .collect();
    // The files that the names point to exist; one of them is a pipe.
    for (placed, _) in &all {
        decoys.push(Decoy::new(placed.dir.parent().unwrap().join("decoy"), b"secret"));
    }
    pipe(&site.store.root.join("decoy"));
    // The name of another backup's object.
    let other = site.creating();
    let foreign = site.creating();
    rename_in_list(&foreign, 2, other.object(2).file_name().unwrap().to_str().unwrap());
    // An object number with too many digits, and one that is too large for any integer.
    let long = site.creating();
    rename_in_list(&long, 2, &format!("{}-0000002", long.prefix()));
    let large = site.creating();
    rename_in_list(&large, 2, &format!("{}-99999999999999999999999", large.prefix()));
    for args in [&["--level", "quick"] as &[&str], &["--level", "deep", "--read-data-subset", "2/16"], &["--level", "restore"]] {
        let document = check_with(&site, args);
        for placed in all.iter().map(|(placed, _)| placed).chain([&foreign, &long, &large]) {
            let found = result(&document, &placed.id);
            assert!(["corrupt", "incomplete"].contains(&found["verdict"].as_str().unwrap()), "{found:#}");
            assert!(problems(found).contains(&"object-foreign"), "{found:#}");
        }
        decoys.iter().for_each(Decoy::is_untouched);
    }
    // Whether this file system records access times at all.
    let control = Decoy::new(site.path("control").into(), b"x");
    fs::read(&control.0).unwrap();
    let metadata = fs::metadata(&control.0).unwrap();
    println!("access times are recorded: {}", metadata.atime() != metadata.mtime());
}

#[test]
fn links_pipes_devices_and_directories_are_not_objects() {
    let site = Site::new();
    let decoy = Decoy::new(site.path("outside").into(), &vec![b'x'; 9_000]);
    type Put<'a> = Box<dyn Fn(&Path) + 'a>;
    let mut kinds: Vec<(&str, Put<'_>)> = vec![
        ("a link to the outside", Box::new(|path| symlink(&decoy.0, path).unwrap())),
        ("a link to nothing", Box::new(|path| symlink("nothing", path).unwrap())),
        ("a link to itself", Box::new(|path| symlink(path.file_name().unwrap(), path).unwrap())),
        ("a link to zeros", Box::new(|path| symlink("/dev/zero", path).unwrap())),
        ("a pipe", Box::new(pipe)),
        ("a directory", Box::new(|path| fs::create_dir(path).unwrap())),
        ("a socket", Box::new(|path| drop(UnixListener::bind(path).or_else(|_| short_bind(path)).unwrap()))),
    ];
    if is_root() {
        let device = |path: &Path| mknodat(CWD, path, FileType::CharacterDevice, Mode::from(0o600), makedev(1, 5)).unwrap();
        kinds.push(("an endless device", Box::new(device)));
    }
    let mut placed = Vec::new();
    for (kind, put) in &kinds {
        for what in ["object", "metadata", "sha256file"] {
            let backup = site.creating();
            let path = match what {
                "object" => backup.object(5),
                "metadata" => backup.metadata(),
                _ => backup.sha256file(),
            };
            fs::remove_file(&path).unwrap();
            put(&path);
            placed.push((format!("{kind} for {what}"), backup));
        }
    }
    for (level, share) in [("quick", &[] as &[&str]), ("deep", &["--read-data-subset", "5/16"])] {
        let document = check_with(&site, &[&["--level", level], share].concat());
        for (what, backup) in &placed {
            let found = result(&document, &backup.id);
            // Cinder would follow a link. Its target was not read.
            let is_link = what.starts_with("a link");
            let wanted: &[&str] = if is_link { &["unverifiable"] } else { &["corrupt", "incomplete"] };
            assert!(wanted.contains(&found["verdict"].as_str().unwrap()), "{what} {found:#}");
            let text = if is_link { "is a symbolic link, which is not followed" } else { "and not a regular file; it is not read" };
            assert!(found["problems"].to_string().contains(text), "{what} {found:#}");
        }
        decoy.is_untouched();
    }
}

/// Makes a socket with a short path and moves it, because the path of a socket must not be long.
fn short_bind(path: &Path) -> std::io::Result<UnixListener> {
    let short = std::env::temp_dir().join(format!("s-{}", uuid::Uuid::new_v4().simple()));
    let listener = UnixListener::bind(&short)?;
    fs::rename(short, path)?;
    Ok(listener)
}

#[test]
fn containers_and_prefixes_cannot_leave_the_directory() {
    let site = Site::new();
    let outside = site.creating();
    // A complete backup beside the store, which the rows of other backups point to.
    let beside = format!("{}-beside", site.store.root.display());
    fs::create_dir(&beside).unwrap();
    for entry in fs::read_dir(&outside.dir).unwrap().flatten() {
        fs::copy(entry.path(), Path::new(&beside).join(entry.file_name())).unwrap();
    }
    let name = Path::new(&beside).file_name().unwrap().to_str().unwrap().to_owned();
    let set = |placed: &Placed, column: &str, value: &str| {
        site.database.execute(&format!("UPDATE backups SET {column} = '{value}' WHERE id = '{}'", placed.id));
    };
    let mut wrong = Vec::new();
    for container in [
        format!("../{name}"),
        beside.clone(),
        "..".to_owned(),
        "/".to_owned(),
        ".".to_owned(),
        format!("ab/../../{name}"),
        "x\n\u{1b}[2J".to_owned(),
        "y".repeat(5_000),
    ] {
        let placed = site.creating();
        set(&placed, "container", &container);
        wrong.push((container, placed));
    }
    // A directory above the container is a link.
    let linked = site.creating();
    let first = site.store.root.join(&linked.id[..2]);
    fs::rename(&first, site.store.root.join("moved")).unwrap();
    symlink(site.store.root.join("moved"), &first).unwrap();
    wrong.push(("a link".to_owned(), linked));
    let itself = site.creating();
    fs::remove_dir_all(&itself.dir).unwrap();
    symlink(&beside, &itself.dir).unwrap();
    wrong.push(("the container is a link".to_owned(), itself));
    for prefix in [
        format!("../../../../{name}/{}", outside.prefix()),
        format!("{beside}/{}", outside.prefix()),
        "/".to_owned(),
        "..".to_owned(),
        "\u{1b}[31m\r\n".to_owned(),
        "p".repeat(9_000),
        "a/b/".to_owned(),
    ] {
        let placed = site.creating();
        set(&placed, "service_metadata", &prefix);
        wrong.push((prefix, placed));
    }
    let document = check_all(&site, "deep");
    for (what, placed) in &wrong {
        let found = result(&document, &placed.id);
        let verdict = found["verdict"].as_str().unwrap();
        assert!(["corrupt", "incomplete", "missing", "unverifiable"].contains(&verdict), "{what:?} {found:#}");
        // Nothing was read, so nothing was proven.
        let refused = found["problems"].to_string().contains("not looked") || problems(found).contains(&"not-followed");
        assert!(!refused || verdict == "unverifiable" || problems(found).contains(&"prefix-of-another"), "{what:?} {found:#}");
        assert!(refused || !what.contains("../") && !what.contains("link") && !what.starts_with('/'), "{what:?} {found:#}");
        assert!(!found["problems"].as_array().unwrap().is_empty(), "{what:?} {found:#}");
    }
    assert_eq!(result(&document, &outside.id)["verdict"], "intact");
    fs::remove_dir_all(beside).unwrap();
}

#[test]
fn names_cannot_control_the_terminal() {
    let site = Site::new();
    let bad = "\u{1b}]0;owned\u{7}\u{9b}31m\r\n\u{202e}=cmd|'/c calc'!A1";
    let named = site.creating();
    rename_in_list(&named, 2, bad);
    let row = site.creating();
    for column in ["display_name", "service_metadata"] {
        site.database.execute(&format!(
            "UPDATE backups SET {column} = {} WHERE id = '{}'",
            crate::rows::quote(site.database.engine(), bad),
            row.id
        ));
    }
    let vendor = site.creating();
    site.database.execute(&format!(
        "UPDATE backups SET service = {} WHERE id = '{}'",
        crate::rows::quote(site.database.engine(), bad),
        vendor.id
    ));
    let listed = site.creating();
    fs::write(listed.dir.join(OsStr::from_bytes(format!("{}-{bad}", listed.prefix()).replace('/', "_").as_bytes())), "x").unwrap();
    fs::write(listed.dir.join(OsStr::from_bytes(&[listed.prefix().as_bytes(), b"-\xff\xfe\x1b[2J"].concat())), "x").unwrap();
    let sided = site.creating();
    sided.edit(&sided.metadata(), |text| text.replace(&sided.id, "\\u001b[31m\\u0007"));
    sided.edit(&sided.sha256file(), |text| text.replace(&sided.id, "\\u001b[31m\\u0007"));
    let typed = site.creating();
    typed.edit(&typed.metadata(), |text| text.replacen("\"zlib\"", "\"\\u001b[31mlzma\"", 1));
    for format in ["table", "csv", "value", "yaml", "json"] {
        for extra in [&["-v", "-v"] as &[&str], &[]] {
            let answer = site.program.expect(9, &[&["check", "-f", format], extra].concat());
            let strange =
                |text: &str| text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}').map(|c| format!("{c:?} in {text}"));
            assert_eq!(strange(&answer.stderr), None, "{format}");
            // CSV and values are for programs: text is unchanged except for control characters.
            assert_eq!(strange(&answer.stdout), None, "{format}");
        }
    }
    let answer = site.program.run(&["repair", "--yes", "--dry-run", "--check", "quick", "-v"]);
    assert!(!answer.stderr.contains('\u{1b}') && !answer.stdout.contains('\u{1b}'), "{}", answer.stderr);
    let report = site.path("report.md");
    site.program.run(&["plan", "--check", "quick", "--report", &report]);
    assert!(!fs::read_to_string(&report).unwrap().contains('\u{1b}'));
    site.program.expect(4, &["repair", "--yes", "--check", "quick", "--assume-dead", "ctl1"]);
    let reasons: Vec<_> =
        site.database.query("SELECT fail_reason FROM backups WHERE fail_reason IS NOT NULL").into_iter().flatten().flatten().collect();
    assert!(reasons.len() == 4 && !reasons.iter().any(|reason| reason.chars().any(char::is_control)), "{reasons:?}");
}

#[test]
fn malformed_side_files_are_reported() {
    let site = Site::new();
    let number = |key: &str, value: &str| {
        let (key, value) = (key.to_owned(), value.to_owned());
        move |text: String| {
            let at = text.find(&format!("\"{key}\": ")).unwrap() + key.len() + 4;
            let end = at + text[at..].find([',', '\n']).unwrap();
            format!("{}{value}{}", &text[..at], &text[end..])
        }
    };
    type Change = Box<dyn FnOnce(String) -> String>;
    let metadata: Vec<(&str, Change)> = vec![
        ("empty", Box::new(|_| String::new())),
        ("null", Box::new(|_| "null".to_owned())),
        ("a list", Box::new(|_| "[]".to_owned())),
        ("an empty object", Box::new(|_| "{}".to_owned())),
        ("cut", Box::new(|text| text[..text.len() / 2].to_owned())),
        ("with a tail", Box::new(|text| text + "{}")),
        ("twice", Box::new(|text| text.clone() + &text)),
        ("deep", Box::new(|text| text.replacen('{', &format!("{{\"x\": {}1{}, ", "[".repeat(100_000), "]".repeat(100_000)), 1))),
        ("deep without an end", Box::new(|_| "[".repeat(3_000_000))),
        ("a huge key", Box::new(|text| text.replacen('{', &format!("{{\"{}\": 1, ", "k".repeat(30_000_000)), 1))),
        (
            "a huge text",
            Box::new(|text| text.replacen("\"backup_name\": null", &format!("\"backup_name\": \"{}\"", "n".repeat(30_000_000)), 1) + " "),
        ),
        (
            "a huge id",
            Box::new(|text| {
                let at = text.find("\"backup_id\": \"").unwrap() + 14;
                format!("{}{}{}", &text[..at], "i".repeat(1_000_000), &text[at..])
            }),
        ),
        ("a huge number", Box::new(number("offset", &"9".repeat(1_000_000)))),
        ("negative", Box::new(number("offset", "-1"))),
        ("negative length", Box::new(number("length", "-1"))),
        ("overflowing", Box::new(number("offset", "18446744073709551615"))),
        ("beyond 64 bits", Box::new(number("length", "18446744073709551616"))),
        ("a fraction", Box::new(number("length", "1.5"))),
        ("infinite", Box::new(number("length", "1e999"))),
        ("a text for a number", Box::new(number("length", "\"67108864\""))),
        ("a number for a text", Box::new(number("md5", "1"))),
        ("an odd digest", Box::new(number("md5", "\"xyz\""))),
        ("an unknown compression", Box::new(number("compression", "\"lzma\""))),
        ("no version", Box::new(|text| text.replace("\"version\"", "\"revision\""))),
        ("a later version", Box::new(|text| text.replace("\"1.0.0\"", "\"2.0.0\""))),
        ("objects twice", Box::new(|text| text.replacen('{', "{\"objects\": [], ", 1))),
        ("an id twice", Box::new(|text| text.replacen('{', "{\"backup_id\": \"x\", ", 1))),
        ("objects as an object", Box::new(number("objects", "{}, \"x\": ["))),
        ("an entry with two names", Box::new(|text| text.replacen("\"objects\": [\n    {", "\"objects\": [\n    {\"a\": {}, ", 1))),
        ("entries without anything", Box::new(|text| text.replacen("\"objects\": [", "\"objects\": [{}, {}, ", 1))),
        (
            "an entry twice",
            Box::new(|text| {
                let mut document: Value = serde_json::from_str(&text).unwrap();
                let first = document["objects"][0].clone();
                document["objects"].as_array_mut().unwrap().push(first);
                document.to_string()
            }),
        ),
        (
            "no entries",
            Box::new(|text| {
                let mut document: Value = serde_json::from_str(&text).unwrap();
                document["objects"] = json!([]);
                document.to_string()
            }),
        ),
        ("huge lengths", Box::new(|text| text.replace(&format!("\"length\": {CHUNK}"), "\"length\": 9223372036854775807"))),
        ("a NUL", Box::new(|text| text.replacen(' ', "\0", 1))),
        ("a byte order mark", Box::new(|text| format!("\u{feff}{text}x"))),
        ("another parent", Box::new(|text| text.replace("\"parent_id\": null", "\"parent_id\": \"x\""))),
    ];
    let mut all: Vec<(String, Placed)> = Vec::new();
    for (what, change) in metadata {
        let placed = site.creating();
        placed.edit(&placed.metadata(), change);
        all.push((format!("metadata: {what}"), placed));
    }
    let sha256file: Vec<(&str, Change)> = vec![
        ("empty", Box::new(|_| String::new())),
        ("cut", Box::new(|text| text[..text.len() / 2].to_owned())),
        ("with a tail", Box::new(|text| text + "x")),
        ("block size 0", Box::new(number("chunk_size", "0"))),
        ("block size 1", Box::new(number("chunk_size", "1"))),
        ("a huge block size", Box::new(number("chunk_size", "9223372036854775808"))),
        ("a block size beyond 64 bits", Box::new(number("chunk_size", "18446744073709551616"))),
        ("a negative block size", Box::new(number("chunk_size", "-32768"))),
        (
            "no digests",
            Box::new(|text| {
                let mut document: Value = serde_json::from_str(&text).unwrap();
                document["sha256s"] = json!([]);
                document.to_string()
            }),
        ),
        ("odd digests", Box::new(|text| text.replacen("\"sha256s\": [", "\"sha256s\": [\"x\", ", 1))),
        ("one digest more", Box::new(|text| text.replacen("\"sha256s\": [", &format!("\"sha256s\": [\"{}\", ", "0".repeat(64)), 1))),
        ("digests as an object", Box::new(|text| text.replace('[', "{").replace(']', "}"))),
        ("deep", Box::new(|text| text.replacen('{', &format!("{{\"x\": {}1{}, ", "[".repeat(100_000), "]".repeat(100_000)), 1))),
    ];
    for (what, change) in sha256file {
        let placed = site.creating();
        placed.edit(&placed.sha256file(), change);
        all.push((format!("sha256file: {what}"), placed));
    }
    for (file, bytes) in [("metadata", b"{\"version\": \"\xff\xfe\"}" as &[u8]), ("sha256file", b"\x80\x81")] {
        let placed = site.creating();
        let path = if file == "metadata" { placed.metadata() } else { placed.sha256file() };
        fs::write(path, bytes).unwrap();
        placed.settle();
        all.push((format!("{file}: no UTF-8"), placed));
    }
    let mut harmless = Vec::new();
    for args in [&["--level", "quick"] as &[&str], &["--level", "deep", "--read-data-subset", "1/16"]] {
        let document = check_with(&site, args);
        for (what, placed) in &all {
            let found = result(&document, &placed.id);
            let verdict = found["verdict"].as_str().unwrap();
            assert!(verdict != "unverifiable", "{what}: {found:#}");
            if verdict == "intact" {
                harmless.push(what.as_str());
            } else {
                let text = found["problems"][0]["text"].as_str().unwrap();
                assert!(text.len() < 1_000, "{what}: a text of {} bytes", text.len());
            }
        }
    }
    // The length of a name is not limited.
    harmless.dedup();
    assert_eq!(harmless, ["metadata: a huge text"]);
}

/// A Zstandard frame of a few bytes for every 128 KiB of zeros.
fn zstd_bomb(blocks: usize) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    for block in 1..=blocks {
        // A block that repeats one byte 131 072 times.
        let header = (131_072_u32 << 3) | (1 << 1) | u32::from(block == blocks);
        bytes.extend(&header.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}

#[test]
fn endless_decompression_stops_at_the_stated_length() {
    let site = Site::new();
    let bomb = site.creating();
    bomb.edit(&bomb.metadata(), |text| text.replacen("\"zlib\"", "\"zstd\"", 1));
    // 100 GiB.
    fs::write(bomb.object(1), zstd_bomb(800_000)).unwrap();
    bomb.settle();
    // It is as long as the metadata states.
    let honest = site.creating();
    honest.edit(&honest.metadata(), |text| text.replacen("\"zlib\"", "\"zstd\"", 1));
    fs::write(honest.object(1), zstd_bomb(512)).unwrap();
    let window = site.creating();
    window.edit(&window.metadata(), |text| text.replacen("\"zlib\"", "\"zstd\"", 1));
    let mut bytes = zstd_bomb(512);
    // A window of 2 GiB.
    bytes[5] = 0xa8;
    fs::write(window.object(1), bytes).unwrap();
    [&honest, &window].into_iter().for_each(Placed::settle);
    let begun = Instant::now();
    let document = check_all(&site, "deep");
    assert!(begun.elapsed() < Duration::from_secs(60));
    let found = result(&document, &bomb.id);
    assert_eq!((&found["verdict"], problems(found)), (&json!("corrupt"), vec!["object-broken"]), "{found:#}");
    // The first object holds one byte that is not zero.
    let found = result(&document, &honest.id);
    assert_eq!((&found["verdict"], problems(found)), (&json!("corrupt"), vec!["block-differs"]), "{found:#}");
    let found = result(&document, &window.id);
    assert!(["corrupt", "unverifiable"].contains(&found["verdict"].as_str().unwrap()), "{found:#}");
}

#[test]
fn huge_sparse_files_are_checked_in_bounded_memory() {
    let site = Site::new();
    let grow = |path: &Path, bytes: u64| File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
    let (sha256file, middle, metadata, object) = (site.creating(), site.creating(), site.creating(), site.creating());
    grow(&sha256file.sha256file(), 5 << 30);
    // Both ends are valid, with a hole between them.
    let bytes = fs::read(middle.sha256file()).unwrap();
    grow(&middle.sha256file(), 5 << 30);
    let file = File::options().write(true).open(middle.sha256file()).unwrap();
    file.write_all_at(&bytes[100_000..], (5 << 30) - (bytes.len() as u64 - 100_000)).unwrap();
    file.write_all_at(&vec![0; bytes.len() - 100_000], 100_000).unwrap();
    grow(&metadata.metadata(), 5 << 30);
    grow(&object.object(1), 5 << 30);
    for placed in [&sha256file, &middle, &metadata, &object] {
        placed.settle();
    }
    for level in ["quick", "deep"] {
        let begun = Instant::now();
        let document = check_all(&site, level);
        for placed in [&sha256file, &middle, &metadata, &object] {
            assert_eq!(result(&document, &placed.id)["verdict"], "corrupt", "{:#}", result(&document, &placed.id));
        }
        // Reading them byte by byte would take an hour.
        assert!(begun.elapsed() < Duration::from_secs(600), "{level}: {:?}", begun.elapsed());
    }
}

#[test]
fn a_list_that_goes_far_beyond_the_volume_is_not_read() {
    let site = Site::new();
    let placed = site.creating();
    // A sparse file of 1 TiB, which a disk would need an hour to read.
    let tera: u64 = 1 << 40;
    placed.edit(&placed.metadata(), |text| {
        let last = format!("{}-{:05}", placed.prefix(), OBJECTS);
        let mut document: Value = serde_json::from_str(&text).unwrap();
        let entry = &mut document["objects"][OBJECTS - 1][&last];
        (entry["length"], entry["compression"]) = (json!(tera), json!("none"));
        document.to_string()
    });
    File::create(placed.object(OBJECTS)).unwrap().set_len(tera).unwrap();
    placed.settle();
    let begun = Instant::now();
    for level in ["quick", "deep", "restore"] {
        let document = check_all(&site, level);
        let found = result(&document, &placed.id);
        assert_eq!(found["verdict"], "corrupt", "{level} {found:#}");
        assert!(problems(found).contains(&"beyond-volume"), "{level} {found:#}");
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn thousands_of_extra_objects_are_counted() {
    let site = Site::new();
    let placed = site.creating();
    for number in 17..12_000 {
        File::create(placed.object(number)).unwrap();
    }
    placed.settle();
    let begun = Instant::now();
    let document = check_all(&site, "quick");
    let found = result(&document, &placed.id);
    assert_eq!((&found["verdict"], problems(found)), (&json!("corrupt"), vec!["more", "object-extra"]), "{found:#}");
    assert_eq!(found["objects"]["checked"], 11_999);
    let list = found["problems"].as_array().unwrap();
    assert_eq!((list.len(), &list[1_000]["text"]), (1_001, &json!("10983 more problems are not listed")));
    let answer = site.program.expect(9, &["check"]);
    assert!(answer.stderr.lines().count() < 40 && answer.stderr.contains("-v shows all"), "{}", answer.stderr);
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_long_chain_needs_few_open_files() {
    let site = Site::new();
    let mut parent = site.available();
    for _ in 0..60 {
        parent = site.backup("available", Some(&parent));
    }
    let tip = site.backup("creating", Some(&parent));
    let program = site.program.command(&["check", "--all", "-f", "json"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 48; exec \"$0\" \"$@\""]).arg(program.get_program()).args(program.get_args());
    command.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (answer, _) = bounded(command);
    assert_eq!(answer.code, Some(0), "{}\n{}", answer.stdout, answer.stderr);
    assert_eq!(result(&answer.json(), &tip.id)["chain"].as_array().unwrap().len(), 62);
}

#[test]
fn a_circular_chain_is_reported() {
    let site = Site::new();
    let first = site.available();
    let second = site.backup("creating", Some(&first));
    let own = site.backup("creating", Some(&first));
    let point = |placed: &Placed, parent: &str| {
        site.database.execute(&format!("UPDATE backups SET parent_id = '{parent}' WHERE id = '{}'", placed.id))
    };
    point(&first, &second.id);
    point(&own, &own.id);
    for level in ["quick", "restore"] {
        let document = check_all(&site, level);
        for placed in [&second, &own] {
            let found = result(&document, &placed.id);
            assert!(["corrupt", "incomplete"].contains(&found["verdict"].as_str().unwrap()), "{found:#}");
            assert!(found["problems"].to_string().contains("leads back to backup"), "{found:#}");
        }
    }
}
