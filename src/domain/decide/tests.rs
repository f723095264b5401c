//! The decisions against their contract: a line for each row of its tables, every combination of states, and a model of the database in
//! which changes are made and undone.

mod deletion;
mod exhaustive;
mod faults;
mod leftovers;
mod model;
mod quota;
mod rehost;
mod storage;
mod table;

use std::collections::BTreeSet;
use std::process::Command;

use super::*;
use crate::domain::status::{AVAILABLE, BACKING_UP, CREATING, DELETING, ERROR, ERROR_DELETING, IN_USE, RESTORING, RESTORING_BACKUP};
use crate::domain::time::parse;
use crate::domain::transitions::{Direction, is_allowed};
use crate::domain::{
    AssumeDead, Attachment, Backup, ColumnSet, Finding, Policy, ServiceRow, Services, Situation, Snapshot, Table, Verdict, Volume,
};
use jiff::civil::DateTime;

/// Two hours, in seconds: old by the default of `--older-than`.
const OLD: i64 = 7_200;
/// A host without a service.
const GONE: &str = "gone";
/// A driver that writes chunks.
const POSIX: &str = "cinder.backup.drivers.posix.PosixBackupDriver";
/// The driver whose backups cannot be restored without service_metadata.
const CEPH: &str = "cinder.backup.drivers.ceph.CephBackupDriver";

fn now() -> DateTime {
    parse("2026-11-22 12:00:00").unwrap()
}

/// A database time some seconds ago; with a negative number, in the future.
fn ago(seconds: i64) -> String {
    now().checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn beats(host: &str, updated_at: Option<String>) -> ServiceRow {
    ServiceRow { host: host.into(), updated_at, ..ServiceRow::default() }
}

/// The hosts `up`, `down`, `ahead` (its clock), `never` (has beaten), `odd` (its beat cannot be read), and two whose rows were
/// removed: `removed` a moment ago, `retired` long ago.
fn services() -> Services {
    Services::new(&[
        beats("up", Some(ago(10))),
        beats("down", Some(ago(OLD))),
        beats("ahead", Some(ago(-300))),
        beats("never", None),
        beats("odd", Some("a moment ago".into())),
        ServiceRow { deleted: true, ..beats("removed", Some(ago(3))) },
        ServiceRow { deleted: true, ..beats("retired", Some(ago(OLD))) },
    ])
}

fn situation() -> Situation {
    Situation {
        now: now(),
        server_uptime_seconds: Some(1_000_000),
        services: services(),
        columns: ColumnSet::Mitaka,
        has_attachments: true,
    }
}

/// A backup `b` of volume `v`, old, on a host that is down.
fn a_backup(status: Option<&str>) -> Backup {
    Backup {
        id: "b".into(),
        status: status.map(Into::into),
        host: Some("down".into()),
        service: Some(POSIX.into()),
        volume_id: Some("v".into()),
        size: Some(1),
        created_at: Some(ago(OLD)),
        updated_at: Some(ago(OLD)),
        ..Backup::default()
    }
}

fn a_volume(id: &str, status: Option<&str>, previous: Option<&str>) -> Volume {
    Volume {
        id: id.into(),
        status: status.map(Into::into),
        previous_status: previous.map(Into::into),
        created_at: Some(ago(OLD)),
        updated_at: Some(ago(OLD)),
        ..Volume::default()
    }
}

fn a_snapshot(status: Option<&str>) -> Snapshot {
    Snapshot {
        id: "s".into(),
        status: status.map(Into::into),
        volume_id: Some("v".into()),
        created_at: Some(ago(OLD)),
        updated_at: Some(ago(OLD)),
        ..Snapshot::default()
    }
}

fn an_attachment(server: Option<&str>, host: &str, status: &str) -> Attachment {
    Attachment {
        id: format!("attachment-{host}-{status}"),
        volume_id: "v".into(),
        instance_uuid: server.map(Into::into),
        attached_host: Some(host.into()),
        attach_status: Some(status.into()),
    }
}

fn a_case(backup: Backup) -> BackupCase {
    BackupCase {
        backup,
        volume: None,
        destination: None,
        snapshot: None,
        parent: None,
        ancestors: Vec::new(),
        siblings: Children::default(),
        attachments: Vec::new(),
        conflicts: Vec::new(),
        peers: Vec::new(),
        volume_is_temporary: false,
        check: None,
        deletion: None,
    }
}

fn a_peer(id: &str, status: &str) -> Peer {
    Peer {
        id: id.into(),
        status: Some(status.into()),
        volume_id: Some("v".into()),
        snapshot_id: None,
        restore_volume_id: None,
        released: false,
    }
}

/// A finding in one line: the verdict, the code of its first evidence, the changes or the refusal.
fn said(finding: &Finding) -> String {
    let code = finding.evidence.first().map_or("", |evidence| evidence.code.as_str());
    let what = match (&finding.proposal, &finding.refusal) {
        (Some(proposal), None) => {
            let show = |value: &Value| value.as_integer().map_or_else(|| value.as_text().unwrap_or("NULL").to_owned(), |n| n.to_string());
            let changes: Vec<String> = proposal
                .changes
                .iter()
                .filter(|change| change.column != "fail_reason")
                .map(|change| match change.column.as_str() {
                    "status" => format!("{} {} -> {}", change.id, show(&change.from), show(&change.to)),
                    column => format!("{} {column} {} -> {}", change.id, show(&change.from), show(&change.to)),
                })
                .collect();
            changes.join(", ")
        }
        (None, Some(_)) => "refused".to_owned(),
        (None, None) => "nothing".to_owned(),
        (Some(_), Some(_)) => panic!("both a proposal and a refusal: {finding:?}"),
    };
    format!("{} ({code}): {what}", finding.verdict)
}

fn codes(finding: &Finding) -> Vec<&str> {
    finding.evidence.iter().map(|evidence| evidence.code.as_str()).collect()
}

/// Decides, and asserts what holds for every backup in any state.
fn decided(case: &BackupCase, situation: &Situation, policy: &Policy) -> Finding {
    let finding = backup(case, situation, policy);
    let context = || format!("{case:?}\n{policy:?}\n{finding:?}");
    sound(&finding, &context);
    let repairable = match case.backup.status.as_deref() {
        None | Some(CREATING | RESTORING | DELETING | ERROR_DELETING) => true,
        Some(ERROR) => policy.to.as_deref() == Some(AVAILABLE),
        Some(_) => false,
    };
    let answers = usize::from(finding.proposal.is_some()) + usize::from(finding.refusal.is_some());
    let expected = usize::from(repairable && matches!(finding.verdict, Verdict::Stuck | Verdict::Uncertain));
    assert_eq!(answers, expected, "one allowed change or a refusal: {}", context());
    assert_eq!(finding.is_actionable(), finding.verdict == Verdict::Stuck && finding.proposal.is_some(), "{}", context());
    let Some(proposal) = &finding.proposal else { return finding };
    let columns = situation.columns;
    let volumes = || case.volume.iter().chain(&case.destination);
    for change in &proposal.changes {
        let image = match change.table {
            Table::Backups if change.id == case.backup.id => case.backup.image(columns),
            Table::Backups => {
                assert_eq!(change.column, "num_dependent_backups", "a parent's counter and nothing else: {}", context());
                case.parent.as_ref().filter(|parent| parent.id == change.id).unwrap().image(columns)
            }
            Table::Volumes => volumes().find(|volume| volume.id == change.id).unwrap().image(columns),
            Table::BackupMetadata | Table::QuotaUsages | Table::Reservations => unreachable!("only a deletion changes them"),
            Table::Snapshots => case.snapshot.as_ref().filter(|snapshot| snapshot.id == change.id).unwrap().image(),
        };
        assert!(image.columns.contains_key(&change.column), "a column that the database has: {}", context());
        assert_eq!(image.value(&change.column), &change.from, "{}", context());
        if change.table != Table::Backups {
            assert_eq!(change.column, "status", "{}", context());
        }
    }
    let own = proposal.changes.iter().find(|change| change.id == case.backup.id && change.column == "status").unwrap();
    assert_eq!(own.to.as_text(), proposal.status.as_deref(), "{}", context());
    if proposal.status.as_deref() == Some(AVAILABLE) && case.backup.status.as_deref() != Some(RESTORING) {
        assert!(policy.allow_unverified, "available must be earned: {}", context());
        assert!(codes(&finding).contains(&"unverified"), "{}", context());
    }
    if let Some(volume) = &case.volume
        && proposal.changes.iter().any(|change| change.table == Table::Volumes && change.from.as_text() == Some(BACKING_UP))
    {
        assert_eq!(volume.status.as_deref(), Some(BACKING_UP), "{}", context());
        assert_eq!(case.backup.status.as_deref(), Some(CREATING), "{}", context());
        assert!(!case.volume_is_temporary, "a temporary volume is never freed: {}", context());
        let holds = |peer: &Peer| !peer.released && peer.status.as_deref() == Some(CREATING) && peer.volume_id == case.backup.volume_id;
        assert!(!case.peers.iter().any(holds), "another backup needs it: {}", context());
        let to = proposal.changes.iter().find(|change| change.id == volume.id).and_then(|change| change.to.as_text());
        let foreign = |attachment: &Attachment| {
            attachment.attach_status.as_deref() != Some("detached")
                && (attachment.instance_uuid.is_some() || attachment.attached_host != case.backup.host)
        };
        if situation.has_attachments && (volume.previous_status.as_deref() == Some(IN_USE) || case.attachments.iter().any(foreign)) {
            assert_eq!(to, Some(IN_USE), "of two answers the safer: {}", context());
        }
    }
    finding
}

/// What holds for every finding.
fn sound(finding: &Finding, context: &dyn Fn() -> String) {
    assert!(!finding.evidence.is_empty(), "{}", context());
    for evidence in &finding.evidence {
        let kebab = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(evidence.code.known().is_some() && evidence.code.as_str().chars().all(kebab) && !evidence.text.is_empty(), "{}", context());
    }
    assert!(finding.refusal.as_deref().is_none_or(|reason| !reason.trim().is_empty()), "{}", context());
    for line in &finding.follow_up {
        // A command that deletes something although there is another way is at the end of a comment.
        let command = line.strip_prefix("# ").map_or(line.as_str(), |comment| comment.split_once(": ").unwrap().1);
        let words = words(command);
        assert!(["openstack", "cinder-backup-repair"].contains(&words[0].as_str()), "{}", context());
        let (last, before) = words.split_last().unwrap();
        assert!(!last.starts_with('-') || before.iter().any(|word| word == "--"), "{command:?} gives an option: {}", context());
    }
    let Some(proposal) = &finding.proposal else { return };
    assert!(!matches!(finding.verdict, Verdict::Recent | Verdict::Busy), "{}", context());
    let keys: Vec<(Table, &str)> = proposal.changes.iter().map(|change| (change.table, change.id.as_str())).collect();
    assert!(keys.is_sorted(), "rows are locked in this order: {}", context());
    let cells: BTreeSet<(Table, &str, &str)> = proposal.changes.iter().map(|c| (c.table, c.id.as_str(), c.column.as_str())).collect();
    assert_eq!(cells.len(), proposal.changes.len(), "a cell changes once: {}", context());
    for change in &proposal.changes {
        assert!(is_allowed(change, Direction::Forward), "{change:?} is outside the table: {}", context());
        assert_ne!(change.from, change.to, "{}", context());
        if change.column == "fail_reason" {
            let text = change.to.as_text().unwrap();
            assert!(text.chars().count() <= 255 && !text.chars().any(char::is_control), "{}", context());
        }
    }
}

/// The words of a command. Each must be quoted as [`shell_word`] does it.
fn words(command: &str) -> Vec<String> {
    let words = shlex::split(command).unwrap();
    assert_eq!(shlex::try_join(words.iter().map(String::as_str)).unwrap(), command);
    assert!(!command.contains(char::is_control), "{command:?}");
    words
}

#[test]
fn a_shell_reads_the_words_of_a_command() {
    for id in ["7b1e", "x; rm -rf /", "a'b", "'", "''", "$(reboot)", "`reboot`", "--all", "-", "a b", "*", "~", "", "\\", "é\"|&<>"] {
        let output = Command::new("sh").arg("-c").arg(command(r"printf '%s\n'", id)).output().unwrap();
        let end_of_options = if id.starts_with('-') { "--\n" } else { "" };
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{end_of_options}{id}\n"), "{id:?}");
    }
}
