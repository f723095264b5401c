//! Checks a backup with the backups that it is based on.

use std::collections::BTreeMap;
use std::iter::once;
use std::sync::Arc;

use super::inspection::Inspection;
use super::inventory::{StoredBackup, prefix_of};
use super::options::ReadContext;
use super::planner::Member;
use super::reader::Pass;
use crate::domain::status::DELETING;
use crate::domain::{AncestorListings, Backup, CheckResult, CheckVerdict, Level, Problem, ProblemCode};
use crate::verify::{Severity, Subject};

/// The most damaged ancestors that are named with a backup, the nearest ones: in a chain they would grow with the square of its
/// length, and each has a result of its own.
pub(super) const MOST_PARENTS_NAMED: usize = 20;

/// Checks one backup whose chain is given, this backup first. `inspect` returns the inspection of a member at a level, which it may
/// have made before: a parent that many backups share is read once.
pub fn check(
    subject: &Subject<'_>,
    chain: &[StoredBackup<'_>],
    context: ReadContext<'_>,
    inspect: &mut dyn FnMut(&StoredBackup<'_>, Level) -> Inspection,
) -> CheckResult {
    let Some((tip, parents)) = chain.split_first() else {
        return subject.unread(CheckVerdict::Unverifiable, &subject.level.to_string(), Vec::new());
    };
    let level = if subject.level == Level::Deep { Level::Deep } else { Level::Quick };
    // Only a restore reads the lists of all members, and a chain can be long.
    let restore = subject.level == Level::Restore;
    let most = context.options.memory / 2;
    let mut inspection = inspect(tip, level);
    let mut list_bytes = inspection.list_bytes();
    let mut members: Vec<Inspection> = Vec::new();
    let mut damaged = DamagedParents::default();
    for parent in parents {
        let found = inspect(parent, level);
        damaged.add(parent.backup, &found, &mut inspection);
        list_bytes = list_bytes.saturating_add(found.list_bytes());
        inspection.rewritten |= found.rewritten;
        members.push(if restore && list_bytes <= most { found } else { found.without_list() });
    }
    damaged.add_unnamed(&mut inspection);
    inspection.below = below(parents, &members);
    if let (Some(bottom), Some(found)) = (parents.last(), members.last()) {
        inspection.compare_sha256files(tip, bottom, found);
    }
    check_lineage(subject, tip, parents, &mut inspection);
    if restore && list_bytes > most {
        let text = format!(
            "the lists of objects of all {} backups of its chain take {list_bytes} bytes, more than half of the memory: give more --memory",
            chain.len()
        );
        inspection.faults.add(Severity::Unverifiable, Problem::general(ProblemCode::TooLarge, text));
    } else if restore && !inspection.faults.has_inherited_damage() && inspection.inventory.is_some() {
        read_chain(chain, &mut inspection, &members, context);
    }
    inspection.into_result(subject)
}

/// Compares every block of the volume, as a restore of the whole chain would write it.
fn read_chain(chain: &[StoredBackup<'_>], inspection: &mut Inspection, parents: &[Inspection], context: ReadContext<'_>) {
    let mut members = Vec::new();
    for (stored, found) in chain.iter().zip(once(&*inspection).chain(parents)) {
        // If the list of a member could not be read, it is not known what the member holds.
        if let (Ok(store), Some(inventory)) = (&stored.store, found.inventory.as_ref().filter(|inventory| inventory.known)) {
            members.push(Member { store: Arc::clone(store), inventory: Arc::clone(inventory) });
        }
    }
    if members.len() != chain.len() {
        return;
    }
    inspection.bytes.expected = members.iter().fold(0, |sum: u64, member| sum.saturating_add(member.inventory.bytes()));
    inspection.objects.expected = members.iter().map(|member| member.inventory.entries.len() as u64).sum();
    inspection.add(Pass { members: &members, context, restore: true, full: false }.run());
}

/// The damaged parents of one backup.
#[derive(Default)]
struct DamagedParents {
    named: usize,
    unnamed: BTreeMap<Severity, usize>,
}

impl DamagedParents {
    /// Reports a parent that is not intact with the backup.
    fn add(&mut self, parent: &Backup, found: &Inspection, inspection: &mut Inspection) {
        let verdict = if found.absent { CheckVerdict::Missing } else { found.faults.inherited_verdict() };
        if verdict == CheckVerdict::Intact && found.verdict() != verdict {
            let first = found.faults.first().map(|problem| problem.text.as_str()).unwrap_or_default();
            let text = format!(
                "a restore is not affected by what is wrong with backup {}, which it is based on, as it reads only that backup's data: {first}",
                parent.id
            );
            inspection.warnings.push(Problem::general(ProblemCode::ParentSha256file, text));
        } else if verdict != CheckVerdict::Intact {
            let severity = if verdict == CheckVerdict::Unverifiable { Severity::Unverifiable } else { Severity::Corrupt };
            if self.named == MOST_PARENTS_NAMED {
                *self.unnamed.entry(severity).or_default() += 1;
                return;
            }
            self.named += 1;
            let first = found.faults.first_inherited().map(|problem| problem.text.as_str()).unwrap_or_default();
            let (state, code) = match severity == Severity::Unverifiable && found.faults.has_inherited_read_error() {
                true => ("unreadable".to_owned(), ProblemCode::ParentUnreadable),
                false => (verdict.to_string(), ProblemCode::ParentDamaged),
            };
            let text = format!("backup {}, which it is based on, is {state}: {first}", parent.id);
            inspection.faults.add(severity, Problem::general(code, text));
        }
    }

    /// Counts the parents that were not named.
    fn add_unnamed(self, inspection: &mut Inspection) {
        for (severity, more) in self.unnamed {
            let state = if severity == Severity::Unverifiable { "could not be verified" } else { "are damaged" };
            let text = format!("{more} more of the backups that it is based on {state}; `check --all` lists each with its problems");
            inspection.faults.add(severity, Problem::general(ProblemCode::ParentDamaged, text));
        }
    }
}

/// What the listings of the parents showed, if all of them could be listed.
fn below(parents: &[StoredBackup<'_>], members: &[Inspection]) -> Option<AncestorListings> {
    let mut below = AncestorListings::default();
    for (_, member) in parents.iter().zip(members).filter(|(parent, _)| prefix_of(parent.backup).is_some()) {
        below.add(member.listing?, member.times.known_newest());
    }
    (!parents.is_empty()).then_some(below)
}

/// Checks that the chain ends in a full backup, and that none of it is being deleted.
fn check_lineage(subject: &Subject<'_>, tip: &StoredBackup<'_>, parents: &[StoredBackup<'_>], inspection: &mut Inspection) {
    // cinder-backup continues the deletion when it starts, whatever is left of the data. Cinder permits that: an increment counts
    // for its parent only when it is finished.
    for parent in parents.iter().filter(|parent| parent.backup.status.as_deref() == Some(DELETING)) {
        let text = format!("backup {}, which it is based on, is being deleted: repair that backup first", parent.backup.id);
        inspection.faults.add(Severity::Unverifiable, Problem::general(ProblemCode::ParentDeleting, text));
    }
    if let Some(problem) = subject.parent_of_another_volume() {
        inspection.faults.add(Severity::Corrupt, problem);
    }
    let last = parents.last().unwrap_or(tip);
    if let Some(parent) = &last.backup.parent_id {
        let text = if *parent == tip.backup.id || subject.ancestors.iter().any(|ancestor| ancestor.id == *parent) {
            format!("its chain of parents leads back to backup {parent}, so it has no full backup at its end")
        } else {
            format!("backup {parent}, which it is based on, no longer exists")
        };
        inspection.faults.add(Severity::Incomplete, Problem::general(ProblemCode::ParentMissing, text));
    }
}
