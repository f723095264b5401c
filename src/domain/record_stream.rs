//! Record streams: documents as JSON lines, for results that are too many to be in memory at once.
//!
//! The first line is the head, which names the schema. Each line after it has one record, and the last line the closing record with the
//! number of records. Every line has the SHA-256 of itself and the digest of the line before, so that a reader notices an edit at once,
//! and the digest of the last line is that of the whole stream. Writer and reader hold one line at a time.
//!
//! A line is `{"KIND":{…},"sha256":"…"}`, with a signature at its end if the stream is signed. The digest covers the text
//! `["DIGEST OF THE LINE BEFORE",{"KIND":{…}}]`, as it is written: fields of a later version do not break it.

use std::fmt;
use std::io::{self, BufRead, Cursor, Read, Write};
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error as ThisError;

use super::text::json_escaped;
use super::{SealError, Signature, hex};

/// The longest line, in bytes.
const LONGEST_LINE: u64 = 64 << 20;
/// How every stream begins.
const START: &[u8] = br#"{"head":"#;
/// What comes between the record of a line and its digest.
const SEPARATOR: &str = r#","sha256":""#;

/// A kind of record stream.
pub trait StreamKind {
    /// The name of the schema.
    const SCHEMA: &'static str;
    /// The version that this program writes, and the latest that it reads.
    const SCHEMA_VERSION: u32;
    /// What the stream is, for an error that says that another file is not one.
    const KIND: &'static str;
    /// What to do instead of an edit.
    const INSTEAD: &'static str;
    /// The fields of the head.
    type Head: Serialize + DeserializeOwned;
    /// A record: an enum whose variants are the kinds of lines.
    type Record: Serialize + DeserializeOwned;
    /// The fields of the closing record.
    type End: Serialize + DeserializeOwned;
}

/// Why a stream cannot be used; displayed as a fragment that follows the file's name.
#[derive(Debug, ThisError)]
pub enum StreamError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else, of a later version, or was edited.
    #[error("{0}{at}", at = at(*.1))]
    Seal(SealError, u64),
    /// It ends without a closing record, or within a line.
    #[error("is cut off after line {0}: it has no closing record")]
    CutOff(u64),
}

fn at(line: u64) -> String {
    if line == 0 { String::new() } else { format!(" (line {line})") }
}

#[derive(Serialize, Deserialize)]
struct Head<T> {
    schema: String,
    schema_version: u32,
    #[serde(flatten)]
    fields: T,
}

#[derive(Serialize, Deserialize)]
struct HeadLine<T> {
    head: T,
}

#[derive(Serialize, Deserialize)]
struct End<T> {
    records: u64,
    #[serde(flatten)]
    fields: T,
}

#[derive(Serialize, Deserialize)]
struct EndLine<T> {
    end: T,
}

/// Signs the digest of a line.
pub type Sign<'a> = Box<dyn Fn(&str) -> Signature + 'a>;

/// Writes a stream.
pub struct StreamWriter<'a, K, W> {
    out: W,
    sign: Option<Sign<'a>>,
    last: String,
    records: u64,
    kind: PhantomData<K>,
}

impl<'a, K: StreamKind, W: Write> StreamWriter<'a, K, W> {
    /// Writes the head. With `sign`, every line has a signature of the digest of all lines up to it.
    ///
    /// # Errors
    /// The writer's errors.
    pub fn begin(out: W, head: &K::Head, sign: Option<Sign<'a>>) -> io::Result<Self> {
        let mut writer = Self { out, sign, last: String::new(), records: 0, kind: PhantomData };
        let head = Head { schema: K::SCHEMA.to_owned(), schema_version: K::SCHEMA_VERSION, fields: head };
        writer.line(&HeadLine { head })?;
        Ok(writer)
    }

    /// Writes a record.
    ///
    /// # Errors
    /// The writer's errors.
    pub fn add(&mut self, record: &K::Record) -> io::Result<()> {
        self.records += 1;
        self.line(record)
    }

    /// Writes the closing record and flushes; returns the digest of the stream.
    ///
    /// # Errors
    /// The writer's errors.
    pub fn end(mut self, end: &K::End) -> io::Result<String> {
        let end = End { records: self.records, fields: end };
        self.line(&EndLine { end })?;
        self.out.flush()?;
        Ok(self.last)
    }

    /// What it writes to.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    fn line(&mut self, record: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(record)?;
        let text = json_escaped(&text);
        let digest = digest(&self.last, &text);
        let mut line = text.strip_suffix('}').unwrap_or(&text).to_owned() + SEPARATOR + &digest + "\"";
        if let Some(sign) = &self.sign {
            line += ",\"signature\":";
            line += &serde_json::to_string(&sign(&digest))?;
        }
        line += "}\n";
        // One write for each line: a program that is killed leaves complete lines.
        self.out.write_all(line.as_bytes())?;
        self.last = digest;
        Ok(())
    }
}

fn digest(last: &str, record: &str) -> String {
    let mut hasher = Sha256::new();
    for part in ["[\"", last, "\",", record, "]"] {
        hasher.update(part.as_bytes());
    }
    hex::encode(&hasher.finalize())
}

/// The first 8 bytes of the SHA-256 of a record.
fn fingerprint(record: &str) -> u64 {
    Sha256::digest(record.as_bytes()).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Reads a stream, and makes sure line by line that it was not edited.
pub struct StreamReader<K: StreamKind, R> {
    input: R,
    line: u64,
    position: u64,
    last: String,
    signature: Option<Signature>,
    fingerprint: u64,
    records: u64,
    end: Option<K::End>,
}

impl<K: StreamKind, R: BufRead> StreamReader<K, R> {
    /// Reads the head.
    ///
    /// # Errors
    /// Another stream, one of a later version, and one without a complete head.
    pub fn begin(input: R) -> Result<(K::Head, Self), StreamError> {
        #[derive(Deserialize)]
        struct Version {
            schema: String,
            schema_version: u32,
        }
        let mut reader = Self { input, line: 0, position: 0, last: String::new(), signature: None, fingerprint: 0, records: 0, end: None };
        let Some(line) = reader.read_line()? else { return Err(reader.invalid("its first line is incomplete")) };
        // Before the digest: that of a later version may be computed in another way.
        let version: HeadLine<Version> = serde_json::from_str(&line).map_err(|error| reader.invalid(error))?;
        if version.head.schema != K::SCHEMA {
            return Err(reader.invalid(format!("its schema is {:?}", version.head.schema)));
        }
        if version.head.schema_version > K::SCHEMA_VERSION {
            return Err(StreamError::Seal(SealError::Newer(version.head.schema_version), 0));
        }
        let text = reader.verified(line)?;
        let head: HeadLine<Head<K::Head>> = serde_json::from_str(&text).map_err(|error| reader.invalid(error))?;
        Ok((head.head.fields, reader))
    }

    /// Reads the next record; `None` after the closing record.
    ///
    /// # Errors
    /// A line that was edited or is not such a record, and a stream that ends without a closing record.
    pub fn next_record(&mut self) -> Result<Option<K::Record>, StreamError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let Some(line) = self.read_line()? else { return Err(StreamError::CutOff(self.line)) };
        let text = self.verified(line)?;
        if !text.starts_with(r#"{"end":"#) {
            self.records += 1;
            return serde_json::from_str(&text).map(Some).map_err(|error| self.invalid(error));
        }
        let end: EndLine<End<K::End>> = serde_json::from_str(&text).map_err(|error| self.invalid(error))?;
        if end.end.records != self.records {
            return Err(self.invalid(format!("it has {} records, and its closing record counts {}", self.records, end.end.records)));
        }
        if !self.input.fill_buf()?.is_empty() {
            return Err(self.invalid("it continues after its closing record"));
        }
        self.end = Some(end.end.fields);
        Ok(None)
    }

    /// The closing record, once it was read.
    pub fn end(&self) -> Option<&K::End> {
        self.end.as_ref()
    }

    /// How many records were read.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The digest of the last line that was read.
    pub fn sha256(&self) -> &str {
        &self.last
    }

    /// The number of bytes up to the next line.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The fingerprint of the last record that was read, for [`read_again`].
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The signature of the last line that was read.
    pub fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    /// The error for a line that is not as it must be.
    fn invalid(&self, problem: impl fmt::Display) -> StreamError {
        StreamError::Seal(SealError::Invalid { kind: K::KIND, problem: problem.to_string() }, self.line)
    }

    /// The next line without its line feed; `None` at the end, and for a line without a line feed.
    fn read_line(&mut self) -> Result<Option<String>, StreamError> {
        let mut line = Vec::new();
        let length = self.input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return if line.len() as u64 + 1 < LONGEST_LINE { Ok(None) } else { Err(self.invalid("a line is longer than 64 MiB")) };
        }
        self.line += 1;
        self.position += length as u64;
        String::from_utf8(line).map(Some).map_err(|error| self.invalid(error))
    }

    /// The record of a line as text, if its digest matches.
    fn verified(&mut self, mut line: String) -> Result<String, StreamError> {
        #[derive(Deserialize)]
        struct Seal {
            sha256: String,
            signature: Option<Signature>,
        }
        // Text in a record has its quotes escaped, and what follows the digest has no such field.
        let Some((record, seal)) = line.rsplit_once(SEPARATOR) else { return Err(self.invalid("a line has no sha256")) };
        let seal = format!("{{{}{seal}", SEPARATOR.trim_start_matches(','));
        let seal: Seal = serde_json::from_str(&seal).map_err(|error| self.invalid(error))?;
        let length = record.len();
        line.truncate(length);
        line.push('}');
        if digest(&self.last, &line) != seal.sha256 {
            return Err(StreamError::Seal(SealError::Edited(K::INSTEAD), self.line));
        }
        (self.last, self.signature) = (seal.sha256, seal.signature);
        self.fingerprint = fingerprint(&line);
        Ok(line)
    }
}

/// Reads a record again, at a position where a [`StreamReader`] found it.
///
/// # Errors
/// The input's errors, and a record with another fingerprint: the input changed since.
pub fn read_again<K: StreamKind>(mut input: impl BufRead, expected: u64) -> Result<K::Record, StreamError> {
    let mut line = String::new();
    input.by_ref().take(LONGEST_LINE).read_line(&mut line)?;
    let record = line.rsplit_once(SEPARATOR).map_or("", |(record, _)| record).to_owned() + "}";
    if fingerprint(&record) != expected {
        return Err(StreamError::Seal(SealError::Edited(K::INSTEAD), 0));
    }
    let invalid = |error: serde_json::Error| SealError::Invalid { kind: K::KIND, problem: error.to_string() };
    serde_json::from_str(&record).map_err(|error| StreamError::Seal(invalid(error), 0))
}

/// An input from its beginning, after its first bytes were read.
pub type Rewound<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Whether an input begins like a stream, and the input from its beginning. A sealed document has no `head`.
///
/// # Errors
/// The input's errors.
pub fn is_stream<R: Read>(mut input: R) -> io::Result<(bool, Rewound<R>)> {
    let mut start = Vec::new();
    input.by_ref().take(START.len() as u64).read_to_end(&mut start)?;
    Ok((start == START, Cursor::new(start).chain(input)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Names;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Record {
        Name(String),
        Number(u64),
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Fields {
        title: String,
    }

    impl StreamKind for Names {
        const SCHEMA: &'static str = "names";
        const SCHEMA_VERSION: u32 = 2;
        const KIND: &'static str = "a list of names";
        const INSTEAD: &'static str = "write it again";
        type Head = Fields;
        type Record = Record;
        type End = Fields;
    }

    fn fields() -> Fields {
        Fields { title: "t\u{202e}".to_owned() }
    }

    fn written(records: &[Record], is_signed: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let sign =
            |digest: &str| Signature { algorithm: "a".to_owned(), public_key: SEPARATOR.to_owned(), value: digest.chars().rev().collect() };
        let sign = is_signed.then(|| Box::new(sign) as Sign<'_>);
        let mut writer = StreamWriter::<Names, _>::begin(&mut out, &fields(), sign).unwrap();
        records.iter().for_each(|record| writer.add(record).unwrap());
        writer.end(&fields()).unwrap();
        out
    }

    fn read(text: &[u8]) -> Result<Vec<Record>, StreamError> {
        let (head, mut reader) = StreamReader::<Names, _>::begin(text)?;
        assert_eq!(head, fields());
        let mut records = Vec::new();
        while let Some(record) = reader.next_record()? {
            records.push(record);
        }
        assert_eq!(reader.end(), Some(&fields()));
        Ok(records)
    }

    fn problem(text: &[u8]) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn a_later_version_and_another_schema_are_refused() {
        let text = String::from_utf8(written(&[], false)).unwrap();
        let sealed = |head: &str| format!("{{{head},\"sha256\":\"{}\"}}\n", digest("", &format!("{{{head}}}")));
        let head = r#""head":{"schema":"names","schema_version":3,"more":1}"#;
        assert_eq!(
            problem(sealed(head).as_bytes()),
            "has schema version 3, which is newer than this program; use the version that wrote it"
        );
        let other = sealed(&head.replace("names", "others"));
        assert_eq!(problem(other.as_bytes()), "is not a list of names: its schema is \"others\" (line 1)");
        let more = sealed(r#""head":{"schema":"names","schema_version":2,"title":"t\u202e","more":1}"#);
        assert_eq!(problem(more.as_bytes()), "is cut off after line 1: it has no closing record", "a field that it does not know");
        assert!(is_stream(text.as_bytes()).unwrap().0 && !is_stream(&b"{}"[..]).unwrap().0);
    }

    #[test]
    fn a_stream_ends_with_its_closing_record() {
        let text = written(&[Record::Number(1)], false);
        let again = [&text[..], b"x"].concat();
        assert_eq!(problem(&again), "is not a list of names: it continues after its closing record (line 3)");
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let without = [lines.first().copied().unwrap(), lines.last().copied().unwrap()].concat();
        assert_eq!(problem(&without), "was edited after it was written: its SHA-256 does not match; write it again (line 2)");
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(names in prop::collection::vec(".*|\\PC*", 0..5), number: u64, is_signed: bool) {
            let mut records: Vec<Record> = names.into_iter().map(Record::Name).collect();
            records.push(Record::Name(format!("{SEPARATOR}\"}}")));
            records.push(Record::Number(number));
            let text = written(&records, is_signed);
            let is_safe = |c: char| c == '\n' || !super::super::text::is_hostile(c);
            prop_assert!(String::from_utf8(text.clone()).unwrap().chars().all(is_safe));
            prop_assert_eq!(read(&text).unwrap(), records);
        }

        #[test]
        fn every_edit_and_every_cut_is_noticed(place in 0_usize..400, byte: u8) {
            let records = [Record::Name("a".to_owned()), Record::Number(7), Record::Name("b".to_owned())];
            let text = written(&records, false);
            let place = place % text.len();
            prop_assert!(read(&text[..place]).is_err());
            let mut edited = text.clone();
            edited[place] = byte;
            prop_assert!(edited == text || read(&edited).is_err());
        }
    }
}
