//! cinder.conf by oslo.config's rules: several files that override each other, values that refer to others, and the origin of each
//! value.

mod defaults;
mod lexer;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use self::lexer::Assignment;
use super::environment::read_text;
use super::{ConfigError, Origin, Setting};

/// The largest value after substitution.
const LARGEST_VALUE: usize = 1024 * 1024;

/// The normalized group of an option, and its name.
type OptionName = (String, String);

#[derive(Clone)]
struct ConfFile {
    path: PathBuf,
    options: HashMap<OptionName, Assignment>,
}

/// Cinder's configuration.
///
/// Groups are compared without regard to case, except for `DEFAULT`. Names are compared exactly and have underscores. A later file
/// overrides an earlier one, and within a file the last line counts.
#[derive(Clone, Default)]
pub struct CinderConf {
    files: Vec<ConfFile>,
}

/// Shows no values, because some are passwords.
impl fmt::Debug for CinderConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CinderConf").field("files", &self.files().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// The value in which names are replaced.
struct Substitution<'a> {
    group: &'a str,
    origin: &'a Origin,
    /// An error must not show anything of the value.
    secret: bool,
}

impl CinderConf {
    /// Reads files in the given order, then the `*.conf` files of each directory in the order of their names.
    ///
    /// # Errors
    /// A file or directory that cannot be read, and a line that oslo.config refuses.
    pub fn load(files: &[PathBuf], dirs: &[PathBuf]) -> Result<Self, ConfigError> {
        let mut conf = Self::default();
        for path in files {
            conf.add(path, &read_text(path)?)?;
        }
        for dir in dirs {
            for path in conf_files(dir)? {
                conf.add(&path, &read_text(&path)?)?;
            }
        }
        Ok(conf)
    }

    /// Adds the text of a file, which overrides the files before it.
    pub(super) fn add(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let named = |option: Assignment| ((normalized(&option.section), option.key.clone()), option);
        let options = lexer::parse(path, text)?.into_iter().map(named).collect();
        self.files.push(ConfFile { path: path.to_path_buf(), options });
        Ok(())
    }

    /// The files that were read, in order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The value of an option in the files, after substitution. For secrets, use [`CinderConf::get_secret`].
    pub(super) fn get(&self, group: &str, name: &str) -> Result<Option<Setting<String>>, ConfigError> {
        self.first_of(&[(group, name)], false)
    }

    /// Like [`CinderConf::get`], or else Cinder's default if there is one and this program knows it.
    pub(super) fn get_or_default(&self, group: &str, name: &str) -> Result<Option<Setting<String>>, ConfigError> {
        if let Some(setting) = self.get(group, name)? {
            return Ok(Some(setting));
        }
        let Some(value) = defaults::of(group, name).flatten() else { return Ok(None) };
        let context = Substitution { group, origin: &Origin::Default, secret: false };
        Ok(Some(Setting::default_of(self.substitute(value, &context, &mut Vec::new())?)))
    }

    /// Whether this program reads this option of `[DEFAULT]`.
    pub(super) fn knows(name: &str) -> bool {
        defaults::of("DEFAULT", name).is_some()
    }

    /// The names of all options of `[DEFAULT]` that this program knows.
    pub(super) fn known() -> impl Iterator<Item = &'static str> {
        defaults::names()
    }

    /// The value of a secret option by its name and its older names. The last file with any of them counts, and in it the first name. An
    /// error does not show anything of the value.
    pub(super) fn get_secret(&self, names: &[(&str, &str)]) -> Result<Option<Setting<SecretString>>, ConfigError> {
        Ok(self.first_of(names, true)?.map(|setting| setting.map(SecretString::from)))
    }

    /// An integer, as Python's `int` reads it; an empty value counts as unset.
    pub(super) fn get_int(&self, group: &str, name: &str, default: i64) -> Result<Setting<i64>, ConfigError> {
        match self.get(group, name)? {
            Some(Setting { value, origin }) if !value.trim().is_empty() => match parse_int(&value) {
                Some(value) => Ok(Setting::new(value, origin)),
                None => Err(ConfigError::invalid(&origin, format!("{value:?} is not an integer"))),
            },
            _ => Ok(Setting::default_of(default)),
        }
    }

    fn first_of(&self, names: &[(&str, &str)], secret: bool) -> Result<Option<Setting<String>>, ConfigError> {
        let Some((file, option)) = self.find(names) else { return Ok(None) };
        let origin = origin_of(file, option);
        let group = normalized(&option.section);
        let mut path = vec![(group.clone(), option.key.clone())];
        let value = self.substitute(&option.value, &Substitution { group: &group, origin: &origin, secret }, &mut path)?;
        Ok(Some(Setting::new(value, origin)))
    }

    fn find(&self, names: &[(&str, &str)]) -> Option<(&ConfFile, &Assignment)> {
        let names: Vec<OptionName> = names.iter().map(|(group, name)| (normalized(group), (*name).to_owned())).collect();
        self.files.iter().rev().find_map(|file| names.iter().find_map(|name| file.options.get(name)).map(|option| (file, option)))
    }

    /// Replaces `$name`, `${name}` and `$group.name` in a value, as oslo.config's template does. `$$` and `\$` are a dollar sign; a `$`
    /// that does not begin a name stays. `path` has the options whose values are being replaced already.
    fn substitute(&self, value: &str, context: &Substitution<'_>, path: &mut Vec<OptionName>) -> Result<String, ConfigError> {
        let value = value.replace("\\$", "$$");
        let mut result = String::new();
        let mut push = |text: &str| {
            result.push_str(text);
            let fits = result.len() <= LARGEST_VALUE;
            if fits { Ok(()) } else { Err(ConfigError::invalid(context.origin, "its value is too large after substitution")) }
        };
        let mut rest = value.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            push(before)?;
            rest = if let Some((name, after)) = take_name(after) {
                push(&self.lookup(name, context, path)?)?;
                after
            } else {
                push("$")?;
                after.strip_prefix('$').unwrap_or(after)
            };
        }
        push(rest)?;
        Ok(result)
    }

    /// The value of an option that another value refers to. A name without a group is searched in the same group, then in `DEFAULT`.
    fn lookup(&self, name: &str, context: &Substitution<'_>, path: &mut Vec<OptionName>) -> Result<String, ConfigError> {
        let Substitution { group, origin, secret } = *context;
        let places: Vec<OptionName> = match name.split_once('.') {
            Some((other, name)) => vec![(other.to_owned(), name.to_owned())],
            None => vec![(group.to_owned(), name.to_owned()), ("DEFAULT".to_owned(), name.to_owned())],
        };
        for place in places {
            let found = self.find(&[(&place.0, &place.1)]);
            if path.contains(&place) && found.is_some() {
                return Err(ConfigError::invalid(origin, format!("its value refers to itself through {}", place.1)));
            }
            // oslo.config finds a group only by its registered, lower-case name, and does not find [DEFAULT].
            if name.contains('.') && place.0 != place.0.to_lowercase() {
                continue;
            }
            let (value, from) = match found {
                Some((file, option)) => (option.value.as_str(), origin_of(file, option)),
                None => match defaults::of(&place.0, &place.1) {
                    Some(value) => (value.unwrap_or_default(), origin.clone()),
                    None => continue,
                },
            };
            path.push(place.clone());
            let value = self.substitute(value, &Substitution { group: &place.0, origin: &from, secret }, path)?;
            path.pop();
            return Ok(value);
        }
        // In a secret, the text after the dollar sign may be a part of the secret.
        let shown = if secret { "a $name".to_owned() } else { format!("${name}") };
        let problem = format!(
            "its value refers to {shown}, which no file sets and which has no known default; set that option, or write $$ for a dollar sign"
        );
        Err(ConfigError::invalid(origin, problem))
    }
}

/// The name at the start of a text, in braces or without, and the text after it.
fn take_name(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let text = braced.unwrap_or(text);
    let begins = |c: char| c == '_' || c.is_ascii_alphabetic();
    if !text.starts_with(begins) {
        return None;
    }
    let end = text.find(|c: char| !begins(c) && c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    Some((name, if braced.is_some() { rest.strip_prefix('}')? } else { rest }))
}

/// The name of a group as lookups compare it.
fn normalized(group: &str) -> String {
    if group == "DEFAULT" { group.to_owned() } else { group.to_lowercase() }
}

fn origin_of(file: &ConfFile, option: &Assignment) -> Origin {
    Origin::option(&file.path, option.line, &option.section, &option.key)
}

/// The `*.conf` files of a directory in the order of their names; without hidden files, as for a shell's `*`.
fn conf_files(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| ConfigError::unreadable(dir, error))? {
        let path = entry.map_err(|error| ConfigError::unreadable(dir, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".conf") && !name.starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// An integer as Python's `int` accepts it: white space around it, a sign, single underscores between digits.
fn parse_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let proper = digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if proper { text.replace('_', "").parse().ok() } else { None }
}
