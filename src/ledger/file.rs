//! Opens, creates, locks and migrates the file of a ledger.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};
use rustix::fs::OFlags;

use super::{Ledger, LedgerError, Result, statements};
use crate::domain::DatabaseInfo;

/// `PRAGMA application_id` of a ledger: CBLR in ASCII.
const APPLICATION_ID: i64 = 0x4342_4C52;
/// The statements that lead from each version of the schema to the next. Version 0 is an empty file.
const MIGRATIONS: &[&str] = &[statements::SCHEMA_1];
/// How long a statement waits for another connection. A run holds no lock for longer than a merge of the live backups takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first bytes of every SQLite file.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Whether a file is a SQLite database, as every ledger is.
pub fn is_sqlite(path: &Path) -> bool {
    let mut head = [0_u8; 16];
    // Reading from a pipe would take the first bytes from the reader that follows.
    let is_file = path.metadata().is_ok_and(|found| found.is_file());
    is_file && File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == MAGIC
}

/// A link in place of the lock file would have another file overwritten.
const NO_LINK: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// The right to write results to a ledger. It ends with the process.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock of the ledger at `path`: a lock on a file beside it, because closing another handle of the ledger itself would
    /// release SQLite's own locks. The file stays, because removing it could give the lock to two runs.
    pub fn take(path: &Path) -> Result<Self> {
        // Something else than a ledger gets no lock file.
        if path.symlink_metadata().is_ok() {
            Ledger::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        }
        // Two names of one ledger have one lock.
        let mut name = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
        name.push(".lock");
        let lock = PathBuf::from(name);
        let cannot = |error: io::Error| LedgerError::Open(lock.display().to_string(), error);
        let mut file = private().read(true).write(true).create(true).custom_flags(NO_LINK).open(&lock).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let is_known = file.take(100).read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if is_known { format!(" (process {})", holder.trim()) } else { String::new() };
                return Err(LedgerError::Locked(path.display().to_string(), holder));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(cannot)?;
        Ok(Self { _file: file })
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

impl Ledger {
    /// Opens the ledger of a database for a run, and creates it if there is none; `lock` is its lock.
    pub fn open_for_run(path: &Path, _lock: &RunLock, database: &DatabaseInfo, now: i64) -> Result<Self> {
        let cannot = |error: io::Error| LedgerError::Open(path.display().to_string(), error);
        if !path.exists() {
            private().write(true).create_new(true).open(path).map_err(cannot)?;
        }
        let ledger = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        ledger.migrate(MIGRATIONS)?;
        // On a file system without shared memory the journal stays as it is.
        ledger.connection.query_row(statements::JOURNAL_WAL, [], |row| row.get::<_, String>(0))?;
        let text = serde_json::to_string(database)?;
        ledger.connection.execute(statements::BIND, params![database.identity, text, now])?;
        ledger.require_database(database)?;
        Ok(ledger)
    }

    /// Opens an existing ledger, to read it, or to pause and resume.
    pub fn open(path: &Path, writes: bool) -> Result<Self> {
        let flags = if writes { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let ledger = Self::connect(path, flags)?;
        let version = ledger.version(MIGRATIONS)?;
        let newest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        if version < newest && writes && version > 0 {
            ledger.migrate(MIGRATIONS)?;
        } else if version < newest {
            let problem =
                if version == 0 { "it is empty".to_owned() } else { format!("version {version}; a scrub run brings it up to date") };
            return Err(LedgerError::NotALedger(path.display().to_string(), problem));
        }
        Ok(ledger)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self> {
        let shown = path.display().to_string();
        let found = path.metadata().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LedgerError::Missing(shown.clone()),
            _ => LedgerError::Open(shown.clone(), error),
        })?;
        if !found.is_file() {
            return Err(LedgerError::NotALedger(shown, "not a file".to_owned()));
        }
        if found.mode() & 0o022 != 0 {
            return Err(LedgerError::NotPrivate(shown));
        }
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(PATIENCE)?;
        let ledger = Self { path: path.to_owned(), connection };
        // Reads the file for the first time.
        ledger.version(MIGRATIONS).and_then(|_| ledger.batch(statements::SESSION)).map_err(|error| error.of(path))?;
        ledger.connection.set_prepared_statement_cache_capacity(64);
        Ok(ledger)
    }

    /// The version of its schema; 0 if it is empty.
    fn version(&self, migrations: &[&str]) -> Result<i64> {
        let number = |statement: &str| self.connection.query_row(statement, [], |row| row.get::<_, i64>(0));
        let not_a_ledger = |problem: &str| LedgerError::NotALedger(self.shown(), problem.to_owned());
        let (id, tables) = match (number(statements::APPLICATION_ID), number(statements::TABLES)) {
            (Ok(id), Ok(tables)) => (id, tables),
            (Err(error), _) | (_, Err(error)) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
                return Err(not_a_ledger("not a SQLite file"));
            }
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        };
        if id != APPLICATION_ID && (id, tables) != (0, 0) {
            return Err(not_a_ledger("a SQLite file of another program"));
        }
        let (version, newest) = (number(statements::USER_VERSION)?, i64::try_from(migrations.len()).unwrap_or(i64::MAX));
        if version > newest { Err(LedgerError::Newer(self.shown(), version, newest)) } else { Ok(version) }
    }

    /// Brings the schema up to date, in one transaction.
    pub(super) fn migrate(&self, migrations: &[&str]) -> Result<()> {
        self.batch(statements::MIGRATE_BEGIN)?;
        let all = self.version(migrations).and_then(|version| {
            let done = usize::try_from(version).unwrap_or(usize::MAX);
            migrations.iter().skip(done).try_for_each(|migration| self.batch(migration))
        });
        match all.and_then(|()| self.batch(statements::COMMIT)) {
            Ok(()) => Ok(()),
            Err(error) => {
                // The first error is the one to report.
                let _ = self.batch(statements::ROLLBACK);
                Err(error)
            }
        }
    }

    /// Refuses a ledger of another database.
    pub fn require_database(&self, database: &DatabaseInfo) -> Result<()> {
        let theirs = self.database()?;
        if theirs.identity == database.identity {
            return Ok(());
        }
        Err(LedgerError::OtherDatabase(self.shown(), theirs.to_string(), database.to_string()))
    }

    /// The Cinder database that it belongs to.
    pub fn database(&self) -> Result<DatabaseInfo> {
        let text: String = self.connection.query_row(statements::BOUND, [], |row| row.get(1))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Ends a run: changes the journal back. If another process reads the file at that moment, the next run does it.
    pub fn close(self) {
        let _ = self.connection.query_row(statements::JOURNAL_DELETE, [], |row| row.get::<_, String>(0));
    }
}
