//! A response, and its body as a stream that ends: with every byte, or with an error.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use ureq::http::{HeaderMap, StatusCode};
use ureq::{Body, BodyReader};

use super::failure;
use crate::storage::{StorageError, StorageErrorKind};

/// Bytes a second below which a stream is given up: nobody can verify a backup at this rate.
const SLOWEST_RATE: u64 = 4096;

/// An error document is read no further than this.
const LARGEST_ERROR_DOCUMENT: usize = 64 * 1024;

/// How a body's end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Framing {
    /// By its length.
    Length(u64),
    /// By a last chunk.
    Chunked,
    /// By the end of the connection, so not at all.
    Close,
}

/// What a server answered.
pub(in crate::storage) struct HttpResponse {
    what: String,
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    stall: Duration,
}

impl HttpResponse {
    pub(super) fn new(what: String, status: StatusCode, headers: HeaderMap, body: Body, stall: Duration) -> Self {
        Self { what, status, headers, body, stall }
    }

    /// The status.
    pub(in crate::storage) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Whether the status is a success.
    pub(in crate::storage) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// The method and the URL without its query, for messages.
    pub(in crate::storage) fn what(&self) -> &str {
        &self.what
    }

    /// A header that is text.
    pub(in crate::storage) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
    }

    /// `Content-Length`, of a HEAD too.
    pub(in crate::storage) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// `Last-Modified`.
    pub(in crate::storage) fn modified(&self) -> Option<Timestamp> {
        Some(rfc2822::parse(self.header("last-modified")?).ok()?.timestamp())
    }

    /// How the body's end is known.
    pub(in crate::storage) fn framing(&self) -> Framing {
        match (self.header("transfer-encoding"), self.length()) {
            (Some(encoding), _) if encoding.to_ascii_lowercase().ends_with("chunked") => Framing::Chunked,
            (_, Some(length)) => Framing::Length(length),
            (_, None) => Framing::Close,
        }
    }

    /// A [`StorageErrorKind::Protocol`] error about this response.
    pub(in crate::storage) fn protocol_error(&self, problem: impl std::fmt::Display) -> StorageError {
        StorageError::new(StorageErrorKind::Protocol, format!("{}: {problem}", self.what))
    }

    /// Whether what comes is what is stored. No encoding is ever asked for, so that something in between put it on; all but
    /// `aws-chunked`, of which some servers remember that the object was sent to them so.
    pub(super) fn check_encoding(&self) -> Result<(), StorageError> {
        let encoding = self.header("content-encoding").unwrap_or_default().to_ascii_lowercase();
        let strange = encoding.split(',').map(str::trim).find(|name| !matches!(*name, "" | "identity" | "aws-chunked"));
        match strange {
            Some(name) if self.is_success() => Err(self.protocol_error(format!(
                "the response is encoded ({}), which was not asked for: does something in between change responses?",
                failure::quote(name)
            ))),
            _ => Ok(()),
        }
    }

    /// What its status, which is no success, means, with what an error document says as `read` finds it.
    pub(in crate::storage) fn into_error(self, read: impl FnOnce(&[u8]) -> Option<String>) -> StorageError {
        let (what, status, headers) = (self.what.clone(), self.status, self.headers.clone());
        // A document that cannot be read to its end is as good as none.
        let detail = self.read_all(LARGEST_ERROR_DOCUMENT).ok().and_then(|document| read(&document));
        failure::from_status(&what, status, &headers, detail.as_deref())
    }

    /// The whole body, if it is not larger than `limit` bytes.
    pub(in crate::storage) fn read_all(self, limit: usize) -> Result<Vec<u8>, StorageError> {
        let (what, limit_text) = (self.what.clone(), limit / 1024);
        let too_large = || {
            StorageError::new(
                StorageErrorKind::Protocol,
                format!("{what}: the response is larger than {limit_text} KiB, which is no sane one"),
            )
        };
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let mut stream = self.stream();
        match (&mut stream).take(limit as u64 + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() > limit => Err(too_large()),
            Ok(_) => Ok(bytes),
            Err(error) => Err(StorageError::of_io(&error)
                .cloned()
                .unwrap_or_else(|| StorageError::new(StorageErrorKind::Transient, error.to_string()))),
        }
    }

    /// The body as a stream.
    pub(in crate::storage) fn stream(self) -> BodyStream {
        let left = match self.framing() {
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::Close => None,
        };
        BodyStream { what: self.what, body: self.body.into_reader(), left, pace: Pace::new(self.stall) }
    }
}

/// A body. Reading to its end without an error means that every byte came.
pub(in crate::storage) struct BodyStream {
    what: String,
    body: BodyReader<'static>,
    left: Option<u64>,
    pace: Pace,
}

impl BodyStream {
    fn error(&self, kind: StorageErrorKind, problem: &str) -> io::Error {
        StorageError::new(kind, format!("{}: {problem}", self.what)).into_io()
    }
}

impl Read for BodyStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.left == Some(0) {
            return Ok(0);
        }
        let before = Instant::now();
        let read = self.body.read(buffer).map_err(|error| failure::from_ureq(&self.what, ureq::Error::from(error)).into_io())?;
        if read > 0 && self.pace.is_too_slow(before.elapsed(), read) {
            return Err(self.error(StorageErrorKind::Transient, "the response comes slower than 4 KiB a second"));
        }
        if let Some(left) = &mut self.left {
            if read == 0 {
                return Err(self.error(StorageErrorKind::Transient, "the response breaks off before its end"));
            }
            let Some(rest) = left.checked_sub(read as u64) else {
                return Err(self.error(StorageErrorKind::Protocol, "the response is longer than it said"));
            };
            *left = rest;
            if rest == 0 {
                // One more read, which does not wait, and the connection can be used again.
                let _ = self.body.read(&mut [0]);
            }
        }
        Ok(read)
    }
}

/// Watches how fast a stream comes. Only the time that is spent waiting for it counts.
struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, bytes: 0 }
    }

    fn is_too_slow(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < self.window {
            return false;
        }
        let enough = (self.waited.as_secs_f64() * SLOWEST_RATE as f64) as u64;
        let slow = self.bytes < enough;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        slow
    }
}
