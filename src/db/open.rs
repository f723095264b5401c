//! Opens a session on whatever engine the settings name.

use super::{DbError, Session, SessionSettings, mysql, postgres, sqlite};
use crate::config::{ServerKind, Target};

/// Opens a session in a known and checked state.
pub fn open(target: &Target, settings: &SessionSettings) -> Result<Box<dyn Session>, DbError> {
    match target {
        Target::Sqlite { path } => sqlite::open(path, settings),
        Target::Server(server) => match server.kind {
            ServerKind::Mysql => mysql::open(server, settings),
            ServerKind::Postgresql => postgres::open(server, settings),
        },
    }
}
