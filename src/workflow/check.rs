//! Checks backups on the storage.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Error, Observer, Result, StorageSettings, Stores, WorkEvent, actor};
use crate::domain::text::count;
use crate::domain::{Backup, CheckResult, CheckVerdict};
use crate::storage::RetryPolicy;
use crate::verify::{Answer, Checker, Request, Target, Task, Watch};

/// How often progress is reported and a request to stop is looked for.
const POLL: Duration = Duration::from_millis(100);
/// How long backups in progress may take to end after a signal; threads that still wait for a storage then are abandoned.
const PATIENCE: Duration = Duration::from_millis(500);
/// The lowest priority: nice(2).
const LOWEST_PRIORITY: i32 = 19;

/// What stopped a check whose time was over.
pub const MAX_RUNTIME: &str = "--max-runtime";
/// What stopped a check whose list of backups could not be read, or whose results could not be written.
pub(super) const STOPPED_BY_ERROR: &str = "an error";

/// The approximate number of tasks in a portion that is made from a list.
const PORTION: usize = 1_000;
/// How many results may wait for the sink.
const WAITING: usize = 64;

#[derive(Clone)]
pub struct Check {
    pub storage: StorageSettings,
    pub request: Request,
    /// After this time nothing more is read.
    pub deadline: Option<Instant>,
}

/// Tasks that are checked at the same time. Backups with a common ancestor belong to one portion.
#[derive(Debug, Default)]
pub struct Portion {
    pub tasks: Vec<Task>,
    /// How many backups were to be checked, but do not exist any more.
    pub gone: usize,
}

/// The backups to check, read while the check is running.
pub struct Tasks {
    /// How many there are; those that turn out not to exist any more are counted, too.
    pub total: usize,
    /// Read one at a time, on another thread. After an error nothing more is read, and what was begun is finished.
    pub portions: Box<dyn Iterator<Item = Result<Portion>> + Send>,
}

impl From<Vec<Target>> for Tasks {
    fn from(targets: Vec<Target>) -> Self {
        in_order(targets).into()
    }
}

impl From<Vec<Task>> for Tasks {
    /// The tasks keep this order, except that all members of a chain are at the place of the first one.
    fn from(tasks: Vec<Task>) -> Self {
        let total = tasks.len();
        let mut chains: Vec<Vec<Task>> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for task in tasks {
            let place = *places.entry(root(&task.target).id.clone()).or_insert(chains.len());
            match chains.get_mut(place) {
                Some(chain) => chain.push(task),
                None => chains.push(vec![task]),
            }
        }
        let mut chains = chains.into_iter();
        let portions = std::iter::from_fn(move || {
            let mut tasks = chains.next()?;
            while tasks.len() < PORTION
                && let Some(chain) = chains.next()
            {
                tasks.extend(chain);
            }
            Some(Ok(Portion { tasks, gone: 0 }))
        });
        Self { total, portions: Box::new(portions) }
    }
}

/// The tasks of these targets, which appear in a document in this order.
pub(super) fn in_order(targets: Vec<Target>) -> Vec<Task> {
    targets.into_iter().enumerate().map(|(place, target)| Task { place, ..target.into() }).collect()
}

/// The last known member of a backup's chain.
pub(super) fn root(target: &Target) -> &Backup {
    target.ancestors.last().map_or(&target.backup, AsRef::as_ref)
}

/// How a check ended.
#[derive(Debug)]
pub struct Checked {
    /// How many backups have no result.
    pub left: usize,
    /// How many of the results are those of the earlier check.
    pub carried: usize,
    /// The signal that stopped the check, [`MAX_RUNTIME`], or `an error`.
    pub interrupted: Option<&'static str>,
    /// This error: why not all tasks could be read.
    pub failure: Option<Error>,
}

impl Checked {
    /// An error, if not all backups were checked.
    pub(super) fn completed(self) -> Result<()> {
        match (self.failure, self.interrupted) {
            (Some(failure), _) => Err(failure),
            (None, Some(signal)) => Err(Error::Interrupted(signal)),
            (None, None) => Ok(()),
        }
    }
}

/// What has arrived from a check that is running.
#[derive(Debug, Default)]
struct Arrived {
    results: usize,
    carried: usize,
    gone: usize,
    failure: Option<Error>,
    /// The time of the check is over.
    is_over: bool,
}

impl Arrived {
    fn take(&mut self, message: Message, sink: &mut dyn FnMut(Answer), observer: &dyn Observer) {
        match message {
            // It may have been cut off: as one of the backups that are left, it is checked by the next run.
            Message::Answer(answer) if self.is_over && answer.result.verdict == CheckVerdict::Unverifiable => {}
            Message::Answer(answer) => {
                observer.event(WorkEvent::Checked(&answer.result));
                self.results += 1;
                self.carried += usize::from(answer.carried);
                sink(*answer);
            }
            Message::Gone(backups) => {
                self.gone += backups;
                let text = format!("{} deleted since the check began, and not checked", count(backups, "backup"));
                observer.event(WorkEvent::Warning(text));
            }
            Message::Failure(error) => self.failure = Some(error),
        }
    }
}

impl Check {
    /// Checks until all backups are done or the observer asks to stop; `sink` gets every result as it arrives. While the sink is busy, the
    /// check waits.
    pub fn run(self, tasks: Tasks, sink: &mut dyn FnMut(Answer), observer: &dyn Observer) -> Result<Checked> {
        let Self { storage, request, deadline } = self;
        let (watch, total) = (Watch::default(), tasks.total);
        let stores = Arc::new(Stores::new(storage, RetryPolicy::default(), watch.flag()));
        observer.event(WorkEvent::Checking(request.level, total));
        let (arriving, worker) = start(Arc::clone(&stores), request, watch.clone(), tasks).map_err(Error::Start)?;
        let mut arrived = Arrived::default();
        let (mut interrupted, mut signals, mut until) = (None, 0, None);
        loop {
            match arriving.recv_timeout(POLL) {
                Ok(message) => arrived.take(message, sink, observer),
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
            if !arrived.is_over && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                watch.flag().store(true, Ordering::Relaxed);
                arrived.is_over = true;
                until = until.or(Some(Instant::now() + PATIENCE));
                interrupted = interrupted.or(Some(MAX_RUNTIME));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                arriving.try_iter().for_each(|message| arrived.take(message, sink, observer));
                break;
            }
            observer.event(WorkEvent::CheckProgress(arrived.results, &watch));
        }
        observer.event(WorkEvent::CheckEnded);
        stores.warnings().into_iter().for_each(|warning| observer.event(WorkEvent::Warning(warning)));
        let Arrived { results, carried, gone, failure, .. } = arrived;
        let left = total.saturating_sub(results + gone);
        let interrupted = interrupted.filter(|why| *why != MAX_RUNTIME || left > 0).or(failure.as_ref().map(|_| STOPPED_BY_ERROR));
        Ok(Checked { left, carried, interrupted, failure })
    }
}

enum Message {
    Answer(Box<Answer>),
    Gone(usize),
    Failure(Error),
}

/// Starts a check on its own thread, which is abandoned if a storage does not answer.
fn start(stores: Arc<Stores>, request: Request, watch: Watch, tasks: Tasks) -> std::io::Result<(Receiver<Message>, JoinHandle<()>)> {
    let (sender, messages) = mpsc::sync_channel(WAITING);
    let worker = std::thread::Builder::new().spawn(move || {
        if request.options.nice {
            // The threads and commands of the check inherit it, but not those of a repair. A lower priority is always permitted.
            let _ = rustix::process::nice(LOWEST_PRIORITY);
        }
        let host = actor::host();
        let reports = sender.clone();
        // After a signal nobody receives anything.
        let report = move |message| drop(reports.send(message));
        let mut portions = tasks.portions;
        let portions = std::iter::from_fn(move || match portions.next()? {
            Ok(Portion { tasks, gone }) => {
                if gone > 0 {
                    report(Message::Gone(gone));
                }
                Some(tasks)
            }
            Err(error) => {
                report(Message::Failure(error));
                None
            }
        });
        Checker::new(stores.as_ref(), &request, &watch, &host).run(portions.fuse(), &|answer| {
            let result = CheckResult { host: answer.result.host.or_else(|| Some(host.clone())), ..answer.result };
            let _ = sender.send(Message::Answer(Box::new(Answer { result, ..answer })));
        });
    })?;
    Ok((messages, worker))
}
