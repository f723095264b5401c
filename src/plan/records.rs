//! A plan as a record stream, which is written and read unit by unit.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validate::UnitRules;
use super::{Plan, PlanBody, Purpose, Unit};
use crate::domain::record_stream::{Sign, StreamError, StreamKind, StreamReader, StreamWriter};
use crate::domain::{Body, CheckResult, ColumnSet, DatabaseInfo, Policy, SealError, Selection, digest};
use crate::spool::Spool;

/// The stream `cinder-backup-repair/plan-records`: the checks, then the units.
#[derive(Debug)]
pub struct PlanRecords;

impl StreamKind for PlanRecords {
    const SCHEMA: &'static str = "cinder-backup-repair/plan-records";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = PlanBody::KIND;
    const INSTEAD: &'static str = PlanBody::INSTEAD;
    type Head = PlanHead;
    type Record = PlanRecord;
    type End = PlanEnd;
}

/// The fields of a plan without its lists; see [`PlanBody`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlanHead {
    id: String,
    purpose: Purpose,
    undoes: Option<String>,
    taken_at: String,
    program: String,
    database: DatabaseInfo,
    columns: ColumnSet,
    policy: Policy,
    selection: Selection,
    heartbeats: BTreeMap<String, Option<String>>,
}

/// A record.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlanRecord {
    /// A check that the decision of a unit depends on.
    Check(Box<CheckResult>),
    /// A unit.
    Unit(Box<Unit>),
}

/// How much the plan changes.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlanEnd {
    units: usize,
    rows: usize,
}

/// Counts the rows that units change.
#[derive(Default)]
struct Rows(HashSet<u128>);

impl Rows {
    fn add(&mut self, unit: &Unit) {
        self.0.extend(unit.before.iter().map(|row| digest::short(&[&row.table.to_string(), &row.id])));
    }
}

impl Plan {
    /// Writes the plan as a stream, and returns the stream's digest.
    ///
    /// # Errors
    /// The writer's, and those of the temporary file.
    pub fn write_stream(&self, out: impl Write, sign: Option<Sign<'_>>) -> io::Result<String> {
        let body = &self.body;
        let head = PlanHead {
            id: body.id.clone(),
            purpose: body.purpose,
            undoes: body.undoes.clone(),
            taken_at: body.taken_at.clone(),
            program: body.program.clone(),
            database: body.database.clone(),
            columns: body.columns,
            policy: body.policy.clone(),
            selection: body.selection.clone(),
            heartbeats: body.heartbeats.clone(),
        };
        let mut writer = StreamWriter::<PlanRecords, _>::begin(out, &head, sign)?;
        for check in &body.checks {
            writer.add(&PlanRecord::Check(Box::new(CheckResult::clone(check))))?;
        }
        let mut rows = Rows::default();
        for unit in &body.units {
            let unit = unit?;
            rows.add(&unit);
            writer.add(&PlanRecord::Unit(Box::new(unit)))?;
        }
        writer.end(&PlanEnd { units: body.units.len(), rows: rows.0.len() })
    }

    /// Reads a plan from a stream, and makes sure that it was not edited and is consistent. Its digest and its signature are those of the
    /// stream.
    ///
    /// # Errors
    /// Another stream, one that was edited, and a plan that is not consistent.
    pub fn read_stream(input: impl BufRead) -> Result<Self, StreamError> {
        let (head, mut reader) = StreamReader::<PlanRecords, _>::begin(input)?;
        let PlanHead { id, purpose, undoes, taken_at, program, database, columns, policy, selection, heartbeats } = head;
        let (checks, units) = (Vec::new(), Spool::default());
        let mut body = PlanBody { id, purpose, undoes, taken_at, program, database, columns, policy, selection, heartbeats, checks, units };
        let invalid = |problem: String, line: u64| StreamError::Seal(SealError::Invalid { kind: PlanBody::KIND, problem }, line);
        body.check_head().map_err(|problem| invalid(problem, 1))?;
        let (mut rules, mut rows, mut line) = (UnitRules::default(), Rows::default(), 1);
        while let Some(record) = reader.next_record()? {
            line += 1;
            match record {
                PlanRecord::Check(check) => body.checks.push(Arc::from(check)),
                PlanRecord::Unit(unit) => {
                    rules.check(&body, &unit).map_err(|problem| invalid(problem, line))?;
                    rows.add(&unit);
                    body.units.push(&unit)?;
                }
            }
        }
        body.check_order().map_err(|problem| invalid(problem, 0))?;
        let counted = PlanEnd { units: body.units.len(), rows: rows.0.len() };
        if reader.end().is_none_or(|end| (end.units, end.rows) != (counted.units, counted.rows)) {
            let problem = format!("it has {} units that change {} rows, and its closing record counts others", counted.units, counted.rows);
            return Err(invalid(problem, line + 1));
        }
        let (sha256, signature) = (reader.sha256().to_owned(), reader.signature().cloned());
        Ok(Self { schema_version: PlanBody::SCHEMA_VERSION, body, sha256, signature })
    }
}
