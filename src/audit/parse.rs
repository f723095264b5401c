//! From a line to a record, with room for fields that later versions add.
//!
//! The types in `domain` refuse unknown fields, as a plan must. A log outlives the program that wrote it: within a schema
//! version fields are only ever added, and an older program must still be able to undo what it understands. So a record is
//! read through [`Lenient`], which leaves out what a type does not know. Pure.

use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde_json::{Error, Value};

use super::line_digest;
use super::record::{Event, Record, SCHEMA, SCHEMA_VERSION};

/// Why a line is not a record.
#[derive(Debug)]
pub(super) enum NoRecord {
    /// It ends too early.
    Truncated,
    /// Another reason, as a fragment.
    Other(String),
    /// It has a newer schema version.
    Newer(u64),
}

/// The fields of every record.
#[derive(Deserialize)]
struct Header {
    seq: u64,
    previous: String,
    at: String,
    run: String,
    event: String,
}

/// Parses one line without its line feed. Does not check its digest.
pub(super) fn parse(line: &[u8]) -> Result<Record, NoRecord> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| if error.is_eof() { NoRecord::Truncated } else { NoRecord::Other(format!("it is not JSON: {error}")) })?;
    let schema = value.get("schema").and_then(Value::as_str);
    if schema != Some(SCHEMA) {
        return Err(NoRecord::Other(format!("its schema is {:?}, not {SCHEMA:?}", schema.unwrap_or_default())));
    }
    match value.get("schema_version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(SCHEMA_VERSION) => {}
        Some(version) if version > u64::from(SCHEMA_VERSION) => return Err(NoRecord::Newer(version)),
        _ => return Err(NoRecord::Other("it has no valid schema_version".to_owned())),
    }
    record(&value).map_err(|error| NoRecord::Other(error.to_string()))
}

/// Whether a crash explains a line that is not a record: it has no line feed, or it was cut off and the next run added the line feed
/// and crashed before it wrote the `torn` record. The `first` line of a file must begin like a record, so that a file of another kind
/// is not taken for a log.
pub(super) fn is_cut_off(line: &[u8], reason: &NoRecord, terminated: bool, first: bool) -> bool {
    let start = format!("{{\"schema\":\"{SCHEMA}\"").into_bytes();
    if line_digest::is_complete(line) {
        return false;
    }
    let looks_like_record = line.iter().zip(&start).all(|(found, expected)| found == expected);
    match reason {
        NoRecord::Truncated => !first || looks_like_record,
        NoRecord::Other(_) => !terminated && (!first || (looks_like_record && line.len() >= start.len())),
        NoRecord::Newer(_) => false,
    }
}

/// Reads the record from a line of the known schema version.
fn record(value: &Value) -> Result<Record, Error> {
    let Header { seq, previous, at, run, event } = Header::deserialize(Lenient(value))?;
    let event = match event.as_str() {
        "begin" => Event::Begin(Deserialize::deserialize(Lenient(value))?),
        "intent" => Event::Intent(Deserialize::deserialize(Lenient(value))?),
        "outcome" => Event::Outcome(Deserialize::deserialize(Lenient(value))?),
        "settled" => Event::Settled(Deserialize::deserialize(Lenient(value))?),
        "end" => Event::End(Deserialize::deserialize(Lenient(value))?),
        "torn" => Event::Torn(Deserialize::deserialize(Lenient(value))?),
        other => return Err(serde::de::Error::custom(format!("unknown event {other:?}"))),
    };
    Ok(Record { schema: SCHEMA.to_owned(), schema_version: SCHEMA_VERSION, seq, previous, at, run, event })
}

/// A JSON value of which a struct sees the fields that it knows and no others.
#[derive(Clone, Copy)]
struct Lenient<'de>(&'de Value);

impl<'de> IntoDeserializer<'de, Error> for Lenient<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Lenient<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Lenient))),
            Value::Object(fields) => {
                visitor.visit_map(MapDeserializer::new(fields.iter().map(|(name, value)| (name.as_str(), Lenient(value)))))
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(name, _)| known.contains(&name.as_str()));
                visitor.visit_map(MapDeserializer::new(fields.map(|(name, value)| (name.as_str(), Lenient(value)))))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::super::record::Torn;
    use super::super::tests::samples;
    use super::*;

    fn line(record: &Record) -> Vec<u8> {
        serde_json::to_vec(record).unwrap()
    }

    #[test]
    fn every_event_comes_back_as_it_was_written() {
        for event in samples::events() {
            let record = samples::record(7, &"0".repeat(64), "run", event);
            assert_eq!(parse(&line(&record)).unwrap(), record);
        }
    }

    /// Adds a field to every object at every depth, except where keys are data.
    fn add_fields(value: &mut Value, keys_are_data: bool) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| add_fields(item, false)),
            Value::Object(fields) => {
                for (name, field) in fields.iter_mut() {
                    add_fields(field, matches!(name.as_str(), "columns" | "assume_dead"));
                }
                if !keys_are_data {
                    fields.insert("added_in_2031".to_owned(), json!({"x": [1]}));
                }
            }
            _ => {}
        }
    }

    #[test]
    fn fields_of_later_versions_are_ignored_at_every_depth() {
        for event in samples::events() {
            let record = samples::record(7, &"0".repeat(64), "run", event);
            let mut value = serde_json::to_value(&record).unwrap();
            add_fields(&mut value, false);
            assert_eq!(parse(&serde_json::to_vec(&value).unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn fields_that_earlier_versions_did_not_write_are_none() {
        let mut value = serde_json::to_value(samples::record(7, &"0".repeat(64), "run", samples::intent(1))).unwrap();
        assert!(value.as_object_mut().unwrap().remove("window").is_some());
        let Event::Intent(intent) = parse(&serde_json::to_vec(&value).unwrap()).unwrap().event else { panic!("an intent") };
        assert_eq!(intent.window, None);
    }

    #[test]
    fn lines_that_are_not_records_are_distinguished() {
        let record = samples::record(1, &"0".repeat(64), "run", Event::Torn(Torn { bytes: 1, sha256: String::new() }));
        let whole = line(&record);
        for cut in 0..whole.len() {
            assert!(matches!(parse(whole.get(..cut).unwrap()), Err(NoRecord::Truncated)), "cut at {cut}");
        }
        let with = |key: &str, new: Value| {
            let mut value = serde_json::to_value(&record).unwrap();
            value.as_object_mut().unwrap().insert(key.to_owned(), new);
            parse(&serde_json::to_vec(&value).unwrap())
        };
        assert!(matches!(with("schema_version", json!(2)), Err(NoRecord::Newer(2))));
        for (key, new) in [
            ("schema_version", json!(0)),
            ("schema_version", json!("1")),
            ("schema", json!("cinder-backup-repair/plan")),
            ("event", json!("party")),
            ("bytes", json!(-1)),
            ("run", json!(null)),
        ] {
            assert!(matches!(with(key, new), Err(NoRecord::Other(_))), "{key}");
        }
        assert!(matches!(parse(b"\0\0\0\0"), Err(NoRecord::Other(_))));
    }
}
