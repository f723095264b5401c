//! A response, and its body as a stream that ends with all its bytes or with an error.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use ureq::http::Response;
use ureq::{Body, BodyReader};

use super::failure;
use crate::storage::{StorageError, StorageErrorKind};

/// The slowest rate of a stream, in bytes a second. A slower one is useless for a check.
const SLOWEST_RATE: u64 = 4096;

/// The limit for an error document, in bytes.
const LARGEST_ERROR_DOCUMENT: usize = 64 * 1024;

/// The response of a server.
pub(in crate::storage) struct HttpResponse {
    what: String,
    response: Response<Body>,
    stall: Duration,
}

impl HttpResponse {
    pub(super) fn new(what: String, response: Response<Body>, stall: Duration) -> Self {
        Self { what, response, stall }
    }

    pub(in crate::storage) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(in crate::storage) fn is_success(&self) -> bool {
        self.response.status().is_success()
    }

    /// Returns the method and the URL without its query, for messages.
    pub(in crate::storage) fn what(&self) -> &str {
        &self.what
    }

    /// Returns a header, if it is text.
    pub(in crate::storage) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::trim)
    }

    /// Returns `Content-Length`, also that of a HEAD.
    pub(in crate::storage) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    pub(in crate::storage) fn modified(&self) -> Option<Timestamp> {
        Some(rfc2822::parse(self.header("last-modified")?).ok()?.timestamp())
    }

    /// Returns `Content-Type`, quoted for messages.
    pub(in crate::storage) fn content_type(&self) -> String {
        self.header("content-type").map_or_else(|| "no content type".to_owned(), failure::quote)
    }

    pub(in crate::storage) fn is_html(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
    }

    /// Whether the end of the body is marked by a last chunk.
    pub(super) fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|encoding| encoding.to_ascii_lowercase().ends_with("chunked"))
    }

    /// Returns the length of the body. Without it and without chunks only the end of the connection marks the end of the body, so a
    /// truncated body looks complete.
    pub(super) fn body_length(&self) -> Option<u64> {
        self.length().filter(|_| !self.is_chunked())
    }

    /// Returns a [`StorageErrorKind::Protocol`] error about this response.
    pub(in crate::storage) fn protocol_error(&self, problem: impl std::fmt::Display) -> StorageError {
        StorageError::protocol(format!("{}: {problem}", self.what))
    }

    /// Refuses an encoded response. No encoding is ever requested, so a proxy must have added it. `aws-chunked` is accepted, because
    /// some servers keep it as an attribute of the upload.
    pub(super) fn check_encoding(&self) -> Result<(), StorageError> {
        let encoding = self.header("content-encoding").unwrap_or_default().to_ascii_lowercase();
        let strange = encoding.split(',').map(str::trim).find(|name| !matches!(*name, "" | "identity" | "aws-chunked"));
        match strange {
            Some(name) if self.is_success() => Err(self.protocol_error(format!(
                "the response has the encoding {}, which was not requested; check for a proxy that changes responses",
                failure::quote(name)
            ))),
            _ => Ok(()),
        }
    }

    /// Converts a response with an error status. `read` extracts the message of the error document.
    pub(in crate::storage) fn into_error(self, read: impl FnOnce(&[u8]) -> Option<String>) -> StorageError {
        let (what, status, headers) = (self.what.clone(), self.response.status(), self.response.headers().clone());
        // An error document that cannot be read is ignored.
        let detail = self.read_all(LARGEST_ERROR_DOCUMENT).ok().and_then(|document| read(&document));
        failure::from_status(&what, status, &headers, detail.as_deref())
    }

    /// Reads the whole body, of at most `limit` bytes, and parses it. `parse` returns what is wrong with it. If nothing marks the end of
    /// the body, the connection may have ended early, so the error is transient.
    pub(in crate::storage) fn parse<T>(self, limit: usize, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, StorageError> {
        let (what, is_whole) = (self.what.clone(), self.is_chunked() || self.length().is_some());
        let (kind, hint) = match is_whole {
            true => (StorageErrorKind::Protocol, ""),
            false => (StorageErrorKind::Transient, ", or the server closed the connection early"),
        };
        parse(&self.read_all(limit)?).map_err(|problem| StorageError::new(kind, format!("{what}: {problem}{hint}")))
    }

    pub(super) fn read_all(self, limit: usize) -> Result<Vec<u8>, StorageError> {
        let too_large = self.protocol_error(format_args!("the response is larger than {} KiB", limit / 1024));
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(too_large);
        }
        let mut bytes = Vec::new();
        self.stream().take(limit as u64 + 1).read_to_end(&mut bytes).map_err(StorageError::from_stream)?;
        if bytes.len() > limit { Err(too_large) } else { Ok(bytes) }
    }

    pub(super) fn stream(self) -> BodyStream {
        let left = self.body_length();
        let body = self.response.into_body().into_reader();
        BodyStream { what: self.what, body, left, window: self.stall, measured: (Duration::ZERO, 0) }
    }
}

/// A body. Reading to the end without an error means that every byte was received.
pub(super) struct BodyStream {
    what: String,
    body: BodyReader<'static>,
    left: Option<u64>,
    /// How long to measure the rate.
    window: Duration,
    /// The time that readers waited for the stream, and the bytes that they received, since the rate was last measured.
    measured: (Duration, u64),
}

impl BodyStream {
    fn error(&self, kind: StorageErrorKind, problem: &str) -> io::Error {
        StorageError::new(kind, format!("{}: {problem}", self.what)).into_io()
    }

    fn is_too_slow(&mut self, waited: Duration, bytes: usize) -> bool {
        let (all_waited, all_bytes) = (self.measured.0 + waited, self.measured.1.saturating_add(bytes as u64));
        if all_waited < self.window {
            self.measured = (all_waited, all_bytes);
            return false;
        }
        self.measured = (Duration::ZERO, 0);
        all_bytes < (all_waited.as_secs_f64() * SLOWEST_RATE as f64) as u64
    }
}

impl Read for BodyStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.left == Some(0) {
            return Ok(0);
        }
        let before = Instant::now();
        let read = self.body.read(buffer).map_err(|error| failure::from_ureq(&self.what, ureq::Error::from(error)).into_io())?;
        if read > 0 && self.is_too_slow(before.elapsed(), read) {
            return Err(self.error(StorageErrorKind::Transient, "the response is slower than 4 KiB a second"));
        }
        if let Some(left) = &mut self.left {
            if read == 0 {
                return Err(self.error(StorageErrorKind::Transient, "the response ends early"));
            }
            let Some(rest) = left.checked_sub(read as u64) else {
                return Err(self.error(StorageErrorKind::Protocol, "the response is longer than its Content-Length"));
            };
            *left = rest;
            if rest == 0 {
                // This read does not wait, and lets the connection be reused.
                let _ = self.body.read(&mut [0]);
            }
        }
        Ok(read)
    }
}
