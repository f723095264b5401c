//! Checks many backups: each once, and what several of them rest on once, too.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::capacity::Admission;
use super::chunked::{self, Inspection, LARGE, LISTED_OBJECT, ReadContext, ReadOptions, Share, StoredBackup};
use super::precheck::{PrecheckRound, is_same_place, precheck};
use super::{Assessment, Capacity, Faults, Severity, Subject, Watch};
use crate::domain::time::stamp;
use crate::domain::{
    Backup, CheckResult, CheckVerdict, Checks, ColumnSet, Driver, Glance, Image, Level, Listing, Look, Problem, ProblemCode,
};
use crate::storage::gcs::SEEN_BY_CINDER;
use crate::storage::{ObjectStore, StorageError};

/// How many backups are checked at once, at most: what is not data of each is a handful of round trips.
const AT_ONCE: usize = 8;
/// Bytes that the lists of one chain may take without taking turns.
const LARGE_LISTS: u64 = LARGE as u64 * LISTED_OBJECT;

/// Where backups are.
pub trait StorageAccess: Sync {
    /// The store that holds a backup of one of the chunked drivers.
    ///
    /// # Errors
    /// Whatever is missing in the configuration, or refused by the storage.
    fn store(&self, driver: Driver, backup: &Backup) -> Result<Arc<dyn ObjectStore>, StorageError>;

    /// Where a backup is looked for, as a result's `location` has it.
    ///
    /// # Errors
    /// As for [`StorageAccess::store`].
    fn location(&self, driver: Driver, backup: &Backup) -> Result<String, StorageError>;

    /// A look at a backup in Ceph; `watch` is told of the bytes that are read.
    ///
    /// # Errors
    /// Whatever is missing in the configuration.
    fn ceph(&self, subject: &Subject<'_>, watch: &Watch) -> Result<(Assessment, String), StorageError>;

    /// What there is of a backup in Ceph, and the signs of work on it; `then` is what a check saw.
    ///
    /// # Errors
    /// Whatever is missing in the configuration, or refused by the cluster.
    fn precheck_ceph(&self, backup: &Backup, ancestors: &[Arc<Backup>], then: Option<Listing>) -> Result<Glance, StorageError>;
}

/// A backup to be checked, with those that it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The backup.
    pub backup: Backup,
    /// Its ancestors, the nearest first, as far as they exist.
    pub ancestors: Vec<Arc<Backup>>,
    /// The columns that its row has.
    pub columns: ColumnSet,
}

impl Target {
    /// The rows that it rests on.
    pub fn rows_above(&self) -> impl Iterator<Item = Image> {
        self.ancestors.iter().map(|backup| backup.image(self.columns))
    }
}

/// What is asked of every backup.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// How deeply.
    pub level: Level,
    /// How the data is read.
    pub options: ReadOptions,
    /// An object younger than this is a sign of work.
    pub settle: Duration,
}

/// What is known of backups, each looked up once.
type Known = HashMap<(String, Driver, Level), Arc<OnceLock<Inspection>>>;

/// Checks backups.
pub struct Checker<'a> {
    access: &'a dyn StorageAccess,
    request: &'a Request,
    watch: &'a Watch,
    /// Backups that others rest on: what is known of them is kept.
    shared: HashSet<String>,
    known: Mutex<Known>,
    /// Results of an earlier check, and the host that this one runs on.
    earlier: (Checks, String),
    /// Held by the one check that may keep a long list of objects. Its holder waits only for readers and memory, never for another
    /// check.
    large: Mutex<()>,
    capacity: Capacity,
}

impl<'a> Checker<'a> {
    /// A checker for these targets.
    pub fn new(access: &'a dyn StorageAccess, request: &'a Request, watch: &'a Watch, targets: &[Target]) -> Self {
        let shared = targets.iter().flat_map(|target| &target.ancestors).map(|backup| backup.id.clone()).collect();
        Self {
            access,
            request,
            watch,
            shared,
            known: Mutex::default(),
            earlier: (Checks::new(), String::new()),
            large: Mutex::default(),
            capacity: Capacity::new(request.options.memory),
        }
    }

    /// With results of an earlier check, which stand where their backups are in the same admission and one listing shows all as it
    /// was; `host` is this host's name.
    #[must_use]
    pub fn with_earlier_results(self, earlier: Checks, host: &str) -> Self {
        Self { earlier: (earlier, host.to_owned()), ..self }
    }

    /// Checks all of them, several at once where each is only a few questions; `each` gets every result as it comes.
    /// What was not begun when the watch stops has no result.
    pub fn run(&self, targets: &[Target], each: &(dyn Fn(CheckResult) + Sync)) {
        // First what is known: to list it takes little, and a second signal then loses none of it.
        let (earlier, host) = &self.earlier;
        let known: Vec<(&Target, &CheckResult)> =
            targets.iter().filter_map(|target| Some((target, earlier.get(&target.backup.id)?))).collect();
        let (round, standing) = (PrecheckRound::default(), Mutex::new(HashSet::new()));
        self.side_by_side(AT_ONCE, &known, &|(target, check)| {
            if still_stands(self.access, target, check, host, &round) {
                self.watch.carry();
                lock(&standing).insert(check.id.as_str());
                // Those of the others are the targets'.
                each(CheckResult { rows: check.rows.iter().take(1).cloned().collect(), ..CheckResult::clone(check) });
            }
        });
        let standing = standing.into_inner().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<&Target> = targets.iter().filter(|target| !standing.contains(target.backup.id.as_str())).collect();
        self.side_by_side(self.at_once(&open), &open, &|target| each(self.check(target)));
    }

    /// How many backups are read at once: no more than readers of the storage that has most, so that none waits for long.
    fn at_once(&self, targets: &[&Target]) -> usize {
        if self.request.level == Level::Quick {
            return AT_ONCE;
        }
        let backups = targets.iter().rev().map(|target| &target.backup);
        let first: HashMap<Driver, &Backup> = backups.filter_map(|backup| Some((driver_of(backup)?, backup))).collect();
        let worth = |(driver, backup)| self.access.store(driver, backup).map_or(1, |store| store.concurrency());
        let worth = first.into_iter().map(worth).max().unwrap_or(1);
        self.request.options.readers(worth).min(AT_ONCE)
    }

    /// Does something with each of a list, several at once, until the watch stops.
    fn side_by_side<T: Sync>(&self, threads: usize, list: &[T], act: &(dyn Fn(&T) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(item) = list.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !self.watch.is_cancelled()) {
                act(item);
            }
        };
        let threads = threads.min(list.len());
        if threads <= 1 {
            return work();
        }
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }

    /// Checks one.
    pub fn check(&self, target: &Target) -> CheckResult {
        let backup = &target.backup;
        let driver = driver_of(backup);
        let watch = self.watch.of_one();
        let subject =
            Subject { backup, ancestors: &target.ancestors, level: self.request.level, settle: self.request.settle, now: Timestamp::now() };
        let (assessment, location) = match driver {
            Some(Driver::Ceph) => {
                let admission = (subject.level > Level::Quick).then(|| self.capacity.admit(Driver::Ceph, self.request.options.jobs, 0));
                let _reader = admission.as_ref().map(Admission::slot);
                // A restore may read the volume's image, too.
                let watch = if subject.level == Level::Deep { &watch.of_last() } else { &watch };
                match self.access.ceph(&subject, watch) {
                    Ok((assessment, location)) => (assessment, Some(location)),
                    Err(error) => (unfinished(self.request.level, &error), None),
                }
            }
            Some(driver) => self.chunked(&subject, driver, &watch),
            None => (unknown(self.request.level, backup), None),
        };
        watch.count();
        result(target, driver, self.request, assessment, location)
    }

    fn chunked(&self, subject: &Subject<'_>, driver: Driver, watch: &Watch) -> (Assessment, Option<String>) {
        let rows = std::iter::once(subject.backup).chain(subject.ancestors.iter().map(AsRef::as_ref));
        let links: Vec<StoredBackup<'_>> = rows
            // Cinder restores a whole chain with the driver of its tip, whatever the rows below say: `ChunkedBackupDriver.restore`.
            .map(|backup| StoredBackup { backup, volume_bytes: backup.volume_bytes(), store: self.access.store(driver, backup) })
            .collect();
        let location = links.first().and_then(|link| link.store.as_ref().ok()).map(|store| store.location().to_owned());
        let lowest = links.last().map(|link| &link.backup.id);
        let last = watch.of_last();
        let reading = ReadContext { options: &self.request.options, watch: &last, capacity: &self.capacity, driver };
        let (mut most, mut lists, mut turn) = (0, 0, None);
        let mut assessment = chunked::check(subject, &links, reading, &mut |link, level| {
            let watch = if lowest == Some(&link.backup.id) { &last } else { watch };
            let own = self.own(link, ReadContext { watch, ..reading }, level, &mut turn);
            most = most.max(own.objects());
            lists += own.list_bytes();
            if lists > LARGE_LISTS {
                turn.get_or_insert_with(|| lock(&self.large));
            }
            own
        });
        drop(turn);
        // Both side files are in its listing, too.
        let listed = most + 2;
        if driver == Driver::Gcs && listed > SEEN_BY_CINDER {
            let text = format!(
                "Cinder's own driver cannot restore it: it, or a backup that it rests on, has {listed} objects, and that driver reads the first {SEEN_BY_CINDER} of a listing only"
            );
            assessment.warnings.push(Problem::general(ProblemCode::CinderCannotRestore, text));
        }
        (assessment, location)
    }

    /// What is known of a backup without its chain. For a backup that others depend on it is looked up once, and other callers wait.
    fn own<'t>(
        &'t self,
        link: &StoredBackup<'_>,
        reading: ReadContext<'_>,
        level: Level,
        turn: &mut Option<MutexGuard<'t, ()>>,
    ) -> Inspection {
        // A restore needs the lists of objects, which are not kept.
        if self.request.level == Level::Restore {
            return self.look(link, level, turn);
        }
        let look = || {
            let mut turn = None;
            let mut own = self.look(link, level, &mut turn);
            if level == Level::Deep {
                chunked::deepen(link, &mut own, reading);
            }
            own.without_list()
        };
        if !self.shared.contains(&link.backup.id) {
            return look();
        }
        let known = Arc::clone(lock(&self.known).entry((link.backup.id.clone(), reading.driver, level)).or_default());
        known.get_or_init(look).clone()
    }

    fn look<'t>(&'t self, link: &StoredBackup<'_>, level: Level, turn: &mut Option<MutexGuard<'t, ()>>) -> Inspection {
        Inspection::quick(link, level == Level::Quick, &mut || {
            turn.get_or_insert_with(|| lock(&self.large));
        })
    }
}

fn driver_of(backup: &Backup) -> Option<Driver> {
    backup.service.as_deref().and_then(Driver::of_service)
}

/// Whether a backup is where an earlier check saw it, and all that a listing shows is as it was.
fn still_stands(access: &dyn StorageAccess, target: &Target, check: &CheckResult, host: &str, round: &PrecheckRound) -> bool {
    let backup = &target.backup;
    let driver = driver_of(backup);
    let known = driver.and_then(|driver| Some((driver, access.location(driver, backup).ok()?))).zip(check.location.as_deref());
    known.is_some_and(|((driver, now), was)| is_same_place(driver, backup, was, &now))
        && precheck(access, target, check, host, round) == Look::Same
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unfinished(level: Level, error: &StorageError) -> Assessment {
    let mut faults = Faults::default();
    faults.add_error(None, error);
    Assessment { problems: faults.into_problems(), ..chunked::empty(level) }
}

fn unknown(level: Level, backup: &Backup) -> Assessment {
    let mut faults = Faults::default();
    // A driver writes its prefix only after its name stands in the row; a container can be asked for by whoever makes the backup.
    let prefix = backup.service_metadata.as_deref().filter(|prefix| !prefix.is_empty());
    let service = backup.service.as_deref().unwrap_or_default();
    let missing = service.is_empty() && prefix.is_none();
    if missing {
        let text = "no driver ever took it up (backups.service is not set), so it has no data";
        faults.add(Severity::Incomplete, Problem::general(ProblemCode::NeverBegun, text));
    } else if service.is_empty() {
        let text = "backups.service is not set, and service_metadata is: some driver wrote it, and nothing tells which, so that it is not \
                    known where its data is";
        faults.add(Severity::Unverifiable, Problem::general(ProblemCode::DriverUnknown, text));
    } else {
        let text = format!("its driver is {service}, whose storage this program does not know");
        faults.add(Severity::Unverifiable, Problem::general(ProblemCode::DriverUnknown, text));
    }
    let verdict = if missing { CheckVerdict::Missing } else { CheckVerdict::Unverifiable };
    Assessment { verdict, problems: faults.into_problems(), ..chunked::empty(level) }
}

fn result(target: &Target, driver: Option<Driver>, request: &Request, found: Assessment, location: Option<String>) -> CheckResult {
    let backup = &target.backup;
    let rows = std::iter::once(backup).chain(target.ancestors.iter().map(AsRef::as_ref));
    let partial = request.level != Level::Quick && request.options.share != Share::All;
    CheckResult {
        id: backup.id.clone(),
        name: backup.display_name.clone(),
        driver,
        service: backup.service.clone(),
        location,
        level: request.level,
        depth: found.depth,
        partial,
        verdict: found.verdict,
        // A sample proves nothing about the rest of the data.
        level_reached: if partial { found.reached.map(|_| Level::Quick) } else { found.reached },
        busy: found.busy,
        begun: found.begun,
        objects: found.objects,
        bytes: found.bytes,
        problems: found.problems,
        warnings: found.warnings,
        chain: rows.map(|backup| backup.id.clone()).collect(),
        object_count: found.object_count,
        service_metadata: found.service_metadata,
        newest_object_at: found.newest_object_at.map(stamp),
        listing: found.listing,
        below: found.below,
        checked_at: stamp(Timestamp::now()),
        // Known to whoever asks; nothing here depends on it.
        host: None,
        // Those that it rests on are the target's: with every member of a chain they would grow with its square.
        rows: vec![backup.image(target.columns)],
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests;
