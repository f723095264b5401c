//! Rows, findings and the rules that lead from one to the other.
//!
//! Pure: no clock, file, network or environment, so that every rule can be tested in microseconds. [`decide`] makes a [`Finding`] from
//! [`rows`] of the database, a [`Situation`] and a [`Policy`]. [`transitions`] is the table of changes that the program may make at all.

mod check_result;
pub mod code;
mod database;
pub mod decide;
pub mod digest;
mod driver;
mod evidence_code;
mod finding;
pub mod hex;
pub mod id;
mod outcome;
mod policy;
mod problem_code;
pub mod rows;
pub mod sealed;
mod selection;
mod services;
mod signature;
pub mod status;
pub mod text;
pub mod time;
pub mod transitions;
mod value;

pub use check_result::{Amount, AncestorListings, CheckResult, CheckVerdict, Checks, Comparison, Level, Listing, PrecheckListing, Problem};
pub use code::{Code, CodeEntry, CodeSet};
pub use database::DatabaseInfo;
pub use driver::Driver;
pub use evidence_code::EvidenceCode;
pub use finding::{Change, Evidence, Finding, FindingKind, Need, Proposal, Verdict};
pub use outcome::{Outcome, Tally, UnitResult};
pub use policy::{AssumeDead, Policy, Situation, Thresholds};
pub use problem_code::ProblemCode;
pub use rows::{Attachment, Backup, ColumnSet, Image, Moved, Snapshot, Table, Volume};
pub use sealed::{Body, SealError, Sealed};
pub use selection::{Matched, NULL, STATUSES, Selection};
pub use services::{Heartbeat, ServiceRow, Services, is_same_host};
pub use signature::Signature;
pub use value::Value;
