//! `check` on backups that Cinder's own drivers made, complete and killed: the verdicts are right, and Cinder restores the right data
//! from each intact one.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;
use uuid::Uuid;

use crate::cinder;
use crate::program::Program;
use crate::real_backups::{BLOCK, Die, Done, GIB, Job, RealBackups, Store, VolumeData};
use crate::schemas::scratch;
use crate::servers::storage::PASSWORD;
use crate::servers::{self, run, swift};

const MIB: u64 = 1 << 20;

/// Points at which a driver is killed, and the verdicts that are right then.
const KILLED: [(&str, Die, &[&str]); 10] = [
    ("dies-container", Die::Container, &["missing"]),
    ("dies-prefix", Die::Prefix, &["missing"]),
    ("dies-objects", Die::Objects(3), &["incomplete"]),
    ("dies-half-object", Die::HalfObject(2), &["incomplete"]),
    ("dies-half-sha256file", Die::HalfSha256File, &["incomplete"]),
    ("dies-sha256file", Die::Sha256File, &["incomplete"]),
    ("dies-half-metadata", Die::HalfMetadata, &["incomplete", "corrupt"]),
    ("dies-metadata", Die::Metadata, &["intact"]),
    ("dies-object-count", Die::ObjectCount, &["intact"]),
    ("dies-volume", Die::Volume, &["intact"]),
];

/// A Cinder, its jobs, and the data of each backup.
struct Scene {
    cinder: RealBackups,
    store: Store,
    data: Vec<VolumeData>,
    jobs: Vec<Job>,
    /// For each job its name, the index of its data, and the verdicts that are right.
    of: Vec<(String, usize, Vec<&'static str>)>,
    /// The volume of each backup, by its name.
    volumes: BTreeMap<String, String>,
}

impl Scene {
    /// A scene with three states of one volume; the second has changes of all kinds.
    fn new(store: impl FnOnce(&RealBackups) -> Store) -> Self {
        let cinder = RealBackups::new();
        let store = store(&cinder);
        let mut first = VolumeData::zeros(cinder.volumes.join("first"), GIB, 1);
        // At both ends, across the ends of objects, at unaligned offsets.
        first.scribble(0, MIB).scribble(63 * MIB, 2 * MIB).scribble(500 * MIB + 12_345, 100_000).scribble(GIB - BLOCK, BLOCK);
        first.write(200 * MIB, &[b'x'; 300_000]);
        let mut second = first.copy(cinder.volumes.join("second"));
        // Data over data, data over zeros, zeros over data, single bytes, the last byte.
        second.scribble(100, 5).scribble(700 * MIB, MIB + 1).write(63 * MIB, &vec![0; 1_500_000]).write(200 * MIB + 7, b"y");
        second.write(GIB - 1, b"z");
        let mut third = second.copy(cinder.volumes.join("third"));
        third.scribble(0, 2 * BLOCK).write(700 * MIB, &vec![0; 1 << 20]);
        Self { cinder, store, data: vec![first, second, third], jobs: Vec::new(), of: Vec::new(), volumes: BTreeMap::new() }
    }

    /// A full backup of a volume of its own.
    fn full(&mut self, name: &str, state: usize, right: &[&'static str], set: impl FnOnce(Job) -> Job) {
        self.add(name, Uuid::new_v4().to_string(), state, right, set);
    }

    /// An increment of another backup.
    fn on(&mut self, parent: &str, name: &str, state: usize, right: &[&'static str], set: impl FnOnce(Job) -> Job) {
        self.add(name, self.volumes[parent].clone(), state, right, |job| set(job.on(parent)));
    }

    fn add(&mut self, name: &str, volume: String, state: usize, right: &[&'static str], set: impl FnOnce(Job) -> Job) {
        self.jobs.push(set(Job::backup(&self.store, name, &volume, &self.data[state]).object_size(32 * MIB)));
        self.of.push((name.to_owned(), state, right.to_vec()));
        self.volumes.insert(name.to_owned(), volume);
    }

    /// Full backups and increments with every compression.
    fn chains(&mut self) {
        self.full("zlib", 0, &["intact"], |job| job.compression("zlib"));
        self.full("bz2", 0, &["intact"], |job| job.compression("BZ2"));
        self.full("zstd", 1, &["intact"], |job| job.compression("zstd"));
        // The sizes and compressions of a chain may differ.
        self.on("zlib", "zstd-on-zlib", 1, &["intact"], |job| job.compression("zstd").object_size(8 * MIB));
        self.on("zstd-on-zlib", "none-on-zstd", 2, &["intact"], |job| job.compression("none"));
        self.on("none-on-zstd", "nothing-on-none", 2, &["intact"], |job| job.compression("gzip"));
    }

    fn killed(&mut self) {
        for (name, point, right) in KILLED {
            self.full(name, 1, right, |job| job.compression("zstd").die(point));
        }
        self.on("zlib", "dies-on-zlib", 1, &["incomplete"], |job| job.die(Die::Objects(2)));
        self.on("bz2", "done-on-bz2", 1, &["intact"], |job| job.die(Die::Metadata));
    }

    /// The jobs for stores over a network: fewer, because they all share the code above them. One backup has objects of `many` bytes, so
    /// that there are many.
    fn over_a_network(&mut self, many: u64) {
        self.full("bz2", 0, &["intact"], |job| job.compression("bz2"));
        self.on("bz2", "zstd-on-bz2", 1, &["intact"], |job| job.compression("zstd").object_size(8 * MIB));
        self.on("zstd-on-bz2", "none-on-zstd", 2, &["intact"], |job| job.compression("none"));
        self.full("many", 0, &["intact"], |job| job.compression("zlib").object_size(many));
        let points = ["dies-prefix", "dies-objects", "dies-half-object", "dies-sha256file", "dies-metadata"];
        for (name, point, right) in KILLED.into_iter().filter(|(name, ..)| points.contains(name)) {
            self.full(name, 1, right, |job| job.compression("zstd").die(point));
        }
        self.on("bz2", "done-on-bz2", 1, &["intact"], |job| job.die(Die::Metadata));
    }

    /// Runs the jobs, checks all backups at level restore, and has Cinder restore the intact ones, except those with the warning that
    /// Cinder cannot. Returns the codes of each backup's warnings, by name.
    fn play(self) -> BTreeMap<String, Vec<String>> {
        let done: BTreeMap<String, Done> = self.of.iter().map(|(name, ..)| name.clone()).zip(self.cinder.run(&self.jobs)).collect();
        for (name, found) in &done {
            let expected = if name.starts_with("dies") || name.starts_with("done-on") { "killed" } else { "done" };
            assert_eq!(found.outcome, expected, "{name}: {:?}", found.error);
        }
        let program = Program::on(self.cinder.database.url());
        let flags = self.store.flags();
        let mut args = vec!["check", "--all", "--level", "restore", "--settle", "0"];
        args.extend(flags.iter().map(String::as_str));
        let damaged = self.of.iter().any(|(_, _, right)| !right.contains(&"intact"));
        let document = program.json(if damaged { 9 } else { 0 }, &args);
        let results = by_id(&document);
        assert_eq!(results.len(), self.of.len(), "{document:#}");
        for (name, _, right) in &self.of {
            let result = results[done[name].id().as_str()];
            let verdict = result["verdict"].as_str().expect("a verdict");
            assert!(right.contains(&verdict), "{name} is {verdict}: {result:#}");
            assert_eq!(result["problems"].as_array().map(Vec::is_empty), Some(verdict == "intact"), "{name}: {result:#}");
            if verdict == "intact" {
                // At this level the data of the parents counts, too.
                assert!(result["bytes"]["checked"].as_u64() >= result["bytes"]["expected"].as_u64(), "{name}: {result:#}");
                assert!(result["objects"]["expected"].as_u64() >= result["object_count"].as_u64(), "{name}: {result:#}");
            }
            if done[name].outcome == "done" {
                assert_eq!(result["object_count"], done[name].backup["object_count"], "{name}");
            }
        }
        // Cinder restores only available backups, so those that are only not available in the database are repaired first.
        let lost: Vec<&(String, usize, Vec<&str>)> =
            self.of.iter().filter(|(name, _, right)| right.contains(&"intact") && done[name].outcome == "killed").collect();
        for (name, ..) in &lost {
            let id = done[name].id();
            let mut args = vec!["repair", id.as_str(), "--check", "restore", "--settle", "0", "--older-than", "0", "--yes"];
            args.extend(["--reason", "the process was killed"]);
            args.extend(flags.iter().map(String::as_str));
            program.json(0, &args);
            let column = |column| self.cinder.database.cell("backups", &id, column);
            assert_eq!(column("status").as_deref(), Some("available"), "{name}");
            let result = results[id.as_str()];
            assert_eq!(column("object_count"), Some(result["object_count"].to_string()), "{name}");
        }
        let intact: Vec<&(String, usize, Vec<&str>)> =
            self.of.iter().filter(|(name, ..)| results[done[name].id().as_str()]["verdict"] == "intact").collect();
        let out = |name: &str| self.cinder.volumes.join(format!("restored-{name}"));
        let restores: Vec<Job> = intact.iter().map(|(name, ..)| Job::restore_id(&self.store, &done[name].id(), &out(name))).collect();
        for ((name, state, _), restored) in intact.iter().zip(self.cinder.run(&restores)) {
            let warnings = results[done[name].id().as_str()]["warnings"].as_array().expect("a list");
            if warnings.iter().any(|warning| warning["code"] == "cinder-cannot-restore") {
                let error = restored.error.unwrap_or_default();
                assert!(error.contains("actual object list does not match"), "{name}: Cinder can restore it: {error}");
                continue;
            }
            assert_eq!(restored.outcome, "done", "{name}: {:?}", restored.error);
            assert!(self.data[*state].is(&out(name)), "{name} is intact, but Cinder restores other data");
            fs::remove_file(out(name)).expect("it was restored");
        }
        let codes = |id: &str| {
            let warnings = results[id]["warnings"].as_array().expect("a list");
            warnings.iter().filter_map(|warning| warning["code"].as_str().map(str::to_owned)).collect()
        };
        done.iter().map(|(name, done)| (name.clone(), codes(&done.id()))).collect()
    }
}

fn by_id(document: &Value) -> BTreeMap<&str, &Value> {
    let results = document["results"].as_array().expect("results");
    results.iter().map(|result| (result["id"].as_str().expect("an id"), result)).collect()
}

#[test]
fn checks_on_posix_agree_with_cinder() {
    let mut scene = Scene::new(|cinder| Store::posix(&cinder.path("store")));
    scene.chains();
    scene.full("none", 0, &["intact"], |job| job.compression("none"));
    scene.killed();
    scene.play();
}

#[test]
fn checks_on_swift_agree_with_cinder() {
    let mut scene = Scene::new(|_| Store::swift(servers::swift(), "check-real"));
    scene.over_a_network(MIB);
    scene.play();
}

#[test]
fn checks_on_swift_with_keystone_agree_with_cinder() {
    let mut scene = Scene::new(|_| Store::keystone(servers::keystone(), "check-real"));
    scene.full("zstd", 0, &["intact"], |job| job.compression("zstd"));
    scene.on("zstd", "zlib-on-zstd", 1, &["intact"], |job| job.compression("zlib"));
    scene.full("dies-objects", 1, &["incomplete"], |job| job.die(Die::Objects(2)));
    scene.play();
}

#[test]
fn checks_on_s3_agree_with_cinder() {
    let mut scene = Scene::new(|_| Store::s3(servers::swift(), "check-real-s3"));
    // About 340 objects on pages of 249, because botocore is slow for each object.
    scene.over_a_network(3 * MIB);
    scene.play();
}

#[test]
fn checks_on_gcs_agree_with_cinder() {
    let mut scene = Scene::new(|_| Store::gcs(servers::gcs(), "check-real"));
    scene.over_a_network(MIB);
    let known = scene.play();
    // The real driver reads only the first page of a listing.
    assert_eq!(known["many"], ["cinder-cannot-restore"]);
}

#[test]
fn checks_of_over_a_thousand_objects_agree_with_cinder() {
    let mut scene = Scene::new(|cinder| Store::posix(&cinder.path("store")));
    scene.full("many", 0, &["intact"], |job| job.object_size(MIB).compression("zlib"));
    scene.on("many", "more", 1, &["intact"], |job| job.object_size(2 * MIB).compression("zlib"));
    scene.play();
}

/// The orphans that Cinder's own driver leaves: the row of a finished backup is lost, that of a killed one is lost, and a backup is marked as
/// deleted without its objects. What Cinder itself deletes leaves nothing.
/// The script of commands, run with this environment, removes what it names and nothing else.
fn orphans_agree_with_cinder(store: impl FnOnce(&RealBackups) -> Store, tools: Option<&[(&str, String)]>) {
    let cinder = RealBackups::new();
    let store = store(&cinder);
    let mut data = VolumeData::zeros(cinder.volumes.join("data"), GIB, 1);
    data.scribble(0, MIB).scribble(500 * MIB, MIB);
    let names = ["kept", "increment", "lost", "killed", "failed", "marked", "gone", "deleted"];
    let mut jobs: Vec<Job> = Vec::new();
    let volumes: Vec<String> = names.iter().map(|_| Uuid::new_v4().to_string()).collect();
    for (name, volume) in names.iter().zip(&volumes) {
        let volume = if *name == "increment" { &volumes[0] } else { volume };
        let job = Job::backup(&store, name, volume, &data).object_size(64 * MIB).compression("zlib");
        jobs.push(match *name {
            "increment" => job.on("kept"),
            "killed" | "failed" => job.die(Die::Objects(2)),
            _ => job,
        });
    }
    jobs.push(Job::delete(&store, "deleted"));
    let done = cinder.run(&jobs);
    let id = |name: &str| done[names.iter().position(|of| *of == name).expect("a job")].id();
    let database = &cinder.database;
    for name in ["lost", "killed"] {
        database.execute(&format!("DELETE FROM backups WHERE id = '{}'", id(name)));
    }
    // After the others were made, as if it had been deleted just now.
    database.execute(&format!(
        "UPDATE backups SET deleted = 1, status = 'deleted', deleted_at = datetime('now', '+1 second') WHERE id = '{}'",
        id("marked")
    ));
    std::thread::sleep(std::time::Duration::from_secs(3));
    // Where nothing of this backup is.
    let prefix = done[6].text("service_metadata").replace(&id("gone"), &Uuid::new_v4().to_string());
    database.execute(&format!("UPDATE backups SET service_metadata = '{prefix}' WHERE id = '{}'", id("gone")));
    // Its container does not exist either, which is no error.
    database.execute(&format!("UPDATE backups SET container = 'no-such-{}' WHERE id = '{}'", Uuid::new_v4(), id("gone")));
    let moved = Uuid::new_v4().to_string();
    database.execute(&format!("UPDATE backups SET id = '{moved}' WHERE id = '{}'", id("gone")));

    let program = Program::on(database.url());
    let flags = store.flags();
    let mut args = vec!["check", "--orphans", "--settle", "0"];
    args.extend(flags.iter().map(String::as_str));
    let document = program.json(9, &args);
    let found: BTreeMap<(&str, &str), u64> = document["orphans"]
        .as_array()
        .expect("orphans")
        .iter()
        .map(|one| {
            ((one["kind"].as_str().expect("a kind"), one["backup_id"].as_str().expect("an id")), one["objects"].as_u64().expect("a number"))
        })
        .collect();
    let (kept, increment) = (id("kept"), id("increment"));
    let (gone, lost, killed, marked) = (id("gone"), id("lost"), id("killed"), id("marked"));
    let right = [
        ("no-row", gone.as_str(), 18),
        ("no-row", &lost, 18),
        ("half", &killed, 2),
        ("row-deleted", &marked, 18),
        ("nothing-stored", &moved, 0),
    ];
    assert_eq!(found, right.iter().map(|(kind, id, objects)| ((*kind, *id), *objects)).collect(), "{document:#}");
    assert_eq!(document["unread"], serde_json::json!([]));
    let script = program.path("remove.sh").display().to_string();
    program.expect(9, &[&args[..], &["--commands", &script]].concat());
    if let Some(tools) = tools {
        let mut shell = Command::new("sh");
        shell.arg(&script).env_clear().env("PATH", "/usr/bin:/bin").envs(tools.iter().map(|(name, value)| (*name, value)));
        let ended = shell.output().expect("a shell");
        let text = fs::read_to_string(&script).expect("a script");
        assert!(ended.status.success(), "{} {}\n{text}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        let document = program.json(9, &args);
        let mut kinds: Vec<&str> = document["orphans"].as_array().expect("orphans").iter().filter_map(|one| one["kind"].as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["half", "no-row", "no-row", "nothing-stored"], "{document:#}\n{text}");
        // Without the comment sign, also those that may be of another cloud.
        let swapped = ["aws", "swift", "rm"].iter().fold(text, |text, tool| {
            text.replace(&format!("\n{tool} "), "\n# done: ").replace(&format!("\n# {tool} "), &format!("\n{tool} "))
        });
        fs::write(&script, swapped).expect("a script");
        assert!(shell.output().expect("a shell").status.success());
        assert_eq!(program.json(9, &args)["orphans"].as_array().map(Vec::len), Some(1));
        let mut check = vec!["check", &kept, &increment];
        check.extend(flags.iter().map(String::as_str));
        program.expect(0, &check);
        return;
    }
    // All of it is too young.
    let young = program.json(9, &[&args[..3], &["1h"], &args[4..]].concat());
    assert_eq!(young["orphans"].as_array().map(Vec::len), Some(1), "{young:#}");
}

#[test]
fn orphans_on_posix_agree_with_cinder() {
    orphans_agree_with_cinder(|cinder| Store::posix(&cinder.path("store")), Some(&[]));
}

#[test]
fn orphans_on_swift_agree_with_cinder() {
    let server = servers::swift();
    let path = format!("{}:/usr/bin:/bin", cinder::program("swift").parent().expect("a folder").display());
    let login = [("ST_AUTH", server.auth_url()), ("ST_USER", swift::USER.to_owned()), ("ST_KEY", PASSWORD.to_owned()), ("PATH", path)];
    orphans_agree_with_cinder(|_| Store::swift(server, "orphans"), Some(&login));
}

#[test]
fn orphans_on_s3_agree_with_cinder() {
    let server = servers::swift();
    // The client of Amazon is not installed, but the library that it uses is.
    let folder = scratch("tools");
    let aws = "import boto3, json, sys\n\
        assert sys.argv[1:4] == ['s3api', 'delete-objects', '--endpoint-url'] and sys.argv[5] == '--bucket' and sys.argv[7] == '--delete'\n\
        client = boto3.client('s3', endpoint_url=sys.argv[4], region_name='us-east-1')\n\
        answer = client.delete_objects(Bucket=sys.argv[6], Delete=json.loads(sys.argv[8]))\n\
        sys.exit(1 if answer.get('Errors') else 0)\n";
    let tool = folder.join("aws");
    fs::write(&tool, format!("#!{}\n{aws}", cinder::program("python").display())).expect("a new folder");
    run(Command::new("chmod").arg("+x").arg(&tool));
    let login = [
        ("AWS_ACCESS_KEY_ID", swift::USER.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", PASSWORD.to_owned()),
        ("PATH", format!("{}:/usr/bin:/bin", folder.display())),
    ];
    orphans_agree_with_cinder(|_| Store::s3(server, "orphans-s3"), Some(&login));
}

#[test]
fn orphans_on_gcs_agree_with_cinder() {
    orphans_agree_with_cinder(|_| Store::gcs(servers::gcs(), "orphans"), None);
}
