//! OpenStack Swift with its S3 API: auth v1 over HTTP and HTTPS, and with a [`super::keystone`] auth v3.

use super::certificates::Certificates;
use super::process::{new_dir, without_fsync};
use super::storage::{PASSWORD, get, listens, python, script};
use super::{Process, ServerName, free_port};

/// The options of a Swift for one test.
#[derive(Debug)]
pub struct Settings {
    /// The most names on a page of a listing, one less with S3 (at most 1000).
    pub listing_limit: u32,
    /// The life of auth v1's tokens in seconds.
    pub token_life: u32,
    /// The name in the certificate of the HTTPS port.
    pub certificate: ServerName,
    /// The URL of a Keystone, with `/v3`, and the port for those that it knows.
    pub keystone: Option<(String, u16)>,
}

impl Default for Settings {
    fn default() -> Self {
        // Small pages, so that every listing has more than one.
        Self { listing_limit: 250, token_life: 86_400, certificate: ServerName::Localhost, keystone: None }
    }
}

/// A running Swift.
#[derive(Debug)]
pub struct Swift {
    /// The port of auth v1, Swift and S3 over HTTP.
    pub port: u16,
    /// The port of the same over HTTPS.
    pub tls_port: u16,
    /// The parent process of the servers, which end with it.
    pub process: Process,
}

/// The account's user that may do everything in it, for auth v1 and as S3's access key; its key and secret are [`PASSWORD`].
pub const USER: &str = "backups:cinder";
/// A user of the same account that may do nothing.
pub const READER: &str = "backups:reader";

impl Swift {
    /// Auth v1's URL.
    pub fn auth_url(&self) -> String {
        format!("http://127.0.0.1:{}/auth/v1.0", self.port)
    }

    /// Auth v1's URL over HTTPS, by the name in the certificate.
    pub fn tls_auth_url(&self) -> String {
        format!("https://localhost:{}/auth/v1.0", self.tls_port)
    }

    /// The account's URL.
    pub fn storage_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/TEMP_backups", self.port)
    }

    /// S3's endpoint.
    pub fn s3_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// S3's endpoint over HTTPS.
    pub fn tls_s3_url(&self) -> String {
        format!("https://localhost:{}", self.tls_port)
    }

    /// The options of cinder.conf for the Swift driver with auth v1.
    pub fn swift_options(&self, container: &str) -> Vec<(&'static str, String)> {
        vec![
            ("backup_swift_auth", "single_user".to_owned()),
            ("backup_swift_auth_version", "1".to_owned()),
            ("backup_swift_auth_url", self.auth_url()),
            ("backup_swift_user", USER.to_owned()),
            ("backup_swift_key", PASSWORD.to_owned()),
            ("backup_swift_container", container.to_owned()),
        ]
    }

    /// The options of cinder.conf for the S3 driver.
    pub fn s3_options(&self, bucket: &str) -> Vec<(&'static str, String)> {
        vec![
            ("backup_s3_endpoint_url", self.s3_url()),
            ("backup_s3_store_access_key", USER.to_owned()),
            ("backup_s3_store_secret_key", PASSWORD.to_owned()),
            ("backup_s3_store_bucket", bucket.to_owned()),
        ]
    }
}

/// Starts a Swift; it ends when it is dropped.
pub fn start(settings: &Settings) -> Swift {
    let dir = new_dir(&std::env::temp_dir(), "swift");
    let (port, tls_port) = (free_port(), free_port());
    let inner: Vec<String> = (0..4).map(|_| free_port().to_string()).collect();
    let (certificate, key) = Certificates::get().server(settings.certificate);
    let mut command = without_fsync().to_vec();
    command.extend([python(), script("swift_server.py")].map(|path| path.display().to_string()));
    let mut option = |name: &str, value: String| command.extend([format!("--{name}"), value]);
    option("home", dir.join("home").display().to_string());
    option("port", port.to_string());
    option("tls-port", tls_port.to_string());
    option("inner-ports", inner.join(","));
    option("certificate", certificate.display().to_string());
    option("key", key.display().to_string());
    option("password", PASSWORD.to_owned());
    option("listing-limit", settings.listing_limit.to_string());
    option("token-life", settings.token_life.to_string());
    if let Some((url, port)) = &settings.keystone {
        option("keystone", url.clone());
        option("keystone-port", port.to_string());
    }
    let process = Process::supervise("swift", &dir, "KILL", &command);
    process.start(&|| {
        inner.iter().all(|port| listens(port.parse().unwrap()))
            && get(port, "/healthcheck") == Some(200)
            && listens(tls_port)
            && settings.keystone.as_ref().is_none_or(|(_, port)| get(*port, "/healthcheck") == Some(200))
    });
    Swift { port, tls_port, process }
}
