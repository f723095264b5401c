//! A PostgreSQL connection that runs on the caller's thread.
//!
//! The driver is asynchronous. Its runtime lives on the caller's own thread, so an answer costs no thread switch, and the
//! connection only makes progress while the caller waits for an answer. The statements of a pipeline are all sent before the
//! first answer is awaited.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::maybe_done;
use futures_util::{Stream, StreamExt};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

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

    /// Sends the statement when first polled, so that the statements of a pipeline are sent in order, and waits for its rows or the
    /// number of matched rows.
    async fn send(&self, client: &Client) -> Result<(Vec<Row>, u64), Error> {
        let text = self.sql.text;
        match self.kind {
            StatementKind::Control => client.batch_execute(text).await.map(|()| (Vec::new(), 0)),
            // Typed statements have no name on the server, so a pooler may send each to another connection.
            StatementKind::Execute => client.execute_typed(text, &self.parameters()).await.map(|matched| (Vec::new(), matched)),
            StatementKind::Query => client.query_typed(text, &self.parameters()).await.map(|rows| (rows, 0)),
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
                Ok((Self { running: Some((client, runtime)), driver: Some(driver), remote: remote.clone() }, encrypted))
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

    /// Runs several statements that return few rows: sends all, then reads all results in order.
    pub fn pipeline(&mut self, statements: &[BoundStatement]) -> Result<Vec<Result<StepResult, DbError>>, DbError> {
        let first = statements.first().map_or("nothing", |statement| statement.sql.name);
        let limit = self.remote.answer_timeout;
        let answers = self.wait(first, async |client| {
            let mut waiting: Vec<_> = statements.iter().map(|statement| Box::pin(maybe_done(statement.send(client)))).collect();
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
        Ok(statements.iter().zip(answers).map(result).collect())
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
