//! Google Cloud Storage: an emulator, with Google's authentication and pages in front of it.

use std::path::PathBuf;

use super::process::new_dir;
use super::storage::{get, python, script};
use super::{Process, free_port};

/// The options of an emulator for one test.
#[derive(Debug)]
pub struct Settings {
    /// The most objects that a page lists.
    pub page: u32,
    /// The life of tokens in seconds.
    pub token_life: u32,
}

impl Default for Settings {
    fn default() -> Self {
        // As Google's own service, because Cinder's driver reads only the first page.
        Self { page: 1000, token_life: 3600 }
    }
}

/// A running emulator.
#[derive(Debug)]
pub struct Gcs {
    /// Its port.
    pub port: u16,
    /// The emulator's own port, which needs no token.
    pub inner_port: u16,
    /// The process; the emulator's is its child and ends with it.
    pub process: Process,
}

impl Gcs {
    /// The replacement for `https://storage.googleapis.com/`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// The service account's file.
    pub fn credentials(&self) -> PathBuf {
        self.process.dir().join("home/credentials.json")
    }

    /// The options of cinder.conf for the driver.
    pub fn options(&self, bucket: &str) -> Vec<(&'static str, String)> {
        vec![
            ("backup_gcs_bucket", bucket.to_owned()),
            ("backup_gcs_credential_file", self.credentials().display().to_string()),
            ("backup_gcs_project_id", "tests".to_owned()),
        ]
    }
}

/// Starts an emulator; it ends when it is dropped.
pub fn start(settings: &Settings) -> Gcs {
    let dir = new_dir(&std::env::temp_dir(), "gcs");
    let (port, inner_port) = (free_port(), free_port());
    let mut command: Vec<String> = [python(), script("gcs_server.py")].map(|path| path.display().to_string()).to_vec();
    let mut option = |name: &str, value: String| command.extend([format!("--{name}"), value]);
    option("home", dir.join("home").display().to_string());
    option("port", port.to_string());
    option("inner-port", inner_port.to_string());
    option("page", settings.page.to_string());
    option("token-life", settings.token_life.to_string());
    let process = Process::supervise("gcs", &dir, "KILL", &command);
    process.start(&|| get(port, "/storage/v1/b") == Some(401) && get(inner_port, "/storage/v1/b?project=tests") == Some(200));
    Gcs { port, inner_port, process }
}
