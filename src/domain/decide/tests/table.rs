//! Sections 5 and 6 of the contract, a line for each row.

use super::*;

/// Decides for an old backup without related rows on a host that is down, after `set` has changed the case.
fn with(status: Option<&str>, set: impl FnOnce(&mut BackupCase, &mut Situation, &mut Policy)) -> String {
    let (mut case, mut situation, mut policy) = (a_case(a_backup(status)), situation(), Policy::default());
    set(&mut case, &mut situation, &mut policy);
    said(&decided(&case, &situation, &policy))
}

fn to(policy: &mut Policy, status: &str) {
    policy.to = Some(status.into());
}

#[test]
fn every_status_leads_to_its_row_of_the_table() {
    let held = || Some(a_volume("v", Some(BACKING_UP), Some(AVAILABLE)));
    let destination = |status: &str| Some(a_volume("d", Some(status), None));
    #[rustfmt::skip]
    let lines = [
        // A backup that was being created, without a check.
        (with(Some(CREATING), |_, _, _| ()),
            "stuck (service-down): b creating -> error"),
        (with(Some(CREATING), |c, _, _| c.volume = held()),
            "stuck (service-down): b creating -> error, v backing-up -> available"),
        (with(Some(CREATING), |c, _, _| c.volume = Some(a_volume("v", Some(BACKING_UP), Some(IN_USE)))),
            "stuck (service-down): b creating -> error, v backing-up -> in-use"),
        (with(Some(CREATING), |c, _, _| c.volume = Some(a_volume("v", Some(BACKING_UP), Some(BACKING_UP)))),
            "stuck (service-down): b creating -> error, v backing-up -> available"),
        (with(Some(CREATING), |c, _, _| (c.volume, c.attachments) = (held(), vec![an_attachment(Some("vm"), "cmp", "attached")])),
            "stuck (service-down): b creating -> error, v backing-up -> in-use"),
        (with(Some(CREATING), |c, _, _| (c.volume, c.attachments) = (held(), vec![an_attachment(None, "down", "attached")])),
            "stuck (service-down): b creating -> error, v backing-up -> available"),
        (with(Some(CREATING), |c, _, _| (c.volume, c.peers) = (held(), vec![a_peer("a", CREATING)])),
            "stuck (service-down): b creating -> error"),
        (with(Some(CREATING), |c, _, _| (c.volume, c.volume_is_temporary) = (held(), true)),
            "stuck (service-down): b creating -> error"),
        (with(Some(CREATING), |c, _, _| c.volume = Some(a_volume("v", Some(AVAILABLE), Some(BACKING_UP)))),
            "stuck (service-down): b creating -> error"),
        (with(Some(CREATING), |c, _, _| (c.backup.snapshot_id, c.snapshot) = (Some("s".into()), Some(a_snapshot(Some(BACKING_UP))))),
            "stuck (service-down): b creating -> error, s backing-up -> available"),
        (with(Some(CREATING), |_, _, p| to(p, ERROR)),
            "stuck (service-down): b creating -> error"),
        (with(Some(CREATING), |_, _, p| to(p, AVAILABLE)),
            "stuck (service-down): refused"),
        (with(Some(CREATING), |c, _, p| { to(p, AVAILABLE); p.allow_unverified = true; c.volume = held(); }),
            "stuck (service-down): b creating -> available, v backing-up -> available"),
        (with(Some(CREATING), |c, _, p| {
            to(p, AVAILABLE);
            p.allow_unverified = true;
            c.backup.parent_id = Some("a".into());
            c.parent = Some(Backup { id: "a".into(), ..a_backup(Some(AVAILABLE)) });
        }),
            "stuck (service-down): a num_dependent_backups NULL -> 1, b creating -> available"),
        // A backup that was being restored is good; the volume that it was restored to is not.
        (with(Some(RESTORING), |_, _, _| ()),
            "stuck (service-down): b restoring -> available"),
        (with(Some(RESTORING), |c, _, _| (c.backup.restore_volume_id, c.destination) = (Some("d".into()), destination(RESTORING_BACKUP))),
            "stuck (service-down): b restoring -> available, d restoring-backup -> error_restoring"),
        (with(Some(RESTORING), |c, _, _| (c.backup.restore_volume_id, c.destination) = (Some("d".into()), destination(CREATING))),
            "stuck (service-down): b restoring -> available, d creating -> error"),
        (with(Some(RESTORING), |c, _, _| (c.backup.restore_volume_id, c.destination) = (Some("d".into()), destination(IN_USE))),
            "stuck (service-down): b restoring -> available"),
        (with(Some(RESTORING), |c, _, p| {
            to(p, ERROR);
            (c.backup.restore_volume_id, c.destination) = (Some("d".into()), destination(RESTORING_BACKUP));
        }),
            "stuck (service-down): b restoring -> error, d restoring-backup -> error_restoring"),
        // A deletion can be tried again from error.
        (with(Some(DELETING), |c, _, _| c.volume = held()),
            "stuck (service-down): b deleting -> error"),
        (with(Some(DELETING), |_, _, p| { to(p, AVAILABLE); p.allow_unverified = true; }),
            "stuck (service-down): refused"),
        (with(Some(ERROR_DELETING), |_, _, _| ()),
            "stuck (asked): b error_deleting -> error"),
        // A backup in error becomes available only if that was asked for and is allowed.
        (with(Some(ERROR), |_, _, _| ()),
            "stuck (service-down): nothing"),
        (with(Some(ERROR), |_, _, p| to(p, AVAILABLE)),
            "stuck (service-down): refused"),
        (with(Some(ERROR), |_, _, p| { to(p, AVAILABLE); p.allow_unverified = true; }),
            "stuck (service-down): b error -> available"),
        (with(None, |_, _, _| ()),
            "stuck (service-down): b NULL -> error"),
        (with(None, |_, _, p| { to(p, AVAILABLE); p.allow_unverified = true; }),
            "stuck (service-down): refused"),
    ];
    for (index, (got, expected)) in lines.into_iter().enumerate() {
        assert_eq!(got, expected, "line {index}");
    }
}

#[test]
fn every_age_and_heartbeat_leads_to_its_verdict() {
    let on = |host: &str| Some(host.to_owned());
    let assume = |host: &str| AssumeDead::Hosts([host.to_owned()].into());
    let error = "b creating -> error";
    #[rustfmt::skip]
    let lines = [
        // recent: by the later of the two times, whatever the heartbeat.
        (with(Some(CREATING), |c, _, _| c.backup.updated_at = Some(ago(60))), "recent (recent): nothing"),
        (with(Some(CREATING), |c, _, _| c.backup.created_at = Some(ago(60))), "recent (recent): nothing"),
        (with(Some(CREATING), |c, _, p| { c.backup.updated_at = Some(ago(60)); p.assume_dead = AssumeDead::All; }), "recent (recent): nothing"),
        (with(Some(CREATING), |c, _, _| c.backup.updated_at = Some(ago(-60))), "recent (recent): nothing"),
        // stuck: no service can be working on it.
        (with(Some(CREATING), |c, _, _| (c.backup.host, c.backup.service) = (None, None)), &format!("stuck (never-scheduled): {error}")),
        (with(Some(CREATING), |c, _, _| (c.backup.host, c.backup.service) = (on(""), None)), &format!("stuck (never-scheduled): {error}")),
        (with(Some(CREATING), |c, _, _| c.backup.host = on(GONE)), &format!("stuck (service-missing): {error}")),
        (with(Some(CREATING), |c, _, p| { c.backup.host = on(GONE); p.assume_dead = assume(GONE); }), &format!("stuck (assumed-dead): {error}")),
        (with(Some(CREATING), |c, _, _| c.backup.host = on("retired")), &format!("stuck (service-missing): {error}")),
        (with(Some(CREATING), |c, _, _| c.backup.host = on("down")), &format!("stuck (service-down): {error}")),
        (with(Some(CREATING), |c, _, _| c.backup.host = on("never")), &format!("stuck (service-down): {error}")),
        (with(Some(CREATING), |c, _, p| { c.backup.host = on("up"); p.assume_dead = assume("up"); }), &format!("stuck (assumed-dead): {error}")),
        (with(Some(CREATING), |c, _, p| { c.backup.host = on("up"); p.assume_dead = AssumeDead::All; }), &format!("stuck (assumed-dead): {error}")),
        // uncertain: a service may be at work, or the heartbeats prove nothing.
        (with(Some(CREATING), |c, _, _| c.backup.host = on("up")), &format!("uncertain (service-up): {error}")),
        (with(Some(CREATING), |c, _, _| c.backup.host = on("ahead")), &format!("uncertain (service-up): {error}")),
        (with(Some(CREATING), |c, _, _| c.backup.host = on("removed")), &format!("uncertain (service-up): {error}")),
        (with(Some(CREATING), |c, _, p| { c.backup.host = on("up"); p.assume_dead = assume("down"); }), &format!("uncertain (service-up): {error}")),
        (with(Some(CREATING), |_, s, _| s.server_uptime_seconds = Some(119)), &format!("uncertain (server-just-started): {error}")),
        (with(Some(CREATING), |_, s, _| s.server_uptime_seconds = Some(120)), &format!("stuck (service-down): {error}")),
        (with(Some(CREATING), |_, s, p| { s.server_uptime_seconds = Some(0); p.assume_dead = assume("down"); }), &format!("stuck (assumed-dead): {error}")),
        // A posix increment carries its parent's host before any scheduler saw it: then that host's heartbeat counts.
        (with(Some(CREATING), |c, _, _| (c.backup.host, c.backup.service) = (on("up"), None)), &format!("uncertain (service-up): {error}")),
    ];
    for (index, (got, expected)) in lines.into_iter().enumerate() {
        assert_eq!(got, expected, "line {index}");
    }
}

#[test]
fn the_named_clock_is_that_of_the_host_that_is_ahead() {
    assert_eq!(situation().services.clocks_ahead(now(), 60), [("ahead".to_owned(), 300)]);
}

#[test]
fn no_threshold_makes_a_service_that_is_up_dead_or_a_future_row_old() {
    let policy = |older_than_seconds: i64| Policy {
        thresholds: crate::domain::Thresholds { older_than_seconds, ..crate::domain::Thresholds::default() },
        ..Policy::default()
    };
    let fresh = a_case(Backup { created_at: Some(ago(0)), updated_at: None, host: Some("up".into()), ..a_backup(Some(CREATING)) });
    assert_eq!(decided(&fresh, &situation(), &policy(0)).verdict, Verdict::Uncertain);
    assert_eq!(decided(&fresh, &situation(), &policy(1)).verdict, Verdict::Recent);
    let future = a_case(Backup { created_at: Some(ago(-1)), updated_at: None, ..a_backup(Some(CREATING)) });
    assert_eq!(decided(&future, &situation(), &policy(0)).verdict, Verdict::Recent);
    assert_eq!(decided(&future, &situation(), &policy(i64::MAX)).verdict, Verdict::Recent);
}
