//! HTTP as the stores on servers need it: one client for Swift, S3 and Google.
//!
//! A redirect is never followed, so that credentials go nowhere but where they were meant for. Nothing waits for ever: to
//! connect, to begin a response and to go on with it each have a limit, which is no longer than what is left of the time that the
//! server has in all to give anything useful; and a stream that drips is given up too. What is read into memory is bounded. May use `config` and the errors of [`super`].

mod body;
mod failure;
mod listing;
pub(super) mod part;
pub(super) mod proxy;
mod token_cache;
mod trust;
mod url;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) mod testing;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use ureq::{Agent, AsSendBody, Body};

use super::{Health, StorageError, StorageErrorKind};
use crate::backoff::Backoff;
use crate::config::Environment;

pub(super) use body::{Framing, HttpResponse};
pub(super) use failure::quote;
pub(super) use listing::PagedListing;
pub use proxy::Proxies;
pub(super) use token_cache::{CachedToken, TokenCache};
pub(super) use trust::Trust;
pub(super) use url::{BaseUrl, encode, object_name};

/// Attempts for a page in the middle of a listing, which nobody above can repeat without beginning anew.
const ATTEMPTS: u32 = 3;

/// No server is waited for longer than this between two attempts, whatever it asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Header lines of a response together; more is no storage server.
const LARGEST_HEAD: usize = 64 * 1024;

/// How patient a store on a server is, and how it gets there.
#[derive(Debug, Clone)]
pub struct Network {
    /// To resolve a name, to connect and to agree on TLS, each.
    pub connect: Duration,
    /// For a response to begin, and for each of its parts to follow.
    pub stall: Duration,
    /// Between the first two attempts for a page of a listing; twice as long before each further one.
    pub pause: Duration,
    /// Requests at once.
    pub concurrency: usize,
    /// Proxies, as the process's environment names them.
    pub proxies: Proxies,
    /// What is known of the server, and how long it is waited for in all.
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

impl Network {
    /// The usual patience, with the proxies of `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, which the client
    /// libraries of Cinder's Swift and S3 drivers heed.
    ///
    /// # Errors
    /// A proxy that is no URL.
    pub fn of(environment: &Environment) -> Result<Self, StorageError> {
        Ok(Self { proxies: Proxies::of(environment)?, ..Self::default() })
    }
}

/// A header of a request.
pub(super) type Header = (HeaderName, HeaderValue);

/// A header whose value is a secret, or text that may not fit into a header.
///
/// # Errors
/// A value with a line break in it and the like; the value is not shown.
pub(super) fn header(name: &'static str, value: &str, secret: bool) -> Result<Header, StorageError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        StorageError::new(StorageErrorKind::Configuration, format!("the value for the header {name} holds control characters"))
    })?;
    value.set_sensitive(secret);
    Ok((HeaderName::from_static(name), value))
}

/// A client; for use by many threads at once.
pub(super) struct HttpClient {
    direct: Agent,
    http: Option<Agent>,
    https: Option<Agent>,
    proxies: Proxies,
    connect: Duration,
    stall: Duration,
    pause: Duration,
    health: Arc<Health>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}

impl HttpClient {
    /// A client that trusts whom it is told to trust.
    pub(super) fn new(network: &Network, trust: &Trust, proxies: Proxies) -> Self {
        let agent = |proxy: Option<&ureq::Proxy>| {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(proxy.cloned())
                .tls_config(trust.config())
                .user_agent(concat!("cinder-backup-repair/", env!("CARGO_PKG_VERSION")))
                .max_response_header_size(LARGEST_HEAD)
                .max_idle_connections(network.concurrency.saturating_mul(2))
                .max_idle_connections_per_host(network.concurrency.saturating_mul(2));
            Agent::new_with_config(config.build())
        };
        Self {
            direct: agent(None),
            http: proxies.http().map(|proxy| agent(Some(proxy))),
            https: proxies.https().map(|proxy| agent(Some(proxy))),
            proxies,
            connect: network.connect,
            stall: network.stall,
            pause: network.pause,
            health: Arc::clone(&network.health),
        }
    }

    fn agent(&self, uri: &Uri) -> &Agent {
        let proxied = if uri.scheme_str() == Some("https") { &self.https } else { &self.http };
        match proxied {
            Some(agent) if !self.proxies.bypasses(uri) => agent,
            _ => &self.direct,
        }
    }

    /// Asks, and gives back whatever the server responses, a redirect and an error status too.
    pub(super) fn send(&self, method: Method, url: &str, headers: &[Header], body: Option<Vec<u8>>) -> Result<HttpResponse, StorageError> {
        let what = format!("{method} {}", url.split(['?', '#']).next().unwrap_or_default());
        let uri: Uri = url.parse().map_err(|_| StorageError::new(StorageErrorKind::Configuration, format!("{what}: this is no URL")))?;
        let mut map = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers {
            map.insert(name, value.clone());
        }
        let stall = self.health.response_limit(self.stall);
        let answered = match body {
            Some(body) => request(method, uri, map, body).and_then(|request| self.run(request, stall)),
            None => request(method, uri, map, ()).and_then(|request| self.run(request, stall)),
        };
        match answered {
            Ok(response) => {
                self.health.responded();
                let (parts, body) = response.into_parts();
                let response = HttpResponse::new(what, parts.status, parts.headers, body, stall);
                response.check_encoding().map(|()| response)
            }
            Err(error) => Err(failure::from_ureq(&what, error)),
        }
    }

    /// Sends a request; nothing of it waits for longer than `stall`.
    fn run<B: AsSendBody>(&self, request: Request<B>, stall: Duration) -> Result<Response<Body>, ureq::Error> {
        let agent = self.agent(request.uri());
        let (connect, stall) = (Some(self.connect.min(stall)), Some(stall));
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

    /// Asks for a page of a listing: for the first one once, since nothing is lost where whoever wants the listing begins
    /// anew, for the others a few times where errors are transient.
    pub(super) fn page<T>(&self, is_first: bool, mut ask: impl FnMut() -> Result<T, StorageError>) -> Result<T, StorageError> {
        if is_first {
            return ask();
        }
        let backoff = Backoff { first: self.pause, longest: LONGEST_PAUSE };
        for attempt in 1..ATTEMPTS {
            let begun = Instant::now();
            match ask() {
                Err(error) if error.is_transient() => {
                    self.health.attempt_failed(begun.elapsed());
                    if self.health.left().is_zero() {
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

fn request<B>(method: Method, uri: Uri, headers: HeaderMap, body: B) -> Result<Request<B>, ureq::Error> {
    let mut request = Request::builder().method(method).uri(uri).body(body)?;
    *request.headers_mut() = headers;
    Ok(request)
}
