//! Sessions on PostgreSQL, directly or through a pooler such as PgBouncer.
//!
//! Every statement runs in a transaction, in one of its own if the caller began none. The known state is set for that transaction
//! only: a pooler in transaction mode would pass a session's settings on to the next user of the server's connection. The search
//! path is not changed; the account, the database or the URL's options set it.
//!
//! On a direct connection the statements of a pipeline are prepared: to plan the UPDATE of a backup takes the server three times as long as
//! to run it. A pooler may send each transaction to another of its connections, where another statement may have the same name, so through
//! one nothing is prepared (see `direct`).
//!
//! Identity: `postgresql:<system identifier>/<database>`; if accounts may not call `pg_control_system()`,
//! `postgresql:database-<oid>/<database>`. A search path that begins with a schema other than `public` adds `/<schema>`.
//!
//! May use `config`, `domain` and the other modules of `db`.

mod connection;
mod direct;
mod errors;
mod values;

use std::ops::ControlFlow;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::connection::{BoundStatement, Connection, ConnectionFuture, StatementKind};
use self::errors::{describe, offers_no_tls};
use super::remote::Remote;
use super::statements::{EngineStatement, session_statements};
use super::{
    Access, CommitOutcome, DbError, DbErrorKind, Engine, Param, PipelineStep, RowSink, ServerInfo, Session, SessionSettings, Statement,
    StepResult, refused_commit, rolled_back, tls,
};
use crate::config::{Host, ServerTarget, TlsMode};
use crate::domain::Value;

session_statements! { "postgres":
    SET = "session_set";
    CHECK = "session_check";
    PROCESS = "session_process";
    SERVER = "session_server";
    SYSTEM_IDENTIFIER = "session_system_identifier";
    TIMELINE = "session_timeline";
    LOCK_HOLDERS = "session_holders";
    BEGIN_READ = "session_begin_read";
    BEGIN_WRITE = "session_begin_write";
    COMMIT = "session_commit";
    ROLLBACK = "session_rollback";
}

struct Postgres {
    /// An error once it was closed: the reason.
    connection: Result<Connection, DbError>,
    server: ServerInfo,
    /// In milliseconds.
    lock_timeout: u64,
    /// In milliseconds.
    statement_timeout: u64,
    /// The open transaction.
    open: Option<Access>,
    /// A statement of it failed. The server would roll back and still report success for COMMIT.
    failed: bool,
    /// This account may read the server's timeline.
    sees_timeline: bool,
    /// The timeline of the last transaction with [`Access::Write`].
    timeline: Option<String>,
    /// The server process at the other end; `None` through a pooler.
    process: Option<i64>,
    /// The settings that the open transaction leaves to the session if it is committed.
    pending: Option<Settings>,
    /// The settings that the session has. A transaction with the same ones does not set and check them again.
    kept: Option<Settings>,
}

/// What the settings of a transaction depend on: its access, and the milliseconds that it waits for a lock.
type Settings = (Access, u64);

/// Opens a session on PostgreSQL and puts it into the known state.
///
/// # Errors
/// [`DbErrorKind::SessionState`] if the state that was set is not found again, and other kinds for connection and login. Messages
/// name the host.
pub fn open(target: &ServerTarget, settings: &SessionSettings) -> Result<Box<dyn Session>, DbError> {
    let remote = Remote::new(target, settings);
    let (connection, encrypted) = Connection::connect(log_in(target, &remote), &remote)?;
    let mut session = Postgres {
        connection: Ok(connection),
        server: ServerInfo { encrypted, ..ServerInfo::new(Engine::Postgresql, target.describe()) },
        lock_timeout: lock_timeout(settings.lock_timeout),
        statement_timeout: millis(settings.statement_timeout),
        open: None,
        failed: false,
        sees_timeline: false,
        timeline: None,
        process: None,
        pending: None,
        kept: None,
    };
    session.identify().map_err(DbError::into_fatal)?;
    Ok(Box::new(session))
}

/// Milliseconds, at most the server's maximum.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(2_147_483_647)
}

/// Milliseconds to wait for a lock. Zero would be no limit.
fn lock_timeout(limit: Duration) -> u64 {
    millis(limit).max(1)
}

/// Connects and logs in. Returns the driver's client and future, and whether the connection uses TLS.
async fn log_in(target: &ServerTarget, remote: &Remote) -> Result<(Client, ConnectionFuture, bool), DbError> {
    let mut config = Config::new();
    config
        .dbname(&target.database)
        .application_name("cinder-backup-repair")
        .tcp_user_timeout(Duration::from_secs(30))
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3);
    if let Some(user) = &target.user {
        config.user(user);
    }
    if let Some(password) = &target.password {
        config.password(password.expose_secret());
    }
    if let Some(options) = &target.options {
        config.options(options);
    }
    // PostgreSQL has no TLS on a socket.
    let mode = if let Host::Socket(_) = target.host { TlsMode::Disable } else { target.tls.mode };
    let tls = if mode == TlsMode::Disable { None } else { Some(tls::client_config(&target.tls)?) };
    config.port(target.port);
    match &target.host {
        Host::Tcp(name) => {
            let addresses = tokio::net::lookup_host((name.as_str(), target.port)).await.map_err(|error| remote.unknown_address(&error))?;
            // The driver tries one address after the other, each with this limit.
            let count = u32::try_from(addresses.count().max(1)).unwrap_or(1);
            config.host(name).connect_timeout(remote.connect_timeout / count)
        }
        Host::Socket(path) => config.host_path(path),
    };
    let outcome = match tls {
        None => plain(&mut config).await,
        Some(tls) => match config.ssl_mode(SslMode::Require).connect(MakeRustlsConnect::new(tls)).await {
            Err(error) if mode == TlsMode::Prefer && offers_no_tls(&error) => plain(&mut config).await,
            outcome => outcome.map(|(client, driver)| (client, Box::pin(driver) as ConnectionFuture, true)),
        },
    };
    outcome.map_err(|error| describe(&error, &format!("cannot log in to {}", remote.name), remote).into_fatal())
}

async fn plain(config: &mut Config) -> Result<(Client, ConnectionFuture, bool), tokio_postgres::Error> {
    let (client, driver) = config.ssl_mode(SslMode::Disable).connect(NoTls).await?;
    Ok((client, Box::pin(driver), false))
}

impl Postgres {
    /// Identifies the server, in a transaction that sets and checks the state like any other.
    fn identify(&mut self) -> Result<(), DbError> {
        self.begin(Access::ReadOnly)?;
        let row = self.read(SERVER)?.into_iter().next().unwrap_or_default();
        let text = |index: usize| row.get(index).and_then(Value::as_text).unwrap_or_default().to_owned();
        let is_true = |index: usize| row.get(index).and_then(Value::as_integer) == Some(1);
        let cluster = if is_true(5) {
            let rows = self.read(SYSTEM_IDENTIFIER)?;
            rows.first().and_then(|row| row.first()).and_then(Value::as_text).unwrap_or_default().to_owned()
        } else {
            format!("database-{}", text(6))
        };
        self.server.version = text(0);
        self.server.user = Some(text(1));
        // A database may hold two copies of Cinder's tables, which only the search path distinguishes.
        let schema = text(7);
        let schema = if schema.is_empty() || schema == "public" { String::new() } else { format!("/{schema}") };
        self.server.identity = format!("postgresql:{cluster}/{}{schema}", text(2));
        self.server.read_only = is_true(3) || text(4) == "on";
        self.sees_timeline = is_true(8);
        self.rollback()?;
        let process = row.get(9).and_then(Value::as_integer);
        let is_direct = self.connection()?.prepare_if_direct(process)?;
        self.process = process.filter(|_| is_direct);
        Ok(())
    }

    /// All rows of a statement without parameters.
    fn read(&mut self, statement: EngineStatement) -> Result<Vec<Vec<Value>>, DbError> {
        self.run(BoundStatement::new(StatementKind::Query, statement, &[])).map(StepResult::into_rows)
    }

    fn control(&mut self, statement: EngineStatement) -> Result<(), DbError> {
        self.run(BoundStatement::new(StatementKind::Control, statement, &[])).map(drop)
    }

    fn run(&mut self, statement: BoundStatement) -> Result<StepResult, DbError> {
        let (results, outcome) = self.run_all(&[statement]);
        outcome.map(|()| results.into_iter().next().unwrap_or(StepResult::Matched(0)))
    }

    /// Runs several statements at once. Returns the results before the first failure, and that failure, which it records.
    fn run_all(&mut self, statements: &[BoundStatement]) -> (Vec<StepResult>, Result<(), DbError>) {
        let mut results = Vec::with_capacity(statements.len());
        let outcome = self.connection().and_then(|connection| connection.pipeline(statements)).and_then(|answers| {
            for answer in answers {
                results.push(answer?);
            }
            Ok(())
        });
        (results, outcome.map_err(|error| self.record(error)))
    }

    /// Marks the transaction as failed, and closes a connection that must not be used any more.
    fn record(&mut self, mut error: DbError) -> DbError {
        self.failed = true;
        if error.code.as_deref() == Some("25006") && self.open != Some(Access::ReadOnly) {
            error.kind = DbErrorKind::NotPrimary;
        }
        if error.is_fatal() {
            self.close(&error);
        }
        error
    }

    fn connection(&mut self) -> Result<&mut Connection, DbError> {
        self.connection.as_mut().map_err(|closed| closed.clone())
    }

    fn close(&mut self, why: &DbError) {
        self.open = None;
        self.connection = Err(why.clone().into_fatal());
    }

    fn check_not_failed(&self) -> Result<(), DbError> {
        if self.open.is_some() && self.failed { Err(DbError::failed_transaction()) } else { Ok(()) }
    }

    /// Does `work` in the open transaction, or in one of its own.
    fn in_transaction<T>(&mut self, access: Access, work: impl FnOnce(&mut Self) -> Result<T, DbError>) -> Result<T, DbError> {
        self.check_not_failed()?;
        if self.open.is_some() {
            return work(self);
        }
        self.begin(access)?;
        match work(self) {
            Ok(value) => match self.commit() {
                CommitOutcome::Committed => Ok(value),
                CommitOutcome::NotCommitted(error) | CommitOutcome::Unknown(error) => Err(error),
            },
            Err(error) => {
                let _ = self.rollback();
                Err(error)
            }
        }
    }

    /// Compares the state that session_check read with the required one.
    fn check_state(&self, access: Access, row: &[Value]) -> Result<(), DbError> {
        let number = |value: u64| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
        let (isolation, read_only) = match access {
            Access::ReadOnly => ("repeatable read", "on"),
            Access::Write => ("read committed", "off"),
        };
        let expected = [
            ("TimeZone", Value::from("UTC")),
            ("standard_conforming_strings", Value::from("on")),
            ("row_security", Value::from("off")),
            ("lock_timeout", number(self.lock_timeout)),
            ("statement_timeout", number(self.statement_timeout)),
            ("client_encoding", Value::from("UTF8")),
            ("transaction_isolation", Value::from(isolation)),
            ("transaction_read_only", Value::from(read_only)),
        ];
        for (index, (name, expected)) in expected.iter().enumerate() {
            compare(name, expected, row.get(index).unwrap_or(&Value::Null))?;
        }
        Ok(())
    }
}

fn bound(step: &PipelineStep) -> BoundStatement {
    let (kind, statement, params) = match step {
        PipelineStep::Query(statement, params) => (StatementKind::Query, statement, params),
        PipelineStep::Execute(statement, params) => (StatementKind::Execute, statement, params),
    };
    BoundStatement::new(kind, statement.of(Engine::Postgresql), params)
}

fn compare(name: &str, expected: &Value, found: &Value) -> Result<(), DbError> {
    if expected == found {
        return Ok(());
    }
    let shown = |value: &Value| match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) if name.ends_with("timeout") => format!("{number} ms"),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) | Value::Unsupported(text) => format!("{text:?}"),
    };
    let (expected, found) = (shown(expected), shown(found));
    let message = format!(
        "the transaction's {name} was set to {expected} but is {found}; a pooler (PgBouncer in statement mode, Pgpool) does not keep \
         transactions apart, so connect to the server itself"
    );
    Err(DbError::new(DbErrorKind::SessionState, message))
}

impl Session for Postgres {
    fn server(&self) -> &ServerInfo {
        &self.server
    }

    fn query(&mut self, statement: &Statement, params: &[Param], row: RowSink<'_>) -> Result<(), DbError> {
        let query = BoundStatement::new(StatementKind::Query, statement.of(Engine::Postgresql), params);
        self.in_transaction(Access::ReadOnly, |session| {
            let take = |mut batch: Vec<Vec<Value>>| batch.iter_mut().all(|cells| row(cells) == ControlFlow::Continue(()));
            session.connection()?.query(&query, take).map_err(|error| session.record(error))
        })
    }

    fn execute(&mut self, statement: &Statement, params: &[Param]) -> Result<u64, DbError> {
        let update = BoundStatement::new(StatementKind::Execute, statement.of(Engine::Postgresql), params);
        self.in_transaction(Access::Write, |session| session.run(update).map(StepResult::matched))
    }

    fn pipeline(&mut self, steps: &[PipelineStep]) -> Result<Vec<StepResult>, DbError> {
        let bound: Vec<_> = steps.iter().map(bound).collect();
        self.in_transaction(Access::ReadOnly, |session| {
            let (results, outcome) = session.run_all(&bound);
            outcome.map(|()| results)
        })
    }

    fn begin(&mut self, access: Access) -> Result<(), DbError> {
        self.begin_with(access, &[]).map(drop)
    }

    fn begin_with(&mut self, access: Access, reads: &[PipelineStep]) -> Result<Vec<StepResult>, DbError> {
        self.connection()?;
        if self.open.is_some() {
            return Err(DbError::new(DbErrorKind::Other, "a transaction is already open"));
        }
        let begin = match access {
            Access::ReadOnly => BEGIN_READ,
            Access::Write => BEGIN_WRITE,
        };
        let settings = (access, self.lock_timeout);
        let is_kept = self.kept == Some(settings);
        let query = |sql: EngineStatement, params: &[Param]| BoundStatement::new(StatementKind::Query, sql, params);
        let mut statements = vec![BoundStatement::new(StatementKind::Control, begin, &[])];
        if is_kept {
            statements.push(query(PROCESS, &[]));
        } else {
            let values = [self.lock_timeout.to_string(), self.statement_timeout.to_string(), self.process.is_none().to_string()];
            // If BEGIN fails, each of the others is a transaction of its own, and on a direct connection the settings stay.
            statements.extend([query(SET, &values.map(Param::from)), query(CHECK, &[])]);
            // A pooler may have switched to another server.
            if access == Access::Write && self.sees_timeline {
                statements.push(query(TIMELINE, &[]));
            }
        }
        let own = statements.len();
        statements.extend(reads.iter().map(bound));
        let (mut results, outcome) = self.run_all(&statements);
        if let (true, Err(error)) = (results.is_empty(), &outcome) {
            self.kept = None;
            // A standby refuses even the BEGIN.
            let recovery = access == Access::Write && error.code.as_deref() == Some("0A000");
            let kind = if recovery { DbErrorKind::NotPrimary } else { error.kind };
            return Err(DbError { kind, ..error.clone() });
        }
        self.open = self.connection.is_ok().then_some(access);
        let checked = outcome.and_then(|()| {
            let found = results.split_off(own.min(results.len()));
            let mut rows = results.into_iter().skip(1).map(|result| result.into_rows().into_iter().next().unwrap_or_default());
            if is_kept {
                let process = self.process.map_or(Value::Null, Value::Integer);
                compare("server process", &process, rows.next().unwrap_or_default().first().unwrap_or(&Value::Null))?;
                return Ok(found);
            }
            self.check_state(access, &rows.nth(1).unwrap_or_default())?;
            if access == Access::Write {
                self.timeline = rows.next().and_then(|row| row.first()?.as_text().map(str::to_owned));
            }
            self.pending = self.process.map(|_| settings);
            Ok(found)
        });
        let found = checked.map_err(|error| rolled_back(self, error))?;
        self.failed = false;
        Ok(found)
    }

    fn commit(&mut self) -> CommitOutcome {
        if let Err(closed) = &self.connection {
            // The server rolls back the transaction of a lost connection, and COMMIT was never sent.
            return CommitOutcome::NotCommitted(closed.clone());
        }
        if self.open.is_none() {
            return CommitOutcome::NotCommitted(DbError::new(DbErrorKind::Other, "no transaction is open"));
        }
        if self.failed {
            return refused_commit(self.rollback());
        }
        match self.control(COMMIT) {
            Err(error) if error.is_fatal() => CommitOutcome::Unknown(error),
            outcome => {
                // After an error that leaves the connection usable, the server has certainly rolled back.
                self.open = None;
                self.failed = false;
                self.kept = self.pending.take().filter(|_| outcome.is_ok()).or(self.kept);
                outcome.map_or_else(CommitOutcome::NotCommitted, |()| CommitOutcome::Committed)
            }
        }
    }

    fn rollback(&mut self) -> Result<(), DbError> {
        self.connection()?;
        self.pending = None;
        if self.open.take().is_none() {
            return Ok(());
        }
        let outcome = self.control(ROLLBACK).map_err(|error| {
            self.close(&error);
            error.into_fatal()
        });
        self.failed = false;
        outcome
    }

    fn set_lock_timeout(&mut self, limit: Duration) -> Result<(), DbError> {
        // Each transaction sets it.
        self.lock_timeout = lock_timeout(limit);
        Ok(())
    }

    fn lock_holders(&mut self) -> Vec<String> {
        let rows = self.in_transaction(Access::ReadOnly, |session| session.read(LOCK_HOLDERS)).unwrap_or_default();
        rows.iter().filter_map(|row| super::lock_holder(row)).collect()
    }

    fn node(&self) -> Option<&str> {
        self.timeline.as_deref()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_unexpected_session_state_is_reported() {
        assert!(compare("TimeZone", &Value::from("UTC"), &Value::from("UTC")).is_ok());
        let error = compare("lock_timeout", &Value::Integer(10), &Value::Integer(0)).unwrap_err();
        assert_eq!(error.kind, DbErrorKind::SessionState);
        assert!(error.message.contains("lock_timeout was set to 10 ms but is 0 ms"), "{error}");
    }

    #[test]
    fn durations_are_limited_to_the_servers_maximum() {
        assert_eq!(millis(Duration::from_millis(1500)), 1500);
        assert_eq!(millis(Duration::MAX), 2_147_483_647);
    }
}
