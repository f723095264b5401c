//! The storage recheck: a precheck of everything that a unit's decision depends on, just before it is changed.
//!
//! A check may be hours old when its decision is applied. The caller reaches the storage; this module knows which units need a precheck,
//! and what follows from it.

use std::collections::HashMap;

use crate::domain::{CheckResult, CheckVerdict, Comparison, Evidence, EvidenceCode, FindingKind};
use crate::plan::{Plan, Purpose, Unit};

/// Prechecks the storage of backups, each with the check that its unit depends on, in bounded time.
pub trait Precheck {
    /// Returns one answer for each check, in their order.
    fn precheck(&self, checks: &[&CheckResult]) -> Vec<Comparison>;
}

/// The check that a unit's decision depends on, if it depends on one.
pub fn deciding_check<'p>(plan: &'p Plan, unit: &Unit) -> Option<&'p CheckResult> {
    let is_pending = unit.kind == FindingKind::Backup && plan.policy.needs_check(unit.status.as_deref());
    let check = plan.check_of(unit).filter(|_| plan.purpose == Purpose::Repair && is_pending)?;
    // A check that could not be finished decides nothing.
    (check.verdict != CheckVerdict::Unverifiable).then_some(check)
}

/// The prechecks of a batch's units, by their numbers.
#[derive(Debug, Default)]
pub struct StorageRechecks(HashMap<usize, (Comparison, String)>);

impl StorageRechecks {
    /// Prechecks all units of a batch that depend on a check.
    pub fn of(storage: &dyn Precheck, plan: &Plan, batch: &[Unit]) -> Self {
        let (units, checks): (Vec<&Unit>, Vec<&CheckResult>) =
            batch.iter().filter_map(|unit| Some((unit, deciding_check(plan, unit)?))).unzip();
        if checks.is_empty() {
            return Self::default();
        }
        let looks = storage.precheck(&checks);
        let seen = units.iter().zip(&checks).zip(looks);
        Self(seen.map(|((unit, check), look)| (unit.number, (look, check.checked_at.clone()))).collect())
    }

    /// Why a unit must not be changed any more.
    pub fn change_of(&self, unit: &Unit) -> Option<String> {
        match self.0.get(&unit.number)? {
            (Comparison::Changed(what), at) => {
                Some(format!("its data on the storage has changed since it was checked at {at}: {what}; check it again"))
            }
            _ => None,
        }
    }

    /// The evidence for the audit log.
    pub fn evidence(&self, unit: &Unit) -> Option<Evidence> {
        let (look, at) = self.0.get(&unit.number)?;
        Some(match look {
            Comparison::Unchanged => Evidence::new(
                EvidenceCode::StorageUnchanged,
                format!("prechecked just before the change: unchanged since the check at {at}"),
            ),
            Comparison::Changed(what) => {
                Evidence::new(EvidenceCode::StorageMoved, format!("has changed since it was checked at {at}: {what}"))
            }
            Comparison::Unknown(why) => Evidence::new(
                EvidenceCode::StorageNotSeenAgain,
                format!("could not be prechecked just before the change ({why}); the check at {at} was relied on"),
            ),
        })
    }
}
