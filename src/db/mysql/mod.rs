//! Sessions on MySQL and MariaDB, alone, replicated or in a Galera cluster.
//!
//! Statements with values are sent in the binary protocol. Those that begin and end a transaction are constants and are sent as text,
//! because MySQL cannot prepare them.
//!
//! Each trip to the server costs about as much as a statement, so on MariaDB a pipeline is one compound statement (see `compound`).
//!
//! Identity: `galera:<cluster>/<schema>`, `mysql-group:<group>/<schema>`, `mysql:<server>/<schema>` or
//! `mariadb:<server>/<schema>`, from variables that every account may read and that do not depend on the address used.
//!
//! May use `config`, `domain` and the other modules of `db`.

mod compound;
mod connect;
mod errors;
mod values;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, Value as Wire};

use self::errors::{NOT_COMMITTED, code, describe};
use super::remote::Remote;
use super::statements::{EngineStatement, session_statements};
use super::{
    Access, CommitOutcome, DbError, DbErrorKind, Engine, Param, PipelineStep, RowSink, ServerInfo, Session, SessionSettings, Statement,
    StepResult, collect, one_by_one, refused_commit, rolled_back, task,
};
use crate::config::ServerTarget;
use crate::domain::Value;
use crate::domain::text::count;

session_statements! { "mysql":
    ROWS = "session_rows";
    NAMES = "session_names";
    STATE_MARIADB = "session_state_mariadb";
    STATE_MYSQL = "session_state_mysql";
    CHECK_MARIADB = "session_check_mariadb";
    CHECK_MYSQL = "session_check_mysql";
    MARK = "session_mark";
    LOCK_HOLDERS_MARIADB = "session_holders_mariadb";
    LOCK_HOLDERS_MYSQL = "session_holders_mysql";
    GALERA_WAIT = "session_galera_wait";
    GALERA_CHECK = "session_galera_check";
    GALERA_STATUS = "session_galera_status";
    SERVER = "session_server";
    USER = "session_user";
    TABLES = "session_tables";
    BEGIN_READ = "session_begin_read";
    BEGIN_WRITE = "session_begin_write";
    COMMIT = "session_commit";
    ROLLBACK = "session_rollback";
    COMPOUND_BEGIN = "session_compound_begin";
    COMPOUND_END = "session_compound_end";
    MATCHED = "session_matched";
}

/// The SQL mode that both state statements set; the server returns it in its own order.
const SQL_MODE: &str =
    "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";

/// The largest value of `sql_select_limit`.
const ALL_ROWS: &str = "18446744073709551615";

/// The value of `wsrep_sync_wait`, with which a Galera node first applies what the cluster committed: 1 for reads and the start of a
/// transaction, plus 2 for UPDATE.
const WAIT_FOR_READS_AND_UPDATES: i64 = 3;

struct Mysql {
    /// An error once it was closed: the reason.
    conn: Result<Conn, DbError>,
    server: ServerInfo,
    remote: Remote,
    /// Seconds to wait for a row lock or a table's metadata lock.
    lock_timeout: u64,
    statement_timeout: Duration,
    /// The id of the Galera node that the session was opened on.
    member: String,
    /// The server that answered the last check of the state.
    node: Option<String>,
    /// The mark of this session on MariaDB. As long as the session has it, its state is the one that was checked.
    mark: Option<String>,
    /// The engines of the tables to change were checked and support transactions.
    atomic: bool,
    /// The compound statements that were prepared, by the names of the statements in them; `None` if a pipeline is not sent as one.
    compounds: Option<HashMap<Vec<&'static str>, mysql::Statement>>,
    /// A transaction is open.
    open: bool,
    /// A statement of the open transaction failed, so it must not continue: after a deadlock the server has ended the transaction
    /// and would commit each further statement by itself.
    failed: bool,
}

/// Opens a session on MySQL or MariaDB and puts it into the known state.
///
/// # Errors
/// [`DbErrorKind::SessionState`] if the state that was set is not found again, [`DbErrorKind::NotPrimary`] for a Galera node
/// outside the primary component, and other kinds for connection and login. Messages name the host.
pub fn open(target: &ServerTarget, settings: &SessionSettings) -> Result<Box<dyn Session>, DbError> {
    let remote = Remote::new(target, settings);
    let (conn, encrypted) = connect::connect(target, &remote, settings.insecure_auth)?;
    let mut session = Mysql {
        conn: Ok(conn),
        server: ServerInfo { encrypted, ..ServerInfo::new(Engine::Mysql, target.describe()) },
        remote,
        lock_timeout: lock_seconds(settings.lock_timeout),
        statement_timeout: settings.statement_timeout,
        member: String::new(),
        node: None,
        mark: None,
        atomic: false,
        compounds: None,
        open: false,
        failed: false,
    };
    session.set_up(&target.database).map_err(DbError::into_fatal)?;
    Ok(Box::new(session))
}

impl Mysql {
    fn set_up(&mut self, database: &str) -> Result<(), DbError> {
        self.run(ROWS, Vec::new())?;
        let variables = self.named_values(SERVER)?;
        let variable = |name: &str| variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let is_on = |name: &str| variable(name).is_some_and(|value| !matches!(value, "OFF" | "0"));
        let version = variable("version").unwrap_or("unknown").to_owned();
        let mariadb = [Some(version.as_str()), variable("version_comment")].iter().flatten().any(|text| text.contains("MariaDB"));
        self.server.engine = if mariadb { Engine::Mariadb } else { Engine::Mysql };
        self.server.version = version;
        self.server.read_only = is_on("read_only") || is_on("super_read_only");
        self.server.galera = is_on("wsrep_on") && variable("wsrep_provider").is_some_and(|provider| provider != "none");

        let mut server = if let Some(group) = variable("group_replication_group_name") {
            format!("mysql-group:{group}")
        } else if let Some(uuid) = variable("server_uuid") {
            format!("mysql:{uuid}")
        } else {
            // Older versions of MariaDB have no id of the server. This distinguishes servers that are not clones.
            let fallback = ["hostname", "port", "datadir"].map(|name| variable(name).unwrap_or_default()).join(":");
            format!("mariadb:{}", variable("server_uid").unwrap_or(&fallback))
        };
        self.server.multi_primary = self.server.galera || server.starts_with("mysql-group:");
        if self.server.galera {
            server = self.join_galera()?;
        }

        self.run(NAMES, Vec::new())?;
        self.set_state()?;
        if self.server.galera {
            self.run(GALERA_WAIT, vec![Wire::Int(WAIT_FOR_READS_AND_UPDATES)])?;
        }
        self.check_state()?;

        let row = self.first_row(USER)?;
        self.server.user = row.first().and_then(Value::as_text).map(str::to_owned);
        let schema = row.get(1).and_then(Value::as_text).unwrap_or_default();
        if !database.is_empty() && !schema.eq_ignore_ascii_case(database) {
            return Err(session_state("the current database", database, schema));
        }
        self.server.identity = format!("{server}/{schema}");
        // Proxies may not know compound statements. On a Galera node each statement waits for the cluster by itself.
        let direct = row.get(2).and_then(Value::as_integer) == Some(i64::from(self.conn()?.connection_id()));
        self.compounds = (direct && self.server.engine == Engine::Mariadb && !self.server.galera).then(HashMap::new);
        Ok(())
    }

    /// Returns the cluster's identity; refuses a node outside the primary component.
    fn join_galera(&mut self) -> Result<String, DbError> {
        let status = self.named_values(GALERA_STATUS)?;
        let value = |name: &str| status.get(name).map(String::as_str).unwrap_or_default();
        let component = value("wsrep_cluster_status");
        if component != "Primary" {
            let message = format!(
                "the Galera node {} is not in the primary component (wsrep_cluster_status is {component:?}), so its data may be outdated; \
                 connect to a node whose status is Primary",
                self.remote.name
            );
            return Err(DbError::new(DbErrorKind::NotPrimary, message));
        }
        self.server.read_only = self.server.read_only || value("wsrep_ready") != "ON";
        let (nodes, state) = (value("wsrep_cluster_size"), value("wsrep_local_state_comment"));
        self.server.cluster = Some(format!("a Galera cluster of {}, this node is {state}", count(nodes, "node")));
        value("wsrep_gcomm_uuid").clone_into(&mut self.member);
        Ok(format!("galera:{}", value("wsrep_cluster_state_uuid")))
    }

    /// Refuses to write to tables without transactions, where a unit could be half applied.
    fn check_tables(&mut self) -> Result<(), DbError> {
        if let [table, engine] = self.first_row(TABLES)?.as_slice() {
            let [table, engine] = [table, engine].map(|cell| cell.as_text().unwrap_or("?"));
            let message = format!(
                "the engine of table {table} is {engine}, which has no transactions, so a change could be half applied; convert the table \
                 to InnoDB first"
            );
            return Err(DbError::new(DbErrorKind::Schema, message));
        }
        self.atomic = true;
        Ok(())
    }

    /// Sets what [`Mysql::compare_state`] finds again.
    fn set_state(&mut self) -> Result<(), DbError> {
        let (statement, limit) = if self.server.engine == Engine::Mariadb {
            (STATE_MARIADB, Wire::Double(self.statement_timeout.as_secs_f64()))
        } else {
            (STATE_MYSQL, Wire::UInt(u64::try_from(self.statement_timeout.as_millis()).unwrap_or(u64::MAX)))
        };
        self.run(statement, vec![Wire::UInt(self.lock_timeout), Wire::UInt(self.lock_timeout), limit]).map(drop)
    }

    /// Reads the session's state back and compares it with the required one.
    fn check_state(&mut self) -> Result<(), DbError> {
        let outcome = self.compare_state();
        // The check takes no lock. On a Galera node this error means that the wait for the cluster timed out.
        outcome.map_err(|error| match error.code.as_deref() {
            Some("1205") if self.server.galera => {
                let message = format!(
                    "the Galera node {} did not catch up with its cluster in time (wsrep_sync_wait); check its wsrep_cluster_status \
                     and wsrep_local_recv_queue, or connect to another node",
                    self.remote.name
                );
                DbError { message, ..error }
            }
            _ => error,
        })
    }

    fn compare_state(&mut self) -> Result<(), DbError> {
        use ExpectedValue::{Number, Text, Words};
        let row = self.first_row(if self.server.engine == Engine::Mariadb { CHECK_MARIADB } else { CHECK_MYSQL })?;
        let row = row.as_slice();
        let lines: Vec<Value> = match row {
            [Value::Text(lines)] => lines.split('\n').map(Value::from).collect(),
            _ => Vec::new(),
        };
        let row = if self.server.engine == Engine::Mariadb { lines.as_slice() } else { row };
        let seconds = self.statement_timeout.as_secs_f64();
        let (isolation, limit) = if self.server.engine == Engine::Mariadb {
            ("tx_isolation", ("max_statement_time", Number(seconds)))
        } else {
            ("transaction_isolation", ("max_execution_time", Number((seconds * 1000.0).ceil())))
        };
        // In the order of the statement's columns.
        let expected = [
            ("time_zone", Text("+00:00")),
            ("sql_mode", Words(SQL_MODE)),
            ("lc_messages", Text("en_US")),
            ("autocommit", Number(1.0)),
            (isolation, Text("REPEATABLE-READ")),
            ("innodb_lock_wait_timeout", Number(self.lock_timeout as f64)),
            ("lock_wait_timeout", Number(self.lock_timeout as f64)),
            limit,
            ("character_set_client", Text("utf8mb4")),
            ("character_set_connection", Text("utf8mb4")),
            ("character_set_results", Text("utf8mb4")),
            ("completion_type", Text("NO_CHAIN")),
            ("sql_select_limit", Text(ALL_ROWS)),
        ];
        for (index, (name, value)) in expected.iter().enumerate() {
            value.compare(name, row.get(index).unwrap_or(&Value::Null))?;
        }
        let text = |index: usize| row.get(index).and_then(Value::as_text).map(str::to_owned);
        self.node = text(expected.len());
        self.mark = text(expected.len() + 1);
        if self.server.galera {
            let row = self.first_row(GALERA_CHECK)?;
            Number(WAIT_FOR_READS_AND_UPDATES as f64).compare("wsrep_sync_wait", row.first().unwrap_or(&Value::Null))?;
            let name = row.get(1).and_then(Value::as_text).unwrap_or_default();
            self.node = self.node.take().map(|node| format!("{node} {name} {}", self.member));
        }
        Ok(())
    }

    /// Requires the session whose state was checked. To read the whole state takes a fifth of the server's time for a unit.
    fn compare_mark(&self, rows: &[Vec<Value>]) -> Result<(), DbError> {
        let found = rows.first().and_then(|row| row.first()).and_then(Value::as_text);
        let (expected, found) = (self.mark.as_deref().unwrap_or_default(), found.unwrap_or_default());
        if !expected.is_empty() && expected == found { Ok(()) } else { Err(session_state("mark", expected, found)) }
    }

    fn run(&mut self, statement: EngineStatement, params: Vec<Wire>) -> Result<Vec<Vec<Value>>, DbError> {
        collect(|row| self.read(statement, params, row))
    }

    fn first_row(&mut self, statement: EngineStatement) -> Result<Vec<Value>, DbError> {
        Ok(self.run(statement, Vec::new())?.into_iter().next().unwrap_or_default())
    }

    /// The names, in lower case, and values that a SHOW returns.
    fn named_values(&mut self, statement: EngineStatement) -> Result<HashMap<String, String>, DbError> {
        let rows = self.run(statement, Vec::new())?;
        let text = |cell: Option<&Value>| cell.filter(|cell| **cell != Value::Null).map(Value::to_string).unwrap_or_default();
        Ok(rows.iter().map(|row| (text(row.first()).to_ascii_lowercase(), text(row.get(1)))).collect())
    }

    fn read(&mut self, statement: EngineStatement, params: Vec<Wire>, sink: RowSink<'_>) -> Result<(), DbError> {
        self.with(statement.name, |conn| {
            let mut result = conn.exec_iter(statement.text, params)?;
            let mut cells = Vec::new();
            for row in result.by_ref() {
                values::decode(row?, &mut cells);
                if sink(&mut cells) == ControlFlow::Break(()) {
                    // Dropping the result reads and discards the remaining rows; each read has the connection's time-out.
                    break;
                }
            }
            Ok(())
        })
    }

    /// Sends a constant statement that cannot be prepared.
    fn control(&mut self, statement: EngineStatement) -> Result<(), DbError> {
        self.with(statement.name, |conn| conn.query_drop(statement.text))
    }

    /// Uses the connection, and records a failure.
    fn with<T>(&mut self, name: &str, work: impl FnOnce(&mut Conn) -> mysql::Result<T>) -> Result<T, DbError> {
        work(self.conn()?).map_err(|error| self.record(name, &error))
    }

    /// Records a failure of a statement.
    fn record(&mut self, name: &str, error: &mysql::Error) -> DbError {
        let error = describe(error, &format!("cannot {}", task(name)), &self.remote);
        self.failed = true;
        if error.is_fatal() {
            self.close(&error);
        }
        error
    }

    fn conn(&mut self) -> Result<&mut Conn, DbError> {
        self.conn.as_mut().map_err(|closed| closed.clone())
    }

    /// Closes the connection. After a time-out the next answer could belong to the last statement.
    fn close(&mut self, why: &DbError) {
        self.open = false;
        self.conn = Err(why.clone().into_fatal());
    }

    fn check_may_begin(&mut self, access: Access) -> Result<(), DbError> {
        self.conn()?;
        if self.open {
            return Err(DbError::new(DbErrorKind::Other, "a transaction is already open"));
        }
        if access == Access::Write && !self.atomic {
            self.check_tables()?;
        }
        Ok(())
    }

    fn check_not_failed(&mut self) -> Result<(), DbError> {
        self.conn()?;
        if self.open && self.failed { Err(DbError::failed_transaction()) } else { Ok(()) }
    }
}

impl Session for Mysql {
    fn server(&self) -> &ServerInfo {
        &self.server
    }

    fn query(&mut self, statement: &Statement, params: &[Param], row: RowSink<'_>) -> Result<(), DbError> {
        self.check_not_failed()?;
        self.read(statement.of(self.server.engine), values::bind(params), row)
    }

    fn execute(&mut self, statement: &Statement, params: &[Param]) -> Result<u64, DbError> {
        self.check_not_failed()?;
        let text = statement.text(self.server.engine);
        let params = values::bind(params);
        self.with(statement.name, |conn| {
            let result = conn.exec_iter(text, params)?;
            // Usually equal. A proxy may drop CLIENT_FOUND_ROWS; the server then counts changed rows.
            Ok(values::matched(&result.info_str()).unwrap_or_else(|| result.affected_rows()))
        })
    }

    fn pipeline(&mut self, steps: &[PipelineStep]) -> Result<Vec<StepResult>, DbError> {
        self.check_not_failed()?;
        if self.open
            && self.may_compound(steps.len())
            && let Some((_, results)) = self.run_compound(&[], steps)?
        {
            return Ok(results);
        }
        one_by_one(self, steps)
    }

    fn begin_with(&mut self, access: Access, reads: &[PipelineStep]) -> Result<Vec<StepResult>, DbError> {
        if self.may_compound(reads.len()) {
            self.check_may_begin(access)?;
            (self.open, self.failed) = (true, false);
            let outcome = self.run_compound(&[begin_of(access), MARK], reads).and_then(|found| match found {
                Some((rows, results)) => self.compare_mark(&rows).map(|()| Some(results)),
                None => Ok(None),
            });
            match outcome {
                Ok(Some(results)) => return Ok(results),
                // The server has not begun.
                Ok(None) => self.open = false,
                Err(error) => return Err(rolled_back(self, error)),
            }
        }
        self.begin(access)?;
        one_by_one(self, reads).map_err(|error| rolled_back(self, error))
    }

    fn begin(&mut self, access: Access) -> Result<(), DbError> {
        self.check_may_begin(access)?;
        self.control(begin_of(access))?;
        self.open = true;
        self.failed = false;
        // A proxy may use another connection to the server for this transaction.
        if let Err(error) = self.check_state() {
            let _ = self.rollback();
            return Err(error);
        }
        Ok(())
    }

    fn commit(&mut self) -> CommitOutcome {
        let (open, failed) = (self.open, self.failed);
        let sent = match self.conn() {
            // The server rolls back the transaction of a lost connection, and COMMIT was never sent.
            Err(error) => return CommitOutcome::NotCommitted(error),
            Ok(_) if failed => return refused_commit(self.rollback()),
            Ok(_) if !open => return CommitOutcome::NotCommitted(DbError::new(DbErrorKind::Other, "no transaction is open")),
            Ok(conn) => conn.query_drop(COMMIT.text),
        };
        let Err(failure) = sent else {
            self.open = false;
            return CommitOutcome::Committed;
        };
        let error = describe(&failure, "cannot commit", &self.remote);
        if code(&failure).is_some_and(|code| NOT_COMMITTED.contains(&code)) {
            // Some of these errors leave the transaction open.
            let _ = self.rollback();
            return CommitOutcome::NotCommitted(DbError { fatal: self.conn.is_err(), ..error });
        }
        let error = error.into_fatal();
        self.close(&error);
        CommitOutcome::Unknown(error)
    }

    fn set_lock_timeout(&mut self, limit: Duration) -> Result<(), DbError> {
        self.lock_timeout = lock_seconds(limit);
        self.set_state()
    }

    fn lock_holders(&mut self) -> Vec<String> {
        let statement = if self.server.engine == Engine::Mariadb { LOCK_HOLDERS_MARIADB } else { LOCK_HOLDERS_MYSQL };
        let rows = self.run(statement, Vec::new()).unwrap_or_default();
        rows.iter().filter_map(|row| super::lock_holder(row)).collect()
    }

    fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    fn rollback(&mut self) -> Result<(), DbError> {
        self.conn()?;
        self.failed = false;
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        self.control(ROLLBACK).map_err(|error| {
            self.close(&error);
            error.into_fatal()
        })
    }
}

fn begin_of(access: Access) -> EngineStatement {
    match access {
        Access::ReadOnly => BEGIN_READ,
        Access::Write => BEGIN_WRITE,
    }
}

/// Whole seconds, at least one, as MySQL requires; at most a year.
fn lock_seconds(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).clamp(1, 31_536_000)
}

/// The expected value of a session variable.
enum ExpectedValue {
    Text(&'static str),
    /// Words separated by commas, in any order.
    Words(&'static str),
    Number(f64),
}

impl ExpectedValue {
    fn compare(&self, name: &str, found: &Value) -> Result<(), DbError> {
        let text = found.to_string();
        let (same, expected) = match self {
            Self::Text(expected) => (text == *expected, (*expected).to_owned()),
            Self::Words(expected) => {
                let sorted = |text: &str| {
                    let mut words: Vec<String> = text.split(',').map(str::to_owned).collect();
                    words.sort();
                    words
                };
                (sorted(&text) == sorted(expected), (*expected).to_owned())
            }
            // The server rounds times to the microsecond.
            Self::Number(expected) => (text.parse().is_ok_and(|found: f64| (found - expected).abs() < 1e-3), expected.to_string()),
        };
        if same { Ok(()) } else { Err(session_state(name, &expected, &text)) }
    }
}

fn session_state(name: &str, expected: &str, found: &str) -> DbError {
    let message = format!(
        "the session's {name} was set to {expected:?} but is {found:?}; a proxy (ProxySQL, MaxScale, HAProxy) does not keep sessions apart, \
         so connect to the server itself"
    );
    DbError::new(DbErrorKind::SessionState, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_state_statements_set_the_expected_sql_mode() {
        for statement in [STATE_MARIADB, STATE_MYSQL] {
            assert!(statement.text.contains(&format!("sql_mode = '{SQL_MODE}'")), "{}", statement.name);
        }
    }

    #[test]
    fn an_unexpected_session_state_is_reported() {
        let words = ExpectedValue::Words("A,B");
        assert!(words.compare("sql_mode", &Value::from("B,A")).is_ok());
        let error = words.compare("sql_mode", &Value::from("A")).unwrap_err();
        assert_eq!(error.kind, DbErrorKind::SessionState);
        assert!(error.message.contains("sql_mode") && error.message.contains("\"A,B\""), "{error}");
        assert!(ExpectedValue::Number(0.5).compare("max_statement_time", &Value::from("0.500000")).is_ok());
        assert!(ExpectedValue::Number(1.0).compare("autocommit", &Value::Integer(0)).is_err());
        assert!(ExpectedValue::Text("+00:00").compare("time_zone", &Value::Null).is_err());
    }

    #[test]
    fn lock_timeouts_are_whole_seconds_and_at_least_one() {
        let seconds = [0, 1, 1000, 1001].map(|millis| lock_seconds(Duration::from_millis(millis)));
        assert_eq!(seconds, [1, 1, 1, 2]);
    }
}
