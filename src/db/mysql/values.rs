//! Converts values to and from MySQL's binary protocol.

use mysql::consts::ColumnType;
use mysql::{Row, Value as Wire};

use crate::db::{ID_BATCH, Param};
use crate::domain::Value;

/// The values for a statement's placeholders. A list of ids fills [`ID_BATCH`] of them; its last id is repeated.
pub(super) fn bind(params: &[Param]) -> Vec<Wire> {
    let mut values = Vec::with_capacity(params.len());
    for param in params {
        match param {
            Param::One(Value::Null) => values.push(Wire::NULL),
            Param::One(Value::Integer(number)) => values.push(Wire::Int(*number)),
            Param::One(Value::Text(text) | Value::Unsupported(text)) => values.push(Wire::Bytes(text.clone().into_bytes())),
            Param::Ids(ids) => {
                let padding = ids.last().map_or(Wire::NULL, |id| Wire::Bytes(id.clone().into_bytes()));
                values.extend(ids.iter().map(|id| Wire::Bytes(id.clone().into_bytes())));
                values.extend(std::iter::repeat_n(padding, ID_BATCH.saturating_sub(ids.len())));
            }
        }
    }
    values
}

/// Puts the cells of a row into `cells`.
pub(super) fn decode(row: Row, cells: &mut Vec<Value>) {
    cells.clear();
    let columns = row.columns();
    cells.extend(row.unwrap_raw().into_iter().zip(columns.iter()).map(|(value, column)| match value {
        Some(value) => cell(value, column.column_type()),
        None => Value::Null,
    }));
}

fn cell(value: Wire, column: ColumnType) -> Value {
    match value {
        Wire::NULL => Value::Null,
        Wire::Int(number) => Value::Integer(number),
        Wire::UInt(number) => i64::try_from(number).map_or_else(|_| Value::Text(number.to_string()), Value::Integer),
        Wire::Float(number) => Value::Text(number.to_string()),
        Wire::Double(number) => Value::Text(number.to_string()),
        Wire::Bytes(bytes) => {
            // SUM() of integers is a DECIMAL.
            let decimal = matches!(column, ColumnType::MYSQL_TYPE_NEWDECIMAL | ColumnType::MYSQL_TYPE_DECIMAL);
            match crate::db::text(bytes) {
                Value::Text(text) if decimal => text.parse().map_or(Value::Text(text), Value::Integer),
                value => value,
            }
        }
        Wire::Date(year, month, day, hour, minute, second, micros) => {
            Value::Text(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{}", fraction(micros)))
        }
        Wire::Time(negative, days, hours, minutes, seconds, micros) => {
            let sign = if negative { "-" } else { "" };
            let hours = u64::from(days) * 24 + u64::from(hours);
            Value::Text(format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{}", fraction(micros)))
        }
    }
}

fn fraction(micros: u32) -> String {
    if micros == 0 { String::new() } else { format!(".{micros:06}") }
}

/// The number of matched rows in the server's message after an UPDATE: `Rows matched: 1  Changed: 0 …`. The message does not
/// depend on CLIENT_FOUND_ROWS, which a proxy may drop.
pub(super) fn matched(message: &str) -> Option<u64> {
    let rest = message.strip_prefix("Rows matched:")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_ids_is_padded_to_its_placeholders() {
        let params = [Param::from("x"), Param::Ids(vec!["a".to_owned(), "b".to_owned()]), Param::from(7)];
        let bound = bind(&params);
        assert_eq!(bound.len(), ID_BATCH + 2);
        assert_eq!(bound[1], Wire::Bytes(b"a".to_vec()));
        assert!(bound[2..=ID_BATCH].iter().all(|value| *value == Wire::Bytes(b"b".to_vec())));
        assert_eq!(bound[ID_BATCH + 1], Wire::Int(7));
    }

    #[test]
    fn cells_become_shared_values() {
        let text = ColumnType::MYSQL_TYPE_VAR_STRING;
        assert_eq!(cell(Wire::Bytes(b"12".to_vec()), text), Value::from("12"));
        assert_eq!(cell(Wire::Bytes(b"12".to_vec()), ColumnType::MYSQL_TYPE_NEWDECIMAL), Value::Integer(12));
        assert_eq!(cell(Wire::Bytes(b"1.5".to_vec()), ColumnType::MYSQL_TYPE_NEWDECIMAL), Value::from("1.5"));
        assert_eq!(cell(Wire::Bytes(vec![b'a', 0xff]), text), Value::Unsupported("a\u{fffd}".to_owned()));
        assert_eq!(cell(Wire::UInt(u64::MAX), text), Value::from("18446744073709551615"));
        assert_eq!(cell(Wire::Date(2026, 11, 2, 3, 4, 5, 0), text), Value::from("2026-11-02 03:04:05"));
        assert_eq!(cell(Wire::Date(2026, 11, 2, 3, 4, 5, 60), text), Value::from("2026-11-02 03:04:05.000060"));
        assert_eq!(cell(Wire::Time(true, 1, 2, 3, 4, 0), text), Value::from("-26:03:04"));
    }

    #[test]
    fn matched_rows_are_read_from_the_message() {
        assert_eq!(matched("Rows matched: 12  Changed: 0  Warnings: 0"), Some(12));
        assert_eq!(matched(""), None);
        assert_eq!(matched("Records: 1"), None);
    }
}
