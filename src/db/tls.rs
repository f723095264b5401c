//! TLS for MySQL, MariaDB and PostgreSQL: what the modes mean, how files are read, and how failures are reported.
//!
//! | mode | connection | certificate |
//! |---|---|---|
//! | `disable` | plain | – |
//! | `prefer` | TLS if the server offers it | as `require` |
//! | `require` | TLS | not verified; with a CA file as `verify-ca` |
//! | `verify-ca` | TLS | signed by the CA file's authority, for any name |
//! | `verify-full` | TLS | signed by the CA file's authority, or one that the system trusts, for the host's name |
//!
//! These are libpq's meanings, for MySQL too. rustls uses the provider `ring`, which is passed here and not installed for the
//! process. May use `config` and the other modules of `db`.

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

use super::remote::Remote;
use super::{DbError, DbErrorKind};
use crate::config::{TlsMode, TlsSettings};

/// How much of the server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// Nothing: the connection is protected against listeners, but not against an impostor.
    Nothing,
    /// The chain up to the authority.
    Chain,
    /// The chain, and that the certificate is for the host's name.
    ChainAndName,
}

/// What the settings require of the server's certificate.
pub(super) fn verification(tls: &TlsSettings) -> Verification {
    match tls.mode {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require if tls.ca.is_none() => Verification::Nothing,
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyCa => Verification::Chain,
        TlsMode::VerifyFull => Verification::ChainAndName,
    }
}

/// The authorities to trust: those of the CA file or else those of the system. None if nothing is verified.
pub(super) fn authorities(tls: &TlsSettings) -> Result<Vec<CertificateDer<'static>>, DbError> {
    match (verification(tls), &tls.ca) {
        (Verification::Nothing, _) => Ok(Vec::new()),
        (_, Some(path)) => read_certificates(path, "CA"),
        (Verification::Chain, None) => Err(configuration(
            "TLS mode verify-ca needs a CA file: the system's public authorities would accept the certificate of any web site; \
             give the CA file of the database's own authority, or use verify-full",
        )),
        (Verification::ChainAndName, None) => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let cause = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                let problem = format!("the system has no trusted certificate authorities{cause}; give a CA file for TLS mode verify-full");
                return Err(configuration(problem));
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

/// The client's certificate and key, if the settings name them.
pub(super) fn identity(tls: &TlsSettings) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, DbError> {
    match (&tls.cert, &tls.key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some((read_certificates(cert, "client certificate")?, read_key(key)?))),
        (Some(cert), None) => Err(configuration(format!("the client certificate {} has no key; give the key's file too", cert.display()))),
        (None, Some(key)) => {
            Err(configuration(format!("the client key {} has no certificate; give the certificate's file too", key.display())))
        }
    }
}

/// The configuration of rustls for these settings.
pub(super) fn client_config(tls: &TlsSettings) -> Result<ClientConfig, DbError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verification = verification(tls);
    let verifier: Arc<dyn ServerCertVerifier> = if verification == Verification::Nothing {
        Arc::new(PartialVerifier { chain: None, provider: Arc::clone(&provider) })
    } else {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(authorities(tls)?);
        if added == 0 {
            let source = tls.ca.as_ref().map_or_else(|| "the system".to_owned(), |path| path.display().to_string());
            return Err(configuration(format!("no certificate of {source} can be used as an authority")));
        }
        let full = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| configuration(format!("cannot verify certificates with these authorities: {error}")))?;
        if verification == Verification::Chain {
            Arc::new(PartialVerifier { chain: Some(full), provider: Arc::clone(&provider) })
        } else {
            full
        }
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
            .map_err(|error| configuration(format!("the client's certificate and key do not match: {error}"))),
    }
}

/// The largest file that is read. A file with all public authorities takes 250 KiB.
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
            configuration(format!("the client key {shown} is encrypted, which is not supported; give a file with the unencrypted key"))
        } else {
            configuration(format!("the client key {shown} holds no private key in PEM"))
        }
    })
}

pub(super) fn configuration(message: impl Into<String>) -> DbError {
    DbError::fatal(DbErrorKind::Configuration, message)
}

/// The error of rustls inside a driver's error, however deep it is wrapped.
pub(super) fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<TlsError>() {
            return Some(found);
        }
        // `source` of an io::Error skips the error that it wraps; `get_ref` returns it.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The error for a failed handshake, with advice.
pub(super) fn explain(error: &TlsError, remote: &Remote) -> DbError {
    const OTHER_NAME: &str = "connect by the name in the certificate, or use TLS mode verify-ca";
    let (name, tls) = (&remote.name, &remote.tls);
    let trusted = match &tls.ca {
        Some(path) => path.display().to_string(),
        None => "the system's trusted authorities".to_owned(),
    };
    let message = match error {
        TlsError::InvalidCertificate(problem) => {
            let problem = match problem {
                CertificateError::UnknownIssuer => {
                    format!("is not signed by an authority in {trusted}; give the CA file of the authority that signed it")
                }
                CertificateError::NotValidForNameContext { expected, presented } => {
                    let names = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
                    format!("is for {names}, not for {}; {OTHER_NAME}", expected.to_str())
                }
                CertificateError::NotValidForName => format!("is for another name; {OTHER_NAME}"),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "has expired (by this host's clock); renew it".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "is not valid yet; check this host's clock".to_owned()
                }
                other => format!("cannot be accepted: {other}"),
            };
            format!("the certificate of {name} {problem}")
        }
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA,
        ) => {
            let given = if tls.cert.is_some() { "refuses the client certificate" } else { "requires a client certificate" };
            format!("{name} {given} ({error}); give a certificate that its authority signed, and the key")
        }
        other => format!("no TLS connection to {name}: {other}"),
    };
    DbError::fatal(DbErrorKind::Connection, message)
}

/// Verifies less than rustls by default: nothing for TLS mode `require`, everything but the name for `verify-ca`.
#[derive(Debug)]
struct PartialVerifier {
    /// `None` accepts any certificate. Signatures would then prove nothing and are not verified, so that certificates which servers
    /// generate for themselves are accepted, X.509 version 1 included.
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PartialVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // rustls checks the name last, so everything else is valid.
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
        let verify = |chain: &Arc<WebPkiServerVerifier>| chain.verify_tls12_signature(message, certificate, signature);
        self.chain.as_ref().map_or_else(|| Ok(HandshakeSignatureValid::assertion()), verify)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let verify = |chain: &Arc<WebPkiServerVerifier>| chain.verify_tls13_signature(message, certificate, signature);
        self.chain.as_ref().map_or_else(|| Ok(HandshakeSignatureValid::assertion()), verify)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
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
    fn a_ca_file_is_always_used() {
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
    fn a_driver_with_its_own_authorities_is_refused() {
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
    fn errors_name_the_unusable_file() {
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
        expect(&alone, "has no key;");
        let alone = TlsSettings { key: Some(path.clone()), ..settings(TlsMode::Require) };
        expect(&alone, "has no certificate;");
        std::fs::write(&path, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n").unwrap();
        let error = read_key(&path).err().unwrap();
        assert!(error.message.contains("is encrypted"), "{error}");
    }

    #[test]
    fn the_tls_error_is_found_inside_io_errors() {
        let inner = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, inner.clone());
        let twice = io::Error::other(wrapped);
        assert_eq!(cause(&twice), Some(&inner));
        assert_eq!(cause(&io::Error::from(io::ErrorKind::TimedOut)), None);
    }
}
