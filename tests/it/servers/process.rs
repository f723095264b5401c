//! A server process under a supervisor, so that nothing is left behind.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to start. It takes seconds, but test machines are busy.
const START_TIMEOUT: Duration = Duration::from_secs(240);

/// A process under `supervise.sh` with its own directory. Dropping it ends the process and waits for the end.
#[derive(Debug)]
pub struct Process {
    name: String,
    dir: PathBuf,
    supervisor: Child,
    input: Mutex<Option<ChildStdin>>,
}

impl Process {
    /// Creates a temporary directory, without a process.
    pub fn folder(name: &str) -> Self {
        Self::supervise(name, &new_dir(&std::env::temp_dir(), name), "KILL", &[] as &[&str])
    }

    /// Supervises an existing, empty directory. [`Process::start`] runs `command`; `signal` ends it.
    pub fn supervise(name: &str, dir: &Path, signal: &str, command: &[impl AsRef<OsStr>]) -> Self {
        if !command.is_empty() {
            super::refuse_in_fast_run(name);
        }
        let mut supervisor = Command::new("sh")
            .arg("-c")
            .arg(include_str!("supervise.sh"))
            .arg("supervise.sh")
            .arg(dir)
            .arg(signal)
            .args(command)
            .current_dir("/")
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let input = supervisor.stdin.take();
        Self { name: name.to_owned(), dir: dir.to_owned(), supervisor, input: Mutex::new(input) }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process id of the server as last started.
    pub fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.dir.join("pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Starts the command and waits until `ready`. Panics with the end of the log if that does not happen.
    pub fn start(&self, ready: &dyn Fn() -> bool) {
        let begun = Instant::now();
        let mut attempts = 0;
        while attempts < 3 {
            attempts += 1;
            let _ = fs::remove_file(self.dir.join("pid"));
            let mut input = self.input.lock().unwrap();
            input.as_mut().expect("not ended yet").write_all(b"start\n").expect("the supervisor listens");
            drop(input);
            while self.pid().is_none() {
                sleep(Duration::from_millis(5));
            }
            while self.is_running() {
                if ready() {
                    return;
                }
                assert!(begun.elapsed() < START_TIMEOUT, "{} does not answer; its log ends:\n{}", self.name, self.log());
                sleep(Duration::from_millis(30));
            }
            // Another process took the port, or the last PostgreSQL processes are still ending: try again.
            sleep(Duration::from_millis(300));
        }
        panic!("{} does not start; its log ends:\n{}", self.name, self.log());
    }

    /// Whether the process runs. A stopped process counts as running.
    pub fn is_running(&self) -> bool {
        self.pid().is_some_and(is_alive)
    }

    /// Sends a signal to the server: `STOP`, so that it no longer answers, `CONT` or `KILL`.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid().expect("a running server"), signal).expect("the signal is sent");
    }

    /// Kills the server and waits until it is gone. [`Process::start`] starts it again.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        let begun = Instant::now();
        while self.is_running() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{} does not end", self.name);
            sleep(Duration::from_millis(10));
        }
    }

    /// The last lines of the log.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(mut input) = self.input.lock() {
            input.take();
        }
        let _ = self.supervisor.wait();
    }
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) else {
        return false;
    };
    // The state is the first field after the name, which is in parentheses and may contain anything.
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Creates a directory that a server under another user can enter.
pub fn new_dir(parent: &Path, name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new()
        .prefix(&format!("cbr-{name}-"))
        .tempdir_in(parent)
        .unwrap_or_else(|error| panic!("cannot make a folder in {}: {error}", parent.display()))
        .keep();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    dir
}

/// A command prefix that disables fsync: a Cinder schema takes MariaDB some 400 fsyncs, and a temporary database need not survive a power
/// cut. If libeatmydata is missing, the loader writes a message to the log and continues.
pub fn without_fsync() -> [String; 2] {
    ["env", "LD_PRELOAD=libeatmydata.so"].map(String::from)
}

/// Runs a command and waits for its end. Panics with its output if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {:?}: {error}; tests/run installs what is needed", command.get_program()));
    assert!(
        output.status.success(),
        "{command:?} failed with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
