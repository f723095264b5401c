//! Reads the audit log one record at a time, and checks the chain.
//!
//! Takes no lock, so it can read while another process writes: an incomplete last line is reported as unfinished, not as damaged.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chain::{Head, Problem, ProblemKind, Unfinished, Verifier};
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
    offset: u64,
    verifier: Verifier,
}

impl Position {
    /// How many bytes are before it.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

/// The records of a log. Ends after the first error.
#[derive(Debug)]
pub struct Records<R> {
    lines: Lines<R>,
    /// The length of the lines so far, in bytes.
    offset: u64,
    verifier: Verifier,
    path: PathBuf,
    done: bool,
    unfinished: Option<Unfinished>,
}

impl<R: BufRead> Records<R> {
    /// The records in `reader`. `path` is for messages only.
    pub fn new(reader: R, path: &Path) -> Self {
        let lines = Lines { reader, buffer: Vec::new(), ended: false };
        Self { lines, offset: 0, verifier: Verifier::new(), path: path.to_owned(), done: false, unfinished: None }
    }

    /// The last record so far.
    pub fn head(&self) -> &Head {
        self.verifier.head()
    }

    /// The line of the last record so far, from 1.
    pub fn line(&self) -> u64 {
        self.verifier.lines()
    }

    /// The position of the next record.
    pub(super) fn position(&self) -> Position {
        Position { offset: self.offset, verifier: self.verifier.clone() }
    }

    /// The unfinished end, after the last record.
    pub fn unfinished(&self) -> Option<&Unfinished> {
        self.unfinished.as_ref()
    }

    fn step(&mut self) -> Result<Option<Record>, AuditError> {
        loop {
            let fed = match self.lines.next() {
                Ok(Some(line)) => {
                    self.offset += line.len() as u64;
                    self.verifier.feed(line)
                }
                Ok(None) => {
                    self.unfinished = self.verifier.finish().map_err(|problem| AuditError::of(&self.path, problem))?;
                    return Ok(None);
                }
                Err(LineError::Io(error)) => return Err(AuditError::io(&self.path, "read", error)),
                Err(LineError::TooLong) => Err(too_long(&self.verifier)),
            };
            match fed {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => {}
                Err(problem) => return Err(AuditError::of(&self.path, problem)),
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

/// Which record has the hash that was kept elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The last record: nothing was added or cut off since.
    Last,
    /// An earlier record: the log has grown, and nothing before was cut off.
    Earlier {
        /// The number of the record that has this hash.
        seq: u64,
    },
    /// None: the log was cut off or replaced.
    Missing,
}

/// The result of [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The number of lines.
    pub lines: u64,
    /// How many of them are records.
    pub records: u64,
    /// How many of the records are `torn` records.
    pub torn: u64,
    /// The first problems, at most 20.
    pub problems: Vec<Problem>,
    /// The number of all problems.
    pub problem_count: u64,
    /// The last record. Keep its hash elsewhere.
    pub last: Head,
    /// The unfinished end: it is being written, or a crash cut it off and no record describes it yet.
    pub unfinished: Option<Unfinished>,
    /// Where the hash that was kept elsewhere was found, if one was given.
    pub anchor: Option<Anchor>,
}

impl VerifyReport {
    /// Whether the log is intact. An unfinished end is not damage.
    pub fn is_intact(&self) -> bool {
        self.problem_count == 0 && self.anchor != Some(Anchor::Missing)
    }
}

/// Checks a whole log and continues after a problem. `expected` is the hash of a record that must be in it (see [`Anchor`]); only this
/// shows that lines were cut off at the end. An error means that the log could not be checked.
pub fn verify(path: &Path, expected: Option<&str>) -> Result<VerifyReport, AuditError> {
    let mut lines = Lines { reader: open(path)?, buffer: Vec::new(), ended: false };
    let mut verifier = Verifier::new();
    let mut problems = Problems::default();
    let is_expected = |head: &Head| expected.is_some_and(|hash| hash.eq_ignore_ascii_case(&head.hash));
    let mut seen = None;
    loop {
        match lines.next() {
            Ok(Some(line)) => match verifier.feed(line) {
                Ok(_) => {}
                Err(problem @ Problem { kind: ProblemKind::NewerVersion { .. }, .. }) => return Err(AuditError::of(path, problem)),
                Err(problem) => problems.add(problem),
            },
            Ok(None) => break,
            Err(LineError::Io(error)) => return Err(AuditError::io(path, "read", error)),
            Err(LineError::TooLong) => {
                problems.add(too_long(&verifier));
                break;
            }
        }
        if is_expected(verifier.head()) {
            seen = Some(verifier.head().seq);
        }
    }
    let unfinished = verifier.finish().unwrap_or_else(|problem| {
        problems.add(problem);
        None
    });
    verifier.unprotected().into_iter().for_each(|problem| problems.add(problem));
    // The hash of an empty log must not match any other log.
    let seen = seen.or_else(|| (verifier.records() == 0 && is_expected(verifier.head())).then_some(0));
    let anchor = expected.map(|_| match seen {
        Some(_) if is_expected(verifier.head()) => Anchor::Last,
        Some(seq) => Anchor::Earlier { seq },
        None => Anchor::Missing,
    });
    Ok(VerifyReport {
        lines: verifier.lines(),
        records: verifier.records(),
        torn: verifier.torn(),
        problems: problems.first,
        problem_count: problems.count,
        last: verifier.head().clone(),
        unfinished,
        anchor,
    })
}

/// The problem of the line after those that the verifier has checked.
fn too_long(verifier: &Verifier) -> Problem {
    Problem { line: verifier.lines() + 1, kind: ProblemKind::TooLong }
}

#[derive(Default)]
struct Problems {
    first: Vec<Problem>,
    count: u64,
}

impl Problems {
    fn add(&mut self, problem: Problem) {
        self.count += 1;
        if self.first.len() < LISTED {
            self.first.push(problem);
        }
    }
}

/// Lines of bounded length.
#[derive(Debug)]
struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    ended: bool,
}

enum LineError {
    Io(io::Error),
    TooLong,
}

impl<R: BufRead> Lines<R> {
    /// The next line with its line feed. A line without one is the last, even if the writer has completed it since.
    fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.buffer.clear();
        if self.ended {
            return Ok(None);
        }
        let limit = MAX_LINE as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer).map_err(LineError::Io)?;
        if !self.buffer.ends_with(b"\n") {
            self.ended = true;
            if read as u64 == limit {
                return Err(LineError::TooLong);
            }
        }
        Ok((read > 0).then_some(self.buffer.as_slice()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::Write;

    use super::super::samples;
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
        assert_eq!(records.head().seq, 4);
        assert_eq!(records.unfinished().map(|end| (end.line, end.bytes, end.whole)), Some((5, 15, false)));
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
        assert!(matches!(records.next(), Some(Err(AuditError::Damaged { line: 1, kind: ProblemKind::TooLong, .. }))));
        assert!(records.next().is_none());
    }

    #[test]
    fn a_newer_version_is_not_reported_as_damage() {
        let text = String::from_utf8(samples::chain(2).concat()).unwrap();
        let (first, second) = text.split_once('\n').unwrap();
        let newer = format!("{first}\n{}", second.replace("\"schema_version\":1", "\"schema_version\":9"));
        let file = file(newer.as_bytes());
        let last = read(file.path()).unwrap().last().unwrap();
        assert!(matches!(last, Err(AuditError::NewerVersion { line: 2, version: 9, .. })));
        assert!(matches!(verify(file.path(), None), Err(AuditError::NewerVersion { line: 2, version: 9, .. })));
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
        let anchor = |count: usize, hash: &str| {
            let report = verify(file(&lines[..count].concat()).path(), Some(hash)).unwrap();
            assert_eq!(report.is_intact(), report.anchor != Some(Anchor::Missing));
            report.anchor.unwrap()
        };
        assert_eq!(anchor(4, &kept), Anchor::Last);
        assert_eq!(anchor(4, &kept.to_uppercase()), Anchor::Last);
        assert_eq!(anchor(5, &kept), Anchor::Earlier { seq: 4 });
        assert_eq!(anchor(3, &kept), Anchor::Missing);
        assert_eq!(anchor(0, &kept), Anchor::Missing);
        assert_eq!(anchor(0, &Head::default().hash), Anchor::Last);
        // It is the hash of an empty log; nothing shows that this log continued that one.
        assert_eq!(anchor(5, &Head::default().hash), Anchor::Missing);
    }

    #[test]
    fn a_missing_log_is_distinguished() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(&directory.path().join("none")).unwrap_err().is_missing());
        assert!(!read(directory.path()).unwrap().next().unwrap().unwrap_err().is_missing());
    }
}
