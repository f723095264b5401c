//! Which database a command uses, how it is named, and what a suggested command needs to find it again.

use std::fs;
use std::process::Command;

use cinder_backup_repair::db::Engine;

use super::stuck;
use crate::database::changes;
use crate::program::{Answer, Program, answer, bare, binary};
use crate::schemas::{Columns, fresh};

/// Practice on a copy, in a shell whose environment names the production database.
#[test]
fn a_cinder_conf_on_the_command_line_wins_over_the_environment() {
    let (practice, production) = (fresh(Engine::Sqlite, Columns::Full), fresh(Engine::Sqlite, Columns::Full));
    for database in [&practice, &production] {
        stuck(database, "nightly");
    }
    let before = production.rows_by_id();
    let program = Program::on(production.url());
    let conf = program.path("practice.conf");
    fs::write(&conf, format!("[database]\nconnection = {}\n", practice.url())).unwrap();
    let run = |args: &[&str]| -> Answer {
        let mut command = bare(args);
        command.env("CINDER_DATABASE_URL", production.url()).arg("--config-file").arg(&conf).arg("--audit-log").arg(program.log());
        answer(command.current_dir(program.path("")))
    };
    let repaired = run(&["repair", "--yes", "--older-than", "0s"]);
    assert_eq!(repaired.code, Some(0), "{}", repaired.stderr);
    assert_eq!(practice.value("SELECT status FROM backups").as_deref(), Some("error"));
    assert_eq!(changes(&before, &production.rows_by_id()), []);
    let warning = format!(
        "warning: two databases are configured: {} from {}:2 [database] connection is used, and {} from CINDER_DATABASE_URL is ignored",
        practice.url(),
        conf.display(),
        production.url()
    );
    assert!(repaired.stderr.lines().any(|line| line == warning), "{warning}\n{}", repaired.stderr);
    // The suggested command uses the same database, whatever the environment names.
    let undo = repaired.stderr.lines().find_map(|line| line.strip_prefix("To undo it: ")).unwrap();
    assert!(undo.contains(&format!("--config-file {}", conf.display())), "{undo}");
    // The URL on the command line wins over both.
    let listed = run(&["scan", "--database-url", &production.url()]);
    assert!(listed.stderr.contains(&format!("1 stuck (of 1 live backups in {})", production.url())), "{}", listed.stderr);
    assert_eq!(listed.stderr.matches("two databases are configured").count(), 1, "{}", listed.stderr);
    // A database that is named twice is one database.
    let alike = answer(
        bare(&["scan", "--database-url", &production.url()]).env("CINDER_DATABASE_URL", production.url()).current_dir(program.path("")),
    );
    assert!(!alike.stderr.contains("two databases"), "{}", alike.stderr);
}

#[test]
fn every_command_names_its_database() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    let url = database.url();
    let says = |args: &[&str]| {
        let answer = program.run(args);
        assert!(answer.stderr.contains(&url), "{args:?}: {}", answer.stderr);
        answer
    };
    says(&["scan"]);
    says(&["check", "--storage-path", "/nonexistent"]);
    says(&["plan", "--out", "plan.json", "--report", "plan.md", "--report", "plan.sql"]);
    for report in ["plan.md", "plan.sql"] {
        assert!(fs::read_to_string(program.path(report)).unwrap().contains(&url), "{report}");
    }
    says(&["apply", "plan.json", "--dry-run"]);
    says(&["repair", "--dry-run"]);
    let applied = says(&["apply", "plan.json", "--yes"]);
    let later = format!("\n  cinder-backup-repair check {}", database.value("SELECT id FROM backups").unwrap());
    assert!(applied.stderr.contains(&format!("{later} --database-url {url}")), "{}", applied.stderr);
    let run = program.last_run();
    says(&["undo", &run, "--dry-run"]);
    says(&["history", "reconcile"]);
    for args in [&["scan"] as &[&str], &["plan"], &["repair", "--dry-run"], &["history", "reconcile"]] {
        assert_eq!(program.json(0, args)["database"]["location"], url.as_str(), "{args:?}");
    }
    assert_eq!(
        program.run(&["check", "-f", "json", "--all", "--storage-path", "/nonexistent"]).json()["database"]["location"],
        url.as_str()
    );
    // For a plan of another database both are named.
    let other = fresh(Engine::Sqlite, Columns::Full);
    let refused = answer(program.command(&["apply", "plan.json", "--yes"]).env("CINDER_DATABASE_URL", other.url()));
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains(&url) && refused.stderr.contains(&other.url()), "{}", refused.stderr);
    let refused = answer(program.command(&["undo", &run, "--yes"]).env("CINDER_DATABASE_URL", other.url()));
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains(&url) && refused.stderr.contains(&other.url()), "{}", refused.stderr);
}

#[test]
fn suggested_commands_work_in_another_shell() {
    let (database, other) = (fresh(Engine::Sqlite, Columns::Full), fresh(Engine::Sqlite, Columns::Full));
    stuck(&database, "nightly");
    let (before, others) = (database.rows_by_id(), other.rows_by_id());
    let program = Program::on(database.url());
    let type_it = |said: &Answer, told: &str| -> Answer {
        let line = said.stderr.lines().find_map(|line| line.strip_prefix(told)).unwrap_or_else(|| panic!("{told}\n{}", said.stderr));
        let line = line.replacen("cinder-backup-repair", &binary().display().to_string(), 1);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{line} --yes")]).current_dir(program.path("."));
        // With another default database.
        shell.env_clear().env("PATH", "/usr/bin:/bin").env("CINDER_DATABASE_URL", other.url());
        let answer = answer(&mut shell);
        assert_eq!(answer.code, Some(0), "{line}\n{}", answer.stderr);
        answer
    };
    let planned = program.expect(0, &["plan", "--out", "it's a plan.json"]);
    let applied = type_it(&planned, "To apply it: ");
    assert!(!changes(&before, &database.rows_by_id()).is_empty(), "{}", applied.stderr);
    type_it(&applied, "To undo it: ");
    let left = changes(&before, &database.rows_by_id());
    assert!(left.iter().all(|change| change.column == "updated_at"), "{left:?}");
    assert_eq!(changes(&others, &other.rows_by_id()), []);
}

/// The URL of a suggested command has no password; the command finds it where the first one did.
#[test]
fn a_suggested_command_holds_no_password() {
    let database = fresh(Engine::Mariadb, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.tcp_url());
    let planned = program.expect(0, &["plan", "--out", "plan.json", "--report", "plan.md"]);
    let line = planned.stderr.lines().find_map(|line| line.strip_prefix("To apply it: ")).unwrap();
    let password = crate::servers::ADMIN_PASSWORD;
    for text in
        [line.to_owned(), fs::read_to_string(program.path("plan.md")).unwrap(), fs::read_to_string(program.path("plan.json")).unwrap()]
    {
        assert!(!text.contains(password), "{text}");
    }
    assert!(line.contains("--database-url 'mysql"), "{line}");
    let line = line.replacen("cinder-backup-repair", &binary().display().to_string(), 1);
    let run = |url: Option<String>| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{line} --dry-run")]).current_dir(program.path(".")).env_clear().env("PATH", "/usr/bin:/bin");
        answer(shell.envs(url.map(|url| ("CINDER_DATABASE_URL", url))))
    };
    let same_shell = run(Some(database.tcp_url()));
    assert_eq!(same_shell.code, Some(0), "{line}\n{}", same_shell.stderr);
    let another = run(None);
    assert_eq!(another.code, Some(12), "{}", another.stderr);
    assert!(another.stderr.contains("use --password-file or CINDER_DATABASE_PASSWORD"), "{}", another.stderr);
}
