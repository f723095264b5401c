//! Turns errors of the connection and error statuses into a [`StorageError`].

use std::io;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use rustls::Error as TlsError;
use ureq::http::{HeaderMap, StatusCode};
use ureq::{Error, Timeout};

use crate::storage::{StorageError, StorageErrorKind};

/// The limit for text of a server in messages, in characters.
const QUOTE_LIMIT: usize = 300;

/// The longest pause that a server may ask for, in seconds.
const RETRY_AFTER_LIMIT: u64 = 3600;

/// Quotes text of a server for a message: short, on one line and escaped for a terminal.
pub(in crate::storage) fn quote(text: &str) -> String {
    let mut short: String = text.trim().chars().take(QUOTE_LIMIT).collect();
    if short.len() < text.trim().len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// Converts an error of the connection. `what` is the method and the URL without its query.
pub(super) fn from_ureq(what: &str, error: Error) -> StorageError {
    let (kind, text) = match error {
        Error::Io(error) => from_io(&error),
        Error::Timeout(timeout) => (StorageErrorKind::Transient, from_timeout(timeout).to_owned()),
        Error::Rustls(error) => from_tls(&error),
        Error::HostNotFound => (StorageErrorKind::Transient, "cannot resolve the host name".to_owned()),
        Error::ConnectProxyFailed(reason) => from_proxy(&reason),
        Error::ConnectionFailed | Error::BodyStalled => (StorageErrorKind::Transient, error.to_string()),
        Error::LargeResponseHeader(_, limit) => (
            StorageErrorKind::Protocol,
            format!("the response has more than {limit} bytes of headers; check that this is a storage server"),
        ),
        Error::Protocol(_) | Error::Http(_) => (StorageErrorKind::Protocol, format!("the response is not valid HTTP ({error})")),
        // The URL may contain secrets.
        Error::BadUri(_) | Error::RequireHttpsOnly(_) => (StorageErrorKind::Configuration, "not a URL that can be requested".to_owned()),
        Error::Tls(_) | Error::Pem(_) | Error::TlsRequired | Error::InvalidProxyUrl => (StorageErrorKind::Configuration, error.to_string()),
        error => (StorageErrorKind::Protocol, error.to_string()),
    };
    StorageError::new(kind, format!("{what}: {text}"))
}

fn from_timeout(timeout: Timeout) -> &'static str {
    match timeout {
        Timeout::Resolve => "timeout while resolving the host name",
        Timeout::Connect => "timeout while connecting",
        Timeout::SendRequest | Timeout::SendBody | Timeout::PerWrite => "timeout while sending the request",
        Timeout::RecvResponse => "timeout while waiting for a response (a longer --storage-timeout waits longer)",
        _ => "the server stalled",
    }
}

fn from_io(error: &io::Error) -> (StorageErrorKind, String) {
    let inner = error.get_ref();
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<TlsError>()) {
        return from_tls(error);
    }
    if let Some(Error::Timeout(timeout)) = inner.and_then(|inner| inner.downcast_ref::<Error>()) {
        return (StorageErrorKind::Transient, from_timeout(*timeout).to_owned());
    }
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        io::ErrorKind::ConnectionRefused => "the connection was refused; check that the server is running".to_owned(),
        _ => error.to_string(),
    };
    (StorageErrorKind::Transient, text)
}

fn from_tls(error: &TlsError) -> (StorageErrorKind, String) {
    let hint = match error {
        TlsError::InvalidCertificate(_) => "; if its authority is private, set its CA file as in cinder.conf",
        TlsError::InvalidMessage(_) => "; check that the port does not serve plain HTTP",
        _ => "",
    };
    (StorageErrorKind::Configuration, format!("TLS failed: {error}{hint}"))
}

fn from_proxy(reason: &str) -> (StorageErrorKind, String) {
    let kind = if reason.contains(" 407/") {
        StorageErrorKind::Authentication
    } else if reason.contains(" 5") || reason.contains("did not respond") {
        StorageErrorKind::Transient
    } else {
        StorageErrorKind::Configuration
    };
    (kind, format!("the proxy refuses the connection: {reason}; it must allow CONNECT to this port, for http too"))
}

/// Converts an error status. `detail` is the message of the server's error document.
///
/// A 404 is [`StorageErrorKind::NoObject`], which callers that requested something else must change.
pub(in crate::storage) fn from_status(what: &str, status: StatusCode, headers: &HeaderMap, detail: Option<&str>) -> StorageError {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let detail = detail.map(|detail| format!(": {}", quote(detail))).unwrap_or_default();
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let (kind, hint) = match status.as_u16() {
        300..=399 => {
            // The query of a redirect may contain a token.
            let to = header("location").unwrap_or_default().split(['?', '#']).next().unwrap_or_default();
            let to = if to.is_empty() { "elsewhere".to_owned() } else { format!("to {}", quote(to)) };
            return StorageError::protocol(format!(
                "{what}: the server redirects {to} ({status}), which is not followed, to keep the credentials safe; configure the right URL"
            ));
        }
        401 => (StorageErrorKind::Authentication, ""),
        403 => (StorageErrorKind::Permission, ""),
        407 => (StorageErrorKind::Authentication, " (of the proxy)"),
        404 | 410 => (StorageErrorKind::NoObject, ""),
        501 | 505 => (StorageErrorKind::Protocol, ""),
        408 | 425 | 429 | 500..=599 => (StorageErrorKind::Transient, ""),
        _ => (StorageErrorKind::Protocol, ""),
    };
    let mut error = StorageError::new(kind, format!("{what}: the server answered {}{reason}{hint}{detail}", status.as_u16()));
    if kind == StorageErrorKind::Transient {
        error.retry_after = header("retry-after").and_then(|text| retry_after(text, Timestamp::now()));
    }
    error
}

/// Parses `Retry-After`: seconds or a date.
fn retry_after(text: &str, now: Timestamp) -> Option<u64> {
    let text = text.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => u64::try_from(rfc2822::parse(text).ok()?.timestamp().duration_since(now).as_secs()).unwrap_or(0),
    };
    Some(seconds.min(RETRY_AFTER_LIMIT))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_kind() {
        for (status, kind) in [
            (301, StorageErrorKind::Protocol),
            (400, StorageErrorKind::Protocol),
            (401, StorageErrorKind::Authentication),
            (403, StorageErrorKind::Permission),
            (404, StorageErrorKind::NoObject),
            (408, StorageErrorKind::Transient),
            (425, StorageErrorKind::Transient),
            (429, StorageErrorKind::Transient),
            (500, StorageErrorKind::Transient),
            (501, StorageErrorKind::Protocol),
            (503, StorageErrorKind::Transient),
            (507, StorageErrorKind::Transient),
        ] {
            let headers = HeaderMap::from_iter([("retry-after".parse().unwrap(), "7".parse().unwrap())]);
            let error = from_status("GET http://host/x", StatusCode::from_u16(status).unwrap(), &headers, Some("why\u{1b}[31m"));
            assert_eq!(error.kind, kind, "{status}");
            assert_eq!(error.retry_after, (kind == StorageErrorKind::Transient).then_some(7));
            assert!(!error.text.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn a_redirect_is_reported_without_its_token() {
        let headers = HeaderMap::from_iter([("location".parse().unwrap(), "https://evil.example/x?token=abc".parse().unwrap())]);
        let error = from_status("GET http://host/x", StatusCode::FOUND, &headers, None);
        assert!(error.text.contains("https://evil.example/x") && !error.text.contains("abc"), "{error}");
    }

    #[test]
    fn the_pause_is_in_seconds_or_a_date_and_bounded() {
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("12", Some(12)),
            ("99999999", Some(RETRY_AFTER_LIMIT)),
            ("Sun, 22 Nov 2026 10:00:30 GMT", Some(30)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(text, now), seconds, "{text}");
        }
    }

    #[test]
    fn quotes_are_short() {
        assert_eq!(quote(" a\nb "), r#""a\nb""#);
        assert_eq!(quote(&"x".repeat(1000)).chars().count(), QUOTE_LIMIT + 3);
    }
}
