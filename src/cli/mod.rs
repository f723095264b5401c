//! The command line: arguments, prompts, views, signals and exit codes. [`crate::workflow`] does the work; nothing sees this module.

mod args;
mod choice;
mod commands;
mod context;
mod error;
mod execute;
mod exit;
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
mod ui;
mod view;

use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser};

pub use commands::Cli;

use context::Context;
use error::{Error, Result};
use exit::Exit;
use progress_display::ProgressDisplay;
use ui::Ui;

use crate::config::Environment;

/// Runs the program on the process's own arguments.
pub fn main() -> ExitCode {
    let parsed = taking_dashes(Cli::command()).try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // clap writes help and version to standard output and usage errors to standard error; 2 is our code too.
            let Some(form) = json_form().filter(|_| error.use_stderr()) else {
                let _ = error.print();
                return ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Done }.code());
            };
            let text = error.to_string();
            let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").trim();
            if let Ok(cli) = Cli::try_parse_from(["cinder-backup-repair", "--format", form, "man"]) {
                Ui::new(&cli.global.output).failure(Exit::Usage, message, Some("see --help"));
            }
            return ExitCode::from(Exit::Usage.code());
        }
    };
    let ui = Ui::new(&cli.global.output);
    let environment = Environment::new(std::env::vars_os());
    let context = Context { ui: &ui, global: &cli.global, environment: &environment };
    let exit = commands::run(&context, &cli.command).unwrap_or_else(|error| {
        ui.failure(error.exit, &format!("{:#}", error.error), error.hint.as_deref());
        error.exit
    });
    ExitCode::from(exit.code())
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

/// The form of JSON that an invalid command line asks for.
fn json_form() -> Option<&'static str> {
    let words: Vec<String> = std::env::args_os().filter_map(|word| word.into_string().ok()).collect();
    ["json", "jsonl"].into_iter().find(|form| {
        let is_form = |word: &str| ["-f", "-f=", "--format="].iter().any(|option| word.strip_prefix(option) == Some(form));
        let is_pair = |pair: &[String]| matches!(pair, [option, word] if word == form && (option == "-f" || option == "--format"));
        words.windows(2).any(is_pair) || words.iter().any(|word| is_form(word))
    })
}
