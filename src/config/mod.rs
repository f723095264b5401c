//! Turns flags, environment and files into settings with their origins.
//!
//! [`resolve`] combines cinder.conf by oslo.config's rules ([`CinderConf`]), the database URL as SQLAlchemy and its drivers read it,
//! and the password and TLS files of the databases' own client programs. May use `domain` and `input` and nothing else of this
//! crate. Reads files, but the process's environment only through an [`Environment`] from the caller.

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
mod url_options;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

pub use environment::Environment;
pub use error::ConfigError;
pub use origin::{Origin, Setting};
pub use oslo::CinderConf;
pub use service::ServiceSettings;
pub use settings::{DatabaseSettings, Host, ServerKind, ServerTarget, Target, TlsMode, TlsSettings, describe_file};
pub use storage::StorageOptions;

use self::places::usual_places;
use self::url::Url;
use self::url_options::PartialTarget;

/// The command line options that say which database it is and how to log in.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DatabaseFlags {
    /// Read this cinder.conf; a later file overrides an earlier one [default: the usual places]
    #[arg(long = "config-file", global = true, value_name = "FILE")]
    pub config_files: Vec<PathBuf>,
    /// Read the *.conf files of this directory, in order of their names, after the files of --config-file
    #[arg(long = "config-dir", global = true, value_name = "DIR")]
    pub config_dirs: Vec<PathBuf>,
    /// The database URL as in SQLAlchemy: mysql+pymysql://user@host/cinder, postgresql://…, sqlite:////path
    /// [env: CINDER_DATABASE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<SecretString>,
    /// Read the password from the first line of this file
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// How TLS is used: disable, prefer, require, verify-ca or verify-full
    #[arg(long, global = true, value_name = "MODE")]
    pub tls_mode: Option<TlsMode>,
    /// Trust only the certificate authorities in this file
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Present this client certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the client certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

impl DatabaseFlags {
    /// Whether cinder.conf was named.
    fn names_files(&self) -> bool {
        !self.config_files.is_empty() || !self.config_dirs.is_empty()
    }
}

/// The resolved configuration.
#[derive(Debug)]
pub struct Resolved {
    /// The database.
    pub database: DatabaseSettings,
    /// The heartbeats of Cinder's services.
    pub service: ServiceSettings,
    /// Cinder's configuration, for settings that are read later.
    pub cinder: CinderConf,
    /// Warnings that are not about the database, as sentences without a secret.
    pub warnings: Vec<String>,
}

/// The environment variable with the database's URL.
const URL_VARIABLE: &str = "CINDER_DATABASE_URL";

/// `[database] connection` and its older names, in oslo.db's order.
const CONNECTION: &[(&str, &str)] =
    &[("database", "connection"), ("DEFAULT", "sql_connection"), ("database", "sql_connection"), ("sql", "connection")];

/// Finds the database and how to connect to it.
///
/// The command line takes precedence over the environment, and the environment over the usual files.
///
/// - The URL: `--database-url`, then the files of `--config-file` and `--config-dir`, then `CINDER_DATABASE_URL`, then cinder.conf in
///   its usual places. If two of them name different databases, a warning names both.
/// - The password: `--password-file`, a URL from the command line, `CINDER_DATABASE_PASSWORD`, any other URL, `MYSQL_PWD` or
///   `PGPASSWORD`, the option file that the URL names, `~/.my.cnf` or the PostgreSQL password file, another URL for the same
///   database and user. Otherwise it is `None`.
/// - TLS: the flags, then the URL, then the drivers' rules.
///
/// # Errors
/// A file that cannot be read, a value that is not understood, and an option that would make the connection less safe if it were
/// ignored.
pub fn resolve(flags: &DatabaseFlags, env: &Environment) -> Result<Resolved, ConfigError> {
    let mut warnings = Vec::new();
    let flag = flags.database_url.clone().map(|url| Setting::new(url, Origin::Flag("--database-url")));
    let variable = env.text(URL_VARIABLE)?.map(|url| Setting::new(SecretString::from(url), Origin::Variable(URL_VARIABLE)));
    let (cinder, searched) = load_cinder_conf(flags, env, flag.is_some() || variable.is_some(), &mut warnings)?;
    let (in_files, variable) = (cinder.get_secret(CONNECTION).transpose(), variable.map(Ok));
    let (second, third) = if flags.names_files() { (in_files, variable) } else { (variable, in_files) };
    let mut named = [flag.map(Ok), second, third].into_iter().flatten();
    let Some(url) = named.next().transpose()? else {
        return Err(ConfigError::NoDatabase { searched: describe_search(&cinder, &searched) });
    };
    let service = ServiceSettings::read(&cinder, &mut warnings)?;
    let mut database = database(&url, flags, env)?;
    for other in named.flatten() {
        add_unused_url(&mut database, &other, env);
    }
    Ok(Resolved { database, service, cinder, warnings })
}

/// Warns about an unused URL that names another database. If it names the same database, its password may be used.
fn add_unused_url(database: &mut DatabaseSettings, other: &Setting<SecretString>, env: &Environment) {
    let read = || -> Result<(Target, Option<Setting<SecretString>>), ConfigError> {
        let url = Url::parse(other.value.expose_secret(), &other.origin)?;
        if url.dialect == "sqlite" {
            return Ok((Target::Sqlite { path: sqlite::path(url, &other.origin, &mut Vec::new())? }, None));
        }
        let PartialTarget { server, password, .. } = server(url, &other.origin, env)?;
        Ok((Target::Server(server), password))
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
    let what = found.map_or_else(|_| "an invalid URL".to_owned(), |(target, _)| target.describe());
    database.warnings.push(format!(
        "two databases are configured: {} from {} is used, and {what} from {} is ignored",
        database.target.describe(),
        database.origin,
        other.origin
    ));
}

/// Reads the URL of a server.
fn server(url: Url, origin: &Origin, env: &Environment) -> Result<PartialTarget, ConfigError> {
    if url.dialect.starts_with("postgres") { postgresql::read(url, origin, env) } else { mysql::read(url, origin, env) }
}

/// The usual places of cinder.conf in which there is none; empty if files were named.
pub fn searched_places(flags: &DatabaseFlags, env: &Environment) -> Vec<PathBuf> {
    if flags.names_files() { Vec::new() } else { places::missing(env) }
}

/// Reads only cinder.conf, for commands without a database, and returns warnings.
///
/// # Errors
/// A file that was given, or is in a usual place, and cannot be read or understood.
pub fn cinder_conf(flags: &DatabaseFlags, env: &Environment) -> Result<(CinderConf, Vec<String>), ConfigError> {
    let mut warnings = Vec::new();
    let (cinder, _) = load_cinder_conf(flags, env, true, &mut warnings)?;
    Ok((cinder, warnings))
}

/// Reads cinder.conf from the files given, or else from the usual places. If the database is known without it, unreadable usual files
/// are ignored with a warning.
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
        Ok(cinder) => Ok((cinder, places.searched)),
        Err(error @ ConfigError::Unreadable { .. }) if optional => {
            warnings.push(format!("{error}; Cinder's defaults are used, for example service_down_time 60"));
            Ok((CinderConf::default(), places.searched))
        }
        Err(ConfigError::Unreadable { path, reason }) => Err(ConfigError::Unreadable {
            path,
            reason: format!("{reason}; run as a user who may read it, or give --database-url URL or --config-file FILE"),
        }),
        Err(error) => Err(error),
    }
}

fn describe_search(cinder: &CinderConf, searched: &[PathBuf]) -> String {
    let read: Vec<String> = cinder.files().map(|path| path.display().to_string()).collect();
    let missing: Vec<String> = searched.iter().map(|path| path.display().to_string()).collect();
    let problem = match (read.as_slice(), missing.as_slice()) {
        ([], []) => "the given directories have no *.conf".to_owned(),
        ([], missing) => format!("there is no {}", missing.join(", ")),
        (read, _) => format!("there is no [database] connection in {}", read.join(", ")),
    };
    format!("{URL_VARIABLE} is not set and {problem}")
}

/// The settings for a URL.
fn database(url: &Setting<SecretString>, flags: &DatabaseFlags, env: &Environment) -> Result<DatabaseSettings, ConfigError> {
    let origin = &url.origin;
    let mut warnings = Vec::new();
    if let Origin::File { option: Some((section, key)), .. } = origin
        && (!section.eq_ignore_ascii_case("database") || key != "connection")
    {
        warnings.push(format!("{origin}: this is an old name for [database] connection"));
    }
    let url = Url::parse(url.value.expose_secret(), origin)?;
    let retyped = (!matches!(origin, Origin::File { .. })).then(|| url.without_password.clone());
    if url.dialect == "sqlite" {
        let path = sqlite::path(url, origin, &mut warnings)?;
        let files = [&flags.password_file, &flags.tls_ca, &flags.tls_cert, &flags.tls_key];
        if flags.tls_mode.is_some() || files.iter().any(|file| file.is_some()) {
            warnings.push("the password and TLS options have no effect on a SQLite file".to_owned());
        }
        let target = Target::Sqlite { path };
        return Ok(DatabaseSettings { target, origin: origin.clone(), password_origin: None, url: retyped, warnings });
    }
    let mut partial = server(url, origin, env)?;
    if partial.password.as_ref().is_some_and(|password| password.origin == Origin::Flag("--database-url")) {
        warnings.push(
            "--database-url: other users of this host can see the password in the process list; use CINDER_DATABASE_URL or --password-file"
                .to_owned(),
        );
    }
    partial.server.tls = tls::decide(&mut partial, flags, env)?;
    let password = password::find(&mut partial, origin, flags, env)?;
    let password_origin = password.as_ref().map(|setting| setting.origin.clone());
    partial.server.password = password.map(|setting| setting.value);
    warnings.append(&mut partial.warnings);
    let target = Target::Server(partial.server);
    Ok(DatabaseSettings { target, origin: origin.clone(), password_origin, url: retyped, warnings })
}
