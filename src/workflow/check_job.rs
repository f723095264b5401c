//! The command `check`: continues an earlier check, writes results as they arrive, or makes a signed document of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::check::STOPPED_BY_ERROR;
use super::evidence::read_results;
use super::result_file::ResultFile;
use super::targets::TargetList;
use super::{Check, Checked, Error, Observer, Portion, Result, SigningKey, Stop, StorageSettings, Tasks, WorkEvent};
use crate::domain::{CheckResult, CheckVerdict, DatabaseInfo, Image, Level, restorable};
use crate::scan::CompactIds;
use crate::spool::Spool;
use crate::verify::check_document::{CheckBody, Summary};
use crate::verify::partial::{End, Head, PartialWriter, Sign};
use crate::verify::{Answer, CheckDocument, Request, StoredResults, Target};

/// An earlier check to continue.
pub struct Resume {
    path: PathBuf,
    results: StoredResults,
    /// Older results are checked again: seconds.
    max_age: i64,
}

impl Resume {
    /// Reads its document or stream, which must be signed with `key` if there is one; `key` comes with its path.
    pub fn read(path: &Path, max_age: i64, key: Option<(&SigningKey, &Path)>) -> Result<Self> {
        let mut results = read_results(path, &mut |_| true)?;
        if let Some((key, key_path)) = key {
            key.public(key_path).verify("the evidence of --resume", &results.sha256, results.signature.as_ref())?;
            // A file that was cut off also has a right signature. It may lack the result that replaced an earlier one.
            results.keep_own();
        }
        Ok(Self { path: path.to_owned(), results, max_age })
    }

    /// What the earlier check is about.
    pub fn head(&self) -> &Head {
        &self.results.head
    }

    /// The number of its results with each verdict; `None` if it was not finished.
    pub fn summary(&self) -> Option<&Summary> {
        self.results.end.as_ref().filter(|end| end.interrupted.is_none() && end.summary.left == 0).map(|end| &end.summary)
    }

    fn require_database(&self, database: &DatabaseInfo) -> Result<()> {
        let theirs = &self.results.head.database;
        if theirs.identity == database.identity {
            return Ok(());
        }
        Err(Error::Unusable(format!("--resume is about the database {theirs}, but this is {database}")))
    }

    /// Adds the results of the earlier check to the tasks, and counts the tasks that have one.
    fn extend(self, tasks: Tasks, request: &Request, known: Arc<AtomicUsize>) -> Tasks {
        let request = request.clone();
        let portions = tasks.portions.map(move |portion| {
            let Portion { mut tasks, gone } = portion?;
            for task in &mut tasks {
                let Target { backup, ancestors, columns } = &task.target;
                // A result that cannot be read again costs a check.
                let Ok(Some(check)) = self.results.get(&backup.id, request.settle.as_secs()) else { continue };
                known.fetch_add(1, Ordering::Relaxed);
                if check.outdated(backup, ancestors, *columns).is_none() {
                    task.may_stand = check.part == task.part && may_stand(&check, &request, self.max_age);
                    task.earlier = Some(check);
                }
            }
            Ok(Portion { tasks, gone })
        });
        Tasks { portions: Box::new(portions), ..tasks }
    }
}

/// How backups are checked for a document or a stream.
pub struct CheckJob<'a> {
    pub request: Request,
    pub resume: Option<Resume>,
    pub out: Option<PathBuf>,
    /// Where results are written as they arrive. Without it they are collected for a document.
    pub stream: Option<Box<dyn Write + 'a>>,
    /// Whether the document is only shown as a table: then it has no rows and no digest, unless it is also written to `out`.
    pub is_shown: bool,
    /// Whether nobody reads the stream any more. Without a file, the check then stops.
    pub is_unread: &'a dyn Fn() -> bool,
    pub key: Option<&'a SigningKey>,
    /// After this time nothing more is read.
    pub deadline: Option<Instant>,
}

pub struct CheckReport<'a> {
    /// The results, unless they were written to a stream.
    pub document: Option<CheckDocument>,
    pub level: Level,
    /// Where the database was reached.
    pub location: Option<String>,
    pub summary: Summary,
    /// How many backups were to be checked.
    pub backups: usize,
    /// Of how many of them the earlier check has a result.
    pub known: usize,
    pub interrupted: Option<&'static str>,
    /// Why not all backups could be read from the database, or not all results written.
    pub failure: Option<Error>,
    file: Option<ResultFile<'a>>,
    /// `file` becomes a stream.
    is_stream: bool,
    /// How many results of the earlier check are of other backups.
    others: usize,
}

impl<'a> CheckReport<'a> {
    /// Writes the document or the end of the stream to its file. If the check was stopped, the partial file stays: returns its path.
    pub fn close(&mut self, observer: &dyn Observer) -> Result<Option<PathBuf>> {
        match (self.file.take(), &self.document) {
            (None, _) => Ok(None),
            (Some(file), _) if self.interrupted.is_some() => Ok(Some(file.stop(observer))),
            (Some(file), Some(document)) if !self.is_stream => file.finish(document, self.others, observer).map(|()| None),
            (Some(file), _) => file.finish_stream(&End { interrupted: None, summary: self.summary }, self.others, observer),
        }
    }
}

impl<'a> CheckJob<'a> {
    /// Checks the backups of a list.
    pub fn run(self, list: TargetList, storage: StorageSettings, observer: &dyn Observer) -> Result<CheckReport<'a>> {
        let Self { request, resume, out, stream, is_shown, is_unread, key, deadline } = self;
        let (database, taken_at, part, site) = (list.database.clone(), list.taken_at.clone(), list.part(), list.site.clone());
        let (mut tasks, level, settle_seconds) = (list.into_tasks(), request.level, request.settle.as_secs());
        let (backups, known) = (tasks.total, Arc::<AtomicUsize>::default());
        if let Some(resume) = &resume {
            resume.require_database(&database)?;
        }
        let head = Head { part, ..Head::new(database.clone(), taken_at.clone(), level, settle_seconds) };
        let is_stream = stream.is_some() || out.as_ref().is_some_and(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        let earlier = resume.as_ref().map(|resume| (resume.path.as_path(), &resume.results));
        let is_written = !is_shown || (out.is_some() && !is_stream);
        let mut file = out.map(|path| ResultFile::begin(path, earlier, &head, key)).transpose()?;
        let all_earlier = resume.as_ref().map_or(0, |resume| resume.results.len());
        if let Some(resume) = resume {
            tasks = resume.extend(tasks, &request, Arc::clone(&known));
        }
        let mut output = match stream {
            Some(out) => Output::Stream(StreamOutput::begin(out, &head, key.map(SigningKey::signer))),
            None => Output::Document(Collected { has_rows: is_written, ..Collected::default() }),
        };
        let (mut summary, broken) = (Summary::default(), AtomicBool::new(false));
        let mut sink = |mut answer: Answer| {
            let (restorable, reasons) = restorable(&answer.task.target.backup, &answer.result, site.as_ref());
            (answer.result.restorable, answer.result.restorable_reasons) = (Some(restorable), reasons);
            if let Some(file) = &mut file {
                file.add(&answer, observer);
            }
            summary.add(&answer.result);
            match &mut output {
                Output::Document(collected) => broken.store(!collected.add(answer), Ordering::Relaxed),
                Output::Stream(stream) => broken.store(!stream.add(&answer) || (file.is_none() && is_unread()), Ordering::Relaxed),
            }
        };
        let unless_broken = UnlessBroken { observer, broken: &broken };
        let Checked { left, carried, interrupted, failure } = Check { storage, request, deadline }.run(tasks, &mut sink, &unless_broken)?;
        (summary.left, summary.carried) = (left, carried);
        let (document, unwritten) = match output {
            Output::Document(collected) => {
                let (results, ancestors) = collected.into_parts()?;
                let (interrupted, location) = (interrupted.map(str::to_owned), database);
                let body = CheckBody { database: location, taken_at, level, settle_seconds, interrupted, results, ancestors, summary };
                let mut document = CheckDocument::unsealed(body);
                if is_written {
                    document.try_seal()?;
                    document.signature = key.map(|key| key.sign(&document.sha256));
                }
                (Some(document), None)
            }
            Output::Stream(stream) => (None, stream.end(&End { interrupted: interrupted.map(str::to_owned), summary }).err()),
        };
        let failure = failure.or(unwritten.map(|error| Error::Write("standard output".to_owned(), error)));
        let (known, location) = (known.load(Ordering::Relaxed), head.database.location);
        let others = all_earlier.saturating_sub(known);
        Ok(CheckReport { document, level, location, summary, backups, known, interrupted, failure, file, is_stream, others })
    }
}

/// Where results go.
enum Output<'a> {
    Document(Collected),
    Stream(StreamOutput<'a>),
}

/// A stream of results, until it cannot be written.
struct StreamOutput<'a>(io::Result<PartialWriter<'a, Box<dyn Write + 'a>>>);

impl<'a> StreamOutput<'a> {
    fn begin(out: Box<dyn Write + 'a>, head: &Head, sign: Option<Sign<'a>>) -> Self {
        Self(PartialWriter::begin(out, head, sign))
    }

    /// Adds a result; whether it could be written.
    fn add(&mut self, answer: &Answer) -> bool {
        if let Ok(writer) = &mut self.0
            && let Err(error) = writer.add(&answer.result, &answer.task.target).and_then(|()| writer.out().flush())
        {
            self.0 = Err(error);
        }
        self.0.is_ok()
    }

    fn end(self, end: &End) -> io::Result<()> {
        self.0?.end(end)
    }
}

/// Stops a check whose results cannot be written, or that nobody reads.
struct UnlessBroken<'o> {
    observer: &'o dyn Observer,
    broken: &'o AtomicBool,
}

impl Observer for UnlessBroken<'_> {
    fn event(&self, event: WorkEvent<'_>) {
        self.observer.event(event);
    }

    fn stop(&self) -> Option<Stop> {
        let broken = || self.broken.load(Ordering::Relaxed).then_some(Stop { signal: STOPPED_BY_ERROR, times: 1 });
        self.observer.stop().or_else(broken)
    }
}

/// The results of a check for a document, in temporary files.
#[derive(Default)]
struct Collected {
    has_rows: bool,
    results: Spool<CheckResult>,
    /// For each result the place of its task, its id, and its own place.
    order: Vec<(u32, [u8; 16], u32)>,
    /// The rows of all ancestors of the backups that have a result, and their places by the ids.
    rows: Spool<Image>,
    ancestors: BTreeMap<u128, usize>,
    failure: Option<io::Error>,
}

impl Collected {
    /// Adds a result; whether it could be kept.
    fn add(&mut self, answer: Answer) -> bool {
        if self.failure.is_none() {
            self.failure = self.try_add(answer).err();
        }
        self.failure.is_none()
    }

    fn try_add(&mut self, Answer { task, mut result, .. }: Answer) -> io::Result<()> {
        if self.has_rows {
            for ancestor in &task.target.ancestors {
                if let Entry::Vacant(place) = self.ancestors.entry(CompactIds::number(&ancestor.id)) {
                    place.insert(self.rows.len());
                    self.rows.push(&ancestor.image(task.target.columns))?;
                }
            }
        } else {
            result.rows.clear();
        }
        let number = |place: usize| u32::try_from(place).map_err(io::Error::other);
        let id = CompactIds::number(&result.id).to_be_bytes();
        self.order.push((number(task.place)?, id, number(self.results.len())?));
        self.results.push(&result)
    }

    /// The results in the order of the tasks, and the rows of their ancestors.
    fn into_parts(mut self) -> io::Result<(Spool<CheckResult>, Spool<Image>)> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        self.order.sort_unstable();
        self.results.rearrange(self.order.into_iter().map(|(.., place)| place as usize));
        self.rows.rearrange(self.ancestors.into_values());
        Ok((self.results, self.rows))
    }
}

/// Whether a result may be carried over if its rows are unchanged. The storage decides whether its objects are still the same.
fn may_stand(check: &CheckResult, request: &Request, max_age: i64) -> bool {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).datetime();
    // Damage is checked again: it may have been repaired, or the earlier check may have read the wrong place. A lower level may not see
    // it, so it stands while the listing is unchanged.
    let is_deeper_damage = check.verdict.is_damage() && check.level > request.level && !check.busy;
    // Other shards read the other parts of a split chain.
    let is_settled = check.settles(request.level) || (check.part.is_some() && check.level == request.level && !check.busy);
    let may_stand = is_deeper_damage || (check.verdict == CheckVerdict::Intact && is_settled);
    may_stand && check.expired(now, max_age).is_none()
}
