//! What a check that runs tells those who watch it, and how they stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Shared by a check and whoever watches it.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    bytes: Arc<AtomicU64>,
    expected: Arc<AtomicU64>,
    carried: Arc<AtomicUsize>,
    counted: Arc<AtomicUsize>,
    cancelled: Arc<AtomicBool>,
    /// That of one backup: whether that one was counted, and whether what is announced next is the last of it.
    is_counted: Arc<AtomicBool>,
    is_last: bool,
}

impl Watch {
    /// A watch whose stop is the given flag.
    pub fn stopped_by(cancelled: Arc<AtomicBool>) -> Self {
        Self { cancelled, ..Self::default() }
    }

    /// The flag that stops the check.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Whether the check is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// So many bytes of volumes were verified.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many more bytes are to be verified than was known.
    pub fn announce(&self, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::SeqCst);
        if self.is_last {
            self.count();
        }
    }

    /// The watch of one backup among those that this is about.
    pub fn of_one(&self) -> Self {
        Self { is_counted: Arc::default(), ..self.clone() }
    }

    /// The same, where the next bytes that are announced are its last.
    pub fn of_last(&self) -> Self {
        Self { is_last: true, ..self.clone() }
    }

    /// Nothing more will be announced of this backup.
    pub fn count(&self) {
        if !self.is_counted.swap(true, Ordering::SeqCst) {
            self.counted.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Of how many backups it is known how many bytes are to be verified.
    pub fn counted(&self) -> usize {
        self.counted.load(Ordering::SeqCst)
    }

    /// A result of an earlier check stands.
    pub fn carry(&self) {
        self.of_one().count();
        self.carried.fetch_add(1, Ordering::Relaxed);
    }

    /// How many results of an earlier check stand.
    pub fn carried(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }

    /// Bytes verified, and to be verified as far as is known.
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.expected.load(Ordering::SeqCst))
    }
}
