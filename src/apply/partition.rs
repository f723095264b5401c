//! Which units of a batch may go side by side: those that have no row in common.
//!
//! Pure. Units that share a row, or whose backups share a parent, stay together and in their order, as each has to see what
//! the one before it wrote.

use std::borrow::Cow;
use std::collections::HashMap;

use super::unit_rows::UnitRows;
use crate::domain::Table;
use crate::domain::id::key;

/// Puts units together that must go one after the other. Each group has the units' places in ascending order, and groups
/// are in the order of their first units.
pub fn groups(units: &[UnitRows]) -> Vec<Vec<usize>> {
    let mut leaders: Vec<usize> = (0..units.len()).collect();
    let mut owners: HashMap<(Table, Cow<'_, str>), usize> = HashMap::new();
    for (place, rows) in units.iter().enumerate() {
        for row in rows.all().chain(rows.parent()) {
            let owner = *owners.entry((row.0, key(row.1))).or_insert(place);
            let (one, other) = (leader(&leaders, owner), leader(&leaders, place));
            // The earliest unit leads, so that groups come in the order of their first units.
            if let Some(leads) = leaders.get_mut(one.max(other)) {
                *leads = one.min(other);
            }
        }
    }
    let mut groups: Vec<Vec<usize>> = units.iter().map(|_| Vec::new()).collect();
    for place in 0..units.len() {
        if let Some(group) = groups.get_mut(leader(&leaders, place)) {
            group.push(place);
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

fn leader(leaders: &[usize], mut place: usize) -> usize {
    while let Some(next) = leaders.get(place).filter(|next| **next != place) {
        place = *next;
    }
    place
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(backups: &[&str], volumes: &[&str], parent: Option<&str>) -> UnitRows {
        UnitRows::plain(backups, volumes, parent)
    }

    #[test]
    fn units_without_a_row_in_common_are_apart() {
        assert_eq!(groups(&[rows(&["a"], &["v"], None), rows(&["b"], &["w"], None)]), [vec![0], vec![1]]);
        // A backup and a volume may have the same id; they are not the same row.
        assert_eq!(groups(&[rows(&["a"], &[], None), rows(&["b"], &["a"], None)]), [vec![0], vec![1]]);
    }

    #[test]
    fn a_volume_or_a_parent_in_common_keeps_units_together() {
        assert_eq!(groups(&[rows(&["a"], &["v"], None), rows(&["b"], &["w"], None), rows(&["c"], &["v"], None)]), [vec![0, 2], vec![1]]);
        assert_eq!(groups(&[rows(&["a"], &[], Some("p")), rows(&["b"], &[], Some("p"))]), [vec![0, 1]]);
        assert_eq!(groups(&[rows(&["a"], &[], Some("p")), rows(&["p"], &[], None)]), [vec![0, 1]]);
        // However it is spelt.
        assert_eq!(groups(&[rows(&["a"], &["V"], None), rows(&["b"], &["v"], None)]), [vec![0, 1]]);
        // The last one joins two groups that were apart.
        let joined = groups(&[rows(&["a"], &["v"], None), rows(&["b"], &["w"], None), rows(&["c"], &["v", "w"], None)]);
        assert_eq!(joined, [vec![0, 1, 2]]);
    }

    proptest! {
        #[test]
        fn whoever_shares_a_row_is_in_one_group(units in prop::collection::vec((0_u8..30, prop::collection::vec(0_u8..30, 0..3), prop::option::of(0_u8..30)), 0..40)) {
            let built: Vec<UnitRows> = units
                .iter()
                .map(|(backup, volumes, parent)| {
                    let volumes: Vec<String> = volumes.iter().map(|id| format!("v{id}")).collect();
                    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
                    UnitRows::plain(&[&format!("b{backup}")], &volumes, parent.map(|id| format!("b{id}")).as_deref())
                })
                .collect();
            let groups = groups(&built);
            let mut places: Vec<usize> = groups.iter().flatten().copied().collect();
            prop_assert!(groups.iter().all(|group| group.is_sorted()));
            prop_assert!(groups.iter().map(|group| group[0]).is_sorted());
            places.sort_unstable();
            prop_assert_eq!(places, (0..units.len()).collect::<Vec<_>>());
            let of = |place: usize| groups.iter().position(|group| group.contains(&place));
            for one in 0..built.len() {
                for other in 0..one {
                    let keys = |rows: &UnitRows| rows.all().chain(rows.parent()).map(|(table, id)| (table, id.to_owned())).collect::<Vec<_>>();
                    let mine = keys(&built[one]);
                    if keys(&built[other]).iter().any(|key| mine.contains(key)) {
                        prop_assert_eq!(of(one), of(other));
                    }
                }
            }
        }
    }
}
