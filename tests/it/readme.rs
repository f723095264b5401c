//! The console blocks of README.md and of the pages in docs/: what follows a `$` is what the command prints on the database that
//! `demo --keep` leaves behind. The blocks that change it run last.
//!
//! `UPDATE_README=1 cargo test --test it readme` writes what the program prints into the pages. A line of `…` leaves something out; the
//! numbers of lines before and after it stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use tempfile::TempDir;

use crate::program::{answer, bare, binary};
use crate::servers::root;
use crate::terminal::Terminal;

/// Where the practice folder is, according to the pages.
const PRACTICE: &str = "/srv/practice";
const ELISION: &str = "…";

/// Every page for users and contributors.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)).into();
    let documents = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(documents.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    pages.retain(|page| page.exists());
    pages
}

/// What the demo leaves, with a `ctl2` that still sends heartbeats.
struct Practice {
    folder: TempDir,
}

impl Practice {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let demo = answer(bare(&["demo", "-q", "--all", "--keep"]).arg(folder.path()));
        assert_eq!(demo.code, Some(0), "{}{}", demo.stdout, demo.stderr);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command as a page shows it, with the options that the guide says to add.
    fn command(&self, shown: &str) -> Command {
        let heartbeat = fs::read_to_string(root().join("sql/demo/heartbeat.sql")).unwrap();
        rusqlite::Connection::open(self.path("cinder.sqlite")).unwrap().execute_batch(&heartbeat).unwrap();
        let words = shown.strip_prefix("cinder-backup-repair ").unwrap_or_else(|| panic!("{shown} is not a command of this program"));
        let (program, conf, log) = (binary().display(), self.path("cinder.conf"), self.path("audit.jsonl"));
        let older_than = if words.starts_with("history") { "" } else { "--older-than 0s" };
        let line = format!("exec {program} {words} {older_than} --config-file {} --audit-log {}", conf.display(), log.display());
        let mut shell = Command::new("sh");
        shell.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent").env("LANG", "C.UTF-8");
        shell.arg("-c").arg(line).current_dir(self.folder.path());
        shell
    }

    /// What the command prints, as on a terminal, without differences between runs.
    fn prints(&self, shown: &str) -> Vec<String> {
        let command = self.command(shown);
        let lines = if asks(shown) { confirmed(&command) } else { together(command) };
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

/// The text with the example in place of parts that differ from it only in hexadecimal digits.
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

/// Standard output and standard error together.
fn together(mut command: Command) -> Vec<String> {
    let answer = answer(&mut command);
    [answer.stdout, answer.stderr].concat().lines().map(str::to_owned).collect()
}

/// The output at a terminal when every unit is chosen and confirmed: the lines of the list, and everything after it.
fn confirmed(command: &Command) -> Vec<String> {
    let mut terminal = Terminal::start(command, 100, 60);
    terminal.wait(" 0 of ");
    // All, and the cursor on the last one.
    terminal.press("\u{1}\u{1b}[F");
    terminal.wait(">     [x]");
    let lines = |screen: String| screen.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut shown = lines(terminal.screen());
    shown.retain(|line| !line.is_empty());
    terminal.press("\r");
    terminal.wait("Type the number of rows to change");
    let screen = terminal.screen();
    let number = screen.split("Type the number of rows to change (").nth(1).unwrap().split(')').next().unwrap();
    terminal.press(&format!("{number}\r"));
    let screen = lines(terminal.expect(0));
    shown.extend(screen.into_iter().skip_while(|line| !line.contains(" would be changed in ")));
    shown
}

/// One command and its output on the page; `at` is the index of the command's line.
struct Block {
    at: usize,
    command: String,
    printed: Vec<String>,
}

/// The blocks of a page.
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

/// The part of the output that a block shows.
fn shown(block: &Block, printed: Vec<String>) -> Vec<String> {
    let Some(elision) = block.printed.iter().position(|line| line == ELISION) else { return printed };
    let after = block.printed.len() - elision - 1;
    let mut shown: Vec<String> = printed.iter().take(elision).cloned().collect();
    shown.push(ELISION.to_owned());
    shown.extend(printed.iter().skip(printed.len().saturating_sub(after)).cloned());
    shown
}

/// Whether a command asks before it changes rows.
fn asks(command: &str) -> bool {
    command.contains(" repair ") && !command.contains("--dry-run") && !command.contains("--yes")
}

#[test]
fn console_blocks_are_what_the_program_prints() {
    let mut pages: Vec<(PathBuf, Vec<String>)> =
        pages().into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect())).collect();
    let mut blocks: Vec<(usize, Block)> =
        pages.iter().enumerate().flat_map(|(page, (_, lines))| blocks(lines).into_iter().map(move |block| (page, block))).collect();
    assert!(blocks.len() > 8, "the pages have only {} console blocks", blocks.len());
    blocks.sort_by_key(|(_, block)| asks(&block.command));
    let practice = Practice::new();
    let mut found: Vec<(usize, Block, Vec<String>)> = blocks
        .into_iter()
        .map(|(page, block)| {
            let shown = shown(&block, practice.prints(&block.command));
            (page, block, shown)
        })
        .collect();
    // From the last to the first of a page, so that the indices stay right.
    found.sort_by_key(|(_, block, _)| std::cmp::Reverse(block.at));
    let mut wrong = Vec::new();
    for (page, block, found) in found.into_iter().filter(|(_, block, found)| block.printed != *found) {
        let (path, lines) = &mut pages[page];
        wrong.push(format!("{}: $ {}\n{}", path.display(), block.command, found.join("\n")));
        let indented = found.iter().map(|line| format!("    {line}"));
        lines.splice(block.at + 1..block.at + 1 + block.printed.len(), indented);
    }
    if std::env::var_os("UPDATE_README").is_some() {
        for (path, lines) in pages {
            fs::write(path, lines.join("\n") + "\n").unwrap();
        }
        return;
    }
    assert!(wrong.is_empty(), "the pages differ from what is printed; run this test with UPDATE_README=1:\n\n{}", wrong.join("\n\n"));
}

/// Every command line in a page's indented blocks, without prompts, comments and redirections.
fn command_lines(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
    let commands = indented.filter_map(|line| {
        let command = line.split_once("$ ").filter(|(prompt, _)| !prompt.contains(' ')).map_or(line, |(_, command)| command).trim_start();
        command.starts_with("cinder-backup-repair ").then(|| command.split(" > ").next().unwrap_or(command).to_owned())
    });
    commands.collect()
}

#[test]
fn the_program_accepts_the_command_lines_of_the_pages() {
    let lines: Vec<String> = pages().iter().flat_map(|page| command_lines(page)).collect();
    assert!(lines.len() > 20, "{lines:?}");
    for line in lines {
        let words = shlex::split(&line).unwrap();
        if let Err(error) = cinder_backup_repair::cli::Cli::try_parse_from(words) {
            panic!("{line}\n{error}");
        }
    }
}

#[test]
fn the_readme_names_the_rust_version_of_the_manifest() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&format!("With Rust {version} or newer")), "README.md does not name Rust {version}");
}
