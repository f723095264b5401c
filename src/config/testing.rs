//! A directory in place of the root of the file system, for the tests of this module.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::*;

/// A root directory with a home directory, and an environment that refers only to them.
pub(super) struct World {
    dir: tempfile::TempDir,
    pub env: Environment,
    pub flags: DatabaseFlags,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut env = Environment::new([("HOME".into(), dir.path().join("root").into_os_string()), ("USER".into(), OsString::from("dba"))]);
        env.root = dir.path().to_path_buf();
        Self { dir, env, flags: DatabaseFlags::default() }
    }

    /// A path in this world.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file that only its owner may read.
    pub fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        mode(&path, 0o600);
        path
    }

    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.env.vars.insert(name.to_owned(), value.into());
        self
    }

    pub fn url(mut self, url: &str) -> Self {
        self.flags.database_url = Some(SecretString::from(url));
        self
    }

    pub fn resolve(&self) -> Result<Resolved, ConfigError> {
        resolve(&self.flags, &self.env)
    }

    /// The error, without the path of the root directory.
    pub fn error(&self) -> String {
        self.resolve().unwrap_err().to_string().replace(&self.dir.path().display().to_string(), "")
    }

    pub fn server(&self) -> ServerTarget {
        match self.resolve().unwrap().database.target {
            Target::Server(server) => server,
            Target::Sqlite { path } => unreachable!("{}", path.display()),
        }
    }

    /// The password and its origin.
    pub fn password(&self) -> Option<(String, String)> {
        let database = self.resolve().unwrap().database;
        let Target::Server(server) = database.target else { return None };
        Some((server.password?.expose_secret().to_owned(), self.plain(&database.password_origin?.to_string())))
    }

    /// All warnings about the database.
    pub fn warnings(&self) -> String {
        self.plain(&self.resolve().unwrap().database.warnings.join("\n"))
    }

    fn plain(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "")
    }
}

pub(super) fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
