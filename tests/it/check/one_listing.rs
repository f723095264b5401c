//! A quick check of many backups in one container, which are listed together: the same results as one by one, on real servers and in a
//! directory, whatever is damaged.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::round_trips::{Speaks, site};
use super::{OBJECTS, Site};
use crate::servers;
use crate::storage_servers::{put, token};

const BACKUPS: usize = 14;

/// Checks all backups together and each alone; returns how many have each verdict.
#[track_caller]
fn same_results(site: &Site) -> BTreeMap<String, usize> {
    let results = |args: &[&str]| -> Vec<Value> {
        let answer = site.program.run(&[&["check", "-f", "json", "--settle", "0s"], args].concat());
        let mut results = answer.json()["results"].as_array().unwrap().clone();
        results.iter_mut().for_each(|result| drop(result.as_object_mut().unwrap().remove("checked_at")));
        results
    };
    let together = results(&["--all"]);
    let mut verdicts = BTreeMap::new();
    for result in &together {
        assert_eq!(results(&[result["id"].as_str().unwrap()]), std::slice::from_ref(result));
        *verdicts.entry(result["verdict"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    verdicts
}

/// Damages all but the first backups, each in another way. `names` are those of one backup's objects.
fn damage(objects: &mut BTreeMap<String, Vec<u8>>) {
    let prefixes: Vec<String> = objects.keys().filter_map(|name| name.strip_suffix("_metadata")).map(str::to_owned).collect();
    assert_eq!(prefixes.len(), BACKUPS);
    objects.remove(&format!("{}-00002", prefixes[2]));
    objects.remove(&format!("{}_metadata", prefixes[3]));
    objects.remove(&format!("{}_sha256file", prefixes[4]));
    objects.retain(|name, _| !name.starts_with(&prefixes[5]));
    objects.get_mut(&format!("{}-00001", prefixes[6])).unwrap().pop();
    objects.insert(format!("{}-{:05}", prefixes[7], OBJECTS + 1), b"more".to_vec());
    objects.insert(format!("{}~", prefixes[8]), b"foreign".to_vec());
    objects.insert(prefixes[9].clone(), b"the prefix itself".to_vec());
    objects.get_mut(&format!("{}_metadata", prefixes[10])).unwrap().truncate(40);
    // The last one of the container.
    objects.remove(&format!("{}_sha256file", prefixes[BACKUPS - 1]));
    objects.insert("aaa".to_owned(), b"before all".to_vec());
    objects.insert(format!("{}x", prefixes[11]), b"between two".to_vec());
}

#[test]
fn swift_and_its_s3_give_the_same_results_for_all_backups_and_for_each() {
    let swift = servers::swift();
    for (speaks, service, options) in [
        (Speaks::Swift, "cinder.backup.drivers.swift.SwiftBackupDriver", swift.swift_options("together")),
        (Speaks::S3, "cinder.backup.drivers.s3.S3BackupDriver", swift.s3_options("together-s3")),
    ] {
        let container = &options.last().unwrap().1;
        let (site, server) = site(speaks, service, BACKUPS);
        let mut objects = server.objects.lock().unwrap().clone();
        damage(&mut objects);
        put(&format!("{}/{container}", swift.storage_url()), &token(swift), &objects);
        // The times of the S3 API are rounded up to whole seconds, and what is in the future counts as young.
        std::thread::sleep(std::time::Duration::from_secs(2));
        let lines: String = options.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        fs::write(site.program.path("cinder.conf"), format!("[DEFAULT]\n{lines}")).unwrap();
        site.database.execute(&format!("UPDATE backups SET container = '{container}'"));
        let verdicts = same_results(&site);
        assert!(verdicts["intact"] >= 3 && verdicts["missing"] == 1, "{verdicts:?}");
    }
}

#[test]
fn a_directory_of_many_backups_gives_the_same_results_for_all_and_for_each() {
    let site = Site::new();
    let all = site.store.root.join("all");
    fs::create_dir(&all).unwrap();
    let mut objects = BTreeMap::new();
    for _ in 0..BACKUPS {
        let placed = site.available();
        for entry in fs::read_dir(&placed.dir).unwrap().flatten() {
            objects.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
        }
    }
    damage(&mut objects);
    objects.iter().for_each(|(name, bytes)| fs::write(all.join(name), bytes).unwrap());
    fs::create_dir(all.join(format!("{}d", objects.keys().nth(40).unwrap()))).unwrap();
    site.database.execute("UPDATE backups SET container = 'all'");
    let verdicts = same_results(&site);
    assert_eq!(verdicts["missing"], 1, "{verdicts:?}");
}
