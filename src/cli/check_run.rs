//! Checks of the storage as commands have them: with progress, a way to stop, and evidence from other hosts.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::context::{Connected, Context};
use super::error::{Error, Result};
use super::exit::Exit;
use super::hosts;
use super::reading::reading;
use super::result_file::ResultFile;
use super::signal::{Second, Signals};
use super::signing::VerifyKey;
use super::storage::{CheckArgs, StorageArgs, Stores};
use crate::db::Access;
use crate::domain::status::{CREATING, ERROR};
use crate::domain::{Backup, CheckResult, Checks, ColumnSet, Finding, FindingKind, Image, Level, Policy, Selection, Verdict};
use crate::report::safe::terminal;
use crate::scan::{KeptRows, Reader, ScanRequest, database_info, lineage, scan};
use crate::verify::check_document::merge;
use crate::verify::chunked::Share;
use crate::verify::{CheckDocument, Checker, Request, Target, Watch, partial};

/// No evidence is larger.
const MAX_EVIDENCE_BYTES: u64 = 1 << 30;
/// How often progress is shown and signals are looked at.
const GLANCE: Duration = Duration::from_millis(100);
/// How long backups in progress may take to end after a signal; threads that still wait for a storage then are abandoned.
const PATIENCE: Duration = Duration::from_millis(500);

/// What came of checking.
pub struct Checked {
    /// In the order of the targets.
    pub results: Vec<CheckResult>,
    /// How many targets have none.
    pub left: usize,
    /// How many of the results are those of the earlier check.
    pub carried: usize,
    /// The signal that stopped it, with its exit code.
    pub interrupted: Option<(Exit, &'static str)>,
    /// After a signal, further ones are noted as long as this is held: what was found is still to be written.
    pub signals: Option<Signals>,
}

/// A running check.
struct Running {
    results: Receiver<CheckResult>,
    worker: JoinHandle<()>,
}

impl Running {
    /// Starts it on its own thread, which is abandoned if a storage does not answer.
    fn start(stores: Arc<Stores>, request: Request, watch: Watch, targets: Arc<[Target]>, earlier: Checks) -> std::io::Result<Self> {
        let (tell, results) = mpsc::channel();
        let worker = std::thread::Builder::new().spawn(move || {
            let host = super::actor::host();
            let checker = Checker::new(stores.as_ref(), &request, &watch, &targets).with_earlier_results(earlier, &host);
            checker.run(&targets, &|result| {
                // After a signal nobody receives it.
                let _ = tell.send(CheckResult { host: result.host.or_else(|| Some(host.clone())), ..result });
            });
        })?;
        Ok(Self { results, worker })
    }
}

/// Checks targets, with progress at a terminal, until all are done or a signal comes; `file` gets every result as it comes. Results
/// in `earlier` that the storage still confirms are carried over.
pub fn check(
    context: &Context<'_>,
    args: &StorageArgs,
    request: &Request,
    targets: &Arc<[Target]>,
    earlier: Checks,
    mut file: Option<&mut ResultFile<'_>>,
) -> Result<Checked> {
    let cannot = |error: std::io::Error| Error::new(Exit::Unexpected, format!("cannot begin the check: {error}"));
    let signals = Signals::note(Second::Noted).map_err(cannot)?;
    let watch = Watch::default();
    let stores = Arc::new(Stores::new(context, &args.place, watch.flag())?.with_source_pool(args.ceph_source_pool.clone()));
    let places: HashMap<&str, usize> = targets.iter().enumerate().map(|(place, target)| (target.backup.id.as_str(), place)).collect();
    let running = Running::start(Arc::clone(&stores), request.clone(), watch.clone(), Arc::clone(targets), earlier).map_err(cannot)?;
    let bar = Progress::new(context, request.level, targets.len());
    let mut results: Vec<CheckResult> = Vec::new();
    let mut interrupted = None;
    let mut patience = None;
    let ready = Cell::new(0);
    let mut take = |result: CheckResult| {
        if context.ui.verbosity() > 0 {
            bar.line.suspend(|| context.ui.detail(terminal(&format!("{}: {}", result.id, result.verdict))));
        }
        let target = places.get(result.id.as_str()).and_then(|place| targets.get(*place));
        if let (Some(file), Some(target)) = (&mut file, target) {
            bar.line.suspend(|| file.add(&result, target));
        }
        results.push(result);
        ready.set(results.len());
    };
    loop {
        match running.results.recv_timeout(GLANCE) {
            Ok(result) => take(result),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(panic) = running.worker.join() {
                    std::panic::resume_unwind(panic);
                }
                break;
            }
        }
        if let Some(signal) = signals.take() {
            watch.flag().store(true, Ordering::Relaxed);
            // After a second signal it does not wait for those either.
            let again = interrupted.replace(signal).is_some();
            patience = Some(Instant::now() + if again { Duration::ZERO } else { PATIENCE });
        }
        if patience.is_some_and(|until| Instant::now() >= until) {
            running.results.try_iter().for_each(take);
            break;
        }
        bar.show(ready.get(), &watch);
    }
    bar.line.finish_and_clear();
    for warning in stores.warnings() {
        context.ui.warn(terminal(&warning));
    }
    results.sort_by_key(|result| places.get(result.id.as_str()).copied());
    let left = targets.len().saturating_sub(results.len());
    let signals = Some(signals).filter(|_| interrupted.is_some());
    Ok(Checked { results, left, carried: watch.carried(), interrupted, signals })
}

/// The progress display. The total of bytes is known once all side files were read; until then no bar is shown, because its total
/// would keep growing.
struct Progress {
    line: indicatif::ProgressBar,
    reads_data: bool,
    targets: usize,
    is_wide: bool,
}

impl Progress {
    fn new(context: &Context<'_>, level: Level, targets: usize) -> Self {
        let shown = context.ui.shows_progress();
        let line = if shown { indicatif::ProgressBar::new(0) } else { indicatif::ProgressBar::hidden() };
        let is_wide = context.ui.prompt_width().is_none_or(|width| width >= 100);
        Self { line, reads_data: level != Level::Quick, targets, is_wide }
    }

    fn show(&self, ready: usize, watch: &Watch) {
        // The order matters: first whether the total is final, then the bytes.
        let is_counted = watch.counted() >= self.targets;
        let (done, expected) = if self.reads_data { watch.progress() } else { (ready as u64, self.targets as u64) };
        let template = match (self.reads_data, is_counted, self.is_wide) {
            (false, _, _) => "{msg}  {bar:30} {eta} left",
            (true, false, _) => "{msg}, {bytes} read, {bytes_per_sec}, counting how much is left",
            (true, true, true) => "{msg}  {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            (true, true, false) => "{msg}  {bytes} of {total_bytes}, {eta} left",
        };
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            self.line.set_style(style);
        }
        self.line.set_length(expected);
        self.line.set_position(done);
        self.line.set_message(format!("{ready} of {} backups", self.targets));
    }
}

/// The targets that findings are about: those whose rows came with them.
pub fn targets_of_findings(findings: &[Finding], columns: ColumnSet) -> Vec<Target> {
    findings
        .iter()
        .filter(|finding| finding.kind == FindingKind::Backup && finding.verdict != Verdict::Recent)
        .filter_map(|finding| {
            let mut rows = finding.rows.iter().map(|image| Backup { project_id: finding.project_id.clone(), ..Backup::of_image(image) });
            let backup = Backup { display_name: finding.name.clone(), ..rows.next()? };
            Some(Target { backup, ancestors: rows.map(Arc::new).collect(), columns })
        })
        .collect()
}

/// The columns that a row's image has.
pub fn columns_of(image: &Image) -> ColumnSet {
    if image.columns.contains_key("restore_volume_id") {
        ColumnSet::Mitaka
    } else if image.columns.contains_key("parent_id") {
        ColumnSet::Liberty
    } else {
        ColumnSet::Juno
    }
}

/// The backups with these ids, as far as they are live, with what they rest on.
pub fn targets_by_id(connected: &mut Connected, ids: &[String]) -> Result<Vec<Target>> {
    connected.session.begin(Access::ReadOnly)?;
    let mut reader = Reader { session: connected.session.as_mut(), schema: &connected.schema };
    let read = targets(&mut reader, ids);
    let ended = connected.session.rollback();
    let targets = read?;
    ended?;
    Ok(targets)
}

fn targets(reader: &mut Reader<'_>, ids: &[String]) -> std::result::Result<Vec<Target>, crate::db::DbError> {
    let columns = reader.schema.columns;
    let mut backups = reader.backups(ids)?;
    backups.sort_by(|a, b| a.id.cmp(&b.id));
    let ancestors = lineage::ancestors(reader, &backups)?;
    Ok(backups.into_iter().zip(ancestors).map(|(backup, ancestors)| Target { backup, ancestors, columns }).collect())
}

/// Live backups that a predicate takes, with what they rest on. The predicate sees no more of a row than a scan counts.
pub fn targets_in_database(connected: &mut Connected, wanted: &mut dyn FnMut(&Backup) -> bool) -> Result<Vec<Target>> {
    connected.session.begin(Access::ReadOnly)?;
    let mut reader = Reader { session: connected.session.as_mut(), schema: &connected.schema };
    let read = (|| {
        let mut ids = Vec::new();
        reader.live_backups(&mut |backup| {
            if wanted(&backup) {
                ids.push(backup.id);
            }
        })?;
        targets(&mut reader, &ids)
    })();
    let ended = connected.session.rollback();
    let targets = read?;
    ended?;
    Ok(targets)
}

/// Reads what `check` wrote on another host, or left behind when it was cut off.
pub fn read_evidence(path: &Path) -> Result<CheckDocument> {
    let shown = path.display();
    let read = crate::input::read_json(path, MAX_EVIDENCE_BYTES);
    let text = read.map_err(|error| Error::usage(format!("cannot read the evidence {shown}: {error}")))?;
    let read = if partial::is_partial(&text) { partial::read(&text) } else { CheckDocument::parse(&text) };
    read.map_err(|error| Error::usage(format!("{shown} {error}")))
}

/// What is known of the storage before a decision: evidence from other hosts, and a check of what a first scan finds, if
/// one was asked for.
pub fn gather(
    context: &Context<'_>,
    connected: &mut Connected,
    args: &CheckArgs,
    policy: &Policy,
    selection: &Selection,
    may_be_empty: bool,
) -> Result<Checks> {
    let mut all = Vec::new();
    let key = args.verify_key.as_deref().map(VerifyKey::read).transpose()?;
    for path in &args.evidence {
        let evidence = read_evidence(path)?;
        if let Some(key) = &key {
            key.verify(&format!("the evidence {}", path.display()), &evidence.sha256, evidence.signature.as_ref())?;
        }
        let ours = database_info(connected.session.as_ref(), &connected.schema);
        if evidence.database.identity != ours.identity {
            let (path, theirs) = (path.display(), &evidence.database);
            let problem = format!("the evidence {path} is about the database {theirs}, but this is {ours}; nothing was changed");
            return Err(Error::new(Exit::Stale, problem));
        }
        if let Some(why) = &evidence.interrupted {
            context.ui.warn(terminal(&format!("the check in {} was stopped early ({why})", path.display())));
        }
        // Only of what is still pending the rows are compared.
        let pending = |check: &CheckResult| {
            let status = check.rows.first().and_then(|row| row.value("status").as_text());
            matches!(status, Some(CREATING | ERROR))
        };
        let (settle, held_to) = (args.storage.settle.as_secs(), evidence.settle_seconds);
        all.extend(evidence.into_results(pending).map(|mut result| {
            if held_to < settle {
                result.hold_to(settle);
            }
            result
        }));
    }
    let checks = merge(all);
    let Some(level) = args.check else { return Ok(checks) };
    let request = ScanRequest::new(policy, selection, KeptRows::Chains, &checks);
    let first = reading(context.ui, || scan(connected.session.as_mut(), &connected.schema, &request))?;
    if !may_be_empty {
        // Before a check that may take hours, not after it.
        hosts::insist(context.ui, &first, selection, policy, may_be_empty)?;
    }
    let mut targets = targets_of_findings(&first.document.findings, connected.schema.columns);
    // What is known at this level from elsewhere, and may still be believed, need not be read again.
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).datetime();
    targets.retain(|target| {
        !checks.get(&target.backup.id).is_some_and(|check| {
            check.settles(level)
                && check.expired(now, policy.evidence_max_age_seconds).is_none()
                && check.outdated(&target.backup, &target.ancestors, target.columns).is_none()
        })
    });
    if targets.is_empty() {
        return Ok(checks);
    }
    let how_many = if targets.len() == 1 { "1 backup".to_owned() } else { format!("{} backups", targets.len()) };
    // A quick check reads no data: say so, and that it makes nothing available.
    let how = match level {
        Level::Quick if policy.accept_quick => "quick: no data is read; --check deep reads all data",
        Level::Quick => "quick: no data is read, so it makes nothing available without --accept-quick; --check deep reads all data",
        Level::Deep | Level::Restore => level.name(),
    };
    context.ui.say(format!("Checking {how_many} on the storage ({how}) …"));
    let targets: Arc<[Target]> = targets.into();
    let checked = check(context, &args.storage, &args.storage.request(level, Share::All), &targets, Checks::new(), None)?;
    if let Some((exit, signal)) = checked.interrupted {
        return Err(Error::new(exit, format!("stopped by {signal} while checking the storage; nothing was changed")));
    }
    let by_id: HashMap<&str, &Target> = targets.iter().map(|target| (target.backup.id.as_str(), target)).collect();
    let mut results = checked.results;
    for result in &mut results {
        result.rows.extend(by_id.get(result.id.as_str()).into_iter().flat_map(|target| target.rows_above()));
    }
    // Together with what was known: a look that went less deep than the evidence does not take its damage back.
    let checks = merge(checks.into_values().chain(results));
    connected.reconnect()?;
    Ok(checks)
}
