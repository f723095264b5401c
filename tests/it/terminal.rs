//! The program on a pseudo-terminal: the tests read the screen and press keys.
//!
//! Every wait has a deadline, so that a hang fails within seconds and shows the screen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{InputModes, LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize};

use crate::database::{Database, changes};
use crate::program::Program;
use crate::schemas::{Columns, fresh};
use crate::servers::mariadb::Plugin;
use crate::servers::{Transport, mariadb};

/// A generous limit, because test machines are busy.
const DEADLINE: Duration = Duration::from_secs(30);
const TWO_HOURS: i64 = 7_200;

/// A terminal with a running program.
pub struct Terminal {
    master: Arc<OwnedFd>,
    child: Child,
    reader: Option<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
    modes: (InputModes, OutputModes, LocalModes),
}

/// The output of the program: the present screen and every byte.
struct Seen {
    screen: vt100::Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    /// Starts a command with a new controlling terminal of this size.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo-terminal");
        grantpt(&master).expect("the terminal is ours");
        unlockpt(&master).expect("the terminal is ours");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
        tcsetwinsize(&master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let slave = File::options().read(true).write(true).open(name).expect("the other end");
        // setsid makes it the controlling terminal, which turns Ctrl-C into a signal, and then runs the program.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        session.env_clear().env("TERM", "xterm-256color").envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        session.env("PATH", "/usr/bin:/bin");
        if let Some(dir) = command.get_current_dir() {
            session.current_dir(dir);
        }
        let stdio = || Stdio::from(slave.try_clone().expect("another handle"));
        session.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let modes = modes(&master);
        let child = session.spawn().expect("setsid of util-linux");
        let master = Arc::new(master);
        let seen = Arc::new(Mutex::new(Seen { screen: vt100::Parser::new(rows, columns, 1_000), bytes: Vec::new() }));
        let (from, into) = (Arc::clone(&master), Arc::clone(&seen));
        let reader = thread::spawn(move || {
            let mut from = File::from(from.try_clone().expect("another handle"));
            let mut bytes = [0; 4096];
            // Reading fails when the last process on the terminal has ended.
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                let mut seen = into.lock().unwrap();
                seen.screen.process(&bytes[..length]);
                seen.bytes.extend(&bytes[..length]);
            }
        });
        Self { master, child, reader: Some(reader), seen, modes }
    }

    /// A command on a terminal that is wide and high enough for all output.
    pub fn wide(program: &Program, args: &[&str]) -> Self {
        Self::start(&program.command(args), 200, 60)
    }

    /// The present screen.
    pub fn screen(&self) -> String {
        self.seen.lock().unwrap().screen.screen().contents()
    }

    /// All output, including escape sequences.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().bytes).into_owned()
    }

    /// Changes the size, and tells the program.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.seen.lock().unwrap().screen.screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
    }

    /// Waits until the screen shows a text.
    #[track_caller]
    pub fn wait(&self, text: &str) {
        self.wait_until(text, |screen| screen.contains(text));
    }

    #[track_caller]
    pub fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !holds(&self.screen()) {
            assert!(begun.elapsed() < DEADLINE, "the screen never shows {what:?}:\n{}", self.screen());
            sleep(Duration::from_millis(10));
        }
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) {
        let mut master = File::from(self.master.try_clone().expect("another handle"));
        master.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the end. Returns the exit code, or the signal that ended it.
    #[track_caller]
    fn end(&mut self) -> i32 {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break status;
            }
            assert!(begun.elapsed() < DEADLINE, "the program does not end:\n{}", self.screen());
            sleep(Duration::from_millis(10));
        };
        self.reader.take().expect("ended once").join().expect("the reader ends with the program");
        assert_eq!(modes(&self.master), self.modes, "the terminal is not as it was");
        let seen = self.seen.lock().unwrap();
        assert!(!seen.screen.screen().hide_cursor(), "the cursor stays hidden");
        assert!(!seen.screen.screen().alternate_screen(), "the list stays");
        drop(seen);
        status.code().unwrap_or_else(|| panic!("ended by {status}:\n{}", self.screen()))
    }

    /// Checks the exit code and returns the whole screen.
    #[track_caller]
    pub fn expect(&mut self, code: i32) -> String {
        let ended = self.end();
        let screen = self.screen();
        assert_eq!(ended, code, "{screen}");
        assert!(!screen.contains("panicked"), "{screen}");
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn modes(master: &OwnedFd) -> (InputModes, OutputModes, LocalModes) {
    let modes = tcgetattr(master).expect("a terminal");
    (modes.input_modes, modes.output_modes, modes.local_modes)
}

/// A stuck backup with this name, and its volume.
fn stuck(database: &Database, name: &str) -> (String, String) {
    let volume = database.volume(|row| row.status("backing-up").previous_status("available"));
    let backup = database.backup(|row| row.status("creating").host("gone").display_name(name).volume_id(&volume).age(TWO_HOURS));
    (backup, volume)
}

fn status(database: &Database, id: &str) -> String {
    database.cell("backups", id, "status").unwrap()
}

const WHICH: &str = "Choose what to change in";
const DOWN: &str = "\u{1b}[B";
const ALL: &str = "\u{1}";
const TYPE: &str = "Type the number of rows to change";

#[test]
fn a_repair_is_selected_confirmed_by_number_and_reported() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (first, volume) = stuck(&database, "nightly");
    let (second, _) = stuck(&database, "weekly");
    database.backup(|row| row.status("creating").host("up").display_name("queued").age(TWO_HOURS));
    database.service("up", |row| row);
    let program = Program::on(database.url());
    let mut terminal = Terminal::wide(&program, &["repair"]);
    terminal.wait(WHICH);
    let screen = terminal.screen();
    for part in [&first, &second, "gone: stuck backups, creating -> error, volume backing-up -> available", "0 of 2 units chosen"] {
        assert!(screen.contains(part), "{part} is not in\n{screen}");
    }
    assert!(terminal.written().contains("2 stuck, 1 uncertain") && terminal.written().contains("skipped"), "{}", terminal.written());
    // Chooses the second line of the group.
    let order = if first < second { (&second, &first) } else { (&first, &second) };
    let (done, left) = order;
    terminal.press(&format!("{DOWN}{DOWN} "));
    terminal.wait("1 of 2 units chosen");
    assert!(terminal.screen().contains(&format!("backups {done}: status creating -> error")), "{}", terminal.screen());
    terminal.press("\t");
    terminal.wait("cinder-backup on gone has no service row");
    terminal.press("\t\r");
    terminal.wait(TYPE);
    let screen = terminal.screen();
    assert!(screen.contains("2 rows in 1 unit would be changed in sqlite:///"), "{screen}");
    assert!(screen.contains(&format!("backups {done}: status creating -> error")), "{screen}");
    assert!(!screen.contains(&format!("backups {left}: status")), "{screen}");
    assert!(screen.contains("Type the number of rows to change (2) to continue"), "{screen}");
    assert!(screen.contains(&format!("The database is {}.", database.url())), "{screen}");
    assert_eq!(status(&database, done), "creating", "nothing before the number is typed");
    terminal.press("2\r");
    let screen = terminal.expect(0);
    for part in ["1 applied", "To undo it: cinder-backup-repair undo", "Once the API is back:", "openstack volume backup delete"] {
        assert!(screen.contains(part), "{part} is not in\n{screen}");
    }
    assert_eq!((status(&database, done), status(&database, left)), ("error".to_owned(), "creating".to_owned()));
    if done == &first {
        assert_eq!(database.cell("volumes", &volume, "status").as_deref(), Some("available"));
    }
    program.expect(0, &["history", "verify"]);
}

/// A backup that is not selected keeps its volume.
#[test]
fn a_volume_of_a_backup_that_was_not_selected_stays_unchanged() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let volume = database.volume(|row| row.status("backing-up").previous_status("available"));
    let of_volume = || database.backup(|row| row.status("creating").host("gone").volume_id(&volume).age(TWO_HOURS));
    let mut ids = [of_volume(), of_volume()];
    ids.sort();
    let [first, second] = ids;
    // The list is ordered by age: the backup that the other one depends on is first.
    database.execute(&format!("UPDATE backups SET created_at = datetime('now', '-5 hours'), updated_at = NULL WHERE id = '{first}'"));
    let program = Program::on(database.url());
    let mut terminal = Terminal::wide(&program, &["repair"]);
    terminal.wait(WHICH);
    terminal.press(&format!("{DOWN}{DOWN} \r"));
    terminal.wait(TYPE);
    assert!(terminal.screen().contains("1 row in 1 unit would be changed in sqlite:///"), "{}", terminal.screen());
    terminal.press("1\r");
    terminal.expect(0);
    assert_eq!((status(&database, &first), status(&database, &second)), ("creating".to_owned(), "error".to_owned()));
    assert_eq!(database.cell("volumes", &volume, "status").as_deref(), Some("backing-up"));
}

#[test]
fn a_wrong_number_changes_nothing() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let before = database.rows_by_id();
    let program = Program::on(database.url());
    for keys in ["3\r", "y\r", "\r", "22\r"] {
        let mut terminal = Terminal::wide(&program, &["repair"]);
        terminal.wait(TYPE);
        terminal.press(keys);
        let screen = terminal.expect(130);
        assert!(screen.contains("not confirmed; nothing was changed"), "{screen}");
    }
    // A correction while typing is accepted.
    let mut terminal = Terminal::wide(&program, &["repair"]);
    terminal.wait(TYPE);
    assert!(terminal.screen().contains("cinder-backup on gone has no service row"), "one unit has its evidence shown, too");
    terminal.press("3\u{7f}2\r");
    terminal.expect(0);
    assert_eq!(changes(&before, &database.rows_by_id()).iter().filter(|change| change.column == "status").count(), 2);
}

#[test]
fn ctrl_c_and_sigterm_at_a_prompt_restore_the_terminal() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    let plan = program.path("plan.json").display().to_string();
    program.expect(0, &["plan", "--out", &plan]);
    stuck(&database, "weekly");
    let before = database.rows_by_id();
    let at_a_number: &[&str] = &["apply", &plan];
    for (args, question) in [(&["repair"] as &[&str], WHICH), (at_a_number, TYPE)] {
        for signal in [None, Some(Signal::INT), Some(Signal::TERM)] {
            let mut terminal = Terminal::wide(&program, args);
            terminal.wait(question);
            match signal {
                None => terminal.press("\u{3}"),
                Some(signal) => kill_process(terminal.pid(), signal).unwrap(),
            }
            let screen = terminal.expect(if signal == Some(Signal::TERM) { 143 } else { 130 });
            assert_eq!(screen.matches("stopped at the question; nothing was changed").count(), 1, "{screen}");
            assert_eq!(screen.matches("error:").count(), 1, "{screen}");
        }
    }
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    assert!(!program.log().exists(), "a question leaves no run behind");
}

#[test]
fn ctrl_c_after_the_prompt_ends_the_run_between_units() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let ids = [stuck(&database, "nightly"), stuck(&database, "weekly")];
    let program = Program::on(database.url());
    let mut terminal = Terminal::wide(&program, &["repair", "--lock-timeout", "20s"]);
    terminal.wait(WHICH);
    terminal.press(&format!("{ALL}\r"));
    terminal.wait(TYPE);
    // The key is pressed while the first unit waits for a lock.
    database.execute("BEGIN IMMEDIATE");
    terminal.press("4\r");
    let begun = Instant::now();
    while std::fs::read_to_string(program.log()).map_or(0, |log| log.lines().count()) < 3 {
        assert!(begun.elapsed() < DEADLINE, "{}", terminal.screen());
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(200));
    terminal.press("\u{3}");
    sleep(Duration::from_millis(200));
    database.execute("ROLLBACK");
    terminal.expect(130);
    for (backup, volume) in &ids {
        let states = (status(&database, backup), database.cell("volumes", volume, "status").unwrap());
        let whole = [("creating", "backing-up"), ("error", "available")];
        assert!(whole.contains(&(states.0.as_str(), states.1.as_str())), "{states:?}");
    }
    assert!(ids.iter().any(|(backup, _)| status(&database, backup) == "creating"), "it went on after Ctrl-C");
    program.expect(0, &["history", "verify"]);
    let list = program.json(0, &["history", "list"]);
    assert_eq!(list["runs"][0]["open"], serde_json::json!([]), "{list:#}");
}

#[test]
fn escape_or_an_empty_selection_changes_nothing() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    stuck(&database, "weekly");
    let before = database.rows_by_id();
    let program = Program::on(database.url());
    // Enter alone goes on with nothing, as does a filter that hides all.
    for keys in ["", "\r", "gone\r\u{7f}\u{7f}\u{7f}\u{7f}", &format!("{ALL}{ALL}\r")] {
        let mut terminal = Terminal::wide(&program, &["repair"]);
        terminal.wait(WHICH);
        terminal.press(keys);
        terminal.wait("Filter: _");
        if keys.ends_with('\r') {
            terminal.wait("Nothing is chosen yet");
        }
        terminal.press("\u{1b}");
        let screen = terminal.expect(130);
        assert!(screen.contains("nothing was chosen; nothing was changed"), "{screen}");
    }
    assert_eq!(changes(&before, &database.rows_by_id()), []);
}

#[test]
fn apply_and_undo_show_the_changes_and_ask_even_with_quiet() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (backup, _) = stuck(&database, "nightly");
    let program = Program::on(database.url());
    let plan = program.path("plan.json").display().to_string();
    program.expect(0, &["plan", "--out", &plan]);
    let mut terminal = Terminal::wide(&program, &["apply", &plan, "-q"]);
    terminal.wait(TYPE);
    assert!(terminal.screen().contains(&format!("backups {backup}: status creating -> error")), "{}", terminal.screen());
    terminal.press("2\r");
    terminal.expect(0);
    assert_eq!(status(&database, &backup), "error");
    let mut terminal = Terminal::wide(&program, &["undo", &program.last_run()]);
    terminal.wait(TYPE);
    assert!(terminal.screen().contains(&format!("backups {backup}: status error -> creating")), "{}", terminal.screen());
    terminal.press("2\r");
    terminal.expect(0);
    assert_eq!(status(&database, &backup), "creating");
    // With --no-input there is no prompt.
    let mut terminal = Terminal::wide(&program, &["repair", "--no-input"]);
    let screen = terminal.expect(2);
    assert!(screen.contains("--yes"), "{screen}");
}

#[test]
fn redrawing_a_narrow_terminal_leaves_no_remnants() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    for number in 0..20 {
        stuck(&database, &format!("a backup with quite a long name that no narrow terminal has room for, {number}"));
    }
    let before = database.rows_by_id();
    let program = Program::on(database.url());
    let mut terminal = Terminal::start(&program.command(&["repair"]), 60, 40);
    terminal.wait(WHICH);
    let first = terminal.screen();
    assert_eq!(first.matches("     [ ] ").count(), 20, "{first}");
    // To the end and back, one line at a time.
    for key in [DOWN, "\u{1b}[A"] {
        terminal.press(&key.repeat(30));
    }
    terminal.press(&format!("{DOWN}{DOWN} "));
    terminal.wait(">     [x] ");
    let again = terminal.screen();
    assert_eq!(again.matches(WHICH).count(), 1, "{again}");
    assert_eq!((again.lines().count(), again.matches("     [ ] ").count()), (first.lines().count(), 19), "{again}");
    // A smaller terminal.
    terminal.resize(50, 24);
    terminal.press("\u{1b}[F");
    terminal.wait_until("the last line under the cursor", |screen| screen.lines().count() <= 24 && screen.contains(">     [ ] "));
    terminal.press("\u{1b}");
    terminal.expect(130);
    assert_eq!(changes(&before, &database.rows_by_id()), []);
    // The terminal itself wraps no line of a table, and ids stay whole.
    let mut terminal = Terminal::start(&program.command(&["scan", "--limit", "3"]), 60, 60);
    let screen = terminal.expect(0);
    let ids = database.query("SELECT id FROM backups ORDER BY created_at, id");
    assert!(ids.iter().filter(|row| screen.contains(row[0].as_deref().unwrap())).count() >= 3, "{screen}");
    let plain = strip(&terminal.written());
    assert!(plain.lines().all(|line| line.trim_end().chars().count() <= 60 || !line.contains(" | ")), "{plain}");
}

#[test]
fn sentences_wrap_between_words_and_commands_do_not_wrap() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    database.service("up", |row| row);
    database.backup(|row| row.status("creating").host("up").age(TWO_HOURS));
    let program = Program::on(database.url());
    let mut terminal =
        Terminal::start(&program.command(&["plan", "--host", "up", "--host", "lost", "--allow-empty", "--out", "plan.json"]), 60, 60);
    terminal.expect(0);
    let lines =
        |terminal: &Terminal| -> Vec<String> { strip(&terminal.written()).lines().map(|line| line.trim_end().to_owned()).collect() };
    let warned = lines(&terminal);
    let at =
        warned.iter().position(|line| line.starts_with("warning: --host lost matches nothing")).unwrap_or_else(|| panic!("{warned:?}"));
    assert!(warned[at].chars().count() <= 60 && warned[at + 1].starts_with("  "), "{warned:?}");
    assert!(
        warned.iter().any(|line| line.starts_with("To apply it: ") && line.ends_with(&program.log().display().to_string())),
        "{warned:?}"
    );
    // In a pipe a sentence is one line.
    let piped = program.expect(0, &["plan", "--host", "up", "--host", "lost", "--allow-empty"]).stderr;
    let warnings: Vec<&str> = piped.lines().filter(|line| line.starts_with("warning: --host lost")).collect();
    assert!(warnings.len() == 1 && warnings[0].ends_with("there are gone, up"), "{piped}");
}

/// The text without escape sequences.
fn strip(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        plain.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let end = tail.find(|c: char| c.is_ascii_alphabetic()).map_or(tail.len(), |end| end + 1);
        rest = &tail[end..];
    }
    plain + rest
}

#[test]
fn progress_is_drawn_and_erased() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let rows: Vec<_> = (0..300).map(|_| crate::rows::backup().status("creating").host("gone").age(TWO_HOURS)).collect();
    database.insert(&rows);
    let program = Program::on(database.url());
    let args = ["repair", "--yes", "--max-changes", "500", "-f", "value", "-c", "outcome"];
    let mut terminal = Terminal::wide(&program, &args);
    let screen = terminal.expect(0);
    let written = terminal.written();
    assert!(written.contains("/300 units"), "{}", &written[..written.len().min(2_000)]);
    assert!(!screen.contains("/300 units"), "the bar is gone at the end:\n{screen}");
    assert!(screen.contains("300 applied"), "{screen}");
    // Not with --quiet.
    database.execute("UPDATE backups SET status = 'creating'");
    let mut terminal = Terminal::wide(&program, &[&args as &[&str], &["-q"]].concat());
    terminal.expect(0);
    assert!(!terminal.written().contains("/300 units"));
}

#[test]
fn a_long_scan_shows_how_many_rows_it_has_read() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    database.execute(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 400000)
         INSERT INTO backups (id, status, deleted, created_at, num_dependent_backups, size, volume_id, host)
         SELECT printf('%08x-0000-4000-8000-000000000000', n), 'available', 0, '2026-01-01 00:00:00', 0, 1, 'v' || n, 'gone' FROM n",
    );
    let program = Program::on(database.url());
    let mut terminal = Terminal::wide(&program, &["scan"]);
    // The line is shown after a second. A fast machine has read all rows by then, unless the program stands still meanwhile.
    sleep(Duration::from_millis(300));
    kill_process(terminal.pid(), Signal::STOP).unwrap();
    sleep(Duration::from_millis(1_500));
    kill_process(terminal.pid(), Signal::CONT).unwrap();
    let screen = terminal.expect(0);
    assert!(screen.contains("nightly") && !screen.contains("Reading the database"), "{screen}");
    assert!(terminal.written().contains("Reading the database, "), "{}", terminal.written());
    let mut terminal = Terminal::wide(&program, &["scan", "-q"]);
    terminal.expect(0);
    assert!(!terminal.written().contains("Reading the database"));
    let answer = program.expect(0, &["scan"]);
    assert!(!answer.stderr.contains("Reading") && !answer.stderr.contains(['\r', '\u{1b}']), "{:?}", answer.stderr);
}

#[test]
fn the_heartbeat_wait_counts_down_in_place() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    database.execute("UPDATE backups SET host = 'ctl1'");
    database.service("ctl1", |row| row.updated_at(crate::rows::ago(TWO_HOURS)));
    let program = Program::on(database.url());
    std::fs::write(program.path("cinder.conf"), "[DEFAULT]\nreport_interval = 2\n").unwrap();
    let wait = |seconds: u32| format!("Waiting {seconds} s for a heartbeat from cinder-backup on ctl1");
    let args = ["repair", "--yes"];
    let mut terminal = Terminal::wide(&program, &args);
    for seconds in [3, 2, 1] {
        terminal.wait(&wait(seconds));
        assert_eq!(terminal.screen().matches("Waiting ").count(), 1, "{}", terminal.screen());
    }
    let screen = terminal.expect(0);
    assert!(screen.contains("1 applied") && !screen.contains("Waiting"), "{screen}");
    // A pipe gets one line, and nothing with --quiet.
    database.execute("UPDATE backups SET status = 'creating', updated_at = NULL");
    let answer = program.expect(0, &args);
    assert_eq!((answer.stderr.matches("Waiting ").count(), answer.stderr.contains(&wait(3))), (1, true), "{}", answer.stderr);
    assert!(!answer.stderr.contains(['\r', '\u{1b}']), "{:?}", answer.stderr);
    database.execute("UPDATE backups SET status = 'creating', updated_at = NULL");
    assert!(!program.expect(0, &[&args as &[&str], &["-q"]].concat()).stderr.contains("Waiting"));
}

#[test]
fn colours_are_only_for_terminals_and_can_be_disabled() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    let written = |args: &[&str], no_color: Option<&str>| {
        let mut command = program.command(args);
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        let mut terminal = Terminal::start(&command, 200, 60);
        terminal.end();
        terminal.written()
    };
    assert!(written(&["scan"], None).contains("\u{1b}["), "coloured at a terminal");
    assert!(written(&["scan"], Some("")).contains("\u{1b}["), "an empty NO_COLOR counts as none");
    assert!(!written(&["scan"], Some("1")).contains('\u{1b}'));
    assert!(!written(&["scan", "--color", "never"], None).contains('\u{1b}'));
    assert!(!written(&["scan", "-f", "json"], None).contains('\u{1b}'));
    assert!(!written(&["scan", "--status", "nonsense"], Some("1")).contains('\u{1b}'));
    assert!(written(&["scan", "--color", "always"], Some("1")).contains("\u{1b}["), "--color is the more explicit");
    let mut command = program.command(&["scan"]);
    let mut dumb = Terminal::start(command.env("TERM", "dumb"), 200, 60);
    dumb.end();
    assert!(!dumb.written().contains('\u{1b}'), "a dumb terminal would show the codes");
    // A pipe has no colours unless requested.
    assert!(!program.expect(0, &["scan"]).stdout.contains('\u{1b}'));
    assert!(program.expect(0, &["scan", "--color", "always"]).stdout.contains("\u{1b}["));
    // Prompts have no colours if they are disabled.
    let mut command = program.command(&["repair"]);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::start(&command, 200, 60);
    terminal.wait(TYPE);
    terminal.press("no\r");
    terminal.expect(130);
    assert!(!terminal.written().contains("\u{1b}[3"), "{:?}", terminal.written());
}

#[test]
fn a_hostile_name_does_not_change_the_screen() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (hostile, _) = stuck(&database, "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}evil\nfake: line");
    stuck(&database, "harmless");
    let program = Program::on(database.url());
    let mut terminal = Terminal::wide(&program, &["repair", "--color", "never"]);
    terminal.wait(WHICH);
    terminal.press(&format!("{ALL}\r"));
    terminal.wait(TYPE);
    terminal.press("4\r");
    let screen = terminal.expect(0);
    let written = terminal.written();
    for raw in ["\u{1b}[2J", "\u{1b}]0;", "\u{9b}", "\u{202e}", "\u{7}"] {
        assert!(!written.contains(raw), "{raw:?} was written raw");
    }
    assert!(!screen.lines().any(|line| line.starts_with("fake")), "{screen}");
    assert_eq!(status(&database, &hostile), "error");
}

#[test]
fn a_password_prompt_does_not_show_the_password() {
    let database = fresh(Engine::Mariadb, Columns::Full);
    stuck(&database, "nightly");
    let account = database.account_with("GRANT SELECT ON {database}.* TO {user}", Plugin::Default, Transport::Any);
    let server = mariadb();
    let url = format!("mysql+pymysql://{}@localhost:{}/{}", account.user, server.port, database.name());
    let program = Program::on(url);
    let prompt = "Password for";
    // The right password.
    let mut terminal = Terminal::wide(&program, &["scan", "-v", "--tls-mode", "disable"]);
    terminal.wait(prompt);
    terminal.press(&format!("{}\r", account.password));
    let screen = terminal.expect(0);
    assert!(screen.contains("nightly"), "{screen}");
    assert!(!terminal.written().contains(&account.password), "{screen}");
    // A wrong password: no second prompt, and it is not shown.
    let mut terminal = Terminal::wide(&program, &["scan", "-v", "-v"]);
    terminal.wait(prompt);
    terminal.press("Wr0ng-but-secret\r");
    let screen = terminal.expect(12);
    assert!(!terminal.written().contains("Wr0ng-but-secret"), "{screen}");
    // Cancelled: echo is on again.
    for signal in [None, Some(Signal::TERM)] {
        let mut terminal = Terminal::wide(&program, &["scan"]);
        terminal.wait(prompt);
        sleep(Duration::from_millis(200));
        terminal.press("half");
        match signal {
            None => terminal.press("\u{3}"),
            Some(signal) => kill_process(terminal.pid(), signal).unwrap(),
        }
        let screen = terminal.expect(if signal.is_some() { 143 } else { 130 });
        assert!(screen.contains("stopped at the question"), "{screen}");
        assert!(!terminal.written().contains("half"), "{screen}");
    }
    // With --no-input there is no prompt.
    let mut terminal = Terminal::wide(&program, &["scan", "--no-input"]);
    let screen = terminal.expect(12);
    assert!(!screen.contains(prompt), "{screen}");
}

/// 80 columns and 24 lines suffice to find and choose some of many.
#[test]
fn some_of_thousands_are_found_by_a_filter_and_chosen_by_group() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let backup =
        |host: &str, number: usize| crate::rows::backup().status("creating").host(host).display_name(format!("n{number}")).age(TWO_HOURS);
    let rows: Vec<_> = (0..3_000).map(|number| backup(if number < 40 { "ctl1" } else { "ctl2" }, number)).collect();
    database.insert(&rows);
    let program = Program::on(database.url());
    let mut terminal = Terminal::start(&program.command(&["repair"]), 80, 24);
    terminal.wait("0 of 3000 units chosen");
    assert!(terminal.screen().contains("> [ ] ctl1: stuck backups, creating -> error"), "{}", terminal.screen());
    terminal.press("ctl1");
    terminal.wait("40 shown");
    terminal.press(" ");
    terminal.wait("40 of 3000 units chosen");
    terminal.press("\u{1b}");
    terminal.wait("3000 shown");
    terminal.press("n2999");
    terminal.wait("1 shown");
    terminal.press(&format!("{DOWN} \r"));
    terminal.wait(TYPE);
    let screen = terminal.screen();
    for part in
        ["41 rows in 41 units", "    40  ctl1: stuck backups, creating -> error", "     1  ctl2: stuck backups", "-v lists each row"]
    {
        assert!(screen.contains(part), "{part} is not in\n{screen}");
    }
    assert!(screen.contains("`undo` can restore the rows from the audit log"), "{screen}");
    terminal.press("41\r");
    terminal.expect(0);
    let repaired = database.query("SELECT count(*), sum(host = 'ctl1') FROM backups WHERE status = 'error'");
    assert_eq!(repaired, [[Some("41".to_owned()), Some("40".to_owned())]]);
}

#[test]
fn the_demo_waits_at_each_step() {
    let mut terminal = Terminal::start(&crate::program::bare(&["demo", "--step"]), 100, 60);
    for command in ["scan --host", "plan --host", "apply plan.json --dry-run"] {
        terminal.wait("Enter runs it");
        terminal.wait(command);
        terminal.press("\r");
        terminal.wait("(exit code 0)");
    }
    terminal.wait("apply plan.json --yes");
    terminal.press("\u{3}");
    let screen = terminal.expect(130);
    assert!(screen.contains("the demo was stopped by SIGINT"), "{screen}");
    let written = terminal.written();
    let folder = written.lines().map(str::trim).find(|line| line.starts_with("/tmp/cinder-backup-repair-demo-")).unwrap();
    assert!(!std::path::Path::new(folder).exists(), "{folder} stays");
}

#[test]
fn named_backups_are_chosen_at_first_and_a_dumb_terminal_has_no_list() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let ids = [stuck(&database, "nightly").0, stuck(&database, "weekly").0];
    let program = Program::on(database.url());
    let args = ["repair", &ids[0], &ids[1]];
    let mut terminal = Terminal::wide(&program, &args);
    terminal.wait("2 of 2 units chosen");
    terminal.press("\r");
    terminal.wait(TYPE);
    terminal.press("no\r");
    terminal.expect(130);
    let mut command = program.command(&args);
    let mut terminal = Terminal::start(command.env("TERM", "dumb"), 200, 60);
    let screen = terminal.expect(2);
    assert!(screen.contains("TERM=dumb") && screen.contains("--yes"), "{screen}");
    assert!(ids.iter().all(|id| status(&database, id) == "creating"));
}
