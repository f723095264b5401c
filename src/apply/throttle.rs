//! What a run waits for between two batches: a replica that lags, a server under load, Galera's flow control, or a file of a person's.
//!
//! Uses `db` only. Each look takes one statement on the server and one on each replica.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::db::statements::{LOAD, REPLICA_LAG};
use crate::db::{DbError, DbErrorKind, Engine, Session};
use crate::domain::Value;
use crate::domain::time::human;

/// Opens a session on a replica.
pub type OpenReplica = Box<dyn Fn() -> Result<Box<dyn Session>, DbError> + Send + Sync>;

/// A server that copies the one with the rows.
pub struct Replica {
    /// How messages name it.
    pub name: String,
    open: OpenReplica,
    session: Option<Box<dyn Session>>,
}

/// The limits of a run; without any it never waits.
#[derive(Default)]
pub struct Throttle {
    /// How far a replica may be behind.
    pub max_lag: Duration,
    /// The servers that copy.
    pub replicas: Vec<Replica>,
    /// How many sessions of the server may run a statement, beside ours.
    pub max_load: Option<i64>,
    /// For which share of the time Galera's flow control may have paused the node, in percent.
    pub max_flow_control: Option<f64>,
    /// The run waits while this file exists.
    pub pause_file: Option<PathBuf>,
    /// When the load was read last, and for how many nanoseconds flow control had paused the node by then.
    paused: Option<(Instant, i64)>,
}

impl Replica {
    /// Opened when it is asked first.
    pub fn new(name: String, open: OpenReplica) -> Self {
        Self { name, open, session: None }
    }

    /// How far it is behind; `None` if it does not say: its copying has stopped, or has just begun.
    ///
    /// # Errors
    /// It cannot be asked, or is no replica.
    pub fn lag(&mut self) -> Result<Option<Duration>, DbError> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert((self.open)()?),
        };
        let engine = session.server().engine;
        let found = session.rows(&REPLICA_LAG, &[]);
        if found.is_err() {
            self.session = None;
        }
        let found = found?;
        let Some(row) = found.first() else {
            return Err(DbError::fatal(DbErrorKind::Other, "it is not a replica"));
        };
        // SHOW REPLICA STATUS has Seconds_Behind_Source, or _Master, in the same place in all versions.
        let place = if engine == Engine::Postgresql { 0 } else { 32 };
        Ok(row.get(place).and_then(Value::as_integer).map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs())))
    }

    /// Why the run has to wait for it.
    fn obstacle(&mut self, limit: Duration) -> Option<String> {
        let name = self.name.clone();
        match self.lag() {
            Err(error) => Some(format!("the replica {name} cannot be asked how far it is behind: {error}")),
            Ok(None) => Some(format!("the replica {name} does not say how far it is behind: its copying has stopped or has just begun")),
            Ok(Some(lag)) if lag > limit => {
                let span = |span: Duration| human(span.as_secs().try_into().unwrap_or(i64::MAX));
                Some(format!("the replica {name} is {} behind (--max-lag {})", span(lag), span(limit)))
            }
            Ok(Some(_)) => None,
        }
    }
}

impl Throttle {
    /// Why the run has to wait now.
    ///
    /// # Errors
    /// Those of the run's own session. A replica that cannot be asked is a reason to wait.
    pub fn obstacle(&mut self, session: &mut dyn Session) -> Result<Option<String>, DbError> {
        if let Some(file) = self.pause_file.as_ref().filter(|file| file.exists()) {
            return Ok(Some(format!("{} exists (--pause-file)", file.display())));
        }
        if let Some(obstacle) = self.replicas.iter_mut().find_map(|replica| replica.obstacle(self.max_lag)) {
            return Ok(Some(obstacle));
        }
        if self.max_load.is_none() && self.max_flow_control.is_none() {
            return Ok(None);
        }
        let rows = session.rows(&LOAD, &[])?;
        let number = |name: &str| {
            let is_it = |row: &&Vec<Value>| row.first().and_then(Value::as_text).is_some_and(|found| found.eq_ignore_ascii_case(name));
            rows.iter().find(is_it).and_then(|row| row.get(1)).and_then(|value| value.to_string().parse::<i64>().ok())
        };
        let running = number("Threads_running").unwrap_or(0);
        if let Some(limit) = self.max_load.filter(|limit| running > *limit) {
            return Ok(Some(format!("{running} sessions of the server run a statement (--max-load {limit})")));
        }
        Ok(self.max_flow_control.zip(number("wsrep_flow_control_paused_ns")).and_then(|(limit, paused)| {
            let share = self.share_paused(paused)?;
            (share > limit).then(|| format!("flow control paused the node for {share:.0} % of the time (--max-flow-control {limit} %)"))
        }))
    }

    /// For which share of the time since the last look flow control paused the node, in percent.
    fn share_paused(&mut self, paused: i64) -> Option<f64> {
        let now = Instant::now();
        let (then, before) = self.paused.replace((now, paused))?;
        Some(share(now.duration_since(then), paused - before))
    }
}

/// Nanoseconds as a share of a time, in percent.
fn share(of: Duration, nanoseconds: i64) -> f64 {
    if of.is_zero() { 0.0 } else { nanoseconds as f64 / of.as_nanos() as f64 * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_time_is_in_percent() {
        assert!((share(Duration::from_secs(2), 500_000_000) - 25.0).abs() < 1e-9);
        assert!(share(Duration::ZERO, 1).abs() < 1e-9);
    }

    #[test]
    fn flow_control_is_measured_from_the_second_look_on() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.share_paused(5), None);
        assert!(throttle.share_paused(i64::MAX).is_some_and(|share| share > 100.0));
    }
}
