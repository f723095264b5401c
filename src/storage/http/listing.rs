//! What holds for listings of all three kinds of server, so that one without an end is told.

use super::quote;
use crate::storage::{StorageError, StorageErrorKind};

/// Pages without an object, one after another, that a listing may have.
const EMPTY_PAGES: u32 = 100;

/// A listing on its way: names that begin with the prefix, in ascending order of their bytes, as all three promise. So no
/// name comes twice, and a listing goes on only with names that are new.
#[derive(Debug)]
pub(in crate::storage) struct PagedListing<'a> {
    location: &'a str,
    prefix: &'a str,
    last: Option<String>,
    token: Option<String>,
    empty: u32,
}

impl<'a> PagedListing<'a> {
    /// At its beginning.
    pub(in crate::storage) fn new(location: &'a str, prefix: &'a str) -> Self {
        Self { location, prefix, last: None, token: None, empty: 0 }
    }

    /// After a name, by which the next page was asked for.
    pub(in crate::storage) fn after(location: &'a str, prefix: &'a str, last: Option<String>) -> Self {
        Self { last, ..Self::new(location, prefix) }
    }

    /// The last name so far.
    pub(in crate::storage) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// What the next page is asked for with; `None` for the first one.
    pub(in crate::storage) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The next name.
    ///
    /// # Errors
    /// [`StorageErrorKind::Protocol`] for one that cannot come here.
    pub(in crate::storage) fn accept(&mut self, name: &str) -> Result<(), StorageError> {
        let problem = match &self.last {
            _ if !name.starts_with(self.prefix) => format!("names {}, which does not begin with {}", quote(name), quote(self.prefix)),
            Some(last) if name <= last.as_str() => {
                format!("names {} after {}: it repeats itself, or is not in order", quote(name), quote(last))
            }
            _ => {
                self.last = Some(name.to_owned());
                self.empty = 0;
                return Ok(());
            }
        };
        Err(self.protocol_error(&problem))
    }

    /// The end of a page. Whether another follows, which is what the server says by a token.
    ///
    /// # Errors
    /// [`StorageErrorKind::Protocol`] where the listing gets nowhere.
    pub(in crate::storage) fn end_page(&mut self, next: Option<String>) -> Result<bool, StorageError> {
        self.empty += 1;
        match next {
            None => Ok(false),
            next if next == self.token || self.empty > EMPTY_PAGES => Err(self.protocol_error("has no end: it goes on without new names")),
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
