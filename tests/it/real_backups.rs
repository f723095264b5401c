//! Backups made, restored and deleted by Cinder's own drivers; `tests/cinder/backups.py` says which parts of Cinder are real.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cinder_backup_repair::db::Engine;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use serde_json::{Map, Value, json};

use crate::cinder::{self, program};
use crate::database::Database;
use crate::schemas::{Columns, fresh, scratch};
use crate::servers::{self, Process, gcs, keystone, new_dir, root, run, swift};

/// One GiB: the unit of `backups.size`.
pub const GIB: u64 = 1 << 30;
/// Cinder's default for the blocks whose SHA-256 is recorded.
pub const BLOCK: u64 = 32_768;

/// A backup driver with the options of cinder.conf that say where its backups are.
#[derive(Debug, Clone)]
pub struct Store {
    /// The class path, as in `backup_driver` and `backups.service`.
    pub driver: &'static str,
    /// The options of `[DEFAULT]`, which this program needs, too.
    pub options: Vec<(&'static str, String)>,
    object_size: &'static str,
    google: Option<String>,
}

impl Store {
    /// A directory.
    pub fn posix(path: &Path) -> Self {
        let options = vec![("backup_posix_path", path.display().to_string())];
        Self { driver: "cinder.backup.drivers.posix.PosixBackupDriver", options, object_size: "backup_file_size", google: None }
    }

    /// A Swift, with auth v1.
    pub fn swift(server: &swift::Swift, container: &str) -> Self {
        Self::of_swift(server.swift_options(container))
    }

    /// A Swift, with auth v3.
    pub fn keystone(server: &keystone::Keystone, container: &str) -> Self {
        Self::of_swift(server.swift_options(container))
    }

    fn of_swift(options: Vec<(&'static str, String)>) -> Self {
        Self { driver: "cinder.backup.drivers.swift.SwiftBackupDriver", options, object_size: "backup_swift_object_size", google: None }
    }

    /// Swift's S3.
    pub fn s3(server: &swift::Swift, bucket: &str) -> Self {
        let options = server.s3_options(bucket);
        Self { driver: "cinder.backup.drivers.s3.S3BackupDriver", options, object_size: "backup_s3_object_size", google: None }
    }

    /// Google Cloud Storage.
    pub fn gcs(server: &gcs::Gcs, bucket: &str) -> Self {
        let options = server.options(bucket);
        let driver = "cinder.backup.drivers.gcs.GoogleBackupDriver";
        Self { driver, options, object_size: "backup_gcs_object_size", google: Some(server.url()) }
    }

    /// The flags of the program for this store.
    pub fn flags(&self) -> Vec<String> {
        let options = self.options.iter().map(|(name, value)| format!("--storage-option={name}={value}"));
        options.chain(self.google.iter().map(|url| format!("--gcs-endpoint={url}"))).collect()
    }
}

/// The data of a volume: a sparse file.
#[derive(Debug)]
pub struct VolumeData {
    /// The file.
    pub path: PathBuf,
    random: StdRng,
}

impl VolumeData {
    /// Zeros of this size; what [`VolumeData::scribble`] writes depends only on the seed.
    pub fn zeros(path: PathBuf, size: u64, seed: u64) -> Self {
        File::create(&path).and_then(|file| file.set_len(size)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, random: StdRng::seed_from_u64(seed) }
    }

    /// Writes bytes that do not compress.
    pub fn scribble(&mut self, offset: u64, length: u64) -> &mut Self {
        let mut bytes = vec![0; usize::try_from(length).expect("a length that fits into memory")];
        self.random.fill_bytes(&mut bytes);
        self.write(offset, &bytes)
    }

    /// Writes bytes.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> &mut Self {
        let mut file = File::options().write(true).open(&self.path).expect("the file is ours");
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(bytes)).expect("there is space");
        self
    }

    /// A copy that can be changed independently.
    pub fn copy(&self, path: PathBuf) -> Self {
        run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(&self.path).arg(&path));
        Self { path, random: self.random.clone() }
    }

    /// Whether a restored volume has the same bytes. A restore may leave out zeros at the end of the file.
    pub fn is(&self, restored: &Path) -> bool {
        let mut here = File::open(&self.path).expect("the file is ours");
        let mut there = File::open(restored).unwrap_or_else(|error| panic!("{}: {error}", restored.display()));
        let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        loop {
            let (length, more) = (fill(&mut here, &mut one), fill(&mut there, &mut other));
            other[more..].fill(0);
            if more > length || one[..length] != other[..length] {
                return false;
            }
            if length == 0 {
                return true;
            }
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]).expect("the file can be read") {
            0 => break,
            read => filled += read,
        }
    }
    filled
}

/// Where a cinder-backup is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Die {
    /// After the column `container`.
    Container,
    /// After the column `service_metadata`.
    Prefix,
    /// After this number of objects.
    Objects(u32),
    /// In the middle of writing this object, counted from 1.
    HalfObject(u32),
    /// In the middle of writing the sha256file.
    HalfSha256File,
    /// After the sha256file, before the metadata.
    Sha256File,
    /// In the middle of writing the metadata.
    HalfMetadata,
    /// After the metadata, before the column `object_count`: all is stored, but not recorded in the database.
    Metadata,
    /// After the column `object_count`.
    ObjectCount,
    /// After the volume's row, before the backup's status.
    Volume,
}

impl fmt::Display for Die {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container => f.write_str("container"),
            Self::Prefix => f.write_str("prefix"),
            Self::Objects(number) => write!(f, "objects:{number}"),
            Self::HalfObject(number) => write!(f, "half:{number}"),
            Self::HalfSha256File => f.write_str("half:sha256file"),
            Self::Sha256File => f.write_str("sha256file"),
            Self::HalfMetadata => f.write_str("half:metadata"),
            Self::Metadata => f.write_str("metadata"),
            Self::ObjectCount => f.write_str("object_count"),
            Self::Volume => f.write_str("volume"),
        }
    }
}

/// One operation of Cinder.
#[derive(Debug, Clone)]
pub struct Job {
    google: Option<String>,
    object_size: &'static str,
    fields: Map<String, Value>,
}

impl Job {
    fn new(op: &str, store: &Store) -> Self {
        let options: Map<String, Value> = store.options.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let fields = json!({"op": op, "driver": store.driver, "options": options});
        let Value::Object(fields) = fields else { unreachable!("it is one") };
        Self { google: store.google.clone(), object_size: store.object_size, fields }
    }

    /// Backs up a volume's data, under a name that later jobs use for the backup. Creates the volume's row if there is none.
    pub fn backup(store: &Store, name: &str, volume: &str, data: &VolumeData) -> Self {
        let size = fs::metadata(&data.path).expect("the file is ours").len().div_ceil(GIB);
        let job = Self::new("backup", store).set("name", json!(name)).set("display_name", json!(name));
        job.set("volume", json!({"id": volume, "size": size})).set("file", json!(data.path))
    }

    /// Restores a backup, by its name, into a file.
    pub fn restore(store: &Store, name: &str, file: &Path) -> Self {
        Self::new("restore", store).set("backup", json!(format!("@{name}"))).set("file", json!(file))
    }

    /// Restores a backup, by its id, into a file.
    pub fn restore_id(store: &Store, id: &str, file: &Path) -> Self {
        Self::new("restore", store).set("backup", json!(id)).set("file", json!(file))
    }

    /// Deletes a backup, by its name.
    pub fn delete(store: &Store, name: &str) -> Self {
        Self::new("delete", store).set("backup", json!(format!("@{name}")))
    }

    /// Exports a backup.
    pub fn export(store: &Store, id: &str) -> Self {
        Self::new("export", store).set("backup", json!(id))
    }

    /// Imports a backup with the arguments of `cinder backup-import`.
    pub fn import(store: &Store, service: &str, url: &str) -> Self {
        Self::new("import", store).set("backup_service", json!(service)).set("backup_url", json!(url))
    }

    /// With this name and description of the backup.
    pub fn described(self, name: &str, description: &str) -> Self {
        self.set("display_name", json!(name)).set("display_description", json!(description))
    }

    /// Of an encrypted volume.
    pub fn encrypted(mut self, key: &str) -> Self {
        self.fields["volume"]["encryption_key_id"] = json!(key);
        self
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.fields.insert(key.to_owned(), value);
        self
    }

    /// As an increment of the backup of this name.
    pub fn on(self, parent: &str) -> Self {
        self.set("parent", json!(format!("@{parent}")))
    }

    /// As an increment of the backup with this id.
    pub fn on_id(self, parent: &str) -> Self {
        self.set("parent", json!(parent))
    }

    /// Killed at this point.
    pub fn die(self, point: Die) -> Self {
        self.set("die", json!(point.to_string()))
    }

    /// With the user, project, token or catalogue of a request.
    pub fn context(self, context: Value) -> Self {
        self.set("context", context)
    }

    /// With another option of `[DEFAULT]`.
    pub fn option(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields["options"][name] = Value::String(value.into());
        self
    }

    /// With a compression: `none`, `zlib`, `bz2`, `zstd` or another spelling of these.
    pub fn compression(self, algorithm: &str) -> Self {
        self.option("backup_compression_algorithm", algorithm)
    }

    /// With objects of this many bytes of the volume.
    pub fn object_size(self, bytes: u64) -> Self {
        let name = self.object_size;
        self.option(name, bytes.to_string())
    }
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// `done`, `failed` or `killed`.
    pub outcome: String,
    /// Cinder's error.
    pub error: Option<String>,
    /// The backup's row.
    pub backup: Value,
    /// The volume's row: the one that was backed up or restored into.
    pub volume: Value,
    /// What an export returned: `backup_service` and `backup_url`.
    pub record: Value,
    /// How long it took.
    pub seconds: f64,
}

impl Done {
    /// The backup's id.
    #[track_caller]
    pub fn id(&self) -> String {
        self.backup["id"].as_str().unwrap_or_else(|| panic!("no backup: {self:?}")).to_owned()
    }

    /// A column of the backup's row that is a text.
    #[track_caller]
    pub fn text(&self, column: &str) -> String {
        self.backup[column].as_str().unwrap_or_else(|| panic!("{column} is not a text: {self:?}")).to_owned()
    }
}

/// A Cinder on a SQLite database of its own, with a folder for volumes' data.
pub struct RealBackups {
    /// The database.
    pub database: Database,
    /// A folder for the test's files.
    pub dir: PathBuf,
    /// A folder for the data of volumes, which is mostly zeros.
    pub volumes: PathBuf,
}

/// A folder in memory, if possible: reading a hole of a file there does not fill the page cache with zeros.
fn volumes() -> &'static Path {
    static VOLUMES: OnceLock<Process> = OnceLock::new();
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    VOLUMES.get_or_init(|| Process::supervise("volumes", &new_dir(&parent, "volumes"), "KILL", &[] as &[&str])).dir()
}

impl RealBackups {
    /// A new one.
    pub fn new() -> Self {
        Self { database: fresh(Engine::Sqlite, Columns::Full), dir: scratch("backups"), volumes: new_dir(volumes(), "data") }
    }

    /// Loses the database: makes an empty one with `cinder-manage db sync`.
    pub fn lose_database(&mut self) {
        self.database = Database::empty(Engine::Sqlite, None);
        cinder::sync(&self.database.url());
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Runs jobs one after the other, each in its own process, and returns their results in the same order. Names are known only within
    /// one call.
    #[track_caller]
    pub fn run(&self, jobs: &[Job]) -> Vec<Done> {
        let google = jobs.iter().find_map(|job| job.google.clone());
        let list: Vec<&Map<String, Value>> = jobs.iter().map(|job| &job.fields).collect();
        let folder = scratch("cinder");
        let file = folder.join("jobs.json");
        fs::write(&file, serde_json::to_vec(&list).expect("JSON")).expect("a new folder");
        let conf = folder.join("cinder.conf");
        let shown = folder.display();
        let url = self.database.url();
        let text = format!("[DEFAULT]\nstate_path = {shown}\n[oslo_concurrency]\nlock_path = {shown}\n[database]\nconnection = {url}\n");
        fs::write(&conf, text).expect("a new folder");
        self.database.disconnect();
        let [env, preload] = servers::without_fsync();
        let mut command = Command::new(env);
        command.arg(preload).arg(program("python")).arg(root().join("tests/cinder/backups.py"));
        command.arg("--config-file").arg(conf).arg("--jobs").arg(file);
        command.args(google.map(|url| format!("--google={url}")));
        let output = run(&mut command);
        let done: Vec<Done> = output.lines().map(done).collect();
        assert_eq!(done.len(), jobs.len(), "{output}");
        done
    }
}

fn done(line: &str) -> Done {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in: {line}"));
    Done {
        outcome: value["outcome"].as_str().expect("a text").to_owned(),
        error: value["error"].as_str().map(str::to_owned),
        backup: value["backup"].clone(),
        volume: value["volume"].clone(),
        record: value["record"].clone(),
        seconds: value["seconds"].as_f64().expect("a duration"),
    }
}
