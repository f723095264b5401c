//! From the database to findings: reads the rows that a decision rests on, a batch at a time, and has [`crate::domain::decide`] judge.
//!
//! May use `db` and `domain`. Everything is read in one transaction that the database holds read-only.

mod cases;
mod census;
mod document;
mod findings;
pub mod lineage;
pub mod names;
pub mod reader;
mod related_rows;

pub use cases::{
    ActiveBackups, Facts, backup_case, counter_case, explainers, may_become_available, peers, snapshot_case, snapshot_explainers,
    volume_case, volumes_of,
};
pub use census::Census;
pub use document::{Notice, NoticeCode, ScanDocument, Summary};
pub use findings::{Images, KeptRows, Scan, ScanError, ScanRequest, database_info, scan, situation};
pub use reader::{Lock, Reader, Row, row_in};
#[cfg(test)]
pub(crate) use related_rows::{RelatedRows, Repaired, ScanFacts};
