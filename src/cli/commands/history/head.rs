//! The signed head of a log: a statement, kept elsewhere, of the log's last record at a time.
//!
//! A person who can write the log can compute its whole chain anew, or cut it off. A signed head that is kept elsewhere reveals
//! both.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::audit::Head;
use crate::cli::error::{Error, Result};
use crate::cli::new_files::NewFiles;
use crate::domain::{Signature, digest};
use crate::input;
use crate::workflow::{SigningKey, VerifyKey, actor};

const SCHEMA: &str = "cinder-backup-repair/log-head";
const SCHEMA_VERSION: u32 = 1;
/// Limit on the size of the file; a head takes less than 1 KiB.
const LARGEST_FILE: u64 = 64 << 10;

/// The document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogHead {
    schema: String,
    schema_version: u32,
    /// The log.
    audit_log: String,
    /// When it was signed, by this host's clock.
    pub at: String,
    /// The number of the last record then.
    pub last_seq: u64,
    /// Its hash.
    pub last_hash: String,
    /// SHA-256, in hex, over all other fields except the signature.
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
}

impl LogHead {
    /// Signs the head of a log and writes it to a new file.
    pub fn write(out: &PathBuf, key: &SigningKey, log: &Path, last: &Head) -> Result<()> {
        let mut head = Self {
            schema: SCHEMA.to_owned(),
            schema_version: SCHEMA_VERSION,
            audit_log: log.display().to_string(),
            at: actor::now(),
            last_seq: last.seq,
            last_hash: last.hash.clone(),
            sha256: String::new(),
            signature: None,
        };
        head.sha256 = digest::of_json(&head);
        head.signature = Some(key.sign(&head.sha256));
        let text = serde_json::to_string_pretty(&head).map_err(std::io::Error::from)?;
        let mut files = NewFiles::create(std::iter::once(out))?;
        files.fill(|file| writeln!(file, "{text}"))?;
        files.keep();
        Ok(())
    }

    /// Reads what [`Self::write`] wrote, and makes sure that this key has signed it.
    pub fn read(path: &Path, key: &VerifyKey) -> Result<Self> {
        let name = path.display();
        let text = input::read_json(path, LARGEST_FILE).map_err(|error| Error::usage(format!("cannot read {name}: {error}")))?;
        let not = |why: String| Error::usage(format!("{name} is not what `history verify --sign-key` writes: {why}"));
        let mut head: Self = serde_json::from_slice(&text).map_err(|error| not(error.to_string()))?;
        if (head.schema.as_str(), head.schema_version) != (SCHEMA, SCHEMA_VERSION) {
            return Err(not(format!("its schema is {:?} {}", head.schema, head.schema_version)));
        }
        let (stated, signature) = (std::mem::take(&mut head.sha256), head.signature.take());
        head.sha256 = digest::of_json(&head);
        if head.sha256 != stated {
            return Err(not("its SHA-256 does not fit".to_owned()));
        }
        key.verify(&name.to_string(), &head.sha256, signature.as_ref())?;
        Ok(head)
    }
}
