//! The reverse plan of a run: puts back what it wrote, where nobody has touched it since.

use thiserror::Error;

use crate::audit::record::{Intent, Settled, UnitOutcome};
use crate::domain::{Change, Evidence, Image, Outcome, Verdict};
use crate::plan::Unit;

/// Why a run cannot be undone.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UndoError {
    /// It changed nothing.
    #[error("run {0} changed nothing that could be put back")]
    Nothing(String),
    /// Some of its outcomes are not known.
    #[error("run {run} has {open} units whose outcome is not known; settle them first with `history reconcile`")]
    Open {
        /// The run.
        run: String,
        /// How many.
        open: usize,
    },
}

/// One unit of a run as the log has it.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// What was to be done.
    pub intent: &'a Intent,
    /// What came of it.
    pub outcome: Option<&'a UnitOutcome>,
    /// What was seen later.
    pub settled: Option<&'a Settled>,
}

/// The units that put back what a run wrote, in reverse order.
pub fn undo_units<'a>(run: &str, recorded: impl DoubleEndedIterator<Item = Recorded<'a>>) -> Result<Vec<Unit>, UndoError> {
    let mut units = Vec::new();
    let mut open = 0;
    for entry in recorded.rev() {
        let settled = entry.settled.map(|settled| settled.outcome);
        let outcome = settled.or(entry.outcome.map(|outcome| outcome.outcome));
        match outcome {
            Some(Outcome::Applied) => units.extend(reverse(&entry)),
            None | Some(Outcome::Unknown) => open += 1,
            Some(_) => {}
        }
    }
    if open > 0 {
        return Err(UndoError::Open { run: run.to_owned(), open });
    }
    if units.is_empty() {
        return Err(UndoError::Nothing(run.to_owned()));
    }
    for (index, unit) in units.iter_mut().enumerate() {
        unit.number = index + 1;
        unit.evidence = vec![Evidence::new("undo", format!("run {run} changed it, and it is to be put back"))];
    }
    Ok(units)
}

fn reverse(entry: &Recorded<'_>) -> Option<Unit> {
    let Recorded { intent, outcome, settled } = entry;
    // What the transaction itself read back is exact; what a later look found serves for runs that were killed.
    let after: &[Image] = match (outcome, settled) {
        (Some(outcome), _) if !outcome.after.is_empty() => &outcome.after,
        (_, Some(settled)) => &settled.found,
        _ => return None,
    };
    let made: &[Change] =
        outcome.map(|outcome| outcome.changes.as_slice()).filter(|changes| !changes.is_empty()).unwrap_or(&intent.changes);
    let changes: Vec<Change> =
        made.iter().map(|change| Change { from: change.to.clone(), to: change.from.clone(), ..change.clone() }).collect();
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
