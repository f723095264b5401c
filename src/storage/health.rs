//! What all readers of one storage share: whether it is unreachable, and how long it may go on without giving anything useful.
//!
//! A container may be in trouble alone, and a server with all of its containers. So each has a health of its own, and that of the
//! server above it: of the server's trouble a container believes only what it has met with itself. But a server that gives no
//! answer at all is no trouble of a container.
//!
//! Attempts are counted for each object. With a storage that is away thousands of objects would each be waited for, one after the
//! other: after some of them in a row all wait together, one asks from time to time, and once nothing useful has come for the time
//! of [`Patience::all`] nobody waits any more.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::retry::{GLANCE, look};
use super::{StorageError, StorageErrorKind};

/// So many calls in a row that failed in all their attempts mean that the storage is away.
const FAILURES: u32 = 3;
/// How long a storage that gives nothing useful is waited for, where nobody says how long.
const USUALLY: Duration = Duration::from_secs(60);

/// How long to wait for a storage that gives nothing useful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// In all: over all calls, attempts and those that wait, until anything useful comes.
    pub all: Duration,
    /// Between two calls that see whether it is back.
    pub pause: Duration,
}

impl Patience {
    /// Waits for so long in all.
    pub fn of(all: Duration) -> Self {
        Self { all, pause: (all / 6).min(Duration::from_secs(10)) }
    }

    /// For one answer, when that time is over and an attempt only finds out whether the storage is back.
    fn least(self) -> Duration {
        (self.all / 4).min(Duration::from_secs(5))
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(USUALLY)
    }
}

/// Whether a storage is away.
#[derive(Debug, Default)]
pub struct Health {
    patience: Patience,
    state: Mutex<State>,
    /// That of all that fails and answers together with it.
    server: Option<Arc<Health>>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when nothing useful has come, where an attempt has failed since.
    since: Option<Instant>,
    /// It answered when it was asked last.
    answers: bool,
    /// When something useful came last.
    answered: Option<Instant>,
    /// When any answer came last, even one that the server is too busy.
    spoke: Option<Instant>,
    /// Calls in a row that failed in all their attempts.
    failures: u32,
    /// When it is asked again.
    next: Option<Instant>,
    /// A container that has not failed itself was let through although the server gave no answer.
    probed: bool,
    text: String,
}

/// What to do with a call.
enum Turn {
    Ask,
    Wait,
    /// Why nobody waits any more.
    GiveUp(String),
}

impl State {
    fn is_spent(&self, patience: Patience) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= patience.all)
    }

    fn is_away(&self, patience: Patience) -> bool {
        self.failures >= FAILURES || self.is_spent(patience)
    }

    /// Nothing at all came back for all that time.
    fn is_silent(&self, patience: Patience) -> bool {
        self.is_spent(patience) && self.spoke.is_none_or(|spoke| spoke.elapsed() >= patience.all)
    }

    /// Whether it is time to see if it is back.
    fn is_due(&mut self, patience: Patience) -> bool {
        let now = Instant::now();
        let due = self.next.is_none_or(|next| now >= next);
        if due {
            self.next = Some(now + patience.pause);
        }
        due
    }

    fn turn(&mut self, patience: Patience) -> Turn {
        if !self.is_away(patience) || self.is_due(patience) {
            return Turn::Ask;
        }
        if self.is_spent(patience) { Turn::GiveUp(self.text.clone()) } else { Turn::Wait }
    }

    /// For a container that has not failed itself. One is asked all the same, for it may be another one that gives no answer.
    fn turn_of_another(&mut self, patience: Patience) -> Turn {
        if !self.is_silent(patience) || !std::mem::replace(&mut self.probed, true) || self.is_due(patience) {
            return Turn::Ask;
        }
        Turn::GiveUp(String::new())
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it may go on without anything useful.
    pub(super) fn patience(&self) -> Duration {
        self.patience.all
    }

    /// How long to wait for one answer, given the usual limit, which grows with a patience above the usual one: at most half of the
    /// whole time, which leaves a second attempt, and no longer than what is left of it.
    pub(super) fn limit(&self, usual: Duration) -> Duration {
        let more = (self.patience.all.as_secs_f64() / USUALLY.as_secs_f64()).max(1.0);
        usual.mul_f64(more).min(self.patience.all / 2).min(self.left().max(self.patience.least()))
    }

    /// What is left of the time in which something useful must come.
    pub(super) fn left(&self) -> Duration {
        self.patience.all.saturating_sub(self.state().since.map_or(Duration::ZERO, |since| since.elapsed()))
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
                Turn::GiveUp(why) => return Err(self.give_up(&why)),
            }
        }
    }

    fn turn(&self) -> Turn {
        let mut own = self.state();
        match &self.server {
            // What has not failed itself is asked, whatever others met with.
            Some(server) if own.since.is_none() && own.failures == 0 => server.state().turn_of_another(self.patience),
            Some(server) if !own.is_away(self.patience) => match server.state().turn(self.patience) {
                // The server's last words may be those of another container.
                Turn::GiveUp(_) => Turn::GiveUp(own.text.clone()),
                turn => turn,
            },
            _ => own.turn(self.patience),
        }
    }

    fn give_up(&self, why: &str) -> StorageError {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let text = format!("storage unreachable, giving up after {} s{why}", self.patience.all.as_secs_f64());
        StorageError::new(StorageErrorKind::Away, text)
    }

    /// The error of a failed call: its own, or that the storage was given up.
    pub(super) fn last_words(&self, error: StorageError) -> StorageError {
        let spent =
            self.state().is_spent(self.patience) || self.server.as_ref().is_some_and(|server| server.state().is_silent(self.patience));
        if spent { self.give_up(&error.text) } else { error }
    }

    /// Whether others have found that it is away: no further attempt is worth it. For what answered until now it is.
    pub(super) fn is_away(&self) -> bool {
        let own = self.state();
        own.is_away(self.patience) || (!own.answers && self.server.as_ref().is_some_and(|server| server.state().is_away(self.patience)))
    }

    /// An attempt has failed in a way that may pass, after so long without anything useful.
    pub(super) fn stumbled(&self, waited: Duration) {
        if let Some(server) = &self.server {
            server.stumbled(waited);
        }
        let mut state = self.state();
        let begun = Instant::now().checked_sub(waited);
        // What others had meanwhile was useful.
        state.since = state.since.or(begun.max(state.answered));
    }

    /// A call has failed in all its attempts.
    pub(super) fn failed(&self, error: &StorageError) {
        if let Some(server) = &self.server {
            server.failed(error);
        }
        let mut state = self.state();
        state.answers = false;
        state.failures = state.failures.saturating_add(1);
        state.next = Some(Instant::now() + self.patience.pause);
        state.text.clone_from(&error.text);
    }

    /// Something useful has come.
    pub(super) fn answered(&self) {
        *self.state() = State { answers: true, answered: Some(Instant::now()), ..State::default() };
        if let Some(server) = &self.server {
            server.answered();
        }
    }

    /// Some answer has come, even if only an error.
    pub(super) fn spoke(&self) {
        self.state().spoke = Some(Instant::now());
    }
}
