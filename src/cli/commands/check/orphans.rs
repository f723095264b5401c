//! `check --orphans`

use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use super::CheckCommandArgs;
use crate::cli::new_files::NewFiles;
use crate::cli::{Context, Error, Exit, ProgressDisplay, Result, view};
use crate::domain::text::count;
use crate::report::grid::Grid;
use crate::spool::Spool;
use crate::verify::orphans::{Orphan, OrphanEnd, OrphanHead, OrphanKind};
use crate::workflow::{MAX_RUNTIME, OrphanCheck, OrphanReport};

/// The document of `check --orphans`.
#[derive(Serialize, JsonSchema)]
pub struct OrphanDocument<'a> {
    schema: &'static str,
    schema_version: u32,
    #[serde(flatten)]
    head: &'a OrphanHead,
    orphans: &'a Spool<Orphan>,
    #[serde(flatten)]
    end: &'a OrphanEnd,
}

pub fn run(context: &Context<'_>, args: &CheckCommandArgs) -> Result<Exit> {
    let ui = context.ui;
    let deadline = args.max_runtime.and_then(|span| Instant::now().checked_add(span));
    ui.check_columns(view::ORPHANS)?;
    let shard = args.shard.map(|shard| shard.shard(args.shards, context.environment)).transpose()?;
    let storage = args.storage.settings(context)?;
    let mut database = context.connect()?;
    let observer = ProgressDisplay::stoppable(ui)?;
    let stream = ui.is_stream().then(|| ui.stream());
    let (settle, resume) = (args.storage.settle, args.resume.clone());
    let is_unread = || ui.is_closed();
    let keeps = ui.is_document() && !ui.is_stream();
    let check = OrphanCheck { storage, settle, shard, resume, deadline, stream, is_unread: &is_unread, keeps, commands: None };
    let mut files = NewFiles::create(args.commands.iter())?;
    let OrphanReport { head, orphans, end } = if args.commands.is_some() {
        let mut report = None;
        files.fill(|file| {
            report = Some(OrphanCheck { commands: Some(file), ..check }.run(&mut database, &observer));
            Ok(())
        })?;
        report.transpose()?.ok_or_else(|| Error::new(Exit::Unexpected, "nothing was compared"))?
    } else {
        check.run(&mut database, &observer)?
    };
    // Without the rest, a list would be taken for all of it.
    if end.interrupted.is_none() {
        files.keep();
    }
    if !ui.is_stream() {
        let (schema, schema_version) = ("cinder-backup-repair/orphans", 1);
        let document = OrphanDocument { schema, schema_version, head: &head, orphans: &orphans, end: &end };
        ui.result(&document, "summary", || Grid::of(&end.summary, view::ORPHANS))?;
    }
    end.unread.iter().for_each(|problem| ui.warn(problem));
    // A reader that has seen enough is no reason for a warning.
    let interrupted = end.interrupted.as_ref().filter(|_| args.commands.is_some() || !ui.is_closed());
    if let Some(why) = interrupted {
        let how = if ui.is_stream() { "continues from this stream" } else { "continues from the stream of --format jsonl" };
        ui.warn(format!("stopped by {why} before the end; --resume {how}"));
    }
    let backups = |is_lost: bool| -> u64 {
        let kinds = end.summary.iter().filter(|count| (count.kind == OrphanKind::NothingStored) == is_lost);
        kinds.map(|count| count.backups).sum()
    };
    ui.say(match (backups(false), backups(true)) {
        (0, 0) => format!("No orphans, in {}", database.location),
        (left, 0) => format!("Objects of {} without a live row, in {}", count(left, "backup"), database.location),
        (left, lost) => format!(
            "Objects of {} without a live row; {} with nothing on the storage, in {}",
            count(left, "backup"),
            count(lost, "live backup"),
            database.location
        ),
    });
    Ok(match interrupted.map(String::as_str) {
        Some(signal) if signal != MAX_RUNTIME => Exit::of_signal(signal),
        _ if backups(true) > 0 => Exit::Damaged,
        _ if !end.unread.is_empty() => Exit::Partial,
        _ => Exit::Done,
    })
}
