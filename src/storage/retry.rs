//! A layer over any store that tries again what may go through later, and stops when the person asks to.
//!
//! [`StorageErrorKind::Transient`] is retried, and [`StorageErrorKind::Media`] once. The number of attempts is always bounded. If call
//! after call fails, [`Health`] bounds the time that all of them take together; no single call goes on for longer without anything
//! useful either.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Health, ObjectInfo, ObjectStore, StorageError, StorageErrorKind};
use crate::backoff::Backoff;

/// How often it is looked whether the person asked to stop.
pub(super) const GLANCE: Duration = Duration::from_millis(50);
/// After so many bytes of a stream the attempts are counted anew...
const STREAM_PROGRESS: u64 = 16 * 1024 * 1024;
/// ... and after so many new objects of a listing.
const LIST_PROGRESS: usize = 1000;
/// How many new objects of a listing prove that the storage is reachable.
const LIST_ANSWER: usize = 256;
/// So much of a stream, or all of it, shows that the storage is not away; a beginning alone does not, for each object might
/// stall behind it.
const ANSWER: u64 = 64 * 1024;

/// Attempts after a disk's read error: one more only, because each may take half a minute.
const MEDIA_ATTEMPTS: u32 = 2;

/// How often and after how long something is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; 0 is taken for 1.
    pub attempts: u32,
    /// The pauses between attempts, with jitter. None is longer than the longest, even if the server asks for more.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    /// Five attempts over about 15 s.
    fn default() -> Self {
        Self { attempts: 5, backoff: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) } }
    }
}

/// Counts the failures of a call.
#[derive(Debug)]
struct Tries {
    policy: RetryPolicy,
    failed: u32,
    /// How long the call has waited for the storage since something useful came.
    waited: Duration,
    /// No call waits longer.
    most: Duration,
}

impl Tries {
    fn new(policy: RetryPolicy, most: Duration) -> Self {
        Self { policy, failed: 0, waited: Duration::ZERO, most }
    }

    /// Asks the storage, and counts the time that it takes.
    fn ask<T>(&mut self, ask: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let answer = ask();
        self.waited += begun.elapsed();
        answer
    }

    /// Waits until it is time for another attempt; the error itself where there is to be none.
    fn after(&mut self, error: StorageError, cancelled: &AtomicBool) -> Result<(), StorageError> {
        let attempts = match error.kind {
            StorageErrorKind::Transient => self.policy.attempts,
            StorageErrorKind::Media => self.policy.attempts.min(MEDIA_ATTEMPTS),
            _ => return Err(error),
        };
        self.failed = self.failed.saturating_add(1);
        let left = self.most.saturating_sub(self.waited);
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

pub(super) fn look(cancelled: &AtomicBool) -> Result<(), StorageError> {
    if cancelled.load(Ordering::Relaxed) {
        return Err(StorageError::new(StorageErrorKind::Cancelled, "stopped on request"));
    }
    Ok(())
}

fn wait(time: Duration, cancelled: &AtomicBool) -> Result<(), StorageError> {
    let begun = Instant::now();
    loop {
        look(cancelled)?;
        match time.checked_sub(begun.elapsed()) {
            None | Some(Duration::ZERO) => return Ok(()),
            Some(left) => std::thread::sleep(left.min(GLANCE)),
        }
    }
}

/// A store whose passing troubles are waited out.
#[derive(Debug)]
pub struct Retrying<S> {
    store: S,
    policy: RetryPolicy,
    cancelled: Arc<AtomicBool>,
    health: Arc<Health>,
}

impl<S: ObjectStore> Retrying<S> {
    /// The layer over `store`. Raising `cancelled` makes every method and stream end with
    /// [`StorageErrorKind::Cancelled`], as soon as the store under it comes back.
    pub fn new(store: S, policy: RetryPolicy, cancelled: Arc<AtomicBool>) -> Self {
        Self { store, policy, cancelled, health: Arc::default() }
    }

    /// With what is known of its storage already.
    pub fn with_health(self, health: Arc<Health>) -> Self {
        Self { health, ..self }
    }

    fn tries(&self) -> Tries {
        Tries::new(self.policy, self.health.patience())
    }

    /// Waits until it is time for another attempt, as [`Tries::after`] does.
    fn after(&self, tries: &mut Tries, error: StorageError) -> Result<(), StorageError> {
        let transient = error.is_transient();
        if transient {
            self.health.stumbled(tries.waited);
            if self.health.is_away() {
                self.health.failed(&error);
                return Err(self.health.last_words(error));
            }
        }
        tries.after(error, &self.cancelled).inspect_err(|error| match error.kind {
            StorageErrorKind::Cancelled => {}
            _ if transient => self.health.failed(error),
            _ => self.health.answered(),
        })
    }
}

impl<S: ObjectStore> ObjectStore for Retrying<S> {
    fn location(&self) -> &str {
        self.store.location()
    }

    fn concurrency(&self) -> usize {
        self.store.concurrency()
    }

    /// A listing that breaks off begins again from the start, whatever its order; what was given already is passed over.
    /// For that 16 bytes an object are kept, and an object that the store gives twice is given once.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        // Two digests of 64 bits with keys of their own: nobody can make two names look the same.
        let (first, second) = (RandomState::new(), RandomState::new());
        let mut given = HashSet::new();
        let mut tries = self.tries();
        let mut given_at_failure = 0;
        self.health.wait(&self.cancelled)?;
        loop {
            look(&self.cancelled)?;
            let mut stopped = None;
            let mut asked = Instant::now();
            let listed = self.store.list(prefix, &mut |info| {
                if let Err(error) = look(&self.cancelled) {
                    stopped = Some(error);
                    return ControlFlow::Break(());
                }
                if !given.insert((first.hash_one(&info.name), second.hash_one(&info.name))) {
                    return ControlFlow::Continue(());
                }
                if given.len() % LIST_ANSWER == 1 {
                    self.health.answered();
                }
                let flow = each(info);
                (tries.waited, asked) = (Duration::ZERO, Instant::now());
                flow
            });
            tries.waited += asked.elapsed();
            match (stopped, listed) {
                (Some(error), _) => return Err(error),
                (None, Ok(())) => {
                    self.health.answered();
                    return Ok(());
                }
                (None, Err(error)) => {
                    if given.len() >= LIST_PROGRESS.saturating_add(given_at_failure) {
                        tries.failed = 0;
                    }
                    given_at_failure = given.len();
                    self.after(&mut tries, error)?;
                }
            }
        }
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        let mut tries = self.tries();
        self.health.wait(&self.cancelled)?;
        loop {
            look(&self.cancelled)?;
            match tries.ask(|| self.store.stat(name)) {
                Ok(found) => {
                    self.health.answered();
                    return Ok(found);
                }
                Err(error) => self.after(&mut tries, error)?,
            }
        }
    }

    /// A stream that breaks off is opened again where it was, as a range.
    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        let mut tries = self.tries();
        self.health.wait(&self.cancelled)?;
        let inner = loop {
            look(&self.cancelled)?;
            match tries.ask(|| self.store.open(name, range.clone())) {
                Ok(inner) => break inner,
                Err(error) => self.after(&mut tries, error)?,
            }
        };
        Ok(Box::new(Resuming { layer: self, name: name.to_owned(), range, at: 0, inner: Some(inner), tries, at_answer: 0, at_failure: 0 }))
    }
}

/// A stream that goes on where it broke off.
struct Resuming<'a, S> {
    layer: &'a Retrying<S>,
    name: String,
    range: Option<Range<u64>>,
    /// Bytes given.
    at: u64,
    /// `None` after a failure, until it is opened again.
    inner: Option<Box<dyn Read + Send + 'a>>,
    tries: Tries,
    /// Bytes given when that was last counted as an answer.
    at_answer: u64,
    /// Bytes given when it failed last.
    at_failure: u64,
}

impl<S: ObjectStore> Resuming<'_, S> {
    /// What is still to come.
    fn rest(&self) -> Option<Range<u64>> {
        match &self.range {
            None if self.at == 0 => None,
            None => Some(self.at..u64::MAX),
            Some(range) => Some(range.start.saturating_add(self.at).min(range.end)..range.end),
        }
    }

    fn after(&mut self, error: StorageError) -> Result<(), StorageError> {
        if self.at >= STREAM_PROGRESS.saturating_add(self.at_failure) {
            self.tries.failed = 0;
        }
        self.at_failure = self.at;
        let layer = self.layer;
        layer.after(&mut self.tries, error)
    }
}

impl<S: ObjectStore> Read for Resuming<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            look(&self.layer.cancelled).map_err(StorageError::into_io)?;
            let layer = self.layer;
            let rest = self.rest();
            let failed = match &mut self.inner {
                Some(inner) => match self.tries.ask(|| inner.read(out)) {
                    Ok(read) => {
                        self.at = self.at.saturating_add(read as u64);
                        if read == 0 || self.at >= self.at_answer.saturating_add(ANSWER) {
                            (self.at_answer, self.tries.waited) = (self.at, Duration::ZERO);
                            layer.health.answered();
                        }
                        return Ok(read);
                    }
                    Err(error) => match StorageError::of_io(&error) {
                        Some(known) if matches!(known.kind, StorageErrorKind::Transient | StorageErrorKind::Media) => known.clone(),
                        _ => return Err(error),
                    },
                },
                None => match self.tries.ask(|| layer.store.open(&self.name, rest)) {
                    Ok(inner) => {
                        self.inner = Some(inner);
                        continue;
                    }
                    Err(error) => error,
                },
            };
            self.inner = None;
            self.after(failed).map_err(StorageError::into_io)?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
