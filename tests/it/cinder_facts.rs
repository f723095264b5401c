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
