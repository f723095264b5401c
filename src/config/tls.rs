//! Decides how the connection is encrypted: by the flags, then the URL, then the rules of the client libraries.

use std::fs;
use std::path::{Path, PathBuf};

use super::postgresql::own_file;
use super::url_options::{PartialTarget, PartialTls};
use super::{ConfigError, DatabaseFlags, Environment, Host, Origin, ServerKind, Setting, TlsMode, TlsSettings};

/// Decides, and checks that the files can be read.
pub(super) fn decide(partial: &mut PartialTarget, flags: &DatabaseFlags, env: &Environment) -> Result<TlsSettings, ConfigError> {
    let PartialTls { mode: from_url, ca, cert, key, system_roots } = std::mem::take(&mut partial.tls);
    let flag = |path: &Option<PathBuf>, name| path.clone().map(|path| Setting::new(path, Origin::Flag(name)));
    let flag_ca = flag(&flags.tls_ca, "--tls-ca");
    let flag_cert = flag(&flags.tls_cert, "--tls-cert");
    // A certificate from a flag needs its own key and not the one of the URL.
    let mut key = flag(&flags.tls_key, "--tls-key").or_else(|| if flag_cert.is_some() { None } else { key });
    let mut cert = flag_cert.or(cert);

    let by_flag = match (flags.tls_mode, &flag_ca) {
        (Some(mode), _) => Some(Setting::new(mode, Origin::Flag("--tls-mode"))),
        // An authority is given in order to verify the server.
        (None, Some(ca)) if from_url.as_ref().is_none_or(|mode| mode.value != TlsMode::VerifyCa) => {
            Some(Setting::new(TlsMode::VerifyFull, ca.origin.clone()))
        }
        (None, _) => None,
    };
    let from_flag = by_flag.is_some();
    let mut mode = by_flag.or(from_url).unwrap_or(Setting::default_of(TlsMode::Prefer));

    if let Host::Socket(_) = partial.server.host {
        if mode.value >= TlsMode::Require {
            let warning = format!("{}: the connection uses a socket on this host, which has no TLS", mode.origin);
            partial.warnings.push(warning);
        }
        return Ok(TlsSettings::DISABLED);
    }
    if mode.value == TlsMode::Disable {
        return Ok(TlsSettings::DISABLED);
    }

    let mut ca = flag_ca.or(ca);
    if partial.server.kind == ServerKind::Postgresql && !system_roots && ca.is_none() {
        ca = own_file(env, "root.crt");
        if ca.is_none() && mode.value >= TlsMode::VerifyCa && !from_flag {
            let problem = format!(
                "sslmode {} needs the authority's certificate, and ~/.postgresql/root.crt does not exist; give --tls-ca FILE, or \
                 sslrootcert=system for the authorities that this system trusts",
                mode.value
            );
            return Err(ConfigError::invalid(&mode.origin, problem));
        }
    }
    // As in libpq, which verifies the server if a root certificate exists.
    if partial.server.kind == ServerKind::Postgresql && mode.value == TlsMode::Require && ca.is_some() && !from_flag {
        mode.value = TlsMode::VerifyCa;
    }
    if mode.value == TlsMode::VerifyCa && ca.is_none() {
        if from_flag {
            return Err(ConfigError::invalid(&mode.origin, "verify-ca needs the authority's certificate; give --tls-ca FILE"));
        }
        partial.warnings.push(format!(
            "{}: any authority that this system trusts may have signed the server's certificate, for any name; give --tls-ca FILE or --tls-mode \
             verify-full",
            mode.origin
        ));
    }
    if key.is_some() && cert.is_none() {
        cert.clone_from(&key);
    } else if cert.is_some() && key.is_none() {
        // One file can contain both.
        key.clone_from(&cert);
    }
    Ok(TlsSettings {
        mode: mode.value,
        ca: checked(ca, "CA certificates", "--tls-ca")?,
        cert: checked(cert, "client certificate", "--tls-cert")?,
        key: checked(key, "client key", "--tls-key")?,
    })
}

fn checked(file: Option<Setting<PathBuf>>, what: &str, flag: &str) -> Result<Option<PathBuf>, ConfigError> {
    let Some(Setting { value, origin }) = file else { return Ok(None) };
    match readable(&value) {
        Ok(()) => Ok(Some(value)),
        Err(reason) => Err(ConfigError::invalid(
            &origin,
            format!("cannot read the {what} {}: {reason}; if the path is that of a container, give {flag} FILE", value.display()),
        )),
    }
}

fn readable(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    // Opening a pipe could block, or consume the data that is read later.
    if metadata.is_file() {
        fs::File::open(path).map_err(|error| error.to_string())?;
    }
    Ok(())
}
