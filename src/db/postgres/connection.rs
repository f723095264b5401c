//! A PostgreSQL connection that runs on the caller's thread.
//!
//! The driver is asynchronous. Its runtime lives on the caller's own thread, so an answer costs no thread switch, and the
//! connection only makes progress while the caller waits for an answer. The statements of a pipeline are all sent before the
//! first answer is awaited.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::maybe_done;
use futures_util::{Stream, StreamExt};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

use super::direct;
use super::errors::describe;
use super::values::{self, OwnedParam};
use crate::db::remote::Remote;
use crate::db::statements::EngineStatement;
use crate::db::{DbError, DbErrorKind, Param, StepResult, task};
use crate::domain::Value;

/// How many rows of a long result are taken at a time, which bounds the memory of a query.
const BATCH: usize = 256;

/// How long the driver may take to close a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The driver's future, which must be polled for the connection to make progress.
pub(super) type ConnectionFuture = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A statement with its values.
pub(super) struct BoundStatement {
    sql: EngineStatement,
    params: Vec<OwnedParam>,
    kind: StatementKind,
}

/// How a statement is sent.
#[derive(Clone, Copy)]
pub(super) enum StatementKind {
    /// Returns rows.
    Query,
    /// Returns the number of matched rows.
    Execute,
    /// Begins or ends a transaction.
    Control,
}

impl BoundStatement {
    pub fn new(kind: StatementKind, sql: EngineStatement, params: &[Param]) -> Self {
        Self { sql, params: values::bind(params), kind }
    }

    fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.params.iter().map(|(value, kind)| (value.as_ref() as &(dyn ToSql + Sync), kind.clone())).collect()
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.params.iter().map(|(value, _)| value.as_ref() as &(dyn ToSql + Sync)).collect()
    }

    fn types(&self) -> Vec<Type> {
        self.params.iter().map(|(_, kind)| kind.clone()).collect()
    }

    /// Sends the statement when first polled, so that the statements of a pipeline are sent in order, and waits for its rows or the
    /// number of matched rows.
    async fn send(&self, client: &Client, prepared: Option<&Statement>) -> Result<(Vec<Row>, u64), Error> {
        let text = self.sql.text;
        match (self.kind, prepared) {
            (StatementKind::Control, _) => client.batch_execute(text).await.map(|()| (Vec::new(), 0)),
            (StatementKind::Execute, Some(prepared)) => {
                client.execute_raw(prepared, self.values()).await.map(|matched| (Vec::new(), matched))
            }
            (StatementKind::Query, Some(prepared)) => client.query(prepared, &self.values()).await.map(|rows| (rows, 0)),
            // Typed statements have no name on the server, so a pooler may send each to another connection.
            (StatementKind::Execute, None) => client.execute_typed(text, &self.parameters()).await.map(|matched| (Vec::new(), matched)),
            (StatementKind::Query, None) => client.query_typed(text, &self.parameters()).await.map(|rows| (rows, 0)),
        }
    }

    fn decode(&self, rows: &[Row]) -> Result<Vec<Vec<Value>>, DbError> {
        rows.iter().map(|row| values::decode(row, self.sql.name)).collect()
    }
}

/// A connection.
pub(super) struct Connection {
    /// `None` only while it is dropped.
    running: Option<(Client, Runtime)>,
    /// `None` once it has ended.
    driver: Option<ConnectionFuture>,
    remote: Remote,
    /// The prepared statements by name and types of their parameters; `None` through a pooler.
    prepared: Option<HashMap<(&'static str, Vec<Type>), Statement>>,
}

impl Connection {
    /// Connects within the time-out. `login` returns the driver's client and future, and whether the connection uses TLS.
    pub fn connect(
        login: impl Future<Output = Result<(Client, ConnectionFuture, bool), DbError>>,
        remote: &Remote,
    ) -> Result<(Self, bool), DbError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| DbError::fatal(DbErrorKind::Other, format!("cannot wait for a connection: {error}")))?;
        let login = runtime.block_on(async { timeout(remote.connect_timeout, login).await });
        match login.unwrap_or_else(|_| Err(remote.connect_timed_out())) {
            Ok((client, driver, encrypted)) => {
                Ok((Self { running: Some((client, runtime)), driver: Some(driver), remote: remote.clone(), prepared: None }, encrypted))
            }
            Err(error) => {
                // Does not wait for the system, which may still be looking up the host's address.
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Runs a query. `rows` receives batches as they arrive and returns whether to continue.
    pub fn query(&mut self, statement: &BoundStatement, mut rows: impl FnMut(Vec<Vec<Value>>) -> bool) -> Result<(), DbError> {
        let (name, limit) = (statement.sql.name, self.remote.answer_timeout);
        let raw = async |client: &Client| within(limit, client.query_typed_raw(statement.sql.text, statement.parameters())).await;
        let mut found = Box::pin(self.wait(name, raw)?);
        loop {
            let (batch, more) = self.wait(name, async |_| within(limit, take(found.as_mut())).await)?;
            let batch = statement.decode(&batch)?;
            // The driver reads and discards the rest before the next answer.
            if (!batch.is_empty() && !rows(batch)) || !more {
                return Ok(());
            }
        }
    }

    /// Prepares the statements of pipelines from now on, if the connection leads to the server process that it names itself. Returns
    /// whether it does.
    pub fn prepare_if_direct(&mut self, process: Option<i64>) -> Result<bool, DbError> {
        let named = self.wait("session_server", async |client| Some(Ok(direct::process_of(&client.cancel_token()).await)))?;
        let is_direct = named.is_some() && named == process;
        self.prepared = is_direct.then(HashMap::new);
        Ok(is_direct)
    }

    /// Prepares the statements that are not yet.
    fn prepare(&mut self, statements: &[BoundStatement]) -> Result<Vec<Option<Statement>>, DbError> {
        let mut found = Vec::with_capacity(statements.len());
        for statement in statements {
            let (Some(known), false) = (&self.prepared, matches!(statement.kind, StatementKind::Control)) else {
                found.push(None);
                continue;
            };
            let key = (statement.sql.name, statement.types());
            if let Some(prepared) = known.get(&key) {
                found.push(Some(prepared.clone()));
                continue;
            }
            let limit = self.remote.answer_timeout;
            let prepare = async |client: &Client| within(limit, client.prepare_typed(statement.sql.text, &key.1)).await;
            let prepared = self.wait(statement.sql.name, prepare)?;
            found.push(Some(prepared.clone()));
            self.prepared.get_or_insert_default().insert(key, prepared);
        }
        Ok(found)
    }

    /// Runs several statements that return few rows: sends all, then reads all results in order.
    pub fn pipeline(&mut self, statements: &[BoundStatement]) -> Result<Vec<Result<StepResult, DbError>>, DbError> {
        let first = statements.first().map_or("nothing", |statement| statement.sql.name);
        let limit = self.remote.answer_timeout;
        let prepared = self.prepare(statements)?;
        let answers = self.wait(first, async |client| {
            let each = statements.iter().zip(&prepared);
            let mut waiting: Vec<_> = each.map(|(statement, plan)| Box::pin(maybe_done(statement.send(client, plan.as_ref())))).collect();
            poll_fn(|context| {
                for answer in &mut waiting {
                    let _ = answer.as_mut().poll(context);
                }
                Poll::Ready(())
            })
            .await;
            let mut answers = Vec::with_capacity(statements.len());
            for mut answer in waiting {
                within(limit, answer.as_mut()).await?;
                answers.extend(answer.as_mut().take_output());
            }
            Some(Ok(answers))
        })?;
        let result = |(statement, answer): (&BoundStatement, Result<(Vec<Row>, u64), Error>)| {
            let (rows, matched) = answer.map_err(|error| self.failure(&error, statement.sql.name))?;
            Ok(match statement.kind {
                StatementKind::Query => StepResult::Rows(statement.decode(&rows)?),
                StatementKind::Execute | StatementKind::Control => StepResult::Matched(matched),
            })
        };
        let results: Vec<_> = statements.iter().zip(answers).map(result).collect();
        // A table may have changed, so that a prepared statement fits it no more.
        if let (Some(known), true) = (&mut self.prepared, results.iter().any(Result::is_err)) {
            known.clear();
        }
        Ok(results)
    }

    /// Waits for `work` while driving the connection. `None` from `work` means that the answer took too long.
    fn wait<T>(&mut self, name: &str, work: impl AsyncFnOnce(&Client) -> Option<Result<T, Error>>) -> Result<T, DbError> {
        let Some((client, runtime)) = &self.running else { return Err(self.remote.closed()) };
        match runtime.block_on(alongside(&mut self.driver, work(client))) {
            Some(outcome) => outcome.map_err(|error| self.failure(&error, name)),
            None => {
                // Closing properly would wait behind the missing answer.
                self.driver = None;
                Err(self.remote.answer_timed_out(&format!("cannot {}", task(name))))
            }
        }
    }

    fn failure(&self, error: &Error, name: &str) -> DbError {
        describe(error, &format!("cannot {}", task(name)), &self.remote)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some((client, runtime)) = self.running.take() else { return };
        // Without a client, the driver closes the connection and ends.
        drop(client);
        if let Some(driver) = self.driver.take() {
            let _ = runtime.block_on(async { timeout(CLOSE_TIMEOUT, driver).await });
        }
        runtime.shutdown_background();
    }
}

/// The result of `work`, or `None` after the limit.
async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// Runs `work` and drives the connection. An error that ends the connection is the result, because `work` does not see its cause.
async fn alongside<T>(
    driver: &mut Option<ConnectionFuture>,
    work: impl Future<Output = Option<Result<T, Error>>>,
) -> Option<Result<T, Error>> {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Some(running) = driver
            && let Poll::Ready(ended) = running.as_mut().poll(context)
        {
            *driver = None;
            if let Err(error) = ended {
                return Poll::Ready(Some(Err(error)));
            }
        }
        work.as_mut().poll(context)
    })
    .await
}

/// The next rows, and whether more may follow.
async fn take(mut found: Pin<&mut impl Stream<Item = Result<Row, Error>>>) -> Result<(Vec<Row>, bool), Error> {
    let mut batch = Vec::new();
    while batch.len() < BATCH {
        match found.next().await {
            Some(row) => batch.push(row?),
            None => return Ok((batch, false)),
        }
    }
    Ok((batch, true))
}
