//! The walk: each step shows a command line as a user would type it, runs it through the same code as any other, and checks
//! that it ended with the right exit code and changed exactly as many rows as it should.

use super::stage::{MEANWHILE, Stage, State};
use super::store;
use crate::cli::args::Global;
use crate::cli::context::{Context, RunCommand};
use crate::cli::error::{Error, Result};
use crate::cli::exit::Exit;
use crate::cli::signal::{Second, Signals};
use crate::config::Environment;
use crate::domain::text::shell_word;
use crate::report::safe::terminal;

pub(super) const PROGRAM: &str = "cinder-backup-repair";
/// So many lines of a report are shown: those that say what it is.
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
    Environment { root: stage.folder().to_owned(), ..Environment::default() }
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
        let ui = self.context.ui;
        if ui.is_quiet() {
            return Ok(());
        }
        ui.text(&format!(
            "{}\n\n\
             Controller ctl1 lost its power three hours ago, in the middle of its backups.\n\
             Its cinder-backup is down; the one on ctl2 works. This is Cinder's database as\n\
             it was left: 1283 backups, 1200 of them deleted, a dozen in trouble; and of the\n\
             smallest of these their data. Every command below is run for real, on files in\n\
             this folder:\n\n    {}\n\n\
             On a controller the program finds its database in /etc/cinder/cinder.conf; here\n\
             --config-file cinder.conf and --audit-log audit.jsonl are left out for brevity.\n",
            ui.strong("cinder-backup-repair: a walk through the repair after an outage"),
            terminal(&self.stage.folder().display().to_string()),
        ))?;
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        self.chapter("What is stuck, and why?")?;
        self.say(
            "A scan only reads. Look at the verdicts and the evidence: the service on ctl1\n\
             is down, so nobody works on its backups; the one on ctl2 beats, so its old\n\
             backup is merely uncertain, and its young one recent. One name would clear the\n\
             screen of a careless program.",
        )?;
        self.run(&["scan"], Exit::Done, 0)?;

        self.chapter("The same for a script")?;
        self.say("The columns that are wanted, as JSON, and an exit code that tells of findings.")?;
        self.run(
            &["scan", "--status", "restoring", "--detailed-exitcode", "-f", "json", "-c", "id", "-c", "verdict", "-c", "proposed"],
            Exit::Findings,
            0,
        )?;

        self.chapter("Can the database's backup be saved?")?;
        self.say(
            "Nobody has looked at its data on the storage, so it may not become available.\n\
             --yes answers questions, but overrides no rule.",
        )?;
        self.run(&["repair", "erp-db nightly", "--to", "available", "--yes"], Exit::Safety, 0)
    }

    fn check(&mut self) -> Result<()> {
        self.chapter("What is on the storage?")?;
        self.say(
            "A quick check holds names, sizes and side files against each other. The backup\n\
             of the wiki broke off, and of some there is nothing at all. Three seem to be\n\
             whole: only the last update of the database was lost.",
        )?;
        let columns = ["-c", "name", "-c", "verdict", "-c", "objects", "-c", "problems"];
        self.run(&[&["check"], &columns[..]].concat(), Exit::Damaged, 0)?;
        self.say(
            "A deep check reads every object, and compares it with its digest. In this one a\n\
             bit has flipped; Cinder would restore it without a word.",
        )?;
        self.run(&[&["check", "ledger-db nightly", "--level", "deep"], &columns[..]].concat(), Exit::Damaged, 0)
    }

    /// Gives the run's id.
    fn repair(&mut self) -> Result<String> {
        self.chapter("A plan, and reports for those who must agree to it")?;
        self.say(
            "First what ctl1 has left. What is whole becomes available, what is not error.\n\
             The plan names each column, from what to what; with it go a page for the change\n\
             ticket, and a script with the same guards in the server's own SQL.",
        )?;
        let plan = [
            "plan",
            "--host",
            "ctl1",
            "--check",
            "deep",
            "--out",
            "@plan.json",
            "--report",
            "@change.md",
            "--report",
            "@change.sql",
            "-c",
            "name",
            "-c",
            "changes",
        ];
        self.run(&plan, Exit::Done, 0)?;
        self.excerpt("change.md")?;
        self.excerpt("change.sql")?;

        self.chapter("Rehearse it, then do it")?;
        self.say("The dry run does all but write, and the database itself holds it read-only.")?;
        self.run(&["apply", "@plan.json", "--dry-run", "-c", "unit", "-c", "id", "-c", "outcome"], Exit::Done, 0)?;
        self.say(
            "Each backup changes together with its volume or snapshot and the counter of the\n\
             backup it rests on, or not at all. What is to be done is in the audit log, on\n\
             the disk, before a row is touched.",
        )?;
        // Seven backups, four volumes, a snapshot, the counter of a parent.
        let apply = ["apply", "@plan.json", "--yes", "--ticket", "CHG-4711", "--reason", "power failure of ctl1"];
        self.run(&apply, Exit::Done, 13)?;
        let run = self.last_run()?;
        self.say("A plan is applied once.")?;
        self.run(&["apply", "@plan.json", "--yes"], Exit::Stale, 0)?;

        self.chapter("Would a restore give the volume back?")?;
        self.say(
            "The proof: every block, the increment's over the full backup's, as a restore\n\
             would write it, against the digest from when the volume was read. Nothing is\n\
             written anywhere.",
        )?;
        let restore = ["check", "erp-db nightly", "--level", "restore", "-c", "name", "-c", "verdict", "-c", "bytes", "-c", "depth"];
        self.run(&restore, Exit::Done, 0)?;
        Ok(run)
    }

    fn races_and_refusals(&mut self) -> Result<()> {
        self.chapter("Somebody else is faster")?;
        self.say("A plan for the rest: never scheduled, of a retired host, a volume left behind.")?;
        self.run(&["plan", "--out", "@rest.json", "-c", "name", "-c", "evidence"], Exit::Done, 0)?;
        self.say("Before it is applied, a colleague changes one of its rows by hand:")?;
        self.meanwhile()?;
        self.say("That row is left as it is now, and reported; the others are put right.")?;
        // Three backups, of which one is the colleague's by now, with a volume, and a volume on its own.
        self.run(&["apply", "@rest.json", "--yes", "-c", "id", "-c", "outcome", "-c", "reason"], Exit::Partial, 4)?;

        self.chapter("Is anybody at work on it?")?;
        self.say("The service on ctl2 beats: what it has may wait in its queue, and is not touched.")?;
        self.run(&["repair", "dns-zones nightly", "--yes"], Exit::Safety, 0)?;
        self.say(
            "But the storage can tell. All of this backup is there, down to what its driver\n\
             writes last, and hours old: only rows are left to write, and the data was read,\n\
             so it has earned available. For error the storage alone would never do.",
        )?;
        let plan = ["plan", "dns-zones nightly", "--check", "deep", "--out", "@dns.json", "-c", "name", "-c", "changes"];
        self.run(&plan, Exit::Done, 0)?;
        self.run(&["apply", "@dns.json", "--yes", "-c", "id", "-c", "outcome"], Exit::Done, 2)?;
        self.say("Of this one the storage has nothing: it is still uncertain ...")?;
        self.run(&["repair", "files-stage2 nightly", "--check", "deep", "--yes"], Exit::Safety, 0)?;
        self.say("... unless you know better, and say so by the host's name. It goes on record.")?;
        let reason = "cinder-backup on ctl2 was restarted, its queue is empty";
        self.run(&["repair", "files-stage2 nightly", "--assume-dead", "ctl2", "--yes", "--reason", reason], Exit::Done, 2)?;

        self.chapter("A counter that Cinder got wrong")?;
        self.say("Two increments rest on this backup. Cinder would let it be deleted under them.")?;
        self.run(&["repair", "crm-db full", "--fix-counters", "--yes"], Exit::Done, 1)
    }

    /// Whole or not, each backup with data has become what it should.
    fn earned(&self) -> Result<()> {
        let state = self.stage.state()?;
        let is = |id: &str| state.get(&("backups".to_owned(), id.to_owned())).and_then(|row| row.content.split(' ').nth(1));
        match store::earned().find(|(id, status)| is(id) != Some(&format!("'{status}'"))) {
            Some((id, status)) => Err(Error::new(Exit::Unexpected, format!("the backup {id} is not {status}, which its data calls for"))),
            None => Ok(()),
        }
    }

    fn history(&mut self, run: &str) -> Result<()> {
        self.chapter("Who changed what, and is it still so?")?;
        self.say("The audit log has every run; the first is that of the plan for ctl1.")?;
        self.run(&["history", "list", "-c", "run", "-c", "command", "-c", "units", "-c", "reason"], Exit::Done, 0)?;
        self.run(&["history", "show", run, "-c", "id", "-c", "column", "-c", "after"], Exit::Done, 0)?;
        self.say(
            "Its records are chained by hashes: no line can be changed unseen. After a\n\
             failover, when commits may have been lost, reconcile holds it against the rows.",
        )?;
        self.run(&["history", "verify"], Exit::Done, 0)?;
        self.run(&["history", "reconcile", "-c", "id", "-c", "state", "-c", "detail"], Exit::Done, 0)
    }

    fn undo(&mut self, run: &str, before: &State) -> Result<()> {
        self.chapter("And back")?;
        self.say("A run like any other, guarded and on record: only what nobody changed since.")?;
        let repaired = self.stage.state()?;
        self.run(&["undo", run, "--yes", "--reason", "only a demonstration", "-c", "id", "-c", "outcome"], Exit::Done, 13)?;
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
            "What ctl1 left is stuck as before, and all else stays repaired. Undo wrote\n\
             these rows just now: without --older-than they would be too recent to judge.",
        )?;
        self.run(&["scan", "--host", "ctl1", "--older-than", "0s", "-c", "id", "-c", "status", "-c", "verdict"], Exit::Done, 0)
    }

    fn end(&self) -> Result<()> {
        let ui = self.context.ui;
        ui.text(&format!("\n{} commands, each ended as it should and changed just the rows that it should.\n", self.commands))?;
        let log = terminal(&shell_word(self.stage.audit_log().display()));
        if self.stage.is_kept() {
            let conf = terminal(&shell_word(self.stage.configuration().display()));
            let plan = terminal(&shell_word(self.stage.file("new.json").display()));
            ui.text(&format!(
                "\nThe files stay in {}. To go on:\n\n\
                 \x20   {PROGRAM} scan --config-file {conf} --older-than 0s\n\
                 \x20   {PROGRAM} check --config-file {conf} --older-than 0s\n\
                 \x20   {PROGRAM} plan --config-file {conf} --older-than 0s --out {plan}\n\
                 \x20   {PROGRAM} repair --config-file {conf} --older-than 0s --audit-log {log}\n\
                 \x20   {PROGRAM} history list --audit-log {log}\n\n\
                 Without --older-than, what undo just wrote is too recent to judge for an hour.\n\
                 The service on ctl2 beats no more: in a minute it counts as dead.\n",
                terminal(&self.stage.folder().display().to_string()),
            ))?;
        } else if !ui.is_quiet() {
            ui.text(&format!(
                "\nThe files go with the walk; `{PROGRAM} demo --keep DIR` leaves them.\n\
                 Where to go on: README.md, `{PROGRAM} help`, and a scan of a\n\
                 database of yours: it changes nothing, and an account that may only read is\n\
                 enough.\n"
            ))?;
        }
        Ok(())
    }

    /// Runs one command line. `rows` is how many rows it must change, whatever it says itself.
    ///
    /// A word that begins with `@` is a file in the demo's folder; it is shown without the folder.
    fn run(&mut self, words: &[&str], expected: Exit, rows: usize) -> Result<()> {
        let shown: Vec<String> = words.iter().map(|word| shell_word(word.strip_prefix('@').unwrap_or(word))).collect();
        let line = format!("{PROGRAM} {}", shown.join(" "));
        let outer = self.context.ui;
        let quiet = outer.is_quiet();
        if !quiet {
            outer.text(&format!("\n{}\n", outer.strong(&format!("$ {line}"))))?;
        }
        let before = self.stage.state()?;
        self.stage.beat()?;
        let (exit, problem) = self.perform(words, quiet);
        // Also a command that had to end early on that account.
        if self.signals.stop() {
            let (exit, signal) = self.signals.exit();
            return Err(Error::new(exit, format!("the demo was stopped by {signal}")));
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
        outer.text(&if quiet { format!("ok, exit code {code}: {line}\n") } else { format!("(exit code {code})\n") })?;
        Ok(())
    }

    /// The exit code, and what was wrong if something was.
    fn perform(&self, words: &[&str], muted: bool) -> (Exit, Option<String>) {
        let file = |word: &&str| word.strip_prefix('@').map_or_else(|| (*word).into(), |name| self.stage.file(name).into_os_string());
        let words = std::iter::once(PROGRAM.into()).chain(words.iter().map(file));
        let adjust = |global: &mut Global| {
            let outer = &self.context.global.output;
            global.database.config_file = vec![self.stage.configuration()];
            global.record.audit_log = Some(self.stage.audit_log());
            global.output.color = outer.color;
            global.output.verbose = outer.verbose;
        };
        match (self.command)(words.collect(), &self.environment, muted, &adjust) {
            Ok(exit) => (exit, None),
            Err(error) => (error.exit, Some(format!("{:#}", error.error))),
        }
    }

    /// A colleague with a client of the database.
    fn meanwhile(&self) -> Result<()> {
        self.stage.execute(MEANWHILE)?;
        let ui = self.context.ui;
        if !ui.is_quiet() {
            let statement: String = MEANWHILE.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
            ui.text(&format!("\n{}\n{}", ui.strong("$ sqlite3 cinder.sqlite"), terminal_lines(&statement)))?;
        }
        Ok(())
    }

    /// The beginning of a file that a command wrote.
    fn excerpt(&self, name: &str) -> Result<()> {
        let path = self.stage.file(name);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::new(Exit::Unexpected, format!("cannot read {}: {error}", path.display())))?;
        let ui = self.context.ui;
        if text.trim().is_empty() {
            return Err(Error::new(Exit::Unexpected, format!("{} is empty", path.display())));
        }
        if !ui.is_quiet() {
            let begin: String = text.lines().take(EXCERPT).map(|line| format!("{line}\n")).collect();
            ui.text(&format!("\n{}\n{}", ui.strong(&format!("$ head -n {EXCERPT} {name}")), terminal_lines(&begin)))?;
        }
        Ok(())
    }

    fn last_run(&self) -> Result<String> {
        let runs = crate::audit::runs(&self.stage.audit_log())?.runs;
        runs.last().map(|run| run.run.clone()).ok_or_else(|| Error::new(Exit::Unexpected, "the audit log has no run"))
    }

    fn chapter(&mut self, title: &str) -> Result<()> {
        self.chapters += 1;
        let ui = self.context.ui;
        if !ui.is_quiet() {
            ui.text(&format!("\n{}\n", ui.strong(&format!("== {}. {title}", self.chapters))))?;
        }
        Ok(())
    }

    fn say(&self, text: &str) -> Result<()> {
        if !self.context.ui.is_quiet() {
            self.context.ui.text(&format!("\n{text}\n"))?;
        }
        Ok(())
    }
}

/// Text of several lines, made safe line by line.
fn terminal_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", terminal(line))).collect()
}
