//! Whose certificates are good.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::storage::{StorageError, StorageErrorKind};

/// A file with all public authorities has 250 KiB.
const LARGEST_FILE: u64 = 16 << 20;

/// Whose certificates are good.
#[derive(Debug, Clone)]
pub(in crate::storage) enum Trust {
    /// Those that one of these authorities signed, for the host's name.
    Authorities(Vec<CertificateDer<'static>>),
    /// Unverified's: the operator has said so.
    Unverified,
}

impl Trust {
    /// The authorities that the system trusts. Without any nothing is trusted, which matters for https alone.
    pub(in crate::storage) fn system() -> Self {
        Self::Authorities(rustls_native_certs::load_native_certs().certs)
    }

    /// The authorities in a PEM file, and no others.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate.
    pub(in crate::storage) fn file(path: &Path, origin: &dyn std::fmt::Display) -> Result<Self, StorageError> {
        let wrong =
            |problem: String| StorageError::new(StorageErrorKind::Configuration, format!("{origin}: {}: {problem}", path.display()));
        let pem = crate::input::read(path, LARGEST_FILE).map_err(|error| wrong(format!("cannot read the CA file: {error}")))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(Self::Authorities(certificates)),
            Ok(_) => Err(wrong("there is no certificate in the CA file; it must be PEM".to_owned())),
            Err(error) => Err(wrong(format!("the CA file is damaged: {error}"))),
        }
    }

    /// The same for ureq, with ring, which is named here and never installed for the process.
    pub(super) fn config(&self) -> TlsConfig {
        let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        match self {
            Self::Authorities(list) => {
                let list = list.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned());
                builder.root_certs(RootCerts::Specific(Arc::new(list.collect()))).build()
            }
            // ureq has no default that works without Mozilla's list.
            Self::Unverified => builder.root_certs(RootCerts::Specific(Arc::new(Vec::new()))).disable_verification(true).build(),
        }
    }
}
