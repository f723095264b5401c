//! Reads the audit log one record at a time, and checks the chain.
//!
//! Takes no lock, so it can read while another process writes: an incomplete last line is reported as unfinished, not as damaged.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chain::{Head, LogProblemCode, Problem, Verifier};
use super::record::Record;
use super::{AuditError, MAX_LINE};
use crate::input::{self, Input};

/// How many problems [`verify`] lists. It only counts the others.
const LISTED: usize = 20;

/// Opens a log for reading.
pub fn read(path: &Path) -> Result<Records<BufReader<Input>>, AuditError> {
    Ok(Records::new(open(path)?, path))
}

/// Opens a log to read it from a position.
pub(super) fn read_on(path: &Path, position: &Position) -> Result<Records<BufReader<Input>>, AuditError> {
    let mut reader = open(path)?;
    let (_, file) = reader.get_mut().get_mut();
    file.seek(SeekFrom::Start(position.offset)).map_err(|error| AuditError::io(path, "read", error))?;
    Ok(Records { verifier: position.verifier.clone(), offset: position.offset, ..Records::new(reader, path) })
}

fn open(path: &Path) -> Result<BufReader<Input>, AuditError> {
    let file = input::open(path).map_err(|error| AuditError::io(path, "open", error))?;
    Ok(BufReader::with_capacity(256 << 10, file))
}

/// A position between two records of a log, with the state of the chain there.
#[derive(Debug, Clone, Default)]
pub struct Position {
    /// How many bytes are before it.
    pub(super) offset: u64,
    verifier: Verifier,
}

/// The records of a log. Ends after the first error.
#[derive(Debug)]
pub struct Records<R> {
    reader: R,
    line: Vec<u8>,
    /// The last line had no line feed.
    ended: bool,
    /// The length of the lines so far, in bytes.
    offset: u64,
    verifier: Verifier,
    path: PathBuf,
    done: bool,
    is_unfinished: bool,
}

impl<R: BufRead> Records<R> {
    /// The records in `reader`. `path` is for messages only.
    fn new(reader: R, path: &Path) -> Self {
        let (line, verifier) = (Vec::new(), Verifier::default());
        Self { reader, line, ended: false, offset: 0, verifier, path: path.to_owned(), done: false, is_unfinished: false }
    }

    /// The line of the last record so far, from 1.
    pub fn line(&self) -> u64 {
        self.verifier.lines
    }

    /// The position of the next record.
    pub fn position(&self) -> Position {
        Position { offset: self.offset, verifier: self.verifier.clone() }
    }

    /// Reads the next record. After a problem, another call continues behind it.
    fn step(&mut self) -> Result<Option<Record>, AuditError> {
        let limit = MAX_LINE as u64 + 1;
        loop {
            self.line.clear();
            // A line without a line feed is the last, even if the writer has completed it since.
            let left = if self.ended { 0 } else { limit };
            let read = self.reader.by_ref().take(left).read_until(b'\n', &mut self.line);
            let read = read.map_err(|error| AuditError::io(&self.path, "read", error))? as u64;
            self.offset += read;
            if read == 0 {
                self.is_unfinished = self.verifier.finish().map_err(|problem| AuditError::of(&self.path, problem))?;
                return Ok(None);
            }
            self.ended = !self.line.ends_with(b"\n");
            let fed =
                if self.ended && read == limit { Err(Problem::too_long(self.verifier.lines + 1)) } else { self.verifier.feed(&self.line) };
            if let Some(record) = fed.map_err(|problem| AuditError::of(&self.path, problem))? {
                return Ok(Some(record));
            }
        }
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<Record, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

/// The result of [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The number of records.
    pub records: u64,
    /// How many of the records are `torn` records.
    pub torn: u64,
    /// The first problems, at most 20.
    pub problems: Vec<Problem>,
    /// The number of all problems.
    pub problem_count: u64,
    /// The last record. Keep its hash elsewhere.
    pub last: Head,
    /// It has an unfinished end: it is being written, or a crash cut it off and no record describes it yet.
    pub is_unfinished: bool,
    /// No record has the hash that was kept elsewhere: the log was cut off or replaced. If the last record has it, nothing was added since.
    pub lacks_expected: bool,
}

impl VerifyReport {
    /// Whether the log is intact. An unfinished end is not damage.
    pub fn is_intact(&self) -> bool {
        self.problem_count == 0 && !self.lacks_expected
    }
}

/// Checks a whole log and continues after a problem. `expected` is the hash of a record that must be in it; only this
/// shows that lines were cut off at the end. An error means that the log could not be checked.
pub fn verify(path: &Path, expected: Option<&str>) -> Result<VerifyReport, AuditError> {
    let mut records = read(path)?;
    let (mut problems, mut problem_count) = (Vec::new(), 0);
    let mut add = |problem: Problem| {
        problem_count += 1;
        if problems.len() < LISTED {
            problems.push(problem);
        }
    };
    let is_expected = |head: &Head| expected.is_some_and(|hash| hash.eq_ignore_ascii_case(&head.hash));
    let mut is_seen = expected.is_none();
    loop {
        match records.step() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(AuditError::Damaged { problem, .. }) if problem.code != LogProblemCode::NewerVersion => add(problem),
            Err(error) => return Err(error),
        }
        is_seen |= is_expected(&records.verifier.head);
    }
    let Records { verifier, is_unfinished, .. } = records;
    verifier.unprotected().into_iter().for_each(add);
    // The hash of an empty log must not match any other log.
    let is_empty_as_expected = verifier.records == 0 && is_expected(&verifier.head);
    let lacks_expected = !(is_seen || is_empty_as_expected);
    let Verifier { records, torn, head: last, .. } = verifier;
    Ok(VerifyReport { records, torn, problems, problem_count, last, is_unfinished, lacks_expected })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::{self, Write};

    use super::super::tests::samples;
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn records_are_in_order_and_the_unfinished_end_is_reported() {
        let content = [&samples::chain(4).concat()[..], b"{\"schema\":\"cind"].concat();
        let file = file(&content);
        let mut records = read(file.path()).unwrap();
        let seqs: Vec<u64> = records.by_ref().map(|record| record.unwrap().seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4]);
        assert_eq!(records.verifier.head.seq, 4);
        assert!(records.is_unfinished);
    }

    #[test]
    fn reading_ends_at_damage_with_file_and_line() {
        let mut lines = samples::chain(4);
        lines.remove(1);
        let file = file(&lines.concat());
        let found: Vec<_> = read(file.path()).unwrap().collect();
        assert_eq!(found.len(), 2);
        let message = found[1].as_ref().unwrap_err().to_string();
        assert!(
            message.contains(file.path().to_str().unwrap()) && message.contains("line 2 is record 3 where record 2 is expected"),
            "{message}"
        );
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut records = Records::new(BufReader::new(io::repeat(b'x')), Path::new("log"));
        assert!(matches!(records.next(), Some(Err(AuditError::Damaged { problem, .. })) if problem == Problem::too_long(1)));
        assert!(records.next().is_none());
    }

    #[test]
    fn a_newer_version_is_not_reported_as_damage() {
        let text = String::from_utf8(samples::chain(2).concat()).unwrap();
        let (first, second) = text.split_once('\n').unwrap();
        let newer = format!("{first}\n{}", second.replace("\"schema_version\":1", "\"schema_version\":9"));
        let file = file(newer.as_bytes());
        let last = read(file.path()).unwrap().last().unwrap();
        let is_newer =
            |error: &AuditError| error.to_string().contains("line 2 was written by a newer version of this program (schema version 9,");
        assert!(last.is_err_and(|error| is_newer(&error)));
        assert!(verify(file.path(), None).is_err_and(|error| is_newer(&error)));
    }

    #[test]
    fn verify_continues_after_a_problem_and_limits_its_list() {
        let mut lines = samples::chain(100);
        for line in lines.iter_mut().step_by(2) {
            line[0] = b'[';
        }
        let report = verify(file(&lines.concat()).path(), None).unwrap();
        assert_eq!((report.problem_count, report.problems.len(), report.records), (50, LISTED, 50));
        assert_eq!(report.problems[1].line, 3);
        assert!(!report.is_intact());
    }

    #[test]
    fn a_hash_kept_elsewhere_shows_that_the_end_was_cut_off() {
        let lines = samples::chain(5);
        let kept = super::super::digest(&lines[3]);
        let is_found = |count: usize, hash: &str| {
            let report = verify(file(&lines[..count].concat()).path(), Some(hash)).unwrap();
            assert_eq!(report.is_intact(), !report.lacks_expected);
            report.is_intact()
        };
        assert!(is_found(4, &kept) && is_found(4, &kept.to_uppercase()) && is_found(5, &kept));
        assert!(!is_found(3, &kept) && !is_found(0, &kept));
        // It is the hash of an empty log; nothing shows that another log continued that one.
        assert!(is_found(0, &Head::default().hash) && !is_found(5, &Head::default().hash));
    }
}
