//! The verdict on a pending backup, by its age, the heartbeat of its host and the check of its storage.

use crate::domain::status::{AVAILABLE, ERROR, ERROR_DELETING, NO_VOLUME, RESTORING_BACKUP, is_active};
use crate::domain::time::{human, is_unreadable, parse, rfc3339, seconds_between};
use crate::domain::{AssumeDead, Backup, CheckResult, Evidence, EvidenceCode, Heartbeat, Policy, Situation, Verdict, is_same_host};

/// A verdict with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// The reasons, the decisive one first.
    pub evidence: Vec<Evidence>,
    /// The later of `created_at` and `updated_at`, RFC 3339.
    pub since: Option<String>,
    /// Seconds since then.
    pub age_seconds: Option<i64>,
    /// The cause for `fail_reason`, without times that change from minute to minute.
    pub cause: String,
}

/// The time of a row's last change, its age in seconds, and evidence if that is too recent.
pub(super) fn age(
    created_at: Option<&str>,
    updated_at: Option<&str>,
    situation: &Situation,
    policy: &Policy,
) -> (Option<String>, Option<i64>, Option<Evidence>) {
    let since = created_at.and_then(parse).max(updated_at.and_then(parse));
    let Some(since) = since else {
        return (None, None, None);
    };
    let age = seconds_between(since, situation.now);
    let limit = policy.thresholds.older_than_seconds;
    let recent = (age < limit).then(|| {
        let text = if age < 0 {
            format!("last changed {} in the future by the database's clock", human(-age))
        } else {
            format!("last changed {} ago, less than the {} of --older-than", human(age), human(limit))
        };
        Evidence::new(EvidenceCode::Recent, text)
    });
    (Some(rfc3339(since)), Some(age), recent)
}

/// The evidence for a time that cannot be read: the row may be younger than it seems.
pub(super) fn unreadable(created_at: Option<&str>, updated_at: Option<&str>) -> Option<Evidence> {
    let (column, text) = [("created_at", created_at), ("updated_at", updated_at)].into_iter().find(|(_, text)| is_unreadable(*text))?;
    let text = format!("{column} is {:?}, which cannot be read as a time, so its age is not known", text.unwrap_or_default());
    Some(Evidence::new(EvidenceCode::TimeUnreadable, text))
}

/// Judges a pending backup. `earned` says whether it is to become available because of `check`.
pub fn judge_backup(backup: &Backup, check: Option<&CheckResult>, earned: bool, situation: &Situation, policy: &Policy) -> Judgement {
    let (since, age_seconds, recent) = age(backup.created_at.as_deref(), backup.updated_at.as_deref(), situation, policy);
    let mut judgement = Judgement { verdict: Verdict::Stuck, evidence: Vec::new(), since, age_seconds, cause: String::new() };
    let (verdict, cause, decisive) = by_service(backup, situation, policy);
    judgement.cause = cause;
    if let Some(recent) = recent {
        judgement.verdict = Verdict::Recent;
        judgement.evidence.push(recent);
    } else {
        judgement.verdict = verdict;
    }
    let unreadable = unreadable(backup.created_at.as_deref(), backup.updated_at.as_deref());
    let no_times = judgement.age_seconds.is_none() && unreadable.is_none();
    let age_is_clear = unreadable.is_none();
    if let Some(unreadable) = unreadable {
        let declared_dead = backup.host.as_deref().map_or(policy.assume_dead == AssumeDead::All, |host| policy.assume_dead.covers(host));
        if judgement.verdict == Verdict::Stuck && !declared_dead {
            judgement.verdict = Verdict::Uncertain;
        }
        judgement.evidence.push(unreadable);
    }
    judgement.evidence.push(decisive);
    if let Some(check) = check {
        by_storage(&mut judgement, check, earned && age_is_clear);
    }
    if no_times {
        judgement.evidence.push(Evidence::new(EvidenceCode::NoTimes, "neither created_at nor updated_at is set, so its age is unknown"));
    }
    if backup.status.is_none() {
        judgement.evidence.push(Evidence::new(EvidenceCode::NoStatus, "its status is NULL"));
    }
    if backup.size.is_none() && backup.volume_id.as_deref() == Some(NO_VOLUME) {
        judgement.evidence.push(Evidence::new(EvidenceCode::UnfinishedImport, "an import that never finished: no volume and no size yet"));
    }
    judgement
}

/// Adjusts the verdict to a check. Signs of work outweigh any heartbeat. Storage without new objects does not prove that a service with
/// heartbeats is idle: an increment may read unchanged data for a long time, and a large object takes long to write. But once the driver
/// has written all of the backup, Cinder has only rows left to write, and it would make the backup available itself.
fn by_storage(judgement: &mut Judgement, check: &CheckResult, earned: bool) {
    let newest = check.newest_object_at.as_deref();
    if check.busy {
        judgement.verdict = Verdict::Busy;
        let newest = newest.map_or_else(String::new, |at| format!(", the newest at {at}"));
        let text = format!("it is being written: the storage shows signs of work{newest}");
        judgement.evidence.insert(0, Evidence::new(EvidenceCode::BeingWritten, text));
    } else if let Some(newest) = newest.filter(|_| earned && check.is_finished() && judgement.verdict == Verdict::Uncertain) {
        judgement.verdict = Verdict::Stuck;
        let text = format!("the object that the driver writes last exists, and nothing was written since {newest}");
        judgement.evidence.insert(0, Evidence::new(EvidenceCode::StorageComplete, text));
    }
}

/// Cinder marks a volume or snapshot and makes the backup's row right after it, by the same clock. Databases round to seconds.
const MARKED_TOGETHER: i64 = 5;

/// How much later the backup's row may be if the database stalls between the two, in seconds.
const MADE_LATER: i64 = 600;

/// Whether a backup has no active status.
pub(super) fn is_over(status: Option<&str>) -> bool {
    !is_active(status)
}

/// Seconds from the time at which a backup took a row to the row's last change; 0 if they are one step, `None` if they are not known.
pub(super) fn marked_after(taken_at: Option<&str>, marked_at: Option<&str>) -> Option<i64> {
    let (taken, marked) = taken_at.and_then(parse).zip(marked_at.and_then(parse))?;
    Some(seconds_between(taken, marked)).map(|span| if span.abs() <= MARKED_TOGETHER { 0 } else { span })
}

/// The service that may work on a marked row which no active backup explains. A status that is set by hand does not stop a service.
pub(super) enum Suspicion {
    /// A service may be working on it.
    AtWork(Evidence),
    /// The service on this host may have been working on it, but is silent.
    Silent(String, Evidence),
}

/// A row as an operation marked it.
#[derive(Clone, Copy)]
pub(super) struct Marked<'a> {
    pub status: Option<&'a str>,
    pub at: Option<&'a str>,
}

/// Whether a cinder-backup may be working on a marked row, or which silent host would be. `suspects` are backups that share the row;
/// `may_be` says by their status which of them may use it.
pub(super) fn suspicion(
    suspects: &[Backup],
    may_be: fn(Option<&str>) -> bool,
    row: Marked<'_>,
    situation: &Situation,
    policy: &Policy,
) -> Option<Suspicion> {
    let marked = row.at.and_then(parse);
    let created = |backup: &Backup| backup.created_at.as_deref().and_then(parse);
    // A backup that was made long after the last change of the row did not mark it: the backup of a snapshot leaves the volume as it is.
    let after = |backup: &Backup| created(backup).zip(marked).is_some_and(|(made, marked)| seconds_between(marked, made) > MADE_LATER);
    let suspects: Vec<&Backup> = suspects.iter().filter(|backup| !after(backup)).collect();
    let newest = suspects.iter().filter_map(|backup| created(backup)).max();
    let mut silent: Option<(&str, Evidence)> = None;
    for backup in suspects.into_iter().filter(|backup| may_be(backup.status.as_deref())) {
        let created = created(backup);
        let touched = created.max(backup.updated_at.as_deref().and_then(parse));
        // Other operations write a volume's row too, so its time proves nothing. But Cinder starts no backup of a volume that is marked:
        // when the row was marked, all backups but the newest had ended, and the newest had if it succeeded before.
        let failed_last =
            row.status != Some(RESTORING_BACKUP) && backup.status.as_deref() != Some(AVAILABLE) && (created.is_none() || created == newest);
        if let (Some(marked), Some(touched)) = (marked, touched)
            && seconds_between(touched, marked) > MARKED_TOGETHER
            && !failed_last
        {
            continue;
        }
        let (verdict, _, why) = by_service(backup, situation, policy);
        let shown = backup.status.as_deref().unwrap_or("NULL");
        if verdict == Verdict::Uncertain {
            let text = format!("its backup {} is {shown}, but {}", backup.id, why.text);
            return Some(Suspicion::AtWork(Evidence { text, ..why }));
        }
        let is_silent = matches!(why.code.known(), Some(EvidenceCode::ServiceDown | EvidenceCode::ServiceMissing));
        if let Some(host) = backup.host.as_deref().filter(|_| is_silent) {
            let text = format!("its backup {} is {shown}, and {}", backup.id, why.text);
            match &silent {
                // A unit waits for the heartbeat of one host only, and the other host may be up too.
                Some((known, before)) if !is_same_host(known, host) => {
                    let text = format!("{}; {text}; name the dead hosts with --assume-dead", before.text);
                    return Some(Suspicion::AtWork(Evidence::new(EvidenceCode::ServicesDown, text)));
                }
                Some(_) => {}
                None => silent = Some((host, Evidence { text, ..why })),
            }
        }
    }
    silent.map(|(host, why)| Suspicion::Silent(host.to_owned(), why))
}

/// Judges a backup by the service on its host: the verdict, the cause for `fail_reason`, and the evidence.
pub(super) fn by_service(backup: &Backup, situation: &Situation, policy: &Policy) -> (Verdict, String, Evidence) {
    // The deletion of a backup in error_deleting has ended, so no service works on it.
    if backup.status.as_deref() == Some(ERROR_DELETING) {
        return stuck(EvidenceCode::Asked, "its deletion failed".to_owned(), "its deletion failed, and --status selected it".to_owned());
    }
    let Some(host) = backup.host.as_deref().filter(|host| !host.trim().is_empty()) else {
        let cause = "it was never scheduled to a host";
        return stuck(
            EvidenceCode::NeverScheduled,
            cause.to_owned(),
            "never scheduled: it has no host, so no cinder-backup knows about it".to_owned(),
        );
    };
    let down_time = situation.services.down_time(host, &policy.thresholds);
    let heartbeat = situation.services.heartbeat(host, situation.now, down_time);
    if policy.assume_dead.covers(host) {
        let says = match heartbeat {
            Heartbeat::Up { silent } => format!("its last heartbeat was {} ago", human(silent)),
            Heartbeat::Unreadable => "its heartbeat cannot be read".to_owned(),
            Heartbeat::Down { .. } => "its heartbeat is too old".to_owned(),
            Heartbeat::Missing => "it has no service row".to_owned(),
        };
        return stuck(
            EvidenceCode::AssumedDead,
            format!("cinder-backup on {host} was declared dead"),
            format!("cinder-backup on {host} was declared dead with --assume-dead ({says})"),
        );
    }
    match heartbeat {
        Heartbeat::Missing => stuck(
            EvidenceCode::ServiceMissing,
            format!("cinder-backup on {host} no longer exists"),
            format!("cinder-backup on {host} has no service row: the host was retired"),
        ),
        Heartbeat::Down { silent } => {
            // While the database was down no service could write a heartbeat: soon after its start, a missing one proves nothing.
            if let Some(uptime) = situation.server_uptime_seconds.filter(|uptime| *uptime < down_time.saturating_mul(2)) {
                let text = format!(
                    "cinder-backup on {host} has no recent heartbeat, but the database server started only {} ago, less than twice service_down_time ({} s)",
                    human(uptime),
                    down_time
                );
                return (Verdict::Uncertain, String::new(), Evidence::new(EvidenceCode::ServerJustStarted, text));
            }
            let text = match silent {
                None => format!("cinder-backup on {host} has never sent a heartbeat"),
                Some(seconds) => format!("no heartbeat from cinder-backup on {host} for {}", human(seconds)),
            };
            stuck(EvidenceCode::ServiceDown, format!("cinder-backup on {host} was down"), text)
        }
        Heartbeat::Unreadable => {
            let text = format!("the heartbeat of cinder-backup on {host} cannot be read as a time, so it may be working");
            (Verdict::Uncertain, String::new(), Evidence::new(EvidenceCode::HeartbeatUnreadable, text))
        }
        Heartbeat::Up { silent } => {
            let doing = if matches!(backup.status.as_deref(), Some(ERROR | AVAILABLE)) {
                "may still be working on it"
            } else {
                "may be working on it or have it in its queue"
            };
            let text = if silent < -down_time {
                format!("cinder-backup on {host} is up, with a clock that is {} ahead of the database's; it {doing}", human(-silent))
            } else if !situation.services.knows(host) {
                format!(
                    "the service row of cinder-backup on {host} was removed, and last written {} ago by a heartbeat or by the removal; it {doing}",
                    human(silent)
                )
            } else if silent > policy.thresholds.service_down_time_seconds {
                format!(
                    "cinder-backup on {host} sent its last heartbeat {} ago, and by its report_count may send one only every {}; it {doing} \
                     (give --config-file or --service-down-time if its interval is shorter)",
                    human(silent),
                    human(situation.services.interval(host).unwrap_or_default())
                )
            } else {
                format!("cinder-backup on {host} is up (last heartbeat {} ago); it {doing}", human(silent))
            };
            (Verdict::Uncertain, String::new(), Evidence::new(EvidenceCode::ServiceUp, text))
        }
    }
}

fn stuck(code: EvidenceCode, cause: String, text: String) -> (Verdict, String, Evidence) {
    (Verdict::Stuck, cause, Evidence::new(code, text))
}
