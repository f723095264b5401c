//! What every command needs: the user interface, the shared options, the right database.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::{DecisionArgs, Global, SelectionArgs};
use super::{Error, Exit, Monitor, Result, Ui};
use crate::config::{CinderConf, Environment, Resolved, Target};
use crate::db::{DbError, DbErrorKind, SessionSettings};
use crate::domain::Selection;
use crate::domain::text::shell_word;
use crate::workflow::{Database, SigningKey, Wanted};

/// What every command needs.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub ui: &'a Ui,
    pub global: &'a Global,
    /// The environment variables that the configuration depends on.
    pub environment: &'a Environment,
    pub monitor: &'a Monitor,
}

/// Runs a command line of this program inside of this one: its words, the environment, whether it is muted, and what changes its shared
/// options.
pub type RunCommand = dyn Fn(Vec<OsString>, &Environment, bool, &dyn Fn(&mut Global)) -> Result<Exit>;

impl Context<'_> {
    /// Finds the database, connects, and reads its schema.
    pub fn connect(&self) -> Result<Database> {
        let resolved = self.resolve()?;
        for warning in resolved.warnings.iter().chain(&resolved.database.warnings) {
            self.ui.warn(warning);
        }
        self.open(resolved)
    }

    /// Finds the database and the configuration.
    pub fn resolve(&self) -> Result<Resolved> {
        crate::config::resolve(&self.global.database.flags, self.environment).map_err(Error::usage)
    }

    /// Connects to the database, and reads its schema.
    pub fn open(&self, mut resolved: Resolved) -> Result<Database> {
        let (location, origin) = (resolved.database.target.describe(), resolved.database.origin.clone());
        let has_no_password = matches!(&resolved.database.target, Target::Server(server) if server.password.is_none());
        // The wrong database may be configured: say which it is, and where its name was found.
        let unusable = |error: DbError| {
            let how = if error.kind == DbErrorKind::Authentication && has_no_password {
                "; no password was given: use --password-file or CINDER_DATABASE_PASSWORD"
            } else {
                ""
            };
            let error = Error::from(error);
            Error { hint: error.hint.or_else(|| Some(format!("the database is {location}, from {origin}{how}"))), ..error }
        };
        let args = &self.global.database;
        let limits = SessionSettings {
            connect_timeout: args.connect_timeout,
            statement_timeout: args.statement_timeout,
            lock_timeout: args.lock_timeout,
            insecure_auth: args.insecure_auth,
        };
        self.ui.detail(format!("database: {location} (from {origin})"));
        match Database::open(&resolved, limits.clone()) {
            // The server requires a password and none was given: ask, if there is a terminal.
            Err(error) if error.kind == DbErrorKind::Authentication && self.ui.can_ask() => match &mut resolved.database.target {
                Target::Server(server) if server.password.is_none() => {
                    server.password = Some(super::prompt::password(self.ui, &format!("Password for {location}"))?);
                    Database::open(&resolved, limits).map_err(unusable)
                }
                _ => Err(unusable(error)),
            },
            other => other.map_err(unusable),
        }
    }

    /// The rows that a command judges, and the rules; warns if the heartbeat intervals are only defaults.
    pub fn wanted(&self, args: &SelectionArgs, selection: Selection, decision: &DecisionArgs, database: &Database) -> Result<Wanted> {
        if database.has_default_intervals && args.service_down_time.is_none() {
            self.ui.warn(format!(
                "no cinder.conf was read, so a service counts as down after {} s without a heartbeat, Cinder's default, or after two and a \
                 half times the average interval of its heartbeats if that is longer; use --config-file, or --service-down-time if this \
                 cloud has another value",
                database.service_down_time
            ));
        }
        args.wanted(selection, Some(decision), database)
    }

    /// Cinder's configuration, where no database is needed.
    pub fn cinder_conf(&self) -> Result<CinderConf> {
        let (cinder, warnings) = crate::config::cinder_conf(&self.global.database.flags, self.environment).map_err(Error::usage)?;
        for warning in warnings {
            self.ui.detail(warning);
        }
        Ok(cinder)
    }

    /// Where the audit log is, for commands that read what it holds.
    pub fn existing_audit_log(&self) -> Result<PathBuf> {
        let path = self.audit_path()?;
        if path.exists() {
            return Ok(path);
        }
        let problem = format!("the audit log {} does not exist: this account changed nothing, or the log is elsewhere", path.display());
        Err(Error::usage(problem).hint("name the log with --audit-log"))
    }

    pub fn audit_path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.global.record.audit_log {
            return Ok(path.clone());
        }
        let uid = rustix::process::geteuid().as_raw();
        crate::audit::default_path(uid, |name| std::env::var_os(name)).map_err(Error::from)
    }

    /// The private key of `--sign-key`; warns if others can read it.
    pub fn signing_key(&self, path: Option<&Path>) -> Result<Option<SigningKey>> {
        let Some(path) = path else { return Ok(None) };
        let key = SigningKey::read(path)?;
        if key.is_exposed {
            self.ui.warn(format!("the private key {0} can be read by others; run chmod 600 {0}", path.display()));
        }
        Ok(Some(key))
    }

    /// The options that a command needs for the same database and the same log, with a leading blank and without a password.
    pub fn same_places(&self, opened: &Database) -> String {
        let (database, log) = (&self.global.database, &self.global.record.audit_log);
        let flags = &database.flags;
        let given = |option: &'static str, paths: &[PathBuf]| {
            paths.iter().map(|path| format!(" {option} {}", shell_word(path.display()))).collect::<String>()
        };
        if self.ui.is_inner() {
            return String::new();
        }
        let url = opened.url.as_ref().map(|url| format!(" --database-url {}", shell_word(url))).unwrap_or_default();
        [
            url,
            given("--config-file", &flags.config_files),
            given("--config-dir", &flags.config_dirs),
            given("--password-file", flags.password_file.as_slice()),
            flags.tls_mode.map(|mode| format!(" --tls-mode {mode}")).unwrap_or_default(),
            given("--tls-ca", flags.tls_ca.as_slice()),
            given("--tls-cert", flags.tls_cert.as_slice()),
            given("--tls-key", flags.tls_key.as_slice()),
            if database.insecure_auth { " --insecure-auth".to_owned() } else { String::new() },
            given("--audit-log", log.as_slice()),
        ]
        .concat()
    }
}

/// Follow-up commands to paste; this program's own get the options for the same database.
pub fn follow_ups(commands: &[String], same_places: &str) -> Vec<String> {
    let again = |command: &String| if command.starts_with("cinder-backup-repair ") { same_places } else { "" };
    commands.iter().map(|command| format!("{command}{}", again(command))).collect()
}
