//! The backups to check.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::check::root;
use super::scan_file::{ScanFile, target_of_finding};
use super::{Database, Error, Hosts, Observer, Wanted, find, reading};
use crate::db::DbError;
use crate::domain::time::rfc3339;
use crate::domain::{Backup, ColumnSet, DatabaseInfo, Finding, Matched, NULL, Selection, Situation, Value};
use crate::scan::{KeptRows, Reader, lineage, names, situation};
use crate::verify::Target;

/// The backups to check, and where their rows are from.
pub struct TargetList {
    pub targets: Vec<Target>,
    pub database: DatabaseInfo,
    /// When the rows were read, by the database's clock.
    pub taken_at: String,
}

impl TargetList {
    /// The backups in a file that `scan` wrote; `-` is standard input.
    pub fn from_scan(path: &Path, selection: &Selection, observer: &dyn Observer) -> super::Result<Self> {
        let file = ScanFile::open(path, selection, observer)?;
        let targets = file.targets()?.collect::<super::Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok(Self { targets, database: file.database, taken_at: file.taken_at })
    }

    /// The backups that a scan finds and whose data matters.
    pub fn of_findings(database: &mut Database, wanted: &Wanted, observer: &dyn Observer) -> super::Result<Self> {
        let scan = find(database, wanted, KeptRows::Chains, observer)?;
        let targets = targets_of_findings(&scan.document.findings, database.schema.columns);
        Ok(Self { targets, database: database.info(), taken_at: scan.document.taken_at })
    }

    /// The live backups of a selection, whatever their status.
    pub fn of_selection(
        database: &mut Database,
        selection: &Selection,
        may_be_empty: bool,
        observer: &dyn Observer,
    ) -> super::Result<Self> {
        let (named, mut of_backups, mut matched) = (&selection.backups, HashSet::new(), Matched::default());
        let situation = read_situation(database, selection, &mut matched)?;
        let mut wanted = |backup: &Backup| {
            // Only the columns that a scan counts are read.
            if let Some(host) = backup.host.as_ref().filter(|host| !of_backups.contains(*host)) {
                of_backups.insert(host.clone());
            }
            matched.note(selection, backup.status.as_deref(), backup.project_id.as_deref(), backup.volume_id.as_deref());
            // A named backup is read even if other options leave it out, so that a message can say so.
            if named.is_empty() { takes(selection, backup) } else { selection.names(backup) }
        };
        let read = |reader: &mut Reader<'_>| {
            let mut ids = Vec::new();
            reader.live_backups(&mut |backup| {
                if wanted(&backup) {
                    ids.push(backup.id);
                }
            })?;
            targets(reader, &ids)
        };
        let mut targets = reading(observer, || database.read(read))?;
        Hosts::of_database(&of_backups, &situation.services).require(observer, selection, &matched, may_be_empty)?;
        if !named.is_empty() {
            let (fitting, others): (Vec<Target>, Vec<Target>) = targets.into_iter().partition(|target| takes(selection, &target.backup));
            if let Some(problem) = left_out(named, &fitting, &others) {
                return Err(Error::Unusable(problem));
            }
            let ids = names::resolve(named, fitting.iter().map(|target| &target.backup)).map_err(Error::Unusable)?;
            targets = fitting;
            targets.retain(|target| ids.contains(&target.backup.id));
        }
        targets.truncate(selection.limit.unwrap_or(usize::MAX));
        Ok(Self { targets, database: database.info(), taken_at: rfc3339(situation.now) })
    }

    /// Keeps one of several parts. Chains stay together, so that one host reads what several increments are based on.
    pub fn keep_part(&mut self, part: u64, of: u64) {
        self.targets.retain(|target| spread(target) % of == part - 1);
    }
}

/// The backups that findings are about, if the findings have their rows.
pub fn targets_of_findings(findings: &[Finding], columns: ColumnSet) -> Vec<Target> {
    findings.iter().filter_map(|finding| target_of_finding(finding, columns)).collect()
}

/// The backups with these ids, if they are live, with their ancestors.
pub fn targets_by_id(database: &mut Database, ids: &[String]) -> Result<Vec<Target>, DbError> {
    database.read(|reader| targets(reader, ids))
}

fn targets(reader: &mut Reader<'_>, ids: &[String]) -> Result<Vec<Target>, DbError> {
    let columns = reader.schema.columns;
    let mut backups = reader.backups(ids)?;
    backups.sort_by(|a, b| a.id.cmp(&b.id));
    let ancestors = lineage::ancestors(reader, &backups)?;
    Ok(backups.into_iter().zip(ancestors).map(|(backup, ancestors)| Target { backup, ancestors, columns }).collect())
}

/// A number that is the same for all members of a chain.
fn spread(target: &Target) -> u64 {
    // FNV-1a: the same on every host and in every release.
    root(target).id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A sentence about the first backup that is named but left out by other options: "there is no such backup" would be wrong. A name that
/// is an id means the backup with this id, whatever the backups that fit are called.
fn left_out(names: &BTreeSet<String>, fitting: &[Target], others: &[Target]) -> Option<String> {
    let fits = fitting.iter().map(|target| &target.backup).flat_map(|backup| [Some(&backup.id), backup.display_name.as_ref()]);
    let fits: HashSet<&String> = fits.flatten().collect();
    let other = others.iter().map(|other| &other.backup).find(|backup| {
        let by_name = backup.display_name.as_ref().filter(|name| names.contains(*name));
        names.contains(&backup.id) || by_name.is_some_and(|name| !fits.contains(name))
    })?;
    let [status, host] = [&other.status, &other.host].map(|value| Value::from(value.clone()));
    let name = other.display_name.as_deref().unwrap_or("");
    Some(format!("other options exclude backup {} {name:?}: its status is {status}, its host {host}", other.id))
}

/// Whether a check of a selection takes this backup, apart from its id and name.
pub(super) fn takes(selection: &Selection, backup: &Backup) -> bool {
    let by_status = selection.statuses.is_empty() || selection.statuses.contains(backup.status.as_deref().unwrap_or(NULL));
    let by_host = selection.hosts.is_empty() || backup.host.as_ref().is_some_and(|host| selection.hosts.contains(host));
    by_status && by_host && selection.takes_owner(backup.project_id.as_deref(), backup.volume_id.as_deref())
}

/// The clock, the services, and which of the volumes asked for exist without a backup.
pub(super) fn read_situation(database: &mut Database, selection: &Selection, matched: &mut Matched) -> Result<Situation, DbError> {
    database.read(|reader| {
        for volume in reader.volumes(&matched.missing_volumes(selection))? {
            matched.note(selection, volume.status.as_deref(), volume.project_id.as_deref(), Some(&volume.id));
        }
        situation(reader)
    })
}
