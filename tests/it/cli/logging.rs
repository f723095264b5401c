//! What standard error says to programs (`--log-format json`, `--progress`), and what a misspelt word may have meant.

use cinder_backup_repair::db::Engine;
use serde_json::Value;

use super::stuck;
use crate::program::{Answer, Program, answer, bare};
use crate::schemas::{Columns, fresh};

/// Standard error as objects, each with a time and a kind.
#[track_caller]
pub fn objects(answer: &Answer) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let objects: Vec<Value> = answer.stderr.lines().map(parse).collect();
    assert!(objects.iter().all(|object| object["time"].is_string() && object["kind"].is_string()), "{objects:#?}");
    objects
}

/// The error that ended the program.
#[track_caller]
fn error(answer: &Answer, code: &str) -> Value {
    let error = objects(answer).into_iter().rfind(|object| object["kind"] == "error").expect("an error");
    assert_eq!((&error["code"], error["exit_code"].as_i64()), (&code.into(), answer.code.map(i64::from)), "{error:#}");
    assert!(!error["text"].as_str().unwrap().is_empty());
    error
}

#[test]
fn every_error_is_an_object_with_its_code() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "b\u{202e}\u{1b}[2J");
    let program = Program::on(database.url());
    let run = |args: &[&str]| program.run(&[args, &["--log-format", "json"]].concat());
    let bare = |args: &[&str]| answer(&mut bare(&[args, &["--log-format=json"]].concat()));

    let refused = error(&bare(&["scan", "--database-url", "mysql+pymysql://c@127.0.0.1:1/c"]), "connection");
    assert!(refused["hint"].as_str().unwrap().contains("the database is mysql://c@127.0.0.1:1/c"), "{refused}");
    error(&bare(&["scan"]), "usage");
    // What the parser of the command line refuses.
    let unknown = error(&bare(&["scan", "--formt"]), "usage");
    assert_eq!(unknown["text"], "unexpected argument '--formt' found");
    assert_eq!(unknown["hint"], "a similar argument exists: '--format'");
    error(&bare(&["scan", "--older-than", "5q"]), "usage");
    error(&bare(&["scann"]), "usage");
    error(&run(&["scan", "-c", "Nmae"]), "usage");
    error(&run(&["apply", "none.json", "--yes"]), "usage");
    program.expect(0, &["plan", "--out", "plan.json"]);
    program.expect(0, &["apply", "plan.json", "--yes"]);
    error(&run(&["apply", "plan.json", "--yes"]), "stale");
    error(&run(&["apply", "plan.json"]), "usage");
    std::fs::write(program.path("empty.sqlite"), "").unwrap();
    let empty = format!("sqlite:///{}", program.path("empty.sqlite").display());
    error(&bare(&["scan", "--database-url", &empty]), "schema");
    let log = std::fs::read_to_string(program.log()).unwrap();
    std::fs::write(program.log(), log.replacen("\"repair\"", "\"undo\"", 1).replacen("\"apply\"", "\"undo\"", 1)).unwrap();
    error(&run(&["history", "verify"]), "damaged");

    // A result is where it always is, and hostile text is escaped twice.
    let again = fresh(Engine::Sqlite, Columns::Full);
    stuck(&again, "b\u{202e}\u{1b}[2J");
    let program = Program::on(again.url());
    let scan = program.expect(0, &["scan", "--log-format", "json"]);
    assert!(scan.stdout.starts_with('+') && objects(&scan).iter().any(|object| object["kind"] == "message"), "{}", scan.stderr);
    let explain = program.expect(2, &["explain", "\u{202e}\u{1b}", "--log-format", "json"]);
    assert!(!explain.stderr.contains(['\u{202e}', '\u{1b}']) && !objects(&explain).is_empty(), "{}", explain.stderr);
    // A document of the error is still the result.
    let failed = program.expect(2, &["scan", "-c", "Nmae", "-f", "json", "--log-format", "json"]);
    assert_eq!(failed.json()["schema"], "cinder-backup-repair/error");
    error(&failed, "usage");
}

#[test]
fn a_misspelt_word_has_a_suggestion() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "b");
    let program = Program::on(database.url());
    let host = database.value("SELECT host FROM backups").unwrap();
    let says = |args: &[&str], text: &str| {
        let answer = program.expect(2, args);
        assert!(answer.stderr.contains(text), "{}", answer.stderr);
    };
    says(&["scann"], "tip: a similar subcommand exists: 'scan'");
    says(&["scan", "--stauts", "error"], "tip: a similar argument exists: '--status'");
    says(&["scan", "--status", "craeting"], "; did you mean creating?");
    says(&["scan", "-c", "verdcit"], "; did you mean Verdict?");
    let wrong = format!("{}x", &host[..host.len() - 1]);
    says(&["scan", "--host", &wrong], &format!("; did you mean {host}?"));
    says(&["schema", "scam"], "; did you mean scan?");
    program.expect(0, &["repair", "--yes"]);
    let run = program.last_run();
    let wrong = run.replacen("202", "203", 1);
    says(&["history", "show", &wrong], &format!("; did you mean {run}?"));
    says(&["undo", &wrong[..8], "--yes"], &format!("; did you mean {}?", &run[..8]));
    says(&["scan", "--status", "nothing-like-it"], "use one of creating");
}
