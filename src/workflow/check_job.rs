//! The command `check`: continues an earlier check, writes results to a file, makes a signed document.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::check::in_order;
use super::evidence::read_check_document;
use super::result_file::ResultFile;
use super::targets::TargetList;
use super::{Check, Checked, Error, Observer, Result, SigningKey, StorageSettings};
use crate::domain::{CheckResult, CheckVerdict, DatabaseInfo, Image};
use crate::verify::check_document::{CheckBody, Summary};
use crate::verify::partial::{Head, Sign};
use crate::verify::{Answer, CheckDocument, Request, Target, Task};

/// An earlier check to continue.
pub struct Resume {
    path: PathBuf,
    document: CheckDocument,
    /// Older results are checked again: seconds.
    max_age: i64,
}

impl Resume {
    /// Reads its document, which must be signed with `key` if there is one; `key` comes with its path.
    pub fn read(path: &Path, max_age: i64, key: Option<(&SigningKey, &Path)>) -> Result<Self> {
        let document = read_check_document(path)?;
        if let Some((key, key_path)) = key {
            key.public(key_path).verify("the evidence of --resume", &document.sha256, document.signature.as_ref())?;
        }
        Ok(Self { path: path.to_owned(), document, max_age })
    }
}

/// How backups are checked for a document.
pub struct CheckJob<'a> {
    pub request: Request,
    pub resume: Option<Resume>,
    pub out: Option<PathBuf>,
    pub key: Option<&'a SigningKey>,
    /// After this time nothing more is read.
    pub deadline: Option<Instant>,
}

pub struct CheckReport<'a> {
    pub document: CheckDocument,
    /// How many backups were to be checked.
    pub backups: usize,
    /// Of how many of them the earlier check has a result.
    pub known: usize,
    pub interrupted: Option<&'static str>,
    /// Why not all backups could be read from the database.
    pub failure: Option<Error>,
    file: Option<ResultFile<'a>>,
}

impl<'a> CheckReport<'a> {
    /// Writes the document to its file. If the check was stopped, the partial file stays: returns its path.
    pub fn close(&mut self, observer: &dyn Observer) -> Result<Option<PathBuf>> {
        match self.file.take() {
            Some(file) if self.interrupted.is_some() => Ok(Some(file.stop(observer))),
            Some(file) => file.finish(&self.document, observer).map(|()| None),
            None => Ok(None),
        }
    }
}

impl<'a> CheckJob<'a> {
    /// Checks the backups of a list.
    pub fn run(self, list: TargetList, storage: StorageSettings, observer: &dyn Observer) -> Result<CheckReport<'a>> {
        let Self { request, resume, out, key, deadline } = self;
        let TargetList { targets, database, taken_at } = list;
        let (level, settle_seconds, backups) = (request.level, request.settle.as_secs(), targets.len());
        let resumed = resume.as_ref().map(|resume| (resume.path.clone(), resume.document.results.len()));
        let (tasks, known) = match resume {
            Some(resume) => carry_over(resume, targets, &database, &request)?,
            None => (in_order(targets), 0),
        };
        let mut file = match out {
            Some(path) => {
                let head = Head::new(database.clone(), taken_at.clone(), level, settle_seconds);
                let same_rows = tasks.iter().filter_map(|task| Some((task.earlier.as_ref()?, &task.target)));
                let resumed = resumed.as_ref().map(|(path, all)| (path.as_path(), all - known));
                let sign = key.map(|key| Box::new(|sha256: &str| key.sign(sha256)) as Sign<'_>);
                Some(ResultFile::begin(path, resumed, &head, sign, same_rows)?)
            }
            None => None,
        };
        let mut collected = Collected::default();
        let mut sink = |answer: Answer| {
            if let Some(file) = &mut file {
                file.add(&answer, observer);
            }
            collected.add(answer);
        };
        let checked = Check { storage, request, deadline }.run(tasks.into(), &mut sink, observer)?;
        let Checked { left, carried, interrupted, failure } = checked;
        let (results, ancestors) = collected.into_parts();
        let mut document = CheckDocument::new(CheckBody {
            ancestors,
            database,
            taken_at,
            level,
            settle_seconds,
            interrupted: interrupted.map(str::to_owned),
            summary: Summary { carried, ..Summary::of(&results, left) },
            results,
        });
        document.signature = key.map(|key| key.sign(&document.sha256));
        Ok(CheckReport { document, backups, known, interrupted, failure, file })
    }
}

/// The results of a check for a document.
#[derive(Default)]
struct Collected {
    results: Vec<(usize, CheckResult)>,
    /// The rows of all ancestors of the backups that have a result.
    ancestors: BTreeMap<String, Image>,
}

impl Collected {
    fn add(&mut self, Answer { task, result, .. }: Answer) {
        for ancestor in &task.target.ancestors {
            if !self.ancestors.contains_key(&ancestor.id) {
                self.ancestors.insert(ancestor.id.clone(), ancestor.image(task.target.columns));
            }
        }
        self.results.push((task.place, result));
    }

    /// The results in the order of the tasks, and the rows of their ancestors.
    fn into_parts(mut self) -> (Vec<CheckResult>, Vec<Image>) {
        self.results.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.id.cmp(&other.id)));
        (self.results.into_iter().map(|(_, result)| result).collect(), self.ancestors.into_values().collect())
    }
}

/// The tasks of these targets with the results of an earlier check, and for how many of the targets it has a result.
fn carry_over(resume: Resume, targets: Vec<Target>, database: &DatabaseInfo, request: &Request) -> Result<(Vec<Task>, usize)> {
    let earlier = resume.document;
    if earlier.database.identity != database.identity {
        let problem = format!("--resume is about the database {}, but this is {}", earlier.database, database);
        return Err(Error::Unusable(problem));
    }
    let mut tasks = in_order(targets);
    let places: HashMap<String, usize> = tasks.iter().enumerate().map(|(place, task)| (task.target.backup.id.clone(), place)).collect();
    let mut known = 0;
    for check in earlier.into_results(request.settle.as_secs(), |check| places.contains_key(&check.id)) {
        let Some(task) = places.get(&check.id).and_then(|place| tasks.get_mut(*place)) else { continue };
        known += 1;
        let Target { backup, ancestors, columns } = &task.target;
        if check.outdated(backup, ancestors, *columns).is_none() {
            task.may_stand = may_stand(&check, request, resume.max_age);
            task.earlier = Some(check);
        }
    }
    Ok((tasks, known))
}

/// Whether a result may be carried over if its rows are unchanged. The storage decides whether its objects are still the same.
fn may_stand(check: &CheckResult, request: &Request, max_age: i64) -> bool {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).datetime();
    // Damage is checked again: it may have been repaired, or the earlier check may have read the wrong place. A lower level may not see
    // it, so it stands while the listing is unchanged.
    let is_deeper_damage = check.verdict.is_damage() && check.level > request.level && !check.busy;
    let may_stand = is_deeper_damage || (check.verdict == CheckVerdict::Intact && check.settles(request.level));
    may_stand && check.expired(now, max_age).is_none()
}
