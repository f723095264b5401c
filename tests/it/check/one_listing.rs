//! A quick check of many backups in one container, which are listed together: the same results as one by one, on real servers and in a
//! directory, whatever is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::round_trips::{Harm, Speaks, site};
use super::{OBJECTS, Site, problems};
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

/// Pages that are cut, or the same for ever, in the listing of all and in that of each.
#[test]
fn pages_that_are_cut_or_repeated_never_make_a_backup_look_incomplete() {
    for (speaks, service) in [
        (Speaks::Swift, "cinder.backup.drivers.swift.SwiftBackupDriver"),
        (Speaks::S3, "cinder.backup.drivers.s3.S3BackupDriver"),
        (Speaks::Google, "cinder.backup.drivers.gcs.GoogleBackupDriver"),
    ] {
        let (site, server) = site(speaks, service, BACKUPS);
        let first = site.database.value("SELECT min(id) FROM backups").unwrap();
        let check = |harm: Harm, code: i32, backup: &str| -> Vec<Value> {
            *server.harm.lock().unwrap() = Some(harm);
            let limits = ["--gcs-endpoint", &server.url, "--storage-timeout", "2s"];
            let document = site.program.json(code, &[&["check", backup], &limits[..]].concat());
            document["results"].as_array().unwrap().clone()
        };
        let are_all = |results: &[Value], verdict: &str| {
            assert!(results.iter().all(|result| result["verdict"] == verdict), "{speaks:?}: {results:#?}");
        };
        for (backup, expected) in [("--all", BACKUPS), (&first, 1)] {
            let once = check(Harm::CutPages(Some(BTreeSet::new())), 0, backup);
            assert_eq!(once.len(), expected);
            are_all(&once, "intact");
        }
        let always = check(Harm::CutPages(None), 4, "--all");
        assert_eq!(always.len(), BACKUPS);
        are_all(&always, "unverifiable");
        let text = always[0]["problems"][0]["text"].as_str().unwrap();
        assert!(text.contains("GET http://") && text.contains("the server closed the connection"), "{text}");
        // The first page of all is right. Each backup alone has one page, after which Swift sends an empty one.
        let is_swift = speaks == Speaks::Swift;
        let same = check(Harm::SamePage, if is_swift { 4 } else { 0 }, "--all");
        let (intact, others): (Vec<Value>, Vec<Value>) = same.into_iter().partition(|result| result["verdict"] == "intact");
        assert!(intact.len() >= 4 && others.is_empty() != is_swift, "{speaks:?}: {others:#?}");
        are_all(&others, "unverifiable");
        assert!(others.iter().all(|result| problems(result) == ["storage-protocol"]), "{others:#?}");
    }
}
