//! Which server certificates are trusted.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsConfigBuilder};

use crate::config::Setting;
use crate::storage::StorageError;

/// The limit for a CA file, in bytes. One with all public authorities has 250 KiB.
const LARGEST_FILE: u64 = 16 << 20;

/// Trusts the authorities in the file of an option, or those of the system if it is not set.
///
/// # Errors
/// A file that cannot be read or has no certificate.
pub(in crate::storage) fn configured(ca_file: Option<Setting<String>>) -> Result<TlsConfig, StorageError> {
    ca_file.map_or_else(|| Ok(system()), |file| of_file(Path::new(&file.value), &file.origin))
}

/// Trusts the authorities of the system. If there are none, all https connections fail.
pub(in crate::storage) fn system() -> TlsConfig {
    authorities(&rustls_native_certs::load_native_certs().certs).build()
}

/// Trusts all certificates, as the operator requested.
pub(in crate::storage) fn unverified() -> TlsConfig {
    authorities(&[]).disable_verification(true).build()
}

/// Trusts only the authorities in a PEM file.
pub(super) fn of_file(path: &Path, origin: &dyn std::fmt::Display) -> Result<TlsConfig, StorageError> {
    let wrong = |problem: String| StorageError::configuration(format!("{origin}: {}: {problem}", path.display()));
    let pem = crate::input::read(path, LARGEST_FILE).map_err(|error| wrong(format!("cannot read the CA file: {error}")))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(authorities(&certificates).build()),
        Ok(_) => Err(wrong("no certificate in the CA file; it must be PEM".to_owned())),
        Err(error) => Err(wrong(format!("the CA file is damaged: {error}"))),
    }
}

/// Trusts certificates for the host's name that one of these authorities signed. Uses ring without installing it as the default of
/// the process.
pub(super) fn authorities(certificates: &[CertificateDer<'_>]) -> TlsConfigBuilder {
    let roots = certificates.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).collect();
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
}
