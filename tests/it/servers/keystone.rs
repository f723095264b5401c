//! Keystone, with a Swift that takes its tokens (auth v3) and, over S3, its EC2 credentials.

use std::fs;

use serde_json::Value;

use super::process::{new_dir, without_fsync};
use super::storage::{PASSWORD, get, python, script};
use super::swift::{self, Swift};
use super::{Process, free_port};

/// The options of a Keystone for one test.
#[derive(Debug)]
pub struct Settings {
    /// The life of its tokens in seconds.
    pub token_life: u32,
    /// The options of its Swift, apart from Keystone.
    pub swift: swift::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self { token_life: 3600, swift: swift::Settings::default() }
    }
}

/// A running Keystone. All its users have [`PASSWORD`] and, with their projects, are in the domain `storage`:
///
/// | user | project | may |
/// |---|---|---|
/// | `cinder` | `backups` | do everything in the project's account: single_user |
/// | `customer` | `customer` | the same in theirs: per_user |
/// | `operator` | `backups` | do everything in every account (ResellerAdmin) |
#[derive(Debug)]
pub struct Keystone {
    /// Its port.
    pub port: u16,
    /// The port of the Swift that takes its tokens.
    pub swift_port: u16,
    /// The Swift. Its other ports serve auth v1 without Keystone.
    pub swift: Swift,
    /// S3's access key of `cinder`.
    pub access_key: String,
    /// S3's secret key of `cinder`.
    pub secret_key: String,
    /// The process.
    pub process: Process,
    seed: Value,
}

/// The domain of users and projects.
pub const DOMAIN: &str = "storage";
/// The region whose object store the catalogue lists first, at 127.0.0.1.
pub const REGION: &str = "RegionOne";
/// The region where the same object store is called localhost.
pub const OTHER_REGION: &str = "RegionTwo";

impl Keystone {
    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v3", self.port)
    }

    /// The id of a project.
    pub fn project(&self, name: &str) -> &str {
        self.seed["projects"][name].as_str().unwrap_or_else(|| panic!("no project {name}"))
    }

    /// The id of a user.
    pub fn user(&self, name: &str) -> &str {
        self.seed["users"][name].as_str().unwrap_or_else(|| panic!("no user {name}"))
    }

    /// S3's endpoint for the EC2 credentials.
    pub fn s3_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.swift_port)
    }

    /// `backup_swift_url` of per_user, to which a project's id is appended.
    pub fn swift_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/AUTH_", self.swift_port)
    }

    /// The options of cinder.conf for the Swift driver with auth v3 as single_user.
    pub fn swift_options(&self, container: &str) -> Vec<(&'static str, String)> {
        vec![
            ("backup_swift_auth", "single_user".to_owned()),
            ("backup_swift_auth_version", "3".to_owned()),
            ("backup_swift_auth_url", self.url()),
            ("backup_swift_user", "cinder".to_owned()),
            ("backup_swift_key", PASSWORD.to_owned()),
            ("backup_swift_user_domain", DOMAIN.to_owned()),
            ("backup_swift_project", "backups".to_owned()),
            ("backup_swift_project_domain", DOMAIN.to_owned()),
            ("backup_swift_container", container.to_owned()),
        ]
    }
}

/// Starts a Keystone and its Swift; they end when it is dropped.
pub fn start(settings: &Settings) -> Keystone {
    let dir = new_dir(&std::env::temp_dir(), "keystone");
    let (port, swift_port) = (free_port(), free_port());
    let home = dir.join("home");
    let mut command = without_fsync().to_vec();
    command.extend([python(), script("keystone_server.py")].map(|path| path.display().to_string()));
    let mut option = |name: &str, value: String| command.extend([format!("--{name}"), value]);
    option("home", home.display().to_string());
    option("port", port.to_string());
    option("password", PASSWORD.to_owned());
    option("swift", format!("http://127.0.0.1:{swift_port}"));
    option("token-life", settings.token_life.to_string());
    let process = Process::supervise("keystone", &dir, "KILL", &command);
    process.start(&|| home.join("seed.json").exists() && get(port, "/v3") == Some(200));
    let text = fs::read_to_string(home.join("seed.json")).expect("it was there");
    let seed: Value = serde_json::from_str(&text).expect("Keystone's start writes JSON");
    let key = |name: &str| seed[name].as_str().expect("a key").to_owned();
    let swift = swift::start(&swift::Settings {
        keystone: Some((format!("http://127.0.0.1:{port}/v3"), swift_port)),
        listing_limit: settings.swift.listing_limit,
        token_life: settings.swift.token_life,
        certificate: settings.swift.certificate,
    });
    Keystone { port, swift_port, swift, access_key: key("access"), secret_key: key("secret"), process, seed }
}
