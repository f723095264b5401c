//! The integration tests: real servers, Cinder's real schemas, the program as its users run it.
//!
//! `tests/run` prepares what these need (packages, a Python environment with Cinder in it) and runs them with the rest.
//! One binary, so that each server is started once, with one module per topic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

mod batches;
mod ceph;
mod check;
mod check_real;
#[allow(dead_code, reason = "a harness offers more than one moment's tests use")]
mod cinder;
mod cinder_facts;
mod cli;
mod codes;
mod connections;
mod costs;
mod damage;
#[allow(dead_code, reason = "a harness offers more than one moment's tests use")]
mod database;
mod deploy;
mod differential;
mod doctor;
mod documents;
mod dry_run;
mod explain;
mod failover;
mod faults;
mod guards;
mod harness;
mod help;
mod history;
mod house;
mod library;
mod partition;
mod passes;
mod plan_stream;
#[allow(dead_code, reason = "a harness offers more than one moment's tests use")]
mod population;
#[allow(dead_code, reason = "a harness offers more than one moment's tests use")]
mod program;
mod quotas;
mod readme;
#[allow(dead_code, reason = "a harness offers more than one moment's tests use")]
mod real_backups;
mod rehost;
mod rescue;
mod row_conflicts;
#[allow(dead_code, reason = "a harness offers more than one moment's tests use")]
mod rows;
mod scan_stream;
mod scenarios;
#[allow(dead_code, reason = "a harness offers more than one moment's tests use")]
mod schemas;
#[allow(dead_code, reason = "a harness offers more than one moment's tests use")]
mod servers;
mod storage;
mod storage_servers;
mod tampering;
mod terminal;
mod test_command;
mod throttle;
mod trips;
