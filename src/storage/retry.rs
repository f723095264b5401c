//! A layer over any store that retries after transient errors, keeps to [`Limits`] and stops on request.
//!
//! [`StorageErrorKind::Transient`] is retried, and [`StorageErrorKind::Media`] once. The number of attempts is always bounded.
//! [`Health`] bounds the time without progress, for a single call and for all calls together.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::request_slots::RequestSlot;
use super::{Health, Limits, ListedPage, ObjectInfo, ObjectStore, StorageError, StorageErrorKind};
use crate::backoff::Backoff;

/// The longest pause before the next check whether the operator asked to stop.
pub(super) const CANCEL_POLL: Duration = Duration::from_millis(50);
/// After this number of bytes of a stream the attempts are counted from zero again...
const STREAM_PROGRESS: u64 = 16 * 1024 * 1024;
/// ... and after this number of new objects of a listing.
const LIST_PROGRESS: usize = 1000;
/// The number of new objects of a listing that proves that the storage is reachable.
const LIST_PROOF: usize = 256;
/// The number of objects of a listing that count as one request: a page of most servers.
const LISTED_AT_ONCE: usize = 1000;
/// The number of bytes of a stream that proves that the storage is reachable. Less is a proof only at the end of the object, because
/// every object may stall after its first bytes.
const STREAM_PROOF: u64 = 64 * 1024;

/// Attempts if a disk reports a read error. Only two, because each may take half a minute.
const MEDIA_ATTEMPTS: u32 = 2;

/// The number of attempts, and the pauses between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// All attempts including the first; 0 means 1.
    pub attempts: u32,
    /// The pauses between attempts, with jitter. `longest` also limits the pause that a server asks for.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    /// Five attempts over about 15 s.
    fn default() -> Self {
        Self { attempts: 5, backoff: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) } }
    }
}

/// The attempts of one call.
#[derive(Debug)]
struct Attempts {
    policy: RetryPolicy,
    failed: u32,
    /// The time without progress.
    waited: Duration,
    /// The limit of `waited`.
    longest_wait: Duration,
}

impl Attempts {
    fn new(policy: RetryPolicy, longest_wait: Duration) -> Self {
        Self { policy, failed: 0, waited: Duration::ZERO, longest_wait }
    }

    /// Calls the storage and adds the time that it takes.
    fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let answer = call();
        self.waited += begun.elapsed();
        answer
    }

    /// Pauses before the next attempt, or returns the error if there must be none.
    fn pause_after(&mut self, error: StorageError, cancelled: &AtomicBool) -> Result<(), StorageError> {
        let attempts = match error.kind {
            StorageErrorKind::Transient => self.policy.attempts,
            StorageErrorKind::Media => self.policy.attempts.min(MEDIA_ATTEMPTS),
            _ => return Err(error),
        };
        self.failed = self.failed.saturating_add(1);
        let left = self.longest_wait.saturating_sub(self.waited);
        if self.failed >= attempts || left.is_zero() {
            let text = match self.failed {
                1 => error.text,
                failed => format!("{} ({failed} attempts)", error.text),
            };
            return Err(StorageError { text, ..error });
        }
        let backoff = self.policy.backoff;
        let asked = error.retry_after.map_or(Duration::ZERO, Duration::from_secs).min(backoff.longest);
        let pause = backoff.jittered(self.failed).max(asked).min(left);
        self.waited += pause;
        wait(pause, cancelled)
    }
}

pub(super) fn check_cancelled(cancelled: &AtomicBool) -> Result<(), StorageError> {
    if cancelled.load(Ordering::Relaxed) {
        return Err(StorageError::new(StorageErrorKind::Cancelled, "stopped on request"));
    }
    Ok(())
}

pub(super) fn wait(time: Duration, cancelled: &AtomicBool) -> Result<(), StorageError> {
    let begun = Instant::now();
    loop {
        check_cancelled(cancelled)?;
        match time.checked_sub(begun.elapsed()) {
            None | Some(Duration::ZERO) => return Ok(()),
            Some(left) => std::thread::sleep(left.min(CANCEL_POLL)),
        }
    }
}

/// A store that retries after transient errors.
#[derive(Debug)]
pub struct RetryingStore<S> {
    store: S,
    policy: RetryPolicy,
    cancelled: Arc<AtomicBool>,
    health: Arc<Health>,
    limits: Arc<Limits>,
}

impl<S: ObjectStore> RetryingStore<S> {
    /// Adds the layer to `store`. Once `cancelled` is set, every method and stream ends with [`StorageErrorKind::Cancelled`], as soon
    /// as the store below returns. Other stores may share `health` and `limits`.
    pub fn new(store: S, policy: RetryPolicy, cancelled: Arc<AtomicBool>, health: Arc<Health>, limits: Arc<Limits>) -> Self {
        Self { store, policy, cancelled, health, limits }
    }

    /// Waits until another request may be sent.
    fn await_request(&self) -> Result<Duration, StorageError> {
        check_cancelled(&self.cancelled)?;
        self.limits.request(&self.health, &self.cancelled)
    }

    /// Waits while the storage is unreachable, and for a slot. If others found it unreachable meanwhile, it waits again.
    fn await_slot(&self) -> Result<RequestSlot, StorageError> {
        loop {
            self.health.wait(&self.cancelled)?;
            let slot = self.limits.slot(&self.cancelled)?;
            if !slot.waited || !self.health.is_unreachable() {
                return Ok(slot);
            }
        }
    }

    fn new_attempts(&self) -> Attempts {
        Attempts::new(self.policy, self.health.total_wait())
    }

    /// Calls the storage until it succeeds or no attempt is left. Returns the answer with its slot.
    fn call<T>(&self, attempts: &mut Attempts, call: impl Fn() -> Result<T, StorageError>) -> Result<(T, RequestSlot), StorageError> {
        let slot = self.await_slot()?;
        loop {
            slot.resume(&self.cancelled)?;
            self.await_request()?;
            let answer = attempts.time(&call);
            slot.pause();
            match answer {
                Ok(answer) => return Ok((answer, slot)),
                Err(error) => self.pause_after(attempts, error)?,
            }
        }
    }

    /// Records the failure and pauses as [`Attempts::pause_after`] does.
    fn pause_after(&self, attempts: &mut Attempts, error: StorageError) -> Result<(), StorageError> {
        let transient = error.is_transient();
        if transient {
            self.health.attempt_failed(attempts.waited);
            if self.health.is_unreachable() {
                self.health.call_failed(&error);
                return Err(self.health.final_error(error));
            }
        }
        attempts.pause_after(error, &self.cancelled).inspect_err(|error| match error.kind {
            StorageErrorKind::Cancelled => {}
            _ if transient => self.health.call_failed(error),
            _ => self.health.progressed(),
        })
    }
}

impl<S: ObjectStore> ObjectStore for RetryingStore<S> {
    fn location(&self) -> &str {
        self.store.location()
    }

    fn address(&self) -> &str {
        self.store.address()
    }

    fn concurrency(&self) -> usize {
        self.limits.concurrency(self.store.concurrency())
    }

    /// A listing that breaks off starts again, and the objects that were already passed on are skipped. This takes 16 bytes of memory
    /// for each object. An object that the store lists twice is passed on once.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        // Two 64-bit digests with random keys, so that no one can construct two names with the same digests.
        let (first, second) = (RandomState::new(), RandomState::new());
        let mut given = HashSet::new();
        let mut attempts = self.new_attempts();
        let mut given_at_failure = 0;
        let slot = self.await_slot()?;
        loop {
            slot.resume(&self.cancelled)?;
            self.await_request()?;
            let (mut stopped, mut listed_now) = (None, 0);
            let mut asked = Instant::now();
            let listed = self.store.list(prefix, &mut |info| {
                listed_now += 1;
                let is_next_page = listed_now > 1 && listed_now % LISTED_AT_ONCE == 1;
                match if is_next_page { self.await_request() } else { check_cancelled(&self.cancelled).map(|()| Duration::ZERO) } {
                    Ok(waited) => asked += waited,
                    Err(error) => {
                        stopped = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                if !given.insert((first.hash_one(&info.name), second.hash_one(&info.name))) {
                    return ControlFlow::Continue(());
                }
                if given.len() % LIST_PROOF == 1 {
                    self.health.progressed();
                }
                let flow = each(info);
                (attempts.waited, asked) = (Duration::ZERO, Instant::now());
                flow
            });
            attempts.waited += asked.elapsed();
            slot.pause();
            match (stopped, listed) {
                (Some(error), _) => return Err(error),
                (None, Ok(())) => {
                    self.health.progressed();
                    return Ok(());
                }
                (None, Err(error)) => {
                    if given.len() >= LIST_PROGRESS.saturating_add(given_at_failure) {
                        attempts.failed = 0;
                    }
                    given_at_failure = given.len();
                    self.pause_after(&mut attempts, error)?;
                }
            }
        }
    }

    fn list_page(&self, after: &str) -> Result<Option<ListedPage>, StorageError> {
        let (page, _) = self.call(&mut self.new_attempts(), || self.store.list_page(after))?;
        self.health.progressed();
        // As in a listing.
        for _ in 1..page.as_ref().map_or(0, |page| page.objects.len().div_ceil(LISTED_AT_ONCE)) {
            self.await_request()?;
        }
        Ok(page)
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        let (found, _) = self.call(&mut self.new_attempts(), || self.store.stat(name))?;
        self.health.progressed();
        Ok(found)
    }

    /// A stream that breaks off is opened again with the range of the missing bytes.
    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        let mut attempts = self.new_attempts();
        let (inner, slot) = self.call(&mut attempts, || self.store.open(name, range.clone()))?;
        Ok(Box::new(ResumingReader {
            layer: self,
            name: name.to_owned(),
            range,
            at: 0,
            inner: Some(inner),
            slot,
            attempts,
            at_proof: 0,
            at_failure: 0,
        }))
    }
}

/// A stream that continues where it broke off.
struct ResumingReader<'a, S> {
    layer: &'a RetryingStore<S>,
    name: String,
    range: Option<Range<u64>>,
    /// Bytes returned so far.
    at: u64,
    /// `None` after a failure, until the object is opened again.
    inner: Option<Box<dyn Read + Send + 'a>>,
    slot: RequestSlot,
    attempts: Attempts,
    /// The value of `at` when progress was last recorded.
    at_proof: u64,
    /// The value of `at` at the last failure.
    at_failure: u64,
}

impl<S: ObjectStore> ResumingReader<'_, S> {
    /// The range that is still missing.
    fn rest(&self) -> Option<Range<u64>> {
        match &self.range {
            None if self.at == 0 => None,
            None => Some(self.at..u64::MAX),
            Some(range) => Some(range.start.saturating_add(self.at).min(range.end)..range.end),
        }
    }
}

impl<S: ObjectStore> Read for ResumingReader<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.read_on(out);
        self.slot.pause();
        read
    }
}

impl<S: ObjectStore> ResumingReader<'_, S> {
    /// Reads, and opens the object again as often as necessary.
    fn read_on(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let layer = self.layer;
        loop {
            check_cancelled(&layer.cancelled).and_then(|()| self.slot.resume(&layer.cancelled)).map_err(StorageError::into_io)?;
            let rest = self.rest();
            let out = layer.limits.part(out);
            let failed = match &mut self.inner {
                Some(inner) => match self.attempts.time(|| inner.read(out)) {
                    Ok(read) => {
                        self.at = self.at.saturating_add(read as u64);
                        if read == 0 || self.at >= self.at_proof.saturating_add(STREAM_PROOF) {
                            (self.at_proof, self.attempts.waited) = (self.at, Duration::ZERO);
                            layer.health.progressed();
                        }
                        layer.limits.received(read, &layer.health, &layer.cancelled).map_err(StorageError::into_io)?;
                        return Ok(read);
                    }
                    Err(error) => match StorageError::of_io(&error) {
                        Some(known) if matches!(known.kind, StorageErrorKind::Transient | StorageErrorKind::Media) => known.clone(),
                        _ => return Err(error),
                    },
                },
                None => {
                    layer.await_request().map_err(StorageError::into_io)?;
                    match self.attempts.time(|| layer.store.open(&self.name, rest)) {
                        Ok(inner) => {
                            self.inner = Some(inner);
                            continue;
                        }
                        Err(error) => error,
                    }
                }
            };
            self.inner = None;
            if self.at >= STREAM_PROGRESS.saturating_add(self.at_failure) {
                self.attempts.failed = 0;
            }
            self.at_failure = self.at;
            self.slot.pause();
            layer.pause_after(&mut self.attempts, failed).map_err(StorageError::into_io)?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
