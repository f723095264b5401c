//! A shard that is started again: it is finished already, or continues from the results in its file.

use std::path::Path;

use super::result_file::{partial, rename};
use super::{Error, Result, Resume, SigningKey};
use crate::verify::Request;
use crate::verify::check_document::Summary;
use crate::verify::partial::CatalogPart;

/// What the file of a shard says before the shard is checked.
pub enum Earlier {
    /// It was never begun.
    Nothing,
    /// It was stopped, or the storage could not be reached for all of it.
    Unfinished(Box<Resume>),
    /// It is finished, and another check would find the same.
    Finished(Summary),
}

impl Earlier {
    /// Reads FILE, or FILE.partial. A FILE that another check may complete becomes FILE.partial again.
    ///
    /// # Errors
    /// A file of another check.
    pub fn read(path: &Path, part: &CatalogPart, request: &Request, max_age: i64, key: Option<(&SigningKey, &Path)>) -> Result<Self> {
        let is_same = |resume: &Resume| {
            let head = resume.head();
            head.part.as_ref() == Some(part) && head.level == request.level && head.settle_seconds == request.settle.as_secs()
        };
        let other = |path: &Path| {
            let problem = format!("{} has the results of another check than shard {} of this catalog", path.display(), part.shard);
            Err(Error::Unfit(problem, "use another name for --out, or remove the file".to_owned()))
        };
        let unfinished = partial(path);
        if path.exists() {
            let resume = Resume::read(path, max_age, key)?;
            return match resume.summary() {
                _ if !is_same(&resume) => other(path),
                Some(summary) if summary.unreachable == 0 => Ok(Self::Finished(*summary)),
                _ => {
                    rename(path, &unfinished).map_err(|error| Error::Write(unfinished.display().to_string(), error))?;
                    Ok(Self::Unfinished(Box::new(Resume::read(&unfinished, max_age, key)?)))
                }
            };
        }
        if !unfinished.exists() {
            return Ok(Self::Nothing);
        }
        let resume = Resume::read(&unfinished, max_age, key)?;
        if is_same(&resume) { Ok(Self::Unfinished(Box::new(resume))) } else { other(&unfinished) }
    }
}
