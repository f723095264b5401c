//! The only place that prints: results to standard output, everything else to standard error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::args::{ColorArg, FormatArg, OutputArgs};
use crate::report::grid::{Format, Grid, OutputOptions, ReportError};
use crate::report::safe::terminal;

/// Where what is printed goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    /// Results to standard output, everything else to standard error.
    Apart,
    /// Everything to standard output, so that it stays in order there.
    Together,
    /// Nowhere.
    Nowhere,
}

/// Standard output, standard error, and what the user wants of them.
#[derive(Debug, Clone)]
pub struct Ui {
    streams: Streams,
    options: OutputOptions,
    quiet: bool,
    verbose: u8,
    no_input: bool,
    color_stderr: bool,
}

impl Ui {
    /// From the command line and what the streams are.
    pub fn new(args: &OutputArgs) -> Self {
        let color = |terminal: bool| match args.color {
            ColorArg::Always => true,
            ColorArg::Never => false,
            ColorArg::Auto => terminal && !is_dumb() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let stdout_is_terminal = io::stdout().is_terminal();
        let width = stdout_is_terminal.then(terminal_width).flatten();
        let options = OutputOptions {
            format: match args.format {
                FormatArg::Table => Format::Table,
                FormatArg::Json => Format::Json,
                FormatArg::Yaml => Format::Yaml,
                FormatArg::Csv => Format::Csv,
                FormatArg::Value => Format::Value,
            },
            columns: args.columns.clone(),
            sort_columns: args.sort_columns.clone(),
            noindent: args.noindent,
            width,
            color: color(stdout_is_terminal),
        };
        let color_stderr = color(io::stderr().is_terminal());
        Self { streams: Streams::Apart, options, quiet: args.quiet, verbose: args.verbose, no_input: args.no_input, color_stderr }
    }

    /// One for a command inside of another: it puts everything on standard output, or nothing anywhere, asks nobody and draws
    /// no progress.
    pub fn inner(args: &OutputArgs, muted: bool) -> Self {
        let ui = Self::new(args);
        let streams = if muted { Streams::Nowhere } else { Streams::Together };
        Self { streams, no_input: true, color_stderr: ui.options.color, ..ui }
    }

    /// Whether this is the one of a command inside of another, which was not typed as it runs.
    pub fn is_inner(&self) -> bool {
        self.streams != Streams::Apart
    }

    /// The text as one that stands out on standard output, where colours are wanted.
    pub fn strong(&self, text: &str) -> String {
        if self.options.color { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Whether `-q` was given.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether results are for people.
    pub fn is_table(&self) -> bool {
        self.options.format == Format::Table
    }

    /// Whether results are for programs, and hold everything.
    pub fn is_document(&self) -> bool {
        matches!(self.options.format, Format::Json | Format::Yaml)
    }

    /// How often `-v` was given.
    pub fn verbosity(&self) -> u8 {
        self.verbose
    }

    /// Whether a person can be asked: at a terminal, and not forbidden.
    pub fn can_ask(&self) -> bool {
        !self.no_input && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether progress may be drawn.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && self.streams == Streams::Apart && io::stderr().is_terminal() && !is_dumb()
    }

    /// Makes sure that the columns asked for are among a result's, without writing anything.
    pub fn check_columns(&self, grid: &Grid) -> Result<(), ReportError> {
        crate::report::grid::write(&mut io::sink(), &(), "", grid, &self.options)
    }

    /// Writes a result: the document or its rows, as the user wants them.
    pub fn result(&self, document: &impl Serialize, rows_key: &str, grid: &Grid) -> Result<(), ReportError> {
        let mut out = self.out();
        match crate::report::grid::write(&mut out, document, rows_key, grid, &self.options) {
            // Whoever read it has seen enough.
            Err(ReportError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(ReportError::Io(error)) => Err(ReportError::Io(lost(&error))),
            other => other,
        }
    }

    /// Writes text that is a result as it stands.
    pub fn text(&self, text: &str) -> io::Result<()> {
        let mut out = self.out();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| lost(&error)),
        }
    }

    /// A sentence beside the result; not when quiet.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.stderr(text.as_ref());
        }
    }

    /// What a question is about: it is seen even when quiet, for nobody can answer what was not shown.
    pub fn show(&self, text: impl AsRef<str>) {
        self.stderr(text.as_ref());
    }

    /// Ends the line of a question that was given up, and shows the cursor again.
    pub fn end_prompt(&self) {
        self.stderr("\u{1b}[?25h");
    }

    /// How many columns the terminal of questions has.
    pub fn prompt_width(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
        (size.ws_col > 0).then_some(usize::from(size.ws_col))
    }

    /// A sentence for those who asked for more.
    pub fn detail(&self, text: impl AsRef<str>) {
        if self.verbose > 0 {
            self.stderr(text.as_ref());
        }
    }

    /// A warning, quiet or not.
    pub fn warn(&self, text: impl AsRef<str>) {
        let text = terminal(text.as_ref());
        self.stderr(&if self.color_stderr { format!("\u{1b}[33mwarning:\u{1b}[0m {text}") } else { format!("warning: {text}") });
    }

    /// An error with what to do about it.
    pub fn error(&self, message: &str, hint: Option<&str>) {
        let message = terminal(message);
        self.stderr(&if self.color_stderr { format!("\u{1b}[31merror:\u{1b}[0m {message}") } else { format!("error: {message}") });
        if let Some(hint) = hint {
            self.stderr(&format!("hint: {}", terminal(hint)));
        }
    }

    /// Lines on standard error; a stream that is gone is no reason to stop.
    fn stderr(&self, text: &str) {
        let _ = match self.streams {
            Streams::Apart => writeln!(io::stderr().lock(), "{text}"),
            Streams::Together | Streams::Nowhere => writeln!(self.out(), "{text}"),
        };
    }

    fn out(&self) -> Box<dyn Write> {
        if self.streams == Streams::Nowhere { Box::new(io::sink()) } else { Box::new(io::stdout().lock()) }
    }
}

/// Whether the terminal says of itself that it understands no escape codes.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb")
}

/// A result that nobody gets, with where it was to go.
fn lost(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the result could not be written to standard output: {error}"))
}

fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}
