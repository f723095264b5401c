//! `--max-lag` and the other options that make a large run wait for others.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::{span, whole_number};
use super::{Error, Result};
use crate::apply::{Replica, Throttle};
use crate::config::{Host, ServerTarget, Target};
use crate::workflow::Database;

/// When a run waits between two batches. A dry run never does.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Throttle")]
pub struct ThrottleArgs {
    /// Wait while a replica is further behind than this
    #[arg(long, value_name = "SPAN", value_parser = span, requires = "replica")]
    pub max_lag: Option<Duration>,
    /// The address of a replica, for --max-lag; account and database are those of the server that is changed; repeatable
    #[arg(long, value_name = "HOST[:PORT]", requires = "max_lag")]
    pub replica: Vec<String>,
    /// Wait while more than this many sessions of the server run a statement
    #[arg(long, value_name = "N", value_parser = whole_number)]
    pub max_load: Option<usize>,
    /// Wait while Galera's flow control pauses the node for more than this share of the time
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub max_flow_control: Option<f64>,
    /// Wait while this file exists
    #[arg(long, value_name = "FILE")]
    pub pause_file: Option<PathBuf>,
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let number = text.trim_end_matches('%').parse().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "must be a number from 0 to 100".to_owned())
}

impl ThrottleArgs {
    /// Makes sure that what has to be asked during the run can be asked.
    pub fn throttle(&self, database: &Database) -> Result<Throttle> {
        let server = match database.target() {
            Target::Server(server) => Some(server),
            Target::Sqlite { .. } => None,
        };
        if server.is_none() && (self.max_lag.is_some() || self.max_load.is_some() || self.max_flow_control.is_some()) {
            return Err(Error::usage("SQLite has no replica, load or flow control to wait for; only --pause-file works"));
        }
        let replicas = self.replica.iter().zip(server.into_iter().cycle()).map(|(address, server)| {
            let (host, port) = address_of(address, server.port)?;
            let target = Target::Server(ServerTarget { host: Host::Tcp(host), port, ..server.clone() });
            let limits = database.limits().clone();
            Ok(Replica::new(address.clone(), Box::new(move || crate::db::open(&target, &limits))))
        });
        let mut throttle = Throttle::default();
        throttle.max_lag = self.max_lag.unwrap_or_default();
        throttle.replicas = replicas.collect::<Result<_>>()?;
        throttle.max_load = self.max_load.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        throttle.max_flow_control = self.max_flow_control;
        throttle.pause_file.clone_from(&self.pause_file);
        for replica in &mut throttle.replicas {
            replica.lag().map_err(|error| {
                let error = Error::from(error);
                Error::new(error.exit, format!("--replica {}: {:#}", replica.name, error.error))
            })?;
        }
        Ok(throttle)
    }
}

/// Host and port of `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn address_of(text: &str, usual: u16) -> Result<(String, u16)> {
    let wrong = || Error::usage(format!("--replica {text:?} is not HOST or HOST:PORT; an IPv6 address needs brackets"));
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, rest)| (host, rest.strip_prefix(':'))).ok_or_else(wrong)?,
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(usual), |port| port.parse().map_err(|_| wrong()))?;
    if host.is_empty() { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_or_that_of_the_primary() {
        let of = |text: &str| address_of(text, 3306).ok();
        assert_eq!(of("db2"), Some(("db2".to_owned(), 3306)));
        assert_eq!(of("db2:3307"), Some(("db2".to_owned(), 3307)));
        assert_eq!(of("[::1]"), Some(("::1".to_owned(), 3306)));
        assert_eq!(of("[::1]:1"), Some(("::1".to_owned(), 1)));
        for wrong in ["", ":3306", "db2:", "db2:x", "db2:99999", "[::1", "::1"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!((percent("12.5%"), percent("-1").is_err(), percent("101").is_err()), (Ok(12.5), true, true));
    }
}
