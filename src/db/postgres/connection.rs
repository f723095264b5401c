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

use super::errors::{StatementFailure, describe};
use super::values::{self, OwnedParam};
use crate::db::remote::Remote;
use crate::db::{DbError, DbErrorKind, task};
use crate::domain::Value;

/// How many rows of a long result are taken at a time, which bounds the memory of a query.
const BATCH: usize = 256;

/// How long the driver may take to close a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The driver's future, which must be polled for the connection to make progress.
pub(super) type ConnectionFuture = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A statement with its values.
pub(super) struct BoundStatement {
    pub name: &'static str,
    pub text: &'static str,
    pub params: Vec<OwnedParam>,
    pub kind: StatementKind,
}

/// How a statement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatementKind {
    /// Returns rows.
    Query,
    /// Returns the number of matched rows.
    Execute,
    /// Begins or ends a transaction.
    Control,
}

/// The result of a statement.
#[derive(Debug, Default)]
pub(super) struct StatementOutput {
    pub rows: Vec<Vec<Value>>,
    pub matched: u64,
}

/// A connection.
pub(super) struct Connection {
    client: Option<Client>,
    /// `None` once it has ended.
    driver: Option<ConnectionFuture>,
    runtime: Option<Runtime>,
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
        match runtime.block_on(async { timeout(remote.connect_timeout, login).await }) {
            Ok(Ok((client, driver, encrypted))) => {
                let connection = Self { client: Some(client), driver: Some(driver), runtime: Some(runtime), remote: remote.clone() };
                Ok((connection, encrypted))
            }
            failed => {
                // Does not wait for the system, which may still be looking up the host's address.
                runtime.shutdown_background();
                Err(failed.map_or_else(|_| remote.connect_timed_out(), |outcome| outcome.err().unwrap_or_else(|| remote.closed())))
            }
        }
    }

    /// Runs one statement and returns the number of matched rows. `rows` receives batches as they arrive and returns whether to
    /// continue.
    pub fn run(&mut self, statement: &BoundStatement, mut rows: impl FnMut(Vec<Vec<Value>>) -> bool) -> Result<u64, StatementFailure> {
        let name = statement.name;
        if statement.kind != StatementKind::Query {
            let outputs = self.pipeline(std::slice::from_ref(statement))?;
            return outputs.into_iter().next().map_or(Ok(0), |output| output.map(|output| output.matched));
        }
        let limit = self.remote.answer_timeout;
        let raw = async |client: &Client| within(limit, client.query_typed_raw(statement.text, parameters(statement))).await;
        let mut found = Box::pin(self.wait(name, raw)?.map_err(|error| self.failure(Cause::Driver(error), name))?);
        loop {
            let taken = self.wait(name, async |_| within(limit, take(found.as_mut())).await)?;
            let (batch, more) = taken.map_err(|error| self.failure(Cause::Driver(error), name))?;
            let batch: Result<Vec<_>, _> = batch.iter().map(|row| values::decode(row, name)).collect();
            let batch = batch.map_err(|error| self.failure(Cause::Value(error), name))?;
            // The driver reads and discards the rest before the next answer.
            if (!batch.is_empty() && !rows(batch)) || !more {
                return Ok(0);
            }
        }
    }

    /// Runs several statements that return few rows: sends all, then reads all results in order.
    pub fn pipeline(&mut self, statements: &[BoundStatement]) -> Result<Vec<Result<StatementOutput, StatementFailure>>, StatementFailure> {
        let first = statements.first().map_or("nothing", |statement| statement.name);
        let limit = self.remote.answer_timeout;
        let outputs = self.wait(first, async |client| {
            let mut waiting: Vec<_> = statements.iter().map(|statement| Box::pin(maybe_done(send(client, statement)))).collect();
            poll_fn(|context| {
                for answer in &mut waiting {
                    let _ = answer.as_mut().poll(context);
                }
                Poll::Ready(())
            })
            .await;
            let mut outputs = Vec::with_capacity(statements.len());
            for mut answer in waiting {
                within(limit, answer.as_mut()).await?;
                outputs.extend(answer.as_mut().take_output());
            }
            Some(outputs)
        })?;
        let failed = |(output, statement): (Result<_, Cause>, &BoundStatement)| output.map_err(|cause| self.failure(cause, statement.name));
        Ok(outputs.into_iter().zip(statements).map(failed).collect())
    }

    /// Waits for `work` while driving the connection. `None` from `work` means that the answer took too long.
    fn wait<T>(&mut self, name: &str, work: impl AsyncFnOnce(&Client) -> Option<T>) -> Result<T, StatementFailure> {
        let (Some(client), Some(runtime)) = (&self.client, &self.runtime) else {
            return Err(StatementFailure::lost(self.remote.closed()));
        };
        match runtime.block_on(alongside(&mut self.driver, work(client))) {
            Ok(Some(done)) => Ok(done),
            Ok(None) => {
                // Closing properly would wait behind the missing answer.
                self.driver = None;
                Err(StatementFailure::lost(self.remote.answer_timed_out(&format!("cannot {}", task(name)))))
            }
            Err(error) => Err(self.failure(Cause::Driver(error), name)),
        }
    }

    fn failure(&self, cause: Cause, name: &str) -> StatementFailure {
        match cause {
            Cause::Driver(error) => describe(&error, &format!("cannot {}", task(name)), &self.remote),
            Cause::Value(error) => StatementFailure { error, refused: true },
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Without a client, the driver closes the connection and ends.
        self.client = None;
        if let (Some(driver), Some(runtime)) = (self.driver.take(), &self.runtime) {
            let _ = runtime.block_on(async { timeout(CLOSE_TIMEOUT, driver).await });
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why a statement failed.
enum Cause {
    /// The server or the driver reported an error.
    Driver(Error),
    /// A value cannot be decoded.
    Value(DbError),
}

/// The result of `work`, or `None` after the limit.
async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// Runs `work` and drives the connection. An error that ends the connection is the result, because `work` does not see its cause.
async fn alongside<T>(driver: &mut Option<ConnectionFuture>, work: impl Future<Output = T>) -> Result<T, Error> {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Some(running) = driver
            && let Poll::Ready(ended) = running.as_mut().poll(context)
        {
            *driver = None;
            if let Err(error) = ended {
                return Poll::Ready(Err(error));
            }
        }
        work.as_mut().poll(context).map(Ok)
    })
    .await
}

fn parameters(statement: &BoundStatement) -> Vec<(&(dyn ToSql + Sync), Type)> {
    statement.params.iter().map(|(value, kind)| (value.as_ref() as &(dyn ToSql + Sync), kind.clone())).collect()
}

/// Sends a statement when first polled, so that the statements of a pipeline are sent in order, and waits for its result.
async fn send(client: &Client, statement: &BoundStatement) -> Result<StatementOutput, Cause> {
    let BoundStatement { name, text, kind, .. } = statement;
    match kind {
        StatementKind::Control => client.batch_execute(text).await.map(|()| StatementOutput::default()).map_err(Cause::Driver),
        // Typed statements have no name on the server, so a pooler may send each to another connection.
        StatementKind::Execute => {
            let matched = client.execute_typed(text, &parameters(statement)).await.map_err(Cause::Driver)?;
            Ok(StatementOutput { rows: Vec::new(), matched })
        }
        StatementKind::Query => {
            let rows = client.query_typed(text, &parameters(statement)).await.map_err(Cause::Driver)?;
            let rows = rows.iter().map(|row| values::decode(row, name)).collect::<Result<_, _>>().map_err(Cause::Value)?;
            Ok(StatementOutput { rows, matched: 0 })
        }
    }
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
