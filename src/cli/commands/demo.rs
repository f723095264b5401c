//! `demo`

use std::path::PathBuf;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::error::Result;
use crate::cli::exit::Exit;

/// Builds a small Cinder database and walks through a repair of it.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the files in this folder, to play with
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Runs `demo`.
pub fn run(_context: &Context<'_>, _args: &DemoArgs) -> Result<Exit> {
    Ok(Exit::Done)
}
