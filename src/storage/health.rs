//! Whether a storage is reachable, shared by all its readers, and how long to wait for it.
//!
//! A single container may fail, or a server with all its containers. So each container has a [`Health`], and so has its server. A
//! container that has not failed itself ignores the failures of others, unless the server does not respond at all.
//!
//! Attempts are counted for each object, so thousands of objects of an unreachable storage would each wait, one after the other.
//! Therefore all calls wait together after a few failures in a row, and one of them probes the storage at intervals. Without
//! progress for [`WaitLimit::total`] all calls give up.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::retry::{CANCEL_POLL, check_cancelled};
use super::{StorageError, StorageErrorKind};
use crate::parallel::lock;

/// After this number of calls in a row that failed in all their attempts, the storage counts as unreachable.
const FAILURES: u32 = 3;
/// The default of [`WaitLimit::total`].
const DEFAULT_TOTAL: Duration = Duration::from_secs(60);

/// How long to wait for a storage that makes no progress. Progress is data, or a response that answers the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitLimit {
    /// The longest time without progress, over all calls and attempts.
    pub total: Duration,
    /// The time between two probes of an unreachable storage.
    pub probe_interval: Duration,
}

impl WaitLimit {
    /// Returns a limit with this total and the usual interval between probes.
    pub fn of(total: Duration) -> Self {
        Self { total, probe_interval: (total / 6).min(Duration::from_secs(10)) }
    }

    /// The time for one response after the total is over, when an attempt only probes the storage.
    fn shortest_answer(self) -> Duration {
        (self.total / 4).min(Duration::from_secs(5))
    }
}

impl Default for WaitLimit {
    fn default() -> Self {
        Self::of(DEFAULT_TOTAL)
    }
}

/// Whether a storage is reachable.
#[derive(Debug, Default)]
pub struct Health {
    limit: WaitLimit,
    state: Mutex<HealthState>,
    /// The health of the server of this container.
    server: Option<Arc<Health>>,
}

#[derive(Debug, Default)]
struct HealthState {
    /// The beginning of the time without progress, if an attempt failed in it.
    since: Option<Instant>,
    last_call_succeeded: bool,
    progress_at: Option<Instant>,
    /// The time of the last response, including "too busy".
    response_at: Option<Instant>,
    /// Calls in a row that failed in all their attempts.
    failures: u32,
    next_probe: Option<Instant>,
    /// When a container that has not failed itself last probed this silent server.
    probed_at: Option<Instant>,
    /// The end of the last pause that is left out of the time without progress.
    paused_until: Option<Instant>,
    last_error: String,
}

/// Whether a call may be sent now.
enum Admission {
    Send,
    Wait,
    /// With the last error.
    GiveUp(String),
}

impl HealthState {
    fn is_over(&self, limit: WaitLimit) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= limit.total)
    }

    fn is_unreachable(&self, limit: WaitLimit) -> bool {
        self.failures >= FAILURES || self.is_over(limit)
    }

    /// No response at all, not even an error, for the total time.
    fn is_silent(&self, limit: WaitLimit) -> bool {
        self.is_over(limit) && self.response_at.is_none_or(|at| at.elapsed() >= limit.total)
    }

    /// Whether a probe is due; if so, schedules the next one.
    fn take_probe(&mut self, limit: WaitLimit) -> bool {
        let now = Instant::now();
        let due = self.next_probe.is_none_or(|next| now >= next);
        if due {
            self.next_probe = Some(now + limit.probe_interval);
        }
        due
    }

    fn admission(&mut self, limit: WaitLimit) -> Admission {
        if !self.is_unreachable(limit) || self.take_probe(limit) {
            return Admission::Send;
        }
        if self.is_over(limit) { Admission::GiveUp(self.last_error.clone()) } else { Admission::Wait }
    }

    /// The admission for a container that has not failed itself. One of these is sent even if the server is silent, because the
    /// silence may be that of a single container. The others wait for its answer, and give up until the next probe if there is none.
    fn admission_without_failures(&mut self, limit: WaitLimit) -> Admission {
        if !self.is_silent(limit) {
            return Admission::Send;
        }
        let probed_at = self.probed_at;
        match probed_at {
            Some(at) if at.elapsed() < limit.shortest_answer() => Admission::Wait,
            Some(_) if !self.take_probe(limit) => Admission::GiveUp(String::new()),
            _ => {
                let now = Instant::now();
                self.probed_at = Some(now);
                self.next_probe = Some(now + limit.shortest_answer() + limit.probe_interval);
                Admission::Send
            }
        }
    }
}

impl Health {
    /// Creates a health with this limit.
    pub fn new(limit: WaitLimit) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Creates the health of one container of a server.
    pub fn of_container(server: Arc<Self>) -> Self {
        Self { limit: server.limit, server: Some(server), ..Self::default() }
    }

    /// Returns the longest time without progress.
    pub(super) fn total_wait(&self) -> Duration {
        self.limit.total
    }

    /// Returns how long to wait for one response. The usual limit grows if the total is longer than the default. It is at most half
    /// of the total, which leaves time for a second attempt, and at most what is left of the total.
    pub(super) fn response_limit(&self, usual: Duration) -> Duration {
        let more = (self.limit.total.as_secs_f64() / DEFAULT_TOTAL.as_secs_f64()).max(1.0);
        usual.mul_f64(more).min(self.limit.total / 2).min(self.left().max(self.limit.shortest_answer()))
    }

    /// Returns what is left of the time without progress.
    pub(super) fn left(&self) -> Duration {
        self.limit.total.saturating_sub(lock(&self.state).since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Waits while the storage is unreachable, until a call may be sent.
    ///
    /// # Errors
    /// [`StorageErrorKind::Unreachable`] after the total time, [`StorageErrorKind::Cancelled`].
    pub(super) fn wait(&self, cancelled: &AtomicBool) -> Result<(), StorageError> {
        loop {
            check_cancelled(cancelled)?;
            match self.admission() {
                Admission::Send => return Ok(()),
                Admission::Wait => std::thread::sleep(CANCEL_POLL.min(self.limit.probe_interval)),
                Admission::GiveUp(why) => return Err(self.give_up(&why)),
            }
        }
    }

    fn admission(&self) -> Admission {
        let mut state = lock(&self.state);
        match &self.server {
            // A container that has not failed itself ignores the failures of others.
            Some(server) if state.since.is_none() && state.failures == 0 => lock(&server.state).admission_without_failures(self.limit),
            Some(server) if !state.is_unreachable(self.limit) => match lock(&server.state).admission(self.limit) {
                // The server's last error may be that of another container.
                Admission::GiveUp(_) => Admission::GiveUp(state.last_error.clone()),
                admission => admission,
            },
            _ => state.admission(self.limit),
        }
    }

    fn give_up(&self, why: &str) -> StorageError {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let text = format!("storage unreachable, giving up after {} s{why}", self.limit.total.as_secs_f64());
        StorageError::new(StorageErrorKind::Unreachable, text)
    }

    /// Returns the error of a failed call: `error`, or that the storage is unreachable if the total time is over.
    pub(super) fn final_error(&self, error: StorageError) -> StorageError {
        let is_over =
            lock(&self.state).is_over(self.limit) || self.server.as_ref().is_some_and(|server| lock(&server.state).is_silent(self.limit));
        if is_over { self.give_up(&error.text) } else { error }
    }

    /// Whether the calls of others have shown that the storage is unreachable, so that another attempt is useless. Does not hold for
    /// a container whose last call succeeded.
    pub(super) fn is_unreachable(&self) -> bool {
        let state = lock(&self.state);
        state.is_unreachable(self.limit)
            || (!state.last_call_succeeded && self.server.as_ref().is_some_and(|server| lock(&server.state).is_unreachable(self.limit)))
    }

    /// Records a transient failure of an attempt that waited this long without progress.
    pub(super) fn attempt_failed(&self, waited: Duration) {
        if let Some(server) = &self.server {
            server.attempt_failed(waited);
        }
        let mut state = lock(&self.state);
        let begun = Instant::now().checked_sub(waited);
        // Progress of other calls counts.
        state.since = state.since.or(begun.max(state.progress_at));
    }

    /// Leaves a pause that ends now, and in which the caller asked the storage nothing, out of the time without progress. Pauses of
    /// several callers at once count once.
    pub(super) fn leave_out_pause(&self, begun: Instant) {
        if let Some(server) = &self.server {
            server.leave_out_pause(begun);
        }
        let mut state = lock(&self.state);
        let now = Instant::now();
        let begun = begun.max(state.paused_until.unwrap_or(begun));
        let moved = |at: Instant| at + now.saturating_duration_since(begun.max(at));
        (state.since, state.progress_at) = (state.since.map(moved), state.progress_at.map(moved));
        state.paused_until = Some(now);
    }

    /// Records a call that failed in all its attempts.
    pub(super) fn call_failed(&self, error: &StorageError) {
        if let Some(server) = &self.server {
            server.call_failed(error);
        }
        let mut state = lock(&self.state);
        state.last_call_succeeded = false;
        state.failures = state.failures.saturating_add(1);
        // Not before the probe that another container may have sent is over.
        state.next_probe = state.next_probe.max(Some(Instant::now() + self.limit.probe_interval));
        state.last_error.clone_from(&error.text);
    }

    /// Records progress.
    pub(super) fn progressed(&self) {
        *lock(&self.state) = HealthState { last_call_succeeded: true, progress_at: Some(Instant::now()), ..HealthState::default() };
        if let Some(server) = &self.server {
            server.progressed();
        }
    }

    /// Records a response, which may be an error.
    pub(super) fn responded(&self) {
        lock(&self.state).response_at = Some(Instant::now());
    }
}
