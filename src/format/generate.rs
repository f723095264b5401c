//! Writes a backup as Cinder's chunked drivers write it, for the demonstration, tests and benchmarks.
//!
//! Source: `cinder/backup/chunkeddriver.py` of 29.0.0 (`backup`, `_backup_chunk`, `_finalize_backup`). Objects first, then the
//! sha256file, then the metadata, so that whoever stops in between leaves what a killed cinder-backup leaves.

use std::io::{self, Write};

use md5::Md5;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::metadata::Compression;
use super::names;
use crate::domain::hex;

/// What a backup is to be like.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// The beginning of all names.
    pub prefix: &'a str,
    /// The backup.
    pub backup_id: &'a str,
    /// Its volume.
    pub volume_id: &'a str,
    /// The backup that it is an increment of.
    pub parent_id: Option<&'a str>,
    /// As Python writes a datetime.
    pub created_at: &'a str,
    /// How objects are compressed, where that makes them smaller.
    pub compression: Compression,
    /// Bytes of the volume in an object, a multiple of `block_size`; not 0.
    pub chunk_size: usize,
    /// Bytes of the volume that one digest stands for; not 0.
    pub block_size: usize,
}

/// The digest of every block of a volume.
pub type Digests = Vec<[u8; 32]>;

/// Writes a backup of `volume`, an increment where the digests of its parent are given; `put` gets every object's name and
/// bytes. Gives the digests that an increment on this one needs.
///
/// # Errors
/// Those of `put`, and of compression.
pub fn write(
    recipe: &Recipe<'_>,
    volume: &[u8],
    parent: Option<&[[u8; 32]]>,
    put: &mut dyn FnMut(String, Vec<u8>) -> io::Result<()>,
) -> io::Result<Digests> {
    let block_size = recipe.block_size.max(1);
    let mut digests: Digests = Vec::new();
    let mut objects: Vec<Value> = Vec::new();
    for (index, chunk) in volume.chunks(recipe.chunk_size.max(1)).enumerate() {
        let offset = index * recipe.chunk_size.max(1);
        // The stretches of blocks that differ from the parent's; without a parent, all of it.
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for (number, block) in chunk.chunks(block_size).enumerate() {
            let digest: [u8; 32] = Sha256::digest(block).into();
            let differs = parent.is_none_or(|parent| parent.get(digests.len()) != Some(&digest));
            digests.push(digest);
            let (start, end) = (number * block_size, number * block_size + block.len());
            match stretches.last_mut() {
                Some((_, last)) if differs && *last == start => *last = end,
                _ if differs => stretches.push((start, end)),
                _ => {}
            }
        }
        for (start, end) in stretches {
            let data = chunk.get(start..end).unwrap_or_default();
            let name = names::data(recipe.prefix, objects.len() as u64 + 1);
            let packed = compress(recipe.compression, data)?;
            let (compression, stored) =
                if packed.len() < data.len() { (recipe.compression, packed) } else { (Compression::None, data.to_vec()) };
            objects.push(json!({ &name: {
                "compression": compression.name(),
                "length": data.len(),
                "md5": hex::encode(&Md5::digest(data)),
                "offset": offset + start,
            }}));
            put(name, stored)?;
        }
    }
    let sha256s: Vec<String> = digests.iter().map(|digest| hex::encode(digest)).collect();
    let sha256file = json!({
        "backup_description": null,
        "backup_id": recipe.backup_id,
        "backup_name": null,
        "chunk_size": block_size,
        "created_at": recipe.created_at,
        "sha256s": sha256s,
        "version": "1.0.0",
        "volume_id": recipe.volume_id,
    });
    put(names::sha256file(recipe.prefix), serde_json::to_vec_pretty(&sha256file)?)?;
    let metadata = json!({
        "backup_description": null,
        "backup_id": recipe.backup_id,
        "backup_name": null,
        "created_at": recipe.created_at,
        "objects": objects,
        "parent_id": recipe.parent_id,
        "version": "1.0.0",
        "volume_id": recipe.volume_id,
        "volume_meta": null,
    });
    put(names::metadata(recipe.prefix), serde_json::to_vec_pretty(&metadata)?)?;
    Ok(digests)
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
