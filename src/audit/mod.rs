//! The audit log: every change is on record before it is made.

pub mod record;
