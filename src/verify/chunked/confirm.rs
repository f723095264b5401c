//! Confirms by requests for single objects what a listing alone does not prove.

use super::inspection::Inspection;
use super::survey::{SideFile, Survey};
use crate::domain::{Problem, ProblemCode};
use crate::format::names;
use crate::storage::StorageErrorKind;
use crate::verify::Severity;
use crate::verify::fault::storage_problem;

/// How many objects that are not listed are requested by name, and how many that the listing contradicts.
const REQUESTED: usize = 100;

/// How many data objects are requested by name before all of them count as missing.
const MOST_ABSENT: u64 = 10_000;

impl Survey<'_> {
    /// Requests objects that are not listed by their names. A container of Swift lists its objects some time after they were written.
    /// If there are too many, the others may exist.
    pub fn check_unlisted(&mut self) {
        let Self { store, inventory, inspection: Inspection { faults, times, .. }, .. } = self;
        for (count, object) in inventory.entries.iter().filter(|object| object.stored.is_none()).enumerate() {
            let name = names::data(&inventory.prefix, object.number);
            if count >= REQUESTED {
                let text = format!("the listing does not have it, and only the first {REQUESTED} such objects were requested by name");
                faults.add(Severity::Unverifiable, Problem::of(name, ProblemCode::ObjectUnlisted, text));
                continue;
            }
            match store.stat(&name) {
                Ok(None) => {
                    let text = format!("it holds bytes {} to {} of the volume and does not exist", object.offset, object.end());
                    faults.add(Severity::Incomplete, Problem::of(name, ProblemCode::ObjectMissing, text));
                }
                Ok(Some(found)) => {
                    times.add(found.modified);
                    faults.add(Severity::Unverifiable, unlisted(name));
                }
                // Reported once for all the others.
                Err(error) if error.kind == StorageErrorKind::Unreachable => return faults.add_error(None, &error),
                Err(error) => faults.add_error(Some(&name), &error),
            }
        }
    }

    /// Requests the sha256file, which the listing does not have.
    pub fn stat_sha256file(&mut self) -> SideFile {
        let name = names::sha256file(&self.inventory.prefix);
        match self.store.stat(&name) {
            Ok(None) => SideFile::Missing,
            Ok(Some(found)) => {
                self.inspection.times.add(found.modified);
                // Cinder opens it by its name.
                let text = "it exists, but the listing does not have it (yet)";
                self.inspection.warnings.push(Problem::of(name, ProblemCode::ListingBehind, text));
                SideFile::There(found.size)
            }
            Err(error) => {
                let (severity, problem) = storage_problem(Some(&name), &error);
                self.inspection.faults.add_local(severity, problem);
                SideFile::Unknown
            }
        }
    }

    /// Finds out, with nothing in the listing and no metadata, whether all other objects are missing, too: the sha256file, and the data
    /// objects that the row counts, at least the one that the driver writes first.
    pub fn prove_absent(&mut self) {
        let mut known = true;
        let count = self.backup.object_count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default().clamp(1, MOST_ABSENT);
        let prefix = self.inventory.prefix.clone();
        for name in (1..=count).map(|number| names::data(&prefix, number)).chain([names::sha256file(&prefix)]) {
            match self.store.stat(&name) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    self.inspection.begun = true;
                    self.inspection.times.add(found.modified);
                    self.inspection.faults.add(Severity::Unverifiable, unlisted(name));
                    break;
                }
                Err(error) => {
                    known = false;
                    self.inspection.faults.add_error(Some(&name), &error);
                    break;
                }
            }
        }
        self.inspection.absent = known && !self.inspection.begun;
    }

    /// Requests objects that the listing contradicts by their names. A listing does not say how an object is encrypted, and with some
    /// kinds of encryption its digest is not that of the data; a link in a listing has no size. The answer about the object decides.
    pub fn check_doubtful(&mut self) {
        let Self { store, inventory, inspection: Inspection { faults, .. }, doubtful, .. } = self;
        let mut is_reliable = true;
        for (count, index) in std::mem::take(doubtful).into_iter().enumerate() {
            let Some(object) = inventory.entries.get_mut(index) else { continue };
            let name = names::data(&inventory.prefix, object.number);
            if count >= REQUESTED {
                // Digests in this listing are not those of the data, and only the digest differs.
                if !is_reliable && object.stored == Some(object.length) {
                    continue;
                }
                let text =
                    format!("the listing contradicts the metadata, and only the first {REQUESTED} such objects were requested by name");
                faults.add(Severity::Unverifiable, Problem::of(name, ProblemCode::ObjectDoubtful, text));
                continue;
            }
            match store.stat(&name) {
                Ok(Some(found)) => match object.compare(&found) {
                    Some(problem) => faults.add(Severity::Corrupt, problem),
                    None => is_reliable = false,
                },
                Ok(None) => {
                    let text = "the listing has it, but a request by name does not find it: it comes and goes";
                    faults.add(Severity::Unverifiable, Problem::of(name, ProblemCode::StorageContradicts, text));
                }
                Err(error) if error.kind == StorageErrorKind::Unreachable => return faults.add_error(None, &error),
                Err(error) => faults.add_error(Some(&name), &error),
            }
        }
    }
}

fn unlisted(name: String) -> Problem {
    let text = "it exists, but the listing does not have it (yet): Cinder refuses to restore until it does";
    Problem::of(name, ProblemCode::ListingBehind, text)
}
