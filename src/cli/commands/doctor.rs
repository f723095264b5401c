//! `doctor`

use std::io;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::storage::PlaceArgs;
use crate::cli::{Context, Error, Exit, Measured, MonitorArgs, Result, Ui};
use crate::domain::DatabaseInfo;
use crate::domain::text::count;
use crate::report::grid::{Column, Grid};
use crate::workflow::{Found, Line, examine_database, examine_log, examine_storage};

/// Examines what a repair depends on: configuration, database, privileges, heartbeats, storage and audit log. Each line is ok, a warning or
/// a failure, with what to do. Changes nothing.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Leave out the storage, for a host that does not reach it
    #[arg(long)]
    pub no_storage: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub monitor: MonitorArgs,
}

/// A line as it is shown.
#[derive(Debug, Serialize, JsonSchema)]
struct Check {
    topic: &'static str,
    /// `ok`, `warning` or `failure`.
    state: &'static str,
    text: String,
    /// What to do.
    advice: Option<String>,
    /// The exit code that a command would end with.
    exit_code: Option<u8>,
}

/// The document `cinder-backup-repair/doctor`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Document {
    schema: &'static str,
    schema_version: u32,
    program: String,
    /// `None` without a connection.
    database: Option<DatabaseInfo>,
    checks: Vec<Check>,
    summary: Summary,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Summary {
    ok: usize,
    warnings: usize,
    failures: usize,
}

const CHECKS: &[Column<Check>] = &[
    ("State", |check| check.state.into()),
    ("Topic", |check| check.topic.into()),
    ("Found", |check| check.text.as_str().into()),
    ("What to Do", |check| check.advice.as_deref().into()),
];

/// The lines so far, and the exit code of the first failure. A table shows each line at once: a storage may not answer for minutes.
struct Checks<'u> {
    ui: &'u Ui,
    list: Vec<Check>,
    exit: Option<Exit>,
    shown: io::Result<()>,
}

impl Checks<'_> {
    fn push(&mut self, topic: &'static str, state: &'static str, text: String, advice: Option<String>, exit: Option<Exit>) {
        let check = Check { topic, state, text, advice, exit_code: exit.map(Exit::code) };
        if self.ui.is_table() && self.shown.is_ok() {
            self.shown = show(self.ui, &check);
        }
        self.exit = self.exit.or(exit);
        self.list.push(check);
    }

    fn add(&mut self, (topic, found): Line) {
        match found {
            Found::Ok(text) => self.push(topic, "ok", text, None, None),
            Found::Warning(text, advice) => self.warn(topic, text, Some(advice)),
            Found::Failure(error) => self.fail(topic, error.into()),
        }
    }

    fn extend(&mut self, topic: &'static str, lines: Result<Vec<Line>>) {
        match lines {
            Ok(lines) => lines.into_iter().for_each(|line| self.add(line)),
            Err(error) => self.fail(topic, error),
        }
    }

    fn warn(&mut self, topic: &'static str, text: String, advice: Option<String>) {
        self.push(topic, "warning", text, advice, None);
    }

    fn fail(&mut self, topic: &'static str, Error { exit, error, hint }: Error) {
        self.push(topic, "failure", format!("{error:#}"), hint, Some(exit));
    }
}

fn show(ui: &Ui, Check { state, topic, text, advice, .. }: &Check) -> io::Result<()> {
    let color = match *state {
        "ok" => 32,
        "warning" => 33,
        _ => 31,
    };
    ui.result_entry(color, state, &format!("{topic}: {text}"))?;
    advice.iter().try_for_each(|advice| ui.result_line(&format!("{:9}-> {advice}", "")))
}

pub fn run(context: &Context<'_>, args: &DoctorArgs) -> Result<Exit> {
    let ui = context.ui;
    ui.check_columns(CHECKS)?;
    let mut checks = Checks { ui, list: Vec::new(), exit: None, shown: Ok(()) };
    let database = examine(context, args, &mut checks);
    checks.extend("audit log", context.audit_path().map(|path| examine_log(&path)));
    let Checks { list: checks, exit, shown, .. } = checks;
    let number = |state: &str| checks.iter().filter(|check| check.state == state).count();
    let summary = Summary { ok: number("ok"), warnings: number("warning"), failures: number("failure") };
    let said = match (summary.failures, summary.warnings) {
        (0, 0) => "everything that a repair needs is in order".to_owned(),
        (0, warnings) => format!("a repair can work; {}", count(warnings, "warning")),
        (failures, warnings) => format!("{}, {}", count(failures, "failure"), count(warnings, "warning")),
    };
    context.monitor.measured(Measured::of_doctor(summary.ok, summary.warnings, summary.failures, said.clone()));
    let program = format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let document = Document { schema: "cinder-backup-repair/doctor", schema_version: 1, program, database, checks, summary };
    if !ui.is_table() {
        ui.result(&document, "checks", || Grid::of(&document.checks, CHECKS))?;
        return Ok(exit.unwrap_or(Exit::Done));
    }
    shown?;
    ui.say(said);
    Ok(exit.unwrap_or(Exit::Done))
}

/// Examines the configuration, the database and the storage, as far as each can be reached.
fn examine(context: &Context<'_>, args: &DoctorArgs, checks: &mut Checks<'_>) -> Option<DatabaseInfo> {
    let resolved = match context.resolve() {
        Ok(resolved) => resolved,
        Err(error) => {
            checks.fail("configuration", error);
            return None;
        }
    };
    let files: Vec<String> = resolved.cinder.files().map(|file| file.display().to_string()).collect();
    let origin = resolved.database.origin.to_string();
    let read = match files.as_slice() {
        [] => "; no cinder.conf was read".to_owned(),
        [file] if origin.starts_with(file) => String::new(),
        files => format!("; read {}", files.join(", ")),
    };
    let text = format!("the database is {}, from {origin}{read}", resolved.database.target.describe());
    if files.is_empty() {
        let advice = "use --config-file: the heartbeat intervals and the options of the storage are Cinder's defaults otherwise";
        checks.warn("configuration", text, Some(advice.to_owned()));
    } else {
        checks.add(("configuration", Found::Ok(text)));
    }
    for text in resolved.warnings.iter().chain(&resolved.database.warnings) {
        checks.warn("configuration", text.clone(), None);
    }
    let mut database = match context.open(resolved) {
        Ok(database) => database,
        Err(error) => {
            checks.fail("server", error);
            return None;
        }
    };
    examine_database(&mut database, &mut |line| checks.add(line));
    if !args.no_storage {
        let settings = args.place.settings(context);
        let examined = settings.and_then(|settings| Ok(examine_storage(&mut database, settings, &mut |line| checks.add(line))?));
        examined.unwrap_or_else(|error| checks.fail("storage", error));
    }
    Some(database.info())
}
