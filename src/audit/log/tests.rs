use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::super::chain::LogProblemCode;
use super::super::read::{read, verify};
use super::super::record::Torn;
use super::super::tests::samples;
use super::*;
use crate::domain::Outcome;

fn now() -> String {
    "2026-11-22T18:46:33Z".to_owned()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    (directory, path)
}

fn written(path: &Path, events: Vec<Event>) -> Head {
    let mut log = AuditLog::open(path, now).unwrap();
    events.into_iter().for_each(|event| log.append("run", event).unwrap());
    log.sync().unwrap();
    log.head.clone()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn refusal(path: &Path) -> String {
    match AuditLog::open(path, now).unwrap_err() {
        AuditError::NotPrivate { what, .. } => what,
        other => other.to_string(),
    }
}

#[test]
fn what_is_written_can_be_read_and_verified() {
    let (_directory, path) = place();
    let first = written(&path, samples::events());
    let second = written(&path, samples::events());
    assert_eq!((first.seq, second.seq), (5, 10));
    let records: Vec<Record> = read(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.iter().map(|record| record.event.clone()).collect::<Vec<_>>(), [samples::events(), samples::events()].concat());
    assert!(records.iter().all(|record| record.at == now() && record.run == "run"));
    let report = verify(&path, None).unwrap();
    assert!(report.is_intact());
    assert_eq!((report.records, report.last, report.is_unfinished), (10, second, false));
}

#[test]
fn only_sync_writes() {
    let (_directory, path) = place();
    let mut log = AuditLog::open(&path, now).unwrap();
    log.append("run", samples::intent(1)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
    log.sync().unwrap();
    let content = fs::read(&path).unwrap();
    assert!(content.ends_with(b"\n"));
    log.sync().unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[test]
fn what_is_flushed_outlives_the_writer_and_is_synced_later() {
    struct Counting(Arc<Mutex<Vec<&'static str>>>);
    impl Sink for Counting {
        fn write_all(&mut self, _: &[u8]) -> io::Result<()> {
            self.0.lock().unwrap().push("write");
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            self.0.lock().unwrap().push("sync");
            Ok(())
        }
    }
    let calls = Arc::new(Mutex::new(Vec::new()));
    let mut log = AuditLog::with_sink(Path::new("x"), Head::default(), Box::new(Counting(Arc::clone(&calls))), now);
    log.flush().unwrap();
    log.append("run", samples::intent(1)).unwrap();
    log.flush().unwrap();
    assert_eq!(*calls.lock().unwrap(), ["write"]);
    log.sync().unwrap();
    log.sync().unwrap();
    assert_eq!(*calls.lock().unwrap(), ["write", "sync"]);
}

#[test]
fn file_and_directories_are_made_for_the_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/cinder/audit.jsonl");
    written(&path, samples::events());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&directory.path().join("state/cinder")), 0o700);
    assert_eq!(mode(&directory.path().join("state")), 0o700);
}

#[test]
fn what_others_may_write_is_refused() {
    let (_directory, path) = place();
    written(&path, samples::events());
    for (bits, accepted) in [(0o600, true), (0o640, true), (0o644, true), (0o620, false), (0o602, false), (0o666, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        let opened = AuditLog::open(&path, now);
        assert_eq!(opened.is_ok(), accepted, "{bits:o}");
        if let Err(error) = opened {
            assert!(error.to_string().contains(&format!("mode 0{bits:o}")), "{error}");
        }
    }
}

#[test]
fn what_is_no_plain_file_is_refused_and_left_alone() {
    let (directory, path) = place();
    written(&path, samples::events());
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(refusal(&link).contains("symbolic link"));
    let dangling = directory.path().join("dangling");
    symlink(directory.path().join("nowhere"), &dangling).unwrap();
    assert!(refusal(&dangling).contains("symbolic link"));
    assert!(!directory.path().join("nowhere").exists());
    assert!(refusal(directory.path()).contains("not a regular file"));
    let pipe = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert!(refusal(&pipe).contains("not a regular file"));
}

#[test]
fn a_file_of_something_else_is_refused_and_left_alone() {
    for content in [&b"secret"[..], b"[client]\nuser = cinder\n", b"\x7fELF\0\0"] {
        let (_directory, path) = place();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = AuditLog::open(&path, now).unwrap_err();
        assert!(matches!(&error, AuditError::Damaged { problem, .. } if problem.code == LogProblemCode::NoRecord), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn the_second_writer_is_told_who_is_first() {
    let (_directory, path) = place();
    let first = AuditLog::open(&path, now).unwrap();
    match AuditLog::open(&path, now).unwrap_err() {
        // Where the kernel says nothing, or counts devices otherwise, no process is named rather than a wrong one.
        AuditError::Locked { pid, .. } => assert!(pid.is_none_or(|pid| pid == std::process::id()), "{pid:?}"),
        other => assert_eq!(other.to_string(), "locked"),
    }
    drop(first);
    assert!(AuditLog::open(&path, now).is_ok());
}

#[test]
fn readers_need_no_lock() {
    let (_directory, path) = place();
    written(&path, samples::events());
    let mut log = AuditLog::open(&path, now).unwrap();
    log.append("run", samples::intent(1)).unwrap();
    log.sync().unwrap();
    assert_eq!(verify(&path, None).unwrap().records, 6);
}

#[test]
fn a_torn_line_is_put_on_record() {
    let (_directory, path) = place();
    written(&path, samples::events());
    let whole = fs::read(&path).unwrap();
    let torn = &whole[..whole.len() - 30];
    fs::write(&path, torn).unwrap();
    let fragment = torn.rsplit(|byte| *byte == b'\n').next().unwrap();
    let before = digest(whole.split(|byte| *byte == b'\n').nth(3).unwrap());

    written(&path, vec![samples::intent(9)]);
    let content = fs::read(&path).unwrap();
    assert!(content.starts_with(torn), "nothing is rewritten");
    let records: Vec<Record> = read(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(records[4].event, Event::Torn(Torn { bytes: fragment.len() as u64, sha256: digest(fragment) }));
    assert_eq!((records[4].run.as_str(), &records[4].previous), ("-", &before));
    assert_eq!(records[5].event, samples::intent(9));
}

#[test]
fn a_record_that_lacks_only_its_line_feed_is_kept() {
    let (_directory, path) = place();
    let head = written(&path, samples::events());
    let mut whole = fs::read(&path).unwrap();
    whole.pop();
    fs::write(&path, &whole).unwrap();
    AuditLog::open(&path, now).unwrap();
    let records: Vec<Record> = read(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 6);
    assert!(matches!(&records[5].event, Event::Torn(torn) if torn.sha256 == head.hash));
}

#[test]
fn writing_ends_when_the_file_is_no_longer_the_log() {
    type Meddle = fn(&Path);
    let cases: [(Meddle, &str); 4] = [
        (|path| fs::remove_file(path).unwrap(), "deleted or renamed"),
        (|path| fs::rename(path, path.with_extension("1")).unwrap(), "deleted or renamed"),
        (
            |path| {
                fs::rename(path, path.with_extension("1")).unwrap();
                fs::write(path, "").unwrap();
            },
            "replaced by another file",
        ),
        (|path| drop(OpenOptions::new().write(true).truncate(true).open(path).unwrap()), "another program wrote to it"),
    ];
    for (meddle, said) in cases {
        let (_directory, path) = place();
        let mut log = AuditLog::open(&path, now).unwrap();
        log.append("run", samples::begin("p", None)).unwrap();
        log.sync().unwrap();
        meddle(&path);
        log.append("run", samples::intent(1)).unwrap();
        let error = log.sync().unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(matches!(log.append("run", samples::end()), Err(AuditError::Poisoned { .. })));
    }
}

#[test]
fn a_rotation_between_write_and_sync_is_seen() {
    let (_directory, path) = place();
    let (file, _) = open_file(&path).unwrap();
    let found = file.metadata().unwrap();
    let mut sink = FileSink { file, path: path.clone(), id: (found.dev(), found.ino()), len: 0 };
    sink.write_all(b"{}\n").unwrap();
    sink.sync().unwrap();
    sink.write_all(b"{}\n").unwrap();
    fs::rename(&path, path.with_extension("1")).unwrap();
    assert_eq!(sink.sync().unwrap_err().kind(), ErrorKind::NotFound);
}

/// Fails at its n-th call.
struct Failing {
    calls_left: usize,
    disk: Arc<Mutex<Vec<u8>>>,
}

impl Failing {
    fn call(&mut self) -> io::Result<()> {
        self.calls_left = self.calls_left.checked_sub(1).ok_or_else(|| io::Error::from(ErrorKind::StorageFull))?;
        Ok(())
    }
}

impl Sink for Failing {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.call()?;
        self.disk.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.call()
    }
}

#[test]
fn after_the_first_failure_nothing_is_taken_whichever_call_it_was() {
    for fails_at in 0..6 {
        let disk = Arc::new(Mutex::new(Vec::new()));
        let sink = Failing { calls_left: fails_at, disk: Arc::clone(&disk) };
        let mut log = AuditLog::with_sink(Path::new("log"), Head::default(), Box::new(sink), now);
        let mut failed = None;
        for (number, event) in [samples::intent(1), samples::outcome(1, Outcome::Applied), samples::end()].into_iter().enumerate() {
            if let Err(error) = log.append("run", event).and_then(|()| log.sync()) {
                failed.get_or_insert((number, error.to_string()));
                assert!(matches!(log.sync(), Err(AuditError::Poisoned { .. })));
            }
        }
        let (number, error) = failed.unwrap();
        assert_eq!(number, fails_at / 2);
        let action = ["write to", "sync"][fails_at % 2];
        assert!(error.starts_with(&format!("cannot {action} audit log log: ")), "{error}");
        let lines = disk.lock().unwrap().iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, fails_at.div_ceil(2), "nothing is written after a failure");
    }
}

#[test]
fn a_record_beyond_the_limit_is_refused_and_harms_nothing() {
    let (_directory, path) = place();
    let mut log = AuditLog::open(&path, now).unwrap();
    let Event::Settled(mut settled) = samples::settled(1, Outcome::Applied) else { unreachable!() };
    settled.reason = "x".repeat(MAX_LINE);
    assert!(matches!(log.append("run", Event::Settled(settled)), Err(AuditError::TooLong { .. })));
    log.append("run", samples::end()).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(verify(&path, None).unwrap().records, 1);
}

#[test]
fn a_full_disk_is_said() {
    // The test runs itself again as a process that may write no more than one block.
    const CHILD: &str = "AUDIT_TEST_FULL_DISK";
    let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else {
        let (_directory, path) = place();
        let program = std::env::current_exe().unwrap();
        // Ignoring SIGXFSZ turns the limit into an error; `ulimit -f` counts blocks of 512 bytes in sh.
        let status = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" --exact audit::log::tests::a_full_disk_is_said"])
            .arg(program)
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        // What the failed write left is torn; the next writer says so and goes on.
        let report = verify(&path, None).unwrap();
        assert!(report.is_intact() && report.is_unfinished, "{report:?}");
        written(&path, samples::events());
        let report = verify(&path, None).unwrap();
        assert_eq!((report.is_intact(), report.torn, report.is_unfinished), (true, 1, false));
        return;
    };
    let mut log = AuditLog::open(&path, now).unwrap();
    for _ in 0..100 {
        log.append("run", samples::intent(1)).unwrap();
    }
    let error = log.sync().unwrap_err().to_string();
    assert!(error.starts_with("cannot write to audit log"), "{error}");
}

#[test]
fn a_probe_says_what_opening_would_say_and_leaves_nothing_behind() {
    let (directory, path) = place();
    let said = |path: &Path| AuditLog::probe(path).map_err(|error| error.to_string());
    for missing in [path.clone(), directory.path().join("a/b/audit.jsonl")] {
        assert_eq!(said(&missing), Ok(()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was made");
    }
    let log = AuditLog::open(&path, now).unwrap();
    assert_eq!(said(&path), Ok(()), "whoever writes to it now will have ended by then");
    drop(log);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    let below_a_file = path.join("audit.jsonl");
    for refused in [path.as_path(), &link, directory.path(), &below_a_file] {
        assert_eq!(said(refused).unwrap_err(), AuditLog::open(refused, now).unwrap_err().to_string());
    }
}
