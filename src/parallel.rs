//! Works through a list with several threads.

use std::sync::{Mutex, PoisonError, mpsc};
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
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
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
