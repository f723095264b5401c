//! Backups of Icehouse, Juno and Kilo.

use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use super::*;
use crate::domain::hex;

/// Random enough that no compressor makes it smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn packed(compression: Compression, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match compression {
        Compression::Bz2 => drop(std::io::copy(&mut bzip2::read::BzEncoder::new(data, bzip2::Compression::best()), &mut bytes)),
        _ => drop(std::io::copy(&mut flate2::read::ZlibEncoder::new(data, flate2::Compression::default()), &mut bytes)),
    }
    bytes
}

/// As Cinder wrote it before Liberty: the MD5 is that of the bytes as stored, and what does not shrink is stored compressed
/// all the same. `kilo` has a sha256file and knows parents.
fn older(compression: Compression, kilo: bool) -> Chain {
    let mut volume = volumes(1, 32).remove(0);
    volume[8 * BLOCK..16 * BLOCK].copy_from_slice(&noise(8 * BLOCK));
    let mut chain = Chain::of(&[volume], compression, BLOCK * 8);
    let side_file = names::metadata(&prefix(0));
    let mut metadata: Value = serde_json::from_slice(chain.store.bytes_mut(&side_file).unwrap()).unwrap();
    for entry in metadata["objects"].as_array_mut().unwrap() {
        let (name, object) = entry.as_object_mut().unwrap().iter_mut().next().unwrap();
        let bytes = chain.store.bytes_mut(name).unwrap();
        if object["compression"] == "none" {
            *bytes = packed(compression, bytes);
            assert!(bytes.len() > 8 * BLOCK);
            object["compression"] = json!(compression.name());
        }
        object["md5"] = json!(hex::encode(&Md5::digest(&*bytes)));
    }
    if !kilo {
        metadata.as_object_mut().unwrap().remove("parent_id");
        chain.store.remove(&names::sha256file(&prefix(0)));
    }
    *chain.store.bytes_mut(&side_file).unwrap() = serde_json::to_vec_pretty(&metadata).unwrap();
    chain
}

#[test]
fn a_backup_from_before_liberty_is_intact() {
    for (compression, kilo) in [(Compression::Zlib, false), (Compression::Zlib, true), (Compression::Bz2, false), (Compression::Bz2, true)]
    {
        let chain = older(compression, kilo);
        for digest in [Digest::Md5, Digest::Sha256] {
            let options = ReadOptions { jobs: 2, digest, ..ReadOptions::default() };
            assert_eq!(chain.check_with(0, Level::Quick, &options).verdict, CheckVerdict::Intact);
            let found = chain.check_with(0, Level::Deep, &options);
            assert_eq!(found.verdict, CheckVerdict::Intact, "{compression:?} {kilo} {:?}", found.problems);
            // Before Kilo nothing shows what the volume held, so a restore check proves no more than a deep one.
            let restored = chain.check_with(0, Level::Restore, &options);
            let wanted = match kilo {
                true => (CheckVerdict::Intact, Some(Level::Restore), true),
                false => (CheckVerdict::Unverifiable, Some(Level::Deep), true),
            };
            assert_eq!(
                (restored.verdict, restored.level_reached, restored.object_count.is_some()),
                wanted,
                "{kilo} {:?}",
                restored.problems
            );
            assert!(found.warnings.iter().all(|warning| warning.code.as_str() == "no-sha256file"), "{:?}", found.warnings);
            if digest == Digest::Md5 || !kilo {
                assert_eq!(
                    found.depth,
                    "MD5 of every object (4 of the bytes as stored, as Cinder took it before Liberty); all 4 objects read"
                );
            }
        }
    }
}

#[test]
fn a_damaged_object_from_before_liberty_is_found() {
    for kilo in [false, true] {
        let chain = older(Compression::Zlib, kilo);
        let name = names::data(&prefix(0), 3);
        let length = chain.store.clone().bytes_mut(&name).unwrap().len();
        for at in 0..length {
            let mut damaged = Chain { store: chain.store.clone(), backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
            damaged.store.bytes_mut(&name).unwrap()[at] ^= 1;
            let found = damaged.check_with(0, Level::Deep, &ReadOptions { jobs: 1, digest: Digest::Md5, ..ReadOptions::default() });
            assert_eq!(found.verdict, CheckVerdict::Corrupt, "{kilo} {at}");
        }
        let mut cut = Chain { store: chain.store.clone(), backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
        cut.store.bytes_mut(&name).unwrap().extend(vec![0; 2000]);
        assert_eq!(cut.check(0, Level::Quick).verdict, CheckVerdict::Corrupt);
    }
}
