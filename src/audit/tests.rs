//! What must hold for every log, and records that the tests of all modules share.

mod properties;
pub(super) mod samples;
