//! Backups of the chunked drivers: numbered objects, a list of them, and a digest of every block of the volume.
//!
//! - [`survey`] takes the [`inventory`] of one backup: names, sizes and side files. [`confirm`] requests single objects where a
//!   listing proves nothing, and [`layout`] works out which bytes of the volume come from which object.
//! - [`planner`] gives each object the digests that prove it, [`reader`] runs the threads, and [`piece`] reads and compares.
//! - [`inspection`] holds what is known of one backup, and [`chain`] puts the inspections of a chain together.

mod chain;
mod confirm;
mod digest;
mod inspection;
mod inventory;
mod layout;
mod options;
mod piece;
mod planner;
mod reader;
mod survey;
#[cfg(test)]
mod tests;
mod transfer;

pub use self::chain::check;
pub use self::inspection::Inspection;
pub use self::inventory::StoredBackup;
pub(super) use self::inventory::{LARGE, MOST_LISTED, Times, prefix_of};
pub use self::options::{ReadContext, ReadOptions, Share};
pub(super) use self::planner::LISTED_OBJECT;
