//! What a scan found and a repair leaves alone: "nothing to change" must not be taken for "nothing hangs".

use std::collections::{BTreeMap, HashSet};

use super::ui::Ui;
use super::view::{LeftAlone, Refused};
use crate::domain::Verdict;
use crate::report::safe::terminal;
use crate::scan::Scan;

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

    /// Says it: in one sentence, and with `-vv` each with all of its evidence.
    pub fn tell(&self, ui: &Ui) {
        let Some(sentence) = self.sentence() else { return };
        ui.say(sentence);
        for left in self.left_alone.iter().filter(|_| ui.verbosity() > 1) {
            let (kind, name, why) = (left.kind.name(), left.name.as_deref().unwrap_or(""), left.evidence.join("; "));
            ui.say(terminal(&format!("  {kind} {} {name:?} is {}: {why}", left.id, left.verdict)));
        }
    }

    /// All of it in one sentence, with what can be done; `None` if there is nothing.
    pub fn sentence(&self) -> Option<String> {
        let mut numbers: BTreeMap<Verdict, usize> = BTreeMap::new();
        for left in &self.left_alone {
            *numbers.entry(left.verdict).or_default() += 1;
        }
        let mut parts: Vec<String> = numbers.into_iter().map(|(verdict, number)| format!("{number} {}", because(verdict))).collect();
        if self.left_out > 0 {
            parts.push(format!("{} more for another time, by --limit", self.left_out));
        }
        (!parts.is_empty()).then(|| format!("Left alone: {}.", parts.join("; ")))
    }
}

/// Why nothing is done about a verdict, and what would help.
fn because(verdict: Verdict) -> &'static str {
    match verdict {
        // Whatever else is stuck is either in the plan or refused.
        Verdict::Stuck => "in error (only verified data takes a backup out of that: --check deep)",
        Verdict::Uncertain => {
            "uncertain (somebody may be at work: --check deep makes available what was written to its end, --assume-dead HOST vouches that nobody is)"
        }
        Verdict::Busy => "busy (somebody is at work; wait for the end of that)",
        Verdict::Recent => "recent (younger than --older-than; wait)",
        Verdict::Inconsistent => "inconsistent (scan names the commands for that; --fix-counters puts counters right)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FindingKind;

    #[test]
    fn each_verdict_is_counted_once_with_what_would_help() {
        let left = |verdict| LeftAlone {
            kind: FindingKind::Backup,
            id: "b".into(),
            name: None,
            status: Some("creating".into()),
            verdict,
            reason: String::new(),
            evidence: Vec::new(),
        };
        assert_eq!(Skipped::default().sentence(), None);
        let all = Skipped { left_alone: [Verdict::Recent, Verdict::Uncertain, Verdict::Recent].map(left).into(), left_out: 3 };
        insta::assert_snapshot!(all.sentence().unwrap_or_default(), @"Left alone: 1 uncertain (somebody may be at work: --check deep makes available what was written to its end, --assume-dead HOST vouches that nobody is); 2 recent (younger than --older-than; wait); 3 more for another time, by --limit.");
    }
}
