//! Sessions on a SQLite file: DevStack, tests, and copies taken for practice.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};
use rustix::fs::{Access as FsAccess, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::statements::{EngineStatement, session_statements};
use super::{
    Access, CommitOutcome, DbError, DbErrorKind, Engine, Param, RowSink, ServerInfo, Session, SessionSettings, Statement, refused_commit,
    task,
};
use crate::config::describe_file;
use crate::domain::Value;

/// The first bytes of every SQLite database.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The offset of the header byte for the kind of journal, and its value for a write-ahead log.
const JOURNAL_BYTE: usize = 18;
const WAL: u8 = 2;

session_statements! { "sqlite":
    BEGIN_READ = "session_begin_read";
    BEGIN_WRITE = "session_begin_write";
    CACHE = "session_cache";
    JOURNAL_MODE = "session_journal_mode";
    JOURNAL_PERSIST = "session_journal_persist";
    JOURNAL_DELETE = "session_journal_delete";
    QUERY_ONLY_ON = "session_query_only_on";
    QUERY_ONLY_OFF = "session_query_only_off";
    QUERY_ONLY_CHECK = "session_query_only_check";
    COMMIT = "session_commit";
    ROLLBACK = "session_rollback";
}

struct Sqlite {
    connection: Connection,
    server: ServerInfo,
    deadline: Deadline,
    /// A statement of the open transaction failed, so the transaction must not be committed.
    failed: bool,
    journal: RollbackJournal,
    /// The file.
    path: PathBuf,
}

/// The file's rollback journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RollbackJournal {
    /// This session has not written yet.
    Unused,
    /// The file has a mode of its own (WAL, TRUNCATE …), which this session does not change.
    Unchanged,
    /// Stays between transactions, and is deleted at the end of the session.
    Persistent,
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        if self.journal == RollbackJournal::Persistent {
            // Otherwise an empty journal would stay.
            let _ = self.journal_mode(JOURNAL_DELETE);
        }
    }
}

/// Opens an existing SQLite database. Never creates a file: a path without a database is an error.
pub fn open(path: &Path, settings: &SessionSettings) -> Result<Box<dyn Session>, DbError> {
    let shown = path.display();
    let wal = check_magic(path)?;
    let canonical =
        path.canonicalize().map_err(|error| DbError::fatal(DbErrorKind::Connection, format!("cannot open {shown}: {error}")))?;
    let cannot_open = |error: &rusqlite::Error| {
        let error = describe(error, &format!("cannot open {shown}"));
        if wal && matches!(error.kind, DbErrorKind::Privilege | DbErrorKind::Connection) {
            let message =
                format!("cannot open {shown}: in WAL mode even a reader writes to files beside it, and this account may not write there");
            return DbError { kind: DbErrorKind::Privilege, message, ..error };
        }
        error
    };
    let open = |access| Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX);
    // For scan and dry runs, read access is sufficient.
    let opened = open(OpenFlags::SQLITE_OPEN_READ_WRITE).or_else(|_| open(OpenFlags::SQLITE_OPEN_READ_ONLY));
    let mut connection = opened.map_err(|error| cannot_open(&error))?;
    // Writing needs a journal beside the file. In WAL mode, opening the file has already proved that one can be created.
    let folder = canonical.parent().unwrap_or(Path::new("/"));
    let refused = accessat(CWD, folder, FsAccess::WRITE_OK | FsAccess::EXEC_OK, AtFlags::EACCESS);
    let no_journal = !wal && matches!(refused, Err(Errno::ACCESS | Errno::ROFS));
    let read_only = no_journal || connection.is_readonly("main").unwrap_or(true);
    connection
        .busy_timeout(settings.lock_timeout.max(Duration::from_millis(1)))
        .map_err(|error| describe(&error, &format!("cannot set the busy time-out of {shown}")))?;
    connection.execute_batch(CACHE.text).map_err(|error| cannot_open(&error))?;
    // Enough for all statements of a run; the default is 16.
    connection.set_prepared_statement_cache_capacity(64);
    let deadline = Deadline::install(&mut connection, settings.statement_timeout)?;
    let server = ServerInfo {
        version: rusqlite::version().to_owned(),
        identity: format!("sqlite:{}", canonical.display()),
        read_only,
        ..ServerInfo::new(Engine::Sqlite, describe_file(path))
    };
    Ok(Box::new(Sqlite { connection, server, deadline, failed: false, journal: RollbackJournal::Unused, path: canonical }))
}

/// A statement time-out, which SQLite itself does not have. Each statement sets the deadline, and SQLite's progress handler checks it.
#[derive(Clone)]
struct Deadline {
    base: Instant,
    /// Milliseconds after `base`; 0 is no deadline.
    at: Arc<AtomicU64>,
    limit: Duration,
}

impl Deadline {
    fn install(connection: &mut Connection, limit: Duration) -> Result<Self, DbError> {
        let deadline = Self { base: Instant::now(), at: Arc::default(), limit };
        let watched = deadline.clone();
        connection
            .progress_handler(
                20_000,
                Some(move || {
                    let at = watched.at.load(Ordering::Relaxed);
                    at != 0 && watched.base.elapsed().as_millis() > u128::from(at)
                }),
            )
            .map_err(|error| describe(&error, "cannot set a statement time-out"))?;
        Ok(deadline)
    }

    fn start(&self) {
        let at = if self.limit.is_zero() { 0 } else { (self.base.elapsed() + self.limit).as_millis() };
        self.at.store(u64::try_from(at).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Checks that the file is a SQLite database, and returns whether it has a write-ahead log.
fn check_magic(path: &Path) -> Result<bool, DbError> {
    let shown = path.display();
    let unusable = |problem: String| DbError::fatal(DbErrorKind::Connection, problem);
    let mut file = crate::input::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            unusable(format!("there is no SQLite database {shown}, and this program never creates one; check the path in the URL"))
        }
        _ => unusable(format!("cannot open the SQLite database {shown}: {error}")),
    })?;
    if !file.get_ref().1.metadata().is_ok_and(|data| data.is_file()) {
        return Err(unusable(format!("{shown} is not a file")));
    }
    let mut head = [0_u8; JOURNAL_BYTE + 1];
    if file.read_exact(&mut head).is_err() || !head.starts_with(MAGIC) {
        return Err(DbError::fatal(DbErrorKind::Schema, format!("{shown} is not a SQLite database")));
    }
    Ok(head.last() == Some(&WAL))
}

fn describe(error: &rusqlite::Error, doing: &str) -> DbError {
    let rusqlite::Error::SqliteFailure(failure, text) = error else {
        return DbError::new(DbErrorKind::Other, format!("{doing}: {error}"));
    };
    let text = text.clone().unwrap_or_else(|| failure.to_string());
    let (kind, problem) = match failure.code {
        ErrorCode::DatabaseBusy => (DbErrorKind::LockTimeout, "another process locks the database".to_owned()),
        ErrorCode::DatabaseLocked => (DbErrorKind::LockTimeout, "the table is locked".to_owned()),
        ErrorCode::ReadOnly => (DbErrorKind::Privilege, format!("the database or this transaction is read-only ({text})")),
        ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => (DbErrorKind::Privilege, text),
        ErrorCode::CannotOpen => (DbErrorKind::Connection, text),
        ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => {
            (DbErrorKind::Schema, format!("the database file is damaged ({text}); check it with PRAGMA integrity_check"))
        }
        ErrorCode::OperationInterrupted => (DbErrorKind::Timeout, "the statement time-out expired".to_owned()),
        _ if text.starts_with("no such table") || text.starts_with("no such column") => (DbErrorKind::Schema, text),
        _ => (DbErrorKind::Other, text),
    };
    DbError::new(kind, format!("{doing}: {problem}")).with_code(format!("{:?}", failure.code))
}

/// The other processes with a lock on the database file, from the kernel's table of locks: write locks, or else read locks, which
/// block a COMMIT. Opening and closing the file to find out would release this process's own locks on it.
fn lockers(table: &str, path: &Path) -> BTreeSet<u32> {
    let of = |path: &Path| {
        let data = std::fs::metadata(path).ok()?;
        Some(format!("{:02x}:{:02x}:{}", rustix::fs::major(data.dev()), rustix::fs::minor(data.dev()), data.ino()))
    };
    // In WAL mode the locks are on a file beside it, and every connection holds a read lock there.
    let mut beside = path.as_os_str().to_owned();
    beside.push("-shm");
    let (file, shared) = (of(path), of(Path::new(&beside)));
    let lockers = |kind: &str, files: &[&Option<String>]| -> BTreeSet<u32> {
        let process = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, "POSIX", _, is, process, on, ..] = words.as_slice() else { return None };
            let locked = *is == kind && files.iter().any(|file| file.as_deref() == Some(*on));
            process.parse().ok().filter(|process| locked && *process != std::process::id())
        };
        table.lines().filter_map(process).collect()
    };
    let writers = lockers("WRITE", &[&file, &shared]);
    if writers.is_empty() { lockers("READ", &[&file]) } else { writers }
}

fn bind(params: &[Param]) -> Vec<rusqlite::types::Value> {
    params
        .iter()
        .map(|param| match param {
            Param::One(Value::Null) => rusqlite::types::Value::Null,
            Param::One(Value::Integer(number)) => (*number).into(),
            Param::One(Value::Text(text) | Value::Unsupported(text)) => text.clone().into(),
            // The statements read a list as JSON (`json_each`).
            Param::Ids(ids) => serde_json::Value::from(ids.clone()).to_string().into(),
        })
        .collect()
}

fn value(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Unsupported(number.to_string()),
        ValueRef::Text(text) => super::text(text.to_vec()),
        ValueRef::Blob(bytes) => Value::Unsupported(String::from_utf8_lossy(bytes).into_owned()),
    }
}

impl Sqlite {
    fn run(&self, statement: EngineStatement) -> Result<(), DbError> {
        self.deadline.start();
        // Prepared once: each unit runs some of these.
        let run = || self.connection.prepare_cached(statement.text)?.execute([]);
        run().map(drop).map_err(|error| describe(&error, &format!("cannot {}", task(statement.name))))
    }

    /// Marks the transaction as failed.
    fn failure(&mut self, statement: &Statement, error: &rusqlite::Error) -> DbError {
        self.failed = true;
        describe(error, &format!("cannot {}", task(statement.name)))
    }

    /// Makes the journal persistent before the first write. Creating and deleting it takes two of a transaction's four waits for the
    /// disk.
    fn keep_journal(&mut self) -> Result<(), DbError> {
        if self.journal != RollbackJournal::Unused {
            return Ok(());
        }
        let mode = |statement| self.journal_mode(statement).map_err(|error| describe(&error, "cannot read the file's journal mode"));
        let kept = mode(JOURNAL_MODE)?.eq_ignore_ascii_case("delete") && mode(JOURNAL_PERSIST)?.eq_ignore_ascii_case("persist");
        self.journal = if kept { RollbackJournal::Persistent } else { RollbackJournal::Unchanged };
        Ok(())
    }

    fn journal_mode(&self, statement: EngineStatement) -> rusqlite::Result<String> {
        self.connection.query_row(statement.text, [], |row| row.get(0))
    }

    /// Sets `query_only` if necessary, and checks it. Setting it makes SQLite parse every prepared statement again, even if the value
    /// does not change, so the value is read first.
    fn set_read_only(&self, expected: bool) -> Result<(), DbError> {
        let read = || -> rusqlite::Result<bool> {
            let mut check = self.connection.prepare_cached(QUERY_ONLY_CHECK.text)?;
            check.query_row([], |row| row.get::<_, i64>(0)).map(|value| value != 0)
        };
        let is_read_only = || read().map_err(|error| describe(&error, "cannot read query_only"));
        if is_read_only()? == expected {
            return Ok(());
        }
        self.run(if expected { QUERY_ONLY_ON } else { QUERY_ONLY_OFF })?;
        if is_read_only()? != expected {
            return Err(DbError::new(DbErrorKind::SessionState, format!("SQLite did not set query_only, which must be {expected}")));
        }
        Ok(())
    }
}

impl Session for Sqlite {
    fn server(&self) -> &ServerInfo {
        &self.server
    }

    fn query(&mut self, statement: &Statement, params: &[Param], row: RowSink<'_>) -> Result<(), DbError> {
        self.deadline.start();
        let mut run = || -> rusqlite::Result<()> {
            let mut prepared = self.connection.prepare_cached(statement.text(Engine::Sqlite))?;
            let width = prepared.column_count();
            let mut cells = Vec::with_capacity(width);
            let mut rows = prepared.query(params_from_iter(bind(params)))?;
            while let Some(found) = rows.next()? {
                cells.clear();
                for index in 0..width {
                    cells.push(value(found.get_ref(index)?));
                }
                if row(&mut cells) == ControlFlow::Break(()) {
                    break;
                }
            }
            Ok(())
        };
        run().map_err(|error| self.failure(statement, &error))
    }

    fn execute(&mut self, statement: &Statement, params: &[Param]) -> Result<u64, DbError> {
        self.deadline.start();
        let run = || -> rusqlite::Result<usize> {
            let mut prepared = self.connection.prepare_cached(statement.text(Engine::Sqlite))?;
            prepared.execute(params_from_iter(bind(params)))
        };
        run().map(|matched| matched as u64).map_err(|error| self.failure(statement, &error))
    }

    fn begin(&mut self, access: Access) -> Result<(), DbError> {
        self.failed = false;
        self.set_read_only(access == Access::ReadOnly)?;
        if access == Access::ReadOnly {
            return self.run(BEGIN_READ);
        }
        self.keep_journal()?;
        self.run(BEGIN_WRITE)
    }

    fn set_lock_timeout(&mut self, limit: Duration) -> Result<(), DbError> {
        let set = self.connection.busy_timeout(limit.max(Duration::from_millis(1)));
        set.map_err(|error| describe(&error, "cannot set the busy time-out"))
    }

    fn lock_holders(&mut self) -> Vec<String> {
        let processes = std::fs::read_to_string("/proc/locks").map(|table| lockers(&table, &self.path)).unwrap_or_default();
        let name = |process: u32| std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        let row = |process: u32| [format!("process {process}").into(), Value::Null, name(process).trim().into()];
        processes.into_iter().filter_map(|process| super::lock_holder(&row(process))).collect()
    }

    fn commit(&mut self) -> CommitOutcome {
        if self.failed {
            return refused_commit(self.rollback());
        }
        match self.run(COMMIT) {
            Ok(()) => CommitOutcome::Committed,
            Err(error) => {
                // A refused COMMIT (BUSY) leaves the transaction open. After a ROLLBACK it has certainly written nothing.
                if self.connection.is_autocommit() || self.rollback().is_err() {
                    return CommitOutcome::Unknown(error.into_fatal());
                }
                CommitOutcome::NotCommitted(error)
            }
        }
    }

    fn rollback(&mut self) -> Result<(), DbError> {
        self.failed = false;
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.run(ROLLBACK)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn processes_with_a_lock_are_found_in_the_kernels_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cinder.sqlite");
        let shared = folder.path().join("cinder.sqlite-shm");
        let key = |path: &Path| {
            std::fs::write(path, "").unwrap();
            let data = std::fs::metadata(path).unwrap();
            format!("{:02x}:{:02x}:{}", rustix::fs::major(data.dev()), rustix::fs::minor(data.dev()), data.ino())
        };
        let (file, shared) = (key(&path), key(&shared));
        let own = std::process::id();
        let reading = format!(
            "1: POSIX  ADVISORY  READ 4711 {file} 1073741826 1073742335\n2: POSIX  ADVISORY  READ {own} {file} 1073741826 1073742335\n\
             3: FLOCK  ADVISORY  WRITE 4 {file} 0 EOF\n4: POSIX  ADVISORY  WRITE 5 00:01:1 0 EOF\n\
             4: -> POSIX  ADVISORY  WRITE 6 {file} 0 EOF\n5: POSIX  ADVISORY  READ 7 {shared} 128 128\n"
        );
        assert_eq!(lockers(&reading, &path), BTreeSet::from([4711]));
        let writing = format!("{reading}6: POSIX  ADVISORY  WRITE 4712 {shared} 120 120\n");
        assert_eq!(lockers(&writing, &path), BTreeSet::from([4712]));
        assert_eq!(lockers("", &path), BTreeSet::new());
    }

    #[test]
    fn a_file_is_never_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent.sqlite");
        let error = open(&path, &SessionSettings::default()).err().unwrap();
        assert_eq!(error.kind, DbErrorKind::Connection);
        assert!(!path.exists());
    }

    #[test]
    fn the_journal_mode_is_restored_at_the_end_of_the_session() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, within) in
            [("delete", RollbackJournal::Persistent), ("wal", RollbackJournal::Unchanged), ("truncate", RollbackJournal::Persistent)]
        {
            let path = folder.path().join(mode);
            let file = Connection::open(&path).unwrap();
            let set: String = file.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |row| row.get(0)).unwrap();
            assert_eq!(set, mode);
            file.execute_batch("CREATE TABLE t (id int);").unwrap();
            drop(file);
            let settings = SessionSettings::default();
            let connection = Connection::open(&path).unwrap();
            let deadline = Deadline::install(&mut Connection::open(&path).unwrap(), settings.statement_timeout).unwrap();
            let server = ServerInfo::new(Engine::Sqlite, String::new());
            let mut session = Sqlite { connection, server, deadline, failed: false, journal: RollbackJournal::Unused, path: path.clone() };
            session.begin(Access::Write).unwrap();
            // TRUNCATE is a mode of the connection, not of the file; only WAL is stored in the file.
            assert_eq!(session.journal, within, "{mode}");
            session.connection.execute_batch("INSERT INTO t VALUES (1);").unwrap();
            assert!(matches!(session.commit(), CommitOutcome::Committed));
            let journal = folder.path().join(format!("{mode}-journal"));
            assert_eq!(journal.exists(), within == RollbackJournal::Persistent, "{mode}");
            drop(session);
            assert!(!journal.exists(), "{mode}");
            let after: String = Connection::open(&path).unwrap().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(after, if mode == "wal" { "wal" } else { "delete" });
        }
    }

    #[test]
    fn a_file_that_is_not_a_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "not a database, but longer than sixteen bytes").unwrap();
        let error = open(&path, &SessionSettings::default()).err().unwrap();
        assert_eq!(error.kind, DbErrorKind::Schema);
        std::fs::write(&path, "").unwrap();
        assert!(open(&path, &SessionSettings::default()).is_err());
        assert!(open(folder.path(), &SessionSettings::default()).is_err());
    }
}
