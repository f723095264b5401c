//! Checks whether the data of a backup is on its storage, complete and correct.
//!
//! Reads, and never writes. A verdict is only as good as what was read, which a
//! [`CheckResult`](crate::domain::CheckResult) states, too. May use `domain`, `format`, `parallel` and `storage`.

mod capacity;
pub mod ceph;
pub mod check_document;
pub mod chunked;
mod fault;
pub mod partial;
mod precheck;
mod ranges;
mod run;
mod target;
mod watch;

pub use capacity::Capacity;
pub use check_document::CheckDocument;
pub use fault::{Faults, Severity};
pub use precheck::{PrecheckRound, precheck};
pub use run::{Checker, Request};
pub use target::{StorageAccess, Subject, Target};
pub use watch::Watch;
