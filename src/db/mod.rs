//! The Cinder database: one session trait, three engines.
//!
//! A [`Session`] runs the statements of `sql/` and nothing else. It knows no table of Cinder's; what the rows mean is
//! said in [`crate::scan`]. May use `domain`, `input` and `config`, never `plan`, `apply`, `audit`, `report` or `cli`.

mod error;
pub mod literal;
pub mod mysql;
mod open;
pub mod postgres;
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

/// How many ids a statement with a list of ids takes at most; MySQL's statements have exactly so many placeholders,
/// and a shorter list is padded with its last id.
pub const ID_BATCH: usize = 200;

/// The server behind a session, as it calls itself.
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
    /// A list of ids for one place in the statement: at least one and at most [`ID_BATCH`].
    Ids(Vec<String>),
}

impl<T: Into<Value>> From<T> for Param {
    fn from(value: T) -> Self {
        Self::One(value.into())
    }
}

/// One of several statements that go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A SELECT that gives few rows.
    Query(&'static Statement, Vec<Param>),
    /// An UPDATE.
    Execute(&'static Statement, Vec<Param>),
}

/// What came of a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All rows of the SELECT.
    Rows(Vec<Vec<Value>>),
    /// How many rows the UPDATE matched.
    Matched(u64),
}

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// One consistent snapshot that the database itself holds read-only.
    ReadOnly,
    /// Read and write; on SQLite the write lock is taken at once (`BEGIN IMMEDIATE`).
    Write,
}

/// How a COMMIT ended. There is no third answer to guess: what is not known is said to be unknown.
#[derive(Debug)]
pub enum CommitOutcome {
    /// The server said that the transaction is committed.
    Committed,
    /// The server said that it is not, or it was certainly not; nothing was written.
    NotCommitted(DbError),
    /// The answer was lost. Only reading again can tell.
    Unknown(DbError),
}

/// What is known about the server once a session is set up.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// Which server it is.
    pub engine: Engine,
    /// Its version as it states it.
    pub version: String,
    /// Which database this is, so that a plan is not applied to another: see each engine for how it is made.
    pub identity: String,
    /// Where it was reached, as a URL without a password: for people, to whom an identity means nothing.
    pub location: String,
    /// The user of this session as the server sees it; `None` on SQLite.
    pub user: Option<String>,
    /// A Galera node (`wsrep_on`), whose reads wait for the cluster.
    pub galera: bool,
    /// Other servers with this identity take writes too, and their changes may arrive here after they were committed there: Galera,
    /// group replication.
    pub multi_primary: bool,
    /// Whether the server refuses writes as it stands (a replica, `read_only`, a standby, a read-only file).
    pub read_only: bool,
}

/// The limits that every session is put under.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// For making the connection.
    pub connect_timeout: Duration,
    /// For each statement.
    pub statement_timeout: Duration,
    /// For waiting on another transaction's lock.
    pub lock_timeout: Duration,
    /// Make reads on a Galera node wait until the node has applied what the cluster committed (`wsrep_sync_wait`).
    pub settle_reads: bool,
    /// Allow a password to cross the network without TLS in a form that a listener can use.
    pub insecure_auth: bool,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(300),
            lock_timeout: Duration::from_secs(10),
            settle_reads: true,
            insecure_auth: false,
        }
    }
}

/// Receives the rows of a query one at a time, and may take the cells for itself; `Break` ends the query early.
pub type RowSink<'a> = &'a mut dyn FnMut(&mut [Value]) -> ControlFlow<()>;

/// One connection in a known and checked state.
///
/// After an error that [`DbError::is_fatal`] reports, the session is of no further use: every call returns that error.
/// A new one has to be opened.
pub trait Session: Send {
    /// What is known about the server.
    fn server(&self) -> &ServerInfo;

    /// Runs a SELECT and hands over each row as it arrives; memory does not grow with the number of rows.
    fn query(&mut self, statement: &Statement, params: &[Param], row: RowSink<'_>) -> Result<(), DbError>;

    /// Runs an UPDATE; gives the number of rows *matched*, whether or not their values changed.
    fn execute(&mut self, statement: &Statement, params: &[Param]) -> Result<u64, DbError>;

    /// Runs statements of the open transaction in this order and gives their answers in the same order; after an error
    /// none of those behind it has any effect that a COMMIT could keep.
    ///
    /// They are run whatever the earlier answers say, so a caller looks at all of them before it commits. Where the engine
    /// allows, they share one trip to the server.
    fn pipeline(&mut self, steps: &[Step]) -> Result<Vec<Answer>, DbError> {
        one_by_one(self, steps)
    }

    /// Begins a transaction.
    fn begin(&mut self, access: Access) -> Result<(), DbError>;

    /// Commits. A transaction that failed before is rolled back and reported as not committed.
    fn commit(&mut self) -> CommitOutcome;

    /// Rolls back. On an error the connection is closed, which rolls back too.
    fn rollback(&mut self) -> Result<(), DbError>;

    /// Sets how long to wait for another transaction's lock. Zero is the engine's shortest wait: none on PostgreSQL, one
    /// second on MySQL and MariaDB.
    fn set_lock_timeout(&mut self, limit: Duration) -> Result<(), DbError>;

    /// Who holds the locks that other sessions of this program wait for at the moment, a sentence each; hostile text. Empty if none
    /// waits, or if this account may not see it. On SQLite: who holds the lock on the file.
    fn lock_holders(&mut self) -> Vec<String>;

    /// Whether TLS protects the connection; a socket and a file need none.
    fn is_encrypted(&self) -> bool {
        false
    }

    /// Which of the servers that share an identity ran the last transaction that may write. Equal answers come from the same server, or
    /// from one that restarted with its data. On PostgreSQL it is the timeline, which changes when a standby takes over. `None` if it is
    /// not known, and on SQLite.
    ///
    /// An open transaction keeps the rows that it wrote locked on its server. So a session that gets these locks on the same server knows
    /// that the transaction is over, whatever happened to its connection; on another server the locks prove nothing.
    fn node(&self) -> Option<&str> {
        None
    }

    /// Collects all rows of a query that is known to return few.
    fn rows(&mut self, statement: &Statement, params: &[Param]) -> Result<Vec<Vec<Value>>, DbError> {
        let mut rows = Vec::new();
        self.query(statement, params, &mut |row| {
            rows.push(row.iter_mut().map(std::mem::take).collect());
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }
}

/// A holder of a lock, from a row: session, user, application, client, and the start of the transaction.
fn lock_holder(row: &[Value]) -> Option<String> {
    let text = |place: usize| row.get(place).and_then(Value::as_text).filter(|text| !text.is_empty());
    let known = [("user", 1), ("application", 2), ("client", 3)];
    let known: Vec<String> = known.iter().filter_map(|(name, place)| text(*place).map(|text| format!("{name} {text}"))).collect();
    let who = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
    let since = text(4).map(|since| format!(", in a transaction that began at {since}")).unwrap_or_default();
    text(0).map(|session| format!("{session}{who} holds the lock{since}"))
}

/// A text as the engine sent it; one that is not UTF-8 can only be shown.
fn text(bytes: Vec<u8>) -> Value {
    String::from_utf8(bytes).map_or_else(|error| Value::Foreign(String::from_utf8_lossy(error.as_bytes()).into_owned()), Value::Text)
}

/// Runs steps one after the other.
fn one_by_one<S: Session + ?Sized>(session: &mut S, steps: &[Step]) -> Result<Vec<Answer>, DbError> {
    let run = |step: &Step| match step {
        Step::Query(statement, params) => session.rows(statement, params).map(Answer::Rows),
        Step::Execute(statement, params) => session.execute(statement, params).map(Answer::Matched),
    };
    steps.iter().map(run).collect()
}
