//! Checks the pages of a listing, so that an endless one is detected.

use super::quote;
use crate::storage::{StorageError, StorageErrorKind};

/// The number of pages in a row that may have no objects.
const EMPTY_PAGES: u32 = 100;

/// The state of a listing. Names must begin with the prefix and be in ascending order of their bytes, as all three services promise.
/// So no name is repeated, and the listing ends.
#[derive(Debug)]
pub(in crate::storage) struct PagedListing<'a> {
    location: &'a str,
    prefix: &'a str,
    last: Option<String>,
    token: Option<String>,
    empty: u32,
}

impl<'a> PagedListing<'a> {
    /// Starts a listing.
    pub(in crate::storage) fn new(location: &'a str, prefix: &'a str) -> Self {
        Self { location, prefix, last: None, token: None, empty: 0 }
    }

    /// Continues a listing after the name that was the marker of the next page.
    pub(in crate::storage) fn after(location: &'a str, prefix: &'a str, last: Option<String>) -> Self {
        Self { last, ..Self::new(location, prefix) }
    }

    /// Returns the last name so far.
    pub(in crate::storage) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Returns the token of the next page; `None` for the first page.
    pub(in crate::storage) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Checks the next name.
    ///
    /// # Errors
    /// [`StorageErrorKind::Protocol`] if it is out of order or has another prefix.
    pub(in crate::storage) fn accept(&mut self, name: &str) -> Result<(), StorageError> {
        let problem = match &self.last {
            _ if !name.starts_with(self.prefix) => format!("has {}, which does not begin with {}", quote(name), quote(self.prefix)),
            Some(last) if name <= last.as_str() => {
                format!("has {} after {}: it is not in order, or repeats itself", quote(name), quote(last))
            }
            _ => {
                self.last = Some(name.to_owned());
                self.empty = 0;
                return Ok(());
            }
        };
        Err(self.protocol_error(&problem))
    }

    /// Ends a page. Returns whether another follows, for which the server sends a token.
    ///
    /// # Errors
    /// [`StorageErrorKind::Protocol`] if the listing makes no progress.
    pub(in crate::storage) fn end_page(&mut self, next: Option<String>) -> Result<bool, StorageError> {
        self.empty += 1;
        match next {
            None => Ok(false),
            next if next == self.token || self.empty > EMPTY_PAGES => {
                Err(self.protocol_error("is endless: it continues without new names"))
            }
            next => {
                self.token = next;
                Ok(true)
            }
        }
    }

    fn protocol_error(&self, problem: &str) -> StorageError {
        StorageError::new(StorageErrorKind::Protocol, format!("the listing at {} {problem}", self.location))
    }
}
