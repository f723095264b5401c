//! What a URL and the files that it names say about a server, before passwords and flags are put to it.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::url::parse_port;
use super::{ConfigError, Environment, Host, Origin, ServerKind, ServerTarget, Setting, TlsMode, TlsSettings};

/// A server as the URL describes it.
pub(super) struct Draft {
    pub kind: ServerKind,
    pub host: Host,
    pub port: u16,
    pub database: String,
    pub user: Option<String>,
    /// The password that the URL holds, or the service that it names.
    pub password: Option<Setting<SecretString>>,
    /// The password of the option file that the URL names.
    pub file_password: Option<Setting<SecretString>>,
    /// The file of PostgreSQL passwords that the URL names.
    pub passfile: Option<Setting<PathBuf>>,
    pub tls: TlsDraft,
    pub connect_timeout: Option<Duration>,
    pub options: Option<String>,
    pub warnings: Vec<String>,
}

/// What was said about encryption, and where; `None` is "nothing".
#[derive(Default)]
pub(super) struct TlsDraft {
    pub mode: Option<Setting<TlsMode>>,
    pub ca: Option<Setting<PathBuf>>,
    pub cert: Option<Setting<PathBuf>>,
    pub key: Option<Setting<PathBuf>>,
    /// The system's authorities were asked for by name (`sslrootcert=system`).
    pub system_roots: bool,
}

impl Draft {
    /// The target, with everything decided.
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

/// Named values with their places. A value that was put in first stays: put the strongest source in first.
#[derive(Default)]
pub(super) struct Options {
    entries: Vec<(String, Setting<String>)>,
}

impl Options {
    /// Puts a value in unless its name has one already.
    pub fn put(&mut self, name: &str, value: String, origin: &Origin) {
        if self.peek(name).is_none() {
            self.entries.push((name.to_owned(), Setting::new(value, origin.clone())));
        }
    }

    /// Looks at a value.
    pub fn peek(&self, name: &str) -> Option<&Setting<String>> {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, setting)| setting)
    }

    /// Takes a value out.
    pub fn take(&mut self, name: &str) -> Option<Setting<String>> {
        let index = self.entries.iter().position(|(known, _)| known == name)?;
        Some(self.entries.remove(index).1)
    }

    /// Takes a path out.
    pub fn take_path(&mut self, name: &str) -> Option<Setting<PathBuf>> {
        self.take(name).map(|setting| setting.map(PathBuf::from))
    }

    /// Takes a port out.
    pub fn take_port(&mut self, name: &str) -> Result<Option<u16>, ConfigError> {
        self.take(name).map(|setting| parse_port(&setting.value, &setting.origin)).transpose()
    }

    /// Takes a boolean out, in the spellings of SQLAlchemy.
    pub fn take_bool(&mut self, name: &str) -> Result<Option<Setting<bool>>, ConfigError> {
        let Some(Setting { value, origin }) = self.take(name) else { return Ok(None) };
        match parse_bool(&value) {
            Some(value) => Ok(Some(Setting::new(value, origin))),
            None => Err(ConfigError::invalid(&origin, format!("the option {name} must be true or false"))),
        }
    }

    /// What nobody took.
    pub fn rest(self) -> impl Iterator<Item = (String, Origin)> {
        self.entries.into_iter().map(|(name, setting)| (name, setting.origin))
    }
}

/// A boolean in any spelling that SQLAlchemy takes.
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
        .map_err(|_| ConfigError::invalid(&setting.origin, format!("the option {name} must be a whole number of seconds")))
}

/// A host name or address as it can stand in a URL and on a terminal; otherwise an error that does not repeat it (a
/// misread URL puts half a password here).
pub(super) fn check_host(name: &str, origin: &Origin) -> Result<(), ConfigError> {
    if name.contains(',') {
        return Err(ConfigError::invalid(
            origin,
            "the URL names several hosts, but a repair talks to one server; name the primary with --database-url",
        ));
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '%')) {
        return Err(ConfigError::invalid(
            origin,
            "the URL's host is no host name or address; if a part of the password was taken for it, write :, @ and / there as %3A, %40 and %2F",
        ));
    }
    Ok(())
}

/// The user to log in as, where nothing names one.
pub(super) fn login(env: &Environment) -> Option<String> {
    env.login().map(str::to_owned)
}

/// The database's name, or the error that it lacks.
pub(super) fn require_database(database: Option<String>, origin: &Origin) -> Result<String, ConfigError> {
    database
        .filter(|database| !database.is_empty())
        .ok_or_else(|| ConfigError::invalid(origin, "the URL names no database; end its path with /cinder, for example"))
}
