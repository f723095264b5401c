//! `restorable`: Cinder's own API accepts the restores that a check calls restorable, and refuses the others.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::{Placed, Site};
use crate::cinder;

/// The answer about each backup with the codes of its reasons.
fn answers(document: &Value) -> BTreeMap<String, (String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let results = document["results"].as_array().unwrap().iter();
    let reasons = |result: &Value| -> Vec<String> {
        result["restorable_reasons"].as_array().into_iter().flatten().map(|reason| text(&reason["code"])).collect()
    };
    results.map(|result| (text(&result["id"]), (text(&result["restorable"]), reasons(result)))).collect()
}

#[test]
fn cinder_accepts_the_restores_that_a_check_calls_restorable() {
    let site = Site::new();
    let set = |placed: &Placed, what: &str| site.database.execute(&format!("UPDATE backups SET {what} WHERE id = '{}'", placed.id));
    let placed = || {
        let placed = site.available();
        set(&placed, "host = 'ctl1'");
        placed
    };
    let (whole, no_zone, retired, zone, error, no_size) = (placed(), placed(), placed(), placed(), placed(), placed());
    set(&no_zone, "availability_zone = NULL");
    set(&retired, "host = 'gone'");
    set(&zone, "availability_zone = 'az9'");
    set(&error, "status = 'error'");
    set(&no_size, "size = NULL");
    let all = [&whole, &no_zone, &retired, &zone, &error, &no_size];
    for same_host in [false, true] {
        let conf = fs::read_to_string(site.program.path("cinder.conf")).unwrap();
        fs::write(site.program.path("cinder.conf"), format!("{conf}backup_use_same_host = {same_host}\n")).unwrap();
        let check = || site.program.run(&["check", "--all", "-f", "json"]).json();
        let document = check();
        let answers = answers(&document);
        // A restore that is accepted changes the row.
        let copy = site.database.copy();
        let cinder = cinder::restores(&copy.url(), same_host);
        for placed in all {
            let (restorable, reasons) = &answers[&placed.id];
            let accepted = cinder[&placed.id] == "accepted";
            match restorable.as_str() {
                "yes" => assert!(accepted, "{same_host} {reasons:?} {}", cinder[&placed.id]),
                "no" => assert!(!accepted, "{same_host} {reasons:?}"),
                // A size of NULL is 0 to Cinder, and no volume is too small for that.
                _ => assert!(placed.id == no_size.id && accepted, "{same_host} {reasons:?}"),
            }
        }
        let codes = |placed: &Placed| answers[&placed.id].1.join(" ");
        assert_eq!(codes(&whole), "");
        assert_eq!(codes(&retired), if same_host { "same-host" } else { "" });
        assert_eq!(codes(&zone), if same_host { "same-host" } else { "no-service" });
        assert_eq!(codes(&error), "not-available");
        assert!(codes(&no_size).contains("size-unknown"), "{}", codes(&no_size));
    }
    site.silence();
    let document = site.program.run(&["check", &whole.id, "-f", "json"]).json();
    assert_eq!(document["results"][0]["restorable_reasons"][0]["code"], "same-host", "{document:#}");
    assert!(cinder::restores(&site.database.copy().url(), false).values().all(|answer| answer != "accepted"));
}

#[test]
fn damage_is_not_restorable_and_without_a_database_nothing_is_known() {
    let site = Site::new();
    let (whole, damaged) = (site.creating(), site.creating());
    damaged.interrupt();
    let scan = site.keep(0, "scan.json", &["scan"]);
    let answer = crate::program::answer(&mut site.elsewhere(&["--from", &scan, "-f", "json"]));
    let answers_elsewhere = answers(&answer.json());
    assert_eq!(answers_elsewhere[&whole.id], ("no".to_owned(), vec!["not-available".to_owned(), "services-unknown".to_owned()]));
    let codes = ["not-available", "data-damaged", "services-unknown"].map(str::to_owned).to_vec();
    assert_eq!(answers_elsewhere[&damaged.id], ("no".to_owned(), codes));
    let table = site.program.run(&["check", &whole.id, "-c", "restorable", "-f", "value"]);
    assert_eq!(table.stdout.trim(), "no");
}
