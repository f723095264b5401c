//! Proxies from the environment, as Python's `requests` and botocore read it, or from an option of cinder.conf.

use std::fmt;
use std::net::Ipv4Addr;

use ureq::Proxy;
use ureq::http::Uri;

use crate::config::Environment;
use crate::storage::StorageError;

/// Proxies by the scheme of the URL, and the hosts that are connected to directly. Proxies must allow CONNECT, for `http` too.
#[derive(Clone, Default)]
pub struct Proxies {
    pub(super) http: Option<Proxy>,
    pub(super) https: Option<Proxy>,
    bypass: Vec<String>,
}

/// Without the URL of the proxy, which may contain a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |proxy: &Option<Proxy>| proxy.as_ref().map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
        f.debug_struct("Proxies").field("http", &host(&self.http)).field("https", &host(&self.https)).field("bypass", &self.bypass).finish()
    }
}

impl Proxies {
    /// Reads `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`. The names in lower case come before those in upper case.
    ///
    /// # Errors
    /// A value that is not a URL; it is not shown.
    pub fn of(environment: &Environment) -> Result<Self, StorageError> {
        let var = |name: &str| {
            let of = |name: &str| environment.vars.get(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty());
            of(name).or_else(|| of(&name.to_uppercase()))
        };
        let proxy = |name: &str| match (var(name), var("all_proxy")) {
            (Some(value), _) => parse(value, &format!("the environment variable {name}")).map(Some),
            (None, Some(value)) => parse(value, &"the environment variable all_proxy").map(Some),
            (None, None) => Ok(None),
        };
        let bypass = var("no_proxy").unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Ok(Self { http: proxy("http_proxy")?, https: proxy("https_proxy")?, bypass: bypass.map(str::to_lowercase).collect() })
    }

    /// Uses the proxies of options, for all hosts.
    pub(in crate::storage) fn fixed(http: Option<Proxy>, https: Option<Proxy>) -> Self {
        Self { http, https, bypass: Vec::new() }
    }

    /// Whether a URL is requested without a proxy. As in `requests`, an entry of `no_proxy` is the end of a name, or a network.
    pub(super) fn bypasses(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_lowercase();
        let with_port = uri.port_u16().map(|port| format!("{host}:{port}"));
        self.bypass.iter().any(|entry| {
            if entry == "*" {
                return true;
            }
            if let Ok(address) = host.parse::<Ipv4Addr>() {
                return within(address, entry) || with_port.as_deref() == Some(entry);
            }
            let entry = entry.trim_start_matches("*").trim_start_matches('.');
            [Some(host.as_str()), with_port.as_deref()]
                .into_iter()
                .flatten()
                .any(|host| host.strip_suffix(entry).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
        })
    }
}

/// Whether an entry of `no_proxy` is the address, or a network with it.
fn within(address: Ipv4Addr, entry: &str) -> bool {
    let (network, bits) = match entry.split_once('/') {
        Some((network, bits)) => (network, bits.parse::<u32>().unwrap_or(u32::MAX)),
        None => (entry, 32),
    };
    let (Ok(network), Some(free)) = (network.parse::<Ipv4Addr>(), 32_u32.checked_sub(bits)) else { return false };
    let mask = u32::MAX.checked_shl(free).unwrap_or(0);
    address.to_bits() & mask == network.to_bits() & mask
}

/// Parses the URL of a proxy; `origin` is where it was set, for messages.
///
/// # Errors
/// Text that is not a URL of a proxy; it is not shown, because it may contain a password.
pub(in crate::storage) fn parse(text: &str, origin: &dyn fmt::Display) -> Result<Proxy, StorageError> {
    Proxy::new(text.trim().trim_end_matches('/'))
        .map_err(|_| StorageError::configuration(format!("{origin}: not a URL of a proxy; write it as http://host:port")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn proxies(vars: &[(&str, &str)]) -> Proxies {
        Proxies::of(&Environment::new(vars.iter().map(|(name, value)| ((*name).into(), (*value).into())))).unwrap()
    }

    #[test]
    fn the_environment_names_proxies() {
        let both = proxies(&[("http_proxy", "lower:3128"), ("HTTP_PROXY", "http://upper:1"), ("ALL_PROXY", "socks5h://all:1080")]);
        assert_eq!(format!("{both:?}"), r#"Proxies { http: Some("lower:3128"), https: Some("all:1080"), bypass: [] }"#);
        assert!(proxies(&[]).http.is_none());
        let secret = proxies(&[("https_proxy", "http://user:pa55@proxy:8080/")]);
        assert!(!format!("{secret:?}").contains("pa55"));
        let wrong = Environment::new([("https_proxy".into(), "gopher://user:pa55@proxy".into())]);
        let error = Proxies::of(&wrong).unwrap_err();
        assert!(error.text.contains("https_proxy") && !error.text.contains("pa55"), "{error}");
    }

    #[test]
    fn some_hosts_bypass_the_proxy() {
        let proxies = proxies(&[("no_proxy", "example.org, .internal,10.0.0.0/8,192.168.1.7,plain:8080")]);
        for (uri, direct) in [
            ("http://example.org/", true),
            ("http://s3.example.org:9000/", true),
            ("http://badexample.org/", false),
            ("http://swift.INTERNAL/", true),
            ("http://10.250.1.1:8080/", true),
            ("http://11.0.0.1/", false),
            ("http://192.168.1.7/", true),
            ("http://192.168.1.70/", false),
            ("http://plain:8080/", true),
            ("http://plain:8081/", false),
            ("http://[::1]/", false),
        ] {
            assert_eq!(proxies.bypasses(&uri.parse().unwrap()), direct, "{uri}");
        }
        assert!(self::proxies(&[("no_proxy", "*")]).bypasses(&"http://any/".parse().unwrap()));
    }
}
