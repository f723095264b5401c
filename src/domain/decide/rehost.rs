//! `--rehost`: moves a backup from a host without a living cinder-backup to one whose cinder-backup sends heartbeats.
//!
//! Cinder sends a restore or a deletion to any living host in the zone of the backup. It sends an increment on a posix backup, a forced
//! deletion, and with `backup_use_same_host` everything to `backups.host`.
//!
//! Source: `cinder/backup/api.py` (`_get_available_backup_service_host`, `create`, `delete`), `cinder/scheduler/manager.py`
//! (`create_backup`), `cinder/backup/manager.py` (`restore_backup`: another driver than that of the row is refused).

use std::collections::BTreeSet;

use thiserror::Error;

use super::verdict::by_service;
use super::{about_backup, change, propose_or_refuse};
use crate::domain::services::host_part;
use crate::domain::status::is_at_rest;
use crate::domain::text::list;
use crate::domain::{
    Backup, CheckResult, CheckVerdict, Driver, EvidenceCode, Finding, FindingKind, NewHost, Policy, Proposal, Situation, Table, Verdict,
    is_same_host,
};

/// Everything that the decision for the host of a backup depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RehostCase {
    pub backup: Backup,
    /// The driver of the new host, as `backups.service` names it. `None` under lock: the drivers were compared for the plan, and a guard
    /// compares that of the row.
    pub service: Option<String>,
    /// The check of its storage.
    pub check: Option<Box<CheckResult>>,
}

/// Why backups cannot be moved to a host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NewHostProblem {
    /// It has no cinder-backup.
    #[error("{0}")]
    Unknown(String),
    /// Its cinder-backup cannot take them.
    #[error("{0}")]
    Unfit(String),
}

/// Whether no living cinder-backup is on a host, so that its backups are moved to the new one.
pub fn is_retired(host: &str, new: &NewHost, situation: &Situation, policy: &Policy) -> bool {
    let is_blank = host.trim().is_empty();
    !is_blank
        && !is_same_host(host, &new.host)
        && (policy.assume_dead.covers(host) || !situation.services.is_up(host, situation.now, &policy.thresholds))
}

/// Finds out why backups cannot be moved to a host, whatever the backups are.
pub fn find_new_host_problem(new: &NewHost, situation: &Situation, policy: &Policy) -> Option<NewHostProblem> {
    let (host, services) = (new.host.as_str(), &situation.services);
    let hosts: BTreeSet<&str> = services.hosts().collect();
    let unfit = |why: String| Some(NewHostProblem::Unfit(format!("no backup can be moved to {host}: {why}")));
    if !hosts.contains(host) {
        let alike = hosts.iter().find(|known| is_same_host(known, host));
        let advice = match alike {
            Some(known) => format!("it is spelled {known}"),
            None if hosts.is_empty() => "there are no hosts".to_owned(),
            None => format!("there are {}", list(&hosts)),
        };
        return Some(NewHostProblem::Unknown(format!("--rehost {host} matches nothing: no cinder-backup has this host; {advice}")));
    }
    if policy.assume_dead.covers(host) {
        unfit("--assume-dead declares its cinder-backup dead".to_owned())
    } else if !services.is_up(host, situation.now, &policy.thresholds) {
        unfit("its cinder-backup has no recent heartbeat; start it first".to_owned())
    } else if services.is_disabled(host) {
        unfit("its cinder-backup is disabled; enable it first".to_owned())
    } else {
        None
    }
}

/// Decides for the host of a backup; `None` if it is not to be replaced.
pub fn rehost(case: &RehostCase, situation: &Situation, policy: &Policy) -> Option<Finding> {
    let RehostCase { backup, service, .. } = case;
    let new = policy.rehost.as_ref()?;
    let host = backup.host.as_deref().filter(|host| is_retired(host, new, situation, policy))?;
    if !is_at_rest(backup.status.as_deref()) {
        return None;
    }
    // The same run finishes its deletion.
    if policy.deletes() && backup.status.as_ref().is_some_and(|status| policy.asked.contains(status)) {
        return None;
    }
    let mut finding = Finding { kind: FindingKind::Host, ..about_backup(backup, Verdict::Inconsistent) };
    let (verdict, _, why) = by_service(backup, situation, policy);
    finding.evidence.push(why);
    if verdict != Verdict::Stuck {
        finding.verdict = verdict;
        return Some(finding);
    }
    let zone = situation.services.zone(&new.host);
    let its_zone = backup.availability_zone.as_deref().filter(|zone| !zone.is_empty());
    let other_driver = backup.service.as_deref().zip(service.as_deref()).filter(|(one, other)| !Driver::is_same(one, other));
    finding.refusal = if let Some(problem) = find_new_host_problem(new, situation, policy) {
        Some(problem.to_string())
    } else if let Some(its_zone) = its_zone.filter(|its| Some(*its) != zone) {
        Some(format!("its zone is {its_zone}, and that of {} is {}", new.host, zone.unwrap_or("NULL")))
    } else if let Some((one, other)) = other_driver {
        Some(format!("its driver is {one}, and that of {} is {other}", new.host))
    } else {
        local_data(case, host, new, &mut finding)
    };
    if finding.refusal.is_none() {
        let (image, mut changes) = (backup.image(situation.columns), Vec::new());
        change(&mut changes, &image, "host", new.host.as_str());
        if let Some(zone) = zone.filter(|_| backup.availability_zone.is_none()) {
            change(&mut changes, &image, "availability_zone", zone);
        }
        let proposal = Proposal { status: backup.status.clone(), needs: Vec::new(), changes };
        propose_or_refuse(&mut finding, proposal, [(Table::Backups, backup.id.as_str(), backup.unchangeable.as_deref())]);
    }
    Some(finding)
}

/// Why a backup in a directory of its host is not moved: no check shows that the new host has its data, and the row would no longer name the
/// host that has it.
fn local_data(case: &RehostCase, host: &str, new: &NewHost, finding: &mut Finding) -> Option<String> {
    case.service.as_ref()?;
    if case.backup.service.as_deref().and_then(Driver::of_service) != Some(Driver::Posix) {
        return None;
    }
    // The name of a machine may have a domain.
    let is_on = |check: &CheckResult, host: &str| {
        let machine = |host: &str| host_part(host).split('.').next().unwrap_or_default().to_owned();
        check.host.as_deref().is_some_and(|its| is_same_host(&machine(its), &machine(host)))
    };
    match &case.check {
        Some(check) if is_on(check, host) && !is_on(check, &new.host) => Some(format!(
            "its data was checked on {host} itself, which may have it on its own disk: run it on {} with --check quick",
            new.host
        )),
        Some(check) if check.busy => {
            Some("the check found an object that is too young to be settled, so it may still be written".to_owned())
        }
        Some(check) if check.verdict == CheckVerdict::Intact => {
            let at = [("on", &check.host), ("in", &check.location)];
            let at: String = at.iter().filter_map(|(word, place)| Some(format!(" {word} {}", place.as_deref()?))).collect();
            let text = format!("a {} check{at} found its data intact", check.level);
            finding.note(EvidenceCode::StorageIntact, text);
            None
        }
        Some(check) => Some(format!("a check found its data {}; it may be on the disk of {host}", check.verdict)),
        None => Some(format!(
            "its data may be on the disk of {host}: run the repair on {} with --check quick, which looks for the data there",
            new.host
        )),
    }
}
