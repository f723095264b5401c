//! The ancestors of backups.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::reader::Reader;
use crate::db::DbError;
use crate::domain::Backup;
use crate::domain::id::{key, same};

/// No chain is longer; Cinder itself would have to read every member of it for a restore.
const LONGEST: usize = 10_000;

/// Reads the live ancestors of each backup, the nearest first, a generation at a time.
///
/// They are shared: copies would grow with the square of a chain's length.
pub fn ancestors(reader: &mut Reader<'_>, backups: &[Backup]) -> Result<Vec<Vec<Arc<Backup>>>, DbError> {
    let entry = |backup: Backup| (key(&backup.id).into_owned(), Some(Arc::new(backup)));
    let mut known: HashMap<String, Option<Arc<Backup>>> = backups.iter().cloned().map(entry).collect();
    let mut wanted: Vec<String> = backups.iter().filter_map(|backup| backup.parent_id.clone()).collect();
    for _ in 0..LONGEST {
        wanted.retain(|id| !known.contains_key(key(id).as_ref()));
        wanted.sort();
        wanted.dedup();
        if wanted.is_empty() {
            break;
        }
        known.extend(wanted.iter().map(|id| (key(id).into_owned(), None)));
        let found = reader.backups(&wanted)?;
        wanted = found.iter().filter_map(|backup| backup.parent_id.clone()).collect();
        known.extend(found.into_iter().map(entry));
    }
    let parent = |id: &str| known.get(key(id).as_ref()).and_then(Option::as_ref);
    Ok(backups.iter().map(|backup| chain(backup, parent).into_iter().cloned().collect()).collect())
}

/// The latest backups of a walk in the order of chains, each based on the one before it.
#[derive(Debug, Default)]
pub struct Path(VecDeque<Arc<Backup>>);

impl Path {
    /// Adds the next backup of the walk, and returns its ancestors, the nearest first. There are none if its parent is not on the path.
    pub fn ancestors(&mut self, backup: &Arc<Backup>) -> Vec<Arc<Backup>> {
        let parent = backup.parent_id.as_deref();
        while self.0.back().is_some_and(|last| parent.is_none_or(|parent| !same(&last.id, parent))) {
            self.0.pop_back();
        }
        let ancestors = self.0.iter().rev().cloned().collect();
        self.0.push_back(Arc::clone(backup));
        if self.0.len() > LONGEST {
            self.0.pop_front();
        }
        ancestors
    }
}

/// A backup's known ancestors, the nearest first.
pub fn chain<'b, B: Borrow<Backup>>(backup: &'b Backup, known: impl Fn(&str) -> Option<&'b B>) -> Vec<&'b B> {
    let mut list = Vec::new();
    let mut seen: HashSet<&str> = HashSet::from([backup.id.as_str()]);
    let mut next = backup.parent_id.as_deref();
    // A chain that leads back to itself ends there.
    while let Some(parent) = next.filter(|id| seen.insert(id)).and_then(&known) {
        list.push(parent);
        let parent: &Backup = parent.borrow();
        next = parent.parent_id.as_deref();
        seen.insert(&parent.id);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_of_a_chain_share_their_ancestors() {
        let row = |id: &str, parent: Option<&str>| Backup { id: id.into(), parent_id: parent.map(Into::into), ..Backup::default() };
        let full = Arc::new(row("full", None));
        let known = |id: &str| (id == "full").then_some(&full);
        let (a, b) = (row("a", Some("full")), row("b", Some("full")));
        let both: Vec<&Arc<Backup>> = chain(&a, known).into_iter().chain(chain(&b, known)).collect();
        assert!(matches!(both.as_slice(), [a, b] if Arc::ptr_eq(a, b)), "{both:?}");
    }

    #[test]
    fn a_chain_that_comes_back_to_itself_ends() {
        let row =
            |id: &str, parent: Option<&str>| Arc::new(Backup { id: id.into(), parent_id: parent.map(Into::into), ..Backup::default() });
        let rows = [row("a", Some("b")), row("b", Some("c")), row("c", Some("a")), row("d", Some("gone"))];
        let known: HashMap<String, Option<Arc<Backup>>> =
            rows.iter().map(|row| (row.id.clone(), Some(row.clone()))).chain([("gone".to_owned(), None)]).collect();
        let ids = |row: &Backup| -> Vec<String> {
            chain(row, |id| known.get(id).and_then(Option::as_ref)).into_iter().map(|backup| backup.id.clone()).collect()
        };
        assert_eq!(rows.first().map(|row| ids(row)), Some(vec!["b".to_owned(), "c".to_owned()]));
        assert_eq!(rows.last().map(|row| ids(row)), Some(Vec::new()));
    }
}
