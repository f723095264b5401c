//! Reads the stream of `rbd export-diff`: the extents of an image, their bytes, and an end mark that proves that it is complete.
//!
//! Format: `rbd diff v1\n`, then records: `f` and `t` (names of the snapshots), `s` (size), `w` (offset, length, bytes), `z`
//! (offset, length), `e` (the end). Numbers are little-endian. Source: Ceph's `doc/dev/rbd-diff.rst`.

use std::io::{self, BufReader, Read};

use crate::storage::{StorageError, StorageErrorKind};

const MAGIC: &[u8; 12] = b"rbd diff v1\n";
/// The limit for the name of a snapshot, in bytes.
const LONGEST_NAME: u32 = 4096;
const BUFFER: usize = 1 << 20;

/// A segment of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Position in the image, in bytes.
    pub offset: u64,
    /// Length in bytes; never 0.
    pub length: u64,
    /// The segment is all zeros, and the stream has no bytes for it.
    pub zero: bool,
}

/// A reader of such a stream. The image is zero outside of the segments.
pub struct ExportReader<R> {
    reader: BufReader<R>,
    about: String,
    size: Option<u64>,
    /// Bytes of the current segment that have not been read.
    left: u64,
    ended: bool,
}

impl<R: Read> ExportReader<R> {
    /// Reads the head of a stream.
    ///
    /// # Errors
    /// Errors of the stream, and `Protocol` if the format is wrong.
    pub fn new(reader: R, about: impl Into<String>) -> Result<Self, StorageError> {
        let mut export = Self { reader: BufReader::with_capacity(BUFFER, reader), about: about.into(), size: None, left: 0, ended: false };
        if export.bytes()? == *MAGIC { Ok(export) } else { Err(export.format_error("it begins with another magic number")) }
    }

    /// Skips the rest of the current segment and returns the next one; `None` at the end of a complete stream.
    ///
    /// # Errors
    /// A stream that breaks off, or has a wrong format.
    pub fn next_segment(&mut self) -> Result<Option<Segment>, StorageError> {
        self.skip()?;
        while !self.ended {
            let [tag] = self.bytes()?;
            match tag {
                b'f' | b't' => {
                    let length = u32::from_le_bytes(self.bytes()?);
                    if length > LONGEST_NAME {
                        return Err(self.format_error("a snapshot's name is too long"));
                    }
                    self.left = u64::from(length);
                    self.skip()?;
                }
                b's' => self.size = Some(self.number()?),
                b'w' | b'z' => {
                    let (offset, length) = (self.number()?, self.number()?);
                    if offset.checked_add(length).is_none_or(|end| self.size.is_some_and(|size| end > size)) {
                        return Err(self.format_error("an extent lies beyond the image's end"));
                    }
                    let zero = tag == b'z';
                    self.left = if zero { 0 } else { length };
                    if length > 0 {
                        return Ok(Some(Segment { offset, length, zero }));
                    }
                }
                // Nothing may follow. The stream ends only after the command has ended successfully.
                b'e' => match self.reader.read(&mut [0]) {
                    Ok(0) => self.ended = true,
                    Ok(_) => return Err(self.format_error("bytes follow its end mark")),
                    Err(error) => return Err(self.stream_error(error)),
                },
                other => return Err(self.format_error(&format!("it has a record of the unknown kind {other:#04x}"))),
            }
        }
        Ok(None)
    }

    /// Reads bytes of the current segment; returns 0 at its end, and for a segment of zeros.
    ///
    /// # Errors
    /// A stream that breaks off.
    pub fn read_segment(&mut self, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most) else { return Ok(0) };
        self.read_exact(buffer)?;
        self.left = self.left.saturating_sub(most as u64);
        Ok(most)
    }

    fn skip(&mut self) -> Result<(), StorageError> {
        if self.left > 0 {
            let left = std::mem::take(&mut self.left);
            let copied = io::copy(&mut (&mut self.reader).take(left), &mut io::sink()).map_err(|error| self.stream_error(error))?;
            if copied < left {
                return Err(self.format_error("it ends early"));
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u64, StorageError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StorageError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.reader.read_exact(buffer).map_err(|error| self.stream_error(error))
    }

    fn stream_error(&self, error: io::Error) -> StorageError {
        match StorageError::of_io(&error) {
            Some(error) => error.clone(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => self.format_error("it ends early"),
            None => StorageError::new(StorageErrorKind::Transient, format!("cannot read the export of {}: {error}", self.about)),
        }
    }

    fn format_error(&self, what: &str) -> StorageError {
        StorageError::protocol(format!("the export of {} is not in the format of rbd: {what}", self.about))
    }
}

/// Streams for tests.
#[cfg(test)]
pub(crate) mod samples {
    use super::MAGIC;

    /// Returns a stream with these segments: their bytes, or the number of zeros.
    pub(crate) fn stream(size: u64, runs: &[(u64, Result<&[u8], u64>)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(b"t\x03\x00\x00\x00abc");
        bytes.push(b's');
        bytes.extend(size.to_le_bytes());
        for (offset, content) in runs {
            bytes.push(if content.is_ok() { b'w' } else { b'z' });
            bytes.extend(offset.to_le_bytes());
            match content {
                Ok(content) => {
                    bytes.extend((content.len() as u64).to_le_bytes());
                    bytes.extend(*content);
                }
                Err(length) => bytes.extend(length.to_le_bytes()),
            }
        }
        bytes.push(b'e');
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::samples::stream;
    use super::*;

    fn segments(bytes: &[u8]) -> Result<Vec<(Segment, Vec<u8>)>, StorageError> {
        let mut export = ExportReader::new(bytes, "x")?;
        let mut found = Vec::new();
        while let Some(run) = export.next_segment()? {
            let mut content = Vec::new();
            let mut piece = [0; 3];
            loop {
                let count = export.read_segment(&mut piece)?;
                if count == 0 {
                    break;
                }
                content.extend_from_slice(&piece[..count]);
            }
            found.push((run, content));
        }
        Ok(found)
    }

    #[test]
    fn segments_have_their_bytes() {
        let bytes = stream(100, &[(0, Ok(b"hello")), (8, Err(4)), (50, Ok(b"")), (95, Ok(b"world"))]);
        let found = segments(&bytes).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], (Segment { offset: 0, length: 5, zero: false }, b"hello".to_vec()));
        assert_eq!(found[1], (Segment { offset: 8, length: 4, zero: true }, Vec::new()));
        assert_eq!(found[2].1, b"world");
        let mut export = ExportReader::new(bytes.as_slice(), "x").unwrap();
        // Bytes that were not read are skipped.
        assert!(export.next_segment().unwrap().is_some() && export.next_segment().unwrap().is_some());
        assert_eq!(export.next_segment().unwrap().map(|run| run.offset), Some(95));
        assert_eq!((export.next_segment().unwrap(), export.next_segment().unwrap(), export.size), (None, None, Some(100)));
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        let bytes = stream(100, &[(0, Ok(b"hello")), (8, Err(4))]);
        for end in 0..bytes.len() {
            assert!(segments(&bytes[..end]).is_err(), "{end}");
        }
        assert!(segments(&bytes).is_ok());
    }

    #[test]
    fn invalid_streams_are_refused() {
        let good = stream(100, &[(0, Ok(b"hello"))]);
        let mut more = good.clone();
        more.push(b'e');
        let mut other = good.clone();
        other[9] = b'9';
        let mut unknown = good.clone();
        *unknown.last_mut().unwrap() = b'q';
        for wrong in [
            more,
            other,
            unknown,
            stream(4, &[(0, Ok(b"hello"))]),
            stream(u64::MAX, &[(u64::MAX, Err(1))]),
            b"rbd diff v1\nt\xff\xff\xff\xff".to_vec(),
        ] {
            assert_eq!(segments(&wrong).unwrap_err().kind, StorageErrorKind::Protocol);
        }
    }
}
