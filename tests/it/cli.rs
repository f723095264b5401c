//! The command line in scripts and pipes: wrong inputs, forms of results, secrets, hostile text.
//!
//! A wrong input must be answered with one sentence (what, where, what to do), the right exit code, and nothing written.

mod counters;
mod formats;
mod hostile;
mod left_alone;
mod read_only;
mod scripts;
mod secrets;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use cinder_backup_repair::db::Engine;

use crate::database::{Database, changes};
use crate::program::{Answer, Program, answer, bare};
use crate::schemas::{Columns, fresh};
use crate::servers::{self, ADMIN};

const TWO_HOURS: i64 = 7_200;

/// A stuck backup of a name, with the volume that it holds.
fn stuck(database: &Database, name: &str) -> (String, String) {
    let volume = database.volume(|row| row.status("backing-up").previous_status("available"));
    let backup = database.backup(|row| row.status("creating").host("gone").display_name(name).volume_id(&volume).age(TWO_HOURS));
    (backup, volume)
}

/// Every file below a folder with its content.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.push((path.display().to_string(), Vec::new()));
            all.extend(files(&path));
        } else {
            all.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

/// What the program answered to wrong inputs, one after the other.
struct Refusals<'p> {
    program: &'p Program,
    said: String,
}

impl<'p> Refusals<'p> {
    fn of(program: &'p Program) -> Self {
        // It makes the cinder.conf of this program, which is none of what a run must not leave.
        program.command(&[]);
        Self { program, said: String::new() }
    }

    /// Runs it and insists on how it is refused.
    #[track_caller]
    fn refuse(&mut self, code: i32, args: &[&str]) -> String {
        self.refuse_command(code, args, &mut self.program.command(args))
    }

    /// The same without a database URL and a configuration.
    #[track_caller]
    fn refuse_bare(&mut self, code: i32, args: &[&str]) -> String {
        self.refuse_command(code, args, bare(args).current_dir(self.folder()))
    }

    fn folder(&self) -> std::path::PathBuf {
        self.program.path("cinder.conf").parent().unwrap().to_owned()
    }

    #[track_caller]
    fn refuse_command(&mut self, code: i32, args: &[&str], command: &mut Command) -> String {
        let folder = self.folder();
        let before = files(&folder);
        let Answer { code: ended, stdout, stderr } = answer(command);
        assert_eq!(ended, Some(code), "{args:?}\n{stdout}{stderr}");
        assert_eq!(stdout, "", "{args:?}: results where there are none");
        assert!(files(&folder) == before, "{args:?} left or changed a file");
        for word in ["panicked", "RUST_BACKTRACE", "unwrap", "src/", "Some(", "None"] {
            assert!(!stderr.contains(word), "{args:?}: {word} in {stderr}");
        }
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{args:?}: {stderr}");
        let shown = stderr.replace(&folder.display().to_string(), "DIR");
        let word = |word: &&str| if word.is_empty() { "''".to_owned() } else { word.replace(&folder.display().to_string(), "DIR") };
        let words: Vec<String> = args.iter().map(word).collect();
        self.said.push_str(&format!("$ {}\n{}", words.join(" "), shown.lines().map(|line| format!("{line}\n")).collect::<String>()));
        stderr
    }
}

#[test]
fn words_that_the_command_line_does_not_know() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let before = database.rows_by_id();
    let program = Program::on(database.url());
    let mut refusals = Refusals::of(&program);
    for args in [
        &["scan", "--frobnicate"] as &[&str],
        &["frobnicate"],
        &["scan", "-f", "xml"],
        &["scan", "-c", "Nope"],
        &["plan", "-c", "Nope", "--out", "new.json"],
        &["repair", "--yes", "-c", "Nope"],
        &["scan", "--older-than", "1w"],
        &["scan", "--older-than", "-1h"],
        &["scan", "--status", "garbage"],
        &["scan", "--limit", "0"],
        &["scan", "--limit", "many"],
        &["repair", "--yes", "--to", "deleted"],
        &["repair", "--yes", "--batch-size", "0"],
        &["repair", "--yes", "--max-changes", "-1"],
        &["repair", "--yes", "--service-down-time", "1s"],
        &["scan", "--tls-mode", "perhaps"],
        &["scan", ""],
        &["man", "frobnicate"],
        &["completions", "tcsh"],
        &["apply"],
    ] {
        refusals.refuse(2, args);
    }
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    insta::assert_snapshot!(refusals.said, @r#"
    $ scan --frobnicate
    error: unexpected argument '--frobnicate' found

      tip: a similar argument exists: '--format'

    Usage: cinder-backup-repair scan --format <FORMAT> [BACKUP]...

    For more information, try '--help'.
    $ frobnicate
    error: unrecognized subcommand 'frobnicate'

    Usage: cinder-backup-repair [OPTIONS] <COMMAND>

    For more information, try '--help'.
    $ scan -f xml
    error: invalid value 'xml' for '--format <FORMAT>'
      [possible values: table, json, yaml, csv, value]

      tip: a similar value exists: 'yaml'

    For more information, try '--help'.
    $ scan -c Nope
    error: unknown column "Nope" in --column; the columns are Kind, ID, Name, Status, Host, Age, Verdict, Proposed, Evidence
    $ plan -c Nope --out new.json
    error: unknown column "Nope" in --column; the columns are Unit, Kind, ID, Name, Status, Changes, Evidence
    $ repair --yes -c Nope
    error: unknown column "Nope" in --column; the columns are Unit, Kind, ID, Name, Outcome, Changes, Reason
    $ scan --older-than 1w
    error: invalid value '1w' for '--older-than <SPAN>': "1w" is no span of time; write for example 90s, 15m, 2h or 1d

    For more information, try '--help'.
    $ scan --older-than -1h
    error: unexpected argument '-1' found

      tip: to pass '-1' as a value, use '-- -1'

    Usage: cinder-backup-repair scan [OPTIONS] [BACKUP]...

    For more information, try '--help'.
    $ scan --status garbage
    error: --status takes one of creating, restoring, deleting, null, error, error_deleting, backing-up, restoring-backup, not "garbage"
    $ scan --limit 0
    error: --limit takes a number from 1
    $ scan --limit many
    error: invalid value 'many' for '--limit <N>': "many" is no whole number, or too large

    For more information, try '--help'.
    $ repair --yes --to deleted
    error: invalid value 'deleted' for '--to <STATUS>'
      [possible values: available, error]

    For more information, try '--help'.
    $ repair --yes --batch-size 0
    error: invalid value '0' for '--batch-size <N>': a batch has at least 1 unit

    For more information, try '--help'.
    $ repair --yes --max-changes -1
    error: invalid value '-1' for '--max-changes <N>': "-1" is no whole number, or too large

    For more information, try '--help'.
    $ repair --yes --service-down-time 1s
    error: --service-down-time 1 s is less than twice report_interval (1 s), so that working services would look dead; --assume-dead HOST is there for a service that is known to be dead
    $ scan --tls-mode perhaps
    error: invalid value 'perhaps' for '--tls-mode <MODE>': a TLS mode is one of disable, prefer, require, verify-ca and verify-full

    For more information, try '--help'.
    $ scan ''
    error: backup 1 on the command line is empty; give an id or a name
    $ man frobnicate
    error: there is no command "frobnicate"
    $ completions tcsh
    error: invalid value 'tcsh' for '<SHELL>'
      [possible values: bash, elvish, fish, powershell, zsh]

      tip: a similar value exists: 'zsh'

    For more information, try '--help'.
    $ apply
    error: the following required arguments were not provided:
      <PLAN>

    Usage: cinder-backup-repair apply --config-file <FILE> --audit-log <FILE> <PLAN>

    For more information, try '--help'.
    "#);
}

#[test]
fn a_command_is_needed() {
    let answer = answer(&mut bare(&[]));
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""));
    assert!(answer.stderr.contains("Usage: cinder-backup-repair"), "{}", answer.stderr);
    for args in [&["--help"] as &[&str], &["help"], &["repair", "--help"], &["--version"], &["scan", "-V"]] {
        let answer = crate::program::answer(&mut bare(args));
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(answer.stdout.contains("inder-backup-repair"), "{args:?}");
    }
}

#[test]
fn urls_that_name_no_database() {
    let program = Program::on("unused");
    let mut refusals = Refusals::of(&program);
    for url in [
        "",
        "cinder",
        "mongodb://h/cinder",
        "mysql://u@h",
        "mysql://u:s3cr3t@h:99999/cinder",
        "postgresql+psycopg2://u:s3cr3t@[::1/cinder",
        "sqlite://",
        "sqlite:///:memory:",
    ] {
        let said = refusals.refuse_bare(2, &["scan", "--database-url", url]);
        assert!(!said.contains("s3cr3t"), "{said}");
    }
    insta::assert_snapshot!(refusals.said, @r#"
    $ scan --database-url ''
    error: --database-url: this is not a database URL; write mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH
    $ scan --database-url cinder
    error: --database-url: this is not a database URL; write mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH
    $ scan --database-url mongodb://h/cinder
    error: --database-url: mongodb:// is no database that Cinder runs on; write mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH
    $ scan --database-url mysql://u@h
    error: --database-url: the URL names no database; end its path with /cinder, for example
    $ scan --database-url mysql://u:s3cr3t@h:99999/cinder
    error: --database-url: the port must be a number from 1 to 65535; if this is no port, write :, @ and / in the password as %3A, %40 and %2F
    $ scan --database-url postgresql+psycopg2://u:s3cr3t@[::1/cinder
    error: --database-url: the [ of the URL's host has no ]
    $ scan --database-url sqlite://
    error: --database-url: the URL names a SQLite database in memory; write sqlite:////absolute/path
    $ scan --database-url sqlite:///:memory:
    error: --database-url: the URL names a SQLite database in memory; write sqlite:////absolute/path
    "#);
}

#[test]
fn a_configuration_that_cannot_be_read() {
    let program = Program::on("unused");
    let mut refusals = Refusals::of(&program);
    let write = |name: &str, text: &str| fs::write(program.path(name), text).unwrap();
    write("syntax.conf", "[DEFAULT]\ndebug = true\nthis is no option\n");
    write("section.conf", "[DEFAULT]\n[database\nconnection = sqlite:////x\n");
    write("none.conf", "[DEFAULT]\ndebug = true\n");
    write("scheme.conf", "[database]\nconnection = oracle://u:s3cr3t@h/cinder\n");
    write("loop.conf", "[database]\nconnection = $connection\n");
    write("number.conf", "[DEFAULT]\nservice_down_time = soon\n[database]\nconnection = sqlite:////x\n");
    fs::create_dir(program.path("folder")).unwrap();
    for name in ["absent.conf", "folder", "syntax.conf", "section.conf", "none.conf", "scheme.conf", "loop.conf", "number.conf"] {
        let said = refusals.refuse_bare(2, &["scan", "--config-file", name]);
        assert!(!said.contains("s3cr3t"), "{said}");
    }
    refusals.refuse_bare(2, &["scan", "--config-dir", "absent"]);
    refusals.refuse_bare(2, &["scan", "--database-url", "mysql://u@h/cinder", "--password-file", "absent"]);
    refusals.refuse_bare(2, &["scan", "--database-url", "mysql://u@h/cinder", "--password-file", "folder"]);
    refusals.refuse_bare(2, &["scan", "--database-url", "mysql://u@h/cinder", "--tls-ca", "absent"]);
    insta::assert_snapshot!(refusals.said, @r#"
    $ scan --config-file absent.conf
    error: cannot read absent.conf: No such file or directory (os error 2)
    $ scan --config-file folder
    error: cannot read folder: Is a directory (os error 21)
    $ scan --config-file syntax.conf
    error: syntax.conf:3: neither a section nor an option: there is no = or : in it
    $ scan --config-file section.conf
    error: section.conf:2: a section must end with ] and nothing after it
    $ scan --config-file none.conf
    error: no Cinder database is configured: CINDER_DATABASE_URL is not set and there is no [database] connection in none.conf; give --database-url URL or --config-file FILE
    $ scan --config-file scheme.conf
    error: scheme.conf:2 [database] connection: oracle:// is no database that Cinder runs on; write mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH
    $ scan --config-file loop.conf
    error: loop.conf:2 [database] connection: its value leads back to itself through connection
    $ scan --config-file number.conf
    error: number.conf:2 [DEFAULT] service_down_time: "soon" is not a whole number
    $ scan --config-dir absent
    error: cannot read absent: No such file or directory (os error 2)
    $ scan --database-url mysql://u@h/cinder --password-file absent
    error: --password-file: cannot read absent: No such file or directory (os error 2)
    $ scan --database-url mysql://u@h/cinder --password-file folder
    error: --password-file: cannot read folder: Is a directory (os error 21)
    $ scan --database-url mysql://u@h/cinder --tls-ca absent
    error: --tls-ca: cannot read the CA certificates absent: No such file or directory (os error 2); in a container's configuration the path is the container's, so give --tls-ca FILE
    "#);
    // A % that escapes nothing is what many a cinder.conf holds: it is taken as it is, with a warning.
    write("percent.conf", "[database]\nconnection = mysql://u:%zz@127.0.0.1:1/cinder\n");
    let said = refusals.refuse_bare(10, &["scan", "--config-file", "percent.conf"]);
    assert!(said.contains("percent.conf:2 [database] connection: a % in the password of the URL begins no escape"), "{said}");
    // Where it looks of itself.
    let said = refusals.refuse_bare(2, &["scan"]);
    for place in
        ["CINDER_DATABASE_URL", "/etc/cinder/cinder.conf", "/etc/kolla/cinder-backup/cinder.conf", "--database-url", "--config-file"]
    {
        assert!(said.contains(place), "{place} is not named in {said}");
    }
}

#[test]
fn files_that_are_no_cinder_database() {
    let program = Program::on("unused");
    let mut refusals = Refusals::of(&program);
    let at = |name: &str| format!("sqlite:///{}", program.path(name).display());
    let make = |name: &str, sql: &str| rusqlite::Connection::open(program.path(name)).unwrap().execute_batch(sql).unwrap();
    make("foreign.db", "CREATE TABLE invoices (id, total)");
    make("icehouse.db", "CREATE TABLE backups (id, status)");
    fs::write(program.path("empty.db"), "").unwrap();
    fs::write(program.path("text.db"), "SQLite is what this is not\n").unwrap();
    fs::create_dir(program.path("folder.db")).unwrap();
    let whole = fresh(Engine::Sqlite, Columns::Full);
    let bytes = fs::read(whole.path()).unwrap();
    fs::write(program.path("cut.db"), &bytes[..9_000]).unwrap();
    for (code, name) in
        [(10, "absent.db"), (10, "folder.db"), (14, "empty.db"), (14, "text.db"), (14, "foreign.db"), (14, "icehouse.db"), (14, "cut.db")]
    {
        refusals.refuse_bare(code, &["scan", "--database-url", &at(name)]);
    }
    insta::assert_snapshot!(refusals.said, @r#"
    $ scan --database-url sqlite:///DIR/absent.db
    error: there is no SQLite database DIR/absent.db; this program never creates one, so check the path in the URL
    hint: the database is sqlite:///DIR/absent.db, from --database-url
    $ scan --database-url sqlite:///DIR/folder.db
    error: DIR/folder.db is not a file
    hint: the database is sqlite:///DIR/folder.db, from --database-url
    $ scan --database-url sqlite:///DIR/empty.db
    error: DIR/empty.db is not a SQLite database
    hint: the database is sqlite:///DIR/empty.db, from --database-url
    $ scan --database-url sqlite:///DIR/text.db
    error: DIR/text.db is not a SQLite database
    hint: the database is sqlite:///DIR/text.db, from --database-url
    $ scan --database-url sqlite:///DIR/foreign.db
    error: not a Cinder database: there is no table backups in sqlite:DIR/foreign.db; check the database's name, and that this account may read the table
    hint: the database is sqlite:///DIR/foreign.db, from --database-url
    $ scan --database-url sqlite:///DIR/icehouse.db
    error: not a Cinder database of Icehouse or later: there is no column backups.deleted in sqlite:DIR/icehouse.db; check the database's name, and that this account may read the table
    hint: the database is sqlite:///DIR/icehouse.db, from --database-url
    $ scan --database-url sqlite:///DIR/cut.db
    error: cannot open DIR/cut.db: the database file is damaged (database disk image is malformed); look at it with PRAGMA integrity_check
    hint: the database is sqlite:///DIR/cut.db, from --database-url
    "#);
}

#[test]
fn plans_that_are_none() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let before = database.rows_by_id();
    let program = Program::on(database.url());
    program.expect(0, &["plan", "--out", "plan.json"]);
    let plan = fs::read_to_string(program.path("plan.json")).unwrap();
    let write = |name: &str, text: &str| fs::write(program.path(name), text).unwrap();
    write("zero.json", "");
    write("text.json", "give me a plan\n");
    write("half.json", &plan[..plan.len() / 2]);
    write("scan.json", &program.expect(0, &["scan", "-f", "json"]).stdout);
    write("newer.json", &plan.replace("\"schema_version\": 1", "\"schema_version\": 2"));
    write("edited.json", &plan.replace("\"to\": \"error\"", "\"to\": \"available\""));
    write("more.json", &plan.replacen('{', "{\"extra\": 1,", 1));
    fs::write(program.path("bytes.json"), [0xff, 0xfe, 0x00]).unwrap();
    fs::create_dir(program.path("folder")).unwrap();
    let mut refusals = Refusals::of(&program);
    for name in ["absent.json", "folder", "zero.json", "text.json", "bytes.json", "scan.json", "newer.json"] {
        refusals.refuse(2, &["apply", name, "--yes"]);
    }
    refusals.refuse(5, &["apply", "edited.json", "--yes"]);
    refusals.refuse(2, &["apply", "/dev/null", "--yes"]);
    for args in [&["apply", "plan.json"] as &[&str], &["repair"], &["repair", "--no-input"], &["apply", "plan.json", "--no-input"]] {
        assert!(refusals.refuse(2, args).contains("--yes"));
    }
    insta::assert_snapshot!(refusals.said, @r#"
    $ apply absent.json --yes
    error: cannot read the plan absent.json: No such file or directory (os error 2)
    $ apply folder --yes
    error: cannot read the plan folder: Is a directory (os error 21)
    $ apply zero.json --yes
    error: the plan zero.json is empty: whatever wrote it did not finish; make a new plan
    $ apply text.json --yes
    error: text.json is not a plan of this program: expected value at line 1 column 1; nothing was changed
    $ apply bytes.json --yes
    error: bytes.json is not a plan of this program: expected value at line 1 column 1; nothing was changed
    $ apply scan.json --yes
    error: scan.json is not a plan of this program: its schema is "cinder-backup-repair/scan"; nothing was changed
    $ apply newer.json --yes
    error: newer.json has schema version 2, which is newer than this program; use the version that wrote it; nothing was changed
    $ apply edited.json --yes
    error: edited.json was changed after it was written (its SHA-256 does not fit); make a new plan instead of editing one; nothing was changed
    $ apply /dev/null --yes
    error: the plan /dev/null is empty: whatever wrote it did not finish; make a new plan
    $ apply plan.json
    error: nobody can be asked here, so nothing was changed
    hint: give --yes to change without a question, or --dry-run to look
    $ repair
    error: nobody can be asked here, so nothing was changed
    hint: give --yes to change without a question, or --dry-run to look
    $ repair --no-input
    error: nobody can be asked here, so nothing was changed
    hint: give --yes to change without a question, or --dry-run to look
    $ apply plan.json --no-input
    error: nobody can be asked here, so nothing was changed
    hint: give --yes to change without a question, or --dry-run to look
    "#);
    // Where in it, depends on how long it is.
    for name in ["half.json", "more.json"] {
        assert!(refusals.refuse(2, &["apply", name, "--yes"]).contains(&format!("{name} is not a plan of this program")));
    }
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    assert!(!program.log().exists());
}

#[test]
fn backups_that_are_not_there_or_not_one() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let twins = [stuck(&database, "twin").0, stuck(&database, "twin").0];
    let before = database.rows_by_id();
    let program = Program::on(database.url());
    let mut refusals = Refusals::of(&program);
    let said = refusals.refuse(2, &["repair", "twin", "--yes"]);
    assert!(twins.iter().all(|id| said.contains(id)), "{said}");
    refusals.said.clear();
    for args in [&["repair", "nosuch", "--yes"] as &[&str], &["repair", "-", "--yes"], &["scan", "-"], &["repair", "%", "--yes"]] {
        refusals.refuse(2, args);
    }
    refusals.refuse(6, &["repair", "--yes", "--max-changes", "1"]);
    insta::assert_snapshot!(refusals.said, @r#"
    $ repair nosuch --yes
    error: there is no live backup with the id or name "nosuch"; it may be deleted already, or in another database
    $ repair - --yes
    error: standard input lists no ids, so there is nothing to work on
    $ scan -
    error: standard input lists no ids, so there is nothing to work on
    $ repair % --yes
    error: there is no live backup with the id or name "%"; it may be deleted already, or in another database
    $ repair --yes --max-changes 1
    error: 2 units would be changed, more than the 1 of --max-changes; nothing was changed
    hint: look at them with --dry-run, then give a higher --max-changes, or select fewer
    "#);
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    // Of many, with --yes alone.
    for number in 0..24 {
        stuck(&database, &format!("more {number}"));
    }
    let before = database.rows_by_id();
    assert!(refusals.refuse(6, &["repair", "--yes"]).contains("more than the 25 of --max-changes"));
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    program.expect(0, &["repair", "--yes", "--dry-run"]);
    // By name, and by standard input.
    let (id, _) = stuck(&database, "by name");
    let document = program.json(0, &["repair", "by name", "--yes"]);
    assert_eq!(document["units"][0]["id"], id.as_str());
    let list = program.path("ids");
    fs::write(&list, format!("{}\n\n  {}\n", twins[0], twins[1])).unwrap();
    let answer = answer(program.command(&["repair", "-", "--yes", "-f", "json"]).stdin(fs::File::open(list).unwrap()));
    assert_eq!(answer.json()["summary"]["applied"], 2, "{}", answer.stderr);
}

#[test]
fn runs_that_cannot_be_undone_or_shown() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (backup, _) = stuck(&database, "nightly");
    let program = Program::on(database.url());
    let mut refusals = Refusals::of(&program);
    for args in [&["undo", "20", "--yes"] as &[&str], &["history", "list"], &["history", "verify"], &["history", "show", "20"]] {
        refusals.refuse(2, args);
    }
    insta::assert_snapshot!(refusals.said, @r#"
    $ undo 20 --yes
    error: there is no audit log DIR/audit.jsonl; nothing was ever changed by this account, or it is elsewhere
    hint: give the log with --audit-log
    $ history list
    error: there is no audit log DIR/audit.jsonl; nothing was ever changed by this account, or it is elsewhere
    hint: give the log with --audit-log
    $ history verify
    error: there is no audit log DIR/audit.jsonl; nothing was ever changed by this account, or it is elsewhere
    hint: give the log with --audit-log
    $ history show 20
    error: there is no audit log DIR/audit.jsonl; nothing was ever changed by this account, or it is elsewhere
    hint: give the log with --audit-log
    "#);
    program.expect(0, &["repair", "--yes"]);
    let first = program.last_run();
    stuck(&database, "weekly");
    program.expect(0, &["repair", "--yes"]);
    let second = program.last_run();
    let said = refusals.refuse(2, &["undo", "20", "--yes"]);
    assert!(said.contains("ambiguous") && said.contains(&first) && said.contains(&second), "{said}");
    assert!(refusals.refuse(2, &["undo", "19990101", "--yes"]).contains("history list"));
    assert!(refusals.refuse(2, &["history", "show", "19990101"]).contains("history list"));
    assert!(refusals.refuse(2, &["undo", &first]).contains("--yes"));
    // A run that changed nothing.
    let back = "SET status = 'creating', updated_at = created_at";
    database.execute(&format!("UPDATE backups {back} WHERE id = '{backup}'"));
    program.expect(3, &["plan", "--out", "other.json", "--detailed-exitcode", &backup]);
    database.execute(&format!("UPDATE backups SET status = 'error', fail_reason = 'else' WHERE id = '{backup}'"));
    program.expect(4, &["apply", "other.json", "--yes"]);
    let nothing = program.last_run();
    let said = refusals.refuse(5, &["undo", &nothing, "--yes"]);
    assert!(said.contains(&nothing), "{said}");
    // A log that is none, or that others may write.
    fs::write(program.path("text.log"), "this is no log\n").unwrap();
    fs::set_permissions(program.path("text.log"), fs::Permissions::from_mode(0o600)).unwrap();
    let damaged = answer(bare(&["history", "list", "--audit-log"]).arg(program.path("text.log")));
    assert_eq!(damaged.code, Some(1), "{}", damaged.stderr);
    assert!(damaged.stderr.contains("text.log: line 1 "), "{}", damaged.stderr);
}

#[test]
fn reports_that_cannot_be_written_leave_nothing() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    fs::write(program.path("old.json"), "mine").unwrap();
    let mut refusals = Refusals::of(&program);
    for args in [
        &["plan", "--report", "plan.txt"] as &[&str],
        &["plan", "--report", "plan"],
        &["plan", "--out", "old.json"],
        &["plan", "--out", "absent/plan.json"],
        &["plan", "--out", "new.json", "--report", "absent/plan.md"],
        &["plan", "--out", "new.json", "--report", "plan.html"],
        &["plan", "--out", "same.sql", "--report", "same.sql"],
        &["plan", "--report", "same.md", "--report", "same.md"],
        &["plan", "--out", "."],
    ] {
        refusals.refuse(2, args);
    }
    insta::assert_snapshot!(refusals.said, @r#"
    $ plan --report plan.txt
    error: --report plan.txt: the name must end in .md, .sql or .csv
    $ plan --report plan
    error: --report plan: the name must end in .md, .sql or .csv
    $ plan --out old.json
    error: old.json exists already, and nothing is overwritten; give another name or remove it
    $ plan --out absent/plan.json
    error: cannot write absent/plan.json: its folder does not exist; make it first
    $ plan --out new.json --report absent/plan.md
    error: cannot write absent/plan.md: its folder does not exist; make it first
    $ plan --out new.json --report plan.html
    error: --report plan.html: the name must end in .md, .sql or .csv
    $ plan --out same.sql --report same.sql
    error: same.sql is named twice; give each of --out and --report a file of its own
    $ plan --report same.md --report same.md
    error: same.md is named twice; give each of --out and --report a file of its own
    $ plan --out .
    error: . exists already, and nothing is overwritten; give another name or remove it
    "#);
    assert_eq!(fs::read_to_string(program.path("old.json")).unwrap(), "mine");
    // All of them, for their owner alone.
    program.expect(0, &["plan", "--out", "a.json", "--report", "a.md", "--report", "a.sql", "--report", "a.csv"]);
    for name in ["a.json", "a.md", "a.sql", "a.csv"] {
        assert_eq!(fs::metadata(program.path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn servers_that_do_not_let_it_in() {
    let program = Program::on("unused");
    let mut refusals = Refusals::of(&program);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for scheme in ["mysql+pymysql", "postgresql"] {
        let said = refusals.refuse_bare(10, &["scan", "--database-url", &format!("{scheme}://u@127.0.0.1:{closed}/cinder")]);
        assert!(said.contains("refused") && said.contains(&closed.to_string()), "{said}");
        let said = refusals.refuse_bare(10, &["scan", "--database-url", &format!("{scheme}://u@no-such-host.invalid/cinder")]);
        assert!(said.contains("no-such-host.invalid"), "{said}");
    }
    for engine in [Engine::Mariadb, Engine::Postgresql] {
        let server = servers::server(engine).unwrap();
        let database = fresh(engine, Columns::Full);
        let said = refuse_url(&mut refusals, 12, &server.url(ADMIN, "Wr0ng-s3cr3t", database.name()));
        assert!(said.contains(ADMIN) && !said.contains("Wr0ng-s3cr3t"), "{said}");
        let said = refuse_url(&mut refusals, 12, &server.url("nobody_here", "Wr0ng-s3cr3t", database.name()));
        assert!(said.contains("nobody_here") && !said.contains("Wr0ng-s3cr3t"), "{said}");
        let said = refuse_url(&mut refusals, 14, &server.url(ADMIN, servers::ADMIN_PASSWORD, "no_such_cinder"));
        assert!(said.contains("no_such_cinder"), "{said}");
        // An empty database, and one of somebody else.
        let empty = Database::empty(engine, Some(server));
        let said = refuse_url(&mut refusals, 14, &empty.tcp_url());
        assert!(said.contains("not a Cinder database"), "{said}");
        empty.execute("CREATE TABLE invoices (id INTEGER)");
        refuse_url(&mut refusals, 14, &empty.tcp_url());
    }
}

#[track_caller]
fn refuse_url(refusals: &mut Refusals<'_>, code: i32, url: &str) -> String {
    let mut command = bare(&["scan"]);
    command.env("CINDER_DATABASE_URL", url).current_dir(refusals.folder());
    refusals.refuse_command(code, &["scan"], &mut command)
}
