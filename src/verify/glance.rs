//! A last look at the storage before a change: did anything move since the check?
//!
//! One listing, and no object is opened.

use std::ops::ControlFlow;

use jiff::Timestamp;

use super::chunked::MOST_LISTED;
use super::run::{Places, Target};
use crate::domain::{CheckResult, Driver, Glance, Listing, Look};
use crate::storage::StorageErrorKind;

/// Looks at a backup's storage once more, and compares with what a check saw. `host` is this host's name: that a directory
/// is not here proves something only where the check saw it here, too.
pub fn glance(places: &dyn Places, target: &Target, check: &CheckResult, host: &str) -> Look {
    let backup = &target.backup;
    // What never began has no place to look at, and the row's guards see it begin.
    let nowhere = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    let Some(driver) = backup.service.as_deref().and_then(Driver::of_service) else { return Look::Same };
    if driver == Driver::Ceph {
        return match places.ceph_glance(backup, &target.ancestors) {
            Ok(now) => check.moved_since(&now).map_or(Look::Same, Look::Moved),
            Err(error) => Look::Unseen(error.text),
        };
    }
    if nowhere(&backup.container) || nowhere(&backup.service_metadata) {
        return Look::Same;
    }
    let prefix = backup.service_metadata.as_deref().unwrap_or_default();
    let store = match places.store(driver, backup) {
        Ok(store) => store,
        Err(error) => return Look::Unseen(error.text),
    };
    let (mut listing, mut newest, mut endless) = (Listing::default(), None::<Timestamp>, false);
    let listed = store.list(prefix, &mut |found| {
        if found.name.starts_with(prefix) {
            listing.objects += 1;
            listing.bytes = listing.bytes.saturating_add(found.size);
            newest = newest.max(found.modified);
        }
        endless = listing.objects > MOST_LISTED;
        if endless { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match listed {
        Ok(()) if endless => return Look::Moved(format!("the listing of {} has no end", store.location())),
        Ok(()) => {}
        // Where there is no container, nothing is in it.
        Err(error) if error.kind == StorageErrorKind::NoContainer => {}
        Err(error) => return Look::Unseen(error.text),
    }
    // Another directory of the same name, or no directory, is not the one that was checked.
    let is_directory = matches!(driver, Driver::Posix | Driver::Nfs | Driver::GlusterFs);
    let same_place = check.location.as_deref().is_none_or(|location| location == store.location())
        && (!is_directory || check.host.as_deref() == Some(host));
    if listing.objects == 0 && check.begun && !same_place {
        let text = format!("nothing of it is in {} as this host sees it, and it was checked elsewhere", store.location());
        return Look::Unseen(text);
    }
    let now = Glance { listing: Some(listing), newest_object_at: newest.map(|at| at.to_string()), watched: false };
    check.moved_since(&now).map_or(Look::Same, Look::Moved)
}
