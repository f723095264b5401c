//! The last look at the storage before a unit is changed.
//!
//! A decision that rests on a check rests on what the storage was like then, which may be hours ago. How the storage is
//! reached is the caller's: here is only which units need the look, and what becomes of them.

use std::collections::HashMap;

use crate::domain::status::{CREATING, ERROR};
use crate::domain::{CheckResult, CheckVerdict, Evidence, EvidenceCode, FindingKind, Look};
use crate::plan::{Plan, Purpose, Unit};

/// Looks at the storage of backups, each of them with the check that its unit rests on; ends in bounded time.
pub trait Precheck {
    /// One answer for each, in their order.
    fn precheck(&self, checks: &[&CheckResult]) -> Vec<Look>;
}

/// What a unit's decision rests on, if the storage has a say in it.
pub fn deciding_check<'p>(plan: &'p Plan, unit: &Unit) -> Option<&'p CheckResult> {
    let is_pending = unit.kind == FindingKind::Backup && matches!(unit.status.as_deref(), Some(CREATING | ERROR));
    let check = plan.check_of(unit).filter(|_| plan.purpose == Purpose::Repair && is_pending)?;
    // A check that could not be finished decides nothing.
    (check.verdict != CheckVerdict::Unverifiable).then_some(check)
}

/// What was seen of a batch's units, by their numbers.
#[derive(Debug, Default)]
pub struct StorageRechecks(HashMap<usize, (Look, String)>);

impl StorageRechecks {
    /// Looks at the storage of all units of a batch that rest on it.
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

    /// Why a unit is not to be changed any more.
    pub fn change_of(&self, unit: &Unit) -> Option<String> {
        match self.0.get(&unit.number)? {
            (Look::Moved(what), at) => {
                Some(format!("its data on the storage has changed since it was checked at {at}: {what}; check it again"))
            }
            _ => None,
        }
    }

    /// What the audit log is to say about it.
    pub fn evidence(&self, unit: &Unit) -> Option<Evidence> {
        let (look, at) = self.0.get(&unit.number)?;
        Some(match look {
            Look::Same => Evidence::new(
                EvidenceCode::StorageUnchanged,
                format!("looked at once more just before the change: as it was checked at {at}"),
            ),
            Look::Moved(what) => Evidence::new(EvidenceCode::StorageMoved, format!("has changed since it was checked at {at}: {what}")),
            Look::Unseen(why) => Evidence::new(
                EvidenceCode::StorageNotSeenAgain,
                format!("could not be looked at once more just before the change ({why}); what it was at {at} was relied on"),
            ),
        })
    }
}
