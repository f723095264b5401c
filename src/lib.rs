//! Finds OpenStack Cinder backups that hang in `creating`, `restoring` or `deleting`, says why, and repairs them straight
//! in the database: guarded, recorded, undoable.
//!
//! The way through the code, from the inside out:
//!
//! - [`domain`]: rows, verdicts and decisions; pure. [`plan`] (a sealed document of changes) and the hash chain of [`audit`]
//!   depend on it alone.
//! - [`backoff`]: pauses between attempts. [`parallel`]: works through a list with several threads. [`input`]: opens and reads the files
//!   that the program is given, without waiting for a pipe that has no writer. [`spool`]: a list that may be larger than memory.
//! - [`ledger`]: when a scrub verified each backup, and with which result.
//! - [`config`]: where the database is. [`db`]: a session on it, three engines behind one trait. [`scan`]: from rows to findings.
//! - [`mod@format`]: names, side files and compression of Cinder's chunked backups; pure over a stream.
//! - [`storage`]: where backups are kept; only read. [`verify`]: whether the data of a backup is there, whole and right.
//! - [`apply`]: carries out a plan, a unit a transaction, with every intent on record first.
//! - `report`: results as tables, documents, scripts.
//! - `workflow`: what the commands do, step by step; prints nothing. [`cli`]: arguments, prompts, views, exit codes.

#![forbid(unsafe_code)]

pub mod apply;
pub mod audit;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod db;
pub mod domain;
pub mod format;
pub mod input;
pub mod ledger;
pub mod parallel;
pub mod plan;
mod report;
pub mod scan;
pub mod spool;
pub mod storage;
pub mod verify;
mod workflow;
