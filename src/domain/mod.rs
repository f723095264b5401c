//! What is known about backups, and what follows from it: pure, with no clock, file, network or environment.

mod value;

pub use value::Value;
