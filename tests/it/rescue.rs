//! `rescue` against Cinder: the records are those of a real export before the loss, and after their import by Cinder's own code, Cinder
//! restores each volume byte for byte.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::program::Program;
use crate::real_backups::{Done, GIB, Job, RealBackups, Store, VolumeData};
use crate::servers;

const MIB: u64 = 1 << 20;
/// The fields that an import sets itself, whatever the record says.
const SET_BY_IMPORT: [&str; 6] = ["availability_zone", "host", "project_id", "service", "updated_at", "user_id"];

/// Chains of backups of three volumes.
struct Chains {
    cinder: RealBackups,
    store: Store,
    /// The project of each volume.
    projects: BTreeMap<String, String>,
    /// The data and the row of each backup, by its name.
    made: BTreeMap<String, (VolumeData, Done)>,
}

fn name(volume: &str, number: usize) -> String {
    format!("{volume} {number}")
}

impl Chains {
    fn new(store: impl FnOnce(&RealBackups) -> Store) -> Self {
        let cinder = RealBackups::new();
        let store = store(&cinder);
        let projects = (1..=3).map(|number| (Uuid::new_v4().to_string(), format!("project-{number}"))).collect();
        Self { cinder, store, projects, made: BTreeMap::new() }
    }

    /// Makes the backups with these numbers of each volume: a full one, then an increment on the one before, the third on the first.
    fn make(&mut self, numbers: std::ops::Range<usize>) {
        let mut jobs = Vec::new();
        let mut all: BTreeMap<String, VolumeData> = BTreeMap::new();
        for (volume, project) in &self.projects {
            for number in numbers.clone() {
                let (own, file) = (name(volume, number), self.cinder.volumes.join(name(volume, number)));
                let parent = number.checked_sub(if number == 3 { 2 } else { 1 }).map(|parent| name(volume, parent));
                let known = parent.as_ref().and_then(|parent| self.made.get(parent));
                let mut data = match &parent {
                    Some(parent) => known.map_or_else(|| &all[parent], |(data, _)| data).copy(file),
                    None => VolumeData::zeros(file, GIB, jobs.len() as u64),
                };
                data.scribble(number as u64 * 70 * MIB + 12_345, 300_000).scribble(GIB - 40_000, 40_000);
                let job = Job::backup(&self.store, &own, volume, &data).object_size(32 * MIB).compression("zlib");
                let job = job.described(&format!("{number}: $(x) 'Ä' \"说\"\n"), "nightly").context(context(project));
                jobs.push(match (&parent, known) {
                    (Some(_), Some((_, done))) => job.on_id(&done.id()),
                    (Some(parent), None) => job.on(parent),
                    (None, _) => job,
                });
                all.insert(own, data);
            }
        }
        let names: Vec<String> = self.projects.keys().flat_map(|volume| numbers.clone().map(move |number| name(volume, number))).collect();
        for (name, done) in names.into_iter().zip(self.cinder.run(&jobs)) {
            assert_eq!(done.outcome, "done", "{done:?}");
            let data = all.remove(&name).expect("it was made");
            self.made.insert(name, (data, done));
        }
    }

    fn ids(&self) -> Vec<String> {
        self.made.values().map(|(_, done)| done.id()).collect()
    }

    /// What Cinder exports of these backups.
    fn exports(&self, ids: &[String]) -> BTreeMap<String, Map<String, Value>> {
        let exports: Vec<Job> = ids.iter().map(|id| Job::export(&self.store, id)).collect();
        let all = self.cinder.run(&exports);
        all.iter().map(|done| (done.id(), decoded(done.record["backup_url"].as_str().expect("a record")))).collect()
    }

    fn rescue(&self, code: i32, more: &[&str]) -> Value {
        let mut args = vec!["rescue", "--settle", "0"];
        let flags = self.store.flags();
        let driver = format!("--storage-option=backup_driver={}", self.store.driver);
        args.extend(flags.iter().map(String::as_str).chain([driver.as_str()]).chain(more.iter().copied()));
        Program::on(self.cinder.database.url()).json(code, &args)
    }

    /// Imports the backups of a document in its order, by the user of a command.
    fn import(&self, document: &Value) {
        let text = |backup: &Value, key: &str| backup[key].as_str().expect("a text").to_owned();
        let jobs: Vec<Job> = backups(document)
            .iter()
            .map(|backup| {
                let job = Job::import(&self.store, &text(backup, "backup_service"), &text(backup, "backup_url"));
                job.context(context(&text(backup, "project_id")))
            })
            .collect();
        for done in self.cinder.run(&jobs) {
            assert_eq!((done.outcome.as_str(), done.backup["status"].as_str()), ("done", Some("available")), "{done:?}");
        }
    }

    /// Has Cinder restore all backups, those of one volume at a time: restored volumes take much memory.
    fn restore(&self) {
        let made: Vec<(&String, &(VolumeData, Done))> = self.made.iter().collect();
        for of_volume in made.chunk_by(|(one, _), (other, _)| one.split(' ').next() == other.split(' ').next()) {
            let out = |name: &str| self.cinder.volumes.join(format!("restored {name}"));
            let jobs: Vec<Job> = of_volume.iter().map(|(name, (_, done))| Job::restore_id(&self.store, &done.id(), &out(name))).collect();
            for ((name, (data, _)), restored) in of_volume.iter().zip(self.cinder.run(&jobs)) {
                assert_eq!(restored.outcome, "done", "{restored:?}");
                assert!(data.is(&out(name)), "Cinder restores other data of {name}");
                fs::remove_file(out(name)).expect("it was restored");
            }
        }
    }
}

fn context(project: &str) -> Value {
    json!({"user_id": "tester", "project_id": project})
}

/// The fields of a record.
pub fn decoded(url: &str) -> Map<String, Value> {
    serde_json::from_slice(&STANDARD.decode(url).expect("Base64")).expect("JSON")
}

fn backups(document: &Value) -> &Vec<Value> {
    document["backups"].as_array().expect("a list")
}

/// Compares a record with that of a real export: each field is the same, except those that are named as unknown and are not in it.
fn assert_equals(record: &Map<String, Value>, real: &Map<String, Value>, backup: &Value) {
    for (field, value) in record {
        assert_eq!(real.get(field), Some(value), "{field} of {backup:#}");
    }
    let unknown: Vec<&str> = backup["unknown"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let mut left_out: Vec<&str> = real.keys().map(String::as_str).filter(|field| !record.contains_key(*field)).collect();
    left_out.sort_unstable();
    assert_eq!(left_out, unknown, "{backup:#}");
}

/// All is lost.
fn everything_comes_back(store: impl FnOnce(&RealBackups) -> Store) {
    let mut chains = Chains::new(store);
    chains.make(0..4);
    let before = chains.exports(&chains.ids());
    chains.cinder.lose_database();
    let document = chains.rescue(0, &[]);
    let found = backups(&document);
    assert_eq!(found.len(), 12, "{document:#}");
    assert_eq!(document["summary"], json!({"importable": 12, "damaged": 0, "refused": 0}));
    let mut seen: Vec<&str> = Vec::new();
    for backup in found {
        let id = backup["id"].as_str().expect("an id");
        if let Some(parent) = backup["parent_id"].as_str() {
            assert!(seen.contains(&parent), "{id} is before its parent");
        }
        seen.push(id);
        assert_eq!(backup["project_id"].as_str(), Some(chains.projects[backup["volume_id"].as_str().expect("an id")].as_str()));
        assert_equals(&decoded(backup["backup_url"].as_str().expect("a record")), &before[id], backup);
    }
    chains.import(&document);
    // Each row is as before, apart from what the import sets itself.
    for (id, record) in chains.exports(&chains.ids()) {
        let known = |record: &Map<String, Value>| -> BTreeMap<String, Value> {
            record
                .iter()
                .filter(|(field, _)| !SET_BY_IMPORT.contains(&field.as_str()))
                .map(|(field, value)| (field.clone(), value.clone()))
                .collect()
        };
        assert_eq!(known(&record), known(&before[&id]));
    }
    assert_eq!(backups(&chains.rescue(0, &[])).len(), 0);
    chains.restore();
}

#[test]
fn a_lost_database_is_imported_from_posix() {
    everything_comes_back(|cinder| Store::posix(&cinder.path("store")));
}

#[test]
fn a_lost_database_is_imported_from_swift() {
    everything_comes_back(|_| Store::swift(servers::swift(), &format!("rescue-{}", Uuid::new_v4())));
}

#[test]
fn a_lost_database_is_imported_from_s3() {
    everything_comes_back(|_| Store::s3(servers::swift(), &format!("rescue-{}", Uuid::new_v4())));
}

/// A dump from before the second half, and a database that lost single rows.
#[test]
fn only_what_an_older_dump_lacks_is_imported() {
    let mut chains = Chains::new(|cinder| Store::posix(&cinder.path("store")));
    chains.make(0..2);
    let dump = chains.cinder.path("dump.sqlite");
    chains.cinder.database.disconnect();
    fs::copy(chains.cinder.database.path(), &dump).expect("a copy");
    chains.make(2..4);
    chains.cinder.database.disconnect();
    fs::copy(&dump, chains.cinder.database.path()).expect("a copy");
    // A lost parent under a live increment, and one of whose chain only the end is live.
    let volumes: Vec<String> = chains.projects.keys().cloned().collect();
    let id = |chains: &Chains, volume: usize, number: usize| chains.made[&name(&volumes[volume], number)].1.id();
    let full = id(&chains, 0, 0);
    chains.cinder.database.execute(&format!("DELETE FROM backups WHERE id = '{full}'"));

    let document = chains.rescue(0, &[]);
    let found: BTreeMap<&str, &Value> = backups(&document).iter().map(|one| (one["id"].as_str().expect("an id"), one)).collect();
    let mut right: Vec<String> =
        (0..3).flat_map(|volume| (2..4).map(move |number| (volume, number))).map(|(v, n)| id(&chains, v, n)).collect();
    right.push(full.clone());
    right.sort();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), right, "{document:#}");
    for volume in 0..3 {
        // Both are increments on the first one.
        for number in 2..4 {
            let one = found[id(&chains, volume, number).as_str()];
            assert_eq!((one["parent_id"].as_str(), one["parent"].as_str()), (Some(id(&chains, volume, 1).as_str()), Some("live")));
        }
    }
    assert_eq!((found[full.as_str()]["parent"].as_str(), found[full.as_str()]["live_increments"].as_u64()), (None, Some(1)));
    let record = decoded(found[full.as_str()]["backup_url"].as_str().expect("a record"));
    assert_eq!(record["num_dependent_backups"], 1);

    chains.import(&document);
    // The rows of the live parents are those of the dump.
    let follow_up = document["follow_up"][0].as_str().expect("a command").to_owned();
    let args: Vec<&str> = follow_up.split(' ').skip(1).chain(["--yes", "--older-than", "0s"]).collect();
    Program::on(chains.cinder.database.url()).expect(0, &args);
    for volume in 0..3 {
        let counter = chains.cinder.database.cell("backups", &id(&chains, volume, 1), "num_dependent_backups");
        assert_eq!(counter.as_deref(), Some("2"));
    }
    assert_eq!(backups(&chains.rescue(0, &[])).len(), 0);
    chains.restore();
}

/// The reason for the warning: without the id of its own key, Cinder takes the key of the volume for that of the backup.
#[test]
fn a_restore_without_the_key_of_the_backup_takes_that_of_the_volume() {
    let cinder = RealBackups::new();
    let store = Store::posix(&cinder.path("store"));
    let mut data = VolumeData::zeros(cinder.volumes.join("data"), GIB, 1);
    data.scribble(0, MIB);
    let (volume, key) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let made = &cinder.run(&[Job::backup(&store, "encrypted", &volume, &data).object_size(64 * MIB).encrypted(&key)])[0];
    let copy = made.text("encryption_key_id");
    assert_ne!(copy, key);
    cinder.database.execute(&format!("DELETE FROM backups WHERE id = '{}'", made.id()));
    let chains = Chains { cinder, store, projects: BTreeMap::new(), made: BTreeMap::new() };
    let document = chains.rescue(0, &[]);
    let found = &backups(&document)[0];
    assert_eq!((&found["encrypted"], found["volume_type_id"].is_string()), (&json!(true), true), "{document:#}");
    assert!(found["unknown"].as_array().expect("a list").contains(&json!("encryption_key_id")));
    assert!(!document.to_string().contains(&key), "the key of the volume");
    chains.import(&document);
    let key_of_backup = || chains.cinder.database.cell("backups", &made.id(), "encryption_key_id");
    assert_eq!(key_of_backup(), None);
    let out = chains.cinder.volumes.join("restored");
    let restored = &chains.cinder.run(&[Job::restore_id(&chains.store, &made.id(), &out)])[0];
    assert_eq!(restored.outcome, "done", "{restored:?}");
    assert!(data.is(&out));
    assert_eq!(key_of_backup(), Some(key));
}
