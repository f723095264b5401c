//! OpenStack Swift, and what speaks its language (Ceph's gateway).
//!
//! An [`Client`] holds the connection and the credentials, a [`SwiftStore`] is one container. Requests, names and the way
//! to the right account are those of Cinder's driver and of `python-swiftclient` below it.

mod login;
mod settings;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use secrecy::ExposeSecret;
use serde::Deserialize;
use ureq::http::Method;

use self::login::ScopedToken;
use self::settings::{AuthMode, Settings};
use super::http::{
    self, BaseUrl, CachedToken, Header, HttpClient, HttpResponse, Network, PagedListing, TokenCache, encode, object_name, part,
};
use super::{ObjectInfo, ObjectStore, StorageError, StorageErrorKind};
use crate::config::StorageOptions;
use crate::domain::hex;

/// One page of a listing is read no further than this: 10 000 names of 1 KiB, and more.
const LARGEST_PAGE: usize = 64 * 1024 * 1024;

/// Swift's accounts, with the credentials of cinder.conf or of the command line.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    http: HttpClient,
    token_caches: Mutex<BTreeMap<Option<String>, Arc<TokenCache<ScopedToken>>>>,
    concurrency: usize,
}

impl Client {
    /// From the options; nothing is asked of any server yet.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] with the option that is missing or wrong.
    pub fn new(options: &StorageOptions, network: &Network) -> Result<Arc<Self>, StorageError> {
        let settings = Settings::new(options)?;
        let http = HttpClient::new(network, &settings.trust, network.proxies.clone());
        Ok(Arc::new(Self { settings, http, token_caches: Mutex::default(), concurrency: network.concurrency }))
    }

    /// What works and should be known all the same, such as certificates that are not verified.
    pub fn warnings(&self) -> &[String] {
        &self.settings.warnings
    }

    /// One container; `project_id` is the backup's project, in whose account it is with `per_user`.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] for a name that is none, and for a missing project.
    pub fn container(self: &Arc<Self>, project_id: Option<&str>, name: &str) -> Result<SwiftStore, StorageError> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(StorageError::new(StorageErrorKind::Configuration, format!("{name:?} is no name of a Swift container")));
        }
        let project = match (self.settings.mode, project_id.filter(|id| !id.is_empty())) {
            (AuthMode::SingleUser, _) => None,
            (AuthMode::PerUser, Some(id)) => Some(id.to_owned()),
            (AuthMode::PerUser, None) => {
                let text = "the backup has no project, and with backup_swift_auth = per_user nothing else tells its Swift account";
                return Err(StorageError::new(StorageErrorKind::Configuration, text));
            }
        };
        // One login does for all projects where the options name one.
        let scope = if self.settings.project.is_some() { None } else { project.clone() };
        let token_cache = Arc::clone(self.token_caches.lock().unwrap_or_else(PoisonError::into_inner).entry(scope.clone()).or_default());
        let of = project.as_deref().map(|id| format!(" of project {id}")).unwrap_or_default();
        Ok(SwiftStore {
            location: format!("Swift container {name}{of}, by {}", self.settings.auth_url),
            account: Arc::clone(self),
            token_cache,
            scope,
            project,
            container: encode(name),
            url: OnceLock::new(),
        })
    }

    /// The URL of the account that the backup's container is in.
    fn storage_url(&self, cached: &CachedToken<ScopedToken>, project: Option<&str>) -> Result<String, StorageError> {
        let configuration = |text: &str| StorageError::new(StorageErrorKind::Configuration, text);
        let url = match (&self.settings.storage_url, project) {
            (Some(url), Some(id)) => {
                return BaseUrl::parse(&format!("{}{}", url.value, encode(id)), &url.origin).map(|base| base.as_str().to_owned());
            }
            (Some(url), None) => return BaseUrl::parse(&url.value, &url.origin).map(|base| base.as_str().to_owned()),
            (None, _) => cached.token.storage_url.as_deref(),
        };
        let Some(url) = url else {
            return Err(configuration(
                "the login names no Swift (no endpoint of this type and interface in its catalogue); give --storage-option backup_swift_url=…",
            ));
        };
        let base = BaseUrl::parse(url, &"the login's storage URL")?;
        let (Some(project), url) = (project, base.as_str()) else { return Ok(base.as_str().to_owned()) };
        // The catalogue's URL is of the account of the operator's project; the backup is in another one.
        match (cached.token.project.as_deref().filter(|own| !own.is_empty()), url.contains(project)) {
            (_, true) => Ok(url.to_owned()),
            (Some(own), false) if url.ends_with(own) => Ok(format!("{}{project}", url.trim_end_matches(own))),
            _ => Err(configuration(
                "the storage URL of the login does not end in its project's id, so that of the backup's project cannot be told; \
                 give --storage-option backup_swift_url=…, to which the project's id is appended",
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
    /// Known after a login, and only for messages.
    url: OnceLock<String>,
    /// The same before and after a login: whoever compares places must not depend on who logged in first.
    location: String,
}

/// Whether a place that an earlier version noted is the container `name`: it noted the URL where it had logged in by then.
pub fn is_url_of(noted: &str, name: &str) -> bool {
    let is_url = noted.starts_with("http://") || noted.starts_with("https://");
    is_url && noted.rsplit('/').next() == Some(encode(name).as_str())
}

impl SwiftStore {
    /// Where it is, for messages: by its URL as soon as that is known.
    fn place(&self) -> &str {
        self.url.get().unwrap_or(&self.location)
    }

    /// Asks for the container or something in it.
    fn send(&self, method: &Method, rest: &str, headers: &[Header]) -> Result<HttpResponse, StorageError> {
        self.send_to_account(method, &format!("/{}{rest}", self.container), headers)
    }

    /// Asks with a token, and once more with a new one where that is refused.
    fn send_to_account(&self, method: &Method, rest: &str, headers: &[Header]) -> Result<HttpResponse, StorageError> {
        let account = &self.account;
        let login = || Ok((login::login(&account.http, &account.settings, self.scope.as_deref())?, None));
        let mut cached = self.token_cache.get(None, login)?;
        let mut renewed = false;
        loop {
            let url = account.storage_url(&cached, self.project.as_deref())?;
            let token = http::header("x-auth-token", cached.token.secret.expose_secret(), true)?;
            let headers: Vec<Header> = headers.iter().cloned().chain([token]).collect();
            let response = account.http.send(method.clone(), &format!("{url}{rest}"), &headers, None)?;
            self.url.get_or_init(|| format!("{url}/{}", self.container));
            match response.status() {
                401 if !renewed => {
                    cached = self.token_cache.get(Some(&cached), login)?;
                    renewed = true;
                }
                401 | 500.. => return Ok(response),
                _ => {
                    cached.mark_accepted();
                    return Ok(response);
                }
            }
        }
    }

    fn page(&self, prefix: &str, marker: Option<&str>) -> Result<Vec<Entry>, StorageError> {
        let marker = marker.map(|marker| format!("&marker={}", encode(marker))).unwrap_or_default();
        let response = self.send(&Method::GET, &format!("?format=json&prefix={}{marker}", encode(prefix)), &[])?;
        if !response.is_success() {
            return Err(self.of_container(response));
        }
        // Something in between that responses "nothing" to everything would make every container an empty one.
        if !has_sign(&response) {
            return Err(response.protocol_error("the response is no listing of Swift's: it has no transaction id"));
        }
        if response.status() == 204 {
            return Ok(Vec::new());
        }
        let what = response.what().to_owned();
        let body = response.read_all(LARGEST_PAGE)?;
        serde_json::from_slice(&body).map_err(|error| {
            StorageError::new(StorageErrorKind::Protocol, format!("{what}: the response is no listing of Swift's ({error})"))
        })
    }

    /// What the refusal of a request for the container itself means.
    fn of_container(&self, response: HttpResponse) -> StorageError {
        if !is_not_found(&response) {
            return refusal(response);
        }
        match not_found(response).and_then(|()| self.prove_account()) {
            Ok(()) => StorageError::new(StorageErrorKind::NoContainer, format!("there is no container at {}", self.place())),
            Err(error) => error,
        }
    }

    /// Whether the account is the right one, where a container is not found in it: in a wrong one, none would be. Swift may
    /// show an account that does not exist as an empty one.
    fn prove_account(&self) -> Result<(), StorageError> {
        let response = self.send_to_account(&Method::HEAD, "", &[])?;
        let what = response.what().to_owned();
        let wrong = |problem: &str| {
            let text = format!("{what}: {problem}; check the project, and backup_swift_url or the login's endpoint");
            StorageError::new(StorageErrorKind::Configuration, text)
        };
        if is_not_found(&response) {
            return not_found(response).and_then(|()| Err(wrong("there is no such Swift account")));
        }
        if !response.is_success() {
            return Err(refusal(response));
        }
        match response.header("x-account-container-count").map(str::parse::<u64>) {
            Some(Ok(0)) => Err(wrong("the Swift account has no container at all, so that it is hardly the right one")),
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(response.protocol_error("the response is not Swift's: it does not count the account's containers")),
        }
    }

    /// Whether an object that the server does not find really is not there: only then does the container itself response.
    fn prove_absent(&self) -> Result<(), StorageError> {
        let response = self.send(&Method::HEAD, "", &[])?;
        if !response.is_success() {
            return Err(self.of_container(response));
        }
        if response.header("x-container-object-count").is_none() {
            return Err(response.protocol_error("the response is not Swift's: it does not count the container's objects"));
        }
        Ok(())
    }
}

impl ObjectStore for SwiftStore {
    fn location(&self) -> &str {
        &self.location
    }

    fn concurrency(&self) -> usize {
        self.account.concurrency
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        let mut last: Option<String> = None;
        loop {
            let page = self.account.http.page(last.is_none(), || self.page(prefix, last.as_deref()))?;
            if page.is_empty() {
                return Ok(());
            }
            let mut listing = PagedListing::after(self.place(), prefix, last.take());
            for entry in page {
                listing.accept(&entry.name)?;
                if each(entry.info()).is_break() {
                    return Ok(());
                }
            }
            last = listing.last().map(str::to_owned);
        }
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        let response = self.send(&Method::HEAD, &format!("/{}", object_name(name)?), &[])?;
        if is_not_found(&response) {
            return not_found(response).and_then(|()| self.prove_absent()).map(|()| None);
        }
        if !response.is_success() {
            return Err(refusal(response));
        }
        is_swift(&response)?;
        let Some(size) = response.length() else { return Err(response.protocol_error("the response does not tell the object's size")) };
        let large = response.header("x-static-large-object").is_some() || response.header("x-object-manifest").is_some();
        let etag = response.header("etag").unwrap_or_default();
        let md5 = if large { None } else { hex::decode(etag.trim_matches('"')) };
        Ok(Some(ObjectInfo { name: name.to_owned(), size, modified: response.modified(), md5 }))
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        let path = format!("/{}", object_name(name)?);
        let Some(range) = range else {
            return self.reader(name, self.send(&Method::GET, &path, &[])?, None);
        };
        match part::header(&range)? {
            Some(header) => self.reader(name, self.send(&Method::GET, &path, &[header])?, Some(range)),
            None => match self.stat(name)? {
                Some(_) => Ok(Box::new(io::empty())),
                None => Err(no_object(name, self.place())),
            },
        }
    }
}

impl SwiftStore {
    fn reader(&self, name: &str, response: HttpResponse, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        match response.status() {
            200 | 206 => {
                is_swift(&response)?;
                part::reader(response, range)
            }
            404 | 410 => {
                not_found(response)?;
                self.prove_absent()?;
                Err(no_object(name, self.place()))
            }
            416 if range.is_some() => Ok(Box::new(io::empty())),
            _ => Err(refusal(response)),
        }
    }
}

fn no_object(name: &str, location: &str) -> StorageError {
    StorageError::new(StorageErrorKind::NoObject, format!("there is no object {name:?} at {location}"))
}

/// Swift's error pages hold nothing that the status does not say.
fn refusal(response: HttpResponse) -> StorageError {
    response.into_error(|_| None)
}

fn is_not_found(response: &HttpResponse) -> bool {
    matches!(response.status(), 404 | 410)
}

/// Whether it is Swift that does not find something, and not a proxy or another server at this address.
fn not_found(response: HttpResponse) -> Result<(), StorageError> {
    if has_id(&response) {
        return Ok(());
    }
    let mut error = refusal(response);
    error.kind = StorageErrorKind::Protocol;
    error.text.push_str("; and the response is not Swift's (it has no transaction id), so that nothing is said");
    Err(error)
}

/// Swift, and Ceph's gateway in its place, give every response a transaction id, whatever its status.
fn has_id(response: &HttpResponse) -> bool {
    ["x-trans-id", "x-openstack-request-id"].iter().any(|name| response.header(name).is_some())
}

fn has_sign(response: &HttpResponse) -> bool {
    has_id(response) || response.header("x-timestamp").is_some()
}

/// Whether a response to a request for an object is Swift's and not that of something in between.
fn is_swift(response: &HttpResponse) -> Result<(), StorageError> {
    if response.header("etag").is_some() && has_sign(response) {
        return Ok(());
    }
    let kind = response.header("content-type").map(http::quote).unwrap_or_else(|| "no content type".to_owned());
    Err(response.protocol_error(format!("the response is not Swift's: it has no ETag and no transaction id, but {kind}")))
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
        // The hash of a large object is that of its manifest; a dynamic one is shown as empty.
        let plain = self.slo_etag.is_none() && self.bytes > 0;
        ObjectInfo {
            size: self.bytes,
            modified: self.last_modified.as_deref().and_then(time),
            md5: self.hash.as_deref().filter(|_| plain).and_then(hex::decode),
            name: self.name,
        }
    }
}

/// Swift's times have microseconds and no zone, which means UTC; Ceph's gateway writes a `Z`.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok())
}
