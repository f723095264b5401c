//! The settings in cinder.conf for Cinder's services: their heartbeats, and the backup driver.

use super::{CinderConf, ConfigError, Setting, StorageOptions};

/// How Cinder's services send heartbeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Seconds after which a heartbeat is stale (60). Raised if it is not above `report_interval`, as in Cinder.
    pub service_down_time: u64,
    /// Seconds between two heartbeats (10); 0 is no heartbeats.
    pub report_interval: u64,
    /// The class of the backup driver, if it is set.
    pub backup_driver: Option<String>,
    /// `backup_use_same_host`: work on a backup goes to its host, or fails.
    pub uses_same_host: bool,
}

impl ServiceSettings {
    /// Reads the options, with Cinder's defaults.
    pub(super) fn read(cinder: &CinderConf, warnings: &mut Vec<String>) -> Result<Self, ConfigError> {
        let Setting { value: mut service_down_time, origin } = number(cinder, "service_down_time", 60)?;
        let report_interval = number(cinder, "report_interval", 10)?;
        if report_interval.value == 0 {
            warnings.push(format!(
                "{}: with report_interval 0 Cinder's services send no heartbeats, so a stale heartbeat proves nothing",
                report_interval.origin
            ));
        } else if service_down_time <= report_interval.value {
            // cinder.service.Service.basic_config_check does the same when a service starts.
            let (down_time, interval) = (service_down_time, report_interval.value);
            service_down_time = interval.saturating_mul(5) / 2;
            warnings.push(format!(
                "{origin}: service_down_time {down_time} is not above report_interval {interval}; {service_down_time} is used, as in Cinder"
            ));
        }
        let backup_driver = cinder.get("DEFAULT", "backup_driver")?.map(|setting| setting.value).filter(|driver| !driver.is_empty());
        let uses_same_host = StorageOptions::new(cinder.clone(), &[])?.boolean("backup_use_same_host", false)?.value;
        Ok(Self { service_down_time, report_interval: report_interval.value, backup_driver, uses_same_host })
    }
}

fn number(cinder: &CinderConf, name: &str, default: i64) -> Result<Setting<u64>, ConfigError> {
    let Setting { value, origin } = cinder.get_int("DEFAULT", name, default)?;
    match u64::try_from(value) {
        Ok(value) => Ok(Setting::new(value, origin)),
        Err(_) => Err(ConfigError::invalid(&origin, format!("{name} is {value}, but must be 0 or more"))),
    }
}
