//! A shell script for a person to review. This program never runs it.

use std::fmt::Display;
use std::io::Write;

use jiff::Timestamp;

use super::{Error, Result};
use crate::report::safe;

/// How long a script may be run, in seconds.
const LONGEST: i64 = 86_400;

/// The script that is written. Its commands end with `|| failed=1`.
pub(super) struct Script<'o>(pub &'o mut dyn Write);

impl Script<'_> {
    pub(super) fn line(&mut self, line: impl Display) -> Result<()> {
        writeln!(self.0, "{line}").map_err(|error| Error::Write("the commands".to_owned(), error))
    }

    /// A comment of one line. No character of the text can end the line.
    pub(super) fn comment(&mut self, text: &str) -> Result<()> {
        self.line(format!("# {}", safe::terminal(text)).trim_end())
    }

    /// Writes comments, and what ends an old script before its first command. `again` is the command that writes a new one.
    pub(super) fn begin(&mut self, comments: &[&str], again: &str) -> Result<()> {
        self.line("#!/bin/sh")?;
        comments.iter().try_for_each(|line| self.comment(line))?;
        self.line(format_args!(
            "age=$(($(date +%s) - {})) || exit 1\nif [ \"$age\" -lt 0 ] || [ \"$age\" -gt {LONGEST} ]; then\n    \
             echo 'this list is older than a day, or the clock is wrong: run {again} again' >&2\n    exit 1\nfi\nfailed=0",
            Timestamp::now().as_second()
        ))
    }

    /// Writes the exit code.
    pub(super) fn end(&mut self) -> Result<()> {
        self.line("\nexit \"$failed\"")
    }
}
