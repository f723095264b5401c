//! Writes a backup as Cinder's chunked drivers do, for the demo, tests and benchmarks.
//!
//! Source: `cinder/backup/chunkeddriver.py` of 29.0.0 (`backup`, `_backup_chunk`, `_finalize_backup`). The order is objects, sha256file,
//! metadata, so that an interrupted write leaves the same as a killed cinder-backup.

use std::io::{self, Write};
use std::ops::Range;

use md5::Md5;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::metadata::Compression;
use super::names;
use crate::domain::hex;

/// The attributes of the backup to write.
#[derive(Debug, Clone, Copy)]
pub struct BackupSpec<'a> {
    /// The prefix of all names.
    pub prefix: &'a str,
    /// The backup.
    pub backup_id: &'a str,
    /// Its volume.
    pub volume_id: &'a str,
    /// The parent of an increment.
    pub parent_id: Option<&'a str>,
    /// In the format of a Python datetime.
    pub created_at: &'a str,
    /// The compression of objects that it makes smaller.
    pub compression: Compression,
    /// Bytes of the volume in an object, a multiple of `block_size`; not 0.
    pub chunk_size: usize,
    /// Bytes of the volume in a block; not 0.
    pub block_size: usize,
}

/// The digest of every block of a volume.
pub type Digests = Vec<[u8; 32]>;

/// Writes a backup of a volume of `volume_bytes`, an increment if the digests of its parent are given.
///
/// `read` is called for one chunk at a time, in order, and returns all its bytes, or `None` if they are all zero. Zeros are hashed and
/// compressed once, so that a large and mostly empty volume costs little. `put` receives the name and the bytes of every object.
/// Returns the digests that the next increment needs.
///
/// # Errors
/// Those of `read`, `put` and compression, and a wrong number of bytes from `read`.
pub fn write_from(
    spec: &BackupSpec<'_>,
    volume_bytes: u64,
    read: &mut dyn FnMut(Range<u64>) -> io::Result<Option<Vec<u8>>>,
    parent: Option<&[[u8; 32]]>,
    put: &mut dyn FnMut(String, Vec<u8>) -> io::Result<()>,
) -> io::Result<Digests> {
    let block_size = spec.block_size.max(1);
    let chunk_size = spec.chunk_size.max(1);
    let zeros = vec![0; chunk_size];
    let zero_block = zeros.get(..block_size.min(chunk_size)).unwrap_or_default();
    let zero_digest: [u8; 32] = Sha256::digest(zero_block).into();
    // The last compressed run of zeros. Nearly all have the length of a chunk.
    let mut zero_run: Option<(usize, Packed)> = None;
    let mut digests: Digests = Vec::new();
    let mut objects: Vec<Value> = Vec::new();
    let mut offset = 0;
    while offset < volume_bytes {
        let length = usize::try_from(volume_bytes - offset).unwrap_or(usize::MAX).min(chunk_size);
        let end = offset + length as u64;
        let read = read(offset..end)?;
        let is_zero = read.is_none();
        let chunk = read.as_deref().or(zeros.get(..length)).unwrap_or_default();
        if chunk.len() != length {
            let text = format!("{} bytes of the volume at {offset} instead of {length}", chunk.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // The runs of blocks that differ from the parent. Without a parent, all blocks.
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (number, block) in chunk.chunks(block_size).enumerate() {
            let is_zero_block = block.len() == zero_block.len() && (is_zero || block == zero_block);
            let digest = if is_zero_block { zero_digest } else { Sha256::digest(block).into() };
            let differs = parent.is_none_or(|parent| parent.get(digests.len()) != Some(&digest));
            digests.push(digest);
            let start = number * block_size;
            match runs.last_mut() {
                Some(last) if differs && last.end == start => last.end += block.len(),
                _ if differs => runs.push(start..start + block.len()),
                _ => {}
            }
        }
        for run in runs {
            let name = names::data(spec.prefix, objects.len() as u64 + 1);
            let packed = match &zero_run {
                Some((length, packed)) if is_zero && *length == run.len() => packed.clone(),
                _ => Packed::of(spec.compression, chunk.get(run.clone()).unwrap_or_default())?,
            };
            objects.push(json!({ &name: {
                "compression": packed.compression.name(),
                "length": run.len(),
                "md5": hex::encode(&packed.md5),
                "offset": offset + run.start as u64,
            }}));
            if is_zero {
                zero_run = Some((run.len(), packed.clone()));
            }
            put(name, packed.stored)?;
        }
        offset = end;
    }
    put(names::sha256file(spec.prefix), sha256file(spec, block_size, &digests)?)?;
    put(names::metadata(spec.prefix), metadata(spec, &objects)?)?;
    Ok(digests)
}

fn sha256file(spec: &BackupSpec<'_>, block_size: usize, digests: &[[u8; 32]]) -> io::Result<Vec<u8>> {
    let sha256s: Vec<String> = digests.iter().map(|digest| hex::encode(digest)).collect();
    let file = json!({
        "backup_description": null,
        "backup_id": spec.backup_id,
        "backup_name": null,
        "chunk_size": block_size,
        "created_at": spec.created_at,
        "sha256s": sha256s,
        "version": "1.0.0",
        "volume_id": spec.volume_id,
    });
    Ok(serde_json::to_vec_pretty(&file)?)
}

fn metadata(spec: &BackupSpec<'_>, objects: &[Value]) -> io::Result<Vec<u8>> {
    let file = json!({
        "backup_description": null,
        "backup_id": spec.backup_id,
        "backup_name": null,
        "created_at": spec.created_at,
        "objects": objects,
        "parent_id": spec.parent_id,
        "version": "1.0.0",
        "volume_id": spec.volume_id,
        "volume_meta": null,
    });
    Ok(serde_json::to_vec_pretty(&file)?)
}

/// The stored data of an object.
#[derive(Debug, Clone)]
struct Packed {
    compression: Compression,
    stored: Vec<u8>,
    md5: [u8; 16],
}

impl Packed {
    fn of(compression: Compression, data: &[u8]) -> io::Result<Self> {
        let packed = compress(compression, data)?;
        let (compression, stored) = if packed.len() < data.len() { (compression, packed) } else { (Compression::None, data.to_vec()) };
        Ok(Self { compression, stored, md5: Md5::digest(data).into() })
    }
}

fn compress(compression: Compression, data: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(data.to_vec()),
        Compression::Zlib => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(data)?;
            encoder.finish()
        }
        Compression::Bz2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            encoder.write_all(data)?;
            encoder.finish()
        }
        Compression::Zstd => zstd::bulk::compress(data, 3),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    const BLOCK: usize = 64;
    const CHUNK: usize = BLOCK * 4;

    fn spec(compression: Compression) -> BackupSpec<'static> {
        BackupSpec {
            prefix: "volume_v_20261122152143_backup_b",
            backup_id: "b",
            volume_id: "v",
            parent_id: None,
            created_at: "2026-11-22 15:21:43.393485+00:00",
            compression,
            chunk_size: CHUNK,
            block_size: BLOCK,
        }
    }

    type Files = Vec<(String, Vec<u8>)>;

    /// With `sparsely`, chunks of zeros are read as `None`.
    fn written(sparsely: bool, spec: &BackupSpec<'_>, volume: &[u8], parent: Option<&[[u8; 32]]>) -> (Files, Digests) {
        let mut files = Vec::new();
        let mut read = |range: Range<u64>| {
            let chunk = &volume[range.start as usize..range.end as usize];
            Ok((!sparsely || chunk.iter().any(|byte| *byte != 0)).then(|| chunk.to_vec()))
        };
        let digests = write_from(spec, volume.len() as u64, &mut read, parent, &mut |name, bytes| {
            files.push((name, bytes));
            Ok(())
        });
        (files, digests.unwrap())
    }

    #[test]
    fn skipped_zeros_give_the_same_backup() {
        // The volume ends in the middle of a block, with zeros and with data.
        for tail in [0, 7] {
            let mut volume = vec![0; CHUNK * 5 + BLOCK + 9];
            volume[CHUNK + 3] = 1;
            volume[CHUNK * 3 + BLOCK * 2..CHUNK * 4].fill(2);
            *volume.last_mut().unwrap() = tail;
            let mut later = volume.clone();
            later[CHUNK + 3] = 0;
            later[CHUNK * 2] = 3;
            for compression in [Compression::None, Compression::Zlib, Compression::Bz2, Compression::Zstd] {
                let spec = spec(compression);
                let whole = written(false, &spec, &volume, None);
                assert_eq!(whole.0.len(), 6 + 2);
                assert_eq!(whole.1.len(), volume.len().div_ceil(BLOCK));
                assert_eq!(written(true, &spec, &volume, None), whole);
                let increment = written(false, &spec, &later, Some(&whole.1));
                assert_eq!(increment.0.len(), 2 + 2);
                assert_eq!(written(true, &spec, &later, Some(&whole.1)), increment);
            }
        }
    }

    #[test]
    fn too_few_bytes_and_a_full_disk_are_errors() {
        let spec = spec(Compression::Zlib);
        let mut put = |_, _| Ok(());
        let error = write_from(&spec, 100, &mut |_| Ok(Some(vec![0; 99])), None, &mut put).unwrap_err();
        assert!(error.to_string().contains("99 bytes of the volume at 0 instead of 100"), "{error}");
        let mut full = |_, _| Err(io::Error::from(io::ErrorKind::StorageFull));
        let error = write_from(&spec, 100, &mut |_| Ok(Some(vec![1; 100])), None, &mut full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
