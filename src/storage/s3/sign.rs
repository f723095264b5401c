//! Amazon's signature, version 4, for requests without a body.
//!
//! Source: "Authenticating Requests: Using the Authorization Header" in Amazon's S3 API reference, whose examples are the
//! tests. Paths are encoded once and never normalised, as S3 alone has it.

use std::sync::Mutex;

use jiff::Timestamp;
use ring::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};

use crate::domain::hex;
use crate::parallel::lock;
use crate::storage::StorageError;
use crate::storage::http::{self, Header};

/// SHA-256 of no bytes, in hexadecimal.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The region that boto3 signs for if none is configured. Cinder configures none.
const USUAL_REGION: &str = "us-east-1";

/// The keys, and the region to sign for.
#[derive(Debug)]
pub(super) struct Signer {
    access_key: String,
    secret_key: SecretString,
    region: Mutex<String>,
}

/// The signed parts of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedRequest<'a> {
    pub(super) method: &'a str,
    /// The value of `Host`.
    pub(super) host: &'a str,
    /// Percent-encoded, as it is sent.
    pub(super) path: &'a str,
    /// Percent-encoded, as it is sent, in ascending order.
    pub(super) query: &'a str,
}

impl Signer {
    pub(super) fn new(access_key: String, secret_key: SecretString) -> Self {
        Self { access_key, secret_key, region: Mutex::new(USUAL_REGION.to_owned()) }
    }

    /// Returns the region to sign for.
    pub(super) fn region(&self) -> String {
        lock(&self.region).clone()
    }

    /// Signs for another region from now on.
    pub(super) fn set_region(&self, region: String) {
        *lock(&self.region) = region;
    }

    /// Returns the headers of a request with the signature.
    ///
    /// # Errors
    /// Keys with characters that are not allowed in a header.
    pub(super) fn sign(&self, request: SignedRequest<'_>, headers: &[Header], now: Timestamp) -> Result<Vec<Header>, StorageError> {
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut headers = headers.to_vec();
        headers.push(http::header("x-amz-content-sha256", EMPTY, false)?);
        headers.push(http::header("x-amz-date", &time, false)?);
        let mut lines: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default().trim())).collect();
        lines.push(("host", request.host));
        lines.sort_unstable();
        let names = lines.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = lines.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let SignedRequest { method, path, query, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{EMPTY}");
        let region = self.region();
        let day = time.get(..8).unwrap_or_default();
        let scope = format!("{day}/{region}/s3/aws4_request");
        let digest = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let signature = hex::encode(self.mac(day, &region, format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}").as_bytes()).as_ref());
        let authorization = format!("AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}", self.access_key);
        headers.push(http::header("authorization", &authorization, true)?);
        Ok(headers)
    }

    fn mac(&self, day: &str, region: &str, text: &[u8]) -> hmac::Tag {
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{}", self.secret_key.expose_secret()).as_bytes());
        for part in [day, region, "s3", "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        hmac::sign(&key, text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The examples of Amazon's documentation.
    #[test]
    fn amazons_examples_have_their_signatures() {
        let signer = Signer::new("AKIAIOSFODNN7EXAMPLE".to_owned(), SecretString::from("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"));
        let now = "2013-05-24T00:00:00Z".parse().unwrap();
        let range = http::header("range", "bytes=0-9", false).unwrap();
        for (path, query, headers, signed, signature) in [
            (
                "/test.txt",
                "",
                vec![range],
                "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "/",
                "lifecycle=",
                vec![],
                "host;x-amz-content-sha256;x-amz-date",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "/",
                "max-keys=2&prefix=J",
                vec![],
                "host;x-amz-content-sha256;x-amz-date",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let request = SignedRequest { method: "GET", host: "examplebucket.s3.amazonaws.com", path, query };
            let headers = signer.sign(request, &headers, now).unwrap();
            let (_, value) = headers.iter().find(|(name, _)| name == "authorization").unwrap();
            let scope = "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
            assert_eq!(value.to_str().unwrap(), format!("AWS4-HMAC-SHA256 {scope},SignedHeaders={signed},Signature={signature}"));
            assert!(value.is_sensitive());
        }
    }
}
