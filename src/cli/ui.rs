//! The only place that prints: results to standard output, everything else, made safe for the terminal, to standard error.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use serde::Serialize;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use super::Exit;
use super::args::{ColorArg, LogFormat, OutputArgs, ProgressArg};
use crate::domain::text::json_escaped;
use crate::domain::time::stamp;
use crate::report::grid::{Column, Format, Grid, OutputOptions, ReportError};
use crate::report::safe::terminal;

/// Where what is printed goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    /// Results to standard output, everything else to standard error.
    Apart,
    /// Everything to standard output, so that it stays in order there.
    Together,
    Nowhere,
}

/// Standard output and standard error, and the options for both.
#[derive(Debug, Clone)]
pub struct Ui {
    streams: Streams,
    options: OutputOptions,
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    no_input: bool,
    /// Standard error has a JSON object on each line.
    logs_json: bool,
    /// As the command line asks for it.
    progress: Option<ProgressArg>,
    color_stderr: bool,
    /// A part of a result was written.
    begun: Arc<AtomicBool>,
    /// The reader of standard output has closed it.
    is_closed: Arc<AtomicBool>,
    /// A question takes the whole screen.
    is_full_screen: Arc<AtomicBool>,
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
        let most = args.options.max_width.filter(|width| *width > 0).map(|width| u16::try_from(width).unwrap_or(u16::MAX));
        let width = most.or_else(|| {
            stdout_is_terminal.then(|| size_of(io::stdout())).flatten().map(|(columns, _)| u16::try_from(columns).unwrap_or(u16::MAX))
        });
        let options = OutputOptions { width, color: color(stdout_is_terminal), ..args.options.clone() };
        let color_stderr = color(io::stderr().is_terminal());
        let (quiet, verbose, progress) = (args.quiet, args.verbose, args.progress);
        let logs_json = args.log_format == LogFormat::Json;
        // A question would stand between the objects.
        let no_input = args.no_input || logs_json;
        let (begun, is_closed, is_full_screen) = (Arc::default(), Arc::default(), Arc::default());
        Self {
            streams: Streams::Apart,
            options,
            quiet,
            verbose,
            no_input,
            logs_json,
            progress,
            color_stderr,
            begun,
            is_closed,
            is_full_screen,
        }
    }

    /// For a command inside another one: prints everything to standard output, or nothing anywhere; asks nothing and shows no
    /// progress.
    pub fn inner(args: &OutputArgs, muted: bool) -> Self {
        let ui = Self::new(args);
        let streams = if muted { Streams::Nowhere } else { Streams::Together };
        Self { streams, no_input: true, logs_json: false, color_stderr: ui.options.color, ..ui }
    }

    /// Whether this belongs to a command inside another one, which a person did not type.
    pub fn is_inner(&self) -> bool {
        self.streams != Streams::Apart
    }

    /// The text as one that stands out on standard output, where colours are wanted.
    pub fn strong(&self, text: &str) -> String {
        if self.options.color { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Whether results are for people.
    pub fn is_table(&self) -> bool {
        self.options.format == Format::Table
    }

    /// Whether results are a table whose columns were not chosen.
    pub fn is_brief_table(&self) -> bool {
        self.is_table() && self.options.columns.is_empty() && self.options.sort_columns.is_empty()
    }

    /// Whether results are for programs, and hold everything.
    pub fn is_document(&self) -> bool {
        matches!(self.options.format, Format::Json | Format::Jsonl | Format::Yaml)
    }

    /// Whether a result is written as JSON lines.
    pub fn is_stream(&self) -> bool {
        self.options.format == Format::Jsonl
    }

    /// Whether a person can be asked: at a terminal, and not forbidden.
    pub fn can_ask(&self) -> bool {
        !self.no_input && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether progress may be drawn.
    pub fn shows_progress(&self) -> bool {
        self.progress() == ProgressArg::Bar
    }

    /// How progress is shown.
    pub fn progress(&self) -> ProgressArg {
        let can_draw = || io::stderr().is_terminal() && !is_dumb();
        match self.progress {
            _ if self.streams != Streams::Apart => ProgressArg::None,
            Some(ProgressArg::Bar) if can_draw() => ProgressArg::Bar,
            None if !self.quiet && !self.logs_json && can_draw() => ProgressArg::Bar,
            None | Some(ProgressArg::Bar) => ProgressArg::None,
            Some(other) => other,
        }
    }

    /// A line about progress, which [`ProgressArg::Plain`] or [`ProgressArg::Json`] asks for.
    pub fn progress_line(&self, kind: &str, done: u64, total: Option<u64>, unit: &str) {
        if self.progress() == ProgressArg::Json {
            let fields = json!({ "done": done, "total": total, "unit": unit });
            self.object(kind, fields);
        } else {
            let total = total.map(|total| format!(" of {total}")).unwrap_or_default();
            self.show(format!("{kind}: {done}{total} {unit}"));
        }
    }

    /// Makes sure that the result has the columns of `--column`, without writing anything.
    pub fn check_columns<T>(&self, columns: &[Column<T>]) -> Result<(), ReportError> {
        crate::report::grid::write(&mut io::sink(), &(), "", || Ok(Grid::empty(columns)), &self.options)
    }

    /// Writes a result: the document or its rows, by `--format`.
    pub fn result(&self, document: &impl Serialize, rows_key: &str, grid: impl FnOnce() -> io::Result<Grid>) -> Result<(), ReportError> {
        self.begun.store(true, Ordering::Relaxed);
        let mut out = self.out();
        match crate::report::grid::write(&mut out, document, rows_key, grid, &self.options) {
            Err(ReportError::Io(error)) => Err(ReportError::Io(lost(&error))),
            other => other,
        }
    }

    /// Where a result of JSON lines is written.
    pub fn stream(&self) -> Box<dyn Write> {
        self.begun.store(true, Ordering::Relaxed);
        Box::new(BufWriter::new(self.out()))
    }

    /// Whether the reader of standard output has closed it, so that further results are written for nobody.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// The result of writing to [`Ui::stream`].
    pub fn written(&self, written: io::Result<()>) -> io::Result<()> {
        written.map_err(|error| lost(&error))
    }

    /// Writes text that is a result as it stands.
    pub fn text(&self, text: &str) -> io::Result<()> {
        let mut out = self.out();
        self.written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }

    /// Writes a line of a result for people, broken to the width of the terminal.
    pub fn result_line(&self, line: &str) -> io::Result<()> {
        self.text(&format!("{}\n", self.fitted(line)))
    }

    /// The same, beginning with a coloured word.
    pub fn result_entry(&self, color: u8, word: &str, text: &str) -> io::Result<()> {
        let line = self.fitted(&format!("{word:<8} {text}"));
        let colored = format!("\u{1b}[{color}m{word}\u{1b}[0m");
        let line = if self.options.color { line.replacen(word, &colored, 1) } else { line };
        self.text(&format!("{line}\n"))
    }

    fn fitted(&self, line: &str) -> String {
        let line = terminal(line);
        match self.options.width {
            Some(width) => broken(&line, width.into()),
            None => line,
        }
    }

    /// A sentence beside the result; not when quiet.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.show(text);
        }
    }

    /// A command to copy, with or without words before it: never broken into lines.
    pub fn say_command(&self, text: impl AsRef<str>) {
        if !self.quiet && self.logs_json {
            self.object("command", json!({ "text": text.as_ref().trim() }));
        } else if !self.quiet {
            self.line(&terminal(text.as_ref()));
        }
    }

    /// The subject of a question: shown even if quiet, because nobody can answer without it.
    pub fn show(&self, text: impl AsRef<str>) {
        if self.logs_json {
            return self.object("message", json!({ "text": text.as_ref() }));
        }
        self.line(&self.wrapped(&terminal(text.as_ref())));
    }

    /// Begins a question that takes the whole screen.
    pub fn begin_full_screen(&self) {
        self.is_full_screen.store(true, Ordering::SeqCst);
        let _ = execute!(io::stderr(), EnterAlternateScreen, Hide);
    }

    /// Ends a question of the whole screen, or the line of an abandoned one, and shows the cursor again.
    pub fn end_prompt(&self) {
        if self.is_full_screen.swap(false, Ordering::SeqCst) {
            let _ = execute!(io::stderr(), LeaveAlternateScreen, Show);
        } else {
            self.line("\u{1b}[?25h");
        }
    }

    /// How many columns and lines the terminal of questions has.
    pub fn prompt_size(&self) -> Option<(usize, usize)> {
        size_of(io::stderr())
    }

    /// How many columns the terminal of questions has.
    pub fn prompt_width(&self) -> Option<usize> {
        self.prompt_size().map(|(columns, _)| columns)
    }

    /// Whether questions may have colours.
    pub fn has_colors(&self) -> bool {
        self.color_stderr
    }

    pub fn detail(&self, text: impl AsRef<str>) {
        if self.verbose > 0 {
            self.show(text);
        }
    }

    pub fn warn(&self, text: impl AsRef<str>) {
        if self.logs_json {
            return self.object("warning", json!({ "text": text.as_ref() }));
        }
        self.labelled(33, "warning:", text.as_ref());
    }

    pub fn error(&self, message: &str, hint: Option<&str>) {
        if self.logs_json {
            return self.object("error", json!({ "text": message, "hint": hint }));
        }
        self.labelled(31, "error:", message);
        if let Some(hint) = hint {
            self.show(format!("hint: {hint}"));
        }
    }

    /// An error that ends the program. With JSON or YAML it is printed as a document in place of the result, so that
    /// standard output always holds one, unless a result was already written.
    pub fn failure(&self, exit: Exit, message: &str, hint: Option<&str>) {
        if self.logs_json {
            self.object("error", json!({ "code": exit, "exit_code": exit.code(), "text": message, "hint": hint }));
        } else {
            self.error(message, hint);
        }
        if self.is_document() && self.streams == Streams::Apart && !self.begun.load(Ordering::Relaxed) {
            let document = json!({
                "schema": "cinder-backup-repair/error", "schema_version": 1, "exit_code": exit.code(), "error": message, "hint": hint,
            });
            let options = OutputOptions { format: self.options.format, noindent: self.options.noindent, ..OutputOptions::default() };
            // The exit code reports it anyway.
            let _ = crate::report::grid::write(&mut self.out(), &document, "", || Ok(Grid::default()), &options);
        }
    }

    /// A text with a coloured word before it.
    fn labelled(&self, color: u8, label: &str, text: &str) {
        let text = self.wrapped(&format!("{label} {}", terminal(text)));
        self.line(&if self.color_stderr { text.replacen(label, &format!("\u{1b}[{color}m{label}\u{1b}[0m"), 1) } else { text });
    }

    /// A line as standard error shows it: at a terminal it is broken between words.
    fn wrapped(&self, line: &str) -> String {
        let width = self.prompt_width().filter(|_| self.streams == Streams::Apart);
        width.map_or_else(|| line.to_owned(), |width| broken(line, width))
    }

    /// Writes a JSON object with its time to standard error, on one line.
    fn object(&self, kind: &str, fields: Value) {
        let mut object = json!({ "time": stamp(jiff::Timestamp::now()), "kind": kind });
        if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
            object.extend(fields);
        }
        self.line(&json_escaped(&object.to_string()));
    }

    /// Writes lines to standard error; a closed stream does not stop the command.
    fn line(&self, text: &str) {
        let _ = match self.streams {
            Streams::Apart => writeln!(io::stderr().lock(), "{text}"),
            Streams::Together | Streams::Nowhere => writeln!(self.out(), "{text}"),
        };
    }

    fn out(&self) -> Box<dyn Write> {
        if self.streams == Streams::Nowhere {
            Box::new(io::sink())
        } else {
            Box::new(Results { out: io::stdout().lock(), is_closed: Arc::clone(&self.is_closed) })
        }
    }
}

/// Standard output. A reader that closes it early, as `head` does, has seen enough: what follows is dropped without an error.
struct Results {
    out: io::StdoutLock<'static>,
    is_closed: Arc<AtomicBool>,
}

impl Results {
    fn unless_closed<T>(&self, done: T, written: io::Result<T>) -> io::Result<T> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed.store(true, Ordering::Relaxed);
                Ok(done)
            }
            other => other,
        }
    }
}

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.unless_closed(bytes.len(), written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.unless_closed((), flushed)
    }
}

/// Breaks a line between words to a width. Text in backticks is for copying, so it counts as one word; a word that is longer than a line
/// is left to the terminal.
pub(super) fn broken(line: &str, width: usize) -> String {
    if line.width() <= width {
        return line.to_owned();
    }
    let indent = line.len() - line.trim_start().len();
    let mut quoted = false;
    let words = line.trim_start().split(|c: char| {
        quoted ^= c == '`';
        c == ' ' && !quoted
    });
    let mut text = String::new();
    let mut used = 0;
    for word in words {
        if text.is_empty() {
            text = " ".repeat(indent);
            used = indent;
        } else if used + 1 + word.width() > width {
            text.push('\n');
            text.push_str(&" ".repeat(indent + 2));
            used = indent + 2;
        } else {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += word.width();
    }
    text
}

/// Whether TERM says that the terminal understands no escape codes.
pub(super) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb")
}

/// The error of a result that cannot be written, with its destination.
fn lost(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write the result to standard output: {error}"))
}

/// How many columns and lines a terminal has.
fn size_of(terminal: impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_never_inside_of_what_is_to_be_copied() {
        assert_eq!(broken("short", 20), "short");
        assert_eq!(broken("warning: one two three four", 16), "warning: one two\n  three four");
        assert_eq!(broken("    indented words go on here", 20), "    indented words\n      go on here");
        let command = "look with `cinder-backup-repair history reconcile --audit-log x` then";
        assert_eq!(broken(command, 20), "look with\n  `cinder-backup-repair history reconcile --audit-log x`\n  then");
        assert_eq!(
            broken("sqlite:////a/very/long/path/to/cinder.sqlite it is", 20),
            "sqlite:////a/very/long/path/to/cinder.sqlite\n  it is"
        );
        assert_eq!(broken("说说说说 说说说说", 10), "说说说说\n  说说说说");
    }
}
