//! Google Cloud Storage by its JSON API, with a service account, as in Cinder's driver. Unlike Cinder's driver it reads all pages of a
//! listing.

mod service_account;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use ureq::http::Method;

use self::service_account::ServiceAccount;
use super::http::{
    self, BaseUrl, Header, HttpClient, HttpResponse, HttpStore, Network, Page, Proxies, TokenCache, container_name, encode, object_name,
    proxy, trust,
};
use super::{ObjectInfo, StorageError, StorageErrorKind};
use crate::config::StorageOptions;

/// How many objects of a backup Cinder's driver sees, including side files: it reads only the first page of a listing. A backup with
/// more is intact, but Cinder cannot restore it ("actual object list does not match").
pub const SEEN_BY_CINDER: u64 = 1000;

/// Google's URL.
const ENDPOINT: &str = "https://storage.googleapis.com";

/// The limit for a page of a listing with the requested fields, in bytes.
const LARGEST_PAGE: usize = 16 * 1024 * 1024;

/// The requested fields of an object.
const FIELDS: &str = "name,size,md5Hash,timeCreated,updated";

/// Google Cloud Storage, with the service account of cinder.conf.
#[derive(Debug)]
pub struct Client {
    endpoint: BaseUrl,
    account: ServiceAccount,
    http: HttpClient,
    token_cache: TokenCache<SecretString>,
    warnings: Vec<String>,
}

impl Client {
    /// Creates a client from the options, for Google's URL or another `endpoint` (a private one, an emulator), without a request.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] with the option that is missing or wrong.
    pub fn new(options: &StorageOptions, endpoint: Option<&str>, network: &Network) -> Result<Arc<Self>, StorageError> {
        let Some(file) = options.text("backup_gcs_credential_file")? else {
            return Err(StorageError::missing_option("backup_gcs_credential_file"));
        };
        let account = ServiceAccount::read(&file)?;
        let mut network = network.clone();
        if let Some(setting) = options.secret("backup_gcs_proxy_url")? {
            let proxy = proxy::parse(setting.value.expose_secret(), &setting.origin)?;
            network.proxies = Proxies::fixed(Some(proxy.clone()), Some(proxy));
        }
        let endpoint = BaseUrl::parse(endpoint.unwrap_or(ENDPOINT), &"the endpoint for Google Cloud Storage")?;
        let mut warnings = Vec::new();
        if !endpoint.is_https() || !account.token_url.is_https() {
            warnings.push(format!("tokens of {} are sent unencrypted: the endpoint or token_uri is not https", account.email));
        }
        let http = HttpClient::new(network, &trust::system());
        Ok(Arc::new(Self { endpoint, account, http, token_cache: TokenCache::default(), warnings }))
    }

    /// Returns warnings about the options.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns a bucket.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] for an invalid name.
    pub fn bucket(self: &Arc<Self>, name: &str) -> Result<GcsStore, StorageError> {
        let location = format!("{}/storage/v1/b/{}", self.endpoint, container_name(name, "Google bucket")?);
        Ok(GcsStore { client: Arc::clone(self), location })
    }

    fn login(&self) -> Result<(SecretString, Option<Instant>), StorageError> {
        let assertion = self.account.assertion(Timestamp::now())?;
        let body = format!("grant_type={}&assertion={assertion}", encode("urn:ietf:params:oauth:grant-type:jwt-bearer"));
        let form = [http::header("content-type", "application/x-www-form-urlencoded", false)?];
        let response = self.http.send(Method::POST, self.account.token_url.as_str(), &form, Some(body.into_bytes()))?;
        if !response.is_success() {
            let mut error = response.into_error(|body| {
                let text = |document: &Value, name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
                let document: Value = serde_json::from_slice(body).ok()?;
                Some(format!("{} {}", text(&document, "error")?, text(&document, "error_description").unwrap_or_default()))
            });
            // OAuth responds with 400 to an invalid assertion.
            if matches!(error.kind, StorageErrorKind::Protocol | StorageErrorKind::Permission) && !error.text.contains("redirects") {
                error.kind = StorageErrorKind::Authentication;
            }
            if error.kind == StorageErrorKind::Authentication {
                error.text.push_str("; check that the key of backup_gcs_credential_file is valid, and the clock of this host");
            }
            if error.kind == StorageErrorKind::NoObject {
                error.kind = StorageErrorKind::Configuration;
            }
            return Err(error);
        }
        // The document contains the token, so none of it is shown.
        let parse = |body: &[u8]| serde_json::from_slice(body).map_err(|_| "the response has no token".to_owned());
        let grant: Grant = response.parse(LARGEST_PAGE, parse)?;
        let life = grant.expires_in.unwrap_or(300);
        let until = Instant::now().checked_add(Duration::from_secs(life - (life / 4).min(60)));
        Ok((SecretString::from(grant.access_token), until))
    }
}

#[derive(Deserialize)]
struct Grant {
    access_token: String,
    expires_in: Option<u64>,
}

/// One bucket.
#[derive(Debug)]
pub struct GcsStore {
    client: Arc<Client>,
    location: String,
}

impl GcsStore {
    /// Sends a request with a token, and repeats it with a new one if the token is refused.
    fn send(&self, rest: &str, header: Option<Header>) -> Result<HttpResponse, StorageError> {
        let client = &self.client;
        let request = |token: &SecretString| {
            let token = http::header("authorization", &format!("Bearer {}", token.expose_secret()), true)?;
            let headers: Vec<Header> = header.iter().cloned().chain([token]).collect();
            client.http.send(Method::GET, &format!("{}/o{rest}", self.location), &headers, None)
        };
        client.token_cache.send(|| client.login(), request)
    }

    /// Reads a document about objects of the bucket.
    fn document<T: for<'de> Deserialize<'de>>(&self, response: HttpResponse) -> Result<T, StorageError> {
        if !response.is_success() {
            let (error, google) = refusal(response);
            return Err(match error.kind {
                StorageErrorKind::NoObject if google => {
                    StorageError::new(StorageErrorKind::NoContainer, format!("the bucket {} does not exist", self.location))
                }
                StorageErrorKind::NoObject => not_google(error),
                _ => error,
            });
        }
        response.parse(LARGEST_PAGE, |body| {
            serde_json::from_slice(body).map_err(|error| format!("the response is not a document of Google ({error})"))
        })
    }

    /// Requests a page of the listing.
    fn items(&self, query: &str) -> Result<Page, StorageError> {
        let fields = encode(&format!("nextPageToken,items({FIELDS})"));
        let Listing { items, next } = self.document(self.send(&format!("?{query}&fields={fields}"), None)?)?;
        let objects = items.into_iter().map(|item| item.info(&self.location)).collect::<Result<_, _>>()?;
        Ok(Page { objects, next: next.filter(|next| !next.is_empty()) })
    }
}

impl HttpStore for GcsStore {
    fn http(&self) -> &HttpClient {
        &self.client.http
    }

    fn container_location(&self) -> &str {
        &self.location
    }

    fn page(&self, prefix: &str, token: Option<&str>) -> Result<Page, StorageError> {
        let token = token.map(|token| format!("&pageToken={}", encode(token))).unwrap_or_default();
        self.items(&format!("prefix={}{token}", encode(prefix)))
    }

    /// The offset is the first name that may be listed.
    fn page_after(&self, after: &str) -> Result<Page, StorageError> {
        let mut page = self.items(&format!("startOffset={}", encode(after)))?;
        page.objects.retain(|object| object.name != after);
        Ok(page)
    }

    fn get(&self, name: &str, range: Option<Header>) -> Result<Option<HttpResponse>, StorageError> {
        object_name(name)?;
        let has_range = range.is_some();
        let response = self.send(&format!("/{}?alt=media", encode(name)), range)?;
        match response.status() {
            200 | 206 => {
                let signs = ["x-goog-hash", "x-goog-generation", "x-goog-stored-content-length"];
                if response.is_html() || !signs.iter().any(|sign| response.header(sign).is_some()) {
                    return Err(response
                        .protocol_error("the response is not from Google: it has neither the hash nor the generation of the object"));
                }
                Ok(Some(response))
            }
            416 if has_range => Ok(None),
            // The error is plain text. The document about the object shows whether it is from Google.
            404 => Err(match self.info(name)? {
                None => StorageError::no_object(name, &self.location),
                Some(_) => StorageError::new(
                    StorageErrorKind::Transient,
                    format!("the object {name:?} at {} exists, but reading it says that it does not", self.location),
                ),
            }),
            _ => Err(refusal(response).0),
        }
    }

    fn info(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        object_name(name)?;
        let response = self.send(&format!("/{}?fields={}", encode(name), encode(FIELDS)), None)?;
        if response.status() == 404 {
            let (error, google) = refusal(response);
            if !google {
                return Err(not_google(error));
            }
            // The error for a missing object and for a missing bucket is the same. A listing succeeds only if the bucket exists.
            let _: Listing = self.document(self.send("?maxResults=1&fields=nextPageToken", None)?)?;
            return Ok(None);
        }
        let item: Item = self.document(response)?;
        if item.name != name {
            let text = format!("{} returned {:?} instead of {name:?}", self.location, item.name);
            return Err(StorageError::protocol(text));
        }
        item.info(&self.location).map(Some)
    }
}

/// Converts a 404 that proves nothing about an object or a bucket.
fn not_google(error: StorageError) -> StorageError {
    StorageError::protocol(format!("{}; the response is not an error document of Google, so it proves nothing", error.text))
}

/// Converts an error response, and returns whether it is from Google.
fn refusal(response: HttpResponse) -> (StorageError, bool) {
    let status = response.status();
    let (mut google, mut limited) = (false, false);
    let mut error = response.into_error(|body| {
        let document: Value = serde_json::from_slice(body).ok()?;
        let error = document.get("error")?;
        google = error.get("code").and_then(Value::as_u64) == Some(u64::from(status));
        let reason = error.pointer("/errors/0/reason").and_then(Value::as_str).unwrap_or_default();
        limited = matches!(reason, "rateLimitExceeded" | "userRateLimitExceeded" | "backendError" | "internalError");
        Some(format!("{reason}: {}", error.get("message").and_then(Value::as_str).unwrap_or_default()))
    });
    if limited {
        error.kind = StorageErrorKind::Transient;
    }
    (error, google)
}

#[derive(Debug, Deserialize)]
struct Listing {
    #[serde(default)]
    items: Vec<Item>,
    #[serde(default, rename = "nextPageToken")]
    next: Option<String>,
}

/// An object, in a listing or alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    name: String,
    /// A number as text.
    size: String,
    /// Missing for composed objects.
    md5_hash: Option<String>,
    time_created: Option<String>,
    updated: Option<String>,
}

impl Item {
    fn info(self, location: &str) -> Result<ObjectInfo, StorageError> {
        let Ok(size) = self.size.parse() else {
            let text = format!("{location} returned the invalid size {} of {}", http::quote(&self.size), http::quote(&self.name));
            return Err(StorageError::protocol(text));
        };
        let time = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        let md5 = self.md5_hash.and_then(|text| STANDARD.decode(text).ok()).and_then(|bytes| bytes.try_into().ok());
        Ok(ObjectInfo { name: self.name, size, modified: time(&self.time_created).or_else(|| time(&self.updated)), md5 })
    }
}
