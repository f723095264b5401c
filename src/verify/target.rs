//! The backups to be checked, and the access to their storage.

use std::iter::once;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Watch;
use super::fault::storage_problem;
use crate::domain::{Backup, CheckResult, CheckVerdict, ColumnSet, Driver, Image, Level, Listing, PrecheckListing, Problem, ProblemCode};
use crate::storage::{ObjectStore, StorageError, swift};

/// A backup to be checked, with those that it is based on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub backup: Backup,
    /// Its ancestors, the nearest first, as far as they exist.
    pub ancestors: Vec<Arc<Backup>>,
    /// The columns that its row has.
    pub columns: ColumnSet,
}

impl Target {
    /// The rows of its ancestors.
    pub fn rows_above(&self) -> impl Iterator<Item = Image> {
        self.ancestors.iter().map(|backup| backup.image(self.columns))
    }
}

/// A backup to be checked, with everything that the database says about it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// Its ancestors, the nearest first, as far as they exist.
    pub ancestors: &'a [Arc<Backup>],
    /// How deeply it is checked.
    pub level: Level,
    /// An object younger than this is a sign that the backup is being written.
    pub settle: Duration,
    /// The clock that the storage's times are compared with.
    pub now: Timestamp,
}

impl Subject<'_> {
    /// The result of a check that read nothing.
    pub(super) fn unread(&self, verdict: CheckVerdict, depth: &str, problems: Vec<Problem>) -> CheckResult {
        let rows = once(self.backup).chain(self.ancestors.iter().map(AsRef::as_ref));
        CheckResult {
            id: self.backup.id.clone(),
            name: self.backup.display_name.clone(),
            driver: driver_of(self.backup),
            service: self.backup.service.clone(),
            level: self.level,
            depth: depth.to_owned(),
            verdict,
            problems,
            chain: rows.map(|backup| backup.id.clone()).collect(),
            ..CheckResult::default()
        }
    }

    /// The result of a check that cannot reach the storage.
    pub(super) fn unreachable(&self, error: &StorageError) -> CheckResult {
        self.unread(CheckVerdict::Unverifiable, &self.level.to_string(), vec![storage_problem(None, error).1])
    }

    /// Whether something of this age is within the settle time. A time in the future is, too, as clocks differ.
    pub(super) fn is_young(&self, age: SignedDuration) -> bool {
        age < SignedDuration::try_from(self.settle).unwrap_or(SignedDuration::MAX)
    }

    /// The problem of a chain that continues on another volume. An increment holds what changed in its own volume, so over the blocks
    /// of another volume it gives the data of neither.
    pub(super) fn parent_of_another_volume(&self) -> Option<Problem> {
        let own = self.backup.volume_id.as_deref()?;
        let is_other = |volume: &str| !volume.eq_ignore_ascii_case(own);
        let mut others = self.ancestors.iter().filter(|ancestor| ancestor.volume_id.as_deref().is_some_and(is_other));
        let first = others.next()?;
        let more = match others.count() {
            0 => String::new(),
            more => format!(", as are {more} more of them"),
        };
        let text = format!(
            "backup {}, which it is based on, is of volume {}{more}, but this one is of volume {own}: a restore would give the data of neither",
            first.id,
            first.volume_id.as_deref().unwrap_or_default()
        );
        Some(Problem::general(ProblemCode::ParentOfAnotherVolume, text))
    }
}

/// Opens the storage that backups are on. Errors are what is missing in the configuration, or refused by the storage.
pub trait StorageAccess: Sync {
    /// The store that holds a backup of one of the chunked drivers.
    fn store(&self, driver: Driver, backup: &Backup) -> Result<Arc<dyn ObjectStore>, StorageError>;

    /// Where a backup is looked for, as in the `location` of a result.
    fn location(&self, driver: Driver, backup: &Backup) -> Result<String, StorageError>;

    /// Checks a backup in Ceph. `watch` counts the bytes that are read.
    fn ceph(&self, subject: &Subject<'_>, watch: &Watch) -> Result<CheckResult, StorageError>;

    /// Lists the parts of a backup in Ceph and the signs of work on it; `then` is what a check saw.
    fn precheck_ceph(&self, backup: &Backup, ancestors: &[Arc<Backup>], then: Option<Listing>) -> Result<PrecheckListing, StorageError>;
}

/// The driver that a backup's row names; `None` if this program does not know it.
pub(super) fn driver_of(backup: &Backup) -> Option<Driver> {
    backup.service.as_deref().and_then(Driver::of_service)
}

/// Whether the location that a check noted for a backup is the one where it is looked for now.
pub(super) fn is_same_location(driver: Driver, backup: &Backup, was: &str, now: &str) -> bool {
    was == now || (driver == Driver::Swift && swift::is_url_of(was, backup.container.as_deref().unwrap_or_default()))
}
