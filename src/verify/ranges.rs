//! Sets of bytes as ranges. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges of bytes that do not touch each other.
#[derive(Debug, Default)]
pub(super) struct RangeSet {
    /// End by start.
    ends: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds a range.
    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Every range that touches this one becomes part of it.
        while let Some((&other, &other_end)) = self.ends.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            (start, end) = (start.min(other), end.max(other_end));
            self.ends.remove(&other);
        }
        self.ends.insert(start, end);
    }

    /// The parts of a range that are not in it.
    pub(super) fn without(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        let mut at = range.start;
        let first = self.ends.range(..=range.start).next_back().map_or(range.start, |(start, _)| *start);
        for (&start, &end) in self.ends.range(first..range.end) {
            if start > at {
                parts.push(at..start.min(range.end));
            }
            at = at.max(end);
        }
        if at < range.end {
            parts.push(at..range.end);
        }
        parts
    }

    /// The number of ranges.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many of its bytes are not in another set.
    pub(super) fn bytes_without(&self, other: &Self) -> u64 {
        let parts = self.ends.iter().flat_map(|(start, end)| other.without(*start..*end));
        parts.map(|part| part.end - part.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_outside_of_other_ranges_are_counted() {
        type Pairs<'a> = &'a [(u64, u64)];
        let ranges = |pairs: Pairs<'_>| {
            let mut set = RangeSet::default();
            pairs.iter().for_each(|(from, to)| set.add(*from..*to));
            set
        };
        let cases: [(Pairs<'_>, Pairs<'_>, u64); 7] = [
            (&[(0, 10)], &[], 10),
            (&[], &[(0, 10)], 0),
            (&[(0, 10)], &[(0, 10)], 0),
            (&[(0, 10), (20, 30)], &[(5, 25)], 10),
            (&[(0, 100)], &[(10, 20), (30, 40), (90, 200)], 70),
            (&[(10, 20), (30, 40)], &[(0, 5), (6, 50)], 0),
            (&[(0, 10), (10, 20)], &[(3, 4), (15, 16), (16, 17)], 17),
        ];
        for (these, others, bytes) in cases {
            assert_eq!(ranges(these).bytes_without(&ranges(others)), bytes, "{these:?} {others:?}");
        }
    }
}
