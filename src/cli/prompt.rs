//! Questions to a person at a terminal.

use std::collections::BTreeSet;
use std::io;

use dialoguer::{Input, MultiSelect, Password};
use secrecy::SecretString;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::signal::Question;
use super::{Error, Exit, Result, Ui, view};
use crate::plan::{Plan, Unit};
use crate::report::safe::terminal;

/// How many units are shown at once.
const PAGE: usize = 15;
/// The columns that a list draws before each line, and one column at which terminals wrap.
const MARGIN: usize = 7;

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

/// A unit, cut to the width of a list: a line that wraps would be drawn over others.
fn line(unit: &Unit, width: usize) -> String {
    let text = terminal(&format!("{} {}", unit.title(), view::changes(&unit.changes)));
    if text.width() <= width {
        return text;
    }
    let mut used = 1;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    let cut: String = text.chars().take_while(fits).collect();
    format!("{cut}…")
}

/// Lets a person choose units of a plan; returns their numbers. All are chosen at first.
pub fn choose(ui: &Ui, plan: &Plan) -> Result<BTreeSet<usize>> {
    let width = ui.prompt_width().unwrap_or(80).saturating_sub(MARGIN).max(20);
    let units = plan.units.iter().map(|unit| unit.map(|unit| (unit.number, line(&unit, width))));
    let units: Vec<(usize, String)> = units.collect::<io::Result<_>>()?;
    let items = units.iter().map(|(_, line)| (line, true));
    // Not in the prompt: a prompt that wraps would be drawn over and over.
    ui.show("Space toggles a line, a toggles all, enter continues, esc stops.");
    let prompt = MultiSelect::new().with_prompt("Units to change").items_checked(items).max_length(PAGE).report(false);
    let Some(chosen) = ask(ui, || prompt.interact_opt())? else {
        return Err(Error::new(Exit::Interrupted, "nothing was chosen; nothing was changed"));
    };
    Ok(chosen.into_iter().filter_map(|at| units.get(at)).map(|(number, _)| *number).collect())
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
