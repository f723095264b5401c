//! A backup in memory, as Cinder writes it, and every way of damaging it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod older;

mod strange;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::chain::MOST_PARENTS_NAMED;
use super::digest::Digest;
use super::*;
use crate::domain::shards::{ChainCosts, Shard};
use crate::domain::{Backup, CheckResult, CheckVerdict, Driver, Level};
use crate::format::generate::{self, BackupSpec};
use crate::format::metadata::Compression;
use crate::format::names;
use crate::storage::{MemoryStore, ObjectStore, StorageError};
use crate::verify::{Capacity, Subject, Watch, combine};

const BLOCK: usize = 64;

/// A chain of backups, the full one first, in one store.
struct Chain {
    store: MemoryStore,
    backups: Vec<Backup>,
    volume_bytes: u64,
}

fn id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn prefix(number: usize) -> String {
    format!("volume_{}/2026112220{number:04}/az_nova_backup_{}", id(999), id(number))
}

impl Chain {
    fn of(volumes: &[Vec<u8>], compression: Compression, chunk_size: usize) -> Self {
        Self::in_blocks(volumes, compression, chunk_size, BLOCK)
    }

    fn in_blocks(volumes: &[Vec<u8>], compression: Compression, chunk_size: usize, block_size: usize) -> Self {
        let mut store = MemoryStore::default();
        let mut backups = Vec::new();
        let mut digests: Option<generate::Digests> = None;
        for (number, volume) in volumes.iter().enumerate() {
            let (id_, prefix) = (id(number), prefix(number));
            let parent_id = number.checked_sub(1).map(id);
            let recipe = BackupSpec {
                prefix: &prefix,
                backup_id: &id_,
                volume_id: &id(999),
                parent_id: parent_id.as_deref(),
                created_at: "2026-11-22 15:21:43.393485+00:00",
                compression,
                chunk_size,
                block_size,
            };
            let written = "2026-11-22T15:30:00Z".parse().unwrap();
            let mut read = |range: Range<u64>| Ok(Some(volume[range.start as usize..range.end as usize].to_vec()));
            let made = generate::write_from(&recipe, volume.len() as u64, &mut read, digests.as_deref(), &mut |name, bytes| {
                store.put(name, bytes, Some(written));
                Ok(())
            });
            digests = Some(made.unwrap());
            backups.push(Backup {
                id: id_.clone(),
                volume_id: Some(id(999)),
                container: Some("volumebackups".into()),
                service_metadata: Some(prefix.clone()),
                parent_id: parent_id.clone(),
                ..Backup::default()
            });
        }
        Self { store, backups, volume_bytes: volumes[0].len() as u64 }
    }

    fn check(&self, number: usize, level: Level) -> CheckResult {
        self.check_with(number, level, &ReadOptions { jobs: 2, ..ReadOptions::default() })
    }

    fn check_with(&self, number: usize, level: Level, options: &ReadOptions) -> CheckResult {
        let store: Arc<dyn ObjectStore> = Arc::new(self.store.clone());
        self.check_in(&store, number, level, options)
    }

    fn check_in(&self, store: &Arc<dyn ObjectStore>, number: usize, level: Level, options: &ReadOptions) -> CheckResult {
        let list: Vec<&Backup> = self.backups[..=number].iter().rev().collect();
        let chain: Vec<StoredBackup<'_>> = list
            .iter()
            .map(|backup| StoredBackup { backup, volume_bytes: Some(self.volume_bytes), store: Ok(Arc::clone(store)) })
            .collect();
        let ancestors: Vec<Arc<Backup>> = list[1..].iter().map(|backup| Arc::new((*backup).clone())).collect();
        let now = "2026-11-22T18:00:00Z".parse().unwrap();
        let subject = Subject { backup: list[0], ancestors: &ancestors, level, settle: std::time::Duration::from_secs(900), now };
        let watch = Watch::default();
        let mut known: HashMap<(String, Level), Inspection> = HashMap::new();
        let capacity = Capacity::new(options.memory);
        let reading = ReadContext { options, watch: &watch, capacity: &capacity, driver: Driver::Posix };
        check(&subject, &chain, reading, &mut |link, level| {
            known
                .entry((link.backup.id.clone(), level))
                .or_insert_with(|| {
                    let mut own = Inspection::quick(link, level == Level::Quick, &mut || ());
                    if level == Level::Deep {
                        own.read_data(link, reading);
                    }
                    own
                })
                .clone()
        })
    }
}

/// A volume that compresses a little, with changes in each later state.
fn volumes(count: usize, blocks: usize) -> Vec<Vec<u8>> {
    let mut volume: Vec<u8> = (0..blocks * BLOCK).map(|at| if at % 3 == 0 { (at * 7 / 5) as u8 } else { 0 }).collect();
    let mut all = vec![volume.clone()];
    for number in 1..count {
        for at in (number * BLOCK * 2..volume.len()).step_by(BLOCK * 5) {
            volume[at] ^= 0x55;
        }
        all.push(volume.clone());
    }
    all
}

const ALL: [Compression; 4] = [Compression::None, Compression::Zlib, Compression::Bz2, Compression::Zstd];
const LEVELS: [Level; 3] = [Level::Quick, Level::Deep, Level::Restore];

#[test]
fn a_complete_backup_is_intact_at_every_level() {
    for compression in ALL {
        let chain = Chain::of(&volumes(3, 40), compression, BLOCK * 16);
        for number in 0..3 {
            for level in LEVELS {
                for digest in [Digest::Sha256, Digest::Md5] {
                    let found = chain.check_with(number, level, &ReadOptions { jobs: 2, digest, ..ReadOptions::default() });
                    assert_eq!(found.verdict, CheckVerdict::Intact, "{compression:?} {number} {level} {:?}", found.problems);
                    assert!(found.begun && !found.busy && found.warnings.is_empty(), "{:?}", found.warnings);
                    let own = chain.store.names().filter(|name| name.starts_with(&format!("{}-", prefix(number)))).count();
                    assert_eq!(found.object_count, Some(own as i64));
                    if level != Level::Quick {
                        assert!(found.bytes.checked >= found.bytes.expected, "{found:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_increment_without_a_change_is_whole() {
    let volume = volumes(1, 10).remove(0);
    let chain = Chain::of(&[volume.clone(), volume], Compression::Zlib, BLOCK * 4);
    for level in LEVELS {
        let found = chain.check(1, level);
        assert_eq!((found.verdict, found.object_count), (CheckVerdict::Intact, Some(0)), "{:?}", found.problems);
    }
}

/// Ways of damaging the objects of a backup. Each gives what to call it, and whether a quick look must see it.
fn damages(chain: &Chain, number: usize) -> Vec<(String, bool, MemoryStore)> {
    let begins = prefix(number);
    let names: Vec<String> = chain.store.names().filter(|name| name.starts_with(&begins)).map(str::to_owned).collect();
    let mut all = Vec::new();
    let mut add = |what: String, quick: bool, change: &mut dyn FnMut(&mut MemoryStore)| {
        let mut store = chain.store.clone();
        change(&mut store);
        all.push((what, quick, store));
    };
    for name in &names {
        let side = name.ends_with("file") || name.ends_with("metadata");
        add(format!("{name} is removed"), true, &mut |store| drop(store.remove(name)));
        let length = chain.store.clone().bytes_mut(name).unwrap().len();
        for at in [0, length / 2, length - 1] {
            add(format!("{name}: bit flipped at {at} of {length}"), false, &mut |store| store.bytes_mut(name).unwrap()[at] ^= 0x10);
        }
        for keep in [0, length / 2, length - 1] {
            add(format!("{name} cut to {keep} of {length}"), side && keep < length - 1, &mut |store| {
                store.bytes_mut(name).unwrap().truncate(keep)
            });
        }
        add(format!("{name} with more behind it"), side, &mut |store| store.bytes_mut(name).unwrap().extend(b"more"));
        let other = name
            .replace(&id(number), &id(if number == 0 { 1 } else { 0 }))
            .replace(&format!("20{number:04}"), &format!("20{:04}", usize::from(number == 0)));
        if let Some(bytes) = chain.store.clone().bytes_mut(&other).cloned()
            && bytes != *chain.store.clone().bytes_mut(name).unwrap()
        {
            add(format!("{name} swapped with another backup's"), side, &mut |store| *store.bytes_mut(name).unwrap() = bytes.clone());
        }
    }
    let data: Vec<&String> = names.iter().filter(|name| name.contains(&format!("{}-", id(number)))).collect();
    if let [first, second, ..] = data.as_slice() {
        add("two objects swapped".into(), false, &mut |store| {
            let one = store.bytes_mut(first).unwrap().clone();
            let two = std::mem::replace(store.bytes_mut(second).unwrap(), one);
            *store.bytes_mut(first).unwrap() = two;
        });
    }
    add("an extra object".into(), true, &mut |store| store.put(names::data(&begins, 77_777), *b"x", None));
    add("an extra file".into(), true, &mut |store| store.put(format!("{begins}-00001.tmp"), *b"x", None));
    all
}

#[test]
fn deep_finds_every_damage_and_calls_nothing_else_damaged() {
    for compression in ALL {
        let chain = Chain::of(&volumes(2, 24), compression, BLOCK * 8);
        let mut tried = 0;
        for number in 0..2 {
            for (what, quick, store) in damages(&chain, number) {
                tried += 1;
                let damaged = Chain { store, backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
                for digest in [Digest::Sha256, Digest::Md5] {
                    let found = damaged.check_with(number, Level::Deep, &ReadOptions { jobs: 1, digest, ..ReadOptions::default() });
                    // A flip in a name, a time or a digest that only the other digest would use may be of no consequence.
                    // The last byte of bzip2's has bits that stand for nothing.
                    let of_side_file = what.contains("file: ") || what.contains("metadata: ");
                    let padding = compression == Compression::Bz2
                        && what.split(" at ").nth(1).is_some_and(|at| {
                            let (at, length) = at.split_once(" of ").unwrap();
                            at.parse::<usize>().unwrap() + 1 == length.parse::<usize>().unwrap()
                        });
                    let harmless = found.verdict == CheckVerdict::Intact && what.contains("bit flipped") && (of_side_file || padding);
                    assert!(found.verdict.is_damage() || harmless, "{compression:?} {digest:?}: {what}: {found:?}");
                    assert!(!found.problems.is_empty() || harmless);
                }
                if quick {
                    assert!(damaged.check(number, Level::Quick).verdict.is_damage(), "{compression:?} quick: {what}");
                }
                let restore = damaged.check(number, Level::Restore);
                assert!(restore.verdict != CheckVerdict::Intact || what.contains("bit flipped"), "{compression:?} restore: {what}");
                // A backup that is based on a damaged one is damaged, others are not.
                if number == 0
                    && damaged
                        .check_with(0, Level::Deep, &ReadOptions { digest: Digest::Md5, ..ReadOptions::default() })
                        .verdict
                        .is_damage()
                {
                    let child = damaged.check_with(1, Level::Deep, &ReadOptions { digest: Digest::Md5, ..ReadOptions::default() });
                    // Backups that are based on it are restored without its sha256file.
                    let matters = !what.contains("_sha256file");
                    let wanted = if matters { CheckVerdict::Corrupt } else { CheckVerdict::Intact };
                    assert_eq!(child.verdict, wanted, "{compression:?} child: {what}: {child:?}");
                    let (problem, warning) = ("parent-damaged", "parent-sha256file");
                    assert_eq!(child.problems.iter().any(|told| told.code.as_str() == problem), matters, "{what}");
                    assert_eq!(child.warnings.iter().any(|told| told.code.as_str() == warning), !matters, "{what}");
                }
                if number == 1 {
                    assert_eq!(damaged.check(0, Level::Deep).verdict, CheckVerdict::Intact, "{what}");
                }
            }
        }
        assert!(tried > 60, "{tried}");
    }
}

/// With every member of a chain naming every damaged one above it, a survey of a chain would grow with its square.
#[test]
fn the_nearest_damaged_parents_are_named_and_the_others_counted() {
    let count = MOST_PARENTS_NAMED + 6;
    let mut chain = Chain::of(&volumes(count, 4), Compression::None, 4 * BLOCK);
    for number in 0..count - 1 {
        for name in chain.store.names().filter(|name| name.starts_with(&prefix(number))).map(str::to_owned).collect::<Vec<_>>() {
            chain.store.remove(&name);
        }
    }
    let findings = chain.check(count - 1, Level::Quick);
    assert_eq!(findings.verdict, CheckVerdict::Corrupt, "{findings:?}");
    let named: Vec<&str> =
        findings.problems.iter().filter(|problem| problem.code.as_str() == "parent-damaged").map(|problem| &*problem.text).collect();
    assert_eq!(named.len(), MOST_PARENTS_NAMED + 1, "{named:#?}");
    assert!(named[0].starts_with(&format!("backup {}, which it is based on, is missing: ", id(count - 2))), "{named:#?}");
    assert!(named.last().unwrap().starts_with("5 more of the backups that it is based on are damaged; "), "{named:#?}");
}

#[test]
fn what_a_killed_driver_leaves_is_incomplete_or_missing() {
    let chain = Chain::of(&volumes(1, 24), Compression::Zlib, BLOCK * 4);
    let order: Vec<String> = {
        let mut names: Vec<String> = chain.store.names().map(str::to_owned).collect();
        names.sort_by_key(|name| (name.ends_with("metadata"), name.ends_with("sha256file"), name.clone()));
        names
    };
    for written in 0..order.len() {
        let mut store = chain.store.clone();
        for name in &order[written..] {
            store.remove(name);
        }
        let killed = Chain { store, backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
        let want = if written == 0 { CheckVerdict::Missing } else { CheckVerdict::Incomplete };
        for level in LEVELS {
            let found = killed.check(0, level);
            assert_eq!((found.verdict, found.begun), (want, written > 0), "{written}: {:?}", found.problems);
            assert_eq!(found.object_count, None);
        }
    }
    let mut unbegun = Chain { store: MemoryStore::default(), backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
    unbegun.backups[0].service_metadata = None;
    assert_eq!(unbegun.check(0, Level::Deep).verdict, CheckVerdict::Missing);
}

#[test]
fn a_fresh_object_is_a_sign_of_work() {
    let mut chain = Chain::of(&volumes(1, 8), Compression::None, BLOCK * 4);
    assert!(!chain.check(0, Level::Quick).busy);
    chain.store.put(names::data(&prefix(0), 1), vec![0; BLOCK * 4], Some("2026-11-22T17:46:00Z".parse().unwrap()));
    assert!(chain.check(0, Level::Quick).busy);
}

#[test]
fn a_chain_without_its_beginning_cannot_be_restored() {
    let chain = Chain::of(&volumes(3, 24), Compression::None, BLOCK * 8);
    let mut backups = chain.backups.clone();
    backups.remove(0);
    let cut = Chain { store: chain.store.clone(), backups, volume_bytes: chain.volume_bytes };
    for level in LEVELS {
        let found = cut.check(1, level);
        assert_eq!(found.verdict, CheckVerdict::Incomplete, "{found:?}");
        assert!(found.problems.iter().any(|problem| problem.code.as_str() == "parent-missing"));
    }
}

/// Cinder asks of the blocks only that they divide the objects.
#[test]
fn blocks_may_be_as_large_as_the_objects() {
    let size = 9 << 20;
    let mut states = vec![vec![0_u8; 2 * size + 5]; 2];
    (states[0][7], states[1][size + 7]) = (1, 1);
    for compression in [Compression::None, Compression::Zlib] {
        let mut chain = Chain::in_blocks(&states, compression, size, size);
        for number in 0..2 {
            let found = chain.check(number, Level::Restore);
            assert_eq!(found.verdict, CheckVerdict::Intact, "{:?}", found.problems);
        }
        // The last one, which did not shrink: five bytes of the parent's.
        *chain.store.bytes_mut(&names::data(&prefix(0), 3)).unwrap() = b"other".to_vec();
        let found = chain.check(1, Level::Restore);
        assert_eq!(found.verdict, CheckVerdict::Corrupt, "{:?}", found.problems);
    }
}

/// A device may be a little larger than the volume's size, and no multiple of a block; an increment need not hold its end.
#[test]
fn the_last_bytes_of_a_larger_device_may_lie_below() {
    let mut states = vec![vec![1_u8; 8 * BLOCK + 5]; 2];
    states[1][0] = 2;
    let mut chain = Chain::of(&states, Compression::None, BLOCK * 4);
    chain.volume_bytes = 8 * BLOCK as u64;
    for number in 0..2 {
        let found = chain.check(number, Level::Restore);
        assert_eq!(found.verdict, CheckVerdict::Intact, "{number} {:?}", found.problems);
    }
    *chain.store.bytes_mut(&names::data(&prefix(0), 3)).unwrap() = b"other".to_vec();
    assert_eq!(chain.check(1, Level::Restore).verdict, CheckVerdict::Corrupt);
}

/// What the tip's digests tell of, and no backup of the chain holds, is no device that is a little larger than its size.
#[test]
fn the_last_bytes_of_a_larger_device_that_nobody_lists_are_missed() {
    let mut states = vec![vec![1_u8; 8 * BLOCK + 5]; 2];
    states[1][0] = 2;
    let mut chain = Chain::of(&states, Compression::None, BLOCK * 4);
    let short = Chain::of(&[states[0][..8 * BLOCK].to_vec()], Compression::None, BLOCK * 4);
    chain.volume_bytes = 8 * BLOCK as u64;
    chain.store.remove(&names::data(&prefix(0), 3));
    *chain.store.bytes_mut(&names::metadata(&prefix(0))).unwrap() =
        short.store.clone().bytes_mut(&names::metadata(&prefix(0))).unwrap().clone();
    let found = chain.check(1, Level::Restore);
    assert_eq!(found.verdict, CheckVerdict::Incomplete, "{:?}", found.problems);
    assert_eq!(found.problems[0].code.as_str(), "gap");
}

/// The volume was extended after the snapshot that both are of, and the device is no multiple of a block.
#[test]
fn the_last_bytes_of_a_snapshot_may_lie_below() {
    let mut states = vec![vec![1_u8; 8 * BLOCK + 5]; 2];
    states[1][0] = 2;
    let mut chain = Chain::of(&states, Compression::None, BLOCK * 4);
    chain.volume_bytes = 16 * BLOCK as u64;
    chain.backups.iter_mut().for_each(|backup| backup.snapshot_id = Some(id(998)));
    for number in 0..2 {
        let found = chain.check(number, Level::Restore);
        assert_eq!(found.verdict, CheckVerdict::Intact, "{number} {:?}", found.problems);
    }
    *chain.store.bytes_mut(&names::data(&prefix(0), 3)).unwrap() = b"other".to_vec();
    assert_eq!(chain.check(1, Level::Restore).verdict, CheckVerdict::Corrupt);
}

#[test]
fn only_a_restore_check_finds_an_increment_on_other_bytes() {
    // Every object of both is as it was written, and yet what they give together is not what the volume held.
    let states = volumes(2, 24);
    let mut other = states[0].clone();
    other[BLOCK + 3] ^= 1;
    let good = Chain::of(&states, Compression::None, BLOCK * 8);
    let mut wrong = Chain::of(&[other], Compression::None, BLOCK * 8);
    let names: Vec<String> = good.store.names().filter(|name| name.starts_with(&prefix(1))).map(str::to_owned).collect();
    for name in names {
        let bytes = good.store.clone().bytes_mut(&name).unwrap().clone();
        wrong.store.put(name, bytes, None);
    }
    wrong.backups.push(good.backups[1].clone());
    assert_eq!(wrong.check(1, Level::Deep).verdict, CheckVerdict::Intact);
    let found = wrong.check(1, Level::Restore);
    assert_eq!(found.verdict, CheckVerdict::Corrupt, "{found:?}");
    assert!(
        found.problems[0].text.contains("the first at byte 64 of the volume; its MD5 matches, so it is as it was written"),
        "{:?}",
        found.problems
    );
}

#[test]
fn a_share_says_so_and_all_shares_read_everything() {
    let chain = Chain::of(&volumes(1, 64), Compression::None, BLOCK * 4);
    let mut read = 0;
    for part in 1..=5 {
        let found = chain.check_with(0, Level::Deep, &ReadOptions { share: Share::Part(part, 5), ..ReadOptions::default() });
        assert!(found.depth.contains(&format!("of 16 objects read (part {part} of 5)")), "{}", found.depth);
        read += found.bytes.checked;
    }
    assert_eq!(read, chain.volume_bytes);
    let found = chain.check_with(0, Level::Deep, &ReadOptions { share: Share::Fraction(0.01), ..ReadOptions::default() });
    assert!(found.bytes.checked >= 256 && found.bytes.checked < chain.volume_bytes, "{found:?}");
}

#[test]
fn the_parts_of_a_split_chain_together_find_what_one_check_finds() {
    let mut chain = Chain::of(&volumes(2, 64), Compression::None, BLOCK * 4);
    let mut costs = ChainCosts::default();
    costs.add(2, 1 << 40, true);
    let part = |number| costs.content(Shard::new(number, 3).unwrap()).chains[0].1;
    let combined = |chain: &Chain, index| {
        let of_part = |number| {
            let part = part(number);
            let options = ReadOptions { share: Share::Objects(part.unwrap()), ..ReadOptions::default() };
            CheckResult { part, partial: true, ..chain.check_with(index, Level::Deep, &options) }
        };
        combine((1..=3).map(of_part).collect()).unwrap()
    };
    for (damaged, verdict) in [(false, CheckVerdict::Intact), (true, CheckVerdict::Corrupt)] {
        if damaged {
            let name = chain.store.names().find(|name| name.starts_with(&prefix(0)) && name.ends_with("-00005")).unwrap().to_owned();
            chain.store.bytes_mut(&name).unwrap()[0] ^= 1;
        }
        for index in 0..2 {
            let (whole, parts) = (chain.check(index, Level::Deep), combined(&chain, index));
            let of = |result: &CheckResult| (result.verdict, result.reached(), result.objects, result.bytes, result.problems.clone());
            assert_eq!(of(&parts), of(&whole));
            assert_eq!((parts.verdict, parts.is_whole()), (verdict, !damaged));
        }
    }
}

#[test]
fn a_stopped_check_says_so_and_calls_nothing_intact() {
    let chain = Chain::of(&volumes(1, 24), Compression::None, BLOCK * 4);
    let watch = Watch::default();
    watch.flag().store(true, std::sync::atomic::Ordering::Relaxed);
    let store: Arc<dyn ObjectStore> = Arc::new(chain.store.clone());
    let link = StoredBackup { backup: &chain.backups[0], volume_bytes: Some(chain.volume_bytes), store: Ok(store) };
    let mut own = Inspection::quick(&link, true, &mut || ());
    let (options, capacity) = (ReadOptions::default(), Capacity::new(512 << 20));
    own.read_data(&link, ReadContext { options: &options, watch: &watch, capacity: &capacity, driver: Driver::Posix });
    assert_eq!(own.verdict(), CheckVerdict::Unverifiable);
}

/// What another reader of the format makes of bytes; `None` where they are not compressed, or broken.
fn unpacked(compression: Compression, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let read = match compression {
        Compression::None => return None,
        Compression::Zlib => std::io::copy(&mut flate2::read::ZlibDecoder::new(bytes), &mut data),
        Compression::Bz2 => std::io::copy(&mut bzip2::read::BzDecoder::new(bytes), &mut data),
        Compression::Zstd => std::io::copy(&mut zstd::stream::read::Decoder::new(bytes).ok()?, &mut data),
    };
    read.ok().map(|_| data)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_chain_is_intact_and_any_flipped_bit_of_its_data_is_found(
        seed in any::<u64>(), blocks in 1_usize..30, tail in 1_usize..=BLOCK, states in 1_usize..4, chunk in 1_usize..9, kind in 0_usize..4,
    ) {
        let mut random = seed;
        let mut next = move || { random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407); (random >> 33) as usize };
        let length = (blocks - 1) * BLOCK + tail;
        let mut volume: Vec<u8> = (0..length).map(|_| (next() % 5) as u8).collect();
        let mut all = vec![volume.clone()];
        for _ in 1..states {
            for _ in 0..3 { let at = next() % length; volume[at] = next() as u8; }
            all.push(volume.clone());
        }
        let chain = Chain::of(&all, ALL[kind], chunk * BLOCK);
        let tip = states - 1;
        for level in LEVELS {
            let found = chain.check(tip, level);
            prop_assert_eq!(found.verdict, CheckVerdict::Intact, "{:?}", found.problems);
        }
        let begins = format!("{}-", prefix(tip));
        let names: Vec<String> = chain.store.names().filter(|name| name.starts_with(&begins)).map(str::to_owned).collect();
        if !names.is_empty() {
            let mut store = chain.store.clone();
            let bytes = store.bytes_mut(&names[next() % names.len()]).unwrap();
            let at = next() % bytes.len();
            let bit = 1 << (next() % 8);
            let before = unpacked(ALL[kind], bytes);
            bytes[at] ^= bit;
            // Every format has bits that stand for nothing: padding, tables that no symbol uses, bzip2's level.
            prop_assume!(before.is_none() || before != unpacked(ALL[kind], bytes));
            let damaged = Chain { store, backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
            let found = damaged.check(tip, Level::Deep);
            prop_assert_eq!(found.verdict, CheckVerdict::Corrupt, "{:?}", found);
        }
    }
}

#[test]
fn a_backup_of_a_snapshot_may_be_smaller_than_its_volume_is_now() {
    let mut chain = Chain::of(&volumes(2, 24), Compression::Zlib, BLOCK * 8);
    chain.volume_bytes *= 2;
    // Without a snapshot, half of the volume is not there.
    for level in LEVELS {
        assert!(chain.check(0, level).verdict.is_damage(), "{level}");
        assert!(chain.check(1, level).verdict.is_damage(), "{level}");
    }
    for backup in &mut chain.backups {
        backup.snapshot_id = Some(id(777));
    }
    for number in 0..2 {
        for level in LEVELS {
            let found = chain.check(number, level);
            assert_eq!(found.verdict, CheckVerdict::Intact, "{number} {level} {:?}", found.problems);
            assert!(found.warnings.iter().any(|warning| warning.code.as_str() == "smaller-than-size"), "{:?}", found.warnings);
        }
    }
    // What is missing at its end is missed all the same.
    for (what, _, store) in damages(&chain, 0).into_iter().filter(|(what, ..)| what.ends_with("removed")) {
        let damaged = Chain { store, backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
        assert!(damaged.check(0, Level::Quick).verdict.is_damage(), "{what}");
    }
}

#[test]
fn properties_of_the_volume_that_a_restore_would_fail_over_are_damage() {
    for (meta, wrong) in [
        ("null", false),
        (r#""""#, false),
        (r#""{\"version\": 2, \"volume-base-metadata\": {\"display_name\": \"\\u00fc\"}}""#, false),
        (r#""{\"version\": 1}""#, false),
        (r#""{\"version\": 3}""#, true),
        (r#""{\"versioo\": 2}""#, true),
        (r#""{\"version\": 2""#, true),
        (r#""[2]""#, true),
        ("{}", true),
    ] {
        let mut chain = Chain::of(&volumes(2, 8), Compression::Zlib, BLOCK * 8);
        let bytes = chain.store.bytes_mut(&names::metadata(&prefix(0))).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap().replace(r#""volume_meta": null"#, &format!(r#""volume_meta": {meta}"#));
        *bytes = text.into_bytes();
        for number in 0..2 {
            let found = chain.check(number, Level::Restore);
            assert_eq!(found.verdict.is_damage(), wrong, "{number} {meta} {:?}", found.problems);
        }
    }
}

#[test]
fn a_storage_whose_clock_is_behind_does_not_make_a_backup_look_quiet() {
    let mut chain = Chain::of(&volumes(1, 8), Compression::None, BLOCK * 2);
    // It began at 17:30, and its objects seem to be of 16:30 to 16:58; now it is 18:00.
    let began = format!("volume_{}/20261122173000/az_nova_backup_{}", id(999), id(0));
    let names: Vec<String> = chain.store.names().map(str::to_owned).collect();
    for (number, name) in names.iter().enumerate() {
        let bytes = String::from_utf8_lossy(&chain.store.remove(name).unwrap()).replace(&prefix(0), &began);
        let written = format!("2026-11-22T16:{}:00Z", 30 + (number * 14).min(28));
        chain.store.put(name.replace(&prefix(0), &began), bytes.as_bytes(), Some(written.parse().unwrap()));
    }
    chain.backups[0].service_metadata = Some(began);
    let found = chain.check(0, Level::Quick);
    assert!(found.busy && found.warnings.iter().any(|warning| warning.code.as_str() == "clock-behind"), "{found:?}");
}

/// Changes a sha256file.
fn with_sha256file(chain: &Chain, number: usize, change: impl FnOnce(&mut serde_json::Value)) -> Chain {
    let mut store = chain.store.clone();
    let bytes = store.bytes_mut(&names::sha256file(&prefix(number))).unwrap();
    let mut document = serde_json::from_slice(bytes).unwrap();
    change(&mut document);
    *bytes = serde_json::to_vec(&document).unwrap();
    Chain { store, backups: chain.backups.clone(), volume_bytes: chain.volume_bytes }
}

#[test]
fn a_wrong_sha256file_is_named_and_no_data_is_missed() {
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 6] = [
        ("one more at the end", |file| file["sha256s"].as_array_mut().unwrap().push("0".repeat(64).into())),
        ("one more in front", |file| file["sha256s"].as_array_mut().unwrap().insert(0, "0".repeat(64).into())),
        ("one less", |file| drop(file["sha256s"].as_array_mut().unwrap().pop())),
        ("half of the size of a block", |file| file["chunk_size"] = (BLOCK / 2).into()),
        ("twice the size of a block", |file| file["chunk_size"] = (BLOCK * 2).into()),
        ("of another time", |file| {
            for digest in file["sha256s"].as_array_mut().unwrap() {
                *digest = "0".repeat(64).into();
            }
        }),
    ];
    for snapshot in [false, true] {
        let mut chain = Chain::of(&volumes(3, 40), Compression::Zlib, BLOCK * 16);
        if snapshot {
            // The volume was extended since, to what no change below comes to by chance.
            chain.volume_bytes *= 3;
            chain.backups.iter_mut().for_each(|backup| backup.snapshot_id = Some(id(777)));
        }
        for number in 0..3 {
            for (what, change) in &changes {
                // That of a smaller snapshot would look like this.
                if snapshot && number > 0 && *what == "one less" {
                    continue;
                }
                let wrong = with_sha256file(&chain, number, change);
                for level in LEVELS {
                    let found = wrong.check(number, level);
                    let codes: Vec<&str> = found.problems.iter().map(|problem| problem.code.as_str()).collect();
                    let what = format!("{what} of {number}, {level}, {snapshot}: {:?} {}", found.problems, found.depth);
                    // Only data shows that a digest is another.
                    if *what.split(' ').next().unwrap() == *"of" && level == Level::Quick {
                        continue;
                    }
                    assert_eq!(found.verdict, CheckVerdict::Corrupt, "{what}");
                    let file = names::sha256file(&prefix(number));
                    let named = found
                        .problems
                        .iter()
                        .find(|problem| problem.code.as_str() == "sha256file-wrong")
                        .unwrap_or_else(|| panic!("{what}"));
                    assert!(named.object.as_ref() == Some(&file) && named.text.contains("an increment made on this backup"), "{what}");
                    assert!(!codes.iter().any(|code| ["gap", "object-digest", "object-missing"].contains(code)), "{what}");
                    // In a restore a parent's data is held against the tip's digests alone.
                    let is_restore_of_other = level == Level::Restore && number > 0 && what.starts_with("of another");
                    assert!(is_restore_of_other || !codes.contains(&"block-differs"), "{what}");
                    if level != Level::Quick {
                        assert!(found.objects.checked == found.objects.expected && found.objects.checked > 0, "{what}");
                    }
                    // Backups that are based on it are not affected.
                    if number < 2 && !snapshot {
                        assert_eq!(wrong.check(2, level).verdict, CheckVerdict::Intact, "{what}");
                    }
                }
            }
        }
    }
}
