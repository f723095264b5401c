//! The environment of the process as a value. No other part of `config` reads the real environment, so a test can set it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{ConfigError, Origin};
use crate::input;

/// The largest configuration file. A larger file is a mistake.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// The part of the process's environment on which the configuration depends.
#[derive(Clone)]
pub struct Environment {
    /// The environment variables.
    pub vars: BTreeMap<String, OsString>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// The root of the usual places (`/etc/cinder`, `/var/run/postgresql`). It is `/`, except in tests and for a file system that is
    /// mounted elsewhere.
    pub root: PathBuf,
}

impl Default for Environment {
    fn default() -> Self {
        Self { vars: BTreeMap::new(), home: None, root: PathBuf::from("/") }
    }
}

/// Shows only the names of variables, because a value may be a password.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("vars", &self.vars.keys().collect::<Vec<_>>())
            .field("home", &self.home)
            .field("root", &self.root)
            .finish()
    }
}

impl Environment {
    /// From the variables of a process; the home directory is `HOME`.
    pub fn new(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let vars: BTreeMap<String, OsString> =
            vars.into_iter().filter_map(|(name, value)| name.into_string().ok().map(|name| (name, value))).collect();
        let home = vars.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        Self { vars, home, root: PathBuf::from("/") }
    }

    /// A variable that is set, UTF-8 and not empty.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name)?.to_str().filter(|value| !value.is_empty())
    }

    /// Like [`Environment::var`], but an error if the variable is not UTF-8.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>, ConfigError> {
        match self.vars.get(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value.to_str().map(Some).ok_or_else(|| ConfigError::invalid(&Origin::Variable(name), "its value is not UTF-8")),
        }
    }

    /// A variable as a path.
    pub(super) fn path_var(&self, name: &str) -> Option<PathBuf> {
        self.vars.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The name of the user who runs the program.
    pub(super) fn login(&self) -> Option<&str> {
        self.var("USER").or_else(|| self.var("LOGNAME"))
    }

    /// A file in the home directory.
    pub(super) fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }

    /// An absolute path below [`Environment::root`].
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Makes `~` and `~/x` absolute, as Python's `expanduser` does for the current user.
    pub(super) fn expand_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix('~'), &self.home) {
            (Some(""), Some(home)) => home.clone(),
            (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            _ => PathBuf::from(path),
        }
    }

    /// The path with `~` for the home directory, for people.
    pub(super) fn shown(&self, path: &Path) -> PathBuf {
        match &self.home {
            Some(home) => path.strip_prefix(home).map_or_else(|_| path.to_path_buf(), |rest| Path::new("~").join(rest)),
            None => path.to_path_buf(),
        }
    }
}

/// Reads a text file up to the size limit.
pub(super) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let bytes = input::read(path, LARGEST_FILE).map_err(|error| ConfigError::unreadable(path, error))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        ConfigError::Syntax { path: path.display().to_string(), line, problem: "is not UTF-8; convert the file".to_owned() }
    })
}
