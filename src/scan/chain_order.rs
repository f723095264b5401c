//! The live backups in the order of their chains: a full backup first, each increment after its parent.
//!
//! It takes 45 bytes for each live backup, and keeps no rows in memory. A backup whose parent is not live begins a chain of its own. So
//! does the backup with the smallest id of a chain that leads back to itself. Pure.

use std::collections::HashMap;

use super::compact_ids::CompactIds;
use crate::domain::id::key;

/// The end of a list of places.
const NONE: u32 = u32::MAX;

/// Why a backup is in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is not.
    None,
    /// A wanted backup is based on it.
    Ancestor,
    Wanted,
}

/// A live backup and its parent; one without a parent is its own. The ids are bytes, which need no alignment.
#[derive(Debug, Clone, Copy)]
struct Link {
    id: [u8; 16],
    parent: [u8; 16],
    role: Role,
}

/// The chains of live backups, while they are read.
#[derive(Debug, Default)]
pub struct Links {
    ids: CompactIds,
    /// The numbers of ids that are not in lower case, by those of their [`key`]s.
    spellings: HashMap<u128, u128>,
    links: Vec<Link>,
}

impl Links {
    /// Adds a live backup. Those that are not wanted matter only as ancestors.
    pub fn add(&mut self, id: &str, parent: Option<&str>, is_wanted: bool) {
        let number = self.ids.add(id);
        if key(id) != id {
            self.spellings.insert(CompactIds::number(&key(id)), number);
        }
        let parent = parent.map_or(number, |parent| CompactIds::number(&key(parent)));
        let role = if is_wanted { Role::Wanted } else { Role::None };
        self.links.push(Link { id: number.to_be_bytes(), parent: parent.to_be_bytes(), role });
    }

    /// Orders what was added.
    pub fn into_order(self) -> ChainOrder {
        let Self { ids, spellings, mut links } = self;
        links.sort_unstable_by_key(|link| link.id);
        // Places have 32 bits. A table with more rows would need 190 GB of memory.
        links.truncate(place(NONE));
        let find = |id: &[u8; 16]| links.binary_search_by_key(id, |link| link.id).ok();
        let spelled = |id: &[u8; 16]| spellings.get(&u128::from_be_bytes(*id)).and_then(|number| find(&number.to_be_bytes()));
        let parents =
            links.iter().enumerate().map(|(own, link)| number(find(&link.parent).or_else(|| spelled(&link.parent)).unwrap_or(own)));
        let mut order = ChainOrder { ids, parents: parents.collect(), links, first: Vec::new(), next: Vec::new() };
        order.open_cycles();
        order.want_ancestors();
        order.link_children();
        order
    }
}

/// The order. A backup is known by its place among all, sorted by their ids.
#[derive(Debug)]
pub struct ChainOrder {
    ids: CompactIds,
    links: Vec<Link>,
    parents: Vec<u32>,
    /// The first wanted child of each backup, and its next wanted sibling.
    first: Vec<u32>,
    next: Vec<u32>,
}

/// A backup in the order of the chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    /// Whether it is wanted. Otherwise it is here only because a wanted increment is based on it.
    pub is_wanted: bool,
    /// Of the first backup of a chain: the place of the chain, and how many backups it has.
    pub chain: Option<(u32, usize)>,
}

/// The position of a walk over a [`ChainOrder`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Position {
    /// The next place at which a chain may begin.
    root: u32,
    /// The next backup of a chain that was not walked to its end.
    within: Option<u32>,
}

impl ChainOrder {
    /// The next backups, at most `most`; empty at the end. A chain is only divided if it has more than `most` backups.
    pub fn next_portion(&self, position: &mut Position, most: usize) -> Vec<Member> {
        let mut members = Vec::new();
        loop {
            while let Some(at) = position.within {
                if members.len() >= most {
                    return members;
                }
                members.push(self.member(at, None));
                position.within = self.after(at);
            }
            let Some(root) = (position.root..number(self.links.len())).find(|at| self.is_root(*at)) else { return members };
            let backups = self.walk(root).count();
            if !members.is_empty() && members.len() + backups > most {
                position.root = root;
                return members;
            }
            members.push(self.member(root, Some((root, backups))));
            *position = Position { root: root + 1, within: self.after(root) };
        }
    }

    /// The ids of a chain, by its place.
    pub fn ids_of_chain(&self, chain: u32) -> impl Iterator<Item = String> {
        self.walk(chain).map(|at| self.id(at))
    }

    /// How many chains there are, and how many backups are in them.
    pub fn counts(&self) -> (usize, usize) {
        let all = 0..number(self.links.len());
        let chains = all.clone().filter(|at| self.is_root(*at)).count();
        (chains, all.filter(|at| self.role(*at) != Role::None).count())
    }

    /// How many backups are wanted.
    pub fn wanted(&self) -> usize {
        self.links.iter().filter(|link| link.role == Role::Wanted).count()
    }

    /// Leaves out the chains that are not kept, by the ids of their first backups.
    pub fn retain(&mut self, keep: &dyn Fn(&str) -> bool) {
        for root in 0..number(self.links.len()) {
            if !self.is_root(root) || keep(&self.id(root)) {
                continue;
            }
            let mut next = Some(root);
            while let Some(at) = next {
                next = self.after(at);
                if let Some(link) = self.links.get_mut(place(at)) {
                    link.role = Role::None;
                }
            }
        }
    }

    /// Makes the smallest id of every chain that leads back to itself the first of it.
    fn open_cycles(&mut self) {
        // Which walk has met a backup first.
        let mut met = vec![NONE; self.links.len()];
        for start in 0..number(self.links.len()) {
            let mut at = start;
            while get(&met, at) == NONE {
                set(&mut met, at, start);
                at = get(&self.parents, at);
            }
            if get(&met, at) != start || get(&self.parents, at) == at {
                continue;
            }
            let (from, mut smallest) = (at, at);
            while get(&self.parents, at) != from {
                at = get(&self.parents, at);
                smallest = smallest.min(at);
            }
            set(&mut self.parents, smallest, smallest);
        }
    }

    /// Includes the ancestors of all wanted backups.
    fn want_ancestors(&mut self) {
        for start in 0..number(self.links.len()) {
            if self.role(start) != Role::Wanted {
                continue;
            }
            let mut at = get(&self.parents, start);
            while let Some(link) = self.links.get_mut(place(at)).filter(|link| link.role == Role::None) {
                link.role = Role::Ancestor;
                at = get(&self.parents, at);
            }
        }
    }

    fn link_children(&mut self) {
        (self.first, self.next) = (vec![NONE; self.links.len()], vec![NONE; self.links.len()]);
        for at in (0..number(self.links.len())).rev() {
            let parent = get(&self.parents, at);
            if parent != at && self.role(at) != Role::None {
                set(&mut self.next, at, get(&self.first, parent));
                set(&mut self.first, parent, at);
            }
        }
    }

    fn member(&self, at: u32, chain: Option<(u32, usize)>) -> Member {
        Member { id: self.id(at), is_wanted: self.role(at) == Role::Wanted, chain }
    }

    fn id(&self, at: u32) -> String {
        self.links.get(place(at)).map(|link| self.ids.id(u128::from_be_bytes(link.id))).unwrap_or_default()
    }

    fn role(&self, at: u32) -> Role {
        self.links.get(place(at)).map_or(Role::None, |link| link.role)
    }

    fn is_root(&self, at: u32) -> bool {
        self.role(at) != Role::None && get(&self.parents, at) == at
    }

    fn walk(&self, root: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(root), |at| self.after(*at))
    }

    /// The next backup of the same chain: children before siblings, so that the ancestors of each are the latest ones.
    fn after(&self, at: u32) -> Option<u32> {
        let child = get(&self.first, at);
        if child != NONE {
            return Some(child);
        }
        let mut at = at;
        while get(&self.parents, at) != at {
            let sibling = get(&self.next, at);
            if sibling != NONE {
                return Some(sibling);
            }
            at = get(&self.parents, at);
        }
        None
    }
}

fn get(list: &[u32], at: u32) -> u32 {
    list.get(place(at)).copied().unwrap_or(NONE)
}

fn set(list: &mut [u32], at: u32, value: u32) {
    if let Some(entry) = list.get_mut(place(at)) {
        *entry = value;
    }
}

fn place(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn order(rows: &[(&str, Option<&str>, bool)]) -> ChainOrder {
        let mut links = Links::default();
        rows.iter().for_each(|(id, parent, is_wanted)| links.add(id, *parent, *is_wanted));
        links.into_order()
    }

    fn portions(order: &ChainOrder, most: usize) -> Vec<Vec<Member>> {
        let mut position = Position::default();
        std::iter::from_fn(|| Some(order.next_portion(&mut position, most)).filter(|portion| !portion.is_empty())).collect()
    }

    fn uuid(number: u8) -> String {
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    #[test]
    fn each_increment_comes_after_its_parent_and_children_before_siblings() {
        let [a, b, c, d, e, other] = [0xa, 0xb, 0xc, 0xd, 0xe, 0xf].map(uuid);
        let capitals = a.to_uppercase();
        let rows = [
            (d.as_str(), Some(c.as_str()), true),
            (&e, Some(&b), true),
            (&c, Some(&capitals), true),
            (&b, Some(&a), false),
            (&a, None, false),
            (&other, Some("gone"), false),
        ];
        let order = order(&rows);
        let portions = portions(&order, 2);
        let ids: Vec<&str> = portions.iter().flatten().map(|member| member.id.as_str()).collect();
        assert_eq!(ids, [&a, &b, &e, &c, &d], "the other one is neither wanted nor an ancestor");
        let wanted: Vec<bool> = portions.iter().flatten().map(|member| member.is_wanted).collect();
        assert_eq!(wanted, [false, false, true, true, true]);
        assert_eq!(portions.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1], "a chain that is too long is divided");
        assert_eq!(order.counts(), (1, 5));
    }

    #[test]
    fn ids_that_are_not_in_lower_case_are_found_and_kept() {
        let order = order(&[("Full", None, true), ("increment", Some("fULL"), true)]);
        let ids: Vec<String> = portions(&order, 9).into_iter().flatten().map(|member| member.id).collect();
        assert_eq!((ids, order.counts().0), (vec!["Full".to_owned(), "increment".to_owned()], 1));
    }

    proptest! {
        #[test]
        fn every_wanted_backup_comes_once_after_its_ancestors(
            parents in prop::collection::vec((prop::option::of(0_u8..24), any::<bool>()), 0..24),
            most in 1_usize..9,
        ) {
            let rows: Vec<(String, Option<String>, bool)> = parents
                .iter()
                .zip(0..)
                .map(|((parent, is_wanted), id)| (uuid(id), parent.map(uuid), *is_wanted))
                .collect();
            let rows: Vec<(&str, Option<&str>, bool)> = rows.iter().map(|(id, parent, is)| (id.as_str(), parent.as_deref(), *is)).collect();
            let order = order(&rows);
            let portions = portions(&order, most);
            let parents: BTreeMap<&str, Option<&str>> = rows.iter().map(|(id, parent, _)| (*id, *parent)).collect();
            let (mut seen, mut firsts) = (BTreeSet::new(), BTreeSet::new());
            let mut path: Vec<&str> = Vec::new();
            let mut chain_left = 0;
            for portion in &portions {
                prop_assert!(portion.len() <= most);
                for (place_in, member) in portion.iter().enumerate() {
                    let id = member.id.as_str();
                    prop_assert!(seen.insert(id), "{id} comes twice");
                    if let Some((place, backups)) = member.chain {
                        prop_assert_eq!(chain_left, 0, "the chain before has as many backups as was said");
                        prop_assert_eq!(order.ids_of_chain(place).count(), backups);
                        (chain_left, path) = (backups, Vec::new());
                        firsts.insert(id);
                        prop_assert!(backups > most || place_in + backups <= portion.len(), "a short chain is not divided");
                    } else {
                        let parent = parents[id].unwrap();
                        while path.last().is_some_and(|last| *last != parent) {
                            path.pop();
                        }
                        prop_assert!(!path.is_empty(), "the parent of {id} is on the path");
                    }
                    chain_left -= 1;
                    path.push(id);
                }
            }
            prop_assert_eq!(chain_left, 0);
            for (id, _, _) in rows.iter().filter(|(.., is_wanted)| *is_wanted) {
                let mut at = *id;
                while seen.contains(at) && !firsts.contains(at) {
                    at = parents[at].unwrap();
                }
                prop_assert!(firsts.contains(at), "{at} is missing");
            }
        }
    }
}
