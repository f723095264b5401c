//! Rows that are found or named but not changed: "nothing to change" must not be taken for "nothing is stuck".

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::domain::status::{ERROR, is_active};
use crate::domain::{FindingKind, Selection, Value, Verdict};
use crate::scan::Scan;

/// A row that was asked for and that nothing may be done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    pub reason: String,
}

/// A row that was found and that nothing was done about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// All that speaks for it, in words.
    #[serde(skip)]
    pub evidence: Vec<String>,
}

/// What a scan found and a repair leaves alone.
#[derive(Debug, Default)]
pub struct Skipped {
    /// The findings, but for those that are refused.
    pub left_alone: Vec<LeftAlone>,
    /// How many findings `--limit` left out.
    pub left_out: usize,
}

impl Skipped {
    /// What is neither in the plan nor among the refusals.
    pub fn of(scan: &Scan, refused: &[Refused]) -> Self {
        let told: HashSet<&str> = refused.iter().map(|refusal| refusal.id.as_str()).collect();
        let left = scan.document.findings.iter().filter(|finding| !finding.is_actionable() && !told.contains(finding.id.as_str()));
        let left_alone = left
            .map(|finding| LeftAlone {
                kind: finding.kind,
                id: finding.id.clone(),
                name: finding.name.clone(),
                status: finding.status.clone(),
                verdict: finding.verdict,
                reason: finding.evidence.first().map(|evidence| evidence.text.clone()).unwrap_or_default(),
                evidence: finding.evidence.iter().map(|evidence| evidence.text.clone()).collect(),
            })
            .collect();
        Self { left_alone, left_out: scan.document.left_out }
    }
}

/// Rows that were asked for and cannot be repaired: refused, or named and not stuck.
/// `planned`: the ids that units are about, if backups were named.
pub fn refusals(scan: &Scan, selection: &Selection, planned: HashSet<String>) -> Vec<Refused> {
    let named = !selection.backups.is_empty();
    let mut refused: Vec<Refused> = scan
        .document
        .findings
        .iter()
        .filter(|finding| !finding.is_actionable() && (finding.refusal.is_some() || named))
        .filter(|finding| !(finding.verdict == Verdict::Inconsistent && finding.refusal.is_none()))
        .map(|finding| Refused {
            id: finding.id.clone(),
            name: finding.name.clone(),
            reason: finding.refusal.clone().unwrap_or_else(|| {
                let why = finding.evidence.first().map_or("", |evidence| evidence.text.as_str());
                format!("{}: {why}", finding.verdict)
            }),
        })
        .collect();
    // An exit code of 0 must not mean that a named backup without a unit is in order.
    let told = refused.iter().map(|refusal| refusal.id.clone()).chain(planned).collect();
    refused.extend(unreported_backups(scan, &told));
    refused
}

/// Named backups that are not among those already reported, each with the reason.
pub fn unreported_backups(scan: &Scan, told: &HashSet<String>) -> Vec<Refused> {
    let left_out = scan.document.left_out > 0;
    let named = scan.census.idle.iter().chain(scan.census.kept.values()).filter(|backup| scan.named.contains(&backup.id));
    named
        .filter(|backup| !told.contains(&backup.id))
        .map(|backup| {
            let status = Value::from(backup.status.clone());
            let reason = if left_out {
                "beyond --limit".to_owned()
            } else if is_active(backup.status.as_deref()) && !scan.census.selected.contains(&backup.id) {
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
