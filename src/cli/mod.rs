//! The command line: arguments, prompts, what is printed, exit codes. Sees everything; nothing sees it.

pub mod args;
mod carry_out;
pub mod commands;
mod context;
mod error;
mod exit;
mod prompt;
mod reports;
mod signal;
mod ui;
mod view;
mod who;

use std::process::ExitCode;

use clap::Parser;

pub use error::{Error, Result};
pub use exit::Exit;

use args::{Cli, Command};
use context::Context;
use ui::Ui;

/// Runs the program on the process's own arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap writes help and version to standard output and usage errors to standard error; 2 is our code too.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Done }.code());
        }
    };
    let ui = Ui::new(&cli.global.output);
    let exit = match dispatch(cli, &ui) {
        Ok(exit) => exit,
        Err(error) => {
            ui.error(&format!("{:#}", error.error), error.hint.as_deref());
            error.exit
        }
    };
    ExitCode::from(exit.code())
}

fn dispatch(cli: Cli, ui: &Ui) -> Result<Exit> {
    let context = Context { ui, global: &cli.global };
    match &cli.command {
        Command::Scan(args) => commands::scan::run(&context, args),
        Command::Plan(args) => commands::plan::run(&context, args),
        Command::Apply(args) => commands::apply::run(&context, args),
        Command::Repair(args) => commands::repair::run(&context, args),
        Command::Undo(args) => commands::undo::run(&context, args),
        Command::History(args) => commands::history::run(&context, args),
        Command::Demo(args) => commands::demo::run(&context, args),
        Command::Completions(args) => commands::completions::completions(&context, args),
        Command::Man(args) => commands::completions::man(&context, args),
    }
}
