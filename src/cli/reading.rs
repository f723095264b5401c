//! Shows progress at a terminal while the database is read.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::ui::Ui;
use crate::scan::reader::rows_read;

/// Shorter reads show nothing.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(100);

/// Reads, and shows how many rows were read where that takes longer than a second. Nothing else may be printed meanwhile.
pub fn reading<T>(ui: &Ui, read: impl FnOnce() -> T) -> T {
    if !ui.shows_progress() {
        return read();
    }
    let before = rows_read();
    let (done, wait) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut pause = SHOWN_AFTER;
            let line = indicatif::ProgressBar::new_spinner();
            while wait.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = AGAIN;
                let rows = indicatif::HumanCount(rows_read() - before);
                line.set_message(format!("Reading the database, {rows} rows so far"));
                line.tick();
            }
            line.finish_and_clear();
        });
        let read = read();
        drop(done);
        read
    })
}
