//! A plan as SQL for the server's own client, for a place where this program may not run.
//!
//! The script keeps the plan's rules: a unit is one transaction, every UPDATE is guarded and must match exactly one row,
//! and at the first that does not the unit is rolled back and the script stops. How a client is made to stop differs:
//!
//! - SQLite: a row in a temporary table whose CHECK constraint holds for the count 1 alone. The conflict clause is
//!   ROLLBACK, so the transaction is gone even where a caller ignores `.bail`.
//! - MySQL and MariaDB have no IF outside of stored programs. A prepared statement is made of `DO 0` or, after a wrong count, of a
//!   sentence that is no SQL and comes back in the error message. The COMMIT is prepared likewise, so that `--force` or an
//!   interactive `source`, which go on after errors, still cannot commit a part of a unit.
//! - PostgreSQL: the unit is one DO block that raises an exception.
//!
//! May use `report::safe` and the engine's name only. The statements come with their values inlined (`db::literal`).

use std::io;

use super::safe;
use crate::db::Engine;

/// What a script says about itself in the comment at its top. All of it may be hostile text.
#[derive(Debug, Clone, Copy)]
pub struct ScriptHeader<'a> {
    /// Name and version of the program that wrote it.
    pub program: &'a str,
    /// The plan that it was made from.
    pub plan_id: &'a str,
    /// The plan's digest.
    pub sha256: &'a str,
    /// When the rows were read by the database's clock, RFC 3339.
    pub taken_at: &'a str,
    /// The database that the script is for: its location and its identity.
    pub database: &'a str,
}

/// One transaction of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptUnit {
    /// Its number in the plan.
    pub number: usize,
    /// What it does, for example `backup 7b1e… "nightly": creating -> error`; hostile text.
    pub title: String,
    /// The UPDATEs in the order in which they lock their rows.
    pub statements: Vec<ScriptStatement>,
    /// Why; hostile text, one line each.
    pub evidence: Vec<String>,
    /// Why the script leaves it to a new plan, if it does.
    pub left_out: Option<&'static str>,
}

/// One UPDATE of a [`ScriptUnit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptStatement {
    /// What it does, for example `update the backup`.
    pub task: String,
    /// The UPDATE with its values in it, as [`crate::db::literal::inline`] gives it.
    pub sql: String,
    /// The row's place among those whose new time the guard of a later unit expects, if it is one of them.
    pub keep: Option<Kept>,
}

/// A row that several units change. Each one's guard expects what the one before it has made of the row, and when that was is the
/// database's to say: so the script keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its number among such rows.
    pub number: usize,
    /// Its table.
    pub table: &'static str,
    /// Its id, as a literal of the engine's.
    pub id: String,
}

/// The expression for the `updated_at` of a kept row. Where none was kept, as after a unit that was rolled back in a client that
/// goes on, it equals nothing, or is an error.
pub fn kept_time(engine: Engine, number: usize) -> String {
    match engine {
        Engine::Sqlite => format!("coalesce((SELECT updated_at FROM temp.cbr_row WHERE number = {number}), '')"),
        Engine::Mysql | Engine::Mariadb => format!("coalesce(@cbr_row_{number}, '')"),
        Engine::Postgresql => format!("current_setting('cbr.row_{number}')"),
    }
}

/// The statement that keeps the time.
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

/// Writes the script.
pub fn sql_script(out: &mut dyn io::Write, engine: Engine, header: &ScriptHeader<'_>, units: &[ScriptUnit]) -> io::Result<()> {
    write_header(out, engine, header, units)?;
    writeln!(out, "\n{}", prologue(engine))?;
    for unit in units {
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
    comment(out, &format!("End of the script: {} in all. If no error was shown, all are committed.", count(units)))
}

/// The session's settings that the statements rely on, and the means by which a failed guard stops the script.
pub fn prologue(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => include_str!("script/sqlite.sql").trim_ascii_end(),
        Engine::Mysql | Engine::Mariadb => include_str!("script/mysql.sql").trim_ascii_end(),
        Engine::Postgresql => include_str!("script/postgres.sql").trim_ascii_end(),
    }
}

fn write_header(out: &mut dyn io::Write, engine: Engine, header: &ScriptHeader<'_>, units: &[ScriptUnit]) -> io::Result<()> {
    let run = match engine {
        Engine::Sqlite => "sqlite3 -batch FILE < THIS-SCRIPT",
        Engine::Mysql => "mysql --batch --skip-column-names DATABASE < THIS-SCRIPT",
        Engine::Mariadb => "mariadb --batch --skip-column-names DATABASE < THIS-SCRIPT",
        Engine::Postgresql => "psql -X -qAt -d DATABASE -f THIS-SCRIPT",
    };
    let lines = [
        format!("Repair of Cinder backups, {}, written by {}", count(units), header.program),
        String::new(),
        format!("Database: {}, {}", engine.name(), header.database),
        format!("Plan:     {}", header.plan_id),
        format!("SHA-256:  {}", header.sha256),
        format!("Rows read at {} by the database's clock", header.taken_at),
        String::new(),
        format!("Run it with: {run}"),
        String::new(),
        "Each unit is one transaction. Each UPDATE names the row and everything that the plan saw in it, and must match".to_owned(),
        "exactly one row. Where one does not, because the row has changed since, its unit is rolled back and the script".to_owned(),
        "stops with an error; units before it stay committed. Make a new plan then. Running the script twice does no harm:".to_owned(),
        "it stops at the first unit, because that no longer matches. Where several units change one row (the counter of a".to_owned(),
        "parent that several increments rest on), each expects what the one before it made of it, its updated_at included.".to_owned(),
        String::new(),
        "What this script does not do, and applying the plan with the program does: it does not check that this is the right".to_owned(),
        "database, nor again whether a cinder-backup is at work on a row after all; it writes no audit log, so that history".to_owned(),
        "and undo know nothing of it; it does not try again after a deadlock or a lock timeout.".to_owned(),
    ];
    lines.iter().try_for_each(|line| comment(out, line))
}

/// How many units the script carries out.
fn count(units: &[ScriptUnit]) -> String {
    match units.iter().filter(|unit| unit.left_out.is_none()).count() {
        1 => "1 unit".to_owned(),
        number => format!("{number} units"),
    }
}

/// A comment of one line, whatever is in the text: nothing in it ends the line.
fn comment(out: &mut dyn io::Write, text: &str) -> io::Result<()> {
    writeln!(out, "{}", format!("-- {}", safe::terminal(text)).trim_end())
}

/// The UPDATE without the semicolon at its end.
fn body(statement: &ScriptStatement) -> &str {
    statement.sql.trim().trim_end_matches(';').trim_end()
}

/// The unit and the statement in words that need no quoting anywhere.
fn place(unit: &ScriptUnit, statement: &ScriptStatement) -> String {
    let task: String = statement.task.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').collect();
    format!("unit {}, {task}", unit.number)
}

/// What keeps the time of a statement's row, where a later unit asks for it.
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
    writeln!(out, "-- Undoes nothing after the COMMIT, and everything where there was none.\nROLLBACK;")?;
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
    // A setting goes back with its transaction, so it tells what became of the unit where a client went on after an error.
    writeln!(out, "SET cbr.unit = '{}';\nCOMMIT;", unit.number)?;
    writeln!(
        out,
        "SELECT 'unit {0} is ' || CASE current_setting('cbr.unit', true) WHEN '{0}' THEN '' ELSE 'NOT ' END || 'committed';",
        unit.number
    )
}

/// A dollar quote that does not occur in the text.
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
#[path = "script_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
