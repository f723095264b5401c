//! The options of cinder.conf that say where backups are kept, each of which the command line may override.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::environment::read_text;
use super::{CinderConf, ConfigError, Origin, Setting};

/// The flag that overrides an option of cinder.conf.
const FLAG: Origin = Origin::Flag("--storage-option");

/// Options of cinder.conf's `[DEFAULT]`, as overridden by `--storage-option NAME=VALUE`.
///
/// No value can be printed by accident: an override may be a secret.
#[derive(Debug)]
pub struct StorageOptions {
    cinder: CinderConf,
    overrides: BTreeMap<String, SecretString>,
}

impl StorageOptions {
    /// Takes overrides as `NAME=VALUE`, or `NAME=@FILE` for the first line of a file, so that a secret is not seen in the
    /// list of processes.
    ///
    /// # Errors
    /// A word without `=`, an unknown name, a file that cannot be read.
    pub fn new(cinder: CinderConf, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut taken = BTreeMap::new();
        for word in overrides {
            let Some((name, value)) = word.split_once('=') else {
                // The word may be a secret that lost its name.
                return Err(ConfigError::invalid(&FLAG, "takes NAME=VALUE or NAME=@FILE, with a name as in cinder.conf".to_owned()));
            };
            let name = name.trim().replace('-', "_");
            if !CinderConf::knows(&name) {
                return Err(ConfigError::invalid(&FLAG, format!("{name:?} is no option of cinder.conf that says where backups are")));
            }
            let value = match value.strip_prefix('@') {
                Some(path) => read_text(Path::new(path))?.lines().next().unwrap_or_default().to_owned(),
                None => value.to_owned(),
            };
            taken.insert(name, SecretString::from(value));
        }
        Ok(Self { cinder, overrides: taken })
    }

    /// The value of an option that is no secret, or Cinder's default for it; `None` where it is unset or empty.
    ///
    /// # Errors
    /// A substitution in cinder.conf that cannot be made.
    pub fn text(&self, name: &str) -> Result<Option<Setting<String>>, ConfigError> {
        if let Some(value) = self.overrides.get(name) {
            let value = value.expose_secret();
            return Ok((!value.is_empty()).then(|| Setting::new(value.to_owned(), FLAG)));
        }
        Ok(self.cinder.get_or_default("DEFAULT", name)?.filter(|setting| !setting.value.is_empty()))
    }

    /// The value of an option that is a secret; `None` where it is unset or empty.
    ///
    /// # Errors
    /// As for [`StorageOptions::text`].
    pub fn secret(&self, name: &str) -> Result<Option<Setting<SecretString>>, ConfigError> {
        if let Some(value) = self.overrides.get(name) {
            return Ok((!value.expose_secret().is_empty()).then(|| Setting::new(value.clone(), FLAG)));
        }
        Ok(self.cinder.get_secret("DEFAULT", name)?.filter(|setting| !setting.value.expose_secret().is_empty()))
    }

    /// A boolean, in oslo.config's spellings.
    ///
    /// # Errors
    /// As for [`StorageOptions::text`], and a value that is none.
    pub fn boolean(&self, name: &str, default: bool) -> Result<Setting<bool>, ConfigError> {
        match self.text(name)? {
            Some(setting) => CinderConf::boolean(setting),
            None => Ok(Setting::default_of(default)),
        }
    }
}
