//! A PostgreSQL connection that is driven only while somebody waits for an answer, and never longer than there is patience.
//!
//! The driver is asynchronous; its runtime lives on the caller's own thread, so that an answer costs no change of threads.
//! Statements that go together are all sent before the first answer is waited for.

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

use super::errors::{Failure, Place, describe};
use super::values::{self, Owned};
use crate::db::task;
use crate::db::{DbError, DbErrorKind};
use crate::domain::Value;

/// How many rows of a long answer are taken at a time: what bounds the memory of a query.
const BATCH: usize = 256;

/// How long a connection that is no longer needed may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// The driver's side of a connection; it has to be polled for anything to move.
pub(super) type Driver = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A connection that was just made.
pub(super) struct Connected {
    pub client: Client,
    pub driver: Driver,
    /// TLS protects it.
    pub encrypted: bool,
}

/// Something for the connection to do.
pub(super) struct Job {
    pub name: &'static str,
    pub text: &'static str,
    pub params: Vec<Owned>,
    pub kind: Kind,
}

/// What to send a statement as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows are expected.
    Query,
    /// A count is expected.
    Execute,
    /// Begins or ends a transaction.
    Control,
}

/// What came of a job: its rows, and how many matched.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub rows: Vec<Vec<Value>>,
    pub matched: u64,
}

/// A connection.
pub(super) struct Link {
    client: Option<Client>,
    /// Gone once it has ended.
    driver: Option<Driver>,
    runtime: Option<Runtime>,
    /// How long to wait for each answer; `None` for ever.
    patience: Option<Duration>,
    place: Place,
}

impl Link {
    /// Connects within `limit`; says whether TLS protects the connection.
    pub fn connect(
        attempt: impl Future<Output = Result<Connected, DbError>>,
        limit: Duration,
        patience: Option<Duration>,
        place: &Place,
    ) -> Result<(Self, bool), DbError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| DbError::fatal(DbErrorKind::Other, format!("cannot wait for a connection: {error}")))?;
        let outcome = runtime.block_on(async { timeout(limit, attempt).await });
        let connected = match outcome {
            Ok(Ok(connected)) => connected,
            failed => {
                // The system may still be looking for the host's address; that is not waited for.
                runtime.shutdown_background();
                let late = format!(
                    "no connection to {} within {} s; check that the server answers, and host, port and firewall",
                    place.name,
                    limit.as_secs_f64()
                );
                return Err(match failed {
                    Ok(Err(error)) => error,
                    _ => DbError::fatal(DbErrorKind::Connection, late),
                });
            }
        };
        let Connected { client, driver, encrypted } = connected;
        let link = Self { client: Some(client), driver: Some(driver), runtime: Some(runtime), patience, place: place.clone() };
        Ok((link, encrypted))
    }

    /// Runs one statement; `rows` receives batches as they arrive and says whether to go on.
    pub fn run(&mut self, job: &Job, mut rows: impl FnMut(Vec<Vec<Value>>) -> bool) -> Result<u64, Failure> {
        if job.kind != Kind::Query {
            let replies = self.run_together(std::slice::from_ref(job))?;
            return replies.into_iter().next().map_or(Ok(0), |reply| reply.map(|reply| reply.matched));
        }
        let patience = self.patience;
        let found = self.wait(job.name, async |client| patient(patience, client.query_typed_raw(job.text, parameters(job))).await)?;
        let mut found = Box::pin(found.map_err(|error| self.failure(Cause::Driver(error), job))?);
        loop {
            let taken = self.wait(job.name, async |_| patient(patience, take(found.as_mut())).await)?;
            let (batch, more) = taken.map_err(|error| self.failure(Cause::Driver(error), job))?;
            let batch = batch
                .iter()
                .map(|row| values::decode(row, job.name))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| Failure { error, refused: true })?;
            // What is left of an answer that nobody wants any more is read and thrown away before the next one.
            if (!batch.is_empty() && !rows(batch)) || !more {
                return Ok(0);
            }
        }
    }

    /// Runs several statements that give few rows: all are sent, then all answers are taken, in their order.
    pub fn run_together(&mut self, jobs: &[Job]) -> Result<Vec<Result<Reply, Failure>>, Failure> {
        let first = jobs.first().map_or("nothing", |job| job.name);
        let patience = self.patience;
        let replies = self.wait(first, async |client| {
            let mut waiting: Vec<_> = jobs.iter().map(|job| Box::pin(maybe_done(perform(client, job)))).collect();
            poll_fn(|context| {
                for answer in &mut waiting {
                    let _ = answer.as_mut().poll(context);
                }
                Poll::Ready(())
            })
            .await;
            let mut replies = Vec::with_capacity(jobs.len());
            for mut answer in waiting {
                patient(patience, answer.as_mut()).await?;
                replies.extend(answer.as_mut().take_output());
            }
            Some(replies)
        })?;
        Ok(replies.into_iter().zip(jobs).map(|(reply, job)| reply.map_err(|error| self.failure(error, job))).collect())
    }

    /// Waits for `work` while driving the connection. Its end without a result is the end of patience.
    fn wait<T>(&mut self, name: &str, work: impl AsyncFnOnce(&Client) -> Option<T>) -> Result<T, Failure> {
        let lost = |error| Failure { error, refused: false };
        let (Some(client), Some(runtime)) = (&self.client, &self.runtime) else {
            return Err(lost(gone(&self.place)));
        };
        match runtime.block_on(alongside(&mut self.driver, work(client))) {
            Ok(Some(done)) => Ok(done),
            Ok(None) => {
                // No goodbye either: it would have to wait behind the answer that does not come.
                self.driver = None;
                let waited = self.patience.map_or(0, |limit| limit.as_secs());
                Err(lost(DbError::fatal(
                    DbErrorKind::Timeout,
                    format!("cannot {}: {} has not answered for {waited} s, so the connection was given up", task(name), self.place.name),
                )))
            }
            Err(error) => Err(describe(&error, &format!("cannot {}", task(name)), &self.place)),
        }
    }

    fn failure(&self, cause: Cause, job: &Job) -> Failure {
        match cause {
            Cause::Driver(error) => describe(&error, &format!("cannot {}", task(job.name)), &self.place),
            Cause::Value(error) => Failure { error, refused: true },
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Once there is no client, the driver says goodbye to the server and ends.
        self.client = None;
        if let (Some(driver), Some(runtime)) = (self.driver.take(), &self.runtime) {
            let _ = runtime.block_on(async { timeout(GOODBYE, driver).await });
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why a job failed.
enum Cause {
    /// The server or the driver said so.
    Driver(Error),
    /// A value could not be read.
    Value(DbError),
}

/// What comes of `work` within the limit.
async fn patient<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// `work`, with the connection driven beside it. What ends the connection is the answer, for `work` only sees that it is gone.
async fn alongside<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> Result<T, Error> {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Some(moving) = driver
            && let Poll::Ready(ended) = moving.as_mut().poll(context)
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

fn parameters(job: &Job) -> Vec<(&(dyn ToSql + Sync), Type)> {
    job.params.iter().map(|(value, kind)| (value.as_ref() as &(dyn ToSql + Sync), kind.clone())).collect()
}

/// Sends a statement when first polled, so that several of them go out in their order.
async fn perform(client: &Client, job: &Job) -> Result<Reply, Cause> {
    match job.kind {
        Kind::Control => client.batch_execute(job.text).await.map(|()| Reply::default()).map_err(Cause::Driver),
        // Typed statements have no name on the server, so that a pooler may send each to another connection.
        Kind::Execute => {
            let matched = client.execute_typed(job.text, &parameters(job)).await.map_err(Cause::Driver)?;
            Ok(Reply { rows: Vec::new(), matched })
        }
        Kind::Query => {
            let rows = client.query_typed(job.text, &parameters(job)).await.map_err(Cause::Driver)?;
            let rows = rows.iter().map(|row| values::decode(row, job.name)).collect::<Result<_, _>>().map_err(Cause::Value)?;
            Ok(Reply { rows, matched: 0 })
        }
    }
}

/// The next rows, and whether there may be more.
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

fn gone(place: &Place) -> DbError {
    DbError::fatal(DbErrorKind::Connection, format!("the connection to {} is closed", place.name))
}
