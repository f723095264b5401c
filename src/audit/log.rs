//! Writes the audit log: appends and syncs, never rewrites.
//!
//! One writer at a time holds an exclusive lock. After the first failed write or sync the log accepts nothing more: the content of the
//! disk is then unknown, and a later sync would still report success, because Linux reports a failed write-back only once. The
//! next writer records a line that a crash cut off.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::chain::Head;
use super::line_digest::{digest, with_digest};
use super::record::{Event, Record, SCHEMA, SCHEMA_VERSION};
use super::tail::{self, Tail};
use super::{AuditError, MAX_LINE, holder};
use crate::domain::text::json_escaped;

/// The run id in a `torn` record.
const NO_RUN: &str = "-";

/// Receives the lines. Tests use one that fails.
pub trait Sink: Send {
    /// Appends all bytes.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything written is on disk, in the file at the log's path.
    fn sync(&mut self) -> io::Result<()>;
}

/// An audit log open for writing.
pub struct AuditLog {
    path: PathBuf,
    sink: Box<dyn Sink>,
    clock: Box<dyn Fn() -> String + Send>,
    head: Head,
    buffer: Vec<u8>,
    /// Some written data may not be on disk yet.
    unsynced: bool,
    failure: Option<String>,
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").field("path", &self.path).field("head", &self.head).field("failure", &self.failure).finish()
    }
}

impl AuditLog {
    /// Opens the log at `path` for writing and locks it. Creates the file and its directories if they are missing. If the last writer
    /// died in the middle of a line, this writes a `torn` record. `clock` gives the time of each record, RFC 3339 in UTC.
    pub fn open(path: &Path, clock: impl Fn() -> String + Send + 'static) -> Result<Self, AuditError> {
        let path = &std::path::absolute(path).map_err(|error| AuditError::io(path, "find", error))?;
        let (mut file, created) = open_file(path)?;
        let found = file.metadata().map_err(|error| AuditError::io(path, "examine", error))?;
        check_private(path, &found)?;
        lock(path, &file, &found)?;
        // The length is stable only under the lock.
        let len = file.metadata().map_err(|error| AuditError::io(path, "examine", error))?.len();
        let tail = tail::read(&mut file, len).map_err(|error| AuditError::io(path, "read", error))?;
        let Tail { head, torn, terminated } = tail.map_err(|problem| AuditError::of(path, problem))?;
        let sink = FileSink { file, path: path.clone(), id: (found.dev(), found.ino()), len };
        sink.check().map_err(|error| AuditError::io(path, "lock", error))?;
        if created || len == 0 {
            sync_parent(path)?;
        }
        let mut log = Self::with_sink(path, head, Box::new(sink), clock);
        if let Some(torn) = torn {
            if !terminated {
                log.buffer.push(b'\n');
            }
            log.append(NO_RUN, Event::Torn(torn))?;
            log.sync()?;
        }
        Ok(log)
    }

    /// Checks whether [`open`](Self::open) is likely to succeed, without creating or locking anything, before work that takes long. A lock
    /// that another run holds is not an error here, because that run may end before the log is opened.
    pub fn probe(path: &Path) -> Result<(), AuditError> {
        match fs::symlink_metadata(path) {
            Ok(found) => {
                check_private(path, &found)?;
                let opened = open_options().open(path).and_then(|file| file.metadata());
                check_private(path, &opened.map_err(|error| AuditError::io(path, "open", error))?)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let here = Path::new(".");
                let named = path.ancestors().skip(1).map(|directory| if directory.as_os_str().is_empty() { here } else { directory });
                let directory = named.into_iter().find(|directory| directory.exists()).unwrap_or(here);
                let may = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
                let access = |flags| rustix::fs::accessat(rustix::fs::CWD, directory, may, flags);
                // In old containers the system call with this flag fails with EPERM.
                let asked =
                    access(AtFlags::EACCESS).or_else(|error| if error == Errno::PERM { access(AtFlags::empty()) } else { Err(error) });
                asked.map_err(|error| AuditError::io(path, "create", error.into()))
            }
            Err(error) => Err(AuditError::io(path, "open", error)),
        }
    }

    /// A log that continues `head` and writes to `sink`. `path` is for messages only.
    pub fn with_sink(path: &Path, head: Head, sink: Box<dyn Sink>, clock: impl Fn() -> String + Send + 'static) -> Self {
        Self { path: path.to_owned(), sink, clock: Box::new(clock), head, buffer: Vec::new(), unsynced: false, failure: None }
    }

    /// Adds a record of this run. It is in the file after [`flush`](Self::flush), and on disk after [`sync`](Self::sync).
    pub fn append(&mut self, run: &str, event: Event) -> Result<(), AuditError> {
        self.check_usable()?;
        let record = Record {
            schema: SCHEMA.to_owned(),
            schema_version: SCHEMA_VERSION,
            seq: self.head.seq.saturating_add(1),
            previous: self.head.hash.clone(),
            at: (self.clock)(),
            run: run.to_owned(),
            event,
        };
        let line = serde_json::to_string(&record).map_err(|error| AuditError::io(&self.path, "add to", error.into()))?;
        let mut line = with_digest(json_escaped(&line).into_owned()).into_bytes();
        if line.len() > MAX_LINE {
            return Err(AuditError::TooLong { path: self.path.clone(), bytes: line.len() });
        }
        self.head = Head { seq: record.seq, hash: digest(&line) };
        self.buffer.append(&mut line);
        self.buffer.push(b'\n');
        Ok(())
    }

    /// Writes all records to the file, where they survive this process, without waiting for the disk. After an error the log accepts
    /// nothing more.
    pub fn flush(&mut self) -> Result<(), AuditError> {
        self.check_usable()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = self.sink.write_all(&self.buffer);
        self.buffer.clear();
        self.unsynced = true;
        self.remember_failure("write to", result)
    }

    /// Returns when all records are on disk. After an error the log accepts nothing more.
    pub fn sync(&mut self) -> Result<(), AuditError> {
        self.flush()?;
        if !self.unsynced {
            return Ok(());
        }
        let result = self.sink.sync();
        self.unsynced = false;
        self.remember_failure("sync", result)
    }

    /// Remembers a failure, because nothing may be written after it.
    fn remember_failure(&mut self, action: &'static str, result: io::Result<()>) -> Result<(), AuditError> {
        result.map_err(|error| {
            self.failure = Some(error.to_string());
            AuditError::io(&self.path, action, error)
        })
    }

    fn check_usable(&self) -> Result<(), AuditError> {
        self.failure.clone().map_or(Ok(()), |cause| Err(AuditError::Poisoned { path: self.path.clone(), cause }))
    }
}

/// The real file.
struct FileSink {
    file: File,
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
    /// Its length, if no other program writes to it.
    len: u64,
}

impl FileSink {
    /// Checks that the path still leads to this file and that its length is as this program left it. Nobody would find the records in a
    /// file that was renamed or deleted.
    fn check(&self) -> io::Result<()> {
        let found = match fs::symlink_metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(io::Error::new(ErrorKind::NotFound, "it was deleted or renamed while in use"));
            }
            Err(error) => return Err(error),
        };
        if (found.dev(), found.ino()) != self.id {
            return Err(io::Error::other("it was replaced by another file while in use (a log rotation?)"));
        }
        if found.len() != self.len {
            let (is, was) = (found.len(), self.len);
            return Err(io::Error::other(format!("another program wrote to it: it has {is} bytes, but {was} were written")));
        }
        Ok(())
    }
}

impl Sink for FileSink {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.check()
    }
}

fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // A symbolic link is refused, and a file that was replaced by a pipe does not block.
    let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
    options.read(true).append(true).mode(0o600).custom_flags(flags);
    options
}

/// Opens or creates the file, and returns whether it was created.
fn open_file(path: &Path) -> Result<(File, bool), AuditError> {
    let io_error = |action, error| AuditError::io(path, action, error);
    let options = open_options();
    // The file may appear or vanish between these two calls, but not three times in a row.
    for last in [false, false, true] {
        match fs::symlink_metadata(path) {
            Ok(found) => {
                check_regular(path, &found)?;
                match options.open(path) {
                    Err(error) if error.kind() == ErrorKind::NotFound && !last => {}
                    result => return Ok((result.map_err(|error| io_error("open", error))?, false)),
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create_parents(path)?;
                match options.clone().create_new(true).open(path) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists && !last => {}
                    result => return Ok((result.map_err(|error| io_error("create", error))?, true)),
                }
            }
            Err(error) => return Err(io_error("open", error)),
        }
    }
    Err(io_error("open", io::Error::other("another program keeps creating and deleting it")))
}

/// Refuses everything but a regular file.
fn check_regular(path: &Path, found: &Metadata) -> Result<(), AuditError> {
    let what = if found.is_symlink() {
        "is a symbolic link: name the file that it points to"
    } else if !found.is_file() {
        "is not a regular file: name another with --audit-log"
    } else {
        return Ok(());
    };
    Err(AuditError::NotPrivate { path: path.to_owned(), what: what.to_owned() })
}

/// Refuses a file that another user can write to, because `undo` trusts its content.
fn check_private(path: &Path, found: &Metadata) -> Result<(), AuditError> {
    check_regular(path, found)?;
    let user = rustix::process::geteuid().as_raw();
    let what = if found.mode() & 0o022 != 0 {
        let mode = found.mode() & 0o7777;
        format!("may be written by group or others (mode {mode:04o}): see who did, then chmod go-w it, or name another with --audit-log")
    } else if found.uid() != user && found.uid() != 0 {
        let owner = found.uid();
        format!("belongs to user id {owner}, who could change it, and this is user id {user}: name another with --audit-log")
    } else {
        return Ok(());
    };
    Err(AuditError::NotPrivate { path: path.to_owned(), what })
}

/// Takes the lock, or names the process that holds it.
fn lock(path: &Path, file: &File, found: &Metadata) -> Result<(), AuditError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
            let pid = fs::read_to_string("/proc/locks").ok().and_then(|locks| holder::of(&locks, major, minor, found.ino()));
            Err(AuditError::Locked { path: path.to_owned(), pid })
        }
        Err(TryLockError::Error(error)) => Err(AuditError::io(path, "lock", error)),
    }
}

/// Creates the missing directories, accessible for their owner only, and syncs them.
fn create_parents(path: &Path) -> Result<(), AuditError> {
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|directory| !directory.exists()).collect();
    let Some(directory) = missing.first() else { return Ok(()) };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| AuditError::io(directory, "create the directory of the", error))?;
    missing.iter().rev().try_for_each(|directory| sync_parent(directory))
}

/// Syncs the directory of a new file, so that its name survives a crash.
fn sync_parent(path: &Path) -> Result<(), AuditError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    match File::open(parent).and_then(|directory| directory.sync_all()) {
        // Some file systems cannot sync a directory.
        Err(error) if error.kind() != ErrorKind::InvalidInput => Err(AuditError::io(parent, "sync the directory of the", error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
