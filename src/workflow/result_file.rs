//! `check --out FILE`: results in FILE.partial as they arrive, and at the end the whole document in FILE, or the stream under that name.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::NamedTempFile;

use super::{Error, Observer, Result, SigningKey, WorkEvent};
use crate::domain::CheckVerdict;
use crate::domain::record_stream::{StreamError, StreamReader};
use crate::domain::text::count;
use crate::verify::partial::{CheckResults, End, Head, PartialWriter};
use crate::verify::{Answer, CheckDocument, StoredResults};

/// How often results are flushed to disk: a power failure costs no more than these.
const SYNC_AFTER: Duration = Duration::from_secs(5);
const SYNC_RESULTS: usize = 100;

/// The file of a running check.
pub struct ResultFile<'a> {
    path: PathBuf,
    partial: PathBuf,
    /// `None` once it could not be written.
    writer: Option<PartialWriter<'a, File>>,
    key: Option<&'a SigningKey>,
    /// How many of the first records in FILE.partial are those of the check that is resumed.
    earlier: usize,
    unsynced: usize,
    synced: Instant,
    /// FILE.partial is the file of the check that is resumed.
    is_resumed: bool,
    /// How many backups with an earlier result could not be checked now: their earlier results stay in FILE.partial.
    unseen: usize,
}

impl<'a> ResultFile<'a> {
    /// Creates FILE.partial with the results of an earlier check, whose file may be FILE.partial itself.
    pub fn begin(path: PathBuf, earlier: Option<(&Path, &StoredResults)>, head: &Head, key: Option<&'a SigningKey>) -> Result<Self> {
        let shown = path.display();
        if path == Path::new("-") {
            return Err(Error::Unusable("- is not standard output here: name a file, or omit --out and use --format json".to_owned()));
        }
        if path.exists() {
            return Err(Error::Unusable(format!("{shown} exists already and is not overwritten: use another name or remove it")));
        }
        let partial = partial(&path);
        let cannot = |error: io::Error| Error::Unusable(format!("cannot write {}: {error}", partial.display()));
        let same = earlier
            .and_then(|(earlier, _)| fs::canonicalize(earlier).ok())
            .is_some_and(|earlier| fs::canonicalize(&partial).is_ok_and(|partial| partial == earlier));
        // Locked until the new file replaces it.
        let _before = if same { Some(locked(File::open(&partial).map_err(cannot)?, &partial)?) } else { None };
        let file = NamedTempFile::new_in(folder(&path)).map_err(cannot)?;
        let head = Head { earlier: earlier.map_or(0, |(_, earlier)| earlier.records()), ..head.clone() };
        let sign = key.map(SigningKey::signer);
        let mut writer = PartialWriter::begin(locked(file.reopen().map_err(cannot)?, &partial)?, &head, sign).map_err(cannot)?;
        if let Some((from, earlier)) = earlier {
            earlier.copy(&mut writer, head.settle_seconds).map_err(|error| match error {
                StreamError::Io(error) => cannot(error),
                error => Error::Unusable(format!("{} {error}", from.display())),
            })?;
        }
        writer.out().sync_all().map_err(cannot)?;
        if same {
            file.persist(&partial).map_err(|error| cannot(error.error))?;
        } else {
            file.persist_noclobber(&partial).map_err(|error| match error.error.kind() {
                ErrorKind::AlreadyExists => {
                    let partial = partial.display();
                    let problem = format!("{partial} has the results of a check that is running or was stopped");
                    let hint = format!("if no check is running, continue with --resume {partial}, or remove the file");
                    Error::Unfit(problem, hint)
                }
                _ => cannot(error.error),
            })?;
        }
        // The directory entry must be on the disk, too.
        File::open(folder(&path)).and_then(|folder| folder.sync_all()).map_err(cannot)?;
        let (writer, earlier, synced) = (Some(writer), head.earlier, Instant::now());
        Ok(Self { path, partial, writer, key, earlier, unsynced: 0, synced, is_resumed: same, unseen: 0 })
    }

    /// Adds a result, and makes sure from time to time that all are on the disk.
    pub fn add(&mut self, answer: &Answer, observer: &dyn Observer) {
        let (result, task) = (&answer.result, &answer.task);
        let is_known = task.earlier.as_ref().is_some_and(|earlier| earlier.verdict != CheckVerdict::Unverifiable);
        // The storage may be reachable again later, and the earlier result took hours to read.
        if result.verdict == CheckVerdict::Unverifiable && result.reached().is_none() && is_known {
            self.unseen += 1;
            return;
        }
        self.write(observer, |writer| writer.add(result, &task.target));
        self.unsynced += 1;
        if self.unsynced >= SYNC_RESULTS || self.synced.elapsed() >= SYNC_AFTER {
            self.unsynced = 0;
            self.write(observer, |writer| writer.out().sync_data());
            self.synced = Instant::now();
        }
    }

    /// A check goes on without its file.
    fn write(&mut self, observer: &dyn Observer, act: impl FnOnce(&mut PartialWriter<'a, File>) -> io::Result<()>) {
        let Some(Err(error)) = self.writer.as_mut().map(act) else { return };
        self.writer = None;
        let problem = format!("cannot write {}: {error}; results from now on are not written to it", self.partial.display());
        observer.event(WorkEvent::Warning(problem));
    }

    /// Ends a check that was stopped: FILE.partial stays.
    pub fn stop(mut self, observer: &dyn Observer) -> PathBuf {
        self.write(observer, |writer| writer.out().sync_all());
        self.partial
    }

    /// Ends a complete check: FILE replaces FILE.partial, unless that has results that FILE has not. `others` is how many results of the
    /// earlier check are of backups that this check did not select.
    pub fn finish(self, document: &CheckDocument, others: usize, observer: &dyn Observer) -> Result<()> {
        self.publish(others, observer, |file| crate::report::json::write(file, document, false))
    }

    fn publish(self, others: usize, observer: &dyn Observer, write: impl FnOnce(&mut NamedTempFile) -> io::Result<()>) -> Result<()> {
        let others = if self.is_resumed { others } else { 0 };
        let written = NamedTempFile::new_in(folder(&self.path)).and_then(|mut file| {
            write(&mut file)?;
            file.as_file().sync_all()?;
            file.persist_noclobber(&self.path).map_err(|error| error.error)?;
            File::open(folder(&self.path))?.sync_all()?;
            if self.unseen + others == 0 { fs::remove_file(&self.partial) } else { Ok(()) }
        });
        let kept = [(self.unseen, "could not be checked now"), (others, "this check did not select")];
        for (number, why) in kept.into_iter().filter(|(number, _)| *number > 0) {
            observer.event(WorkEvent::Warning(format!(
                "{} keeps earlier results of {} that {why}: --resume accepts it",
                self.partial.display(),
                count(number, "backup")
            )));
        }
        written.map_err(|error| Error::Write(self.path.display().to_string(), error))
    }

    /// Ends a complete check whose stream becomes FILE. If earlier results stand for backups that could not be checked now, it is not
    /// complete: FILE.partial stays, and its path is returned.
    pub fn finish_stream(mut self, end: &End, others: usize, observer: &dyn Observer) -> Result<Option<PathBuf>> {
        if self.unseen > 0 {
            let (partial, backups) = (self.partial.display(), count(self.unseen, "backup"));
            let text = format!("{partial} is not complete: it keeps earlier results of {backups} that could not be checked now");
            observer.event(WorkEvent::Warning(text));
            return Ok(Some(self.stop(observer)));
        }
        let lost = || io::Error::other("not all results could be written");
        let ended = self.writer.take().ok_or_else(lost).and_then(|mut writer| {
            let file = writer.out().try_clone()?;
            writer.end(end)?;
            file.sync_all()?;
            Ok(file)
        });
        let shown = self.path.display().to_string();
        let unwritten = |error| Error::Write(shown, error);
        if self.earlier > 0 {
            let (partial, earlier, key) = (ended.map_err(unwritten)?, self.earlier, self.key);
            return self.publish(others, observer, |file| write_own(partial, earlier, key, file)).map(|()| None);
        }
        let renamed = ended.and_then(|_| rename(&self.partial, &self.path)).and_then(|()| File::open(folder(&self.path))?.sync_all());
        renamed.map_err(unwritten).map(|()| None)
    }
}

/// Writes the stream in a partial file without its first records, those of the check that was resumed.
fn write_own(mut partial: File, earlier: usize, key: Option<&SigningKey>, out: &mut impl Write) -> io::Result<()> {
    partial.rewind()?;
    let begun = StreamReader::<CheckResults, _>::begin(BufReader::new(partial));
    let (head, mut records) = begun.map_err(io::Error::other)?;
    let head = Head { earlier: 0, ..head };
    let mut own = PartialWriter::begin(BufWriter::new(out), &head, key.map(SigningKey::signer))?;
    while let Some(record) = records.next_record().map_err(io::Error::other)? {
        if records.records() > earlier as u64 {
            own.add_record(&record)?;
        }
    }
    records.end().map_or(Ok(()), |end| own.end(end))
}

/// Renames a file to a name that does not exist yet.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can do that at once.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.exists() => fs::rename(from, to),
        other => Ok(other?),
    }
}

/// The name of the file while the check is running.
pub fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".partial");
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Locks a file that a running check writes to. On a file system without locks, nothing keeps two checks apart.
fn locked(file: File, path: &Path) -> Result<File> {
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(Error::Running(format!("{} is being written by a running check", path.display()))),
        _ => Ok(file),
    }
}
