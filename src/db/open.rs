//! Opens a session on whatever engine the settings name.

use super::{DbError, Session, SessionSettings, sqlite};
use crate::config::Target;

/// Opens a session in a known and checked state.
pub fn open(target: &Target, settings: &SessionSettings) -> Result<Box<dyn Session>, DbError> {
    match target {
        Target::Sqlite { path } => sqlite::open(path, settings),
        Target::Server(_) => Err(DbError::new(super::DbErrorKind::Other, "not yet")),
    }
}
