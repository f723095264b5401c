//! An object's bytes as they were in the volume: never more than the list says, and whole or an error.
//!
//! What Python's `decompress` functions take and what Cinder writes are not the same. zlib and bz2 pass over bytes behind
//! the end of the stream, bz2 and zstd take several streams in a row: Cinder's `compress` writes one stream and nothing
//! else, so anything else is an error here.

use std::io::{self, Read};

use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

use super::metadata::Compression;

const BUFFER: usize = 128 * 1024;
/// As a power of 2: Cinder's level is zstd's default, whose window is 2^21; all levels but the "ultra" ones stay within this.
const ZSTD_WINDOW: u32 = 23;

/// Gives exactly `length` bytes, decompressed from `reader`, and then makes sure that the stream ends there.
///
/// Anything else is an error of kind [`io::ErrorKind::InvalidData`] in the place of the end, or as soon as it is seen: less,
/// more (none of which is given), a stream that is broken or cut short, bytes behind its end. Errors of `reader` come
/// through as they are; after one the next read goes on where it was.
pub fn open<'a>(compression: Compression, reader: Box<dyn Read + Send + 'a>, length: u64) -> Box<dyn Read + Send + 'a> {
    let engine = match compression {
        Compression::None => return Box::new(Plain { reader, length, given: 0, state: State::Running }),
        Compression::Zlib => Engine::Zlib(flate2::Decompress::new(true)),
        Compression::Bz2 => Engine::Bz2(bzip2::Decompress::new(false)),
        Compression::Zstd => match zstd() {
            Ok(engine) => engine,
            Err(error) => return Box::new(Failed(Some(error))),
        },
    };
    let buffer = vec![0; BUFFER].into();
    Box::new(Inflate { engine, reader, buffer, start: 0, end: 0, at_end: false, length, given: 0, state: State::Running })
}

fn zstd() -> io::Result<Engine> {
    let mut decoder = zstd::stream::raw::Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
    Ok(Engine::Zstd(Box::new(decoder)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// The compressed stream has ended; what is behind it was not looked at.
    Closing,
    /// All is given, and the stream ended there.
    Ended,
    /// An error was given: nothing that comes later is to be taken for the end.
    Failed,
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| io::Error::other("no decompressor")))
    }
}

struct Plain<'a> {
    reader: Box<dyn Read + Send + 'a>,
    length: u64,
    given: u64,
    state: State,
}

impl Read for Plain<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Ended => return Ok(0),
            State::Failed => return Err(invalid("already known to be damaged")),
            State::Running | State::Closing if out.is_empty() => return Ok(0),
            State::Running | State::Closing => {}
        }
        let left = self.length - self.given;
        if left == 0 {
            if self.reader.read(&mut [0])? > 0 {
                self.state = State::Failed;
                return Err(too_long(self.length));
            }
            self.state = State::Ended;
            return Ok(0);
        }
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let read = self.reader.read(out.get_mut(..part).unwrap_or_default())?;
        if read == 0 {
            self.state = State::Failed;
            return Err(too_short(self.given, self.length));
        }
        self.given += read as u64;
        Ok(read)
    }
}

fn too_long(length: u64) -> io::Error {
    invalid(format!("longer than the {length} bytes that it should have"))
}

fn too_short(given: u64, length: u64) -> io::Error {
    invalid(format!("ends after {given} of {length} bytes"))
}

enum Engine {
    Zlib(flate2::Decompress),
    Bz2(bzip2::Decompress),
    Zstd(Box<zstd::stream::raw::Decoder<'static>>),
}

/// What came of one step.
struct Step {
    read: usize,
    written: usize,
    ended: bool,
}

impl Engine {
    fn name(&self) -> &'static str {
        match self {
            Self::Zlib(_) => "zlib",
            Self::Bz2(_) => "bzip2",
            Self::Zstd(_) => "zstd",
        }
    }

    /// Takes some of the input, gives some output.
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, String> {
        match self {
            Self::Zlib(engine) => {
                let (before_in, before_out) = (engine.total_in(), engine.total_out());
                let status = engine.decompress(input, out, flate2::FlushDecompress::None).map_err(|error| error.to_string())?;
                let ended = status == flate2::Status::StreamEnd;
                Ok(Step { read: since(before_in, engine.total_in()), written: since(before_out, engine.total_out()), ended })
            }
            Self::Bz2(engine) => {
                let (before_in, before_out) = (engine.total_in(), engine.total_out());
                let status = engine.decompress(input, out).map_err(|error| error.to_string())?;
                let ended = status == bzip2::Status::StreamEnd;
                Ok(Step { read: since(before_in, engine.total_in()), written: since(before_out, engine.total_out()), ended })
            }
            Self::Zstd(engine) => {
                let mut input = InBuffer::around(input);
                let mut out = OutBuffer::around(out);
                let left = engine.run(&mut input, &mut out).map_err(|error| error.to_string())?;
                Ok(Step { read: input.pos(), written: out.pos(), ended: left == 0 })
            }
        }
    }
}

fn since(before: u64, after: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}

struct Inflate<'a> {
    engine: Engine,
    reader: Box<dyn Read + Send + 'a>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The reader has no more.
    at_end: bool,
    length: u64,
    given: u64,
    state: State,
}

impl Inflate<'_> {
    fn fail<T>(&mut self, error: io::Error) -> io::Result<T> {
        self.state = State::Failed;
        Err(error)
    }

    /// Makes sure that there is input, unless there is none any more.
    fn fill(&mut self) -> io::Result<()> {
        if self.start == self.end && !self.at_end {
            let read = self.reader.read(&mut self.buffer)?;
            self.start = 0;
            self.end = read.min(self.buffer.len());
            self.at_end = read == 0;
        }
        Ok(())
    }

    /// The stream has ended: so must the object.
    fn finish(&mut self) -> io::Result<usize> {
        if self.given < self.length {
            let error = too_short(self.given, self.length);
            return self.fail(error);
        }
        self.fill()?;
        if self.start < self.end {
            let name = self.engine.name();
            return self.fail(invalid(format!("bytes behind the end of the {name} stream")));
        }
        self.state = State::Ended;
        Ok(0)
    }
}

impl Read for Inflate<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Ended => return Ok(0),
            State::Failed => return Err(invalid("already known to be damaged")),
            State::Running | State::Closing if out.is_empty() => return Ok(0),
            State::Closing => return self.finish(),
            State::Running => {}
        }
        let left = usize::try_from(self.length - self.given).unwrap_or(usize::MAX);
        // Behind the last byte: room for one more shows whether there is one.
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
            let step = match self.engine.step(input, room) {
                Ok(step) => step,
                Err(text) => {
                    let name = self.engine.name();
                    return self.fail(invalid(format!("a broken {name} stream after {} bytes of content: {text}", self.given)));
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
                self.state = State::Closing;
            }
            if step.written > 0 {
                return Ok(step.written);
            }
            if step.ended {
                return self.finish();
            }
            if step.read == 0 && self.at_end {
                let name = self.engine.name();
                return self.fail(invalid(format!("the {name} stream is cut short after {} of {} bytes", self.given, self.length)));
            }
        }
    }
}
