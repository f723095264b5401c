//! What is known of the storage before a decision: check documents from other hosts, and a check of what a scan finds.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::targets::targets_of_findings;
use super::witness::add_witnesses;
use super::{Check, Database, Error, Observer, Result, VerifyKey, Wanted, WorkEvent, reading};
use crate::domain::record_stream::StreamError;
use crate::domain::status::AVAILABLE;
use crate::domain::{CheckResult, CheckVerdict, Checks, Level};
use crate::ledger::{self, Ledger, StoredResult};
use crate::scan::{KeptRows, ScanRequest, scan};
use crate::verify::check_document::merge;
use crate::verify::{Answer, CUT_OFF, StoredResults, Target};

fn shared(results: BTreeMap<String, CheckResult>) -> Checks {
    results.into_iter().map(|(id, result)| (id, Arc::new(result))).collect()
}

/// Reads what `check` wrote, or left behind when it was stopped, and finds the results that are wanted.
pub fn read_results(path: &Path, wanted: &mut dyn FnMut(&CheckResult) -> bool) -> Result<StoredResults> {
    let shown = path.display();
    let unreadable = |error: io::Error| Error::Unusable(format!("cannot read the evidence {shown}: {error}"));
    let file = crate::input::open_json(path).map_err(unreadable)?;
    StoredResults::read(file, wanted).map_err(|error| match error {
        StreamError::Io(error) => unreadable(error),
        error => Error::Unusable(format!("{shown} {error}")),
    })
}

/// The results of check documents about this database; `settle` is the settle time that they have to satisfy.
pub fn read_evidence(
    database: &Database,
    paths: &[PathBuf],
    key: Option<&VerifyKey>,
    settle: u64,
    observer: &dyn Observer,
) -> Result<Checks> {
    let mut all = Vec::new();
    for path in paths {
        if ledger::is_sqlite(path) {
            all.extend(ledger_evidence(database, path, key, settle)?);
            continue;
        }
        // The others are not needed, and there may be a million of them.
        let stored =
            read_results(path, &mut |check| check.rows.first().is_none_or(|row| row.value("status").as_text() != Some(AVAILABLE)))?;
        if let Some(key) = key {
            key.verify(&format!("the evidence {}", path.display()), &stored.sha256, stored.signature.as_ref())?;
            // Each line is signed, so a file that was cut would be verified, too, and could lack a later result.
            if stored.interrupted.as_deref() == Some(CUT_OFF) {
                let problem =
                    format!("the evidence {} has no closing record: the check was cut off, or its end was removed", path.display());
                return Err(Error::Signature(format!("{problem}; finish the check with --resume")));
            }
        }
        database.require_identity(&format!("the evidence {} is about the database", path.display()), &stored.head.database)?;
        if let Some(why) = &stored.interrupted {
            observer.event(WorkEvent::Warning(format!("the check in {} was stopped early: {why}", path.display())));
        }
        let read = stored.each(settle, &mut |check| all.push(check));
        read.map_err(|error| Error::Unusable(format!("{} {error}", path.display())))?;
    }
    Ok(shared(merge(all)))
}

/// The results that a ledger keeps about backups of this database, apart from available ones, about which nothing is decided.
fn ledger_evidence(database: &Database, path: &Path, key: Option<&VerifyKey>, settle: u64) -> Result<Vec<CheckResult>> {
    if key.is_some() {
        return Err(Error::Signature(format!("the evidence {} is a ledger, which has no signature", path.display())));
    }
    let ledger = Ledger::open(path, false)?;
    database.require_identity(&format!("the evidence {} is about the database", path.display()), &ledger.database()?)?;
    let mut all = Vec::new();
    let read = ledger.evidence(&mut |StoredResult { mut result, settle: shorter }| {
        if shorter < settle {
            result.hold_to(settle);
        }
        all.push(result);
    });
    read.map_err(|error| error.of(path))?;
    Ok(all)
}

/// The backups that a scan finds and `checks` do not settle at this level.
pub fn unsettled_targets(
    database: &mut Database,
    wanted: &Wanted,
    checks: &Checks,
    level: Level,
    observer: &dyn Observer,
) -> Result<Vec<Target>> {
    let request = ScanRequest::new(&wanted.policy, &wanted.selection, KeptRows::Chains, checks);
    let scan = reading(observer, || scan(database.session.as_mut(), &database.schema, &request))?;
    if !wanted.may_be_empty {
        // Before a check that may take hours, not after it.
        wanted.require_matches(&scan.census, &scan.situation, observer)?;
    }
    let mut targets = targets_of_findings(&scan.document.findings, database.schema.columns)?;
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).datetime();
    targets.retain(|target| {
        !checks.get(&target.backup.id).is_some_and(|check| {
            check.settles(level)
                && !(wanted.policy.deletes() && check.needs_witness() && check.witness.is_none())
                && check.expired(now, wanted.policy.evidence_max_age_seconds).is_none()
                && check.outdated(&target.backup, &target.ancestors, target.columns).is_none()
        })
    });
    Ok(targets)
}

/// Checks backups, and adds the results to what is known. With `--to deleted`, it also looks for witnesses.
pub fn check_for_decision(
    check: Check,
    targets: Vec<Target>,
    known: Checks,
    database: &mut Database,
    wanted: &Wanted,
    observer: &dyn Observer,
) -> Result<Checks> {
    let mut results = Vec::new();
    let mut sink = |Answer { task, mut result, .. }: Answer| {
        result.rows.extend(task.target.rows_above());
        results.push(result);
    };
    check.clone().run(targets.into(), &mut sink, observer)?.completed()?;
    database.reconnect()?;
    if wanted.policy.deletes() {
        add_witnesses(check, &mut results, database, observer)?;
        database.reconnect()?;
    }
    // A deeper check finds no more where nothing is.
    let missing = |check: &CheckResult| check.verdict == CheckVerdict::Missing;
    let gone: HashSet<String> = results.iter().filter(|result| missing(result)).map(|result| result.id.clone()).collect();
    let known = known.into_values().filter(|check| !(missing(check) && gone.contains(&check.id)));
    // Merged, because a check at a lower level than the evidence does not take its damage back.
    Ok(shared(merge(known.map(Arc::unwrap_or_clone).chain(results))))
}
