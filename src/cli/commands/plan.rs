//! `plan`

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::args::{DecisionArgs, SelectionArgs};
use crate::cli::context::Context;
use crate::cli::error::{Error, Result};
use crate::cli::exit::Exit;
use crate::cli::reading::reading;
use crate::cli::reports::{self, Material};
use crate::cli::signing::SigningKey;
use crate::cli::skipped::Skipped;
use crate::cli::storage::CheckArgs;
use crate::cli::{check_run, hosts, view};
use crate::domain::text::shell_word;
use crate::report::safe::terminal;
use crate::scan::{KeptRows, ScanRequest};

/// Scans, and writes what could be put right into a plan file and reports of it. Changes nothing in the database.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Ids or names of backups; `-` reads ids from standard input [default: all that are stuck]
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    /// Write the plan to this file; it must not exist yet
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write a report too: .md for a change ticket, .sql as a script for the server's own client, .csv; repeatable
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,
    /// Sign the plan with this private key (Ed25519 in PEM), for `apply --verify-key`
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// Which rows.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// What is allowed.
    #[command(flatten)]
    pub decision: DecisionArgs,
    /// What the decision may rest on.
    #[command(flatten)]
    pub checks: CheckArgs,
    /// End with 3 if the plan changes anything
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// Runs `plan`.
pub fn run(context: &Context<'_>, args: &PlanArgs) -> Result<Exit> {
    let backups = super::repair::named(&args.backups)?;
    let selection = args.selection.selection(&backups).map_err(Error::usage)?;
    let kinds = args.report.iter().map(|path| reports::Kind::of(path)).collect::<std::result::Result<Vec<_>, _>>().map_err(Error::usage)?;
    context.ui.check_columns(&view::units(&[]))?;
    let key = args.sign_key.as_deref().map(|path| SigningKey::read(context.ui, path)).transpose()?;
    // A file that cannot be had is told of before a check that may take hours, not after it; they are made when there is something
    // to put into them, lest a kill leaves them behind empty.
    drop(NewFiles::create(args.out.iter().chain(&args.report))?);
    let mut connected = context.connect()?;
    connected.warn_of_defaults(context.ui, args.selection.service_down_time.is_some());
    let mut policy = args.selection.policy(Some(&args.decision), &connected).map_err(Error::usage)?;
    selection.tell(&mut policy);
    args.checks.tell(&mut policy);
    let checks = check_run::gather(context, &mut connected, &args.checks, &policy, &selection, args.selection.allow_empty)?;
    let looked = args.checks.check.is_some();
    let request = ScanRequest { storage_checked: looked, ..ScanRequest::new(&policy, &selection, KeptRows::Changes, &checks) };
    let (mut plan, scan) = reading(context.ui, || super::repair::propose(&mut connected, &request))?;
    plan.signature = key.map(|key| key.sign(&plan.sha256));
    hosts::insist(context.ui, &scan, &selection, &policy, args.selection.allow_empty)?;
    super::repair::warn_of_quick(context.ui, &plan);
    let refused = super::repair::refusals(&scan, &selection);
    for refusal in &refused {
        context.ui.warn(format!("not in the plan: {}: {}", terminal(&refusal.id), terminal(&refusal.reason)));
    }
    let engine = connected.session.server().engine;
    let mut files = NewFiles::create(args.out.iter().chain(&args.report))?;
    if args.out.is_some() {
        files.fill(|file| file.write_all(plan.to_json().as_bytes()))?;
    }
    for kind in kinds {
        let (record, plan_file, same_places) = (&context.global.record, args.out.as_deref(), connected.same_places.as_str());
        let material = Material { plan: &plan, scan: &scan, engine, record, plan_file, same_places };
        files.fill(|file| reports::write(kind, file, material))?;
    }
    files.keep();
    context.ui.result(&plan, "units", &view::units(&plan.units))?;
    if context.ui.is_table() {
        let summary = super::scan::sentence(&scan.document, &selection);
        let changes = crate::cli::execute::units(plan.units.len());
        let location = terminal(&connected.location);
        context.ui.say(format!("{summary}; the plan changes {} rows in {changes}, in {location}.", plan.rows()));
        match &args.out {
            Some(path) => {
                // What rests on a check is looked at once more when it is applied.
                let storage =
                    if plan.checks.is_empty() || context.ui.is_inner() { String::new() } else { args.checks.storage.place.same() };
                let command = format!("cinder-backup-repair apply {}{}{storage}", shell_word(path.display()), connected.same_places);
                context.ui.say_command(format!("To apply it: {command}"));
            }
            None => context.ui.say("Nothing was written; --out FILE keeps the plan."),
        }
    }
    Skipped::of(&scan, &refused).tell(context.ui);
    Ok(if !refused.is_empty() {
        // As a repair would end that leaves something out.
        Exit::Partial
    } else if args.detailed_exitcode && !plan.units.is_empty() {
        Exit::Findings
    } else {
        Exit::Done
    })
}

/// Files that did not exist before, readable by their owner alone. All are left, or none: without [`NewFiles::keep`] they are
/// taken away again.
pub(super) struct NewFiles<'a> {
    files: Vec<(&'a Path, File)>,
    filled: usize,
    kept: bool,
}

impl<'a> NewFiles<'a> {
    /// Makes them all, so that a name that cannot be had is known before anything is written.
    pub fn create(paths: impl Iterator<Item = &'a PathBuf>) -> Result<Self> {
        let mut new = Self { files: Vec::new(), filled: 0, kept: false };
        for path in paths {
            let shown = path.display();
            if path == Path::new("-") {
                return Err(Error::usage("- is not standard output here: name a file, or leave it out and give --format json"));
            }
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists if new.files.iter().any(|(other, _)| *other == path) => {
                    Error::usage(format!("{shown} is named twice; give each of --out and --report a file of its own"))
                }
                ErrorKind::AlreadyExists => {
                    Error::usage(format!("{shown} exists already, and nothing is overwritten; give another name or remove it"))
                }
                ErrorKind::NotFound => Error::usage(format!("cannot write {shown}: its folder does not exist; make it first")),
                _ => Error::usage(format!("cannot write {shown}: {error}")),
            })?;
            new.files.push((path, file));
        }
        Ok(new)
    }

    /// Fills the next one.
    pub fn fill(&mut self, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
        let Some((path, file)) = self.files.get(self.filled) else { return Ok(()) };
        self.filled += 1;
        let mut writer = BufWriter::new(file);
        let written = fill(&mut writer).and_then(|()| writer.flush()).and_then(|()| file.sync_all());
        written.map_err(|error| Error::new(Exit::Unexpected, format!("cannot write {}: {error}", path.display())))
    }

    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewFiles<'_> {
    fn drop(&mut self) {
        if !self.kept {
            for (path, _) in &self.files {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
