//! Evidence from a host that sees the storage, for a decision on a host that sees the database.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use cinder_backup_repair::db::Engine;
use serde_json::{Value, json};

use super::{CHANGED, OBJECTS, Placed, Site, result};
use crate::database::changes;
use crate::program::{answer, find, finding};
use crate::rows::{Cell, ago};
use crate::scenarios::essence;
use crate::schemas::engines;

/// A site with an increment whose data is complete but whose row was not updated, on a parent that counts no child.
fn lost_update(engine: Engine) -> (Site, Placed, Placed) {
    let site = Site::on(engine);
    let parent = site.available();
    let child = site.backup("creating", Some(&parent));
    (site, parent, child)
}

/// Checks what `scan` finds on the other host; returns the path of the evidence.
#[track_caller]
fn evidence(site: &Site, code: i32, args: &[&str]) -> String {
    let stuck = site.keep(0, "stuck.json", &["scan"]);
    let mut all = vec!["--from", &stuck, "-f", "json"];
    all.extend(args);
    let answer = answer(&mut site.elsewhere(&all));
    assert_eq!(answer.code, Some(code), "{}\n{}", answer.stdout, answer.stderr);
    let path = site.path("checked.json");
    fs::write(&path, answer.stdout).unwrap();
    path
}

fn document(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_backup_earns_available_on_evidence_from_another_host() {
    for engine in engines() {
        println!("{}", engine.name());
        let (site, parent, child) = lost_update(engine);
        let scanned = site.program.json(0, &["scan"]);
        assert_eq!(finding(&scanned, &child.id)["verdict"], "uncertain", "{scanned:#}");
        assert_eq!(find(&scanned, &parent.id), None);

        let checked = evidence(&site, 0, &["--level", "restore"]);
        let checked_document = document(&checked);
        assert_eq!((&checked_document["schema"], &checked_document["schema_version"]), (&json!("cinder-backup-repair/check"), &json!(1)));
        assert_eq!(checked_document["database"], scanned["database"]);
        let found = result(&checked_document, &child.id);
        assert_eq!((&found["verdict"], &found["level"], &found["busy"]), (&json!("intact"), &json!("restore"), &json!(false)), "{found:#}");
        assert_eq!(found["chain"], json!([child.id, parent.id]));
        assert_eq!(found["object_count"], CHANGED);
        // The two changed blocks are of the increment, the rest of the full backup.
        assert_eq!(found["objects"], json!({ "checked": OBJECTS + CHANGED, "expected": OBJECTS + CHANGED }));
        assert!(found["depth"].as_str().unwrap().contains("SHA-256"), "{found:#}");

        let before = site.database.rows_by_id();
        let plan = site.path("plan.json");
        let planned = site.program.json(0, &["plan", "--evidence", &checked, "--out", &plan]);
        assert_eq!(changes(&before, &site.database.rows_by_id()), []);
        let texts = planned["units"][0]["evidence"].to_string();
        assert!(texts.contains("storage-complete") && texts.contains("storage-intact"), "{texts}");
        let applied = site.program.json(0, &["apply", &plan, "--yes"]);
        assert_eq!(applied["units"][0]["outcome"], "applied", "{applied:#}");
        let mut expected = vec![
            format!("backups.{}.object_count: 0 -> {CHANGED}", child.id),
            format!("backups.{}.status: creating -> available", child.id),
            format!("backups.{}.num_dependent_backups: 0 -> 1", parent.id),
            format!("volumes.{}.status: backing-up -> available", child.volume),
        ];
        expected.sort();
        assert_eq!(essence(changes(&before, &site.database.rows_by_id())), expected);
        assert!(site.log().contains("its data on the storage is intact (check restore: "), "{}", site.log());
        site.program.expect(0, &["history", "verify"]);

        // Once done, the same evidence is about a row that has moved on.
        let again = site.program.json(0, &["plan", "--evidence", &checked]);
        assert_eq!(again["units"], json!([]));
        site.program.expect(0, &["undo", &site.program.last_run(), "--yes"]);
        assert_eq!(essence(changes(&before, &site.database.rows_by_id())), [] as [String; 0]);
    }
}

#[test]
fn the_other_host_needs_neither_a_database_nor_a_configuration() {
    let (site, _, child) = lost_update(Engine::Sqlite);
    let stuck = site.keep(0, "stuck.json", &["scan"]);
    // From standard input, too; the root comes from an option or a file in place of the flag.
    let root = site.store.root.display().to_string();
    let conf = site.path("storage.conf");
    fs::write(&conf, format!("[DEFAULT]\nbackup_posix_path = {root}\n")).unwrap();
    let option = format!("backup_posix_path={root}");
    for (place, from) in [(["--storage-option", &option], &*stuck), (["--config-file", &conf], &stuck), (["--storage-path", &root], "-")] {
        let mut command = crate::program::bare(&["check", "--from", from, "-f", "json"]);
        command.args(place).stdin(fs::File::open(&stuck).unwrap());
        let answer = answer(&mut command);
        assert_eq!(answer.code, Some(0), "{place:?} {}", answer.stderr);
        assert_eq!(result(&answer.json(), &child.id)["verdict"], "intact", "{place:?}");
    }
    let nothing = answer(&mut crate::program::bare(&["check", "--from", "-"]));
    assert_eq!(nothing.code, Some(2), "{}", nothing.stderr);
    assert!(nothing.stderr.contains("error: standard input is not a document of `scan --format json`"), "{}", nothing.stderr);
    // Without any of them there is an error, and no verdict.
    let mut command = crate::program::bare(&["check", "--from", &stuck, "-f", "json"]);
    let answer = answer(&mut command);
    let document = answer.json();
    let found = result(&document, &child.id);
    assert_eq!((answer.code, &found["verdict"]), (Some(4), &json!("unverifiable")), "{found:#}");
}

/// The results of a check, by id and without what differs between two checks of the same data.
fn results(document: &Value) -> BTreeMap<String, Value> {
    let result = |result: &Value| {
        let mut result = result.clone();
        result["checked_at"] = Value::Null;
        // A file does not say which services live.
        for field in ["restorable", "restorable_reasons"] {
            result.as_object_mut().unwrap().shift_remove(field);
        }
        (result["id"].as_str().unwrap().to_owned(), result)
    };
    document["results"].as_array().unwrap().iter().map(result).collect()
}

#[test]
fn a_stream_and_a_catalog_are_checked_like_a_document() {
    for engine in engines() {
        let (site, parent, child) = lost_update(engine);
        let other = site.available();
        let (first, second) = (site.backup("available", Some(&other)), site.backup("available", Some(&other)));
        site.database.execute(&format!("UPDATE backups SET project_id = 'p9' WHERE id = '{}'", second.id));
        fs::remove_file(second.object(1)).unwrap();
        let check = |from: &str, args: &[&str]| {
            let answer = answer(site.elsewhere(&[&["--from", from, "--level", "deep", "-f", "json"], args].concat()).stdin(Stdio::null()));
            assert!(matches!(answer.code, Some(0 | 9)), "{}", answer.stderr);
            answer.json()
        };
        let document = site.keep(0, "stuck.json", &["scan"]);
        let stream = site.path("stuck.jsonl");
        fs::write(&stream, site.program.expect(0, &["scan", "-f", "jsonl"]).stdout).unwrap();
        let found = results(&check(&stream, &[]));
        assert_eq!(found, results(&check(&document, &[])), "{}", engine.name());
        assert_eq!(found.keys().collect::<Vec<_>>(), [&child.id], "{found:#?}");

        let catalog = site.path("catalog.jsonl");
        fs::write(&catalog, site.program.expect(0, &["scan", "--all", "-f", "jsonl"]).stdout).unwrap();
        let place = site.store.root.display().to_string();
        let all = site.program.json(9, &["check", "--all", "--level", "deep", "--storage-path", &place]);
        let from_catalog = check(&catalog, &[]);
        assert_eq!(results(&from_catalog), results(&all), "{}", engine.name());
        assert_eq!(results(&from_catalog).len(), 5);
        assert_eq!(from_catalog["database"], all["database"]);
        assert_eq!(check(&catalog, &["--limit", "2"])["results"].as_array().map(Vec::len), Some(2));
        let of_project = results(&check(&catalog, &["--project", "p9"]));
        assert_eq!(of_project.into_keys().collect::<Vec<_>>(), [second.id.as_str()]);
        // Through a pipe, and only a part of the database.
        let part = site.program.expect(0, &["scan", "--all", "-f", "jsonl", "--project", "p9"]).stdout;
        fs::write(site.path("part.jsonl"), &part).unwrap();
        let mut piped = site.elsewhere(&["--from", "-", "--level", "deep", "-f", "json"]);
        let piped = answer(piped.stdin(fs::File::open(site.path("part.jsonl")).unwrap())).json();
        let chain = &results(&piped)[&second.id]["chain"];
        assert_eq!((chain, piped["results"].as_array().map(Vec::len)), (&json!([second.id, other.id]), Some(1)));
        assert!(
            part.contains(&other.id)
                && ![&parent.id, &first.id].into_iter().any(|id| part.contains(&format!("\"id\":\"{id}\",\"columns\"")))
        );
    }
}

#[test]
fn a_stream_that_was_changed_is_refused_with_the_line() {
    let (site, _, child) = lost_update(Engine::Sqlite);
    site.available();
    let text = site.program.expect(0, &["scan", "--all", "-f", "jsonl"]).stdout;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let refuse = |name: &str, text: &str, problem: &str| {
        fs::write(site.path(name), text).unwrap();
        for from in [name, "-"] {
            let mut command = site.elsewhere(&["--from", from]);
            let refused = answer(command.stdin(fs::File::open(site.path(name)).unwrap()).current_dir(site.path("")));
            let shown = if from == "-" { "standard input" } else { name };
            assert_eq!((refused.code, refused.stderr), (Some(2), format!("error: {shown} {problem}\n")), "{from}");
        }
    };
    let edited = "was edited after it was written: its SHA-256 does not match; scan again (line";
    refuse("edited", &text.replacen("\"creating\"", "\"available\"", 1), &format!("{edited} 2)"));
    let mut moved = lines.clone();
    moved.swap(3, 4);
    refuse("moved", &moved.concat(), &format!("{edited} 4)"));
    let mut missing = lines.clone();
    missing.remove(2);
    refuse("missing", &missing.concat(), &format!("{edited} 3)"));
    let count = lines.len();
    refuse("cut", &lines[..count - 1].concat(), &format!("is cut off after line {}: it has no closing record", count - 1));
    refuse("torn", text.trim_end(), &format!("is cut off after line {}: it has no closing record", count - 1));
    let more = format!("is not a stream of `scan --format jsonl`: it continues after its closing record (line {count})");
    refuse("more", &[&text, lines[1]].concat(), &more);
    let partial = site.path("checked.json.partial");
    site.program
        .expect(0, &["check", &child.id, "--out", &site.path("checked.json"), "--storage-path", &site.store.root.display().to_string()]);
    assert!(!fs::exists(&partial).unwrap());
    refuse(
        "document",
        &fs::read_to_string(site.path("checked.json")).unwrap(),
        "has the schema \"cinder-backup-repair/check\" 1: use a scan of version 1",
    );
}

#[test]
fn evidence_about_something_else_is_refused() {
    let (site, _, child) = lost_update(Engine::Sqlite);
    let checked = evidence(&site, 0, &[]);
    let before = site.database.rows_by_id();
    let refuse = |code: i32, args: &[&str], part: &str| {
        for command in ["plan", "repair"] {
            let mut all = vec![command];
            all.extend(args);
            if command == "repair" {
                all.push("--yes");
            }
            let answer = site.program.expect(code, &all);
            assert!(answer.stderr.contains(part), "{args:?}: {}", answer.stderr);
            assert_eq!(answer.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", answer.stderr);
        }
    };
    let file = |name: &str, text: &str| {
        let path = site.path(name);
        fs::write(&path, text).unwrap();
        path
    };
    let text = fs::read_to_string(&checked).unwrap();

    refuse(2, &["--evidence", &file("edited.json", &text.replace("\"busy\": false", "\"busy\": true"))], "was edited after it was written");
    let newer = text.replacen("\"schema_version\": 1", "\"schema_version\": 2", 1);
    refuse(2, &["--evidence", &file("newer.json", &newer)], "newer than this program");
    let scan = site.path("stuck.json");
    refuse(2, &["--evidence", &scan], "is not what `check --format json` writes");
    refuse(2, &["--evidence", &file("empty.json", "")], "is not what `check --format json` writes");
    refuse(2, &["--evidence", &file("cut.json", &text[..text.len() / 2])], "is not what `check --format json` writes");
    refuse(2, &["--evidence", &site.path("none.json")], "cannot read the evidence");
    refuse(2, &["--evidence", &site.path("")], "cannot read the evidence");
    refuse(2, &["--evidence", &file("noise.json", "\u{1b}[31m{")], "is not what `check --format json` writes");

    // Another database with the same rows.
    let other = Site::new();
    let answer = other.program.expect(5, &["plan", "--evidence", &checked]);
    assert!(answer.stderr.contains("is about the database"), "{}", answer.stderr);
    other.program.expect(5, &["repair", "--yes", "--evidence", &checked]);

    // Too old. The row then is as it would be unchecked: refused, not decided some other way.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let late = ["--evidence", &checked, "--evidence-max-age", "0s"];
    let planned = site.program.json(4, &[&["plan"], &late[..]].concat());
    assert_eq!(planned["units"], json!([]));
    let named = site.program.json(6, &[&["repair", "--yes", &child.id], &late[..]].concat());
    assert!(named["refused"][0]["reason"].as_str().unwrap().contains("--evidence-max-age"), "{named:#}");

    // The row has moved on, or its parent's has.
    let moves = [
        format!("UPDATE backups SET container = 'aa/bb' WHERE id = '{}'", child.id),
        format!("UPDATE backups SET size = 2 WHERE id = '{}'", child.id),
        format!("UPDATE backups SET updated_at = '2026-01-01 00:00:00.000000' WHERE id = '{}'", child.id),
        format!("UPDATE backups SET service_metadata = 'x' WHERE id = '{}'", child.parent.clone().unwrap()),
    ];
    for (number, sql) in moves.iter().enumerate() {
        let original = site.database.copy();
        site.database.execute(sql);
        let refused = site.program.json(6, &["repair", "--yes", &child.id, "--evidence", &checked]);
        let reason = refused["refused"][0]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("changed since it was checked"), "{number} {refused:#}");
        assert_eq!(site.status(&child), "creating");
        let restore = match number {
            0 => format!("UPDATE backups SET container = '{}' WHERE id = '{}'", child.container, child.id),
            1 => format!("UPDATE backups SET size = 1 WHERE id = '{}'", child.id),
            2 => format!(
                "UPDATE backups SET updated_at = '{}' WHERE id = '{}'",
                original.cell("backups", &child.id, "updated_at").unwrap(),
                child.id
            ),
            _ => String::new(),
        };
        site.database.execute(&restore);
    }
    assert_eq!(changes(&before, &site.database.rows_by_id()).iter().filter(|change| change.id == child.id).count(), 0);
}

/// An old `fail_reason` of this program does not explain the new status.
#[test]
fn evidence_from_before_a_parent_was_put_in_error_with_an_old_reason_is_refused() {
    let (site, parent, child) = lost_update(Engine::Sqlite);
    let set = |what: &str| site.database.execute(&format!("UPDATE backups SET {what} WHERE id = '{}'", parent.id));
    set("fail_reason = 'cinder-backup-repair: left in creating: nobody works on it'");
    let checked = evidence(&site, 0, &["--level", "deep"]);
    // A stuck deletion was reset by hand with `cinder backup-reset-state`.
    fs::remove_file(parent.object(3)).unwrap();
    set("status = 'error'");
    let document = site.program.json(6, &["repair", "--yes", &child.id, "--evidence", &checked, "--storage-path", &site.path("nowhere")]);
    let reason = document["refused"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("(status differs); check it again"), "{document:#}");
    assert_eq!(site.status(&child), "creating");
}

/// A deletion that failed half-way leaves its backup in `error` without a part of its data.
#[test]
fn evidence_from_before_a_parents_deletion_failed_is_refused() {
    let (site, parent, child) = lost_update(Engine::Sqlite);
    let checked = evidence(&site, 0, &["--level", "deep"]);
    site.database.execute(&format!("UPDATE backups SET status = 'deleting' WHERE id = '{}'", parent.id));
    fs::remove_file(parent.object(3)).unwrap();
    site.program.json(0, &["repair", "--yes", &parent.id, "--assume-dead", "all", "--older-than", "0s"]);
    assert_eq!(site.status(&parent), "error");
    let document = site.program.json(6, &["repair", "--yes", &child.id, "--evidence", &checked, "--storage-path", &site.path("nowhere")]);
    let reason = document["refused"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&parent.id) && reason.contains("(status differs); check it again"), "{document:#}");
    assert_eq!(site.status(&child), "creating");
}

#[test]
fn evidence_contains_each_row_of_the_chain_once() {
    let site = Site::new();
    let full = site.available();
    let middle = site.backup("available", Some(&full));
    let tip = site.backup("creating", Some(&middle));
    // All members of the chain with their ancestors: every row is in the document once.
    let text = site.program.expect(0, &["check", "--all", "-f", "json"]).stdout;
    let count = |document: &Value, id: &str| {
        let rows = document["results"].as_array().unwrap().iter().flat_map(|result| result["rows"].as_array().unwrap());
        rows.filter(|row| row["id"] == id).count()
    };
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!([&full, &middle, &tip].map(|placed| count(&all, &placed.id)), [1, 1, 1], "{all:#}");
    assert_eq!(all["ancestors"].as_array().unwrap().len(), 2, "{all:#}");

    let checked = evidence(&site, 0, &["--level", "deep"]);
    let plan = site.path("plan.json");
    site.program.json(0, &["plan", "--evidence", &checked, "--out", &plan]);
    let before = site.database.rows_by_id();
    // The full backup of the parent is deleted or changed, before the plan is made or after it.
    for (change, back, part) in [
        ("deleted = 1", "deleted = 0", "was deleted since it was checked"),
        ("status = 'deleting'", "status = 'available'", "has changed since it was checked (status"),
        (
            "service_metadata = 'x'",
            &format!("service_metadata = '{}'", full.prefix()),
            "has changed since it was checked (service_metadata",
        ),
    ] {
        let set = |what: &str| site.database.execute(&format!("UPDATE backups SET {what} WHERE id = '{}'", full.id));
        set(change);
        let named = site.program.json(6, &["repair", "--yes", &tip.id, "--evidence", &checked]);
        let reason = named["refused"][0]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(&full.id) && reason.contains(part), "{named:#}");
        let applied = site.program.json(4, &["apply", &plan, "--yes"]);
        let reason = applied["units"][0]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(&full.id) && reason.contains(part), "{applied:#}");
        set(back);
        assert_eq!(changes(&before, &site.database.rows_by_id()), []);
        fs::remove_file(site.program.log()).unwrap();
    }
    // A resumed check carries unchanged backups over.
    let first = site.path("all.json");
    fs::write(&first, text).unwrap();
    let resumed = site.program.expect(0, &["check", "--all", "--resume", &first, "-f", "json"]);
    assert!(resumed.stderr.contains("3 of 3 carried over"), "{}", resumed.stderr);
    assert_eq!(resumed.json()["ancestors"], all["ancestors"]);
    site.program.expect(0, &["apply", &plan, "--yes"]);
    assert_eq!(site.status(&tip), "available");
}

#[test]
fn a_plan_is_refused_when_its_evidence_is_outdated() {
    let (site, parent, child) = lost_update(Engine::Sqlite);
    let checked = evidence(&site, 0, &["--level", "deep"]);
    let plan = |name: &str, args: &[&str]| {
        let path = site.path(name);
        let planned = site.program.json(0, &[&["plan", "--evidence", &checked, "--out", &path], args].concat());
        assert_eq!(planned["units"].as_array().unwrap().len(), 1, "{planned:#}");
        // The plan contains its evidence.
        assert!(planned["checks"].to_string().contains(&child.id), "{planned:#}");
        path
    };
    let before = site.database.rows_by_id();
    // The evidence is too old.
    let short = plan("short.json", &["--evidence-max-age", "4s"]);
    std::thread::sleep(std::time::Duration::from_secs(5));
    let applied = site.program.json(4, &["apply", &short, "--yes"]);
    assert_eq!(applied["units"][0]["outcome"], "refused", "{applied:#}");
    assert!(applied["units"][0]["reason"].as_str().unwrap().contains("--evidence-max-age"), "{applied:#}");
    assert_eq!(changes(&before, &site.database.rows_by_id()), []);
    // The parent's row names another container.
    let moved = plan("moved.json", &[]);
    site.database.execute(&format!("UPDATE backups SET container = 'aa/bb' WHERE id = '{}'", parent.id));
    let applied = site.program.json(4, &["apply", &moved, "--yes"]);
    assert!(["changed", "refused"].contains(&applied["units"][0]["outcome"].as_str().unwrap()), "{applied:#}");
    site.database.execute(&format!("UPDATE backups SET container = '{}' WHERE id = '{}'", parent.container, parent.id));
    assert_eq!(changes(&before, &site.database.rows_by_id()), []);
    // The backup's own row has changed.
    let changed = plan("changed.json", &[]);
    site.database.execute(&format!("UPDATE backups SET service_metadata = 'elsewhere' WHERE id = '{}'", child.id));
    let applied = site.program.json(4, &["apply", &changed, "--yes"]);
    assert_eq!(applied["units"][0]["outcome"], "changed", "{applied:#}");
    assert_eq!(site.status(&child), "creating");
    site.program.expect(0, &["history", "verify"]);
}

#[test]
fn the_latest_evidence_counts() {
    let site = Site::new();
    site.silence();
    let first = site.creating();
    let second = site.creating();
    let stuck = site.keep(0, "stuck.json", &["scan"]);
    let check = |name: &str, code: i32, args: &[&str]| {
        let answer = answer(&mut site.elsewhere(&[&["--from", &stuck, "-f", "json"], args].concat()));
        assert_eq!(answer.code, Some(code), "{}", answer.stderr);
        let path = site.path(name);
        fs::write(&path, answer.stdout).unwrap();
        path
    };
    let whole = check("whole.json", 0, &[]);
    fs::remove_file(first.object(5)).unwrap();
    let damaged = check("damaged.json", 9, &[]);
    for order in [[&whole, &damaged], [&damaged, &whole]] {
        let planned = site.program.json(0, &["plan", "--accept-quick", "--evidence", order[0], "--evidence", order[1]]);
        let to = |id: &str| {
            let units = planned["units"].as_array().unwrap();
            let unit = units.iter().find(|unit| unit["id"] == id).unwrap();
            let change = unit["changes"].as_array().unwrap().iter().find(|change| change["id"] == id && change["column"] == "status");
            change.unwrap()["to"].as_str().unwrap().to_owned()
        };
        assert_eq!((to(&first.id), to(&second.id)), ("error".to_owned(), "available".to_owned()), "{planned:#}");
    }
}

/// A check of a `creating` backup proves nothing about its later restore or about another backup that may hold the same volume. These
/// depend on a silent host.
#[test]
fn finished_data_does_not_prove_that_the_service_is_down() {
    let site = Site::on(Engine::Sqlite);
    let (restored, made) = (site.backup("creating", None), site.backup("creating", None));
    let database = &site.database;
    let sql = |time: Cell| time.sql(Engine::Sqlite);
    database.service("late", |row| row.updated_at(ago(130)));
    database.execute("UPDATE backups SET host = 'late'");
    let checked = evidence(&site, 0, &["--level", "deep"]);
    let destination = database.volume(|row| row.status("restoring-backup").age(7_200));
    database.execute(&format!(
        "UPDATE backups SET status = 'restoring', restore_volume_id = '{destination}', updated_at = {} WHERE id = '{}'",
        sql(ago(7_200)),
        restored.id
    ));
    database.execute(&format!("UPDATE volumes SET status = 'available' WHERE id = '{}'", restored.volume));
    // Almost finished when another backup took its volume. That one was then reset to `error` by hand.
    database.execute(&format!("UPDATE volumes SET updated_at = {} WHERE id = '{}'", sql(ago(4_000)), made.volume));
    let by_hand = database.backup(|row| row.status("error").host("late").volume_id(&made.volume).age(4_000));

    let plan = site.path("plan.json");
    let planned = site.program.json(0, &["plan", "--evidence", &checked, "--out", &plan]);
    let of = |id: &str| planned["units"].as_array().unwrap().iter().find(|unit| unit["id"] == id).unwrap();
    assert_eq!(of(&restored.id)["changes"].as_array().unwrap().len(), 2, "{planned:#}");
    database.execute(&format!("UPDATE services SET updated_at = {} WHERE host = 'late'", sql(ago(128))));
    let before = database.rows_by_id();
    let applied = site.program.json(4, &["apply", &plan, "--yes"]);
    for unit in applied["units"].as_array().unwrap() {
        assert!(unit["reason"].as_str().is_some_and(|why| why.contains("cinder-backup on late has sent a heartbeat")), "{unit:#}");
    }
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    let texts = of(&made.id)["evidence"].to_string();
    assert!(texts.contains("held-in-silence") && texts.contains(&by_hand), "{texts}");
}
