//! SIGINT and SIGTERM while rows are being changed: noted, and looked at between units.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::exit::Exit;

/// Notes signals from now on. A second one ends the program at once: then the audit log has intents without outcomes,
/// which `history reconcile` settles.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    which: Arc<AtomicUsize>,
}

impl Signals {
    /// Begins to note them.
    pub fn note() -> std::io::Result<Self> {
        let signals = Self::default();
        let again = Arc::new(AtomicBool::new(false));
        for (signal, exit) in [(SIGINT, Exit::Interrupted), (SIGTERM, Exit::Terminated)] {
            signal_hook::flag::register_conditional_shutdown(signal, i32::from(exit.code()), Arc::clone(&again))?;
            signal_hook::flag::register(signal, Arc::clone(&again))?;
            signal_hook::flag::register_usize(signal, Arc::clone(&signals.which), usize::try_from(signal).unwrap_or(1))?;
        }
        Ok(signals)
    }

    /// Whether one has come.
    pub fn stop(&self) -> bool {
        self.which.load(Ordering::Relaxed) != 0
    }

    /// The exit code and name of the one that came.
    pub fn exit(&self) -> (Exit, &'static str) {
        if self.which.load(Ordering::Relaxed) == usize::try_from(SIGTERM).unwrap_or(0) {
            (Exit::Terminated, "SIGTERM")
        } else {
            (Exit::Interrupted, "SIGINT")
        }
    }
}
