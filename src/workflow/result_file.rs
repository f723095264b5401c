//! `check --out FILE`: results in FILE.partial as they arrive, and at the end the whole document in FILE.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use super::{Error, Observer, Result, WorkEvent};
use crate::domain::text::count;
use crate::domain::{CheckResult, CheckVerdict};
use crate::verify::partial::{Head, PartialWriter, Sign};
use crate::verify::{Answer, CheckDocument, Target};

/// How often results are flushed to disk: a power failure costs no more than these.
const SYNC_AFTER: Duration = Duration::from_secs(5);
const SYNC_RESULTS: usize = 100;

/// The file of a running check.
pub struct ResultFile<'a> {
    path: PathBuf,
    partial: PathBuf,
    /// `None` once it could not be written.
    writer: Option<PartialWriter<'a, File>>,
    unsynced: usize,
    synced: Instant,
    /// How many backups with an earlier result could not be checked now: their earlier results stay in FILE.partial.
    unseen: usize,
}

impl<'a> ResultFile<'a> {
    /// Creates FILE.partial with the results that an earlier check has for the same rows. `resumed` is the file of that check, which may
    /// be FILE.partial itself, and how many results it has for backups that are not selected now.
    pub fn begin<'t>(
        path: PathBuf,
        resumed: Option<(&Path, usize)>,
        head: &Head,
        sign: Option<Sign<'a>>,
        earlier: impl Iterator<Item = (&'t CheckResult, &'t Target)>,
    ) -> Result<Self> {
        let shown = path.display();
        if path == Path::new("-") {
            return Err(Error::Unusable("- is not standard output here: name a file, or omit --out and use --format json".to_owned()));
        }
        if path.exists() {
            return Err(Error::Unusable(format!("{shown} exists already and is not overwritten: use another name or remove it")));
        }
        let partial = partial(&path);
        let cannot = |error: io::Error| Error::Unusable(format!("cannot write {}: {error}", partial.display()));
        let same = resumed
            .and_then(|(resumed, _)| fs::canonicalize(resumed).ok())
            .is_some_and(|resumed| fs::canonicalize(&partial).is_ok_and(|partial| partial == resumed));
        if let Some((_, others @ 1..)) = resumed.filter(|_| same) {
            let problem = format!("{} would lose results: {others} of its backups are not selected by this check", partial.display());
            return Err(Error::Unfit(problem, "use another name for --out, or select the same backups as in that check".to_owned()));
        }
        // Locked until the new file replaces it.
        let _before = if same { Some(locked(File::open(&partial).map_err(cannot)?, &partial)?) } else { None };
        let file = NamedTempFile::new_in(folder(&path)).map_err(cannot)?;
        let mut writer = PartialWriter::begin(locked(file.reopen().map_err(cannot)?, &partial)?, head, sign).map_err(cannot)?;
        for (result, target) in earlier {
            writer.add(result, target).map_err(cannot)?;
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
        Ok(Self { path, partial, writer: Some(writer), unsynced: 0, synced: Instant::now(), unseen: 0 })
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
        let problem = format!("cannot write {}: {error}; results from now on are kept in memory only", self.partial.display());
        observer.event(WorkEvent::Warning(problem));
    }

    /// Ends a check that was stopped: FILE.partial stays.
    pub fn stop(mut self, observer: &dyn Observer) -> PathBuf {
        self.write(observer, |writer| writer.out().sync_all());
        self.partial
    }

    /// Ends a complete check: FILE replaces FILE.partial, unless that has results that FILE has not.
    pub fn finish(self, document: &CheckDocument, observer: &dyn Observer) -> Result<()> {
        let written = NamedTempFile::new_in(folder(&self.path)).and_then(|mut file| {
            crate::report::json::write(&mut file, document, false)?;
            file.as_file().sync_all()?;
            file.persist_noclobber(&self.path).map_err(|error| error.error)?;
            File::open(folder(&self.path))?.sync_all()?;
            if self.unseen == 0 { fs::remove_file(&self.partial) } else { Ok(()) }
        });
        if self.unseen > 0 {
            observer.event(WorkEvent::Warning(format!(
                "{} keeps earlier results of {} that could not be checked now: --resume accepts it",
                self.partial.display(),
                count(self.unseen, "backup")
            )));
        }
        written.map_err(|error| Error::Write(self.path.display().to_string(), error))
    }
}

/// The name of the file while the check is running.
fn partial(path: &Path) -> PathBuf {
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
        Err(fs::TryLockError::WouldBlock) => Err(Error::Unusable(format!("{} is being written by a running check", path.display()))),
        _ => Ok(file),
    }
}
