//! From what went wrong on the way, or what a server answered, to what it means for a verdict.

use std::io;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use rustls::Error as TlsError;
use ureq::http::{HeaderMap, StatusCode};
use ureq::{Error, Timeout};

use crate::storage::{StorageError, StorageErrorKind};

/// Text of a server, shown no further than this.
const QUOTE_LIMIT: usize = 300;

/// A server asks to wait for no longer than this; what is more is a mistake or malice.
const RETRY_AFTER_LIMIT: u64 = 3600;

/// A piece of a server's text for a message: short, on one line, with what could harm a terminal escaped.
pub(in crate::storage) fn quote(text: &str) -> String {
    let mut short: String = text.trim().chars().take(QUOTE_LIMIT).collect();
    if short.len() < text.trim().len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// What a failure to get a response at all means. `what` is the method and the URL without its query.
pub(super) fn from_ureq(what: &str, error: Error) -> StorageError {
    let (kind, text) = match error {
        Error::Io(error) => from_io(&error),
        Error::Timeout(timeout) => (StorageErrorKind::Transient, from_timeout(timeout).to_owned()),
        Error::Rustls(error) => from_tls(&error),
        Error::HostNotFound => (StorageErrorKind::Transient, "the host's name cannot be resolved".to_owned()),
        Error::ConnectProxyFailed(reason) => from_proxy(&reason),
        Error::ConnectionFailed | Error::BodyStalled => (StorageErrorKind::Transient, error.to_string()),
        Error::LargeResponseHeader(_, limit) => {
            (StorageErrorKind::Protocol, format!("the response has more than {limit} bytes of headers; this is no storage server"))
        }
        Error::Protocol(_) | Error::Http(_) => (StorageErrorKind::Protocol, format!("the response is no proper HTTP ({error})")),
        // The URL itself may hold what nobody should see.
        Error::BadUri(_) | Error::RequireHttpsOnly(_) => {
            (StorageErrorKind::Configuration, "this is no URL that can be asked for".to_owned())
        }
        Error::Tls(_) | Error::Pem(_) | Error::TlsRequired | Error::InvalidProxyUrl => (StorageErrorKind::Configuration, error.to_string()),
        error => (StorageErrorKind::Protocol, error.to_string()),
    };
    StorageError::new(kind, format!("{what}: {text}"))
}

fn from_timeout(timeout: Timeout) -> &'static str {
    match timeout {
        Timeout::Resolve => "no response in time while the host's name was resolved",
        Timeout::Connect => "no connection in time",
        Timeout::SendRequest | Timeout::SendBody | Timeout::PerWrite => "the server did not take the request in time",
        Timeout::RecvResponse => "no response in time (a longer --storage-timeout waits longer)",
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
        io::ErrorKind::ConnectionRefused => "the connection was refused; is the server running there?".to_owned(),
        _ => error.to_string(),
    };
    (StorageErrorKind::Transient, text)
}

fn from_tls(error: &TlsError) -> (StorageErrorKind, String) {
    let hint = match error {
        TlsError::InvalidCertificate(_) => "; if its authority is a private one, name its CA file as cinder.conf does",
        TlsError::InvalidMessage(_) => "; does this port speak plain HTTP?",
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
    (kind, format!("the proxy makes no connection: {reason}; it must allow CONNECT to this port, for http too"))
}

/// What a status that is no success means. `detail` is what the server's own error document says.
///
/// A 404 is [`StorageErrorKind::NoObject`]; whoever asked for something else says so.
pub(in crate::storage) fn from_status(what: &str, status: StatusCode, headers: &HeaderMap, detail: Option<&str>) -> StorageError {
    let detail = detail.map(|detail| format!(": {}", quote(detail))).unwrap_or_default();
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let (kind, hint) = match status.as_u16() {
        300..=399 => {
            // A redirect's query may hold a token.
            let to = headers.get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let to = to.split(['?', '#']).next().unwrap_or_default();
            let to = if to.is_empty() { "elsewhere".to_owned() } else { format!("to {}", quote(to)) };
            return StorageError::new(
                StorageErrorKind::Protocol,
                format!(
                    "{what}: the server redirects {to} ({status}), which is never followed, as credentials would go there; configure the right URL"
                ),
            );
        }
        401 => (StorageErrorKind::Authentication, ""),
        403 => (StorageErrorKind::Permission, ""),
        407 => (StorageErrorKind::Authentication, " (of the proxy)"),
        404 | 410 => (StorageErrorKind::NoObject, ""),
        408 | 425 | 429 => (StorageErrorKind::Transient, ""),
        501 | 505 => (StorageErrorKind::Protocol, ""),
        500..=599 => (StorageErrorKind::Transient, ""),
        _ => (StorageErrorKind::Protocol, ""),
    };
    let mut error = StorageError::new(kind, format!("{what}: the server answered {}{reason}{hint}{detail}", status.as_u16()));
    if kind == StorageErrorKind::Transient {
        error.retry_after =
            headers.get("retry-after").and_then(|value| value.to_str().ok()).and_then(|text| retry_after(text, Timestamp::now()));
    }
    error
}

/// `Retry-After`: seconds, or a date.
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
    fn a_status_has_one_meaning() {
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
    fn a_redirect_tells_where_to_but_no_token() {
        let headers = HeaderMap::from_iter([("location".parse().unwrap(), "https://evil.example/x?token=abc".parse().unwrap())]);
        let error = from_status("GET http://host/x", StatusCode::FOUND, &headers, None);
        assert!(error.text.contains("https://evil.example/x") && !error.text.contains("abc"), "{error}");
    }

    #[test]
    fn the_wait_is_seconds_or_a_date_and_bounded() {
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
