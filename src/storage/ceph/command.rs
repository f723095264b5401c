//! Runs one of Ceph's commands, without a shell and with a deadline, bounded output and a clear error.
//!
//! A command on a full pool, or on one with placement groups that are down, does not fail but hangs. So each has a deadline,
//! after which its whole process group is killed.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::message;
use crate::backoff::Backoff;
use crate::storage::{Health, StorageError, StorageErrorKind};

/// The longest pause before the next check whether the operator asked to stop.
const CANCEL_POLL: Duration = Duration::from_millis(100);
/// The pauses between checks whether the command has ended.
const POLL: Backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(20) };
/// How long to wait for the rest of the messages after the command has ended.
const MESSAGE_WAIT: Duration = Duration::from_millis(500);
/// How much of the end of the messages is kept, in bytes.
const MESSAGE_LIMIT: usize = 16 << 10;

/// A command to run.
#[derive(Debug)]
pub(super) struct Invocation<'a> {
    /// The program, which is searched for in PATH.
    pub program: &'a OsStr,
    pub arguments: Vec<OsString>,
    /// The object of the command, for messages: `image volume-… in pool backups`.
    pub about: &'a str,
    /// How long the command may be silent.
    pub deadline: Duration,
    /// The health of the cluster.
    pub health: Arc<Health>,
    /// Set when the operator asks to stop.
    pub cancelled: Option<Arc<AtomicBool>>,
}

/// Why a command was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KillReason {
    Deadline,
    Cancelled,
    Unwanted,
}

#[derive(Debug)]
struct ProcessState {
    child: Child,
    /// Set only while a reader waits for the command, so that a slow reader does not kill it.
    deadline: Option<Instant>,
    ended: Option<ExitStatus>,
    killed: Option<KillReason>,
}

impl ProcessState {
    /// Kills the command and the processes that it started. The child has not been reaped, so its process id is still valid.
    fn kill(&mut self, why: KillReason) {
        if self.ended.is_none() && self.killed.is_none() {
            self.killed = Some(why);
            // The command has a process group of its own. It may have ended already.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
    }
}

#[derive(Debug)]
struct Process {
    state: Mutex<ProcessState>,
    changed: Condvar,
}

impl Process {
    /// Ignores poisoning: no code that holds the lock can panic in the middle of a change.
    fn lock(&self) -> MutexGuard<'_, ProcessState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The standard output of a running command, as a stream.
///
/// The stream ends without an error only if the command ended with status 0. Dropping the stream kills the command.
#[derive(Debug)]
pub(super) struct CommandStream {
    process: Arc<Process>,
    output: ChildStdout,
    messages: Receiver<Vec<u8>>,
    program: String,
    about: String,
    allowed: Duration,
    health: Arc<Health>,
    begun: Instant,
    /// Set once the command has ended.
    outcome: Option<Result<(), StorageError>>,
}

impl CommandStream {
    /// Starts a command.
    pub(super) fn start(invocation: Invocation<'_>) -> Result<Self, StorageError> {
        let program = invocation.program.to_string_lossy().into_owned();
        let mut child = Command::new(invocation.program)
            .args(&invocation.arguments)
            // Ceph prints some times in local time without a zone.
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| cannot_start(&program, &error))?;
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(StorageError::new(StorageErrorKind::Configuration, format!("{program} has no standard output")));
        };
        let state = ProcessState { child, deadline: None, ended: None, killed: None };
        let process = Arc::new(Process { state: Mutex::new(state), changed: Condvar::new() });
        let (sender, messages) = sync_channel(1);
        let supervised = Arc::clone(&process);
        let cancelled = invocation.cancelled;
        let threads = thread::Builder::new()
            .spawn(move || {
                // The receiver may have given up waiting.
                let _ = sender.send(read_messages(errors));
            })
            .and_then(|_| thread::Builder::new().spawn(move || supervise(&supervised, cancelled.as_deref())));
        if let Err(error) = threads {
            process.lock().kill(KillReason::Unwanted);
            return Err(StorageError::new(StorageErrorKind::Transient, format!("cannot start a thread for {program}: {error}")));
        }
        Ok(Self {
            process,
            output,
            messages,
            program,
            about: invocation.about.to_owned(),
            allowed: invocation.deadline,
            health: invocation.health,
            begun: Instant::now(),
            outcome: None,
        })
    }

    /// Reads the whole output, if it has at most `limit` bytes.
    pub(super) fn read_all(mut self, limit: usize) -> Result<Vec<u8>, StorageError> {
        // The deadline is for the whole output. That of a stream is for each read.
        self.process.lock().deadline = Some(Instant::now() + self.allowed);
        let mut bytes = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            match self.output.read(&mut piece) {
                Ok(0) => break,
                Ok(count) if bytes.len() + count > limit => {
                    let text = format!("{} printed more than {limit} bytes about {}", self.program, self.about);
                    return Err(StorageError::new(StorageErrorKind::Protocol, text));
                }
                Ok(count) => bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(&error)),
            }
        }
        self.finish().map(|()| bytes)
    }

    /// Waits for the end of the command and returns its result. Call it after the end of the output.
    pub(super) fn finish(&mut self) -> Result<(), StorageError> {
        if let Some(outcome) = &self.outcome {
            return outcome.clone();
        }
        let mut polls = 0_u32;
        let outcome = loop {
            let mut state = self.process.lock();
            state.deadline.get_or_insert_with(|| Instant::now() + self.allowed);
            match state.child.try_wait() {
                Ok(Some(status)) => {
                    state.ended = Some(status);
                    let killed = state.killed;
                    drop(state);
                    self.process.changed.notify_all();
                    break self.exit_result(status, killed);
                }
                Ok(None) => {}
                Err(error) => break Err(self.read_error(&error)),
            }
            drop(state);
            polls = polls.saturating_add(1);
            thread::sleep(POLL.pause(polls));
        };
        match &outcome {
            Err(error) if error.is_transient() => {
                self.health.attempt_failed(self.begun.elapsed().min(self.allowed));
                self.health.call_failed(error);
            }
            Err(error) if error.kind == StorageErrorKind::Cancelled => {}
            _ => self.health.progressed(),
        }
        let outcome = outcome.map_err(|error| if error.is_transient() { self.health.final_error(error) } else { error });
        self.outcome = Some(outcome.clone());
        outcome
    }

    fn exit_result(&self, status: ExitStatus, killed: Option<KillReason>) -> Result<(), StorageError> {
        let Self { program, about, .. } = self;
        match killed {
            Some(KillReason::Deadline) => {
                let seconds = self.allowed.as_secs_f64();
                let text = format!(
                    "{program} gave no response about {about} within {seconds} s and was killed; see `ceph health detail`, or use a longer --storage-timeout"
                );
                return Err(StorageError::new(StorageErrorKind::Transient, text));
            }
            Some(KillReason::Cancelled | KillReason::Unwanted) => {
                return Err(StorageError::new(StorageErrorKind::Cancelled, format!("{program} was stopped while it read {about}")));
            }
            None => {}
        }
        if status.success() {
            return Ok(());
        }
        let messages = self.messages.recv_timeout(MESSAGE_WAIT).unwrap_or_default();
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        };
        Err(message::explain(program, about, &how, status.signal().is_some(), &String::from_utf8_lossy(&messages)))
    }

    fn read_error(&self, error: &io::Error) -> StorageError {
        StorageError::new(StorageErrorKind::Transient, format!("cannot read the output of {} about {}: {error}", self.program, self.about))
    }
}

impl Read for CommandStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.outcome.is_none() {
            self.process.lock().deadline = Some(Instant::now() + self.allowed);
            let count = self.output.read(buffer)?;
            if count > 0 {
                self.health.progressed();
                self.process.lock().deadline = None;
                return Ok(count);
            }
        }
        self.finish().map(|()| 0).map_err(StorageError::into_io)
    }
}

impl Drop for CommandStream {
    fn drop(&mut self) {
        let mut state = self.process.lock();
        if state.ended.is_some() {
            return;
        }
        state.kill(KillReason::Unwanted);
        // The process was killed, so this returns soon, and leaves no zombie.
        state.ended = state.child.wait().ok();
        drop(state);
        self.process.changed.notify_all();
    }
}

/// Kills the command at its deadline, or if the operator asks to stop.
fn supervise(process: &Process, cancelled: Option<&AtomicBool>) {
    let mut state = process.lock();
    while state.ended.is_none() && state.killed.is_none() {
        let now = Instant::now();
        if cancelled.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            state.kill(KillReason::Cancelled);
        } else if state.deadline.is_some_and(|deadline| deadline <= now) {
            state.kill(KillReason::Deadline);
        } else {
            let left = state.deadline.map_or(CANCEL_POLL, |deadline| deadline.saturating_duration_since(now));
            state = process.changed.wait_timeout(state, left.min(CANCEL_POLL)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Returns the end of the standard error of a command. All of it is read, so that the command never blocks on it.
fn read_messages(mut errors: ChildStderr) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match errors.read(&mut piece) {
            Ok(0) => return kept,
            Ok(count) => kept.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
        if kept.len() > 2 * MESSAGE_LIMIT {
            kept.drain(..kept.len() - MESSAGE_LIMIT);
        }
    }
}

fn cannot_start(program: &str, error: &io::Error) -> StorageError {
    let text = match error.kind() {
        io::ErrorKind::NotFound => format!("program {program:?} not found; install the package ceph-common"),
        io::ErrorKind::InvalidInput => format!("{program} cannot take a name with a NUL byte"),
        _ => format!("cannot run {program:?}: {error}"),
    };
    StorageError::new(StorageErrorKind::Configuration, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    fn script(text: &str, deadline: Duration) -> Result<CommandStream, StorageError> {
        let arguments = vec!["-c".into(), text.into()];
        CommandStream::start(Invocation {
            program: OsStr::new("/bin/sh"),
            arguments,
            about: "image x",
            deadline,
            health: Arc::default(),
            cancelled: None,
        })
    }

    const LONG: Duration = Duration::from_secs(30);

    fn is_alive(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
    }

    /// Waits until a process has ended.
    fn has_ended(pid: &str) -> bool {
        (0..200).any(|_| {
            thread::sleep(Duration::from_millis(10));
            !is_alive(pid)
        })
    }

    #[test]
    fn output_is_complete_and_in_utc() {
        assert_eq!(script("printf %s \"$TZ $LC_ALL\"", LONG).unwrap().read_all(100).unwrap(), b"UTC C");
    }

    #[test]
    fn arguments_reach_no_shell() {
        let arguments = vec!["%s|".into(), "$(id) `id` ; * \n".into(), "--x".into()];
        let invocation =
            Invocation { program: OsStr::new("printf"), arguments, about: "x", deadline: LONG, health: Arc::default(), cancelled: None };
        assert_eq!(CommandStream::start(invocation).unwrap().read_all(100).unwrap(), b"$(id) `id` ; * \n|--x|");
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        // The shell waits for a child that holds its standard output open.
        let text = format!("sleep 600 & echo $! >{}; wait", path.display());
        let begun = Instant::now();
        let error = script(&text, Duration::from_millis(300)).unwrap().read_all(100).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(error.kind, StorageErrorKind::Transient);
        assert!(error.text.contains("image x within 0.3 s"), "{error}");
        assert!(has_ended(std::fs::read_to_string(path).unwrap().trim()));
    }

    #[test]
    fn a_stalled_stream_is_killed_and_a_slow_one_is_not() {
        let mut flowing = script("for i in 1 2 3 4 5 6; do printf x; sleep 0.15; done", Duration::from_millis(600)).unwrap();
        let mut bytes = Vec::new();
        flowing.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"xxxxxx");

        let mut stalled = script("printf x; exec sleep 600", Duration::from_millis(300)).unwrap();
        let error = stalled.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(StorageError::of_io(&error).unwrap().kind, StorageErrorKind::Transient);
    }

    #[test]
    fn a_slow_reader_does_not_kill_the_command() {
        let mut stream = script("printf x; printf y", Duration::from_millis(100)).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        thread::sleep(Duration::from_millis(400));
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"y");
    }

    #[test]
    fn a_failure_after_output_is_an_error_of_the_stream() {
        let mut stream = script("printf xyz; echo 'rbd: error: (5) Input/output error' >&2; exit 5", LONG).unwrap();
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        let error = StorageError::of_io(&error).unwrap();
        assert_eq!(error.kind, StorageErrorKind::Media);
        assert!(error.text.contains("Input/output error"), "{error}");
        // Every further read fails too.
        assert!(stream.read(&mut [0]).is_err());
    }

    #[test]
    fn too_much_output_is_refused_and_endless_messages_are_discarded() {
        let error = script("exec yes", LONG).unwrap().read_all(1000).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Protocol);
        let error = script("yes message | head -c 3000000 >&2; echo last words >&2; exit 3", LONG).unwrap().read_all(10).unwrap_err();
        assert!(error.text.contains("last words") && error.text.len() < 1000, "{error}");
    }

    #[test]
    fn dropping_the_stream_kills_the_command() {
        let mut stream = script("echo $$; exec sleep 600", LONG).unwrap();
        let mut buffer = [0; 32];
        let count = stream.read(&mut buffer).unwrap();
        let pid = String::from_utf8_lossy(&buffer[..count]).trim().to_owned();
        assert!(is_alive(&pid));
        drop(stream);
        assert!(has_ended(&pid));
    }

    #[test]
    fn a_request_to_stop_kills_the_command() {
        let flag = Arc::new(AtomicBool::new(false));
        let arguments = vec!["600".into()];
        let cancelled = Some(Arc::clone(&flag));
        let stream = CommandStream::start(Invocation {
            program: OsStr::new("sleep"),
            arguments,
            about: "x",
            deadline: LONG,
            health: Arc::default(),
            cancelled,
        })
        .unwrap();
        flag.store(true, Ordering::Relaxed);
        assert_eq!(stream.read_all(10).unwrap_err().kind, StorageErrorKind::Cancelled);
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let program = OsStr::new("/nowhere/rbd");
        let invocation = Invocation { program, arguments: Vec::new(), about: "x", deadline: LONG, health: Arc::default(), cancelled: None };
        let error = CommandStream::start(invocation).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Configuration);
        assert!(error.text.contains("ceph-common"), "{error}");
    }

    #[test]
    fn a_name_with_a_nul_is_refused() {
        let invocation = Invocation {
            program: OsStr::new("true"),
            arguments: vec!["a\0b".into()],
            about: "x",
            deadline: LONG,
            health: Arc::default(),
            cancelled: None,
        };
        assert_eq!(CommandStream::start(invocation).unwrap_err().kind, StorageErrorKind::Configuration);
    }
}
