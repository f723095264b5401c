//! An open session: its known state, its transactions and its statements.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cinder_backup_repair::config::{Host, ServerTarget};
use cinder_backup_repair::db::statements::{
    BACKUPS_BY_IDS_MITAKA, BACKUPS_LIVE_LIBERTY, SNAPSHOT_BY_ID, SNAPSHOT_UPDATE, SNAPSHOTS_PENDING, VOLUME_BY_ID_JUNO,
};
use cinder_backup_repair::db::{Access, CommitOutcome, DbErrorKind, Engine, ID_BATCH, Param, PipelineStep, StepResult};
use cinder_backup_repair::domain::Value;

use super::{admin, committed, opened, own_server, own_target, ready, refusal, server_engines, status, target, update, with_snapshot};
use crate::schemas::{Columns, fresh};
use crate::servers::mariadb::Plugin;
use crate::servers::{self, ADMIN, ADMIN_PASSWORD, Transport};

#[test]
fn a_row_policy_that_hides_rows_is_an_error() {
    let database = fresh(Engine::Postgresql, Columns::Full);
    database.execute("ALTER TABLE backups ENABLE ROW LEVEL SECURITY");
    let account = database.account_with("GRANT SELECT ON backups TO {user}", Plugin::Default, Transport::Any);
    let mut session = opened(&target(database.server(), &account.user, &account.password, database.name()));
    let error = session.rows(&BACKUPS_LIVE_LIBERTY, &[]).expect_err("all rows are hidden");
    assert_eq!(error.kind, DbErrorKind::Privilege, "{error}");
    assert!(error.message.contains("BYPASSRLS"), "{error}");
}

#[test]
fn a_server_that_refuses_writes_is_read_only() {
    let database = fresh(Engine::Postgresql, Columns::Full);
    database.execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name()));
    assert!(opened(&admin(&database)).server().read_only);

    let standby = own_server(Engine::Postgresql);
    standby.process.kill();
    std::fs::write(standby.process.dir().join("data/standby.signal"), "").expect("the directory of the test");
    standby.process.start(&|| ready(&standby));
    let mut session = opened(&own_target(&standby));
    assert!(session.server().read_only);
    let error = session.begin(Access::Write).expect_err("it is a standby");
    assert_eq!(error.kind, DbErrorKind::NotPrimary, "{error}");
    assert_eq!(session.rows(&SNAPSHOT_BY_ID, &["s".into()]).expect("it can be read").len(), 1);

    let settings = servers::mariadb::Settings { options: vec!["--read-only=ON".to_owned()], ..Default::default() };
    let server = servers::mariadb::start(&settings);
    assert!(opened(&target(&server, ADMIN, ADMIN_PASSWORD, "mysql")).server().read_only);
}

/// For an account that may not read the timeline, the server is unknown.
#[test]
fn every_account_that_may_read_the_timeline_knows_the_server_of_a_transaction() {
    let server = own_server(Engine::Postgresql);
    servers::postgresql::create_user(&server, "plain", "x", Transport::Any);
    let node = || {
        let mut session = opened(&target(&server, "plain", "x", "postgres"));
        session.begin(Access::Write).expect("begun");
        session.node().map(str::to_owned)
    };
    assert_eq!(node().as_deref(), Some("timeline 00000001"));
    let mut superuser = servers::postgresql::connect(&server.socket, server.port, "postgres", None, "postgres").expect("it answers");
    superuser.batch_execute("REVOKE EXECUTE ON FUNCTION pg_current_wal_lsn() FROM PUBLIC").expect("a superuser");
    assert_eq!(node(), None);
}

#[test]
fn the_database_refuses_writes_in_a_read_only_transaction() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut session = opened(&admin(&database));
        session.begin(Access::ReadOnly).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let error = update(&mut *session, &snapshot, "available").expect_err("read-only");
        assert_eq!(error.kind, DbErrorKind::Other, "{engine:?}: {error}");
        let code = if engine == Engine::Postgresql { "25006" } else { "1792" };
        assert_eq!(error.code.as_deref(), Some(code), "{engine:?}");
        session.rollback().unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(status(&database, &snapshot), "backing-up", "{engine:?}");
    }
}

#[test]
fn a_read_only_transaction_reads_one_snapshot() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut session = opened(&admin(&database));
        session.begin(Access::ReadOnly).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let before = session.rows(&SNAPSHOT_BY_ID, &[snapshot.as_str().into()]).expect("read");
        database.execute("UPDATE snapshots SET status = 'error'");
        assert_eq!(session.rows(&SNAPSHOT_BY_ID, &[snapshot.as_str().into()]).expect("read"), before, "{engine:?}");
        committed(session.commit());
        let after = session.rows(&SNAPSHOT_BY_ID, &[snapshot.as_str().into()]).expect("read");
        assert_eq!(after[0][1], Value::from("error"), "{engine:?}");
    }
}

#[test]
fn a_transaction_is_committed_or_rolled_back_completely() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut session = opened(&admin(&database));
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, &snapshot, "available").expect("written"), 1, "{engine:?}");
        session.rollback().unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(status(&database, &snapshot), "backing-up", "{engine:?}");
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, &snapshot, "available").expect("written"), 1, "{engine:?}");
        let stale: Vec<Param> = vec!["error".into(), snapshot.as_str().into(), "backing-up".into(), "x".into(), Param::One(Value::Null)];
        assert_eq!(session.execute(&SNAPSHOT_UPDATE, &stale).expect("nothing matches"), 0, "{engine:?}");
        committed(session.commit());
        assert_eq!(status(&database, &snapshot), "available", "{engine:?}");
    }
}

#[test]
fn a_transaction_with_a_failed_statement_is_never_committed() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut session = opened(&admin(&database));
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, &snapshot, "available").expect("written"), 1, "{engine:?}");
        // Too long for the column; without strict mode MySQL would truncate it.
        let error = update(&mut *session, &snapshot, &"x".repeat(300)).expect_err("300 characters do not fit");
        assert_eq!(error.kind, DbErrorKind::Other, "{engine:?}: {error}");
        // MySQL would run it, and after a deadlock would even commit it by itself.
        session.rows(&SNAPSHOT_BY_ID, &[snapshot.as_str().into()]).expect_err("the transaction has failed");
        let outcome = session.commit();
        assert!(matches!(outcome, CommitOutcome::NotCommitted(_)), "{engine:?}: {outcome:?}");
        assert_eq!(status(&database, &snapshot), "backing-up", "{engine:?}");
        // The session can be used again.
        session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        assert_eq!(update(&mut *session, &snapshot, "available").expect("written"), 1, "{engine:?}");
        committed(session.commit());
    }
}

#[test]
fn matched_rows_are_counted_whether_or_not_they_change() {
    for engine in server_engines() {
        let (database, snapshot) = with_snapshot(engine);
        let mut direct = opened(&admin(&database));
        // The same through a relay that removes CLIENT_FOUND_ROWS from the login.
        let relay = Relay::start(database.server().port, |first, bytes| {
            if first && bytes.len() > 4 {
                bytes[4] &= !2;
            }
        });
        let far = ServerTarget { host: Host::Tcp("127.0.0.1".to_owned()), port: relay.port, ..admin(&database) };
        let mut sessions = vec![&mut direct];
        let mut relayed = (engine != Engine::Postgresql).then(|| opened(&far));
        sessions.extend(relayed.iter_mut());
        for session in sessions {
            // The second of two in the same second writes the same time and changes nothing. Five make this certain.
            for _ in 0..5 {
                session.begin(Access::Write).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
                assert_eq!(update(&mut **session, &snapshot, "available").expect("written"), 1, "{engine:?}");
                committed(session.commit());
            }
        }
    }
}

#[test]
fn statements_are_prepared_only_on_a_connection_to_the_server_itself() {
    let (database, snapshot) = with_snapshot(Engine::Postgresql);
    for pooled in [false, true] {
        let prepared = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&prepared);
        let relay = Relay::between(
            database.server().port,
            move |_, bytes| {
                // Parse messages with a name, which the driver begins with s.
                let is_named = |part: &&[u8]| matches!(part, [b'P', 0, 0, _, _, b's', b'0'..=b'9']);
                counted.fetch_add(bytes.windows(7).filter(is_named).count(), Ordering::SeqCst);
            },
            move |bytes| {
                // A pooler names a process of its own.
                if let Some(at) = bytes.windows(5).position(|part| pooled && part == [b'K', 0, 0, 0, 12]) {
                    bytes[at + 7] ^= 0x40;
                }
            },
        );
        let mut session = opened(&ServerTarget { host: Host::Tcp("127.0.0.1".to_owned()), port: relay.port, ..admin(&database) });
        session.begin(Access::Write).unwrap();
        assert_eq!(update(&mut *session, &snapshot, "available").unwrap(), 1);
        committed(session.commit());
        assert_eq!(prepared.load(Ordering::SeqCst) > 0, !pooled);
    }
}

#[test]
fn a_session_state_that_a_proxy_changes_is_reported() {
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let (wanted, found): (&[u8], &[u8]) =
            if engine == Engine::Postgresql { (b"'TimeZone', 'UTC'", b"'TimeZone', 'CET'") } else { (b"'+00:00'", b"'+01:00'") };
        let relay = Relay::start(database.server().port, move |_, bytes| {
            if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                bytes[at..at + wanted.len()].copy_from_slice(found);
            }
        });
        let far = ServerTarget { host: Host::Tcp("127.0.0.1".to_owned()), port: relay.port, ..admin(&database) };
        let error = refusal(&far);
        assert_eq!(error.kind, DbErrorKind::SessionState, "{engine:?}: {error}");
        let (name, value) = if engine == Engine::Postgresql { ("TimeZone", "CET") } else { ("time_zone", "+01:00") };
        assert!(error.message.contains(name) && error.message.contains(value), "{engine:?}: {error}");
    }
}

#[test]
fn a_direct_session_that_was_replaced_is_reported() {
    for engine in [Engine::Mariadb, Engine::Postgresql] {
        let (database, snapshot) = with_snapshot(engine);
        // Another session answers with another process, and lacks the variable.
        let (wanted, other): (&[u8], &[u8]) = if engine == Engine::Postgresql {
            (b"SELECT pg_backend_pid();", b"SELECT 1234567890123456;")
        } else {
            (b"SELECT @cinder_backup_repair;", b"SELECT @cinder_backup_absent;")
        };
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let relay = Relay::start(database.server().port, move |_, bytes| {
            if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                bytes[at..at + wanted.len()].copy_from_slice(&other[..wanted.len()]);
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut session = opened(&ServerTarget { host: Host::Tcp("127.0.0.1".to_owned()), port: relay.port, ..admin(&database) });
        let reads = [PipelineStep::Query(&SNAPSHOT_BY_ID, vec![snapshot.as_str().into()])];
        // On PostgreSQL, the first transaction sets and checks the whole state.
        let begun = session.begin_with(Access::Write, &reads).map(|_| committed(session.commit()));
        let error = begun.and_then(|()| session.begin_with(Access::Write, &reads)).expect_err("it is another session");
        assert_eq!(error.kind, DbErrorKind::SessionState, "{engine:?}: {error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{engine:?}");
    }
}

/// Relays between a session and its server. `change` may change what the session sends; its first argument marks the first piece.
struct Relay {
    port: u16,
}

impl Relay {
    fn start(server: u16, change: impl Fn(bool, &mut [u8]) + Send + 'static) -> Self {
        Self::between(server, change, |_| ())
    }

    /// `answer` may change what the server sends.
    fn between(server: u16, change: impl Fn(bool, &mut [u8]) + Send + 'static, answer: impl Fn(&mut [u8]) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            let Ok((mut client, _)) = listener.accept() else { return };
            let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).expect("the server listens");
            let (mut answers, mut back) = (upstream.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = answers.read(&mut buffer) {
                    answer(&mut buffer[..length]);
                    if back.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = back.shutdown(Shutdown::Both);
            });
            let mut buffer = vec![0; 1 << 16];
            let mut first = true;
            while let Ok(length @ 1..) = client.read(&mut buffer) {
                change(first, &mut buffer[..length]);
                first = false;
                if upstream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            let _ = upstream.shutdown(Shutdown::Both);
        });
        Self { port }
    }
}

#[test]
fn lists_of_ids_of_any_length_find_their_rows() {
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        let ids: Vec<String> = (0..ID_BATCH).map(|_| database.backup(|row| row)).collect();
        let mut session = opened(&admin(&database));
        for length in [1, 2, ID_BATCH - 1, ID_BATCH] {
            let rows = session.rows(&BACKUPS_BY_IDS_MITAKA, &[Param::Ids(ids[..length].to_vec())]);
            let rows = rows.unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            let mut found: Vec<&str> = rows.iter().filter_map(|row| row[0].as_text()).collect();
            found.sort_unstable();
            let mut wanted: Vec<&str> = ids[..length].iter().map(String::as_str).collect();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{engine:?}");
        }
    }
}

#[test]
fn a_query_can_end_early() {
    for engine in server_engines() {
        let database = fresh(engine, Columns::Full);
        // More than the buffers of the server and the session.
        let values: Vec<String> = (0..4000).map(|number| format!("('{number}', 'available', 'v', '{}', FALSE)", "x".repeat(200))).collect();
        database
            .execute(&format!("INSERT INTO backups (id, status, volume_id, display_description, deleted) VALUES {}", values.join(", ")));
        let mut session = opened(&admin(&database));
        for access in [None, Some(Access::ReadOnly)] {
            if let Some(access) = access {
                session.begin(access).unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            }
            let mut seen = 0;
            let left = session.query(&BACKUPS_LIVE_LIBERTY, &[], &mut |_| {
                seen += 1;
                if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            left.unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            assert_eq!(seen, 3, "{engine:?}");
            let mut all = 0;
            let whole = session.query(&BACKUPS_LIVE_LIBERTY, &[], &mut |_| {
                all += 1;
                ControlFlow::Continue(())
            });
            whole.unwrap_or_else(|error| panic!("{engine:?}: {error}"));
            assert_eq!(all, 4000, "{engine:?}");
        }
        committed(session.commit());
    }
}

/// A server may limit the rows of statements without LIMIT, which would hide backups that use a volume, and may begin a transaction
/// after each, which would hide heartbeats.
#[test]
fn settings_of_the_server_do_not_hide_rows() {
    use ::mysql::prelude::Queryable;
    let server = own_server(Engine::Mariadb);
    let mut other = servers::mariadb::connect(&server.socket, ADMIN, Some(ADMIN_PASSWORD)).expect("it answers");
    other.select_db("postgres").expect("it is there");
    other
        .query_drop("INSERT INTO snapshots SELECT concat('s', seq), 'backing-up', 'v', NULL, NULL, NULL, NULL, FALSE FROM seq_1_to_3")
        .expect("rows");
    other.query_drop("SET GLOBAL completion_type = 'CHAIN'").expect("a setting");
    // A limit of one row also hides the kind of the server.
    for limit in [1, 2] {
        other.query_drop(format!("SET GLOBAL sql_select_limit = {limit}")).expect("a setting");
        other.query_drop("UPDATE snapshots SET status = 'backing-up'").expect("an update");
        let mut session = opened(&own_target(&server));
        assert_eq!(session.server().engine, Engine::Mariadb);
        assert_eq!(session.rows(&SNAPSHOTS_PENDING, &[]).expect("read").len(), 4, "limit {limit}");
        session.begin(Access::ReadOnly).expect("begun");
        session.rollback().expect("ended");
        assert_eq!(session.rows(&SNAPSHOTS_PENDING, &[]).expect("read").len(), 4);
        other.query_drop("UPDATE snapshots SET status = 'available' WHERE id = 's1'").expect("an update");
        assert_eq!(session.rows(&SNAPSHOTS_PENDING, &[]).expect("read").len(), 3, "no transaction is open");
    }
}

/// The driver closes the statements that it used least recently. It must not close one that a pipeline uses again.
#[test]
fn any_number_of_different_pipelines_runs_in_one_session() {
    let (database, snapshot) = with_snapshot(Engine::Mariadb);
    let mut session = opened(&admin(&database));
    session.begin(Access::Write).unwrap();
    let mut run = |number: usize| {
        let statement = |bit: usize| if number >> bit & 1 == 1 { &VOLUME_BY_ID_JUNO } else { &SNAPSHOT_BY_ID };
        let steps: Vec<PipelineStep> = (0..9).map(|bit| PipelineStep::Query(statement(bit), vec![Param::from(&*snapshot)])).collect();
        let results = session.pipeline(&steps).unwrap_or_else(|error| panic!("{number}: {error}"));
        let rows = results.iter().map(|result| if let StepResult::Rows(rows) = result { rows.len() } else { 0 });
        assert_eq!(rows.sum::<usize>(), 9 - number.count_ones() as usize, "{number}");
    };
    (0..400).chain(0..50).for_each(&mut run);
}
