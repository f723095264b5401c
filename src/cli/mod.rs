//! The command line: arguments, prompts, views, signals and exit codes. [`crate::workflow`] does the work; nothing sees this module.

mod args;
mod choice;
mod commands;
mod context;
mod error;
mod execute;
mod exit;
mod follow_up;
mod help;
mod measures;
mod monitor;
mod new_files;
mod progress_display;
mod prompt;
mod proposal;
mod reports;
mod run_records;
mod sentences;
mod shard;
mod signal;
mod storage;
mod throttle;
mod ui;
mod view;

use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser};

pub use commands::Cli;

use context::Context;
use error::{Error, Result};
use exit::Exit;
use measures::{Measured, State};
use monitor::{Monitor, MonitorArgs};
use progress_display::ProgressDisplay;
use ui::Ui;

use crate::config::Environment;

/// Runs the program on the process's own arguments.
pub fn main() -> ExitCode {
    let parsed = taking_dashes(help::complete(Cli::command())).try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // clap writes help and version to standard output and usage errors to standard error; 2 is our code too.
            let is_nagios = std::env::args_os().any(|word| word == "--nagios");
            let (form, log) = (asked_for(&["-f", "--format"], &["json", "jsonl"]), asked_for(&["--log-format"], &["json"]));
            if !error.use_stderr() || (form.is_none() && log.is_none() && !is_nagios) {
                let _ = error.print();
                return ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Done }.code());
            }
            let text = error.to_string();
            let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").trim();
            let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: ")).unwrap_or("see --help");
            let (form, log) = (form.unwrap_or("table"), log.unwrap_or("text"));
            if let Ok(cli) = Cli::try_parse_from(["cinder-backup-repair", "--format", form, "--log-format", log, "man"]) {
                let ui = Ui::new(&cli.global.output);
                if is_nagios {
                    return print_line(&ui, monitor::line("", State::Unknown, message, ""));
                }
                ui.failure(Exit::Usage, message, Some(tip));
            }
            return ExitCode::from(Exit::Usage.code());
        }
    };
    let output = &cli.global.output;
    let monitor = cli.command.monitor();
    // Some plugin runners take both streams for the line.
    let ui = if monitor.is_nagios() { Ui::inner(output, true) } else { Ui::new(output) };
    let environment = Environment::new(std::env::vars_os());
    let context = Context { ui: &ui, global: &cli.global, environment: &environment, monitor: &monitor };
    let checked = monitor.check();
    // What may not be replaced by a result must not be replaced by a failure either.
    let may_write = checked.is_ok();
    let result = checked.and_then(|()| commands::run(&context, &cli.command));
    let written = if may_write { monitor.write(&result) } else { Ok(()) };
    let result = result.and_then(|exit| written.map(|()| exit));
    if monitor.is_nagios() {
        return print_line(&Ui::new(output), monitor.line(&result));
    }
    let exit = result.unwrap_or_else(|error| {
        ui.failure(error.exit, &format!("{:#}", error.error), error.hint.as_deref());
        error.exit
    });
    ExitCode::from(exit.code())
}

/// Prints the line of a plugin, and returns its exit code.
fn print_line(ui: &Ui, (line, code): (String, u8)) -> ExitCode {
    ExitCode::from(ui.text(&line).map_or(State::Unknown as u8, |()| code))
}

/// Lets a number, a size or a time span begin with a dash, so that the error about `-1` says which values the option takes.
fn taking_dashes(command: Command) -> Command {
    let is_number = |name: &str| matches!(name, "N" | "N/T" | "K/N|auto" | "SIZE" | "SPAN" | "PERCENT" | "COLUMNS");
    let command = command.mut_args(|arg| {
        let takes = arg.get_value_names().unwrap_or_default().iter().any(|name| is_number(name));
        if takes { arg.allow_hyphen_values(true) } else { arg }
    });
    command.mut_subcommands(taking_dashes)
}

/// Which of these values an invalid command line gives an option.
fn asked_for(options: &[&str], values: &[&'static str]) -> Option<&'static str> {
    let words: Vec<String> = std::env::args_os().filter_map(|word| word.into_string().ok()).collect();
    values.iter().copied().find(|value| {
        let is_joined = |word: &str, option: &str| {
            word.strip_prefix(option)
                .is_some_and(|rest| rest.strip_prefix('=') == Some(value) || (!option.starts_with("--") && rest == *value))
        };
        let is_pair = |pair: &[String]| matches!(pair, [option, word] if word == value && options.contains(&option.as_str()));
        words.windows(2).any(is_pair) || words.iter().any(|word| options.iter().any(|option| is_joined(word, option)))
    })
}
