//! A server as a URL and the files that it names describe it, before passwords and flags are added.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::url::parse_port;
use super::{ConfigError, Environment, Host, Origin, ServerKind, ServerTarget, Setting, TlsMode, TlsSettings};

/// A server as the URL describes it.
pub(super) struct PartialTarget {
    pub kind: ServerKind,
    pub host: Host,
    pub port: u16,
    pub database: String,
    pub user: Option<String>,
    /// The password in the URL, or in the service that it names.
    pub password: Option<Setting<SecretString>>,
    /// The password in the option file that the URL names.
    pub file_password: Option<Setting<SecretString>>,
    /// The file of PostgreSQL passwords that the URL names.
    pub passfile: Option<Setting<PathBuf>>,
    pub tls: PartialTls,
    pub connect_timeout: Option<Duration>,
    pub options: Option<String>,
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

impl PartialTarget {
    /// The complete target.
    pub fn finish(self, password: Option<SecretString>, tls: TlsSettings) -> ServerTarget {
        ServerTarget {
            kind: self.kind,
            host: self.host,
            port: self.port,
            database: self.database,
            user: self.user,
            password,
            tls,
            connect_timeout: self.connect_timeout,
            options: self.options,
        }
    }
}

/// Options of a URL with their origins. The first value of an option stays, so the strongest source comes first.
#[derive(Default)]
pub(super) struct UrlOptions {
    entries: Vec<(String, Setting<String>)>,
}

impl UrlOptions {
    /// Adds a value unless the option has one already.
    pub fn put(&mut self, name: &str, value: String, origin: &Origin) {
        if self.peek(name).is_none() {
            self.entries.push((name.to_owned(), Setting::new(value, origin.clone())));
        }
    }

    /// Returns a value.
    pub fn peek(&self, name: &str) -> Option<&Setting<String>> {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, setting)| setting)
    }

    /// Removes and returns a value.
    pub fn take(&mut self, name: &str) -> Option<Setting<String>> {
        let index = self.entries.iter().position(|(known, _)| known == name)?;
        Some(self.entries.remove(index).1)
    }

    /// Removes and returns a path.
    pub fn take_path(&mut self, name: &str) -> Option<Setting<PathBuf>> {
        self.take(name).map(|setting| setting.map(PathBuf::from))
    }

    /// Removes and returns a port.
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

    /// Handles the options that are left. Those about encryption are refused, because ignoring one could make the connection less safe
    /// than it asks for. The others are ignored, with a warning unless they are `known` to have no meaning here.
    pub fn ignore_rest(self, known: &[&str], warnings: &mut Vec<String>) -> Result<(), ConfigError> {
        for (name, Setting { origin, .. }) in self.entries {
            let shown = name.escape_default();
            if name.starts_with("ssl") || name.starts_with("tls") {
                return Err(ConfigError::invalid(
                    &origin,
                    format!(
                        "the option {shown} is unknown, and ignoring it could make the connection less safe; give a --database-url without it, \
                         with --tls-mode and --tls-ca"
                    ),
                ));
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
    setting
        .value
        .trim()
        .parse()
        .map_err(|_| ConfigError::invalid(&setting.origin, format!("the option {name} must be an integer number of seconds")))
}

/// Checks that a host name or address is valid in a URL and harmless on a terminal. The error does not repeat it, because a misread URL
/// puts a part of the password here.
pub(super) fn check_host(name: &str, origin: &Origin) -> Result<(), ConfigError> {
    if name.contains(',') {
        return Err(ConfigError::invalid(
            origin,
            "the URL names several hosts, but a repair uses one server; name the primary with --database-url",
        ));
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '%')) {
        return Err(ConfigError::invalid(
            origin,
            "the host in the URL is not a host name or address; if it is a part of the password, write :, @ and / there as %3A, %40 and %2F",
        ));
    }
    Ok(())
}

/// The user to log in as if the URL names none.
pub(super) fn login(env: &Environment) -> Option<String> {
    env.login().map(str::to_owned)
}

/// The database name, or an error if it is missing.
pub(super) fn require_database(database: Option<String>, origin: &Origin) -> Result<String, ConfigError> {
    database
        .filter(|database| !database.is_empty())
        .ok_or_else(|| ConfigError::invalid(origin, "the URL names no database; end its path with the name, for example /cinder"))
}
