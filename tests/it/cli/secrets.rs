//! A password is in no output, however it is given and whatever fails.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use cinder_backup_repair::db::Engine;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{files, stuck};
use crate::database::Database;
use crate::program::{Answer, Program, answer, bare};
use crate::schemas::{Columns, engines, fresh};
use crate::servers::mariadb::Plugin;
use crate::servers::{ADMIN, ADMIN_PASSWORD, Transport};

/// The ways to give a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Variable,
    Option,
    Environment,
    File,
    Configuration,
}

const WAYS: [Way; 5] = [Way::Variable, Way::Option, Way::Environment, Way::File, Way::Configuration];

/// A run with the password given in one of these ways.
fn run(way: Way, url: &Url<'_>, folder: &Path, args: &[&str]) -> Answer {
    let mut command = bare(args);
    command.current_dir(folder).args(["-v", "-v", "--audit-log", "audit.jsonl"]);
    let (with, without) = (url.with_password(), url.without_password());
    match way {
        Way::Variable => drop(command.env("CINDER_DATABASE_URL", with)),
        Way::Option => drop(command.args(["--database-url", &with])),
        Way::Environment => {
            let name = if url.scheme.starts_with("postgresql") { "PGPASSWORD" } else { "MYSQL_PWD" };
            command.env("CINDER_DATABASE_URL", without).env(name, url.password);
        }
        Way::File => {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), format!("{}\n", url.password)).unwrap();
            command.env("CINDER_DATABASE_URL", without).arg("--password-file").arg(file.path());
            return answer(&mut command);
        }
        Way::Configuration => {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), format!("[database]\nconnection = {}\n", with.replace('$', "$$"))).unwrap();
            command.arg("--config-file").arg(file.path());
            return answer(&mut command);
        }
    }
    answer(&mut command)
}

#[derive(Clone, Copy)]
struct Url<'u> {
    scheme: &'static str,
    user: &'u str,
    password: &'u str,
    host: &'u str,
    port: u16,
    database: &'u str,
}

impl Url<'_> {
    fn with_password(&self) -> String {
        let password = utf8_percent_encode(self.password, NON_ALPHANUMERIC);
        format!("{}://{}:{password}@{}:{}/{}", self.scheme, self.user, self.host, self.port, self.database)
    }

    fn without_password(&self) -> String {
        format!("{}://{}@{}:{}/{}", self.scheme, self.user, self.host, self.port, self.database)
    }
}

/// The forms in which the password could be printed.
fn spellings(password: &str) -> Vec<String> {
    let encoded = utf8_percent_encode(password, NON_ALPHANUMERIC).to_string();
    let mut all = vec![password.to_owned(), encoded.to_lowercase(), encoded, password.escape_debug().to_string()];
    // Its longest part between URL delimiters.
    all.extend(password.split(['@', ':', '/', '#', '?', '%']).filter(|piece| piece.len() > 3).map(str::to_owned));
    all
}

#[track_caller]
fn nowhere(password: &str, answer: &Answer, folder: &Path, what: &str) {
    for spelling in spellings(password) {
        assert!(!answer.stdout.contains(&spelling), "{what}: {spelling} in {}", answer.stdout);
        assert!(!answer.stderr.contains(&spelling), "{what}: {spelling} in {}", answer.stderr);
        for (name, bytes) in files(folder) {
            assert!(!String::from_utf8_lossy(&bytes).contains(&spelling), "{what}: {spelling} in {name}");
        }
    }
}

fn url<'u>(database: &'u Database, user: &'u str, password: &'u str) -> Url<'u> {
    let scheme = if database.engine() == Engine::Postgresql { "postgresql+psycopg2" } else { "mysql+pymysql" };
    Url { scheme, user, password, host: "localhost", port: database.server().port, database: database.name() }
}

#[test]
fn passwords_are_in_no_output() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        let database = fresh(engine, Columns::Full);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let what = format!("{} {way:?}", engine.name());
            stuck(&database, "nightly");
            let good = url(&database, ADMIN, ADMIN_PASSWORD);
            let check = |code: i32, url: &Url<'_>, args: &[&str]| {
                let answer = run(way, url, folder, args);
                assert_eq!(answer.code, Some(code), "{what} {args:?}\n{}{}", answer.stdout, answer.stderr);
                nowhere(url.password, &answer, folder, &format!("{what} {args:?}"));
                answer
            };
            // Successful commands.
            let scan = check(0, &good, &["scan", "-f", "json", "--tls-mode", "require"]);
            assert!(scan.stderr.contains("database: "), "{what}: -v says where it connects to: {}", scan.stderr);
            let reports = ["plan", "--out", "p.json", "--report", "p.md", "--report", "p.sql", "--report", "p.csv"];
            check(0, &good, &reports);
            check(0, &good, &["apply", "p.json", "--yes", "-f", "json"]);
            check(0, &good, &["history", "list", "-f", "json"]);
            check(0, &good, &["history", "reconcile", "-f", "json"]);
            // Failures: account, port, host name, certificate, database.
            check(12, &Url { password: "Wr0ng-s3cr3t/@", ..good }, &["scan"]);
            check(12, &Url { user: "nobody_here", ..good }, &["scan"]);
            check(10, &Url { port: closed, ..good }, &["scan", "--connect-timeout", "2s"]);
            check(10, &Url { host: "no-such-host.invalid", ..good }, &["scan"]);
            check(14, &Url { database: "no_such_cinder", ..good }, &["scan"]);
            let answer = run(way, &good, folder, &["scan", "--tls-mode", "verify-full"]);
            assert!(matches!(answer.code, Some(2 | 10)), "{what} {:?} {}", answer.code, answer.stderr);
            nowhere(ADMIN_PASSWORD, &answer, folder, &what);
            let answer = run(way, &good, folder, &["scan", "--older-than", "x"]);
            assert_eq!(answer.code, Some(2));
            nowhere(ADMIN_PASSWORD, &answer, folder, &what);
            // An account without write privileges.
            let grants = match engine {
                Engine::Postgresql => "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}",
                _ => "GRANT SELECT ON {database}.* TO {user}",
            };
            let account = database.account_with(grants, Plugin::Default, Transport::Any);
            stuck(&database, "weekly");
            // The program sends this to MySQL only over TLS.
            check(12, &url(&database, &account.user, &account.password), &["repair", "--yes", "--tls-mode", "require"]);
        }
    }
}

#[test]
fn a_password_in_an_invalid_url_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for url in [
        "mysql+pymysql://cinder:s3cr3t-p@ss@h:port/cinder",
        "mysql+pymysql://cinder:s3cr3t/p@h/cinder",
        "mysql+pymysql://cinder:s3cr3t#p@h/cinder",
        "mysql+pymysql://cinder:s3cr3t?p@h/cinder",
        "mysql+pymysql//cinder:s3cr3t@h/cinder",
        "cinder:s3cr3t@h/cinder",
        "s3cr3t://u@h/cinder",
        "postgresql://cinder:s3cr3t@[fe80::1/cinder",
        "mysql+pymysql://cinder:s3cr3t%@127.0.0.1:1/cinder?charset=\u{1b}[2J",
        "mysql+pymysql://cinder:s3cr3t@127.0.0.1:1/cinder?password=s3cr3t",
        "postgresql://127.0.0.1:1/cinder?user=cinder&password=s3cr3t",
    ] {
        for variable in [true, false] {
            let mut command = bare(&["scan", "-v", "-v", "--connect-timeout", "2s"]);
            command.current_dir(folder.path());
            if variable {
                command.env("CINDER_DATABASE_URL", url)
            } else {
                command.args(["--database-url", url])
            };
            let Answer { code, stdout, stderr } = answer(&mut command);
            assert!(matches!(code, Some(2 | 10)), "{url}: {code:?} {stdout}{stderr}");
            // The scheme is shown, because it holds no password.
            if !url.starts_with("s3cr3t://") {
                assert!(!stderr.contains("s3cr3t"), "{url}: {stderr}");
            }
            assert!(!stderr.contains('\u{1b}') && stderr.contains("error: "), "{stderr}");
        }
    }
}

#[test]
fn the_audit_log_names_the_account_but_not_its_password() {
    let database = fresh(Engine::Mariadb, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.tcp_url());
    program.expect(0, &["repair", "--yes", "-v", "-v"]);
    let log = fs::read_to_string(program.log()).unwrap();
    assert!(log.contains(ADMIN));
    for spelling in spellings(ADMIN_PASSWORD) {
        assert!(!log.contains(&spelling), "{spelling} in {log}");
    }
}
