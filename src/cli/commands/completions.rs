//! `completions` and `man`

use clap::{Args, Command};
use clap_complete::Shell;

use crate::cli::{Context, Error, Exit, Result};

/// Writes a shell's completion script to standard output.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Writes the manual page to standard output.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The page of this command [default: the program's own]
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

pub fn completions(context: &Context<'_>, args: &CompletionsArgs, mut program: Command) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, env!("CARGO_PKG_NAME"), &mut script);
    context.ui.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub fn man(context: &Context<'_>, args: &ManArgs, mut root: Command) -> Result<Exit> {
    root.build();
    let page = match &args.command {
        None => root,
        Some(name) => root.find_subcommand(name).cloned().ok_or_else(|| Error::usage(format!("{name:?} is not a command")))?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    context.ui.text(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}
