//! `config show`: where each setting is from, without a secret.

use std::fs;

use serde_json::Value;

use crate::program::{answer, bare};

/// The value and the origin of a setting.
fn setting<'d>(document: &'d Value, name: &str) -> [&'d Value; 3] {
    let found = document["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {document:#}"));
    ["value", "origin", "secret"].map(|field| &found[field])
}

#[test]
fn each_setting_has_its_origin_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (first, second) = (path("cinder.conf"), path("local.conf"));
    fs::write(&first, "[DEFAULT]\nbackup_driver = a\nservice_down_time = 90\nbackup_swift_key = hidden1\n\n[database]\nconnection = mysql+pymysql://cinder@db1/cinder\n").unwrap();
    fs::write(&second, "[DEFAULT]\n# local\nbackup_driver = b\nbackup_s3_http_proxy = http://u:hidden3@proxy:1\n").unwrap();
    let args = ["config", "show", "--config-file", &first, "--config-file", &second, "--tls-mode", "require"];
    let more = ["--storage-option", "backup_s3_store_secret_key=hidden4", "--storage-option", "backup_s3_timeout=5"];
    let run = |format: &str| answer(bare(&[&args as &[&str], &more, &["-f", format]].concat()).env("CINDER_DATABASE_PASSWORD", "hidden5"));
    let document = run("json");
    assert_eq!(document.code, Some(0), "{}", document.stderr);
    for answer in [&document, &run("table"), &run("yaml"), &run("csv")] {
        assert!(!format!("{}{}", answer.stdout, answer.stderr).contains("hidden"), "{}{}", answer.stdout, answer.stderr);
    }
    let document = document.json();
    let (null, text) = (Value::Null, |text: &str| Value::from(text));
    for (name, value, origin, secret) in [
        ("database", text("mysql://cinder@db1:3306/cinder"), text(&format!("{first}:7 [database] connection")), false),
        ("password", null.clone(), text("CINDER_DATABASE_PASSWORD"), true),
        ("tls_mode", text("require"), null.clone(), false),
        ("backup_driver", text("b"), text(&format!("{second}:3 [DEFAULT] backup_driver")), false),
        ("service_down_time", text("90"), text(&format!("{first}:3 [DEFAULT] service_down_time")), false),
        ("report_interval", text("10"), text("default"), false),
        ("backup_swift_key", null.clone(), text(&format!("{first}:4 [DEFAULT] backup_swift_key")), true),
        ("backup_s3_http_proxy", null.clone(), text(&format!("{second}:4 [DEFAULT] backup_s3_http_proxy")), true),
        ("backup_s3_store_secret_key", null.clone(), text("--storage-option"), true),
        ("backup_s3_timeout", text("5"), text("--storage-option"), false),
        ("backup_s3_store_access_key", null.clone(), null.clone(), false),
    ] {
        assert_eq!(setting(&document, name), [&value, &origin, &secret.into()], "{name}");
    }
    assert_eq!(document["files_read"], serde_json::json!([first, second]));
    assert_eq!((&document["files_not_found"], &document["problem"]), (&serde_json::json!([]), &null));
}

#[test]
fn the_places_without_a_file_are_named_and_a_missing_database_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let run = |format: &str| answer(bare(&["config", "show", "-f", format]).env("HOME", home.path()));
    let none = run("json");
    assert_eq!(none.code, Some(2));
    assert!(
        none.stderr.starts_with("error: no database is configured") || none.stderr.contains("CINDER_DATABASE_URL is not set"),
        "{}",
        none.stderr
    );
    let document = none.json();
    let missing: Vec<&str> = document["files_not_found"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    let own = home.path().join(".cinder/cinder.conf").display().to_string();
    assert!(missing.contains(&own.as_str()) && missing.contains(&"/etc/kolla/cinder-backup/cinder.conf"), "{missing:?}");
    assert!(document["problem"].as_str().unwrap().contains("CINDER_DATABASE_URL is not set"));
    // A file in a usual place is read, and is not among the missing ones.
    fs::create_dir(home.path().join(".cinder")).unwrap();
    fs::write(&own, "[database]\nconnection = sqlite:////x\n").unwrap();
    let found = run("table");
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    assert!(found.stderr.contains(&format!("1 file read, a later one overrides an earlier one: {own}")), "{}", found.stderr);
    assert!(!found.stderr.contains(&format!("Not found: {own}")), "{}", found.stderr);
}
