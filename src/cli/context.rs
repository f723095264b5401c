//! What every command needs: the user interface, the settings, a session on the right database.

use std::path::PathBuf;

use super::args::Global;
use super::error::{Error, Result};
use super::exit::Exit;
use super::ui::Ui;
use crate::config::{CinderConf, DatabaseFlags, DatabaseSettings, Environment, Resolved, Target};
use crate::db::schema::Schema;
use crate::db::statements::MISSING_PRIVILEGES;
use crate::db::{DbError, DbErrorKind, Session, SessionSettings};
use crate::domain::Value;
use crate::domain::text::shell_word;
use secrecy::SecretString;

/// What every command needs.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What prints.
    pub ui: &'a Ui,
    /// The options that all commands share.
    pub global: &'a Global,
    /// The environment, as far as the configuration depends on it.
    pub environment: &'a Environment,
}

/// A session with what is known about its database.
pub struct Connected {
    /// The session.
    pub session: Box<dyn Session>,
    /// What the database has.
    pub schema: Schema,
    /// Where it is, without the password.
    pub location: String,
    /// Cinder's `service_down_time`, in seconds.
    pub service_down_time: i64,
    /// Cinder's `report_interval`, in seconds.
    pub report_interval: u64,
    /// What has to be typed after a command so that it is about the same database and the same log, with a blank before it. No
    /// password is part of it.
    pub same_places: String,
    /// Nothing says either: they are Cinder's defaults.
    pub assumed: bool,
    /// The GRANTs that the account lacks for a repair; empty until they were looked up.
    pub missing_grants: Vec<String>,
    settings: DatabaseSettings,
    limits: SessionSettings,
}

impl Connected {
    /// Says so where verdicts rest on how Cinder's services beat by default, and nobody said that they do.
    pub fn warn_of_defaults(&self, ui: &Ui, down_time_is_given: bool) {
        if self.assumed && !down_time_is_given {
            ui.warn(format!(
                "no cinder.conf was read, so a service counts as dead after {} s without a heartbeat, Cinder's default, or after two and a \
                 half times the average interval of its own beats if that is longer; give --config-file, or --service-down-time if this \
                 cloud's is another",
                self.service_down_time
            ));
        }
    }

    /// Connects anew: a check of the storage can take longer than a server keeps an idle connection.
    pub fn reconnect(&mut self) -> Result<()> {
        let opened = self.opener()()?;
        self.session = opened;
        Ok(())
    }

    /// Finds out which GRANTs the account lacks for a repair.
    pub fn missing_grants(&mut self) -> Result<&[String]> {
        let mut found = self.session.rows(&MISSING_PRIVILEGES, &[]);
        // While a person reads and types, a proxy or the server may close an idle connection.
        if found.as_ref().is_err_and(DbError::is_fatal) {
            self.reconnect()?;
            found = self.session.rows(&MISSING_PRIVILEGES, &[]);
        }
        let grant = |row: &Vec<Value>| match row.as_slice() {
            [Value::Text(columns), Value::Text(table), Value::Text(account)] => {
                Some(format!("GRANT UPDATE ({columns}) ON {table} TO {account}"))
            }
            _ => None,
        };
        self.missing_grants = found?.iter().filter_map(grant).collect();
        Ok(&self.missing_grants)
    }

    /// A closure that opens another session on the same database, and borrows nothing of this one.
    pub fn opener(&self) -> impl Fn() -> std::result::Result<Box<dyn Session>, DbError> + use<> {
        let (target, limits, server) = (self.settings.target.clone(), self.limits.clone(), self.session.server().clone());
        move || crate::db::reopen(&target, &limits, &server)
    }
}

impl Context<'_> {
    /// Finds the database, connects, and looks what it has.
    pub fn connect(&self) -> Result<Connected> {
        let resolved = self.resolve()?;
        let mut settings = resolved.database;
        for warning in resolved.warnings.iter().chain(&settings.warnings) {
            self.ui.warn(warning);
        }
        let location = settings.target.describe();
        // A database that cannot be used may be one that nobody meant: say which, and who named it.
        let named = format!("the database is {location}, from {}", settings.origin);
        let same_places = self.same_places(&settings);
        let has_no_password = matches!(&settings.target, Target::Server(server) if server.password.is_none());
        let unusable = |error: DbError| {
            let how = if error.kind == DbErrorKind::Authentication && has_no_password {
                "; no password was given: --password-file and CINDER_DATABASE_PASSWORD take one"
            } else {
                ""
            };
            let error = Error::from(error);
            Error { hint: error.hint.or_else(|| Some(format!("{named}{how}"))), ..error }
        };
        let args = &self.global.database;
        let limits = SessionSettings {
            connect_timeout: args.connect_timeout,
            statement_timeout: args.statement_timeout,
            lock_timeout: args.lock_timeout,
            settle_reads: true,
            insecure_auth: args.insecure_auth,
        };
        self.ui.detail(format!("database: {location} (from {})", settings.origin));
        let mut session = match crate::db::open(&settings.target, &limits) {
            // A server that wants a password which nobody has given: ask, if there is somebody to ask.
            Err(error) if error.kind == DbErrorKind::Authentication && self.ui.can_ask() => match &mut settings.target {
                Target::Server(server) if server.password.is_none() => {
                    server.password = Some(super::prompt::password(self.ui, &format!("Password for {location}"))?);
                    crate::db::open(&settings.target, &limits).map_err(unusable)?
                }
                _ => return Err(unusable(error)),
            },
            other => other.map_err(unusable)?,
        };
        let schema = crate::db::schema::probe(session.as_mut()).map_err(unusable)?;
        let service_down_time = i64::try_from(resolved.service.service_down_time.value).unwrap_or(60);
        Ok(Connected {
            session,
            schema,
            location,
            same_places,
            service_down_time,
            report_interval: resolved.service.report_interval.value,
            missing_grants: Vec::new(),
            assumed: resolved.cinder.files().next().is_none(),
            settings,
            limits,
        })
    }

    /// Cinder's configuration, where no database is needed.
    pub fn cinder_conf(&self) -> Result<CinderConf> {
        let (cinder, warnings) = crate::config::cinder_conf(&self.flags(), self.environment).map_err(|error| Error {
            exit: Exit::Usage,
            error: error.into(),
            hint: None,
        })?;
        for warning in warnings {
            self.ui.detail(warning);
        }
        Ok(cinder)
    }

    fn resolve(&self) -> Result<Resolved> {
        crate::config::resolve(&self.flags(), self.environment).map_err(|error| Error {
            exit: Exit::Usage,
            error: error.into(),
            hint: None,
        })
    }

    fn flags(&self) -> DatabaseFlags {
        let args = &self.global.database;
        DatabaseFlags {
            database_url: args.database_url.clone().map(SecretString::from),
            password_file: args.password_file.clone(),
            config_files: args.config_file.clone(),
            config_dirs: args.config_dir.clone(),
            tls_mode: args.tls_mode,
            tls_ca: args.tls_ca.clone(),
            tls_cert: args.tls_cert.clone(),
            tls_key: args.tls_key.clone(),
        }
    }

    /// Where the audit log is, for commands that read what it holds.
    pub fn existing_audit_log(&self) -> Result<PathBuf> {
        let path = self.audit_path()?;
        if path.exists() {
            return Ok(path);
        }
        let problem = format!("there is no audit log {}; nothing was ever changed by this account, or it is elsewhere", path.display());
        Err(Error::usage(problem).hint("give the log with --audit-log"))
    }

    /// Where the audit log is.
    pub fn audit_path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.global.record.audit_log {
            return Ok(path.clone());
        }
        let uid = rustix::process::geteuid().as_raw();
        crate::audit::default_path(uid, |name| std::env::var_os(name)).map_err(Error::from)
    }

    /// What has to be typed after a command so that it is about this database and the same log.
    fn same_places(&self, settings: &DatabaseSettings) -> String {
        let (database, log) = (&self.global.database, &self.global.record.audit_log);
        let given = |option: &'static str, paths: &[PathBuf]| {
            paths.iter().map(|path| format!(" {option} {}", shell_word(path.display()))).collect::<String>()
        };
        if self.ui.is_inner() {
            return String::new();
        }
        let url = settings.url.as_ref().map(|url| format!(" --database-url {}", shell_word(url))).unwrap_or_default();
        [
            url,
            given("--config-file", &database.config_file),
            given("--config-dir", &database.config_dir),
            given("--password-file", database.password_file.as_slice()),
            database.tls_mode.map(|mode| format!(" --tls-mode {mode}")).unwrap_or_default(),
            given("--tls-ca", database.tls_ca.as_slice()),
            given("--tls-cert", database.tls_cert.as_slice()),
            given("--tls-key", database.tls_key.as_slice()),
            if database.insecure_auth { " --insecure-auth".to_owned() } else { String::new() },
            given("--audit-log", log.as_slice()),
        ]
        .concat()
    }
}

/// Follow-up commands as they are typed; this program's own get the options for the same database.
pub fn follow_ups(commands: &[String], same_places: &str) -> Vec<String> {
    let again = |command: &String| if command.starts_with("cinder-backup-repair ") { same_places } else { "" };
    commands.iter().map(|command| format!("{command}{}", again(command))).collect()
}
