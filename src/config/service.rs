//! The settings in cinder.conf for Cinder's services.

use std::path::PathBuf;

use super::{CinderConf, ConfigError, Setting};

/// How Cinder's services send heartbeats, and how many backups a service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Seconds after which a heartbeat is stale (60). Raised if it is not above `report_interval`, as in Cinder.
    pub service_down_time: Setting<u64>,
    /// Seconds between two heartbeats (10); 0 is no heartbeats.
    pub report_interval: Setting<u64>,
    /// The number of backups and restores that a service runs at once (15). The others wait in their status. 0 is no limit.
    pub backup_max_operations: Setting<u64>,
    /// Cinder's directory (`/var/lib/cinder`).
    pub state_path: Setting<PathBuf>,
}

impl ServiceSettings {
    /// Reads the options, with Cinder's defaults.
    pub(super) fn read(cinder: &CinderConf, warnings: &mut Vec<String>) -> Result<Self, ConfigError> {
        let mut service_down_time = number(cinder, "service_down_time", 60)?;
        let report_interval = number(cinder, "report_interval", 10)?;
        if report_interval.value == 0 {
            warnings.push(format!(
                "{}: with report_interval 0 Cinder's services send no heartbeats, so a stale heartbeat proves nothing",
                report_interval.origin
            ));
        } else if service_down_time.value <= report_interval.value {
            // cinder.service.Service.basic_config_check does the same when a service starts.
            let raised = report_interval.value.saturating_mul(5) / 2;
            warnings.push(format!(
                "{}: service_down_time {} is not above report_interval {}; {raised} is used, as in Cinder",
                service_down_time.origin, service_down_time.value, report_interval.value
            ));
            service_down_time.value = raised;
        }
        let state_path = cinder
            .get_or_default("DEFAULT", "state_path")?
            .map_or_else(|| Setting::default_of(PathBuf::from("/var/lib/cinder")), |setting| setting.map(PathBuf::from));
        let backup_max_operations = number(cinder, "backup_max_operations", 15)?;
        Ok(Self { service_down_time, report_interval, backup_max_operations, state_path })
    }
}

fn number(cinder: &CinderConf, name: &str, default: i64) -> Result<Setting<u64>, ConfigError> {
    let Setting { value, origin } = cinder.get_int("DEFAULT", name, default)?;
    match u64::try_from(value) {
        Ok(value) => Ok(Setting::new(value, origin)),
        Err(_) => Err(ConfigError::invalid(&origin, format!("{name} is {value}, but must be 0 or more"))),
    }
}
