//! `schema`: every document that the program writes is as it says. All tests check that, too, in `program::answer`.

use std::fs;

use serde_json::Value;

use super::stuck;
use crate::program::{Program, answer, bare, check_schemas, validator};
use crate::schemas::{Columns, fresh};
use crate::servers::root;
use cinder_backup_repair::db::Engine;

fn names() -> Vec<String> {
    let list = answer(&mut bare(&["schema", "-f", "json"])).json();
    list["schemas"].as_array().unwrap().iter().map(|schema| schema["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_schema_is_one_and_every_name_in_the_source_has_one() {
    let names = names();
    for name in &names {
        let text = answer(&mut bare(&["schema", name])).stdout;
        let schema: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(jsonschema::meta::is_valid(&schema), "{name}");
        assert!(text.contains(&format!("\"const\": \"cinder-backup-repair/{name}\"")), "{name} does not name itself");
        validator(name);
    }
    let mut source = String::new();
    for file in walk(&root().join("src")).iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs")) {
        source += &fs::read_to_string(file).unwrap();
    }
    for part in source.split("\"cinder-backup-repair/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(name.is_empty() || name.contains(['{', '\\', '.']) || names.iter().any(|known| known == name), "no schema for {name}");
    }
    let unknown = answer(&mut bare(&["schema", "scam"]));
    assert!(unknown.code == Some(2) && unknown.stderr.contains("\"scam\" is not a schema"), "{}", unknown.stderr);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn documents_of_the_first_version_are_as_the_schemas_say() {
    for name in ["plan", "check"] {
        check_schemas(&fs::read_to_string(root().join(format!("tests/fixtures/{name}-0.1.json"))).unwrap());
    }
}

#[test]
fn an_unknown_or_missing_field_is_noticed() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "b");
    let program = Program::on(database.url());
    let document = program.json(0, &["scan"]);
    let check = |change: &dyn Fn(&mut Value)| {
        let mut changed = document.clone();
        change(&mut changed);
        validator("scan").is_valid(&changed)
    };
    assert!(check(&|_| ()));
    assert!(!check(&|document| document["more"] = 1.into()));
    assert!(!check(&|document| document["findings"][0]["more"] = 1.into()));
    assert!(!check(&|document| document["findings"][0]["evidence"][0]["more"] = 1.into()));
    assert!(!check(&|document| document["summary"]["stuck"] = "1".into()));
    assert!(!check(&|document| document["schema"] = "cinder-backup-repair/check".into()));
    assert!(!check(&|document| drop(document["findings"][0].as_object_mut().unwrap().remove("verdict"))));
    // Streams and the log.
    program.expect(0, &["scan", "-f", "jsonl"]);
    program.expect(0, &["plan", "-f", "jsonl"]);
    program.expect(0, &["repair", "--yes", "-f", "jsonl"]);
    for line in fs::read_to_string(program.log()).unwrap().lines() {
        check_schemas(line);
        let more = line.replacen("\"seq\"", "\"more\":1,\"seq\"", 1);
        assert!(!validator("audit").is_valid(&serde_json::from_str(&more).unwrap()));
    }
}
