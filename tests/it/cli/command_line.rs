//! Unknown options, values and backups.

use std::fs;

use cinder_backup_repair::db::Engine;

use super::{Refusals, stuck};
use crate::database::changes;
use crate::program::{Program, answer, bare};
use crate::schemas::{Columns, fresh};

#[test]
fn unknown_options_and_values_are_refused() {
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
        &["scan", "--older-than", "99999d"],
        &["scan", "--older-than", "-1h"],
        &["scan", "--status", "garbage"],
        &["scan", "--limit", "0"],
        &["scan", "--limit", "many"],
        &["repair", "--yes", "--to", "removed"],
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
      [possible values: table, json, jsonl, yaml, csv, value]

      tip: a similar value exists: 'yaml'

    For more information, try '--help'.
    $ scan -c Nope
    error: unknown column "Nope" in --column; the columns are Kind, ID, Name, Status, Host, Age, Verdict, Proposed, Evidence
    $ plan -c Nope --out new.json
    error: unknown column "Nope" in --column; the columns are Unit, Kind, ID, Name, Status, Changes, Evidence
    $ repair --yes -c Nope
    error: unknown column "Nope" in --column; the columns are Unit, Kind, ID, Name, Outcome, Changes, Reason
    $ scan --older-than 1w
    error: invalid value '1w' for '--older-than <SPAN>': "1w" is not a time span: use for example 90s, 15m, 2h or 1d

    For more information, try '--help'.
    $ scan --older-than 99999d
    error: invalid value '99999d' for '--older-than <SPAN>': "99999d" is longer than a hundred years, the longest time span

    For more information, try '--help'.
    $ scan --older-than -1h
    error: invalid value '-1h' for '--older-than <SPAN>': "-1h" is not a time span: use for example 90s, 15m, 2h or 1d

    For more information, try '--help'.
    $ scan --status garbage
    error: "garbage" is not a status: use one of creating, restoring, deleting, null, error, error_deleting, backing-up, restoring-backup
    $ scan --limit 0
    error: --limit must be at least 1
    $ scan --limit many
    error: invalid value 'many' for '--limit <N>': "many" is not an integer from 0, or too large

    For more information, try '--help'.
    $ repair --yes --to removed
    error: invalid value 'removed' for '--to <STATUS>'
      [possible values: available, error, deleted]

    For more information, try '--help'.
    $ repair --yes --batch-size 0
    error: invalid value '0' for '--batch-size <N>': must be at least 1

    For more information, try '--help'.
    $ repair --yes --max-changes -1
    error: invalid value '-1' for '--max-changes <N>': "-1" is not an integer from 0, or too large

    For more information, try '--help'.
    $ repair --yes --service-down-time 1s
    error: --service-down-time 1 s is less than twice report_interval (1 s), so working services would look down; use --assume-dead HOST for a service that is known to be down
    $ scan --tls-mode perhaps
    error: invalid value 'perhaps' for '--tls-mode <MODE>': "perhaps" is not a TLS mode: use disable, prefer, require, verify-ca or verify-full

    For more information, try '--help'.
    $ scan ''
    error: backup 1 on the command line is empty; give an id or a name
    $ man frobnicate
    error: "frobnicate" is not a command
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
fn unknown_and_ambiguous_backups_are_refused() {
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
    error: no live backup has the id or name "nosuch"; it may have been deleted, or be in another database
    $ repair - --yes
    error: standard input lists no ids: nothing to do
    $ scan -
    error: standard input lists no ids: nothing to do
    $ repair % --yes
    error: no live backup has the id or name "%"; it may have been deleted, or be in another database
    $ repair --yes --max-changes 1
    error: 2 units would be changed, more than the 1 of --max-changes; nothing was changed
    hint: review them with --dry-run, then use a higher --max-changes or select fewer
    "#);
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    // More backups than --yes alone allows.
    for number in 0..24 {
        stuck(&database, &format!("more {number}"));
    }
    let before = database.rows_by_id();
    assert!(refusals.refuse(6, &["repair", "--yes"]).contains("more than the 25 of --max-changes"));
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    program.expect(0, &["repair", "--yes", "--dry-run"]);
    // By name and from standard input.
    let (id, _) = stuck(&database, "by name");
    let document = program.json(0, &["repair", "by name", "--yes"]);
    assert_eq!(document["units"][0]["id"], id.as_str());
    let list = program.path("ids");
    fs::write(&list, format!("{}\n\n  {}\n", twins[0], twins[1])).unwrap();
    let answer = answer(program.command(&["repair", "-", "--yes", "-f", "json"]).stdin(fs::File::open(list).unwrap()));
    assert_eq!(answer.json()["summary"]["applied"], 2, "{}", answer.stderr);
}

/// The order of checks: command line, terminal, database.
#[test]
fn the_command_line_is_checked_before_files_and_connections() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    program.expect(0, &["plan", "--out", "plan.json"]);
    program.expect(0, &["repair", "--yes"]);
    let run = program.last_run();
    fs::write(program.path("empty.json"), "").unwrap();
    let unreachable = program.with_url("sqlite:////nonexistent/cinder.sqlite");
    for (args, expected) in [
        (&["undo", "20260101T000000Z-00000000"] as &[&str], "no run 20260101T000000Z-00000000"),
        (&["undo", &run, "-c", "Nope"], "Nope"),
        (&["undo", &run], "cannot ask for confirmation"),
        (&["undo", &run, "--yes"], "no SQLite database"),
        (&["apply", "empty.json"], "is empty"),
        (&["apply", "plan.json", "-c", "Nope"], "Nope"),
        (&["apply", "plan.json"], "cannot ask for confirmation"),
        (&["apply", "plan.json", "--yes"], "no SQLite database"),
        (&["repair", "-c", "Nope"], "Nope"),
        (&["repair", ""], "is empty"),
        (&["repair"], "cannot ask for confirmation"),
        (&["repair", "--yes"], "no SQLite database"),
    ] {
        let answer = unreachable.run(args);
        let said = answer.stderr.lines().collect::<Vec<_>>().join(" ");
        assert!(said.contains(expected), "{args:?}: {said}");
        assert_eq!(answer.code, Some(if expected == "no SQLite database" { 10 } else { 2 }), "{args:?}: {said}");
    }
}
