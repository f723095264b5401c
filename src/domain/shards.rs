//! Which chains of a catalog each of several hosts checks: balanced by bytes, and the same on every host.
//!
//! A shard's *share* is an equal part of the whole cost. A chain that costs more than a share is split where its objects can be read one
//! by one: it fills shard after shard up to the share. Then each other chain, the most expensive first, goes to the shard with the least
//! so far. A shard so has at most its share and the cost of one whole chain.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cost of a backup apart from its data, in bytes: its listing and its side files.
const BACKUP: u64 = 1 << 20;
/// The parts that a split chain has. A power of two.
const PARTS: u32 = 1 << 16;
/// An odd number near [`PARTS`] over the golden ratio: the numbers of a few objects in a row then lie far apart.
const STEP: u64 = 40_503;
/// More shards would not divide a split chain evenly.
const MOST_SHARDS: u32 = 4096;

/// One of several hosts that share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    number: u32,
    of: u32,
}

impl Shard {
    /// The shard of this number, counted from 1; `None` if there is no such shard.
    pub fn new(number: u32, of: u32) -> Option<Self> {
        (1..=of).contains(&number).then_some(Self { number, of }).filter(|shard| shard.of <= MOST_SHARDS)
    }

    /// Counted from 1.
    pub fn number(self) -> u32 {
        self.number
    }

    /// How many there are.
    pub fn of(self) -> u32 {
        self.of
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shard = text.split_once('/').and_then(|(number, of)| Self::new(number.trim().parse().ok()?, of.trim().parse().ok()?));
        shard.ok_or_else(|| format!("{text:?} is not a shard: use for example 2/5, the second of five; the most is {MOST_SHARDS} shards"))
    }
}

/// Some of a chain's objects: every backup of the chain has about the same part of its objects in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectPart {
    from: u32,
    to: u32,
}

impl ObjectPart {
    /// Whether the object of this number belongs to it.
    pub fn has(self, object: u64) -> bool {
        let place = object.wrapping_mul(STEP) % u64::from(PARTS);
        (u64::from(self.from)..u64::from(self.to)).contains(&place)
    }

    /// Whether these parts, in any order, are all of a chain's objects, each once.
    pub fn are_all(parts: &mut [Self]) -> bool {
        parts.sort_unstable();
        let end = parts.iter().try_fold(0, |end, part| (part.from == end && part.to > end).then_some(part.to));
        end == Some(PARTS)
    }
}

impl fmt::Display for ObjectPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} of {PARTS}", self.from, self.to)
    }
}

/// The costs of a catalog's chains, in its order: 8 bytes a chain.
#[derive(Debug, Clone, Default)]
pub struct ChainCosts(Vec<Cost>);

/// Twice the cost, and 1 if the chain may be split.
#[derive(Debug, Clone, Copy)]
struct Cost(u64);

impl Cost {
    fn value(self) -> u64 {
        self.0 >> 1
    }

    fn may_be_split(self) -> bool {
        self.0 & 1 == 1
    }
}

/// What a shard checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardContent {
    /// The places of its chains in the catalog, ascending, with the part of a chain that is split.
    pub chains: Vec<(usize, Option<ObjectPart>)>,
}

impl ChainCosts {
    /// Adds the next chain.
    pub fn add(&mut self, backups: u64, bytes: u64, may_be_split: bool) {
        let cost = backups.saturating_mul(BACKUP).saturating_add(bytes).min(u64::MAX >> 1);
        self.0.push(Cost((cost << 1) | u64::from(may_be_split)));
    }

    /// Computes what a shard checks. Takes 8 bytes more for each chain.
    pub fn content(&self, shard: Shard) -> ShardContent {
        let total: u128 = self.0.iter().map(|cost| u128::from(cost.value())).sum();
        let share = total.div_ceil(u128::from(shard.of)).max(1);
        let own = usize::try_from(shard.number - 1).unwrap_or(usize::MAX);
        let is_split = |cost: Cost| cost.may_be_split() && u128::from(cost.value()) > share;
        let mut loads = vec![0_u128; usize::try_from(shard.of).unwrap_or(usize::MAX)];
        let (mut chains, mut filled) = (Vec::new(), 0);
        for (place, cost) in self.0.iter().enumerate().filter(|(_, cost)| is_split(**cost)) {
            split(*cost, share, &mut loads, &mut filled, &mut |number, part| {
                if number == own {
                    chains.push((place, Some(part)));
                }
            });
        }
        let mut order: Vec<usize> = (0..self.0.len()).filter(|place| self.0.get(*place).is_some_and(|cost| !is_split(*cost))).collect();
        let cost = |place: usize| self.0.get(place).map_or(0, |cost| cost.value());
        order.sort_unstable_by_key(|place| (Reverse(cost(*place)), *place));
        let mut least: BinaryHeap<Reverse<(u128, usize)>> =
            loads.into_iter().enumerate().map(|(number, load)| Reverse((load, number))).collect();
        for place in order {
            let Some(mut first) = least.peek_mut() else { break };
            let Reverse((load, number)) = &mut *first;
            *load += u128::from(cost(place));
            if *number == own {
                chains.push((place, None));
            }
        }
        chains.sort_unstable();
        ShardContent { chains }
    }
}

/// Gives each shard from `filled` on as much of a chain as its share has room for, at least one part.
fn split(cost: Cost, share: u128, loads: &mut [u128], filled: &mut usize, each: &mut dyn FnMut(usize, ObjectPart)) {
    let (cost, parts) = (u128::from(cost.value()), u128::from(PARTS));
    let (mut from, last) = (0, loads.len().saturating_sub(1));
    while let Some(load) = loads.get_mut(*filled).filter(|_| from < PARTS) {
        // Rounded up, so that nothing is left beyond the last shard's share.
        let fits = (share.saturating_sub(*load) * parts).div_ceil(cost);
        let left = PARTS - from;
        let taken = if *filled == last { left } else { u32::try_from(fits).map_or(left, |fits| fits.min(left)) };
        if taken > 0 {
            *load += cost * u128::from(taken) / parts;
            each(*filled, ObjectPart { from, to: from + taken });
            from += taken;
        }
        if from < PARTS {
            *filled += 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Chains: backups, bytes, and whether they may be split.
    type Chains = Vec<(u64, u64, bool)>;

    fn costs(chains: &Chains) -> ChainCosts {
        let mut costs = ChainCosts::default();
        chains.iter().for_each(|(backups, bytes, may_be_split)| costs.add(*backups, *bytes, *may_be_split));
        costs
    }

    fn contents(chains: &Chains, of: u32) -> Vec<ShardContent> {
        (1..=of).map(|number| costs(chains).content(Shard::new(number, of).unwrap())).collect()
    }

    fn cost((backups, bytes, _): &(u64, u64, bool)) -> u128 {
        u128::from(backups * BACKUP + bytes)
    }

    /// The cost of each shard.
    fn loads(chains: &Chains, contents: &[ShardContent]) -> Vec<u128> {
        let of = |(place, part): &(usize, Option<ObjectPart>)| {
            let parts = part.map_or(PARTS, |part| part.to - part.from);
            chains.get(*place).map_or(0, cost) * u128::from(parts) / u128::from(PARTS)
        };
        contents.iter().map(|content| content.chains.iter().map(of).sum()).collect()
    }

    fn chains() -> impl Strategy<Value = Chains> {
        let bytes = prop_oneof![8 => 0..1_u64 << 34, 1 => 0..1_u64 << 42, 2 => Just(0)];
        vec((1..20_u64, bytes, any::<bool>()), 0..60)
    }

    proptest! {
        #[test]
        fn every_chain_is_in_one_shard_or_split_without_gap_or_overlap(chains in chains(), of in 1..40_u32) {
            let mut found = vec![Vec::new(); chains.len()];
            for content in contents(&chains, of) {
                prop_assert!(content.chains.is_sorted());
                for (place, part) in content.chains {
                    found.get_mut(place).unwrap().push(part);
                }
            }
            for (parts, (_, _, may_be_split)) in found.into_iter().zip(&chains) {
                if parts == [None] {
                    continue;
                }
                prop_assert!(may_be_split);
                let mut parts: Vec<ObjectPart> = parts.into_iter().map(Option::unwrap).collect();
                prop_assert!(ObjectPart::are_all(&mut parts));
                for object in 0..200 {
                    prop_assert_eq!(parts.iter().filter(|part| part.has(object)).count(), 1);
                }
            }
        }

        #[test]
        fn no_shard_has_more_than_its_share_and_one_whole_chain(chains in chains(), of in 1..40_u32) {
            let contents = contents(&chains, of);
            let share = chains.iter().map(cost).sum::<u128>().div_ceil(u128::from(of));
            let largest = |split: bool| chains.iter().filter(|chain| (chain.2 && cost(chain) > share) == split).map(cost).max().unwrap_or(0);
            let most = share + largest(false) + largest(true) / u128::from(PARTS) + 1;
            for load in loads(&chains, &contents) {
                prop_assert!(load <= most, "{} of {}", load, most);
            }
        }

        #[test]
        fn the_costs_alone_decide(chains in chains(), of in 1..40_u32) {
            prop_assert_eq!(contents(&chains, of), contents(&chains, of));
        }
    }

    #[test]
    fn bytes_are_balanced_and_not_chains() {
        // One chain of 100 GiB, and 100 of 1 GiB.
        let mut chains: Chains = vec![(7, 100 << 30, false)];
        chains.extend(vec![(7, 1 << 30, false); 100]);
        let contents = contents(&chains, 2);
        assert_eq!(contents.iter().map(|content| content.chains.len()).collect::<Vec<_>>(), [1, 100]);
        assert_eq!(contents.first().unwrap().chains, [(0, None)]);
    }

    #[test]
    fn a_chain_larger_than_a_share_is_spread_over_the_shards_evenly() {
        let mut chains: Chains = vec![(1, 10 << 40, true)];
        chains.extend(vec![(1, 1 << 30, true); 2048]);
        let contents = contents(&chains, 8);
        let loads = loads(&chains, &contents);
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(most - least <= 1 << 31, "{loads:?}");
        // In as few parts as possible: every part reads the side files again.
        assert_eq!(contents.iter().flat_map(|content| &content.chains).filter(|(_, part)| part.is_some()).count(), 7);
    }

    #[test]
    fn chains_without_bytes_are_spread_too() {
        let contents = contents(&vec![(1, 0, false); 80], 8);
        assert!(contents.iter().all(|content| content.chains.len() == 10));
    }

    #[test]
    fn a_split_chain_of_few_objects_has_some_in_each_part() {
        let part = |from: u32| ObjectPart { from: from * PARTS / 4, to: (from + 1) * PARTS / 4 };
        for part in (0..4).map(part) {
            let objects = (1..=20).filter(|object| part.has(*object)).count();
            assert!((4..=6).contains(&objects), "{part}: {objects}");
        }
    }

    #[test]
    fn only_shards_that_exist_are_read() {
        assert_eq!("3/8".parse(), Ok(Shard { number: 3, of: 8 }));
        assert_eq!(Shard { number: 3, of: 8 }.to_string(), "3/8");
        for text in ["0/8", "9/8", "3", "3/", "-1/8", "a/b", "1/5000", ""] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
