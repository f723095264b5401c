//! cinder.conf by oslo.config's rules: several files laid over each other, values that name other values, and for each
//! the place where it was written.

mod defaults;
mod lexer;
mod substitute;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use self::lexer::Assignment;
use self::substitute::Piece;
use super::environment::read_text;
use super::{ConfigError, Origin, Setting};

/// No value grows larger than this by substitution.
const LARGEST_VALUE: usize = 1024 * 1024;

/// An option's group, in the spelling that lookups use, and its name.
type Name = (String, String);

/// One file's options; each may be given several times.
struct File {
    path: PathBuf,
    options: HashMap<Name, Vec<Assignment>>,
}

/// Cinder's configuration.
///
/// Groups are compared without regard to case, `DEFAULT` excepted; names are compared exactly and have underscores. A
/// later file wins over an earlier one, and within a file the last line wins.
#[derive(Default)]
pub struct CinderConf {
    files: Vec<File>,
}

/// Never the values: there are passwords among them.
impl fmt::Debug for CinderConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CinderConf").field("files", &self.files().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// Whether an error may name what the value holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Plain,
    Secret,
}

impl CinderConf {
    /// Reads files in the order given, then the `*.conf` files of each directory in the order of their names.
    ///
    /// # Errors
    /// A file or directory that cannot be read, and a line that oslo.config would refuse.
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

    /// Lays one more file, already read, over those before it.
    pub(super) fn add(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let mut options: HashMap<Name, Vec<Assignment>> = HashMap::new();
        for option in lexer::parse(path, text)? {
            options.entry((normalised(&option.section), option.key.clone())).or_default().push(option);
        }
        self.files.push(File { path: path.to_path_buf(), options });
        Ok(())
    }

    /// The files that were read, in their order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The value that the files give an option, substituted; `None` if none does. Not for secrets: see
    /// [`CinderConf::get_secret`].
    pub fn get(&self, group: &str, name: &str) -> Result<Option<Setting<String>>, ConfigError> {
        self.first_of(&[(group, name)], Secrecy::Plain)
    }

    /// As [`CinderConf::get`], and where no file sets it, Cinder's default if it has one and this program knows it.
    pub fn get_or_default(&self, group: &str, name: &str) -> Result<Option<Setting<String>>, ConfigError> {
        if let Some(setting) = self.get(group, name)? {
            return Ok(Some(setting));
        }
        match defaults::of(group, name).flatten() {
            Some(value) => {
                let value = self.substitute(value, group, &Origin::Default, Secrecy::Plain, &mut Vec::new())?;
                Ok(Some(Setting::default_of(value)))
            }
            None => Ok(None),
        }
    }

    /// Whether this is an option of `[DEFAULT]` that this program reads.
    pub(super) fn knows(name: &str) -> bool {
        defaults::of("DEFAULT", name).is_some()
    }

    /// The value of a secret option; neither it nor an error about it can be printed by accident.
    pub fn get_secret(&self, group: &str, name: &str) -> Result<Option<Setting<SecretString>>, ConfigError> {
        self.get_secret_of(&[(group, name)])
    }

    /// The same for an option with older names: the latest file that has any of them decides, and in it the first name.
    pub(super) fn get_secret_of(&self, names: &[(&str, &str)]) -> Result<Option<Setting<SecretString>>, ConfigError> {
        Ok(self.first_of(names, Secrecy::Secret)?.map(|setting| setting.map(SecretString::from)))
    }

    /// All values of an option that may be given several times: the first file's first.
    pub fn get_all(&self, group: &str, name: &str) -> Result<Vec<Setting<String>>, ConfigError> {
        let wanted = (normalised(group), name.to_owned());
        let mut all = Vec::new();
        for file in &self.files {
            for option in file.options.get(&wanted).into_iter().flatten() {
                let origin = origin_of(file, option);
                let value = self.substitute(&option.value, &wanted.0, &origin, Secrecy::Plain, &mut Vec::new())?;
                all.push(Setting::new(value, origin));
            }
        }
        Ok(all)
    }

    /// A whole number, as Python's `int` reads it; empty counts as unset.
    pub fn get_int(&self, group: &str, name: &str, default: i64) -> Result<Setting<i64>, ConfigError> {
        match self.get(group, name)? {
            Some(Setting { value, origin }) if !value.trim().is_empty() => match parse_int(&value) {
                Some(value) => Ok(Setting::new(value, origin)),
                None => Err(ConfigError::invalid(&origin, format!("{value:?} is not a whole number"))),
            },
            _ => Ok(Setting::default_of(default)),
        }
    }

    /// A boolean: true, 1, on, yes or false, 0, off, no in any case.
    pub fn get_bool(&self, group: &str, name: &str, default: bool) -> Result<Setting<bool>, ConfigError> {
        self.get(group, name)?.map_or_else(|| Ok(Setting::default_of(default)), Self::boolean)
    }

    /// The boolean that a value spells.
    pub(super) fn boolean(Setting { value, origin }: Setting<String>) -> Result<Setting<bool>, ConfigError> {
        match value.to_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(Setting::new(true, origin)),
            "false" | "0" | "off" | "no" => Ok(Setting::new(false, origin)),
            _ => Err(ConfigError::invalid(&origin, format!("{value:?} is not a boolean; write true or false"))),
        }
    }

    fn first_of(&self, names: &[(&str, &str)], secrecy: Secrecy) -> Result<Option<Setting<String>>, ConfigError> {
        let Some((file, option)) = self.find(names) else { return Ok(None) };
        let origin = origin_of(file, option);
        let group = normalised(&option.section);
        let mut path = vec![(group.clone(), option.key.clone())];
        let value = self.substitute(&option.value, &group, &origin, secrecy, &mut path)?;
        Ok(Some(Setting::new(value, origin)))
    }

    fn find(&self, names: &[(&str, &str)]) -> Option<(&File, &Assignment)> {
        let names: Vec<Name> = names.iter().map(|(group, name)| (normalised(group), (*name).to_owned())).collect();
        self.files.iter().rev().find_map(|file| names.iter().find_map(|name| file.options.get(name)?.last()).map(|option| (file, option)))
    }

    /// Replaces the names in a value; `path` holds the options whose values are being replaced already.
    fn substitute(&self, value: &str, group: &str, origin: &Origin, secrecy: Secrecy, path: &mut Vec<Name>) -> Result<String, ConfigError> {
        let mut result = String::new();
        for piece in substitute::pieces(value) {
            match piece {
                Piece::Text(text) => result.push_str(&text),
                Piece::Name(name) => result.push_str(&self.named(&name, group, origin, secrecy, path)?),
            }
            if result.len() > LARGEST_VALUE {
                return Err(ConfigError::invalid(origin, "its value grows without end by substitution"));
            }
        }
        Ok(result)
    }

    /// The value that a name in another value stands for. A plain name is looked for in the same group, then in
    /// `DEFAULT`.
    fn named(&self, name: &str, group: &str, origin: &Origin, secrecy: Secrecy, path: &mut Vec<Name>) -> Result<String, ConfigError> {
        let places: Vec<Name> = match name.split_once('.') {
            Some((other, name)) => vec![(other.to_owned(), name.to_owned())],
            None => vec![(group.to_owned(), name.to_owned()), ("DEFAULT".to_owned(), name.to_owned())],
        };
        for place in places {
            if path.contains(&place) && self.find(&[(&place.0, &place.1)]).is_some() {
                return Err(ConfigError::invalid(origin, format!("its value leads back to itself through {}", place.1)));
            }
            // oslo.config knows a group by its registered, lower-case name only, and [DEFAULT] by none.
            let dotted = name.contains('.');
            if dotted && place.0 != place.0.to_lowercase() {
                continue;
            }
            let (value, from) = match self.find(&[(&place.0, &place.1)]) {
                Some((file, option)) => (option.value.as_str(), origin_of(file, option)),
                None => match defaults::of(&place.0, &place.1) {
                    Some(value) => (value.unwrap_or_default(), origin.clone()),
                    None => continue,
                },
            };
            path.push(place.clone());
            let value = self.substitute(value, &place.0, &from, secrecy, path)?;
            path.pop();
            return Ok(value);
        }
        // In a secret, what follows the dollar sign may well be a part of it.
        let named = if secrecy == Secrecy::Plain { format!("${name}") } else { "a $name".to_owned() };
        Err(ConfigError::invalid(
            origin,
            format!(
                "its value holds {named} that no file sets and that has no default known here; set that option, or write $$ for a dollar sign"
            ),
        ))
    }
}

/// A group's name as lookups compare it.
fn normalised(group: &str) -> String {
    if group == "DEFAULT" { group.to_owned() } else { group.to_lowercase() }
}

fn origin_of(file: &File, option: &Assignment) -> Origin {
    Origin::option(&file.path, option.line, &option.section, &option.key)
}

/// The `*.conf` files of a directory by name; like a shell's `*`, without hidden ones.
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

/// A whole number as Python's `int` takes it: white space around, a sign, single underscores between digits.
fn parse_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let proper = digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if proper { text.replace('_', "").parse().ok() } else { None }
}
