//! The Cinder database: one session trait, three engines.
//!
//! A [`Session`] runs only the statements of `sql/`. It does not know Cinder's tables; [`crate::scan`] interprets the rows.
//! May use `domain`, `input` and `config`, never `plan`, `apply`, `audit`, `report` or `cli`.

mod error;
pub mod literal;
pub mod mysql;
mod open;
pub mod postgres;
mod remote;
pub mod schema;
pub mod sqlite;
pub mod statements;
mod tls;

use std::ops::ControlFlow;
use std::time::Duration;

pub use error::{DbError, DbErrorKind, task};
pub use open::{open, reopen};
pub use statements::Statement;

use crate::domain::Value;

/// The largest number of ids in one statement. MySQL's statements have this number of placeholders, and a shorter list is padded with
/// its last id.
pub const ID_BATCH: usize = 200;

/// The kind of database behind a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// A SQLite file.
    Sqlite,
    /// Oracle's MySQL, Percona Server.
    Mysql,
    /// MariaDB, alone or in a Galera cluster.
    Mariadb,
    /// PostgreSQL.
    Postgresql,
}

impl Engine {
    /// The name in JSON: `sqlite`, `mysql`, `mariadb` or `postgresql`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
            Self::Postgresql => "postgresql",
        }
    }
}

/// A parameter of a statement, in the order of its placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// One value for one placeholder.
    One(Value),
    /// A list of 1 to [`ID_BATCH`] ids.
    Ids(Vec<String>),
}

impl<T: Into<Value>> From<T> for Param {
    fn from(value: T) -> Self {
        Self::One(value.into())
    }
}

/// A statement of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipelineStep {
    /// A SELECT that returns few rows.
    Query(&'static Statement, Vec<Param>),
    /// An UPDATE.
    Execute(&'static Statement, Vec<Param>),
}

/// The result of a [`PipelineStep`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// All rows of the SELECT.
    Rows(Vec<Vec<Value>>),
    /// The number of rows that the UPDATE matched.
    Matched(u64),
}

impl StepResult {
    fn into_rows(self) -> Vec<Vec<Value>> {
        if let Self::Rows(rows) = self { rows } else { Vec::new() }
    }

    fn matched(self) -> u64 {
        if let Self::Matched(count) = self { count } else { 0 }
    }
}

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read one consistent snapshot; the database refuses writes.
    ReadOnly,
    /// Read and write. SQLite takes the write lock at once (`BEGIN IMMEDIATE`).
    Write,
}

/// How a COMMIT ended.
#[derive(Debug)]
pub enum CommitOutcome {
    /// The server confirmed the commit.
    Committed,
    /// The transaction was certainly not committed; nothing was written.
    NotCommitted(DbError),
    /// The answer was lost. Only reading the rows again can tell.
    Unknown(DbError),
}

/// The server of a session.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// Which server it is.
    pub engine: Engine,
    /// The version that it reports.
    pub version: String,
    /// Identifies the database, so that a plan is not applied to another one. Each engine's module says how it is made.
    pub identity: String,
    /// The address that was used, as a URL without a password, for people.
    pub location: String,
    /// The user of this session as the server sees it; `None` on SQLite.
    pub user: Option<String>,
    /// A Galera node (`wsrep_on`), whose reads wait for the cluster.
    pub galera: bool,
    /// The state of the Galera cluster and of this node in it, for people.
    pub cluster: Option<String>,
    /// Other servers with this identity accept writes too, and their changes may arrive here after the commit: Galera, group
    /// replication.
    pub multi_primary: bool,
    /// The server refuses writes at present: a replica, `read_only`, a standby, a read-only file.
    pub read_only: bool,
    /// The connection uses TLS.
    pub encrypted: bool,
}

impl ServerInfo {
    /// A server that has not reported anything yet.
    fn new(engine: Engine, location: String) -> Self {
        let (version, identity) = (String::new(), String::new());
        Self {
            engine,
            version,
            identity,
            location,
            user: None,
            galera: false,
            cluster: None,
            multi_primary: false,
            read_only: false,
            encrypted: false,
        }
    }
}

/// The limits of every session.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// For connecting and logging in.
    pub connect_timeout: Duration,
    /// For each statement; zero is no limit.
    pub statement_timeout: Duration,
    /// For waiting on another transaction's lock.
    pub lock_timeout: Duration,
    /// Allow sending a password without TLS in a form that a listener can use.
    pub insecure_auth: bool,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(300),
            lock_timeout: Duration::from_secs(10),
            insecure_auth: false,
        }
    }
}

/// Receives the rows of a query one at a time, and may take the cells out; `Break` ends the query early.
pub type RowSink<'a> = &'a mut dyn FnMut(&mut [Value]) -> ControlFlow<()>;

/// One connection in a known and checked state.
///
/// After a fatal error ([`DbError::is_fatal`]) every call returns that error, and a new session has to be opened.
pub trait Session: Send {
    /// The server.
    fn server(&self) -> &ServerInfo;

    /// Runs a SELECT and passes on each row as it arrives; memory does not grow with the number of rows.
    fn query(&mut self, statement: &Statement, params: &[Param], row: RowSink<'_>) -> Result<(), DbError>;

    /// Runs an UPDATE and returns the number of rows that *matched*, whether or not their values changed.
    fn execute(&mut self, statement: &Statement, params: &[Param]) -> Result<u64, DbError>;

    /// Runs statements in order and returns their results in the same order. A pipeline with an UPDATE needs an open transaction. After
    /// an error, no later statement has an effect that a COMMIT could keep.
    ///
    /// A result does not stop the later statements, so a caller checks all results before it commits. PostgreSQL and MariaDB get all
    /// statements in one trip.
    fn pipeline(&mut self, steps: &[PipelineStep]) -> Result<Vec<StepResult>, DbError> {
        one_by_one(self, steps)
    }

    /// Begins a transaction.
    fn begin(&mut self, access: Access) -> Result<(), DbError>;

    /// Begins a transaction and runs SELECTs in it, with as few trips to the server as possible. After an error no transaction is open.
    fn begin_with(&mut self, access: Access, reads: &[PipelineStep]) -> Result<Vec<StepResult>, DbError> {
        self.begin(access)?;
        self.pipeline(reads).map_err(|error| rolled_back(self, error))
    }

    /// Commits. A transaction with a failed statement is rolled back and reported as not committed.
    fn commit(&mut self) -> CommitOutcome;

    /// Rolls back. If this fails the connection is closed, which also rolls back.
    fn rollback(&mut self) -> Result<(), DbError>;

    /// Sets how long to wait for another transaction's lock. Zero is the engine's shortest wait: 1 ms on PostgreSQL and SQLite, 1 s on
    /// MySQL and MariaDB.
    fn set_lock_timeout(&mut self, limit: Duration) -> Result<(), DbError>;

    /// The sessions that hold locks for which other sessions of this program wait now, a sentence each; hostile text. Empty if no session
    /// waits, or if this account may not see it. On SQLite: the processes that lock the file.
    fn lock_holders(&mut self) -> Vec<String>;

    /// Identifies the server that ran the last transaction with [`Access::Write`], among those with the same identity. Equal values mean
    /// the same server, or one that restarted with its data. On PostgreSQL it is the timeline, which changes when a standby takes over.
    /// `None` if unknown, and on SQLite.
    ///
    /// An open transaction keeps its rows locked on its server. A session that gets these locks on the same server knows that the
    /// transaction has ended, whatever happened to its connection; on another server the locks prove nothing.
    fn node(&self) -> Option<&str> {
        None
    }

    /// Collects all rows of a query that returns few.
    fn rows(&mut self, statement: &Statement, params: &[Param]) -> Result<Vec<Vec<Value>>, DbError> {
        collect(|row| self.query(statement, params, row))
    }
}

/// Runs the steps of a pipeline, each in a trip of its own.
fn one_by_one<S: Session + ?Sized>(session: &mut S, steps: &[PipelineStep]) -> Result<Vec<StepResult>, DbError> {
    let run = |step: &PipelineStep| match step {
        PipelineStep::Query(statement, params) => session.rows(statement, params).map(StepResult::Rows),
        PipelineStep::Execute(statement, params) => session.execute(statement, params).map(StepResult::Matched),
    };
    steps.iter().map(run).collect()
}

/// Rolls back after an error. If that fails, too, the session is lost.
fn rolled_back<S: Session + ?Sized>(session: &mut S, error: DbError) -> DbError {
    if error.is_fatal() {
        return error;
    }
    match session.rollback() {
        Ok(()) => error,
        Err(broken) => DbError { fatal: broken.fatal, ..error },
    }
}

/// Collects the rows that `read` passes on.
fn collect(read: impl FnOnce(RowSink<'_>) -> Result<(), DbError>) -> Result<Vec<Vec<Value>>, DbError> {
    let mut rows = Vec::new();
    read(&mut |row| {
        rows.push(row.iter_mut().map(std::mem::take).collect());
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// A sentence about a lock's holder, from a row with session, user, application, client and start of the transaction.
fn lock_holder(row: &[Value]) -> Option<String> {
    let text = |column: usize| row.get(column).and_then(Value::as_text).filter(|text| !text.is_empty());
    let known = [("user", 1), ("application", 2), ("client", 3)];
    let known: Vec<String> = known.iter().filter_map(|(name, column)| text(*column).map(|text| format!("{name} {text}"))).collect();
    let who = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
    let since = text(4).map(|since| format!(", in a transaction that began at {since}")).unwrap_or_default();
    text(0).map(|session| format!("{session}{who} holds the lock{since}"))
}

/// A text from the engine. One that is not UTF-8 can only be shown.
fn text(bytes: Vec<u8>) -> Value {
    String::from_utf8(bytes).map_or_else(|error| Value::Unsupported(String::from_utf8_lossy(error.as_bytes()).into_owned()), Value::Text)
}

/// The answer to a COMMIT after a failed statement, given how its ROLLBACK went.
fn refused_commit(rollback: Result<(), DbError>) -> CommitOutcome {
    let (cause, fatal) = rollback.map_or_else(|error| (format!(" ({error})"), error.fatal), |()| (String::new(), false));
    let message = format!("a statement of the transaction failed, so it was rolled back{cause}");
    CommitOutcome::NotCommitted(DbError { fatal, ..DbError::new(DbErrorKind::Other, message) })
}
