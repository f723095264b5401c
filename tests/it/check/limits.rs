//! `--limit-rate`, `--limit-requests`, `--limit-parallel`, `--max-runtime` and `--nice`. Times are compared with lower bounds only.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::slow::{SILENT, bucket, count, end, files, lines, send, wait_until};
use super::{OBJECTS, Placed, Site};

/// The bytes of the files of a backup.
fn stored(placed: &Placed) -> u64 {
    fs::read_dir(&placed.dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Runs a check with a rate in MiB a second that reads at least `bytes`.
#[track_caller]
fn check_takes_its_time(site: &Site, args: &[&str], rate: u64, bytes: u64) {
    let limit = format!("{rate}M");
    let begun = Instant::now();
    site.program.expect(0, &[args, &["--limit-rate", &limit]].concat());
    // The burst is a tenth of a second.
    let most = (begun.elapsed().as_secs_f64() + 0.1) * (rate << 20) as f64;
    assert!(bytes as f64 <= most, "{bytes} bytes, but the limit gives {most}");
}

#[test]
fn all_backups_in_a_directory_are_read_within_one_rate() {
    let site = Site::new();
    let all: Vec<Placed> = (0..3).map(|_| site.creating()).collect();
    let bytes = all.iter().map(stored).sum();
    check_takes_its_time(&site, &["check", "--level", "deep", "--jobs", "4"], 4, bytes);
    check_takes_its_time(&site, &["plan", "--check", "deep"], 4, bytes);
}

#[test]
fn all_connections_to_a_server_share_one_rate() {
    let (site, server, _) = bucket(4);
    let bytes = server.objects.lock().unwrap().values().map(|bytes| bytes.len() as u64).sum();
    check_takes_its_time(&site, &["check", "--all", "--level", "deep"], 32, bytes);
}

/// Each reader waits longer for its turn than the storage may be silent.
#[test]
fn requests_are_limited_and_their_pauses_are_not_silence() {
    const BACKUPS: usize = 4;
    let (site, server, _) = bucket(BACKUPS);
    let begun = Instant::now();
    site.program.expect(0, &["check", "--all", "--limit-requests", "4", "--storage-timeout", "1s"]);
    // The attributes of an object show once a bucket whether its ETags are digests. These requests are not counted.
    let requests = server.requests.lock().unwrap().iter().filter(|target| !target.ends_with("-00001")).count();
    // The metadata, the sha256file, and one page of the listing for all.
    assert!(requests > 2 * BACKUPS, "{requests}");
    // The first one does not wait.
    let most = begun.elapsed().as_secs_f64() * 4.0 + 1.0;
    assert!(requests as f64 <= most, "{requests} requests, but the limit gives {most}");
}

/// A backup's sha256file stays open while its objects are read, and a chain is read in parallel.
#[test]
fn no_more_requests_are_open_at_a_server_than_the_limit() {
    const BACKUPS: usize = 12;
    let (site, server, _) = bucket(BACKUPS);
    server.delay.store(10, Ordering::SeqCst);
    let results = |level: &str, limit: &[&str]| {
        server.most.store(0, Ordering::SeqCst);
        let document = site.program.json(0, &[&["check", "--all", "--level", level], limit].concat());
        let mut results = document["results"].clone();
        results.as_array_mut().unwrap().iter_mut().for_each(|result| drop(result.as_object_mut().unwrap().remove("checked_at")));
        (results, server.most.load(Ordering::SeqCst))
    };
    for level in ["quick", "deep", "restore"] {
        let (free, most) = results(level, &[]);
        assert!(most > 3, "{level}: {most} at once");
        for limit in [1, 3] {
            let (limited, most) = results(level, &["--limit-parallel", &limit.to_string()]);
            assert_eq!((limited, most), (free.clone(), limit), "{level}");
        }
    }
}

/// Requests that wait for the one that is open do not count as silence of the server, and they do not prolong it.
#[test]
fn a_server_that_never_answers_is_given_up_with_one_request_at_a_time() {
    let (site, server, _) = bucket(8);
    server.delay.store(SILENT, Ordering::SeqCst);
    let begun = Instant::now();
    let answer = site.program.expect(4, &["check", "--all", "--limit-parallel", "1", "--storage-timeout", "4s"]);
    assert!(answer.stderr.contains("storage unreachable, giving up after 4 s"), "{}", answer.stderr);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn a_signal_stops_a_check_whose_readers_wait_for_their_turn() {
    let site = Site::new();
    let bytes = stored(&site.creating());
    assert!(bytes > OBJECTS as u64 * 64 * 1024, "minutes at this rate: {bytes}");
    for limit in [["--limit-rate", "64K"], ["--limit-requests", "1"]] {
        let mut child = site.program.start(&[&["check", "--level", "deep", "-f", "json"] as &[&str], &limit].concat());
        sleep(Duration::from_secs(2));
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        let begun = Instant::now();
        send(&child, Signal::INT);
        let answer = end(child);
        // One second, with a margin for a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(answer.code, Some(130), "{}", answer.stderr);
        assert_eq!(answer.json()["interrupted"], "SIGINT");
    }
}

#[test]
fn a_check_whose_time_is_over_keeps_what_it_finished_and_is_continued() {
    const BACKUPS: usize = 8;
    let (site, server, _) = bucket(BACKUPS);
    let (out, partial) = files(&site);
    let deep = ["check", "--all", "--level", "deep", "--jobs", "1"];
    // No backup is finished, and that is no error.
    server.delay.store(SILENT, Ordering::SeqCst);
    let answer = site.program.expect(0, &[&deep as &[&str], &["--max-runtime", "1s"]].concat());
    assert!(answer.stderr.contains("Nothing checked; stopped by --max-runtime, 0 of 8 done, in "), "{}", answer.stderr);
    // After some results, the server gives no more answers.
    server.delay.store(20, Ordering::SeqCst);
    let to_file = [&deep as &[&str], &["-f", "json", "--out", &out]].concat();
    let begun = Instant::now();
    let child = site.program.start(&[&to_file as &[&str], &["--max-runtime", "12s"]].concat());
    wait_until("some results", || lines(&partial) >= 2);
    server.delay.store(SILENT, Ordering::SeqCst);
    let answer = end(child);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(begun.elapsed() >= Duration::from_secs(12), "{:?}", begun.elapsed());
    let document = answer.json();
    let (done, left) = (count(&document, "intact"), count(&document, "left"));
    assert_eq!(document["interrupted"], "--max-runtime");
    assert!(done > 0 && left > 0 && done + left == BACKUPS, "a backup that was cut off has no result: {document:#}");
    assert_eq!((document["results"].as_array().unwrap().len(), lines(&partial)), (done, done));
    let partial = partial.to_str().unwrap();
    assert!(answer.stderr.contains(&format!("stopped by --max-runtime before the end; --resume {partial} continues it")));
    assert!(!Path::new(&out).exists());
    // The rest.
    server.delay.store(0, Ordering::SeqCst);
    let document = site.program.expect(0, &[&to_file as &[&str], &["--resume", partial, "--max-runtime", "1h"]].concat()).json();
    assert_eq!((count(&document, "intact"), count(&document, "carried"), count(&document, "left")), (BACKUPS, done, 0));
    assert!(document["interrupted"].is_null() && Path::new(&out).exists() && !Path::new(partial).exists());
}

#[test]
fn nice_lowers_the_priority_of_the_check() {
    let (site, server, _) = bucket(1);
    server.delay.store(SILENT, Ordering::SeqCst);
    let child = site.program.start(&["check", "--all", "--nice"]);
    let tasks = format!("/proc/{}/task", child.id());
    // Field 19 of proc_pid_stat(5); the third follows the name in parentheses.
    let nice = |stat: &str| stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)).map(str::to_owned);
    let is_low = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| nice(&stat).as_deref() == Some("19"));
    wait_until("thread with a low priority", || fs::read_dir(&tasks).is_ok_and(|tasks| tasks.flatten().any(is_low)));
    send(&child, Signal::INT);
    assert_eq!(end(child).code, Some(130));
}
