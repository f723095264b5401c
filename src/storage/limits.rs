//! Limits on the bytes and requests a second that all readers of all storages share, and on the requests at once to each of them.
//!
//! [`RetryingStore`](super::RetryingStore) and Ceph's commands pay for each request before they send it, and for bytes once they have
//! received them. The time that they wait for this is not time without progress: it is in no time-out, and [`Health`] leaves it out.

use std::num::NonZero;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::request_slots::{RequestSlot, RequestSlots};
use super::retry::wait;
use super::{Health, StorageError};
use crate::parallel::lock;

/// The sizes of a single read. Small reads keep every connection in use, because the readers wait in turn.
const SMALLEST_READ: u64 = 4 << 10;
const LARGEST_READ: u64 = 1 << 20;

/// A token bucket. Within any time `t`, the tokens that may be used are at most `rate * t + burst`.
#[derive(Debug)]
struct Bucket {
    rate: NonZero<u64>,
    burst: u64,
    /// When the bucket is full again, if nothing more is taken.
    full_at: Duration,
}

impl Bucket {
    /// Takes tokens, at most a burst. Returns when they may be used: `now`, or later. Times count from any fixed point.
    fn take(&mut self, tokens: u64, now: Duration) -> Duration {
        self.full_at = self.full_at.max(now).saturating_add(self.time(tokens));
        // A nanosecond less, because both times are rounded up.
        let ahead = self.time(self.burst).saturating_sub(Duration::from_nanos(1));
        self.full_at.saturating_sub(ahead).max(now)
    }

    /// How long it takes to fill in these tokens.
    fn time(&self, tokens: u64) -> Duration {
        let nanoseconds = (u128::from(tokens) * 1_000_000_000).div_ceil(u128::from(self.rate.get()));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// A bucket with its clock.
#[derive(Debug)]
struct Limit {
    bucket: Mutex<Bucket>,
    begun: Instant,
}

impl Limit {
    /// The burst is a tenth of a second, but at least `least`.
    fn new(rate: NonZero<u64>, least: u64) -> Self {
        let bucket = Bucket { rate, burst: (rate.get() / 10).max(least), full_at: Duration::ZERO };
        Self { bucket: Mutex::new(bucket), begun: Instant::now() }
    }

    /// Takes tokens and waits until they may be used. Returns how long it waited.
    fn pay(&self, tokens: u64, health: &Health, cancelled: &AtomicBool) -> Result<Duration, StorageError> {
        let (now, ready) = {
            let mut bucket = lock(&self.bucket);
            let now = self.begun.elapsed();
            (now, bucket.take(tokens, now))
        };
        if ready <= now {
            return Ok(Duration::ZERO);
        }
        let begun = Instant::now();
        wait(ready.saturating_sub(now), cancelled)?;
        health.leave_out_pause(begun);
        Ok(begun.elapsed())
    }
}

/// The limits of one check; none by default.
#[derive(Debug, Default)]
pub struct Limits {
    bytes: Option<Arc<Limit>>,
    requests: Option<Arc<Limit>>,
    /// The most bytes to read at once.
    largest_read: Option<usize>,
    /// The most requests at once to each storage.
    parallel: Option<NonZero<u64>>,
    /// The slots of this storage.
    slots: Option<Arc<RequestSlots>>,
}

impl Limits {
    /// Creates limits from bytes and requests a second, and requests at once to each storage.
    pub fn new(bytes: Option<NonZero<u64>>, requests: Option<NonZero<u64>>, parallel: Option<NonZero<u64>>) -> Self {
        let largest_read = |rate: NonZero<u64>| (rate.get() / 64).clamp(SMALLEST_READ, LARGEST_READ);
        Self {
            bytes: bytes.map(|rate| Arc::new(Limit::new(rate, largest_read(rate)))),
            requests: requests.map(|rate| Arc::new(Limit::new(rate, 1))),
            largest_read: bytes.and_then(|rate| usize::try_from(largest_read(rate)).ok()),
            parallel,
            slots: None,
        }
    }

    /// The limits of one storage: the rates are shared with all others, the requests at once are its own.
    #[must_use]
    pub fn for_storage(&self) -> Self {
        let Self { bytes, requests, largest_read, parallel, .. } = self;
        let slots = parallel.map(RequestSlots::new);
        Self { bytes: bytes.clone(), requests: requests.clone(), largest_read: *largest_read, parallel: *parallel, slots }
    }

    /// How many requests at once are worth it for a storage that is worth this many.
    pub(super) fn concurrency(&self, worth: usize) -> usize {
        self.parallel.map_or(worth, |most| worth.min(usize::try_from(most.get()).unwrap_or(worth)))
    }

    /// Waits for the right to have one request open.
    ///
    /// # Errors
    /// As for [`Limits::request`].
    pub(super) fn slot(&self, cancelled: &AtomicBool) -> Result<RequestSlot, StorageError> {
        RequestSlot::take(self.slots.as_ref(), cancelled)
    }

    /// Returns the part of a buffer that may be filled by one read.
    pub(super) fn part<'b>(&self, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let most = self.largest_read.unwrap_or(usize::MAX).min(buffer.len());
        buffer.split_at_mut(most).0
    }

    /// Waits until another request may be sent. Returns how long.
    ///
    /// # Errors
    /// [`StorageErrorKind::Cancelled`](super::StorageErrorKind::Cancelled).
    pub(super) fn request(&self, health: &Health, cancelled: &AtomicBool) -> Result<Duration, StorageError> {
        self.requests.as_ref().map_or(Ok(Duration::ZERO), |limit| limit.pay(1, health, cancelled))
    }

    /// Pays for the bytes of a read of a [`Limits::part`], and waits until they may be used.
    ///
    /// # Errors
    /// As for [`Limits::request`].
    pub(super) fn received(&self, bytes: usize, health: &Health, cancelled: &AtomicBool) -> Result<(), StorageError> {
        self.bytes.as_ref().map_or(Ok(()), |limit| limit.pay(bytes as u64, health, cancelled).map(drop))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::{MemoryStore, ObjectStore, RetryPolicy, RetryingStore, StorageErrorKind, WaitLimit, conformance};

    proptest! {
        #[test]
        fn no_window_has_more_than_its_rate_and_one_burst(
            rate in 1_u64..5_000_000_000,
            burst in 1_u64..100_000_000,
            takes in prop::collection::vec((0.0_f64..=1.0, 0_u64..3_000_000_000), 1..60),
        ) {
            let mut bucket = Bucket { rate: NonZero::new(rate).unwrap(), burst, full_at: Duration::ZERO };
            let mut now = Duration::ZERO;
            let used: Vec<(Duration, u64)> = takes
                .iter()
                .map(|(part, pause)| {
                    now += Duration::from_nanos(*pause);
                    let tokens = ((burst as f64 * part) as u64).min(burst);
                    (bucket.take(tokens, now), tokens)
                })
                .collect();
            prop_assert!(used.is_sorted_by_key(|(at, _)| *at), "in order of arrival");
            for first in 0..used.len() {
                let mut sum = 0_u128;
                for (at, tokens) in &used[first..] {
                    sum += u128::from(*tokens);
                    let window = (*at - used[first].0).as_nanos();
                    let most = u128::from(rate) * window / 1_000_000_000 + u128::from(burst) + 1;
                    prop_assert!(sum <= most, "{sum} in {window} ns");
                }
            }
        }

        #[test]
        fn a_bucket_that_is_full_makes_nobody_wait(rate in 1_u64..5_000_000_000, burst in 1_u64..100_000_000) {
            let mut bucket = Bucket { rate: NonZero::new(rate).unwrap(), burst, full_at: Duration::ZERO };
            let later = Duration::from_secs(200_000_000);
            prop_assert!(bucket.take(burst, Duration::ZERO) <= Duration::from_nanos(1));
            prop_assert!(bucket.take(burst, later) <= later + Duration::from_nanos(1));
        }
    }

    fn limited(limits: Limits, health: Health) -> (RetryingStore<MemoryStore>, Arc<AtomicBool>) {
        let mut store = MemoryStore::default();
        for (name, bytes) in conformance::content(true) {
            store.put(name, bytes, None);
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let store = RetryingStore::new(store, RetryPolicy::default(), Arc::clone(&cancelled), Arc::new(health), Arc::new(limits));
        (store, cancelled)
    }

    #[test]
    fn a_limited_store_conforms() {
        let limits = Limits::new(NonZero::new(500 << 20), NonZero::new(20_000), NonZero::new(1));
        let (store, _) = limited(limits.for_storage(), Health::default());
        conformance::check(&store, true);
    }

    #[test]
    fn all_readers_share_the_rate() {
        const RATE: u64 = 4 << 20;
        let (store, _) = limited(Limits::new(NonZero::new(RATE), None, None), Health::default());
        let begun = Instant::now();
        let read = |_| {
            let mut bytes = Vec::new();
            store.open("large", None).unwrap().read_to_end(&mut bytes).unwrap();
            bytes.len() as u64
        };
        let bytes: u64 = thread::scope(|scope| {
            let readers: Vec<_> = (0..4).map(|number| scope.spawn(move || read(number))).collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).sum()
        });
        assert_eq!(bytes, 4_800_000);
        let most = begun.elapsed().as_secs_f64() * RATE as f64 + RATE as f64 / 10.0;
        assert!(bytes as f64 <= most, "{bytes} of {most}");
    }

    #[test]
    fn every_request_and_every_page_of_a_listing_counts() {
        let (store, _) = limited(Limits::new(None, NonZero::new(10), None), Health::default());
        let begun = Instant::now();
        let mut listed = 0;
        store
            .list("many-", &mut |_| {
                listed += 1;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(listed, 1500);
        store.stat("large").unwrap();
        store.open("large", None).unwrap();
        // Four requests, the first at once.
        assert!(begun.elapsed() >= Duration::from_millis(299), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_reader_that_waits_is_stopped() {
        let (store, cancelled) = limited(Limits::new(NonZero::new(1), NonZero::new(1), None), Health::default());
        thread::scope(|scope| {
            let waits = scope.spawn(|| store.open("large", None).unwrap().read_to_end(&mut Vec::new()).unwrap_err());
            thread::sleep(Duration::from_millis(100));
            assert!(!waits.is_finished());
            cancelled.store(true, Ordering::Relaxed);
            assert_eq!(StorageError::of_io(&waits.join().unwrap()).unwrap().kind, StorageErrorKind::Cancelled);
        });
    }

    #[test]
    fn the_pause_is_not_time_without_progress() {
        let health = Health::new(WaitLimit::of(Duration::from_millis(700)));
        health.attempt_failed(Duration::ZERO);
        let limit = Limit::new(NonZero::new(4).unwrap(), 1);
        // The pauses overlap and count once.
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| limit.pay(1, &health, &AtomicBool::new(false)).unwrap()))));
        assert!(health.left() > Duration::ZERO, "750 ms of pauses");
        // Without a pause, the time counts.
        thread::sleep(Duration::from_millis(800));
        assert_eq!(health.left(), Duration::ZERO);
    }
}
