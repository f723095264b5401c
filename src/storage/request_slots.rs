//! Slots for requests: how many may be open at one storage at once, over all its readers.
//!
//! A stream keeps its slot between two reads, so that a server has no more streams open than there are slots. A stream that is not
//! read for [`IDLE`] gives way, because its reader may itself be waiting for another request. For the same reason a thread never waits
//! for its own stream. Requests get slots in order of arrival.

use std::collections::{HashMap, VecDeque};
use std::num::NonZero;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::StorageError;
use super::retry::{CANCEL_POLL, check_cancelled};
use crate::parallel::lock;

/// A stream that is not read for this long gives way to another request. To decompress and hash a piece takes less.
const IDLE: Duration = CANCEL_POLL;

/// The slots of one storage.
#[derive(Debug)]
pub(super) struct RequestSlots {
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next request.
    next: u64,
    /// Requests that wait for a slot.
    waiting: VecDeque<u64>,
    /// Requests that have one.
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    thread: ThreadId,
    /// When its stream was last read, unless a read is running.
    idle_since: Option<Instant>,
}

impl RequestSlots {
    pub(super) fn new(most: NonZero<u64>) -> Arc<Self> {
        let most = usize::try_from(most.get()).unwrap_or(usize::MAX);
        Arc::new(Self { most, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Waits for a slot. Returns whether it had to.
    fn wait(&self, number: u64, cancelled: &AtomicBool) -> Result<bool, StorageError> {
        let thread = thread::current().id();
        let mut state = lock(&self.state);
        state.waiting.push_back(number);
        let mut waited = false;
        loop {
            let stopped = check_cancelled(cancelled);
            let gives_way = state.gives_way(thread, self.most);
            let has_room = gives_way.is_some() || state.open.len() < self.most;
            let is_next = has_room && state.waiting.front() == Some(&number);
            if stopped.is_err() || is_next || gives_way.is_some_and(|(_, is_own)| is_own) {
                state.waiting.retain(|other| *other != number);
                if stopped.is_ok() {
                    gives_way.map(|(other, _)| state.open.remove(&other));
                    state.open.insert(number, Open { thread, idle_since: None });
                }
                self.changed.notify_all();
                return stopped.map(|()| waited);
            }
            waited = true;
            state = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// The stream that gives way if all slots are taken, and whether this thread opened it.
    fn gives_way(&self, thread: ThreadId, most: usize) -> Option<(u64, bool)> {
        if self.open.len() < most {
            return None;
        }
        let idle = self.open.iter().filter_map(|(number, open)| Some((*number, open.thread == thread, open.idle_since?.elapsed())));
        let idle = idle.filter(|(_, is_own, time)| *is_own || *time >= IDLE);
        idle.max_by_key(|(_, is_own, time)| (*is_own, *time)).map(|(number, is_own, _)| (number, is_own))
    }
}

/// The right to have one request open.
#[derive(Debug, Default)]
pub(super) struct RequestSlot {
    /// Without slots there is no limit.
    slots: Option<(Arc<RequestSlots>, u64)>,
    pub(super) waited: bool,
}

impl RequestSlot {
    /// Waits for a slot.
    ///
    /// # Errors
    /// [`StorageErrorKind::Cancelled`](super::StorageErrorKind::Cancelled).
    pub(super) fn take(slots: Option<&Arc<RequestSlots>>, cancelled: &AtomicBool) -> Result<Self, StorageError> {
        let Some(slots) = slots else { return Ok(Self::default()) };
        let number = {
            let mut state = lock(&slots.state);
            state.next += 1;
            state.next
        };
        let waited = slots.wait(number, cancelled)?;
        Ok(Self { slots: Some((Arc::clone(slots), number)), waited })
    }

    /// Says that nothing is read until [`RequestSlot::resume`].
    pub(super) fn pause(&self) {
        if let Some((slots, number)) = &self.slots
            && let Some(open) = lock(&slots.state).open.get_mut(number)
        {
            open.idle_since = Some(Instant::now());
        }
    }

    /// Waits for a slot again if the stream gave way.
    ///
    /// # Errors
    /// As for [`RequestSlot::take`].
    pub(super) fn resume(&self, cancelled: &AtomicBool) -> Result<(), StorageError> {
        let Some((slots, number)) = &self.slots else { return Ok(()) };
        if let Some(open) = lock(&slots.state).open.get_mut(number) {
            *open = Open { thread: thread::current().id(), idle_since: None };
            return Ok(());
        }
        slots.wait(*number, cancelled).map(drop)
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        if let Some((slots, number)) = &self.slots {
            lock(&slots.state).open.remove(number);
            slots.changed.notify_all();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::storage::StorageErrorKind;

    static GO: AtomicBool = AtomicBool::new(false);

    fn slots(most: u64) -> Arc<RequestSlots> {
        RequestSlots::new(NonZero::new(most).unwrap())
    }

    fn take(slots: &Arc<RequestSlots>) -> RequestSlot {
        RequestSlot::take(Some(slots), &GO).unwrap()
    }

    #[test]
    fn no_more_requests_are_open_than_there_are_slots() {
        let slots = slots(3);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let slot = take(&slots);
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(1));
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 3);
        let state = lock(&slots.state);
        assert!(state.open.is_empty() && state.waiting.is_empty());
    }

    #[test]
    fn requests_get_slots_in_order_of_arrival() {
        let slots = slots(1);
        let first = take(&slots);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for number in 0..5 {
                let (sender, slots) = (sender.clone(), &slots);
                scope.spawn(move || {
                    let _slot = take(slots);
                    sender.send(number).unwrap();
                });
                while lock(&slots.state).waiting.len() <= number {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_stream_that_is_not_read_gives_way_and_waits_for_its_turn_again() {
        let slots = slots(1);
        let stream = take(&slots);
        stream.pause();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let other = take(&slots);
                sender.send(()).unwrap();
                thread::sleep(Duration::from_millis(100));
                sender.send(()).unwrap();
                drop(other);
            });
            receiver.recv().unwrap();
            stream.resume(&GO).unwrap();
            assert_eq!(receiver.try_recv(), Ok(()), "it waited");
        });
    }

    #[test]
    fn a_stream_that_is_read_keeps_its_slot() {
        let slots = slots(1);
        let stream = take(&slots);
        thread::scope(|scope| {
            let other = scope.spawn(|| drop(take(&slots)));
            thread::sleep(3 * IDLE);
            assert!(!other.is_finished());
            drop(stream);
        });
    }

    #[test]
    fn a_thread_reads_two_streams_in_turn_without_waiting_for_itself() {
        let slots = slots(1);
        let begun = Instant::now();
        let first = take(&slots);
        first.pause();
        let second = take(&slots);
        second.pause();
        let streams = [first, second];
        for stream in streams.iter().cycle().take(200) {
            stream.resume(&GO).unwrap();
            assert_eq!(lock(&slots.state).open.len(), 1);
            stream.pause();
        }
        assert!(begun.elapsed() < 50 * IDLE, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_request_that_waits_is_stopped() {
        let slots = slots(1);
        let _first = take(&slots);
        let cancelled = AtomicBool::new(false);
        thread::scope(|scope| {
            let waits = scope.spawn(|| RequestSlot::take(Some(&slots), &cancelled).unwrap_err());
            thread::sleep(Duration::from_millis(20));
            cancelled.store(true, Ordering::Relaxed);
            assert_eq!(waits.join().unwrap().kind, StorageErrorKind::Cancelled);
        });
        assert!(lock(&slots.state).waiting.is_empty());
    }
}
