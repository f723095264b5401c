//! Reads one piece of an object and compares it with its digests.

use std::io;

use jiff::Timestamp;

use super::digest::{BlockComparison, Expected, Md5Reader, compare};
use super::planner::{Piece, Proof, QueuedObject};
use super::transfer::md5_differs;
use crate::domain::{Problem, ProblemCode};
use crate::format::decompress;
use crate::format::metadata::Compression;
use crate::storage::{StorageError, StorageErrorKind};
use crate::verify::fault::storage_problem;
use crate::verify::watch::ReadProgress;
use crate::verify::{Severity, Watch};

/// Why a piece is not proven.
pub struct PieceFailure {
    pub severity: Severity,
    pub problem: Problem,
    pub detail: FailureDetail,
}

/// What else is known of a failure.
#[derive(Clone, Copy)]
pub enum FailureDetail {
    Nothing,
    /// The MD5 of the whole object as stored, as received.
    StoredMd5([u8; 16]),
    /// The object was written again during the check, and when, if the storage reports it.
    Rewritten(Option<Timestamp>),
    /// From this byte of the volume on the sha256file does not fit, but the MD5 of the object does.
    Sha256fileDiffers(u64),
}

impl PieceFailure {
    fn unverifiable(problem: Problem) -> Self {
        Self { severity: Severity::Unverifiable, problem, detail: FailureDetail::Nothing }
    }

    fn of_error(name: &str, error: &StorageError) -> Self {
        let (severity, problem) = storage_problem(Some(name), error);
        Self { severity, problem, detail: FailureDetail::Nothing }
    }
}

impl Piece<'_> {
    /// Reads a piece again that was found wrong, before it is reported: it may have been written again since it was listed, and the
    /// bytes may have been damaged on the network. Returns the same as [`Self::read`].
    pub fn read_again(&self, watch: &Watch, buffer: &mut Vec<u8>) -> Result<bool, PieceFailure> {
        let QueuedObject { member, object, .. } = self.item;
        let name = self.item.name();
        let reported = match member.store.stat(&name) {
            Ok(Some(found)) if object.was_rewritten(&found) => {
                let at = found.modified.map_or_else(String::new, |at| format!(" at {at}"));
                let text = format!("it was written again{at}, after it was listed: what was read of it proves nothing");
                let failure = PieceFailure::unverifiable(Problem::of(name, ProblemCode::ObjectRewritten, text));
                return Err(PieceFailure { detail: FailureDetail::Rewritten(found.modified), ..failure });
            }
            Ok(found) => found.and_then(|found| found.md5),
            Err(error) if matches!(error.kind, StorageErrorKind::Transient | StorageErrorKind::Unreachable) => {
                return Err(PieceFailure::of_error(&name, &error));
            }
            // An account that may read an object may lack the right to stat it.
            Err(_) => None,
        };
        let failure = match self.read(watch, true, buffer) {
            Err(failure) if failure.severity == Severity::Corrupt => failure,
            result => return result,
        };
        let received = match failure.detail {
            FailureDetail::StoredMd5(md5) => Some(md5),
            // The MD5 in the metadata fits what was received.
            FailureDetail::Sha256fileDiffers(_) => None,
            _ => reported.and_then(|_| self.item.whole_md5()),
        };
        let damage = received.zip(reported).and_then(|(received, reported)| md5_differs(&name, received, reported));
        Err(damage.map_or(failure, PieceFailure::unverifiable))
    }

    /// Reads and compares the piece. Returns whether its MD5 is that of the bytes as stored: before Liberty, Cinder took the MD5 after
    /// compression. `again` is true for the second read.
    ///
    /// Source: Cinder's commit fc5affbe7, first in 7.0.0.
    pub fn read(&self, watch: &Watch, again: bool, buffer: &mut Vec<u8>) -> Result<bool, PieceFailure> {
        let QueuedObject { member, object, .. } = self.item;
        let name = self.item.name();
        let length = self.length();
        let stream = member.store.open(&name, self.part.clone()).map_err(|error| PieceFailure::of_error(&name, &error))?;
        let is_whole = self.part.is_none();
        let expected = match &self.proof {
            Proof::Md5 => Expected { block_size: 1 << 20, blocks: &[], with_md5: true },
            // The second read shows which of the two is wrong: the object or the sha256file.
            Proof::Blocks(block_size, blocks) => Expected { block_size: *block_size, blocks, with_md5: again && is_whole },
        };
        // Without compression the MD5 as stored is that of the data, if all of it is read.
        let takes_stored_md5 = is_whole && (again || (expected.with_md5 && object.compression != Compression::None));
        let mut stored_md5 = None;
        let stream = if takes_stored_md5 { Box::new(stored_md5.insert(Md5Reader::new(stream))) } else { stream };
        let mut progress = (!again).then(|| ReadProgress::new(watch, length));
        let mut count = |bytes| {
            if watch.is_cancelled() {
                return Err(StorageError::new(StorageErrorKind::Cancelled, "the check was stopped").into_io());
            }
            if let Some(progress) = &mut progress {
                progress.add(bytes);
            }
            Ok(())
        };
        let read = decompress::open(object.compression, stream, length).and_then(|stream| compare(stream, &expected, buffer, &mut count));
        drop(progress);
        // Of all bytes as stored, even if the decompressor did not read them to their end.
        let stored_md5 = stored_md5.and_then(|md5| if again { md5.of_all(u64::MAX) } else { Some(md5.so_far()) });
        match read {
            Ok(found) => self.judge(&expected, &found, stored_md5, again),
            Err(error) => Err(match StorageError::of_io(&error) {
                Some(error) => PieceFailure::of_error(&name, error),
                None if error.kind() == io::ErrorKind::InvalidData => {
                    self.corrupt(ProblemCode::ObjectBroken, error.to_string(), stored_md5)
                }
                None => PieceFailure::unverifiable(Problem::of(name, ProblemCode::StorageUnreadable, error.to_string())),
            }),
        }
    }

    /// Decides whether what was read is right; returns whether the MD5 that fits is that of the bytes as stored.
    fn judge(
        &self,
        expected: &Expected<'_>,
        found: &BlockComparison,
        stored_md5: Option<[u8; 16]>,
        again: bool,
    ) -> Result<bool, PieceFailure> {
        let object = &self.item.object;
        let is_compressed = object.compression != Compression::None;
        let as_stored = expected.with_md5 && is_compressed && found.md5 != Some(object.md5) && stored_md5 == Some(object.md5);
        let md5_fits = as_stored || found.md5.is_none_or(|md5| md5 == object.md5);
        if let Some(first) = found.differing.first() {
            let start = object.offset + self.part.as_ref().map_or(0, |part| part.start) + first * expected.block_size;
            let blocks = match found.differing.len() {
                1 => "1 block differs".to_owned(),
                many => format!("{many} blocks differ"),
            };
            // The MD5 of a part is not known: all of the object is read for it.
            let fits = match found.md5 {
                Some(_) => Some(md5_fits),
                None if again => self.item.whole_md5().map(|md5| md5 == object.md5),
                None => None,
            };
            let why = match fits {
                Some(true) => "; its MD5 matches, so it is as it was written, which is not what the volume held",
                Some(false) => "; its MD5 differs, too",
                None => "",
            };
            let text = format!("{blocks} from what the volume held, the first at byte {start} of the volume{why}");
            let failure = self.corrupt(ProblemCode::BlockDiffers, text, stored_md5);
            // The driver takes both digests of the same bytes. An object of another member is proven by that member's sha256file.
            let is_sha256file_wrong = self.item.is_of_tip && again && fits == Some(true);
            let detail = if is_sha256file_wrong { FailureDetail::Sha256fileDiffers(start) } else { failure.detail };
            return Err(PieceFailure { detail, ..failure });
        }
        if !md5_fits {
            return Err(self.corrupt(ProblemCode::ObjectDigest, "its MD5 is not the one in the metadata".to_owned(), stored_md5));
        }
        Ok(as_stored)
    }

    fn corrupt(&self, code: ProblemCode, text: String, stored_md5: Option<[u8; 16]>) -> PieceFailure {
        let detail = stored_md5.map_or(FailureDetail::Nothing, FailureDetail::StoredMd5);
        PieceFailure { severity: Severity::Corrupt, problem: Problem::of(self.item.name(), code, text), detail }
    }
}
