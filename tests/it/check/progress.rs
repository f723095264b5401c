//! `--progress`: lines about progress for programs and logs.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::slow::bucket;
use crate::cli::logging::objects;

#[test]
fn progress_is_an_object_a_second_and_nothing_unless_it_is_asked_for() {
    let (site, server, ids) = bucket(12);
    server.delay.store(120, Ordering::SeqCst);
    let deep = ["check", "--all", "--level", "deep", "-q", "--limit-parallel", "1"];
    let begun = Instant::now();
    let answer = site.program.expect(0, &[&deep as &[&str], &["--progress", "json"]].concat());
    let (seconds, lines) = (begun.elapsed().as_secs() as usize, objects(&answer));
    assert!(lines.len() > 2 && lines.len() <= seconds + 2, "{seconds} s: {lines:#?}");
    let mut before = 0;
    for line in &lines {
        let done = line["done"].as_u64().unwrap();
        assert_eq!((&line["kind"], &line["unit"]), (&"checking".into(), &"bytes".into()), "{line}");
        assert!(done >= before && line["total"].as_u64().is_none_or(|total| done <= total), "{lines:#?}");
        before = done;
    }
    let last = lines.last().unwrap();
    assert!(last["done"] == last["total"] && before > 1 << 20, "{last}");

    server.delay.store(0, Ordering::SeqCst);
    assert_eq!(site.program.expect(0, &deep).stderr, "");
    assert_eq!(site.program.expect(0, &[&deep as &[&str], &["--progress", "none"]].concat()).stderr, "");
    // A bar is for terminals.
    assert_eq!(site.program.expect(0, &[&deep as &[&str], &["--progress", "bar"]].concat()).stderr, "");
    let plain = site.program.expect(0, &["check", "--all", "-q", "--progress", "plain"]);
    assert_eq!(plain.stderr, "checking: 12 of 12 backups\n");
    site.database.execute("UPDATE backups SET status = 'creating', host = 'gone'");
    let units = site.program.expect(0, &["repair", "--yes", "-q", "--limit", "5", "--progress", "json"]);
    let last = objects(&units).into_iter().rfind(|line| line["kind"] == "applying").unwrap();
    assert_eq!((last["done"].as_u64(), last["total"].as_u64(), &last["unit"]), (Some(5), Some(5), &"units".into()), "{ids:?}");
}
