//! Executes a plan, one transaction for each unit, and reports exactly what became of it.
//!
//! May use `plan`, `audit`, `scan`, `db`, `domain` and `spool`. First it waits for a heartbeat of the services that are silent in the plan.
//! Then every batch of units goes through the same steps: a storage recheck of the units that depend on a check; intents into the log and
//! onto the disk; for each unit a transaction in which its rows are locked, read, compared with the plan, decided again, changed under
//! guard and read back; outcomes into the log.

mod batch;
mod executor;
mod heartbeat_wait;
mod history_view;
mod journal;
mod locked_rows;
mod options;
mod partition;
mod progress;
mod recheck;
mod reconcile;
mod records;
mod simulate;
mod storage_recheck;
mod throttle;
mod undo;
mod undo_guard;
mod unit_rows;
mod worker;
mod writes;
mod written;

pub use executor::Executor;
pub(crate) use history_view::{FirstWriters, LaterUnits, first_writers};
pub use journal::{Journal, NoJournal};
pub use options::{Mode, Options};
pub use progress::{Failure, Progress, Run};
pub(crate) use reconcile::{Settlement, Standing, UnitContext, current, settle_unit};
pub(crate) use simulate::{SimulatedOutcome, simulate};
pub use storage_recheck::Precheck;
pub(crate) use storage_recheck::deciding_check;
pub use throttle::{Replica, Throttle};
pub(crate) use undo::{Undo, UndoError, UndoUnits};
