//! PostgreSQL URLs: what their options mean to libpq, to which psycopg2 and psycopg pass them.
//!
//! Only the configuration names the database. `PGHOST`, `PGDATABASE` and similar variables are not read, because a DBA's shell may name
//! another database. `PGSSLMODE` and the other variables for TLS are read, as libpq does.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::pgservice;
use super::url::Url;
use super::url_options::{PartialTarget, PartialTls, UrlOptions, check_host, parse_bool, parse_seconds};
use super::{ConfigError, Environment, Host, Origin, ServerKind, ServerTarget, Setting, TlsMode};

/// libpq's variables for TLS, and the corresponding options.
const VARIABLES: &[(&str, &str)] = &[
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
];

/// Options for the driver's protocol, which have no meaning here.
const IGNORED: &[&str] = &[
    "application_name",
    "async_fallback",
    "client_encoding",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "prepared_statement_cache_size",
    "sslcompression",
    "sslsni",
    "tcp_user_timeout",
];

/// Options for protections that this program does not support, with the values that do not require them.
const PROTECTIONS: &[(&str, &[&str])] = &[
    ("channel_binding", &["disable", "prefer"]),
    ("gssencmode", &["disable", "prefer"]),
    ("requirepeer", &[]),
    ("require_auth", &[]),
    ("sslcertmode", &["allow"]),
    ("sslcrl", &[]),
    ("sslcrldir", &[]),
    ("sslnegotiation", &["postgres"]),
    ("sslpassword", &[]),
    ("ssl_max_protocol_version", &["TLSv1.3"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
];

/// Reads a URL of the dialect `postgresql`.
pub(super) fn read(mut url: Url, origin: &Origin, env: &Environment) -> Result<PartialTarget, ConfigError> {
    let mut warnings = std::mem::take(&mut url.warnings);
    if url.query.iter().filter(|(name, _)| name == "host").count() > 1 {
        let problem = "the URL gives the option host twice; a repair uses one server, so name the primary with --database-url";
        return Err(ConfigError::invalid(origin, problem));
    }
    url.host = url.host.map(|host| {
        // libpq's form of a socket directory in the host. SQLAlchemy does not decode it.
        if host.to_ascii_uppercase().starts_with("%2F") { percent_decode_str(&host).decode_utf8_lossy().into_owned() } else { host }
    });
    let mut options = UrlOptions::new(url, "dbname", &[("dbname", "database")], origin)?;
    if let Some(service) = options.take("service") {
        for (name, setting) in pgservice::find(&service, env)? {
            options.put(&name, setting.value, &setting.origin);
        }
    }
    for (variable, name) in VARIABLES {
        if let Some(value) = env.var(variable) {
            options.put(name, value.to_owned(), &Origin::Variable(variable));
        }
    }

    let tls = tls(&mut options, env)?;
    let port = options.take_port("port")?.unwrap_or(ServerKind::Postgresql.default_port());
    let host = host_of(&mut options, port, env)?;
    let connect_timeout = match options.take("connect_timeout") {
        None => None,
        // libpq: zero and less is no limit, and one second counts as two.
        Some(setting) => u64::try_from(parse_seconds("connect_timeout", &setting)?)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.max(2))),
    };
    if let Some(attrs) = options.take("target_session_attrs")
        && !matches!(attrs.value.as_str(), "any" | "read-write" | "primary")
    {
        warnings.push(format!(
            "{}: target_session_attrs is ignored; whether the server accepts writes is checked after connecting",
            attrs.origin
        ));
    }
    let password = options.take_password();
    let passfile = options.take_path("passfile");
    let user = options.take_user(env);
    let database = options.take_database("dbname", origin)?;
    let server = ServerTarget {
        connect_timeout,
        options: options.take("options").map(|setting| setting.value),
        ..ServerTarget::new(ServerKind::Postgresql, host, port, database, user)
    };
    for (name, harmless) in PROTECTIONS {
        if let Some(Setting { value, origin }) = options.take(name)
            && !harmless.contains(&value.as_str())
        {
            return Err(ConfigError::invalid(&origin, format!("the option {name} is not supported; give a --database-url without it")));
        }
    }
    options.ignore_rest(IGNORED, &mut warnings)?;
    Ok(PartialTarget { server, password, file_password: None, passfile, tls, warnings })
}

/// Where the server listens. A host that begins with a slash, or none, is a socket.
fn host_of(options: &mut UrlOptions, port: u16, env: &Environment) -> Result<Host, ConfigError> {
    let host = options.take("host");
    if let Some(address) = options.take("hostaddr") {
        if host.is_some() {
            return Err(ConfigError::invalid(&address.origin, "host and hostaddr together are not supported; give only one of them"));
        }
        check_host(&address.value, &address.origin)?;
        return Ok(Host::Tcp(address.value));
    }
    match host {
        Some(Setting { value, .. }) if value.starts_with('/') && !value.contains(',') => Ok(Host::Socket(PathBuf::from(value))),
        Some(Setting { value, origin }) => {
            check_host(&value, &origin)?;
            Ok(Host::Tcp(value))
        }
        None => {
            let socket = format!(".s.PGSQL.{port}");
            let usual = env.at("/var/run/postgresql");
            let there = [usual.clone(), env.at("/tmp")].into_iter().find(|directory| directory.join(&socket).exists());
            Ok(Host::Socket(there.unwrap_or(usual)))
        }
    }
}

/// The encryption that the options ask for. The effect of `~/.postgresql/root.crt` is added later.
fn tls(options: &mut UrlOptions, env: &Environment) -> Result<PartialTls, ConfigError> {
    // asyncpg's name for it.
    let named = options.take("ssl");
    let mut mode = match options.take("sslmode").or(named) {
        None => None,
        Some(Setting { value, origin }) => {
            let mode = match (value.as_str(), parse_bool(&value)) {
                ("disable", _) | (_, Some(false)) => TlsMode::Disable,
                // `allow` would try without encryption first; trying with it first is not less safe.
                ("allow" | "prefer", _) => TlsMode::Prefer,
                ("require", _) => TlsMode::Require,
                ("verify-ca", _) => TlsMode::VerifyCa,
                ("verify-full", _) | (_, Some(true)) => TlsMode::VerifyFull,
                _ => {
                    return Err(ConfigError::invalid(&origin, "sslmode must be disable, allow, prefer, require, verify-ca or verify-full"));
                }
            };
            Some(Setting::new(mode, origin))
        }
    };
    let mut ca = options.take_path("sslrootcert");
    let mut system_roots = false;
    if let Some(root) = ca.take_if(|ca| ca.value.as_os_str() == "system") {
        system_roots = true;
        match &mode {
            None => mode = Some(Setting::new(TlsMode::VerifyFull, root.origin)),
            Some(mode) if mode.value == TlsMode::VerifyFull => {}
            Some(mode) => {
                return Err(ConfigError::invalid(
                    &mode.origin,
                    "with sslrootcert=system the sslmode must be verify-full, because anybody can get a certificate of a public authority",
                ));
            }
        }
    }
    let cert = options.take_path("sslcert").or_else(|| own_file(env, "postgresql.crt"));
    let key = options.take_path("sslkey").or_else(|| cert.as_ref().and_then(|_| own_file(env, "postgresql.key")));
    Ok(PartialTls { mode, ca, cert, key, system_roots })
}

/// One of libpq's files in the home directory, if it exists.
pub(super) fn own_file(env: &Environment, name: &str) -> Option<Setting<PathBuf>> {
    let path = env.in_home(".postgresql")?.join(name);
    let shown = env.shown(&path);
    path.is_file().then(|| Setting::new(path, Origin::File { path: shown, line: None, option: None }))
}
