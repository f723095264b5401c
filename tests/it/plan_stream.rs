//! A plan as a record stream: applied like the document, refused if it was edited, cut off or rearranged.

use std::io::Write;
use std::process::{Command, Stdio};

use cinder_backup_repair::db::Engine;
use serde_json::Value;

use crate::population;
use crate::program::{Answer, Program, answer};
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;

/// What a run did to each unit.
fn outcomes(document: &Value) -> Vec<(Value, Value, Value)> {
    let units = document["units"].as_array().unwrap();
    units.iter().map(|unit| (unit["id"].clone(), unit["outcome"].clone(), unit["changes"].clone())).collect()
}

#[test]
fn a_stream_and_a_document_plan_the_same() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&population::generate(7, 80).rows);
        let program = Program::on(database.url());
        let options = ["--assume-dead", "all", "--fix-counters", "--older-than", "0s", "-o"];
        let document = program.json(0, &[&["plan"], &options[..], &["plan.json"]].concat());
        program.expect(0, &[&["plan"], &options[..], &["plan.jsonl"]].concat());
        let units = document["units"].as_array().unwrap();
        let text = std::fs::read_to_string(program.path("plan.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let streamed: Vec<&Value> = lines.iter().filter_map(|line| line.get("unit")).collect();
        assert_eq!(streamed.len(), units.len());
        for (one, other) in units.iter().zip(streamed) {
            assert_eq!(
                (&one["number"], &one["id"], &one["before"], &one["changes"]),
                (&other["number"], &other["id"], &other["before"], &other["changes"])
            );
        }
        let end = &lines.last().unwrap()["end"];
        assert_eq!((&end["units"], end["records"].as_u64()), (&units.len().into(), u64::try_from(lines.len() - 2).ok()), "{end}");
        let [one, other] = ["plan.json", "plan.jsonl"].map(|plan| program.run(&["apply", plan, "--dry-run", "-f", "json"]));
        assert_eq!((one.code, outcomes(&one.json())), (other.code, outcomes(&other.json())), "{}", engine.name());
        // Once, also from a pipe.
        program.run(&["apply", "plan.jsonl", "--yes"]);
        program.expect(5, &["apply", "plan.jsonl", "--yes"]);
        let mut again = program.command(&["apply", "/dev/stdin", "--yes"]);
        let mut again = again.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        again.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let again = again.wait_with_output().unwrap();
        assert_eq!(again.status.code(), Some(5), "{}", String::from_utf8_lossy(&again.stderr));
    }
}

#[test]
fn a_stream_on_standard_output_is_a_plan_too() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let backup = database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS));
    let program = Program::on(database.url());
    let streamed = program.expect(0, &["plan", "-f", "jsonl", "--report", "plan.md"]);
    let end: Value = serde_json::from_str(streamed.stdout.lines().last().unwrap()).unwrap();
    let report = std::fs::read_to_string(program.path("plan.md")).unwrap();
    assert!(report.contains(end["sha256"].as_str().unwrap()), "{report}");
    std::fs::write(program.path("plan"), &streamed.stdout).unwrap();
    program.expect(0, &["apply", "plan", "--yes"]);
    assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("error"));
}

#[test]
fn a_plan_that_was_edited_cut_off_or_rearranged_is_refused() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    for _ in 0..3 {
        database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS));
    }
    let program = Program::on(database.url());
    program.expect(0, &["plan", "-o", "plan.jsonl"]);
    let text = std::fs::read_to_string(program.path("plan.jsonl")).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 5);
    let [head, one, two, three, end] = lines[..] else { unreachable!() };
    let edited = two.replacen("creating", "deleting", 1);
    let before = database.dump();
    for (name, plan, code, said) in [
        (
            "edited",
            [head, one, &edited, three, end].concat(),
            5,
            "was edited after it was written: its SHA-256 does not match; make a new plan instead of editing one (line 3)",
        ),
        ("rearranged", [head, two, one, three, end].concat(), 5, "(line 2)"),
        ("shortened", [head, one, two, end].concat(), 5, "(line 4)"),
        ("cut off", [head, one, two].concat(), 2, "is cut off after line 3: it has no closing record"),
        ("within a line", text[..text.len() - 40].to_owned(), 2, "is cut off after line 4"),
        ("continued", [&text, one].concat(), 2, "it continues after its closing record"),
    ] {
        std::fs::write(program.path("other.jsonl"), plan).unwrap();
        let answer: Answer = program.expect(code, &["apply", "other.jsonl", "--yes"]);
        assert!(answer.stderr.contains(said) && answer.stderr.contains("nothing was changed"), "{name}: {}", answer.stderr);
    }
    assert_eq!(database.dump(), before);
}

#[test]
fn the_result_of_a_run_as_a_stream_has_what_the_document_has() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    for _ in 0..3 {
        database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS));
    }
    database.backup(|row| row.status("creating").host("gone").age(60));
    let program = Program::on(database.url());
    let document = program.json(0, &["repair", "--dry-run"]);
    let lines = |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let dry = lines(&program.expect(0, &["repair", "--dry-run", "-f", "jsonl"]).stdout);
    for (field, kind) in [("units", "unit"), ("refused", "refused"), ("left_alone", "left_alone"), ("follow_up", "follow_up")] {
        let records: Vec<&Value> = dry.iter().filter_map(|line| line.get(kind)).collect();
        // A reason may have an age, which grows.
        let without_age = |item: &Value| {
            (item.get("id").cloned(), item.get("outcome").cloned(), item.get("changes").cloned(), item.as_str().map(str::to_owned))
        };
        let listed: Vec<_> = document[field].as_array().unwrap().iter().map(without_age).collect();
        assert_eq!(listed, records.into_iter().map(without_age).collect::<Vec<_>>(), "{field}");
    }
    assert_eq!((&dry[0]["head"]["run"], &dry[0]["head"]["command"]), (&Value::Null, &"repair".into()));
    assert_eq!(document["summary"], dry.last().unwrap()["end"]["summary"]);
    let done = lines(&program.expect(0, &["repair", "--yes", "-f", "jsonl"]).stdout);
    let run = program.last_run();
    assert_eq!((&done[0]["head"]["run"], &done.last().unwrap()["end"]["summary"]["applied"]), (&run.as_str().into(), &3.into()));
    let undone = lines(&program.expect(0, &["undo", &run, "--yes", "-f", "jsonl"]).stdout);
    assert_eq!(undone.last().unwrap()["end"]["summary"]["applied"], 3);
    assert_eq!(lines(&program.expect(0, &["repair", "--status", "deleting", "--allow-empty", "--yes", "-f", "jsonl"]).stdout).len(), 2);
}

/// Runs a command with a limit on its memory in KiB.
pub fn within(program: &Program, kib: usize, args: &[&str]) -> Answer {
    let direct = program.command(args);
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("ulimit -d {kib}; exec \"$0\" \"$@\"")]).arg(direct.get_program()).args(direct.get_args());
    shell.env_clear().envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", "/usr/bin:/bin");
    answer(shell.current_dir(program.path(".")))
}
