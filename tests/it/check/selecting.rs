//! Which backups are checked, how much of each is read, and the output.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{CHANGED, OBJECTS, Placed, Site, TWO_HOURS, result};
use crate::database::Database;
use crate::program::{Answer, Program};
use crate::rows::{self, Cell};
use crate::schemas::{Columns, engines, fresh};
use crate::terminal::Terminal;

/// The ids in a check document, in its order.
fn ids(document: &Value) -> Vec<String> {
    document["results"].as_array().expect("results").iter().map(|result| result["id"].as_str().unwrap().to_owned()).collect()
}

fn set<'a>(placed: impl IntoIterator<Item = &'a Placed>) -> BTreeSet<String> {
    placed.into_iter().map(|placed| placed.id.clone()).collect()
}

fn document(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_exit_code_depends_on_the_verdicts() {
    let site = Site::new();
    let answer = site.program.expect(0, &["check"]);
    assert!(answer.stderr.contains("Nothing to check"), "{}", answer.stderr);
    let intact = site.creating();
    let answer = site.program.expect(0, &["check"]);
    assert!(answer.stderr.contains("1 intact"), "{}", answer.stderr);
    let unverifiable = site.creating();
    site.database.execute(&format!("UPDATE backups SET service = 'acme.Driver' WHERE id = '{}'", unverifiable.id));
    site.program.expect(4, &["check"]);
    site.program.expect(0, &["check", &intact.id]);
    site.program.expect(4, &["check", &unverifiable.id]);
    let damaged = site.creating();
    fs::remove_file(damaged.object(1)).unwrap();
    let answer = site.program.expect(9, &["check"]);
    assert!(answer.stderr.contains("1 intact, 1 incomplete, 1 unverifiable"), "{}", answer.stderr);
    assert!(answer.stderr.contains(&format!("{} is incomplete:", damaged.id)), "{}", answer.stderr);
    site.program.expect(0, &["check", &intact.id]);
}

#[test]
fn backups_are_selected_by_id_name_and_columns() {
    let site = Site::new();
    let (first, second, third) = (site.creating(), site.creating(), site.available());
    let (fourth, recent) = (site.backup("error", None), site.creating());
    let set_ = |placed: &Placed, what: &str| site.database.execute(&format!("UPDATE backups SET {what} WHERE id = '{}'", placed.id));
    set_(&first, "display_name = 'nightly', project_id = 'p1'");
    set_(&second, "display_name = 'nightly', host = 'ctl2', project_id = 'p2'");
    set_(&third, "display_name = 'weekly', project_id = 'p1'");
    set_(&recent, "created_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), project_id = 'p3'");
    let check = |args: &[&str]| -> BTreeSet<String> {
        let list = ids(&site.program.json(0, &[&["check"], args].concat()));
        let set: BTreeSet<String> = list.iter().cloned().collect();
        assert_eq!(list.len(), set.len(), "each once: {list:?}");
        set
    };
    assert_eq!(check(&[]), set([&first, &second]), "what scan finds, without recent backups");
    assert_eq!(check(&["--status", "error"]), set([&fourth]));
    assert_eq!(check(&["--all"]), set([&first, &second, &third, &fourth, &recent]));
    assert_eq!(check(&["--all", "--host", "ctl2"]), set([&second]));
    assert_eq!(check(&["--all", "--project", "p1"]), set([&first, &third]));
    assert_eq!(check(&["--all", "--volume", &third.volume]), set([&third]));
    assert_eq!(check(&["--all", "--status", "error"]), set([&fourth]));
    assert_eq!(check(&["--all", "--limit", "2"]).len(), 2);
    assert_eq!(check(&["--host", "ctl2"]), set([&second]));
    assert_eq!(check(&["--project", "p1"]), set([&first]));
    assert_eq!(check(&["--limit", "1"]).len(), 1);
    assert_eq!(check(&["weekly", &recent.id]), set([&third, &recent]), "a name, and the id of a recent backup");
    // An id selects its own backup, even if another backup has it as a name.
    set_(&fourth, &format!("display_name = '{}'", first.id));
    assert_eq!(check(&[&first.id]), set([&first]));

    let refuse = |args: &[&str], part: &str| {
        let answer = site.program.expect(2, &[&["check"], args].concat());
        assert!(answer.stderr.contains(part) && answer.stdout.is_empty(), "{args:?} {}", answer.stderr);
    };
    refuse(&["nightly"], "2 backups have the name");
    refuse(&["nobody"], "no live backup has the id or name \"nobody\"");
    refuse(&["nobody", &first.id], "no live backup has");
    // A backup that other options exclude is not reported as unknown.
    let left_out = format!("other options exclude backup {} \"weekly\": its status is available, its host ctl1", third.id);
    refuse(&["weekly", "--host", "ctl2"], &left_out);
    refuse(&[&third.id, "--status", "creating"], &left_out);
    refuse(&[&first.id, "--host", "ctl2"], "other options exclude backup");
    assert_eq!(check(&["nightly", "--host", "ctl2"]), set([&second]), "--host selects one of two with the same name");
    refuse(&["--all", &first.id], "cannot be used with");
    refuse(&["--all", "--from", "x.json"], "cannot be used with");
    refuse(&["--from", "x.json", &first.id], "cannot be used with");
    refuse(&["--level", "thorough"], "is not a level: use quick, deep or restore");
    refuse(&["--sample", "5%", "--read-data-subset", "1/2", "--level", "deep"], "cannot be used with");
    for share in [&["--sample", "5%"], &["--read-data-subset", "1/2"]] {
        refuse(share, "--level quick does not read");
    }
    // A shard of a catalog with a sample would count as the whole shard.
    for share in [["--sample", "5%"], ["--read-data-subset", "1/2"]] {
        let shard = ["--from", "x.jsonl", "--shard", "1/2", "--level", "deep"];
        refuse(&[&shard as &[&str], &share].concat(), "do not work with --shard of a catalog");
    }
    refuse(&["merge", "x.jsonl", "--sign-key", "x.pem"], "--verify-key");
    for part in ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", ""] {
        refuse(&["--shard", part], "is not a shard: use for example 2/5");
    }
    for sample in ["0", "101%", "-1%", "NaN", "inf", "x"] {
        refuse(&["--sample", sample, "--level", "deep"], "is not a percentage: use for example 5%");
    }
    refuse(&["--memory", "1M"], "is too little memory");
    for number in ["0", "-1", "1025", "abc"] {
        for option in ["--jobs", "--limit-parallel"] {
            refuse(&[option, number], &format!("{number:?} is not an integer from 1 to 1024"));
        }
        refuse(&["--limit-requests", number.replace("1025", "1000001").as_str()], " is not an integer from 1 to 1000000");
    }
    for (rate, why) in
        [("0", "0 is too slow: use at least 64K"), ("63K", "63K is too slow"), ("-5M", "is not a size"), ("abc", "is not a size")]
    {
        refuse(&["--limit-rate", rate], why);
    }
    for (span, why) in [("0", "must be at least 1 s"), ("-1h", "is not a time span"), ("abc", "is not a time span")] {
        refuse(&["--max-runtime", span], why);
    }
    refuse(&["-c", "Nope"], "unknown column");

    // Ids from standard input. An empty list does not select everything.
    let stdin = |text: &str| -> Answer {
        let mut child = site
            .program
            .command(&["check", "-", "-f", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    };
    let answer = stdin(&format!("{}\n{}\n", first.id, third.id));
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert_eq!(ids(&answer.json()).into_iter().collect::<BTreeSet<_>>(), set([&first, &third]));
    let answer = stdin(" \n");
    assert_eq!(answer.code, Some(2), "{}", answer.stderr);
    assert!(answer.stderr.contains("lists no ids"), "{}", answer.stderr);
}

#[test]
fn a_selection_applies_to_a_scan_document() {
    let site = Site::new();
    let (first, second) = (site.creating(), site.creating());
    site.database.execute(&format!("UPDATE backups SET host = 'ctl2', project_id = 'p2' WHERE id = '{}'", second.id));
    let stuck = site.keep(0, "stuck.json", &["scan"]);
    let check = |args: &[&str]| -> BTreeSet<String> {
        ids(&site.program.json(0, &[&["check", "--from", &stuck], args].concat())).into_iter().collect()
    };
    assert_eq!(check(&[]), set([&first, &second]));
    assert_eq!(check(&["--host", "ctl2"]), set([&second]));
    assert_eq!(check(&["--project", "p2"]), set([&second]));
    assert_eq!(check(&["--volume", &first.volume]), set([&first]));
    assert_eq!(check(&["--status", "error"]), set([]));
    assert_eq!(check(&["--limit", "1"]).len(), 1);

    for (name, text) in [
        ("empty.json", String::new()),
        ("list.json", "[]".to_owned()),
        ("cut.json", fs::read_to_string(&stuck).unwrap()[..400].to_owned()),
        ("newer.json", fs::read_to_string(&stuck).unwrap().replacen("\"schema_version\": 1", "\"schema_version\": 2", 1)),
        ("check.json", site.program.expect(0, &["check", "-f", "json"]).stdout),
    ] {
        let path = site.path(name);
        fs::write(&path, text).unwrap();
        let answer = site.program.expect(2, &["check", "--from", &path]);
        assert_eq!(answer.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{name}: {}", answer.stderr);
        assert!(answer.stderr.contains(name), "{name}: {}", answer.stderr);
    }
}

#[test]
fn each_backup_is_in_one_shard_together_with_its_chain() {
    let site = Site::new();
    let parents: Vec<Placed> = (0..7).map(|_| site.available()).collect();
    let mut all: Vec<Placed> = parents.iter().map(|parent| site.backup("creating", Some(parent))).collect();
    all.extend((0..5).map(|_| site.creating()));
    all.extend(parents.iter().cloned());
    let stuck = site.keep(0, "stuck.json", &["scan"]);
    for from in [&["--all"] as &[&str], &["--from", &stuck]] {
        let whole: BTreeSet<String> = ids(&site.program.json(0, &[&["check"], from].concat())).into_iter().collect();
        let mut seen = BTreeSet::new();
        for part in ["1/3", "2/3", "3/3"] {
            let document = site.program.json(0, &[&["check", "--shard", part], from].concat());
            for id in ids(&document) {
                assert!(seen.insert(id.clone()), "{id} is in two shards");
            }
            if from == ["--all"] {
                for child in &all[..parents.len()] {
                    let here = ids(&document);
                    assert_eq!(here.contains(&child.id), here.contains(child.parent.as_ref().unwrap()), "a chain is in one shard");
                }
            }
        }
        assert_eq!(seen, whole);
    }
}

#[test]
fn a_part_of_the_data_does_not_prove_a_backup_intact() {
    let site = Site::new();
    let placed = site.creating();
    let mut objects = 0;
    for part in ["1/3", "2/3", "3/3"] {
        let document = site.program.json(0, &["check", "--level", "deep", "--read-data-subset", part]);
        let found = result(&document, &placed.id);
        assert_eq!((&found["verdict"], &found["partial"]), (&json!("intact"), &json!(true)), "{found:#}");
        objects += found["objects"]["checked"].as_u64().unwrap();
        let depth = found["depth"].as_str().unwrap();
        assert!(depth.contains(&format!("(part {} of 3)", &part[..1])), "{depth}");
    }
    assert_eq!(objects, OBJECTS as u64, "three parts are all objects");
    let sampled = site.keep(0, "sampled.json", &["check", "--level", "deep", "--sample", "1%"]);
    let found = document(&sampled);
    let read = result(&found, &placed.id)["objects"]["checked"].as_u64().unwrap();
    assert!((1..OBJECTS as u64).contains(&read), "at least one, but not all: {read}");
    // A sample is not enough for available.
    let refused = site.program.json(6, &["repair", "--yes", &placed.id, "--evidence", &sampled]);
    assert!(refused["refused"][0]["reason"].as_str().unwrap().contains("only part of its data was read"), "{refused:#}");
    assert_eq!(site.status(&placed), "creating");
    // A resumed check does not carry it over.
    let resumed = site.program.json(0, &["check", "--level", "deep", "--resume", &sampled]);
    assert_eq!(result(&resumed, &placed.id)["objects"]["checked"], OBJECTS);
    // Damage in the part is damage.
    placed.damage();
    site.program.expect(0, &["check", "--level", "deep", "--read-data-subset", "2/3"]);
    let damaged = site.keep(9, "damaged.json", &["check", "--level", "deep", "--read-data-subset", "1/3"]);
    site.program.expect(0, &["repair", "--yes", "--evidence", &damaged, "--assume-dead", "ctl1"]);
    assert_eq!(site.status(&placed), "error");
}

#[test]
fn a_check_resumes_an_earlier_one() {
    let site = Site::new();
    let parent = site.available();
    let (whole, moved, lost) = (site.creating(), site.creating(), site.creating());
    let child = site.backup("creating", Some(&parent));
    site.database.execute(&format!("UPDATE backups SET service = 'acme.Driver' WHERE id = '{}'", lost.id));
    let first = site.keep(4, "first.json", &["check"]);
    let before = document(&first);
    // One row has changed since, a new backup is stuck, and one backup can be checked now.
    site.database.execute(&format!("UPDATE backups SET fail_reason = 'x' WHERE id = '{}'", moved.id));
    let new = site.creating();
    site.database.execute(&format!("UPDATE backups SET service = '{}' WHERE id = '{}'", super::POSIX, lost.id));
    let resumed = site.program.expect(0, &["check", "--resume", &first, "-f", "json"]);
    let after = resumed.json();
    assert_eq!(ids(&after).into_iter().collect::<BTreeSet<_>>(), set([&whole, &moved, &lost, &child, &new]));
    let at = |document: &Value, placed: &Placed| result(document, &placed.id)["checked_at"].clone();
    assert_eq!(at(&before, &whole), at(&after, &whole), "carried over");
    assert_eq!(at(&before, &child), at(&after, &child), "carried over");
    assert_ne!(at(&before, &moved), at(&after, &moved));
    assert_ne!(at(&before, &lost), at(&after, &lost), "its driver was unknown then");
    assert_eq!(after["summary"]["intact"], 5, "{after:#}");
    let again = site.path("again.json");
    fs::write(&again, &resumed.stdout).unwrap();
    let answer = site.program.expect(0, &["check", "--resume", &again]);
    assert!(answer.stderr.contains("5 of 5 carried over from the earlier check."), "{}", answer.stderr);
    // A deeper check reads it again.
    let deep = site.program.json(0, &["check", &whole.id, "--level", "deep", "--resume", &again]);
    assert_eq!(result(&deep, &whole.id)["level"], "deep");

    let other = Site::new();
    let answer = other.program.expect(2, &["check", "--resume", &first]);
    assert!(answer.stderr.contains("--resume is about the database"), "{}", answer.stderr);
    let edited = site.path("edited.json");
    fs::write(&edited, fs::read_to_string(&first).unwrap().replace("\"intact\": 3", "\"intact\": 4")).unwrap();
    let answer = site.program.expect(2, &["check", "--resume", &edited]);
    assert!(answer.stderr.contains("was edited after it was written"), "{}", answer.stderr);
}

/// Starts a deep check, sends a signal after the first result and returns the answer.
fn stopped(site: &Site, signal: Signal) -> Answer {
    let mut child = site.program.start(&["check", "--level", "deep", "--jobs", "1", "-v", "-f", "json"]);
    // The first result is reported on standard error.
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    let begun = Instant::now();
    while !said.contains(": intact") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{said}");
        assert!(std::io::BufRead::read_line(&mut stderr, &mut said).unwrap() > 0, "it ended: {said}");
    }
    kill_process(Pid::from_child(&child), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    Answer { code: output.status.code(), stdout: String::from_utf8(output.stdout).unwrap(), stderr: said }
}

#[test]
fn results_before_a_signal_are_kept() {
    let site = Site::new();
    let all: Vec<Placed> = (0..6).map(|_| site.creating()).collect();
    for (signal, code, name) in [(Signal::INT, 130, "SIGINT"), (Signal::TERM, 143, "SIGTERM")] {
        let answer = stopped(&site, signal);
        assert_eq!(answer.code, Some(code), "{}", answer.stderr);
        assert!(answer.stderr.contains(&format!("warning: stopped by {name} before the end; --resume continues")), "{}", answer.stderr);
        let document = answer.json();
        assert_eq!(document["interrupted"], name);
        let summary = &document["summary"];
        let count = |key: &str| usize::try_from(summary[key].as_u64().unwrap()).unwrap();
        assert!(count("intact") >= 1 && count("intact") < all.len(), "{summary}");
        assert!(count("unverifiable") <= 1, "at most the one that was being read: {summary}");
        assert_eq!(count("intact") + count("unverifiable") + count("left"), all.len(), "{summary}");
        assert_eq!(count("incomplete") + count("corrupt") + count("missing"), 0, "a stopped check reports no damage: {summary}");
        // A resumed check reads only the rest.
        let path = site.path(name);
        fs::write(&path, &answer.stdout).unwrap();
        let resumed = site.program.expect(0, &["check", "--level", "deep", "--resume", &path, "-v"]);
        assert!(resumed.stderr.contains(&format!("{} of 6 carried over", count("intact"))), "{}", resumed.stderr);
        // The results can be used, with a warning that they are not complete.
        let left_out = if count("unverifiable") > 0 { 4 } else { 0 };
        let planned = site.program.expect(left_out, &["plan", "--evidence", &path, "-f", "json"]);
        assert!(planned.stderr.contains("was stopped early"), "{}", planned.stderr);
        assert_eq!(planned.json()["units"].as_array().unwrap().len(), count("intact"));
    }
}

#[test]
fn a_repair_that_is_stopped_during_its_check_changes_nothing() {
    let site = Site::new();
    (0..4).for_each(|_| drop(site.creating()));
    let before = site.database.rows_by_id();
    let child = site.program.start(&["repair", "--yes", "--check", "deep", "--jobs", "1"]);
    std::thread::sleep(Duration::from_millis(900));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("stopped by SIGINT while checking the storage; nothing was changed"), "{stderr}");
    assert_eq!(crate::database::changes(&before, &site.database.rows_by_id()), []);
}

#[test]
fn every_output_format_shows_the_results() {
    let site = Site::new();
    let parent = site.available();
    let child = site.backup("creating", Some(&parent));
    let whole = site.creating();
    site.database.execute(&format!("UPDATE backups SET display_name = 'a, \"b\"' WHERE id = '{}'", whole.id));
    fs::remove_file(child.object(1)).unwrap();
    let show = |args: &[&str]| site.program.expect(9, &[&["check"], args].concat()).stdout;
    let csv = show(&["-f", "csv", "--sort-column", "Verdict", "-c", "ID", "-c", "Verdict", "-c", "Name", "-c", "Objects"]);
    assert_eq!(
        csv,
        format!(
            "\"ID\",\"Verdict\",\"Name\",\"Objects\"\n\"{}\",\"incomplete\",\"\",{CHANGED}\n\"{}\",\"intact\",\"a, \"\"b\"\"\",{OBJECTS}\n",
            child.id, whole.id
        )
    );
    let value = show(&["-f", "value", "-c", "Verdict", "-c", "Problems", "-c", "Driver", "--sort-column", "Verdict"]);
    assert_eq!(value, "incomplete 1 posix\nintact 0 posix\n");
    let table = show(&[]);
    for word in ["ID", "Verdict", "Objects", "incomplete", "intact", &child.id] {
        assert!(table.contains(word), "{table}");
    }
    let yaml = show(&["-f", "yaml"]);
    assert!(yaml.contains("schema: cinder-backup-repair/check") && yaml.contains("code: object-missing"), "{yaml}");
    let one_line = show(&["-f", "json", "--noindent"]);
    assert_eq!(one_line.trim_end().lines().count(), 1);
    let document: Value = serde_json::from_str(&one_line).unwrap();
    let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!((keys[0].as_str(), keys[1].as_str()), ("schema", "schema_version"));
    let again: Value = serde_json::from_str(&show(&["-f", "json"])).unwrap();
    assert_eq!(again["summary"], document["summary"]);
    // --quiet still prints the result.
    let quiet = site.program.expect(9, &["check", "-q", "-f", "value", "-c", "ID"]);
    assert_eq!((quiet.stderr.as_str(), quiet.stdout.lines().count()), ("", 2));
    assert!(TWO_HOURS > 0 && !table.contains("backup_"), "objects are named on standard error: {table}");
}

#[test]
fn progress_is_shown_only_at_a_terminal() {
    let site = Site::new();
    (0..3).for_each(|_| drop(site.creating()));
    let mut terminal = Terminal::wide(&site.program, &["check", "--level", "deep", "--jobs", "1"]);
    terminal.wait_until("progress", |screen| screen.contains(" of 3 backups") && screen.contains("GiB") && screen.contains(" left"));
    let screen = terminal.expect(0);
    assert!(screen.contains("3 intact") && !screen.contains(" left"), "{screen}");
    let mut terminal = Terminal::wide(&site.program, &["check", "--level", "deep", "--jobs", "1"]);
    terminal.wait(" of 3 backups");
    terminal.press("\u{3}");
    let screen = terminal.expect(130);
    assert!(screen.contains("unverifiable") || screen.contains(" left"), "{screen}");
    let answer = site.program.expect(0, &["check", "--level", "deep"]);
    assert!(!answer.stderr.contains('\r') && !answer.stderr.contains('\u{1b}') && !answer.stderr.contains("of 3"), "{}", answer.stderr);
}

/// It is shown once it is known: for a chain, when the check of its last backup has begun.
#[test]
fn the_total_in_the_progress_line_never_grows() {
    let site = Site::new();
    let parent = site.available();
    let child = site.backup("creating", Some(&parent));
    site.creating();
    let mut terminal = Terminal::wide(&site.program, &["check", "--level", "deep", "--jobs", "1"]);
    terminal.wait("counting how much is left");
    let screen = terminal.expect(0);
    assert!(screen.contains("2 intact") && !screen.contains("counting"), "{screen}");
    let mut terminal = Terminal::wide(&site.program, &["check", "--level", "deep", "--jobs", "1", &child.id]);
    terminal.expect(0);
    let written = terminal.written();
    let totals: BTreeSet<&str> = written.split("iB of ").skip(1).filter_map(|rest| rest.split(',').next()).collect();
    assert_eq!(totals.len(), 1, "{totals:?} in {written}");
}

#[test]
fn a_quick_check_shows_the_number_of_backups() {
    let (site, server, _) = super::slow::bucket(20);
    server.delay.store(60, std::sync::atomic::Ordering::SeqCst);
    let mut terminal = Terminal::wide(&site.program, &["check", "--all"]);
    terminal.wait_until("progress", |screen| screen.contains(" of 20 backups") && screen.contains(" left"));
    let screen = terminal.expect(0);
    assert!(screen.contains("20 intact") && !screen.contains(" left"), "{screen}");
    assert!(!terminal.written().contains("counting"), "a quick check reads no data");
}

/// Ends all sessions of a database but the harness's own, as a proxy does to idle ones.
fn end_other_sessions(database: &Database) {
    match database.engine() {
        Engine::Sqlite => {}
        Engine::Postgresql => {
            let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
            database.query(&format!("SELECT pg_terminate_backend(pid)::text {others}"));
        }
        Engine::Mysql | Engine::Mariadb => {
            let others = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
            for row in database.query(others) {
                database.execute(&format!("KILL {}", row[0].clone().unwrap()));
            }
        }
    }
}

/// While a check runs, its results wait for their reader, and rows of a large table are read only when their turn comes.
#[test]
fn rows_are_checked_as_they_are_when_their_turn_comes() {
    const BACKUPS: usize = 7_000;
    for engine in engines() {
        println!("{}", engine.name());
        let database = fresh(engine, Columns::Full);
        let id = |number: usize| format!("00000000-0000-4000-8000-{number:012x}");
        let row =
            |number: usize| rows::backup().id(id(number)).status("available").service(None::<String>).service_metadata(None::<String>);
        database.insert(&(0..BACKUPS).map(row).collect::<Vec<_>>());
        let program = Program::on(database.url());
        let mut check = program.command(&["check", "--all", "-f", "jsonl"]);
        let mut check = check.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(check.stdout.take().unwrap()).lines();
        let first: Vec<String> = lines.by_ref().take(2).map(Result::unwrap).collect();
        assert!(first[1].starts_with("{\"result\":"), "{first:?}");
        let deleted = Cell::from(true).sql(engine);
        database.execute(&format!("UPDATE backups SET deleted = {deleted} WHERE id >= '{}'", id(BACKUPS - 3)));
        database.execute(&format!("UPDATE backups SET display_name = 'renamed' WHERE id = '{}'", id(BACKUPS - 4)));
        end_other_sessions(&database);
        let rest: Vec<Value> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        let answer = check.wait_with_output().unwrap();
        let said = String::from_utf8(answer.stderr).unwrap();
        assert_eq!(answer.status.code(), Some(9), "{said}");
        let (end, results) = rest.split_last().unwrap();
        assert_eq!(results.len() + 1, BACKUPS - 3);
        assert_eq!((&end["end"]["summary"]["missing"], &end["end"]["summary"]["left"]), (&json!(BACKUPS - 3), &json!(0)));
        let renamed = results.iter().find(|line| line["result"]["id"] == *id(BACKUPS - 4)).unwrap();
        assert_eq!(renamed["result"]["name"], "renamed");
        assert!(said.contains("3 backups deleted since the check began, and not checked"), "{said}");
    }
}
