//! The result of `apply`, `repair` and `undo` as a record stream: the fields of the document, one record for each item of its lists.

use std::io;

use serde_json::{Value, json};

use super::view::RunDocument;
use crate::domain::record_stream::{StreamKind, StreamWriter};

/// The stream `cinder-backup-repair/run-records`. The head has the fields of [`RunDocument`] that are before its lists, the closing record
/// those after them, and a record is an item of one of the lists.
struct RunRecords;

impl StreamKind for RunRecords {
    const SCHEMA: &'static str = "cinder-backup-repair/run-records";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = "the result of a run";
    const INSTEAD: &'static str = "see the audit log";
    type Head = Value;
    type Record = Value;
    type End = Value;
}

/// Writes a result as a stream.
pub fn write(out: impl io::Write, command: &str, document: &RunDocument<'_>) -> io::Result<()> {
    let RunDocument { run, dry_run, plan, database, left_out, missing_grants, summary, interrupted, .. } = document;
    let head = json!({ "command": command, "run": run, "dry_run": dry_run, "plan": plan, "database": database });
    let mut writer = StreamWriter::<RunRecords, _>::begin(out, &head, None)?;
    for unit in document.units {
        writer.add(&json!({ "unit": unit? }))?;
    }
    for refused in document.refused {
        writer.add(&json!({ "refused": refused? }))?;
    }
    for left in document.left_alone {
        writer.add(&json!({ "left_alone": left? }))?;
    }
    for command in document.follow_up {
        writer.add(&json!({ "follow_up": command? }))?;
    }
    let end = json!({ "left_out": left_out, "missing_grants": missing_grants, "summary": summary, "interrupted": interrupted });
    writer.end(&end).map(drop)
}
