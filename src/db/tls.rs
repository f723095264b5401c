//! TLS for MySQL, MariaDB and PostgreSQL: one meaning of the modes, one reading of the files, one wording of failures.
//!
//! | mode | connection | certificate |
//! |---|---|---|
//! | `disable` | plain | – |
//! | `prefer` | TLS if the server offers it | as `require` |
//! | `require` | TLS | not verified; with a CA file as `verify-ca` |
//! | `verify-ca` | TLS | signed by the CA file's authority, whatever its name |
//! | `verify-full` | TLS | signed by the CA file's authority, or one that the system trusts, for the host's name |
//!
//! These are libpq's meanings, for MySQL too. The provider of rustls is `ring`, named here and never installed for the
//! process. May use `config` and this module's neighbours in `db`.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};

use super::{DbError, DbErrorKind};
use crate::config::{TlsMode, TlsSettings};

/// How far the server's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// Encryption alone: safe from listeners, not from an impostor.
    Nothing,
    /// The chain up to the authority.
    Chain,
    /// The chain, and that the certificate is for this host.
    ChainAndName,
}

/// What a mode means for the certificate.
pub(super) fn verification(tls: &TlsSettings) -> Verification {
    match tls.mode {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require if tls.ca.is_none() => Verification::Nothing,
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyCa => Verification::Chain,
        TlsMode::VerifyFull => Verification::ChainAndName,
    }
}

/// The authorities to trust: those of the CA file, else those of the system; none where nothing is verified.
pub(super) fn authorities(tls: &TlsSettings) -> Result<Vec<CertificateDer<'static>>, DbError> {
    match (verification(tls), &tls.ca) {
        (Verification::Nothing, _) => Ok(Vec::new()),
        (_, Some(path)) => read_certificates(path, "CA"),
        (Verification::Chain, None) => Err(configuration(
            "TLS mode verify-ca needs a CA file: with the system's public authorities the certificate of any web site would do; \
             name the database's own authority, or use verify-full",
        )),
        (Verification::ChainAndName, None) => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let cause = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(configuration(format!(
                    "the system has no certificate authorities that it trusts{cause}; name a CA file for TLS mode verify-full"
                )));
            }
            Ok(found.certs)
        }
    }
}

/// Refuses to verify a certificate with a driver that adds `built_in` to the authorities it is given, unless that list is the one
/// of `vendor/webpki-roots`, which trusts nobody. A build from a registry ignores `[patch.crates-io]` and has Mozilla's list.
pub(super) fn require_no_built_in_authorities(built_in: &[TrustAnchor<'_>]) -> Result<(), DbError> {
    const NOT_DER: &[u8] = b"\xff";
    match built_in {
        [only] if *only.subject == *NOT_DER && *only.subject_public_key_info == *NOT_DER => Ok(()),
        _ => Err(configuration(
            "this build cannot verify the certificate of a MySQL or MariaDB server, because its driver also trusts Mozilla's public \
             authorities; install from a checkout with `cargo install --path .`, which leaves them out",
        )),
    }
}

/// The client's certificate and key, where the settings name them.
pub(super) fn identity(tls: &TlsSettings) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, DbError> {
    match (&tls.cert, &tls.key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some((read_certificates(cert, "client certificate")?, read_key(key)?))),
        (Some(cert), None) => {
            Err(configuration(format!("the client certificate {} has no key with it; name the key's file too", cert.display())))
        }
        (None, Some(key)) => {
            Err(configuration(format!("the client key {} has no certificate with it; name the certificate's file too", key.display())))
        }
    }
}

/// A client configuration that does what the settings say.
pub(super) fn client_config(tls: &TlsSettings) -> Result<ClientConfig, DbError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verification = verification(tls);
    let verifier: Arc<dyn ServerCertVerifier> = if verification == Verification::Nothing {
        Arc::new(EncryptOnly { provider: Arc::clone(&provider) })
    } else {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(authorities(tls)?);
        if added == 0 {
            let from = tls.ca.as_ref().map_or_else(|| "the system".to_owned(), |path| path.display().to_string());
            return Err(configuration(format!("no certificate of {from} can be used as an authority")));
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| configuration(format!("cannot verify certificates with these authorities: {error}")))?;
        if verification == Verification::Chain { Arc::new(ChainOnly { inner }) } else { inner }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| configuration(format!("cannot set up TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match identity(tls)? {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| configuration(format!("the client's certificate and key do not go together: {error}"))),
    }
}

/// A file with all public authorities has 250 KiB.
const LARGEST_FILE: u64 = 16 << 20;

fn read_certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, DbError> {
    let shown = path.display();
    let bytes =
        crate::input::read(path, LARGEST_FILE).map_err(|error| configuration(format!("cannot read the {what} file {shown}: {error}")))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| configuration(format!("the {what} file {shown} is not valid PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(configuration(format!("the {what} file {shown} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, DbError> {
    let shown = path.display();
    let bytes =
        crate::input::read(path, LARGEST_FILE).map_err(|error| configuration(format!("cannot read the client key {shown}: {error}")))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let text = String::from_utf8_lossy(&bytes);
        if text.contains("ENCRYPTED") {
            configuration(format!("the client key {shown} is encrypted, which is not supported; name a file with the plain key"))
        } else {
            configuration(format!("the client key {shown} holds no private key in PEM"))
        }
    })
}

fn configuration(message: impl Into<String>) -> DbError {
    DbError::fatal(DbErrorKind::Configuration, message)
}

/// The failure of rustls inside an error of a driver's, wherever it is wrapped.
pub(super) fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<TlsError>() {
            return Some(found);
        }
        // `source` of an io::Error skips the error that it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// A failed handshake in words: what, where, what to do.
pub(super) fn explain(error: &TlsError, place: &str, tls: &TlsSettings) -> DbError {
    let trusted = match &tls.ca {
        Some(path) => format!("{}", path.display()),
        None => "the system's trusted authorities".to_owned(),
    };
    let message = match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!(
                "the certificate of {place} is not signed by an authority in {trusted}; give the CA file of the authority that signed it"
            )
        }
        TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            let names = if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") };
            format!(
                "the certificate of {place} is for {names}, not for {}; connect by the name in the certificate, or use TLS mode verify-ca",
                expected.to_str()
            )
        }
        TlsError::InvalidCertificate(CertificateError::NotValidForName) => {
            format!("the certificate of {place} is for another name; connect by the name in the certificate, or use TLS mode verify-ca")
        }
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the certificate of {place} has expired (by this host's clock); have it renewed")
        }
        TlsError::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            format!("the certificate of {place} is not valid yet; check this host's clock")
        }
        TlsError::InvalidCertificate(other) => format!("the certificate of {place} cannot be accepted: {other}"),
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA,
        ) => {
            let given =
                if tls.cert.is_some() { "refuses the client certificate that it was given" } else { "asks for a client certificate" };
            format!("{place} {given} ({error}); name a certificate and key that its authority signed")
        }
        other => format!("no TLS connection to {place}: {other}"),
    };
    DbError::fatal(DbErrorKind::Connection, message)
}

/// TLS mode `require`: whoever answers is taken for the server. Signatures prove nothing then and are not looked at, so
/// that the certificates that servers make for themselves, X.509 version 1 among them, do.
#[derive(Debug)]
struct EncryptOnly {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for EncryptOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS mode `verify-ca`: everything but the name. rustls looks at the name last, so an error about it means that the rest
/// is in order.
#[derive(Debug)]
struct ChainOnly {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(TlsError::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn settings(mode: TlsMode) -> TlsSettings {
        TlsSettings { mode, ca: None, cert: None, key: None }
    }

    #[test]
    fn a_ca_file_is_always_used_when_there_is_one() {
        let with_ca = |mode| TlsSettings { ca: Some("ca.pem".into()), ..settings(mode) };
        assert_eq!(verification(&settings(TlsMode::Prefer)), Verification::Nothing);
        assert_eq!(verification(&settings(TlsMode::Require)), Verification::Nothing);
        assert_eq!(verification(&with_ca(TlsMode::Prefer)), Verification::Chain);
        assert_eq!(verification(&with_ca(TlsMode::Require)), Verification::Chain);
        assert_eq!(verification(&settings(TlsMode::VerifyCa)), Verification::Chain);
        assert_eq!(verification(&settings(TlsMode::VerifyFull)), Verification::ChainAndName);
    }

    #[test]
    fn verify_ca_without_a_ca_is_refused() {
        let error = client_config(&settings(TlsMode::VerifyCa)).err().unwrap();
        assert_eq!(error.kind, DbErrorKind::Configuration);
        assert!(error.message.contains("needs a CA file"), "{error}");
    }

    #[test]
    fn a_driver_with_authorities_of_its_own_verifies_nothing() {
        require_no_built_in_authorities(webpki_roots::TLS_SERVER_ROOTS).unwrap();
        let anchor = |name: &'static [u8]| TrustAnchor {
            subject: name.into(),
            subject_public_key_info: b"\xff".as_slice().into(),
            name_constraints: None,
        };
        for roots in [vec![], vec![anchor(b"0\x0a1\x080\x06\x06\x03")], vec![anchor(b"\xff"), anchor(b"\xff")]] {
            let error = require_no_built_in_authorities(&roots).unwrap_err();
            assert_eq!(error.kind, DbErrorKind::Configuration);
            assert!(error.is_fatal() && error.message.contains("Mozilla's public authorities"), "{error}");
        }
    }

    #[test]
    fn files_that_cannot_work_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.pem");
        let expect = |tls: &TlsSettings, words: &str| {
            let error = client_config(tls).err().unwrap();
            assert_eq!(error.kind, DbErrorKind::Configuration);
            assert!(error.message.contains(words) && error.message.contains("file.pem"), "{error}");
        };
        let ca = TlsSettings { ca: Some(path.clone()), ..settings(TlsMode::VerifyFull) };
        expect(&ca, "cannot read the CA file");
        std::fs::write(&path, "hello").unwrap();
        expect(&ca, "holds no certificate");
        let alone = TlsSettings { cert: Some(path.clone()), ..settings(TlsMode::Require) };
        expect(&alone, "has no key with it");
        let alone = TlsSettings { key: Some(path.clone()), ..settings(TlsMode::Require) };
        expect(&alone, "has no certificate with it");
        std::fs::write(&path, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n").unwrap();
        let error = read_key(&path).err().unwrap();
        assert!(error.message.contains("is encrypted"), "{error}");
    }

    #[test]
    fn the_cause_is_found_inside_io_errors() {
        let inner = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, inner.clone());
        let twice = io::Error::other(wrapped);
        assert_eq!(cause(&twice), Some(&inner));
        assert_eq!(cause(&io::Error::from(io::ErrorKind::TimedOut)), None);
    }
}
