//! What is asked of objects by their names, because a listing alone proves nothing against them.

use super::inventory::{Inventory, compare};
use crate::domain::{Problem, ProblemCode};
use crate::format::names;
use crate::storage::{ObjectStore, StorageErrorKind};
use crate::verify::fault::{Faults, Severity};

/// So many objects that a listing does not have are asked for, and so many whose digest it has another of.
const ASKED_FOR: usize = 100;

/// What is known of a side file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SideFile {
    /// It is there, with so many bytes.
    There(u64),
    /// The storage said that there is none.
    Gone,
    /// Nobody knows.
    Unknown,
}

impl Inventory {
    /// What the listing does not have is asked for by its name, as long as that is not much: a container of Swift's learns of
    /// its objects some time after they were written. What was not asked for may be there.
    pub fn miss(&mut self, store: &dyn ObjectStore, faults: &mut Faults) {
        let mut times = self.times;
        for (count, object) in self.entries.iter().filter(|object| object.stored.is_none()).enumerate() {
            let name = names::data(&self.prefix, object.number);
            if count >= ASKED_FOR {
                let text = format!("the listing does not have it, and no more than {ASKED_FOR} such objects are asked for by their names");
                faults.add(Severity::Unverifiable, Problem::of(name, ProblemCode::ObjectUnlisted, text));
                continue;
            }
            match store.stat(&name) {
                Ok(None) => {
                    let text = format!("it holds bytes {} to {} of the volume and is not there", object.offset, object.end());
                    faults.add(Severity::Incomplete, Problem::of(name, ProblemCode::ObjectMissing, text));
                }
                Ok(Some(found)) => {
                    times.add(found.modified);
                    faults.add(Severity::Unverifiable, behind(name));
                }
                // Said once for all that is left.
                Err(error) if error.kind == StorageErrorKind::Unreachable => {
                    faults.add_error(None, &error);
                    break;
                }
                Err(error) => faults.add_error(Some(&name), &error),
            }
        }
        self.times = times;
    }

    /// The sha256file, which the listing does not have.
    pub fn ask_for_sha256file(&mut self, store: &dyn ObjectStore, faults: &mut Faults, warnings: &mut Vec<Problem>) -> SideFile {
        let name = names::sha256file(&self.prefix);
        match store.stat(&name) {
            Ok(None) => SideFile::Gone,
            Ok(Some(found)) => {
                self.times.add(found.modified);
                // Cinder asks for it by its name.
                warnings.push(Problem::of(name, ProblemCode::ListingBehind, "it is there, and the listing does not have it (yet)"));
                SideFile::There(found.size)
            }
            Err(error) => {
                let mut local = Faults::default();
                local.add_error(Some(&name), &error);
                faults.extend_local(local);
                SideFile::Unknown
            }
        }
    }

    /// With nothing in the listing and no metadata: whether what the driver writes before that is not there, either.
    pub fn prove_absent(&mut self, store: &dyn ObjectStore, faults: &mut Faults) {
        let mut known = true;
        for name in [names::data(&self.prefix, 1), names::sha256file(&self.prefix)] {
            match store.stat(&name) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    self.begun = true;
                    self.times.add(found.modified);
                    faults.add(Severity::Unverifiable, behind(name));
                }
                Err(error) => {
                    known = false;
                    faults.add_error(Some(&name), &error);
                }
            }
        }
        self.absent = known && !self.begun;
    }

    /// A listing does not say how an object is encrypted, and with some kinds of that its digest is none of the data; and a
    /// link in it has no size. What an object says of itself decides.
    pub fn dispel(&mut self, store: &dyn ObjectStore, faults: &mut Faults) {
        let mut believed = true;
        for (count, index) in std::mem::take(&mut self.doubtful).into_iter().enumerate() {
            let Some(object) = self.entries.get_mut(index) else { continue };
            let name = names::data(&self.prefix, object.number);
            if count >= ASKED_FOR {
                // Digests in this listing are none of the data, and only the digest does not fit.
                if !believed && object.stored == Some(object.length) {
                    continue;
                }
                let text = format!(
                    "what the listing says of it does not fit the metadata, and no more than {ASKED_FOR} such objects are asked for by their names"
                );
                faults.add(Severity::Unverifiable, Problem::of(name, ProblemCode::ObjectDoubtful, text));
                continue;
            }
            match store.stat(&name) {
                Ok(Some(found)) => match compare(object, &found) {
                    Some(problem) => faults.add(Severity::Corrupt, problem),
                    None => believed = false,
                },
                Ok(None) => {
                    let text = "the listing has it, and asked for by its name it is not there: it comes and goes";
                    faults.add(Severity::Unverifiable, Problem::of(name, ProblemCode::StorageContradicts, text));
                }
                Err(error) if error.kind == StorageErrorKind::Unreachable => return faults.add_error(None, &error),
                Err(error) => faults.add_error(Some(&name), &error),
            }
        }
    }
}

/// The problem with bytes whose MD5 differs from the one that the storage itself took when they were written, if it tells one.
pub fn transfer_damage(store: &dyn ObjectStore, name: &str, came: Option<[u8; 16]>) -> Option<Problem> {
    let told = store.stat(name).ok().flatten()?.md5?;
    differs(name, came?, told)
}

/// The same, with the MD5 that the storage told.
pub fn differs(name: &str, came: [u8; 16], told: [u8; 16]) -> Option<Problem> {
    let text = "the bytes read differ from what the storage says it holds (its own MD5 differs): they were damaged on the network or in the storage; \
                find out where, and check again";
    (came != told).then(|| Problem::of(name, ProblemCode::TransferDiffers, text))
}

fn behind(name: String) -> Problem {
    let text = "it is there, and the listing does not have it (yet): Cinder refuses to restore as long as that is so";
    Problem::of(name, ProblemCode::ListingBehind, text)
}
