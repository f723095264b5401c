//! Signs documents and verifies their signatures: Ed25519, with key files as `openssl genpkey` and `openssl pkey -pubout` write them.
//!
//! The digest of a document shows accidental changes; a person who edits the document can compute a new one. A signature shows that nobody
//! without the private key edited it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use secrecy::{ExposeSecret, SecretBox, SecretSlice};

use super::{Error, Result};
use crate::domain::Signature;
use crate::domain::record_stream::Sign;
use crate::input;

/// Limit on the size of a key file, which takes a few hundred bytes.
const LARGEST_FILE: u64 = 64 << 10;
/// What precedes the 32 bytes of an Ed25519 public key (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ALGORITHM: &str = "ed25519";

pub struct SigningKey {
    pair: Ed25519KeyPair,
    /// Other users can read its file.
    pub is_exposed: bool,
}

/// A public key, and the file that it is from.
pub struct VerifyKey {
    key: Vec<u8>,
    path: PathBuf,
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Unusable(format!("cannot use the key {}: {why}", path.display()))
}

impl SigningKey {
    /// Reads a private key in PEM (PKCS #8).
    pub fn read(path: &Path) -> Result<Self> {
        let input = input::open(path).map_err(|error| unusable(path, error))?;
        let metadata = input.get_ref().1.metadata().map_err(|error| unusable(path, error))?;
        let text = SecretSlice::from(input::read_from(input, LARGEST_FILE).map_err(|error| unusable(path, error))?);
        let Ok(der) = PrivateKeyDer::from_pem_slice(text.expose_secret()).map(|der| SecretBox::new(Box::new(der))) else {
            let holds = |what: &str| text.expose_secret().windows(what.len()).any(|window| window == what.as_bytes());
            return Err(if holds("ENCRYPTED") {
                unusable(path, "it is encrypted; decrypt it into a pipe: --sign-key <(openssl pkey -in FILE)")
            } else if holds("PUBLIC KEY") {
                unusable(path, "it is a public key; signing needs the private key")
            } else {
                unusable(path, "it holds no private key in PEM; make one with: openssl genpkey -algorithm ed25519 -out FILE")
            });
        };
        let pair = match der.expose_secret() {
            // As openssl writes it, the file has no public key to compare with.
            PrivateKeyDer::Pkcs8(der) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok(),
            _ => None,
        };
        let Some(pair) = pair else {
            return Err(unusable(path, "it is not an Ed25519 key; make one with: openssl genpkey -algorithm ed25519 -out FILE"));
        };
        Ok(Self { pair, is_exposed: metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 })
    }

    /// Signs a document that has this digest.
    pub fn sign(&self, sha256: &str) -> Signature {
        Signature {
            algorithm: ALGORITHM.to_owned(),
            public_key: STANDARD.encode(self.pair.public_key()),
            value: STANDARD.encode(self.pair.sign(sha256.as_bytes())),
        }
    }

    /// Signs the lines of a record stream.
    pub fn signer(&self) -> Sign<'_> {
        Box::new(|sha256| self.sign(sha256))
    }

    /// The public key that belongs to it.
    pub fn public(&self, path: &Path) -> VerifyKey {
        VerifyKey { key: self.pair.public_key().as_ref().to_vec(), path: path.to_owned() }
    }
}

impl VerifyKey {
    /// Reads a public key in PEM.
    pub fn read(path: &Path) -> Result<Self> {
        let text = input::read(path, LARGEST_FILE).map_err(|error| unusable(path, error))?;
        let der = SubjectPublicKeyInfoDer::from_pem_slice(&text).map_err(|_| {
            if String::from_utf8_lossy(&text).contains("PRIVATE KEY") {
                unusable(path, "it is a private key; verifying needs the public key: openssl pkey -in FILE -pubout")
            } else {
                unusable(path, "it holds no public key in PEM (-----BEGIN PUBLIC KEY-----)")
            }
        })?;
        match der.strip_prefix(&SPKI) {
            Some(key) if key.len() == 32 => Ok(Self { key: key.to_vec(), path: path.to_owned() }),
            _ => Err(unusable(path, "it is not an Ed25519 key")),
        }
    }

    /// Makes sure that this key has signed a document whose digest fits; `what` is the document, with its name.
    pub fn verify(&self, what: &str, sha256: &str, signature: Option<&Signature>) -> Result<()> {
        let wrong = |why: String| Err(Error::Signature(format!("{what} {why}")));
        let path = self.path.display();
        let Some(signature) = signature else {
            return wrong(format!("is not signed; --verify-key {path} accepts only what that key has signed"));
        };
        if signature.algorithm != ALGORITHM || signature.public_key != STANDARD.encode(&self.key) {
            return wrong(format!("is signed with another key ({}) than {path}", signature.public_key));
        }
        let value = STANDARD.decode(&signature.value).unwrap_or_default();
        if UnparsedPublicKey::new(&ED25519, &self.key).verify(sha256.as_bytes(), &value).is_err() {
            return wrong("has a wrong signature: it was changed after it was signed".to_owned());
        }
        Ok(())
    }
}
