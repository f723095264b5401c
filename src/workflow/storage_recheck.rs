//! Checks the storage once more just before a change: in parallel and in bounded time.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::targets::targets_by_id;
use super::{Database, Observer, Result, StorageSettings, Stores, WorkEvent, actor};
use crate::apply::{Precheck, deciding_check};
use crate::backoff::Backoff;
use crate::domain::text::count;
use crate::domain::{CheckResult, Comparison, Driver};
use crate::parallel::{self, lock};
use crate::plan::Plan;
use crate::storage::RetryPolicy;
use crate::verify::{PrecheckRound, Target, precheck, precheck_witness};

/// How many backups are checked at once; each takes a listing of it and of each backup below.
const AT_ONCE: usize = 8;
/// How often a request to stop is looked for meanwhile.
const POLL: Duration = Duration::from_millis(100);
/// How long a slow failure takes, and after how many in a row a storage is given up for this run.
const SLOW: Duration = Duration::from_secs(2);
const SLOW_FAILURES: u32 = 3;
/// Retries are fewer than in a check: a person waits for the change.
const POLICY: RetryPolicy =
    RetryPolicy { attempts: 3, backoff: Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(5) } };

/// What the threads share. A thread whose file server does not answer is left behind.
struct Rechecker {
    stores: Stores,
    targets: HashMap<String, Target>,
    host: String,
    slow: Mutex<HashMap<Option<Driver>, (u32, String)>>,
}

impl Rechecker {
    fn look(&self, check: &CheckResult, round: &PrecheckRound) -> Comparison {
        let Some(target) = self.targets.get(&check.id) else { return Comparison::Unknown("its row no longer exists".to_owned()) };
        if let Some((_, why)) = lock(&self.slow).get(&check.driver).filter(|(failures, _)| *failures >= SLOW_FAILURES) {
            return Comparison::Unknown(why.clone());
        }
        let begun = Instant::now();
        let look = match precheck(&self.stores, target, check, &self.host, round) {
            Comparison::Unchanged => {
                let witness = check.witness.as_ref().and_then(|id| self.targets.get(id));
                precheck_witness(&self.stores, witness, check, &self.host, round)
            }
            look => look,
        };
        let mut slow = lock(&self.slow);
        match &look {
            Comparison::Unknown(why) if begun.elapsed() >= SLOW => slow.entry(check.driver).or_insert((0, why.clone())).0 += 1,
            Comparison::Unknown(_) => {}
            _ => drop(slow.remove(&check.driver)),
        }
        look
    }
}

/// The recheck of one run.
pub struct StorageRecheck<'a> {
    /// `None` if no unit depends on the storage.
    rechecker: Option<Arc<Rechecker>>,
    cancelled: Arc<AtomicBool>,
    observer: &'a dyn Observer,
    /// How long to wait for the next answer.
    patience: Duration,
    /// How many backups could not be checked, and why the first could not.
    unseen: Mutex<Option<(usize, String)>>,
}

/// Whether the decision about a unit of the plan depends on the storage.
pub fn depends_on_storage(plan: &Plan) -> Result<bool> {
    Ok(!deciding(plan)?.is_empty())
}

/// The ids of the units whose decision depends on the storage, and of their witnesses.
fn deciding(plan: &Plan) -> std::io::Result<Vec<String>> {
    let (mut ids, mut witnesses) = (Vec::new(), BTreeSet::new());
    for unit in plan.units.iter().take_while(|_| !plan.checks.is_empty()) {
        let unit = unit?;
        if let Some(check) = deciding_check(plan, &unit) {
            witnesses.extend(check.witness.clone());
            ids.push(unit.id);
        }
    }
    ids.extend(witnesses);
    Ok(ids)
}

impl<'a> StorageRecheck<'a> {
    /// Reads the rows of the units that depend on the storage, and connects to nothing else yet.
    pub fn new(database: &mut Database, plan: &Plan, storage: Option<StorageSettings>, observer: &'a dyn Observer) -> Result<Self> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let patience = storage.as_ref().map(|storage| storage.wait_limit.total).unwrap_or_default();
        let ids = deciding(plan)?;
        let rechecker = match storage.filter(|_| !ids.is_empty()) {
            None => None,
            Some(storage) => {
                let stores = Stores::new(storage, POLICY, Arc::clone(&cancelled));
                let targets = targets_by_id(database, &ids)?.into_iter().map(|target| (target.backup.id.clone(), target)).collect();
                Some(Arc::new(Rechecker { stores, targets, host: actor::host(), slow: Mutex::default() }))
            }
        };
        Ok(Self { rechecker, cancelled, observer, patience, unseen: Mutex::default() })
    }

    /// Reports once what could not be checked.
    pub fn report(&self) {
        if let Some((backups, why)) = lock(&self.unseen).as_ref() {
            let backups = count(*backups, "backup");
            self.observer.event(WorkEvent::Warning(format!(
                "the storage of {backups} could not be checked again just before the change ({why}); the earlier check was relied on"
            )));
        }
    }
}

impl Precheck for StorageRecheck<'_> {
    fn precheck(&self, checks: &[&CheckResult]) -> Vec<Comparison> {
        let Some(rechecker) = &self.rechecker else { return checks.iter().map(|_| Comparison::Unchanged).collect() };
        let owned: Vec<CheckResult> = checks.iter().map(|check| (*check).clone()).collect();
        let (sender, receiver) = mpsc::channel();
        let round = Arc::new(PrecheckRound::default());
        let (rechecker, thread_round) = (Arc::clone(rechecker), Arc::clone(&round));
        thread::spawn(move || {
            let checks = owned.iter().enumerate().take_while(|_| !thread_round.is_over());
            let look = |(place, check), send: &mut dyn FnMut(_)| send((place, rechecker.look(check, &thread_round)));
            // After the round nobody receives.
            parallel::for_each(AT_ONCE.min(owned.len()), checks, look, |look| drop(sender.send(look)));
        });
        let mut looks: Vec<Option<Comparison>> = vec![None; checks.len()];
        let mut last = Instant::now();
        loop {
            match receiver.recv_timeout(POLL) {
                Ok((place, look)) => {
                    last = Instant::now();
                    if let Some(slot) = looks.get_mut(place) {
                        *slot = Some(look);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if self.observer.stop().is_some() {
                        self.cancelled.store(true, Ordering::Relaxed);
                        break;
                    }
                    if last.elapsed() >= self.patience {
                        break;
                    }
                }
            }
        }
        // Threads that still wait for an answer are left behind, and begin nothing more.
        round.end();
        let looks: Vec<Comparison> = looks
            .into_iter()
            .map(|look| look.unwrap_or_else(|| Comparison::Unknown(format!("no answer within {} s", self.patience.as_secs()))))
            .collect();
        for look in &looks {
            if let Comparison::Unknown(why) = look {
                lock(&self.unseen).get_or_insert_with(|| (0, why.clone())).0 += 1;
            }
        }
        looks
    }
}
