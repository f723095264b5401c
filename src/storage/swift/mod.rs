//! OpenStack Swift, and services with its API (Ceph's gateway).
//!
//! A [`Client`] has the connection and the credentials, a [`SwiftStore`] is one container. Requests, names and the choice of the
//! account are those of Cinder's driver and of `python-swiftclient`, which it uses.

mod login;
mod settings;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use secrecy::ExposeSecret;
use serde::Deserialize;
use ureq::http::Method;

use self::login::ScopedToken;
use self::settings::{AuthMode, Settings};
use super::http::{
    self, BaseUrl, Header, HttpClient, HttpResponse, HttpStore, Network, Page, TokenCache, container_name, encode, object_name,
};
use super::{ObjectInfo, StorageError, StorageErrorKind};
use crate::config::StorageOptions;
use crate::domain::hex;
use crate::parallel::lock;

/// The limit for a page of a listing, in bytes. It has up to 10 000 names of 1 KiB.
const LARGEST_PAGE: usize = 64 * 1024 * 1024;

/// A Swift service, with the credentials of cinder.conf or of the command line.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    http: HttpClient,
    token_caches: Mutex<BTreeMap<Option<String>, Arc<TokenCache<ScopedToken>>>>,
}

impl Client {
    /// Creates a client from the options, without a request.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] with the option that is missing or wrong.
    pub fn new(options: &StorageOptions, network: &Network) -> Result<Arc<Self>, StorageError> {
        let settings = Settings::new(options)?;
        let http = HttpClient::new(network.clone(), &settings.trust);
        Ok(Arc::new(Self { settings, http, token_caches: Mutex::default() }))
    }

    /// Returns warnings about the options, for example that certificates are not verified.
    pub fn warnings(&self) -> &[String] {
        &self.settings.warnings
    }

    /// Returns a container. With `per_user` it is in the account of `project_id`, the project of the backup.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] for an invalid name, and for a missing project.
    pub fn container(self: &Arc<Self>, project_id: Option<&str>, name: &str) -> Result<SwiftStore, StorageError> {
        let container = container_name(name, "Swift container")?;
        let project = match (self.settings.mode, project_id.filter(|id| !id.is_empty())) {
            (AuthMode::SingleUser, _) => None,
            (AuthMode::PerUser, Some(id)) => Some(id.to_owned()),
            (AuthMode::PerUser, None) => {
                return Err(StorageError::configuration(
                    "the backup has no project, which selects the Swift account with backup_swift_auth = per_user",
                ));
            }
        };
        // If the options set a project, one login serves all projects.
        let scope = if self.settings.project.is_some() { None } else { project.clone() };
        let token_cache = Arc::clone(lock(&self.token_caches).entry(scope.clone()).or_default());
        let of = project.as_deref().map(|id| format!(" of project {id}")).unwrap_or_default();
        Ok(SwiftStore {
            location: format!("Swift container {name}{of}, by {}", self.settings.auth_url),
            account: Arc::clone(self),
            token_cache,
            scope,
            project,
            container,
            url: OnceLock::new(),
        })
    }

    /// Returns the URL of the account that has the container of the backup.
    fn storage_url(&self, token: &ScopedToken, project: Option<&str>) -> Result<String, StorageError> {
        if let Some(url) = &self.settings.storage_url {
            let id = project.map(encode).unwrap_or_default();
            return BaseUrl::parse(&format!("{}{id}", url.value), &url.origin).map(|base| base.as_str().to_owned());
        }
        let Some(url) = token.storage_url.as_deref() else {
            return Err(StorageError::configuration(
                "the catalogue of the login has no Swift endpoint of this type and interface; use --storage-option backup_swift_url=…",
            ));
        };
        let base = BaseUrl::parse(url, &"the login's storage URL")?;
        let (Some(project), url) = (project, base.as_str()) else { return Ok(base.as_str().to_owned()) };
        // The URL of the catalogue is for the operator's project. The backup is in the account of another project.
        match (token.project.as_deref().filter(|own| !own.is_empty()), url.contains(project)) {
            (_, true) => Ok(url.to_owned()),
            (Some(own), false) if url.ends_with(own) => Ok(format!("{}{project}", url.trim_end_matches(own))),
            _ => Err(StorageError::configuration(
                "the storage URL of the login does not end with the id of its project, so the URL of the backup's project is unknown; \
                 use --storage-option backup_swift_url=…, to which the id of the project is appended",
            )),
        }
    }
}

/// One container.
#[derive(Debug)]
pub struct SwiftStore {
    account: Arc<Client>,
    token_cache: Arc<TokenCache<ScopedToken>>,
    scope: Option<String>,
    project: Option<String>,
    /// Percent-encoded.
    container: String,
    /// The URL, which is known after a login; only for messages.
    url: OnceLock<String>,
    /// The same before and after a login, so that locations can be compared at any time.
    location: String,
}

/// Whether the location that an earlier version recorded is the container `name`. After a login it recorded the URL.
pub fn is_url_of(recorded: &str, name: &str) -> bool {
    let is_url = recorded.starts_with("http://") || recorded.starts_with("https://");
    is_url && recorded.rsplit('/').next() == Some(encode(name).as_str())
}

impl SwiftStore {
    /// Sends a request for the container or for something in it.
    fn send(&self, method: &Method, rest: &str, header: Option<Header>) -> Result<HttpResponse, StorageError> {
        self.send_to_account(method, &format!("/{}{rest}", self.container), header)
    }

    /// Sends a request with a token, and repeats it with a new one if the token is refused.
    fn send_to_account(&self, method: &Method, rest: &str, header: Option<Header>) -> Result<HttpResponse, StorageError> {
        let account = &self.account;
        let login = || Ok((login::login(&account.http, &account.settings, self.scope.as_deref())?, None));
        let request = |token: &ScopedToken| {
            let url = account.storage_url(token, self.project.as_deref())?;
            let secret = http::header("x-auth-token", token.secret.expose_secret(), true)?;
            let headers: Vec<Header> = header.iter().cloned().chain([secret]).collect();
            let response = account.http.send(method.clone(), &format!("{url}{rest}"), &headers, None)?;
            self.url.get_or_init(|| format!("{url}/{}", self.container));
            Ok(response)
        };
        self.token_cache.send(login, request)
    }

    /// Returns the error for a refused request for the container.
    fn of_container(&self, response: HttpResponse) -> StorageError {
        if !is_not_found(&response) {
            return refusal(response);
        }
        match not_found(response).and_then(|()| self.prove_account()) {
            Ok(()) => StorageError::new(StorageErrorKind::NoContainer, format!("the container {} does not exist", self.place())),
            Err(error) => error,
        }
    }

    /// Checks that the account exists if a container is not found: a wrong account has no containers. Swift may show a missing
    /// account as an empty one.
    fn prove_account(&self) -> Result<(), StorageError> {
        let response = self.send_to_account(&Method::HEAD, "", None)?;
        let what = response.what().to_owned();
        let wrong = |problem: &str| {
            StorageError::configuration(format!("{what}: {problem}; check the project, and backup_swift_url or the login's endpoint"))
        };
        if is_not_found(&response) {
            return not_found(response).and_then(|()| Err(wrong("no such Swift account")));
        }
        if !response.is_success() {
            return Err(refusal(response));
        }
        match response.header("x-account-container-count").map(str::parse::<u64>) {
            Some(Ok(0)) => Err(wrong("the Swift account has no containers, so it is probably the wrong one")),
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => {
                Err(response.protocol_error("the response is not from Swift: it does not count the containers of the account"))
            }
        }
    }

    /// Checks that the container exists if an object is not found.
    fn prove_absent(&self) -> Result<(), StorageError> {
        let response = self.send(&Method::HEAD, "", None)?;
        if !response.is_success() {
            return Err(self.of_container(response));
        }
        if response.header("x-container-object-count").is_none() {
            return Err(response.protocol_error("the response is not from Swift: it does not count the objects of the container"));
        }
        Ok(())
    }

    /// Requests a page of the listing.
    fn entries(&self, query: &str) -> Result<Page, StorageError> {
        let response = self.send(&Method::GET, &format!("?format=json&{query}"), None)?;
        if !response.is_success() {
            return Err(self.of_container(response));
        }
        // With a proxy that answers every request with "no content", every container would look empty.
        if !has_sign(&response) {
            return Err(response.protocol_error("the response is not a listing of Swift: it has no transaction id"));
        }
        if response.status() == 204 {
            return Ok(Page::default());
        }
        let entries: Vec<Entry> = response.parse(LARGEST_PAGE, |body| {
            serde_json::from_slice(body).map_err(|error| format!("the response is not a listing of Swift ({error})"))
        })?;
        let next = entries.last().map(|entry| entry.name.clone());
        Ok(Page { objects: entries.into_iter().map(Entry::info).collect(), next })
    }
}

impl HttpStore for SwiftStore {
    fn http(&self) -> &HttpClient {
        &self.account.http
    }

    fn container_location(&self) -> &str {
        &self.location
    }

    /// Returns the URL if it is known.
    fn place(&self) -> &str {
        self.url.get().unwrap_or(&self.location)
    }

    /// The token of a page is the last name of the page before it. The last page is empty.
    fn page(&self, prefix: &str, marker: Option<&str>) -> Result<Page, StorageError> {
        let marker = marker.map(|marker| format!("&marker={}", encode(marker))).unwrap_or_default();
        self.entries(&format!("prefix={}{marker}", encode(prefix)))
    }

    fn page_after(&self, after: &str) -> Result<Page, StorageError> {
        self.entries(&format!("marker={}", encode(after)))
    }

    fn get(&self, name: &str, range: Option<Header>) -> Result<Option<HttpResponse>, StorageError> {
        let has_range = range.is_some();
        let response = self.send(&Method::GET, &format!("/{}", object_name(name)?), range)?;
        match response.status() {
            200 | 206 => is_swift(&response).map(|()| Some(response)),
            404 | 410 => {
                not_found(response)?;
                self.prove_absent()?;
                Err(StorageError::no_object(name, self.place()))
            }
            416 if has_range => Ok(None),
            _ => Err(refusal(response)),
        }
    }

    fn info(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        let response = self.send(&Method::HEAD, &format!("/{}", object_name(name)?), None)?;
        if is_not_found(&response) {
            return not_found(response).and_then(|()| self.prove_absent()).map(|()| None);
        }
        if !response.is_success() {
            return Err(refusal(response));
        }
        is_swift(&response)?;
        let Some(size) = response.length() else { return Err(response.protocol_error("the response has no size")) };
        let large = response.header("x-static-large-object").is_some() || response.header("x-object-manifest").is_some();
        let etag = response.header("etag").unwrap_or_default();
        let md5 = if large { None } else { hex::decode(etag.trim_matches('"')) };
        Ok(Some(ObjectInfo { name: name.to_owned(), size, modified: response.modified(), md5 }))
    }
}

/// Returns the error of a response. Swift's error pages only repeat the status.
fn refusal(response: HttpResponse) -> StorageError {
    response.into_error(|_| None)
}

fn is_not_found(response: &HttpResponse) -> bool {
    matches!(response.status(), 404 | 410)
}

/// Checks that a 404 is from Swift, and not from a proxy or another server at this address.
fn not_found(response: HttpResponse) -> Result<(), StorageError> {
    if has_id(&response) {
        return Ok(());
    }
    let mut error = refusal(response);
    error.kind = StorageErrorKind::Protocol;
    error.text.push_str("; the response is not from Swift (it has no transaction id), so it proves nothing");
    Err(error)
}

/// Swift and Ceph's gateway set a transaction id in every response, with any status.
fn has_id(response: &HttpResponse) -> bool {
    ["x-trans-id", "x-openstack-request-id"].iter().any(|name| response.header(name).is_some())
}

fn has_sign(response: &HttpResponse) -> bool {
    has_id(response) || response.header("x-timestamp").is_some()
}

/// Checks that the response to a request for an object is from Swift and not from a proxy.
fn is_swift(response: &HttpResponse) -> Result<(), StorageError> {
    if response.header("etag").is_some() && has_sign(response) {
        return Ok(());
    }
    let kind = response.content_type();
    Err(response.protocol_error(format!("the response is not from Swift: it has no ETag or no transaction id, but {kind}")))
}

/// An object in a listing.
#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    #[serde(default)]
    hash: Option<String>,
    #[serde(default)]
    last_modified: Option<String>,
    #[serde(default)]
    slo_etag: Option<serde::de::IgnoredAny>,
}

impl Entry {
    fn info(self) -> ObjectInfo {
        // The hash of a large object is that of its manifest. A dynamic large object has size 0 in a listing.
        let plain = self.slo_etag.is_none() && self.bytes > 0;
        ObjectInfo {
            size: self.bytes,
            modified: self.last_modified.as_deref().and_then(time),
            md5: self.hash.as_deref().filter(|_| plain).and_then(hex::decode),
            name: self.name,
        }
    }
}

/// Parses a time. Swift writes microseconds and no zone, which means UTC. Ceph's gateway writes a `Z`.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok())
}
