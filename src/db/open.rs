//! Opens a session on the engine that the settings name.

use super::{DbError, DbErrorKind, ServerInfo, Session, SessionSettings, mysql, postgres, sqlite};
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

/// Opens a session in place of a lost one, and checks that it has the same database and accepts writes if the lost one did: behind a
/// proxy's address another server may answer now.
pub fn reopen(target: &Target, settings: &SessionSettings, lost: &ServerInfo) -> Result<Box<dyn Session>, DbError> {
    let session = open(target, settings)?;
    let found = session.server();
    let (location, identity) = (&lost.location, &lost.identity);
    if found.identity != *identity {
        let other = &found.identity;
        let message = format!(
            "the connection to {location} ({identity}) was lost, and another database ({other}) now answers; nothing was written there"
        );
        return Err(DbError::fatal(DbErrorKind::SessionState, message));
    }
    if found.read_only && !lost.read_only {
        let message = format!("the connection to {location} was lost, and the server that now answers refuses writes");
        return Err(DbError::fatal(DbErrorKind::NotPrimary, message));
    }
    Ok(session)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_session_is_replaced_only_on_the_same_database() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("cinder.sqlite");
        for name in ["one", "two"] {
            let file = rusqlite::Connection::open(folder.path().join(name)).unwrap();
            file.execute_batch("CREATE TABLE t (id int);").unwrap();
        }
        std::os::unix::fs::symlink(folder.path().join("one"), &link).unwrap();
        let (target, settings) = (Target::Sqlite { path: link.clone() }, SessionSettings::default());
        let first = open(&target, &settings).unwrap();
        assert!(reopen(&target, &settings, first.server()).is_ok());
        let writable = ServerInfo { read_only: false, ..first.server().clone() };
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(folder.path().join("two"), &link).unwrap();
        let error = reopen(&target, &settings, &writable).err().unwrap();
        assert_eq!(error.kind, DbErrorKind::SessionState);
        assert!(error.is_fatal() && error.message.contains("another database"), "{error}");
    }
}
