//! Checks whether the data of a backup is on its storage, complete and correct.
//!
//! Reads, and never writes. A verdict is only as good as what was read, which [`Assessment`] states, too. May use `domain`, `format`,
//! `parallel` and `storage`.

mod capacity;
pub mod ceph;
pub mod check_document;
pub mod chunked;
mod fault;
pub mod partial;
mod precheck;
mod run;
mod target;
mod watch;

use jiff::Timestamp;

pub use capacity::Capacity;
pub use check_document::CheckDocument;
pub use fault::{Faults, Severity};
pub use precheck::{PrecheckRound, precheck};
pub use run::{Checker, Request};
pub use target::{StorageAccess, Subject, Target};
pub use watch::Watch;

use crate::domain::{Amount, AncestorListings, CheckVerdict, Level, Listing, Problem};

/// What a check of the storage found of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The verdict.
    pub verdict: CheckVerdict,
    /// The deepest level at which the data is known to be intact.
    pub reached: Option<Level>,
    /// What was done, in words.
    pub depth: String,
    /// The backup is still being written.
    pub busy: bool,
    /// Some of it exists.
    pub begun: bool,
    /// Objects, side files not counted.
    pub objects: Amount,
    /// Bytes of the volume that the objects hold.
    pub bytes: Amount,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is worth knowing, but does not change the verdict.
    pub warnings: Vec<Problem>,
    /// What the driver would have written to `backups.object_count`.
    pub object_count: Option<i64>,
    /// What the driver would have written to `backups.service_metadata` at the end (Ceph).
    pub service_metadata: Option<String>,
    /// When the newest object was written, by the storage's clock.
    pub newest_object_at: Option<Timestamp>,
    /// What the listing showed; `None` if there was none.
    pub listing: Option<Listing>,
    /// What the listings of its ancestors showed; `None` if there are no ancestors, or one of them had no listing.
    pub below: Option<AncestorListings>,
}

impl Assessment {
    /// A backup of which nothing was read.
    fn unread(verdict: CheckVerdict, depth: &str, problems: Vec<Problem>) -> Self {
        Self {
            verdict,
            reached: None,
            depth: depth.to_owned(),
            busy: false,
            begun: false,
            objects: Amount::default(),
            bytes: Amount::default(),
            problems,
            warnings: Vec::new(),
            object_count: None,
            service_metadata: None,
            newest_object_at: None,
            listing: None,
            below: None,
        }
    }
}
