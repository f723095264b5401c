//! `tests/run` when it is interrupted, with a fake cargo that only waits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::servers::root;

/// A generous limit, because test machines are busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// A fake cargo that waits, starts a child that waits, and runs beside an installation that waits.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
    --version | "fmt --version" | "clippy --version") exit 0 ;;
    "$SLOW "*) touch "$MARK"; sleep 1000 & sleep 1001; exit 0 ;;
esac
"#;

/// The processes with this mark in their environment.
fn processes(mark: &str) -> Vec<String> {
    let named = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).split('\0').any(|variable| variable == format!("MARK={mark}"))
    });
    named.map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " ")).collect()
}

#[test]
fn an_interrupted_test_run_leaves_no_process_behind() {
    for (slow, signal, to_all, code) in [
        ("fmt", Signal::INT, true, 130),
        ("fmt", Signal::TERM, false, 143),
        ("test", Signal::INT, false, 130),
        ("test", Signal::TERM, false, 143),
    ] {
        let checkout = tempfile::tempdir().unwrap();
        let path = |name: &str| checkout.path().join(name);
        for folder in ["tests", "bin"] {
            fs::create_dir(path(folder)).unwrap();
        }
        let text = fs::read_to_string(root().join("tests/run")).unwrap();
        // Nothing is installed.
        let fake = text.replace("    make_venv venv tests/requirements.txt cinder\n", "    touch \"$MARK.installing\"; sleep 1002\n");
        let fake = fake.replacen("install_packages() {\n", "install_packages() {\n    return\n", 1);
        assert!(fake.contains("sleep 1002") && fake.contains("    return\n    local packages"), "tests/run is written in another way");
        fs::write(path("tests/run"), fake).unwrap();
        fs::write(path("bin/cargo"), CARGO).unwrap();
        for script in ["tests/run", "bin/cargo"] {
            fs::set_permissions(path(script), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mark = path("begun").display().to_string();
        let mut command = Command::new(path("tests/run"));
        command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", path("bin").display())).env("SLOW", slow).env("MARK", &mark);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().unwrap();
        let begun = Instant::now();
        let is_ready = || fs::exists(&mark).unwrap() && (slow == "fmt" || fs::exists(format!("{mark}.installing")).unwrap());
        while !is_ready() {
            assert!(begun.elapsed() < DEADLINE, "{slow} never begins");
            sleep(Duration::from_millis(10));
        }
        assert!(processes(&mark).len() > 1, "{:?}", processes(&mark));
        let pid = Pid::from_child(&child);
        if to_all {
            // Like Ctrl-C at a terminal.
            kill_process_group(pid, signal).unwrap();
        } else {
            kill_process(pid, signal).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{slow} {signal:?}: {said}");
        assert!(said.contains("\ninterrupted\n") && !said.contains("FAILED"), "{slow} {signal:?}: {said}");
        assert!(begun.elapsed() < DEADLINE, "{slow} {signal:?} took {:?}", begun.elapsed());
        assert_eq!(processes(&mark), [] as [String; 0], "{slow} {signal:?}");
    }
}
