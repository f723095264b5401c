//! The command line in scripts and pipes: wrong input, output formats, secrets, hostile text.
//!
//! Wrong input must give one sentence (what, where, what to do) and the right exit code, and must write nothing.

mod command_line;
mod config_show;
mod configuration;
mod counters;
mod databases;
mod files;
mod formats;
pub mod hostile;
pub mod logging;
mod read_only;
mod schema;
mod scripts;
mod secrets;
mod signing;
mod skipped;
mod which_database;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::database::Database;
use crate::program::{Answer, Program, answer, bare};

const TWO_HOURS: i64 = 7_200;

/// A stuck backup with this name, and its volume.
fn stuck(database: &Database, name: &str) -> (String, String) {
    let volume = database.volume(|row| row.status("backing-up").previous_status("available"));
    let backup = database.backup(|row| row.status("creating").host("gone").display_name(name).volume_id(&volume).age(TWO_HOURS));
    (backup, volume)
}

/// Every file below a directory, with its content.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.push((path.display().to_string(), Vec::new()));
            all.extend(files(&path));
        } else {
            all.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

/// The answers to a series of wrong inputs.
struct Refusals<'p> {
    program: &'p Program,
    said: String,
}

impl<'p> Refusals<'p> {
    fn of(program: &'p Program) -> Self {
        // Creates this program's cinder.conf before the files are listed.
        program.command(&[]);
        Self { program, said: String::new() }
    }

    /// Runs it and checks that it is refused with this exit code.
    #[track_caller]
    fn refuse(&mut self, code: i32, args: &[&str]) -> String {
        self.refuse_command(code, args, &mut self.program.command(args))
    }

    /// The same without a database URL and without a configuration.
    #[track_caller]
    fn refuse_bare(&mut self, code: i32, args: &[&str]) -> String {
        self.refuse_command(code, args, bare(args).current_dir(self.folder()))
    }

    fn folder(&self) -> std::path::PathBuf {
        self.program.path("cinder.conf").parent().unwrap().to_owned()
    }

    #[track_caller]
    fn refuse_command(&mut self, code: i32, args: &[&str], command: &mut Command) -> String {
        let folder = self.folder();
        let before = files(&folder);
        let Answer { code: ended, stdout, stderr } = answer(command);
        assert_eq!(ended, Some(code), "{args:?}\n{stdout}{stderr}");
        assert_eq!(stdout, "", "{args:?}: unexpected results");
        assert!(files(&folder) == before, "{args:?} left or changed a file");
        for word in ["panicked", "RUST_BACKTRACE", "unwrap", "src/", "Some(", "None"] {
            assert!(!stderr.contains(word), "{args:?}: {word} in {stderr}");
        }
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{args:?}: {stderr}");
        let shown = stderr.replace(&folder.display().to_string(), "DIR");
        let word = |word: &&str| if word.is_empty() { "''".to_owned() } else { word.replace(&folder.display().to_string(), "DIR") };
        let words: Vec<String> = args.iter().map(word).collect();
        self.said.push_str(&format!("$ {}\n{}", words.join(" "), shown.lines().map(|line| format!("{line}\n")).collect::<String>()));
        stderr
    }
}
