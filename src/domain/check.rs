//! What a look at the storage says about a backup.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Driver, Image};

/// How deeply a backup is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Names, sizes and side files; no data is read.
    Quick,
    /// Every object is read, decompressed and compared with its length and digest.
    Deep,
    /// Every block of the volume, as a restore would write it, is compared with the digest taken when the volume was read.
    Restore,
}

impl Level {
    /// The word in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Deep => "deep",
            Self::Restore => "restore",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the storage holds of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    /// All of it, as far as the level looks.
    Intact,
    /// Part of it is not there.
    Incomplete,
    /// All of it is there, and part of it is wrong.
    Corrupt,
    /// Nothing of it is there.
    Missing,
    /// The check could not be finished, or this program does not know the driver.
    Unverifiable,
}

impl CheckVerdict {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Incomplete => "incomplete",
            Self::Corrupt => "corrupt",
            Self::Missing => "missing",
            Self::Unverifiable => "unverifiable",
        }
    }

    /// Whether a restore would fail or give wrong bytes.
    pub fn is_damage(self) -> bool {
        matches!(self, Self::Incomplete | Self::Corrupt | Self::Missing)
    }
}

impl fmt::Display for CheckVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that is wrong, or worth knowing, about one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The object's name on the storage; `None` where it is about the backup as a whole. Hostile text.
    pub object: Option<String>,
    /// A stable code such as `object-missing`.
    pub code: String,
    /// The same in words. May hold names from the storage, which is hostile text.
    pub text: String,
}

impl Problem {
    /// About one object.
    pub fn of(object: impl Into<String>, code: &str, text: impl Into<String>) -> Self {
        Self { object: Some(object.into()), code: code.to_owned(), text: text.into() }
    }

    /// About the backup as a whole.
    pub fn general(code: &str, text: impl Into<String>) -> Self {
        Self { object: None, code: code.to_owned(), text: text.into() }
    }
}

/// How much was looked at, and how much there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// So much was checked.
    pub checked: u64,
    /// So much there is to check.
    pub expected: u64,
}

/// What a look at the storage says about one backup: an entry of `results` in the document of `check`, and evidence for
/// a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    /// The backup.
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    /// Its driver; `None` where this program does not know it.
    pub driver: Option<Driver>,
    /// `backups.service` as it was.
    pub service: Option<String>,
    /// Where its data is: a URL or a path without secrets.
    pub location: Option<String>,
    /// How deeply it was to be checked.
    pub level: Level,
    /// What was really done, in words: the digest that ran, the share of the data that was read.
    pub depth: String,
    /// What was found.
    pub verdict: CheckVerdict,
    /// The newest object is younger than `--settle`, or somebody has the image open: it is being written.
    pub busy: bool,
    /// Something of it is on the storage.
    pub begun: bool,
    /// Objects of this backup, side files not counted; 0 for Ceph.
    pub objects: Amount,
    /// Bytes of the volume that the objects of this backup hold.
    pub bytes: Amount,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// What is not wrong and should be known all the same.
    pub warnings: Vec<Problem>,
    /// Ids of the backups that a restore reads, this one first.
    pub chain: Vec<String>,
    /// What `backups.object_count` is to be once it is available; `None` where the driver leaves it NULL.
    pub object_count: Option<i64>,
    /// What `backups.service_metadata` is to be once it is available, where the driver sets that last (Ceph).
    pub service_metadata: Option<String>,
    /// When the newest object was written, RFC 3339, by the storage's clock.
    pub newest_object_at: Option<String>,
    /// When the check ended, RFC 3339.
    pub checked_at: String,
    /// The row that it was made for, and below it those of its ancestors, this backup's first.
    pub rows: Vec<Image>,
}
