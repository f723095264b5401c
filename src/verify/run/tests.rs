use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::ops::{ControlFlow, Range};
use std::time::Instant;

use super::*;
use crate::domain::{ColumnSet, Listing, PrecheckListing};
use crate::format::generate::{BackupSpec, write_from};
use crate::format::metadata::Compression;
use crate::storage::{MemoryStore, ObjectInfo, ObjectStore, StorageError, StorageErrorKind};
use crate::verify::chunked::LARGE;

/// So many objects more than may be held side by side.
const MORE: usize = LARGE + 20_000;

/// Stores whose backups have long lists, which nobody holds.
#[derive(Default)]
struct Long {
    /// How many lists are being read beyond what may be held side by side, and how many were at most.
    beyond: Mutex<(usize, usize)>,
}

struct Endless<'a> {
    store: &'a Long,
    prefix: String,
    next: usize,
    piece: Cursor<Vec<u8>>,
    is_beyond: bool,
}

impl Read for Endless<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.piece.read(out)?;
        if read > 0 || self.next > MORE {
            return Ok(read);
        }
        // A buffer of the reader's holds some thousand entries.
        if self.next > LARGE + 10_000 && !self.is_beyond {
            self.is_beyond = true;
            let mut beyond = lock(&self.store.beyond);
            beyond.0 += 1;
            beyond.1 = beyond.1.max(beyond.0);
        }
        let entry = |number: usize| {
            let comma = if number == 1 { "" } else { "," };
            format!(
                r#"{comma}{{"{}-{number:05}": {{"offset": {}, "length": 8, "compression": "none", "md5": "{:032}"}}}}"#,
                self.prefix,
                number * 8,
                0
            )
        };
        let last = self.next + 100;
        let mut text: String = (self.next..last.min(MORE + 1)).map(entry).collect();
        if last > MORE {
            text.push_str("]}");
        }
        self.next = last;
        self.piece = Cursor::new(text.into_bytes());
        self.piece.read(out)
    }
}

impl Drop for Endless<'_> {
    fn drop(&mut self) {
        // The list is still held when its stream is dropped.
        lock(&self.store.beyond).0 -= usize::from(self.is_beyond);
    }
}

impl ObjectStore for Long {
    fn location(&self) -> &str {
        "nowhere"
    }

    fn concurrency(&self) -> usize {
        8
    }

    fn list(&self, _: &str, _: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        Ok(())
    }

    fn stat(&self, _: &str) -> Result<Option<ObjectInfo>, StorageError> {
        Ok(None)
    }

    fn open(&self, name: &str, _: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        let Some(prefix) = name.strip_suffix("_metadata") else {
            return Err(StorageError::new(StorageErrorKind::NoObject, "there is none"));
        };
        let head = r#"{"version": "1.0.0", "backup_id": "b", "volume_id": "v", "parent_id": null, "objects": ["#;
        let piece = Cursor::new(head.as_bytes().to_vec());
        Ok(Box::new(Endless { store: self, prefix: prefix.to_owned(), next: 1, piece, is_beyond: false }))
    }
}

struct Everywhere(Arc<dyn ObjectStore>);

impl StorageAccess for Everywhere {
    fn store(&self, _: Driver, _: &Backup) -> Result<Arc<dyn ObjectStore>, StorageError> {
        Ok(Arc::clone(&self.0))
    }

    fn location(&self, _: Driver, _: &Backup) -> Result<String, StorageError> {
        Ok("nowhere".to_owned())
    }

    fn ceph(&self, _: &Subject<'_>, _: &Watch) -> Result<CheckResult, StorageError> {
        Err(StorageError::new(StorageErrorKind::Configuration, "there is none"))
    }

    fn precheck_ceph(&self, _: &Backup, _: &[Arc<Backup>], _: Option<Listing>) -> Result<PrecheckListing, StorageError> {
        Err(StorageError::new(StorageErrorKind::Configuration, "there is none"))
    }
}

fn check(access: &dyn StorageAccess, request: &Request, targets: &[Target], each: &(dyn Fn(CheckResult) + Sync)) {
    let tasks = targets.iter().cloned().map(Task::from).collect();
    Checker::new(access, request, &Watch::default(), "h").run(std::iter::once(tasks), &|answer| each(answer.result));
}

#[test]
fn long_lists_are_not_held_in_parallel() {
    let store = Arc::new(Long::default());
    let target = |number: usize| Target {
        backup: Backup {
            id: format!("b{number}"),
            service: Some("cinder.backup.drivers.swift.SwiftBackupDriver".to_owned()),
            container: Some("c".to_owned()),
            service_metadata: Some(format!("p{number}")),
            size: Some(1),
            // A chain of parents must not wait for itself.
            parent_id: (number == 0).then(|| "b1".to_owned()),
            ..Backup::default()
        },
        ancestors: Vec::new(),
        columns: ColumnSet::Mitaka,
    };
    let mut targets: Vec<Target> = (0..4).map(target).collect();
    targets[0].ancestors = vec![Arc::new(targets[1].backup.clone())];
    let places = Everywhere(store.clone());
    let request = Request { level: Level::Quick, options: ReadOptions::default(), settle: Duration::ZERO };
    let results = Mutex::new(0);
    check(&places, &request, &targets, &|result| {
        assert_eq!(result.objects.expected, MORE as u64);
        *lock(&results) += 1;
    });
    assert_eq!(*lock(&results), 4);
    assert_eq!(*lock(&store.beyond), (0, 1));
}

/// A check and a precheck must report the same times if nothing has changed.
#[test]
fn objects_without_times_have_not_moved() {
    let backup = |id: &str, parent: Option<&str>| Backup {
        id: id.to_owned(),
        service: Some("cinder.backup.drivers.swift.SwiftBackupDriver".to_owned()),
        container: Some("c".to_owned()),
        service_metadata: Some(format!("prefix_{id}")),
        size: Some(1),
        parent_id: parent.map(str::to_owned),
        ..Backup::default()
    };
    let (tip, parent) = (backup("tip", Some("parent")), backup("parent", None));
    let columns = ColumnSet::Mitaka;
    let target = Target { backup: tip, ancestors: vec![Arc::new(parent)], columns };
    let mut store = MemoryStore::default();
    for id in ["tip", "parent"] {
        store.put(format!("prefix_{id}-00001"), *b"x", "2026-11-22T10:00:00Z".parse().ok());
        store.put(format!("prefix_{id}-00002"), *b"x", None);
    }
    let request = Request { level: Level::Quick, options: ReadOptions::default(), settle: Duration::ZERO };
    let look = |store: &MemoryStore, check: &CheckResult| {
        precheck(&Everywhere(Arc::new(store.clone())), &target, check, "h", &PrecheckRound::default())
    };
    let places = Everywhere(Arc::new(store.clone()));
    let found = Mutex::new(None);
    check(&places, &request, std::slice::from_ref(&target), &|result| *lock(&found) = Some(result));
    let mut check = lock(&found).take().unwrap();
    check.rows = std::iter::once(&target.backup).chain(target.ancestors.iter().map(AsRef::as_ref)).map(|row| row.image(columns)).collect();
    assert_eq!(check.newest_object_at, None);
    assert_eq!(look(&store, &check), Comparison::Unchanged);
    store.put("prefix_parent-00003", *b"x", None);
    assert!(matches!(look(&store, &check), Comparison::Changed(_)));
}

/// Questions on their way.
#[derive(Default)]
struct Asked {
    now: usize,
    most: usize,
    /// The time that all of them together took, and that in which there was any.
    took: Duration,
    any: Duration,
    since: Option<Instant>,
}

/// A store that is far away: each answer takes its time.
#[derive(Default)]
struct Far {
    store: MemoryStore,
    asked: Mutex<Asked>,
    /// Data objects that are being read, and how many were at most.
    reading: Arc<Mutex<(usize, usize)>>,
    /// How often each object was opened.
    opened: Mutex<BTreeMap<String, usize>>,
}

impl Far {
    fn answer<T>(&self, answer: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        {
            let mut asked = lock(&self.asked);
            asked.now += 1;
            asked.most = asked.most.max(asked.now);
            asked.since.get_or_insert(begun);
        }
        std::thread::sleep(Duration::from_millis(15));
        let answered = answer();
        let mut asked = lock(&self.asked);
        asked.now -= 1;
        asked.took += begun.elapsed();
        if asked.now == 0 {
            let any = asked.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            asked.any += any;
        }
        answered
    }
}

struct FarStream<'a> {
    stream: Box<dyn Read + Send + 'a>,
    reading: Option<Arc<Mutex<(usize, usize)>>>,
}

impl Read for FarStream<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.stream.read(out)
    }
}

impl Drop for FarStream<'_> {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            lock(reading).0 -= 1;
        }
    }
}

impl ObjectStore for Far {
    fn location(&self) -> &str {
        "far"
    }

    fn concurrency(&self) -> usize {
        6
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        self.answer(|| self.store.list(prefix, each))
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        self.answer(|| self.store.stat(name))
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        let reading = (!name.contains('_')).then(|| Arc::clone(&self.reading));
        if let Some(reading) = &reading {
            let mut reading = lock(reading);
            reading.0 += 1;
            reading.1 = reading.1.max(reading.0);
        }
        *lock(&self.opened).entry(name.to_owned()).or_default() += 1;
        let stream = self.answer(|| self.store.open(name, range))?;
        Ok(Box::new(FarStream { stream, reading }))
    }
}

/// A full backup of zeros and increments on it, the third of which is damaged; of all that are chosen by number.
fn increments(number: usize) -> (Far, Vec<Target>) {
    const CHUNK: u64 = 64 << 20;
    let mut far = Far::default();
    let (mut targets, mut full): (Vec<Target>, Option<Vec<[u8; 32]>>) = (Vec::new(), None);
    for number in 0..number {
        let (id, prefix) = (format!("b{number:02}"), format!("p{number:02}"));
        let parent = targets.first().map(|target| Arc::new(target.backup.clone()));
        let recipe = BackupSpec {
            prefix: &prefix,
            backup_id: &id,
            volume_id: "v",
            parent_id: parent.as_ref().map(|parent| parent.id.as_str()),
            created_at: "2026-11-22 10:00:00+00:00",
            compression: Compression::Zlib,
            chunk_size: 64 << 20,
            block_size: 1 << 20,
        };
        let mut read = |range: Range<u64>| {
            let is_changed = number > 0 && range.start / CHUNK % 5 == number as u64 % 5;
            let block = || vec![u8::try_from(number).unwrap(); 1 << 20];
            Ok(is_changed.then(|| [block(), vec![0; 63 << 20]].concat()))
        };
        let digests = write_from(&recipe, 1 << 30, &mut read, full.as_deref(), &mut |name, mut bytes| {
            if name == "p03-00002" {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xff;
            }
            far.store.put(name, bytes, "2026-11-22T10:00:00Z".parse().ok());
            Ok(())
        })
        .unwrap();
        full.get_or_insert(digests);
        let backup = Backup {
            id,
            service: Some("cinder.backup.drivers.s3.S3BackupDriver".to_owned()),
            container: Some("c".to_owned()),
            service_metadata: Some(prefix),
            size: Some(1),
            parent_id: parent.as_ref().map(|parent| parent.id.clone()),
            ..Backup::default()
        };
        targets.push(Target { backup, ancestors: parent.into_iter().collect(), columns: ColumnSet::Mitaka });
    }
    // The increments come before the full backup.
    targets.reverse();
    (far, targets)
}

/// What is found, in the order of the targets, and by how much the answers overlapped.
fn found(far: &Arc<Far>, targets: &[Target], level: Level, jobs: usize, memory: u64) -> (Vec<CheckResult>, f64) {
    let places = Everywhere(Arc::clone(far) as Arc<dyn ObjectStore>);
    let request = Request { level, options: ReadOptions { jobs, memory, ..ReadOptions::default() }, settle: Duration::ZERO };
    let results = Mutex::new(Vec::new());
    *lock(&far.asked) = Asked::default();
    check(&places, &request, targets, &|result| {
        lock(&results).push(CheckResult { checked_at: String::new(), ..result });
    });
    let overlap = {
        let asked = lock(&far.asked);
        asked.took.as_secs_f64() / asked.any.as_secs_f64()
    };
    let mut results = results.into_inner().unwrap();
    results.sort_by(|a, b| a.id.cmp(&b.id));
    (results, overlap)
}

#[test]
fn small_backups_are_read_in_parallel_with_the_same_results() {
    let (far, targets) = increments(16);
    let far = Arc::new(far);
    for level in [Level::Deep, Level::Restore] {
        // A restore reads the full one with each of them.
        let targets = if level == Level::Deep { &targets[..] } else { &targets[12..] };
        let (alone, one_by_one) = found(&far, targets, level, 1, 512 << 20);
        lock(&far.opened).clear();
        let (together, overlap) = found(&far, targets, level, 4, 512 << 20);
        assert_eq!(alone, together);
        let damaged: Vec<&str> =
            alone.iter().filter(|result| result.verdict != CheckVerdict::Intact).map(|result| result.id.as_str()).collect();
        assert_eq!(damaged, ["b03"], "{level}");
        let most = lock(&far.asked).most;
        assert!(most > 1 && most <= 6 + 2 * AT_ONCE, "{most}");
        if level == Level::Deep {
            // How much they overlap depends on the machine; that they do does not.
            assert!(overlap > one_by_one, "{overlap} {one_by_one}");
            let opened = lock(&far.opened);
            assert!(opened.iter().filter(|(name, _)| name.starts_with("p00-")).all(|(_, times)| *times == 1), "{opened:?}");
        }
    }
}

#[test]
fn parallel_checks_share_the_memory() {
    let (far, targets) = increments(12);
    let far = Arc::new(far);
    *lock(&far.reading) = (0, 0);
    let (results, _) = found(&far, &targets, Level::Deep, 8, 49 << 20);
    assert_eq!(results.len(), 12);
    assert_eq!(*lock(&far.reading), (0, 2), "48 MiB are those of two readers");
}
