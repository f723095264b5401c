//! Whether the data of a backup is on its storage, whole and right.
//!
//! Reads, and never writes anywhere. A verdict is only ever as good as what was really looked at: [`Assessment`] says that
//! too. May use `domain`, `format` and `storage`.

mod capacity;
pub mod ceph;
pub mod check_document;
pub mod chunked;
mod fault;
pub mod partial;
mod precheck;
mod run;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use capacity::Capacity;
pub use check_document::CheckDocument;
pub use fault::{Faults, Severity};
pub use precheck::{PrecheckRound, precheck};
pub use run::{Checker, Request, StorageAccess, Target};
pub use watch::Watch;

use crate::domain::{Amount, Backup, Below, CheckVerdict, Level, Listing, Problem, ProblemCode};

/// A backup to be checked, with everything that the database says about it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// The backups that it is an increment of, the nearest first, down to the full one or as far as they still exist.
    pub ancestors: &'a [Arc<Backup>],
    /// How deeply.
    pub level: Level,
    /// An object younger than this is a sign of work.
    pub settle: Duration,
    /// The clock that the storage's times are compared with.
    pub now: Timestamp,
}

impl Subject<'_> {
    /// What is wrong where its chain goes over to another volume: an increment holds what changed in its own, and put over the
    /// blocks of another it gives the data of neither.
    fn other_volume(&self) -> Option<Problem> {
        let own = self.backup.volume_id.as_deref()?;
        let is_other = |volume: &str| !volume.eq_ignore_ascii_case(own);
        let mut others = self.ancestors.iter().filter(|ancestor| ancestor.volume_id.as_deref().is_some_and(is_other));
        let first = others.next()?;
        let more = match others.count() {
            0 => String::new(),
            more => format!(", as are {more} more of them"),
        };
        let text = format!(
            "backup {}, which it rests on, is of volume {}{more}, and this one of volume {own}: a restore would give the data of neither",
            first.id,
            first.volume_id.as_deref().unwrap_or_default()
        );
        Some(Problem::general(ProblemCode::ParentOfAnotherVolume, text))
    }
}

/// What a look at the storage found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// What was found.
    pub verdict: CheckVerdict,
    /// The deepest level at which it is known to be intact.
    pub reached: Option<Level>,
    /// What was really done, in words.
    pub depth: String,
    /// Somebody is still writing it.
    pub busy: bool,
    /// Something of it is there.
    pub begun: bool,
    /// Objects, side files not counted.
    pub objects: Amount,
    /// Bytes of the volume that the objects hold.
    pub bytes: Amount,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// What is not wrong and should be known all the same.
    pub warnings: Vec<Problem>,
    /// What the driver would have written to `backups.object_count`.
    pub object_count: Option<i64>,
    /// What the driver would have written to `backups.service_metadata` at the very end (Ceph).
    pub service_metadata: Option<String>,
    /// When the newest object was written, by the storage's clock.
    pub newest_object_at: Option<Timestamp>,
    /// What the listing showed; `None` where there was none.
    pub listing: Option<Listing>,
    /// What those of the backups that it rests on showed; `None` where there are none, or one had none.
    pub below: Option<Below>,
}
