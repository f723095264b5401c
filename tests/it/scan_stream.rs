//! The record stream of `scan`: the findings of the document, and the catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use cinder_backup_repair::db::Engine;
use serde_json::Value;

use crate::database::Database;
use crate::population;
use crate::program::Program;
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;

/// A stream by its parts.
struct Lines {
    head: Value,
    /// The kind and the content of each record.
    records: Vec<(String, Value)>,
    end: Value,
}

impl Lines {
    fn of(text: &str) -> Self {
        let mut lines: Vec<(String, Value)> = text
            .lines()
            .map(|line| {
                let Value::Object(line) = serde_json::from_str(line).unwrap() else { panic!("{line}") };
                let mut line = line.into_iter().filter(|(kind, _)| kind != "sha256");
                line.next().unwrap()
            })
            .collect();
        let (last, first) = (lines.pop().unwrap(), lines.remove(0));
        assert_eq!((first.0.as_str(), last.0.as_str()), ("head", "end"));
        Self { head: first.1, records: lines, end: last.1 }
    }

    fn scan(program: &Program, args: &[&str]) -> Self {
        Self::of(&program.expect(0, &[&["scan", "-f", "jsonl"], args].concat()).stdout)
    }

    fn of_kind<'l>(&'l self, kind: &'l str) -> impl Iterator<Item = &'l Value> {
        self.records.iter().filter(move |(of, _)| of == kind).map(|(_, record)| record)
    }
}

/// Findings in the order of the document, without what depends on the time of the scan.
fn comparable<'v>(findings: impl Iterator<Item = &'v Value>) -> Vec<Value> {
    let text = |finding: &Value, field: &str| finding[field].as_str().map(str::to_owned);
    let mut findings: Vec<Value> = findings.cloned().collect();
    findings.sort_by_key(|finding| (finding["since"].is_null(), text(finding, "since"), text(finding, "kind"), text(finding, "id")));
    for finding in &mut findings {
        finding["age_seconds"] = Value::Null;
        for evidence in finding["evidence"].as_array_mut().unwrap() {
            evidence["text"] = Value::Null;
        }
    }
    findings
}

#[test]
fn a_stream_has_the_findings_of_the_document() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&population::generate(11, 150).rows);
        let program = Program::on(database.url());
        // The others count on the two first, and the limit leaves one of them out.
        let selections: &[&[&str]] = &[
            &[],
            &["--assume-dead", "all", "--to", "error", "--fix-counters", "--older-than", "0s"],
            &["--assume-dead", "all", "--older-than", "0s", "--limit", "1"],
            &["--assume-dead", "all", "--older-than", "0s", "--limit", "25"],
            &["--limit", "1000"],
            &["--status", "deleting", "--status", "backing-up"],
        ];
        for selection in selections {
            let document = program.json(0, &[&["scan"], *selection].concat());
            let stream = Lines::scan(&program, selection);
            let findings = document["findings"].as_array().unwrap();
            assert!(!findings.is_empty());
            assert_eq!(comparable(stream.of_kind("finding")), comparable(findings.iter()), "{} {selection:?}", engine.name());
            assert_eq!(stream.of_kind("notice").collect::<Vec<_>>(), document["notices"].as_array().unwrap().iter().collect::<Vec<_>>());
            for field in ["summary", "left_out"] {
                assert_eq!(stream.end[field], document[field], "{selection:?}");
            }
            assert_eq!(stream.end["records"], stream.records.len());
            assert_eq!((&stream.head["database"], &stream.head["thresholds"]), (&document["database"], &document["thresholds"]));
        }
    }
}

/// Every live backup of the database: its parent, and its number of objects.
fn live(database: &Database) -> BTreeMap<String, Option<String>> {
    let rows = database.query("SELECT id, parent_id FROM backups WHERE NOT coalesce(deleted, FALSE)");
    rows.into_iter().map(|mut row| (row.remove(0).unwrap(), row.remove(0))).collect()
}

#[test]
fn the_catalog_has_every_live_backup_after_its_parent() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&population::generate(5, 200).rows);
        // A chain that is longer than what is read at a time is too slow to insert; a unit test has one.
        let root = database.backup(|row| row.size(3).object_count(2).service("cinder.backup.drivers.swift.SwiftBackupDriver"));
        let project = "a-project-of-its-own";
        let tip = database.backup(|row| row.parent_id(&root).project_id(project).size(1).object_count(900));
        let program = Program::on(database.url());
        let stream = Lines::scan(&program, &["--all"]);
        let parents = live(&database);
        let (mut seen, mut open) = (BTreeSet::new(), Value::Null);
        let (mut left, mut bytes) = (0, 0);
        for (kind, record) in &stream.records {
            match kind.as_str() {
                "chain" => {
                    assert_eq!((left, bytes), (0, 0), "the sums of a chain are those of its backups");
                    (left, bytes) = (record["backups"].as_u64().unwrap(), record["bytes"].as_u64().unwrap());
                    open = record.clone();
                }
                "backup" => {
                    let id = record["row"]["id"].as_str().unwrap();
                    let is_first = id == open["id"];
                    let parent = parents[id].as_deref().filter(|parent| parents.contains_key(*parent));
                    assert!(is_first || parent.is_some_and(|parent| seen.contains(parent)), "{id}");
                    assert!(seen.insert(id), "{id} is listed twice");
                    assert_eq!(record["wanted"], true);
                    left -= 1;
                    bytes -= record["bytes"].as_u64().unwrap();
                }
                _ => {}
            }
        }
        assert_eq!((left, bytes, seen), (0, 0, parents.keys().map(String::as_str).collect()), "{}", engine.name());
        let catalog = &stream.end["catalog"];
        assert_eq!(catalog["backups"], parents.len());
        assert_eq!(catalog["chains"], stream.of_kind("chain").count());
        assert_eq!(catalog["bytes"], stream.of_kind("chain").map(|chain| chain["bytes"].as_u64().unwrap()).sum::<u64>());
        // Of a selection, the ancestors are there as well.
        let part = Lines::scan(&program, &["--all", "--project", project]);
        let chains: Vec<&Value> = part.of_kind("chain").collect();
        let bytes = 2 * 52_428_800 + (1_u64 << 30);
        let drivers = serde_json::json!(["swift"]);
        let expected = serde_json::json!({ "id": root, "backups": 2, "bytes": bytes, "drivers": drivers });
        assert_eq!(chains, [&expected]);
        let backups: Vec<(&Value, &Value)> = part.of_kind("backup").map(|record| (&record["row"]["id"], &record["wanted"])).collect();
        assert_eq!(backups, [(&root.into(), &false.into()), (&tip.into(), &true.into())]);
    }
}

#[test]
fn the_catalog_needs_json_lines() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let program = Program::on(database.url());
    let refused = program.expect(2, &["scan", "--all"]);
    assert_eq!(refused.stderr, "error: --all lists every live backup, so it needs --format jsonl\n");
    for option in ["-c", "--sort-column"] {
        let refused = program.expect(2, &["scan", "-f", "jsonl", option, "id"]);
        assert!(refused.stderr.contains("cannot be used with --format jsonl"), "{}", refused.stderr);
        assert_eq!(refused.json()["exit_code"], 2);
    }
    // Nothing but the error is written if an option matches nothing.
    let refused = program.expect(2, &["scan", "-f", "jsonl", "--host", "nowhere"]);
    assert_eq!(refused.json()["schema"], "cinder-backup-repair/error");
    assert_eq!(refused.stdout.lines().count(), 1);
}

#[test]
fn hostile_names_are_escaped_and_a_closed_pipe_ends_a_stream() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let name = "\u{1b}[31m\u{202e}\n\"sha256\":\"x\"";
    let rows: Vec<_> =
        (0..3_000).map(|_| crate::rows::backup().status("creating").host("gone").display_name(name).age(TWO_HOURS)).collect();
    database.insert(&rows);
    let program = Program::on(database.url());
    let text = program.expect(3, &["scan", "--all", "-f", "jsonl", "--detailed-exitcode"]).stdout;
    assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')));
    let stream = Lines::of(&text);
    assert!(stream.of_kind("finding").chain(stream.of_kind("backup")).all(|record| record["name"] == name));
    let mut child = program.command(&["scan", "-f", "jsonl"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::with_capacity(64, child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
    // A disk that is full is an error.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = program.command(&["scan", "-f", "jsonl"]).stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), said.as_str()),
        (Some(1), "error: cannot write the result to standard output: No space left on device (os error 28)\n")
    );
}
