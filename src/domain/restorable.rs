//! Whether Cinder would restore a backup: what its API and its manager require, and whether the data is intact.
//!
//! The encryption key is not checked: Cinder takes it from the backup's metadata if the row has none.
//!
//! Source: `cinder/backup/api.py` (`restore`, `_get_available_backup_service_host`), `cinder/backup/manager.py` (`restore_backup`),
//! `cinder/objects/backup.py` (`_from_db_object`: a size of NULL is 0).

use jiff::civil::DateTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::code::codes;
use super::status::AVAILABLE;
use super::{Backup, CheckResult, CheckVerdict, Code, Driver, ProblemCode, Services, Thresholds};

codes! {
    /// Why a backup cannot be restored, or why that is not known.
    RestoreCode {
    DataDamaged = "data-damaged",
        "The check found data of the backup, or of one that it is based on, missing or wrong.",
        "The problems of the result say what is wrong. Restore from another backup.";
    DriverCannot = "driver-cannot",
        "The data is there, but Cinder's own driver cannot restore it.",
        "The warnings of the result say why.";
    DriverNotServed = "driver-not-served",
        "The cinder.conf that was read has another `backup_driver` than the backup. A cinder-backup with this cinder.conf refuses the restore.",
        "Make sure that a cinder-backup with the driver of the backup runs.";
    NoService = "no-service",
        "No cinder-backup in the zone of the backup is enabled and sends heartbeats.",
        "Start or enable one there.";
    NotAvailable = "not-available",
        "The status of the backup is not `available`, and Cinder restores no other.",
        "Run `scan`, which proposes a repair of a stuck backup.";
    NotVerified = "not-verified",
        "The check could not be finished, so it is not known whether the data is intact.",
        "Solve the problems that the result lists, and check again.";
    SameHost = "same-host",
        "`backup_use_same_host` is set, and the cinder-backup on the host of the backup is down, disabled, or in another zone.",
        "Start it, or run `repair --rehost` with the host that replaces it.";
    ServicesUnknown = "services-unknown",
        "The services were not read, because the backups come from a document.",
        "Check on a host that reaches the database.";
    SizeUnknown = "size-unknown",
        "`backups.size` is NULL. Cinder reads this as 0: it cannot create a volume for the restore, and accepts a volume that is too small.",
        "Restore into a volume of the right size, or import the backup again if it is an import that did not finish.";
    }
}

/// Whether Cinder would restore a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Restorable {
    /// As far as the check read, and by the services when the rows were read.
    Yes,
    No,
    /// Something that it depends on was not read.
    Unknown,
}

/// A reason why it is not restorable, or why that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreReason {
    pub code: Code<RestoreCode>,
    /// The same in words.
    pub text: String,
}

/// What a restore depends on beside the backup.
#[derive(Debug, Clone)]
pub struct RestoreSite {
    pub now: DateTime,
    pub services: Services,
    pub thresholds: Thresholds,
    /// `backup_use_same_host`.
    pub uses_same_host: bool,
    /// `backup_driver`, if cinder.conf sets it.
    pub backup_driver: Option<String>,
}

impl RestoreSite {
    /// Whether Cinder would send a restore of a backup in this zone to a host that has a service row.
    fn serves(&self, host: &str, zone: Option<&str>) -> bool {
        let Self { now, services, thresholds, .. } = self;
        services.is_up(host, *now, thresholds) && !services.is_disabled(host) && zone.is_none_or(|zone| services.zone(host) == Some(zone))
    }
}

/// Judges a backup by its row, the check of its chain and the services; `None` if those were not read.
pub fn restorable(backup: &Backup, check: &CheckResult, site: Option<&RestoreSite>) -> (Restorable, Vec<RestoreReason>) {
    let (mut refused, mut unknown) = (Vec::new(), Vec::new());
    let reason = |code: RestoreCode, text: String| RestoreReason { code: code.into(), text };
    if backup.status.as_deref() != Some(AVAILABLE) {
        refused.push(reason(RestoreCode::NotAvailable, format!("its status is {}", backup.status.as_deref().unwrap_or("NULL"))));
    }
    if backup.size.is_none() {
        unknown.push(reason(RestoreCode::SizeUnknown, "its size is NULL".to_owned()));
    }
    if check.verdict.is_damage() {
        refused.push(reason(RestoreCode::DataDamaged, format!("its data is {}", check.verdict)));
    } else if check.verdict == CheckVerdict::Unverifiable {
        unknown.push(reason(RestoreCode::NotVerified, format!("its data is not verified at level {}", check.level)));
    }
    if check.warnings.iter().any(|warning| warning.code == ProblemCode::CinderCannotRestore) {
        refused.push(reason(RestoreCode::DriverCannot, "Cinder's driver cannot restore it".to_owned()));
    }
    let Some(site) = site else {
        unknown.push(reason(RestoreCode::ServicesUnknown, "the services were not read".to_owned()));
        return answer(refused, unknown);
    };
    let zone = backup.availability_zone.as_deref().filter(|zone| !zone.is_empty());
    let in_zone = zone.map(|zone| format!(" in zone {zone}")).unwrap_or_default();
    match backup.host.as_deref().filter(|host| !host.is_empty() && site.uses_same_host) {
        // Cinder compares the names as they are.
        Some(host) if !site.services.hosts().any(|known| known == host && site.serves(known, zone)) => {
            refused.push(reason(RestoreCode::SameHost, format!("no living cinder-backup on its host {host}{in_zone}")));
        }
        None if !site.services.hosts().any(|host| site.serves(host, zone)) => {
            refused.push(reason(RestoreCode::NoService, format!("no living cinder-backup{in_zone}")));
        }
        _ => {}
    }
    let other = site.backup_driver.as_deref().zip(backup.service.as_deref()).filter(|(configured, its)| !Driver::is_same(configured, its));
    if let Some((configured, its)) = other {
        unknown.push(reason(RestoreCode::DriverNotServed, format!("its driver is {its}, and that of cinder.conf is {configured}")));
    }
    answer(refused, unknown)
}

/// A reason for `no` outweighs everything that is not known.
fn answer(mut refused: Vec<RestoreReason>, unknown: Vec<RestoreReason>) -> (Restorable, Vec<RestoreReason>) {
    let restorable = match (refused.is_empty(), unknown.is_empty()) {
        (false, _) => Restorable::No,
        (true, false) => Restorable::Unknown,
        (true, true) => Restorable::Yes,
    };
    refused.extend(unknown);
    (restorable, refused)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::time::parse;
    use crate::domain::{Level, Problem, ServiceRow};

    fn backup() -> Backup {
        Backup {
            status: Some(AVAILABLE.into()),
            size: Some(1),
            host: Some("ctl1".into()),
            availability_zone: Some("nova".into()),
            service: Some("cinder.backup.drivers.swift".into()),
            ..Backup::default()
        }
    }

    fn check(verdict: CheckVerdict) -> CheckResult {
        CheckResult { verdict, level: Level::Quick, ..CheckResult::default() }
    }

    fn site(change: impl Fn(&mut ServiceRow)) -> RestoreSite {
        let mut row = ServiceRow {
            host: "ctl2".into(),
            updated_at: Some("2026-11-22 12:00:00".into()),
            availability_zone: Some("nova".into()),
            ..ServiceRow::default()
        };
        change(&mut row);
        RestoreSite {
            now: parse("2026-11-22 12:00:10").unwrap(),
            services: Services::new(&[row]),
            thresholds: Thresholds::default(),
            uses_same_host: false,
            backup_driver: None,
        }
    }

    fn judge(backup: &Backup, check: &CheckResult, site: Option<&RestoreSite>) -> (Restorable, Vec<&'static str>) {
        let (answer, reasons) = restorable(backup, check, site);
        (answer, reasons.iter().map(|reason| reason.code.known().unwrap()).map(crate::domain::CodeSet::as_str).collect())
    }

    #[test]
    fn each_reason_makes_it_no_or_unknown() {
        use Restorable::{No, Unknown, Yes};
        let (intact, up) = (check(CheckVerdict::Intact), site(|_| ()));
        assert_eq!(judge(&backup(), &intact, Some(&up)), (Yes, vec![]));
        let any_zone = Backup { availability_zone: None, host: None, ..backup() };
        assert_eq!(judge(&any_zone, &intact, Some(&up)), (Yes, vec![]));
        for status in [Some("error"), Some("restoring"), None] {
            let other = Backup { status: status.map(Into::into), ..backup() };
            assert_eq!(judge(&other, &intact, Some(&up)), (No, vec!["not-available"]));
        }
        assert_eq!(judge(&Backup { size: None, ..backup() }, &intact, Some(&up)), (Unknown, vec!["size-unknown"]));
        for verdict in [CheckVerdict::Incomplete, CheckVerdict::Corrupt, CheckVerdict::Missing] {
            assert_eq!(judge(&backup(), &check(verdict), Some(&up)), (No, vec!["data-damaged"]));
        }
        assert_eq!(judge(&backup(), &check(CheckVerdict::Unverifiable), Some(&up)), (Unknown, vec!["not-verified"]));
        let many = CheckResult { warnings: vec![Problem::general(ProblemCode::CinderCannotRestore, String::new())], ..intact.clone() };
        assert_eq!(judge(&backup(), &many, Some(&up)), (No, vec!["driver-cannot"]));
        assert_eq!(judge(&backup(), &intact, None), (Unknown, vec!["services-unknown"]));
        assert_eq!(judge(&Backup { size: None, ..backup() }, &intact, None), (Unknown, vec!["size-unknown", "services-unknown"]));
    }

    #[test]
    fn the_service_is_up_enabled_and_in_the_zone() {
        use Restorable::{No, Unknown, Yes};
        let intact = check(CheckVerdict::Intact);
        let silent = site(|row| row.updated_at = Some("2026-11-22 11:00:00".into()));
        for other in [silent, site(|row| row.disabled = true), site(|row| row.deleted = true), site(|row| row.availability_zone = None)] {
            assert_eq!(judge(&backup(), &intact, Some(&other)), (No, vec!["no-service"]));
        }
        let same = RestoreSite { uses_same_host: true, ..site(|_| ()) };
        assert_eq!(judge(&backup(), &intact, Some(&same)), (No, vec!["same-host"]));
        for host in ["CTL2", "ctl2 "] {
            assert_eq!(judge(&Backup { host: Some(host.into()), ..backup() }, &intact, Some(&same)), (No, vec!["same-host"]));
        }
        assert_eq!(judge(&Backup { host: Some("ctl2".into()), ..backup() }, &intact, Some(&same)), (Yes, vec![]));
        assert_eq!(judge(&Backup { host: None, ..backup() }, &intact, Some(&same)), (Yes, vec![]));
        let posix = RestoreSite { backup_driver: Some("cinder.backup.drivers.posix.PosixBackupDriver".into()), ..site(|_| ()) };
        assert_eq!(judge(&backup(), &intact, Some(&posix)), (Unknown, vec!["driver-not-served"]));
        let swift = RestoreSite { backup_driver: Some("cinder.backup.drivers.swift.SwiftBackupDriver".into()), ..site(|_| ()) };
        assert_eq!(judge(&backup(), &intact, Some(&swift)), (Yes, vec![]));
    }
}
