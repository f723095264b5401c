//! Parents whose counter is changed by several units of one run.

use cinder_backup_repair::db::Engine;

use super::TWO_HOURS;
use crate::database::Database;
use crate::program::Program;
use crate::rows::ago;
use crate::schemas::{Columns, fresh};

/// An increment of a parent with a wrong counter. With `first` the unit of the increment is before that of the counter.
fn wrong_counter(database: &Database, first: bool, recorded: i64) -> (String, String) {
    let (parent, child) = if first { ("d", "c") } else { ("c", "d") };
    let id = |letter: &str| letter.repeat(8) + "-0000-4000-8000-000000000001";
    let parent = database.backup(|row| row.id(id(parent)).num_dependent_backups(recorded));
    let child = database.backup(|row| row.id(id(child)).parent_id(&parent).status("creating").host("gone").age(TWO_HOURS));
    (parent, child)
}

#[test]
fn a_counter_that_an_increment_of_the_run_corrects_is_not_refused() {
    for first in [true, false] {
        let database = fresh(Engine::Sqlite, Columns::Full);
        let (parent, child) = wrong_counter(&database, first, 0);
        database.backup(|row| row.parent_id(&parent));
        let program = Program::on(database.url());
        let run = |how: &str| program.json(0, &["repair", how, "--fix-counters", "--to", "available", "--allow-unverified"]);
        // The unit of the increment also corrects the counter. If it is first, no other unit is needed.
        let units = if first { 1 } else { 2 };
        assert_eq!(run("--dry-run")["summary"]["planned"], units);
        let document = run("--yes");
        assert_eq!((&document["summary"]["applied"], &document["summary"]["refused"]), (&units.into(), &0.into()), "{document:#}");
        assert_eq!(database.cell("backups", &parent, "num_dependent_backups").as_deref(), Some("2"));
        assert_eq!(database.cell("backups", &child, "status").as_deref(), Some("available"));
        program.expect(0, &["undo", &program.last_run(), "--yes"]);
        assert_eq!(database.cell("backups", &parent, "num_dependent_backups").as_deref(), Some("0"));
    }
}

#[test]
fn a_counter_includes_the_increments_that_the_same_run_sets_to_error() {
    // An increment in error may or may not be counted. If its unit is first, a counter of 1 stays, and 5 becomes 1, not 0.
    for (recorded, units) in [(1, 1), (5, 2)] {
        let database = fresh(Engine::Sqlite, Columns::Full);
        let (parent, child) = wrong_counter(&database, true, recorded);
        let program = Program::on(database.url());
        let document = program.json(0, &["repair", "--yes", "--fix-counters"]);
        assert_eq!(document["summary"]["applied"], units, "{document:#}");
        assert_eq!(database.cell("backups", &parent, "num_dependent_backups").as_deref(), Some("1"));
        assert_eq!(database.cell("backups", &child, "status").as_deref(), Some("error"));
        assert_eq!(program.json(0, &["scan"])["findings"].as_array().unwrap().iter().filter(|finding| finding["id"] == parent).count(), 0);
    }
}

#[test]
fn a_parent_of_two_increments_is_one_row() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let parent = database.backup(|row| row.host("gone").updated_at(ago(TWO_HOURS)));
    for _ in 0..2 {
        database.backup(|row| row.parent_id(&parent).status("creating").host("gone").age(TWO_HOURS));
    }
    let program = Program::on(database.url());
    let answer = program.expect(0, &["plan", "--to", "available", "--allow-unverified", "--report", "plan.md"]);
    assert!(answer.stderr.contains("the plan changes 3 rows in 2 units, in sqlite:///"), "{}", answer.stderr);
    assert!(std::fs::read_to_string(program.path("plan.md")).unwrap().contains("\n3 rows in 2 units. "));
}
