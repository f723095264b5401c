//! Tests of the harness that the other tests use.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use cinder_backup_repair::db::Engine;
use rustix::process::Pid;

use crate::cinder;
use crate::database::{Account, Change, Database, TABLES, changes};
use crate::population;
use crate::rows::{Cell, ago};
use crate::schemas::{Columns, ENGINES, SQLITE_SCHEMA, engines, fresh, synced_schema};
use crate::servers::certificates::Certificates;
use crate::servers::mariadb::Plugin;
use crate::servers::{self, Server, ServerName, Transport};

/// Set for the process that [`servers_end_with_a_killed_process`] kills.
const HOLD: &str = "CINDER_TEST_HOLD_SERVERS";

#[test]
fn the_committed_schema_equals_the_one_that_cinder_creates() {
    let path = servers::root().join(SQLITE_SCHEMA);
    let committed = fs::read_to_string(&path).unwrap();
    let made = synced_schema(&Database::empty(Engine::Sqlite, None));
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        let heading = committed.lines().next().unwrap();
        let lines: Vec<&str> = [heading].into_iter().chain(made.lines().map(str::trim_end)).collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        return;
    }
    assert_eq!(tables(&committed), tables(&made), "run this test with UPDATE_SCHEMA=1");
}

/// The sorted lines of each CREATE statement, because the order of foreign keys varies. Rows are left out, because they have times and
/// random ids.
fn tables(script: &str) -> Vec<Vec<&str>> {
    let statements = script.split(";\n").filter(|statement| statement.starts_with("CREATE "));
    statements
        .map(|statement| {
            let mut lines: Vec<&str> = statement.lines().map(|line| line.trim_end_matches([',', ' '])).collect();
            lines.sort_unstable();
            lines
        })
        .collect()
}

#[test]
fn every_engine_has_the_real_schema() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        for table in TABLES {
            assert!(database.has_table(table), "{engine:?}: no {table}");
        }
        let revision = database.value("SELECT version_num FROM alembic_version");
        assert_eq!(revision.as_deref(), Some("9c74c1c6971f"), "{engine:?}");
        assert_eq!(database.tables().len(), 36, "{engine:?}");
        let plan = database.query("SELECT name FROM volume_types");
        assert_eq!(plan, [[Some("__DEFAULT__".to_owned())]], "{engine:?}");
    }
}

#[test]
fn older_column_sets_lack_later_columns() {
    for engine in engines() {
        let has = |columns, table: &str, column: &str| fresh(engine, columns).has_column(table, column);
        for columns in Columns::ALL {
            assert!(has(columns, "backups", "service_metadata"), "{engine:?} {columns:?}");
            assert_eq!(has(columns, "backups", "encryption_key_id"), columns == Columns::Full, "{engine:?} {columns:?}");
            assert_eq!(has(columns, "backups", "restore_volume_id"), columns <= Columns::Mitaka, "{engine:?} {columns:?}");
            assert_eq!(has(columns, "backups", "parent_id"), columns <= Columns::Liberty, "{engine:?} {columns:?}");
            assert_eq!(has(columns, "volumes", "previous_status"), columns <= Columns::Liberty, "{engine:?} {columns:?}");
            assert_eq!(has(columns, "volumes", "attached_host"), columns == Columns::Juno, "{engine:?} {columns:?}");
            assert_eq!(has(columns, "volume_attachment", "id"), columns != Columns::Juno, "{engine:?} {columns:?}");
            let database = fresh(engine, columns);
            if let Some(version) = columns.migrate_version() {
                let found = database.value("SELECT version FROM migrate_version WHERE repository_id = 'cinder'");
                assert_eq!(found, Some(version.to_string()), "{engine:?} {columns:?}");
                assert!(!database.has_table("alembic_version"), "{engine:?} {columns:?}");
            }
        }
    }
}

#[test]
fn rows_go_into_every_column_set() {
    for engine in engines() {
        for columns in Columns::ALL {
            let database = fresh(engine, columns);
            let volume = database.volume(|row| row.status("backing-up").previous_status("in-use"));
            database.attachment(&volume, |row| row);
            let snapshot = database.snapshot(&volume, |row| row.status("backing-up"));
            let backup = database
                .backup(|row| row.status("creating").host("ctl1").volume_id(&volume).snapshot_id(&snapshot).display_name("a\\'b\"`\n"));
            database.service("ctl1", |row| row.updated_at(ago(7200)));
            database.quota_usage("backups", 1, |row| row);
            let name = database.cell("backups", &backup, "display_name");
            assert_eq!(name.as_deref(), Some("a\\'b\"`\n"), "{engine:?} {columns:?}");
            if columns == Columns::Juno {
                let attached = database.cell("volumes", &volume, "attached_host");
                assert_eq!(attached.as_deref(), Some("compute1"), "{engine:?}");
            }
            let dump = database.dump();
            assert!(dump.contains(&format!("backups {backup}\n")), "{engine:?} {columns:?}: {dump}");
            assert!(dump.contains("    binary = \"cinder-backup\"\n"), "{engine:?} {columns:?}: {dump}");
        }
    }
}

#[test]
fn times_are_relative_to_the_servers_utc_clock() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let backup = database.backup(|row| row.age(3600));
        let age = match engine {
            Engine::Sqlite => "strftime('%s', 'now') - strftime('%s', created_at)",
            Engine::Postgresql => "EXTRACT(EPOCH FROM timezone('UTC', now()) - created_at)::int",
            Engine::Mysql | Engine::Mariadb => "TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP())",
        };
        let age = database.cell("backups", &backup, age).expect("a number");
        let age: i64 = age.parse().expect("whole seconds");
        assert!((3600..3660).contains(&age), "{engine:?}: {age}");
    }
}

#[test]
fn a_copy_has_the_same_rows_and_is_independent() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let backup = database.backup(|row| row.status("creating").fail_reason(Cell::Null));
        let copy = database.copy();
        assert_eq!(copy.dump(), database.dump(), "{engine:?}");
        copy.execute("UPDATE backups SET status = 'error', fail_reason = 'so'");
        assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("creating"), "{engine:?}");
        let change = |column: &str, from: Option<&str>, to: &str| Change {
            table: "backups".to_owned(),
            id: backup.clone(),
            column: column.to_owned(),
            from: from.map(str::to_owned),
            to: Some(to.to_owned()),
        };
        assert_eq!(
            changes(&database.rows_by_id(), &copy.rows_by_id()),
            [change("fail_reason", None, "so"), change("status", Some("creating"), "error")],
            "{engine:?}"
        );
    }
}

#[test]
fn a_dropped_database_is_gone() {
    for engine in engines() {
        let stays = fresh(engine, Columns::Full);
        let goes = fresh(engine, Columns::Full);
        let exists = |name: &str| match engine {
            Engine::Sqlite => stays.path().with_file_name(format!("{name}.sqlite")).exists(),
            Engine::Postgresql => !stays.query(&format!("SELECT 1 FROM pg_database WHERE datname = '{name}'")).is_empty(),
            Engine::Mysql | Engine::Mariadb => !stays.query(&format!("SHOW DATABASES LIKE '{name}'")).is_empty(),
        };
        let name = goes.name().to_owned();
        assert!(exists(&name), "{engine:?}");
        drop(goes);
        assert!(!exists(&name), "{engine:?}");
        assert!(exists(stays.name()), "{engine:?}");
    }
}

#[test]
fn a_seed_gives_the_same_population_everywhere() {
    let population = population::generate(7, 120);
    assert_eq!(population.rows, population::generate(7, 120).rows);
    assert_ne!(population.rows, population::generate(8, 120).rows);
    let shape = |engine| {
        let database = fresh(engine, Columns::Full);
        database.insert(&population.rows);
        database.query("SELECT id, status, host, volume_id, parent_id, temp_volume_id FROM backups ORDER BY id")
    };
    let first = shape(Engine::Sqlite);
    assert_eq!(first.len(), 120);
    for engine in engines() {
        assert_eq!(shape(engine), first, "{engine:?}");
    }
    for status in ["creating", "restoring", "deleting", "error_deleting"] {
        assert!(first.iter().any(|row| row[1].as_deref() == Some(status)), "no backup is {status}");
    }
    assert!(first.iter().any(|row| row[1].is_none()), "no backup's status is NULL");
}

#[test]
fn the_real_clean_up_sets_a_stuck_backup_to_error() {
    for engine in engines() {
        let database = fresh(engine, Columns::Full);
        let volume = database.volume(|row| row.status("backing-up").previous_status("in-use"));
        let temporary = database.volume(|row| row.status("backing-up").display_name(format!("backup-vol-{volume}")));
        let backup =
            database.backup(|row| row.status("creating").host("ctl1").volume_id(&volume).temp_volume_id(&temporary).display_name("für"));
        let deleting = database.backup(|row| row.status("deleting").host("ctl1"));
        let elsewhere = database.backup(|row| row.status("creating").host("ctl2"));
        let restored = database.volume(|row| row.status("restoring-backup"));
        let attachment =
            database.attachment(&restored, |row| row.instance_uuid(Cell::Null).attached_host("ctl1").attach_status("attached"));
        let restoring = database.backup(|row| row.status("restoring").host("ctl1").restore_volume_id(&restored));
        database.disconnect();

        let done = cinder::clean_up(&database.url(), &["ctl1"]);

        let status = |table: &str, id: &str| database.cell(table, id, "status").unwrap_or_default();
        assert_eq!(status("backups", &backup), "error", "{engine:?}");
        let reason = database.cell("backups", &backup, "fail_reason");
        assert_eq!(reason.as_deref(), Some("incomplete backup reset on manager restart"), "{engine:?}");
        assert_eq!(database.cell("backups", &backup, "temp_volume_id"), None, "{engine:?}");
        assert_eq!(status("volumes", &volume), "in-use", "{engine:?}");
        assert_eq!(status("backups", &deleting), "deleted", "{engine:?}");
        assert_eq!(status("backups", &elsewhere), "creating", "{engine:?}");
        assert_eq!(status("backups", &restoring), "available", "{engine:?}");
        assert_eq!(status("volumes", &restored), "error_restoring", "{engine:?}");
        assert_eq!(done.deleted_data, std::slice::from_ref(&deleting), "{engine:?}");
        assert_eq!(done.problems, [] as [&str; 0], "{engine:?}");
        assert_eq!(done.rows, 3, "{engine:?}");
        let calls: Vec<String> = done.rpc.iter().map(ToString::to_string).collect();
        let expected = [
            format!(r#"{{"call":"delete_volume","volume_id":"{temporary}"}}"#),
            format!(r#"{{"call":"detach_volume","volume_id":"{restored}","attachment_id":"{attachment}"}}"#),
        ];
        assert!(expected.iter().all(|call| calls.contains(call)) && calls.len() == 2, "{engine:?}: {calls:?}");
    }
}

#[test]
fn the_real_clean_up_reports_the_errors_that_it_ignores() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let foreign = "cinder.backup.drivers.nfs.NFSBackupDriver";
    let backup = database.backup(|row| row.status("deleting").host("ctl1").service(foreign));
    let done = cinder::clean_up(&database.url(), &["ctl1"]);
    assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("error"));
    let [problem] = done.problems.as_slice() else {
        panic!("expected one problem: {:?}", done.problems);
    };
    assert!(problem.starts_with(&format!("Problem cleaning up backup {backup}. InvalidBackup: ")), "{problem}");
}

#[test]
fn the_real_clean_up_survives_every_population() {
    for engine in ENGINES {
        let database = fresh(engine, Columns::Full);
        let population = population::generate(3, 200);
        database.insert(&population.rows);
        database.disconnect();
        let before = database.rows_by_id();
        let done = cinder::clean_up(&database.url(), &[population::DOWN, population::GONE]);
        let after = database.rows_by_id();
        eprintln!("{engine:?}: {} rows in {} s", done.rows, done.seconds);
        assert!(done.rows > 20, "{engine:?}: only {} rows", done.rows);
        for ((table, id), cells) in &after {
            let host = cells.get("host").cloned().flatten();
            if table == "backups" && host.as_deref() == Some(population::UP) {
                assert_eq!(Some(cells), before.get(&(table.clone(), id.clone())), "{engine:?}: another host's backup");
            }
        }
        assert!(!changes(&before, &after).is_empty(), "{engine:?}: nothing changed");
    }
}

#[test]
fn test_accounts_have_only_the_granted_privileges() {
    for engine in engines() {
        let Some(server) = servers::server(engine) else {
            continue;
        };
        let database = fresh(engine, Columns::Full);
        database.backup(|row| row);
        let grants = match engine {
            Engine::Postgresql => "GRANT SELECT ON backups TO {user}",
            _ => "GRANT SELECT ON {database}.backups TO {user}",
        };
        let account = database.account_with(grants, Plugin::Default, Transport::Any);
        let run = |sql: &str| -> Result<(), String> {
            if engine == Engine::Postgresql {
                let password = Some(account.password.as_str());
                let mut client = servers::postgresql::connect(&server.socket, server.port, &account.user, password, database.name())
                    .ok_or("no connection")?;
                return client.batch_execute(sql).map_err(|error| format!("{error:?}"));
            }
            use mysql::prelude::Queryable;
            let mut connection =
                servers::mariadb::connect(&server.socket, &account.user, Some(&account.password)).ok_or("no connection")?;
            connection.select_db(database.name()).map_err(|error| error.to_string())?;
            connection.query_drop(sql).map_err(|error| error.to_string())
        };
        run("SELECT id FROM backups").unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let refused = run("UPDATE backups SET status = 'error'").expect_err("only SELECT was granted");
        assert!(refused.contains("denied"), "{engine:?}: {refused}");
    }
}

/// Reads the cipher with the databases' own clients, which do not use this project's code. `Err` has the client's message.
fn cipher(account: &Account, server: &Server, certificate: bool) -> Result<String, String> {
    let certificates = Certificates::get();
    let (client, key) = certificates.client();
    // libpq requires a key that only its owner can read.
    Command::new("chmod").arg("600").arg(&key).status().expect("chmod");
    let authority = certificates.authority();
    let output = if server.engine == Engine::Postgresql {
        let mut words = format!(
            "host=localhost port={} user={} dbname=postgres sslmode=verify-full sslrootcert={}",
            server.port,
            account.user,
            authority.display()
        );
        if certificate {
            words.push_str(&format!(" sslcert={} sslkey={}", client.display(), key.display()));
        }
        Command::new(servers::postgresql::program("psql"))
            .args(["-AtXc", "SELECT cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &words])
            .env("PGPASSWORD", &account.password)
            // libpq uses a client certificate from there if none is given.
            .env("HOME", crate::schemas::scratch("home"))
            .output()
    } else {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "--protocol=tcp", "--host=localhost", "--ssl-verify-server-cert", "-BN"])
            .arg(format!("--port={}", server.port))
            .arg(format!("--user={}", account.user))
            .arg(format!("--password={}", account.password))
            .arg(format!("--ssl-ca={}", authority.display()))
            .args(["-e", "SHOW STATUS LIKE 'Ssl_cipher'"]);
        if certificate {
            command.arg(format!("--ssl-cert={}", client.display()));
            command.arg(format!("--ssl-key={}", key.display()));
        }
        command.output()
    };
    let output = output.expect("tests/run installs the clients with the servers");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn servers_use_tls_and_can_require_a_client_certificate() {
    for engine in engines() {
        let Some(server) = servers::server(engine) else {
            continue;
        };
        let database = fresh(engine, Columns::Full);
        let tls = database.account_with("", Plugin::Default, Transport::Tls);
        let answer = cipher(&tls, server, false).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert!(answer.contains("AES") || answer.contains("CHACHA20"), "{engine:?}: {answer}");

        let strict = database.account_with("", Plugin::Default, Transport::ClientCertificate);
        cipher(&strict, server, true).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        cipher(&strict, server, false).expect_err("no client certificate was shown");
    }
}

#[test]
fn a_certificate_can_have_another_name() {
    let mariadb = servers::mariadb::start(&servers::mariadb::Settings { certificate: ServerName::Elsewhere, ..Default::default() });
    let postgresql =
        servers::postgresql::start(&servers::postgresql::Settings { certificate: ServerName::Elsewhere, ..Default::default() });
    for server in [&mariadb, &postgresql] {
        let admin = Account {
            url: String::new(),
            socket_url: String::new(),
            user: servers::ADMIN.to_owned(),
            password: servers::ADMIN_PASSWORD.to_owned(),
        };
        let refused = cipher(&admin, server, false).expect_err("the name in the certificate is another");
        let told = refused.to_lowercase();
        assert!(told.contains("certificate"), "{:?}: {refused}", server.engine);
    }
}

#[test]
fn galera_replicates_to_all_nodes() {
    use mysql::prelude::Queryable;
    let nodes = servers::galera::start();
    let connect =
        |server: &Server| servers::mariadb::connect(&server.socket, servers::ADMIN, Some(servers::ADMIN_PASSWORD)).expect("a node answers");
    let mut first = connect(&nodes[0]);
    first.query_drop("CREATE DATABASE cinder").expect("the cluster is writable");
    first.query_drop("CREATE TABLE cinder.t (id int PRIMARY KEY)").expect("the cluster is writable");
    first.query_drop("INSERT INTO cinder.t VALUES (1)").expect("the cluster is writable");
    for node in &nodes {
        let mut connection = connect(node);
        connection.query_drop("SET SESSION wsrep_sync_wait = 1").expect("a node of a cluster");
        let row: Option<i64> = connection.query_first("SELECT id FROM cinder.t").expect("the table is there");
        assert_eq!(row, Some(1));
        let size: Option<(String, String)> = connection.query_first("SHOW STATUS LIKE 'wsrep_cluster_size'").expect("a node of a cluster");
        assert_eq!(size.map(|(_, size)| size).as_deref(), Some("3"));
    }
}

#[test]
fn a_killed_server_restarts() {
    let mariadb = servers::mariadb::start(&servers::mariadb::Settings::default());
    mariadb.process.kill();
    assert!(!mariadb.process.is_running());
    mariadb.process.start(&|| servers::mariadb::connect(&mariadb.socket, "root", None).is_some());

    let postgresql = servers::postgresql::start(&servers::postgresql::Settings::default());
    postgresql.process.kill();
    let ready = || servers::postgresql::connect(&postgresql.socket, postgresql.port, "postgres", None, "postgres").is_some();
    assert!(!ready());
    postgresql.process.start(&ready);

    let (dirs, pids) = (
        [&mariadb, &postgresql].map(|s| s.process.dir().to_owned()),
        [mariadb.process.pid().expect("running"), postgresql.process.pid().expect("running")],
    );
    drop((mariadb, postgresql));
    for (dir, pid) in dirs.iter().zip(pids) {
        assert!(!dir.exists() && !alive(pid), "{} is still there", dir.display());
    }
}

/// The child process of [`servers_end_with_a_killed_process`]: starts every server, writes their folders and process ids to a file, and
/// waits to be killed.
#[test]
fn hold_servers_until_killed() {
    let Some(file) = std::env::var_os(HOLD) else {
        // With the other tests, it only shows that the servers answer.
        for engine in engines() {
            assert_eq!(fresh(engine, Columns::Full).value("SELECT COUNT(*) FROM backups").as_deref(), Some("0"));
        }
        return;
    };
    let mut lines = format!("{} 0\n", servers::shared_dir().display());
    for server in engines().into_iter().filter_map(servers::server) {
        let pid = server.process.pid().expect("a running server");
        lines.push_str(&format!("{} {}\n", server.process.dir().display(), pid.as_raw_nonzero()));
    }
    let unfinished = std::path::PathBuf::from(&file).with_extension("new");
    fs::write(&unfinished, lines).expect("the parent made the folder");
    fs::rename(&unfinished, &file).expect("the parent made the folder");
    thread::sleep(Duration::from_secs(300));
    panic!("this process was not killed");
}

#[test]
fn servers_end_with_a_killed_process() {
    let file = crate::schemas::scratch("hold").join("servers");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "harness::hold_servers_until_killed", "--test-threads=1"])
        .env(HOLD, &file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts");
    let begun = Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < Duration::from_secs(280), "the servers do not start");
        assert!(child.try_wait().expect("our child").is_none(), "the process ended by itself");
        thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("our child");
    child.wait().expect("our child");

    let servers = fs::read_to_string(&file).expect("just written");
    let servers: Vec<(&str, Option<Pid>)> = servers
        .lines()
        .map(|line| {
            let (dir, pid) = line.split_once(' ').expect("a folder and a number");
            (dir, Pid::from_raw(pid.parse().expect("a number")))
        })
        .collect();
    assert!(servers.len() >= 3, "at least a folder and two servers: {servers:?}");
    let begun = Instant::now();
    while servers.iter().any(|(dir, pid)| fs::exists(dir).unwrap_or(true) || pid.is_some_and(alive)) {
        assert!(begun.elapsed() < Duration::from_secs(30), "left behind: {servers:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn alive(pid: Pid) -> bool {
    servers::is_alive(pid)
}
