//! The hash chain of the log. Pure, in constant memory.
//!
//! Each record carries the hash of the record before it. Lines that a crash cut off are not records and are outside the chain; the
//! record after them is a `torn` record, which carries their hash. So a hash covers every byte before the last line, and the digest in
//! the last record ([`line_digest`]) covers that line.

use std::fmt;

use sha2::{Digest, Sha256};

use super::line_digest::{self, LineDigest, digest, hex_of};
use super::parse::{self, NoRecord};
use super::record::{Event, Record, SCHEMA_VERSION, Torn};
use crate::domain::code::codes;

/// The last record of a chain, which the next one continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The last record's number; 0 before the first.
    pub seq: u64,
    /// SHA-256 of its line in hex; 64 zeros before the first.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }
}

/// A fault in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub line: u64,
    pub code: LogProblemCode,
    /// What is wrong with it: a fragment that follows `line N`.
    pub text: String,
}

impl Problem {
    pub(super) fn new(line: u64, code: LogProblemCode, text: impl Into<String>) -> Self {
        Self { line, code, text: text.into() }
    }

    pub(super) fn too_long(line: u64) -> Self {
        let text = format!("is longer than {} bytes, the limit for an audit record", super::MAX_LINE);
        Self::new(line, LogProblemCode::TooLong, text)
    }

    /// The problem of a line that is not a record.
    pub(super) fn no_record(line: u64, reason: &NoRecord) -> Self {
        let why = match reason {
            NoRecord::Truncated => "it ends too early",
            NoRecord::Other(why) => why,
            NoRecord::Newer(version) => {
                let text = format!(
                    "was written by a newer version of this program (schema version {version}, this one knows {SCHEMA_VERSION}): use that \
                     one, or another --audit-log"
                );
                return Self::new(line, LogProblemCode::NewerVersion, text);
            }
        };
        Self::new(line, LogProblemCode::NoRecord, format!("is not an audit record: {why}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} {}", self.line, self.text)
    }
}

const COMPARE_LOG: &str = "Keep the file as evidence, and compare it with a copy. Find out who could write to it.";

codes! {
    /// What is wrong with a line of the audit log.
    LogProblemCode {
    BrokenLink = "broken-link",
        "The hash of the record before does not match: that record was changed afterwards, or this one was.",
        COMPARE_LOG;
    NewerVersion = "newer-version",
        "A newer version of the program wrote the line.",
        "Use that version, or a newer one.";
    NoDigest = "no-digest",
        "The last record has no digest of its own, although a record before it has.",
        COMPARE_LOG;
    NoIntent = "no-intent",
        "The record is about a unit without an intent before it.",
        COMPARE_LOG;
    NoRecord = "no-record",
        "The line is not an audit record, and no later record says that a crash tore it.",
        COMPARE_LOG;
    TooLong = "too-long",
        "The line is longer than any audit record.",
        COMPARE_LOG;
    WrongDigest = "wrong-digest",
        "The record was changed after it was written: its own digest does not match.",
        COMPARE_LOG;
    WrongSeq = "wrong-seq",
        "Records before this one are missing, repeated or in another order.",
        COMPARE_LOG;
    WrongTorn = "wrong-torn",
        "The record describes a torn line that is not the one before it.",
        COMPARE_LOG;
    }
}

/// Lines that are not records, until a `torn` record explains them.
#[derive(Debug, Clone)]
struct Pending {
    bytes: u64,
    hasher: Sha256,
    /// The first line that a crash does not explain, or else the first line.
    problem: Problem,
    /// A crash explains all of them.
    cut_off: bool,
}

/// Checks that lines form a chain. It takes one line at a time and keeps only hashes.
///
/// After a problem it continues from the faulty line, so that one fault is one problem.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    /// The last record.
    pub(super) head: Head,
    /// The number of lines so far.
    pub(super) lines: u64,
    /// How many of them were records.
    pub(super) records: u64,
    /// How many of the records are `torn` records.
    pub(super) torn: u64,
    /// The length of the last record, and whether it had a line feed.
    last: Option<(u64, bool)>,
    /// A record so far has a digest.
    has_digests: bool,
    /// The line of the last record, if it has no digest although an earlier record has one.
    without_digest: Option<u64>,
    /// The last record was changed, so the hash in the next one cannot match.
    changed: bool,
    pending: Option<Pending>,
}

impl Verifier {
    /// Checks one line with its line feed, which only the very last line may lack. `None` means that the line is not a record; the next
    /// record or [`finish`](Self::finish) decides whether a crash explains it.
    pub fn feed(&mut self, line: &[u8]) -> Result<Option<Record>, Problem> {
        self.lines += 1;
        let terminated = line.ends_with(b"\n");
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let record = match parse::parse(line) {
            Ok(record) => record,
            Err(reason @ NoRecord::Newer(_)) => return Err(Problem::no_record(self.lines, &reason)),
            Err(reason) => {
                self.set_aside(line, &reason, terminated);
                return Ok(None);
            }
        };
        let stated = line_digest::check(line);
        let checked = self.check(&record, stated);
        self.without_digest = (self.has_digests && stated == LineDigest::Missing).then_some(self.lines);
        self.has_digests |= stated != LineDigest::Missing;
        self.changed = stated == LineDigest::Wrong;
        self.records += 1;
        self.torn += u64::from(matches!(record.event, Event::Torn(_)));
        self.head = Head { seq: record.seq, hash: digest(line) };
        self.last = Some((line.len() as u64, terminated));
        checked.map(|()| Some(record))
    }

    /// Returns whether the log has an unfinished end, after the last line: it is being written, or its writer died. This is not damage. A
    /// complete record that lacks only its line feed counts as a record.
    pub fn finish(&mut self) -> Result<bool, Problem> {
        match self.pending.take() {
            Some(pending) if !pending.cut_off => Err(pending.problem),
            Some(_) => Ok(true),
            None => Ok(matches!(self.last, Some((_, false)))),
        }
    }

    /// The problem of a last record without a digest in a log that has digests. Nothing shows whether it was changed; the record after
    /// it would. It is still read, because an older version of this program may write to the same log.
    pub fn unprotected(&self) -> Option<Problem> {
        let text = "has no digest, although earlier records have one: it was changed, or an older version of this program wrote it";
        self.without_digest.map(|line| Problem::new(line, LogProblemCode::NoDigest, text))
    }

    /// A problem with the current line.
    fn problem(&self, code: LogProblemCode, text: impl Into<String>) -> Problem {
        Problem::new(self.lines, code, text)
    }

    /// Adds a line that is not a record to the pending hash.
    fn set_aside(&mut self, line: &[u8], reason: &NoRecord, terminated: bool) {
        let cut_off = parse::is_cut_off(line, reason, terminated, self.lines == 1);
        let problem = Problem::no_record(self.lines, reason);
        match &mut self.pending {
            Some(pending) => {
                pending.bytes += 1 + line.len() as u64;
                pending.hasher.update(b"\n");
                pending.hasher.update(line);
                if pending.cut_off && !cut_off {
                    pending.problem = problem;
                }
                pending.cut_off &= cut_off;
            }
            None => {
                let hasher = Sha256::new_with_prefix(line);
                self.pending = Some(Pending { bytes: line.len() as u64, hasher, problem, cut_off });
            }
        }
    }

    /// Checks that a record follows the lines before it.
    fn check(&mut self, record: &Record, stated: LineDigest) -> Result<(), Problem> {
        let torn = match self.pending.take() {
            // Only a `torn` record explains lines that are not records.
            Some(pending) if !matches!(record.event, Event::Torn(_)) => return Err(pending.problem),
            Some(pending) => Some(Torn { bytes: pending.bytes, sha256: hex_of(pending.hasher) }),
            None => self.last.map(|(bytes, _)| Torn { bytes, sha256: self.head.hash.clone() }),
        };
        if stated == LineDigest::Wrong {
            return Err(self.problem(LogProblemCode::WrongDigest, "was changed after it was written: its digest does not match"));
        }
        let (expected, found) = (self.head.seq.saturating_add(1), record.seq);
        if found != expected {
            let what = if found > expected { "records before it are missing" } else { "records were repeated or moved" };
            let text = format!("is record {found} where record {expected} is expected: {what}");
            return Err(self.problem(LogProblemCode::WrongSeq, text));
        }
        if record.previous != self.head.hash && !self.changed {
            let text = format!(
                "does not follow the record before it, which was changed: its SHA-256 is {}, but {} is recorded",
                self.head.hash, record.previous
            );
            return Err(self.problem(LogProblemCode::BrokenLink, text));
        }
        match &record.event {
            Event::Torn(stated) if torn.as_ref() != Some(stated) => {
                Err(self.problem(LogProblemCode::WrongTorn, "describes a torn line that is not the one before it"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::tests::samples;
    use super::*;
    use crate::domain::CodeSet;

    /// All problems of these lines, the end included.
    fn problems(lines: &[Vec<u8>]) -> Vec<(u64, &'static str)> {
        let mut verifier = Verifier::default();
        let mut found: Vec<Problem> = lines.iter().filter_map(|line| verifier.feed(line).err()).collect();
        found.extend(verifier.finish().err());
        found.extend(verifier.unprotected());
        found.into_iter().map(|problem| (problem.line, problem.code.as_str())).collect()
    }

    fn of(content: &[u8]) -> Vec<(u64, &'static str)> {
        problems(&content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>())
    }

    #[test]
    fn the_digest_is_the_sha_256_without_the_line_feed() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc"), known);
        assert_eq!(digest(b"abc\n"), known);
        assert_ne!(digest(b"abc\n\n"), known);
    }

    #[test]
    fn a_chain_is_accepted_with_or_without_the_last_line_feed() {
        let mut lines = samples::chain(5);
        assert_eq!(problems(&lines), []);
        lines[4].pop();
        let mut verifier = Verifier::default();
        let records: Vec<_> = lines.iter().map(|line| verifier.feed(line).unwrap().unwrap()).collect();
        assert_eq!(records.len(), 5);
        assert_eq!((verifier.finish().unwrap(), verifier.records), (true, 5));
        assert_eq!(verifier.head, Head { seq: 5, hash: digest(&lines[4]) });
    }

    #[test]
    fn each_fault_is_reported_once_in_its_own_line() {
        let whole = samples::chain(6);

        let mut changed = whole.clone();
        changed[2] = String::from_utf8(changed[2].clone()).unwrap().replace("2026", "2027").into_bytes();
        assert_eq!(problems(&changed), [(4, "broken-link")]);

        let mut removed = whole.clone();
        removed.remove(2);
        assert_eq!(problems(&removed), [(3, "wrong-seq")]);

        let mut first_removed = whole.clone();
        first_removed.remove(0);
        assert_eq!(problems(&first_removed), [(1, "wrong-seq")]);

        let mut doubled = whole.clone();
        doubled.insert(3, whole[2].clone());
        assert_eq!(problems(&doubled), [(4, "wrong-seq")]);

        let mut garbled = whole.clone();
        garbled[2][0] = b'[';
        assert_eq!(problems(&garbled), [(3, "no-record")]);

        let mut garbled_last = whole.clone();
        garbled_last[5][0] = b'[';
        assert_eq!(problems(&garbled_last), [(6, "no-record")]);

        let mut cut = whole.clone();
        cut[2].truncate(20);
        cut[2].push(b'\n');
        assert_eq!(problems(&cut), [(3, "no-record")]);
    }

    /// The record after a changed one is not reported. A record that is changed together with its digest shows in the next one.
    #[test]
    fn a_change_is_reported_in_its_own_line_even_in_the_last_one() {
        let whole = samples::with_digests(&samples::chain(6));
        assert_eq!(problems(&whole), []);
        for (at, line) in whole.iter().enumerate() {
            let text = String::from_utf8(line.clone()).unwrap();
            let edited = text.replacen("2026", "2027", 1);
            let number = at as u64 + 1;
            let with = |line: String| [&whole[..at], &[line.into_bytes()], &whole[at + 1..]].concat();
            assert_eq!(problems(&with(edited.clone())), [(number, "wrong-digest")]);
            let (content, _) = edited.split_once(",\"digest\"").unwrap();
            assert_eq!(
                problems(&with(line_digest::with_digest(format!("{content}}}")) + "\n")),
                if at < 5 { vec![(number + 1, "broken-link")] } else { vec![] }
            );
            let without = problems(&with(format!("{content}}}\n")));
            assert_eq!(without, [if at < 5 { (number + 1, "broken-link") } else { (number, "no-digest") }]);
            for byte in 0..line.len() {
                let mut changed = whole.clone();
                changed[at][byte] ^= 1 << (byte % 8);
                assert_ne!(of(&changed.concat()), [], "byte {byte} of line {number}");
            }
        }
    }

    /// Two versions may share a log, one that writes digests and an older one that does not. Only the last record is then unprotected.
    #[test]
    fn a_record_without_a_digest_is_read_and_protected_by_the_next_one() {
        let mut lines = samples::chain(3);
        for (number, has_digest) in [(4, true), (5, false), (6, false), (7, true)] {
            let previous = digest(&lines[number - 2]);
            let text = serde_json::to_string(&samples::record(number as u64, &previous, "run", samples::end())).unwrap();
            lines.push((if has_digest { line_digest::with_digest(text) } else { text } + "\n").into_bytes());
            assert_eq!(problems(&lines), if has_digest { vec![] } else { vec![(number as u64, "no-digest")] });
        }
        let mut verifier = Verifier::default();
        lines.iter().for_each(|line| assert!(matches!(verifier.feed(line), Ok(Some(_)))));
        lines[4] = String::from_utf8(lines[4].clone()).unwrap().replacen("2026", "2027", 1).into_bytes();
        assert_eq!(problems(&lines), [(6, "broken-link")]);
    }

    #[test]
    fn only_a_torn_record_explains_torn_lines() {
        let mut lines = samples::chain(3);
        let head = Head { seq: 3, hash: digest(&lines[2]) };
        let fragments = [&b"{\"schema\":\"cin"[..], b"\0\0\0"];
        let region = fragments.join(&b'\n');
        lines.extend(fragments.map(|fragment| [fragment, b"\n"].concat()));
        let mut garbage_at_the_end = Verifier::default();
        lines.iter().for_each(|line| assert!(garbage_at_the_end.feed(line).is_ok()));
        // Line 5 has a line feed, so it was not cut off.
        assert_eq!(garbage_at_the_end.finish().unwrap_err().line, 5);

        let torn = |bytes: usize, sha256: String, seq: u64, previous: String| {
            let mut line =
                serde_json::to_vec(&samples::record(seq, &previous, "-", Event::Torn(Torn { bytes: bytes as u64, sha256 }))).unwrap();
            line.push(b'\n');
            [lines.clone(), vec![line]].concat()
        };
        let (bytes, hash) = (region.len(), digest(&region));
        assert_eq!(problems(&torn(bytes, hash.clone(), 4, head.hash.clone())), []);
        assert_eq!(problems(&torn(bytes - 1, hash.clone(), 4, head.hash.clone())), [(6, "wrong-torn")]);
        assert_eq!(problems(&torn(bytes, head.hash.clone(), 4, head.hash.clone())), [(6, "wrong-torn")]);
        assert_eq!(problems(&torn(bytes, hash.clone(), 4, hash.clone())), [(6, "broken-link")]);
        assert_eq!(problems(&torn(bytes, hash, 5, head.hash.clone())), [(6, "wrong-seq")]);
    }

    /// Once no hash covered the record before a torn line, because the `torn` record carried only the hash of the fragment.
    #[test]
    fn a_hash_covers_every_bit_before_the_last_line_with_a_torn_line_too() {
        let mut lines = samples::chain(2);
        let mut head = Head { seq: 2, hash: digest(&lines[1]) };
        let fragment = &b"{\"schema\":\"cinder-backup-repair/audit\",\"sch"[..];
        let (bytes, sha256) = (fragment.len() as u64, digest(fragment));
        lines.push([fragment, b"\n"].concat());
        for event in [Event::Torn(Torn { bytes, sha256 }), samples::end(), samples::end()] {
            let mut line = serde_json::to_vec(&samples::record(head.seq + 1, &head.hash, "run", event)).unwrap();
            head = Head { seq: head.seq + 1, hash: digest(&line) };
            line.push(b'\n');
            lines.push(line);
        }
        let whole = lines.concat();
        assert_eq!(of(&whole), []);
        for at in 0..whole.len() - lines[5].len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(of(&changed), [], "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_foreign_file_is_not_taken_for_the_beginning_of_a_log() {
        for foreign in [&b"secret"[..], b"{\"schema\":\"other", b"{}"] {
            let mut verifier = Verifier::default();
            assert_eq!(verifier.feed(foreign), Ok(None));
            assert_eq!(verifier.finish().unwrap_err().line, 1, "{}", foreign.escape_ascii());
        }
        let mut verifier = Verifier::default();
        assert_eq!(verifier.feed(b"{\"sch"), Ok(None));
        assert!(verifier.finish().unwrap());
    }

    #[test]
    fn a_newer_version_is_named() {
        let line = String::from_utf8(samples::chain(1)[0].clone()).unwrap().replace("\"schema_version\":1", "\"schema_version\":3");
        let problem = Verifier::default().feed(line.as_bytes()).unwrap_err();
        assert_eq!(problem.code, LogProblemCode::NewerVersion);
        assert!(problem.text.contains("schema version 3, this one knows 1"), "{problem}");
        assert!(problem.to_string().contains("newer version"));
    }
}
