//! A server as a URL and the files that it names describe it, before passwords and flags are added.

use std::path::PathBuf;

use secrecy::SecretString;

use super::url::{Url, parse_port};
use super::{ConfigError, Environment, Origin, ServerTarget, Setting, TlsMode};

/// A server as the URL describes it.
pub(super) struct PartialTarget {
    /// The server, still without a password and with TLS disabled.
    pub server: ServerTarget,
    /// The password in the URL, or in the service that it names.
    pub password: Option<Setting<SecretString>>,
    /// The password in the option file that the URL names.
    pub file_password: Option<Setting<SecretString>>,
    /// The file of PostgreSQL passwords that the URL names.
    pub passfile: Option<Setting<PathBuf>>,
    pub tls: PartialTls,
    pub warnings: Vec<String>,
}

/// The settings for encryption that were given, and where.
#[derive(Default)]
pub(super) struct PartialTls {
    pub mode: Option<Setting<TlsMode>>,
    pub ca: Option<Setting<PathBuf>>,
    pub cert: Option<Setting<PathBuf>>,
    pub key: Option<Setting<PathBuf>>,
    /// The URL names the system's authorities (`sslrootcert=system`).
    pub system_roots: bool,
}

/// Options of a URL with their origins. The first value of an option stays, so the strongest source comes first.
#[derive(Default)]
pub(super) struct UrlOptions {
    entries: Vec<(String, Setting<String>)>,
}

impl UrlOptions {
    /// The options of a URL under the first of their names in `aliases`. The user, the password, the host and the port are options too,
    /// and so is the database, which is called `database`.
    pub fn new(url: Url, database: &str, aliases: &[(&str, &str)], origin: &Origin) -> Result<Self, ConfigError> {
        let mut options = Self::default();
        for (name, value) in url.query {
            let name = aliases.iter().find(|(_, alias)| *alias == name).map_or(name.as_str(), |(name, _)| name);
            if options.has(name) {
                return Err(ConfigError::invalid(origin, format!("the URL gives the option {} twice", name.escape_default())));
            }
            options.put(name, value, origin);
        }
        let port = url.port.map(|port| port.to_string());
        for (name, value) in [("user", url.user), ("password", url.password), ("host", url.host), (database, url.database), ("port", port)]
        {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                options.put(name, value, origin);
            }
        }
        Ok(options)
    }

    /// Adds a value unless the option has one already.
    pub fn put(&mut self, name: &str, value: String, origin: &Origin) {
        if !self.has(name) {
            self.entries.push((name.to_owned(), Setting::new(value, origin.clone())));
        }
    }

    fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(known, _)| known == name)
    }

    /// Removes and returns a value.
    pub fn take(&mut self, name: &str) -> Option<Setting<String>> {
        let index = self.entries.iter().position(|(known, _)| known == name)?;
        Some(self.entries.remove(index).1)
    }

    pub fn take_path(&mut self, name: &str) -> Option<Setting<PathBuf>> {
        self.take(name).map(|setting| setting.map(PathBuf::from))
    }

    pub fn take_port(&mut self, name: &str) -> Result<Option<u16>, ConfigError> {
        self.take(name).map(|setting| parse_port(&setting.value, &setting.origin)).transpose()
    }

    /// Removes and returns a boolean, in the spellings of SQLAlchemy.
    pub fn take_bool(&mut self, name: &str) -> Result<Option<Setting<bool>>, ConfigError> {
        let Some(Setting { value, origin }) = self.take(name) else { return Ok(None) };
        match parse_bool(&value) {
            Some(value) => Ok(Some(Setting::new(value, origin))),
            None => Err(ConfigError::invalid(&origin, format!("the option {name} must be true or false"))),
        }
    }

    pub fn take_password(&mut self) -> Option<Setting<SecretString>> {
        self.take("password").map(|setting| setting.map(SecretString::from))
    }

    /// Removes and returns the user, or else the one who runs the program.
    pub fn take_user(&mut self, env: &Environment) -> Option<String> {
        self.take("user").map(|setting| setting.value).or_else(|| env.login().map(str::to_owned))
    }

    /// Removes and returns the name of the database.
    pub fn take_database(&mut self, name: &str, origin: &Origin) -> Result<String, ConfigError> {
        let database = self.take(name).map(|setting| setting.value).filter(|database| !database.is_empty());
        database.ok_or_else(|| ConfigError::invalid(origin, "the URL names no database; end its path with the name, for example /cinder"))
    }

    /// Handles the options that are left. Those about encryption are refused, because ignoring one could make the connection less safe
    /// than it asks for. The others are ignored, with a warning unless they are `known` to have no meaning here.
    pub fn ignore_rest(self, known: &[&str], warnings: &mut Vec<String>) -> Result<(), ConfigError> {
        for (name, Setting { origin, .. }) in self.entries {
            let shown = name.escape_default();
            if name.starts_with("ssl") || name.starts_with("tls") {
                let problem = format!(
                    "the option {shown} is unknown, and ignoring it could make the connection less safe; give a --database-url without it, \
                     with --tls-mode and --tls-ca"
                );
                return Err(ConfigError::invalid(&origin, problem));
            }
            if !known.contains(&name.as_str()) {
                warnings.push(format!("{origin}: the option {shown} has no meaning here and is ignored"));
            }
        }
        Ok(())
    }
}

/// A boolean in any spelling that SQLAlchemy accepts.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "t" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "f" | "0" => Some(false),
        _ => None,
    }
}

/// Whole seconds.
pub(super) fn parse_seconds(name: &str, setting: &Setting<String>) -> Result<i64, ConfigError> {
    let problem = || format!("the option {name} must be an integer number of seconds");
    setting.value.trim().parse().map_err(|_| ConfigError::invalid(&setting.origin, problem()))
}

/// Checks that a host name or address is valid in a URL and harmless on a terminal. The error does not repeat it, because a misread URL
/// puts a part of the password here.
pub(super) fn check_host(name: &str, origin: &Origin) -> Result<(), ConfigError> {
    let problem = if name.contains(',') {
        "the URL names several hosts, but a repair uses one server; name the primary with --database-url"
    } else if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '%')) {
        "the host in the URL is not a host name or address; if it is a part of the password, write :, @ and / there as %3A, %40 and %2F"
    } else {
        return Ok(());
    };
    Err(ConfigError::invalid(origin, problem))
}
