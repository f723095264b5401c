//! Slurm: a cluster of one node, on which array jobs run as on a large one.

use std::path::PathBuf;
use std::process::Command;

use super::process::{new_dir, run};
use super::storage::{python, script};
use super::{Process, free_port};

/// A running cluster. Its jobs end with it.
#[derive(Debug)]
pub struct Slurm {
    /// The parent process of the daemons and jobs.
    pub process: Process,
    conf: PathBuf,
}

/// Starts a cluster in about three seconds; it ends when it is dropped.
pub fn start() -> Slurm {
    let dir = new_dir(&std::env::temp_dir(), "slurm");
    let mut command = [python(), script("slurm_server.py")].map(|path| path.display().to_string()).to_vec();
    command.extend([format!("--home={}", dir.display()), format!("--ports={},{}", free_port(), free_port())]);
    let slurm = Slurm { process: Process::supervise("slurm", &dir, "TERM", &command), conf: dir.join("slurm.conf") };
    slurm.process.start(&|| {
        let state = slurm.command("sinfo").args(["--noheader", "--format=%T"]).output().expect("tests/run installs Slurm");
        state.stdout.starts_with(b"idle")
    });
    slurm
}

impl Slurm {
    /// A client command, such as `sbatch`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", &self.conf);
        command
    }

    /// Runs a client command.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        run(self.command(program).args(arguments))
    }
}
