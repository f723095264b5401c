//! Base URLs, and the encoding of names in paths.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Uri;

use crate::storage::{StorageError, StorageErrorKind};

/// All but RFC 3986's unreserved characters, which Python's `quote` and Amazon's signature do not encode either.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same without the slash.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Encodes one segment of a path, or a value of a query.
pub(in crate::storage) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Encodes the name of a container. `what` is its kind, for messages: `S3 bucket`.
///
/// # Errors
/// A name that is empty or leads elsewhere.
pub(in crate::storage) fn container_name(name: &str, what: &str) -> Result<String, StorageError> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(StorageError::configuration(format!("{name:?} is not a valid {what} name")));
    }
    Ok(encode(name))
}

/// Encodes the name of an object for the end of a path. `..` and empty segments are kept, as Cinder's drivers do.
///
/// # Errors
/// An empty name, which would be the container itself, and a name whose `..` lead out of the container if a proxy resolves them.
pub(in crate::storage) fn object_name(name: &str) -> Result<String, StorageError> {
    let invalid = |problem: String| Err(StorageError::new(StorageErrorKind::NotFollowed, problem));
    let mut depth = 0_usize;
    for segment in name.split('/') {
        match segment {
            "" | "." => {}
            ".." if depth == 0 => return invalid(format!("the name {name:?} leads out of the container")),
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    if depth == 0 {
        return invalid(format!("{name:?} is not a valid object name"));
    }
    Ok(utf8_percent_encode(name, RESERVED_IN_PATH).to_string())
}

/// The beginning of all URLs of a server: scheme, host, port and perhaps a path, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct BaseUrl {
    text: String,
    uri: Uri,
}

impl BaseUrl {
    /// Parses a URL; `origin` is where it was set, for messages.
    ///
    /// # Errors
    /// Text that is not an `http` or `https` URL, or has a user name, a query or a fragment.
    pub(in crate::storage) fn parse(text: &str, origin: &dyn fmt::Display) -> Result<Self, StorageError> {
        let wrong = |problem: &str| Err(StorageError::configuration(format!("{origin}: {problem}")));
        let text = text.trim().trim_end_matches('/');
        if text.contains('@') && text.split("//").nth(1).and_then(|rest| rest.split('/').next()).is_some_and(|host| host.contains('@')) {
            return wrong("the URL must not have a user name; set the credentials by their own options");
        }
        if text.contains(['?', '#']) {
            return wrong("the URL must not have a query or a fragment");
        }
        let Ok(uri) = text.parse::<Uri>() else { return wrong("not a URL; write it as https://host:port/path") };
        match uri.scheme_str() {
            Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(Self { text: text.to_owned(), uri }),
            _ => wrong("not an http or https URL; write it as https://host:port/path"),
        }
    }

    /// Returns the URL, without a slash at the end.
    pub(in crate::storage) fn as_str(&self) -> &str {
        &self.text
    }

    pub(in crate::storage) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Returns the value of `Host`, with the port if it is not the default of the scheme.
    pub(in crate::storage) fn authority(&self) -> String {
        let host = self.uri.host().unwrap_or_default();
        match (self.uri.port_u16(), self.is_https()) {
            (None | Some(80), false) | (None | Some(443), true) => host.to_owned(),
            (Some(port), _) => format!("{host}:{port}"),
        }
    }

    /// Returns the path without a slash at the end; it may be empty.
    pub(in crate::storage) fn path(&self) -> &str {
        self.uri.path().trim_end_matches('/')
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_every_odd_character() {
        assert_eq!(object_name("a+b c/ü//d%2f?e#~.bin").unwrap(), "a%2Bb%20c/%C3%BC//d%252f%3Fe%23~.bin");
        assert_eq!(object_name("a/../b").unwrap(), "a/../b");
        assert_eq!(encode("a/b"), "a%2Fb");
        let uri: Uri = "http://host/v1/a/../b//c/./d".parse().unwrap();
        assert_eq!(uri.path(), "/v1/a/../b//c/./d", "the URI type keeps dots and empty segments");
    }

    #[test]
    fn names_stay_in_the_container() {
        for name in ["", ".", "/", "..", "../x", "/../x", "a/../../x", "./../x", "a/..", "a/../"] {
            assert_eq!(object_name(name).unwrap_err().kind, StorageErrorKind::NotFollowed, "{name}");
        }
    }

    #[test]
    fn a_base_is_an_http_url_without_credentials() {
        let base = BaseUrl::parse("https://swift.example:8080/v1/AUTH_/", &"here").unwrap();
        assert_eq!(
            (base.as_str(), base.path(), base.authority().as_str()),
            ("https://swift.example:8080/v1/AUTH_", "/v1/AUTH_", "swift.example:8080")
        );
        assert_eq!(BaseUrl::parse("https://s3.example:443", &"here").unwrap().authority(), "s3.example");
        assert_eq!(BaseUrl::parse("http://[::1]:8080/", &"here").unwrap().authority(), "[::1]:8080");
        for wrong in ["", "swift.example", "ftp://x", "http://", "http://user:secret@host/", "http://host/?x", "http://ho st/", "/v1"] {
            let error = BaseUrl::parse(wrong, &"cinder.conf:3").unwrap_err();
            assert_eq!(error.kind, StorageErrorKind::Configuration);
            assert!(error.text.starts_with("cinder.conf:3: ") && !error.text.contains("secret"), "{error}");
        }
    }
}
