//! What a run has written so far, as its sessions share it.

use std::collections::{HashMap, HashSet};
use std::sync::RwLock;
use std::sync::atomic::AtomicUsize;

use super::undo_guard::UndoGuard;
use super::unit_rows::UnitRows;
use crate::domain::decide::Children;
use crate::domain::id::key;
use crate::domain::{Image, Table, digest};
use crate::scan::Census;

/// Rows that a run has written, as they are since.
pub type Overlay = HashMap<(Table, String), Image>;

/// The rows that more than one unit of a plan needs, so that a unit may find them as another one has left them.
#[derive(Debug, Default)]
pub struct SharedRows {
    seen: HashSet<u128>,
    shared: HashSet<u128>,
}

impl SharedRows {
    /// Adds the rows that a unit needs.
    pub fn add(&mut self, rows: &UnitRows) {
        let rows: HashSet<u128> = rows.all().chain(rows.parent()).map(|(table, id)| row_number(table, id)).collect();
        for row in rows {
            if !self.seen.insert(row) {
                self.shared.insert(row);
            }
        }
    }
}

fn row_number(table: Table, id: &str) -> u128 {
    digest::short(&[&table.to_string(), &key(id)])
}

/// What a run has done so far.
#[derive(Debug, Default)]
pub struct Written {
    /// The rows that are kept, if not all.
    shared: Option<HashSet<u128>>,
    /// Rows that it has written, as they are since; in a dry run, those that it would have written, as they would be.
    pub rows: Overlay,
    /// By parent and child: the child's status before the run, as the census counted it, and since.
    counted: HashMap<String, HashMap<String, Statuses>>,
}

/// A child's status before the run and since.
type Statuses = (Option<String>, Option<String>);

impl Written {
    /// Takes down what a unit has written.
    pub fn record(&mut self, before: &[Image], after: &[Image]) {
        let shared = self.shared.as_ref();
        let is_kept = |table, id: &str| shared.is_none_or(|shared| shared.contains(&row_number(table, id)));
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
        let written = Written { shared: Some(shared.shared), ..Written::default() };
        Self { written: RwLock::new(written), undo_guard, ..Self::default() }
    }
}
