//! A plan as an SQL script for the server's own client, for hosts where this program may not run.
//!
//! The script keeps the rules of the plan: a unit is one transaction, and every UPDATE is guarded and must match exactly one row.
//! Otherwise the unit is rolled back and the script stops. The engines differ in how a client is stopped:
//!
//! - SQLite: an INSERT into a temporary table whose CHECK constraint accepts only the count 1. Its conflict clause is ROLLBACK, so the
//!   transaction is rolled back even if the caller ignores `.bail`.
//! - MySQL and MariaDB have no IF outside stored programs. The script prepares `DO 0` or, after a wrong count, a sentence that is
//!   not SQL, which the error message then shows. The COMMIT is prepared in the same way, so that `--force` or an interactive `source`,
//!   which continue after errors, cannot commit a part of a unit.
//! - PostgreSQL: the unit is one DO block that raises an exception.
//!
//! May use `domain`, `plan`, `report::safe` and the engine's name only. The values are already in the statements (`db::literal`).

use std::io;

use super::safe;
use crate::db::Engine;
use crate::domain::Table;
use crate::domain::text::count;
use crate::plan::Plan;

/// One transaction of a script.
pub struct ScriptUnit {
    /// Its number in the plan.
    pub number: usize,
    /// What it does, for example `backup 7b1e… "nightly": creating -> error`; hostile text.
    pub title: String,
    /// The UPDATEs, in lock order.
    pub statements: Vec<ScriptStatement>,
    /// The reasons, one line each; hostile text.
    pub evidence: Vec<String>,
    /// Why the script leaves the unit out, if it does.
    pub left_out: Option<&'static str>,
}

/// One UPDATE of a [`ScriptUnit`].
pub struct ScriptStatement {
    /// What it does, for example `update the backup`.
    pub task: String,
    /// The UPDATE with its values, from [`crate::db::literal::inline`].
    pub sql: String,
    /// The row whose new `updated_at` the guard of a later unit needs, if it is such a row.
    pub keep: Option<Kept>,
}

/// A row that several units change. Each guard requires the row as the unit before left it. The database chose its `updated_at`, so the
/// script stores that.
pub struct Kept {
    /// Its number among such rows.
    pub number: usize,
    pub table: Table,
    /// Its id, as a literal of the engine.
    pub id: String,
}

/// The expression for the stored `updated_at` of a row. If none was stored, because its unit was rolled back in a client that continues
/// after errors, the expression matches nothing or is an error.
pub fn kept_time(engine: Engine, number: usize) -> String {
    match engine {
        Engine::Sqlite => format!("coalesce((SELECT updated_at FROM temp.cbr_row WHERE number = {number}), '')"),
        Engine::Mysql | Engine::Mariadb => format!("coalesce(@cbr_row_{number}, '')"),
        Engine::Postgresql => format!("current_setting('cbr.row_{number}')"),
    }
}

/// The statement that stores the `updated_at` of a row.
fn keep_time(engine: Engine, kept: &Kept) -> String {
    let Kept { number, table, id } = kept;
    match engine {
        Engine::Sqlite => {
            format!("INSERT OR REPLACE INTO temp.cbr_row (number, updated_at) SELECT {number}, updated_at FROM {table} WHERE id = {id};\n")
        }
        Engine::Mysql | Engine::Mariadb => {
            format!("SET @cbr_row_{number} = (SELECT CAST(updated_at AS CHAR) FROM {table} WHERE id = {id});\n")
        }
        Engine::Postgresql => format!(
            "PERFORM set_config('cbr.row_{number}', to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US'), false) FROM {table} WHERE id = {id};\n"
        ),
    }
}

/// Writes the script of a plan, of whose units it applies so many.
pub fn sql_script(
    out: &mut dyn io::Write,
    engine: Engine,
    plan: &Plan,
    applied: usize,
    units: impl IntoIterator<Item = io::Result<ScriptUnit>>,
) -> io::Result<()> {
    let applied = count(applied, "unit");
    write_header(out, engine, plan, &applied)?;
    writeln!(out, "\n{}", prologue(engine))?;
    for unit in units {
        let unit = &unit?;
        writeln!(out)?;
        comment(out, &format!("Unit {}: {}", unit.number, unit.title))?;
        for line in &unit.evidence {
            comment(out, &format!("because: {line}"))?;
        }
        if let Some(why) = unit.left_out {
            comment(out, &format!("LEFT OUT: {why}"))?;
            continue;
        }
        match engine {
            Engine::Sqlite => write_sqlite(out, unit)?,
            Engine::Mysql | Engine::Mariadb => write_mysql(out, unit)?,
            Engine::Postgresql => write_postgres(out, unit)?,
        }
    }
    writeln!(out)?;
    comment(out, &format!("End of the script: {applied}. If no error was shown, all are committed."))
}

/// The session settings, and the statements by which a failed guard stops the script.
fn prologue(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => include_str!("script/sqlite.sql").trim_ascii_end(),
        Engine::Mysql | Engine::Mariadb => include_str!("script/mysql.sql").trim_ascii_end(),
        Engine::Postgresql => include_str!("script/postgres.sql").trim_ascii_end(),
    }
}

fn write_header(out: &mut dyn io::Write, engine: Engine, plan: &Plan, applied: &str) -> io::Result<()> {
    let run = match engine {
        Engine::Sqlite => "sqlite3 -batch FILE < THIS-SCRIPT",
        Engine::Mysql => "mysql --batch --skip-column-names DATABASE < THIS-SCRIPT",
        Engine::Mariadb => "mariadb --batch --skip-column-names DATABASE < THIS-SCRIPT",
        Engine::Postgresql => "psql -X -qAt -d DATABASE -f THIS-SCRIPT",
    };
    let lines = [
        format!("Repair of Cinder backups, {applied}, written by {}", plan.program),
        String::new(),
        format!("Database: {}, {}", engine.name(), plan.database),
        format!("Plan:     {}", plan.id),
        format!("SHA-256:  {}", plan.sha256),
        format!("Rows read at {} by the database's clock", plan.taken_at),
        String::new(),
        format!("Run it with: {run}"),
        String::new(),
        "Each unit is one transaction. Each UPDATE names the row and all its planned values, and must match exactly one row.".to_owned(),
        "If it does not, because the row has changed, the unit is rolled back and the script stops with an error. Units".to_owned(),
        "before it stay committed; make a new plan for the others. Running the script again is safe: it stops at the first".to_owned(),
        "unit, whose guard no longer matches. If several units change one row (the counter of a parent of several".to_owned(),
        "increments), each guard requires the row as the unit before left it, including updated_at.".to_owned(),
        String::new(),
        "Unlike the program, this script does not check that this is the right database, and does not check again whether a".to_owned(),
        "cinder-backup works on a row. It writes no audit log, so history and undo do not know about it. It does not retry".to_owned(),
        "after a deadlock or a lock timeout.".to_owned(),
    ];
    lines.iter().try_for_each(|line| comment(out, line))
}

/// A comment of one line. No character of the text can end the line.
fn comment(out: &mut dyn io::Write, text: &str) -> io::Result<()> {
    writeln!(out, "{}", format!("-- {}", safe::terminal(text)).trim_end())
}

/// The UPDATE without its final semicolon.
fn body(statement: &ScriptStatement) -> &str {
    statement.sql.trim().trim_end_matches(';').trim_end()
}

/// The unit and the task, in characters that need no quoting.
fn place(unit: &ScriptUnit, statement: &ScriptStatement) -> String {
    let task: String = statement.task.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').collect();
    format!("unit {}, {task}", unit.number)
}

/// The statement that stores the time of a row, if a later unit needs it.
fn kept(engine: Engine, statement: &ScriptStatement) -> String {
    statement.keep.as_ref().map(|kept| keep_time(engine, kept)).unwrap_or_default()
}

fn write_sqlite(out: &mut dyn io::Write, unit: &ScriptUnit) -> io::Result<()> {
    writeln!(out, "BEGIN IMMEDIATE;")?;
    for statement in &unit.statements {
        writeln!(out, "{};", body(statement))?;
        writeln!(out, "INSERT OR ROLLBACK INTO temp.cbr_guard (place, matched) VALUES ('{}', changes());", place(unit, statement))?;
        write!(out, "{}", kept(Engine::Sqlite, statement))?;
    }
    writeln!(out, "COMMIT;")?;
    writeln!(out, "SELECT 'unit {} is committed';", unit.number)
}

fn write_mysql(out: &mut dyn io::Write, unit: &ScriptUnit) -> io::Result<()> {
    writeln!(out, "START TRANSACTION;")?;
    for statement in &unit.statements {
        let place = place(unit, statement);
        writeln!(out, "{};", body(statement))?;
        writeln!(out, "SET @cbr_ok = @cbr_ok AND ROW_COUNT() = 1;")?;
        writeln!(out, "SET @cbr_step = IF(@cbr_ok, 'DO 0', '{place}: not exactly one row matched; rolled back');")?;
        writeln!(out, "PREPARE cbr_step FROM @cbr_step;\nEXECUTE cbr_step;")?;
        write!(out, "{}", kept(Engine::Mysql, statement))?;
    }
    writeln!(out, "SET @cbr_step = IF(@cbr_ok, 'COMMIT', 'unit {}: rolled back');", unit.number)?;
    writeln!(out, "PREPARE cbr_step FROM @cbr_step;\nEXECUTE cbr_step;")?;
    writeln!(out, "-- No effect after the COMMIT; without one it rolls the unit back.\nROLLBACK;")?;
    writeln!(out, "SELECT IF(@cbr_ok, 'unit {0} is committed', 'unit {0} is NOT committed') AS outcome;", unit.number)
}

fn write_postgres(out: &mut dyn io::Write, unit: &ScriptUnit) -> io::Result<()> {
    let mut block = String::new();
    for statement in &unit.statements {
        let place = place(unit, statement);
        block.push_str(&format!("{};\n", body(statement)));
        block.push_str("GET DIAGNOSTICS cbr_matched = ROW_COUNT;\n");
        block.push_str("IF cbr_matched <> 1 THEN\n");
        block.push_str(&format!("    RAISE EXCEPTION '{place}: % rows matched instead of one; the unit is rolled back', cbr_matched;\n"));
        block.push_str("END IF;\n");
        block.push_str(&kept(Engine::Postgresql, statement));
    }
    let tag = dollar_tag(&block);
    writeln!(out, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;")?;
    writeln!(out, "DO {tag}\n#variable_conflict use_column\nDECLARE\n    cbr_matched bigint;\nBEGIN\n{block}END\n{tag};")?;
    // A setting is rolled back with its transaction, so it shows the unit's outcome in a client that continues after errors.
    writeln!(out, "SET cbr.unit = '{}';\nCOMMIT;", unit.number)?;
    writeln!(
        out,
        "SELECT 'unit {0} is ' || CASE current_setting('cbr.unit', true) WHEN '{0}' THEN '' ELSE 'NOT ' END || 'committed';",
        unit.number
    )
}

/// A dollar quote that is not in the text.
fn dollar_tag(text: &str) -> String {
    let mut tag = "$cbr$".to_owned();
    let mut number = 0_u32;
    while text.contains(&tag) {
        number += 1;
        tag = format!("$cbr{number}$");
    }
    tag
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
