//! `history reconcile`

use std::path::Path;

use serde_json::json;

use crate::cli::{Context, Exit, ProgressDisplay, Result};
use crate::report::grid::Grid;
use crate::workflow;

pub(super) fn reconcile(context: &Context<'_>, path: &Path, run: Option<&str>) -> Result<Exit> {
    let mut database = context.connect()?;
    let units = workflow::reconcile(&mut database, path, run, &ProgressDisplay::new(context.ui))?;
    let rows = units.iter().map(|row| {
        vec![
            row.run.as_str().into(),
            row.unit.into(),
            row.id.as_str().into(),
            row.outcome.map_or_else(|| "open".to_owned(), |outcome| outcome.to_string()).into(),
            row.state.into(),
            row.detail.as_str().into(),
        ]
    });
    let columns = ["Run", "Unit", "ID", "Outcome", "State", "Detail"];
    let document = json!({
        "schema": "cinder-backup-repair/history-reconcile", "schema_version": 1, "audit_log": path.display().to_string(),
        "database": database.info(), "units": units,
    });
    context.ui.result(&document, "units", || Grid::of(&columns, rows))?;
    let count = |state: &str| units.iter().filter(|row| row.state == state).count();
    let (lost, open) = (count("lost"), count("unknown"));
    context.ui.say(format!(
        "{} kept, {lost} lost, {} changed since, {} changed again by this program, {} settled, {open} still unknown, in {}",
        count("kept"),
        count("changed") + count("gone"),
        count("superseded"),
        count("settled"),
        database.location,
    ));
    Ok(if open > 0 {
        Exit::Unknown
    } else if lost > 0 {
        Exit::Partial
    } else {
        Exit::Done
    })
}
