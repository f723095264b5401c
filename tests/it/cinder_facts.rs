//! What the program knows of Cinder, against the Cinder that is installed: something new there may change what a row means.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::cinder;
use crate::program::{Program, finding};
use crate::schemas::{Columns, engines, fresh};
use crate::servers::{root, run};

/// Each value of a document with its path, such as `columns/Backup: host`.
fn values(document: &Value, path: &str, found: &mut BTreeSet<String>) {
    match document {
        Value::Object(map) => map.iter().for_each(|(key, value)| values(value, &format!("{path}/{key}"), found)),
        Value::Array(list) => list.iter().for_each(|value| values(value, path, found)),
        value => drop(found.insert(format!("{path}: {value}"))),
    }
}

#[test]
fn the_installed_cinder_has_nothing_new_that_the_program_depends_on() {
    let installed = run(Command::new(cinder::program("python")).arg(root().join("tests/cinder/facts.py")));
    let known = std::fs::read_to_string(root().join("tests/cinder/known_facts.json")).unwrap();
    let [installed, known] = [installed, known].map(|text| {
        let mut found = BTreeSet::new();
        values(&serde_json::from_str(&text).unwrap(), "", &mut found);
        found
    });
    let new: Vec<_> = installed.difference(&known).collect();
    let gone: Vec<_> = known.difference(&installed).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new in Cinder: {new:?}; gone: {gone:?}. Find out what each changes for the program, then write it into tests/cinder/known_facts.json"
    );
}

#[test]
fn a_schema_that_marks_backups_in_a_column_of_its_own_is_refused() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.execute("ALTER TABLE volumes ADD COLUMN backup_status VARCHAR(255)");
        let stderr = Program::on(database.url()).expect(14, &["scan"]).stderr;
        assert!(stderr.contains("volumes.backup_status is unknown") && stderr.contains("newer version"), "{}: {stderr}", engine.name());
    }
}

#[test]
fn the_queue_of_the_host_and_cinders_message_are_evidence() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.service("busy", |row| row);
        let [told, other] = ["creating", "restoring"].map(|status| database.backup(|row| row.status(status).host("busy").age(7_200)));
        let idle = database.backup(|row| row.status("creating").host("gone").age(7_200));
        cinder::tell_user(&database.url(), &told);
        let found = Program::on(database.url()).json(0, &["scan"]);
        let texts = |id: &str, wanted: &str| -> Vec<String> {
            let evidence = finding(&found, id)["evidence"].as_array().unwrap();
            let of_code = evidence.iter().filter(|evidence| evidence["code"] == wanted);
            of_code.map(|evidence| evidence["text"].as_str().unwrap().to_owned()).collect()
        };
        let queue = texts(&told, "host-queue");
        assert!(queue[0].starts_with("busy has 1 backup in creating and 1 in restoring, this one included; the oldest"), "{queue:?}");
        let message = texts(&told, "user-message");
        assert!(message[0].ends_with("Z: backup driver failed to create backup (020)"), "{message:?}");
        assert_eq!((texts(&other, "host-queue").len(), texts(&other, "user-message").len()), (1, 0), "{}", engine.name());
        assert_eq!((texts(&idle, "host-queue").len(), texts(&idle, "user-message").len()), (0, 0), "{}", engine.name());
    }
}

#[test]
fn what_a_user_has_set_is_evidence_that_a_terminal_can_show() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let [set, many, none] = [(); 3].map(|()| database.backup(|row| row.status("creating").host("gone").age(7_200)));
        let hostile = "\u{1b}[2J\u{202e}=1+1\r\n<b>";
        cinder::set_metadata(&database.url(), &set, &serde_json::json!({ "owner": "erp team", hostile: "ä".repeat(255) }));
        let pairs: serde_json::Map<_, _> = (0..300).map(|number| (format!("k{number:03}"), Value::from("v"))).collect();
        cinder::set_metadata(&database.url(), &many, &pairs.into());
        let program = Program::on(database.url());
        let found = program.json(0, &["scan"]);
        let text = |id: &str| {
            let evidence = finding(&found, id)["evidence"].as_array().unwrap();
            let of_code = evidence.iter().find(|evidence| evidence["code"] == "user-metadata");
            of_code.map(|evidence| evidence["text"].as_str().unwrap().to_owned())
        };
        let shown = text(&set).unwrap();
        assert!(shown.contains("\"owner\" = \"erp team\"") && shown.contains(&format!("\"{}\"…", "ä".repeat(40))), "{shown}");
        assert!(shown.contains("\"\\u{1b}[2J\\u{202e}=1+1\\r\\n<b>\" = "), "{shown}");
        assert!(text(&many).unwrap().ends_with("\"v\", and 295 more"), "{:?}", text(&many));
        assert_eq!(text(&none), None, "{}", engine.name());
        // It decides nothing, and the plan is applied.
        assert_eq!(program.json(0, &["repair", "--yes"])["summary"]["applied"], 3);
        database.execute(&format!("UPDATE backup_metadata SET deleted = {}", crate::rows::Cell::Boolean(true).sql(engine)));
        database.execute("UPDATE backups SET status = 'creating'");
        let found = program.json(0, &["scan", "--older-than", "0s"]);
        assert!(!found.to_string().contains("user-metadata"), "{}", engine.name());
    }
}
