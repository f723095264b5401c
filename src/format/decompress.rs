//! Decompresses an object: exactly the number of bytes in the list, or an error.
//!
//! Python's `decompress` functions accept more than Cinder writes. zlib and bz2 ignore bytes after the end of the stream, bz2 and zstd
//! accept several streams in a row. Cinder's `compress` writes one stream and nothing else, so anything else is an error here.

use std::io::{self, BufRead, BufReader, Read, Take};

use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

use super::metadata::Compression;

const BUFFER: usize = 128 * 1024;
/// The largest window, as a power of 2. Cinder uses zstd's default level with a window of 2^21. All levels but the "ultra" ones need no
/// larger one than this.
const ZSTD_WINDOW: u32 = 23;

/// Decompresses exactly `length` bytes from `reader`, and checks that the stream ends there.
///
/// Anything else is an error of kind [`io::ErrorKind::InvalidData`], at the end or as soon as it is detected: fewer bytes, more bytes
/// (which are not returned), a damaged or truncated stream, bytes after its end. Errors of `reader` are returned unchanged, and the
/// next read continues where it was.
///
/// # Errors
/// A lack of memory for zstd.
pub fn open<'a>(compression: Compression, reader: Box<dyn Read + Send + 'a>, length: u64) -> io::Result<Box<dyn Read + Send + 'a>> {
    let decompressor = match compression {
        Compression::None => return Ok(Box::new(PlainReader { reader: reader.take(length), length, end: None })),
        Compression::Zlib => Decompressor::Zlib(flate2::Decompress::new(true)),
        Compression::Bz2 => Decompressor::Bz2(bzip2::Decompress::new(false)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::raw::Decoder::new()?;
            decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
            Decompressor::Zstd(Box::new(decoder))
        }
    };
    let reader = BufReader::with_capacity(BUFFER, reader);
    Ok(Box::new(DecompressReader { decompressor, reader, length, given: 0, has_ended: false, end: None }))
}

/// What every read at the end of an object returns: nothing more, or why it is damaged. No read after an error may look like the end.
type End = Result<(), String>;

fn read_at(end: &End) -> io::Result<usize> {
    end.clone().map(|()| 0).map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))
}

fn too_long(length: u64) -> String {
    format!("longer than the expected {length} bytes")
}

fn too_short(given: u64, length: u64) -> String {
    format!("ends after {given} of {length} bytes")
}

struct PlainReader<'a> {
    reader: Take<Box<dyn Read + Send + 'a>>,
    length: u64,
    end: Option<End>,
}

impl Read for PlainReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(end) = &self.end {
            return read_at(end);
        }
        if out.is_empty() {
            return Ok(0);
        }
        let read = self.reader.read(out)?;
        if read > 0 {
            return Ok(read);
        }
        let left = self.reader.limit();
        let end = if left > 0 {
            Err(too_short(self.length - left, self.length))
        } else if self.reader.get_mut().read(&mut [0])? > 0 {
            Err(too_long(self.length))
        } else {
            Ok(())
        };
        read_at(self.end.insert(end))
    }
}

enum Decompressor {
    Zlib(flate2::Decompress),
    Bz2(bzip2::Decompress),
    Zstd(Box<zstd::stream::raw::Decoder<'static>>),
}

/// The result of one step.
struct Step {
    read: usize,
    written: usize,
    ended: bool,
}

impl Decompressor {
    fn name(&self) -> &'static str {
        match self {
            Self::Zlib(_) => "zlib",
            Self::Bz2(_) => "bzip2",
            Self::Zstd(_) => "zstd",
        }
    }

    /// Reads some input and writes some output.
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, String> {
        match self {
            Self::Zlib(decompressor) => {
                let (before_in, before_out) = (decompressor.total_in(), decompressor.total_out());
                let status = decompressor.decompress(input, out, flate2::FlushDecompress::None).map_err(|error| error.to_string())?;
                let ended = status == flate2::Status::StreamEnd;
                Ok(Step { read: since(before_in, decompressor.total_in()), written: since(before_out, decompressor.total_out()), ended })
            }
            Self::Bz2(decompressor) => {
                let (before_in, before_out) = (decompressor.total_in(), decompressor.total_out());
                let status = decompressor.decompress(input, out).map_err(|error| error.to_string())?;
                let ended = status == bzip2::Status::StreamEnd;
                Ok(Step { read: since(before_in, decompressor.total_in()), written: since(before_out, decompressor.total_out()), ended })
            }
            Self::Zstd(decompressor) => {
                let mut input = InBuffer::around(input);
                let mut out = OutBuffer::around(out);
                let left = decompressor.run(&mut input, &mut out).map_err(|error| error.to_string())?;
                Ok(Step { read: input.pos(), written: out.pos(), ended: left == 0 })
            }
        }
    }
}

fn since(before: u64, after: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}

struct DecompressReader<'a> {
    decompressor: Decompressor,
    reader: BufReader<Box<dyn Read + Send + 'a>>,
    length: u64,
    given: u64,
    /// The compressed stream has ended; bytes after it have not been checked.
    has_ended: bool,
    end: Option<End>,
}

impl DecompressReader<'_> {
    fn fail(&mut self, text: String) -> io::Result<usize> {
        read_at(self.end.insert(Err(text)))
    }

    /// Checks that the object ends with the stream.
    fn finish(&mut self) -> io::Result<usize> {
        if self.given < self.length {
            return self.fail(too_short(self.given, self.length));
        }
        if !self.reader.fill_buf()?.is_empty() {
            return self.fail(format!("bytes after the end of the {} stream", self.decompressor.name()));
        }
        read_at(self.end.insert(Ok(())))
    }
}

impl Read for DecompressReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(end) = &self.end {
            return read_at(end);
        }
        if out.is_empty() {
            return Ok(0);
        }
        if self.has_ended {
            return self.finish();
        }
        let left = usize::try_from(self.length - self.given).unwrap_or(usize::MAX);
        // After the last byte, room for one more shows whether there is one.
        let mut probe = [0];
        let part = left.min(out.len());
        let room = if left == 0 { &mut probe[..] } else { out.get_mut(..part).unwrap_or_default() };
        loop {
            let input = self.reader.fill_buf()?;
            let at_end = input.is_empty();
            let Step { read, written, ended } = match self.decompressor.step(input, room) {
                Ok(step) => step,
                Err(text) => {
                    let name = self.decompressor.name();
                    return self.fail(format!("damaged {name} stream after {} bytes of content: {text}", self.given));
                }
            };
            self.reader.consume(read);
            self.has_ended = ended;
            if written > 0 && left == 0 {
                return self.fail(too_long(self.length));
            }
            if written > 0 {
                self.given += written as u64;
                return Ok(written);
            }
            if ended {
                return self.finish();
            }
            if read == 0 && at_end {
                let name = self.decompressor.name();
                return self.fail(format!("the {name} stream is truncated after {} of {} bytes", self.given, self.length));
            }
        }
    }
}
