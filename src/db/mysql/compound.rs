//! Several statements in one trip to MariaDB: a compound statement, prepared like any other, so the values are still parameters.
//!
//! The first error ends it, and the steps before stay part of the transaction, as if each statement had been sent alone. Needs MariaDB
//! 10.6.

use mysql::prelude::Queryable;

use super::errors::code;
use super::{COMPOUND_BEGIN, COMPOUND_END, MATCHED, Mysql, values};
use crate::db::statements::EngineStatement;
use crate::db::{DbError, DbErrorKind, PipelineStep, StepResult};
use crate::domain::Value;

/// The most steps of a compound statement. Each number and order of steps is a statement of its own for the server.
const MOST: usize = 12;

/// What a server answers that cannot prepare a compound statement: a syntax error, that it cannot, or that it has too many.
const NOT_SUPPORTED: [u16; 3] = [1064, 1295, 1461];

/// Rows that a statement returned.
type Rows = Vec<Vec<Value>>;

/// How many compound statements are kept prepared.
const KEPT: usize = 48;

impl Mysql {
    /// Whether this many steps are sent as one compound statement.
    pub(super) fn may_compound(&self, steps: usize) -> bool {
        self.compounds.is_some() && (1..=MOST).contains(&steps)
    }

    /// Runs `heads`, which have no parameters, and the steps. Returns the first row of each head that returns rows, and the results of the
    /// steps; `None` if the server does not know compound statements, in which case nothing has run.
    pub(super) fn run_compound(
        &mut self,
        heads: &[EngineStatement],
        steps: &[PipelineStep],
    ) -> Result<Option<(Rows, Vec<StepResult>)>, DbError> {
        let engine = self.server.engine;
        let mut statements: Vec<EngineStatement> = heads.to_vec();
        let mut params = Vec::new();
        for step in steps {
            let (PipelineStep::Query(statement, values) | PipelineStep::Execute(statement, values)) = step;
            statements.push(statement.of(engine));
            if let PipelineStep::Execute(..) = step {
                statements.push(MATCHED);
            }
            params.extend(values::bind(values));
        }
        let prepared = match self.prepare_compound(&statements) {
            Err(error) if code(&error).is_some_and(|code| NOT_SUPPORTED.contains(&code)) => {
                self.compounds = None;
                return Ok(None);
            }
            Err(error) => return Err(self.record(COMPOUND_BEGIN.name, &error)),
            Ok(prepared) => prepared,
        };
        let mut sets: Vec<Rows> = Vec::new();
        if let Err(error) = read_sets(self.conn()?, &prepared, params, &mut sets) {
            let returning = statements.iter().filter(|statement| returns_rows(**statement));
            let failed = returning.skip(sets.len()).map(|statement| statement.name).next();
            return Err(self.record(failed.unwrap_or(COMPOUND_END.name), &error));
        }
        let mut sets = sets.into_iter();
        let state = heads.iter().filter(|head| returns_rows(**head)).map(|_| sets.next().and_then(|rows| rows.into_iter().next()));
        let state: Rows = state.map(Option::unwrap_or_default).collect();
        let results = steps.iter().map(|step| {
            let rows = sets.next()?;
            Some(match step {
                PipelineStep::Query(..) => StepResult::Rows(rows),
                PipelineStep::Execute(..) => StepResult::Matched(u64::try_from(rows.first()?.first()?.as_integer()?).ok()?),
            })
        });
        let results: Option<Vec<StepResult>> = results.collect();
        results.map(|results| Some((state, results))).ok_or_else(|| {
            self.failed = true;
            DbError::new(DbErrorKind::Other, "the server did not answer every statement")
        })
    }

    /// The compound statement of these statements.
    fn prepare_compound(&mut self, statements: &[EngineStatement]) -> mysql::Result<mysql::Statement> {
        let Self { conn: Ok(conn), compounds: Some(compounds), .. } = self else {
            return Err(mysql::Error::IoError(std::io::ErrorKind::NotConnected.into()));
        };
        let names: Vec<&'static str> = statements.iter().map(|statement| statement.name).collect();
        if let Some(known) = compounds.get(&names) {
            return Ok(known.clone());
        }
        let begin = COMPOUND_BEGIN.text.trim_end().trim_end_matches(';');
        let texts = statements.iter().map(|statement| statement.text);
        let text: Vec<&str> = [begin].into_iter().chain(texts).chain([COMPOUND_END.text]).collect();
        // The driver closes the least recently used of all its statements if they are too many, and does not know which ones are used here.
        if compounds.len() >= KEPT {
            compounds.drain().try_for_each(|(_, old)| conn.close(old))?;
        }
        let prepared = conn.prep(text.join("\n"))?;
        compounds.insert(names, prepared.clone());
        Ok(prepared)
    }
}

/// Whether a statement returns rows in a compound statement: neither those that begin a transaction nor an UPDATE do.
fn returns_rows(statement: EngineStatement) -> bool {
    !statement.name.contains("_begin_") && !statement.name.contains("_update")
}

/// Runs the statement and keeps all rows that it returns, also those before an error.
fn read_sets(conn: &mut mysql::Conn, statement: &mysql::Statement, params: Vec<mysql::Value>, sets: &mut Vec<Rows>) -> mysql::Result<()> {
    let mut answer = conn.exec_iter(statement, params)?;
    let mut cells = Vec::new();
    while let Some(set) = answer.iter() {
        // The last answer has no columns, and neither has an error.
        let has_columns = !set.columns().as_ref().is_empty();
        let mut rows = Vec::new();
        for row in set {
            values::decode(row?, &mut cells);
            rows.push(std::mem::take(&mut cells));
        }
        if has_columns {
            sets.push(rows);
        }
    }
    Ok(())
}
