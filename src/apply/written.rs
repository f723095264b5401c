//! What a run has written so far, as its sessions share it.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::AtomicUsize;

use crate::domain::decide::Children;
use crate::domain::{Image, Table};
use crate::scan::Census;

/// Rows that a run has written, as they are since.
pub type Overlay = HashMap<(Table, String), Image>;

/// What a run has done so far.
#[derive(Debug, Default)]
pub struct Written {
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
        let status = |image: &Image| image.value("status").as_text().map(str::to_owned);
        for image in after.iter().filter(|image| image.table == Table::Backups) {
            let Some(parent) = image.value("parent_id").as_text() else { continue };
            let was = Image::of(before, image.table, &image.id).and_then(status);
            let children = self.counted.entry(parent.to_owned()).or_default();
            children.entry(image.id.clone()).or_insert((was, None)).1 = status(image);
        }
        self.rows.extend(after.iter().map(|image| ((image.table, image.id.clone()), image.clone())));
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
}
