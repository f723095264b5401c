//! Questions to a person at a terminal.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};

use crossterm::cursor::MoveTo;
use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use crossterm::queue;
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{Clear, ClearType, disable_raw_mode, enable_raw_mode};
use dialoguer::{Input, Password};
use secrecy::SecretString;

use super::choice::{Choice, Drawn, Step};
use super::signal::Question;
use super::ui::is_dumb;
use super::{Error, Exit, Result, Ui};
use crate::plan::Plan;
use crate::report::safe::terminal;

/// Asks, and restores the terminal in every case.
fn ask<T>(ui: &Ui, question: impl FnOnce() -> dialoguer::Result<T>) -> Result<T> {
    let standing = Question::begin(ui)?;
    question().map_err(|error| {
        let dialoguer::Error::IO(cause) = &error;
        if cause.kind() == io::ErrorKind::Interrupted {
            standing.stop();
        }
        ui.end_prompt();
        Error::new(Exit::Usage, format!("cannot read an answer: {error}")).hint("use --yes, or run it at a terminal")
    })
}

pub fn password(ui: &Ui, what: &str) -> Result<SecretString> {
    let prompt = Password::new().with_prompt(terminal(what)).allow_empty_password(true);
    Ok(SecretString::from(ask(ui, || prompt.interact())?))
}

/// Lets a person choose units of a plan; returns their numbers. `are_chosen` says whether all are at first.
pub fn choose(ui: &Ui, plan: &Plan, location: &str, are_chosen: bool) -> Result<BTreeSet<usize>> {
    if is_dumb() {
        let problem = "this terminal (TERM=dumb) cannot show the units to choose from; nothing was changed";
        return Err(Error::usage(problem).hint("select with --status, --host or ids and use --yes, or use plan and apply"));
    }
    let mut choice = Choice::new(location, plan.units.iter(), are_chosen)?;
    let standing = Question::begin(ui)?;
    let step = FullScreen::begin(ui).and_then(|screen| screen.ask(&mut choice, plan, &standing));
    match step.map_err(|error| Error::new(Exit::Usage, format!("cannot read an answer: {error}")))? {
        Step::Continue => Ok(choice.chosen()),
        _ => Err(Error::new(Exit::Interrupted, "nothing was chosen; nothing was changed")),
    }
}

/// The terminal while a list takes all of it. What it showed before comes back when this is dropped.
struct FullScreen<'a>(&'a Ui);

impl<'a> FullScreen<'a> {
    fn begin(ui: &'a Ui) -> io::Result<Self> {
        let screen = Self(ui);
        enable_raw_mode()?;
        ui.begin_full_screen();
        Ok(screen)
    }

    /// Draws and reads keys until the choice ends.
    fn ask(&self, choice: &mut Choice, plan: &Plan, standing: &Question) -> io::Result<Step> {
        choice.open_if_it_fits(self.size().1);
        loop {
            let unit = choice.current().map(|place| plan.units.get(place)).transpose()?.flatten();
            let (columns, rows) = self.size();
            self.draw(choice.draw(columns, rows, unit.as_ref()).iter().take(rows))?;
            let Event::Key(key) = event::read()? else { continue };
            if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
                standing.stop();
            }
            match choice.press(key) {
                Step::Stay => {}
                end => return Ok(end),
            }
        }
    }

    fn size(&self) -> (usize, usize) {
        self.0.prompt_size().unwrap_or((80, 24))
    }

    fn draw<'l>(&self, lines: impl Iterator<Item = &'l Drawn>) -> io::Result<()> {
        let mut out = BufWriter::new(io::stderr().lock());
        for (number, line) in (0..).zip(lines) {
            let attribute = if line.is_current && self.0.has_colors() { Attribute::Reverse } else { Attribute::Reset };
            // Cleared first: after a full line, the cursor still stands on its last character.
            queue!(out, MoveTo(0, number), Clear(ClearType::CurrentLine), SetAttribute(attribute), Print(&line.text))?;
        }
        queue!(out, SetAttribute(Attribute::Reset))?;
        out.flush()
    }
}

impl Drop for FullScreen<'_> {
    fn drop(&mut self) {
        self.0.end_prompt();
        let _ = disable_raw_mode();
    }
}

pub fn insist_on_terminal(ui: &Ui) -> Result<()> {
    if ui.can_ask() {
        return Ok(());
    }
    let nobody = Error::usage("cannot ask for confirmation without a terminal; nothing was changed");
    Err(nobody.hint("use --yes to change without asking, or --dry-run to see the changes"))
}

/// Asks the person to type the number of rows: a habitual `y` must change nothing.
pub fn confirm_rows(ui: &Ui, rows: usize, location: &str) -> Result<()> {
    insist_on_terminal(ui)?;
    // Above the prompt, which must fit on one line of the terminal.
    ui.show(format!("The database is {}.", location));
    let prompt = Input::new()
        .with_prompt(format!("Type the number of rows to change ({rows}) to continue, anything else to stop"))
        .allow_empty(true);
    let typed: String = ask(ui, || prompt.interact_text())?;
    if typed.trim() == rows.to_string() {
        return Ok(());
    }
    Err(Error::new(Exit::Interrupted, "not confirmed; nothing was changed"))
}
