//! `rescue`

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::new_files::NewFiles;
use crate::cli::sentences::counted;
use crate::cli::storage::{self, StorageArgs};
use crate::cli::{Context, Exit, ProgressDisplay, Result, view};
use crate::domain::Level;
use crate::domain::record_stream::{StreamKind, StreamWriter};
use crate::domain::text::count;
use crate::domain::time::{human, seconds};
use crate::report::grid::Grid;
use crate::verify::chunked::Share;
use crate::verify::orphans::OrphanHead;
use crate::verify::rescue::{LostBackup, Summary};
use crate::workflow::{KEY_IS_UNKNOWN, Rescue, RescueReport};

/// Finds backups that are finished on the storage but have no row, because the database was lost or restored from an older dump. Checks them,
/// and prints for each what `cinder backup-import` needs. Changes nothing in the database or on the storage.
#[derive(Debug, Args)]
pub struct RescueArgs {
    /// Only the backups with these ids and those that they are based on; their rows may be deleted [default: all without a row]
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    /// quick: names, sizes and side files; deep: every object against its digest; restore: every block as a restore would write it
    #[arg(long, value_name = "LEVEL", default_value = "deep", value_parser = storage::level)]
    pub level: Level,
    /// Write the imports to this new file, as a shell script for review: parents first, grouped by project. The script does nothing if it
    /// is older than a day
    #[arg(long, value_name = "FILE")]
    pub commands: Option<PathBuf>,
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// What was read.
#[derive(Serialize, JsonSchema)]
pub(super) struct RescueHead<'a> {
    #[serde(flatten)]
    walk: &'a OrphanHead,
    level: Level,
}

/// The document of `rescue`.
#[derive(Serialize, JsonSchema)]
pub(super) struct RescueDocument<'a> {
    schema: &'static str,
    schema_version: u32,
    #[serde(flatten)]
    head: RescueHead<'a>,
    backups: &'a [LostBackup],
    interrupted: Option<&'a str>,
    unread: &'a [String],
    follow_up: &'a [String],
    summary: Summary,
}

/// The stream `cinder-backup-repair/rescue-records`.
struct RescueRecords;

impl StreamKind for RescueRecords {
    const SCHEMA: &'static str = "cinder-backup-repair/rescue-records";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = "a stream of `rescue --format jsonl`";
    const INSTEAD: &'static str = "run `rescue` again";
    type Head = Value;
    type Record = Value;
    type End = Value;
}

pub fn run(context: &Context<'_>, args: &RescueArgs) -> Result<Exit> {
    let ui = context.ui;
    ui.check_columns(view::LOST)?;
    let named: BTreeSet<String> = args.backups.iter().map(|id| id.to_ascii_lowercase()).collect();
    let (storage, request) = (args.storage.settings(context)?, args.storage.request(args.level, Share::All));
    let settle = seconds(request.settle);
    let mut database = context.connect()?;
    let observer = ProgressDisplay::stoppable(ui)?;
    let mut files = NewFiles::create(args.commands.iter())?;
    let report = Rescue { storage, request, named: &named }.run(&mut database, &observer)?;
    let mut written = Ok(());
    files.fill(|file| {
        written = report.write_commands(file);
        Ok(())
    })?;
    written?;
    if report.interrupted.is_none() {
        files.keep();
    }
    let summary = Summary::of(&report.backups);
    print(context, &report, summary)?;
    report.unread.iter().for_each(|problem| ui.warn(problem));
    if ui.is_table() {
        say(context, &report);
    }
    if let Some(why) = &report.interrupted {
        ui.warn(format!("stopped by {why} before the end"));
    }
    let parts = counted(&[
        (summary.importable, "can be imported"),
        (summary.damaged, "damaged"),
        (summary.refused, "cannot be imported for another reason"),
    ]);
    ui.say(match parts.as_slice() {
        [] => format!("No lost backups with objects older than {} (--settle), in {}", human(settle), database.location),
        parts => format!("{} without a live row: {}, in {}", count(report.backups.len(), "backup"), parts.join(", "), database.location),
    });
    Ok(match &report.interrupted {
        Some(signal) => Exit::of_signal(signal),
        None if summary.damaged > 0 => Exit::Damaged,
        None if summary.refused > 0 || !report.unread.is_empty() => Exit::Partial,
        None => Exit::Done,
    })
}

fn print(context: &Context<'_>, report: &RescueReport, summary: Summary) -> Result<()> {
    let RescueReport { backups, unread, interrupted, follow_up, .. } = report;
    let (schema, schema_version, interrupted) = ("cinder-backup-repair/rescue", 1, interrupted.as_deref());
    let head = RescueHead { walk: &report.head, level: report.level };
    if context.ui.is_stream() {
        let write = || -> std::io::Result<()> {
            let mut writer = StreamWriter::<RescueRecords, _>::begin(context.ui.stream(), &json!(head), None)?;
            backups.iter().try_for_each(|backup| writer.add(&json!({ "backup": backup })))?;
            let end = json!({ "interrupted": interrupted, "unread": unread, "follow_up": follow_up, "summary": summary });
            writer.end(&end).map(drop)
        };
        return Ok(write()?);
    }
    let document = RescueDocument { schema, schema_version, head, backups, interrupted, unread, follow_up, summary };
    Ok(context.ui.result(&document, "backups", || Grid::of(backups, view::LOST))?)
}

/// Says what the table does not show.
fn say(context: &Context<'_>, report: &RescueReport) {
    let ui = context.ui;
    for backup in report.backups.iter().filter(|backup| !backup.is_importable()) {
        ui.say(format!("{} cannot be imported:", backup.id));
        backup.obstacles.iter().for_each(|obstacle| ui.say(format!("  {obstacle}")));
    }
    if report.backups.iter().any(|backup| backup.is_importable() && backup.encrypted == Some(true)) {
        ui.warn(KEY_IS_UNKNOWN);
    }
    for command in &report.follow_up {
        ui.say("After the import, correct the counters of live parents:");
        ui.say_command(format!("  {command}"));
    }
    if report.half > 0 {
        ui.say(format!("{} without a row: never finished, so not rescued; `check --orphans` lists them.", count(report.half, "backup")));
    }
}
