//! A check of many small backups on a server that is slow or does not answer: it is stopped, killed and resumed.

use std::fs;
use std::io::Read;
use std::iter::repeat_n;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use cinder_backup_repair::format::generate::{BackupSpec, write_from};
use cinder_backup_repair::format::metadata::Compression;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::round_trips::{Counting, Objects, Speaks};
use super::{Site, TWO_HOURS, new_id};
use crate::program::Answer;

const S3: &str = "cinder.backup.drivers.s3.S3BackupDriver";
const GIB: u64 = 1 << 30;
const CHUNK: u64 = 16 << 20;
const BLOCK: usize = 256 << 10;
/// Longer than any test waits.
pub(super) const SILENT: u64 = 600_000;
const DEADLINE: Duration = Duration::from_secs(60);

/// `backups` backups in a bucket: a full one of a volume of zeros and increments on it, each with three objects.
pub(super) fn bucket(backups: usize) -> (Site, Counting, Vec<String>) {
    let site = Site::on(Engine::Sqlite);
    let (mut objects, mut ids, mut full) = (Objects::new(), Vec::new(), None);
    let volume = new_id();
    for number in 0..backups as u64 {
        let id = new_id();
        let prefix = format!("volume_{volume}/20261122100000/az_nova_backup_{id}");
        let recipe = BackupSpec {
            prefix: &prefix,
            backup_id: &id,
            volume_id: &volume,
            parent_id: ids.first().map(String::as_str),
            created_at: "2026-11-22 10:00:00+00:00",
            compression: if number == 0 { Compression::Zlib } else { Compression::None },
            chunk_size: CHUNK as usize,
            block_size: BLOCK,
        };
        let changed = |range: &Range<u64>| number > 0 && range.start / CHUNK % 16 == number % 16 && range.start / CHUNK < 48;
        let mut read = |range: Range<u64>| {
            let block = || (0..BLOCK as u64).map(|at| (at * number % 251) as u8);
            Ok(changed(&range).then(|| block().chain(repeat_n(0, CHUNK as usize - BLOCK)).collect::<Vec<u8>>()))
        };
        let digests = write_from(&recipe, GIB, &mut read, full.as_deref(), &mut |name, bytes| {
            objects.insert(name, bytes);
            Ok(())
        })
        .unwrap();
        site.database.backup(|row| {
            let row = row.id(&id).volume_id(&volume).display_name(None::<&str>).service(S3).container("c").service_metadata(&prefix);
            row.parent_id(ids.first()).status("available").age(TWO_HOURS)
        });
        full.get_or_insert(digests);
        ids.push(id);
    }
    let server = Counting::new(Speaks::S3, objects);
    let conf =
        format!("[DEFAULT]\nbackup_s3_endpoint_url = {}\nbackup_s3_store_access_key = a\nbackup_s3_store_secret_key = s\n", server.url);
    fs::write(site.program.path("cinder.conf"), conf).unwrap();
    (site, server, ids)
}

/// Waits until a condition is true.
#[track_caller]
pub(super) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "no {what} within the deadline");
        sleep(Duration::from_millis(10));
    }
}

pub(super) fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

pub(super) fn end(child: Child) -> Answer {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub(super) fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.matches("{\"result\":").count())
}

pub(super) fn count(document: &Value, key: &str) -> usize {
    usize::try_from(document["summary"][key].as_u64().unwrap_or(0)).unwrap()
}

const DEEP: [&str; 6] = ["check", "--all", "--level", "deep", "-f", "json"];

/// A request without an answer blocks its thread for a minute, but Ctrl-C must not wait for it.
#[test]
fn a_signal_stops_a_check_although_the_server_does_not_answer() {
    const BACKUPS: usize = 12;
    let (site, server, _) = bucket(BACKUPS);
    for signals in [&[Signal::INT] as &[Signal], &[Signal::TERM], &[Signal::INT, Signal::INT]] {
        server.delay.store(20, Ordering::SeqCst);
        server.requests.lock().unwrap().clear();
        let child = site.program.start(&DEEP);
        wait_until("requests", || server.requests.lock().unwrap().len() > 30);
        server.delay.store(SILENT, Ordering::SeqCst);
        let requests = || server.requests.lock().unwrap().len();
        let (mut before, mut since) = (requests(), Instant::now());
        while since.elapsed() < Duration::from_millis(500) {
            if requests() > before {
                (before, since) = (requests(), Instant::now());
            }
            sleep(Duration::from_millis(10));
        }
        let begun = Instant::now();
        for signal in signals {
            send(&child, *signal);
            sleep(Duration::from_millis(100));
        }
        let answer = end(child);
        // One second, with a margin for a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(answer.code, Some(if signals[0] == Signal::TERM { 143 } else { 130 }), "{}", answer.stderr);
        let document = answer.json();
        assert_eq!(document["results"].as_array().unwrap().len() + count(&document, "left"), BACKUPS, "{document:#}");
        assert!(count(&document, "left") > 0, "{document:#}");
    }
    // A `repair` stops during its check, too, and changes nothing.
    site.database.execute("UPDATE backups SET status = 'creating', host = 'gone'");
    server.requests.lock().unwrap().clear();
    let child = site.program.start(&["repair", "--yes", "--check", "deep"]);
    wait_until("request", || !server.requests.lock().unwrap().is_empty());
    let begun = Instant::now();
    send(&child, Signal::INT);
    let answer = end(child);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(answer.code, Some(130), "{}", answer.stderr);
    assert!(answer.stderr.contains("stopped by SIGINT while checking the storage; nothing was changed"), "{}", answer.stderr);
}

/// Small backups are read in parallel, with the same results as one after the other.
#[test]
fn small_backups_on_a_slow_server_are_read_in_parallel() {
    const BACKUPS: usize = 24;
    let (site, server, _) = bucket(BACKUPS);
    server.delay.store(30, Ordering::SeqCst);
    let results = |args: &[&str]| -> (Vec<Value>, Duration) {
        let begun = Instant::now();
        let document = site.program.json(0, &[&["check", "--all", "--level", "deep"], args].concat());
        let took = begun.elapsed();
        let mut results = document["results"].as_array().unwrap().clone();
        results.iter_mut().for_each(|result| drop(result.as_object_mut().unwrap().remove("checked_at")));
        (results, took)
    };
    let (alone, one_by_one) = results(&["--jobs", "1"]);
    server.most.store(0, Ordering::SeqCst);
    let (together, side_by_side) = results(&[]);
    assert_eq!(alone, together);
    let most = server.most.load(Ordering::SeqCst);
    assert!(most > 1, "{most} at once");
    // About eight times shorter on an idle machine.
    assert!(side_by_side < one_by_one, "{side_by_side:?} against {one_by_one:?}");
}

/// The paths of a check's file and of its partial file.
pub(super) fn files(site: &Site) -> (String, PathBuf) {
    (site.path("survey.json"), site.program.path("survey.json.partial"))
}

#[test]
fn a_killed_check_is_resumed_with_its_results() {
    const BACKUPS: usize = 18;
    let (site, server, ids) = bucket(BACKUPS);
    let damaged = format!("{}-00002", ids[1]);
    server.objects.lock().unwrap().iter_mut().find(|(name, _)| name.ends_with(&damaged)).unwrap().1[9] ^= 1;
    let (out, partial) = files(&site);
    let deep = [&DEEP as &[&str], &["--out", &out]].concat();
    server.delay.store(40, Ordering::SeqCst);
    let mut child = site.program.start(&deep);
    wait_until("some results", || lines(&partial) >= 4);
    send(&child, Signal::KILL);
    child.wait().unwrap();
    let known = lines(&partial);
    assert!(known < BACKUPS && !Path::new(&out).exists());

    // The partial file is neither overwritten nor used for another database.
    let partial_name = partial.to_str().unwrap();
    let answer = site.program.expect(2, &deep);
    assert!(answer.stderr.contains(&format!("continue with --resume {partial_name}")), "{}", answer.stderr);
    let (other, _, _) = bucket(1);
    let answer = other.program.expect(2, &["check", "--all", "--resume", partial_name]);
    assert!(answer.stderr.contains("--resume is about the database"), "{}", answer.stderr);

    // The last line may be incomplete.
    let whole = fs::read(&partial).unwrap();
    fs::write(&partial, &whole[..whole.len() - 40]).unwrap();
    let resumed = [&deep as &[&str], &["--resume", partial_name]].concat();
    let child = site.program.start(&resumed);
    wait_until("more results", || lines(&partial) > known);
    assert!(site.program.expect(11, &resumed).stderr.contains("is being written by a running check"));
    send(&child, Signal::INT);
    let answer = end(child);
    assert_eq!(answer.code, Some(130), "{}", answer.stderr);
    assert!(answer.stderr.contains(&format!("--resume {partial_name} continues it")), "{}", answer.stderr);
    assert!(lines(&partial) > known && !Path::new(&out).exists());
    // All results except the incomplete and the damaged one.
    assert!(count(&answer.json(), "carried") >= known - 2, "{}", answer.stderr);

    server.delay.store(0, Ordering::SeqCst);
    let answer = site.program.expect(9, &resumed);
    let document = answer.json();
    assert!(count(&document, "carried") >= known - 2, "{document:#}");
    assert_eq!(document["results"].as_array().unwrap().len(), BACKUPS, "{document:#}");
    assert_eq!(fs::read_to_string(&out).unwrap(), answer.stdout);
    assert!(!partial.exists());
    // The same results as without an interruption.
    let plain = |document: &Value| -> Vec<Value> {
        let mut results = document["results"].as_array().unwrap().clone();
        results.iter_mut().for_each(|result| drop(result.as_object_mut().unwrap().remove("checked_at")));
        results
    };
    assert_eq!(plain(&document), plain(&site.program.expect(9, &DEEP).json()));
}

/// When the second signal arrives, more than a pipe's buffer is still to be written.
#[test]
fn a_signal_while_the_result_is_written_does_not_cut_it_off() {
    const OTHERS: usize = 300;
    let (site, server, _) = bucket(2);
    (0..OTHERS).for_each(|_| drop(site.database.backup(|row| row.service("acme.Driver"))));
    server.delay.store(SILENT, Ordering::SeqCst);
    let (out, partial) = files(&site);
    let mut child = site.program.start(&[&DEEP as &[&str], &["--jobs", "4", "--out", &out]].concat());
    wait_until("results that need no answer", || lines(&partial) >= OTHERS);
    send(&child, Signal::INT);
    let mut begun = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    send(&child, Signal::INT);
    let mut answer = end(child);
    answer.stdout.insert(0, char::from(begun[0]));
    assert_eq!(answer.code, Some(130), "{}", answer.stderr);
    assert_eq!(count(&answer.json(), "unverifiable") + count(&answer.json(), "left"), OTHERS + 2, "{}", answer.stderr);
}

#[test]
fn a_file_of_results_is_never_overwritten_and_serves_as_evidence() {
    let (site, server, ids) = bucket(3);
    let (out, partial) = files(&site);
    let answer = site.program.expect(0, &["check", "--all", "--out", &out]);
    assert!(answer.stdout.contains("intact") && !partial.exists(), "{}", answer.stdout);
    let document: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!((&document["schema"], &document["summary"]["intact"]), (&json!("cinder-backup-repair/check"), &json!(3)));
    assert!(site.program.expect(2, &["check", "--all", "--out", &out]).stderr.contains("exists already"));
    assert!(site.program.expect(2, &["check", "--all", "--out", "-"]).stderr.contains("name a file"));
    let nowhere = site.path("nowhere/survey.json");
    assert!(site.program.expect(2, &["check", "--all", "--out", &nowhere]).stderr.contains("cannot write"));

    // The results of a stopped check can be used.
    fs::remove_file(&out).unwrap();
    site.database.execute(&format!("UPDATE backups SET status = 'creating', host = 'gone' WHERE id = '{}'", ids[0]));
    // The check cannot end before the result of the full backup has been seen.
    *server.silent.lock().unwrap() = Some(ids[2].clone());
    let child = site.program.start(&["check", "--all", "--level", "deep", "--jobs", "4", "--out", &out]);
    let of_full = format!("{{\"result\":{{\"id\":\"{}\"", ids[0]);
    wait_until("result", || fs::read_to_string(&partial).is_ok_and(|text| text.contains(&of_full)));
    send(&child, Signal::KILL);
    end(child);
    *server.silent.lock().unwrap() = None;
    let first = fs::read_to_string(&partial).unwrap();
    let answer = site.program.expect(0, &["plan", "--evidence", partial.to_str().unwrap(), "-f", "json"]);
    assert!(answer.stderr.contains("was stopped early: cut off"), "{}", answer.stderr);
    let changes = &answer.json()["units"][0]["changes"];
    assert!(changes.to_string().contains("available"), "{changes:#}");
    // It may end early, but not be edited.
    fs::write(&partial, first.replace("\"intact\"", "\"corrupt\"")).unwrap();
    let refused = site.program.expect(2, &["plan", "--evidence", partial.to_str().unwrap()]);
    assert!(refused.stderr.contains("was edited after it was written"), "{}", refused.stderr);
}
