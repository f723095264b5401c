//! Sentences that sum up a result.

use std::collections::BTreeMap;

use super::ui::Ui;
use crate::domain::{Selection, Tally, Verdict};
use crate::plan::Plan;
use crate::report::safe::terminal;
use crate::scan::ScanDocument;
use crate::workflow::Skipped;

/// A summary in words, and how much of it a limit shows. Of what was not asked for it says nothing.
pub fn scan(document: &ScanDocument, selection: &Selection) -> String {
    let summary = &document.summary;
    let parts: Vec<String> = [
        (summary.stuck, "stuck"),
        (summary.uncertain, "uncertain"),
        (summary.busy, "busy"),
        (summary.recent, "recent"),
        (summary.inconsistent, "inconsistent"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, word)| format!("{number} {word}"))
    .collect();
    if parts.is_empty() {
        let what = if selection.is_all() { "Nothing" } else { "Nothing of what was asked for" };
        return format!("{what} is stuck or inconsistent");
    }
    let (shown, words) = (document.findings.len(), parts.join(", "));
    if document.left_out == 0 { words } else { format!("{words}, of which --limit takes {shown}") }
}

/// `1 unit`, `2 units`.
pub fn units(number: usize) -> String {
    if number == 1 { "1 unit".to_owned() } else { format!("{number} units") }
}

/// `1 backup`, `2 backups`.
pub fn backups(number: usize) -> String {
    if number == 1 { "1 backup".to_owned() } else { format!("{number} backups") }
}

/// A tally in words.
pub fn tally(tally: &Tally) -> String {
    let parts: Vec<String> = [
        (tally.applied, "applied"),
        (tally.planned, "planned"),
        (tally.changed, "changed meanwhile"),
        (tally.refused, "refused"),
        (tally.failed, "failed"),
        (tally.unknown, "unknown"),
        (tally.not_begun, "not begun"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, word)| format!("{number} {word}"))
    .collect();
    if parts.is_empty() { "nothing done".to_owned() } else { parts.join(", ") }
}

/// Warns of backups that become available although none of their data was read.
pub fn warn_of_quick(ui: &Ui, plan: &Plan) {
    let number = plan.units.iter().filter(|unit| unit.is_accepted_quick()).count();
    if number > 0 {
        let (verb, their) = if number == 1 { ("becomes", "its") } else { ("become", "their") };
        ui.warn(format!("{} {verb} available on a quick check alone, which reads none of {their} data (--accept-quick)", backups(number)));
    }
}

/// Says what is left alone; with `-vv` each row with all of its evidence.
pub fn say_skipped(ui: &Ui, all: &Skipped) {
    let Some(sentence) = skipped(all) else { return };
    ui.say(sentence);
    for left in all.left_alone.iter().filter(|_| ui.verbosity() > 1) {
        let (kind, name, why) = (left.kind.name(), left.name.as_deref().unwrap_or(""), left.evidence.join("; "));
        ui.say(terminal(&format!("  {kind} {} {name:?} is {}: {why}", left.id, left.verdict)));
    }
}

/// What is left alone in one sentence, with what can be done; `None` if nothing is.
fn skipped(skipped: &Skipped) -> Option<String> {
    let mut numbers: BTreeMap<Verdict, usize> = BTreeMap::new();
    for left in &skipped.left_alone {
        *numbers.entry(left.verdict).or_default() += 1;
    }
    let mut parts: Vec<String> = numbers.into_iter().map(|(verdict, number)| format!("{number} {}", because(verdict))).collect();
    if skipped.left_out > 0 {
        parts.push(format!("{} more for another time, by --limit", skipped.left_out));
    }
    (!parts.is_empty()).then(|| format!("Left alone: {}.", parts.join("; ")))
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
    use crate::workflow::LeftAlone;

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
        assert_eq!(skipped(&Skipped::default()), None);
        let all = Skipped { left_alone: [Verdict::Recent, Verdict::Uncertain, Verdict::Recent].map(left).into(), left_out: 3 };
        insta::assert_snapshot!(skipped(&all).unwrap_or_default(), @"Left alone: 1 uncertain (somebody may be at work: --check deep makes available what was written to its end, --assume-dead HOST vouches that nobody is); 2 recent (younger than --older-than; wait); 3 more for another time, by --limit.");
    }
}
