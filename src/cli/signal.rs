//! SIGINT, SIGTERM and SIGHUP. While rows are changed, signals are noted and handled between units. While a question is shown, SIGINT
//! and SIGTERM restore the terminal and end the program.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

use super::{Exit, Ui};
use crate::parallel::lock;
use crate::workflow::Stop;

/// What a second SIGINT or SIGTERM does. A terminal that is closed says so more than once, so SIGHUP is only ever noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    /// It ends the program at once: the audit log then has intents without outcomes, which `history reconcile` settles.
    Ends,
    /// It is noted like the first.
    Noted,
}

/// Notes signals from now on, until it is dropped.
#[derive(Debug)]
pub struct Signals {
    which: Arc<AtomicUsize>,
    seen: Mutex<Option<Stop>>,
    suspended: Vec<SuspendedDefault>,
    handlers: Vec<Handler>,
    /// Those that end the program at a second signal.
    endings: Mutex<Vec<Handler>>,
}

impl Signals {
    /// Begins to note them. One that was ignored when the program started (`nohup`, a job in the background) stays ignored.
    pub fn note(second: Second) -> io::Result<Self> {
        let mut signals =
            Self { which: Arc::default(), seen: Mutex::default(), suspended: Vec::new(), handlers: Vec::new(), endings: Mutex::default() };
        let again = Arc::new(AtomicBool::new(false));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (signal, exit) in [(SIGINT, Exit::Interrupted), (SIGTERM, Exit::Terminated), (SIGHUP, Exit::HungUp)] {
            if is_ignored(&status, signal) {
                continue;
            }
            signals.suspended.push(SuspendedDefault::new(signal)?);
            if signal != SIGHUP && second == Second::Ends {
                let ending = signal_hook::flag::register_conditional_shutdown(signal, i32::from(exit.code()), Arc::clone(&again))?;
                lock(&signals.endings).push(Handler(ending));
                signals.handlers.push(Handler(signal_hook::flag::register(signal, Arc::clone(&again))?));
            }
            let number = usize::try_from(signal).unwrap_or(1);
            signals.handlers.push(Handler(signal_hook::flag::register_usize(signal, Arc::clone(&signals.which), number)?));
        }
        // A limit on the size of files is to be an error of the write, as a full disk is, and not the end.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(signals)
    }

    /// From now on no signal ends the program: a result is being written, and half a document is worse than none.
    pub fn let_finish(&self) {
        lock(&self.endings).clear();
    }

    /// The last one, and how many have arrived.
    pub fn stop(&self) -> Option<Stop> {
        let mut seen = lock(&self.seen);
        let signal = match i32::try_from(self.which.swap(0, Ordering::Relaxed)) {
            Ok(0) => return *seen,
            Ok(SIGTERM) => "SIGTERM",
            Ok(SIGHUP) => "SIGHUP",
            _ => "SIGINT",
        };
        *seen = Some(Stop { signal, times: seen.map_or(0, |stop| stop.times) + 1 });
        *seen
    }
}

/// A question at the terminal, with echo or line mode off or the cursor hidden. The default action of a signal would leave the
/// terminal like that.
pub struct Question {
    shared: Arc<Shared>,
    /// They own the writing ends of the pair of sockets. Once all are dropped, the thread reads the end of the stream and ends.
    handlers: Vec<Handler>,
    _suspended: [SuspendedDefault; 2],
}

struct Shared {
    ui: Ui,
    terminal: Option<Termios>,
    terminated: Arc<AtomicBool>,
    ending: Once,
}

impl Question {
    /// Before it is asked, and before anything is changed.
    pub fn begin(ui: &Ui) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { ui: ui.clone(), terminal: tcgetattr(io::stdin()).ok(), terminated: Arc::default(), ending: Once::new() });
        let _suspended = [SuspendedDefault::new(SIGINT)?, SuspendedDefault::new(SIGTERM)?];
        let mut question = Self { shared: Arc::clone(&shared), handlers: Vec::new(), _suspended };
        // Between two keys the terminal is not raw, and what is typed quickly would be echoed into the list.
        if let Some(terminal) = &shared.terminal {
            let mut silent = terminal.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        }
        // A thread does the work: the reading of a password goes on after a signal and never comes back to look.
        let (mut woken, wakes) = UnixStream::pair()?;
        // Before the wake-up of the same signal.
        question.handlers.push(Handler(signal_hook::flag::register(SIGTERM, Arc::clone(&shared.terminated))?));
        question.handlers.push(Handler(signal_hook::low_level::pipe::register(SIGTERM, wakes.try_clone()?)?));
        question.handlers.push(Handler(signal_hook::low_level::pipe::register(SIGINT, wakes)?));
        thread::Builder::new().name("question".to_owned()).spawn(move || {
            if woken.read(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                // The reading of a key is interrupted and ends it all itself, after it has set the terminal in its own way.
                thread::sleep(Duration::from_millis(50));
                shared.stop();
            }
        })?;
        Ok(question)
    }

    /// Ends the program as a signal does: for when the reading of an answer was interrupted.
    pub fn stop(&self) -> ! {
        self.shared.stop()
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.shared.restore();
    }
}

impl Shared {
    fn restore(&self) {
        if let Some(terminal) = &self.terminal {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, terminal);
        }
    }

    fn stop(&self) -> ! {
        let exit = if self.terminated.load(Ordering::SeqCst) { Exit::Terminated } else { Exit::Interrupted };
        // A second caller waits here until the program has ended.
        self.ending.call_once(|| {
            self.restore();
            self.ui.end_prompt();
            self.ui.failure(exit, "stopped at the question; nothing was changed", None);
            std::process::exit(i32::from(exit.code()));
        });
        std::process::exit(i32::from(exit.code()))
    }
}

/// A registered handler of a signal. Removed when dropped.
#[derive(Debug)]
struct Handler(SigId);

impl Drop for Handler {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.0);
    }
}

/// By signal: the switch of its default action, and how many [`SuspendedDefault`]s keep it off. An entry is never removed. Without a
/// registered default action, a signal that once had a handler would be ignored after its last handler is removed.
static DEFAULTS: Mutex<BTreeMap<i32, (Arc<AtomicBool>, usize)>> = Mutex::new(BTreeMap::new());

/// Suspends the default action of a signal until it is dropped.
#[derive(Debug)]
struct SuspendedDefault(i32);

impl SuspendedDefault {
    fn new(signal: i32) -> io::Result<Self> {
        let mut defaults = lock(&DEFAULTS);
        if let Some((is_on, count)) = defaults.get_mut(&signal) {
            is_on.store(false, Ordering::SeqCst);
            *count += 1;
        } else {
            let is_on = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&is_on))?;
            defaults.insert(signal, (is_on, 1));
        }
        Ok(Self(signal))
    }
}

impl Drop for SuspendedDefault {
    fn drop(&mut self) {
        if let Some((is_on, count)) = lock(&DEFAULTS).get_mut(&self.0) {
            *count -= 1;
            is_on.store(*count == 0, Ordering::SeqCst);
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
