//! Works through a list with several threads, and locks what they share.

use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
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
