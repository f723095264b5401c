//! From the database to findings: reads the rows that a decision rests on, a batch at a time, and has [`crate::domain::decide`] judge.
//!
//! May use `db` and `domain`. Everything is read in one transaction that the database holds read-only.

mod census;
mod document;
mod gather;
pub mod reader;
mod selection;

pub use census::Census;
pub use document::{DatabaseInfo, Notice, ScanDocument, Summary};
pub use gather::{Scan, ScanError, database_info, scan, situation};
pub use reader::{Lock, Reader};
pub use selection::{NULL, STATUSES, Selection};
