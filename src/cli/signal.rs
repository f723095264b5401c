//! SIGINT, SIGTERM and SIGHUP while rows are being changed: noted, and looked at between units.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

use super::exit::Exit;

/// Notes signals from now on. A second SIGINT or SIGTERM ends the program at once: then the audit log has intents without
/// outcomes, which `history reconcile` settles. A terminal that is closed says so more than once, so SIGHUP never does.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    which: Arc<AtomicUsize>,
}

impl Signals {
    /// Begins to note them. One that was ignored when the program started (`nohup`, a job in the background) stays ignored.
    pub fn note() -> std::io::Result<Self> {
        let signals = Self::default();
        let again = Arc::new(AtomicBool::new(false));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (signal, exit) in [(SIGINT, Exit::Interrupted), (SIGTERM, Exit::Terminated), (SIGHUP, Exit::HungUp)] {
            if is_ignored(&status, signal) {
                continue;
            }
            if signal != SIGHUP {
                signal_hook::flag::register_conditional_shutdown(signal, i32::from(exit.code()), Arc::clone(&again))?;
                signal_hook::flag::register(signal, Arc::clone(&again))?;
            }
            signal_hook::flag::register_usize(signal, Arc::clone(&signals.which), usize::try_from(signal).unwrap_or(1))?;
        }
        // A limit on the size of files is to be an error of the write, as a full disk is, and not the end.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(signals)
    }

    /// Whether one has come.
    pub fn stop(&self) -> bool {
        self.which.load(Ordering::Relaxed) != 0
    }

    /// The exit code and name of the one that came.
    pub fn exit(&self) -> (Exit, &'static str) {
        match i32::try_from(self.which.load(Ordering::Relaxed)) {
            Ok(SIGTERM) => (Exit::Terminated, "SIGTERM"),
            Ok(SIGHUP) => (Exit::HungUp, "SIGHUP"),
            _ => (Exit::Interrupted, "SIGINT"),
        }
    }
}

/// Whether `/proc/self/status` has the signal among those that are ignored.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(signal - 1).is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|rest| rest & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000004002\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT) && !is_ignored(status, SIGTERM));
        assert!(!is_ignored("", SIGHUP));
    }
}
