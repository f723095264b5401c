//! Sessions on PostgreSQL, directly or through a pooler such as PgBouncer.
//!
//! Every statement runs inside a transaction, one of its own where the caller began none, and the known state is set for
//! that transaction alone: behind a pooler in transaction mode a session's settings would otherwise go to whoever gets
//! the server's connection next. The search path stays as the account, the database or the URL's options have it.
//!
//! Identity: `postgresql:<system identifier>/<database>`; where an administrator has taken `pg_control_system()` away from
//! accounts, `postgresql:database-<oid>/<database>`.
//!
//! May use `config`, `domain` and this module's neighbours in `db`.

mod connection;
mod errors;
mod values;

use std::ops::ControlFlow;
use std::time::Duration;

use rustls::ClientConfig;
use secrecy::ExposeSecret;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::connection::{Connected, Job, Kind, Link, Reply};
use self::errors::{Failure, Place, describe, offers_no_tls};
use self::values::Owned;
use super::{
    Access, Answer, CommitOutcome, DbError, DbErrorKind, Engine, Param, RowSink, ServerInfo, Session, SessionSettings, Statement, Step, tls,
};
use crate::config::{Host, ServerTarget, TlsMode};
use crate::domain::Value;

macro_rules! own {
    ($($constant:ident = $name:literal;)*) => {
        $(const $constant: Own = Own { name: $name, text: include_str!(concat!("../../../sql/postgres/", $name, ".sql")) };)*
        /// Statements that only PostgreSQL has, by name.
        pub const OWN: &[(&str, &str)] = &[$(($constant.name, $constant.text)),*];
    };
}

/// A statement of the session itself, with its file's name.
struct Own {
    name: &'static str,
    text: &'static str,
}

impl Own {
    fn job(&self, params: Vec<Owned>, kind: Kind) -> Job {
        Job { name: self.name, text: self.text, params, kind }
    }
}

fn job(statement: &Statement, params: &[Param], kind: Kind) -> Job {
    Job { name: statement.name, text: statement.text(Engine::Postgresql), params: values::bind(params), kind }
}

own! {
    SET = "session_set";
    CHECK = "session_check";
    SERVER = "session_server";
    SYSTEM_IDENTIFIER = "session_system_identifier";
    TIMELINE = "session_timeline";
    LOCK_HOLDERS = "session_holders";
    BEGIN_READ = "session_begin_read";
    BEGIN_WRITE = "session_begin_write";
    COMMIT = "session_commit";
    ROLLBACK = "session_rollback";
}

/// How much longer than the server itself the program waits for a statement's answer.
const GRACE: Duration = Duration::from_secs(5);

struct Postgres {
    /// Gone once it must not be used any more.
    link: Option<Link>,
    /// Why it is gone.
    dead: Option<DbError>,
    server: ServerInfo,
    encrypted: bool,
    lock_timeout: u64,
    statement_timeout: u64,
    /// The open transaction.
    open: Option<Access>,
    /// A statement of it failed. The server answers COMMIT with success then, having rolled back.
    failed: bool,
    /// This account may ask for the server's timeline.
    sees_timeline: bool,
    /// The timeline of the last transaction that may write.
    timeline: Option<String>,
}

/// Opens a session on PostgreSQL and puts it into the known state.
///
/// Errors name the host; the kinds are those of [`DbErrorKind`], [`DbErrorKind::SessionState`] when the state that was set
/// is not the one that is found.
pub fn open(target: &ServerTarget, settings: &SessionSettings) -> Result<Box<dyn Session>, DbError> {
    let name = match &target.host {
        Host::Tcp { name, port } if name.contains(':') => format!("[{name}]:{port}"),
        Host::Tcp { name, port } => format!("{name}:{port}"),
        Host::Socket { path } => format!("socket in {} for port {}", path.display(), target.port),
    };
    let place = Place { name, tls: target.tls.clone() };
    let longest = settings.statement_timeout.max(settings.lock_timeout);
    let patience = (!settings.statement_timeout.is_zero()).then(|| longest + GRACE);
    let limit = target.connect_timeout.unwrap_or(settings.connect_timeout).max(Duration::from_millis(1));
    let attempt = Attempt::new(target, limit, &place)?;
    let (link, encrypted) = Link::connect(attempt.run(), limit, patience, &place)?;
    let server = ServerInfo {
        engine: Engine::Postgresql,
        version: String::new(),
        identity: String::new(),
        location: target.describe(),
        user: None,
        galera: false,
        multi_primary: false,
        read_only: false,
    };
    let mut session = Postgres {
        link: Some(link),
        dead: None,
        server,
        encrypted,
        lock_timeout: lock_timeout(settings.lock_timeout),
        statement_timeout: millis(settings.statement_timeout),
        open: None,
        failed: false,
        sees_timeline: false,
        timeline: None,
    };
    // Whatever is wrong with a session that has just been made, there is none.
    session.identify().map_err(|error| DbError { fatal: true, ..error })?;
    Ok(Box::new(session))
}

/// Milliseconds, no more than the server can count.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(2_147_483_647)
}

/// Milliseconds to wait for a lock; zero would be no limit at all.
fn lock_timeout(limit: Duration) -> u64 {
    millis(limit).max(1)
}

/// Making a connection: addresses and TLS.
struct Attempt {
    config: Config,
    tls: Option<ClientConfig>,
    mode: TlsMode,
    host: Host,
    limit: Duration,
    place: Place,
}

impl Attempt {
    fn new(target: &ServerTarget, limit: Duration, place: &Place) -> Result<Self, DbError> {
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
        // There is no TLS on a socket, and none is needed.
        let mut mode = target.tls.mode;
        match &target.host {
            Host::Tcp { name, port } => config.host(name.trim_start_matches('[').trim_end_matches(']')).port(*port),
            Host::Socket { path } => {
                mode = TlsMode::Disable;
                config.host_path(path).port(target.port)
            }
        };
        let tls = if mode == TlsMode::Disable { None } else { Some(tls::client_config(&target.tls)?) };
        Ok(Self { config, tls, mode, host: target.host.clone(), limit, place: place.clone() })
    }

    /// Connects and logs in.
    async fn run(mut self) -> Result<Connected, DbError> {
        if let Host::Tcp { name, port } = &self.host {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            let addresses = tokio::net::lookup_host((bare, *port)).await.map_err(|error| {
                DbError::fatal(
                    DbErrorKind::Connection,
                    format!("cannot find the address of {}: {error}; check the host's name", self.place.name),
                )
            })?;
            // The driver tries one after the other, each with this limit.
            let count = u32::try_from(addresses.count().max(1)).unwrap_or(1);
            self.config.connect_timeout(self.limit / count);
        }
        let outcome = match self.tls.take() {
            None => self.plain().await,
            Some(tls) => match self.config.ssl_mode(SslMode::Require).connect(MakeRustlsConnect::new(tls)).await {
                Err(error) if self.mode == TlsMode::Prefer && offers_no_tls(&error) => self.plain().await,
                outcome => outcome.map(|(client, driver)| Connected { client, driver: Box::pin(driver), encrypted: true }),
            },
        };
        outcome.map_err(|error| {
            let error = describe(&error, &format!("cannot log in to {}", self.place.name), &self.place).error;
            DbError { fatal: true, ..error }
        })
    }

    async fn plain(&mut self) -> Result<Connected, tokio_postgres::Error> {
        let (client, driver) = self.config.ssl_mode(SslMode::Disable).connect(NoTls).await?;
        Ok(Connected { client, driver: Box::pin(driver), encrypted: false })
    }
}

impl Postgres {
    /// Learns what the server is. The transaction that this takes sets and checks the state as any other does.
    fn identify(&mut self) -> Result<(), DbError> {
        self.begin(Access::ReadOnly)?;
        let row = self.own(&SERVER, Vec::new())?.into_iter().next().unwrap_or_default();
        let text = |index: usize| row.get(index).and_then(Value::as_text).unwrap_or_default().to_owned();
        let is_true = |index: usize| row.get(index).and_then(Value::as_integer) == Some(1);
        let origin = if is_true(5) {
            let rows = self.own(&SYSTEM_IDENTIFIER, Vec::new())?;
            rows.first().and_then(|row| row.first()).and_then(Value::as_text).unwrap_or_default().to_owned()
        } else {
            format!("database-{}", text(6))
        };
        self.server.version = text(0);
        self.server.user = Some(text(1));
        // Two copies of Cinder's tables may live side by side in one database, told apart by search_path alone.
        let schema = text(7);
        let schema = if schema.is_empty() || schema == "public" { String::new() } else { format!("/{schema}") };
        self.server.identity = format!("postgresql:{origin}/{}{schema}", text(2));
        self.server.read_only = is_true(3) || text(4) == "on";
        self.sees_timeline = is_true(8);
        self.rollback()
    }

    fn own(&mut self, statement: &Own, params: Vec<Owned>) -> Result<Vec<Vec<Value>>, DbError> {
        let mut rows = Vec::new();
        self.send(&statement.job(params, Kind::Query), |batch| {
            rows.extend(batch);
            true
        })
        .map_err(|failure| failure.error)?;
        Ok(rows)
    }

    fn control(&mut self, statement: &Own) -> Result<(), DbError> {
        self.send(&statement.job(Vec::new(), Kind::Control), |_| true).map(drop).map_err(|failure| failure.error)
    }

    /// Uses the connection, if it may be used.
    fn send(&mut self, job: &Job, rows: impl FnMut(Vec<Vec<Value>>) -> bool) -> Result<u64, Failure> {
        let outcome = match self.usable() {
            Ok(link) => link.run(job, rows),
            Err(error) => return Err(Failure { error, refused: false }),
        };
        outcome.map_err(|failure| self.note(failure))
    }

    /// The same for several statements in one go: the answers, up to the first failure and what that was.
    fn send_together(&mut self, jobs: &[Job]) -> Result<(Vec<Reply>, Option<DbError>), DbError> {
        let outcome = self.usable()?.run_together(jobs);
        let replies = outcome.map_err(|failure| self.note(failure).error)?;
        let mut answered = Vec::with_capacity(replies.len());
        for reply in replies {
            match reply {
                Ok(reply) => answered.push(reply),
                Err(failure) => return Ok((answered, Some(self.note(failure).error))),
            }
        }
        Ok((answered, None))
    }

    /// Notes what a failure means for the connection.
    fn note(&mut self, mut failure: Failure) -> Failure {
        self.failed = true;
        if failure.error.code.as_deref() == Some("25006") && self.open != Some(Access::ReadOnly) {
            failure.error.kind = DbErrorKind::NotPrimary;
        }
        if failure.error.is_fatal() {
            self.close(&failure.error);
        }
        failure
    }

    fn usable(&mut self) -> Result<&mut Link, DbError> {
        match (&mut self.link, &self.dead) {
            (Some(link), None) => Ok(link),
            (_, Some(dead)) => Err(dead.clone()),
            (None, None) => Err(DbError::fatal(DbErrorKind::Connection, "the connection is closed")),
        }
    }

    fn close(&mut self, why: &DbError) {
        self.open = None;
        self.dead = Some(DbError { fatal: true, ..why.clone() });
        self.link = None;
    }

    /// Refuses to go on in a transaction that has failed.
    fn may_go_on(&self) -> Result<(), DbError> {
        if self.open.is_some() && self.failed {
            return Err(DbError::new(DbErrorKind::Other, "a statement of the transaction had failed, so it has to be rolled back first"));
        }
        Ok(())
    }

    /// Runs something in the open transaction, or in one of its own.
    fn within<T>(&mut self, access: Access, work: impl FnOnce(&mut Self) -> Result<T, DbError>) -> Result<T, DbError> {
        self.may_go_on()?;
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

    /// Compares the state that session_check found with what was asked for.
    fn check_state(&self, access: Access, row: &[Value]) -> Result<(), DbError> {
        let number = |value: u64| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
        let (isolation, read_only) = match access {
            Access::ReadOnly => ("repeatable read", "on"),
            Access::Write => ("read committed", "off"),
        };
        let wanted = [
            ("TimeZone", Value::from("UTC")),
            ("standard_conforming_strings", Value::from("on")),
            ("row_security", Value::from("off")),
            ("lock_timeout", number(self.lock_timeout)),
            ("statement_timeout", number(self.statement_timeout)),
            ("client_encoding", Value::from("UTF8")),
            ("transaction_isolation", Value::from(isolation)),
            ("transaction_read_only", Value::from(read_only)),
        ];
        for (index, (name, wanted)) in wanted.iter().enumerate() {
            compare(name, wanted, row.get(index).unwrap_or(&Value::Null))?;
        }
        Ok(())
    }
}

fn compare(name: &str, wanted: &Value, found: &Value) -> Result<(), DbError> {
    if wanted == found {
        return Ok(());
    }
    let shown = |value: &Value| match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => format!("{number} ms"),
        Value::Text(text) | Value::Foreign(text) => format!("{text:?}"),
    };
    Err(DbError::new(
        DbErrorKind::SessionState,
        format!(
            "the transaction's {name} was set to {} but is {}; something between here and the server (PgBouncer in statement mode, Pgpool) does \
             not keep transactions apart, so connect to the server itself",
            shown(wanted),
            shown(found)
        ),
    ))
}

impl Session for Postgres {
    fn server(&self) -> &ServerInfo {
        &self.server
    }

    fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    fn query(&mut self, statement: &Statement, params: &[Param], row: RowSink<'_>) -> Result<(), DbError> {
        let job = job(statement, params, Kind::Query);
        self.within(Access::ReadOnly, |session| {
            let take = |mut batch: Vec<Vec<Value>>| batch.iter_mut().all(|cells| row(cells) == ControlFlow::Continue(()));
            session.send(&job, take).map(drop).map_err(|failure| failure.error)
        })
    }

    fn execute(&mut self, statement: &Statement, params: &[Param]) -> Result<u64, DbError> {
        let job = job(statement, params, Kind::Execute);
        self.within(Access::Write, |session| session.send(&job, |_| true).map_err(|failure| failure.error))
    }

    fn pipeline(&mut self, steps: &[Step]) -> Result<Vec<Answer>, DbError> {
        self.may_go_on()?;
        if self.open.is_none() {
            return super::one_by_one(self, steps);
        }
        let jobs: Vec<Job> = steps
            .iter()
            .map(|step| match step {
                Step::Query(statement, params) => job(statement, params, Kind::Query),
                Step::Execute(statement, params) => job(statement, params, Kind::Execute),
            })
            .collect();
        let (replies, failure) = self.send_together(&jobs)?;
        if let Some(error) = failure {
            return Err(error);
        }
        let answer = |(step, reply): (&Step, Reply)| match step {
            Step::Query(..) => Answer::Rows(reply.rows),
            Step::Execute(..) => Answer::Matched(reply.matched),
        };
        Ok(steps.iter().zip(replies).map(answer).collect())
    }

    fn begin(&mut self, access: Access) -> Result<(), DbError> {
        self.usable()?;
        if self.open.is_some() {
            return Err(DbError::new(DbErrorKind::Other, "a transaction is open already"));
        }
        let begin = match access {
            Access::ReadOnly => &BEGIN_READ,
            Access::Write => &BEGIN_WRITE,
        };
        let limits = [Param::from(self.lock_timeout.to_string()), Param::from(self.statement_timeout.to_string())];
        // If BEGIN fails, the others change nothing: their settings last for their own transaction.
        let mut jobs =
            vec![begin.job(Vec::new(), Kind::Control), SET.job(values::bind(&limits), Kind::Query), CHECK.job(Vec::new(), Kind::Query)];
        // In each transaction, because a pooler may have switched to another server.
        if access == Access::Write && self.sees_timeline {
            jobs.push(TIMELINE.job(Vec::new(), Kind::Query));
        }
        let (replies, failure) = self.send_together(&jobs)?;
        if let (true, Some(error)) = (replies.is_empty(), &failure) {
            // A standby refuses the very BEGIN.
            let recovery = access == Access::Write && error.code.as_deref() == Some("0A000");
            let kind = if recovery { DbErrorKind::NotPrimary } else { error.kind };
            return Err(DbError { kind, ..error.clone() });
        }
        self.open = self.dead.is_none().then_some(access);
        let checked = failure.map_or(Ok(()), Err).and_then(|()| {
            let mut rows = replies.into_iter().skip(2).map(|reply| reply.rows.into_iter().next().unwrap_or_default());
            self.check_state(access, &rows.next().unwrap_or_default())?;
            if access == Access::Write {
                self.timeline = rows.next().and_then(|row| row.first()?.as_text().map(str::to_owned));
            }
            Ok(())
        });
        match checked {
            Ok(()) => {
                self.failed = false;
                Ok(())
            }
            Err(error) => {
                let _ = self.rollback();
                Err(error)
            }
        }
    }

    fn commit(&mut self) -> CommitOutcome {
        if let Some(dead) = &self.dead {
            // The server rolls back what a lost connection left open, and COMMIT was never sent.
            return CommitOutcome::NotCommitted(dead.clone());
        }
        if self.open.is_none() {
            return CommitOutcome::NotCommitted(DbError::new(DbErrorKind::Other, "there is no transaction to commit"));
        }
        if self.failed {
            let cause = self.rollback().err().map(|error| format!(" ({error})")).unwrap_or_default();
            let message = format!("a statement of the transaction had failed, so it was rolled back{cause}");
            return CommitOutcome::NotCommitted(DbError { fatal: self.dead.is_some(), ..DbError::new(DbErrorKind::Other, message) });
        }
        match self.send(&COMMIT.job(Vec::new(), Kind::Control), |_| true) {
            Ok(_) => {
                self.open = None;
                CommitOutcome::Committed
            }
            // An error that leaves the connection alive is the server's word that it rolled back.
            Err(Failure { error, refused: true }) => {
                self.open = None;
                self.failed = false;
                CommitOutcome::NotCommitted(error)
            }
            Err(Failure { error, .. }) => {
                self.close(&error);
                CommitOutcome::Unknown(DbError { fatal: true, ..error })
            }
        }
    }

    fn rollback(&mut self) -> Result<(), DbError> {
        self.usable()?;
        if self.open.take().is_none() {
            return Ok(());
        }
        let outcome = self.control(&ROLLBACK).map_err(|error| {
            self.close(&error);
            DbError { fatal: true, ..error }
        });
        self.failed = false;
        outcome
    }

    fn set_lock_timeout(&mut self, limit: Duration) -> Result<(), DbError> {
        // Each transaction is begun with it.
        self.lock_timeout = lock_timeout(limit);
        Ok(())
    }

    fn lock_holders(&mut self) -> Vec<String> {
        let rows = self.within(Access::ReadOnly, |session| session.own(&LOCK_HOLDERS, Vec::new())).unwrap_or_default();
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
    fn a_statement_says_its_own_name_first() {
        for (name, text) in OWN {
            assert!(text.starts_with(&format!("-- {name}: ")), "{name}");
            assert!(text.ends_with(";\n"), "{name}");
        }
    }

    #[test]
    fn a_state_that_is_not_as_wanted_is_named() {
        assert!(compare("TimeZone", &Value::from("UTC"), &Value::from("UTC")).is_ok());
        let error = compare("lock_timeout", &Value::Integer(10), &Value::Integer(0)).unwrap_err();
        assert_eq!(error.kind, DbErrorKind::SessionState);
        assert!(error.message.contains("lock_timeout was set to 10 ms but is 0 ms"), "{error}");
    }

    #[test]
    fn durations_fit_the_server() {
        assert_eq!(millis(Duration::from_millis(1500)), 1500);
        assert_eq!(millis(Duration::MAX), 2_147_483_647);
    }
}
