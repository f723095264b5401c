//! The help: short enough to read, and examples that work.

use std::collections::BTreeSet;
use std::process::Command;

use crate::program::{answer, bare, binary};

/// Lines of the help of a command.
fn help(args: &[&str]) -> Vec<String> {
    let answer = answer(bare(args).env("COLUMNS", "80"));
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{args:?}");
    answer.stdout.lines().map(str::to_owned).collect()
}

fn commands() -> BTreeSet<String> {
    let lines = help(&["--help"]);
    let listed = lines.iter().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let names = listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_short_help_of_each_command_fits_and_names_the_long_one() {
    assert!(commands().len() > 12, "{:?}", commands());
    for command in commands() {
        let short = help(&[&command, "-h"]);
        assert!(short.len() <= 100, "{command} -h has {} lines", short.len());
        assert!(short.iter().any(|line| line.starts_with("--help has all options")), "{short:#?}");
        assert!(short.iter().all(|line| line.chars().count() <= 80), "{short:#?}");
        let long = help(&[&command, "--help"]);
        assert!(long.len() >= short.len(), "{command}");
    }
    for alone in ["demo", "completions", "man"] {
        let long = help(&[alone, "--help"]).join("\n");
        assert!(!long.contains("--database-url") && !long.contains("--audit-log"), "{long}");
    }
}

/// All examples in the order of the commands, on the database of the demo.
#[test]
fn every_example_of_the_help_works() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let keep = path("demo");
    assert_eq!(answer(&mut bare(&["demo", "-q", "--keep", &keep])).code, Some(0));
    let configuration = path("demo/cinder.conf");
    let log = path("demo/audit.jsonl");
    let mut left = commands();
    for command in ["scan", "explain", "check", "plan", "apply", "repair", "undo", "rescue", "scrub", "history", "doctor", "demo"] {
        left.remove(command);
        let lines = examples(command);
        assert!(!lines.is_empty(), "{command} has no example");
        for line in lines {
            // These wait for a person.
            if line.ends_with("repair --check deep") || line.ends_with("--step") {
                continue;
            }
            let selects = ["scan", "check", "plan", "repair", "explain"].contains(&command);
            let young = if selects { " --older-than 0s" } else { "" };
            let places = if command == "demo" { String::new() } else { format!(" --config-file {configuration} --audit-log {log}") };
            let mut shell = Command::new("sh");
            shell.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent").current_dir(folder.path());
            shell.arg("-c").arg(format!("{}{young}{places}", line.replacen("cinder-backup-repair", &binary().display().to_string(), 1)));
            let answer = answer(&mut shell);
            // 3 and 9 say that something was found.
            assert!(matches!(answer.code, Some(0 | 3 | 9)), "{line}: {:?}\n{}{}", answer.code, answer.stdout, answer.stderr);
        }
    }
    for command in left {
        assert!(!examples(&command).is_empty(), "{command} has no example");
    }
}

/// The command lines in the examples of a command.
fn examples(command: &str) -> Vec<String> {
    let lines = help(&[command, "--help"]);
    let lines = lines.iter().skip_while(|line| *line != "Examples:").skip(1).collect::<Vec<_>>();
    // A purpose, and a command line that is not broken.
    let examples = lines.chunks(2).map(|pair| (pair[0], pair[1].strip_prefix("    cinder-backup-repair ")));
    let line = |line: Option<&str>| format!("cinder-backup-repair {}", line.unwrap_or_else(|| panic!("{lines:#?}")));
    examples.inspect(|(purpose, _)| assert!(purpose.ends_with(':'), "{lines:#?}")).map(|(_, example)| line(example)).collect()
}
