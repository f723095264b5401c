//! `--rehost`.

use super::storage::a_check;
use super::*;
use crate::domain::status::DELETED;
use crate::domain::{CheckResult, CheckVerdict, NewHost, Value};

fn policy(host: &str) -> Policy {
    Policy { rehost: Some(NewHost { host: host.into(), backup_driver: None }), ..Policy::default() }
}

/// The host `up` is in the zone nova.
fn zoned() -> Situation {
    let rows = [
        ServiceRow { availability_zone: Some("nova".into()), ..beats("up", Some(ago(10))) },
        beats("down", Some(ago(OLD))),
        beats("odd", Some("a moment ago".into())),
        ServiceRow { disabled: true, ..beats("off", Some(ago(10))) },
    ];
    Situation { services: Services::new(&rows), ..situation() }
}

fn retired() -> Backup {
    Backup { host: Some(GONE.into()), service: Some(CEPH.into()), ..a_backup(Some(AVAILABLE)) }
}

fn decided(backup: Backup, policy: &Policy) -> Option<Finding> {
    rehost(&RehostCase { backup, service: Some(CEPH.into()), check: None }, &zoned(), policy)
}

fn changes(finding: &Finding) -> Vec<(&str, &Value)> {
    let changes = &finding.proposal.as_ref().unwrap().changes;
    assert!(finding.is_actionable() && changes.iter().all(|change| is_allowed(change, Direction::Forward)), "{finding:?}");
    changes.iter().map(|change| (change.column.as_str(), &change.to)).collect()
}

#[test]
fn a_backup_at_rest_on_a_host_without_a_service_is_moved() {
    let (host, zone) = (Value::from("up"), Value::from("nova"));
    for status in [AVAILABLE, ERROR] {
        for old in [GONE, "down"] {
            let backup = Backup { host: Some(old.into()), status: Some(status.into()), ..retired() };
            assert_eq!(changes(&decided(backup, &policy("up")).unwrap()), [("host", &host), ("availability_zone", &zone)]);
        }
    }
    let in_zone = Backup { availability_zone: Some("nova".into()), ..retired() };
    assert_eq!(changes(&decided(in_zone, &policy("up")).unwrap()), [("host", &host)]);
    // Cinder takes an empty zone for any, and so it stays.
    let any = Backup { availability_zone: Some(String::new()), service: None, ..retired() };
    assert_eq!(changes(&decided(any, &policy("up")).unwrap()), [("host", &host)]);
    assert_eq!(decided(retired(), &Policy::default()), None);
    for status in [Some(CREATING), Some(RESTORING), Some(DELETING), Some(ERROR_DELETING), None] {
        assert_eq!(decided(Backup { status: status.map(Into::into), ..retired() }, &policy("up")), None);
    }
    for host in [None, Some(""), Some(" "), Some("up"), Some("UP")] {
        assert_eq!(decided(Backup { host: host.map(Into::into), ..retired() }, &policy("up")), None, "{host:?}");
    }
}

#[test]
fn a_service_that_may_live_keeps_its_backups_unless_it_is_assumed_dead() {
    let odd = Backup { host: Some("odd".into()), ..retired() };
    let finding = decided(odd.clone(), &policy("up")).unwrap();
    assert_eq!((finding.verdict, finding.proposal), (Verdict::Uncertain, None));
    let dead = Policy { assume_dead: AssumeDead::Hosts(["odd".to_owned()].into()), ..policy("up") };
    assert!(decided(odd, &dead).unwrap().is_actionable());
    let all = Policy { assume_dead: AssumeDead::All, ..policy("up") };
    assert!(matches!(find_new_host_problem(all.rehost.as_ref().unwrap(), &zoned(), &all), Some(NewHostProblem::Unfit(_))));
}

#[test]
fn a_new_host_that_does_not_fit_is_refused() {
    for (host, why) in [
        ("down", "no backup can be moved to down: its cinder-backup has no recent heartbeat; start it first"),
        ("off", "no backup can be moved to off: its cinder-backup is disabled; enable it first"),
        ("Up", "--rehost Up matches nothing: no cinder-backup has this host; it is spelled up"),
    ] {
        assert_eq!(decided(retired(), &policy(host)).unwrap().refusal.as_deref(), Some(why));
    }
    let refusal = |backup: Backup| decided(backup, &policy("up")).unwrap().refusal.unwrap();
    assert_eq!(refusal(Backup { availability_zone: Some("az2".into()), ..retired() }), "its zone is az2, and that of up is nova");
    assert!(refusal(Backup { service: Some("vendor.Driver".into()), ..retired() }).starts_with("its driver is vendor.Driver"));
    // Another spelling is the same driver.
    assert!(decided(Backup { service: Some("cinder.backup.drivers.ceph".into()), ..retired() }, &policy("up")).unwrap().is_actionable());
    let posix = RehostCase { backup: Backup { service: Some(POSIX.into()), ..retired() }, service: Some(POSIX.into()), check: None };
    let refusal = rehost(&posix, &zoned(), &policy("up")).unwrap().refusal.unwrap();
    assert!(refusal.starts_with("its data may be on the disk of gone"), "{refusal}");
    // Under lock, the plan has settled that.
    assert!(rehost(&RehostCase { service: None, ..posix }, &zoned(), &policy("up")).unwrap().is_actionable());
}

#[test]
fn a_check_on_the_retired_host_or_of_data_that_is_written_proves_nothing() {
    let found = |old: &str, on: &str, busy: bool| {
        let backup = Backup { host: Some(old.into()), service: Some(POSIX.into()), ..retired() };
        let check = CheckResult { host: Some(on.into()), busy, ..a_check(&backup, CheckVerdict::Intact) };
        let case = RehostCase { backup, service: Some(POSIX.into()), check: Some(Box::new(check)) };
        rehost(&case, &zoned(), &policy("up")).unwrap().refusal
    };
    let decided = |old: &str, on: &str| found(old, on, false);
    for (old, on) in [(GONE, GONE), ("Gone@posix", "gone.example.org"), ("gone.example.org", "gone")] {
        assert!(decided(old, on).is_some_and(|why| why.contains("run it on up with --check quick")), "{old} {on}");
    }
    assert!(found(GONE, "up", true).is_some_and(|why| why.contains("may still be written")));
    for (old, on) in [(GONE, "up"), (GONE, "jump"), ("up.old.example.org", "up")] {
        assert_eq!(decided(old, on), None, "{old} {on}");
    }
}

#[test]
fn a_backup_whose_deletion_the_same_run_finishes_keeps_its_host() {
    let deleting = Policy { to: Some(DELETED.into()), asked: [ERROR.to_owned()].into(), ..policy("up") };
    let failed = Backup { status: Some(ERROR.into()), ..retired() };
    assert_eq!(decided(failed.clone(), &deleting), None);
    assert!(decided(retired(), &deleting).unwrap().is_actionable() && decided(failed, &policy("up")).unwrap().is_actionable());
}
