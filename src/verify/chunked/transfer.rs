//! Errors in bytes that were read: damaged on the way, malformed or unreadable.

use crate::domain::{Problem, ProblemCode};
use crate::format::FormatError;
use crate::storage::{ObjectStore, StorageError};
use crate::verify::fault::storage_problem;
use crate::verify::{Faults, Severity};

/// What a wrong sha256file means. Cinder's restore never reads it. An increment holds the blocks whose digests are not in it.
///
/// Source: `cinder/backup/chunkeddriver.py` (`backup`, `_restore_v1`).
pub const WRONG_SHA256FILE: &str = "a restore does not read it, but an increment made on this backup would fail or hold wrong data: \
                                    make the next backup of the volume a full one";

/// The problem with bytes whose MD5 differs from the one that the storage itself took when they were written, if it reports one.
pub fn transfer_damage(store: &dyn ObjectStore, name: &str, received: Option<[u8; 16]>) -> Option<Problem> {
    let reported = store.stat(name).ok().flatten()?.md5?;
    md5_differs(name, received?, reported)
}

/// The same for an MD5 that the storage has reported.
pub fn md5_differs(name: &str, received: [u8; 16], reported: [u8; 16]) -> Option<Problem> {
    let text = "the bytes read differ from what the storage reports that it holds (its own MD5 differs): they were damaged on the network \
                or in the storage; find out where, and check again";
    (received != reported).then(|| Problem::of(name, ProblemCode::TransferDiffers, text))
}

/// The problem with a side file that cannot be read: its content is wrong, or the storage gave an error.
pub fn format_problem(name: &str, code: ProblemCode, what: &str, error: FormatError) -> (Severity, Problem) {
    match error {
        FormatError::Io(error) => match StorageError::of_io(&error) {
            Some(error) => storage_problem(Some(name), error),
            None => (Severity::Unverifiable, Problem::of(name, ProblemCode::StorageUnreadable, format!("{what}: {error}"))),
        },
        FormatError::Malformed(text) => (Severity::Corrupt, Problem::of(name, code, format!("{what}: {text}"))),
    }
}

/// Adds a sha256file that cannot be read, which no restore reads. `received` is the MD5 of the bytes that were read.
pub fn add_sha256file_error(faults: &mut Faults, store: &dyn ObjectStore, name: &str, received: Option<[u8; 16]>, error: FormatError) {
    let (severity, problem) = match transfer_damage(store, name, received) {
        Some(problem) if matches!(error, FormatError::Malformed(_)) => (Severity::Unverifiable, problem),
        _ => format_problem(name, ProblemCode::Sha256fileMalformed, "its sha256file cannot be read", error),
    };
    faults.add_local(severity, problem);
}

/// An error of the storage as one of the format.
pub fn into_format(error: StorageError) -> FormatError {
    FormatError::Io(error.into_io())
}
