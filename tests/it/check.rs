//! `check`, and how `plan` and `repair` use its results, through the program: on backups in a directory as Cinder's posix driver writes
//! them.
//!
//! One full backup of a volume of 1 GiB (mostly zeros, so that it is small) and one increment on it are generated once. Each test gets
//! copies of them with ids of its own.

mod contradictions;
mod damaged_in_transit;
mod deletion;
mod handover;
mod hostile;
mod hung;
mod levels;
mod limits;
mod many;
mod monitoring;
mod one_listing;
mod orphans;
mod progress;
mod rehost;
mod rescue;
mod restorable;
mod resuming;
mod round_trips;
mod scrub;
mod selecting;
mod shards;
mod slow;
mod storage_recheck;
mod unreadable;
mod verdicts;
mod ways_out;

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use cinder_backup_repair::db::Engine;
use cinder_backup_repair::format::generate::{BackupSpec, write_from};
use cinder_backup_repair::format::metadata::Compression;
use serde_json::Value;
use uuid::Uuid;

use crate::database::Database;
use crate::program::{Program, bare};
use crate::rows::{Row, ago};
use crate::schemas::{Columns, fresh, scratch};

const TWO_HOURS: i64 = 7_200;
const GIB: usize = 1 << 30;
const CHUNK: usize = 64 << 20;
const BLOCK: usize = 32_768;
const POSIX: &str = "cinder.backup.drivers.posix.PosixBackupDriver";
/// Ids in the generated backups; copies have others.
const FULL: &str = "f0000000-0000-4000-8000-00000000000f";
const INCREMENT: &str = "10000000-0000-4000-8000-000000000001";
const VOLUME: &str = "a0000000-0000-4000-8000-00000000000a";
/// The numbers of objects of the full backup and of the increment.
const OBJECTS: usize = GIB / CHUNK;
const CHANGED: usize = 2;

/// The files of a generated backup, by name.
type Files = Vec<(String, Vec<u8>)>;

/// A full backup and an increment on it.
fn patterns() -> &'static (Files, Files) {
    static PATTERNS: OnceLock<(Files, Files)> = OnceLock::new();
    PATTERNS.get_or_init(|| {
        let mut volume = vec![0_u8; GIB];
        for chunk in 0..OBJECTS {
            volume[chunk * CHUNK + 777] = u8::try_from(chunk + 1).unwrap();
        }
        let mut full = Files::new();
        let mut recipe = BackupSpec {
            prefix: &prefix_of(FULL, VOLUME),
            backup_id: FULL,
            volume_id: VOLUME,
            parent_id: None,
            created_at: "2026-11-22 10:00:00+00:00",
            compression: Compression::Zlib,
            chunk_size: CHUNK,
            block_size: BLOCK,
        };
        fn chunks(volume: &[u8]) -> impl FnMut(Range<u64>) -> io::Result<Option<Vec<u8>>> {
            move |range| Ok(Some(volume[range.start as usize..range.end as usize].to_vec()))
        }
        let digests = write_from(&recipe, GIB as u64, &mut chunks(&volume), None, &mut |name, bytes| {
            full.push((name, bytes));
            Ok(())
        })
        .unwrap();
        volume[3 * CHUNK + 5] = 99;
        volume[9 * CHUNK + 5] = 99;
        let mut increment = Files::new();
        let prefix = prefix_of(INCREMENT, VOLUME);
        recipe = BackupSpec { prefix: &prefix, backup_id: INCREMENT, parent_id: Some(FULL), ..recipe };
        write_from(&recipe, GIB as u64, &mut chunks(&volume), Some(&digests), &mut |name, bytes| {
            increment.push((name, bytes));
            Ok(())
        })
        .unwrap();
        assert_eq!((full.len(), increment.len()), (OBJECTS + 2, CHANGED + 2));
        (full, increment)
    })
}

fn prefix_of(id: &str, volume: &str) -> String {
    format!("volume_{volume}_20261122100000_backup_{id}")
}

/// A backup on the storage.
#[derive(Debug, Clone)]
struct Placed {
    id: String,
    volume: String,
    parent: Option<String>,
    container: String,
    dir: PathBuf,
}

impl Placed {
    fn prefix(&self) -> String {
        prefix_of(&self.id, &self.volume)
    }

    fn object(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{}-{number:05}", self.prefix()))
    }

    fn metadata(&self) -> PathBuf {
        self.dir.join(format!("{}_metadata", self.prefix()))
    }

    fn sha256file(&self) -> PathBuf {
        self.dir.join(format!("{}_sha256file", self.prefix()))
    }

    /// Changes a side file's text.
    #[track_caller]
    fn edit(&self, path: &Path, change: impl FnOnce(String) -> String) {
        let before = fs::read_to_string(path).unwrap();
        let after = change(before.clone());
        assert!(before != after, "nothing to change in {}", path.display());
        fs::write(path, after).unwrap();
        self.settle();
    }

    /// Sets the time of all its objects to two hours ago, which is longer than the settle time.
    fn settle(&self) {
        for entry in fs::read_dir(&self.dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                age(&entry.path(), 7_200);
            }
        }
    }

    /// Flips one bit of an object.
    fn damage(&self) {
        let path = self.object(1);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        self.settle();
    }

    /// Removes what is missing if the driver was killed after two objects.
    fn interrupt(&self) {
        for number in 3..=OBJECTS {
            fs::remove_file(self.object(number)).unwrap();
        }
        fs::remove_file(self.sha256file()).unwrap();
        fs::remove_file(self.metadata()).unwrap();
    }

    /// Removes all its objects.
    fn empty(&self) {
        fs::read_dir(&self.dir).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
    }

    /// Its row, as Cinder writes it.
    fn row(&self, row: Row) -> Row {
        row.id(&self.id)
            .display_name(None::<&str>)
            .volume_id(&self.volume)
            .parent_id(self.parent.as_ref())
            .service(POSIX)
            .container(&self.container)
            .service_metadata(self.prefix())
    }
}

fn age(path: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

fn new_id() -> String {
    Uuid::new_v4().to_string()
}

/// A directory of backups.
struct Store {
    root: PathBuf,
}

impl Store {
    fn new() -> Self {
        Self { root: scratch("store") }
    }

    /// Stores a copy of the full backup, or of the increment with another parent.
    fn place(&self, volume: &str, parent: Option<&str>) -> Placed {
        let id = new_id();
        let container = format!("{}/{}/{id}", &id[..2], &id[2..4]);
        let dir = self.root.join(&container);
        fs::create_dir_all(&dir).unwrap();
        let (files, own) = if parent.is_some() { (&patterns().1, INCREMENT) } else { (&patterns().0, FULL) };
        let replaced = |text: &str| text.replace(own, &id).replace(VOLUME, volume).replace(FULL, parent.unwrap_or(FULL));
        for (name, bytes) in files {
            let path = dir.join(replaced(name));
            if name.ends_with("_metadata") || name.ends_with("_sha256file") {
                fs::write(&path, replaced(std::str::from_utf8(bytes).unwrap())).unwrap();
            } else {
                fs::write(&path, bytes).unwrap();
            }
        }
        let placed = Placed { id, volume: volume.to_owned(), parent: parent.map(str::to_owned), container, dir };
        placed.settle();
        placed
    }
}

/// A database, the storage of its backups, and the program with both. The service on `ctl1` sends heartbeats.
struct Site {
    database: Database,
    store: Store,
    program: Program,
}

impl Site {
    fn new() -> Self {
        Self::on(Engine::Sqlite)
    }

    fn on(engine: Engine) -> Self {
        let database = fresh(engine, Columns::Full);
        // In the future, so that it counts as alive on a slow machine, but not so far that the clock counts as ahead.
        database.service("ctl1", |row| row.updated_at(ago(-50)));
        let store = Store::new();
        let program = Program::on(database.url());
        let conf = format!("[DEFAULT]\nreport_interval = 1\nbackup_posix_path = {}\n", store.root.display());
        fs::write(program.path("cinder.conf"), conf).unwrap();
        Self { database, store, program }
    }

    /// An available full backup.
    fn available(&self) -> Placed {
        let placed = self.store.place(&new_id(), None);
        self.database.backup(|row| placed.row(row).object_count(OBJECTS as i64));
        placed
    }

    /// A backup with a status, and its volume, which is in `backing-up` if the backup is `creating`.
    fn backup(&self, status: &str, parent: Option<&Placed>) -> Placed {
        let placed = match parent {
            Some(parent) => self.store.place(&parent.volume, Some(&parent.id)),
            None => self.store.place(&new_id(), None),
        };
        let known = self.database.value(&format!("SELECT COUNT(*) FROM volumes WHERE id = '{}'", placed.volume));
        if known.as_deref() == Some("0") {
            self.database.volume(|row| {
                let row = row.id(&placed.volume);
                if status == "creating" { row.status("backing-up").previous_status("available") } else { row }
            });
        }
        self.database.backup(|row| placed.row(row).status(status).age(TWO_HOURS));
        placed
    }

    fn creating(&self) -> Placed {
        self.backup("creating", None)
    }

    /// Makes all services silent.
    fn silence(&self) {
        let long_ago = ago(10 * TWO_HOURS).sql(self.database.engine());
        self.database.execute(&format!("UPDATE services SET updated_at = {long_ago}"));
    }

    fn status(&self, placed: &Placed) -> String {
        self.database.cell("backups", &placed.id, "status").unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.program.path(name).display().to_string()
    }

    /// Runs the program and writes its JSON to a file; returns the path.
    #[track_caller]
    fn keep(&self, code: i32, name: &str, args: &[&str]) -> String {
        let mut all = args.to_vec();
        all.extend(["-f", "json"]);
        let answer = self.program.expect(code, &all);
        let path = self.path(name);
        fs::write(&path, answer.stdout).unwrap();
        path
    }

    /// `check` on a host that sees only the storage.
    fn elsewhere(&self, args: &[&str]) -> Command {
        let mut command = bare(&["check"]);
        command.args(args).arg("--storage-path").arg(&self.store.root).current_dir(self.program.path(""));
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.program.log()).unwrap_or_default()
    }
}

/// The result of a backup.
#[track_caller]
fn result<'d>(document: &'d Value, id: &str) -> &'d Value {
    let results = document["results"].as_array().expect("results");
    results.iter().find(|result| result["id"] == id).unwrap_or_else(|| panic!("no result of {id} in {document:#}"))
}

/// The codes of a result's problems, each once.
fn problems(result: &Value) -> Vec<&str> {
    let mut codes: Vec<&str> = result["problems"].as_array().unwrap().iter().map(|problem| problem["code"].as_str().unwrap()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}
