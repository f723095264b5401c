//! The commands that remove orphans: a shell script for a person to review. This program never runs it.
//!
//! Each orphan is read again, on the storage and in the database, just before its commands are written. The script refuses to run when it is
//! older than a day.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::Offset;

use super::ceph::unreadable;
use super::{PORTION, Result, StorageResult, Walk, ceph};
use crate::domain::id::{key, same};
use crate::domain::status::DELETED;
use crate::domain::text::count;
use crate::domain::time::{parse, stamp};
use crate::domain::{CodeSet, Driver, StorageRow};
use crate::format::names::Prefix;
use crate::scan::CompactIds;
use crate::spool::Spool;
use crate::storage::{ObjectStore, StorageError};
use crate::verify::ceph::{backup_of_meta, backup_of_snapshot};
use crate::verify::orphans::{ObjectGroup, ObjectTotals, Orphan, OrphanHead, OrphanKind, judge};
use crate::verify::removal::{NAMES_OF_COMMAND, Removal};
use crate::workflow::script::Script;

/// The client of S3 ends without an error even if the server refuses to remove some of the objects. It only prints them.
const AWS: &str = "aws() {
    refused=$(command aws \"$@\") && [ -z \"$refused\" ] && return
    printf '%s\\n' \"$refused\" >&2
    return 1
}";

/// What an orphan has on the storage now.
struct Present {
    names: Spool<String>,
    totals: ObjectTotals,
    is_finished: bool,
    /// The backups whose snapshots a Ceph image has.
    backups: Vec<String>,
    removal: Removal,
}

fn begin(script: &mut Script<'_>, head: &OrphanHead) -> Result<()> {
    script.begin(
        &[
            &format!("Commands that remove what no live backup needs, written by {} at {}.", head.program, stamp(Timestamp::now())),
            &format!("Database: {}", head.database),
            "If this is a copy or an old state of the cloud's database, stop here: what is deleted in it may be live in the cloud.",
            "Nothing was removed yet. Read each command and the comment before it, then run: sh THIS-FILE",
            "Some commands are comments: those of finished backups without a row, of half backups on the same storage, and of rows that Cinder",
            "did not delete. Import such a backup with `cinder backup-import`, or make sure that nobody needs it, above all no other cloud that",
            "uses this storage, and remove the comment sign.",
            "The commands need the environment of their tools, with an account that may remove objects.",
        ],
        "check --orphans",
    )
}

/// Says in one line what was found.
fn description(kind: OrphanKind, orphan: &Orphan, totals: &ObjectTotals, row: Option<&StorageRow>) -> String {
    let row = match row {
        Some(row) => {
            let when = row.deleted_at.as_deref().unwrap_or("an unknown time");
            format!("the row of project {} is deleted since {when}", row.project_id.as_deref().unwrap_or("unknown"))
        }
        None => "the database has no row of it".to_owned(),
    };
    let time = |time: Option<Timestamp>| time.map_or_else(|| "an unknown time".to_owned(), stamp);
    format!(
        "{}: backup {} of volume {}: {row}; {} with {} bytes, from {} to {}",
        kind.as_str(),
        orphan.backup_id.as_deref().unwrap_or_default(),
        orphan.volume_id.as_deref().unwrap_or_default(),
        count(totals.objects, "object"),
        totals.bytes,
        time(totals.oldest_at),
        time(totals.newest_at),
    )
}

/// What live backups need, and which orphans only a person can judge.
struct Needs {
    /// The numbers of backups, and of volumes with all their backups, that a live backup may need although their own rows are not live.
    held: HashSet<u128>,
    /// The locations with finished backups without a row, and when the newest of them was written: another cloud may use them.
    shared: BTreeMap<(Driver, String), Option<Timestamp>>,
    /// Whether the script needs the client of S3.
    uses_aws: bool,
}

impl Needs {
    fn are_held(&self, orphan: &Orphan) -> bool {
        [&orphan.backup_id, &orphan.volume_id].into_iter().flatten().any(|id| self.held.contains(&number_of(id)))
    }

    /// What a command begins with: a comment sign if only a person can know that nobody needs the backup.
    fn sign(&self, kind: OrphanKind, orphan: &Orphan, row: Option<&StorageRow>) -> &'static str {
        let theirs = self.shared.get(&(orphan.driver, orphan.location.clone()));
        let is_certain = match kind {
            OrphanKind::Half => theirs.is_none(),
            // Somebody may have hidden the row by hand. In a copy of a database a row may be deleted whose original is live. Then the
            // original goes on and makes backups without a row in the copy. A backup whose row was purged is older than the deletion.
            OrphanKind::RowDeleted => row.is_some_and(|row| {
                let deleted_at = row.deleted_at.as_deref().and_then(parse).and_then(|at| Offset::UTC.to_timestamp(at).ok());
                row.status.as_deref() == Some(DELETED) && theirs.is_none_or(|newest| newest.is_some() && *newest < deleted_at)
            }),
            _ => false,
        };
        if is_certain { "" } else { "# " }
    }
}

fn number_of(id: &str) -> u128 {
    CompactIds::number(&key(id))
}

impl Walk<'_, '_> {
    /// Reads what live backups need. Two passes over `backups`, and 16 bytes for each live one.
    fn needs(&mut self, orphans: &Spool<Orphan>) -> Result<Needs> {
        let (mut live, mut held, mut shared, mut uses_aws) = (Vec::new(), HashSet::new(), BTreeMap::new(), false);
        for orphan in orphans.iter() {
            let orphan = orphan?;
            uses_aws |= orphan.driver == Driver::S3;
            if orphan.kind == OrphanKind::NoRow {
                let newest = shared.entry((orphan.driver, orphan.location)).or_default();
                *newest = orphan.totals.newest_at.max(*newest);
            }
        }
        self.each_row(&mut |row| {
            if row.deleted {
                return;
            }
            live.push(number_of(&row.id));
            // Old releases imported a backup under a new id.
            let prefix = row.service_metadata.as_deref().and_then(Prefix::parse);
            held.extend(prefix.filter(|prefix| !same(&prefix.backup_id, &row.id)).map(|prefix| number_of(&prefix.backup_id)));
        })?;
        live.sort_unstable();
        // An increment on a parent without a live row may need any older backup of the volume.
        self.database.read(|reader| {
            reader.references(&mut |backup| {
                let parent = backup.parent_id.filter(|parent| live.binary_search(&number_of(parent)).is_err());
                if let Some(parent) = parent {
                    held.extend(backup.volume_id.into_iter().chain([parent]).map(|id| number_of(&id)));
                }
            })
        })?;
        Ok(Needs { held, shared, uses_aws })
    }

    /// Writes the script.
    pub(super) fn write_commands(&mut self, mut script: Script<'_>, orphans: &Spool<Orphan>, head: &OrphanHead) -> Result<()> {
        begin(&mut script, head)?;
        let needs = self.needs(orphans)?;
        if needs.uses_aws {
            script.line(AWS)?;
        }
        let mut place = 0;
        while place < orphans.len() && !self.is_stopped() {
            let portion = orphans.read(place..place + PORTION)?;
            for (orphan, number) in portion.into_iter().zip(place + 1..) {
                let has_command = matches!(orphan.kind.known(), Some(OrphanKind::Half | OrphanKind::NoRow | OrphanKind::RowDeleted));
                if has_command && !self.is_stopped() {
                    script.line("")?;
                    let about = format!("{number}. {}", orphan.name.as_deref().unwrap_or_default());
                    if let Some(why) = self.write_one(&mut script, &needs, &about, &orphan)? {
                        script.comment(&format!("{about}: no command, because {why}"))?;
                    }
                }
            }
            place += PORTION;
        }
        script.end()
    }

    /// Writes the commands for an orphan, or returns why it gets none.
    fn write_one(&mut self, script: &mut Script<'_>, needs: &Needs, about: &str, orphan: &Orphan) -> Result<Option<String>> {
        if !self.familiar.contains(&(orphan.driver, orphan.location.clone())) {
            return Ok(Some(format!("no live backup of this database has an object in {}", orphan.location)));
        }
        // In Ceph, an increment needs only its own snapshot.
        if orphan.driver != Driver::Ceph && needs.are_held(orphan) {
            let why = "a live backup may need it: one that is based on a backup without a live row, or an import";
            return Ok(Some(why.to_owned()));
        }
        let present = if orphan.driver == Driver::Ceph { self.present_in_pool(orphan) } else { self.present_in_store(orphan) };
        let Present { names, totals, is_finished, backups, removal } = match present {
            Ok(present) => present,
            Err(error) => return Ok(Some(format!("it could not be read again: {}", error.text))),
        };
        // After the listing, as in the walk.
        let rows = self.rows(&[orphan.backup_id.as_slice(), &backups].concat())?;
        let row = orphan.backup_id.as_ref().and_then(|id| rows.get(id));
        let kind = judge(&totals, is_finished, row, self.quiet).filter(|_| rows.values().all(|row| row.deleted));
        let Some(kind) = kind else { return Ok(Some("it has changed since it was found".to_owned())) };
        script.comment(&format!("{about}: {}", description(kind, orphan, &totals, row)))?;
        if let Some(caution) = removal.caution() {
            script.comment(caution)?;
        }
        let sign = needs.sign(kind, orphan, row);
        let mut at = 0;
        while at < names.len() {
            let portion = names.read(at..at + NAMES_OF_COMMAND)?;
            at += NAMES_OF_COMMAND;
            let (portion, unsafe_names): (Vec<String>, Vec<String>) = portion.into_iter().partition(|name| removal.may_name(name));
            for name in unsafe_names {
                script.comment(&format!("no command for {name:?}: a shell or the tool could misread it"))?;
            }
            match removal.command(&portion) {
                Some(command) => script.line(format_args!("{sign}{command} || failed=1"))?,
                None if portion.is_empty() => {}
                None => script.comment(&format!("no command: the address {} does not end with its container", removal.address))?,
            }
        }
        Ok(None)
    }

    /// Reads an image, a snapshot or a metadata object of a Ceph pool again.
    fn present_in_pool(&self, orphan: &Orphan) -> StorageResult<Present> {
        let (cluster, driver, container) = (self.stores.cluster()?, orphan.driver, orphan.container.clone().unwrap_or_default());
        let pool = cluster.pool(&container);
        let (name, backup) = (orphan.name.as_deref().unwrap_or_default(), orphan.backup_id.as_deref().unwrap_or_default());
        let (mut totals, mut is_finished, mut backups) = (ObjectTotals::default(), true, Vec::new());
        if let Some((image, snapshot)) = name.split_once('@') {
            let found = StorageError::none_if_absent(pool.snapshots(image))?.unwrap_or_default();
            if let Some(found) = found.into_iter().find(|found| found.name == snapshot) {
                totals = ObjectTotals::one(found.created, 0);
                is_finished = ceph::is_finished(&pool, image, backup)?;
            }
        } else if backup_of_meta(name).is_some() {
            totals = pool.object(name)?.map(|stat| ObjectTotals::one(stat.modified, stat.size)).unwrap_or_default();
        } else if let Some(image) = ceph::image_totals(&pool, name, backup)? {
            (totals, is_finished) = image;
            backups = pool.snapshots(name)?.iter().filter_map(|snapshot| backup_of_snapshot(&snapshot.name).map(str::to_owned)).collect();
        }
        let mut names = Spool::default();
        names.push(&name.to_owned()).map_err(unreadable)?;
        let removal = Removal { driver, address: String::new(), container, connection: cluster.options().to_vec() };
        Ok(Present { names, totals, is_finished, backups, removal })
    }

    /// Lists the objects of an orphan again.
    fn present_in_store(&self, orphan: &Orphan) -> StorageResult<Present> {
        let (driver, is_directory) = (orphan.driver, orphan.driver.is_directory());
        let store = self.stores.whole(driver, orphan.container.as_deref(), orphan.project_id.as_deref())?;
        let name = orphan.name.clone().unwrap_or_default();
        let folder = orphan.container.clone().filter(|_| is_directory);
        let prefix = folder.as_ref().map_or_else(|| name.clone(), |folder| format!("{folder}/{name}"));
        let (mut names, mut totals, mut is_finished, mut full) = (Spool::default(), ObjectTotals::default(), false, Ok(()));
        store.list(&prefix, &mut |object| {
            let group = ObjectGroup::of(&object, is_directory).filter(|group| group.folder == folder && group.prefix == name);
            let Some(group) = group else { return ControlFlow::Continue(()) };
            totals.add(&group.totals);
            is_finished |= group.is_finished;
            full = names.push(&object.name);
            if full.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        full.map_err(unreadable)?;
        let container = orphan.container.clone().filter(|_| !is_directory).unwrap_or_default();
        let removal = Removal { driver, address: address(store.as_ref(), driver), container, connection: Vec::new() };
        Ok(Present { names, totals, is_finished, backups: Vec::new(), removal })
    }
}

/// The address of a store for another tool. That of a directory is absolute, so that the script runs in any directory.
fn address(store: &dyn ObjectStore, driver: Driver) -> String {
    let address = store.address();
    if !driver.is_directory() {
        return address.to_owned();
    }
    std::path::absolute(Path::new(address)).map_or_else(|_| address.to_owned(), |path| path.display().to_string())
}
