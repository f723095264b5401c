//! Questions to a person at a terminal.

use std::collections::BTreeSet;

use dialoguer::{Input, MultiSelect, Password};
use secrecy::SecretString;

use super::error::{Error, Result};
use super::exit::Exit;
use super::ui::Ui;
use crate::plan::Plan;
use crate::report::safe::terminal;

fn broken(error: &dialoguer::Error) -> Error {
    Error::new(Exit::Usage, format!("no answer could be read: {error}")).hint("give --yes, or run it at a terminal")
}

/// A password, not echoed.
pub fn password(what: &str) -> Result<SecretString> {
    let text = Password::new().with_prompt(terminal(what)).allow_empty_password(true).interact().map_err(|error| broken(&error))?;
    Ok(SecretString::from(text))
}

/// Which units of a plan are to be carried out, by number. All are chosen to begin with.
pub fn choose(plan: &Plan) -> Result<BTreeSet<usize>> {
    let items: Vec<String> = plan
        .units
        .iter()
        .map(|unit| {
            let why: Vec<&str> = unit.evidence.iter().map(|evidence| evidence.text.as_str()).collect();
            let name = unit.name.as_deref().unwrap_or("");
            let status = unit.status.as_deref().unwrap_or("NULL");
            terminal(&format!("{} {} {name:?} {status}: {}", unit.kind.name(), unit.id, why.join("; ")))
        })
        .collect();
    let chosen = MultiSelect::new()
        .with_prompt("Which of these? (space changes, enter goes on)")
        .items_checked(items.iter().map(|item| (item.as_str(), true)))
        .max_length(15)
        .report(false)
        .interact()
        .map_err(|error| broken(&error))?;
    Ok(chosen.into_iter().filter_map(|at| plan.units.get(at)).map(|unit| unit.number).collect())
}

/// Asks for the number of rows to be typed: a habit of typing `y` must not change a database.
pub fn confirm_rows(ui: &Ui, rows: usize) -> Result<()> {
    if !ui.can_ask() {
        return Err(Error::usage("nobody can be asked here, so nothing was changed")
            .hint("give --yes to change without a question, or --dry-run to look"));
    }
    let typed: String = Input::new()
        .with_prompt(format!("Type the number of rows to change ({rows}) to go on, anything else to stop"))
        .allow_empty(true)
        .interact_text()
        .map_err(|error| broken(&error))?;
    if typed.trim() == rows.to_string() {
        return Ok(());
    }
    Err(Error::new(Exit::Safety, "not confirmed: nothing was changed"))
}
