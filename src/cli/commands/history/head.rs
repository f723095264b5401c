//! The signed head of a log: a statement, kept elsewhere, of the log's last record at a time.
//!
//! A person who can write the log can compute a new chain, or cut the log off. A signed head that is kept elsewhere reveals
//! both.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audit::Head;
use crate::cli::new_files::NewFiles;
use crate::cli::{Error, Result};
use crate::domain::{Body, Sealed};
use crate::input;
use crate::workflow::{SigningKey, VerifyKey, actor};

/// Limit on the size of the file; a head takes less than 1 KiB.
const LARGEST_FILE: u64 = 64 << 10;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogHead {
    audit_log: String,
    /// When it was signed, by this host's clock.
    pub at: String,
    /// The number of the last record then.
    pub last_seq: u64,
    pub last_hash: String,
}

impl Body for LogHead {
    const SCHEMA: &'static str = "cinder-backup-repair/log-head";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = "what `history verify --sign-key` writes";
    const INSTEAD: &'static str = "take another copy of it";

    fn validate(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}

impl LogHead {
    /// Signs the head of a log and writes it to a new file.
    pub fn write(out: &PathBuf, key: &SigningKey, log: &Path, last: &Head) -> Result<()> {
        let (at, last_hash) = (actor::now(), last.hash.clone());
        let mut head = Sealed::new(Self { audit_log: log.display().to_string(), at, last_seq: last.seq, last_hash });
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
        let head = Sealed::<Self>::parse(&text).map_err(|error| Error::usage(format!("{name} {error}")))?;
        key.verify(&name.to_string(), &head.sha256, head.signature.as_ref())?;
        Ok(head.body)
    }
}
