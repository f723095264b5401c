//! `check --orphans` in a directory: each kind of orphan, what never counts as one, resuming, shards, commands.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::slow::{SILENT, bucket, end, send, wait_until};
use super::{Placed, Site, TWO_HOURS, age, new_id, prefix_of};
use crate::program::Answer;
use crate::rows::{Cell, ago};
use crate::schemas::engines;

/// Marks the row of a backup as deleted this number of seconds ago, and leaves its objects.
fn delete_row(site: &Site, placed: &Placed, seconds: i64) {
    let engine = site.database.engine();
    let (deleted, then) = (Cell::Boolean(true).sql(engine), ago(seconds).sql(engine));
    site.database
        .execute(&format!("UPDATE backups SET deleted = {deleted}, status = 'deleted', deleted_at = {then} WHERE id = '{}'", placed.id));
}

/// The orphans as (kind, backup, objects), sorted.
fn orphans(document: &Value) -> Vec<(String, Option<String>, u64)> {
    let text = |orphan: &Value, key: &str| orphan[key].as_str().map(str::to_owned);
    let all = document["orphans"].as_array().unwrap().iter();
    let mut all: Vec<_> =
        all.map(|orphan| (text(orphan, "kind").unwrap(), text(orphan, "backup_id"), orphan["objects"].as_u64().unwrap())).collect();
    all.sort();
    all
}

fn expected(kind: &str, placed: &Placed, objects: u64) -> (String, Option<String>, u64) {
    (kind.to_owned(), Some(placed.id.clone()), objects)
}

#[test]
fn each_kind_of_orphan_is_found_on_every_engine_and_nothing_changes() {
    for engine in engines() {
        let site = Site::on(engine);
        // Never orphans: a whole backup, a half one whose row is live, one that is being made or deleted.
        site.available();
        site.backup("error", None).interrupt();
        site.creating();
        site.backup("deleting", None);
        // No row: finished, half, and one that begins just now.
        let lost = site.store.place(&new_id(), None);
        let half = site.store.place(&new_id(), None);
        half.interrupt();
        let young = site.store.place(&new_id(), None);
        age(&young.object(1), 60);
        // A deleted row whose objects stayed, and one that is deleted just now.
        let left = site.available();
        delete_row(&site, &left, TWO_HOURS);
        delete_row(&site, &site.available(), 5);
        // Nothing on the storage: of an available backup, and of one without objects in its directory.
        let gone = site.available();
        fs::remove_dir_all(&gone.dir).unwrap();
        let failed = site.backup("error", None);
        fs::read_dir(&failed.dir).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
        // A failed backup that never had a prefix, and one that is being made.
        site.database.backup(|row| row.status("error").service(super::POSIX).container("00/00/none"));
        fs::remove_dir_all(site.creating().dir).unwrap();
        // Unknown names: in a directory of a live backup, beside all, with another spelling of an id.
        let strange = site.available();
        for path in [strange.dir.join("notes.txt"), site.store.root.join("README"), strange.object(1).with_extension("tmp")] {
            fs::write(&path, "x").unwrap();
            age(&path, 7_200);
        }
        let id = new_id();
        let capitals = site.store.root.join(format!("{}-00001", prefix_of(&format!("A{}", &id[1..]), &id)));
        fs::write(&capitals, "xx").unwrap();
        age(&capitals, 7_200);
        fs::create_dir(site.store.root.join(".snapshot")).unwrap();
        fs::copy(lost.object(1), site.store.root.join(".snapshot").join(lost.object(1).file_name().unwrap())).unwrap();

        let before = site.database.rows_by_id();
        let document = site.program.json(9, &["check", "--orphans"]);
        assert_eq!(crate::database::changes(&before, &site.database.rows_by_id()), []);
        let mut right = [
            expected("half", &half, 2),
            expected("no-row", &lost, 18),
            expected("nothing-stored", &gone, 0),
            expected("nothing-stored", &failed, 0),
            expected("row-deleted", &left, 18),
            ("unknown-name".to_owned(), None, 4),
        ];
        right.sort();
        assert_eq!(orphans(&document), right, "{}: {document:#}", engine.name());
        assert_eq!((&document["unread"], &document["interrupted"]), (&json!([]), &Value::Null));
        // The count of each kind, with the project that the row names.
        let count = |kind: &str| {
            let all = document["summary"].as_array().unwrap();
            all.iter().find(|count| count["kind"] == kind).unwrap_or_else(|| panic!("{kind} in {document:#}")).clone()
        };
        let project = site.database.cell("backups", &left.id, "project_id");
        assert_eq!((count("row-deleted")["project_id"].as_str(), count("no-row")["project_id"].as_str()), (project.as_deref(), None));
        let bytes: u64 = fs::read_dir(&left.dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(count("row-deleted")["bytes"], bytes);
        assert_eq!(count("nothing-stored")["backups"], 2);
        assert_eq!(count("unknown-name")["backups"], 0);
        let root = site.store.root.display().to_string();
        assert_eq!((count("half")["driver"].as_str(), count("half")["location"].as_str()), (Some("posix"), Some(root.as_str())));
        assert_eq!(document["orphans"].as_array().unwrap().iter().find(|one| one["kind"] == "half").unwrap()["container"], half.container);
    }
}

/// The records of a stream by their kinds.
fn records(answer: &Answer) -> Vec<(String, Value)> {
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let (kind, record) = value.as_object().unwrap().iter().next().map(|(kind, record)| (kind.clone(), record.clone())).unwrap();
        (kind, record)
    };
    answer.stdout.lines().map(line).collect()
}

fn of_kind<'r>(records: &'r [(String, Value)], kind: &str) -> Vec<&'r Value> {
    records.iter().filter(|(of, _)| of == kind).map(|(_, record)| record).collect()
}

/// Many small orphans in one directory; every second has a row that is live.
fn many(site: &Site, number: usize) {
    let dir = site.store.root.join("all");
    fs::create_dir(&dir).unwrap();
    let mut rows = Vec::new();
    for place in 0..number {
        let (id, volume) = (new_id(), new_id());
        let prefix = prefix_of(&id, &volume);
        let path = dir.join(format!("{prefix}_metadata"));
        fs::write(&path, "{}").unwrap();
        age(&path, 7_200);
        if place % 2 == 0 {
            let row = crate::rows::backup().set("id", id).status("available").service(super::POSIX).volume_id(&volume);
            rows.push(row.container("all").service_metadata(prefix));
        }
    }
    site.database.insert(&rows);
}

#[test]
fn a_walk_that_was_cut_off_continues_from_its_last_position() {
    let site = Site::new();
    many(&site, 2_500);
    let whole = site.program.expect(0, &["check", "--orphans", "-f", "jsonl"]);
    let all = records(&whole);
    assert_eq!((of_kind(&all, "orphan").len(), of_kind(&all, "position").len()), (1_250, 3));
    // Cut off within a line after the first position, with orphans that the next position would have confirmed.
    let cut = whole.stdout.find("\"position\"").unwrap() + 100_000;
    let path = site.path("cut.jsonl");
    fs::write(&path, &whole.stdout[..cut]).unwrap();
    // What was walked before is not walked again, so its orphans are reported although they are gone.
    let first = of_kind(&all, "position")[0]["after"].as_str().unwrap().to_owned();
    for entry in fs::read_dir(site.store.root.join("all")).unwrap().map(Result::unwrap) {
        if format!("all/{}", entry.file_name().to_str().unwrap()) <= first {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let rest = site.program.expect(0, &["check", "--orphans", "-f", "jsonl", "--resume", &path]);
    let again = records(&rest);
    assert_eq!(of_kind(&again, "orphan"), of_kind(&all, "orphan"));
    assert_eq!(of_kind(&again, "end")[0]["summary"], of_kind(&all, "end")[0]["summary"]);
    let other = site.program.expect(2, &["check", "--orphans", "--resume", &path, "--settle", "1m"]);
    assert!(other.stderr.contains("is about another database, --settle or --shard"), "{}", other.stderr);
}

#[test]
fn shards_find_everything_once() {
    let site = Site::new();
    for _ in 0..6 {
        site.store.place(&new_id(), None);
        fs::remove_dir_all(site.available().dir).unwrap();
    }
    let strange = site.store.root.join("zz");
    fs::write(&strange, "x").unwrap();
    age(&strange, 7_200);
    let whole = orphans(&site.program.json(9, &["check", "--orphans"]));
    assert_eq!(whole.len(), 13);
    let mut parts = Vec::new();
    for shard in ["1/3", "2/3", "3/3"] {
        let answer = site.program.run(&["check", "--orphans", "--shard", shard, "-f", "json"]);
        parts.extend(orphans(&answer.json()));
    }
    parts.sort();
    assert_eq!(parts, whole);
}

#[test]
fn a_storage_that_cannot_be_read_proves_nothing() {
    let site = Site::new();
    let placed = site.available();
    fs::remove_dir_all(&placed.dir).unwrap();
    // As if nothing were mounted there.
    fs::read_dir(&site.store.root).unwrap().for_each(|entry| fs::remove_dir_all(entry.unwrap().path()).unwrap());
    let document = site.program.json(4, &["check", "--orphans"]);
    assert_eq!(orphans(&document), []);
    assert!(document["unread"][0].as_str().unwrap().contains("check that the file system is mounted"), "{document:#}");
    fs::remove_dir(&site.store.root).unwrap();
    let document = site.program.json(4, &["check", "--orphans"]);
    assert_eq!(orphans(&document), []);
    assert_eq!(document["unread"].as_array().unwrap().len(), 2, "{document:#}");
}

/// Runs a script in a folder of its own.
fn run_script(site: &Site, path: &str) -> (bool, String) {
    let folder = site.program.path("ran");
    fs::create_dir_all(&folder).unwrap();
    let mut shell = Command::new("sh");
    let ended = shell.arg(path).current_dir(&folder).env_clear().env("PATH", "/usr/bin:/bin").output().unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "the script wrote something");
    (ended.status.success(), String::from_utf8(ended.stderr).unwrap())
}

/// The files below a folder with their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn the_commands_remove_only_their_orphans_and_hostile_names_run_nothing() {
    let site = Site::new();
    let live = site.available();
    site.creating();
    let half = site.store.place(&new_id(), None);
    half.interrupt();
    let left = site.available();
    delete_row(&site, &left, TWO_HOURS);
    let note = left.dir.join("a note");
    fs::write(&note, "x").unwrap();
    age(&note, 7_200);
    // A shell, or a person at a terminal, would be deceived by the names of these directories.
    let mut hostile = Vec::new();
    for name in ["$(touch pwned)", "`touch pwned`", "a'; touch pwned; '", "-rf", "two\nlines; touch pwned", "\u{1b}[2Jx", "\u{202e}y", "*"]
    {
        let dir = site.store.root.join(name);
        fs::create_dir(&dir).unwrap();
        let prefix = prefix_of(&new_id(), &new_id());
        let path = dir.join(format!("{prefix}-00001"));
        fs::write(&path, name).unwrap();
        age(&path, 7_200);
        hostile.push((path, !name.contains(|c: char| c.is_control() || c == '\u{202e}')));
    }
    let (script, before) = (site.path("remove.sh"), files(&site.store.root));
    let shown = site.program.expect(0, &["check", "--orphans", "--commands", &script]);
    assert!(shown.stdout.contains("| half "), "{}", shown.stdout);
    assert_eq!(files(&site.store.root), before, "nothing is removed by the program itself");
    let text = fs::read_to_string(&script).unwrap();
    assert!(!text.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text}");
    assert_eq!(text.matches("no command for").count(), 3, "{text}");
    // Too old: nothing is run.
    let made = text.split("date +%s) - ").nth(1).unwrap().split(')').next().unwrap();
    let yesterday = made.parse::<i64>().unwrap() - 86_400 - 60;
    let old = site.path("old.sh");
    for other in [yesterday, yesterday + 2 * 86_400] {
        fs::write(&old, text.replace(made, &other.to_string())).unwrap();
        let (is_done, message) = run_script(&site, &old);
        assert!(!is_done && message.starts_with("this list is older than a day, or the clock is wrong"), "{message}");
    }
    assert_eq!(files(&site.store.root), before);

    let (is_done, message) = run_script(&site, &script);
    assert!(is_done && message.is_empty(), "{message}\n{text}");
    let gone = |placed: &Placed| before.keys().filter(|path| path.starts_with(&placed.dir) && **path != note).cloned().collect::<Vec<_>>();
    let mut right = before.clone();
    gone(&half).into_iter().chain(gone(&left)).for_each(|path| drop(right.remove(&path)));
    hostile.iter().filter(|(_, is_named)| *is_named).for_each(|(path, _)| drop(right.remove(path)));
    assert_eq!(files(&site.store.root), right, "{text}");
    assert!(right.keys().any(|path| path.starts_with(&live.dir)));
    // Again: nothing that is left has a command, apart from the comments.
    let again = site.path("again.sh");
    site.program.expect(0, &["check", "--orphans", "--commands", &again]);
    assert!(!fs::read_to_string(&again).unwrap().contains("\nrm "), "{again}");
    let exists = site.program.expect(2, &["check", "--orphans", "--commands", &again]);
    assert!(exists.stderr.contains("exists already and is not overwritten"), "{}", exists.stderr);
}

/// The commands of a script that are not comments.
fn active(script: &str) -> Vec<String> {
    let text = fs::read_to_string(script).unwrap();
    text.lines().filter(|line| line.starts_with("rm ")).map(str::to_owned).collect()
}

fn is_named(commands: &[String], placed: &Placed) -> bool {
    commands.iter().any(|command| command.contains(&placed.id))
}

#[test]
fn what_a_live_backup_is_based_on_gets_no_command() {
    for engine in engines() {
        let site = Site::on(engine);
        // A parent, and the parent of a parent, whose rows were deleted by hand under a live increment.
        let full = site.available();
        let middle = site.backup("available", Some(&full));
        site.backup("available", Some(&middle));
        // The increment may not even have begun: it has no driver yet.
        let other = site.available();
        site.database.backup(|row| row.status("creating").service(None::<&str>).volume_id(&other.volume).parent_id(Some(&other.id)));
        // Old releases imported a backup under a new id: its objects have the names of the old one.
        let old = site.available();
        site.database.backup(|row| old.row(row).set("id", new_id()).status("available"));
        let unneeded = site.available();
        for placed in [&full, &middle, &other, &old, &unneeded] {
            delete_row(&site, placed, TWO_HOURS);
        }
        let script = site.path("remove.sh");
        site.program.expect(0, &["check", "--orphans", "--commands", &script]);
        let commands = active(&script);
        for placed in [&full, &middle, &other, &old] {
            assert!(!is_named(&commands, placed), "{} {commands:#?}", engine.name());
        }
        assert!(is_named(&commands, &unneeded), "{} {commands:#?}", engine.name());
    }
}

#[test]
fn what_may_be_of_another_cloud_or_was_hidden_by_hand_gets_only_a_comment() {
    let site = Site::new();
    site.available();
    // The other cloud has a finished backup, and one that has stored nothing new for hours.
    let theirs = site.store.place(&new_id(), None);
    let working = site.store.place(&new_id(), None);
    working.interrupt();
    let hidden = site.available();
    let yes = Cell::Boolean(true).sql(site.database.engine());
    site.database.execute(&format!("UPDATE backups SET deleted = {yes} WHERE id = '{}'", hidden.id));
    let script = site.path("remove.sh");
    site.program.expect(0, &["check", "--orphans", "--commands", &script]);
    let text = fs::read_to_string(&script).unwrap();
    for placed in [&theirs, &working, &hidden] {
        assert!(!is_named(&active(&script), placed) && text.contains(&format!("# rm -f -- {}", placed.dir.display())), "{text}");
    }
}

/// The row of a live backup was deleted in a copy of the database, and the original has made another backup since.
#[test]
fn what_is_deleted_in_a_copy_of_the_database_gets_only_a_comment() {
    let site = Site::new();
    site.available();
    let live = site.available();
    delete_row(&site, &live, TWO_HOURS);
    let (script, second) = (site.path("remove.sh"), site.path("second.sh"));
    // A row that was purged is no sign of it: its backup was there before the deletion.
    let purged = site.store.place(&new_id(), None);
    fs::read_dir(&purged.dir).unwrap().for_each(|entry| age(&entry.unwrap().path(), 9_000));
    let remove = |script: &str| {
        site.program.expect(0, &["check", "--orphans", "--commands", script]);
        is_named(&active(script), &live)
    };
    assert!(remove(&script));
    assert!(fs::read_to_string(&script).unwrap().contains("# If this is a copy or an old state of the cloud's database"));
    let newer = site.store.place(&new_id(), None);
    fs::read_dir(&newer.dir).unwrap().for_each(|entry| age(&entry.unwrap().path(), 3_600));
    assert!(!remove(&second));
}

#[test]
fn a_script_of_which_a_command_failed_says_so() {
    let site = Site::new();
    site.available();
    let left: Vec<Placed> = (0..3).map(|_| site.available()).collect();
    left.iter().for_each(|placed| delete_row(&site, placed, TWO_HOURS));
    let script = site.path("remove.sh");
    site.program.expect(0, &["check", "--orphans", "--commands", &script]);
    let first = left.iter().find(|placed| is_named(&active(&script)[..1], placed)).unwrap();
    fs::remove_file(first.object(1)).unwrap();
    fs::create_dir(first.object(1)).unwrap();
    let (is_done, message) = run_script(&site, &script);
    assert!(!is_done && message.contains("Is a directory"), "{message}");
    let others = left.iter().filter(|placed| placed.id != first.id);
    assert!(others.map(|placed| fs::read_dir(&placed.dir).unwrap().count()).eq([0, 0]), "the others are removed");
}

/// As the real client does with quiet requests: it prints what the server refused, and ends without an error.
#[test]
fn objects_that_a_bucket_does_not_give_up_are_a_failure_of_the_script() {
    let (site, _server, ids) = bucket(3);
    let then = ago(TWO_HOURS).sql(site.database.engine());
    site.database.execute(&format!("UPDATE backups SET deleted = 1, status = 'deleted', deleted_at = {then} WHERE id = '{}'", ids[2]));
    let (script, tool) = (site.path("remove.sh"), site.program.path("aws"));
    site.program.expect(0, &["check", "--orphans", "--settle", "0", "--commands", &script]);
    assert!(fs::read_to_string(&script).unwrap().contains("\naws s3api delete-objects "));
    for (answer, code) in [("", 0), ("echo '{\"Errors\": []}'", 1), ("exit 255", 1)] {
        fs::write(&tool, format!("#!/bin/sh\n{answer}\n")).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", tool.parent().unwrap().display());
        let ended = Command::new("sh").arg(&script).env_clear().env("PATH", path).output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{answer} {}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.stderr.is_empty(), answer.is_empty());
    }
}

#[test]
fn a_storage_without_a_live_backup_gets_no_command() {
    let site = Site::new();
    delete_row(&site, &site.available(), TWO_HOURS);
    let script = site.path("remove.sh");
    site.program.expect(0, &["check", "--orphans", "--commands", &script]);
    let text = fs::read_to_string(&script).unwrap();
    assert!(text.contains("no command, because no live backup of this database has an object in") && !text.contains("\nrm "), "{text}");
}

#[test]
fn the_storage_of_new_backups_is_walked_even_if_no_row_names_it() {
    let site = Site::new();
    let nothing = site.program.json(4, &["check", "--orphans"]);
    assert!(nothing["unread"][0].as_str().unwrap().starts_with("nothing was walked"), "{nothing:#}");
    let lost = site.store.place(&new_id(), None);
    let conf = site.program.path("cinder.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}backup_driver = {}\n", super::POSIX)).unwrap();
    let document = site.program.json(0, &["check", "--orphans"]);
    assert_eq!(orphans(&document), [expected("no-row", &lost, 18)]);
}

#[test]
fn a_walk_whose_reader_has_closed_the_stream_ends_without_an_error() {
    let site = Site::new();
    site.store.place(&new_id(), None);
    many(&site, 10);
    let answer = site.program.unread(&["check", "--orphans", "-f", "jsonl"]);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(!answer.stderr.contains("stopped by"), "{}", answer.stderr);
}

#[test]
fn memory_does_not_grow_with_the_number_of_orphans() {
    let site = Site::new();
    site.available();
    let root = site.store.root.join("all");
    fs::create_dir(&root).unwrap();
    let within = |kib: usize| {
        let direct = site.program.command(&["check", "--orphans", "-f", "jsonl", "--settle", "0"]);
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("ulimit -d {kib}; exec \"$0\" \"$@\"")]).arg(direct.get_program()).args(direct.get_args());
        shell.env_clear().envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", "/usr/bin:/bin");
        crate::program::answer(shell.current_dir(site.program.path(".")))
    };
    let mut made = 0;
    for number in [15_000, 60_000] {
        for place in made..number {
            let id = format!("{place:08x}-0000-4000-8000-000000000000");
            fs::write(root.join(format!("{}-00001", prefix_of(&id, &id))), "").unwrap();
        }
        made = number;
        let answer = within(32 * 1_024);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        assert_eq!(answer.stdout.lines().filter(|line| line.starts_with("{\"orphan\"")).count(), number);
    }
    // The limit is a real one.
    assert_ne!(within(2 * 1_024).code, Some(0));
}

#[test]
fn a_row_that_is_added_while_its_objects_are_listed_is_seen() {
    let (site, server, ids) = bucket(3);
    let other = new_id();
    let rename = |from: &str, to: &str| site.database.execute(&format!("UPDATE backups SET id = '{to}' WHERE id = '{from}'"));
    rename(&ids[2], &other);
    let walk = ["check", "--orphans", "-f", "json", "--settle", "0"];
    let without = site.program.run(&walk);
    let kinds = orphans(&without.json()).into_iter().map(|(kind, id, _)| (kind, id)).collect::<Vec<_>>();
    assert!(kinds.contains(&("no-row".to_owned(), Some(ids[2].clone()))), "{kinds:?}");
    server.requests.lock().unwrap().clear();
    server.delay.store(3_000, Ordering::SeqCst);
    let child = site.program.start(&walk);
    wait_until("request", || !server.requests.lock().unwrap().is_empty());
    rename(&other, &ids[2]);
    server.delay.store(0, Ordering::SeqCst);
    let with = end(child);
    assert_eq!((with.code, orphans(&with.json())), (Some(0), Vec::new()), "{}", with.stdout);
}

#[test]
fn a_signal_stops_a_walk_although_the_server_does_not_answer() {
    let (site, server, _) = bucket(1);
    server.delay.store(SILENT, Ordering::SeqCst);
    let script = site.path("remove.sh");
    let child = site.program.start(&["check", "--orphans", "-f", "jsonl", "--commands", &script]);
    wait_until("request", || !server.requests.lock().unwrap().is_empty());
    let begun = Instant::now();
    send(&child, Signal::INT);
    let answer = end(child);
    // A second, with a margin for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(answer.code, Some(130), "{}", answer.stderr);
    assert!(answer.stderr.contains("stopped by SIGINT before the end; --resume continues from this stream"), "{}", answer.stderr);
    assert_eq!(of_kind(&records(&answer), "end")[0]["interrupted"], "SIGINT");
    assert!(!Path::new(&script).exists(), "a list without its end");
}
