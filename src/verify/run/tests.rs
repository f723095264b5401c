use std::io::{self, Cursor, Read};
use std::ops::{ControlFlow, Range};

use super::*;
use crate::storage::{MemoryStore, ObjectInfo, StorageErrorKind};
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

impl Places for Everywhere {
    fn store(&self, _: Driver, _: &Backup) -> Result<Arc<dyn ObjectStore>, StorageError> {
        Ok(Arc::clone(&self.0))
    }

    fn location(&self, _: Driver, _: &Backup) -> Result<String, StorageError> {
        Ok("nowhere".to_owned())
    }

    fn ceph(&self, _: &Subject<'_>, _: &Watch) -> Result<(Findings, String), StorageError> {
        Err(StorageError::new(StorageErrorKind::Configuration, "there is none"))
    }

    fn ceph_glance(&self, _: &Backup, _: &[Arc<Backup>], _: Option<Listing>) -> Result<Glance, StorageError> {
        Err(StorageError::new(StorageErrorKind::Configuration, "there is none"))
    }
}

#[test]
fn long_lists_are_not_held_side_by_side() {
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
    let request = Request { level: Level::Quick, effort: Effort::default(), settle: Duration::ZERO };
    let watch = Watch::default();
    let results = Mutex::new(0);
    Checker::new(&places, &request, &watch, &targets).run(&targets, &|result| {
        assert_eq!(result.objects.expected, MORE as u64);
        *lock(&results) += 1;
    });
    assert_eq!(*lock(&results), 4);
    assert_eq!(*lock(&store.beyond), (0, 1));
}

/// What a check says of times and what a last look says must be the same where nothing has moved.
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
    let request = Request { level: Level::Quick, effort: Effort::default(), settle: Duration::ZERO };
    let look =
        |store: &MemoryStore, check: &CheckResult| glance(&Everywhere(Arc::new(store.clone())), &target, check, "h", &Moment::default());
    let places = Everywhere(Arc::new(store.clone()));
    let found = Mutex::new(None);
    let watch = Watch::default();
    let targets = std::slice::from_ref(&target);
    Checker::new(&places, &request, &watch, targets).run(targets, &|result| *lock(&found) = Some(result));
    let mut check = lock(&found).take().unwrap();
    check.rows = std::iter::once(&target.backup).chain(target.ancestors.iter().map(AsRef::as_ref)).map(|row| row.image(columns)).collect();
    assert_eq!(check.newest_object_at, None);
    assert_eq!(look(&store, &check), Look::Same);
    store.put("prefix_parent-00003", *b"x", None);
    assert!(matches!(look(&store, &check), Look::Moved(_)));
}
