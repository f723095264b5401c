//! `rescue`: finds the backups on the storage that the database has lost, and makes the records with which Cinder imports them again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;

use jiff::Timestamp;

use super::check::{Check, Tasks, in_order};
use super::orphans::{OrphanCheck, OrphanReport, POLL, start};
use super::script::Script;
use super::targets::targets_by_id;
use super::{Database, Error, Observer, Result, StorageSettings, Stores};
use crate::config::StorageOptions;
use crate::domain::id::{key, same};
use crate::domain::status::{AVAILABLE, DELETED};
use crate::domain::text::{count, shell_word};
use crate::domain::time::stamp;
use crate::domain::{Backup, CheckResult, CheckVerdict, ColumnSet, Driver, Level};
use crate::format::metadata::{self, Description};
use crate::format::names::{self, Prefix};
use crate::format::{FormatError, sha256file};
use crate::parallel;
use crate::scan::lineage;
use crate::storage::{ObjectStore, RetryPolicy};
use crate::verify::orphans::{Orphan, OrphanHead, OrphanKind};
use crate::verify::rescue::{LostBackup, NEVER_KNOWN, Parent, arrange};
use crate::verify::{Request, StorageAccess, Target};

/// How many side files are read at once.
const AT_ONCE: usize = 8;
/// How many problems of a backup are named.
const MOST_NAMED: usize = 20;

/// Finds lost backups.
pub struct Rescue<'a> {
    pub storage: StorageSettings,
    pub request: Request,
    /// Ids of the only backups to rescue, with what they are based on. Of these, the rows may be deleted.
    pub named: &'a BTreeSet<String>,
}

/// What was found.
pub struct RescueReport {
    pub head: OrphanHead,
    pub level: Level,
    /// In the order of the import.
    pub backups: Vec<LostBackup>,
    /// The backups on the storage that were never finished.
    pub half: u64,
    /// The storages that could not be read, and why.
    pub unread: Vec<String>,
    /// The signal that stopped the command.
    pub interrupted: Option<String>,
    /// Commands for after the import.
    pub follow_up: Vec<String>,
}

impl Rescue<'_> {
    /// Walks all storages, checks what has no live row, and makes the records. About 6 KB of memory for each lost backup. Beyond those of
    /// the walk, two passes over `backups`.
    pub fn run(self, database: &mut Database, observer: &dyn Observer) -> Result<RescueReport> {
        if database.schema.columns < ColumnSet::Liberty {
            let text = "a Cinder before Liberty imports a backup under another id, so increments do not find their parents";
            return Err(Error::Unfit(text.to_owned(), "restore the database from a dump, or update Cinder first".to_owned()));
        }
        let Self { storage, request, named } = self;
        let walk = OrphanCheck {
            storage: storage.clone(),
            settle: request.settle,
            shard: None,
            resume: None,
            deadline: None,
            stream: None,
            is_unread: &|| false,
            keeps: true,
            commands: None,
        };
        let OrphanReport { head, orphans, end } = walk.run(database, observer)?;
        let half = end.summary.iter().filter(|count| count.kind == OrphanKind::Half).map(|count| count.backups).sum();
        let mut report = RescueReport {
            head,
            level: request.level,
            backups: Vec::new(),
            half,
            unread: end.unread,
            interrupted: end.interrupted,
            follow_up: Vec::new(),
        };
        let (mut wanted, mut deleted, mut in_ceph) = (Vec::new(), HashSet::new(), HashSet::new());
        for orphan in orphans.iter() {
            let orphan = orphan?;
            let Some(id) = orphan.backup_id.clone() else { continue };
            match orphan.kind.known() {
                Some(OrphanKind::RowDeleted) if !named.contains(&id) => {
                    deleted.insert(id);
                }
                Some(OrphanKind::NoRow | OrphanKind::RowDeleted) if orphan.driver == Driver::Ceph => {
                    in_ceph.insert(id);
                }
                Some(OrphanKind::NoRow | OrphanKind::RowDeleted) => wanted.push(orphan),
                _ => {}
            }
        }
        if !in_ceph.is_empty() {
            let lost = count(in_ceph.len(), "backup");
            report
                .unread
                .push(format!("no records are made for {lost} in Ceph without a live row: docs/rescue.md says what can be done by hand"));
        }
        if report.interrupted.is_some() {
            return Ok(report);
        }
        let mut lost = read_all(&storage, wanted, observer, &mut report.interrupted)?;
        if let Some(id) = named.iter().find(|id| !lost.contains_key(*id)).filter(|_| report.interrupted.is_none()) {
            let why = "it is not finished on the storage, its row is live, its objects are younger than --settle, or it is in Ceph";
            return Err(Error::Unusable(format!("backup {id} cannot be rescued: {why}")));
        }
        let known = read_chains(database, &mut lost, &deleted)?;
        let depths = keep_named(&mut lost, named, &known);
        let columns = database.schema.columns;
        let target = |backup: &LostBackup| {
            let backup = Arc::unwrap_or_clone(Arc::clone(known.get(&backup.id)?));
            let ancestors = lineage::chain(&backup, |id| known.get(key(id).as_ref())).into_iter().cloned().collect();
            Some(Target { backup, ancestors, columns })
        };
        let targets: Vec<Target> = lost.values().filter_map(target).collect();
        drop(known);
        if report.interrupted.is_none() && !targets.is_empty() {
            let check = Check { storage: storage.clone(), request, deadline: None };
            let tasks = Tasks::from(in_order(targets));
            let checked = check.run(tasks, &mut |answer| note_result(&mut lost, answer.result), observer)?;
            report.interrupted = checked.interrupted.map(str::to_owned);
            if let Some(failure) = checked.failure {
                return Err(failure);
            }
        }
        report.backups = lost.into_values().collect();
        for backup in report.backups.iter_mut().filter(|backup| backup.verdict.is_none()) {
            backup.obstacles.push("it was not checked".to_owned());
        }
        arrange(&mut report.backups, &depths, &|driver| service(&storage.options, driver));
        let parents = report.backups.iter().filter(|backup| backup.is_importable() && backup.parent == Some(Parent::Live));
        let parents: BTreeSet<String> = parents.filter_map(|backup| backup.parent_id.as_ref().map(shell_word)).collect();
        if !parents.is_empty() {
            let parents: Vec<String> = parents.into_iter().collect();
            report.follow_up.push(format!("cinder-backup-repair repair --fix-counters {}", parents.join(" ")));
        }
        Ok(report)
    }
}

impl RescueReport {
    /// Writes the commands of the imports, parents first, as a script for review.
    pub fn write_commands(&self, out: &mut dyn Write) -> Result<()> {
        let mut script = Script(out);
        let commands = self.backups.iter().filter(|backup| backup.is_importable()).count();
        let runs = self.backups.iter().filter(|backup| backup.is_importable() && is_certain(backup)).count();
        let by = format!("written by {} at {}", self.head.program, stamp(Timestamp::now()));
        script.begin(
            &[
                &format!("Imports of backups without a live row, {by}."),
                &format!("Database: {}", self.head.database),
                "Nothing was imported yet. Read each command and the comment before it, then run: sh THIS-FILE",
                "An import makes the user and the project of the caller the owner of the backup. The project in a command is that of the",
                "volume. Run the script as a user who may import (by default an administrator) and has a role in each of these projects.",
                &format!("{runs} of {} can run. The others are comments: their project is not known, or a", count(commands, "command")),
                "restore may need a key whose id is not known.",
                "Make sure that no other cloud uses this storage: the deletion of an imported backup removes its objects.",
                "The service imports in the background: afterwards, each backup is `available`, or in `error` with a reason.",
            ],
            "rescue",
        )?;
        let mut project = None;
        for (number, backup) in (1..).zip(&self.backups) {
            if project != Some(&backup.project_id) {
                project = Some(&backup.project_id);
                script.line("")?;
                script.comment(&format!("Project of the volumes: {}", backup.project_id.as_deref().unwrap_or("not known")))?;
            }
            script.line("")?;
            script.comment(&format!("{number}. {}", description(backup)))?;
            let (Some(service), Some(url)) = (&backup.backup_service, &backup.backup_url) else {
                script.comment(&format!("no command: {}", backup.obstacles.join("; ")))?;
                continue;
            };
            if backup.encrypted == Some(true) {
                script.comment(KEY_IS_UNKNOWN)?;
            }
            let sign = if is_certain(backup) { "" } else { "# " };
            let owner = owner(backup).map_or_else(String::new, |project| format!(" --os-project-id {project}"));
            script.line(format_args!("{sign}cinder{owner} backup-import {} {url} || failed=1", shell_word(service)))?;
        }
        for command in &self.follow_up {
            script.line("")?;
            script.comment(&format!("After the imports, the counters of live parents: {command}"))?;
        }
        script.end()
    }
}

/// The driver as the services of this Cinder name it.
fn service(options: &StorageOptions, driver: Driver) -> String {
    let configured = options.text("backup_driver").ok().flatten().map(|setting| setting.value);
    configured.filter(|service| Driver::of_service(service) == Some(driver)).unwrap_or_else(|| driver.class_path().to_owned())
}

/// Reads the side files of all lost backups. A backup that is found twice is kept once, with an obstacle.
fn read_all(
    storage: &StorageSettings,
    wanted: Vec<Orphan>,
    observer: &dyn Observer,
    interrupted: &mut Option<String>,
) -> Result<BTreeMap<String, LostBackup>> {
    let cancelled = Arc::<AtomicBool>::default();
    let stores = Stores::new(storage.clone(), RetryPolicy::default(), Arc::clone(&cancelled));
    let parts = start(move |send| {
        let read = |orphan: Orphan, out: &mut dyn FnMut(LostBackup)| out(read_one(&stores, orphan));
        // Nobody receives them after a signal.
        parallel::beside(AT_ONCE, wanted.into_iter(), read, |backup| drop(send(backup)));
        Ok(())
    })?;
    let mut lost: BTreeMap<String, LostBackup> = BTreeMap::new();
    loop {
        match parts.recv_timeout(POLL) {
            Ok(Ok(backup)) => match lost.get_mut(&backup.id) {
                Some(other) => other.obstacles.push(format!(
                    "it is on the storage twice: {} also has {}, and only one of them can be right",
                    backup.location, backup.service_metadata
                )),
                None => drop(lost.insert(backup.id.clone(), backup)),
            },
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return Ok(lost),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(stop) = observer.stop() {
            cancelled.store(true, Ordering::Relaxed);
            *interrupted = Some(stop.signal.to_owned());
            return Ok(lost);
        }
    }
}

/// Reads the side files of a backup. If that fails, the check finds out why.
fn read_one(stores: &Stores, orphan: Orphan) -> LostBackup {
    let prefix = orphan.name.unwrap_or_default();
    let place = Backup { container: orphan.container.clone(), project_id: orphan.project_id.clone(), ..Backup::default() };
    let mut obstacles = Vec::new();
    if orphan.kind == OrphanKind::RowDeleted && orphan.status.as_deref() != Some(DELETED) {
        let status = orphan.status.as_deref().unwrap_or("NULL");
        obstacles.push(format!("its row is deleted, but has the status {status}: Cinder imports only over the status {DELETED}"));
    }
    let store = stores.store(orphan.driver, &place).ok();
    let read = |store: &dyn ObjectStore| metadata::describe(store.open(&names::metadata(&prefix), None).ok()?).ok();
    let described = store.as_deref().and_then(read);
    if described.is_none() {
        obstacles.push("its metadata cannot be read".to_owned());
    }
    let Description { name, description, parent_id, created_at, volume } = described.unwrap_or_default();
    let is_stated = volume.as_ref().is_some_and(|volume| volume.size.is_some_and(|size| size > 0));
    let by_digests = if is_stated { None } else { store.and_then(|store| size_by_digests(store.as_ref(), &prefix)) };
    let mut lost = LostBackup {
        id: orphan.backup_id.unwrap_or_default(),
        name,
        description,
        driver: orphan.driver,
        location: orphan.location,
        container: orphan.container,
        service_metadata: prefix,
        volume_id: orphan.volume_id,
        project_id: orphan.project_id,
        volume_type_id: None,
        encrypted: None,
        parent_id: parent_id.filter(|parent| !parent.is_empty()),
        parent: None,
        live_increments: 0,
        size: None,
        created_at: None,
        verdict: None,
        level_reached: None,
        object_count: None,
        obstacles,
        unknown: NEVER_KNOWN.to_vec(),
        derived: Vec::new(),
        backup_service: None,
        backup_url: None,
    };
    lost.set_volume(volume, by_digests);
    lost.set_time(created_at.as_deref());
    lost.refuse_unfit_texts();
    if lost.size.is_none() {
        lost.obstacles.push("neither its metadata nor its sha256file shows the size of the volume".to_owned());
    }
    lost
}

/// The size of the volume in GiB by the number of its digests.
fn size_by_digests(store: &dyn ObjectStore, prefix: &str) -> Option<i64> {
    let name = names::sha256file(prefix);
    let size = store.stat(&name).ok()??.size;
    let mut open = |range: Range<u64>| store.open(&name, Some(range)).map_err(|error| FormatError::Io(error.into_io()));
    let outline = sha256file::outline(size, &mut open).ok()?;
    i64::try_from(outline.hashes.checked_mul(outline.head.block_size)?.div_ceil(1 << 30)).ok().filter(|size| *size > 0)
}

/// Reads what the database knows of the lost backups: live increments on them, live parents, and imports under another id. Returns the rows
/// of all members of their chains, those of lost ones as an import would write them.
fn read_chains(
    database: &mut Database,
    lost: &mut BTreeMap<String, LostBackup>,
    deleted: &HashSet<String>,
) -> Result<HashMap<String, Arc<Backup>>> {
    // Reading the storage may have taken hours.
    database.reconnect()?;
    database.read(|reader| {
        reader.stored_backups(&mut |row| {
            let prefix = row.service_metadata.as_deref().filter(|_| !row.deleted).and_then(Prefix::parse);
            if let Some(prefix) = prefix.filter(|prefix| !same(&prefix.backup_id, &row.id))
                && let Some(backup) = lost.get_mut(key(&prefix.backup_id).as_ref())
            {
                // Old releases imported a backup under a new id.
                backup.obstacles.push(format!("the live backup {} has its objects: it was imported under another id", row.id));
            }
        })?;
        reader.references(&mut |row| {
            if let Some(backup) = row.parent_id.and_then(|parent| lost.get_mut(key(&parent).as_ref())) {
                backup.live_increments += 1;
            }
        })
    })?;
    let parents: BTreeSet<String> = lost.values().filter_map(|backup| backup.parent_id.clone()).collect();
    let others: Vec<String> = parents.into_iter().filter(|parent| !lost.contains_key(parent)).collect();
    let mut known: HashMap<String, Arc<Backup>> = HashMap::new();
    for Target { backup, ancestors, .. } in targets_by_id(database, &others)? {
        let members = std::iter::once(Arc::new(backup)).chain(ancestors);
        known.extend(members.map(|backup| (key(&backup.id).into_owned(), backup)));
    }
    let ids: HashSet<String> = lost.keys().cloned().collect();
    for backup in lost.values_mut() {
        if let Some(parent) = &backup.parent_id {
            backup.parent = Some(match () {
                () if ids.contains(parent) => Parent::Lost,
                () if known.contains_key(key(parent).as_ref()) => Parent::Live,
                () => Parent::Missing,
            });
            if deleted.contains(parent) {
                backup
                    .obstacles
                    .push(format!("the row of its parent {parent} is deleted, but not its objects: name {parent}, too, to import both"));
            }
        }
        known.insert(backup.id.clone(), Arc::new(row_of(backup)));
    }
    Ok(known)
}

/// The row of a lost backup after an import, as far as a check needs it.
fn row_of(backup: &LostBackup) -> Backup {
    Backup {
        id: backup.id.clone(),
        status: Some(AVAILABLE.to_owned()),
        service: Some(backup.driver.class_path().to_owned()),
        volume_id: backup.volume_id.clone(),
        display_name: backup.name.clone(),
        project_id: backup.project_id.clone(),
        size: backup.size,
        container: backup.container.clone(),
        service_metadata: Some(backup.service_metadata.clone()),
        created_at: backup.created_at.clone(),
        parent_id: backup.parent_id.clone(),
        ..Backup::default()
    }
}

/// Removes what was not named and is no ancestor of a named backup. Returns how many ancestors each backup has.
fn keep_named(
    lost: &mut BTreeMap<String, LostBackup>,
    named: &BTreeSet<String>,
    known: &HashMap<String, Arc<Backup>>,
) -> HashMap<String, usize> {
    let chain = |id: &String| -> Vec<&Arc<Backup>> {
        known.get(id).map(|backup| lineage::chain(backup.as_ref(), |id| known.get(key(id).as_ref()))).unwrap_or_default()
    };
    if !named.is_empty() {
        let kept: HashSet<String> = named.iter().flat_map(|id| chain(id).into_iter().map(|backup| backup.id.clone())).collect();
        lost.retain(|id, _| named.contains(id) || kept.contains(id));
    }
    lost.keys().map(|id| (id.clone(), chain(id).len())).collect()
}

/// Adds what the check found.
fn note_result(lost: &mut BTreeMap<String, LostBackup>, result: CheckResult) {
    let Some(backup) = lost.get_mut(&result.id) else { return };
    backup.verdict = Some(result.verdict);
    backup.level_reached = result.reached();
    backup.object_count = result.object_count;
    if result.verdict != CheckVerdict::Intact {
        backup.obstacles.extend(result.problems.iter().take(MOST_NAMED).map(ToString::to_string));
        if backup.obstacles.is_empty() {
            backup.obstacles.push(format!("it is {}", result.verdict));
        }
    } else if !result.is_whole() {
        backup.obstacles.push("it is being written".to_owned());
    }
}

/// Whether a text from the storage is a word that no shell and no client can misread.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The project to import into, if it is a word.
fn owner(backup: &LostBackup) -> Option<&str> {
    backup.project_id.as_deref().filter(|project| is_word(project))
}

/// Whether nothing that an import needs is left to a person.
fn is_certain(backup: &LostBackup) -> bool {
    owner(backup).is_some() && backup.encrypted == Some(false)
}

/// What a person must do about the key of an encrypted volume.
///
/// Source: `cinder/backup/manager.py` (`_run_restore`, `delete_backup`).
pub const KEY_IS_UNKNOWN: &str = "The volume was encrypted. The backup has its own copy of the key, and only the lost row had the id of the copy. Without this \
    id, a restore uses the key of the volume, and the deletion of the backup then deletes that key. Set backups.encryption_key_id after the \
    import, before anything else.";

/// Says in one line what a backup is.
fn description(backup: &LostBackup) -> String {
    let based = backup.parent_id.as_ref().map_or_else(|| "full".to_owned(), |parent| format!("increment of {parent}"));
    let level = backup.level_reached.map_or_else(|| "not intact".to_owned(), |level| format!("intact at level {level}"));
    let unsure: Vec<&str> = backup.remarkable().collect();
    let unsure = if unsure.is_empty() { String::new() } else { format!(", not in the side files: {}", unsure.join(", ")) };
    format!(
        "backup {} {:?} of volume {}: {based}, {} GiB, from {}, {level}{unsure}",
        backup.id,
        backup.name.as_deref().unwrap_or_default(),
        backup.volume_id.as_deref().unwrap_or_default(),
        backup.size.unwrap_or_default(),
        backup.created_at.as_deref().unwrap_or("an unknown time"),
    )
}
