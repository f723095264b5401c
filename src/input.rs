//! Opens and reads input files: plans, check documents, configuration, passwords, keys.
//!
//! Such a file may be a pipe (`/dev/stdin`, a shell's `<(…)`) or too large. A pipe without a writer is refused, because opening it would
//! block for ever. A file above its limit is refused too. Uses nothing of the crate.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, ErrorKind, Read, Seek, Write as _};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// How long a named pipe may have no writer. A shell that starts both ends may start the writer last.
const WRITER_WITHIN: Duration = Duration::from_secs(2);
/// The pause between two reads of a pipe without a writer.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How much is read at once.
const PIECE: u64 = 64 << 10;

/// An open file, after the bytes that were already read from it.
pub type Input = io::Chain<Cursor<Vec<u8>>, File>;

/// Opens a file for reading.
///
/// # Errors
/// System errors, and a pipe without a writer.
pub fn open(path: &Path) -> io::Result<Input> {
    // A blocking open of a named pipe would wait for a writer.
    let mut file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let start = if file.metadata()?.file_type().is_fifo() { first_piece(&mut file)? } else { Vec::new() };
    fcntl_setfl(&file, fcntl_getfl(&file)?.difference(OFlags::NONBLOCK))?;
    Ok(Cursor::new(start).chain(file))
}

/// The present content of a pipe. A non-blocking read also distinguishes a writer that has written nothing from no writer.
fn first_piece(pipe: &mut File) -> io::Result<Vec<u8>> {
    let opened = Instant::now();
    let mut piece = Vec::new();
    loop {
        match Read::by_ref(pipe).take(PIECE).read_to_end(&mut piece) {
            Ok(0) if opened.elapsed() < WRITER_WITHIN => std::thread::sleep(POLL_INTERVAL),
            Ok(0) => return Err(io::Error::other("it is a pipe without a writer; give a file, or start the program that writes to it")),
            Ok(_) => return Ok(piece),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(piece),
            Err(error) => return Err(error),
        }
    }
}

/// Opens a JSON file that is read more than once: of a pipe or a device a copy.
///
/// # Errors
/// As for [`open`], and those of the temporary file.
pub fn open_json(path: &Path) -> io::Result<File> {
    let (start, file) = open(path)?.into_inner();
    if file.metadata()?.is_file() { Ok(file) } else { copied(start.chain(file)) }
}

/// Copies an input to a temporary file. If it does not begin like a JSON object, only its beginning is copied.
///
/// # Errors
/// System errors.
pub fn copied(mut input: impl Read) -> io::Result<File> {
    let mut beginning = Vec::new();
    input.by_ref().take(PIECE).read_to_end(&mut beginning)?;
    let mut copy = tempfile::tempfile()?;
    copy.write_all(&beginning)?;
    if may_be_json(&beginning) {
        io::copy(&mut input, &mut copy)?;
    }
    copy.rewind()?;
    Ok(copy)
}

fn may_be_json(beginning: &[u8]) -> bool {
    beginning.trim_ascii_start().first().is_none_or(|byte| *byte == b'{')
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// System errors, a pipe without a writer, and a larger file, of which at most `limit` bytes are read.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_from(open_within(path, limit)?, limit)
}

/// Reads a JSON object from a file. If the file does not begin like one, only its beginning is read and returned.
///
/// # Errors
/// As for [`read`].
pub fn read_json(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_json_from(open_within(path, limit)?, limit)
}

/// Reads an open file of at most `limit` bytes.
///
/// # Errors
/// As for [`read`].
pub fn read_from(input: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    read_all(input, limit, |_| true)
}

/// [`read_json`] for an open file.
///
/// # Errors
/// As for [`read`].
pub fn read_json_from(input: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    read_all(input, limit, may_be_json)
}

/// Opens a file and checks its length, if it has one.
fn open_within(path: &Path, limit: u64) -> io::Result<Input> {
    let input = open(path)?;
    let (_, file) = input.get_ref();
    // Pipes and devices have no length.
    if file.metadata()?.len() > limit { Err(too_large(limit)) } else { Ok(input) }
}

fn read_all(mut input: impl Read, limit: u64, may_go_on: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.by_ref().take(PIECE.min(limit)).read_to_end(&mut bytes)?;
    if may_go_on(&bytes) {
        input.take(limit + 1 - bytes.len() as u64).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > limit {
        return Err(too_large(limit));
    }
    Ok(bytes)
}

fn too_large(limit: u64) -> io::Error {
    let limit = if limit >= 1 << 20 { format!("{} MiB", limit >> 20) } else { format!("{} KiB", limit >> 10) };
    io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {limit}, the limit for such a file"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::sync::mpsc;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    fn pipe(folder: &tempfile::TempDir) -> std::path::PathBuf {
        let path = folder.path().join("pipe");
        mkfifoat(CWD, &path, Mode::RWXU).unwrap();
        path
    }

    /// The result of a function that must not block for ever.
    fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || drop(tell.send(work())));
        told.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn a_pipe_without_a_writer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(&folder);
        let error = in_time(move || read(&path, 10).unwrap_err());
        assert!(error.to_string().contains("a pipe without a writer"), "{error}");
    }

    #[test]
    fn a_pipe_with_a_writer_is_read_to_its_end() {
        for (first, second) in [("", "late"), ("early", "late"), ("early", "")] {
            let folder = tempfile::tempdir().unwrap();
            let path = pipe(&folder);
            let to = path.clone();
            let writer = std::thread::spawn(move || {
                let mut pipe = OpenOptions::new().write(true).open(to).unwrap();
                pipe.write_all(first.as_bytes()).unwrap();
                // So that the reader finds the pipe empty, if it is quick.
                std::thread::sleep(Duration::from_millis(100));
                pipe.write_all(second.as_bytes()).unwrap();
            });
            let text = in_time(move || read(&path, 100).unwrap());
            writer.join().unwrap();
            assert_eq!(text, [first, second].concat().into_bytes());
        }
    }

    #[test]
    fn a_pipe_is_copied_to_be_read_several_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(&folder);
        for (text, copied) in [("{".to_owned() + &" ".repeat(200_000), 200_001), ("[".repeat(200_000), 1 << 16)] {
            let to = path.clone();
            let writer = std::thread::spawn(move || OpenOptions::new().write(true).open(to).unwrap().write_all(text.as_bytes()));
            let mut file = open_json(&path).unwrap();
            for _ in 0..2 {
                file.rewind().unwrap();
                let length = io::copy(&mut file, &mut io::sink()).unwrap();
                assert!(length == copied || length < copied && copied == 1 << 16, "{length}");
            }
            let _ = writer.join().unwrap();
        }
        assert!(open_json(Path::new("/dev/zero")).unwrap().metadata().unwrap().len() <= 1 << 16);
    }

    #[test]
    fn the_limit_holds_with_and_without_a_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [b' '; 11]).unwrap();
        assert_eq!(read(&path, 11).unwrap().len(), 11);
        for error in [read(&path, 10), read_json(&path, 10), read(Path::new("/dev/zero"), 200_000)].map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        }
        assert!(too_large(1 << 30).to_string().contains("1024 MiB") && too_large(1 << 16).to_string().contains("64 KiB"));
    }

    #[test]
    fn a_file_that_is_not_a_json_object_is_not_read_to_its_end() {
        assert!(read_json(Path::new("/dev/zero"), 1 << 40).unwrap().len() <= 1 << 16);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let text = [" ".repeat(100), "{".to_owned(), " ".repeat(200_000), "}".to_owned()].concat();
        fs::write(&path, &text).unwrap();
        assert_eq!(read_json(&path, 1 << 20).unwrap(), text.as_bytes());
    }
}
