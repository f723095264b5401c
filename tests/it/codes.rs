//! docs/codes.md against the tables in the source: `UPDATE_DOCS=1 cargo test --test it codes` writes it.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::fs;

use cinder_backup_repair::audit::LogProblemCode;
use cinder_backup_repair::domain::{CheckVerdict, CodeSet, EvidenceCode, Need, Outcome, ProblemCode, RestoreCode, Verdict};
use cinder_backup_repair::scan::NoticeCode;
use cinder_backup_repair::verify::orphans::OrphanKind;

use crate::servers::root;

const HEAD: &str = "# Codes

The JSON documents give a code for each reason, problem and notice, next to a text, and a word for each verdict and outcome. The texts may
change, the codes and words do not. This page is generated from the source: every code is listed, with its meaning and what to do.
";

/// One set of codes as a section with a table.
fn section<S: CodeSet>(title: &str, introduction: &str) -> String {
    let mut text = format!("\n## {title}\n\n{introduction}\n\n| code | meaning | what to do |\n|---|---|---|\n");
    let codes: BTreeSet<&str> = S::ALL.iter().map(|code| code.entry().code).collect();
    assert!(S::ALL.iter().map(|code| code.entry().code).eq(codes), "{title}: a code twice, or not in alphabetical order");
    for entry in S::ALL.iter().map(|code| code.entry()) {
        let is_sentence = |text: &str| {
            (text.starts_with(|c: char| !c.is_lowercase()) || text.starts_with("cinder-backup "))
                && text.ends_with('.')
                && !text.contains(['|', '\n'])
        };
        assert!([entry.meaning, entry.action].into_iter().all(is_sentence), "{entry:?}");
        writeln!(text, "| `{}` | {} | {} |", entry.code, entry.meaning, entry.action).unwrap();
    }
    text
}

/// One set of words as a section with a table.
fn words<T: Copy + Display>(title: &str, introduction: &str, all: &[T], meaning: fn(T) -> &'static str) -> String {
    let rows: String = all.iter().map(|word| format!("| `{word}` | {} |\n", meaning(*word))).collect();
    format!("\n## {title}\n\n{introduction}\n\n| word | meaning |\n|---|---|\n{rows}")
}

/// The compiler demands a meaning for a new verdict.
fn meaning_of_verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Stuck => "Old enough, and no service can be working on it. It can be repaired.",
        Verdict::Uncertain => {
            "Old enough, but a service may be working on it. It is repaired only if a check or `--assume-dead` allows it."
        }
        Verdict::Busy => "The storage shows that the operation is still running. It is left alone.",
        Verdict::Recent => "Too young to be judged. It is left alone.",
        Verdict::Inconsistent => "No operation is pending, but rows contradict each other.",
    }
}

fn meaning_of_check(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::Intact => {
            "Everything that the level reads exists and is correct. `level_reached` names the deepest level that is proven."
        }
        CheckVerdict::Incomplete => "Part of the data is missing.",
        CheckVerdict::Corrupt => "All of the data exists, and part of it is wrong.",
        CheckVerdict::Missing => "Nothing of the backup is on the storage.",
        CheckVerdict::Unverifiable => "The check could not be finished. The problems say why; the data may be intact.",
    }
}

fn meaning_of_outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "The transaction was committed.",
        Outcome::Planned => "In a dry run: the unit would be applied.",
        Outcome::Changed => "A row has changed since the plan was made. Nothing of the unit was written.",
        Outcome::Refused => "A rule forbids the change now. Nothing of the unit was written.",
        Outcome::Failed => "The database reported an error. Nothing of the unit was written.",
        Outcome::Unknown => "The connection was lost during COMMIT, and the rows do not show the outcome. Run `history reconcile`.",
        Outcome::NotBegun => "The run ended before the turn of the unit. Nothing of it was written.",
    }
}

#[test]
fn the_page_lists_every_code() {
    let need = serde_json::to_value(Need::StorageCheck).unwrap();
    let page = [
        HEAD.to_owned(),
        words(
            "Verdicts of a scan",
            "`verdict` of a finding.",
            &[Verdict::Stuck, Verdict::Uncertain, Verdict::Busy, Verdict::Recent, Verdict::Inconsistent],
            meaning_of_verdict,
        ),
        words(
            "Verdicts of a check",
            "`verdict` of a result of `check`.",
            &[CheckVerdict::Intact, CheckVerdict::Incomplete, CheckVerdict::Corrupt, CheckVerdict::Missing, CheckVerdict::Unverifiable],
            meaning_of_check,
        ),
        words(
            "Outcomes of a unit",
            "`outcome` of a result of `apply`, `repair` and `undo`, and in the audit log.",
            &[
                Outcome::Applied,
                Outcome::Planned,
                Outcome::Changed,
                Outcome::Refused,
                Outcome::Failed,
                Outcome::Unknown,
                Outcome::NotBegun,
            ],
            meaning_of_outcome,
        ),
        format!(
            "\n## Needs of a proposal\n\n`needs` of a proposal.\n\n| word | meaning |\n|---|---|\n| `{}` | The data was not checked. A check \
             may show that the backup can become `available`: run `check`, then `plan --evidence`. |\n",
            need.as_str().unwrap()
        ),
        section::<EvidenceCode>(
            "Evidence",
            "`evidence` of a finding (`scan`), of a unit (`plan`, audit log), and `last_look` of a result (`apply`, `repair`).",
        ),
        section::<ProblemCode>(
            "Problems and warnings of a check",
            "`problems` and `warnings` of a result of `check`. A problem decides the verdict, a warning does not change it. A few \
             codes are used for both.",
        ),
        section::<RestoreCode>("Restorable", "`restorable_reasons` of a result of `check`: why `restorable` is `no` or `unknown`."),
        section::<OrphanKind>("Orphans", "`kind` of an orphan and of a count in the summary of `check --orphans`."),
        section::<NoticeCode>("Notices of a scan", "`notices` in the document of `scan`."),
        section::<LogProblemCode>("Problems of the audit log", "`problems` in the document of `history verify`."),
    ]
    .concat();
    let path = root().join("docs/codes.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page).unwrap();
        return;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(page == written, "docs/codes.md is not what the source says; run this test with UPDATE_DOCS=1");
}
