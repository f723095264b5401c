//! What all that is read from one storage shares: whether it is away.
//!
//! A container may be in trouble alone, and a server with all of its containers. So each has a health of its own, and that of the
//! server above it: of the server's trouble a container believes only what it has met with itself.
//!
//! Attempts are counted for each object. With a storage that is away thousands of objects would each be waited for, one after the
//! other: after some of them in a row all wait together, one asks from time to time, and after a while none waits any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
    /// It answered when it was asked last.
    answers: AtomicBool,
    /// That of all that fails and answers together with it.
    server: Option<Arc<Health>>,
}

#[derive(Debug)]
struct Trouble {
    failures: u32,
    since: Instant,
    /// When it is asked again.
    next: Instant,
    text: String,
}

/// What to do with a call.
enum Turn {
    Ask,
    Wait,
    /// Why nobody waits any more.
    GiveUp(String),
}

impl Trouble {
    fn is_away(&self) -> bool {
        self.failures >= FAILURES
    }

    fn turn(&mut self, patience: Patience) -> Turn {
        let now = Instant::now();
        if !self.is_away() {
            return Turn::Ask;
        }
        if now >= self.next {
            self.next = now + patience.pause;
            return Turn::Ask;
        }
        if now.duration_since(self.since) >= patience.all { Turn::GiveUp(self.text.clone()) } else { Turn::Wait }
    }
}

impl Health {
    /// With another patience.
    pub fn new(patience: Patience) -> Self {
        Self { patience, ..Self::default() }
    }

    /// That of one container of a server.
    pub fn below(server: Arc<Self>) -> Self {
        Self { patience: server.patience, server: Some(server), ..Self::default() }
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
            match self.turn() {
                Turn::Ask => return Ok(()),
                Turn::Wait => std::thread::sleep(GLANCE.min(self.patience.pause)),
                Turn::GiveUp(why) => {
                    let text = format!("the storage is away and was not asked any more: {why}");
                    return Err(StorageError::new(StorageErrorKind::Away, text));
                }
            }
        }
    }

    fn turn(&self) -> Turn {
        // What has not failed itself is asked, whatever others met with.
        let mut own = self.trouble();
        let Some(own) = own.as_mut() else { return Turn::Ask };
        match &self.server {
            Some(server) if !own.is_away() => match server.turn() {
                // The server's last words may be those of another container.
                Turn::GiveUp(_) => Turn::GiveUp(own.text.clone()),
                turn => turn,
            },
            _ => own.turn(self.patience),
        }
    }

    /// Whether others have found that it is away: no further attempt is worth it. For what answered until now it is.
    pub(super) fn is_away(&self) -> bool {
        let own = self.trouble().as_ref().is_some_and(Trouble::is_away);
        own || (!self.answers.load(Ordering::Relaxed) && self.server.as_ref().is_some_and(|server| server.is_away()))
    }

    /// A call has failed in all its attempts.
    pub(super) fn failed(&self, error: &StorageError) {
        self.answers.store(false, Ordering::Relaxed);
        if let Some(server) = &self.server {
            server.failed(error);
        }
        let now = Instant::now();
        let mut trouble = self.trouble();
        let trouble = trouble.get_or_insert_with(|| Trouble { failures: 0, since: now, next: now, text: String::new() });
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.next = now + self.patience.pause;
        trouble.text.clone_from(&error.text);
    }

    /// It has answered.
    pub(super) fn answered(&self) {
        self.answers.store(true, Ordering::Relaxed);
        *self.trouble() = None;
        if let Some(server) = &self.server {
            server.answered();
        }
    }
}
