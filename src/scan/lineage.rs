//! The backups that backups rest on.

use std::collections::{HashMap, HashSet};

use super::reader::Reader;
use crate::db::DbError;
use crate::domain::Backup;

/// No chain is longer; Cinder itself would have to read every member of it for a restore.
const LONGEST: usize = 10_000;

/// For each backup its ancestors, the nearest first, as far as they are live; read a generation at a time.
pub fn ancestors(reader: &mut Reader<'_>, backups: &[Backup]) -> Result<Vec<Vec<Backup>>, DbError> {
    let mut known: HashMap<String, Option<Backup>> = backups.iter().map(|backup| (backup.id.clone(), Some(backup.clone()))).collect();
    let mut wanted: Vec<String> = backups.iter().filter_map(|backup| backup.parent_id.clone()).collect();
    for _ in 0..LONGEST {
        wanted.retain(|id| !known.contains_key(id));
        wanted.sort();
        wanted.dedup();
        if wanted.is_empty() {
            break;
        }
        known.extend(wanted.iter().map(|id| (id.clone(), None)));
        let found = reader.backups(&wanted)?;
        wanted = found.iter().filter_map(|backup| backup.parent_id.clone()).collect();
        known.extend(found.into_iter().map(|backup| (backup.id.clone(), Some(backup))));
    }
    Ok(backups.iter().map(|backup| chain(backup, |id| known.get(id).and_then(Option::as_ref))).collect())
}

/// A backup's ancestors, the nearest first, as far as they are known.
pub fn chain<'b>(backup: &'b Backup, known: impl Fn(&str) -> Option<&'b Backup>) -> Vec<Backup> {
    let mut list = Vec::new();
    let mut seen: HashSet<&str> = HashSet::from([backup.id.as_str()]);
    let mut next = backup.parent_id.as_deref();
    // A chain that comes back to itself ends where it does.
    while let Some(parent) = next.filter(|id| seen.insert(id)).and_then(&known) {
        list.push(parent.clone());
        next = parent.parent_id.as_deref();
        seen.insert(&parent.id);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_comes_back_to_itself_ends() {
        let row = |id: &str, parent: Option<&str>| Backup { id: id.into(), parent_id: parent.map(Into::into), ..Backup::default() };
        let rows = [row("a", Some("b")), row("b", Some("c")), row("c", Some("a")), row("d", Some("gone"))];
        let known: HashMap<String, Option<Backup>> =
            rows.iter().map(|row| (row.id.clone(), Some(row.clone()))).chain([("gone".to_owned(), None)]).collect();
        let ids = |row: &Backup| -> Vec<String> {
            chain(row, |id| known.get(id).and_then(Option::as_ref)).into_iter().map(|backup| backup.id).collect()
        };
        assert_eq!(rows.first().map(ids), Some(vec!["b".to_owned(), "c".to_owned()]));
        assert_eq!(rows.last().map(ids), Some(Vec::new()));
    }
}
