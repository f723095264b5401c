//! What a command shows while it works.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Ui;
use super::args::ProgressArg;
use super::signal::{Second, Signals};
use crate::apply;
use crate::domain::{Level, Outcome};
use crate::parallel::lock;
use crate::report::safe::terminal;
use crate::scan::reader::rows_read;
use crate::verify::Watch;
use crate::workflow::{Observer, Stop, WorkEvent};

/// Shorter reads show nothing.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(100);

/// Shows the events of a command, and notes signals.
pub struct ProgressDisplay<'a> {
    ui: &'a Ui,
    signals: Mutex<Option<Signals>>,
    lines: Mutex<Lines>,
}

/// What is drawn at the moment.
#[derive(Default)]
struct Lines {
    reading: Option<Spinner>,
    check: Option<CheckBar>,
    /// How many units of a run have ended.
    units: Option<ProgressBar>,
    /// Instead of bars.
    reporter: Option<Reporter>,
    /// The heartbeat wait, which counts down in place at a terminal, and is one line elsewhere.
    wait: Option<ProgressBar>,
}

impl<'a> ProgressDisplay<'a> {
    pub fn new(ui: &'a Ui) -> Self {
        Self { ui, signals: Mutex::default(), lines: Mutex::default() }
    }

    /// The same, and notes signals from now on. A second one ends the program.
    pub fn stoppable(ui: &'a Ui) -> io::Result<Self> {
        Ok(Self { signals: Mutex::new(Some(Signals::note(Second::Ends)?)), ..Self::new(ui) })
    }

    /// From now on no signal ends the program.
    pub fn let_finish(&self) {
        lock(&self.signals).iter().for_each(Signals::let_finish);
    }

    /// Prints without breaking the bar of a check.
    fn beside_bar(&self, print: impl FnOnce(&Ui)) {
        match &lock(&self.lines).check {
            Some(bar) => bar.line.suspend(|| print(self.ui)),
            None => print(self.ui),
        }
    }

    fn run(&self, progress: &apply::Progress<'_>) {
        match progress {
            apply::Progress::Ended(result) => {
                let mut lines = lock(&self.lines);
                lines.units.iter().for_each(|bar| bar.inc(1));
                lines.reporter.iter_mut().for_each(|reporter| reporter.add(1));
                drop(lines);
                if result.outcome == Outcome::Unknown {
                    self.ui.warn(format!("unit {}: {}", result.unit, result.reason.as_deref().unwrap_or("outcome unknown")));
                }
            }
            apply::Progress::Retry { unit, error } => {
                self.ui.detail(format!("retrying unit {unit}: {error}"));
            }
            apply::Progress::Waiting { hosts, seconds } => {
                let why = || format!("{seconds} s for a heartbeat from cinder-backup on {}", hosts.join(", "));
                self.wait((*seconds > 0).then(why));
            }
            apply::Progress::Held(why) => self.wait(why.map(|why| format!("because {why}"))),
            apply::Progress::FewerSessions(error) => {
                self.ui.detail(format!("continuing with fewer connections: {error}"));
            }
        }
    }

    /// Shows why the run waits, in place at a terminal and once elsewhere; `None` once it goes on.
    fn wait(&self, why: Option<String>) {
        let mut lines = lock(&self.lines);
        let Some(why) = why else {
            lines.wait.take().iter().for_each(ProgressBar::finish_and_clear);
            return;
        };
        let text = terminal(&format!("Waiting {why} …"));
        let line = lines.wait.get_or_insert_with(|| {
            if self.ui.shows_progress() {
                return ProgressBar::new_spinner();
            }
            self.ui.say(&text);
            ProgressBar::hidden()
        });
        line.set_message(text);
    }
}

impl Observer for ProgressDisplay<'_> {
    fn event(&self, event: WorkEvent<'_>) {
        match event {
            WorkEvent::Reading if self.ui.progress() != ProgressArg::None => lock(&self.lines).reading = Some(Spinner::start(self.ui)),
            WorkEvent::Read => lock(&self.lines).reading.take().into_iter().for_each(Spinner::stop),
            WorkEvent::Warning(text) => self.beside_bar(|ui| ui.warn(text)),
            WorkEvent::Detail(text) => self.beside_bar(|ui| ui.detail(text)),
            WorkEvent::Checking(level, backups) => {
                match Signals::note(Second::Noted) {
                    Ok(signals) => *lock(&self.signals) = Some(signals),
                    Err(error) => self.ui.warn(format!("cannot handle signals, so a signal ends the check at once: {error}")),
                }
                let mut lines = lock(&self.lines);
                lines.check = Some(CheckBar::new(self.ui, level, backups));
                let unit = if level == Level::Quick { "backups" } else { "bytes" };
                lines.reporter = Reporter::new(self.ui, "checking", unit, None);
            }
            WorkEvent::Checked(result) if self.ui.verbose > 0 => {
                self.beside_bar(|ui| ui.detail(format!("{}: {}", result.id, result.verdict)));
            }
            WorkEvent::CheckProgress(ready, watch) => {
                let mut lines = lock(&self.lines);
                let Lines { check: Some(bar), reporter, .. } = &mut *lines else { return };
                let (done, total) = bar.show(ready, watch);
                reporter.iter_mut().for_each(|reporter| reporter.set(done, total));
            }
            WorkEvent::CheckEnded => {
                lock(&self.lines).reporter.take().iter().for_each(Reporter::print);
                lock(&self.lines).check.take().iter().for_each(|bar| bar.line.finish_and_clear());
                // After a signal, further ones are noted: what was found is still to be written.
                lock(&self.signals).take_if(|signals| signals.stop().is_none());
            }
            WorkEvent::Running(units) if self.ui.shows_progress() && units > 1 => {
                let bar = ProgressBar::new(u64::try_from(units).unwrap_or(u64::MAX));
                if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} units, {per_sec}, {eta} left") {
                    bar.set_style(style);
                }
                lock(&self.lines).units = Some(bar);
            }
            WorkEvent::Running(units) => {
                lock(&self.lines).reporter = Reporter::new(self.ui, "applying", "units", u64::try_from(units).ok());
            }
            WorkEvent::Run(progress) => self.run(&progress),
            WorkEvent::Ran => {
                let mut lines = lock(&self.lines);
                lines.units.take().iter().for_each(ProgressBar::finish_and_clear);
                lines.reporter.take().iter().for_each(Reporter::print);
            }
            WorkEvent::Reading | WorkEvent::Checked(_) => {}
        }
    }

    fn stop(&self) -> Option<Stop> {
        lock(&self.signals).as_ref().and_then(Signals::stop)
    }
}

/// Lines about progress, for programs and logs: one at the end, and otherwise never more than one in an interval.
struct Reporter {
    ui: Ui,
    kind: &'static str,
    unit: &'static str,
    pause: Duration,
    reported: Instant,
    done: u64,
    total: Option<u64>,
}

impl Reporter {
    /// None if no lines are wanted.
    fn new(ui: &Ui, kind: &'static str, unit: &'static str, total: Option<u64>) -> Option<Self> {
        let pause = match ui.progress() {
            ProgressArg::Json => Duration::from_secs(1),
            ProgressArg::Plain => Duration::from_secs(10),
            ProgressArg::Bar | ProgressArg::None => return None,
        };
        Some(Self { ui: ui.clone(), kind, unit, pause, reported: Instant::now(), done: 0, total })
    }

    fn add(&mut self, more: u64) {
        self.set(self.done + more, self.total);
    }

    fn set(&mut self, done: u64, total: Option<u64>) {
        (self.done, self.total) = (done, total);
        if self.reported.elapsed() >= self.pause {
            self.reported = Instant::now();
            self.print();
        }
    }

    fn print(&self) {
        self.ui.progress_line(self.kind, self.done, self.total, self.unit);
    }
}

/// How many rows were read, once that takes longer than a second. Nothing else may be printed meanwhile.
struct Spinner {
    running: Sender<()>,
    thread: JoinHandle<()>,
}

impl Spinner {
    fn start(ui: &Ui) -> Self {
        let before = rows_read();
        let (running, wait) = channel::<()>();
        let mut reporter = Reporter::new(ui, "reading", "rows", None);
        let thread = thread::spawn(move || {
            let mut pause = SHOWN_AFTER;
            let line = if reporter.is_some() { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
            while wait.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = AGAIN;
                let rows = rows_read() - before;
                reporter.iter_mut().for_each(|reporter| reporter.set(rows, None));
                line.set_message(format!("Reading the database, {} rows so far", indicatif::HumanCount(rows)));
                line.tick();
            }
            line.finish_and_clear();
        });
        Self { running, thread }
    }

    /// Returns once the line is cleared.
    fn stop(self) {
        drop(self.running);
        let _ = self.thread.join();
    }
}

/// The progress of a check. The total of bytes is known once all side files were read; until then no bar is shown, because its total
/// would keep growing.
struct CheckBar {
    line: ProgressBar,
    reads_data: bool,
    backups: usize,
    is_wide: bool,
}

impl CheckBar {
    fn new(ui: &Ui, level: Level, backups: usize) -> Self {
        let shown = ui.shows_progress();
        let line = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let is_wide = ui.prompt_width().is_none_or(|width| width >= 100);
        Self { line, reads_data: level != Level::Quick, backups, is_wide }
    }

    /// Returns how much is done, and of how much, once that is known.
    fn show(&self, ready: usize, watch: &Watch) -> (u64, Option<u64>) {
        // The order matters: first whether the total is final, then the bytes.
        let is_counted = watch.counted() >= self.backups;
        let (done, expected) = if self.reads_data { watch.progress() } else { (ready as u64, self.backups as u64) };
        let template = match (self.reads_data, is_counted, self.is_wide) {
            (false, _, _) => "{msg}  {bar:30} {eta} left",
            (true, false, _) => "{msg}, {bytes} read, {bytes_per_sec}, counting how much is left",
            (true, true, true) => "{msg}  {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            (true, true, false) => "{msg}  {bytes} of {total_bytes}, {eta} left",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.line.set_style(style);
        }
        self.line.set_length(expected);
        self.line.set_position(done);
        self.line.set_message(format!("{ready} of {} backups", self.backups));
        (done, (is_counted || !self.reads_data).then_some(expected))
    }
}
