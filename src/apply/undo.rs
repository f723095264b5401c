//! The reverse plan of a run: restores what it wrote, unless the rows were changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use thiserror::Error;

use super::history_view::restored_value;
use crate::audit::UnitHistory;
use crate::domain::{Change, Evidence, EvidenceCode, Image, Outcome, Verdict};
use crate::plan::Unit;
use crate::spool::Spool;

/// Why a run cannot be undone.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UndoError {
    /// It changed nothing.
    #[error("run {0} changed nothing that can be undone")]
    Nothing(String),
    /// The outcome of some units is not known, and they were not reconciled yet.
    #[error("run {run} has units whose outcome is not known ({open}); settle them first with `history reconcile`")]
    Open { run: String, open: usize },
    /// All units that it may have changed were reconciled, and their outcome stays unknown.
    #[error(
        "the outcome of all units of run {run} that it may have applied stays unknown ({unknown}), so nothing can be undone; see `history show {run}`"
    )]
    Unknown { run: String, unknown: usize },
}

/// The units that restore what a run wrote, as its records are read.
#[derive(Debug, Default)]
pub struct UndoUnits {
    units: Spool<Unit>,
    /// The places of the units, by the numbers that they had in the run.
    places: BTreeMap<usize, usize>,
    unknown: BTreeMap<usize, UnitHistory>,
    open: BTreeSet<usize>,
}

/// What can be restored of a run.
#[derive(Debug)]
pub struct Undo {
    /// In reverse order, without numbers and evidence.
    reversed: Spool<Unit>,
    /// Units that were reconciled and whose outcome stays unknown: they must not be changed.
    pub unknown: Vec<UnitHistory>,
}

impl UndoUnits {
    /// Adds a unit of the run. If it was added before, it is as it is now.
    pub fn add(&mut self, entry: UnitHistory) -> io::Result<()> {
        let number = entry.intent.unit;
        self.places.remove(&number);
        self.unknown.remove(&number);
        self.open.remove(&number);
        match entry.current_outcome() {
            Some(Outcome::Applied) => {
                if let Some(unit) = reverse(&entry) {
                    self.places.insert(number, self.units.len());
                    self.units.push(&unit)?;
                }
            }
            // Reading the rows once more would show the same.
            Some(Outcome::Unknown) if entry.settled.is_some() => drop(self.unknown.insert(number, entry)),
            None | Some(Outcome::Unknown) => drop(self.open.insert(number)),
            Some(_) => {}
        }
        Ok(())
    }

    /// What can be restored, once all units of the run were added.
    pub fn finish(self, run: &str) -> Result<Undo, UndoError> {
        let Self { mut units, places, unknown, open } = self;
        let run = run.to_owned();
        if !open.is_empty() {
            return Err(UndoError::Open { run, open: open.len() });
        }
        if places.is_empty() {
            return Err(if unknown.is_empty() { UndoError::Nothing(run) } else { UndoError::Unknown { run, unknown: unknown.len() } });
        }
        units.rearrange(places.into_values().rev());
        Ok(Undo { reversed: units, unknown: unknown.into_values().rev().collect() })
    }
}

impl Undo {
    /// The units that restore the run with this id.
    pub fn units(&self, run: &str) -> io::Result<Spool<Unit>> {
        let mut units = Spool::default();
        for unit in &self.reversed {
            let evidence = vec![Evidence::new(EvidenceCode::Undo, format!("run {run} changed it, and it is to be restored"))];
            units.push(&Unit { number: units.len() + 1, evidence, ..unit? })?;
        }
        Ok(units)
    }
}

fn reverse(entry: &UnitHistory) -> Option<Unit> {
    let UnitHistory { intent, outcome, settled } = entry;
    // What the transaction itself read back is exact; what a later look found serves for runs that were killed.
    let after: &[Image] = match (outcome, settled) {
        (Some(outcome), _) if !outcome.after.is_empty() => &outcome.after,
        (_, Some(settled)) => &settled.found,
        _ => return None,
    };
    let made: &[Change] =
        outcome.as_ref().map(|outcome| outcome.changes.as_slice()).filter(|changes| !changes.is_empty()).unwrap_or(&intent.changes);
    let changes: Vec<Change> = made
        .iter()
        .map(|change| {
            // An intent knows neither where the unit before it left a counter, nor the reason that was given in the end.
            let row = Image::of(after, change.table, &change.id);
            let from = row.map_or_else(|| change.to.clone(), |row| row.value(&change.column).clone());
            Change { to: restored_value(change, &from), from, ..change.clone() }
        })
        .collect();
    let status = after.iter().find(|image| image.id == intent.id).and_then(|image| image.value("status").as_text()).map(str::to_owned);
    Some(Unit {
        number: 0,
        kind: intent.kind,
        id: intent.id.clone(),
        name: intent.name.clone(),
        status,
        host: None,
        counter: false,
        verdict: Verdict::Inconsistent,
        evidence: Vec::new(),
        before: after.to_vec(),
        changes,
        follow_up: Vec::new(),
    })
}
