//! `--rehost` of backups in a directory, which may be on the disk of the old host.

use serde_json::Value;

use super::Site;
use crate::database::changes;

#[test]
fn a_backup_in_a_directory_is_moved_only_if_a_check_finds_its_data() {
    let site = Site::new();
    // It shows the driver of the host.
    site.available();
    let (whole, damaged) = (site.available(), site.available());
    let increment = site.store.place(&whole.volume, Some(&whole.id));
    site.database.backup(|row| increment.row(row));
    damaged.interrupt();
    for placed in [&whole, &damaged, &increment] {
        site.database.execute(&format!("UPDATE backups SET host = 'gone' WHERE id = '{}'", placed.id));
    }
    let repair = |code: i32, args: &[&str]| site.program.json(code, &[&["repair", "--yes", "--rehost", "ctl1"], args].concat());
    let reason = |document: &Value, id: &str| {
        let refused = document["refused"].as_array().unwrap().iter().find(|refused| refused["id"] == id);
        refused.map(|refused| refused["reason"].as_str().unwrap().to_owned())
    };
    let document = repair(6, &[]);
    let why = "its data may be on the disk of gone: run the repair on ctl1 with --check quick, which looks for the data there";
    for placed in [&whole, &damaged, &increment] {
        assert_eq!(reason(&document, &placed.id).as_deref(), Some(why));
    }
    let document = repair(4, &["--check", "quick"]);
    assert_eq!(document["summary"]["applied"], 2, "{document:#}");
    assert_eq!(reason(&document, &damaged.id).as_deref(), Some("a check found its data incomplete; it may be on the disk of gone"));
    let host = |id: &str| site.database.cell("backups", id, "host").unwrap();
    assert_eq!([&whole, &increment, &damaged].map(|placed| host(&placed.id)), ["ctl1", "ctl1", "gone"]);
    assert!(site.log().contains("found its data intact"));
    site.program.expect(0, &["undo", &site.program.last_run(), "--yes"]);
    assert_eq!(host(&whole.id), "gone");
}

#[test]
fn a_backup_that_becomes_available_in_the_same_run_is_moved_after_that() {
    let site = Site::new();
    site.available();
    let failed = site.backup("error", None);
    site.database.execute(&format!("UPDATE backups SET host = 'gone' WHERE id = '{}'", failed.id));
    let args = ["repair", "--rehost", "ctl1", "--status", "error", "--check", "deep"];
    let before = site.database.rows_by_id();
    let of = |document: &Value, outcome: &str| document["summary"][outcome].as_u64();
    assert_eq!(of(&site.program.json(0, &[&args as &[&str], &["--dry-run"]].concat()), "planned"), Some(2));
    assert_eq!(of(&site.program.json(0, &[&args as &[&str], &["--yes"]].concat()), "applied"), Some(2));
    let cell = |column: &str| site.database.cell("backups", &failed.id, column).unwrap();
    assert_eq!((cell("status"), cell("host")), ("available".to_owned(), "ctl1".to_owned()));
    let run = site.program.last_run();
    assert_eq!(of(&site.program.json(0, &["undo", &run, "--dry-run"]), "planned"), Some(2));
    site.program.expect(0, &["undo", &run, "--yes"]);
    let changed = changes(&before, &site.database.rows_by_id());
    assert!(changed.iter().all(|change| change.column == "updated_at"), "{changed:?}");
}
