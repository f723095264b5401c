//! S3 and compatible services, with the requests of Cinder's driver and boto3: path style, signature version 4, and the region
//! us-east-1 unless the server asks for another.

mod error;
mod settings;
mod sign;
mod xml;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use ureq::http::Method;

use self::error::S3Error;
use self::settings::Settings;
use self::sign::SignedRequest;
use super::http::{Header, HttpClient, HttpResponse, HttpStore, Network, Page, container_name, encode, object_name, part};
use super::{ObjectInfo, StorageError, StorageErrorKind};
use crate::config::StorageOptions;

/// The limit for a page of a listing, in bytes. It has up to 1000 names of 1 KiB, encoded.
const LARGEST_PAGE: usize = 16 * 1024 * 1024;

/// An S3 service, with the credentials of cinder.conf.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    http: HttpClient,
}

impl Client {
    /// Creates a client from the options, without a request.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] with the option that is missing or wrong.
    pub fn new(options: &StorageOptions, network: &Network) -> Result<Arc<Self>, StorageError> {
        let mut settings = Settings::new(options)?;
        let mut network = network.clone();
        if let Some(timeout) = settings.timeout {
            (network.connect, network.stall) = (timeout, timeout);
        }
        if let Some(proxies) = settings.proxies.take() {
            network.proxies = proxies;
        }
        let http = HttpClient::new(network, &settings.trust);
        Ok(Arc::new(Self { settings, http }))
    }

    /// Returns warnings about the options, for example that certificates are not verified.
    pub fn warnings(&self) -> &[String] {
        &self.settings.warnings
    }

    /// Returns a bucket.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] for an invalid name.
    pub fn bucket(self: &Arc<Self>, name: &str) -> Result<S3Store, StorageError> {
        let encoded = container_name(name, "S3 bucket")?;
        Ok(S3Store {
            location: format!("{}/{encoded}", self.settings.endpoint),
            path: format!("{}/{encoded}", self.settings.endpoint.path()),
            client: Arc::clone(self),
            digests: OnceLock::new(),
        })
    }
}

/// One bucket.
#[derive(Debug)]
pub struct S3Store {
    client: Arc<Client>,
    location: String,
    /// Percent-encoded, from the root of the server.
    path: String,
    /// Whether the ETags of the bucket are digests of the objects, once it is known.
    digests: OnceLock<bool>,
}

impl S3Store {
    /// Sends a request, and repeats it if the server wants the signature for another region.
    fn send(&self, method: &Method, rest: &str, query: &str, headers: &[Header]) -> Result<HttpResponse, S3Error> {
        let client = &self.client;
        let host = client.settings.endpoint.authority();
        let path = format!("{}{rest}", self.path);
        let url = format!("{}{rest}{}{query}", self.location, if query.is_empty() { "" } else { "?" });
        let mut moved = false;
        loop {
            let signer = &client.settings.signer;
            let region = signer.region();
            let request = SignedRequest { method: method.as_str(), host: &host, path: &path, query };
            let signed = signer.sign(request, headers, Timestamp::now())?;
            let response = client.http.send(method.clone(), &url, &signed, None)?;
            if response.is_success() {
                return Ok(response);
            }
            let failure = S3Error::new(response);
            match &failure.region {
                Some(other) if !moved && *other != region => {
                    signer.set_region(other.clone());
                    moved = true;
                }
                _ => return Err(failure),
            }
        }
    }

    fn of_bucket(&self, failure: S3Error) -> StorageError {
        match failure.error.kind {
            StorageErrorKind::NoContainer => self.no_bucket(),
            // A proxy that knows nothing at this URL.
            StorageErrorKind::NoObject => StorageError::protocol(failure.error.text),
            _ => failure.error,
        }
    }

    fn no_bucket(&self) -> StorageError {
        StorageError::new(StorageErrorKind::NoContainer, format!("the bucket {} does not exist", self.location))
    }

    /// Returns the error for a refused request for an object.
    fn of_object(&self, name: &str, failure: S3Error) -> StorageError {
        match (failure.error.kind, failure.code.as_deref()) {
            (StorageErrorKind::NoContainer, _) => self.no_bucket(),
            (StorageErrorKind::NoObject, Some("NoSuchKey")) => StorageError::no_object(name, &self.location),
            (StorageErrorKind::NoObject, _) => StorageError::protocol(format!(
                "{}; the response is not an error document of S3, so it proves nothing about the object",
                failure.error.text
            )),
            _ => failure.error,
        }
    }

    fn head(&self, name: &str) -> Result<(ObjectInfo, bool), S3Error> {
        let response = self.send(&Method::HEAD, &format!("/{}", object_name(name)?), "", &self.client.settings.sse)?;
        is_s3(&response)?;
        let Some(size) = response.length() else {
            return Err(response.protocol_error("the response has no size").into());
        };
        // With a key of the customer or of the key service the ETag is not a digest of the object.
        let encrypted = response.header("x-amz-server-side-encryption").is_some_and(|how| how.starts_with("aws:kms"))
            || response.header("x-amz-server-side-encryption-customer-algorithm").is_some();
        let plain = !encrypted && self.client.settings.sse.is_empty();
        let md5 = response.header("etag").filter(|_| plain).and_then(xml::digest);
        Ok((ObjectInfo { name: name.to_owned(), size, modified: response.modified(), md5 }, plain))
    }

    /// Whether the ETags in a listing are digests. A listing does not say how objects are encrypted. One object does, and usually all
    /// objects of a bucket are encrypted in the same way. Not always, so this proves nothing.
    fn trusts_digests(&self, example: &str) -> bool {
        if !self.client.settings.sse.is_empty() {
            return false;
        }
        if let Some(known) = self.digests.get() {
            return *known;
        }
        match self.head(example) {
            Ok((_, plain)) => *self.digests.get_or_init(|| plain),
            Err(_) => false,
        }
    }

    fn send_get(&self, name: &str, range: Option<Header>) -> Result<HttpResponse, S3Error> {
        let mut headers = self.client.settings.sse.clone();
        headers.extend(range);
        self.send(&Method::GET, &format!("/{}", object_name(name)?), "", &headers)
    }

    /// Requests a page of the listing.
    fn listed(&self, query: &str) -> Result<Page, StorageError> {
        let response = self.send(&Method::GET, "", query, &[]).map_err(|failure| self.of_bucket(failure))?;
        response
            .parse(LARGEST_PAGE, |body| xml::page(body).map_err(|problem| format!("the response is not a page of a listing: {problem}")))
    }
}

impl HttpStore for S3Store {
    fn http(&self) -> &HttpClient {
        &self.client.http
    }

    fn container_location(&self) -> &str {
        &self.location
    }

    fn page(&self, prefix: &str, token: Option<&str>) -> Result<Page, StorageError> {
        // The parameters of a signed request are in alphabetical order.
        let token = token.map(|token| format!("continuation-token={}&", encode(token))).unwrap_or_default();
        self.listed(&format!("{token}encoding-type=url&list-type=2&prefix={}", encode(prefix)))
    }

    fn page_after(&self, after: &str) -> Result<Page, StorageError> {
        self.listed(&format!("encoding-type=url&list-type=2&start-after={}", encode(after)))
    }

    fn get(&self, name: &str, range: Option<Header>) -> Result<Option<HttpResponse>, StorageError> {
        let has_range = range.is_some();
        match self.send_get(name, range) {
            Ok(response) => is_s3(&response).map(|()| Some(response)),
            Err(failure) if failure.status == Some(416) && has_range => Ok(None),
            Err(failure) => Err(self.of_object(name, failure)),
        }
    }

    fn info(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        match self.head(name) {
            Ok((info, _)) => Ok(Some(info)),
            Err(failure) if failure.status.is_none() => Err(failure.error),
            Err(failure) => {
                // The response to HEAD has no body with the reason. That to GET has one.
                let first_byte = part::header(&(0..1))?;
                match self.send_get(name, Some(first_byte)).map_err(|failure| self.of_object(name, failure)) {
                    Err(error) if error.kind == StorageErrorKind::NoObject => Ok(None),
                    Err(error) => Err(error),
                    Ok(_) => Err(StorageError::new(
                        StorageErrorKind::Transient,
                        format!("{}; but GET succeeds: the object is changing, or HEAD is not allowed", failure.error.text),
                    )),
                }
            }
        }
    }

    /// Whether digests are trusted is determined once for the listing, also if the object cannot be read.
    fn correction(&self) -> Box<dyn FnMut(&mut ObjectInfo) + '_> {
        let mut trusted = None;
        Box::new(move |object: &mut ObjectInfo| {
            if object.md5.is_some() && !*trusted.get_or_insert_with(|| self.trusts_digests(&object.name)) {
                object.md5 = None;
            }
        })
    }
}

/// Checks that the response to a request for an object is from S3 and not from a proxy.
fn is_s3(response: &HttpResponse) -> Result<(), StorageError> {
    if response.header("etag").is_some() && !response.is_html() {
        return Ok(());
    }
    let kind = response.content_type();
    Err(response.protocol_error(format!("the response is not from S3: it has no ETag or is a web page ({kind})")))
}
