//! Servers that are slow, stop answering or disappear.

use std::thread;
use std::time::{Duration, Instant};

use cinder_backup_repair::db::statements::{SNAPSHOT_BY_ID, SNAPSHOT_LOCK};
use cinder_backup_repair::db::{Access, CommitOutcome, DbErrorKind, Engine, SessionSettings};
use cinder_backup_repair::domain::Value;
use rustix::process::Signal;

use super::{
    OWN_ENGINES, admin, committed, fill, impatient, kill, open, open_with, opened, own_server, own_target, ready, server_engines, signal,
    update, with_snapshot,
};
use crate::servers;

#[test]
fn waiting_for_a_lock_ends_at_the_time_out() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut holder = opened(&admin(&database));
        holder.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        holder.rows(&SNAPSHOT_LOCK, &[snapshot.as_str().into()]).unwrap_or_else(|error| panic!("{engine:?}: {error}"));

        let settings = SessionSettings { lock_timeout: Duration::from_secs(1), ..SessionSettings::default() };
        let mut waiting = open_with(&admin(&database), &settings).expect("a second session");
        waiting.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let begun = Instant::now();
        let error = waiting.rows(&SNAPSHOT_LOCK, &[snapshot.as_str().into()]).expect_err("it is locked");
        assert_eq!(error.kind, DbErrorKind::LockTimeout, "{engine:?}: {error}");
        assert!(error.is_retryable() && !error.is_fatal(), "{engine:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{engine:?}: {:?}", begun.elapsed());
        waiting.rollback().unwrap_or_else(|error| panic!("{engine:?}: {error}"));

        // The statement time-out ends the wait if it is shorter. MySQL has none for statements that take locks.
        if engine != Engine::Mysql {
            let settings = SessionSettings {
                lock_timeout: Duration::from_secs(20),
                statement_timeout: Duration::from_millis(1500),
                ..SessionSettings::default()
            };
            let mut waiting = open_with(&admin(&database), &settings).expect("a third session");
            waiting.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            let begun = Instant::now();
            let error = waiting.rows(&SNAPSHOT_LOCK, &[snapshot.as_str().into()]).expect_err("it is locked");
            assert_eq!(error.kind, DbErrorKind::Timeout, "{engine:?}: {error}");
            assert!(!error.is_fatal() && begun.elapsed() < Duration::from_secs(5), "{engine:?}: {:?}", begun.elapsed());
        }
        holder.rollback().unwrap_or_else(|error| panic!("{engine:?}: {error}"));
    }
}

#[test]
fn a_server_that_stops_answering_ends_the_session() {
    for engine in OWN_ENGINES {
        let server = own_server(engine);
        let target = own_target(&server);
        let mut session = open_with(&target, &impatient()).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        signal(&server, Signal::STOP);

        let begun = Instant::now();
        let error = open_with(&target, &impatient()).err().expect("it does not answer");
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{engine:?}: {:?}", begun.elapsed());

        let begun = Instant::now();
        let error = session.rows(&SNAPSHOT_BY_ID, &["s".into()]).expect_err("it does not answer");
        assert_eq!(error.kind, DbErrorKind::Timeout, "{engine:?}: {error}");
        assert!(error.is_fatal() && begun.elapsed() < Duration::from_secs(9), "{engine:?}: {:?}", begun.elapsed());

        // The session does not recover if the server continues: the next answer would belong to the first statement.
        signal(&server, Signal::CONT);
        let begun = Instant::now();
        for _ in 0..2 {
            let again = session.rows(&SNAPSHOT_BY_ID, &["s".into()]).expect_err("the session is over");
            assert!(again.is_fatal() && again.message == error.message, "{engine:?}: {again}");
        }
        assert!(session.begin(Access::Write).is_err_and(|error| error.is_fatal()), "{engine:?}");
        assert!(session.rollback().is_err_and(|error| error.is_fatal()), "{engine:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{engine:?}");
        assert_eq!(opened(&target).rows(&SNAPSHOT_BY_ID, &["s".into()]).expect("a new session").len(), 1, "{engine:?}");
    }
}

#[test]
fn a_commit_without_an_answer_is_unknown() {
    for engine in OWN_ENGINES {
        let server = own_server(engine);
        let target = own_target(&server);
        let begin = |status: &str| {
            let mut session = open_with(&target, &impatient()).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            assert_eq!(update(&mut *session, "s", status).expect("written"), 1, "{engine:?}");
            session
        };

        // The server commits and answers.
        let mut writer = begin("available");
        committed(writer.commit());

        // The server is stopped during COMMIT and continues afterwards.
        let mut writer = begin("error");
        signal(&server, Signal::STOP);
        let outcome = writer.commit();
        signal(&server, Signal::CONT);
        let CommitOutcome::Unknown(error) = outcome else { panic!("{engine:?}: {outcome:?}") };
        assert!(error.is_fatal(), "{engine:?}: {error}");
        drop(writer);

        // The server is killed before it receives COMMIT.
        let mut writer = begin("deleting");
        kill(&server);
        let outcome = writer.commit();
        assert!(matches!(outcome, CommitOutcome::Unknown(_)), "{engine:?}: {outcome:?}");
        let node = writer.node().map(str::to_owned);
        server.process.start(&|| ready(&server));
        let mut session = opened(&target);
        session.begin(Access::Write).expect("it is back");
        assert!(node.is_some() && session.node() == node.as_deref(), "{engine:?}: the same server with its data");
        let rows = session.rows(&SNAPSHOT_BY_ID, &["s".into()]).expect("a new session");
        assert_ne!(rows[0][1], Value::from("deleting"), "{engine:?}");
    }
}

#[test]
fn a_connection_lost_before_commit_has_certainly_not_committed() {
    for engine in OWN_ENGINES {
        let server = own_server(engine);
        let mut session = opened(&own_target(&server));
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, "s", "available").expect("written"), 1, "{engine:?}");
        kill(&server);
        let error = session.rows(&SNAPSHOT_BY_ID, &["s".into()]).expect_err("the server is gone");
        assert_eq!(error.kind, DbErrorKind::Connection, "{engine:?}: {error}");
        assert!(error.is_fatal(), "{engine:?}: {error}");
        let outcome = session.commit();
        assert!(matches!(&outcome, CommitOutcome::NotCommitted(error) if error.is_fatal()), "{engine:?}: {outcome:?}");
    }
}

#[test]
fn a_galera_cluster_is_one_database_and_nodes_outside_it_are_refused() {
    let nodes = servers::galera::start();
    fill(&nodes[0]);
    let at = own_target;
    let identities: Vec<String> = nodes
        .iter()
        .map(|node| {
            let mut session = opened(&at(node));
            assert!(session.server().galera && !session.server().read_only);
            session.begin(Access::ReadOnly).expect("begun");
            committed(session.commit());
            session.server().identity.clone()
        })
        .collect();
    assert!(identities[0].starts_with("galera:") && identities.iter().all(|identity| *identity == identities[0]), "{identities:?}");

    // Two nodes change the same row. The first commit is visible on every node, and the other has certainly not committed.
    let (mut loser, mut winner) = (opened(&at(&nodes[0])), opened(&at(&nodes[1])));
    for (session, status) in [(&mut loser, "error"), (&mut winner, "available")] {
        session.begin(Access::Write).expect("begun");
        assert_eq!(update(&mut **session, "s", status).expect("written"), 1);
    }
    committed(winner.commit());
    let rows = opened(&at(&nodes[2])).rows(&SNAPSHOT_BY_ID, &["s".into()]).expect("read");
    assert_eq!(rows[0][1], Value::from("available"), "reads wait until the node has applied what the cluster committed");
    let outcome = loser.commit();
    let CommitOutcome::NotCommitted(error) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind, DbErrorKind::Conflict, "{error}");
    loser.begin(Access::Write).expect("the session can be used again");
    assert_eq!(update(&mut *loser, "s", "error").expect("written"), 1);
    committed(loser.commit());

    nodes[1].process.kill();
    nodes[2].process.kill();
    let deadline = Instant::now() + Duration::from_secs(90);
    let error = loop {
        match open(&at(&nodes[0])) {
            // Until the node detects the loss, its wait for the others times out.
            Err(error) if error.kind != DbErrorKind::LockTimeout => break error,
            Err(error) => assert!(error.message.contains("did not catch up with its cluster"), "{error}"),
            Ok(_) => {}
        }
        assert!(Instant::now() < deadline, "the node still reports the primary component");
        thread::sleep(Duration::from_millis(300));
    };
    assert_eq!(error.kind, DbErrorKind::NotPrimary, "{error}");
}
