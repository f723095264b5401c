//! The program as its users run it: a cleared environment, its own audit log, everything that it says kept.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The program on one database, with an audit log of its own.
pub struct Program {
    url: String,
    folder: TempDir,
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Answer {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Program {
    /// On the database of this URL.
    pub fn on(url: impl Into<String>) -> Self {
        Self { url: url.into(), folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// The same program and log on another URL, such as that of an account with fewer privileges.
    pub fn with_url(self, url: impl Into<String>) -> Self {
        Self { url: url.into(), ..self }
    }

    /// A path in this program's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The audit log.
    pub fn log(&self) -> PathBuf {
        self.path("audit.jsonl")
    }

    /// The command, ready to run.
    pub fn command(&self, args: &[&str]) -> Command {
        // Servers of tests are young, and the silence of a host proves nothing on a young server. With hearts that beat
        // every second (as far as the program knows) it is old after four.
        let conf = self.path("cinder.conf");
        if !conf.exists() {
            std::fs::write(&conf, "[DEFAULT]\nreport_interval = 1\n").expect("a cinder.conf");
        }
        let mut command = bare(args);
        command.env("CINDER_DATABASE_URL", &self.url).arg("--config-file").arg(conf);
        command.arg("--audit-log").arg(self.log()).current_dir(self.folder.path());
        command
    }

    /// Runs it to its end, without a terminal.
    pub fn run(&self, args: &[&str]) -> Answer {
        answer(&mut self.command(args))
    }

    /// Runs it and insists on its exit code.
    #[track_caller]
    pub fn expect(&self, code: i32, args: &[&str]) -> Answer {
        let answer = self.run(args);
        assert_eq!(answer.code, Some(code), "{args:?}\n{}\n{}", answer.stdout, answer.stderr);
        answer
    }

    /// Runs it with `-f json`, insists on its exit code, and reads the document.
    #[track_caller]
    pub fn json(&self, code: i32, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["-f", "json"]);
        self.expect(code, &all).json()
    }

    /// Starts it and leaves it running.
    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    /// The id of the last run in the log.
    #[track_caller]
    pub fn last_run(&self) -> String {
        let list = self.json(0, &["history", "list"]);
        let runs = list["runs"].as_array().expect("a list of runs");
        runs.last().expect("a run")["run"].as_str().expect("an id").to_owned()
    }
}

/// The program with nothing of the tester's environment but what it is given.
pub fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().env("HOME", "/nonexistent").env("LANG", "C.UTF-8").stdin(Stdio::null()).args(args);
    command
}

/// The program's file.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cinder-backup-repair"))
}

/// Runs a command to its end.
pub fn answer(command: &mut Command) -> Answer {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    Answer {
        code: status.code(),
        stdout: String::from_utf8(stdout).expect("standard output is UTF-8"),
        stderr: String::from_utf8(stderr).expect("standard error is UTF-8"),
    }
}

impl Answer {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}\n{}", self.stdout, self.stderr))
    }
}

/// The finding over a row, of a scan's document.
#[track_caller]
pub fn finding<'d>(document: &'d Value, id: &str) -> &'d Value {
    find(document, id).unwrap_or_else(|| panic!("no finding over {id} in {document:#}"))
}

/// The same, where there may be none.
pub fn find<'d>(document: &'d Value, id: &str) -> Option<&'d Value> {
    document["findings"].as_array().expect("findings").iter().find(|finding| finding["id"] == id)
}

/// The codes of a finding's evidence.
pub fn codes(finding: &Value) -> Vec<&str> {
    finding["evidence"].as_array().expect("evidence").iter().filter_map(|evidence| evidence["code"].as_str()).collect()
}
