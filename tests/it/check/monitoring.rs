//! `--prometheus` and `--nagios`, and the alerts and the dashboard of `deploy/` on these metrics.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use cinder_backup_repair::db::Engine;
use rustix::process::Signal;
use serde_json::Value;

use super::slow::{SILENT, bucket, end, send, wait_until};
use super::{Site, TWO_HOURS};
use crate::cli::hostile::names;
use crate::program::{Answer, Program, answer, bare};
use crate::schemas::{Columns, fresh};
use crate::servers::{self, root, run};

/// Runs a command with `--prometheus`, and returns the metrics, which promtool accepts.
#[track_caller]
fn metrics(program: &Program, code: i32, args: &[&str]) -> String {
    program.expect(code, &[args, &["--prometheus", "out.prom"]].concat());
    let text = fs::read_to_string(program.path("out.prom")).unwrap();
    let mut promtool = Command::new("promtool");
    let mut child = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    let series: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' ')).map(|s| s.0).collect();
    assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len(), "a series is there twice: {text}");
    text
}

/// The value of a series.
#[track_caller]
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {metrics}")).parse().unwrap()
}

/// Names of metrics in a text.
fn used(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("cinder_backup_")).map(str::to_owned).collect()
}

/// A site with a damaged backup of two that are available, one in `creating`, and hosts.
fn site() -> Site {
    let site = Site::new();
    site.available();
    site.available().damage();
    site.creating();
    site.silence();
    site.database.service("ctl9", |row| row.age(3));
    site
}

const LEDGER: [&str; 2] = ["--ledger", "ledger.sqlite"];

/// What each command writes.
fn of_all_commands(site: &Site) -> [(&'static str, String); 5] {
    let program = &site.program;
    let scan = metrics(program, 0, &["scan"]);
    let check = metrics(program, 9, &["check", "--all", "--level", "deep"]);
    let run = metrics(program, 9, &[&["scrub", "run"] as &[&str], &LEDGER].concat());
    // The last of them has an unverified backup.
    site.available();
    program.run(&[&["scrub", "run", "--max-runtime", "1s", "--level", "quick"] as &[&str], &LEDGER].concat());
    let status = metrics(program, 0, &[&["scrub", "status"] as &[&str], &LEDGER].concat());
    let doctor = metrics(program, 0, &["doctor"]);
    [("scan", scan), ("check-deep", check), ("scrub-run", run), ("scrub-status", status), ("doctor", doctor)]
}

#[test]
fn promtool_accepts_the_metrics_of_every_command_and_alerts_and_dashboard_use_no_others() {
    servers::refuse_in_fast_run("promtool");
    let all = of_all_commands(&site());
    for (command, text) in &all {
        assert_eq!(value(text, &format!("cinder_backup_last_run_success{{command=\"{command}\"}}")), 1.0);
    }
    let [scan, check, run, status, doctor] = all.map(|(_, text)| text);
    assert_eq!(value(&scan, "cinder_backup_findings{verdict=\"stuck\"}"), 1.0);
    assert_eq!(value(&scan, "cinder_backup_live_backups"), 3.0);
    assert!(value(&scan, "cinder_backup_heartbeat_age_seconds{host=\"ctl9\"}") >= 3.0);
    assert_eq!(value(&check, "cinder_backup_check_backups{level=\"deep\",verdict=\"corrupt\"}"), 1.0);
    assert_eq!(value(&run, "cinder_backup_scrub_run_backups{result=\"failed\"}"), 1.0);
    assert!(value(&run, "cinder_backup_scrub_run_verified_bytes") > 1e9);
    assert_eq!(value(&status, "cinder_backup_scrub_restore_points{driver=\"posix\"}"), 3.0);
    assert_eq!(value(&status, "cinder_backup_scrub_condition_restore_points{driver=\"posix\",condition=\"failed\"}"), 1.0);
    assert_eq!(value(&status, "cinder_backup_scrub_verified_restore_points{driver=\"posix\",level=\"deep\"}"), 1.0);
    assert!(value(&doctor, "cinder_backup_doctor_checks{state=\"ok\"}") > 5.0);

    let written = [scan, check, run, status, doctor].concat();
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (rules, dashboard) = (read("deploy/prometheus/alerts.yml"), read("deploy/grafana/cinder-backups.json"));
    let names: BTreeSet<String> = used(&written);
    assert_eq!(used(&dashboard), names, "the dashboard shows every metric");
    assert_eq!(used(&read("docs/monitoring.md")), names, "the page lists every metric");
    assert_eq!(used(&rules).difference(&names).next(), None, "alerts use only metrics that are written");
    // The labels that queries select, and their values.
    for (label, values) in selectors(&(rules + &dashboard.replace("\\\"", "\""))) {
        for value in values.split('|').filter(|value| !value.contains(['$', '.', '*'])) {
            assert!(written.contains(&format!("{label}=\"{value}\"")), "no metric has {label}=\"{value}\"");
        }
    }
}

/// `label="value"` and `label=~"value|value"` in queries.
fn selectors(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for label in ["verdict", "state", "condition", "result", "level", "command", "driver"] {
        for rest in text.split(&format!("{label}=")).skip(1) {
            let value = rest.trim_start_matches('~').strip_prefix('"').and_then(|rest| rest.split('"').next()).unwrap();
            found.push((label.to_owned(), value.to_owned()));
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

#[test]
fn promtool_accepts_the_metrics_of_empty_and_hostile_databases() {
    servers::refuse_in_fast_run("promtool");
    let database = fresh(Engine::Sqlite, Columns::Full);
    let program = Program::on(database.url());
    let empty = metrics(&program, 0, &["scan"]);
    assert_eq!(value(&empty, "cinder_backup_findings{verdict=\"stuck\"}"), 0.0);
    metrics(&program, 0, &["check", "--all", "--storage-path", "."]);
    metrics(&program, 0, &["doctor"]);
    metrics(&program, 0, &[&["scrub", "run", "--storage-path", "."] as &[&str], &LEDGER].concat());
    metrics(&program, 0, &[&["scrub", "status"] as &[&str], &LEDGER].concat());

    // Names of hosts and drivers as they never should be. Case does not tell hosts apart, and an @ begins a pool.
    let mut names = names();
    names.extend(["a\\nb", "a\nb", "quote\"d", "back\\", "other"].map(str::to_owned));
    for name in names.iter().filter(|name| !name.is_empty() && !name.contains(['@', '#'])) {
        database.service(name, |row| row.age(TWO_HOURS));
        database.backup(|row| row.status("creating").host(name).display_name(name.as_str()).age(TWO_HOURS));
        database.backup(|row| row.status("available").host(name).service(name).container(name));
    }
    for host in 0..60 {
        database.service(&format!("node{host}"), |row| row.age(host));
    }
    let hostile = metrics(&program, 0, &["scan", "--older-than", "0"]);
    let hosts = hostile.lines().filter(|line| line.starts_with("cinder_backup_heartbeat_age_seconds{")).count();
    assert_eq!(hosts, 51);
    // A host that is really called so is one of the others.
    assert!(value(&hostile, "cinder_backup_heartbeat_age_seconds{host=\"other\"}") >= 7_200.0);
    for text in [
        metrics(&program, 9, &["check", "--all", "--storage-path", "."]),
        metrics(&program, 4, &[&["scrub", "run", "--storage-path", "."] as &[&str], &LEDGER].concat()),
        metrics(&program, 0, &[&["scrub", "status"] as &[&str], &LEDGER].concat()),
    ] {
        assert!(!text.contains("DROP TABLE"), "{text}");
        assert!(text.lines().filter(|line| line.contains("driver=")).all(|line| line.contains("driver=\"other\"")), "{text}");
    }
}

#[test]
fn promtool_accepts_the_alerts_and_each_fires_and_does_not() {
    servers::refuse_in_fast_run("promtool");
    let folder = root().join("deploy/prometheus");
    run(Command::new("promtool").args(["check", "rules", "alerts.yml"]).current_dir(&folder));
    run(Command::new("promtool").args(["test", "rules", "alerts_test.yml"]).current_dir(&folder));
    let read = |name: &str| serde_norway::from_str::<Value>(&fs::read_to_string(folder.join(name)).unwrap()).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let cases: Vec<&Value> =
        tests["tests"].as_array().unwrap().iter().flat_map(|test| test["alert_rule_test"].as_array().unwrap()).collect();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        for fires in [true, false] {
            let is_tested = cases.iter().any(|case| case["alertname"] == rule["alert"] && case["exp_alerts"].is_array() == fires);
            assert!(is_tested, "{}: no test in which it fires={fires}", rule["alert"]);
        }
    }
}

#[test]
fn promtool_is_not_needed_to_see_that_grafanas_types_know_every_field_of_the_dashboard() {
    servers::refuse_in_fast_run("Grafana's types");
    let text = fs::read_to_string(root().join("deploy/grafana/cinder-backups.json")).unwrap();
    let unknown = |text: &str| {
        let mut python = Command::new(root().join(".cache/deploy-venv/bin/python"));
        let python = python.arg(root().join("tests/grafana/dashboard.py"));
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(unknown(&text), "");
    assert_eq!(unknown(&text.replacen("\"graphMode\"", "\"grafMode\"", 1)), ".panels[0].options.grafMode");
    // Panels have ids of their own and do not overlap.
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24);
        (x..x + w).for_each(|x| (y..y + h).for_each(|y| assert!(cells.insert((x, y)), "{}", panel["title"])));
    }
}

#[test]
fn a_failed_run_leaves_no_results_in_the_file() {
    let site = site();
    let path = site.program.path("out.prom");
    let read = || fs::read_to_string(&path).unwrap();
    site.program.expect(0, &["scan", "--prometheus", "out.prom"]);
    assert!(read().contains("cinder_backup_findings"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let before = value(&read(), "cinder_backup_last_run_timestamp_seconds{command=\"scan\"}");
    let url = "mysql+pymysql://cinder@127.0.0.1:1/cinder";
    let failed = answer(&mut bare(&["scan", "--database-url", url, "--prometheus", path.to_str().unwrap()]));
    assert_eq!(failed.code, Some(10));
    let after = read();
    assert!(!after.contains("cinder_backup_findings"), "{after}");
    assert!(value(&after, "cinder_backup_last_run_timestamp_seconds{command=\"scan\"}") >= before);
    assert_eq!(value(&after, "cinder_backup_last_run_success{command=\"scan\"}"), 0.0);
    assert_eq!(value(&after, "cinder_backup_last_run_exit_code{command=\"scan\"}"), 10.0);
    // Nothing but the file is left.
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    let refused = |to: &str, says: &str| {
        let refused = site.program.expect(2, &["scan", "--prometheus", to]);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    };
    symlink(&path, site.program.path("link.prom")).unwrap();
    refused("link.prom", "is not a regular file: name a file that may be replaced");
    assert!(fs::symlink_metadata(site.program.path("link.prom")).unwrap().is_symlink(), "the link was replaced");
    // A pipe stands for every device: a mistake must not cost the machine its /dev/null.
    run(Command::new("mkfifo").arg(site.program.path("pipe.prom")));
    refused("pipe.prom", "is not a regular file");
    assert!(!fs::symlink_metadata(site.program.path("pipe.prom")).unwrap().is_file(), "the pipe was replaced");
    refused("nowhere/out.prom", "cannot write nowhere/out.prom: No such file or directory");
}

/// The line of a plugin: its state and what follows.
#[track_caller]
fn plugin(answer: &Answer, command: &str) -> (String, String) {
    assert_eq!((answer.stdout.lines().count(), answer.stderr.as_str()), (1, ""), "{}", answer.stdout);
    assert!(answer.stdout.ends_with('\n') && answer.stdout.matches('|').count() <= 1, "{}", answer.stdout);
    let rest = answer.stdout.strip_prefix(&format!("CINDER BACKUP {command} ")).unwrap_or_else(|| panic!("{}", answer.stdout));
    let (state, text) = rest.split_once(" - ").unwrap();
    let expected = ["OK", "WARNING", "CRITICAL", "UNKNOWN"].iter().position(|name| *name == state).unwrap();
    assert_eq!(answer.code, i32::try_from(expected).ok(), "{}", answer.stdout);
    if let Some((_, data)) = text.trim_end().split_once(" | ") {
        for item in data.split(' ') {
            let (label, numbers) = item.split_once('=').unwrap();
            assert!(label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{label}");
            let numbers: Vec<&str> = numbers.split(';').collect();
            assert!(numbers.len() == 4 && numbers[0].parse::<u64>().is_ok(), "{item}");
        }
    }
    (state.to_owned(), text.trim_end().to_owned())
}

#[test]
fn a_plugin_prints_one_line_and_its_exit_code_says_how_it_is() {
    let site = Site::new();
    let says = |args: &[&str], command: &str| plugin(&site.program.run(&[args, &["--nagios"]].concat()), command);
    let scrub = |verb: &'static str| [&["scrub", verb] as &[&str], &LEDGER].concat();
    assert_eq!(says(&["scan"], "SCAN").0, "OK");
    assert_eq!(says(&["check", "--all"], "CHECK-QUICK").0, "OK");
    let good = site.available();
    assert_eq!(says(&scrub("run"), "SCRUB-RUN").0, "OK");
    assert_eq!(says(&scrub("status"), "SCRUB-STATUS").0, "OK");
    site.program.expect(0, &scrub("pause"));
    assert_eq!(says(&scrub("run"), "SCRUB-RUN").0, "WARNING");
    assert_eq!(says(&scrub("status"), "SCRUB-STATUS").0, "WARNING");
    site.program.expect(0, &scrub("resume"));
    let stuck = site.creating();
    site.silence();
    let (state, text) = says(&["scan", "-v"], "SCAN");
    assert_eq!(
        (state.as_str(), text.as_str()),
        ("CRITICAL", "1 stuck (of 2 live backups) | stuck=1;;;0 uncertain=0;;;0 inconsistent=0;;;0 busy=0;;;0 recent=0;;;0 live=2;;;0",)
    );
    site.database.execute(&format!("DELETE FROM backups WHERE id = '{}'", stuck.id));
    good.damage();
    assert_eq!(says(&["check", "--all", "--level", "deep"], "CHECK-DEEP").0, "CRITICAL");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert_eq!(says(&[&scrub("run") as &[&str], &["--max-age", "1s"]].concat(), "SCRUB-RUN").0, "CRITICAL");
    assert_eq!(says(&scrub("status"), "SCRUB-STATUS").0, "CRITICAL");
    let (state, text) = says(&["doctor", "--no-storage"], "DOCTOR");
    assert!(state == "WARNING" && text.contains("ok="), "{text}");
}

#[test]
fn a_plugin_that_fails_is_unknown() {
    let site = Site::new();
    let unknown = |answer: &Answer, command: &str, says: &str| {
        let (state, text) = plugin(answer, command);
        assert!(state == "UNKNOWN" && text.contains(says), "{state} {text}");
    };
    let refused = "mysql+pymysql://cinder@127.0.0.1:1/cinder";
    let bare = |args: &[&str]| answer(&mut bare(&[args, &["--nagios"]].concat()));
    for (args, command) in [(&["scan"] as &[&str], "SCAN"), (&["check", "--all"], "CHECK-QUICK")] {
        unknown(&bare(&[args, &["--database-url", refused]].concat()), command, "127.0.0.1:1");
        unknown(&bare(args), command, "CINDER_DATABASE_URL is not set");
    }
    unknown(&site.program.run(&["scrub", "status", "--ledger", "none", "--nagios"]), "SCRUB-STATUS", "none");
    unknown(&site.program.run(&["scan", "--status", "a|b\nc", "--nagios"]), "SCAN", "is not a status");
    unknown(&bare(&["scan", "--unknown"]), "", "unexpected argument '--unknown' found");
    unknown(&bare(&["scan", "--older-than", "5q"]), "", "is not a time span");
    unknown(&bare(&["scan", "-f", "json"]), "", "cannot be used with");
    unknown(&bare(&["plan"]), "", "unexpected argument '--nagios' found");
    // A storage that nobody listens at, and a signal.
    let (slow, server, _) = bucket(3);
    server.delay.store(SILENT, Ordering::SeqCst);
    let child = slow.program.start(&["check", "--all", "--nagios", "--prometheus", "out.prom"]);
    wait_until("request", || !server.requests.lock().unwrap().is_empty());
    send(&child, Signal::INT);
    unknown(&end(child), "CHECK-QUICK", "stopped by a signal");
    let metrics = fs::read_to_string(slow.program.path("out.prom")).unwrap();
    assert_eq!(value(&metrics, "cinder_backup_last_run_exit_code{command=\"check-quick\"}"), 130.0);
    assert!(!metrics.contains("cinder_backup_check_backups"), "{metrics}");
    let nobody = ["check", "--all", "--storage-option", "backup_s3_endpoint_url=http://127.0.0.1:1", "--storage-timeout", "1s", "--nagios"];
    unknown(&slow.program.run(&nobody), "CHECK-QUICK", "unreachable=3;;;0");
}
