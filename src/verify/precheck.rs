//! Compares the storage with a check just before a change: was anything written or removed since?
//!
//! One listing of the backup, and one of each backup that it is based on. No object is opened.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;

use super::chunked::{MOST_LISTED, Times, prefix_of};
use super::target::{StorageAccess, Target, driver_of, is_same_location};
use crate::domain::time::stamp;
use crate::domain::{AncestorListings, Backup, CheckResult, Comparison, Driver, Listing, PrecheckListing};
use crate::storage::StorageErrorKind;

/// What a listing shows: its sums, its newest time and its location. Otherwise why there is none.
type Listed = Result<(Listing, Option<Timestamp>, String), Comparison>;

/// A listing that the first precheck makes and the others wait for.
type SharedListing = Arc<OnceLock<Listed>>;

/// Prechecks that are made at the same time. Many backups can be based on the same ones, which are then listed once.
#[derive(Debug, Default)]
pub struct PrecheckRound {
    /// By backup, and by the driver that it is read with.
    listed: Mutex<HashMap<(String, Driver), SharedListing>>,
    is_over: AtomicBool,
}

impl PrecheckRound {
    /// Ends it: nobody waits for answers any more, and a precheck of a long chain stops.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether it was ended.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn listed(&self, id: &str, driver: Driver, list: impl FnOnce() -> Listed) -> Listed {
        let slot = {
            let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(listed.entry((id.to_owned(), driver)).or_default())
        };
        slot.get_or_init(list).clone()
    }
}

/// Lists a backup and compares that with its check. `host` is the name of this host: an empty directory proves something only if the
/// check saw it on the same host.
pub fn precheck(access: &dyn StorageAccess, target: &Target, check: &CheckResult, host: &str, round: &PrecheckRound) -> Comparison {
    let backup = &target.backup;
    let Some(driver) = driver_of(backup) else {
        // A backup that never began has nothing to list, and the guards of its row notice if it begins.
        return match backup.service_metadata.as_deref().filter(|prefix| !prefix.is_empty()) {
            None => Comparison::Unchanged,
            Some(_) => Comparison::Unknown("it is not known which driver wrote it".to_owned()),
        };
    };
    if driver == Driver::Ceph {
        return match access.precheck_ceph(backup, &target.ancestors, check.listing) {
            Ok(now) => check.compared_with(&now),
            Err(error) => Comparison::Unknown(error.text),
        };
    }
    let Some(prefix) = prefix_of(backup) else { return Comparison::Unchanged };
    let (listing, newest, location) = match list(access, driver, backup, prefix) {
        Ok(listed) => listed,
        Err(look) => return look,
    };
    let was_here = check.location.as_deref().is_none_or(|was| is_same_location(driver, backup, was, &location));
    // Nothing is listed of a backup that had objects. A directory may be another one of the same name, or not be mounted. A server
    // has answered that there is nothing, by whatever address it is reached.
    let if_empty = |what: &str, location: &str| {
        let is_proven = was_here && (!driver.is_directory() || check.host.as_deref() == Some(host));
        let text = format!("this host sees nothing of {what} in {location}, but it was checked elsewhere");
        (!is_proven).then_some(if driver.is_directory() { Comparison::Unknown(text) } else { Comparison::Changed(text) })
    };
    if listing.objects == 0
        && check.begun
        && let Some(look) = if_empty("it", &location)
    {
        return look;
    }
    let Listing { objects, bytes } = listing;
    let now = PrecheckListing { objects, bytes: Ok(bytes), newest_object_at: newest.map(stamp), watched: false };
    let own = check.compared_with(&now);
    if own != Comparison::Unchanged || target.ancestors.is_empty() {
        return own;
    }
    // With other rows the listings would be of other objects, and the guards of the rows report that better.
    if let Some(why) = check.outdated(backup, &target.ancestors, target.columns) {
        return Comparison::Unknown(why);
    }
    match list_below(access, target, check, round, &if_empty) {
        Ok(below) => check.compared_with_ancestors(&below),
        Err(look) => look,
    }
}

/// Looks again for the witness of a check that found nothing. `host` is as in [`precheck`].
pub fn precheck_witness(
    access: &dyn StorageAccess,
    witness: Option<&Target>,
    check: &CheckResult,
    host: &str,
    round: &PrecheckRound,
) -> Comparison {
    let Some(id) = &check.witness else { return Comparison::Unchanged };
    let Some((backup, driver)) = witness.and_then(|witness| Some((&witness.backup, driver_of(&witness.backup)?))) else {
        return Comparison::Changed(format!("backup {id}, which was found in the same place, is no longer live"));
    };
    let is_there = match (driver, prefix_of(backup)) {
        (Driver::Ceph, _) => {
            access.precheck_ceph(backup, &[], None).map(|now| now.objects > 0).map_err(|error| Comparison::Unknown(error.text))
        }
        (_, Some(prefix)) => round.listed(id, driver, || list(access, driver, backup, prefix)).map(|(listing, ..)| listing.objects > 0),
        (_, None) => Ok(false),
    };
    match is_there {
        Ok(true) => Comparison::Unchanged,
        Ok(false) if driver.is_directory() && check.host.as_deref() != Some(host) => {
            Comparison::Unknown("this host does not see the directory in which it was checked".to_owned())
        }
        Ok(false) => Comparison::Changed(format!("backup {id} is no longer found in the same place, so it may be another storage")),
        // Its listing is too long to be read, so it is there.
        Err(Comparison::Changed(_)) => Comparison::Unchanged,
        Err(look) => look,
    }
}

/// Lists the backups that a target is based on.
fn list_below(
    access: &dyn StorageAccess,
    target: &Target,
    check: &CheckResult,
    round: &PrecheckRound,
    if_empty: &dyn Fn(&str, &str) -> Option<Comparison>,
) -> Result<AncestorListings, Comparison> {
    let mut below = AncestorListings::default();
    let Some(driver) = driver_of(&target.backup) else { return Ok(below) };
    // If the check has no listing of them, there is nothing to compare with.
    for parent in target.ancestors.iter().filter(|_| check.below.is_some()) {
        if round.is_over() {
            return Err(Comparison::Unknown("not all of the backups that it is based on were listed in time".to_owned()));
        }
        let Some(prefix) = prefix_of(parent) else { continue };
        let (listing, written, location) = match round.listed(&parent.id, driver, || list(access, driver, parent, prefix)) {
            Ok(listed) => listed,
            Err(Comparison::Changed(what)) => {
                return Err(Comparison::Changed(format!("in backup {}, which it is based on: {what}", parent.id)));
            }
            Err(Comparison::Unknown(why)) => return Err(Comparison::Unknown(format!("backup {}, which it is based on: {why}", parent.id))),
            Err(Comparison::Unchanged) => continue,
        };
        if listing.objects == 0
            && let Some(look) = if_empty(&format!("backup {}, which it is based on,", parent.id), &location)
        {
            return Err(look);
        }
        below.add(listing, written);
    }
    Ok(below)
}

/// Lists the objects of one backup.
fn list(access: &dyn StorageAccess, driver: Driver, backup: &Backup, prefix: &str) -> Listed {
    let store = access.store(driver, backup).map_err(|error| Comparison::Unknown(error.text))?;
    let (mut listing, mut times) = (Listing::default(), Times::default());
    let listed = store.list(prefix, &mut |found| {
        if found.name.starts_with(prefix) {
            listing.objects += 1;
            listing.bytes = listing.bytes.saturating_add(found.size);
            times.add(found.modified);
        }
        if listing.objects > MOST_LISTED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match listed {
        Ok(()) if listing.objects > MOST_LISTED => {
            Err(Comparison::Changed(format!("the listing of {} has more than {MOST_LISTED} objects", store.location())))
        }
        // A missing container is empty.
        Err(error) if error.kind != StorageErrorKind::NoContainer => Err(Comparison::Unknown(error.text)),
        _ => Ok((listing, times.known_newest(), store.location().to_owned())),
    }
}
