//! Names chosen by cloud users have no effect in a terminal, a spreadsheet, a ticket or a script.

use std::fs;

use cinder_backup_repair::db::Engine;
use cinder_backup_repair::domain::text::is_hostile;
use serde_json::Value;

use super::stuck;
use crate::database::Database;
use crate::program::Program;
use crate::schemas::{Columns, fresh};

/// Hostile names that every engine stores: without NUL and characters outside the basic plane.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "\u{1b}[2J\u{1b}[1;1H",
        "\u{1b}]0;owned\u{7}",
        "\u{9b}31m",
        "\u{202e}gpj.exe",
        "\u{2066}a\u{2069}\u{200b}",
        "two\nlines",
        "fake\r\nerror: nothing",
        "tab\tand\u{b}more",
        "\u{2028}\u{2029}\u{85}",
        "'; DROP TABLE backups; --",
        "\\'; DROP TABLE backups; -- ",
        "\"`$(touch owned)`\"",
        "*/ DROP TABLE backups; /*",
        "\n\\! touch owned\n.shell touch owned\n",
        "\n.bail off\n",
        "$cbr$; DROP TABLE backups; $cbr$",
        "%s %d :name ? $1 @x",
        "=cmd|' /C calc'!A0",
        "@SUM(1+1)*cmd",
        "+1+1",
        "-2+3",
        "\t=1",
        "a,\"b\";c",
        "| a | b |\n|---|---|",
        "`code` **bold** <img src=x onerror=alert(1)>",
        "[link](javascript:alert(1)) ![x](http://evil/x)",
        "```\n# heading\n```",
        "<!-- comment",
        "null",
        "~",
        "yes",
        "1e3",
        "- a: b",
        "key: value # comment",
        "&anchor *alias !!tag",
        " leading and trailing ",
        "\\N",
        "\u{feff}bom",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(255));
    names.push("é".repeat(255));
    names.push(String::new());
    names
}

fn populated() -> (Database, Vec<(String, String)>) {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let mut named: Vec<(String, String)> = names().into_iter().map(|name| (stuck(&database, &name).0, name)).collect();
    named.sort();
    (database, named)
}

#[track_caller]
fn harmless(text: &str, what: &str) {
    let bad = text.chars().find(|c| *c != '\n' && is_hostile(*c));
    assert!(bad.is_none(), "{what}: {bad:?} in {text:?}");
}

fn by_id(items: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    let mut all: Vec<_> = items.as_array().unwrap().iter().map(|item| (text(&item["id"]), text(&item["name"]))).collect();
    all.sort();
    all
}

#[test]
fn no_output_format_lets_a_hostile_name_take_effect() {
    let (database, named) = populated();
    let program = Program::on(database.url());
    let all = ["--max-changes", "1000"];
    for form in ["table", "value", "csv", "json", "yaml"] {
        for args in [&["scan"] as &[&str], &["plan"], &["repair", "--dry-run"], &["scan", "-c", "name"], &["scan", "-v", "-v"]] {
            let args = [args, &["-f", form, "--color", "never"]].concat();
            let answer = program.expect(0, &args);
            harmless(&answer.stdout, form);
            harmless(&answer.stderr, form);
            if form == "value" {
                assert_eq!(answer.stdout.lines().count(), named.len(), "a row a line");
            }
        }
    }
    // The names are unchanged.
    assert_eq!(by_id(&program.json(0, &["scan"])["findings"]), named);
    assert_eq!(by_id(&program.json(0, &["repair", "--dry-run"])["units"]), named);
    let yaml: Value = serde_norway::from_str(&program.expect(0, &["scan", "-f", "yaml"]).stdout).unwrap();
    assert_eq!(by_id(&yaml["findings"]), named);
    let csv = program.expect(0, &["scan", "-f", "csv", "-c", "name"]).stdout;
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let cells: Vec<String> = reader.records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert_eq!(cells.len(), named.len());
    for cell in &cells {
        let number = cell.parse::<f64>().is_ok();
        assert!(number || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell:?} runs in a spreadsheet");
    }
    // Executed, with all messages.
    let answer = program.expect(0, &[&["repair", "--yes", "-v", "-v"] as &[&str], &all].concat());
    harmless(&answer.stdout, "repair");
    harmless(&answer.stderr, "repair");
    assert_eq!(database.value("SELECT count(*) FROM backups WHERE status = 'error'"), Some(named.len().to_string()));
    for args in [&["history", "show", &program.last_run()] as &[&str], &["history", "reconcile"], &["history", "list"]] {
        let answer = program.expect(0, args);
        harmless(&answer.stdout, "history");
    }
    let log = fs::read_to_string(program.log()).unwrap();
    assert!(!log.contains(['\u{1b}', '\r', '\u{7}']), "the log acts on a terminal");
}

#[test]
fn an_ambiguous_or_unknown_name_is_escaped_in_the_error() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    for _ in 0..2 {
        stuck(&database, "twin\u{1b}[2J\n");
    }
    let program = Program::on(database.url());
    for name in ["twin\u{1b}[2J\n", "nobody\u{202e}\u{1b}[2J"] {
        let answer = program.expect(2, &["repair", "--yes", name]);
        harmless(&answer.stderr, name);
        assert_eq!(answer.stderr.lines().count(), 1, "{}", answer.stderr);
    }
    for args in [&["scan", "--status", "\u{1b}[2J"] as &[&str], &["scan", "-c", "\u{1b}[2J"], &["undo", "\u{1b}[2J", "--yes"]] {
        harmless(&program.expect(2, args).stderr, "an echoed option");
    }
    for args in [&["\u{1b}[2J"] as &[&str], &["scan", "--\u{1b}[2J"], &["scan", "-f", "\u{1b}[2J"], &["scan", "--older-than", "\u{1b}[2J"]]
    {
        harmless(&program.expect(2, args).stderr, "an echoed word");
    }
}

#[test]
fn hosts_and_other_columns_are_escaped_like_names() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let evil = "\u{1b}[2Jctl\n\u{202e}";
    database.service(evil, |row| row.updated_at(crate::rows::ago(7_200)));
    database.service(&format!("{evil}2"), |row| row.updated_at(crate::rows::ago(-7_200)));
    for host in [evil, &format!("{evil}2"), "gone\u{1b}c"] {
        database.backup(|row| row.status("creating").host(host).service("\u{1b}[2J").project_id("\u{1b}[2J").age(7_200));
    }
    database.backup(|row| row.status("\u{1b}[2J").age(7_200));
    // Cinder chooses the ids, but the database does not enforce that.
    database.backup(|row| row.id("$(touch owned)\u{1b}[2J").status("creating").host("gone").age(7_200));
    let program = Program::on(database.url());
    for args in [
        &["scan", "-v", "-v"] as &[&str],
        &["plan", "--report", "plan.md", "--report", "plan.sql", "--report", "plan.csv"],
        &["repair", "--yes", "-v", "-v"],
        &["scan", "-f", "json"],
    ] {
        let answer = program.expect(0, args);
        harmless(&answer.stdout, "stdout");
        harmless(&answer.stderr, "stderr");
        for line in answer.stderr.lines().filter(|line| line.contains("openstack") && line.contains("touch")) {
            assert!(line.contains("'$(touch owned)"), "a command to copy runs another: {line}");
        }
    }
    for name in ["plan.md", "plan.sql", "plan.csv"] {
        harmless(&fs::read_to_string(program.path(name)).unwrap(), name);
    }
}

#[test]
fn the_change_report_shows_names_as_text() {
    let (database, named) = populated();
    let program = Program::on(database.url());
    program.expect(0, &["plan", "--report", "plan.md", "--reason", "| <b>x</b>\n# y", "--ticket", "`T`\u{1b}[2J"]);
    let text = fs::read_to_string(program.path("plan.md")).unwrap();
    harmless(&text, "plan.md");
    // Every Markdown reader takes the text between two backticks of a line literally.
    let outside: String = text
        .lines()
        .flat_map(|line| {
            let escaped = line.replace("\\`", "");
            assert!(line.starts_with("```") || escaped.matches('`').count() % 2 == 0, "{line}");
            escaped.split('`').step_by(2).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert!(!outside.contains('<') && !outside.contains('>'), "HTML is left in {outside}");
    assert!(!outside.contains("](") && !outside.contains("**bold"), "a link is left in {outside}");
    // Every heading is from the report itself, and every row has the columns of its table.
    let known = ["# Repair of Cinder volume backups", "## ", "### Unit "];
    let mut fenced = false;
    let is_text = |line: &&str| {
        fenced ^= line.starts_with("```");
        // In a block of commands a number sign begins a comment.
        !fenced
    };
    for line in text.lines().filter(is_text).filter(|line| line.starts_with('#')) {
        assert!(known.iter().any(|start| line.starts_with(start)) && !line.contains("heading"), "{line}");
    }
    let mut columns = None;
    let mut rows = 0;
    for line in text.lines() {
        if !line.starts_with('|') {
            columns = None;
            continue;
        }
        let here = line.matches('|').count();
        assert_eq!(*columns.get_or_insert(here), here, "{line}");
        rows += usize::from(line.contains("creating") && here == 8);
    }
    assert_eq!(rows, named.len());
    // All fenced blocks are closed: no name opened or ended one.
    assert_eq!(text.lines().filter(|line| line.starts_with("```")).count() % 2, 0);
    let mut fence = None;
    for line in text.lines().filter(|line| line.starts_with("```")) {
        fence = match fence {
            None => Some(line.trim_end_matches("sh").to_owned()),
            Some(open) => {
                assert_eq!(open, line);
                None
            }
        };
    }
}
