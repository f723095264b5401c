//! What `scan` wrote, as backups to check: a record stream or a JSON document of any size, one record in memory at a time.
//!
//! The file is read to its end before anything is done with it, so that an edited one is refused at once, and then once more for the
//! targets. What comes from a pipe is kept in a temporary file.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::scan_document::{DocumentHead, LONGEST_RECORD, read_document};
use super::targets::takes;
use super::{Error, Hosts, Observer, Result, WorkEvent};
use crate::domain::record_stream::{StreamError, StreamReader, is_stream};
use crate::domain::{Backup, ColumnSet, DatabaseInfo, Finding, FindingKind, Image, Selection, Services, Verdict};
use crate::input;
use crate::scan::lineage;
use crate::scan::records::{CatalogBackup, ScanHead, ScanRecord, ScanRecords};
use crate::verify::Target;

/// The number of targets that are made at a time; more only to keep a chain together.
const PORTION: usize = 1_000;
/// The most targets of one chain that are made at a time.
const LONGEST_PORTION: usize = 4 * PORTION;

/// A file that `scan` wrote and that was read to its end without an error.
pub struct ScanFile {
    shown: String,
    file: File,
    /// For a document, the place after the bracket of its findings.
    findings_at: Option<u64>,
    pub database: DatabaseInfo,
    /// When the rows were read, by the database's clock.
    pub taken_at: String,
    columns: ColumnSet,
    has_catalog: bool,
    selection: Selection,
    /// How many targets it has.
    pub total: usize,
}

impl ScanFile {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path, selection: &Selection, observer: &dyn Observer) -> Result<Self> {
        let from_input = path == Path::new("-");
        let shown = if from_input { "standard input".to_owned() } else { path.display().to_string() };
        let opened = if from_input { input::copied(io::stdin()) } else { input::open_json(path) };
        let file = opened.map_err(|error| Error::Unusable(format!("cannot read {shown}: {error}")))?;
        let mut summary = Summary { selection, hosts: HashSet::new(), columns: None, has_catalog: false, targets: 0 };
        let (head, findings_at) = read(&file, &mut summary).map_err(|problem| Error::Unusable(format!("{shown} {problem}")))?;
        let lacking = format!("no backup in {shown}");
        // The file may list only what was stuck, so a host that is not in it may still exist.
        let hosts = Hosts { of_backups: &summary.hosts, services: &Services::default(), lacking: &lacking };
        hosts.problems(selection).into_iter().for_each(|problem| observer.event(WorkEvent::Warning(problem)));
        let total = summary.targets.min(selection.limit.unwrap_or(usize::MAX));
        let (columns, has_catalog) = (head.columns.or(summary.columns).unwrap_or(ColumnSet::Mitaka), summary.has_catalog);
        let (database, taken_at, selection) = (head.database, head.taken_at, selection.clone());
        Ok(Self { shown, file, findings_at, database, taken_at, columns, has_catalog, selection, total })
    }

    /// Its records, from the beginning. The file is read once at a time.
    pub fn records(&self) -> Result<Records> {
        let cannot = |error: io::Error| Error::Unusable(format!("cannot read {}: {error}", self.shown));
        let file = self.file.try_clone().map_err(cannot)?;
        let source = Records::begin(file, self.findings_at).map_err(|problem| Error::Unusable(format!("{} {problem}", self.shown)))?;
        Ok(Records { shown: self.shown.clone(), source })
    }

    /// The selected backups, some at a time; those of a chain together, unless it is too long.
    pub fn targets(&self) -> Result<Targets> {
        let (columns, has_catalog, selection) = (self.columns, self.has_catalog, self.selection.clone());
        let path = lineage::Path::default();
        Ok(Targets { records: self.records()?, next: None, path, is_first: false, left: self.total, columns, has_catalog, selection })
    }
}

/// What is known of a file before its targets are made.
struct Summary<'s> {
    selection: &'s Selection,
    hosts: HashSet<String>,
    /// The columns of the first row.
    columns: Option<ColumnSet>,
    has_catalog: bool,
    /// The targets of the catalog, or of the findings if there is no catalog.
    targets: usize,
}

impl Summary<'_> {
    fn note(&mut self, record: &ScanRecord) {
        match record {
            ScanRecord::Finding(finding) => {
                self.columns = self.columns.or_else(|| finding.rows.first().map(columns_of));
                self.note_backup(finding.host.as_ref().filter(|_| finding.kind == FindingKind::Backup));
                let target = target_of_finding(finding, ColumnSet::Mitaka);
                self.targets += usize::from(!self.has_catalog && target.is_some_and(|target| takes(self.selection, &target.backup)));
            }
            ScanRecord::Chain(_) => {
                if !self.has_catalog {
                    (self.has_catalog, self.targets) = (true, 0);
                }
            }
            ScanRecord::Backup(backup) => {
                let row = backup.backup();
                self.note_backup(row.host.as_ref());
                self.targets += usize::from(backup.wanted && takes(self.selection, &row));
            }
            ScanRecord::Notice(_) => {}
        }
    }

    fn note_backup(&mut self, host: Option<&String>) {
        if let Some(host) = host.filter(|host| !self.hosts.contains(*host)) {
            self.hosts.insert(host.clone());
        }
    }
}

/// What a file says about all of its records.
struct Head {
    database: DatabaseInfo,
    taken_at: String,
    columns: Option<ColumnSet>,
}

/// Reads a file to its end: its head, and the place of the findings of a document. The error is a fragment that follows the file's name.
fn read(file: &File, summary: &mut Summary<'_>) -> std::result::Result<(Head, Option<u64>), String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let mut start = file;
    start.rewind().map_err(unreadable)?;
    let is_stream = is_stream(start).map_err(unreadable)?.0;
    start.rewind().map_err(unreadable)?;
    if !is_stream {
        let mut place = 0;
        let DocumentHead { database, taken_at } =
            read_document(BufReader::new(file), &mut place, &mut |finding| summary.note(&ScanRecord::Finding(Box::new(finding))))?;
        return Ok((Head { database, taken_at, columns: None }, Some(place)));
    }
    let begun = StreamReader::<ScanRecords, _>::begin(BufReader::new(file));
    let (ScanHead { database, taken_at, columns, .. }, mut records) = begun.map_err(|error| error.to_string())?;
    while let Some(record) = records.next_record().map_err(|error| error.to_string())? {
        summary.note(&record);
    }
    Ok((Head { database, taken_at, columns: Some(columns) }, None))
}

/// The records of a file.
pub struct Records {
    shown: String,
    source: Source,
}

enum Source {
    Stream(Box<StreamReader<ScanRecords, BufReader<File>>>),
    /// Within the findings of a document.
    Document(BufReader<File>),
}

impl Records {
    fn begin(mut file: File, findings_at: Option<u64>) -> std::result::Result<Source, StreamError> {
        file.seek(SeekFrom::Start(findings_at.unwrap_or(0)))?;
        let input = BufReader::new(file);
        Ok(if findings_at.is_some() { Source::Document(input) } else { Source::Stream(Box::new(StreamReader::begin(input)?.1)) })
    }

    fn read(&mut self) -> std::result::Result<Option<ScanRecord>, StreamError> {
        let input = match &mut self.source {
            Source::Stream(records) => return records.next_record(),
            Source::Document(input) => input,
        };
        loop {
            match input.fill_buf()?.first() {
                Some(b',' | b' ' | b'\t' | b'\r' | b'\n') => input.consume(1),
                Some(b']') => return Ok(None),
                _ => break,
            }
        }
        let mut record = serde_json::Deserializer::from_reader(input.take(LONGEST_RECORD));
        let finding = Finding::deserialize(&mut record).map_err(io::Error::from)?;
        Ok(Some(ScanRecord::Finding(Box::new(finding))))
    }
}

impl Iterator for Records {
    type Item = Result<ScanRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map_err(|error| Error::Unusable(format!("{} {error}", self.shown))).transpose()
    }
}

/// The targets of a file.
pub struct Targets {
    records: Records,
    /// The record after the last portion.
    next: Option<ScanRecord>,
    path: lineage::Path,
    /// The next backup is the first of its chain.
    is_first: bool,
    /// How many targets are still to come.
    left: usize,
    columns: ColumnSet,
    has_catalog: bool,
    selection: Selection,
}

impl Targets {
    fn portion(&mut self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        while self.left > 0 && targets.len() < LONGEST_PORTION {
            let Some(record) = self.next.take().map(Ok).or_else(|| self.records.next()).transpose()? else { break };
            let target = match record {
                ScanRecord::Chain(_) if targets.len() >= PORTION => {
                    self.next = Some(record);
                    break;
                }
                ScanRecord::Chain(_) => {
                    self.is_first = true;
                    continue;
                }
                ScanRecord::Backup(backup) => self.target(&backup)?.filter(|_| backup.wanted),
                ScanRecord::Finding(finding) if !self.has_catalog => target_of_finding(&finding, self.columns),
                ScanRecord::Finding(_) | ScanRecord::Notice(_) => continue,
            };
            let Some(target) = target.filter(|target| takes(&self.selection, &target.backup)) else { continue };
            targets.push(target);
            self.left -= 1;
            if !self.has_catalog && targets.len() >= PORTION {
                break;
            }
        }
        Ok(targets)
    }

    fn target(&mut self, record: &CatalogBackup) -> Result<Option<Target>> {
        let backup = Arc::new(record.backup());
        let ancestors = self.path.ancestors(&backup);
        if ancestors.is_empty() && !std::mem::take(&mut self.is_first) {
            let problem = format!("{} is not a catalog: backup {} does not follow its parent", self.records.shown, backup.id);
            return Err(Error::Unusable(problem));
        }
        self.is_first = false;
        Ok(record.wanted.then(|| Target { backup: Backup::clone(&backup), ancestors, columns: self.columns }))
    }
}

impl Iterator for Targets {
    type Item = Result<Vec<Target>>;

    fn next(&mut self) -> Option<Self::Item> {
        let portion = self.portion();
        if portion.is_err() {
            self.left = 0;
        }
        Some(portion).filter(|portion| portion.as_ref().map_or(true, |targets| !targets.is_empty()))
    }
}

/// The backup that a finding is about, if a check of its storage matters and the finding has its rows.
pub fn target_of_finding(finding: &Finding, columns: ColumnSet) -> Option<Target> {
    if finding.kind != FindingKind::Backup || finding.verdict == Verdict::Recent {
        return None;
    }
    let mut rows = finding.rows.iter().map(|image| Backup { project_id: finding.project_id.clone(), ..Backup::of_image(image) });
    let backup = Backup { display_name: finding.name.clone(), ..rows.next()? };
    Some(Target { backup, ancestors: rows.map(Arc::new).collect(), columns })
}

/// The columns that a row's image has.
fn columns_of(image: &Image) -> ColumnSet {
    if image.columns.contains_key("restore_volume_id") {
        ColumnSet::Mitaka
    } else if image.columns.contains_key("parent_id") {
        ColumnSet::Liberty
    } else {
        ColumnSet::Juno
    }
}
