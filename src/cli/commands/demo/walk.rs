//! The walk: each step shows a command line as a user would type it, runs it through the same code as any other, and checks
//! that it ended with the right exit code and changed exactly as many rows as it should.

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
/// How many lines of a report are shown: its beginning.
const EXCERPT: usize = 17;

/// Goes through all steps; ends with the first that does not do what it should.
pub fn walk(context: &Context<'_>, stage: &Stage, command: &RunCommand) -> Result<Exit> {
    let signals = Signals::note(Second::Ends)?;
    let mut walk = Walk { context, stage, command, signals, environment: alone(stage), commands: 0, chapters: 0 };
    walk.begin()?;
    walk.look()?;
    walk.check()?;
    let before = stage.state()?;
    let run = walk.repair()?;
    walk.races_and_refusals()?;
    walk.earned()?;
    walk.history(&run)?;
    walk.undo(&run, &before)?;
    walk.end()?;
    Ok(Exit::Done)
}

/// An environment without variables, and with the demo's folder for the root of the file system: no configuration of this machine's.
fn alone(stage: &Stage) -> Environment {
    Environment { root: stage.folder.clone(), ..Environment::default() }
}

struct Walk<'a> {
    context: &'a Context<'a>,
    stage: &'a Stage,
    command: &'a RunCommand,
    signals: Signals,
    environment: Environment,
    commands: usize,
    chapters: usize,
}

impl Walk<'_> {
    fn begin(&self) -> Result<()> {
        self.tell(&format!(
            "{}\n\n\
             Controller ctl1 lost power three hours ago, in the middle of its backups. Its\n\
             cinder-backup is down; the one on ctl2 works. This is Cinder's database after\n\
             the outage: 1283 backups, 1200 of them deleted and a dozen in trouble, with the\n\
             data of the smallest ones. Every command below runs for real, on files in this\n\
             directory:\n\n    {}\n\n\
             On a controller the program finds its database in /etc/cinder/cinder.conf; here\n\
             --config-file cinder.conf and --audit-log audit.jsonl are omitted for brevity.\n",
            self.context.ui.strong("cinder-backup-repair: a walk through the repair after an outage"),
            terminal(&self.stage.folder.display().to_string()),
        ))
    }

    fn look(&mut self) -> Result<()> {
        self.chapter(
            "What is stuck, and why?",
            "A scan only reads. Compare the verdicts and the evidence: the service on ctl1\n\
             is down, so nothing works on its backups; the one on ctl2 has heartbeats, so\n\
             its old backup is only uncertain, and its young one recent. One of the names\n\
             tries to clear the screen.",
        )?;
        self.run("scan", Exit::Done, 0)?;

        self.chapter("The same for a script", "Selected columns as JSON, and an exit code that shows whether there are findings.")?;
        self.run("scan --status restoring --detailed-exitcode -f json -c id -c verdict -c proposed", Exit::Findings, 0)?;

        self.chapter(
            "Can the database's backup be saved?",
            "Its data on the storage was not verified, so it may not become available. --yes\n\
             answers questions, but overrides no rule.",
        )?;
        self.run("repair 'erp-db nightly' --to available --yes", Exit::Safety, 0)
    }

    fn check(&mut self) -> Result<()> {
        self.chapter(
            "What is on the storage?",
            "A quick check compares names, sizes and side files. The backup of the wiki is\n\
             incomplete, and some have no data at all. Three seem to be intact: only the\n\
             last update of the database was lost.",
        )?;
        self.run("check -c name -c verdict -c objects -c problems", Exit::Damaged, 0)?;
        self.say(
            "A deep check reads every object and compares it with its digest. In this backup\n\
             one bit is wrong; Cinder would restore it without an error.",
        )?;
        self.run("check 'ledger-db nightly' --level deep -c name -c verdict -c objects -c problems", Exit::Damaged, 0)
    }

    /// Returns the run's id.
    fn repair(&mut self) -> Result<String> {
        self.chapter(
            "A plan, and reports for the people who approve it",
            "First the backups of ctl1. Intact ones become available, the others error. The\n\
             plan names each column with its old and new value. The reports are a page for\n\
             the change ticket, and an SQL script with the same guards.",
        )?;
        let plan = "plan --host ctl1 --check deep --out @plan.json --report @change.md --report @change.sql -c name -c changes";
        self.run(plan, Exit::Done, 0)?;
        self.excerpt("change.md")?;
        self.excerpt("change.sql")?;

        self.chapter("Rehearse it, then do it", "The dry run does everything except writing, in read-only transactions.")?;
        self.run("apply @plan.json --dry-run -c unit -c id -c outcome", Exit::Done, 0)?;
        self.say(
            "Each backup changes together with its volume or snapshot and the counter of the\n\
             backup it is based on, or not at all. The intent is in the audit log, on the\n\
             disk, before a row is changed.",
        )?;
        // Seven backups, four volumes, a snapshot, the counter of a parent.
        self.run("apply @plan.json --yes --ticket CHG-4711 --reason 'power failure of ctl1'", Exit::Done, 13)?;
        let run = self.last_run()?;
        self.say("A plan is applied once.")?;
        self.run("apply @plan.json --yes", Exit::Stale, 0)?;

        self.chapter(
            "Would a restore work?",
            "The proof: every block as a restore would write it, the increment's over the\n\
             full backup's, compared with the digest from when the volume was read. Nothing\n\
             is written anywhere.",
        )?;
        self.run("check 'erp-db nightly' --level restore -c name -c verdict -c bytes -c depth", Exit::Done, 0)?;
        Ok(run)
    }

    fn races_and_refusals(&mut self) -> Result<()> {
        self.chapter("Someone else is faster", "A plan for the rest: never scheduled, of a retired host, a leftover volume.")?;
        self.run("plan --out @rest.json -c name -c evidence", Exit::Done, 0)?;
        self.say("Before it is applied, a colleague changes one of its rows by hand:")?;
        self.meanwhile()?;
        self.say("That row is reported and not changed; the others are repaired.")?;
        // Three backups, one of them changed by the colleague, with a volume; and a volume on its own.
        self.run("apply @rest.json --yes -c id -c outcome -c reason", Exit::Partial, 4)?;

        self.chapter(
            "Is a service still working on it?",
            "The service on ctl2 has heartbeats: its backups may be queued, and are not changed.",
        )?;
        self.run("repair 'dns-zones nightly' --yes", Exit::Safety, 0)?;
        self.say(
            "But the storage can show it. This backup is complete, including the object that\n\
             its driver writes last, and hours old. Its data was read and is intact, so it\n\
             may become available. The storage alone would never make it error.",
        )?;
        self.run("plan 'dns-zones nightly' --check deep --out @dns.json -c name -c changes", Exit::Done, 0)?;
        self.run("apply @dns.json --yes -c id -c outcome", Exit::Done, 2)?;
        self.say("The storage has nothing of this one: it is still uncertain ...")?;
        self.run("repair 'files-stage2 nightly' --check deep --yes", Exit::Safety, 0)?;
        self.say("... unless you know better and name the host. The log records that.")?;
        let reason = "'cinder-backup on ctl2 was restarted, its queue is empty'";
        self.run(&format!("repair 'files-stage2 nightly' --assume-dead ctl2 --yes --reason {reason}"), Exit::Done, 2)?;

        self.chapter("A wrong counter", "Two increments are based on this backup. Cinder would allow its deletion.")?;
        self.run("repair 'crm-db full' --fix-counters --yes", Exit::Done, 1)
    }

    /// Makes sure that each backup with data has the status that its data calls for.
    fn earned(&self) -> Result<()> {
        let state = self.stage.state()?;
        let is = |id: &str| state.get(&("backups".to_owned(), id.to_owned())).and_then(|row| row.content.split(' ').nth(1));
        match store::earned().find(|(id, status)| is(id) != Some(&format!("'{status}'"))) {
            Some((id, status)) => Err(Error::new(Exit::Unexpected, format!("the backup {id} is not {status}, which its data calls for"))),
            None => Ok(()),
        }
    }

    fn history(&mut self, run: &str) -> Result<()> {
        self.chapter("Who changed what, and is it still there?", "The audit log has every run; the first one is the plan for ctl1.")?;
        self.run("history list -c run -c command -c units -c reason", Exit::Done, 0)?;
        self.run(&format!("history show {run} -c id -c column -c after"), Exit::Done, 0)?;
        self.say(
            "Its records are a hash chain: no line can be changed without a trace. After a\n\
             failover, when commits may be lost, reconcile compares it with the rows.",
        )?;
        self.run("history verify", Exit::Done, 0)?;
        self.run("history reconcile -c id -c state -c detail", Exit::Done, 0)
    }

    fn undo(&mut self, run: &str, before: &State) -> Result<()> {
        self.chapter("And back", "An undo is a run too, guarded and recorded. It skips rows that changed since.")?;
        let repaired = self.stage.state()?;
        self.run(&format!("undo {run} --yes --reason 'only a demonstration' -c id -c outcome"), Exit::Done, 13)?;
        let now = self.stage.state()?;
        let other = now.iter().filter(|(key, row)| {
            let undone = repaired.get(*key) != Some(*row);
            undone && before.get(*key).map(|before| &before.content) != Some(&row.content)
        });
        let other = other.count();
        if other > 0 {
            return Err(Error::new(Exit::Unexpected, format!("undo left {other} rows in another state than before the run")));
        }
        self.say(
            "The backups of ctl1 are stuck as before, and all others stay repaired. Undo\n\
             wrote these rows just now: without --older-than they would be too recent.",
        )?;
        self.run("scan --host ctl1 --older-than 0s -c id -c status -c verdict", Exit::Done, 0)
    }

    fn end(&self) -> Result<()> {
        let ui = self.context.ui;
        ui.text(&format!("\n{} commands, each with the expected exit code and the expected changes.\n", self.commands))?;
        let log = terminal(&shell_word(self.stage.file(AUDIT_LOG).display()));
        if self.stage.is_kept() {
            let conf = terminal(&shell_word(self.stage.file(CONFIGURATION).display()));
            let plan = terminal(&shell_word(self.stage.file("new.json").display()));
            ui.text(&format!(
                "\nThe files stay in {}. To continue:\n\n\
                 \x20   {PROGRAM} scan --config-file {conf} --older-than 0s\n\
                 \x20   {PROGRAM} check --config-file {conf} --older-than 0s\n\
                 \x20   {PROGRAM} plan --config-file {conf} --older-than 0s --out {plan}\n\
                 \x20   {PROGRAM} repair --config-file {conf} --older-than 0s --audit-log {log}\n\
                 \x20   {PROGRAM} history list --audit-log {log}\n\n\
                 Without --older-than, the rows that undo just wrote are too recent for an hour.\n\
                 The service on ctl2 sends no more heartbeats: in a minute it counts as down.\n",
                terminal(&self.stage.folder.display().to_string()),
            ))?;
        } else {
            self.tell(&format!(
                "\nThe files are removed; `{PROGRAM} demo --keep DIR` keeps them.\n\
                 Next: README.md, `{PROGRAM} help`, and a scan of your own database: it\n\
                 changes nothing, and needs only an account that may read.\n"
            ))?;
        }
        Ok(())
    }

    /// Runs one command line. `rows` is how many rows it must change, whatever it says itself.
    ///
    /// A word that begins with `@` is a file in the demo's folder; it is shown without the folder.
    fn run(&mut self, words: &str, expected: Exit, rows: usize) -> Result<()> {
        let line = format!("{PROGRAM} {}", words.replace('@', ""));
        let ui = self.context.ui;
        self.show(&format!("$ {line}"), "")?;
        let before = self.stage.state()?;
        self.stage.send_heartbeat()?;
        let (exit, problem) = self.perform(words);
        // Also a command that had to end early on that account.
        if let Some(Stop { signal, .. }) = self.signals.stop() {
            return Err(Error::new(Exit::of_signal(signal), format!("the demo was stopped by {signal}")));
        }
        let after = self.stage.state()?;
        let changed = after.iter().filter(|(key, row)| before.get(*key) != Some(*row)).count();
        self.commands += 1;
        if exit != expected {
            let problem = problem.map(|problem| format!(": {problem}")).unwrap_or_default();
            let (exit, expected) = (exit.code(), expected.code());
            return Err(Error::new(Exit::Unexpected, format!("`{line}` ended with {exit} where the demo expects {expected}{problem}")));
        }
        if changed != rows || after.len() != before.len() {
            return Err(Error::new(Exit::Unexpected, format!("`{line}` changed {changed} rows where the demo expects {rows}")));
        }
        let code = exit.code();
        ui.text(&if ui.quiet { format!("ok, exit code {code}: {line}\n") } else { format!("(exit code {code})\n") })?;
        Ok(())
    }

    /// The exit code, and what was wrong if something was.
    fn perform(&self, words: &str) -> (Exit, Option<String>) {
        let words = shlex::split(words).unwrap_or_default().into_iter();
        let words = words.map(|word| word.strip_prefix('@').map_or_else(|| (&word).into(), |name| self.stage.file(name).into_os_string()));
        let words = std::iter::once(PROGRAM.into()).chain(words);
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
    fn meanwhile(&self) -> Result<()> {
        self.stage.execute(MEANWHILE)?;
        let statement: Vec<&str> = MEANWHILE.lines().filter(|line| !line.starts_with("--")).collect();
        self.show("$ sqlite3 cinder.sqlite", &terminal_lines(&statement))
    }

    /// The beginning of a file that a command wrote.
    fn excerpt(&self, name: &str) -> Result<()> {
        let path = self.stage.file(name);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::new(Exit::Unexpected, format!("cannot read {}: {error}", path.display())))?;
        if text.trim().is_empty() {
            return Err(Error::new(Exit::Unexpected, format!("{} is empty", path.display())));
        }
        let begin: Vec<&str> = text.lines().take(EXCERPT).collect();
        self.show(&format!("$ head -n {EXCERPT} {name}"), &terminal_lines(&begin))
    }

    fn last_run(&self) -> Result<String> {
        let runs = crate::audit::runs(&self.stage.file(AUDIT_LOG))?.runs;
        runs.last().map(|run| run.run.clone()).ok_or_else(|| Error::new(Exit::Unexpected, "the audit log has no run"))
    }

    fn chapter(&mut self, title: &str, text: &str) -> Result<()> {
        self.chapters += 1;
        self.show(&format!("== {}. {title}", self.chapters), "")?;
        self.say(text)
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

/// Lines made safe for the terminal.
fn terminal_lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{}\n", terminal(line))).collect()
}
