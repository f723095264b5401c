//! Checks backups on the storage.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::result_file::ResultFile;
use super::{Error, Observer, Result, StorageSettings, Stores, WorkEvent, actor};
use crate::domain::{CheckResult, CheckVerdict, Checks};
use crate::storage::RetryPolicy;
use crate::verify::{Checker, Request, Target, Watch};

/// How often progress is reported and a request to stop is looked for.
const POLL: Duration = Duration::from_millis(100);
/// How long backups in progress may take to end after a signal; threads that still wait for a storage then are abandoned.
const PATIENCE: Duration = Duration::from_millis(500);
/// The lowest priority: nice(2).
const LOWEST_PRIORITY: i32 = 19;

/// What stopped a check whose time was over.
pub const MAX_RUNTIME: &str = "--max-runtime";

pub struct Check {
    pub storage: StorageSettings,
    pub request: Request,
    pub targets: Arc<[Target]>,
    /// Results of an earlier check, carried over if the storage still confirms them.
    pub earlier: Checks,
    /// After this time nothing more is read.
    pub deadline: Option<Instant>,
}

#[derive(Debug)]
pub struct Checked {
    /// In the order of the targets.
    pub results: Vec<CheckResult>,
    /// How many targets have no result.
    pub left: usize,
    /// How many of the results are those of the earlier check.
    pub carried: usize,
    /// The signal that stopped the check, or [`MAX_RUNTIME`].
    pub interrupted: Option<&'static str>,
}

impl Check {
    /// Checks until all backups are done or the observer asks to stop; `file` gets every result as it arrives.
    pub fn run(self, mut file: Option<&mut ResultFile<'_>>, observer: &dyn Observer) -> Result<Checked> {
        let Self { storage, request, targets, earlier, deadline } = self;
        let watch = Watch::default();
        let stores = Arc::new(Stores::new(storage, RetryPolicy::default(), watch.flag()));
        let places: HashMap<&str, usize> = targets.iter().enumerate().map(|(place, target)| (target.backup.id.as_str(), place)).collect();
        observer.event(WorkEvent::Checking(request.level, targets.len()));
        let (arriving, worker) = start(Arc::clone(&stores), request, watch.clone(), Arc::clone(&targets), earlier).map_err(Error::Start)?;
        let mut results: Vec<CheckResult> = Vec::new();
        let (ready, is_over) = (Cell::new(0), Cell::new(false));
        let mut take = |result: CheckResult| {
            // It may have been cut off: as one of the backups that are left, it is checked by the next run.
            if is_over.get() && result.verdict == CheckVerdict::Unverifiable {
                return;
            }
            observer.event(WorkEvent::Checked(&result));
            let target = places.get(result.id.as_str()).and_then(|place| targets.get(*place));
            if let (Some(file), Some(target)) = (&mut file, target) {
                file.add(&result, target, observer);
            }
            results.push(result);
            ready.set(results.len());
        };
        let (mut interrupted, mut signals, mut until) = (None, 0, None);
        loop {
            match arriving.recv_timeout(POLL) {
                Ok(result) => take(result),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    if let Err(panic) = worker.join() {
                        std::panic::resume_unwind(panic);
                    }
                    break;
                }
            }
            if let Some(stop) = observer.stop().filter(|stop| stop.times > signals) {
                watch.flag().store(true, Ordering::Relaxed);
                // After a second signal it waits for nothing.
                until = Some(Instant::now() + if signals > 0 { Duration::ZERO } else { PATIENCE });
                (signals, interrupted) = (stop.times, Some(stop.signal));
            }
            if !is_over.get() && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                watch.flag().store(true, Ordering::Relaxed);
                is_over.set(true);
                until = until.or(Some(Instant::now() + PATIENCE));
                interrupted = interrupted.or(Some(MAX_RUNTIME));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                arriving.try_iter().for_each(take);
                break;
            }
            observer.event(WorkEvent::CheckProgress(ready.get(), &watch));
        }
        observer.event(WorkEvent::CheckEnded);
        stores.warnings().into_iter().for_each(|warning| observer.event(WorkEvent::Warning(warning)));
        results.sort_by_key(|result| places.get(result.id.as_str()).copied());
        let left = targets.len().saturating_sub(results.len());
        let interrupted = interrupted.filter(|why| *why != MAX_RUNTIME || left > 0);
        Ok(Checked { results, left, carried: watch.carried(), interrupted })
    }
}

/// Starts a check on its own thread, which is abandoned if a storage does not answer.
fn start(
    stores: Arc<Stores>,
    request: Request,
    watch: Watch,
    targets: Arc<[Target]>,
    earlier: Checks,
) -> std::io::Result<(Receiver<CheckResult>, JoinHandle<()>)> {
    let (sender, results) = mpsc::channel();
    let worker = std::thread::Builder::new().spawn(move || {
        if request.options.nice {
            // The threads and commands of the check inherit it, but not those of a repair. A lower priority is always permitted.
            let _ = rustix::process::nice(LOWEST_PRIORITY);
        }
        let host = actor::host();
        let checker = Checker::new(stores.as_ref(), &request, &watch, &targets).with_earlier_results(earlier, &host);
        checker.run(&targets, &|result| {
            // After a signal nobody receives it.
            let _ = sender.send(CheckResult { host: result.host.or_else(|| Some(host.clone())), ..result });
        });
    })?;
    Ok((results, worker))
}
