//! From the database to a plan.

use std::collections::{BTreeSet, HashSet};
use std::io;

use uuid::Uuid;

use crate::apply::{SimulatedOutcome, simulate};
use crate::domain::{Checks, Finding, FindingKind, Policy, Selection};
use crate::plan::{Basis, Plan, Proposed, Unit};
use crate::scan::records::ScanRecord;
use crate::scan::{KeptRows, Scan, ScanError, ScanOutput, ScanRequest, Stream, scan, scan_to, sort};
use crate::spool::Spool;

use super::observer::{Observer, reading};
use super::skipped::refusals;
use super::{Database, Refused, Result, Skipped};

/// What a unit is about: kind, id, and whether only the counter is meant.
type UnitKey = (FindingKind, String, bool);

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
    /// The findings that are not in the plan, in their order.
    pub others: Spool<Finding>,
    /// What was asked for and cannot be repaired.
    pub refused: Spool<Refused>,
    /// What else was found.
    pub skipped: Skipped,
    wanted: &'a Wanted,
    checks: Checks,
    has_checked: bool,
}

impl<'a> ProposedPlan<'a> {
    /// Scans and plans; `checks` is what is known of the storage, and `has_checked` whether it was read for this plan.
    pub fn new(database: &mut Database, wanted: &'a Wanted, checks: Checks, has_checked: bool, observer: &dyn Observer) -> Result<Self> {
        let Proposal { plan, scan, others, named } = reading(observer, || propose(database, &request(wanted, &checks, has_checked)))?;
        wanted.require_matches(&scan.census, &scan.situation, observer)?;
        let (refused, skipped) = refusals(&scan, &others, &wanted.selection, &named)?;
        Ok(Self { plan, scan, others, refused, skipped, wanted, checks, has_checked })
    }

    /// Keeps only the chosen units, and returns how many of them cannot be repaired any more. If some of them release rows because
    /// others are repaired before, and these are not chosen, the database is read again.
    pub fn narrow(&mut self, database: &mut Database, chosen: &BTreeSet<usize>) -> Result<usize> {
        let keys = |plan: &Plan| -> io::Result<Vec<(usize, UnitKey)>> {
            plan.units.iter().map(|unit| unit.map(|unit| (unit.number, (unit.kind, unit.id, unit.counter)))).collect()
        };
        let wanted = keys(&self.plan)?.into_iter().filter(|(number, _)| chosen.contains(number));
        let wanted: BTreeSet<UnitKey> = wanted.map(|(_, key)| key).collect();
        if self.scan.has_dependent_proposals && wanted.len() < self.plan.units.len() {
            let backups = wanted.iter().filter(|(kind, _, counter)| *kind == FindingKind::Backup && !counter);
            let only: BTreeSet<String> = backups.map(|(_, id, _)| id.clone()).collect();
            let request = request(self.wanted, &self.checks, self.has_checked);
            self.plan = propose(database, &ScanRequest { only: Some(&only), ..request })?.plan;
        }
        let left = keys(&self.plan)?.into_iter().filter(|(_, key)| wanted.contains(key));
        self.plan.keep(&left.map(|(number, _)| number).collect())?;
        Ok(chosen.len().saturating_sub(self.plan.units.len()))
    }
}

pub(super) fn request<'q>(wanted: &'q Wanted, checks: &'q Checks, has_checked: bool) -> ScanRequest<'q> {
    ScanRequest { storage_checked: has_checked, ..ScanRequest::new(&wanted.policy, &wanted.selection, KeptRows::Changes, checks) }
}

/// Takes the findings of a scan: those that a plan repairs, and the others.
#[derive(Default)]
struct Findings {
    proposed: Proposed,
    others: Spool<Finding>,
    /// Backups were named.
    has_names: bool,
    /// The ids of what is repaired, if backups were named.
    named: HashSet<String>,
}

impl ScanOutput for Findings {
    fn add(&mut self, record: ScanRecord) -> std::result::Result<(), ScanError> {
        let ScanRecord::Finding(finding) = record else { return Ok(()) };
        if finding.is_actionable() {
            if self.has_names {
                self.named.insert(finding.id.clone());
            }
            self.proposed.add(Unit::of_finding(*finding))?;
        } else {
            self.others.push(&finding)?;
        }
        Ok(())
    }
}

/// A scan and the plan that follows from it.
struct Proposal {
    plan: Plan,
    scan: Scan,
    others: Spool<Finding>,
    named: HashSet<String>,
}

fn propose(database: &mut Database, request: &ScanRequest<'_>) -> Result<Proposal> {
    let mut findings = Findings { has_names: !request.selection.backups.is_empty(), ..Findings::default() };
    let scan = scan_to(database.session.as_mut(), &database.schema, request, Stream { output: &mut findings, catalog: None })?;
    let Findings { proposed, mut others, named, .. } = findings;
    sort(&mut others)?;
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
    let mut plan = Plan::propose(proposed, basis)?;
    if request.policy.fix_counters {
        remove_done(&mut plan, &scan)?;
    }
    Ok(Proposal { plan, scan, others, named })
}

/// Removes units whose work another unit does: the unit of an increment that becomes available also counts its parent again, which corrects
/// a wrong counter.
fn remove_done(plan: &mut Plan, scan: &Scan) -> Result<()> {
    let mut done = BTreeSet::new();
    for simulated in simulate(&plan.units, &scan.census)? {
        let (simulated, unit) = simulated?;
        if simulated.outcome == SimulatedOutcome::Unneeded {
            done.insert(unit.number);
        }
    }
    if !done.is_empty() {
        plan.leave_out(&done)?;
    }
    Ok(())
}
