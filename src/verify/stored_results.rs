//! Check results that stay in their file. In memory is only where they are: 32 bytes for a result or the row of an ancestor.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::CheckDocument;
use super::check_document::CheckBody;
use super::partial::{CheckResults, End, Head, PartialWriter, Record};
use crate::domain::record_stream::{StreamError, StreamReader, StreamWriter, is_stream, read_again};
use crate::domain::{Body, CheckResult, Image, SealError, Signature};

/// How much is read at once of a record; most are shorter.
const PIECE: usize = 8 << 10;

/// Why a check was stopped whose stream has no closing record.
pub const CUT_OFF: &str = "cut off";

/// The results of a check that was made earlier.
pub struct StoredResults {
    pub head: Head,
    /// What stopped the check, if it was stopped.
    pub interrupted: Option<String>,
    /// The closing record, if it was read from a complete stream.
    pub end: Option<End>,
    /// The digest of the document or of the stream up to its last complete line, and the signature of this digest.
    pub sha256: String,
    pub signature: Option<Signature>,
    file: File,
    /// Where the records of the check itself begin, after those of the check that it resumed.
    own: u64,
    results: Index,
    rows: Index,
}

impl StoredResults {
    /// Reads a check document or a stream of check results, and finds the results that are wanted. Of two results of the same backup the
    /// later one counts. The file must be a regular one, and is read again for each result that is asked for.
    pub fn read(mut file: File, wanted: &mut dyn FnMut(&CheckResult) -> bool) -> Result<Self, StreamError> {
        let is_stream = is_stream(&file)?.0;
        file.rewind()?;
        if is_stream {
            return Self::read_stream(file, wanted);
        }
        let document = CheckDocument::read(&mut file).map_err(|error| StreamError::Seal(error, 0))?;
        let (sha256, signature, interrupted) = (document.sha256.clone(), document.signature.clone(), document.interrupted.clone());
        Ok(Self { interrupted, sha256, signature, ..Self::read_stream(spilled(document)?, wanted)? })
    }

    fn read_stream(file: File, wanted: &mut dyn FnMut(&CheckResult) -> bool) -> Result<Self, StreamError> {
        let (head, mut stream) = StreamReader::<CheckResults, _>::begin(BufReader::new(file.try_clone()?))?;
        let (mut results, mut rows, mut own) = (Index::default(), Index::default(), u64::MAX);
        let is_complete = loop {
            let at = stream.position();
            if stream.records() == head.earlier as u64 {
                own = own.min(at);
            }
            match stream.next_record() {
                Ok(Some(Record::Row(row))) => rows.add(&row.id, (at, stream.fingerprint())),
                Ok(Some(Record::Result(result))) if wanted(&result) => results.add(&result.id, (at, stream.fingerprint())),
                Ok(Some(Record::Result(_))) => {}
                Ok(None) => break true,
                // The check was stopped: the lines before count.
                Err(StreamError::CutOff(_)) => break false,
                Err(error) => return Err(error),
            }
        };
        results.sort();
        // Of two results of the same backup the later one counts. Of a row, each result takes the last one before it.
        results.0.reverse();
        results.0.dedup_by_key(|place| place.id);
        results.0.reverse();
        rows.sort();
        let end = stream.end().filter(|_| is_complete).cloned();
        let interrupted = end.as_ref().map_or_else(|| Some(CUT_OFF.to_owned()), |end| end.interrupted.clone());
        let (sha256, signature) = (stream.sha256().to_owned(), stream.signature().cloned());
        Ok(Self { head, interrupted, end, sha256, signature, file, own, results, rows })
    }

    /// Drops the results that the check has neither found nor confirmed itself.
    pub fn keep_own(&mut self) {
        self.results.0.retain(|place| place.at >= self.own);
    }

    /// How many results and rows there are.
    pub fn records(&self) -> usize {
        self.results.0.len() + self.rows.0.len()
    }

    /// How many backups have a result that was wanted.
    pub fn len(&self) -> usize {
        self.results.0.len()
    }

    /// The result of a backup with the rows of its ancestors, as a check with this settle time, in seconds, gives it.
    pub fn get(&self, id: &str, settle: u64) -> Result<Option<CheckResult>, StreamError> {
        self.results.find_before(id, u64::MAX).map(|place| self.result(place, settle)).transpose()
    }

    /// All results.
    pub fn each(&self, settle: u64, each: &mut dyn FnMut(CheckResult)) -> Result<(), StreamError> {
        self.results.0.iter().try_for_each(|place| {
            each(self.result(place, settle)?);
            Ok(())
        })
    }

    /// Writes all results and rows in their order.
    pub fn copy<W: io::Write>(&self, to: &mut PartialWriter<'_, W>, settle: u64) -> Result<(), StreamError> {
        let mut places: Vec<&Place> = self.results.0.iter().chain(&self.rows.0).collect();
        places.sort_unstable_by_key(|place| place.at);
        for place in places {
            let mut record = self.record(place)?;
            if let Record::Result(result) = &mut record
                && self.head.settle_seconds < settle
            {
                result.hold_to(settle);
            }
            to.add_record(&record)?;
        }
        Ok(())
    }

    fn result(&self, place: &Place, settle: u64) -> Result<CheckResult, StreamError> {
        let Record::Result(mut result) = self.record(place)? else { return Err(changed()) };
        if result.rows.len() == 1 {
            let above: Result<Vec<Image>, StreamError> = result.chain.iter().skip(1).map(|id| self.row(id, place.at, &result.id)).collect();
            result.rows.extend(above?);
        }
        if self.head.settle_seconds < settle {
            result.hold_to(settle);
        }
        Ok(*result)
    }

    fn row(&self, id: &str, before: u64, of: &str) -> Result<Image, StreamError> {
        let place =
            self.rows.find_before(id, before).ok_or_else(|| invalid(format!("it lacks rows of backups that {of:?} is based on")))?;
        let Record::Row(row) = self.record(place)? else { return Err(changed()) };
        Ok(row)
    }

    fn record(&self, place: &Place) -> Result<Record, StreamError> {
        let line = BufReader::with_capacity(PIECE, ReadAt { file: &self.file, at: place.at });
        read_again::<CheckResults>(line, place.fingerprint)
    }
}

/// A document as a stream in a file without a name.
fn spilled(document: CheckDocument) -> Result<File, StreamError> {
    let mut file = tempfile::tempfile()?;
    let CheckBody { database, taken_at, level, settle_seconds, results, ancestors, .. } = document.body;
    let head = Head::new(database, taken_at, level, settle_seconds);
    let mut stream = StreamWriter::<CheckResults, _>::begin(io::BufWriter::new(file.try_clone()?), &head, None)?;
    ancestors.iter().try_for_each(|row| stream.add(&Record::Row(row?)))?;
    results.iter().try_for_each(|result| stream.add(&Record::Result(Box::new(result?))))?;
    io::Write::flush(stream.out())?;
    file.rewind()?;
    Ok(file)
}

fn invalid(problem: String) -> StreamError {
    StreamError::Seal(SealError::Invalid { kind: CheckBody::KIND, problem }, 0)
}

fn changed() -> StreamError {
    invalid("it was changed while it was read".to_owned())
}

/// Where records are, by the ids that they are about.
#[derive(Debug, Default)]
struct Index(Vec<Place>);

#[derive(Debug, Clone, Copy)]
struct Place {
    /// The first 16 bytes of the SHA-256 of the id.
    id: [u64; 2],
    at: u64,
    /// What the record had when it was verified.
    fingerprint: u64,
}

const _: () = assert!(size_of::<Place>() == 32);

impl Index {
    fn add(&mut self, id: &str, (at, fingerprint): (u64, u64)) {
        self.0.push(Place { id: number(id), at, fingerprint });
    }

    /// Sorts them by id and place.
    fn sort(&mut self) {
        self.0.sort_unstable_by_key(|place| (place.id, place.at));
        self.0.shrink_to_fit();
    }

    /// The last place of an id before another place.
    fn find_before(&self, id: &str, before: u64) -> Option<&Place> {
        let id = number(id);
        let later = self.0.partition_point(|place| (place.id, place.at) < (id, before));
        later.checked_sub(1).and_then(|last| self.0.get(last)).filter(|place| place.id == id)
    }
}

fn number(id: &str) -> [u64; 2] {
    let digest = Sha256::digest(id.as_bytes());
    let mut words = digest.chunks_exact(8).map(|word| word.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    [words.next().unwrap_or_default(), words.next().unwrap_or_default()]
}

/// Reads a file from a position on, without moving the position of others.
struct ReadAt<'a> {
    file: &'a File,
    at: u64,
}

impl Read for ReadAt<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
