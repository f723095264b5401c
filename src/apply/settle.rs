//! What became of a transaction whose COMMIT was never answered: settled by reading again, or left unknown.

use crate::db::{Access, DbError, Session};
use crate::domain::{Image, Outcome, Table};
use crate::scan::{Lock, Reader};

use super::recheck::Overlay;
use crate::db::schema::Schema;

/// What reading the rows showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Applied, failed (nothing was written) or unknown.
    pub outcome: Outcome,
    /// How that was seen.
    pub reason: String,
    /// The rows as found.
    pub found: Vec<Image>,
}

/// Reads the rows of a unit under lock, so that a transaction which is still ending is waited for, and holds them
/// against what they were before and what they were to become.
///
/// `after` may lack `updated_at` (an intent does not know it yet): then the other columns decide. `seen_later` holds rows as
/// a later run found them before it changed them itself: for these, what the database holds now says nothing any more.
pub fn settle_rows(
    session: &mut dyn Session,
    schema: &Schema,
    before: &[Image],
    after: &[Image],
    seen_later: &Overlay,
    lock: Lock,
) -> Result<Settlement, DbError> {
    session.begin(if lock == Lock::Held { Access::Write } else { Access::ReadOnly })?;
    let found = read(session, schema, before, lock);
    let ended = session.rollback();
    let found = found?;
    ended?;
    let found = before.iter().zip(found).map(|(row, found)| seen_later.get(&(row.table, row.id.clone())).cloned().or(found)).collect();
    Ok(judge(before, after, found))
}

fn read(session: &mut dyn Session, schema: &Schema, rows: &[Image], lock: Lock) -> Result<Vec<Option<Image>>, DbError> {
    let mut reader = Reader { session, schema };
    let mut order: Vec<(Table, &str, usize)> = rows.iter().enumerate().map(|(at, image)| (image.table, image.id.as_str(), at)).collect();
    order.sort();
    let mut found: Vec<(usize, Option<Image>)> = Vec::new();
    for (table, id, at) in order {
        found.push((at, current(&mut reader, table, id, lock)?));
    }
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, image)| image).collect())
}

/// A row as it is now.
pub fn current(reader: &mut Reader<'_>, table: Table, id: &str, lock: Lock) -> Result<Option<Image>, DbError> {
    let columns = reader.schema.columns;
    Ok(reader.row(table, id, lock)?.map(|row| row.image(columns)))
}

fn judge(before: &[Image], after: &[Image], found: Vec<Option<Image>>) -> Settlement {
    // All of a transaction or nothing of it: any of its rows is proof. A parent's counter is not always one, because each of
    // its children that the same run counted has moved it; where another row tells, that is the one to go by.
    let tells = |at: usize| {
        let moved = before.get(at).zip(after.get(at)).map(|(before, after)| before.moved(after)).unwrap_or_default();
        !moved.iter().all(|moved| matches!(moved.column.as_str(), "num_dependent_backups" | "updated_at"))
    };
    let any_tells = (0..found.len()).any(tells);
    let all = |want: &[Image]| {
        want.len() == found.len()
            && want.iter().zip(&found).enumerate().filter(|(at, _)| !any_tells || tells(*at)).all(|(_, (want, found))| {
                found.as_ref().is_some_and(|found| want.columns.iter().all(|(column, value)| found.value(column) == value))
            })
    };
    let (outcome, reason) = if !after.is_empty() && all(after) {
        (Outcome::Applied, "read again: every row is as the transaction was to leave it")
    } else if all(before) {
        (Outcome::Failed, "read again: every row is as it was before, nothing was written")
    } else {
        (
            Outcome::Unknown,
            "read again: the rows are neither as they were before nor as they were to become; somebody else has changed them since",
        )
    };
    Settlement { outcome, reason: reason.to_owned(), found: found.into_iter().flatten().collect() }
}

/// The rows as a unit's changes are to leave them; without `updated_at`, which only the database knows.
pub fn intended(before: &[Image], changes: &[crate::domain::Change]) -> Vec<Image> {
    before
        .iter()
        .map(|image| {
            let mut after = image.clone();
            after.columns.remove("updated_at");
            for change in changes.iter().filter(|change| change.table == image.table && change.id == image.id) {
                after.columns.insert(change.column.clone(), change.to.clone());
            }
            after
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Change, Value};

    fn image(status: &str, at: &str) -> Image {
        let columns = [("status".to_owned(), Value::from(status)), ("updated_at".to_owned(), Value::from(at))].into();
        Image { table: Table::Backups, id: "b".into(), columns }
    }

    #[test]
    fn only_what_was_seen_settles() {
        let before = [image("creating", "1")];
        let change = Change { table: Table::Backups, id: "b".into(), column: "status".into(), from: "creating".into(), to: "error".into() };
        let after = intended(&before, &[change]);
        let of = |found: Option<Image>| judge(&before, &after, vec![found]).outcome;
        assert_eq!(of(Some(image("creating", "1"))), Outcome::Failed);
        assert_eq!(of(Some(image("error", "2"))), Outcome::Applied);
        // Somebody touched it and left the status: that it was not written cannot be said any more.
        assert_eq!(of(Some(image("creating", "2"))), Outcome::Unknown);
        assert_eq!(of(Some(image("available", "2"))), Outcome::Unknown);
        assert_eq!(of(None), Outcome::Unknown);
    }

    /// Two children of one parent, counted in one run that was killed: the log knows the parent only as it was before both.
    #[test]
    fn a_counter_that_the_run_has_moved_on_hides_no_outcome() {
        let parent = |count: i64, at: &str| {
            let columns = [("num_dependent_backups".to_owned(), Value::from(count)), ("updated_at".to_owned(), Value::from(at))];
            Image { table: Table::Backups, id: "p".into(), columns: columns.into() }
        };
        let change = |id: &str, column: &str, from: Value, to: Value| Change {
            table: Table::Backups,
            id: id.into(),
            column: column.into(),
            from,
            to,
        };
        let changes =
            [change("b", "status", "creating".into(), "available".into()), change("p", "num_dependent_backups", 0.into(), 1.into())];
        let before = [image("creating", "1"), parent(0, "1")];
        let of = |status: &str, at: &str, count: i64| {
            judge(&before, &intended(&before, &changes), vec![Some(image(status, at)), Some(parent(count, "2"))]).outcome
        };
        assert_eq!(of("available", "2", 2), Outcome::Applied);
        assert_eq!(of("creating", "1", 1), Outcome::Failed);
        assert_eq!(of("creating", "2", 1), Outcome::Unknown);
        // Where there is nothing but the counter, it decides.
        let (before, after) = ([parent(0, "1")], [parent(1, "2")]);
        assert_eq!(judge(&before, &after, vec![Some(parent(2, "3"))]).outcome, Outcome::Unknown);
    }

    #[test]
    fn a_known_time_must_fit_too() {
        let settled = judge(&[image("creating", "1")], &[image("error", "2")], vec![Some(image("error", "3"))]);
        assert_eq!(settled.outcome, Outcome::Unknown);
    }
}
