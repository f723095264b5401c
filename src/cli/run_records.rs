//! The result of `apply`, `repair` and `undo` as a record stream: the fields of the document, one record for each item of its lists.

use std::io;

use serde::{Deserialize, Serialize};

use super::view::RunDocument;
use crate::domain::record_stream::{StreamKind, StreamWriter};
use crate::domain::{DatabaseInfo, Tally, UnitResult};
use crate::workflow::{LeftAlone, Refused};

/// The stream `cinder-backup-repair/run-records`.
pub struct RunRecords;

impl StreamKind for RunRecords {
    const SCHEMA: &'static str = "cinder-backup-repair/run-records";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = "the result of a run";
    const INSTEAD: &'static str = "see the audit log";
    type Head = RunHead;
    type Record = RunRecord;
    type End = RunEnd;
}

/// The fields of [`RunDocument`] that are before its lists.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunHead {
    command: String,
    run: Option<String>,
    dry_run: bool,
    plan: String,
    database: DatabaseInfo,
}

/// An item of a list of [`RunDocument`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunRecord {
    Unit(Box<UnitResult>),
    Refused(Refused),
    LeftAlone(LeftAlone),
    FollowUp(String),
}

/// The other fields of [`RunDocument`].
#[derive(Debug, Serialize, Deserialize)]
pub struct RunEnd {
    left_out: usize,
    missing_grants: Vec<String>,
    summary: Tally,
    interrupted: Option<String>,
}

/// Writes a result as a stream.
pub fn write(out: impl io::Write, command: &str, document: &RunDocument<'_>) -> io::Result<()> {
    let head = RunHead {
        command: command.to_owned(),
        run: document.run.map(str::to_owned),
        dry_run: document.dry_run,
        plan: document.plan.to_owned(),
        database: document.database.clone(),
    };
    let mut writer = StreamWriter::<RunRecords, _>::begin(out, &head, None)?;
    for unit in document.units {
        writer.add(&RunRecord::Unit(Box::new(unit?)))?;
    }
    for refused in document.refused {
        writer.add(&RunRecord::Refused(refused?))?;
    }
    for left in document.left_alone {
        writer.add(&RunRecord::LeftAlone(left?))?;
    }
    for command in document.follow_up {
        writer.add(&RunRecord::FollowUp(command?))?;
    }
    let end = RunEnd {
        left_out: document.left_out,
        missing_grants: document.missing_grants.to_vec(),
        summary: document.summary,
        interrupted: document.interrupted.map(str::to_owned),
    };
    writer.end(&end).map(drop)
}
