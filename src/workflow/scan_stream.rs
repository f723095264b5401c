//! A scan as a record stream.

use std::collections::HashSet;
use std::io::{self, Write};

use super::targets::takes;
use super::{Database, Error, Observer, Result, Wanted, reading};
use crate::domain::record_stream::StreamWriter;
use crate::domain::time::rfc3339;
use crate::domain::{Backup, Checks, DatabaseInfo, FindingKind, Situation};
use crate::scan::records::{ScanEnd, ScanHead, ScanRecord, ScanRecords};
use crate::scan::{Census, KeptRows, Scan, ScanError, ScanOutput, ScanRequest, Stream, scan_to};

/// A scan whose findings were written.
pub struct StreamedScan {
    /// Without findings.
    pub scan: Scan,
    /// How many findings were written.
    pub findings: usize,
    /// The ids of those that are about backups, if backups were named.
    pub named: HashSet<String>,
}

/// Scans, and writes each record as it is made. `has_catalog`: also all live backups of the selection, with their chains.
pub fn stream_scan<W: Write>(
    database: &mut Database,
    wanted: &Wanted,
    has_catalog: bool,
    open: impl FnOnce() -> W,
    observer: &dyn Observer,
) -> Result<StreamedScan> {
    let checks = Checks::new();
    let request = ScanRequest::new(&wanted.policy, &wanted.selection, KeptRows::Chains, &checks);
    let mut output = Output { wanted, observer, open: Some(open), writer: None, findings: 0, named: HashSet::new(), error: None };
    let mut takes = |backup: &Backup| takes(&wanted.selection, backup);
    let catalog = has_catalog.then_some(&mut takes as &mut dyn FnMut(&Backup) -> bool);
    let stream = Stream { output: &mut output, catalog };
    let scan = reading(observer, || scan_to(database.session.as_mut(), &database.schema, &request, stream));
    let Output { writer, findings, named, error, .. } = output;
    if let Some(error) = error {
        return Err(error);
    }
    let scan = scan?;
    let end = ScanEnd { summary: scan.document.summary, left_out: scan.document.left_out, catalog: scan.catalog };
    if let Some(writer) = writer {
        writer.end(&end).map_err(unwritable)?;
    }
    Ok(StreamedScan { scan, findings, named })
}

pub(super) fn unwritable(error: io::Error) -> Error {
    Error::Write("the result to standard output".to_owned(), error)
}

struct Output<'a, W: Write, F> {
    wanted: &'a Wanted,
    observer: &'a dyn Observer,
    /// Opens where the stream is written, once it begins.
    open: Option<F>,
    writer: Option<StreamWriter<'static, ScanRecords, W>>,
    findings: usize,
    named: HashSet<String>,
    /// Why the scan was stopped.
    error: Option<Error>,
}

impl<W: Write, F: FnOnce() -> W> Output<'_, W, F> {
    fn write_head(&mut self, database: DatabaseInfo, census: &Census, situation: &Situation) -> Result<()> {
        // Before anything is written, so that standard output holds nothing but the error.
        self.wanted.require_matches(census, situation, self.observer)?;
        let head = ScanHead {
            program: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            database,
            taken_at: rfc3339(situation.now),
            thresholds: self.wanted.policy.thresholds,
            columns: situation.columns,
        };
        self.writer = self.open.take().map(|open| StreamWriter::begin(open(), &head, None)).transpose().map_err(unwritable)?;
        Ok(())
    }

    fn stopped(&mut self, result: Result<()>) -> std::result::Result<(), ScanError> {
        result.map_err(|error| {
            self.error = Some(error);
            ScanError::Stopped
        })
    }
}

impl<W: Write, F: FnOnce() -> W> ScanOutput for Output<'_, W, F> {
    fn begin(&mut self, database: DatabaseInfo, census: &Census, situation: &Situation) -> std::result::Result<(), ScanError> {
        let written = self.write_head(database, census, situation);
        self.stopped(written)
    }

    fn add(&mut self, record: ScanRecord) -> std::result::Result<(), ScanError> {
        if let ScanRecord::Finding(finding) = &record {
            self.findings += 1;
            if finding.kind == FindingKind::Backup && !self.wanted.selection.backups.is_empty() {
                self.named.insert(finding.id.clone());
            }
        }
        let written = self.writer.as_mut().map_or(Ok(()), |writer| writer.add(&record)).map_err(unwritable);
        self.stopped(written)
    }
}
