//! Whether a plan is consistent, whoever wrote it and its digest.
//!
//! When a plan is applied, the rows decide again what may change. These rules are for what that decision takes from the plan: the rows that
//! it reads, and the policy.

use std::collections::HashSet;

use super::{PlanBody, Purpose, Unit};
use crate::domain::status::{AVAILABLE, DELETED, ERROR};
use crate::domain::transitions::{Direction, is_allowed, refusal};
use crate::domain::{
    Backup, BackupMetadata, ColumnSet, FindingKind, Image, QuotaUsage, Reservation, Snapshot, Table, Value, Volume, digest,
};

impl PlanBody {
    /// Says what is not consistent.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_head()?;
        self.check_order()?;
        let mut rules = UnitRules::default();
        self.units.iter().try_for_each(|unit| rules.check(self, &unit.map_err(|error| error.to_string())?))
    }

    pub(super) fn check_head(&self) -> Result<(), String> {
        let spans = self.policy.thresholds;
        if spans.older_than_seconds < 0 || spans.service_down_time_seconds < 0 {
            return Err("its policy has a negative time span".to_owned());
        }
        if self.policy.to.as_deref().is_some_and(|to| ![AVAILABLE, ERROR, DELETED].contains(&to)) {
            return Err("its policy has a target status other than available, error and deleted".to_owned());
        }
        if (self.purpose == Purpose::Undo) != self.undoes.is_some() {
            return Err("its purpose does not fit the run that it undoes".to_owned());
        }
        Ok(())
    }

    pub(super) fn check_order(&self) -> Result<(), String> {
        let in_order = self.checks.is_sorted_by(|a, b| a.id < b.id);
        if in_order { Ok(()) } else { Err("its checks are not in the order of their backups' ids".to_owned()) }
    }

    fn check_unit(&self, unit: &Unit) -> Result<(), String> {
        let direction = if self.purpose == Purpose::Undo { Direction::Either } else { Direction::Forward };
        let mut rows = HashSet::new();
        for image in &unit.before {
            if !rows.insert((image.table, &image.id)) {
                return Err(format!("it has two images of {} {}", image.table, image.id));
            }
            // A guard does not compare a column that is missing. The images in a log may be older than the database. A plan of a version
            // before 0.2 has no zones and changes none; the guard compares the zone that is read under lock.
            let mut whole = whole(image.table, self.columns);
            if unit.kind != FindingKind::Host && !image.columns.contains_key("availability_zone") {
                whole.columns.remove("availability_zone");
            }
            if self.purpose == Purpose::Repair && !image.columns.keys().eq(whole.columns.keys()) {
                return Err(format!("the image of {} {} does not have the columns of such a row", image.table, image.id));
            }
            if !unit.changes.iter().any(|change| change.is_of(image.table, &image.id)) {
                return Err(format!("it holds {} {} and does not change it", image.table, image.id));
            }
        }
        if unit.changes.is_empty() {
            return Err("it changes nothing".to_owned());
        }
        for change in &unit.changes {
            if Image::of(&unit.before, change.table, &change.id).is_none_or(|image| *image.value(&change.column) != change.from) {
                return Err(format!(
                    "it changes {}.{} of {} from a value that its image does not have",
                    change.table, change.column, change.id
                ));
            }
            if !is_allowed(change, direction) {
                return Err(refusal(change));
            }
        }
        let Some(main) = unit.main_image() else { return Err("it does not change its main row".to_owned()) };
        let differs = |column: &str, said: &Option<String>| *main.value(column) != Value::from(said.clone());
        if differs("status", &unit.status)
            || (matches!(unit.kind, FindingKind::Backup | FindingKind::Host)
                && self.purpose == Purpose::Repair
                && differs("host", &unit.host))
        {
            return Err("its status or host differs from its image".to_owned());
        }
        if let Some(host) = unit.host.as_ref().filter(|host| !self.heartbeats.contains_key(*host)) {
            return Err(format!("the last heartbeat of host {host} is missing"));
        }
        Ok(())
    }
}

/// What the units of a plan must be, one after the other.
#[derive(Default)]
pub(super) struct UnitRules {
    /// The number of the last unit.
    last: usize,
    /// What the units are about, as short digests.
    seen: HashSet<u128>,
}

impl UnitRules {
    /// Says why the next unit is not consistent.
    pub(super) fn check(&mut self, plan: &PlanBody, unit: &Unit) -> Result<(), String> {
        // The audit log tells units apart by their numbers.
        if unit.number <= self.last {
            return Err(format!("unit {} is out of order", unit.number));
        }
        self.last = unit.number;
        if !self.seen.insert(digest::short(&[&unit.kind.to_string(), &unit.id, if unit.counter { "counter" } else { "" }])) {
            return Err(format!("unit {} is about the same row as another", unit.number));
        }
        plan.check_unit(unit).map_err(|problem| format!("unit {}: {problem}", unit.number))
    }
}

/// An image with all columns of its table.
fn whole(table: Table, columns: ColumnSet) -> Image {
    match table {
        Table::Backups => Backup::default().image(columns),
        Table::Volumes => Volume::default().image(columns),
        Table::Snapshots => Snapshot::default().image(),
        Table::BackupMetadata => BackupMetadata::default().image(),
        Table::QuotaUsages => QuotaUsage::default().image(),
        Table::Reservations => Reservation::default().image(),
    }
}
