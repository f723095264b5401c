//! Google's service account: the credential file of cinder.conf, and signed assertions.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;

use crate::config::Setting;
use crate::storage::StorageError;
use crate::storage::http::BaseUrl;

/// The limit for a credential file, in bytes. They have 2 KiB.
const LARGEST_FILE: u64 = 1024 * 1024;

/// The audience of an assertion. Google's client uses this one even if `token_uri` is another URL.
const AUDIENCE: &str = "https://oauth2.googleapis.com/token";

/// The requested permission: only to read.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

/// The lifetime of an assertion in seconds, the longest that Google accepts.
const LIFE: i64 = 3600;

/// A service account. `Debug` shows only the public part of the key.
#[derive(Debug)]
pub(super) struct ServiceAccount {
    pub(super) email: String,
    id: Option<String>,
    pair: RsaKeyPair,
    /// The URL that issues tokens.
    pub(super) token_url: BaseUrl,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: String,
}

impl ServiceAccount {
    /// Reads the file that `backup_gcs_credential_file` names.
    ///
    /// # Errors
    /// [`Configuration`](crate::storage::StorageErrorKind::Configuration); nothing of the contents of the file is shown.
    pub(super) fn read(setting: &Setting<String>) -> Result<Self, StorageError> {
        let path = Path::new(&setting.value);
        let wrong = |problem: String| StorageError::configuration(format!("{}: {}: {problem}", setting.origin, path.display()));
        let bytes = crate::input::read(path, LARGEST_FILE).map_err(|error| wrong(format!("cannot read the credential file: {error}")))?;
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| {
            wrong(format!("not a key file of a service account (JSON): line {}, column {}", error.line(), error.column()))
        })?;
        if document.kind.as_deref().is_some_and(|kind| kind != "service_account") {
            return Err(wrong("not a key file of a service account, but of another type".to_owned()));
        }
        let pair = match PrivateKeyDer::from_pem_slice(document.private_key.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            Ok(_) | Err(_) => return Err(wrong("private_key is not an RSA key in PEM".to_owned())),
        };
        let pair = pair.map_err(|error| wrong(format!("private_key cannot be used: {error}")))?;
        let token_url = BaseUrl::parse(&document.token_uri, &format!("token_uri of {}", path.display()))?;
        Ok(Self { email: document.client_email, id: document.private_key_id, pair, token_url })
    }

    /// Returns a signed assertion, which is exchanged for a token.
    pub(super) fn assertion(&self, now: Timestamp) -> Result<String, StorageError> {
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let (Some(id), Some(header)) = (&self.id, header.as_object_mut()) {
            header.insert("kid".to_owned(), id.as_str().into());
        }
        let now = now.as_second();
        let claims = json!({"iss": self.email, "scope": SCOPE, "aud": AUDIENCE, "iat": now, "exp": now + LIFE});
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| StorageError::configuration("the service account's private key cannot sign"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
