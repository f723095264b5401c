//! The digests that data is compared with.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use md5::Md5;
use sha2::{Digest as _, Sha256};

/// Which digest proves the data of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// The SHA-256 of every block, as the sha256file has it: taken when the volume was read, before anything was stored.
    Sha256,
    /// The MD5 of every object, as the metadata has it.
    Md5,
}

impl Digest {
    /// The cheaper one on this processor: SHA-256 where it has instructions for that (1.8 GB/s a core was measured, against
    /// 0.64 for MD5), MD5 where it has not (SHA-256 then runs at about 0.3).
    pub fn cheaper() -> Self {
        if has_sha() { Self::Sha256 } else { Self::Md5 }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256 of every block",
            Self::Md5 => "MD5 of every object",
        }
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_sha() -> bool {
    std::arch::is_x86_feature_detected!("sha")
}

#[cfg(target_arch = "aarch64")]
fn has_sha() -> bool {
    std::arch::is_aarch64_feature_detected!("sha2")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_sha() -> bool {
    false
}

/// What came of reading data block by block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockComparison {
    /// Bytes that came.
    pub bytes: u64,
    /// The blocks, counted from the first one read, whose digest is another.
    pub differing: Vec<u64>,
    /// The MD5 of everything, where it was asked for.
    pub md5: Option<[u8; 16]>,
}

/// A reader, and the MD5 of what came out of it.
type Tapped<R> = Arc<Mutex<(R, Md5)>>;

/// What knows the MD5 of bytes that are read elsewhere.
pub struct Md5Handle<R>(Tapped<R>);

impl<R: Read> Md5Handle<R> {
    /// Of all that came by until now.
    pub fn so_far(self) -> [u8; 16] {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).1).finalize().into()
    }

    /// Of the whole: what nobody wanted to read is read now. `None` where that fails, or is more than `limit` bytes.
    pub fn of_all(self, limit: u64) -> Option<[u8; 16]> {
        let rest = io::copy(&mut Md5Reader(Arc::clone(&self.0)).take(limit), &mut io::sink()).ok()?;
        (rest < limit).then(|| self.so_far())
    }
}

/// Takes the MD5 of what is read through it.
pub struct Md5Reader<R>(Tapped<R>);

impl<R: Read> Md5Reader<R> {
    /// Over a reader, with what will know the digest.
    pub fn of(reader: R) -> (Self, Md5Handle<R>) {
        let tapped = Arc::new(Mutex::new((reader, Md5::new())));
        (Self(Arc::clone(&tapped)), Md5Handle(tapped))
    }
}

impl<R: Read> Read for Md5Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut tapped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = tapped.0.read(out)?;
        tapped.1.update(out.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// So much is read at a time, whatever the size of the blocks.
const BUFFER: usize = 1 << 20;

/// Reads `stream` to its end in blocks of `block` bytes and compares the digest of each with the one wanted; `None` is a
/// block whose content does not matter. `taken` hears of every piece that was read.
///
/// # Errors
/// Those of the stream, and of `taken`.
pub fn compare(
    mut stream: impl Read,
    block: u64,
    wanted: &[Option<[u8; 32]>],
    with_md5: bool,
    buffer: &mut Vec<u8>,
    taken: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<BlockComparison> {
    buffer.resize(BUFFER, 0);
    let mut md5 = with_md5.then(Md5::new);
    let mut read = BlockComparison::default();
    // Of the block that is being read: its number, how much of it came, and the digest of that where it matters.
    let (mut number, mut came, mut sha) = (0_u64, 0_u64, Sha256::new());
    let wanted = |number: u64| usize::try_from(number).ok().and_then(|number| wanted.get(number)).copied().flatten();
    loop {
        let filled = fill(&mut stream, buffer)?;
        let mut data = buffer.get(..filled).unwrap_or_default();
        if let Some(md5) = &mut md5 {
            md5.update(data);
        }
        let is_last = filled < BUFFER;
        loop {
            let room = usize::try_from(block.max(1) - came).unwrap_or(usize::MAX);
            let (piece, rest) = data.split_at(room.min(data.len()));
            let want = wanted(number);
            if want.is_some() {
                sha.update(piece);
            }
            (came, data) = (came + piece.len() as u64, rest);
            // The last block may be a short one.
            if came > 0 && (came >= block || (is_last && data.is_empty())) {
                if want.is_some_and(|want| sha.finalize_reset().as_slice() != want.as_slice()) {
                    read.differing.push(number);
                }
                (number, came) = (number + 1, 0);
            }
            if data.is_empty() {
                break;
            }
        }
        read.bytes += filled as u64;
        taken(filled as u64)?;
        if is_last {
            break;
        }
    }
    read.md5 = md5.map(|md5| md5.finalize().into());
    Ok(read)
}

/// Reads until the buffer is full or the stream ends.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_differ_are_named_and_those_that_do_not_matter_are_not() {
        let data: Vec<u8> = (0..10_u8).collect();
        let digest = |bytes: &[u8]| -> Option<[u8; 32]> { Some(Sha256::digest(bytes).into()) };
        let wanted = [digest(&[0, 1, 2, 3]), digest(&[9; 4]), digest(&[8, 9])];
        let read = compare(data.as_slice(), 4, &wanted, true, &mut Vec::new(), &mut |_| Ok(())).unwrap();
        assert_eq!((read.bytes, read.differing), (10, vec![1]));
        assert_eq!(read.md5, Some(Md5::digest(&data).into()));
        let wanted = [wanted[0], None, wanted[2]];
        let read = compare(data.as_slice(), 4, &wanted, false, &mut Vec::new(), &mut |_| Ok(())).unwrap();
        assert!(read.differing.is_empty() && read.md5.is_none());
    }

    #[test]
    fn a_block_may_be_larger_than_what_is_read_at_a_time() {
        let data: Vec<u8> = (0..2 * BUFFER as u64 + 100).map(|at| u8::try_from(at % 251).unwrap()).collect();
        // One that ends with the reading, a short last one of several readings, and both with what is wrong in the middle.
        for (block, length) in [(2 * BUFFER, 2 * BUFFER), (2 * BUFFER + 100, 2 * BUFFER), (BUFFER + 7, data.len()), (BUFFER, data.len())] {
            let data = &data[..length];
            let good: Vec<Option<[u8; 32]>> = data.chunks(block).map(|piece| Some(Sha256::digest(piece).into())).collect();
            let read = |data: &[u8]| compare(data, block as u64, &good, true, &mut Vec::new(), &mut |_| Ok(())).unwrap();
            let found = read(data);
            assert_eq!((found.bytes, found.differing, found.md5), (length as u64, vec![], Some(Md5::digest(data).into())), "{block}");
            let mut wrong = data.to_vec();
            wrong[BUFFER - 1] ^= 1;
            assert_eq!(read(&wrong).differing, [0], "{block}");
        }
    }
}
