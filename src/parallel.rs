//! Works through a list with several threads, and locks what they share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

/// Calls `work` with every item, on this many threads, and calls `take` on this thread with everything that `work` sends, in order of
/// arrival. With one thread, everything runs on this one.
pub fn for_each<T: Send, E: Send>(
    threads: usize,
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T, &mut dyn FnMut(E)) + Sync,
    mut take: impl FnMut(E),
) {
    if threads <= 1 {
        return items.for_each(|item| work(item, &mut take));
    }
    beside(threads, items, work, take);
}

/// Does the same, but runs `work` on other threads even if there is only one, so that `take` runs beside it.
pub fn beside<T: Send, E: Send>(
    threads: usize,
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T, &mut dyn FnMut(E)) + Sync,
    take: impl FnMut(E),
) {
    let items = Mutex::new(items);
    let next = || lock(&items).next();
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while let Some(item) = next() {
                    // The receiver lives until every sender is gone.
                    work(item, &mut |event| drop(sender.send(event)));
                }
            });
        }
        drop(sender);
        receiver.into_iter().for_each(take);
    });
}

/// Locks, also after a thread that had the lock has panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A gate that lets a limited number of threads in at once. The others wait.
#[derive(Debug)]
pub struct Gate {
    /// How many may be in, and how many are.
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Gate {
    /// Lets this many in, and at least one.
    pub fn new(most: usize) -> Self {
        Self { state: Mutex::new((most.max(1), 0)), changed: Condvar::new() }
    }

    /// Lets at least this many in.
    pub fn widen(&self, most: usize) {
        let mut state = lock(&self.state);
        state.0 = state.0.max(most);
        self.changed.notify_all();
    }

    /// Waits until there is room.
    pub fn enter(&self) -> Permit<'_> {
        let state = lock(&self.state);
        let mut state = self.changed.wait_while(state, |(most, inside)| *inside >= *most).unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        Permit(self)
    }
}

/// The right to be behind a [`Gate`].
#[derive(Debug)]
pub struct Permit<'a>(&'a Gate);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).1 -= 1;
        self.0.changed.notify_one();
    }
}
