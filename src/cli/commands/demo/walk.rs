//! The walk: each step of `short.txt` or `walk.txt` shows a command line as a user would type it, runs it through the same code as any other, and checks
//! that it ended with the right exit code and changed exactly as many rows as it should.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::DemoArgs;
use super::stage::{AUDIT_LOG, CONFIGURATION, MEANWHILE, Stage, State};
use super::store;
use crate::cli::args::Global;
use crate::cli::context::RunCommand;
use crate::cli::signal::{Second, Signals};
use crate::cli::{Context, Error, Exit, Result};
use crate::config::Environment;
use crate::domain::text::shell_word;
use crate::report::safe::terminal;
use crate::workflow::Stop;

pub(super) const PROGRAM: &str = "cinder-backup-repair";
/// How long a wait for a key takes between two looks for signals.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The steps: of the main job, and of all. The beginning of the second file says how they are written.
const SHORT: &str = include_str!("short.txt");
const WALK: &str = include_str!("walk.txt");
/// What is said at the end about files that stay.
const KEPT: &str = include_str!("kept.txt");

/// Goes through the steps; ends with the first that does not do what it should.
pub fn walk(context: &Context<'_>, args: &DemoArgs, stage: &Stage, command: &RunCommand) -> Result<Exit> {
    let signals = Signals::note(Second::Ends)?;
    // Without variables, and with the demo's folder for the root of the file system: no configuration of this machine's.
    let environment = Environment { root: stage.folder.clone(), ..Environment::default() };
    let initial = stage.state()?;
    let mut walk = Walk { context, args, stage, command, signals, environment, initial, commands: 0, chapters: 0 };
    let steps = if args.all { WALK } else { SHORT };
    steps.trim_end().split("\n\n").try_for_each(|section| walk.section(section))?;
    walk.end()?;
    Ok(Exit::Done)
}

struct Walk<'a> {
    context: &'a Context<'a>,
    args: &'a DemoArgs,
    stage: &'a Stage,
    command: &'a RunCommand,
    signals: Signals,
    environment: Environment,
    /// The rows when the walk began.
    initial: State,
    commands: usize,
    chapters: usize,
}

impl Walk<'_> {
    fn section(&mut self, section: &str) -> Result<()> {
        let (first, rest) = section.split_once('\n').unwrap_or((section, ""));
        match first.split_once(' ').unwrap_or_default() {
            ("#", _) => Ok(()),
            ("=", title) => self.tell(&format!("{}\n", self.context.ui.strong(title))),
            ("==", title) => {
                self.chapters += 1;
                self.show(&format!("== {}. {title}", self.chapters), "")?;
                self.say(rest)
            }
            ("$", "sqlite3 cinder.sqlite") => self.meanwhile(first),
            ("$", line) => match line.strip_prefix("head -n ").and_then(|words| words.split_once(' ')) {
                Some((lines, name)) => self.excerpt(first, lines, name),
                None => self.run(line, rest),
            },
            _ => self.say(&section.replace("{folder}", &terminal(&self.stage.folder.display().to_string()))),
        }
    }

    fn end(&self) -> Result<()> {
        let ui = self.context.ui;
        ui.text(&format!("\n{} commands, each with the expected exit code and the expected changes.\n", self.commands))?;
        if !self.args.all {
            self.tell(&format!("`{PROGRAM} demo --all` shows everything else that it can do; --step waits at each command.\n"))?;
        }
        if !self.stage.is_kept() {
            return self.tell(&format!(
                "\nThe files are removed; `{PROGRAM} demo --keep DIR` keeps them.\n\
                 Next: README.md, `{PROGRAM} help`, and a scan of your own database: it\n\
                 changes nothing, and needs only an account that may read.\n"
            ));
        }
        let file = |name: &str| terminal(&shell_word(self.stage.file(name).display()));
        let text = KEPT.replace("{conf}", &file(CONFIGURATION)).replace("{plan}", &file("new.json")).replace("{log}", &file(AUDIT_LOG));
        Ok(ui.text(&text.replace("{folder}", &terminal(&self.stage.folder.display().to_string())))?)
    }

    /// Runs one command line. `expected` is how it must end, and how many rows it must change, whatever it says itself.
    fn run(&mut self, line: &str, expected: &str) -> Result<()> {
        let words = if line.contains("{run}") { line.replace("{run}", &self.first_run()?) } else { line.to_owned() };
        let mut expected = expected.trim_start_matches("(exit code ").trim_end_matches(')').split(", ");
        let code: u8 = expected.next().and_then(|code| code.parse().ok()).unwrap_or(u8::MAX);
        let rows: usize = expected.next().and_then(|rows| rows.strip_suffix(" rows")?.parse().ok()).unwrap_or(0);
        let line = words.replace('@', "");
        let ui = self.context.ui;
        self.show(&format!("$ {line}"), "")?;
        if self.args.step {
            self.wait_for_enter()?;
        }
        let before = self.stage.state()?;
        self.stage.send_heartbeat()?;
        let (exit, problem) = self.perform(&words);
        // Also a command that had to end early on that account.
        self.check_signals()?;
        let after = self.stage.state()?;
        let changed = || after.iter().filter(|(key, row)| before.get(*key) != Some(*row));
        self.commands += 1;
        if exit.code() != code {
            let (exit, problem) = (exit.code(), problem.map(|problem| format!(": {problem}")).unwrap_or_default());
            return Err(Error::new(Exit::Unexpected, format!("`{line}` ended with {exit} where the demo expects {code}{problem}")));
        }
        let count = changed().count();
        if count != rows || after.len() != before.len() {
            return Err(Error::new(Exit::Unexpected, format!("`{line}` changed {count} rows where the demo expects {rows}")));
        }
        ui.text(&if ui.quiet { format!("ok, exit code {code}: {line}\n") } else { format!("(exit code {code})\n") })?;
        match expected.next() {
            Some("earned") => check_earned(&after),
            Some("undone") => {
                let initial = |key: &(String, String)| self.initial.get(key).map(|row| &row.content);
                match changed().filter(|(key, row)| initial(key) != Some(&row.content)).count() {
                    0 => Ok(()),
                    other => Err(Error::new(Exit::Unexpected, format!("undo left {other} rows in another state than before the run"))),
                }
            }
            _ => Ok(()),
        }
    }

    fn check_signals(&self) -> Result<()> {
        let Some(Stop { signal, .. }) = self.signals.stop() else { return Ok(()) };
        Err(Error::new(Exit::of_signal(signal), format!("the demo was stopped by {signal}")))
    }

    /// Waits for a line at the terminal, or for a signal: the files are removed after both.
    fn wait_for_enter(&self) -> Result<()> {
        self.context.ui.show("(Enter runs it)");
        let mut line = String::new();
        let input = std::io::stdin();
        let mut pending = [PollFd::new(&input, PollFlags::IN)];
        loop {
            match poll(&mut pending, Some(&POLL)) {
                Ok(0) | Err(Errno::INTR) => self.check_signals()?,
                Ok(_) => break,
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
        }
        input.read_line(&mut line)?;
        Ok(())
    }

    /// The exit code, and what was wrong if something was.
    fn perform(&self, words: &str) -> (Exit, Option<String>) {
        let words = shlex::split(words).unwrap_or_default().into_iter();
        let words = words.map(|word| word.strip_prefix('@').map_or_else(|| (&word).into(), |name| self.stage.file(name).into_os_string()));
        let adjust = |global: &mut Global| {
            let outer = &self.context.global.output;
            global.database.flags.config_files = vec![self.stage.file(CONFIGURATION)];
            global.record.audit_log = Some(self.stage.file(AUDIT_LOG));
            global.output.color = outer.color;
            global.output.verbose = outer.verbose;
        };
        match (self.command)(words.collect(), &self.environment, self.context.ui.quiet, &adjust) {
            Ok(exit) => (exit, None),
            Err(error) => (error.exit, Some(format!("{:#}", error.error))),
        }
    }

    /// A colleague with a client of the database.
    fn meanwhile(&self, line: &str) -> Result<()> {
        self.stage.execute(MEANWHILE)?;
        let statement = MEANWHILE.lines().filter(|line| !line.starts_with("--"));
        self.show(line, &terminal_lines(statement))
    }

    /// The beginning of a file that a command wrote.
    fn excerpt(&self, line: &str, lines: &str, name: &str) -> Result<()> {
        let path = self.stage.file(name);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::new(Exit::Unexpected, format!("cannot read {}: {error}", path.display())))?;
        if text.trim().is_empty() {
            return Err(Error::new(Exit::Unexpected, format!("{} is empty", path.display())));
        }
        self.show(line, &terminal_lines(text.lines().take(lines.parse().unwrap_or(0))))
    }

    fn first_run(&self) -> Result<String> {
        let runs = crate::audit::runs(&self.stage.file(AUDIT_LOG))?.runs;
        runs.first().map(|run| run.run.clone()).ok_or_else(|| Error::new(Exit::Unexpected, "the audit log has no run"))
    }

    fn say(&self, text: &str) -> Result<()> {
        self.tell(&format!("\n{text}\n"))
    }

    /// A title or command that stands out, and the lines below it.
    fn show(&self, title: &str, lines: &str) -> Result<()> {
        self.tell(&format!("\n{}\n{lines}", self.context.ui.strong(title)))
    }

    fn tell(&self, text: &str) -> Result<()> {
        if !self.context.ui.quiet {
            self.context.ui.text(text)?;
        }
        Ok(())
    }
}

/// Makes sure that each backup with data has the status that its data calls for.
fn check_earned(state: &State) -> Result<()> {
    let is = |id: &str| state.get(&("backups".to_owned(), id.to_owned())).and_then(|row| row.content.split(' ').nth(1));
    match store::earned().find(|(id, status)| is(id) != Some(&format!("'{status}'"))) {
        Some((id, status)) => Err(Error::new(Exit::Unexpected, format!("the backup {id} is not {status}, which its data calls for"))),
        None => Ok(()),
    }
}

/// Lines made safe for the terminal.
fn terminal_lines<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(|line| format!("{}\n", terminal(line))).collect()
}
