//! The origin of a setting, which every message about it names.

use std::fmt;
use std::path::PathBuf;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The default of Cinder or of a client library.
    Default,
    /// A command line option, with its dashes.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A file.
    File {
        /// The file as messages show it (`~/.pgpass`, `/etc/cinder/cinder.conf`).
        path: PathBuf,
        /// The line, from 1; `None` if the value is the file itself.
        line: Option<usize>,
        /// The section and the name of the option.
        option: Option<(String, String)>,
    },
}

impl Origin {
    /// A line of a file without sections.
    pub(super) fn line(path: impl Into<PathBuf>, line: usize) -> Self {
        Self::File { path: path.into(), line: Some(line), option: None }
    }

    /// An option in a section of a file.
    pub(super) fn option(path: impl Into<PathBuf>, line: usize, section: &str, key: &str) -> Self {
        Self::File { path: path.into(), line: Some(line), option: Some((section.to_owned(), key.to_owned())) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { path, line, option } => {
                write!(f, "{}", path.display())?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                if let Some((section, key)) = option {
                    write!(f, " [{section}] {key}")?;
                }
                Ok(())
            }
        }
    }
}

/// A value with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it was given.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// A value with its origin.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// A default value.
    pub fn default_of(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    /// Changes the value and keeps the origin.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: change(self.value), origin: self.origin }
    }
}
