//! The cost of a long log and of long values grows in proportion to their length, not to its square. A scan's memory grows slowly with the
//! live backups.
//!
//! The cost is the program's processor time for two lengths in one run. The margin is wide: four times the length may take eight times
//! as long.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use cinder_backup_repair::audit::digest;
use cinder_backup_repair::db::Engine;
use serde_json::Value;

use crate::database::Database;
use crate::plan_stream::within;
use crate::program::{Program, answer};
use crate::rows;
use crate::schemas::{Columns, fresh};

const TWO_HOURS: i64 = 7_200;
/// The time in seconds that starting the program takes at most.
const START: f64 = 0.05;

/// The processor time of a command, in seconds.
#[track_caller]
fn cost(program: &Program, args: &[&str], expected: i32) -> f64 {
    let direct = program.command(args);
    let mut shell = Command::new("bash");
    shell.args(["-c", "TIMEFORMAT=%U; { time \"$0\" \"$@\" > out 2> err; } 2> time"]).arg(direct.get_program()).args(direct.get_args());
    shell.env_clear().envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", "/usr/bin:/bin");
    let said = answer(shell.current_dir(program.path(".")));
    let read = |name: &str| std::fs::read_to_string(program.path(name)).unwrap();
    assert_eq!(said.code, Some(expected), "{args:?} {}{}", said.stderr, read("err"));
    read("time").trim().parse().unwrap()
}

#[track_caller]
fn assert_linear(what: &[&str], once: f64, four_times: f64) {
    assert!(four_times < 8.0 * once.max(START), "{what:?}: {once} s, and {four_times} s for four times the length");
}

/// Writes the log of a run with `units` units, made from the log of a run with one.
fn write_log(records: &[Value], units: usize, path: &Path) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let (mut seq, mut previous) = (0, "0".repeat(64));
    let mut add = |record: &Value, number: usize| {
        seq += 1;
        let mut record = record.clone();
        record["seq"] = seq.into();
        record["previous"] = previous.as_str().into();
        if record.get("unit").is_some() {
            record["unit"] = number.into();
        }
        let content = record.to_string();
        let line = format!("{},\"digest\":\"sha256:{}\"}}", content.strip_suffix('}').unwrap(), digest(content.as_bytes()));
        previous = digest(line.as_bytes());
        writeln!(file, "{line}").unwrap();
    };
    let (begin, rest) = records.split_first().unwrap();
    let (end, unit) = rest.split_last().unwrap();
    add(begin, 0);
    for number in 1..=units {
        unit.iter().for_each(|record| add(record, number));
    }
    add(end, 0);
    file.flush().unwrap();
}

/// A repair of one unit, and the records of its log without digests.
fn logged_run() -> (Database, Program, Vec<Value>) {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let volume = database.volume(|row| row.status("backing-up").previous_status("available"));
    database.backup(|row| row.status("creating").host("gone").volume_id(&volume).age(TWO_HOURS));
    let program = Program::on(database.url());
    program.expect(0, &["repair", "--yes"]);
    let text = std::fs::read_to_string(program.log()).unwrap();
    let mut records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.iter_mut().for_each(|record| drop(record.as_object_mut().unwrap().remove("digest")));
    (database, program, records)
}

#[test]
fn a_log_is_read_in_linear_time() {
    let (_database, program, records) = logged_run();
    let run = program.last_run();
    let commands: &[(&[&str], i32)] = &[
        (&["history", "list"], 0),
        (&["history", "verify"], 0),
        (&["history", "show", &run], 0),
        (&["history", "show", &run, "-f", "json"], 0),
        (&["history", "reconcile", &run], 0),
        (&["undo", &run, "--dry-run", "-f", "json"], 4),
    ];
    let costs = |units: usize| -> Vec<f64> {
        write_log(&records, units, &program.log());
        commands.iter().map(|(args, code)| cost(&program, args, *code)).collect()
    };
    for ((args, _), (once, four_times)) in commands.iter().zip(costs(200).into_iter().zip(costs(800))) {
        assert_linear(args, once, four_times);
    }
}

/// An undo holds one unit of the log at a time.
#[test]
fn an_undo_of_many_units_needs_little_memory() {
    let (_database, program, records) = logged_run();
    let run = program.last_run();
    for units in [5_000, 20_000] {
        write_log(&records, units, &program.log());
        let undo = within(&program, 40 * 1024, &["undo", &run, "--dry-run", "-f", "json"]);
        assert_eq!(undo.code, Some(4), "{units}: {}", undo.stderr);
        assert_eq!(undo.json()["units"].as_array().map(Vec::len), Some(units), "{}", undo.stderr);
    }
}

/// Stuck backups, each with a marked volume, on a host without a service.
fn fill_with_stuck(database: &Database, backups: usize) {
    let numbers = format!("WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {backups} - 1)");
    database.execute(&format!(
        "{numbers} INSERT INTO volumes (id, volume_type_id, status, previous_status, attach_status, size, host, created_at, updated_at, deleted)
         SELECT printf('00000000-0000-4000-9000-%012x', n), (SELECT min(id) FROM volume_types), 'backing-up', 'available', 'detached', 10, 'ctl1@ceph#volumes', '2026-01-01 02:00:00',
                '2026-01-02 02:00:00', 0
           FROM numbers"
    ));
    database.execute(&format!(
        "{numbers} INSERT INTO backups (id, volume_id, status, host, service, project_id, user_id, display_name, container, size, object_count,
                                        service_metadata, num_dependent_backups, created_at, updated_at, deleted)
         SELECT printf('00000000-0000-4000-8000-%012x', n), printf('00000000-0000-4000-9000-%012x', n), 'creating', 'gone',
                'cinder.backup.drivers.swift.SwiftBackupDriver', printf('%032x', n % 40), printf('%032x', n % 40), printf('nightly-%d', n),
                'volumebackups', 10, 0, printf('volume_%d/20260102020000/az_nova_backup_%d', n, n), 0, '2026-01-02 02:00:00',
                '2026-01-02 02:00:00', 0
           FROM numbers"
    ));
}

/// Of each unit only some numbers stay in memory, in some 370 bytes: all else is read again, or in a temporary file.
#[test]
fn many_units_need_as_much_memory_as_few() {
    for units in [300, 3_000] {
        let database = fresh(Engine::Sqlite, Columns::Full);
        fill_with_stuck(&database, units);
        let program = Program::on(database.url());
        let limited = |args: &[&str]| {
            let run = within(&program, 48 * 1024, args);
            assert_eq!(run.code, Some(0), "{units}: {args:?} {}", run.stderr);
            run
        };
        let most = units.to_string();
        let dead = ["--assume-dead", "all"];
        limited(&[&["plan", "-o", "plan.jsonl", "-f", "jsonl"], &dead[..]].concat());
        for run in [&[&["repair", "--dry-run", "-f", "json"], &dead[..]].concat()[..], &["apply", "plan.jsonl", "--dry-run", "-f", "json"]]
        {
            assert_eq!(limited(run).json()["summary"]["planned"], units);
        }
        // A table has all rows, too.
        assert_eq!(limited(&["apply", "plan.jsonl", "--yes"]).stdout.lines().count(), units + 4);
        assert_eq!(limited(&["undo", &program.last_run(), "--yes"]).stdout.lines().count(), units + 4);
        // What was undone has just been written.
        let again = ["repair", "--yes", "--older-than", "0s", "--max-changes", &most, "-f", "json"];
        let repair = limited(&[&again, &dead[..]].concat()).json();
        assert_eq!(repair["summary"]["applied"], units);
        let undo = limited(&["undo", repair["run"].as_str().unwrap(), "--yes", "-f", "json"]).json();
        assert_eq!(undo["summary"]["applied"], units);
    }
}

#[test]
fn long_values_cost_in_proportion_to_their_length() {
    let costs = |length: usize| -> Vec<(&str, f64)> {
        let database = fresh(Engine::Sqlite, Columns::Full);
        let volume = database.volume(|row| row.status("backing-up").previous_status("available"));
        let long = "long ä\u{202e} ".repeat(length / 10);
        let stuck = rows::backup().status("creating").host("gone").volume_id(&volume).age(TWO_HOURS);
        database.insert(&[stuck.display_name(&long).fail_reason(&long).service_metadata(&long)]);
        let program = Program::on(database.url());
        let mut found = vec![
            ("scan", cost(&program, &["scan"], 0)),
            ("plan", cost(&program, &["plan", "--out", "plan.json", "--report", "a.md", "--report", "a.sql"], 0)),
            ("dry run", cost(&program, &["apply", "plan.json", "--dry-run"], 0)),
            ("apply", cost(&program, &["apply", "plan.json", "--yes"], 0)),
        ];
        let run = program.last_run();
        found.extend([
            ("show", cost(&program, &["history", "show", &run], 0)),
            ("reconcile", cost(&program, &["history", "reconcile"], 0)),
            ("undo", cost(&program, &["undo", &run, "--yes"], 0)),
        ]);
        found
    };
    for ((command, once), (_, four_times)) in costs(100_000).into_iter().zip(costs(400_000)) {
        assert_linear(&[command], once, four_times);
    }
}

/// Chains of a full backup and six increments, all live and available, with one stuck backup among them.
fn fill_with_chains(database: &Database, backups: usize) {
    database.execute(&format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {backups} - 1)
         INSERT INTO backups (id, volume_id, parent_id, num_dependent_backups, status, host, service, project_id, user_id, display_name,
                              container, size, object_count, created_at, updated_at, deleted)
         SELECT printf('00000000-0000-4000-8000-%012x', n), printf('00000000-0000-4000-9000-%012x', n / 20),
                CASE WHEN n % 7 THEN printf('00000000-0000-4000-8000-%012x', n - 1) END, n % 7 < 6 AND n < {backups} - 1, 'available',
                'ctl1', 'cinder.backup.drivers.swift.SwiftBackupDriver', printf('%032x', n % 40), printf('%032x', n % 40),
                printf('nightly-%d', n), 'volumebackups', 10, 200, '2026-01-01 02:00:00', '2026-01-01 02:00:00', 0
           FROM numbers"
    ));
    database.backup(|row| row.status("creating").host("gone").age(TWO_HOURS));
}

/// 128 MiB are the aim for a million live backups, of which a fixed part does not depend on their number.
#[test]
fn a_scan_needs_little_memory_for_each_live_backup() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    fill_with_chains(&database, 200_000);
    let program = Program::on(database.url());
    let scan = within(&program, 48 * 1024, &["scan", "-f", "json"]);
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);
    assert_eq!(scan.json()["findings"].as_array().map(Vec::len), Some(1), "{}", scan.stdout);
    // The limit is a real one.
    assert_ne!(within(&program, 2 * 1024, &["scan", "-f", "json"]).code, Some(0));
}

/// A stream needs no more memory if most counters are wrong, whatever is wrong with them; nor does the catalog.
#[test]
fn a_stream_needs_little_memory_whatever_it_finds() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let backups = 200_000;
    fill_with_chains(&database, backups);
    let program = Program::on(database.url());
    let lines = |args: &[&str]| {
        let scan = within(&program, 48 * 1024, &[&["scan", "-q", "-f", "jsonl"], args].concat());
        assert_eq!(scan.code, Some(0), "{args:?} {}", scan.stderr);
        scan.stdout.lines().count()
    };
    // All members of a chain but the last have an increment; the head and the closing record come on top.
    let parents = backups / 7 * 6 + backups % 7 - 1;
    for (counter, findings) in [("0", parents), ("9", backups)] {
        database.execute(&format!("UPDATE backups SET num_dependent_backups = {counter} WHERE status = 'available'"));
        assert_eq!(lines(&[]), findings + 3, "{counter}");
    }
    // A result that is written at the end needs some 150 bytes for each finding, and a finding has two thousand.
    for (args, lines) in [(&["json", "--noindent"][..], 1), (&["value", "-c", "ID"], backups + 1)] {
        let scan = within(&program, 88 * 1024, &[&["scan", "-q", "-f"], args].concat());
        assert_eq!((scan.code, scan.stdout.lines().count()), (Some(0), lines), "{args:?} {}", scan.stderr);
    }
    database.execute("UPDATE backups SET num_dependent_backups = NULL, parent_id = NULL WHERE status = 'available'");
    assert_eq!(lines(&["--all"]), 3 + 2 * (backups + 1));
}
