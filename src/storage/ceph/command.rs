//! Runs one of Ceph's commands, without a shell and with a deadline, bounded output and a clear error.
//!
//! A command on a full pool, or on one with placement groups that are down, does not fail but hangs. So each has a deadline,
//! after which its whole process group is killed.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::message;
use crate::backoff::Backoff;
use crate::storage::request_slots::RequestSlot;
use crate::storage::{Health, Limits, StorageError, StorageErrorKind};

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
pub(super) struct Invocation {
    /// The program, which is searched for in PATH.
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// The object of the command, for messages: `image volume-… in pool backups`.
    pub about: String,
    /// How long the command may be silent while its output is waited for.
    pub deadline: Duration,
    /// The health of the cluster.
    pub health: Arc<Health>,
    /// Set when the operator asks to stop.
    pub cancelled: Arc<AtomicBool>,
    /// The limits of streams.
    pub limits: Arc<Limits>,
    /// Its right to run.
    pub slot: RequestSlot,
}

/// The standard output of a running command, as a stream.
///
/// The stream ends without an error only if the command ended with status 0. Dropping the stream kills the command.
#[derive(Debug)]
pub(super) struct CommandStream {
    invocation: Invocation,
    child: Child,
    output: ChildStdout,
    /// Standard error; `None` once it ended.
    errors: Option<ChildStderr>,
    /// The last part of the messages.
    messages: Vec<u8>,
    begun: Instant,
    /// Why it was killed.
    killed: Option<StorageError>,
    /// Set once the command has ended.
    outcome: Option<Result<(), StorageError>>,
}

impl CommandStream {
    /// Starts a command.
    pub(super) fn start(invocation: Invocation) -> Result<Self, StorageError> {
        let mut child = Command::new(&invocation.program)
            .args(&invocation.arguments)
            // Ceph prints some times in local time without a zone.
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| cannot_start(&invocation.program.to_string_lossy(), &error))?;
        let Some(output) = child.stdout.take() else {
            return Err(StorageError::configuration(format!("{} has no standard output", invocation.program.display())));
        };
        let errors = child.stderr.take();
        // Until it is read.
        invocation.slot.pause();
        Ok(Self { invocation, child, output, errors, messages: Vec::new(), begun: Instant::now(), killed: None, outcome: None })
    }

    /// Reads the whole output, if it has at most `limit` bytes.
    pub(super) fn read_all(mut self, limit: usize) -> Result<Vec<u8>, StorageError> {
        self.invocation.slot.resume(&self.invocation.cancelled)?;
        // The deadline is for the whole output. That of a stream is for each read.
        let deadline = Instant::now() + self.invocation.deadline;
        let mut bytes = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            match self.read_before(deadline, &mut piece) {
                Ok(0) => return self.finish_before(deadline).map(|()| bytes),
                Ok(count) if bytes.len() + count > limit => {
                    let Invocation { program, about, .. } = &self.invocation;
                    return Err(StorageError::protocol(format!("{} printed more than {limit} bytes about {about}", program.display())));
                }
                Ok(count) => bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(&error)),
            }
        }
    }

    /// Waits for the end of the command and returns its result. Call it after the end of the output.
    pub(super) fn finish(&mut self) -> Result<(), StorageError> {
        self.finish_before(Instant::now() + self.invocation.deadline)
    }

    fn finish_before(&mut self, deadline: Instant) -> Result<(), StorageError> {
        if let Some(outcome) = &self.outcome {
            return outcome.clone();
        }
        let mut polls = 0_u32;
        let outcome = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break self.exit_result(status),
                Ok(None) => {}
                Err(error) => break Err(self.read_error(&error)),
            }
            self.kill_if_due(deadline);
            polls = polls.saturating_add(1);
            self.wait(false, POLL.pause(polls));
        };
        let Invocation { health, deadline: allowed, .. } = &self.invocation;
        match &outcome {
            Err(error) if error.is_transient() => {
                health.attempt_failed(self.begun.elapsed().min(*allowed));
                health.call_failed(error);
            }
            Err(error) if error.kind == StorageErrorKind::Cancelled => {}
            _ => health.progressed(),
        }
        let outcome = outcome.map_err(|error| if error.is_transient() { health.final_error(error) } else { error });
        self.outcome.insert(outcome).clone()
    }

    fn exit_result(&mut self, status: ExitStatus) -> Result<(), StorageError> {
        if let Some(error) = &self.killed {
            return Err(error.clone());
        }
        if status.success() {
            return Ok(());
        }
        let until = Instant::now() + MESSAGE_WAIT;
        while self.errors.is_some() && Instant::now() < until {
            self.wait(false, until.saturating_duration_since(Instant::now()));
        }
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        };
        let Invocation { program, about, .. } = &self.invocation;
        let messages = String::from_utf8_lossy(&self.messages);
        Err(message::explain(&program.to_string_lossy(), about, &how, status.signal().is_some(), &messages))
    }

    fn read_error(&self, error: &io::Error) -> StorageError {
        let Invocation { program, about, .. } = &self.invocation;
        let text = format!("cannot read the output of {} about {about}: {error}", program.display());
        StorageError::new(StorageErrorKind::Transient, text)
    }

    /// Reads output. Returns 0 at its end, and if the command was killed.
    fn read_before(&mut self, deadline: Instant, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.kill_if_due(deadline);
            if self.killed.is_some() {
                return Ok(0);
            }
            if self.wait(true, deadline.saturating_duration_since(Instant::now()).min(CANCEL_POLL)) {
                return self.output.read(buffer);
            }
        }
    }

    /// Kills the command at its deadline, or if the operator asks to stop.
    fn kill_if_due(&mut self, deadline: Instant) {
        if self.killed.is_some() {
            return;
        }
        let Invocation { program, about, deadline: allowed, cancelled, .. } = &self.invocation;
        let program = program.display();
        if cancelled.load(Ordering::Relaxed) {
            let text = format!("{program} was stopped while it read {about}");
            self.killed = Some(StorageError::new(StorageErrorKind::Cancelled, text));
        } else if deadline <= Instant::now() {
            let seconds = allowed.as_secs_f64();
            let text = format!(
                "{program} gave no response about {about} within {seconds} s and was killed; see `ceph health detail`, or use a longer --storage-timeout"
            );
            self.killed = Some(StorageError::new(StorageErrorKind::Transient, text));
        } else {
            return;
        }
        self.kill();
    }

    /// Kills the command and the processes that it started. Only before it is reaped, so that its process id is still valid.
    fn kill(&self) {
        // The command has a process group of its own. It may have ended already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }

    /// Waits at most this long for messages, and for output if `for_output`. Returns whether there is output, or its end.
    ///
    /// Messages are read whenever the command is waited for, so that it never blocks on them for long.
    fn wait(&mut self, for_output: bool, longest: Duration) -> bool {
        let mut pipes = Vec::new();
        if for_output {
            pipes.push(PollFd::new(&self.output, PollFlags::IN));
        }
        pipes.extend(self.errors.as_ref().map(|errors| PollFd::new(errors, PollFlags::IN)));
        // It fails if a signal interrupts it.
        let polled = poll(&mut pipes, Timespec::try_from(longest).ok().as_ref());
        let is_ready = |index: usize| polled.is_ok() && pipes.get(index).is_some_and(|pipe| !pipe.revents().is_empty());
        let (has_output, has_messages) = (for_output && is_ready(0), is_ready(usize::from(for_output)));
        if has_messages {
            self.read_messages();
        }
        has_output
    }

    fn read_messages(&mut self) {
        let mut piece = [0; 4096];
        match self.errors.as_mut().map(|errors| errors.read(&mut piece)) {
            Some(Ok(count)) if count > 0 => self.messages.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => self.errors = None,
        }
        if self.messages.len() > 2 * MESSAGE_LIMIT {
            self.messages.drain(..self.messages.len() - MESSAGE_LIMIT);
        }
    }
}

impl Read for CommandStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Invocation { slot, cancelled, .. } = &self.invocation;
        slot.resume(cancelled).map_err(StorageError::into_io)?;
        let read = self.read_on(buffer);
        self.invocation.slot.pause();
        read
    }
}

impl CommandStream {
    /// Reads a part of the output, and at its end waits for the command.
    fn read_on(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let deadline = Instant::now() + self.invocation.deadline;
        if self.outcome.is_none() {
            let limits = Arc::clone(&self.invocation.limits);
            let count = self.read_before(deadline, limits.part(buffer))?;
            if count > 0 {
                let Invocation { health, cancelled, .. } = &self.invocation;
                health.progressed();
                limits.received(count, health, cancelled).map_err(StorageError::into_io)?;
                return Ok(count);
            }
        }
        self.finish_before(deadline).map(|()| 0).map_err(StorageError::into_io)
    }
}

impl Drop for CommandStream {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            // It may have ended, but not the processes that it started. It was not reaped.
            self.kill();
            // It was killed, so this returns soon, and leaves no zombie.
            let _ = self.child.wait();
        }
    }
}

fn cannot_start(program: &str, error: &io::Error) -> StorageError {
    let text = match error.kind() {
        io::ErrorKind::NotFound => format!("program {program:?} not found; install the package ceph-common"),
        io::ErrorKind::InvalidInput => format!("{program} cannot take a name with a NUL byte"),
        _ => format!("cannot run {program:?}: {error}"),
    };
    StorageError::configuration(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::num::NonZero;
    use std::thread;

    use super::*;

    fn script(text: &str, deadline: Duration) -> Result<CommandStream, StorageError> {
        CommandStream::start(Invocation { deadline, ..invocation("/bin/sh", &["-c", text]) })
    }

    fn invocation(program: &str, arguments: &[&str]) -> Invocation {
        Invocation {
            program: program.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            about: "image x".to_owned(),
            deadline: LONG,
            health: Arc::default(),
            cancelled: Arc::default(),
            limits: Arc::default(),
            slot: RequestSlot::default(),
        }
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
        let invocation = invocation("printf", &["%s|", "$(id) `id` ; * \n", "--x"]);
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
    fn a_stream_keeps_to_the_rate_however_short_the_deadline() {
        const RATE: u64 = 1 << 20;
        let limits = Arc::new(Limits::new(NonZero::new(RATE), None, None));
        let begun = Instant::now();
        let invocation = Invocation { limits, deadline: Duration::from_millis(300), ..invocation("head", &["-c", "1500000", "/dev/zero"]) };
        let copied = io::copy(&mut CommandStream::start(invocation).unwrap(), &mut io::sink()).unwrap();
        assert_eq!(copied, 1_500_000);
        let most = (begun.elapsed().as_secs_f64() + 0.1) * RATE as f64;
        assert!(copied as f64 <= most, "{copied} of {most}");
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
    fn dropping_the_stream_kills_what_an_ended_command_left_running() {
        let mut stream = script("echo $$; sleep 600 & echo $!", LONG).unwrap();
        let mut text = String::new();
        while text.lines().count() < 2 || !text.ends_with('\n') {
            let mut buffer = [0; 32];
            let count = stream.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        let [command, child] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(has_ended(command) && is_alive(child));
        drop(stream);
        assert!(has_ended(child));
    }

    #[test]
    fn a_request_to_stop_kills_the_command() {
        let flag = Arc::new(AtomicBool::new(false));
        let cancelled = Arc::clone(&flag);
        let stream = CommandStream::start(Invocation { cancelled, ..invocation("sleep", &["600"]) }).unwrap();
        flag.store(true, Ordering::Relaxed);
        assert_eq!(stream.read_all(10).unwrap_err().kind, StorageErrorKind::Cancelled);
    }

    #[test]
    fn output_and_messages_flow_at_the_same_time() {
        let begun = Instant::now();
        let text = "yes message | head -c 3000000 >&2 & yes output | head -c 3000000; wait; echo last words >&2";
        assert_eq!(script(text, LONG).unwrap().read_all(3_000_000).unwrap().len(), 3_000_000);
        let error = script(&format!("{text}; exit 3"), LONG).unwrap().read_all(3_000_000).unwrap_err();
        assert!(error.text.contains("last words"), "{error}");
        assert!(begun.elapsed() < LONG / 2);
    }

    #[test]
    fn closed_pipes_and_a_stopped_command_end_at_the_deadline() {
        for (text, kind) in [
            ("exec >&-; sleep 0.2; echo '(5) Input/output error' >&2; exit 5", Some(StorageErrorKind::Media)),
            ("exec 2>&-; sleep 0.2; printf x", None),
            ("exec >&- 2>&-; exec sleep 600", Some(StorageErrorKind::Transient)),
            ("printf x; kill -STOP $$", Some(StorageErrorKind::Transient)),
            // It keeps the pipes open, and is not in the process group.
            ("setsid sleep 20 & sleep 600", Some(StorageErrorKind::Transient)),
        ] {
            let begun = Instant::now();
            let read = script(text, Duration::from_secs(1)).unwrap().read_all(100);
            assert_eq!(read.err().map(|error| error.kind), kind, "{text}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{text}");
        }
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = CommandStream::start(invocation("/nowhere/rbd", &[])).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Configuration);
        assert!(error.text.contains("ceph-common"), "{error}");
    }

    #[test]
    fn a_name_with_a_nul_is_refused() {
        assert_eq!(CommandStream::start(invocation("true", &["a\0b"])).unwrap_err().kind, StorageErrorKind::Configuration);
    }
}
