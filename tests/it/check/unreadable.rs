//! A disk with read errors: a preloaded library returns EIO for some files, as the kernel does for a bad sector.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Site, problems, result};
use crate::program::{Answer, answer};
use crate::schemas::scratch;

/// Returns EIO for every read of a file whose path ends in `EIO_PATH`, or for the first `EIO_TIMES` reads.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int given;

ssize_t read(int fd, void *out, size_t length) {
    static ssize_t (*next)(int, void *, size_t);
    if (!next) next = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    const char *path = getenv("EIO_PATH"), *times = getenv("EIO_TIMES");
    char link[64], target[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = path ? readlink(link, target, sizeof target) : -1;
    size_t ends = path ? strlen(path) : 0;
    if (size >= (ssize_t)ends && !memcmp(target + size - ends, path, ends) && (!times || given++ < atoi(times))) {
        errno = EIO;
        return -1;
    }
    return next(fd, out, length);
}
"#;

fn shim() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = scratch("shim");
        let (source, library) = (dir.join("eio.c"), dir.join("eio.so"));
        fs::write(&source, SHIM).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        library
    })
}

/// Runs the program with read errors in the files whose paths end in `path`: in all reads, or in the first `times`.
fn on_a_bad_disk(site: &Site, path: &str, times: Option<&str>, args: &[&str]) -> Answer {
    let mut command = site.program.command(args);
    command.env("LD_PRELOAD", shim()).env("EIO_PATH", path);
    if let Some(times) = times {
        command.env("EIO_TIMES", times);
    }
    answer(&mut command)
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_disk_with_read_errors_differs_from_a_server_that_is_down() {
    let site = Site::new();
    let parent = site.available();
    let child = site.backup("creating", Some(&parent));
    let bad = parent.object(3);
    let ask = |args: &[&str]| on_a_bad_disk(&site, name(&bad), None, &[&["check"], args].concat());
    let deep = [child.id.as_str(), &parent.id, "--level", "deep"];
    let done = ask(&[&deep[..], &["-f", "json"]].concat());
    assert_eq!(done.code, Some(9), "{}\n{}", done.stdout, done.stderr);
    let document = done.json();
    let found = result(&document, &parent.id);
    assert_eq!((&found["verdict"], problems(found)), (&"unverifiable".into(), vec!["unreadable"]), "{found:#}");
    assert_eq!(found["problems"][0]["object"], name(&bad));
    let text = found["problems"][0]["text"].as_str().unwrap();
    assert!(text.contains("Input/output error") && text.contains("(2 attempts)"), "{text}");
    // A restore of the increment reads the same object.
    let found = result(&document, &child.id);
    assert_eq!((&found["verdict"], problems(found)), (&"unverifiable".into(), vec!["parent-unreadable"]), "{found:#}");
    assert_eq!((&document["summary"]["unverifiable"], &document["summary"]["unreadable"]), (&2.into(), &2.into()));
    // The same as text.
    let table = ask(&deep);
    assert_eq!(table.code, Some(9));
    assert!(table.stdout.contains("unverifiable, unreadable"), "{}", table.stdout);
    assert!(
        table.stderr.contains("2 unverifiable (of these 2 unreadable: the disk reports read errors) by a deep check"),
        "{}",
        table.stderr
    );
    // A quick check does not read this object.
    assert_eq!(ask(&[&parent.id, "--level", "quick"]).code, Some(0));
    // A side file.
    let side = on_a_bad_disk(&site, name(&parent.metadata()), None, &["check", &parent.id, "-f", "json"]);
    assert_eq!((side.code, problems(result(&side.json(), &parent.id))), (Some(9), vec!["unreadable"]), "{}", side.stdout);
}

#[test]
fn a_single_read_error_is_retried() {
    let site = Site::new();
    let backup = site.available();
    for path in [backup.object(2), backup.metadata(), backup.sha256file()] {
        let done = on_a_bad_disk(&site, name(&path), Some("1"), &["check", &backup.id, "--level", "deep", "-f", "json"]);
        assert_eq!(done.code, Some(0), "{}\n{}", done.stdout, done.stderr);
        assert_eq!(result(&done.json(), &backup.id)["verdict"], "intact");
    }
}

#[test]
fn a_backup_with_read_errors_is_not_changed() {
    let site = Site::new();
    let backup = site.creating();
    let done = on_a_bad_disk(&site, name(&backup.object(3)), None, &["repair", &backup.id, "--check", "deep", "--yes", "-f", "json"]);
    assert_eq!(done.code, Some(6), "{}\n{}", done.stdout, done.stderr);
    assert_eq!(site.status(&backup), "creating");
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(said.contains("could not be finished: ") && said.contains("Input/output error"), "{said}");
}
