//! From flags, environment and files to settings that remember where they came from.
//!
//! [`resolve`] puts it all together: cinder.conf by oslo.config's rules ([`CinderConf`]), the database URL as SQLAlchemy
//! and the drivers behind it read it, and the password and TLS files of the databases' own client programs. May use
//! `domain` and `input` and nothing else of this crate. Files are read where a path was given; the process's environment only as
//! far as the caller put it into an [`Environment`].

mod draft;
mod environment;
mod error;
mod mycnf;
mod mysql;
mod origin;
mod oslo;
mod password;
mod pgpass;
mod pgservice;
mod places;
mod postgresql;
mod service;
mod settings;
mod sqlite;
mod storage;
mod tls;
mod url;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod url_tests;

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

pub use environment::Environment;
pub use error::ConfigError;
pub use origin::{Origin, Setting};
pub use oslo::CinderConf;
pub use places::{UsualPlaces, usual_files, usual_places};
pub use service::ServiceSettings;
pub use settings::{DatabaseSettings, Host, ServerKind, ServerTarget, Target, TlsMode, TlsSettings, describe_file};
pub use storage::StorageOptions;

use self::url::Url;

/// The options of the command line that say which database.
#[derive(Debug, Clone, Default)]
pub struct DatabaseFlags {
    /// `--config-file`, repeatable; the last wins.
    pub config_files: Vec<PathBuf>,
    /// `--config-dir`, repeatable; read after the files.
    pub config_dirs: Vec<PathBuf>,
    /// `--database-url`.
    pub database_url: Option<SecretString>,
    /// `--password-file`.
    pub password_file: Option<PathBuf>,
    /// `--tls-mode`.
    pub tls_mode: Option<TlsMode>,
    /// `--tls-ca`.
    pub tls_ca: Option<PathBuf>,
    /// `--tls-cert`.
    pub tls_cert: Option<PathBuf>,
    /// `--tls-key`.
    pub tls_key: Option<PathBuf>,
}

impl DatabaseFlags {
    /// Whether cinder.conf was named.
    fn names_files(&self) -> bool {
        !self.config_files.is_empty() || !self.config_dirs.is_empty()
    }
}

/// Everything that the configuration says.
#[derive(Debug)]
pub struct Resolved {
    /// The database.
    pub database: DatabaseSettings,
    /// How Cinder's services beat.
    pub service: ServiceSettings,
    /// Cinder's configuration, for what is read from it later.
    pub cinder: CinderConf,
    /// What the person should know about anything but the database: whole sentences without a secret.
    pub warnings: Vec<String>,
}

/// The environment variable with the database's URL.
const URL_VARIABLE: &str = "CINDER_DATABASE_URL";

/// `[database] connection` and its older names, in oslo.db's order.
const CONNECTION: &[(&str, &str)] =
    &[("database", "connection"), ("DEFAULT", "sql_connection"), ("database", "sql_connection"), ("sql", "connection")];

/// Finds the database and how to reach it.
///
/// The command line takes precedence over the environment, and the environment over the usual files. The URL: `--database-url`, then
/// the files of `--config-file` and `--config-dir`, then `CINDER_DATABASE_URL`, then cinder.conf in its usual places; where two
/// of them name different databases, a warning names both. The password: `--password-file`, a URL that the command line names,
/// `CINDER_DATABASE_PASSWORD`, any other URL, `MYSQL_PWD` or `PGPASSWORD`, the option file that the URL names, `~/.my.cnf` or
/// the PostgreSQL password file, another URL for the same database and user; none of them leaves it `None`. TLS: the flags, then
/// the URL, then the drivers' rules.
///
/// # Errors
/// Whatever cannot be read, is not understood, or would make the connection less safe than was asked for.
pub fn resolve(flags: &DatabaseFlags, env: &Environment) -> Result<Resolved, ConfigError> {
    let mut warnings = Vec::new();
    let flag = flags.database_url.clone().map(|url| Setting::new(url, Origin::Flag("--database-url")));
    let variable = env.text(URL_VARIABLE)?.map(|url| Setting::new(SecretString::from(url), Origin::Variable(URL_VARIABLE)));
    let (cinder, looked) = load_cinder_conf(flags, env, flag.is_some() || variable.is_some(), &mut warnings)?;
    let (in_files, variable) = (cinder.get_secret_of(CONNECTION).transpose(), variable.map(Ok));
    let (second, third) = if flags.names_files() { (in_files, variable) } else { (variable, in_files) };
    let mut named = [flag.map(Ok), second, third].into_iter().flatten();
    let Some(url) = named.next().transpose()? else {
        return Err(ConfigError::NoDatabase { looked: what_was_looked_at(&cinder, &looked) });
    };
    let service = ServiceSettings::read(&cinder, &mut warnings)?;
    let mut database = database(&url, flags, env)?;
    for other in named.flatten() {
        pass_over(&mut database, &other, env);
    }
    Ok(Resolved { database, service, cinder, warnings })
}

/// Warns of an unused URL that names another database. If it names the same database, its password may be used.
fn pass_over(database: &mut DatabaseSettings, other: &Setting<SecretString>, env: &Environment) {
    let read = || -> Result<(Target, Option<Setting<SecretString>>), ConfigError> {
        let url = Url::parse(other.value.expose_secret(), &other.origin)?;
        if url.dialect == "sqlite" {
            return Ok((Target::Sqlite { path: sqlite::path(url, &other.origin, &mut Vec::new())? }, None));
        }
        let mut draft = server(url, &other.origin, env)?;
        let password = draft.password.take();
        let tls = TlsSettings { mode: TlsMode::Disable, ca: None, cert: None, key: None };
        Ok((Target::Server(draft.finish(None, tls)), password))
    };
    let found = read();
    if let Ok((target, password)) = &found
        && target.is_same(&database.target)
    {
        if let (Target::Server(used), Target::Server(same), Some(Setting { value, origin })) = (&mut database.target, target, password)
            && used.password.is_none()
            && used.user == same.user
        {
            used.password = Some(value.clone());
            database.password_origin = Some(origin.clone());
        }
        return;
    }
    let what = match found {
        Ok((target, _)) => target.describe(),
        Err(_) => "in a URL that is not understood".to_owned(),
    };
    database.warnings.push(format!(
        "two databases are named: {}, from {}, is used; {what}, from {}, is not",
        database.target.describe(),
        database.origin,
        other.origin
    ));
}

/// What the URL of a server says.
fn server(url: Url, origin: &Origin, env: &Environment) -> Result<draft::Draft, ConfigError> {
    if url.dialect.starts_with("postgres") { postgresql::read(url, origin, env) } else { mysql::read(url, origin, env) }
}

/// Reads cinder.conf alone, for what does not need the database; warnings come second.
///
/// # Errors
/// A file that was named, or lies in a usual place, and cannot be read or understood.
pub fn cinder_conf(flags: &DatabaseFlags, env: &Environment) -> Result<(CinderConf, Vec<String>), ConfigError> {
    let mut warnings = Vec::new();
    let (cinder, _) = load_cinder_conf(flags, env, true, &mut warnings)?;
    Ok((cinder, warnings))
}

/// Reads cinder.conf: the files given, else those in the usual places. Where the database is known without it, usual
/// files that this account may not read are passed over with a warning.
fn load_cinder_conf(
    flags: &DatabaseFlags,
    env: &Environment,
    optional: bool,
    warnings: &mut Vec<String>,
) -> Result<(CinderConf, Vec<PathBuf>), ConfigError> {
    if flags.names_files() {
        return Ok((CinderConf::load(&flags.config_files, &flags.config_dirs)?, Vec::new()));
    }
    let places = usual_places(env);
    match CinderConf::load(&places.files, &places.dirs) {
        Ok(cinder) => Ok((cinder, places.looked)),
        Err(error @ ConfigError::Unreadable { .. }) if optional => {
            warnings.push(format!("{error}; Cinder's defaults are assumed, service_down_time 60 among them"));
            Ok((CinderConf::default(), places.looked))
        }
        Err(ConfigError::Unreadable { path, reason }) => Err(ConfigError::Unreadable {
            path,
            reason: format!("{reason}; run as a user who may, or give --database-url URL or --config-file FILE"),
        }),
        Err(error) => Err(error),
    }
}

fn what_was_looked_at(cinder: &CinderConf, looked: &[PathBuf]) -> String {
    let list = |paths: &mut dyn Iterator<Item = String>| paths.collect::<Vec<_>>().join(", ");
    let read = list(&mut cinder.files().map(|path| path.display().to_string()));
    if read.is_empty() {
        let places = list(&mut looked.iter().map(|path| path.display().to_string()));
        let places = if places.is_empty() { "the directories given hold no *.conf".to_owned() } else { format!("there is no {places}") };
        format!("{URL_VARIABLE} is not set and {places}")
    } else {
        format!("{URL_VARIABLE} is not set and there is no [database] connection in {read}")
    }
}

/// From a URL to the settings.
fn database(url: &Setting<SecretString>, flags: &DatabaseFlags, env: &Environment) -> Result<DatabaseSettings, ConfigError> {
    let origin = &url.origin;
    let mut warnings = Vec::new();
    if let Origin::File { section: Some(section), key: Some(key), .. } = origin
        && (!section.eq_ignore_ascii_case("database") || key != "connection")
    {
        warnings.push(format!("{origin}: this is an old name of [database] connection"));
    }
    let url = Url::parse(url.value.expose_secret(), origin)?;
    let retyped = (!matches!(origin, Origin::File { .. })).then(|| url.without_password.clone());
    if url.dialect == "sqlite" {
        let path = sqlite::path(url, origin, &mut warnings)?;
        if flags.password_file.is_some()
            || flags.tls_mode.is_some()
            || flags.tls_ca.is_some()
            || flags.tls_cert.is_some()
            || flags.tls_key.is_some()
        {
            warnings.push("the password and TLS options mean nothing for a SQLite file".to_owned());
        }
        let target = Target::Sqlite { path };
        return Ok(DatabaseSettings { target, origin: origin.clone(), password_origin: None, url: retyped, warnings });
    }
    let mut draft = server(url, origin, env)?;
    if draft.password.as_ref().is_some_and(|password| password.origin == Origin::Flag("--database-url")) {
        warnings.push(
            "--database-url: other users of this machine can see the password in the list of processes; use CINDER_DATABASE_URL or --password-file"
                .to_owned(),
        );
    }
    let tls = tls::decide(&mut draft, flags, env)?;
    let password = password::find(&mut draft, origin, flags, env)?;
    warnings.append(&mut draft.warnings);
    let (password, password_origin) = password.map(|setting| (setting.value, setting.origin)).unzip();
    let target = Target::Server(draft.finish(password, tls));
    Ok(DatabaseSettings { target, origin: origin.clone(), password_origin, url: retyped, warnings })
}
