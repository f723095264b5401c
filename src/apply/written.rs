//! What a run has written so far, as its sessions share it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::RwLock;
use std::sync::atomic::AtomicUsize;

use super::undo_guard::UndoGuard;
use crate::domain::decide::Children;
use crate::domain::id::key;
use crate::domain::{Image, Table};
use crate::plan::Unit;
use crate::scan::Census;
use crate::spool::Spool;

/// Rows that a run has written, as they are since.
pub type Overlay = HashMap<(Table, String), Image>;

/// The rows that more than one unit of a plan needs, so that a unit may find them as another one has left them.
///
/// Rows are known by hashes. If two have the same, a row is kept for nothing.
#[derive(Debug, Default)]
pub struct SharedRows {
    seen: HashSet<u64>,
    shared: HashSet<u64>,
}

impl SharedRows {
    /// The rows that more than one of these units changes, or has as the parent of its backup.
    pub fn of_images(units: &Spool<Unit>) -> io::Result<Self> {
        let mut shared = Self::default();
        for unit in units {
            let unit = unit?;
            let parent = unit.main_image().and_then(|image| image.value("parent_id").as_text());
            let images = unit.before.iter().map(|image| (image.table, image.id.as_str()));
            shared.add(images.chain(parent.map(|parent| (Table::Backups, parent))));
        }
        Ok(shared)
    }

    /// Adds the rows that a unit needs.
    pub fn add<'r>(&mut self, rows: impl Iterator<Item = (Table, &'r str)>) {
        let rows: BTreeSet<u64> = rows.map(|(table, id)| row_hash(table, id)).collect();
        for row in rows {
            if !self.seen.insert(row) {
                self.shared.insert(row);
            }
        }
    }
}

fn row_hash(table: Table, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (table, key(id)).hash(&mut hasher);
    hasher.finish()
}

/// What a run has done so far.
#[derive(Debug, Default)]
pub struct Written {
    /// The rows that are kept, if not all.
    shared: Option<HashSet<u64>>,
    /// Rows that it has written, as they are since; in a dry run, those that it would have written, as they would be.
    pub rows: Overlay,
    /// By parent and child: the child's status before the run, as the census counted it, and since.
    counted: HashMap<String, HashMap<String, Statuses>>,
}

/// A child's status before the run and since.
type Statuses = (Option<String>, Option<String>);

impl Written {
    /// Keeps the shared rows only.
    pub fn of_shared(shared: SharedRows) -> Self {
        Self { shared: Some(shared.shared), ..Self::default() }
    }

    /// Takes down what a unit has written.
    pub fn record(&mut self, before: &[Image], after: &[Image]) {
        let shared = self.shared.as_ref();
        let is_kept = |table, id: &str| shared.is_none_or(|shared| shared.contains(&row_hash(table, id)));
        let status = |image: &Image| image.value("status").as_text().map(str::to_owned);
        for image in after.iter().filter(|image| image.table == Table::Backups) {
            let Some(parent) = image.value("parent_id").as_text().filter(|parent| is_kept(Table::Backups, parent)) else { continue };
            let was = Image::of(before, image.table, &image.id).and_then(status);
            let children = self.counted.entry(parent.to_owned()).or_default();
            children.entry(image.id.clone()).or_insert((was, None)).1 = status(image);
        }
        let kept = after.iter().filter(|image| is_kept(image.table, &image.id));
        self.rows.extend(kept.map(|image| ((image.table, image.id.clone()), image.clone())));
    }

    /// Whether the run has written a backup's row, or changed the status of one of its children.
    pub fn may_have_moved_counter(&self, backup: &str) -> bool {
        self.rows.contains_key(&(Table::Backups, backup.to_owned())) || self.counted.contains_key(backup)
    }

    /// The census's count of a parent's children, with what this run has changed since.
    pub fn children(&self, census: &Census, parent: &str) -> Children {
        let mut children = census.children(parent);
        for (was, is) in self.counted.get(parent).into_iter().flat_map(HashMap::values) {
            children.remove(was.as_deref());
            children.add(is.as_deref());
        }
        children
    }
}

/// What all sessions of a run share.
#[derive(Debug, Default)]
pub struct RunState {
    /// What the run has written.
    pub written: RwLock<Written>,
    /// How many units in a row have failed to get a lock.
    pub locked_out: AtomicUsize,
    /// The backups from which an undo takes `available`.
    pub undo_guard: UndoGuard,
}

impl RunState {
    pub fn new(shared: SharedRows, undo_guard: UndoGuard) -> Self {
        Self { written: RwLock::new(Written::of_shared(shared)), undo_guard, ..Self::default() }
    }
}
