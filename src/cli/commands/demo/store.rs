//! The demo's backup storage: backups of volumes of 1 GiB, mostly zeros, as Cinder's posix driver writes them.
//!
//! Three backups are intact, one of them an increment; one is incomplete and one is corrupt. Their objects are as old as their rows. One was
//! deleted but for its row. Two are not in the database: one is whole, and of the other some objects are left.

use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use crate::cli::{Error, Exit, Result};
use crate::domain::status::{AVAILABLE, ERROR};
use crate::format::generate::{self, BackupSpec, Digests};
use crate::format::metadata::Compression;

/// The demo's backup_file_size: 64 objects per GiB.
pub const CHUNK: usize = 16 << 20;
/// Cinder's default for backup_sha_block_size_bytes.
const BLOCK: usize = 32_768;
const GIB: u64 = 1 << 30;
/// The writes to a volume: the chunk, the first block in it, the number of blocks.
const WRITTEN: [(usize, usize, usize); 6] = [(0, 0, 6), (2, 300, 4), (9, 17, 5), (2, 302, 1), (4, 200, 3), (9, 400, 1)];
/// The number of these writes before the full backup; the others come before the increment.
const BEFORE_FULL: usize = 3;
/// The time between two objects.
const OBJECT_TAKES: Duration = Duration::from_secs(6);

/// The columns of a backup that its objects depend on.
#[derive(Debug, Clone)]
pub struct Row {
    pub volume_id: String,
    /// The backup that it is an increment on.
    pub parent_id: Option<String>,
    pub container: String,
    /// The prefix of its objects.
    pub prefix: String,
    /// When it began, in UTC, as SQLAlchemy writes it.
    pub created_at: String,
    /// The size of its volume in GiB.
    pub size: u32,
}

/// How a backup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    /// Its cinder-backup was killed while writing this object.
    EndedIn(u32),
    /// One bit of this object is flipped.
    BitFlippedIn(u32),
}

/// The backups in the storage, parents first.
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

/// A backup whose delete has removed the objects. The driver leaves the directory.
const DELETED: &str = "05a8c2f6-d7e1-49b3-8c60-f49d1b7e2a35";

/// Backups of one volume without rows, with the day of November on which each was made.
const LOST: [(&str, Fate, u8); 2] =
    [("d17e60b5-42c8-4f0a-9c3d-6b58e21f7a94", Fate::EndedIn(3), 1), ("d1c94e27-8a35-4d60-b7f1-3e05a96c82db", Fate::Whole, 2)];
const VOLUME_OF_LOST: &str = "9b41c0d2-7e56-4a8f-b0d3-25f8c1a67e90";

/// The backups in the storage, with the status that a check justifies.
pub fn earned() -> impl Iterator<Item = (&'static str, &'static str)> {
    STORED.into_iter().map(|(id, fate)| (id, if fate == Fate::Whole { AVAILABLE } else { ERROR }))
}

/// Fills the storage; `row` reads a backup from the database.
pub fn fill(root: &Path, row: &mut dyn FnMut(&str) -> Result<Row>) -> Result<()> {
    let mut parent: Option<(&str, Digests)> = None;
    for (id, fate) in STORED {
        let row = row(id)?;
        let digests = parent.as_ref().filter(|(parent, _)| row.parent_id.as_deref() == Some(parent)).map(|(_, digests)| digests.as_slice());
        let folder = root.join(&row.container);
        let failed = |error: io::Error| Error::new(Exit::Unexpected, format!("cannot make the backup {}: {error}", folder.display()));
        parent = Some((id, write(&folder, id, &row, digests, fate).map_err(failed)?));
    }
    let failed = |error: io::Error| Error::new(Exit::Unexpected, format!("cannot fill {}: {error}", root.display()));
    for (id, fate, day) in LOST {
        let lost = Row {
            volume_id: VOLUME_OF_LOST.to_owned(),
            parent_id: None,
            container: format!("{}/{}/{id}", id.get(..2).unwrap_or_default(), id.get(2..4).unwrap_or_default()),
            prefix: format!("volume_{VOLUME_OF_LOST}_202511{day:02}020000_backup_{id}"),
            created_at: format!("2025-11-{day:02} 02:00:00.000000"),
            size: 1,
        };
        write(&root.join(&lost.container), id, &lost, None, fate).map_err(failed)?;
    }
    fs::create_dir_all(root.join(row(DELETED)?.container)).map_err(failed)
}

fn write(folder: &Path, id: &str, row: &Row, parent: Option<&[[u8; 32]]>, fate: Fate) -> io::Result<Digests> {
    let began = began(&row.created_at)?;
    let created_at = format!("{}+00:00", row.created_at);
    let recipe = BackupSpec {
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
    let writes = if parent.is_some() { WRITTEN.len() } else { BEFORE_FULL };
    generate::write_from(&recipe, u64::from(row.size) * GIB, &mut |range| Ok(chunk(&row.volume_id, writes, range.start)), parent, &mut put)
}

fn began(created_at: &str) -> io::Result<SystemTime> {
    let time: DateTime = created_at.parse().map_err(io::Error::other)?;
    let time = time.to_zoned(TimeZone::UTC).map_err(io::Error::other)?;
    Ok(time.timestamp().into())
}

/// The bytes of a volume's chunk at an offset, after its first `writes` writes; `None` if they are all zeros.
fn chunk(volume_id: &str, writes: usize, offset: u64) -> Option<Vec<u8>> {
    let mut chunk = None;
    for (turn, (number, block, blocks)) in WRITTEN.into_iter().take(writes).enumerate() {
        if (number * CHUNK) as u64 == offset {
            let chunk = chunk.get_or_insert_with(|| vec![0; CHUNK]);
            let written = chunk.iter_mut().skip(block * BLOCK).take(blocks * BLOCK);
            written.zip(noise(volume_id, turn)).for_each(|(byte, noise)| *byte = noise);
        }
    }
    chunk
}

/// Bytes that do not compress, the same in every run.
fn noise(volume_id: &str, turn: usize) -> impl Iterator<Item = u8> {
    (0_u32..).flat_map(move |number| <[u8; 32]>::from(Sha256::digest(format!("{volume_id} {turn} {number}"))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    fn row(parent_id: Option<&str>) -> Row {
        Row {
            volume_id: "6d1f0c92-84be-4c35-9a77-2f50e8b1d643".into(),
            parent_id: parent_id.map(str::to_owned),
            container: "ab/cd/abcd".into(),
            prefix: "volume_v_20261122152143_backup_abcd".into(),
            created_at: "2026-11-22 15:21:43.393000".into(),
            size: 1,
        }
    }

    fn files(folder: &Path) -> Vec<(String, u64)> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let prefix = row(None).prefix;
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().to_str().unwrap().strip_prefix(&prefix).unwrap().to_owned(), entry.metadata().unwrap().len()))
            .collect();
        files.sort_unstable();
        files
    }

    #[test]
    fn each_fate_leaves_its_objects() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let digests = write(&at("whole"), "abcd", &row(None), None, Fate::Whole).unwrap();
        let whole = files(&at("whole"));
        assert_eq!(whole.len(), 66);
        assert_eq!((whole[0].0.as_str(), whole[63].0.as_str()), ("-00001", "-00064"));
        assert_eq!((whole[64].0.as_str(), whole[65].0.as_str()), ("_metadata", "_sha256file"));
        assert!(whole.iter().map(|(_, size)| size).sum::<u64>() < 4 << 20, "{whole:?}");

        write(&at("ended"), "abcd", &row(None), None, Fate::EndedIn(5)).unwrap();
        let ended = files(&at("ended"));
        assert_eq!(ended[..4], whole[..4]);
        assert_eq!(ended[4..], [("-00005".to_owned(), whole[4].1 / 2)]);

        write(&at("flipped"), "abcd", &row(None), None, Fate::BitFlippedIn(10)).unwrap();
        assert_eq!(files(&at("flipped")), whole);
        let bytes = |folder: &str| fs::read(at(folder).join(format!("{}-00010", row(None).prefix))).unwrap();
        let (sound, flipped) = (bytes("whole"), bytes("flipped"));
        let bits: u32 = sound.iter().zip(&flipped).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(bits, 1);

        write(&at("increment"), "abcd", &row(Some("parent")), Some(&digests), Fate::Whole).unwrap();
        assert_eq!(files(&at("increment")).iter().filter(|(name, _)| name.starts_with('-')).count(), WRITTEN.len() - BEFORE_FULL);

        let last = fs::metadata(at("whole").join(format!("{}_metadata", row(None).prefix))).unwrap().modified().unwrap();
        assert_eq!(last, began(&row(None).created_at).unwrap() + OBJECT_TAKES * 66);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_in_the_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = fill(file.path(), &mut |_| Ok(row(None))).unwrap_err();
        assert!(error.error.to_string().contains("cannot make the backup"), "{}", error.error);
        let root = tempfile::tempdir().unwrap();
        let error = fill(root.path(), &mut |_| Ok(Row { created_at: "yesterday".into(), ..row(None) })).unwrap_err();
        assert_eq!(error.exit, Exit::Unexpected);
    }

    #[test]
    fn three_of_the_five_backups_earn_available() {
        let available = earned().filter(|(_, status)| *status == AVAILABLE).count();
        assert_eq!((available, earned().count()), (3, 5));
    }
}
