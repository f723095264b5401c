//! `check --orphans`: walks each storage once and compares it with the database, in both directions.

mod ceph;
mod commands;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::check::STOPPED_BY_ERROR;
use super::scan_stream::unwritable;
use super::script::Script;
use super::{Database, Error, MAX_RUNTIME, Observer, Result, StorageSettings, Stores, WorkEvent, reading};
use crate::config::{Origin, StorageOptions};
use crate::db::{DbError, ID_BATCH};
use crate::domain::record_stream::{StreamError, StreamReader, StreamWriter};
use crate::domain::shards::Shard;
use crate::domain::status::{ERROR, is_active};
use crate::domain::text::count;
use crate::domain::time::rfc3339;
use crate::domain::{Backup, Driver, StorageRow, id};
use crate::scan::{CompactIds, Reader};
use crate::spool::Spool;
use crate::storage::{ObjectStore, RetryPolicy, StorageError, StorageErrorKind};
use crate::verify::StorageAccess;
use crate::verify::orphans::{
    Grouper, Listed, NameRange, ObjectGroup, ObjectTotals, Orphan, OrphanEnd, OrphanHead, OrphanKind, OrphanRecord, OrphanRecords,
    OrphanSummary, Position, QuietSince, judge,
};

/// How often a walk checks whether it has to end.
pub(super) const POLL: Duration = Duration::from_millis(100);
/// How many backups are compared with the database at a time.
const PORTION: usize = 5 * ID_BATCH;
/// After how many objects with unknown names a position is written, too.
const UNKNOWN_PORTION: u64 = 100_000;

pub(super) type StorageResult<T> = std::result::Result<T, StorageError>;

/// Why a back end was not walked to its end.
enum WalkError {
    /// The whole walk cannot go on.
    Work(Error),
    /// Only this back end cannot be read.
    Storage(StorageError),
}

impl From<Error> for WalkError {
    fn from(error: Error) -> Self {
        Self::Work(error)
    }
}

impl From<StorageError> for WalkError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A storage that is walked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BackEnd {
    pub(super) driver: Driver,
    /// `None` for drivers that keep containers as directories: all of them are walked.
    pub(super) container: Option<String>,
    /// In Swift, each project may have containers of its own.
    pub(super) project: Option<String>,
}

impl BackEnd {
    pub(super) fn of(row: &StorageRow) -> Option<Self> {
        let driver = driver_of(row)?;
        let container = row.container.clone().filter(|container| !container.is_empty())?;
        let project = row.project_id.clone().filter(|_| driver == Driver::Swift);
        Some(Self { driver, container: Some(container).filter(|_| !driver.is_directory()), project })
    }

    /// The back end of new backups, if cinder.conf sets the driver, and if it is the same for all projects.
    pub(super) fn configured(options: &StorageOptions) -> Option<BackEnd> {
        let text = |name: &str| options.text(name).ok().flatten();
        let driver = Driver::of_service(&text("backup_driver").filter(|setting| setting.origin != Origin::Default)?.value)?;
        let container = match driver {
            Driver::Posix | Driver::Nfs | Driver::GlusterFs => return Some(BackEnd { driver, container: None, project: None }),
            Driver::Swift if text("backup_swift_auth").is_none_or(|mode| mode.value != "single_user") => return None,
            Driver::Swift => "backup_swift_container",
            Driver::S3 => "backup_s3_store_bucket",
            Driver::Gcs => "backup_gcs_bucket",
            Driver::Ceph => "backup_ceph_pool",
        };
        Some(BackEnd { driver, container: Some(text(container)?.value), project: None })
    }
}

fn driver_of(row: &StorageRow) -> Option<Driver> {
    Driver::of_service(row.service.as_deref()?)
}

/// The live backups that must have objects: 32 bytes for each.
#[derive(Default)]
struct Expected {
    ids: CompactIds,
    /// Ascending, each with whether objects of it were seen.
    numbers: Vec<(u128, bool)>,
}

impl Expected {
    fn mark(&mut self, id: &str) {
        let place = self.numbers.binary_search_by_key(&CompactIds::number(id), |(number, _)| *number);
        if let Some((_, seen)) = place.ok().and_then(|place| self.numbers.get_mut(place)) {
            *seen = true;
        }
    }
}

pub struct OrphanCheck<'a> {
    pub storage: StorageSettings,
    /// Younger objects do not count.
    pub settle: Duration,
    pub shard: Option<Shard>,
    /// The stream of an earlier walk to continue.
    pub resume: Option<PathBuf>,
    /// After this time nothing more is read.
    pub deadline: Option<Instant>,
    /// Where records are written as they are found.
    pub stream: Option<Box<dyn Write + 'a>>,
    /// Whether nobody reads the stream any more. The walk then ends, unless commands are written.
    pub is_unread: &'a dyn Fn() -> bool,
    /// Whether orphans are kept for a document.
    pub keeps: bool,
    /// Where the commands that remove the orphans are written.
    pub commands: Option<&'a mut dyn Write>,
}

pub struct OrphanReport {
    pub head: OrphanHead,
    pub orphans: Spool<Orphan>,
    pub end: OrphanEnd,
}

impl OrphanCheck<'_> {
    /// Walks all back ends that the rows name.
    pub fn run(self, database: &mut Database, observer: &dyn Observer) -> Result<OrphanReport> {
        let (clock, began) = (database.read(|reader| reader.clock())?, Timestamp::now());
        let settle = SignedDuration::try_from(self.settle).unwrap_or(SignedDuration::MAX);
        let program = format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let (taken_at, settle_seconds) = (rfc3339(clock), self.settle.as_secs());
        let head = OrphanHead { program, database: database.info(), taken_at, settle_seconds, shard: self.shard };
        let (mut back_ends, expected) = reading(observer, || database.read(back_ends))?;
        // If no row names it, all its rows may be lost or purged.
        back_ends.extend(BackEnd::configured(&self.storage.options));
        let writer = self.stream.map(|out| StreamWriter::begin(out, &head, None)).transpose().map_err(unwritable)?;
        let output =
            Output { writer, orphans: (self.keeps || self.commands.is_some()).then(Spool::default), summary: OrphanSummary::default() };
        let cancelled = Arc::<AtomicBool>::default();
        let stores = Arc::new(Stores::new(self.storage, RetryPolicy::default(), Arc::clone(&cancelled)));
        let quiet = QuietSince::new(began, clock, settle);
        let mut walk = Walk {
            database,
            observer,
            stores,
            cancelled,
            quiet,
            shard: self.shard,
            deadline: self.deadline,
            is_unread: Some(self.is_unread).filter(|_| self.commands.is_none()),
            expected,
            output,
            walked: BTreeMap::new(),
            familiar: BTreeSet::new(),
            unread: Vec::new(),
            interrupted: None,
        };
        if let Some(path) = &self.resume {
            walk.resume(path, &head)?;
        }
        if back_ends.is_empty() {
            walk.unread.push("nothing was walked: no row names a storage, and cinder.conf names no backup_driver".to_owned());
        }
        walk.all(back_ends)?;
        if let Some(out) = self.commands
            && let Some(orphans) = walk.output.orphans.take()
        {
            walk.write_commands(Script(out), &orphans, &head)?;
            walk.output.orphans = Some(orphans);
        }
        walk.stores.warnings().into_iter().for_each(|warning| observer.event(WorkEvent::Warning(warning)));
        let Walk { output: Output { writer, orphans, summary }, unread, interrupted, .. } = walk;
        let end = OrphanEnd { interrupted: interrupted.map(str::to_owned), unread, summary: summary.counts() };
        writer.map_or(Ok(()), |writer| writer.end(&end).map(drop)).map_err(unwritable)?;
        Ok(OrphanReport { head, orphans: orphans.unwrap_or_default(), end })
    }
}

/// The back ends that rows name, including deleted rows, and the backups that must have objects there. One pass over `backups`.
fn back_ends(reader: &mut Reader<'_>) -> std::result::Result<(BTreeSet<BackEnd>, Expected), DbError> {
    let (mut back_ends, mut expected) = (BTreeSet::new(), Expected::default());
    reader.stored_backups(&mut |row| {
        let Some(back_end) = BackEnd::of(&row) else { return };
        if !row.deleted && must_be_stored(&row) {
            expected.numbers.push((expected.ids.add(&row.id), false));
        }
        back_ends.insert(back_end);
    })?;
    expected.numbers.sort_unstable();
    Ok((back_ends, expected))
}

/// Whether a live backup must have objects. A failed backup without a prefix failed before its first object.
fn must_be_stored(row: &StorageRow) -> bool {
    let status = row.status.as_deref();
    !is_active(status) && (status != Some(ERROR) || row.service_metadata.is_some())
}

/// Where records go.
struct Output<'a> {
    writer: Option<StreamWriter<'static, OrphanRecords, Box<dyn Write + 'a>>>,
    orphans: Option<Spool<Orphan>>,
    summary: OrphanSummary,
}

impl Output<'_> {
    fn add(&mut self, orphan: Orphan) -> Result<()> {
        self.summary.add(&orphan);
        if let Some(orphans) = &mut self.orphans {
            orphans.push(&orphan)?;
        }
        self.write(&OrphanRecord::Orphan(Box::new(orphan)))
    }

    fn write(&mut self, record: &OrphanRecord) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.add(record).and_then(|()| writer.out().flush()).map_err(unwritable)
    }
}

/// The parts of a listing that runs on its own thread. The channel is closed at the end of the listing.
pub(super) type Parts<T> = Receiver<StorageResult<T>>;

/// Starts a listing on its own thread, which is abandoned if the storage does not answer.
pub(super) fn start<T: Send + 'static>(
    list: impl FnOnce(&mut dyn FnMut(T) -> StorageResult<()>) -> StorageResult<()> + Send + 'static,
) -> Result<Parts<T>> {
    let (sender, parts) = mpsc::sync_channel(PORTION);
    let work = move || {
        let mut send = |part| sender.send(Ok(part)).map_err(|_| StorageError::protocol("the walk has ended"));
        if let Err(error) = list(&mut send) {
            drop(sender.send(Err(error)));
        }
    };
    std::thread::Builder::new().spawn(work).map_err(Error::Start)?;
    Ok(parts)
}

/// A group or an unknown object, with the last name of the listing that is in the parts so far, if there is one.
type StorePart = (Listed, Option<String>);

/// Lists a range of a store.
fn list(
    store: &dyn ObjectStore,
    range: NameRange,
    is_directory: bool,
    send: &mut dyn FnMut(StorePart) -> StorageResult<()>,
) -> StorageResult<()> {
    let NameRange { mut after, before } = range;
    let is_in_range = |name: &str| before.as_deref().is_none_or(|before| name < before);
    let mut grouper = Grouper::new(is_directory);
    loop {
        let Some(page) = store.list_page(&after)? else {
            return Err(StorageError::protocol("the storage gives no listing in the order of names"));
        };
        if page.objects.is_empty() && !page.is_last {
            return Err(StorageError::protocol("a page of the listing is empty, but not the last one"));
        }
        let is_last = page.is_last || page.objects.last().is_some_and(|last| !is_in_range(&last.name));
        for object in page.objects.into_iter().take_while(|object| is_in_range(&object.name)) {
            let name = object.name.clone();
            if let Some(part) = grouper.add(object) {
                let up_to = if matches!(part, Listed::Group(_)) { Some(after) } else { grouper.is_empty().then(|| name.clone()) };
                send((part, up_to))?;
            }
            after = name;
        }
        if is_last {
            return grouper.end().map_or(Ok(()), |part| send((part, None)));
        }
    }
}

struct Walk<'a, 'o> {
    database: &'a mut Database,
    observer: &'a dyn Observer,
    stores: Arc<Stores>,
    cancelled: Arc<AtomicBool>,
    quiet: QuietSince,
    shard: Option<Shard>,
    deadline: Option<Instant>,
    is_unread: Option<&'o dyn Fn() -> bool>,
    expected: Expected,
    output: Output<'o>,
    /// The last name that was walked in each location; `None` for a location that need not be walked again.
    walked: BTreeMap<(Driver, String), Option<String>>,
    /// The locations where objects of live backups were seen.
    familiar: BTreeSet<(Driver, String)>,
    unread: Vec<String>,
    interrupted: Option<&'static str>,
}

/// What was listed since the last position.
#[derive(Default)]
struct Portion {
    groups: Vec<ObjectGroup>,
    /// Objects with unknown names.
    unknown: ObjectTotals,
    /// One of the unknown names.
    example: Option<String>,
}

impl Walk<'_, '_> {
    fn all(&mut self, back_ends: BTreeSet<BackEnd>) -> Result<()> {
        for back_end in back_ends {
            let walked = if back_end.driver == Driver::Ceph { self.pool(&back_end, false) } else { self.store(&back_end) };
            self.note_error(&back_end, walked)?;
            if self.interrupted.is_some() {
                return Ok(());
            }
        }
        if let Some(pool) = self.stores.source_pool().map(str::to_owned) {
            let back_end = BackEnd { driver: Driver::Ceph, container: Some(pool), project: None };
            let walked = self.pool(&back_end, true);
            self.note_error(&back_end, walked)?;
        }
        self.nothing_stored()
    }

    /// Notes why a back end was not walked to its end. A container that does not exist is empty.
    fn note_error(&mut self, back_end: &BackEnd, walked: std::result::Result<(), WalkError>) -> Result<()> {
        match walked {
            Ok(()) => {}
            Err(WalkError::Work(error)) => return Err(error),
            Err(WalkError::Storage(error)) if error.kind == StorageErrorKind::NoContainer => {}
            Err(WalkError::Storage(error)) => {
                let container = back_end.container.as_ref().map_or_else(String::new, |container| format!(" {container:?}"));
                self.unread.push(format!("{}{container} was not read to its end: {}", back_end.driver, error.text));
            }
        }
        Ok(())
    }

    /// Returns the next part of a listing; `None` at its end, or if the walk has to end.
    fn next_part<T>(&mut self, parts: &Parts<T>) -> Option<StorageResult<T>> {
        while !self.is_stopped() {
            match parts.recv_timeout(POLL) {
                Err(RecvTimeoutError::Timeout) => {}
                part => return part.ok(),
            }
        }
        None
    }

    /// Whether the walk has to end.
    fn is_stopped(&mut self) -> bool {
        if self.interrupted.is_none() {
            self.interrupted = self.observer.stop().map(|stop| stop.signal);
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.interrupted = self.interrupted.or(Some(MAX_RUNTIME));
            }
            if self.is_unread.is_some_and(|is_unread| is_unread()) {
                self.interrupted = self.interrupted.or(Some(STOPPED_BY_ERROR));
            }
            self.cancelled.store(self.interrupted.is_some(), Ordering::Relaxed);
        }
        self.interrupted.is_some()
    }

    /// Walks one store, or what an earlier walk left of it.
    fn store(&mut self, back_end: &BackEnd) -> std::result::Result<(), WalkError> {
        let BackEnd { driver, container, project } = back_end;
        let store = self.stores.whole(*driver, container.as_deref(), project.as_deref())?;
        let (location, mut range) = (store.location().to_owned(), NameRange::of(self.shard, *driver));
        // Several projects may have their containers in one account.
        match self.walked.insert((*driver, location.clone()), None) {
            Some(None) => return Ok(()),
            Some(Some(after)) => range.after = after,
            None => {}
        }
        let is_directory = driver.is_directory();
        let parts = start(move |send| list(store.as_ref(), range, is_directory, send))?;
        let mut portion = Portion::default();
        while let Some(part) = self.next_part(&parts) {
            let (part, after) = match part {
                Ok(part) => part,
                Err(error) => {
                    // What was listed before counts.
                    self.compare(back_end, &location, portion)?;
                    return Err(error.into());
                }
            };
            match part {
                Listed::Group(group) => portion.groups.push(group),
                Listed::Unknown(object) if ObjectTotals::of(&object).are_before(self.quiet.storage) => {
                    portion.unknown.add(&ObjectTotals::of(&object));
                    portion.example.get_or_insert(object.name);
                }
                Listed::Unknown(_) => {}
            }
            if (portion.groups.len() >= PORTION || portion.unknown.objects >= UNKNOWN_PORTION) && after.is_some() {
                self.finish(back_end, &location, std::mem::take(&mut portion), after)?;
            }
        }
        if self.interrupted.is_none() {
            self.finish(back_end, &location, portion, None)?;
        }
        Ok(())
    }

    /// Compares a portion, and writes how far the store was walked.
    fn finish(&mut self, back_end: &BackEnd, location: &str, portion: Portion, after: Option<String>) -> Result<()> {
        let seen = self.compare(back_end, location, portion)?;
        if let Some(after) = &after {
            self.observer.event(WorkEvent::Detail(format!("{location} was walked up to {after}")));
        }
        let position = Position { driver: back_end.driver, location: location.to_owned(), after, seen };
        self.output.write(&OrphanRecord::Position(position))
    }

    /// Compares what was listed with the rows, and returns the live backups. The rows are read after the objects were listed, so the row of
    /// each listed object is seen, unless it was added later. Then the object is younger than the settle time.
    fn compare(&mut self, back_end: &BackEnd, location: &str, portion: Portion) -> Result<Vec<String>> {
        let Portion { groups, unknown, example } = portion;
        let ids: BTreeSet<String> = groups.iter().map(|group| group.backup_id.clone()).collect();
        let rows = self.rows(&ids.into_iter().collect::<Vec<_>>())?;
        let (at, own_project) = ((back_end.driver, location), self.own_project(back_end, location));
        let mut seen = BTreeSet::new();
        for group in groups {
            let row = rows.get(&group.backup_id);
            if row.is_some_and(|row| !row.deleted) {
                self.expected.mark(&group.backup_id);
                seen.insert(group.backup_id);
                continue;
            }
            let Some(kind) = judge(&group.totals, group.is_finished, row, self.quiet) else { continue };
            let ObjectGroup { folder, prefix, backup_id, volume_id, totals, .. } = group;
            self.output.add(Orphan {
                container: folder.or_else(|| back_end.container.clone()),
                name: Some(prefix),
                backup_id: Some(backup_id),
                volume_id: Some(volume_id),
                project_id: row.and_then(|row| row.project_id.clone()).or_else(|| own_project.clone()),
                ..Orphan::new(kind, at, row, totals)
            })?;
        }
        if !seen.is_empty() {
            self.familiar.insert((back_end.driver, location.to_owned()));
        }
        if unknown.objects > 0 {
            let orphan = Orphan::new(OrphanKind::UnknownName, at, None, unknown);
            self.output.add(Orphan { container: back_end.container.clone(), name: example, project_id: own_project, ..orphan })?;
        }
        Ok(seen.into_iter().collect())
    }

    /// The project of a back end, if containers of other projects are in other accounts.
    fn own_project(&self, back_end: &BackEnd, location: &str) -> Option<String> {
        let of_all = self.stores.whole(back_end.driver, back_end.container.as_deref(), None);
        back_end.project.clone().filter(|_| !of_all.is_ok_and(|store| store.location() == location))
    }

    /// Reads all rows once more, on a new connection: the walk may have taken hours.
    fn each_row(&mut self, each: &mut dyn FnMut(StorageRow)) -> Result<()> {
        self.database.reconnect()?;
        Ok(self.database.read(|reader| reader.stored_backups(each))?)
    }

    /// Rows by their ids, including deleted ones.
    fn rows(&mut self, ids: &[String]) -> Result<HashMap<String, StorageRow>> {
        let read = |database: &mut Database| database.read(|reader| reader.stored_backups_by_id(ids));
        // A server may have closed the session while the storage was listed.
        let rows = match read(self.database) {
            Err(error) if error.is_fatal() => {
                self.database.reconnect()?;
                read(self.database)
            }
            rows => rows,
        };
        // MySQL and MariaDB find an id in another spelling, too.
        Ok(rows?.into_iter().map(|row| (id::key(&row.id).into_owned(), row)).collect())
    }

    /// Looks once more for each backup that was not seen: the walk may have missed it, or not covered the place that its row names.
    fn nothing_stored(&mut self) -> Result<()> {
        let mut unseen = std::mem::take(&mut self.expected);
        unseen.numbers.retain(|(_, seen)| !seen);
        let (mut left, mut first) = (0, None);
        for portion in unseen.numbers.chunks(PORTION) {
            let ids: Vec<String> = portion.iter().map(|(number, _)| unseen.ids.id(*number)).collect();
            let rows = self.rows(&ids)?;
            for row in ids.iter().filter_map(|id| rows.get(id::key(id).as_ref())) {
                if self.is_stopped() {
                    return Ok(());
                }
                let Some(driver) = driver_of(row).filter(|_| !row.deleted && must_be_stored(row)) else { continue };
                let name = row.service_metadata.clone().filter(|name| !name.is_empty());
                let container = row.container.clone().unwrap_or_default();
                let path = match driver {
                    Driver::Ceph => format!("volume-{}.", row.volume_id.as_deref().unwrap_or_default()),
                    _ if driver.is_directory() => format!("{container}/"),
                    _ => name.clone().unwrap_or_default(),
                };
                if !NameRange::of(self.shard, driver).has(&path) {
                    continue;
                }
                match self.is_stored(driver, row, name.as_deref()) {
                    Ok((true, _)) => {}
                    Ok((false, location)) => {
                        let orphan = Orphan::new(OrphanKind::NothingStored, (driver, &location), Some(row), ObjectTotals::default());
                        let (container, backup_id) = (row.container.clone(), Some(row.id.clone()));
                        self.output.add(Orphan { container, name, backup_id, ..orphan })?;
                    }
                    Err(error) => {
                        left += 1;
                        first.get_or_insert(error.text);
                    }
                }
            }
        }
        if let Some(first) = first {
            self.unread.push(format!("cannot look for the objects of {}: {first}", count(left, "live backup")));
        }
        Ok(())
    }

    /// Whether any object of a backup is where its row says, and the location of the back end.
    fn is_stored(&self, driver: Driver, row: &StorageRow, prefix: Option<&str>) -> StorageResult<(bool, String)> {
        let StorageRow { container, project_id, .. } = row.clone();
        if driver == Driver::Ceph {
            return self.is_in_pool(row);
        }
        let whole = self.stores.whole(driver, container.as_deref(), project_id.as_deref())?.location().to_owned();
        let Some(prefix) = prefix else { return Ok((false, whole)) };
        let mut is_found = false;
        let listed = self.stores.store(driver, &Backup { container, project_id, ..Backup::default() })?.list(prefix, &mut |_| {
            is_found = true;
            ControlFlow::Break(())
        });
        match listed {
            Err(error) if error.kind != StorageErrorKind::NoContainer => Err(error),
            _ => Ok((is_found, whole)),
        }
    }

    /// Copies what an earlier walk found up to its last position, and notes how far it walked each location.
    fn resume(&mut self, path: &Path, head: &OrphanHead) -> Result<()> {
        let shown = path.display();
        let open = || {
            let file = crate::input::open_json(path).map_err(|error| Error::Unusable(format!("cannot read {shown}: {error}")))?;
            StreamReader::<OrphanRecords, _>::begin(io::BufReader::new(file)).map_err(|error| Error::of_stream(&shown.to_string(), error))
        };
        let (earlier, mut stream) = open()?;
        if (&earlier.database.identity, earlier.settle_seconds, earlier.shard) != (&head.database.identity, head.settle_seconds, head.shard)
        {
            return Err(Error::Unusable(format!("{shown} is about another database, --settle or --shard: use the same to continue it")));
        }
        let mut last = 0;
        loop {
            match stream.next_record() {
                Ok(Some(OrphanRecord::Position(Position { driver, location, after, seen }))) => {
                    last = stream.records();
                    seen.iter().for_each(|id| self.expected.mark(id));
                    if !seen.is_empty() {
                        self.familiar.insert((driver, location.clone()));
                    }
                    self.walked.insert((driver, location), after);
                }
                Ok(Some(OrphanRecord::Orphan(_))) => {}
                Ok(None) | Err(StreamError::CutOff(_)) => break,
                Err(error) => return Err(Error::of_stream(&shown.to_string(), error)),
            }
        }
        let (_, mut stream) = open()?;
        while stream.records() < last
            && let Some(record) = stream.next_record().map_err(|error| Error::of_stream(&shown.to_string(), error))?
        {
            match record {
                // Pools are walked again.
                OrphanRecord::Orphan(orphan) if orphan.driver == Driver::Ceph => {}
                OrphanRecord::Orphan(orphan) => self.output.add(*orphan)?,
                position @ OrphanRecord::Position(_) => self.output.write(&position)?,
            }
        }
        Ok(())
    }
}
