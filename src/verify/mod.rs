//! Checks whether the data of a backup is on its storage, complete and correct.
//!
//! Reads, and never writes. A verdict is only as good as what was read, which a
//! [`CheckResult`](crate::domain::CheckResult) states, too. May use `domain`, `format`, `parallel` and `storage`.

mod capacity;
pub mod ceph;
pub(crate) mod check_document;
pub(crate) mod chunked;
mod combine;
mod fault;
mod listings;
pub mod orphans;
pub(crate) mod partial;
mod precheck;
mod ranges;
pub mod removal;
pub mod rescue;
mod run;
mod stored_results;
mod target;
mod watch;

pub(crate) use capacity::Capacity;
pub use check_document::CheckDocument;
pub(crate) use combine::combine;
pub(crate) use fault::{Faults, Severity};
pub(crate) use precheck::{PrecheckRound, precheck, precheck_witness};
pub(crate) use run::{Answer, Checker, Request, Task};
pub(crate) use stored_results::{CUT_OFF, StoredResults};
pub use target::Subject;
pub(crate) use target::{StorageAccess, Target};
pub use watch::Watch;
