//! Decides how the connection is encrypted: flags over URL over the libraries' own rules.

use std::fs;
use std::path::{Path, PathBuf};

use super::draft::{Draft, TlsDraft};
use super::postgresql::own_file;
use super::{ConfigError, DatabaseFlags, Environment, Host, Origin, ServerKind, Setting, TlsMode, TlsSettings};

/// Decides; checks that the files can be read.
pub(super) fn decide(draft: &mut Draft, flags: &DatabaseFlags, env: &Environment) -> Result<TlsSettings, ConfigError> {
    let TlsDraft { mode: told, ca, cert, key, system_roots } = std::mem::take(&mut draft.tls);
    let flag = |path: &Option<PathBuf>, name| path.clone().map(|path| Setting::new(path, Origin::Flag(name)));
    let flag_ca = flag(&flags.tls_ca, "--tls-ca");
    let flag_cert = flag(&flags.tls_cert, "--tls-cert");
    // A certificate from a flag comes with its own key, never with the one of the URL.
    let mut key = flag(&flags.tls_key, "--tls-key").or_else(|| if flag_cert.is_some() { None } else { key });
    let mut cert = flag_cert.or(cert);

    let by_flag = match (flags.tls_mode, &flag_ca) {
        (Some(mode), _) => Some(Setting::new(mode, Origin::Flag("--tls-mode"))),
        // Who names an authority wants the server checked against it.
        (None, Some(ca)) if told.as_ref().is_none_or(|told| told.value != TlsMode::VerifyCa) => {
            Some(Setting::new(TlsMode::VerifyFull, ca.origin.clone()))
        }
        (None, _) => None,
    };
    let from_flag = by_flag.is_some();
    let mut mode = by_flag.or(told).unwrap_or(Setting::default_of(TlsMode::Prefer));

    if let Host::Socket { .. } = draft.host {
        if mode.value >= TlsMode::Require {
            let warning = format!("{}: the connection goes through a socket of this machine, where TLS is not used", mode.origin);
            draft.warnings.push(warning);
        }
        return Ok(TlsSettings { mode: TlsMode::Disable, ca: None, cert: None, key: None });
    }
    if mode.value == TlsMode::Disable {
        return Ok(TlsSettings { mode: TlsMode::Disable, ca: None, cert: None, key: None });
    }

    let mut ca = flag_ca.or(ca);
    if draft.kind == ServerKind::Postgresql && !system_roots && ca.is_none() {
        ca = own_file(env, "root.crt");
        if ca.is_none() && mode.value.verifies() && !from_flag {
            return Err(ConfigError::invalid(
                &mode.origin,
                format!(
                    "sslmode {} needs the authority's certificate, and there is no ~/.postgresql/root.crt; give --tls-ca FILE, or sslrootcert=system for the authorities that this system trusts",
                    mode.value
                ),
            ));
        }
    }
    // libpq's rule, for the sake of old set-ups: who has a root certificate means it to be used.
    if draft.kind == ServerKind::Postgresql && mode.value == TlsMode::Require && ca.is_some() && !from_flag {
        mode.value = TlsMode::VerifyCa;
    }
    if mode.value == TlsMode::VerifyCa && ca.is_none() {
        if from_flag {
            return Err(ConfigError::invalid(&mode.origin, "verify-ca needs the authority's certificate; give --tls-ca FILE"));
        }
        draft.warnings.push(format!(
            "{}: the server's certificate is checked against every authority that this system trusts, but not its name; give --tls-ca FILE or --tls-mode verify-full",
            mode.origin
        ));
    }
    if key.is_some() && cert.is_none() {
        cert.clone_from(&key);
    } else if cert.is_some() && key.is_none() {
        // One file can hold both.
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
            format!(
                "cannot read the {what} {}: {reason}; in a container's configuration the path is the container's, so give {flag} FILE",
                value.display()
            ),
        )),
    }
}

fn readable(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    // A pipe is left alone: to open it would wait for, or take away, what is to be read later.
    if metadata.is_file() {
        fs::File::open(path).map_err(|error| error.to_string())?;
    }
    Ok(())
}
