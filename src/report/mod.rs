//! Results for people and for other programs: tables, JSON, YAML, CSV, a plan as Markdown or as SQL.
//!
//! May use `domain`, `plan` and results only, and of `db` the name of the engine. It never prints: everything goes to
//! a `&mut dyn io::Write`, so that a caller decides where, and an I/O error (a broken pipe among them) comes back as it is.
//! All text that came out of the database passes through [`safe`] on its way.

mod expanded;
pub mod grid;
pub(crate) mod json;
pub mod markdown;
pub mod safe;
pub mod script;
mod yaml;
