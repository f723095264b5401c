//! The HTTP client of the Swift, S3 and Google drivers.
//!
//! It never follows a redirect, so that credentials only go to the configured server. It never waits without a limit: connecting, the
//! begin of a response and each further part have one, which is at most what [`Health`] leaves. A stream that is too slow is an
//! error, too. Memory is bounded. May use `backoff`, `config` and the errors of [`super`].

mod body;
mod failure;
pub(super) mod listing;
pub(super) mod part;
pub(super) mod proxy;
mod token_cache;
pub(super) mod trust;
mod url;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) mod testing;

use std::fmt;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::{self, HeaderName, HeaderValue, Method, Request, Response, Uri};
use ureq::tls::TlsConfig;
use ureq::{Agent, AsSendBody, Body};

use super::{Health, ListedPage, ObjectInfo, ObjectStore, StorageError};
use crate::backoff::Backoff;

pub(super) use body::HttpResponse;
pub(super) use failure::quote;
pub(super) use listing::Page;
pub use proxy::Proxies;
pub(super) use token_cache::TokenCache;
pub(super) use url::{BaseUrl, container_name, encode, object_name};

/// Attempts for a page in the middle of a listing, which the caller could only repeat from the start.
const ATTEMPTS: u32 = 3;

/// The longest pause between two attempts, even if the server asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The limit for the headers of a response, in bytes. No storage server sends more.
const LARGEST_HEAD: usize = 64 * 1024;

/// Timeouts and proxies for a store on a server.
#[derive(Debug, Clone)]
pub struct Network {
    /// The timeout for resolving a name, for connecting and for the TLS handshake, each.
    pub connect: Duration,
    /// The timeout for the begin of a response, and for each further part.
    pub stall: Duration,
    /// The pause after the first failure of a page of a listing; it doubles with every failure.
    pub pause: Duration,
    /// Parallel requests.
    pub concurrency: usize,
    /// Proxies of the environment, which the client libraries of Cinder's Swift and S3 drivers use.
    pub proxies: Proxies,
    /// The health of the server.
    pub health: Arc<Health>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            pause: Duration::from_millis(500),
            concurrency: 16,
            proxies: Proxies::default(),
            health: Arc::default(),
        }
    }
}

/// A header of a request.
pub(super) type Header = (HeaderName, HeaderValue);

/// Creates a header. A `secret` is not logged.
///
/// # Errors
/// A value with control characters; the value is not shown.
pub(super) fn header(name: &'static str, value: &str, secret: bool) -> Result<Header, StorageError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| StorageError::configuration(format!("the value for the header {name} holds control characters")))?;
    value.set_sensitive(secret);
    Ok((HeaderName::from_static(name), value))
}

/// A container on a server, which is an [`ObjectStore`].
pub(super) trait HttpStore: Send + Sync {
    /// The client for the server.
    fn http(&self) -> &HttpClient;

    /// The container, as [`ObjectStore::location`].
    fn container_location(&self) -> &str;

    /// The container, for messages.
    fn place(&self) -> &str {
        self.container_location()
    }

    /// Requests the first page of a listing, or the one with this token.
    fn page(&self, prefix: &str, token: Option<&str>) -> Result<Page, StorageError>;

    /// Requests the first page of the names that follow this one, with any prefix.
    fn page_after(&self, after: &str) -> Result<Page, StorageError>;

    /// Requests an object, or the range in this header; `None` for a range beyond its end (416). The response is a success, and from
    /// the storage itself.
    fn get(&self, name: &str, range: Option<Header>) -> Result<Option<HttpResponse>, StorageError>;

    /// Reads the attributes of an object, as [`ObjectStore::stat`].
    fn info(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError>;

    /// Corrects each object of one listing.
    fn correction(&self) -> Box<dyn FnMut(&mut ObjectInfo) + '_> {
        Box::new(|_| ())
    }
}

impl<S: HttpStore> ObjectStore for S {
    fn location(&self) -> &str {
        self.container_location()
    }

    fn address(&self) -> &str {
        self.place()
    }

    fn concurrency(&self) -> usize {
        self.http().network.concurrency
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        let mut correct = self.correction();
        listing::list(self, prefix, &mut |mut object| {
            correct(&mut object);
            each(object)
        })
    }

    fn list_page(&self, after: &str) -> Result<Option<ListedPage>, StorageError> {
        let mut page = listing::page_after(self, after)?;
        page.objects.iter_mut().for_each(self.correction());
        Ok(Some(page))
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        self.info(name)
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        part::open(self, name, range)
    }
}

/// An HTTP client, which many threads may use at once.
pub(super) struct HttpClient {
    direct: Agent,
    http: Option<Agent>,
    https: Option<Agent>,
    network: Network,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("proxies", &self.network.proxies).finish_non_exhaustive()
    }
}

impl HttpClient {
    pub(super) fn new(network: Network, trust: &TlsConfig) -> Self {
        let agent = |proxy: Option<&ureq::Proxy>| {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(proxy.cloned())
                .tls_config(trust.clone())
                .user_agent(concat!("cinder-backup-repair/", env!("CARGO_PKG_VERSION")))
                .max_response_header_size(LARGEST_HEAD)
                .max_idle_connections(network.concurrency.saturating_mul(2))
                .max_idle_connections_per_host(network.concurrency.saturating_mul(2));
            Agent::new_with_config(config.build())
        };
        Self {
            direct: agent(None),
            http: network.proxies.http.as_ref().map(|proxy| agent(Some(proxy))),
            https: network.proxies.https.as_ref().map(|proxy| agent(Some(proxy))),
            network,
        }
    }

    fn agent(&self, uri: &Uri) -> &Agent {
        let proxied = if uri.scheme_str() == Some("https") { &self.https } else { &self.http };
        match proxied {
            Some(agent) if !self.network.proxies.bypasses(uri) => agent,
            _ => &self.direct,
        }
    }

    /// Sends a request and returns any response, including a redirect or an error status.
    pub(super) fn send(&self, method: Method, url: &str, headers: &[Header], body: Option<Vec<u8>>) -> Result<HttpResponse, StorageError> {
        let what = format!("{method} {}", url.split(['?', '#']).next().unwrap_or_default());
        let uri: Uri = url.parse().map_err(|_| StorageError::configuration(format!("{what}: not a URL")))?;
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let stall = self.network.health.response_limit(self.network.stall);
        let result = match body {
            Some(body) => self.run(request.body(body), stall),
            None => self.run(request.body(()), stall),
        };
        let response = result.map_err(|error| failure::from_ureq(&what, error))?;
        self.network.health.responded();
        let response = HttpResponse::new(what, response, stall);
        response.check_encoding().map(|()| response)
    }

    /// Sends a request. No step takes longer than `stall`.
    fn run<B: AsSendBody>(&self, request: http::Result<Request<B>>, stall: Duration) -> Result<Response<Body>, ureq::Error> {
        let request = request?;
        let agent = self.agent(request.uri());
        let (connect, stall) = (Some(self.network.connect.min(stall)), Some(stall));
        let request = agent
            .configure_request(request)
            .timeout_resolve(connect)
            .timeout_connect(connect)
            .timeout_send_request(stall)
            .timeout_send_body(stall)
            .timeout_recv_response(stall)
            .timeout_per_read(stall)
            .timeout_per_write(stall)
            .build();
        agent.run(request)
    }

    /// Requests a page of a listing. Only pages after the first are retried, because the caller can repeat a listing that failed on
    /// its first page without loss.
    pub(super) fn page<T>(&self, is_first: bool, mut ask: impl FnMut() -> Result<T, StorageError>) -> Result<T, StorageError> {
        let attempts = if is_first { 1 } else { ATTEMPTS };
        let Network { pause, health, .. } = &self.network;
        let backoff = Backoff { first: *pause, longest: LONGEST_PAUSE };
        for attempt in 1..attempts {
            let begun = Instant::now();
            match ask() {
                Err(error) if error.is_transient() => {
                    health.attempt_failed(begun.elapsed());
                    if health.left().is_zero() {
                        return Err(error);
                    }
                    let asked = error.retry_after.map_or(Duration::ZERO, Duration::from_secs);
                    thread::sleep(backoff.pause(attempt).max(asked.min(LONGEST_PAUSE)));
                }
                done => return done,
            }
        }
        ask()
    }
}
