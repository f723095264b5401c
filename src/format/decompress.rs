//! Decompresses an object: exactly the number of bytes in the list, or an error.
//!
//! Python's `decompress` functions accept more than Cinder writes. zlib and bz2 ignore bytes after the end of the stream, bz2 and zstd
//! accept several streams in a row. Cinder's `compress` writes one stream and nothing else, so anything else is an error here.

use std::io::{self, Read};

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
pub fn open<'a>(compression: Compression, reader: Box<dyn Read + Send + 'a>, length: u64) -> Box<dyn Read + Send + 'a> {
    let decompressor = match compression {
        Compression::None => return Box::new(PlainReader { reader, length, given: 0, state: StreamState::Running }),
        Compression::Zlib => Decompressor::Zlib(flate2::Decompress::new(true)),
        Compression::Bz2 => Decompressor::Bz2(bzip2::Decompress::new(false)),
        Compression::Zstd => match zstd() {
            Ok(decompressor) => decompressor,
            Err(error) => return Box::new(FailedReader(Some(error))),
        },
    };
    let buffer = vec![0; BUFFER].into();
    Box::new(DecompressReader {
        decompressor,
        reader,
        buffer,
        start: 0,
        end: 0,
        at_end: false,
        length,
        given: 0,
        state: StreamState::Running,
    })
}

fn zstd() -> io::Result<Decompressor> {
    let mut decoder = zstd::stream::raw::Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
    Ok(Decompressor::Zstd(Box::new(decoder)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamState {
    Running,
    /// The compressed stream has ended; bytes after it have not been checked.
    Closing,
    /// All bytes were returned, and the stream ended there.
    Ended,
    /// An error was returned: no later read may look like the end.
    Failed,
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

struct FailedReader(Option<io::Error>);

impl Read for FailedReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| io::Error::other("no decompressor")))
    }
}

struct PlainReader<'a> {
    reader: Box<dyn Read + Send + 'a>,
    length: u64,
    given: u64,
    state: StreamState,
}

impl Read for PlainReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.state {
            StreamState::Ended => return Ok(0),
            StreamState::Failed => return Err(invalid("already known to be damaged")),
            StreamState::Running | StreamState::Closing if out.is_empty() => return Ok(0),
            StreamState::Running | StreamState::Closing => {}
        }
        let left = self.length - self.given;
        if left == 0 {
            if self.reader.read(&mut [0])? > 0 {
                self.state = StreamState::Failed;
                return Err(too_long(self.length));
            }
            self.state = StreamState::Ended;
            return Ok(0);
        }
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let read = self.reader.read(out.get_mut(..part).unwrap_or_default())?;
        if read == 0 {
            self.state = StreamState::Failed;
            return Err(too_short(self.given, self.length));
        }
        self.given += read as u64;
        Ok(read)
    }
}

fn too_long(length: u64) -> io::Error {
    invalid(format!("longer than the expected {length} bytes"))
}

fn too_short(given: u64, length: u64) -> io::Error {
    invalid(format!("ends after {given} of {length} bytes"))
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
    reader: Box<dyn Read + Send + 'a>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The reader has ended.
    at_end: bool,
    length: u64,
    given: u64,
    state: StreamState,
}

impl DecompressReader<'_> {
    fn fail<T>(&mut self, error: io::Error) -> io::Result<T> {
        self.state = StreamState::Failed;
        Err(error)
    }

    /// Reads input if the buffer is empty.
    fn fill(&mut self) -> io::Result<()> {
        if self.start == self.end && !self.at_end {
            let read = self.reader.read(&mut self.buffer)?;
            self.start = 0;
            self.end = read.min(self.buffer.len());
            self.at_end = read == 0;
        }
        Ok(())
    }

    /// Checks that the object ends with the stream.
    fn finish(&mut self) -> io::Result<usize> {
        if self.given < self.length {
            let error = too_short(self.given, self.length);
            return self.fail(error);
        }
        self.fill()?;
        if self.start < self.end {
            let name = self.decompressor.name();
            return self.fail(invalid(format!("bytes after the end of the {name} stream")));
        }
        self.state = StreamState::Ended;
        Ok(0)
    }
}

impl Read for DecompressReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.state {
            StreamState::Ended => return Ok(0),
            StreamState::Failed => return Err(invalid("already known to be damaged")),
            StreamState::Running | StreamState::Closing if out.is_empty() => return Ok(0),
            StreamState::Closing => return self.finish(),
            StreamState::Running => {}
        }
        let left = usize::try_from(self.length - self.given).unwrap_or(usize::MAX);
        // After the last byte, room for one more shows whether there is one.
        let mut probe = [0];
        let room = match left {
            0 => &mut probe[..],
            left => {
                let part = left.min(out.len());
                out.get_mut(..part).unwrap_or_default()
            }
        };
        loop {
            self.fill()?;
            let input = self.buffer.get(self.start..self.end).unwrap_or_default();
            let step = match self.decompressor.step(input, room) {
                Ok(step) => step,
                Err(text) => {
                    let name = self.decompressor.name();
                    return self.fail(invalid(format!("damaged {name} stream after {} bytes of content: {text}", self.given)));
                }
            };
            self.start = (self.start + step.read).min(self.end);
            if step.written > 0 {
                if left == 0 {
                    let error = too_long(self.length);
                    return self.fail(error);
                }
                self.given += step.written as u64;
            }
            if step.ended {
                self.state = StreamState::Closing;
            }
            if step.written > 0 {
                return Ok(step.written);
            }
            if step.ended {
                return self.finish();
            }
            if step.read == 0 && self.at_end {
                let name = self.decompressor.name();
                return self.fail(invalid(format!("the {name} stream is truncated after {} of {} bytes", self.given, self.length)));
            }
        }
    }
}
