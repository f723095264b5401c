//! Check results as a record stream: the partial file of a check that is running or was stopped.
//!
//! The head states what is checked. Each record is a result, or the row of an ancestor. Rows come before the results that need them,
//! mostly once each. Of two results of the same backup the later one counts. The end of the file may be torn, so only the lines before the
//! first incomplete one count; all other backups are checked again.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Target;
use super::check_document::{CheckBody, Summary, is_none};
pub use crate::domain::record_stream::Sign;
use crate::domain::record_stream::{StreamKind, StreamWriter};
use crate::domain::shards::Shard;
use crate::domain::{Backup, Body, CheckResult, DatabaseInfo, Image, Level};

/// The stream `cinder-backup-repair/check-results`.
pub struct CheckResults;

impl StreamKind for CheckResults {
    const SCHEMA: &'static str = "cinder-backup-repair/check-results";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = CheckBody::KIND;
    const INSTEAD: &'static str = CheckBody::INSTEAD;
    type Head = Head;
    type Record = Record;
    type End = End;
}

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Head {
    pub program: String,
    pub database: DatabaseInfo,
    pub taken_at: String,
    pub level: Level,
    pub settle_seconds: u64,
    /// Which part of a catalog is checked, if the work is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<CatalogPart>,
    /// How many of the first records are those of the check that is resumed. They are in a partial file only.
    #[serde(default, skip_serializing_if = "is_none")]
    pub earlier: usize,
}

/// A shard of a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CatalogPart {
    /// The digest of the catalog.
    pub catalog: String,
    /// How many backups the whole catalog has.
    pub backups: u64,
    /// Which shard of how many.
    pub shard: Shard,
}

impl Head {
    /// As in the document of a complete check.
    pub fn new(database: DatabaseInfo, taken_at: String, level: Level, settle_seconds: u64) -> Self {
        let program = format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        Self { program, database, taken_at, level, settle_seconds, part: None, earlier: 0 }
    }
}

/// A line after the head.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// The row of an ancestor.
    Row(Image),
    /// A result, with its backup's own row.
    Result(Box<CheckResult>),
}

/// How many rows a writer remembers. The chains that are checked at the same time have far fewer.
const MOST_ROWS: usize = 8_192;

/// How the check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// What stopped the check, if it was stopped: a signal, or `--max-runtime`.
    pub interrupted: Option<String>,
    /// The number of results with each verdict.
    pub summary: Summary,
}

/// Writes the results of targets.
pub struct PartialWriter<'a, W> {
    stream: StreamWriter<'a, CheckResults, W>,
    /// Backups whose rows were written for the results of their descendants, as far as they are remembered.
    rows: HashMap<String, Arc<Backup>>,
}

impl<'a, W: Write> PartialWriter<'a, W> {
    /// Writes the head. With `sign`, every line has a signature over all lines up to it.
    pub fn begin(out: W, head: &Head, sign: Option<Sign<'a>>) -> io::Result<Self> {
        Ok(Self { stream: StreamWriter::begin(out, head, sign)?, rows: HashMap::new() })
    }

    /// Adds the result of a target, whose rows are written, too.
    pub fn add(&mut self, result: &CheckResult, target: &Target) -> io::Result<()> {
        if self.rows.len() > MOST_ROWS {
            self.rows.clear();
        }
        for ancestor in &target.ancestors {
            if self.rows.get(&ancestor.id) != Some(ancestor) {
                self.stream.add(&Record::Row(ancestor.image(target.columns)))?;
                self.rows.insert(ancestor.id.clone(), Arc::clone(ancestor));
            }
        }
        let mut result = result.clone();
        result.rows.truncate(1);
        self.stream.add(&Record::Result(Box::new(result)))
    }

    /// Adds a record of another stream.
    pub fn add_record(&mut self, record: &Record) -> io::Result<()> {
        self.stream.add(record)
    }

    /// Writes the closing record.
    pub fn end(self, end: &End) -> io::Result<()> {
        self.stream.end(end).map(drop)
    }

    /// Where it is written.
    pub fn out(&mut self) -> &mut W {
        self.stream.out()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::record_stream::StreamError;
    use crate::domain::{ColumnSet, SealError, Signature};
    use crate::verify::StoredResults;

    fn target(number: usize) -> Target {
        let backup = |number: usize| Backup { id: format!("b{number}"), status: Some("available".to_owned()), ..Backup::default() };
        let ancestors = (0..number).rev().map(|above| Arc::new(backup(above))).collect();
        Target { backup: backup(number), ancestors, columns: ColumnSet::Mitaka }
    }

    fn result(target: &Target, checked_at: &str) -> CheckResult {
        let amount = serde_json::json!({ "checked": 0, "expected": 0 });
        let ids: Vec<&str> =
            std::iter::once(&target.backup).chain(target.ancestors.iter().map(AsRef::as_ref)).map(|row| row.id.as_str()).collect();
        serde_json::from_value(serde_json::json!({
            "id": target.backup.id, "name": null, "driver": "posix", "service": null, "location": null, "level": "deep", "depth": "",
            "partial": false, "verdict": "intact", "busy": false, "begun": true, "objects": amount, "bytes": amount, "problems": [],
            "warnings": [], "chain": ids, "object_count": null, "service_metadata": null, "newest_object_at": null,
            "checked_at": checked_at, "rows": [target.backup.image(target.columns)],
        }))
        .unwrap()
    }

    /// A file about a chain of three, whose last member was checked twice.
    fn file() -> Vec<u8> {
        written(None)
    }

    fn written(sign: Option<Sign<'_>>) -> Vec<u8> {
        let database =
            DatabaseInfo { engine: "sqlite".into(), version: "3".into(), release: "r".into(), identity: "i".into(), location: None };
        let head = Head::new(database, "2026-11-22T10:00:00Z".to_owned(), Level::Deep, 900);
        let mut writer = PartialWriter::begin(Vec::new(), &head, sign).unwrap();
        for (number, at) in
            [(0, "2026-11-22T11:00:00Z"), (2, "2026-11-22T11:01:00Z"), (1, "2026-11-22T11:02:00Z"), (2, "2026-11-22T11:03:00Z")]
        {
            writer.add(&result(&target(number), at), &target(number)).unwrap();
        }
        writer.out().clone()
    }

    fn read(text: &[u8]) -> Result<StoredResults, StreamError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        StoredResults::read(file, &mut |_| true)
    }

    fn results(stored: &StoredResults) -> Vec<CheckResult> {
        let mut results = Vec::new();
        stored.each(0, &mut |result| results.push(result)).unwrap();
        results.sort_by(|a, b| a.id.cmp(&b.id));
        results
    }

    /// The ids and times of the results that are read.
    fn times(text: &[u8]) -> Vec<(String, String)> {
        results(&read(text).unwrap()).into_iter().map(|result| (result.id, result.checked_at)).collect()
    }

    #[test]
    fn results_are_read_with_every_row_of_the_chain_once() {
        let text = file();
        assert_eq!(text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"row\"")).count(), 2);
        let stored = read(&text).unwrap();
        assert_eq!((stored.head.level, stored.head.settle_seconds, stored.len()), (Level::Deep, 900, 3));
        for result in results(&stored) {
            assert_eq!(stored.get(&result.id, 0).unwrap().as_ref(), Some(&result));
            let target = target(result.chain.len() - 1);
            assert_eq!(result.outdated(&target.backup, &target.ancestors, target.columns), None);
        }
        assert_eq!(times(&text).pop().unwrap().1, "2026-11-22T11:03:00Z", "the later one counts");
    }

    #[test]
    fn every_prefix_of_a_file_is_read_up_to_its_last_complete_line() {
        let text = file();
        let head = text.iter().position(|byte| *byte == b'\n').unwrap();
        let mut before = 0;
        for length in 0..=text.len() {
            let cut = text.get(..length).unwrap();
            if length <= head {
                assert!(matches!(read(cut), Err(StreamError::Seal(SealError::Invalid { .. }, _))), "{length}");
                continue;
            }
            let found = times(cut).len();
            assert!(found == before || found == before + 1, "{length}");
            before = found;
            // What a disk may hold after a power failure.
            let zeros = [cut, &[0; 512]].concat();
            assert_eq!(times(&zeros), times(cut), "{length}");
        }
        assert_eq!(before, 3);
    }

    #[test]
    fn an_edited_file_is_refused() {
        let refused = |text: &str| assert!(matches!(read(text.as_bytes()), Err(StreamError::Seal(SealError::Edited(_), 2))), "{text}");
        let text = String::from_utf8(file()).unwrap();
        refused(&text.replacen("\"intact\"", "\"corrupt\"", 1));
        let mut lines: Vec<&str> = text.lines().collect();
        lines.remove(1);
        refused(&format!("{}\n", lines.join("\n")));
    }

    #[test]
    fn a_record_that_is_edited_after_it_was_verified_is_refused() {
        use std::os::unix::fs::FileExt;
        let mut file = tempfile::tempfile().unwrap();
        let text = String::from_utf8(self::file()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let stored = StoredResults::read(file.try_clone().unwrap(), &mut |_| true).unwrap();
        assert!(stored.get("b0", 0).unwrap().is_some());
        let place = text.find("\"verdict\":\"intact\"").unwrap();
        file.write_all_at(b"\"verdict\":\"corrup\"", place as u64).unwrap();
        assert!(matches!(stored.get("b0", 0), Err(StreamError::Seal(SealError::Edited(_), _))));
    }

    #[test]
    fn every_line_has_a_signature_over_all_lines_up_to_it() {
        let sign = |sha256: &str| Signature { algorithm: "a".into(), public_key: "p".into(), value: format!("of {sha256}") };
        let text = written(Some(Box::new(sign)));
        for length in [text.len(), text.len() - 1, text.len() / 2] {
            let evidence = read(text.get(..length).unwrap()).unwrap();
            assert_eq!(evidence.signature.unwrap().value, format!("of {}", evidence.sha256));
        }
        assert_eq!(read(&file()).unwrap().signature, None);
    }

    #[test]
    fn a_newer_version_is_refused() {
        let text =
            String::from_utf8(file()).unwrap().replace("\"schema_version\":1,\"program\"", "\"schema_version\":2,\"more\":[],\"program\"");
        assert!(matches!(read(text.as_bytes()), Err(StreamError::Seal(SealError::Newer(2), _))));
    }
}
