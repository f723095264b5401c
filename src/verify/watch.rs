//! What a check that runs tells those who watch it, and how they stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by a check and whoever watches it.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    bytes: Arc<AtomicU64>,
    expected: Arc<AtomicU64>,
    cancelled: Arc<AtomicBool>,
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
        self.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes verified, and to be verified as far as is known.
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.expected.load(Ordering::Relaxed))
    }
}
