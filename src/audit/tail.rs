//! Reads the end of a log backwards, so that a writer can continue it without reading the whole file. Pure over `Read + Seek`.

use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

use super::MAX_LINE;
use super::chain::{Head, Problem};
use super::line_digest::{digest, hex_of};
use super::parse;
use super::record::Torn;

/// How much is read first, in bytes. Most lines are shorter.
const WINDOW: u64 = 64 << 10;

/// The end of a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The last record, which the next one continues.
    pub head: Head,
    /// Torn lines that no record describes yet.
    pub torn: Option<Torn>,
    /// The last line has its line feed.
    pub terminated: bool,
}

/// Reads the end of a log of `len` bytes, backwards to the last record. Lines after it that a crash explains are torn; any other line
/// is a problem.
pub(super) fn read<F: Read + Seek>(file: &mut F, len: u64) -> io::Result<Result<Tail, Problem>> {
    if len == 0 {
        return Ok(Ok(Tail { head: Head::default(), torn: None, terminated: true }));
    }
    let terminated = bytes(file, len - 1, len)? == b"\n";
    let end = if terminated { len - 1 } else { len };
    let mut line_end = end;
    loop {
        let last = line_end == end;
        let Some((start, line)) = line_before(file, line_end)? else {
            return Ok(Err(Problem::too_long(line_of(file, line_end)?)));
        };
        match parse::parse(&line) {
            Ok(record) => {
                let torn = match (last, terminated) {
                    (true, true) => None,
                    (true, false) => Some(Torn { bytes: line.len() as u64, sha256: digest(&line) }),
                    (false, _) => Some(region(file, line_end + 1, end)?),
                };
                return Ok(Ok(Tail { head: Head { seq: record.seq, hash: digest(&line) }, torn, terminated }));
            }
            Err(reason) if !parse::is_cut_off(&line, &reason, terminated || !last, start == 0) => {
                return Ok(Err(Problem::no_record(line_of(file, start)?, &reason)));
            }
            Err(_) if start == 0 => {
                return Ok(Ok(Tail { head: Head::default(), torn: Some(region(file, 0, end)?), terminated }));
            }
            Err(_) => line_end = start - 1,
        }
    }
}

/// The bytes from `start` to `end`.
fn bytes<F: Read + Seek>(file: &mut F, start: u64, end: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    let wanted = end - start;
    if file.by_ref().take(wanted).read_to_end(&mut bytes)? as u64 == wanted {
        Ok(bytes)
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"))
    }
}

/// The line that ends at `end`, and where it begins; `None` if it is too long.
fn line_before<F: Read + Seek>(file: &mut F, end: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let limit = MAX_LINE as u64 + 1;
    let mut window = WINDOW;
    loop {
        let from = end.saturating_sub(window);
        let mut read = bytes(file, from, end)?;
        if let Some(at) = read.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some((from + at as u64 + 1, read.split_off(at + 1))));
        }
        if from == 0 && read.len() <= MAX_LINE {
            return Ok(Some((0, read)));
        }
        if window >= limit {
            return Ok(None);
        }
        window = limit.min(window * 8);
    }
}

/// A description of the bytes from `start` to `end`.
fn region<F: Read + Seek>(file: &mut F, start: u64, end: u64) -> io::Result<Torn> {
    let mut hasher = Sha256::new();
    let mut from = start;
    while from < end {
        let to = end.min(from + WINDOW);
        hasher.update(bytes(file, from, to)?);
        from = to;
    }
    Ok(Torn { bytes: end - start, sha256: hex_of(hasher) })
}

/// The number of the line that holds the byte at `at`. Reads the whole file before it.
fn line_of<F: Read + Seek>(file: &mut F, at: u64) -> io::Result<u64> {
    let mut line = 1;
    let mut from = 0;
    while from < at {
        let to = at.min(from + WINDOW);
        line += bytes(file, from, to)?.iter().filter(|byte| **byte == b'\n').count() as u64;
        from = to;
    }
    Ok(line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::io::Cursor;

    use super::super::record::Event;
    use super::super::tests::samples;
    use super::*;
    use crate::domain::CodeSet;

    fn tail(content: &[u8]) -> Result<Tail, Problem> {
        read(&mut Cursor::new(content), content.len() as u64).unwrap()
    }

    fn found_problem(content: &[u8]) -> (u64, &'static str) {
        match tail(content) {
            Err(problem) => (problem.line, problem.code.as_str()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_empty_file_begins_a_chain() {
        assert_eq!(tail(b"").unwrap(), Tail { head: Head::default(), torn: None, terminated: true });
    }

    #[test]
    fn the_last_line_is_found_however_long_it_is() {
        for padding in [0, 65_000, 65_536, 70_000, 600_000] {
            let mut lines = samples::chain(3);
            let mut long = samples::record(4, &digest(lines.last().unwrap()), "run", samples::event(0));
            if let Event::Begin(begin) = &mut long.event {
                begin.reason = Some("x".repeat(padding));
            }
            lines.push(serde_json::to_vec(&long).unwrap());
            lines.last_mut().unwrap().push(b'\n');
            let found = tail(&lines.concat()).unwrap();
            let head = Head { seq: 4, hash: digest(lines.last().unwrap()) };
            assert_eq!(found, Tail { head, torn: None, terminated: true }, "{padding}");
        }
    }

    #[test]
    fn fragments_at_the_end_are_skipped() {
        let lines = samples::chain(3);
        let whole = lines.concat();
        let fragments = b"{\"sche\n{\"schema\":\n\n{\"sch";
        let found = tail(&[&whole[..], fragments].concat()).unwrap();
        let torn = Torn { bytes: fragments.len() as u64, sha256: digest(fragments) };
        let head = Head { seq: 3, hash: digest(&lines[2]) };
        assert_eq!(found, Tail { head, torn: Some(torn.clone()), terminated: false });
        assert_eq!(tail(fragments).unwrap(), Tail { head: Head::default(), torn: Some(torn), terminated: false });
    }

    #[test]
    fn a_file_that_is_not_a_log_is_a_problem() {
        let whole = samples::chain(3).concat();
        assert_eq!(found_problem(b"root:x:0:0\n"), (1, "no-record"));
        assert_eq!(found_problem(b"secret"), (1, "no-record"));
        assert_eq!(found_problem(&[&whole[..], b"garbage\n"].concat()), (4, "no-record"));
        assert_eq!(found_problem(&[&whole[..], b"garbage\n{\"sch"].concat()), (4, "no-record"));
        assert_eq!(found_problem(&vec![b' '; MAX_LINE + 1]), (1, "too-long"));
        assert_eq!(found_problem(&[&whole[..], &vec![b' '; MAX_LINE + 1]].concat()), (4, "too-long"));
        let newer = String::from_utf8(samples::chain(1).concat()).unwrap().replace("\"schema_version\":1", "\"schema_version\":2");
        assert_eq!(found_problem(newer.as_bytes()), (1, "newer-version"));
    }
}
