//! Shards of a catalog: started again after their time was over or while the storage is gone, and merged with signatures.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::Site;
use super::slow::{SILENT, bucket, end, lines, wait_until};

/// Writes a catalog; returns its path.
fn catalog(site: &Site) -> String {
    let path = site.path("catalog.jsonl");
    fs::write(&path, site.program.expect(0, &["scan", "--all", "-f", "jsonl"]).stdout).unwrap();
    path
}

/// The ids of a stream's results, each of which may occur once, and its summary.
#[track_caller]
fn results(path: &str) -> (BTreeSet<String>, Value) {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&Value> = lines.iter().filter_map(|line| line.get("result")).map(|result| &result["id"]).collect();
    let distinct: BTreeSet<String> = ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    assert_eq!(distinct.len(), ids.len(), "{text}");
    (distinct, lines.last().unwrap()["end"]["summary"].clone())
}

#[test]
fn a_shard_whose_time_is_over_is_not_finished_and_goes_on_when_it_is_started_again() {
    const BACKUPS: usize = 8;
    let (site, server, _) = bucket(BACKUPS);
    let (from, out) = (catalog(&site), site.path("part.jsonl"));
    let partial = site.program.path("part.jsonl.partial");
    let shard = ["check", "--from", &from, "--shard", "1/1", "--level", "deep", "--jobs", "1", "--out", &out];
    server.delay.store(20, Ordering::SeqCst);
    let child = site.program.start(&[&shard[..], &["--max-runtime", "8s"]].concat());
    wait_until("some results", || lines(&partial) >= 2);
    server.delay.store(SILENT, Ordering::SeqCst);
    let stopped = end(child);
    assert_eq!(stopped.code, Some(11), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("stopped by --max-runtime"), "{}", stopped.stderr);
    let done = lines(&partial);
    assert!(!fs::exists(&out).unwrap() && done < BACKUPS, "{done}");
    server.delay.store(0, Ordering::SeqCst);
    site.program.expect(0, &shard);
    let (ids, summary) = results(&out);
    assert_eq!((ids.len(), &summary["intact"], &summary["carried"]), (BACKUPS, &BACKUPS.into(), &done.into()));
    // Nothing is read again once it is finished.
    server.requests.lock().unwrap().clear();
    let again = site.program.expect(0, &shard);
    assert!(again.stderr.contains("Shard 1/1 is finished: 8 intact."), "{}", again.stderr);
    assert_eq!(server.requests.lock().unwrap().len(), 0);
}

#[test]
fn a_shard_whose_storage_is_gone_is_tried_again_and_then_finished() {
    const BACKUPS: usize = 3;
    let (site, _server, _) = bucket(BACKUPS);
    let (from, out) = (catalog(&site), site.path("part.jsonl"));
    let partial = format!("{out}.partial");
    let shard = ["check", "--from", &from, "--shard", "1/1", "--level", "deep", "--out", &out];
    let gone = [&shard[..], &["--storage-option", "backup_s3_endpoint_url=http://127.0.0.1:1"]].concat();
    let finish = |carried: &Value| {
        site.program.expect(0, &shard);
        let (ids, summary) = results(&out);
        assert_eq!((ids.len(), &summary["intact"], &summary["carried"]), (BACKUPS, &BACKUPS.into(), carried));
        assert!(!fs::exists(&partial).unwrap());
    };
    for _ in 0..2 {
        site.program.expect(10, &gone);
        let (ids, summary) = results(&out);
        assert_eq!((ids.len(), &summary["unreachable"]), (BACKUPS, &BACKUPS.into()));
    }
    finish(&Value::Null);
    // The results of a shard that was stopped are kept.
    fs::rename(&out, &partial).unwrap();
    for _ in 0..2 {
        site.program.expect(10, &gone);
        assert!(!fs::exists(&out).unwrap() && fs::exists(&partial).unwrap());
    }
    finish(&BACKUPS.into());
}

#[test]
fn signed_parts_are_merged_and_with_a_key_only_those() {
    let site = Site::new();
    let (one, other) = (site.creating(), site.creating());
    other.damage();
    ["host", "stranger"].into_iter().for_each(|name| site.program.key(name));
    let from = catalog(&site);
    let part = |name: &str, shard: &str, key: &[&str]| {
        let args = ["check", "--from", &from, "--shard", shard, "--level", "deep", "--out", name];
        site.program.run(&[&args[..], key].concat()).code.unwrap()
    };
    let mut codes = [part("1.jsonl", "1/2", &["--sign-key", "host.pem"]), part("2.jsonl", "2/2", &["--sign-key", "host.pem"])];
    codes.sort_unstable();
    assert_eq!(codes, [0, 9], "one backup each");
    part("unsigned.jsonl", "2/2", &[]);
    part("foreign.jsonl", "2/2", &["--sign-key", "stranger.pem"]);
    let merge = ["check", "merge", "1.jsonl"];
    let verify = ["--verify-key", "host.pub"];
    // Without a key signatures are not read, and the result has none.
    for second in ["2.jsonl", "unsigned.jsonl", "foreign.jsonl"] {
        let merged = site.program.expect(9, &[&merge[..], &[second]].concat()).stdout;
        assert!(!merged.contains("\"signature\""), "{merged}");
    }
    for (second, why) in [("unsigned.jsonl", "unsigned.jsonl is not signed"), ("foreign.jsonl", "foreign.jsonl is signed with another key")]
    {
        let refused = site.program.expect(5, &[&merge[..], &[second, "--out", "merged.jsonl"], &verify].concat());
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert!(!site.program.path("merged.jsonl").exists());
    }
    site.program.expect(9, &[&merge[..], &["2.jsonl", "--out", "merged.jsonl"], &verify].concat());
    site.program.expect(5, &[&["plan", "--evidence", "merged.jsonl"], &verify[..]].concat());
    site.program.expect(9, &[&merge[..], &["2.jsonl", "--out", "signed.jsonl", "--sign-key", "host.pem"], &verify].concat());
    let planned = site.program.json(0, &[&["plan", "--evidence", "signed.jsonl"], &verify[..]].concat());
    assert_eq!(planned["checks"][0]["id"], *one.id, "{planned:#}");
}

#[test]
fn a_closed_pipe_changes_no_exit_code() {
    let site = Site::new();
    site.creating().damage();
    let from = catalog(&site);
    let deep = ["check", "--from", &from, "--level", "deep"];
    site.program.expect(9, &[&deep[..], &["--shard", "1/1", "--out", "part.jsonl"]].concat());
    let mut codes = BTreeSet::new();
    for args in [
        &["scan", "--all", "-f", "jsonl", "--detailed-exitcode"] as &[&str],
        &["plan", "-f", "jsonl", "--assume-dead", "all", "--detailed-exitcode"],
        &[&deep[..], &["-f", "jsonl"]].concat(),
        &[&deep[..], &["-f", "json"]].concat(),
        &[&deep[..], &["-f", "jsonl", "--out", "checked.jsonl"]].concat(),
        &["check", "merge", "part.jsonl"],
        &["repair", "--dry-run", "-f", "jsonl"],
    ] {
        let read = site.program.run(args);
        if args.contains(&"checked.jsonl") {
            fs::remove_file(site.path("checked.jsonl")).unwrap();
        }
        let unread = site.program.unread(args);
        assert_eq!(unread.code, read.code, "{args:?}: {}", unread.stderr);
        assert!(!unread.stderr.contains("error"), "{args:?}: {}", unread.stderr);
        codes.extend(read.code);
    }
    assert_eq!(codes, [0, 3, 9].into());
    // The file is complete although nobody has read the stream.
    assert_eq!(results(&site.path("checked.jsonl")).0.len(), 1);
}
