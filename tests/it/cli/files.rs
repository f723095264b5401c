//! Plans, reports and logs that are invalid, or cannot be read or written.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use cinder_backup_repair::db::Engine;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::{Refusals, stuck};
use crate::database::changes;
use crate::program::{Program, answer, bare, binary};
use crate::schemas::{Columns, fresh};

#[test]
fn files_that_are_not_plans_are_refused() {
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
    error: the plan zero.json is empty: the program that wrote it did not finish; make a new plan
    $ apply text.json --yes
    error: text.json is not a plan of this program: expected value at line 1 column 1; nothing was changed
    $ apply bytes.json --yes
    error: bytes.json is not a plan of this program: expected value at line 1 column 1; nothing was changed
    $ apply scan.json --yes
    error: scan.json is not a plan of this program: its schema is "cinder-backup-repair/scan"; nothing was changed
    $ apply newer.json --yes
    error: newer.json has schema version 2, which is newer than this program; use the version that wrote it; nothing was changed
    $ apply edited.json --yes
    error: edited.json was edited after it was written: its SHA-256 does not match; make a new plan instead of editing one; nothing was changed
    $ apply /dev/null --yes
    error: the plan /dev/null is empty: the program that wrote it did not finish; make a new plan
    $ apply plan.json
    error: cannot ask for confirmation without a terminal; nothing was changed
    hint: use --yes to change without asking, or --dry-run to see the changes
    $ repair
    error: cannot ask for confirmation without a terminal; nothing was changed
    hint: use --yes to change without asking, or --dry-run to see the changes
    $ repair --no-input
    error: cannot ask for confirmation without a terminal; nothing was changed
    hint: use --yes to change without asking, or --dry-run to see the changes
    $ apply plan.json --no-input
    error: cannot ask for confirmation without a terminal; nothing was changed
    hint: use --yes to change without asking, or --dry-run to see the changes
    "#);
    // The position depends on its length.
    for name in ["half.json", "more.json"] {
        assert!(refusals.refuse(2, &["apply", name, "--yes"]).contains(&format!("{name} is not a plan of this program")));
    }
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    assert!(!program.log().exists());
}

#[test]
fn unknown_runs_are_refused() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (backup, _) = stuck(&database, "nightly");
    let program = Program::on(database.url());
    let mut refusals = Refusals::of(&program);
    for args in [&["undo", "20", "--yes"] as &[&str], &["history", "list"], &["history", "verify"], &["history", "show", "20"]] {
        refusals.refuse(2, args);
    }
    insta::assert_snapshot!(refusals.said, @r#"
    $ undo 20 --yes
    error: the audit log DIR/audit.jsonl does not exist: this account changed nothing, or the log is elsewhere
    hint: name the log with --audit-log
    $ history list
    error: the audit log DIR/audit.jsonl does not exist: this account changed nothing, or the log is elsewhere
    hint: name the log with --audit-log
    $ history verify
    error: the audit log DIR/audit.jsonl does not exist: this account changed nothing, or the log is elsewhere
    hint: name the log with --audit-log
    $ history show 20
    error: the audit log DIR/audit.jsonl does not exist: this account changed nothing, or the log is elsewhere
    hint: name the log with --audit-log
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
    // A file that is not a log, and a log that others can write.
    fs::write(program.path("text.log"), "this is no log\n").unwrap();
    fs::set_permissions(program.path("text.log"), fs::Permissions::from_mode(0o600)).unwrap();
    let damaged = answer(bare(&["history", "list", "--audit-log"]).arg(program.path("text.log")));
    assert_eq!(damaged.code, Some(1), "{}", damaged.stderr);
    assert!(damaged.stderr.contains("text.log: line 1 "), "{}", damaged.stderr);
}

#[test]
fn a_report_that_cannot_be_written_leaves_no_file() {
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
        &["plan", "--out", "-"],
        &["plan", "--check", "deep", "--out", "new.json", "--report", "a.md", "--report", "absent/plan.md"],
    ] {
        refusals.refuse(2, args);
    }
    insta::assert_snapshot!(refusals.said, @r#"
    $ plan --report plan.txt
    error: --report plan.txt: the name must end in .md, .sql or .csv
    $ plan --report plan
    error: --report plan: the name must end in .md, .sql or .csv
    $ plan --out old.json
    error: old.json exists already and is not overwritten: use another name or remove it
    $ plan --out absent/plan.json
    error: cannot write absent/plan.json: its directory does not exist
    $ plan --out new.json --report absent/plan.md
    error: cannot write absent/plan.md: its directory does not exist
    $ plan --out new.json --report plan.html
    error: --report plan.html: the name must end in .md, .sql or .csv
    $ plan --out same.sql --report same.sql
    error: same.sql is named twice: name another file for each --out and --report
    $ plan --report same.md --report same.md
    error: same.md is named twice: name another file for each --out and --report
    $ plan --out .
    error: . exists already and is not overwritten: use another name or remove it
    $ plan --out -
    error: - is not standard output here: name a file, or omit it and use --format json
    $ plan --check deep --out new.json --report a.md --report absent/plan.md
    error: cannot write absent/plan.md: its directory does not exist
    "#);
    assert_eq!(fs::read_to_string(program.path("old.json")).unwrap(), "mine");
    // All of them, accessible for their owner only.
    program.expect(0, &["plan", "--out", "a.json", "--report", "a.md", "--report", "a.sql", "--report", "a.csv"]);
    for name in ["a.json", "a.md", "a.sql", "a.csv"] {
        assert_eq!(fs::metadata(program.path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

/// A blocking open of a pipe waits for a writer, perhaps for ever.
#[test]
fn a_pipe_without_a_writer_is_refused_for_every_input_file() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    let pipe = program.path("pipe");
    mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
    let pipe = pipe.to_str().unwrap();
    let (sqlite, server) = (format!("sqlite:///{pipe}"), "mysql://cinder@127.0.0.1:9/cinder");
    let secret = format!("backup_swift_key=@{pipe}");
    for args in [
        &["apply", pipe, "--yes"] as &[&str],
        &["plan", "--evidence", pipe],
        &["check", "--from", pipe],
        &["check", "--resume", pipe],
        &["check", "--all", "--storage-option", &secret],
        &["scan", "--config-file", pipe],
        &["scan", "--database-url", server, "--password-file", pipe],
        &["scan", "--database-url", server, "--tls-ca", pipe],
        &["scan", "--database-url", &sqlite],
    ] {
        // A command that waits for ever would block the whole test.
        let direct = program.command(args);
        let mut command = Command::new("timeout");
        command.arg("60").arg(direct.get_program()).args(direct.get_args()).current_dir(program.path("."));
        command.env_clear().envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        let said = answer(&mut command);
        assert!(said.stderr.contains("it is a pipe without a writer"), "{args:?} {:?} {}", said.code, said.stderr);
        assert!(matches!(said.code, Some(2 | 10)), "{args:?} {:?} {}", said.code, said.stderr);
    }
    let said = answer(Command::new("timeout").arg("60").arg(binary()).args(["history", "list", "--audit-log", pipe]).env_clear());
    assert!(said.stderr.contains("it is a pipe without a writer"), "{}", said.stderr);
    // A pipe with a writer works like a file.
    program.expect(0, &["plan", "--out", "plan.json"]);
    for given in ["<(sleep 0.2; cat plan.json)", "/dev/stdin < plan.json", "<(cat plan.json)"] {
        let direct = program.command(&["apply", "--dry-run", "--detailed-exitcode"]);
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("exec \"$0\" \"$@\" {given}")]).arg(direct.get_program()).args(direct.get_args());
        shell.env_clear().env("PATH", "/usr/bin:/bin").env("CINDER_DATABASE_URL", database.url()).current_dir(program.path("."));
        let said = answer(&mut shell);
        assert_eq!(said.code, Some(3), "{given} {}", said.stderr);
    }
}

/// The length is checked before anything is read.
#[test]
fn a_file_above_its_limit_is_refused_without_reading_it() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    let large = File::create(program.path("large.json")).unwrap();
    large.set_len(1 << 31).unwrap();
    let mut refusals = Refusals::of(&program);
    for args in [
        &["apply", "large.json", "--yes"] as &[&str],
        &["plan", "--evidence", "large.json"],
        &["check", "--from", "large.json"],
        &["check", "--resume", "large.json"],
        &["check", "--from", "/dev/zero"],
        &["apply", "/dev/zero", "--yes"],
        &["plan", "--evidence", "/dev/zero"],
    ] {
        refusals.refuse(2, args);
    }
    insta::assert_snapshot!(refusals.said, @r"
    $ apply large.json --yes
    error: large.json is not a plan of this program: expected value at line 1 column 1; nothing was changed
    $ plan --evidence large.json
    error: large.json is not what `check --format json` writes: expected value at line 1 column 1
    $ check --from large.json
    error: large.json is not a document of `scan --format json`: expected value at line 1 column 1
    $ check --resume large.json
    error: large.json is not what `check --format json` writes: expected value at line 1 column 1
    $ check --from /dev/zero
    error: /dev/zero is not a document of `scan --format json`: expected value at line 1 column 1
    $ apply /dev/zero --yes
    error: /dev/zero is not a plan of this program: expected value at line 1 column 1; nothing was changed
    $ plan --evidence /dev/zero
    error: /dev/zero is not what `check --format json` writes: expected value at line 1 column 1
    ");
}
