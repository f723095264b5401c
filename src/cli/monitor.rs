//! What monitoring gets from a command: a file of metrics (`--prometheus`), or one line and an exit code (`--nagios`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use clap::Args;
use jiff::Timestamp;
use tempfile::{Builder, NamedTempFile};

use super::measures::{Measured, State};
use super::{Error, Exit, Result};
use crate::parallel::lock;
use crate::report::metrics::{Gauge, text};
use crate::report::safe::terminal;

/// Options for monitoring.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Monitoring")]
pub struct MonitorArgs {
    /// Also write metrics to this file, for the textfile collector of node_exporter, which reads names that end in .prom. A run that fails
    /// replaces the file, too
    #[arg(long, value_name = "FILE")]
    pub prometheus: Option<PathBuf>,
    /// Print one line with performance data instead of the result, and end with 0 (OK), 1 (WARNING), 2 (CRITICAL) or 3 (UNKNOWN), as a
    /// plugin for Nagios, Icinga and others
    #[arg(long, conflicts_with = "format")]
    pub nagios: bool,
}

/// One run of a command, as monitoring sees it.
#[derive(Debug)]
pub struct Monitor {
    /// Which command, and for a check at which level.
    command: String,
    args: MonitorArgs,
    begun: Instant,
    measured: Mutex<Option<Measured>>,
}

impl Monitor {
    pub fn new(command: String, args: MonitorArgs) -> Self {
        Self { command, args, begun: Instant::now(), measured: Mutex::default() }
    }

    /// For commands that are not monitored.
    pub fn none() -> Self {
        Self::new(String::new(), MonitorArgs::default())
    }

    pub fn is_nagios(&self) -> bool {
        self.args.nagios
    }

    /// Keeps what the command measured until it ends.
    pub fn measured(&self, measured: Measured) {
        *lock(&self.measured) = Some(measured);
    }

    /// Makes sure that the file can be written, before a command works for hours.
    pub fn check(&self) -> Result<()> {
        let Some(path) = &self.args.prometheus else { return Ok(()) };
        // A rename would replace a device or a link.
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(Error::usage(format!("{} is not a regular file: name a file that may be replaced", path.display())));
        }
        new_file(path).map(drop).map_err(|error| Error::usage(cannot_write(path, &error)))
    }

    /// Replaces the file of metrics. A failed run leaves no results in it, so that those of an earlier one do not look as if they were new.
    pub fn write(&self, result: &Result<Exit>) -> Result<()> {
        let Some(path) = &self.args.prometheus else { return Ok(()) };
        let measured = lock(&self.measured);
        let measured = measured.as_ref().filter(|_| result.as_ref().is_ok_and(|exit| *exit < Exit::HungUp));
        let code = result.as_ref().map_or_else(|error| error.exit, |exit| *exit).code();
        let of_run = |name, help, value| Gauge { name, help, labels: vec![("command", self.command.clone())], value };
        let mut gauges = vec![
            of_run(
                "cinder_backup_last_run_timestamp_seconds",
                "When the last run ended, whether it succeeded or not.",
                Timestamp::now().as_second() as f64,
            ),
            of_run(
                "cinder_backup_last_run_success",
                "1 if the last run came to a result, whatever it found; 0 if it failed or was stopped by a signal.",
                f64::from(u8::from(measured.is_some())),
            ),
            of_run("cinder_backup_last_run_exit_code", "The exit code of the last run.", f64::from(code)),
            of_run("cinder_backup_last_run_duration_seconds", "How long the last run took.", self.begun.elapsed().as_secs_f64()),
        ];
        gauges.extend(measured.into_iter().flat_map(|measured| measured.gauges.iter().cloned()));
        let written = new_file(path).and_then(|mut file| {
            file.write_all(text(&gauges).as_bytes())?;
            // Otherwise an empty file may replace the old one if the power fails.
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)
        });
        written.map(drop).map_err(|error| Error::new(Exit::Unexpected, cannot_write(path, &error)))
    }

    /// The line and the exit code of a plugin.
    pub fn line(&self, result: &Result<Exit>) -> (String, u8) {
        let measured = lock(&self.measured);
        let (state, text, numbers) = match (result, measured.as_ref()) {
            (Err(error), _) => (State::Unknown, format!("{:#}", error.error), ""),
            (Ok(exit), Some(_)) if *exit >= Exit::HungUp => (State::Unknown, "stopped by a signal".to_owned(), ""),
            (Ok(_), Some(Measured { state, text, numbers, .. })) => (*state, text.clone(), numbers.as_str()),
            (Ok(exit), None) => (State::Unknown, format!("no result, exit code {}", exit.code()), ""),
        };
        line(&self.command, state, &text, numbers)
    }
}

/// A line by the guidelines for plugins: the state, a text, and after a bar the performance data.
pub fn line(command: &str, state: State, text: &str, numbers: &str) -> (String, u8) {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = terminal(&words).replace('|', "/");
    let numbers = if numbers.is_empty() { String::new() } else { format!(" | {numbers}") };
    (format!("CINDER BACKUP {} {} - {text}{numbers}\n", command.to_uppercase(), state.name()), state as u8)
}

/// A temporary file beside the one that it will replace, which everybody may read: node_exporter has an account of its own.
fn new_file(path: &Path) -> std::io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Builder::new().prefix(".cinder-backup-repair").suffix(".tmp").permissions(PermissionsExt::from_mode(0o644)).tempfile_in(folder)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}
