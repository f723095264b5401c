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

/// How often a request to stop is looked for.
const POLL: Duration = Duration::from_millis(100);
/// How many groups of objects are compared with the database at a time.
const PORTION: usize = 5 * ID_BATCH;
/// After how many objects with unknown names a position is noted, too.
const UNKNOWN_PORTION: u64 = 100_000;

/// What is walked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    driver: Driver,
    /// None for drivers that keep containers as directories: all of them are walked.
    container: Option<String>,
    /// In Swift, each project may have containers of its own.
    project: Option<String>,
}

impl Place {
    fn of(row: &StorageRow) -> Option<Self> {
        let driver = driver_of(row)?;
        let container = row.container.clone().filter(|container| !container.is_empty())?;
        let project = row.project_id.clone().filter(|_| driver == Driver::Swift);
        Some(Self { driver, container: Some(container).filter(|_| !driver.is_directory()), project })
    }
}

fn driver_of(row: &StorageRow) -> Option<Driver> {
    Driver::of_service(row.service.as_deref()?)
}

/// The live backups whose objects must be somewhere: 17 bytes for each.
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
    /// Whether nobody reads the stream any more. Unless commands are written, the walk then ends.
    pub is_unread: &'a dyn Fn() -> bool,
    /// Whether orphans are kept for a document.
    pub keeps: bool,
    /// Where the commands are written that would remove orphans.
    pub commands: Option<&'a mut dyn Write>,
}

pub struct OrphanReport {
    pub head: OrphanHead,
    pub orphans: Spool<Orphan>,
    pub end: OrphanEnd,
}

impl OrphanCheck<'_> {
    /// Walks all storages that the rows name.
    pub fn run(self, database: &mut Database, observer: &dyn Observer) -> Result<OrphanReport> {
        let (clock, began) = (database.read(|reader| reader.clock())?, Timestamp::now());
        let settle = SignedDuration::try_from(self.settle).unwrap_or(SignedDuration::MAX);
        let program = format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let (taken_at, settle_seconds) = (rfc3339(clock), self.settle.as_secs());
        let head = OrphanHead { program, database: database.info(), taken_at, settle_seconds, shard: self.shard };
        let (mut places, expected) = reading(observer, || database.read(places))?;
        // If no row names it, all its rows may be lost or purged.
        places.extend(configured(&self.storage.options));
        let writer = self.stream.map(|out| StreamWriter::begin(out, &head, None)).transpose().map_err(unwritable)?;
        let output =
            Output { writer, orphans: (self.keeps || self.commands.is_some()).then(Spool::default), summary: OrphanSummary::default() };
        let cancelled = Arc::<AtomicBool>::default();
        let stores = Arc::new(Stores::new(self.storage, RetryPolicy::default(), Arc::clone(&cancelled)));
        let quiet = QuietSince::new(began, clock, settle);
        let (shard, deadline) = (self.shard, self.deadline);
        let (familiar, unread, interrupted) = (BTreeSet::new(), Vec::new(), None);
        let is_unread = Some(self.is_unread).filter(|_| self.commands.is_none());
        let mut walk = Walk {
            database,
            observer,
            stores,
            cancelled,
            quiet,
            shard,
            deadline,
            is_unread,
            expected,
            output,
            familiar,
            unread,
            interrupted,
        };
        let walked = self.resume.as_deref().map_or_else(|| Ok(BTreeMap::new()), |path| walk.resume(path, &head))?;
        if places.is_empty() {
            walk.unread.push("nothing was walked: no row names a storage, and cinder.conf names no backup_driver".to_owned());
        }
        walk.all(places, &walked)?;
        if let Some(out) = self.commands
            && let Some(orphans) = walk.output.orphans.take()
        {
            walk.write_commands(out, &orphans, &head)?;
            walk.output.orphans = Some(orphans);
        }
        walk.stores.warnings().into_iter().for_each(|warning| observer.event(WorkEvent::Warning(warning)));
        let Walk { output: Output { writer, orphans, summary }, unread, interrupted, .. } = walk;
        let end = OrphanEnd { interrupted: interrupted.map(str::to_owned), unread, summary: summary.counts() };
        writer.map_or(Ok(()), |writer| writer.end(&end).map(drop)).map_err(unwritable)?;
        Ok(OrphanReport { head, orphans: orphans.unwrap_or_default(), end })
    }
}

fn unwritable(error: io::Error) -> Error {
    Error::Write("the result to standard output".to_owned(), error)
}

/// The places that rows name, of deleted backups, too, and the backups that must be somewhere there. One pass over `backups`.
fn places(reader: &mut Reader<'_>) -> std::result::Result<(BTreeSet<Place>, Expected), DbError> {
    let (mut places, mut expected) = (BTreeSet::new(), Expected::default());
    reader.stored_backups(&mut |row| {
        let Some(place) = Place::of(&row) else { return };
        if !row.deleted && must_be_stored(&row) {
            expected.numbers.push((expected.ids.add(&row.id), false));
        }
        places.insert(place);
    })?;
    expected.numbers.sort_unstable();
    Ok((places, expected))
}

/// The place of new backups, if cinder.conf says which driver makes them, and if it is the same for all projects.
fn configured(options: &StorageOptions) -> Option<Place> {
    let text = |name: &str| options.text(name).ok().flatten();
    let driver = Driver::of_service(&text("backup_driver").filter(|setting| setting.origin != Origin::Default)?.value)?;
    let container = match driver {
        Driver::Posix | Driver::Nfs | Driver::GlusterFs => return Some(Place { driver, container: None, project: None }),
        Driver::Swift if text("backup_swift_auth").is_none_or(|mode| mode.value != "single_user") => return None,
        Driver::Swift => "backup_swift_container",
        Driver::S3 => "backup_s3_store_bucket",
        Driver::Gcs => "backup_gcs_bucket",
        Driver::Ceph => "backup_ceph_pool",
    };
    Some(Place { driver, container: Some(text(container)?.value), project: None })
}

/// Whether something of a live backup must be on the storage. A failed backup without a prefix failed before its first object.
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

/// A part of a listing, with the name up to which all objects were passed on, if that is known.
type Part = (Listed, Option<String>);

/// Lists a store on its own thread, which is abandoned if the storage does not answer. The channel is closed at the end.
fn list(
    store: Arc<dyn ObjectStore>,
    range: NameRange,
    is_directory: bool,
) -> io::Result<Receiver<std::result::Result<Part, StorageError>>> {
    let (sender, parts) = mpsc::sync_channel(PORTION);
    std::thread::Builder::new().spawn(move || {
        let (mut grouper, mut after) = (Grouper::new(is_directory), range.after);
        loop {
            let page = match store.list_page(&after) {
                Ok(Some(page)) => page,
                Ok(None) => return drop(sender.send(Err(StorageError::protocol("the storage gives no listing in the order of names")))),
                Err(error) => return drop(sender.send(Err(error))),
            };
            if page.objects.is_empty() && !page.is_last {
                return drop(sender.send(Err(StorageError::protocol("a page of the listing is empty, but not the last one"))));
            }
            for object in page.objects {
                if range.before.as_ref().is_some_and(|before| object.name >= *before) {
                    grouper.end().into_iter().for_each(|part| drop(sender.send(Ok((part, None)))));
                    return;
                }
                let name = object.name.clone();
                if let Some(part) = grouper.add(object) {
                    let up_to = if matches!(part, Listed::Group(_)) { Some(after) } else { grouper.is_empty().then(|| name.clone()) };
                    if sender.send(Ok((part, up_to))).is_err() {
                        return;
                    }
                }
                after = name;
            }
            if page.is_last {
                grouper.end().into_iter().for_each(|part| drop(sender.send(Ok((part, None)))));
                return;
            }
        }
    })?;
    Ok(parts)
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
    /// The locations where objects of live backups were seen.
    familiar: BTreeSet<(Driver, String)>,
    unread: Vec<String>,
    interrupted: Option<&'static str>,
}

/// What was listed since the last position.
#[derive(Default)]
struct Portion {
    groups: Vec<ObjectGroup>,
    /// Of objects with unknown names, and one of the names.
    unknown: ObjectTotals,
    example: Option<String>,
}

impl Walk<'_, '_> {
    fn all(&mut self, places: BTreeSet<Place>, walked: &BTreeMap<(Driver, String), Option<String>>) -> Result<()> {
        let mut locations = BTreeSet::new();
        for place in places {
            let error = if place.driver == Driver::Ceph {
                self.pool(&place, false)?
            } else {
                match self.stores.whole(place.driver, place.container.as_deref(), place.project.as_deref()) {
                    // Several projects may have their containers in one account.
                    Ok(store) if !locations.insert((place.driver, store.location().to_owned())) => None,
                    Ok(store) => self.rest(&place, store, walked)?,
                    Err(error) => Some(error),
                }
            };
            self.note_error(&place, error);
            if self.interrupted.is_some() {
                return Ok(());
            }
        }
        if let Some(pool) = self.stores.source_pool().map(str::to_owned) {
            let place = Place { driver: Driver::Ceph, container: Some(pool), project: None };
            let error = self.pool(&place, true)?;
            self.note_error(&place, error);
        }
        self.nothing_stored()
    }

    /// Walks what an earlier walk left of a store. Returns why it was not read to its end.
    fn rest(
        &mut self,
        place: &Place,
        store: Arc<dyn ObjectStore>,
        walked: &BTreeMap<(Driver, String), Option<String>>,
    ) -> Result<Option<StorageError>> {
        let mut range = NameRange::of(self.shard, place.driver);
        match walked.get(&(place.driver, store.location().to_owned())) {
            Some(None) => return Ok(None),
            Some(Some(after)) => range.after.clone_from(after),
            None => {}
        }
        self.one(place, store, range)
    }

    /// Notes why a place was not read to its end. In a container that does not exist there is nothing.
    fn note_error(&mut self, place: &Place, error: Option<StorageError>) {
        let Some(error) = error.filter(|error| error.kind != StorageErrorKind::NoContainer) else { return };
        let container = place.container.as_ref().map_or_else(String::new, |container| format!(" {container:?}"));
        self.unread.push(format!("{}{container} was not read to its end: {}", place.driver, error.text));
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

    /// Walks one store. Returns why it was not read to its end.
    fn one(&mut self, place: &Place, store: Arc<dyn ObjectStore>, range: NameRange) -> Result<Option<StorageError>> {
        let location = store.location().to_owned();
        let parts = list(store, range, place.driver.is_directory()).map_err(Error::Start)?;
        let mut portion = Portion::default();
        loop {
            if self.is_stopped() {
                return Ok(None);
            }
            let (part, after) = match parts.recv_timeout(POLL) {
                Ok(Ok(part)) => part,
                // What was listed before counts.
                Ok(Err(error)) => return self.compare(place, &location, portion).map(|_| Some(error)),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
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
                let seen = self.compare(place, &location, std::mem::take(&mut portion))?;
                self.note(place, &location, after, seen)?;
            }
        }
        let seen = self.compare(place, &location, portion)?;
        self.note(place, &location, None, seen)?;
        Ok(None)
    }

    fn note(&mut self, place: &Place, location: &str, after: Option<String>, seen: Vec<String>) -> Result<()> {
        if let Some(after) = &after {
            self.observer.event(WorkEvent::Detail(format!("{location} was walked up to {after}")));
        }
        let position = Position { driver: place.driver, location: location.to_owned(), after, seen };
        self.output.write(&OrphanRecord::Position(position))
    }

    /// Compares what was listed with the rows, which are read now: after the objects were listed. So a row that was added before its objects
    /// were listed is seen. A row that is added later has younger objects. Returns the live backups.
    fn compare(&mut self, place: &Place, location: &str, portion: Portion) -> Result<Vec<String>> {
        let Portion { groups, unknown, example } = portion;
        let ids: BTreeSet<String> = groups.iter().map(|group| group.backup_id.clone()).collect();
        let rows = self.rows(&ids.into_iter().collect::<Vec<_>>())?;
        let own_project = self.own_project(place, location);
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
                kind: kind.into(),
                driver: place.driver,
                location: location.to_owned(),
                container: folder.or_else(|| place.container.clone()),
                name: Some(prefix),
                backup_id: Some(backup_id),
                volume_id: Some(volume_id),
                project_id: row.and_then(|row| row.project_id.clone()).or_else(|| own_project.clone()),
                status: row.and_then(|row| row.status.clone()),
                totals,
            })?;
        }
        if !seen.is_empty() {
            self.familiar.insert((place.driver, location.to_owned()));
        }
        if unknown.objects > 0 {
            let (kind, container) = (OrphanKind::UnknownName.into(), place.container.clone());
            let (driver, location) = (place.driver, location.to_owned());
            let ([backup_id, volume_id, status], project_id) = ([const { None }; 3], own_project);
            let totals = unknown;
            self.output.add(Orphan {
                kind,
                driver,
                location,
                container,
                name: example,
                backup_id,
                volume_id,
                project_id,
                status,
                totals,
            })?;
        }
        Ok(seen.into_iter().collect())
    }

    /// The project of a place, if containers of other projects are in other accounts.
    fn own_project(&self, place: &Place, location: &str) -> Option<String> {
        let of_all = self.stores.whole(place.driver, place.container.as_deref(), None);
        place.project.clone().filter(|_| !of_all.is_ok_and(|store| store.location() == location))
    }

    /// Reads all rows once more, on a new connection: the walk may have taken hours.
    fn each_row(&mut self, each: &mut dyn FnMut(StorageRow)) -> Result<()> {
        self.database.reconnect()?;
        Ok(self.database.read(|reader| reader.stored_backups(each))?)
    }

    /// Rows by their ids, also deleted ones.
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

    /// Looks for the backups of which nothing was seen, each by itself: the walk may have missed it, or not been where its row says.
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
                    Ok((false, location)) => self.output.add(Orphan {
                        kind: OrphanKind::NothingStored.into(),
                        driver,
                        location,
                        container: row.container.clone(),
                        name,
                        backup_id: Some(row.id.clone()),
                        volume_id: row.volume_id.clone(),
                        project_id: row.project_id.clone(),
                        status: row.status.clone(),
                        totals: ObjectTotals::default(),
                    })?,
                    Err(error) => {
                        left += 1;
                        first.get_or_insert(error.text);
                    }
                }
            }
        }
        if let Some(first) = first {
            self.unread.push(format!("{} without an object so far could not be looked for: {first}", count(left, "live backup")));
        }
        Ok(())
    }

    /// Whether any object of a backup is where its row says, and the location of the back end.
    fn is_stored(&self, driver: Driver, row: &StorageRow, prefix: Option<&str>) -> std::result::Result<(bool, String), StorageError> {
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

    /// Copies what an earlier walk found up to its last position. Returns how far it walked each location; `None` is to the end.
    fn resume(&mut self, path: &Path, head: &OrphanHead) -> Result<BTreeMap<(Driver, String), Option<String>>> {
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
        let (mut walked, mut last) = (BTreeMap::new(), 0);
        loop {
            match stream.next_record() {
                Ok(Some(OrphanRecord::Position(Position { driver, location, after, seen }))) => {
                    last = stream.records();
                    seen.iter().for_each(|id| self.expected.mark(id));
                    if !seen.is_empty() {
                        self.familiar.insert((driver, location.clone()));
                    }
                    walked.insert((driver, location), after);
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
        Ok(walked)
    }
}
