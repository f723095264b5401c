//! A check that cannot reach its level, because Ceph's driver stores no digests: its verdict, and the decisions from it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cinder_backup_repair::verify::CheckDocument;
use serde_json::json;

use super::{Placed, Site, problems, result};
use crate::program::{Answer, answer};

/// A cluster with one finished backup of 1 GiB of zeros.
const COPY: &str = r#"#!/bin/sh
case "$*" in
*backup.base*) echo 'rbd: error opening image x: (2) No such file or directory' >&2; exit 2;;
*" stat "*) echo 'backups/backup.ID.meta mtime 2026-11-22T10:00:01.000000+0000, size 40';;
*" get "*) echo '{"version": 2, "volume-base-metadata": {"id": "VOLUME"}}';;
info*) echo '{"size":1073741824,"object_size":4194304,"block_name_prefix":"rbd_data.1","features":[],"flags":[]}';;
status*) echo '{"watchers":[]}';;
snap*|lock*) echo '[]';;
diff*) echo '[{"offset":0,"length":1073741824,"exists":"true"}]';;
export-diff*) printf 'rbd diff v1\ns\000\000\000\100\000\000\000\000z\000\000\000\000\000\000\000\000\000\000\000\100\000\000\000\000e';;
esac
"#;

/// An empty cluster.
const EMPTY: &str = r#"#!/bin/sh
case "$*" in
*ls) exit 0;;
*" stat "*) echo ' error stat-ing x: (2) No such file or directory' >&2; exit 1;;
esac
echo 'rbd: error opening image x: (2) No such file or directory' >&2
exit 2
"#;

/// A backup in a cluster whose commands are a script, and a function that runs the program there.
fn in_ceph(script: &str) -> (Site, Placed, impl Fn(&Site, &[&str]) -> Answer) {
    let site = Site::new();
    site.database.execute("UPDATE services SET updated_at = '2026-01-01 00:00:00.000000'");
    let placed = site.creating();
    site.database.execute(&format!(
        "UPDATE backups SET service = 'cinder.backup.drivers.ceph.CephBackupDriver', container = 'backups', service_metadata = NULL \
         WHERE id = '{}'",
        placed.id
    ));
    let tools = site.program.path("bin");
    fs::create_dir(&tools).unwrap();
    for tool in ["rbd", "rados"] {
        fs::write(tools.join(tool), script.replace("ID", &placed.id).replace("VOLUME", &placed.volume)).unwrap();
        fs::set_permissions(tools.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run =
        move |site: &Site, args: &[&str]| answer(site.program.command(args).env("PATH", format!("{}:/usr/bin:/bin", tools.display())));
    (site, placed, run)
}

#[test]
fn a_level_that_was_not_reached_makes_a_backup_unverifiable() {
    let (site, placed, run) = in_ceph(COPY);
    for level in ["deep", "restore"] {
        let told = run(&site, &["check", "--level", level, "-c", "verdict", "-c", "reached"]);
        assert_eq!(told.code, Some(4), "{}{}", told.stdout, told.stderr);
        assert!(told.stdout.contains("| unverifiable | quick   |"), "{}", told.stdout);
        let text = format!("intact at level quick, and level {level} was not reached: ");
        assert!(told.stderr.contains(&text), "{}", told.stderr);
        assert!(told.stderr.contains("1 unverifiable (of these 1 intact at level quick)"), "{}", told.stderr);
        let document = run(&site, &["check", "--level", level, "-f", "json"]).json();
        let found = result(&document, &placed.id);
        assert_eq!(
            (&found["verdict"], &found["level"], &found["level_reached"], problems(found)),
            (&json!("unverifiable"), &json!(level), &json!("quick"), vec!["level-not-reached"]),
            "{found:#}"
        );
        assert_eq!(document["summary"]["intact_at_quick"], json!(1), "{document:#}");
        // An unreached level changes nothing.
        let repaired = run(&site, &["repair", "--check", level, "--yes", "-f", "json"]);
        assert_eq!(site.status(&placed), "creating", "{}{}", repaired.stdout, repaired.stderr);
        assert_eq!(repaired.code, Some(6), "{}", repaired.stderr);
        assert!(repaired.stderr.contains("its data was not verified at the requested level: intact at level quick"), "{}", repaired.stderr);
    }
    let told = run(&site, &["check", "-f", "json"]);
    let mut document = told.json();
    let found = result(&document, &placed.id);
    assert_eq!((told.code, &found["verdict"], &found["level_reached"]), (Some(0), &json!("intact"), &json!("quick")), "{found:#}");

    // An earlier version reported such a backup as intact at every level. That result is not carried over.
    let old = &mut document["results"][0];
    old["level"] = json!("restore");
    old.as_object_mut().unwrap().shift_remove("level_reached");
    let mut evidence: CheckDocument = serde_json::from_value(document).unwrap();
    evidence.seal();
    let path = site.path("old.json");
    fs::write(&path, serde_json::to_vec(&evidence).unwrap()).unwrap();
    let told = run(&site, &["check", "--level", "restore", "--resume", &path, "-f", "json"]);
    assert_eq!((told.code, &told.json()["results"][0]["verdict"]), (Some(4), &json!("unverifiable")), "{}", told.stdout);
    run(&site, &["repair", "--evidence", &path, "--yes"]);
    assert_eq!(site.status(&placed), "creating");

    // `--accept-quick` accepts the level that was reached.
    let repaired = run(&site, &["repair", "--check", "deep", "--accept-quick", "--yes", "-f", "json"]);
    assert_eq!((repaired.code, site.status(&placed).as_str()), (Some(0), "available"), "{}{}", repaired.stdout, repaired.stderr);
    let evidence = repaired.json()["units"][0]["evidence"].to_string();
    for text in ["unverifiable at level deep, and intact at level quick", "nothing proves its data"] {
        assert!(site.log().contains(text) || evidence.contains(text), "{evidence}");
    }
}

#[test]
fn backups_in_an_empty_ceph_pool_are_not_missing() {
    let (site, placed, run) = in_ceph(EMPTY);
    let told = run(&site, &["check", "-f", "json"]);
    let document = told.json();
    let found = result(&document, &placed.id);
    assert_eq!((told.code, &found["verdict"]), (Some(4), &json!("unverifiable")), "{found:#}");
    assert!(problems(found).contains(&"pool-without-backups"), "{found:#}");
    run(&site, &["repair", "--check", "deep", "--yes"]);
    assert_eq!(site.status(&placed), "creating");
}
