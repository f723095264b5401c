//! Files that the user cannot read, or can read but not write.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use cinder_backup_repair::db::Engine;

use super::stuck;
use crate::database::Database;
use crate::program::{Answer, answer, binary};
use crate::schemas::{Columns, fresh};
use crate::servers::is_root;

/// A copy of a database in a directory that `nobody` can read but not write. Root can write every file, so the program runs as `nobody`.
/// `None` if the tests do not run as root.
struct Readable {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Readable {
    fn copy(database: &Database) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(binary(), folder.path().join("program")).unwrap();
        let file = folder.path().join("cinder.sqlite");
        fs::copy(database.path(), &file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let logs = folder.path().join("logs");
        fs::create_dir(&logs).unwrap();
        std::os::unix::fs::chown(&logs, Some(65534), Some(65534)).unwrap();
        Some(Self { folder, file })
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("logs/audit.jsonl")
    }

    fn run(&self, args: &[&str]) -> Answer {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(self.folder.path().join("program")).args(args);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("CINDER_DATABASE_URL", format!("sqlite:///{}", self.file.display()));
        command.args(["--audit-log"]).arg(self.log()).current_dir("/");
        answer(&mut command)
    }
}

#[test]
fn an_unreadable_file_is_named() {
    if is_root() {
        // Root can read everything, so this runs as `nobody` if possible.
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = folder.path().join("program");
        fs::copy(binary(), &copy).unwrap();
        let conf = folder.path().join("cinder.conf");
        fs::write(&conf, "[database]\nconnection = sqlite:////x\n").unwrap();
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        command.args(["scan", "--config-file"]).arg(&conf).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        let answer = answer(&mut command);
        assert_eq!(answer.code, Some(2), "{}", answer.stderr);
        assert!(answer.stderr.contains(&format!("cannot read {}: Permission denied", conf.display())), "{}", answer.stderr);
    }
}

#[test]
fn a_read_only_database_is_reported() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let Some(readable) = Readable::copy(&database) else { return };
    let before = fs::read(&readable.file).unwrap();
    let scan = readable.run(&["scan"]);
    assert_eq!(scan.code, Some(0), "{}", scan.stderr);
    let dry = readable.run(&["repair", "--dry-run"]);
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    // The whole database is read-only, like a replica: exit code 13, not a missing privilege (12).
    let repair = readable.run(&["repair", "--yes"]);
    assert_eq!(repair.code, Some(13), "{}", repair.stderr);
    assert!(repair.stderr.contains("accepts no writes") && repair.stderr.contains("nothing was changed"), "{}", repair.stderr);
    assert!(repair.stderr.contains("hint: run it as an account that may write to the file"), "{}", repair.stderr);
    // A check may take hours, so an obstacle to the repair is reported before it.
    for (code, args) in
        [(13, &["repair", "--yes", "--check", "deep"] as &[&str]), (2, &["repair", "--yes", "--check", "deep", "-c", "Nope"])]
    {
        let early = readable.run(args);
        assert_eq!(early.code, Some(code), "{}", early.stderr);
        assert!(!early.stderr.contains("Checking"), "{}", early.stderr);
    }
    assert!(readable.run(&["repair", "--dry-run", "--check", "deep"]).stderr.contains("Checking 1 backup"));
    assert!(fs::read(&readable.file).unwrap() == before);
    assert!(!readable.log().exists(), "nothing was begun");
}

/// SQLite creates a journal beside the file before it writes.
#[test]
fn a_file_in_a_read_only_directory_is_reported_before_the_run_begins() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let Some(readable) = Readable::copy(&database) else { return };
    std::os::unix::fs::chown(&readable.file, Some(65534), Some(65534)).unwrap();
    let before = fs::read(&readable.file).unwrap();
    let repair = readable.run(&["repair", "--yes"]);
    assert_eq!(repair.code, Some(13), "{}", repair.stderr);
    assert!(repair.stderr.contains("hint: run it as an account that may write to the file and its directory"), "{}", repair.stderr);
    assert!(!readable.log().exists(), "nothing was begun");
    let dry = readable.run(&["repair", "--dry-run"]);
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert!(dry.stderr.contains("without --dry-run this ends with 13"), "{}", dry.stderr);
    assert!(fs::read(&readable.file).unwrap() == before);
}

#[test]
fn a_missing_write_ahead_log_is_not_reported_as_a_missing_grant() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let Some(readable) = Readable::copy(&database) else { return };
    let file = rusqlite::Connection::open(&readable.file).unwrap();
    let mode: String = file.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    drop(file);
    let scan = readable.run(&["scan"]);
    assert_eq!(scan.code, Some(12), "{}", scan.stderr);
    assert!(
        scan.stderr.contains("in WAL mode even a reader writes") && scan.stderr.contains("hint: run it as an account"),
        "{}",
        scan.stderr
    );
    assert!(!scan.stderr.contains("grants"), "{}", scan.stderr);
}

#[test]
fn an_audit_log_that_cannot_be_written_is_reported_before_the_check() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let Some(readable) = Readable::copy(&database) else { return };
    std::os::unix::fs::chown(readable.folder.path(), Some(65534), Some(65534)).unwrap();
    std::os::unix::fs::chown(&readable.file, Some(65534), Some(65534)).unwrap();
    let logs = readable.folder.path().join("logs");
    std::os::unix::fs::chown(&logs, Some(0), Some(0)).unwrap();
    let refused = |code: i32, what: &str| {
        let answer = readable.run(&["repair", "--yes", "--check", "deep"]);
        assert_eq!(answer.code, Some(code), "{}", answer.stderr);
        assert!(answer.stderr.contains("no log, no change: ") && answer.stderr.contains(what), "{}", answer.stderr);
        assert!(!answer.stderr.contains("Checking"), "{}", answer.stderr);
    };
    refused(1, "Permission denied");
    fs::write(readable.log(), "").unwrap();
    fs::set_permissions(readable.log(), fs::Permissions::from_mode(0o666)).unwrap();
    refused(2, "may be written by group or others");
    // A dry run writes no log.
    assert_eq!(readable.run(&["repair", "--dry-run", "--check", "deep"]).code, Some(0));
}
