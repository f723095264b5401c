//! From the database to a plan.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::apply::{SimulatedOutcome, simulate};
use crate::domain::{Checks, FindingKind, Policy, Selection};
use crate::plan::{Basis, Plan};
use crate::scan::{KeptRows, Scan, ScanRequest, scan};

use super::observer::{Observer, reading};
use super::skipped::refusals;
use super::{Database, Refused, Result, Skipped};

/// Which rows are wanted, and how they are judged.
#[derive(Debug)]
pub struct Wanted {
    pub selection: Selection,
    pub policy: Policy,
    /// A part of the selection may match nothing.
    pub may_be_empty: bool,
}

pub fn find(database: &mut Database, wanted: &Wanted, kept: KeptRows, observer: &dyn Observer) -> Result<Scan> {
    let checks = Checks::new();
    let request = ScanRequest::new(&wanted.policy, &wanted.selection, kept, &checks);
    let scan = reading(observer, || scan(database.session.as_mut(), &database.schema, &request))?;
    wanted.require_matches(&scan.census, &scan.situation, observer)?;
    Ok(scan)
}

pub struct ProposedPlan<'a> {
    pub plan: Plan,
    pub scan: Scan,
    /// What was asked for and cannot be repaired.
    pub refused: Vec<Refused>,
    /// What else was found.
    pub skipped: Skipped,
    wanted: &'a Wanted,
    checks: Checks,
    has_checked: bool,
}

impl<'a> ProposedPlan<'a> {
    /// Scans and plans; `checks` is what is known of the storage, and `has_checked` whether it was read for this plan.
    pub fn new(database: &mut Database, wanted: &'a Wanted, checks: Checks, has_checked: bool, observer: &dyn Observer) -> Result<Self> {
        let (plan, scan) = reading(observer, || propose(database, &request(wanted, &checks, has_checked)))?;
        wanted.require_matches(&scan.census, &scan.situation, observer)?;
        let refused = refusals(&scan, &wanted.selection);
        let skipped = Skipped::of(&scan, &refused);
        Ok(Self { plan, scan, refused, skipped, wanted, checks, has_checked })
    }

    /// Keeps only the chosen units, and returns how many of them cannot be repaired any more. If some of them release rows because
    /// others are repaired before, and these are not chosen, the database is read again.
    pub fn narrow(&mut self, database: &mut Database, chosen: &BTreeSet<usize>) -> Result<usize> {
        let key = |unit: &crate::plan::Unit| (unit.kind, unit.id.clone(), unit.counter);
        let wanted: BTreeSet<(FindingKind, String, bool)> =
            self.plan.units.iter().filter(|unit| chosen.contains(&unit.number)).map(key).collect();
        if self.scan.counts_on_others && wanted.len() < self.plan.units.len() {
            let backups = wanted.iter().filter(|(kind, _, counter)| *kind == FindingKind::Backup && !counter);
            let only: BTreeSet<String> = backups.map(|(_, id, _)| id.clone()).collect();
            let request = request(self.wanted, &self.checks, self.has_checked);
            self.plan = propose(database, &ScanRequest { only: Some(&only), ..request })?.0;
        }
        let left: BTreeSet<usize> = self.plan.units.iter().filter(|unit| wanted.contains(&key(unit))).map(|unit| unit.number).collect();
        self.plan.keep(&left);
        Ok(chosen.len().saturating_sub(self.plan.units.len()))
    }
}

fn request<'q>(wanted: &'q Wanted, checks: &'q Checks, has_checked: bool) -> ScanRequest<'q> {
    ScanRequest { storage_checked: has_checked, ..ScanRequest::new(&wanted.policy, &wanted.selection, KeptRows::Changes, checks) }
}

/// A scan and the plan that follows from it.
fn propose(database: &mut Database, request: &ScanRequest<'_>) -> Result<(Plan, Scan)> {
    let scan = scan(database.session.as_mut(), &database.schema, request)?;
    let basis = Basis {
        id: Uuid::new_v4().to_string(),
        taken_at: scan.document.taken_at.clone(),
        database: scan.document.database.clone(),
        columns: scan.situation.columns,
        policy: request.policy.clone(),
        selection: request.selection.clone(),
        services: scan.situation.services.clone(),
        checks: request.checks.clone(),
    };
    let mut plan = Plan::propose(&scan.document.findings, &scan.images, basis);
    if request.policy.fix_counters {
        remove_done(&mut plan, &scan);
    }
    Ok((plan, scan))
}

/// Removes units whose work another unit does: the unit of an increment that becomes available also counts its parent again, which corrects a
/// wrong counter.
fn remove_done(plan: &mut Plan, scan: &Scan) {
    let simulated = simulate(&plan.units, &scan.census);
    let done = plan.units.iter().zip(&simulated).filter(|(_, simulated)| simulated.outcome == SimulatedOutcome::Unneeded);
    let done: BTreeSet<usize> = done.map(|(unit, _)| unit.number).collect();
    if !done.is_empty() {
        plan.leave_out(&done);
    }
}
