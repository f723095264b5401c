//! Reports the progress of a running check, and stops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Shared by a check and its observer.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    bytes: Arc<AtomicU64>,
    expected: Arc<AtomicU64>,
    carried: Arc<AtomicUsize>,
    counted: Arc<AtomicUsize>,
    cancelled: Arc<AtomicBool>,
    /// For the watch of one backup: whether it was counted, and whether the next announcement is its last.
    is_counted: Arc<AtomicBool>,
    is_last: bool,
}

impl Watch {
    /// The flag that stops the check.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Whether the check must stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Adds bytes of volumes that were verified.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes that will be verified.
    pub fn announce(&self, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::SeqCst);
        if self.is_last {
            self.count();
        }
    }

    /// The watch of one of the backups.
    pub fn of_one(&self) -> Self {
        Self { is_counted: Arc::default(), ..self.clone() }
    }

    /// The same, with the next announcement as its last.
    pub fn of_last(&self) -> Self {
        Self { is_last: true, ..self.clone() }
    }

    /// Counts this backup: no more bytes will be announced for it.
    pub fn count(&self) {
        if !self.is_counted.swap(true, Ordering::SeqCst) {
            self.counted.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// For how many backups all bytes are announced.
    pub fn counted(&self) -> usize {
        self.counted.load(Ordering::SeqCst)
    }

    /// Counts a result that is carried over.
    pub fn carry(&self) {
        self.of_one().count();
        self.carried.fetch_add(1, Ordering::Relaxed);
    }

    /// How many results were carried over.
    pub fn carried(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }

    /// Bytes verified, and bytes announced.
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.expected.load(Ordering::SeqCst))
    }
}

/// The progress of one read of announced bytes, and never more than these: an export may also have zeros that were not announced. If the
/// read ends early, because it fails or has less to read, the rest is added at its end, so that several reads add up.
pub(super) struct ReadProgress<'a> {
    watch: &'a Watch,
    left: u64,
}

impl<'a> ReadProgress<'a> {
    pub(super) fn new(watch: &'a Watch, announced: u64) -> Self {
        Self { watch, left: announced }
    }

    pub(super) fn add(&mut self, bytes: u64) {
        let counted = bytes.min(self.left);
        self.left -= counted;
        self.watch.add(counted);
    }
}

impl Drop for ReadProgress<'_> {
    fn drop(&mut self) {
        self.watch.add(self.left);
    }
}
