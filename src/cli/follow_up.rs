//! The commands to run once the API is back: each once, at the screen or as a script.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use super::new_files::NewFiles;
use super::{Result, Ui};
use crate::domain::digest;
use crate::domain::text::count;
use crate::report::safe::terminal;
use crate::spool::Spool;

/// How many are shown.
const MOST_SHOWN: usize = 20;

#[derive(Debug, Clone, clap::Args)]
pub struct FollowUpArgs {
    /// Write the commands to run once the API is back to this new file, as a shell script for review
    #[arg(long, value_name = "FILE")]
    pub follow_up: Option<PathBuf>,
}

#[derive(Default)]
pub struct FollowUps {
    pub commands: Spool<String>,
    said: HashSet<u128>,
}

impl FollowUps {
    pub fn add(&mut self, command: &String) -> io::Result<()> {
        if self.said.insert(digest::short(&[command])) { self.commands.push(command) } else { Ok(()) }
    }

    /// Shows them in a result for people, or writes them to a file. `all` is a command that writes all of them.
    pub fn present(&self, ui: &Ui, file: Option<NewFiles<'_>>, all: &str) -> Result<()> {
        let number = self.commands.len();
        if let Some(mut file) = file {
            file.fill(|out| {
                writeln!(
                    out,
                    "#!/bin/sh\n# To run once the API is back. Review each command first: it is the last chance to keep the data."
                )?;
                self.commands.iter().try_for_each(|command| writeln!(out, "{}", terminal(&command?)))
            })?;
            file.keep();
        } else if ui.is_table() && number > 0 {
            ui.say("Once the API is back:");
            for command in self.commands.iter().take(MOST_SHOWN) {
                ui.say_command(format!("  {}", command?));
            }
            if number > MOST_SHOWN {
                ui.say_command(format!("and {}: {all}", count(number - MOST_SHOWN, "more command")));
            }
        }
        Ok(())
    }
}
