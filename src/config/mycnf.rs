//! MySQL's option files (my.cnf), as far as a client's connection depends on them.
//!
//! Two dialects exist: the client library has escapes, `#` as the end of a line and `!include`; Python's configparser, which PyMySQL
//! uses, has none of these. A file in a URL is read as the URL's driver reads it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::environment::read_text;
use super::url_options::parse_bool;
use super::{ConfigError, Environment, Origin, Setting};

/// The largest depth of includes, as in the client library.
const DEEPEST_INCLUDE: usize = 10;

/// Whose rules apply, to option files and to URLs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// mysqlclient, Oracle's and MariaDB's connectors, on the C client libraries.
    Library,
    /// PyMySQL and similar drivers in pure Python.
    Python,
}

struct OptionLine {
    group: String,
    key: String,
    /// `None` for a name without a value.
    setting: Setting<Option<String>>,
}

/// An option file and its includes. It contains passwords and must not be printed.
pub(super) struct MyCnf {
    entries: Vec<OptionLine>,
    /// Everybody may write to the file. The client library ignores such a file.
    pub world_writable: bool,
}

impl MyCnf {
    /// Reads a file and its includes.
    pub fn load(path: &Path, dialect: Dialect, env: &Environment) -> Result<Self, ConfigError> {
        let mut file = Self { entries: Vec::new(), world_writable: world_writable(path) };
        file.read(path, dialect, env, 0)?;
        Ok(file)
    }

    /// The last value in any of the groups; `-` and `_` are the same.
    pub fn get(&self, groups: &[&str], key: &str) -> Option<&Setting<Option<String>>> {
        self.entries.iter().rev().find(|entry| entry.key == key && groups.contains(&entry.group.as_str())).map(|entry| &entry.setting)
    }

    /// A boolean. The name without a value is true.
    pub fn get_bool(&self, groups: &[&str], key: &str) -> Result<Option<Setting<bool>>, ConfigError> {
        let Some(setting) = self.get(groups, key) else { return Ok(None) };
        let on = match setting.value.as_deref() {
            None | Some("") => true,
            Some(value) => parse_bool(value).ok_or_else(|| ConfigError::invalid(&setting.origin, format!("{key} must be 0 or 1")))?,
        };
        Ok(Some(Setting::new(on, setting.origin.clone())))
    }

    /// The password; an empty one counts as unset.
    pub fn password(&self, groups: &[&str]) -> Option<Setting<SecretString>> {
        let setting = self.get(groups, "password")?;
        let password = setting.value.as_deref().filter(|password| !password.is_empty())?;
        Some(Setting::new(SecretString::from(password), setting.origin.clone()))
    }

    fn read(&mut self, path: &Path, dialect: Dialect, env: &Environment, depth: usize) -> Result<(), ConfigError> {
        let text = read_text(path)?;
        let shown = env.shown(path);
        let mut group: Option<String> = None;
        for (index, line) in text.lines().enumerate() {
            let wrong = |problem: &str| {
                let problem = problem.to_owned();
                Err(ConfigError::Syntax { path: shown.display().to_string(), line: index + 1, problem })
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(directive) = line.strip_prefix('!') {
                if dialect == Dialect::Library {
                    self.include(directive, dialect, env, depth)?;
                }
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let Some((name, _)) = rest.split_once(']') else {
                    return wrong("a group name must end with ]");
                };
                group = Some(name.trim_end().to_owned());
                continue;
            }
            let Some(group) = &group else {
                return wrong("an option before the first [group]");
            };
            let (key, value) = match dialect {
                Dialect::Library => split_library(line),
                Dialect::Python => split_python(line),
            };
            let key = key.replace('_', "-").to_ascii_lowercase();
            let key = key.strip_prefix("loose-").unwrap_or(&key).to_owned();
            let origin = Origin::option(&shown, index + 1, group, &key);
            self.entries.push(OptionLine { group: group.clone(), key, setting: Setting::new(value, origin) });
        }
        Ok(())
    }

    /// Handles `!include FILE` and `!includedir DIRECTORY`. A missing file and an unknown directive are ignored, as in the client
    /// library.
    fn include(&mut self, directive: &str, dialect: Dialect, env: &Environment, depth: usize) -> Result<(), ConfigError> {
        if depth >= DEEPEST_INCLUDE {
            return Ok(());
        }
        let Some((word, path)) = directive.split_once(char::is_whitespace) else { return Ok(()) };
        let path = PathBuf::from(path.trim());
        let paths = match word {
            "include" => vec![path],
            "includedir" => {
                let entries = fs::read_dir(&path).map_err(|error| ConfigError::unreadable(&path, error))?;
                let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
                paths.retain(|path| path.extension().is_some_and(|extension| extension == "cnf"));
                paths.sort();
                paths
            }
            _ => return Ok(()),
        };
        for path in paths {
            if path.is_file() && !world_writable(&path) {
                self.read(&path, dialect, env, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn world_writable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o002 != 0)
}

/// One option as the client library reads it.
fn split_library(line: &str) -> (&str, Option<String>) {
    let line = without_comment(line).trim_end();
    let Some((key, value)) = line.split_once('=') else { return (line, None) };
    (key.trim_end(), Some(unescape(unquote(value.trim()))))
}

/// One option as PyMySQL reads it.
fn split_python(line: &str) -> (&str, Option<String>) {
    let Some((key, value)) = line.split_once(['=', ':']) else { return (line, None) };
    (key.trim_end(), Some(unquote(value.trim()).to_owned()))
}

/// The line up to a `#` outside quotes. In quotes a backslash escapes the next character.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match quote {
            None if c == '#' => return line.get(..at).unwrap_or(line),
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if c == open && !escaped => quote = None,
            _ => {}
        }
        escaped = quote.is_some() && c == '\\' && !escaped;
    }
    line
}

/// Removes one pair of equal quotes around a value.
fn unquote(value: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value)
}

/// Replaces the client library's escapes. A backslash before any other character stays.
fn unescape(value: &str) -> String {
    let mut result = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            result.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => result.push('\n'),
            Some('t') => result.push('\t'),
            Some('r') => result.push('\r'),
            Some('b') => result.push('\u{8}'),
            Some('s') => result.push(' '),
            Some(quoted @ ('"' | '\'' | '\\')) => result.push(quoted),
            Some(other) => result.extend(['\\', other]),
            None => result.push('\\'),
        }
    }
    result
}

#[cfg(test)]
mod tests;
