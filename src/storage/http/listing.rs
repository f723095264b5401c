//! Listings in pages, and pages from the middle of a container. An endless listing is detected.

use std::ops::ControlFlow;

use super::{HttpStore, quote};
use crate::storage::{ListedPage, ObjectInfo, StorageError};

/// The number of pages in a row that may have no objects.
const EMPTY_PAGES: u32 = 100;

/// One page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Page {
    pub(in crate::storage) objects: Vec<ObjectInfo>,
    /// The token of the next page; `None` on the last page.
    pub(in crate::storage) next: Option<String>,
}

/// Lists all pages, as [`ObjectStore::list`](crate::storage::ObjectStore::list). Names must begin with the prefix and be in ascending
/// order of their bytes, as all three services promise. So no name is repeated, and the listing ends.
///
/// # Errors
/// Those of the requests, and [`StorageErrorKind::Protocol`](crate::storage::StorageErrorKind::Protocol) for a listing that breaks
/// these promises or makes no progress.
pub(super) fn list(store: &impl HttpStore, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
    let wrong = |problem: String| Err(StorageError::protocol(format!("the listing at {} {problem}", store.place())));
    let (mut token, mut last, mut empty_pages) = (None, None::<String>, 0);
    loop {
        let page = store.http().page(token.is_none(), || store.page(prefix, token.as_deref()))?;
        empty_pages = if page.objects.is_empty() { empty_pages + 1 } else { 0 };
        for object in page.objects {
            let name = &object.name;
            if !name.starts_with(prefix) {
                return wrong(format!("has {}, which does not begin with {}", quote(name), quote(prefix)));
            }
            if let Some(last) = &last
                && name <= last
            {
                return wrong(format!("has {} after {}: it is not in order, or repeats itself", quote(name), quote(last)));
            }
            last = Some(name.clone());
            if each(object).is_break() {
                return Ok(());
            }
        }
        if page.next.is_some() && (page.next == token || empty_pages > EMPTY_PAGES) {
            return wrong("is endless: it continues without new names".to_owned());
        }
        token = page.next;
        if token.is_none() {
            return Ok(());
        }
    }
}

/// Requests one page, as [`ObjectStore::list_page`](crate::storage::ObjectStore::list_page). The names must be after `after` and in
/// ascending order.
///
/// # Errors
/// As for [`list`].
pub(super) fn page_after(store: &impl HttpStore, after: &str) -> Result<ListedPage, StorageError> {
    let Page { objects, next } = store.page_after(after)?;
    let names = [after].into_iter().chain(objects.iter().map(|object| object.name.as_str()));
    if let Some((last, name)) = names.clone().zip(names.skip(1)).find(|(last, name)| name <= last) {
        let (place, last, name) = (store.place(), quote(last), quote(name));
        return Err(StorageError::protocol(format!("the listing at {place} after {} has {name} after {last}", quote(after))));
    }
    Ok(ListedPage { objects, is_last: next.is_none() })
}
