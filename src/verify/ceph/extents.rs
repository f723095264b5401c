//! Sums over the extents of an image, one extent at a time. Pure.

use std::ops::Range;

use crate::storage::ceph::Extent;

/// The most holes that are listed.
const NAMED: usize = 64;
/// For an image of more objects than this (4 PiB with 4 MiB each) no set of objects is kept.
const MOST_OBJECTS: u64 = 1 << 30;

/// What the extents of an image cover.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ExtentSummary {
    pub bytes: u64,
    /// The end of the last of them.
    pub end: u64,
    /// The first ranges between the extents.
    pub holes: Vec<Range<u64>>,
    /// How many such ranges there are.
    pub hole_count: u64,
}

impl ExtentSummary {
    /// Bytes that are missing before the last extent's end.
    pub(super) fn inner_gap(&self) -> u64 {
        self.end.saturating_sub(self.bytes)
    }
}

#[derive(Debug)]
pub(super) struct ExtentSum {
    pub summary: ExtentSummary,
    /// The objects that hold data, if they are known.
    pub objects: Option<ObjectSet>,
    object_size: u64,
    /// The extents of a striped image are listed in the order of its objects: gaps between them mean nothing.
    ordered: bool,
}

impl ExtentSum {
    pub(super) fn new(size: u64, object_size: u64, striped: bool) -> Self {
        let objects = if striped { None } else { ObjectSet::new(size, object_size) };
        Self { summary: ExtentSummary::default(), objects, object_size, ordered: !striped }
    }

    /// Adds an extent; returns false if it overlaps another.
    pub(super) fn add(&mut self, extent: Extent) -> bool {
        if !extent.exists || extent.length == 0 {
            return true;
        }
        let end = extent.offset.saturating_add(extent.length);
        if self.ordered {
            if extent.offset < self.summary.end {
                return false;
            }
            if extent.offset > self.summary.end {
                self.summary.hole_count += 1;
                if self.summary.holes.len() < NAMED {
                    self.summary.holes.push(self.summary.end..extent.offset);
                }
            }
        }
        self.summary.bytes = self.summary.bytes.saturating_add(extent.length);
        self.summary.end = self.summary.end.max(end);
        if let Some(objects) = &mut self.objects {
            for object in extent.offset / self.object_size..=(end - 1) / self.object_size {
                objects.set(object);
            }
        }
        true
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectSet {
    words: Vec<u64>,
}

impl ObjectSet {
    /// The empty set; `None` for an image of too many objects.
    pub(super) fn new(size: u64, object_size: u64) -> Option<Self> {
        let count = size.div_ceil(object_size.max(1));
        let words = usize::try_from(count.div_ceil(64)).ok().filter(|_| count <= MOST_OBJECTS)?;
        Some(Self { words: vec![0; words] })
    }

    /// Adds an object, unless it is beyond the end of the image.
    pub(super) fn set(&mut self, object: u64) {
        if let Some(word) = usize::try_from(object / 64).ok().and_then(|index| self.words.get_mut(index)) {
            *word |= 1 << (object % 64);
        }
    }

    pub(super) fn contains(&self, object: u64) -> bool {
        let word = usize::try_from(object / 64).ok().and_then(|index| self.words.get(index));
        word.is_some_and(|word| word & (1 << (object % 64)) != 0)
    }

    /// The objects that are not in another set, in order.
    pub(super) fn without(&self, other: &Self) -> Vec<u64> {
        let mut found = Vec::new();
        for (index, word) in (0_u64..).zip(&self.words) {
            let others = usize::try_from(index).ok().and_then(|index| other.words.get(index)).copied().unwrap_or(0);
            let mut left = word & !others;
            while left != 0 {
                found.push(index * 64 + u64::from(left.trailing_zeros()));
                left &= left - 1;
            }
        }
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length, exists: true }
    }

    fn sum(size: u64, striped: bool, extents: &[Extent]) -> Option<(ExtentSummary, Option<ObjectSet>)> {
        let mut sum = ExtentSum::new(size, 10, striped);
        extents.iter().all(|extent| sum.add(*extent)).then_some((sum.summary, sum.objects))
    }

    #[test]
    fn holes_are_between_the_extents_and_not_after_the_last() {
        let (summary, objects) = sum(100, false, &[extent(0, 10), extent(10, 5), extent(20, 30), extent(60, 1)]).unwrap();
        assert_eq!((summary.bytes, summary.end, summary.hole_count, summary.inner_gap()), (46, 61, 2, 15));
        assert_eq!(summary.holes, [15..20, 50..60]);
        let objects = objects.unwrap();
        assert!(objects.contains(0) && !objects.contains(5) && !objects.contains(1000));
        let mut all = ObjectSet::new(100, 10).unwrap();
        (0..10).for_each(|object| all.set(object));
        assert_eq!(all.without(&objects), [5, 7, 8, 9]);
        let (summary, _) = sum(100, false, &[extent(5, 10)]).unwrap();
        assert_eq!(summary.holes.first(), Some(&(0..5)));
        assert_eq!(sum(100, false, &[]).unwrap().0, ExtentSummary::default());
    }

    #[test]
    fn extents_without_data_are_not_counted() {
        let gone = Extent { exists: false, ..extent(0, 50) };
        assert_eq!(sum(100, false, &[gone, extent(50, 0)]).unwrap().0, ExtentSummary::default());
    }

    #[test]
    fn overlapping_extents_are_refused() {
        assert!(sum(100, false, &[extent(0, 10), extent(9, 1)]).is_none());
        assert!(sum(100, false, &[extent(10, 10), extent(0, 5)]).is_none());
    }

    #[test]
    fn extents_of_a_striped_image_may_be_in_any_order() {
        let (summary, objects) = sum(100, true, &[extent(0, 10), extent(50, 50), extent(10, 40)]).unwrap();
        assert_eq!((summary.bytes, summary.end, summary.hole_count, summary.inner_gap()), (100, 100, 0, 0));
        assert!(objects.is_none());
        assert_eq!(sum(100, true, &[extent(50, 50)]).unwrap().0.inner_gap(), 50);
    }

    #[test]
    fn many_holes_are_counted_and_some_listed() {
        let extents: Vec<Extent> = (0..1000).map(|index| extent(index * 10, 5)).collect();
        let (summary, _) = sum(10_000, false, &extents).unwrap();
        assert_eq!((summary.hole_count, summary.holes.len(), summary.inner_gap()), (999, NAMED, 4995));
    }

    #[test]
    fn an_impossible_size_takes_no_memory() {
        assert!(ObjectSet::new(u64::MAX, 1).is_none());
        assert_eq!(ObjectSet::new(0, 4).unwrap().words.len(), 0);
        let (summary, objects) = sum(u64::MAX, false, &[extent(0, 10)]).unwrap();
        assert!(objects.is_none() && summary.bytes == 10);
    }
}
