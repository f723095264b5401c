//! README's console blocks against the program: what follows a `$` is what the command prints on what `demo --keep` leaves behind.
//!
//! `UPDATE_README=1 cargo test --test it readme` writes what the program prints into README.md. A line of `…` leaves something out;
//! as many lines stay before and after it as there were.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use tempfile::TempDir;

use crate::program::{answer, bare, binary};
use crate::servers::root;
use crate::terminal::Terminal;

/// Where README's practice folder is said to be.
const PRACTICE: &str = "/srv/practice";
const ELISION: &str = "…";

/// What the demo leaves, in which `ctl2` goes on beating.
struct Practice {
    folder: TempDir,
}

impl Practice {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let demo = answer(bare(&["demo", "-q", "--keep"]).arg(folder.path()));
        assert_eq!(demo.code, Some(0), "{}{}", demo.stdout, demo.stderr);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command as README shows it, with the options that it tells to add.
    fn command(&self, shown: &str) -> Command {
        let heartbeat = fs::read_to_string(root().join("sql/demo/heartbeat.sql")).unwrap();
        rusqlite::Connection::open(self.path("cinder.sqlite")).unwrap().execute_batch(&heartbeat).unwrap();
        let words = shown.strip_prefix("cinder-backup-repair ").unwrap_or_else(|| panic!("{shown} is no command of this program"));
        let (program, conf, log) = (binary().display(), self.path("cinder.conf"), self.path("audit.jsonl"));
        let line = format!("exec {program} {words} --older-than 0s --config-file {} --audit-log {}", conf.display(), log.display());
        let mut shell = Command::new("sh");
        shell.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent").env("LANG", "C.UTF-8");
        shell.arg("-c").arg(line).current_dir(self.folder.path());
        shell
    }

    /// What the command prints, as on a terminal, with what differs from run to run made the same.
    fn prints(&self, shown: &str) -> Vec<String> {
        let command = self.command(shown);
        let asks = shown.contains(" repair ") && !shown.contains("--dry-run") && !shown.contains("--yes");
        let lines = if asks { confirmed(&command) } else { together(command) };
        lines.iter().map(|line| self.same_every_time(line)).collect()
    }

    fn same_every_time(&self, line: &str) -> String {
        let mut line = line.trim_end().replace(&self.folder.path().display().to_string(), PRACTICE);
        for added in [format!(" --config-file {PRACTICE}/cinder.conf"), format!(" --audit-log {PRACTICE}/audit.jsonl")] {
            line = line.replace(&added, "");
        }
        replace_like(&replace_like(&line, "20261122T203333Z-3c84b926"), "_20261122194433_backup")
    }
}

/// The text with what looks like the example, digit for digit, replaced by it.
fn replace_like(text: &str, example: &str) -> String {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let alike = |there: &str| there.chars().zip(example.chars()).all(|(one, other)| one == other || (hex(one) && hex(other)));
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.get(..example.len()).is_some_and(alike) {
            replaced.push_str(example);
            rest = &rest[example.len()..];
        } else {
            replaced.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    replaced
}

/// Results, and what is said beside them.
fn together(mut command: Command) -> Vec<String> {
    let answer = answer(&mut command);
    [answer.stdout, answer.stderr].concat().lines().map(str::to_owned).collect()
}

/// At a terminal, with all that is proposed confirmed: the screen with the list, and all that follows.
fn confirmed(command: &Command) -> Vec<String> {
    let mut terminal = Terminal::start(command, 140, 60);
    terminal.wait("Which of these:");
    let lines = |screen: String| screen.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut shown = lines(terminal.screen());
    terminal.press("\r");
    terminal.wait("Type the number of rows to change");
    let screen = terminal.screen();
    let number = screen.split("Type the number of rows to change (").nth(1).unwrap().split(')').next().unwrap();
    terminal.press(&format!("{number}\r"));
    let screen = lines(terminal.expect(0));
    shown.extend(screen.into_iter().skip_while(|line| !line.starts_with("These ")));
    shown
}

/// One command and what README says that it prints; `at` is the place of the command's line.
struct Block {
    at: usize,
    command: String,
    printed: Vec<String>,
}

/// The blocks in README's lines.
fn blocks(lines: &[String]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if let Some(command) = line.strip_prefix("    $ ") {
            blocks.push(Block { at, command: command.to_owned(), printed: Vec::new() });
        } else if let Some(block) = blocks.last_mut().filter(|block| block.at + block.printed.len() + 1 == at)
            && let Some(printed) = line.strip_prefix("    ")
        {
            block.printed.push(printed.to_owned());
        }
    }
    blocks
}

/// What a block is to show of what was printed.
fn shown(block: &Block, printed: Vec<String>) -> Vec<String> {
    let Some(elision) = block.printed.iter().position(|line| line == ELISION) else { return printed };
    let after = block.printed.len() - elision - 1;
    let mut shown: Vec<String> = printed.iter().take(elision).cloned().collect();
    shown.push(ELISION.to_owned());
    shown.extend(printed.iter().skip(printed.len().saturating_sub(after)).cloned());
    shown
}

#[test]
fn its_console_blocks_are_what_the_program_prints() {
    let path = root().join("README.md");
    let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    let practice = Practice::new();
    let blocks = blocks(&lines);
    assert!(blocks.len() >= 5, "README.md has only {} console blocks", blocks.len());
    let mut wrong = Vec::new();
    // From the last to the first, so that places stay right; and the repair is the last of them to be run.
    let found: Vec<Vec<String>> = blocks.iter().map(|block| shown(block, practice.prints(&block.command))).collect();
    for (block, found) in blocks.iter().zip(found).rev() {
        if block.printed != found {
            wrong.push(format!("$ {}\n{}", block.command, found.join("\n")));
            let indented = found.iter().map(|line| format!("    {line}"));
            lines.splice(block.at + 1..block.at + 1 + block.printed.len(), indented);
        }
    }
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        return;
    }
    assert!(wrong.is_empty(), "README.md is not what is printed; run this test with UPDATE_README=1:\n\n{}", wrong.join("\n\n"));
}

/// Every command line in README's indented blocks, without prompts, comments and redirections.
fn command_lines(readme: &Path) -> Vec<String> {
    let text = fs::read_to_string(readme).unwrap();
    let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
    let commands = indented.filter_map(|line| {
        let command = line.split_once("$ ").filter(|(prompt, _)| !prompt.contains(' ')).map_or(line, |(_, command)| command).trim_start();
        command.starts_with("cinder-backup-repair ").then(|| command.split(" > ").next().unwrap_or(command).to_owned())
    });
    commands.collect()
}

#[test]
fn its_command_lines_are_ones_that_the_program_takes() {
    let lines = command_lines(&root().join("README.md"));
    assert!(lines.len() > 15, "{lines:?}");
    for line in lines {
        let words = shlex::split(&line).unwrap();
        if let Err(error) = cinder_backup_repair::cli::args::Cli::try_parse_from(words) {
            panic!("{line}\n{error}");
        }
    }
}

#[test]
fn the_rust_that_it_asks_for_is_that_of_the_manifest() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&format!("With Rust {version} or newer")), "README.md does not name Rust {version}");
}
