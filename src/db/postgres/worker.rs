//! A PostgreSQL connection on a thread of its own, because the driver has no time-out for reads.
//!
//! The session sends a [`Job`] and waits for [`Reply`]s as long as it has patience. When that ends, the thread is left to
//! itself: whenever its call returns, it finds nobody to answer, closes the connection and ends.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};
use postgres::{Client, Row};

use super::errors::{Failure, Place, describe};
use super::values::{self, Owned};
use crate::db::{DbError, DbErrorKind};
use crate::domain::Value;

/// How many rows travel together, and how many such batches may wait to be taken: what bounds the memory of a query.
const BATCH: usize = 256;
const WAITING: usize = 2;

/// Something for the connection to do, and where to answer.
pub(super) struct Job {
    pub name: &'static str,
    pub text: &'static str,
    pub params: Vec<Owned>,
    pub kind: Kind,
    pub reply: SyncSender<Reply>,
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

/// A part of the answer.
pub(super) enum Reply {
    /// Some rows, with more to come.
    Rows(Vec<Vec<Value>>),
    /// The end, with the number of rows that matched.
    Done(u64),
    /// The end.
    Failed(Failure),
}

/// The session's end of the thread.
pub(super) struct Worker {
    jobs: Sender<Job>,
    /// How long to wait for each reply; `None` for ever.
    patience: Option<Duration>,
    place: Place,
}

/// What [`Worker::connect`] runs on the thread.
pub(super) type Connector<T> = Box<dyn FnOnce() -> Result<(Client, T), DbError> + Send>;

impl Worker {
    /// Starts the thread and connects on it, within `limit`.
    pub fn connect<T: Send + 'static>(
        connector: Connector<T>,
        limit: Duration,
        patience: Option<Duration>,
        place: &Place,
    ) -> Result<(Self, T), DbError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (connected, outcome) = mpsc::sync_channel(1);
        let at = place.clone();
        thread::Builder::new()
            .name("postgresql".to_owned())
            .spawn(move || match connector() {
                Ok((client, about)) => {
                    if connected.send(Ok(about)).is_ok() {
                        serve(client, &queue, &at);
                    }
                }
                Err(error) => {
                    let _ = connected.send(Err(error));
                }
            })
            .map_err(|error| DbError::fatal(DbErrorKind::Other, format!("cannot start a thread: {error}")))?;
        match outcome.recv_timeout(limit) {
            Ok(about) => Ok((Self { jobs, patience, place: place.clone() }, about?)),
            Err(RecvTimeoutError::Timeout) => Err(DbError::fatal(
                DbErrorKind::Timeout,
                format!(
                    "no connection to {} within {} s; check that the server answers, and host, port and firewall",
                    place.name,
                    limit.as_secs_f64()
                ),
            )),
            Err(RecvTimeoutError::Disconnected) => Err(gone(place)),
        }
    }

    /// Runs a statement; `rows` receives batches and says whether to go on. Gives the number of rows that matched.
    pub fn run(
        &self,
        name: &'static str,
        text: &'static str,
        params: Vec<Owned>,
        kind: Kind,
        mut rows: impl FnMut(Vec<Vec<Value>>) -> bool,
    ) -> Result<u64, Failure> {
        let lost = |error| Failure { error, refused: false };
        let (reply, replies) = mpsc::sync_channel(WAITING);
        self.jobs.send(Job { name, text, params, kind, reply }).map_err(|_| lost(gone(&self.place)))?;
        loop {
            match receive(&replies, self.patience) {
                Ok(Reply::Rows(batch)) => {
                    if !rows(batch) {
                        // Dropping the receiver makes the thread drop the rest.
                        return Ok(0);
                    }
                }
                Ok(Reply::Done(count)) => return Ok(count),
                Ok(Reply::Failed(failure)) => return Err(failure),
                Err(RecvTimeoutError::Timeout) => {
                    let waited = self.patience.map_or(0, |limit| limit.as_secs());
                    return Err(lost(DbError::fatal(
                        DbErrorKind::Timeout,
                        format!("cannot run {name}: {} has not answered for {waited} s, so the connection was given up", self.place.name),
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(lost(gone(&self.place))),
            }
        }
    }
}

fn receive(replies: &Receiver<Reply>, patience: Option<Duration>) -> Result<Reply, RecvTimeoutError> {
    match patience {
        Some(limit) => replies.recv_timeout(limit),
        None => replies.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

fn gone(place: &Place) -> DbError {
    DbError::fatal(DbErrorKind::Connection, format!("the connection to {} is closed", place.name))
}

fn serve(mut client: Client, queue: &Receiver<Job>, place: &Place) {
    while let Ok(job) = queue.recv() {
        let last = match run(&mut client, &job, place) {
            Ok(count) => Reply::Done(count),
            Err(failure) => Reply::Failed(failure),
        };
        // A query that was broken off has nobody left to tell, and the connection goes on; after a time-out the session
        // drops its end of the queue, which ends this loop.
        let _ = job.reply.send(last);
    }
}

fn run(client: &mut Client, job: &Job, place: &Place) -> Result<u64, Failure> {
    let described = |error: &postgres::Error| describe(error, &format!("cannot run {}", job.name), place);
    let params: Vec<(&(dyn ToSql + Sync), Type)> =
        job.params.iter().map(|(value, kind)| (value.as_ref() as &(dyn ToSql + Sync), kind.clone())).collect();
    match job.kind {
        Kind::Control => client.batch_execute(job.text).map(|()| 0).map_err(|error| described(&error)),
        // Typed statements have no name on the server, so that a pooler may send each to another connection.
        Kind::Execute => client.execute_typed(job.text, &params).map_err(|error| described(&error)),
        Kind::Query => {
            let mut found = client.query_typed_raw(job.text, params).map_err(|error| described(&error))?;
            let mut batch: Vec<Vec<Value>> = Vec::new();
            while let Some(row) = found.next().map_err(|error| described(&error))? {
                batch.push(decode(&row, job)?);
                if batch.len() == BATCH && job.reply.send(Reply::Rows(std::mem::take(&mut batch))).is_err() {
                    return Ok(0);
                }
            }
            if !batch.is_empty() {
                let _ = job.reply.send(Reply::Rows(batch));
            }
            Ok(0)
        }
    }
}

fn decode(row: &Row, job: &Job) -> Result<Vec<Value>, Failure> {
    values::decode(row, job.name).map_err(|error| Failure { error, refused: true })
}
