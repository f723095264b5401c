//! The demo's backup storage: what Cinder's posix driver would have left of a few volumes of 1 GiB, mostly zeros.
//!
//! One is whole and two are damaged, each in its own way; and one is an increment. Their objects are as old as their rows.

use std::borrow::Cow;
use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::cli::error::{Error, Result};
use crate::cli::exit::Exit;
use crate::format::generate::{self, Digests, Recipe};
use crate::format::metadata::Compression;

/// The demo's backup_file_size: 32 objects to a GiB.
pub const CHUNK: usize = 32 << 20;
/// Cinder's default for backup_sha_block_size_bytes.
const BLOCK: usize = 32_768;
const GIB: u64 = 1 << 30;
/// Where volumes have data: the chunk, the block in it, how many blocks. The last is written only after the first backup.
const WRITTEN: [(u64, usize, usize); 4] = [(0, 0, 6), (2, 500, 4), (9, 17, 5), (4, 300, 3)];
/// The driver begins with the first object; one comes after the other.
const OBJECT_TAKES: Duration = Duration::from_secs(11);

/// What a backup's files are made from.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its volume.
    pub volume_id: String,
    /// The backup that it is an increment on.
    pub parent_id: Option<String>,
    /// Its directory below the root.
    pub container: String,
    /// The beginning of its objects' names.
    pub prefix: String,
    /// When it began, UTC, as SQLAlchemy writes it.
    pub created_at: String,
    /// Of its volume, in GiB.
    pub size: u32,
}

/// What became of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// All of it is there.
    Whole,
    /// Its cinder-backup ended in the middle of this object.
    EndedIn(u32),
    /// One bit of this object is not what was written.
    BitFlippedIn(u32),
}

/// The backups that the storage has, parents first.
const STORED: [(&str, Fate); 5] = [
    // erp-db weekly, and the nightly on it
    ("e83b61d4-7f0a-4c59-8b12-d6c4a9705e3f", Fate::Whole),
    ("3f6c1b52-9e07-4d8a-b1c4-85d2f7e06a93", Fate::Whole),
    // ledger-db nightly
    ("5a90c7e3-d216-4f8b-9e45-b07d1f3c6a28", Fate::BitFlippedIn(10)),
    // wiki before the upgrade
    ("8d20f4a7-5b6e-4193-a8f2-c7e91d3b0456", Fate::EndedIn(5)),
    // dns-zones nightly
    ("c7e2f805-3b9d-4164-a0d8-5f1b92e6d47a", Fate::Whole),
];

/// Fills the storage; `row` looks a backup up in the database.
pub fn fill(root: &Path, row: &mut dyn FnMut(&str) -> Result<Row>) -> Result<()> {
    let mut parent: Option<(&str, Digests)> = None;
    for (id, fate) in STORED {
        let row = row(id)?;
        let digests = parent.as_ref().filter(|(parent, _)| row.parent_id.as_deref() == Some(parent)).map(|(_, digests)| digests.as_slice());
        let folder = root.join(&row.container);
        let failed = |error: io::Error| Error::new(Exit::Unexpected, format!("cannot make the backup {}: {error}", folder.display()));
        parent = Some((id, write(&folder, id, &row, digests, fate).map_err(failed)?));
    }
    Ok(())
}

fn write(folder: &Path, id: &str, row: &Row, parent: Option<&[[u8; 32]]>, fate: Fate) -> io::Result<Digests> {
    let began = began(&row.created_at)?;
    let created_at = format!("{}+00:00", row.created_at);
    let recipe = Recipe {
        prefix: &row.prefix,
        backup_id: id,
        volume_id: &row.volume_id,
        parent_id: row.parent_id.as_deref(),
        created_at: &created_at,
        compression: Compression::Zstd,
        chunk_size: CHUNK,
        block_size: BLOCK,
    };
    fs::create_dir_all(folder)?;
    let mut number: u32 = 0;
    let mut put = |name: String, mut bytes: Vec<u8>| {
        number += 1;
        match fate {
            Fate::EndedIn(last) if number > last => return Ok(()),
            Fate::EndedIn(last) if number == last => bytes.truncate(bytes.len() / 2),
            Fate::BitFlippedIn(which) if number == which => {
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
            }
            _ => {}
        }
        let mut file = File::create_new(folder.join(name))?;
        file.write_all(&bytes)?;
        file.set_times(FileTimes::new().set_modified(began + OBJECT_TAKES * number))
    };
    let volume = Volume { id: &row.volume_id, writes: if parent.is_some() { WRITTEN.len() } else { WRITTEN.len() - 1 } };
    generate::write_from(&recipe, u64::from(row.size) * GIB, &mut |range| Ok(volume.chunk(range.start)), parent, &mut put)
}

fn began(created_at: &str) -> io::Result<SystemTime> {
    let time: DateTime = created_at.parse().map_err(io::Error::other)?;
    let time = time.to_zoned(TimeZone::UTC).map_err(io::Error::other)?;
    Ok(time.timestamp().into())
}

/// What a volume held when a backup of it was made.
struct Volume<'a> {
    id: &'a str,
    /// So many of `WRITTEN` had been made.
    writes: usize,
}

impl Volume<'_> {
    /// The chunk at an offset; `None` where it is all zeros.
    fn chunk(&self, offset: u64) -> Option<Cow<'static, [u8]>> {
        let mut chunk = None;
        for (number, block, blocks) in WRITTEN.into_iter().take(self.writes) {
            if number * CHUNK as u64 != offset {
                continue;
            }
            let chunk = chunk.get_or_insert_with(|| vec![0; CHUNK]);
            let written = chunk.iter_mut().skip(block * BLOCK).take(blocks * BLOCK);
            for (byte, noise) in written.zip(noise(self.id, number)) {
                *byte = noise;
            }
        }
        chunk.map(Cow::Owned)
    }
}

/// Bytes that do not compress, and are the same in every run (xorshift, Marsaglia 2003).
fn noise(volume_id: &str, number: u64) -> impl Iterator<Item = u8> {
    let seed = volume_id.bytes().fold(0x9e37_79b9_7f4a_7c15 ^ number, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut state = seed | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
}
