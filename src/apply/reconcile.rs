//! Settles a transaction whose answer was not recorded by reading its rows, or leaves it unknown.
//!
//! Unchanged rows prove that nothing was written if they are read under lock on the server that received the COMMIT, because it keeps
//! them locked until the transaction is over. On another server they prove it only once the unit's window is over. Until then the COMMIT
//! may be delayed in a proxy or in a node of a cluster, and arrive later.
//!
//! Rows with the values that the unit was to write prove less, because cinder-backup's own clean-up or a manual reset writes the same.
//! So if the log has only the intent, there must also be proof that this program wrote them.

use std::collections::{BTreeSet, HashMap};

use jiff::civil::DateTime;

use crate::audit::UnitHistory;
use crate::audit::record::{Intent, Window};
use crate::db::schema::Schema;
use crate::db::{Access, DbError, Engine, Session};
use crate::domain::status::CREATING;
use crate::domain::time::{parse, parse_rfc3339};
use crate::domain::{Change, Image, Outcome, Table, Value};
use crate::scan::{Lock, Reader};

use super::history_view::{COUNTER, FirstWriters, LaterUnits, RowView, is_within};

/// The outcome that the rows prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Applied, failed (nothing was written) or unknown.
    pub outcome: Outcome,
    /// The proof, or why there is none.
    pub reason: String,
    /// Which state the rows were in.
    pub standing: Standing,
    pub found: Vec<Image>,
}

/// Which of two states rows are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As the unit was to leave them.
    After,
    /// As they were before the unit.
    Before,
    /// Another state.
    Neither,
    /// Not known, because no row shows it.
    Hidden,
}

/// A COMMIT that was sent or may have been sent, and whose answer was not recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    /// The server that it was sent to ([`Session::node`]), if known.
    pub to: Option<&'a str>,
    /// The end of the unit's window, by the database's clock; `None` in logs of versions that did not record it.
    pub until: Option<DateTime>,
    /// Whether the window is over.
    pub is_over: bool,
}

impl Sent<'_> {
    /// Why the COMMIT may still arrive at the server that `session` has just read under lock; `None` if it cannot.
    fn doubt(&self, session: &dyn Session) -> Option<String> {
        self.may_arrive(session.node(), session.server().multi_primary).then(|| {
            let until = self.until.map_or_else(
                || "the log was written by an older version and does not say until when".to_owned(),
                |until| format!("it cannot arrive after {}, so run `history reconcile` then", until.strftime("%Y-%m-%d %H:%M:%S UTC")),
            );
            format!("on another server than the one that received the COMMIT, from which the change may still arrive; {until}")
        })
    }

    fn may_arrive(&self, node: Option<&str>, multi_primary: bool) -> bool {
        let same_server = self.to.map_or(!multi_primary, |to| node == Some(to));
        !self.is_over && !same_server
    }
}

/// Reads the rows of a transaction whose COMMIT was just sent and not answered, and compares them with the images that the transaction
/// read `before` and `after` its changes.
pub fn settle_rows(
    session: &mut dyn Session,
    schema: &Schema,
    before: &[Image],
    after: &[Image],
    sent: &Sent<'_>,
) -> Result<Settlement, DbError> {
    let seen: Vec<RowView> = read(session, schema, before, Lock::Held)?.into_iter().map(RowView::current).collect();
    let standing = compare(before, after, &seen, &telling(before, after, &seen));
    let doubt = if standing == Standing::Before { sent.doubt(session) } else { None };
    Ok(settlement(standing, doubt, seen))
}

/// The context of a unit of the log whose rows are read.
#[derive(Debug, Clone, Copy)]
pub struct UnitContext<'a> {
    /// All units that came after it.
    pub later: &'a LaterUnits,
    /// The first units of its run.
    pub first_writers: &'a FirstWriters,
    pub now: DateTime,
}

impl UnitContext<'_> {
    /// Whether a unit's window is over.
    pub fn is_over(&self, unit: &UnitHistory) -> bool {
        until(unit).is_some_and(|until| self.now > until)
    }
}

fn until(unit: &UnitHistory) -> Option<DateTime> {
    unit.intent.window.as_ref().and_then(|window| parse_rfc3339(&window.until))
}

/// Reads the rows of a unit of the log.
pub fn settle_unit(
    session: &mut dyn Session,
    schema: &Schema,
    unit: &UnitHistory,
    context: &UnitContext<'_>,
    lock: Lock,
) -> Result<Settlement, DbError> {
    let UnitContext { later, first_writers, .. } = *context;
    let outcome = unit.outcome.as_ref();
    let begun_with = outcome.map(|outcome| outcome.before.as_slice()).filter(|before| !before.is_empty());
    let before = begun_with.unwrap_or(&unit.intent.before);
    let exactly = outcome.map(|outcome| outcome.after.as_slice()).filter(|after| !after.is_empty());
    let intended = intended(&unit.intent.before, &unit.intent.changes);
    let after = exactly.unwrap_or(&intended);
    let found = read(session, schema, before, lock)?;
    let mut seen: Vec<RowView> = before.iter().zip(found).map(|(row, found)| later.seen(row.table, &row.id, found)).collect();
    if begun_with.is_none() {
        seen = seen.into_iter().map(|seen| seen.without_earlier_units(&unit.intent, first_writers)).collect();
    }
    let telling = telling(before, after, &seen);
    let standing = compare(before, after, &seen, &telling);
    let mut doubt = None;
    // If the transaction recorded the rows that it read back, equal rows with equal times are sufficient proof.
    if standing == Standing::After && exactly.is_none() {
        doubt = doubt_over(&unit.intent, &seen, &telling);
    }
    // A file has no replicas, and a transaction of a killed process is rolled back.
    if standing == Standing::Before && session.server().engine != Engine::Sqlite {
        let sent = Sent { to: outcome.and_then(|outcome| outcome.sent_to.as_deref()), until: until(unit), is_over: context.is_over(unit) };
        doubt = match lock {
            Lock::Held => sent.doubt(session),
            Lock::None => Some(
                "without a lock, and a replica that lags, or a transaction that is still ending, would show the same; reconcile on the \
                 primary, with an account that may change them"
                    .to_owned(),
            ),
        };
    }
    Ok(settlement(standing, doubt, seen))
}

/// Reads rows. Under lock it waits for a transaction that is still ending.
fn read(session: &mut dyn Session, schema: &Schema, rows: &[Image], lock: Lock) -> Result<Vec<Option<Image>>, DbError> {
    session.begin(if lock == Lock::Held { Access::Write } else { Access::ReadOnly })?;
    let found = in_order(&mut Reader { session: &mut *session, schema }, rows, lock);
    let ended = session.rollback();
    let found = found?;
    ended?;
    Ok(found)
}

fn in_order(reader: &mut Reader<'_>, rows: &[Image], lock: Lock) -> Result<Vec<Option<Image>>, DbError> {
    let order: BTreeSet<(Table, &str)> = rows.iter().map(|image| (image.table, image.id.as_str())).collect();
    let mut found = HashMap::new();
    for (table, id) in order {
        found.insert((table, id), current(reader, table, id, lock)?);
    }
    Ok(rows.iter().map(|image| found.remove(&(image.table, image.id.as_str())).flatten()).collect())
}

/// A row as it is now.
pub fn current(reader: &mut Reader<'_>, table: Table, id: &str, lock: Lock) -> Result<Option<Image>, DbError> {
    let columns = reader.schema.columns;
    Ok(reader.row(table, id, lock)?.map(|row| row.image(columns)))
}

/// The indexes of the rows that show the outcome. A transaction is applied completely or not at all, so each of its rows is proof. A
/// parent's counter, or what a quota counts, is used only if no other column shows the outcome, because others may have changed it.
fn telling(before: &[Image], after: &[Image], seen: &[RowView]) -> Vec<usize> {
    // Columns that others change most are used last.
    let rank = |table: Table, column: &str| if table.counts(column) { 2 } else { u8::from(column == COUNTER) };
    let rows = |most: u8| -> Vec<usize> {
        let tells = |(before, (after, seen)): (&Image, (&Image, &RowView))| {
            let says = |column: &str| column != "updated_at" && rank(before.table, column) <= most && !seen.unreliable.contains(column);
            before.columns.iter().any(|(column, value)| says(column) && value != after.value(column))
        };
        let all = before.iter().zip(after.iter().zip(seen)).enumerate();
        all.filter(|(_, row)| tells(*row)).map(|(at, _)| at).collect()
    };
    (0..=2).map(rows).find(|rows| !rows.is_empty()).unwrap_or_default()
}

fn compare(before: &[Image], after: &[Image], seen: &[RowView], telling: &[usize]) -> Standing {
    let all = |want: &[Image]| telling.iter().all(|at| want.get(*at).zip(seen.get(*at)).is_some_and(|(want, seen)| agrees(want, seen)));
    if telling.is_empty() {
        Standing::Hidden
    } else if all(after) {
        Standing::After
    } else if all(before) {
        Standing::Before
    } else {
        Standing::Neither
    }
}

/// Whether a row equals this image in the columns that prove something. The `fail_reason` may differ from the intent's, because a unit is
/// decided again before it writes.
fn agrees(want: &Image, seen: &RowView) -> bool {
    let Some(found) = &seen.image else { return false };
    want.columns.iter().all(|(column, value)| {
        let is = found.value(column);
        let no_time = column == "updated_at" && !found.columns.contains_key(column);
        let another_reason = column == "fail_reason" && is_our_reason(value) && is_our_reason(is);
        is == value || no_time || another_reason || seen.unreliable.contains(column)
    })
}

/// Whether only this program writes such a `fail_reason`.
fn is_our_reason(value: &Value) -> bool {
    value.as_text().is_some_and(|text| text.starts_with(concat!(env!("CARGO_PKG_NAME"), ": ")))
}

/// Why it is not certain that this unit left its rows as its intent wanted them; `None` if it is.
fn doubt_over(intent: &Intent, seen: &[RowView], telling: &[usize]) -> Option<String> {
    let signed = intent.changes.iter().any(|change| is_signature(change, intent, seen));
    let Some(window) = &intent.window else {
        // A log of an older version without windows.
        return (!signed).then(|| "the log was written by an older version and does not say when the run was to write them".to_owned());
    };
    for found in telling.iter().filter_map(|at| seen.get(*at)?.image.as_ref()) {
        // Like Cinder, a deletion leaves `updated_at` as it is.
        let Some(at) = found.columns.get("deleted_at").or_else(|| found.columns.get("updated_at")) else { continue };
        if !is_within(at, window) {
            let at = at.as_text().unwrap_or("NULL");
            let (from, until) = (&window.from, &window.until);
            return Some(format!("{} {} was written at {at}, and the run wrote between {from} and {until}", found.table, found.id));
        }
    }
    // The time alone proves nothing: a person may repair the same rows minutes after the run was killed.
    (!signed).then(|| "nothing in them shows that this program wrote them, and the log does not have them as the run left them".to_owned())
}

/// Whether only this program makes such a change: its own `fail_reason`, a backup that is `creating` again, or a `deleted_at` that is the
/// whole second in which the window begins.
fn is_signature(change: &Change, intent: &Intent, seen: &[RowView]) -> bool {
    let of = |image: &&Image| change.is_of(image.table, &image.id);
    let Some(found) = seen.iter().filter_map(|seen| seen.image.as_ref()).find(of) else { return false };
    let is = found.value(&change.column);
    match (change.table, change.column.as_str()) {
        (Table::Backups, "fail_reason") => {
            is_our_reason(&change.to)
                && is_our_reason(is)
                && intent.before.iter().find(of).is_some_and(|was| was.value("fail_reason") != is)
        }
        (Table::Backups, "deleted") => {
            let since = intent.window.as_ref().and_then(Window::deleted_at).and_then(|since| parse(&since));
            since.is_some() && since == found.value("deleted_at").as_text().and_then(parse)
        }
        (Table::Backups, "status") => change.to.as_text() == Some(CREATING) && *is == change.to,
        _ => false,
    }
}

fn settlement(standing: Standing, doubt: Option<String>, seen: Vec<RowView>) -> Settlement {
    let (outcome, reason) = match (standing, doubt) {
        (Standing::After, None) => (Outcome::Applied, "read again: every row is as the transaction would have left it".to_owned()),
        (Standing::After, Some(doubt)) => (
            Outcome::Unknown,
            format!("read again: the rows are as the transaction would have left them, but someone else may have changed them: {doubt}"),
        ),
        (Standing::Before, Some(doubt)) => {
            (Outcome::Unknown, format!("read again: every row is as it was before, but this was read {doubt}"))
        }
        (Standing::Before, None) => (Outcome::Failed, "read again: every row is as it was before, nothing was written".to_owned()),
        (Standing::Hidden, _) => (
            Outcome::Unknown,
            "read again: the rows prove nothing, because a later unit with an unknown outcome was to write them, too".to_owned(),
        ),
        (Standing::Neither, _) => (
            Outcome::Unknown,
            "read again: the rows are neither as they were before nor as planned; someone else has changed them since".to_owned(),
        ),
    };
    Settlement { outcome, reason, standing, found: seen.into_iter().filter_map(|seen| seen.image).collect() }
}

/// The rows as a unit's changes must leave them, without the times, which are not known before.
pub(super) fn intended(before: &[Image], changes: &[Change]) -> Vec<Image> {
    let leave = |image: &Image| {
        let mut after = image.clone();
        for time in ["updated_at", "deleted_at"] {
            after.columns.remove(time);
        }
        for change in changes.iter().filter(|change| change.is_of(image.table, &image.id)) {
            after.columns.insert(change.column.clone(), change.to.clone());
        }
        after
    };
    before.iter().map(leave).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
