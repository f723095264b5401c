//! The order in which a scrub verifies backups, and the meaning of a check result for a ledger. Pure.
//!
//! First come the backups that were never verified, the oldest first, then those that were verified longest ago. A backup without an answer
//! goes behind those that were tried longer ago, so that a storage or a disk that does not answer never keeps others waiting. Every due
//! backup gets its turn after finitely many others, whatever the budget of a run is.

use crate::domain::{CheckResult, CheckVerdict, Level, ProblemCode};

/// Smaller than every time in seconds, so that backups that were never verified come first.
const NEVER: i64 = -(1 << 40);

/// What a run verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The level at which a backup must have been verified.
    pub level: Level,
    /// How long that counts, in seconds.
    pub max_age: i64,
    /// Only backups that failed, whenever they were verified.
    pub failed_only: bool,
    /// The time, in seconds since 1970.
    pub now: i64,
}

/// What the ledger knows of a backup. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// When the backup was made.
    pub created_at: i64,
    /// When it was last known to be intact at levels quick, deep and restore, or deeper.
    pub intact_at: [Option<i64>; 3],
    /// When it failed last and at which level, if it was not intact since.
    pub failed: Option<(i64, Level)>,
    /// When a check could not reach this level because of the backup itself.
    pub limited: Option<(i64, Level)>,
    /// When it was last tried without an answer.
    pub unanswered_at: Option<i64>,
}

impl Entry {
    /// When a check at this level, or deeper, last gave an answer that another check would only repeat.
    pub fn settled_at(&self, level: Level) -> Option<i64> {
        let failed = self.failed.filter(|(_, at)| *at >= level).map(|(at, _)| at);
        let limited = self.limited.filter(|(_, at)| *at == level).map(|(at, _)| at);
        self.intact(level).max(failed).max(limited)
    }

    /// When it was last known to be intact at this level or deeper.
    pub fn intact(&self, level: Level) -> Option<i64> {
        self.intact_at.get(index(level)).copied().flatten()
    }

    /// Its place in the order, if it is due: the smaller, the earlier.
    pub fn urgency(&self, rules: &Rules) -> Option<i64> {
        if rules.failed_only {
            // A run checks a failed backup once: a failure that the run itself found is later than its beginning.
            return self.failed.map(|(at, _)| at.max(self.unanswered_at.unwrap_or(at)));
        }
        let settled = self.settled_at(rules.level);
        let is_due = settled.is_none_or(|at| at.saturating_add(rules.max_age) <= rules.now);
        let tried = settled.max(self.unanswered_at);
        is_due.then(|| tried.unwrap_or_else(|| NEVER.saturating_add(self.created_at.max(0))))
    }
}

/// The place of a level in arrays and in the ledger.
pub(super) fn index(level: Level) -> usize {
    level as usize
}

/// The number of a level in the ledger.
pub(super) fn number_of(level: Level) -> i64 {
    match level {
        Level::Quick => 0,
        Level::Deep => 1,
        Level::Restore => 2,
    }
}

/// The level with this number.
pub(super) fn level_of(number: i64) -> Level {
    match number {
        0 => Level::Quick,
        1 => Level::Deep,
        _ => Level::Restore,
    }
}

/// What a check result means to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Intact at the level that was asked for.
    Intact,
    /// Damaged, or its disk gives read errors: a restore would fail.
    Failed,
    /// It cannot be verified at this level, for a reason that will be the same in the next run.
    Limited,
    /// The storage gave no answer, or the backup is being written: it is tried again in the next run.
    Unanswered,
    /// The check was stopped in the middle of it.
    CutOff,
}

impl Outcome {
    /// What a result means.
    pub fn of(result: &CheckResult) -> Self {
        use ProblemCode::{
            Cancelled, ChangedMeanwhile, ListingBehind, ObjectRewritten, ObjectUnlisted, ParentDamaged, PoolMissing, PoolWithoutBackups,
            StorageAuthentication, StorageAway, StorageConfiguration, StorageContradicts, StoragePermission, StorageProtocol,
            StorageUnavailable, StorageUnreachable, StorageUnreadable, TransferDiffers,
        };
        let has =
            |codes: &[ProblemCode]| result.problems.iter().any(|problem| problem.code.known().is_some_and(|code| codes.contains(&code)));
        if result.is_unreadable() {
            return Self::Failed;
        }
        if result.verdict.is_damage() {
            return if result.busy { Self::Unanswered } else { Self::Failed };
        }
        if result.reached() >= Some(result.level) {
            return Self::Intact;
        }
        if has(&[Cancelled]) {
            return Self::CutOff;
        }
        let outage = [
            StorageAuthentication,
            StorageAway,
            StorageConfiguration,
            StorageContradicts,
            StoragePermission,
            StorageProtocol,
            StorageUnavailable,
            StorageUnreachable,
            StorageUnreadable,
            TransferDiffers,
            ChangedMeanwhile,
            ListingBehind,
            ObjectRewritten,
            ObjectUnlisted,
            ParentDamaged,
            PoolMissing,
            PoolWithoutBackups,
        ];
        if has(&outage) { Self::Unanswered } else { Self::Limited }
    }
}

/// The last time at which a failed backup was known to be intact where it is damaged now. A check at any level sees that an object is
/// missing. Only a check that reads the data sees that it is wrong.
pub fn last_good(entry: &Entry, result: &CheckResult) -> Option<i64> {
    let is_gone = matches!(result.verdict, CheckVerdict::Incomplete | CheckVerdict::Missing);
    entry.intact(if is_gone { Level::Quick } else { result.level })
}

/// When every backup will be verified within the maximum age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forecast {
    /// Every backup is.
    Complete,
    /// In this number of seconds, at the recent rate.
    In(i64),
    /// Never at the recent rate: to verify all takes this number of seconds, which is longer than the maximum age.
    TooSlow(i64),
    /// No run has verified anything recently.
    Unknown,
}

/// Forecasts full coverage: `left` of `all` is not verified, and `done` was verified in the last `span` seconds.
pub fn forecast(left: u64, all: u64, done: u64, span: i64, max_age: i64) -> Forecast {
    if left == 0 {
        return Forecast::Complete;
    }
    if done == 0 || span <= 0 {
        return Forecast::Unknown;
    }
    let seconds = |amount: u64| {
        let exact = u128::from(amount) * u128::from(span.unsigned_abs()) / u128::from(done);
        i64::try_from(exact).unwrap_or(i64::MAX)
    };
    if seconds(all) > max_age { Forecast::TooSlow(seconds(all)) } else { Forecast::In(seconds(left)) }
}
