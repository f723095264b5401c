//! The list of commands that would remove orphans: a shell script for a person to review. Nothing runs it here.
//!
//! Each orphan is looked at again, on the storage and in the database, just before its commands are written. The script refuses to run when
//! it is older than a day.

use std::collections::{BTreeSet, HashSet};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use jiff::Timestamp;

use super::{PORTION, Result, Walk, ceph};
use crate::domain::id::{key, same};
use crate::domain::status::DELETED;
use crate::domain::text::count;
use crate::domain::time::stamp;
use crate::domain::{CodeSet, Driver, StorageRow};
use crate::format::names::Prefix;
use crate::report::safe;
use crate::scan::CompactIds;
use crate::spool::Spool;
use crate::storage::{ObjectStore, StorageError};
use crate::verify::ceph::{backup_of_meta, backup_of_snapshot};
use crate::verify::orphans::{ObjectGroup, ObjectTotals, Orphan, OrphanHead, OrphanKind, judge};
use crate::verify::removal::{NAMES_OF_COMMAND, Removal};
use crate::workflow::Error;

/// How long the script may be run, in seconds.
const LONGEST: i64 = 86_400;

/// What is on the storage now of an orphan.
#[derive(Default)]
struct Present {
    names: Spool<String>,
    totals: ObjectTotals,
    is_finished: bool,
    address: String,
}

/// A comment of one line. No character of the text can end the line.
fn comment(out: &mut dyn Write, text: &str) -> Result<()> {
    writeln!(out, "{}", format!("# {}", safe::terminal(text)).trim_end()).map_err(unwritable)
}

fn unwritable(error: std::io::Error) -> Error {
    Error::Write("the commands".to_owned(), error)
}

fn write_header(out: &mut dyn Write, head: &OrphanHead, now: Timestamp) -> Result<()> {
    writeln!(out, "#!/bin/sh").map_err(unwritable)?;
    for line in [
        format!("Commands that remove what no live backup needs, written by {} at {}.", head.program, stamp(now)),
        format!("Database: {}", head.database),
        "Nothing was removed yet. Read each command and what was looked at before it, then run: sh THIS-FILE".to_owned(),
        "Where a backup without a row is finished, and where the row was not deleted by Cinder, the commands are comments: import the backup"
            .to_owned(),
        "with `cinder backup-import`, or make sure that nobody needs it, above all no other cloud that uses this storage, and remove the"
            .to_owned(),
        "comment sign. The same holds for half backups without a row where there are finished ones.".to_owned(),
        "The commands need the environment of their tools, with an account that may remove objects.".to_owned(),
    ] {
        comment(out, &line)?;
    }
    let made = now.as_second();
    write!(
        out,
        "age=$(($(date +%s) - {made})) || exit 1\nif [ \"$age\" -lt 0 ] || [ \"$age\" -gt {LONGEST} ]; then\n    \
         echo 'this list is older than a day, or the clock is wrong: run check --orphans again' >&2\n    exit 1\nfi\nfailed=0\n"
    )
    .map_err(unwritable)
}

/// What was looked at, in one line.
fn looked_at(number: usize, kind: OrphanKind, orphan: &Orphan, present: &Present, row: Option<&StorageRow>) -> String {
    let row = match row {
        Some(row) => {
            let when = row.deleted_at.as_deref().unwrap_or("an unknown time");
            format!("the row of project {} is deleted since {when}", row.project_id.as_deref().unwrap_or("unknown"))
        }
        None => "the database has no row of it".to_owned(),
    };
    let time = |time: Option<Timestamp>| time.map_or_else(|| "an unknown time".to_owned(), stamp);
    let ObjectTotals { objects, bytes, oldest_at, newest_at, .. } = present.totals;
    format!(
        "{number}. {}: backup {} of volume {}: {row}; {} with {bytes} bytes, from {} to {}",
        kind.as_str(),
        orphan.backup_id.as_deref().unwrap_or_default(),
        orphan.volume_id.as_deref().unwrap_or_default(),
        count(objects, "object"),
        time(oldest_at),
        time(newest_at),
    )
}

/// What is known of all backups before commands are written.
struct Needs {
    /// Backups, and volumes with all their backups, whose objects a live backup may need although their own rows are not live.
    held: HashSet<u128>,
    /// Where there are finished backups without a row: they may be of another cloud, and others there, too.
    strange: BTreeSet<(Driver, String)>,
}

impl Needs {
    fn are_held(&self, orphan: &Orphan) -> bool {
        [&orphan.backup_id, &orphan.volume_id].into_iter().flatten().any(|id| self.held.contains(&number(id)))
    }

    /// What a command begins with: a comment sign if only a person can know that nobody needs the backup.
    fn sign(&self, kind: OrphanKind, orphan: &Orphan, row: Option<&StorageRow>) -> &'static str {
        let is_certain = match kind {
            OrphanKind::Half => !self.strange.contains(&(orphan.driver, orphan.location.clone())),
            // Somebody may have hidden the row by hand.
            OrphanKind::RowDeleted => row.is_some_and(|row| row.status.as_deref() == Some(DELETED)),
            _ => false,
        };
        if is_certain { "" } else { "# " }
    }
}

fn number(id: &str) -> u128 {
    CompactIds::number(&key(id))
}

impl Walk<'_, '_> {
    /// Reads what live backups need. Two passes over `backups`, and 16 bytes for each live one.
    fn needs(&mut self, orphans: &Spool<Orphan>) -> Result<Needs> {
        let (mut live, mut held, mut strange) = (Vec::new(), HashSet::new(), BTreeSet::new());
        for orphan in orphans.iter() {
            let orphan = orphan?;
            if orphan.kind == OrphanKind::NoRow {
                strange.insert((orphan.driver, orphan.location));
            }
        }
        self.each_row(&mut |row| {
            if row.deleted {
                return;
            }
            live.push(number(&row.id));
            // Old releases imported a backup under a new id.
            let prefix = row.service_metadata.as_deref().and_then(Prefix::parse);
            held.extend(prefix.filter(|prefix| !same(&prefix.backup_id, &row.id)).map(|prefix| number(&prefix.backup_id)));
        })?;
        live.sort_unstable();
        // An increment whose parent's row is not live: which of the volume's backups it is based on in the end is not known.
        self.database.read(|reader| {
            reader.references(&mut |backup| {
                let parent = backup.parent_id.filter(|parent| live.binary_search(&number(parent)).is_err());
                if let Some(parent) = parent {
                    held.extend(backup.volume_id.into_iter().chain([parent]).map(|id| number(&id)));
                }
            })
        })?;
        Ok(Needs { held, strange })
    }

    /// Writes the script.
    pub(super) fn write_commands(&mut self, out: &mut dyn Write, orphans: &Spool<Orphan>, head: &OrphanHead) -> Result<()> {
        write_header(out, head, Timestamp::now())?;
        let needs = self.needs(orphans)?;
        let mut place = 0;
        while place < orphans.len() && !self.is_stopped() {
            let portion = orphans.read(place..place + PORTION)?;
            for (orphan, number) in portion.into_iter().zip(place + 1..) {
                let has_command = matches!(orphan.kind.known(), Some(OrphanKind::Half | OrphanKind::NoRow | OrphanKind::RowDeleted));
                if has_command && !self.is_stopped() {
                    writeln!(out).map_err(unwritable)?;
                    self.write_one(out, number, &orphan, &needs)?;
                }
            }
            place += PORTION;
        }
        writeln!(out, "\nexit \"$failed\"").map_err(unwritable)
    }

    fn write_one(&mut self, out: &mut dyn Write, number: usize, orphan: &Orphan, needs: &Needs) -> Result<()> {
        let name = orphan.name.as_deref().unwrap_or_default();
        if !self.familiar.contains(&(orphan.driver, orphan.location.clone())) {
            let text =
                format!("{number}. {name}: no command, because no live backup of this database has an object in {}", orphan.location);
            return comment(out, &text);
        }
        if orphan.driver == Driver::Ceph {
            return self.write_part(out, number, orphan, needs);
        }
        if needs.are_held(orphan) {
            let text = "no command, because a live backup may need it: one that is based on a backup without a live row, or an import";
            return comment(out, &format!("{number}. {name}: {text}"));
        }
        let present = match self.present(orphan) {
            Ok(present) => present,
            Err(error) => return comment(out, &format!("{number}. {name}: no command, because it was not listed again: {}", error.text)),
        };
        // After the listing, as in the walk.
        let rows = self.rows(orphan.backup_id.as_slice())?;
        let row = orphan.backup_id.as_ref().and_then(|id| rows.get(id));
        let Some(kind) = judge(&present.totals, present.is_finished, row, self.quiet) else {
            return comment(out, &format!("{number}. {name}: no command, because it has changed since it was found"));
        };
        comment(out, &looked_at(number, kind, orphan, &present, row))?;
        let container = orphan.container.clone().filter(|_| !orphan.driver.is_directory()).unwrap_or_default();
        let removal = Removal { driver: orphan.driver, address: present.address, container };
        if let Some(caution) = removal.caution() {
            comment(out, caution)?;
        }
        let sign = needs.sign(kind, orphan, row);
        let mut at = 0;
        while at < present.names.len() {
            let names = present.names.read(at..at + NAMES_OF_COMMAND)?;
            at += NAMES_OF_COMMAND;
            let (names, unsafe_names): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| removal.may_name(name));
            for name in unsafe_names {
                comment(out, &format!("no command for {name:?}: a shell or the tool could read it in another way"))?;
            }
            match removal.command(&names) {
                Some(command) => writeln!(out, "{sign}{command} || failed=1").map_err(unwritable)?,
                None if names.is_empty() => {}
                None => comment(out, &format!("no command: the address {} is not that of its container", removal.address))?,
            }
        }
        Ok(())
    }

    /// Writes the command for an image, a snapshot or a metadata object of a Ceph pool.
    fn write_part(&mut self, out: &mut dyn Write, number: usize, orphan: &Orphan, needs: &Needs) -> Result<()> {
        let name = orphan.name.as_deref().unwrap_or_default();
        let (present, connection) = match self.present_part(orphan) {
            Ok(present) => present,
            Err(error) => return comment(out, &format!("{number}. {name}: no command, because it was not read again: {}", error.text)),
        };
        // An image may also be that of other backups, whose snapshots it has.
        let mut ids: Vec<String> = orphan.backup_id.iter().cloned().collect();
        ids.extend(present.names.iter().collect::<std::io::Result<Vec<String>>>()?);
        let rows = self.rows(&ids)?;
        let row = orphan.backup_id.as_ref().and_then(|id| rows.get(id));
        let kind = judge(&present.totals, present.is_finished, row, self.quiet).filter(|_| rows.values().all(|row| row.deleted));
        let Some(kind) = kind else {
            return comment(out, &format!("{number}. {name}: no command, because it has changed since it was found"));
        };
        comment(out, &format!("{}: {name}", looked_at(number, kind, orphan, &present, row)))?;
        match Removal::of_pool(&connection, orphan.container.as_deref().unwrap_or_default(), name) {
            Some(command) => writeln!(out, "{}{command} || failed=1", needs.sign(kind, orphan, row)).map_err(unwritable),
            None => comment(out, &format!("no command for {name:?}: a shell or the tool could read it in another way")),
        }
    }

    /// Reads an image, a snapshot or a metadata object again. The names are the ids of the backups whose snapshots an image has.
    fn present_part(&self, orphan: &Orphan) -> std::result::Result<(Present, [String; 2]), StorageError> {
        let cluster = self.stores.cluster()?;
        let pool = cluster.pool(orphan.container.as_deref().unwrap_or_default());
        let (name, backup) = (orphan.name.as_deref().unwrap_or_default(), orphan.backup_id.as_deref().unwrap_or_default());
        let mut present = Present::default();
        if let Some((image, snapshot)) = name.split_once('@') {
            let found = StorageError::none_if_absent(pool.snapshots(image))?.unwrap_or_default();
            if let Some(found) = found.into_iter().find(|found| found.name == snapshot) {
                present.totals = ceph::totals(found.created, 0);
                present.is_finished = ceph::is_finished(&pool, image, backup)?;
            }
        } else if backup_of_meta(name).is_some() {
            let stat = pool.object(name)?;
            present.totals = stat.map(|stat| ceph::totals(stat.modified, stat.size)).unwrap_or_default();
            present.is_finished = true;
        } else if let Some((totals, is_finished)) = ceph::image_totals(&pool, name, backup)? {
            (present.totals, present.is_finished) = (totals, is_finished);
            for snapshot in pool.snapshots(name)? {
                if let Some(backup) = backup_of_snapshot(&snapshot.name) {
                    present.names.push(&backup.to_owned()).map_err(|error| StorageError::protocol(error.to_string()))?;
                }
            }
        }
        Ok((present, cluster.options()))
    }

    /// Lists the objects of an orphan again.
    fn present(&self, orphan: &Orphan) -> std::result::Result<Present, StorageError> {
        let is_directory = orphan.driver.is_directory();
        let store = self.stores.whole(orphan.driver, orphan.container.as_deref(), orphan.project_id.as_deref())?;
        let name = orphan.name.clone().unwrap_or_default();
        let folder = orphan.container.clone().filter(|_| is_directory);
        let prefix = folder.as_ref().map_or_else(|| name.clone(), |folder| format!("{folder}/{name}"));
        let (mut present, mut full) = (Present::default(), Ok(()));
        store.list(&prefix, &mut |object| {
            let group = ObjectGroup::of(&object, is_directory).filter(|group| group.folder == folder && group.prefix == name);
            let Some(group) = group else { return ControlFlow::Continue(()) };
            present.totals.add(&group.totals);
            present.is_finished |= group.is_finished;
            full = present.names.push(&object.name);
            if full.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        full.map_err(|error| StorageError::protocol(error.to_string()))?;
        present.address = address(store.as_ref(), orphan.driver);
        Ok(present)
    }
}

/// The address of a store for another tool. That of a directory does not depend on where the script is run.
fn address(store: &dyn ObjectStore, driver: Driver) -> String {
    let address = store.address();
    if !driver.is_directory() {
        return address.to_owned();
    }
    std::path::absolute(Path::new(address)).map_or_else(|_| address.to_owned(), |path| path.display().to_string())
}
