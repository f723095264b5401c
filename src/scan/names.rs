//! Resolves what a person typed, ids or display names, to backups.

use std::collections::{BTreeSet, HashMap, HashSet};

/// How many backups of one name an error lists; the rest are counted.
const LISTED: usize = 50;

/// Resolves ids and names to ids: every name must belong to exactly one backup, and an id always means its own backup. `backups` are ids and
/// names, at least those that have one of the names.
///
/// # Errors
/// A sentence about the first name that fits none, or several, with the ids of those.
pub fn resolve<'b>(
    names: &BTreeSet<String>,
    backups: impl IntoIterator<Item = (&'b str, Option<&'b str>)>,
) -> Result<BTreeSet<String>, String> {
    let mut by_name: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    let mut known: HashSet<&str> = HashSet::new();
    for (id, name) in backups {
        known.insert(id);
        if let Some(name) = name.filter(|name| names.contains(*name)) {
            by_name.entry(name).or_default().insert(id);
        }
    }
    let mut ids = BTreeSet::new();
    for name in names {
        if known.contains(name.as_str()) {
            ids.insert(name.clone());
            continue;
        }
        let fitting: Vec<&str> = by_name.get(name.as_str()).into_iter().flatten().copied().collect();
        match fitting.as_slice() {
            [] => {
                return Err(format!("no live backup has the id or name {name:?}; it may have been deleted, or be in another database"));
            }
            [id] => drop(ids.insert((*id).to_owned())),
            several => {
                let listed = several.get(..LISTED).unwrap_or(several);
                let more = match several.len() - listed.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                return Err(format!("{} backups have the name {name:?}; give an id instead: {}{more}", several.len(), listed.join(", ")));
            }
        }
    }
    Ok(ids)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ask(names: &[&str], rows: &[(&str, Option<&str>)]) -> Result<Vec<String>, String> {
        resolve(&names.iter().map(|name| (*name).to_owned()).collect(), rows.iter().copied()).map(|ids| ids.into_iter().collect())
    }

    #[test]
    fn a_name_is_that_of_one_backup_and_an_id_its_own() {
        let rows = [("a", Some("nightly")), ("b", Some("a")), ("c", Some("weekly")), ("d", Some("weekly")), ("e", None)];
        assert_eq!(ask(&["nightly", "e"], &rows), Ok(vec!["a".into(), "e".into()]));
        assert_eq!(ask(&["a"], &rows), Ok(vec!["a".into()]), "another is called by its id");
        let several = ask(&["weekly"], &rows).unwrap_err();
        assert_eq!(several, "2 backups have the name \"weekly\"; give an id instead: c, d");
        assert!(ask(&["none"], &rows).is_err_and(|why| why.contains("no live backup has the id or name \"none\"")));
        assert_eq!(ask(&[], &rows), Ok(Vec::new()));
    }

    #[test]
    fn a_name_that_very_many_have_is_an_error_of_bounded_length() {
        let ids: Vec<String> = (0..1_000).map(|number| format!("{number:04}")).collect();
        let rows: Vec<(&str, Option<&str>)> = ids.iter().map(|id| (id.as_str(), Some("x"))).collect();
        let why = ask(&["x"], &rows).unwrap_err();
        assert!(why.starts_with("1000 backups have") && why.ends_with("0049 and 950 more"), "{why}");
    }
}
