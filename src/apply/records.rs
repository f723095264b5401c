//! The log records of a unit, and its result.

use super::worker::{Transaction, UnitEnd};
use super::writes::statements;
use crate::audit::record::{Event, Intent, NOT_BEGUN, UnitOutcome, Window};
use crate::db::Engine;
use crate::domain::{ColumnSet, Outcome, UnitResult};
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
    let statements = statements(&unit.before, &unit.changes, columns, engine, window.deleted_at().as_deref(), &|_, _| None);
    Intent {
        unit: unit.number,
        kind: unit.kind,
        id: unit.id.clone(),
        name: unit.name.clone(),
        evidence: unit.evidence.clone(),
        before: unit.before.clone(),
        changes: unit.changes.clone(),
        statements: statements.into_iter().map(|(_, statement)| statement).collect(),
        window: Some(window),
        follow_up: unit.follow_up.clone(),
    }
}
