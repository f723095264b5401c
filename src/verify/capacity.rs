//! Memory and read slots, which all checks share. Each driver has a limited number of slots.
//!
//! The pass that began first reads first. So a large backup gets all slots, slots that small backups do not use go to the next
//! one, and a check that is cut off leaves few backups half read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::domain::Driver;

/// Bytes that one slot may need: its buffer, a decompressor's window, the digests that wait for it.
pub(super) const MEMORY_PER_SLOT: u64 = 24 << 20;

/// What all checks share.
#[derive(Debug)]
pub struct Capacity {
    memory: u64,
    state: Mutex<State>,
    memory_freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many passes have arrived, and how many of them have begun, in order of arrival.
    arrived: u64,
    begun: u64,
    memory_in_use: u64,
    reading: HashMap<Driver, usize>,
    /// Passes that wait for a slot, in order of arrival.
    waiting: BTreeMap<u64, Waiting>,
    buffers: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Waiting {
    driver: Driver,
    most: usize,
    threads: usize,
    wake: Arc<Condvar>,
}

impl Capacity {
    /// With this many bytes of memory for the data.
    pub fn new(memory: u64) -> Self {
        Self { memory, state: Mutex::default(), memory_freed: Condvar::new() }
    }

    /// How many slots the memory allows.
    pub fn slots(&self) -> usize {
        usize::try_from(self.memory / MEMORY_PER_SLOT).unwrap_or(usize::MAX).max(1)
    }

    /// Admits a pass over data of a driver that allows `most` slots at once; the pass itself holds `bytes`. Waits for that memory in
    /// order of arrival. A pass that needs more than all memory gets all of it.
    pub fn admit(&self, driver: Driver, most: usize, bytes: u64) -> Admission<'_> {
        let bytes = bytes.min(self.memory);
        let mut state = self.state();
        let number = state.arrived;
        state.arrived += 1;
        while state.begun != number || state.memory_in_use + bytes > self.memory {
            state = self.memory_freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.begun += 1;
        state.memory_in_use += bytes;
        drop(state);
        self.memory_freed.notify_all();
        Admission { capacity: self, number, driver, most: most.clamp(1, self.slots()), bytes, wake: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, state: &State, driver: Driver, most: usize) -> bool {
        state.reading.get(&driver).is_none_or(|reading| *reading < most) && state.reading.values().sum::<usize>() < self.slots()
    }

    /// Wakes the first waiting pass for which a slot is free.
    fn wake(&self, state: &State) {
        if let Some(first) = state.waiting.values().find(|waiting| self.has_room(state, waiting.driver, waiting.most)) {
            first.wake.notify_one();
        }
    }
}

/// An admitted pass over data.
#[derive(Debug)]
pub struct Admission<'a> {
    capacity: &'a Capacity,
    number: u64,
    driver: Driver,
    most: usize,
    bytes: u64,
    wake: Arc<Condvar>,
}

impl<'a> Admission<'a> {
    /// Waits for a slot.
    pub fn slot(&self) -> ReadSlot<'a> {
        let capacity = self.capacity;
        let mut state = capacity.state();
        loop {
            let mut earlier = state.waiting.range(..self.number);
            if earlier.all(|(_, waiting)| waiting.driver != self.driver) && capacity.has_room(&state, self.driver, self.most) {
                break;
            }
            let new = || Waiting { driver: self.driver, most: self.most, threads: 0, wake: Arc::clone(&self.wake) };
            state.waiting.entry(self.number).or_insert_with(new).threads += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            if let Some(waiting) = state.waiting.get_mut(&self.number) {
                waiting.threads -= 1;
                if waiting.threads == 0 {
                    state.waiting.remove(&self.number);
                }
            }
        }
        *state.reading.entry(self.driver).or_default() += 1;
        let buffer = state.buffers.pop().unwrap_or_default();
        // If two slots became free together, only the first was signalled.
        capacity.wake(&state);
        ReadSlot { capacity, driver: self.driver, buffer }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.capacity.state().memory_in_use -= self.bytes;
        self.capacity.memory_freed.notify_all();
    }
}

/// The right to read, with a buffer to read into.
#[derive(Debug)]
pub struct ReadSlot<'a> {
    capacity: &'a Capacity,
    driver: Driver,
    /// May hold bytes of an earlier read.
    pub buffer: Vec<u8>,
}

impl Drop for ReadSlot<'_> {
    fn drop(&mut self) {
        let mut state = self.capacity.state();
        if let Some(reading) = state.reading.get_mut(&self.driver) {
            *reading -= 1;
        }
        state.buffers.push(std::mem::take(&mut self.buffer));
        self.capacity.wake(&state);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const SLOT: u64 = MEMORY_PER_SLOT;

    #[test]
    fn each_driver_has_its_own_slots_and_memory_limits_all_of_them() {
        let capacity = Capacity::new(3 * SLOT);
        let (s3, posix) = (capacity.admit(Driver::S3, 2, 0), capacity.admit(Driver::Posix, 2, 0));
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for admission in [&s3, &posix].repeat(10) {
                scope.spawn(|| {
                    let slot = admission.slot();
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    assert!(capacity.state().reading.values().all(|reading| *reading <= 2));
                    thread::sleep(Duration::from_millis(2));
                    now.fetch_sub(1, Ordering::SeqCst);
                    drop(slot);
                });
            }
        });
        assert!(most.into_inner() <= 3);
        let state = capacity.state();
        assert!(state.waiting.is_empty() && state.buffers.len() <= 3);
    }

    #[test]
    fn the_first_pass_reads_first() {
        let capacity = Capacity::new(100 * SLOT);
        let admissions: Vec<Admission<'_>> = (0..4).map(|_| capacity.admit(Driver::S3, 1, 0)).collect();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let first = admissions.first().unwrap().slot();
            for (number, admission) in admissions.iter().enumerate().rev() {
                let (sender, waits) = (sender.clone(), 4 - number);
                scope.spawn(move || {
                    let slot = admission.slot();
                    sender.send(number).unwrap();
                    drop(slot);
                });
                while capacity.state().waiting.len() < waits {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn memory_is_never_given_twice_and_a_pass_that_needs_too_much_gets_all() {
        let capacity = Capacity::new(100);
        thread::scope(|scope| {
            for bytes in [40, 1_000, 70, 0, 30, 100, 50, 20].repeat(20) {
                let capacity = &capacity;
                scope.spawn(move || {
                    let admission = capacity.admit(Driver::S3, 4, bytes);
                    assert!(capacity.state().memory_in_use <= 100);
                    thread::sleep(Duration::from_micros(200));
                    drop(admission);
                });
            }
        });
        let state = capacity.state();
        assert_eq!((state.memory_in_use, state.begun), (0, 160));
    }
}
