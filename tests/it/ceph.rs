//! Backups in a real Ceph cluster, complete and killed, made by Cinder's real driver. Each must get the right verdict, and a restore of
//! each intact one by the real driver must give the bytes of the volume.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use cinder_backup_repair::domain::{Backup, CheckResult, CheckVerdict, Level, Listing, Problem};
use cinder_backup_repair::storage::ceph::Cluster;
use cinder_backup_repair::verify::{Subject, Watch, ceph};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cinder;
use crate::database::Database;
use crate::program::{Program, answer};
use crate::schemas::{self, Columns, scratch};
use crate::servers::ceph::{BACKUPS, CINDER, Ceph, READER, VOLUMES};
use crate::servers::{self, root};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A cluster, a database and a cinder-backup.
struct Lab {
    ceph: &'static Ceph,
    database: Database,
    jobs: Jobs,
}

/// The process that runs Cinder's driver.
struct Jobs {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Child,
}

/// The lab, for one test at a time, because the tests share one disk and one of them stops it.
fn lab() -> MutexGuard<'static, Lab> {
    static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
    let lab = LAB.get_or_init(|| {
        let ceph = servers::ceph();
        let database = schemas::fresh(Engine::Sqlite, Columns::Full);
        let folder = scratch("ceph-volumes");
        let mut process = Command::new(cinder::program("python"))
            .arg(root().join("tests/cinder/ceph_backups.py"))
            .arg("--config-file")
            .arg(configuration(&database))
            .arg("--ceph-conf")
            .arg(&ceph.conf)
            .arg("--folder")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("log")).expect("a new folder"))
            .spawn()
            .expect("tests/run makes the Python environment");
        let input = process.stdin.take().expect("a pipe");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut jobs = Jobs { input, output, _process: process };
        assert_eq!(jobs.answer(), json!("ready"), "its messages are in {}", folder.display());
        Mutex::new(Lab { ceph, database, jobs })
    });
    lab.lock().unwrap_or_else(PoisonError::into_inner)
}

fn configuration(database: &Database) -> PathBuf {
    let dir = scratch("cinder");
    let shown = dir.display();
    let url = database.url();
    let text = format!("[DEFAULT]\nstate_path = {shown}\n[oslo_concurrency]\nlock_path = {shown}\n[database]\nconnection = {url}\n");
    let path = dir.join("cinder.conf");
    std::fs::write(&path, text).expect("a new folder");
    path
}

impl Jobs {
    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        assert!(answer.get("error").is_none(), "{answer}");
        answer["ok"].take()
    }

    fn try_run(&mut self, job: &Value) -> Result<Value, String> {
        writeln!(self.input, "{job}").expect("the process runs");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer["ok"].take()),
        }
    }

    fn run(&mut self, job: &Value) -> Value {
        self.try_run(job).unwrap_or_else(|error| panic!("{error} from {job}"))
    }
}

/// What a backup is made from, besides its volume.
#[derive(Default)]
struct Source<'a> {
    parent: Option<&'a str>,
    snapshot: Option<&'a str>,
    /// How many snapshots stay on the volume (`backup_ceph_max_snapshots`); 0 for all.
    keep: u64,
}

impl Lab {
    fn new_volume(&mut self, rbd_image: bool) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        self.jobs.run(&json!({"do": "volume", "id": id, "rbd_image": rbd_image}));
        id
    }

    fn write(&mut self, volume: &str, at: u64, length: u64) {
        self.jobs.run(&json!({"do": "write", "volume": volume, "at": at, "length": length, "seed": at + length}));
    }

    /// Makes a backup that is killed at the point `at`; returns its id.
    fn killed(&mut self, volume: &str, source: &Source<'_>, at: &str) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        let answer = self.try_backup(&id, volume, source, Some(at));
        assert_eq!(answer, Ok(json!("killed")));
        assert_eq!(self.database.cell("backups", &id, "status").as_deref(), Some("creating"));
        assert_eq!(self.database.cell("backups", &id, "service_metadata"), None);
        id
    }

    /// Makes a complete backup; returns its id.
    fn made(&mut self, volume: &str, source: &Source<'_>) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        assert_eq!(self.try_backup(&id, volume, source, None), Ok(json!("done")));
        assert_eq!(self.database.cell("backups", &id, "status").as_deref(), Some("available"));
        id
    }

    fn try_backup(&mut self, id: &str, volume: &str, source: &Source<'_>, kill: Option<&str>) -> Result<Value, String> {
        let Source { parent, snapshot, keep } = source;
        let job = json!({
            "do": "backup", "id": id, "volume": volume, "parent": parent, "snapshot": snapshot, "keep": keep, "kill": kill
        });
        self.jobs.try_run(&job)
    }

    fn row(&self, id: &str) -> Backup {
        let cell = |column: &str| self.database.cell("backups", id, column);
        Backup {
            id: id.to_owned(),
            status: cell("status"),
            service: cell("service"),
            volume_id: cell("volume_id"),
            size: cell("size").map(|size| size.parse().unwrap()),
            container: cell("container"),
            service_metadata: cell("service_metadata"),
            created_at: cell("created_at"),
            parent_id: cell("parent_id"),
            snapshot_id: cell("snapshot_id"),
            ..Backup::default()
        }
    }

    fn chain(&self, backup: &Backup) -> Vec<Arc<Backup>> {
        let mut chain = Vec::new();
        let mut next = backup.parent_id.clone();
        while let Some(id) = next {
            let row = self.row(&id);
            next = row.parent_id.clone();
            chain.push(Arc::new(row));
        }
        chain
    }

    fn cluster(&self, user: &str) -> Cluster {
        Cluster::with(user, self.ceph.conf.to_str().unwrap(), BACKUPS)
    }

    /// A quick check with an account that can only read.
    fn check(&self, id: &str) -> CheckResult {
        self.check_at(&self.row(id), Level::Quick, Duration::ZERO)
    }

    fn check_at(&self, backup: &Backup, level: Level, settle: Duration) -> CheckResult {
        let ancestors = self.chain(backup);
        let cluster = self.cluster(READER);
        ceph::check(&cluster, None, &Subject { backup, ancestors: &ancestors, level, settle, now: Timestamp::now() }, &Watch::default())
    }

    /// The numbers of objects and bytes in a precheck after a check that saw `then`.
    fn precheck(&self, id: &str, then: Listing) -> (u64, Option<u64>) {
        let backup = self.row(id);
        let seen = ceph::precheck(&self.cluster(READER), &backup, &self.chain(&backup), Some(then)).unwrap();
        (seen.objects, seen.bytes.ok())
    }

    /// Compares a backup with its volume.
    fn compare(&self, id: &str, level: Level) -> CheckResult {
        let backup = self.row(id);
        let ancestors = self.chain(&backup);
        let cluster = self.cluster(CINDER);
        let source = cluster.pool(VOLUMES);
        let subject = Subject { backup: &backup, ancestors: &ancestors, level, settle: Duration::ZERO, now: Timestamp::now() };
        ceph::check(&cluster, Some(&source), &subject, &Watch::default())
    }

    /// Makes the backup available, as a repair does.
    fn repair(&self, id: &str, findings: &CheckResult) {
        assert!(findings.level_reached.is_some(), "{findings:?}");
        let metadata = match (&findings.service_metadata, self.row(id).service_metadata) {
            (Some(metadata), None) => format!("'{metadata}'"),
            (None, None) => "NULL".to_owned(),
            (None, Some(metadata)) => format!("'{metadata}'"),
            (Some(_), Some(_)) => panic!("the row had it"),
        };
        self.database.execute(&format!("UPDATE backups SET status = 'available', service_metadata = {metadata} WHERE id = '{id}'"));
    }

    /// Restores a backup with the real driver to a new volume; returns the volume's digest.
    fn restored(&mut self, id: &str) -> Value {
        let volume = self.new_volume(true);
        self.jobs.run(&json!({"do": "restore", "backup": id, "volume": volume}));
        let digest = self.digest(&volume, None);
        let image = format!("{VOLUMES}/volume-{volume}");
        // The driver's restore leaves the backup's snapshot on the new volume.
        self.ceph.run("rbd", &["snap", "purge", "--no-progress", &image]);
        self.ceph.run("rbd", &["rm", "--no-progress", &image]);
        digest
    }

    fn digest(&mut self, volume: &str, at: Option<&str>) -> Value {
        self.jobs.run(&json!({"do": "digest", "volume": volume, "at": at}))
    }

    /// The end snapshot of a backup in an image.
    fn end_of(&self, pool: &str, image: &str, id: &str) -> Option<String> {
        let snapshots = self.cluster("admin").pool(pool).snapshots(image).unwrap();
        snapshots.into_iter().map(|snapshot| snapshot.name).find(|name| name.starts_with(&format!("backup.{id}.snap.")))
    }

    /// Removes a snapshot from an image of backups and creates it again with the same name.
    fn recreate(&self, image: &str, snapshot: &str) {
        let name = format!("{BACKUPS}/{image}@{snapshot}");
        self.ceph.run("rbd", &["snap", "rm", "--no-progress", &name]);
        self.ceph.run("rbd", &["snap", "create", "--no-progress", &name]);
    }

    /// Sets the time of a snapshot ten minutes later.
    fn date_later(&mut self, image: &str, snapshot: &str) {
        let snapshots = self.cluster("admin").pool(BACKUPS).snapshots(image).unwrap();
        let id = snapshots.iter().find(|made| made.name == snapshot).unwrap().id;
        self.jobs.run(&json!({"do": "age", "image": image, "key": format!("snapshot_{id:016x}"), "seconds": 600}));
    }

    /// Overwrites one of the data objects of an image without RBD.
    fn overwrite_an_object(&self, image: &str) {
        let info = self.cluster("admin").pool(BACKUPS).image(image).unwrap().unwrap();
        let file = scratch("object").join("bytes");
        std::fs::write(&file, vec![7; 4 * usize::try_from(MIB).unwrap()]).unwrap();
        self.ceph.run("rados", &["--pool", BACKUPS, "put", &format!("{}.{:016x}", info.object_prefix, 3), file.to_str().unwrap()]);
    }

    /// Writes to an image of backups through RBD, which Cinder never does.
    fn write_to_image(&self, image: &str) {
        self.ceph.run("rbd", &["bench", "--io-type", "write", "--io-size", "64K", "--io-total", "64K", &format!("{BACKUPS}/{image}")]);
    }

    /// Removes one of the data objects of an image, as a failed disk does; returns its name.
    fn lose_an_object(&self, image: &str) -> String {
        let info = self.cluster("admin").pool(BACKUPS).image(image).unwrap().unwrap();
        let object = format!("{}.{:016x}", info.object_prefix, 3);
        self.ceph.run("rados", &["--pool", BACKUPS, "rm", &object]);
        object
    }
}

/// Levels that a check may reach.
const QUICK: Option<Level> = Some(Level::Quick);
const DEEP: Option<Level> = Some(Level::Deep);
/// The code for a level that was not reached.
const UNREACHED: &str = "level-not-reached";

fn codes(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.code.as_str()).collect()
}

/// Waits until a condition is true.
fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(200));
    }
}

#[test]
fn checks_of_backups_of_rbd_volumes_give_the_right_verdicts() {
    let lab = &mut *lab();
    let volume = lab.new_volume(true);
    lab.write(&volume, 0, 160 * MIB);
    let full = Source::default();

    let in_import = lab.killed(&volume, &full, "in-import");
    let found = lab.check(&in_import);
    assert_eq!(found.verdict, CheckVerdict::Incomplete, "{found:?}");
    assert!(found.begun && codes(&found.problems).starts_with(&["hole", "metadata-missing"]), "{found:?}");

    let before_metadata = lab.killed(&volume, &full, "before-metadata");
    let found = lab.check(&before_metadata);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Incomplete, vec!["metadata-missing"]), "{found:?}");

    let only_python = lab.killed(&volume, &full, "only-python");
    let image = format!("volume-{volume}.backup.{only_python}");
    until("the pipeline goes on without Python", || lab.end_of(BACKUPS, &image, &only_python).is_some());
    let found = lab.check(&only_python);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Incomplete, vec!["metadata-missing"]), "{found:?}");

    // Complete, except for the update of the database.
    let first = lab.killed(&volume, &full, "after-metadata");
    let base = format!("volume-{volume}.backup.{first}");
    let metadata = format!("{{\"base\": \"{base}\"}}");
    let found = lab.check(&first);
    assert_eq!((found.verdict, codes(&found.problems), codes(&found.warnings)), (CheckVerdict::Intact, vec![], vec![]), "{found:?}");
    assert_eq!(found.service_metadata.as_deref(), Some(metadata.as_str()));
    assert_eq!((found.bytes.checked, found.bytes.expected), (160 * MIB, 160 * MIB));
    assert!(!found.busy && found.newest_object_at.is_some());
    assert!(lab.check_at(&lab.row(&first), Level::Quick, Duration::from_mins(15)).busy, "it was written a moment ago");
    let found = lab.check_at(&lab.row(&first), Level::Deep, Duration::ZERO);
    assert_eq!((found.verdict, found.level_reached, found.bytes.checked), (CheckVerdict::Intact, DEEP, 160 * MIB), "{found:?}");
    let found = lab.check_at(&lab.row(&first), Level::Restore, Duration::ZERO);
    assert_eq!(
        (found.verdict, found.level_reached, codes(&found.problems)),
        (CheckVerdict::Unverifiable, DEEP, vec![UNREACHED]),
        "{found:?}"
    );
    let found = lab.compare(&first, Level::Restore);
    assert_eq!((found.verdict, found.level_reached), (CheckVerdict::Intact, Some(Level::Restore)), "{found:?}");
    assert!(found.depth.contains("compared with volumes/volume-"), "{}", found.depth);
    lab.repair(&first, &found);

    // A check finds the service_metadata that the driver writes.
    let whole = lab.made(&volume, &full);
    let own = format!("{{\"base\": \"volume-{volume}.backup.{whole}\"}}");
    assert_eq!(lab.row(&whole).service_metadata.as_deref(), Some(own.as_str()));
    let forgotten = Backup { service_metadata: None, ..lab.row(&whole) };
    assert_eq!(lab.check_at(&forgotten, Level::Quick, Duration::ZERO).service_metadata.as_deref(), Some(own.as_str()));
    assert_eq!(lab.check(&whole).service_metadata, None);

    // An increment that never began, and a complete one.
    let on_first = Source { parent: Some(&first), ..Source::default() };
    let never = Backup { id: uuid::Uuid::new_v4().to_string(), parent_id: Some(first.clone()), service_metadata: None, ..lab.row(&first) };
    let found = lab.check_at(&never, Level::Quick, Duration::ZERO);
    assert_eq!((found.verdict, found.begun), (CheckVerdict::Missing, false), "{found:?}");
    lab.write(&volume, 300 * MIB, 8 * MIB);
    let second = lab.killed(&volume, &on_first, "after-metadata");
    for level in [Level::Deep, Level::Restore] {
        let found = lab.compare(&second, level);
        assert_eq!((found.verdict, found.level_reached, codes(&found.warnings)), (CheckVerdict::Intact, Some(level), vec![]), "{found:?}");
        assert!(found.depth.contains("compared with") && !found.depth.contains("not compared"), "{}", found.depth);
        // Without the volume nothing proves that all earlier increments are complete.
        let found = lab.check_at(&lab.row(&second), level, Duration::ZERO);
        assert_eq!(
            (found.verdict, found.level_reached, codes(&found.problems)),
            (CheckVerdict::Unverifiable, QUICK, vec![UNREACHED]),
            "{found:?}"
        );
    }
    let found = lab.check(&second);
    assert_eq!(found.service_metadata.as_deref(), Some(metadata.as_str()));
    lab.repair(&second, &found);
    let end = lab.end_of(VOLUMES, &format!("volume-{volume}"), &second).unwrap();
    assert_eq!(lab.restored(&second), lab.digest(&volume, Some(&end)));
    let end = lab.end_of(VOLUMES, &format!("volume-{volume}"), &first).unwrap();
    assert_eq!(lab.restored(&first), lab.digest(&volume, Some(&end)));

    // An increment that is killed during its import leaves its bytes in the base image, and the next one contains them.
    let on_second = Source { parent: Some(&second), ..Source::default() };
    lab.write(&volume, 400 * MIB, 160 * MIB);
    let cut = lab.killed(&volume, &on_second, "in-import");
    let found = lab.check(&cut);
    assert_eq!(
        (found.verdict, codes(&found.problems)),
        (CheckVerdict::Incomplete, vec!["snapshot-missing", "metadata-missing"]),
        "{found:?}"
    );
    assert!(found.begun);
    let found = lab.check(&second);
    assert_eq!(found.verdict, CheckVerdict::Intact, "{found:?}");
    assert!(codes(&found.warnings).contains(&"base-dirty"), "{found:?}");
    lab.jobs.run(&json!({"do": "discard", "volume": volume, "at": 400 * MIB, "length": 160 * MIB}));
    let trapped = lab.made(&volume, &on_second);
    // The object maps contain extents that the killed increment never wrote. That is not reported as damage.
    let found = lab.check(&trapped);
    assert!(!found.verdict.is_damage(), "{found:?}");
    assert!(codes(&found.problems).iter().all(|code| *code == "objects-doubtful"), "{found:?}");
    let found = lab.check_at(&lab.row(&trapped), Level::Deep, Duration::ZERO);
    assert!(found.verdict == CheckVerdict::Unverifiable && found.level_reached < DEEP, "{found:?}");
    let found = lab.compare(&trapped, Level::Deep);
    assert!(codes(&found.problems).contains(&"extents-differ"), "{found:?}");
    assert_eq!((found.verdict, found.level_reached), (CheckVerdict::Unverifiable, None), "{found:?}");
    let found = lab.compare(&trapped, Level::Restore);
    assert_eq!(found.verdict, CheckVerdict::Corrupt, "{found:?}");
    assert!(codes(&found.problems).contains(&"differs"), "{found:?}");
    let end = lab.end_of(VOLUMES, &format!("volume-{volume}"), &trapped).unwrap();
    assert_ne!(lab.restored(&trapped), lab.digest(&volume, Some(&end)), "a restore gives other bytes, so the verdict is right");

    // Every snapshot is a complete image: a lost ancestor damages no other backup, a lost object damages all.
    let end = lab.end_of(BACKUPS, &base, &first).unwrap();
    lab.ceph.run("rbd", &["snap", "rm", "--no-progress", &format!("{BACKUPS}/{base}@{end}")]);
    let found = lab.check(&second);
    assert_eq!(found.verdict, CheckVerdict::Intact, "{found:?}");
    assert!(codes(&found.warnings).contains(&"ancestor-missing"), "{found:?}");
    let then = lab.check(&whole).listing.unwrap();
    assert_eq!((then.objects, lab.precheck(&whole, then)), (3, (3, Some(then.bytes))));
    let object = lab.lose_an_object(&format!("volume-{volume}.backup.{whole}"));
    let (parts, bytes) = lab.precheck(&whole, then);
    assert!(parts == 3 && bytes.is_some_and(|bytes| bytes < then.bytes), "{bytes:?} of {then:?}");
    let found = lab.check(&whole);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Incomplete, vec!["object-missing"]), "{found:?}");
    assert_eq!(found.problems[0].object.as_deref(), Some(object.as_str()));

    // After a while the watch of the killed process ends; its lock remains.
    until("the watch of the killed process ends", || !lab.check(&in_import).busy);
    assert!(codes(&lab.check(&in_import).warnings).contains(&"stale-lock"));
}

#[test]
fn checks_of_backups_of_other_volumes_give_the_right_verdicts() {
    let lab = &mut *lab();
    let volume = lab.new_volume(false);
    lab.write(&volume, 5 * MIB, 32 * MIB);
    let full = Source::default();

    let half = lab.killed(&volume, &full, "half-way");
    let found = lab.check(&half);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Incomplete, vec!["hole", "metadata-missing"]), "{found:?}");
    assert_eq!((found.bytes.checked, found.bytes.expected, found.busy), (GIB / 2, GIB, true), "{found:?}");

    let last = lab.killed(&volume, &full, "last-chunk");
    let found = lab.check(&last);
    assert_eq!(found.verdict, CheckVerdict::Incomplete, "{found:?}");
    assert!(found.bytes.checked < GIB, "killed too late: {found:?}");

    let whole = lab.killed(&volume, &full, "after-metadata");
    let found = lab.check(&whole);
    assert_eq!((found.verdict, found.level_reached, codes(&found.warnings)), (CheckVerdict::Intact, QUICK, vec![]), "{found:?}");
    let found = lab.check_at(&lab.row(&whole), Level::Deep, Duration::ZERO);
    assert_eq!(
        (found.verdict, found.level_reached, codes(&found.problems)),
        (CheckVerdict::Unverifiable, QUICK, vec![UNREACHED]),
        "{found:?}"
    );
    assert_eq!((found.bytes.checked, found.bytes.expected), (GIB, GIB));
    assert_eq!((found.service_metadata.as_deref(), found.busy), (None, false));
    lab.repair(&whole, &found);
    assert_eq!(lab.restored(&whole), lab.digest(&volume, None));
    let found = lab.compare(&whole, Level::Restore);
    assert_eq!(
        (found.verdict, found.level_reached, codes(&found.problems)),
        (CheckVerdict::Unverifiable, QUICK, vec![UNREACHED]),
        "{found:?}"
    );
    assert!(found.problems[0].text.contains("not compared with the volume's"), "{found:?}");

    // Nothing but the bytes shows that an object was overwritten, so a level that must compare them is not reached.
    let image = format!("volume-{volume}.backup.{whole}");
    let restored = lab.restored(&whole);
    lab.overwrite_an_object(&image);
    assert_ne!(lab.restored(&whole), restored);
    for level in [Level::Deep, Level::Restore] {
        let found = lab.check_at(&lab.row(&whole), level, Duration::ZERO);
        assert_eq!((found.verdict, found.level_reached), (CheckVerdict::Unverifiable, QUICK), "{found:?}");
    }
    // A write through RBD sets a time.
    let written = lab.made(&volume, &full);
    let written_image = format!("volume-{volume}.backup.{written}");
    assert_eq!(lab.check(&written).verdict, CheckVerdict::Intact);
    lab.jobs.run(&json!({"do": "age", "image": written_image, "key": "modify_timestamp", "seconds": 600}));
    let found = lab.check(&written);
    assert_eq!(
        (found.verdict, found.level_reached, codes(&found.problems)),
        (CheckVerdict::Unverifiable, None, vec!["image-newer"]),
        "{found:?}"
    );
    let object = lab.lose_an_object(&image);
    let found = lab.check(&whole);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Incomplete, vec!["hole", "object-missing"]), "{found:?}");
    assert_eq!(found.problems[1].object.as_deref(), Some(object.as_str()));

    // As if killed between the data and the metadata.
    lab.ceph.run("rados", &["--pool", BACKUPS, "rm", &format!("backup.{whole}.meta")]);
    let found = lab.check(&whole);
    assert_eq!(
        (found.verdict, codes(&found.problems)),
        (CheckVerdict::Incomplete, vec!["hole", "metadata-missing", "object-missing"]),
        "{found:?}"
    );

    lab.jobs.run(&json!({"do": "hold", "image": image, "pool": BACKUPS}));
    let found = lab.check(&whole);
    assert!(found.busy && codes(&found.warnings).contains(&"image-open"), "{found:?}");
    until("the watch of the killed process ends", || !lab.check(&half).busy);
    assert!(codes(&lab.check(&half).warnings).contains(&"stale-lock"));
}

#[test]
fn checks_of_backups_of_snapshots_give_the_right_verdicts() {
    let lab = &mut *lab();
    let volume = lab.new_volume(true);
    lab.write(&volume, 10 * MIB, 32 * MIB);
    let snapshot = uuid::Uuid::new_v4().to_string();
    lab.jobs.run(&json!({"do": "snapshot", "id": snapshot, "volume": volume}));
    lab.write(&volume, 0, 20 * MIB);
    let source = Source { snapshot: Some(&snapshot), ..Source::default() };

    let never =
        Backup { id: "never".to_owned(), volume_id: Some(volume.clone()), snapshot_id: Some(snapshot.clone()), ..Backup::default() };
    assert_eq!(lab.check_at(&never, Level::Quick, Duration::ZERO).verdict, CheckVerdict::Missing);
    let first = lab.killed(&volume, &source, "after-metadata");
    let found = lab.compare(&first, Level::Restore);
    assert_eq!(
        (found.verdict, codes(&found.warnings), found.service_metadata.as_deref()),
        (CheckVerdict::Intact, vec![], None),
        "{found:?}"
    );
    assert!(found.depth.contains(&format!("@snapshot-{snapshot}")), "{}", found.depth);
    lab.repair(&first, &found);
    assert_eq!(lab.restored(&first), lab.digest(&volume, Some(&format!("snapshot-{snapshot}"))));
    assert_eq!(found.level_reached, Some(Level::Restore));
    let found = lab.compare(&first, Level::Deep);
    assert_eq!(
        (found.verdict, found.level_reached, codes(&found.problems)),
        (CheckVerdict::Unverifiable, QUICK, vec![UNREACHED]),
        "{found:?}"
    );

    // All snapshots of a volume share one image: the second backup fails, and its deletion removes the image of the first.
    let second = uuid::Uuid::new_v4().to_string();
    assert!(lab.try_backup(&second, &volume, &source, None).unwrap_err().contains("ImageExists"));
    let found = lab.check(&second);
    assert!(found.verdict.is_damage() && codes(&found.problems) == ["metadata-missing"], "{found:?}");
    let found = lab.check(&first);
    assert_eq!(found.verdict, CheckVerdict::Intact);
    let then = found.listing.unwrap();
    assert_eq!((then.objects, lab.precheck(&first, then)), (2, (2, Some(GIB))));
    lab.jobs.run(&json!({"do": "delete", "backup": second}));
    assert_eq!(lab.precheck(&first, then), (1, None), "its metadata object is left");
    let found = lab.check(&first);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Incomplete, vec!["image-missing"]), "{found:?}");
    assert_eq!(lab.check(&second).verdict, CheckVerdict::Missing);
}

#[test]
fn snapshots_that_the_driver_removed_from_the_volume_are_no_damage() {
    let lab = &mut *lab();
    let volume = lab.new_volume(true);
    lab.write(&volume, 0, 8 * MIB);
    let first = lab.made(&volume, &Source::default());
    lab.write(&volume, 4 * MIB, 8 * MIB);
    let second = lab.made(&volume, &Source { parent: Some(&first), ..Source::default() });
    lab.write(&volume, 10 * MIB, 8 * MIB);
    let third = lab.made(&volume, &Source { parent: Some(&second), keep: 1, ..Source::default() });
    let image = format!("volume-{volume}");
    assert_eq!([&first, &second, &third].map(|id| lab.end_of(VOLUMES, &image, id).is_some()), [false, false, true]);

    for id in [&first, &second, &third] {
        let found = lab.check(id);
        assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Intact, vec![]), "{found:?}");
    }
    // The first needs no comparison, and the last has its snapshot. The second cannot be compared any more, and the check says so.
    let found = lab.compare(&first, Level::Deep);
    assert_eq!((found.verdict, found.level_reached), (CheckVerdict::Intact, DEEP), "{found:?}");
    let found = lab.compare(&third, Level::Restore);
    assert_eq!((found.verdict, found.level_reached), (CheckVerdict::Intact, Some(Level::Restore)), "{found:?}");
    let found = lab.compare(&second, Level::Deep);
    let expected = (CheckVerdict::Unverifiable, QUICK, vec![UNREACHED]);
    assert_eq!((found.verdict, found.level_reached, codes(&found.problems)), expected, "{found:?}");
    assert!(found.problems[0].text.contains("backup_ceph_max_snapshots"), "{found:?}");
    assert_eq!(lab.restored(&third), lab.digest(&volume, None));
}

#[test]
fn recreated_snapshots_are_detected() {
    let lab = &mut *lab();
    let volume = lab.new_volume(true);
    lab.write(&volume, 0, 16 * MIB);
    let full = lab.made(&volume, &Source::default());
    let base = format!("volume-{volume}.backup.{full}");
    lab.write(&volume, 100 * MIB, 8 * MIB);
    let second = lab.made(&volume, &Source { parent: Some(&full), ..Source::default() });
    let [full_end, second_end] = [&full, &second].map(|id| lab.end_of(BACKUPS, &base, id).unwrap());
    for id in [&full, &second] {
        assert_eq!(lab.compare(id, Level::Deep).verdict, CheckVerdict::Intact);
    }

    // The parent's snapshot is created again after the increment: the increment is still complete, and the parent has its data, too.
    lab.recreate(&base, &full_end);
    let found = lab.check(&full);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Unverifiable, vec!["snapshot-order"]), "{found:?}");
    lab.date_later(&base, &full_end);
    let found = lab.check(&full);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Corrupt, vec!["snapshot-remade"]), "{found:?}");
    assert_ne!(lab.restored(&full), lab.digest(&volume, Some(&full_end)), "a restore gives other bytes, so the verdict is right");
    let found = lab.check(&second);
    assert_eq!((found.verdict, codes(&found.warnings)), (CheckVerdict::Intact, vec!["ancestor-remade"]), "{found:?}");
    assert_eq!(lab.restored(&second), lab.digest(&volume, Some(&second_end)));
    let found = lab.compare(&second, Level::Deep);
    assert_eq!(
        (found.verdict, found.level_reached, codes(&found.problems)),
        (CheckVerdict::Unverifiable, QUICK, vec![UNREACHED]),
        "{found:?}"
    );
    assert_eq!(lab.compare(&second, Level::Restore).level_reached, Some(Level::Restore));

    // The parent's snapshot is created again before the increment, after a write to the image: the increment contains that write.
    lab.write_to_image(&base);
    lab.recreate(&base, &second_end);
    lab.date_later(&base, &second_end);
    lab.write(&volume, 300 * MIB, 4 * MIB);
    let third = lab.made(&volume, &Source { parent: Some(&second), ..Source::default() });
    let found = lab.check(&second);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Unverifiable, vec!["snapshot-newer"]), "{found:?}");
    assert_eq!(lab.compare(&second, Level::Restore).verdict, CheckVerdict::Corrupt);
    assert_eq!(lab.check(&third).verdict, CheckVerdict::Intact, "at level quick");
    let found = lab.compare(&third, Level::Deep);
    assert_eq!(
        (found.verdict, found.level_reached, codes(&found.problems)),
        (CheckVerdict::Unverifiable, QUICK, vec![UNREACHED]),
        "{found:?}"
    );
    assert_eq!(lab.compare(&third, Level::Restore).verdict, CheckVerdict::Corrupt);

    // A full backup on its own image, which was created when the backup began.
    let alone = lab.made(&volume, &Source::default());
    let image = format!("volume-{volume}.backup.{alone}");
    let end = lab.end_of(BACKUPS, &image, &alone).unwrap();
    assert_eq!(lab.check(&alone).verdict, CheckVerdict::Intact);
    lab.write_to_image(&image);
    lab.recreate(&image, &end);
    lab.date_later(&image, &end);
    let found = lab.check(&alone);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Corrupt, vec!["snapshot-remade"]), "{found:?}");
    assert_ne!(lab.restored(&alone), lab.digest(&volume, Some(&end)));

    // A copied image has later times and the right bytes.
    let moved = lab.made(&volume, &Source::default());
    let image = format!("volume-{volume}.backup.{moved}");
    let end = lab.end_of(BACKUPS, &image, &moved).unwrap();
    let copy = format!("{BACKUPS}/copy");
    lab.ceph.run("rbd", &["deep", "cp", "--no-progress", &format!("{BACKUPS}/{image}"), &copy]);
    lab.ceph.run("rbd", &["snap", "purge", "--no-progress", &format!("{BACKUPS}/{image}")]);
    lab.ceph.run("rbd", &["rm", "--no-progress", &format!("{BACKUPS}/{image}")]);
    lab.ceph.run("rbd", &["rename", &copy, &format!("{BACKUPS}/{image}")]);
    lab.date_later(&image, &end);
    lab.jobs.run(&json!({"do": "age", "image": image, "key": "create_timestamp", "seconds": 600}));
    let found = lab.check(&moved);
    assert_eq!((found.verdict, codes(&found.problems)), (CheckVerdict::Unverifiable, vec!["snapshot-newer"]), "{found:?}");
    let found = lab.compare(&moved, Level::Restore);
    assert_eq!((found.verdict, codes(&found.warnings)), (CheckVerdict::Intact, vec!["snapshot-newer"]), "{found:?}");
}

#[test]
fn an_unreachable_or_wrong_cluster_is_not_damage() {
    let lab = &mut *lab();
    let backup = Backup {
        id: "b".to_owned(),
        volume_id: Some("v".to_owned()),
        container: Some(BACKUPS.to_owned()),
        size: Some(1),
        ..Backup::default()
    };
    let check = |cluster: &Cluster, backup: &Backup| {
        let subject = Subject { backup, ancestors: &[], level: Level::Quick, settle: Duration::ZERO, now: Timestamp::now() };
        let found = ceph::check(cluster, None, &subject, &Watch::default());
        (found.verdict, found.problems[0].code.clone(), found.problems[0].text.clone())
    };
    let other = format!("{BACKUPS}/volume-other.backup.other");
    lab.ceph.run("rbd", &["create", "--size", "1M", &other]);
    assert_eq!(check(&lab.cluster(READER), &backup).0, CheckVerdict::Missing);
    lab.ceph.run("rbd", &["rm", "--no-progress", &other]);

    // In a pool without any backup none is missing: it is the wrong pool or the wrong cluster.
    let volume = lab.new_volume(true);
    let elsewhere = Backup { container: Some(VOLUMES.to_owned()), ..backup.clone() };
    let (verdict, code, text) = check(&lab.cluster(CINDER), &elsewhere);
    assert_eq!((verdict, code.as_str()), (CheckVerdict::Unverifiable, "pool-without-backups"), "{text}");
    assert!(text.contains(VOLUMES) && text.contains("holds no Cinder backup"), "{text}");
    lab.ceph.run("rbd", &["rm", "--no-progress", &format!("{VOLUMES}/volume-{volume}")]);

    for (pool, expected) in [("no such pool", "pool-missing"), ("--help", "storage-protocol")] {
        let nowhere = Backup { container: Some(pool.to_owned()), ..backup.clone() };
        let (verdict, code, text) = check(&lab.cluster(READER), &nowhere);
        assert_eq!((verdict, code.as_str()), (CheckVerdict::Unverifiable, expected), "{text}");
    }

    let (verdict, code, text) = check(&lab.cluster("nobody"), &backup);
    assert_eq!((verdict, code.as_str()), (CheckVerdict::Unverifiable, "storage-authentication"), "{text}");

    lab.ceph.account("elsewhere", "profile rbd-read-only", &format!("profile rbd-read-only pool={VOLUMES}"));
    let (verdict, code, text) = check(&lab.cluster("elsewhere"), &backup);
    assert_eq!((verdict, code.as_str()), (CheckVerdict::Unverifiable, "storage-permission"), "{text}");

    let wrong = Cluster::with(READER, "/nowhere/ceph.conf", BACKUPS);
    let (verdict, code, text) = check(&wrong, &backup);
    assert_eq!((verdict, code.as_str()), (CheckVerdict::Unverifiable, "storage-configuration"), "{text}");

    // As if the pool were full or its OSDs down: commands wait without an error.
    lab.ceph.osd.signal(rustix::process::Signal::STOP);
    let begun = Instant::now();
    let mut hasty = lab.cluster(READER);
    hasty.deadline = Duration::from_secs(2);
    let (verdict, code, text) = check(&hasty, &backup);
    lab.ceph.osd.signal(rustix::process::Signal::CONT);
    assert_eq!((verdict, code.as_str()), (CheckVerdict::Unverifiable, "storage-unavailable"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(text.contains("ceph health detail"), "{text}");
}

/// Orphans of these volumes: kind, name and backup.
fn orphans_of(document: &Value, volumes: &[&String], backups: &[&String]) -> BTreeSet<(String, String)> {
    let is_of = |orphan: &&Value| {
        let is = |key: &str, all: &[&String]| all.iter().any(|id| orphan[key] == id.as_str());
        is("volume_id", volumes) || is("backup_id", backups)
    };
    let text = |orphan: &Value, key: &str| orphan[key].as_str().unwrap_or_default().to_owned();
    let all = document["orphans"].as_array().unwrap().iter().filter(is_of);
    all.map(|orphan| (text(orphan, "kind"), text(orphan, "name"))).collect()
}

#[test]
fn images_snapshots_and_metadata_without_a_live_backup_are_orphans() {
    let lab = &mut *lab();
    let (full, forget) = (Source::default(), |lab: &Lab, id: &str| lab.database.execute(&format!("DELETE FROM backups WHERE id = '{id}'")));
    // A chain whose last increment has no row any more.
    let chain = lab.new_volume(true);
    lab.write(&chain, 0, 4 * MIB);
    let first = lab.made(&chain, &full);
    let second = lab.made(&chain, &Source { parent: Some(&first), ..Source::default() });
    let third = lab.made(&chain, &Source { parent: Some(&second), ..Source::default() });
    forget(lab, &third);
    let base = format!("volume-{chain}.backup.{first}");
    let third_end = lab.end_of(BACKUPS, &base, &third).unwrap();
    // A row that is deleted, one that was lost before the backup was finished, and a live backup of which nothing is left.
    let volumes = [lab.new_volume(true), lab.new_volume(true), lab.new_volume(true)];
    volumes.iter().for_each(|volume| lab.write(volume, 0, 4 * MIB));
    let [marked, half, gone] =
        [lab.made(&volumes[0], &full), lab.killed(&volumes[1], &full, "before-metadata"), lab.made(&volumes[2], &full)];
    let image = |place: usize, id: &str| format!("volume-{}.backup.{id}", volumes[place]);
    // After the others were made, as if it had been deleted just now.
    let deleted = "deleted = 1, status = 'deleted', deleted_at = datetime('now', '+1 second')";
    lab.database.execute(&format!("UPDATE backups SET {deleted} WHERE id = '{marked}'"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    forget(lab, &half);
    let gone_image = format!("{BACKUPS}/{}", image(2, &gone));
    lab.ceph.run("rbd", &["snap", "purge", "--no-progress", &gone_image]);
    lab.ceph.run("rbd", &["rm", "--no-progress", &gone_image]);
    lab.ceph.run("rados", &["--pool", BACKUPS, "rm", &format!("backup.{gone}.meta")]);
    let [marked_end, half_end] = [(0, &marked), (1, &half)]
        .map(|(place, id)| format!("{0}@{1}", image(place, id), lab.end_of(BACKUPS, &image(place, id), id).unwrap()));

    let program = Program::on(lab.database.url());
    // Cinder leaves the snapshots of the volume until the volume is deleted.
    let source = |place: usize, id: &str| {
        let image = format!("volume-{}", volumes[place]);
        format!("{image}@{}", lab.end_of(VOLUMES, &image, id).unwrap())
    };
    let sources = [("row-deleted", source(0, &marked)), ("no-row", source(1, &half))];
    let third_source = format!("volume-{chain}@{}", lab.end_of(VOLUMES, &format!("volume-{chain}"), &third).unwrap());
    let options = [("user", CINDER), ("conf", lab.ceph.conf.to_str().unwrap()), ("pool", BACKUPS)];
    let flags: Vec<String> = options.iter().map(|(name, value)| format!("--storage-option=backup_ceph_{name}={value}")).collect();
    let path = std::env::var("PATH").unwrap();
    let find = |settle: &str, script: Option<&str>| {
        let mut command = program.command(&["check", "--orphans", "-f", "json", "--settle", settle]);
        command
            .args(&flags)
            .args(["--ceph-source-pool", VOLUMES])
            .args(script.iter().flat_map(|script| ["--commands", script]))
            .env("PATH", &path);
        answer(&mut command)
    };
    let (backups, all) = ([&third, &marked, &half, &gone], [&chain, &volumes[0], &volumes[1], &volumes[2]]);
    let script = program.path("remove.sh").display().to_string();
    let found = find("0", Some(&script));
    let document = found.json();
    let right: BTreeSet<(String, String)> = [
        ("no-row", format!("{base}@{third_end}")),
        ("no-row", format!("backup.{third}.meta")),
        ("row-deleted", image(0, &marked)),
        ("row-deleted", marked_end),
        ("row-deleted", format!("backup.{marked}.meta")),
        ("half", image(1, &half)),
        ("half", half_end),
        ("nothing-stored", format!("{{\"base\": \"{}\"}}", image(2, &gone))),
    ]
    .into_iter()
    .chain(sources)
    .chain([("no-row", third_source)])
    .map(|(kind, name)| (kind.to_owned(), name))
    .collect();
    assert_eq!(orphans_of(&document, &all, &backups), right, "{document:#} {}", found.stderr);
    assert_eq!((found.code, &document["unread"]), (Some(9), &json!([])), "{}", found.stderr);
    // A record cannot be made for the one that has no row.
    let lost = answer(program.command(&["rescue", "-f", "json", "--settle", "0"]).args(&flags).env("PATH", &path));
    assert_eq!((lost.code, lost.json()["backups"].as_array().map(Vec::len)), (Some(4), Some(0)), "{}", lost.stderr);
    assert!(lost.stderr.contains("in Ceph without a live row"), "{}", lost.stderr);
    let marked_bytes = document["orphans"].as_array().unwrap().iter().find(|one| one["name"] == image(0, &marked).as_str()).unwrap();
    assert_eq!(marked_bytes["bytes"], 4 * MIB);
    assert_eq!(orphans_of(&find("1h", None).json(), &all, &backups).len(), 1, "all but what is gone is too young");

    let text = std::fs::read_to_string(&script).unwrap();
    let ended = Command::new("sh").arg(&script).output().unwrap();
    assert!(ended.status.success(), "{}\n{text}", String::from_utf8_lossy(&ended.stderr));
    let left = orphans_of(&find("0", None).json(), &all, &backups);
    let right: BTreeSet<_> = right.into_iter().filter(|(kind, _)| kind != "row-deleted").collect();
    assert_eq!(left, right, "{text}");
    for id in [&first, &second] {
        assert_eq!(lab.check(id).verdict, CheckVerdict::Intact);
    }
}
