//! The bytes of the volume that come from each object.

use std::ops::Range;

use super::inventory::{Digests, Inventory, Object};
use crate::domain::{Backup, Problem, ProblemCode};
use crate::format::names;
use crate::verify::ranges::RangeSet;
use crate::verify::{Faults, Severity};

/// No storage makes a volume larger than requested by more than this.
const MOST_ROUNDING: u64 = 64 << 30;

/// Whether objects reach further than those of any backup of such a volume. Reading them could take forever.
pub fn is_beyond(reached: u64, volume_bytes: u64) -> bool {
    reached > volume_bytes.saturating_add(MOST_ROUNDING)
}

/// Checks that the objects do not overlap, and that those of a full backup cover the whole volume.
pub fn check(inventory: &Inventory, backup: &Backup, faults: &mut Faults, warnings: &mut Vec<Problem>) {
    let (full, volume_bytes) = (backup.parent_id.is_none(), inventory.volume_bytes);
    let mut reached = 0_u64;
    for object in &inventory.entries {
        let name = || names::data(&inventory.prefix, object.number);
        if object.offset < reached {
            let text = format!("it begins at byte {} of the volume, but another object reaches to byte {reached}", object.offset);
            faults.add(Severity::Corrupt, Problem::of(name(), ProblemCode::Overlap, text));
        } else if full && object.offset > reached {
            let text = format!("no object holds bytes {reached} to {} of the volume", object.offset);
            faults.add(Severity::Incomplete, Problem::of(name(), ProblemCode::Gap, text));
        }
        reached = reached.max(object.end());
    }
    let Some(volume_bytes) = volume_bytes else {
        let text = "backups.size is not set or not a size of a volume, so it is not known how much of the volume there must be";
        return faults.add(Severity::Unverifiable, Problem::general(ProblemCode::SizeUnknown, text));
    };
    // The volume may have been extended after the snapshot was taken, and only a sha256file that fits shows that it was not.
    let fits = |digests: Digests| digests.count == volume_bytes.div_ceil(digests.block_size);
    if full && reached < volume_bytes && backup.snapshot_id.is_some() && !inventory.claimed_digests.is_some_and(fits) {
        let text = format!(
            "no object holds bytes {reached} to {volume_bytes} of the volume; it is a backup of a snapshot, which may have been smaller, and \
             its sha256file does not show it"
        );
        faults.add(Severity::Unverifiable, Problem::general(ProblemCode::SizeUnknown, text));
    } else if full && reached < volume_bytes {
        let text = format!("no object holds bytes {reached} to {volume_bytes} of the volume");
        faults.add(Severity::Incomplete, Problem::general(ProblemCode::Gap, text));
    }
    if is_beyond(reached, volume_bytes) {
        let text = format!("its objects reach to byte {reached} of the volume, far beyond the {volume_bytes} bytes of backups.size");
        faults.add(Severity::Corrupt, Problem::general(ProblemCode::BeyondVolume, text));
    } else if reached > volume_bytes {
        // Some storage rounds a volume up to its own unit.
        let text = format!("its objects reach to byte {reached} of the volume, but backups.size is {volume_bytes} bytes");
        warnings.push(Problem::general(ProblemCode::LargerThanSize, text));
    }
}

/// Ranges of bytes of the volume, in order.
pub type Ranges = Vec<Range<u64>>;

/// Returns, for every member of a chain (the newest first) and every object of it, the bytes of the volume that no newer member
/// overwrites in a restore, and after that the bytes up to `volume_bytes` that no object covers.
pub fn live(chain: &[&[Object]], volume_bytes: u64) -> (Vec<Vec<Ranges>>, Ranges) {
    let mut covered = RangeSet::default();
    let mut all = Vec::with_capacity(chain.len());
    for objects in chain {
        let lists: Vec<Ranges> = objects.iter().map(|object| covered.without(object.offset..object.end())).collect();
        for object in *objects {
            covered.add(object.offset..object.end());
        }
        all.push(lists);
    }
    let gaps = covered.without(0..volume_bytes);
    (all, gaps)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::metadata::Compression;

    fn object(offset: u64, length: u64) -> Object {
        Object { number: 1, offset, length, compression: Compression::None, md5: [0; 16], stored: None, written: i64::MIN }
    }

    #[test]
    fn a_newer_member_hides_the_older_ones() {
        let (newer, older) = ([object(10, 10)], [object(0, 15), object(15, 15)]);
        let (live, gaps) = live(&[&newer, &older], 40);
        assert_eq!(live, [vec![vec![10..20]], vec![vec![0..10], vec![20..30]]]);
        assert_eq!(gaps, [30..40]);
    }

    proptest! {
        #[test]
        fn every_byte_is_live_once_or_in_a_gap(chain in prop::collection::vec(prop::collection::vec((0_u64..60, 1_u64..20), 0..6), 0..5)) {
            let chain: Vec<Vec<Object>> =
                chain.iter().map(|objects| objects.iter().map(|(offset, length)| object(*offset, *length)).collect()).collect();
            let slices: Vec<&[Object]> = chain.iter().map(Vec::as_slice).collect();
            let (live, gaps) = live(&slices, 64);
            for byte in 0..64_u64 {
                let owner = chain.iter().position(|objects| objects.iter().any(|object| (object.offset..object.end()).contains(&byte)));
                for (member, objects) in live.iter().enumerate() {
                    let lives = objects.iter().any(|ranges| ranges.iter().any(|range| range.contains(&byte)));
                    prop_assert_eq!(lives, owner == Some(member));
                }
                prop_assert_eq!(gaps.iter().any(|gap| gap.contains(&byte)), owner.is_none());
            }
        }
    }
}
