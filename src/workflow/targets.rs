//! The backups to check.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::Path;

use super::catalog_source::CatalogSource;
use super::check::{Portion, Tasks, root};
use super::scan_file::{FileTasks, ScanFile, Share, target_of_finding};
use super::{Database, Error, Hosts, Observer, Wanted, find, reading};
use crate::db::DbError;
use crate::domain::shards::Shard;
use crate::domain::time::rfc3339;
use crate::domain::{Backup, ColumnSet, DatabaseInfo, Finding, Matched, NULL, RestoreSite, Selection, Situation, Value};
use crate::scan::catalog::Catalog;
use crate::scan::{KeptRows, Reader, lineage, names, situation};
use crate::spool::Spool;
use crate::verify::Target;
use crate::verify::partial::CatalogPart;

/// The backups to check, and where their rows are from.
pub struct TargetList {
    source: Source,
    pub database: DatabaseInfo,
    /// When the rows were read, by the database's clock.
    pub taken_at: String,
    /// What a restore depends on; `None` if the backups are from a file.
    pub site: Option<RestoreSite>,
}

/// Where the backups come from.
enum Source {
    List(Vec<Target>),
    /// What `scan` wrote.
    File(Box<FileTasks>),
    Catalog(CatalogSource),
}

impl TargetList {
    /// The backups in a file that `scan` wrote, and of a catalog those of a share; `-` is standard input.
    pub fn from_scan(path: &Path, selection: &Selection, share: Option<Share>, observer: &dyn Observer) -> super::Result<Self> {
        let file = ScanFile::open(path, selection, share, observer)?;
        let (database, taken_at) = (file.database.clone(), file.taken_at.clone());
        Ok(Self { source: Source::File(Box::new(file.tasks()?)), database, taken_at, site: None })
    }

    /// Which shard of a catalog it is.
    pub fn part(&self) -> Option<CatalogPart> {
        if let Source::File(tasks) = &self.source { tasks.file.part.clone() } else { None }
    }

    /// The backups that a scan finds and whose data matters.
    pub fn of_findings(database: &mut Database, wanted: &Wanted, observer: &dyn Observer) -> super::Result<Self> {
        let scan = find(database, wanted, KeptRows::Chains, observer)?;
        let targets = targets_of_findings(&scan.document.findings, database.schema.columns)?;
        let site = Some(database.restore_site(scan.situation, wanted.policy.thresholds));
        Ok(Self { source: Source::List(targets), database: database.info(), taken_at: scan.document.taken_at, site })
    }

    /// The live backups of a selection, whatever their status. Unless they are named, their rows are read while they are checked.
    pub fn of_selection(mut database: Database, wanted: &Wanted, observer: &dyn Observer) -> super::Result<Self> {
        let Wanted { selection, policy, may_be_empty } = wanted;
        let (mut of_backups, mut matched) = (HashSet::new(), Matched::default());
        let situation = read_situation(&mut database, selection, &mut matched)?;
        let mut note = |backup: &Backup| {
            // Only the columns that a scan counts are read.
            if let Some(host) = backup.host.as_ref().filter(|host| !of_backups.contains(*host)) {
                of_backups.insert(host.clone());
            }
            matched.note(selection, backup.status.as_deref(), backup.project_id.as_deref(), backup.volume_id.as_deref());
        };
        let named = !selection.backups.is_empty();
        let source = if named {
            Source::List(reading(observer, || database.read(|reader| read_named(reader, selection, &mut note)))?)
        } else {
            let mut wants = |backup: &Backup| {
                note(backup);
                takes(selection, backup)
            };
            let catalog = reading(observer, || database.read(|reader| Catalog::read(reader, &mut wants)))?;
            Source::Catalog(CatalogSource {
                catalog,
                limit: selection.limit,
                database: Box::new(database.opener()),
                schema: database.schema.clone(),
            })
        };
        Hosts::of_database(&of_backups, &situation.services).require(observer, selection, &matched, *may_be_empty)?;
        let source = match source {
            Source::List(targets) => Source::List(resolved(targets, selection)?),
            other => other,
        };
        let taken_at = rfc3339(situation.now);
        let site = Some(database.restore_site(situation, policy.thresholds));
        Ok(Self { source, database: database.info(), taken_at, site })
    }

    /// Keeps one of several parts. Chains stay together, so that one host reads what several increments are based on.
    /// A shard of a catalog stays as it is.
    pub fn keep_part(self, shard: Shard) -> super::Result<Self> {
        let (part, of) = (u64::from(shard.number()), u64::from(shard.of()));
        let is_kept = |target: &Target| spread(&root(target).id) % of == part - 1;
        let source = match self.source {
            Source::List(targets) => Source::List(targets.into_iter().filter(is_kept).collect()),
            Source::File(tasks) if tasks.file.part.is_some() => Source::File(tasks),
            Source::File(tasks) => {
                let mut kept = Vec::new();
                for portion in *tasks {
                    kept.extend(portion?.into_iter().map(|task| task.target).filter(is_kept));
                }
                Source::List(kept)
            }
            Source::Catalog(mut source) => {
                source.catalog.retain(&|root| spread(root) % of == part - 1);
                Source::Catalog(source)
            }
        };
        Ok(Self { source, ..self })
    }

    /// The tasks of a check.
    pub fn into_tasks(self) -> Tasks {
        match self.source {
            Source::List(targets) => targets.into(),
            Source::Catalog(catalog) => catalog.into_tasks(),
            Source::File(tasks) => {
                let total = tasks.file.total;
                Tasks { total, portions: Box::new(tasks.map(|tasks| Ok(Portion { tasks: tasks?, gone: 0 }))) }
            }
        }
    }
}

/// The backups that a selection names. A named backup is read even if other options leave it out, so that a message can say so.
fn read_named(reader: &mut Reader<'_>, selection: &Selection, note: &mut dyn FnMut(&Backup)) -> Result<Vec<Target>, DbError> {
    let mut ids = Vec::new();
    reader.live_backups(&mut |backup| {
        note(&backup);
        if selection.names(&backup) {
            ids.push(backup.id);
        }
    })?;
    targets(reader, &ids)
}

/// The targets among these that a selection names and does not leave out.
fn resolved(targets: Vec<Target>, selection: &Selection) -> super::Result<Vec<Target>> {
    let named = &selection.backups;
    let (mut fitting, others): (Vec<Target>, Vec<Target>) = targets.into_iter().partition(|target| takes(selection, &target.backup));
    if let Some(problem) = left_out(named, &fitting, &others) {
        return Err(Error::Unusable(problem));
    }
    let ids = names::resolve(named, fitting.iter().map(|target| (target.backup.id.as_str(), target.backup.display_name.as_deref())))
        .map_err(Error::Unusable)?;
    fitting.retain(|target| ids.contains(&target.backup.id));
    fitting.truncate(selection.limit.unwrap_or(usize::MAX));
    Ok(fitting)
}

/// The backups that findings are about, if the findings have their rows.
pub fn targets_of_findings(findings: &Spool<Finding>, columns: ColumnSet) -> io::Result<Vec<Target>> {
    findings.iter().filter_map(|finding| finding.map(|finding| target_of_finding(&finding, columns)).transpose()).collect()
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

/// A number for the first backup of a chain, and so for all its members.
fn spread(root: &str) -> u64 {
    // FNV-1a: the same on every host and in every release.
    root.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
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
