//! The command `check`: continues an earlier check, writes results to a file, makes a signed document.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::evidence::read_check_document;
use super::result_file::ResultFile;
use super::targets::TargetList;
use super::{Check, Checked, Error, Observer, Result, SigningKey, StorageSettings};
use crate::domain::{CheckResult, CheckVerdict, Checks, DatabaseInfo, Image};
use crate::verify::check_document::{CheckBody, Summary};
use crate::verify::partial::{Head, Sign};
use crate::verify::{CheckDocument, Request, Target};

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

/// What the earlier check knows of the backups to check, each with its target if its rows are unchanged.
type Carried<'t> = Vec<(CheckResult, Option<&'t Target>)>;

impl<'a> CheckJob<'a> {
    /// Checks the backups of a list.
    pub fn run(self, list: TargetList, storage: StorageSettings, observer: &dyn Observer) -> Result<CheckReport<'a>> {
        let Self { request, resume, out, key, deadline } = self;
        let TargetList { targets, database, taken_at } = list;
        let targets: Arc<[Target]> = targets.into();
        let (level, settle_seconds) = (request.level, request.settle.as_secs());
        let resumed = resume.as_ref().map(|resume| (resume.path.clone(), resume.document.results.len()));
        let max_age = resume.as_ref().map_or(0, |resume| resume.max_age);
        let known = resume.map_or_else(|| Ok(Carried::new()), |resume| carry_over(resume.document, &targets, &database, settle_seconds))?;
        let known_count = known.len();
        let mut file = match out {
            Some(path) => {
                let head = Head::new(database.clone(), taken_at.clone(), level, settle_seconds);
                let same_rows = known.iter().filter_map(|(check, target)| Some((check, (*target)?)));
                let resumed = resumed.as_ref().map(|(path, all)| (path.as_path(), all - known_count));
                let sign = key.map(|key| Box::new(|sha256: &str| key.sign(sha256)) as Sign<'_>);
                Some(ResultFile::begin(path, resumed, &head, sign, same_rows)?)
            }
            None => None,
        };
        let stands = known.into_iter().filter(|(check, target)| target.is_some() && may_stand(check, &request, max_age));
        let earlier: Checks = stands.map(|(check, _)| (check.id.clone(), check)).collect();
        let check = Check { storage, request, targets: Arc::clone(&targets), earlier, deadline };
        let Checked { results, left, carried, interrupted } = check.run(file.as_mut(), observer)?;
        let mut document = CheckDocument::new(CheckBody {
            ancestors: ancestors(&targets, &results),
            database,
            taken_at,
            level,
            settle_seconds,
            interrupted: interrupted.map(str::to_owned),
            summary: Summary { carried, ..Summary::of(&results, left) },
            results,
        });
        document.signature = key.map(|key| key.sign(&document.sha256));
        Ok(CheckReport { document, backups: targets.len(), known: known_count, interrupted, file })
    }
}

/// The results of an earlier check of these backups.
fn carry_over<'t>(earlier: CheckDocument, targets: &'t [Target], database: &DatabaseInfo, settle: u64) -> Result<Carried<'t>> {
    if earlier.database.identity != database.identity {
        let problem = format!("--resume is about the database {}, but this is {}", earlier.database, database);
        return Err(Error::Unusable(problem));
    }
    let by_id: HashMap<&str, &Target> = targets.iter().map(|target| (target.backup.id.as_str(), target)).collect();
    let results = earlier.into_results(settle, |check| by_id.contains_key(check.id.as_str())).filter_map(|check| {
        let target = *by_id.get(check.id.as_str())?;
        let is_same = check.outdated(&target.backup, &target.ancestors, target.columns).is_none();
        Some((check, is_same.then_some(target)))
    });
    Ok(results.collect())
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

/// The rows of all ancestors of the backups that have a result.
fn ancestors(targets: &[Target], results: &[CheckResult]) -> Vec<Image> {
    let checked: BTreeSet<&str> = results.iter().map(|result| result.id.as_str()).collect();
    let mut ancestors: BTreeMap<&str, Image> = BTreeMap::new();
    for target in targets.iter().filter(|target| checked.contains(target.backup.id.as_str())) {
        for ancestor in &target.ancestors {
            ancestors.entry(&ancestor.id).or_insert_with(|| ancestor.image(target.columns));
        }
    }
    ancestors.into_values().collect()
}
