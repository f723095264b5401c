//! The output formats, in pipes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use cinder_backup_repair::db::Engine;
use serde_json::Value;

use super::stuck;
use crate::database::{Database, changes};
use crate::program::{Answer, Program, answer, bare};
use crate::schemas::{Columns, fresh};

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value} is not an object")).keys().map(String::as_str).collect()
}

fn set<'a>(keys: &[&'a str]) -> BTreeSet<&'a str> {
    keys.iter().copied().collect()
}

/// Two stuck backups, a busy one and a wrong counter.
fn populated() -> Database {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    stuck(&database, "a weekly one");
    database.service("up", |row| row);
    database.backup(|row| row.status("creating").host("up").display_name(None::<&str>).age(7_200));
    database.backup(|row| row.num_dependent_backups(5));
    database
}

#[test]
fn the_scan_document_has_the_documented_fields() {
    let database = populated();
    let program = Program::on(database.url());
    let answer = program.expect(0, &["scan", "-f", "json"]);
    let document = answer.json();
    let mut fields = set(&["schema", "schema_version", "database", "taken_at", "thresholds", "findings", "notices", "summary"]);
    fields.extend(["left_out"]);
    assert_eq!(keys(&document), fields);
    assert!(answer.stdout.starts_with("{\n  \"schema\": \"cinder-backup-repair/scan\",\n  \"schema_version\": 1,"), "{}", answer.stdout);
    assert_eq!(keys(&document["database"]), set(&["engine", "version", "release", "identity", "location"]));
    assert_eq!(keys(&document["thresholds"]), set(&["older_than_seconds", "service_down_time_seconds"]));
    assert_eq!(keys(&document["summary"]), set(&["stuck", "uncertain", "busy", "recent", "inconsistent"]));
    assert_eq!(document["thresholds"], serde_json::json!({ "older_than_seconds": 3600, "service_down_time_seconds": 60 }));
    let findings = document["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 4, "{document:#}");
    let mut promised = set(&["kind", "id", "name", "status", "host", "service", "project_id", "volume_id", "since", "age_seconds"]);
    promised.extend(["verdict", "evidence", "proposal", "follow_up", "refusal", "rows"]);
    for finding in findings {
        assert_eq!(keys(finding), promised);
        assert!(finding["id"].is_string(), "{finding:#}");
        assert_eq!(finding["since"].is_string(), finding["age_seconds"].is_i64(), "{finding:#}");
        for evidence in finding["evidence"].as_array().unwrap() {
            assert_eq!(keys(evidence), set(&["code", "text"]));
        }
        if !finding["proposal"].is_null() {
            assert_eq!(keys(&finding["proposal"]), set(&["status", "needs", "changes"]));
            for change in finding["proposal"]["changes"].as_array().unwrap() {
                assert_eq!(keys(change), set(&["table", "id", "column", "from", "to"]));
            }
        }
    }
    assert!(findings.iter().any(|finding| finding["name"].is_null()), "NULL is null");
    assert!(document["taken_at"].as_str().unwrap().ends_with('Z'));
    // Other programs can parse the times.
    for finding in findings {
        if let Some(since) = finding["since"].as_str() {
            since.parse::<jiff::Timestamp>().unwrap();
        }
    }
}

#[test]
fn all_formats_agree() {
    let database = populated();
    let program = Program::on(database.url());
    let ids: Vec<String> = program.json(0, &["scan"])["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["id"].as_str().unwrap().to_owned())
        .collect();
    let form = |more: &[&str]| program.expect(0, &[&["scan"] as &[&str], more].concat()).stdout;
    // YAML is the same document, except that ages have grown.
    let yaml: Value = serde_norway::from_str(&form(&["-f", "yaml"])).unwrap();
    let of_yaml: Vec<&str> = yaml["findings"].as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap()).collect();
    assert_eq!(of_yaml, ids);
    assert_eq!(yaml["schema"], "cinder-backup-repair/scan");
    let csv = form(&["-f", "csv", "-c", "ID", "-c", "age", "-c", "name"]);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), ["ID", "Age", "Name"]);
    let of_csv: Vec<String> = reader.records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert_eq!(of_csv, ids);
    let value = form(&["-f", "value", "-c", "id"]);
    assert_eq!(value.lines().collect::<Vec<_>>(), ids);
    let table = form(&["-c", "id", "-c", "Verdict"]);
    let of_table: Vec<&str> = table.lines().filter(|line| line.contains("| ") && !line.contains("| ID")).map(|line| &line[2..38]).collect();
    assert_eq!(of_table, ids);
    // The columns that fit a terminal, and with --long all, as every other format has them.
    let titles =
        |args: &[&str]| form(args).lines().nth(1).unwrap().split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" ");
    assert_eq!(titles(&[]), "Kind ID Name Status Verdict Proposed");
    assert_eq!(titles(&["--long"]), "Kind ID Name Status Host Age Verdict Proposed Evidence");
    assert!(form(&["-f", "csv"]).lines().next().unwrap().contains("Evidence"));
    // NULL is None, as in the OpenStack clients.
    assert!(form(&["-f", "value", "-c", "name"]).lines().any(|line| line == "None"));
    // Column names are matched leniently; the order is that of the options.
    assert_eq!(form(&["-f", "value", "-c", "VERDICT", "-c", "id"]).lines().next().unwrap().split(' ').nth(1), Some(ids[0].as_str()));
    // Sorted.
    let sorted = form(&["-f", "value", "-c", "id", "--sort-column", "ID"]);
    let mut expected = ids.clone();
    expected.sort();
    assert_eq!(sorted.lines().collect::<Vec<_>>(), expected);
    let document: Value = serde_json::from_str(&form(&["-f", "json", "--sort-column", "id"])).unwrap();
    let of_json: Vec<&str> = document["findings"].as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap()).collect();
    assert_eq!(of_json, expected);
    // Reduced to some columns.
    let document: Value = serde_json::from_str(&form(&["-f", "json", "-c", "ID"])).unwrap();
    assert!(document["findings"].as_array().unwrap().iter().all(|finding| keys(finding) == set(&["id"])), "{document:#}");
    // On one line.
    let line = form(&["-f", "json", "--noindent"]);
    assert_eq!(line.lines().count(), 1);
    serde_json::from_str::<Value>(&line).unwrap();
}

/// Scripts for the OpenStack clients read the same bytes.
#[test]
fn tables_csv_and_values_equal_those_of_cliff() {
    let database = populated();
    for name in ["a, comma", "\"quoted\"", "back\\slash", "", "weekly é"] {
        stuck(&database, name);
    }
    let program = Program::on(database.url());
    let columns = ["Unit", "Kind", "ID", "Name", "Status", "Changes", "Evidence"];
    let keys = columns.map(str::to_lowercase);
    let print = |rows: &Value, runs: &[Vec<&str>]| -> Vec<String> {
        let mut python = std::process::Command::new(crate::cinder::program("python"));
        python.arg(crate::servers::root().join("tests/cinder/cliff_rows.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().unwrap();
        let given = serde_json::json!({ "columns": columns, "rows": rows, "runs": runs });
        serde_json::to_writer(python.stdin.take().unwrap(), &given).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let document = program.json(0, &[&["plan"] as &[&str], &keys.iter().flat_map(|key| ["-c", key]).collect::<Vec<_>>()].concat());
    let row = |unit: &Value| keys.iter().map(|key| unit[key].clone()).collect::<Vec<Value>>();
    let rows: Value = document["units"].as_array().unwrap().iter().map(row).collect::<Vec<_>>().into();
    assert_eq!(rows.as_array().unwrap().len(), 7);
    let ways: &[&[&str]] = &[
        &[],
        &["-c", "Unit", "-c", "name"],
        &["--max-width", "0", "--fit-width"],
        &["--max-width", "400"],
        &["--sort-column", "name", "--sort-column", "Unit"],
        &["--sort-column", "name", "--sort-ascending"],
        &["--sort-column", "status", "--sort-descending"],
        &["--sort-column", "unit", "--sort-descending", "--print-empty"],
        &["--quote", "all"],
        &["--quote", "minimal"],
        &["--quote", "none"],
        &["--quote", "nonnumeric"],
        &["--quote", "minimal", "-c", "NAME"],
    ];
    let runs: Vec<Vec<&str>> =
        ["table", "csv", "value"].iter().flat_map(|form| ways.iter().map(|way| [&["-f", form], *way].concat())).collect();
    for (run, printed) in runs.iter().zip(print(&rows, &runs)) {
        assert_eq!(program.expect(0, &[&["plan"], &run[..]].concat()).stdout, printed, "{run:?}");
    }
    // Without rows.
    database.execute("UPDATE backups SET status = 'available'; UPDATE volumes SET status = 'available'");
    for (run, printed) in runs.iter().zip(print(&serde_json::json!([]), &runs)) {
        assert_eq!(program.expect(0, &[&["plan"], &run[..]].concat()).stdout, printed, "{run:?}");
    }
    // --max-width makes a table narrower, in a pipe too.
    stuck(&database, &"a long name ".repeat(20));
    let narrow = program.expect(0, &["plan", "--max-width", "100"]).stdout;
    assert!(narrow.lines().all(|line| line.chars().count() <= 100), "{narrow}");
}

/// With `-f json` standard output always has exactly one document.
#[test]
fn an_error_is_a_json_document_too() {
    let database = populated();
    let program = Program::on(database.url());
    let failed = |code: i32, args: &[&str]| {
        let answer = program.expect(code, args);
        let document = answer.json();
        assert_eq!(keys(&document), set(&["schema", "schema_version", "exit_code", "error", "hint"]), "{args:?}");
        assert_eq!((&document["schema"], &document["schema_version"]), (&"cinder-backup-repair/error".into(), &1.into()));
        assert_eq!(document["exit_code"], code, "{args:?}");
        let error = document["error"].as_str().unwrap();
        assert!(!error.is_empty() && answer.stderr.contains(&format!("error: {error}")), "{args:?}: {error}\n{}", answer.stderr);
        document
    };
    failed(2, &["scan", "-f", "json", "--limit", "0"]);
    failed(2, &["scan", "-f", "json", "nobody"]);
    failed(2, &["apply", "absent.json", "--yes", "--format", "json"]);
    failed(2, &["repair", "--format=json"]);
    failed(6, &["repair", "--yes", "--max-changes", "1", "-f", "json", "--noindent"]);
    failed(2, &["scan", "-f", "json", "--no-such-option"]);
    failed(2, &["scan", "--older-than", "soon", "-fjson"]);
    let hint = failed(10, &["scan", "-f", "json", "--database-url", "sqlite:////nonexistent/x"])["hint"].clone();
    assert!(hint.as_str().unwrap().contains("--database-url"), "{hint}");
    let yaml: Value = serde_norway::from_str(&program.expect(2, &["scan", "-f", "yaml", "nobody"]).stdout).unwrap();
    assert_eq!(yaml["exit_code"], 2);
    // Other formats print nothing there, and a result is not followed by a second document.
    for form in ["table", "csv", "value"] {
        assert_eq!(program.expect(2, &["scan", "-f", form, "nobody"]).stdout, "");
    }
    program.expect(0, &["repair", "--yes"]);
    fs::write(program.log(), fs::read_to_string(program.log()).unwrap().replace("creating", "deleting")).unwrap();
    assert_eq!(program.json(9, &["history", "verify"])["schema"], "cinder-backup-repair/history-verify");
}

#[test]
fn json_lines_are_refused_where_there_are_none() {
    let program = Program::on("sqlite:////nothing");
    let words =
        [&["history", "list", "-f", "jsonl"] as &[&str], &["history", "verify", "--format=jsonl"], &["completions", "bash", "-fjsonl"]];
    for words in words {
        let refused = program.expect(2, words);
        let said = "this command does not write JSON lines: use --format json";
        assert_eq!(refused.stderr, format!("error: {said}\n"));
        assert_eq!(refused.stdout.lines().count(), 1);
        assert_eq!((&refused.json()["schema"], &refused.json()["error"]), (&"cinder-backup-repair/error".into(), &said.into()));
    }
    let unknown = program.expect(2, &["scan", "-f", "jsonl", "--frobnicate"]);
    assert_eq!(unknown.json()["exit_code"], 2, "{}", unknown.stdout);
}

#[test]
fn all_times_have_the_same_precision() {
    let database = populated();
    let program = Program::on(database.url());
    let mut texts = vec![program.expect(0, &["scan", "-f", "json"]).stdout, program.expect(0, &["plan", "-f", "json"]).stdout];
    texts.push(program.run(&["check", "-f", "json", "--all", "--storage-path", "/nonexistent"]).stdout);
    program.expect(0, &["repair", "--yes"]);
    texts.push(program.expect(0, &["history", "list", "-f", "json"]).stdout);
    texts.push(program.expect(0, &["history", "show", &program.last_run(), "-f", "json"]).stdout);
    let mut seen = 0;
    for text in &texts {
        // As in "2026-11-22T18:46:33.123456Z".
        for value in text.split('"').filter(|value| value.ends_with('Z') && value.parse::<jiff::Timestamp>().is_ok()) {
            assert_eq!(value.len(), 27, "{value} in {text}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{texts:?}");
}

#[test]
fn two_verbose_flags_show_all_evidence() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    database.service("up", |row| row);
    let backup = database.backup(|row| row.status("creating").host("up").display_name("queued").age(7_200));
    let program = Program::on(database.url());
    for args in [&["plan"] as &[&str], &["repair", "--yes"]] {
        let line = format!("  backup {backup} \"queued\" is uncertain: ");
        let with = |more: &[&str]| program.expect(0, &[args, more].concat()).stderr;
        assert!(with(&["-vv"]).contains(&line), "{}", with(&["-vv"]));
        assert!(!with(&["-v"]).contains(&line) && !with(&[]).contains(&line));
    }
}

/// Names of statement files are for readers of the source.
#[test]
fn errors_and_scripts_do_not_name_statement_files() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (backup, _) = stuck(&database, "nightly");
    let program = Program::on(database.url());
    program.expect(0, &["plan", "--out", "plan.json", "--report", "plan.sql"]);
    let script = fs::read_to_string(program.path("plan.sql")).unwrap();
    assert!(script.contains("unit 1, update the backup") && !script.contains("backup_update"), "{script}");
    database.execute("CREATE TRIGGER no BEFORE UPDATE ON backups BEGIN SELECT RAISE(ABORT, 'not today'); END");
    let answer = program.run(&["repair", &backup, "--yes"]);
    let said = format!("{}{}", answer.stdout, answer.stderr);
    assert!(said.contains("cannot update the backup") && !said.contains("backup_update"), "{said}");
}

#[test]
fn standard_output_holds_only_results() {
    let database = populated();
    let program = Program::on(database.url());
    // An option without effect is a warning.
    let url = format!("{}?timeout=3&foo=bar", database.url());
    let run = |args: &[&str]| answer(program.command(args).env("CINDER_DATABASE_URL", &url));
    for args in [
        &["scan", "-f", "json", "-v", "-v"] as &[&str],
        &["plan", "-f", "json"],
        &["repair", "--dry-run", "-f", "json"],
        &["repair", "--yes", "-f", "json"],
        &["repair", "--yes", "-f", "json"],
        &["history", "list", "-f", "json"],
        &["history", "verify", "-f", "json"],
        &["history", "reconcile", "-f", "json"],
    ] {
        let Answer { code, stdout, stderr } = run(args);
        assert_eq!(code, Some(0), "{args:?} {stderr}");
        let document: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error} in {stdout}"));
        assert!(document["schema"].as_str().unwrap().starts_with("cinder-backup-repair/"), "{args:?}");
        assert_eq!(document["schema_version"], 1, "{args:?}");
        if args[0] != "history" {
            assert!(stderr.contains("warning:"), "{args:?}: {stderr}");
        }
    }
    // --quiet keeps warnings and errors only.
    let quiet = program.expect(0, &["scan", "-q", "--status", "creating"]);
    assert_eq!(quiet.stderr, "");
    assert!(quiet.stdout.contains("| ID"), "{}", quiet.stdout);
    assert_eq!(program.expect(0, &["repair", "--dry-run", "-q", "-f", "json"]).stderr, "");
    assert!(program.expect(2, &["scan", "-q", "--limit", "0"]).stderr.starts_with("error: "));
}

#[test]
fn detailed_exit_codes_need_their_flag() {
    let database = populated();
    let program = Program::on(database.url());
    program.expect(0, &["scan"]);
    program.expect(3, &["scan", "--detailed-exitcode"]);
    program.expect(3, &["plan", "--detailed-exitcode"]);
    program.expect(3, &["repair", "--dry-run", "--detailed-exitcode"]);
    program.expect(0, &["repair", "--yes", "--detailed-exitcode"]);
    program.expect(0, &["plan", "--detailed-exitcode"]);
    program.expect(0, &["repair", "--dry-run", "--detailed-exitcode"]);
    program.expect(0, &["scan", "--detailed-exitcode", "--host", "nowhere", "--allow-empty"]);
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let rows: Vec<_> = (0..3_000).map(|_| crate::rows::backup().status("creating").host("gone").age(7_200)).collect();
    database.insert(&rows);
    let program = Program::on(database.url());
    let head = |args: &[&str]| {
        let mut child = program.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(64, child.stdout.take().unwrap());
        reader.read_line(&mut line).unwrap();
        drop(reader);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for form in ["table", "json", "yaml", "csv", "value"] {
        let (code, said) = head(&["scan", "-q", "-f", form]);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{form}");
    }
    for args in [&["man"] as &[&str], &["completions", "zsh"], &["--help"]] {
        let (code, said) = head(args);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{args:?}");
    }
    // The change is complete and recorded even if nobody reads the output.
    let (code, said) = head(&["repair", "--yes", "--limit", "300", "--max-changes", "300", "-f", "json"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(database.value("SELECT count(*) FROM backups WHERE status = 'error'").as_deref(), Some("300"));
    program.expect(0, &["history", "verify"]);
    let list = program.json(0, &["history", "list"]);
    assert_eq!(list["runs"][0]["summary"]["applied"], 300, "{list:#}");
}

#[test]
fn a_result_that_cannot_be_written_does_not_hide_the_run() {
    let database = populated();
    let program = Program::on(database.url());
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let run = |args: &[&str]| {
        let output = program.command(args).stdout(full()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["scan"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot write the result to standard output: No space left"), "{said}");
    let before = database.rows_by_id();
    let (code, said) = run(&["repair", "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot write the result to standard output") && said.contains("history show"), "{said}");
    assert!(said.contains("2 applied") && said.contains("cinder-backup-repair undo"), "{said}");
    assert_eq!(changes(&before, &database.rows_by_id()).iter().filter(|change| change.column == "status").count(), 4);
    program.expect(0, &["history", "verify"]);
}

#[test]
fn completions_and_manual_pages_cover_all_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let answer = answer(&mut bare(&["completions", shell]));
        assert_eq!(answer.code, Some(0), "{shell}");
        for word in ["reconcile", "assume-dead", "audit-log"] {
            assert!(answer.stdout.contains(word), "{shell} does not know {word}");
        }
    }
    let commands = ["scan", "plan", "apply", "repair", "undo", "rescue", "history", "demo", "completions", "man"];
    for command in [None].into_iter().chain(commands.into_iter().map(Some)) {
        let args: Vec<&str> = ["man"].into_iter().chain(command).collect();
        let page = answer(&mut bare(&args));
        assert_eq!((page.code, page.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(page.stdout.contains(".TH"), "{args:?}");
        // Rendered by man, if it is installed and not a stub of a minimal system.
        let file = tempfile::NamedTempFile::with_suffix(".1").unwrap();
        fs::write(file.path(), &page.stdout).unwrap();
        let man = std::process::Command::new("man").args(["--warnings", "-l"]).arg(file.path()).env("MANWIDTH", "80").output();
        if let Ok(man) = man
            && man.status.success()
        {
            let text = String::from_utf8_lossy(&man.stdout);
            assert!(text.contains("NAME") && text.contains("cinder-backup-repair"), "{args:?}: {text}");
            assert_eq!(String::from_utf8_lossy(&man.stderr), "", "{args:?}");
        }
    }
    // Every command in the help exists.
    let help = answer(&mut bare(&["--help"])).stdout;
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in {help}");
    }
}

#[test]
fn the_demo_works_in_any_directory_and_writes_only_there() {
    let program = Program::on("mysql://nobody:n0b0dy@127.0.0.1:1/none");
    let run = |args: &[&str]| {
        answer(bare(args).env("CINDER_DATABASE_URL", "mysql://nobody:n0b0dy@127.0.0.1:1/none").current_dir(program.path("")))
    };
    let demo = run(&["demo", "-q", "--all"]);
    assert_eq!(demo.code, Some(0), "{}{}", demo.stdout, demo.stderr);
    assert_eq!(demo.stderr, "");
    // Without --all it is short, and only a terminal can be waited at.
    let short = run(&["demo"]);
    assert!(short.code == Some(0) && short.stdout.lines().count() <= 120, "{} lines", short.stdout.lines().count());
    assert_eq!(run(&["demo", "--step"]).code, Some(2));
    let kept = run(&["demo", "--all", "--keep", "kept"]);
    assert_eq!(kept.code, Some(0), "{}{}", kept.stdout, kept.stderr);
    let folder = program.path("kept");
    let conf = folder.join("cinder.conf");
    let scan = answer(bare(&["scan", "-f", "json", "--config-file"]).arg(&conf).current_dir(program.path("")));
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);
    assert_eq!(scan.json()["database"]["engine"], "sqlite");
    // The storage is kept, and cinder.conf names it.
    for (name, verdict, code) in [("dns-zones nightly", "intact", 0), ("wiki before the upgrade", "incomplete", 9)] {
        let check = answer(bare(&["check", name, "-f", "json", "--config-file"]).arg(&conf).current_dir(program.path("")));
        assert_eq!(check.code, Some(code), "{}", check.stderr);
        assert_eq!(check.json()["results"][0]["verdict"], verdict);
    }
    let history = answer(bare(&["history", "verify", "--audit-log"]).arg(folder.join("audit.jsonl")));
    assert_eq!(history.code, Some(0), "{}", history.stderr);
    // Existing files are not overwritten.
    let again = run(&["demo", "--keep", "kept"]);
    assert_eq!(again.code, Some(2), "{}", again.stderr);
    for option in [&["-f", "json"] as &[&str], &["--database-url", "sqlite:////x"], &["--audit-log", "x"]] {
        let refused = run(&[&["demo"] as &[&str], option].concat());
        assert_eq!(refused.code, Some(2), "{option:?} {}", refused.stderr);
    }
}
