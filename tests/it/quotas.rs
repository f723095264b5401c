//! `--fix-quotas`, with Cinder's own `quota sync`, `quota check` and `reservation_expire` as the measure.

use std::collections::BTreeMap;

use cinder_backup_repair::db::Engine;
use serde_json::Value;

use crate::cinder;
use crate::database::{Cells, Change, Database, RowKey, changes};
use crate::guards::grants;
use crate::history::forget_outcomes;
use crate::population::GONE;
use crate::program::{Program, find, finding};
use crate::rows::{Cell, Row, ago, backup, quota_usage, reservation};
use crate::schemas::{Columns, engines, fresh};

const STATUSES: [Option<&str>; 7] =
    [Some("available"), Some("creating"), Some("restoring"), Some("deleting"), Some("error"), Some("error_deleting"), None];

/// The tables that a repair may change.
const ALL: [&str; 6] = ["backups", "volumes", "snapshots", "backup_metadata", "quota_usages", "reservations"];

/// Differences in what is not a time of a change.
fn differences(before: &BTreeMap<RowKey, Cells>, after: &BTreeMap<RowKey, Cells>) -> Vec<Change> {
    changes(before, after).into_iter().filter(|change| !matches!(change.column.as_str(), "updated_at" | "deleted_at")).collect()
}

/// What the quotas of a project count: rows 10 * `number` and 10 * `number` + 1.
fn usages(project: &str, number: i64, backups: (i64, i64), gigabytes: (i64, i64)) -> [Row; 2] {
    [("backups", 0, backups), ("backup_gigabytes", 1, gigabytes)].map(|(resource, offset, (in_use, reserved))| {
        quota_usage(resource, in_use).project_id(project).reserved(reserved).set("id", 10 * number + offset)
    })
}

fn fix(program: &Program, code: i32, args: &[&str]) -> Value {
    program.json(code, &[&["repair", "--fix-quotas"], args].concat())
}

fn reason(document: &Value) -> &str {
    document["refused"][0]["reason"].as_str().unwrap_or_else(|| panic!("{document:#}"))
}

/// Projects whose quotas are right, too high, negative, without backups, or count expired reservations.
fn projects(database: &Database) {
    let mut rows = Vec::new();
    for project in ["right", "high", "negative", "expired"] {
        rows.extend(STATUSES.map(|status| backup().project_id(project).status(status).size(2).age(60)));
        // Cinder counts a size of NULL as 0, and no row that is deleted.
        rows.push(backup().project_id(project).size(None::<i64>));
        rows.push(backup().project_id(project).size(50).gone());
    }
    rows.extend(usages("right", 1, (8, 0), (14, 0)));
    rows.extend(usages("high", 2, (30, 7), (90, 0)));
    rows.extend(usages("negative", 3, (-2, 0), (14, -5)));
    rows.extend(usages("empty", 4, (3, 0), (0, 0)));
    rows.extend(usages("expired", 5, (8, 3), (5, 40)));
    // Two operations that never ended, and one that Cinder has ended.
    rows.push(reservation("expired", 50, "backups", 1));
    rows.push(reservation("expired", 51, "backup_gigabytes", 40));
    rows.push(reservation("expired", 50, "backups", 2));
    rows.push(reservation("expired", 50, "backups", -1));
    rows.push(reservation("expired", 50, "backups", 5).deleted(true));
    // Neither counts backups.
    rows.push(quota_usage("volumes", 0).project_id("right"));
    rows.push(quota_usage("snapshots", 0).project_id("right"));
    database.insert(&rows);
}

#[test]
fn quotas_become_what_cinders_own_sync_makes_them_and_undo_restores_them() {
    for engine in engines() {
        let origin = fresh(engine, Columns::Full);
        projects(&origin);
        let (theirs, ours) = (origin.copy(), origin.copy());
        theirs.disconnect();
        cinder::expire_reservations(&theirs.url());
        assert_ne!(cinder::quota(&theirs.url(), "sync"), [] as [String; 0]);
        let program = Program::on(ours.url());
        let scan = program.json(3, &["scan", "--project", "negative", "--project", "high", "--older-than", "1h", "--detailed-exitcode"]);
        assert!(scan["notices"].to_string().contains("backups in use 30, counted 8"), "{} {scan:#}", engine.name());
        assert!(finding(&scan, "negative").to_string().contains("backups in use -2, counted 8"), "{} {scan:#}", engine.name());
        assert!(find(&scan, "high").is_none(), "a number that is only late is no finding");
        let before = ours.rows_of(&ALL);
        assert_eq!(fix(&program, 0, &["--dry-run", "--older-than", "1h"])["summary"]["planned"], 4);
        assert_eq!(changes(&before, &ours.rows_of(&ALL)), []);
        let document = fix(&program, 0, &["--yes"]);
        assert_eq!(document["summary"]["applied"], 4, "{document:#}");

        let after = ours.rows_of(&ALL);
        assert_eq!(differences(&theirs.rows_of(&ALL), &after), [], "{}", engine.name());
        let is_ended = |cells: &&Cells| cells["deleted"].as_deref() == Some("1") && cells["deleted_at"].is_some();
        assert_eq!(after.iter().filter(|(key, _)| key.0 == "reservations").map(|(_, cells)| cells).filter(is_ended).count(), 4);
        assert_eq!(cinder::quota(&ours.url(), "check"), [] as [String; 0], "{}", engine.name());
        assert_eq!(program.json(0, &["scan"])["notices"], serde_json::json!([]));
        assert_eq!(fix(&program, 0, &["--yes"])["units"], serde_json::json!([]), "nothing is left to correct");
        assert_eq!(program.json(0, &["history", "reconcile"])["units"][0]["state"], "kept");

        // Since then the project has made backups: what they use stays counted.
        ours.execute("UPDATE quota_usages SET in_use = in_use + 7 WHERE project_id = 'negative'");
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        ours.execute("UPDATE quota_usages SET in_use = in_use - 7 WHERE project_id = 'negative'");
        assert_eq!(differences(&before, &ours.rows_of(&ALL)), [], "{}", engine.name());
    }
}

#[test]
fn open_reservations_and_duplicate_rows_are_refused_with_the_reason() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let program = Program::on(database.url());
        let open = reservation("busy", 10, "backups", 1).set("expire", ago(-3600)).set("id", 77);
        let rows: Vec<Row> = usages("busy", 1, (3, 1), (0, 0)).into_iter().chain([open]).collect();
        database.insert(&rows);
        let before = database.rows_of(&ALL);
        let document = fix(&program, 6, &["--yes"]);
        assert!(
            reason(&document).contains("1 open reservation of backup quota") && reason(&document).contains("expired (20"),
            "{document:#}"
        );
        assert_eq!(changes(&before, &database.rows_of(&ALL)), []);
        let past = ago(60).sql(engine);
        database.execute(&format!("UPDATE reservations SET expire = {past} WHERE id = 77"));
        let document = fix(&program, 0, &["--yes", "--project", "busy"]);
        assert_eq!(document["summary"]["applied"], 1, "{document:#}");

        // Before it had a unique key, Cinder made two rows at times.
        let null = None::<bool>;
        database.insert(&usages("twice", 2, (1, 0), (0, 0)).map(|row| row.set("race_preventer", null)));
        database.insert(&[usages("twice", 3, (1, 0), (0, 0))[0].clone().set("race_preventer", null)]);
        let before = database.rows_of(&ALL);
        let document = fix(&program, 6, &["--yes"]);
        assert!(reason(&document).contains("several rows of it for backups"), "{document:#}");
        let scan = program.json(0, &["scan"]);
        assert!(finding(&scan, "twice").to_string().contains("several rows in quota_usages for backups"), "{scan:#}");
        assert_eq!(changes(&before, &database.rows_of(&ALL)), []);
    }
}

#[test]
fn a_backup_that_is_made_or_deleted_after_the_count_stops_the_unit() {
    // The oldest release has no index on the project of a backup.
    for (engine, columns) in engines().into_iter().flat_map(|engine| [(engine, Columns::Full), (engine, Columns::Juno)]) {
        let database = fresh(engine, columns);
        database.insert(&usages("first", 1, (3, 0), (0, 0)));
        database.insert(&usages("second", 2, (3, 0), (0, 0)));
        // While the first unit is written, Cinder begins and ends an operation in the second project.
        let ended = Cell::Boolean(true).sql(engine);
        let operation = |from: &str| {
            format!(
                "INSERT INTO reservations (uuid, usage_id, project_id, resource, delta, deleted) \
                 SELECT 'r', 20, 'second', 'backups', -1, {ended} {from} WHERE NEW.project_id = 'first'"
            )
        };
        database.execute(&match engine {
            Engine::Sqlite => format!("CREATE TRIGGER cinder AFTER UPDATE ON quota_usages BEGIN {}; END", operation("")),
            Engine::Mysql | Engine::Mariadb => {
                format!("CREATE TRIGGER cinder AFTER UPDATE ON quota_usages FOR EACH ROW {}", operation("FROM DUAL"))
            }
            Engine::Postgresql => format!("CREATE RULE cinder AS ON UPDATE TO quota_usages DO ALSO {}", operation("")),
        });
        let program = Program::on(database.url());
        let document = fix(&program, 4, &["--yes", "--sessions", "1"]);
        let units: Vec<_> = document["units"].as_array().unwrap().iter().map(|unit| unit["outcome"].as_str().unwrap()).collect();
        assert_eq!(units, ["applied", "refused"], "{} {document:#}", engine.name());
        assert!(document["units"][1]["reason"].as_str().unwrap().contains("since its backups were counted"), "{document:#}");
        assert_eq!(fix(&program, 0, &["--yes"])["summary"]["applied"], 1);
    }
}

/// A repair on another host makes no reservation.
#[test]
fn a_backup_that_another_run_deletes_after_the_count_stops_the_unit() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    database.insert(&usages("first", 1, (3, 0), (0, 0)));
    database.insert(&usages("second", 2, (5, 0), (3, 0)));
    let deleted = backup().project_id("second").size(1);
    let id = deleted.get_id().to_owned();
    database.insert(&[deleted, backup().project_id("second").size(1), backup().project_id("second").size(1)]);
    // While the first unit is written, another run deletes a backup of the second project.
    database.execute(&format!(
        "CREATE TRIGGER other AFTER UPDATE ON quota_usages WHEN NEW.project_id = 'first' BEGIN \
         UPDATE backups SET deleted = 1, status = 'deleted' WHERE id = '{id}' AND deleted = 0; \
         UPDATE quota_usages SET in_use = 4 WHERE project_id = 'second' AND resource = 'backups'; \
         UPDATE quota_usages SET in_use = 2 WHERE project_id = 'second' AND resource = 'backup_gigabytes'; END"
    ));
    let program = Program::on(database.url());
    let document = fix(&program, 4, &["--yes", "--sessions", "1"]);
    let units: Vec<_> = document["units"].as_array().unwrap().iter().map(|unit| unit["outcome"].as_str().unwrap()).collect();
    assert_eq!(units, ["applied", "refused"], "{document:#}");
    assert!(document["units"][1]["reason"].as_str().unwrap().contains("since its backups were counted"), "{document:#}");
    assert_eq!(fix(&program, 0, &["--yes"])["summary"]["applied"], 1);
    assert_eq!(cinder::quota(&database.url(), "check"), [] as [String; 0]);
}

/// A delete that never ended has reserved nothing that `quota_usages` counts.
#[test]
fn expired_reservations_of_deletes_end_even_if_the_numbers_are_right() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&usages("p", 1, (1, 0), (2, 0)));
        database.insert(&usages("q", 2, (7, 0), (0, 0)));
        let expired = |project: &str, usage: i64| {
            [reservation(project, usage, "backups", -1), reservation(project, usage + 1, "backup_gigabytes", -2)]
        };
        database.insert(&[expired("p", 10), expired("q", 20)].concat());
        database.insert(&[backup().project_id("p").size(2)]);
        let program = Program::on(database.url());
        let document = fix(&program, 0, &["--yes"]);
        assert_eq!(document["summary"]["applied"], 2, "{} {document:#}", engine.name());
        assert_eq!(fix(&program, 0, &["--yes"])["units"], serde_json::json!([]), "nothing is left to correct");
    }
}

#[test]
fn a_plan_is_applied_with_the_counts_of_the_run() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&usages("p", 1, (5, 0), (9, 0)));
        database.insert(&[backup().project_id("p").size(4)]);
        let program = Program::on(database.url());
        program.expect(0, &["plan", "--fix-quotas", "--out", "plan.json"]);
        // Cinder makes a backup meanwhile.
        database.insert(&[backup().project_id("p").size(3), reservation("p", 10, "backups", 1).deleted(true)]);
        database.execute("UPDATE quota_usages SET in_use = in_use + CASE resource WHEN 'backups' THEN 1 ELSE 3 END");
        let document = program.json(0, &["apply", "plan.json", "--yes"]);
        assert_eq!(document["summary"]["applied"], 1, "{document:#}");
        let of = |id: &str| database.cell("quota_usages", id, "in_use").unwrap();
        assert_eq!((of("10").as_str(), of("11").as_str()), ("2", "7"), "{}", engine.name());
        assert_eq!(cinder::quota(&database.url(), "check"), [] as [String; 0]);
    }
}

#[test]
fn a_project_whose_backups_the_same_run_deletes_waits_for_the_next_one() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    database.insert(&usages("p", 1, (5, 0), (9, 0)));
    database.insert(&[backup().project_id("p").status("deleting").host(GONE).size(4)]);
    let program = Program::on(database.url());
    let deletes = ["--yes", "--to", "deleted", "--allow-unverified", "--assume-dead", "all"];
    let document = fix(&program, 4, &deletes);
    assert_eq!(document["summary"]["applied"], 1, "{document:#}");
    assert!(reason(&document).contains("another unit"), "{document:#}");
    assert_eq!(fix(&program, 0, &deletes)["summary"]["applied"], 1);
    assert_eq!(cinder::quota(&database.url(), "check"), [] as [String; 0]);
}

/// MySQL and MariaDB do not tell them apart, so Cinder counts them together.
#[test]
fn project_ids_that_differ_in_case_are_not_counted_apart_where_cinder_does_not() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&usages("abc", 1, (9, 0), (9, 0)));
        database.insert(&[backup().project_id("abc").size(2), backup().project_id("ABC").size(4), backup().project_id("abc").size(1)]);
        let program = Program::on(database.url());
        if matches!(engine, Engine::Mysql | Engine::Mariadb) {
            let document = fix(&program, 6, &["--yes"]);
            assert!(reason(&document).contains("several ways"), "{document:#}");
        } else {
            assert_eq!(fix(&program, 0, &["--yes"])["summary"]["applied"], 1);
        }
        cinder::quota(&database.url(), "sync");
        let counted = if matches!(engine, Engine::Mysql | Engine::Mariadb) { ("3", "7") } else { ("2", "3") };
        let of = |id: &str| database.cell("quota_usages", id, "in_use").unwrap();
        assert_eq!((of("10").as_str(), of("11").as_str()), counted, "{}", engine.name());
    }
}

/// The quota is changed by the size in the plan.
#[test]
fn a_size_that_another_run_fills_in_stops_a_deletion() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&usages("p", 1, (1, 0), (4, 0)));
        database.insert(&[backup().project_id("p").status("deleting").host(GONE).size(None::<i64>)]);
        let program = Program::on(database.url());
        program.expect(0, &["plan", "--to", "deleted", "--allow-unverified", "--out", "plan.json"]);
        database.execute("UPDATE backups SET size = 4");
        let before = database.rows_of(&ALL);
        let document = program.json(4, &["apply", "plan.json", "--yes"]);
        assert!(document["units"][0].to_string().contains("\"column\":\"size\""), "{document:#}");
        assert_eq!(changes(&before, &database.rows_of(&ALL)), []);
    }
}

/// Its number is wrong, so a deletion leaves it at 0. When Cinder makes another backup, it counts again.
#[test]
fn a_deletion_notices_that_cinder_has_counted_a_quota_again() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&usages("p", 1, (0, 0), (6, 0)));
        database.insert(&[backup().project_id("p").status("deleting").host(GONE).size(2), backup().project_id("p").size(4)]);
        let program = Program::on(database.url());
        let deletes = ["--to", "deleted", "--allow-unverified", "--assume-dead", "all"];
        let expect_changed = |document: &Value| {
            let unit = &document["units"][0];
            assert_eq!(unit["outcome"], "changed", "{} {document:#}", engine.name());
            assert!(unit["reason"].as_str().unwrap().contains("has counted again"), "{document:#}");
        };
        program.expect(0, &[&["plan", "--out", "plan.json"], &deletes[..]].concat());
        let count_again = "UPDATE quota_usages SET in_use = 2 WHERE resource = 'backups'";
        database.execute(count_again);
        expect_changed(&program.json(4, &["apply", "plan.json", "--yes"]));
        // Another session counts between the scan and COMMIT.
        database.execute("UPDATE quota_usages SET in_use = 0 WHERE resource = 'backups'");
        if engine != Engine::Sqlite {
            database.execute("BEGIN");
            database.execute(count_again);
            let child = program.start(&[&["repair", "--yes", "-f", "json"], &deletes[..]].concat());
            std::thread::sleep(std::time::Duration::from_secs(2));
            database.execute("COMMIT");
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(4), "{} {}", engine.name(), String::from_utf8_lossy(&output.stderr));
            expect_changed(&serde_json::from_slice(&output.stdout).unwrap());
        } else {
            database.execute(count_again);
        }
        // It is wrong by nothing now.
        assert_eq!(program.json(0, &[&["repair", "--yes"], &deletes[..]].concat())["summary"]["applied"], 1);
        assert_eq!(cinder::quota(&database.url(), "check"), [] as [String; 0], "{}", engine.name());
    }
}

/// Backups in all statuses, in chains with wrong counters, in three projects with wrong quotas.
#[test]
fn after_deletions_quotas_and_counters_neither_cinder_nor_a_scan_finds_anything() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let mut rows = usages("none", 4, (1, 4), (2, 0)).into_iter().chain([reservation("none", 40, "backups", 4)]).collect::<Vec<_>>();
        for (number, project) in (1..).zip(["p1", "p2", "p3"]) {
            for (size, status) in (1..).zip(STATUSES) {
                let full = backup().project_id(project).size(size).num_dependent_backups(number - 1);
                rows.push(backup().project_id(project).host(GONE).status(status).size(size).parent_id(full.get_id()));
                rows.push(full);
            }
            rows.extend(usages(project, number, (7 * number, 4), (3 - number, 0)));
        }
        database.insert(&rows);
        let program = Program::on(database.url());
        let repair = |args: &[&str]| {
            let usual = ["repair", "--yes", "--max-changes", "100", "--assume-dead", "all", "--allow-unverified"];
            program.json(0, &[&usual as &[&str], args].concat())
        };
        let statuses = ["--status", "deleting", "--status", "error_deleting", "--status", "error"];
        assert_eq!(repair(&[&["--to", "deleted"], &statuses as &[&str]].concat())["summary"]["applied"], 9);
        assert_eq!(repair(&["--to", "available", "--status", "creating", "--status", "restoring"])["summary"]["applied"], 6);
        // A backup without a status can only be given up, and then be deleted.
        assert_eq!(repair(&[])["summary"]["applied"], 3);
        assert_eq!(repair(&["--to", "deleted", "--status", "error", "--older-than", "0s"])["summary"]["applied"], 3);
        assert_ne!(cinder::quota(&database.url(), "check"), [] as [String; 0]);
        let document = repair(&["--fix-quotas", "--fix-counters"]);
        assert!(document["summary"]["applied"].as_u64().unwrap() > 4, "{document:#}");
        assert_eq!(cinder::quota(&database.url(), "check"), [] as [String; 0], "{}", engine.name());
        let document = program.json(0, &["scan"]);
        assert_eq!((&document["findings"], &document["notices"]), (&serde_json::json!([]), &serde_json::json!([])), "{}", engine.name());
        assert_eq!(fix(&program, 0, &["--dry-run", "--fix-counters"])["units"], serde_json::json!([]));
    }
}

#[test]
fn the_privileges_of_quotas_sql_suffice_to_correct_quotas_and_to_undo_it() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        projects(&database);
        let before = database.dump();
        let answer = Program::on(database.account(&grants(engine, "repair"))).run(&["repair", "--yes", "--fix-quotas"]);
        // MySQL and MariaDB do not show a table that the account may not read.
        let (code, says) = if engine == Engine::Postgresql { (12, "permission denied") } else { (14, "sql/grants/ has the statements") };
        assert!(answer.code == Some(code) && answer.stderr.contains(says), "{} {:?} {}", engine.name(), answer.code, answer.stderr);
        assert_eq!(database.dump(), before);
        let program = Program::on(database.account(&(grants(engine, "repair") + &grants(engine, "quotas"))));
        assert_eq!(fix(&program, 0, &["--yes"])["summary"]["applied"], 4);
        assert_eq!(program.json(0, &["history", "reconcile"])["units"][0]["state"], "kept");
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
    }
}

#[test]
fn numbers_that_a_killed_run_may_have_written_prove_nothing() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.insert(&usages("p", 1, (5, 0), (9, 0)));
        let program = Program::on(database.url());
        fix(&program, 0, &["--yes"]);
        forget_outcomes(&program);
        let document = program.json(7, &["history", "reconcile"]);
        assert!(document["units"][0]["detail"].to_string().contains("shows that this program wrote them"), "{document:#}");
    }
}
