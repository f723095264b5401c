//! What the program knows of Cinder, against the Cinder that is installed: something new there may change what a row means.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::cinder;
use crate::program::Program;
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
