//! From the database to findings: reads the rows that decisions depend on, in batches, and decides with [`crate::domain::decide`].
//!
//! May use `db`, `domain` and `spool`. Everything is read in one transaction that the database holds read-only. A scan reads `backups` in
//! at most two passes, whatever it finds. The first is the census. The second finds the references to rows whose use the census leaves
//! open. All else is read by an index, or in one pass over the other tables.

mod active;
mod cases;
pub mod catalog;
mod census;
mod chain_order;
mod compact_ids;
mod document;
mod findings;
pub mod lineage;
pub mod names;
pub mod reader;
pub mod records;
mod references;
mod related_rows;
mod run;

pub use active::{ActiveBackups, volumes_of};
pub use cases::{
    Facts, backup_case, counter_case, explainers, may_change_parent, peers, quota_case, snapshot_case, snapshot_explainers, volume_case,
};
pub use census::Census;
pub use compact_ids::CompactIds;
pub use document::{Notice, NoticeCode, ScanDocument, Summary};
pub use reader::{Lock, Reader, ReservationQuery, ReservationTotals, Row, UnitAnswers, row_in};
pub use references::{ReferenceColumn, References};
#[cfg(test)]
pub(crate) use related_rows::{RelatedRows, Repaired, ScanFacts};
pub use run::{KeptRows, Scan, ScanError, ScanOutput, ScanRequest, Stream, database_info, scan, scan_to, situation, sort};
