//! The table of changes that the program may make at all, as data.
//!
//! A decision proposes only what is in the table, and the executor checks it again before it writes. So neither a plan that was made by hand
//! nor a fault in a decision can make another change.

use super::status::{
    AVAILABLE, BACKING_UP, CREATING, DELETED, DELETING, ERROR, ERROR_DELETING, ERROR_RESTORING, IN_USE, RESTORING, RESTORING_BACKUP,
};
use super::{Change, Table, Value};

/// The changes of a status that a repair may make: the table, the status before (`None` is NULL) and the status after. An undo may reverse
/// each of them.
const STATUS: &[(Table, Option<&str>, &str)] = &[
    (Table::Backups, Some(CREATING), ERROR),
    (Table::Backups, Some(CREATING), AVAILABLE),
    (Table::Backups, Some(RESTORING), AVAILABLE),
    (Table::Backups, Some(RESTORING), ERROR),
    (Table::Backups, Some(DELETING), ERROR),
    (Table::Backups, Some(ERROR_DELETING), ERROR),
    (Table::Backups, Some(ERROR), AVAILABLE),
    (Table::Backups, None, ERROR),
    (Table::Backups, Some(DELETING), DELETED),
    (Table::Backups, Some(ERROR_DELETING), DELETED),
    (Table::Backups, Some(ERROR), DELETED),
    (Table::Volumes, Some(BACKING_UP), AVAILABLE),
    (Table::Volumes, Some(BACKING_UP), IN_USE),
    (Table::Volumes, Some(RESTORING_BACKUP), ERROR_RESTORING),
    (Table::Volumes, Some(CREATING), ERROR),
    (Table::Snapshots, Some(BACKING_UP), AVAILABLE),
];

/// The direction of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A repair.
    Forward,
    /// An undo. Both directions are allowed, because an undo can be undone.
    Either,
}

/// Says that a change is not allowed.
pub fn refusal(Change { table, column, id, .. }: &Change) -> String {
    format!("the change of {table}.{column} of {id} is not one that this program makes")
}

/// Whether the program may make this change.
pub fn is_allowed(change: &Change, direction: Direction) -> bool {
    let forward = allowed_forward(change.table, &change.column, &change.from, &change.to);
    match direction {
        Direction::Forward => forward,
        Direction::Either => forward || allowed_forward(change.table, &change.column, &change.to, &change.from),
    }
}

fn allowed_forward(table: Table, column: &str, from: &Value, to: &Value) -> bool {
    match (table, column) {
        (_, "status") => is_status(from) && to.as_text().is_some_and(|to| STATUS.contains(&(table, from.as_text(), to))),
        (Table::Backups, "fail_reason") => to.as_text().is_some_and(|text| text.chars().count() <= 255),
        (Table::Backups, "service_metadata") => to.as_text().is_some(),
        (Table::Backups, "host") => from.as_text().is_some() && to.as_text().is_some_and(|host| !host.trim().is_empty()),
        (Table::Backups, "availability_zone") => *from == Value::Null && to.as_text().is_some(),
        (Table::Backups, "size") => *from == Value::Null && to.as_integer().is_some_and(|size| size >= 0),
        (Table::Backups | Table::BackupMetadata | Table::Reservations, "deleted") => (from, to) == (&Value::Integer(0), &Value::Integer(1)),
        (Table::QuotaUsages, "in_use" | "reserved") => to.as_integer().is_some_and(|count| count >= 0),
        (Table::Backups, "object_count" | "num_dependent_backups") => to.as_integer().is_some_and(|count| count >= 0),
        _ => false,
    }
}

fn is_status(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Text(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(table: Table, column: &str, from: Value, to: Value) -> Change {
        Change { table, id: "x".into(), column: column.into(), from, to }
    }

    #[test]
    fn nothing_outside_the_table_is_allowed() {
        let words = [CREATING, AVAILABLE, DELETING, RESTORING, ERROR, ERROR_DELETING, BACKING_UP, IN_USE, RESTORING_BACKUP, "deleted", ""];
        let froms = || words.iter().map(|word| Value::from(*word)).chain([Value::Null, Value::Integer(0)]);
        let mut allowed = 0;
        for table in [Table::Backups, Table::Volumes, Table::Snapshots] {
            for from in froms() {
                for to in froms() {
                    if is_allowed(&change(table, "status", from.clone(), to), Direction::Forward) {
                        allowed += 1;
                    }
                }
            }
        }
        // restoring-backup -> error_restoring is not among the words above.
        assert_eq!(allowed, STATUS.len() - 1);
    }

    #[test]
    fn only_a_backup_its_metadata_and_a_reservation_may_be_marked_as_deleted() {
        let mark = |table, from: i64, to: i64| change(table, "deleted", from.into(), to.into());
        for table in [Table::Backups, Table::BackupMetadata, Table::Reservations] {
            assert!(is_allowed(&mark(table, 0, 1), Direction::Forward) && !is_allowed(&mark(table, 1, 0), Direction::Forward));
            assert!(is_allowed(&mark(table, 1, 0), Direction::Either));
        }
        for table in [Table::Volumes, Table::Snapshots, Table::QuotaUsages] {
            assert!(!is_allowed(&mark(table, 0, 1), Direction::Either));
        }
    }

    #[test]
    fn moving_a_row_is_never_allowed() {
        for column in ["deleted_at", "id", "volume_id", "project_id", "container"] {
            for table in [Table::Backups, Table::Volumes, Table::Snapshots, Table::BackupMetadata, Table::QuotaUsages, Table::Reservations]
            {
                let change = change(table, column, Value::Integer(0), Value::Integer(1));
                assert!(!is_allowed(&change, Direction::Forward) && !is_allowed(&change, Direction::Either), "{column}");
            }
        }
    }

    #[test]
    fn a_host_is_replaced_and_a_zone_only_added() {
        let of = |column, from: Value, to: Value| change(Table::Backups, column, from, to);
        for (change, forward, either) in [
            (of("host", "ctl1".into(), "ctl2".into()), true, true),
            (of("host", Value::Null, "ctl2".into()), false, false),
            (of("host", "ctl1".into(), Value::Null), false, false),
            (of("host", "ctl1".into(), " ".into()), false, true),
            (of("availability_zone", Value::Null, "nova".into()), true, true),
            (of("availability_zone", "nova".into(), Value::Null), false, true),
            (of("availability_zone", "nova".into(), "az1".into()), false, false),
            (Change { table: Table::Volumes, ..of("host", "a".into(), "b".into()) }, false, false),
        ] {
            assert_eq!((is_allowed(&change, Direction::Forward), is_allowed(&change, Direction::Either)), (forward, either), "{change:?}");
        }
    }

    #[test]
    fn undo_may_go_back_and_repair_may_not() {
        let back = change(Table::Backups, "status", ERROR.into(), CREATING.into());
        assert!(!is_allowed(&back, Direction::Forward));
        assert!(is_allowed(&back, Direction::Either));
    }

    #[test]
    fn a_reason_fits_its_column() {
        let reason = |text: String| change(Table::Backups, "fail_reason", Value::Null, text.into());
        assert!(is_allowed(&reason("ä".repeat(255)), Direction::Forward));
        assert!(!is_allowed(&reason("ä".repeat(256)), Direction::Forward));
    }
}
