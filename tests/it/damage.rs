//! The damage matrix: backups that Cinder's own drivers made on each kind of storage, damaged there in every way. A deep check reports
//! every damage and no other.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use uuid::Uuid;

use crate::program::Program;
use crate::real_backups::{Done, GIB, Job, RealBackups, Store, VolumeData};
use crate::servers::storage::{PASSWORD, percent};
use crate::servers::{self, gcs, swift};

const MIB: u64 = 1 << 20;

/// Access to the objects that does not use the program's code.
enum BackDoor {
    Directory(PathBuf),
    /// The URL of a container (a bucket in Swift's S3), and a token.
    Swift(String, String),
    /// The emulator's inner port, which needs no token, and a bucket.
    Google(u16, String),
}

impl BackDoor {
    fn swift(server: &swift::Swift, container: &str) -> Self {
        let request = ureq::get(server.auth_url()).header("X-Auth-User", swift::USER).header("X-Auth-Key", PASSWORD);
        let token = request.call().expect("a token").headers()["x-auth-token"].to_str().expect("ASCII").to_owned();
        Self::Swift(format!("{}/{container}", server.storage_url()), token)
    }

    fn google(server: &gcs::Gcs, bucket: &str) -> Self {
        Self::Google(server.inner_port, bucket.to_owned())
    }

    fn agent() -> Agent {
        Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().into()
    }

    fn get(&self, name: &str) -> Vec<u8> {
        let request = match self {
            Self::Directory(dir) => return fs::read(dir.join(name)).expect("the object is there"),
            Self::Swift(container, token) => {
                Self::agent().get(format!("{container}/{}", percent(name, b"/"))).header("X-Auth-Token", token)
            }
            Self::Google(port, bucket) => {
                Self::agent().get(format!("http://127.0.0.1:{port}/storage/v1/b/{bucket}/o/{}?alt=media", percent(name, b"")))
            }
        };
        let mut bytes = Vec::new();
        request.call().expect("the object is there").into_body().into_reader().read_to_end(&mut bytes).expect("all of it");
        bytes
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let sent = match self {
            Self::Directory(dir) => return fs::write(dir.join(name), bytes).expect("there is space"),
            Self::Swift(container, token) => {
                Self::agent().put(format!("{container}/{}", percent(name, b"/"))).header("X-Auth-Token", token).send(bytes)
            }
            Self::Google(port, bucket) => {
                let name = percent(name, b"");
                Self::agent()
                    .post(format!("http://127.0.0.1:{port}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"))
                    .send(bytes)
            }
        };
        sent.expect("the object is stored");
    }

    fn remove(&self, name: &str) {
        let request = match self {
            Self::Directory(dir) => return fs::remove_file(dir.join(name)).expect("the object is there"),
            Self::Swift(container, token) => {
                Self::agent().delete(format!("{container}/{}", percent(name, b"/"))).header("X-Auth-Token", token)
            }
            Self::Google(port, bucket) => {
                Self::agent().delete(format!("http://127.0.0.1:{port}/storage/v1/b/{bucket}/o/{}", percent(name, b"")))
            }
        };
        request.call().expect("the object is there");
    }
}

/// A full backup and an increment on it.
struct Pair {
    program: Program,
    flags: Vec<String>,
    full: Done,
    child: Done,
}

impl Pair {
    /// What a check of these backups found.
    fn results(&self, level: &str, ids: &[&str]) -> (Option<i32>, Value) {
        let mut args = vec!["check", "--level", level, "--settle", "0", "-f", "json"];
        args.extend(ids.iter().copied().chain(self.flags.iter().map(String::as_str)));
        let answer = self.program.run(&args);
        (answer.code, answer.json())
    }

    /// A quick check finds the same of the full backup in the listing of both and in one of its own.
    fn check_listing(&self, what: &str) {
        let (full, child) = (self.full.id(), self.child.id());
        let [together, alone] = [&[&*full, &*child] as &[&str], &[&*full]].map(|ids| {
            let mut document = self.results("quick", ids).1;
            let results = document["results"].as_array_mut().expect("results");
            let mut result = results.drain(..).find(|result| result["id"] == *full).expect("a result");
            result["checked_at"] = Value::Null;
            // Times of objects are in whole seconds, and Swift rounds them up: an object is busy until its second has passed.
            result["busy"] = Value::Null;
            result
        });
        assert_eq!(together, alone, "{what}");
    }

    /// A deep check of both: their verdicts and the codes of their problems.
    fn check(&self, code: i32) -> [(String, Vec<String>); 2] {
        let ids = [self.full.id(), self.child.id()];
        let (found, document) = self.results("deep", &ids.each_ref().map(|id| &**id));
        assert_eq!(found, Some(code), "{document:#}");
        ids.each_ref().map(|id| {
            let results = document["results"].as_array().expect("results");
            let result = results.iter().find(|result| result["id"] == id.as_str()).unwrap_or_else(|| panic!("{id} in {document:#}"));
            let problems = result["problems"].as_array().expect("a list").iter();
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            (text(&result["verdict"]), problems.map(|problem| text(&problem["code"])).collect())
        })
    }
}

/// The names of a backup's objects. All drivers use the same ones after the prefix.
struct Names(String);

impl Names {
    fn of(done: &Done) -> Self {
        Self(done.text("service_metadata"))
    }

    fn data(&self, number: u32) -> String {
        format!("{}-{number:05}", self.0)
    }

    fn metadata(&self) -> String {
        format!("{}_metadata", self.0)
    }

    fn sha256file(&self) -> String {
        format!("{}_sha256file", self.0)
    }
}

/// Damages a backup in every way, one after the other, and restores its objects each time.
fn matrix(store: &Store, back_door: impl Fn(&Done) -> BackDoor, cinder: &RealBackups, compression: &str) {
    let mut first = VolumeData::zeros(cinder.volumes.join("first"), GIB, 7);
    first.scribble(0, MIB).scribble(200 * MIB + 5, MIB).scribble(GIB - 1000, 1000);
    let mut second = first.copy(cinder.volumes.join("second"));
    second.scribble(10, 100_000).scribble(700 * MIB, 40 * MIB);
    let volume = Uuid::new_v4().to_string();
    let set = |job: Job| job.object_size(128 * MIB).compression(compression);
    let jobs = [
        set(Job::backup(store, "full", &volume, &first)),
        // Another compression: a chain may mix them.
        Job::backup(store, "child", &volume, &second).on("full").object_size(16 * MIB).compression("none"),
    ];
    let [full, child]: [Done; 2] = cinder.run(&jobs).try_into().expect("two jobs");
    assert_eq!((full.outcome.as_str(), child.outcome.as_str()), ("done", "done"), "{full:?} {child:?}");
    let (door, child_door) = (back_door(&full), back_door(&child));
    let (names, child_names) = (Names::of(&full), Names::of(&child));
    let pair = Pair { program: Program::on(cinder.database.url()), flags: store.flags(), full, child };
    let intact = [("intact".to_owned(), vec![]), ("intact".to_owned(), vec![])];
    assert_eq!(pair.check(0), intact);

    let changed = |bytes: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.to_vec();
        change(&mut bytes);
        bytes
    };
    let [one, two] = [1, 2].map(|number| (names.data(number), door.get(&names.data(number))));
    let middle = one.1.len() / 2;
    let last = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    let side_file = |name: String, of: String| (name.clone(), door.get(&name), child_door.get(&of));
    let (metadata, own_metadata, other_metadata) = side_file(names.metadata(), child_names.metadata());
    let (sha256file, own_sha256file, other_sha256file) = side_file(names.sha256file(), child_names.sha256file());
    let extra = names.data(77_777);
    let older = changed(&one.1, &|bytes| bytes[..1_000].fill(0));
    type Harm<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn());
    let heal = || door.put(&one.0, &one.1);
    let harms: &[Harm<'_>] = &[
        ("an object has a flipped bit", &|| door.put(&one.0, &changed(&one.1, &|bytes| bytes[middle] ^= 0x10)), &heal),
        ("an object lacks its last byte", &|| door.put(&one.0, &changed(&one.1, &last)), &heal),
        ("an object lacks its second half", &|| door.put(&one.0, &changed(&one.1, &|bytes| bytes.truncate(middle))), &heal),
        ("an object is empty", &|| door.put(&one.0, b""), &heal),
        ("an object has extra bytes", &|| door.put(&one.0, &changed(&one.1, &|bytes| bytes.extend(b"more"))), &heal),
        ("an object is missing", &|| door.remove(&one.0), &heal),
        (
            "two objects are swapped",
            &|| {
                door.put(&one.0, &two.1);
                door.put(&two.0, &one.1);
            },
            &|| {
                heal();
                door.put(&two.0, &two.1);
            },
        ),
        ("an object is an older version of the same size", &|| door.put(&one.0, &older), &heal),
        ("there is an extra object", &|| door.put(&extra, b"x"), &|| door.remove(&extra)),
        ("the metadata is another backup's", &|| door.put(&metadata, &other_metadata), &|| door.put(&metadata, &own_metadata)),
        ("the sha256file is another backup's", &|| door.put(&sha256file, &other_sha256file), &|| door.put(&sha256file, &own_sha256file)),
        ("the metadata lacks its last byte", &|| door.put(&metadata, &changed(&own_metadata, &last)), &|| {
            door.put(&metadata, &own_metadata)
        }),
    ];
    for (what, harm, heal) in harms {
        harm();
        let [(verdict, problems), (of_child, by_parent)] = pair.check(9);
        assert!(["corrupt", "incomplete"].contains(&verdict.as_str()) && !problems.is_empty(), "{what}: {verdict}, {problems:?}");
        // A restore of the child reads its parent's data, but not its parent's sha256file.
        let (wanted, told) = if what.contains("sha256file") { ("intact", vec![]) } else { ("corrupt", vec!["parent-damaged".to_owned()]) };
        assert_eq!((of_child.as_str(), &by_parent), (wanted, &told), "{what}: its child");
        pair.check_listing(what);
        heal();
    }
    // Damage of a child does not affect its parent.
    let own = child_names.data(1);
    let bytes = child_door.get(&own);
    child_door.put(&own, &changed(&bytes, &|bytes| bytes[99] ^= 1));
    let [(of_parent, _), (verdict, problems)] = pair.check(9);
    assert_eq!((of_parent.as_str(), verdict.as_str()), ("intact", "corrupt"), "{problems:?}");
    child_door.put(&own, &bytes);
    assert_eq!(pair.check(0), intact, "everything is restored");
}

#[test]
fn every_damage_is_found_in_a_directory() {
    let cinder = RealBackups::new();
    let folder = cinder.path("store");
    let door = |done: &Done| BackDoor::Directory(folder.join(done.text("container")));
    matrix(&Store::posix(&folder), door, &cinder, "none");
}

#[test]
fn every_damage_is_found_on_swift() {
    let server = servers::swift();
    let door = |_: &Done| BackDoor::swift(server, "damage");
    matrix(&Store::swift(server, "damage"), door, &RealBackups::new(), "zlib");
}

#[test]
fn every_damage_is_found_on_s3() {
    let server = servers::swift();
    let door = |_: &Done| BackDoor::swift(server, "damage-s3");
    matrix(&Store::s3(server, "damage-s3"), door, &RealBackups::new(), "zstd");
}

#[test]
fn every_damage_is_found_on_gcs() {
    let server = servers::gcs();
    let door = |_: &Done| BackDoor::google(server, "damage");
    matrix(&Store::gcs(server, "damage"), door, &RealBackups::new(), "bz2");
}
