//! Decisions: from a case to a finding.
//!
//! Each function takes a case, which holds everything that the decision depends on, and returns a [`Finding`]. The same functions run when a
//! plan is made and, over rows under lock, when it is applied.

mod background;
mod backup;
mod counter;
mod deletion;
mod leftover;
mod quota;
mod rehost;
mod row_conflicts;
mod verdict;
mod volume;

pub use background::{Background, HostQueue, UserMessage, UserMetadata, add_background};
pub use backup::{BackupCase, backup};
pub use counter::{Children, CounterCase, broken_chain, counter};
pub use deletion::Deletion;
pub use leftover::{SnapshotCase, VolumeCase, attachment, snapshot, temporaries, volume as left_volume};
pub use quota::{QuotaCase, quota};
pub use rehost::{NewHostProblem, RehostCase, find_new_host_problem, is_retired, rehost};
pub use row_conflicts::{OtherBackups, conflicts_in, frees_row_of_silent_host, may_be_marked_for_another, row_conflicts};

use super::text::shell_word;
use super::{Backup, Change, Finding, FindingKind, Image, Proposal, Table, Value, Verdict};

/// Another backup that may use the same volume or snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: String,
    pub status: Option<String>,
    /// Its volume, unless it marks a snapshot instead.
    pub volume_id: Option<String>,
    /// Its snapshot, if it is the backup of one.
    pub snapshot_id: Option<String>,
    /// The volume that it is restored to.
    pub restore_volume_id: Option<String>,
    /// It is stuck itself, and is repaired before the row in question.
    pub released: bool,
}

/// A command for one row, ready to be pasted. An id that begins with a dash is not taken for an option.
fn command(words: &str, id: &str) -> String {
    command_over(words, &[id])
}

/// A command for several rows.
fn command_over(words: &str, ids: &[&str]) -> String {
    let end_of_options = if ids.iter().any(|id| id.starts_with('-')) { " --" } else { "" };
    let ids: Vec<String> = ids.iter().copied().map(shell_word).collect();
    format!("{words}{end_of_options} {}", ids.join(" "))
}

/// A command that deletes something, as a comment: it does not run if all lines are pasted at once.
fn last_resort(when: &str, command: &str) -> String {
    format!("# {when}: {command}")
}

/// Commands for a volume that a restore has left half written. It may have been in use long before the restore, so the first choice is to
/// restore into it again. `backup` is the backup that can be restored, if it is known.
fn half_restored(volume: &str, backup: Option<&str>) -> Vec<String> {
    let delete = command("openstack volume delete", volume);
    match backup {
        Some(backup) => {
            // Cinder restores only into a volume that is available, and the client needs --force for one that exists.
            let set = command("openstack volume set --state available", volume);
            let restore = command_over("openstack volume backup restore --force", &[backup, volume]);
            vec![set, restore, last_resort("or, if the volume is no longer needed", &delete)]
        }
        None => vec![
            command("openstack volume show", volume),
            last_resort("restore a backup into it again, or, if the volume is no longer needed", &delete),
        ],
    }
}

/// A finding without details.
fn new_finding(kind: FindingKind, id: &str, verdict: Verdict) -> Finding {
    Finding { kind, id: id.to_owned(), verdict, ..Finding::default() }
}

/// A finding about a backup, without reasons.
fn about_backup(backup: &Backup, verdict: Verdict) -> Finding {
    Finding {
        name: backup.display_name.clone(),
        status: backup.status.clone(),
        host: backup.host.clone(),
        service: backup.service.clone(),
        project_id: backup.project_id.clone(),
        volume_id: backup.volume_id.clone(),
        ..new_finding(FindingKind::Backup, &backup.id, verdict)
    }
}

/// Adds a change of one column, unless the column has that value already.
fn change(changes: &mut Vec<Change>, image: &Image, column: &str, to: impl Into<Value>) {
    let (from, to) = (image.value(column).clone(), to.into());
    if from != to {
        changes.push(Change { table: image.table, id: image.id.clone(), column: column.to_owned(), from, to });
    }
}

/// Proposes changes, or refuses them if one of their rows cannot be changed: see [`Backup::unchangeable`].
fn propose_or_refuse<'a>(finding: &mut Finding, proposal: Proposal, rows: impl IntoIterator<Item = (Table, &'a str, Option<&'a str>)>) {
    let changed = |table, id| proposal.changes.iter().any(|change| change.is_of(table, id));
    let unchangeable = rows.into_iter().find_map(|(table, id, unchangeable)| unchangeable.filter(|_| changed(table, id)));
    finding.refusal = unchangeable.map(str::to_owned);
    if unchangeable.is_some() {
        finding.follow_up.clear();
    } else {
        finding.proposal = Some(proposal);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
