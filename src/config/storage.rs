//! The options of cinder.conf for the storage of backups. The command line may override each.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::environment::read_text;
use super::{CinderConf, ConfigError, Origin, Setting};

/// The flag that overrides an option of cinder.conf.
const FLAG: Origin = Origin::Flag("--storage-option");

/// Options of cinder.conf's `[DEFAULT]`, with the overrides of `--storage-option NAME=VALUE`.
///
/// An override may be a secret, so `Debug` does not print it.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    cinder: CinderConf,
    overrides: BTreeMap<String, SecretString>,
}

impl StorageOptions {
    /// Reads overrides: `NAME=VALUE`, or `NAME=@FILE` for the first line of a file, which keeps a secret out of the process list.
    ///
    /// # Errors
    /// A word without `=`, an unknown name, a file that cannot be read.
    pub fn new(cinder: CinderConf, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut taken = BTreeMap::new();
        for word in overrides {
            let Some((name, value)) = word.split_once('=') else {
                // The word may be a secret without its name, so the error does not repeat it.
                return Err(ConfigError::invalid(&FLAG, "must be NAME=VALUE or NAME=@FILE, with a name as in cinder.conf"));
            };
            let name = name.trim().replace('-', "_");
            if !CinderConf::knows(&name) {
                return Err(ConfigError::invalid(&FLAG, format!("{name:?} is not an option of cinder.conf for the storage of backups")));
            }
            let value = match value.strip_prefix('@') {
                Some(path) => read_text(Path::new(path))?.lines().next().unwrap_or_default().to_owned(),
                None => value.to_owned(),
            };
            taken.insert(name, SecretString::from(value));
        }
        Ok(Self { cinder, overrides: taken })
    }

    /// The value of an option that is not secret, or Cinder's default for it; `None` if it is unset or empty.
    ///
    /// # Errors
    /// A substitution in cinder.conf that fails.
    pub fn text(&self, name: &str) -> Result<Option<Setting<String>>, ConfigError> {
        if let Some(value) = self.overrides.get(name) {
            let value = value.expose_secret();
            return Ok((!value.is_empty()).then(|| Setting::new(value.to_owned(), FLAG)));
        }
        Ok(self.cinder.get_or_default("DEFAULT", name)?.filter(|setting| !setting.value.is_empty()))
    }

    /// The value of a secret option; `None` if it is unset or empty.
    ///
    /// # Errors
    /// As for [`StorageOptions::text`].
    pub fn secret(&self, name: &str) -> Result<Option<Setting<SecretString>>, ConfigError> {
        if let Some(value) = self.overrides.get(name) {
            return Ok((!value.expose_secret().is_empty()).then(|| Setting::new(value.clone(), FLAG)));
        }
        Ok(self.cinder.get_secret(&[("DEFAULT", name)])?.filter(|setting| !setting.value.expose_secret().is_empty()))
    }

    /// A boolean: true, 1, on, yes, or false, 0, off, no, in upper or lower case, as in oslo.config.
    ///
    /// # Errors
    /// As for [`StorageOptions::text`], and a value that is not a boolean.
    pub fn boolean(&self, name: &str, default: bool) -> Result<Setting<bool>, ConfigError> {
        let Some(Setting { value, origin }) = self.text(name)? else { return Ok(Setting::default_of(default)) };
        match value.to_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(Setting::new(true, origin)),
            "false" | "0" | "off" | "no" => Ok(Setting::new(false, origin)),
            _ => Err(ConfigError::invalid(&origin, format!("{value:?} is not a boolean: use true or false"))),
        }
    }

    /// All options that this program knows, with their values, if they are set or have a default, and whether the value is a secret.
    ///
    /// # Errors
    /// As for [`StorageOptions::text`].
    pub fn all(&self) -> Result<Vec<ShownOption>, ConfigError> {
        CinderConf::known().map(|name| self.shown(name)).collect()
    }

    fn shown(&self, name: &'static str) -> Result<ShownOption, ConfigError> {
        // An error of a secret option does not show its value.
        if is_secret(name) {
            return Ok((name, self.secret(name)?.map(|setting| setting.map(|_| String::new())), true));
        }
        // A URL may have a password in it, and so may what another option was replaced by.
        let found = self.text(name)?;
        let has_login = found.as_ref().is_some_and(|found| found.value.contains('@'));
        Ok((name, found, has_login))
    }
}

/// Name, value, and whether the value is a secret, which is not to be shown.
pub type ShownOption = (&'static str, Option<Setting<String>>, bool);

fn is_secret(name: &str) -> bool {
    ["key", "password", "secret", "token"].iter().any(|word| name.split('_').any(|part| part == *word))
}
