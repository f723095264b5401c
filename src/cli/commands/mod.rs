//! One file a command: its arguments, whose comments are its help, and one function.

pub mod apply;
pub mod check;
pub mod completions;
pub mod demo;
pub mod history;
pub mod plan;
pub mod repair;
pub mod scan;
pub mod undo;
