//! Rows that are found or named but not changed: "nothing to change" must not be taken for "nothing is stuck".

use std::collections::{BTreeMap, HashSet};
use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::status::{ERROR, is_active};
use crate::domain::{Finding, FindingKind, Selection, Value, Verdict};
use crate::scan::{CompactIds, Scan};
use crate::spool::Spool;

/// A row that was asked for and that nothing may be done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    pub reason: String,
}

/// A row that was found and that nothing was done about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftAlone {
    /// The table that it is in.
    pub kind: FindingKind,
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    pub status: Option<String>,
    /// Why: `uncertain`, `busy`, `recent`, `inconsistent`, or `stuck` for a backup in error that only verified data helps.
    pub verdict: Verdict,
    pub reason: String,
}

/// What a scan found and a repair leaves alone.
#[derive(Debug, Default)]
pub struct Skipped {
    /// The findings, but for those that are refused.
    pub left_alone: Spool<LeftAlone>,
    /// All that speaks for each of them, in words.
    pub evidence: Spool<Vec<String>>,
    /// How many of them have which verdict.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// How many findings `--limit` left out.
    pub left_out: usize,
}

impl Skipped {
    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) -> io::Result<()> {
        let Finding { kind, id, name, status, verdict, evidence, .. } = finding;
        *self.verdicts.entry(verdict).or_default() += 1;
        let evidence: Vec<String> = evidence.into_iter().map(|evidence| evidence.text).collect();
        let reason = evidence.first().cloned().unwrap_or_default();
        self.evidence.push(&evidence)?;
        self.left_alone.push(&LeftAlone { kind, id, name, status, verdict, reason })
    }
}

/// Rows that were asked for and cannot be repaired: refused, or named and not stuck; and what else is neither in the plan nor among these.
/// `others` are the findings that are not in the plan, and `planned` the ids that units are about, if backups were named.
pub fn refusals(
    scan: &Scan,
    others: &Spool<Finding>,
    selection: &Selection,
    planned: &HashSet<String>,
) -> io::Result<(Spool<Refused>, Skipped)> {
    let has_names = !selection.backups.is_empty();
    let (mut refused, mut ids) = (Spool::default(), HashSet::new());
    for finding in others {
        let Finding { id, name, verdict, evidence, refusal, .. } = finding?;
        let reason = match refusal {
            Some(refusal) => refusal,
            None if has_names && verdict != Verdict::Inconsistent => {
                format!("{verdict}: {}", evidence.first().map_or("", |evidence| evidence.text.as_str()))
            }
            None => continue,
        };
        ids.insert(CompactIds::number(&id));
        refused.push(&Refused { id, name, reason })?;
    }
    // An exit code of 0 must not mean that a named backup without a unit is in order.
    for passed in unreported_backups(scan, &|id| planned.contains(id) || ids.contains(&CompactIds::number(id))) {
        ids.insert(CompactIds::number(&passed.id));
        refused.push(&passed)?;
    }
    let mut skipped = Skipped { left_out: scan.document.left_out, ..Skipped::default() };
    for finding in others {
        let finding = finding?;
        if !ids.contains(&CompactIds::number(&finding.id)) {
            skipped.add(finding)?;
        }
    }
    Ok((refused, skipped))
}

/// Named backups that are not among those already reported, each with the reason.
pub fn unreported_backups(scan: &Scan, is_told: &dyn Fn(&str) -> bool) -> Vec<Refused> {
    let left_out = scan.document.left_out > 0;
    let named = scan.census.named.iter();
    named
        .filter(|backup| !is_told(&backup.id))
        .map(|backup| {
            let status = Value::from(backup.status.clone());
            let reason = if left_out {
                "beyond --limit".to_owned()
            } else if is_active(backup.status.as_deref()) && !backup.is_selected {
                format!("its status is {status}, but other options exclude it")
            } else if backup.status.as_deref() == Some(ERROR) {
                "its status is error: only --check deep that finds its data intact, or --to available with --allow-unverified, changes it"
                    .to_owned()
            } else {
                format!("its status is {status}: nothing to repair")
            };
            Refused { id: backup.id.clone(), name: backup.display_name.clone(), reason }
        })
        .collect()
}
