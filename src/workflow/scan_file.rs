//! What `scan` wrote, as backups to check: a record stream or a JSON document of any size, one record in memory at a time.
//!
//! The file is read to its end before anything is done with it, so that an edited one is refused at once, and then once more for the
//! tasks. A stream whose digest differs then was replaced meanwhile. A document has no digest, so it is copied to a temporary file, and so
//! is input from a pipe. Of a catalog, a shard takes 20 bytes of memory for each chain.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::scan_document::{DocumentHead, LONGEST_RECORD, read_document};
use super::targets::takes;
use super::{Error, Hosts, Observer, Result, WorkEvent};
use crate::domain::record_stream::{StreamError, StreamReader, is_stream};
use crate::domain::shards::{ChainCosts, ObjectPart, Shard, ShardContent};
use crate::domain::{Backup, ColumnSet, DatabaseInfo, Driver, Finding, FindingKind, Image, Level, Selection, Services, Verdict};
use crate::input;
use crate::scan::lineage;
use crate::scan::records::{CatalogBackup, ScanHead, ScanRecord, ScanRecords};
use crate::verify::partial::CatalogPart;
use crate::verify::{Request, Target, Task, chunked};

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
    /// The digest of a stream.
    sha256: String,
    pub database: DatabaseInfo,
    /// When the rows were read, by the database's clock.
    pub taken_at: String,
    columns: ColumnSet,
    has_catalog: bool,
    selection: Selection,
    /// The chains of the shard, by their places in the catalog, with the objects of a chain that is split. `None` for all.
    chains: Option<ShardContent>,
    /// Which shard of the catalog is checked.
    pub part: Option<CatalogPart>,
    /// How many tasks it has.
    pub total: usize,
}

/// Which shard is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    shard: Shard,
    /// Whether several shards may read the objects of a chain.
    may_split: bool,
}

impl Share {
    /// A shard of a check. A chain can be split where each object of a backup is read on its own, and once.
    pub fn new(shard: Shard, request: &Request) -> Self {
        Self { shard, may_split: request.level == Level::Deep && request.options.share == chunked::Share::All }
    }
}

impl ScanFile {
    /// Opens a file; `-` is standard input. `share` is for a catalog only.
    pub fn open(path: &Path, selection: &Selection, share: Option<Share>, observer: &dyn Observer) -> Result<Self> {
        let from_input = path == Path::new("-");
        let shown = if from_input { "standard input".to_owned() } else { path.display().to_string() };
        let opened = if from_input { input::copied(io::stdin()) } else { input::open_json(path).and_then(stable) };
        let file = opened.map_err(|error| Error::Unusable(format!("cannot read {shown}: {error}")))?;
        let mut summary = Summary::new(selection, share.is_some_and(|share| share.may_split));
        let (head, findings_at) = read(&file, &mut summary).map_err(|problem| Error::Unusable(format!("{shown} {problem}")))?;
        let lacking = format!("no backup in {shown}");
        // The file may list only what was stuck, so a host that is not in it may still exist.
        let hosts = Hosts { of_backups: &summary.hosts, services: &Services::default(), lacking: &lacking };
        hosts.problems(selection).into_iter().for_each(|problem| observer.event(WorkEvent::Warning(problem)));
        let share = share.filter(|_| summary.has_catalog);
        if share.is_some() && *selection != Selection::default() {
            let hint = "select them when the catalog is made, for example with scan --all --project ID".to_owned();
            return Err(Error::Unfit("a shard of a catalog is checked as a whole, without a selection of backups".to_owned(), hint));
        }
        let chains = share.map(|share| summary.costs.content(share.shard));
        let backups = summary.targets as u64;
        let part = share.map(|share| CatalogPart { catalog: head.sha256.clone(), backups, shard: share.shard });
        let of_chain = |place: usize| summary.counts.get(place).map_or(0, |count| usize::try_from(*count).unwrap_or(usize::MAX));
        let targets = chains.as_ref().map(|content| content.chains.iter().map(|(place, _)| of_chain(*place)).sum());
        let total = targets.unwrap_or(summary.targets).min(selection.limit.unwrap_or(usize::MAX));
        let (columns, has_catalog) = (head.columns.or(summary.columns).unwrap_or(ColumnSet::Mitaka), summary.has_catalog);
        let (sha256, database, taken_at, selection) = (head.sha256, head.database, head.taken_at, selection.clone());
        Ok(Self { shown, file, findings_at, sha256, database, taken_at, columns, has_catalog, selection, chains, part, total })
    }

    /// Its records, from the beginning. The file is read once at a time.
    pub fn records(&self) -> Result<Records> {
        let cannot = |error: io::Error| Error::Unusable(format!("cannot read {}: {error}", self.shown));
        let file = self.file.try_clone().map_err(cannot)?;
        let source = Records::begin(file, self.findings_at).map_err(|problem| Error::Unusable(format!("{} {problem}", self.shown)))?;
        Ok(Records { shown: self.shown.clone(), source })
    }

    /// The selected backups, some at a time; those of a chain together, unless it is too long.
    pub fn tasks(self) -> Result<FileTasks> {
        let (records, left) = (self.records()?, self.total);
        Ok(FileTasks {
            records,
            next: None,
            path: lineage::Path::default(),
            is_first: false,
            chains: Chains::default(),
            left,
            place: 0,
            file: self,
        })
    }
}

/// A file that is the same when it is read again: of a document a copy. That a stream has changed is noticed.
fn stable(mut file: File) -> io::Result<File> {
    let is_stream = is_stream(&file)?.0;
    file.rewind()?;
    if is_stream { Ok(file) } else { input::copied(file) }
}

/// What is known of a file before its targets are made.
struct Summary<'s> {
    selection: &'s Selection,
    may_split: bool,
    costs: ChainCosts,
    /// The targets of each chain.
    counts: Vec<u32>,
    hosts: HashSet<String>,
    /// The columns of the first row.
    columns: Option<ColumnSet>,
    has_catalog: bool,
    /// The targets of the catalog, or of the findings if there is no catalog.
    targets: usize,
}

impl<'s> Summary<'s> {
    fn new(selection: &'s Selection, may_split: bool) -> Self {
        let (costs, counts, hosts) = (ChainCosts::default(), Vec::new(), HashSet::new());
        Self { selection, may_split, costs, counts, hosts, columns: None, has_catalog: false, targets: 0 }
    }

    fn note(&mut self, record: &ScanRecord) {
        match record {
            ScanRecord::Finding(finding) => {
                self.columns = self.columns.or_else(|| finding.rows.first().map(columns_of));
                self.note_backup(finding.host.as_ref().filter(|_| finding.kind == FindingKind::Backup));
                let target = target_of_finding(finding, ColumnSet::Mitaka);
                self.targets += usize::from(!self.has_catalog && target.is_some_and(|target| takes(self.selection, &target.backup)));
            }
            ScanRecord::Chain(chain) => {
                if !self.has_catalog {
                    (self.has_catalog, self.targets) = (true, 0);
                }
                self.costs.add(chain.backups as u64, chain.bytes, self.may_split && is_divisible(&chain.drivers));
                self.counts.push(0);
            }
            ScanRecord::Backup(backup) => {
                let row = backup.backup();
                self.note_backup(row.host.as_ref());
                if backup.wanted && takes(self.selection, &row) {
                    self.targets += 1;
                    self.counts.last_mut().into_iter().for_each(|count| *count += 1);
                }
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
    /// The digest of a stream.
    sha256: String,
}

/// Whether all backups of a chain are kept as numbered objects.
fn is_divisible(drivers: &BTreeSet<String>) -> bool {
    let parse = |name: &str| Driver::deserialize(StrDeserializer::<ValueError>::new(name)).ok();
    let is_chunked = |name: &String| parse(name).is_some_and(|driver| driver != Driver::Ceph);
    !drivers.is_empty() && drivers.iter().all(is_chunked)
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
        return Ok((Head { database, taken_at, columns: None, sha256: String::new() }, Some(place)));
    }
    let begun = StreamReader::<ScanRecords, _>::begin(BufReader::new(file));
    let (ScanHead { database, taken_at, columns, .. }, mut records) = begun.map_err(|error| error.to_string())?;
    while let Some(record) = records.next_record().map_err(|error| error.to_string())? {
        summary.note(&record);
    }
    let sha256 = records.sha256().to_owned();
    Ok((Head { database, taken_at, columns: Some(columns), sha256 }, None))
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

impl Records {
    /// Reads the rest of a stream, and makes sure that it still has this digest.
    fn require(&mut self, sha256: &str) -> Result<()> {
        self.find_map(Result::err).map_or(Ok(()), Err)?;
        match &self.source {
            Source::Stream(records) if records.sha256() != sha256 => {
                Err(Error::Unusable(format!("{} was replaced while it was read; check again", self.shown)))
            }
            _ => Ok(()),
        }
    }
}

impl Iterator for Records {
    type Item = Result<ScanRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map_err(|error| Error::Unusable(format!("{} {error}", self.shown))).transpose()
    }
}

/// The chains of a catalog that are checked, as they pass.
#[derive(Default)]
struct Chains {
    /// The place of the next chain in the catalog.
    place: usize,
    /// The place of the next chain of the shard in its list.
    next: usize,
    /// Whether the present chain is checked, and which of its objects.
    is_checked: bool,
    part: Option<ObjectPart>,
}

impl Chains {
    fn advance(&mut self, wanted: Option<&ShardContent>) {
        let own = wanted.map(|content| content.chains.get(self.next).filter(|(place, _)| *place == self.place));
        self.is_checked = own.is_none_or(|own| own.is_some());
        self.part = own.flatten().and_then(|(_, part)| *part);
        self.next += usize::from(self.is_checked);
        self.place += 1;
    }
}

/// The tasks of a file.
pub struct FileTasks {
    records: Records,
    /// The record after the last portion.
    next: Option<ScanRecord>,
    path: lineage::Path,
    /// The next backup is the first of its chain.
    is_first: bool,
    chains: Chains,
    /// How many tasks are still to come.
    left: usize,
    place: usize,
    pub file: ScanFile,
}

impl FileTasks {
    fn portion(&mut self) -> Result<Vec<Task>> {
        let mut tasks = Vec::new();
        while self.left > 0 && tasks.len() < LONGEST_PORTION {
            let Some(record) = self.next.take().map(Ok).or_else(|| self.records.next()).transpose()? else { break };
            let target = match record {
                ScanRecord::Chain(_) if tasks.len() >= PORTION => {
                    self.next = Some(record);
                    break;
                }
                ScanRecord::Chain(_) => {
                    self.is_first = true;
                    self.chains.advance(self.file.chains.as_ref());
                    continue;
                }
                ScanRecord::Backup(backup) => self.target(&backup)?.filter(|_| self.chains.is_checked),
                ScanRecord::Finding(finding) if !self.file.has_catalog => target_of_finding(&finding, self.file.columns),
                ScanRecord::Finding(_) | ScanRecord::Notice(_) => continue,
            };
            let Some(target) = target.filter(|target| takes(&self.file.selection, &target.backup)) else { continue };
            self.place += 1;
            self.left -= 1;
            tasks.push(Task { part: self.chains.part, place: self.place, ..Task::from(target) });
            if !self.file.has_catalog && tasks.len() >= PORTION {
                break;
            }
        }
        if tasks.is_empty() {
            self.records.require(&self.file.sha256)?;
        }
        Ok(tasks)
    }

    fn target(&mut self, record: &CatalogBackup) -> Result<Option<Target>> {
        let backup = Arc::new(record.backup());
        let ancestors = self.path.ancestors(&backup);
        if ancestors.is_empty() && !std::mem::take(&mut self.is_first) {
            let problem = format!("{} is not a catalog: backup {} does not follow its parent", self.records.shown, backup.id);
            return Err(Error::Unusable(problem));
        }
        self.is_first = false;
        Ok(record.wanted.then(|| Target { backup: Backup::clone(&backup), ancestors, columns: self.file.columns }))
    }
}

impl Iterator for FileTasks {
    type Item = Result<Vec<Task>>;

    fn next(&mut self) -> Option<Self::Item> {
        let portion = self.portion();
        if portion.is_err() {
            self.left = 0;
        }
        Some(portion).filter(|portion| portion.as_ref().map_or(true, |tasks| !tasks.is_empty()))
    }
}

/// The backup that a finding is about, if a check of its storage matters and the finding has its rows.
pub fn target_of_finding(finding: &Finding, columns: ColumnSet) -> Option<Target> {
    if !matches!(finding.kind, FindingKind::Backup | FindingKind::Host) || finding.verdict == Verdict::Recent {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::record_stream::StreamWriter;
    use crate::workflow::Stop;

    struct Nobody;

    impl Observer for Nobody {
        fn event(&self, _: WorkEvent<'_>) {}

        fn stop(&self) -> Option<Stop> {
            None
        }
    }

    fn database() -> Value {
        json!({ "engine": "sqlite", "version": "3", "release": "r", "identity": "i" })
    }

    fn stream(taken_at: &str) -> Vec<u8> {
        let thresholds = json!({ "older_than_seconds": 3_600, "service_down_time_seconds": 60 });
        let head = json!({ "program": "p", "database": database(), "taken_at": taken_at, "thresholds": thresholds, "columns": "mitaka" });
        let end = json!({ "summary": { "stuck": 0, "uncertain": 0, "busy": 0, "recent": 0, "inconsistent": 0 }, "left_out": 0 });
        let mut text = Vec::new();
        let stream = StreamWriter::<ScanRecords, _>::begin(&mut text, &serde_json::from_value(head).unwrap(), None).unwrap();
        stream.end(&serde_json::from_value(end).unwrap()).unwrap();
        text
    }

    fn document(id: &str) -> Vec<u8> {
        let finding = json!({
            "kind": "backup", "id": id, "name": null, "status": "creating", "host": null, "service": null, "project_id": null,
            "volume_id": null, "since": null, "age_seconds": null, "verdict": "stuck", "evidence": [], "proposal": null,
            "refusal": null, "follow_up": [],
        });
        let taken_at = "2026-11-29T10:00:00Z";
        json!({ "findings": [finding], "schema": "cinder-backup-repair/scan", "schema_version": 1, "taken_at": taken_at, "database": database() })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_file_that_is_replaced_between_its_two_readings_is_refused_or_was_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scan");
        let opened = |first: Vec<u8>, then: Vec<u8>| {
            fs::write(&path, first).unwrap();
            let file = ScanFile::open(&path, &Selection::default(), None, &Nobody).unwrap();
            fs::write(&path, then).unwrap();
            file
        };
        let replaced = opened(stream("2026-11-29T10:00:00Z"), stream("2026-11-29T11:00:00Z"));
        let error = replaced.tasks().unwrap().next().unwrap().unwrap_err().to_string();
        assert!(error.ends_with("was replaced while it was read; check again"), "{error}");
        assert!(opened(stream("2026-11-29T10:00:00Z"), stream("2026-11-29T10:00:00Z")).tasks().unwrap().next().is_none());
        let copied = opened(document("old"), document("new")).records().unwrap().next().unwrap().unwrap();
        assert!(matches!(copied, ScanRecord::Finding(finding) if finding.id == "old"));
    }
}
