//! Reads the JSON document of `scan` one finding at a time.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::{DatabaseInfo, Finding};

/// The longest finding, in bytes.
pub const LONGEST_RECORD: u64 = 64 << 20;

/// What a document says about all findings.
pub struct DocumentHead {
    pub database: DatabaseInfo,
    pub taken_at: String,
}

/// Reads a document, and passes each finding on. `findings_at` becomes the place after the bracket of the findings. The error is a
/// fragment that follows the file's name.
pub fn read_document(input: impl Read, findings_at: &mut u64, each: &mut dyn FnMut(Finding)) -> Result<DocumentHead, String> {
    let place = Rc::new(Cell::new(Place::default()));
    let mut text = serde_json::Deserializer::from_reader(Capped { inner: input, place: Rc::clone(&place) });
    let mut fields = Fields::default();
    let document = Document { place: &place, findings_at, each, fields: &mut fields };
    let read = text.deserialize_map(document).and_then(|()| text.end());
    read.map_err(|error| format!("is not a document of `scan --format json`: {error}"))?;
    let Fields { schema, schema_version, database, taken_at, has_findings } = fields;
    if schema.as_deref() != Some("cinder-backup-repair/scan") || schema_version != Some(1) {
        let (schema, version) = (schema.unwrap_or_default(), schema_version.unwrap_or(0));
        return Err(format!("has the schema {schema:?} {version}: use a scan of version 1"));
    }
    match (database, taken_at, has_findings) {
        (Some(database), Some(taken_at), true) => Ok(DocumentHead { database, taken_at }),
        _ => Err("is not a document of `scan --format json`: it lacks its database, its time or its findings".to_owned()),
    }
}

#[derive(Default)]
struct Fields {
    schema: Option<String>,
    schema_version: Option<u32>,
    database: Option<DatabaseInfo>,
    taken_at: Option<String>,
    has_findings: bool,
}

struct Document<'d> {
    place: &'d Cell<Place>,
    findings_at: &'d mut u64,
    each: &'d mut dyn FnMut(Finding),
    fields: &'d mut Fields,
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scan")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { place, findings_at, each, fields } = self;
        while let Some(field) = map.next_key::<String>()? {
            place.set(place.get().next());
            match field.as_str() {
                "schema" => fields.schema = map.next_value()?,
                "schema_version" => fields.schema_version = map.next_value()?,
                "database" => fields.database = map.next_value()?,
                "taken_at" => fields.taken_at = map.next_value()?,
                "findings" => {
                    fields.has_findings = true;
                    map.next_value_seed(Findings { place, findings_at: &mut *findings_at, each: &mut *each })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Findings<'d> {
    place: &'d Cell<Place>,
    findings_at: &'d mut u64,
    each: &'d mut dyn FnMut(Finding),
}

impl<'de> DeserializeSeed<'de> for Findings<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Findings<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("findings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut findings: A) -> Result<(), A::Error> {
        // The parser has read the bracket and nothing after it.
        *self.findings_at = self.place.get().read;
        while let Some(finding) = findings.next_element()? {
            (self.each)(finding);
            self.place.set(self.place.get().next());
        }
        Ok(())
    }
}

/// How much of a document was read, and where its record began.
#[derive(Clone, Copy, Default)]
struct Place {
    read: u64,
    began: u64,
}

impl Place {
    /// The next record begins.
    fn next(self) -> Self {
        Self { began: self.read, ..self }
    }
}

/// A reader that stops where a record is too long.
struct Capped<R> {
    inner: R,
    place: Rc<Cell<Place>>,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let place = self.place.get();
        let left = LONGEST_RECORD.saturating_sub(place.read - place.began);
        if left == 0 {
            return Err(io::Error::other("a finding is longer than 64 MiB"));
        }
        let most = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let read = self.inner.read(bytes.get_mut(..most).unwrap_or_default())?;
        self.place.set(Place { read: place.read + read as u64, ..place });
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> String {
        let finding = json!({
            "kind": "backup", "id": "b", "name": null, "status": "creating", "host": null, "service": null, "project_id": null,
            "volume_id": null, "since": null, "age_seconds": null, "verdict": "stuck", "evidence": [], "proposal": null,
            "refusal": null, "follow_up": [],
        });
        json!({
            "findings": [finding, finding],
            "schema": "cinder-backup-repair/scan", "schema_version": 1, "taken_at": "2026-11-29T10:00:00Z", "more": { "x": ["]"] },
            "database": { "engine": "sqlite", "version": "3", "release": "r", "identity": "i" },
        })
        .to_string()
    }

    fn read(text: &str) -> Result<(usize, u64), String> {
        let (mut findings, mut at) = (0, 0);
        read_document(text.as_bytes(), &mut at, &mut |_| findings += 1).map(|_| (findings, at))
    }

    #[test]
    fn findings_are_read_wherever_they_are_in_the_document() {
        let text = document();
        let (findings, at) = read(&text).unwrap();
        assert_eq!(findings, 2);
        assert!(text[usize::try_from(at).unwrap()..].starts_with("{\"kind\""), "{at}");
    }

    #[test]
    fn another_document_is_refused() {
        for (from, to, problem) in [
            ("repair/scan", "repair/plan", "has the schema \"cinder-backup-repair/plan\" 1: use a scan of version 1"),
            ("\"schema_version\":1", "\"schema_version\":2", "has the schema \"cinder-backup-repair/scan\" 2: use a scan of version 1"),
            ("\"taken_at\"", "\"at\"", "is not a document of `scan --format json`: it lacks its database, its time or its findings"),
            ("\"stuck\"", "\"broken\"", "is not a document of `scan --format json`: unknown variant `broken`"),
        ] {
            let error = read(&document().replace(from, to)).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
        assert!(read(&document()[..50]).is_err() && read(&(document() + "x")).is_err());
    }

    #[test]
    fn a_finding_that_never_ends_is_refused() {
        let endless = io::repeat(b'x').take(LONGEST_RECORD + 9);
        let text = br#"{"findings": [{"name": ""#.chain(endless);
        let error = read_document(text, &mut 0, &mut |_| ()).map(|_| ()).unwrap_err();
        assert!(error.contains("a finding is longer than 64 MiB"), "{error}");
    }
}
