//! Checks many backups in parallel: each once, and an ancestor that several of them share also once.

use std::collections::{HashMap, HashSet};
use std::iter::once;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::capacity::Admission;
use super::chunked::{self, Inspection, LARGE, LISTED_OBJECT, ReadContext, ReadOptions, Share, StoredBackup};
use super::precheck::{PrecheckRound, precheck};
use super::target::{StorageAccess, Subject, Target, driver_of, is_same_location};
use super::{Capacity, Watch};
use crate::domain::time::stamp;
use crate::domain::{Backup, CheckResult, CheckVerdict, Checks, Comparison, Driver, Level, Problem, ProblemCode};
use crate::parallel;
use crate::storage::gcs::SEEN_BY_CINDER;

/// The most backups that are checked at once. Apart from its data, each takes a handful of round trips.
const AT_ONCE: usize = 8;
/// Bytes that the lists of one chain may take in each of the checks that run in parallel. Checks with more take turns.
const LARGE_LISTS: u64 = LARGE as u64 * LISTED_OBJECT;

/// What is requested for every backup.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub level: Level,
    pub options: ReadOptions,
    /// An object younger than this is a sign that the backup is being written.
    pub settle: Duration,
}

/// Inspections of backups, each made once.
type Inspections = HashMap<(String, Driver, Level), Arc<OnceLock<Inspection>>>;

pub struct Checker<'a> {
    access: &'a dyn StorageAccess,
    request: &'a Request,
    watch: &'a Watch,
    /// Backups that others are based on. Their inspections are kept.
    shared: HashSet<String>,
    inspections: Mutex<Inspections>,
    /// Results of an earlier check, and the host that this one runs on.
    earlier: (Checks, String),
    /// Held by the one check that may keep a long list of objects. Its holder waits only for read slots and memory, never for another
    /// check.
    large_list: Mutex<()>,
    capacity: Capacity,
}

impl<'a> Checker<'a> {
    pub fn new(access: &'a dyn StorageAccess, request: &'a Request, watch: &'a Watch, targets: &[Target]) -> Self {
        let shared = targets.iter().flat_map(|target| &target.ancestors).map(|backup| backup.id.clone()).collect();
        Self {
            access,
            request,
            watch,
            shared,
            inspections: Mutex::default(),
            earlier: (Checks::new(), String::new()),
            large_list: Mutex::default(),
            capacity: Capacity::new(request.options.memory),
        }
    }

    /// Carries over results of an earlier check if their backups are in the same location and one listing shows them unchanged. `host`
    /// is the name of this host.
    #[must_use]
    pub fn with_earlier_results(self, earlier: Checks, host: &str) -> Self {
        Self { earlier: (earlier, host.to_owned()), ..self }
    }

    /// Checks all targets, several at once; `each` gets every result at once. A target that was not begun when the watch stops has no
    /// result.
    pub fn run(&self, targets: &[Target], each: &dyn Fn(CheckResult)) {
        // Earlier results first: a listing takes little time, and a second signal then loses none of them.
        let (earlier, host) = &self.earlier;
        let known: Vec<(&Target, &CheckResult)> =
            targets.iter().filter_map(|target| Some((target, earlier.get(&target.backup.id)?))).collect();
        let round = PrecheckRound::default();
        let mut carried = HashSet::new();
        let precheck = |(target, check): &(&Target, &CheckResult)| {
            is_unchanged(self.access, target, check, host, &round).then(|| {
                self.watch.carry();
                // The rows of its ancestors are those of the targets.
                CheckResult { rows: check.rows.iter().take(1).cloned().collect(), ..CheckResult::clone(check) }
            })
        };
        self.for_each(AT_ONCE, &known, precheck, &mut |check| {
            carried.insert(check.id.clone());
            each(check);
        });
        let open: Vec<&Target> = targets.iter().filter(|target| !carried.contains(&target.backup.id)).collect();
        self.for_each(self.at_once(&open), &open, |target| Some(self.check(target)), &mut |check| each(check));
    }

    /// Works through a list on several threads until the watch stops.
    fn for_each<T: Sync>(
        &self,
        threads: usize,
        list: &[T],
        work: impl Fn(&T) -> Option<CheckResult> + Sync,
        take: &mut dyn FnMut(CheckResult),
    ) {
        let items = list.iter().take_while(|_| !self.watch.is_cancelled());
        parallel::for_each(threads.min(list.len()), items, |item, send| work(item).into_iter().for_each(send), take);
    }

    /// How many backups are read at once: as many as the storage with the most read slots has, so that none waits for long.
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

    pub fn check(&self, target: &Target) -> CheckResult {
        let watch = self.watch.of_one();
        let Request { level, settle, .. } = *self.request;
        let subject = Subject { backup: &target.backup, ancestors: &target.ancestors, level, settle, now: Timestamp::now() };
        let result = match driver_of(subject.backup) {
            Some(Driver::Ceph) => {
                let admission = (level > Level::Quick).then(|| self.capacity.admit(Driver::Ceph, self.request.options.jobs, 0));
                let _slot = admission.as_ref().map(Admission::slot);
                // A restore may also read the image of the volume.
                let watch = if level == Level::Deep { &watch.of_last() } else { &watch };
                self.access.ceph(&subject, watch).unwrap_or_else(|error| subject.unreachable(&error))
            }
            Some(driver) => self.chunked(&subject, driver, &watch),
            None => without_driver(&subject),
        };
        watch.count();
        let partial = level != Level::Quick && self.request.options.share != Share::All;
        CheckResult {
            partial,
            // A sample proves nothing about the rest of the data.
            level_reached: if partial { result.level_reached.map(|_| Level::Quick) } else { result.level_reached },
            checked_at: stamp(Timestamp::now()),
            // The target has the rows of its ancestors. If each member of a chain repeated them, they would grow with the square of its length.
            rows: vec![target.backup.image(target.columns)],
            ..result
        }
    }

    fn chunked(&self, subject: &Subject<'_>, driver: Driver, watch: &Watch) -> CheckResult {
        let rows = once(subject.backup).chain(subject.ancestors.iter().map(AsRef::as_ref));
        let chain: Vec<StoredBackup<'_>> = rows
            // Cinder restores a whole chain with the driver of its tip, whatever the other rows say: `ChunkedBackupDriver.restore`.
            .map(|backup| StoredBackup { backup, volume_bytes: backup.volume_bytes(), store: self.access.store(driver, backup) })
            .collect();
        let location = chain.first().and_then(|stored| stored.store.as_ref().ok()).map(|store| store.location().to_owned());
        let full = chain.last().map(|stored| &stored.backup.id);
        let last = watch.of_last();
        let context = ReadContext { options: &self.request.options, watch: &last, capacity: &self.capacity, driver };
        let (mut most, mut list_bytes, mut large_list) = (0, 0, None);
        let mut result = chunked::check(subject, &chain, context, &mut |stored, level| {
            let watch = if full == Some(&stored.backup.id) { &last } else { watch };
            let inspection = self.inspect(stored, ReadContext { watch, ..context }, level, &mut large_list);
            most = most.max(inspection.objects());
            list_bytes += inspection.list_bytes();
            if list_bytes > LARGE_LISTS {
                large_list.get_or_insert_with(|| lock(&self.large_list));
            }
            inspection
        });
        drop(large_list);
        // The listing has both side files, too.
        let listed = most + 2;
        if driver == Driver::Gcs && listed > SEEN_BY_CINDER {
            let text = format!(
                "Cinder's own driver cannot restore it: it, or a backup that it is based on, has {listed} objects, but that driver reads only \
                 the first {SEEN_BY_CINDER} of a listing"
            );
            result.warnings.push(Problem::general(ProblemCode::CinderCannotRestore, text));
        }
        CheckResult { location, ..result }
    }

    /// Inspects a backup without its chain. A backup that others are based on is inspected once, and other callers wait.
    fn inspect<'t>(
        &'t self,
        stored: &StoredBackup<'_>,
        context: ReadContext<'_>,
        level: Level,
        large_list: &mut Option<MutexGuard<'t, ()>>,
    ) -> Inspection {
        // A restore needs the lists of objects, which are not kept.
        if self.request.level == Level::Restore {
            return self.quick(stored, level, large_list);
        }
        let inspect = || {
            let mut large_list = None;
            let mut inspection = self.quick(stored, level, &mut large_list);
            if level == Level::Deep {
                inspection.read_data(stored, context);
            }
            inspection.without_list()
        };
        if !self.shared.contains(&stored.backup.id) {
            return inspect();
        }
        let slot = Arc::clone(lock(&self.inspections).entry((stored.backup.id.clone(), context.driver, level)).or_default());
        slot.get_or_init(inspect).clone()
    }

    fn quick<'t>(&'t self, stored: &StoredBackup<'_>, level: Level, large_list: &mut Option<MutexGuard<'t, ()>>) -> Inspection {
        Inspection::quick(stored, level == Level::Quick, &mut || {
            large_list.get_or_insert_with(|| lock(&self.large_list));
        })
    }
}

/// Whether a backup is where an earlier check saw it, and its listing shows the same.
fn is_unchanged(access: &dyn StorageAccess, target: &Target, check: &CheckResult, host: &str, round: &PrecheckRound) -> bool {
    let backup = &target.backup;
    let driver = driver_of(backup);
    let known = driver.and_then(|driver| Some((driver, access.location(driver, backup).ok()?))).zip(check.location.as_deref());
    known.is_some_and(|((driver, now), was)| is_same_location(driver, backup, was, &now))
        && precheck(access, target, check, host, round) == Comparison::Unchanged
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result for a backup whose row names no driver that this program knows.
fn without_driver(subject: &Subject<'_>) -> CheckResult {
    let backup = subject.backup;
    // A driver writes its prefix only after its name is in the row. The container may be chosen by whoever makes the backup.
    let prefix = backup.service_metadata.as_deref().filter(|prefix| !prefix.is_empty());
    let service = backup.service.as_deref().unwrap_or_default();
    let (verdict, code, text) = if service.is_empty() && prefix.is_none() {
        let text = "no driver ever began it (backups.service is not set), so it has no data".to_owned();
        (CheckVerdict::Missing, ProblemCode::NeverBegun, text)
    } else if service.is_empty() {
        let text =
            "backups.service is not set, but service_metadata is: a driver wrote it, but it is not known which one, nor where its data is";
        (CheckVerdict::Unverifiable, ProblemCode::DriverUnknown, text.to_owned())
    } else {
        let text = format!("its driver is {service}, whose storage this program does not know");
        (CheckVerdict::Unverifiable, ProblemCode::DriverUnknown, text)
    };
    subject.unread(verdict, subject.level.name(), vec![Problem::general(code, text)])
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests;
