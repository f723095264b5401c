//! What all that is read from one storage shares: whether it is away.
//!
//! Attempts are counted for each object. With a storage that is away thousands of objects would each be waited for, one after the
//! other: after some of them in a row all wait together, one asks from time to time, and after a while none waits any more.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::retry::{GLANCE, look};
use super::{StorageError, StorageErrorKind};

/// So many calls in a row that failed in all their attempts mean that the storage is away.
const FAILURES: u32 = 3;

/// How long a storage that is away is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From the first failure on, over all that wait.
    pub all: Duration,
    /// Between two calls that see whether it is back.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { all: Duration::from_secs(60), pause: Duration::from_secs(10) }
    }
}

/// Whether a storage is away.
#[derive(Debug, Default)]
pub struct Health {
    patience: Patience,
    trouble: Mutex<Option<Trouble>>,
}

#[derive(Debug)]
struct Trouble {
    failures: u32,
    since: Instant,
    /// When it is asked again.
    next: Instant,
    text: String,
}

impl Health {
    /// With another patience.
    pub fn new(patience: Patience) -> Self {
        Self { patience, trouble: Mutex::default() }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the storage may be asked; waits while it is away.
    ///
    /// # Errors
    /// [`StorageErrorKind::Away`] where it has been away for too long, [`StorageErrorKind::Cancelled`].
    pub(super) fn wait(&self, cancelled: &AtomicBool) -> Result<(), StorageError> {
        loop {
            look(cancelled)?;
            match &mut *self.trouble() {
                Some(trouble) if trouble.failures >= FAILURES => {
                    let now = Instant::now();
                    if now >= trouble.next {
                        trouble.next = now + self.patience.pause;
                        return Ok(());
                    }
                    if now.duration_since(trouble.since) >= self.patience.all {
                        let text = format!("the storage is away and was not asked any more: {}", trouble.text);
                        return Err(StorageError::new(StorageErrorKind::Away, text));
                    }
                }
                _ => return Ok(()),
            }
            std::thread::sleep(GLANCE.min(self.patience.pause));
        }
    }

    /// Whether others have found that it is away: no further attempt is worth it.
    pub(super) fn is_away(&self) -> bool {
        self.trouble().as_ref().is_some_and(|trouble| trouble.failures >= FAILURES)
    }

    /// A call has failed in all its attempts.
    pub(super) fn failed(&self, error: &StorageError) {
        let now = Instant::now();
        let mut trouble = self.trouble();
        let trouble = trouble.get_or_insert_with(|| Trouble { failures: 0, since: now, next: now, text: String::new() });
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.next = now + self.patience.pause;
        trouble.text.clone_from(&error.text);
    }

    /// It has answered.
    pub(super) fn answered(&self) {
        *self.trouble() = None;
    }
}
