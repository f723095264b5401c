//! Rows, findings and the rules that lead from one to the other.
//!
//! Pure: no clock, file, network or environment, so that every rule can be tested in microseconds. `decide` makes a `Finding` from
//! rows of the database, a `Situation` and a `Policy`. `transitions` is the table of changes that the program may make at all.

mod check_result;
pub mod code;
mod database;
pub(crate) mod decide;
pub(crate) mod digest;
mod driver;
mod evidence_code;
mod finding;
pub(crate) mod hex;
pub(crate) mod id;
mod outcome;
mod policy;
mod problem_code;
pub(crate) mod record_stream;
mod restorable;
mod rows;
mod sealed;
mod selection;
mod services;
pub(crate) mod shards;
mod signature;
pub(crate) mod status;
pub mod text;
pub(crate) mod time;
pub(crate) mod transitions;
mod value;

pub(crate) use check_result::{Amount, AncestorListings, PrecheckListing};
pub use check_result::{CheckResult, CheckVerdict, Checks, Comparison, Level, Listing, Problem};
pub use code::{Code, CodeEntry, CodeSet};
pub(crate) use database::DatabaseInfo;
pub(crate) use driver::Driver;
pub use evidence_code::EvidenceCode;
pub use finding::{Change, Need, Verdict};
pub(crate) use finding::{Evidence, Finding, FindingKind, Proposal};
pub use outcome::Outcome;
pub(crate) use outcome::{Tally, UnitResult};
pub use policy::{AssumeDead, NewHost, Policy};
pub(crate) use policy::{Situation, Thresholds};
pub use problem_code::ProblemCode;
pub use restorable::RestoreCode;
pub(crate) use restorable::{Restorable, RestoreReason, RestoreSite, restorable};
pub(crate) use rows::{Attachment, Moved};
pub use rows::{Backup, ColumnSet, Image, Snapshot, Table, Volume};
pub(crate) use rows::{BackupMetadata, QuotaUsage, Reservation, StorageRow};
pub(crate) use sealed::{Body, SealError, Sealed};
pub use selection::Selection;
pub(crate) use selection::{Matched, NULL, STATUSES};
pub(crate) use services::{Heartbeat, ServiceRow, Services, is_same_host};
pub(crate) use signature::Signature;
pub use value::Value;

/// Displays enums by the names that serde gives their variants: their words in JSON.
macro_rules! display_by_serde {
    ($($kind:ty),+) => {
        $(impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                serde::Serialize::serialize(self, f)
            }
        })+
    };
}
pub(crate) use display_by_serde;

display_by_serde!(CheckVerdict, Driver, FindingKind, Level, Outcome, Restorable, Table, Verdict);
