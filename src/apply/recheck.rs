//! Reads a unit's rows again, under lock, and decides again.
//!
//! Rows are taken in one order everywhere: backups by id, then volumes by id, then snapshots.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::db::DbError;
use crate::domain::decide::{self, BackupCase, CounterCase, SnapshotCase, VolumeCase};
use crate::domain::id::key;
use crate::domain::status::{AVAILABLE, NO_VOLUME};
use crate::domain::{
    Attachment, Backup, Change, CheckResult, ColumnSet, Finding, FindingKind, Image, Moved, Policy, Situation, Snapshot, Table, Value,
    Volume,
};
use crate::plan::Unit;
use crate::scan::lineage::chain as lineage;
use crate::scan::{Census, Lock, Reader, Row};

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
            let was = before.iter().find(|row| row.table == image.table && row.id == image.id).and_then(status);
            let children = self.counted.entry(parent.to_owned()).or_default();
            children.entry(image.id.clone()).or_insert((was, None)).1 = status(image);
        }
        self.rows.extend(after.iter().map(|image| ((image.table, image.id.clone()), image.clone())));
    }

    /// The census's count of a parent's children, with what this run has changed since.
    pub fn children(&self, census: &Census, parent: &str) -> decide::Children {
        let mut children = census.children(parent);
        for (was, is) in self.counted.get(parent).into_iter().flat_map(HashMap::values) {
            children.remove(was.as_deref());
            children.add(is.as_deref());
        }
        children
    }
}

/// Which rows a unit needs: those that it changes, and those that its decision rests on.
///
/// They follow from the images, which are compared with the rows, and never from what else a plan says; but for the rows that
/// its checks compare.
#[derive(Debug, Default)]
pub struct Rows {
    backups: BTreeSet<String>,
    volumes: BTreeSet<String>,
    snapshots: BTreeSet<String>,
    /// The volume whose attachments matter.
    held: Option<String>,
    /// The backup that counts this one among its dependents.
    parent: Option<String>,
}

impl Rows {
    /// The rows of a unit of the plan, in a database with these columns.
    pub fn of(unit: &Unit, census: &Census, policy: &Policy, columns: ColumnSet, check: Option<&CheckResult>) -> Self {
        let image_of = |table: Table| unit.before.iter().find(|image| image.table == table && image.id == unit.id);
        let mut rows = Self::default();
        for image in &unit.before {
            match image.table {
                Table::Backups => rows.backups.insert(image.id.clone()),
                Table::Volumes => rows.volumes.insert(image.id.clone()),
                Table::Snapshots => rows.snapshots.insert(image.id.clone()),
            };
        }
        match unit.kind {
            FindingKind::Backup => {
                if let Some(seen) = image_of(Table::Backups) {
                    let id_in = |column: &str| seen.value(column).as_text().map(str::to_owned);
                    rows.volumes.extend(id_in("volume_id"));
                    rows.volumes.extend(id_in("restore_volume_id"));
                    rows.snapshots.extend(id_in("snapshot_id"));
                    rows.parent = id_in("parent_id");
                    let seen = Backup {
                        id: unit.id.clone(),
                        volume_id: id_in("volume_id"),
                        restore_volume_id: id_in("restore_volume_id"),
                        snapshot_id: id_in("snapshot_id"),
                        ..Backup::default()
                    };
                    if !unit.counter {
                        rows.held = id_in("volume_id");
                        rows.backups.extend(crate::scan::peers(census, &seen).map(|peer| peer.id.clone()));
                        // Whether it may become available depends on its parent, even where that need not change.
                        let may_become_available = check.is_some() || policy.to.as_deref() == Some(AVAILABLE);
                        rows.backups.extend(id_in("parent_id").filter(|_| may_become_available));
                        // A check of it speaks of all that it rests on.
                        rows.backups.extend(check.into_iter().flat_map(|check| &check.rows).map(|image| image.id.clone()));
                    }
                }
            }
            FindingKind::Volume => {
                rows.held = Some(unit.id.clone());
                let status = image_of(Table::Volumes).and_then(|seen| seen.value("status").as_text()).map(str::to_owned);
                let volume = Volume { id: unit.id.clone(), status, ..Volume::default() };
                rows.backups.extend(crate::scan::explainers(census, &volume, columns).map(|backup| backup.id.clone()));
            }
            FindingKind::Snapshot => {
                rows.backups.extend(crate::scan::snapshot_explainers(census, &unit.id).map(|backup| backup.id.clone()));
            }
        }
        rows.volumes.remove(NO_VOLUME);
        rows
    }

    /// The rows, in the order in which they are locked.
    pub fn all(&self) -> impl Iterator<Item = (Table, &str)> {
        let backups = self.backups.iter().map(|id| (Table::Backups, id.as_str()));
        let volumes = self.volumes.iter().map(|id| (Table::Volumes, id.as_str()));
        backups.chain(volumes).chain(self.snapshots.iter().map(|id| (Table::Snapshots, id.as_str())))
    }

    /// Rows by their ids alone.
    #[cfg(test)]
    pub fn plain(backups: &[&str], volumes: &[&str], parent: Option<&str>) -> Self {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        Self { backups: set(backups), volumes: set(volumes), parent: parent.map(str::to_owned), ..Self::default() }
    }

    /// The backup whose count of dependents this unit may move, whether or not it is read.
    pub fn parent(&self) -> Option<(Table, &str)> {
        self.parent.as_deref().map(|id| (Table::Backups, id))
    }
}

/// A unit's rows as they are now, by the [`key`]s of their ids.
#[derive(Debug, Default)]
pub struct LockedRows {
    backups: BTreeMap<String, Backup>,
    volumes: BTreeMap<String, Volume>,
    snapshots: BTreeMap<String, Snapshot>,
    /// Live attachments of the volume that may be set free.
    attachments: Vec<Attachment>,
}

/// What became of a unit's plan.
#[derive(Debug)]
pub enum Recheck {
    /// It stands: these are the rows now and the changes to make.
    Valid {
        /// The rows to change, as they are now.
        now: Vec<Image>,
        /// The changes; they differ from the plan's only in what the same run moved.
        changes: Vec<Change>,
    },
    /// A row is not what the plan saw.
    RowsChanged(Vec<Moved>),
    /// The rows are, but the decision would now be another.
    OtherDecision(String),
    /// Somebody may be at work.
    Refused(String),
}

impl LockedRows {
    /// Reads the rows of a unit. Where nothing is decided again, as when a run is undone, attachments do not matter.
    pub fn read(reader: &mut Reader<'_>, rows: &Rows, lock: Lock, decides: bool) -> Result<Self, DbError> {
        let wanted: Vec<(Table, &str)> = rows.all().collect();
        let held: Vec<&str> = rows.held.iter().map(String::as_str).filter(|id| decides && *id != NO_VOLUME).collect();
        let (rows, attachments) = reader.around(&wanted, lock, &held)?;
        let mut fresh = Self { attachments, ..Self::default() };
        for row in rows.into_iter().flatten() {
            match row {
                Row::Backup(row) => drop(fresh.backups.insert(key(&row.id).into_owned(), *row)),
                Row::Volume(row) => drop(fresh.volumes.insert(key(&row.id).into_owned(), row)),
                Row::Snapshot(row) => drop(fresh.snapshots.insert(key(&row.id).into_owned(), row)),
            }
        }
        Ok(fresh)
    }

    /// Takes the rows as the units before would have left them, as a dry run has to.
    pub fn assume(&mut self, overlay: &Overlay) {
        let of = |table: Table, id: &str| overlay.get(&(table, id.to_owned()));
        let text = |image: &Image, column: &str| image.value(column).as_text().map(str::to_owned);
        for row in self.backups.values_mut() {
            let Some(image) = of(Table::Backups, &row.id) else { continue };
            row.status = text(image, "status");
            row.service_metadata = text(image, "service_metadata");
            row.fail_reason = text(image, "fail_reason");
            row.size = image.value("size").as_integer();
            row.object_count = image.value("object_count").as_integer();
            row.num_dependent_backups = image.value("num_dependent_backups").as_integer();
        }
        for row in self.volumes.values_mut() {
            row.status = of(Table::Volumes, &row.id).map_or(row.status.take(), |image| text(image, "status"));
        }
        for row in self.snapshots.values_mut() {
            row.status = of(Table::Snapshots, &row.id).map_or(row.status.take(), |image| text(image, "status"));
        }
    }

    /// A backup as it is now; `None` where it is gone.
    pub fn backup(&self, id: &str) -> Option<&Backup> {
        self.backups.get(key(id).as_ref())
    }

    fn volume(&self, id: &str) -> Option<&Volume> {
        self.volumes.get(key(id).as_ref())
    }

    fn snapshot(&self, id: &str) -> Option<&Snapshot> {
        self.snapshots.get(key(id).as_ref())
    }

    /// A row as it is now; `None` where it is gone.
    pub fn image(&self, table: Table, id: &str, columns: ColumnSet) -> Option<Image> {
        match table {
            Table::Backups => self.backup(id).map(|row| row.image(columns)),
            Table::Volumes => self.volume(id).map(|row| row.image(columns)),
            Table::Snapshots => self.snapshot(id).map(Snapshot::image),
        }
    }

    /// Why a row that a unit changes cannot be; decided over again, a repair finds that out itself.
    pub fn unfit(&self, unit: &Unit) -> Option<String> {
        let of = |image: &Image| match image.table {
            Table::Backups => self.backup(&image.id).and_then(|row| row.unfit.clone()),
            Table::Volumes => self.volume(&image.id).and_then(|row| row.unfit.clone()),
            Table::Snapshots => self.snapshot(&image.id).and_then(|row| row.unfit.clone()),
        };
        unit.before.iter().find_map(of)
    }

    /// Compares the rows with what the plan saw, or with what this run itself made of them since.
    pub fn compare(&self, unit: &Unit, overlay: &Overlay, columns: ColumnSet) -> Result<Vec<Image>, Vec<Moved>> {
        let (mut now, mut moved) = (Vec::new(), Vec::new());
        for planned in &unit.before {
            let expected = overlay.get(&(planned.table, planned.id.clone())).unwrap_or(planned);
            match self.image(planned.table, &planned.id, columns) {
                None => moved.push(Moved {
                    table: planned.table,
                    id: planned.id.clone(),
                    column: "id".to_owned(),
                    planned: Value::from(planned.id.as_str()),
                    found: Value::Null,
                }),
                Some(found) => {
                    moved.extend(expected.moved(&found));
                    now.push(found);
                }
            }
        }
        if moved.is_empty() { Ok(now) } else { Err(moved) }
    }

    /// Decides again over the rows as they are now.
    pub fn decide(
        &self,
        unit: &Unit,
        census: &Census,
        run: &Written,
        situation: &Situation,
        policy: &Policy,
        check: Option<&CheckResult>,
    ) -> Option<Finding> {
        // A backup that is still active keeps its rows: do not count on a later repair of it.
        let as_peers = |ids: &mut dyn Iterator<Item = &Backup>| -> Vec<decide::Peer> {
            ids.filter(|backup| crate::domain::status::is_active(backup.status.as_deref()))
                .map(|backup| crate::scan::as_peer(census, backup, false))
                .collect()
        };
        match unit.kind {
            FindingKind::Backup => {
                let mut backup = self.backup(&unit.id).cloned()?;
                if unit.counter {
                    let children = run.children(census, &backup.id);
                    return decide::counter(&CounterCase { backup, children, occupied: false }, situation, policy);
                }
                let planned = unit.before.iter().find(|image| image.table == Table::Backups && image.id == unit.id);
                if let Some(planned) = planned.filter(|image| run.rows.contains_key(&(image.table, image.id.clone()))) {
                    // As the parent of another unit's backup it was counted anew a moment ago: that makes it neither young nor
                    // another than the one that was checked. [`LockedRows::compare`] knows that nobody else has touched it.
                    backup.updated_at = planned.value("updated_at").as_text().map(str::to_owned);
                    backup.num_dependent_backups = planned.value("num_dependent_backups").as_integer();
                }
                let volume = backup.volume_id.as_ref().and_then(|id| self.volume(id)).cloned();
                let attachments = if volume.is_some() { self.attachments.clone() } else { Vec::new() };
                let parent = backup.parent_id.as_ref().and_then(|id| self.backup(id)).cloned();
                let siblings = backup.parent_id.as_ref().map_or_else(decide::Children::default, |parent| {
                    let mut children = run.children(census, parent);
                    children.remove(backup.status.as_deref());
                    children
                });
                let ancestors = if check.is_some() {
                    lineage(&backup, |id| self.backup(id)).into_iter().cloned().map(Arc::new).collect()
                } else {
                    Vec::new()
                };
                let case = BackupCase {
                    ancestors,
                    destination: backup.restore_volume_id.as_ref().and_then(|id| self.volume(id)).cloned(),
                    snapshot: backup.snapshot_id.as_ref().and_then(|id| self.snapshot(id)).cloned(),
                    volume_is_temporary: backup.volume_id.as_ref().is_some_and(|id| census.is_temporary(id)),
                    peers: as_peers(&mut self.backups.values().filter(|peer| peer.id != backup.id)),
                    // As with suspects below: what the plan left to others stays theirs.
                    held: decide::held_in(&unit.evidence),
                    volume,
                    parent,
                    siblings,
                    attachments,
                    check: check.cloned().map(Box::new),
                    backup,
                };
                Some(decide::backup(&case, situation, policy))
            }
            FindingKind::Volume => {
                let volume = self.volume(&unit.id).cloned()?;
                let case = VolumeCase {
                    attachments: self.attachments.clone(),
                    explained_by: as_peers(&mut self.backups.values()),
                    is_temporary: census.is_temporary(&volume.id),
                    // None of these is among the rows of the unit: a backup that was put out of its status by hand shows in the plan.
                    suspects: Vec::new(),
                    backup_hosts: census.hosts.iter().cloned().collect(),
                    volume,
                };
                decide::left_volume(&case, situation, policy)
            }
            FindingKind::Snapshot => {
                let snapshot = self.snapshot(&unit.id).cloned()?;
                let case = SnapshotCase { explained_by: as_peers(&mut self.backups.values()), suspects: Vec::new(), snapshot };
                decide::snapshot(&case, situation, policy)
            }
        }
    }
}

/// Holds a decision made again against the plan's.
pub fn same_decision(unit: &Unit, finding: Option<Finding>, run: &Written) -> Result<Vec<Change>, Recheck> {
    let Some(finding) = finding else {
        if unit.counter {
            return Err(Recheck::OtherDecision("its counter can be right by now, so there is nothing to change any more".to_owned()));
        }
        return Err(Recheck::Refused("an operation that explains its status is still pending".to_owned()));
    };
    if !finding.is_actionable() {
        let why = finding.refusal.or_else(|| finding.evidence.into_iter().next().map(|evidence| evidence.text));
        return Err(Recheck::Refused(why.unwrap_or_else(|| "nothing is to be changed any more".to_owned())));
    }
    let changes = finding.proposal.map(|proposal| proposal.changes).unwrap_or_default();
    // The wording of fail_reason may differ (a service that was silent then has been removed since), and a counter that
    // this run itself has moved, or whose children it has changed, is counted from where it is now.
    let essence = |changes: &[Change]| -> Vec<(Table, String, String, Option<Value>)> {
        changes
            .iter()
            .map(|change| {
                let own = || run.rows.contains_key(&(change.table, change.id.clone())) || run.counted.contains_key(&change.id);
                let loose = change.column == "fail_reason" || (change.column == "num_dependent_backups" && own());
                (change.table, change.id.clone(), change.column.clone(), (!loose).then(|| change.to.clone()))
            })
            .collect()
    };
    if essence(&changes) != essence(&unit.changes) {
        return Err(Recheck::OtherDecision(
            "the rows around it have changed, and other changes would be right now; make a new plan".to_owned(),
        ));
    }
    Ok(changes)
}
