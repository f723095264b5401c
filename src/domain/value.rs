//! One cell of a row, as the program compares, records and writes it.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A column's value in the form that all engines share.
///
/// Times are text in the engine's own spelling (naive UTC, for example `2026-11-22 18:46:33` or, with
/// microseconds, `2026-11-22 18:46:33.000001`), so that a guard compares exactly what was read. Booleans are
/// the integers 0 and 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// SQL NULL.
    #[default]
    Null,
    /// An integer column, or a boolean as 0 or 1.
    Integer(i64),
    /// A character column, or a time.
    Text(String),
    /// A value that no guard can compare and no undo can restore exactly, as text for people: a real number, a BLOB, bytes that are not
    /// UTF-8. It is only read, by [`crate::scan`]: a row with such a value is not changed, and no document holds one.
    Unsupported(String),
}

impl Value {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Integer(_) | Self::Unsupported(_) => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Null | Self::Text(_) | Self::Unsupported(_) => None,
        }
    }
}

/// Written by hand: derived code for an untagged enum tries each variant and makes an error message for each that does not fit. That took a
/// twelfth of the time of a repair.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Cell;

        impl Visitor<'_> for Cell {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("null, an integer or text")
            }

            fn visit_unit<E: Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Integer(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
                i64::try_from(number).map(Value::Integer).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::from(text))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
                Ok(Value::Text(text))
            }
        }

        deserializer.deserialize_any(Cell)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) | Self::Unsupported(text) => f.write_str(text),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn null_integers_and_text_are_read_and_nothing_else() {
        let values = [Value::Null, Value::Integer(i64::MIN), Value::Integer(i64::MAX), Value::from("1"), Value::from("a\n\"b")];
        for value in values {
            let text = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
        for other in ["1.5", "true", "[]", "{}", "9223372036854775808"] {
            let error = serde_json::from_str::<Value>(other).unwrap_err().to_string();
            assert!(error.contains("expected null, an integer or text"), "{other}: {error}");
        }
    }
}
