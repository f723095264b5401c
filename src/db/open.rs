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
    if found.identity != lost.identity {
        return Err(DbError::fatal(
            DbErrorKind::SessionState,
            format!(
                "the connection to {} ({}) was lost, and another database ({}) now answers; nothing was written there",
                lost.location, lost.identity, found.identity
            ),
        ));
    }
    if found.read_only && !lost.read_only {
        return Err(DbError::fatal(
            DbErrorKind::NotPrimary,
            format!("the connection to {} was lost, and the server that now answers refuses writes", lost.location),
        ));
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
