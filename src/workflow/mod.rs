//! What the commands do: propose changes, choose what to check, read the storage, execute a plan, compare the log with the rows.
//!
//! Sees everything but `cli`. Returns values and reports [`WorkEvent`]s to an [`Observer`]; prints nothing, asks nobody, and knows neither
//! command lines nor exit codes.

pub mod actor;
mod catalog_source;
mod check;
mod check_job;
mod database;
mod doctor;
mod error;
mod evidence;
mod execute;
mod explain;
mod merge;
mod observer;
mod orphans;
mod propose;
mod reconcile;
mod rescue;
mod result_file;
mod scan_document;
mod scan_file;
mod scan_stream;
mod script;
mod scrub;
mod shard_file;
mod signing;
mod skipped;
mod storage_recheck;
mod stores;
mod targets;
mod undo;
mod unmatched;
mod witness;

pub use check::{Check, Checked, MAX_RUNTIME, Portion, Tasks};
pub use check_job::{CheckJob, CheckReport, Resume};
pub use database::Database;
pub use doctor::{Found, Line, examine_database, examine_log, examine_storage};
pub use error::{Error, Obstacle, Result};
pub use evidence::{check_for_decision, read_evidence, unsettled_targets};
pub use execute::{Execution, RecordedRun, RunLog, dry_run, require_database_of};
pub use explain::{Explanation, Way, explain};
pub use merge::Merge;
pub use observer::{Observer, Stop, WorkEvent, reading};
pub use orphans::{OrphanCheck, OrphanReport};
pub use propose::{ProposedPlan, Wanted, find};
pub use reconcile::{ReconciledUnit, reconcile};
pub use rescue::{KEY_IS_UNKNOWN, Rescue, RescueReport};
pub use scan_file::Share as CatalogShare;
pub use scan_stream::{StreamedScan, stream_scan};
pub use scrub::{Scrub, ScrubReport, Scrubbed};
pub use shard_file::Earlier;
pub use signing::{SigningKey, VerifyKey};
pub use skipped::{LeftAlone, Refused, Skipped, unreported_backups};
pub use storage_recheck::depends_on_storage;
pub use stores::{StorageSettings, Stores};
pub use targets::TargetList;
pub use undo::UndoneRun;
pub use unmatched::Hosts;
