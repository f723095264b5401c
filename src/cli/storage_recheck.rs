//! The last look at the storage before a change, as commands have it: in parallel, in bounded time, and told of once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::actor;
use super::check_run::targets_by_id;
use super::context::{Connected, Context};
use super::error::Result;
use super::storage::{PlaceArgs, Stores};
use crate::apply::{Precheck, deciding_check};
use crate::backoff::Backoff;
use crate::domain::{CheckResult, Driver, Look};
use crate::plan::Plan;
use crate::report::safe::terminal;
use crate::storage::RetryPolicy;
use crate::verify::{PrecheckRound, Target, precheck};

/// So many looks at once: each is a listing, and one of each backup below.
const AT_ONCE: usize = 8;
/// How often a signal is looked for meanwhile.
const GLANCE: Duration = Duration::from_millis(100);
/// A failure that took so long is a slow one; after so many in a row a storage is not asked again in this run.
const SLOW: Duration = Duration::from_secs(2);
const SLOW_FAILURES: u32 = 3;
/// Before a change nobody waits as long as in a check.
const POLICY: RetryPolicy =
    RetryPolicy { attempts: 3, backoff: Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(5) } };

/// What looks, shared with its threads: a directory whose server is away holds up a thread for as long as it likes, which
/// then is left behind.
struct Eyes {
    stores: Stores,
    targets: HashMap<String, Target>,
    host: String,
    slow: Mutex<HashMap<Option<Driver>, (u32, String)>>,
}

impl Eyes {
    fn look(&self, check: &CheckResult, round: &PrecheckRound) -> Look {
        let Some(target) = self.targets.get(&check.id) else { return Look::Unseen("its row is not there any more".to_owned()) };
        if let Some((_, why)) = lock(&self.slow).get(&check.driver).filter(|(failures, _)| *failures >= SLOW_FAILURES) {
            return Look::Unseen(why.clone());
        }
        let begun = Instant::now();
        let look = precheck(&self.stores, target, check, &self.host, round);
        let mut slow = lock(&self.slow);
        match &look {
            Look::Unseen(why) if begun.elapsed() >= SLOW => slow.entry(check.driver).or_insert((0, why.clone())).0 += 1,
            Look::Unseen(_) => {}
            _ => drop(slow.remove(&check.driver)),
        }
        look
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last look of one run.
pub struct StorageRecheck<'a> {
    /// `None` where no unit rests on the storage.
    eyes: Option<Arc<Eyes>>,
    cancelled: Arc<AtomicBool>,
    stop: &'a dyn Fn() -> bool,
    /// How long to wait for the next answer.
    patience: Duration,
    /// How many backups could not be seen, and why the first could not.
    unseen: Mutex<Option<(usize, String)>>,
}

impl<'a> StorageRecheck<'a> {
    /// Ready to look for the units of a plan that rest on the storage; nothing is reached yet, but the rows are read.
    pub fn new(
        context: &Context<'_>,
        connected: &mut Connected,
        plan: &Plan,
        place: Option<&PlaceArgs>,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Self> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let ids: Vec<String> = plan.units.iter().filter(|unit| deciding_check(plan, unit).is_some()).map(|unit| unit.id.clone()).collect();
        let eyes = match place.filter(|_| !ids.is_empty()) {
            None => None,
            Some(place) => {
                let stores = Stores::new(context, place, Arc::clone(&cancelled))?.with_policy(POLICY);
                let targets = targets_by_id(connected, &ids)?.into_iter().map(|target| (target.backup.id.clone(), target)).collect();
                Some(Arc::new(Eyes { stores, targets, host: actor::host(), slow: Mutex::default() }))
            }
        };
        let patience = place.map(PlaceArgs::wait_limit).unwrap_or_default().total;
        Ok(Self { eyes, cancelled, stop, patience, unseen: Mutex::default() })
    }

    /// Says once what could not be seen.
    pub fn tell(&self, context: &Context<'_>) {
        if let Some((number, why)) = lock(&self.unseen).as_ref() {
            let whose = if *number == 1 { "1 backup".to_owned() } else { format!("{number} backups") };
            context.ui.warn(terminal(&format!(
                "the storage of {whose} could not be looked at once more just before the change ({why}); what the check had seen was relied on"
            )));
        }
    }
}

impl Precheck for StorageRecheck<'_> {
    fn precheck(&self, checks: &[&CheckResult]) -> Vec<Look> {
        let Some(eyes) = &self.eyes else { return checks.iter().map(|_| Look::Same).collect() };
        let queue: VecDeque<(usize, CheckResult)> = checks.iter().map(|check| (*check).clone()).enumerate().collect();
        let queue = Arc::new(Mutex::new(queue));
        let (tell, told) = mpsc::channel();
        let round = Arc::new(PrecheckRound::default());
        for _ in 0..AT_ONCE.min(checks.len()) {
            let (eyes, queue, round, tell) = (Arc::clone(eyes), Arc::clone(&queue), Arc::clone(&round), tell.clone());
            thread::spawn(move || {
                loop {
                    let next = lock(&queue).pop_front();
                    let Some((place, check)) = next else { break };
                    if tell.send((place, eyes.look(&check, &round))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(tell);
        let mut looks: Vec<Option<Look>> = vec![None; checks.len()];
        let mut last = Instant::now();
        loop {
            match told.recv_timeout(GLANCE) {
                Ok((place, look)) => {
                    last = Instant::now();
                    if let Some(slot) = looks.get_mut(place) {
                        *slot = Some(look);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if (self.stop)() {
                        self.cancelled.store(true, Ordering::Relaxed);
                        break;
                    }
                    if last.elapsed() >= self.patience {
                        break;
                    }
                }
            }
        }
        // Whoever still waits for an answer is not waited for, and begins nothing more.
        lock(&queue).clear();
        round.end();
        let looks: Vec<Look> = looks
            .into_iter()
            .map(|look| look.unwrap_or_else(|| Look::Unseen(format!("no answer within {} s", self.patience.as_secs()))))
            .collect();
        for look in &looks {
            if let Look::Unseen(why) = look {
                lock(&self.unseen).get_or_insert_with(|| (0, why.clone())).0 += 1;
            }
        }
        looks
    }
}
