//! The log records of a unit, and its result.

use super::worker::{Transaction, UnitEnd};
use super::writes::{by_row, update};
use crate::audit::record::{Event, Intent, NOT_BEGUN, StatementText, UnitOutcome, Window};
use crate::db::Engine;
use crate::db::literal::inline;
use crate::domain::{ColumnSet, Image, Outcome, UnitResult};
use crate::plan::Unit;

/// The result of a unit, and what its transaction read and wrote.
pub(super) fn result_of(unit: &Unit, end: UnitEnd) -> (UnitResult, Transaction) {
    let UnitEnd { outcome, reason, moved, transaction } = end;
    let changes = if transaction.changes.is_empty() { unit.changes.clone() } else { transaction.changes.clone() };
    let result = UnitResult {
        unit: unit.number,
        kind: unit.kind,
        id: unit.id.clone(),
        name: unit.name.clone(),
        outcome,
        reason,
        moved,
        last_look: None,
        changes,
    };
    (result, transaction)
}

/// The result of a unit that never began.
pub(super) fn not_begun(unit: &Unit) -> UnitResult {
    result_of(unit, UnitEnd::unchanged(Outcome::NotBegun, NOT_BEGUN.to_owned())).0
}

/// The record of how a unit ended.
pub(super) fn outcome(result: &UnitResult, done: Transaction) -> Event {
    Event::Outcome(Box::new(UnitOutcome {
        unit: result.unit,
        outcome: if result.outcome == Outcome::NotBegun { Outcome::Refused } else { result.outcome },
        reason: result.reason.clone(),
        moved: result.moved.clone(),
        before: done.before,
        changes: done.changes,
        after: done.after,
        sent_to: done.sent_to,
    }))
}

/// The record of the changes that a unit will make.
pub(super) fn intent(unit: &Unit, columns: ColumnSet, engine: Engine, window: Window) -> Intent {
    Intent {
        unit: unit.number,
        kind: unit.kind,
        id: unit.id.clone(),
        name: unit.name.clone(),
        evidence: unit.evidence.clone(),
        before: unit.before.clone(),
        changes: unit.changes.clone(),
        statements: statements(unit, columns, engine),
        window: Some(window),
    }
}

/// The guarded UPDATEs of a unit as they will be executed, with the values in place.
fn statements(unit: &Unit, columns: ColumnSet, engine: Engine) -> Vec<StatementText> {
    by_row(&unit.changes)
        .into_iter()
        .filter_map(|((table, id), changes)| {
            let image = Image::of(&unit.before, table, id)?;
            let write = update(columns, image, &changes);
            let sql = inline(write.statement.text(engine), engine, &write.params, None).unwrap_or_else(|error| error.to_string());
            Some(StatementText { name: write.statement.name.to_owned(), sql })
        })
        .collect()
}
