//! `--limit-rate` and `--limit-requests`. Times are compared with lower bounds only.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::slow::{bucket, end, send};
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
    assert!(requests >= 3 * BACKUPS, "{requests}");
    // The first one does not wait.
    let most = begun.elapsed().as_secs_f64() * 4.0 + 1.0;
    assert!(requests as f64 <= most, "{requests} requests, but the limit gives {most}");
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
