//! Checks any number of backups in parallel: each once, and an ancestor that several of them share also once.
//!
//! The backups arrive in portions. The inspections of shared ancestors are dropped when the last backup of a portion is done, so the memory
//! does not depend on the number of backups.

use std::collections::{HashMap, HashSet};
use std::iter::once;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use jiff::Timestamp;

use super::capacity::Admission;
use super::chunked::{self, Inspection, LARGE, LISTED_OBJECT, ReadContext, ReadOptions, Share, StoredBackup};
use super::listings::Listings;
use super::precheck::{PrecheckRound, precheck};
use super::target::{StorageAccess, Subject, Target, driver_of, is_same_location};
use super::{Capacity, Watch};
use crate::domain::shards::ObjectPart;
use crate::domain::time::stamp;
use crate::domain::{Backup, CheckResult, CheckVerdict, Comparison, Driver, Level, Problem, ProblemCode};
use crate::parallel::{self, Gate, Permit, lock};
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

/// A backup to be checked, and what an earlier check found of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub target: Target,
    /// The result of an earlier check of the same rows.
    pub earlier: Option<CheckResult>,
    /// Whether this result is carried over if the backup is in the same location and one listing shows it unchanged.
    pub may_stand: bool,
    /// Its place in a document; tasks with the same place are in the order of their ids.
    pub place: usize,
    /// The objects to read, if other hosts read the others. It is the same for all backups of a chain.
    pub part: Option<ObjectPart>,
}

impl From<Target> for Task {
    fn from(target: Target) -> Self {
        Self { target, earlier: None, may_stand: false, place: 0, part: None }
    }
}

/// The result of a task.
#[derive(Debug)]
pub struct Answer {
    pub task: Arc<Task>,
    pub result: CheckResult,
    /// Whether it is the result of the earlier check.
    pub carried: bool,
}

/// Inspections of backups, each made once.
type Inspections = HashMap<(String, Driver, Level), Arc<OnceLock<Inspection>>>;

/// What tasks that arrived together share.
struct Portion<'a> {
    /// Backups that others are based on. Their inspections are kept.
    shared: HashSet<String>,
    inspections: Mutex<Inspections>,
    listings: Listings<'a>,
}

impl<'a> Portion<'a> {
    fn new(tasks: &[Arc<Task>], listings: Listings<'a>) -> Self {
        let shared = tasks.iter().flat_map(|task| &task.target.ancestors).map(|backup| backup.id.clone()).collect();
        Self { shared, inspections: Mutex::default(), listings }
    }
}

/// Puts tasks into the order of a container's listing, in which the members of a chain follow each other.
fn sort_by_names(tasks: &mut [Arc<Task>]) {
    let name = |backup: &Backup| (backup.container.clone(), backup.service_metadata.clone());
    tasks.sort_by_cached_key(|task| name(&task.target.backup));
}

/// One task of a portion that has to be checked.
struct Open<'a, 'g> {
    portion: Arc<Portion<'a>>,
    task: Arc<Task>,
    /// Held until the task is done.
    _permit: Permit<'g>,
}

pub struct Checker<'a> {
    access: &'a dyn StorageAccess,
    request: &'a Request,
    watch: &'a Watch,
    /// The name of this host.
    host: &'a str,
    /// Held by the one check that may keep a long list of objects. Its holder waits only for read slots and memory, never for another
    /// check.
    large_list: Mutex<()>,
    capacity: Capacity,
}

impl<'a> Checker<'a> {
    pub fn new(access: &'a dyn StorageAccess, request: &'a Request, watch: &'a Watch, host: &'a str) -> Self {
        Self { access, request, watch, host, large_list: Mutex::default(), capacity: Capacity::new(request.options.memory) }
    }

    /// Checks all tasks, several at once. Backups that share an ancestor must be in one portion, or the ancestor is inspected more than
    /// once. `each` gets every result as soon as it is known, on several threads. A task that was not begun when the watch stops has no
    /// result.
    pub fn run(&self, portions: impl Iterator<Item = Vec<Task>> + Send, each: &(dyn Fn(Answer) + Sync)) {
        let gate = Gate::new(if self.request.level == Level::Quick { AT_ONCE } else { 1 });
        let open = portions.take_while(|_| !self.watch.is_cancelled()).flat_map(|tasks| {
            // Earlier results first: a listing takes little time, and a second signal then loses few of them.
            let mut open = self.carry_over(tasks.into_iter().map(Arc::new).collect(), each);
            gate.widen(self.at_once(open.iter().map(|task| &task.target.backup)));
            let portion = Arc::new(self.portion(&mut open));
            open.into_iter().map(move |task| (Arc::clone(&portion), task))
        });
        let open = open.map(|(portion, task)| Open { portion, task, _permit: gate.enter() });
        let open = open.take_while(|_| !self.watch.is_cancelled());
        let check = |Open { portion, task, _permit }: Open<'_, '_>, _: &mut dyn FnMut(())| {
            let result = self.check(&task, &portion);
            each(Answer { task, result, carried: false });
        };
        parallel::for_each(AT_ONCE, open, check, |()| ());
    }

    /// Reports the earlier results that the storage confirms. Returns the tasks that are left.
    fn carry_over(&self, tasks: Vec<Arc<Task>>, each: &(dyn Fn(Answer) + Sync)) -> Vec<Arc<Task>> {
        let may_stand = |task: &&Arc<Task>| task.may_stand && task.earlier.is_some();
        let mut known: Vec<Arc<Task>> = tasks.iter().filter(may_stand).cloned().collect();
        sort_by_names(&mut known);
        let listings = Listings::of(self.access, known.iter().map(|task| &task.target));
        let (round, mut carried) = (PrecheckRound::default(), HashSet::new());
        let precheck = |task: &Arc<Task>, send: &mut dyn FnMut(String)| {
            let Some(check) = task.earlier.as_ref().filter(|check| is_unchanged(&listings, &task.target, check, self.host, &round)) else {
                return;
            };
            self.watch.carry();
            // The rows of its ancestors are those of the target.
            let result = CheckResult { rows: check.rows.iter().take(1).cloned().collect(), ..CheckResult::clone(check) };
            each(Answer { task: Arc::clone(task), result, carried: true });
            send(task.target.backup.id.clone());
        };
        let items = known.iter().take_while(|_| !self.watch.is_cancelled());
        parallel::for_each(AT_ONCE.min(known.len()), items, precheck, |id| {
            carried.insert(id);
        });
        tasks.into_iter().filter(|task| !carried.contains(&task.target.backup.id)).collect()
    }

    /// What the tasks of a portion share. A quick check takes them in the order of their names; reading data takes so long that each
    /// backup has a listing of its own.
    fn portion(&self, tasks: &mut [Arc<Task>]) -> Portion<'a> {
        if self.request.level > Level::Quick {
            return Portion::new(tasks, Listings::alone(self.access));
        }
        sort_by_names(tasks);
        Portion::new(tasks, Listings::of(self.access, tasks.iter().map(|task| &task.target)))
    }

    /// How many backups are read at once: as many as the storage with the most read slots has, so that none waits for long.
    fn at_once<'b>(&self, backups: impl DoubleEndedIterator<Item = &'b Backup>) -> usize {
        if self.request.level == Level::Quick {
            return AT_ONCE;
        }
        let first: HashMap<Driver, &Backup> = backups.rev().filter_map(|backup| Some((driver_of(backup)?, backup))).collect();
        let worth = |(driver, backup)| self.access.store(driver, backup).map_or(1, |store| store.concurrency());
        let worth = first.into_iter().map(worth).max().unwrap_or(1);
        self.request.options.readers(worth).min(AT_ONCE)
    }

    fn check(&self, task: &Task, portion: &Portion<'_>) -> CheckResult {
        let (target, mut options) = (&task.target, self.request.options.clone());
        options.share = task.part.map_or(options.share, Share::Objects);
        let watch = self.watch.of_one();
        let Request { level, settle, .. } = *self.request;
        // The listing does not show an object that is written after it.
        let now = portion.listings.listed_at(&target.backup).unwrap_or_else(Timestamp::now);
        let subject = Subject { backup: &target.backup, ancestors: &target.ancestors, level, settle, now };
        let result = match driver_of(subject.backup) {
            Some(Driver::Ceph) => {
                let admission = (level > Level::Quick).then(|| self.capacity.admit(Driver::Ceph, self.request.options.jobs, 0));
                let _slot = admission.as_ref().map(Admission::slot);
                // A restore may also read the image of the volume.
                let watch = if level == Level::Deep { &watch.of_last() } else { &watch };
                self.access.ceph(&subject, watch).unwrap_or_else(|error| subject.unreachable(&error))
            }
            Some(driver) => {
                let context = ReadContext { options: &options, watch: &watch, capacity: &self.capacity, driver };
                self.chunked(&subject, context, portion)
            }
            None => without_driver(&subject),
        };
        watch.count();
        let partial = level != Level::Quick && options.share != Share::All;
        CheckResult {
            partial,
            part: task.part.filter(|_| partial),
            // A sample proves nothing about the rest of the data.
            level_reached: if partial { result.level_reached.map(|_| Level::Quick) } else { result.level_reached },
            checked_at: stamp(Timestamp::now()),
            // The target has the rows of its ancestors. If each member of a chain repeated them, they would grow with the square of its
            // length.
            rows: vec![target.backup.image(target.columns)],
            ..result
        }
    }

    fn chunked(&self, subject: &Subject<'_>, context: ReadContext<'_>, portion: &Portion<'_>) -> CheckResult {
        let ReadContext { watch, driver, .. } = context;
        let rows = once(subject.backup).chain(subject.ancestors.iter().map(AsRef::as_ref));
        let chain: Vec<StoredBackup<'_>> = rows
            // Cinder restores a whole chain with the driver of its tip, whatever the other rows say: `ChunkedBackupDriver.restore`.
            .map(|backup| StoredBackup { backup, volume_bytes: backup.volume_bytes(), store: portion.listings.store(driver, backup) })
            .collect();
        let location = chain.first().and_then(|stored| stored.store.as_ref().ok()).map(|store| store.location().to_owned());
        let full = chain.last().map(|stored| &stored.backup.id);
        let last = watch.of_last();
        let context = ReadContext { watch: &last, ..context };
        let shares = |id: &String| portion.shared.contains(id).then_some(&portion.inspections);
        let (mut most, mut list_bytes, mut large_list) = (0, 0, None);
        let mut result = chunked::check(subject, &chain, context, &mut |stored, level| {
            let watch = if full == Some(&stored.backup.id) { &last } else { watch };
            let shared = shares(&stored.backup.id);
            let inspection = self.inspect(stored, ReadContext { watch, ..context }, level, (shared, &mut large_list));
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
        (shared, large_list): (Option<&Mutex<Inspections>>, &mut Option<MutexGuard<'t, ()>>),
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
        let Some(inspections) = shared else { return inspect() };
        let slot = Arc::clone(lock(inspections).entry((stored.backup.id.clone(), context.driver, level)).or_default());
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
    subject.unread(verdict, &subject.level.to_string(), vec![Problem::general(code, text)])
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests;
