//! Listings of many backups in one container, from a few pages of the container's own listing. For quick checks, which read little else.
//!
//! A page that begins with the objects of one backup has those of the backups after it in the order of names, too: the rest of its
//! chain, and then other volumes. The objects of backups that are to be checked are kept until their turn. A backup whose last objects
//! may be on the next page is not taken from a page. After an error, or if a page lists fewer than two backups on average, each backup is
//! listed by itself as if this module did not exist. Only an error of that listing is an error of the backup.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::iter::once;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};

use super::Watch;
use super::chunked::prefix_of;
use super::target::{StorageAccess, Subject, Target, driver_of};
use crate::domain::{Backup, CheckResult, Driver, Listing, PrecheckListing};
use crate::parallel::lock;
use crate::storage::{ListedPage, ObjectInfo, ObjectStore, StorageError};

/// How long a listing is used: an older one would not show objects that were written or removed since.
const MOST_AGE: SignedDuration = SignedDuration::from_secs(60);
/// The most objects that are kept of a container, and the most of one backup that is not listed by itself.
const MOST_HELD: usize = if cfg!(test) { 20 } else { 16_384 };
/// A page may begin at most this many backups before the one that is asked for.
const NEAR: usize = 8;
/// The number of pages after which pages must have listed two backups each on average.
const TRIAL: usize = 8;

/// Whether pages are cheaper than a listing of each backup. They are never more requests, but larger ones.
fn is_worthwhile(pages: usize, backups: usize) -> bool {
    pages < TRIAL || backups >= pages.saturating_mul(2)
}

/// The objects of the first of these prefixes, which ascend and do not begin with each other. A prefix whose objects may continue after
/// the page is left out, and so are those after it.
fn divide<'p>(page: ListedPage, prefixes: impl Iterator<Item = &'p str>) -> Vec<Vec<ObjectInfo>> {
    let mut objects = page.objects.into_iter().peekable();
    let slices = prefixes.map_while(|prefix| {
        while objects.next_if(|object| object.name.as_str() < prefix).is_some() {}
        let slice: Vec<ObjectInfo> = std::iter::from_fn(|| objects.next_if(|object| object.name.starts_with(prefix))).collect();
        (page.is_last || objects.peek().is_some()).then_some(slice)
    });
    slices.collect()
}

/// What is known of the listing of one backup.
enum Slice {
    /// It is not listed yet.
    Wanted,
    /// Its objects, and a time before they were listed.
    Listed(Vec<ObjectInfo>, Timestamp),
    /// It is listed by itself.
    Alone,
}

/// The listings of one container.
struct Container {
    store: Arc<dyn ObjectStore>,
    /// Held while a page is requested.
    page: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By prefix.
    slices: BTreeMap<String, Slice>,
    held: usize,
    pages: usize,
    /// Backups that the pages listed, without those whose listing was dropped.
    listed: usize,
    is_off: bool,
}

impl Container {
    /// A time before a backup was listed, if it is in a page.
    fn listed_at(&self, prefix: &str) -> Option<Timestamp> {
        self.find(prefix);
        match lock(&self.state).slices.get(prefix) {
            Some(Slice::Listed(_, at)) => Some(*at),
            _ => None,
        }
    }

    /// The objects of a backup, once.
    fn take(&self, prefix: &str) -> Option<Vec<ObjectInfo>> {
        self.find(prefix);
        let mut state = lock(&self.state);
        let Slice::Listed(objects, at) = std::mem::replace(state.slices.get_mut(prefix)?, Slice::Alone) else { return None };
        state.held -= objects.len();
        let is_fresh = (SignedDuration::ZERO..MOST_AGE).contains(&Timestamp::now().duration_since(at));
        state.listed -= usize::from(!is_fresh);
        is_fresh.then_some(objects)
    }

    /// Requests pages until a backup that is wanted is listed.
    fn find(&self, prefix: &str) {
        let next = || lock(&self.state).next(prefix);
        while next().is_some() {
            let _page = lock(&self.page);
            // Meanwhile another thread may have listed it.
            if let Some(first) = next() {
                let (at, pages) = (Timestamp::now(), self.read(&first));
                lock(&self.state).keep(&first, at, pages);
            }
        }
    }

    /// Reads from a prefix to the end of its objects. Returns the number of pages, and nothing if they cannot be used.
    fn read(&self, prefix: &str) -> (usize, Option<ListedPage>) {
        // Comes before all names that begin with the prefix, and almost nothing is between them.
        let mut after = prefix.strip_suffix(|_: char| true).unwrap_or_default().to_owned();
        let (mut read, mut pages) = (ListedPage::default(), 0);
        while let Ok(Some(page)) = self.store.list_page(&after) {
            pages += 1;
            let last = page.objects.last().map(|object| object.name.clone());
            read.is_last = page.is_last;
            read.objects.extend(page.objects);
            let is_beyond = last.as_ref().is_some_and(|name| name.as_str() > prefix && !name.starts_with(prefix));
            if read.is_last || is_beyond || read.objects.len() > MOST_HELD {
                return (pages, Some(read));
            }
            // After a page without objects, which is not the last one, no name is known from which to continue.
            let Some(last) = last else { break };
            after = last;
        }
        (pages, None)
    }
}

impl State {
    /// The backup that a page begins with so that it lists this one, too; `None` if that one is not wanted. Backups before it are asked for
    /// next, by other threads or as its ancestors.
    fn next(&self, prefix: &str) -> Option<String> {
        if self.is_off || !matches!(self.slices.get(prefix), Some(Slice::Wanted)) {
            return None;
        }
        let before = self.slices.range(..=prefix.to_owned()).rev().take(NEAR);
        before.take_while(|(_, slice)| matches!(slice, Slice::Wanted)).last().map(|(first, _)| first.clone())
    }

    /// Keeps what the pages from a prefix on show.
    fn keep(&mut self, prefix: &str, at: Timestamp, (pages, read): (usize, Option<ListedPage>)) {
        if self.held > MOST_HELD {
            // No check has asked for these listings yet. The backups are listed again when a check needs them.
            let listed = self.slices.values_mut().filter(|slice| matches!(slice, Slice::Listed(..)));
            self.listed -= listed.map(|slice| *slice = Slice::Wanted).count();
            self.held = 0;
        }
        self.is_off |= read.is_none();
        let is_wanted = |slice: &Slice| matches!(slice, Slice::Wanted);
        let wanted = self.slices.range(prefix.to_owned()..).filter(|(_, slice)| is_wanted(slice)).map(|(prefix, _)| prefix.as_str());
        let found = divide(read.unwrap_or_default(), wanted);
        let wanted = self.slices.range_mut(prefix.to_owned()..).map(|(_, slice)| slice).filter(|slice| is_wanted(slice));
        for (slice, objects) in wanted.zip(found) {
            self.held += objects.len();
            self.listed += 1;
            *slice = Slice::Listed(objects, at);
        }
        self.pages += pages;
        self.is_off |= !is_worthwhile(self.pages, self.listed);
        // It may have more objects than are kept.
        if let Some(slice @ Slice::Wanted) = self.slices.get_mut(prefix) {
            *slice = Slice::Alone;
        }
    }
}

/// Access to the storage for a number of backups, with shared listings.
pub struct Listings<'a> {
    access: &'a dyn StorageAccess,
    /// By location.
    containers: HashMap<String, Arc<Container>>,
}

impl<'a> Listings<'a> {
    /// Access without shared listings.
    pub fn alone(access: &'a dyn StorageAccess) -> Self {
        Self { access, containers: HashMap::new() }
    }

    /// Shares the listings of these targets and their ancestors. Requests nothing yet.
    pub fn of<'t>(access: &'a dyn StorageAccess, targets: impl Iterator<Item = &'t Target>) -> Self {
        let mut seen = HashSet::new();
        let mut prefixes: HashMap<String, (Arc<dyn ObjectStore>, BTreeSet<&str>)> = HashMap::new();
        for target in targets {
            let Some(driver) = driver_of(&target.backup).filter(|driver| *driver != Driver::Ceph) else { continue };
            for member in once(&target.backup).chain(target.ancestors.iter().map(AsRef::as_ref)) {
                // A page of a directory does not show its subdirectories.
                let prefix = prefix_of(member).filter(|prefix| !driver.is_directory() || !prefix.contains('/'));
                if let Some(prefix) = prefix
                    && seen.insert((driver, &member.container, &member.project_id, prefix))
                    && let Ok(store) = access.store(driver, member)
                {
                    prefixes.entry(store.location().to_owned()).or_insert_with(|| (store, BTreeSet::new())).1.insert(prefix);
                }
            }
        }
        let containers = prefixes.into_iter().filter(|(_, (_, prefixes))| prefixes.len() > 1).map(|(location, (store, prefixes))| {
            let next = prefixes.iter().skip(1).map(Some).chain([None]);
            // An object of two backups is listed with each of them.
            let apart = prefixes.iter().zip(next).filter(|(prefix, next)| next.is_none_or(|next| !next.starts_with(**prefix)));
            let slices = apart.map(|(prefix, _)| ((*prefix).to_owned(), Slice::Wanted)).collect();
            let state = Mutex::new(State { slices, ..State::default() });
            (location, Arc::new(Container { store, page: Mutex::default(), state }))
        });
        Self { access, containers: containers.collect() }
    }

    /// A time before the backup was listed, if that is done already.
    pub fn listed_at(&self, backup: &Backup) -> Option<Timestamp> {
        let driver = driver_of(backup).filter(|driver| *driver != Driver::Ceph && !self.containers.is_empty())?;
        let (store, prefix) = (self.access.store(driver, backup).ok()?, prefix_of(backup)?);
        self.containers.get(store.location())?.listed_at(prefix)
    }
}

impl StorageAccess for Listings<'_> {
    fn store(&self, driver: Driver, backup: &Backup) -> Result<Arc<dyn ObjectStore>, StorageError> {
        let store = self.access.store(driver, backup)?;
        Ok(match self.containers.get(store.location()) {
            Some(container) => Arc::new(SharedStore { store, container: Arc::clone(container) }),
            None => store,
        })
    }

    fn location(&self, driver: Driver, backup: &Backup) -> Result<String, StorageError> {
        self.access.location(driver, backup)
    }

    fn ceph(&self, subject: &Subject<'_>, watch: &Watch) -> Result<CheckResult, StorageError> {
        self.access.ceph(subject, watch)
    }

    fn precheck_ceph(&self, backup: &Backup, ancestors: &[Arc<Backup>], then: Option<Listing>) -> Result<PrecheckListing, StorageError> {
        self.access.precheck_ceph(backup, ancestors, then)
    }
}

/// A store that lists each backup once from the pages of its container. A second listing of a backup takes requests of its own.
struct SharedStore {
    store: Arc<dyn ObjectStore>,
    container: Arc<Container>,
}

impl ObjectStore for SharedStore {
    fn location(&self) -> &str {
        self.store.location()
    }

    fn concurrency(&self) -> usize {
        self.store.concurrency()
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        let Some(objects) = self.container.take(prefix) else { return self.store.list(prefix, each) };
        // If `each` stops, nothing is left to be stopped.
        let _ = objects.into_iter().try_for_each(each);
        Ok(())
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        self.store.stat(name)
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        self.store.open(name, range)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::storage::MemoryStore;

    fn object(name: &str) -> ObjectInfo {
        ObjectInfo { name: name.to_owned(), size: 1, modified: None, md5: None }
    }

    fn with(objects: &BTreeSet<String>, prefix: &str) -> Vec<ObjectInfo> {
        objects.iter().filter(|name| name.starts_with(prefix)).map(|name| object(name)).collect()
    }

    fn container(objects: &BTreeSet<String>, prefixes: &BTreeSet<String>) -> Container {
        let mut store = MemoryStore::default();
        objects.iter().for_each(|name| store.put(name, *b"x", None));
        let slices = prefixes.iter().map(|prefix| (prefix.clone(), Slice::Wanted)).collect();
        Container { store: Arc::new(store), page: Mutex::default(), state: Mutex::new(State { slices, ..State::default() }) }
    }

    #[test]
    fn pages_that_list_hardly_more_than_one_backup_each_are_given_up() {
        assert!(is_worthwhile(0, 0) && is_worthwhile(TRIAL - 1, 0));
        assert!(!is_worthwhile(TRIAL, 2 * TRIAL - 1) && is_worthwhile(TRIAL, 2 * TRIAL));
        assert!(!is_worthwhile(1_000, 1_999) && is_worthwhile(1_000, 14_000));
    }

    proptest! {
        #[test]
        fn a_page_gives_what_a_listing_of_each_prefix_gives_or_nothing(
            objects in prop::collection::btree_set("[a-c]{1,3}", 0..25),
            prefixes in prop::collection::btree_set("[a-c]{2}", 1..7),
            end in 0_usize..30,
        ) {
            let shown: BTreeSet<String> = objects.iter().take(end).cloned().collect();
            let page = ListedPage { objects: shown.iter().map(|name| object(name)).collect(), is_last: end >= objects.len() };
            let found = divide(page, prefixes.iter().map(String::as_str));
            for (prefix, slice) in prefixes.iter().zip(&found) {
                prop_assert_eq!(slice, &with(&objects, prefix));
            }
            // The first that is left out may continue.
            if let Some(open) = prefixes.iter().nth(found.len()) {
                prop_assert!(shown.iter().all(|name| name < open || name.starts_with(open)));
            }
        }

        #[test]
        fn backups_are_listed_as_by_themselves_in_any_order(
            objects in prop::collection::btree_set("[a-d]{3,4}", 0..90),
            prefixes in prop::collection::btree_set("[a-d]{2}", 2..12),
            order in prop::collection::vec(any::<Index>(), 0..20),
        ) {
            let container = container(&objects, &prefixes);
            let all: Vec<&String> = prefixes.iter().collect();
            let mut taken = HashSet::new();
            for prefix in order.iter().map(|index| *index.get(&all)).chain(prefixes.iter()) {
                let at = container.listed_at(prefix);
                let found = container.take(prefix);
                prop_assert_eq!(at.is_some(), found.is_some());
                prop_assert!(found.is_none() || taken.insert(prefix), "a second listing is a new one");
                if let Some(found) = found {
                    prop_assert_eq!(found, with(&objects, prefix));
                }
                let state = lock(&container.state);
                let held: usize = state.slices.values().map(|slice| if let Slice::Listed(held, _) = slice { held.len() } else { 0 }).sum();
                prop_assert_eq!(held, state.held);
                prop_assert!(held <= 2 * MOST_HELD + 3);
            }
        }
    }

    #[test]
    fn what_was_listed_too_long_ago_is_listed_again() {
        let objects = ["a-1", "b-1", "c-1"].map(str::to_owned).into();
        let container = container(&objects, &["a", "b"].map(str::to_owned).into());
        assert_eq!(container.take("a").unwrap(), [object("a-1")]);
        if let Some(Slice::Listed(_, at)) = lock(&container.state).slices.get_mut("b") {
            *at -= MOST_AGE;
        }
        assert_eq!(container.take("b"), None);
    }

    #[test]
    fn a_backup_with_too_many_objects_is_listed_by_itself() {
        let objects = (0..2 * MOST_HELD).map(|number| format!("a-{number:05}")).chain(["b-1".to_owned()]).collect();
        let container = container(&objects, &["a-", "b-"].map(str::to_owned).into());
        assert_eq!(container.take("a-"), None);
        assert_eq!(container.take("b-").unwrap(), [object("b-1")]);
    }
}
