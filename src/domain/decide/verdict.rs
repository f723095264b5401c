//! Is it stuck? The verdict over a pending backup, from its age and the heartbeat of its host.

use crate::domain::status::{AVAILABLE, CREATING, ERROR, ERROR_DELETING, NO_VOLUME, RESTORING_BACKUP, is_active};
use crate::domain::time::{human, is_unreadable, parse, rfc3339, seconds_between};
use crate::domain::{AssumeDead, Backup, CheckResult, Evidence, EvidenceCode, Heartbeat, Policy, Situation, Verdict, is_same_host};

/// A verdict with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The reasons, the decisive one first.
    pub evidence: Vec<Evidence>,
    /// The later of `created_at` and `updated_at`, RFC 3339.
    pub since: Option<String>,
    /// Seconds since then.
    pub age_seconds: Option<i64>,
    /// Why the row is what it is, in words that do not depend on the minute; for `fail_reason`.
    pub cause: String,
}

/// Judges a row by its times alone: `None` when it is old enough.
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

/// Says so when a time cannot be read: a row may then be younger than it looks.
pub(super) fn unreadable(created_at: Option<&str>, updated_at: Option<&str>) -> Option<Evidence> {
    let (column, text) = [("created_at", created_at), ("updated_at", updated_at)].into_iter().find(|(_, text)| is_unreadable(*text))?;
    let text = format!("{column} is {:?}, which is no time, so its age is not known", text.unwrap_or_default());
    Some(Evidence::new(EvidenceCode::TimeUnreadable, text))
}

/// Judges a pending backup; `check` is what a look at its storage found, if there was one, and `earned` whether it is to become
/// available because of that.
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
    if let Some(check) = check.filter(|_| matches!(backup.status.as_deref(), Some(CREATING | ERROR))) {
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

/// Adjusts the verdict by what the storage shows. Signs of work outweigh any heartbeat. Quiet storage does not prove that a service
/// with heartbeats is idle: an increment may read unchanged data for a long time, and a large object takes long to write. But once the
/// driver has written all of the backup, Cinder has only rows left to write, and it would make the backup available itself.
fn by_storage(judgement: &mut Judgement, check: &CheckResult, earned: bool) {
    let newest = check.newest_object_at.as_deref();
    if check.busy {
        judgement.verdict = Verdict::Busy;
        let newest = newest.map_or_else(String::new, |at| format!(", the newest at {at}"));
        let text = format!("it is being written: the storage shows signs of work{newest}");
        judgement.evidence.insert(0, Evidence::new(EvidenceCode::BeingWritten, text));
    } else if let Some(newest) = newest.filter(|_| earned && check.is_finished() && judgement.verdict == Verdict::Uncertain) {
        judgement.verdict = Verdict::Stuck;
        let text = format!("everything that the driver writes last is there, and nothing was written since {newest}");
        judgement.evidence.insert(0, Evidence::new(EvidenceCode::StorageComplete, text));
    }
}

/// Cinder marks a volume or a snapshot and makes the backup's row right after it, by the same clock; the databases round to seconds.
const MARKED_TOGETHER: i64 = 5;

/// A database that stalls between the two delays the backup's row by so much at most.
const MADE_LATER: i64 = 600;

/// A backup in no active status.
pub(super) fn is_over(status: Option<&str>) -> bool {
    !is_active(status)
}

/// How many seconds a row was written after a backup took it, where 0 is as long as that takes; `None` where nobody knows.
pub(super) fn marked_after(taken_at: Option<&str>, marked_at: Option<&str>) -> Option<i64> {
    let (taken, marked) = taken_at.and_then(parse).zip(marked_at.and_then(parse))?;
    Some(seconds_between(taken, marked)).map(|span| if span.abs() <= MARKED_TOGETHER { 0 } else { span })
}

/// What the services say whose backups may be the reason why a row is marked although no backup says so: whoever puts a backup
/// into another status by hand does not stop its service, which works on.
pub(super) enum Suspicion {
    /// This one may be at work on it.
    AtWork(Evidence),
    /// This host's would be, and is silent.
    Silent(String, Evidence),
}

/// Whether a cinder-backup may be at work on a row in `status`, and if none is, whose silence says so. `suspects` are backups
/// of that row, and `may_be` says by their status which of them may hold it though they do not say so.
pub(super) fn suspicion(
    suspects: &[Backup],
    may_be: fn(Option<&str>) -> bool,
    status: Option<&str>,
    marked_at: Option<&str>,
    situation: &Situation,
    policy: &Policy,
) -> Option<Suspicion> {
    let marked = marked_at.and_then(parse);
    let created = |backup: &Backup| backup.created_at.as_deref().and_then(parse);
    // One that was made long after the row was last written did not mark it: that of a snapshot leaves the volume as it is.
    let after = |backup: &Backup| created(backup).zip(marked).is_some_and(|(made, marked)| seconds_between(marked, made) > MADE_LATER);
    let suspects: Vec<&Backup> = suspects.iter().filter(|backup| !after(backup)).collect();
    let newest = suspects.iter().filter_map(|backup| created(backup)).max();
    let mut silent: Option<(&str, Evidence)> = None;
    for backup in suspects.into_iter().filter(|backup| may_be(backup.status.as_deref())) {
        let created = created(backup);
        let touched = created.max(backup.updated_at.as_deref().and_then(parse));
        // Other things write a volume's row, too, so that its time is no proof. But Cinder begins no backup of a volume that is
        // marked: all but the newest were over by then, and that one was if it succeeded before.
        let failed_last =
            status != Some(RESTORING_BACKUP) && backup.status.as_deref() != Some(AVAILABLE) && (created.is_none() || created == newest);
        if let (Some(marked), Some(touched)) = (marked, touched)
            && seconds_between(touched, marked) > MARKED_TOGETHER
            && !failed_last
        {
            continue;
        }
        let (verdict, _, why) = by_service(backup, situation, policy);
        let shown = backup.status.as_deref().unwrap_or("NULL");
        if verdict == Verdict::Uncertain {
            let text = format!("backup {} of it is {shown}, but {}", backup.id, why.text);
            return Some(Suspicion::AtWork(Evidence { text, ..why }));
        }
        let is_silent = matches!(why.code.known(), Some(EvidenceCode::ServiceDown | EvidenceCode::ServiceMissing));
        if let Some(host) = backup.host.as_deref().filter(|_| is_silent) {
            let text = format!("backup {} of it is {shown}, and {}", backup.id, why.text);
            match &silent {
                // A unit waits for the heartbeat of one host only, and the other host may be alive, too.
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

fn by_service(backup: &Backup, situation: &Situation, policy: &Policy) -> (Verdict, String, Evidence) {
    // The deletion of a row in error_deleting has ended; nobody works on it, whatever beats.
    if backup.status.as_deref() == Some(ERROR_DELETING) {
        return stuck(EvidenceCode::Asked, "its deletion failed".to_owned(), "its deletion failed, and it was asked for".to_owned());
    }
    let Some(host) = backup.host.as_deref().filter(|host| !host.trim().is_empty()) else {
        let cause = "it was never scheduled to a host";
        return stuck(
            EvidenceCode::NeverScheduled,
            cause.to_owned(),
            "never scheduled: it has no host, so no cinder-backup knows of it".to_owned(),
        );
    };
    let down_time = situation.services.down_time(host, &policy.thresholds);
    let heartbeat = situation.services.heartbeat(host, situation.now, down_time);
    if policy.assume_dead.covers(host) {
        let says = match heartbeat {
            Heartbeat::Up { silent } => format!("last beat {} ago", human(silent)),
            Heartbeat::Unreadable => "its heartbeat cannot be read".to_owned(),
            Heartbeat::Down { .. } => "it sends no heartbeat".to_owned(),
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
            format!("there is no cinder-backup on {host} any more"),
            format!("no service row for cinder-backup on {host}: the host was retired"),
        ),
        Heartbeat::Down { silent } => {
            // While the database was down nobody could beat: soon after its start, silence proves nothing.
            if let Some(uptime) = situation.server_uptime_seconds.filter(|uptime| *uptime < down_time.saturating_mul(2)) {
                let text = format!(
                    "cinder-backup on {host} is silent, but the database server itself started {} ago, less than twice service_down_time ({} s)",
                    human(uptime),
                    down_time
                );
                return (Verdict::Uncertain, String::new(), Evidence::new(EvidenceCode::ServerJustStarted, text));
            }
            let last = silent.map_or_else(|| "never beat".to_owned(), |seconds| format!("last beat {} ago", human(seconds)));
            stuck(EvidenceCode::ServiceDown, format!("cinder-backup on {host} was down"), format!("cinder-backup on {host} {last}"))
        }
        Heartbeat::Unreadable => {
            let text = format!("the heartbeat of cinder-backup on {host} is no time that can be read, so it may be at work");
            (Verdict::Uncertain, String::new(), Evidence::new(EvidenceCode::HeartbeatUnreadable, text))
        }
        Heartbeat::Up { silent } => {
            let doing = if matches!(backup.status.as_deref(), Some(ERROR | AVAILABLE)) {
                "may still be at work on it"
            } else {
                "may be at work on it, or have it in its queue"
            };
            let text = if silent < -down_time {
                format!("cinder-backup on {host} beats, from a clock that is {} ahead of the database's; it {doing}", human(-silent))
            } else if !situation.services.knows(host) {
                format!(
                    "the service row of cinder-backup on {host} was removed and last written {} ago, by a beat or by the removal; it {doing}",
                    human(silent)
                )
            } else if silent > policy.thresholds.service_down_time_seconds {
                format!(
                    "cinder-backup on {host} last beat {} ago, and by its report_count it may beat only every {}; it {doing} \
                     (give --config-file or --service-down-time if it beats more often)",
                    human(silent),
                    human(situation.services.interval(host).unwrap_or_default())
                )
            } else {
                format!("cinder-backup on {host} beats (last {} ago); it {doing}", human(silent))
            };
            (Verdict::Uncertain, String::new(), Evidence::new(EvidenceCode::ServiceUp, text))
        }
    }
}

fn stuck(code: EvidenceCode, cause: String, text: String) -> (Verdict, String, Evidence) {
    (Verdict::Stuck, cause, Evidence::new(code, text))
}
