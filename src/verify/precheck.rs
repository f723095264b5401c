//! A last look at the storage before a change: did anything move since the check?
//!
//! One listing of the backup, and one of each that it rests on; no object is opened.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;

use super::chunked::{MOST_LISTED, Times, prefix_of};
use super::run::{StorageAccess, Target};
use crate::domain::time::stamp;
use crate::domain::{Backup, Below, CheckResult, Driver, Glance, Listing, Look};
use crate::storage::{StorageErrorKind, swift};

/// What a listing shows, with the place that it is of; otherwise why there is none.
type Shown = Result<(Listing, Option<Timestamp>, String), Look>;

/// A look that is taken once.
type Once = Arc<OnceLock<Shown>>;

/// What is looked at within one round: many backups can rest on the same ones, which are then listed once.
#[derive(Debug, Default)]
pub struct PrecheckRound {
    /// By backup, and by the driver that it is read with.
    known: Mutex<HashMap<(String, Driver), Once>>,
    over: AtomicBool,
}

impl PrecheckRound {
    /// Nobody waits for answers any more: what goes on with a long chain stops.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn shown(&self, id: &str, driver: Driver, look: impl FnOnce() -> Shown) -> Shown {
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry((id.to_owned(), driver)).or_default())
        };
        slot.get_or_init(look).clone()
    }
}

/// Looks at a backup's storage once more, and compares with what a check saw. `host` is this host's name: that a directory
/// is not here proves something only where the check saw it here, too.
pub fn precheck(access: &dyn StorageAccess, target: &Target, check: &CheckResult, host: &str, round: &PrecheckRound) -> Look {
    let backup = &target.backup;
    let Some(driver) = backup.service.as_deref().and_then(Driver::of_service) else {
        // What never began has no place to look at, and the row's guards see it begin.
        return match backup.service_metadata.as_deref().filter(|prefix| !prefix.is_empty()) {
            None => Look::Same,
            Some(_) => Look::Unseen("nothing tells which driver wrote it".to_owned()),
        };
    };
    if driver == Driver::Ceph {
        return match access.precheck_ceph(backup, &target.ancestors, check.listing) {
            Ok(now) => check.compared_with(&now),
            Err(error) => Look::Unseen(error.text),
        };
    }
    let Some(prefix) = prefix_of(backup) else { return Look::Same };
    let (listing, newest, location) = match list(access, driver, backup, prefix) {
        Ok(shown) => shown,
        Err(look) => return look,
    };
    let was_here = check.location.as_deref().is_none_or(|was| is_same_place(driver, backup, was, &location));
    // That nothing is here of what was there: a directory may be another of the same name, or not be mounted. A server has been
    // asked, and says that there is none, by whatever address it is reached.
    let nothing = |driver: Driver, what: &str, location: &str| {
        let is_directory = matches!(driver, Driver::Posix | Driver::Nfs | Driver::GlusterFs);
        match was_here && (!is_directory || check.host.as_deref() == Some(host)) {
            true => None,
            false if is_directory => Some(Look::Unseen(elsewhere(what, location))),
            false => Some(Look::Moved(elsewhere(what, location))),
        }
    };
    if listing.objects == 0
        && check.begun
        && let Some(look) = nothing(driver, "it", &location)
    {
        return look;
    }
    let Listing { objects, bytes } = listing;
    let now = Glance { objects, bytes: Ok(bytes), newest_object_at: newest.map(stamp), watched: false };
    let own = check.compared_with(&now);
    if own != Look::Same || target.ancestors.is_empty() {
        return own;
    }
    // Listed by what their rows say now they would be others, and the rows' guards say so better.
    if let Some(why) = check.outdated(backup, &target.ancestors, target.columns) {
        return Look::Unseen(why);
    }
    // Without what there was then, the listings would show nothing.
    let mut below = Below::default();
    let mut newest = None;
    for parent in target.ancestors.iter().filter(|_| check.below.is_some()) {
        if round.over.load(Ordering::Relaxed) {
            return Look::Unseen("the backups that it rests on were not all listed in time".to_owned());
        }
        let Some(prefix) = prefix_of(parent) else { continue };
        let (listing, written, location) = match round.shown(&parent.id, driver, || list(access, driver, parent, prefix)) {
            Ok(shown) => shown,
            Err(Look::Moved(what)) => return Look::Moved(format!("of backup {}, which it rests on: {what}", parent.id)),
            Err(Look::Unseen(why)) => return Look::Unseen(format!("backup {}, which it rests on: {why}", parent.id)),
            Err(Look::Same) => continue,
        };
        if listing.objects == 0
            && let Some(look) = nothing(driver, &format!("backup {}, which it rests on,", parent.id), &location)
        {
            return look;
        }
        below.listing.objects += listing.objects;
        below.listing.bytes = below.listing.bytes.saturating_add(listing.bytes);
        newest = newest.max(written);
    }
    below.newest_object_at = newest.map(stamp);
    check.compared_below(&below)
}

/// Whether the place that a check noted for a backup is the one where it is looked for now.
pub(super) fn is_same_place(driver: Driver, backup: &Backup, was: &str, now: &str) -> bool {
    was == now || (driver == Driver::Swift && swift::is_url_of(was, backup.container.as_deref().unwrap_or_default()))
}

fn elsewhere(what: &str, location: &str) -> String {
    format!("nothing of {what} is in {location} as this host sees it, and it was checked elsewhere")
}

/// One listing of a backup's objects.
fn list(access: &dyn StorageAccess, driver: Driver, backup: &Backup, prefix: &str) -> Shown {
    let store = access.store(driver, backup).map_err(|error| Look::Unseen(error.text))?;
    let (mut listing, mut times, mut endless) = (Listing::default(), Times::default(), false);
    let listed = store.list(prefix, &mut |found| {
        if found.name.starts_with(prefix) {
            listing.objects += 1;
            listing.bytes = listing.bytes.saturating_add(found.size);
            times.add(found.modified);
        }
        endless = listing.objects > MOST_LISTED;
        if endless { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match listed {
        Ok(()) if endless => Err(Look::Moved(format!("the listing of {} has no end", store.location()))),
        // Where there is no container, nothing is in it.
        Err(error) if error.kind != StorageErrorKind::NoContainer => Err(Look::Unseen(error.text)),
        _ => Ok((listing, times.known_newest(), store.location().to_owned())),
    }
}
