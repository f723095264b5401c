//! What later units of the log leave visible of an earlier unit. Pure.
//!
//! If the log does not say how a unit ended, its rows are read. A row that a later unit has written shows that unit's change; what the
//! earlier unit left shows in what the later one found. So the log is read backwards, from the last unit of the last run.

use std::collections::{BTreeSet, HashMap};

use crate::audit::record::{Intent, Window};
use crate::audit::{RunRecords, UnitHistory};
use crate::domain::time::{parse, parse_rfc3339, seconds_between};
use crate::domain::{Change, Image, Outcome, Table, Value};

/// The column that several units of one run may change, each from the value that the one before left.
pub(super) const COUNTER: &str = "num_dependent_backups";

/// A row as it shows what an earlier unit did to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RowView {
    /// The row, without `updated_at` if only a later unit of the same run knew it; `None` if it is gone.
    pub image: Option<Image>,
    /// Columns that prove nothing: a later unit whose outcome is not known was to write them.
    pub unreliable: BTreeSet<String>,
}

impl RowView {
    /// The row as the database has it.
    pub fn current(image: Option<Image>) -> Self {
        Self { image, unreliable: BTreeSet::new() }
    }

    /// Marks as unreliable what an earlier unit of the same run may have left in the row. The unit of an increment may come before that of
    /// its parent and change the parent's counter first, so that this unit did not find what the plan saw.
    pub fn without_earlier_units(mut self, intent: &Intent, first_writers: &FirstWriters) -> Self {
        let Some(image) = &self.image else { return self };
        let first = first_writers.get(&(image.table, image.id.clone())).filter(|first| first.unit < intent.unit);
        let Some((first, window)) = first.and_then(|first| first.window.as_ref()).zip(intent.window.as_ref()) else { return self };
        let is_own = |change: &Change| change.is_of(image.table, &image.id) && change.column == COUNTER;
        if intent.changes.iter().any(is_own) {
            return self;
        }
        // A time that no unit of the run can have written shows somebody else's change, so it must stay visible.
        let span = Window { from: first.from.clone(), ..window.clone() };
        if is_within(image.value("updated_at"), &span) {
            self.unreliable.extend([COUNTER, "updated_at"].map(str::to_owned));
        }
        self
    }
}

/// What later units found, row by row.
#[derive(Debug, Default)]
pub struct LaterUnits(HashMap<(Table, String), RowView>);

/// The first unit of a run that wrote a row, or may have, by row.
pub type FirstWriters = HashMap<(Table, String), FirstWriter>;

/// The first unit of a run to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstWriter {
    unit: usize,
    window: Option<Window>,
}

/// The first unit of a run to each row.
pub fn first_writers(run: &RunRecords) -> FirstWriters {
    let mut first_writers = FirstWriters::new();
    for (number, unit) in &run.units {
        if !matches!(unit.current_outcome(), None | Some(Outcome::Applied | Outcome::Unknown)) {
            continue;
        }
        for change in &unit.intent.changes {
            let first = || FirstWriter { unit: *number, window: unit.intent.window.clone() };
            first_writers.entry((change.table, change.id.clone())).or_insert_with(first);
        }
    }
    first_writers
}

impl LaterUnits {
    /// What a row that is `now` like this shows of the units before the added ones.
    pub(super) fn seen(&self, table: Table, id: &str, now: Option<Image>) -> RowView {
        match self.0.get(&(table, id.to_owned())) {
            None => RowView::current(now),
            Some(seen) => RowView { image: seen.image.clone().or(now), unreliable: seen.unreliable.clone() },
        }
    }

    /// Adds a unit, after all later units and before all earlier ones.
    pub fn add(&mut self, unit: &UnitHistory, first_writers: &FirstWriters) {
        match unit.current_outcome() {
            Some(Outcome::Applied) => self.applied(unit, first_writers),
            None | Some(Outcome::Unknown) => {
                for change in &unit.intent.changes {
                    let seen = self.0.entry((change.table, change.id.clone())).or_default();
                    seen.unreliable.insert(change.column.clone());
                }
            }
            Some(_) => {}
        }
    }

    fn applied(&mut self, unit: &UnitHistory, first_writers: &FirstWriters) {
        let intent = &unit.intent;
        if let Some(outcome) = unit.outcome.as_ref().filter(|outcome| !outcome.before.is_empty()) {
            // Read under lock in the very transaction that wrote.
            self.0.extend(outcome.before.iter().map(|image| ((image.table, image.id.clone()), RowView::current(Some(image.clone())))));
            return;
        }
        for found in unit.settled.iter().flat_map(|settled| &settled.found) {
            let key = (found.table, found.id.clone());
            let planned = Image::of(&intent.before, found.table, &found.id);
            if first_writers.get(&key).is_some_and(|first| first.unit == intent.unit) {
                // Its guard let it pass: the row was what the plan had seen.
                self.0.insert(key, RowView::current(planned.cloned()));
                continue;
            }
            let seen = self.0.entry(key).or_default();
            seen.image = Some(rolled_back(found, &intent.changes, intent.window.as_ref()));
        }
    }
}

/// A row as it was before these changes, which left it as `found`.
fn rolled_back(found: &Image, changes: &[Change], window: Option<&Window>) -> Image {
    let mut image = found.clone();
    for change in changes.iter().filter(|change| change.is_of(found.table, &found.id)) {
        image.columns.insert(change.column.clone(), restored_value(change, found.value(&change.column)));
    }
    // The time is that of this change, and the one before it is on record nowhere. A time that this change cannot have left is
    // a stranger's, and has to be seen.
    if window.is_some_and(|window| is_within(found.value("updated_at"), window)) {
        image.columns.remove("updated_at");
    }
    image
}

/// What undoes a change of a column that is now `found`. A counter is moved back by as much as it was moved: from where to where
/// a unit of a killed run moved it, its intent does not know.
pub(super) fn restored_value(change: &Change, found: &Value) -> Value {
    if change.column != COUNTER {
        return change.from.clone();
    }
    let number = |value: &Value| value.as_integer().unwrap_or(0);
    let back = number(found).saturating_sub(number(&change.to).saturating_sub(number(&change.from)));
    if back == 0 && change.from == Value::Null { Value::Null } else { Value::Integer(back) }
}

/// Whether a row with this `updated_at` may have been written in the window. MariaDB and MySQL keep whole seconds.
pub(super) fn is_within(updated_at: &Value, window: &Window) -> bool {
    let times = (updated_at.as_text().and_then(parse), parse_rfc3339(&window.from), parse_rfc3339(&window.until));
    let (Some(at), Some(from), Some(until)) = times else { return false };
    let from = from.with().subsec_nanosecond(0).build().unwrap_or(from);
    at >= from && seconds_between(at, until) >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window { from: "2026-11-22T18:46:33.75Z".into(), until: "2026-11-22T18:56:33.75Z".into(), last_beat: None }
    }

    #[test]
    fn a_window_begins_with_its_whole_second() {
        let within = |at: &str| is_within(&at.into(), &window());
        for at in ["2026-11-22 18:46:33", "2026-11-22 18:46:33.760000", "2026-11-22 18:56:33"] {
            assert!(within(at), "{at}");
        }
        for at in ["2026-11-22 18:46:32", "2026-11-22 18:46:32.999999", "2026-11-22 18:57:00", "soon", ""] {
            assert!(!within(at), "{at}");
        }
        assert!(!is_within(&Value::Null, &window()));
    }

    #[test]
    fn a_counter_is_moved_back_and_all_else_put_back() {
        let change =
            |column: &str, from: Value, to: Value| Change { table: Table::Backups, id: "p".into(), column: column.into(), from, to };
        assert_eq!(restored_value(&change("status", "creating".into(), "error".into()), &"error".into()), "creating".into());
        let counted = change(COUNTER, 0.into(), 1.into());
        assert_eq!([2, 1].map(|now: i64| restored_value(&counted, &now.into())), [1, 0].map(Value::Integer));
        let from_null = change(COUNTER, Value::Null, 1.into());
        assert_eq!(restored_value(&from_null, &1.into()), Value::Null);
        assert_eq!(restored_value(&from_null, &2.into()), 1.into());
    }

    #[test]
    fn a_strangers_time_stays_when_a_row_is_rolled_back() {
        let image = |at: &str| Image {
            table: Table::Backups,
            id: "p".into(),
            columns: [(COUNTER.to_owned(), 2.into()), ("updated_at".to_owned(), at.into())].into(),
        };
        let counted = [Change { table: Table::Backups, id: "p".into(), column: COUNTER.into(), from: 0.into(), to: 1.into() }];
        let back = |at: &str| rolled_back(&image(at), &counted, Some(&window()));
        assert_eq!(back("2026-11-22 18:46:34").columns, [(COUNTER.to_owned(), 1.into())].into());
        assert_eq!(back("2026-11-22 19:46:34").value("updated_at"), &"2026-11-22 19:46:34".into());
    }
}
