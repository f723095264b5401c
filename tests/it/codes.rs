//! docs/codes.md against the tables in the source: `UPDATE_DOCS=1 cargo test --test it codes` writes it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use cinder_backup_repair::audit::LogProblemCode;
use cinder_backup_repair::domain::{CodeSet, EvidenceCode, ProblemCode};
use cinder_backup_repair::scan::NoticeCode;

use crate::servers::root;

const HEAD: &str = "# Codes

The JSON documents give a code for each reason, problem and notice, next to a text. The texts may change, the codes do not. This page is
generated from the source: every code is listed, with its meaning and what to do.
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

#[test]
fn the_page_lists_every_code() {
    let page = [
        HEAD.to_owned(),
        section::<EvidenceCode>(
            "Evidence",
            "`evidence` of a finding (`scan`), of a unit (`plan`, audit log), and `last_look` of a result (`apply`, `repair`).",
        ),
        section::<ProblemCode>(
            "Problems and warnings of a check",
            "`problems` and `warnings` of a result of `check`. A problem decides the verdict, a warning does not change it. A few \
             codes are used for both.",
        ),
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
