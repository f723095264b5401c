//! The SQL script of a plan, run by the server's own client, has the same effect as `apply` and the same refusals.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

use cinder_backup_repair::db::Engine;

use super::hostile::names;
use super::stuck;
use crate::database::{Cells, Database, RowKey, changes};
use crate::program::Program;
use crate::schemas::{Columns, engines, fresh};
use crate::servers::{ADMIN, ADMIN_PASSWORD, postgresql};

/// Runs the script as its header says.
fn client(database: &Database, script: &Path, force: bool) -> Output {
    let input = || File::open(script).unwrap();
    let mut command = match database.engine() {
        Engine::Sqlite => {
            let mut command = Command::new("sqlite3");
            command.arg("-batch").arg(database.path()).stdin(input());
            command
        }
        Engine::Mysql | Engine::Mariadb => {
            let mut command = Command::new("mariadb");
            command.args(["--no-defaults", "--batch", "--skip-column-names", "--user", ADMIN]);
            command.arg(format!("--socket={}", database.server().socket.display())).env("MYSQL_PWD", ADMIN_PASSWORD);
            command.args(force.then_some("--force")).arg(database.name()).stdin(input());
            command
        }
        Engine::Postgresql => {
            let mut command = Command::new(postgresql::program("psql"));
            let server = database.server();
            command.args(["-X", "-qAt", "-d", database.name(), "-U", "postgres", "-p", &server.port.to_string()]);
            command.arg("-h").arg(&server.socket).arg("-f").arg(script);
            command
        }
    };
    command.current_dir(script.parent().unwrap()).env("HOME", "/nonexistent");
    command.output().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}

fn can_run(engine: Engine) -> bool {
    // The shell of SQLite may not be installed.
    engine != Engine::Sqlite || Command::new("sqlite3").arg("-version").output().is_ok()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The differences without `updated_at`.
fn differences(before: &BTreeMap<RowKey, Cells>, after: &BTreeMap<RowKey, Cells>) -> Vec<String> {
    let differs = changes(before, after).into_iter().filter(|change| change.column != "updated_at");
    differs.map(|change| format!("{}.{} of {}: {:?} -> {:?}", change.table, change.column, change.id, change.from, change.to)).collect()
}

/// Backups for every kind of unit, with every hostile name.
fn populate(database: &Database) {
    for name in names() {
        stuck(database, &name);
    }
    let target = database.volume(|row| row.status("restoring-backup"));
    database.backup(|row| row.status("restoring").host("gone").restore_volume_id(&target).age(7_200));
    database.backup(|row| row.status("deleting").host("gone").age(7_200));
    database.backup(|row| row.status(None::<&str>).host("gone").age(7_200));
    let source = database.volume(|row| row.status("in-use"));
    let snapshot = database.snapshot(&source, |row| row.status("backing-up").display_name("'\\"));
    database.backup(|row| row.status("creating").host("gone\\'").volume_id(&source).snapshot_id(&snapshot).age(7_200));
    database.backup(|row| row.status("creating").host("gone").fail_reason("it's \\ \"odd\" $cbr$\n").age(7_200));
    database.volume(|row| row.status("backing-up").previous_status("in-use").age(7_200));
    let parent = database.backup(|row| row.num_dependent_backups(5));
    database.backup(|row| row.parent_id(&parent));
}

#[test]
fn a_script_has_the_effect_of_apply() {
    for engine in engines().into_iter().filter(|engine| can_run(*engine)) {
        for columns in [Columns::Full, Columns::Mitaka] {
            let database = fresh(engine, columns);
            populate(&database);
            let program = Program::on(database.url());
            program.expect(0, &["plan", "--fix-counters", "--out", "plan.json", "--report", "plan.sql", "-q"]);
            let copy = database.copy();
            let before = database.rows_by_id();
            assert_eq!(differences(&before, &copy.rows_by_id()), Vec::<String>::new());
            let output = client(&copy, &program.path("plan.sql"), false);
            assert!(output.status.success(), "{} {}", engine.name(), said(&output));
            program.expect(0, &["apply", "plan.json", "--yes"]);
            let after = database.rows_by_id();
            assert!(differences(&before, &after).len() > 2 * names().len(), "{}: nothing was repaired", engine.name());
            assert_eq!(differences(&after, &copy.rows_by_id()), Vec::<String>::new(), "{} {columns:?}", engine.name());
            assert!(said(&output).contains("unit 1 is committed"), "{}", said(&output));
            // The database's clock also set the times.
            for ((table, id), cells) in copy.rows_by_id() {
                let was = &before[&(table.clone(), id.clone())];
                let moved = cells.iter().any(|(column, cell)| column != "updated_at" && was[column] != *cell);
                assert_eq!(moved, was["updated_at"] != cells["updated_at"], "{} {table} {id}", engine.name());
            }
            // A second run changes nothing and fails.
            let done = copy.rows_by_id();
            let again = client(&copy, &program.path("plan.sql"), false);
            assert!(!again.status.success(), "{} {}", engine.name(), said(&again));
            assert_eq!(changes(&done, &copy.rows_by_id()), [], "{}", engine.name());
            for owned in ["owned", "audit.jsonl.owned"] {
                assert!(!program.path(owned).exists(), "{}: a name ran a command", engine.name());
            }
        }
    }
}

/// An id that sorts early or late, because units are ordered by id.
fn id(letter: char, chain: usize) -> String {
    format!("{}-0000-4000-8000-{chain:012}", letter.to_string().repeat(8))
}

/// Chains whose units change common rows: parents that are counted or repaired before, between and after their increments; counters that
/// are right, too low, or more than one too high.
fn populate_chains(database: &Database) {
    let increments = |parent: &str, chain: usize| {
        for letter in ['b', 'd'] {
            database.backup(|row| row.id(id(letter, chain)).parent_id(parent).status("creating").host("gone").age(7_200));
        }
    };
    let mut chain = 0;
    for letter in ['a', 'c', 'e'] {
        for (status, recorded) in
            [("available", Some(0)), ("available", None), ("available", Some(7)), ("creating", Some(0)), ("deleting", Some(2))]
        {
            chain += 1;
            let parent =
                database.backup(|row| row.id(id(letter, chain)).status(status).num_dependent_backups(recorded).host("gone").age(7_200));
            increments(&parent, chain);
            if recorded.is_none() {
                database.backup(|row| row.parent_id(&parent));
            }
        }
    }
}

#[test]
fn a_script_passes_a_shared_parent_from_unit_to_unit() {
    const GIVEN_UP: &[&str] = &["plan", "--fix-counters", "--out", "plan.json", "--report", "plan.sql", "-q"];
    const EARNED: &[&str] =
        &["plan", "--fix-counters", "--to", "available", "--allow-unverified", "--out", "plan.json", "--report", "plan.sql", "-q"];
    for engine in engines().into_iter().filter(|engine| can_run(*engine)) {
        for (columns, plan) in [(Columns::Full, EARNED), (Columns::Liberty, EARNED), (Columns::Full, GIVEN_UP)] {
            let database = fresh(engine, columns);
            populate_chains(&database);
            let program = Program::on(database.url());
            // A backup that is being deleted and its increments cannot become available: refused.
            let code = if plan == EARNED { 4 } else { 0 };
            program.expect(code, plan);
            let copy = database.copy();
            let before = database.rows_by_id();
            let output = client(&copy, &program.path("plan.sql"), false);
            assert!(output.status.success(), "{} {}", engine.name(), said(&output));
            let document = program.json(0, &["apply", "plan.json", "--yes"]);
            assert_eq!(document["summary"]["applied"].as_u64(), document["units"].as_array().map(|units| units.len() as u64));
            let after = database.rows_by_id();
            assert!(differences(&before, &after).len() > 20, "{}: nothing was repaired", engine.name());
            assert_eq!(differences(&after, &copy.rows_by_id()), Vec::<String>::new(), "{} {columns:?}", engine.name());
            if plan == EARNED {
                let count = |id: &str| copy.cell("backups", id, "num_dependent_backups");
                assert_eq!([count(&id('a', 1)), count(&id('a', 2)), count(&id('c', 8))], ["2", "3", "2"].map(|n| Some(n.to_owned())));
            }
        }
    }
}

/// Zero dates, dates before year 1 and words in a time column: the script compares them with the values that were read.
#[test]
fn a_script_guards_invalid_times() {
    for engine in engines().into_iter().filter(|engine| can_run(*engine)) {
        let database = fresh(engine, Columns::Full);
        let times: &[&str] = match engine {
            Engine::Sqlite => &["'yesterday'", "''", "'it''s \\'"],
            Engine::Mysql | Engine::Mariadb => &["'0000-00-00 00:00:00'", "'2026-00-00 00:00:00'", "'2026-11-00 10:00:00'"],
            Engine::Postgresql => &["'infinity'", "'-infinity'", "'0044-03-15 01:02:03.000004 BC'", "'20000-01-01'"],
        };
        if matches!(engine, Engine::Mysql | Engine::Mariadb) {
            database.execute("SET SESSION sql_mode = ''");
        }
        for (chain, time) in times.iter().enumerate() {
            let (backup, volume) = stuck(&database, "nightly");
            // Two units count this parent: the second requires the time that the first wrote.
            let parent = database.backup(|row| row.id(id('a', chain)).num_dependent_backups(0));
            for letter in ['b', 'd'] {
                database.backup(|row| row.id(id(letter, chain)).parent_id(&parent).status("creating").host("gone").age(7_200));
            }
            for (table, id) in [("backups", &backup), ("volumes", &volume), ("backups", &parent)] {
                database.execute(&format!("UPDATE {table} SET updated_at = {time} WHERE id = '{id}'"));
            }
        }
        let program = Program::on(database.url());
        let plan =
            ["plan", "--assume-dead=all", "--to=available", "--allow-unverified", "--out", "plan.json", "--report", "plan.sql", "-q"];
        program.expect(0, &plan);
        let copy = database.copy();
        let before = copy.rows_by_id();
        let output = client(&copy, &program.path("plan.sql"), false);
        assert!(output.status.success(), "{} {}", engine.name(), said(&output));
        if matches!(engine, Engine::Mysql | Engine::Mariadb) {
            let script = fs::read_to_string(program.path("plan.sql")).unwrap();
            for update in script.lines().filter(|line| line.starts_with("UPDATE ")) {
                let explain = if engine == Engine::Mysql { "EXPLAIN FORMAT=TRADITIONAL" } else { "EXPLAIN" };
                let plan = database.query(&format!("{explain} {}", update.trim_end_matches(';')));
                assert!(plan[0].iter().flatten().any(|cell| cell == "PRIMARY"), "{} does not go by the key: {plan:?}", engine.name());
            }
        }
        let document = program.json(0, &["apply", "plan.json", "--yes"]);
        assert_eq!(document["summary"]["applied"].as_u64(), Some(3 * times.len() as u64), "{} {document:#}", engine.name());
        assert!(differences(&before, &copy.rows_by_id()).len() >= 5 * times.len(), "{}: nothing was repaired", engine.name());
        assert_eq!(differences(&database.rows_by_id(), &copy.rows_by_id()), Vec::<String>::new(), "{}", engine.name());
    }
}

#[test]
fn a_script_stops_if_a_shared_parent_changes_between_two_units() {
    for engine in engines().into_iter().filter(|engine| can_run(*engine)) {
        let database = fresh(engine, Columns::Full);
        let parent = database.backup(|row| row.id(id('a', 1)));
        for letter in ['b', 'd'] {
            database.backup(|row| row.id(id(letter, 1)).parent_id(&parent).status("creating").host("gone").age(7_200));
        }
        let program = Program::on(database.url());
        program.expect(0, &["plan", "--to", "available", "--allow-unverified", "--report", "plan.sql", "-q"]);
        let script = fs::read_to_string(program.path("plan.sql")).unwrap();
        let (first, second) = script.split_once("-- Unit 2").unwrap();
        // Another writer changes only `updated_at`.
        let touch = "UPDATE backups SET updated_at = '2031-01-01 00:00:00' WHERE id = 'aaaaaaaa-0000-4000-8000-000000000001';";
        fs::write(program.path("touched.sql"), format!("{first}{touch}\n-- Unit 2{second}")).unwrap();
        let copy = database.copy();
        let output = client(&copy, &program.path("touched.sql"), false);
        assert!(!output.status.success(), "{} {}", engine.name(), said(&output));
        assert_eq!(copy.cell("backups", &id('b', 1), "status").as_deref(), Some("available"), "{}", engine.name());
        assert_eq!(copy.cell("backups", &id('d', 1), "status").as_deref(), Some("creating"), "{}", engine.name());
        assert_eq!(copy.cell("backups", &parent, "num_dependent_backups").as_deref(), Some("1"), "{}", engine.name());
        // Without the first unit the second has no stored time.
        let begin = first.split_once("-- Unit 1").unwrap().0;
        fs::write(program.path("second.sql"), format!("{begin}-- Unit 2{second}")).unwrap();
        let before = database.rows_by_id();
        assert!(!client(&database, &program.path("second.sql"), false).status.success(), "{}", engine.name());
        assert_eq!(changes(&before, &database.rows_by_id()), [], "{}", engine.name());
    }
}

#[test]
fn a_script_leaves_out_units_that_apply_would_refuse() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    if !can_run(database.engine()) {
        return;
    }
    // One too high: right for the first increment, whose unit need not count, and too low for the second.
    let parent = database.backup(|row| row.id(id('a', 1)).num_dependent_backups(1));
    for letter in ['b', 'd'] {
        database.backup(|row| row.id(id(letter, 1)).parent_id(&parent).status("creating").host("gone").age(7_200));
    }
    let program = Program::on(database.url());
    program.expect(0, &["plan", "--to", "available", "--allow-unverified", "--out", "plan.json", "--report", "plan.sql", "-q"]);
    let copy = database.copy();
    let output = client(&copy, &program.path("plan.sql"), false);
    assert!(output.status.success(), "{}", said(&output));
    let document = program.json(4, &["apply", "plan.json", "--yes"]);
    assert_eq!(document["summary"]["changed"], 1, "{document:#}");
    assert_eq!(differences(&database.rows_by_id(), &copy.rows_by_id()), Vec::<String>::new());
    let script = fs::read_to_string(program.path("plan.sql")).unwrap();
    assert!(script.contains("Repair of Cinder backups, 1 unit,") && script.contains("-- LEFT OUT: "), "{script}");
}

#[test]
fn a_script_stops_at_a_unit_whose_row_changed() {
    for engine in engines().into_iter().filter(|engine| can_run(*engine)) {
        let database = fresh(engine, Columns::Full);
        let mut ids: Vec<(String, String)> = (0..3).map(|number| stuck(&database, &format!("backup {number}"))).collect();
        ids.sort();
        let program = Program::on(database.url());
        program.expect(0, &["plan", "--report", "plan.sql", "-q"]);
        for (change, force) in [
            ("UPDATE backups SET status = 'available' WHERE id = 'B'", false),
            ("UPDATE backups SET host = 'other' WHERE id = 'B'", false),
            ("UPDATE volumes SET status = 'in-use' WHERE id = 'V'", false),
            ("UPDATE volumes SET status = 'in-use' WHERE id = 'V'", true),
            ("DELETE FROM backups WHERE id = 'B'", false),
        ] {
            let copy = database.copy();
            copy.execute(&change.replace("'B'", &format!("'{}'", ids[1].0)).replace("'V'", &format!("'{}'", ids[1].1)));
            let before = copy.rows_by_id();
            let output = client(&copy, &program.path("plan.sql"), force);
            let what = format!("{} {change}: {}", engine.name(), said(&output));
            assert!(!output.status.success() || force, "{what}");
            let differs = differences(&before, &copy.rows_by_id());
            let touched = |unit: usize| differs.iter().any(|line| line.contains(&ids[unit].0) || line.contains(&ids[unit].1));
            assert!(touched(0), "{what}: the unit before stays committed");
            assert!(!touched(1), "{what}: {differs:?}");
            assert!(!touched(2), "{what}: it does not go on: {differs:?}");
            assert!(!said(&output).contains("unit 2 is committed"), "{what}");
        }
    }
}

#[test]
fn a_hostile_name_stays_a_comment_in_a_script() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        for name in names() {
            stuck(&database, &name);
        }
        let program = Program::on(database.url());
        program.expect(0, &["plan", "--report", "plan.sql", "-q"]);
        let script = fs::read_to_string(program.path("plan.sql")).unwrap();
        for line in script.lines() {
            let bad = line.chars().find(|c| cinder_backup_repair::domain::text::is_hostile(*c));
            assert!(bad.is_none(), "{}: {bad:?} in {line:?}", engine.name());
            let outside = line.split("--").next().unwrap();
            assert!(!outside.contains("DROP") && !line.trim_start().starts_with(".shell"), "{}: {line}", engine.name());
        }
    }
}
