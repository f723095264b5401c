//! MySQL and MariaDB URLs: what their options mean to the drivers that Cinder uses with them.
//!
//! Most installations use `mysql+pymysql`. Through SQLAlchemy it verifies the certificate *and* the host name if `ssl_ca` is given, and
//! without any option uses TLS if the server offers it. Where drivers differ, the stricter meaning applies: it fails with an error,
//! and `--tls-mode` overrides it.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::mycnf::{Dialect, MyCnf};
use super::url::Url;
use super::url_options::{PartialTarget, PartialTls, UrlOptions, check_host, parse_seconds};
use super::{ConfigError, Environment, Host, Origin, ServerKind, ServerTarget, Setting, TlsMode};

/// Options for the driver's protocol, which have no meaning here.
const IGNORED: &[&str] = &[
    "autocommit",
    "binary_prefix",
    "charset",
    "client_flag",
    "collation",
    "compress",
    "local_infile",
    "max_allowed_packet",
    "plugin_dir",
    "program_name",
    "read_timeout",
    "use_unicode",
    "write_timeout",
];

/// The groups that the client libraries read for every program.
const LIBRARY_GROUPS: &[&str] = &["client", "client-server", "client-mariadb"];

/// Reads a URL of the dialects `mysql` and `mariadb`.
pub(super) fn read(mut url: Url, origin: &Origin, env: &Environment) -> Result<PartialTarget, ConfigError> {
    let driver = match url.driver.as_deref() {
        Some("pymysql" | "aiomysql" | "asyncmy" | "cymysql") => Dialect::Python,
        _ => Dialect::Library,
    };
    let mut warnings = std::mem::take(&mut url.warnings);
    let mut options = UrlOptions::new(url, "database", &[("password", "passwd"), ("database", "db")], origin)?;
    let file_password = read_default_file(&mut options, driver, env, origin, &mut warnings)?;
    let connect_timeout = match options.take("connect_timeout").or_else(|| options.take("connection_timeout")) {
        None => None,
        Some(setting) => match u64::try_from(parse_seconds("connect_timeout", &setting)?) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => return Err(ConfigError::invalid(&setting.origin, "the option connect_timeout must be at least 1 second")),
        },
    };
    let tls = tls(&mut options, driver, &mut warnings)?;
    let port = options.take_port("port")?.unwrap_or(ServerKind::Mysql.default_port());
    let name = options.take("host");
    let host = match options.take_path("unix_socket").or_else(|| options.take_path("socket")) {
        Some(socket) => Host::Socket(socket.value),
        None => {
            let name = name.unwrap_or_else(|| Setting::default_of("localhost".to_owned()));
            check_host(&name.value, &name.origin)?;
            if driver == Dialect::Library && name.value == "localhost" {
                warnings.push(format!(
                    "{origin}: mysqlclient connects to localhost through the server's socket, this program through TCP; add \
                     ?unix_socket=PATH to use the socket"
                ));
            }
            Host::Tcp(name.value)
        }
    };
    let password = options.take_password();
    let user = options.take_user(env);
    let database = options.take_database("database", origin)?;
    for (name, advice) in [
        ("ssl_key_password", "give a key without a passphrase as --tls-key"),
        ("ssl_capath", "put the certificates into one file for --tls-ca"),
    ] {
        if let Some(setting) = options.take(name) {
            return Err(ConfigError::invalid(&setting.origin, format!("{name} is not supported; {advice}")));
        }
    }
    for name in ["ssl_cipher", "tls_ciphersuites", "tls_versions", "ssl_sni"] {
        if let Some(Setting { origin, .. }) = options.take(name) {
            warnings.push(format!("{origin}: the option {name} is ignored; TLS 1.2 and 1.3 are used with their safe ciphers"));
        }
    }
    options.ignore_rest(IGNORED, &mut warnings)?;
    let server = ServerTarget { connect_timeout, ..ServerTarget::new(ServerKind::Mysql, host, port, database, user) };
    Ok(PartialTarget { server, password, file_password, passfile: None, tls, warnings })
}

/// Adds the options of the option file that the URL names. Returns the file's password separately, because the environment takes
/// precedence over it.
fn read_default_file(
    options: &mut UrlOptions,
    driver: Dialect,
    env: &Environment,
    origin: &Origin,
    warnings: &mut Vec<String>,
) -> Result<Option<Setting<SecretString>>, ConfigError> {
    let group = options.take("read_default_group").map(|setting| setting.value);
    let file = options.take("read_default_file").or_else(|| options.take("option_files")).map(|setting| setting.value);
    let path = match (file, &group) {
        (Some(file), _) => env.expand_home(&file),
        (None, Some(_)) => env.at("/etc/my.cnf"),
        (None, None) => return Ok(None),
    };
    let file = MyCnf::load(&path, driver, env).map_err(|error| match error {
        ConfigError::Unreadable { path, reason } => {
            ConfigError::invalid(origin, format!("cannot read the option file {path} in the URL: {reason}"))
        }
        other => other,
    })?;
    if file.world_writable {
        warnings.push(format!("{}: everybody may write to this file; run chmod o-w", path.display()));
    }
    let groups: Vec<&str> = match (driver, group.as_deref()) {
        (Dialect::Python, group) => vec![group.unwrap_or("client")],
        (Dialect::Library, group) => LIBRARY_GROUPS.iter().copied().chain(group).collect(),
    };
    let read_by_both =
        ["user", "host", "port", "database", "socket", "ssl-ca", "ssl-capath", "ssl-cert", "ssl-key", "ssl-crl", "ssl-crlpath"];
    for name in read_by_both.into_iter().chain((driver == Dialect::Library).then_some("ssl-mode")) {
        if let Some(setting) = file.get(&groups, name)
            && let Some(value) = setting.value.clone().filter(|value| !value.is_empty())
        {
            let option = if name == "socket" { "unix_socket".to_owned() } else { name.replace('-', "_") };
            options.put(&option, value, &setting.origin);
        }
    }
    // PyMySQL ignores these. They may make the connection stricter for it, but not less strict.
    for (from, to) in [("ssl-verify-server-cert", "ssl_verify_identity"), ("ssl", "ssl")] {
        if let Some(on) = file.get_bool(&groups, from)?
            && (on.value || driver == Dialect::Library)
        {
            options.put(to, on.value.to_string(), &on.origin);
        }
    }
    if let Some(skip) = file.get_bool(&groups, "skip-ssl")?.filter(|skip| skip.value && driver == Dialect::Library) {
        options.put("ssl_disabled", "true".to_owned(), &skip.origin);
    }
    Ok(file.password(&groups))
}

/// The encryption that the options ask for.
fn tls(options: &mut UrlOptions, driver: Dialect, warnings: &mut Vec<String>) -> Result<PartialTls, ConfigError> {
    let ca = options.take_path("ssl_ca");
    let cert = options.take_path("ssl_cert");
    let key = options.take_path("ssl_key");
    let disabled = options.take_bool("ssl_disabled")?;
    let ssl = options.take_bool("ssl")?;
    let named = options.take("ssl_mode");
    let verify_cert = options.take_bool("ssl_verify_cert")?;
    let verify_identity = options.take_bool("ssl_verify_identity")?;
    let check_hostname = options.take_bool("ssl_check_hostname")?;
    let is = |setting: &Option<Setting<bool>>, wanted: bool| setting.as_ref().is_some_and(|setting| setting.value == wanted);

    let at = |setting: &Option<Setting<bool>>, mode: TlsMode| setting.as_ref().map(|on| Setting::new(mode, on.origin.clone()));
    let mode = if is(&disabled, true) {
        at(&disabled, TlsMode::Disable)
    } else if let Some(Setting { value, origin }) = named {
        let mode = match value.to_ascii_uppercase().as_str() {
            "DISABLED" => TlsMode::Disable,
            "PREFERRED" => TlsMode::Prefer,
            "REQUIRED" => TlsMode::Require,
            "VERIFY_CA" => TlsMode::VerifyCa,
            "VERIFY_IDENTITY" => TlsMode::VerifyFull,
            _ => {
                return Err(ConfigError::invalid(&origin, "ssl_mode must be DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY"));
            }
        };
        Some(Setting::new(mode, origin))
    } else if is(&ssl, false) {
        at(&ssl, TlsMode::Disable)
    } else if is(&verify_identity, true) {
        at(&verify_identity, TlsMode::VerifyFull)
    } else if is(&verify_cert, true) {
        at(&verify_cert, if is(&check_hostname, true) { TlsMode::VerifyFull } else { TlsMode::VerifyCa })
    } else if is(&verify_cert, false) {
        at(&verify_cert, TlsMode::Require)
    } else if let Some(ca) = &ca {
        let name_too =
            driver == Dialect::Python && !is(&check_hostname, false) && !is(&verify_identity, false) || is(&check_hostname, true);
        Some(Setting::new(if name_too { TlsMode::VerifyFull } else { TlsMode::VerifyCa }, ca.origin.clone()))
    } else if is(&ssl, true) {
        at(&ssl, TlsMode::Require)
    } else if let Some(cert) = cert.as_ref().or(key.as_ref()) {
        Some(Setting::new(TlsMode::Require, cert.origin.clone()))
    } else {
        at(&check_hostname, TlsMode::Require)
    };

    if let (None, Some(check)) = (&ca, &check_hostname)
        && check.value
        && mode.as_ref().is_some_and(|mode| mode.value == TlsMode::Require)
    {
        warnings
            .push(format!("{}: ssl_check_hostname without ssl_ca has no effect, as in PyMySQL; use --tls-mode verify-full", check.origin));
    }
    Ok(PartialTls { mode, ca, cert, key, system_roots: false })
}

/// The password in `~/.my.cnf`, if that file is for this user.
pub(super) fn home_password(user: Option<&str>, env: &Environment, warnings: &mut Vec<String>) -> Option<Setting<SecretString>> {
    let path: PathBuf = env.in_home(".my.cnf").filter(|path| path.is_file())?;
    let warning = match MyCnf::load(&path, Dialect::Library, env) {
        Ok(file) if !file.world_writable => {
            let theirs = file.get(LIBRARY_GROUPS, "user").and_then(|setting| setting.value.as_deref());
            return if theirs.is_some() && theirs != user { None } else { file.password(LIBRARY_GROUPS) };
        }
        Ok(_) => "~/.my.cnf is ignored because everybody may write to it; run chmod 600 ~/.my.cnf".to_owned(),
        Err(error) => format!("the password in ~/.my.cnf is ignored: {error}"),
    };
    warnings.push(warning);
    None
}
