//! The digests that data is compared with.

use std::io::{self, Read};

use md5::Md5;
use sha2::{Digest as _, Sha256};

/// The digest that proves the data of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// The SHA-256 of every block, as the sha256file has it: taken when the volume was read, before anything was stored.
    Sha256,
    /// The MD5 of every object, as the metadata has it.
    Md5,
}

impl Digest {
    /// The cheaper one on this processor: SHA-256 if it has instructions for that (1.8 GB/s a core were measured, and 0.64 for MD5),
    /// otherwise MD5 (SHA-256 then runs at about 0.3 GB/s).
    pub fn cheaper() -> Self {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let has_sha = std::arch::is_x86_feature_detected!("sha");
        #[cfg(target_arch = "aarch64")]
        let has_sha = std::arch::is_aarch64_feature_detected!("sha2");
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
        let has_sha = false;
        if has_sha { Self::Sha256 } else { Self::Md5 }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256 of every block",
            Self::Md5 => "MD5 of every object",
        }
    }
}

/// What a comparison of data with the digests of its blocks found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockComparison {
    /// The blocks whose digest differs, counted from the first one read.
    pub differing: Vec<u64>,
    /// The MD5 of all bytes, if it was requested.
    pub md5: Option<[u8; 16]>,
}

/// Takes the MD5 of what is read through it.
pub struct Md5Reader<R> {
    reader: R,
    md5: Md5,
}

impl<R: Read> Md5Reader<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, md5: Md5::new() }
    }

    /// The MD5 of all bytes that were read until now.
    pub fn so_far(self) -> [u8; 16] {
        self.md5.finalize().into()
    }

    /// Reads the rest of the stream and returns the MD5 of all its bytes. `None` if reading fails, or if the rest has `limit` bytes or more.
    pub fn of_all(mut self, limit: u64) -> Option<[u8; 16]> {
        let rest = io::copy(&mut self.by_ref().take(limit), &mut io::sink()).ok()?;
        (rest < limit).then(|| self.so_far())
    }
}

impl<R: Read> Read for Md5Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(out)?;
        self.md5.update(out.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// The most bytes that are read at a time, whatever the size of the blocks.
const BUFFER: usize = 1 << 20;

/// The digests that data must have.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub block_size: u64,
    /// The SHA-256 of each block; `None` if its content does not matter.
    pub blocks: &'a [Option<[u8; 32]>],
    /// Whether the MD5 of all bytes is taken, too.
    pub with_md5: bool,
}

impl Expected<'_> {
    fn block(&self, number: u64) -> Option<[u8; 32]> {
        usize::try_from(number).ok().and_then(|number| self.blocks.get(number)).copied().flatten()
    }
}

/// Reads `stream` to its end and compares the digest of each block with the expected one. `on_read` gets the number of bytes of every
/// read.
pub fn compare(
    mut stream: impl Read,
    expected: &Expected<'_>,
    buffer: &mut Vec<u8>,
    on_read: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<BlockComparison> {
    buffer.resize(BUFFER, 0);
    let block_size = expected.block_size;
    let mut md5 = expected.with_md5.then(Md5::new);
    let mut found = BlockComparison::default();
    // The current block: its number, how many of its bytes were read, and their digest if it matters.
    let (mut number, mut filled, mut sha) = (0_u64, 0_u64, Sha256::new());
    loop {
        let count = match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        let mut data = buffer.get(..count).unwrap_or_default();
        if let Some(md5) = &mut md5 {
            md5.update(data);
        }
        let is_end = count == 0;
        loop {
            let room = usize::try_from(block_size.max(1) - filled).unwrap_or(usize::MAX);
            let (piece, rest) = data.split_at(room.min(data.len()));
            let wanted = expected.block(number);
            if wanted.is_some() {
                sha.update(piece);
            }
            (filled, data) = (filled + piece.len() as u64, rest);
            // The last block may be a short one.
            if filled > 0 && (filled >= block_size || is_end) {
                if wanted.is_some_and(|wanted| sha.finalize_reset().as_slice() != wanted.as_slice()) {
                    found.differing.push(number);
                }
                (number, filled) = (number + 1, 0);
            }
            if data.is_empty() {
                break;
            }
        }
        on_read(count as u64)?;
        if is_end {
            break;
        }
    }
    found.md5 = md5.map(|md5| md5.finalize().into());
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_differ_are_named_unless_they_do_not_matter() {
        let data: Vec<u8> = (0..10_u8).collect();
        let digest = |bytes: &[u8]| -> Option<[u8; 32]> { Some(Sha256::digest(bytes).into()) };
        let blocks = [digest(&[0, 1, 2, 3]), digest(&[9; 4]), digest(&[8, 9])];
        let read = |blocks, with_md5| {
            let expected = Expected { block_size: 4, blocks, with_md5 };
            compare(data.as_slice(), &expected, &mut Vec::new(), &mut |_| Ok(())).unwrap()
        };
        let found = read(&blocks, true);
        assert_eq!(found.differing, [1]);
        assert_eq!(found.md5, Some(Md5::digest(&data).into()));
        let found = read(&[blocks[0], None, blocks[2]], false);
        assert!(found.differing.is_empty() && found.md5.is_none());
    }

    #[test]
    fn a_block_may_be_larger_than_the_buffer() {
        let data: Vec<u8> = (0..2 * BUFFER as u64 + 100).map(|at| u8::try_from(at % 251).unwrap()).collect();
        // A block that ends with a read, a short last block of several reads, and both with a wrong byte in the middle.
        for (block, length) in [(2 * BUFFER, 2 * BUFFER), (2 * BUFFER + 100, 2 * BUFFER), (BUFFER + 7, data.len()), (BUFFER, data.len())] {
            let data = &data[..length];
            let good: Vec<Option<[u8; 32]>> = data.chunks(block).map(|piece| Some(Sha256::digest(piece).into())).collect();
            let expected = Expected { block_size: block as u64, blocks: &good, with_md5: true };
            let read = |data: &[u8]| compare(data, &expected, &mut Vec::new(), &mut |_| Ok(())).unwrap();
            let found = read(data);
            assert_eq!((found.differing, found.md5), (vec![], Some(Md5::digest(data).into())), "{block}");
            let mut wrong = data.to_vec();
            wrong[BUFFER - 1] ^= 1;
            assert_eq!(read(&wrong).differing, [0], "{block}");
        }
    }
}
