//! Witnesses: a backup of which nothing was found is gone only if this is the right storage.
//!
//! Another account, region or cluster can have an empty container of the same name, and a directory may not be mounted. So another available
//! backup has to be found in the same place. It is of the same host, because each host has its own cinder.conf. It is the next older one,
//! because a storage that was configured later holds no older backup. Only the oldest backup of a place has a younger witness, and it has
//! none if its directory is missing, too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::civil::DateTime;

use super::targets::targets_by_id;
use super::{Check, Database, Observer, Result, Stores, reading};
use crate::domain::time::parse;
use crate::domain::{Backup, CheckResult, CheckVerdict, Driver, Level, Problem, ProblemCode};
use crate::storage::RetryPolicy;
use crate::verify::{Answer, Request, StorageAccess};

/// When a backup was made, and its id.
type Dated = (Option<DateTime>, String);

/// The backups of one place of which nothing was found.
#[derive(Debug, Default)]
struct Sought {
    /// By age, each with the next older available backup of those that it has seen.
    missing: Vec<(Dated, Option<Dated>)>,
    /// The oldest available backup.
    oldest: Option<Dated>,
}

impl Sought {
    /// Takes an available backup.
    fn add(&mut self, available: Dated) {
        let place = self.missing.partition_point(|((made, _), _)| *made < available.0);
        if let Some((_, older)) = self.missing.get_mut(place).filter(|(_, older)| older.as_ref() < Some(&available)) {
            *older = Some(available.clone());
        }
        if self.oldest.as_ref().is_none_or(|oldest| available < *oldest) {
            self.oldest = Some(available);
        }
    }

    /// The backups, each with its candidate: the next older available backup, or the oldest one if all are younger.
    fn candidates(self) -> impl Iterator<Item = (String, Candidate)> {
        let Self { missing, oldest } = self;
        let mut last: Option<Dated> = None;
        missing.into_iter().filter_map(move |((_, missing), older)| {
            last = older.or_else(|| last.take());
            let (_, id) = last.as_ref().or(oldest.as_ref())?.clone();
            Some((missing, Candidate { id, is_older: last.is_some() }))
        })
    }
}

/// A backup that may be a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    id: String,
    /// Whether it is older than the backup of which nothing was found.
    is_older: bool,
}

/// Adds to each result that needs a witness the witness, or why it has none.
pub(super) fn add_witnesses(check: Check, results: &mut [CheckResult], database: &mut Database, observer: &dyn Observer) -> Result<()> {
    let ids: Vec<String> = results.iter().filter(|result| result.needs_witness()).map(|result| result.id.clone()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let stores = Stores::new(check.storage.clone(), RetryPolicy::default(), Arc::<AtomicBool>::default());
    let candidates = reading(observer, || candidates(&stores, &ids, database))?;
    let needs_older = |result: &CheckResult| result.has(ProblemCode::ContainerMissing);
    let witness = |result: &CheckResult| {
        candidates.get(&result.id).filter(|candidate| candidate.is_older || !needs_older(result)).map(|candidate| &candidate.id)
    };
    let wanted: BTreeSet<String> = results.iter().filter_map(witness).cloned().collect();
    let found = look_for(check, wanted.into_iter().collect(), database, observer)?;
    for result in results.iter_mut().filter(|result| result.needs_witness()) {
        let why = match witness(result).map(|id| (id, found.get(id))) {
            None => {
                let older = if needs_older(result) { "older " } else { "" };
                format!(
                    "no {older}available backup of its host is recorded in the same place, so nothing shows that it is the right storage"
                )
            }
            Some((id, Some(found))) if found.begun => {
                result.witness = Some(id.clone());
                continue;
            }
            Some((id, Some(found))) if found.verdict == CheckVerdict::Unverifiable => {
                let problem = found.problems.first().map_or("the storage gave no reason", |problem| &problem.text);
                format!("the available backup {id} in the same place could not be checked: {problem}")
            }
            Some((id, _)) => {
                format!("nothing of the available backup {id} was found either: it may be another storage, or one that is not mounted")
            }
        };
        result.warnings.push(Problem::general(ProblemCode::NoWitness, why));
    }
    Ok(())
}

/// The candidates for these backups among the available backups that are recorded in the same place. One pass over `backups`.
fn candidates(stores: &Stores, ids: &[String], database: &mut Database) -> Result<HashMap<String, Candidate>> {
    // All directories of a driver are below the same mount.
    let place = |backup: &Backup| {
        let host = backup.host.clone()?;
        let driver = Driver::of_service(backup.service.as_deref()?)?;
        let location = if driver.is_directory() { Some(String::new()) } else { stores.location(driver, backup).ok() };
        Some((host, driver, location?))
    };
    let dated = |backup: Backup| (backup.created_at.as_deref().and_then(parse), backup.id);
    let mut places: BTreeMap<(String, Driver, String), Sought> = BTreeMap::new();
    database.read(|reader| {
        for backup in reader.backups(ids)? {
            if let Some(place) = place(&backup) {
                places.entry(place).or_default().missing.push((dated(backup), None));
            }
        }
        places.values_mut().for_each(|sought| sought.missing.sort());
        reader.available_backups(&mut |backup| {
            if let Some(sought) = place(&backup).and_then(|place| places.get_mut(&place)) {
                sought.add(dated(backup));
            }
        })
    })?;
    Ok(places.into_values().flat_map(Sought::candidates).collect())
}

/// Checks whether these backups are on the storage. No data is read.
fn look_for(check: Check, ids: Vec<String>, database: &mut Database, observer: &dyn Observer) -> Result<HashMap<String, CheckResult>> {
    let mut found = HashMap::new();
    let mut targets = targets_by_id(database, &ids)?;
    // Their chains do not matter.
    targets.iter_mut().for_each(|target| target.ancestors.clear());
    let mut sink = |Answer { result, .. }: Answer| drop(found.insert(result.id.clone(), result));
    let check = Check { request: Request { level: Level::Quick, ..check.request }, ..check };
    check.run(targets.into(), &mut sink, observer)?.completed()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dated(day: i8, id: &str) -> Dated {
        (Some(jiff::civil::date(2026, 11, day).at(0, 0, 0, 0)), id.to_owned())
    }

    #[test]
    fn a_witness_is_the_next_older_backup() {
        let missing = [dated(3, "a"), dated(5, "b"), dated(6, "c"), dated(9, "d")].map(|missing| (missing, None)).into();
        let mut sought = Sought { missing, oldest: None };
        for available in [dated(8, "w8"), dated(4, "w4"), dated(7, "w7"), dated(5, "w5"), dated(20, "w20")] {
            sought.add(available);
        }
        let found: Vec<_> = sought.candidates().collect();
        let of = |id: &str, witness: &str, is_older| (id.to_owned(), Candidate { id: witness.to_owned(), is_older });
        assert_eq!(found, [of("a", "w4", false), of("b", "w5", true), of("c", "w5", true), of("d", "w8", true)]);
    }

    #[test]
    fn without_an_available_backup_there_is_no_candidate() {
        let sought = Sought { missing: vec![(dated(3, "a"), None)], oldest: None };
        assert_eq!(sought.candidates().count(), 0);
    }
}
