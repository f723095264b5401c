//! Sentences that sum up a result.

use std::io;

use super::Ui;
use crate::domain::text::count;
use crate::domain::{Selection, Tally, Verdict};
use crate::plan::Plan;
use crate::scan::ScanDocument;
use crate::workflow::{LeftAlone, Skipped};

/// A summary in words, and how much of it a limit shows. It covers only the selection.
pub fn scan(document: &ScanDocument, selection: &Selection) -> String {
    let summary = &document.summary;
    let parts = counted(&[
        (summary.stuck, "stuck"),
        (summary.uncertain, "uncertain"),
        (summary.busy, "busy"),
        (summary.recent, "recent"),
        (summary.inconsistent, "inconsistent"),
    ]);
    if parts.is_empty() {
        let what = if selection.is_all() { "Nothing" } else { "Nothing selected" };
        return format!("{what} is stuck or inconsistent");
    }
    let (shown, words) = (summary.total() - document.left_out, parts.join(", "));
    if document.left_out == 0 { words } else { format!("{words}; --limit keeps {shown}") }
}

/// Each number that is not 0, with its word.
pub fn counted(counts: &[(usize, &str)]) -> Vec<String> {
    counts.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}")).collect()
}

pub fn tally(tally: &Tally) -> String {
    let parts = counted(&[
        (tally.applied, "applied"),
        (tally.planned, "planned"),
        (tally.changed, "changed meanwhile"),
        (tally.refused, "refused"),
        (tally.failed, "failed"),
        (tally.unknown, "unknown"),
        (tally.not_begun, "not begun"),
    ]);
    if parts.is_empty() { "nothing done".to_owned() } else { parts.join(", ") }
}

/// Warns of backups that become available although none of their data was read.
pub fn warn_of_quick(ui: &Ui, plan: &Plan) -> io::Result<()> {
    let mut number = 0;
    if plan.policy.accept_quick {
        for unit in &plan.units {
            number += usize::from(unit?.is_accepted_quick());
        }
    }
    if number > 0 {
        let (verb, their) = if number == 1 { ("becomes", "its") } else { ("become", "their") };
        ui.warn(format!(
            "{} {verb} available on a quick check alone, which reads none of {their} data (--accept-quick)",
            count(number, "backup")
        ));
    }
    Ok(())
}

/// Says what is left alone; with `-vv` each row with all of its evidence.
pub fn say_skipped(ui: &Ui, all: &Skipped) -> io::Result<()> {
    let Some(sentence) = skipped(all) else { return Ok(()) };
    ui.say(sentence);
    if ui.verbose > 1 {
        for (left, evidence) in all.left_alone.iter().zip(&all.evidence) {
            let LeftAlone { kind, id, name, verdict, .. } = left?;
            ui.say(format!("  {kind} {id} {:?} is {verdict}: {}", name.as_deref().unwrap_or(""), evidence?.join("; ")));
        }
    }
    Ok(())
}

/// What is left alone in one sentence, with what can be done; `None` if nothing is.
fn skipped(skipped: &Skipped) -> Option<String> {
    let mut parts: Vec<String> = skipped.verdicts.iter().map(|(verdict, number)| format!("{number} {}", because(*verdict))).collect();
    if skipped.left_out > 0 {
        parts.push(format!("{} more beyond --limit", skipped.left_out));
    }
    (!parts.is_empty()).then(|| format!("Skipped: {}.", parts.join("; ")))
}

/// Why nothing is done about a verdict, and what would help.
fn because(verdict: Verdict) -> &'static str {
    match verdict {
        // Other stuck backups are in the plan or refused.
        Verdict::Stuck => "in error (only verified data makes it available: use --check deep)",
        Verdict::Uncertain => {
            "uncertain (a service may still work on it: --check deep makes completely written backups available, --assume-dead HOST asserts that the service is down)"
        }
        Verdict::Busy => "busy (a service is working on it; wait until it is done)",
        Verdict::Recent => "recent (younger than --older-than; wait)",
        Verdict::Inconsistent => "inconsistent (scan lists the commands for it; --fix-counters corrects counters, --fix-quotas quotas)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_is_counted_once_with_what_would_help() {
        assert_eq!(skipped(&Skipped::default()), None);
        let all = Skipped { verdicts: [(Verdict::Recent, 2), (Verdict::Uncertain, 1)].into(), left_out: 3, ..Skipped::default() };
        insta::assert_snapshot!(skipped(&all).unwrap_or_default(), @"Skipped: 1 uncertain (a service may still work on it: --check deep makes completely written backups available, --assume-dead HOST asserts that the service is down); 2 recent (younger than --older-than; wait); 3 more beyond --limit.");
    }
}
