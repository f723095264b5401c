//! `doctor`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::storage::PlaceArgs;
use crate::cli::{Context, Error, Exit, Measured, MonitorArgs, Result};
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

/// The lines so far, and the exit code of the first failure.
#[derive(Default)]
struct Checks(Vec<Check>, Option<Exit>);

impl Checks {
    fn add(&mut self, (topic, found): Line) {
        match found {
            Found::Ok(text) => self.0.push(Check { topic, state: "ok", text, advice: None, exit_code: None }),
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
        self.0.push(Check { topic, state: "warning", text, advice, exit_code: None });
    }

    fn fail(&mut self, topic: &'static str, Error { exit, error, hint }: Error) {
        self.1 = self.1.or(Some(exit));
        self.0.push(Check { topic, state: "failure", text: format!("{error:#}"), advice: hint, exit_code: Some(exit.code()) });
    }
}

pub fn run(context: &Context<'_>, args: &DoctorArgs) -> Result<Exit> {
    let ui = context.ui;
    ui.check_columns(CHECKS)?;
    let mut checks = Checks::default();
    let database = examine(context, args, &mut checks);
    checks.extend("audit log", context.audit_path().map(|path| examine_log(&path)));
    let Checks(checks, exit) = checks;
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
    for Check { state, topic, text, advice, .. } in &document.checks {
        let color = match *state {
            "ok" => 32,
            "warning" => 33,
            _ => 31,
        };
        ui.result_entry(color, state, &format!("{topic}: {text}"))?;
        if let Some(advice) = advice {
            ui.result_line(&format!("{:9}-> {advice}", ""))?;
        }
    }
    ui.say(said);
    Ok(exit.unwrap_or(Exit::Done))
}

/// Examines the configuration, the database and the storage, as far as each can be reached.
fn examine(context: &Context<'_>, args: &DoctorArgs, checks: &mut Checks) -> Option<DatabaseInfo> {
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
    checks.extend("database", Ok(examine_database(&mut database)));
    if !args.no_storage {
        checks.extend("storage", args.place.settings(context).and_then(|settings| Ok(examine_storage(&mut database, settings)?)));
    }
    Some(database.info())
}
