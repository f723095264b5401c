//! The options of cinder.conf for S3, with the meaning that Cinder's driver and boto3 give them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretString};
use ureq::tls::TlsConfig;

use super::sign::Signer;
use crate::config::{Origin, Setting, StorageOptions};
use crate::storage::StorageError;
use crate::storage::http::{self, BaseUrl, Header, Proxies, proxy, trust};

/// The validated options.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) endpoint: BaseUrl,
    pub(super) signer: Signer,
    /// The headers of requests for objects if a customer's key is set.
    pub(super) sse: Vec<Header>,
    /// Proxies, if the options set any.
    pub(super) proxies: Option<Proxies>,
    pub(super) trust: TlsConfig,
    /// The timeout, if it is configured.
    pub(super) timeout: Option<Duration>,
    pub(super) warnings: Vec<String>,
}

impl Settings {
    /// Reads and validates the options.
    pub(super) fn new(options: &StorageOptions) -> Result<Self, StorageError> {
        let text = |name: &str| options.text(name);
        let secret = |name: &str| options.secret(name);
        let mut warnings = Vec::new();
        let needed = |name: &str| secret(name)?.ok_or_else(|| StorageError::missing_option(name));
        let endpoint = text("backup_s3_endpoint_url")?.ok_or_else(|| StorageError::missing_option("backup_s3_endpoint_url"))?;
        let endpoint = BaseUrl::parse(&endpoint.value, &endpoint.origin)?;
        let access_key = needed("backup_s3_store_access_key")?;
        let secret_key = needed("backup_s3_store_secret_key")?;
        let trust = if options.boolean("backup_s3_verify_ssl", true)?.value {
            trust::configured(text("backup_s3_ca_cert_file")?)?
        } else {
            if endpoint.is_https() {
                warnings.push(format!("backup_s3_verify_ssl is false: the certificate of {endpoint} is not verified"));
            }
            trust::unverified()
        };
        let proxy = |setting: Option<Setting<String>>| setting.map(|setting| proxy::parse(&setting.value, &setting.origin)).transpose();
        let proxies = match (proxy(text("backup_s3_http_proxy")?)?, proxy(text("backup_s3_https_proxy")?)?) {
            (None, None) => None,
            (http, https) => Some(Proxies::fixed(http, https)),
        };
        let sse = match (text("backup_s3_sse_customer_algorithm")?, secret("backup_s3_sse_customer_key")?) {
            (Some(algorithm), Some(key)) => sse(&algorithm.value, &key.value)?,
            (None, None) => Vec::new(),
            _ => {
                let warning =
                    "only one of backup_s3_sse_customer_algorithm and backup_s3_sse_customer_key is set: Cinder then encrypts nothing";
                warnings.push(warning.to_owned());
                Vec::new()
            }
        };
        Ok(Self {
            endpoint,
            signer: Signer::new(access_key.value.expose_secret().to_owned(), secret_key.value),
            sse,
            proxies,
            trust,
            timeout: timeout(text("backup_s3_timeout")?)?,
            warnings,
        })
    }
}

/// Returns the headers that botocore sends: the key and its MD5, in base64.
fn sse(algorithm: &str, key: &SecretString) -> Result<Vec<Header>, StorageError> {
    let key = key.expose_secret().as_bytes();
    Ok(vec![
        http::header("x-amz-server-side-encryption-customer-algorithm", algorithm, false)?,
        http::header("x-amz-server-side-encryption-customer-key", &STANDARD.encode(key), true)?,
        http::header("x-amz-server-side-encryption-customer-key-md5", &STANDARD.encode(Md5::digest(key)), true)?,
    ])
}

fn timeout(setting: Option<Setting<String>>) -> Result<Option<Duration>, StorageError> {
    let Some(setting) = setting.filter(|setting| setting.origin != Origin::Default) else { return Ok(None) };
    let seconds = setting.value.trim().parse().ok().filter(|seconds: &f64| (0.001..=86_400.0).contains(seconds));
    let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let wrong = || StorageError::configuration(format!("{}: {:?} is not a number of seconds up to one day", setting.origin, setting.value));
    timeout.map(Some).ok_or_else(wrong)
}
