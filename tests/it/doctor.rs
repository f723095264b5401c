//! `doctor`: what it says of a healthy installation, and of everything that can be wrong with one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::database::Database;
use crate::guards::grants;
use crate::program::{Answer, Program};
use crate::real_backups::Store;
use crate::rows::ago;
use crate::schemas::{Columns, engines, fresh, on_server};
use crate::servers::storage::PASSWORD;
use crate::servers::{self, swift};

const TWO_HOURS: i64 = 7_200;

/// The states, texts and advice of a topic.
pub fn lines<'d>(document: &'d Value, topic: &str) -> Vec<[&'d str; 3]> {
    let checks = document["checks"].as_array().expect("a list").iter().filter(|check| check["topic"] == topic);
    checks.map(|check| ["state", "text", "advice"].map(|field| check[field].as_str().unwrap_or_default())).collect()
}

/// The only line of a topic.
#[track_caller]
fn line<'d>(document: &'d Value, topic: &str) -> [&'d str; 3] {
    let [line] = lines(document, topic).try_into().unwrap_or_else(|lines| panic!("{topic}: {lines:?}"));
    line
}

/// A database with an available backup on posix, and the options for its storage.
fn with_a_backup(database: &Database, program: &Program) -> [String; 2] {
    let store = program.path("store");
    fs::create_dir(&store).unwrap();
    database.service("ctl1", |row| row.age(0));
    database
        .backup(|row| row.status("available").host("ctl1").service("cinder.backup.drivers.posix.PosixBackupDriver").container("ab/cd/x"));
    ["--storage-path".to_owned(), store.display().to_string()]
}

#[test]
fn a_healthy_installation_has_no_failure_and_nothing_is_changed() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let program = Program::on(database.url());
        fs::write(program.path("cinder.conf"), "[DEFAULT]\nreport_interval = 1\nservice_down_time = 4\n").unwrap();
        // While the server has just started, doctor warns that a missing heartbeat proves nothing.
        let begun = Instant::now();
        while line(&program.json(0, &["doctor", "--no-storage"]), "clock")[0] == "warning" {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", engine.name());
            sleep(Duration::from_millis(200));
        }
        let [option, store] = with_a_backup(&database, &program);
        let before = database.dump();
        let document = program.json(0, &["doctor", &option, &store]);
        // The tests' servers do not wait for the disk.
        let weak = match engine {
            Engine::Sqlite => None,
            Engine::Postgresql => Some("fsync is off:"),
            _ => Some("innodb_flush_log_at_trx_commit is 0:"),
        };
        let warnings = usize::from(weak.is_some());
        assert_eq!(document["summary"], serde_json::json!({ "ok": 13 - warnings, "warnings": warnings, "failures": 0 }), "{document:#}");
        let [state, text, _] = line(&document, "durability");
        assert!(weak.map_or(state == "ok", |weak| state == "warning" && text.starts_with(weak)), "{state} {text}");
        assert!(line(&document, "server")[1].contains(engine.name()), "{document:#}");
        assert!(line(&document, "storage")[1].contains(&store), "{document:#}");
        assert_eq!(document["database"]["engine"], engine.name());
        assert!(!program.log().exists(), "the log is not made");
        assert_eq!(database.dump(), before);
        let Answer { stdout, stderr, .. } = program.expect(0, &["doctor", &option, &store]);
        assert_eq!(stdout.lines().filter(|line| line.starts_with("ok  ")).count(), 13 - warnings, "{stdout}");
        let in_order = "everything that a repair needs is in order\n";
        assert_eq!(stderr, if warnings > 0 { "a repair can work; 1 warning\n" } else { in_order });
    }
}

#[test]
fn each_missing_privilege_is_named_with_its_grant() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        let account = |files: &[&str]| database.account(&files.iter().map(|file| grants(engine, file)).collect::<String>());
        let program = Program::on(account(&["scan"]));
        let document = program.json(0, &["doctor", "--no-storage"]);
        assert_eq!(line(&document, "privileges to read")[0], "ok", "{document:#}");
        let write = lines(&document, "privileges to write");
        assert!(write[0][0] == "warning" && write[0][1].ends_with("repair") && write[0][2].starts_with("GRANT UPDATE ("), "{write:?}");
        // With all grants there is nothing to say.
        let program = program.with_url(account(&["repair", "delete", "quotas", "rehost"]));
        let document = program.json(0, &["doctor", "--no-storage"]);
        assert_eq!(line(&document, "privileges to write")[0], "ok", "{document:#}");
        // An account that may read some of the tables.
        let scan = grants(engine, "scan");
        let without = scan.split_inclusive(';').filter(|grant| !grant.contains("snapshots")).collect::<String>();
        if without != scan {
            let program = program.with_url(database.account(&without));
            let answer = program.run(&["doctor", "--no-storage", "-f", "json"]);
            assert!(matches!(answer.code, Some(12 | 14)) && answer.stdout.contains("snapshots"), "{answer:?}");
        }
    }
}

#[test]
fn triggers_silent_hosts_and_a_log_that_was_changed_are_warnings() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        database.service("ctl1", |row| row);
        database.service("ctl2", |row| row.age(TWO_HOURS));
        database.execute(match engine {
            Engine::Sqlite => "CREATE TRIGGER audit AFTER UPDATE ON backups BEGIN SELECT 1; END",
            Engine::Postgresql => {
                "CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
                 CREATE TRIGGER audit AFTER UPDATE ON backups FOR EACH ROW EXECUTE FUNCTION noop()"
            }
            Engine::Mysql | Engine::Mariadb => "CREATE TRIGGER audit AFTER UPDATE ON backups FOR EACH ROW SET @nothing = 1",
        });
        let program = Program::on(database.url());
        fs::write(program.log(), "{\"edited\": true}\n").unwrap();
        fs::set_permissions(program.log(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let document = program.json(0, &["doctor", "--no-storage"]);
        assert_eq!(line(&document, "triggers")[..2], ["warning", "audit on backups"], "{document:#}");
        let [beating, silent] = lines(&document, "cinder-backup").try_into().unwrap();
        assert!(beating[1] == "1 host with recent heartbeats" && silent[1].contains("ctl2 (2 h)"), "{beating:?} {silent:?}");
        let log = line(&document, "audit log");
        assert!(log[0] == "warning" && log[2].contains("history verify"), "{log:?}");
    }
}

/// A scan gives a service whose heartbeats are far apart more time if no cinder.conf says how often it sends them.
#[test]
fn a_service_with_rare_heartbeats_is_not_silent() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    database.service("seldom", |row| row.created_at(ago(30_000)).updated_at(ago(400)).set("report_count", 100));
    let mut command = crate::program::bare(&["doctor", "--no-storage", "-f", "json", "--audit-log", "/nonexistent/log", "--database-url"]);
    let document = crate::program::answer(command.arg(database.url())).json();
    assert_eq!(line(&document, "cinder-backup")[..2], ["ok", "1 host with recent heartbeats"], "{document:#}");
}

#[test]
fn a_run_with_an_open_outcome_is_named_with_the_command_that_settles_it() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let program = Program::on(database.url());
    database.backup(|row| row.status("creating").age(TWO_HOURS));
    program.expect(0, &["repair", "--yes"]);
    let run = program.last_run();
    let log = fs::read_to_string(program.log()).unwrap();
    // As a kill between the intent and its outcome leaves it.
    let until = log.find("\"event\":\"outcome\"").map(|place| log[..place].rfind('\n').unwrap() + 1).expect("an outcome");
    fs::write(program.log(), &log[..until]).unwrap();
    let document = program.json(0, &["doctor", "--no-storage"]);
    let [state, text, advice] = line(&document, "audit log");
    assert!(state == "warning" && text.contains(&run) && advice.contains("history reconcile --audit-log"), "{text} {advice}");
}

#[test]
fn what_cannot_be_reached_is_a_failure_with_its_exit_code_and_the_rest_is_examined() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let program = Program::on(database.url());
    let [_, store] = with_a_backup(&database, &program);
    let missing = format!("{store}/missing");
    let document = program.json(4, &["doctor", "--storage-path", &missing]);
    let storage = line(&document, "storage");
    assert!(storage[0] == "failure" && storage[1].contains(&missing), "{storage:?}");
    assert_eq!(line(&document, "server")[0], "ok");
    // No server, no file, no configuration, no directory for the log.
    for (code, topic, args) in [
        (10, "server", ["--database-url", "mysql+pymysql://u:hidden@127.0.0.1:9/cinder"]),
        (10, "server", ["--database-url", "sqlite:////nonexistent/cinder.sqlite"]),
        (2, "configuration", ["--config-file", "/nonexistent/cinder.conf"]),
        (2, "audit log", ["--audit-log", "/dev/null"]),
    ] {
        let mut command = crate::program::bare(&["doctor", "--no-storage", "-f", "json"]);
        if topic == "audit log" {
            command.env("CINDER_DATABASE_URL", database.url());
        } else {
            command.arg("--audit-log").arg(program.log());
        }
        let answer = crate::program::answer(command.args(args));
        let document = answer.json();
        let failed: Vec<_> = document["checks"].as_array().unwrap().iter().filter(|check| check["state"] == "failure").collect();
        assert!(failed.len() == 1 && failed[0]["topic"] == topic && failed[0]["exit_code"] == code, "{document:#}");
        assert_eq!(answer.code, Some(code), "{document:#}");
        assert!(!answer.stdout.contains("hidden") && !answer.stderr.contains("hidden"), "{answer:?}");
    }
}

#[test]
fn each_container_is_examined_with_the_options_of_its_driver() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let server = servers::swift();
    let service = "cinder.backup.drivers.swift.SwiftBackupDriver";
    for container in ["doctor", "doctor-without-a-container"] {
        database.backup(|row| row.status("available").service(service).container(container));
    }
    let login = ureq::get(server.auth_url()).header("X-Auth-User", swift::USER).header("X-Auth-Key", PASSWORD).call().unwrap();
    let token = login.headers()["x-auth-token"].to_str().unwrap();
    ureq::put(format!("{}/doctor", server.storage_url())).header("X-Auth-Token", token).send_empty().unwrap();
    let program = Program::on(database.url());
    let flags = Store::swift(server, "doctor").flags();
    let args: Vec<&str> = ["doctor"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let document = program.json(4, &args);
    let found: Vec<&str> = lines(&document, "storage").iter().map(|line| line[0]).collect();
    assert_eq!(found, ["ok", "failure"], "{document:#}");
    let mut wrong = args.clone();
    wrong.extend(["--storage-option", "backup_swift_key=no"]);
    let document = program.json(4, &wrong);
    assert!(lines(&document, "storage").iter().all(|line| line[0] == "failure"), "{document:#}");
}

#[test]
fn settings_that_may_lose_a_commit_are_a_warning() {
    servers::refuse_in_fast_run("MariaDB");
    let weak = ["--innodb-flush-log-at-trx-commit=2", "--log-bin", "--server-id=1", "--sync-binlog=0"].map(str::to_owned);
    let settings = servers::mariadb::Settings { options: weak.to_vec(), ..Default::default() };
    let mariadb = on_server(Box::leak(Box::new(servers::mariadb::start(&settings))));
    let postgresql = fresh(Engine::Postgresql, Columns::Full);
    // The program's own sessions wait for the disk, whatever the database says.
    let name = postgresql.value("SELECT current_database()").unwrap();
    postgresql.execute(&format!("ALTER DATABASE \"{name}\" SET synchronous_commit = off"));
    for (database, expected) in [(mariadb, "innodb_flush_log_at_trx_commit is 2, sync_binlog is 0"), (postgresql, "fsync is off")] {
        let document = Program::on(database.url()).json(0, &["doctor", "--no-storage"]);
        let [state, text, advice] = line(&document, "durability");
        assert_eq!((state, text.split(": ").next()), ("warning", Some(expected)));
        assert!(text.contains("may undo the last repairs") && advice.contains("history reconcile"), "{text} {advice}");
    }
}

#[test]
fn a_table_has_each_line_at_once_while_a_storage_does_not_answer() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    database.service("ctl1", |row| row.age(0));
    database.backup(|row| row.status("available").service("cinder.backup.drivers.s3.S3BackupDriver").container("c"));
    let program = Program::on(database.url());
    // It accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("backup_s3_endpoint_url=http://{}", silent.local_addr().unwrap());
    let keys = ["backup_s3_store_access_key=a", "backup_s3_store_secret_key=s"];
    let mut child = program.start(&["doctor", "--storage-option", &url, "--storage-option", keys[0], "--storage-option", keys[1]]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let shown: Vec<String> = lines.by_ref().take_while(|line| !line.contains("cinder-backup: 1 host")).collect();
    assert!(shown.iter().any(|line| line.starts_with("ok       durability: ")), "{shown:#?}");
    assert!(child.try_wait().unwrap().is_none(), "it waits for the storage");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap();
    assert_eq!(lines.next(), None);
}
