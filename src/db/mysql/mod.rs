//! Sessions on MySQL and MariaDB, alone, replicated or in a Galera cluster.
//!
//! Only the binary protocol carries Cinder's statements and their values. The statements that begin and end a transaction
//! go as text, because MySQL cannot prepare them; they are constants.
//!
//! Identity: `galera:<cluster>/<schema>`, `mysql-group:<group>/<schema>`, `mysql:<server>/<schema>` or
//! `mariadb:<server>/<schema>`, from variables that every account may read and that do not depend on the way in.
//!
//! May use `config`, `domain` and this module's neighbours in `db`.

mod connect;
mod errors;
mod values;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, Value as Wire};

use self::errors::{NOT_COMMITTED, Place, code, describe};
use super::{Access, CommitOutcome, DbError, DbErrorKind, Engine, Param, RowSink, ServerInfo, Session, SessionSettings, Statement};
use crate::config::{Host, ServerTarget};
use crate::db::task;
use crate::domain::Value;

macro_rules! own {
    ($($constant:ident = $name:literal;)*) => {
        $(const $constant: Own = Own { name: $name, text: include_str!(concat!("../../../sql/mysql/", $name, ".sql")) };)*
        /// Statements that only MySQL and MariaDB have, by name.
        pub const OWN: &[(&str, &str)] = &[$(($constant.name, $constant.text)),*];
    };
}

/// A statement of the session itself, with its file's name.
struct Own {
    name: &'static str,
    text: &'static str,
}

own! {
    ROWS = "session_rows";
    NAMES = "session_names";
    STATE_MARIADB = "session_state_mariadb";
    STATE_MYSQL = "session_state_mysql";
    CHECK_MARIADB = "session_check_mariadb";
    CHECK_MYSQL = "session_check_mysql";
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
}

/// The SQL mode that both state statements set; the server gives it back in an order of its own.
const SQL_MODE: &str =
    "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";

/// The greatest number that there is for `sql_select_limit`.
const ALL_ROWS: &str = "18446744073709551615";

/// What `wsrep_sync_wait` is set to where reads are to wait: 1 for reads and the start of a transaction, 2 for UPDATE.
const WAIT_FOR_READS_AND_UPDATES: i64 = 3;

/// How much longer than the server itself the program waits for a statement's answer.
const GRACE: Duration = Duration::from_secs(5);

struct Mysql {
    /// Gone once it must not be used any more.
    conn: Option<Conn>,
    /// Why it is gone.
    dead: Option<DbError>,
    server: ServerInfo,
    place: Place,
    encrypted: bool,
    wanted: Wanted,
    /// The id of the Galera node that the session was made on.
    member: String,
    /// The server that the last look at the state came from.
    node: Option<String>,
    /// The tables to be changed take part in transactions, as far as was asked.
    atomic: bool,
    /// A transaction is open.
    open: bool,
    /// A statement of the open transaction failed, so that it must not go on: after a deadlock the server has ended the
    /// transaction, and each further statement would be committed by itself.
    failed: bool,
}

/// Opens a session on MySQL or MariaDB and puts it into the known state.
///
/// Errors name the host; the kinds are those of [`DbErrorKind`], [`DbErrorKind::SessionState`] when the state that was set
/// is not the one that is found, [`DbErrorKind::NotPrimary`] for a Galera node outside the primary component.
pub fn open(target: &ServerTarget, settings: &SessionSettings) -> Result<Box<dyn Session>, DbError> {
    let name = match &target.host {
        Host::Tcp { name, port } if name.contains(':') => format!("[{name}]:{port}"),
        Host::Tcp { name, port } => format!("{name}:{port}"),
        Host::Socket { path } => format!("socket {}", path.display()),
    };
    let longest = settings.statement_timeout.max(settings.lock_timeout);
    let patience = (!settings.statement_timeout.is_zero()).then(|| longest + GRACE);
    let place = Place { name, tls: target.tls.clone(), patience };
    let connected = connect::connect(target, settings, &place)?;
    let server = ServerInfo {
        engine: Engine::Mysql,
        version: String::new(),
        identity: String::new(),
        location: target.describe(),
        user: None,
        galera: false,
        multi_primary: false,
        read_only: false,
    };
    let mut session = Mysql {
        conn: Some(connected.conn),
        dead: None,
        server,
        place,
        encrypted: connected.encrypted,
        wanted: Wanted::new(settings),
        member: String::new(),
        node: None,
        atomic: false,
        open: false,
        failed: false,
    };
    // Whatever is wrong with a session that has just been made, there is none.
    session.set_up(&target.database).map_err(|error| DbError { fatal: true, ..error })?;
    Ok(Box::new(session))
}

impl Mysql {
    fn set_up(&mut self, database: &str) -> Result<(), DbError> {
        self.run(&ROWS, Vec::new())?;
        let variables = self.named_values(&SERVER)?;
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
            // MariaDB's own id for a server came late; before it, this tells servers apart that are not clones.
            let place = ["hostname", "port", "datadir"].map(|name| variable(name).unwrap_or_default()).join(":");
            format!("mariadb:{}", variable("server_uid").unwrap_or(&place))
        };
        self.server.multi_primary = self.server.galera || server.starts_with("mysql-group:");
        if self.server.galera {
            server = self.join_galera()?;
        }

        self.run(&NAMES, Vec::new())?;
        let state = self.wanted.state(self.server.engine);
        self.run(state, self.wanted.parameters(self.server.engine))?;
        if self.server.galera {
            self.run(&GALERA_WAIT, vec![Wire::Int(self.wanted.sync_wait)])?;
        }
        self.check_state()?;

        let row = self.run(&USER, Vec::new())?.into_iter().next().unwrap_or_default();
        self.server.user = row.first().and_then(Value::as_text).map(str::to_owned);
        let schema = row.get(1).and_then(Value::as_text).unwrap_or_default();
        if !database.is_empty() && !schema.eq_ignore_ascii_case(database) {
            return Err(session_state("the current database", database, schema));
        }
        self.server.identity = format!("{server}/{schema}");
        Ok(())
    }

    /// The cluster's identity; refuses a node that has lost the cluster.
    fn join_galera(&mut self) -> Result<String, DbError> {
        let status = self.named_values(&GALERA_STATUS)?;
        let value = |name: &str| status.get(name).map(String::as_str).unwrap_or_default();
        let component = value("wsrep_cluster_status");
        if component != "Primary" {
            return Err(DbError::new(
                DbErrorKind::NotPrimary,
                format!(
                    "the Galera node {} is not in the primary component (wsrep_cluster_status is {component:?}), so what it holds may be \
                     old; connect to a node whose status is Primary",
                    self.place.name
                ),
            ));
        }
        self.server.read_only = self.server.read_only || value("wsrep_ready") != "ON";
        value("wsrep_gcomm_uuid").clone_into(&mut self.member);
        Ok(format!("galera:{}", value("wsrep_cluster_state_uuid")))
    }

    /// Refuses to write where a unit could be left half done.
    fn check_tables(&mut self) -> Result<(), DbError> {
        let rows = self.run(&TABLES, Vec::new())?;
        if let Some([table, engine]) = rows.first().map(Vec::as_slice) {
            let [table, engine] = [table, engine].map(|cell| cell.as_text().unwrap_or("?"));
            return Err(DbError::new(
                DbErrorKind::Schema,
                format!(
                    "the engine of table {table} is {engine}, which knows no transactions: a change could be left half done, so nothing is \
                     changed; convert it to InnoDB first"
                ),
            ));
        }
        self.atomic = true;
        Ok(())
    }

    /// Reads the session's state back and compares it with what was asked for.
    fn check_state(&mut self) -> Result<(), DbError> {
        let outcome = self.compare_state();
        // Nothing here takes a lock: on a Galera node this is the wait for the cluster, which has no error of its own.
        outcome.map_err(|error| match error.code.as_deref() {
            Some("1205") if self.server.galera => {
                let message = format!(
                    "the Galera node {} did not catch up with its cluster in time (wsrep_sync_wait); look at its wsrep_cluster_status \
                     and wsrep_local_recv_queue, or connect to another node",
                    self.place.name
                );
                DbError { message, ..error }
            }
            _ => error,
        })
    }

    fn compare_state(&mut self) -> Result<(), DbError> {
        let row = self.run(self.wanted.check(self.server.engine), Vec::new())?.into_iter().next().unwrap_or_default();
        let expected = self.wanted.values(self.server.engine);
        for (index, (name, wanted)) in expected.iter().enumerate() {
            wanted.compare(name, row.get(index).unwrap_or(&Value::Null))?;
        }
        self.node = row.get(expected.len()).and_then(Value::as_text).map(str::to_owned);
        if self.server.galera {
            let row = self.run(&GALERA_CHECK, Vec::new())?.into_iter().next().unwrap_or_default();
            let wanted = Expected::Number(self.wanted.sync_wait as f64);
            wanted.compare("wsrep_sync_wait", row.first().unwrap_or(&Value::Null))?;
            let name = row.get(1).and_then(Value::as_text).unwrap_or_default();
            self.node = self.node.take().map(|node| format!("{node} {name} {}", self.member));
        }
        Ok(())
    }

    fn run(&mut self, statement: &Own, params: Vec<Wire>) -> Result<Vec<Vec<Value>>, DbError> {
        let mut rows = Vec::new();
        self.read(statement.name, statement.text, params, &mut |row| {
            rows.push(row.iter_mut().map(std::mem::take).collect());
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    /// The rows of a SHOW: names and values.
    fn named_values(&mut self, statement: &Own) -> Result<HashMap<String, String>, DbError> {
        let rows = self.run(statement, Vec::new())?;
        let text = |cell: Option<&Value>| match cell {
            Some(Value::Text(text) | Value::Foreign(text)) => text.clone(),
            Some(Value::Integer(number)) => number.to_string(),
            Some(Value::Null) | None => String::new(),
        };
        Ok(rows.iter().map(|row| (text(row.first()).to_ascii_lowercase(), text(row.get(1)))).collect())
    }

    fn read(&mut self, name: &str, text: &'static str, params: Vec<Wire>, sink: RowSink<'_>) -> Result<(), DbError> {
        self.with(name, |conn| {
            let mut result = conn.exec_iter(text, params)?;
            let mut cells = Vec::new();
            for row in result.by_ref() {
                values::decode(row?, &mut cells);
                if sink(&mut cells) == ControlFlow::Break(()) {
                    // Dropping the result reads the rest of it from the server and throws it away; each read has the
                    // connection's time-out.
                    break;
                }
            }
            Ok(())
        })
    }

    /// Sends one of the constant statements that cannot be prepared.
    fn control(&mut self, statement: &Own) -> Result<(), DbError> {
        self.with(statement.name, |conn| conn.query_drop(statement.text))
    }

    /// Uses the connection, if it may be used, and notes what its failure means for it.
    fn with<T>(&mut self, name: &str, work: impl FnOnce(&mut Conn) -> mysql::Result<T>) -> Result<T, DbError> {
        let outcome = match self.usable() {
            Ok(conn) => work(conn),
            Err(error) => return Err(error),
        };
        outcome.map_err(|error| self.note(&describe(&error, &format!("cannot {}", task(name)), &self.place)))
    }

    fn usable(&mut self) -> Result<&mut Conn, DbError> {
        match (&mut self.conn, &self.dead) {
            (Some(conn), None) => Ok(conn),
            (_, Some(dead)) => Err(dead.clone()),
            (None, None) => Err(DbError::fatal(DbErrorKind::Connection, format!("the connection to {} is closed", self.place.name))),
        }
    }

    fn note(&mut self, error: &DbError) -> DbError {
        self.failed = true;
        if error.is_fatal() {
            self.close(error);
        }
        error.clone()
    }

    /// Ends the connection. After a time-out the next answer could be that to the last statement, so there is no other way.
    fn close(&mut self, why: &DbError) {
        self.open = false;
        self.dead = Some(DbError { fatal: true, ..why.clone() });
        self.conn = None;
    }

    /// Refuses to go on in a transaction that has failed.
    fn may_go_on(&mut self) -> Result<(), DbError> {
        self.usable()?;
        if self.open && self.failed {
            return Err(DbError::new(DbErrorKind::Other, "a statement of the transaction had failed, so it has to be rolled back first"));
        }
        Ok(())
    }

    fn refuse_commit(&mut self, message: &str) -> CommitOutcome {
        let rolled_back = self.rollback();
        let cause = rolled_back.err().map(|error| format!(" ({error})")).unwrap_or_default();
        CommitOutcome::NotCommitted(DbError { fatal: self.dead.is_some(), ..DbError::new(DbErrorKind::Other, format!("{message}{cause}")) })
    }
}

impl Session for Mysql {
    fn server(&self) -> &ServerInfo {
        &self.server
    }

    fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    fn query(&mut self, statement: &Statement, params: &[Param], row: RowSink<'_>) -> Result<(), DbError> {
        self.may_go_on()?;
        self.read(statement.name, statement.text(self.server.engine), values::bind(params), row)
    }

    fn execute(&mut self, statement: &Statement, params: &[Param]) -> Result<u64, DbError> {
        self.may_go_on()?;
        let text = statement.text(self.server.engine);
        let params = values::bind(params);
        self.with(statement.name, |conn| {
            let result = conn.exec_iter(text, params)?;
            // Normally equal; without CLIENT_FOUND_ROWS, which a proxy may drop, the count is of changed rows.
            Ok(values::matched(&result.info_str()).unwrap_or_else(|| result.affected_rows()))
        })
    }

    fn begin(&mut self, access: Access) -> Result<(), DbError> {
        self.usable()?;
        if self.open {
            return Err(DbError::new(DbErrorKind::Other, "a transaction is open already"));
        }
        if access == Access::Write && !self.atomic {
            self.check_tables()?;
        }
        self.control(match access {
            Access::ReadOnly => &BEGIN_READ,
            Access::Write => &BEGIN_WRITE,
        })?;
        self.open = true;
        self.failed = false;
        // A proxy may have taken another connection to the server for this transaction.
        if let Err(error) = self.check_state() {
            let _ = self.rollback();
            return Err(error);
        }
        Ok(())
    }

    fn commit(&mut self) -> CommitOutcome {
        if let Some(dead) = &self.dead {
            // The server rolls back what a lost connection left open, and COMMIT was never sent.
            return CommitOutcome::NotCommitted(dead.clone());
        }
        if self.failed {
            return self.refuse_commit("a statement of the transaction had failed, so it was rolled back");
        }
        if !self.open {
            return CommitOutcome::NotCommitted(DbError::new(DbErrorKind::Other, "there is no transaction to commit"));
        }
        let sent = match &mut self.conn {
            Some(conn) => conn.query_drop(COMMIT.text),
            None => return self.refuse_commit("the connection is closed"),
        };
        let Err(failure) = sent else {
            self.open = false;
            return CommitOutcome::Committed;
        };
        let error = describe(&failure, "cannot commit", &self.place);
        if code(&failure).is_some_and(|code| NOT_COMMITTED.contains(&code)) {
            // Some of these leave the transaction open.
            let _ = self.rollback();
            return CommitOutcome::NotCommitted(DbError { fatal: self.dead.is_some(), ..error });
        }
        let error = DbError { fatal: true, ..error };
        self.close(&error);
        CommitOutcome::Unknown(error)
    }

    fn set_lock_timeout(&mut self, limit: Duration) -> Result<(), DbError> {
        self.wanted.wait_for_locks(limit);
        let engine = self.server.engine;
        self.run(self.wanted.state(engine), self.wanted.parameters(engine)).map(drop)
    }

    fn lock_holders(&mut self) -> Vec<String> {
        let statement = if self.server.engine == Engine::Mariadb { &LOCK_HOLDERS_MARIADB } else { &LOCK_HOLDERS_MYSQL };
        let rows = self.run(statement, Vec::new()).unwrap_or_default();
        rows.iter().filter_map(|row| super::lock_holder(row)).collect()
    }

    fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    fn rollback(&mut self) -> Result<(), DbError> {
        self.usable()?;
        self.failed = false;
        if !self.open {
            return Ok(());
        }
        self.open = false;
        self.control(&ROLLBACK).map_err(|error| {
            self.close(&error);
            DbError { fatal: true, ..error }
        })
    }
}

/// The state that every session is to be in.
struct Wanted {
    row_lock: u64,
    metadata_lock: u64,
    statement: Duration,
    sync_wait: i64,
}

impl Wanted {
    fn new(settings: &SessionSettings) -> Self {
        let mut wanted = Self {
            row_lock: 0,
            metadata_lock: 0,
            statement: settings.statement_timeout,
            sync_wait: if settings.settle_reads { WAIT_FOR_READS_AND_UPDATES } else { 0 },
        };
        wanted.wait_for_locks(settings.lock_timeout);
        wanted
    }

    fn wait_for_locks(&mut self, limit: Duration) {
        // Both are whole seconds, and one at least on MySQL.
        let lock = limit.as_millis().div_ceil(1000);
        self.row_lock = u64::try_from(lock).unwrap_or(u64::MAX).clamp(1, 31_536_000);
        self.metadata_lock = self.row_lock;
    }

    fn state(&self, engine: Engine) -> &'static Own {
        if engine == Engine::Mariadb { &STATE_MARIADB } else { &STATE_MYSQL }
    }

    fn check(&self, engine: Engine) -> &'static Own {
        if engine == Engine::Mariadb { &CHECK_MARIADB } else { &CHECK_MYSQL }
    }

    /// The statement's limit in the unit of the engine: seconds on MariaDB, milliseconds on MySQL.
    fn limit(&self, engine: Engine) -> f64 {
        if engine == Engine::Mariadb { self.statement.as_secs_f64() } else { (self.statement.as_secs_f64() * 1000.0).ceil() }
    }

    fn parameters(&self, engine: Engine) -> Vec<Wire> {
        let limit = if engine == Engine::Mariadb {
            Wire::Double(self.limit(engine))
        } else {
            Wire::UInt(u64::try_from(self.statement.as_millis()).unwrap_or(u64::MAX))
        };
        vec![Wire::UInt(self.row_lock), Wire::UInt(self.metadata_lock), limit]
    }

    /// What the check statement is to find, in the order of its columns.
    fn values(&self, engine: Engine) -> [(&'static str, Expected); 13] {
        let (isolation, limit) = if engine == Engine::Mariadb {
            ("tx_isolation", "max_statement_time")
        } else {
            ("transaction_isolation", "max_execution_time")
        };
        [
            ("time_zone", Expected::Text("+00:00")),
            ("sql_mode", Expected::Words(SQL_MODE)),
            ("lc_messages", Expected::Text("en_US")),
            ("autocommit", Expected::Number(1.0)),
            (isolation, Expected::Text("REPEATABLE-READ")),
            ("innodb_lock_wait_timeout", Expected::Number(self.row_lock as f64)),
            ("lock_wait_timeout", Expected::Number(self.metadata_lock as f64)),
            (limit, Expected::Number(self.limit(engine))),
            ("character_set_client", Expected::Text("utf8mb4")),
            ("character_set_connection", Expected::Text("utf8mb4")),
            ("character_set_results", Expected::Text("utf8mb4")),
            ("completion_type", Expected::Text("NO_CHAIN")),
            ("sql_select_limit", Expected::Text(ALL_ROWS)),
        ]
    }
}

/// The value of a session variable.
enum Expected {
    Text(&'static str),
    /// Words with commas between them, in any order.
    Words(&'static str),
    Number(f64),
}

impl Expected {
    fn compare(&self, name: &str, found: &Value) -> Result<(), DbError> {
        let text = match found {
            Value::Null => "NULL".to_owned(),
            Value::Integer(number) => number.to_string(),
            Value::Text(text) | Value::Foreign(text) => text.clone(),
        };
        let (same, wanted) = match self {
            Self::Text(wanted) => (text == *wanted, (*wanted).to_owned()),
            Self::Words(wanted) => {
                let sorted = |text: &str| {
                    let mut words: Vec<String> = text.split(',').map(str::to_owned).collect();
                    words.sort();
                    words
                };
                (sorted(&text) == sorted(wanted), (*wanted).to_owned())
            }
            Self::Number(wanted) => {
                // The server keeps times to the microsecond.
                (text.parse().is_ok_and(|found: f64| (found - wanted).abs() < 1e-3), wanted.to_string())
            }
        };
        if same { Ok(()) } else { Err(session_state(name, &wanted, &text)) }
    }
}

fn session_state(name: &str, wanted: &str, found: &str) -> DbError {
    DbError::new(
        DbErrorKind::SessionState,
        format!(
            "the session's {name} was set to {wanted:?} but is {found:?}; something between here and the server (ProxySQL, MaxScale, HAProxy) \
             does not keep sessions apart, so connect to the server itself"
        ),
    )
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
    fn the_sql_mode_is_the_one_that_is_set() {
        for own in [&STATE_MARIADB, &STATE_MYSQL] {
            assert!(own.text.contains(&format!("sql_mode = '{SQL_MODE}'")), "{}", own.name);
        }
    }

    #[test]
    fn a_state_that_is_not_as_wanted_is_named() {
        let words = Expected::Words("A,B");
        assert!(words.compare("sql_mode", &Value::from("B,A")).is_ok());
        let error = words.compare("sql_mode", &Value::from("A")).unwrap_err();
        assert_eq!(error.kind, DbErrorKind::SessionState);
        assert!(error.message.contains("sql_mode") && error.message.contains("\"A,B\""), "{error}");
        assert!(Expected::Number(0.5).compare("max_statement_time", &Value::from("0.500000")).is_ok());
        assert!(Expected::Number(1.0).compare("autocommit", &Value::Integer(0)).is_err());
        assert!(Expected::Text("+00:00").compare("time_zone", &Value::Null).is_err());
    }

    #[test]
    fn lock_times_are_whole_seconds_and_never_none() {
        let wanted = |millis| {
            let settings = SessionSettings { lock_timeout: Duration::from_millis(millis), ..SessionSettings::default() };
            Wanted::new(&settings).row_lock
        };
        assert_eq!([wanted(0), wanted(1), wanted(1000), wanted(1001)], [1, 1, 1, 2]);
    }
}
