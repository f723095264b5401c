//! OpenStack Swift, and what speaks its language (Ceph's gateway).
//!
//! An [`Account`] holds the connection and the credentials, a [`SwiftStore`] is one container. Requests, names and the way
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

use self::login::Session;
use self::settings::{Mode, Settings};
use super::http::{self, Answer, Base, Header, Http, Listing, Live, Network, Slot, encode, object_name, part};
use super::{ObjectInfo, ObjectStore, StorageError, StorageErrorKind};
use crate::config::StorageOptions;
use crate::domain::hex;

/// One page of a listing is read no further than this: 10 000 names of 1 KiB, and more.
const LARGEST_PAGE: usize = 64 * 1024 * 1024;

/// Swift's accounts, with the credentials of cinder.conf or of the command line.
#[derive(Debug)]
pub struct Account {
    settings: Settings,
    http: Http,
    slots: Mutex<BTreeMap<Option<String>, Arc<Slot<Session>>>>,
    concurrency: usize,
}

impl Account {
    /// From the options; nothing is asked of any server yet.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] with the option that is missing or wrong.
    pub fn new(options: &StorageOptions, network: &Network) -> Result<Arc<Self>, StorageError> {
        let settings = Settings::new(options)?;
        let http = Http::new(network, &settings.trust, network.proxies.clone());
        Ok(Arc::new(Self { settings, http, slots: Mutex::default(), concurrency: network.concurrency }))
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
            (Mode::SingleUser, _) => None,
            (Mode::PerUser, Some(id)) => Some(id.to_owned()),
            (Mode::PerUser, None) => {
                let text = "the backup has no project, and with backup_swift_auth = per_user nothing else tells its Swift account";
                return Err(StorageError::new(StorageErrorKind::Configuration, text));
            }
        };
        // One login does for all projects where the options name one.
        let scope = if self.settings.project.is_some() { None } else { project.clone() };
        let slot = Arc::clone(self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(scope.clone()).or_default());
        let of = project.as_deref().map(|id| format!(" of project {id}")).unwrap_or_default();
        Ok(SwiftStore {
            location: format!("Swift container {name}{of}, by {}", self.settings.auth_url),
            account: Arc::clone(self),
            slot,
            scope,
            project,
            container: encode(name),
            url: OnceLock::new(),
        })
    }

    /// The URL of the account that the backup's container is in.
    fn storage_url(&self, live: &Live<Session>, project: Option<&str>) -> Result<String, StorageError> {
        let configuration = |text: &str| StorageError::new(StorageErrorKind::Configuration, text);
        let url = match (&self.settings.storage_url, project) {
            (Some(url), Some(id)) => {
                return Base::parse(&format!("{}{}", url.value, encode(id)), &url.origin).map(|base| base.as_str().to_owned());
            }
            (Some(url), None) => return Base::parse(&url.value, &url.origin).map(|base| base.as_str().to_owned()),
            (None, _) => live.session.storage_url.as_deref(),
        };
        let Some(url) = url else {
            return Err(configuration(
                "the login names no Swift (no endpoint of this type and interface in its catalogue); give --storage-option backup_swift_url=…",
            ));
        };
        let base = Base::parse(url, &"the login's storage URL")?;
        let (Some(project), url) = (project, base.as_str()) else { return Ok(base.as_str().to_owned()) };
        // The catalogue's URL is of the account of the operator's project; the backup is in another one.
        match (live.session.project.as_deref().filter(|own| !own.is_empty()), url.contains(project)) {
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
    account: Arc<Account>,
    slot: Arc<Slot<Session>>,
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
    fn ask(&self, method: &Method, rest: &str, headers: &[Header]) -> Result<Answer, StorageError> {
        self.ask_account(method, &format!("/{}{rest}", self.container), headers)
    }

    /// Asks with a token, and once more with a new one where that is refused.
    fn ask_account(&self, method: &Method, rest: &str, headers: &[Header]) -> Result<Answer, StorageError> {
        let account = &self.account;
        let login = || Ok((login::login(&account.http, &account.settings, self.scope.as_deref())?, None));
        let mut live = self.slot.live(None, login)?;
        let mut renewed = false;
        loop {
            let url = account.storage_url(&live, self.project.as_deref())?;
            let token = http::header("x-auth-token", live.session.token.expose_secret(), true)?;
            let headers: Vec<Header> = headers.iter().cloned().chain([token]).collect();
            let answer = account.http.ask(method.clone(), &format!("{url}{rest}"), &headers, None)?;
            self.url.get_or_init(|| format!("{url}/{}", self.container));
            match answer.status() {
                401 if !renewed => {
                    live = self.slot.live(Some(&live), login)?;
                    renewed = true;
                }
                401 | 500.. => return Ok(answer),
                _ => {
                    live.prove();
                    return Ok(answer);
                }
            }
        }
    }

    fn page(&self, prefix: &str, marker: Option<&str>) -> Result<Vec<Entry>, StorageError> {
        let marker = marker.map(|marker| format!("&marker={}", encode(marker))).unwrap_or_default();
        let answer = self.ask(&Method::GET, &format!("?format=json&prefix={}{marker}", encode(prefix)), &[])?;
        if !answer.is_good() {
            return Err(self.of_container(answer));
        }
        // Something in between that answers "nothing" to everything would make every container an empty one.
        if !has_sign(&answer) {
            return Err(answer.nonsense("the answer is no listing of Swift's: it has no transaction id"));
        }
        if answer.status() == 204 {
            return Ok(Vec::new());
        }
        let what = answer.what().to_owned();
        let body = answer.read_all(LARGEST_PAGE)?;
        serde_json::from_slice(&body).map_err(|error| {
            StorageError::new(StorageErrorKind::Protocol, format!("{what}: the answer is no listing of Swift's ({error})"))
        })
    }

    /// What the refusal of a request for the container itself means.
    fn of_container(&self, answer: Answer) -> StorageError {
        if !is_not_found(&answer) {
            return refusal(answer);
        }
        match not_found(answer).and_then(|()| self.prove_account()) {
            Ok(()) => StorageError::new(StorageErrorKind::NoContainer, format!("there is no container at {}", self.place())),
            Err(error) => error,
        }
    }

    /// Whether the account is the right one, where a container is not found in it: in a wrong one, none would be. Swift may
    /// show an account that does not exist as an empty one.
    fn prove_account(&self) -> Result<(), StorageError> {
        let answer = self.ask_account(&Method::HEAD, "", &[])?;
        let what = answer.what().to_owned();
        let wrong = |problem: &str| {
            let text = format!("{what}: {problem}; check the project, and backup_swift_url or the login's endpoint");
            StorageError::new(StorageErrorKind::Configuration, text)
        };
        if is_not_found(&answer) {
            return not_found(answer).and_then(|()| Err(wrong("there is no such Swift account")));
        }
        if !answer.is_good() {
            return Err(refusal(answer));
        }
        match answer.header("x-account-container-count").map(str::parse::<u64>) {
            Some(Ok(0)) => Err(wrong("the Swift account has no container at all, so that it is hardly the right one")),
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(answer.nonsense("the answer is not Swift's: it does not count the account's containers")),
        }
    }

    /// Whether an object that the server does not find really is not there: only then does the container itself answer.
    fn prove_absent(&self) -> Result<(), StorageError> {
        let answer = self.ask(&Method::HEAD, "", &[])?;
        if !answer.is_good() {
            return Err(self.of_container(answer));
        }
        if answer.header("x-container-object-count").is_none() {
            return Err(answer.nonsense("the answer is not Swift's: it does not count the container's objects"));
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
            let mut listing = Listing::after(self.place(), prefix, last.take());
            for entry in page {
                listing.name(&entry.name)?;
                if each(entry.info()).is_break() {
                    return Ok(());
                }
            }
            last = listing.last().map(str::to_owned);
        }
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        let answer = self.ask(&Method::HEAD, &format!("/{}", object_name(name)?), &[])?;
        if is_not_found(&answer) {
            return not_found(answer).and_then(|()| self.prove_absent()).map(|()| None);
        }
        if !answer.is_good() {
            return Err(refusal(answer));
        }
        is_swift(&answer)?;
        let Some(size) = answer.length() else { return Err(answer.nonsense("the answer does not tell the object's size")) };
        let large = answer.header("x-static-large-object").is_some() || answer.header("x-object-manifest").is_some();
        let etag = answer.header("etag").unwrap_or_default();
        let md5 = if large { None } else { hex::decode(etag.trim_matches('"')) };
        Ok(Some(ObjectInfo { name: name.to_owned(), size, modified: answer.modified(), md5 }))
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        let path = format!("/{}", object_name(name)?);
        let Some(range) = range else {
            return self.reader(name, self.ask(&Method::GET, &path, &[])?, None);
        };
        match part::header(&range)? {
            Some(header) => self.reader(name, self.ask(&Method::GET, &path, &[header])?, Some(range)),
            None => match self.stat(name)? {
                Some(_) => Ok(Box::new(io::empty())),
                None => Err(no_object(name, self.place())),
            },
        }
    }
}

impl SwiftStore {
    fn reader(&self, name: &str, answer: Answer, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        match answer.status() {
            200 | 206 => {
                is_swift(&answer)?;
                part::reader(answer, range)
            }
            404 | 410 => {
                not_found(answer)?;
                self.prove_absent()?;
                Err(no_object(name, self.place()))
            }
            416 if range.is_some() => Ok(Box::new(io::empty())),
            _ => Err(refusal(answer)),
        }
    }
}

fn no_object(name: &str, location: &str) -> StorageError {
    StorageError::new(StorageErrorKind::NoObject, format!("there is no object {name:?} at {location}"))
}

/// Swift's error pages hold nothing that the status does not say.
fn refusal(answer: Answer) -> StorageError {
    answer.refusal(|_| None)
}

fn is_not_found(answer: &Answer) -> bool {
    matches!(answer.status(), 404 | 410)
}

/// Whether it is Swift that does not find something, and not a proxy or another server at this address.
fn not_found(answer: Answer) -> Result<(), StorageError> {
    if has_id(&answer) {
        return Ok(());
    }
    let mut error = refusal(answer);
    error.kind = StorageErrorKind::Protocol;
    error.text.push_str("; and the answer is not Swift's (it has no transaction id), so that nothing is said");
    Err(error)
}

/// Swift, and Ceph's gateway in its place, give every answer a transaction id, whatever its status.
fn has_id(answer: &Answer) -> bool {
    ["x-trans-id", "x-openstack-request-id"].iter().any(|name| answer.header(name).is_some())
}

fn has_sign(answer: &Answer) -> bool {
    has_id(answer) || answer.header("x-timestamp").is_some()
}

/// Whether an answer to a request for an object is Swift's and not that of something in between.
fn is_swift(answer: &Answer) -> Result<(), StorageError> {
    if answer.header("etag").is_some() && has_sign(answer) {
        return Ok(());
    }
    let kind = answer.header("content-type").map(http::quote).unwrap_or_else(|| "no content type".to_owned());
    Err(answer.nonsense(format!("the answer is not Swift's: it has no ETag and no transaction id, but {kind}")))
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
